//! Looking at every metadata object of a room on the storage, and folding everything from the first commit.

use super::error::ReplicaError;
use super::graph::{Graph, Refusal};
use super::load::{get_page, get_root};
use super::pull::proposals;
use super::standing::{Reach, Standing};
use super::veto::refutations;
use super::{Replica, core::Core};
use crate::checkpoint::{DigestOfRows, Root, RowAssembler};
use crate::commit::{CheckedCommit, CheckpointRef, open_commit};
use crate::lane::{Head, parse_commit_file, parse_tip};
use crate::order::OrderKey;
use crate::rows::{MemoryRows, RowsError};
use futures_util::stream::{self, StreamExt};
use skrin_base::limits::COMMIT_MAX;
use skrin_base::{Hash32, LaneId};
use skrin_storage::{ErrorKind, Prefix, StoreError};
use std::collections::{BTreeMap, BTreeSet};

/// Objects got at once.
const AT_ONCE: usize = 16;
/// What is void depends on the checkpoints, and those on what is admitted: a few rounds settle it.
const ROUNDS: usize = 8;

/// Something wrong with an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The object's name.
    pub object: String,
    /// What is wrong with it.
    pub text: String,
}

/// What `verify` saw.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Commits that were read and checked.
    pub commits: u64,
    /// Checkpoints that were read and checked.
    pub checkpoints: u64,
    /// Pages that were read and checked.
    pub pages: u64,
    /// Digest of the state that all commits fold to, from the first one on.
    pub digest: Option<Hash32>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl VerifyReport {
    fn problem(&mut self, object: impl ToString, text: impl ToString) {
        self.problems.push(Problem {
            object: object.to_string(),
            text: text.to_string(),
        });
    }
}

/// Whether the storage answered and the object is at fault, rather than the way to it.
fn is_about_the_object(error: &StoreError) -> bool {
    matches!(error.kind(), ErrorKind::Absent | ErrorKind::Broken)
}

