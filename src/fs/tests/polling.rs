//! When other devices' changes are looked for, counted in requests.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::clock::testutil::ManualClock;
use skrin_base::{Clock, Errno, Name, Timestamp};
use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{Caller, Fs, FsOptions, HandleId, NodeId, Notify, OpenMode, Shutdown};
use skrin_storage::fault::{Failure, Fault, Faults, Rule};
use skrin_storage::{Count, Counters, Counts, ErrorKind, MemoryStore, Verb};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CALLER: Caller = Caller {
    umask: 0,
    uid: 0,
    gid: 0,
    pid: 1,
};
const INTERVAL: Duration = Duration::from_secs(3600);
/// An `open` waits for a look for so long, then it goes on with what is known.
const PATIENCE: Duration = Duration::from_secs(2);

/// A clock that a test turns.
#[derive(Default)]
struct Hand(AtomicU64);

impl Hand {
    fn turn(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(1_790_000_000_000_000_000 + self.monotonic() as i64)
    }
    fn monotonic(&self) -> u64 {
        self.0.fetch_add(1000, Ordering::SeqCst)
    }
}

/// A device that writes, and one that polls by a clock that stands still.
struct World {
    writer: Opened,
    reader: Opened,
    clock: Arc<Hand>,
    faults: Faults,
    counters: Arc<Counters>,
    _vault: TestVault,
}

impl World {
    fn new(seed: u64) -> Self {
        let (clock, faults) = (Arc::new(Hand::default()), Faults::default());
        let counters = Arc::new(Counters::default());
        let store = Fault::new(MemoryStore::new(), faults.clone());
        let store = Arc::new(Count::new(store, Arc::clone(&counters)));
        let vault = TestVault::new(seed, store, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let manual = FsOptions {
            poll_interval: None,
            background: false,
            ..FsOptions::default()
        };
        let polling = FsOptions {
            poll_interval: Some(INTERVAL),
            ..FsOptions::default()
        };
        Self {
            writer: vault.open(0, manual).unwrap(),
            reader: vault.open(1, polling).unwrap(),
            clock,
            faults,
            counters,
            _vault: vault,
        }
    }

    /// The first device makes a file, and it is on the storage.
    fn publish(&self, name: &[u8], body: &[u8]) {
        let fs = &self.writer.fs;
        let mode = OpenMode {
            write: true,
            truncate: true,
        };
        let made = fs.create(NodeId::ROOT, name, 0o644, true, mode, &CALLER);
        let (_, handle) = made.unwrap();
        fs.write(handle, 0, body).unwrap();
        fs.release(handle).unwrap();
        fs.sync(|_| ()).unwrap();
    }

    fn sees(&self, name: &[u8]) -> bool {
        self.reader.fs.lookup(NodeId::ROOT, name).is_ok()
    }

    fn open(&self, name: &[u8]) -> HandleId {
        let fs = &self.reader.fs;
        let node = fs.lookup(NodeId::ROOT, name).unwrap().node;
        fs.open_node(node, OpenMode::default()).unwrap()
    }

    /// What an `open` does, which waits for a look, but not for ever; this then waits for what the look leads to.
    fn refresh_until(&self, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        self.reader.fs.refresh();
        assert!(is_so() || begun.elapsed() >= PATIENCE, "nobody waited");
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(60), "in vain");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The same until the look has ended well.
    fn refresh(&self) {
        self.refresh_until(|| {
            let ago = self.reader.fs.status().polled_ago;
            ago.is_some_and(|ago| ago < INTERVAL.as_secs())
        });
    }

    fn counted(&self, act: impl FnOnce()) -> Counts {
        let before = self.counters.counts();
        act();
        self.counters.counts().since(&before)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.faults.clear();
        let ended = self.reader.fs.shutdown(Shutdown::LeaveInJournal);
        assert!(std::thread::panicking() || ended.is_ok());
    }
}

#[test]
fn an_open_after_the_interval_looks_first_and_all_who_open_share_one_listing() {
    let world = World::new(1);
    world.publish(b"f", b"one");
    let fs = &world.reader.fs;
    let within = world.counted(|| fs.refresh());
    assert_eq!((within.lists, world.sees(b"f")), (0, false));
    world.clock.turn(INTERVAL);
    assert!(fs.is_outdated());
    let after = world.counted(|| world.refresh());
    assert_eq!((after.lists, world.sees(b"f")), (1, true));
    assert!(!fs.is_outdated());
    world.clock.turn(INTERVAL);
    let many = world.counted(|| {
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| fs.refresh());
            }
        });
        world.refresh();
        (0..1000).for_each(|_| fs.refresh());
    });
    assert_eq!(many.lists, 1);
}

