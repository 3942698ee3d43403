//! The typed view of the rows (docs/format/operations.md, section 2). One table for each first byte of a key:
//!
//! | table | key after it | value |
//! |---|---|---|
//! | `E` | directory, cookie, name | entry id, inode, kind |
//! | `I` | inode | the inode |
//! | `X` | inode, first block | an extent |
//! | `Y` | inode, name | an extended attribute |
//! | `S` | segment id | its declaration |
//! | `M` | segment id, first slot | where blocks of it lie as well |
//! | `T` | inode | an inode that was removed, so that a late edit can revive it |
//! | `A` | inode | the directory that this one became part of |
//! | `V` | version | the inode in which a forked version lives |
//! | `B` | version | what followed a version that is no longer the newest |
//! | `B` | version, part | extents that it had and that what followed does not have |
//! | `O` | device | ranges of operation counters that were folded |
//! | `D` | device | its label |
//! | `C` | inode, entry id | why this entry has a conflict name |
//! | `N` | name | a snapshot |
//!
//! Numbers in keys are big-endian, so that the order of keys is the order of numbers.

mod copies;
mod inode;
mod relocations;
mod superseded;

pub use copies::{Cause, ConflictCopy, conflict_copy, for_each_conflict_copy};
pub(crate) use copies::{MARK, forget_conflict_copy, put_conflict_copy};
pub(crate) use inode::KEYS_MAX;
pub use inode::{Inode, Link};
pub(crate) use relocations::{copied_row, put_copied_run};
pub use relocations::{copied_runs, copies, for_each_copied_run};

pub(crate) use superseded::{Held, Old, forget_versions, held_by_version, remember};
pub use superseded::{extents_of_version, for_each_remembered, may_tell_part};

use crate::op::Kind;
use crate::rows::{Row, RowKey, Rows, RowsError};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, EntryId, Extent, Ino, Name, OpId, SegmentId, SegmentInfo, Timestamp};

pub(crate) const ENTRY: u8 = b'E';
pub(crate) const INODE: u8 = b'I';
pub(crate) const EXTENT: u8 = b'X';
pub(crate) const XATTR: u8 = b'Y';
pub(crate) const SEGMENT: u8 = b'S';
pub(crate) const COPIED: u8 = b'M';
pub(crate) const TOMBSTONE: u8 = b'T';
pub(crate) const ALIAS: u8 = b'A';
pub(crate) const VERSION: u8 = b'V';
pub(crate) const SUPERSEDED: u8 = b'B';
pub(crate) const FOLDED: u8 = b'O';
pub(crate) const LABEL: u8 = b'D';
pub(crate) const SNAPSHOT: u8 = b'N';
pub(crate) const RETENTION: u8 = b'R';

/// Rows read at once when a whole range is wanted.
const BATCH: usize = 512;

/// A directory entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its id, kept by renames.
    pub id: EntryId,
    /// What it names.
    pub ino: Ino,
    /// What kind of inode that is, for directory listings.
    pub kind: Kind,
}

/// An entry as a listing shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Position in the directory: stable across changes, remounts and devices; 3 or more.
    pub cookie: u64,
    /// The name.
    pub name: Name,
    /// The entry.
    pub entry: Entry,
}

impl Encode for Entry {
    fn encode(&self, w: &mut Writer) {
        self.id.encode(w);
        self.ino.encode(w);
        self.kind.encode(w);
    }
}

impl Decode for Entry {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            id: EntryId::decode(r)?,
            ino: Ino::decode(r)?,
            kind: Kind::decode(r)?,
        })
    }
}

fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    out.push(table);
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

fn number(ino: Ino) -> [u8; 8] {
    ino.0.to_be_bytes()
}

/// The place of a name in the order of its directory: 63 bits of BLAKE3, never 0, 1 or 2.
pub fn cookie(dir: Ino, name: &Name) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(b"skrin/v1/cookie")
        .update(&number(dir))
        .update(name.as_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    (u64::from_be_bytes(first) & (u64::MAX >> 1)).max(3)
}

