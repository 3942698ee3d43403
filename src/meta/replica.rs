//! A room on this device: the folded state, its lanes on the storage, and the own lane that is written.
//! What takes the network never holds the lock of the tree; what holds the lock never waits.

mod admission;
mod core;
mod cutting;
mod error;
mod fetch;
mod garbage;
mod graph;
mod history;
mod load;
mod make;
mod mend;
mod news;
mod own;
mod past;
mod publish;
mod pull;
mod scrub;
mod shown;
mod spool;
mod standing;
mod status;
mod verify;
mod veto;

pub use self::core::MergeDiff;
pub use error::{Barred, Finding, FindingKind, LostHead, ReplicaError, Rollback, ShownHead};
pub use garbage::{Garbage, GarbageRules, Hold, Needed, Sparse};
pub use history::{Cut, History, PastCommit};
pub use mend::PutAgain;
pub use publish::Published;
pub use scrub::{Looked, MetaObject};
pub use status::{LaneStatus, Status};
pub use verify::{Problem, ProblemKind, VerifyReport};

use self::core::Core;
use crate::apply::Outcome;
use crate::commit::{CheckedCommit, CheckpointRef, SealedCommit, Verdict};
use crate::heads::{Heads, HeadsFile};
use crate::lane::{Head, RoomNames};
use crate::op::Op;
use crate::rows::{Row, RowKey, Rows, RowsError};
use fetch::Inbox;
use graph::Cuts;
use own::OwnCommits;
use parking_lot::{Mutex, MutexGuard, RwLock};
use skrin_base::wire::{Decode, Encode, WireError};
use skrin_base::{Clock, DeviceId, Entropy, Hash32, KeyId, LaneId, OpId, SegmentId, Timestamp};
use skrin_crypto::{DeviceSigner, LocalKey, RoomKeys, Roster};
use skrin_storage::Store;
use standing::Reach;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

/// A row that stands beside those of the state in the local cache, as it is written again: what stands (0), the cuts (1), a lane (2), and
/// else a commit of the graph. For the fuzz targets.
///
/// # Errors
/// Whatever is no such row.
#[doc(hidden)]
pub fn side_row(which: u8, row: &[u8]) -> Result<Vec<u8>, WireError> {
    match which {
        0 => standing::Standing::from_bytes(row).map(|standing| {
            drop(standing.held());
            standing.to_bytes()
        }),
        1 => Cuts::from_bytes(row).map(|cuts| cuts.to_bytes()),
        2 => graph::Lane::from_bytes(row).map(|lane| lane.to_bytes()),
        _ => graph::Node::from_bytes(row).map(|node| node.to_bytes()),
    }
}

/// When a checkpoint is worth making.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointPolicy {
    /// After this many operations since the last one.
    pub ops: u64,
    /// Or this many bytes of commits.
    pub bytes: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            ops: 4_000,
            bytes: 4 << 20,
        }
    }
}

/// Everything that a replica needs.
pub struct ReplicaConfig {
    /// Where the vault is.
    pub store: Arc<dyn Store>,
    /// The keys of the room.
    pub keys: Arc<RoomKeys>,
    /// Who may sign. `set_control` keeps it up to date.
    pub roster: Arc<RwLock<Roster>>,
    /// Whether it comes from local copies, because the storage could not be asked: then it may lack what was seen.
    pub control_is_old: bool,
    /// This device.
    pub device: DeviceId,
    /// Its signing key.
    pub signer: Arc<DeviceSigner>,
    /// Directory for `meta.db`, `heads` and `journal/lanes`; it must exist.
    pub state_dir: PathBuf,
    /// Seals `heads`.
    pub heads_key: LocalKey,
    /// Opens `meta.db`.
    pub meta_key: LocalKey,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Publish nothing, open no lane.
    pub read_only: bool,
    /// Memory for rows and pages of the database, in bytes.
    pub cache_bytes: usize,
    /// When to make checkpoints.
    pub checkpoints: CheckpointPolicy,
}

/// What every part uses.
pub(crate) struct Env {
    store: Arc<dyn Store>,
    names: RoomNames,
    keys: RwLock<Arc<RoomKeys>>,
    roster: Arc<RwLock<Roster>>,
    device: DeviceId,
    signer: Arc<DeviceSigner>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    state_dir: PathBuf,
    read_only: bool,
    checkpoints: CheckpointPolicy,
}

impl Env {
    fn keys(&self) -> Arc<RoomKeys> {
        self.keys.read().clone()
    }

