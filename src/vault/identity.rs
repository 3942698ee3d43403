//! What two people compare to be sure of each other's keys.

use skrin_base::ids::{Hash32, VaultId};
use skrin_base::wire::{Encode, Writer};
use skrin_crypto::words::words_of;
use skrin_crypto::{WordsEntropy, hash};

const GROUPS: usize = 12;
const GROUP: u32 = 100_000;

fn number(vault: VaultId, fingerprint: &Hash32) -> Hash32 {
    let mut w = Writer::default();
    w.bytes(b"skrin/v1/safety-number");
    vault.encode(&mut w);
    fingerprint.encode(&mut w);
    hash(&w.into_bytes())
}

/// A person's fingerprint as sixty digits in twelve groups of five, for reading aloud: 199 bits of it.
pub fn safety_number(vault: VaultId, fingerprint: &Hash32) -> String {
    let mut rest = number(vault, fingerprint).0;
    let mut groups = Vec::with_capacity(GROUPS);
    for _ in 0..GROUPS {
        // Long division: the remainder is the next group, the quotient what is left.
        let mut remainder = 0u32;
        for byte in &mut rest {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / GROUP) as u8;
            remainder = value % GROUP;
        }
        groups.push(format!("{remainder:05}"));
    }
    groups.join(" ")
}

/// The same as twelve words, 128 bits of it. They open nothing: call them the words of the fingerprint.
pub fn safety_words(vault: VaultId, fingerprint: &Hash32) -> String {
    let number = number(vault, fingerprint).0;
    let half = WordsEntropy::from_bytes(std::array::from_fn(|at| number[at]));
    words_of(&half).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_safety_number_has_sixty_digits_and_depends_on_every_bit() {
        let vault = VaultId([1; 16]);
        let of = |fingerprint: [u8; 32]| safety_number(vault, &Hash32(fingerprint));
        let number = of([7; 32]);
        let groups: Vec<&str> = number.split(' ').collect();
        assert_eq!(groups.len(), 12);
        let is_group = |g: &&str| g.len() == 5 && g.bytes().all(|b| b.is_ascii_digit());
        assert!(groups.iter().all(is_group), "{number}");
        let mut seen = BTreeSet::from([number]);
        for bit in 0..256 {
            let mut other = [7; 32];
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(of(other)), "bit {bit}");
            assert_ne!(
                safety_words(vault, &Hash32(other)),
                safety_words(vault, &Hash32([7; 32]))
            );
        }
        let elsewhere = safety_number(VaultId([2; 16]), &Hash32([7; 32]));
        assert!(seen.insert(elsewhere), "another vault is another number");
        assert_eq!(safety_words(vault, &Hash32([7; 32])).split(' ').count(), 12);
    }

    #[test]
    fn the_groups_are_the_digits_of_the_number_in_base_100000() {
        // As anybody computes it with whole numbers: the lowest group first.
        let (vault, fingerprint) = (VaultId([3; 16]), Hash32([4; 32]));
        let bytes = number(vault, &fingerprint).0;
        let mut digits: Vec<u8> = vec![0];
        for byte in bytes {
            let mut carry = u32::from(byte);
            for digit in &mut digits {
                let value = u32::from(*digit) * 256 + carry;
                *digit = (value % 10) as u8;
                carry = value / 10;
            }
            while carry > 0 {
                digits.push((carry % 10) as u8);
                carry /= 10;
            }
        }
        digits.resize(80, 0);
        let groups: Vec<String> = (0..12)
            .map(|at| {
                digits[at * 5..at * 5 + 5]
                    .iter()
                    .rev()
                    .map(u8::to_string)
                    .collect()
            })
            .collect();
        assert_eq!(safety_number(vault, &fingerprint), groups.join(" "));
    }
}
