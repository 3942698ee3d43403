//! What is known of the lanes: which commits follow which, and how far everybody has seen.

mod cuts;
mod named;

pub(crate) use cuts::Cuts;

use super::standing::Held;
use crate::commit::{Commit, Fault};
use crate::lane::Head;
use cuts::Within;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, Hash32, LaneId, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Bounds of what the local cache may hold.
const LOCAL_MAX: usize = 1 << 24;

/// A commit that was admitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) lane: LaneId,
    pub(crate) seq: u64,
    pub(crate) lamport: u64,
    /// Whether that is what the commits give that it follows.
    timed: bool,
    /// The commit before it in its lane.
    prev: Hash32,
    /// The heads that it names.
    heads: Box<[Head]>,
}

/// The end of a branch of a lane. There is one, unless the lane was forked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tip {
    pub(crate) seq: u64,
    pub(crate) hash: Hash32,
    pub(crate) lamport: u64,
    pub(crate) time: Timestamp,
    /// The control heads that its last commit names.
    pub(crate) control: Vec<Hash32>,
    /// The newest heads of other lanes that this branch has named.
    pub(crate) named: BTreeSet<Head>,
}

/// The last commit of a lane that a checkpoint holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Covered {
    pub(crate) seq: u64,
    pub(crate) hash: Hash32,
    pub(crate) lamport: u64,
}

/// One lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lane {
    pub(crate) device: DeviceId,
    pub(crate) incarnation: u32,
    pub(crate) tips: Vec<Tip>,
    /// The last number that counts, once the lane was closed.
    pub(crate) closed: Option<u64>,
    /// At which numbers commits close it that had seen no later one, and which commits.
    closes: BTreeMap<u64, BTreeSet<Hash32>>,
    /// What the newest checkpoint that stands says of it: the last number that it holds, and at which the lane had ended.
    held: Option<(u64, Option<u64>)>,
    /// The ends of the lane in the checkpoint that this graph begins with: one for each branch.
    pub(crate) covered: Vec<Covered>,
    /// The highest number of a commit with operations that was admitted here.
    said: Option<u64>,
}

impl Lane {
    /// A lane of which nothing is known yet.
    pub(crate) fn new(device: DeviceId, incarnation: u32) -> Self {
        Self {
            device,
            incarnation,
            tips: Vec::new(),
            closed: None,
            closes: BTreeMap::new(),
            held: None,
            covered: Vec::new(),
            said: None,
        }
    }

    /// The highest number that the checkpoint holds.
    fn covered_to(&self) -> Option<u64> {
        self.covered.iter().map(|end| end.seq).max()
    }

    /// The last number that counts: the lowest close, but none below what a checkpoint holds that stands. Who begins with that
    /// cannot take back what lies in it, so nobody does. `counts` says whether one of these commits may close it.
    fn last_that_counts(&self, counts: impl Fn(&BTreeSet<Hash32>) -> bool) -> Option<u64> {
        let from = match self.held {
            Some((_, Some(closed))) => return Some(closed),
            Some((last, None)) => last,
            None => 0,
        };
        let mut closes = self.closes.range(from..);
        let first = closes.find(|(_, by)| counts(by));
        first.map(|(seq, _)| *seq)
    }

    /// The tip with the highest Lamport time.
    pub(crate) fn tip(&self) -> Option<&Tip> {
        self.tips.iter().max_by_key(|tip| (tip.lamport, tip.hash))
    }
}

/// Why a commit is not admitted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// These commits are not known yet.
    Missing(Vec<Head>),
    /// It contradicts what it follows.
    Bad(Fault),
}

/// What admitting a commit brought to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// The lane has two branches now.
    pub(crate) forked: bool,
    /// It names a head that the lane named before, or one that comes before such a head, and its device must have known; it is
    /// redundant.
    pub(crate) went_back: bool,
    /// Lanes that it closed, or closed earlier than before.
    pub(crate) closed: Vec<LaneId>,
    /// Lanes that it names as closed before what it had seen of them; they go on.
    pub(crate) not_closed: Vec<LaneId>,
}

