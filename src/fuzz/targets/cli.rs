//! Files in which people keep credentials, and that of what they pinned.

use super::chosen;
use super::crypto::VAULT;
use super::data::scratch;
use skrin_base::Ino;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_cli::testutil;
use skrin_crypto::{LocalAad, LocalKey, seal};
use std::collections::BTreeSet;

/// Seals the pins.
const PINS_KEY: [u8; 32] = [0x85; 32];

/// A .netrc: who is wanted is who is found, and what is written with quotes comes back, whatever it is.
pub fn netrc(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for user in [None, Some("anna")] {
        if let Some((login, password)) = testutil::netrc(&text, "dav.example", user) {
            assert!(user.is_none_or(|wanted| wanted == login));
            assert!(login.len() + password.len() <= text.len() + 4);
        }
    }
    let line: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    let quoted = line.replace('\\', "\\\\").replace('"', "\\\"");
    let file = format!("machine h login \"{quoted}\" password \"{quoted}\"");
    assert_eq!(
        testutil::netrc(&file, "h", None),
        Some((line.clone(), line))
    );
}

/// A file of ~/.aws: what is found stands in it, in one line and without space around it.
pub fn ini(data: &[u8]) {
    let (which, rest) = chosen(data);
    let text = String::from_utf8_lossy(rest);
    let section = ["default", "profile work", "work", ""][usize::from(which) % 4];
    for key in ["aws_access_key_id", "region", "s3", ""] {
        if let Some(value) = testutil::ini(&text, section, key) {
            assert!(text.contains(&value) && !value.contains('\n'));
            assert_eq!(value.trim(), value);
            assert!(!value.is_empty());
        }
    }
}

/// The file in which `plain` is what is pinned.
pub fn pins_file(plain: &[u8]) -> Vec<u8> {
    let aad = LocalAad {
        purpose: "pins",
        vault: VAULT,
        context: Vec::new(),
    };
    let key = LocalKey::from_bytes(PINS_KEY);
    let sealed = seal(&key, &aad, plain, &SeededEntropy::new(19));
    [b"SKRN\x01", &sealed[..]].concat()
}

/// What such a file says.
pub fn pinned(file: &[u8]) -> Option<BTreeSet<Ino>> {
    let dir = scratch()?;
    std::fs::write(dir.path().join("pins"), file).ok()?;
    testutil::pins(dir.path(), LocalKey::from_bytes(PINS_KEY), VAULT)
}

/// What is pinned: the numbers under a good seal, or the whole file; the first byte chooses.
pub fn pins(data: &[u8]) {
    let (which, rest) = chosen(data);
    if which % 2 == 1 {
        let ours = crate::seeds::cli::pins();
        let is_ours = ours.iter().any(|seed| &seed[1..] == rest);
        assert!(is_ours || pinned(rest).is_none(), "a forged file opens");
        return;
    }
    if let Some(pins) = pinned(&pins_file(rest)) {
        let (numbers, behind) = rest.as_chunks::<8>();
        let numbers = numbers.iter().map(|n| Ino(u64::from_le_bytes(*n)));
        assert_eq!(pins, numbers.collect::<BTreeSet<Ino>>());
        assert!(behind.is_empty(), "half a number is taken");
    }
}
