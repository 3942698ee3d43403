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
use skrin_base::{Content, DeviceId, Extent, Hash32, LaneId, SegmentId, SegmentInfo, Timestamp};
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

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Garbage {
    /// The checkpoint below which nobody looks any more.
    pub base: Option<CheckpointRef>,
    /// Segments that nobody needs, in the order of their ids. Those that were deleted before are among them.
    pub dead: Vec<SegmentInfo>,
    /// Numbers of this device's lanes that were given up: if an upload reached the storage before a crash, no commit says so.
    pub given_up: Vec<SegmentId>,
    /// What keeps the rest.
    pub holds: Vec<Hold>,
}

impl Replica {
    /// Finds the segments that nobody needs any more. `keep` are those that this device needs, whatever others say: what its open
    /// files, its journal and its pending operations name. Pull first; `history` is what the storage has.
    ///
    /// # Errors
    /// `Ending`; else none in practice, as rows in memory do not fail.
    pub async fn garbage(
        self: &Arc<Self>,
        history: History,
        keep: BTreeSet<SegmentId>,
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
        keep: &BTreeSet<SegmentId>,
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
            given_up: self.given_up(&all, keep),
            ..Garbage::default()
        };
        match survey.choose() {
            Err(holds) => garbage.holds = holds,
            Ok((base, holds)) => match survey.dead(history, base, keep)? {
                Err(problem) => garbage.holds = vec![Hold::Problem(problem)],
                Ok(dead) => {
                    garbage.base = Some(base.reference);
                    (garbage.dead, garbage.holds) = (dead, holds);
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

    /// The segments that nothing names in the tree as it is published: what deleting can gain at most. Needs no network.
    ///
    /// # Errors
    /// When the cache fails.
    pub fn unnamed_segments(&self) -> Result<Vec<SegmentInfo>, RowsError> {
        let snapshot = {
            let core = self.core.lock();
            core.snapshot_at(core.graph.latest())?
        };
        let Some(snapshot) = snapshot else {
            return Ok(Vec::new());
        };
        let (mut declared, mut named) = (Vec::new(), BTreeSet::new());
        snapshot.for_each(|key, row| {
            declared.extend(state::segment_row(&key, &row)?);
            let extent = state::extent_row(&key, &row)?;
            named.extend(extent.as_ref().and_then(segment_of));
            Ok::<_, RowsError>(())
        })?;
        declared.retain(|info: &SegmentInfo| !named.contains(&info.id));
        Ok(declared)
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
        let holds = lanes.iter().filter_map(|(id, lane)| {
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

    /// The segments that were declared below this checkpoint and that nothing names which counts there or came later, by the rows
    /// that the commits fold to: what the checkpoint's pages say is not believed.
    fn dead(
        &self,
        history: &History,
        base: &Candidate,
        keep: &BTreeSet<SegmentId>,
    ) -> Result<Result<Vec<SegmentInfo>, String>, ReplicaError> {
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
        let mut live = keep.clone();
        name_all(&rows, &mut live)?;
        let mut snapshots = BTreeSet::new();
        state::for_each_snapshot(&rows, |_, snapshot| {
            snapshots.insert(snapshot.op);
            Ok(())
        })?;
        let later = self.all.admitted.values();
        for checked in later.filter(|c| !self.covers(base, c)) {
            named(checked.commit(), &mut live);
            let ops = checked.commit().ops.iter();
            let made = ops.filter(|op| matches!(op.kind, OpKind::Snapshot { .. }));
            snapshots.extend(made.map(|op| op.id));
        }
        for id in snapshots {
            let Some(cut) = history.at_op(id)? else {
                return Ok(Err(format!("snapshot {id:?} cannot be found")));
            };
            name_all(&history.rows(&cut)?, &mut live)?;
        }
        let keys = self.replica.env.keys();
        let mut dead = Vec::new();
        state::for_each_segment(&rows, |info| {
            let is_own_name = keys.segment_id(info.author, info.number) == info.id;
            if is_own_name && !live.contains(&info.id) {
                dead.push(info);
            }
            Ok(())
        })?;
        Ok(Ok(dead))
    }
}

fn releases(checked: &CheckedCommit) -> impl Iterator<Item = CheckpointRef> {
    let lamport = checked.commit().lamport;
    let verdicts = checked.commit().verdicts.iter();
    let said = verdicts.filter(move |v| v.opinion == Opinion::Release);
    said.map(|v| v.checkpoint)
        .filter(move |c| c.floor < lamport)
}

/// What rows name.
fn name_all(rows: &MemoryRows, live: &mut BTreeSet<SegmentId>) -> Result<(), RowsError> {
    state::for_each_extent(rows, |extent| {
        live.extend(segment_of(&extent));
        Ok(())
    })
}

/// What a commit's operations name.
fn named(commit: &Commit, live: &mut BTreeSet<SegmentId>) {
    for op in &commit.ops {
        if let OpKind::Write {
            body: Body::Extents { list, .. },
            ..
        } = &op.kind
        {
            live.extend(list.iter().filter_map(segment_of));
        }
    }
}

fn segment_of(extent: &Extent) -> Option<SegmentId> {
    match &extent.content {
        Content::Stored(stored) => Some(stored.segment),
        Content::Hole | Content::Lost => None,
    }
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
