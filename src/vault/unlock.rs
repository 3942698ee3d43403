//! From a secret to the keys.

use crate::control::Signer;
use crate::header::{HEADER_NAME, Header, open_header};
use crate::inspect::is_record;
use crate::publish::{Author, Place, publish};
use crate::record::{Record, SlotEntry};
use crate::room::{Room, RoomReader};
use crate::slot::{Payload, Slot, SlotKind};
use crate::state::ControlState;
use crate::{VaultError, objects};
use bytes::Bytes;
use skrin_base::ids::{Hash32, PersonId, RoomId, VaultId};
use skrin_base::limits::{CONTROL_MAX, FORMAT_VERSION, SLOTS_MAX};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Clock, Entropy};
use skrin_crypto::passphrase::Argon2Params;
use skrin_crypto::words::parse_words;
use skrin_crypto::{KemSecret, RootSeed, RootSigner, Suite, VaultSecret, WordsEntropy, hash, keys};
use skrin_storage::{ObjectName, Store};
use zeroize::Zeroizing;

/// Passphrase slots of a team that are tried: each member has one, and the storage does not know whose is which.
pub(crate) const PASSPHRASE_SLOTS_TRIED: usize = 64;
/// So many are tried whatever they cost; the others only while all together cost no more than as many usual ones as are tried.
const COSTLY_SLOTS_TRIED: usize = 16;

/// What a person types, or a file holds.
pub enum Secret {
    /// Opens a passphrase slot; trying one takes a second or so.
    Passphrase(Zeroizing<String>),
    /// Opens a words slot.
    Words(Zeroizing<String>),
}

/// All that a device trusts on first sight, and must find unchanged later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Anchor {
    /// The vault.
    pub vault: VaultId,
    /// The hash of `skrin.vault`.
    pub header: Hash32,
    /// The room that is the vault's root.
    pub room: RoomId,
    /// The id of its genesis.
    pub genesis: Hash32,
    /// BLAKE3 of the owner's public root keys.
    pub fingerprint: Hash32,
}

impl Encode for Anchor {
    fn encode(&self, w: &mut Writer) {
        self.vault.encode(w);
        self.header.encode(w);
        self.room.encode(w);
        self.genesis.encode(w);
        self.fingerprint.encode(w);
    }
}

impl Decode for Anchor {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            vault: VaultId::decode(r)?,
            header: Hash32::decode(r)?,
            room: RoomId::decode(r)?,
            genesis: Hash32::decode(r)?,
            fingerprint: Hash32::decode(r)?,
        })
    }
}

/// A vault whose secrets are in memory. Drop it as soon as the room and the device file are open:
/// it holds the root.
pub struct Unlocked {
    anchor: Anchor,
    header: Header,
    person: PersonId,
    vault_secret: VaultSecret,
    root: RootSeed,
    slot: SlotEntry,
    damaged: Vec<String>,
}

/// A slot that the records list and the storage does not hold as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotProblem {
    /// The object.
    pub object: String,
    /// Whether it is missing; else it was changed.
    pub missing: bool,
}

/// Opens a vault with a secret.
///
/// # Errors
/// `NotAVault`, `WrongSecret`, `NoSlot`, `Words`, `Kdf`, `NewerVersion`, `NewerFeature`, `Integrity`, `Storage`.
pub async fn unlock(store: &dyn Store, secret: &Secret) -> Result<Unlocked, VaultError> {
    unlock_with_hint(store, secret, None).await
}

