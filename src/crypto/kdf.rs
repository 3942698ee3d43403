//! HKDF-SHA256 (RFC 5869) with the labels of the format.

use hkdf::Hkdf;
use sha2::Sha256;
use skrin_base::VaultId;
use skrin_base::wire::{Encode, Writer};
use zeroize::Zeroizing;

/// `kdf(secret, label, context...)` of docs/format/README.md, section 4: 32 bytes that depend
/// on every argument. The vault id is the salt.
pub(crate) fn kdf(
    secret: &[u8],
    vault: VaultId,
    label: &str,
    context: &[&dyn Encode],
) -> Zeroizing<[u8; 32]> {
    let mut info = Writer::default();
    info.count(LABEL_PREFIX.len() + label.len());
    info.raw(LABEL_PREFIX.as_bytes());
    info.raw(label.as_bytes());
    context.iter().for_each(|field| field.encode(&mut info));
    let mut out = Zeroizing::new([0; 32]);
    expand(secret, vault.as_bytes(), &info.into_bytes(), &mut out);
    out
}

/// What every label of the format begins with.
pub(crate) const LABEL_PREFIX: &str = "skrin/v1/";

fn expand(secret: &[u8], salt: &[u8], info: &[u8], out: &mut [u8; 32]) {
    let expanded = Hkdf::<Sha256>::new(Some(salt), secret).expand(info, out);
    // RFC 5869 allows 255 * 32 bytes; 32 always fit.
    debug_assert!(expanded.is_ok(), "32 bytes are within the bound");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn the_vectors_of_rfc_5869_hold() {
        // RFC 5869, A.1 and A.3; the outputs are cut to the 32 bytes that we ask for.
        let mut out = [0; 32];
        expand(
            &[0x0b; 22],
            &hex("000102030405060708090a0b0c"),
            &hex("f0f1f2f3f4f5f6f7f8f9"),
            &mut out,
        );
        assert_eq!(
            out.as_slice(),
            hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf")
        );
        expand(&[0x0b; 22], &[], &[], &mut out);
        assert_eq!(
            out.as_slice(),
            hex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d")
        );
    }

    #[test]
    fn every_argument_changes_the_key() {
        let base = kdf(&[1; 32], VaultId([2; 16]), "lane", &[&VaultId([3; 16])]);
        let others = [
            kdf(&[9; 32], VaultId([2; 16]), "lane", &[&VaultId([3; 16])]),
            kdf(&[1; 32], VaultId([9; 16]), "lane", &[&VaultId([3; 16])]),
            kdf(&[1; 32], VaultId([2; 16]), "page", &[&VaultId([3; 16])]),
            kdf(&[1; 32], VaultId([2; 16]), "lane", &[&VaultId([9; 16])]),
            kdf(&[1; 32], VaultId([2; 16]), "lane", &[]),
        ];
        assert!(others.iter().all(|other| **other != *base));
    }
}
