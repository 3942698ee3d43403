//! `skrin status`: pending, cache, lanes, last seen, errors.

use indicatif::{HumanBytes, HumanDuration};

use super::pin::summary;
use super::sync::{mount_of, silent};
use crate::args::StatusArgs;
use crate::control::{self, Answer, Request, Room, Status};
use crate::events::Event;
use crate::exit::Outcome;
use crate::harden::KeyMemory;
use crate::print;

/// Events that are shown to people; scripts get all.
const SHOWN: usize = 10;

/// Shows one mount, or all of this user.
///
/// # Errors
/// `Absent` where no vault is mounted.
pub(crate) fn run(args: &StatusArgs) -> Outcome {
    let found = match &args.dir {
        None => control::all()?,
        Some(dir) => {
            let point = mount_of(dir)?;
            match control::ask(&point, &Request::Status, &mut |_| {})? {
                Some(Answer::Status(status)) => vec![*status],
                _ => return Err(silent(&point)),
            }
        }
    };
    for status in &found {
        if args.json {
            print::json(status);
        } else {
            show(status);
        }
    }
    if found.is_empty() && !args.json {
        print::line("no vault is mounted");
    }
    Ok(())
}

/// How full the journal is, and whether anybody waits for it.
fn room(room: &Room) -> String {
    let (bytes, limit) = (
        HumanBytes(room.journal_bytes),
        HumanBytes(room.journal_limit),
    );
    let full = format!("{bytes} of {limit}");
    match room.waiting {
        0 => full,
        1 => format!("{full}; a call waits for room, until the storage takes more"),
        n => format!("{full}; {n} calls wait for room, until the storage takes more"),
    }
}

/// The newest events, and how many there are beside them.
fn events(all: &[Event]) -> Vec<String> {
    let older = all.len().saturating_sub(SHOWN);
    let told = (older > 0).then(|| format!("{older} older ones; skrin status --json has all"));
    let newest = all.iter().skip(older).map(Event::line);
    told.into_iter().chain(newest).collect()
}

fn show(status: &Status) {
    let field =
        |name: &str, value: &dyn std::fmt::Display| print::line(format!("  {name:<11}{value}"));
    print::line(&status.mount_point);
    field("vault", &format!("{} ({})", status.vault, status.vault_id));
    let up = HumanDuration(std::time::Duration::from_secs(status.uptime_seconds));
    let mode = if status.read_only { ", read-only" } else { "" };
    field("process", &format!("{}, up {up}{mode}", status.pid));
    let storage = match status.online {
        Some(true) => "answers",
        Some(false) => "does not answer",
        None => "not asked yet",
    };
    field("storage", &storage);
    match status.pending.is_nothing() {
        true => field("pending", &"nothing"),
        false => field(
            "pending",
            &format!(
                "{} and {} changes",
                HumanBytes(status.pending.bytes),
                status.pending.operations
            ),
        ),
    }
    field("journal", &room(&status.room));
    field("cache", &HumanBytes(status.cache_bytes));
    if !status.pinned.paths.is_empty() {
        field("pinned", &summary(&status.pinned));
    }
    if status.conflicts > 0 {
        field(
            "conflicts",
            &format!(
                "{} copies; skrin conflicts {}",
                status.conflicts, status.mount_point
            ),
        );
    }
    let keys = match status.key_memory {
        KeyMemory::Locked => "keys are locked in memory",
        KeyMemory::NoSwap => "no swap that keys could reach",
        KeyMemory::Unlocked => {
            "KEYS MAY REACH THE SWAP: raise the limit of locked memory (ulimit -l) or encrypt the swap"
        }
    };
    field(
        "memory",
        &format!("{}; {keys}", HumanBytes(status.memory_bytes)),
    );
    for lane in &status.lanes {
        let own = if lane.own { " (this one)" } else { "" };
        field(
            "device",
            &format!("{}{own}: {} commits seen", lane.device, lane.commit),
        );
    }
    field("heads code", &status.heads_code);
    field("scrub", &status.scrub.line());
    for rollback in &status.rollbacks {
        field("rollback", rollback);
    }
    for event in events(&status.events) {
        field("event", &event);
    }
    for error in &status.errors {
        field("error", error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_room_is_told() {
        let mut full = Room {
            journal_bytes: 1 << 30,
            journal_limit: 1 << 30,
            ..Room::default()
        };
        assert_eq!(room(&full), "1.00 GiB of 1.00 GiB");
        full.waiting = 2;
        let told = room(&full);
        assert!(told.contains("2 calls wait for room"), "{told}");
    }
}
