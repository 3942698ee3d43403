//! Records about who is in a room, and with which devices.

use super::{Label, PersonKeys, Recipient, Role, read_set};
use skrin_base::Timestamp;
use skrin_base::ids::{DeviceId, EpochId, Hash32, LaneId, PersonId, VaultId};
use skrin_base::limits::CUT_LANES_MAX;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_crypto::{Envelope, KemPublic, VerifyingKey, hash};

numbered!(/** Why a person or a device was put out; for people. */ EndReason, "reason of an ending", {
    /** None was given. */ Unsaid = 1,
    /** He left of his own accord. */ Left = 2,
    /** Somebody else may have the keys. */ Compromised = 3,
    /** Lost, sold, broken, given back. */ Lost = 4,
    /** The work is done. */ Finished = 5,
});

numbered!(/** Which epochs a new member can read. */ History, "history of a member", {
    /** Those from his joining on. */ FromNow = 0,
    /** All. */ All = 1,
});

/// The newest commit of a lane that still counts, of each branch of it one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CutTip {
    /// The lane.
    pub lane: LaneId,
    /// The commit's number in it.
    pub seq: u64,
    /// Its id.
    pub commit: Hash32,
}

/// What counts of the lanes of devices that were put out, in ascending order; nothing does of a lane that is not named.
pub type CutTips = Vec<CutTip>;

/// The public keys of somebody who joins; words are not everybody's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberKeys {
    /// Verifies what the root signs.
    pub root_sign: VerifyingKey,
    /// Receives for the root.
    pub root_kem: KemPublic,
    /// Verifies what the words sign.
    pub words_sign: Option<VerifyingKey>,
    /// Receives for the words.
    pub words_kem: Option<KemPublic>,
}

impl MemberKeys {
    /// The id that follows from the keys: nobody can bring other keys under somebody's id.
    pub fn person(&self, vault: VaultId) -> PersonId {
        let mut w = Writer::default();
        w.bytes(b"skrin/v1/person");
        vault.encode(&mut w);
        self.encode(&mut w);
        let hash = hash(&w.into_bytes());
        PersonId(std::array::from_fn(|at| hash.0[at]))
    }

    /// The fingerprint of the root: BLAKE3 of its two public keys.
    pub fn fingerprint(&self) -> Hash32 {
        super::root_fingerprint(&self.root_sign, &self.root_kem)
    }
}

impl From<PersonKeys> for MemberKeys {
    fn from(keys: PersonKeys) -> Self {
        Self {
            root_sign: keys.root_sign,
            root_kem: keys.root_kem,
            words_sign: Some(keys.words_sign),
            words_kem: Some(keys.words_kem),
        }
    }
}

impl Encode for MemberKeys {
    fn encode(&self, w: &mut Writer) {
        self.root_sign.encode(w);
        self.root_kem.encode(w);
        w.option(self.words_sign.as_ref());
        w.option(self.words_kem.as_ref());
    }
}

impl Decode for MemberKeys {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let keys = Self {
            root_sign: VerifyingKey::decode(r)?,
            root_kem: KemPublic::decode(r)?,
            words_sign: r.option()?,
            words_kem: r.option()?,
        };
        if keys.words_sign.is_some() != keys.words_kem.is_some() {
            return Err(WireError::Value("half of the keys of words"));
        }
        Ok(keys)
    }
}

/// A device that counts no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceRevoke {
    /// Whose.
    pub person: PersonId,
    /// The record of the person's key log that this one follows.
    pub previous: Hash32,
    /// The device.
    pub device: DeviceId,
    /// What counts of its lanes.
    pub cut: CutTips,
    /// Why.
    pub reason: EndReason,
}

/// A new member, or one who comes back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberAdd {
    /// Who; the id of his keys.
    pub person: PersonId,
    /// What people call him.
    pub name: Label,
    /// What he may do.
    pub role: Role,
    /// His keys.
    pub keys: MemberKeys,
    /// Which epochs he is given.
    pub history: History,
    /// When he is meant to leave. It decides nothing by itself: somebody has to remove him.
    pub until: Option<Timestamp>,
    /// Proves to him, and to who invited him, that this answers his invitation. Without it his keys came by another way.
    pub invitation: Option<[u8; 32]>,
}

