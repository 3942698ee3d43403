//! What commits name below the checkpoint with which this device began: whether it lies in that checkpoint, and with which times.

use super::Env;
use super::error::ReplicaError;
use super::fetch::Inbox;
use super::graph::Graph;
use crate::commit::{Commit, open_commit};
use crate::lane::Head;
use skrin_base::limits::COMMIT_MAX;
use skrin_base::{Hash32, LaneId};
use skrin_storage::ErrorKind;
use std::collections::{BTreeMap, HashMap};

/// So many commits of a lane are walked back. What is named honestly was written shortly before the checkpoint.
const WALKED_AT_MOST: usize = 1024;

/// Commits that are known to lie in the checkpoint with which this device began, with their Lamport times where the storage has
/// them.
#[derive(Default)]
pub(super) struct Past(HashMap<Hash32, Option<u64>>);

/// What was named of one lane below a checkpoint, and where the lane ends in that.
struct Asked {
    ends: Vec<Head>,
    named: Vec<Head>,
}

/// What is to be looked up.
#[derive(Default)]
pub(super) struct Question {
    lanes: BTreeMap<LaneId, Asked>,
    /// Ends of lanes with the times that the root says, where what follows them makes these doubtful.
    doubtful: BTreeMap<Head, u64>,
}

impl Past {
    /// What the commits in the inbox name with numbers that the checkpoint holds, as far as it was not looked up before.
    pub(super) fn question(&self, inbox: &Inbox, graph: &Graph) -> Question {
        let mut question = Question::default();
        let floor = graph.latest_covered();
        for waiting in inbox.held.values() {
            // What the root names is not admitted, and may name what lies long before it.
            if graph.covered_time(waiting.head()).is_some() {
                continue;
            }
            // Own ones that lie in the checkpoint are not admitted once more.
            let is_new = !graph.knows(waiting.head());
            let previous = Graph::previous(waiting.commit()).filter(|_| is_new);
            for head in Graph::parents(waiting.commit()) {
                if !graph.is_below(&head) {
                    continue;
                }
                let is_followed = previous == Some(head);
                let known = self.0.get(&head.hash);
                if known.is_some_and(|time| time.is_some() || !is_followed) {
                    continue;
                }
                let (ends, named) = (graph.ends_of(head.lane), Vec::new());
                let lane = question.lanes.entry(head.lane);
                lane.or_insert(Asked { ends, named }).named.push(head);
            }
            if is_new {
                let ends = self.doubtful(inbox, graph, waiting.commit(), floor);
                question.doubtful.extend(ends);
            }
        }
        question
    }

    /// The ends of lanes that a commit follows, with the times that the root says, if the commit says another time than these give: one of
    /// the two lies. Or if it has a time that the checkpoint should hold: then they may lie together.
    fn doubtful(
        &self,
        inbox: &Inbox,
        graph: &Graph,
        commit: &Commit,
        floor: u64,
    ) -> Vec<(Head, u64)> {
        let time = |head: &Head| {
            let waiting = inbox.held.get(&head.hash);
            let said = waiting.map(|waiting| waiting.commit().lamport);
            graph.covered_time(head).or(graph.admitted(head)).or(said)
        };
        let latest = Graph::parents(commit).filter_map(|head| time(&head)).max();
        let computed = latest.unwrap_or(0).saturating_add(1);
        if commit.lamport == computed && commit.lamport > floor {
            return Vec::new();
        }
        let ends =
            Graph::parents(commit).filter_map(|head| Some((head, graph.covered_time(&head)?)));
        // One that was looked up and is as the root says is not asked for again.
        ends.filter(|(head, said)| self.time_of(&head.hash) != Some(*said))
            .collect()
    }

    /// The Lamport time of a commit that lies in the checkpoint, if it was looked up and can be had.
    pub(super) fn time_of(&self, commit: &Hash32) -> Option<u64> {
        self.0.get(commit).copied().flatten()
    }

    /// Whether all of it lies in the checkpoint, with the times that the root says. Otherwise a lane was forked below it: who folds
    /// all commits takes both branches in, and who begins with the checkpoint cannot; or the root lies.
    ///
    /// # Errors
    /// A storage that cannot be reached.
    pub(super) async fn holds(
        &mut self,
        env: &Env,
        question: Question,
    ) -> Result<bool, ReplicaError> {
        for (end, said) in &question.doubtful {
            let time = self.look(env, end).await?.map(|(lamport, _)| lamport);
            if time.is_some_and(|time| time != *said) {
                return Ok(false);
            }
        }
        for asked in question.lanes.into_values() {
            let lowest = asked.named.iter().map(|head| head.seq).min().unwrap_or(0);
            for end in asked.ends {
                self.walk(env, end, lowest).await?;
            }
            if !asked
                .named
                .iter()
                .all(|head| self.0.contains_key(&head.hash))
            {
                return Ok(false);
            }
        }
        // Where the time of one that another follows in its lane cannot be had, that other one waits.
        Ok(true)
    }

    /// Walks a lane back to this number, as far as the storage has good commits.
    async fn walk(&mut self, env: &Env, end: Head, lowest: u64) -> Result<(), ReplicaError> {
        let mut next = end;
        for _ in 0..WALKED_AT_MOST {
            self.0.entry(next.hash).or_default();
            let Some((_, prev)) = self.look(env, &next).await? else {
                return Ok(());
            };
            if next.seq <= lowest {
                return Ok(());
            }
            (next.seq, next.hash) = (next.seq - 1, prev);
        }
        Ok(())
    }

    /// Gets a commit that the checkpoint holds, if the storage has a good one: its time, and the one before it.
    async fn look(
        &mut self,
        env: &Env,
        head: &Head,
    ) -> Result<Option<(u64, Hash32)>, ReplicaError> {
        let name = env.names.commit(head)?;
        let bytes = match env.store.get(&name, COMMIT_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() || error.kind() == ErrorKind::Broken => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let opened = open_commit(head, &bytes, &env.keys(), &env.roster.read());
        let found = opened.ok().map(|checked| {
            let commit = checked.commit();
            (commit.lamport, commit.prev)
        });
        if let Some((lamport, _)) = found {
            self.0.insert(head.hash, Some(lamport));
        }
        Ok(found)
    }
}