/// Encoded entries of the local cache.
type Encoded<K> = Vec<(K, Vec<u8>)>;

/// All lanes of a room.
#[derive(Default, Clone)]
pub(crate) struct Graph {
    pub(crate) lanes: BTreeMap<LaneId, Lane>,
    nodes: HashMap<Hash32, Node>,
    /// By number in their lanes, with their times.
    places: BTreeSet<(LaneId, u64, u64, Hash32)>,
    /// The cuts of devices that were ended.
    within: Within,
    /// What the local cache does not have yet.
    dirty_lanes: BTreeSet<LaneId>,
    dirty_nodes: BTreeSet<Hash32>,
}

impl Graph {
    /// Whether the commit is known or covered by the checkpoint.
    pub(crate) fn knows(&self, head: &Head) -> bool {
        self.lamport_of(head).is_some()
    }

    /// Whose commit it is, if it was admitted here.
    pub(crate) fn device_of(&self, commit: &Hash32) -> Option<DeviceId> {
        let node = self.nodes.get(commit)?;
        self.lanes.get(&node.lane).map(|lane| lane.device)
    }

    /// Whose lane it is, if anything of it is known.
    pub(crate) fn device_of_lane(&self, lane: &LaneId) -> Option<DeviceId> {
        self.lanes.get(lane).map(|lane| lane.device)
    }

    /// Lamport time of a commit that was admitted here, rather than covered by the checkpoint.
    pub(crate) fn admitted(&self, head: &Head) -> Option<u64> {
        let node = self.nodes.get(&head.hash)?;
        (node.lane == head.lane && node.seq == head.seq).then_some(node.lamport)
    }

    /// Lamport time of a known commit. A covered one that is not the last of its lane counts as 0, where its time was not
    /// looked up: whatever honest names it follows a later one as well.
    fn lamport_of(&self, head: &Head) -> Option<u64> {
        if let Some(node) = self.nodes.get(&head.hash) {
            return (node.lane == head.lane && node.seq == head.seq).then_some(node.lamport);
        }
        let lane = self.lanes.get(&head.lane)?;
        let mut ends = lane.covered.iter();
        if let Some(end) = ends.find(|end| end.hash == head.hash) {
            return (end.seq == head.seq).then_some(end.lamport);
        }
        // Whether it does lie in a covered branch is looked at elsewhere.
        (head.seq < lane.covered_to()?).then_some(0)
    }

    /// Whether a commit has a number that the checkpoint holds, and is none that is known by its hash: it lies in the
    /// checkpoint, or in another branch of its lane.
    pub(crate) fn is_below(&self, head: &Head) -> bool {
        let Some(lane) = self.lanes.get(&head.lane) else {
            return false;
        };
        let is_end = lane.covered.iter().any(|end| end.hash == head.hash);
        let is_known = is_end || self.nodes.contains_key(&head.hash);
        !is_known && lane.covered_to().is_some_and(|last| head.seq <= last)
    }

    /// The Lamport time that the checkpoint with which this graph begins says of an end of a lane.
    pub(crate) fn covered_time(&self, head: &Head) -> Option<u64> {
        let lane = self.lanes.get(&head.lane)?;
        let mut ends = lane.covered.iter();
        let end = ends.find(|end| (end.seq, end.hash) == (head.seq, head.hash));
        end.map(|end| end.lamport)
    }

    /// The highest Lamport time that the checkpoint with which this graph begins says of what it holds.
    pub(crate) fn latest_covered(&self) -> u64 {
        let ends = self.lanes.values().flat_map(|lane| &lane.covered);
        ends.map(|end| end.lamport).max().unwrap_or(0)
    }

