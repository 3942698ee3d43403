//! What the one who joins keeps on his own disk until he is let in.

use super::payload_of;
use super::wire::{OpenedAnswer, Request};
use crate::own_slots::own_slot_name;
use crate::publish::Place;
use crate::record::{Label, MemberKeys, PersonKeys};
use crate::slot::{Payload, Slot, SlotKind, SlotName, SlotSecret, make_slot};
use crate::{Argon2Params, Invitation, Secret, VaultError};
use skrin_base::Entropy;
use skrin_base::ids::{PersonId, VaultId};
use skrin_base::limits::{CONTROL_MAX, FORMAT_VERSION};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_crypto::passphrase::check_new_passphrase;
use skrin_crypto::words::{parse_words, words_of};
use skrin_crypto::{LocalAad, RootSeed, RootSigner, VaultSecret, WordsEntropy, keys, open, seal};
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"SKRJ";
/// Slots in the file: words, and a passphrase.
const SLOTS_MAX: usize = 2;
const FILE_MAX: usize = 1 << 16;

/// How somebody joins.
pub struct JoinOptions {
    /// What he is to be called.
    pub name: String,
    /// Opens what is kept on his disk, besides the words.
    pub passphrase: Option<Zeroizing<String>>,
    /// What a guess at the passphrase costs.
    pub argon2: Argon2Params,
}

impl JoinOptions {
    /// The defaults for somebody of this name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            passphrase: None,
            argon2: Argon2Params::DEFAULT,
        }
    }
}

/// Somebody who has asked to be let in: his root and words, and the invitation.
pub struct Pending {
    invitation: Invitation,
    name: Label,
    root: RootSeed,
    words: WordsEntropy,
    keys: MemberKeys,
    file: Vec<u8>,
}

/// A slot needs a vault secret, and there is none yet.
fn no_secret() -> VaultSecret {
    VaultSecret::from_bytes([0; 32])
}

fn copy(root: &RootSeed) -> RootSeed {
    RootSeed::from_bytes(*root.expose())
}

fn aad(vault: VaultId) -> LocalAad {
    LocalAad {
        purpose: "joining",
        vault,
        context: Vec::new(),
    }
}

fn public_keys(invitation: &Invitation, root: &RootSeed, words: &WordsEntropy) -> MemberKeys {
    let (vault, suite) = (invitation.anchor.vault, invitation.suite);
    PersonKeys::of(root, words, vault, suite).into()
}

impl Pending {
    pub(super) fn make(
        invitation: Invitation,
        options: &JoinOptions,
        entropy: &dyn Entropy,
    ) -> Result<Self, VaultError> {
        options.argon2.check()?;
        if let Some(passphrase) = &options.passphrase {
            check_new_passphrase(passphrase)?;
        }
        let name = &options.name;
        let name = Label::new(name).map_err(|_| VaultError::Label(name.clone()))?;
        let root = keys::make_root_seed(entropy);
        let words = keys::make_words_entropy(entropy);
        let keys = public_keys(&invitation, &root, &words);
        let mut this = Self {
            invitation,
            name,
            root,
            words,
            keys,
            file: Vec::new(),
        };
        this.file = this.seal(options, entropy)?;
        Ok(this)
    }

    fn seal(&self, options: &JoinOptions, entropy: &dyn Entropy) -> Result<Vec<u8>, VaultError> {
        let vault = self.invitation.anchor.vault;
        let payload = payload_of(
            &self.invitation,
            self.person(),
            no_secret(),
            copy(&self.root),
        );
        let passphrase = options.passphrase.as_ref();
        let passphrase = passphrase.map(|text| SlotSecret::Passphrase(text, options.argon2));
        let mut w = Writer::default();
        w.raw(MAGIC);
        w.u8(FORMAT_VERSION);
        vault.encode(&mut w);
        w.count(1 + passphrase.iter().len());
        for secret in std::iter::once(SlotSecret::Words(&self.words)).chain(passphrase) {
            w.bytes(&make_slot(&secret, &payload, entropy)?);
        }
        let mut content = Writer::default();
        self.invitation.encode(&mut content);
        self.name.encode(&mut content);
        self.words.encode(&mut content);
        let content = Zeroizing::new(content.into_bytes());
        let key = keys::derive_joining_key(&self.root, vault);
        w.bytes(&seal(&key, &aad(vault), &content, entropy));
        Ok(w.into_bytes())
    }

    /// The bytes to keep on disk until `finish` is done. The words open them, and the passphrase if one was given.
    pub fn to_file(&self) -> &[u8] {
        &self.file
    }

