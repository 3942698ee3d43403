//! All commits of a room as they lie on the storage, and which of them count by what they say of each other. For those who
//! look at everything from the first commit on, without the local cache.

use super::error::ReplicaError;
use super::graph::{Cuts, Graph, Refusal};
use super::pull::proposals;
use super::standing::{Reach, Standing};
use super::verify::{Problem, ProblemKind};
use super::veto::refutations;
use super::{Replica, core::Core};
use crate::commit::{CheckedCommit, CheckpointRef, Fault, open_commit};
use crate::lane::{Head, parse_commit_file};
use crate::order::OrderKey;
use crate::rows::{Rows, RowsError};
use futures_util::stream::{self, StreamExt};
use skrin_base::limits::COMMIT_MAX;
use skrin_base::{Hash32, LaneId, RoomId};
use skrin_storage::{ErrorKind, Prefix, StoreError};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Objects got at once.
pub(super) const AT_ONCE: usize = 16;
/// What is void depends on the checkpoints, and those on what is admitted: a few rounds settle it.
const ROUNDS: usize = 8;

/// Commits in the total order.
pub(super) type InOrder = BTreeMap<OrderKey, CheckedCommit>;
/// What the roots of checkpoints say, as far as they can be had.
pub(super) type Reaches = BTreeMap<CheckpointRef, Reach>;

/// Whether the storage answered and the object is at fault, rather than the way to it.
pub(super) fn is_about_the_object(error: &StoreError) -> bool {
    matches!(error.kind(), ErrorKind::Absent | ErrorKind::Broken)
}

fn kind_of(fault: &Fault) -> ProblemKind {
    match fault {
        Fault::NoRight { .. } => ProblemKind::Refused,
        _ => ProblemKind::Damaged,
    }
}

/// Puts commits into the total order.
pub(super) fn in_order(room: RoomId, commits: impl Iterator<Item = CheckedCommit>) -> InOrder {
    let place = |checked: CheckedCommit| {
        let (head, lamport) = (checked.head(), checked.commit().lamport);
        let key = OrderKey::new(room, head.lane, lamport, head.seq, &head.hash);
        (key, checked)
    };
    commits.map(place).collect()
}

impl Replica {
    /// The commits that the listings of the lanes show.
    pub(super) async fn lane_files(&self) -> Result<Vec<Head>, ReplicaError> {
        let lanes = Prefix::new(format!("rooms/{}/lanes", self.env.names.0))?;
        let mut heads = Vec::new();
        for lane in self.env.store.list(&lanes).await?.dirs {
            let Some(id) = LaneId::from_hex(&lane) else {
                continue;
            };
            let lane = lanes.dir(&lane)?;
            for part in self.env.store.list(&lane).await?.dirs {
                let listing = self.env.store.list(&lane.dir(&part)?).await?;
                let files = listing.objects.iter();
                let parsed = files.filter_map(|listed| parse_commit_file(listed.name.file_name()));
                heads.extend(parsed.map(|(seq, hash)| Head {
                    lane: id,
                    seq,
                    hash,
                }));
            }
        }
        Ok(heads)
    }

    /// Gets commits, several at once; tells `each` of every one what is there or what is wrong with it.
    pub(super) async fn read_commits(
        &self,
        heads: impl IntoIterator<Item = Head>,
        mut each: impl FnMut(Head, Result<CheckedCommit, Problem>) + Send,
    ) -> Result<(), ReplicaError> {
        let get = |head: Head| async move {
            let name = self.env.names.commit(&head)?;
            Ok::<_, ReplicaError>((head, self.env.store.get(&name, COMMIT_MAX).await))
        };
        let mut got = stream::iter(heads.into_iter().map(get)).buffered(AT_ONCE);
        while let Some(next) = got.next().await {
            let (head, bytes) = next?;
            let checked = match bytes {
                Ok(bytes) => open_commit(&head, &bytes, &self.env.keys(), &self.env.roster.read())
                    .map_err(|fault: Fault| (kind_of(&fault), fault.to_string())),
                Err(error) if is_about_the_object(&error) => {
                    Err((ProblemKind::of(&error), error.to_string()))
                }
                Err(error) => return Err(error.into()),
            };
            let object = || self.object(&head);
            let checked = checked.map_err(|(kind, text)| Problem {
                kind,
                object: object(),
                text,
            });
            each(head, checked);
        }
        Ok(())
    }
}

/// Leaves out what lies beyond a cut, as far as nothing else follows it.
fn without_cut_off(commits: &InOrder, cuts: &Cuts) -> InOrder {
    let is_beyond = |checked: &&CheckedCommit| {
        let (head, commit) = (checked.head(), checked.commit());
        cuts.are_passed(&commit.device, &head.lane, head.seq)
    };
    let by_id: HashMap<Hash32, &CheckedCommit> =
        commits.values().map(|c| (c.head().hash, c)).collect();
    let counting = commits.values().filter(|c| !is_beyond(c));
    let mut queue: Vec<&CheckedCommit> = counting.collect();
    let mut wanted: HashSet<Hash32> = queue.iter().map(|c| c.head().hash).collect();
    while let Some(checked) = queue.pop() {
        for parent in Graph::parents(checked.commit()) {
            if let Some(parent) = by_id.get(&parent.hash)
                && wanted.insert(parent.head().hash)
            {
                queue.push(parent);
            }
        }
    }
    let wanted = |(_, checked): &(&OrderKey, &CheckedCommit)| wanted.contains(&checked.head().hash);
    let kept = commits.iter().filter(wanted);
    kept.map(|(key, checked)| (*key, checked.clone())).collect()
}

