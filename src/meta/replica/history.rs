//! What was: every commit is kept, so that every earlier state can be folded again.
//!
//! A *cut* is a set of commits that holds everything that they follow; of some, only the first operations count, and nothing
//! follows those. The rows at a cut are what its commits fold to when they are judged by nothing but each other. So they are a
//! function of the cut alone: what arrives or becomes void later changes no past.

use super::admission::{Admission, InOrder, Reaches, in_order, is_about_the_object};
use super::error::ReplicaError;
use super::graph::{Cuts, Graph};
use super::load::get_root;
use super::pull::proposals;
use super::standing::Reach;
use super::verify::{Problem, ProblemKind};
use super::{Env, Replica};
use crate::apply::{Outcome, apply};
use crate::commit::{CheckedCommit, CheckpointRef, Commit};
use crate::lane::Head;
use crate::op::Op;
use crate::order::OrderKey;
use crate::rows::{MemoryRows, Rows, RowsError};
use crate::state::declare_segment;
use skrin_base::{Hash32, OpId, RoomId, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Every commit of a room, in memory.
pub struct History {
    room: RoomId,
    commits: InOrder,
    places: HashMap<Hash32, OrderKey>,
    /// By when each counts as made.
    times: HashMap<Hash32, Timestamp>,
    /// Those whose Lamport time is not what they follow gives.
    mistimed: BTreeSet<Hash32>,
    void: BTreeSet<Hash32>,
    roots: Reaches,
    /// By which it is said what counts by now.
    cuts: Cuts,
    /// Commits that valid ones follow, or that were seen here, and that cannot be had.
    lost: Vec<(Head, Problem)>,
    /// Roots that cannot be had, though commits propose them.
    lost_roots: Vec<(CheckpointRef, Problem)>,
}

/// A commit of the past.
#[derive(Clone, Copy, Debug)]
pub struct PastCommit<'a> {
    /// Its exact name.
    pub head: &'a Head,
    /// What it says.
    pub commit: &'a Commit,
    /// When it counts as made: never before what it follows, and no clock that is ahead of the one of who asks counts.
    pub time: Timestamp,
    /// Whether it counts, by all that is known now. One that does not may have counted for a while.
    pub counts: bool,
}

/// A point of the past.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cut {
    /// The commits in it.
    whole: BTreeSet<OrderKey>,
    /// Commits of which only so many operations lie in it, from the first one on.
    parts: BTreeMap<OrderKey, usize>,
}

impl Cut {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.parts.values().all(|ops| *ops == 0)
    }
}

/// What was read, before it is judged.
#[derive(Default)]
struct Read {
    got: HashMap<Hash32, CheckedCommit>,
    faults: BTreeMap<Head, Problem>,
}

impl Read {
    /// What the commits that are there follow and nobody asked for yet.
    fn unasked(&self) -> BTreeSet<Head> {
        let commits = self.got.values();
        let parents = commits.flat_map(|c| Graph::parents(c.commit()).collect::<Vec<_>>());
        parents.filter(|head| !self.asked(head)).collect()
    }

    fn asked(&self, head: &Head) -> bool {
        self.got.contains_key(&head.hash) || self.faults.contains_key(head)
    }
}

