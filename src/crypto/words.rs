//! The twelve words: BIP-39, English list, 128 bits with a 4-bit checksum.

use crate::keys::WordsEntropy;
use bip39::{Language, Mnemonic};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

#[cfg(test)]
mod tests;

/// How many words there are.
pub const WORDS: usize = 12;
/// As many as BIP-39 has for the longest entropy.
const WORDS_MAX: usize = 24;
/// Longest text that is looked at, in bytes.
const TEXT_MAX: usize = 1024;

/// Why some text is not twelve words. The words themselves are never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WordsError {
    /// Too few or too many, and how many there must be.
    #[error("{0} words were given, there must be {1}")]
    Count(usize, usize),
    /// Not in the list.
    #[error("word {0} is not in the list of BIP-39 words: check its spelling")]
    Unknown(usize),
    /// All known, but they do not belong together.
    #[error("the checksum of the words does not fit: a word is wrong, or two are swapped")]
    Checksum,
}

/// The words for people to write down, in lower case with single spaces.
pub fn words_of(entropy: &WordsEntropy) -> Zeroizing<String> {
    encode(entropy.raw())
}

/// Words for 16, 20, 24, 28 or 32 bytes, the lengths that BIP-39 allows; none for others.
pub(crate) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(WORDS_MAX * 9));
    if let Ok(mut mnemonic) = Mnemonic::from_entropy_in(Language::English, bytes) {
        for word in mnemonic.words() {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(word);
        }
        mnemonic.zeroize();
    }
    out
}

/// Reads twelve words: NFKD, any case, any white space, the first four letters of each suffice.
///
/// # Errors
/// Says which word is wrong, by its place from 1.
pub fn parse_words(text: &str) -> Result<WordsEntropy, WordsError> {
    decode::<16>(text, WORDS).map(WordsEntropy::from)
}

/// Reads `count` words, which stand for `N` bytes, in the same way.
///
/// # Errors
/// As `parse_words`.
pub(crate) fn decode<const N: usize>(
    text: &str,
    count: usize,
) -> Result<Zeroizing<[u8; N]>, WordsError> {
    if text.len() > TEXT_MAX {
        return Err(WordsError::Count(text.split_whitespace().count(), count));
    }
    let mut clean = Zeroizing::new(String::with_capacity(4 * TEXT_MAX));
    clean.extend(text.nfkd().flat_map(char::to_lowercase));
    let typed: Vec<&str> = clean.split_whitespace().collect();
    if typed.len() != count {
        return Err(WordsError::Count(typed.len(), count));
    }
    let mut full = Zeroizing::new(String::with_capacity(WORDS_MAX * 9));
    for (at, word) in typed.iter().enumerate() {
        full.push_str(full_word(word).ok_or(WordsError::Unknown(at + 1))?);
        full.push(' ');
    }
    let mut mnemonic = Mnemonic::parse_in_normalized(Language::English, full.trim_end())
        .map_err(|_| WordsError::Checksum)?;
    let (mut bytes, len) = mnemonic.to_entropy_array();
    let mut entropy = Zeroizing::new([0; N]);
    let fits = len == N;
    if fits {
        entropy.copy_from_slice(&bytes[..N]);
    }
    bytes.zeroize();
    mnemonic.zeroize();
    fits.then_some(entropy).ok_or(WordsError::Checksum)
}

/// The word itself, or the only one that begins with these four or more letters.
fn full_word(typed: &str) -> Option<&'static str> {
    let list = Language::English.word_list();
    let exact = list.iter().find(|word| **word == typed);
    let prefix = || list.iter().find(|word| word.starts_with(typed));
    let long_enough = typed.len() >= 4;
    exact
        .or_else(|| long_enough.then(prefix).flatten())
        .copied()
}
