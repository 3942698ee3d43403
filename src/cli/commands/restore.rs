//! `skrin restore`: put a file or a tree back to what it was.

use std::path::Path;

use crate::args::{RestoreArgs, RestoreHow};
use crate::commands::sync::senseless;
use crate::exit::{Exit, Failure, Outcome};
use crate::past::{Answer, Request, Restored, When, ask, find};
use crate::print;

/// Restores what was at a time.
///
/// # Errors
/// `Absent` where nothing was there then, `Busy` for a new path that is taken, `Integrity` for a part of the past that
/// cannot be had.
pub(crate) fn run(args: &RestoreArgs) -> Outcome {
    restore(&args.path, args.at.clone(), &args.how)
}

/// Restores what was at a point of the past.
///
/// # Errors
/// As [`run`].
pub(crate) fn restore(path: &Path, when: When, how: &RestoreHow) -> Outcome {
    let found = find(path)?;
    let to = match &how.to {
        None => None,
        Some(to) => {
            let to = find(to)?;
            if to.mount != found.mount {
                let text = "DEST lies in another mount; contents cannot be shared between vaults";
                return Err(Failure::new(Exit::Usage, text));
            }
            Some(to.below)
        }
    };
    let request = Request::Restore {
        path: found.below,
        when,
        exact: how.exact,
        to,
    };
    let answer = ask(&found.mount, request);
    let answer = answer.map_err(|failure| failure.during(path.display()))?;
    let Answer::Restored(done) = answer else {
        return Err(senseless());
    };
    for doubt in &done.doubts {
        print::note(format!(
            "warning: the result may differ from what was: {doubt}"
        ));
    }
    match how.json {
        true => print::json(&done),
        false => print::line(summary(&done)),
    }
    Ok(())
}

fn summary(done: &Restored) -> String {
    let parts = [
        (done.contents, "with their old contents"),
        (done.made, "made again"),
        (done.attributes, "with their old attributes"),
        (done.unchanged, "unchanged"),
        (done.removed, "removed"),
        (done.kept, "newer and kept"),
    ];
    let told = parts.iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> = told.map(|(n, what)| format!("{n} {what}")).collect();
    match told.is_empty() {
        true => "nothing was there then, and nothing is".to_owned(),
        false => told.join(", "),
    }
}
