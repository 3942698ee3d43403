//! What commits name below the checkpoint with which this device began: whether it lies in that checkpoint.

use super::Env;
use super::error::ReplicaError;
use super::fetch::Inbox;
use super::graph::Graph;
use crate::commit::open_commit;
use crate::lane::Head;
use skrin_base::limits::COMMIT_MAX;
use skrin_base::{Hash32, LaneId};
use skrin_storage::ErrorKind;
use std::collections::{BTreeMap, HashSet};

/// So many commits of a lane are walked back. What is named honestly was written shortly before the checkpoint.
const WALKED_AT_MOST: usize = 1024;

/// Commits that are known to lie in the checkpoint with which this device began.
#[derive(Default)]
pub(super) struct Past(HashSet<Hash32>);

/// What was named of one lane below a checkpoint, and where the lane ends in that.
struct Asked {
    ends: Vec<Head>,
    named: Vec<Head>,
}

/// What is to be looked up.
pub(super) struct Question(BTreeMap<LaneId, Asked>);

impl Past {
    /// What the commits in the inbox name with numbers that the checkpoint holds, as far as it was not looked up before.
    pub(super) fn question(&self, inbox: &Inbox, graph: &Graph) -> Question {
        let mut lanes: BTreeMap<LaneId, Asked> = BTreeMap::new();
        for waiting in inbox.held.values() {
            for head in Graph::parents(waiting.commit()) {
                if graph.is_below(&head) && !self.0.contains(&head.hash) {
                    let (ends, named) = (graph.ends_of(head.lane), Vec::new());
                    let lane = lanes.entry(head.lane);
                    lane.or_insert(Asked { ends, named }).named.push(head);
                }
            }
        }
        Question(lanes)
    }

    /// Whether all of it lies in the checkpoint. Otherwise a lane was forked below it: who folds all commits takes both
    /// branches in, and who begins with the checkpoint cannot.
    ///
    /// # Errors
    /// A storage that cannot be reached.
    pub(super) async fn holds(
        &mut self,
        env: &Env,
        question: Question,
    ) -> Result<bool, ReplicaError> {
        for asked in question.0.into_values() {
            let lowest = asked.named.iter().map(|head| head.seq).min().unwrap_or(0);
            for end in asked.ends {
                self.walk(env, end, lowest).await?;
            }
            if !asked.named.iter().all(|head| self.0.contains(&head.hash)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Walks a lane back to this number, as far as the storage has good commits.
    async fn walk(&mut self, env: &Env, end: Head, lowest: u64) -> Result<(), ReplicaError> {
        let mut next = end;
        for _ in 0..WALKED_AT_MOST {
            self.0.insert(next.hash);
            if next.seq <= lowest {
                return Ok(());
            }
            let name = env.names.commit(&next)?;
            let bytes = match env.store.get(&name, COMMIT_MAX).await {
                Ok(bytes) => bytes,
                Err(error) if error.is_absent() || error.kind() == ErrorKind::Broken => {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            let Ok(checked) = open_commit(&next, &bytes, &env.keys(), &env.roster.read()) else {
                return Ok(());
            };
            (next.seq, next.hash) = (next.seq - 1, checked.commit().prev);
        }
        Ok(())
    }
}
