//! Making a checkpoint: fix the state at the floor, cut it into pages, put those that are new, then the root.

use super::core::Core;
use super::error::ReplicaError;
use super::load::get_root;
use super::publish::Proposal;
use super::{Env, Replica};
use crate::apply::RULE_SET;
use crate::cache::Snapshot;
use crate::checkpoint::{
    CoveredLane, DigestOfRows, PageContent, PageRef, Paginator, Root, seal_page, seal_root,
};
use crate::commit::CheckpointRef;
use crate::rows::RowsError;
use bytes::Bytes;
use skrin_base::clock::random;
use skrin_base::{EpochId, Hash32};
use skrin_crypto::hash;
use skrin_storage::disk::blocking;
use skrin_storage::put_confirmed;
use std::collections::HashMap;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Pages that may wait to be put; bounds memory to a few MiB.
const PAGES_WAITING: usize = 8;

/// What is fixed under the lock.
struct Plan {
    snapshot: Snapshot,
    floor: u64,
    covered: Vec<CoveredLane>,
    parent: Option<CheckpointRef>,
}

impl Replica {
    /// Makes a checkpoint if enough has come since the last one and the floor has risen; the next commit proposes it.
    /// Returns whether one was made. Runs beside everything else, and takes as long as putting its pages takes.
    ///
    /// # Errors
    /// A storage that cannot be reached or is full; then the pages that were put are left over.
    pub async fn checkpoint_if_due(&self) -> Result<bool, ReplicaError> {
        {
            let core = self.core.lock();
            let policy = &self.env.checkpoints;
            let due = core.meta.ops_since >= policy.ops || core.meta.bytes_since >= policy.bytes;
            if !self.has_a_say() || !due {
                return Ok(false);
            }
        }
        self.checkpoint().await
    }

    /// Makes a checkpoint at the floor, if that lies above the last one.
    ///
    /// # Errors
    /// As `checkpoint_if_due`.
    pub async fn checkpoint(&self) -> Result<bool, ReplicaError> {
        if !self.has_a_say() || self.net.lock().await.proposal.is_some() {
            return Ok(false);
        }
        let Some(plan) = self.plan()? else {
            return Ok(false);
        };
        let (reference, root) = self.put_checkpoint(plan).await?;
        self.net.lock().await.proposal = Some(Proposal { reference, root });
        Ok(true)
    }

    fn plan(&self) -> Result<Option<Plan>, ReplicaError> {
        let core = self.core.lock();
        if core.must_be_folded_again() {
            return Ok(None);
        }
        let floor = core.graph.floor();
        let parent = core.meta.standing.current().map(|c| c.reference);
        if floor == 0 || parent.is_some_and(|parent| parent.floor >= floor) {
            return Ok(None);
        }
        let Some(snapshot) = core.snapshot_at(floor)? else {
            return Ok(None);
        };
        Ok(Some(Plan {
            covered: covered_at(&core, floor),
            snapshot,
            floor,
            parent,
        }))
    }

    async fn put_checkpoint(&self, plan: Plan) -> Result<(CheckpointRef, Root), ReplicaError> {
        let keys = self.env.keys();
        let (epoch, commitment) = keys.current();
        let mut reusable = match &plan.parent {
            Some(parent) => reusable_pages(&self.env, parent, &epoch).await?,
            None => HashMap::new(),
        };
        let (send, mut receive) = mpsc::channel(PAGES_WAITING);
        let snapshot = plan.snapshot;
        let cutting = blocking(&Handle::current(), move || cut(&snapshot, &send));
        let mut pages = Vec::new();
        while let Some(content) = receive.recv().await {
            let page = match reusable.remove(&content.plain_hash()) {
                Some(page) if page.first_key == content.first_key => page,
                _ => put_page(&self.env, &content, &epoch).await?,
            };
            pages.push(page);
        }
        let (rows, digest) = cutting.await.map_err(|_| ReplicaError::Ending)??;
        let root = Root {
            optional: 0,
            vault: keys.vault(),
            room: keys.room(),
            name: random(&*self.env.entropy),
            epoch,
            commitment,
            device: self.env.device,
            time: self.env.clock.now(),
            floor: plan.floor,
            parent: plan.parent,
            covered: plan.covered,
            control: self.env.roster.read().control_heads.clone(),
            rules: RULE_SET,
            rows,
            digest,
            pages,
        };
        let object = self.env.names.checkpoint(&root.name)?;
        let sealed = seal_root(&root, &keys, &self.env.signer, &*self.env.entropy);
        let (reference, bytes) = sealed.map_err(|fault| {
            let object = object.to_string();
            ReplicaError::Checkpoint { object, fault }
        })?;
        put_confirmed(&*self.env.store, &object, bytes).await?;
        Ok((reference, root))
    }
}

