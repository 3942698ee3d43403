//! Getting commits by their exact names, backwards from what is named until everything is known (rule D7).

use super::Env;
use super::error::{FindingKind, ReplicaError};
use super::graph::{Cuts, Graph};
use super::spool::{Spool, Spooled};
use crate::commit::{CheckedCommit, Commit, Fault, open_commit};
use crate::heads::LocalError;
use crate::lane::{Head, PER_DIRECTORY, parse_commit_file};
use crate::rows::RowsError;
use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use skrin_base::limits::COMMIT_MAX;
use skrin_base::{DeviceId, Hash32, LaneId};
use skrin_storage::{ErrorKind, StoreError};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

/// Requests at once.
const AT_ONCE: usize = 16;
/// So many missing commits of a lane are walked back one by one; for more, directories are listed first.
const WALKED: u64 = 8;
/// Directories of a lane are listed for at most this many of its newest commits.
const LISTED_AT_MOST: u64 = 65_536;
/// After this time without a commit that others follow, it counts as withheld.
const WITHHELD_AFTER: u64 = 120_000_000_000;
const RETRY_MIN: u64 = 1_000_000_000;
const RETRY_MAX: u64 = 60_000_000_000;
/// So many commits of a lane that wait one for the other are kept. Those after them are got again when they can be admitted.
pub(super) const KEPT_WAITING: usize = 64;
/// Commits that wait are kept in memory up to this part of the bound in sum, and on the disk beyond: an operation takes several
/// times as much in memory. Less in tests, so that random programs go that way.
const PART: usize = if cfg!(test) { 1024 } else { 32 };

/// A commit that could not be had or believed.
struct Trouble {
    since: u64,
    /// When the storage was last asked, and said the same.
    last: u64,
    tries: u32,
    next_try: u64,
    /// `None` when there is no such object.
    fault: Option<Fault>,
    /// Its bytes, when newer control records may cure it.
    bytes: Option<Bytes>,
}

impl Trouble {
    /// How it is told: whether a valid commit follows it tells an upload under way from an attack. Time in which nobody could
    /// ask, as this machine slept or the network was gone, speaks against nobody.
    fn kind(&self, named: bool) -> FindingKind {
        let long = self.last.saturating_sub(self.since) >= WITHHELD_AFTER;
        match &self.fault {
            None if named && long => FindingKind::Withheld,
            None => FindingKind::Incomplete,
            // What a commit of this version follows is of this version or an earlier one.
            Some(Fault::Version(_)) if named => FindingKind::Integrity,
            Some(fault) if fault.is_newer() => FindingKind::Newer,
            Some(Fault::UnknownEpoch) if named && long => FindingKind::Integrity,
            Some(Fault::UnknownControl(_)) if long => FindingKind::Withheld,
            Some(fault) if fault.may_be_cured() => FindingKind::Unknown,
            Some(Fault::Bytes | Fault::Magic | Fault::Open(_)) if !named => FindingKind::Incomplete,
            Some(_) => FindingKind::Integrity,
        }
    }
}

/// A commit that is verified by itself, and waits to be admitted and folded.
pub(super) struct Waiting {
    outline: CheckedCommit,
    ops: usize,
    /// Where the whole of it is, if `outline` is not that.
    body: Option<Spooled>,
}

impl Waiting {
    /// Its exact name.
    pub(super) fn head(&self) -> &Head {
        self.outline.head()
    }

    /// All but its operations and segments, which may be there or not.
    pub(super) fn outline(&self) -> &CheckedCommit {
        &self.outline
    }

    /// The same.
    pub(super) fn commit(&self) -> &Arc<Commit> {
        self.outline.commit()
    }

    /// How many operations it has.
    pub(super) fn ops(&self) -> usize {
        self.ops
    }