/// Somebody who is no member any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberRemove {
    /// Who.
    pub person: PersonId,
    /// What counts of the lanes of his devices.
    pub cut: CutTips,
    /// Why.
    pub reason: EndReason,
}

/// What a member may do from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberRole {
    /// Who.
    pub person: PersonId,
    /// His role.
    pub role: Role,
    /// What counts of the lanes of his devices, if he may not write any more; else empty.
    pub cut: CutTips,
}

/// An earlier epoch for somebody who came later and may read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackLink {
    /// An epoch that lists him.
    pub epoch: EpochId,
    /// The one that is given.
    pub earlier: EpochId,
    /// For whom: the root of a person.
    pub recipient: Recipient,
    /// The key of the earlier epoch, wrapped.
    pub envelope: Envelope,
}

impl Encode for CutTip {
    fn encode(&self, w: &mut Writer) {
        self.lane.encode(w);
        w.u64(self.seq);
        self.commit.encode(w);
    }
}

impl Decode for CutTip {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            lane: LaneId::decode(r)?,
            seq: r.u64()?,
            commit: Hash32::decode(r)?,
        })
    }
}

fn read_cut(r: &mut Reader<'_>) -> Result<CutTips, WireError> {
    read_set(r, "lanes of a cut", CUT_LANES_MAX)
}

impl Encode for DeviceRevoke {
    fn encode(&self, w: &mut Writer) {
        self.person.encode(w);
        self.previous.encode(w);
        self.device.encode(w);
        w.list(&self.cut);
        self.reason.encode(w);
    }
}

impl Decode for DeviceRevoke {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            person: PersonId::decode(r)?,
            previous: Hash32::decode(r)?,
            device: DeviceId::decode(r)?,
            cut: read_cut(r)?,
            reason: EndReason::decode(r)?,
        })
    }
}

impl Encode for MemberAdd {
    fn encode(&self, w: &mut Writer) {
        self.person.encode(w);
        self.name.encode(w);
        self.role.encode(w);
        self.keys.encode(w);
        self.history.encode(w);
        w.option(self.until.as_ref());
        match &self.invitation {
            None => w.u8(0),
            Some(mac) => {
                w.u8(1);
                w.raw(mac);
            }
        }
    }
}

impl Decode for MemberAdd {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            person: PersonId::decode(r)?,
            name: Label::decode(r)?,
            role: Role::decode(r)?,
            keys: MemberKeys::decode(r)?,
            history: History::decode(r)?,
            until: r.option()?,
            invitation: r.option::<Hash32>()?.map(|mac| mac.0),
        })
    }
}

impl Encode for MemberRemove {
    fn encode(&self, w: &mut Writer) {
        self.person.encode(w);
        w.list(&self.cut);
        self.reason.encode(w);
    }
}

impl Decode for MemberRemove {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            person: PersonId::decode(r)?,
            cut: read_cut(r)?,
            reason: EndReason::decode(r)?,
        })
    }
}

impl Encode for MemberRole {
    fn encode(&self, w: &mut Writer) {
        self.person.encode(w);
        self.role.encode(w);
        w.list(&self.cut);
    }
}

impl Decode for MemberRole {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            person: PersonId::decode(r)?,
            role: Role::decode(r)?,
            cut: read_cut(r)?,
        })
    }
}

impl Encode for BackLink {
    fn encode(&self, w: &mut Writer) {
        self.epoch.encode(w);
        self.earlier.encode(w);
        self.recipient.encode(w);
        self.envelope.encode(w);
    }
}

impl Decode for BackLink {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            epoch: EpochId::decode(r)?,
            earlier: EpochId::decode(r)?,
            recipient: Recipient::decode(r)?,
            envelope: Envelope::decode(r)?,
        })
    }
}
