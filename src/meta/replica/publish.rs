//! Publishing: pull, rebase, stamp, seal, keep, put, read back (rules D2 and D4).

use super::core::Core;
use super::error::ReplicaError;
use super::graph::Refusal;
use super::make::covered_at;
use super::pull::note_proposals;
use super::standing::Reach;
use super::{MergeDiff, Net, OwnLane, Replica, Settled};
use crate::checkpoint::{CoveredLane, Root};
use crate::commit::{
    CheckedCommit, CheckpointRef, Commit, Decided, Opinion, SealedCommit, Verdict, open_commit,
    seal_commit,
};
use crate::lane::{Head, TIP_CONTENT, parse_commit_file};
use crate::rows::RowsError;
use crate::state;
use bytes::Bytes;
use skrin_base::limits::{COMMIT_OPS_MAX, COMMIT_TARGET, HEADS_MAX};
use skrin_base::{Hash32, LaneId, SegmentInfo};
use skrin_storage::disk::blocking;
use skrin_storage::{Durable, ErrorKind, ObjectName, put_verified};
use std::collections::BTreeSet;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// What a commit takes beside its operations, segments and heads, generously.
const FIXED_LEN: usize = 4096;
/// Bytes of an encoded head.
const HEAD_LEN: usize = 56;
/// Bytes of an encoded segment declaration.
const SEGMENT_LEN: usize = 140;
/// Segments that one commit declares; more are spread over several, before the operations that use them.
const SEGMENTS_AT_ONCE: usize = 2048;
const VERDICTS_AT_ONCE: usize = 32;
/// Nanoseconds after which a lane is closed whose device says nothing.
const SILENT_AFTER: i64 = 7 * 86_400_000_000_000;
/// Silent lanes that one commit closes.
const CLOSES_AT_ONCE: usize = 256;
/// Numbers of segments that one commit decides.
const ABANDONED_AT_ONCE: u64 = 4096;

/// What `publish` did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// The newest commit of this device, if it ever wrote one in this lane.
    pub head: Option<Head>,
    /// How many commits were put.
    pub commits: usize,
    /// What the pull before it changed in the tree.
    pub diff: MergeDiff,
}

/// A checkpoint that was put and is to be proposed.
pub(super) struct Proposal {
    pub(super) reference: CheckpointRef,
    pub(super) root: Root,
}

type SealingTask = JoinHandle<Result<(SealedCommit, CheckedCommit), ReplicaError>>;

/// A commit that is being sealed and kept.
pub(super) struct Sealing {
    task: SealingTask,
    /// How many pending operations it takes along.
    count: usize,
}

/// What one commit carries.
struct Batch {
    count: usize,
    segments: Vec<SegmentInfo>,
    settled: Settled,
    close: bool,
}

impl Replica {
    /// Publishes the pending operations up to a counter, with the segments that they use, which are proven to be on
    /// the storage. When this returns, the commits are on the storage and were read back. After an error nothing is
    /// lost: call it again with the same arguments.
    ///
    /// # Errors
    /// A storage that cannot be reached, is full, or shows less than was seen; a read-only or cloned replica.
    pub async fn publish(
        &self,
        upto_counter: u64,
        segments: Vec<Durable<SegmentInfo>>,
        settled: Settled,
    ) -> Result<Published, ReplicaError> {
        let mut net = self.net.lock().await;
        let published = self
            .publish_with(&mut net, upto_counter, segments, settled)
            .await;
        self.show(&net);
        published
    }

