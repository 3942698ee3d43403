//! What the control records of a room say together: a pure fold. Every record is judged by its
//! own ancestors only, so all readers judge alike (docs/format/vault.md, section 4.1).

mod dag;
mod rules;

use crate::record::{Label, PersonKeys, Recipient, Role, SignerRef, SlotEntry};
use crate::{Anchor, VaultError, control, objects};
use dag::Dag;
use skrin_base::Timestamp;
use skrin_base::ids::{DeviceId, EpochId, Hash32, PersonId, RoomId};
use skrin_base::wire::WireError;
use skrin_crypto::{
    Envelope, EpochCommitment, KemPublic, RoomSecret, Roster, RosterDevice, Suite, VerifyingKey,
};
use std::collections::{BTreeMap, BTreeSet};

/// A person of a room.
#[derive(Clone, Debug)]
pub struct Person {
    /// What people call him.
    pub name: Label,
    /// His keys now.
    pub keys: PersonKeys,
    /// The records of his key log, oldest first.
    pub key_log: Vec<Hash32>,
}

/// A certified device.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// Whose.
    pub person: PersonId,
    /// Verifies what it signs.
    pub sign: VerifyingKey,
    /// Receives for it.
    pub kem: KemPublic,
    /// What people call it.
    pub label: Label,
    /// When it was certified, as the certifier's clock had it.
    pub time: Timestamp,
    /// The record that certifies it.
    pub record: Hash32,
}

/// An epoch as its record has it.
#[derive(Clone, Debug)]
pub struct EpochInfo {
    /// The epochs that it replaces.
    pub parents: Vec<EpochId>,
    /// Which KEM.
    pub suite: Suite,
    /// Proves which key.
    pub commitment: EpochCommitment,
    /// Who is in.
    pub members: Vec<(PersonId, Role)>,
    /// Hash of the record without its envelopes.
    pub core: Hash32,
    /// Who made it.
    pub author: PersonId,
    /// With which key.
    pub signer: SignerRef,
    /// Its envelopes.
    pub envelopes: Vec<(Recipient, Envelope)>,
}

/// An epoch for a device that came later.
#[derive(Clone, Debug)]
pub struct GrantInfo {
    /// Which epoch.
    pub epoch: EpochId,
    /// For whom.
    pub recipient: Recipient,
    /// The wrapped key.
    pub envelope: Envelope,
    /// Who made it.
    pub author: PersonId,
    /// With which key.
    pub signer: SignerRef,
}

/// The newest record, for telling people what they see.
#[derive(Clone, Copy, Debug)]
pub struct Newest {
    /// When, as its author's clock had it.
    pub time: Timestamp,
    /// Who.
    pub author: PersonId,
    /// With which key.
    pub signer: SignerRef,
}

/// The membership of a room, from all of its records.
pub struct ControlState {
    /// The room.
    pub room: RoomId,
    /// Its owner.
    pub owner: PersonId,
    /// Number of the rule set of `apply`.
    pub rule_set: u32,
    /// Length of a block in bytes, as a power of two.
    pub block_log2: u8,
    /// Whether blocks may be compressed.
    pub compression: bool,
    /// All persons.
    pub persons: BTreeMap<PersonId, Person>,
    /// All devices.
    pub devices: BTreeMap<DeviceId, DeviceInfo>,
    /// All epochs.
    pub epochs: BTreeMap<EpochId, EpochInfo>,
    /// All grants.
    pub grants: Vec<GrantInfo>,
    /// The slots that the records list.
    pub live_slots: BTreeSet<SlotEntry>,
    /// The newest record by its claimed time.
    pub newest: Newest,
    pub(crate) room_secret: RoomSecret,
    slot_adds: Vec<(SlotEntry, Hash32)>,
    slot_removes: Vec<(SlotEntry, Hash32)>,
    dag: Dag,
}

impl ControlState {
    /// Folds all records of a room.
    ///
    /// # Errors
    /// `Integrity` and `Missing`, naming the object that the room cannot stand with or without.
    pub(crate) fn fold(anchor: &Anchor, records: Vec<control::Opened>) -> Result<Self, VaultError> {
        let mut records: BTreeMap<Hash32, control::Opened> =
            records.into_iter().map(|r| (r.hash, r)).collect();
        let Some(genesis) = records.remove(&anchor.genesis) else {
            return Err(VaultError::Missing {
                object: objects::control_name(anchor.room, anchor.genesis),
                named_by: "the slot that was opened".to_owned(),
            });
        };
        let mut state = rules::genesis(anchor, genesis)?;
        for hash in dag::order(anchor, &records)? {
            if let Some(record) = records.remove(&hash) {
                state.accept(record)?;
            }
        }
        state.live_slots = state.compute_live_slots();
        Ok(state)
    }

    /// Takes in one record whose parents are in already.
    pub(crate) fn accept(&mut self, record: control::Opened) -> Result<(), VaultError> {
        let object = record.object();
        rules::record(self, record).map_err(|e| match e {
            rules::Refusal::Rule(text) => VaultError::integrity(object, text),
            rules::Refusal::Wire(cause @ WireError::Unknown { .. }) => {
                VaultError::wire(object, cause)
            }
            rules::Refusal::Wire(cause) => VaultError::integrity(object, cause),
        })
    }

    /// The heads of the records, in ascending order: what a commit and the next record name.
    pub fn heads(&self) -> Vec<Hash32> {
        self.dag.heads()
    }

    /// Whether a record is known here.
    pub fn knows(&self, record: &Hash32) -> bool {
        self.dag.contains(record)
    }

    /// Whether `earlier` is `later` or one of its ancestors; a commit that names heads may only
    /// use what they contain.
    pub fn is_ancestor(&self, earlier: &Hash32, later: &Hash32) -> bool {
        self.dag.is_ancestor(earlier, &[*later])
    }

    /// The epochs that no other replaces, in ascending order. With more than one, nothing may be
    /// sealed before a merge epoch.
    pub fn epoch_heads(&self) -> Vec<EpochId> {
        let replaced: BTreeSet<&EpochId> = self.epochs.values().flat_map(|e| &e.parents).collect();
        let heads = self.epochs.keys().filter(|id| !replaced.contains(id));
        heads.copied().collect()
    }

    /// What the metadata needs to judge commits.
    pub fn roster(&self) -> Roster {
        let device = |info: &DeviceInfo| RosterDevice {
            key: info.sign.clone(),
            person: info.person,
            label: info.label.as_str().to_owned(),
            revoked: false,
        };
        let devices = self.devices.iter();
        Roster {
            devices: devices.map(|(id, info)| (*id, device(info))).collect(),
            control_heads: self.heads(),
        }
    }

    fn compute_live_slots(&self) -> BTreeSet<SlotEntry> {
        let removed = |entry: &SlotEntry, add: &Hash32| {
            self.slot_removes
                .iter()
                .any(|(e, remove)| e == entry && self.dag.is_ancestor(add, &[*remove]))
        };
        let adds = self.slot_adds.iter();
        adds.filter(|(entry, add)| !removed(entry, add))
            .map(|(entry, _)| *entry)
            .collect()
    }
}
