//! Who waits for room in the journal holds nothing that others need.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::clock::testutil::{ManualClock, SeededEntropy};
use skrin_base::{Clock, Entropy, Errno};
use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{Caller, FsOptions, NodeId, OpenMode, SetAttr, SetTime, Shutdown, XattrMode};
use skrin_storage::MemoryStore;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
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

/// A device with a small journal and a clock that stands still: what it has to publish is never old enough, so that only the test makes room.
struct World {
    at: Opened,
    vault: TestVault,
}

impl World {
    fn new(journal: u64) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let mut vault = TestVault::new(7, Arc::new(MemoryStore::new()), clock).unwrap();
        vault.journal = Box::new(move |config| {
            config.file_len = 256 << 10;
            config.max_bytes = journal;
            config.patience = Duration::ZERO;
        });
        let options = FsOptions {
            poll_interval: None,
            ..FsOptions::default()
        };
        Self {
            at: vault.open(0, options).unwrap(),
            vault,
        }
    }

    /// Returns when a call waits for room, which is to be that one.
    fn see_waiting<T>(&self, call: &ScopedJoinHandle<'_, T>) {
        while self.at.fs.status().room.waiting == 0 {
            assert!(!call.is_finished(), "it did not wait");
            thread::yield_now();
        }
    }

    /// Makes room until the call has ended.
    fn make_room_for<T>(&self, call: &ScopedJoinHandle<'_, T>) {
        while !call.is_finished() {
            self.publish();
            thread::yield_now();
        }
    }

    /// Publishes what fits into one commit; whether there was something.
    fn publish(&self) -> bool {
        let step = self.at.fs.publish_step();
        self.vault.runtime().block_on(step).unwrap()
    }
}

/// Bytes that no compression makes less of.
fn varied(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededEntropy::new(1).fill(&mut bytes);
    bytes
}

#[test]
fn a_file_whose_writer_waits_for_room_can_be_looked_at_and_gets_all_that_was_written() {
    let world = World::new(1 << 20);
    let fs = &world.at.fs;
    let data = varied(3 << 20);
    let made = fs.create(NodeId::ROOT, b"f", 0o600, true, WRITE, &CALLER);
    let (attr, handle) = made.unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut parts = data.chunks(100_000).enumerate();
            parts.try_for_each(|(n, part)| fs.write(handle, n as u64 * 100_000, part))
        });
        world.see_waiting(&writer);
        assert!(fs.getattr(attr.node).unwrap().size > 0);
        assert!(fs.lookup(NodeId::ROOT, b"f").unwrap().size > 0);
        let set = SetAttr {
            mtime: Some(SetTime::Now),
            ..SetAttr::default()
        };
        fs.setattr(attr.node, &set).unwrap();
        assert!(!fs.can_write_now(handle, 0, 1).unwrap());
        assert_eq!(fs.read(handle, 0, 10).unwrap(), data[..10]);
        fs.mkdir(NodeId::ROOT, b"d", 0o700, &CALLER).unwrap();
        assert!(!writer.is_finished(), "nobody has made room");
        world.make_room_for(&writer);
        writer.join().unwrap().unwrap();
    });
    assert_eq!(fs.status().room.waiting, 0);
    while world.publish() {}
    fs.flush(handle).unwrap();
    assert!(fs.read(handle, 0, data.len()).unwrap() == data);
    fs.release(handle).unwrap();
    fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn where_the_journal_has_no_room_for_operations_they_are_refused_at_once_and_who_makes_something_waits_without_the_tree()
 {
    let world = World::new(512 << 10);
    let fs = &world.at.fs;
    let made = fs.create(NodeId::ROOT, b"f", 0o600, true, WRITE, &CALLER);
    let (attr, handle) = made.unwrap();
    fs.release(handle).unwrap();
    assert!(!fs.is_crowded());
    // Until not even the shortest one finds room.
    for len in [60_000, 1_000, 1] {
        let value = varied(len);
        let set = || fs.setxattr(attr.node, b"user.x", &value, XattrMode::Any);
        let refused = std::iter::repeat_with(set).find_map(Result::err);
        assert_eq!(refused.unwrap().errno(), Errno::ENOSPC);
    }
    assert!(fs.is_crowded(), "who makes something now may have to wait");
    let name = [b'd'; 200];
    thread::scope(|scope| {
        let maker = scope.spawn(|| fs.mkdir(NodeId::ROOT, &name, 0o700, &CALLER));
        world.see_waiting(&maker);
        assert!(world.at.replica.tree().pending_count() > 0);
        assert_eq!(fs.getattr(attr.node).unwrap().size, 0);
        assert!(!maker.is_finished(), "nobody has made room");
        world.make_room_for(&maker);
        maker.join().unwrap().unwrap();
    });
    fs.lookup(NodeId::ROOT, &name).unwrap();
    fs.setxattr(attr.node, b"user.x", b"y", XattrMode::Any)
        .unwrap();
    fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}