/// The same for who remembers the name of a slot (`Unlocked::slot`) that the secret has opened before: that one is tried first, as
/// each passphrase slot that is tried costs a second.
///
/// # Errors
/// As `unlock`.
pub async fn unlock_with_hint(
    store: &dyn Store,
    secret: &Secret,
    hint: Option<&[u8; 16]>,
) -> Result<Unlocked, VaultError> {
    let words = match secret {
        Secret::Words(text) => Some(parse_words(text)?),
        Secret::Passphrase(_) => None,
    };
    let header = open_header(store).await?;
    let mut search = Search::new(header);
    let listing = objects::list(store, "slots".to_owned()).await?;
    if listing.objects.len() > SLOTS_MAX {
        return Err(VaultError::integrity(
            "slots/",
            format!(
                "it holds {} objects, at most {SLOTS_MAX} are valid",
                listing.objects.len()
            ),
        ));
    }
    let names: Vec<ObjectName> = listing.objects.into_iter().map(|o| o.name).collect();
    let objects = objects::fetch(store, &names).await?;
    let hint = hint.map(slot_object_name);
    let slots = names.into_iter().zip(objects).collect();
    for (name, bytes) in in_order(slots, hint.as_deref()) {
        let (name, bytes) = (&name, &bytes);
        let opened = match (secret, &words) {
            (Secret::Passphrase(text), _) => search.try_passphrase(name, bytes, text)?,
            (Secret::Words(_), Some(words)) => search.try_words(name, bytes, words)?,
            (Secret::Words(_), None) => None,
        };
        if let Some(payload) = opened {
            return search.finish(name, bytes, payload);
        }
    }
    Err(search.failed(secret))
}

/// The one that is remembered, then the cheapest parameters, else by name: who can write to the storage can plant slots, and must not
/// make the good ones wait for his costly ones.
fn in_order(mut slots: Vec<(ObjectName, Bytes)>, hint: Option<&str>) -> Vec<(ObjectName, Bytes)> {
    let key = |(name, bytes): &(ObjectName, Bytes)| {
        let slot = Slot::parse(name.as_str(), bytes).ok().flatten();
        let cost = slot.map_or(0, |slot| cost(&slot.kind));
        (hint != Some(name.as_str()), cost, name.to_string())
    };
    slots.sort_by_cached_key(key);
    slots
}

/// What it takes to try a slot, in KiB that are filled.
fn cost(kind: &SlotKind) -> u64 {
    match kind {
        SlotKind::Passphrase(params) => u64::from(params.memory_kib) * u64::from(params.passes),
        _ => 0,
    }
}

struct Search {
    header: Header,
    tried: usize,
    /// What the tried ones have cost.
    spent: u64,
    untried: usize,
    damaged: Vec<String>,
    newer: Option<VaultError>,
    first_damage: Option<VaultError>,
}

impl Search {
    fn new(header: Header) -> Self {
        Self {
            header,
            tried: 0,
            spent: 0,
            untried: 0,
            damaged: Vec::new(),
            newer: None,
            first_damage: None,
        }
    }

    /// Notes why a slot cannot be used; the others are still tried.
    fn note(&mut self, name: &ObjectName, error: VaultError) {
        tracing::warn!(%error, "a slot cannot be used");
        match error {
            VaultError::NewerVersion { .. } | VaultError::NewerFeature { .. } => {
                self.newer.get_or_insert(error);
            }
            _ => {
                self.damaged.push(name.to_string());
                self.first_damage.get_or_insert(error);
            }
        }
    }

    fn parse(&mut self, name: &ObjectName, bytes: &[u8]) -> Option<Slot> {
        match Slot::parse(name.as_str(), bytes) {
            Ok(Some(slot)) if slot.vault == self.header.vault => Some(slot),
            Ok(Some(_)) => {
                let what =
                    "it names another vault than `skrin.vault` does: one of them was exchanged";
                self.note(name, VaultError::integrity(name, what));
                None
            }
            Ok(None) => None,
            Err(error) => {
                self.note(name, error);
                None
            }
        }
    }

    fn try_words(
        &mut self,
        name: &ObjectName,
        bytes: &[u8],
        words: &WordsEntropy,
    ) -> Result<Option<Payload>, VaultError> {
        let slot = self.parse(name, bytes);
        let Some(slot) = slot.filter(|slot| slot.kind == SlotKind::Words) else {
            return Ok(None);
        };
        self.tried += 1;
        slot.open_words(name.as_str(), words)
    }