impl Replica {
    /// Reads every commit of the room from the storage. `progress` is told how many were read. Pull first; what waits here
    /// to be published lies in no commit yet. `now` is this device's clock.
    ///
    /// # Errors
    /// A storage that cannot be reached. Objects that are not what they should be come to light when a cut needs them.
    pub async fn history(
        &self,
        now: Timestamp,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<History, ReplicaError> {
        let seen = self.seen_commits();
        let mut want: BTreeSet<Head> = self.lane_files().await?.into_iter().collect();
        want.extend(&seen);
        let (mut read, mut count) = (Read::default(), 0);
        // Listings are hints: what valid commits follow is asked for by its name.
        while !want.is_empty() {
            self.read_commits(std::mem::take(&mut want), |head, checked| {
                match checked {
                    Ok(checked) => drop(read.got.insert(head.hash, checked)),
                    Err(problem) => drop(read.faults.insert(head, problem)),
                }
                count += 1;
                progress(count);
            })
            .await?;
            want = read.unasked();
        }
        let (roots, lost_roots) = self.proposed_roots(read.got.values()).await?;
        let room = self.env.names.0;
        let commits = in_order(room, read.got.into_values());
        let cuts = self.cuts();
        let all = Admission::of(&commits, &roots, &cuts);
        let problem = |head: Head| {
            let known = read.faults.get(&head).cloned();
            let problem = known.unwrap_or_else(|| Problem {
                kind: ProblemKind::Missing,
                object: self.object(&head),
                text: "it is not there or not whole".to_owned(),
            });
            (head, problem)
        };
        let lost = lost(&all, &seen, &read.faults).into_iter().map(problem);
        Ok(History::new(
            room,
            &all,
            now,
            (roots, lost_roots),
            cuts,
            lost.collect(),
        ))
    }

    /// What this device has taken in, by exact names.
    pub(super) fn seen_commits(&self) -> BTreeSet<Head> {
        let core = self.core.lock();
        let ends = core.graph.lanes.keys();
        let ends = ends.flat_map(|lane| core.graph.ends_of(*lane));
        ends.chain(core.graph.all().map(|(head, _)| head)).collect()
    }

    async fn proposed_roots(
        &self,
        commits: impl Iterator<Item = &CheckedCommit>,
    ) -> Result<(Reaches, Vec<(CheckpointRef, Problem)>), ReplicaError> {
        let named: BTreeSet<CheckpointRef> = commits
            .flat_map(|checked| proposals(checked).map(|verdict| verdict.checkpoint))
            .collect();
        let (mut roots, mut lost) = (Reaches::new(), Vec::new());
        for reference in named {
            match get_root(&self.env, &reference).await {
                Ok(root) => drop(roots.insert(reference, Reach::of(&root))),
                Err(error) => lost.push((reference, root_problem(&self.env, &reference, error)?)),
            }
        }
        Ok((roots, lost))
    }
}

fn root_problem(
    env: &Env,
    reference: &CheckpointRef,
    error: ReplicaError,
) -> Result<Problem, ReplicaError> {
    match error {
        ReplicaError::Checkpoint { object, fault } => Ok(Problem {
            kind: ProblemKind::Damaged,
            object,
            text: fault.to_string(),
        }),
        ReplicaError::Store(error) if is_about_the_object(&error) => Ok(Problem {
            kind: ProblemKind::of(&error),
            object: env.names.checkpoint(&reference.name)?.to_string(),
            text: error.to_string(),
        }),
        other => Err(other),
    }
}

/// The commits that are missing. One that nobody follows and that was not seen here may be an upload under way, or nonsense
/// that the storage made up; and what follows a commit that contradicts its past is folded by nobody.
fn lost(
    all: &Admission,
    seen: &BTreeSet<Head>,
    faults: &BTreeMap<Head, Problem>,
) -> BTreeSet<Head> {
    let refused: BTreeSet<Head> = all.refused.iter().map(|(head, _)| *head).collect();
    let waiting: BTreeSet<Head> = all.waiting.iter().map(|(head, _)| *head).collect();
    let followed = all.waiting.iter().flat_map(|(_, missing)| missing);
    let followed = followed.filter(|head| !refused.contains(head) && !waiting.contains(head));
    let seen = seen.iter().filter(|head| faults.contains_key(head));
    followed.chain(seen).copied().collect()
}

impl History {
    fn new(
        room: RoomId,
        all: &Admission,
        now: Timestamp,
        (roots, lost_roots): (Reaches, Vec<(CheckpointRef, Problem)>),
        cuts: Cuts,
        lost: Vec<(Head, Problem)>,
    ) -> Self {
        let commits = all.admitted.clone();
        let heads = commits.iter().map(|(key, c)| (c.head().hash, *key));
        let void = commits.values().filter(|c| !all.counts(c));
        let mistimed = commits.values().map(CheckedCommit::head);
        let mistimed = mistimed.filter(|head| all.graph.is_mistimed(head));
        let mut history = Self {
            room,
            places: heads.collect(),
            times: HashMap::new(),
            mistimed: mistimed.map(|head| head.hash).collect(),
            void: void.map(|c| c.head().hash).collect(),
            roots,
            cuts,
            lost,
            lost_roots,
            commits,
        };
        for key in &all.sequence {
            let Some(checked) = history.commits.get(key) else {
                continue;
            };
            let parents = Graph::parents(checked.commit());
            let after = parents.filter_map(|head| history.times.get(&head.hash).copied());
            let said = Some(checked.commit().time).filter(|time| *time <= now);
            let time = after.chain(said).max().unwrap_or(Timestamp(i64::MIN));
            history.times.insert(checked.head().hash, time);
        }
        history
    }