pub(crate) fn entry_key(dir: Ino, name: &Name) -> Vec<u8> {
    key(
        ENTRY,
        &[
            &number(dir),
            &cookie(dir, name).to_be_bytes(),
            name.as_bytes(),
        ],
    )
}

pub(crate) fn inode_key(ino: Ino) -> Vec<u8> {
    key(INODE, &[&number(ino)])
}

pub(crate) fn damaged(key: &[u8], reason: &WireError) -> RowsError {
    RowsError::Damaged {
        key: key.iter().map(|b| format!("{b:02x}")).collect(),
        reason: reason.to_string(),
    }
}

fn decode<T: Decode>(key: &[u8], row: &[u8]) -> Result<T, RowsError> {
    T::from_bytes(row).map_err(|e| damaged(key, &e))
}

fn read<T: Decode>(rows: &dyn Rows, key: &[u8]) -> Result<Option<T>, RowsError> {
    rows.get(key)?.map(|row| decode(key, &row)).transpose()
}

fn write<T: Encode>(rows: &mut dyn Rows, key: &[u8], value: &T) -> Result<(), RowsError> {
    rows.put(key, value.to_bytes().into())
}

/// All rows whose keys begin with `prefix`, a batch at a time, so that memory stays bounded.
fn for_each(
    rows: &dyn Rows,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &Row) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    let (mut from, to) = (prefix.to_vec(), after_prefix(prefix));
    loop {
        let batch = rows.scan(&from, &to, BATCH)?;
        for (key, row) in &batch {
            visit(key, row)?;
        }
        match batch.last() {
            Some((last, _)) if batch.len() == BATCH => {
                from = last.to_vec();
                from.push(0);
            }
            _ => return Ok(()),
        }
    }
}

/// The first key after all that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    while let Some(last) = out.pop() {
        if last < u8::MAX {
            out.push(last + 1);
            break;
        }
    }
    out
}

/// The entry of a name.
pub fn entry(rows: &dyn Rows, dir: Ino, name: &Name) -> Result<Option<Entry>, RowsError> {
    read(rows, &entry_key(dir, name))
}

pub(crate) fn put_entry(
    rows: &mut dyn Rows,
    dir: Ino,
    name: &Name,
    entry: &Entry,
) -> Result<(), RowsError> {
    write(rows, &entry_key(dir, name), entry)
}

pub(crate) fn delete_entry(rows: &mut dyn Rows, dir: Ino, name: &Name) -> Result<(), RowsError> {
    rows.delete(&entry_key(dir, name))
}

/// Splits the key of an entry row.
pub fn parse_entry_key(key: &[u8]) -> Option<(Ino, u64, Name)> {
    let mut r = Reader::new(key.strip_prefix(&[ENTRY])?);
    let dir = u64::from_be_bytes(r.array().ok()?);
    let cookie = u64::from_be_bytes(r.array().ok()?);
    Some((Ino(dir), cookie, Name::new(r.rest()).ok()?))
}

/// Up to `limit` entries of `dir` behind `after` (0 for the first), in the order of cookies.
pub fn list(rows: &dyn Rows, dir: Ino, after: u64, limit: usize) -> Result<Vec<Listed>, RowsError> {
    let from = key(
        ENTRY,
        &[&number(dir), &after.saturating_add(1).to_be_bytes()],
    );
    let to = after_prefix(&key(ENTRY, &[&number(dir)]));
    let batch = rows.scan(&from, &to, limit)?;
    let listed = batch.iter().map(|(key, row)| {
        let (_, cookie, name) = parse_entry_key(key)
            .ok_or_else(|| damaged(key, &WireError::Value("key of an entry")))?;
        Ok(Listed {
            cookie,
            name,
            entry: decode(key, row)?,
        })
    });
    listed.collect()
}

/// Whether a directory has no entries.
pub fn is_empty(rows: &dyn Rows, dir: Ino) -> Result<bool, RowsError> {
    Ok(list(rows, dir, 0, 1)?.is_empty())
}