    async fn publish_with(
        &self,
        net: &mut Net,
        upto: u64,
        segments: Vec<Durable<SegmentInfo>>,
        settled: Settled,
    ) -> Result<Published, ReplicaError> {
        self.may_write(net)?;
        self.settle(net).await?;
        self.pull_with(net).await?;
        self.may_write(net)?;
        self.may_follow(net)?;
        self.check_own_directory(net).await?;
        let segments = segments.into_iter().map(Durable::into_inner);
        let mut segments: Vec<SegmentInfo> = segments.collect();
        segments.splice(0..0, self.core.lock().redeclare.iter().cloned());
        let mut commits = 0;
        loop {
            let declare = segments.split_off(segments.len().min(SEGMENTS_AT_ONCE));
            let declare = std::mem::replace(&mut segments, declare);
            let count = if segments.is_empty() {
                self.batch_len(net, upto, declare.len())
            } else {
                0
            };
            let idle = count == 0 && declare.is_empty();
            let heads = settled.heads && commits == 0;
            let heads = heads && (net.own.tip.is_some() || self.has_to_open(net, settled));
            if idle && !heads && !self.has_to_refute(net) {
                break;
            }
            let owed = net.refuting.len();
            let batch = Batch {
                count,
                segments: declare,
                // Those that are declared by a later commit of this run are not decided yet.
                settled: settled.without_numbers(!segments.is_empty()),
                close: false,
            };
            self.put_batch(net, batch).await?;
            commits += 1;
            if idle && net.refuting.len() == owed {
                break;
            }
        }
        Ok(Published {
            head: net.own.tip,
            commits,
            diff: std::mem::take(&mut net.undelivered),
        })
    }

    /// Whether there are refutations that the next commit can say: it must be above their floors to count.
    fn has_to_refute(&self, net: &Net) -> bool {
        let latest = self.core.lock().graph.latest();
        net.refuting.keys().any(|c| c.floor <= latest)
    }

    /// Lanes of others that have been waited for so long that they are closed: the floor cannot rise, so that nothing is pruned or deleted.
    /// Whoever comes back goes on in a new lane. The time is counted by the clock of this device alone, so that
    /// clocks that differ close nothing, and without its jumps.
    fn silent(&self, net: &Net) -> BTreeSet<LaneId> {
        let until = self.env.clock.now().0.saturating_sub(SILENT_AFTER);
        let lanes = net.heads.lanes.iter();
        let silent = lanes.filter(|(_, seen)| {
            let awaited = seen.awaited.is_some_and(|since| since.0 <= until);
            awaited && !seen.closed && seen.device != self.env.device
        });
        silent.map(|(id, _)| *id).take(CLOSES_AT_ONCE).collect()
    }

    /// Whether a lane is opened without anything to publish: others wait for what this device releases, as they know it; took it for gone,
    /// so that what it has open holds back nothing; or wait for one that will not answer.
    fn has_to_open(&self, net: &Net, settled: Settled) -> bool {
        let answers = {
            let core = self.core.lock();
            let is_known = core.own_newest_lane().is_some();
            core.is_given_up() || settled.release.is_some() && is_known
        };
        answers || !self.silent(net).is_empty()
    }

    /// Whether a commit was made and kept whose put the storage has not confirmed: nothing of it is pending, and it is not there yet.
    pub fn has_unconfirmed(&self) -> bool {
        self.shown.lock().in_flight
    }

    /// Returns when no commit is being sealed and kept any more. Waits for the local disk only, unless somebody publishes.
    ///
    /// # Errors
    /// When it could not be kept; its operations are pending as before.
    pub async fn settle_locally(&self) -> Result<(), ReplicaError> {
        self.finish_sealing(&mut *self.net.lock().await).await
    }

    /// Ends the own lane if it was opened; for a clean unmount. Nothing may be pending.
    ///
    /// # Errors
    /// As `publish`.
    pub async fn close_lane(&self, settled: Settled) -> Result<(), ReplicaError> {
        let mut net = self.net.lock().await;
        self.finish_sealing(&mut net).await?;
        if net.own.tip.is_none() && net.in_flight.is_none() {
            return Ok(());
        }
        self.may_write(&net)?;
        self.settle(&mut net).await?;
        self.pull_with(&mut net).await?;
        self.may_write(&net)?;
        self.may_follow(&net)?;
        if net.own.tip.is_none() || !self.core.lock().pending.is_empty() {
            return Ok(());
        }
        let batch = Batch {
            count: 0,
            segments: Vec::new(),
            settled,
            close: true,
        };
        self.put_batch(&mut net, batch).await?;
        let incarnation = net.own.incarnation.saturating_add(1);
        net.own = self.fresh_lane(incarnation);
        net.decided_below = 0;
        self.show(&net);
        Ok(())
    }

