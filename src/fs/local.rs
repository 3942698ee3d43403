//! Files that stay on this machine: what a Mac leaves in every directory is usable like any other file and never told to the tree.
//!
//! They are few and small, so all of them are in memory and written as one, sealed by whoever keeps them (ADR 0022).

mod names;
mod tree;
mod verbs;

use crate::error::FsError;
use crate::types::HandleId;
use parking_lot::{Mutex, MutexGuard};
use skrin_base::Name;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tree::LocalTree;

/// Keeps bytes on this machine, so that nobody else can read them.
pub trait LocalKeeper: Send + Sync {
    /// Replaces what is kept; it is on stable storage when this returns, and after a crash there is either this or what was before.
    ///
    /// # Errors
    /// Of the disk.
    fn store(&self, bytes: &[u8]) -> io::Result<()>;
}

/// Where files of this machine alone are kept.
pub struct LocalFiles {
    /// What the keeper was given last, if it ever was.
    pub kept: Option<Vec<u8>>,
    /// Who keeps them.
    pub keeper: Arc<dyn LocalKeeper>,
    /// Bytes that all of them may take, with a little for each.
    pub max: usize,
}

/// A name that leads to something of this machine alone, or would.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LocalPlace {
    /// The directory's inode number, or that of its node where it is of this machine itself.
    dir: u64,
    name: Name,
}

/// What was kept of such files as it would be kept again; `None` for bytes that hold something else.
#[cfg(feature = "testutil")]
pub(crate) fn kept_again(bytes: &[u8], max: usize) -> Option<Vec<u8>> {
    let tree = LocalTree::decode(bytes, max).ok()?;
    Some(tree.encode())
}

/// The files of this machine.
pub(crate) struct Locals {
    tree: Mutex<LocalTree>,
    /// `None` where a mount has none.
    keeper: Option<Arc<dyn LocalKeeper>>,
    /// Taken by who stores, so that nothing older replaces what is newer.
    storing: Mutex<()>,
    /// It was told that there is no more room.
    told: AtomicBool,
}

impl Locals {
    /// Those that were kept.
    ///
    /// # Errors
    /// `Invalid` for bytes that hold something else.
    pub(crate) fn open(files: Option<LocalFiles>) -> Result<Self, FsError> {
        let (tree, keeper) = match files {
            None => (LocalTree::new(0), None),
            Some(files) => {
                let tree = match files.kept {
                    None => LocalTree::new(files.max),
                    Some(bytes) => LocalTree::decode(&bytes, files.max).map_err(|error| {
                        tracing::error!(%error, "the files of this machine do not decode");
                        FsError::Invalid(
                            "the files of this machine do not decode; a newer version wrote them",
                        )
                    })?,
                };
                (tree, Some(files.keeper))
            }
        };
        Ok(Self {
            tree: Mutex::new(tree),
            keeper,
            storing: Mutex::new(()),
            told: AtomicBool::new(false),
        })
    }

    /// A leaf: no other lock is taken under it.
    fn tree(&self) -> MutexGuard<'_, LocalTree> {
        self.tree.lock()
    }

    fn is_on(&self) -> bool {
        self.keeper.is_some()
    }

    /// Whether the handle may write to its file.
    pub(crate) fn is_written_to(&self, handle: HandleId) -> Result<bool, FsError> {
        self.tree().is_written_to(handle)
    }

    /// Writes what is new to stable storage.
    ///
    /// # Errors
    /// `LocalDisk`; then it counts as new again.
    pub(crate) fn keep(&self) -> Result<(), FsError> {
        let Some(keeper) = &self.keeper else {
            return Ok(());
        };
        let _one = self.storing.lock();
        let (edition, bytes) = {
            let tree = self.tree();
            match tree.unkept() {
                None => return Ok(()),
                Some(edition) => (edition, tree.encode()),
            }
        };
        let stored = keeper.store(&bytes);
        stored.map_err(|error| FsError::LocalDisk(Arc::new(error)))?;
        self.tree().was_kept(edition);
        Ok(())
    }

    /// The same once the first change that is not kept is older than `after`, at the time `now`.
    pub(crate) fn keep_old(&self, now: u64, after: u64) -> Result<(), FsError> {
        let due = self.tree().is_old(now, after);
        if due { self.keep() } else { Ok(()) }
    }

    /// Somebody should know why programs are refused; once is enough.
    fn tell_full(&self, max: usize) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                max,
                "there is no more room for the files that stay on this machine; programs that make or enlarge one get EDQUOT"
            );
        }
    }
}
