//! What a status means, as servers really use them (docs/storage.md).

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};

use crate::ErrorKind;

/// The kind of error that a status other than success is for a request of this method.
pub(crate) fn kind(method: &Method, status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        401 | 403 | 407 => ErrorKind::Denied,
        404 | 410 => ErrorKind::Absent,
        // rclone answers 405 to a PUT on a full disk; everywhere else it means what it says.
        405 if *method == Method::PUT => ErrorKind::Transient,
        405 | 411 | 413 | 414 | 415 | 501 | 505 => ErrorKind::Unsupported,
        // Locked, too early, too many, time-out: "ask again".
        408 | 423 | 425 | 429 => ErrorKind::Transient,
        507 => ErrorKind::Full,
        300..=399 => ErrorKind::Untrusted,
        500.. => ErrorKind::Transient,
        _ => ErrorKind::Broken,
    }
}

/// What to add to the general advice.
pub(crate) fn remedy(status: StatusCode) -> Option<&'static str> {
    match status.as_u16() {
        405 => Some(
            "is its disk full? Does it allow uploads, and is WebDAV switched on at this address?",
        ),
        413 => Some("raise the server's limit for uploads to at least 64 MiB"),
        429 => Some("the server asks for a pause; wrong logins from this address can be the cause"),
        _ => None,
    }
}

/// How long the server asks to wait.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    pause(response.headers())
}

fn pause(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // A date is understood against the server's own clock, whatever ours shows.
    let until = http_date(value)?;
    let now = http_date(headers.get(DATE)?.to_str().ok()?.trim())?;
    Some(Duration::from_secs(until.saturating_sub(now)))
}

/// Seconds since 1970 of an IMF-fixdate (RFC 9110, 5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day: u64 = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|m| *m == name)? as u64 + 1;
    let year: u64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(str::parse::<u64>);
    let mut part = |max| clock.next()?.ok().filter(|n| *n <= max);
    let (hour, minute, second) = (part(23)?, part(59)?, part(60)?);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Days of the proleptic Gregorian calendar, years beginning in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(
            http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(
            http_date("Sat, 21 Nov 2026 12:00:00 GMT"),
            Some(1_795_262_400)
        );
        for bad in [
            "",
            "Sun, ",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1800 08:49:37 GMT",
            "Sun, 06 Nov 1994 99:49:37 GMT",
        ] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn pauses_are_seconds_or_dates_of_the_servers_clock() {
        let mut headers = HeaderMap::new();
        assert_eq!(pause(&headers), None);
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(pause(&headers), Some(Duration::from_secs(7)));
        headers.insert(
            RETRY_AFTER,
            "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap(),
        );
        assert_eq!(pause(&headers), None);
        headers.insert(DATE, "Sun, 06 Nov 1994 08:49:07 GMT".parse().unwrap());
        assert_eq!(pause(&headers), Some(Duration::from_secs(30)));
        headers.insert(RETRY_AFTER, "-1".parse().unwrap());
        assert_eq!(pause(&headers), None);
    }
}
