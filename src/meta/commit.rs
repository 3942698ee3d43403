//! A commit: a batch of operations of one device with everything that makes it believable
//! (docs/format/lanes.md, sections 3 and 4).

mod seal;

pub use seal::{CheckedCommit, Fault, SealedCommit, open_commit, seal_commit};

use crate::lane::Head;
use crate::op::Op;
use skrin_base::limits::{COMMIT_MAX, COMMIT_OPS_MAX, HEADS_MAX};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, EpochId, Hash32, LaneId, RoomId, SegmentInfo, Timestamp, VaultId};
use skrin_crypto::EpochCommitment;

/// Control heads of one commit: more than concurrent control records make sense.
const CONTROL_HEADS_MAX: usize = 256;
/// Statements about checkpoints in one commit.
const VERDICTS_MAX: usize = 64;
/// Segment numbers that one commit may call abandoned.
const ABANDONED_MAX: usize = 65_536;
/// Length of an encoded head.
const HEAD_LEN: usize = 16 + 8 + 32;
/// Bits of `critical` that this program knows: none yet.
const KNOWN_CRITICAL: u32 = 0;

/// Which checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CheckpointRef {
    /// Its random name.
    pub name: [u8; 16],
    /// BLAKE3 of the whole root object.
    pub hash: Hash32,
    /// The floor: it holds the fold of all valid commits with at most this Lamport time.
    pub floor: u64,
}

/// What a device says of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Opinion {
    /// It made it.
    Propose = 1,
    /// It computed the same digest.
    Confirm = 2,
    /// It computed another digest.
    Refute = 3,
    /// It needs nothing of what was before: neither what it has not published yet nor what it has open names contents that the
    /// state at that checkpoint, or what came after it, does not name.
    Release = 4,
}

/// A device's statement about a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Made, confirmed or refuted.
    pub opinion: Opinion,
    /// Which one.
    pub checkpoint: CheckpointRef,
    /// The digest of the state at its floor, as this device computed it.
    pub digest: Hash32,
}

/// Which segments of a lane may still come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decided {
    /// All numbers below are decided: declared by now, or abandoned.
    pub below: u64,
    /// Those that were abandoned since the lane's previous commit, ascending.
    pub abandoned: Vec<u64>,
}

/// The signed body of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Feature bits that a reader may ignore.
    pub optional: u32,
    /// The vault.
    pub vault: VaultId,
    /// The room.
    pub room: RoomId,
    /// The lane.
    pub lane: LaneId,
    /// Which of the device's lanes it is.
    pub incarnation: u32,
    /// The number in the lane, from 0.
    pub seq: u64,
    /// Id of the lane's previous commit; zeros for the first.
    pub prev: Hash32,
    /// The epoch under which it is sealed.
    pub epoch: EpochId,
    /// That epoch's commitment.
    pub commitment: EpochCommitment,
    /// Heads of the control records that the device had seen, ascending.
    pub control: Vec<Hash32>,
    /// Who wrote it.
    pub device: DeviceId,
    /// 1 + the maximum over everything that it follows; recomputed by every reader.
    pub lamport: u64,
    /// Heads of other lanes that changed since the lane's previous commit, ascending.
    pub heads: Vec<Head>,
    /// When it was published, by the device's clock. For people only.
    pub time: Timestamp,
    /// The checkpoint that stands, as far as the device has seen.
    pub standing: Option<CheckpointRef>,
    /// Which segments of this lane may still come.
    pub decided: Decided,
    /// What the device says of checkpoints.
    pub verdicts: Vec<Verdict>,
    /// Segments that the operations use, with how to find and believe their tables.
    pub segments: Vec<SegmentInfo>,
    /// Lanes that end: nothing after the named commit counts. The own lane ends with this commit, named by its
    /// number and a hash of zeros.
    pub closes: Vec<Head>,
    /// What happened.
    pub ops: Vec<Op>,
}

impl Encode for CheckpointRef {
    fn encode(&self, w: &mut Writer) {
        w.raw(&self.name);
        self.hash.encode(w);
        w.u64(self.floor);
    }
}

impl Decode for CheckpointRef {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            name: r.array()?,
            hash: Hash32::decode(r)?,
            floor: r.u64()?,
        })
    }
}

impl Encode for Verdict {
    fn encode(&self, w: &mut Writer) {
        w.u8(self.opinion as u8);
        self.checkpoint.encode(w);
        self.digest.encode(w);
    }
}

