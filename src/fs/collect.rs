//! Giving space back: segments that nobody needs any more are deleted from the storage (docs/adr/0015).

use crate::commit::weigh;
use crate::core::Fs;
use crate::error::FsError;
use crate::poll::until_stopped;
use skrin_base::{CopiedRun, Copies, SegmentId, SegmentInfo};
use skrin_data::DataError;
use skrin_meta::op::VERSION_RUNS_MAX;
use skrin_meta::replica::{Garbage, GarbageRules, Needed, Sparse};
use skrin_meta::usage::Located;
use skrin_meta::{OpKind, SlotRun, VersionRun, state};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

const DAY: Duration = Duration::from_secs(86_400);
/// After so many objects that cannot be deleted the others are not tried.
const UNDELETED_MAX: usize = 8;
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

/// A run repacks no more than so many bytes: a slow link has other things to do.
const REPACK_MAX: u64 = 256 << 20;
/// And nothing for less gain than this, which is a few small saves.
const REPACK_WORTH: u64 = 1 << 20;
/// After so many bytes it publishes, so that the journal is given back.
const REPACK_PART: u64 = 16 << 20;

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
    /// Segments of which little was needed, whose needed blocks were copied together; they are freed another time.
    pub repacked: u64,
    /// Bytes of what was copied, about.
    pub repacked_bytes: u64,
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

    /// Notes on this disk how many seconds of the past are kept, for all devices; 0 is for ever. It holds when it is on the storage.
    ///
    /// # Errors
    /// A read-only mount; of the journal.
    pub fn note_retention(&self, seconds: u64) -> Result<(), FsError> {
        self.commit(|_| Ok(OpKind::Retention { seconds }))?;
        Ok(self.journal.sync_all()?)
    }

    /// The same, and puts it there.
    ///
    /// # Errors
    /// The same; of the storage.
    pub fn set_retention(&self, seconds: u64) -> Result<(), FsError> {
        self.note_retention(seconds)?;
        self.upload_all(|_| ())
    }

    async fn collect_now(&self) -> Result<Collected, FsError> {
        self.prepare().await?;
        let now = self.clock.now();
        self.take_in_now().await?;
        let mut keep = Needed::default();
        self.add_needed(&mut keep)?;
        let history = self.replica.history(now, |_| ()).await?;
        // What was published since is not in it, and no longer pending.
        self.add_needed(&mut keep)?;
        let retention = Some(self.retention()?).filter(|seconds| *seconds != 0);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let rules = GarbageRules {
            now,
            retention: retention.map(|seconds| nanos(Duration::from_secs(seconds))),
            unproven: nanos(PROOF.min(Duration::from_secs(retention.unwrap_or(0)))),
            away: nanos(AWAY),
        };
        let mut garbage = self.replica.garbage(history, keep, rules).await?;
        let mut sparse = worth_repacking(std::mem::take(&mut garbage.sparse));
        let (mut collected, unsound) = self.free(&garbage).await?;
        for id in unsound {
            let located = garbage.relocated.get(&id).map_or(&[][..], Vec::as_slice);
            if self.is_still_said(id, located)? {
                sparse.extend(as_before(&garbage, id));
            }
        }
        self.repack(sparse, &mut collected).await?;
        self.forget_versions(&garbage.remembered).await?;
        Ok(collected)
    }

    /// Lets all devices forget versions from which nobody starts any more.
    async fn forget_versions(&self, versions: &[VersionRun]) -> Result<(), FsError> {
        for runs in versions.chunks(VERSION_RUNS_MAX) {
            let runs = runs.to_vec();
            self.commit(|_| Ok(OpKind::ForgetVersions { runs }))?;
            while self.publish_next(true).await?.is_some() {}
        }
        Ok(())
    }

    /// Copies together what is needed of segments of which little is. No file changes by it, and nothing is deleted before all devices know.
    async fn repack(&self, sparse: Vec<Sparse>, done: &mut Collected) -> Result<(), FsError> {
        let mut waiting = 0;
        for sparse in sparse {
            match self.repack_one(&sparse).await {
                Ok(()) => {}
                // One that is damaged, or that another device was faster with.
                Err(FsError::Data(error)) if error.is_about_the_object() => {
                    tracing::error!(%error, "a segment cannot be repacked");
                    done.holds.push(format!("cannot be repacked: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            }
            done.repacked += 1;
            done.repacked_bytes += sparse.bytes;
            waiting += sparse.bytes;
            if waiting >= REPACK_PART {
                waiting = 0;
                while self.publish_next(true).await?.is_some() {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        while self.publish_next(true).await?.is_some() {}
        Ok(())
    }

    async fn repack_one(&self, sparse: &Sparse) -> Result<(), FsError> {
        let mut needed: Vec<(Arc<SegmentInfo>, Vec<_>)> = Vec::new();
        for Located { segment, run } in &sparse.needed {
            match needed.last_mut() {
                Some((info, runs)) if info.id == *segment => runs.push(*run),
                _ => {
                    let info = state::segment(&self.replica.tree(), *segment)?;
                    let info = info.ok_or(DataError::Missing(*segment))?;
                    needed.push((Arc::new(info), vec![*run]));
                }
            }
        }
        let object = Arc::new(sparse.info.clone());
        let copied = self.data.copy_blocks(Arc::clone(&object), needed.clone());
        let copied = match copied.await {
            // The journal makes room when what is in it is published, and waits for nobody.
            Err(DataError::Full { .. }) => {
                self.publish_next(false).await?;
                self.data.copy_blocks(object, needed).await
            }
            copied => copied,
        };
        for relocation in copied? {
            let Some(first) = relocation.runs.first() else {
                continue;
            };
            let (host, table_slot) = (first.host, first.table_slot);
            let runs = relocation.runs.iter().map(|run| SlotRun {
                first: run.first_slot,
                count: run.count,
                at: run.host_slot,
            });
            let kind = OpKind::Relocate {
                segment: relocation.segment,
                host,
                table_slot,
                runs: runs.collect(),
            };
            self.commit(|_| Ok(kind))?;
        }
        Ok(())
    }

    /// Makes a checkpoint if one is worth it, and says that this device needs nothing of what was before.
    async fn prepare(&self) -> Result<(), FsError> {
        let (unneeded, sparse) = self.replica.unneeded()?;
        if !unneeded.is_empty() || !worth_repacking(sparse).is_empty() {
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
    fn add_needed(&self, needed: &mut Needed) -> Result<(), FsError> {
        // Files first: what they hold comes to the tree when they are told.
        for file in self.files.all() {
            let extents = file.state.lock().content.named_extents();
            extents.iter().for_each(|extent| needed.blocks.name(extent));
        }
        needed.objects.extend(self.data.undeclared());
        let tree = self.replica.tree();
        for op in tree.pending() {
            needed.objects.extend(weigh(&op?.kind).1);
        }
        Ok(())
    }

    /// Deletes what is dead. Also returns those segments from which blocks were relocated that are not where they should be.
    async fn free(&self, garbage: &Garbage) -> Result<(Collected, Vec<SegmentId>), FsError> {
        let (stored, others) = self.data.stored().await?;
        let mut collected = Collected::of(&stored, others);
        collected.holds = garbage.holds.iter().map(ToString::to_string).collect();
        let (mut sound, mut unsound) = (BTreeMap::new(), Vec::new());
        let dead = garbage.dead.iter().map(|info| info.id);
        let mut gone: BTreeSet<SegmentId> = dead.chain(garbage.given_up.iter().copied()).collect();
        let mut failed = 0;
        for (id, len) in &stored {
            if !gone.contains(id) || self.data.is_undeclared(id) {
                continue;
            }
            if let Err(problem) = self.is_vacated(*id, garbage, &mut sound).await? {
                collected.holds.push(problem);
                unsound.push(*id);
                gone.remove(id);
                continue;
            }
            if let Err(error) = self.data.delete(*id).await {
                // One that cannot be deleted does not keep the others.
                failed += 1;
                if error.is_transient() || failed > UNDELETED_MAX {
                    return Err(error.into());
                }
                collected.holds.push(error.to_string());
                gone.remove(id);
                continue;
            }
            collected.freed += 1;
            collected.freed_bytes += len.unwrap_or(0);
            tokio::time::sleep(PAUSE).await;
        }
        for info in self.replica.unneeded()?.0 {
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
        Ok((collected, unsound))
    }

    /// Whether what was relocated from a dead object is where it is said to be. A member may have lied, and a storage may have lost it:
    /// then this is the only good copy.
    async fn is_vacated(
        &self,
        id: SegmentId,
        garbage: &Garbage,
        sound: &mut BTreeMap<SegmentId, Result<(), String>>,
    ) -> Result<Result<(), String>, FsError> {
        for segment in garbage.vacated.get(&id).into_iter().flatten() {
            let known = match sound.get(segment) {
                Some(known) => known.clone(),
                None => {
                    let located = garbage
                        .relocated
                        .get(segment)
                        .map_or(&[][..], Vec::as_slice);
                    let checked = self.check_relocated(*segment, located).await?;
                    sound.insert(*segment, checked.clone());
                    checked
                }
            };
            if let Err(problem) = known {
                return Ok(Err(format!("{id} is not deleted: {problem}")));
            }
            let located = garbage.relocated.get(segment);
            if !self.is_still_said(*segment, located.map_or(&[][..], Vec::as_slice))? {
                let text = "is not deleted: its blocks were relocated once more, and readers look there first";
                return Ok(Err(format!("{id} {text}")));
            }
        }
        Ok(Ok(()))
    }

    /// Whether nobody has relocated these blocks meanwhile.
    fn is_still_said(&self, segment: SegmentId, located: &[Located]) -> Result<bool, FsError> {
        let copies = Copies {
            runs: state::copied_runs(&self.replica.tree(), segment)?,
            ..Copies::default()
        };
        let mut slots = located.iter().flat_map(|Located { run, .. }| {
            let at = |n| (run.first_slot + n, run.host, run.host_slot + n);
            (0..run.count).map(at)
        });
        Ok(slots.all(|(slot, host, at)| {
            let now = copies.find(slot);
            now.is_some_and(|now| (now.host, now.host_slot) == (host, at))
        }))
    }

    async fn check_relocated(
        &self,
        segment: SegmentId,
        located: &[Located],
    ) -> Result<Result<(), String>, FsError> {
        let found = {
            let tree = self.replica.tree();
            let mut copies = Copies::default();
            for Located { run, .. } in located {
                if let Some(info) = state::segment(&tree, run.host)? {
                    copies.hosts.insert(run.host, Arc::new(info));
                }
                copies.runs.push(*run);
            }
            state::segment(&tree, segment)?.map(|info| (Arc::new(info), copies))
        };
        let Some((info, copies)) = found else {
            return Ok(Err(format!("segment {segment} was never declared")));
        };
        match self.data.check_copies(info, copies).await {
            Ok(_) => Ok(Ok(())),
            Err(error) if error.is_about_the_object() => {
                tracing::error!(%error, %segment, "relocated blocks are not where they should be");
                Ok(Err(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether enough lies on the storage that no file needs.
    async fn is_worth_collecting(&self) -> Result<bool, FsError> {
        let (unneeded, sparse) = self.replica.unneeded()?;
        let mut most: BTreeMap<SegmentId, u64> = BTreeMap::new();
        most.extend(unneeded.iter().map(|info| (info.id, info.object_len)));
        let sparse = worth_repacking(sparse);
        most.extend(sparse.iter().map(|s| (s.info.id, s.gain())));
        if most.values().sum::<u64>() < WORTH.0 {
            return Ok(false);
        }
        let (stored, _) = self.data.stored().await?;
        let all: u64 = stored.values().flatten().sum();
        most.retain(|id, _| stored.contains_key(id));
        Ok(most.values().sum::<u64>() >= WORTH.0.max(all / WORTH.1))
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

/// The relocated blocks of a segment that still holds them itself, to be copied once more: where they are said to be they are not.
fn as_before(garbage: &Garbage, id: SegmentId) -> Option<Sparse> {
    let info = garbage.dead.iter().find(|info| info.id == id)?;
    let located = garbage.relocated.get(&id)?.iter();
    let needed: Vec<Located> = located
        .map(|l| Located {
            segment: id,
            run: CopiedRun {
                host: id,
                host_slot: l.run.first_slot,
                ..l.run
            },
        })
        .collect();
    Some(Sparse {
        info: info.clone(),
        bytes: info.object_len,
        needed,
    })
}

/// Of segments, the emptiest first, those that are repacked now; none if little would be gained.
fn worth_repacking(mut sparse: Vec<Sparse>) -> Vec<Sparse> {
    let mut sum = 0;
    sparse.retain(|s| {
        sum += s.bytes;
        sum <= REPACK_MAX
    });
    let gain: u64 = sparse.iter().map(Sparse::gain).sum();
    match gain >= REPACK_WORTH {
        true => sparse,
        false => Vec::new(),
    }
}
