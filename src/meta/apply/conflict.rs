//! Names and places for what cannot be where its device put it.

use crate::op::{Kind, NewNode, Op};
use crate::rows::{Rows, RowsError};
use crate::state::{self, Cause, ConflictCopy, Entry, Inode, Link};
use skrin_base::limits::NAME_MAX;
use skrin_base::{EntryId, Ino, Name, OpId, Timestamp};

const LOST_AND_FOUND_NAME: &[u8] = b"lost+found";
/// A chain of removed directories that is longer than this ends in `lost+found`.
const REVIVE_DEPTH_MAX: usize = 128;

/// The directory `dir` if it exists, else made again where it was, else `lost+found`.
pub(super) fn revive_dir(rows: &mut dyn Rows, dir: Ino, op: &Op) -> Result<Ino, RowsError> {
    revive_at_depth(rows, dir, op, 0)
}

fn revive_at_depth(rows: &mut dyn Rows, dir: Ino, op: &Op, depth: usize) -> Result<Ino, RowsError> {
    let dir = state::resolve_alias(rows, dir)?;
    if let Some(inode) = state::inode(rows, dir)? {
        if inode.kind == Kind::Dir {
            return Ok(dir);
        }
        return lost_and_found(rows, op.time);
    }
    let tombstone = state::tombstone(rows, dir)?;
    let Some(mut inode) = tombstone.filter(|t| t.kind == Kind::Dir && depth < REVIVE_DEPTH_MAX)
    else {
        return lost_and_found(rows, op.time);
    };
    let Some(link) = inode.links.pop() else {
        return lost_and_found(rows, op.time);
    };
    let parent = revive_at_depth(rows, link.dir, op, depth + 1)?;
    inode.links.clear();
    inode.subdirs = 0;
    state::put_tombstone(rows, dir, None)?;
    state::put_inode(rows, dir, &inode)?;
    let link = Link {
        dir: parent,
        ..link
    };
    settle(rows, dir, link, Cause::Revived, op)?;
    Ok(dir)
}

fn lost_and_found(rows: &mut dyn Rows, time: Timestamp) -> Result<Ino, RowsError> {
    let ino = Ino::LOST_AND_FOUND;
    if state::inode(rows, ino)?.is_some() {
        return Ok(ino);
    }
    let node = NewNode {
        kind: Kind::Dir,
        mode: 0o700,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: Vec::new(),
    };
    state::put_inode(rows, ino, &Inode::new(&node, OpId::default(), time))?;
    let Ok(mut name) = Name::new(LOST_AND_FOUND_NAME) else {
        return Ok(Ino::ROOT);
    };
    let mut n = 2;
    while state::entry(rows, Ino::ROOT, &name)?.is_some() {
        let Ok(next) = Name::new(format!("lost+found {n}").as_bytes()) else {
            break;
        };
        name = next;
        n += 1;
    }
    let entry = EntryId(super::invent(b"skrin/v1/lost+found", OpId::default()));
    attach(
        rows,
        ino,
        Link {
            dir: Ino::ROOT,
            name,
            entry,
        },
        time,
    )?;
    Ok(ino)
}

/// Adds a place to an inode that exists. The name must be free.
pub(super) fn attach(
    rows: &mut dyn Rows,
    ino: Ino,
    link: Link,
    time: Timestamp,
) -> Result<(), RowsError> {
    let Some(mut inode) = state::inode(rows, ino)? else {
        return Ok(());
    };
    let entry = Entry {
        id: link.entry,
        ino,
        kind: inode.kind,
    };
    state::put_entry(rows, link.dir, &link.name, &entry)?;
    super::touch_dir(rows, link.dir, time, i32::from(inode.kind == Kind::Dir))?;
    inode.links.push(link);
    inode.ctime = time;
    state::put_inode(rows, ino, &inode)
}

/// Adds a place to an inode that exists, under the conflict name where the name is taken; the name that it got.
pub(super) fn settle(
    rows: &mut dyn Rows,
    ino: Ino,
    wanted: Link,
    cause: Cause,
    op: &Op,
) -> Result<Name, RowsError> {
    let name = free_name(rows, wanted.dir, &wanted.name, op)?;
    if let Some(there) = state::entry(rows, wanted.dir, &wanted.name)? {
        let copy = ConflictCopy {
            cause,
            op: op.id,
            time: op.time,
            dir: wanted.dir,
            name: wanted.name,
            other: there.ino,
        };
        state::put_conflict_copy(rows, ino, wanted.entry, &copy)?;
    }
    let link = Link {
        name: name.clone(),
        dir: wanted.dir,
        entry: wanted.entry,
    };
    attach(rows, ino, link, op.time)?;
    Ok(name)
}

