//! What lanes have named of each other.

use super::Graph;
use crate::commit::Commit;
use crate::lane::Head;
use skrin_base::{Hash32, LaneId};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The heads of one lane among others.
fn of_lane(heads: &BTreeSet<Head>, lane: LaneId) -> impl DoubleEndedIterator<Item = &Head> {
    let end = |seq, byte| Head {
        lane,
        seq,
        hash: Hash32([byte; 32]),
    };
    heads.range(end(0, 0)..=end(u64::MAX, u8::MAX))
}

/// Adds number and time of a commit to those of a lane, unless another one is later by both; and drops those that this one is.
fn add_end(ends: &mut BTreeSet<(u64, u64)>, (seq, lamport): (u64, u64)) {
    if !ends.iter().any(|(s, l)| *s >= seq && *l >= lamport) {
        ends.retain(|(s, l)| *s > seq || *l > lamport);
        ends.insert((seq, lamport));
    }
}

impl Graph {
    /// What a commit and those before it in its lane have named. Only for a second branch of a lane: which of two came
    /// first must not decide what they have seen.
    pub(super) fn named_by(&self, hash: &Hash32) -> BTreeSet<Head> {
        let mut nodes = Vec::new();
        let mut next = self.nodes.get(hash);
        while let Some(node) = next {
            nodes.push(node);
            next = self.nodes.get(&node.prev);
        }
        let named = nodes.iter().rev();
        named.fold(BTreeSet::new(), |named, node| self.name(named, &node.heads))
    }

    /// Whether a commit names what its lane, which named these, has named before, by itself or by what follows it. Below the
    /// checkpoint that stands for it, its device may not know: who begins with that does not know what the own lane named
    /// below it, and names again what lies beyond a cut, as the checkpoint does not hold that.
    pub(super) fn goes_back(&self, commit: &Commit, named: &BTreeSet<Head>) -> bool {
        let floor = commit.standing.map_or(0, |standing| standing.floor);
        let again = self.that_precede(&commit.heads, named);
        let mut times = again.iter().filter_map(|head| self.lamport_of(head));
        times.any(|time| time > floor)
    }

    /// The newest named heads, after naming some more. An old one goes only where a new one of its lane follows it: another branch
    /// that goes on takes nothing from what was seen of this one. No commit is looked at twice, as a member can name thousands of
    /// branches at once.
    pub(super) fn name(&self, mut named: BTreeSet<Head>, heads: &[Head]) -> BTreeSet<Head> {
        let again = self.that_precede(heads, &named);
        named.extend(heads.iter().filter(|head| !again.contains(*head)));
        for new in heads.chunk_by(|a, b| a.lane == b.lane) {
            let (Some(lane), Some(newest)) = (
                new.first().map(|head| head.lane),
                new.iter().map(|head| head.seq).max(),
            ) else {
                continue;
            };
            let new = new.iter().filter(|head| !again.contains(*head));
            let before = self.followed_by(new, &named, lane);
            let gone = |head: &&Head| {
                // Of what lies in the checkpoint with which this graph begins, nobody knows what follows what.
                before.contains(&head.hash) || head.seq < newest && self.is_below(head)
            };
            let gone: Vec<Head> = of_lane(&named, lane).filter(gone).copied().collect();
            for head in &gone {
                named.remove(head);
            }
        }
        named
    }

    /// Which of the named heads of a lane come before these: of each branch the last one, as none of them follows another.
    fn followed_by<'a>(
        &self,
        heads: impl Iterator<Item = &'a Head>,
        named: &BTreeSet<Head>,
        lane: LaneId,
    ) -> HashSet<Hash32> {
        let lowest = of_lane(named, lane).next().map_or(0, |head| head.seq);
        let wanted: HashSet<Hash32> = of_lane(named, lane).map(|head| head.hash).collect();
        let (mut found, mut seen) = (HashSet::new(), HashSet::new());
        for head in heads {
            let mut next = head.hash;
            while let Some(node) = self.nodes.get(&next).filter(|node| node.seq > lowest) {
                next = node.prev;
                if wanted.contains(&next) {
                    found.insert(next);
                    break;
                }
                if !seen.insert(next) {
                    break;
                }
            }
        }
        found
    }

    /// Of these heads, those that are among the named ones or come before one of them in their lane.
    fn that_precede(&self, heads: &[Head], named: &BTreeSet<Head>) -> BTreeSet<Head> {
        let mut found = BTreeSet::new();
        for heads in heads.chunk_by(|a, b| a.lane == b.lane) {
            let Some(lane) = heads.first().map(|head| head.lane) else {
                continue;
            };
            let Some(last) = of_lane(named, lane).next_back().map(|head| head.seq) else {
                continue;
            };
            let lowest = heads.iter().map(|head| head.seq).min().unwrap_or(0);
            let mut seen = HashSet::new();
            for end in of_lane(named, lane).filter(|end| end.seq >= lowest) {
                self.walk_back(end.hash, lowest, &mut seen);
            }
            let is_before = |head: &&Head| {
                let is_deep = head.seq <= last && self.is_below(head);
                is_deep || seen.contains(&head.hash)
            };
            found.extend(heads.iter().filter(is_before));
        }
        found
    }

    /// Walks a lane back to this number, as far as nobody was there before.
    fn walk_back(&self, from: Hash32, lowest: u64, seen: &mut HashSet<Hash32>) {
        let mut next = from;
        while seen.insert(next) {
            match self.nodes.get(&next).filter(|node| node.seq > lowest) {
                Some(node) => next = node.prev,
                None => return,
            }
        }
    }

    /// For each lane that a commit follows by what it and those before it in its lane name, its own included: number and time of the
    /// last commit up to this Lamport time that lies beyond no cut. Of several branches those of which none is later by both, so that it
    /// is the same above a checkpoint for who began with that.
    pub(crate) fn named_up_to(
        &self,
        head: &Head,
        floor: u64,
    ) -> BTreeMap<LaneId, BTreeSet<(u64, u64)>> {
        let lane = self.lanes.get(&head.lane);
        let tip = lane.and_then(|lane| lane.tips.iter().find(|tip| tip.hash == head.hash));
        let earlier;
        let named = match tip {
            Some(tip) => &tip.named,
            None => {
                earlier = self.named_by(&head.hash);
                &earlier
            }
        };
        let mut last: BTreeMap<LaneId, BTreeSet<(u64, u64)>> = BTreeMap::new();
        for named in named.iter().chain([head]) {
            let mut hash = named.hash;
            let mut node = self.nodes.get(&hash);
            while let Some(later) = node
                && (later.lamport > floor || self.is_hash_cut_off(&hash))
            {
                hash = later.prev;
                node = self.nodes.get(&hash);
            }
            if let Some(node) = node {
                add_end(
                    last.entry(named.lane).or_default(),
                    (node.seq, node.lamport),
                );
            }
        }
        last
    }
}
