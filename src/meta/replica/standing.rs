//! Which checkpoint stands, and what that makes void (rule D1).

use super::graph::Graph;
use crate::checkpoint::Root;
use crate::commit::CheckpointRef;
use crate::lane::Head;
use crate::order::{ORDER_LEN, OrderKey};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, Hash32, LaneId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

const LOCAL_MAX: usize = 1 << 24;

/// How far a checkpoint reaches in one lane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    /// The last commit of each branch: one, unless the lane was forked.
    pub(super) ends: Vec<(u64, Hash32)>,
    /// The last number that counts, if the lane had ended.
    pub(super) closed: Option<u64>,
}

impl Held {
    /// The highest number that it holds.
    pub(super) fn last(&self) -> u64 {
        self.ends.iter().map(|(seq, _)| *seq).max().unwrap_or(0)
    }
}

/// What a root says, as far as it decides which commits count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reach {
    pub(super) parent: Option<CheckpointRef>,
    pub(super) lanes: BTreeMap<LaneId, Held>,
    /// The Lamport times of the commits that it names: decide nothing, and must be true for those who begin with it.
    pub(super) lamports: BTreeMap<Hash32, u64>,
}

impl Reach {
    /// Whether the checkpoint holds the commit: it is one that the root names, or one before it in its lane.
    pub(super) fn covers(&self, graph: &Graph, head: &Head) -> bool {
        let held = self.lanes.get(&head.lane);
        held.is_some_and(|held| graph.precedes_any(head, &held.ends))
    }

    /// Whether it holds what lies beyond the cut of a device.
    fn is_beyond_a_cut(&self, graph: &Graph) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|(lane, held)| {
            let known = graph.lanes.get(lane).map(|lane| lane.device);
            let device = known.or_else(|| graph.cuts().device_of(lane));
            let mut ends = held.ends.iter();
            device.is_some_and(|device| {
                ends.any(|(seq, hash)| {
                    let (lane, seq, hash) = (*lane, *seq, *hash);
                    graph.is_beyond(&device, &Head { lane, seq, hash })
                })
            })
        })
    }

    /// The floor of the checkpoint before it.
    pub(super) fn parent_floor(&self) -> u64 {
        self.parent.map_or(0, |parent| parent.floor)
    }

    pub(super) fn of(root: &Root) -> Self {
        let mut lanes: BTreeMap<LaneId, Held> = BTreeMap::new();
        for covered in &root.covered {
            let held = lanes.entry(covered.lane).or_default();
            held.ends.push((covered.seq, covered.hash));
            held.closed = held.closed.into_iter().chain(covered.closed).min();
        }
        let lamports = root.covered.iter().map(|end| (end.hash, end.lamport));
        Self {
            parent: root.parent,
            lanes,
            lamports: lamports.collect(),
        }
    }
}

/// What a commit that proposes a checkpoint had named by then: for each lane, number and Lamport time of the last commits
/// up to the floor. One, unless the lane was forked.
pub(super) type Named = BTreeMap<LaneId, BTreeSet<(u64, u64)>>;

/// One proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Proposed {
    named: Named,
    /// Whether the commit lies beyond no cut.
    counts: bool,
}

/// A checkpoint that commits proposed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub(super) reference: CheckpointRef,
    pub(super) digest: Hash32,
    /// The places of the commits that proposed it, and what those had named. None for the checkpoint that this state began
    /// with, until such a commit is seen.
    places: BTreeMap<OrderKey, Proposed>,
    /// Whether it holds what lies beyond a cut: then it never stands.
    is_beyond: bool,
    /// What its root says, once it was fetched and believed.
    pub(super) reach: Option<Reach>,
}

impl Candidate {
    fn new(reference: CheckpointRef, digest: Hash32) -> Self {
        Self {
            reference,
            digest,
            places: BTreeMap::new(),
            is_beyond: false,
            reach: None,
        }
    }

    /// Whether it holds what lies beyond the cut of a device.
    pub(super) fn is_beyond_a_cut(&self) -> bool {
        self.is_beyond
    }

