//! Making a vault.

use crate::control::{Signer, seal_record};
use crate::epoch::{Binding, Purpose, encode_envelopes};
use crate::header::{HEADER_NAME, Header};
use crate::record::{
    BLOCK_LOG2, Body, EpochCore, EpochReason, EpochRecord, Genesis, Label, PersonKeys, Recipient,
    Record, Role, SignerRef, SlotEntry,
};
use crate::slot::{Payload, SlotSecret, make_slot};
use crate::unlock::slot_object;
use crate::{Anchor, VaultError, objects};
use skrin_base::ids::{Hash32, PersonId, RoomId, VaultId};
use skrin_base::limits::{CONTROL_MAX, FORMAT_VERSION};
use skrin_base::{Clock, Entropy, Timestamp, clock::random};
use skrin_crypto::passphrase::{Argon2Params, check_new_passphrase};
use skrin_crypto::words::words_of;
use skrin_crypto::{ControlKey, RootSigner, Suite, VaultSecret, WordsEntropy, hash, keys};
use skrin_storage::{ErrorKind, Store};
use zeroize::Zeroizing;

/// How to make a vault.
pub struct InitOptions {
    /// A passphrase for everyday use; the words always open the vault too.
    pub passphrase: Option<Zeroizing<String>>,
    /// What a guess at the passphrase costs.
    pub argon2: Argon2Params,
    /// What people call the owner.
    pub person_name: String,
    /// Whether blocks may be compressed.
    pub compression: bool,
    /// Which KEM.
    pub suite: Suite,
}

impl InitOptions {
    /// The defaults for an owner of this name.
    pub fn new(person_name: &str) -> Self {
        Self {
            passphrase: None,
            argon2: Argon2Params::DEFAULT,
            person_name: person_name.to_owned(),
            compression: true,
            suite: Suite::XWing,
        }
    }
}

/// A vault that was made.
pub struct InitResult {
    /// What a device should remember.
    pub anchor: Anchor,
    /// To be shown once, and never stored.
    pub words: Zeroizing<String>,
}

/// Makes a vault on an empty storage: control records and slots, and last the header.
///
/// # Errors
/// `AlreadyThere`, `Leftovers`, `Kdf` for a weak passphrase or parameters, `Label`, `Storage`. After a storage error
/// or a crash nothing but the header makes it a vault; a repeated init reports what is left.
pub async fn init(
    store: &dyn Store,
    options: &InitOptions,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<InitResult, VaultError> {
    options.argon2.check()?;
    if let Some(passphrase) = &options.passphrase {
        check_new_passphrase(passphrase)?;
    }
    let label = &options.person_name;
    let name = Label::new(label).map_err(|_| VaultError::Label(label.clone()))?;
    require_empty(store).await?;
    let mut maker = Maker::new(options, clock.now(), entropy)?;
    let genesis = maker.genesis(options, name)?;
    let slots = maker.slots(options, genesis)?;
    for slot in slots {
        maker.record(Record::SlotAdd(slot), &[]);
    }
    maker.first_epoch(options.suite)?;
    let objects = std::mem::take(&mut maker.objects);
    for (name, bytes) in objects {
        objects::put(store, name, bytes).await?;
    }
    objects::put(store, HEADER_NAME.to_owned(), maker.header_bytes.clone()).await?;
    Ok(InitResult {
        anchor: maker.anchor(genesis),
        words: words_of(&maker.words),
    })
}

async fn require_empty(store: &dyn Store) -> Result<(), VaultError> {
    let place = store.place();
    let root = objects::list(store, String::new()).await?;
    if root.objects.iter().any(|o| o.name.as_str() == HEADER_NAME) {
        return Err(VaultError::AlreadyThere { place });
    }
    // What a listing leaves out would be written over.
    let header = objects::object(HEADER_NAME.to_owned())?;
    match store.get(&header, CONTROL_MAX).await {
        Err(error) if error.is_absent() => {}
        Err(error) if error.kind() != ErrorKind::Broken => return Err(error.into()),
        _ => return Err(VaultError::AlreadyThere { place }),
    }
    let mut dirs = root.dirs.into_iter();
    match dirs.find(|dir| matches!(dir.as_str(), "slots" | "rooms" | "segments")) {
        Some(dir) => Err(VaultError::Leftovers { place, dir }),
        None => Ok(()),
    }
}

/// Secrets and objects of a vault in the making.
struct Maker<'a> {
    vault: VaultId,
    room: RoomId,
    person: PersonId,
    header: Header,
    header_bytes: Vec<u8>,
    vault_secret: VaultSecret,
    words: WordsEntropy,
    root: skrin_crypto::RootSeed,
    signer: RootSigner,
    control: ControlKey,
    keys: PersonKeys,
    parents: Vec<Hash32>,
    objects: Vec<(String, Vec<u8>)>,
    now: Timestamp,
    entropy: &'a dyn Entropy,
}