    fn label(&self, device: &DeviceId) -> String {
        let roster = self.roster.read();
        let known = roster.devices.get(device);
        known.map_or_else(|| device.to_string(), |d| d.label.clone())
    }
}

/// The lane that this device writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct OwnLane {
    id: LaneId,
    incarnation: u32,
    /// The newest own commit, once the lane is open.
    tip: Option<Head>,
    /// Whether the directory of the next commit was looked at in this run.
    checked: bool,
}

/// What this device may call segments that it writes now.
#[derive(Clone, Copy, Debug)]
pub struct OwnNames {
    /// The lane that they bear.
    pub lane: LaneId,
    /// The lane has said that all below this number are decided.
    pub decided_below: u64,
    /// Whether nobody can have used the others. If this state is a restored backup and the storage was not looked at yet, its later life may have.
    pub are_free: bool,
}

/// What is known of the storage. Whoever holds it may use the network.
struct Net {
    inbox: Inbox,
    heads: Heads,
    own: OwnLane,
    /// Being sealed and kept.
    sealing: Option<publish::Sealing>,
    /// Sealed and kept, but not confirmed by the storage yet.
    in_flight: Option<SealedCommit>,
    /// Tips of this device that lie on the storage.
    own_tips: Vec<Head>,
    /// When the storage last showed, asked by exact name, a commit that no tip shows.
    probed: HashMap<Head, u64>,
    /// Below which number the newest commit of the own lane calls all segments decided.
    decided_below: u64,
    /// A checkpoint that this device made and will propose.
    proposal: Option<publish::Proposal>,
    /// What the next commit says of checkpoints.
    verdicts: Vec<Verdict>,
    /// What this device refutes and has not said yet, with the digests that it computed.
    refuting: BTreeMap<CheckpointRef, Hash32>,
    /// Roots that came and are not judged yet.
    roots: Vec<(CheckpointRef, Hash32, Reach)>,
    /// When a root that cannot be had is asked for again, and how often it was.
    root_retries: BTreeMap<CheckpointRef, (u64, u32)>,
    /// What the clocks showed when changes were last looked for: the wall's and the monotonic one.
    looked: Option<(Timestamp, u64)>,
    /// What is known of the commits below the checkpoint with which this state began.
    past: past::Past,
    /// What changed in the tree since a caller was told last.
    undelivered: MergeDiff,
    /// An own commit that cannot be admitted yet.
    waiting: Option<Head>,
    /// Control records that tips show and that are not known here.
    news: news::News,
    cloned: bool,
    /// Whether the storage has shown in this run that it has no more of the own lane than this device.
    saw_own: bool,
    /// Whether the control records have not been read from the storage yet.
    control_is_old: bool,
}

/// A checkpoint of which this device can say that it needs nothing of what was before, once its operations up to a counter are
/// published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Release {
    checkpoint: CheckpointRef,
    counter: u64,
}

/// What whoever keeps journal and contents knows when it publishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settled {
    /// The lane in which it writes segments, and a number below which each of them is declared, or never will be.
    pub numbers: Option<(LaneId, u64)>,
    /// What `releasable` gave *before* it looked at everything that is open and found that nothing of that names contents which the
    /// tree does not name.
    pub release: Option<Release>,
    /// Whether an open lane gets a commit even if there is nothing to publish: others wait for what it names and releases.
    pub heads: bool,
}

impl Settled {
    fn without_numbers(self, without: bool) -> Self {
        let numbers = self.numbers.filter(|_| !without);
        Self { numbers, ..self }
    }
}

fn barred(roster: &Roster, device: &DeviceId) -> Option<Barred> {
    let known = roster.devices.get(device);
    if known.is_some_and(|known| known.cut.is_some()) {
        return Some(Barred::Removed);
    }
    let may = roster.rights.may_write(*device, &roster.control_heads);
    (!may).then_some(Barred::ReadsOnly)
}

/// A room, as this device sees it.
pub struct Replica {
    env: Env,
    /// Why this device may publish nothing.
    barred: Mutex<Option<Barred>>,
    core: Mutex<Core>,
    net: tokio::sync::Mutex<Net>,
    commits: Arc<OwnCommits>,
    heads_file: Arc<HeadsFile>,
    findings: Mutex<BTreeMap<(FindingKind, String), Finding>>,
    shown: Mutex<status::Shown>,
    /// One flush at a time.
    flushing: Mutex<()>,
}

thread_local! {
    /// How many trees this thread holds, in debug builds.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Whether this thread holds a tree, for assertions about the order of locks; known in debug builds only.
pub fn holds_tree() -> bool {
    HELD.get() > 0
}

/// The tree, exclusively: reading rows and executing operations, without waiting for anything.
pub struct TreeGuard<'a>(MutexGuard<'a, Core>);