    /// Where a lane ends in the checkpoint with which this graph begins.
    pub(crate) fn ends_of(&self, lane: LaneId) -> Vec<Head> {
        let covered = self.lanes.get(&lane).into_iter().flat_map(|l| &l.covered);
        let head = |end: &Covered| Head {
            lane,
            seq: end.seq,
            hash: end.hash,
        };
        covered.map(head).collect()
    }

    pub(crate) fn previous(commit: &Commit) -> Option<Head> {
        let seq = commit.seq.checked_sub(1)?;
        Some(Head {
            lane: commit.lane,
            seq,
            hash: commit.prev,
        })
    }

    /// Everything that the commit says it follows.
    pub(crate) fn parents(commit: &Commit) -> impl Iterator<Item = Head> + '_ {
        let others = commit.closes.iter().filter(|head| head.lane != commit.lane);
        let named = commit.heads.iter().chain(others).copied();
        Self::previous(commit).into_iter().chain(named)
    }

    /// The control heads that the commit before it in its lane names, as far as that is the end of a branch here.
    pub(crate) fn control_before(&self, commit: &Commit) -> &[Hash32] {
        let lane = self.lanes.get(&commit.lane);
        let tip = lane.and_then(|lane| lane.tips.iter().find(|tip| tip.hash == commit.prev));
        tip.map_or(&[], |tip| &tip.control)
    }

    /// Takes a checked commit in, if all that it follows is known and its Lamport time is what that gives.
    pub(crate) fn admit(&mut self, head: &Head, commit: &Commit) -> Result<Admitted, Refusal> {
        self.admit_up_to(head, commit, 0, |_| None)
    }

    /// As `admit`, and also with another Lamport time, if that is not above `proposed`, the highest floor that was ever
    /// proposed: it is void then. Those who begin with a checkpoint cannot compute what lies below it, and others have to
    /// follow it by then, whether or not the checkpoint goes on standing. `past` says the times of commits that lie in the
    /// checkpoint with which this graph begins.
    pub(crate) fn admit_up_to(
        &mut self,
        head: &Head,
        commit: &Commit,
        proposed: u64,
        past: impl Fn(&Hash32) -> Option<u64>,
    ) -> Result<Admitted, Refusal> {
        let previous = Self::previous(commit);
        let time_of = |parent: &Head| {
            let known = self.lamport_of(parent)?;
            if !self.is_below(parent) {
                return Some(known);
            }
            // By the one before it in its lane a false time is told: a guess would let in what others refuse.
            let guess = (previous.as_ref() != Some(parent)).then_some(known);
            past(&parent.hash).or(guess)
        };
        let mut missing = Vec::new();
        let mut latest = 0;
        for parent in Self::parents(commit) {
            match time_of(&parent) {
                Some(lamport) => latest = latest.max(lamport),
                None => missing.push(parent),
            }
        }
        if !missing.is_empty() {
            return Err(Refusal::Missing(missing));
        }
        let computed = latest.saturating_add(1);
        let said = commit.lamport;
        let previous = previous.as_ref().and_then(time_of);
        let timed = said == computed && computed != u64::MAX;
        let taken = said <= proposed && previous.unwrap_or(0) < said;
        if !timed && !taken {
            return Err(Refusal::Bad(Fault::Lamport { said, computed }));
        }
        Ok(self.insert(head, commit, timed))
    }

    fn insert(&mut self, head: &Head, commit: &Commit, timed: bool) -> Admitted {
        let mut admitted = Admitted::default();
        let lane = self.lanes.entry(head.lane);
        let lane = lane.or_insert_with(|| Lane::new(commit.device, commit.incarnation));
        let follows =
            |tip: &Tip| tip.hash == commit.prev && tip.seq.checked_add(1) == Some(head.seq);
        let at = lane.tips.iter().position(follows);
        let named = at.map(|at| lane.tips.swap_remove(at).named);
        admitted.forked = named.is_none() && !lane.tips.is_empty();
        let named = named.unwrap_or_else(|| self.named_by(&commit.prev));
        admitted.went_back = self.goes_back(commit, &named);
        let named = self.name(named, &commit.heads);
        let (closes, early): (Vec<Head>, Vec<Head>) = commit
            .closes
            .iter()
            .partition(|close| close.lane == head.lane || self.is_last_seen(close, &named));
        admitted.not_closed = early.iter().map(|close| close.lane).collect();
        let tip = Tip {
            seq: head.seq,
            hash: head.hash,
            lamport: commit.lamport,
            time: commit.time,
            control: commit.control.clone(),
            named,
        };
        if let Some(lane) = self.lanes.get_mut(&head.lane) {
            lane.tips.push(tip);
            let said = (!commit.ops.is_empty()).then_some(head.seq);
            lane.said = lane.said.max(said);
        }
        self.insert_node(
            head.hash,
            Node {
                lane: head.lane,
                seq: head.seq,
                lamport: commit.lamport,
                timed,
                prev: commit.prev,
                heads: commit.heads.clone().into(),
            },
        );
        self.dirty_lanes.insert(head.lane);
        self.dirty_nodes.insert(head.hash);
        self.accept_if_end(head);
        for close in &closes {
            if self.is_held_beyond(close) {
                admitted.not_closed.push(close.lane);
            }
            admitted.closed.extend(self.close(close, head.hash));
        }
        admitted
    }

    /// Whether nothing later of that lane was named by who closes it.
    fn is_last_seen(&self, close: &Head, named: &BTreeSet<Head>) -> bool {
        let mut named = named.iter().filter(|head| head.lane == close.lane);
        named.all(|head| head.seq <= close.seq)
    }

    /// Whether a checkpoint that stands holds more of a lane than the close would leave of it.
    fn is_held_beyond(&self, close: &Head) -> bool {
        let held = self.lanes.get(&close.lane).and_then(|lane| lane.held);
        held.is_some_and(|(last, closed)| closed.is_none() && close.seq < last)
    }

    /// Notes that an admitted commit has operations, where only its outline was at hand.
    pub(crate) fn note_operations(&mut self, head: &Head) {
        if let Some(lane) = self.lanes.get_mut(&head.lane) {
            lane.said = lane.said.max(Some(head.seq));
        }
    }

    fn insert_node(&mut self, hash: Hash32, node: Node) {
        self.places
            .insert((node.lane, node.seq, node.lamport, hash));
        self.nodes.insert(hash, node);
    }

    fn close(&mut self, close: &Head, by: Hash32) -> Option<LaneId> {
        let lane = self.lanes.get_mut(&close.lane)?;
        lane.closes.entry(close.seq).or_default().insert(by);
        self.dirty_lanes.insert(close.lane);
        self.settle_close(close.lane).map(|_| close.lane)
    }

    /// Notes how far the checkpoints that stand reach. Returns the lanes that end elsewhere than before, with their ends
    /// before.
    pub(crate) fn hold(&mut self, held: &BTreeMap<LaneId, Held>) -> Vec<(LaneId, Option<u64>)> {
        let mut changed = Vec::new();
        for (id, lane) in &mut self.lanes {
            let now = held.get(id).map(|held| (held.last(), held.closed));
            if lane.held != now {
                lane.held = now;
                changed.push(*id);
            }
        }
        self.dirty_lanes.extend(&changed);
        let moved = changed.into_iter();
        moved
            .filter_map(|id| Some((id, self.settle_close(id)?)))
            .collect()
    }

    /// The commits of a lane that come after a number.
    pub(crate) fn after(&self, lane: LaneId, seq: u64) -> impl Iterator<Item = Hash32> + '_ {
        let places = self.places_from(lane, seq.saturating_add(1));
        places.map(|(_, _, _, hash)| *hash)
    }

    fn places_from(
        &self,
        lane: LaneId,
        seq: u64,
    ) -> impl Iterator<Item = &(LaneId, u64, u64, Hash32)> {
        let from = (lane, seq, 0, Hash32([0; 32]));
        let to = (lane, u64::MAX, u64::MAX, Hash32([u8::MAX; 32]));
        self.places.range(from..=to)
    }

    /// All commits that were admitted here, rather than covered by the checkpoint, with their Lamport times.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Head, u64)> + '_ {
        self.nodes.iter().map(|(hash, node)| {
            let (lane, seq, hash) = (node.lane, node.seq, *hash);
            (Head { lane, seq, hash }, node.lamport)
        })
    }

    /// Whether the commit is one of these, or comes before one of them in its lane.
    pub(crate) fn precedes_any(&self, head: &Head, ends: &[(u64, Hash32)]) -> bool {
        let mut later = ends.iter().filter(|(seq, _)| *seq >= head.seq);
        later.any(|(seq, hash)| self.precedes(head, *seq, hash))
    }

    fn precedes(&self, head: &Head, seq: u64, hash: &Hash32) -> bool {
        if *hash == head.hash {
            return seq == head.seq;
        }
        let in_place = |hash: &Hash32| self.nodes.get(hash).filter(|node| node.lane == head.lane);
        let Some(mut node) = in_place(hash).filter(|node| node.seq == seq) else {
            // What the checkpoint holds that this graph begins with, it holds with all before; nothing else is known of it.
            return self.is_covered(head);
        };
        let place = self.places_from(head.lane, head.seq);
        let place = place.take_while(|(_, seq, _, _)| *seq == head.seq);
        let lane = self.lanes.get(&head.lane);
        let covered_to = lane.and_then(Lane::covered_to);
        let is_only = place.take(2).count() == 1 && covered_to.is_none_or(|last| last < head.seq);
        if is_only && self.nodes.contains_key(&head.hash) {
            // The only one with this number is the one that all later ones follow.
            return true;
        }
        loop {
            if node.prev == head.hash {
                return true;
            }
            match in_place(&node.prev).filter(|prev| prev.seq > head.seq) {
                Some(prev) => node = prev,
                None => return !self.nodes.contains_key(&head.hash) && self.is_covered(head),
            }
        }
    }

    fn is_covered(&self, head: &Head) -> bool {
        let lane = self.lanes.get(&head.lane);
        let mut ends = lane.into_iter().flat_map(|lane| &lane.covered);
        ends.any(|end| end.seq > head.seq || end.hash == head.hash)
    }

    /// The hashes of these commits and of all that they follow, as far as that was admitted here.
    pub(crate) fn past_of(&self, heads: impl Iterator<Item = Head>) -> HashSet<Hash32> {
        let mut hashes = HashSet::new();
        let mut queue: Vec<Hash32> = heads.map(|head| head.hash).collect();
        while let Some(next) = queue.pop() {
            if let Some(node) = self.nodes.get(&next)
                && hashes.insert(next)
            {
                queue.push(node.prev);
                queue.extend(node.heads.iter().map(|head| head.hash));
            }
        }
        hashes
    }

    /// Whether the commit counts for nothing by what it and those of its lane say, and the cut of its device: it has a Lamport time
    /// that what it follows does not give, comes after the end of its lane, or lies beyond the cut.
    pub(crate) fn is_void(&self, head: &Head) -> bool {
        self.is_mistimed(head) || self.is_after_close(head) || self.is_cut_off(head)
    }

    /// Whether the commit was admitted with a Lamport time that is not what it follows gives, as far as that is known.
    pub(crate) fn is_mistimed(&self, head: &Head) -> bool {
        self.nodes.get(&head.hash).is_some_and(|node| !node.timed)
    }

    /// Whether the commit comes after the end of its lane.
    fn is_after_close(&self, head: &Head) -> bool {
        let closed = self.lanes.get(&head.lane).and_then(|lane| lane.closed);
        closed.is_some_and(|last| head.seq > last)
    }

    /// The heads that a commit after `own` has to name: those of other lanes that `own` has not named yet.
    pub(crate) fn heads_to_name(&self, own: LaneId) -> Vec<Head> {
        let tip = self.lanes.get(&own).and_then(Lane::tip);
        let mut heads = Vec::new();
        for (id, lane) in self.lanes.iter().filter(|(id, _)| **id != own) {
            for other in &lane.tips {
                let head = Head {
                    lane: *id,
                    seq: other.seq,
                    hash: other.hash,
                };
                let is_covered =
                    lane.covered_to().is_some_and(|last| last >= head.seq) && !self.is_open(lane);
                if !is_covered && tip.is_none_or(|tip| !tip.named.contains(&head)) {
                    heads.push(head);
                }
            }
        }
        heads
    }

    /// Whether others have published operations that a lane does not name.
    pub(crate) fn is_behind(&self, id: LaneId, lane: &Lane) -> bool {
        let Some(tip) = lane.tip() else {
            return false;
        };
        let knows = |other: &LaneId, said: u64| {
            let mut named = tip.named.iter();
            named.any(|named| named.lane == *other && named.seq >= said)
        };
        self.lanes.iter().any(|(other, lane)| {
            let held = lane.held.map(|(last, _)| last);
            let is_covered = |said| lane.covered_to().max(held).is_some_and(|last| last >= said);
            let said = lane.said.filter(|said| !is_covered(*said));
            *other != id && said.is_some_and(|said| !knows(other, said))
        })
    }

    /// The highest number that is known of a lane.
    pub(crate) fn newest(&self, lane: &LaneId) -> Option<u64> {
        let lane = self.lanes.get(lane)?;
        lane.tips.iter().map(|tip| tip.seq).max()
    }

    /// The newest commits of those lanes that are still open and that somebody wants.
    pub(crate) fn open_lanes(&self, wanted: impl Fn(&LaneId, &Lane) -> bool) -> Vec<Head> {
        let open = |(id, lane): &(&LaneId, &Lane)| self.is_open(lane) && wanted(id, lane);
        let lanes = self.lanes.iter().filter(open);
        let head = |(id, lane): (&LaneId, &Lane)| {
            // Of a fork, the longest branch: a close below what was seen counts for nothing.
            let tip = lane.tips.iter().max_by_key(|tip| (tip.seq, tip.hash))?;
            Some(Head {
                lane: *id,
                seq: tip.seq,
                hash: tip.hash,
            })
        };
        lanes.filter_map(head).collect()
    }

    /// The Lamport time of a commit that follows the own lane and `heads`.
    pub(crate) fn next_lamport(&self, own: LaneId, heads: &[Head]) -> u64 {
        let own = self
            .lanes
            .get(&own)
            .and_then(Lane::tip)
            .map(|tip| tip.lamport);
        let named = heads.iter().filter_map(|head| self.lamport_of(head));
        own.into_iter()
            .chain(named)
            .max()
            .unwrap_or(0)
            .saturating_add(1)
    }

    /// The highest Lamport time that is known.
    pub(crate) fn latest(&self) -> u64 {
        let tips = self.lanes.values().filter_map(Lane::tip);
        tips.map(|tip| tip.lamport).max().unwrap_or(0)
    }

    /// The floor: the largest Lamport time T such that every open lane has published something later than T that
    /// follows every known commit up to T. Nothing honest can arrive below it.
    pub(crate) fn floor(&self) -> u64 {
        let open = self.lanes.iter().filter(|(_, lane)| self.is_open(lane));
        let bounds = open.filter_map(|(id, lane)| {
            let tip = lane.tip()?;
            let unseen = self.lanes.iter().filter(|(other, _)| *other != id);
            let unseen = unseen.filter_map(|(other, lane)| self.first_unseen(*other, lane, tip));
            unseen.chain([tip.lamport]).min()
        });
        match bounds.min() {
            Some(bound) => bound.saturating_sub(1),
            None => self.latest_that_counts(),
        }
    }

    /// The highest Lamport time of what lies beyond no cut.
    fn latest_that_counts(&self) -> u64 {
        let ends = self.lanes.iter().map(|(id, lane)| match self.is_cut(lane) {
            true => {
                let ends = self.last_at(*id, u64::MAX).into_iter();
                ends.map(|end| end.lamport).max().unwrap_or(0)
            }
            false => lane.tip().map_or(0, |tip| tip.lamport),
        });
        ends.max().unwrap_or(0)
    }

    /// Lamport time of the first commit of `lane` that `tip` does not follow.
    fn first_unseen(&self, id: LaneId, lane: &Lane, tip: &Tip) -> Option<u64> {
        let named = tip.named.iter().filter(|head| head.lane == id);
        // What lies in the checkpoint that stands is named no more once the lane has ended.
        let held = lane.held.map(|(last, _)| last);
        let covered = lane.covered_to().max(held);
        let seen = named.map(|head| head.seq).chain(covered).max();
        let from = seen.map_or(0, |seq| seq.saturating_add(1));
        let mut counting = self.places_from(id, from).filter(|(lane, seq, _, hash)| {
            let (lane, seq, hash) = (*lane, *seq, *hash);
            !self.is_cut_off(&Head { lane, seq, hash })
        });
        counting.next().map(|(_, _, lamport, _)| *lamport)
    }

    /// Begins with lanes that a checkpoint holds.
    pub(crate) fn cover(&mut self, id: LaneId, lane: Lane) {
        self.lanes.insert(id, lane);
        self.dirty_lanes.insert(id);
    }

    /// The last commits of a lane with at most this Lamport time that lie beyond no cut, one for each branch, for a checkpoint at that
    /// floor; ascending.
    pub(crate) fn last_at(&self, id: LaneId, floor: u64) -> Vec<Covered> {
        let Some(lane) = self.lanes.get(&id) else {
            return Vec::new();
        };
        let ends = lane.tips.iter().filter_map(|tip| {
            let mut next = tip.hash;
            loop {
                let is_cut_off = |seq, hash| {
                    let lane = id;
                    self.is_cut_off(&Head { lane, seq, hash })
                };
                let Some(node) = self.nodes.get(&next) else {
                    let mut covered = lane.covered.iter();
                    let end = covered.find(|end| end.hash == next && end.lamport <= floor);
                    return end.filter(|end| !is_cut_off(end.seq, end.hash)).copied();
                };
                if node.lamport <= floor && !is_cut_off(node.seq, next) {
                    let (seq, hash, lamport) = (node.seq, next, node.lamport);
                    return Some(Covered { seq, hash, lamport });
                }
                next = node.prev;
            }
        });
        let mut ends: Vec<Covered> = ends.collect();
        ends.sort_by_key(|end| (end.seq, end.hash));
        ends.dedup();
        // A branch that only begins later ends, up to the floor, within another.
        let within = |end: &Covered| {
            let (lane, seq, hash) = (id, end.seq, end.hash);
            let others = ends.iter().filter(|other| other.hash != hash);
            let others: Vec<_> = others.map(|other| (other.seq, other.hash)).collect();
            self.precedes_any(&Head { lane, seq, hash }, &others)
        };
        ends.iter()
            .filter(|end| ends.len() == 1 || !within(end))
            .copied()
            .collect()
    }

    /// Lamport time of an admitted commit, by its id.
    pub(crate) fn lamport_by_hash(&self, commit: &Hash32) -> Option<u64> {
        self.nodes.get(commit).map(|node| node.lamport)
    }

    /// An admitted commit by its id.
    pub(crate) fn head_of(&self, commit: &Hash32) -> Option<Head> {
        let node = self.nodes.get(commit)?;
        let (lane, seq, hash) = (node.lane, node.seq, *commit);
        Some(Head { lane, seq, hash })
    }

    /// What changed since this was called last, as entries of the local cache.
    pub(crate) fn take_dirty(&mut self) -> (Encoded<LaneId>, Encoded<Hash32>) {
        let lanes = std::mem::take(&mut self.dirty_lanes);
        let nodes = std::mem::take(&mut self.dirty_nodes);
        let lanes = lanes
            .iter()
            .filter_map(|id| Some((*id, self.lanes.get(id)?.to_bytes())));
        let nodes = nodes
            .iter()
            .filter_map(|id| Some((*id, self.nodes.get(id)?.to_bytes())));
        (lanes.collect(), nodes.collect())
    }

    /// Puts back what `take_dirty` gave.
    pub(crate) fn restore(lanes: Vec<(LaneId, Lane)>, nodes: Vec<(Hash32, Node)>) -> Self {
        let mut graph = Self {
            lanes: lanes.into_iter().collect(),
            ..Self::default()
        };
        for (hash, node) in nodes {
            graph.insert_node(hash, node);
        }
        graph
    }
}

