//! Taking in what others published.

use super::core::{Core, MergeError};
use super::cutting::Cutting;
use super::error::{FindingKind, LostHead, ReplicaError, Rollback, ShownHead};
use super::fetch::Waiting;
use super::graph::{Admitted, Refusal};
use super::load::get_root;
use super::standing::{Candidate, Reach};
use super::{MergeDiff, Net, Replica, barred};
use crate::checkpoint::{DigestOfRows, Root};
use crate::commit::{CheckedCommit, CheckpointRef, Fault, Opinion, Verdict};
use crate::lane::{Head, parse_control_tip, parse_tip};
use crate::order::OrderKey;
use crate::rows::RowsError;
use futures_util::stream::{self, StreamExt};
use skrin_base::{DeviceId, Hash32, LaneId};
use skrin_crypto::{RoomKeys, Roster};
use skrin_storage::disk::blocking;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::runtime::Handle;

/// More nanoseconds than this do not pass at once, unless the monotonic clock says so.
const JUMP_MAX: i64 = 86_400_000_000_000;
const ROOT_RETRY_MAX: u64 = 3_600_000_000_000;
/// So many roots that could not be had are asked for again in one pull: whoever invents proposals decides how many there are.
const ROOTS_AGAIN: usize = 16;
/// Roots got at once.
const ROOTS_AT_ONCE: usize = 16;

/// A commit with a Lamport time that is not what it follows gives, and the highest floor when it was looked at.
type Refused = (u64, Waiting, Fault);

impl Replica {
    /// Takes in what others published: one request if there is nothing new. Returns what changed in the tree since
    /// the last time that something was returned.
    ///
    /// # Errors
    /// A storage that cannot be reached, or that shows less than was seen. Whatever could be taken in is taken in.
    pub async fn pull(&self) -> Result<MergeDiff, ReplicaError> {
        let mut net = self.net.lock().await;
        let pulled = self.pull_with(&mut net).await;
        self.show(&net);
        pulled?;
        Ok(std::mem::take(&mut net.undelivered))
    }

    /// What changed in the tree and was not returned yet, because something failed afterwards.
    pub async fn take_diff(&self) -> MergeDiff {
        std::mem::take(&mut self.net.lock().await.undelivered)
    }

    /// Whether commits wait for newer control records: refresh roster and keys, then pull again.
    pub async fn needs_control(&self) -> bool {
        let net = self.net.lock().await;
        let roster = self.env.roster.read();
        let now = self.env.clock.monotonic();
        net.inbox.needs_control()
            || !self.lost_control(&net, &roster).is_empty()
            || net.news.is_due(now, &roster)
    }

    /// Judges by other control records from now on, which were just read from the storage.
    ///
    /// # Errors
    /// `RolledBack` when they lack what was seen here; everything stays as it was then.
    pub async fn set_control(
        &self,
        roster: Roster,
        keys: Arc<RoomKeys>,
    ) -> Result<(), ReplicaError> {
        let mut net = self.net.lock().await;
        net.control_is_old = false;
        let lost = {
            let known = self.env.roster.read();
            let mut lost = self.lost_control(&net, &roster);
            lost.extend(known.control_heads.iter().filter(|c| !roster.stands(c)));
            lost
        };
        self.refuse_lost(None, Vec::new(), &lost)?;
        net.news.was_read(self.env.clock.monotonic(), &roster);
        *self.barred.lock() = barred(&roster, &self.env.device);
        *self.env.roster.write() = roster;
        *self.env.keys.write() = keys;
        Ok(())
    }

    /// The control records that this device remembers and that do not stand by this roster.
    pub(super) fn lost_control(&self, net: &Net, roster: &Roster) -> BTreeSet<Hash32> {
        let remembered = net.heads.control.iter();
        remembered.filter(|c| !roster.stands(c)).copied().collect()
    }

