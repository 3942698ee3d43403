//! The folded state with what is needed to fold it otherwise: the log of commits above the floor, each with
//! what stood before it, and the operations that are not published yet, on top. Synchronous; no network.

mod changes;
mod rewind;
mod saved;

use super::fetch::Waiting;
use super::graph::{Cuts, Graph, Lane};
use super::standing::Standing;
use crate::apply::{Outcome, apply};
use crate::cache::{CachedRows, Layer};
use crate::commit::{CheckedCommit, CheckpointRef, Commit};
use crate::lane::Head;
use crate::op::Op;
use crate::order::OrderKey;
use crate::rows::{Rows, RowsError};
use crate::state;
use crate::undo::{Frame, Recorder};
use changes::Changes;
use skrin_base::wire::Writer;
use skrin_base::{DeviceId, Ino, LaneId, Name, RoomId, SegmentInfo};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub(super) use rewind::Rewind;

/// Frames of this many Lamport steps are kept even below the floor, so that the digest at a floor that another device
/// chose a little earlier can still be computed.
const KEPT_BELOW_FLOOR: u64 = 64;

/// From so many pending operations on they are taken from the state, and put back on it, in parts with writing in between.
/// Few in tests, so that random programs go that way.
const PENDING_MANY: usize = if cfg!(test) { 3 } else { 4096 };
/// So many operations are folded, or taken out to be folded again, before that is written in parts, in tests, so that random
/// programs go that way.
const TESTED_MANY: usize = 8;
/// The same for the bytes of rows between two writes.
const TESTED_RELIEF: usize = 500;

/// Inodes and names that a difference lists.
const DIFF_MAX: usize = 1 << 16;

/// About what an operation of the log takes in memory, with what stood before it.
const LOGGED_OP: usize = 1024;

/// A folded commit above the floor.
pub(super) struct Logged {
    /// The commit and what stood before it; `None` when only the database has them.
    held: Option<(CheckedCommit, Frame)>,
    dirty: bool,
    /// On its way into the database.
    saving: bool,
}

/// An operation of this device that is not published yet.
pub(super) struct Pending {
    /// The number in its id.
    pub(super) counter: u64,
    /// Bytes that it takes in a commit.
    pub(super) len: usize,
    /// The operation and what stood before it; `None` when only the database has them: a device that is offline for long has
    /// more of them than fit into memory.
    held: Option<(Arc<Op>, Frame)>,
    dirty: bool,
    /// On its way into the database.
    saving: bool,
}

/// What a merge changed in the tree, for the kernel's caches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MergeDiff {
    /// Inodes whose attributes, contents or extended attributes changed, or that came or went.
    pub inodes: BTreeSet<Ino>,
    /// Names that lead elsewhere than before, or nowhere.
    pub entries: BTreeSet<(Ino, Name)>,
    /// Everything was folded again: whatever is not listed may have changed too.
    pub everything: bool,
    /// Commits of others that were folded in.
    pub commits: usize,
}

impl MergeDiff {
    /// Takes in what changed later. Of very much, only that it is.
    pub fn extend(&mut self, later: Self) {
        self.inodes.extend(later.inodes);
        self.entries.extend(later.entries);
        self.everything |= later.everything;
        self.commits += later.commits;
        if self.inodes.len() + self.entries.len() > DIFF_MAX {
            self.inodes.clear();
            // What leads nowhere any more goes from the kernel's memory with the name of its directory; the root has none.
            self.entries.retain(|(dir, _)| *dir == Ino::ROOT);
            self.everything = true;
        }
    }

    /// Whether the tree is as it was.
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty() && self.entries.is_empty() && !self.everything
    }

    fn from_frame(frame: &Frame, rows: &dyn Rows) -> Result<Self, RowsError> {
        let mut diff = Self::default();
        for (key, before) in frame.rows() {
            if rows.get(key)? == *before {
                continue;
            }
            diff.inodes.extend(state::ino_of_key(key));
            if let Some((dir, _, name)) = state::parse_entry_key(key) {
                diff.entries.insert((dir, name));
            }
        }
        Ok(diff)
    }
}