    fn fresh_lane(&self, incarnation: u32) -> OwnLane {
        OwnLane {
            id: self.env.keys().lane_id(self.env.device, incarnation),
            incarnation,
            tip: None,
            checked: false,
        }
    }

    fn may_write(&self, net: &Net) -> Result<(), ReplicaError> {
        if self.env.read_only {
            return Err(ReplicaError::ReadOnly);
        }
        if let Some(barred) = self.barred() {
            return Err(barred.into());
        }
        if net.cloned {
            return Err(ReplicaError::Cloned);
        }
        if net.inbox.is_newer() {
            return Err(ReplicaError::Newer);
        }
        Ok(())
    }

    fn may_follow(&self, net: &Net) -> Result<(), ReplicaError> {
        match &net.waiting {
            Some(head) => Err(ReplicaError::Withheld(self.object(head))),
            None => Ok(()),
        }
    }

    /// Puts the commit that was sealed and not confirmed: the same bytes under the same name.
    pub(super) async fn settle(&self, net: &mut Net) -> Result<(), ReplicaError> {
        self.finish_sealing(net).await?;
        let Some(sealed) = net.in_flight.clone() else {
            return Ok(());
        };
        if self.env.read_only || self.barred().is_some() {
            // Nobody takes it, or it is not for this run.
            return Ok(());
        }
        self.put_sealed(net, &sealed).await
    }

    /// Before the first commit of a run, looks whether the lane has more than this device knows.
    async fn check_own_directory(&self, net: &mut Net) -> Result<(), ReplicaError> {
        if net.own.checked {
            return Ok(());
        }
        let next = net.own.tip.map_or(0, |tip| tip.seq.saturating_add(1));
        let directory = self.env.names.lane_directory(net.own.id, next)?;
        let listing = self.env.store.list(&directory).await?;
        let files = listing.objects.iter();
        let parsed = files.filter_map(|listed| parse_commit_file(listed.name.file_name()));
        let lane = net.own.id;
        let more: Vec<Head> = parsed
            .filter(|(seq, _)| *seq >= next)
            .map(|(seq, hash)| Head { lane, seq, hash })
            .collect();
        if !more.is_empty() {
            self.fetch(net, more).await?;
            self.absorb_or_rebuild(net).await?;
            let own = self.commits.list()?;
            self.choose_lane(net, &own);
        }
        net.own.checked = true;
        Ok(())
    }

    /// How many pending operations go into the next commit.
    fn batch_len(&self, net: &Net, upto: u64, segments: usize) -> usize {
        let core = self.core.lock();
        let heads = core.graph.heads_to_name(net.own.id).len().min(HEADS_MAX);
        let used = FIXED_LEN + heads * HEAD_LEN + segments * SEGMENT_LEN;
        let room = COMMIT_TARGET.saturating_sub(used);
        let mut bytes = 0;
        let due = core
            .pending
            .iter()
            .take_while(|pending| pending.counter <= upto);
        let fits = due.take(COMMIT_OPS_MAX).take_while(|pending| {
            bytes += pending.len;
            bytes <= room
        });
        let count = fits.count();
        let first_is_due = core.pending.front().is_some_and(|p| p.counter <= upto);
        // One that is larger than the target goes alone.
        count.max(usize::from(first_is_due))
    }

