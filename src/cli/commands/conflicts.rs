//! `skrin conflicts`: which conflict copies there are, and choosing between one and its document.

use std::path::{Path, PathBuf};

use indicatif::HumanBytes;
use skrin_fs::FsOptions;

use crate::args::{ConflictsArgs, ConflictsVerb, KeepArgs, UnlockArgs};
use crate::commands::sync::{senseless, settle, silent};
use crate::conflicts::{Answer, Conflict, Kept, Request, Side, list};
use crate::exit::{Exit, Failure, Outcome};
use crate::past::{Found, find, local};
use crate::people::owners;
use crate::reader::Target;
use crate::{control, print};

/// Lists conflict copies, or chooses.
///
/// # Errors
/// `Absent` for what is not there; `Busy` where a choice is not possible now; those of opening a vault.
pub(crate) fn run(args: &ConflictsArgs) -> Outcome {
    match &args.verb {
        Some(ConflictsVerb::Keep(keep)) => choose(keep),
        None => show(args.place.as_deref().unwrap_or("."), args),
    }
}

fn show(place: &str, args: &ConflictsArgs) -> Outcome {
    let conflicts = match mounted(place) {
        Ok(found) => {
            let request = Request::List { below: found.below };
            match ask(&found.mount, request)? {
                Answer::Listed(conflicts) => conflicts,
                Answer::Kept(_) => return Err(senseless()),
            }
        }
        Err(failure) if failure.exit == Exit::Absent => of_vault(place, &args.unlock)?,
        Err(failure) => return Err(failure),
    };
    for conflict in &conflicts {
        match args.json {
            true => print::json(conflict),
            false => lines(conflict).iter().for_each(print::line),
        }
    }
    if conflicts.is_empty() && !args.json {
        print::line("no conflict copies");
    }
    Ok(())
}

/// What was typed, as a place in a mount.
fn mounted(place: &str) -> Outcome<Found> {
    match place.contains("://") {
        true => Err(Failure::new(Exit::Absent, "an address is no path")),
        false => find(&PathBuf::from(place)),
    }
}

/// Reads a vault without mounting it. Only metadata are read.
fn of_vault(vault: &str, unlock: &UnlockArgs) -> Outcome<Vec<Conflict>> {
    let runtime = super::runtime()?;
    let target = runtime.block_on(Target::open(vault, unlock))?;
    let (mut layers, _dir) = runtime.block_on(target.layers())?;
    let room = runtime.block_on(target.unlocked.load_room(&*target.store))?;
    let _context = runtime.enter();
    let fs = layers.file_system(FsOptions {
        read_only: true,
        background: false,
        poll_interval: None,
        ..FsOptions::default()
    })?;
    list(&fs, &Vec::new(), &owners(&room.state))
}

fn choose(args: &KeepArgs) -> Outcome {
    let found = find(&args.path)?;
    let request = Request::Keep { path: found.below };
    let answer = ask(&found.mount, request);
    let answer = answer.map_err(|failure| failure.during(args.path.display()))?;
    let Answer::Kept(kept) = answer else {
        return Err(senseless());
    };
    match args.json {
        true => print::json(&kept),
        false => told(&kept).iter().for_each(print::line),
    }
    Ok(())
}

/// Asks the mount, after the kernel has handed it what programs wrote.
fn ask(mount: &Path, request: Request) -> Outcome<Answer> {
    // What cannot be written was told to who wrote it.
    let _ = settle(mount);
    match control::ask(mount, &control::Request::Conflicts(request), &mut |_| {})? {
        Some(control::Answer::Conflicts(answer)) => Ok(answer),
        Some(_) => Err(senseless()),
        None => Err(silent(mount)),
    }
}

fn lines(conflict: &Conflict) -> Vec<String> {
    let how = match conflict.cause.as_str() {
        "written" => "written while another device had changed it",
        "made" => "made under a name that another device had given",
        "moved" => "saved or moved over what another device had changed or made",
        _ => "brought back by what was put into it, while its name was taken",
    };
    let document = match &conflict.document {
        Some(document) => side(&document.path, document),
        None => format!("    {}: not there any more", conflict.of),
    };
    vec![
        format!("{}  ({how})", conflict.path),
        side("this copy", &conflict.copy),
        document,
    ]
}

fn side(what: &str, side: &Side) -> String {
    let size = match side.kind.as_str() {
        "file" => HumanBytes(side.size).to_string(),
        kind => kind.to_owned(),
    };
    let whose = match &side.person {
        Some(person) => format!(" ({person})"),
        None => String::new(),
    };
    format!(
        "    {what}: {size}, changed {} by {}{whose}",
        local(&side.mtime),
        side.device
    )
}

fn told(kept: &Kept) -> Vec<String> {
    let document = &kept.document;
    let mut lines = vec![match &kept.from {
        Some(from) => format!(
            "{document} is what {from} was; what it was before is in `skrin history`, and `skrin restore` puts it back"
        ),
        None => format!(
            "{document} stays as it is; {} went, and can be had with `skrin restore`",
            kept.gone.join(", ")
        ),
    }];
    if kept.left > 0 {
        lines.push(format!("there are more copies of it: {}", kept.left));
    }
    lines
}