    /// The whole of it, from the disk if it is there.
    ///
    /// # Errors
    /// When that does not give it back; what was admitted cannot be folded then.
    pub(super) fn open(&self, env: &Env) -> Result<CheckedCommit, RowsError> {
        let Some(body) = &self.body else {
            return Ok(self.outline.clone());
        };
        let lost = |error: &dyn std::fmt::Display| {
            RowsError::Cache(format!(
                "commit {} cannot be read again: {error}",
                self.head()
            ))
        };
        let bytes = body.read().map_err(|error| lost(&error))?;
        let opened = open_commit(self.head(), &bytes, &env.keys(), &env.roster.read());
        opened.map_err(|fault| lost(&fault))
    }
}

/// Commits between the storage and the state: fetched and verified, but not folded in yet, and those that are
/// in trouble.
pub(super) struct Inbox {
    /// Verified by themselves; what they follow may be missing.
    pub(super) held: BTreeMap<Hash32, Waiting>,
    /// Length of those that are in memory.
    in_memory: usize,
    /// The most of that.
    fits: usize,
    spool: Spool,
    troubles: BTreeMap<Head, Trouble>,
    /// Commits that were let go of as they come after others of their lane that wait, and the last of these that is kept.
    parked: BTreeMap<Head, Hash32>,
    /// Whose lanes these are, of which no commit is known and no cut speaks: of devices that were cut off.
    ended: BTreeMap<LaneId, DeviceId>,
    /// What control records name as the ends of lanes.
    cut_ends: Vec<Head>,
}

impl Inbox {
    /// Of these heads, those that may count by their numbers. `device` says whose a lane is.
    pub(super) fn that_may_count(
        &self,
        heads: &[Head],
        cuts: &Cuts,
        device: impl Fn(&LaneId) -> Option<DeviceId>,
    ) -> Vec<Head> {
        let passed = |head: &&Head| {
            let device = device(&head.lane).or_else(|| cuts.device_of(&head.lane));
            let device = device.or_else(|| self.ended.get(&head.lane).copied());
            device.is_some_and(|of| cuts.are_passed(&of, &head.lane, head.seq))
        };
        heads.iter().filter(|head| !passed(head)).copied().collect()
    }

    /// Takes over what another one has learned of whose lanes are.
    pub(super) fn learn(&mut self, other: &Self) {
        self.ended.extend(&other.ended);
    }

    /// Lets go of what lies beyond a cut and that nothing follows which may count. Own commits stay: their operations are not lost.
    fn drop_cut_off(&mut self, env: &Env, cuts: &Cuts) {
        let is_beyond = |waiting: &Waiting| {
            let (head, device) = (waiting.head(), waiting.commit().device);
            device != env.device && cuts.are_passed(&device, &head.lane, head.seq)
        };
        let held = &self.held;
        self.parked.retain(|head, last| {
            // What comes before it may not be kept: it is got again if something that may count names it.
            let device = held.get(&*last).map(|waiting| waiting.commit().device);
            device.is_some_and(|device| !cuts.are_passed(&device, &head.lane, head.seq))
        });
        let mut followers: HashMap<Head, usize> = HashMap::new();
        let parents = |waiting: &Waiting| Graph::parents(waiting.commit()).collect::<Vec<_>>();
        for head in self.held.values().flat_map(parents) {
            *followers.entry(head).or_default() += 1;
        }
        for head in &self.cut_ends {
            *followers.entry(*head).or_default() += 1;
        }
        let unnamed = |waiting: &&Waiting| !followers.contains_key(waiting.head());
        let first = self.held.values().filter(unnamed);
        let mut queue: Vec<Hash32> = first.map(|waiting| waiting.head().hash).collect();
        while let Some(next) = queue.pop() {
            let is_left = |head: &Head| followers.get(head).is_some_and(|left| *left > 0);
            let goes = |waiting: &Waiting| is_beyond(waiting) && !is_left(waiting.head());
            if !self.held.get(&next).is_some_and(goes) {
                continue;
            }
            let Some(gone) = self.take_out(&next) else {
                continue;
            };
            for head in parents(&gone) {
                let left = followers.entry(head).or_default();
                *left = left.saturating_sub(1);
                if *left == 0 {
                    queue.push(head.hash);
                }
            }
        }
    }

