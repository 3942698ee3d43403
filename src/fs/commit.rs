//! The only way in which the tree changes: checked, journalled and executed under one lock, so that the order of the journal is the order
//! in which things happened, and a crash leaves a prefix of it.

use crate::core::Fs;
use crate::error::FsError;
use crate::publish::Waiting;
use parking_lot::Mutex;
use skrin_base::limits::{COMMIT_OPS_MAX, COMMIT_TARGET, LABEL_MAX};
use skrin_base::wire::Encode;
use skrin_base::{Content, Extent, OpId, SegmentId};
use skrin_data::{DataError, Lsn};
use skrin_meta::replica::{TreeGuard, holds_tree};
use skrin_meta::{Body, Op, OpKind, Outcome, state};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long what finds no room waits for older changes to be published, and how often it looks.
const ROOM_PATIENCE: Duration = Duration::from_secs(20);
const ROOM_LOOK: Duration = Duration::from_millis(20);

#[derive(Default)]
struct State {
    last: u64,
    lsn: Option<Lsn>,
    /// Since when something waits to be published, on the monotonic clock.
    since: Option<u64>,
}

/// How far the journal has come.
#[derive(Default)]
pub(crate) struct Committed(Mutex<State>);

impl Committed {
    fn push(&self, counter: u64, lsn: Lsn, now: u64) {
        let mut state = self.0.lock();
        state.last = counter;
        state.lsn = Some(lsn);
        state.since.get_or_insert(now);
    }

    /// The number of the last operation, and where the journal has it.
    pub(crate) fn last(&self) -> (u64, Option<Lsn>) {
        let state = self.0.lock();
        (state.last, state.lsn)
    }

    /// Since when something waits to be published; `None` if that is not known, as for what was replayed.
    pub(crate) fn since(&self) -> Option<u64> {
        self.0.lock().since
    }

    /// Something was published; what is left waits since `since`.
    pub(crate) fn published(&self, since: Option<u64>) {
        self.0.lock().since = since;
    }
}

/// What is to be published next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// The last operation of it.
    pub(crate) upto: u64,
    /// How many operations.
    pub(crate) count: usize,
    /// Segments that they name, each once.
    pub(crate) segments: Vec<SegmentId>,
}

impl Batch {
    /// The oldest operations that are not published and come before `limit`, about as many as one commit takes.
    pub(crate) fn next(tree: &TreeGuard<'_>, limit: u64) -> Result<Option<Self>, FsError> {
        let mut batch = Self::default();
        let mut extents = 0;
        for op in tree.pending().take(COMMIT_OPS_MAX) {
            let op = op?;
            if op.id.counter >= limit {
                break;
            }
            let (weight, segments) = weigh(&op.kind);
            if batch.count > 0 && extents + weight > COMMIT_TARGET {
                break;
            }
            extents += weight;
            batch.count += 1;
            batch.upto = op.id.counter;
            batch.segments.extend(segments);
        }
        batch.segments.sort_unstable();
        batch.segments.dedup();
        Ok((batch.count > 0).then_some(batch))
    }
}

/// About how many bytes an operation takes in a commit, and the segments that it names.
pub(crate) fn weigh(kind: &OpKind) -> (usize, Vec<SegmentId>) {
    const SMALL: usize = 128;
    match kind {
        OpKind::Write {
            body: Body::Extents { list, .. },
            ..
        } => (SMALL + 61 * list.len(), segments_of(list)),
        OpKind::Write {
            body: Body::Inline(bytes),
            ..
        } => (SMALL + bytes.len(), Vec::new()),
        OpKind::SetXattr { value, .. } => (SMALL + value.len(), Vec::new()),
        OpKind::Relocate { host, runs, .. } => (SMALL + 12 * runs.len(), vec![*host]),
        _ => (SMALL, Vec::new()),
    }
}

fn segments_of(list: &[Extent]) -> Vec<SegmentId> {
    let stored = list.iter().filter_map(|e| match e.content {
        Content::Stored(s) => Some(s.segment),
        Content::Hole | Content::Lost => None,
    });
    let mut segments: Vec<_> = stored.collect();
    segments.dedup();
    segments
}

