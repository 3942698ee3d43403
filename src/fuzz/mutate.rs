//! Seeded mutations of good inputs: the bounded part of fuzzing, for the tests.

use skrin_base::Entropy;
use skrin_base::clock::testutil::SeededEntropy;

/// Values that lengths, counts, tags and numbers go wrong at.
const EXTREMES: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x1_0000,
    0x1_0001,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];
/// Longer inputs are cut: what goes wrong goes wrong early, and time is short.
const LEN_MAX: usize = 1 << 16;

/// A stream of inputs made from `seeds`: the seeds themselves first, then mutants of them. The same arguments give
/// the same inputs.
pub struct Mutator<'a> {
    seeds: &'a [Vec<u8>],
    entropy: SeededEntropy,
    next: usize,
}

impl<'a> Mutator<'a> {
    /// Starts a stream.
    pub fn new(seeds: &'a [Vec<u8>], seed: u64) -> Self {
        let entropy = SeededEntropy::new(seed);
        Self {
            seeds,
            entropy,
            next: 0,
        }
    }

    fn below(&self, bound: usize) -> usize {
        (self.entropy.u64() % bound.max(1) as u64) as usize
    }

    fn mutant(&self) -> Vec<u8> {
        let mut bytes = self.seed();
        for _ in 0..1 + self.below(4) {
            self.step(&mut bytes);
        }
        bytes.truncate(LEN_MAX);
        bytes
    }

    fn seed(&self) -> Vec<u8> {
        self.seeds
            .get(self.below(self.seeds.len()))
            .cloned()
            .unwrap_or_default()
    }

    fn step(&self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(8) {
            0 => bytes.truncate(at),
            1 => self.flip(bytes, at),
            2 => self.extreme(bytes, at),
            3 => drop(bytes.drain(at..bytes.len().min(at + 1 + self.below(9)))),
            4 => {
                let other = self.seed();
                let cut = self.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[cut..]);
            }
            5 => {
                let copy: Vec<u8> = bytes[at..]
                    .iter()
                    .copied()
                    .take(1 + self.below(40))
                    .collect();
                let to = self.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            6 => bytes.extend((0..1 + self.below(9)).map(|_| self.entropy.u64() as u8)),
            _ => self.near(bytes, at),
        }
    }

    fn flip(&self, bytes: &mut [u8], at: usize) {
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << self.below(8);
        }
    }

    /// A number of one, two, four or eight bytes becomes an extreme one.
    fn extreme(&self, bytes: &mut [u8], at: usize) {
        let value = EXTREMES[self.below(EXTREMES.len())].to_le_bytes();
        let width = 1 << self.below(4);
        for (byte, new) in bytes.iter_mut().skip(at).zip(value).take(width) {
            *byte = new;
        }
    }

    /// A byte becomes a neighbour of itself: lengths off by one.
    fn near(&self, bytes: &mut [u8], at: usize) {
        if let Some(byte) = bytes.get_mut(at) {
            *byte = if self.below(2) == 0 {
                byte.wrapping_add(1)
            } else {
                byte.wrapping_sub(1)
            };
        }
    }
}

impl Iterator for Mutator<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let at = self.next;
        self.next += 1;
        match self.seeds.get(at) {
            Some(seed) => Some(seed.clone()),
            None => Some(self.mutant()),
        }
    }
}
