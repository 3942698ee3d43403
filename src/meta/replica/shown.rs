//! What was seen, and whether the storage still shows it (docs/format/lanes.md 8).

use super::core::Core;
use super::error::{LostHead, ReplicaError, ShownHead};
use super::{Net, Replica};
use crate::commit::{Opinion, Verdict, open_commit};
use crate::heads::{Heads, SeenHead};
use crate::lane::Head;
use skrin_base::limits::COMMIT_MAX;
use skrin_base::{DeviceId, LaneId};
use skrin_storage::ErrorKind;
use skrin_storage::disk::blocking;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::runtime::Handle;

/// A commit that no tip shows is asked for by its exact name again after this time.
const PROBE_EVERY: u64 = 600_000_000_000;
/// So many commits that are known here are asked for in one pull, others in later ones: whoever invents tips decides how many.
/// Few in tests.
const ASKED_AT_ONCE: usize = if cfg!(test) { 4 } else { 64 };
/// Pause before believing that a commit which was there is gone.
const PROBE_PAUSE: Duration = Duration::from_millis(200);
/// Lanes that are looked at to say of when a storage is that went back.
const SHOWN_MAX: usize = 64;

impl Replica {
    /// What the storage must show: the newest commit of each open lane, and of each device.
    fn expected(&self, net: &Net) -> Vec<SeenHead> {
        let mut newest: BTreeMap<DeviceId, &SeenHead> = BTreeMap::new();
        for seen in net.heads.lanes.values() {
            let entry = newest.entry(seen.device).or_insert(seen);
            if seen.lamport > entry.lamport {
                *entry = seen;
            }
        }
        let open = net.heads.lanes.values().filter(|seen| !seen.closed);
        let newest = newest.into_values().filter(|seen| seen.closed);
        // What lies beyond a cut nobody needs.
        let cuts = self.cuts();
        let passed = |seen: &&SeenHead| {
            let Head { lane, seq, .. } = seen.head;
            cuts.are_passed(&seen.device, &lane, seq)
        };
        let needed = open.chain(newest).filter(|seen| !passed(seen));
        needed.cloned().collect()
    }

    /// Tips are hints, and one whose commit was never opened here may be an invention: what no other shows is asked for by its
    /// exact name before anybody is believed or accused.
    pub(super) async fn check_shown(
        &self,
        net: &mut Net,
        tips: &[Head],
    ) -> Result<(), ReplicaError> {
        let opened = self.opened(net, tips);
        let (mut absent, mut asked) = (Vec::new(), 0);
        let mut expected = self.expected(net);
        // Those that were asked for longest ago, or never, come first.
        expected.sort_by_key(|seen| net.probed.get(&seen.head).copied());
        for seen in expected {
            let newest = opened.get(&seen.head.lane);
            let is_shown = newest.is_some_and(|newest| newest.seq >= seen.head.seq);
            if is_shown || self.was_there(net, &seen.head) {
                continue;
            }
            // Nothing is missing here of what is known, so that it can wait; not at the first look of a run, on which much rests.
            let known = self.core.lock().graph.knows(&seen.head);
            if known && net.saw_own && asked >= ASKED_AT_ONCE && absent.is_empty() {
                continue;
            }
            asked += usize::from(known);
            if !self.is_there(net, &seen.head).await? {
                absent.push(seen);
            }
        }
        if !absent.is_empty() {
            tokio::time::sleep(PROBE_PAUSE).await;
        }
        let mut lost = Vec::new();
        for seen in absent {
            if !self.is_there(net, &seen.head).await? {
                let shown = opened.get(&seen.head.lane).map(|newest| newest.seq);
                lost.push(LostHead { seen, shown });
            }
        }
        let shown = match lost.is_empty() {
            true => None,
            false => self.newest_shown(&opened, tips).await,
        };
        let control = self.lost_control(net, &self.env.roster.read());
        if net.control_is_old && !control.is_empty() {
            self.refuse_lost(shown, lost, &BTreeSet::new())?;
            return Err(ReplicaError::OldControl);
        }
        self.refuse_lost(shown, lost, &control)
    }

