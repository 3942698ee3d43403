//! Which records stand: docs/format/vault.md, section 4.1, rule by rule.

use super::{ControlState, DeviceInfo, EpochInfo, GrantInfo, Newest, Person};
use crate::control::Opened;
use crate::device::device_id;
use crate::epoch::decode_envelopes;
use crate::record::{
    Body, DeviceAdd, EpochReason, EpochRecord, Grant, Recipient, Record, Role, SignerRef,
};
use crate::state::dag::Dag;
use crate::{Anchor, VaultError, objects};
use skrin_base::ids::{EpochId, Hash32, PersonId};
use skrin_base::limits::FORMAT_VERSION;
use skrin_base::wire::{Encode, WireError};
use skrin_crypto::{VerifyingKey, hash};
use std::collections::{BTreeMap, BTreeSet};

/// The rule set of `apply` that this program knows.
const RULE_SET: u32 = 1;

/// Why a record does not stand.
pub(super) enum Refusal {
    Rule(&'static str),
    Wire(WireError),
}

impl From<WireError> for Refusal {
    fn from(cause: WireError) -> Self {
        Self::Wire(cause)
    }
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), Refusal> {
    if holds {
        Ok(())
    } else {
        Err(Refusal::Rule(otherwise))
    }
}

/// Rule 2.
pub(super) fn genesis(anchor: &Anchor, opened: Opened) -> Result<ControlState, VaultError> {
    let object = objects::control_name(anchor.room, anchor.genesis);
    let refuse = |what: &str| VaultError::integrity(&object, what);
    let is_plain = opened.body.parents.is_empty() && opened.attachment.is_empty();
    let Record::Genesis(genesis) = &opened.body.record else {
        return Err(refuse("it is no genesis"));
    };
    if !is_plain || opened.body.signer != SignerRef::Root || opened.body.author != genesis.person {
        return Err(refuse("it is not a genesis by its owner's root"));
    }
    if genesis.keys.fingerprint() != anchor.fingerprint {
        return Err(refuse("its owner is not the one that the slot names"));
    }
    if !opened.is_signed_by(&genesis.keys.root_sign) {
        return Err(refuse("its signature is not valid"));
    }
    if genesis.format_version > FORMAT_VERSION {
        let found = genesis.format_version;
        return Err(VaultError::NewerVersion { object, found });
    }
    if genesis.rule_set != RULE_SET {
        let (what, found) = ("rule set", u64::from(genesis.rule_set));
        return Err(VaultError::wire(object, WireError::Unknown { what, found }));
    }
    let newest = Newest {
        time: opened.body.time,
        author: opened.body.author,
        signer: opened.body.signer,
    };
    let Record::Genesis(genesis) = opened.body.record else {
        return Err(refuse("it is no genesis"));
    };
    let mut dag = Dag::default();
    dag.add(opened.hash, &[]);
    let owner = Person {
        name: genesis.name,
        keys: genesis.keys,
        key_log: vec![opened.hash],
    };
    Ok(ControlState {
        room: anchor.room,
        owner: genesis.person,
        rule_set: genesis.rule_set,
        block_log2: genesis.block_log2,
        compression: genesis.compression,
        persons: BTreeMap::from([(genesis.person, owner)]),
        devices: BTreeMap::new(),
        epochs: BTreeMap::new(),
        grants: Vec::new(),
        live_slots: BTreeSet::new(),
        newest,
        room_secret: genesis.room_secret,
        slot_adds: Vec::new(),
        slot_removes: Vec::new(),
        dag,
    })
}

/// Rules 3 to 8.
pub(super) fn record(state: &mut ControlState, opened: Opened) -> Result<(), Refusal> {
    let body = &opened.body;
    require(
        !body.parents.is_empty() && body.parents.iter().all(|p| state.dag.contains(p)),
        "its parents are not known",
    )?;
    let key = signing_key(state, body)?;
    require(opened.is_signed_by(&key), "its signature is not valid")?;
    let is_epoch = matches!(body.record, Record::Epoch(_));
    require(
        is_epoch || opened.attachment.is_empty(),
        "it has an attachment that does not belong there",
    )?;
    match &body.record {
        Record::Genesis(_) => return Err(Refusal::Rule("it is a second genesis")),
        Record::DeviceAdd(record) => device_add(state, body, record, opened.hash)?,
        Record::Epoch(record) => epoch(state, body, record, &opened)?,
        Record::Grant(record) => grant(state, body, record)?,
        Record::SlotAdd(entry) => {
            slot_change(state, body)?;
            state.slot_adds.push((*entry, opened.hash));
        }
        Record::SlotRemove(entry) => {
            slot_change(state, body)?;
            state.slot_removes.push((*entry, opened.hash));
        }
        Record::Optional { .. } => {}
    }
    if body.time > state.newest.time {
        state.newest = Newest {
            time: body.time,
            author: body.author,
            signer: body.signer,
        };
    }
    state.dag.add(opened.hash, &body.parents);
    Ok(())
}

/// Rule 4: only keys that an ancestor certifies.
fn signing_key(state: &ControlState, body: &Body) -> Result<VerifyingKey, Refusal> {
    let author = person(state, &body.author, "its author is not known in this room")?;
    match body.signer {
        SignerRef::Root => Ok(author.keys.root_sign.clone()),
        SignerRef::Words => Ok(author.keys.words_sign.clone()),
        SignerRef::Device(id) => {
            let device = state.devices.get(&id);
            let device = device.filter(|d| state.is_certified(d, &body.parents));
            let device = device.ok_or(Refusal::Rule(
                "it is signed by a device that is not certified",
            ))?;
            require(
                device.person == body.author,
                "it is signed by a device of somebody else",
            )?;
            Ok(device.sign.clone())
        }
    }
}

/// Whether a key of the author's that is known here signed it, wherever it stands.
pub(super) fn is_signed_by_author(state: &ControlState, opened: &Opened) -> bool {
    let body = &opened.body;
    let Some(author) = state.persons.get(&body.author) else {
        return false;
    };
    match body.signer {
        SignerRef::Root => opened.is_signed_by(&author.keys.root_sign),
        SignerRef::Words => opened.is_signed_by(&author.keys.words_sign),
        SignerRef::Device(id) => {
            let device = state.devices.get(&id);
            device.is_some_and(|d| d.person == body.author && opened.is_signed_by(&d.sign))
        }
    }
}

fn person<'a>(
    state: &'a ControlState,
    id: &PersonId,
    otherwise: &'static str,
) -> Result<&'a Person, Refusal> {
    state.persons.get(id).ok_or(Refusal::Rule(otherwise))
}