impl Encode for Node {
    fn encode(&self, w: &mut Writer) {
        self.lane.encode(w);
        w.u64(self.seq);
        w.u64(self.lamport);
        w.u8(self.timed.into());
        self.prev.encode(w);
        w.list(&self.heads);
    }
}

impl Decode for Node {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            lane: LaneId::decode(r)?,
            seq: r.u64()?,
            lamport: r.u64()?,
            timed: r.bool()?,
            prev: Hash32::decode(r)?,
            heads: r.list("named heads", LOCAL_MAX)?.into(),
        })
    }
}

impl Encode for Tip {
    fn encode(&self, w: &mut Writer) {
        w.u64(self.seq);
        self.hash.encode(w);
        w.u64(self.lamport);
        self.time.encode(w);
        w.list(&self.control);
        w.count(self.named.len());
        self.named.iter().for_each(|head| head.encode(w));
    }
}

impl Decode for Tip {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            seq: r.u64()?,
            hash: Hash32::decode(r)?,
            lamport: r.u64()?,
            time: Timestamp::decode(r)?,
            control: r.list("control heads", LOCAL_MAX)?,
            named: r.list("named heads", LOCAL_MAX)?.into_iter().collect(),
        })
    }
}

impl Encode for Covered {
    fn encode(&self, w: &mut Writer) {
        w.u64(self.seq);
        self.hash.encode(w);
        w.u64(self.lamport);
    }
}

