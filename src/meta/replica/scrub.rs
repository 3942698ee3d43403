//! Looking at the metadata objects of a room one after the other, without folding anything: for who checks slowly, beside a mount.

use super::Replica;
use super::admission::is_about_the_object;
use super::error::ReplicaError;
use super::load::{get_page, get_root};
use super::verify::{Problem, ProblemKind};
use crate::checkpoint::Root;
use crate::commit::CheckpointRef;
use crate::lane::Head;
use skrin_base::limits::PAGE_LEN;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An object to look at.
#[derive(Clone, Debug)]
pub struct MetaObject(Which);

#[derive(Clone, Debug)]
enum Which {
    Commit(Head),
    Checkpoint(CheckpointRef),
    Page(Arc<Root>, usize),
}

/// What was found out about one.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// About how many bytes were read.
    pub bytes: u64,
    /// What is wrong with it.
    pub problem: Option<Problem>,
    /// What it leads to.
    pub more: Vec<MetaObject>,
}

impl Replica {
    /// Every commit that lies in the lanes or was taken in, and the checkpoints that are proposed or stand.
    ///
    /// # Errors
    /// A storage that cannot be reached.
    pub async fn meta_objects(&self) -> Result<Vec<MetaObject>, ReplicaError> {
        let mut heads: BTreeSet<Head> = self.lane_files().await?.into_iter().collect();
        heads.extend(self.seen_commits());
        let standing = {
            let core = self.core.lock();
            let candidates = core.meta.standing.candidates.iter();
            let references = candidates.map(|candidate| candidate.reference);
            let refuted = |reference: &CheckpointRef| core.meta.standing.is_refuted(reference);
            references
                .filter(|reference| !refuted(reference))
                .collect::<Vec<_>>()
        };
        let checkpoints = standing.into_iter().map(Which::Checkpoint);
        let commits = heads.into_iter().map(Which::Commit);
        Ok(commits.chain(checkpoints).map(MetaObject).collect())
    }

    /// Reads one of them and checks it by itself.
    ///
    /// # Errors
    /// A storage that cannot be reached; whatever is wrong with the object is in the answer.
    pub async fn look_at(&self, object: &MetaObject) -> Result<Looked, ReplicaError> {
        let mut looked = Looked::default();
        match &object.0 {
            Which::Commit(head) => {
                self.read_commits([*head], |_, checked| match checked {
                    Ok(checked) => looked.bytes = checked.len() as u64,
                    Err(problem) => looked.problem = Some(problem),
                })
                .await?;
            }
            Which::Checkpoint(reference) => match get_root(&self.env, reference).await {
                Ok(root) => {
                    let root = Arc::new(root);
                    let pages = 0..root.pages.len();
                    let page = |n| MetaObject(Which::Page(Arc::clone(&root), n));
                    looked.bytes = PAGE_LEN as u64;
                    looked.more = pages.map(page).collect();
                }
                Err(error) => {
                    let name = self.env.names.checkpoint(&reference.name)?;
                    looked.problem = Some(about(name.to_string(), error)?);
                }
            },
            Which::Page(root, n) => {
                if let Some(page) = root.pages.get(*n) {
                    looked.bytes = PAGE_LEN as u64;
                    if let Err(error) = get_page(&self.env, root, page).await {
                        let name = self.env.names.page(&page.name)?;
                        looked.problem = Some(about(name.to_string(), error)?);
                    }
                }
            }
        }
        Ok(looked)
    }
}

/// What an error says about an object of a checkpoint, unless it is one of the way to it.
fn about(object: String, error: ReplicaError) -> Result<Problem, ReplicaError> {
    let (kind, text) = match error {
        ReplicaError::Checkpoint { fault, .. } => (ProblemKind::Damaged, fault.to_string()),
        ReplicaError::Store(error) if is_about_the_object(&error) => {
            (ProblemKind::of(&error), error.to_string())
        }
        other => return Err(other),
    };
    Ok(Problem { kind, object, text })
}
