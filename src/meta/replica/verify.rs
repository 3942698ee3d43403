//! Looking at every metadata object of a room on the storage, and folding everything from the first commit.

use super::Replica;
use super::admission::{AT_ONCE, Admission, in_order, is_about_the_object};
use super::error::ReplicaError;
use super::load::{get_page, get_root};
use super::pull::proposals;
use super::standing::Reach;
use crate::checkpoint::{DigestOfRows, Root, RowAssembler};
use crate::commit::{CheckedCommit, CheckpointRef};
use crate::lane::Head;
use crate::lane::{parse_control_tip, parse_tip};
use crate::rows::{MemoryRows, RowsError};
use futures_util::stream::{self, StreamExt};
use skrin_base::{Hash32, LaneId};
use skrin_storage::{Listed, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often it is looked for what leads to a commit, and the time between: a tip follows its commit by one request.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

/// In which way something is wrong with an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ProblemKind {
    /// The storage does not have it.
    Missing,
    /// It holds other bytes than those that were put.
    Damaged,
    /// Its bytes are those of its maker, and contradict what they follow: nobody takes them in.
    Refused,
    /// A tip that names a commit which is not there or not whole.
    Dangling,
    /// A tip that is not there, though nothing else leads to its commit: what it says is hidden from who has not seen it.
    Hidden,
    /// The state here is not what the objects give.
    Differs,
}

impl ProblemKind {
    /// What the storage's own error about an object says.
    pub(super) fn of(error: &StoreError) -> Self {
        match error.is_absent() {
            true => Self::Missing,
            false => Self::Damaged,
        }
    }
}