    /// Of each lane the newest tip whose commit was opened here. Whoever writes to the storage can invent others.
    fn opened(&self, net: &Net, tips: &[Head]) -> BTreeMap<LaneId, Head> {
        let core = self.core.lock();
        // Own ones may wait that only the local disk has.
        let waits = |tip: &Head| net.inbox.was_opened(tip, &self.env.device);
        let mut opened: BTreeMap<LaneId, Head> = BTreeMap::new();
        for tip in tips {
            if core.graph.knows(tip) || waits(tip) {
                let newest = opened.entry(tip.lane).or_insert(*tip);
                *newest = (*newest).max(*tip);
            }
        }
        opened
    }

    /// The newest commit behind the tips that the storage shows, for people: as far as it can be had and opened.
    async fn newest_shown(
        &self,
        opened: &BTreeMap<LaneId, Head>,
        tips: &[Head],
    ) -> Option<ShownHead> {
        let mut others: BTreeMap<LaneId, Head> = BTreeMap::new();
        for tip in tips.iter().filter(|tip| !opened.contains_key(&tip.lane)) {
            let newest = others.entry(tip.lane).or_insert(*tip);
            *newest = (*newest).max(*tip);
        }
        let mut newest: Option<ShownHead> = None;
        for tip in opened.values().chain(others.values()).take(SHOWN_MAX) {
            let Ok(name) = self.env.names.commit(tip) else {
                continue;
            };
            let Ok(bytes) = self.env.store.get(&name, COMMIT_MAX).await else {
                continue;
            };
            let opened = open_commit(tip, &bytes, &self.env.keys(), &self.env.roster.read());
            let Ok(checked) = opened else { continue };
            let commit = checked.commit();
            if newest
                .as_ref()
                .is_none_or(|newest| newest.time < commit.time)
            {
                newest = Some(ShownHead {
                    time: commit.time,
                    label: label_of(&self.env.label(&commit.device)),
                });
            }
        }
        newest
    }

    /// Whether the storage has shown a commit by its exact name a short time ago.
    fn was_there(&self, net: &Net, head: &Head) -> bool {
        let now = self.env.clock.monotonic();
        let fresh = |at: &u64| now.saturating_sub(*at) < PROBE_EVERY;
        net.probed.get(head).is_some_and(fresh)
    }

    /// Whether the storage has something under the exact name of a commit. Other bytes than those that were put, or none of
    /// them, are damage and no rollback.
    async fn is_there(&self, net: &mut Net, head: &Head) -> Result<bool, ReplicaError> {
        let name = self.env.names.commit(head)?;
        match self.env.store.get_range(&name, 0, 1).await {
            Err(error) if error.is_absent() => return Ok(false),
            Err(error) if error.kind() != ErrorKind::Broken => return Err(error.into()),
            _ => {}
        }
        net.probed.insert(*head, self.env.clock.monotonic());
        Ok(true)
    }

    /// Remembers what was seen, so that it cannot be taken back. What was seen later than all that can be had now stays remembered.
    /// Unless the pull before it was `complete`, not all of it was asked for.
    pub(super) async fn remember(&self, net: &mut Net, complete: bool) -> Result<(), ReplicaError> {
        let mut heads = net.heads.clone();
        let mut reached = BTreeMap::new();
        {
            let core = self.core.lock();
            let unconfirmed = net.in_flight.as_ref().map(|sealed| sealed.head);
            let lacks = !complete || net.inbox.lacks_any();
            for (id, seen) in self.seen(&core, &net.heads) {
                if unconfirmed.is_some_and(|head| head == seen.head) {
                    continue;
                }
                let later = heads.lanes.get_mut(&id).filter(|known| {
                    lacks && known.head.seq >= seen.head.seq && !core.graph.knows(&known.head)
                });
                if let Some(later) = later {
                    later.closed |= seen.closed;
                    // What it names is not known, and its lane is not closed before it.
                    later.awaited = None;
                    reached.insert(id, seen.head);
                    continue;
                }
                heads.lanes.insert(id, seen);
            }
        }
        {
            // The heads cover everything before them.
            let roster = self.env.roster.read();
            heads.control.retain(|seen| !roster.stands(seen));
            heads.control.extend(&roster.control_heads);
            heads.control.sort();
        }
        heads.incarnation = heads.incarnation.max(net.own.incarnation);
        let owed = net.refuting.iter().map(|(checkpoint, digest)| Verdict {
            opinion: Opinion::Refute,
            checkpoint: *checkpoint,
            digest: *digest,
        });
        heads.refuting = owed.collect();
        {
            let mut core = self.core.lock();
            let mut unjudged = core.meta.standing.unknown_roots();
            if !reached.is_empty() {
                // They may be proposed by what cannot be had.
                unjudged.append(&mut heads.unjudged);
                unjudged.sort();
                unjudged.dedup();
            }
            heads.unjudged = unjudged;
            core.reached = reached;
        }
        if heads == net.heads {
            self.core.lock().meta.standing.judge_all();
            return Ok(());
        }
        self.keep_what_others_did(net, &heads);
        self.store_heads(net, heads).await?;
        self.core.lock().meta.standing.judge_all();
        Ok(())
    }

