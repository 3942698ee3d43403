//! `skrin snapshot`: points of the past with a name.

use crate::args::SnapshotVerb;
use crate::commands::restore::restore;
use crate::commands::sync::{mount_of, senseless};
use crate::exit::Outcome;
use crate::past::{Answer, Request, When, ask, local, name_of};
use crate::print;

/// Creates, lists, deletes and restores snapshots.
///
/// # Errors
/// `Absent` for a snapshot or mount that is not there, `Busy` for a name that is taken, those of `restore`.
pub(crate) fn run(verb: &SnapshotVerb) -> Outcome {
    match verb {
        SnapshotVerb::Create { dir, name } => {
            let name = name_of(name);
            done(ask(&mount_of(dir)?, Request::Take { name })?)
        }
        SnapshotVerb::Delete { dir, name } => {
            let name = name_of(name);
            done(ask(&mount_of(dir)?, Request::Forget { name })?)
        }
        SnapshotVerb::List { dir, json } => {
            let Answer::Snapshots(all) = ask(&mount_of(dir)?, Request::Snapshots)? else {
                return Err(senseless());
            };
            for one in &all {
                match json {
                    true => print::json(one),
                    false => {
                        let time = local(&one.time);
                        print::line(format!("{time}  {}  {}", one.device, one.name));
                    }
                }
            }
            Ok(())
        }
        SnapshotVerb::Restore { path, name, how } => {
            restore(path, When::Snapshot(name_of(name)), how)
        }
    }
}

fn done(answer: Answer) -> Outcome {
    match answer {
        Answer::Done => Ok(()),
        _ => Err(senseless()),
    }
}
