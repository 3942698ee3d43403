//! Disks that are really full: below the vault, below the local state, below a server. These tests mount, as all here, and need root for a tmpfs.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use skrin_servers::{Kind, Server};
use tempfile::TempDir;

use crate::harness::{Dice, Mount, Run, Vault, command, wait_for};
use crate::storages::On;

const MIB: u64 = 1 << 20;
const FILE: usize = 1 << 20;
/// More than enough for what the tests write.
const ROOMY: u64 = 400 * MIB;
const ENOSPC: i32 = 28;

/// A small disk in memory.
struct SmallDisk {
    at: PathBuf,
    _dir: Option<TempDir>,
}

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("skrin-disk-")
            .tempdir()
            .unwrap();
        let mut disk = Self::at(dir.path(), bytes, "mode=0755");
        disk._dir = Some(dir);
        disk
    }

    fn at(dir: &Path, bytes: u64, options: &str) -> Self {
        command("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={bytes},{options}"))
            .arg("skrin-test-disk")
            .arg(dir)
            .output_ok();
        Self {
            at: dir.to_owned(),
            _dir: None,
        }
    }

    fn resize(&self, bytes: u64) {
        command("mount")
            .args(["-o", &format!("remount,size={bytes}")])
            .arg(&self.at)
            .output_ok();
    }

    fn size(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).unwrap();
        stat.f_blocks * stat.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let gone = command("umount").arg("-l").arg(&self.at).finish();
        assert!(std::thread::panicking() || gone.status.success());
    }
}

/// Files that `fsync` acknowledged, by number.
#[derive(Default)]
struct Acknowledged(Vec<u64>);