impl<'a> Maker<'a> {
    fn new(
        options: &InitOptions,
        now: Timestamp,
        entropy: &'a dyn Entropy,
    ) -> Result<Self, VaultError> {
        let vault = VaultId(random(entropy));
        let room = RoomId(random(entropy));
        let vault_secret = keys::make_vault_secret(entropy);
        let words = keys::make_words_entropy(entropy);
        let root = keys::make_root_seed(entropy);
        let signer = RootSigner::derive(&root, vault);
        let keys = PersonKeys::of(&root, &words, vault, options.suite);
        let (header, header_bytes) = Header::make(vault, now);
        Ok(Self {
            vault,
            room,
            person: PersonId(random(entropy)),
            header,
            header_bytes,
            control: keys::derive_control_key(&vault_secret, vault, room),
            vault_secret,
            words,
            root,
            signer,
            keys,
            parents: Vec::new(),
            objects: Vec::new(),
            now,
            entropy,
        })
    }

    fn anchor(&self, genesis: Hash32) -> Anchor {
        Anchor {
            vault: self.vault,
            header: self.header.hash,
            room: self.room,
            genesis,
            fingerprint: self.keys.fingerprint(),
        }
    }

    /// Adds a record on top of the last one and returns its hash.
    fn record(&mut self, record: Record, attachment: &[u8]) -> Hash32 {
        let body = Body {
            vault: self.vault,
            room: self.room,
            optional: 0,
            parents: std::mem::take(&mut self.parents),
            author: self.person,
            signer: SignerRef::Root,
            time: self.now,
            record,
        };
        let signer = Signer::Root(&self.signer);
        let (hash, object) = seal_record(&self.control, &body, &signer, attachment, self.entropy);
        self.parents = vec![hash];
        self.objects
            .push((objects::control_name(self.room, hash), object));
        hash
    }

    fn genesis(&mut self, options: &InitOptions, name: Label) -> Result<Hash32, VaultError> {
        let record = Genesis {
            format_version: FORMAT_VERSION,
            rule_set: 1,
            room_secret: keys::make_room_secret(self.entropy),
            block_log2: BLOCK_LOG2,
            compression: options.compression,
            person: self.person,
            name,
            keys: self.keys.clone(),
        };
        Ok(self.record(Record::Genesis(Box::new(record)), &[]))
    }

    fn slots(
        &mut self,
        options: &InitOptions,
        genesis: Hash32,
    ) -> Result<Vec<SlotEntry>, VaultError> {
        let payload = Payload {
            vault: self.vault,
            header: self.header.hash,
            format_version: FORMAT_VERSION,
            room: self.room,
            genesis,
            fingerprint: self.keys.fingerprint(),
            person: self.person,
            vault_secret: VaultSecret::from_bytes(*self.vault_secret.expose()),
            root_seed: skrin_crypto::RootSeed::from_bytes(*self.root.expose()),
        };
        let passphrase = options.passphrase.as_ref();
        let passphrase = passphrase.map(|text| SlotSecret::Passphrase(text, options.argon2));
        let secrets = [Some(SlotSecret::Words(&self.words)), passphrase];
        let mut entries = Vec::new();
        for secret in secrets.iter().flatten() {
            let object = make_slot(secret, &payload, self.entropy)?;
            let entry = SlotEntry {
                name: random(self.entropy),
                hash: hash(&object),
            };
            self.objects.push((slot_object(&entry), object));
            entries.push(entry);
        }
        Ok(entries)
    }

    fn first_epoch(&mut self, suite: Suite) -> Result<(), VaultError> {
        let key = keys::make_epoch_key(self.entropy);
        let recipients = [Recipient::Root(self.person), Recipient::Words(self.person)];
        let publics = [&self.keys.root_kem, &self.keys.words_kem];
        let core = EpochCore {
            reason: EpochReason::First,
            parents: Vec::new(),
            suite,
            commitment: keys::derive_epoch_commitment(&key, self.vault, self.room),
            members: vec![(self.person, Role::Owner)],
            devices: Vec::new(),
            recipients: recipients.to_vec(),
        };
        let binding = Binding {
            vault: self.vault,
            room: self.room,
            author: self.person,
            signer: SignerRef::Root,
        };
        let purpose = Purpose::of_core(&core);
        let mut envelopes = Vec::new();
        for (recipient, public) in recipients.into_iter().zip(publics) {
            envelopes.push(binding.wrap(purpose, recipient, public, &key, self.entropy)?);
        }
        let attachment = encode_envelopes(&envelopes);
        let record = EpochRecord {
            core,
            envelopes: hash(&attachment),
        };
        self.record(Record::Epoch(Box::new(record)), &attachment);
        Ok(())
    }
}