/// Why a merge cannot be done in place.
#[derive(Debug)]
pub(super) enum MergeError {
    /// It reaches below what can be undone: the state must be folded again from a checkpoint or from nothing.
    TooDeep,
    Rows(RowsError),
}

impl From<RowsError> for MergeError {
    fn from(error: RowsError) -> Self {
        Self::Rows(error)
    }
}

/// What the local cache remembers besides rows, lanes and log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Meta {
    /// Commits before this key cannot be undone any more.
    pub(super) undoable_from: u64,
    /// The checkpoints that were proposed, and which of them stands.
    pub(super) standing: Standing,
    /// Operations and bytes of commits folded since then.
    pub(super) ops_since: u64,
    pub(super) bytes_since: u64,
    /// The cuts by which the state is folded.
    pub(super) cuts: Cuts,
}

/// The state and its history.
pub(super) struct Core {
    pub(super) room: RoomId,
    pub(super) device: DeviceId,
    pub(super) rows: CachedRows,
    pub(super) graph: Graph,
    pub(super) log: BTreeMap<OrderKey, Logged>,
    /// Operations of commits in the log that the database does not have.
    unsaved_ops: usize,
    dropped: Vec<OrderKey>,
    pub(super) pending: VecDeque<Pending>,
    unpended: Vec<u64>,
    /// Pending operations while something below them is made again.
    pub(super) parked: BTreeMap<u64, Arc<Op>>,
    /// The oldest operation of an own commit that the storage has not confirmed.
    pub(super) unconfirmed: Option<u64>,
    /// Those of them, and of the pending ones, that were published once: the journal has them no more, so the database keeps them.
    again: BTreeSet<u64>,
    pub(super) meta: Meta,
    /// How far the last complete pull came in lanes of which a later end is remembered that cannot be had.
    pub(super) reached: BTreeMap<LaneId, Head>,
    /// Counters below this belong to earlier incarnations of this device.
    pub(super) counter_base: u64,
    last_counter: u64,
    /// Segments of own commits that became void: the next commit declares them again.
    pub(super) redeclare: Vec<SegmentInfo>,
    /// The checkpoint that the newest commit in a lane of this device releases, as far as that was written in this run.
    pub(super) released: Option<(LaneId, CheckpointRef)>,
    /// Whether others closed the newest lane of this device, which holds back nothing any more.
    pub(super) was_closed: bool,
    broken: bool,
    /// Whether what is known of the lanes went on without the rows: the state must be folded again, and is not written until then.
    outdated: bool,
    /// Entries beside the rows that a failed flush did not write.
    unsaved: Layer,
    /// Since `reset`, until the first flush.
    anew: bool,
}

fn broken() -> RowsError {
    RowsError::Cache("an earlier failure left it incomplete".to_owned())
}

impl Core {
    /// A state without anything.
    pub(super) fn new(room: RoomId, device: DeviceId, rows: CachedRows) -> Self {
        Self {
            room,
            device,
            rows,
            graph: Graph::default(),
            log: BTreeMap::new(),
            unsaved_ops: 0,
            dropped: Vec::new(),
            pending: VecDeque::new(),
            unpended: Vec::new(),
            parked: BTreeMap::new(),
            unconfirmed: None,
            again: BTreeSet::new(),
            meta: Meta::default(),
            reached: BTreeMap::new(),
            counter_base: 0,
            last_counter: 0,
            redeclare: Vec::new(),
            released: None,
            was_closed: false,
            broken: false,
            outdated: false,
            unsaved: Layer::new(),
            anew: false,
        }
    }

    /// The place of a commit in the order.
    pub(super) fn key_of(&self, checked: &CheckedCommit) -> OrderKey {
        let (head, commit) = (checked.head(), checked.commit());
        OrderKey::new(self.room, head.lane, commit.lamport, head.seq, &head.hash)
    }

    pub(super) fn logged(&self, key: &OrderKey) -> Result<(CheckedCommit, Frame), RowsError> {
        if let Some(held) = self.log.get(key).and_then(|logged| logged.held.as_ref()) {
            return Ok(held.clone());
        }
        self.saved_log(key)
    }

