//! What can go wrong, named for the situation, and what POSIX calls it.

use skrin_base::Errno;
use skrin_data::DataError;
use skrin_meta::RowsError;
use skrin_meta::replica::ReplicaError;
use std::sync::Arc;
use thiserror::Error;

/// A failed call. Cheap to clone: an error of a background task is reported to whoever waits for it.
#[derive(Debug, Clone, Error)]
#[allow(missing_docs, reason = "each message is its documentation")]
pub enum FsError {
    #[error("no such file or directory")]
    NotFound,
    #[error("the file changed on another device; look it up again")]
    Stale,
    #[error("the name is taken")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("a directory cannot be moved below itself")]
    MoveBelowItself,
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    #[error("the path is longer than 4095 bytes")]
    TargetTooLong,
    #[error("the name has characters that names cannot have")]
    BadName,
    #[error("{0}")]
    Invalid(&'static str),
    #[error("not permitted: {0}")]
    NotPermitted(&'static str),
    #[error("no such open file")]
    BadHandle,
    #[error("the file would be longer than 2^47 bytes")]
    TooLarge,
    #[error("an inode has at most 4096 names")]
    TooManyLinks,
    #[error("no such extended attribute")]
    NoAttribute,
    #[error("extended attributes of this namespace are not kept")]
    AttributeNamespace,
    #[error("the value of the extended attribute is too long")]
    AttributeTooLong,
    #[error("no room for more extended attributes on this inode")]
    AttributesFull,
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    #[error("there is no data behind this offset")]
    NoMoreData,
    #[error("mounted read-only")]
    ReadOnly,
    #[error("block {block} of inode {ino} is lost: no device holds it any more")]
    Lost { ino: u64, block: u64 },
    #[error("the storage did not answer within {0} s")]
    Deadline(u64),
    #[error(
        "{0} changes wait for the storage, as many as fit into the memory; let it catch up or raise --memory"
    )]
    Crowded(usize),
    #[error("there was nothing of that name at that time")]
    NothingThen,
    #[error("there is no such point of the past: {0}")]
    NoSuchPoint(&'static str),
    #[error("it is neither a conflict copy nor a document that has one")]
    NoConflict,
    #[error("{0}")]
    InUse(&'static str),
    #[error("it was changed meanwhile; look at it, and choose again")]
    ChangedMeanwhile,
    #[error("one of the two stays on this machine and the other does not")]
    OtherDevice,
    #[error("the files that stay on this machine may take {0} bytes together")]
    LocalFull(usize),
    #[error("the files that stay on this machine cannot be written: {0}")]
    LocalDisk(Arc<std::io::Error>),
    #[error("the storage takes no changes from here: {0}")]
    Refused(Arc<FsError>),
    #[error("the file system is shutting down")]
    Stopped,
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Cache(Arc<RowsError>),
    #[error(transparent)]
    Replica(Arc<ReplicaError>),
}

impl From<RowsError> for FsError {
    fn from(e: RowsError) -> Self {
        Self::Cache(Arc::new(e))
    }
}

impl From<ReplicaError> for FsError {
    fn from(e: ReplicaError) -> Self {
        Self::Replica(Arc::new(e))
    }
}

impl FsError {
    /// The error number for programs.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotFound | Self::NothingThen | Self::NoSuchPoint(_) | Self::NoConflict => {
                Errno::ENOENT
            }
            Self::Stale | Self::ChangedMeanwhile => Errno::ESTALE,
            Self::InUse(_) => Errno::EBUSY,
            Self::Exists => Errno::EEXIST,
            Self::NotDirectory => Errno::ENOTDIR,
            Self::IsDirectory => Errno::EISDIR,
            Self::NotEmpty => Errno::ENOTEMPTY,
            Self::MoveBelowItself | Self::BadName | Self::Invalid(_) => Errno::EINVAL,
            Self::NameTooLong | Self::TargetTooLong => Errno::ENAMETOOLONG,
            Self::NotPermitted(_) => Errno::EPERM,
            Self::BadHandle => Errno::EBADF,
            Self::TooLarge => Errno::EFBIG,
            Self::TooManyLinks => Errno::EMLINK,
            Self::NoAttribute => Errno::ENODATA,
            Self::AttributeNamespace | Self::Unsupported(_) => Errno::EOPNOTSUPP,
            Self::AttributeTooLong => Errno::E2BIG,
            Self::AttributesFull | Self::Crowded(_) => Errno::ENOSPC,
            Self::NoMoreData => Errno::ENXIO,
            Self::ReadOnly | Self::Refused(_) => Errno::EROFS,
            Self::OtherDevice => Errno::EXDEV,
            Self::LocalFull(_) => Errno::EDQUOT,
            Self::LocalDisk(e) if e.kind() == std::io::ErrorKind::StorageFull => Errno::ENOSPC,
            Self::LocalDisk(_) => Errno::EIO,
            Self::Deadline(_) => Errno::ETIMEDOUT,
            Self::Lost { .. } | Self::Stopped | Self::Cache(_) => Errno::EIO,
            Self::Data(e) => e.errno(),
            Self::Replica(e) => replica_errno(e),
        }
    }

    /// Whether the same call may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Data(e) => e.is_transient(),
            Self::Replica(e) => e.is_transient(),
            Self::Deadline(_) | Self::Crowded(_) => true,
            _ => false,
        }
    }

    /// Whether what is published here is taken by nobody, as long as this goes on, where publishing has met it: the storage refuses us or what
    /// we put, something that publishing needs is damaged or lost, or the vault needs a newer program.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Data(DataError::Storage(e)) => e.is_refusal(),
            Self::Data(DataError::Missing(_) | DataError::Integrity { .. }) => true,
            Self::Replica(e) => match &**e {
                // Whoever answers instead of the server does not speak its protocol; only of an upload that means what it says.
                ReplicaError::Store(e) => e.is_denied(),
                ReplicaError::Newer
                | ReplicaError::Commit { .. }
                | ReplicaError::Checkpoint { .. } => true,
                _ => self.is_final(),
            },
            _ => false,
        }
    }

    /// Whether that lasts until the mount ends: another copy of this device's state publishes.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Replica(e) if matches!(**e, ReplicaError::Cloned))
    }

    /// Whether the storage shows less than was seen.
    pub(crate) fn is_rollback(&self) -> bool {
        matches!(self, Self::Replica(e) if matches!(**e, ReplicaError::RolledBack(_)))
    }

    /// Whether a segment is not where the tree says that it is.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Data(DataError::Missing(_)))
    }

    /// Whether this means that bytes of the vault or of the local disk are not as they should be: worth a line in the log.
    pub fn is_fault(&self) -> bool {
        match self {
            // It says so to whoever asks, and is told in the status.
            Self::Replica(e) => !matches!(**e, ReplicaError::Barred(_)),
            Self::Lost { .. }
            | Self::Deadline(_)
            | Self::LocalDisk(_)
            | Self::Data(_)
            | Self::Cache(_) => true,
            _ => false,
        }
    }
}

fn replica_errno(e: &ReplicaError) -> Errno {
    match e {
        e if e.is_full() => Errno::ENOSPC,
        ReplicaError::Store(e) if e.is_transient() => Errno::ETIMEDOUT,
        ReplicaError::ReadOnly | ReplicaError::Newer | ReplicaError::Barred(_) => Errno::EROFS,
        ReplicaError::Store(_)
        | ReplicaError::Rows(_)
        | ReplicaError::Local(_)
        | ReplicaError::RolledBack(_)
        | ReplicaError::Commit { .. }
        | ReplicaError::Checkpoint { .. }
        | ReplicaError::Cloned
        | ReplicaError::ForeignOperation
        | ReplicaError::Withheld(_)
        | ReplicaError::OldControl
        | ReplicaError::Past(_)
        | ReplicaError::Ending => Errno::EIO,
    }
}