    /// Whether its root leaves out what a proposer had named: it would make that void, and the proposal counts for nothing.
    fn leaves_out(&self, named: &Named) -> bool {
        let Some(reach) = &self.reach else {
            return false;
        };
        let from = reach.parent_floor();
        let held = |lane| reach.lanes.get(lane).map(Held::last);
        named.iter().any(|(lane, ends)| {
            let mut above = ends.iter().filter(|(_, lamport)| *lamport > from);
            above.any(|(seq, _)| held(lane).is_none_or(|last| last < *seq))
        })
    }

    /// The places at which it was proposed, by commits that lie beyond no cut.
    pub(super) fn all_places(&self) -> impl Iterator<Item = &OrderKey> {
        let counting = self.places.iter().filter(|(_, by)| by.counts);
        counting.map(|(place, _)| place)
    }

    /// The places at which it was proposed by somebody whom it does not contradict, ascending.
    pub(super) fn places(&self) -> impl Iterator<Item = &OrderKey> {
        let good = self
            .places
            .iter()
            .filter(|(_, by)| by.counts && !self.leaves_out(&by.named));
        good.map(|(place, _)| place)
    }

    /// Whether all who proposed it had seen what it leaves out.
    pub(super) fn omits(&self) -> bool {
        self.all_places().next().is_some() && self.places().next().is_none()
    }

    pub(super) fn was_proposed(&self) -> bool {
        self.places().next().is_some()
    }
}

/// All proposals above the checkpoint from which this state began.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Standing {
    /// Parent of the first checkpoint of the chain that is known here.
    pub(super) anchor: Option<CheckpointRef>,
    pub(super) candidates: Vec<Candidate>,
    /// Who refuted what, in commits that count for that (docs/format/checkpoints.md, section 5).
    refuted: BTreeMap<CheckpointRef, BTreeMap<Head, DeviceId>>,
    /// Commits that refute, and lie beyond a cut.
    ignored: BTreeSet<Head>,
    /// What this device refutes and no commit of it says yet.
    own: BTreeSet<CheckpointRef>,
    /// Proposals of which this device has formed its opinion: the place and the root.
    judged: BTreeSet<(OrderKey, Hash32)>,
    /// What roots say that were believed before the state was folded again.
    roots: BTreeMap<CheckpointRef, Reach>,
    chain: Cached,
}

/// The places of the chain among the candidates, once somebody asked: there are many commits to each checkpoint.
#[derive(Debug, Default)]
struct Cached(OnceLock<Vec<usize>>);

impl Clone for Cached {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Cached {
    /// It says nothing that the rest does not say.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Cached {}

impl Standing {
    /// A chain that begins with a checkpoint that was loaded, with what was known of all before.
    pub(super) fn begin(self, reference: CheckpointRef, root: &Root) -> Self {
        let mut first = Candidate::new(reference, root.digest);
        first.reach = Some(Reach::of(root));
        Self {
            anchor: root.parent,
            candidates: vec![first],
            chain: Cached::default(),
            ..self
        }
    }

    /// What stays when the state is folded again: everything but the proposals.
    pub(super) fn without_proposals(&self) -> Self {
        let believed = self
            .candidates
            .iter()
            .filter_map(|c| Some((c.reference, c.reach.clone()?)));
        let mut roots = self.roots.clone();
        roots.extend(believed);
        Self {
            roots,
            anchor: None,
            candidates: Vec::new(),
            refuted: self.refuted.clone(),
            ignored: self.ignored.clone(),
            own: self.own.clone(),
            judged: self.judged.clone(),
            chain: Cached::default(),
        }
    }

    /// Notes a proposal: its place, and what the commit that makes it has named.
    pub(super) fn propose(
        &mut self,
        reference: CheckpointRef,
        digest: Hash32,
        place: OrderKey,
        named: Named,
    ) {
        let known = self
            .candidates
            .iter()
            .position(|c| c.reference == reference);
        let at = known.unwrap_or_else(|| {
            let mut candidate = Candidate::new(reference, digest);
            candidate.reach = self.roots.remove(&reference);
            self.candidates.push(candidate);
            self.candidates.len() - 1
        });
        if let Some(candidate) = self.candidates.get_mut(at) {
            let counts = true;
            candidate.places.insert(place, Proposed { named, counts });
        }
        self.chain = Cached::default();
    }

