//! Small bodies that inflate to gigabytes, made by hand, as nothing here compresses or inflates. The same steps in Python gave
//! what gzip, Python's zlib, Node's Brotli and zstd inflate.

/// What each inflates to.
pub(crate) const INFLATED: usize = 2 << 30;

/// Bits as DEFLATE and Brotli pack them: the lowest first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    waiting: u64,
    n: u32,
}

impl Bits {
    fn put(&mut self, value: u64, n: u32) {
        self.waiting |= value << self.n;
        self.n += n;
        while self.n >= 8 {
            self.bytes.push(self.waiting as u8);
            self.waiting >>= 8;
            self.n -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.n > 0 {
            self.bytes.push(self.waiting as u8);
        }
        self.bytes
    }
}

/// RFC 1951: a stored block with `prefix` and one `unit` of one to four bytes, and a block that repeats the unit in two bits for each
/// 258 bytes.
fn deflate(prefix: &str, unit: &str) -> Vec<u8> {
    let mut bits = Bits::default();
    let first = [prefix, unit].concat();
    let back = unit.len() as u64 - 1;
    bits.put(0, 8);
    bits.put(first.len() as u64, 16);
    bits.put(!first.len() as u64 & 0xffff, 16);
    for byte in first.bytes() {
        bits.put(byte.into(), 8);
    }
    // The last block, with codes of its own: 286 for literals and lengths, one distance, 18 lengths of codes.
    bits.put(0b101, 3);
    bits.put(29, 5);
    bits.put(back, 5);
    bits.put(14, 4);
    for len in [0, 0, 1, 2].into_iter().chain([0; 13]).chain([2]) {
        bits.put(len, 3);
    }
    // No code but that of the end (0) and that of 258 bytes (1), and one distance (0).
    let one = 0b11;
    for zeros in [&[138_u64, 118][..], &[28]] {
        for n in zeros {
            bits.put(0, 1);
            bits.put(*n - 11, 7);
        }
        bits.put(one, 2);
    }
    for _ in 0..back {
        bits.put(0b01, 2);
    }
    bits.put(one, 2);
    for _ in 0..INFLATED / 258 {
        bits.put(0b01, 2);
    }
    bits.put(0, 1);
    bits.finish()
}

/// RFC 1952. The check sum at its end is wrong: whoever comes so far has inflated everything.
pub(crate) fn gzip(prefix: &str, unit: &str) -> Vec<u8> {
    let head: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    [&head[..], &deflate(prefix, unit)[..], &[0; 8][..]].concat()
}

/// RFC 1950, which HTTP calls "deflate". Its check sum is wrong, too.
pub(crate) fn zlib(prefix: &str, unit: &str) -> Vec<u8> {
    [
        &[0x78_u8, 0x9c][..],
        &deflate(prefix, unit)[..],
        &[0; 4][..],
    ]
    .concat()
}

/// RFC 7932: meta-blocks of 16 MiB zeros, each one insertion, with prefix codes of a single symbol, which take no bits.
pub(crate) fn brotli() -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(0, 1);
    for _ in 0..INFLATED >> 24 {
        bits.put(0, 1);
        bits.put(2, 2);
        bits.put(0xff_ffff, 24);
        bits.put(0, 1);
        // One type of block and one tree of each kind, no postfix and no direct distances.
        bits.put(0, 3 + 2 + 4 + 2 + 2);
        for (width, symbol) in [(8, 0), (10, 504), (6, 0)] {
            bits.put(0b01, 4);
            bits.put(symbol, width);
        }
        bits.put((1 << 24) - 22_594, 24);
    }
    bits.put(0b11, 2);
    bits.finish()
}

/// RFC 8878: blocks of one byte that is repeated 128 Ki times.
pub(crate) fn zstd() -> Vec<u8> {
    let head: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    let blocks = [2_u8, 0, 0x10, 0].repeat(INFLATED >> 17);
    [&head[..], &blocks[..], &[1, 0, 0][..]].concat()
}
