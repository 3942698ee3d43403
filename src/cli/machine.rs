//! Time, randomness and the name of this machine: where the traits of `base` meet the operating system.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use skrin_base::{Clock, Entropy, Timestamp};

/// The clocks of the operating system.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let nanoseconds = |d: std::time::Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        Timestamp(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => nanoseconds(since),
            Err(before) => -nanoseconds(before.duration()),
        })
    }

    fn monotonic(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        // 2^64 nanoseconds are 584 years.
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// The random number generator of the operating system.
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, out: &mut [u8]) {
        // Going on with bytes that are not random would give keys away; there is nobody to return an error to.
        if getrandom::fill(out).is_err() {
            std::process::abort();
        }
    }
}

/// The name of this machine, for conflict copies and lists of devices; cut to what the format allows.
pub(crate) fn host_name() -> String {
    let system = rustix::system::uname();
    let mut name: String = system
        .nodename()
        .to_string_lossy()
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    while name.len() > skrin_base::limits::LABEL_MAX {
        name.pop();
    }
    if name.is_empty() {
        "unnamed".into()
    } else {
        name
    }
}

/// A date for people, in UTC: `2026-11-21 14:03:09 UTC`.
pub(crate) fn date(time: Timestamp) -> String {
    let seconds = time.0.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Days since 1970-01-01 as a date of the Gregorian calendar (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Returns when everything in the file system at a path that was written before is where it is kept, or its process has it.
///
/// # Errors
/// What could not be written since somebody asked last.
#[cfg(target_os = "linux")]
pub(crate) fn sync_file_system(at: &Path) -> std::io::Result<()> {
    let at = std::fs::File::open(at)?;
    match rustix::fs::syncfs(&at) {
        // Of a process that was killed meanwhile: said once.
        Err(rustix::io::Errno::INTR) => Ok(rustix::fs::syncfs(&at)?),
        done => Ok(done?),
    }
}

/// Returns when everything that was written before is where it is kept; errors are told to nobody there.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_file_system(_at: &Path) -> std::io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds: i64| date(Timestamp(seconds * 1_000_000_000));
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(at(1_795_269_789), "2026-11-21 14:03:09 UTC");
        assert_eq!(at(-1), "1969-12-31 23:59:59 UTC");
    }

    #[test]
    fn entropy_differs_each_time() {
        assert_ne!(OsEntropy.u64(), OsEntropy.u64());
    }
}
