//! Chance, from a seed.

use skrin_base::Entropy;
use skrin_base::clock::testutil::SeededEntropy;

/// A stream of choices.
pub(crate) struct Chance(SeededEntropy);

impl Chance {
    /// The stream of one purpose: adding draws to one changes no other.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        Self(SeededEntropy::new(mix(seed, purpose)))
    }

    pub(crate) fn draw(&self) -> u64 {
        self.0.u64()
    }

    /// A number below `n`.
    pub(crate) fn below(&self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }

    /// True so many times of a thousand.
    pub(crate) fn per_mille(&self, n: u64) -> bool {
        self.below(1000) < n
    }

    pub(crate) fn coin(&self) -> bool {
        self.below(2) == 0
    }
}

/// A seed for one purpose.
pub(crate) fn mix(seed: u64, purpose: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(purpose.as_bytes());
    let mut out = [0; 8];
    hasher.finalize_xof().fill(&mut out);
    u64::from_le_bytes(out)
}
