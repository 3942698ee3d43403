//! Slots: what a secret opens.

use crate::VaultError;
use crate::header::{open_checksum, read_features, with_checksum, write_features};
use skrin_base::ids::{Hash32, PersonId, RoomId, VaultId};
use skrin_base::limits::FORMAT_VERSION;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Entropy, clock::random};
use skrin_crypto::passphrase::{Argon2Params, derive_passphrase_slot, derive_words_slot};
use skrin_crypto::{
    RootSeed, SlotAad, SlotCommitment, SlotKey, VaultSecret, WordsEntropy, open, pad_pow2, seal,
    unpad_pow2,
};
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"SKRS";
const KIND_PASSPHRASE: u8 = 1;
const KIND_WORDS: u8 = 2;
const PAYLOAD_MAX: usize = 1 << 16;

/// A slot's name on the storage.
pub type SlotName = [u8; 16];

/// How a slot's key comes about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotKind {
    /// Argon2id.
    Passphrase(Argon2Params),
    /// HKDF of the words' entropy.
    Words,
}

/// A slot as it lies on the storage, decoded but not opened.
pub struct Slot {
    /// How its key comes about.
    pub kind: SlotKind,
    /// The vault that it says it belongs to.
    pub vault: VaultId,
    salt: [u8; 32],
    commitment: SlotCommitment,
    clear: Vec<u8>,
    sealed: Vec<u8>,
}

/// What every slot holds.
pub struct Payload {
    /// The vault.
    pub vault: VaultId,
    /// The hash of `skrin.vault`.
    pub header: Hash32,
    /// The vault's format version when the slot was made.
    pub format_version: u8,
    /// The room that is the vault's root.
    pub room: RoomId,
    /// The id of that room's genesis.
    pub genesis: Hash32,
    /// BLAKE3 of the owner's public root keys.
    pub fingerprint: Hash32,
    /// Whose slot it is.
    pub person: PersonId,
    /// Derives the control keys.
    pub vault_secret: VaultSecret,
    /// That person's root.
    pub root_seed: RootSeed,
}

impl Payload {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut w = Writer::default();
        w.u8(FORMAT_VERSION);
        write_features(&mut w, 0);
        self.vault.encode(&mut w);
        self.header.encode(&mut w);
        w.u8(self.format_version);
        self.room.encode(&mut w);
        self.genesis.encode(&mut w);
        self.fingerprint.encode(&mut w);
        self.person.encode(&mut w);
        self.vault_secret.encode(&mut w);
        self.root_seed.encode(&mut w);
        Zeroizing::new(w.into_bytes())
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        read_version(r)?;
        read_features(r)?;
        Ok(Self {
            vault: VaultId::decode(r)?,
            header: Hash32::decode(r)?,
            format_version: r.u8()?,
            room: RoomId::decode(r)?,
            genesis: Hash32::decode(r)?,
            fingerprint: Hash32::decode(r)?,
            person: PersonId::decode(r)?,
            vault_secret: VaultSecret::decode(r)?,
            root_seed: RootSeed::decode(r)?,
        })
    }
}

/// A version byte inside something sealed.
pub(crate) fn read_version(r: &mut Reader<'_>) -> Result<(), WireError> {
    match r.u8()? {
        FORMAT_VERSION => Ok(()),
        0 => Err(WireError::Value("version 0")),
        found => Err(WireError::Unknown {
            what: "format version",
            found: found.into(),
        }),
    }
}