    /// Tells of what was seen and is not shown any more.
    pub(super) fn refuse_lost(
        &self,
        shown: Option<ShownHead>,
        lost: Vec<LostHead>,
        control: &BTreeSet<Hash32>,
    ) -> Result<(), ReplicaError> {
        for one in &lost {
            let object = self.object(&one.seen.head);
            self.report(FindingKind::Rollback, object, one.to_string());
        }
        let name = |record| format!("rooms/{}/control/{record}", self.env.names.0);
        let control: Vec<String> = control.iter().map(name).collect();
        for object in &control {
            let text = "it was seen, and the storage does not show it any more".to_owned();
            self.report(FindingKind::Rollback, object.clone(), text);
        }
        match lost.is_empty() && control.is_empty() {
            true => Ok(()),
            false => Err(ReplicaError::RolledBack(Rollback {
                shown,
                lost,
                control,
            })),
        }
    }

    pub(super) async fn pull_with(&self, net: &mut Net) -> Result<(), ReplicaError> {
        self.notice_jump(net);
        self.finish_sealing(net).await?;
        let tips = self.list_tips(net).await?;
        let device = |lane: &LaneId| self.core.lock().graph.device_of_lane(lane);
        let newest = |lane: &LaneId| self.core.lock().graph.newest(lane);
        let mut want = self.wanted(net, &tips, device, newest).await?;
        while self.take_in(net, want).await? {
            // What was let go of after commits that wait no more: the pull is complete only with that.
            want = self.wanted(net, &tips, device, newest).await?;
        }
        self.finish_pull(net, &tips).await
    }

    /// Gets what is wanted and takes it in. Returns whether there is more to get.
    async fn take_in(&self, net: &mut Net, want: Vec<Head>) -> Result<bool, ReplicaError> {
        let mut fetched = self.fetch(net, want).await;
        if fetched.is_ok() {
            fetched = self.fetch_roots(net).await;
        }
        let question = net.past.question(&net.inbox, &self.core.lock().graph);
        match net.past.holds(&self.env, question).await? {
            true => self.absorb_or_rebuild(net).await?,
            false => Box::pin(self.rebuild(net)).await?,
        }
        let is_more = net.inbox.unpark();
        fetched.map(|()| is_more)
    }

    /// What is worth asking for: what tips show, what lies before it as far as listings show it, and what was seen.
    pub(super) async fn wanted(
        &self,
        net: &Net,
        tips: &[Head],
        device: impl Fn(&LaneId) -> Option<DeviceId>,
        newest: impl Fn(&LaneId) -> Option<u64>,
    ) -> Result<Vec<Head>, ReplicaError> {
        let cuts = self.cuts();
        let tips = net.inbox.that_may_count(tips, &cuts, &device);
        let between = net.inbox.between(&self.env, &tips, newest).await?;
        let remembered: Vec<Head> = net.heads.lanes.values().map(|seen| seen.head).collect();
        let remembered = net.inbox.that_may_count(&remembered, &cuts, device);
        Ok([tips, remembered, between].concat())
    }

    pub(super) async fn fetch(&self, net: &mut Net, want: Vec<Head>) -> Result<(), ReplicaError> {
        let known = |head: &Head| self.core.lock().graph.knows(head);
        net.inbox.fetch(&self.env, want, known).await
    }

    pub(super) async fn finish_pull(
        &self,
        net: &mut Net,
        tips: &[Head],
    ) -> Result<(), ReplicaError> {
        self.judge_all(net).await?;
        self.check_shown(net, tips).await?;
        self.refute_what_cannot_stand(net);
        let waited = net.waiting.is_some();
        if !waited {
            self.check_clone(net);
        }
        // Others may close the lane of a device that they have not heard of for long: it goes on in a new one.
        if waited || self.own_lane_ended(net) && !net.cloned {
            let own = self.commits.list()?;
            net.waiting = self.own_unknown(&own);
            self.choose_lane(net, &own);
            self.check_clone(net);
        }
        net.saw_own = true;
        self.remember(net, true).await
    }

    fn own_lane_ended(&self, net: &Net) -> bool {
        let core = self.core.lock();
        let own = core.graph.lanes.get(&net.own.id);
        own.is_some_and(|lane| lane.closed.is_some())
    }

