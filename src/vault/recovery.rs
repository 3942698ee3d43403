//! Recovery keys: twelve words that lie on paper and belong to nobody, for the day on which nobody has his own any more
//! (docs/format/vault.md, section 9; docs/adr/0024).

use crate::officer::{NewMember, Officer, OwnKey};
use crate::own_slots::{own_slot_name, put_own_slot};
use crate::publish::{Place, announce};
use crate::record::{History, MemberKeys, PersonKeys, Record, RecoveryPurpose, Role};
use crate::room::{Room, RoomReader};
use crate::slot::SlotSecret;
use crate::{Unlocked, VaultError};
use skrin_base::ids::PersonId;
use skrin_base::{Entropy, Timestamp};
use skrin_crypto::shares::{SharesError, divide};
use skrin_crypto::words::words_of;
use skrin_crypto::{RootSeed, RootSigner, WordsEntropy, keys};
use zeroize::Zeroizing;

/// A key that was made and is not in the vault yet. Bring its words, or its shares, to safety first; nothing else holds them.
pub struct RecoveryKey {
    root: RootSeed,
    words: WordsEntropy,
    keys: MemberKeys,
    person: PersonId,
}

/// What a drill has shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drilled {
    /// Whose key it is.
    pub person: PersonId,
    /// Epochs of the room.
    pub epochs: usize,
    /// Those of them that the key opens.
    pub opened: usize,
    /// When something was last decided about people and keys, as the author's clock had it.
    pub newest: Timestamp,
}

impl RecoveryKey {
    /// The id under which it is a member.
    pub fn person(&self) -> PersonId {
        self.person
    }

    /// All of it, as twelve words.
    pub fn words(&self) -> Zeroizing<String> {
        words_of(&self.words)
    }

    /// The same among `count` people, any `needed` of whom have it together.
    ///
    /// # Errors
    /// `Division`.
    pub fn shares(
        &self,
        division: (u8, u8),
        entropy: &dyn Entropy,
    ) -> Result<Vec<Zeroizing<String>>, SharesError> {
        divide(&self.words, division, entropy)
    }
}

impl Unlocked {
    /// Draws a recovery key for this vault. Nothing is put anywhere.
    ///
    /// # Errors
    /// `Integrity` if the records know no owner.
    pub fn make_recovery_key(
        &self,
        room: &Room,
        entropy: &dyn Entropy,
    ) -> Result<RecoveryKey, VaultError> {
        let vault = self.vault();
        let owner = room.state.persons.get(&room.state.owner);
        let owner = owner.ok_or_else(|| VaultError::integrity("genesis", "it has no owner"))?;
        let suite = owner.keys.root_kem.suite();
        let (root, words) = (
            keys::make_root_seed(entropy),
            keys::make_words_entropy(entropy),
        );
        let keys = MemberKeys::from(PersonKeys::of(&root, &words, vault, suite));
        let person = keys.person(vault);
        Ok(RecoveryKey {
            root,
            words,
            keys,
            person,
        })
    }

    /// Lets a recovery key read everything in the vault, from the beginning on; `name` is what all members see. May be repeated
    /// with the same key after an error; a key that was given up so far stays a member who can be removed, and opens nothing.
    ///
    /// # Errors
    /// `NotAllowed` for who is no manager, `UnlistedSlot`, `Label`, `TooMany`, `Storage`, and those of `load_room`.
    pub async fn enable_recovery(
        &self,
        place: &Place<'_>,
        key: &RecoveryKey,
        name: &str,
    ) -> Result<Room, VaultError> {
        let officer = self.officer();
        let mut room = self.load_room(place.store).await?;
        self.require_listed_slot(&room.state)?;
        let member = NewMember {
            keys: key.keys.clone(),
            name: name.to_owned(),
            role: Role::Recovery,
            history: History::All,
            until: None,
            invitation: None,
        };
        officer.let_in(place, &mut room, &member).await?;
        announce(place.store, &room).await?;
        let mut payload = self.payload();
        payload.person = key.person;
        payload.root_seed = RootSeed::from_bytes(*key.root.expose());
        let secret = SlotSecret::Words(&key.words);
        let name = own_slot_name(self.vault(), key.person, "words");
        let entry = put_own_slot(place, name, &secret, &payload).await?;
        let own = Officer {
            reader: RoomReader::for_root(*self.anchor(), &payload),
            person: key.person,
            vault_secret: self.copy_vault_secret(),
            key: OwnKey::Root(RootSigner::derive(&key.root, self.vault())),
        };
        if !room.state.lists_slot(key.person, entry) {
            let record = Record::SlotAdd(entry);
            own.publish(place, &mut room, record).await?;
        }
        announce(place.store, &room).await?;
        Ok(room)
    }

    /// Whether it is a recovery key that opened the vault: it only reads, and has no devices.
    pub fn is_recovery(&self, room: &Room) -> bool {
        room.state.now().role(&self.person()) == Some(Role::Recovery)
    }

    /// Says, signed and for all members to see, that this recovery key is used. Who has the key and another program can read
    /// without saying it: what is on the storage cannot see who opens it.
    ///
    /// # Errors
    /// `NotAllowed` for what is no recovery key, `Storage`.
    pub async fn tell_recovery(
        &self,
        place: &Place<'_>,
        room: &mut Room,
        purpose: RecoveryPurpose,
    ) -> Result<(), VaultError> {
        if !self.is_recovery(room) {
            return Err(VaultError::not_allowed(
                "these are no words of a recovery key of this vault",
            ));
        }
        let record = Record::RecoveryUse(purpose);
        self.officer().publish(place, room, record).await?;
        announce(place.store, room).await
    }

    /// Shows that this recovery key opens every epoch, and with that every file there ever was, without reading any; and says so
    /// as `tell_recovery` does.
    ///
    /// # Errors
    /// As `tell_recovery`, `UnlistedSlot`, and those of `load_room`.
    pub async fn drill_recovery(&self, place: &Place<'_>) -> Result<Drilled, VaultError> {
        let mut room = self.load_room(place.store).await?;
        if self.is_recovery(&room) {
            self.require_listed_slot(&room.state)?;
        }
        let newest = room.state.newest.time;
        self.tell_recovery(place, &mut room, RecoveryPurpose::Drill)
            .await?;
        let all = room.state.epochs.keys();
        let opened = all.filter(|id| room.keys.commitment(id).is_some());
        Ok(Drilled {
            person: self.person(),
            epochs: room.state.epochs.len(),
            opened: opened.count(),
            newest,
        })
    }
}
