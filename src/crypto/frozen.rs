//! Our own vectors, frozen: docs/format/vectors/crypto.txt. A change of any of them is a
//! change of the format. `SKRIN_WRITE_VECTORS=1` writes them anew.

use crate::testing::{Known, hex};
use crate::words::words_of;
use crate::*;
use skrin_base::Ino;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::ids::{DeviceId, KeyId, LaneId, RoomId, SegmentId, VaultId};
use skrin_base::wire::Encode;
use std::fmt::Write;

const VAULT: VaultId = VaultId([0x11; 16]);
const ROOM: RoomId = RoomId([0x22; 16]);
const LANE: LaneId = LaneId([0x33; 16]);
const DEVICE: DeviceId = DeviceId([0x44; 16]);
const NONCE: [u8; 12] = [0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

struct Vectors(String);

impl Vectors {
    fn put(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        writeln!(self.0, "{name} = {}", hex(bytes.as_ref())).unwrap();
    }

    fn about(&mut self, text: &str) {
        writeln!(self.0, "\n# {text}").unwrap();
    }
}

fn identifiers(v: &mut Vectors) {
    v.about("inputs of all that follow");
    v.put("vault", VAULT.0);
    v.put("room", ROOM.0);
    v.put("lane", LANE.0);
    v.put("device", DEVICE.0);
}

fn derivations(v: &mut Vectors) {
    v.about("README, section 4: keys");
    let secret = VaultSecret::from_bytes([0x51; 32]);
    v.put("vault_secret", secret.expose());
    v.put(
        "control_key",
        keys::derive_control_key(&secret, VAULT, ROOM).raw(),
    );
    let secret = RoomSecret::from_bytes([0x52; 32]);
    v.put("room_secret", secret.expose());
    let lanes = keys::derive_lane_name_key(&secret, VAULT, ROOM);
    v.put("lane_name_key", lanes.raw());
    v.put("lane_id(device, 1)", lane_id(&lanes, DEVICE, 1).0);
    let segments = keys::derive_segment_name_key(&secret, VAULT, ROOM);
    v.put("segment_name_key", segments.raw());
    v.put("segment_id(lane, 2)", segment_id(&segments, LANE, 2).0);
    let epoch = EpochKey::from_bytes([0x53; 32]);
    v.put("epoch_key", epoch.expose());
    v.put(
        "epoch_commitment",
        keys::derive_epoch_commitment(&epoch, VAULT, ROOM).0,
    );
    v.put("hint(lane)", keys::derive_hint(&epoch, VAULT, ROOM, LANE));
    v.put(
        "lane_key",
        keys::derive_lane_key(&epoch, VAULT, ROOM, LANE).raw(),
    );
    v.put("page_key", keys::derive_page_key(&epoch, VAULT, ROOM).raw());
    v.put(
        "checkpoint_key",
        keys::derive_checkpoint_key(&epoch, VAULT, ROOM).raw(),
    );
}

fn people(v: &mut Vectors) {
    v.about("vault.md, sections 2 and 3: words, slots, root, device");
    let words = WordsEntropy::from_bytes([0x61; 16]);
    v.put("words_entropy", words.expose());
    v.put("words_as_utf8", words_of(&words).as_bytes());
    v.put(
        "words_sign_public",
        WordsSigner::derive(&words, VAULT).public().as_bytes(),
    );
    let kem = KemSecret::derive_words(&words, VAULT, Suite::X25519);
    v.put("words_kem_public_suite_0", kem.public().to_bytes());
    let (key, commitment) = passphrase::derive_words_slot(&words, VAULT, &[0x62; 32]);
    v.put("words_slot_salt", [0x62; 32]);
    v.put("words_slot_key", key.raw());
    v.put("words_slot_commitment", commitment.0);
    let params = passphrase::Argon2Params::WEAK_FOR_TESTS;
    let text = "bl\u{e5}b\u{e6}r and cream";
    let (key, commitment) =
        passphrase::derive_passphrase_slot(text, &params, VAULT, &[0x63; 32]).unwrap();
    v.put("passphrase_as_utf8", text);
    v.put("passphrase_params", params.to_bytes());
    v.put("passphrase_slot_salt", [0x63; 32]);
    v.put("passphrase_slot_key", key.raw());
    v.put("passphrase_slot_commitment", commitment.0);
    let root = RootSeed::from_bytes([0x64; 32]);
    v.put("root_seed", root.expose());
    v.put(
        "root_sign_public",
        RootSigner::derive(&root, VAULT).public().as_bytes(),
    );
    let kem = KemSecret::derive_root(&root, VAULT, Suite::XWing);
    v.put(
        "root_kem_public_suite_1_hash",
        hash(&kem.public().to_bytes()).0,
    );
    v.put(
        "device_file_key",
        keys::derive_device_file_key(&root, VAULT, DEVICE).raw(),
    );
    let seed = DeviceSeed::from_bytes([0x65; 32]);
    v.put("device_seed", seed.expose());
    v.put(
        "device_sign_public",
        DeviceSigner::derive(&seed, VAULT).public().as_bytes(),
    );
    let kem = KemSecret::derive_device(&seed, VAULT, Suite::X25519);
    v.put("device_kem_public_suite_0", kem.public().to_bytes());
    v.put(
        "local_key(journal)",
        keys::derive_local_key(&seed, VAULT, "journal").raw(),
    );
}

fn seals(v: &mut Vectors) {
    v.about(
        "README, section 3: what `contents` becomes in each place, key 32 * 71, nonce a0 01 .. 0b",
    );
    let bytes = [0x71; 32];
    let nonce = || Known::new(&NONCE);
    let plain = b"contents";
    let slot = SlotAad {
        header: b"clear part",
    };
    v.put(
        "slot",
        seal(&SlotKey::from_bytes(bytes), &slot, plain, &nonce()),
    );
    let control = ControlAad {
        vault: VAULT,
        room: ROOM,
    };
    let padded = pad_pow2(plain);
    let sealed = seal(&ControlKey::from_bytes(bytes), &control, &padded, &nonce());
    v.put("control_padded", sealed);
    let commit = CommitAad {
        vault: VAULT,
        room: ROOM,
        lane: LANE,
        seq: 7,
    };
    v.put(
        "commit(seq 7)",
        seal(&LaneKey::from_bytes(bytes), &commit, plain, &nonce()),
    );
    let page = PageAad {
        vault: VAULT,
        room: ROOM,
        page: [0x72; 16],
    };
    v.put(
        "page(72..)",
        seal(&PageKey::from_bytes(bytes), &page, plain, &nonce()),
    );
    let root = CheckpointAad {
        vault: VAULT,
        room: ROOM,
        checkpoint: [0x73; 16],
    };
    let sealed = seal(&CheckpointKey::from_bytes(bytes), &root, plain, &nonce());
    v.put("checkpoint(73..)", sealed);
    let segment = SegmentId([0x74; 16]);
    let table = TableAad {
        vault: VAULT,
        room: ROOM,
        segment,
        author: LANE,
    };
    let sealed = seal(&TableKey::from_bytes(bytes), &table, plain, &nonce());
    v.put("table(segment 74..)", sealed);
    let block = BlockAad {
        vault: VAULT,
        room: ROOM,
        segment,
        author: LANE,
        slot: 3,
        key_id: KeyId([0x75; 16]),
        origin_file: Ino(1234),
        origin_block: 5,
        plain_len: 8,
        flags: 0,
    };
    let sealed = seal(&FileKey::from_bytes(bytes), &block, plain, &nonce());
    v.put(
        "block(segment 74.., slot 3, key 75.., file 1234, block 5, length 8)",
        sealed,
    );
    let local = LocalAad {
        purpose: "journal",
        vault: VAULT,
        context: vec![1, 2],
    };
    let sealed = seal(&LocalKey::from_bytes(bytes), &local, plain, &nonce());
    v.put("local(journal, context 0102)", sealed);
}

fn masks(v: &mut Vectors) {
    v.about("segments.md, section 7: the first bytes of the mask of slot 9 of host 76.., whose table key is 32 * 77");
    let mut mask = [0; 70];
    let (key, host) = (TableKey::from_bytes([0x77; 32]), SegmentId([0x76; 16]));
    mask_copy(&key, VAULT, ROOM, host, 9, &mut mask);
    v.put("mask", mask);
}

fn signatures(v: &mut Vectors) {
    v.about("README, section 5: `body` signed by the device of seed 32 * 65");
    let signer = DeviceSigner::derive(&DeviceSeed::from_bytes([0x65; 32]), VAULT);
    for (name, kind) in [
        ("signature(control)", SignatureKind::Control),
        ("signature(commit)", SignatureKind::Commit),
        ("signature(checkpoint)", SignatureKind::Checkpoint),
    ] {
        v.put(name, signer.sign(kind, b"body").0);
    }
}

fn ids(v: &mut Vectors) {
    v.about("README, section 2: what names a commit or control record with the content `contents`");
    v.put("commit_id", commit_id(b"contents").0);
    v.put("control_id", control_id(b"contents").0);
}

fn envelopes(v: &mut Vectors) {
    v.about("vault.md, section 4.2: epoch key 32 * 53 for KEM secret 32 * 66, info `info`");
    for (name, suite) in [
        ("envelope_suite_0", Suite::X25519),
        ("envelope_suite_1", Suite::XWing),
    ] {
        let secret = KemSecret::from_bytes(suite, [0x66; 32]);
        let entropy = SeededEntropy::new(1);
        let envelope = wrap(&secret.public(), b"info", &[0x53; 32], &entropy).unwrap();
        let opened = unwrap(&secret, b"info", &envelope).unwrap();
        assert_eq!(opened.as_slice(), [0x53; 32]);
        v.put(name, envelope.as_bytes());
    }
}

#[test]
fn nothing_of_the_format_has_changed() {
    let mut v = Vectors(String::from(
        "# Vectors of docs/format/README.md and vault.md: name = hex. `n * xx` is the byte xx n times.\n",
    ));
    for part in [
        identifiers,
        derivations,
        people,
        seals,
        signatures,
        ids,
        envelopes,
        masks,
    ] {
        part(&mut v);
    }
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/format/vectors/crypto.txt"
    );
    if std::env::var_os("SKRIN_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &v.0).unwrap();
    }
    let frozen = std::fs::read_to_string(path).unwrap();
    for (line, (ours, theirs)) in v.0.lines().zip(frozen.lines()).enumerate() {
        assert_eq!(ours, theirs, "line {}", line + 1);
    }
    assert_eq!(v.0, frozen);
}
