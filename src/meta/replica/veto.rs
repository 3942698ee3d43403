//! Refusing checkpoints that work against what this device has seen (docs/format/checkpoints.md, section 5).

use super::core::Core;
use super::error::FindingKind;
use super::graph::Graph;
use super::standing::{Candidate, Held, Reach};
use super::{Net, Replica};
use crate::commit::{CheckedCommit, CheckpointRef, Opinion, Verdict};
use crate::heads::Heads;
use crate::lane::Head;
use crate::order::OrderKey;
use skrin_base::{DeviceId, Hash32, LaneId};
use std::collections::{BTreeSet, HashSet};

/// What this device had seen at the end of the last complete pull.
struct Seen<'a> {
    heads: &'a Heads,
    device: DeviceId,
    commits: HashSet<Hash32>,
}

impl<'a> Seen<'a> {
    fn new(heads: &'a Heads, core: &Core, device: DeviceId) -> Self {
        // Of a forked lane one head is remembered; those who follow the other branches name them.
        let remembered = heads.lanes.values().map(|seen| seen.head);
        let all = remembered.chain(core.reached.values().copied());
        let commits = core.graph.past_of(all);
        Self {
            heads,
            device,
            commits,
        }
    }

    fn has(&self, commit: &Hash32) -> bool {
        self.commits.contains(commit)
    }

    /// Whether a commit must not become void any more. The newest of an own lane may have been put long after it was
    /// sealed; its device publishes it again.
    fn defends(&self, head: &Head) -> bool {
        let newest = self.heads.lanes.get(&head.lane);
        let is_own_newest = newest.is_some_and(|n| n.device == self.device && n.head == *head);
        self.has(&head.hash) && !is_own_newest
    }
}

impl Replica {
    /// Forms an opinion of proposals before they count: those that came since the last complete pull.
    pub(super) fn refute_what_harms(&self, net: &mut Net, core: &mut Core) {
        if !self.has_a_say() {
            return;
        }
        let own = net.refuting.keys().copied();
        core.meta.standing.refute_here(own);
        for (reference, why) in self.harmful(net, core) {
            self.refute(net, core, reference, Hash32::default(), &why);
        }
    }

    /// Refutes what does not stand, as far as nobody did, where somebody who begins with it could not see why. After a
    /// complete pull, and before its heads are remembered.
    pub(super) fn refute_what_cannot_stand(&self, net: &mut Net) {
        if !self.has_a_say() {
            return;
        }
        let mut core = self.core.lock();
        for (reference, why) in cannot_stand(&core) {
            self.refute(net, &mut core, reference, Hash32::default(), why);
        }
    }

    /// Refutes what leaves out commits that its proposer had seen beyond a cut that is none any more: who begins with it could not see
    /// that.
    pub(super) fn refute_omissions(&self, net: &mut Net, core: &mut Core) {
        if !self.has_a_say() {
            return;
        }
        let standing = &core.meta.standing;
        let omitting = standing.candidates.iter().filter(|c| c.omits());
        let open = omitting.filter(|c| !standing.is_refuted(&c.reference));
        let open: Vec<CheckpointRef> = open.map(|c| c.reference).collect();
        for reference in open {
            let why = "it leaves out commits of a device that was cut off and is not any more";
            self.refute(net, core, reference, Hash32::default(), why);
        }
    }

    /// Refutes a checkpoint from now on, and in the next commit.
    pub(super) fn refute(
        &self,
        net: &mut Net,
        core: &mut Core,
        reference: CheckpointRef,
        digest: Hash32,
        why: &str,
    ) {
        core.meta.standing.refute_here([reference]);
        net.refuting.insert(reference, digest);
        let text = format!("{why}; this device refutes it, so that it does not stand");
        self.report(FindingKind::Refuted, self.root_object(&reference), text);
    }

    pub(super) fn root_object(&self, reference: &CheckpointRef) -> String {
        let name = self.env.names.checkpoint(&reference.name);
        name.map_or_else(|_| reference.hash.to_string(), |name| name.to_string())
    }

