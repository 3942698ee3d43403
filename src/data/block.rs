//! Plain blocks in memory, and the compression in front of their seal.

use crate::error::Flaw;
use parking_lot::Mutex;
use skrin_base::SegmentId;
use skrin_base::limits::BLOCK_LEN;
use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Flag of a block that was compressed before it was sealed.
pub const FLAG_ZSTD: u8 = 1;

/// Where a block was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockRef {
    /// In which segment.
    pub segment: SegmentId,
    /// At which place in it.
    pub slot: u32,
}

/// The plain bytes of a block, shared; wiped when the last holder lets go. What is shorter than the block length of its
/// file reads as zeros from its end on.
#[derive(Clone)]
pub struct Block(Arc<Plain>);

struct Plain {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Drop for Plain {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        wipe(&mut bytes);
        self.pool.give(bytes);
    }
}

/// Overwrites with zeros. `fill` and an opaque use: as the compiler must assume that somebody looks, it
/// cannot leave the stores out; and a block takes 2 us where volatile bytes would take 20.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.len())
    }
}

/// Buffers that are used again: fresh memory costs more than the cipher does.
#[derive(Default)]
pub(crate) struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
}

/// Buffers kept; 2 MiB of them.
const POOL_MAX: usize = 32;

impl Pool {
    /// An empty buffer with room for a block.
    pub(crate) fn take(&self) -> Vec<u8> {
        let buffer = self.free.lock().pop();
        buffer.unwrap_or_else(|| Vec::with_capacity(BLOCK_LEN))
    }

    fn give(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() < BLOCK_LEN {
            return;
        }
        buffer.clear();
        let mut free = self.free.lock();
        if free.len() < POOL_MAX {
            free.push(buffer);
        }
    }

    /// Makes a shared block of a buffer that `take` gave. A small block moves to memory of its own size.
    pub(crate) fn block(self: &Arc<Self>, mut bytes: Vec<u8>) -> Block {
        if bytes.len() < BLOCK_LEN / 2 && bytes.capacity() >= BLOCK_LEN {
            let small = bytes.as_slice().to_vec();
            wipe(&mut bytes);
            self.give(std::mem::replace(&mut bytes, small));
        }
        Block(Arc::new(Plain {
            bytes,
            pool: Arc::clone(self),
        }))
    }
}

thread_local! {
    static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Whether the blocks of a file are worth compressing, learned from those that were written before.
#[derive(Default, Debug)]
pub struct Gain {
    /// Blocks in a row that gained nothing, or were not tried.
    misses: u32,
}

impl Gain {
    /// After so many in a row only one of so many is tried.
    const PATIENCE: u32 = 4;
    const EVERY: u32 = 16;

    fn worth_trying(&mut self) -> bool {
        let try_it = self.misses < Self::PATIENCE || self.misses.is_multiple_of(Self::EVERY);
        if !try_it {
            self.misses = self.misses.wrapping_add(1);
        }
        try_it
    }

    fn tried(&mut self, gained: bool) {
        self.misses = if gained {
            0
        } else {
            self.misses.wrapping_add(1)
        };
    }
}

/// What to seal for `plain`, and its flags: compressed where a level is given and it saves a sixteenth.
pub(crate) fn compress<'a>(
    plain: &'a [u8],
    level: Option<i32>,
    gain: &mut Gain,
) -> (Cow<'a, [u8]>, u8) {
    let Some(level) = level.filter(|_| gain.worth_trying()) else {
        return (Cow::Borrowed(plain), 0);
    };
    let done = compress_at(plain, level);
    gain.tried(done.1 != 0);
    done
}

fn compress_at(plain: &[u8], level: i32) -> (Cow<'_, [u8]>, u8) {
    match zstd_of(plain, level) {
        Some(packed)
            if packed.len() <= plain.len() - plain.len() / 16 && packed.len() < plain.len() =>
        {
            (Cow::Owned(packed), FLAG_ZSTD)
        }
        _ => (Cow::Borrowed(plain), 0),
    }
}

/// A compressor that cannot be had only means storing the block plain.
fn zstd_of(plain: &[u8], level: i32) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(l, _)| *l != level) {
            *slot = Some((level, zstd::bulk::Compressor::new(level).ok()?));
        }
        slot.as_mut()?.1.compress(plain).ok()
    })
}

