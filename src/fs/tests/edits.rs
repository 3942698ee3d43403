//! Small edits with fsync: what was acknowledged is there after a crash, at the price of the edit and not of its block.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

#[path = "support/model.rs"]
#[allow(
    dead_code,
    reason = "shared with the random programs, which use all of it"
)]
mod model;
#[path = "support/sut.rs"]
#[allow(
    dead_code,
    reason = "shared with the random programs, which use all of it"
)]
mod sut;

use skrin_base::Entropy;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{Fs, FsOptions, HandleId, NodeId, OpenMode, SetAttr, Shutdown};
use sut::{CALLER, read_all};

const BLOCK: usize = 65_536;
const NAME: &[u8] = b"database";
const WRITE: OpenMode = OpenMode {
    write: true,
    truncate: false,
};

fn options() -> FsOptions {
    FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    }
}

fn open(fs: &Fs) -> HandleId {
    let node = fs.lookup(NodeId::ROOT, NAME).unwrap().node;
    fs.open_node(node, WRITE).unwrap()
}

fn create(fs: &Fs, bytes: &[u8]) -> HandleId {
    let made = fs.create(NodeId::ROOT, NAME, 0o644, true, WRITE, &CALLER);
    let handle = made.unwrap().1;
    fs.write(handle, 0, bytes).unwrap();
    fs.fsync(handle).unwrap();
    handle
}

fn contents(fs: &Fs) -> Vec<u8> {
    read_all(fs, fs.lookup(NodeId::ROOT, NAME).unwrap().node)
}

fn noise(entropy: &SeededEntropy, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    entropy.fill(&mut bytes);
    bytes
}

/// One file, and which of its states a crash may leave.
struct Life {
    entropy: SeededEntropy,
    now: Vec<u8>,
    allowed: Vec<Vec<u8>>,
}

impl Life {
    fn below(&self, n: usize) -> usize {
        (self.entropy.u64() % n as u64) as usize
    }

    fn told(&mut self) {
        self.allowed.push(self.now.clone());
    }

    fn synced(&mut self) {
        self.allowed = vec![self.now.clone()];
    }

    /// One change, perhaps of many bytes, perhaps behind the end.
    fn write(&mut self, fs: &Fs, handle: HandleId) {
        let len = [1, 700, 4096, 4096, 70_000][self.below(5)];
        let len = self.below(len) + 1;
        let at = match self.below(4) {
            0 => self.now.len(),
            1 => self.below(self.now.len() / BLOCK + 1) * BLOCK,
            _ => self.below(self.now.len() + 5000),
        };
        let bytes = noise(&self.entropy, len);
        fs.write(handle, at as u64, &bytes).unwrap();
        if self.now.len() < at + len {
            self.now.resize(at + len, 0);
        }
        self.now[at..at + len].copy_from_slice(&bytes);
    }

    fn resize(&mut self, fs: &Fs) {
        let size = self.below(self.now.len() + 9000);
        let set = SetAttr {
            size: Some(size as u64),
            ..SetAttr::default()
        };
        let node = fs.lookup(NodeId::ROOT, NAME).unwrap().node;
        fs.setattr(node, &set).unwrap();
        self.now.resize(size, 0);
    }
}

#[test]
fn random_edits_with_fsync_come_back_after_crashes() {
    for seed in 0..16 {
        let vault = TestVault::in_memory(seed).unwrap();
        let mut at = vault.open(0, options()).unwrap();
        let entropy = SeededEntropy::new(seed);
        let now = noise(&entropy, 3 * BLOCK + 100);
        let mut handle = create(&at.fs, &now);
        let mut life = Life {
            entropy,
            allowed: vec![now.clone()],
            now,
        };
        for step in 0..120 {
            match life.below(24) {
                0..=9 => life.write(&at.fs, handle),
                10..=18 => {
                    life.write(&at.fs, handle);
                    at.fs.fsync(handle).unwrap();
                    life.synced();
                }
                19 => life.resize(&at.fs),
                20 => {
                    at.fs.release(handle).unwrap();
                    life.told();
                    handle = open(&at.fs);
                }
                21 => {
                    at.fs.sync(|_| ()).unwrap();
                    life.synced();
                }
                22 => at.replica.flush().unwrap(),
                _ => {
                    drop(at);
                    at = vault.open(0, options()).unwrap();
                    let found = contents(&at.fs);
                    assert!(
                        life.allowed.contains(&found),
                        "seed {seed}, step {step}: {} bytes, last {}",
                        found.len(),
                        life.now.len()
                    );
                    life.now = found;
                    at.fs.fsync_dir().unwrap();
                    life.synced();
                    handle = open(&at.fs);
                }
            }
            assert!(
                step % 5 > 0 || contents(&at.fs) == life.now,
                "seed {seed}, step {step}: the open file"
            );
        }
    }
}