    /// Reads what `to_file` gave.
    ///
    /// # Errors
    /// `WrongSecret`, `Words`, `Join` for a damaged file.
    pub fn open(file: &[u8], secret: &Secret) -> Result<Self, VaultError> {
        let damaged = |_: WireError| {
            VaultError::Join("the file of the unfinished joining is damaged".to_owned())
        };
        let (vault, slots, sealed) = parse(file).map_err(damaged)?;
        let payload = open_slots(&slots, secret)?;
        let key = keys::derive_joining_key(&payload.root_seed, vault);
        let content =
            open(&key, &aad(vault), sealed).map_err(|_| damaged(WireError::Value("seal")))?;
        let mut r = Reader::new(&content);
        let decoded = Invitation::decode(&mut r).and_then(|invitation| {
            let (name, words) = (Label::decode(&mut r)?, WordsEntropy::decode(&mut r)?);
            r.finish()?;
            Ok((invitation, name, words))
        });
        let (invitation, name, words) = decoded.map_err(damaged)?;
        let root = payload.root_seed;
        let keys = public_keys(&invitation, &root, &words);
        Ok(Self {
            invitation,
            name,
            root,
            words,
            keys,
            file: file.to_vec(),
        })
    }

    /// The twelve words, to be shown once and written down.
    pub fn words(&self) -> Zeroizing<String> {
        words_of(&self.words)
    }

    /// The invitation.
    pub fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    /// The id that follows from the new keys.
    pub fn person(&self) -> PersonId {
        self.keys.person(self.invitation.anchor.vault)
    }

    /// The new public keys. Their fingerprint's safety number is what the inviter sees.
    pub fn keys(&self) -> MemberKeys {
        self.keys.clone()
    }

    pub(super) fn request(&self, place: &Place<'_>) -> Vec<u8> {
        let root = RootSigner::derive(&self.root, self.invitation.anchor.vault);
        Request::make(
            &self.invitation,
            &self.name,
            &self.keys,
            &root,
            place.entropy,
        )
    }

    pub(super) fn is_own_request(&self, object: &[u8]) -> bool {
        let request = Request::open(&self.invitation, object);
        request.is_ok_and(|request| *request.keys() == self.keys)
    }

    pub(super) fn payload(&self, answer: &OpenedAnswer) -> Result<Payload, VaultError> {
        let suite = self.invitation.suite;
        answer.payload(&self.invitation, self.person(), copy(&self.root), suite)
    }

    /// The slots of a member: for each secret its name, which is the same however often joining is repeated, and the secret.
    pub(super) fn slots<'a>(
        &'a self,
        passphrase: Option<(&'a Zeroizing<String>, Argon2Params)>,
    ) -> Vec<(SlotName, SlotSecret<'a>)> {
        let passphrase = passphrase.map(|(text, params)| SlotSecret::Passphrase(text, params));
        let secrets = [Some(SlotSecret::Words(&self.words)), passphrase];
        let (vault, person) = (self.invitation.anchor.vault, self.person());
        let name = |kind| own_slot_name(vault, person, kind);
        let named = secrets.into_iter().zip(["words", "passphrase"]);
        let named = named.filter_map(|(secret, kind)| Some((name(kind), secret?)));
        named.collect()
    }
}

type Parts<'a> = (VaultId, Vec<&'a [u8]>, &'a [u8]);

fn parse(file: &[u8]) -> Result<Parts<'_>, WireError> {
    let mut r = Reader::new(file);
    if r.raw(MAGIC.len())? != MAGIC || r.u8()? != FORMAT_VERSION {
        return Err(WireError::Value("file of a joining"));
    }
    let vault = VaultId::decode(&mut r)?;
    let count = r.u32()? as usize;
    if count == 0 || count > SLOTS_MAX {
        return Err(WireError::Value("number of slots"));
    }
    let mut slots = Vec::new();
    for _ in 0..count {
        slots.push(r.bytes("slot", CONTROL_MAX.min(FILE_MAX))?);
    }
    let sealed = r.bytes("what is sealed", FILE_MAX)?;
    r.finish()?;
    Ok((vault, slots, sealed))
}

fn open_slots(slots: &[&[u8]], secret: &Secret) -> Result<Payload, VaultError> {
    const OBJECT: &str = "the file of the unfinished joining";
    let words = match secret {
        Secret::Words(text) => Some(parse_words(text)?),
        Secret::Passphrase(_) => None,
    };
    let mut tried = 0;
    for bytes in slots {
        let Some(slot) = Slot::parse(OBJECT, bytes)? else {
            continue;
        };
        let opened = match (secret, &words, slot.kind) {
            (Secret::Passphrase(text), _, SlotKind::Passphrase(_)) => {
                slot.open_passphrase(OBJECT, text)?
            }
            (Secret::Words(_), Some(words), SlotKind::Words) => slot.open_words(OBJECT, words)?,
            _ => continue,
        };
        tried += 1;
        if let Some(payload) = opened {
            return Ok(payload);
        }
    }
    let (name, phrase) = match secret {
        Secret::Passphrase(_) => ("passphrase", "a passphrase"),
        Secret::Words(_) => ("words", "words"),
    };
    let damaged = Vec::new();
    Err(match tried {
        0 => VaultError::NoSlot {
            secret: phrase,
            damaged,
        },
        slots => VaultError::WrongSecret {
            secret: name,
            slots,
            untried: 0,
            damaged,
        },
    })
}
