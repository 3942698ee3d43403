//! Space is given back, and nothing that anybody needs goes with it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

#[path = "collecting/repacking.rs"]
mod repacking;

use skrin_base::{Clock, Timestamp};
use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{Caller, Collected, Fs, FsOptions, HandleId, NodeId, OpenMode, Shutdown};
use skrin_storage::fault::{Failure, Fault, Faults, Rule};
use skrin_storage::{ErrorKind, MemoryStore, Verb};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CALLER: Caller = Caller {
    umask: 0,
    uid: 0,
    gid: 0,
    pid: 1,
};
const DAY: Duration = Duration::from_secs(86_400);
const MIB: usize = 1 << 20;

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

struct World {
    vault: TestVault,
    store: Arc<MemoryStore>,
    faults: Faults,
    clock: Arc<Hand>,
}

fn options() -> FsOptions {
    FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    }
}

fn body(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed * 2 + 0x9e37_79b9_7f4a_7c15;
    let next = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(next).collect()
}

fn open(fs: &Fs, name: &[u8], write: bool) -> HandleId {
    let node = fs.lookup(NodeId::ROOT, name).unwrap().node;
    let mode = OpenMode {
        write,
        ..OpenMode::default()
    };
    fs.open_node(node, mode).unwrap()
}

fn read(fs: &Fs, name: &[u8], len: usize) -> Vec<u8> {
    let handle = open(fs, name, false);
    let mut all = Vec::new();
    while all.len() < len {
        let part = fs.read(handle, all.len() as u64, 128 << 10).unwrap();
        assert!(!part.is_empty());
        all.extend_from_slice(&part);
    }
    fs.release(handle).unwrap();
    all
}

/// Makes a file, or writes over the beginning of one.
fn write(fs: &Fs, name: &[u8], data: &[u8]) {
    let mode = OpenMode {
        write: true,
        truncate: false,
    };
    let handle = match fs.lookup(NodeId::ROOT, name) {
        Ok(_) => open(fs, name, true),
        Err(_) => {
            fs.create(NodeId::ROOT, name, 0o644, true, mode, &CALLER)
                .unwrap()
                .1
        }
    };
    for (n, part) in data.chunks(128 << 10).enumerate() {
        fs.write(handle, (n * (128 << 10)) as u64, part).unwrap();
    }
    fs.release(handle).unwrap();
    fs.sync(|_| ()).unwrap();
}

impl World {
    fn new(seed: u64) -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(Hand::default());
        let shared = Arc::clone(&clock) as Arc<dyn Clock>;
        let faults = Faults::default();
        let faulty = Fault::new(Arc::clone(&store), faults.clone());
        let vault = TestVault::new(seed, Arc::new(faulty), shared).unwrap();
        Self {
            vault,
            store,
            faults,
            clock,
        }
    }

    fn mount(&self, device: usize) -> Opened {
        self.vault.open(device, options()).unwrap()
    }

    fn segments(&self) -> usize {
        let names = self.store.names();
        let segments = names.iter().filter(|n| n.as_str().starts_with("segments/"));
        segments.count()
    }

    /// Collects every twenty days for two months; what was freed in all, and what holds back the rest.
    fn collect(&self, devices: &[&Opened]) -> Collected {
        let mut all = Collected::default();
        for _ in 0..4 {
            for device in devices {
                device.fs.poll().unwrap();
                let done = device.fs.collect().unwrap();
                all.freed += done.freed;
                all.freed_bytes += done.freed_bytes;
                all = Collected {
                    freed: all.freed,
                    freed_bytes: all.freed_bytes,
                    ..done
                };
            }
            self.clock.turn(DAY * 20);
        }
        all
    }
}