fn body(number: u64) -> Vec<u8> {
    Dice(1000 + number).bytes(FILE)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

impl Acknowledged {
    /// Writes one file after the other until one is refused; how.
    fn fill(&mut self, mount: &Path) -> io::Error {
        let begun = Instant::now();
        for number in self.0.len() as u64.. {
            match write_synced(&mount.join(format!("f{number}")), &body(number)) {
                Ok(()) => self.0.push(number),
                Err(error) => return error,
            }
            assert!(begun.elapsed() < Duration::from_secs(600), "never refused");
        }
        unreachable!()
    }

    fn assert_there(&self, mount: &Path) {
        for number in &self.0 {
            let back = std::fs::read(mount.join(format!("f{number}"))).unwrap();
            assert!(back == body(*number), "f{number} is not what was written");
        }
    }
}

/// Writes until it is full, says so everywhere, and goes on when there is room: nothing that was acknowledged is lost.
fn a_full_storage_loses_nothing(
    vault: &Vault,
    first: Mount<'_>,
    again: &dyn Fn(&str) -> PathBuf,
    disk: &SmallDisk,
) {
    let mut written = Acknowledged::default();
    let refused = written.fill(first.path());
    assert_eq!(refused.raw_os_error(), Some(ENOSPC), "{refused}");
    assert!(!written.0.is_empty());
    written.assert_there(first.path());
    // A moment after the refusal.
    wait_for("what has to be done to be told", || {
        let errors = first.status()["errors"].to_string();
        errors.contains("free some space")
    });
    for verb in ["sync", "unmount"] {
        let (code, said) = vault.skrin(&[verb]).arg(first.path()).code();
        assert_eq!(code, 1, "{verb}: {said}");
        assert!(said.contains("free some space"), "{verb}: {said}");
        assert!(said.contains("--now"), "{verb}: {said}");
    }
    let said = first.unmount_with(&["--now"]);
    assert!(said.contains("left in the journal"), "{said}");
    // It mounts, and everything is there, though the storage is still full.
    let second = Mount::adopt(vault, again("a"));
    written.assert_there(second.path());
    std::fs::remove_file(second.join("f0")).unwrap();
    written.0.remove(0);
    disk.resize(ROOMY);
    second.sync();
    write_synced(&second.join("after"), b"there is room again").unwrap();
    second.unmount();
    let other = Mount::adopt(vault, again("b"));
    written.assert_there(other.path());
    assert!(!other.join("f0").exists());
    assert_eq!(
        std::fs::read(other.join("after")).unwrap(),
        b"there is room again"
    );
    other.unmount();
}

#[test]
fn a_local_folder_on_a_full_disk_is_enospc_and_loses_nothing() {
    let disk = SmallDisk::new(24 * MIB);
    let vault = Vault::new_in(&disk.at);
    let mount = vault.mount("a");
    let real = disk.size();
    // Until the folder was asked there is room without end.
    wait_for("the size of the disk to be told", || {
        let stat = rustix::fs::statvfs(mount.path()).unwrap();
        let shown = stat.f_blocks * stat.f_frsize;
        shown <= real && shown + MIB > real
    });
    let again = |device: &str| {
        let point = vault.point(device);
        vault.mount_command(device, &point, &[]).output_ok();
        point
    };
    a_full_storage_loses_nothing(&vault, mount, &again, &disk);
    vault.verify_clean();
}

#[test]
fn on_a_full_disk_no_document_is_cut_and_what_is_written_to_an_open_one_is_kept() {
    let disk = SmallDisk::new(24 * MIB);
    let vault = Vault::new_in(&disk.at);
    let mount = vault.mount("a");
    for name in ["document", "open"] {
        write_synced(&mount.join(name), b"before").unwrap();
    }
    mount.sync();
    let append = File::options().append(true).open(mount.join("open"));
    let mut open = append.unwrap();
    let mut written = Acknowledged::default();
    let refused = written.fill(mount.path());
    assert_eq!(refused.raw_os_error(), Some(ENOSPC), "{refused}");
    let cut = File::create(mount.join("document")).unwrap_err();
    assert_eq!(cut.raw_os_error(), Some(ENOSPC), "{cut}");
    // The kernel takes it, and says how it stands when it is asked.
    open.write_all(b" and after").unwrap();
    let told = open.sync_all().unwrap_err();
    assert_eq!(told.raw_os_error(), Some(ENOSPC), "{told}");
    drop(open);
    disk.resize(ROOMY);
    mount.sync();
    mount.unmount();
    let other = vault.mount("b");
    let text = |name: &str| std::fs::read_to_string(other.join(name)).unwrap();
    assert_eq!(text("document"), "before");
    assert_eq!(text("open"), "before and after");
    written.assert_there(other.path());
    other.unmount();
    vault.verify_clean();
}

#[test]
fn a_web_dav_server_with_a_full_disk_is_enospc_and_loses_nothing() {
    let server = Server::start(Kind::Apache).unwrap();
    let data = server.data_dir().unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&data).unwrap());
    let disk = SmallDisk::at(&data, 24 * MIB, &format!("uid={owner},mode=0755"));
    let vault = Vault::without_init(On::Local);
    let address = server.vault_url("vault");
    let skrin = |args: &[&str]| {
        let mut command = vault.skrin(args);
        command.envs(server.env());
        command
    };
    skrin(&["init", &address, "--words-file"])
        .arg(vault.words_file())
        .output_ok();
    let again = |device: &str| {
        let point = vault.point(device);
        skrin(&["mount", &address, "--words-file"])
            .arg(vault.words_file())
            .arg("--state-dir")
            .arg(vault.state(device))
            .arg(&point)
            .output_ok();
        point
    };
    let mount = Mount::adopt(&vault, again("a"));
    a_full_storage_loses_nothing(&vault, mount, &again, &disk);
    skrin(&["verify", &address, "--data", "--words-file"])
        .arg(vault.words_file())
        .output_ok();
}