    pub(super) async fn list_tips(&self, net: &mut Net) -> Result<Vec<Head>, ReplicaError> {
        let listing = self.env.store.list(&self.env.names.tips()?).await?;
        let parse = |listed: &skrin_storage::Listed| parse_tip(listed.name.file_name());
        let tips: Vec<Head> = listing.objects.iter().filter_map(parse).collect();
        let core = self.core.lock();
        let lane = |head: &Head| core.graph.lanes.get(&head.lane);
        let own = |head: &&Head| lane(head).is_some_and(|l| l.device == self.env.device);
        net.own_tips = tips.iter().filter(own).copied().collect();
        let names = listing.objects.iter().map(|l| l.name.file_name());
        net.news.see(names.filter_map(parse_control_tip));
        Ok(tips)
    }

    pub(super) async fn absorb_or_rebuild(&self, net: &mut Net) -> Result<(), ReplicaError> {
        let absorbed = {
            // Nobody else writes the state meanwhile: this may do it in parts.
            let _one = self.flushing.lock();
            let mut core = self.core.lock();
            match core.must_be_folded_again() {
                true => Err(MergeError::TooDeep),
                false => self.absorb_whole(net, &mut core),
            }
        };
        match absorbed {
            Ok(diff) => net.undelivered.extend(diff),
            Err(MergeError::Rows(error)) => return Err(error.into()),
            Err(MergeError::TooDeep) => {
                // What is known of the lanes has gone on: if this fails, it is tried again.
                self.core.lock().outdate();
                Box::pin(self.rebuild(net)).await?;
            }
        }
        Ok(())
    }

    /// Admits and folds everything in the inbox whose causal past is known.
    pub(super) fn absorb(&self, net: &mut Net, core: &mut Core) -> Result<MergeDiff, MergeError> {
        let is_idle = net.inbox.held.is_empty() && net.roots.is_empty();
        let parks = core.has_many_pending() && !is_idle;
        let absorbed = match parks {
            true => self.absorb_parked(net, core),
            false => self.absorb_below(net, core),
        };
        match &absorbed {
            Ok(_) => {}
            // The rows are a good state still, only not that of all that is known: programs go on with it.
            Err(MergeError::TooDeep) if !parks => core.outdate(),
            // What was admitted may not be folded, and what is set aside goes back on top when the state has been folded again.
            Err(_) => core.fail(),
        }
        net.inbox.park(self.env.device, &self.cuts());
        net.inbox.let_go();
        absorbed
    }

    /// The same with the pending operations set aside before anything is admitted: the state is written in between.
    fn absorb_parked(&self, net: &mut Net, core: &mut Core) -> Result<MergeDiff, MergeError> {
        core.park()?;
        let mut diff = self.absorb_below(net, core)?;
        core.rejoin()?;
        diff.everything = true;
        Ok(diff)
    }

    /// The same, and writes the whole state if it had to be written in parts.
    fn absorb_whole(&self, net: &mut Net, core: &mut Core) -> Result<MergeDiff, MergeError> {
        let was_whole = !core.is_anew();
        let diff = self.absorb(net, core)?;
        if was_whole && core.is_anew() {
            core.flush()?;
        }
        Ok(diff)
    }