impl Drop for TreeGuard<'_> {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            HELD.set(HELD.get().saturating_sub(1));
        }
    }
}

impl TreeGuard<'_> {
    /// This device.
    pub fn device(&self) -> DeviceId {
        self.0.device
    }

    /// A name for the next operation of this device, never given out before.
    ///
    /// # Errors
    /// When the cache fails.
    pub fn next_op_id(&mut self) -> Result<OpId, RowsError> {
        let counter = self.0.next_counter()?;
        let device = self.0.device;
        Ok(OpId { device, counter })
    }

    /// Applies an operation of this device and keeps it until it is published. It must be in the journal.
    ///
    /// # Errors
    /// When the cache fails; the tree must be mounted again then.
    pub fn execute(&mut self, op: Op) -> Result<Outcome, RowsError> {
        self.0.execute(op)
    }

    /// Whether the next commit declares the segment again, because the one that did count for nothing.
    pub fn redeclares(&self, segment: &SegmentId) -> bool {
        let mut all = self.0.redeclare.iter();
        all.any(|known| known.id == *segment)
    }

    /// Whether a commit is due even without operations: this device refutes a checkpoint and has not said so.
    pub fn has_to_refute(&self) -> bool {
        let latest = self.0.graph.latest();
        let mut owed = self.0.meta.standing.owed().iter();
        owed.any(|reference| reference.floor <= latest)
    }

    /// What this device may release, if it did not yet in its last lane.
    pub fn releasable(&self) -> Option<Release> {
        let checkpoint = self.0.meta.standing.current()?.reference;
        let lane = self.0.own_newest_lane().map(|(lane, _)| lane);
        let said = self.0.released.filter(|(of, _)| Some(*of) == lane);
        let counter = self.0.last_counter();
        let release = Release {
            checkpoint,
            counter,
        };
        said.is_none_or(|(_, said)| said != checkpoint)
            .then_some(release)
    }

    /// The same, once what was made by now is published as well.
    pub fn renewed(&self, release: Release) -> Release {
        let counter = self.0.last_counter();
        Release { counter, ..release }
    }

    /// Whether others wait for a commit in the open lane of this device: what they published is not named there, so that the floor
    /// cannot rise, or a checkpoint stands that this device did not release. Or for its next lane, as they closed this one.
    pub fn is_waited_for(&self) -> bool {
        let is_asked = || self.releasable().is_some() || self.0.holds_floor();
        self.0.is_given_up() || self.0.own_open_lane().is_some() && is_asked()
    }

    /// Operations that are not published yet, in their order.
    ///
    /// # Errors
    /// When the cache, where those from longer ago are, fails.
    pub fn pending(&self) -> impl Iterator<Item = Result<Arc<Op>, RowsError>> {
        self.0.pending.iter().map(|pending| self.0.op_of(pending))
    }

    /// The number of the oldest of them.
    pub fn first_pending(&self) -> Option<u64> {
        // Those that wait until the state has been folded again are published by nobody either.
        let parked = self.0.parked.first_key_value();
        let parked = parked.map(|(counter, _)| *counter);
        let pending = self.0.pending.front().map(|pending| pending.counter);
        pending.into_iter().chain(parked).min()
    }

    /// The number of the oldest that is not known to be on the storage: pending, or in a commit that is on its way.
    pub fn first_unconfirmed(&self) -> Option<u64> {
        self.first_pending()
            .into_iter()
            .chain(self.0.unconfirmed)
            .min()
    }

    /// Whether operations wait until the state has been folded again, which the next pull does.
    pub fn has_parked(&self) -> bool {
        !self.0.parked.is_empty()
    }

    /// Whether the tree is that of all that is known of the lanes; if not, it is folded again with the next pull, and not written before.
    pub fn is_whole(&self) -> bool {
        !self.0.must_be_folded_again()
    }

    /// How many operations are not published.
    pub fn pending_count(&self) -> usize {
        self.0.pending.len() + self.0.parked.len()
    }

    /// How many operations are not published, and the bytes that they take in commits.
    pub fn pending_size(&self) -> (usize, usize) {
        let bytes = self.0.pending.iter().map(|pending| pending.len).sum();
        (self.pending_count(), bytes)
    }

    /// About how many bytes of memory `flush` would free.
    pub fn unflushed(&self) -> usize {
        self.0.unflushed()
    }
}