#[test]
fn what_was_overwritten_or_removed_goes_after_thirty_days_and_not_before() {
    let world = World::new(1);
    let device = world.mount(0);
    let (old, new) = (body(1, 3 * MIB), body(2, 3 * MIB));
    write(&device.fs, b"f", &old);
    write(&device.fs, b"g", &old);
    write(&device.fs, b"f", &new);
    device.fs.unlink(NodeId::ROOT, b"g").unwrap();
    let stored = world.segments();
    for _ in 0..3 {
        let done = device.fs.collect().unwrap();
        assert_eq!((done.freed, done.kept > 0), (0, true), "{done:?}");
        assert_eq!(done.stored, stored as u64);
        assert!(
            done.holds
                .iter()
                .any(|h| h.contains("history") || h.contains("too little"))
        );
        world.clock.turn(DAY * 9);
    }
    let done = world.collect(&[&device]);
    assert!(
        done.freed >= 2 && done.freed_bytes >= 6 * MIB as u64,
        "{done:?}"
    );
    assert_eq!((done.kept, done.unknown), (0, 0), "{done:?}");
    assert!(read(&device.fs, b"f", new.len()) == new);
    assert_eq!(world.segments() as u64, done.stored);
    // A device that has never seen the vault reads everything, too.
    let fresh = world.mount(2);
    assert!(read(&fresh.fs, b"f", new.len()) == new);
    device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    fresh.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn an_object_that_cannot_be_deleted_is_told_and_keeps_no_other() {
    let world = World::new(30);
    let device = world.mount(0);
    for name in [b"f", b"g"] {
        write(&device.fs, name, &body(1, 3 * MIB));
        device.fs.unlink(NodeId::ROOT, name).unwrap();
    }
    device.fs.sync(|_| ()).unwrap();
    let names = world.store.names();
    let stuck = names.iter().find(|n| n.as_str().starts_with("segments/"));
    let stuck = stuck.unwrap().to_string();
    let named = stuck.clone();
    let refused = Rule::new(Failure::Before(ErrorKind::Denied)).on(Verb::Delete);
    world.faults.add(refused.named(move |name| name == named));
    let done = world.collect(&[&device]);
    assert!(done.freed > 0, "{done:?}");
    assert!(done.holds.iter().any(|h| h.contains(&stuck)), "{done:?}");
    world.faults.clear();
    let done = world.collect(&[&device]);
    assert_eq!((done.freed, done.kept), (1, 0), "{done:?}");
    device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn a_device_that_has_not_confirmed_holds_back_everything_and_is_named() {
    let world = World::new(2);
    let (device, other) = (world.mount(0), world.mount(1));
    let (old, new) = (body(1, 2 * MIB), body(2, 2 * MIB));
    write(&device.fs, b"f", &old);
    other.fs.poll().unwrap();
    write(&other.fs, b"note", b"x");
    device.fs.poll().unwrap();
    // The other device opens the file as it is now, and goes offline with it.
    let handle = open(&other.fs, b"f", true);
    write(&device.fs, b"f", &new);
    let done = world.collect(&[&device]);
    assert_eq!(done.freed, 0, "{done:?}");
    // It comes back, and its program goes on writing what it had opened.
    other.fs.poll().unwrap();
    let done = world.collect(&[&device, &other]);
    assert_eq!(done.freed, 0, "{done:?}");
    assert!(
        done.holds.iter().any(|h| h.contains("device-1")),
        "{done:?}"
    );
    other.fs.write(handle, 10, b"edited").unwrap();
    other.fs.release(handle).unwrap();
    other.fs.sync(|_| ()).unwrap();
    device.fs.poll().unwrap();
    // What it named in its copy is needed now.
    let done = world.collect(&[&device, &other]);
    assert_eq!(done.kept, 0, "{done:?}");
    let mut edited = old.clone();
    edited[10..16].copy_from_slice(b"edited");
    let listed = names(&device.fs);
    let copy = listed
        .iter()
        .find(|n| n.windows(8).any(|w| w == b"conflict"));
    assert!(read(&device.fs, copy.unwrap(), edited.len()) == edited);
    assert!(read(&device.fs, b"f", new.len()) == new);
    // It goes when that does.
    device.fs.unlink(NodeId::ROOT, copy.unwrap()).unwrap();
    device.fs.sync(|_| ()).unwrap();
    let done = world.collect(&[&device, &other]);
    assert!(done.freed >= 1 && done.kept == 0, "{done:?}");
    for opened in [device, other] {
        opened.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

/// Writes a little into many blocks of a file that are no neighbours.
fn scatter(fs: &Fs, handle: HandleId, seed: u64, blocks: std::ops::Range<u64>) {
    for block in blocks {
        let data = body(seed + block, 4096);
        fs.write(handle, block * 2 * 65_536, &data).unwrap();
    }
}

fn remembered(device: &Opened) -> usize {
    let mut count = 0;
    skrin_meta::state::for_each_remembered(&device.replica.tree(), |_| {
        count += 1;
        Ok(())
    })
    .unwrap();
    count
}

#[test]
fn what_a_large_file_was_is_remembered_until_nobody_starts_from_it() {
    let world = World::new(12);
    let (device, other) = (world.mount(0), world.mount(1));
    write(&device.fs, b"f", b"x");
    let handle = open(&device.fs, b"f", true);
    scatter(&device.fs, handle, 1, 0..100);
    device.fs.release(handle).unwrap();
    device.fs.sync(|_| ()).unwrap();
    other.fs.poll().unwrap();
    write(&other.fs, b"note", b"x");
    device.fs.poll().unwrap();
    let edits = open(&other.fs, b"f", true);
    // One replaces most of it, and then removes it; the other changes one block of what it has open.
    let handle = open(&device.fs, b"f", true);
    scatter(&device.fs, handle, 1000, 0..90);
    device.fs.release(handle).unwrap();
    device.fs.sync(|_| ()).unwrap();
    device.fs.unlink(NodeId::ROOT, b"f").unwrap();
    device.fs.sync(|_| ()).unwrap();
    assert_eq!(remembered(&device), 2);
    let done = world.collect(&[&device]);
    assert_eq!((done.freed, remembered(&device)), (0, 2), "{done:?}");
    scatter(&other.fs, edits, 2000, 40..41);
    other.fs.release(edits).unwrap();
    other.fs.sync(|_| ()).unwrap();
    device.fs.poll().unwrap();
    let whole = |device: &Opened| {
        let handle = open(&device.fs, b"f", false);
        for block in 0..100 {
            let seed = if block == 40 { 2000 } else { 1 };
            let read = device.fs.read(handle, block * 2 * 65_536, 4096).unwrap();
            assert!(read[..] == body(seed + block, 4096), "block {block}");
        }
        device.fs.release(handle).unwrap();
    };
    whole(&device);
    let done = world.collect(&[&device, &other]);
    assert_eq!((done.kept, remembered(&device)), (0, 0), "{done:?}");
    let fresh = world.mount(2);
    whole(&fresh);
    for opened in [device, other, fresh] {
        opened.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

fn names(fs: &Fs) -> Vec<Vec<u8>> {
    let listed = fs.readdir(NodeId::ROOT, 2, 100, false).unwrap();
    let names = listed.iter().map(|entry| entry.name.to_vec());
    names.collect()
}

#[test]
fn a_file_that_is_open_without_a_name_keeps_its_contents() {
    let world = World::new(3);
    let device = world.mount(0);
    let old = body(1, 2 * MIB);
    write(&device.fs, b"f", &old);
    let handle = open(&device.fs, b"f", false);
    device.fs.unlink(NodeId::ROOT, b"f").unwrap();
    device.fs.sync(|_| ()).unwrap();
    let done = world.collect(&[&device]);
    assert_eq!(done.freed, 0, "{done:?}");
    assert!(device.fs.read(handle, 0, 4096).unwrap()[..] == old[..4096]);
    device.fs.release(handle).unwrap();
    let done = world.collect(&[&device]);
    assert!(done.freed >= 1, "{done:?}");
    device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn an_upload_that_a_crash_cut_off_goes_and_what_is_not_ours_stays() {
    let world = World::new(4);
    let device = world.mount(0);
    write(&device.fs, b"f", &body(1, MIB));
    let before = world.segments();
    // The segment of a file that nobody ever named.
    let (key_id, key) = (
        skrin_base::KeyId([1; 16]),
        skrin_data::FileKey::from_bytes([2; 32]),
    );
    let at = device
        .data
        .write_block(
            key_id,
            &key,
            (skrin_base::Ino(99), 0),
            &body(3, 60_000),
            skrin_data::Room::Wait,
            &mut skrin_data::Gain::default(),
        )
        .unwrap();
    let ids = [at.segment];
    let durable = device.data.make_durable(&ids);
    world.vault.runtime().block_on(durable).unwrap();
    assert_eq!(world.segments(), before + 1);
    let state = world.vault.state_dir(0);
    device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    drop(device);
    assert!(state.exists());
    let strange =
        skrin_storage::ObjectName::new(format!("segments/ab/ab{}", "0".repeat(30))).unwrap();
    let put = skrin_storage::Store::put(&*world.store, &strange, vec![1; 10].into());
    world.vault.runtime().block_on(put).unwrap();

    let device = world.mount(0);
    write(&device.fs, b"g", &body(4, MIB));
    let done = world.collect(&[&device]);
    assert_eq!((done.freed, done.unknown), (1, 1), "{done:?}");
    assert_eq!(world.segments(), before + 2);
    assert!(read(&device.fs, b"f", MIB) == body(1, MIB));
    assert!(read(&device.fs, b"g", MIB) == body(4, MIB));
    device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn a_snapshot_keeps_what_it_holds_until_it_is_forgotten() {
    let world = World::new(5);
    let device = world.mount(0);
    write(&device.fs, b"f", &body(1, 2 * MIB));
    device.fs.take_snapshot(b"before").unwrap();
    write(&device.fs, b"f", &body(2, 2 * MIB));
    let done = world.collect(&[&device]);
    assert_eq!((done.freed, done.kept > 0), (0, true), "{done:?}");
    device.fs.forget_snapshot(b"before").unwrap();
    device.fs.sync(|_| ()).unwrap();
    let done = world.collect(&[&device]);
    assert!(done.freed >= 1 && done.kept == 0, "{done:?}");
    device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn how_much_of_the_past_is_kept_is_said_for_all_devices() {
    let world = World::new(6);
    let (device, other) = (world.mount(0), world.mount(1));
    assert_eq!(device.fs.retention().unwrap(), 30 * 86_400);
    write(&device.fs, b"f", &body(1, 2 * MIB));
    write(&device.fs, b"f", &body(2, 2 * MIB));
    device.fs.set_retention(0).unwrap();
    other.fs.poll().unwrap();
    assert_eq!(other.fs.retention().unwrap(), 0);
    let done = world.collect(&[&device]);
    assert_eq!(done.freed, 0, "{done:?}");
    assert!(done.holds[0].contains("ever"), "{done:?}");
    device.fs.set_retention(1).unwrap();
    world.clock.turn(Duration::from_secs(2));
    for _ in 0..3 {
        device.fs.collect().unwrap();
        world.clock.turn(Duration::from_secs(2));
    }
    let done = device.fs.collect().unwrap();
    assert_eq!((done.kept, done.stored), (0, 1), "{done:?}");
    assert!(read(&device.fs, b"f", 2 * MIB) == body(2, 2 * MIB));
    for opened in [device, other] {
        opened.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

#[test]
fn a_clock_that_jumps_ahead_deletes_nothing_that_a_device_which_is_away_may_name() {
    let world = World::new(8);
    let (device, other) = (world.mount(0), world.mount(1));
    write(&device.fs, b"f", &body(1, 2 * MIB));
    other.fs.poll().unwrap();
    write(&other.fs, b"note", b"x");
    device.fs.poll().unwrap();
    let upload = Shutdown::UploadAll {
        progress: Box::new(|_| ()),
    };
    other.fs.shutdown(upload).unwrap();
    write(&device.fs, b"f", &body(2, 2 * MIB));
    world.clock.turn(DAY * 120);
    for _ in 0..4 {
        let done = device.fs.collect().unwrap();
        assert_eq!((done.freed, done.kept > 0), (0, true), "{done:?}");
    }
    // Where that is the time, it is so for longer than a day.
    world.clock.turn(DAY * 2);
    let done = world.collect(&[&device]);
    assert!(done.freed >= 1 && done.kept == 0, "{done:?}");
    device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn what_a_device_has_open_that_nobody_waits_for_any_more_is_not_deleted_by_itself() {
    let world = World::new(11);
    let (device, other) = (world.mount(0), world.mount(1));
    let old = body(1, 2 * MIB);
    write(&device.fs, b"f", &old);
    let upload = Shutdown::UploadAll {
        progress: Box::new(|_| ()),
    };
    device.fs.shutdown(upload).unwrap();
    drop(device);
    let device = world.mount(0);
    let handle = open(&device.fs, b"f", false);
    other.fs.poll().unwrap();
    write(&other.fs, b"f", &body(2, 2 * MIB));
    let done = world.collect(&[&other]);
    assert_eq!((done.freed, done.kept > 0), (0, true), "{done:?}");
    world.clock.turn(DAY * 20);
    write(&other.fs, b"note", b"x");
    world.clock.turn(DAY * 2);
    device.fs.poll().unwrap();
    let done = device.fs.collect().unwrap();
    assert_eq!((done.freed, done.kept > 0), (0, true), "{done:?}");
    assert!(device.fs.read(handle, 0, 4096).unwrap()[..] == old[..4096]);
    device.fs.release(handle).unwrap();
    let done = device.fs.collect().unwrap();
    assert!(done.freed >= 1, "{done:?}");
    for opened in [device, other] {
        opened.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

#[test]
fn blocks_that_an_unsaved_file_shares_with_an_old_version_hold_everything_back() {
    let world = World::new(9);
    let (device, other) = (world.mount(0), world.mount(1));
    // Two segments.
    let old = body(1, 2 * MIB);
    write(&device.fs, b"f", &old[..MIB]);
    let handle = open(&device.fs, b"f", true);
    for (n, part) in old[MIB..].chunks(128 << 10).enumerate() {
        let at = MIB + n * (128 << 10);
        device.fs.write(handle, at as u64, part).unwrap();
    }
    device.fs.release(handle).unwrap();
    device.fs.sync(|_| ()).unwrap();
    other.fs.poll().unwrap();
    write(&other.fs, b"g", &body(3, 2 * MIB));
    let (from, to) = (open(&other.fs, b"f", false), open(&other.fs, b"g", true));
    device.fs.poll().unwrap();
    write(&device.fs, b"f", &body(2, 2 * MIB));
    other.fs.poll().unwrap();
    // From then on the tree has the key of the one for the other.
    let copy = |at: u64| other.fs.copy_range((from, at), (to, at), 65_536).unwrap();
    assert_eq!(copy(0), 65_536);
    other.fs.sync(|_| ()).unwrap();
    assert_eq!(copy(MIB as u64), 65_536);
    other.fs.release(from).unwrap();
    for _ in 0..5 {
        device.fs.poll().unwrap();
        device.fs.collect().unwrap();
        world.clock.turn(DAY * 20);
        other.fs.poll().unwrap();
        // Publishes, and tells nothing of open files.
        other.fs.set_retention(30 * 86_400).unwrap();
    }
    other.fs.release(to).unwrap();
    other.fs.sync(|_| ()).unwrap();
    let mut expected = body(3, 2 * MIB);
    expected[..65_536].copy_from_slice(&old[..65_536]);
    expected[MIB..MIB + 65_536].copy_from_slice(&old[MIB..MIB + 65_536]);
    let fresh = world.mount(2);
    assert!(read(&fresh.fs, b"g", expected.len()) == expected);
    for opened in [device, other, fresh] {
        opened.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

#[test]
fn a_file_of_a_snapshot_that_was_forgotten_is_not_opened_any_more() {
    let world = World::new(10);
    let (device, other) = (world.mount(0), world.mount(1));
    write(&device.fs, b"f", &body(1, MIB));
    device.fs.take_snapshot(b"s").unwrap();
    other.fs.poll().unwrap();
    let mut node = NodeId::ROOT;
    for name in [&b".snapshots"[..], b"s", b"f"] {
        node = other.fs.lookup(node, name).unwrap().node;
    }
    let handle = other.fs.open_node(node, OpenMode::default()).unwrap();
    other.fs.release(handle).unwrap();
    device.fs.forget_snapshot(b"s").unwrap();
    device.fs.sync(|_| ()).unwrap();
    other.fs.poll().unwrap();
    // Whoever is in its directory still has the way; a copy would name what may be deleted.
    let opened = other.fs.open_node(node, OpenMode::default());
    assert!(matches!(opened, Err(skrin_fs::FsError::Stale)));
    for opened in [device, other] {
        opened.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

/// Random overwrites of 4 to 64 KiB, three times the length of the file: what they cost, and what is left of them. Of segments of which
/// little is needed that is copied together.
#[test]
fn of_a_file_that_was_overwritten_in_small_pieces_little_more_than_its_length_is_left() {
    let world = World::new(7);
    let device = world.mount(0);
    device.fs.set_retention(1).unwrap();
    let len = 16 * MIB;
    write(&device.fs, b"f", &body(1, len));
    let mut expected = body(1, len);
    let (mut x, mut written) = (7u64, len);
    let mut next = |n: usize| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 33) as usize % n
    };
    while written < 4 * len {
        let handle = open(&device.fs, b"f", true);
        for _ in 0..16 {
            let part = body(written as u64, 4096 * (1 + next(16)));
            let at = next(len - part.len());
            device.fs.write(handle, at as u64, &part).unwrap();
            expected[at..at + part.len()].copy_from_slice(&part);
            written += part.len();
        }
        device.fs.release(handle).unwrap();
        device.fs.sync(|_| ()).unwrap();
    }
    let stored = device.fs.collect().unwrap();
    let (mut rounds, mut repacked, mut freed) = (Vec::new(), (0, 0), 0);
    for _ in 0..8 {
        world.clock.turn(Duration::from_secs(2));
        write(&device.fs, b"note", b"time goes by");
        let done = device.fs.collect().unwrap();
        repacked = (repacked.0 + done.repacked, repacked.1 + done.repacked_bytes);
        freed += done.freed;
        rounds.push((done.stored, done.stored_bytes));
    }
    let left = device.fs.collect().unwrap();
    let ratio = |a: u64, b: usize| a as f64 / b as f64;
    println!(
        "written {written}, put {} ({:.2} times), left {} of {} segments, {} bytes: {:.2} times the file",
        stored.stored_bytes,
        ratio(stored.stored_bytes, written),
        left.stored,
        stored.stored,
        left.stored_bytes,
        ratio(left.stored_bytes, len)
    );
    assert_eq!((left.kept, left.repacked), (0, 0), "{left:?}");
    // Without repacking 39 segments and 59.9 MB are left: 57 are dead, and 31 are repacked into one.
    let rounds: Vec<_> = rounds
        .into_iter()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let expected_rounds = [(9, 20_054_016), (40, 66_813_952), (96, 162_037_760)];
    assert_eq!(rounds, expected_rounds);
    assert_eq!((repacked, freed), ((31, 6_815_744), 57 + 31));
    assert!(left.stored_bytes as usize <= len * 13 / 10, "{left:?}");
    let fresh = world.mount(2);
    assert!(read(&fresh.fs, b"f", len) == expected);
    for opened in [device, fresh] {
        opened.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}
