//! Time that passes only when everybody waits.

use skrin_base::{Clock, Timestamp};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tokio::time::Instant;

/// 2026-09-21, when every world begins.
const BEGIN: i64 = 1_790_000_000_000_000_000;

/// The clock of one device: the world's time, with an error of its own that may jump. No two readings are equal.
pub(crate) struct SimClock {
    begin: Instant,
    error: AtomicI64,
    readings: AtomicU64,
}

impl SimClock {
    /// Call it inside the world's runtime.
    pub(crate) fn new(begin: Instant, error: i64) -> Self {
        Self {
            begin,
            error: AtomicI64::new(error),
            readings: AtomicU64::new(0),
        }
    }

    /// Somebody sets the clock.
    pub(crate) fn jump(&self, by: i64) {
        self.error.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let error = self.error.load(Ordering::Relaxed);
        Timestamp(BEGIN + error + self.monotonic() as i64)
    }

    fn monotonic(&self) -> u64 {
        let reading = self.readings.fetch_add(1, Ordering::Relaxed);
        self.begin.elapsed().as_nanos() as u64 + reading
    }
}
