//! Which segments nobody needs any more, and what holds back the others. The rules are those of docs/format/segments.md, section 6;
//! why they are enough is in docs/adr/0015.

use super::Replica;
use super::admission::Admission;
use super::core::Core;
use super::error::{FindingKind, ReplicaError};
use super::graph::{Graph, Lane};
use super::history::History;
use super::standing::Candidate;
use crate::checkpoint::DigestOfRows;
use crate::commit::{CheckedCommit, CheckpointRef, Commit, Opinion};
use crate::heads::date;
use crate::op::{Body, OpKind};
use crate::rows::{MemoryRows, RowsError};
use crate::state;
use crate::usage::{Located, Usage};
use skrin_base::limits::BLOCK_LEN;
use skrin_base::{Copies, DeviceId, Hash32, LaneId, SegmentId, SegmentInfo, Timestamp};
use skrin_crypto::SEAL_OVERHEAD;
use skrin_storage::disk::blocking;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use tokio::runtime::Handle;

/// What decides how much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub struct GarbageRules {
    /// This device's clock.
    pub now: Timestamp,
    /// Every state of so many nanoseconds stays readable; `None` is for ever.
    pub retention: Option<u64>,
    /// What was said within so many nanoseconds before `now` does not prove that this time has come: a clock may have jumped.
    pub unproven: u64,
    /// So many nanoseconds after the end of its last lane, nobody waits any more for a device.
    pub away: u64,
}

/// What keeps dead segments on the storage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hold {
    /// Everything is kept for ever.
    Forever,
    /// Something is wrong that must be understood first.
    Problem(String),
    /// There are not two checkpoints yet.
    NoCheckpoint,
    /// Whatever is deleted now would take something from the time that is to be kept.
    Young {
        /// The oldest checkpoint that could serve is as young as this.
        newest: Timestamp,
    },
    /// A device may still publish what names old contents.
    Device {
        /// Which.
        device: DeviceId,
        /// What people call it.
        label: String,
        /// When it was heard of last, by its own clock.
        since: Timestamp,
        /// Whether it is mounted, or was not unmounted properly.
        open: bool,
    },
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("everything that ever was is kept; see `skrin retention`"),
            Self::Problem(text) => write!(f, "nothing is deleted while something is wrong: {text}"),
            Self::NoCheckpoint => f.write_str("too little has happened since the vault was made"),
            Self::Young { newest } => write!(
                f,
                "what could be deleted is still kept as history: changes up to {} would be lost with it",
                date(*newest)
            ),
            Self::Device {
                label, since, open, ..
            } => {
                write!(
                    f,
                    "{label} has not confirmed that it needs nothing of it; it was heard of last on {}",
                    date(*since)
                )?;
                match open {
                    true => f.write_str("; it does so when it is mounted and reaches the storage"),
                    false => f.write_str("; it is waited for until it has been away for long"),
                }
            }
        }
    }
}

/// What the device that collects needs itself, whatever others say.
#[derive(Clone, Debug, Default)]
pub struct Needed {
    /// Blocks, wherever they lie: those of open files.
    pub blocks: Usage,
    /// Objects as such: those that its journal and its pending operations name.
    pub objects: BTreeSet<SegmentId>,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Garbage {
    /// The checkpoint below which nobody looks any more.
    pub base: Option<CheckpointRef>,
    /// Segments that nobody needs, in the order of their ids. Those that were deleted before are among them.
    pub dead: Vec<SegmentInfo>,
    /// Of those of `dead` that held something which is needed and was relocated: the segments for which that was sealed. Before the one is
    /// deleted, the needed blocks of the others are read where they lie now.
    pub vacated: BTreeMap<SegmentId, BTreeSet<SegmentId>>,
    /// Where the needed blocks of these lie that were relocated.
    pub relocated: BTreeMap<SegmentId, Vec<Located>>,
    /// Segments that little is needed of, the emptiest first.
    pub sparse: Vec<Sparse>,
    /// Numbers of this device's lanes that were given up: if an upload reached the storage before a crash, no commit says so.
    pub given_up: Vec<SegmentId>,
    /// What keeps the rest.
    pub holds: Vec<Hold>,
}

/// A segment of which less than half is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sparse {
    /// Which.
    pub info: SegmentInfo,
    /// The needed blocks that lie in it; of one segment after the other, ascending.
    pub needed: Vec<Located>,
    /// About how many bytes they are.
    pub bytes: u64,
}

/// Whether a copy of its table fits into a slot.
fn has_small_table(info: &SegmentInfo) -> bool {
    info.object_len.saturating_sub(info.table_offset) <= (BLOCK_LEN + SEAL_OVERHEAD) as u64
}