/// Rule 5.
fn device_add(
    state: &mut ControlState,
    body: &Body,
    record: &DeviceAdd,
    hash: Hash32,
) -> Result<(), Refusal> {
    require(
        body.author == record.person && !matches!(body.signer, SignerRef::Device(_)),
        "a device is added by somebody who may not: only root or words of its person may",
    )?;
    let owner = person(state, &record.person, "the device's person is not known")?;
    require(
        record.kem.suite() >= owner.keys.root_kem.suite(),
        "its key is of a weaker suite than its person's",
    )?;
    let log = &owner.key_log;
    require(
        log.contains(&record.previous) && state.dag.is_ancestor(&record.previous, &body.parents),
        "it does not follow the key log of its person",
    )?;
    require(
        record.device == device_id(body.vault, &record.sign, &record.kem),
        "its device id is not the one that follows from its keys",
    )?;
    let known = state.devices.get(&record.device);
    require(
        !known.is_some_and(|d| state.is_certified(d, &body.parents)),
        "it adds a device a second time",
    )?;
    // Added at the same time by two who did not see each other: the keys are the same, as the id is.
    let info = state.devices.entry(record.device);
    let info = info.or_insert_with(|| DeviceInfo {
        person: record.person,
        sign: record.sign.clone(),
        kem: record.kem.clone(),
        label: record.label.clone(),
        time: body.time,
        records: Vec::new(),
    });
    info.records.push(hash);
    if let Some(person) = state.persons.get_mut(&record.person) {
        person.key_log.push(hash);
    }
    Ok(())
}