    fn take_out(&mut self, commit: &Hash32) -> Option<Waiting> {
        let waiting = self.held.remove(commit)?;
        if waiting.body.is_none() {
            self.in_memory = self.in_memory.saturating_sub(waiting.outline.len());
        }
        Some(waiting)
    }

    /// Lets go of the commits that come after the first ones of their lanes that wait: none of them can be admitted before those, and
    /// a member decides how many there are. Own ones stay, as they may be nowhere else, and what lies beyond a cut, as it goes where
    /// nothing names it.
    pub(super) fn park(&mut self, own: DeviceId, cuts: &Cuts) {
        let mut waiting: Vec<Head> = self.held.values().map(|w| *w.head()).collect();
        waiting.sort_by_key(|head| head.seq);
        // How many of its lane a commit waits for, itself included, and the last of them that is kept.
        let mut places: HashMap<Hash32, (usize, Hash32)> = HashMap::new();
        for head in waiting {
            let Some(commit) = self.held.get(&head.hash).map(|w| w.commit().clone()) else {
                continue;
            };
            let previous = Graph::previous(&commit);
            let parked = previous.as_ref().and_then(|p| self.parked.get(p));
            let before = places.get(&commit.prev).filter(|_| previous.is_some());
            let (count, last) = match (before, parked) {
                (Some((count, _)), _) if *count < KEPT_WAITING => (count + 1, head.hash),
                (Some((count, last)), _) => (*count, *last),
                (None, Some(last)) => (KEPT_WAITING, *last),
                (None, None) => (1, head.hash),
            };
            places.insert(head.hash, (count, last));
            let stays =
                commit.device == own || cuts.are_passed(&commit.device, &head.lane, head.seq);
            if last != head.hash && !stays {
                self.take_out(&head.hash);
                self.parked.insert(head, last);
            }
        }
    }

    /// Forgets what was let go of after commits that wait no more, so that it is got again. Returns whether there is any.
    pub(super) fn unpark(&mut self) -> bool {
        let before = self.parked.len();
        let held = &self.held;
        self.parked.retain(|_, last| held.contains_key(&*last));
        self.parked.len() < before
    }

    /// The same of all: who begins elsewhere has to see everything.
    pub(super) fn unpark_all(&mut self) {
        self.parked.clear();
    }

    /// Whether a commit was opened here and waits for others, or was let go of since then.
    pub(super) fn was_opened(&self, head: &Head, own: &DeviceId) -> bool {
        let held = self.held.get(&head.hash);
        let is_held = held.is_some_and(|w| w.head() == head && w.commit().device != *own);
        is_held || self.parked.contains_key(head)
    }

    /// An empty one, which keeps in this directory what does not fit into its part of a bound of memory.
    pub(super) fn new(dir: &Path, memory: usize) -> Self {
        Self {
            held: BTreeMap::new(),
            in_memory: 0,
            fits: memory / PART,
            spool: Spool::new(dir),
            troubles: BTreeMap::new(),
            parked: BTreeMap::new(),
            ended: BTreeMap::new(),
            cut_ends: Vec::new(),
        }
    }

    /// Puts a verified commit in, which was opened from these bytes.
    ///
    /// # Errors
    /// When many wait, and the disk has no room for it.
    pub(super) fn hold(&mut self, checked: CheckedCommit, bytes: &[u8]) -> Result<(), LocalError> {
        let fits = self.in_memory.saturating_add(bytes.len()) <= self.fits;
        let ops = checked.commit().ops.len();
        let (outline, body) = match fits {
            true => (checked, None),
            false => (checked.outline(), Some(self.spool.keep(bytes)?)),
        };
        self.hold_again(Waiting { outline, ops, body });
        Ok(())
    }