/// An inode. The root exists from the beginning, without a row of its own until something changes it.
pub fn inode(rows: &dyn Rows, ino: Ino) -> Result<Option<Inode>, RowsError> {
    let found = read(rows, &inode_key(ino))?;
    Ok(if found.is_none() && ino == Ino::ROOT {
        Some(Inode::root())
    } else {
        found
    })
}

pub(crate) fn put_inode(rows: &mut dyn Rows, ino: Ino, inode: &Inode) -> Result<(), RowsError> {
    write(rows, &inode_key(ino), inode)
}

fn extent_key(ino: Ino, block: u64) -> Vec<u8> {
    key(EXTENT, &[&number(ino), &block.to_be_bytes()])
}

/// The extents of `ino` that touch blocks `from..to`, ascending and whole (not clipped).
pub fn extents(rows: &dyn Rows, ino: Ino, from: u64, to: u64) -> Result<Vec<Extent>, RowsError> {
    let mut out: Vec<Extent> = Vec::new();
    if let Some(extent) = extent_before(rows, ino, from)?
        && extent.end() > from
    {
        out.push(extent);
    }
    let mut next = extent_key(ino, from);
    let end = extent_key(ino, to);
    loop {
        let batch = rows.scan(&next, &end, BATCH)?;
        for (key, row) in &batch {
            out.push(decode(key, row)?);
        }
        match batch.last() {
            Some((last, _)) if batch.len() == BATCH => {
                next = last.to_vec();
                next.push(0);
            }
            _ => return Ok(out),
        }
    }
}

/// Up to `limit` extents of `ino` that begin at block `from` or behind it.
fn extents_from(
    rows: &dyn Rows,
    ino: Ino,
    from: u64,
    limit: usize,
) -> Result<Vec<Extent>, RowsError> {
    let batch = rows.scan(&extent_key(ino, from), &extent_key(ino, u64::MAX), limit)?;
    batch.iter().map(|(key, row)| decode(key, row)).collect()
}

/// The last extent that begins before `block`.
fn extent_before(rows: &dyn Rows, ino: Ino, block: u64) -> Result<Option<Extent>, RowsError> {
    let found = rows.last(&extent_key(ino, 0), &extent_key(ino, block))?;
    found.map(|(key, row)| decode(&key, &row)).transpose()
}

pub(crate) fn put_extent(rows: &mut dyn Rows, ino: Ino, extent: &Extent) -> Result<(), RowsError> {
    write(rows, &extent_key(ino, extent.first_block), extent)
}

/// Makes blocks `from..to` of `ino` belong to no extent.
pub(crate) fn cut_extents(
    rows: &mut dyn Rows,
    ino: Ino,
    from: u64,
    to: u64,
) -> Result<(), RowsError> {
    for extent in extents(rows, ino, from, to)? {
        rows.delete(&extent_key(ino, extent.first_block))?;
        for part in [extent.clip(0, from), extent.clip(to, u64::MAX)]
            .into_iter()
            .flatten()
        {
            put_extent(rows, ino, &part)?;
        }
    }
    Ok(())
}

fn xattr_key(ino: Ino, name: &[u8]) -> Vec<u8> {
    key(XATTR, &[&number(ino), name])
}

/// The value of an extended attribute.
pub fn xattr(rows: &dyn Rows, ino: Ino, name: &[u8]) -> Result<Option<Row>, RowsError> {
    rows.get(&xattr_key(ino, name))
}

pub(crate) fn put_xattr(
    rows: &mut dyn Rows,
    ino: Ino,
    name: &[u8],
    value: &[u8],
) -> Result<(), RowsError> {
    rows.put(&xattr_key(ino, name), value.into())
}

pub(crate) fn delete_xattr(rows: &mut dyn Rows, ino: Ino, name: &[u8]) -> Result<(), RowsError> {
    rows.delete(&xattr_key(ino, name))
}

