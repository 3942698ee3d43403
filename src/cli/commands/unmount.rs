//! `skrin unmount`: upload what is pending, then let go of the directory.

use std::path::Path;

use indicatif::HumanBytes;
use serde::Serialize;

use super::sync::senseless;
use crate::args::UnmountArgs;
use crate::control::{Answer, Pending, Request, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::mount_table;
use crate::progress::Uploads;
use crate::{mount_point, print};

/// What `--json` says. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize)]
struct Unmounted {
    mount_point: String,
    /// What is left in the journal; nobody can tell where the process behind the mount had ended before.
    pending: Option<Pending>,
}

/// Ends a mount.
///
/// # Errors
/// `Absent` where nothing of ours is mounted, `Busy` where it is in use, `Unreachable` where the upload fails.
pub(crate) fn run(args: &UnmountArgs) -> Outcome {
    let point = mount_table::canonical(&args.dir)?;
    match mount_table::at(&point)? {
        Some(line) if line.is_ours() => {}
        Some(line) => {
            return Err(not_ours(&point).remedy(format!("what is mounted there is {}", line.kind)));
        }
        None => return Err(not_ours(&point)),
    }
    let mut bar = Uploads::new();
    let request = Request::Unmount {
        now: args.now,
        lazy: args.lazy,
    };
    let answer = ask(&point, &request, &mut |left| bar.report(left))?;
    drop(bar);
    match answer {
        Some(Answer::Done(left)) => {
            match args.json {
                true => say_json(&point, Some(left)),
                false => say_left(left),
            }
            Ok(())
        }
        Some(_) => Err(senseless()),
        None if mount_point::is_dead(&point) => {
            mount_point::detach(&point, true)?;
            print::note(format!(
                "{}: the process behind this mount had ended; what it had not uploaded is in the journal, and goes on when the vault is mounted again",
                point.display()
            ));
            if args.json {
                say_json(&point, None);
            }
            Ok(())
        }
        None => Err(Failure::new(
            Exit::Other,
            format!(
                "{}: the process behind this mount does not answer",
                point.display()
            ),
        )
        .remedy(
            "it may belong to another user; run this command as that user, or as root: umount",
        )),
    }
}

fn not_ours(point: &Path) -> Failure {
    Failure::new(
        Exit::Absent,
        format!("{}: no vault is mounted there", point.display()),
    )
}

fn say_json(point: &Path, pending: Option<Pending>) {
    let mount_point = point.display().to_string();
    print::json(&Unmounted {
        mount_point,
        pending,
    });
}

fn say_left(left: Pending) {
    if !left.is_nothing() {
        print::line(format!(
            "left in the journal: {} and {} changes; they are uploaded when the vault is mounted again here",
            HumanBytes(left.bytes),
            left.operations
        ));
    }
}