    /// Notes a refutation that counts. Returns whether it is news.
    pub(super) fn refute(&mut self, reference: CheckpointRef, by: &Head, device: DeviceId) -> bool {
        self.chain = Cached::default();
        let refuters = self.refuted.entry(reference).or_default();
        let known = refuters.values().any(|known| *known == device);
        refuters.insert(*by, device);
        !known
    }

    /// Judges by the cuts of a graph that were not in force, or not known for what they are, when proposals and refutations came.
    pub(super) fn settle_cuts(&mut self, graph: &Graph) {
        for candidate in &mut self.candidates {
            let reach = candidate.reach.as_ref();
            candidate.is_beyond = reach.is_some_and(|reach| reach.is_beyond_a_cut(graph));
            let floor = candidate.reference.floor;
            for (place, by) in &mut candidate.places {
                let Some(head) = graph.head_of(&place.commit()) else {
                    continue;
                };
                by.counts = !graph.is_cut_off(&head);
                by.named = graph.named_up_to(&head, floor);
            }
        }
        let refuters = self.refuted.values().flatten();
        let ignored = refuters.filter(|(head, device)| graph.is_beyond(device, head));
        self.ignored = ignored.map(|(head, _)| *head).collect();
        self.chain = Cached::default();
    }

    /// Lets refutations of this device count that no commit says yet.
    pub(super) fn refute_here(&mut self, references: impl IntoIterator<Item = CheckpointRef>) {
        self.own.extend(references);
        self.chain = Cached::default();
    }

    /// Notes that a commit says it.
    pub(super) fn has_said(&mut self, reference: &CheckpointRef) {
        self.own.remove(reference);
        self.chain = Cached::default();
    }

    /// What this device refutes and no commit of it says yet.
    pub(super) fn owed(&self) -> &BTreeSet<CheckpointRef> {
        &self.own
    }

    /// Whether somebody refuted it, this device included.
    pub(super) fn is_refuted(&self, reference: &CheckpointRef) -> bool {
        let mut refuters = self.refuted.get(reference).into_iter().flatten();
        let counts = refuters.any(|(head, _)| !self.ignored.contains(head));
        counts || self.own.contains(reference)
    }

    /// Whether a commit of this device says that it refutes it.
    pub(super) fn is_refuted_by(&self, reference: &CheckpointRef, device: &DeviceId) -> bool {
        let refuters = self.refuted.get(reference);
        refuters.is_some_and(|refuters| refuters.values().any(|by| by == device))
    }

    /// Lets the root of a proposal count.
    pub(super) fn believe(&mut self, reference: &CheckpointRef, reach: &Reach) {
        let candidates = self.candidates.iter_mut();
        if let Some(known) = candidates.into_iter().find(|c| c.reference == *reference) {
            known.reach.get_or_insert_with(|| reach.clone());
        }
        self.chain = Cached::default();
    }

    /// The highest floor that was ever proposed, whether or not it stands.
    pub(super) fn highest_floor(&self) -> u64 {
        let floors = self.candidates.iter().map(|c| c.reference.floor);
        floors.max().unwrap_or(0)
    }

    /// Whether a checkpoint is in the chain that stands.
    pub(super) fn holds(&self, reference: &CheckpointRef) -> bool {
        self.chain().any(|c| c.reference == *reference)
    }

    /// The chain from the beginning: of several with one parent, the earliest proposed stands, unless it is refuted.
    pub(super) fn chain(&self) -> impl Iterator<Item = &Candidate> {
        let chain = self.chain.0.get_or_init(|| {
            self.chain_by(|c| match c.places.is_empty() {
                true => Some(OrderKey::after(u64::MAX)),
                false => c.places().next().copied(),
            })
        });
        chain.iter().filter_map(|at| self.candidates.get(*at))
    }

    /// The chain as it would be without the proposals of which this device has no opinion yet, and their places.
    pub(super) fn judged_chain(&self) -> impl Iterator<Item = (&Candidate, OrderKey)> {
        let place = |c: &Candidate| {
            let mut places = c.places();
            places
                .find(|place| self.is_judged(place, &c.reference))
                .copied()
        };
        let chain = self.chain_by(place).into_iter();
        chain.filter_map(move |at| {
            let candidate = self.candidates.get(at)?;
            Some((candidate, place(candidate)?))
        })
    }

