//! What is asked of a mount about the past, how it is answered, and how people say when.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned, civil};
use serde::{Deserialize, Serialize};
use skrin_fs::{Fs, FsError, RestoreWish};

use crate::commands::sync::{mount_of, senseless, settle, silent};
use crate::control;
use crate::exit::{Exit, Failure, Outcome};
use crate::mount_table;

/// A point of the past, as typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum When {
    /// Nanoseconds since 1970.
    Time(i64),
    /// Right behind a change: the first digits of its device's id, and its number.
    Version(String, u64),
    /// A snapshot.
    Snapshot(Vec<u8>),
}

/// A path below the mount point, name by name.
pub(crate) type Below = Vec<Vec<u8>>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// What was done to a file.
    History { path: Below },
    /// Put a tree back.
    Restore {
        path: Below,
        when: When,
        exact: bool,
        to: Option<Below>,
    },
    /// Name the present state.
    Take { name: Vec<u8> },
    /// All snapshots.
    Snapshots,
    /// Take a name away.
    Forget { name: Vec<u8> },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Done,
    Versions(Vec<Version>),
    Restored(Restored),
    Snapshots(Vec<Snapshot>),
}

/// One change. With `--json` these names are a stable interface: fields are added, never renamed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Version {
    /// Names the point behind it for `--at`.
    pub version: String,
    /// When it was done.
    pub time: String,
    /// When it was published.
    pub published: String,
    /// The device.
    pub device: String,
    /// `made`, `written`, `attributes`, `linked`, `removed`, `renamed` or `replaced`.
    pub change: String,
    /// The name that the change gave, took or used.
    pub name: Option<String>,
    /// The name before a renaming.
    pub from: Option<String>,
    /// Length in bytes afterwards.
    pub size: Option<u64>,
    /// The name of the conflict copy that it became.
    pub conflict: Option<String>,
}

/// What a restore did. With `--json` these names are a stable interface too.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Restored {
    pub contents: u64,
    pub made: u64,
    pub attributes: u64,
    pub unchanged: u64,
    pub removed: u64,
    pub kept: u64,
    pub doubts: Vec<String>,
}

/// A snapshot. With `--json` these names are a stable interface too.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub name: String,
    pub time: String,
    pub device: String,
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn rfc3339(time: skrin_base::Timestamp) -> String {
    let time = Timestamp::from_nanosecond(i128::from(time.0));
    time.map_or_else(|_| String::new(), |time| time.to_string())
}

/// Answers for a mount.
///
/// # Errors
/// What is not there or cannot be told, and a storage that cannot be reached.
pub(crate) fn answer(fs: &Fs, request: &Request) -> Outcome<Answer> {
    Ok(match request {
        Request::History { path } => {
            let versions = fs.versions(path)?;
            Answer::Versions(versions.into_iter().map(shown).collect())
        }
        Request::Restore {
            path,
            when,
            exact,
            to,
        } => {
            let wish = RestoreWish {
                path: path.clone(),
                when: match when {
                    When::Time(time) => skrin_fs::When::Time(skrin_base::Timestamp(*time)),
                    When::Version(device, number) => {
                        skrin_fs::When::Version(device.clone(), *number)
                    }
                    When::Snapshot(name) => skrin_fs::When::Snapshot(name.clone()),
                },
                exact: *exact,
                to: to.clone(),
            };
            let done = fs.restore_path(&wish)?;
            Answer::Restored(Restored {
                contents: done.contents,
                made: done.made,
                attributes: done.attributes,
                unchanged: done.unchanged,
                removed: done.removed,
                kept: done.kept,
                doubts: done.doubts,
            })
        }
        Request::Take { name } => {
            fs.take_snapshot(name).map_err(|error| match error {
                FsError::Exists => Failure::new(
                    Exit::Busy,
                    format!("{}: there is a snapshot of that name", text(name)),
                ),
                other => other.into(),
            })?;
            Answer::Done
        }
        Request::Snapshots => {
            let snapshots = fs.snapshots()?;
            let shown = snapshots.into_iter().map(|snapshot| Snapshot {
                name: text(&snapshot.name),
                time: rfc3339(snapshot.time),
                device: snapshot.device,
            });
            Answer::Snapshots(shown.collect())
        }
        Request::Forget { name } => {
            fs.forget_snapshot(name)?;
            Answer::Done
        }
    })
}

