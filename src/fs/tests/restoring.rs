//! A restore that finds no room in the journal waits until there is some.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::clock::testutil::{ManualClock, SeededEntropy};
use skrin_base::{Clock, Entropy};
use skrin_fs::testutil::TestVault;
use skrin_fs::{Caller, Fs, FsOptions, NodeId, OpenMode, RestoreWish, Shutdown, When, XattrMode};
use skrin_storage::MemoryStore;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const CALLER: Caller = Caller {
    umask: 0,
    uid: 0,
    gid: 0,
    pid: 1,
};
const WRITE: OpenMode = OpenMode {
    write: true,
    truncate: true,
};
/// Their attributes together are more than the journal takes of operations.
const FILES: u64 = 40;

fn name(n: u64) -> Vec<u8> {
    format!("file {n}").into_bytes()
}

fn value(n: u64) -> Vec<u8> {
    let mut bytes = vec![0; 30_000];
    SeededEntropy::new(n).fill(&mut bytes);
    bytes
}

fn publish(vault: &TestVault, fs: &Fs) -> bool {
    vault.runtime().block_on(fs.publish_step()).unwrap()
}

#[test]
fn a_restore_that_fills_the_journal_waits_for_room_and_puts_everything_back() {
    // The clock stands still: what there is to publish is never old enough, so that only the test makes room.
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let mut vault = TestVault::new(7, Arc::new(MemoryStore::new()), clock).unwrap();
    vault.journal = Box::new(|config| {
        config.file_len = 256 << 10;
        config.max_bytes = 512 << 10;
        config.patience = Duration::ZERO;
    });
    let options = FsOptions {
        poll_interval: None,
        ..FsOptions::default()
    };
    let at = vault.open(0, options).unwrap();
    let fs = &at.fs;
    for n in 0..FILES {
        let made = fs.create(NodeId::ROOT, &name(n), 0o600, true, WRITE, &CALLER);
        let (attr, handle) = made.unwrap();
        fs.release(handle).unwrap();
        fs.setxattr(attr.node, b"user.x", &value(n), XattrMode::Any)
            .unwrap();
        while publish(&vault, fs) {}
    }
    fs.take_snapshot(b"then").unwrap();
    for n in 0..FILES {
        fs.unlink(NodeId::ROOT, &name(n)).unwrap();
        while publish(&vault, fs) {}
    }
    let wish = RestoreWish {
        path: Vec::new(),
        when: When::Snapshot(b"then".to_vec()),
        exact: false,
        to: None,
    };
    let restored = thread::scope(|scope| {
        let restoring = scope.spawn(|| fs.restore_path(&wish));
        while fs.status().room.waiting == 0 {
            assert!(!restoring.is_finished(), "it did not wait");
            thread::yield_now();
        }
        while !restoring.is_finished() {
            publish(&vault, fs);
            thread::yield_now();
        }
        restoring.join().unwrap().unwrap()
    });
    assert_eq!(restored.made, FILES);
    for n in 0..FILES {
        let node = fs.lookup(NodeId::ROOT, &name(n)).unwrap().node;
        assert!(fs.getxattr(node, b"user.x").unwrap() == value(n), "{n}");
    }
    fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}