    fn try_passphrase(
        &mut self,
        name: &ObjectName,
        bytes: &[u8],
        text: &str,
    ) -> Result<Option<Payload>, VaultError> {
        use skrin_crypto::passphrase::KdfError;
        let slot = self.parse(name, bytes);
        let Some(slot) = slot.filter(|slot| matches!(slot.kind, SlotKind::Passphrase(_))) else {
            return Ok(None);
        };
        let usual = cost(&SlotKind::Passphrase(Argon2Params::DEFAULT));
        let spent = self.spent.saturating_add(cost(&slot.kind));
        let is_costly = spent > usual.saturating_mul(PASSPHRASE_SLOTS_TRIED as u64);
        if self.tried >= PASSPHRASE_SLOTS_TRIED || is_costly && self.tried >= COSTLY_SLOTS_TRIED {
            self.untried += 1;
            return Ok(None);
        }
        match slot.open_passphrase(name.as_str(), text) {
            Err(error @ VaultError::Kdf(KdfError::Weak(_) | KdfError::Costly(_))) => {
                self.note(name, VaultError::integrity(name, error));
                Ok(None)
            }
            other => {
                self.tried += 1;
                self.spent = spent;
                other
            }
        }
    }

    fn finish(
        self,
        name: &ObjectName,
        bytes: &[u8],
        payload: Payload,
    ) -> Result<Unlocked, VaultError> {
        if payload.header != self.header.hash {
            return Err(VaultError::integrity(
                HEADER_NAME,
                format!("it is not the one that {name} names: it was exchanged"),
            ));
        }
        if payload.format_version > FORMAT_VERSION {
            return Err(VaultError::NewerVersion {
                object: name.to_string(),
                found: payload.format_version,
            });
        }
        let slot_name = skrin_base::ids::parse_hex(name.file_name());
        let Some(slot_name) = slot_name else {
            return Err(VaultError::integrity(name, "its name is not one of a slot"));
        };
        Ok(Unlocked {
            anchor: Anchor {
                vault: payload.vault,
                header: payload.header,
                room: payload.room,
                genesis: payload.genesis,
                fingerprint: payload.fingerprint,
            },
            header: self.header,
            person: payload.person,
            vault_secret: payload.vault_secret,
            root: payload.root_seed,
            slot: SlotEntry {
                name: slot_name,
                hash: hash(bytes),
            },
            damaged: self.damaged,
        })
    }

    fn failed(self, secret: &Secret) -> VaultError {
        let (name, phrase) = match secret {
            Secret::Passphrase(_) => ("passphrase", "a passphrase"),
            Secret::Words(_) => ("words", "words"),
        };
        if self.tried > 0 {
            return VaultError::WrongSecret {
                secret: name,
                slots: self.tried,
                untried: self.untried,
                damaged: self.damaged,
            };
        }
        match self.first_damage.or(self.newer) {
            Some(error) => error,
            None => VaultError::NoSlot {
                secret: phrase,
                damaged: self.damaged,
            },
        }
    }
}

impl Unlocked {
    /// What this device must remember and compare next time.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// Compares with what this device remembered from an earlier time.
    ///
    /// # Errors
    /// `Integrity` if it is another vault, or its beginnings were exchanged.
    pub fn check_pin(&self, pin: &Anchor) -> Result<(), VaultError> {
        if self.anchor == *pin {
            return Ok(());
        }
        let what = format!(
            "this is not the vault that this device knows: found vault {} with genesis {}, remembered {} with {}",
            self.anchor.vault, self.anchor.genesis, pin.vault, pin.genesis
        );
        Err(VaultError::integrity(HEADER_NAME, what))
    }

    /// The vault's id.
    pub fn vault(&self) -> VaultId {
        self.anchor.vault
    }

    /// The room that is the vault's root directory.
    pub fn root_room(&self) -> RoomId {
        self.anchor.room
    }

    /// The header, which the slot has confirmed.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whose secret was given.
    pub fn person(&self) -> PersonId {
        self.person
    }

    /// The slot that opened.
    pub fn slot(&self) -> SlotEntry {
        self.slot
    }

    /// Slots that could not be used: tell the person.
    pub fn damaged_slots(&self) -> &[String] {
        &self.damaged
    }

    pub(crate) fn root(&self) -> &RootSeed {
        &self.root
    }

    pub(crate) fn root_signer(&self) -> RootSigner {
        RootSigner::derive(&self.root, self.anchor.vault)
    }

    pub(crate) fn control_key(&self, room: RoomId) -> keys::ControlKey {
        keys::derive_control_key(&self.vault_secret, self.anchor.vault, room)
    }