    /// Whether a commit at `key` could still be slotted in.
    fn can_undo_to(&self, key: &OrderKey) -> bool {
        key.lamport() >= self.meta.undoable_from
    }

    pub(super) fn fold_one(rows: &mut dyn Rows, commit: &Commit) -> Result<Frame, RowsError> {
        let mut recorder = Recorder::new(rows);
        Self::fold_first(&mut recorder, commit, usize::MAX)?;
        Ok(recorder.finish())
    }

    /// Folds the first operations of a commit, with all segments that it declares.
    pub(super) fn fold_first(
        rows: &mut dyn Rows,
        commit: &Commit,
        ops: usize,
    ) -> Result<(), RowsError> {
        for segment in &commit.segments {
            state::declare_segment(rows, segment)?;
        }
        for op in commit.ops.iter().take(ops) {
            apply(rows, op)?;
        }
        Ok(())
    }

    fn push_logged(&mut self, key: OrderKey, checked: CheckedCommit, frame: Frame) {
        let logged = Logged {
            held: Some((checked, frame)),
            dirty: true,
            saving: false,
        };
        self.unsaved_ops += logged
            .held
            .as_ref()
            .map_or(0, |(c, _)| c.commit().ops.len());
        self.log.insert(key, logged);
    }

    /// About how many bytes of memory a flush would free.
    pub(super) fn unflushed(&self) -> usize {
        self.rows.unflushed() + self.unsaved_ops * LOGGED_OP
    }

    /// Folds commits in at their places, with the pending operations on top as before.
    pub(super) fn merge(
        &mut self,
        add: Vec<Waiting>,
        open: impl Fn(&Waiting) -> Result<CheckedCommit, RowsError>,
    ) -> Result<MergeDiff, MergeError> {
        let step = |waiting: Waiting| (self.key_of(waiting.outline()), Some(waiting));
        let steps = add.into_iter().map(step).collect();
        self.refold(steps, &BTreeSet::new(), open)
    }

    /// Takes out commits that became void, with the pending operations on top as before. Operations of own ones are pending again.
    pub(super) fn take_out(&mut self, void: &BTreeSet<OrderKey>) -> Result<MergeDiff, MergeError> {
        self.refold(BTreeMap::new(), void, |waiting| {
            Err(RowsError::Cache(format!("{} is new", waiting.head())))
        })
    }

    /// Goes back to before the first commit that is new or void, and folds what comes after. Of many commits one is in memory at a
    /// time. What is `None` among the steps, the log has.
    fn refold(
        &mut self,
        steps: BTreeMap<OrderKey, Option<Waiting>>,
        void: &BTreeSet<OrderKey>,
        open: impl Fn(&Waiting) -> Result<CheckedCommit, RowsError>,
    ) -> Result<MergeDiff, MergeError> {
        if self.broken {
            return Err(broken().into());
        }
        let Some(first) = steps.keys().chain(void).min().copied() else {
            return Ok(MergeDiff::default());
        };
        if !self.can_undo_to(&first) {
            return Err(MergeError::TooDeep);
        }
        self.broken = true;
        let pending = self.all_pending()?;
        let ops: Vec<Arc<Op>> = pending.iter().map(|(op, _)| Arc::clone(op)).collect();
        let done = self.refold_below(pending, (first, steps), void, open);
        match &done {
            Ok(_) => self.broken = false,
            // Nobody else has them: they go on top when the state has been folded again.
            Err(_) => self
                .parked
                .extend(ops.into_iter().map(|op| (op.id.counter, op))),
        }
        done
    }

    fn refold_below(
        &mut self,
        pending: Vec<(Arc<Op>, Frame)>,
        (first, mut steps): (OrderKey, BTreeMap<OrderKey, Option<Waiting>>),
        void: &BTreeSet<OrderKey>,
        open: impl Fn(&Waiting) -> Result<CheckedCommit, RowsError>,
    ) -> Result<MergeDiff, MergeError> {
        let commits = steps.len();
        let mut changes = Changes::default();
        self.pending.clear();
        for (_, frame) in pending.iter().rev() {
            changes.record(&mut self.rows, |rows| frame.revert(rows))?;
        }
        let mut again = self.take_back_all(void)?;
        let new = steps.values().flatten().map(Waiting::ops).sum();
        let later: Vec<OrderKey> = self.log.range(first..).map(|(key, _)| *key).collect();
        self.undo(later.iter().rev(), new, &mut changes)?;
        for key in later {
            match void.contains(&key) {
                true => self.drop_logged(key),
                false => drop(steps.entry(key).or_insert(None)),
            }
        }
        self.redo(steps, open, &mut changes)?;
        again.extend(pending.into_iter().map(|(op, _)| op));
        self.pend_again(again, &mut changes)?;
        Ok(changes.finish(&self.rows, commits)?)
    }