/// What commits say of each other, by the rules.
pub(super) struct Admission {
    pub(super) graph: Graph,
    pub(super) standing: Standing,
    pub(super) admitted: InOrder,
    /// In which order they were admitted: each after all that it follows.
    pub(super) sequence: Vec<OrderKey>,
    /// Those that contradict what they follow: nobody ever folds them.
    pub(super) refused: Vec<(Head, Fault)>,
    /// Those that follow what is not there, or what was refused, or others that do.
    pub(super) waiting: Vec<(Head, Vec<Head>)>,
}

impl Admission {
    /// Judges commits by nothing but each other, the roots that some of them propose, and these cuts of devices that were ended.
    pub(super) fn of(commits: &InOrder, roots: &Reaches, cuts: &Cuts) -> Self {
        let counting;
        let commits = match cuts.is_empty() {
            true => commits,
            false => {
                counting = without_cut_off(commits, cuts);
                &counting
            }
        };
        let mut all = Self::round(commits, roots, cuts, &Standing::default());
        for _ in 0..ROUNDS {
            let again = Self::round(commits, roots, cuts, &all.standing);
            let stable = again.standing == all.standing;
            all = again;
            if stable {
                break;
            }
        }
        all
    }

    /// Admits commits in their order; which checkpoints are proposed is known from an earlier round.
    fn round(commits: &InOrder, roots: &Reaches, cuts: &Cuts, before: &Standing) -> Self {
        let mut all = Self {
            graph: Graph::default(),
            standing: Standing::default(),
            admitted: InOrder::new(),
            sequence: Vec::new(),
            refused: Vec::new(),
            waiting: Vec::new(),
        };
        all.graph.set_cuts(cuts.clone());
        let mut queue: Vec<_> = commits.iter().collect();
        let mut waiting = Vec::new();
        while !queue.is_empty() {
            let admitted = all.admitted.len();
            for (key, checked) in std::mem::take(&mut queue) {
                match all.admit(checked, *key, roots, before) {
                    Ok(()) => {}
                    Err(Refusal::Missing(missing)) => waiting.push((key, checked, missing)),
                    Err(Refusal::Bad(fault)) => all.refused.push((*checked.head(), fault)),
                }
            }
            if all.admitted.len() > admitted {
                // A false time sorts before what it follows.
                let again = std::mem::take(&mut waiting).into_iter();
                queue = again.map(|(key, checked, _)| (key, checked)).collect();
            }
        }
        let waiting = waiting.into_iter();
        all.waiting = waiting.map(|(_, c, m)| (*c.head(), m)).collect();
        if !cuts.is_empty() {
            all.standing.settle_cuts(&all.graph);
            all.graph.settle_closes();
        }
        all.graph.hold(&all.standing.held());
        all
    }

    fn admit(
        &mut self,
        checked: &CheckedCommit,
        key: OrderKey,
        roots: &Reaches,
        before: &Standing,
    ) -> Result<(), Refusal> {
        let (head, commit) = (checked.head(), checked.commit());
        self.graph
            .admit_up_to(head, commit, before.highest_floor(), |_| None)?;
        for verdict in proposals(checked) {
            let reference = verdict.checkpoint;
            let named = self.graph.named_up_to(head, reference.floor);
            self.standing.propose(reference, verdict.digest, key, named);
            if let Some(reach) = roots.get(&reference) {
                self.standing.believe(&reference, reach);
            }
        }
        if !self.graph.is_mistimed(head) {
            for verdict in refutations(checked) {
                self.standing
                    .refute(verdict.checkpoint, head, commit.device);
            }
        }
        self.admitted.insert(key, checked.clone());
        self.sequence.push(key);
        Ok(())
    }

    /// Whether an admitted commit counts.
    pub(super) fn counts(&self, checked: &CheckedCommit) -> bool {
        let (head, lamport) = (checked.head(), checked.commit().lamport);
        !self.graph.is_void(head) && !self.standing.voids(&self.graph, head, lamport)
    }

    /// Folds what counts, of each commit at most as many operations as `limit` says.
    pub(super) fn fold(
        &self,
        rows: &mut dyn Rows,
        limit: impl Fn(&Hash32) -> usize,
    ) -> Result<(), RowsError> {
        for checked in self.admitted.values().filter(|c| self.counts(c)) {
            Core::fold_first(rows, checked.commit(), limit(&checked.head().hash))?;
        }
        Ok(())
    }
}