impl Rows for TreeGuard<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, RowsError> {
        self.0.rows.get(key)
    }
    /// Refused: the tree changes by operations only.
    fn put(&mut self, _: &[u8], _: Row) -> Result<(), RowsError> {
        Err(RowsError::Cache(
            "the tree changes by operations only".to_owned(),
        ))
    }
    /// Refused: the tree changes by operations only.
    fn delete(&mut self, _: &[u8]) -> Result<(), RowsError> {
        Err(RowsError::Cache(
            "the tree changes by operations only".to_owned(),
        ))
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(RowKey, Row)>, RowsError> {
        self.0.rows.scan(from, to, limit)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(RowKey, Row)>, RowsError> {
        self.0.rows.last(from, to)
    }
}

impl Replica {
    /// The tree. Others wait meanwhile: hold it briefly, and never across an await.
    pub fn tree(&self) -> TreeGuard<'_> {
        let guard = TreeGuard(self.core.lock());
        if cfg!(debug_assertions) {
            HELD.set(HELD.get() + 1);
        }
        guard
    }

    /// Puts the operations of the journal back on top of the state, in the order of their counters; those that were
    /// published are left out. Returns how many are pending now.
    ///
    /// # Errors
    /// An operation of another device; `Cloned` when another copy of this state has published other operations under
    /// the same ids; or when the cache fails.
    pub fn restore_pending(&self, ops: Vec<Op>) -> Result<usize, ReplicaError> {
        let mut core = self.core.lock();
        if ops.iter().any(|op| op.id.device != self.env.device) {
            return Err(ReplicaError::ForeignOperation);
        }
        if core.contradicts_journal(&ops)? {
            return Err(ReplicaError::Cloned);
        }
        core.restore_pending(ops)?;
        Ok(core.pending.len())
    }

    /// Writes the local cache. Losing it costs time only, so this needs no care beyond "now and then".
    ///
    /// # Errors
    /// When the disk says no.
    pub fn flush(&self) -> Result<(), RowsError> {
        let _one = self.flushing.lock();
        let job = self.core.lock().begin_flush()?;
        let Some(job) = job else {
            return Ok(());
        };
        // The tree goes on meanwhile.
        let flushed = job.run();
        self.core.lock().end_flush(flushed)
    }

    /// The lane that this device writes next: segments that are sealed now bear its name.
    pub async fn own_lane(&self) -> LaneId {
        self.net.lock().await.own.id
    }

    /// The same, and what segments in it may be called.
    pub async fn own_names(&self) -> OwnNames {
        let net = self.net.lock().await;
        OwnNames {
            lane: net.own.id,
            decided_below: net.decided_below,
            are_free: net.saw_own,
        }
    }

    /// Whether blocks may still be sealed under this file key: nobody who was removed knows it.
    pub fn is_clean(&self, key: &KeyId) -> bool {
        self.env.keys().is_clean(key)
    }

    /// The id of a file key that is drawn now.
    pub fn draw_key_id(&self) -> KeyId {
        let mut id: [u8; 16] = skrin_base::clock::random(&*self.env.entropy);
        let tag = self.env.keys().current_key_tag();
        id.iter_mut().zip(tag).for_each(|(byte, tag)| *byte = tag);
        KeyId(id)
    }

    /// Why this device may publish nothing, if it may not, as far as the control records are known: reading goes on.
    pub fn barred(&self) -> Option<Barred> {
        *self.barred.lock()
    }

    /// Whether what this device thinks of checkpoints gets out.
    fn has_a_say(&self) -> bool {
        !self.env.read_only && self.barred().is_none()
    }

    /// The cuts in force, as far as the control records are known.
    fn cuts(&self) -> Cuts {
        Cuts::of(&self.env.roster.read())
    }

    /// Whether a commit lies beyond the cut of its device by its number.
    fn is_passed(&self, checked: &CheckedCommit) -> bool {
        let (head, device) = (checked.head(), checked.commit().device);
        self.cuts().are_passed(&device, &head.lane, head.seq)
    }

    /// Where the lanes of these devices end here, of each branch: what of them counts for whoever ends them now.
    pub fn cut_of(&self, devices: &[DeviceId]) -> skrin_crypto::Cut {
        self.core.lock().graph.cut_of(devices)
    }

    fn report(&self, kind: FindingKind, object: String, text: String) {
        let since = self.env.clock.now();
        let mut findings = self.findings.lock();
        findings.entry((kind, object.clone())).or_insert_with(|| {
            tracing::warn!(?kind, object, text, "finding");
            Finding {
                kind,
                object,
                text,
                since,
            }
        });
    }
}

#[cfg(test)]
mod tests;
