//! `skrin history`: what was done to a file.

use indicatif::HumanBytes;

use crate::args::HistoryArgs;
use crate::commands::sync::senseless;
use crate::exit::Outcome;
use crate::past::{Answer, Request, Version, ask, find, local};
use crate::print;

/// Lists the changes of a file, the oldest first.
///
/// # Errors
/// `Absent` where there never was such a file, `Integrity` for a part of the history that cannot be had.
pub(crate) fn run(args: &HistoryArgs) -> Outcome {
    let found = find(&args.path)?;
    let request = Request::History { path: found.below };
    let Answer::Versions(versions) = ask(&found.mount, request)? else {
        return Err(senseless());
    };
    for version in &versions {
        match args.json {
            true => print::json(version),
            false => print::line(line(version)),
        }
    }
    Ok(())
}

fn line(version: &Version) -> String {
    let name = version.name.as_deref().unwrap_or_default();
    let what = match (version.change.as_str(), &version.from) {
        ("renamed", Some(from)) => format!("renamed from {from} to {name}"),
        ("replaced", _) => format!("replaced by another file as {name}"),
        ("linked", _) => format!("also named {name}"),
        ("made" | "removed", _) => format!("{} as {name}", version.change),
        (change, _) => change.to_owned(),
    };
    let size = version.size.map(|size| format!(", {}", HumanBytes(size)));
    let conflict = version.conflict.as_ref();
    let conflict = conflict.map(|name| format!(", in conflict, as {name}"));
    format!(
        "{}  {:<16}  {}  {what}{}{}",
        local(&version.time),
        version.version,
        version.device,
        size.unwrap_or_default(),
        conflict.unwrap_or_default()
    )
}