    /// Puts one back.
    pub(super) fn hold_again(&mut self, waiting: Waiting) {
        if waiting.body.is_none() {
            self.in_memory = self.in_memory.saturating_add(waiting.outline.len());
        }
        self.troubles.remove(waiting.head());
        self.held.insert(waiting.head().hash, waiting);
    }

    /// What can be admitted, sorted so that everything comes after what it follows.
    pub(super) fn take_by_lamport(&mut self) -> Vec<Waiting> {
        self.in_memory = 0;
        let mut all: Vec<_> = std::mem::take(&mut self.held).into_values().collect();
        all.sort_by_key(|waiting| waiting.commit().lamport);
        all
    }

    /// Gives the room on the disk back that nothing needs any more.
    pub(super) fn let_go(&mut self) {
        self.spool.let_go();
    }

    /// Keeps an own commit that newer control records may cure.
    pub(super) fn keep(&mut self, head: Head, fault: Fault, bytes: Bytes, now: u64) {
        self.note(head, Some(fault), Some(bytes), now);
    }

    /// Notes a commit that contradicts what it follows; it is never asked for again.
    pub(super) fn condemn(&mut self, head: Head, fault: Fault, now: u64) {
        let trouble = Trouble {
            since: now,
            last: now,
            tries: u32::MAX,
            next_try: u64::MAX,
            fault: Some(fault),
            bytes: None,
        };
        self.troubles.insert(head, trouble);
    }

    /// A higher floor was proposed, or the state begins elsewhere: what was refused for its Lamport time may be void now, or
    /// right, and its successors count.
    pub(super) fn forgive(&mut self) {
        let refused = |t: &Trouble| matches!(t.fault, Some(Fault::Lamport { .. }));
        self.troubles.retain(|_, trouble| !refused(trouble));
    }

    fn note(&mut self, head: Head, fault: Option<Fault>, bytes: Option<Bytes>, now: u64) {
        let trouble = self.troubles.entry(head).or_insert(Trouble {
            since: now,
            last: now,
            tries: 0,
            next_try: now,
            fault: None,
            bytes: None,
        });
        // Wrong bytes may become right, if a server cut the object short; wrong contents never do.
        let hopeless = fault
            .as_ref()
            .is_some_and(|f| !f.is_of_the_bytes() && !f.may_be_cured());
        let pause = RETRY_MIN
            .saturating_mul(1 << trouble.tries.min(6))
            .min(RETRY_MAX);
        trouble.last = now;
        trouble.tries = trouble.tries.saturating_add(1);
        trouble.next_try = if hopeless {
            u64::MAX
        } else {
            now.saturating_add(pause)
        };
        (trouble.fault, trouble.bytes) = (fault, bytes);
    }

    /// Whether commits are there that need a newer program.
    pub(super) fn is_newer(&self) -> bool {
        let named = self.named();
        let newer = |(head, t): (&Head, &Trouble)| t.kind(named.contains(head));
        self.troubles.iter().any(|t| newer(t) == FindingKind::Newer)
    }

    /// Whether newer control records may help.
    pub(super) fn needs_control(&self) -> bool {
        let curable = |t: &Trouble| t.fault.as_ref().is_some_and(Fault::may_be_cured);
        self.troubles.values().any(curable)
    }

    /// What the valid commits that wait here follow, and what cuts name.
    fn named(&self) -> BTreeSet<Head> {
        let parents =
            |waiting: &Waiting| -> Vec<Head> { Graph::parents(waiting.commit()).collect() };
        let followed = self.held.values().flat_map(parents);
        followed.chain(self.cut_ends.iter().copied()).collect()
    }

    /// The troubles as findings, with the heads that others follow, or that were `seen` here, told apart.
    pub(super) fn findings(
        &self,
        seen: impl Fn(&Head) -> bool,
    ) -> Vec<(Head, FindingKind, String)> {
        let named = self.named();
        let describe = |(head, trouble): (&Head, &Trouble)| {
            let text = match &trouble.fault {
                None => "the storage does not have it".to_owned(),
                Some(fault) => fault.to_string(),
            };
            let kind = match trouble.kind(named.contains(head)) {
                // It was whole.
                FindingKind::Incomplete if seen(head) => trouble.kind(true),
                kind => kind,
            };
            (*head, kind, text)
        };
        self.troubles.iter().map(describe).collect()
    }