    fn harmful(&self, net: &Net, core: &mut Core) -> Vec<(CheckpointRef, String)> {
        let standing = &core.meta.standing;
        let open = |c: &&Candidate| {
            let mut places = c.all_places();
            c.reach.is_some() && places.any(|place| !standing.is_judged(place, &c.reference))
        };
        if !standing.candidates.iter().any(|c| open(&c)) {
            return Vec::new();
        }
        let seen = Seen::new(&net.heads, core, self.env.device);
        let known = |c: &Candidate, place: &OrderKey| {
            seen.has(&place.commit()) && !net.heads.unjudged.contains(&c.reference.hash)
                || core.graph.device_of(&place.commit()) == Some(self.env.device)
        };
        let mut judged = Vec::new();
        for candidate in standing.candidates.iter().filter(open) {
            let known = candidate
                .all_places()
                .filter(|place| known(candidate, place));
            judged.extend(known.map(|place| (*place, candidate.reference)));
        }
        for (place, reference) in judged {
            core.meta.standing.judge(place, &reference);
        }
        let standing = &core.meta.standing;
        let new = standing.candidates.iter().filter(|c| {
            let mut places = c.all_places();
            places.any(|place| !standing.is_judged(place, &c.reference))
                && !standing.is_refuted(&c.reference)
                && !c.is_beyond_a_cut()
        });
        let why = |c: &Candidate| Some((c.reference, self.objection(core, &seen, c)?));
        new.filter_map(why).collect()
    }

    /// What speaks against a proposal, if anything does.
    fn objection(&self, core: &Core, seen: &Seen<'_>, proposed: &Candidate) -> Option<String> {
        let reach = proposed.reach.as_ref()?;
        let standing = &core.meta.standing;
        let places = proposed.all_places();
        let was_known = places
            .into_iter()
            .any(|p| standing.is_judged(p, &proposed.reference));
        if !was_known {
            if let Some(void) = first_void(core, seen, proposed, reach) {
                let object = self.object(&void);
                return Some(format!(
                    "it would make {object} void, which this device had seen"
                ));
            }
            if proposed.omits() {
                return Some("it leaves out commits that its proposer had seen".to_owned());
            }
            if let Some(lane) = unknown_end(&core.graph, reach) {
                return Some(format!(
                    "it holds a commit of lane {lane} that its proposer cannot have seen"
                ));
            }
            if let Some(lane) = mistimed_end(&core.graph, reach) {
                return Some(format!(
                    "it says another Lamport time of a commit of lane {lane} than that has"
                ));
            }
            if let Some(lane) = takes_back(core, reach) {
                return Some(format!(
                    "it takes back what the checkpoint before it says of lane {lane}"
                ));
            }
        }
        let place = proposed.places().next()?;
        let mut chain = standing.judged_chain();
        let replaced = chain.find(|(c, at)| {
            let parent = c.reach.as_ref().map(|reach| reach.parent);
            parent == Some(reach.parent) && c.reference != proposed.reference && place < at
        });
        let (replaced, _) = replaced?;
        let object = self.root_object(&replaced.reference);
        Some(format!("it would take the place of {object}, which stood"))
    }

    /// Notes what a commit refutes, and tells it. Returns nothing if the commit cannot say that: it is not above the floor
    /// in question, or has a false time.
    pub(super) fn note_refutations(&self, net: &mut Net, core: &mut Core, checked: &CheckedCommit) {
        if core.graph.is_mistimed(checked.head()) {
            return;
        }
        let device = checked.commit().device;
        for verdict in refutations(checked) {
            let reference = verdict.checkpoint;
            let news = core.meta.standing.refute(reference, checked.head(), device);
            if device == self.env.device {
                net.refuting.remove(&reference);
                core.meta.standing.has_said(&reference);
            } else if news && !core.graph.is_cut_off(checked.head()) {
                let text = format!("{} refutes it; it does not stand", self.env.label(&device));
                self.report(FindingKind::Refuted, self.root_object(&reference), text);
            }
        }
    }
}

/// The refutations of a commit that count if the commit is admitted with its true time.
pub(super) fn refutations(checked: &CheckedCommit) -> impl Iterator<Item = &Verdict> {
    let lamport = checked.commit().lamport;
    let verdicts = checked.commit().verdicts.iter();
    verdicts.filter(move |v| v.opinion == Opinion::Refute && v.checkpoint.floor < lamport)
}

/// Proposals that do not stand and that nobody has refuted, where those who begin with them do not see why.
fn cannot_stand(core: &Core) -> Vec<(CheckpointRef, &'static str)> {
    let standing = &core.meta.standing;
    let chain: Vec<&Candidate> = standing.chain().collect();
    let standing_ones: BTreeSet<CheckpointRef> = chain.iter().map(|c| c.reference).collect();
    let stands = |reference: &CheckpointRef| standing_ones.contains(reference);
    // Who has just begun with a checkpoint does not know what came before it.
    let knows_all = standing.anchor.is_none() || standing.judged_chain().next().is_some();
    let why = |c: &Candidate| {
        let parent = c.reach.as_ref()?.parent;
        let mut all = standing.candidates.iter();
        let known = all.find(|other| Some(other.reference) == parent);
        if parent.is_some_and(|parent| standing.is_refuted(&parent)) {
            return Some("the checkpoint before it is refuted");
        }
        if parent != standing.anchor && !parent.is_some_and(|parent| stands(&parent)) {
            let mut places = c.all_places();
            let is_new = places.any(|place| !standing.is_judged(place, &c.reference));
            return match known {
                Some(known) => known
                    .reach
                    .is_some()
                    .then_some("the checkpoint before it does not stand"),
                None => (is_new && knows_all)
                    .then_some("it does not go on with the checkpoints that stand"),
            };
        }
        let sibling =
            |other: &&&Candidate| other.reach.as_ref().is_some_and(|r| r.parent == parent);
        let first = chain.iter().find(sibling)?.places().next()?;
        let hidden = first.lamport() <= c.reference.floor;
        hidden.then_some("it holds the commit that proposed the one that stands in its place")
    };
    let open = standing.candidates.iter().filter(|c| {
        let settled =
            stands(&c.reference) || standing.is_refuted(&c.reference) || c.is_beyond_a_cut();
        !settled && c.was_proposed() && Some(c.reference) != standing.anchor
    });
    open.filter_map(|c| Some((c.reference, why(c)?))).collect()
}

