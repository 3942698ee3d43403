//! Changing the passphrase.

use crate::publish::{Place, announce};
use crate::record::{Record, SlotEntry};
use crate::room::Room;
use crate::slot::{Slot, SlotKind, SlotSecret, make_slot};
use crate::unlock::{Secret, slot_object, unlock};
use crate::{Argon2Params, Unlocked, VaultError, objects};
use skrin_base::clock::random;
use skrin_base::limits::CONTROL_MAX;
use skrin_crypto::hash;
use skrin_crypto::passphrase::check_new_passphrase;
use zeroize::Zeroizing;

impl Unlocked {
    /// Gives this person a new passphrase: a new slot, listed, and after that the old passphrase slots taken off the list and
    /// deleted. Whoever has a copy of an old slot still opens it with the old passphrase: the root is the same.
    ///
    /// # Errors
    /// `Kdf` for a weak passphrase or parameters, `UnlistedSlot`, `NotAllowed` for a recovery key, `Storage`, and those of `load_room`. After an error the
    /// old passphrase opens the vault, the new one, or both; it may be repeated.
    pub async fn change_passphrase(
        &self,
        place: &Place<'_>,
        passphrase: &Zeroizing<String>,
        argon2: Argon2Params,
    ) -> Result<Room, VaultError> {
        argon2.check()?;
        check_new_passphrase(passphrase)?;
        let mut room = self.load_room(place.store).await?;
        self.require_listed_slot(&room.state)?;
        if self.is_recovery(&room) {
            return Err(VaultError::not_allowed(
                "a recovery key has its words and no passphrase",
            ));
        }
        let old = self.passphrase_slots(place, &room).await?;
        let new = match self.unlisted(place, passphrase).await {
            Some(new) => new,
            None => self.put_slot(place, passphrase, argon2).await?,
        };
        let officer = self.officer();
        if !room.state.lists_slot(self.person(), new) {
            let record = Record::SlotAdd(new);
            officer.publish(place, &mut room, record).await?;
        }
        for slot in old.iter().filter(|slot| **slot != new) {
            let record = Record::SlotRemove(*slot);
            officer.publish(place, &mut room, record).await?;
        }
        announce(place.store, &room).await?;
        room.state = self.load_room(place.store).await?.state;
        for slot in room.state.removed_slots_of(self.person()) {
            self.delete_slot(place, &slot).await?;
        }
        Ok(room)
    }

    /// A slot of the new passphrase that an earlier attempt put and did not come to list.
    async fn unlisted(
        &self,
        place: &Place<'_>,
        passphrase: &Zeroizing<String>,
    ) -> Option<SlotEntry> {
        let secret = Secret::Passphrase(passphrase.clone());
        let opened = unlock(place.store, &secret).await.ok()?;
        (opened.person() == self.person()).then(|| opened.slot())
    }

    async fn put_slot(
        &self,
        place: &Place<'_>,
        passphrase: &Zeroizing<String>,
        argon2: Argon2Params,
    ) -> Result<SlotEntry, VaultError> {
        let secret = SlotSecret::Passphrase(passphrase, argon2);
        let object = make_slot(&secret, &self.payload(), place.entropy)?;
        let new = SlotEntry {
            name: random(place.entropy),
            hash: hash(&object),
        };
        objects::put(place.store, slot_object(&new), object).await?;
        Ok(new)
    }

    /// Deletes a slot that was taken off the list, be it by an attempt that went no further.
    async fn delete_slot(&self, place: &Place<'_>, slot: &SlotEntry) -> Result<(), VaultError> {
        let name = objects::object(slot_object(slot))?;
        let is_that = |bytes: &[u8]| hash(bytes) == slot.hash;
        match place.store.get(&name, CONTROL_MAX).await {
            Ok(bytes) if is_that(&bytes) => match place.store.delete(&name).await {
                Err(error) if !error.is_absent() => Err(error.into()),
                _ => Ok(()),
            },
            // Somebody else's by now, or gone.
            Ok(_) => Ok(()),
            Err(error) if error.is_absent() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The listed passphrase slots of this person. One that is gone or was changed may have been one.
    async fn passphrase_slots(
        &self,
        place: &Place<'_>,
        room: &Room,
    ) -> Result<Vec<SlotEntry>, VaultError> {
        let mut out = Vec::new();
        for slot in room.state.slots_of(self.person()) {
            let object = slot_object(&slot);
            let name = objects::object(object.clone())?;
            let keep = match place.store.get(&name, CONTROL_MAX).await {
                Ok(bytes) if hash(&bytes) == slot.hash => {
                    let parsed = Slot::parse(&object, &bytes)?;
                    !parsed.is_some_and(|slot| matches!(slot.kind, SlotKind::Passphrase(_)))
                }
                // What kind it was cannot be seen; a lost words slot can be put again from a copy.
                Ok(_) => true,
                Err(error) if error.is_absent() => true,
                Err(error) => return Err(error.into()),
            };
            if !keep {
                out.push(slot);
            }
        }
        Ok(out)
    }
}
