//! What is pinned: how often it is asked for, and what is noticed of the cache.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::clock::testutil::{ManualClock, SeededEntropy};
use skrin_base::{Clock, Entropy, Ino};
use skrin_data::DataConfig;
use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{Caller, FsOptions, NodeId, OpenMode, PinStatus, Shutdown};
use skrin_storage::{MemoryStore, Store};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CALLER: Caller = Caller {
    umask: 0,
    uid: 0,
    gid: 0,
    pid: 1,
};
const WRITE: OpenMode = OpenMode {
    write: true,
    truncate: false,
};
const BLOCKS: usize = 16;
const SECOND: u64 = 1_000_000_000;
/// What is tried again is after so long.
const AGAIN: u64 = 15 * SECOND;
/// More than any step takes.
const PATIENCE: Duration = Duration::from_secs(180);

/// A file of another device, and a device that has nothing of it and pins everything. Its clock stands still.
struct World {
    at: Opened,
    clock: Arc<ManualClock>,
    cache: TempDir,
    _vault: TestVault,
}

impl World {
    fn new(spoil: impl FnOnce(&MemoryStore), adjust: impl Fn(&mut DataConfig) + 'static) -> Self {
        let (storage, clock) = (
            Arc::new(MemoryStore::new()),
            Arc::new(ManualClock::default()),
        );
        let store = Arc::clone(&storage) as Arc<dyn Store>;
        let mut vault = TestVault::new(7, store, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let by_hand = FsOptions {
            poll_interval: None,
            background: false,
            ..FsOptions::default()
        };
        let writer = vault.open(0, by_hand.clone()).unwrap();
        let made = writer
            .fs
            .create(NodeId::ROOT, b"file", 0o600, true, WRITE, &CALLER);
        let handle = made.unwrap().1;
        let mut bytes = vec![0; BLOCKS << 16];
        SeededEntropy::new(1).fill(&mut bytes);
        writer.fs.write(handle, 0, &bytes).unwrap();
        writer.fs.release(handle).unwrap();
        writer.fs.sync(|_| ()).unwrap();
        spoil(&storage);
        let cache = TempDir::new().unwrap();
        let dir = cache.path().join("cache");
        vault.data = Box::new(move |config| {
            config.disk_cache = Some((dir.clone(), 64 << 20));
            adjust(config);
        });
        let options = FsOptions {
            background: true,
            ..by_hand
        };
        let at = vault.open(1, options).unwrap();
        assert!(at.fs.pin([Ino::ROOT].into()));
        Self {
            at,
            clock,
            cache,
            _vault: vault,
        }
    }

    /// Returns what is said of the pins once that is so.
    fn until(&self, is_so: impl Fn(&PinStatus) -> bool) -> PinStatus {
        let begun = Instant::now();
        loop {
            let status = self.at.fs.pin_status();
            if let Some(status) = status.clone().filter(&is_so) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "{status:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How often something of a segment was asked for.
    fn asked(&self) -> u64 {
        self.at.data.counters().fetches
    }

    /// Returns when something was asked for once more than so often; how often then.
    fn until_asked(&self, before: u64) -> u64 {
        self.until(|_| self.asked() > before);
        self.asked()
    }

    /// One more file without blocks: what is pinned is looked through once more. What is said then.
    fn look_again(&self, files: u64) -> PinStatus {
        let (fs, name) = (&self.at.fs, format!("more {files}"));
        let made = fs.create(NodeId::ROOT, name.as_bytes(), 0o600, true, WRITE, &CALLER);
        fs.release(made.unwrap().1).unwrap();
        fs.sync(|_| ()).unwrap();
        self.until(|status| status.files == files && status.error.is_some())
    }
}

/// Changes a byte of the fourth block of the one large object.
fn spoil_a_block(storage: &MemoryStore) {
    let len = |name: &_| storage.peek(name).map_or(0, |bytes| bytes.len());
    let name = storage.names().into_iter().max_by_key(len).unwrap();
    let mut bytes = storage.peek(&name).unwrap().to_vec();
    assert!(bytes.len() > BLOCKS << 16);
    bytes[3 * (65_536 + 28) + 1000] ^= 1;
    storage.tamper(&name, Some(bytes.into()));
}

#[test]
fn a_damaged_block_is_asked_for_less_and_less_often_and_the_others_of_its_segment_once() {
    let world = World::new(spoil_a_block, |_| ());
    world.until(|status| status.error.is_some());
    let asked = world.asked();
    let status = world.look_again(2);
    assert_eq!(status.missing_blocks, 1);
    assert_eq!(world.asked(), asked, "at once");
    world.clock.advance(AGAIN);
    let asked = world.until_asked(asked);
    world.look_again(3);
    assert_eq!(world.asked(), asked, "at once after the second time");
    world.clock.advance(AGAIN);
    world.look_again(4);
    assert_eq!(world.asked(), asked, "as soon as after the first time");
    world.clock.advance(AGAIN);
    world.until_asked(asked);
    world.at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn what_the_disk_has_no_room_for_is_not_asked_for() {
    let world = World::new(|_| (), |config| config.keep_free = u64::MAX);
    world.until(|status| status.error.is_some());
    for files in 2..4 {
        let status = world.look_again(files);
        assert_eq!(status.missing_blocks, BLOCKS as u64);
        world.clock.advance(AGAIN);
    }
    assert_eq!(world.asked(), 0);
    world.at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn what_somebody_removed_from_the_cache_under_a_mount_comes_again_though_nobody_reads_it() {
    let world = World::new(|_| (), |_| ());
    let is_here = |status: &PinStatus| status.files == 1 && status.missing_blocks == 0;
    world.until(is_here);
    let asked = world.asked();
    assert!(asked > 0);
    for dir in std::fs::read_dir(world.cache.path().join("cache")).unwrap() {
        std::fs::remove_dir_all(dir.unwrap().path()).unwrap();
    }
    world.clock.advance(600 * SECOND);
    world.until_asked(asked);
    world.until(is_here);
    let kept = std::fs::read_dir(world.cache.path().join("cache")).unwrap();
    assert!(kept.count() > 0);
    world.at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}