impl Fs {
    /// Checks and makes one change: `plan` sees the tree, under its lock, and says what is to happen, naming what it saw.
    ///
    /// # Errors
    /// Those of `plan`, of the journal (nothing happened then), and of the local cache.
    pub(crate) fn commit(
        &self,
        plan: impl FnOnce(&TreeGuard<'_>) -> Result<OpKind, FsError>,
    ) -> Result<OpId, FsError> {
        let mut tree = self.replica.tree();
        let kind = plan(&tree)?;
        self.execute(&mut tree, kind)
    }

    /// Refuses what would make too many operations wait. What is told of open files, and what may make room, goes on a little longer.
    fn check_pending(&self, tree: &TreeGuard<'_>, kind: &OpKind) -> Result<(), FsError> {
        let (count, max) = (tree.pending_count(), self.options.pending_max);
        let extra = match kind {
            OpKind::Write { .. } | OpKind::Remove { .. } | OpKind::Rename { .. } => max / 16,
            _ => 0,
        };
        match count < max + extra {
            true => Ok(()),
            false => Err(FsError::Crowded(count)),
        }
    }

    /// Whether so much waits for the storage that something new may have to wait for room: more changes than fit into memory, or a journal
    /// that has come to what is set aside for operations.
    pub fn is_crowded(&self) -> bool {
        let crowded = self.replica.tree().pending_count() >= self.options.pending_max;
        crowded || self.journal.allocated() > self.journal.limit()
    }

    /// Waits, holding no lock, until something new may be made: while publishing goes on there will be room soon.
    ///
    /// # Errors
    /// `Crowded`: the storage does not take anything now.
    pub(crate) fn await_room(&self) -> Result<(), FsError> {
        let soon =
            |e: &FsError| matches!(e, FsError::Crowded(_)) && self.publisher.error().is_none();
        self.retrying(soon, || {
            let count = self.replica.tree().pending_count();
            match count < self.options.pending_max {
                true => Ok(()),
                false => Err(FsError::Crowded(count)),
            }
        })
    }

    /// Does what may find no room in the journal, and while there may be some soon does it again. Nothing is locked meanwhile: room is made by
    /// others, who need the tree, and who asks for a file needs its lock. So the caller holds nothing, and `act` has let go of everything when it
    /// returns; where it found no room it goes on the next time, or begins anew without doing anything twice.
    ///
    /// # Errors
    /// Those of `act`.
    pub(crate) fn awaiting_room<T>(
        &self,
        act: impl FnMut() -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        // Also while the storage does not answer, which may be for a moment: what the kernel writes back and is refused is lost to a program
        // that does not ask.
        let full = |e: &FsError| matches!(e, FsError::Data(DataError::Full { .. }));
        self.retrying(full, act)
    }

    /// Nobody makes room; or this is one of the threads that do, and comes again by itself.
    fn nobody_else_works(&self) -> bool {
        let own = std::thread::current().id();
        let threads = self.threads.lock();
        threads.is_empty() || threads.iter().any(|t| t.thread().id() == own)
    }

    /// As long as `soon` says so of its error, somebody publishes, and it is not for too long: for one attempt where the storage takes nothing.
    fn retrying<T>(
        &self,
        soon: impl Fn(&FsError) -> bool,
        mut act: impl FnMut() -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        let mut waits = None;
        loop {
            debug_assert!(!holds_tree(), "waiting for room with the tree");
            let refused = match act() {
                Err(refused) if soon(&refused) => refused,
                done => return done,
            };
            let (begun, attempts, _) = waits.get_or_insert_with(|| {
                let attempts = self.publisher.attempts();
                (Instant::now(), attempts, Waiting::new(&self.waiting))
            });
            let stuck = self.nobody_else_works() || self.publisher.is_in_vain(*attempts);
            if stuck || begun.elapsed() >= ROOM_PATIENCE {
                return Err(refused);
            }
            std::thread::sleep(ROOM_LOOK);
        }
    }

    /// Journals and executes one operation under the tree's lock; its id. Waits for no room, which nobody can make meanwhile.
    ///
    /// # Errors
    /// Those of the journal (nothing happened then), and of the local cache.
    pub(crate) fn execute(&self, tree: &mut TreeGuard<'_>, kind: OpKind) -> Result<OpId, FsError> {
        self.execute_settling(tree, kind, None)
    }

    /// As `execute`; with the operation the journal forgets edits that it names.
    ///
    /// # Errors
    /// As `execute`.
    pub(crate) fn execute_settling(
        &self,
        tree: &mut TreeGuard<'_>,
        kind: OpKind,
        settles: Option<u64>,
    ) -> Result<OpId, FsError> {
        self.check_keeps_changes()?;
        self.check_pending(tree, &kind)?;
        self.tell_label(tree)?;
        self.append(tree, kind, settles)
    }

    /// Before the first change, what people call this device: the names of conflict copies say it.
    fn tell_label(&self, tree: &mut TreeGuard<'_>) -> Result<(), FsError> {
        if !self.options.label || self.labelled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let device = tree.device();
        let label = self.replica.device_label(&device);
        let said = state::label(tree, device)?;
        let is_label = (1..=LABEL_MAX).contains(&label.len()) && !label.contains(char::is_control);
        // A device that no record names has its id for a label.
        if is_label && label != device.to_string() && said.as_ref() != Some(&label) {
            self.append(tree, OpKind::Label { label }, None)?;
        }
        self.labelled.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn append(
        &self,
        tree: &mut TreeGuard<'_>,
        kind: OpKind,
        settles: Option<u64>,
    ) -> Result<OpId, FsError> {
        let id = tree.next_op_id()?;
        let op = Op {
            id,
            time: self.now(),
            kind,
        };
        let lsn = self
            .journal
            .append_op(id.counter, &op.to_bytes(), settles)?;
        let outcome = tree.execute(op)?;
        self.committed.push(id.counter, lsn, self.clock.monotonic());
        match outcome {
            // The checks above and the rules below disagree: a bug, and better said than hidden.
            Outcome::Void(reason) => tracing::error!(
                reason,
                counter = id.counter,
                "a change that was checked had no effect"
            ),
            Outcome::ConflictCopy { dir, name } => self.tell_names([(dir, name)]),
            Outcome::Applied | Outcome::Duplicate => {}
        }
        Ok(id)
    }
}
