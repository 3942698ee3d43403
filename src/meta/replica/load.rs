//! Opening: from the local cache, else from the newest checkpoint and what came after it, else from all commits.

use super::core::{Core, MergeError};
use super::error::{FindingKind, ReplicaError};
use super::fetch::Inbox;
use super::graph::{Covered, Lane, Tip};
use super::news::News;
use super::own::OwnCommits;
use super::past::Past;
use super::pull::proposals;
use super::spool::{Spool, Spooled};
use super::standing::{Candidate, Reach};
use super::{Env, MergeDiff, Net, OwnLane, Replica, ReplicaConfig, barred, status};
use crate::apply::RULE_SET;
use crate::cache::CachedRows;
use crate::checkpoint::{CheckpointFault, PageRef, Root, RowAssembler, open_page, open_root};
use crate::commit::{CheckedCommit, CheckpointRef, open_commit};
use crate::heads::{HeadsFile, SeenHead};
use crate::lane::{Head, RoomNames};
use crate::rows::{Row, RowKey, Rows, RowsError};
use crate::state;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use parking_lot::{Mutex, RwLock};
use skrin_base::Hash32;
use skrin_base::limits::{CHECKPOINT_MAX, PAGE_LEN};
use skrin_base::wire::{Encode, Writer};
use skrin_base::{Ino, LaneId, Name};
use skrin_storage::{ErrorKind, ObjectName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Raised when rows or entries beside them change their meaning: an older cache is then made again.
const CACHE_VERSION: u32 = 11;
/// Pages got at once.
const PAGES_AT_ONCE: usize = 8;
/// Names of the root that are told when everything may be another.
const ROOT_NAMES: usize = 4096;
/// How many older checkpoints are tried before everything is folded from the first commit.
const CHECKPOINTS_TRIED: usize = 3;

fn identity(config: &ReplicaConfig) -> Vec<u8> {
    let mut w = Writer::default();
    w.u32(CACHE_VERSION);
    w.u32(RULE_SET);
    config.keys.vault().encode(&mut w);
    config.keys.room().encode(&mut w);
    config.device.encode(&mut w);
    w.into_bytes()
}

fn env(config: &ReplicaConfig) -> Env {
    Env {
        store: config.store.clone(),
        names: RoomNames(config.keys.room()),
        keys: RwLock::new(config.keys.clone()),
        roster: config.roster.clone(),
        device: config.device,
        signer: config.signer.clone(),
        clock: config.clock.clone(),
        entropy: config.entropy.clone(),
        state_dir: config.state_dir.clone(),
        read_only: config.read_only,
        checkpoints: config.checkpoints,
    }
}

impl Replica {
    /// Opens the room: from the local cache if it is there, else from the storage. With a cache, a storage that cannot
    /// be reached is no error: `pull` will say so.
    ///
    /// # Errors
    /// A storage that shows less than this device has seen; local files that cannot be used; a storage that cannot be
    /// reached when it is needed.
    pub async fn open(config: ReplicaConfig) -> Result<Self, ReplicaError> {
        let (replica, kept) = Self::prepare(config)?;
        replica.start(kept).await?;
        Ok(replica)
    }

    /// Puts again what a storage has lost of what this device wrote and still keeps ([`Replica::put_again`]), where the room
    /// cannot be opened because of just that. Returns how many commits were put.
    ///
    /// # Errors
    /// As `open`, but for what the storage lacks.
    pub async fn put_own_again(config: ReplicaConfig) -> Result<usize, ReplicaError> {
        Self::prepare(config)?.0.put_again().await
    }

    /// Everything but looking at the storage; and whether the local cache was there.
    fn prepare(config: ReplicaConfig) -> Result<(Self, bool), ReplicaError> {
        let env = env(&config);
        let barred = barred(&config.roster.read(), &config.device);
        let (vault, room, device) = (config.keys.vault(), config.keys.room(), config.device);
        let identity = identity(&config);
        let path = config.state_dir.join("meta.db");
        let (rows, _) = CachedRows::open(&path, config.meta_key, &identity, config.cache_bytes)?;
        let heads_path = config.state_dir.join("heads");
        let heads_file = HeadsFile::new(heads_path, config.heads_key, vault, room, device);
        let heads = heads_file.load()?.unwrap_or_default();
        let (mut core, kept) = match Core::load(room, device, rows)? {
            Ok(core) => (core, true),
            Err(rows) => (Core::new(room, device, rows), false),
        };
        core.note_counter(heads.last_counter);
        let reached = |(id, seen): (&LaneId, &SeenHead)| {
            let tip = core.graph.lanes.get(id).and_then(Lane::tip)?;
            let head = Head {
                lane: *id,
                seq: tip.seq,
                hash: tip.hash,
            };
            (!core.graph.knows(&seen.head)).then_some((*id, head))
        };
        core.reached = heads.lanes.iter().filter_map(reached).collect();
        // Both files have it; the newer one of them, which may be either, has it all.
        let owed = heads.refuting.iter().map(|v| (v.checkpoint, v.digest));
        let mut refuting: BTreeMap<CheckpointRef, Hash32> = owed.collect();
        for reference in core.meta.standing.owed() {
            refuting.entry(*reference).or_default();
        }
        refuting.retain(|reference, _| !core.meta.standing.is_refuted_by(reference, &device));
        let incarnation = heads.incarnation;
        let net = Net {
            inbox: Inbox::new(&config.state_dir, config.cache_bytes),
            heads,
            own: OwnLane {
                id: config.keys.lane_id(device, incarnation),
                incarnation,
                tip: None,
                checked: false,
            },
            sealing: None,
            in_flight: None,
            own_tips: Vec::new(),
            probed: HashMap::new(),
            decided_below: 0,
            saw_own: false,
            proposal: None,
            verdicts: Vec::new(),
            refuting,
            roots: Vec::new(),
            root_retries: BTreeMap::new(),
            looked: None,
            past: Past::default(),
            undelivered: MergeDiff::default(),
            waiting: None,
            news: News::default(),
            cloned: false,
            control_is_old: config.control_is_old,
        };
        let replica = Self {
            env,
            barred: Mutex::new(barred),
            core: Mutex::new(core),
            net: tokio::sync::Mutex::new(net),
            commits: Arc::new(OwnCommits::new(&config.state_dir)),
            heads_file: Arc::new(heads_file),
            findings: Mutex::new(BTreeMap::new()),
            shown: Mutex::new(status::Shown::default()),
            flushing: Mutex::new(()),
        };
        Ok((replica, kept))
    }

    async fn start(&self, kept: bool) -> Result<(), ReplicaError> {
        let mut net = self.net.lock().await;
        let own = self.hold_own_commits(&mut net)?;
        self.find_unconfirmed(&mut net, &own)?;
        let loaded = match kept {
            true => {
                // What was sealed before a crash is folded in even without a network.
                self.absorb_or_rebuild(&mut net).await?;
                self.pull_with(&mut net).await
            }
            false => self.load(&mut net).await,
        };
        match loaded {
            Err(error) if kept && (error.is_transient() || error.is_closed()) => {
                tracing::warn!(%error, "the storage cannot be reached or lets nobody in; going on with what is known");
            }
            other => other?,
        }
        self.take_back_void()?;
        self.choose_lane(&mut net, &own);
        self.remember_incarnation(&mut net).await?;
        net.waiting = self.own_unknown(&own);
        if let Err(error) = self.settle(&mut net).await {
            // A full storage is read all the same, and cleared by what is done on this mount; so is one that takes nothing now. What another
            // one stores in part stays kept here, and is put again by whoever publishes next.
            let is_taken_later = error.is_transient() || error.is_closed() || error.is_broken();
            if !is_taken_later && !error.is_full() && !error.is_refusal() {
                return Err(error);
            }
        }
        net.undelivered = MergeDiff::default();
        self.core.lock().flush()?;
        self.show(&net);
        Ok(())
    }

    /// Own sealed commits that the state does not know go through the same door as those of others.
    fn hold_own_commits(&self, net: &mut Net) -> Result<Vec<Head>, ReplicaError> {
        let own = self.commits.list()?;
        let core = self.core.lock();
        for head in own.iter().filter(|head| !core.graph.knows(head)) {
            let sealed = self.commits.read(head)?;
            match open_commit(
                head,
                &sealed.bytes,
                &self.env.keys(),
                &self.env.roster.read(),
            ) {
                Ok(checked) => net.inbox.hold(checked, &sealed.bytes)?,
                Err(fault) if fault.may_be_cured() => {
                    net.inbox
                        .keep(*head, fault, sealed.bytes, self.env.clock.monotonic());
                }
                Err(fault) => {
                    let text = format!("a sealed commit in the local journal is damaged: {fault}");
                    self.report(FindingKind::Integrity, head.to_string(), text);
                }
            }
        }
        Ok(own)
    }

    /// Begins with the storage alone.
    async fn load(&self, net: &mut Net) -> Result<(), ReplicaError> {
        let tips = self.list_tips(net).await?;
        self.load_base(net, &tips, true).await?;
        // What was just loaded from a checkpoint cannot bear witness to it.
        net.roots.clear();
        self.finish_pull(net, &tips).await
    }

    /// Throws the folded state away and folds it again from the storage, with the pending operations on top.
    pub(super) async fn rebuild(&self, net: &mut Net) -> Result<(), ReplicaError> {
        tracing::info!("the state is folded again from the storage");
        self.hold_all_own_commits(net)?;
        let tips = self.list_tips(net).await?;
        let mut names = self.names_in_root();
        self.load_base(net, &tips, false).await?;
        self.take_back_void()?;
        names.extend(self.names_in_root());
        net.undelivered.entries.extend(names);
        net.undelivered.everything = true;
        net.roots.clear();
        Ok(())
    }

    /// What the kernel may know of the root: of other directories it forgets all names with their own. Of a root with more than
    /// that it keeps the rest for as long as it was told.
    pub(super) fn names_in_root(&self) -> BTreeSet<(Ino, Name)> {
        let core = self.core.lock();
        // A state that cannot be read is what may have to be folded again.
        let names = state::list(&core.rows, Ino::ROOT, 0, ROOT_NAMES).unwrap_or_default();
        let names = names.into_iter().map(|entry| (Ino::ROOT, entry.name));
        names.collect()
    }

    /// Makes pending again what own commits say that count for nothing. The journal has let go of it when they were published, so
    /// they are kept until it stands in others.
    fn take_back_void(&self) -> Result<(), ReplicaError> {
        if self.env.read_only {
            return Ok(());
        }
        for head in self.commits.list()? {
            let mut core = self.core.lock();
            if !core.is_broken()
                && core.may_be_void(&head)
                && let Some(checked) = self.own_commit(&head)?
                && !core.is_folded(&checked)?
            {
                core.publish_again(&[checked])?;
            }
        }
        Ok(())
    }

    /// A kept own commit, if it can be believed.
    pub(super) fn own_commit(&self, head: &Head) -> Result<Option<CheckedCommit>, ReplicaError> {
        let sealed = self.commits.read(head)?;
        let keys = self.env.keys();
        Ok(open_commit(head, &sealed.bytes, &keys, &self.env.roster.read()).ok())
    }

    fn hold_all_own_commits(&self, net: &mut Net) -> Result<(), ReplicaError> {
        for head in self.commits.list()? {
            let sealed = self.commits.read(&head)?;
            let keys = self.env.keys();
            match open_commit(&head, &sealed.bytes, &keys, &self.env.roster.read()) {
                Ok(checked) => net.inbox.hold(checked, &sealed.bytes)?,
                Err(fault) if fault.may_be_cured() => {
                    net.inbox
                        .keep(head, fault, sealed.bytes, self.env.clock.monotonic());
                }
                // It was told when it was found.
                Err(_) => {}
            }
        }
        Ok(())
    }

    async fn load_base(
        &self,
        net: &mut Net,
        tips: &[Head],
        alone: bool,
    ) -> Result<(), ReplicaError> {
        for reference in self.checkpoints_named(net, tips).await? {
            let object = self.env.names.checkpoint(&reference.name)?;
            let refuting = net.refuting.clone();
            let known = self.core.lock().meta.standing.without_proposals();
            let loaded = self.load_checkpoint(net, tips, &reference, alone).await;
            if loaded.is_err() && self.core.lock().is_broken() {
                // By what a checkpoint says that does not stand, nothing else can be judged.
                net.inbox.forgive();
                let refuted = net.refuting.get(&reference).copied();
                net.refuting = refuting;
                net.refuting
                    .extend(refuted.map(|digest| (reference, digest)));
                let mut core = self.core.lock();
                core.meta.standing = known;
                core.meta.standing.refute_here(refuted.map(|_| reference));
            }
            match loaded {
                Err(ReplicaError::Checkpoint {
                    fault: CheckpointFault::Superseded,
                    ..
                }) => {}
                Err(ReplicaError::Checkpoint { object, fault }) => {
                    self.report(FindingKind::Integrity, object, fault.to_string());
                }
                Err(ReplicaError::Store(error)) if error.is_absent() => {
                    self.report(FindingKind::Withheld, object.to_string(), error.to_string());
                }
                other => return other,
            }
        }
        self.load_from_nothing(net, tips).await
    }

    async fn load_from_nothing(&self, net: &mut Net, tips: &[Head]) -> Result<(), ReplicaError> {
        let nothing = super::graph::Graph::default();
        self.fetch_wanted(net, tips, &nothing).await?;
        let _one = self.flushing.lock();
        let mut core = self.core.lock();
        core.reset()?;
        core.begin();
        self.absorb_base(net, &mut core, None)?;
        Ok(core.rejoin()?)
    }

    fn absorb_base(
        &self,
        net: &mut Net,
        core: &mut Core,
        from: Option<&CheckpointRef>,
    ) -> Result<(), ReplicaError> {
        let absorbed = self.absorb(net, core);
        if absorbed.is_err() {
            core.fail();
        }
        match absorbed {
            Ok(_) => Ok(()),
            Err(MergeError::Rows(error)) => Err(error.into()),
            // The commits after it show that another branch of checkpoints stands.
            Err(MergeError::TooDeep) => {
                let name = from.map(|from| from.name).unwrap_or_default();
                let object = self.env.names.checkpoint(&name)?;
                Err(checkpoint_error(&object, CheckpointFault::Superseded))
            }
        }
    }

    async fn fetch_wanted(
        &self,
        net: &mut Net,
        tips: &[Head],
        graph: &super::graph::Graph,
    ) -> Result<(), ReplicaError> {
        let device = |lane: &LaneId| graph.device_of_lane(lane);
        let newest = |lane: &LaneId| graph.newest(lane);
        net.inbox.unpark_all();
        let want = self.wanted(net, tips, device, newest).await?;
        net.inbox
            .fetch(&self.env, want, |head| graph.knows(head))
            .await?;
        self.fetch_roots(net).await
    }

    /// The checkpoints that the newest commits call standing or propose, the newest first.
    async fn checkpoints_named(
        &self,
        net: &mut Net,
        tips: &[Head],
    ) -> Result<Vec<CheckpointRef>, ReplicaError> {
        let tips = net.inbox.that_may_count(tips, &self.cuts(), |_| None);
        let only: BTreeSet<Head> = tips.iter().copied().collect();
        let mut newest = Inbox::new(&self.env.state_dir, 0);
        newest
            .fetch(&self.env, tips, |head| !only.contains(head))
            .await?;
        net.inbox.learn(&newest);
        let mut named: Vec<CheckpointRef> = newest
            .held
            .values()
            .chain(net.inbox.held.values())
            .flat_map(|waiting| {
                let standing = waiting.commit().standing.into_iter();
                standing.chain(proposals(waiting.outline()).map(|verdict| verdict.checkpoint))
            })
            .collect();
        for waiting in newest.take_by_lamport() {
            net.inbox.hold_again(waiting);
        }
        named.sort_by_key(|reference| std::cmp::Reverse((reference.floor, reference.name)));
        named.dedup();
        named.truncate(CHECKPOINTS_TRIED);
        Ok(named)
    }

    async fn load_checkpoint(
        &self,
        net: &mut Net,
        tips: &[Head],
        reference: &CheckpointRef,
        alone: bool,
    ) -> Result<(), ReplicaError> {
        let root = get_root(&self.env, reference).await?;
        let parent = root.parent.iter();
        if parent
            .chain([reference])
            .any(|r| self.core.lock().meta.standing.is_refuted(r))
        {
            let object = self.env.names.checkpoint(&reference.name)?;
            return Err(checkpoint_error(&object, CheckpointFault::Superseded));
        }
        let mut graph = super::graph::Graph::default();
        cover(&mut graph, &root);
        self.fetch_wanted(net, tips, &graph).await?;
        net.past = Past::default();
        let question = net.past.question(&net.inbox, &graph);
        if !net.past.holds(&self.env, question).await? {
            let object = self.env.names.checkpoint(&reference.name)?;
            return Err(checkpoint_error(&object, CheckpointFault::Superseded));
        }
        let (mut spool, mut pages) = (Spool::new(&self.env.state_dir), Vec::new());
        if alone {
            // Nobody looks at the tree yet: rows go straight into the database, so that memory stays bounded.
            self.core.lock().reset()?;
            let fill = |_: &[u8], batch| Ok(fill(&mut self.core.lock(), batch)?);
            get_rows(&self.env, &root, fill).await?;
        } else {
            let keep = |page: &[u8], _| {
                pages.push(spool.keep(page)?);
                Ok(())
            };
            get_rows(&self.env, &root, keep).await?;
        }
        // What was being written of the old state must not come after the new one.
        let _one = self.flushing.lock();
        let mut core = self.core.lock();
        if !alone {
            core.reset()?;
        }
        core.begin();
        self.fill_from(&mut core, &root, &pages)?;
        cover(&mut core.graph, &root);
        let standing = std::mem::take(&mut core.meta.standing);
        core.meta.standing = standing.begin(*reference, &root);
        core.meta.undoable_from = root.floor.saturating_add(1);
        self.absorb_base(net, &mut core, Some(reference))?;
        // Whoever calls it standing may lie: somebody must have proposed it, and nobody refuted it. If commits are missing or
        // damaged, that may have been in one of them.
        let all_there = !net.inbox.lacks_bytes();
        let standing = &core.meta.standing;
        let proposed = |c: &Candidate| c.reference == *reference && c.was_proposed();
        let lacks_proposal = all_there && !standing.candidates.iter().any(proposed);
        if !standing.holds(reference) || lacks_proposal {
            core.fail();
            let object = self.env.names.checkpoint(&reference.name)?;
            return Err(checkpoint_error(&object, CheckpointFault::Superseded));
        }
        Ok(core.rejoin()?)
    }

    /// Puts in the rows of pages that were checked before.
    fn fill_from(
        &self,
        core: &mut Core,
        root: &Root,
        pages: &[Spooled],
    ) -> Result<(), ReplicaError> {
        let mut assembler = RowAssembler::default();
        for (page, kept) in root.pages.iter().zip(pages) {
            let object = self.env.names.page(&page.name)?;
            let content = open_page(&kept.read()?, page, &root.epoch, &self.env.keys());
            let rows = content.and_then(|content| assembler.page(&content));
            let rows = rows.map_err(|fault| checkpoint_error(&object, fault))?;
            fill(core, rows)?;
        }
        Ok(())
    }

    /// The own commit, if any, that is kept here and cannot be admitted yet, because the storage does not show what it
    /// follows. Until it is, writing would fork the lane.
    pub(super) fn own_unknown(&self, own: &[Head]) -> Option<Head> {
        let core = self.core.lock();
        own.iter().find(|head| !core.graph.knows(head)).copied()
    }

    /// Continues the newest own lane, if everything in it is known here, else begins a new one.
    pub(super) fn choose_lane(&self, net: &mut Net, own: &[Head]) {
        let mut core = self.core.lock();
        let lanes = core
            .graph
            .lanes
            .iter()
            .filter(|(_, lane)| lane.device == self.env.device);
        let newest = lanes.max_by_key(|(_, lane)| lane.incarnation);
        let newest = newest.map(|(id, lane)| (*id, lane.clone()));
        let mut incarnation = net.heads.incarnation;
        let mut tip = None;
        if let Some((id, lane)) = newest {
            let last = lane.tip().map(|tip| Head {
                lane: id,
                seq: tip.seq,
                hash: tip.hash,
            });
            // Of a lane whose end waits for what it follows, more is known later.
            let goes_on = |head: Head| {
                let next = |o: &Head| o.lane == id && o.seq.checked_sub(1) == Some(head.seq);
                own.contains(&head) || own.iter().any(|o| next(o) && !core.graph.knows(o))
            };
            let kept = lane.tips.len() == 1 && last.is_some_and(goes_on);
            let lost = lane.incarnation < incarnation;
            let ended = last.filter(|_| lane.closed.is_some());
            let ended = ended.and_then(|last| self.own_commit(&last).ok().flatten());
            core.was_closed = ended.is_some_and(|last| !last.commit().closes_itself());
            if lane.closed.is_none() && kept && !lost {
                tip = last;
                incarnation = lane.incarnation;
            } else {
                incarnation = incarnation.max(lane.incarnation).saturating_add(1);
            }
            if lane.closed.is_none() && !kept && !self.env.read_only {
                let text = "the storage has commits of this device that its local state does not know: a restored backup or a copy. It goes on in a new lane";
                self.report(FindingKind::Restored, id.to_string(), text.to_owned());
                core.note_counter(u64::from(incarnation) << 40);
            }
        }
        let id = self.env.keys().lane_id(self.env.device, incarnation);
        // What the lane has said once stays said.
        let said = tip.and_then(|tip| self.own_commit(&tip).ok().flatten());
        let said = said.map_or(0, |checked| checked.commit().decided.below);
        net.decided_below = match net.own.id == id {
            true => net.decided_below.max(said),
            false => said,
        };
        net.own = OwnLane {
            id,
            incarnation,
            tip,
            checked: false,
        };
    }

    /// The newest own commit, if the storage has not confirmed it yet.
    fn find_unconfirmed(&self, net: &mut Net, own: &[Head]) -> Result<(), ReplicaError> {
        let confirmed = |head: &Head| {
            let seen = net.heads.lanes.get(&head.lane);
            seen.is_some_and(|seen| seen.head.seq >= head.seq)
        };
        let newest = own.iter().rev().find(|head| !confirmed(head));
        let Some(head) = newest else {
            return Ok(());
        };
        let kept = self.commits.read(head)?;
        let (keys, roster) = (self.env.keys(), self.env.roster.read());
        if let Err(fault) = open_commit(head, &kept.bytes, &keys, &roster)
            && !fault.may_be_cured()
        {
            // What the storage has may be good: nothing is put over it.
            let text = format!(
                "a sealed commit in the local journal is damaged and not put again: {fault}"
            );
            self.report(FindingKind::Integrity, head.to_string(), text);
            return Ok(());
        }
        drop((keys, roster));
        // Which operations it has is not looked up: none is called confirmed before it is. Who only reads waits for none.
        if !self.env.read_only {
            self.core.lock().unconfirmed = Some(0);
        }
        net.in_flight = Some(kept);
        Ok(())
    }
}

/// The lanes of a graph that begins with this checkpoint.
fn cover(graph: &mut super::graph::Graph, root: &Root) {
    let mut lanes: BTreeMap<LaneId, Lane> = BTreeMap::new();
    for end in &root.covered {
        let lane = lanes.entry(end.lane);
        let lane = lane.or_insert_with(|| Lane::new(end.device, end.incarnation));
        lane.tips.push(Tip {
            seq: end.seq,
            hash: end.hash,
            lamport: end.lamport,
            time: end.time,
            control: Vec::new(),
            named: BTreeSet::new(),
        });
        lane.covered.push(Covered {
            seq: end.seq,
            hash: end.hash,
            lamport: end.lamport,
        });
    }
    for (id, lane) in lanes {
        graph.cover(id, lane);
    }
    graph.hold(&Reach::of(root).lanes);
}

fn fill(core: &mut Core, batch: Vec<(RowKey, Row)>) -> Result<(), RowsError> {
    for (key, value) in batch {
        core.rows.put(&key, value)?;
    }
    core.relieve()?;
    Ok(())
}

fn checkpoint_error(object: &ObjectName, fault: CheckpointFault) -> ReplicaError {
    let object = object.to_string();
    ReplicaError::Checkpoint { object, fault }
}

/// Gets and believes the root that a commit names.
pub(super) async fn get_root(env: &Env, reference: &CheckpointRef) -> Result<Root, ReplicaError> {
    let object = env.names.checkpoint(&reference.name)?;
    let bytes = match env.store.get(&object, CHECKPOINT_MAX).await {
        Err(error) if error.kind() == ErrorKind::Broken => {
            return Err(checkpoint_error(&object, CheckpointFault::Hash));
        }
        other => other?,
    };
    let root = open_root(reference, &bytes, &env.keys(), &env.roster.read());
    root.map_err(|fault| checkpoint_error(&object, fault))
}

pub(super) async fn get_page(
    env: &Env,
    root: &Root,
    page: &PageRef,
) -> Result<Vec<u8>, ReplicaError> {
    Ok(get_sealed_page(env, root, page).await?.1)
}

/// A page as it lies there, and its content.
async fn get_sealed_page(
    env: &Env,
    root: &Root,
    page: &PageRef,
) -> Result<(Bytes, Vec<u8>), ReplicaError> {
    let object = env.names.page(&page.name)?;
    let bytes = match env.store.get(&object, PAGE_LEN).await {
        Err(error) if error.kind() == ErrorKind::Broken => {
            return Err(checkpoint_error(&object, CheckpointFault::Hash));
        }
        other => other?,
    };
    match open_page(&bytes, page, &root.epoch, &env.keys()) {
        Ok(content) => Ok((bytes, content)),
        Err(fault) => Err(checkpoint_error(&object, fault)),
    }
}

/// Gets all pages, several at once, and gives them and their rows on in order; checks count and digest at the end.
async fn get_rows(
    env: &Env,
    root: &Root,
    mut sink: impl FnMut(&[u8], Vec<(RowKey, Row)>) -> Result<(), ReplicaError>,
) -> Result<(), ReplicaError> {
    let mut assembler = RowAssembler::default();
    let pages = stream::iter(&root.pages)
        .map(|page| async move { (page, get_sealed_page(env, root, page).await) });
    let mut pages = pages.buffered(PAGES_AT_ONCE);
    while let Some((page, content)) = pages.next().await {
        let object = env.names.page(&page.name)?;
        let (bytes, content) = content?;
        let rows = assembler.page(&content);
        sink(
            &bytes,
            rows.map_err(|fault| checkpoint_error(&object, fault))?,
        )?;
    }
    let object = env.names.checkpoint(&root.name)?;
    let finished = assembler.finish();
    let (count, digest) = finished.map_err(|fault| checkpoint_error(&object, fault))?;
    if count != root.rows {
        return Err(checkpoint_error(&object, CheckpointFault::Rows));
    }
    if digest != root.digest {
        let (said, computed) = (root.digest, digest);
        return Err(checkpoint_error(
            &object,
            CheckpointFault::Digest { said, computed },
        ));
    }
    Ok(())
}
