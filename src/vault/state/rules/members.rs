//! The rules of records about persons and devices.

use super::{Case, Refusal, follows, person, require};
use crate::device::device_id;
use crate::record::{DeviceAdd, DeviceRevoke, MemberAdd, MemberRemove, MemberRole, Role};
use crate::state::graph::{Effect, Standing};
use crate::state::{ControlState, DeviceInfo, Person};
use skrin_base::ids::{Hash32, PersonId};
use skrin_base::limits::DEVICES_OF_PERSON_MAX;

/// Rule 6.
pub(super) fn device_add(
    state: &mut ControlState,
    case: &Case<'_>,
    record: &DeviceAdd,
) -> Result<Effect, Refusal> {
    require(
        case.body.author == record.person,
        "a device is added by somebody who may not: only root or words of its person may",
    )?;
    let owner = person(state, &record.person, "the device's person is not known")?;
    let suite = owner.keys.root_kem.suite();
    require(
        record.kem.suite() >= suite,
        "its key is of a weaker suite than its person's",
    )?;
    require(
        record.kem.suite() == suite,
        "its key is of another suite than its person's",
    )?;
    key_log(state, case, &record.person, &record.previous)?;
    require(
        record.device == device_id(case.body.vault, record.person, &record.sign, &record.kem),
        "its device id is not the one that follows from its keys and its person",
    )?;
    let known = state.devices.get(&record.device);
    require(
        !known.is_some_and(|d| state.is_certified(d, &case.view)),
        "it adds a device a second time",
    )?;
    let living = state.graph.devices_of(&case.view, &record.person);
    require(
        living.len() < DEVICES_OF_PERSON_MAX,
        "its person has 256 devices, as many as he may: revoke some with `skrin device revoke`",
    )?;
    let hash = case.opened.hash;
    // Added at the same time by two who did not see each other: the keys are the same, as the id is.
    let info = state.devices.entry(record.device);
    let info = info.or_insert_with(|| DeviceInfo {
        person: record.person,
        sign: record.sign.clone(),
        kem: record.kem.clone(),
        label: record.label.clone(),
        time: case.body.time,
        records: Vec::new(),
    });
    info.records.push(hash);
    // Of several the first by name, whichever came first to us.
    if info.records.iter().all(|other| *other >= hash) {
        info.label = record.label.clone();
        info.time = case.body.time;
    }
    log(state, &record.person, hash);
    Ok(Effect::Device {
        person: record.person,
        device: record.device,
    })
}

/// Rule 7.
pub(super) fn device_revoke(
    state: &mut ControlState,
    case: &Case<'_>,
    record: &DeviceRevoke,
) -> Result<Effect, Refusal> {
    require(
        case.body.author == record.person,
        "a device is revoked by somebody who may not: only root or words of its person may",
    )?;
    let device = state.devices.get(&record.device);
    let device = device.filter(|_| state.graph.is_living(&case.view, &record.device));
    require(
        device.is_some_and(|device| device.person == record.person),
        "it revokes a device that its person did not have at that point",
    )?;
    key_log(state, case, &record.person, &record.previous)?;
    log(state, &record.person, case.opened.hash);
    Ok(Effect::Revoke {
        person: record.person,
        device: record.device,
        cut: record.cut.clone(),
    })
}

fn key_log(
    state: &ControlState,
    case: &Case<'_>,
    of: &PersonId,
    previous: &Hash32,
) -> Result<(), Refusal> {
    let owner = person(state, of, "its person is not known")?;
    require(
        owner.key_log.contains(previous) && follows(state, case, previous),
        "it does not follow the key log of its person",
    )
}

fn log(state: &mut ControlState, of: &PersonId, record: Hash32) {
    if let Some(person) = state.persons.get_mut(of) {
        person.key_log.push(record);
    }
}

/// Rule 8: MemberAdd.
pub(super) fn member_add(
    state: &mut ControlState,
    case: &Case<'_>,
    record: &MemberAdd,
) -> Result<Effect, Refusal> {
    not_owner(state, &record.person)?;
    may_be_given(record.role)?;
    require(
        record.person == record.keys.person(case.body.vault),
        "its person id is not the one that follows from the keys",
    )?;
    let suite = person(state, &state.owner, "the owner is not known")?
        .keys
        .root_kem
        .suite();
    let words = record.keys.words_kem.as_ref();
    require(
        record.keys.root_kem.suite() == suite && words.is_none_or(|kem| kem.suite() == suite),
        "a key of its person is of another suite than the owner's",
    )?;
    state.graph.charge_for(&record.person, None)?;
    require(
        state.graph.standing(&case.view, &record.person).is_none(),
        "it adds somebody who was a member at that point",
    )?;
    let hash = case.opened.hash;
    let known = state.persons.entry(record.person);
    let known = known.or_insert_with(|| Person {
        name: record.name.clone(),
        keys: record.keys.clone(),
        key_log: Vec::new(),
    });
    known.key_log.push(hash);
    Ok(Effect::Add {
        person: record.person,
        role: record.role,
        history: record.history,
        until: record.until,
        invited: record.invitation.is_some(),
    })
}

/// Rule 8: MemberRemove.
pub(super) fn member_remove(
    state: &ControlState,
    case: &Case<'_>,
    record: &MemberRemove,
) -> Result<Effect, Refusal> {
    not_owner(state, &record.person)?;
    let target = member(state, case, &record.person)?;
    below(case, &record.person, &target)?;
    Ok(Effect::Remove {
        person: record.person,
        cut: record.cut.clone(),
    })
}

/// Rule 8: MemberRole.
pub(super) fn member_role(
    state: &ControlState,
    case: &Case<'_>,
    record: &MemberRole,
) -> Result<Effect, Refusal> {
    not_owner(state, &record.person)?;
    may_be_given(record.role)?;
    let target = member(state, case, &record.person)?;
    require(
        target.role != Role::Recovery && record.role != Role::Recovery,
        "it makes a member of a recovery key, or a recovery key of a member",
    )?;
    below(case, &record.person, &target)?;
    require(
        record.person != case.body.author || record.role > Role::Manager,
        "it gives its author what he has",
    )?;
    require(
        record.cut.is_empty() || record.role > Role::Editor,
        "it cuts lanes of somebody who may write",
    )?;
    Ok(Effect::Role {
        person: record.person,
        role: record.role,
        cut: record.cut.clone(),
    })
}

fn member(state: &ControlState, case: &Case<'_>, person: &PersonId) -> Result<Standing, Refusal> {
    state.graph.charge_for(person, None)?;
    let standing = state.graph.standing(&case.view, person);
    standing.ok_or(Refusal::Rule(
        "it is about somebody who was no member at that point",
    ))
}

/// A manager ends or changes another only if that one is farther from the owner.
fn below(case: &Case<'_>, person: &PersonId, target: &Standing) -> Result<(), Refusal> {
    let own = *person == case.body.author;
    require(
        own || target.role > Role::Manager || target.depth > case.depth,
        "it ends or changes a manager who is as near to the owner as its author",
    )
}

fn not_owner(state: &ControlState, person: &PersonId) -> Result<(), Refusal> {
    require(
        *person != state.owner,
        "it adds, removes or changes the owner, which nobody may",
    )
}

fn may_be_given(role: Role) -> Result<(), Refusal> {
    require(
        role != Role::Owner,
        "it makes somebody an owner: there is one",
    )
}