/// What a checkpoint at this floor holds of each lane, and where the lane ends if it does.
pub(super) fn covered_at(core: &Core, floor: u64) -> Vec<CoveredLane> {
    let lanes = core.graph.lanes.iter().flat_map(|(id, lane)| {
        let ends = core.graph.last_at(*id, floor);
        let last = ends.iter().map(|end| end.seq).max();
        let closed = lane.closed.filter(|closed| Some(*closed) <= last);
        let time = lane.tip().map(|tip| tip.time).unwrap_or_default();
        ends.into_iter().map(move |end| CoveredLane {
            lane: *id,
            device: lane.device,
            incarnation: lane.incarnation,
            seq: end.seq,
            hash: end.hash,
            lamport: end.lamport,
            time,
            closed,
        })
    });
    lanes.collect()
}

/// Pages of the last checkpoint by what they hold; a new one with the same contents is not put again.
async fn reusable_pages(
    env: &Env,
    parent: &CheckpointRef,
    epoch: &EpochId,
) -> Result<HashMap<Hash32, PageRef>, ReplicaError> {
    let root = match get_root(env, parent).await {
        Ok(root) if root.epoch == *epoch => root,
        Ok(_) => return Ok(HashMap::new()),
        Err(error) if error.is_transient() => return Err(error),
        Err(error) => {
            tracing::warn!(%error, "the last checkpoint cannot be used again");
            return Ok(HashMap::new());
        }
    };
    let pages = root.pages.into_iter().map(|page| (page.plain_hash, page));
    Ok(pages.collect())
}

/// Cuts all rows into pages and sends them; ends early if nobody takes them any more.
fn cut(snapshot: &Snapshot, pages: &mpsc::Sender<PageContent>) -> Result<(u64, Hash32), RowsError> {
    let mut paginator = Paginator::default();
    let mut digest = DigestOfRows::default();
    snapshot.for_each(|key, value| {
        digest.row(&key, &value);
        for page in paginator.row(&key, &value) {
            send(pages, page)?;
        }
        Ok::<_, RowsError>(())
    })?;
    if let Some(page) = paginator.finish() {
        send(pages, page)?;
    }
    Ok(digest.finish())
}

fn send(pages: &mpsc::Sender<PageContent>, page: PageContent) -> Result<(), RowsError> {
    let sent = match pages.try_send(page) {
        Err(TrySendError::Full(page)) => pages.blocking_send(page).is_ok(),
        sent => sent.is_ok(),
    };
    let stopped = || RowsError::Cache("the checkpoint was given up".to_owned());
    sent.then_some(()).ok_or_else(stopped)
}

async fn put_page(
    env: &Env,
    content: &PageContent,
    epoch: &EpochId,
) -> Result<PageRef, ReplicaError> {
    let name = random(&*env.entropy);
    let object = env.names.page(&name)?;
    let sealed = seal_page(content, name, epoch, &env.keys(), &*env.entropy);
    let sealed = sealed.map_err(|fault| {
        let object = object.to_string();
        ReplicaError::Checkpoint { object, fault }
    })?;
    let page = PageRef {
        name,
        hash: hash(&sealed),
        plain_hash: content.plain_hash(),
        first_key: content.first_key.clone(),
    };
    put_confirmed(&*env.store, &object, Bytes::from(sealed)).await?;
    Ok(page)
}