impl Sparse {
    /// About how many bytes less there would be without it.
    pub fn gain(&self) -> u64 {
        self.info.object_len.saturating_sub(self.bytes)
    }

    /// Where the needed blocks are less than half of an object. Nobody knows their lengths without its table: they are as long as blocks
    /// can be, or as those of the segment are on the average.
    fn of(info: &SegmentInfo, needed: &[Located]) -> Option<Self> {
        let count: u64 = needed.iter().map(|l| u64::from(l.run.count)).sum();
        let part = info.object_len.saturating_mul(count) / u64::from(info.slots.max(1));
        let bytes = part.min(count.saturating_mul(BLOCK_LEN as u64));
        let sparse = bytes.saturating_mul(2) < info.object_len && has_small_table(info);
        sparse.then(|| Self {
            info: info.clone(),
            needed: needed.to_vec(),
            bytes,
        })
    }
}

impl Replica {
    /// Finds the segments that nobody needs any more, and those of which little is needed. `keep` is what this device needs. Pull first;
    /// `history` is what the storage has.
    ///
    /// # Errors
    /// `Ending`; else none in practice, as rows in memory do not fail.
    pub async fn garbage(
        self: &Arc<Self>,
        history: History,
        keep: Needed,
        rules: GarbageRules,
    ) -> Result<Garbage, ReplicaError> {
        let replica = Arc::clone(self);
        let finding = blocking(&Handle::current(), move || {
            replica.find_garbage(&history, &keep, &rules)
        });
        finding.await.map_err(|_| ReplicaError::Ending)?
    }

    pub(super) fn find_garbage(
        &self,
        history: &History,
        keep: &Needed,
        rules: &GarbageRules,
    ) -> Result<Garbage, ReplicaError> {
        let mut problems: Vec<String> = history
            .problems()
            .map(|problem| format!("{}: {}", problem.object, problem.text))
            .collect();
        problems.extend(self.alarms());
        if !problems.is_empty() {
            let holds = problems.into_iter().map(Hold::Problem).collect();
            return Ok(Garbage {
                holds,
                ..Garbage::default()
            });
        }
        let all = history.admission();
        let survey = Survey::new(self, &all, rules);
        let mut garbage = Garbage {
            given_up: self.given_up(&all, &keep.objects),
            ..Garbage::default()
        };
        match survey.choose() {
            Err(holds) => garbage.holds = holds,
            Ok((base, holds)) => match survey.below(history, base, keep)? {
                Err(problem) => garbage.holds = vec![Hold::Problem(problem)],
                Ok(below) => {
                    garbage.base = Some(base.reference);
                    garbage.holds = holds;
                    below.find_dead(&survey, &keep.objects, &mut garbage);
                    below.find_sparse(self, &keep.objects, &mut garbage)?;
                }
            },
        }
        Ok(garbage)
    }

    /// The names of those segments of own lanes that the lanes call decided and that no commit declares, whether it counts or not.
    fn given_up(&self, all: &Admission, keep: &BTreeSet<SegmentId>) -> Vec<SegmentId> {
        let mut declared: BTreeSet<SegmentId> = BTreeSet::new();
        let mut below: BTreeMap<LaneId, u64> = BTreeMap::new();
        for checked in all.admitted.values() {
            let commit = checked.commit();
            declared.extend(commit.segments.iter().map(|info| info.id));
            if commit.device == self.env.device {
                let lane = below.entry(commit.lane).or_default();
                *lane = (*lane).max(commit.decided.below);
            }
        }
        let again = self.core.lock().redeclare.clone();
        declared.extend(again.iter().map(|info| info.id));
        let keys = self.env.keys();
        let numbers = below
            .into_iter()
            .flat_map(|(lane, below)| (0..below).map(move |number| (lane, number)));
        let ids = numbers.map(|(lane, number)| keys.segment_id(lane, number));
        ids.filter(|id| !declared.contains(id) && !keep.contains(id))
            .collect()
    }

