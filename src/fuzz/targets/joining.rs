//! What the two sides of an invitation write to each other, and what the one who joins keeps on his disk meanwhile.

use super::crypto::VAULT;
use super::vault::{ROOM, words, words_slot};
use skrin_base::clock::testutil::{ManualClock, SeededEntropy};
use skrin_base::wire::{Decode, Encode, Writer};
use skrin_crypto::keys::{derive_join_key, derive_join_name, derive_joining_key};
use skrin_crypto::words::words_of;
use skrin_crypto::{
    JoinAad, JoinPart, JoinSecret, LocalAad, RootSeed, RootSigner, SignatureKind, WordsEntropy,
    pad_pow2, seal,
};
use skrin_storage::{MemoryStore, ObjectName, Store};
use skrin_vault::{Invitation, Pending, Place, Secret, find_request};
use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};

/// The secret of the invitation.
pub const SECRET: [u8; 16] = [11; 16];

static RUNTIME: LazyLock<Option<Runtime>> =
    LazyLock::new(|| Builder::new_current_thread().build().ok());

fn wait<T>(future: impl Future<Output = T>) -> T {
    match &*RUNTIME {
        Some(runtime) => runtime.block_on(future),
        None => unreachable!("a runtime can be made"),
    }
}

fn secret() -> JoinSecret {
    JoinSecret::from_bytes(SECRET)
}

/// The root of who joins: that of `seeds::vault::slot_payloads`.
pub fn root() -> RootSeed {
    RootSeed::from_bytes([6; 32])
}

/// The invitation of all targets here.
pub fn invitation() -> Invitation {
    match Invitation::from_bytes(&crate::seeds::joining::invitation()) {
        Ok(invitation) => invitation,
        Err(error) => unreachable!("a good invitation: {error}"),
    }
}

/// A storage where nothing lies but what one side wrote.
fn store_with(part: JoinPart, object: &[u8]) -> MemoryStore {
    let store = MemoryStore::default();
    let name = hex::encode(derive_join_name(&secret(), VAULT, part));
    let Ok(name) = ObjectName::new(format!("joins/{name}")) else {
        unreachable!("hexadecimal digits are a name");
    };
    let put = wait(store.put(&name, object.to_vec().into()));
    assert!(put.is_ok(), "a storage in memory takes what it is given");
    store
}

fn sealed(part: JoinPart, content: &[u8]) -> Vec<u8> {
    let key = derive_join_key(&secret(), VAULT, part);
    let aad = JoinAad {
        vault: VAULT,
        room: ROOM,
    };
    seal(&key, &aad, &pad_pow2(content), &SeededEntropy::new(13))
}

/// The body of a request with the signature of `root`.
fn signed(body: &[u8]) -> Vec<u8> {
    let signature = RootSigner::derive(&root(), VAULT).sign(SignatureKind::Join, body);
    let mut w = Writer::default();
    w.bytes(body);
    signature.encode(&mut w);
    w.into_bytes()
}

/// Whether the inviter finds a request where this lies; its end is what the request says.
fn is_request(object: &[u8], content: &[u8]) -> bool {
    let invitation = invitation();
    let store = store_with(JoinPart::Request, object);
    let Ok(Some(request)) = wait(find_request(&store, &invitation)) else {
        return false;
    };
    assert_eq!(request.person(), request.keys().person(VAULT));
    let mut w = Writer::default();
    invitation.anchor.encode(&mut w);
    w.raw(&invitation.tag());
    w.bytes(request.name().as_bytes());
    request.keys().encode(&mut w);
    let body = content.split_last_chunk::<64>().map(|(body, _)| body);
    assert!(
        body.is_some_and(|body| body.ends_with(&w.into_bytes())),
        "a request has two encodings"
    );
    true
}

/// Whether this body, signed and sealed, is a request.
pub fn asks(body: &[u8]) -> bool {
    let content = signed(body);
    is_request(&sealed(JoinPart::Request, &content), &content)
}

/// A request: as it comes, with `data` under a good seal, and with `data` as a body that its root signed.
pub fn join_request(data: &[u8]) {
    assert!(!is_request(data, data), "a forged request opens");
    is_request(&sealed(JoinPart::Request, data), data);
    asks(data);
}

fn is_answer(object: &[u8]) -> bool {
    let store = store_with(JoinPart::Answer, object);
    let (clock, entropy) = (ManualClock::default(), SeededEntropy::new(14));
    let place = Place {
        store: &store,
        clock: &clock,
        entropy: &entropy,
    };
    wait(pending().ask(&place)).is_ok()
}

/// Whether this, sealed, lets the one in who asked.
pub fn lets_in(content: &[u8]) -> bool {
    is_answer(&sealed(JoinPart::Answer, content))
}

/// An answer: as it comes, and with `data` under a good seal.
pub fn join_answer(data: &[u8]) {
    assert!(!is_answer(data), "a forged answer opens");
    lets_in(data);
}

/// A file of an unfinished joining in which the root sealed `content`; the words open it.
pub fn file_of(content: &[u8]) -> Vec<u8> {
    let aad = LocalAad {
        purpose: "joining",
        vault: VAULT,
        context: Vec::new(),
    };
    let key = derive_joining_key(&root(), VAULT);
    let slots = crate::seeds::vault::slot_payloads();
    let mut w = Writer::default();
    w.raw(b"SKRJ\x01");
    VAULT.encode(&mut w);
    w.count(slots.len());
    for payload in slots {
        w.bytes(&words_slot(&pad_pow2(&payload)));
    }
    w.bytes(&seal(&key, &aad, content, &SeededEntropy::new(15)));
    w.into_bytes()
}

/// What such a file holds.
pub fn opened(file: &[u8]) -> Option<Pending> {
    Pending::open(file, &Secret::Words(words_of(&words()))).ok()
}

/// The one who has asked.
pub fn pending() -> Pending {
    match opened(&file_of(&crate::seeds::joining::content())) {
        Some(pending) => pending,
        None => unreachable!("the words open a good file"),
    }
}

/// The file of an unfinished joining: as it comes, and with `data` as what its root sealed.
pub fn joining_file(data: &[u8]) {
    if let Some(pending) = opened(data) {
        assert_eq!(pending.to_file(), data);
    }
    let Some(pending) = opened(&file_of(data)) else {
        return;
    };
    let Some((start, words)) = data.split_last_chunk::<16>() else {
        unreachable!("words are the last of it");
    };
    assert!(start.starts_with(&pending.invitation().to_bytes()));
    let words = words_of(&WordsEntropy::from_bytes(*words));
    assert_eq!(pending.words().as_str(), words.as_str());
}
