//! Storages that take no writes for a while: a folder that is mounted read-only, one that went back under a mount. These
//! tests need root, as those of full disks.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Mount, Run, Vault, command, wait_for, wait_within};
use crate::storages::On;

const EROFS: i32 = 30;
/// More than the longest pause between two attempts to publish.
const PATIENCE: Duration = Duration::from_secs(180);

/// A folder that can be made read-only, also for root.
struct Folder {
    at: PathBuf,
    _dir: TempDir,
}

impl Folder {
    fn new() -> Self {
        // Tests with mounts of their own let go of what is called so.
        let dir = tempfile::Builder::new()
            .prefix("skrin-disk-")
            .tempdir()
            .unwrap();
        let at = dir.path().to_owned();
        command("mount").arg("--bind").args([&at, &at]).output_ok();
        Self { at, _dir: dir }
    }

    fn set_read_only(&self, read_only: bool) {
        let how = match read_only {
            true => "remount,bind,ro",
            false => "remount,bind,rw",
        };
        // Not while an object is being written.
        wait_for("the folder to be remounted", || {
            let mut mount = command("mount");
            mount.args(["-o", how]).arg(&self.at);
            mount.finish().status.success()
        });
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let gone = command("umount").arg("-l").arg(&self.at).finish();
        assert!(std::thread::panicking() || gone.status.success());
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Files that `fsync` acknowledged, by their names, which they hold.
#[derive(Default)]
struct Acknowledged(Vec<String>);

impl Acknowledged {
    fn write(&mut self, mount: &Path, name: &str) -> io::Result<()> {
        write_synced(&mount.join(name), name.as_bytes())?;
        self.0.push(name.to_owned());
        Ok(())
    }

    /// Writes until it is refused.
    fn fill(&mut self, mount: &Path, prefix: &str) {
        let mut number = 0;
        wait_within(PATIENCE, "a write to be refused", || {
            number += 1;
            let refused = self.write(mount, &format!("{prefix}-{number}")).err();
            if let Some(error) = &refused {
                assert_eq!(error.raw_os_error(), Some(EROFS), "{error}");
            }
            refused.is_some()
        });
    }

    /// Writes as soon as it is taken.
    fn go_on(&mut self, mount: &Path, prefix: &str) {
        let mut number = 0;
        wait_within(PATIENCE, "a write to be taken", || {
            number += 1;
            self.write(mount, &format!("{prefix}-{number}")).is_ok()
        });
    }

    fn assert_there(&self, mount: &Path) {
        for name in &self.0 {
            let back = std::fs::read_to_string(mount.join(name)).unwrap();
            assert_eq!(&back, name);
        }
    }
}

/// Whatever changes something is refused; `name` is there.
fn assert_read_only(mount: &Path, name: &str) {
    let (path, new) = (mount.join(name), mount.join("new"));
    for (what, refused) in [
        ("create", errno(File::create(&new))),
        ("append", errno(File::options().append(true).open(&path))),
        ("mkdir", errno(std::fs::create_dir(&new))),
        ("unlink", errno(std::fs::remove_file(&path))),
        ("rename", errno(std::fs::rename(&path, &new))),
    ] {
        assert_eq!(refused, Some(EROFS), "{what}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), name);
}

fn errors(mount: &Mount<'_>) -> String {
    mount.status()["errors"].to_string()
}

/// Writes until it is refused, says so everywhere, and goes on when the storage takes writes again: nothing that was acknowledged is lost.
fn a_storage_that_takes_no_writes_loses_nothing(
    vault: &Vault,
    again: &dyn Fn(&str) -> PathBuf,
    refuse: &dyn Fn(bool),
) {
    let mount = Mount::adopt(vault, again("a"));
    let mut written = Acknowledged::default();
    written.write(mount.path(), "before").unwrap();
    std::fs::write(mount.join("unnamed"), "renamed").unwrap();
    let mut open = File::create(mount.join("open")).unwrap();
    mount.sync();
    refuse(true);
    // Nobody has heard of it yet. In one call, before which nothing waits that a slow machine could have been refused.
    std::fs::rename(mount.join("unnamed"), mount.join("renamed")).unwrap();
    written.0.push("renamed".to_owned());
    written.fill(mount.path(), "accepted");
    assert_read_only(mount.path(), "before");
    written.assert_there(mount.path());
    wait_for("the reason to be told", || {
        errors(&mount).contains("permissions of the storage")
    });
    for verb in ["sync", "unmount"] {
        let (code, said) = vault.skrin(&[verb]).arg(mount.path()).code();
        assert_ne!(code, 0, "{verb}: {said}");
        assert!(said.contains("permissions of the storage"), "{said}");
        assert!(said.contains("--now"), "{verb}: {said}");
    }
    // Whoever has a file open goes on writing. `fsync` says how it stands; what it was called for is on this disk.
    open.write_all(b"open").unwrap();
    assert_eq!(errno(open.sync_all()), Some(EROFS));
    written.0.push("open".to_owned());
    mount.crash();
    drop(open);
    // What waits is no reason not to mount: it is read, and waits on.
    let mount = Mount::adopt(vault, again("a"));
    written.assert_there(mount.path());
    written.fill(mount.path(), "accepted once more");
    written.assert_there(mount.path());
    refuse(false);
    written.go_on(mount.path(), "after");
    mount.unmount();
    let other = Mount::adopt(vault, again("b"));
    written.assert_there(other.path());
    other.unmount();
}

#[test]
fn a_local_folder_that_becomes_read_only_is_erofs_and_loses_nothing() {
    let folder = Folder::new();
    let vault = Vault::new_in(&folder.at);
    let again = |device: &str| {
        let point = vault.point(device);
        vault.mount_command(device, &point, &[]).output_ok();
        point
    };
    a_storage_that_takes_no_writes_loses_nothing(&vault, &again, &|read_only| {
        folder.set_read_only(read_only);
    });
    vault.verify_clean();
}

#[test]
fn with_durability_remote_fsync_is_erofs_while_the_folder_is_read_only_and_then_true_again() {
    let folder = Folder::new();
    let vault = Vault::new_in(&folder.at);
    let mount = vault.mount_with("a", &["--durability", "remote"]);
    let mut written = Acknowledged::default();
    written.write(mount.path(), "before").unwrap();
    folder.set_read_only(true);
    let refused = written.write(mount.path(), "refused");
    assert_eq!(errno(refused), Some(EROFS));
    folder.set_read_only(false);
    written.go_on(mount.path(), "after");
    let other = vault.mount("b");
    written.assert_there(other.path());
    other.unmount();
    mount.unmount();
    vault.verify_clean();
}

#[test]
fn what_a_mac_leaves_is_written_while_the_folder_is_read_only() {
    let folder = Folder::new();
    let vault = Vault::new_in(&folder.at);
    let mount = vault.mount_with("a", &["--mac-files", "local"]);
    let mut written = Acknowledged::default();
    written.write(mount.path(), "before").unwrap();
    folder.set_read_only(true);
    written.fill(mount.path(), "accepted");
    let (window, fork) = (mount.join(".DS_Store"), mount.join("._before"));
    for contents in ["first", "second"] {
        std::fs::write(&window, contents).unwrap();
    }
    std::fs::rename(&window, &fork).unwrap();
    assert_eq!(std::fs::read_to_string(&fork).unwrap(), "second");
    std::fs::remove_file(&fork).unwrap();
    assert_read_only(mount.path(), "before");
    folder.set_read_only(false);
    written.go_on(mount.path(), "after");
    mount.unmount();
    vault.verify_clean();
}

/// Makes one folder what the other is.
fn mirror(from: &Path, to: &Path) {
    let mut rsync = command("rsync");
    rsync.args(["-a", "--delete"]);
    rsync.arg(format!("{}/", from.display())).arg(to);
    rsync.output_ok();
}

#[test]
fn a_storage_that_goes_back_under_a_mount_is_erofs_until_it_shows_what_was_seen() {
    let vault = Vault::new(On::Local);
    let storage = vault.storage.local();
    let mount = vault.mount("a");
    let mut written = Acknowledged::default();
    written.write(mount.path(), "of a").unwrap();
    mount.sync();
    let (before, newer) = (vault.path("before"), vault.path("newer"));
    mirror(storage, &before);
    let other = vault.mount("b");
    written.write(other.path(), "of b").unwrap();
    other.unmount();
    wait_for("a to see what b wrote", || mount.join("of b").exists());
    mirror(storage, &newer);
    mirror(&before, storage);
    written.fill(mount.path(), "accepted");
    assert_read_only(mount.path(), "of b");
    written.assert_there(mount.path());
    wait_for("the reason to be told", || {
        errors(&mount).contains("rolled back")
    });
    let (code, said) = vault.skrin(&["sync"]).arg(mount.path()).code();
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("rolled back"), "{said}");
    // Whoever runs the storage brings the newer objects back.
    mirror(&newer, storage);
    written.go_on(mount.path(), "after");
    mount.unmount();
    let fresh = vault.mount("c");
    written.assert_there(fresh.path());
    fresh.unmount();
    vault.verify_clean();
}