    fn absorb_below(&self, net: &mut Net, core: &mut Core) -> Result<MergeDiff, MergeError> {
        let mut fold = Vec::new();
        let mut closed = BTreeSet::new();
        let mut cutting = Cutting::begin(core, self.cuts(), net);
        let stood = core.meta.standing.current().map(|c| c.reference);
        let proposed = core.meta.standing.highest_floor();
        let mut refused: Vec<Refused> = Vec::new();
        let mut arrived = net.inbox.take_by_lamport();
        while !arrived.is_empty() {
            let admitted = fold.len();
            self.admit_all(net, core, arrived, (&mut fold, &mut refused), &mut closed)?;
            let highest = core.meta.standing.highest_floor();
            // What a floor that was proposed since then lets in, with those that wait for it.
            let again = refused.extract_if(.., |(at, waiting, _)| {
                let lamport = waiting.commit().lamport;
                *at < lamport && lamport <= highest
            });
            arrived = again.map(|(_, waiting, _)| waiting).collect();
            // A false time also sorts before what it follows.
            if !arrived.is_empty() || fold.len() > admitted {
                arrived.extend(net.inbox.take_by_lamport());
                arrived.sort_by_key(|waiting| waiting.commit().lamport);
            }
        }
        for (_, waiting, fault) in refused {
            let object = self.object(waiting.head());
            self.report(FindingKind::Integrity, object, fault.to_string());
            let now = self.env.clock.monotonic();
            net.inbox.condemn(*waiting.head(), fault, now);
        }
        if core.meta.standing.highest_floor() > proposed {
            net.inbox.forgive();
        }
        net.inbox.settle(|head| core.graph.knows(head));
        net.roots
            .iter()
            .for_each(|root| core.meta.standing.believe(&root.0, &root.2));
        let arrived: BTreeSet<Hash32> = fold.iter().map(|c| c.head().hash).collect();
        let cut = cutting.end(core, &arrived);
        if cutting.gone {
            self.refute_omissions(net, core);
        }
        cut?;
        closed.append(&mut cutting.closed);
        self.report_cut_off(core, &cutting.void);
        self.report_omissions(core);
        self.refute_what_harms(net, core);
        let stands = core.meta.standing.current().map(|c| c.reference);
        if stood.is_some_and(|stood| !core.meta.standing.holds(&stood)) {
            // Another branch of checkpoints stands now: what was void before may count.
            return Err(MergeError::TooDeep);
        }
        if stands != stood {
            (core.meta.ops_since, core.meta.bytes_since) = (0, 0);
            closed.extend(hold_what_stands(core, &arrived)?);
        }
        let stands_now = stands.filter(|_| stands != stood);
        let range = stands_now.map(|now| (stood.map_or(0, |stood| stood.floor), now.floor));
        if voids_too_deep(core, &arrived, &closed, range) {
            return Err(MergeError::TooDeep);
        }
        let mut void = self.newly_void(core, &closed, stands_now)?;
        if !cutting.void.is_empty() {
            void.extend(core.find_logged(None, |c| cutting.void.contains(&c.head().hash))?);
        }
        let mut diff = core.take_out(&void)?;
        diff.extend(self.fold(core, fold)?);
        core.trim();
        Ok(diff)
    }

    /// Admits what can be, and notes what contradicts what it follows.
    fn admit_all(
        &self,
        net: &mut Net,
        core: &mut Core,
        arrived: Vec<Waiting>,
        (fold, refused): (&mut Vec<Waiting>, &mut Vec<Refused>),
        closed: &mut BTreeSet<LaneId>,
    ) -> Result<(), MergeError> {
        for waiting in arrived {
            let checked = waiting.outline();
            if core.graph.knows(checked.head()) {
                continue;
            }
            let is_own = checked.commit().device == self.env.device;
            if is_own && core.contradicts_pending(&waiting.open(&self.env)?)? {
                // Folding it would drop what is pending here under the same name. Nothing more is taken in from that
                // lane and nothing is published, until somebody has decided which copy goes on.
                self.report_clone(net, checked.head().lane);
                net.inbox.hold_again(waiting);
                continue;
            }
            let proposed = core.meta.standing.highest_floor();
            let control = core.graph.control_before(checked.commit()).to_vec();
            let past = |commit: &Hash32| net.past.time_of(commit);
            let admitted = core
                .graph
                .admit_up_to(checked.head(), checked.commit(), proposed, past);
            match admitted {
                Ok(admitted) => {
                    self.report_older_control(checked, &control);
                    if !core.graph.is_cut_off(checked.head()) {
                        self.report_oddities(checked, &admitted);
                        self.report_false_time(core, checked);
                    }
                    closed.extend(admitted.closed);
                    if waiting.ops() > 0 {
                        core.graph.note_operations(checked.head());
                    }
                    note_proposals(core, checked);
                    self.note_refutations(net, core, checked);
                    fold.push(waiting);
                }
                Err(Refusal::Missing(_)) => net.inbox.hold_again(waiting),
                Err(Refusal::Bad(fault)) => refused.push((proposed, waiting, fault)),
            }
        }
        Ok(())
    }

