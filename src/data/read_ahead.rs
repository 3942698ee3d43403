//! How far to read ahead of a reader.

use skrin_base::limits::BLOCK_LEN;
use std::ops::Range;

/// The first step: a few blocks, as many files are small.
const WINDOW_MIN: u64 = 256 * 1024 / BLOCK_LEN as u64;
/// The largest: two full segments, so that the next one is on its way while one is waited for.
const WINDOW_MAX: u64 = 16 * 1024 * 1024 / BLOCK_LEN as u64;
/// A window from which on whole extents, hence whole segments, are fetched where they fit.
const WINDOW_WHOLE: u64 = 2 * 1024 * 1024 / BLOCK_LEN as u64;
/// The kernel's own read-ahead sends requests in parallel: this far out of order is still in sequence.
const SLACK: u64 = 16;

/// The reading pattern of one open file; in blocks.
#[derive(Debug, Clone)]
pub struct ReadAhead {
    /// Where a sequential reader reads next.
    next: u64,
    /// What was asked for ahead ends here.
    ahead: u64,
    window: u64,
    max: u64,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl ReadAhead {
    /// A file that was just opened; at most `max_bytes` and at most 16 MiB are read ahead.
    pub fn new(max_bytes: u64) -> Self {
        let max = (max_bytes / BLOCK_LEN as u64).clamp(WINDOW_MIN, WINDOW_MAX);
        Self {
            next: 0,
            ahead: 0,
            window: 0,
            max,
        }
    }

    /// Notes that `blocks` are read, and says which to prefetch now, if any. The window doubles while reading is sequential (from the start
    /// of a file at once, elsewhere from the second read in sequence on) and closes otherwise. `extent_end` gives
    /// the block after the extent that holds a block: a large window ends with an extent. The caller cuts the answer at the file's end.
    pub fn on_read(
        &mut self,
        blocks: Range<u64>,
        extent_end: impl Fn(u64) -> u64,
    ) -> Option<Range<u64>> {
        let distance = blocks.start.abs_diff(self.next);
        let again = blocks.start < self.next && blocks.end <= self.next;
        if distance > SLACK && !(again && blocks.start + self.window >= self.next) {
            (self.next, self.ahead, self.window) = (blocks.end, blocks.end, 0);
            return None;
        }
        self.next = self.next.max(blocks.end);
        self.ahead = self.ahead.max(self.next);
        // Half of what was asked for is still ahead.
        if self.ahead - self.next > self.window / 2 {
            return None;
        }
        self.window = match self.window >= WINDOW_WHOLE {
            true => self.max,
            false => (self.window * 2).clamp(WINDOW_MIN, self.max),
        };
        let (start, end) = (self.ahead, self.next + self.window);
        let end = match self.window >= WINDOW_WHOLE {
            true => self.whole_extents(start, end, &extent_end),
            false => end,
        };
        self.ahead = self.ahead.max(end);
        (start < end).then_some(start..end)
    }

    /// Where the last extent from `start` on ends that does so before `end`. The first one may be longer, up to the largest
    /// window; of one that is longer still, a part is taken.
    fn whole_extents(&self, start: u64, end: u64, extent_end: &impl Fn(u64) -> u64) -> u64 {
        let end_of = |block| extent_end(block).max(block + 1);
        let first = end_of(start);
        if first > end {
            return if first <= self.next + self.max {
                first
            } else {
                end
            };
        }
        let ends = std::iter::successors(Some(first), |last| Some(end_of(*last)));
        ends.take_while(|e| *e <= end).last().unwrap_or(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `count` blocks one after the other with extents of 127; returns what was prefetched.
    fn sequential(count: u64) -> Vec<Range<u64>> {
        let mut reader = ReadAhead::default();
        let reads = (0..count).step_by(2).map(|b| b..b + 2);
        reads
            .filter_map(|r| reader.on_read(r, |b| b - b % 127 + 127))
            .collect()
    }

    #[test]
    fn sequential_reading_is_covered_once_and_the_window_grows() {
        let fetched = sequential(5000);
        assert_eq!(fetched[0], 2..6);
        assert!(
            fetched.windows(2).all(|w| w[0].end == w[1].start),
            "{fetched:?}"
        );
        assert!(fetched.last().unwrap().end >= 5000);
        let large = fetched.iter().filter(|r| r.end - r.start >= 64).count();
        assert!(large >= fetched.len() - 8, "{fetched:?}");
        assert!(
            fetched
                .iter()
                .all(|r| r.end - r.start <= 2 * WINDOW_MAX + SLACK)
        );
        let whole = fetched.iter().skip(5).filter(|r| r.end % 127 == 0).count();
        assert_eq!(
            whole,
            fetched.len() - 5,
            "large windows end with an extent: {fetched:?}"
        );
    }

    #[test]
    fn whoever_waits_for_a_segment_has_asked_for_the_next_one_too() {
        let mut reader = ReadAhead::default();
        for block in 0..5000u64 {
            reader.on_read(block..block + 1, |b| b - b % 127 + 127);
            let ahead = reader.ahead - block;
            assert!(ahead <= WINDOW_MAX + 1, "{block}: {reader:?}");
            if block % 127 == 0 && block >= 254 {
                assert!(ahead >= 254, "{block}: {reader:?}");
            }
        }
    }

    #[test]
    fn random_reading_fetches_nothing_ahead() {
        let mut reader = ReadAhead::default();
        for i in 1..200u64 {
            let at = 1000 + i * 7919 % 100_000;
            assert_eq!(reader.on_read(at..at + 1, |b| b + 1), None, "{at}");
        }
    }

    #[test]
    fn a_reader_that_starts_in_the_middle_is_followed_from_its_second_read_on() {
        let mut reader = ReadAhead::default();
        assert_eq!(reader.on_read(500..501, |b| b + 1), None);
        assert_eq!(reader.on_read(501..502, |b| b + 1), Some(502..506));
    }

    #[test]
    fn requests_that_overtake_each_other_are_still_in_sequence() {
        let mut reader = ReadAhead::default();
        for start in [2, 0, 6, 4, 10, 8] {
            reader.on_read(start..start + 2, |b| b + 1);
        }
        assert!(reader.window >= WINDOW_MIN, "{reader:?}");
        assert_eq!(reader.next, 12);
    }
}
