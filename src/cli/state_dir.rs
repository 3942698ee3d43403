//! The local state of one vault: `$XDG_STATE_HOME/skrin/<vault id>/`, private, and used by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use skrin_base::VaultId;

use crate::control;
use crate::exit::{Exit, Failure, Outcome};

/// The folder of sealed blocks as they were fetched, in a state directory.
pub(crate) const CACHE: &str = "cache";
/// The folder of objects that are being put again, in a state directory.
pub(crate) const SPARE: &str = "repair";

/// Where the state of all vaults lies.
///
/// # Errors
/// `Usage` where neither the option nor the environment says.
pub(crate) fn base(option: Option<&Path>) -> Outcome<PathBuf> {
    if let Some(dir) = option {
        return std::path::absolute(dir)
            .map_err(|e| Failure::io(dir, "cannot make the path absolute", &e));
    }
    // The XDG specification: a relative path there is invalid and must be ignored.
    let variable = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = std::env::home_dir().filter(|path| path.is_absolute());
    variable("XDG_STATE_HOME")
        // Without HOME, as under systemd, the one that the user has.
        .or_else(|| home.map(|home| home.join(".local/state")))
        .map(|dir| dir.join("skrin"))
        .ok_or_else(|| {
            Failure::new(Exit::Usage, "neither XDG_STATE_HOME nor HOME is set")
                .remedy("use --state-dir")
        })
}

/// Makes a directory and its parents for this user alone; one that is there must be ours and closed to others.
///
/// # Errors
/// Names the directory.
pub(crate) fn make_private(dir: &Path) -> Outcome<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Failure::io(dir, "cannot make the directory", &e))?;
    let meta =
        std::fs::symlink_metadata(dir).map_err(|e| Failure::io(dir, "cannot look at it", &e))?;
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(Failure::new(
            Exit::Other,
            format!("{}: belongs to another user", dir.display()),
        )
        .remedy("choose another directory"));
    }
    if meta.mode() & 0o077 != 0 {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
            .map_err(|e| Failure::io(dir, "cannot close it to other users", &e))?;
    }
    Ok(())
}

/// Who holds the lock is waited for so long, and looked at as often.
const LOOK: Duration = Duration::from_secs(1);
/// umount(8) returns before the process behind the mount has ended. So long it may take to notice ...
const NOTICING: Duration = Duration::from_secs(10);
/// ... and so long to put away what it has in memory.
const ENDING: Duration = Duration::from_secs(30);

/// The state directory of one vault, locked until dropped.
pub(crate) struct StateDir {
    path: PathBuf,
    lock: File,
}

impl StateDir {
    /// Makes and locks the directory of `vault` below `base`.
    ///
    /// # Errors
    /// `Busy` where another process holds it.
    pub(crate) fn open(base: &Path, vault: VaultId) -> Outcome<Self> {
        let path = base.join(vault.to_string());
        make_private(&path)?;
        let lock = lock(&path.join("lock"))?;
        Ok(Self { path, lock })
    }

    /// Tells whoever wants it next that this process is about to end, and worth waiting for.
    pub(crate) fn ends(&self) {
        let _ = self.lock.set_len(0);
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn lock(path: &Path) -> Outcome<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| Failure::io(path, "cannot open the lock file", &e))?;
    let begun = Instant::now();
    let mut look = LOOK;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let waited = begun.elapsed();
                let in_vain = match file.metadata().is_ok_and(|meta| meta.len() == 0) {
                    true => waited > ENDING,
                    false if waited <= look => false,
                    false => {
                        look = waited + LOOK;
                        waited > NOTICING || stays(&file)
                    }
                };
                if in_vain {
                    return Err(held(path, &file));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) => return Err(Failure::io(path, "cannot lock it", &e.into())),
        }
    }
    // Only for whoever comes second, who looks whether it is worth waiting; the lock itself is what counts.
    let _ = file.set_len(0);
    let _ = file.rewind();
    let _ = write!(file, "{}", std::process::id());
    Ok(file)
}

/// The process that holds the lock.
fn holder(file: &File) -> Option<u32> {
    let mut pid = [0; 16];
    let len = file.read_at(&mut pid, 0).ok()?;
    std::str::from_utf8(pid.get(..len)?).ok()?.parse().ok()
}

/// Whether that goes on: its mount is there, or it is this process, which nobody ends by waiting.
fn stays(file: &File) -> bool {
    holder(file).is_some_and(|pid| pid == std::process::id() || control::has_mount(pid))
}

fn held(path: &Path, file: &File) -> Failure {
    let dir = path.parent().unwrap_or(path).display();
    let by = match holder(file) {
        Some(pid) => format!("process {pid}"),
        None => "another process".into(),
    };
    Failure::new(
        Exit::Busy,
        format!("{dir}: this vault is in use with this state directory, by {by}"),
    )
    .remedy("unmount it there, or give this mount its own --state-dir")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_busy_and_names_the_holder() {
        let base = tempfile::tempdir().unwrap();
        let vault = VaultId([7; 16]);
        let first = StateDir::open(base.path(), vault).unwrap();
        let failure = StateDir::open(base.path(), vault).err().unwrap();
        assert_eq!(failure.exit, Exit::Busy);
        assert!(
            failure
                .to_string()
                .contains(&std::process::id().to_string())
        );
        drop(first);
        StateDir::open(base.path(), vault).unwrap();
    }

    #[test]
    fn a_process_that_holds_the_lock_and_has_nothing_mounted_is_waited_for() {
        let base = tempfile::tempdir().unwrap();
        let vault = VaultId([2; 16]);
        let first = StateDir::open(base.path(), vault).unwrap();
        // Not this process, and none that mounts vaults.
        std::fs::write(first.path().join("lock"), "1").unwrap();
        let ending = std::thread::spawn(move || {
            std::thread::sleep(2 * LOOK);
            drop(first);
        });
        StateDir::open(base.path(), vault).unwrap();
        ending.join().unwrap();
    }

    #[test]
    fn the_directory_is_closed_to_others() {
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::open(base.path(), VaultId([1; 16])).unwrap();
        let mode = std::fs::metadata(state.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
