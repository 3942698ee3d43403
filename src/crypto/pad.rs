//! Padding that hides the length of records: docs/format/README.md, section 3.

use crate::seal::{OpenError, Opened, SEAL_OVERHEAD};
use zeroize::Zeroizing;

const SEALED_MIN: usize = 1024;
const COUNT_LEN: usize = 4;

/// From here on whoever pads finely pads to eighths.
const FINE_FROM: usize = 64 * 1024;

/// The length of the sealed object: a power of two of at least 1 KiB.
fn coarse(content: usize) -> usize {
    (content + COUNT_LEN + SEAL_OVERHEAD)
        .next_power_of_two()
        .max(SEALED_MIN)
}

/// The same up to 64 KiB; beyond, a multiple of an eighth of the power of two below it.
fn fine(content: usize) -> usize {
    let whole = coarse(content);
    match whole > FINE_FROM {
        true => (content + COUNT_LEN + SEAL_OVERHEAD).next_multiple_of(whole / 16),
        false => whole,
    }
}

/// Length, contents and zero bytes, so that the *sealed* object is a power of two of at least 1 KiB.
/// Contents are bounded by the limits of their kind, far below 2^31 bytes.
pub fn pad_pow2(content: &[u8]) -> Zeroizing<Vec<u8>> {
    pad(content, coarse(content.len()))
}

/// The same, but in steps of an eighth from 64 KiB on: what is so large is not repeated often, and a power of two more is much.
pub fn pad_fine(content: &[u8]) -> Zeroizing<Vec<u8>> {
    pad(content, fine(content.len()))
}

fn pad(content: &[u8], total: usize) -> Zeroizing<Vec<u8>> {
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
    unpad(&padded, coarse)
}

/// The contents of what `pad_fine` made.
///
/// # Errors
/// `Padding` for anything that `pad_fine` would not make.
pub fn unpad_fine(padded: Opened) -> Result<Opened, OpenError> {
    unpad(&padded, fine)
}

fn unpad(padded: &[u8], expected: fn(usize) -> usize) -> Result<Opened, OpenError> {
    let (count, rest) = padded.split_first_chunk().ok_or(OpenError::Padding)?;
    let len = u32::from_le_bytes(*count) as usize;
    let (content, zeros) = rest.split_at_checked(len).ok_or(OpenError::Padding)?;
    if padded.len() + SEAL_OVERHEAD != expected(len) || zeros.iter().any(|b| *b != 0) {
        return Err(OpenError::Padding);
    }
    Ok(Opened::new(Zeroizing::new(content.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fine_padding_is_that_of_powers_of_two_up_to_64_kib_and_wastes_at_most_an_eighth_beyond() {
        for len in (0..1 << 18).step_by(997) {
            let content = vec![7; len];
            let padded = pad_fine(&content);
            let sealed = padded.len() + SEAL_OVERHEAD;
            match sealed <= FINE_FROM {
                true => assert_eq!(*padded, *pad_pow2(&content)),
                false => assert!(sealed - len <= len / 8 + COUNT_LEN + SEAL_OVERHEAD, "{len}"),
            }
            assert_eq!(*unpad_fine(Opened::new(padded.clone())).unwrap(), *content);
            let mut longer = padded;
            longer.push(0);
            assert!(unpad_fine(Opened::new(longer)).is_err());
        }
    }
}
