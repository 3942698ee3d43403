//! The one total order of a room's commits (docs/format/lanes.md, section 5).

use skrin_base::{Hash32, LaneId, RoomId};

/// Bytes of an order key: Lamport time, tie-break, sequence number, commit hash.
pub const ORDER_LEN: usize = 8 + 32 + 8 + 32;

/// The place of a commit in the total order: (Lamport time, BLAKE3(room, lane), seq, commit hash),
/// as bytes that compare the same way. It respects causality, because a commit's Lamport time is
/// above that of everything it has seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OrderKey([u8; ORDER_LEN]);

impl OrderKey {
    /// The place of the commit `hash`, number `seq` of `lane`.
    pub fn new(room: RoomId, lane: LaneId, lamport: u64, seq: u64, hash: &Hash32) -> Self {
        let mut tie = blake3::Hasher::new();
        tie.update(room.as_bytes()).update(lane.as_bytes());
        let mut key = [0; ORDER_LEN];
        key[..8].copy_from_slice(&lamport.to_be_bytes());
        key[8..40].copy_from_slice(tie.finalize().as_bytes());
        key[40..48].copy_from_slice(&seq.to_be_bytes());
        key[48..].copy_from_slice(hash.as_bytes());
        Self(key)
    }

    /// The Lamport time in it.
    pub fn lamport(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(bytes)
    }

    /// The id of the commit in it.
    pub fn commit(&self) -> Hash32 {
        let mut id = [0; 32];
        id.copy_from_slice(&self.0[48..]);
        Hash32(id)
    }

    /// The smallest key with a Lamport time above `lamport`.
    pub fn after(lamport: u64) -> Self {
        let mut key = [0; ORDER_LEN];
        key[..8].copy_from_slice(&lamport.saturating_add(1).to_be_bytes());
        Self(key)
    }

    /// The bytes; they compare as keys do.
    pub fn as_bytes(&self) -> &[u8; ORDER_LEN] {
        &self.0
    }

    /// From what `as_bytes` gave.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(lamport: u64, lane: u8, seq: u64, hash: u8) -> OrderKey {
        let (room, lane) = (RoomId([9; 16]), LaneId([lane; 16]));
        OrderKey::new(room, lane, lamport, seq, &Hash32([hash; 32]))
    }

    proptest! {
        #[test]
        fn lamport_time_decides_first_whatever_the_rest(a: [u64; 2], b: [u64; 2], lanes: [u8; 2]) {
            let (x, y) = (key(a[0], lanes[0], a[1], 0), key(b[0], lanes[1], b[1], 255));
            if a[0] != b[0] {
                prop_assert_eq!(x < y, a[0] < b[0]);
            }
            prop_assert_eq!(x.lamport(), a[0]);
            prop_assert_eq!(OrderKey::from_bytes(x.as_bytes()), Some(x));
        }

        #[test]
        fn within_a_lane_and_time_sequence_then_hash_decide(seqs: [u64; 2], hashes: [u8; 2]) {
            let (x, y) = (key(7, 1, seqs[0], hashes[0]), key(7, 1, seqs[1], hashes[1]));
            prop_assert_eq!(x.cmp(&y), (seqs[0], hashes[0]).cmp(&(seqs[1], hashes[1])));
        }
    }

    #[test]
    fn the_key_after_a_time_lies_between_it_and_the_next() {
        assert!(OrderKey::after(7) > key(7, 255, u64::MAX, 255));
        assert!(OrderKey::after(7) < key(8, 0, 0, 0));
    }

    #[test]
    fn ties_are_broken_by_a_hash_that_cannot_be_ground_by_the_device_id_alone() {
        // The vector of docs/format/lanes.md, section 5.
        let expected = blake3::hash(&[[9u8; 16], [1; 16]].concat());
        assert_eq!(&key(1, 1, 0, 0).as_bytes()[8..40], expected.as_bytes());
    }
}