/// All extended attributes of an inode: names with their values, in the order of names.
pub fn xattrs(rows: &dyn Rows, ino: Ino) -> Result<Vec<(RowKey, Row)>, RowsError> {
    let prefix = xattr_key(ino, b"");
    let mut out = Vec::new();
    for_each(rows, &prefix, |key, row| {
        out.push((
            key.get(prefix.len()..).unwrap_or_default().into(),
            row.clone(),
        ));
        Ok(())
    })?;
    Ok(out)
}

/// Deletes every extent and extended attribute of an inode.
pub(crate) fn delete_contents(rows: &mut dyn Rows, ino: Ino) -> Result<(), RowsError> {
    let mut keys: Vec<RowKey> = Vec::new();
    for table in [EXTENT, XATTR] {
        for_each(rows, &key(table, &[&number(ino)]), |key, _| {
            keys.push(key.into());
            Ok(())
        })?;
    }
    keys.iter().try_for_each(|key| rows.delete(key))
}

/// What a commit declared of a segment.
pub fn segment(rows: &dyn Rows, id: SegmentId) -> Result<Option<SegmentInfo>, RowsError> {
    read(rows, &key(SEGMENT, &[id.as_bytes()]))
}

/// The first `limit` declared segments behind one, in the order of their names.
pub fn segments_after(
    rows: &dyn Rows,
    after: Option<SegmentId>,
    limit: usize,
) -> Result<Vec<SegmentInfo>, RowsError> {
    let mut from = after.map_or_else(|| vec![SEGMENT], |id| key(SEGMENT, &[id.as_bytes()]));
    if after.is_some() {
        from.push(0);
    }
    let found = rows.scan(&from, &after_prefix(&[SEGMENT]), limit)?;
    found.iter().map(|(key, row)| decode(key, row)).collect()
}

/// Visits every declared segment.
pub fn for_each_segment(
    rows: &dyn Rows,
    mut visit: impl FnMut(SegmentInfo) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    for_each(rows, &[SEGMENT], |key, row| visit(decode(key, row)?))
}

/// The declaration of a segment, if the row is one.
pub(crate) fn segment_row(key: &[u8], row: &Row) -> Result<Option<SegmentInfo>, RowsError> {
    let is_one = key.first() == Some(&SEGMENT);
    is_one.then(|| decode(key, row)).transpose()
}

/// The extent, if the row is one.
pub(crate) fn extent_row(key: &[u8], row: &Row) -> Result<Option<Extent>, RowsError> {
    let is_one = key.first() == Some(&EXTENT);
    is_one.then(|| decode(key, row)).transpose()
}

/// Visits every extent of every file.
pub fn for_each_extent(
    rows: &dyn Rows,
    mut visit: impl FnMut(Extent) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    for_each(rows, &[EXTENT], |key, row| visit(decode(key, row)?))
}

/// Visits every inode with its number.
pub fn for_each_inode(
    rows: &dyn Rows,
    mut visit: impl FnMut(Ino, Inode) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    for_each(rows, &[INODE], |key, row| {
        visit(parse_number(key)?, decode(key, row)?)
    })
}

/// Visits every entry with its directory and name.
pub fn for_each_entry(
    rows: &dyn Rows,
    mut visit: impl FnMut(Ino, Name, Entry) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    for_each(rows, &[ENTRY], |key, row| {
        let (dir, _, name) = parse_entry_key(key)
            .ok_or_else(|| damaged(key, &WireError::Value("key of an entry")))?;
        visit(dir, name, decode(key, row)?)
    })
}

fn parse_number(key: &[u8]) -> Result<Ino, RowsError> {
    let bytes = key.get(1..9).and_then(|b| <[u8; 8]>::try_from(b).ok());
    let bytes = bytes.ok_or_else(|| damaged(key, &WireError::Value("key of an inode")))?;
    Ok(Ino(u64::from_be_bytes(bytes)))
}

/// The inode number in the key of an inode, extent or attribute row; for an entry row, its directory's.
pub fn ino_of_key(key: &[u8]) -> Option<Ino> {
    match key.first() {
        Some(&(INODE | EXTENT | XATTR | ENTRY)) => parse_number(key).ok(),
        _ => None,
    }
}

