use super::*;
use crate::keys::{make_file_key, make_table_key};
use crate::pad::{pad_pow2, unpad_pow2};
use crate::testing::cases;
use skrin_base::Ino;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::ids::{KeyId, LaneId, RoomId, SegmentId, VaultId};

#[test]
fn the_vectors_of_rfc_8452_hold_through_our_calls() {
    let cases = cases(include_str!("../published/gcm_siv.txt"));
    assert!(cases.len() >= 20);
    for case in &cases {
        let cipher = cipher(&case.array("key"));
        let (nonce, aad, pt) = (case.array("nonce"), case.get("aad"), case.get("pt"));
        let mut sealed = Vec::new();
        seal_raw(&cipher, nonce, aad, pt, &mut sealed);
        assert_eq!(sealed, [case.get("nonce"), case.get("ct")].concat());
        let mut opened = Vec::new();
        open_raw(&cipher, aad, &sealed, &mut opened).unwrap();
        assert_eq!(opened, pt);
    }
}

/// Seals for `aad`, then tries each place in `others` and each region of the bytes.
fn check_kind<A: Aad, K: SealsWith<A>>(key: &K, other_key: &K, aad: &A, others: &[A]) {
    let plain = b"contents that nobody else may read".as_slice();
    let entropy = SeededEntropy::new(3);
    let sealed = seal(key, aad, plain, &entropy);
    assert_eq!(sealed.len(), plain.len() + SEAL_OVERHEAD);
    assert_eq!(&*open(key, aad, &sealed).unwrap(), plain);
    assert_ne!(
        sealed,
        seal(key, aad, plain, &entropy),
        "each seal draws a new nonce"
    );
    assert_eq!(open(other_key, aad, &sealed).err(), Some(OpenError::Tag));
    for (at, other) in others.iter().enumerate() {
        let opened = open(key, other, &sealed);
        assert_eq!(opened.err(), Some(OpenError::Tag), "field {at}");
    }
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        let opened = open(key, aad, &changed);
        assert_eq!(opened.err(), Some(OpenError::Tag), "byte {at}");
    }
    for len in 0..sealed.len() {
        assert!(open(key, aad, &sealed[..len]).is_err(), "length {len}");
    }
    assert!(open(key, aad, &[&sealed[..], &[0]].concat()).is_err());
}

const VAULT: VaultId = VaultId([1; 16]);
const ROOM: RoomId = RoomId([2; 16]);
const OTHER_VAULT: VaultId = VaultId([9; 16]);
const OTHER_ROOM: RoomId = RoomId([9; 16]);

#[test]
fn a_changed_place_or_byte_of_a_slot_is_refused() {
    let keys = [SlotKey::from_bytes([1; 32]), SlotKey::from_bytes([2; 32])];
    let aad = SlotAad { header: b"clear" };
    let others = [SlotAad { header: b"cleaR" }, SlotAad { header: b"" }];
    check_kind(&keys[0], &keys[1], &aad, &others);
}

#[test]
fn a_changed_place_or_byte_of_a_control_record_is_refused() {
    let keys = [
        ControlKey::from_bytes([1; 32]),
        ControlKey::from_bytes([2; 32]),
    ];
    let aad = ControlAad {
        vault: VAULT,
        room: ROOM,
    };
    let others = [
        ControlAad {
            vault: OTHER_VAULT,
            ..aad
        },
        ControlAad {
            room: OTHER_ROOM,
            ..aad
        },
    ];
    check_kind(&keys[0], &keys[1], &aad, &others);
}

#[test]
fn a_changed_place_or_byte_of_a_commit_is_refused() {
    let keys = [LaneKey::from_bytes([1; 32]), LaneKey::from_bytes([2; 32])];
    let aad = CommitAad {
        vault: VAULT,
        room: ROOM,
        lane: LaneId([3; 16]),
        seq: 7,
    };
    let others = [
        CommitAad {
            vault: OTHER_VAULT,
            ..aad
        },
        CommitAad {
            room: OTHER_ROOM,
            ..aad
        },
        CommitAad {
            lane: LaneId([9; 16]),
            ..aad
        },
        CommitAad { seq: 8, ..aad },
    ];
    check_kind(&keys[0], &keys[1], &aad, &others);
}

#[test]
fn a_changed_place_or_byte_of_a_page_or_checkpoint_is_refused() {
    let keys = [PageKey::from_bytes([1; 32]), PageKey::from_bytes([2; 32])];
    let aad = PageAad {
        vault: VAULT,
        room: ROOM,
        page: [3; 16],
    };
    let others = [
        PageAad {
            vault: OTHER_VAULT,
            ..aad
        },
        PageAad {
            room: OTHER_ROOM,
            ..aad
        },
        PageAad {
            page: [9; 16],
            ..aad
        },
    ];
    check_kind(&keys[0], &keys[1], &aad, &others);
    let keys = [
        CheckpointKey::from_bytes([1; 32]),
        CheckpointKey::from_bytes([2; 32]),
    ];
    let aad = CheckpointAad {
        vault: VAULT,
        room: ROOM,
        checkpoint: [3; 16],
    };
    let others = [
        CheckpointAad {
            vault: OTHER_VAULT,
            ..aad
        },
        CheckpointAad {
            room: OTHER_ROOM,
            ..aad
        },
        CheckpointAad {
            checkpoint: [9; 16],
            ..aad
        },
    ];
    check_kind(&keys[0], &keys[1], &aad, &others);
}

