//! How long to wait for an answer, learned from earlier answers: a server that falls silent is noticed in seconds where it used to
//! answer in milliseconds, and a slow one is given its time.

use std::time::Duration;

use parking_lot::Mutex;

/// Never less than this: a server may have to wake a disk, or a link may be full of our own uploads.
const LEAST: Duration = Duration::from_secs(5);
/// Before anything is known.
const FIRST: Duration = Duration::from_secs(15);
/// After so many doublings the most is reached in any case.
const DOUBLINGS_MAX: u32 = 8;
/// After so many answers what was waited in vain is forgotten.
const ANSWERS: u32 = 16;

/// What is known of one kind of request: smoothed time to the answer and its variation, as TCP keeps them for retransmission (RFC 6298,
/// section 2), and a doubling for each time that waiting was in vain (section 5.5) until some answers came.
#[derive(Default, Debug)]
pub(crate) struct Pace(Mutex<Known>);

#[derive(Default, Debug)]
struct Known {
    smoothed: Option<(Duration, Duration)>,
    doublings: u32,
    /// Answers since the last wait in vain.
    answers: u32,
}

impl Pace {
    /// How long to wait, at most `most`.
    pub(crate) fn patience(&self, most: Duration) -> Duration {
        let known = self.0.lock();
        let base = match known.smoothed {
            Some((time, variation)) => (time + 4 * variation).max(LEAST),
            None => FIRST,
        };
        base.saturating_mul(1 << known.doublings).min(most)
    }

    /// An answer began after this time.
    pub(crate) fn answered(&self, time: Duration) {
        let mut known = self.0.lock();
        known.answers = known.answers.saturating_add(1);
        // One quick answer says nothing of requests that take longer.
        if known.answers >= ANSWERS {
            known.doublings = 0;
        }
        known.smoothed = Some(match known.smoothed {
            None => (time, time / 2),
            Some((smoothed, variation)) => (
                (7 * smoothed + time) / 8,
                (3 * variation + smoothed.abs_diff(time)) / 4,
            ),
        });
    }

    /// None came in time.
    pub(crate) fn in_vain(&self) {
        let mut known = self.0.lock();
        known.answers = 0;
        known.doublings = (known.doublings + 1).min(DOUBLINGS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(45);

    #[test]
    fn patience_follows_the_server_doubles_in_silence_and_comes_back_with_answers() {
        let pace = Pace::default();
        assert_eq!(pace.patience(MOST), FIRST);
        for _ in 0..100 {
            pace.answered(Duration::from_millis(40));
        }
        assert_eq!(pace.patience(MOST), LEAST);
        let mut seen = Vec::new();
        for _ in 0..20 {
            pace.in_vain();
            seen.push(pace.patience(MOST).as_secs());
        }
        assert_eq!(seen[..4], [10, 20, 40, 45]);
        assert_eq!(seen[19], 45);
        for _ in 1..ANSWERS {
            pace.answered(Duration::from_millis(40));
            assert_eq!(pace.patience(MOST), MOST);
        }
        pace.answered(Duration::from_millis(40));
        assert_eq!(pace.patience(MOST), LEAST);
    }

    #[test]
    fn a_slow_server_is_given_its_time_and_never_more_than_the_most() {
        let pace = Pace::default();
        for _ in 0..100 {
            pace.answered(Duration::from_secs(8));
        }
        let patience = pace.patience(MOST);
        assert!(patience >= Duration::from_secs(8), "{patience:?}");
        pace.answered(Duration::from_secs(30));
        assert!(pace.patience(MOST) > Duration::from_secs(30));
        assert_eq!(
            pace.patience(Duration::from_secs(1)),
            Duration::from_secs(1)
        );
    }
}
