//! Which records stand: docs/format/vault.md, section 4.1, rule by rule.

mod members;

use super::audit::Entry;
use super::graph::{Effect, Graph, Tangled, Tracked, View};
use super::{BackLinkInfo, ControlState, EpochInfo, GrantInfo, Newest, Person, World};
use crate::control::Opened;
use crate::epoch::decode_envelopes;
use crate::record::{
    BackLink, Body, EpochReason, EpochRecord, Grant, History, Recipient, Record, Role, SignerRef,
    SlotEntry,
};
use crate::state::dag::Dag;
use crate::{Anchor, VaultError, objects};
use skrin_base::ids::{EpochId, Hash32, PersonId};
use skrin_base::limits::FORMAT_VERSION;
use skrin_base::wire::{Encode, WireError};
use skrin_crypto::{VerifyingKey, hash};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The rule set of `apply` that this program knows.
const RULE_SET: u32 = 1;

/// Why a record does not stand.
pub(super) enum Refusal {
    Rule(&'static str),
    Wire(WireError),
    /// The whole room cannot be judged.
    Tangled(Tangled),
}

impl From<Tangled> for Refusal {
    fn from(cause: Tangled) -> Self {
        Self::Tangled(cause)
    }
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
    let entry = Entry::of(&opened.body);
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
    let graph = Graph::new(genesis.person, opened.hash, opened.body.time);
    let owner = Person {
        name: genesis.name,
        keys: genesis.keys.into(),
        key_log: vec![opened.hash],
    };
    let view = graph.view(&[opened.hash]);
    let view = view.map_err(|Tangled(what)| VaultError::integrity(&object, what))?;
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
        back_links: Vec::new(),
        live_slots: BTreeSet::new(),
        genesis: opened.hash,
        entries: BTreeMap::from([(opened.hash, entry)]),
        now: World::default(),
        view,
        graph: Arc::new(graph),
        newest,
        room_secret: genesis.room_secret,
        slot_adds: Vec::new(),
        slot_removes: Vec::new(),
        slot_owners: BTreeSet::new(),
        dag,
    })
}

/// What a record is judged by, besides what it says.
struct Case<'a> {
    opened: &'a Opened,
    body: &'a Body,
    /// The world at its parents.
    view: View,
    /// How far from the owner the author is there.
    depth: u32,
    role: Role,
    need: Role,
}

/// Rules 3 to 12.
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
    let case = case(state, &opened)?;
    let effect = match &body.record {
        Record::Genesis(_) => return Err(Refusal::Rule("it is a second genesis")),
        Record::DeviceAdd(record) => Some(members::device_add(state, &case, record)?),
        Record::DeviceRevoke(record) => Some(members::device_revoke(state, &case, record)?),
        Record::MemberAdd(record) => Some(members::member_add(state, &case, record)?),
        Record::MemberRemove(record) => Some(members::member_remove(state, &case, record)?),
        Record::MemberRole(record) => Some(members::member_role(state, &case, record)?),
        Record::Epoch(record) => Some(epoch(state, &case, record)?),
        Record::SlotAdd(entry) => Some(slot_change(state, &case, entry, true)?),
        Record::SlotRemove(entry) => Some(slot_change(state, &case, entry, false)?),
        Record::Grant(record) => {
            grant(state, &case, record)?;
            None
        }
        Record::BackLink(record) => {
            back_link(state, &case, record)?;
            None
        }
        Record::RecoveryUse(_) => {
            require(
                case.role == Role::Recovery,
                "it says that a recovery key is used, and its author is none",
            )?;
            None
        }
        Record::Optional { .. } => None,
    };
    enter(state, &case, effect)
}

/// Takes in a record that stands.
fn enter(state: &mut ControlState, case: &Case<'_>, effect: Option<Effect>) -> Result<(), Refusal> {
    let (body, hash) = (case.body, case.opened.hash);
    let graph = Arc::make_mut(&mut state.graph);
    match effect {
        None => graph.pass(hash, &case.view),
        Some(effect) => {
            let record = Tracked {
                id: hash,
                author: body.author,
                device: device_of(body.signer),
                need: case.need,
                depth: case.depth,
                time: body.time,
                effect,
            };
            graph.add(record, &case.view)?;
        }
    }
    if body.time > state.newest.time {
        state.newest = Newest {
            time: body.time,
            author: body.author,
            signer: body.signer,
        };
    }
    state.entries.insert(hash, Entry::of(body));
    state.dag.add(hash, &body.parents);
    Ok(())
}

pub(super) fn device_of(signer: SignerRef) -> Option<skrin_base::DeviceId> {
    match signer {
        SignerRef::Device(id) => Some(id),
        SignerRef::Root | SignerRef::Words => None,
    }
}