    /// What a new slot of this person holds.
    pub(crate) fn payload(&self) -> Payload {
        Payload {
            vault: self.anchor.vault,
            header: self.anchor.header,
            format_version: FORMAT_VERSION,
            room: self.anchor.room,
            genesis: self.anchor.genesis,
            fingerprint: self.anchor.fingerprint,
            person: self.person,
            vault_secret: self.copy_vault_secret(),
            root_seed: RootSeed::from_bytes(*self.root.expose()),
        }
    }

    pub(crate) fn copy_vault_secret(&self) -> VaultSecret {
        VaultSecret::from_bytes(*self.vault_secret.expose())
    }

    pub(crate) fn reader(&self) -> RoomReader {
        let vault = self.anchor.vault;
        let root = |suite| KemSecret::derive_root(&self.root, vault, suite);
        RoomReader::new(
            self.anchor,
            self.control_key(self.anchor.room),
            crate::record::Recipient::Root(self.person),
            vec![root(Suite::X25519), root(Suite::XWing)],
        )
    }

    /// Reads the room's control records and opens its epochs with the root.
    ///
    /// # Errors
    /// `Integrity`, `Missing`, `NewerVersion`, `NewerFeature`, `WrongEpochKey`, `NotForUs`, `Storage`.
    pub async fn load_room(&self, store: &dyn Store) -> Result<Room, VaultError> {
        let room = self.reader().load(store).await?;
        let own = room.state.persons.get(&self.person);
        let root = self.root_signer().public();
        if !own.is_some_and(|person| person.keys.root_sign == root) {
            return Err(VaultError::integrity(
                slot_object(&self.slot),
                "its root is not the one that the control records name",
            ));
        }
        Ok(room)
    }

    /// Compares the slots on the storage with those that the records list.
    ///
    /// # Errors
    /// `Storage`, but for slots that are absent.
    pub async fn check_slots(
        &self,
        store: &dyn Store,
        state: &ControlState,
    ) -> Result<Vec<SlotProblem>, VaultError> {
        let mut problems = Vec::new();
        for slot in &state.live_slots {
            let object = slot_object(slot);
            let missing = match store
                .get(&objects::object(object.clone())?, CONTROL_MAX)
                .await
            {
                Ok(bytes) if hash(&bytes) == slot.hash => continue,
                Ok(_) => false,
                Err(error) if error.is_absent() => true,
                Err(error) => return Err(error.into()),
            };
            problems.push(SlotProblem { object, missing });
        }
        Ok(problems)
    }

    /// Whether these are the bytes of a control record of this name in the vault's root room.
    pub fn is_control_record(&self, name: &ObjectName, bytes: &[u8]) -> bool {
        is_record(
            &self.control_key(self.anchor.room),
            &self.anchor,
            name,
            bytes,
        )
    }

    /// Refuses what only a listed slot may do.
    pub(crate) fn require_listed_slot(&self, state: &ControlState) -> Result<(), VaultError> {
        if state.lists_slot(self.person, self.slot) {
            return Ok(());
        }
        Err(VaultError::UnlistedSlot {
            slot: slot_object(&self.slot),
            hash: self.slot.hash,
        })
    }

    /// Signs a record with the root, puts it, and takes it into `room`.
    pub(crate) async fn publish(
        &self,
        store: &dyn Store,
        room: &mut Room,
        record: Record,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<Hash32, VaultError> {
        let (root, control) = (self.root_signer(), self.control_key(room.state.room));
        let author = Author {
            vault: self.anchor.vault,
            person: self.person,
            signer: Signer::Root(&root),
            control: &control,
        };
        let place = Place {
            store,
            clock,
            entropy,
        };
        publish(&place, room, &author, record, &[]).await
    }
}

/// The object name of a slot.
pub(crate) fn slot_object(slot: &SlotEntry) -> String {
    slot_object_name(&slot.name)
}

/// The object name of a slot, from its random part.
pub(crate) fn slot_object_name(name: &[u8; 16]) -> String {
    let hex: String = name.iter().map(|b| format!("{b:02x}")).collect();
    format!("slots/{hex}")
}