/// `name` if it is free in `dir`, else the conflict name of it for this operation.
fn free_name(rows: &dyn Rows, dir: Ino, name: &Name, op: &Op) -> Result<Name, RowsError> {
    free_name_for(rows, name, op, |rows, name| {
        Ok(state::entry(rows, dir, name)?.is_none())
    })
}

/// The same for names of another kind.
pub(super) fn free_name_for(
    rows: &dyn Rows,
    name: &Name,
    op: &Op,
    is_free: impl Fn(&dyn Rows, &Name) -> Result<bool, RowsError>,
) -> Result<Name, RowsError> {
    let mut candidate = name.clone();
    let mut attempt = 0u64;
    while !is_free(rows, &candidate)? {
        attempt += 1;
        candidate = conflict_name(rows, name, op, attempt)?;
    }
    Ok(candidate)
}

/// `report (conflict, anna-laptop, 2026-11-21).docx`, with ` 2`, ` 3` before the closing parenthesis when that is taken too.
fn conflict_name(rows: &dyn Rows, name: &Name, op: &Op, attempt: u64) -> Result<Name, RowsError> {
    let label = state::label(rows, op.id.device)?;
    let label = label.unwrap_or_else(|| op.id.device.to_string().chars().take(8).collect());
    let label: String = label
        .chars()
        .map(|c| if matches!(c, '/' | '\0') { '_' } else { c })
        .collect();
    let count = if attempt > 1 {
        format!(" {attempt}")
    } else {
        String::new()
    };
    let rest = format!("{label}, {}{count})", utc_date(op.time));
    let mark = [state::MARK, rest.as_bytes()].concat();
    let (stem, extension) = split_extension(name.as_bytes());
    let room = NAME_MAX.saturating_sub(mark.len() + extension.len());
    let mut whole = cut_at_character(stem, room).to_vec();
    whole.extend_from_slice(&mark);
    whole.extend_from_slice(extension);
    // The parts are bounded, so this is a name; should it not be, the old one keeps the loop looking.
    Ok(Name::new(&whole).unwrap_or_else(|_| name.clone()))
}

/// The last extension of up to 16 bytes, as programs know files by it, with the `.tar` before it; a leading dot is no extension.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    let Some(dot) = name.iter().rposition(|b| *b == b'.') else {
        return (name, b"");
    };
    if dot == 0 || name.len() - dot > 17 {
        return (name, b"");
    }
    let (stem, _) = name.split_at(dot);
    match stem.strip_suffix(b".tar") {
        Some(stem) if !stem.is_empty() => name.split_at(stem.len()),
        _ => name.split_at(dot),
    }
}

/// At most `room` bytes of `bytes`, without cutting a UTF-8 character.
fn cut_at_character(bytes: &[u8], room: usize) -> &[u8] {
    let mut end = bytes.len().min(room);
    while end > 0 && bytes.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
        end -= 1;
    }
    bytes.get(..end).unwrap_or_default()
}

/// The proleptic Gregorian date in UTC (Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn utc_date(time: Timestamp) -> String {
    let days = time.0.div_euclid(86_400_000_000_000) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_gregorian_calendar() {
        let date = |seconds: i64| utc_date(Timestamp(seconds * 1_000_000_000));
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(-1), "1969-12-31");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_267_200), "2026-11-21");
        assert_eq!(date(4_107_542_400), "2100-03-01");
    }

    #[test]
    fn a_conflict_name_keeps_extension_and_character_boundaries() {
        assert_eq!(
            split_extension(b"report.docx"),
            (&b"report"[..], &b".docx"[..])
        );
        for (name, stem, extension) in [
            ("archive.tar.gz", "archive", ".tar.gz"),
            (".tar.gz", ".tar", ".gz"),
            ("a.tar", "a", ".tar"),
            (".bashrc", ".bashrc", ""),
            (".bashrc.old", ".bashrc", ".old"),
            ("Makefile", "Makefile", ""),
            ("ends with.", "ends with", "."),
            (
                "v1.a sentence, no extension",
                "v1.a sentence, no extension",
                "",
            ),
        ] {
            let split = (stem.as_bytes(), extension.as_bytes());
            assert_eq!(split_extension(name.as_bytes()), split, "{name}");
        }
        assert_eq!(cut_at_character("aäb".as_bytes(), 2), b"a");
        assert_eq!(cut_at_character("aäb".as_bytes(), 3), "aä".as_bytes());
    }
}