    /// The segments that the tree as it is published does not need, and those of which it needs little: what collecting can gain at most.
    /// Needs no network.
    ///
    /// # Errors
    /// When the cache fails.
    pub fn unneeded(&self) -> Result<(Vec<SegmentInfo>, Vec<Sparse>), RowsError> {
        let snapshot = {
            let core = self.core.lock();
            core.snapshot_at(core.graph.latest())?
        };
        let Some(snapshot) = snapshot else {
            return Ok(<_>::default());
        };
        let (mut declared, mut usage) = (Vec::new(), Usage::default());
        snapshot.for_each(|key, row| {
            declared.extend(state::segment_row(&key, &row)?);
            usage.row(&key, &row)
        })?;
        let needed = usage.by_object();
        let sparse = declared.iter().filter_map(|info: &SegmentInfo| {
            let needed = needed.get(&info.id)?;
            Sparse::of(info, needed)
        });
        let sparse = sparse.collect();
        declared.retain(|info| !needed.contains_key(&info.id));
        Ok((declared, sparse))
    }

    /// Where blocks of a segment lie besides, by the tree.
    pub fn copies(&self, id: SegmentId) -> Option<Copies> {
        let found = state::copies(&self.tree(), id);
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, segment = %id, "relocations cannot be looked up");
            None
        })
    }

    /// What this device has noticed that must not be so.
    fn alarms(&self) -> Vec<String> {
        let alarming = |kind: FindingKind| {
            matches!(
                kind,
                FindingKind::Withheld
                    | FindingKind::Integrity
                    | FindingKind::Rollback
                    | FindingKind::Cloned
                    | FindingKind::Unknown
                    | FindingKind::Newer
                    | FindingKind::Digest
            )
        };
        let findings = self.findings.lock();
        let alarms = findings.values().filter(|f| alarming(f.kind));
        alarms
            .map(|f| format!("{}: {}", f.object, f.text))
            .collect()
    }
}

struct Survey<'a> {
    replica: &'a Replica,
    all: &'a Admission,
    rules: &'a GarbageRules,
    /// The checkpoints that stand, the oldest first.
    chain: Vec<&'a Candidate>,
    /// By when each commit was surely made: never before what it follows.
    times: HashMap<Hash32, i64>,
    /// The last checkpoint of the chain that commits of a lane release.
    released: BTreeMap<LaneId, usize>,
}

impl<'a> Survey<'a> {
    fn new(replica: &'a Replica, all: &'a Admission, rules: &'a GarbageRules) -> Self {
        let chain: Vec<&Candidate> = all.standing.chain().collect();
        let places: BTreeMap<CheckpointRef, usize> = chain
            .iter()
            .enumerate()
            .map(|(at, c)| (c.reference, at))
            .collect();
        let mut released: BTreeMap<LaneId, usize> = BTreeMap::new();
        for checked in all.admitted.values() {
            for reference in releases(checked) {
                if let Some(at) = places.get(&reference)
                    && !all.graph.is_mistimed(checked.head())
                    && !all.graph.is_cut_off(checked.head())
                {
                    let last = released.entry(checked.head().lane).or_insert(*at);
                    *last = (*last).max(*at);
                }
            }
        }
        Self {
            times: times(all, rules.now),
            replica,
            all,
            rules,
            chain,
            released,
        }
    }

    /// The newest checkpoint that another one follows, that all have released and that is old enough; and what kept newer ones from
    /// serving. Or only the latter.
    fn choose(&self) -> Result<(&'a Candidate, Vec<Hold>), Vec<Hold>> {
        let Some(retention) = self.rules.retention else {
            return Err(vec![Hold::Forever]);
        };
        let retention = i64::try_from(retention).unwrap_or(i64::MAX);
        let said = self.all.admitted.values().map(|c| c.commit().time.0);
        // A clock that is ahead, here or elsewhere, makes nothing older than it is. This device has just said what its clock shows.
        let unproven = i64::try_from(self.rules.unproven).unwrap_or(i64::MAX);
        let reached = self.rules.now.0.saturating_sub(unproven);
        let newest = said.filter(|said| *said <= reached).max();
        let newest = newest.unwrap_or(i64::MIN);
        let until = newest.saturating_sub(retention);
        let mut holds = Vec::new();
        for at in (0..self.chain.len().saturating_sub(1)).rev() {
            let Some(base) = self.chain.get(at).copied() else {
                continue;
            };
            let time = self.newest_below(base);
            if time > until {
                // Only of the oldest one it matters: the others are too young all the more.
                holds.retain(|hold| !matches!(hold, Hold::Young { .. }));
                holds.push(Hold::Young {
                    newest: Timestamp(time),
                });
                continue;
            }
            let devices = self.not_released(at, newest);
            if devices.is_empty() {
                return Ok((base, holds));
            }
            if !holds.iter().any(|h| matches!(h, Hold::Device { .. })) {
                holds.extend(devices);
            }
        }
        if holds.is_empty() {
            holds.push(Hold::NoCheckpoint);
        }
        Err(holds)
    }

