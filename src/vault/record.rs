//! Control records: their fields and their one encoding (docs/format/vault.md, section 4).

use crate::header::{read_features, write_features};
use crate::slot::{SlotName, read_version};
use skrin_base::Timestamp;
use skrin_base::ids::{DeviceId, EpochId, Hash32, PersonId, RoomId, VaultId};
use skrin_base::limits::{
    BLOCK_LEN, CONTROL_PARENTS_MAX, EPOCH_RECIPIENTS_MAX, FORMAT_VERSION, LABEL_MAX,
};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_crypto::{
    Envelope, EpochCommitment, KemPublic, KemSecret, RoomSecret, RootSeed, RootSigner, Suite,
    VerifyingKey, WordsEntropy, WordsSigner,
};

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $n:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl Encode for $name {
            fn encode(&self, w: &mut Writer) {
                w.u8(match self { $(Self::$variant => $n,)* });
            }
        }

        impl Decode for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
                match r.u8()? {
                    $($n => Ok(Self::$variant),)*
                    found => Err(WireError::Unknown { what: $what, found: found.into() }),
                }
            }
        }
    };
}

mod members;

pub use members::{
    BackLink, CutTip, CutTips, DeviceRevoke, EndReason, History, MemberAdd, MemberKeys,
    MemberRemove, MemberRole,
};

/// What people call a person or a device: 1 to 64 bytes of UTF-8 without control characters,
/// so that printing it does nothing but print.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Label(String);

impl Label {
    /// Checks a text.
    ///
    /// # Errors
    /// `Value` or `Limit`.
    pub fn new(text: &str) -> Result<Self, WireError> {
        if text.len() > LABEL_MAX {
            return Err(WireError::Limit {
                what: "label length",
                found: text.len() as u64,
                limit: LABEL_MAX as u64,
            });
        }
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(WireError::Value("label"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Encode for Label {
    fn encode(&self, w: &mut Writer) {
        w.bytes(self.0.as_bytes());
    }
}

impl Decode for Label {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let bytes = r.bytes("label length", LABEL_MAX)?;
        let text = std::str::from_utf8(bytes).map_err(|_| WireError::Value("label"))?;
        Self::new(text)
    }
}

/// The only block length of version 1, as a power of two.
pub(crate) const BLOCK_LOG2: u8 = BLOCK_LEN.ilog2() as u8;

/// Which of the author's keys signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SignerRef {
    /// The root.
    Root,
    /// The words.
    Words,
    /// A device.
    Device(DeviceId),
}

impl Encode for SignerRef {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Root => w.u8(1),
            Self::Words => w.u8(2),
            Self::Device(id) => {
                w.u8(3);
                id.encode(w);
            }
        }
    }
}

impl Decode for SignerRef {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        match r.u8()? {
            1 => Ok(Self::Root),
            2 => Ok(Self::Words),
            3 => DeviceId::decode(r).map(Self::Device),
            _ => Err(WireError::Value("signer kind")),
        }
    }
}

/// Whom an envelope is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Recipient {
    /// A device.
    Device(DeviceId),
    /// A person's root.
    Root(PersonId),
    /// A person's words.
    Words(PersonId),
}

impl Encode for Recipient {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Device(id) => {
                w.u8(1);
                id.encode(w);
            }
            Self::Root(id) => {
                w.u8(2);
                id.encode(w);
            }
            Self::Words(id) => {
                w.u8(3);
                id.encode(w);
            }
        }
    }
}

impl Decode for Recipient {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        match r.u8()? {
            1 => DeviceId::decode(r).map(Self::Device),
            2 => PersonId::decode(r).map(Self::Root),
            3 => PersonId::decode(r).map(Self::Words),
            found => Err(WireError::Unknown {
                what: "kind of recipient",
                found: found.into(),
            }),
        }
    }
}

numbered!(/** What a member may do. */ Role, "role", {
    /** Everything; there is one. */ Owner = 1,
    /** Change membership. */ Manager = 2,
    /** Write. */ Editor = 3,
    /** Read. */ Reader = 4,
    /** Read, without devices: a recovery key. */ Recovery = 6,
});

numbered!(/** What a recovery key was used for. */ RecoveryPurpose, "purpose of a recovery key", {
    /** To see whether it works. */ Drill = 1,
    /** To read what is in the vault. */ Read = 2,
});