    fn chain_by(&self, place: impl Fn(&Candidate) -> Option<OrderKey>) -> Vec<usize> {
        let mut first: BTreeMap<Option<CheckpointRef>, (OrderKey, usize)> = BTreeMap::new();
        for (at, c) in self.candidates.iter().enumerate() {
            let is_out = c.is_beyond || self.is_refuted(&c.reference);
            let Some(reach) = c.reach.as_ref().filter(|_| !is_out) else {
                continue;
            };
            let rises = reach.parent.is_none_or(|p| p.floor < c.reference.floor);
            if let Some(place) = place(c).filter(|_| rises) {
                let earliest = first.entry(reach.parent).or_insert((place, at));
                *earliest = (*earliest).min((place, at));
            }
        }
        // Whoever begins with the child of a refuted checkpoint leaves it.
        if self.anchor.is_some_and(|anchor| self.is_refuted(&anchor)) {
            return Vec::new();
        }
        let mut chain = Vec::new();
        let mut next = self.anchor;
        while let Some((_, at)) = first.get(&next) {
            chain.push(*at);
            next = self.candidates.get(*at).map(|c| c.reference);
        }
        chain
    }

    /// The checkpoint that stands.
    pub(super) fn current(&self) -> Option<&Candidate> {
        self.chain().last()
    }

    /// How far the chain reaches in each lane, and which lanes had ended there.
    pub(super) fn held(&self) -> BTreeMap<LaneId, Held> {
        let reaches = self.chain().filter_map(|c| c.reach.as_ref());
        let mut held = BTreeMap::new();
        for reach in reaches {
            held.extend(reach.lanes.iter().map(|(lane, held)| (*lane, held.clone())));
        }
        held
    }

    /// Whether a commit counts for nothing, because it lies below the floor of a checkpoint of the chain and is not in
    /// it. The first one above it decides: later ones cover it again, as part of its lane.
    pub(super) fn voids(&self, graph: &Graph, head: &Head, lamport: u64) -> bool {
        let above = self.chain().find(|c| lamport <= c.reference.floor);
        let reach = above.and_then(|c| c.reach.as_ref());
        reach.is_some_and(|reach| !reach.covers(graph, head))
    }

    /// Whether this device has formed its opinion of the proposal.
    pub(super) fn is_judged(&self, place: &OrderKey, reference: &CheckpointRef) -> bool {
        self.judged.contains(&(*place, reference.hash))
    }

    /// Notes that the opinion was formed.
    pub(super) fn judge(&mut self, place: OrderKey, reference: &CheckpointRef) {
        self.judged.insert((place, reference.hash));
    }

    /// Notes that an opinion was formed of everything whose root is known.
    pub(super) fn judge_all(&mut self) {
        let known = self.candidates.iter().filter(|c| c.reach.is_some());
        let places = known.flat_map(|c| c.places.keys().map(|place| (*place, c.reference.hash)));
        self.judged.extend(places);
    }

    /// The roots of proposals that could not be judged, as they cannot be had.
    pub(super) fn unknown_roots(&self) -> Vec<Hash32> {
        let unknown = self.candidates.iter().filter(|c| c.reach.is_none());
        let mut hashes: Vec<Hash32> = unknown.map(|c| c.reference.hash).collect();
        hashes.sort();
        hashes
    }
}

impl Encode for Held {
    fn encode(&self, w: &mut Writer) {
        w.count(self.ends.len());
        for (seq, hash) in &self.ends {
            w.u64(*seq);
            hash.encode(w);
        }
        w.option(self.closed.as_ref());
    }
}

impl Decode for Held {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let n = r.count("ends of a lane", LOCAL_MAX, 40)?;
        let ends = (0..n).map(|_| Ok((r.u64()?, Hash32::decode(r)?)));
        Ok(Self {
            ends: ends.collect::<Result<_, WireError>>()?,
            closed: r.option()?,
        })
    }
}

impl Encode for Reach {
    fn encode(&self, w: &mut Writer) {
        w.option(self.parent.as_ref());
        encode_map(w, &self.lanes, |w, held| held.encode(w));
        encode_map(w, &self.lamports, |w, lamport| w.u64(*lamport));
    }
}

impl Decode for Reach {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            parent: r.option()?,
            lanes: decode_map(r, Held::decode)?,
            lamports: decode_map(r, |r: &mut Reader<'_>| r.u64())?,
        })
    }
}

