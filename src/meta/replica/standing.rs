//! Which checkpoint stands, and what that makes void (rule D1).

use crate::checkpoint::Root;
use crate::commit::CheckpointRef;
use crate::lane::Head;
use crate::order::OrderKey;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Hash32, LaneId};
use std::collections::BTreeMap;

const LOCAL_MAX: usize = 1 << 24;

/// What a root says, as far as it decides which commits count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reach {
    pub(super) parent: Option<CheckpointRef>,
    covered: BTreeMap<LaneId, u64>,
}

impl Reach {
    /// Whether the checkpoint holds the commit.
    pub(super) fn covers(&self, head: &Head) -> bool {
        self.covered
            .get(&head.lane)
            .is_some_and(|seq| head.seq <= *seq)
    }

    pub(super) fn of(root: &Root) -> Self {
        let covered = root.covered.iter().map(|lane| (lane.lane, lane.seq));
        Self {
            parent: root.parent,
            covered: covered.collect(),
        }
    }
}

/// A checkpoint that a commit proposed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub(super) reference: CheckpointRef,
    pub(super) digest: Hash32,
    /// The place of the commit that proposed it; `None` for the checkpoint that this state began with, until that
    /// commit is seen.
    pub(super) place: Option<OrderKey>,
    /// What its root says, once it was fetched and believed.
    pub(super) reach: Option<Reach>,
    /// What the proposing commit has named, by lane: number and Lamport time of the last commit up to the floor.
    named: BTreeMap<LaneId, (u64, u64)>,
}

impl Candidate {
    /// Whether its root leaves out what its own proposer had seen: it would make that void.
    pub(super) fn omits(&self) -> bool {
        let Some(reach) = &self.reach else {
            return false;
        };
        let from = reach.parent.map_or(0, |parent| parent.floor);
        let covered = |lane| reach.covered.get(lane);
        let mut above = self
            .named
            .iter()
            .filter(|(_, (_, lamport))| *lamport > from);
        above.any(|(lane, (seq, _))| covered(lane).is_none_or(|last| last < seq))
    }
}

/// All proposals above the checkpoint from which this state began.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Standing {
    /// Parent of the first checkpoint of the chain that is known here.
    anchor: Option<CheckpointRef>,
    pub(super) candidates: Vec<Candidate>,
}

impl Standing {
    /// A chain that begins with a checkpoint that was loaded.
    pub(super) fn begin(reference: CheckpointRef, root: &Root) -> Self {
        Self {
            anchor: root.parent,
            candidates: vec![Candidate {
                reference,
                digest: root.digest,
                place: None,
                reach: Some(Reach::of(root)),
                named: BTreeMap::new(),
            }],
        }
    }

    /// Notes a proposal.
    pub(super) fn propose(&mut self, reference: CheckpointRef, digest: Hash32, place: OrderKey) {
        let known = self
            .candidates
            .iter_mut()
            .find(|c| c.reference == reference);
        match known {
            Some(known) => known.place = Some(known.place.map_or(place, |old| old.min(place))),
            None => self.candidates.push(Candidate {
                reference,
                digest,
                place: Some(place),
                reach: None,
                named: BTreeMap::new(),
            }),
        }
    }

    /// Notes what the commit that proposed a checkpoint at `place` has named.
    pub(super) fn require(
        &mut self,
        reference: &CheckpointRef,
        place: OrderKey,
        named: BTreeMap<LaneId, (u64, u64)>,
    ) {
        let at_place = |c: &&mut Candidate| c.reference == *reference && c.place == Some(place);
        if let Some(known) = self.candidates.iter_mut().find(at_place) {
            known.named = named;
        }
    }

    /// Lets the root of a proposal count.
    pub(super) fn believe(&mut self, reference: &CheckpointRef, reach: &Reach) {
        let candidates = self.candidates.iter_mut();
        if let Some(known) = candidates.into_iter().find(|c| c.reference == *reference) {
            known.reach.get_or_insert_with(|| reach.clone());
        }
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

    /// The chain from the beginning: of several with one parent, the earliest proposed stands.
    fn chain(&self) -> impl Iterator<Item = &Candidate> {
        let child = |parent: Option<CheckpointRef>| {
            let children = self.candidates.iter().filter(move |c| {
                let fits = |reach: &Reach| reach.parent == parent;
                c.reach.as_ref().is_some_and(fits)
                    && !c.omits()
                    && parent.is_none_or(|p| p.floor < c.reference.floor)
            });
            children.min_by_key(|c| c.place.unwrap_or(OrderKey::after(u64::MAX)))
        };
        std::iter::successors(child(self.anchor), move |c| child(Some(c.reference)))
    }

    /// The checkpoint that stands.
    pub(super) fn current(&self) -> Option<&Candidate> {
        self.chain().last()
    }

    /// Whether a commit counts for nothing, because it lies below the floor of a checkpoint of the chain and is not in
    /// it. The first one above it decides: later ones cover it again, as part of its lane.
    pub(super) fn voids(&self, head: &Head, lamport: u64) -> bool {
        let above = self.chain().find(|c| lamport <= c.reference.floor);
        let reach = above.and_then(|c| c.reach.as_ref());
        reach.is_some_and(|reach| !reach.covers(head))
    }
}

impl Encode for Reach {
    fn encode(&self, w: &mut Writer) {
        w.option(self.parent.as_ref());
        w.count(self.covered.len());
        for (lane, seq) in &self.covered {
            lane.encode(w);
            w.u64(*seq);
        }
    }
}

impl Decode for Reach {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let parent = r.option()?;
        let n = r.count("covered lanes", LOCAL_MAX, 24)?;
        let covered = (0..n).map(|_| Ok((LaneId::decode(r)?, r.u64()?)));
        let covered = covered.collect::<Result<_, WireError>>()?;
        Ok(Self { parent, covered })
    }
}

impl Encode for Candidate {
    fn encode(&self, w: &mut Writer) {
        self.reference.encode(w);
        self.digest.encode(w);
        match &self.place {
            None => w.u8(0),
            Some(place) => {
                w.u8(1);
                w.raw(place.as_bytes());
            }
        }
        w.option(self.reach.as_ref());
        w.count(self.named.len());
        for (lane, (seq, lamport)) in &self.named {
            lane.encode(w);
            w.u64(*seq);
            w.u64(*lamport);
        }
    }
}

impl Decode for Candidate {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            reference: CheckpointRef::decode(r)?,
            digest: Hash32::decode(r)?,
            place: match r.bool()? {
                true => OrderKey::from_bytes(r.raw(crate::order::ORDER_LEN)?),
                false => None,
            },
            reach: r.option()?,
            named: {
                let n = r.count("named lanes", LOCAL_MAX, 32)?;
                let named = (0..n).map(|_| Ok((LaneId::decode(r)?, (r.u64()?, r.u64()?))));
                named.collect::<Result<_, WireError>>()?
            },
        })
    }
}

impl Encode for Standing {
    fn encode(&self, w: &mut Writer) {
        w.option(self.anchor.as_ref());
        w.list(&self.candidates);
    }
}

impl Decode for Standing {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            anchor: r.option()?,
            candidates: r.list("proposed checkpoints", LOCAL_MAX)?,
        })
    }
}