numbered!(/** Why there is a new epoch. */ EpochReason, "reason of an epoch", {
    /** The room's first. */ First = 1,
    /** New keys, the same members. */ Rekey = 2,
    /** Somebody or some device was removed. */ Removal = 3,
    /** Two epochs were made at once. */ Merge = 4,
    /** Somebody was added. */ Addition = 5,
});

/// The start of a room: who owns it, and what never changes.
pub struct Genesis {
    /// Format version of the room's first objects.
    pub format_version: u8,
    /// Number of the rule set of `apply`.
    pub rule_set: u32,
    /// Derives the room's name keys.
    pub room_secret: RoomSecret,
    /// Block length as a power of two: 16 in version 1.
    pub block_log2: u8,
    /// Whether blocks may be compressed.
    pub compression: bool,
    /// The owner.
    pub person: PersonId,
    /// What people call the owner.
    pub name: Label,
    /// The owner's public keys.
    pub keys: PersonKeys,
}

/// The public keys of an owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PersonKeys {
    /// Verifies what the root signs.
    pub root_sign: VerifyingKey,
    /// Receives for the root.
    pub root_kem: KemPublic,
    /// Verifies what the words sign.
    pub words_sign: VerifyingKey,
    /// Receives for the words.
    pub words_kem: KemPublic,
}

impl PersonKeys {
    /// Those of a root and of words.
    pub(crate) fn of(root: &RootSeed, words: &WordsEntropy, vault: VaultId, suite: Suite) -> Self {
        Self {
            root_sign: RootSigner::derive(root, vault).public(),
            root_kem: KemSecret::derive_root(root, vault, suite).public(),
            words_sign: WordsSigner::derive(words, vault).public(),
            words_kem: KemSecret::derive_words(words, vault, suite).public(),
        }
    }

    /// The fingerprint of the root: BLAKE3 of its two public keys.
    pub fn fingerprint(&self) -> Hash32 {
        root_fingerprint(&self.root_sign, &self.root_kem)
    }
}

fn root_fingerprint(sign: &VerifyingKey, kem: &KemPublic) -> Hash32 {
    let mut w = Writer::default();
    sign.encode(&mut w);
    kem.encode(&mut w);
    skrin_crypto::hash(&w.into_bytes())
}

/// A new device of a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceAdd {
    /// Whose.
    pub person: PersonId,
    /// The record of the person's key log that this one follows.
    pub previous: Hash32,
    /// The device.
    pub device: DeviceId,
    /// Verifies what it signs.
    pub sign: VerifyingKey,
    /// Receives for it.
    pub kem: KemPublic,
    /// What people call it.
    pub label: Label,
}

/// A new epoch of a room, without its envelopes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochRecord {
    /// What the envelopes are bound to.
    pub core: EpochCore,
    /// The hash of the record's attachment.
    pub envelopes: Hash32,
}

/// All of an epoch's record but the hash of its envelopes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochCore {
    /// Why.
    pub reason: EpochReason,
    /// The epochs that it replaces.
    pub parents: Vec<EpochId>,
    /// Which KEM the envelopes use.
    pub suite: Suite,
    /// Proves which key it is.
    pub commitment: EpochCommitment,
    /// Who is in, and what he may do.
    pub members: Vec<(PersonId, Role)>,
    /// Whose envelopes there are, as devices.
    pub devices: Vec<DeviceId>,
    /// All for whom there are envelopes.
    pub recipients: Vec<Recipient>,
}

/// An existing epoch for a device that came later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Which epoch.
    pub epoch: EpochId,
    /// For whom.
    pub recipient: Recipient,
    /// The epoch key, wrapped.
    pub envelope: Envelope,
}

/// A slot object by name and hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SlotEntry {
    /// Its name.
    pub name: SlotName,
    /// The hash of the object.
    pub hash: Hash32,
}

/// What a record says.
pub enum Record {
    /// 1
    Genesis(Box<Genesis>),
    /// 2
    DeviceAdd(Box<DeviceAdd>),
    /// 3
    Epoch(Box<EpochRecord>),
    /// 4
    Grant(Box<Grant>),
    /// 5
    SlotAdd(SlotEntry),
    /// 6
    SlotRemove(SlotEntry),
    /// 7
    DeviceRevoke(Box<DeviceRevoke>),
    /// 8
    MemberAdd(Box<MemberAdd>),
    /// 9
    MemberRemove(Box<MemberRemove>),
    /// 10
    MemberRole(Box<MemberRole>),
    /// 15
    RecoveryUse(RecoveryPurpose),
    /// 17
    BackLink(Box<BackLink>),
    /// 128 and above: kept, and skipped.
    Optional {
        /// The tag.
        tag: u8,
        /// Its contents.
        bytes: Vec<u8>,
    },
}