/// A commit that this device had seen and that counts so far, and would not count with the proposal.
fn first_void(core: &Core, seen: &Seen<'_>, proposed: &Candidate, reach: &Reach) -> Option<Head> {
    let (from, to) = (reach.parent_floor(), proposed.reference.floor);
    let void = |head: &Head, lamport: u64| {
        let below = from < lamport && lamport <= to && !reach.covers(&core.graph, head);
        let closed = reach.lanes.get(&head.lane).and_then(|held| held.closed);
        below || closed.is_some_and(|last| head.seq > last)
    };
    let chain: Vec<&Candidate> = core.meta.standing.judged_chain().map(|(c, _)| c).collect();
    let counts = |head: &Head, lamport: u64| {
        let above = chain.iter().find(|c| lamport <= c.reference.floor);
        let above = above.and_then(|c| c.reach.as_ref());
        !core.graph.is_void(head) && above.is_none_or(|reach| reach.covers(&core.graph, head))
    };
    let all = core.graph.all();
    let found = all.filter(|(head, lamport)| {
        seen.defends(head) && void(head, *lamport) && counts(head, *lamport)
    });
    found
        .min_by_key(|(head, lamport)| (*lamport, *head))
        .map(|(head, _)| head)
}

/// A lane of which the root holds what is not known here, though everything is that its proposer can have seen.
fn unknown_end(graph: &Graph, reach: &Reach) -> Option<LaneId> {
    let known = |lane: &LaneId, held: &Held| {
        let mut ends = held.ends.iter();
        ends.all(|(seq, hash)| {
            let (lane, seq, hash) = (*lane, *seq, *hash);
            graph.knows(&Head { lane, seq, hash })
        })
    };
    let mut lanes = reach.lanes.iter();
    lanes
        .find(|(lane, held)| !known(lane, held))
        .map(|(lane, _)| *lane)
}

/// A lane of which the root names a commit with a time that is not its own: who begins with it could not tell, and would refuse what
/// follows. Only what was admitted here is compared; what is covered was said by another root.
fn mistimed_end(graph: &Graph, reach: &Reach) -> Option<LaneId> {
    let is_false = |held: &Held| {
        held.ends.iter().any(|(_, hash)| {
            let known = graph.lamport_by_hash(hash);
            known.is_some() && known != reach.lamports.get(hash).copied()
        })
    };
    let mut lanes = reach.lanes.iter();
    lanes
        .find(|(_, held)| is_false(held))
        .map(|(lane, _)| *lane)
}

/// A lane of which the root holds less than its parent, or another end, or the same with another time.
fn takes_back(core: &Core, reach: &Reach) -> Option<LaneId> {
    let mut all = core.meta.standing.candidates.iter();
    let parent = all.find(|c| Some(c.reference) == reach.parent)?;
    let parent = parent.reach.as_ref()?;
    let is_timed_alike = |hash: &Hash32| {
        let now = reach.lamports.get(hash);
        now.is_none_or(|now| parent.lamports.get(hash) == Some(now))
    };
    let agrees = |lane: &LaneId, before: &Held| {
        let Some(now) = reach.lanes.get(lane) else {
            return false;
        };
        let mut ends = before.ends.iter();
        let holds = ends.all(|(seq, hash)| {
            let (lane, seq, hash) = (*lane, *seq, *hash);
            core.graph
                .precedes_any(&Head { lane, seq, hash }, &now.ends)
        });
        holds
            && before.ends.iter().all(|(_, hash)| is_timed_alike(hash))
            && match before.closed {
                Some(closed) => now.closed == Some(closed),
                None => now.closed.is_none_or(|closed| closed >= before.last()),
            }
    };
    let mut lanes = parent.lanes.iter();
    lanes
        .find(|(lane, held)| !agrees(lane, held))
        .map(|(lane, _)| *lane)
}