    /// Names up to `HEADS_MAX` heads; those left out are named by the next commit.
    fn compose(&self, net: &Net, batch: &Batch) -> Result<Commit, RowsError> {
        let keys = self.env.keys();
        let (epoch, commitment) = keys.current();
        let core = self.core.lock();
        let mut heads = core.graph.heads_to_name(net.own.id);
        heads.sort_by_key(|head| {
            std::cmp::Reverse(core.graph.next_lamport(LaneId::default(), &[*head]))
        });
        heads.truncate(HEADS_MAX);
        heads.sort();
        let propose = net.proposal.as_ref().map(|proposal| Verdict {
            opinion: Opinion::Propose,
            checkpoint: proposal.reference,
            digest: proposal.root.digest,
        });
        let own = Head {
            lane: net.own.id,
            seq: net.own.tip.map_or(0, |tip| tip.seq.saturating_add(1)),
            hash: Hash32::default(),
        };
        let silent = self.silent(net);
        let mut closes = core.graph.open_lanes(|id, lane| {
            // With its other lanes this device will not go on.
            *id != own.lane && (lane.device == self.env.device || silent.contains(id))
        });
        let parents: Vec<Head> = heads.iter().chain(&closes).copied().collect();
        closes.extend(batch.close.then_some(own));
        closes.sort();
        let lamport = core.graph.next_lamport(own.lane, &parents);
        let decided = self.decide(net, &core, batch)?;
        let owed = net.refuting.iter().filter(|(c, _)| c.floor < lamport);
        let owed = owed.take(VERDICTS_AT_ONCE - 1);
        let owed = owed.map(|(checkpoint, digest)| Verdict {
            opinion: Opinion::Refute,
            checkpoint: *checkpoint,
            digest: *digest,
        });
        let said = net.verdicts.iter().rev();
        let said = said.take(VERDICTS_AT_ONCE - 1).copied();
        let release = batch.settled.release.filter(|release| {
            let checkpoint = release.checkpoint;
            core.meta.standing.holds(&checkpoint)
                && checkpoint.floor < lamport
                && core.is_published_up_to(release.counter, batch.count)
        });
        let release = release.map(|release| Verdict {
            opinion: Opinion::Release,
            checkpoint: release.checkpoint,
            digest: Hash32::default(),
        });
        let pending = core.pending.iter().take(batch.count);
        let ops = pending.map(|p| Ok((*core.op_of(p)?).clone()));
        let ops = ops.collect::<Result<_, RowsError>>()?;
        Ok(Commit {
            optional: 0,
            vault: keys.vault(),
            room: keys.room(),
            lane: own.lane,
            incarnation: net.own.incarnation,
            seq: own.seq,
            prev: net.own.tip.map_or(Hash32::default(), |tip| tip.hash),
            epoch,
            commitment,
            control: self.env.roster.read().control_heads.clone(),
            device: self.env.device,
            lamport,
            heads,
            time: self.env.clock.now(),
            standing: core.meta.standing.current().map(|c| c.reference),
            decided,
            verdicts: propose
                .into_iter()
                .chain(owed)
                .chain(said)
                .chain(release)
                .collect(),
            segments: batch.segments.clone(),
            closes,
            ops,
        })
    }

    /// Drops a checkpoint that this device made and that has been overtaken: another one stands, or a commit came that
    /// lies below its floor and that it would make void, or the end of a lane that it does not know.
    fn drop_stale_proposal(&self, net: &mut Net) {
        let core = self.core.lock();
        let stands = core.meta.standing.current().map(|c| c.reference);
        let same = |root: &Root| {
            let now = covered_at(&core, root.floor);
            let said = |end: &CoveredLane| (end.hash, end.closed);
            now.iter().map(said).eq(root.covered.iter().map(said))
        };
        let fits = |made: &mut Proposal| made.root.parent == stands && same(&made.root);
        net.proposal = net.proposal.take_if(fits);
    }

    /// Which numbers of the own lane nobody needs to wait for any more. Never fewer than before, and none that only commits
    /// declare which count for nothing.
    fn decide(&self, net: &Net, core: &Core, batch: &Batch) -> Result<Decided, RowsError> {
        let (lane, from) = (net.own.id, net.decided_below);
        let numbers = batch.settled.numbers.filter(|(of, _)| *of == lane);
        let again = core.redeclare.iter();
        let again = again.filter(|s| s.author == lane && !batch.segments.contains(s));
        let bounds = numbers.into_iter().map(|(_, below)| below);
        let below = bounds
            .chain(again.map(|segment| segment.number))
            .min()
            .filter(|_| numbers.is_some());
        let below = below.unwrap_or(0).max(from);
        let below = below.min(from.saturating_add(ABANDONED_AT_ONCE));
        let keys = self.env.keys();
        let mut abandoned = Vec::new();
        for number in from..below {
            let id = keys.segment_id(lane, number);
            let declared = batch.segments.iter().any(|segment| segment.id == id)
                || state::segment(&core.rows, id)?.is_some();
            if !declared {
                abandoned.push(number);
            }
        }
        Ok(Decided { below, abandoned })
    }

