//! Names on the storage: opaque to it, computable by members.

use crate::keys::{LaneNameKey, SegmentNameKey, blake3_hash, keyed_id};
use skrin_base::DeviceId;
use skrin_base::ids::{EpochId, Hash32, LaneId, SegmentId};
use skrin_base::wire::{Encode, Writer};

/// BLAKE3-256.
pub fn hash(bytes: &[u8]) -> Hash32 {
    blake3_hash(bytes)
}

/// The id of a commit: a hash of its body and signature, whatever seal they are in. Whoever seals them once more makes
/// no other commit.
pub fn commit_id(content: &[u8]) -> Hash32 {
    content_id("skrin/v1/commit-id", content)
}

/// The id of a control record: a hash of its body, signature and attachment, whatever seal they are in.
pub fn control_id(content: &[u8]) -> Hash32 {
    content_id("skrin/v1/control-id", content)
}

fn content_id(label: &str, content: &[u8]) -> Hash32 {
    let mut w = Writer::default();
    w.bytes(label.as_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&w.into_bytes());
    hasher.update(content);
    Hash32(*hasher.finalize().as_bytes())
}

/// The lane in which `device` writes; another incarnation (after a close or a clone) is another lane.
pub fn lane_id(key: &LaneNameKey, device: DeviceId, incarnation: u32) -> LaneId {
    let mut w = Writer::default();
    device.encode(&mut w);
    w.u32(incarnation);
    LaneId(keyed_id(key.raw(), &w.into_bytes()))
}

/// The `n`-th segment that `lane` writes.
pub fn segment_id(key: &SegmentNameKey, lane: LaneId, n: u64) -> SegmentId {
    let mut w = Writer::default();
    lane.encode(&mut w);
    w.u64(n);
    SegmentId(keyed_id(key.raw(), &w.into_bytes()))
}

/// The first bytes of the ids of file keys that are drawn under an epoch.
pub(crate) fn key_tag(epoch: &EpochId) -> [u8; 8] {
    let hash = content_id("skrin/v1/key-epoch", epoch.as_bytes());
    std::array::from_fn(|at| hash.0[at])
}
