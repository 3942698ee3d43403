//! Writes blocks into segments, keeps what is not yet on the storage, uploads it, and reads everything back.

mod copies;
mod delete;
pub mod disk;
mod fetch;
mod flight;
mod keep;
mod mend;
mod met;
mod open;
mod pending;
mod read;
mod restored;
mod upload;
mod verify;
mod write;

use crate::block::{Block, BlockRef, Gain, Pool};
use crate::error::DataError;
use crate::journal::{Journal, Replay, ReplayedSegment, Room};
use crate::read_ahead::ReadAhead;
use crate::segment::Table;
use disk::DiskCache;
use flight::Flights;
use moka::policy::EvictionPolicy;
use parking_lot::Mutex;
use pending::Pending;
use skrin_base::ids::{Ino, KeyId, LaneId, RoomId, SegmentId, VaultId};
use skrin_base::{CopiedRun, Copies, Entropy, SegmentInfo};
use skrin_crypto::FileKey;
use skrin_storage::{Places, Store, Urgency};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use copies::Relocation;
pub use mend::Mended;
pub use verify::Verified;

/// Bounds and choices; bytes where nothing else is said.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// Whose.
    pub vault: VaultId,
    /// The one room whose files are kept here.
    pub room: RoomId,
    /// zstd level 1 to 3 for blocks where it gains; `None` is off.
    pub compression: Option<i32>,
    /// Plain blocks in memory.
    pub cache_bytes: u64,
    /// Sealed blocks in memory that wait for their upload; above it they are read back from the journal.
    pub pending_bytes: u64,
    /// Segments uploaded at the same time; each takes its length in memory.
    pub uploads: usize,
    /// Answers of the storage in memory at the same time.
    pub fetch_bytes: u64,
    /// Blocks that `prefetch` fetches at the same time; less than the cache, or they would push each other out.
    pub prefetch_bytes: u64,
    /// Two blocks of a segment no further apart than this are fetched by one request.
    pub gap: u64,
    /// What a fetch takes along of the segment around it, as what was written together is read together. Only with a disk cache.
    pub neighbours: u64,
    /// Directory and size of the cache of sealed blocks; of no use above a local folder.
    pub disk_cache: Option<(PathBuf, u64)>,
    /// Nothing is removed from that cache before `pin` was called.
    pub hold_cache: bool,
    /// What is pinned, or put again, leaves so much of the local disk free: the journal has to grow there.
    pub keep_free: u64,
    /// Nothing is put on the storage: what an earlier run left in the journal can be read and waits there for one that may.
    pub read_only: bool,
}

impl DataConfig {
    /// Splits a bound for the memory of the whole data layer; without a disk cache.
    pub fn with_memory(vault: VaultId, room: RoomId, memory: u64) -> Self {
        let part = |n: u64, d: u64, least: u64| (memory * n / d).max(least);
        Self {
            vault,
            room,
            compression: None,
            cache_bytes: part(5, 16, 4 << 20),
            pending_bytes: part(3, 16, 4 << 20),
            // Two keep the link busy while a third is put together or read back.
            uploads: (part(1, 4, 8 << 20) >> 23).clamp(1, 4) as usize,
            fetch_bytes: part(3, 16, 16 << 20),
            prefetch_bytes: part(3, 16, 2 << 20),
            gap: 128 << 10,
            neighbours: 1 << 20,
            disk_cache: None,
            hold_cache: false,
            keep_free: 256 << 20,
            read_only: false,
        }
    }
}

/// Names of segments: a function of lane and number that only members can compute.
pub type SegmentNames = dyn Fn(LaneId, u64) -> SegmentId + Send + Sync;

/// Where blocks of a segment lie besides. It is called on threads that may wait, without any lock of this layer.
pub type CopiesOf = dyn Fn(SegmentId) -> Option<Copies> + Send + Sync;

/// What the data layer stands on.
pub struct DataParts {
    /// The storage, with its decorators.
    pub store: Arc<dyn Store>,
    /// The journal.
    pub journal: Arc<Journal>,
    /// Names of segments.
    pub names: Arc<SegmentNames>,
    /// Where blocks lie besides.
    pub copies: Arc<CopiesOf>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where uploads and fetches run.
    pub runtime: Handle,
}

/// One block to read: where it is and what its seal is bound to.
#[derive(Clone)]
pub struct BlockRead {
    /// Segment and slot.
    pub at: BlockRef,
    /// The declaration of the segment; `None` while it is one of this device's that is not declared yet.
    pub info: Option<Arc<SegmentInfo>>,
    /// Names the file key.
    pub key_id: KeyId,
    /// The file key.
    pub key: Arc<FileKey>,
    /// The inode for which the block was sealed.
    pub origin_file: Ino,
    /// The block of that inode.
    pub origin_block: u64,
}