#[test]
fn an_open_goes_on_with_what_is_known_when_the_storage_is_gone() {
    let world = World::new(2);
    world.publish(b"f", b"one");
    let fs = &world.reader.fs;
    world.clock.turn(INTERVAL);
    world.refresh();
    world.publish(b"g", b"two");
    // It hangs: the first one waits a little, and the others do not wait at all.
    world
        .faults
        .add(Rule::new(Failure::Hang).on(Verb::List).times(1));
    world.clock.turn(INTERVAL);
    let asked = world.counted(|| world.refresh_until(|| world.faults.fired() == 1));
    assert_eq!((asked.lists, fs.is_outdated()), (1, false));
    assert!(world.sees(b"f") && !world.sees(b"g"));
}

#[test]
fn a_storage_that_refuses_is_asked_by_the_poller_and_by_no_open() {
    let world = World::new(3);
    let fs = &world.reader.fs;
    let refusal = Failure::Before(ErrorKind::Transient);
    world.faults.add(Rule::new(refusal).on(Verb::List));
    world.clock.turn(INTERVAL);
    let has_failed = || fs.status().poll_error.is_some();
    let first = world.counted(|| world.refresh_until(has_failed));
    assert_eq!(first.lists, 1);
    world.clock.turn(INTERVAL);
    let later = world.counted(|| fs.refresh());
    // Somebody else asks for the room on it now and then.
    let asked = later.operations() - later.capacities;
    assert_eq!((asked, fs.is_outdated()), (0, false));
}

#[test]
fn a_segment_that_is_gone_is_looked_for_again_before_a_read_fails() {
    let world = World::new(4);
    // One block: nothing is read ahead.
    let body: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
    world.publish(b"f", &body);
    let fs = &world.reader.fs;
    world.clock.turn(INTERVAL);
    world.refresh();
    let handle = world.open(b"f");
    let segments = |rule: Rule| rule.named(|name| name.starts_with("segments/"));
    world.faults.add(segments(Rule::new(Failure::Withhold)));
    let failed = world.counted(|| {
        let error = fs.read(handle, 0, 1000).unwrap_err();
        assert_eq!(error.errno(), Errno::EIO);
    });
    assert_eq!((world.faults.fired(), failed.lists), (2, 1));
    world.faults.clear();
    world
        .faults
        .add(segments(Rule::new(Failure::Withhold)).times(1));
    let found = world.counted(|| {
        assert!(fs.read(handle, 0, 60_000).unwrap() == body);
    });
    assert_eq!(found.lists, 1);
    fs.release(handle).unwrap();
}

/// What the kernel is told, in its order.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Told {
    Entry(NodeId, String),
    Attributes(NodeId),
    Listing(NodeId),
}

#[derive(Default)]
struct Kernel(Mutex<Vec<Told>>);

impl Notify for Kernel {
    fn entry(&self, dir: NodeId, name: &Name) {
        let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
        self.0.lock().unwrap().push(Told::Entry(dir, name));
    }
    fn attributes(&self, node: NodeId) {
        self.0.lock().unwrap().push(Told::Attributes(node));
    }
    fn listing(&self, dir: NodeId) {
        self.0.lock().unwrap().push(Told::Listing(dir));
    }
    fn write_back(&self, _: NodeId) {}
}

#[test]
fn of_too_many_files_the_kernel_is_asked_to_forget_some_but_no_directory_and_no_open_file() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let vault = TestVault::new(7, Arc::new(MemoryStore::new()), clock).unwrap();
    let options = FsOptions {
        poll_interval: None,
        background: false,
        known_max: 16,
        ..FsOptions::default()
    };
    let fs = vault.open(0, options).unwrap().fs;
    let kernel = Arc::new(Kernel::default());
    fs.set_notify(Some(Arc::clone(&kernel) as Arc<dyn Notify>));
    let dir = fs.mkdir(NodeId::ROOT, b"dir", 0o755, &CALLER).unwrap().node;
    const MODE: OpenMode = OpenMode {
        write: true,
        truncate: false,
    };
    let make = |name: &str| {
        let made = fs.create(dir, name.as_bytes(), 0o644, true, MODE, &CALLER);
        made.unwrap()
    };
    let (_, open) = make("open");
    for number in 0..14 {
        let (_, handle) = make(&format!("file-{number}"));
        fs.release(handle).unwrap();
    }
    // Down to fourteen: two at a time have their turn, sixteen in all.
    for _ in 0..8 {
        fs.relieve_kernel();
    }
    let mut told = std::mem::take(&mut *kernel.0.lock().unwrap());
    let mut files: Vec<_> = (0..14)
        .map(|number| Told::Entry(dir, format!("file-{number}")))
        .collect();
    told.sort_by_key(|told| format!("{told:?}"));
    files.sort_by_key(|told| format!("{told:?}"));
    assert_eq!(told, files);
    fs.release(open).unwrap();
}

