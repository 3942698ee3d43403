//! What can go wrong, and what a caller may do about it.

use skrin_base::wire::WireError;
use skrin_base::{Errno, SegmentId};
use skrin_storage::{ErrorKind, StoreError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// What is wrong with bytes that the storage, or the local disk, gave back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Flaw {
    /// Not the bytes that a signed commit (for a table) or the table (for a block) names.
    #[error("its hash is not the one that was recorded when it was written")]
    Hash,
    /// Not as long as declared.
    #[error("it is not as long as declared")]
    Length,
    /// The hash fits but the seal does not open: another key, place or file.
    #[error("its seal does not open with the key and place that are recorded for it")]
    Seal,
    /// The header is not that of a segment of this version.
    #[error("its header is not that of a segment")]
    Header,
    /// The padding holds something other than zeros.
    #[error("its padding is not zero")]
    Padding,
    /// A well sealed table that breaks a rule of the format.
    #[error("its table breaks the format: {0}")]
    Table(WireError),
    /// The table is that of another segment.
    #[error("its table belongs to another segment")]
    Place,
    /// The extent names a slot that the table does not have, or one that was given up.
    #[error("it has no such block")]
    NoSlot,
    /// Compressed contents that do not give the recorded length.
    #[error("its contents do not decompress to the recorded length")]
    Compression,
}

/// An error of the data layer. Cheap to clone: several waiters may get the same one.
#[derive(Debug, Clone, Error)]
pub enum DataError {
    /// The segment is not on the storage and not in the journal.
    #[error(
        "segment {0} is missing on the storage; look for it again after the next poll, and run `skrin verify`"
    )]
    Missing(SegmentId),
    /// Bytes that do not belong there. Never retried by itself; the name is for the log.
    #[error("segment {segment}{}: {flaw}; run `skrin verify --data`", at_slot(.slot))]
    Integrity {
        /// Which object.
        segment: SegmentId,
        /// Which block of it, if one.
        slot: Option<u32>,
        /// What is wrong.
        flaw: Flaw,
    },
    /// The storage failed; its kind says whether to try again.
    #[error(transparent)]
    Storage(Arc<StoreError>),
    /// The local disk failed.
    #[error("{}: {what}: {source}; check the local disk", path.display())]
    LocalDisk {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// How it failed.
        source: Arc<io::Error>,
    },
    /// The journal holds as much as it may; uploading frees it.
    #[error(
        "the journal is full: {used} of {limit} bytes wait for the storage; let it catch up or give it more room"
    )]
    Full {
        /// Bytes in use.
        used: u64,
        /// The bound.
        limit: u64,
    },
    /// A caller's mistake.
    #[error("{0}")]
    Invalid(&'static str),
    /// The runtime ended while the work was under way.
    #[error("the data layer is shutting down")]
    Stopped,
}

fn at_slot(slot: &Option<u32>) -> String {
    slot.map_or_else(String::new, |n| format!(", block {n}"))
}

impl DataError {
    /// Whether an object is at fault, and not the way to it: other objects can be dealt with.
    pub fn is_about_the_object(&self) -> bool {
        match self {
            Self::Integrity { .. } | Self::Missing(_) | Self::Invalid(_) => true,
            Self::Storage(error) => error.kind() == ErrorKind::Broken,
            _ => false,
        }
    }

    /// Wraps an error of the local disk.
    pub(crate) fn disk(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::LocalDisk {
            what,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// Bytes of a whole segment or its table that are wrong.
    pub(crate) fn flawed(segment: SegmentId, slot: Option<u32>, flaw: Flaw) -> Self {
        Self::Integrity {
            segment,
            slot,
            flaw,
        }
    }

    /// Wraps what the storage said about a segment.
    pub(crate) fn storage(segment: SegmentId, error: StoreError) -> Self {
        match error.kind() {
            ErrorKind::Absent => Self::Missing(segment),
            _ => Self::Storage(Arc::new(error)),
        }
    }

    /// Whether the same request may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Storage(e) => e.is_transient(),
            Self::Full { .. } => true,
            Self::Missing(_)
            | Self::Integrity { .. }
            | Self::LocalDisk { .. }
            | Self::Invalid(_)
            | Self::Stopped => false,
        }
    }

    /// What the file system answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Missing(_) | Self::Integrity { .. } | Self::Stopped => Errno::EIO,
            Self::Storage(e) if e.kind() == ErrorKind::Full => Errno::ENOSPC,
            Self::Storage(e) if e.is_transient() => Errno::ETIMEDOUT,
            Self::Storage(_) => Errno::EIO,
            Self::LocalDisk { source, .. } => match source.raw_os_error() {
                Some(28) => Errno::ENOSPC,
                Some(122) => Errno::EDQUOT,
                _ => Errno::EIO,
            },
            Self::Full { .. } => Errno::ENOSPC,
            Self::Invalid(_) => Errno::EINVAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integrity_error_names_object_and_block() {
        let error = DataError::flawed(SegmentId([0xab; 16]), Some(7), Flaw::Hash);
        let text = error.to_string();
        assert!(
            text.contains(&"ab".repeat(16)) && text.contains("block 7"),
            "{text}"
        );
        assert_eq!(error.errno(), Errno::EIO);
        assert!(!error.is_transient());
    }

    #[test]
    fn a_full_disk_and_a_full_storage_are_enospc() {
        let disk = DataError::disk("write", Path::new("/x"), io::Error::from_raw_os_error(28));
        assert_eq!(disk.errno(), Errno::ENOSPC);
        let store = StoreError::new(ErrorKind::Full, "507");
        let store = DataError::storage(SegmentId([1; 16]), store);
        assert_eq!(store.errno(), Errno::ENOSPC);
    }
}