/// Declares a segment. The first declaration of an id stands for ever; others are ignored.
pub fn declare_segment(rows: &mut dyn Rows, info: &SegmentInfo) -> Result<(), RowsError> {
    let key = key(SEGMENT, &[info.id.as_bytes()]);
    if rows.get(&key)?.is_none() {
        write(rows, &key, info)?;
    }
    Ok(())
}

pub(crate) fn tombstone(rows: &dyn Rows, ino: Ino) -> Result<Option<Inode>, RowsError> {
    read(rows, &key(TOMBSTONE, &[&number(ino)]))
}

pub(crate) fn put_tombstone(
    rows: &mut dyn Rows,
    ino: Ino,
    inode: Option<&Inode>,
) -> Result<(), RowsError> {
    let key = key(TOMBSTONE, &[&number(ino)]);
    match inode {
        Some(inode) => write(rows, &key, inode),
        None => rows.delete(&key),
    }
}

/// The directory that `ino` stands for: itself, unless it was made at the same time as another of the same name.
pub fn resolve_alias(rows: &dyn Rows, ino: Ino) -> Result<Ino, RowsError> {
    let mut at = ino;
    // Aliases point from later to earlier directories, so a chain cannot be longer than this in sane states.
    for _ in 0..64 {
        match read(rows, &key(ALIAS, &[&number(at)]))? {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(at)
}

pub(crate) fn put_alias(rows: &mut dyn Rows, ino: Ino, target: Ino) -> Result<(), RowsError> {
    write(rows, &key(ALIAS, &[&number(ino)]), &target)
}

fn version_key(version: OpId) -> Vec<u8> {
    key(
        VERSION,
        &[version.device.as_bytes(), &version.counter.to_be_bytes()],
    )
}

/// The inode in which a forked version lives as the newest.
pub fn fork_of(rows: &dyn Rows, version: OpId) -> Result<Option<Ino>, RowsError> {
    read(rows, &version_key(version))
}

pub(crate) fn put_fork(
    rows: &mut dyn Rows,
    version: OpId,
    ino: Option<Ino>,
) -> Result<(), RowsError> {
    match ino {
        Some(ino) => write(rows, &version_key(version), &ino),
        None => rows.delete(&version_key(version)),
    }
}

/// The label of a device.
pub fn label(rows: &dyn Rows, device: DeviceId) -> Result<Option<String>, RowsError> {
    let row = rows.get(&key(LABEL, &[device.as_bytes()]))?;
    Ok(row.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

pub(crate) fn put_label(
    rows: &mut dyn Rows,
    device: DeviceId,
    label: &str,
) -> Result<(), RowsError> {
    rows.put(&key(LABEL, &[device.as_bytes()]), label.as_bytes().into())
}

/// How many seconds of the past are kept, if anybody said so; 0 is for ever.
pub fn retention(rows: &dyn Rows) -> Result<Option<u64>, RowsError> {
    let said: Option<Retention> = read(rows, &[RETENTION])?;
    Ok(said.map(|said| said.seconds))
}

pub(crate) fn put_retention(rows: &mut dyn Rows, seconds: u64, by: OpId) -> Result<(), RowsError> {
    write(rows, &[RETENTION], &Retention { seconds, by })
}

struct Retention {
    seconds: u64,
    /// Who said so.
    by: OpId,
}

impl Encode for Retention {
    fn encode(&self, w: &mut Writer) {
        w.u64(self.seconds);
        self.by.encode(w);
    }
}

impl Decode for Retention {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            seconds: r.u64()?,
            by: OpId::decode(r)?,
        })
    }
}

/// A point of the past that has a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The operation before which it lies.
    pub op: OpId,
    /// When that was done, by the clock of its device.
    pub time: Timestamp,
}

impl Encode for Snapshot {
    fn encode(&self, w: &mut Writer) {
        self.op.encode(w);
        self.time.encode(w);
    }
}

impl Decode for Snapshot {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            op: OpId::decode(r)?,
            time: Timestamp::decode(r)?,
        })
    }
}