/// A conflict copy, and a file that a write brings back: names that come by no call of the kernel's, and by no other device.
#[test]
fn the_kernel_is_told_of_the_names_that_an_edit_here_makes() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let vault = TestVault::new(8, Arc::new(MemoryStore::new()), clock).unwrap();
    let manual = || FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    };
    let (here, there) = (
        vault.open(0, manual()).unwrap().fs,
        vault.open(1, manual()).unwrap().fs,
    );
    let meet = || {
        for fs in [&here, &there, &here] {
            fs.sync(|_| ()).unwrap();
            fs.poll().unwrap();
        }
    };
    const WRITE: OpenMode = OpenMode {
        write: true,
        truncate: false,
    };
    let dir = here
        .mkdir(NodeId::ROOT, b"dir", 0o755, &CALLER)
        .unwrap()
        .node;
    for name in [&b"forked"[..], b"revived"] {
        let made = here.create(dir, name, 0o644, true, WRITE, &CALLER);
        let (_, handle) = made.unwrap();
        here.write(handle, 0, b"first").unwrap();
        here.release(handle).unwrap();
    }
    meet();
    let open = |fs: &Fs, name: &[u8]| {
        let dir = fs.lookup(NodeId::ROOT, b"dir").unwrap().node;
        let node = fs.lookup(dir, name).unwrap().node;
        fs.open_node(node, WRITE).unwrap()
    };
    let (forked, revived) = (open(&here, b"forked"), open(&here, b"revived"));
    let elsewhere = open(&there, b"forked");
    there.write(elsewhere, 0, b"there").unwrap();
    there.release(elsewhere).unwrap();
    let dir_there = there.lookup(NodeId::ROOT, b"dir").unwrap().node;
    there.unlink(dir_there, b"revived").unwrap();
    there.rmdir(NodeId::ROOT, b"dir").unwrap_err();
    meet();
    let kernel = Arc::new(Kernel::default());
    here.set_notify(Some(Arc::clone(&kernel) as Arc<dyn Notify>));
    for handle in [forked, revived] {
        here.write(handle, 0, b"here!").unwrap();
        here.release(handle).unwrap();
    }
    // Not within the calls: the kernel may hold the directory.
    assert_eq!(*kernel.0.lock().unwrap(), []);
    here.keep_leases();
    let told = kernel.0.lock().unwrap().clone();
    let mut names = Vec::new();
    let listed = here.readdir(dir, 0, 100, false).unwrap();
    for entry in listed {
        names.push(String::from_utf8(entry.name).unwrap());
    }
    let copy = names.iter().find(|name| name.contains("conflict")).unwrap();
    for name in [copy, "revived"] {
        let one = Told::Entry(dir, name.to_owned());
        assert!(told.contains(&one), "{one:?} of {told:?}");
    }
    assert!(told.contains(&Told::Listing(dir)), "{told:?}");
    for fs in [here, there] {
        fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

/// Much that waits here is taken from the tree and put back on it; nobody lists then what is another.
#[test]
fn where_it_is_not_listed_what_changed_the_kernel_is_told_of_everything_that_it_knows() {
    const WAITING: usize = 4200;
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let vault = TestVault::new(7, Arc::new(MemoryStore::new()), clock).unwrap();
    let manual = || FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    };
    let (writer, reader) = (
        vault.open(0, manual()).unwrap(),
        vault.open(1, manual()).unwrap(),
    );
    let mkdir = |of: &Opened, name: &str| {
        of.fs
            .mkdir(NodeId::ROOT, name.as_bytes(), 0o755, &CALLER)
            .unwrap()
            .node
    };
    mkdir(&writer, "known");
    mkdir(&writer, "unknown");
    writer.fs.sync(|_| ()).unwrap();
    reader.fs.poll().unwrap();
    let known = reader.fs.lookup(NodeId::ROOT, b"known").unwrap().node;
    for number in 0..WAITING {
        let made = mkdir(&reader, &format!("waiting-{number}"));
        reader.fs.forget(made, 1);
    }
    mkdir(&writer, "new");
    writer.fs.sync(|_| ()).unwrap();
    let kernel = Arc::new(Kernel::default());
    reader
        .fs
        .set_notify(Some(Arc::clone(&kernel) as Arc<dyn Notify>));
    reader.fs.poll().unwrap();
    let mut told = kernel.0.lock().unwrap().clone();
    assert_eq!(
        told.split_off(told.len() - 2),
        [Told::Listing(NodeId::ROOT), Told::Listing(known)]
    );
    for one in [
        Told::Entry(NodeId::ROOT, "known".to_owned()),
        Told::Attributes(known),
        Told::Attributes(NodeId::ROOT),
    ] {
        assert!(told.contains(&one), "{one:?} of {told:?}");
    }
    assert!(!told.contains(&Told::Entry(NodeId::ROOT, "unknown".to_owned())));
    assert_eq!(reader.fs.pending().operations, WAITING as u64);
    reader.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}
