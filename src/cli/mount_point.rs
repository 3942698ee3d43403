//! The directory that a vault is mounted on: what is refused, and how it is guarded while nothing is mounted.

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use parking_lot::Mutex;

use crate::exit::{Exit, Failure, Outcome};
use crate::mount_table::{self, MountLine};
use crate::print;

/// A directory that may be mounted on.
pub(crate) struct MountPoint {
    path: PathBuf,
    /// The directory below the mount, where we made it and have not removed it.
    made: Mutex<Option<File>>,
}

impl MountPoint {
    /// Checks the directory; with `make`, makes it first, or takes over what an earlier mount made and could not remove.
    ///
    /// # Errors
    /// `Absent` for a missing one, `Busy` for one that is not empty or mounted on, `Usage` for what is no directory.
    pub(crate) fn prepare(dir: &Path, make: bool) -> Outcome<Self> {
        if !make {
            let path = check(dir)?;
            return Ok(Self::new(path, None));
        }
        let fail = |e: std::io::Error| Failure::io(dir, "cannot make the mount point", &e);
        // A dead mount hides the directory below it, which may be one that we made.
        if let Ok(path) = mount_table::canonical(dir) {
            uncover(&path)?;
        }
        let ours = match DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => is_guarded(dir),
            made => made.map(|()| true).map_err(fail)?,
        };
        if !ours {
            let path = check(dir)?;
            return Ok(Self::new(path, None));
        }
        let below = open_guarded(dir).map_err(fail)?;
        Ok(Self::new(check(dir)?, Some(below)))
    }

    fn new(path: PathBuf, made: Option<File>) -> Self {
        let made = Mutex::new(made);
        Self { path, made }
    }

    /// Its absolute path, without symbolic links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the directory below the mount, now that the mount hides it: nobody may write plain text into it when
    /// the mount is gone. Root is kept out by the immutable flag, where the file system below has one.
    pub(crate) fn guard(&self) {
        let made = self.made.lock();
        let Some(below) = &*made else { return };
        let _ = below.set_permissions(Permissions::from_mode(0o000));
        set_immutable(below, true);
    }

    /// Removes the directory again, once, where we made it; to be called when nothing is mounted any more.
    pub(crate) fn remove(&self) {
        let Some(below) = self.made.lock().take() else {
            return;
        };
        set_immutable(&below, false);
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// What [`MountPoint::guard`] leaves when the process is killed: a directory that nobody may enter.
fn is_guarded(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.mode() & 0o777 == 0)
}

/// Opens such a directory, so that it can be mounted on again.
fn open_guarded(dir: &Path) -> std::io::Result<File> {
    // Only root could have made it immutable, and root may open it all the same.
    if let Ok(below) = File::open(dir) {
        set_immutable(&below, false);
    }
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    File::open(dir)
}

/// Not every file system has the flag, and only root may set it.
#[cfg(target_os = "linux")]
fn set_immutable(dir: &File, on: bool) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    if let Ok(mut flags) = ioctl_getflags(dir)
        && flags.contains(IFlags::IMMUTABLE) != on
    {
        flags.set(IFlags::IMMUTABLE, on);
        let _ = ioctl_setflags(dir, flags);
    }
}

#[cfg(not(target_os = "linux"))]
fn set_immutable(_dir: &File, _on: bool) {}

/// Takes away what a killed process left mounted there; any other mount is refused.
fn uncover(path: &Path) -> Outcome<()> {
    match mount_table::at(path)? {
        Some(line) if !line.is_automount() => clear_dead(path, &line),
        _ => Ok(()),
    }
}

fn check(dir: &Path) -> Outcome<PathBuf> {
    let path = mount_table::canonical(dir)?;
    uncover(&path)?;
    let meta = std::fs::metadata(&path).map_err(|e| {
        let failure = Failure::io(&path, "the mount point cannot be used", &e);
        match failure.exit {
            Exit::Absent => failure.remedy("make it with mkdir, or let skrin make it with --mkdir"),
            _ => failure,
        }
    })?;
    if !meta.is_dir() {
        return Err(Failure::new(
            Exit::Usage,
            format!("{}: the mount point is not a directory", path.display()),
        ));
    }
    let mut entries = std::fs::read_dir(&path)
        .map_err(|e| Failure::io(&path, "cannot look into the mount point", &e))?;
    if entries.next().is_some() {
        return Err(Failure::new(
            Exit::Busy,
            format!("{}: the mount point is not empty", path.display()),
        )
        .remedy("choose an empty directory: what lies there would be hidden"));
    }
    Ok(path)
}