/// What is not on the storage yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PendingSummary {
    /// Bytes of sealed blocks.
    pub bytes: u64,
    /// Segments.
    pub segments: usize,
}

/// Counters since the start, for `status` and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DataCounters {
    /// Requests that fetched something of a segment.
    pub fetches: u64,
    /// Bytes that they brought.
    pub fetched_bytes: u64,
    /// Entries of the disk cache that were damaged and dropped.
    pub bad_cache_entries: u64,
    /// Blocks found in the disk cache.
    pub disk_hits: u64,
    /// Bytes in the disk cache of segments that are pinned.
    pub pinned_bytes: u64,
}

#[derive(Default)]
struct Counters {
    fetches: AtomicU64,
    fetched_bytes: AtomicU64,
}

/// The contents of the files of one room. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct DataStore {
    inner: Arc<Inner>,
}

struct Inner {
    config: DataConfig,
    parts: DataParts,
    pool: Arc<Pool>,
    objects: upload::ObjectPool,
    writer: Mutex<write::Writer>,
    pending: Mutex<BTreeMap<SegmentId, Arc<Pending>>>,
    /// Segments that would be pending, if it were known which they are.
    orphans: Mutex<Vec<ReplayedSegment>>,
    /// Sealed bytes that `pending` holds in memory.
    in_memory: AtomicU64,
    blocks: moka::sync::Cache<BlockRef, Block>,
    tables: moka::sync::Cache<SegmentId, Arc<Table>>,
    disk: Option<DiskCache>,
    flights: Flights,
    uploads: Semaphore,
    fetches: Places,
    prefetches: Semaphore,
    prefetched: AtomicUsize,
    counters: Counters,
    met: met::Met,
}

/// One permit of a semaphore over bytes.
const PERMIT: u64 = 1024;

/// How many permits so many bytes take, at most what the semaphore has.
fn permits(bytes: u64, bound: u64) -> u32 {
    u32::try_from((bytes.min(bound) / PERMIT).max(1)).unwrap_or(u32::MAX)
}

