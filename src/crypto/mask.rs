//! The mask of sealed blocks that were copied to another segment: the storage shall not see that bytes of the one are those of the other.
//! It hides nothing else and proves nothing: the bytes are sealed, and their hash is known.

use crate::kdf::kdf;
use crate::keys::TableKey;
use skrin_base::VaultId;
use skrin_base::ids::{RoomId, SegmentId};

/// Bytes of the mask that are made at once.
const PART: usize = 4096;

/// Puts the mask of a slot on bytes, or takes it off: the BLAKE3 output stream keyed with kdf(table key of the host, "copy", room, host,
/// slot). A slot is written once, so that no stream is used for two texts.
pub fn mask_copy(
    key: &TableKey,
    vault: VaultId,
    room: RoomId,
    host: SegmentId,
    slot: u32,
    bytes: &mut [u8],
) {
    let key = kdf(key.raw(), vault, "copy", &[&room, &host, &u64::from(slot)]);
    let mut stream = blake3::Hasher::new_keyed(&key).finalize_xof();
    let mut mask = [0; PART];
    for part in bytes.chunks_mut(PART) {
        let mask = &mut mask[..part.len()];
        stream.fill(mask);
        part.iter_mut().zip(mask).for_each(|(b, m)| *b ^= *m);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(table: u8, vault: u8, room: u8, host: u8, slot: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        mask_copy(
            &TableKey::from_bytes([table; 32]),
            VaultId([vault; 16]),
            RoomId([room; 16]),
            SegmentId([host; 16]),
            slot,
            &mut bytes,
        );
        bytes
    }

    #[test]
    fn a_mask_taken_off_leaves_what_was_there_and_each_slot_has_its_own() {
        let base = masked(1, 2, 3, 4, 5, 10_000);
        let mut bytes = base.clone();
        mask_copy(
            &TableKey::from_bytes([1; 32]),
            VaultId([2; 16]),
            RoomId([3; 16]),
            SegmentId([4; 16]),
            5,
            &mut bytes,
        );
        assert_eq!(bytes, vec![0; 10_000]);
        assert_eq!(masked(1, 2, 3, 4, 5, 5000), base[..5000]);
        for other in [
            masked(9, 2, 3, 4, 5, 64),
            masked(1, 9, 3, 4, 5, 64),
            masked(1, 2, 9, 4, 5, 64),
            masked(1, 2, 3, 9, 5, 64),
            masked(1, 2, 3, 4, 9, 64),
        ] {
            assert_ne!(other, base[..64]);
        }
        // The stream does not repeat itself.
        assert_ne!(base[..PART], base[PART..2 * PART]);
    }
}
