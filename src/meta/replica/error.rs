//! What can go wrong between the state here and the lanes on the storage.

use super::verify::Problem;
use crate::checkpoint::CheckpointFault;
use crate::commit::Fault;
use crate::heads::{LocalError, SeenHead, date};
use crate::rows::RowsError;
use skrin_base::Timestamp;
use skrin_storage::{BadName, ErrorKind, StoreError};
use std::fmt;
use thiserror::Error;

/// One lane of which the storage shows less than was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostHead {
    /// What was seen.
    pub seen: SeenHead,
    /// The number of the newest commit that the storage shows of that lane, if any.
    pub shown: Option<u64>,
}

impl fmt::Display for LostHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was seen, ", self.seen)?;
        match self.shown {
            Some(seq) => write!(f, "the storage shows only up to commit {seq}"),
            None => f.write_str("the storage shows nothing of it"),
        }
    }
}

/// The newest commit that a storage shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShownHead {
    /// When it was written, by its writer's clock.
    pub time: Timestamp,
    /// What people call its writer.
    pub label: String,
}

/// The storage shows an older state than this device has seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rollback {
    /// The newest commit that is shown, as far as any can be read.
    pub shown: Option<ShownHead>,
    /// The lanes that lost something.
    pub lost: Vec<LostHead>,
    /// The objects of control records that were seen and are not shown.
    pub control: Vec<String>,
}

impl Rollback {
    /// The newest of what was seen and is not shown.
    pub fn newest_lost(&self) -> Option<&SeenHead> {
        self.lost
            .iter()
            .map(|lost| &lost.seen)
            .max_by_key(|seen| seen.time)
    }

    /// What people ask first: of when is that which is shown, of when and by whom what was seen.
    pub fn summary(&self) -> String {
        let Some(seen) = self.newest_lost() else {
            return "the storage does not show control records that this device has seen"
                .to_owned();
        };
        let has_seen = format!(
            "{}, written by {}",
            date(seen.time),
            seen.label.escape_debug()
        );
        match &self.shown {
            Some(shown) if shown.time < seen.time => format!(
                "the storage shows the state of {} (by {}); this device has seen {has_seen}",
                date(shown.time),
                shown.label.escape_debug()
            ),
            // Other lanes go on.
            Some(_) => format!("the storage lost what this device has seen of {has_seen}"),
            None => format!(
                "the storage shows no state that can be read; this device has seen {has_seen}"
            ),
        }
    }
}

impl fmt::Display for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lanes = self.lost.iter().map(ToString::to_string);
        let control = self.control.iter();
        let control = control.map(|name| format!("{name} was seen, the storage does not show it"));
        let all: Vec<String> = lanes.chain(control).collect();
        write!(f, "{} ({})", self.summary(), all.join("; "))
    }
}

/// Why the control records let this device publish nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Barred {
    /// A record has ended the device.
    #[error(
        "this device was removed from the vault: nothing that it writes counts any more, and nothing of it is published. What it had not published is still in its journal; ask whoever manages the vault, and come back as a new device"
    )]
    Removed,
    /// Its person may read only.
    #[error(
        "you may read this vault and not change it: ask whoever manages it for the right to write"
    )]
    ReadsOnly,
}

/// An error of a replica.
#[derive(Debug, Error)]
pub enum ReplicaError {
    /// The storage does not do what is asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local cache failed.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// Other local files failed.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The storage went back in time.
    #[error(
        "the storage was rolled back or lost objects: {0}; nothing was changed. Ask whoever runs it to bring the newer objects back; `skrin accept-rollback` puts again what this device still has, and asks whether to go on without the rest"
    )]
    RolledBack(Rollback),
    /// The control records are those of local copies, and this device has seen newer ones.
    #[error(
        "the control records that are known here are older than what this device has seen; they are read again from the storage"
    )]
    OldControl,
    /// An object that must be right is not.
    #[error("{object}: {fault}")]
    Commit {
        /// Its name.
        object: String,
        /// What is wrong.
        fault: Fault,
    },
    /// A checkpoint that must be right is not.
    #[error("{object}: {fault}")]
    Checkpoint {
        /// Its name.
        object: String,
        /// What is wrong.
        fault: CheckpointFault,
    },
    /// The local state was copied and is in use somewhere else.
    #[error(
        "another copy of this device's local state has written to the vault; keep one of the two, and move the other's state directory away: mounted again without it, it becomes a device of its own. What its journal holds is not published"
    )]
    Cloned,
    /// A read-only mount publishes nothing.
    #[error("this mount is read-only")]
    ReadOnly,
    /// Nobody takes what this device would publish.
    #[error(transparent)]
    Barred(#[from] Barred),
    /// What an own commit follows cannot be had: writing now would fork the own lane.
    #[error(
        "{0}: the storage withholds what this commit of this device follows; nothing can be published until it is there again"
    )]
    Withheld(String),
    /// Commits here need a newer program; nothing can be written by this one.
    #[error(
        "the vault has commits of a newer program: update this one to write; reading shows the state before them"
    )]
    Newer,
    /// An operation that must not be in the journal of this device.
    #[error(
        "the journal holds an operation of another device; restore the journal that belongs to this state directory"
    )]
    ForeignOperation,
    /// What was cannot be told, because an object of the past is not there or not what it was.
    #[error(
        "{}: {}; what was at that time cannot be told without it. Other points of time may be told; `skrin verify` lists all that is missing", .0.object, .0.text
    )]
    Past(Problem),
    /// A task of the program ended before its time.
    #[error("the program is ending")]
    Ending,
}

impl From<BadName> for ReplicaError {
    fn from(bad: BadName) -> Self {
        Self::Store(bad.into())
    }
}

impl ReplicaError {
    /// Whether it may go away by itself: the storage cannot be reached or is busy.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Withheld(_) | Self::OldControl => true,
            _ => false,
        }
    }

    /// Whether the storage has no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Store(error) if error.kind() == ErrorKind::Full)
    }

    /// Whether nothing of the storage can be read: it does not let us in, or cannot prove that it is the one we know.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_closed())
    }

    /// Whether the storage takes nothing from here, as long as this goes on.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_refusal())
    }

    /// Whether the storage took something and shows other bytes of it, or none.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Store(error) if error.kind() == ErrorKind::Broken)
    }
}

/// What kind of thing was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FindingKind {
    /// A tip whose commit is not whole yet. No alarm: its writer may be at it.
    Incomplete,
    /// A commit that others follow cannot be had for longer than two minutes. The tree stays as it was.
    Withheld,
    /// A commit that is bad and that others follow, or that no honest device makes.
    Integrity,
    /// The storage shows less than was seen.
    Rollback,
    /// A lane has two branches.
    Fork,
    /// The storage had more of this device's lane than this device knew: its state was restored from a backup.
    Restored,
    /// This device's state is in use twice.
    Cloned,
    /// Signed by a device, or sealed under an epoch, that is not known yet: the control records must be refreshed.
    Unknown,
    /// Needs a newer program.
    Newer,
    /// A device that says it saw less than it said before.
    WentBack,
    /// Two digests of one state.
    Digest,
    /// A checkpoint that a device refutes: it does not stand.
    Refuted,
    /// Commits that lie beyond the end that a control record has set to their device.
    CutOff,
}

/// Something that a person or the audit log should hear of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// The object or lane.
    pub object: String,
    /// What was expected and what came.
    pub text: String,
    /// When it was found first.
    pub since: Timestamp,
}