#[test]
fn a_changed_place_or_byte_of_a_table_is_refused() {
    let entropy = SeededEntropy::new(1);
    let keys = [make_table_key(&entropy), make_table_key(&entropy)];
    let aad = TableAad {
        vault: VAULT,
        room: ROOM,
        segment: SegmentId([3; 16]),
        author: LaneId([4; 16]),
    };
    let others = [
        TableAad {
            vault: OTHER_VAULT,
            ..aad
        },
        TableAad {
            room: OTHER_ROOM,
            ..aad
        },
        TableAad {
            segment: SegmentId([9; 16]),
            ..aad
        },
        TableAad {
            author: LaneId([9; 16]),
            ..aad
        },
    ];
    check_kind(&keys[0], &keys[1], &aad, &others);
}

fn block_aad() -> BlockAad {
    BlockAad {
        vault: VAULT,
        room: ROOM,
        segment: SegmentId([3; 16]),
        author: LaneId([4; 16]),
        slot: 5,
        key_id: KeyId([6; 16]),
        origin_file: Ino(77),
        origin_block: 8,
        plain_len: 34,
        flags: 0,
    }
}

#[test]
fn a_changed_place_or_byte_of_a_block_is_refused() {
    let entropy = SeededEntropy::new(1);
    let keys = [make_file_key(&entropy), make_file_key(&entropy)];
    let aad = block_aad();
    let others = [
        BlockAad {
            vault: OTHER_VAULT,
            ..aad
        },
        BlockAad {
            room: OTHER_ROOM,
            ..aad
        },
        BlockAad {
            segment: SegmentId([9; 16]),
            ..aad
        },
        BlockAad {
            author: LaneId([9; 16]),
            ..aad
        },
        BlockAad { slot: 6, ..aad },
        BlockAad {
            key_id: KeyId([9; 16]),
            ..aad
        },
        BlockAad {
            origin_file: Ino(78),
            ..aad
        },
        BlockAad {
            origin_block: 9,
            ..aad
        },
        BlockAad {
            plain_len: 35,
            ..aad
        },
        BlockAad { flags: 1, ..aad },
    ];
    check_kind(&keys[0], &keys[1], &aad, &others);
}

#[test]
fn a_changed_place_or_byte_of_a_local_file_is_refused() {
    let keys = [LocalKey::from_bytes([1; 32]), LocalKey::from_bytes([2; 32])];
    let aad = LocalAad {
        purpose: "journal",
        vault: VAULT,
        context: vec![1],
    };
    let others = [
        LocalAad {
            purpose: "heads",
            ..aad.clone()
        },
        LocalAad {
            vault: OTHER_VAULT,
            ..aad.clone()
        },
        LocalAad {
            context: vec![2],
            ..aad.clone()
        },
    ];
    check_kind(&keys[0], &keys[1], &aad, &others);
}

#[test]
fn blocks_are_appended_to_what_is_there_and_a_failed_one_leaves_nothing() {
    let entropy = SeededEntropy::new(1);
    let key = make_file_key(&entropy);
    let cipher = BlockCipher::new(&key);
    let plain = vec![7; 65_536];
    let mut sealed = vec![1, 2, 3];
    cipher.seal_into(&block_aad(), &plain, &entropy, &mut sealed);
    assert_eq!(sealed.len(), 3 + plain.len() + SEAL_OVERHEAD);
    let mut out = vec![4, 5];
    open_block_into(&key, &block_aad(), &sealed[3..], &mut out).unwrap();
    assert_eq!(&out[..2], [4, 5]);
    assert_eq!(&out[2..], plain);
    let before = out.clone();
    sealed[100] ^= 1;
    let opened = cipher.open_into(&block_aad(), &sealed[3..], &mut out);
    assert_eq!(opened, Err(OpenError::Tag));
    assert_eq!(out, before);
}

#[test]
fn kinds_have_different_labels_so_that_one_never_opens_as_another() {
    let page = PageAad {
        vault: VAULT,
        room: ROOM,
        page: [3; 16],
    };
    let checkpoint = CheckpointAad {
        vault: VAULT,
        room: ROOM,
        checkpoint: [3; 16],
    };
    let sealed = seal(
        &PageKey::from_bytes([1; 32]),
        &page,
        b"x",
        &SeededEntropy::new(1),
    );
    let opened = open(&CheckpointKey::from_bytes([1; 32]), &checkpoint, &sealed);
    assert_eq!(opened.err(), Some(OpenError::Tag));
}

fn opened(bytes: &[u8]) -> Opened {
    Opened(Zeroizing::new(bytes.to_vec()))
}

#[test]
fn padding_makes_sealed_objects_powers_of_two_and_comes_off_again() {
    for (len, sealed) in [
        (0, 1024),
        (992, 1024),
        (993, 2048),
        (2016, 2048),
        (2017, 4096),
    ] {
        let content = vec![0xab; len];
        let padded = pad_pow2(&content);
        assert_eq!(padded.len() + SEAL_OVERHEAD, sealed, "{len}");
        assert_eq!(&*unpad_pow2(opened(&padded)).unwrap(), content);
    }
}

#[test]
fn padding_of_another_length_or_with_other_bytes_is_refused() {
    let padded = pad_pow2(b"content");
    let refused = |bytes: &[u8]| unpad_pow2(opened(bytes)).err() == Some(OpenError::Padding);
    let mut changed = padded.to_vec();
    *changed.last_mut().unwrap() = 1;
    assert!(refused(&changed), "padding that is not zero");
    assert!(refused(&padded[..padded.len() - 1]), "too short");
    assert!(refused(&[&padded[..], &[0; 1024]].concat()), "too long");
    assert!(refused(&[1, 0]), "no length");
    let mut long = padded.to_vec();
    long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refused(&long), "a length beyond the end");
}

#[test]
fn what_was_opened_does_not_print() {
    assert_eq!(format!("{:?}", opened(b"secret")), "Opened(6 bytes)");
}