    /// Commits that were folded before, and count no more: after the end of their lane, or below the floor of a
    /// checkpoint that does not hold them.
    fn newly_void(
        &self,
        core: &Core,
        closed: &BTreeSet<LaneId>,
        stands: Option<CheckpointRef>,
    ) -> Result<BTreeSet<OrderKey>, RowsError> {
        let mut void = BTreeSet::new();
        if !closed.is_empty() {
            void.extend(
                core.find_logged(None, |c| closed.contains(&c.head().lane) && core.is_void(c))?,
            );
        }
        if let Some(stands) = stands {
            void.extend(core.find_logged(Some(stands.floor), |c| core.is_void(c))?);
        }
        Ok(void)
    }

    fn fold(&self, core: &mut Core, admitted: Vec<Waiting>) -> Result<MergeDiff, MergeError> {
        let is_void = |waiting: &Waiting| core.is_void(waiting.outline());
        let (void, fold): (Vec<_>, Vec<_>) = admitted.into_iter().partition(is_void);
        for waiting in &fold {
            core.meta.ops_since += waiting.ops() as u64;
            core.meta.bytes_since += waiting.outline().len() as u64;
        }
        let diff = core.merge(fold, |waiting| waiting.open(&self.env))?;
        let own = void.iter().filter(|c| c.commit().device == self.env.device);
        let own = own.map(|waiting| waiting.open(&self.env));
        core.publish_again(&own.collect::<Result<Vec<_>, _>>()?)?;
        Ok(diff)
    }

    pub(super) fn object(&self, head: &Head) -> String {
        let name = self.env.names.commit(head);
        name.map_or_else(|_| head.to_string(), |name| name.to_string())
    }

    fn report_oddities(&self, checked: &CheckedCommit, admitted: &Admitted) {
        let (head, device) = (checked.head(), &checked.commit().device);
        let label = self.env.label(device);
        if admitted.forked {
            let text = format!(
                "{label} has written two commits after the same one: its state was copied or restored"
            );
            self.report(FindingKind::Fork, head.lane.to_string(), text);
        }
        if admitted.went_back {
            let text = format!("{label} names a commit older than one that it named before");
            self.report(FindingKind::WentBack, self.object(head), text);
        }
        for lane in &admitted.not_closed {
            let text = format!(
                "{label} closes lane {lane} before what it had seen of it; the lane goes on"
            );
            self.report(FindingKind::Integrity, self.object(head), text);
        }
    }

    /// Who begins with a checkpoint cannot tell what lies below it from what was only late, and has no use for it either.
    fn report_false_time(&self, core: &Core, checked: &CheckedCommit) {
        let (head, commit) = (checked.head(), checked.commit());
        let below = core.is_below(head, commit.lamport);
        if below || !core.graph.is_mistimed(head) {
            return;
        }
        let label = self.env.label(&commit.device);
        let text = format!(
            "{label} says a Lamport time that is not what it follows gives; it counts for nothing"
        );
        self.report(FindingKind::Integrity, self.object(head), text);
    }

    /// Tells whose commits count for nothing from now on, as they lie beyond the cut of their device.
    fn report_cut_off(&self, core: &Core, void: &BTreeSet<Hash32>) {
        let mut lanes: BTreeMap<LaneId, u64> = BTreeMap::new();
        for head in void.iter().filter_map(|commit| core.graph.head_of(commit)) {
            let first = lanes.entry(head.lane).or_insert(head.seq);
            *first = (*first).min(head.seq);
        }
        for (lane, first) in lanes {
            let device = core.graph.lanes.get(&lane).map(|lane| lane.device);
            let label = device.map_or_else(String::new, |device| self.env.label(&device));
            let text = format!(
                "{label} was removed; what it wrote from commit {first} of this lane on counts for nothing"
            );
            self.report(FindingKind::CutOff, lane.to_string(), text);
        }
    }

