//! The root of a checkpoint: what it covers, its digest, and where its pages are. Signed inside, sealed outside.

use super::CheckpointFault;
use crate::apply::RULE_SET;
use crate::commit::CheckpointRef;
use crate::rows::RowKey;
use bytes::Bytes;
use skrin_base::limits::{CHECKPOINT_MAX, FORMAT_VERSION, PAGES_MAX};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, Entropy, EpochId, Hash32, LaneId, RoomId, Timestamp, VaultId};
use skrin_crypto::{
    CheckpointAad, DeviceSigner, EpochCommitment, Opened, RoomKeys, Roster, Signature,
    SignatureKind, hash, open, pad_pow2, seal, unpad_pow2,
};

const MAGIC: &[u8; 4] = b"SKRK";
const SIGNATURE_LEN: usize = 64;
/// Lanes that a checkpoint can cover.
const LANES_MAX: usize = 1 << 20;
const CONTROL_HEADS_MAX: usize = 256;
const KEY_MAX: usize = 1024;
/// Bits of `critical` that this program knows: none yet.
const KNOWN_CRITICAL: u32 = 0;

/// How far a checkpoint reaches in one lane, or in one branch of a lane that was forked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoveredLane {
    /// The lane.
    pub lane: LaneId,
    /// Whose.
    pub device: DeviceId,
    /// Which of the device's lanes.
    pub incarnation: u32,
    /// Number of the last commit with a Lamport time up to the floor.
    pub seq: u64,
    /// Hash of that commit.
    pub hash: Hash32,
    /// Its Lamport time.
    pub lamport: u64,
    /// When its device says that it was published.
    pub time: Timestamp,
    /// The last number that counts, if the lane was closed by a commit up to the floor; not above the highest that it holds.
    pub closed: Option<u64>,
}

/// A page, as the root names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageRef {
    /// Its random name.
    pub name: [u8; 16],
    /// BLAKE3 of the page object.
    pub hash: Hash32,
    /// BLAKE3 of its content.
    pub plain_hash: Hash32,
    /// Key of its first row.
    pub first_key: RowKey,
}

/// The signed body of a root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    /// Feature bits that a reader may ignore.
    pub optional: u32,
    /// The vault.
    pub vault: VaultId,
    /// The room.
    pub room: RoomId,
    /// Its own name.
    pub name: [u8; 16],
    /// The epoch under which root and pages are sealed.
    pub epoch: EpochId,
    /// That epoch's commitment.
    pub commitment: EpochCommitment,
    /// Who made it.
    pub device: DeviceId,
    /// When, by that device's clock.
    pub time: Timestamp,
    /// The floor.
    pub floor: u64,
    /// The checkpoint that stood before.
    pub parent: Option<CheckpointRef>,
    /// How far it reaches in each lane: the ends of its branches, ascending.
    pub covered: Vec<CoveredLane>,
    /// Heads of the control records that its maker had seen, ascending.
    pub control: Vec<Hash32>,
    /// The rule set by which it was folded.
    pub rules: u32,
    /// Number of rows.
    pub rows: u64,
    /// Digest of the rows.
    pub digest: Hash32,
    /// Its pages, in the order of keys.
    pub pages: Vec<PageRef>,
}

impl CoveredLane {
    /// The order of the list. A forked lane has several entries, of one device and with one end.
    fn precedes(&self, next: &Self) -> bool {
        let owner = |end: &Self| (end.device, end.incarnation, end.closed);
        let place = |end: &Self| (end.lane, end.seq, end.hash);
        place(self) < place(next) && (self.lane != next.lane || owner(self) == owner(next))
    }
}

impl Encode for CoveredLane {
    fn encode(&self, w: &mut Writer) {
        self.lane.encode(w);
        self.device.encode(w);
        w.u32(self.incarnation);
        w.u64(self.seq);
        self.hash.encode(w);
        w.u64(self.lamport);
        self.time.encode(w);
        w.option(self.closed.as_ref());
    }
}

