//! Decoders are total, and accept one encoding only. The randomness is seeded: the same every time.

use super::*;
use crate::control::open_record;
use crate::epoch::decode_envelopes;
use crate::slot::Slot;
use crate::{HEADER_NAME, Header};
use skrin_base::Entropy;
use skrin_base::wire::{Decode, Encode};

/// The bodies and attachments of a vault with a device: every tag but SlotRemove and Optional.
async fn bodies() -> Vec<(Vec<u8>, Vec<u8>)> {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let mut room = w.room().await;
    let device = w.device().await;
    unlocked
        .certify_device(&w.store, &mut room, &device, "laptop", &w.clock, &w.entropy)
        .await
        .unwrap();
    let (vault, id) = (unlocked.vault(), unlocked.root_room());
    let key = unlocked.control_key(id);
    let open = |name: &ObjectName| {
        let hash = Hash32::from_hex(name.file_name()).unwrap();
        let opened = open_record(&key, vault, id, hash, &w.bytes(name)).unwrap();
        (opened.body.to_bytes(), opened.attachment)
    };
    w.names("rooms/").iter().map(open).collect()
}

#[tokio::test]
async fn whatever_a_record_decodes_from_it_encodes_to() {
    let entropy = SeededEntropy::new(7);
    let (mut accepted, mut refused) = (0, 0);
    for (bytes, _) in bodies().await {
        assert_eq!(Body::from_bytes(&bytes).ok().unwrap().to_bytes(), bytes);
        for _ in 0..2000 {
            let mut changed = bytes.clone();
            let at = entropy.u64() as usize % changed.len();
            changed[at] = entropy.u64() as u8;
            match Body::from_bytes(&changed) {
                Ok(body) => {
                    assert_eq!(body.to_bytes(), changed, "byte {at}");
                    accepted += 1;
                }
                Err(_) => refused += 1,
            }
        }
        for len in 0..bytes.len() {
            assert!(Body::from_bytes(&bytes[..len]).is_err(), "length {len}");
        }
    }
    assert!(accepted > 100 && refused > 100, "{accepted} {refused}");
}

#[tokio::test]
async fn counts_that_lie_are_refused_before_anything_is_allocated() {
    for (bytes, attachment) in bodies().await {
        for at in 0..bytes.len().saturating_sub(4) {
            let mut changed = bytes.clone();
            changed[at..at + 4].copy_from_slice(&[0xff; 4]);
            if let Ok(body) = Body::from_bytes(&changed) {
                assert_eq!(body.to_bytes(), changed);
            }
        }
        if let Some(count) = attachment.first_chunk::<4>() {
            let mut changed = attachment.clone();
            assert!(decode_envelopes(&attachment).is_ok());
            changed[..4].copy_from_slice(&(u32::from_le_bytes(*count) + 1).to_le_bytes());
            assert!(decode_envelopes(&changed).is_err());
            changed[..4].copy_from_slice(&[0xff; 4]);
            assert!(decode_envelopes(&changed).is_err());
        }
    }
}

#[tokio::test]
async fn random_bytes_are_no_header_slot_or_record() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let (vault, room) = (unlocked.vault(), unlocked.root_room());
    let key = unlocked.control_key(room);
    for n in 0..3000 {
        let mut bytes = vec![0; w.entropy.u64() as usize % 300];
        w.entropy.fill(&mut bytes);
        // Half of them with a magic and a checksum, to come further.
        if n % 2 == 0 && bytes.len() > 40 {
            bytes[..5].copy_from_slice(if n % 4 == 0 { b"SKRN\x01" } else { b"SKRS\x01" });
            bytes = with_new_checksum(bytes);
        }
        if let Ok(header) = Header::parse(HEADER_NAME, &bytes) {
            assert_eq!(bytes.len(), 69, "{header:?}");
        }
        if let Ok(Some(slot)) = Slot::parse("slot", &bytes) {
            assert_ne!(slot.vault, vault);
        }
        assert!(open_record(&key, vault, room, hash(&bytes), &bytes).is_err());
        assert!(Body::from_bytes(&bytes).is_err());
    }
}