    /// Undoes commits of the log, the newest first; so many operations are to be folded besides.
    fn undo<'a>(
        &mut self,
        commits: impl Iterator<Item = &'a OrderKey>,
        new: usize,
        changes: &mut Changes,
    ) -> Result<(), RowsError> {
        let many = match cfg!(test) {
            true => TESTED_MANY,
            false => self.relief() / LOGGED_OP,
        };
        let mut ops = new;
        if ops >= many {
            self.begin_in_parts()?;
        }
        for key in commits {
            let (checked, frame) = self.logged(key)?;
            changes.record(&mut self.rows, |rows| frame.revert(rows))?;
            ops += checked.commit().ops.len();
            if ops >= many {
                self.begin_in_parts()?;
            }
            self.relieve()?;
        }
        Ok(())
    }

    /// Folds commits in their order.
    fn redo(
        &mut self,
        steps: BTreeMap<OrderKey, Option<Waiting>>,
        open: impl Fn(&Waiting) -> Result<CheckedCommit, RowsError>,
        changes: &mut Changes,
    ) -> Result<(), RowsError> {
        for (key, new) in steps {
            let checked = match &new {
                Some(waiting) => open(waiting)?,
                None => self.logged(&key)?.0,
            };
            let commit = checked.commit();
            let fold = |rows: &mut dyn Rows| Self::fold_one(rows, commit);
            let frame = changes.record(&mut self.rows, fold)?;
            if commit.device == self.device {
                let highest = commit.ops.iter().map(|op| op.id.counter).max();
                self.note_counter(highest.unwrap_or(0));
            }
            self.push_logged(key, checked, frame);
            self.relieve()?;
        }
        Ok(())
    }

    fn drop_logged(&mut self, key: OrderKey) {
        self.log.remove(&key);
        self.dropped.push(key);
    }

    /// What own void commits of the log said, to be said again.
    fn take_back_all(&mut self, void: &BTreeSet<OrderKey>) -> Result<Vec<Arc<Op>>, RowsError> {
        let mut again = Vec::new();
        for key in void {
            let (checked, _) = self.logged(key)?;
            again.extend(self.take_back(&checked));
        }
        Ok(again)
    }

    /// What an own void commit said, to be said again.
    fn take_back(&mut self, checked: &CheckedCommit) -> Vec<Arc<Op>> {
        let commit = checked.commit();
        if commit.device != self.device {
            return Vec::new();
        }
        for segment in &commit.segments {
            if !self.redeclare.contains(segment) {
                self.redeclare.push(segment.clone());
            }
        }
        let own = commit.ops.iter().filter(|op| op.id.device == self.device);
        let own: Vec<Arc<Op>> = own.cloned().map(Arc::new).collect();
        self.again.extend(own.iter().map(|op| op.id.counter));
        own
    }

    /// Whether a commit that is known here may hold operations that count nowhere: it is void, or only a checkpoint knows.
    pub(super) fn may_be_void(&self, head: &Head) -> bool {
        match self.graph.admitted(head) {
            Some(lamport) => {
                self.graph.is_void(head) || self.meta.standing.voids(&self.graph, head, lamport)
            }
            None => self.graph.knows(head),
        }
    }

    /// Whether all operations of a commit are folded.
    pub(super) fn is_folded(&self, checked: &CheckedCommit) -> Result<bool, RowsError> {
        for op in &checked.commit().ops {
            if !state::is_folded(&self.rows, op.id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the operations of own commits that never counted pending, as far as no other commit has them.
    pub(super) fn publish_again(&mut self, void: &[CheckedCommit]) -> Result<(), RowsError> {
        let again: Vec<Arc<Op>> = void.iter().flat_map(|c| self.take_back(c)).collect();
        if !again.is_empty() {
            self.parked
                .extend(again.into_iter().map(|op| (op.id.counter, op)));
            self.park()?;
            self.rejoin()?;
        }
        for segment in std::mem::take(&mut self.redeclare) {
            if state::segment(&self.rows, segment.id)?.is_none() {
                self.redeclare.push(segment);
            }
        }
        Ok(())
    }

    /// Puts operations on top of the state that are not folded, or with those that are set aside, which go on top in their order later.
    fn pend_again(&mut self, ops: Vec<Arc<Op>>, changes: &mut Changes) -> Result<(), RowsError> {
        let ops = self.own_in_order(ops);
        if !self.parked.is_empty() {
            self.parked.extend(ops);
            return Ok(());
        }
        let device = self.device;
        for (counter, op) in ops {
            if state::is_folded(&self.rows, op.id)? {
                self.unpended.push(counter);
                self.again.remove(&counter);
                continue;
            }
            let pend = |rows: &mut dyn Rows| Self::pend(rows, device, op);
            let (pending, _) = changes.record(&mut self.rows, pend)?;
            self.pending.push_back(pending);
        }
        Ok(())
    }

    fn own_in_order(&self, ops: impl IntoIterator<Item = Arc<Op>>) -> BTreeMap<u64, Arc<Op>> {
        let own = ops.into_iter().filter(|op| op.id.device == self.device);
        own.map(|op| (op.id.counter, op)).collect()
    }

    /// A pending operation.
    pub(super) fn op_of(&self, pending: &Pending) -> Result<Arc<Op>, RowsError> {
        match &pending.held {
            Some((op, _)) => Ok(op.clone()),
            None => Ok(self.saved_pending(pending.counter)?.0),
        }
    }

    /// What stood before a pending operation.
    fn frame_of<'a>(&self, pending: &'a Pending) -> Result<Cow<'a, Frame>, RowsError> {
        match &pending.held {
            Some((_, frame)) => Ok(Cow::Borrowed(frame)),
            None => Ok(Cow::Owned(self.saved_pending(pending.counter)?.1)),
        }
    }

    fn all_pending(&self) -> Result<Vec<(Arc<Op>, Frame)>, RowsError> {
        let held = |pending: &Pending| match &pending.held {
            Some(held) => Ok(held.clone()),
            None => self.saved_pending(pending.counter),
        };
        self.pending.iter().map(held).collect()
    }

    /// How many pending operations are in memory.
    #[cfg(test)]
    pub(super) fn held_pending(&self) -> usize {
        self.pending.iter().filter(|p| p.held.is_some()).count()
    }

    /// Whether so many operations are pending that they are better parked before something is folded in below them.
    pub(super) fn has_many_pending(&self) -> bool {
        self.pending.len() >= PENDING_MANY
    }

    /// Takes the pending operations from the state, the newest first, and sets them aside until `rejoin`. At each step the state is a
    /// good one, with fewer operations: it may be written in between, and a crash finds the others in the journal.
    pub(super) fn park(&mut self) -> Result<(), RowsError> {
        while let Some(last) = self.pending.pop_back() {
            let (op, frame) = match last.held {
                Some(held) => held,
                None => self.saved_pending(last.counter)?,
            };
            self.parked.insert(last.counter, op);
            self.unpend(last.counter, &frame)?;
        }
        Ok(())
    }

    /// The same with what an earlier run left in the database; most operations come back from the journal, which may have fewer of them
    /// after a crash.
    pub(super) fn drop_saved_pending(&mut self, counters: Vec<u64>) -> Result<(), RowsError> {
        for counter in counters.into_iter().rev() {
            let (op, frame, again) = self.saved(counter)?;
            if again {
                self.parked.insert(counter, op);
                self.again.insert(counter);
            }
            self.unpend(counter, &frame)?;
        }
        Ok(())
    }

    fn unpend(&mut self, counter: u64, frame: &Frame) -> Result<(), RowsError> {
        frame.revert(&mut self.rows)?;
        self.unpended.push(counter);
        self.relieve_pending()
    }

    /// Writes the state, and with it the operations that are held in memory, before it takes too much of that.
    fn relieve_pending(&mut self) -> Result<(), RowsError> {
        let relief = if cfg!(test) {
            TESTED_RELIEF
        } else {
            self.relief()
        };
        let much = self.rows.unflushed() >= relief;
        match much && !self.rows.is_flushing() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Whether an own commit says something else under the id of an operation that is pending here: another copy of
    /// this device's state has given the same id to another operation.
    pub(super) fn contradicts_pending(&self, checked: &CheckedCommit) -> Result<bool, RowsError> {
        let commit = checked.commit();
        if commit.device != self.device {
            return Ok(false);
        }
        for op in commit.ops.iter().filter(|op| op.id.device == self.device) {
            let counter = op.id.counter;
            let parked = self.parked.get(&counter);
            let at = self.pending.partition_point(|p| p.counter < counter);
            let same_id = self.pending.get(at).filter(|p| p.counter == counter);
            let known = match (parked, same_id) {
                (Some(parked), _) => parked.clone(),
                (None, Some(pending)) => self.op_of(pending)?,
                (None, None) => continue,
            };
            if *known != *op {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the journal and the commits of this device, as far as they can be undone, say different things under
    /// one id.
    pub(super) fn contradicts_journal(&self, journal: &[Op]) -> Result<bool, RowsError> {
        let mut folded = BTreeMap::new();
        for op in journal {
            if state::is_folded(&self.rows, op.id)? {
                folded.insert(op.id, op);
            }
        }
        if folded.is_empty() {
            return Ok(false);
        }
        for key in self.log.keys() {
            let (checked, _) = self.logged(key)?;
            let mut ops = checked.commit().ops.iter();
            if ops.any(|op| {
                folded
                    .get(&op.id)
                    .is_some_and(|journaled| **journaled != *op)
            }) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn pend(
        rows: &mut dyn Rows,
        device: DeviceId,
        op: Arc<Op>,
    ) -> Result<(Pending, Outcome), RowsError> {
        let mut w = Writer::default();
        op.encode_in_commit(device, &mut w);
        let mut recorder = Recorder::new(rows);
        let outcome = apply(&mut recorder, &op)?;
        let frame = recorder.finish();
        let pending = Pending {
            counter: op.id.counter,
            len: w.len(),
            held: Some((op, frame)),
            dirty: true,
            saving: false,
        };
        Ok((pending, outcome))
    }

    /// Applies a new operation of this device.
    pub(super) fn execute(&mut self, op: Op) -> Result<Outcome, RowsError> {
        if self.broken {
            return Err(broken());
        }
        self.broken = true;
        self.last_counter = self.last_counter.max(op.id.counter);
        let op = Arc::new(op);
        match Self::pend(&mut self.rows, self.device, Arc::clone(&op)) {
            Ok((pending, outcome)) => {
                self.pending.push_back(pending);
                self.broken = false;
                Ok(outcome)
            }
            Err(error) => {
                // The journal has it: it comes back when the state has been folded again.
                self.parked.insert(op.id.counter, op);
                Err(error)
            }
        }
    }

    /// Applies the operations of the journal that are not folded yet.
    pub(super) fn restore_pending(&mut self, ops: Vec<Op>) -> Result<(), RowsError> {
        if self.broken {
            return Err(broken());
        }
        let highest = ops.iter().map(|op| op.id.counter).max();
        self.last_counter = self.last_counter.max(highest.unwrap_or(0));
        self.park()?;
        let ops = self.own_in_order(ops.into_iter().map(Arc::new));
        self.parked.extend(ops);
        self.rejoin()
    }

    /// A counter that no operation of this device has had; an error where `execute` would refuse it.
    pub(super) fn next_counter(&mut self) -> Result<u64, RowsError> {
        if self.broken {
            return Err(broken());
        }
        let folded = state::last_counter(&self.rows, self.device)?;
        let last = folded.max(self.last_counter).max(self.counter_base);
        self.last_counter = last.saturating_add(1);
        Ok(self.last_counter)
    }

    /// Remembers that counters up to this one were used.
    pub(super) fn note_counter(&mut self, counter: u64) {
        self.last_counter = self.last_counter.max(counter);
    }

    /// The highest counter that was given out or seen.
    pub(super) fn last_counter(&self) -> u64 {
        self.last_counter
    }

    /// Turns the first `count` pending operations into the newest commit of the order. The state stays as it is: they
    /// are already applied on top of everything else, and nothing that `apply` does touches declared segments.
    pub(super) fn stamp(&mut self, checked: CheckedCommit, count: usize) -> Result<(), RowsError> {
        let mut recorder = Recorder::new(&mut self.rows);
        for segment in &checked.commit().segments {
            state::declare_segment(&mut recorder, segment)?;
        }
        let mut frame = recorder.finish();
        let count = count.min(self.pending.len());
        for published in self.pending.iter().take(count) {
            frame.absorb(self.frame_of(published)?.into_owned());
        }
        let first = self.pending.front().filter(|_| count > 0);
        self.unconfirmed = first.map(|first| first.counter);
        for published in self.pending.drain(..count) {
            self.again.remove(&published.counter);
            self.unpended.push(published.counter);
        }
        let key = self.key_of(&checked);
        let declared = checked.commit().segments.clone();
        debug_assert!(
            self.log
                .last_key_value()
                .is_none_or(|(last, _)| *last < key)
        );
        self.push_logged(key, checked, frame);
        self.redeclare.retain(|segment| !declared.contains(segment));
        Ok(())
    }

    /// Forgets how to undo what lies well below the floor.
    pub(super) fn trim(&mut self) {
        let floor = self.graph.floor();
        let keep_from = floor
            .min(self.graph.latest().saturating_sub(KEPT_BELOW_FLOOR))
            .saturating_add(1);
        if keep_from <= self.meta.undoable_from {
            return;
        }
        self.meta.undoable_from = keep_from;
        let kept = self.log.split_off(&OrderKey::after(keep_from - 1));
        let gone = std::mem::replace(&mut self.log, kept);
        self.dropped.extend(gone.into_keys());
    }

    /// The places in the log of commits that fit.
    pub(super) fn find_logged(
        &self,
        up_to: Option<u64>,
        mut fits: impl FnMut(&CheckedCommit) -> bool,
    ) -> Result<BTreeSet<OrderKey>, RowsError> {
        let mut found = BTreeSet::new();
        for key in self.log.keys() {
            if up_to.is_some_and(|up_to| key.lamport() > up_to) {
                break;
            }
            if fits(&self.logged(key)?.0) {
                found.insert(*key);
            }
        }
        Ok(found)
    }

    /// Whether a known commit counts for nothing: it comes after the end of its lane, has a false time, or lies below the
    /// floor of a checkpoint that does not hold it.
    pub(super) fn is_void(&self, checked: &CheckedCommit) -> bool {
        let (head, lamport) = (checked.head(), checked.commit().lamport);
        self.graph.is_void(head) || self.meta.standing.voids(&self.graph, head, lamport)
    }

    /// Whether it lies below the floor of a checkpoint that does not hold it.
    pub(super) fn is_below(&self, head: &Head, lamport: u64) -> bool {
        self.meta.standing.voids(&self.graph, head, lamport)
    }

    /// Begins again with nothing. Pending operations are set aside until `rejoin` puts them back on top.
    ///
    /// # Errors
    /// When operations that only the database has cannot be read; nothing was done then.
    pub(super) fn reset(&mut self) -> Result<(), RowsError> {
        let ops = self.pending.iter().map(|pending| self.op_of(pending));
        let ops: Vec<Arc<Op>> = ops.collect::<Result<_, _>>()?;
        self.pending.clear();
        self.parked
            .extend(ops.into_iter().map(|op| (op.id.counter, op)));
        self.rows.clear();
        self.graph = Graph::default();
        self.log.clear();
        self.dropped.clear();
        self.unpended.clear();
        self.unsaved.clear();
        self.meta = Meta {
            standing: self.meta.standing.without_proposals(),
            ..Meta::default()
        };
        self.broken = true;
        self.outdated = false;
        self.anew = true;
        Ok(())
    }

    /// Lets no word of a commit count that lies beyond a cut, and every other.
    pub(super) fn settle_cuts(&mut self) {
        self.meta.standing.settle_cuts(&self.graph);
    }

    /// Judges by other cuts from now on.
    pub(super) fn set_cuts(&mut self, cuts: Cuts) {
        self.graph.set_cuts(cuts.clone());
        self.meta.cuts = cuts;
    }

    /// While the state is made anew, writes rows and log before they take too much memory. What is in the database is not a
    /// state then, and does not say that it is one until `flush`: a crash begins anew.
    pub(super) fn relieve(&mut self) -> Result<(), RowsError> {
        if !self.anew || self.unflushed() < self.relief() || self.rows.is_flushing() {
            return Ok(());
        }
        self.write_part()
    }

    /// Rows are written whenever this many bytes came together while a state is made anew.
    fn relief(&self) -> usize {
        self.rows.budget() / 2
    }

    /// Whether what is in the database is no state, until it is written whole.
    pub(super) fn is_anew(&self) -> bool {
        self.anew
    }

    /// Before so much is folded in that it must be written in parts: until the next flush, a crash makes the state anew.
    pub(super) fn begin_in_parts(&mut self) -> Result<(), RowsError> {
        match self.rows.is_persistent() && !self.anew {
            true => {
                self.anew = true;
                self.write_part()
            }
            false => Ok(()),
        }
    }

    /// Applies the operations that were set aside.
    pub(super) fn rejoin(&mut self) -> Result<(), RowsError> {
        self.broken = false;
        let result = self.rejoin_all();
        self.broken = result.is_err();
        result
    }

    fn rejoin_all(&mut self) -> Result<(), RowsError> {
        while let Some((counter, op)) = self.parked.first_key_value() {
            let (counter, op) = (*counter, op.clone());
            if state::is_folded(&self.rows, op.id)? {
                self.unpended.push(counter);
                self.again.remove(&counter);
            } else {
                let (pending, _) = Self::pend(&mut self.rows, self.device, op)?;
                self.pending.push_back(pending);
            }
            self.parked.remove(&counter);
            self.relieve_pending()?;
        }
        Ok(())
    }

    /// The newest lane of this device, if it is open.
    pub(super) fn own_open_lane(&self) -> Option<(LaneId, &Lane)> {
        let newest = self.own_newest_lane();
        newest.filter(|(_, lane)| self.graph.is_open(lane))
    }

    /// The last lane in which this device published something, open or not.
    pub(super) fn own_newest_lane(&self) -> Option<(LaneId, &Lane)> {
        let lanes = self.graph.lanes.iter();
        let own = lanes.filter(|(_, lane)| lane.device == self.device);
        let newest = own.max_by_key(|(_, lane)| lane.incarnation);
        newest.map(|(id, lane)| (*id, lane))
    }

    /// Whether others took this device for gone, so that what it has open holds back nothing.
    pub(super) fn is_given_up(&self) -> bool {
        self.was_closed && self.own_open_lane().is_none()
    }

    /// Whether others have published operations that the open lane of this device does not name yet.
    pub(super) fn holds_floor(&self) -> bool {
        let own = self.own_open_lane();
        own.is_some_and(|(id, lane)| self.graph.is_behind(id, lane))
    }

    /// Whether nothing waits to be published that was made up to this counter, after the first operations.
    pub(super) fn is_published_up_to(&self, counter: u64, first: usize) -> bool {
        let next = self.pending.get(first);
        self.parked.is_empty() && next.is_none_or(|pending| pending.counter > counter)
    }

    /// Whether the state must be folded again: a failure left it incomplete, or it could not be done yet.
    pub(super) fn must_be_folded_again(&self) -> bool {
        self.broken || self.outdated
    }

    /// Notes that the rows do not go with what is known of the lanes.
    pub(super) fn outdate(&mut self) {
        self.outdated = true;
    }

    /// Whether nothing can be done with the rows.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Notes such a failure.
    pub(super) fn fail(&mut self) {
        self.broken = true;
    }

    /// Lets `merge` work on what a `reset` left empty.
    pub(super) fn begin(&mut self) {
        self.broken = false;
    }
}