impl Replica {
    /// Reads every commit, root and page of the room, checks each, folds all commits from the first one in memory, and
    /// compares the result with this replica's state. `progress` is told how many objects were read. Pull first.
    ///
    /// # Errors
    /// A storage that cannot be reached; whatever is wrong with objects is in the report.
    pub async fn verify(
        &self,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<VerifyReport, ReplicaError> {
        let mut report = VerifyReport::default();
        let commits = self.verify_commits(&mut report, &mut progress).await?;
        self.verify_tips(&mut report, &commits).await?;
        let roots = self
            .verify_checkpoints(&mut report, &commits, &mut progress)
            .await?;
        let hidden = self.hidden(&commits);
        let folded = fold_all(self, &mut report, commits, &roots)?;
        report.digest = Some(folded);
        let here = self.folded_digest()?;
        if here.is_none_or(|here| here == folded) {
            return Ok(report);
        }
        if report.problems.is_empty() && !hidden.is_empty() {
            for head in hidden {
                let text = "it is missing, and nothing else leads to its commit: who has not seen that is not shown it";
                report.problem(self.env.names.tip(&head)?, text);
            }
        } else {
            let text = "the local state differs from what the commits fold to: delete meta.db, or pull and verify again";
            report.problem("meta.db", text);
        }
        Ok(report)
    }

    /// The newest commit of each lane that is there, of those that this replica was not led to.
    fn hidden(&self, commits: &BTreeMap<Hash32, CheckedCommit>) -> Vec<Head> {
        let core = self.core.lock();
        let mut newest: BTreeMap<LaneId, Head> = BTreeMap::new();
        let heads = commits.values().map(CheckedCommit::head);
        for head in heads.filter(|head| !core.graph.knows(head)) {
            let known = newest.entry(head.lane).or_insert(*head);
            if head.seq > known.seq {
                *known = *head;
            }
        }
        newest.into_values().collect()
    }

    async fn lane_files(&self) -> Result<Vec<Head>, ReplicaError> {
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

    async fn verify_commits(
        &self,
        report: &mut VerifyReport,
        progress: &mut (impl FnMut(u64) + Send),
    ) -> Result<BTreeMap<Hash32, CheckedCommit>, ReplicaError> {
        let get = |head: Head| async move {
            let name = self.env.names.commit(&head)?;
            Ok::<_, ReplicaError>((head, self.env.store.get(&name, COMMIT_MAX).await))
        };
        let mut got = stream::iter(self.lane_files().await?.into_iter().map(get)).buffered(AT_ONCE);
        let mut commits = BTreeMap::new();
        while let Some(next) = got.next().await {
            let (head, bytes) = next?;
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) if is_about_the_object(&error) => {
                    report.problem(self.object(&head), error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match open_commit(&head, &bytes, &self.env.keys(), &self.env.roster.read()) {
                Ok(checked) => drop(commits.insert(head.hash, checked)),
                Err(fault) => report.problem(self.object(&head), fault),
            }
            report.commits += 1;
            progress(report.commits);
        }
        Ok(commits)
    }

    async fn verify_tips(
        &self,
        report: &mut VerifyReport,
        commits: &BTreeMap<Hash32, CheckedCommit>,
    ) -> Result<(), ReplicaError> {
        let listing = self.env.store.list(&self.env.names.tips()?).await?;
        for listed in listing.objects {
            let tip = parse_tip(listed.name.file_name());
            let found = tip.and_then(|tip| commits.get(&tip.hash));
            if tip.is_none() || found.map(CheckedCommit::head) != tip.as_ref() {
                report.problem(
                    &listed.name,
                    "it names a commit that is not there or not whole",
                );
            }
        }
        Ok(())
    }

    /// Every checkpoint that some commit proposes or calls standing.
    async fn verify_checkpoints(
        &self,
        report: &mut VerifyReport,
        commits: &BTreeMap<Hash32, CheckedCommit>,
        progress: &mut (impl FnMut(u64) + Send),
    ) -> Result<BTreeMap<CheckpointRef, Root>, ReplicaError> {
        let mut named: BTreeSet<CheckpointRef> = BTreeSet::new();
        for checked in commits.values() {
            named.extend(checked.commit().standing);
            named.extend(proposals(checked).map(|verdict| verdict.checkpoint));
        }
        let mut roots = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for reference in named {
            match get_root(&self.env, &reference).await {
                Ok(root) => {
                    self.verify_pages(report, &root, &mut seen).await?;
                    roots.insert(reference, root);
                }
                Err(error) => self.note(report, &reference.name, error)?,
            }
            report.checkpoints += 1;
            progress(report.commits + report.checkpoints + report.pages);
        }
        Ok(roots)
    }

    fn note(
        &self,
        report: &mut VerifyReport,
        checkpoint: &[u8; 16],
        error: ReplicaError,
    ) -> Result<(), ReplicaError> {
        match error {
            ReplicaError::Checkpoint { object, fault } => report.problem(object, fault),
            ReplicaError::Store(error) if is_about_the_object(&error) => {
                report.problem(self.env.names.checkpoint(checkpoint)?, error);
            }
            other => return Err(other),
        }
        Ok(())
    }

    async fn verify_pages(
        &self,
        report: &mut VerifyReport,
        root: &Root,
        seen: &mut BTreeSet<[u8; 16]>,
    ) -> Result<(), ReplicaError> {
        let pages = root
            .pages
            .iter()
            .map(|page| async move { (page, get_page(&self.env, root, page).await) });
        let mut pages = stream::iter(pages).buffered(AT_ONCE);
        let mut rows = RowAssembler::default();
        let mut whole = true;
        while let Some((page, content)) = pages.next().await {
            report.pages += u64::from(seen.insert(page.name));
            let object = self.env.names.page(&page.name)?;
            let problem = match content {
                Ok(content) if whole => rows.page(&content).err().map(|fault| fault.to_string()),
                Ok(_) => None,
                Err(ReplicaError::Checkpoint { fault, .. }) => Some(fault.to_string()),
                Err(ReplicaError::Store(error)) if is_about_the_object(&error) => {
                    Some(error.to_string())
                }
                Err(error) => return Err(error),
            };
            if let Some(text) = problem {
                whole = false;
                report.problem(object, text);
            }
        }
        let matches = rows
            .finish()
            .is_ok_and(|(count, digest)| (count, digest) == (root.rows, root.digest));
        if whole && !matches {
            let text = "its pages are not the state that it promises";
            report.problem(self.env.names.checkpoint(&root.name)?, text);
        }
        Ok(())
    }

    /// Digest of the state without the pending operations, if it is whole.
    fn folded_digest(&self) -> Result<Option<Hash32>, RowsError> {
        let snapshot = {
            let core = self.core.lock();
            core.snapshot_at(core.graph.latest())?
        };
        let Some(snapshot) = snapshot else {
            return Ok(None);
        };
        let mut digest = DigestOfRows::default();
        snapshot.for_each(|key, value| {
            digest.row(&key, &value);
            Ok::<_, RowsError>(())
        })?;
        Ok(Some(digest.finish().1))
    }
}

type InOrder = BTreeMap<OrderKey, CheckedCommit>;

/// What the commits say of each other, by the rules.
struct Admission {
    graph: Graph,
    standing: Standing,
    admitted: InOrder,
    problems: Vec<(Head, String)>,
}

/// Admits commits in their order; which checkpoints are proposed is known from an earlier round.
fn admit_all(
    replica: &Replica,
    in_order: &InOrder,
    roots: &BTreeMap<CheckpointRef, Root>,
    before: &Standing,
) -> Admission {
    let mut all = Admission {
        graph: Graph::default(),
        standing: Standing::default(),
        admitted: InOrder::new(),
        problems: Vec::new(),
    };
    let mut queue: Vec<_> = in_order.iter().collect();
    let mut waiting = Vec::new();
    while !queue.is_empty() {
        let admitted = all.admitted.len();
        for (key, checked) in std::mem::take(&mut queue) {
            match all.admit(checked, *key, roots, before) {
                Ok(()) => {}
                Err(Refusal::Missing(missing)) => waiting.push((key, checked, missing)),
                Err(Refusal::Bad(fault)) => {
                    all.problems.push((*checked.head(), fault.to_string()));
                }
            }
        }
        if all.admitted.len() > admitted {
            // A false time sorts before what it follows.
            let again = std::mem::take(&mut waiting).into_iter();
            queue = again.map(|(key, checked, _)| (key, checked)).collect();
        }
    }
    for (_, checked, missing) in waiting {
        let object = replica.object(checked.head());
        let text = format!("{object} follows it, and it is not there or not whole");
        let missing = missing.into_iter().map(|head| (head, text.clone()));
        all.problems.extend(missing);
    }
    all.graph.hold(&all.standing.held());
    all
}

impl Admission {
    fn admit(
        &mut self,
        checked: &CheckedCommit,
        key: OrderKey,
        roots: &BTreeMap<CheckpointRef, Root>,
        before: &Standing,
    ) -> Result<(), Refusal> {
        let (head, commit) = (checked.head(), checked.commit());
        self.graph
            .admit_up_to(head, commit, before.highest_floor())?;
        for verdict in proposals(checked) {
            let reference = verdict.checkpoint;
            let named = self.graph.named_up_to(head, reference.floor);
            self.standing.propose(reference, verdict.digest, key, named);
            if let Some(root) = roots.get(&reference) {
                self.standing.believe(&reference, &Reach::of(root));
            }
        }
        if !self.graph.is_mistimed(head) {
            for verdict in refutations(checked) {
                self.standing.refute(verdict.checkpoint, commit.device);
            }
        }
        self.admitted.insert(key, checked.clone());
        Ok(())
    }
}

/// Admits and folds all commits by the rules, without cache and undo.
fn fold_all(
    replica: &Replica,
    report: &mut VerifyReport,
    commits: BTreeMap<Hash32, CheckedCommit>,
    roots: &BTreeMap<CheckpointRef, Root>,
) -> Result<Hash32, RowsError> {
    let room = replica.env.names.0;
    let place = |checked: CheckedCommit| {
        let (head, lamport) = (checked.head(), checked.commit().lamport);
        let key = OrderKey::new(room, head.lane, lamport, head.seq, &head.hash);
        (key, checked)
    };
    let in_order: InOrder = commits.into_values().map(place).collect();
    let mut all = admit_all(replica, &in_order, roots, &Standing::default());
    for _ in 0..ROUNDS {
        let again = admit_all(replica, &in_order, roots, &all.standing);
        let stable = again.standing == all.standing;
        all = again;
        if stable {
            break;
        }
    }
    for (head, text) in &all.problems {
        report.problem(replica.object(head), text);
    }
    let mut rows = MemoryRows::default();
    for checked in all.admitted.values() {
        let (head, lamport) = (checked.head(), checked.commit().lamport);
        if !all.graph.is_void(head) && !all.standing.voids(&all.graph, head, lamport) {
            Core::fold_one(&mut rows, checked.commit())?;
        }
    }
    let mut digest = DigestOfRows::default();
    rows.0
        .iter()
        .for_each(|(key, value)| digest.row(key, value));
    Ok(digest.finish().1)
}
