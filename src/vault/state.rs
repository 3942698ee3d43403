//! What the control records of a room say together: a pure fold. Every record is judged by its
//! own ancestors only, so all readers judge alike (docs/format/vault.md, section 4.1).

mod dag;
mod orphans;
mod rules;

use crate::record::{Label, PersonKeys, Recipient, Role, SignerRef, SlotEntry};
use crate::{Anchor, Class, VaultError, control, objects};
use dag::Dag;
use skrin_base::Timestamp;
use skrin_base::ids::{DeviceId, EpochId, Hash32, PersonId, RoomId};
use skrin_base::wire::WireError;
use skrin_crypto::{
    Envelope, EpochCommitment, Everybody, KemPublic, RoomSecret, Roster, RosterDevice, Suite,
    VerifyingKey,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    /// The records that certify it: more than one if machines did it at the same time.
    pub records: Vec<Hash32>,
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

/// An object under the name of a control record that says nothing: cut short by the storage, or
/// made by somebody who may not. No record that a member signed follows it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{object}: {what}")]
pub struct BadRecord {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

impl BadRecord {
    fn new(anchor: &Anchor, hash: Hash32, what: impl ToString) -> Self {
        Self {
            object: objects::control_name(anchor.room, hash),
            what: what.to_string(),
        }
    }

    fn of(error: &VaultError, anchor: &Anchor, hash: Hash32) -> Self {
        match error {
            VaultError::Integrity { what, .. } => Self::new(anchor, hash, what),
            VaultError::NewerFeature { cause, .. } => Self::new(anchor, hash, cause),
            other => Self::new(anchor, hash, other),
        }
    }
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
    /// Folds all records of a room; those that do not stand are left out and told.
    ///
    /// # Errors
    /// `Integrity` and `Missing`, naming the object that the room cannot stand with or without;
    /// `NewerVersion` and `NewerFeature` for what a member signed with a newer program.
    pub(crate) fn fold(
        anchor: &Anchor,
        objects: Vec<Result<control::Opened, control::Unread>>,
    ) -> Result<(Self, Vec<BadRecord>), VaultError> {
        let (mut records, mut unread) = (BTreeMap::new(), BTreeMap::new());
        for object in objects {
            match object {
                Ok(record) => drop(records.insert(record.hash, record)),
                Err(bad) => drop(unread.insert(bad.hash, bad)),
            }
        }
        if let Some(bad) = unread.remove(&anchor.genesis) {
            return Err(bad.error);
        }
        let Some(genesis) = records.remove(&anchor.genesis) else {
            return Err(VaultError::Missing {
                object: objects::control_name(anchor.room, anchor.genesis),
                named_by: "the slot that was opened".to_owned(),
            });
        };
        let mut state = rules::genesis(anchor, genesis)?;
        let mut bad = state.accept_all(anchor, &mut records)?;
        for object in unread.into_values() {
            if state.all_keys().any(|key| object.is_newer_by(key)) {
                return Err(object.error);
            }
            bad.insert(
                object.hash,
                BadRecord::of(&object.error, anchor, object.hash),
            );
        }
        orphans::judge(&state, anchor, &records, &mut bad)?;
        state.live_slots = state.compute_live_slots();
        Ok((state, bad.into_values().collect()))
    }

    /// Takes in all records that stand. Those whose ancestors do not all stand are left in `records`.
    fn accept_all(
        &mut self,
        anchor: &Anchor,
        records: &mut BTreeMap<Hash32, control::Opened>,
    ) -> Result<BTreeMap<Hash32, BadRecord>, VaultError> {
        let mut bad = BTreeMap::new();
        for hash in dag::order(anchor, records) {
            let stands = |r: &control::Opened| r.body.parents.iter().all(|p| self.knows(p));
            if !records.get(&hash).is_some_and(stands) {
                continue;
            }
            let Some(record) = records.remove(&hash) else {
                continue;
            };
            match self.accept(record) {
                Ok(()) => {}
                Err(error) if error.class() == Class::Newer => return Err(error),
                Err(error) => drop(bad.insert(hash, BadRecord::of(&error, anchor, hash))),
            }
        }
        Ok(bad)
    }

    /// The keys of all persons and devices.
    fn all_keys(&self) -> impl Iterator<Item = &VerifyingKey> {
        let persons = self.persons.values().map(|person| &person.keys);
        let persons = persons.flat_map(|keys| [&keys.root_sign, &keys.words_sign]);
        persons.chain(self.devices.values().map(|device| &device.sign))
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
            cut: None,
        };
        let devices = self.devices.iter();
        Roster {
            devices: devices.map(|(id, info)| (*id, device(info))).collect(),
            control_heads: self.heads(),
            control: self.dag.records(),
            rights: Arc::new(Everybody),
        }
    }

    /// Whether a record from before `parents` certifies the device.
    fn is_certified(&self, device: &DeviceInfo, parents: &[Hash32]) -> bool {
        let mut records = device.records.iter();
        records.any(|record| self.dag.is_ancestor(record, parents))
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
