//! Header, slots and control records.

use super::canonical;
use super::crypto::VAULT;
use skrin_base::RoomId;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::wire::{Encode, Writer};
use skrin_crypto::passphrase::derive_words_slot;
use skrin_crypto::{
    ControlAad, ControlKey, SlotAad, WordsEntropy, control_id, hash, pad_pow2, seal,
};
use skrin_vault::control::open_record;
use skrin_vault::epoch::{decode_envelopes, encode_envelopes};
use skrin_vault::record::{Body, Record};
use skrin_vault::slot::{Slot, SlotKind};
use skrin_vault::{Header, Invitation, open_device_file};

/// The room of all sealed targets.
pub const ROOM: RoomId = RoomId([0x22; 16]);

/// The object with a checksum that fits, which no fuzzer finds by itself.
fn with_checksum(data: &[u8]) -> Vec<u8> {
    let body = data
        .split_at_checked(data.len().saturating_sub(32))
        .map_or(data, |(body, _)| body);
    [body, hash(body).as_bytes()].concat()
}

/// `skrin.vault`, as it comes and with a good checksum. Encoded again as docs/format/vault.md, section 1, has it.
pub fn header(data: &[u8]) {
    let fitting = with_checksum(data);
    for bytes in [data, &fitting] {
        if let Ok(header) = Header::parse("skrin.vault", bytes) {
            let mut w = Writer::default();
            w.raw(b"SKRN\x01\0\0\0\0");
            w.u32(header.optional);
            w.raw(header.vault.as_bytes());
            w.i64(header.created.0);
            let again = with_checksum(&[&w.into_bytes(), &[0; 32][..]].concat());
            assert_eq!(again, bytes, "a header has two encodings");
            assert_eq!(header.hash, hash(bytes));
        }
    }
}

/// A slot object. Passphrase slots are not opened: that is slow on purpose, and behind the same commitment.
pub fn slot(data: &[u8]) {
    let words = words();
    let fitting = with_checksum(data);
    for bytes in [data, &fitting] {
        let Ok(Some(slot)) = Slot::parse("slots/x", bytes) else {
            continue;
        };
        if let SlotKind::Passphrase(params) = slot.kind {
            let _ = params.check();
        }
        let _ = slot.open_words("slots/x", &words);
    }
}

/// The words of all slots here.
pub(super) fn words() -> WordsEntropy {
    WordsEntropy::from_bytes([0x33; 16])
}

/// A slot of those words with `plain` under its seal.
pub(super) fn words_slot(plain: &[u8]) -> Vec<u8> {
    let salt = [0x44; 32];
    let (key, commitment) = derive_words_slot(&words(), VAULT, &salt);
    let mut clear = Writer::default();
    clear.raw(b"SKRS\x01\x02");
    clear.raw(VAULT.as_bytes());
    clear.raw(&salt);
    clear.raw(&commitment.0);
    let clear = clear.into_bytes();
    let aad = SlotAad { header: &clear };
    let sealed = seal(&key, &aad, plain, &SeededEntropy::new(3));
    with_checksum(&[&clear[..], &sealed, &[0; 32]].concat())
}

/// What a slot holds, sealed here as a slot of known words, so that every byte of it is reached.
pub fn slot_payload(data: &[u8]) {
    for plain in [data.to_vec(), pad_pow2(data).to_vec()] {
        let Ok(Some(slot)) = Slot::parse("slots/x", &words_slot(&plain)) else {
            unreachable!("a well-formed slot is read");
        };
        if let Ok(payload) = slot.open_words("slots/x", &words()) {
            assert!(payload.is_some_and(|payload| payload.vault == VAULT));
        }
    }
}

/// A device file: none opens but those that this vault sealed.
pub fn device_file(data: &[u8]) {
    let devices = crate::seeds::vault::devices();
    if open_device_file(&devices.unlocked, data).is_ok() {
        let is_ours = devices.files.iter().any(|file| file == data);
        assert!(is_ours, "a forged device file opens");
    }
}

/// An invitation, as bytes and as the line of text.
pub fn invitation(data: &[u8]) {
    if let Ok(invitation) = canonical::<Invitation>(data) {
        let text = invitation.to_text();
        let again = Invitation::from_text(&text);
        assert!(again.is_ok_and(|again| again.to_bytes() == data));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Invitation::from_text(text);
    }
}

/// The signed part of a control record.
pub fn control_body(data: &[u8]) {
    if let Ok(Record::Genesis(genesis)) = canonical::<Body>(data).map(|body| body.record) {
        let _ = genesis.keys.fingerprint();
    }
    if let Ok(list) = decode_envelopes(data) {
        assert_eq!(
            encode_envelopes(&list),
            data,
            "envelopes have two encodings"
        );
    }
}

/// A control object, as it comes and with `data` as the content of a good seal.
pub fn control_object(data: &[u8]) {
    let key = ControlKey::from_bytes([0x55; 32]);
    let forged = open_record(&key, VAULT, ROOM, control_id(data), data);
    assert!(forged.is_err(), "a forged control record opens");
    let aad = ControlAad {
        vault: VAULT,
        room: ROOM,
    };
    let object = seal(&key, &aad, &pad_pow2(data), &SeededEntropy::new(4));
    assert!(open_record(&key, VAULT, ROOM, hash(&object), &object).is_err());
    if let Ok(opened) = open_record(&key, VAULT, ROOM, control_id(data), &object) {
        assert_eq!((opened.body.vault, opened.body.room), (VAULT, ROOM));
        let _ = decode_envelopes(&opened.attachment);
    }
}
