//! Keys, seals, envelopes and words.

use super::{canonical, chosen};
use skrin_base::VaultId;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::wire::{Decode, Encode};
use skrin_crypto::passphrase::Argon2Params;
use skrin_crypto::shares::join;
use skrin_crypto::words::{parse_words, words_of};
use skrin_crypto::{
    Envelope, KemPublic, KemSecret, LocalAad, LocalKey, Signature, SignatureKind, Suite,
    VerifyingKey, open, pad_pow2, seal, unpad_pow2, unwrap, wrap,
};
use std::sync::LazyLock;

/// The vault of all sealed targets.
pub const VAULT: VaultId = VaultId([0x11; 16]);

/// Public keys, signatures, suites and parameters; the first byte chooses.
pub fn public_keys(data: &[u8]) {
    let (which, bytes) = chosen(data);
    let _ = match which {
        0 => canonical::<KemPublic>(bytes).map(|key| wrapping_to_it_works(&key)),
        1 => canonical::<VerifyingKey>(bytes).map(|key| it_verifies_nothing(&key)),
        2 => canonical::<Suite>(bytes).map(drop),
        3 => canonical::<Argon2Params>(bytes)
            .map(|params| assert!(params.check().is_err() || params.passes > 0)),
        _ => canonical::<Signature>(bytes).map(drop),
    };
}

/// Whatever public key decodes, sealing to it gives an envelope or an error.
fn wrapping_to_it_works(key: &KemPublic) {
    let _ = wrap(key, b"info", &[7; 32], &SeededEntropy::new(1));
}

fn it_verifies_nothing(key: &VerifyingKey) {
    let mut forged = [0; 64];
    forged[..32].copy_from_slice(key.as_bytes());
    for signature in [[0; 64], forged] {
        let verdict = key.verify(SignatureKind::Commit, b"body", &Signature(signature));
        assert!(verdict.is_err(), "a signature that nobody made is valid");
    }
}

fn local(key: u8) -> (LocalKey, LocalAad) {
    let aad = LocalAad {
        purpose: "cache",
        vault: VAULT,
        context: Vec::new(),
    };
    (LocalKey::from_bytes([key; 32]), aad)
}

/// Sealed bytes: none that we did not make opens. And padding: what is sealed here as if it were padded is
/// taken only if it is just what padding gives.
pub fn sealed(data: &[u8]) {
    let (key, aad) = local(1);
    assert!(open(&key, &aad, data).is_err(), "a forged seal opens");
    let entropy = SeededEntropy::new(data.len() as u64);
    let Ok(opened) = open(&key, &aad, &seal(&key, &aad, data, &entropy)) else {
        unreachable!("what was sealed opens");
    };
    assert_eq!(&*opened, data);
    if let Ok(content) = unpad_pow2(opened) {
        assert_eq!(&**pad_pow2(&content), data, "padding has two encodings");
    }
}

static RECEIVERS: LazyLock<[KemSecret; 2]> = LazyLock::new(|| {
    [Suite::X25519, Suite::XWing].map(|suite| KemSecret::from_bytes(suite, [9; 32]))
});

/// Receivers of the envelopes among the seeds, by suite.
pub fn receivers() -> &'static [KemSecret; 2] {
    &RECEIVERS
}

/// Envelopes from anybody: the message of one that opens is short.
pub fn envelope(data: &[u8]) {
    let envelope = Envelope::from_bytes(data.to_vec());
    for secret in receivers() {
        if let Ok(message) = unwrap(secret, b"info", &envelope) {
            assert!(message.len() <= data.len());
        }
        let _ = unwrap(secret, &[0; 5000], &envelope);
    }
    if let Ok(listed) = Envelope::from_bytes_of(data) {
        assert_eq!(listed.to_bytes(), data);
    }
}

trait FromList: Sized {
    fn from_bytes_of(bytes: &[u8]) -> Result<Self, skrin_base::wire::WireError>;
}

impl FromList for Envelope {
    fn from_bytes_of(bytes: &[u8]) -> Result<Self, skrin_base::wire::WireError> {
        <Self as Decode>::from_bytes(bytes)
    }
}

/// What somebody types as his twelve words.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(entropy) = parse_words(&text) {
        let again = parse_words(&words_of(&entropy)).map(|again| *again.expose());
        assert_eq!(again, Ok(*entropy.expose()), "words stand for two secrets");
    }
}

/// What people type as shares of such words, one a line: what they give are words, and each share counts once.
pub fn shares(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.lines().collect();
    if let Ok(entropy) = join(&lines) {
        let twice = join(&lines.repeat(2)).map(|again| *again.expose());
        assert_eq!(twice, Ok(*entropy.expose()), "a share counts twice");
        let typed = parse_words(&words_of(&entropy)).map(|typed| *typed.expose());
        assert_eq!(typed, Ok(*entropy.expose()));
    }
}