impl Encode for Candidate {
    fn encode(&self, w: &mut Writer) {
        self.reference.encode(w);
        self.digest.encode(w);
        w.count(self.places.len());
        for (place, by) in &self.places {
            w.raw(place.as_bytes());
            w.u8(by.counts.into());
            encode_map(w, &by.named, |w, ends| {
                w.count(ends.len());
                for (seq, lamport) in ends {
                    w.u64(*seq);
                    w.u64(*lamport);
                }
            });
        }
        w.u8(self.is_beyond.into());
        w.option(self.reach.as_ref());
    }
}

impl Decode for Candidate {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            reference: CheckpointRef::decode(r)?,
            digest: Hash32::decode(r)?,
            places: {
                let n = r.count("places of a proposal", LOCAL_MAX, ORDER_LEN)?;
                let places = (0..n).map(|_| {
                    let place = decode_place(r)?;
                    let counts = r.bool()?;
                    let named = decode_map(r, decode_ends)?;
                    Ok((place, Proposed { named, counts }))
                });
                places.collect::<Result<_, WireError>>()?
            },
            is_beyond: r.bool()?,
            reach: r.option()?,
        })
    }
}

impl Encode for Standing {
    fn encode(&self, w: &mut Writer) {
        w.option(self.anchor.as_ref());
        w.list(&self.candidates);
        encode_map(w, &self.refuted, |w, refuters| {
            encode_map(w, refuters, |w, device| device.encode(w));
        });
        w.count(self.ignored.len());
        self.ignored.iter().for_each(|head| head.encode(w));
        w.count(self.own.len());
        self.own.iter().for_each(|reference| reference.encode(w));
        w.count(self.judged.len());
        for (place, root) in &self.judged {
            w.raw(place.as_bytes());
            root.encode(w);
        }
    }
}

impl Decode for Standing {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let refuters = |r: &mut Reader<'_>| decode_map(r, DeviceId::decode);
        Ok(Self {
            anchor: r.option()?,
            candidates: r.list("proposed checkpoints", LOCAL_MAX)?,
            roots: BTreeMap::new(),
            chain: Cached::default(),
            refuted: decode_map(r, refuters)?,
            ignored: {
                let ignored: Vec<Head> = r.list("ignored refutations", LOCAL_MAX)?;
                ignored.into_iter().collect()
            },
            own: {
                let own: Vec<CheckpointRef> = r.list("own refutations", LOCAL_MAX)?;
                own.into_iter().collect()
            },
            judged: {
                let n = r.count("judged proposals", LOCAL_MAX, ORDER_LEN + 32)?;
                let judged = (0..n).map(|_| Ok((decode_place(r)?, Hash32::decode(r)?)));
                judged.collect::<Result<_, WireError>>()?
            },
        })
    }
}

fn encode_map<K: Encode, V>(w: &mut Writer, map: &BTreeMap<K, V>, value: impl Fn(&mut Writer, &V)) {
    w.count(map.len());
    for (k, v) in map {
        k.encode(w);
        value(w, v);
    }
}

fn decode_map<K: Decode + Ord, V>(
    r: &mut Reader<'_>,
    value: impl Fn(&mut Reader<'_>) -> Result<V, WireError>,
) -> Result<BTreeMap<K, V>, WireError> {
    let n = r.count("entries of a map", LOCAL_MAX, 1)?;
    (0..n).map(|_| Ok((K::decode(r)?, value(r)?))).collect()
}

fn decode_ends(r: &mut Reader<'_>) -> Result<BTreeSet<(u64, u64)>, WireError> {
    let n = r.count("named ends of a lane", LOCAL_MAX, 16)?;
    (0..n).map(|_| Ok((r.u64()?, r.u64()?))).collect()
}

fn decode_place(r: &mut Reader<'_>) -> Result<OrderKey, WireError> {
    let place = OrderKey::from_bytes(r.raw(ORDER_LEN)?);
    place.ok_or(WireError::Value("place in the order"))
}