impl Decode for CoveredLane {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            lane: LaneId::decode(r)?,
            device: DeviceId::decode(r)?,
            incarnation: r.u32()?,
            seq: r.u64()?,
            hash: Hash32::decode(r)?,
            lamport: r.u64()?,
            time: Timestamp::decode(r)?,
            closed: r.option()?,
        })
    }
}

impl Encode for PageRef {
    fn encode(&self, w: &mut Writer) {
        w.raw(&self.name);
        self.hash.encode(w);
        self.plain_hash.encode(w);
        w.bytes(&self.first_key);
    }
}

impl Decode for PageRef {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            name: r.array()?,
            hash: Hash32::decode(r)?,
            plain_hash: Hash32::decode(r)?,
            first_key: r.bytes("first key of a page", KEY_MAX)?.into(),
        })
    }
}

impl Encode for Root {
    fn encode(&self, w: &mut Writer) {
        w.u32(KNOWN_CRITICAL);
        w.u32(self.optional);
        self.vault.encode(w);
        self.room.encode(w);
        w.raw(&self.name);
        self.epoch.encode(w);
        self.commitment.encode(w);
        self.device.encode(w);
        self.time.encode(w);
        w.u64(self.floor);
        w.option(self.parent.as_ref());
        w.list(&self.covered);
        w.list(&self.control);
        w.u32(self.rules);
        w.u64(self.rows);
        self.digest.encode(w);
        w.list(&self.pages);
    }
}

impl Decode for Root {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let unknown = r.u32()? & !KNOWN_CRITICAL;
        if unknown != 0 {
            let (what, found) = ("feature of a checkpoint", u64::from(unknown));
            return Err(WireError::Unknown { what, found });
        }
        let root = Self {
            optional: r.u32()?,
            vault: VaultId::decode(r)?,
            room: RoomId::decode(r)?,
            name: r.array()?,
            epoch: EpochId::decode(r)?,
            commitment: EpochCommitment::decode(r)?,
            device: DeviceId::decode(r)?,
            time: Timestamp::decode(r)?,
            floor: r.u64()?,
            parent: r.option()?,
            covered: r.list("covered lanes", LANES_MAX)?,
            control: r.list("control heads", CONTROL_HEADS_MAX)?,
            rules: r.u32()?,
            rows: r.u64()?,
            digest: Hash32::decode(r)?,
            pages: r.list("pages", PAGES_MAX)?,
        };
        // Parts of one row may fill several pages, so first keys may repeat.
        let ends_within = |ends: &[CoveredLane]| {
            let last = ends.last().map(|end| end.seq);
            ends.iter().all(|end| end.closed <= end.closed.and(last))
        };
        let of_lanes = root.covered.chunk_by(|a, b| a.lane == b.lane);
        if !of_lanes.into_iter().all(ends_within) {
            return Err(WireError::Value("end of a lane beyond a checkpoint"));
        }
        let in_order = root.covered.is_sorted_by(CoveredLane::precedes)
            && root.control.is_sorted_by(|a, b| a < b)
            && root.pages.is_sorted_by(|a, b| a.first_key <= b.first_key);
        match in_order {
            true => Ok(root),
            false => Err(WireError::Value("order of a checkpoint's lists")),
        }
    }
}

fn aad(keys: &RoomKeys, checkpoint: [u8; 16]) -> CheckpointAad {
    CheckpointAad {
        vault: keys.vault(),
        room: keys.room(),
        checkpoint,
    }
}

