//! Keys, envelopes, words.

use super::choose;
use crate::targets::crypto::{VAULT, receivers};
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::wire::Encode;
use skrin_crypto::passphrase::Argon2Params;
use skrin_crypto::shares::divide;
use skrin_crypto::words::words_of;
use skrin_crypto::{DeviceSeed, DeviceSigner, WordsEntropy, pad_pow2, wrap};

/// For `targets::crypto::public_keys`.
pub fn public_keys() -> Vec<Vec<u8>> {
    let signer = DeviceSigner::derive(&DeviceSeed::from_bytes([2; 32]), VAULT);
    let kems = receivers()
        .iter()
        .map(|secret| choose(0, &secret.public().to_bytes()));
    let others = [
        choose(1, &signer.public().to_bytes()),
        choose(2, &[1]),
        choose(3, &Argon2Params::DEFAULT.to_bytes()),
        choose(4, &[5; 64]),
    ];
    kems.chain(others).collect()
}

/// For `targets::crypto::sealed`.
pub fn sealed() -> Vec<Vec<u8>> {
    [&b""[..], b"content", &[1; 992], &[1; 1000]]
        .map(|content| pad_pow2(content).to_vec())
        .to_vec()
}

/// For `targets::crypto::envelope`: one for each suite, as stored and with its length.
pub fn envelopes() -> Vec<Vec<u8>> {
    let entropy = SeededEntropy::new(1);
    let made = receivers()
        .iter()
        .filter_map(|secret| wrap(&secret.public(), b"info", &[7; 32], &entropy).ok());
    made.flat_map(|envelope| [envelope.as_bytes().to_vec(), envelope.to_bytes()])
        .collect()
}

/// For `targets::crypto::words`.
pub fn words() -> Vec<Vec<u8>> {
    let text = words_of(&WordsEntropy::from_bytes([0x33; 16]));
    let short: Vec<&str> = text
        .split(' ')
        .map(|word| word.get(..4).unwrap_or(word))
        .collect();
    vec![
        text.as_bytes().to_vec(),
        text.to_uppercase().into_bytes(),
        short.join("\t\u{3000}\n").into_bytes(),
    ]
}

fn divided(division: (u8, u8), seed: u64) -> Vec<String> {
    let words = WordsEntropy::from_bytes([0x33; 16]);
    match divide(&words, division, &SeededEntropy::new(seed)) {
        Ok(shares) => shares.iter().map(|s| s.as_str().to_owned()).collect(),
        Err(error) => unreachable!("a division that there is: {error}"),
    }
}

/// For `targets::crypto::shares`: first three that are enough, then too few of them and some of two keys.
pub fn shares() -> Vec<Vec<u8>> {
    let (two, three) = (divided((2, 3), 13), divided((3, 5), 14));
    let texts = [
        two[..2].join("\n"),
        two[1..].join("\r\n").to_uppercase(),
        three[1..].join("\n"),
        three[..2].join("\n"),
        [&two[..1], &three[..2]].concat().join("\n"),
    ];
    texts.map(String::into_bytes).to_vec()
}