/// The least that the author of a record must be (rule 5).
pub(super) fn need(author: PersonId, record: &Record) -> Role {
    match record {
        Record::Genesis(_) => Role::Owner,
        Record::MemberRemove(record) if record.person == author => Role::Reader,
        Record::MemberAdd(_)
        | Record::MemberRemove(_)
        | Record::MemberRole(_)
        | Record::BackLink(_) => Role::Manager,
        Record::Epoch(_) => Role::Editor,
        Record::DeviceAdd(_)
        | Record::DeviceRevoke(_)
        | Record::Grant(_)
        | Record::SlotRemove(_)
        | Record::Optional { .. } => Role::Reader,
        Record::SlotAdd(_) | Record::RecoveryUse(_) => Role::Recovery,
    }
}

/// Rule 5: what the author and his device may do in the world at the record's parents.
fn case<'a>(state: &ControlState, opened: &'a Opened) -> Result<Case<'a>, Refusal> {
    let body = &opened.body;
    let view = state.graph.view(&body.parents)?;
    let device = device_of(body.signer);
    state.graph.charge_for(&body.author, device.as_ref())?;
    let standing = state.graph.standing(&view, &body.author);
    let standing = standing.ok_or(Refusal::Rule("its author was no member at that point"))?;
    let need = need(body.author, &body.record);
    require(
        standing.role <= need,
        "its author may not do this with the role that he had at that point",
    )?;
    require(
        device.is_none_or(|device| state.graph.is_living(&view, &device)),
        "it is signed by a device that had been revoked, or from before its person was removed",
    )?;
    let own_keys = matches!(
        body.record,
        Record::DeviceAdd(_)
            | Record::DeviceRevoke(_)
            | Record::SlotAdd(_)
            | Record::SlotRemove(_)
            | Record::RecoveryUse(_)
    );
    require(
        device.is_none() || !own_keys,
        "a device signed what it may not: only root and words change devices and slots, and say that a recovery key is used",
    )?;
    Ok(Case {
        opened,
        body,
        view,
        depth: standing.depth,
        role: standing.role,
        need,
    })
}

/// Rule 4: only keys that an ancestor certifies.
fn signing_key(state: &ControlState, body: &Body) -> Result<VerifyingKey, Refusal> {
    let author = person(state, &body.author, "its author is not known in this room")?;
    match body.signer {
        SignerRef::Root => Ok(author.keys.root_sign.clone()),
        SignerRef::Words => {
            let key = author.keys.words_sign.clone();
            key.ok_or(Refusal::Rule("its author has no words"))
        }
        SignerRef::Device(id) => {
            let device = state.devices.get(&id);
            let view = state.graph.view(&body.parents)?;
            let device = device.filter(|d| state.is_certified(d, &view));
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
        SignerRef::Words => {
            let key = author.keys.words_sign.as_ref();
            key.is_some_and(|key| opened.is_signed_by(key))
        }
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

/// Whether a record of this id is among those that the case was made on top of.
fn follows(state: &ControlState, case: &Case<'_>, id: &Hash32) -> bool {
    let number = state.graph.number(id);
    number.is_some_and(|n| case.view.has(n))
}

/// Rule 9.
fn epoch(
    state: &mut ControlState,
    case: &Case<'_>,
    record: &EpochRecord,
) -> Result<Effect, Refusal> {
    let core = &record.core;
    let world = state.world_of(&case.view)?;
    require(
        core.members.contains(&(state.owner, Role::Owner)),
        "an epoch without the owner",
    )?;
    let members = world.members.iter().map(|(id, member)| (*id, member.role));
    require(
        members.eq(core.members.iter().copied()),
        "the members that it lists are not those of the room at that point",
    )?;
    require(
        world.devices.keys().eq(&core.devices),
        "the devices that it lists are not those of the room at that point",
    )?;
    epoch_parents(state, case, record)?;
    let expected = expected_recipients(state, record);
    require(
        expected.iter().eq(&core.recipients),
        "an epoch is wrapped to others than its members and their devices",
    )?;
    require(
        hash(&case.opened.attachment) == record.envelopes,
        "its envelopes are not those that were signed",
    )?;
    let envelopes = decode_envelopes(&case.opened.attachment)?;
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
        devices: core.devices.clone(),
        core: hash(&core.to_bytes()),
        author: case.body.author,
        signer: case.body.signer,
        envelopes: core.recipients.iter().copied().zip(envelopes).collect(),
    };
    state.epochs.insert(EpochId(case.opened.hash.0), info);
    Ok(Effect::Other)
}

fn epoch_parents(
    state: &ControlState,
    case: &Case<'_>,
    record: &EpochRecord,
) -> Result<(), Refusal> {
    let core = &record.core;
    let first = core.reason == EpochReason::First;
    require(
        first == core.parents.is_empty(),
        "only a first epoch has no parents",
    )?;
    let mut known = state.epochs.keys();
    require(
        !first || !known.any(|id| follows(state, case, &Hash32(id.0))),
        "it is a second first epoch",
    )?;
    for parent in &core.parents {
        let known = state.epochs.get(parent);
        let known = known.filter(|_| follows(state, case, &Hash32(parent.0)));
        let known = known.ok_or(Refusal::Rule("an epoch's parent is not known to it"))?;
        require(
            core.suite >= known.suite,
            "an epoch goes back to a weaker suite",
        )?;
    }
    Ok(())
}

/// The devices that it lists, and root and words of every member: there is no other escrow.
fn expected_recipients(state: &ControlState, record: &EpochRecord) -> BTreeSet<Recipient> {
    let core = &record.core;
    let devices = core.devices.iter().copied().map(Recipient::Device);
    let members = core.members.iter().flat_map(|(member, _)| {
        let person = state.persons.get(member);
        let has_words = person.is_some_and(|person| person.keys.words_kem.is_some());
        let words = has_words.then_some(Recipient::Words(*member));
        std::iter::once(Recipient::Root(*member)).chain(words)
    });
    devices.chain(members).collect()
}

fn known_epoch<'a>(
    state: &'a ControlState,
    case: &Case<'_>,
    id: &EpochId,
    otherwise: &'static str,
) -> Result<&'a EpochInfo, Refusal> {
    let epoch = state.epochs.get(id);
    let epoch = epoch.filter(|_| follows(state, case, &Hash32(id.0)));
    epoch.ok_or(Refusal::Rule(otherwise))
}