    /// Forgets troubles of commits that are known by now.
    pub(super) fn settle(&mut self, known: impl Fn(&Head) -> bool) {
        self.troubles.retain(|head, _| !known(head));
    }

    /// Verifies again what newer control records may have cured.
    fn try_cured(&mut self, env: &Env) -> Result<Vec<Head>, LocalError> {
        let kept = self
            .troubles
            .iter()
            .filter_map(|(head, t)| Some((*head, t.bytes.clone()?)));
        let mut follow = Vec::new();
        for (head, bytes) in kept.collect::<Vec<_>>() {
            if let Ok(checked) = open_commit(&head, &bytes, &env.keys(), &env.roster.read()) {
                follow.extend(Graph::parents(checked.commit()));
                self.hold(checked, &bytes)?;
            }
        }
        Ok(follow)
    }

    fn is_due(&self, head: &Head, now: u64) -> bool {
        let trouble = self.troubles.get(head);
        !self.held.contains_key(&head.hash)
            && !self.parked.contains_key(head)
            && trouble.is_none_or(|t| t.next_try <= now)
    }

    /// Whether a tip was fetched with the one before it, and both wait for others; or is not asked for now.
    fn waits(&self, tip: &Head, now: u64) -> bool {
        match self.held.get(&tip.hash) {
            Some(held) => tip.seq == 0 || self.held.contains_key(&held.commit().prev),
            None => !self.is_due(tip, now),
        }
    }

    /// Whether commits are missing, or are not what was put.
    pub(super) fn lacks_bytes(&self) -> bool {
        let mut faults = self.troubles.values().map(|trouble| trouble.fault.as_ref());
        faults.any(|fault| fault.is_none_or(Fault::is_of_the_bytes))
    }

    /// Whether commits that were asked for could not be had or read. If not, all were, with everything that they follow; those that
    /// are not admitted wait for one that contradicts what it follows.
    pub(super) fn lacks_any(&self) -> bool {
        let was_had = |t: &Trouble| matches!(t.fault, Some(Fault::Lamport { .. }));
        !self.troubles.values().all(was_had)
    }

