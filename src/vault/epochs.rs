//! New epochs for the members of a room, and earlier ones for those who come later.

use crate::VaultError;
use crate::epoch::{Binding, Purpose, encode_envelopes};
use crate::publish::{Author, Place, publish};
use crate::record::{BackLink, EpochCore, EpochReason, EpochRecord, Recipient, Record};
use crate::room::Room;
use crate::state::{ControlState, World};
use skrin_base::Entropy;
use skrin_base::ids::{EpochId, PersonId};
use skrin_base::limits::{CONTROL_PARENTS_MAX, EPOCH_RECIPIENTS_MAX};
use skrin_crypto::{EpochKey, KemPublic, Suite, hash, keys};

/// An epoch that was made and is not published yet.
pub(crate) struct NextEpoch {
    record: EpochRecord,
    attachment: Vec<u8>,
    key: EpochKey,
}

/// Makes the epoch that has to follow on top of what `state` has in force: a fresh key for the members of that world and
/// for nobody else.
fn next_epoch(
    state: &ControlState,
    author: &Author<'_>,
    entropy: &dyn Entropy,
) -> Result<NextEpoch, VaultError> {
    let world = state.world(&state.heads())?;
    let recipients = recipients(state, &world)?;
    if recipients.len() > EPOCH_RECIPIENTS_MAX {
        return Err(VaultError::TooMany {
            what: "devices, roots and words of the members",
            found: recipients.len(),
            limit: EPOCH_RECIPIENTS_MAX,
        });
    }
    let mut parents = state.epoch_heads();
    let reason = reason(state, &world, &parents);
    parents.truncate(CONTROL_PARENTS_MAX);
    let key = keys::make_epoch_key(entropy);
    let owner = state.persons.get(&state.owner);
    let core = EpochCore {
        reason,
        parents,
        suite: owner.map_or(Suite::XWing, |owner| owner.keys.root_kem.suite()),
        commitment: keys::derive_epoch_commitment(&key, author.vault, state.room),
        members: world
            .members
            .iter()
            .map(|(id, member)| (*id, member.role))
            .collect(),
        devices: world.devices.keys().copied().collect(),
        recipients: recipients.iter().map(|(recipient, _)| *recipient).collect(),
    };
    let purpose = Purpose::of_core(&core);
    let binding = binding(state, author);
    let wrap = |(recipient, public): &(Recipient, &KemPublic)| {
        binding.wrap(purpose, *recipient, public, &key, entropy)
    };
    let envelopes = recipients.iter().map(wrap).collect::<Result<Vec<_>, _>>()?;
    let attachment = encode_envelopes(&envelopes);
    let envelopes = hash(&attachment);
    Ok(NextEpoch {
        record: EpochRecord { core, envelopes },
        attachment,
        key,
    })
}

fn binding(state: &ControlState, author: &Author<'_>) -> Binding {
    Binding {
        vault: author.vault,
        room: state.room,
        author: author.person,
        signer: author.signer.reference(),
    }
}

/// The living devices, and root and words of each member, in ascending order.
fn recipients<'a>(
    state: &'a ControlState,
    world: &World,
) -> Result<Vec<(Recipient, &'a KemPublic)>, VaultError> {
    let absent = |what: &str| VaultError::integrity("control records", what);
    let mut out = Vec::new();
    for device in world.devices.keys() {
        let info = state.devices.get(device);
        let info = info.ok_or_else(|| absent("a device has no keys"))?;
        out.push((Recipient::Device(*device), &info.kem));
    }
    for id in world.members.keys() {
        let person = state.persons.get(id);
        let person = person.ok_or_else(|| absent("a member has no keys"))?;
        out.push((Recipient::Root(*id), &person.keys.root_kem));
        let words = person.keys.words_kem.as_ref();
        out.extend(words.map(|kem| (Recipient::Words(*id), kem)));
    }
    out.sort_by_key(|(recipient, _)| *recipient);
    Ok(out)
}

fn reason(state: &ControlState, world: &World, heads: &[EpochId]) -> EpochReason {
    let [current] = heads else {
        return match heads {
            [] => EpochReason::First,
            _ => EpochReason::Merge,
        };
    };
    let Some(epoch) = state.epochs.get(current) else {
        return EpochReason::Rekey;
    };
    if !state.is_clean(current) {
        return EpochReason::Removal;
    }
    match epoch.members.len() == world.members.len() {
        true => EpochReason::Rekey,
        false => EpochReason::Addition,
    }
}

/// Makes and publishes an epoch, which then is the current one of `room`.
pub(crate) async fn publish_epoch(
    place: &Place<'_>,
    room: &mut Room,
    author: &Author<'_>,
) -> Result<EpochId, VaultError> {
    let next = next_epoch(&room.state, author, place.entropy)?;
    let commitment = next.record.core.commitment;
    let record = Record::Epoch(Box::new(next.record));
    let id = EpochId(
        publish(place, room, author, record, &next.attachment)
            .await?
            .0,
    );
    room.keys.add_epoch(id, next.key, commitment)?;
    room.keys.set_current(id);
    room.keys.set_clean(room.state.clean_epochs());
    Ok(id)
}

/// Gives a member who may read the history all epochs that he is not listed in and was not given yet, as far as `room`
/// can open them.
pub(crate) async fn publish_back_links(
    place: &Place<'_>,
    room: &mut Room,
    author: &Author<'_>,
    person: PersonId,
) -> Result<(), VaultError> {
    let recipient = Recipient::Root(person);
    let listed = |room: &Room, id: &EpochId| {
        let epoch = room.state.epochs.get(id);
        epoch.is_some_and(|epoch| epoch.envelopes.iter().any(|(r, _)| *r == recipient))
    };
    let epoch = room.keys.current().0;
    let all: Vec<EpochId> = room.keys.epochs().collect();
    for earlier in all {
        let mut links = room.state.back_links.iter();
        let given = links.any(|link| link.earlier == earlier && link.recipient == recipient);
        if given || listed(room, &earlier) {
            continue;
        }
        let keys = room.state.persons.get(&person).map(|person| &person.keys);
        let (Some(keys), Some(key)) = (keys, room.keys.epoch_key(&earlier)) else {
            continue;
        };
        let purpose = Purpose::Link { epoch, earlier };
        let binding = binding(&room.state, author);
        let envelope = binding.wrap(purpose, recipient, &keys.root_kem, key, place.entropy)?;
        let link = BackLink {
            epoch,
            earlier,
            recipient,
            envelope,
        };
        publish(place, room, author, Record::BackLink(Box::new(link)), &[]).await?;
    }
    Ok(())
}
