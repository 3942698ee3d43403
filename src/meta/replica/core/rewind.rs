//! The state of an earlier moment: it is noted under the lock of the tree what leads back to it, and made without that.

use super::Core;
use super::saved::{decode_logged, decode_pending, log_key, pending_key};
use crate::cache::Snapshot;
use crate::order::OrderKey;
use crate::rows::{RowKey, RowsError};
use crate::state;
use crate::undo::Frame;

/// What stood before a commit or a pending operation.
enum Step {
    Held(Frame),
    Pending(u64),
    Logged(RowKey),
}

/// The rows of now, and what is to be put back in them.
pub(in crate::replica) struct Rewind {
    snapshot: Snapshot,
    /// The newest first.
    steps: Vec<Step>,
}

impl Rewind {
    /// Goes back. It takes as long as reading all that changed since, and little memory.
    ///
    /// # Errors
    /// When the cache or the disk fails.
    pub(in crate::replica) fn run(self) -> Result<Snapshot, RowsError> {
        let mut snapshot = self.snapshot;
        for step in self.steps {
            let frame = match step {
                Step::Held(frame) => frame,
                Step::Pending(counter) => {
                    let key = pending_key(counter);
                    let row = snapshot.side(&key)?.ok_or_else(super::broken)?;
                    let decoded = decode_pending(&row);
                    decoded.map_err(|e| state::damaged(&key, &e))?.1
                }
                Step::Logged(key) => {
                    let row = snapshot.side(&key)?.ok_or_else(super::broken)?;
                    decode_logged(&row).map_err(|e| state::damaged(&key, &e))?.1
                }
            };
            snapshot.revert(&frame)?;
        }
        Ok(snapshot)
    }
}

impl Core {
    /// How to come to the rows as they were after everything with at most this Lamport time; `None` if that cannot be computed any
    /// more.
    pub(in crate::replica) fn snapshot_at(&self, floor: u64) -> Result<Option<Rewind>, RowsError> {
        let from = OrderKey::after(floor);
        if !self.can_undo_to(&from) || self.broken {
            return Ok(None);
        }
        let snapshot = self.rows.snapshot()?;
        let mut steps = Vec::new();
        for pending in self.pending.iter().rev() {
            let is_written =
                snapshot.has_side() && !self.unsaved.contains_key(&pending_key(pending.counter));
            steps.push(match &pending.held {
                None if is_written => Step::Pending(pending.counter),
                _ => Step::Held(self.frame_of(pending)?.into_owned()),
            });
        }
        for (key, logged) in self.log.range(from..).rev() {
            steps.push(match &logged.held {
                None if snapshot.has_side() => Step::Logged(log_key(key)),
                _ => Step::Held(self.logged(key)?.1),
            });
        }
        Ok(Some(Rewind { snapshot, steps }))
    }
}
