//! Giving space back: segments that nobody needs any more are deleted from the storage (docs/adr/0015).

use crate::commit::weigh;
use crate::core::Fs;
use crate::error::FsError;
use crate::poll::until_stopped;
use skrin_base::{SegmentId, SegmentInfo};
use skrin_meta::replica::{Garbage, GarbageRules};
use skrin_meta::{OpKind, state};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;
use tokio::sync::watch;

const DAY: Duration = Duration::from_secs(86_400);
/// The first look after a mount: between these two, by chance, so that devices do not all do it at once.
const FIRST: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(4 * 3600));
/// Nobody is waited for who has been away for so long.
const AWAY: Duration = Duration::from_secs(90 * 86_400);
/// A clock that jumped ahead is put right within this time, or its time is true.
const PROOF: Duration = DAY;
/// Seconds of the past that are kept, where nobody has said anything.
const RETENTION: u64 = 30 * 86_400;
/// Pause between two deletions: other work goes on.
const PAUSE: Duration = Duration::from_millis(20);
/// Less than this, or than this part of what lies on the storage, is not worth reading all commits for without being asked.
const WORTH: (u64, u64) = (64 << 20, 20);

/// What was freed and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Segments on the storage before.
    pub stored: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Segments that were deleted, uploads that a crash cut off among them.
    pub freed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Segments that no file of today names and that had to stay.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Objects among the segments that no commit knows: uploads under way, or not ours. They are never touched.
    pub unknown: u64,
    /// What keeps the rest.
    pub holds: Vec<String>,
}

impl Collected {
    fn of(stored: &BTreeMap<SegmentId, Option<u64>>, others: usize) -> Self {
        Self {
            stored: stored.len() as u64,
            stored_bytes: stored.values().flatten().sum(),
            unknown: others as u64,
            ..Self::default()
        }
    }
}

impl Fs {
    /// Uploads what is pending, then deletes from the storage what nobody needs any more. Waits for the storage.
    ///
    /// # Errors
    /// A read-only mount; of the storage, and then it may be called again.
    pub fn collect(&self) -> Result<Collected, FsError> {
        self.check_writable()?;
        self.flush_all()?;
        self.upload_all(|_| ())?;
        self.runtime.block_on(self.collect_now())
    }

    /// How many seconds of the past are kept; 0 is for ever.
    ///
    /// # Errors
    /// Of the local cache.
    pub fn retention(&self) -> Result<u64, FsError> {
        Ok(state::retention(&self.replica.tree())?.unwrap_or(RETENTION))
    }

    /// Says how many seconds of the past are kept, for all devices; 0 is for ever.
    ///
    /// # Errors
    /// A read-only mount; of the journal; of the storage.
    pub fn set_retention(&self, seconds: u64) -> Result<(), FsError> {
        self.commit(|_| Ok(OpKind::Retention { seconds }))?;
        self.upload_all(|_| ())
    }

    async fn collect_now(&self) -> Result<Collected, FsError> {
        self.prepare().await?;
        let now = self.clock.now();
        self.take_in_now().await?;
        let history = self.replica.history(now, |_| ()).await?;
        let keep = self.needed()?;
        let retention = Some(self.retention()?).filter(|seconds| *seconds != 0);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let rules = GarbageRules {
            now,
            retention: retention.map(|seconds| nanos(Duration::from_secs(seconds))),
            unproven: nanos(PROOF.min(Duration::from_secs(retention.unwrap_or(0)))),
            away: nanos(AWAY),
        };
        let garbage = self.replica.garbage(history, keep, rules).await?;
        self.free(garbage).await
    }

    /// Makes a checkpoint if one is worth it, and says that this device needs nothing of what was before.
    async fn prepare(&self) -> Result<(), FsError> {
        if !self.replica.unnamed_segments()?.is_empty() {
            // The floor lies below the newest commit of each open lane.
            self.publish_heads().await?;
            self.replica.checkpoint().await?;
        }
        // The first proposes, the second releases what it proposed.
        self.publish_heads().await?;
        if self.replica.tree().releasable().is_some() {
            self.publish_heads().await?;
        }
        Ok(())
    }

