//! What counts of the lanes of devices that control records have ended (docs/format/lanes.md, section 6).

use super::{Graph, LOCAL_MAX, Lane};
use crate::lane::Head;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, Hash32, LaneId};
use skrin_crypto::{Cut, Roster};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The cuts of all devices that were ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cuts(pub(crate) BTreeMap<DeviceId, Cut>);

impl Cuts {
    pub(crate) fn of(roster: &Roster) -> Self {
        let ended = roster.devices.iter();
        let ended = ended.filter_map(|(id, device)| Some((*id, device.cut.clone()?)));
        Self(ended.collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose lane it is, if a cut says so.
    pub(crate) fn device_of(&self, lane: &LaneId) -> Option<DeviceId> {
        let mut all = self.0.iter();
        let found = all.find(|(_, cut)| cut.contains_key(lane));
        found.map(|(device, _)| *device)
    }

    /// Whether a commit lies beyond the cut of its device by its number alone: more cannot be said of one that is not known.
    pub(crate) fn are_passed(&self, device: &DeviceId, lane: &LaneId, seq: u64) -> bool {
        let Some(cut) = self.0.get(device) else {
            return false;
        };
        let ends = cut.get(lane).into_iter().flatten();
        ends.into_iter().all(|(last, _)| *last < seq)
    }

    /// The commits that they name.
    pub(crate) fn ends(&self) -> impl Iterator<Item = Head> + '_ {
        let lanes = self.0.values().flatten();
        lanes.flat_map(|(lane, ends)| {
            let head = |(seq, hash): &(u64, Hash32)| Head {
                lane: *lane,
                seq: *seq,
                hash: *hash,
            };
            ends.iter().map(head)
        })
    }
}

impl Encode for Cuts {
    fn encode(&self, w: &mut Writer) {
        w.count(self.0.len());
        for (device, cut) in &self.0 {
            device.encode(w);
            w.count(cut.len());
            for (lane, ends) in cut {
                lane.encode(w);
                w.count(ends.len());
                for (seq, hash) in ends {
                    w.u64(*seq);
                    hash.encode(w);
                }
            }
        }
    }
}

impl Decode for Cuts {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut cuts = BTreeMap::new();
        for _ in 0..r.count("cuts", LOCAL_MAX, 16)? {
            let device = DeviceId::decode(r)?;
            let cut: &mut Cut = cuts.entry(device).or_default();
            for _ in 0..r.count("lanes of a cut", LOCAL_MAX, 16)? {
                let ends = cut.entry(LaneId::decode(r)?).or_default();
                for _ in 0..r.count("ends of a lane", LOCAL_MAX, 40)? {
                    ends.push((r.u64()?, Hash32::decode(r)?));
                }
            }
        }
        Ok(Self(cuts))
    }
}

/// The cuts, and what lies within them.
#[derive(Clone, Debug, Default)]
pub(super) struct Within {
    cuts: Cuts,
    /// The ends themselves, and what comes before them in their lanes, as far as the ends are known here.
    commits: HashSet<Hash32>,
}

impl Graph {
    /// The cuts by which it judges.
    pub(crate) fn cuts(&self) -> &Cuts {
        &self.within.cuts
    }

    /// Judges by other cuts from now on. Call `settle_closes` afterwards.
    pub(crate) fn set_cuts(&mut self, cuts: Cuts) {
        self.within = Within {
            cuts,
            commits: HashSet::new(),
        };
        let ends: Vec<Head> = self.within.cuts.ends().collect();
        ends.iter().for_each(|end| self.accept(end));
    }

    /// Notes a commit that came: if a cut names it, what comes before it lies within.
    pub(super) fn accept_if_end(&mut self, head: &Head) {
        let Some(device) = self.lanes.get(&head.lane).map(|lane| lane.device) else {
            return;
        };
        let ends = self.within.cuts.0.get(&device);
        let ends = ends.and_then(|cut| cut.get(&head.lane));
        if ends.is_some_and(|ends| ends.contains(&(head.seq, head.hash))) {
            self.accept(head);
        }
    }

    fn accept(&mut self, end: &Head) {
        let mut next = end.hash;
        while let Some(node) = self.nodes.get(&next).filter(|n| n.lane == end.lane) {
            if !self.within.commits.insert(next) {
                return;
            }
            next = node.prev;
        }
        // The last commit of the checkpoint with which this graph begins, or the end itself.
        if self.knows_by_hash(&end.lane, &next) {
            self.within.commits.insert(next);
        }
    }