    async fn put_batch(&self, net: &mut Net, batch: Batch) -> Result<(), ReplicaError> {
        self.drop_stale_proposal(net);
        let commit = self.compose(net, &batch)?;
        net.sealing = Some(Sealing {
            task: self.seal_and_keep(commit),
            count: batch.count,
        });
        self.settle(net).await
    }

    /// Seals a commit, opens it again as everybody else will, and keeps it: its bytes are on the local disk before the first
    /// of them goes anywhere.
    fn seal_and_keep(&self, commit: Commit) -> SealingTask {
        let (keys, signer) = (self.env.keys(), self.env.signer.clone());
        let (entropy, roster) = (self.env.entropy.clone(), self.env.roster.clone());
        let commits = self.commits.clone();
        blocking(&Handle::current(), move || {
            let refused = |fault| {
                let object = format!("commit {} of this device", commit.seq);
                ReplicaError::Commit { object, fault }
            };
            let sealed = seal_commit(&commit, &keys, &signer, &*entropy).map_err(refused)?;
            let opened = open_commit(&sealed.head, &sealed.bytes, &keys, &roster.read());
            let checked = opened.map_err(refused)?;
            commits.store(&sealed)?;
            Ok((sealed, checked))
        })
    }

    /// Waits for the commit that is being sealed, and folds it. Whoever called `publish` may have stopped waiting in the
    /// middle, so this comes before everything else that is done with the lanes.
    pub(super) async fn finish_sealing(&self, net: &mut Net) -> Result<(), ReplicaError> {
        let Some(sealing) = &mut net.sealing else {
            return Ok(());
        };
        let (done, count) = ((&mut sealing.task).await, sealing.count);
        net.sealing = None;
        let (sealed, checked) = done.map_err(|_| ReplicaError::Ending)??;
        self.stamp(net, checked, &sealed, count)
    }

    /// Folds the own commit: it counts from the moment it is kept, because its bytes will reach the storage.
    fn stamp(
        &self,
        net: &mut Net,
        checked: CheckedCommit,
        sealed: &SealedCommit,
        count: usize,
    ) -> Result<(), ReplicaError> {
        let commit = checked.commit().clone();
        let mut core = self.core.lock();
        if let Err(Refusal::Bad(fault)) = core.graph.admit(&sealed.head, &commit) {
            let object = self.object(&sealed.head);
            return Err(ReplicaError::Commit { object, fault });
        }
        // Whatever fails from here on: it is the newest of the lane, and has to be put.
        net.own.tip = Some(sealed.head);
        net.decided_below = commit.decided.below;
        net.in_flight = Some(sealed.clone());
        self.shown.lock().in_flight = true;
        core.meta.ops_since += count as u64;
        core.meta.bytes_since += sealed.bytes.len() as u64;
        self.note_refutations(net, &mut core, &checked);
        if let Some(proposal) = net.proposal.take() {
            let reference = proposal.reference;
            note_proposals(&mut core, &checked);
            let place = core.key_of(&checked);
            core.meta.standing.judge(place, &reference);
            let reach = Reach::of(&proposal.root);
            core.meta.standing.believe(&reference, &reach);
            let held = core.meta.standing.held();
            // It moves no end of a lane: a checkpoint that would was dropped.
            core.graph.hold(&held);
            net.inbox.forgive();
            (core.meta.ops_since, core.meta.bytes_since) = (0, 0);
        }
        if let Err(error) = core.stamp(checked, count) {
            core.fail();
            return Err(error.into());
        }
        let mut verdicts = commit.verdicts.iter();
        if let Some(said) = verdicts.find(|v| v.opinion == Opinion::Release) {
            core.released = Some((sealed.head.lane, said.checkpoint));
        }
        core.trim();
        drop(core);
        net.verdicts.clear();
        Ok(())
    }

    /// Commit, read-back, tip; then the older tips of this device may go.
    async fn put_sealed(&self, net: &mut Net, sealed: &SealedCommit) -> Result<(), ReplicaError> {
        let name = self.env.names.commit(&sealed.head)?;
        self.put_own(&name, &sealed.bytes).await?;
        let tip = self.env.names.tip(&sealed.head)?;
        self.env
            .store
            .put(&tip, Bytes::from_static(TIP_CONTENT))
            .await?;
        net.in_flight = None;
        self.shown.lock().in_flight = false;
        self.core.lock().unconfirmed = None;
        self.remember(net, false).await?;
        self.drop_old_tips(net, &sealed.head).await;
        self.forget_covered();
        Ok(())
    }

