//! What was: points of the past, the versions of a file, and snapshots, which are points with a name.

mod restore;
mod versions;
pub(crate) mod view;

pub(crate) use restore::put_contents;
pub use restore::{RestoreWish, Restored};
pub use versions::{Change, Version};

use crate::core::Fs;
use crate::error::FsError;
use crate::ops::name_of;
use skrin_base::{Name, OpId, Timestamp};
use skrin_meta::replica::{Cut, History};
use skrin_meta::{MemoryRows, OpKind, state};

/// A point of the past.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum When {
    /// What had been published by then, or done on the one device that wrote next.
    Time(Timestamp),
    /// Right behind an operation: the first digits of its device's id, and its number.
    Version(String, u64),
    /// A snapshot.
    Snapshot(Vec<u8>),
}

/// A snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: Vec<u8>,
    /// When it was taken, by the clock of the device that took it.
    pub time: Timestamp,
    /// What people call that device.
    pub device: String,
}

/// The state at a point of the past.
pub(crate) struct Then {
    pub(crate) rows: MemoryRows,
    /// What may make it differ from what was.
    pub(crate) doubts: Vec<String>,
}

impl Fs {
    /// Everything that was ever published. What waits here is published before, and changes of others are taken in: it waits for
    /// the storage.
    pub(crate) fn history(&self) -> Result<History, FsError> {
        if !self.options.read_only {
            self.sync(|_| {})?;
        }
        self.poll()?;
        let history = self.replica.history(self.now(), |_| {});
        Ok(self.runtime.block_on(history)?)
    }

    pub(crate) fn then(&self, when: &When) -> Result<Then, FsError> {
        let history = self.history()?;
        let cut = self.cut_of(&history, when)?;
        Ok(Then {
            rows: history.rows(&cut)?,
            doubts: history
                .doubts(&cut)
                .into_iter()
                .map(|problem| format!("{}: {}", problem.object, problem.text))
                .collect(),
        })
    }

    fn cut_of(&self, history: &History, when: &When) -> Result<Cut, FsError> {
        match when {
            When::Time(time) => {
                self.check_kept(*time)?;
                let cut = history.at_time(*time)?;
                match cut.is_empty() {
                    true => Err(FsError::NoSuchPoint("nothing was published by then")),
                    false => Ok(cut),
                }
            }
            When::Version(device, counter) => {
                let ids = history.commits().flat_map(|past| {
                    let ids = past.commit.ops.iter().map(|op| op.id);
                    ids.map(move |id| (id, past.time))
                });
                let mut ids = ids.filter(|(id, _)| {
                    id.counter == *counter && id.device.to_string().starts_with(device.as_str())
                });
                let none = FsError::NoSuchPoint("no change of that name is known");
                let (id, time) = ids.next().ok_or(none.clone())?;
                self.check_kept(time)?;
                history.after_op(id)?.ok_or(none)
            }
            When::Snapshot(name) => {
                let id = self.snapshot_of(&name_of(name)?)?.op;
                let gone = "the operation that took the snapshot is in no commit";
                history.at_op(id)?.ok_or(FsError::NoSuchPoint(gone))
            }
        }
    }

    /// Another device may be deleting contents of a time that is not kept: an operation that names them would name nothing. A tenth of
    /// that time is left for clocks that differ.
    fn check_kept(&self, time: Timestamp) -> Result<(), FsError> {
        let seconds = self.retention()?;
        let kept = i64::try_from(u128::from(seconds) * 900_000_000).unwrap_or(i64::MAX);
        match seconds != 0 && time.0 < self.now().0.saturating_sub(kept) {
            true => Err(FsError::NoSuchPoint(
                "that is before the time that is kept, which `skrin retention` tells; snapshots are kept whatever their age",
            )),
            false => Ok(()),
        }
    }

    pub(crate) fn snapshot_of(&self, name: &Name) -> Result<state::Snapshot, FsError> {
        let found = state::snapshot(&self.replica.tree(), name)?;
        found.ok_or(FsError::NoSuchPoint("there is no snapshot of that name"))
    }

    /// Gives a name to what this device has accepted by now, with what others had published. It is on the storage when this returns.
    ///
    /// # Errors
    /// `Exists`; a name that no file could have; a storage that does not take it.
    pub fn take_snapshot(&self, name: &[u8]) -> Result<(), FsError> {
        let name = name_of(name)?;
        self.check_writable()?;
        self.flush_all()?;
        self.commit(|tree| match state::snapshot(tree, &name)? {
            Some(_) => Err(FsError::Exists),
            None => Ok(OpKind::Snapshot { name: name.clone() }),
        })?;
        self.sync(|_| {})?;
        self.tell_snapshot(name.as_bytes())
    }

    /// All snapshots, by their names.
    ///
    /// # Errors
    /// Those of the local cache.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, FsError> {
        let tree = self.replica.tree();
        let mut all = Vec::new();
        state::for_each_snapshot(&tree, |name, snapshot| {
            all.push((name, snapshot));
            Ok(())
        })?;
        let shown = all.into_iter().map(|(name, snapshot)| {
            Ok(Snapshot {
                name: name.as_bytes().to_vec(),
                time: snapshot.time,
                device: self.device_name(&tree, snapshot.op)?,
            })
        });
        shown.collect()
    }

    /// What people call the device that made an operation.
    pub(crate) fn device_name(
        &self,
        rows: &dyn skrin_meta::Rows,
        op: OpId,
    ) -> Result<String, FsError> {
        let label = state::label(rows, op.device)?;
        Ok(label.unwrap_or_else(|| self.replica.device_label(&op.device)))
    }

    /// Takes the name of a snapshot away. What only it holds may be deleted from the storage later.
    ///
    /// # Errors
    /// `NoSuchPoint`.
    pub fn forget_snapshot(&self, name: &[u8]) -> Result<(), FsError> {
        let name = name_of(name)?;
        self.check_writable()?;
        self.commit(|tree| {
            let found = state::snapshot(tree, &name)?;
            let found = found.ok_or(FsError::NoSuchPoint("there is no snapshot of that name"))?;
            Ok(OpKind::ForgetSnapshot {
                name: name.clone(),
                snapshot: found.op,
            })
        })?;
        self.tell_snapshot(name.as_bytes())?;
        self.sync(|_| {})
    }
}