    fn knows_by_hash(&self, lane: &LaneId, hash: &Hash32) -> bool {
        let covered = self.lanes.get(lane).into_iter().flat_map(|l| &l.covered);
        self.nodes.contains_key(hash) || covered.into_iter().any(|end| end.hash == *hash)
    }

    /// Whether a lane belongs to a device that was ended: nothing more is to be expected of it.
    pub(crate) fn is_cut(&self, lane: &Lane) -> bool {
        self.within.cuts.0.contains_key(&lane.device)
    }

    /// Whether a lane may go on.
    pub(crate) fn is_open(&self, lane: &Lane) -> bool {
        lane.closed.is_none() && !self.is_cut(lane)
    }

    /// Whether a commit that is known here lies beyond the cut of its device. As long as an end that comes later in its lane is not
    /// known, it is taken to come before that.
    pub(crate) fn is_cut_off(&self, head: &Head) -> bool {
        let lane = self.lanes.get(&head.lane);
        lane.is_some_and(|lane| self.is_beyond(&lane.device, head))
    }

    /// The same of a commit of which only is known whose it is.
    pub(crate) fn is_beyond(&self, device: &DeviceId, head: &Head) -> bool {
        let Some(cut) = self.within.cuts.0.get(device) else {
            return false;
        };
        let mut ends = cut.get(&head.lane).into_iter().flatten();
        let is_within = self.within.commits.contains(&head.hash)
            || ends.any(|(seq, hash)| {
                let may_follow = *seq > head.seq && !self.knows_by_hash(&head.lane, hash);
                may_follow || (*seq, *hash) == (head.seq, head.hash)
            });
        !is_within && !self.is_deep(head)
    }

    /// Whether it lies in the checkpoint with which this graph begins, below the ends that are known of that: it does not stand if it
    /// holds what lies beyond a cut.
    fn is_deep(&self, head: &Head) -> bool {
        self.is_below(head)
            && self.lanes.get(&head.lane).is_some_and(|lane| {
                let mut covered = lane.covered.iter();
                covered.any(|end| end.seq > head.seq && self.within.commits.contains(&end.hash))
            })
    }

    /// Whether an admitted commit, by its id, lies beyond a cut.
    pub(crate) fn is_hash_cut_off(&self, commit: &Hash32) -> bool {
        self.nodes.get(commit).is_some_and(|node| {
            let (lane, seq, hash) = (node.lane, node.seq, *commit);
            self.is_cut_off(&Head { lane, seq, hash })
        })
    }

    /// All admitted commits that lie beyond the cuts of their devices.
    pub(crate) fn all_cut_off(&self) -> BTreeSet<Hash32> {
        let cut = self.lanes.iter().filter(|(_, lane)| self.is_cut(lane));
        let hashes = cut.flat_map(|(id, _)| {
            let places = self.places.range((*id, 0)..=(*id, u64::MAX));
            places.flat_map(|(_, place)| place.iter().map(|(_, hash)| *hash))
        });
        hashes.filter(|hash| self.is_hash_cut_off(hash)).collect()
    }

    /// Lets the closes count that stand in commits which lie beyond no cut, and no others. Returns the lanes that end elsewhere than
    /// before, with their ends before.
    pub(crate) fn settle_closes(&mut self) -> Vec<(LaneId, Option<u64>)> {
        let lanes: Vec<LaneId> = self.lanes.keys().copied().collect();
        let moved = lanes.into_iter().filter_map(|id| {
            let before = self.settle_close(id)?;
            Some((id, before))
        });
        moved.collect()
    }

    /// The same for one lane: its end before, if it was another.
    pub(super) fn settle_close(&mut self, id: LaneId) -> Option<Option<u64>> {
        let lane = self.lanes.get(&id)?;
        let counting =
            |by: &BTreeSet<Hash32>| by.iter().any(|commit| !self.is_hash_cut_off(commit));
        let closed = lane.last_that_counts(counting);
        let lane = self.lanes.get_mut(&id)?;
        if lane.closed == closed {
            return None;
        }
        self.dirty_lanes.insert(id);
        Some(std::mem::replace(&mut lane.closed, closed))
    }

    /// Where the lanes of these devices end here: of each branch the last commit that lies within what was cut before.
    pub(crate) fn cut_of(&self, devices: &[DeviceId]) -> Cut {
        let lanes = self.lanes.iter();
        let theirs = lanes.filter(|(_, lane)| devices.contains(&lane.device));
        let ends = theirs.filter_map(|(id, _)| {
            let ends = self.last_at(*id, u64::MAX).into_iter();
            let ends: Vec<_> = ends.map(|end| (end.seq, end.hash)).collect();
            (!ends.is_empty()).then_some((*id, ends))
        });
        ends.collect()
    }
}
