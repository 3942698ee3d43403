//! What a person may want to know of a room's lanes.

use super::error::Finding;
use super::{Net, Replica};
use crate::checkpoint::DigestOfRows;
use crate::commit::CheckpointRef;
use crate::lane::Head;
use crate::rows::RowsError;
use skrin_base::{DeviceId, Hash32, LaneId, Timestamp};
use std::collections::BTreeMap;

/// What the network's side last knew; kept apart so that `status` waits for nobody.
#[derive(Clone, Default)]
pub(super) struct Shown {
    own: Option<LaneId>,
    pub(super) in_flight: bool,
    findings: Vec<Finding>,
}

/// One lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneStatus {
    /// Its id.
    pub lane: LaneId,
    /// Whose.
    pub device: DeviceId,
    /// What people call that device.
    pub label: String,
    /// Number of its newest commit.
    pub seq: u64,
    /// Hash of its newest commit.
    pub hash: Hash32,
    /// Lamport time of that.
    pub lamport: u64,
    /// When it was published, by its device's clock.
    pub time: Timestamp,
    /// Whether more may come.
    pub open: bool,
}

/// The state of a room.
#[derive(Clone, Debug)]
pub struct Status {
    /// All lanes.
    pub lanes: Vec<LaneStatus>,
    /// The lane that this device writes.
    pub own: Option<LaneId>,
    /// The highest Lamport time that is known.
    pub lamport: u64,
    /// The floor.
    pub floor: u64,
    /// Operations that are not published.
    pub pending_ops: usize,
    /// Bytes that they will take.
    pub pending_bytes: usize,
    /// Whether a sealed commit waits for the storage to confirm it.
    pub in_flight: bool,
    /// The checkpoint that stands.
    pub checkpoint: Option<CheckpointRef>,
    /// What should be looked at.
    pub findings: Vec<Finding>,
}

impl Status {
    /// The newest commit of each device: to be shown when a vault is mounted for the first time.
    pub fn newest_by_device(&self) -> Vec<&LaneStatus> {
        let mut newest: BTreeMap<DeviceId, &LaneStatus> = BTreeMap::new();
        for lane in &self.lanes {
            let entry = newest.entry(lane.device).or_insert(lane);
            if lane.lamport > entry.lamport {
                *entry = lane;
            }
        }
        newest.into_values().collect()
    }

    /// A short code over all heads: two devices that show the same one have seen the same commits.
    pub fn heads_code(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"skrin/v1/heads-code");
        for lane in &self.lanes {
            hasher.update(lane.lane.as_bytes());
            hasher.update(&lane.seq.to_le_bytes());
            hasher.update(lane.hash.as_bytes());
        }
        let mut bytes = [0; 10];
        hasher.finalize_xof().fill(&mut bytes);
        let groups = bytes
            .chunks(2)
            .map(|pair| pair.iter().map(|b| format!("{b:02x}")).collect::<String>());
        groups.collect::<Vec<_>>().join("-")
    }
}

impl Replica {
    /// How things stand, without the network.
    pub fn status(&self) -> Status {
        let (findings, shown) = (self.findings(), self.shown.lock().clone());
        let core = self.core.lock();
        let lanes = core.graph.lanes.iter().filter_map(|(id, lane)| {
            let tip = lane.tip()?;
            Some(LaneStatus {
                lane: *id,
                device: lane.device,
                label: self.env.label(&lane.device),
                seq: tip.seq,
                hash: tip.hash,
                lamport: tip.lamport,
                time: tip.time,
                open: core.graph.is_open(lane),
            })
        });
        let lanes = lanes.collect();
        Status {
            lanes,
            own: shown.own,
            lamport: core.graph.latest(),
            floor: core.graph.floor(),
            pending_ops: core.pending.len(),
            pending_bytes: core.pending.iter().map(|pending| pending.len).sum(),
            in_flight: shown.in_flight,
            checkpoint: core.meta.standing.current().map(|c| c.reference),
            findings,
        }
    }

    /// What should be looked at.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.findings.lock().values().cloned().collect();
        findings.extend_from_slice(&self.shown.lock().findings);
        findings
    }

    /// What the control records call a device.
    pub fn device_label(&self, device: &DeviceId) -> String {
        self.env.label(device)
    }

    /// Number of rows and digest of the whole tree, pending operations included: equal trees have equal digests.
    ///
    /// # Errors
    /// When the cache fails.
    pub fn digest(&self) -> Result<(u64, Hash32), RowsError> {
        let snapshot = self.core.lock().rows.snapshot()?;
        let mut digest = DigestOfRows::default();
        snapshot.for_each(|key, value| {
            digest.row(&key, &value);
            Ok::<_, RowsError>(())
        })?;
        Ok(digest.finish())
    }

    /// Notes what `status` shows of the network's side.
    pub(super) fn show(&self, net: &Net) {
        let now = self.env.clock.now();
        let mut shown = self.shown.lock();
        let before = std::mem::take(&mut shown.findings);
        let seen = |head: &Head| {
            let remembered = net.heads.lanes.get(&head.lane);
            remembered.is_some_and(|seen| seen.head == *head)
        };
        let troubles = net.inbox.findings(seen).into_iter();
        let troubles = troubles.map(|(head, kind, text)| {
            let object = self.object(&head);
            let known = before.iter().find(|old| old.object == object);
            Finding {
                kind,
                since: known.map_or(now, |old| old.since),
                object,
                text,
            }
        });
        shown.findings = troubles.collect();
        shown.own = Some(net.own.id);
        shown.in_flight = net.in_flight.is_some() && !self.env.read_only;
    }
}
