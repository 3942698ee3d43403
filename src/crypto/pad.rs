//! Padding that hides the length of records: docs/format/README.md, section 3.

use crate::seal::{OpenError, Opened, SEAL_OVERHEAD};
use zeroize::Zeroizing;

const SEALED_MIN: usize = 1024;
const COUNT_LEN: usize = 4;

/// Length, contents and zero bytes, so that the *sealed* object is a power of two of at least 1 KiB.
/// Contents are bounded by the limits of their kind, far below 2^31 bytes.
pub fn pad_pow2(content: &[u8]) -> Zeroizing<Vec<u8>> {
    let total = (content.len() + COUNT_LEN + SEAL_OVERHEAD)
        .next_power_of_two()
        .max(SEALED_MIN);
    let mut out = Zeroizing::new(Vec::with_capacity(total - SEAL_OVERHEAD));
    // Limits keep contents below 2^32 bytes.
    let count = u32::try_from(content.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(content);
    out.resize(total - SEAL_OVERHEAD, 0);
    out
}

/// The contents of what `pad_pow2` made.
///
/// # Errors
/// `Padding` for anything that `pad_pow2` would not make.
pub fn unpad_pow2(padded: Opened) -> Result<Opened, OpenError> {
    let (count, rest) = padded.split_first_chunk().ok_or(OpenError::Padding)?;
    let len = u32::from_le_bytes(*count) as usize;
    let (content, zeros) = rest.split_at_checked(len).ok_or(OpenError::Padding)?;
    let expected = (len + COUNT_LEN + SEAL_OVERHEAD)
        .next_power_of_two()
        .max(SEALED_MIN);
    if padded.len() + SEAL_OVERHEAD != expected || zeros.iter().any(|b| *b != 0) {
        return Err(OpenError::Padding);
    }
    Ok(Opened::new(Zeroizing::new(content.to_vec())))
}
