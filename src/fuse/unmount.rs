//! Taking a mount away.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::error::MountError;

/// Unmounts; `lazy` hides it at once and ends it when the last file is closed.
#[cfg(target_os = "linux")]
pub(crate) fn unmount(dir: &Path, lazy: bool) -> Result<(), MountError> {
    use rustix::io::Errno;
    use rustix::mount::UnmountFlags;
    let flags = match lazy {
        true => UnmountFlags::DETACH,
        false => UnmountFlags::empty(),
    };
    match rustix::mount::unmount(dir, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(MountError::Busy(dir.to_owned())),
        // Unprivileged users unmount through the helper that mounted.
        Err(Errno::PERM) => run("fusermount3", if lazy { &["-uz"] } else { &["-u"] }, dir),
        Err(e) => Err(MountError::Unmount {
            dir: dir.to_owned(),
            source: e.into(),
        }),
    }
}

/// Unmounts; macOS knows no lazy way, so that `lazy` means by force.
#[cfg(not(target_os = "linux"))]
pub(crate) fn unmount(dir: &Path, lazy: bool) -> Result<(), MountError> {
    run("/sbin/umount", if lazy { &["-f"] } else { &[] }, dir)
}

fn run(program: &str, arguments: &[&str], dir: &Path) -> Result<(), MountError> {
    let failed = |source| MountError::Unmount {
        dir: dir.to_owned(),
        source,
    };
    let mut command = Command::new(program);
    let output = command.args(arguments).arg("--").arg(dir).output();
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // "Device or resource busy", "Resource busy".
    if said.contains("busy") {
        return Err(MountError::Busy(dir.to_owned()));
    }
    Err(failed(io::Error::other(said.trim().to_owned())))
}
