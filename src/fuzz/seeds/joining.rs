//! An invitation, and what is written because of it.

use crate::targets::crypto::VAULT;
use crate::targets::joining::{self, SECRET, file_of, pending, root};
use crate::targets::vault::ROOM;
use skrin_base::Timestamp;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::ids::{Hash32, PersonId};
use skrin_base::wire::{Encode, Writer};
use skrin_crypto::{KemSecret, RootSigner, Suite, wrap};
use skrin_vault::Anchor;
use skrin_vault::record::{History, MemberKeys, Role};

/// The record that lets somebody in.
const ADD: Hash32 = Hash32([0x25; 32]);
/// Who invites.
const INVITER: PersonId = PersonId([7; 16]);

/// The bytes of the invitation: to the vault and room of all targets, for keys of the smaller suite.
pub fn invitation() -> Vec<u8> {
    let anchor = Anchor {
        vault: VAULT,
        header: Hash32([3; 32]),
        room: ROOM,
        genesis: Hash32([5; 32]),
        fingerprint: Hash32([6; 32]),
    };
    let mut w = Writer::default();
    w.u8(1);
    anchor.encode(&mut w);
    INVITER.encode(&mut w);
    w.raw(&[8; 32]);
    Role::Editor.encode(&mut w);
    History::All.encode(&mut w);
    w.option(None::<&Timestamp>);
    Timestamp(10).encode(&mut w);
    w.u8(1);
    w.bytes(b"webdavs://example.org/vault");
    Suite::X25519.encode(&mut w);
    w.raw(&SECRET);
    w.into_bytes()
}

/// For `targets::joining::join_request`: bodies of requests, of somebody who has words and of somebody who has none.
pub fn requests() -> Vec<Vec<u8>> {
    let sign = RootSigner::derive(&root(), VAULT).public();
    let kem = KemSecret::derive_root(&root(), VAULT, Suite::X25519).public();
    let bare = MemberKeys {
        root_sign: sign.clone(),
        root_kem: kem.clone(),
        words_sign: None,
        words_kem: None,
    };
    let full = MemberKeys {
        words_sign: Some(sign),
        words_kem: Some(kem),
        ..bare.clone()
    };
    let invitation = joining::invitation();
    let body = |(keys, name): (MemberKeys, &str)| {
        let mut w = Writer::default();
        w.u8(1);
        w.raw(&[0; 8]);
        invitation.anchor.encode(&mut w);
        w.raw(&invitation.tag());
        w.bytes(name.as_bytes());
        keys.encode(&mut w);
        w.into_bytes()
    };
    [(full, "bert"), (bare, "Ærø")].map(body).to_vec()
}

/// For `targets::joining::join_answer`: one that opens, and one for somebody else.
pub fn answers() -> Vec<Vec<u8>> {
    let kem = KemSecret::derive_root(&root(), VAULT, Suite::X25519).public();
    let answer = |person: PersonId| {
        let mut info = Writer::default();
        info.bytes(b"skrin/v1/answer-envelope");
        info.u8(1);
        VAULT.encode(&mut info);
        ROOM.encode(&mut info);
        ADD.encode(&mut info);
        INVITER.encode(&mut info);
        person.encode(&mut info);
        let info = info.into_bytes();
        let envelope = wrap(&kem, &info, &[5; 32], &SeededEntropy::new(16)).ok()?;
        let mut w = Writer::default();
        w.u8(1);
        w.raw(&[0; 8]);
        ADD.encode(&mut w);
        person.encode(&mut w);
        envelope.encode(&mut w);
        Some(w.into_bytes())
    };
    let persons = [pending().person(), PersonId([9; 16])];
    persons.into_iter().filter_map(answer).collect()
}

/// What the root of who joins seals: the invitation, his name, his words.
pub fn content() -> Vec<u8> {
    let mut w = Writer::default();
    w.raw(&invitation());
    w.bytes(b"bert");
    w.raw(&[0x33; 16]);
    w.into_bytes()
}

/// For `targets::joining::joining_file`: what is sealed, then the whole file.
pub fn files() -> Vec<Vec<u8>> {
    vec![content(), file_of(&content())]
}