/// Rule 6.
fn epoch(
    state: &mut ControlState,
    body: &Body,
    record: &EpochRecord,
    opened: &Opened,
) -> Result<(), Refusal> {
    let core = &record.core;
    require(
        body.author == state.owner,
        "an epoch is made by somebody who is not a manager",
    )?;
    let owner = core.members.iter().find(|(id, _)| *id == state.owner);
    require(
        owner.is_some_and(|(_, role)| *role == Role::Owner),
        "an epoch without the owner",
    )?;
    for (member, _) in &core.members {
        person(state, member, "an epoch lists a member who is not known")?;
    }
    epoch_parents(state, body, record)?;
    let expected = expected_recipients(state, body, record)?;
    require(
        expected.iter().eq(&core.recipients),
        "an epoch is wrapped to others than its members and their devices",
    )?;
    require(
        hash(&opened.attachment) == record.envelopes,
        "its envelopes are not those that were signed",
    )?;
    let envelopes = decode_envelopes(&opened.attachment)?;
    require(
        envelopes.len() == core.recipients.len(),
        "it has another number of envelopes than of recipients",
    )?;
    let number = core.suite.number();
    require(
        envelopes
            .iter()
            .all(|e| e.as_bytes().first() == Some(&number)),
        "it has an envelope of another suite than it says",
    )?;
    let info = EpochInfo {
        parents: core.parents.clone(),
        suite: core.suite,
        commitment: core.commitment,
        members: core.members.clone(),
        core: hash(&core.to_bytes()),
        author: body.author,
        signer: body.signer,
        envelopes: core.recipients.iter().copied().zip(envelopes).collect(),
    };
    state.epochs.insert(EpochId(opened.hash.0), info);
    Ok(())
}

fn epoch_parents(state: &ControlState, body: &Body, record: &EpochRecord) -> Result<(), Refusal> {
    let core = &record.core;
    let first = core.reason == EpochReason::First;
    require(
        first == core.parents.is_empty(),
        "only a first epoch has no parents",
    )?;
    let has_ancestor = |epochs: &BTreeMap<EpochId, EpochInfo>| {
        let mut ids = epochs.keys();
        ids.any(|id| state.dag.is_ancestor(&Hash32(id.0), &body.parents))
    };
    require(
        !first || !has_ancestor(&state.epochs),
        "it is a second first epoch",
    )?;
    for parent in &core.parents {
        let known = state.epochs.get(parent);
        let known = known.filter(|_| state.dag.is_ancestor(&Hash32(parent.0), &body.parents));
        let known = known.ok_or(Refusal::Rule("an epoch's parent is not known to it"))?;
        require(
            core.suite >= known.suite,
            "an epoch goes back to a weaker suite",
        )?;
    }
    Ok(())
}

/// Devices that are listed, and root and words of every member: there is no other escrow.
fn expected_recipients(
    state: &ControlState,
    body: &Body,
    record: &EpochRecord,
) -> Result<BTreeSet<Recipient>, Refusal> {
    let core = &record.core;
    let mut out = BTreeSet::new();
    for (member, _) in &core.members {
        out.insert(Recipient::Root(*member));
        out.insert(Recipient::Words(*member));
    }
    for id in &core.devices {
        let device = state.devices.get(id);
        let device = device.filter(|d| state.is_certified(d, &body.parents));
        let device = device.ok_or(Refusal::Rule(
            "an epoch lists a device that is not certified",
        ))?;
        require(
            core.members.iter().any(|(id, _)| *id == device.person),
            "an epoch lists a device of somebody who is not a member",
        )?;
        out.insert(Recipient::Device(*id));
    }
    Ok(out)
}

/// Rule 7.
fn grant(state: &mut ControlState, body: &Body, record: &Grant) -> Result<(), Refusal> {
    let epoch = state.epochs.get(&record.epoch);
    let epoch = epoch.filter(|_| {
        state
            .dag
            .is_ancestor(&Hash32(record.epoch.0), &body.parents)
    });
    let epoch = epoch.ok_or(Refusal::Rule("it grants an epoch that is not known to it"))?;
    require(
        epoch.members.iter().any(|(id, _)| *id == body.author),
        "it grants an epoch to somebody who is not a member",
    )?;
    let Recipient::Device(id) = record.recipient else {
        return Err(Refusal::Rule(
            "it grants an epoch to something else than a device",
        ));
    };
    let device = state.devices.get(&id);
    let device = device.filter(|d| state.is_certified(d, &body.parents));
    require(
        device.is_some_and(|d| d.person == body.author),
        "it grants an epoch to a device that is not certified, or not of its author",
    )?;
    require(
        record.envelope.as_bytes().first() == Some(&epoch.suite.number()),
        "its envelope is of another suite than the epoch",
    )?;
    state.grants.push(GrantInfo {
        epoch: record.epoch,
        recipient: record.recipient,
        envelope: record.envelope.clone(),
        author: body.author,
        signer: body.signer,
    });
    Ok(())
}

/// Rule 8.
fn slot_change(state: &ControlState, body: &Body) -> Result<(), Refusal> {
    require(
        body.author == state.owner && !matches!(body.signer, SignerRef::Device(_)),
        "a slot is listed or removed by somebody who may not",
    )
}