#[test]
fn a_full_disk_below_the_local_state_is_enospc_and_what_fsync_acknowledged_survives_a_kill() {
    let disk = SmallDisk::new(90 * MIB);
    let vault = Vault::new(On::Local);
    let command = |options: &[&str]| {
        let mut command = vault.skrin(&["mount", &vault.address(), "--words-file"]);
        command
            .arg(vault.words_file())
            .arg("--state-dir")
            .arg(disk.at.join("state"))
            .arg(vault.point("a"))
            .args(options);
        command
    };
    let mount = |options: &[&str]| {
        command(options).output_ok();
        Mount::adopt(&vault, vault.point("a"))
    };
    mount(&[]).unmount();
    // Nothing leaves the journal, so that it meets the end of the disk.
    let offline = mount(&["--offline"]);
    let mut written = Acknowledged::default();
    let refused = written.fill(offline.path());
    assert_eq!(refused.raw_os_error(), Some(ENOSPC), "{refused}");
    assert!(written.0.len() > 30, "{}", written.0.len());
    written.assert_there(offline.path());
    offline.crash();
    // On the full disk it mounts, or says why not.
    let (code, said) = command(&["--offline"]).code();
    match code {
        0 => Mount::adopt(&vault, vault.point("a")).crash(),
        _ => assert!(
            code == 1 && said.contains("No space left"),
            "{code}: {said}"
        ),
    }
    disk.resize(180 * MIB);
    let offline = mount(&["--offline"]);
    written.assert_there(offline.path());
    let before = written.0.len();
    let refused = written.fill(offline.path());
    assert_eq!(refused.raw_os_error(), Some(ENOSPC), "{refused}");
    assert!(written.0.len() > before + 30, "{}", written.0.len());
    // The same mount goes on when there is room.
    disk.resize(ROOMY);
    let next = written.0.len() as u64;
    for number in next..next + 20 {
        write_synced(&offline.join(format!("f{number}")), &body(number)).unwrap();
        written.0.push(number);
    }
    offline.crash();
    let online = mount(&[]);
    written.assert_there(online.path());
    online.unmount();
    let other = vault.mount("b");
    written.assert_there(other.path());
    other.unmount();
    vault.verify_clean();
}

/// A file that is edited, and what it must hold.
struct Edit {
    name: String,
    contents: Vec<u8>,
    file: File,
}

impl Edit {
    fn new(mount: &Path, name: String, contents: Vec<u8>) -> Self {
        let file = File::options().write(true).open(mount.join(&name)).unwrap();
        Self {
            name,
            contents,
            file,
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.contents[at..at + bytes.len()].copy_from_slice(bytes);
        self.file.write_all_at(bytes, at as u64)?;
        self.file.sync_all()
    }
}

#[test]
fn an_edit_whose_first_note_a_full_disk_refused_is_whole_after_the_next_fsync_and_a_kill() {
    let disk = SmallDisk::new(90 * MIB);
    let vault = Vault::new(On::Local);
    let point = vault.point("a");
    let mount = |options: &[&str]| {
        let mut command = vault.skrin(&["mount", &vault.address(), "--words-file"]);
        command
            .arg(vault.words_file())
            .arg("--state-dir")
            .arg(disk.at.join("state"))
            .arg(&point)
            .args(options)
            .output_ok();
        Mount::adopt(&vault, point.clone())
    };
    let names: Vec<String> = (10..50).map(|number| format!("e{number}")).collect();
    let before = |name: &str| Dice(name[1..].parse().unwrap()).bytes(200_000);
    mount(&[]).unmount();
    let offline = mount(&["--offline"]);
    for name in &names {
        write_synced(&offline.join(name), &before(name)).unwrap();
    }
    let mut written = Acknowledged::default();
    let refused = written.fill(offline.path());
    assert_eq!(refused.raw_os_error(), Some(ENOSPC), "{refused}");
    // What room is left goes in smaller pieces, until the first note of some file is refused.
    let most_of_a_block = Dice(72).bytes(60_000);
    let mut edits = Vec::new();
    let refused = names.iter().find_map(|name| {
        let mut edit = Edit::new(offline.path(), name.clone(), before(name));
        let done = edit.write(70_000, &most_of_a_block);
        edits.push(edit);
        done.err()
    });
    let refused = refused.expect("never refused");
    assert_eq!(refused.raw_os_error(), Some(ENOSPC), "{refused}");
    disk.resize(ROOMY);
    let last = edits.last_mut().unwrap();
    last.file.sync_all().unwrap();
    last.write(80_000, b"within the same block").unwrap();
    let files: Vec<(String, Vec<u8>)> = edits
        .drain(..)
        .map(|edit| (edit.name, edit.contents))
        .collect();
    offline.crash();
    let assert_there = |mount: &Path| {
        for (name, contents) in &files {
            let back = std::fs::read(mount.join(name)).unwrap();
            assert!(back == *contents, "{name} is not what fsync acknowledged");
        }
        for name in &names[files.len()..] {
            assert!(std::fs::read(mount.join(name)).unwrap() == before(name));
        }
        written.assert_there(mount);
        let copies = std::fs::read_dir(mount).unwrap().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().contains("conflict")
        });
        assert_eq!(copies.count(), 0);
    };
    let online = mount(&[]);
    assert_there(online.path());
    online.unmount();
    let other = vault.mount("b");
    assert_there(other.path());
    other.unmount();
    vault.verify_clean();
}