/// Something wrong with an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// In which way.
    pub kind: ProblemKind,
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
    fn problem(&mut self, kind: ProblemKind, object: impl ToString, text: impl ToString) {
        self.problems.push(Problem {
            kind,
            object: object.to_string(),
            text: text.to_string(),
        });
    }
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
        // Before the commits that they name: others publish meanwhile, and put a commit before its tip.
        let tips = self.env.store.list(&self.env.names.tips()?).await?.objects;
        let commits = self.verify_commits(&mut report, &mut progress).await?;
        verify_tips(&mut report, &tips, &commits);
        let roots = self
            .verify_checkpoints(&mut report, &commits, &mut progress)
            .await?;
        let hidden = self.hidden(&commits);
        let known = self.known(&commits);
        let folded = fold_all(self, &mut report, commits, &roots)?;
        report.digest = Some(folded);
        let here = self.folded_digest()?;
        if here.is_none_or(|here| here == folded) {
            return Ok(report);
        }
        let seen = fold_all(self, &mut VerifyReport::default(), known, &roots)?;
        if report.problems.is_empty() && !hidden.is_empty() && here == Some(seen) {
            for head in self.still_hidden(hidden).await? {
                let text = "it is missing, and nothing else leads to its commit: who has not seen that is not shown it";
                report.problem(ProblemKind::Hidden, self.env.names.tip(&head)?, text);
            }
        } else {
            let text = "the local state differs from what the commits fold to: delete meta.db, or pull and verify again";
            report.problem(ProblemKind::Differs, "meta.db", text);
        }
        Ok(report)
    }

    /// The newest commit of each lane that is there, of those that this replica was not led to.
    fn hidden(&self, commits: &BTreeMap<Hash32, CheckedCommit>) -> Vec<Head> {
        let (core, cuts) = (self.core.lock(), self.cuts());
        let mut newest: BTreeMap<LaneId, Head> = BTreeMap::new();
        let may_count = commits.values().filter(|checked| {
            let (head, device) = (checked.head(), checked.commit().device);
            !cuts.are_passed(&device, &head.lane, head.seq)
        });
        let heads = may_count.map(CheckedCommit::head);
        for head in heads.filter(|head| !core.graph.knows(head)) {
            let known = newest.entry(head.lane).or_insert(*head);
            if head.seq > known.seq {
                *known = *head;
            }
        }
        newest.into_values().collect()
    }

    /// Those that this replica has taken in.
    fn known(&self, commits: &BTreeMap<Hash32, CheckedCommit>) -> BTreeMap<Hash32, CheckedCommit> {
        let core = self.core.lock();
        let known = commits.iter();
        let known = known.filter(|(_, checked)| core.graph.knows(checked.head()));
        known
            .map(|(hash, checked)| (*hash, checked.clone()))
            .collect()
    }

    /// To which of these nothing leads either when it is looked for again: who publishes meanwhile puts a commit before its tip.
    async fn still_hidden(&self, mut hidden: Vec<Head>) -> Result<Vec<Head>, ReplicaError> {
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            let mut net = self.net.lock().await;
            let pulled = self.pull_with(&mut net).await;
            self.show(&net);
            drop(net);
            pulled?;
            hidden.retain(|head| !self.core.lock().graph.knows(head));
            if hidden.is_empty() {
                break;
            }
        }
        Ok(hidden)
    }

    async fn verify_commits(
        &self,
        report: &mut VerifyReport,
        progress: &mut (impl FnMut(u64) + Send),
    ) -> Result<BTreeMap<Hash32, CheckedCommit>, ReplicaError> {
        let mut commits = BTreeMap::new();
        let heads = self.lane_files().await?;
        self.read_commits(heads, |head, checked| {
            match checked {
                Ok(checked) => drop(commits.insert(head.hash, checked)),
                Err(problem) => report.problems.push(problem),
            }
            report.commits += 1;
            progress(report.commits);
        })
        .await?;
        Ok(commits)
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
            ReplicaError::Checkpoint { object, fault } => {
                report.problem(ProblemKind::Damaged, object, fault);
            }
            ReplicaError::Store(error) if is_about_the_object(&error) => {
                let object = self.env.names.checkpoint(checkpoint)?;
                report.problem(ProblemKind::of(&error), object, error);
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
                Ok(content) if whole => {
                    let fault = rows.page(&content).err();
                    fault.map(|fault| (ProblemKind::Damaged, fault.to_string()))
                }
                Ok(_) => None,
                Err(ReplicaError::Checkpoint { fault, .. }) => {
                    Some((ProblemKind::Damaged, fault.to_string()))
                }
                Err(ReplicaError::Store(error)) if is_about_the_object(&error) => {
                    Some((ProblemKind::of(&error), error.to_string()))
                }
                Err(error) => return Err(error),
            };
            if let Some((kind, text)) = problem {
                whole = false;
                report.problem(kind, object, text);
            }
        }
        let matches = rows
            .finish()
            .is_ok_and(|(count, digest)| (count, digest) == (root.rows, root.digest));
        if whole && !matches {
            let text = "its pages are not the state that it promises";
            let object = self.env.names.checkpoint(&root.name)?;
            report.problem(ProblemKind::Damaged, object, text);
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

fn verify_tips(
    report: &mut VerifyReport,
    tips: &[Listed],
    commits: &BTreeMap<Hash32, CheckedCommit>,
) {
    let of_commits = tips
        .iter()
        .filter(|listed| parse_control_tip(listed.name.file_name()).is_none());
    for listed in of_commits {
        let tip = parse_tip(listed.name.file_name());
        let found = tip.and_then(|tip| commits.get(&tip.hash));
        if tip.is_none() || found.map(CheckedCommit::head) != tip.as_ref() {
            let text = "it names a commit that is not there or not whole";
            report.problem(ProblemKind::Dangling, &listed.name, text);
        }
    }
}

/// Admits and folds all commits by the rules, without cache and undo.
fn fold_all(
    replica: &Replica,
    report: &mut VerifyReport,
    commits: BTreeMap<Hash32, CheckedCommit>,
    roots: &BTreeMap<CheckpointRef, Root>,
) -> Result<Hash32, RowsError> {
    let commits = in_order(replica.env.names.0, commits.into_values());
    let reaches = roots.iter().map(|(at, root)| (*at, Reach::of(root)));
    let all = Admission::of(&commits, &reaches.collect(), &replica.cuts());
    for (head, fault) in &all.refused {
        report.problem(ProblemKind::Refused, replica.object(head), fault);
    }
    for (head, missing) in &all.waiting {
        let text = format!(
            "{} follows it, and it is not there or not whole",
            replica.object(head)
        );
        for missing in missing {
            report.problem(ProblemKind::Missing, replica.object(missing), &text);
        }
    }
    let mut rows = MemoryRows::default();
    all.fold(&mut rows, |_| usize::MAX)?;
    let mut digest = DigestOfRows::default();
    rows.0
        .iter()
        .for_each(|(key, value)| digest.row(key, value));
    Ok(digest.finish().1)
}