/// Rule 10.
fn grant(state: &mut ControlState, case: &Case<'_>, record: &Grant) -> Result<(), Refusal> {
    let what = "it grants an epoch that is not known to it";
    let epoch = known_epoch(state, case, &record.epoch, what)?;
    let Recipient::Device(id) = record.recipient else {
        return Err(Refusal::Rule(
            "it grants an epoch to something else than a device",
        ));
    };
    let device = state.devices.get(&id);
    let device = device.filter(|_| state.graph.is_living(&case.view, &id));
    require(
        device.is_some_and(|d| d.person == case.body.author),
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
        author: case.body.author,
        signer: case.body.signer,
    });
    Ok(())
}

/// Rule 12.
fn back_link(state: &mut ControlState, case: &Case<'_>, record: &BackLink) -> Result<(), Refusal> {
    let what = "it gives an epoch that is not known to it";
    let earlier = known_epoch(state, case, &record.earlier, what)?;
    let what = "it names an epoch that is not known to it";
    let epoch = known_epoch(state, case, &record.epoch, what)?;
    let Recipient::Root(id) = record.recipient else {
        return Err(Refusal::Rule(
            "it gives an epoch to something else than the root of a member",
        ));
    };
    require(
        epoch.members.iter().any(|(member, _)| *member == id),
        "it gives an epoch to somebody whom the later one does not list",
    )?;
    state.graph.charge_for(&id, None)?;
    let standing = state.graph.standing(&case.view, &id);
    let standing = standing.ok_or(Refusal::Rule(
        "it gives an epoch to somebody who was no member at that point",
    ))?;
    let add = standing.add.and_then(|n| state.graph.record(n));
    let from_now = add.is_some_and(
        |add| matches!(&add.effect, Effect::Add { history, .. } if *history == History::FromNow),
    );
    require(
        !from_now,
        "it gives an epoch to somebody who was let in without the history",
    )?;
    require(
        record.envelope.as_bytes().first() == Some(&earlier.suite.number()),
        "its envelope is of another suite than the epoch",
    )?;
    state.back_links.push(BackLinkInfo {
        epoch: record.epoch,
        earlier: record.earlier,
        recipient: record.recipient,
        envelope: record.envelope.clone(),
        author: case.body.author,
        signer: case.body.signer,
    });
    Ok(())
}

/// Rule 11.
fn slot_change(
    state: &mut ControlState,
    case: &Case<'_>,
    entry: &SlotEntry,
    add: bool,
) -> Result<Effect, Refusal> {
    let list = match add {
        true => &mut state.slot_adds,
        false => &mut state.slot_removes,
    };
    list.push((*entry, case.body.author, case.opened.hash));
    Ok(Effect::Other)
}