    async fn take_in_now(&self) -> Result<(), FsError> {
        let diff = self.replica.pull().await?;
        self.invalidate(diff)
    }

    /// What this device needs itself, whatever anybody says.
    fn needed(&self) -> Result<BTreeSet<SegmentId>, FsError> {
        // Files first: what they hold comes to the tree when they are told.
        let mut needed: BTreeSet<SegmentId> = BTreeSet::new();
        for file in self.files.all() {
            needed.extend(file.state.lock().content.segments());
        }
        needed.extend(self.data.undeclared());
        let tree = self.replica.tree();
        for op in tree.pending() {
            needed.extend(weigh(&op?.kind).1);
        }
        Ok(needed)
    }

    async fn free(&self, garbage: Garbage) -> Result<Collected, FsError> {
        let (stored, others) = self.data.stored().await?;
        let mut collected = Collected::of(&stored, others);
        collected.holds = garbage.holds.iter().map(ToString::to_string).collect();
        let dead = garbage.dead.iter().map(|info| info.id);
        let gone: BTreeSet<SegmentId> = dead.chain(garbage.given_up).collect();
        for (id, len) in &stored {
            if gone.contains(id) && !self.data.is_undeclared(id) {
                self.data.delete(*id).await?;
                collected.freed += 1;
                collected.freed_bytes += len.unwrap_or(0);
                tokio::time::sleep(PAUSE).await;
            }
        }
        for info in self.replica.unnamed_segments()? {
            if stored.contains_key(&info.id) && !gone.contains(&info.id) {
                collected.kept += 1;
                collected.kept_bytes += info.object_len;
            }
        }
        let tree = self.replica.tree();
        for id in stored.keys().filter(|id| !gone.contains(id)) {
            let declared = state::segment(&tree, *id)?.is_some();
            let known = declared || self.data.is_undeclared(id) || tree.redeclares(id);
            collected.unknown += u64::from(!known);
        }
        Ok(collected)
    }

    /// Whether enough lies on the storage that no file names.
    async fn is_worth_collecting(&self) -> Result<bool, FsError> {
        let unnamed = self.replica.unnamed_segments()?;
        let bytes = |infos: &[SegmentInfo]| infos.iter().map(|i| i.object_len).sum();
        let most: u64 = bytes(&unnamed);
        if most < WORTH.0 {
            return Ok(false);
        }
        let (stored, _) = self.data.stored().await?;
        let all: u64 = stored.values().flatten().sum();
        let there = unnamed.iter().filter(|info| stored.contains_key(&info.id));
        let there: u64 = there.map(|info| info.object_len).sum();
        Ok(there >= WORTH.0.max(all / WORTH.1))
    }

    /// Gives space back once a day, when there is something to gain.
    pub(crate) async fn collect_forever(weak: Weak<Self>, mut stop: watch::Receiver<bool>) {
        let Some(chance) = weak.upgrade().map(|fs| fs.entropy.u64()) else {
            return;
        };
        let spread = (FIRST.1 - FIRST.0).as_secs();
        let mut wait = FIRST.0 + Duration::from_secs(chance % spread);
        loop {
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = DAY;
            let Some(fs) = weak.upgrade() else { return };
            let Some(collected) = until_stopped(&mut stop, fs.collect_if_worth_it()).await else {
                return;
            };
            match collected {
                Ok(Some(done)) => tracing::info!(?done, "space was given back"),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "no space could be given back"),
            }
        }
    }

    async fn collect_if_worth_it(&self) -> Result<Option<Collected>, FsError> {
        match self.is_worth_collecting().await? {
            true => self.collect_now().await.map(Some),
            false => Ok(None),
        }
    }
}