    /// Writes the state before programs do anything on top of what others did: a device that dies and starts without the storage would
    /// otherwise apply its own changes to what was there before, and show conflict copies and gaps until the storage is there again.
    fn keep_what_others_did(&self, net: &Net, heads: &Heads) {
        let is_news = |(id, seen): (&LaneId, &SeenHead)| {
            let before = net.heads.lanes.get(id).map(|before| before.head);
            seen.device != self.env.device && before != Some(seen.head)
        };
        if heads.lanes.iter().any(is_news)
            && let Err(error) = self.flush()
        {
            tracing::warn!(%error, "the local cache cannot be written");
        }
    }

    /// Remembers in which lane segments are named from now on: a commit declares those of its own lane and of earlier ones only, so
    /// that no later run may go on in an earlier one, whatever it is shown.
    pub(super) async fn remember_incarnation(&self, net: &mut Net) -> Result<(), ReplicaError> {
        let mut heads = net.heads.clone();
        heads.incarnation = heads.incarnation.max(net.own.incarnation);
        if self.env.read_only || heads == net.heads {
            return Ok(());
        }
        self.store_heads(net, heads).await
    }

    async fn store_heads(&self, net: &mut Net, mut heads: Heads) -> Result<(), ReplicaError> {
        heads.last_counter = heads.last_counter.max(self.core.lock().last_counter());
        let (file, entropy, stored) = (
            self.heads_file.clone(),
            self.env.entropy.clone(),
            heads.clone(),
        );
        let store = blocking(&Handle::current(), move || file.store(&stored, &*entropy));
        store.await.map_err(|_| ReplicaError::Ending)??;
        net.heads = heads;
        Ok(())
    }

    /// The ends of all lanes, and since when they are waited for, which those that stand where they stood before go on to be.
    fn seen(&self, core: &Core, before: &Heads) -> Vec<(LaneId, SeenHead)> {
        let now = self.env.clock.now();
        let entry = |(id, lane): (&LaneId, &super::graph::Lane)| {
            let tip = lane.tip()?;
            let head = Head {
                lane: *id,
                seq: tip.seq,
                hash: tip.hash,
            };
            let known = before.lanes.get(id).filter(|known| known.head == head);
            let awaited = known.and_then(|known| known.awaited);
            let is_open = core.graph.is_open(lane);
            let behind = || (is_open && core.graph.is_behind(*id, lane)).then_some(now);
            let seen = SeenHead {
                head,
                lamport: tip.lamport,
                device: lane.device,
                label: label_of(&self.env.label(&lane.device)),
                time: tip.time,
                closed: !is_open,
                awaited: awaited.or_else(behind),
            };
            Some((*id, seen))
        };
        core.graph.lanes.iter().filter_map(entry).collect()
    }
}

/// As much of a label as is remembered.
fn label_of(label: &str) -> String {
    let mut end = label.len().min(skrin_base::limits::LABEL_MAX);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    label.get(..end).unwrap_or_default().to_owned()
}
