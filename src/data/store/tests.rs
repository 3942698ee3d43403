mod copies;
mod crash;
mod damage;
mod keeping;
mod mend;
mod reading;
mod urgency;
mod vectors;
mod writing;

use super::*;
use crate::error::Flaw;
use crate::journal::JournalConfig;
use crate::segment::object_name;
use async_trait::async_trait;
use bytes::Bytes;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_crypto::LocalKey;
use skrin_storage::fault::{Fault, Faults};
use skrin_storage::gate::{Doorman, Gate};
use skrin_storage::{
    Capacity, Count, Counters as StoreCounters, Counts, Durable, Limit, Listing, MemoryStore,
    ObjectName, Prefix, StoreError,
};
use std::collections::HashMap;
use std::time::Duration;
use tempfile::TempDir;

const LANE: LaneId = LaneId([7; 16]);
const KEY: KeyId = KeyId([8; 16]);
const FILE: Ino = Ino(77);

fn key() -> FileKey {
    FileKey::from_bytes([9; 32])
}

/// Content that tells its block, and does not compress.
fn plain(block: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededEntropy::new(block).fill(&mut bytes);
    bytes
}

/// A device's state directory and a storage, which outlive the store that a crash ends.
pub(super) struct World {
    dir: TempDir,
    storage: Arc<MemoryStore>,
    faults: Faults,
    counters: Arc<StoreCounters>,
    lives: AtomicU64,
    config: DataConfig,
    journal_bytes: u64,
    latency: Duration,
    file_len: u32,
    /// So many requests at once, each of which is let in by hand.
    gate: Option<(usize, Doorman)>,
    /// Where blocks of segments lie besides.
    copies: Arc<Mutex<HashMap<SegmentId, Copies>>>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            storage: Arc::default(),
            faults: Faults::default(),
            counters: Arc::default(),
            lives: AtomicU64::new(0),
            config: DataConfig::with_memory(VaultId([1; 16]), RoomId([2; 16]), 64 << 20),
            journal_bytes: 1 << 30,
            latency: Duration::ZERO,
            file_len: 4 << 20,
            gate: None,
            copies: Arc::default(),
        }
    }

    fn with_disk_cache(mut self, bytes: u64) -> Self {
        self.config.disk_cache = Some((self.dir.path().join("cache"), bytes));
        self
    }

    fn open_replay(&self) -> (DataStore, Replay) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(life * 1_000_003));
        let journal = JournalConfig {
            file_len: self.file_len,
            patience: Duration::from_millis(100),
            ..JournalConfig::new(
                self.dir.path().join("journal"),
                self.config.vault,
                LocalKey::from_bytes([3; 32]),
                self.journal_bytes,
            )
        };
        let (journal, mut replay) = Journal::open(journal, Arc::clone(&entropy)).unwrap();
        let fault = Fault::new(Arc::clone(&self.storage), self.faults.clone());
        let slow = Slow {
            inner: fault,
            latency: self.latency,
        };
        let counted = Count::new(slow, Arc::clone(&self.counters));
        let store: Arc<dyn Store> = match self.gate.clone() {
            None => Arc::new(counted),
            Some((parallel, doorman)) => {
                Arc::new(Limit::new(Gate::new(counted, doorman), parallel))
            }
        };
        let parts = DataParts {
            store,
            journal: Arc::new(journal),
            names: Arc::new(|lane, n| {
                SegmentId(
                    *skrin_crypto::hash(&[&lane.0[..], &n.to_le_bytes()].concat())
                        .0
                        .first_chunk()
                        .unwrap(),
                )
            }),
            copies: Arc::new({
                let copies = Arc::clone(&self.copies);
                move |id| copies.lock().get(&id).cloned()
            }),
            entropy,
            runtime: Handle::current(),
        };
        let store = DataStore::open(self.config.clone(), parts, &mut replay).unwrap();
        store.set_lane(LANE, 0, true).unwrap();
        (store, replay)
    }

    pub(super) fn open(&self) -> DataStore {
        self.open_replay().0
    }

    fn counts(&self) -> Counts {
        self.counters.counts()
    }
}

/// A storage that is far away.
struct Slow<S> {
    inner: S,
    latency: Duration,
}

#[async_trait]
impl<S: Store> Store for Slow<S> {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        tokio::time::sleep(self.latency).await;
        self.inner.get(name, max).await
    }
    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        tokio::time::sleep(self.latency).await;
        self.inner.get_range(name, start, len).await
    }
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        self.inner.list(dir).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name).await
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        self.inner.capacity().await
    }
    fn place(&self) -> String {
        self.inner.place()
    }
}

fn write(store: &DataStore, block: u64, len: usize) -> BlockRef {
    store
        .write_block(
            KEY,
            &key(),
            (FILE, block),
            &plain(block, len),
            Room::Wait,
            &mut Gain::default(),
        )
        .unwrap()
}

fn request(at: BlockRef, info: Option<&SegmentInfo>, block: u64) -> BlockRead {
    BlockRead {
        at,
        info: info.map(|i| Arc::new(i.clone())),
        key_id: KEY,
        key: Arc::new(key()),
        origin_file: FILE,
        origin_block: block,
    }
}

/// The declarations of all segments, which are put on the storage and released.
async fn publish(store: &DataStore) -> HashMap<SegmentId, SegmentInfo> {
    let ids = store.undeclared();
    let durable = store.make_durable(&ids).await.unwrap();
    store.release(0, &ids).unwrap();
    // So that the next life does not find them once more.
    store.journal().sync_all().unwrap();
    durable
        .into_iter()
        .map(Durable::into_inner)
        .map(|info| (info.id, info))
        .collect()
}

/// Blocks that were written, and what each segment was declared as.
#[derive(Default)]
pub(super) struct Written {
    blocks: Vec<(BlockRef, usize)>,
    infos: HashMap<SegmentId, SegmentInfo>,
}

impl Written {
    pub(super) async fn new(store: &DataStore, count: u64, len: usize) -> Self {
        let blocks = (0..count).map(|n| (write(store, n, len), len)).collect();
        Self {
            blocks,
            infos: publish(store).await,
        }
    }

    pub(super) fn request(&self, block: u64) -> BlockRead {
        let (at, _) = self.blocks[block as usize];
        request(at, self.infos.get(&at.segment), block)
    }

    pub(super) async fn check(&self, store: &DataStore, blocks: impl IntoIterator<Item = u64>) {
        let blocks: Vec<_> = blocks.into_iter().collect();
        let got = store
            .read(blocks.iter().map(|b| self.request(*b)).collect())
            .await;
        for (block, got) in blocks.into_iter().zip(got) {
            let len = self.blocks[block as usize].1;
            assert_eq!(&*got.unwrap(), plain(block, len), "block {block}");
        }
    }

    pub(super) fn the_info(&self) -> &SegmentInfo {
        assert_eq!(self.infos.len(), 1);
        self.infos.values().next().unwrap()
    }
}