/// The signed part of a control object.
pub struct Body {
    /// Which vault.
    pub vault: VaultId,
    /// Which room.
    pub room: RoomId,
    /// Optional features that this program does not know.
    pub optional: u32,
    /// The heads that the author saw.
    pub parents: Vec<Hash32>,
    /// Who.
    pub author: PersonId,
    /// With which key.
    pub signer: SignerRef,
    /// When, as the author's clock had it; decides nothing.
    pub time: Timestamp,
    /// What.
    pub record: Record,
}

/// A list in strictly ascending order of its items.
fn read_set<T: Decode + Ord>(
    r: &mut Reader<'_>,
    what: &'static str,
    limit: usize,
) -> Result<Vec<T>, WireError> {
    let list: Vec<T> = r.list(what, limit)?;
    if list.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(WireError::Value("a list that is not in ascending order"));
    }
    Ok(list)
}

struct Member(PersonId, Role);

impl Decode for Member {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(PersonId::decode(r)?, Role::decode(r)?))
    }
}

impl Encode for PersonKeys {
    fn encode(&self, w: &mut Writer) {
        self.root_sign.encode(w);
        self.root_kem.encode(w);
        self.words_sign.encode(w);
        self.words_kem.encode(w);
    }
}

impl Decode for PersonKeys {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            root_sign: VerifyingKey::decode(r)?,
            root_kem: KemPublic::decode(r)?,
            words_sign: VerifyingKey::decode(r)?,
            words_kem: KemPublic::decode(r)?,
        })
    }
}

impl Encode for Genesis {
    fn encode(&self, w: &mut Writer) {
        w.u8(self.format_version);
        w.u32(self.rule_set);
        self.room_secret.encode(w);
        w.u8(self.block_log2);
        w.u8(u8::from(self.compression));
        self.person.encode(w);
        self.name.encode(w);
        self.keys.encode(w);
    }
}

impl Decode for Genesis {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let genesis = Self {
            format_version: r.u8()?,
            rule_set: r.u32()?,
            room_secret: RoomSecret::decode(r)?,
            block_log2: r.u8()?,
            compression: r.bool()?,
            person: PersonId::decode(r)?,
            name: Label::decode(r)?,
            keys: PersonKeys::decode(r)?,
        };
        // Other lengths are for later versions: segments of this one have no other.
        if genesis.block_log2 != BLOCK_LOG2 {
            return Err(WireError::Unknown {
                what: "block length",
                found: genesis.block_log2.into(),
            });
        }
        Ok(genesis)
    }
}

impl Encode for DeviceAdd {
    fn encode(&self, w: &mut Writer) {
        self.person.encode(w);
        self.previous.encode(w);
        self.device.encode(w);
        self.sign.encode(w);
        self.kem.encode(w);
        self.label.encode(w);
    }
}

impl Decode for DeviceAdd {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            person: PersonId::decode(r)?,
            previous: Hash32::decode(r)?,
            device: DeviceId::decode(r)?,
            sign: VerifyingKey::decode(r)?,
            kem: KemPublic::decode(r)?,
            label: Label::decode(r)?,
        })
    }
}

impl Encode for EpochCore {
    fn encode(&self, w: &mut Writer) {
        self.reason.encode(w);
        w.list(&self.parents);
        self.suite.encode(w);
        self.commitment.encode(w);
        w.count(self.members.len());
        for (person, role) in &self.members {
            person.encode(w);
            role.encode(w);
        }
        w.list(&self.devices);
        w.list(&self.recipients);
    }
}

impl Decode for EpochCore {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let core = Self {
            reason: EpochReason::decode(r)?,
            parents: read_set(r, "parents of an epoch", CONTROL_PARENTS_MAX)?,
            suite: Suite::decode(r)?,
            commitment: EpochCommitment::decode(r)?,
            members: r
                .list::<Member>("members", EPOCH_RECIPIENTS_MAX)?
                .into_iter()
                .map(|Member(person, role)| (person, role))
                .collect(),
            devices: read_set(r, "devices", EPOCH_RECIPIENTS_MAX)?,
            recipients: read_set(r, "recipients", EPOCH_RECIPIENTS_MAX)?,
        };
        // By person alone: nobody has two roles.
        if core.members.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(WireError::Value("members that are not in ascending order"));
        }
        Ok(core)
    }
}

