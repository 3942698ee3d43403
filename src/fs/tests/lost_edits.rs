//! Edits of which the journal lost the first record.
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
use skrin_fs::{FsOptions, NodeId, OpenMode};
use std::path::PathBuf;
use sut::{CALLER, read_all};

const BLOCK: usize = 65_536;
const NAME: &[u8] = b"database";
const WRITE: OpenMode = OpenMode {
    write: true,
    truncate: false,
};

/// The one file of the journal.
fn log(vault: &TestVault) -> PathBuf {
    let files = std::fs::read_dir(vault.state_dir(0).join("journal")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
    let logs: Vec<PathBuf> = paths.filter(is_log).collect();
    assert_eq!(logs.len(), 1);
    logs[0].clone()
}

/// A file of which edits at these places were synced, each by itself, before a crash that took the record of the first. What it was
/// before the edits.
fn crashed(vault: &mut TestVault, places: &[usize]) -> Vec<u8> {
    vault.journal = Box::new(|config| config.file_len = 2 << 20);
    let at = open(vault);
    let mut bytes = vec![0; 3 * BLOCK];
    SeededEntropy::new(5).fill(&mut bytes);
    let made = at
        .fs
        .create(NodeId::ROOT, NAME, 0o644, true, WRITE, &CALLER);
    let handle = made.unwrap().1;
    at.fs.write(handle, 0, &bytes).unwrap();
    at.fs.fsync(handle).unwrap();
    at.fs.sync(|_| ()).unwrap();
    let before = std::fs::read(log(vault)).unwrap();
    let mut first = None;
    for place in places {
        at.fs.write(handle, *place as u64, b"edited").unwrap();
        at.fs.fsync(handle).unwrap();
        first.get_or_insert_with(|| std::fs::read(log(vault)).unwrap());
    }
    assert_eq!(at.fs.pending().operations, 0, "they are noted only");
    drop(at);
    let (path, first) = (log(vault), first.unwrap());
    let same = before.iter().zip(&first).take_while(|(a, b)| a == b);
    let record = same.count();
    let mut log = std::fs::read(&path).unwrap();
    log[record + 1000] ^= 1;
    std::fs::write(&path, log).unwrap();
    bytes
}

fn open(vault: &TestVault) -> Opened {
    let options = FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    };
    vault.open(0, options).unwrap()
}

fn contents(at: &Opened) -> Vec<u8> {
    let node = at.fs.lookup(NodeId::ROOT, NAME).unwrap().node;
    read_all(&at.fs, node)
}

#[test]
fn edits_whose_first_record_is_damaged_are_laid_over_what_the_tree_has_and_leave_the_journal() {
    let mut vault = TestVault::in_memory(3).unwrap();
    let places = [500, BLOCK + 500, 2 * BLOCK + 500, BLOCK + 700];
    let mut bytes = crashed(&mut vault, &places);
    for place in &places[1..] {
        bytes[*place..place + 6].copy_from_slice(b"edited");
    }
    let at = open(&vault);
    assert!(contents(&at) == bytes);
    assert_eq!(
        at.fs.pending().operations,
        1,
        "told when they were taken in"
    );
    at.fs.sync(|_| ()).unwrap();
    drop(at);
    let at = open(&vault);
    assert_eq!(at.fs.pending().operations, 0, "and only once");
    assert!(contents(&at) == bytes);
}

#[test]
fn edits_that_need_a_block_of_the_record_that_is_damaged_change_nothing_and_stay_in_the_journal() {
    let overwritten = [500, BLOCK + 500, 700, 900];
    // Nobody has what the first one appended behind a block: zeros would stand there.
    let appended = [3 * BLOCK - 3, 4 * BLOCK];
    for places in [&overwritten[..], &appended] {
        let mut vault = TestVault::in_memory(3).unwrap();
        let bytes = crashed(&mut vault, places);
        for _ in 0..2 {
            let at = open(&vault);
            assert!(contents(&at) == bytes);
            assert_eq!(at.fs.pending().operations, 0);
            at.fs.sync(|_| ()).unwrap();
        }
    }
}
