//! Lock files of office suites on several devices, by a clock that the test turns.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::{Clock, Timestamp};
use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{Caller, FsOptions, NodeId, OpenMode, RenameMode, SetAttr, SetTime, Shutdown};
use skrin_storage::{Count, Counters, MemoryStore};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What LibreOffice and ONLYOFFICE make, and what Word makes.
const LOCKS: [&[u8]; 2] = [b".~lock.report.docx#", b"~$report.docx"];
const LOCK: &[u8] = LOCKS[0];
/// A third of the time that a lease lasts, and a little.
const THIRD: Duration = Duration::from_secs(101);

#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(1_790_000_000_000_000_000 + self.monotonic() as i64)
    }
    fn monotonic(&self) -> u64 {
        self.0.fetch_add(1000, Ordering::SeqCst)
    }
}

struct World {
    clock: Arc<Hand>,
    counters: Arc<Counters>,
    vault: TestVault,
}

impl World {
    fn new(seed: u64) -> Self {
        let (clock, counters) = (Arc::new(Hand::default()), Arc::new(Counters::default()));
        let store = Arc::new(Count::new(MemoryStore::new(), Arc::clone(&counters)));
        let vault = TestVault::new(seed, store, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        Self {
            clock,
            counters,
            vault,
        }
    }

    fn open(&self, device: usize) -> Device {
        self.open_with(device, LOCK)
    }

    /// A device whose programs make lock files of this name.
    fn open_with(&self, device: usize, lock: &'static [u8]) -> Device {
        let manual = FsOptions {
            poll_interval: None,
            background: false,
            ..FsOptions::default()
        };
        Device(self.vault.open(device, manual).unwrap(), lock)
    }

    fn turn(&self, by: Duration) {
        self.clock
            .0
            .fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

struct Device(Opened, &'static [u8]);

impl Device {
    fn make_by(&self, text: &[u8], pid: u32, time: Option<Timestamp>) {
        let caller = Caller {
            uid: 0,
            gid: 0,
            pid,
            umask: 0,
        };
        let how = OpenMode {
            write: true,
            truncate: false,
        };
        let fs = &self.0.fs;
        let made = fs.create(NodeId::ROOT, self.1, 0o644, true, how, &caller);
        let (attr, handle) = made.unwrap();
        fs.write(handle, 0, text).unwrap();
        if let Some(time) = time {
            let set = SetAttr {
                mtime: Some(SetTime::At(time)),
                ..SetAttr::default()
            };
            fs.setattr(attr.node, &set).unwrap();
        }
        fs.release(handle).unwrap();
    }

    fn lock_by(&self, text: &[u8], pid: u32) {
        self.make_by(text, pid, None);
    }

    fn lock(&self, text: &[u8]) {
        self.lock_by(text, std::process::id());
    }

    fn holder(&self) -> Option<Vec<u8>> {
        let fs = &self.0.fs;
        let node = fs.lookup(NodeId::ROOT, self.1).ok()?.node;
        let handle = fs.open_node(node, OpenMode::default()).unwrap();
        let text = fs.read(handle, 0, 100).unwrap();
        fs.release(handle).unwrap();
        Some(text)
    }

    fn names(&self) -> Vec<Vec<u8>> {
        let listed = self.0.fs.readdir(NodeId::ROOT, 2, 100, false).unwrap();
        listed.into_iter().map(|entry| entry.name).collect()
    }

    fn sync(&self) {
        self.0.fs.sync(|_| ()).unwrap();
    }

    fn poll(&self) {
        self.0.fs.poll().unwrap();
    }

    fn keep(&self) {
        self.0.fs.keep_leases();
    }

    fn end(self) {
        self.0.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

#[test]
fn a_lock_file_is_renewed_while_its_program_lives_and_removed_by_others_when_it_is_not() {
    for lock in LOCKS {
        is_renewed_while_its_program_lives_and_removed_by_others_when_it_is_not(lock);
    }
}

fn is_renewed_while_its_program_lives_and_removed_by_others_when_it_is_not(lock: &'static [u8]) {
    let world = World::new(1);
    let (a, b) = (world.open_with(0, lock), world.open_with(1, lock));
    a.lock(b"Anna,");
    a.keep();
    a.sync();
    b.poll();
    assert_eq!(b.holder(), Some(b"Anna,".to_vec()));
    for _ in 0..6 {
        world.turn(THIRD);
        let before = world.counters.counts();
        a.keep();
        a.keep();
        assert_eq!(a.0.fs.pending().operations, 1, "one renewal");
        a.sync();
        let cost = world.counters.counts().since(&before);
        let requests = (cost.puts, cost.gets, cost.lists, cost.deletes);
        assert_eq!(requests, (2, 1, 1, 1), "{cost:?}");
        assert!(cost.sent < 2_000, "{cost:?}");
        a.keep();
        b.poll();
        assert_eq!(b.holder(), Some(b"Anna,".to_vec()));
    }
    // Its device is gone. Another that does not reach the storage knows nothing of that.
    world.turn(3 * THIRD);
    b.keep();
    assert_eq!(b.holder(), Some(b"Anna,".to_vec()));
    b.poll();
    assert_eq!(b.holder(), None);
    b.sync();
    a.poll();
    assert!(a.names().is_empty());
}

#[test]
fn a_renewal_brings_back_a_lock_file_that_another_device_gave_up() {
    let world = World::new(2);
    let (a, b) = (world.open(0), world.open(1));
    a.lock(b"Anna,");
    a.keep();
    a.sync();
    b.poll();
    world.turn(3 * THIRD);
    // The holder was offline, and renews now.
    a.keep();
    b.poll();
    assert_eq!(b.holder(), None);
    b.sync();
    a.sync();
    a.keep();
    a.sync();
    b.poll();
    assert_eq!(a.holder(), Some(b"Anna,".to_vec()));
    assert_eq!(b.holder(), Some(b"Anna,".to_vec()));
    // It is a lease again.
    world.turn(4 * THIRD);
    b.poll();
    assert_eq!(b.holder(), None);
}

#[test]
fn of_two_lock_files_made_at_once_one_stays_and_no_copy_is_left() {
    let world = World::new(3);
    let (a, b) = (world.open(0), world.open(1));
    a.lock(b"Anna,");
    b.lock(b"Ben,");
    for _ in 0..3 {
        a.sync();
        b.sync();
        a.poll();
        b.poll();
    }
    assert_eq!(a.names(), [LOCK.to_vec()]);
    assert_eq!(b.names(), [LOCK.to_vec()]);
    assert_eq!(a.holder(), b.holder());
}

#[test]
fn the_lock_file_of_a_program_that_has_ended_goes_at_once_also_after_a_remount() {
    for lock in LOCKS {
        of_a_program_that_has_ended_it_goes_at_once_also_after_a_remount(lock);
    }
}

fn of_a_program_that_has_ended_it_goes_at_once_also_after_a_remount(lock: &'static [u8]) {
    let world = World::new(4);
    let (a, b) = (world.open_with(0, lock), world.open_with(1, lock));
    let mut program = Command::new("sleep").arg("60").spawn().unwrap();
    a.lock_by(b"Anna,", program.id());
    a.keep();
    a.sync();
    a.end();
    // The mount is made anew while the program lives, and once more when it does not.
    let a = world.open_with(0, lock);
    assert_eq!(a.holder(), Some(b"Anna,".to_vec()));
    world.turn(THIRD);
    a.keep();
    assert_eq!(a.0.fs.pending().operations, 1, "it is renewed");
    a.end();
    program.kill().unwrap();
    program.wait().unwrap();
    let a = world.open_with(0, lock);
    assert_eq!(a.names(), [lock.to_vec()]);
    assert_eq!(a.holder(), None);
    assert!(a.names().is_empty());
    a.sync();
    b.poll();
    assert!(b.names().is_empty());
}

#[test]
fn who_looks_for_the_lock_file_of_a_program_that_has_ended_does_not_find_it() {
    let world = World::new(8);
    let a = world.open(0);
    let mut program = Command::new("sleep").arg("60").spawn().unwrap();
    a.lock_by(b"Anna,", program.id());
    assert_eq!(a.holder(), Some(b"Anna,".to_vec()));
    program.kill().unwrap();
    program.wait().unwrap();
    // No turn of the watcher in between: it would come in the middle of what the next program does with the file.
    assert_eq!(a.holder(), None);
    a.lock(b"Anna again,");
    a.keep();
    assert_eq!(a.holder(), Some(b"Anna again,".to_vec()));
}

#[test]
fn a_lock_file_that_was_unpacked_is_a_file_like_any_other() {
    let world = World::new(5);
    let (a, b) = (world.open(0), world.open(1));
    a.lock(b"Anna,");
    let node = a.0.fs.lookup(NodeId::ROOT, LOCK).unwrap().node;
    let old = SetAttr {
        mtime: Some(SetTime::At(Timestamp(1_600_000_000_000_000_000))),
        ..SetAttr::default()
    };
    a.0.fs.setattr(node, &old).unwrap();
    a.sync();
    b.poll();
    world.turn(10 * THIRD);
    a.keep();
    b.poll();
    b.keep();
    assert_eq!(a.holder(), Some(b"Anna,".to_vec()));
    assert_eq!(b.holder(), Some(b"Anna,".to_vec()));
    assert_eq!(a.0.fs.listxattr(node).unwrap(), b"");
}

/// A process that has ended.
fn nobody() -> u32 {
    let mut program = Command::new("true").spawn().unwrap();
    program.wait().unwrap();
    program.id()
}

#[test]
fn a_lock_file_whose_time_is_set_before_it_is_closed_was_copied_and_stays() {
    let world = World::new(6);
    let a = world.open(0);
    let mut program = Command::new("sleep").arg("60").spawn().unwrap();
    let old = Timestamp(1_600_000_000_000_000_000);
    a.make_by(b"Anna,", program.id(), Some(old));
    program.kill().unwrap();
    program.wait().unwrap();
    a.keep();
    assert_eq!(a.holder(), Some(b"Anna,".to_vec()));
}

#[test]
fn what_has_another_name_or_is_longer_than_locks_are_is_not_removed_with_its_maker() {
    for exchanged in [true, false] {
        let world = World::new(7);
        let a = world.open(0);
        let mut program = Command::new("sleep").arg("60").spawn().unwrap();
        let long = vec![b'x'; 3000];
        let text = if exchanged { &b"work"[..] } else { &long };
        a.lock_by(text, program.id());
        if exchanged {
            let fs = &a.0.fs;
            let caller = Caller {
                uid: 0,
                gid: 0,
                pid: nobody(),
                umask: 0,
            };
            let how = OpenMode {
                write: true,
                truncate: false,
            };
            let made = fs.create(NodeId::ROOT, b"document", 0o644, true, how, &caller);
            fs.release(made.unwrap().1).unwrap();
            let (root, both) = (NodeId::ROOT, RenameMode::Exchange);
            fs.rename(root, LOCK, root, b"document", both).unwrap();
        }
        program.kill().unwrap();
        program.wait().unwrap();
        a.keep();
        a.keep();
        let name = if exchanged { &b"document"[..] } else { LOCK };
        assert!(a.names().iter().any(|n| n == name), "{exchanged}");
    }
}