impl Decode for Verdict {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let opinion = match r.u8()? {
            1 => Opinion::Propose,
            2 => Opinion::Confirm,
            3 => Opinion::Refute,
            4 => Opinion::Release,
            _ => return Err(WireError::Value("opinion of a checkpoint")),
        };
        Ok(Self {
            opinion,
            checkpoint: CheckpointRef::decode(r)?,
            digest: Hash32::decode(r)?,
        })
    }
}

impl Encode for Decided {
    fn encode(&self, w: &mut Writer) {
        w.u64(self.below);
        w.list(&self.abandoned);
    }
}

impl Decode for Decided {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let below = r.u64()?;
        let n = r.count("abandoned segments", ABANDONED_MAX, 8)?;
        let abandoned: Vec<u64> = (0..n).map(|_| r.u64()).collect::<Result<_, _>>()?;
        ascending(&abandoned, "order of abandoned segments")?;
        if abandoned.last().is_some_and(|last| *last >= below) {
            return Err(WireError::Value("abandoned segment"));
        }
        Ok(Self { below, abandoned })
    }
}

fn ascending<T: Ord>(items: &[T], what: &'static str) -> Result<(), WireError> {
    match items.is_sorted_by(|a, b| a < b) {
        true => Ok(()),
        false => Err(WireError::Value(what)),
    }
}

fn heads(r: &mut Reader<'_>, what: &'static str) -> Result<Vec<Head>, WireError> {
    let n = r.count(what, HEADS_MAX, HEAD_LEN)?;
    let heads: Vec<Head> = (0..n).map(|_| Head::decode(r)).collect::<Result<_, _>>()?;
    ascending(&heads, what)?;
    Ok(heads)
}

impl Encode for Commit {
    fn encode(&self, w: &mut Writer) {
        w.u32(KNOWN_CRITICAL);
        w.u32(self.optional);
        self.vault.encode(w);
        self.room.encode(w);
        self.lane.encode(w);
        w.u32(self.incarnation);
        w.u64(self.seq);
        self.prev.encode(w);
        self.epoch.encode(w);
        self.commitment.encode(w);
        w.list(&self.control);
        self.device.encode(w);
        w.u64(self.lamport);
        w.list(&self.heads);
        self.time.encode(w);
        w.option(self.standing.as_ref());
        self.decided.encode(w);
        w.list(&self.verdicts);
        w.list(&self.segments);
        w.list(&self.closes);
        w.count(self.ops.len());
        for op in &self.ops {
            op.encode_in_commit(self.device, w);
        }
    }
}

fn critical(r: &mut Reader<'_>) -> Result<(), WireError> {
    match r.u32()? & !KNOWN_CRITICAL {
        0 => Ok(()),
        unknown => Err(WireError::Unknown {
            what: "feature of a commit",
            found: u64::from(unknown),
        }),
    }
}

impl Decode for Commit {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        critical(r)?;
        let mut commit = Self {
            optional: r.u32()?,
            vault: VaultId::decode(r)?,
            room: RoomId::decode(r)?,
            lane: LaneId::decode(r)?,
            incarnation: r.u32()?,
            seq: r.u64()?,
            prev: Hash32::decode(r)?,
            epoch: EpochId::decode(r)?,
            commitment: EpochCommitment::decode(r)?,
            control: r.list("control heads", CONTROL_HEADS_MAX)?,
            device: DeviceId::decode(r)?,
            lamport: r.u64()?,
            heads: heads(r, "heads")?,
            time: Timestamp::decode(r)?,
            standing: r.option()?,
            decided: Decided::decode(r)?,
            verdicts: r.list("statements about checkpoints", VERDICTS_MAX)?,
            segments: r.list("segments of a commit", COMMIT_MAX / 140)?,
            closes: heads(r, "closed lanes")?,
            ops: Vec::new(),
        };
        ascending(&commit.control, "order of control heads")?;
        let n = r.count("operations", COMMIT_OPS_MAX, 18)?;
        let device = commit.device;
        commit.ops = (0..n)
            .map(|_| Op::decode_in_commit(device, r))
            .collect::<Result<_, _>>()?;
        Ok(commit)
    }
}

impl Commit {
    /// Whether the lane ends with this commit, by its own word.
    pub fn closes_itself(&self) -> bool {
        let own = |head: &Head| head.lane == self.lane && head.seq == self.seq;
        self.closes.iter().any(own)
    }
}

#[cfg(test)]
mod tests;