/// A secret in the form that slots take.
pub(crate) enum SlotSecret<'a> {
    Passphrase(&'a str, Argon2Params),
    Words(&'a WordsEntropy),
}

/// Makes the object for a new slot.
pub(crate) fn make_slot(
    secret: &SlotSecret<'_>,
    payload: &Payload,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, VaultError> {
    let salt: [u8; 32] = random(entropy);
    let (kind, (key, commitment)) = match secret {
        SlotSecret::Passphrase(text, params) => (
            SlotKind::Passphrase(*params),
            derive_passphrase_slot(text, params, payload.vault, &salt)?,
        ),
        SlotSecret::Words(words) => (
            SlotKind::Words,
            derive_words_slot(words, payload.vault, &salt),
        ),
    };
    let clear = clear_part(kind, payload.vault, &salt, &commitment);
    let aad = SlotAad { header: &clear };
    let sealed = seal(&key, &aad, &pad_pow2(&payload.encode()), entropy);
    let mut w = Writer::default();
    w.raw(&clear);
    w.raw(&sealed);
    Ok(with_checksum(w))
}

fn clear_part(
    kind: SlotKind,
    vault: VaultId,
    salt: &[u8; 32],
    commitment: &SlotCommitment,
) -> Vec<u8> {
    let mut w = Writer::default();
    w.raw(MAGIC);
    w.u8(FORMAT_VERSION);
    w.u8(match kind {
        SlotKind::Passphrase(_) => KIND_PASSPHRASE,
        SlotKind::Words => KIND_WORDS,
    });
    vault.encode(&mut w);
    w.raw(salt);
    if let SlotKind::Passphrase(params) = kind {
        params.encode(&mut w);
    }
    w.raw(&commitment.0);
    w.into_bytes()
}

impl Slot {
    /// Reads a slot object; `None` for a kind that this program does not know.
    ///
    /// # Errors
    /// `NewerVersion`, `Integrity`.
    pub fn parse(object: &str, bytes: &[u8]) -> Result<Option<Self>, VaultError> {
        let rest = open_checksum(object, MAGIC, bytes)?;
        let mut r = Reader::new(rest);
        Self::decode(&mut r).map_err(|e| VaultError::wire(object, e))
    }

    fn decode(r: &mut Reader<'_>) -> Result<Option<Self>, WireError> {
        let kind = r.u8()?;
        let vault = VaultId::decode(r)?;
        let salt = r.array()?;
        let kind = match kind {
            KIND_PASSPHRASE => SlotKind::Passphrase(Argon2Params::decode(r)?),
            KIND_WORDS => SlotKind::Words,
            0 => return Err(WireError::Value("slot kind 0")),
            _ => return Ok(None),
        };
        let commitment = SlotCommitment(r.array()?);
        let sealed = r.raw(r.rest().len())?.to_vec();
        Ok(Some(Self {
            kind,
            vault,
            salt,
            commitment,
            clear: clear_part(kind, vault, &salt, &commitment),
            sealed,
        }))
    }

    /// Opens with words; `None` if they are others.
    ///
    /// # Errors
    /// `Integrity` when the words are right and the payload is damaged.
    pub fn open_words(
        &self,
        object: &str,
        words: &WordsEntropy,
    ) -> Result<Option<Payload>, VaultError> {
        if self.kind != SlotKind::Words {
            return Ok(None);
        }
        self.open(object, derive_words_slot(words, self.vault, &self.salt))
    }

    /// Opens with a passphrase, which takes a second or so; `None` if it is another.
    ///
    /// # Errors
    /// As `open_words`, and `Kdf`.
    pub fn open_passphrase(
        &self,
        object: &str,
        passphrase: &str,
    ) -> Result<Option<Payload>, VaultError> {
        let SlotKind::Passphrase(params) = self.kind else {
            return Ok(None);
        };
        let keys = derive_passphrase_slot(passphrase, &params, self.vault, &self.salt)?;
        self.open(object, keys)
    }

    fn open(
        &self,
        object: &str,
        (key, commitment): (SlotKey, SlotCommitment),
    ) -> Result<Option<Payload>, VaultError> {
        if !commitment.matches(&self.commitment) {
            return Ok(None);
        }
        if self.sealed.len() > PAYLOAD_MAX {
            return Err(VaultError::integrity(object, "its payload is too long"));
        }
        let aad = SlotAad {
            header: &self.clear,
        };
        let plain = open(&key, &aad, &self.sealed)
            .and_then(unpad_pow2)
            .map_err(|e| VaultError::integrity(object, e))?;
        let mut r = Reader::new(&plain);
        let payload = Payload::decode(&mut r)
            .and_then(|payload| r.finish().map(|()| payload))
            .map_err(|e| VaultError::wire(object, e))?;
        if payload.vault != self.vault {
            return Err(VaultError::integrity(object, "it belongs to another vault"));
        }
        Ok(Some(payload))
    }
}