    fn report_older_control(&self, checked: &CheckedCommit, before: &[Hash32]) {
        let commit = checked.commit();
        if commit.control == before || self.env.roster.read().includes(&commit.control, before) {
            return;
        }
        let label = self.env.label(&commit.device);
        let text = format!("{label} names older control records than before");
        self.report(FindingKind::WentBack, self.object(checked.head()), text);
    }

    /// Checkpoints that leave out what their own proposers had seen: no honest device makes them.
    fn report_omissions(&self, core: &Core) {
        let standing = &core.meta.standing;
        let bad = standing.candidates.iter().filter(|c| c.omits());
        for bad in bad.filter(|c| !standing.is_refuted(&c.reference)) {
            let object = self.root_object(&bad.reference);
            let text = "it leaves out commits that its proposer had seen, and would make them void; it never stands";
            self.report(FindingKind::Integrity, object, text.to_owned());
        }
    }

    /// Gets the roots of checkpoints that are proposed by commits in the inbox or were before, so that what they make
    /// void is known when the commits are folded.
    pub(super) async fn fetch_roots(&self, net: &mut Net) -> Result<(), ReplicaError> {
        let wanted = self.wanted_roots(net);
        net.root_retries
            .retain(|reference, _| wanted.contains_key(reference));
        let due = roots_due(&wanted, &net.root_retries, self.env.clock.monotonic());
        let get = |(reference, digest): (CheckpointRef, Hash32)| async move {
            (reference, digest, get_root(&self.env, &reference).await)
        };
        let mut got = stream::iter(due.into_iter().map(get)).buffered(ROOTS_AT_ONCE);
        while let Some((reference, digest, root)) = got.next().await {
            self.take_root(net, reference, digest, root)?;
        }
        Ok(())
    }

    /// The roots that are not known, of proposals that may count, with the digests that these say.
    fn wanted_roots(&self, net: &Net) -> BTreeMap<CheckpointRef, Hash32> {
        let cuts = self.cuts();
        let mut wanted: BTreeMap<CheckpointRef, Hash32> = BTreeMap::new();
        for waiting in net.inbox.held.values() {
            let (head, device) = (waiting.head(), waiting.commit().device);
            if !cuts.are_passed(&device, &head.lane, head.seq) {
                wanted.extend(proposals(waiting.outline()).map(|v| (v.checkpoint, v.digest)));
            }
        }
        let core = self.core.lock();
        for candidate in &core.meta.standing.candidates {
            if candidate.reach.is_some() {
                wanted.remove(&candidate.reference);
            } else if candidate.all_places().next().is_some() {
                wanted.insert(candidate.reference, candidate.digest);
            }
        }
        for (known, _, _) in &net.roots {
            wanted.remove(known);
        }
        wanted
    }

    fn take_root(
        &self,
        net: &mut Net,
        reference: CheckpointRef,
        digest: Hash32,
        root: Result<Root, ReplicaError>,
    ) -> Result<(), ReplicaError> {
        let object = self.env.names.checkpoint(&reference.name)?.to_string();
        match root {
            Ok(root) => {
                if root.digest != digest {
                    // Somebody may propose again what is another's: which of the two came first must decide nothing.
                    let text = "a commit proposes it with another digest than its root has";
                    self.report(FindingKind::Digest, object, text.to_owned());
                }
                net.root_retries.remove(&reference);
                net.roots.push((reference, root.digest, Reach::of(&root)));
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                self.report(FindingKind::Integrity, object, error.to_string());
                let (_, tries) = net
                    .root_retries
                    .get(&reference)
                    .copied()
                    .unwrap_or_default();
                let pause = (1_000_000_000u64 << tries.min(12)).min(ROOT_RETRY_MAX);
                let next = self.env.clock.monotonic().saturating_add(pause);
                let next = (next, tries.saturating_add(1));
                net.root_retries.insert(reference, next);
            }
        }
        Ok(())
    }