    /// Takes what a fetch brought; returns what it follows.
    fn take(
        &mut self,
        (env, cuts): (&Env, &Cuts),
        (head, is_named): (Head, bool),
        got: Result<Bytes, StoreError>,
        now: u64,
    ) -> Result<Vec<Head>, ReplicaError> {
        let bytes = match got {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() => {
                self.note(head, None, None, now);
                return Ok(Vec::new());
            }
            // Too long or nonsense: as good as other bytes. It must not stop the other lanes.
            Err(error) if error.kind() == ErrorKind::Broken => {
                self.note(head, Some(Fault::Bytes), None, now);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        match open_commit(&head, &bytes, &env.keys(), &env.roster.read()) {
            Ok(checked) => {
                let device = checked.commit().device;
                if !is_named && cuts.are_passed(&device, &head.lane, head.seq) {
                    self.troubles.remove(&head);
                    self.ended.insert(head.lane, device);
                    return Ok(Vec::new());
                }
                let follow = Graph::parents(checked.commit()).collect();
                self.hold(checked, &bytes)?;
                Ok(follow)
            }
            Err(fault) => {
                let keep = fault.may_be_cured().then_some(bytes);
                tracing::warn!(%head, %fault, "a commit on the storage does not count");
                self.note(head, Some(fault), keep, now);
                Ok(Vec::new())
            }
        }
    }

    /// The commits between what is known and the tips, as the directories of the lanes show them. Listings are hints: they
    /// only let many commits be got at once instead of one after the other.
    pub(super) async fn between(
        &self,
        env: &Env,
        tips: &[Head],
        known: impl Fn(&LaneId) -> Option<u64>,
    ) -> Result<Vec<Head>, ReplicaError> {
        let now = env.clock.monotonic();
        let mut newest: BTreeMap<LaneId, Head> = BTreeMap::new();
        for tip in tips.iter().filter(|tip| !self.waits(tip, now)) {
            let lane = newest.entry(tip.lane).or_insert(*tip);
            *lane = (*lane).max(*tip);
        }
        let mut directories = Vec::new();
        for tip in newest.values() {
            let from = known(&tip.lane).map_or(0, |seq| seq.saturating_add(1));
            if tip.seq.saturating_sub(from) < WALKED {
                continue;
            }
            let oldest = from.max(tip.seq.saturating_sub(LISTED_AT_MOST));
            let parts = oldest / PER_DIRECTORY..=tip.seq / PER_DIRECTORY;
            directories.extend(parts.map(|part| (tip.lane, part * PER_DIRECTORY, from, tip.seq)));
        }
        let list = |(lane, seq, from, to)| async move {
            let listing = env
                .store
                .list(&env.names.lane_directory(lane, seq)?)
                .await?;
            let files = listing.objects.iter();
            let parsed = files.filter_map(|listed| parse_commit_file(listed.name.file_name()));
            let wanted = parsed.filter(|(seq, _)| (from..=to).contains(seq));
            let heads = wanted.map(|(seq, hash)| Head { lane, seq, hash });
            Ok::<Vec<Head>, ReplicaError>(heads.collect())
        };
        let mut lists = stream::iter(directories.into_iter().map(list)).buffered(AT_ONCE);
        let mut heads = Vec::new();
        while let Some(listed) = lists.next().await {
            heads.extend(listed?);
        }
        Ok(heads)
    }

    /// Gets the wanted commits and everything that they follow, as far as it is not `known`. Missing and bad ones are
    /// noted and tried again later.
    pub(super) async fn fetch(
        &mut self,
        env: &Env,
        want: impl IntoIterator<Item = Head>,
        known: impl Fn(&Head) -> bool,
    ) -> Result<(), ReplicaError> {
        let cuts = Cuts::of(&env.roster.read());
        let named = |head: Head| (head, true);
        let mut queue: VecDeque<(Head, bool)> = want.into_iter().map(|h| (h, false)).collect();
        queue.extend(self.try_cured(env)?.into_iter().map(named));
        self.cut_ends = cuts.ends().collect();
        if !cuts.is_empty() {
            self.drop_cut_off(env, &cuts);
            queue.extend(self.cut_ends.iter().copied().map(named));
        }
        for waiting in self.held.values() {
            queue.extend(Graph::parents(waiting.commit()).map(named));
        }
        let (mut asked, mut followed) = (BTreeSet::new(), BTreeSet::new());
        let mut running = FuturesUnordered::new();
        let mut failed = None;
        loop {
            let now = env.clock.monotonic();
            while running.len() < AT_ONCE {
                let Some((head, is_named)) = queue.pop_front() else {
                    break;
                };
                let device = self.ended.get(&head.lane);
                let is_passed = |of: &DeviceId| cuts.are_passed(of, &head.lane, head.seq);
                let is_ended = !is_named && device.is_some_and(is_passed);
                if is_ended || known(&head) || !self.is_due(&head, now) || !asked.insert(head) {
                    continue;
                }
                let name = env.names.commit(&head)?;
                running.push(async move {
                    let got = env.store.get(&name, COMMIT_MAX).await;
                    (head, is_named, got)
                });
            }
            let Some((head, is_named, got)) = running.next().await else {
                break;
            };
            let is_named = is_named || followed.contains(&head);
            match self.take((env, &cuts), (head, is_named), got, now) {
                Ok(follow) => {
                    if self.ended.contains_key(&head.lane) {
                        // Something that counts may yet name it.
                        asked.remove(&head);
                    }
                    followed.extend(follow.iter().copied());
                    queue.extend(follow.into_iter().map(named));
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