/// The snapshot of that name.
pub fn snapshot(rows: &dyn Rows, name: &Name) -> Result<Option<Snapshot>, RowsError> {
    read(rows, &key(SNAPSHOT, &[name.as_bytes()]))
}

/// Visits every snapshot with its name, in the order of names.
pub fn for_each_snapshot(
    rows: &dyn Rows,
    mut visit: impl FnMut(Name, Snapshot) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    for_each(rows, &[SNAPSHOT], |key, row| {
        let name = Name::new(key.get(1..).unwrap_or_default())
            .map_err(|_| damaged(key, &WireError::Value("name of a snapshot")))?;
        visit(name, decode(key, row)?)
    })
}

pub(crate) fn put_snapshot(
    rows: &mut dyn Rows,
    name: &Name,
    snapshot: &Snapshot,
) -> Result<(), RowsError> {
    write(rows, &key(SNAPSHOT, &[name.as_bytes()]), snapshot)
}

pub(crate) fn delete_snapshot(rows: &mut dyn Rows, name: &Name) -> Result<(), RowsError> {
    rows.delete(&key(SNAPSHOT, &[name.as_bytes()]))
}

/// The place of a directory that was removed, by which a path of the past can still be followed.
pub fn removed_dir_at(rows: &dyn Rows, dir: Ino, name: &Name) -> Result<Option<Ino>, RowsError> {
    let mut found = None;
    for_each(rows, &[TOMBSTONE], |key, row| {
        let inode: Inode = decode(key, row)?;
        let mut links = inode.links.iter();
        if links.any(|link| link.dir == dir && link.name == *name) {
            found = Some(parse_number(key)?);
        }
        Ok(())
    })?;
    Ok(found)
}

struct Folded(Vec<(u64, u64)>);

impl Encode for Folded {
    fn encode(&self, w: &mut Writer) {
        w.count(self.0.len());
        for (first, last) in &self.0 {
            w.u64(*first);
            w.u64(*last);
        }
    }
}

impl Decode for Folded {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let n = r.count("ranges", usize::MAX, 16)?;
        (0..n)
            .map(|_| Ok((r.u64()?, r.u64()?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The highest operation counter of `device` that was folded; 0 for none.
pub fn last_counter(rows: &dyn Rows, device: DeviceId) -> Result<u64, RowsError> {
    let folded: Option<Folded> = read(rows, &key(FOLDED, &[device.as_bytes()]))?;
    Ok(folded
        .and_then(|f| f.0.last().map(|range| range.1))
        .unwrap_or(0))
}

/// Whether the operation was folded.
pub fn is_folded(rows: &dyn Rows, id: OpId) -> Result<bool, RowsError> {
    let folded: Option<Folded> = read(rows, &key(FOLDED, &[id.device.as_bytes()]))?;
    let ranges = folded.map(|f| f.0).unwrap_or_default();
    Ok(ranges
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&id.counter)))
}

/// Notes that an operation is folded; false if it already was.
pub(crate) fn note_folded(rows: &mut dyn Rows, id: OpId) -> Result<bool, RowsError> {
    let key = key(FOLDED, &[id.device.as_bytes()]);
    let mut ranges = read::<Folded>(rows, &key)?.map(|f| f.0).unwrap_or_default();
    let at = ranges.partition_point(|(first, _)| *first <= id.counter);
    let before = at.checked_sub(1).and_then(|i| ranges.get(i).copied());
    if before.is_some_and(|(_, last)| last >= id.counter) {
        return Ok(false);
    }
    let joins_next = ranges
        .get(at)
        .is_some_and(|(first, _)| Some(*first) == id.counter.checked_add(1));
    let joins_before = before.is_some_and(|(_, last)| last.checked_add(1) == Some(id.counter));
    let last = if joins_next {
        ranges.remove(at).1
    } else {
        id.counter
    };
    if joins_before {
        ranges[at - 1].1 = last;
    } else {
        ranges.insert(at, (id.counter, last));
    }
    write(rows, &key, &Folded(ranges))?;
    Ok(true)
}
