//! What a reader is not shown, and putting objects of the lanes again that the storage lost or damaged.

use super::Replica;
use super::admission::is_about_the_object;
use super::error::ReplicaError;
use super::own::OwnCommits;
use super::verify::{Problem, ProblemKind};
use crate::commit::{CheckedCommit, open_commit};
use crate::lane::{Head, TIP_CONTENT, parse_tip};
use bytes::Bytes;
use skrin_base::LaneId;
use skrin_base::limits::COMMIT_MAX;
use skrin_storage::{ObjectName, put_over};
use std::collections::BTreeMap;
use std::path::Path;

/// An object that was put again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutAgain {
    /// Its name.
    pub object: String,
    /// Whether the storage did not show it at all; else it showed other bytes.
    pub was_missing: bool,
}

impl Replica {
    /// What lies in the lanes and is not in the state here, though nothing of it is void: commits to which no tip leads, and
    /// commits that are not what was written. Pull first.
    ///
    /// # Errors
    /// A storage that cannot be reached.
    pub async fn left_out(&self) -> Result<Vec<Problem>, ReplicaError> {
        let (hidden, mut problems) = self.not_taken_in().await?;
        for head in hidden {
            problems.push(Problem {
                kind: ProblemKind::Hidden,
                object: self.env.names.tip(&head)?.to_string(),
                text: "no tip leads to its commit, so what that says is not shown".to_owned(),
            });
        }
        Ok(problems)
    }

    /// The newest commit of each lane that is there and was not taken in, and what is wrong with others.
    async fn not_taken_in(&self) -> Result<(Vec<Head>, Vec<Problem>), ReplicaError> {
        let mut unknown = self.lane_files().await?;
        {
            let (graph, cuts) = (&self.core.lock().graph, self.cuts());
            let is_void = |head: &Head| {
                let lane = graph.lanes.get(&head.lane);
                let closed = lane.and_then(|lane| lane.closed);
                let device = lane.map(|lane| lane.device);
                let device = device.or_else(|| cuts.device_of(&head.lane));
                closed.is_some_and(|last| head.seq > last)
                    || device.is_some_and(|of| cuts.are_passed(&of, &head.lane, head.seq))
            };
            unknown.retain(|head| !graph.knows(head) && !is_void(head));
        }
        let (mut newest, mut problems) = (BTreeMap::<LaneId, Head>::new(), Vec::new());
        self.read_commits(unknown, |head, checked| match checked.as_ref() {
            // Only its commit says whose a lane is of which no cut and no commit here speaks.
            Ok(checked) if self.is_passed(checked) => {}
            Ok(checked) => note_newest(&mut newest, checked),
            Err(problem) if problem.kind == ProblemKind::Missing => {}
            Err(problem) => {
                tracing::debug!(%head, "a commit that is not whole");
                problems.push(problem.clone());
            }
        })
        .await?;
        Ok((newest.into_values().collect(), problems))
    }

    /// Puts the commits again that the device of a state directory wrote and still keeps, where the storage does not show
    /// them as they are. Only what opens under its name is put. Returns the objects.
    ///
    /// # Errors
    /// Of the storage and of the local disk.
    pub async fn put_kept_again(&self, state_dir: &Path) -> Result<Vec<PutAgain>, ReplicaError> {
        let kept = OwnCommits::new(state_dir);
        let mut put = Vec::new();
        for head in kept.list()? {
            let sealed = kept.read(&head)?;
            let name = self.env.names.commit(&head)?;
            let opens = |bytes: &[u8]| {
                open_commit(&head, bytes, &self.env.keys(), &self.env.roster.read()).is_ok()
            };
            let shown = match self.env.store.get(&name, COMMIT_MAX).await {
                Ok(bytes) => Ok(bytes),
                Err(error) if is_about_the_object(&error) => Err(error.is_absent()),
                Err(error) => return Err(error.into()),
            };
            let was_missing = match shown {
                Ok(bytes) if opens(&bytes) => continue,
                Ok(_) => false,
                Err(was_missing) => was_missing,
            };
            if !opens(&sealed.bytes) {
                continue;
            }
            put_over(&*self.env.store, &name, sealed.bytes).await?;
            put.push(PutAgain {
                object: name.to_string(),
                was_missing,
            });
        }
        Ok(put)
    }

    /// Puts the tips again that `left_out` called hidden, and those that hold something else than they must: all that a tip
    /// says is its name.
    ///
    /// # Errors
    /// Of the storage.
    pub async fn put_tips_again(&self, hidden: &[Problem]) -> Result<Vec<PutAgain>, ReplicaError> {
        let hidden = hidden
            .iter()
            .filter(|problem| problem.kind == ProblemKind::Hidden);
        let mut wrong: Vec<(ObjectName, bool)> = Vec::new();
        for problem in hidden {
            wrong.push((ObjectName::new(problem.object.as_str())?, true));
        }
        let listing = self.env.store.list(&self.env.names.tips()?).await?;
        for listed in listing.objects {
            if parse_tip(listed.name.file_name()).is_none() {
                continue;
            }
            match self.env.store.get(&listed.name, TIP_CONTENT.len()).await {
                Ok(bytes) if &*bytes == TIP_CONTENT => {}
                // The lane went on meanwhile.
                Err(error) if error.is_absent() => {}
                Err(error) if !is_about_the_object(&error) => return Err(error.into()),
                Ok(_) | Err(_) => wrong.push((listed.name, false)),
            }
        }
        let mut put = Vec::new();
        for (name, was_missing) in wrong {
            put_over(&*self.env.store, &name, Bytes::from_static(TIP_CONTENT)).await?;
            put.push(PutAgain {
                object: name.to_string(),
                was_missing,
            });
        }
        Ok(put)
    }
}

fn note_newest(newest: &mut BTreeMap<LaneId, Head>, checked: &CheckedCommit) {
    let head = *checked.head();
    let known = newest.entry(head.lane).or_insert(head);
    if head.seq > known.seq {
        *known = head;
    }
}
