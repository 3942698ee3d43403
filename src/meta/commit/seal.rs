//! How a commit becomes an object and is believed again: signed inside, sealed outside.

use super::Commit;
use crate::lane::Head;
use bytes::Bytes;
use skrin_base::limits::{COMMIT_MAX, FORMAT_VERSION};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, Entropy, EpochId, Hash32, LaneId, PersonId, SegmentId};
use skrin_crypto::{
    BadSignature, CommitAad, DeviceSigner, OpenError, Opened, RoomKeys, Roster, Signature,
    SignatureKind, commit_id, open, pad_pow2, seal, unpad_pow2,
};
use std::sync::Arc;
use thiserror::Error;

const MAGIC: &[u8; 4] = b"SKRC";
const SIGNATURE_LEN: usize = 64;
/// How many of a device's lanes a declaration may reach back.
const INCARNATIONS_BACK: usize = 4096;
/// Magic, version, hint, count, nonce, tag and padding: what the body may not use of `COMMIT_MAX`.
const OVERHEAD: usize = 4 + 1 + 8;

/// Why an object is not a commit that counts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The storage does not give its bytes, though it is there.
    #[error("the storage does not give its bytes as a whole")]
    Bytes,
    /// It opens, and says something else than its name promises.
    #[error("it is another commit than its name promises")]
    Name,
    /// It does not begin as a commit does.
    #[error("it does not begin as a commit does")]
    Magic,
    /// A later version of the format.
    #[error("it has format version {0}, this program reads up to {FORMAT_VERSION}: update it")]
    Version(u8),
    /// Sealed under an epoch whose key is not known here.
    #[error(
        "it is sealed under an epoch that this device has no key of: refresh the control records"
    )]
    UnknownEpoch,
    /// Sealed bytes that do not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Contents that are not canonical, or newer than this program.
    #[error("its contents are malformed: {0}")]
    Wire(#[from] WireError),
    /// It says that it belongs to another place.
    #[error("it says another {0} than the place where it lies")]
    Place(&'static str),
    /// It says another epoch or commitment than the one that opened it.
    #[error("it says another epoch than {0}, whose key opened it")]
    Epoch(EpochId),
    /// Signed by nobody that is known.
    #[error("device {0} is not in the control records: refresh them")]
    UnknownDevice(DeviceId),
    /// It was made by somebody who has seen more control records.
    #[error("it names control record {0}, which the storage does not show here: refresh them")]
    UnknownControl(Hash32),
    /// Its device's person may not write, as far as the control records say that it names.
    #[error(
        "device {label} ({device}) of person {person} may not write here, by the control records that it names"
    )]
    NoRight {
        /// Who signed it.
        device: DeviceId,
        /// What people call that device.
        label: String,
        /// Whose that device is.
        person: PersonId,
    },
    /// Not signed by the device.
    #[error("device {device}: {source}")]
    Signature {
        /// Who is said to have signed it.
        device: DeviceId,
        /// What is wrong.
        source: BadSignature,
    },
    /// The lane belongs to another device.
    #[error("the lane is not one of device {0}")]
    Lane(DeviceId),
    /// It declares a segment that is not one of its device.
    #[error("it declares segment {0}, which is not one of its device")]
    Segment(SegmentId),
    /// It has operations under another device's id.
    #[error("it has an operation of device {0}, which only that device's own commits may have")]
    Operation(DeviceId),
    /// Another commit precedes it than it says.
    #[error("it does not follow the commit before it")]
    Chain,
    /// The Lamport time is computed, not declared.
    #[error("it says Lamport time {said}, but what it follows gives {computed}")]
    Lamport {
        /// What it says.
        said: u64,
        /// What it must say.
        computed: u64,
    },
    /// More than fits in a commit; only making one can fail so.
    #[error("{0} bytes are too many for one commit")]
    TooLong(usize),
}

impl Fault {
    /// Whether only these bytes are bad: others of the same name may be good. Everything that is found after the id was
    /// compared is the commit's own fault, but for the key under which it was sealed.
    pub(crate) fn is_of_the_bytes(&self) -> bool {
        match self {
            Self::Bytes | Self::Name | Self::Magic | Self::Version(_) => true,
            Self::UnknownEpoch | Self::Epoch(_) | Self::Open(_) => true,
            Self::Wire(_)
            | Self::Place(_)
            | Self::UnknownDevice(_)
            | Self::UnknownControl(_)
            | Self::NoRight { .. }
            | Self::Signature { .. }
            | Self::Lane(_)
            | Self::Segment(_)
            | Self::Operation(_)
            | Self::Chain
            | Self::Lamport { .. }
            | Self::TooLong(_) => false,
        }
    }