    fn covers(&self, base: &Candidate, checked: &CheckedCommit) -> bool {
        let reach = base.reach.as_ref();
        reach.is_some_and(|reach| reach.covers(&self.all.graph, checked.head()))
    }

    fn covered(&self, base: &Candidate) -> impl Iterator<Item = &'a CheckedCommit> {
        let admitted = self.all.admitted.values();
        admitted.filter(move |c| self.covers(base, c))
    }

    fn time_of(&self, hash: &Hash32) -> i64 {
        self.times.get(hash).copied().unwrap_or(i64::MAX)
    }

    fn newest_below(&self, base: &Candidate) -> i64 {
        let times = self.covered(base).map(|c| self.time_of(&c.head().hash));
        times.max().unwrap_or(i64::MAX)
    }

    /// The devices that may still publish something that names what is dead at this checkpoint.
    fn not_released(&self, at: usize, newest_time: i64) -> Vec<Hold> {
        let lanes = &self.all.graph.lanes;
        let mut newest: BTreeMap<DeviceId, u32> = BTreeMap::new();
        for lane in lanes.values() {
            let incarnation = newest.entry(lane.device).or_insert(lane.incarnation);
            *incarnation = (*incarnation).max(lane.incarnation);
        }
        // Whoever was cut off publishes nothing any more that counts.
        let waited = lanes
            .iter()
            .filter(|(_, lane)| !self.all.graph.is_cut(lane));
        let holds = waited.filter_map(|(id, lane)| {
            let open = lane.closed.is_none();
            let is_newest = newest.get(&lane.device) == Some(&lane.incarnation);
            // Of a forked lane there are two states, and one of them may not have released anything.
            let released = self.released.get(id).is_some_and(|last| *last >= at);
            if !open && !is_newest || released && lane.tips.len() == 1 {
                return None;
            }
            let since = self.since(lane);
            let away = i64::try_from(self.rules.away).unwrap_or(i64::MAX);
            if !open && since < newest_time.saturating_sub(away) {
                return None;
            }
            Some(Hold::Device {
                device: lane.device,
                label: self.replica.env.label(&lane.device),
                since: Timestamp(since),
                open,
            })
        });
        holds.collect()
    }

    fn since(&self, lane: &Lane) -> i64 {
        let tips = lane.tips.iter().map(|tip| self.time_of(&tip.hash));
        tips.max().unwrap_or(i64::MAX)
    }

    /// What is needed, by the rows that the commits below this checkpoint fold to, and by whatever came later: what the checkpoint's pages
    /// say is not believed.
    fn below(
        &self,
        history: &History,
        base: &Candidate,
        keep: &Needed,
    ) -> Result<Result<Below, String>, ReplicaError> {
        let mut rows = MemoryRows::default();
        for checked in self.covered(base).filter(|c| self.all.counts(c)) {
            Core::fold_first(&mut rows, checked.commit(), usize::MAX)?;
        }
        let mut digest = DigestOfRows::default();
        rows.0.iter().for_each(|(key, row)| digest.row(key, row));
        if digest.finish().1 != base.digest {
            let object = self.replica.root_object(&base.reference);
            return Ok(Err(format!(
                "{object}: its digest is not that of the commits that it covers"
            )));
        }
        let mut below = Below {
            usage: keep.blocks.clone(),
            ..Below::default()
        };
        below.usage.name_all(&rows)?;
        let mut snapshots = BTreeSet::new();
        state::for_each_snapshot(&rows, |_, snapshot| {
            snapshots.insert(snapshot.op);
            Ok(())
        })?;
        let later = self.all.admitted.values();
        let later = later.filter(|c| !self.all.graph.is_cut_off(c.head()));
        for checked in later.filter(|c| !self.covers(base, c)) {
            below.name_commit(checked.commit());
            let ops = checked.commit().ops.iter();
            let made = ops.filter(|op| matches!(op.kind, OpKind::Snapshot { .. }));
            snapshots.extend(made.map(|op| op.id));
        }
        for id in snapshots {
            let Some(cut) = history.at_op(id)? else {
                return Ok(Err(format!("snapshot {id:?} cannot be found")));
            };
            below.usage.name_all(&history.rows(&cut)?)?;
        }
        let keys = self.replica.env.keys();
        state::for_each_segment(&rows, |info| {
            if keys.segment_id(info.author, info.number) == info.id {
                if keep.objects.contains(&info.id) {
                    below.usage.name_slots(info.id, 0..info.slots);
                }
                below.declared.push(info);
            }
            Ok(())
        })?;
        below.usage.locate_by(&rows)?;
        Ok(Ok(below))
    }
}

