//! What is written after somebody was removed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::extent::Content;
use skrin_base::{Ino, KeyId};
use skrin_crypto::key_tag;
use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{Caller, FsOptions, NodeId, OpenMode, Shutdown};
use skrin_meta::state;
use std::sync::Arc;

const BLOCK: u64 = 65_536;

/// The file key of each block.
fn keys(device: &Opened, ino: Ino) -> Vec<KeyId> {
    let extents = state::extents(&device.replica.tree(), ino, 0, 100).unwrap();
    let keys = extents.into_iter().flat_map(|extent| match extent.content {
        Content::Stored(stored) => vec![stored.key; extent.count as usize],
        other => panic!("{other:?}"),
    });
    keys.collect()
}

#[test]
fn new_contents_of_an_old_file_are_sealed_under_a_key_that_who_was_removed_never_had() {
    let vault = TestVault::in_memory(1).unwrap();
    let options = FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    };
    let device = vault.open(0, options).unwrap();
    let caller = Caller {
        umask: 0,
        uid: 1,
        gid: 1,
        pid: 1,
    };
    let how = OpenMode {
        write: true,
        truncate: true,
    };
    let made = device
        .fs
        .create(NodeId::ROOT, b"file", 0o644, false, how, &caller);
    let (attr, handle) = made.unwrap();
    let write = |block: u64, byte: u8| {
        let bytes = [byte; BLOCK as usize];
        device.fs.write(handle, block * BLOCK, &bytes).unwrap();
        device.fs.sync(|_| ()).unwrap();
        keys(&device, attr.ino)
    };
    (0..3).for_each(|block| drop(write(block, 1)));
    let before = write(1, 2);
    assert!(before.iter().all(|key| *key == before[0]), "{before:?}");
    let next = vault.keys_after_a_removal().unwrap();
    let tag = key_tag(&next.current().0);
    let set = device.replica.set_control(vault.roster(), Arc::new(next));
    vault.runtime().block_on(set).unwrap();
    let after = write(1, 3);
    assert_eq!((after[0], after[2]), (before[0], before[0]));
    assert_eq!(after[1].0[..8], tag);
    // The next one is drawn no more.
    assert_eq!(write(2, 4)[1..], [after[1], after[1]]);
    device.fs.release(handle).unwrap();
    device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}