    /// Whether newer control records may cure it.
    pub fn may_be_cured(&self) -> bool {
        matches!(
            self,
            Self::UnknownEpoch | Self::UnknownDevice(_) | Self::UnknownControl(_)
        )
    }

    /// Whether only a newer program can read it.
    pub fn is_newer(&self) -> bool {
        matches!(
            self,
            Self::Version(_) | Self::Wire(WireError::Unknown { .. })
        )
    }
}

/// A sealed commit with its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedCommit {
    /// Its exact name.
    pub head: Head,
    /// The whole object.
    pub bytes: Bytes,
}

/// A commit whose seal, signature and place were checked; whether what it follows is as it says is checked
/// where that is known.
#[derive(Clone, Debug)]
pub struct CheckedCommit {
    head: Head,
    commit: Arc<Commit>,
    len: usize,
}

impl CheckedCommit {
    /// Length of the object in bytes; 0 if it came from the local cache.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Its exact name.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What it says.
    pub fn commit(&self) -> &Arc<Commit> {
        &self.commit
    }

    /// Rebuilds what was checked before it was put into the (authenticated) local cache.
    pub(crate) fn from_cache(head: Head, commit: Arc<Commit>) -> Self {
        Self {
            head,
            commit,
            len: 0,
        }
    }
}

fn aad(commit_keys: &RoomKeys, lane: LaneId, seq: u64) -> CommitAad {
    CommitAad {
        vault: commit_keys.vault(),
        room: commit_keys.room(),
        lane,
        seq,
    }
}

/// Signs and seals a commit under the epoch that it names.
///
/// # Errors
/// `UnknownEpoch`; `TooLong` when the object would be above the limit.
pub fn seal_commit(
    commit: &Commit,
    keys: &RoomKeys,
    signer: &DeviceSigner,
    entropy: &dyn Entropy,
) -> Result<SealedCommit, Fault> {
    let lane_key = keys.lane_key(&commit.epoch, commit.lane);
    let hint = keys.hint(&commit.epoch, commit.lane);
    let (Some(lane_key), Some(hint)) = (lane_key, hint) else {
        return Err(Fault::UnknownEpoch);
    };
    let mut plain = zeroize::Zeroizing::new(commit.to_bytes());
    let signature = signer.sign(SignatureKind::Commit, &plain);
    plain.extend_from_slice(&signature.0);
    let padded = pad_pow2(&plain);
    if padded.len() + skrin_crypto::SEAL_OVERHEAD + OVERHEAD > COMMIT_MAX {
        return Err(Fault::TooLong(plain.len()));
    }
    let sealed = seal(
        &lane_key,
        &aad(keys, commit.lane, commit.seq),
        &padded,
        entropy,
    );
    let mut w = Writer::default();
    w.raw(MAGIC);
    w.u8(FORMAT_VERSION);
    w.raw(&hint);
    w.raw(&sealed);
    let bytes = Bytes::from(w.into_bytes());
    let head = Head {
        lane: commit.lane,
        seq: commit.seq,
        hash: commit_id(&plain),
    };
    Ok(SealedCommit { head, bytes })
}

/// Opens the object that `head` names and checks everything that does not need another commit.
///
/// # Errors
/// The first thing that is wrong.
pub fn open_commit(
    head: &Head,
    bytes: &[u8],
    keys: &RoomKeys,
    roster: &Roster,
) -> Result<CheckedCommit, Fault> {
    let mut r = Reader::new(bytes);
    if r.raw(MAGIC.len()) != Ok(MAGIC) {
        return Err(Fault::Magic);
    }
    let version = r.u8().map_err(|_| Fault::Magic)?;
    if version == 0 || version > FORMAT_VERSION {
        return Err(Fault::Version(version));
    }
    let hint = r.array().map_err(|_| Fault::Magic)?;
    let epoch = keys.epoch_by_hint(head.lane, &hint);
    let epoch = epoch.ok_or(Fault::UnknownEpoch)?;
    let lane_key = keys.lane_key(&epoch, head.lane);
    let lane_key = lane_key.ok_or(Fault::UnknownEpoch)?;
    let plain = open(&lane_key, &aad(keys, head.lane, head.seq), r.rest())?;
    let plain = unpad_pow2(plain)?;
    if commit_id(&plain) != head.hash {
        return Err(Fault::Name);
    }
    let commit = verify(&plain, roster)?;
    check_place(&commit, head, &epoch, keys)?;
    check_segments(&commit, keys)?;
    check_operations(&commit)?;
    check_rights(&commit, roster)?;
    Ok(CheckedCommit {
        head: *head,
        commit: Arc::new(commit),
        len: bytes.len(),
    })
}