impl DataStore {
    /// Opens the store with what the journal held: segments that were not ended are ended, and all that are not declared start
    /// uploading, unless it is read-only.
    ///
    /// # Errors
    /// `LocalDisk`.
    pub fn open(
        config: DataConfig,
        parts: DataParts,
        replay: &mut Replay,
    ) -> Result<Self, DataError> {
        let disk = match &config.disk_cache {
            Some((dir, bytes)) => Some(DiskCache::open(dir.clone(), *bytes, config.hold_cache)?),
            None => None,
        };
        let inner = Inner {
            pool: Arc::default(),
            objects: upload::ObjectPool::new(config.uploads),
            writer: Mutex::default(),
            pending: Mutex::default(),
            orphans: Mutex::default(),
            in_memory: AtomicU64::new(0),
            blocks: moka::sync::Cache::builder()
                // What was prefetched has not been read yet: no admission by frequency.
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(config.cache_bytes)
                .weigher(|_, block: &Block| block.len() as u32 + 256)
                .build(),
            tables: moka::sync::Cache::builder()
                .max_capacity((config.cache_bytes / 16).max(1 << 20))
                .weigher(|_, table: &Arc<Table>| table.memory())
                .build(),
            disk,
            flights: Flights::default(),
            uploads: Semaphore::new(config.uploads.max(1)),
            fetches: Places::new(permits(config.fetch_bytes, u64::MAX) as usize),
            prefetches: Semaphore::new(permits(config.prefetch_bytes, u64::MAX) as usize),
            prefetched: AtomicUsize::new(0),
            counters: Counters::default(),
            met: met::Met::default(),
            config,
            parts,
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        store.inner.adopt(replay)?;
        Ok(store)
    }

    /// Sets the lane in which segments are written from now on; if it is another one, the open segment is ended. Nothing can be written before.
    /// No segment gets a number below `decided`, which the lane has said are decided, whatever the journal knows. Unless its names `are_free`
    /// it is looked whether they are before anything is put under them.
    ///
    /// # Errors
    /// `LocalDisk`, `Full`.
    pub fn set_lane(&self, lane: LaneId, decided: u64, are_free: bool) -> Result<(), DataError> {
        self.inner.parts.journal.only(lane, decided);
        self.inner.take_up_orphans_of(lane);
        self.inner.set_lane(lane, are_free)
    }

    /// Seals a block of 1 to 65,536 bytes into the open segment and appends it to the journal; `Journal::sync` makes it durable. Any
    /// thread may call it; it blocks on the local disk only, and up to the journal's patience when that is full and `room` says to wait.
    ///
    /// # Errors
    /// `Full`, `LocalDisk`, `Invalid`.
    pub fn write_block(
        &self,
        key_id: KeyId,
        key: &FileKey,
        origin: (Ino, u64),
        plain: &[u8],
        room: Room,
        gain: &mut Gain,
    ) -> Result<BlockRef, DataError> {
        self.inner
            .write_block(key_id, key, origin, plain, room, gain)
    }

    /// Puts a plain block that was just written into the cache.
    pub fn remember(&self, at: BlockRef, plain: &[u8]) {
        let mut bytes = self.inner.pool.take();
        bytes.extend_from_slice(plain);
        self.inner.blocks.insert(at, self.inner.pool.block(bytes));
    }

    /// Puts segments of this device on the storage, ending them first, and returns what a commit must declare of each. Several are
    /// uploaded at once. Segments that are durable already cost nothing.
    ///
    /// # Errors
    /// The first failure; the others go on, and another call tries again what failed. `Missing` for an id that is not pending.
    pub async fn make_durable(
        &self,
        ids: &[SegmentId],
    ) -> Result<Vec<skrin_storage::Durable<SegmentInfo>>, DataError> {
        Arc::clone(&self.inner).make_durable(ids.to_vec()).await
    }

    /// The segments with blocks that are not released, durable or not.
    pub fn undeclared(&self) -> Vec<SegmentId> {
        let pending = self.inner.pending.lock();
        pending
            .values()
            .filter(|s| !s.is_empty())
            .map(|s| s.place.segment)
            .collect()
    }

    /// The lane in which segments are written, and the number below which all of them are decided: released, or given up for ever.
    pub fn decided_below(&self) -> Option<(LaneId, u64)> {
        self.inner.decided_below()
    }

    /// Whether a segment is one of this device's that is not released: then a commit that names it must declare it.
    pub fn is_undeclared(&self, id: &SegmentId) -> bool {
        self.inner.pending.lock().contains_key(id)
    }

    /// Whether what was copied into a segment that no commit has declared is lost: with the segment, or with its key, of which the mask is.
    pub fn has_lost_copies(&self, id: &SegmentId) -> bool {
        let pending = self.inner.pending.lock();
        pending.get(id).is_none_or(|pending| pending.rekeyed)
    }

    /// Forgets operations up to `counter` and the segments that a confirmed commit declares; their log files are freed.
    ///
    /// # Errors
    /// `LocalDisk`.
    pub fn release(&self, counter: u64, segments: &[SegmentId]) -> Result<(), DataError> {
        self.inner.parts.journal.release(counter, segments)?;
        let gone: Vec<_> = {
            let mut writer = self.inner.writer.lock();
            let mut pending = self.inner.pending.lock();
            writer.let_go(segments);
            segments
                .iter()
                .filter_map(|id| pending.remove(id))
                .collect()
        };
        gone.iter()
            .for_each(|segment| self.inner.forget_memory(segment));
        Ok(())
    }

    /// What is not on the storage yet.
    pub fn pending(&self) -> PendingSummary {
        let pending = self.inner.pending.lock();
        let waiting = pending.values().filter(|s| !s.is_durable());
        waiting.fold(PendingSummary::default(), |sum, segment| PendingSummary {
            bytes: sum.bytes + segment.bytes(),
            segments: sum.segments + 1,
        })
    }

    /// A block that can be had at once, from memory: for answering without a task switch. Opens a block that waits for its upload in
    /// memory; `None` means `read`.
    pub fn cached(&self, read: &BlockRead) -> Option<Block> {
        self.inner
            .blocks
            .get(&read.at)
            .or_else(|| self.inner.open_in_memory(read))
    }

    /// Reads blocks, in the order given. Blocks of one segment that lie near each other are fetched by one request.
    pub async fn read(&self, reads: Vec<BlockRead>) -> Vec<Result<Block, DataError>> {
        Arc::clone(&self.inner).read(reads).await
    }

    /// How far a reader of this store may be read ahead of.
    pub fn read_ahead(&self) -> ReadAhead {
        ReadAhead::new(self.inner.config.prefetch_bytes)
    }

    /// Starts reading blocks that will be wanted soon. A hint: more than the bound on prefetched bytes waits for its turn.
    pub fn prefetch(&self, reads: Vec<BlockRead>) {
        Arc::clone(&self.inner).prefetch(reads);
    }

    /// Of these segments, and of no others, nothing is removed from the disk cache from now on, and it does not count against its bound.
    /// False where there is no such cache.
    pub fn pin(&self, segments: HashSet<SegmentId>) -> bool {
        let disk = self.inner.disk.as_ref();
        disk.map(|disk| disk.pin(segments)).is_some()
    }

    /// Which of these slots would have to be fetched from the storage.
    pub fn absent(&self, segment: SegmentId, slots: &[Range<u32>]) -> Vec<Range<u32>> {
        self.inner.absent(segment, slots)
    }

    /// Brings slots of a segment to the disk cache, with the segment's table, as far as they are not there.
    ///
    /// # Errors
    /// Of the storage; `LocalDisk` where they cannot be kept.
    pub async fn keep(
        &self,
        info: Arc<SegmentInfo>,
        slots: &[Range<u32>],
    ) -> Result<(), DataError> {
        // Who reads goes first.
        Urgency::later().scope(self.inner.keep(info, slots)).await
    }

    /// Reads a whole segment and checks everything that can be checked: length, header, table, hash of each block, padding; and opens the
    /// blocks for which `reads` has keys.
    ///
    /// # Errors
    /// The first error for the whole object; damaged blocks are listed in `Verified`.
    pub async fn verify_segment(
        &self,
        info: Arc<SegmentInfo>,
        reads: Vec<BlockRead>,
    ) -> Result<Verified, DataError> {
        Arc::clone(&self.inner).verify(info, reads).await
    }

    /// Copies blocks that lie in one object into the segment that is being filled, as they were sealed, with the tables of the segments for
    /// which that was done; every block is checked against these. `needed` says which, by the declarations of those segments. The object is
    /// read whole, so that the storage does not see which blocks are needed. What it returns is in the journal, though not durable.
    ///
    /// # Errors
    /// Of the storage and the journal; `Integrity` where a block is not the one that was sealed, and then nothing may be done with what was
    /// written.
    pub async fn copy_blocks(
        &self,
        object: Arc<SegmentInfo>,
        needed: Vec<(Arc<SegmentInfo>, Vec<CopiedRun>)>,
    ) -> Result<Vec<Relocation>, DataError> {
        let copied = Arc::clone(&self.inner).copy_blocks(object, needed);
        Urgency::later().scope(copied).await
    }

    /// Reads blocks of a segment where they lie besides, from the storage and not from any cache, and finds them to be those that were sealed.
    ///
    /// # Errors
    /// Of the storage; `Integrity`, or `Missing`, where one is not there.
    pub async fn check_copies(
        &self,
        info: Arc<SegmentInfo>,
        copies: Copies,
    ) -> Result<u64, DataError> {
        let checked = Arc::clone(&self.inner).check_copies(info, copies);
        Urgency::later().scope(checked).await
    }

    /// Puts a segment again whose object is damaged or missing, byte for byte, from what is left of it, the disk cache and what
    /// waits for its upload. Nothing is put where a part is nowhere. `spare` is a directory of the local disk that holds the
    /// object while its place on the storage may be empty, and in which an earlier attempt may have left it.
    ///
    /// # Errors
    /// Of the storage; `LocalDisk`.
    pub async fn mend_segment(
        &self,
        info: Arc<SegmentInfo>,
        spare: &Path,
    ) -> Result<Mended, DataError> {
        Arc::clone(&self.inner).mend(info, spare).await
    }

    /// All segments that lie on the storage, with their lengths where it tells them; and how many objects lie there whose names are not
    /// those of segments.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn stored(&self) -> Result<(BTreeMap<SegmentId, Option<u64>>, usize), DataError> {
        self.inner.stored().await
    }

    /// Deletes a segment from the storage. Nobody may need it any more: that cannot be known here.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn delete(&self, id: SegmentId) -> Result<(), DataError> {
        self.inner.delete(id).await
    }

    /// Notes an error with which a call ended, if it is damage.
    pub fn note_damage(&self, error: &DataError) {
        self.inner.met.note(error);
    }

    /// Damage that was noted since somebody asked last.
    pub fn take_damage(&self) -> Vec<DataError> {
        self.inner.met.take()
    }

    /// The journal, for operations and syncs.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.inner.parts.journal
    }

    /// Counters since the start.
    pub fn counters(&self) -> DataCounters {
        let c = &self.inner.counters;
        let (bad, hits) = self.inner.disk.as_ref().map_or((0, 0), DiskCache::counters);
        DataCounters {
            fetches: c.fetches.load(Ordering::Relaxed),
            fetched_bytes: c.fetched_bytes.load(Ordering::Relaxed),
            bad_cache_entries: bad,
            disk_hits: hits,
            pinned_bytes: self.inner.disk.as_ref().map_or(0, DiskCache::pinned),
        }
    }
}

#[cfg(test)]
mod tests;