/// What is needed, as it was below a checkpoint and by what came later.
#[derive(Default)]
struct Below {
    /// Blocks that are needed, and where they lay below.
    usage: Usage,
    /// Objects that later commits name as such.
    hosts: BTreeSet<SegmentId>,
    /// Segments that were declared below, if their names are those of their authors and numbers.
    declared: Vec<SegmentInfo>,
}

impl Below {
    /// What a commit's operations name.
    fn name_commit(&mut self, commit: &Commit) {
        for op in &commit.ops {
            match &op.kind {
                OpKind::Write {
                    body: Body::Extents { list, .. },
                    ..
                } => list.iter().for_each(|extent| self.usage.name(extent)),
                OpKind::Relocate { host, .. } => {
                    self.hosts.insert(*host);
                }
                _ => {}
            }
        }
    }

    /// Of nothing that is needed the only place that counted below is in a dead object.
    fn find_dead(&self, survey: &Survey<'_>, keep: &BTreeSet<SegmentId>, garbage: &mut Garbage) {
        let objects = self.usage.objects();
        let is_dead = |id: &SegmentId| {
            !objects.contains(id) && !self.hosts.contains(id) && !keep.contains(id)
        };
        let dead = self.declared.iter().filter(|info| is_dead(&info.id));
        garbage.dead = dead.cloned().collect();
        let dead: BTreeSet<SegmentId> = garbage.dead.iter().map(|info| info.id).collect();
        let mut vacate = |object: SegmentId, segment: SegmentId| {
            if dead.contains(&object) && self.usage.names(segment) {
                garbage.vacated.entry(object).or_default().insert(segment);
            }
        };
        dead.iter().for_each(|id| vacate(*id, *id));
        for checked in survey.all.admitted.values() {
            for op in &checked.commit().ops {
                if let OpKind::Relocate { segment, host, .. } = &op.kind {
                    vacate(*host, *segment);
                }
            }
        }
        for segment in garbage.vacated.values().flatten() {
            let located = self.usage.located(*segment).into_iter();
            let elsewhere = located.filter(|l| l.run.host != *segment);
            garbage.relocated.insert(*segment, elsewhere.collect());
        }
    }

    /// What was relocated meanwhile, by whomever, needs no other place.
    fn find_sparse(
        mut self,
        replica: &Replica,
        keep: &BTreeSet<SegmentId>,
        garbage: &mut Garbage,
    ) -> Result<(), RowsError> {
        self.usage.locate_by(&replica.tree())?;
        let mut needed = self.usage.by_object();
        let sparse = self.declared.iter().filter_map(|info| {
            let needed = needed.remove(&info.id)?;
            let free = !self.hosts.contains(&info.id) && !keep.contains(&info.id);
            free.then(|| Sparse::of(info, &needed)).flatten()
        });
        garbage.sparse = sparse.collect();
        garbage
            .sparse
            .sort_by_key(|s| s.bytes.saturating_mul(1 << 16) / s.info.object_len.max(1));
        Ok(())
    }
}

fn releases(checked: &CheckedCommit) -> impl Iterator<Item = CheckpointRef> {
    let lamport = checked.commit().lamport;
    let verdicts = checked.commit().verdicts.iter();
    let said = verdicts.filter(move |v| v.opinion == Opinion::Release);
    said.map(|v| v.checkpoint)
        .filter(move |c| c.floor < lamport)
}

/// By when each commit was surely made. What says a time that has not come yet was made by the time of what follows it.
fn times(all: &Admission, now: Timestamp) -> HashMap<Hash32, i64> {
    let commits = || all.sequence.iter().filter_map(|key| all.admitted.get(key));
    let mut by: HashMap<Hash32, i64> = HashMap::new();
    for checked in commits().rev() {
        let (hash, said) = (checked.head().hash, checked.commit().time.0);
        let followed = by.get(&hash).copied().unwrap_or(now.0);
        let time = if said <= now.0 { said } else { followed };
        by.insert(hash, time);
        for parent in Graph::parents(checked.commit()) {
            let known = by.entry(parent.hash).or_insert(time);
            *known = time.min(*known);
        }
    }
    let mut times: HashMap<Hash32, i64> = HashMap::new();
    for checked in commits() {
        let hash = checked.head().hash;
        let own = by.get(&hash).copied().unwrap_or(now.0);
        let parents = Graph::parents(checked.commit());
        let after = parents.filter_map(|head| times.get(&head.hash).copied());
        let time = after.chain([own]).max().unwrap_or(own);
        times.insert(hash, time);
    }
    times
}
