//! One function for each decoder. They return for every input; what decodes is encoded again and compared.

pub mod base;
pub mod cli;
pub mod crypto;
pub mod data;
pub mod fs;
pub mod joining;
pub mod meta;
pub mod storage;
pub mod vault;

use skrin_base::wire::{Decode, Encode, WireError};

/// Decodes a value that must fill `bytes`; if there is one, its encoding must be `bytes` again.
pub(crate) fn canonical<T: Encode + Decode>(bytes: &[u8]) -> Result<T, WireError> {
    let value = T::from_bytes(bytes)?;
    assert_eq!(value.to_bytes(), bytes, "a value has two encodings");
    Ok(value)
}

/// Splits the first byte off, to choose between several decoders.
pub(crate) fn chosen(data: &[u8]) -> (u8, &[u8]) {
    data.split_first()
        .map_or((0, data), |(first, rest)| (*first, rest))
}