    /// Puts an own commit. What lies under its name with other bytes is an earlier attempt that was cut short: only
    /// these bytes have this name.
    async fn put_own(&self, name: &ObjectName, bytes: &Bytes) -> Result<(), ReplicaError> {
        let store = &*self.env.store;
        match put_verified(store, name, bytes.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::Exists | ErrorKind::Broken) => {
                tracing::warn!(%error, "a commit that was cut short is put again");
            }
            Err(error) => return Err(error.into()),
        }
        store.delete(name).await?;
        put_verified(store, name, bytes.clone()).await?;
        Ok(())
    }

    /// Tips of own commits that the new one follows lead nowhere that it does not lead. They are hints, so failing is fine.
    async fn drop_old_tips(&self, net: &mut Net, newest: &Head) {
        let mut kept = vec![*newest];
        for old in std::mem::take(&mut net.own_tips) {
            if old == *newest {
                continue;
            }
            let follows = old.lane == newest.lane && old.seq < newest.seq || {
                let core = self.core.lock();
                let tip = core
                    .graph
                    .lanes
                    .get(&newest.lane)
                    .and_then(|lane| lane.tip());
                tip.is_some_and(|tip| tip.named.contains(&old))
            };
            let Ok(name) = self.env.names.tip(&old) else {
                continue;
            };
            if !follows || self.env.store.delete(&name).await.is_err() {
                kept.push(old);
            }
        }
        net.own_tips = kept;
    }

    /// Own sealed commits that the standing checkpoint holds need not be put again any more. The newest is kept: it tells
    /// a restored backup from a device that is up to date. So is what never counted, until its operations stand elsewhere.
    fn forget_covered(&self) {
        let Ok(own) = self.commits.list() else {
            return;
        };
        let core = self.core.lock();
        let Some(reach) = core.meta.standing.current().and_then(|c| c.reach.as_ref()) else {
            return;
        };
        let newest = |head: &&Head| {
            own.iter()
                .any(|other| other.lane == head.lane && other.seq > head.seq)
        };
        let needed = |head: &&Head| {
            core.may_be_void(head)
                && match self.own_commit(head) {
                    Ok(Some(checked)) => !core.is_folded(&checked).unwrap_or(false),
                    Ok(None) => false,
                    Err(_) => true,
                }
        };
        let covered = own
            .iter()
            .filter(newest)
            .filter(|head| reach.covers(&core.graph, head));
        for head in covered.filter(|head| !needed(head)) {
            if let Err(error) = self.commits.forget(head) {
                tracing::warn!(%error, "a commit that is not needed any more cannot be deleted");
            }
        }
    }

    /// Puts every kept commit of this device that the storage has lost again, byte for byte: for a storage that was
    /// itself restored from a backup. Returns how many were put.
    ///
    /// # Errors
    /// As `publish`.
    pub async fn put_again(&self) -> Result<usize, ReplicaError> {
        let mut net = self.net.lock().await;
        self.may_write(&net)?;
        let mut put = 0;
        let own = self.commits.list()?;
        for head in &own {
            let name = self.env.names.commit(head)?;
            match self.env.store.get_range(&name, 0, 1).await {
                Ok(_) => continue,
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error.into()),
            }
            let sealed = self.commits.read(head)?;
            self.put_own(&name, &sealed.bytes).await?;
            put += 1;
        }
        // In the order of lanes and numbers: the last of each lane.
        let next = own.iter().skip(1).map(Some).chain([None]);
        let last = own.iter().zip(next);
        let tips = last.filter(|(head, next)| next.is_none_or(|next| next.lane != head.lane));
        for (tip, _) in tips {
            let name = self.env.names.tip(tip)?;
            self.env
                .store
                .put(&name, Bytes::from_static(TIP_CONTENT))
                .await?;
        }
        net.probed.clear();
        Ok(put)
    }
}