fn many_edits(vault: &TestVault) -> (Opened, HandleId, Vec<u8>) {
    let at = vault.open(0, options()).unwrap();
    let entropy = SeededEntropy::new(5);
    let mut bytes = noise(&entropy, 2 * BLOCK);
    let handle = create(&at.fs, &bytes);
    at.fs.sync(|_| ()).unwrap();
    for n in 0..200 {
        let (from, patch) = ((n * 37 % 30) * 4096, noise(&entropy, 4096));
        at.fs.write(handle, from as u64, &patch).unwrap();
        at.fs.fsync(handle).unwrap();
        bytes[from..from + 4096].copy_from_slice(&patch);
    }
    (at, handle, bytes)
}

#[test]
fn two_hundred_saves_make_one_operation_and_seal_each_block_once() {
    let vault = TestVault::in_memory(3).unwrap();
    let (at, handle, bytes) = many_edits(&vault);
    let pending = at.fs.pending();
    assert_eq!((pending.operations, at.data.pending().bytes), (0, 0));
    at.fs.release(handle).unwrap();
    assert_eq!(at.fs.pending().operations, 1);
    let sealed = at.data.pending().bytes;
    assert!(
        (2 * BLOCK as u64..3 * BLOCK as u64).contains(&sealed),
        "{sealed}"
    );
    assert!(contents(&at.fs) == bytes);
    drop(at);
    let at = vault.open(0, options()).unwrap();
    assert!(contents(&at.fs) == bytes);
    at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn edits_from_before_a_crash_are_told_by_the_next_mount_and_reach_the_other_device() {
    let vault = TestVault::in_memory(4).unwrap();
    let (at, _, bytes) = many_edits(&vault);
    drop(at);
    let at = vault.open(0, options()).unwrap();
    assert_eq!(at.fs.pending().operations, 1, "told when it was taken in");
    at.fs.sync(|_| ()).unwrap();
    let other = vault.open(1, options()).unwrap();
    other.fs.poll().unwrap();
    assert!(contents(&other.fs) == bytes);
    drop(at);
    let at = vault.open(0, options()).unwrap();
    assert_eq!(at.fs.pending().operations, 0, "and only once");
    assert!(contents(&at.fs) == bytes);
}

#[test]
fn a_read_only_mount_shows_edits_from_before_a_crash_and_keeps_them() {
    let vault = TestVault::in_memory(4).unwrap();
    let (at, _, bytes) = many_edits(&vault);
    drop(at);
    let read_only = FsOptions {
        read_only: true,
        ..options()
    };
    for _ in 0..2 {
        let at = vault.open(0, read_only.clone()).unwrap();
        assert!(contents(&at.fs) == bytes);
        assert!(contents(&at.fs) == bytes, "after a close, too");
        at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
    let at = vault.open(0, options()).unwrap();
    assert!(contents(&at.fs) == bytes);
}

/// What the files of the root hold.
fn all_contents(fs: &Fs) -> Vec<Vec<u8>> {
    let (tree, _) = sut::tree(fs);
    let names = tree.keys().filter_map(|path| path.last());
    let nodes = names.map(|name| fs.lookup(NodeId::ROOT, name).unwrap().node);
    nodes.map(|node| read_all(fs, node)).collect()
}

/// Another device changes the file, without knowing of the edits.
fn change_elsewhere(vault: &TestVault, len: u64) -> (Opened, Vec<u8>) {
    let other = vault.open(1, options()).unwrap();
    other.fs.poll().unwrap();
    let theirs = open(&other.fs);
    other.fs.write(theirs, 7, b"theirs").unwrap();
    let node = other.fs.lookup(NodeId::ROOT, NAME).unwrap().node;
    let set = SetAttr {
        size: Some(len),
        ..SetAttr::default()
    };
    other.fs.setattr(node, &set).unwrap();
    other.fs.release(theirs).unwrap();
    other.fs.sync(|_| ()).unwrap();
    let bytes = contents(&other.fs);
    assert_eq!(&bytes[7..13], b"theirs");
    (other, bytes)
}

fn assert_both(at: &Opened, ours: &[u8], theirs: &[u8]) {
    at.fs.sync(|_| ()).unwrap();
    let all = all_contents(&at.fs);
    assert_eq!(all.len(), 2, "file and conflict copy");
    assert!(all.iter().any(|c| c == ours), "what was saved here");
    assert!(all.iter().any(|c| c == theirs), "what was saved there");
}

#[test]
fn edits_of_a_file_that_another_device_changed_make_a_conflict_copy() {
    for polled in [true, false] {
        let vault = TestVault::in_memory(6).unwrap();
        let (at, handle, bytes) = many_edits(&vault);
        let (_other, theirs) = change_elsewhere(&vault, BLOCK as u64 + 9);
        if polled {
            at.fs.poll().unwrap();
            at.replica.flush().unwrap();
        }
        drop((at, handle));
        let at = vault.open(0, options()).unwrap();
        assert_both(&at, &bytes, &theirs);
    }
}

#[test]
fn edits_that_go_on_in_a_conflict_copy_come_back_there() {
    let vault = TestVault::in_memory(6).unwrap();
    let (at, handle, mut bytes) = many_edits(&vault);
    let (_other, theirs) = change_elsewhere(&vault, 2 * BLOCK as u64);
    at.fs.poll().unwrap();
    at.fs.sync(|_| ()).unwrap();
    at.fs.write(handle, 5, b"once more").unwrap();
    at.fs.fsync(handle).unwrap();
    bytes[5..14].copy_from_slice(b"once more");
    drop(at);
    let at = vault.open(0, options()).unwrap();
    assert_both(&at, &bytes, &theirs);
}

#[test]
fn of_two_edited_branches_a_read_only_mount_shows_the_one_that_has_the_name_and_keeps_both() {
    for ours_last in [true, false] {
        let vault = TestVault::in_memory(6).unwrap();
        let (at, ours, mut our_bytes) = many_edits(&vault);
        let (_other, mut their_bytes) = change_elsewhere(&vault, 2 * BLOCK as u64);
        at.fs.poll().unwrap();
        at.fs.sync(|_| ()).unwrap();
        // The old file goes on as a conflict copy; its name leads to the other device's contents.
        let theirs = open(&at.fs);
        let mut edits = [
            (theirs, &mut their_bytes, b"of theirs"),
            (ours, &mut our_bytes, b"once more"),
        ];
        if !ours_last {
            edits.reverse();
        }
        for (handle, bytes, edit) in edits {
            at.fs.write(handle, 500, edit).unwrap();
            at.fs.fsync(handle).unwrap();
            bytes[500..509].copy_from_slice(edit);
        }
        assert_eq!(at.fs.pending().operations, 0, "they are noted only");
        drop(at);
        let read_only = FsOptions {
            read_only: true,
            ..options()
        };
        let at = vault.open(0, read_only).unwrap();
        assert!(contents(&at.fs) == their_bytes, "ours last: {ours_last}");
        at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
        drop(at);
        let at = vault.open(0, options()).unwrap();
        assert_both(&at, &our_bytes, &their_bytes);
    }
}

#[test]
fn edits_of_a_file_that_another_device_removed_bring_it_back() {
    for polled in [true, false] {
        let vault = TestVault::in_memory(6).unwrap();
        let (at, handle, bytes) = many_edits(&vault);
        let other = vault.open(1, options()).unwrap();
        other.fs.poll().unwrap();
        other.fs.unlink(NodeId::ROOT, NAME).unwrap();
        other.fs.sync(|_| ()).unwrap();
        if polled {
            at.fs.poll().unwrap();
        }
        drop((at, handle));
        let at = vault.open(0, options()).unwrap();
        assert!(contents(&at.fs) == bytes, "polled: {polled}");
        at.fs.sync(|_| ()).unwrap();
        other.fs.poll().unwrap();
        assert!(contents(&other.fs) == bytes);
    }
}

#[test]
fn a_second_fsync_makes_attributes_durable_although_no_byte_changed() {
    let vault = TestVault::in_memory(3).unwrap();
    let (at, handle, _) = many_edits(&vault);
    let node = at.fs.lookup(NodeId::ROOT, NAME).unwrap().node;
    let set = SetAttr {
        mode: Some(0o400),
        ..SetAttr::default()
    };
    at.fs.setattr(node, &set).unwrap();
    at.fs.fsync(handle).unwrap();
    drop(at);
    let at = vault.open(0, options()).unwrap();
    assert_eq!(at.fs.lookup(NodeId::ROOT, NAME).unwrap().mode, 0o400);
}

#[test]
fn edits_that_a_published_operation_settled_do_not_come_back() {
    let vault = TestVault::in_memory(3).unwrap();
    let (at, handle, mut bytes) = many_edits(&vault);
    let node = at.fs.lookup(NodeId::ROOT, NAME).unwrap().node;
    let set = SetAttr {
        size: Some(0),
        ..SetAttr::default()
    };
    at.fs.setattr(node, &set).unwrap();
    at.fs.release(handle).unwrap();
    // Published, and killed before anything else makes the journal write.
    at.fs.sync(|_| ()).unwrap();
    drop(at);
    let at = vault.open(0, options()).unwrap();
    bytes.clear();
    assert_eq!(all_contents(&at.fs), [bytes]);
}

#[test]
fn segments_that_no_operation_names_are_let_go_by_the_next_mount() {
    let vault = TestVault::in_memory(3).unwrap();
    let at = vault.open(0, options()).unwrap();
    let handle = create(&at.fs, b"x");
    at.fs
        .write(handle, 0, &noise(&SeededEntropy::new(1), 20 << 20))
        .unwrap();
    at.data.journal().sync_all().unwrap();
    assert!(!at.data.undeclared().is_empty());
    drop(at);
    let at = vault.open(0, options()).unwrap();
    assert_eq!(at.data.undeclared(), []);
    assert_eq!(contents(&at.fs), b"x");
}

#[test]
fn edits_of_a_file_that_is_removed_leave_nothing_behind() {
    let vault = TestVault::in_memory(6).unwrap();
    let (at, handle, _) = many_edits(&vault);
    at.fs.unlink(NodeId::ROOT, NAME).unwrap();
    at.fs.release(handle).unwrap();
    at.fs.sync(|_| ()).unwrap();
    drop(at);
    let at = vault.open(0, options()).unwrap();
    assert_eq!(at.fs.pending().operations, 0);
    assert_eq!(sut::tree(&at.fs).0.len(), 1);
    // The same, but killed before the last descriptor was closed.
    let _ = create(&at.fs, &[1; BLOCK * 2]);
    let handle = open(&at.fs);
    at.fs.write(handle, 5, b"x").unwrap();
    at.fs.fsync(handle).unwrap();
    at.fs.unlink(NodeId::ROOT, NAME).unwrap();
    at.fs.fsync_dir().unwrap();
    drop(at);
    let at = vault.open(0, options()).unwrap();
    assert_eq!(sut::tree(&at.fs).0.len(), 1);
}

/// The next mount seals what it takes in, cannot tell it for want of room, and does not let go of the segment: nor does it put anything into one
/// that it let go of.
#[test]
fn edits_that_the_next_mount_cannot_tell_yet_are_told_when_there_is_room() {
    let vault = TestVault::in_memory(6).unwrap();
    let at = vault.open(0, options()).unwrap();
    let mut bytes = noise(&SeededEntropy::new(6), 3 * BLOCK);
    let handle = create(&at.fs, &bytes);
    at.fs.sync(|_| ()).unwrap();
    at.fs.write(handle, 70_000, b"edited").unwrap();
    at.fs.fsync(handle).unwrap();
    bytes[70_000..70_006].copy_from_slice(b"edited");
    for n in 0..80 {
        let name = format!("d{n}");
        let made = at.fs.mkdir(NodeId::ROOT, name.as_bytes(), 0o755, &CALLER);
        made.unwrap();
    }
    at.fs.fsync_dir().unwrap();
    drop(at);
    let little = FsOptions {
        pending_max: 64,
        ..options()
    };
    let at = vault.open(0, little.clone()).unwrap();
    let handle = open(&at.fs);
    let read = at.fs.read(handle, 0, bytes.len()).unwrap();
    assert!(read == bytes, "read while there is no room");
    let told = at.fs.release(handle).unwrap_err();
    assert_eq!(told.errno(), skrin_base::Errno::ENOSPC);
    at.fs.sync(|_| ()).unwrap();
    assert!(contents(&at.fs) == bytes, "read when there is");
    drop(at);
    let at = vault.open(0, little).unwrap();
    assert!(contents(&at.fs) == bytes, "read after a restart");
    at.fs.sync(|_| ()).unwrap();
    let other = vault.open(1, options()).unwrap();
    assert!(contents(&other.fs) == bytes, "read on another device");
    for at in [at, other] {
        at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}