/// Names the point right behind an operation for `--at`.
pub(crate) fn version_name(id: skrin_base::OpId) -> String {
    let device: String = id.device.to_string().chars().take(8).collect();
    format!("{device}:{}", id.counter)
}

fn shown(version: skrin_fs::Version) -> Version {
    use skrin_fs::Change;
    let (change, name, from) = match version.change {
        Change::Made(name) => ("made", Some(name), None),
        Change::Written => ("written", None, None),
        Change::Attributes => ("attributes", None, None),
        Change::Linked(name) => ("linked", Some(name), None),
        Change::Removed(name) => ("removed", Some(name), None),
        Change::Renamed { from, to } => ("renamed", Some(to), Some(from)),
        Change::Replaced(name) => ("replaced", Some(name), None),
    };
    Version {
        version: version_name(version.id),
        time: rfc3339(version.time),
        published: rfc3339(version.published),
        device: version.device,
        change: change.to_owned(),
        name: name.as_deref().map(text),
        from: from.as_deref().map(text),
        size: version.size,
        conflict: version.conflict.as_deref().map(text),
    }
}

/// A file or directory in a mount, whether or not it is there now.
pub(crate) struct Found {
    pub(crate) mount: PathBuf,
    pub(crate) below: Below,
}

/// Finds the mount in which a path lies. A symbolic link at its end stands for itself.
///
/// # Errors
/// `Absent` where it lies in none of ours.
pub(crate) fn find(path: &Path) -> Outcome<Found> {
    let absolute =
        std::path::absolute(path).map_err(|e| Failure::io(path, "cannot make it absolute", &e))?;
    let whole = resolved(&absolute)?;
    match mount_of_resolved(&whole) {
        // A link to a mount point.
        Err(failure) => match absolute.canonicalize() {
            Ok(canonical) => mount_of_resolved(&canonical),
            Err(_) => Err(failure),
        },
        found => found,
    }
}

fn mount_of_resolved(path: &Path) -> Outcome<Found> {
    let there = path.ancestors().find(|at| at.symlink_metadata().is_ok());
    let mount = mount_of(there.unwrap_or(path))?;
    let below = path.strip_prefix(&mount).map_err(|_| {
        Failure::new(
            Exit::Absent,
            format!("{}: it lies in no mount", path.display()),
        )
    })?;
    let names = below.components().map(|part| match part {
        Component::Normal(name) => Ok(name.as_bytes().to_vec()),
        _ => Err(Failure::new(
            Exit::Usage,
            format!(
                "{}: `..` behind what is not there leads nowhere",
                path.display()
            ),
        )),
    });
    Ok(Found {
        below: names.collect::<Outcome<_>>()?,
        mount,
    })
}

/// The path without links but at its end, as far as it is there.
fn resolved(absolute: &Path) -> Outcome<PathBuf> {
    if mount_table::at(absolute)?.is_some() {
        return Ok(absolute.to_owned());
    }
    // One that ends in `..` is no link.
    let links = usize::from(absolute.file_name().is_some());
    let parents = absolute.ancestors().skip(links);
    for parent in parents {
        if let Ok(canonical) = parent.canonicalize() {
            let rest = absolute.strip_prefix(parent).unwrap_or(Path::new(""));
            return Ok(canonical.join(rest));
        }
    }
    Ok(absolute.to_owned())
}

/// Asks the mount, after the kernel has handed it what programs wrote.
///
/// # Errors
/// What the mount says, and `Absent` where none answers.
pub(crate) fn ask(mount: &Path, request: Request) -> Outcome<Answer> {
    // What cannot be written was told to who wrote it.
    let _ = settle(mount);
    match control::ask(mount, &control::Request::Past(request), &mut |_| {})? {
        Some(control::Answer::Past(answer)) => Ok(answer),
        Some(_) => Err(senseless()),
        None => Err(silent(mount)),
    }
}

/// The bytes of a snapshot's name.
pub(crate) fn name_of(name: &OsString) -> Vec<u8> {
    OsStr::as_bytes(name).to_vec()
}

const WHEN: &str = "a time looks like 2026-11-21T14:03:00Z, \"2026-11-21 14:03\", 1h, 30m or 2d";

