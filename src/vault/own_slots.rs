//! Slots whose names follow from whose they are: whoever is interrupted finds again what he has put.

use crate::publish::Place;
use crate::record::SlotEntry;
use crate::slot::{Payload, Slot, SlotName, SlotSecret, make_slot};
use crate::unlock::slot_object_name;
use crate::{VaultError, objects};
use skrin_base::ids::{PersonId, VaultId};
use skrin_base::limits::CONTROL_MAX;
use skrin_base::wire::{Encode, Writer};
use skrin_crypto::hash;

/// The name of somebody's slot of a kind: nobody but members knows his id, so that nobody else sees whose slot it is.
pub(crate) fn own_slot_name(vault: VaultId, person: PersonId, kind: &str) -> SlotName {
    let mut w = Writer::default();
    w.bytes(b"skrin/v1/join-slot");
    vault.encode(&mut w);
    person.encode(&mut w);
    w.bytes(kind.as_bytes());
    let hash = hash(&w.into_bytes());
    std::array::from_fn(|at| hash.0[at])
}

/// Puts a slot, unless an earlier attempt has put one under this name that the secret opens.
///
/// # Errors
/// `Kdf`, `Storage`.
pub(crate) async fn put_own_slot(
    place: &Place<'_>,
    name: SlotName,
    secret: &SlotSecret<'_>,
    payload: &Payload,
) -> Result<SlotEntry, VaultError> {
    let object = slot_object_name(&name);
    let at = objects::object(object.clone())?;
    let there = match place.store.get(&at, CONTROL_MAX).await {
        Ok(bytes) => Some(bytes),
        Err(error) if error.is_absent() => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(bytes) = there {
        if opens(&object, &bytes, secret) {
            let hash = hash(&bytes);
            return Ok(SlotEntry { name, hash });
        }
        place.store.delete(&at).await?;
    }
    let bytes = make_slot(secret, payload, place.entropy)?;
    let hash = hash(&bytes);
    objects::put(place.store, object, bytes).await?;
    Ok(SlotEntry { name, hash })
}

fn opens(object: &str, bytes: &[u8], secret: &SlotSecret<'_>) -> bool {
    let slot = Slot::parse(object, bytes).ok().flatten();
    let opened = slot.map(|slot| match secret {
        SlotSecret::Words(words) => slot.open_words(object, words),
        SlotSecret::Passphrase(text, _) => slot.open_passphrase(object, text),
    });
    matches!(opened, Some(Ok(Some(_))))
}
