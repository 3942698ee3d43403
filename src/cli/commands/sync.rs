//! `skrin sync`: return when everything is on the storage.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::args::SyncArgs;
use crate::control::{Answer, Pending, Request, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::progress::Uploads;
use crate::{machine, mount_table, print};

/// What `--json` says. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize)]
struct Synced {
    mount_point: String,
    pending: Pending,
}

/// Waits until everything written before is on the storage.
///
/// # Errors
/// `Absent` where no vault is mounted, `Unreachable` or `Other` where the storage refuses.
pub(crate) fn run(args: &SyncArgs) -> Outcome {
    let point = mount_of(&args.dir)?;
    // A process that is stopped is told about before the kernel would wait for it.
    if ask(&point, &Request::Status, &mut |_| {})?.is_none() {
        return Err(silent(&point));
    }
    let settled = settle(&point);
    let mut bar = Uploads::new();
    let answer = ask(&point, &Request::Sync, &mut |left| bar.report(left))?;
    drop(bar);
    match answer {
        Some(Answer::Done(pending)) => {
            if args.json {
                let mount_point = point.display().to_string();
                print::json(&Synced {
                    mount_point,
                    pending,
                });
            }
            // Everything else is on the storage all the same.
            settled.map_err(|e| {
                Failure::io(
                    &point,
                    "the kernel could not hand over all that was written",
                    &e,
                )
            })
        }
        Some(_) => Err(senseless()),
        None => Err(silent(&point)),
    }
}

/// Has the kernel hand over what it keeps of files that are still open.
///
/// # Errors
/// Of what it could not hand over.
pub(crate) fn settle(mount: &Path) -> std::io::Result<()> {
    machine::sync_file_system(mount)
}

/// The mount that a path lies in.
///
/// # Errors
/// `Absent` where it lies in none of ours.
pub(crate) fn mount_of(dir: &Path) -> Outcome<PathBuf> {
    let path = mount_table::canonical(dir)?;
    let lines = mount_table::mounts()?;
    let around = lines
        .into_iter()
        .filter(|line| path.starts_with(&line.point));
    match around.max_by_key(|line| line.point.as_os_str().len()) {
        Some(line) if line.is_ours() => Ok(line.point),
        _ => Err(Failure::new(
            Exit::Absent,
            format!("{}: no vault is mounted there", path.display()),
        )),
    }
}

/// An answer to another question than was asked.
pub(crate) fn senseless() -> Failure {
    Failure::new(
        Exit::Other,
        "the process behind the mount gave an answer that makes no sense",
    )
    .remedy("it may be of another version; stop it with SIGTERM")
}

/// A mount that nobody answers for.
pub(crate) fn silent(point: &Path) -> Failure {
    Failure::new(
        Exit::Absent,
        format!(
            "{}: the process behind this mount does not answer",
            point.display()
        ),
    )
    .remedy(format!(
        "if it has ended, run: skrin unmount {}",
        point.display()
    ))
}