/// Something is mounted there. Only a mount of ours whose process is gone is taken away.
fn clear_dead(path: &Path, line: &MountLine) -> Outcome<()> {
    if line.is_ours() && is_dead(path) {
        print::note(format!(
            "{}: the process behind the mount that is here has ended; detaching it",
            path.display()
        ));
        return detach(path, true);
    }
    Err(Failure::new(
        Exit::Busy,
        format!(
            "{}: something is mounted there already ({})",
            path.display(),
            line.kind
        ),
    )
    .remedy(format!(
        "unmount it first: skrin unmount {}",
        path.display()
    )))
}

/// Whether the process behind a mount is gone. Asked of the file system, for attributes the kernel knows by heart.
pub(crate) fn is_dead(path: &Path) -> bool {
    matches!(
        rustix::fs::statvfs(path),
        Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED | rustix::io::Errno::NXIO)
    )
}

/// Takes a mount away; `lazy` hides it at once and ends it when the last file is closed.
///
/// # Errors
/// `Busy`, naming who uses it.
#[cfg(target_os = "linux")]
pub(crate) fn detach(path: &Path, lazy: bool) -> Outcome<()> {
    use rustix::mount::{UnmountFlags, unmount};
    let flags = if lazy {
        UnmountFlags::DETACH
    } else {
        UnmountFlags::empty()
    };
    match unmount(path, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(busy(path)),
        // fusermount3 may unmount what this user mounted.
        Err(rustix::io::Errno::PERM) => {
            let how = if lazy { "-uz" } else { "-u" };
            detach_by("fusermount3", &[how], path)
        }
        Err(e) => Err(Failure::io(path, "cannot unmount", &e.into())),
    }
}

/// Takes a mount away. macOS has no lazy way: `lazy` means by force, and what is open then fails.
///
/// # Errors
/// `Busy`, naming who uses it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn detach(path: &Path, lazy: bool) -> Outcome<()> {
    detach_by("/sbin/umount", if lazy { &["-f"] } else { &[] }, path)
}

fn detach_by(program: &str, how: &[&str], path: &Path) -> Outcome<()> {
    let mut command = Command::new(program);
    command.args(how).arg("--").arg(path);
    let output = command.stdin(Stdio::null()).output().map_err(|e| {
        Failure::io(Path::new(program), "cannot run it", &e)
            .remedy("it comes with FUSE: on Debian with the package fuse3")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("busy") {
        return Err(busy(path));
    }
    Err(Failure::new(
        Exit::Other,
        format!("{}: cannot unmount: {}", path.display(), said.trim()),
    ))
}

/// A mount that is in use, and by whom.
pub(crate) fn busy(path: &Path) -> Failure {
    let holders = mount_table::holders(path);
    let by = match holders.as_slice() {
        [] => "by a process of another user, or a mount below it".to_owned(),
        some => format!("by {}", some.join(", ")),
    };
    Failure::new(Exit::Busy, format!("{}: still in use {by}", path.display()))
        .remedy("close what is open there and try again, or use --lazy")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(dir: &Path) -> Failure {
        MountPoint::prepare(dir, false).err().unwrap()
    }

    #[test]
    fn a_mount_point_must_be_an_empty_directory() {
        let base = tempfile::tempdir().unwrap();
        let missing = base.path().join("missing");
        assert_eq!(refused(&missing).exit, Exit::Absent);
        assert!(!missing.exists());
        let file = base.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(refused(&file).exit, Exit::Usage);
        assert_eq!(refused(base.path()).exit, Exit::Busy);
        #[cfg(target_os = "linux")]
        assert_eq!(refused(Path::new("/proc")).exit, Exit::Busy);
    }

    #[test]
    fn a_directory_that_was_made_is_closed_and_removed_again() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("m");
        let point = MountPoint::prepare(&dir, true).unwrap();
        point.guard();
        let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0);
        point.remove();
        assert!(!dir.exists());
    }
}