    /// Forms an opinion of the checkpoints whose roots came.
    async fn judge_all(&self, net: &mut Net) -> Result<(), ReplicaError> {
        let mut refuted = false;
        for (reference, digest, _) in std::mem::take(&mut net.roots) {
            if self.core.lock().meta.standing.holds(&reference) {
                refuted |= self.judge(net, &reference, digest).await?;
            }
        }
        match refuted {
            true => self.absorb_or_rebuild(net).await,
            false => Ok(()),
        }
    }

    /// Computes the digest that another device has signed, if the state at that floor can still be had. Returns whether it
    /// refutes the checkpoint.
    async fn judge(
        &self,
        net: &mut Net,
        reference: &CheckpointRef,
        digest: Hash32,
    ) -> Result<bool, ReplicaError> {
        let rewind = self.core.lock().snapshot_at(reference.floor)?;
        let Some(rewind) = rewind else {
            return Ok(false);
        };
        let computed = blocking(&Handle::current(), move || {
            let snapshot = rewind.run()?;
            let mut rows = DigestOfRows::default();
            snapshot.for_each(|key, value| {
                rows.row(&key, &value);
                Ok::<_, RowsError>(())
            })?;
            Ok::<_, RowsError>(rows.finish().1)
        });
        let computed = computed.await.map_err(|_| ReplicaError::Ending)??;
        if computed != digest {
            let object = self.env.names.checkpoint(&reference.name)?.to_string();
            let text = format!(
                "its proposer computed digest {digest}, this device {computed}: one of the two is wrong"
            );
            self.report(FindingKind::Digest, object, text.clone());
            if self.has_a_say() {
                net.refuting.insert(*reference, computed);
            }
            return Ok(self.has_a_say());
        }
        net.verdicts.push(Verdict {
            opinion: Opinion::Confirm,
            checkpoint: *reference,
            digest: computed,
        });
        Ok(false)
    }

    /// Commits of this device that it did not write in this run: somebody else runs with its state.
    fn check_clone(&self, net: &mut Net) {
        let core = self.core.lock();
        let own = core
            .graph
            .lanes
            .iter()
            .filter(|(_, lane)| lane.device == self.env.device);
        let mut foreign = own.filter(|(id, lane)| {
            let tip = lane.tip().map(|tip| (tip.seq, tip.hash));
            match lane.incarnation.cmp(&net.own.incarnation) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => {
                    **id == net.own.id && tip != net.own.tip.map(|head| (head.seq, head.hash))
                }
            }
        });
        let found = foreign.next().map(|(id, _)| *id);
        if let (Some(lane), true) = (found, net.own.checked) {
            self.report_clone(net, lane);
        }
    }

    fn report_clone(&self, net: &mut Net, lane: LaneId) {
        net.cloned = true;
        let text = "another copy of this device's state writes to the vault".to_owned();
        self.report(FindingKind::Cloned, lane.to_string(), text);
    }

    /// A clock that is put forward makes nobody silent: between two looks no more time counts than a day, or than passed on the monotonic
    /// clock, which stands still while the machine sleeps.
    fn notice_jump(&self, net: &mut Net) {
        let (now, monotonic) = (self.env.clock.now(), self.env.clock.monotonic());
        let Some((then, before)) = net.looked.replace((now, monotonic)) else {
            return;
        };
        let passed = i64::try_from(monotonic.saturating_sub(before)).unwrap_or(i64::MAX);
        let counted = passed.max(JUMP_MAX);
        let jump = now.0.saturating_sub(then.0).saturating_sub(counted);
        let awaited = net.heads.lanes.values_mut();
        for since in awaited
            .filter_map(|seen| seen.awaited.as_mut())
            .filter(|_| jump > 0)
        {
            since.0 = since.0.saturating_add(jump);
        }
    }
}

pub(super) fn proposals(checked: &CheckedCommit) -> impl Iterator<Item = &Verdict> {
    let lamport = checked.commit().lamport;
    let verdicts = checked.commit().verdicts.iter();
    verdicts.filter(move |v| v.opinion == Opinion::Propose && v.checkpoint.floor < lamport)
}

