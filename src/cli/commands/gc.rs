//! `skrin gc`: delete from the storage what nobody needs any more.

use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration};
use serde::Serialize;

use super::sync::{mount_of, senseless, silent};
use crate::args::{GcArgs, RetentionArgs};
use crate::control::{Answer, Collected, Request, ask};
use crate::exit::Outcome;
use crate::print;

/// Has the mount give space back, and says what it freed and what keeps the rest.
///
/// # Errors
/// `Absent` where no vault is mounted, `Unreachable` or `Other` where the storage refuses.
pub(crate) fn run(args: &GcArgs) -> Outcome {
    let point = mount_of(&args.dir)?;
    match ask(&point, &Request::Gc, &mut |_| {})? {
        Some(Answer::Collected(collected)) => {
            match args.json {
                true => print::json(&*collected),
                false => show(&collected),
            }
            Ok(())
        }
        Some(_) => Err(senseless()),
        None => Err(silent(&point)),
    }
}

/// What `retention --json` says.
#[derive(Serialize)]
struct Kept {
    mount_point: String,
    /// 0 is for ever.
    seconds: u64,
}

/// Shows how much of the past is kept, or sets it for all devices.
///
/// # Errors
/// As [`run`].
pub(crate) fn retention(args: &RetentionArgs) -> Outcome {
    let point = mount_of(&args.dir)?;
    let seconds = match ask(&point, &Request::Retention(args.time), &mut |_| {})? {
        Some(Answer::Retention(seconds)) => seconds,
        Some(_) => return Err(senseless()),
        None => return Err(silent(&point)),
    };
    match (args.json, seconds) {
        (true, _) => {
            let mount_point = point.display().to_string();
            print::json(&Kept {
                mount_point,
                seconds,
            });
        }
        (false, 0) => print::line("every state stays readable for ever"),
        (false, _) => {
            let time = HumanDuration(Duration::from_secs(seconds));
            print::line(format!("every state of the last {time} stays readable"));
        }
    }
    Ok(())
}

fn show(collected: &Collected) {
    let part = |count: u64, bytes: u64| format!("{} in {count} segments", HumanBytes(bytes));
    let freed = part(collected.freed_segments, collected.freed_bytes);
    let stored = part(collected.stored_segments, collected.stored_bytes);
    print::line(format!("freed {freed}, of {stored}"));
    if collected.repacked_segments > 0 {
        let copied = HumanBytes(collected.repacked_bytes);
        print::line(format!(
            "copied together about {copied} that are needed of {} more; these are freed when every device knows and the time that is kept is over",
            collected.repacked_segments
        ));
    }
    if collected.kept_segments > 0 {
        let kept = part(collected.kept_segments, collected.kept_bytes);
        print::line(format!(
            "no file of today needs another {kept}, but they are kept:"
        ));
        for hold in &collected.held_by {
            print::line(format!("  {hold}"));
        }
    }
    if collected.unknown_objects > 0 {
        print::line(format!(
            "{} objects among the segments are unknown, uploads under way or not of this vault; they are never touched",
            collected.unknown_objects
        ));
    }
}
