//! The control records as a history for people.

use super::ControlState;
use super::rules::need;
use crate::record::{
    Body, CutTips, EndReason, EpochReason, Label, Recipient, Record, RecoveryPurpose, Role,
    SignerRef, SlotEntry,
};
use skrin_base::Timestamp;
use skrin_base::ids::{DeviceId, EpochId, Hash32, PersonId};

/// What a record did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The room was made.
    Made {
        /// Who owns it.
        owner: PersonId,
        /// What people call him.
        name: Label,
    },
    /// A device was certified.
    DeviceAdded {
        /// Which.
        device: DeviceId,
        /// What people call it.
        label: Label,
    },
    /// A device was revoked.
    DeviceRevoked {
        /// Which.
        device: DeviceId,
        /// What counts of its lanes.
        cut: CutTips,
        /// Why.
        reason: EndReason,
    },
    /// New keys were made.
    Epoch {
        /// Why.
        reason: EpochReason,
        /// For how many members.
        members: usize,
        /// And devices.
        devices: usize,
    },
    /// A device was given an epoch.
    Granted {
        /// Which.
        epoch: EpochId,
        /// To whom.
        recipient: Recipient,
    },
    /// A member was given an earlier epoch.
    Linked {
        /// Which.
        earlier: EpochId,
        /// To whom.
        recipient: Recipient,
    },
    /// A slot was listed.
    SlotAdded(SlotEntry),
    /// A slot was taken off the list.
    SlotRemoved(SlotEntry),
    /// Somebody became a member.
    MemberAdded {
        /// Who.
        person: PersonId,
        /// What people call him.
        name: Label,
        /// As what.
        role: Role,
        /// When he is meant to leave.
        until: Option<Timestamp>,
        /// Names the invitation that his keys answered, if they did.
        invitation: Option<[u8; 32]>,
    },
    /// Somebody is a member no more.
    MemberRemoved {
        /// Who.
        person: PersonId,
        /// What counts of the lanes of his devices.
        cut: CutTips,
        /// Why.
        reason: EndReason,
    },
    /// A member's role changed.
    RoleChanged {
        /// Whose.
        person: PersonId,
        /// To what.
        role: Role,
        /// What counts of the lanes of his devices, if he may not write any more.
        cut: CutTips,
    },
    /// A recovery key was used.
    RecoveryUsed(RecoveryPurpose),
    /// Something optional that this program does not know.
    Unknown {
        /// Its tag.
        tag: u8,
    },
}

/// One record of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    /// The record.
    pub id: Hash32,
    /// What it follows.
    pub parents: Vec<Hash32>,
    /// When, as its author's clock had it.
    pub time: Timestamp,
    /// Who.
    pub author: PersonId,
    /// With which key.
    pub signer: SignerRef,
    /// What.
    pub what: What,
    /// Whether a removal, a demotion or a revocation takes it back.
    pub overruled: bool,
}

/// What is kept of each record.
pub(super) struct Entry {
    time: Timestamp,
    pub(super) author: PersonId,
    pub(super) signer: SignerRef,
    /// The least that its author must be.
    pub(super) need: Role,
    what: What,
}

impl Entry {
    pub(super) fn of(body: &Body) -> Self {
        Self {
            time: body.time,
            author: body.author,
            signer: body.signer,
            need: need(body.author, &body.record),
            what: what(&body.record),
        }
    }

    pub(super) fn invitation(&self) -> Option<[u8; 32]> {
        match &self.what {
            What::MemberAdded { invitation, .. } => *invitation,
            _ => None,
        }
    }

    /// What it calls a person.
    pub(super) fn name(&self) -> Option<&Label> {
        match &self.what {
            What::Made { name, .. } | What::MemberAdded { name, .. } => Some(name),
            _ => None,
        }
    }
}

fn what(record: &Record) -> What {
    match record {
        Record::Genesis(record) => What::Made {
            owner: record.person,
            name: record.name.clone(),
        },
        Record::DeviceAdd(record) => What::DeviceAdded {
            device: record.device,
            label: record.label.clone(),
        },
        Record::DeviceRevoke(record) => What::DeviceRevoked {
            device: record.device,
            cut: record.cut.clone(),
            reason: record.reason,
        },
        Record::Epoch(record) => What::Epoch {
            reason: record.core.reason,
            members: record.core.members.len(),
            devices: record.core.devices.len(),
        },
        Record::Grant(record) => What::Granted {
            epoch: record.epoch,
            recipient: record.recipient,
        },
        Record::BackLink(record) => What::Linked {
            earlier: record.earlier,
            recipient: record.recipient,
        },
        Record::SlotAdd(entry) => What::SlotAdded(*entry),
        Record::SlotRemove(entry) => What::SlotRemoved(*entry),
        Record::MemberAdd(record) => What::MemberAdded {
            person: record.person,
            name: record.name.clone(),
            role: record.role,
            until: record.until,
            invitation: record.invitation,
        },
        Record::MemberRemove(record) => What::MemberRemoved {
            person: record.person,
            cut: record.cut.clone(),
            reason: record.reason,
        },
        Record::MemberRole(record) => What::RoleChanged {
            person: record.person,
            role: record.role,
            cut: record.cut.clone(),
        },
        Record::RecoveryUse(purpose) => What::RecoveryUsed(*purpose),
        Record::Optional { tag, .. } => What::Unknown { tag: *tag },
    }
}

impl ControlState {
    /// All records that stand, each after those that it follows. Among those that do not know of each other the earlier
    /// by its claimed time comes first, then the lower id: all readers see the same order.
    pub fn audit(&self) -> Vec<AuditEntry> {
        let key = |id: &Hash32| self.entries.get(id).map(|entry| entry.time);
        let entry = |id: Hash32| {
            let entry = self.entries.get(&id)?;
            Some(AuditEntry {
                id,
                parents: self.dag.parents(&id).to_vec(),
                time: entry.time,
                author: entry.author,
                signer: entry.signer,
                what: entry.what.clone(),
                overruled: self.is_overruled(&id),
            })
        };
        let order = self.dag.in_order(key);
        order.into_iter().filter_map(entry).collect()
    }
}
