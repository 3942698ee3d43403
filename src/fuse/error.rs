//! Why a folder cannot be mounted or unmounted.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// A failure of mounting or unmounting.
#[derive(Debug, Error)]
pub enum MountError {
    /// The mount point is not a directory that exists.
    #[error("{}: {source}; the mount point must be a directory that exists", dir.display())]
    MountPoint {
        /// The mount point.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The FUSE device cannot be used.
    #[error(
        "/dev/fuse: {0}; load the fuse module, and use it as root or as a user who may open it"
    )]
    Device(io::Error),
    /// Other users may be let in by root only, or where the system's configuration allows it.
    #[error("--allow-other needs root, or a line `user_allow_other` in /etc/fuse.conf")]
    AllowOther,
    /// The kernel or fusermount refused.
    #[error("mounting on {} failed: {source}", dir.display())]
    Mount {
        /// The mount point.
        dir: PathBuf,
        /// What they said.
        source: io::Error,
    },
    /// Programs have files open or their current directory in the mount.
    #[error("{} is busy: close the programs that use it (`fuser -vm` lists them), then try again", .0.display())]
    Busy(PathBuf),
    /// It is unmounted here, and goes on elsewhere.
    #[error("{} is unmounted here, but mounted in another mount namespace still", .0.display())]
    Elsewhere(PathBuf),
    /// The kernel or fusermount refused.
    #[error("unmounting {} failed: {source}", dir.display())]
    Unmount {
        /// The mount point.
        dir: PathBuf,
        /// What they said.
        source: io::Error,
    },
    /// The session ended with an error.
    #[error("the connection to the kernel failed: {0}")]
    Session(io::Error),
}