/// Reads a point of time. Errors do not repeat what was typed.
///
/// # Errors
/// What is no time, and what is still to come.
pub(crate) fn parse_when(typed: &str) -> Result<When, String> {
    if let Some((device, number)) = typed.split_once(':')
        && device.len() == 8
        && device.bytes().all(|b| b.is_ascii_hexdigit())
        && let Ok(number) = number.parse()
    {
        return Ok(When::Version(device.to_ascii_lowercase(), number));
    }
    let time = parse_time(typed.trim(), &Zoned::now()).ok_or(WHEN)?;
    if time > Timestamp::now() {
        return Err("that time is still to come".into());
    }
    let nanoseconds = i64::try_from(time.as_nanosecond());
    Ok(When::Time(nanoseconds.map_err(|_| WHEN)?))
}

/// A time that has been, in nanoseconds since 1970.
///
/// # Errors
/// What is no time, and what is still to come.
pub(crate) fn parse_since(typed: &str) -> Result<i64, String> {
    match parse_when(typed)? {
        When::Time(time) => Ok(time),
        _ => Err(WHEN.into()),
    }
}

/// A time that is still to come, in nanoseconds since 1970.
///
/// # Errors
/// What is no time, and what has been.
pub(crate) fn parse_date(typed: &str) -> Result<i64, String> {
    const HOW: &str = "a date looks like 2027-03-31 or 2027-03-31T18:00:00Z";
    let time = parse_time(typed.trim(), &Zoned::now()).ok_or(HOW)?;
    if time <= Timestamp::now() {
        return Err("that time has been".into());
    }
    Ok(i64::try_from(time.as_nanosecond()).map_err(|_| HOW)?)
}

fn parse_time(typed: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(time) = typed.parse::<Timestamp>() {
        return Some(time);
    }
    let local = |time: civil::DateTime| {
        let zoned = time.to_zoned(now.time_zone().clone()).ok()?;
        Some(zoned.timestamp())
    };
    for form in ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = civil::DateTime::strptime(form, typed) {
            return local(time);
        }
    }
    if let Ok(day) = civil::Date::strptime("%Y-%m-%d", typed) {
        return local(day.at(0, 0, 0, 0));
    }
    let ago = typed.strip_suffix("ago").unwrap_or(typed).trim();
    let span: Span = ago.parse().ok()?;
    let span = span.abs();
    Some(now.checked_sub(span).ok()?.timestamp())
}

/// A time as people read it, in the zone of this machine.
pub(crate) fn local(rfc3339: &str) -> String {
    match rfc3339.parse::<Timestamp>() {
        Ok(time) => {
            let zoned = time.to_zoned(TimeZone::system());
            zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => "(no time)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(typed: &str) -> Option<String> {
        let now: Zoned = "2026-11-21T12:00:00+01:00[+01:00]".parse().unwrap();
        parse_time(typed, &now).map(|time| time.to_string())
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (typed, meant) in [
            ("2026-11-21T10:03:00Z", "2026-11-21T10:03:00Z"),
            ("2026-11-21T10:03:00.5+02:00", "2026-11-21T08:03:00.5Z"),
            ("2026-11-21 10:03", "2026-11-21T09:03:00Z"),
            ("2026-11-21 10:03:09", "2026-11-21T09:03:09Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("1h", "2026-11-21T10:00:00Z"),
            ("30m", "2026-11-21T10:30:00Z"),
            ("2d", "2026-11-19T11:00:00Z"),
            ("90s", "2026-11-21T10:58:30Z"),
            ("1 hour ago", "2026-11-21T10:00:00Z"),
        ] {
            assert_eq!(at(typed).as_deref(), Some(meant), "{typed}");
        }
        for typed in ["", "yesterday", "1", "2026-13-01", "-", "1x"] {
            assert_eq!(at(typed), None, "{typed}");
        }
    }

    #[test]
    fn what_is_still_to_come_is_no_past_and_a_change_has_a_name() {
        assert!(parse_when("2200-01-01T00:00:00Z").is_err());
        let version = parse_when("0A1b2c3d:17").unwrap();
        assert_eq!(version, When::Version("0a1b2c3d".into(), 17));
    }
}