    /// All commits that follow nothing that is missing, in the total order.
    pub fn commits(&self) -> impl Iterator<Item = PastCommit<'_>> {
        self.commits.values().map(|checked| PastCommit {
            head: checked.head(),
            commit: checked.commit(),
            time: self.time_of(checked),
            counts: !self.void.contains(&checked.head().hash),
        })
    }

    fn time_of(&self, checked: &CheckedCommit) -> Timestamp {
        let time = self.times.get(&checked.head().hash);
        time.copied().unwrap_or(Timestamp(i64::MIN))
    }

    /// What is missing: commits that others follow or that were seen here, and roots of checkpoints that were proposed.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let roots = self.lost_roots.iter().map(|(_, problem)| problem);
        self.lost.iter().map(|(_, problem)| problem).chain(roots)
    }

    /// Everything.
    ///
    /// # Errors
    /// A commit that cannot be had.
    pub fn at_end(&self) -> Result<Cut, ReplicaError> {
        self.none_lost(|_| true)?;
        Ok(Cut {
            whole: self.commits.keys().copied().collect(),
            parts: BTreeMap::new(),
        })
    }

    /// What had been published by that time: the commits that say so and follow only such commits. Of those that come next,
    /// the operations that were done by then: a device that publishes late did them nevertheless.
    ///
    /// # Errors
    /// A commit that cannot be had and may be from before that time.
    pub fn at_time(&self, time: Timestamp) -> Result<Cut, ReplicaError> {
        self.none_lost(|head| !self.is_surely_later(head, time))?;
        let mut cut = Cut::default();
        let is_in = |checked: &CheckedCommit| self.time_of(checked) <= time;
        for (key, checked) in &self.commits {
            if is_in(checked) {
                cut.whole.insert(*key);
                continue;
            }
            let ops = checked.commit().ops.iter();
            let done = ops.take_while(|op| op.time <= time).count();
            let mut parents = Graph::parents(checked.commit());
            let follows = parents.all(|head| self.commit(&head.hash).is_some_and(is_in));
            if done > 0 && follows {
                cut.parts.insert(*key, done);
            }
        }
        Ok(cut)
    }

    /// What an operation saw: the past of the first commit, in the total order, that holds it, and that commit's operations
    /// before it. `None` if there is no such operation.
    ///
    /// # Errors
    /// A commit that cannot be had, while no other one holds the operation.
    pub fn at_op(&self, id: OpId) -> Result<Option<Cut>, ReplicaError> {
        self.around_op(id, 0)
    }

    /// The same with the operation itself.
    ///
    /// # Errors
    /// As `at_op`.
    pub fn after_op(&self, id: OpId) -> Result<Option<Cut>, ReplicaError> {
        self.around_op(id, 1)
    }

    fn around_op(&self, id: OpId, more: usize) -> Result<Option<Cut>, ReplicaError> {
        let held = self.commits.iter().find_map(|(key, checked)| {
            let at = checked.commit().ops.iter().position(|op| op.id == id)?;
            let timed = !self.mistimed.contains(&checked.head().hash);
            timed.then_some((*key, checked, at))
        });
        let Some((key, checked, at)) = held else {
            self.none_lost(|_| true)?;
            return Ok(None);
        };
        let mut whole = BTreeSet::new();
        let mut queue: Vec<Head> = Graph::parents(checked.commit()).collect();
        while let Some(head) = queue.pop() {
            if let Some(place) = self.places.get(&head.hash)
                && whole.insert(*place)
                && let Some(parent) = self.commits.get(place)
            {
                queue.extend(Graph::parents(parent.commit()));
            }
        }
        let parts = BTreeMap::from([(key, at + more)]);
        Ok(Some(Cut { whole, parts }))
    }

    fn commit(&self, hash: &Hash32) -> Option<&CheckedCommit> {
        self.commits.get(self.places.get(hash)?)
    }

    fn none_lost(&self, matters: impl Fn(&Head) -> bool) -> Result<(), ReplicaError> {
        let lost = self.lost.iter().find(|(head, _)| matters(head));
        lost.map_or(Ok(()), |(_, problem)| {
            Err(ReplicaError::Past(problem.clone()))
        })
    }

    /// Whether a commit that cannot be had comes, in its lane, after one that is later than `time` itself.
    fn is_surely_later(&self, head: &Head, time: Timestamp) -> bool {
        let lane = self.commits.values().filter(|c| c.head().lane == head.lane);
        let before: Vec<&CheckedCommit> = lane.filter(|c| c.head().seq < head.seq).collect();
        let last = before.iter().map(|c| c.head().seq).max();
        let mut last = before.iter().filter(|c| Some(c.head().seq) == last);
        !before.is_empty() && last.all(|c| self.time_of(c) > time)
    }

    fn commits_of(&self, cut: &Cut) -> InOrder {
        let keys = cut.whole.iter().chain(cut.parts.keys());
        let commits = keys.filter_map(|key| Some((*key, self.commits.get(key)?.clone())));
        commits.collect()
    }

    /// Roots that cannot be had and that commits of the cut propose. Without them commits may count that do not: more than
    /// what was may be in the rows, or edits of the same file in another order.
    pub fn doubts(&self, cut: &Cut) -> Vec<&Problem> {
        let commits = self.commits_of(cut);
        let proposed: BTreeSet<CheckpointRef> = commits
            .values()
            .flat_map(|checked| proposals(checked).map(|verdict| verdict.checkpoint))
            .collect();
        let lost = self.lost_roots.iter();
        let lost = lost.filter(|(reference, _)| proposed.contains(reference));
        lost.map(|(_, problem)| problem).collect()
    }

    /// The state at a cut. It works for as long as everything in it takes to fold.
    ///
    /// # Errors
    /// None in practice: rows in memory do not fail.
    pub fn rows(&self, cut: &Cut) -> Result<MemoryRows, RowsError> {
        let mut rows = MemoryRows::default();
        self.fold(cut, &mut rows)?;
        Ok(rows)
    }

    /// Folds a cut into rows that are empty.
    ///
    /// # Errors
    /// Those of the rows.
    pub fn fold(&self, cut: &Cut, rows: &mut dyn Rows) -> Result<(), RowsError> {
        let parts: HashMap<Hash32, usize> = cut
            .parts
            .iter()
            .map(|(key, ops)| (key.commit(), *ops))
            .collect();
        // Whoever was cut off later had not been then.
        let all = Admission::of(&self.commits_of(cut), &self.roots, &Cuts::default());
        all.fold(rows, |commit| {
            parts.get(commit).copied().unwrap_or(usize::MAX)
        })
    }

    /// What all commits say of each other.
    pub(super) fn admission(&self) -> Admission {
        Admission::of(&self.commits, &self.roots, &self.cuts)
    }

    /// Folds what counts, from the first operation on, and shows each behind it: what became of it, and the state then.
    ///
    /// # Errors
    /// A commit that cannot be had; those of `visit`.
    pub fn walk<E: From<RowsError> + From<ReplicaError>>(
        &self,
        mut visit: impl FnMut(PastCommit<'_>, &Op, &Outcome, &dyn Rows) -> Result<(), E>,
    ) -> Result<(), E> {
        self.none_lost(|_| true)?;
        let mut rows = MemoryRows::default();
        for past in self.commits().filter(|past| past.counts) {
            for segment in &past.commit.segments {
                declare_segment(&mut rows, segment)?;
            }
            for op in &past.commit.ops {
                let outcome = apply(&mut rows, op)?;
                visit(past, op, &outcome, &rows)?;
            }
        }
        Ok(())
    }

    /// The room.
    pub fn room(&self) -> RoomId {
        self.room
    }
}
