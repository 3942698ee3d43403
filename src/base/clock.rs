//! Time and randomness are parameters: whoever needs them is given one of these.

use crate::wire::{Decode, Encode, Reader, WireError, Writer};

/// Nanoseconds since 1970-01-01T00:00:00Z; negative before it. Covers 1677 to 2262.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub i64);

impl Encode for Timestamp {
    fn encode(&self, w: &mut Writer) {
        w.i64(self.0);
    }
}

impl Decode for Timestamp {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.i64().map(Self)
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The time of day, for time stamps that people read. It may jump.
    fn now(&self) -> Timestamp;
    /// Nanoseconds since some fixed moment; never goes back. For time-outs and leases.
    fn monotonic(&self) -> u64;
}

/// Where randomness comes from: unpredictable to everybody else, never repeated after a fork or a restore.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `out` with uniform random bytes.
    fn fill(&self, out: &mut [u8]);

    /// A random 64-bit number.
    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Random bytes of a fixed length, for identifiers, keys and nonces.
pub fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut out = [0; N];
    entropy.fill(&mut out);
    out
}

/// Deterministic time and randomness for tests.
#[cfg(feature = "testutil")]
pub mod testutil {
    use super::{Clock, Entropy, Timestamp};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same bytes.
    pub struct SeededEntropy(AtomicU64);

    impl SeededEntropy {
        /// Starts a stream.
        pub fn new(seed: u64) -> Self {
            Self(AtomicU64::new(seed))
        }
    }

    impl Entropy for SeededEntropy {
        fn fill(&self, out: &mut [u8]) {
            const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
            for chunk in out.chunks_mut(8) {
                let mut z = self
                    .0
                    .fetch_add(GAMMA, Ordering::Relaxed)
                    .wrapping_add(GAMMA);
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
            }
        }
    }

    /// A clock that moves only when told, starting in 2026.
    pub struct ManualClock(AtomicU64);

    impl Default for ManualClock {
        fn default() -> Self {
            Self(AtomicU64::new(1_790_000_000_000_000_000))
        }
    }

    impl ManualClock {
        /// Lets `nanoseconds` pass.
        pub fn advance(&self, nanoseconds: u64) {
            self.0.fetch_add(nanoseconds, Ordering::Relaxed);
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            Timestamp(self.monotonic() as i64)
        }
        fn monotonic(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }
}