impl Decode for Covered {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            seq: r.u64()?,
            hash: Hash32::decode(r)?,
            lamport: r.u64()?,
        })
    }
}

impl Encode for Lane {
    fn encode(&self, w: &mut Writer) {
        self.device.encode(w);
        w.u32(self.incarnation);
        w.list(&self.tips);
        w.option(self.closed.as_ref());
        w.count(self.closes.len());
        for (seq, by) in &self.closes {
            w.u64(*seq);
            w.count(by.len());
            by.iter().for_each(|commit| commit.encode(w));
        }
        match self.held {
            None => w.u8(0),
            Some((last, closed)) => {
                w.u8(1);
                w.u64(last);
                w.option(closed.as_ref());
            }
        }
        w.list(&self.covered);
        w.option(self.said.as_ref());
    }
}

impl Decode for Lane {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            device: DeviceId::decode(r)?,
            incarnation: r.u32()?,
            tips: r.list("tips of a lane", LOCAL_MAX)?,
            closed: r.option()?,
            closes: {
                let n = r.count("closes of a lane", LOCAL_MAX, 8)?;
                let by = |r: &mut Reader<'_>| {
                    let by: Vec<Hash32> = r.list("commits that close a lane", LOCAL_MAX)?;
                    Ok::<_, WireError>(by.into_iter().collect())
                };
                let closes = (0..n).map(|_| Ok((r.u64()?, by(r)?)));
                closes.collect::<Result<_, WireError>>()?
            },
            held: match r.bool()? {
                true => Some((r.u64()?, r.option()?)),
                false => None,
            },
            covered: r.list("covered ends of a lane", LOCAL_MAX)?,
            said: r.option()?,
        })
    }
}

#[cfg(test)]
mod tests;