fn verify(plain: &Opened, roster: &Roster) -> Result<Commit, Fault> {
    let split = plain.len().checked_sub(SIGNATURE_LEN);
    let (body, signature) = split
        .and_then(|at| plain.split_at_checked(at))
        .ok_or(WireError::Short)?;
    let signature = Signature::from_bytes(signature)?;
    let commit = Commit::from_bytes(body)?;
    let device = commit.device;
    let known = roster.devices.get(&device);
    let known = known.ok_or(Fault::UnknownDevice(device))?;
    known
        .key
        .verify(SignatureKind::Commit, body, &signature)
        .map_err(|source| Fault::Signature { device, source })?;
    Ok(commit)
}

fn check_place(
    commit: &Commit,
    head: &Head,
    epoch: &EpochId,
    keys: &RoomKeys,
) -> Result<(), Fault> {
    let places = [
        (commit.vault == keys.vault(), "vault"),
        (commit.room == keys.room(), "room"),
        (commit.lane == head.lane, "lane"),
        (commit.seq == head.seq, "number"),
    ];
    if let Some((_, what)) = places.iter().find(|(same, _)| !same) {
        return Err(Fault::Place(what));
    }
    if commit.epoch != *epoch || keys.commitment(epoch) != Some(commit.commitment) {
        return Err(Fault::Epoch(*epoch));
    }
    if keys.lane_id(commit.device, commit.incarnation) != head.lane {
        return Err(Fault::Lane(commit.device));
    }
    if (commit.seq == 0) != (commit.prev == Hash32::default()) {
        return Err(Fault::Chain);
    }
    let own = |other: &&Head| other.lane == commit.lane;
    if commit.heads.iter().any(|head| own(&head)) {
        return Err(Fault::Chain);
    }
    let itself = |head: &Head| head.seq == commit.seq && head.hash == Hash32::default();
    if commit.closes.iter().filter(own).any(|head| !itself(head)) {
        return Err(Fault::Place("end of its own lane"));
    }
    Ok(())
}

/// Newer control records may cure the first of these, so it comes last of what does not depend on them.
fn check_rights(commit: &Commit, roster: &Roster) -> Result<(), Fault> {
    let mut named = commit.control.iter();
    if let Some(record) = named.find(|record| !roster.stands(record)) {
        return Err(Fault::UnknownControl(*record));
    }
    let device = commit.device;
    if roster.rights.may_write(device, &commit.control) {
        return Ok(());
    }
    let known = roster.devices.get(&device);
    let known = known.ok_or(Fault::UnknownDevice(device))?;
    Err(Fault::NoRight {
        device,
        label: known.label.clone(),
        person: known.person,
    })
}

/// Only its author declares a segment: the first declaration stands, and whoever came first could make the blocks of
/// others unreadable. The author may be an earlier lane of the same device.
fn check_segments(commit: &Commit, keys: &RoomKeys) -> Result<(), Fault> {
    let mut author = commit.lane;
    for segment in &commit.segments {
        let lanes = (0..=commit.incarnation).rev().take(INCARNATIONS_BACK);
        let mut own = lanes.map(|incarnation| keys.lane_id(commit.device, incarnation));
        if segment.author != author && !own.any(|lane| lane == segment.author) {
            return Err(Fault::Segment(segment.id));
        }
        author = segment.author;
        if keys.segment_id(author, segment.number) != segment.id {
            return Err(Fault::Segment(segment.id));
        }
    }
    Ok(())
}

/// Nobody may use up the operation ids of another device: its own operations would then be duplicates. When
/// operations can be adopted, this asks for the record that allows it.
fn check_operations(commit: &Commit) -> Result<(), Fault> {
    let mut devices = commit.ops.iter().map(|op| op.id.device);
    let foreign = devices.find(|device| *device != commit.device);
    foreign.map_or(Ok(()), |device| Err(Fault::Operation(device)))
}