impl Encode for EpochRecord {
    fn encode(&self, w: &mut Writer) {
        self.core.encode(w);
        self.envelopes.encode(w);
    }
}

impl Decode for EpochRecord {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            core: EpochCore::decode(r)?,
            envelopes: Hash32::decode(r)?,
        })
    }
}

impl Encode for Grant {
    fn encode(&self, w: &mut Writer) {
        self.epoch.encode(w);
        self.recipient.encode(w);
        self.envelope.encode(w);
    }
}

impl Decode for Grant {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            epoch: EpochId::decode(r)?,
            recipient: Recipient::decode(r)?,
            envelope: Envelope::decode(r)?,
        })
    }
}

impl Encode for SlotEntry {
    fn encode(&self, w: &mut Writer) {
        w.raw(&self.name);
        self.hash.encode(w);
    }
}

impl Decode for SlotEntry {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            name: r.array()?,
            hash: Hash32::decode(r)?,
        })
    }
}

impl Encode for Record {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Genesis(record) => tagged(w, 1, &**record),
            Self::DeviceAdd(record) => tagged(w, 2, &**record),
            Self::Epoch(record) => tagged(w, 3, &**record),
            Self::Grant(record) => tagged(w, 4, &**record),
            Self::SlotAdd(entry) => tagged(w, 5, entry),
            Self::SlotRemove(entry) => tagged(w, 6, entry),
            Self::DeviceRevoke(record) => tagged(w, 7, &**record),
            Self::MemberAdd(record) => tagged(w, 8, &**record),
            Self::MemberRemove(record) => tagged(w, 9, &**record),
            Self::MemberRole(record) => tagged(w, 10, &**record),
            Self::RecoveryUse(purpose) => tagged(w, 15, purpose),
            Self::BackLink(record) => tagged(w, 17, &**record),
            Self::Optional { tag, bytes } => {
                w.u8(*tag);
                w.bytes(bytes);
            }
        }
    }
}

fn tagged(w: &mut Writer, tag: u8, record: &impl Encode) {
    w.u8(tag);
    record.encode(w);
}

impl Decode for Record {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        match r.u8()? {
            1 => Genesis::decode(r).map(|x| Self::Genesis(Box::new(x))),
            2 => DeviceAdd::decode(r).map(|x| Self::DeviceAdd(Box::new(x))),
            3 => EpochRecord::decode(r).map(|x| Self::Epoch(Box::new(x))),
            4 => Grant::decode(r).map(|x| Self::Grant(Box::new(x))),
            5 => SlotEntry::decode(r).map(Self::SlotAdd),
            6 => SlotEntry::decode(r).map(Self::SlotRemove),
            7 => DeviceRevoke::decode(r).map(|x| Self::DeviceRevoke(Box::new(x))),
            8 => MemberAdd::decode(r).map(|x| Self::MemberAdd(Box::new(x))),
            9 => MemberRemove::decode(r).map(|x| Self::MemberRemove(Box::new(x))),
            10 => MemberRole::decode(r).map(|x| Self::MemberRole(Box::new(x))),
            15 => RecoveryPurpose::decode(r).map(Self::RecoveryUse),
            17 => BackLink::decode(r).map(|x| Self::BackLink(Box::new(x))),
            0 => Err(WireError::Value("tag 0")),
            tag @ 128.. => Ok(Self::Optional {
                tag,
                bytes: r
                    .bytes("optional record", skrin_base::limits::CONTROL_MAX)?
                    .to_vec(),
            }),
            found => Err(WireError::Unknown {
                what: "control record tag",
                found: found.into(),
            }),
        }
    }
}

impl Encode for Body {
    fn encode(&self, w: &mut Writer) {
        w.u8(FORMAT_VERSION);
        write_features(w, self.optional);
        self.vault.encode(w);
        self.room.encode(w);
        w.list(&self.parents);
        self.author.encode(w);
        self.signer.encode(w);
        self.time.encode(w);
        self.record.encode(w);
    }
}

impl Decode for Body {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        read_version(r)?;
        Ok(Self {
            optional: read_features(r)?,
            vault: VaultId::decode(r)?,
            room: RoomId::decode(r)?,
            parents: read_set(r, "parents", CONTROL_PARENTS_MAX)?,
            author: PersonId::decode(r)?,
            signer: SignerRef::decode(r)?,
            time: Timestamp::decode(r)?,
            record: Record::decode(r)?,
        })
    }
}