/// The plain text of an opened block in `opened`, whose output must be exactly `plain_len` bytes.
///
/// # Errors
/// `Compression` for every other length, unknown flags, or bytes that are not one zstd frame.
pub(crate) fn expand(
    opened: Vec<u8>,
    flags: u8,
    plain_len: u32,
    pool: &Pool,
) -> Result<Vec<u8>, Flaw> {
    let plain_len = plain_len as usize;
    if plain_len > BLOCK_LEN || flags & !FLAG_ZSTD != 0 {
        return Err(Flaw::Compression);
    }
    if flags & FLAG_ZSTD == 0 {
        return if opened.len() == plain_len {
            Ok(opened)
        } else {
            Err(Flaw::Compression)
        };
    }
    let mut out = pool.take();
    out.resize(plain_len, 0);
    let got = DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Decompressor::new().ok();
        }
        // The output cannot grow: a frame that gives more than plain_len bytes is an error.
        slot.as_mut()?
            .decompress_to_buffer(&opened, out.as_mut_slice())
            .ok()
    });
    let mut opened = opened;
    wipe(&mut opened);
    pool.give(opened);
    if got == Some(plain_len) {
        Ok(out)
    } else {
        Err(Flaw::Compression)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Arc<Pool> {
        Arc::default()
    }

    #[test]
    fn text_is_compressed_and_comes_back() {
        let plain = b"the same words again and again; ".repeat(2000);
        let (stored, flags) = compress(&plain, Some(1), &mut Gain::default());
        assert_eq!(flags, FLAG_ZSTD);
        assert!(stored.len() < plain.len() / 10);
        let back = expand(stored.into_owned(), flags, plain.len() as u32, &pool()).unwrap();
        assert_eq!(back, plain);
    }

    #[test]
    fn what_gains_less_than_a_sixteenth_is_stored_as_it_is() {
        use skrin_base::clock::{Entropy, testutil::SeededEntropy};
        let mut plain = vec![0; 4096];
        SeededEntropy::new(1).fill(&mut plain);
        let mut gain = Gain::default();
        assert_eq!(compress(&plain, Some(3), &mut gain).1, 0);
        assert_eq!(compress(&[7], Some(3), &mut gain).1, 0);
        assert_eq!(compress(&[0; 4096], None, &mut gain).1, 0, "off means off");
    }

    #[test]
    fn noise_is_tried_now_and_then_and_text_behind_it_is_found() {
        use skrin_base::clock::{Entropy, testutil::SeededEntropy};
        let mut noise = vec![0; 4096];
        SeededEntropy::new(1).fill(&mut noise);
        let mut gain = Gain::default();
        let mut tried = 0;
        for _ in 0..100 {
            let before = gain.misses;
            let try_it = Gain { misses: before }.worth_trying();
            tried += u32::from(try_it);
            assert_eq!(compress(&noise, Some(1), &mut gain).1, 0);
        }
        assert_eq!(tried, 4 + 6);
        let text = b"the same words again and again; ".repeat(100);
        let found = (0..16).find(|_| compress(&text, Some(1), &mut gain).1 == FLAG_ZSTD);
        assert!(found.is_some());
        assert_eq!(
            compress(&text, Some(1), &mut gain).1,
            FLAG_ZSTD,
            "and goes on"
        );
    }

    #[test]
    fn a_bomb_or_a_wrong_length_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 24], 1).unwrap();
        assert!(bomb.len() < 2048, "16 MiB of zeros in {} bytes", bomb.len());
        for plain_len in [1, 4096, BLOCK_LEN as u32] {
            let got = expand(bomb.clone(), FLAG_ZSTD, plain_len, &pool());
            assert_eq!(got, Err(Flaw::Compression));
        }
        let short = zstd::bulk::compress(&[1; 100], 1).unwrap();
        assert_eq!(
            expand(short.clone(), FLAG_ZSTD, 101, &pool()),
            Err(Flaw::Compression)
        );
        assert_eq!(
            expand(short.clone(), FLAG_ZSTD, 99, &pool()),
            Err(Flaw::Compression)
        );
        assert_eq!(
            expand(short, 2, 100, &pool()),
            Err(Flaw::Compression),
            "unknown flag"
        );
        assert_eq!(expand(vec![0; 5], 0, 4, &pool()), Err(Flaw::Compression));
    }

    #[test]
    fn buffers_come_back_wiped_and_are_used_again() {
        let pool = pool();
        let mut bytes = pool.take();
        bytes.resize(BLOCK_LEN, 0xaa);
        let block = pool.block(bytes);
        let other = block.clone();
        drop(block);
        assert_eq!(pool.free.lock().len(), 0, "still held");
        assert_eq!(other[BLOCK_LEN - 1], 0xaa);
        drop(other);
        assert_eq!(pool.free.lock().len(), 1);
    }

    #[test]
    fn a_small_block_does_not_keep_a_large_buffer() {
        let pool = pool();
        let mut bytes = pool.take();
        bytes.extend_from_slice(&[5; 100]);
        let block = pool.block(bytes);
        assert_eq!(&*block, &[5; 100]);
        assert!(block.0.bytes.capacity() < 4096);
        assert_eq!(pool.free.lock().len(), 1);
    }
}