/// Those of the wanted roots that are asked for now: all that were not before, and of the others those that are due for longest. So nobody
/// keeps one from its turn by inventing others.
fn roots_due(
    wanted: &BTreeMap<CheckpointRef, Hash32>,
    retries: &BTreeMap<CheckpointRef, (u64, u32)>,
    now: u64,
) -> Vec<(CheckpointRef, Hash32)> {
    let (again, new): (Vec<_>, Vec<_>) = wanted
        .iter()
        .map(|(reference, digest)| (*reference, *digest))
        .partition(|(reference, _)| retries.contains_key(reference));
    let due = |(reference, digest): (CheckpointRef, Hash32)| {
        let (next, _) = retries.get(&reference)?;
        (*next <= now).then_some((*next, reference, digest))
    };
    let mut again: Vec<(u64, CheckpointRef, Hash32)> = again.into_iter().filter_map(due).collect();
    again.sort();
    let again = again.into_iter().take(ROOTS_AGAIN);
    let again = again.map(|(_, reference, digest)| (reference, digest));
    new.into_iter().chain(again).collect()
}

/// Notes the checkpoints that a commit proposes.
pub(super) fn note_proposals(core: &mut Core, checked: &CheckedCommit) {
    let place = core.key_of(checked);
    for verdict in proposals(checked) {
        let reference = verdict.checkpoint;
        let named = core.graph.named_up_to(checked.head(), reference.floor);
        let standing = &mut core.meta.standing;
        standing.propose(reference, verdict.digest, place, named);
    }
}

/// Lets what the checkpoints that stand now say of the ends of lanes count. Returns the lanes that end earlier.
fn hold_what_stands(
    core: &mut Core,
    arrived: &BTreeSet<Hash32>,
) -> Result<BTreeSet<LaneId>, MergeError> {
    let held = core.meta.standing.held();
    let moved = core.graph.hold(&held);
    earlier_ends(core, moved, arrived)
}

/// Of lanes that end elsewhere than before, those that end earlier.
pub(super) fn earlier_ends(
    core: &Core,
    moved: Vec<(LaneId, Option<u64>)>,
    arrived: &BTreeSet<Hash32>,
) -> Result<BTreeSet<LaneId>, MergeError> {
    let mut earlier = BTreeSet::new();
    for (lane, before) in moved {
        let now = core.graph.lanes.get(&lane).and_then(|lane| lane.closed);
        let later = before.filter(|before| now.is_none_or(|now| now > *before));
        match later {
            None => drop(earlier.insert(lane)),
            // What was void counts again.
            Some(before)
                if core
                    .graph
                    .after(lane, before)
                    .any(|c| !arrived.contains(&c)) =>
            {
                return Err(MergeError::TooDeep);
            }
            Some(_) => {}
        }
    }
    Ok(earlier)
}

/// Whether commits count no more that were folded so long ago that they cannot be undone: in lanes that end earlier now, or
/// between the floors of the checkpoint that stood and of the one that stands now.
fn voids_too_deep(
    core: &Core,
    arrived: &BTreeSet<Hash32>,
    closed: &BTreeSet<LaneId>,
    range: Option<(u64, u64)>,
) -> bool {
    if closed.is_empty() && range.is_none() {
        return false;
    }
    let (graph, undoable_from) = (&core.graph, core.meta.undoable_from);
    let chain: Vec<&Candidate> = core.meta.standing.chain().collect();
    let is_below = |head: &Head, lamport: u64| {
        let above = chain.iter().find(|c| lamport <= c.reference.floor);
        let reach = above.and_then(|c| c.reach.as_ref());
        reach.is_some_and(|reach| !reach.covers(graph, head))
    };
    graph.all().any(|(head, lamport)| {
        if lamport >= undoable_from || arrived.contains(&head.hash) || graph.is_mistimed(&head) {
            return false;
        }
        let in_range = range.is_some_and(|(from, to)| from < lamport && lamport <= to);
        match (graph.is_void(&head), closed.contains(&head.lane)) {
            (true, true) => in_range || !is_below(&head, lamport),
            (true, false) => false,
            (false, _) => in_range && is_below(&head, lamport),
        }
    })
}