/// Signs and seals a root under the epoch that it names.
///
/// # Errors
/// `UnknownEpoch`; `Wire` when it is above the limit.
pub fn seal_root(
    root: &Root,
    keys: &RoomKeys,
    signer: &DeviceSigner,
    entropy: &dyn Entropy,
) -> Result<(CheckpointRef, Bytes), CheckpointFault> {
    let key = keys.checkpoint_key(&root.epoch);
    // The name stands where a commit's hint has the lane.
    let hint = keys.hint(&root.epoch, LaneId(root.name));
    let (Some(key), Some(hint)) = (key, hint) else {
        return Err(CheckpointFault::UnknownEpoch);
    };
    let mut plain = zeroize::Zeroizing::new(root.to_bytes());
    let signature = signer.sign(SignatureKind::Checkpoint, &plain);
    plain.extend_from_slice(&signature.0);
    if plain.len() > CHECKPOINT_MAX / 2 {
        let (what, found) = ("checkpoint root", plain.len() as u64);
        let limit = CHECKPOINT_MAX as u64 / 2;
        return Err(WireError::Limit { what, found, limit }.into());
    }
    let mut w = Writer::default();
    w.raw(MAGIC);
    w.u8(FORMAT_VERSION);
    w.raw(&hint);
    w.raw(&seal(
        &key,
        &aad(keys, root.name),
        &pad_pow2(&plain),
        entropy,
    ));
    let bytes = Bytes::from(w.into_bytes());
    let reference = CheckpointRef {
        name: root.name,
        hash: hash(&bytes),
        floor: root.floor,
    };
    Ok((reference, bytes))
}

/// Opens the root object that a commit names and checks everything but the rows.
///
/// # Errors
/// The first thing that is wrong.
pub fn open_root(
    expected: &CheckpointRef,
    bytes: &[u8],
    keys: &RoomKeys,
    roster: &Roster,
) -> Result<Root, CheckpointFault> {
    if hash(bytes) != expected.hash {
        return Err(CheckpointFault::Hash);
    }
    let mut r = Reader::new(bytes);
    if r.raw(MAGIC.len()) != Ok(MAGIC) {
        return Err(CheckpointFault::Magic);
    }
    match r.u8()? {
        FORMAT_VERSION => {}
        version => return Err(CheckpointFault::Version(version)),
    }
    let hint = r.array()?;
    let epoch = keys.epoch_by_hint(LaneId(expected.name), &hint);
    let epoch = epoch.ok_or(CheckpointFault::UnknownEpoch)?;
    let key = keys
        .checkpoint_key(&epoch)
        .ok_or(CheckpointFault::UnknownEpoch)?;
    let plain = unpad_pow2(open(&key, &aad(keys, expected.name), r.rest())?)?;
    let root = verify(&plain, roster)?;
    let places = [
        (root.vault == keys.vault(), "vault"),
        (root.room == keys.room(), "room"),
        (root.name == expected.name, "name"),
        (root.floor == expected.floor, "floor"),
        (root.epoch == epoch, "epoch"),
        (
            keys.commitment(&epoch) == Some(root.commitment),
            "epoch commitment",
        ),
    ];
    if let Some((_, what)) = places.iter().find(|(same, _)| !same) {
        return Err(CheckpointFault::Place(what));
    }
    check_ends(&root, keys)?;
    let mut unknown = root.control.iter().filter(|record| !roster.stands(record));
    if let Some(record) = unknown.next() {
        return Err(CheckpointFault::UnknownControl(*record));
    }
    match root.rules {
        RULE_SET => Ok(root),
        other => Err(CheckpointFault::RuleSet(other)),
    }
}

/// What the root says of the ends of lanes, as far as no commit is needed to refute it: who begins with it computes by that.
fn check_ends(root: &Root, keys: &RoomKeys) -> Result<(), CheckpointFault> {
    for end in &root.covered {
        if end.lane != keys.lane_id(end.device, end.incarnation) {
            return Err(CheckpointFault::Place("device of a lane"));
        }
        if end.lamport > root.floor {
            return Err(WireError::Value("time of a lane above the floor").into());
        }
    }
    Ok(())
}

fn verify(plain: &Opened, roster: &Roster) -> Result<Root, CheckpointFault> {
    let split = plain.len().checked_sub(SIGNATURE_LEN);
    let (body, signature) = split
        .and_then(|at| plain.split_at_checked(at))
        .ok_or(WireError::Short)?;
    let signature = Signature::from_bytes(signature)?;
    let root = Root::from_bytes(body)?;
    let device = root.device;
    let known = roster.devices.get(&device);
    let known = known.ok_or(CheckpointFault::UnknownDevice(device))?;
    known
        .key
        .verify(SignatureKind::Checkpoint, body, &signature)
        .map_err(|source| CheckpointFault::Signature { device, source })?;
    Ok(root)
}
