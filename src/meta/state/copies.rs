//! Conflict copies: entries that have the conflict name that `apply` gave them. A program may give such a name too; it has no row.

use super::{damaged, for_each, key, number, read, write};
use crate::rows::{Rows, RowsError};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{EntryId, Ino, Name, OpId, Timestamp};

pub(crate) const COPY: u8 = b'C';

/// What every conflict name has in it.
pub(crate) const MARK: &[u8] = b" (conflict, ";

/// How a conflict copy came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Cause {
    /// Contents were written whose base was no longer the newest, or was gone and its name taken.
    Written = 1,
    /// Something new was made under a name that was taken.
    Made = 2,
    /// Something was moved to a name that was taken, or replaced what had changed.
    Moved = 3,
    /// A directory that was removed came back for what was put into it, and its name was taken.
    Revived = 4,
}

impl Encode for Cause {
    fn encode(&self, w: &mut Writer) {
        w.u8(*self as u8);
    }
}

impl Decode for Cause {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match r.u8()? {
            1 => Self::Written,
            2 => Self::Made,
            3 => Self::Moved,
            4 => Self::Revived,
            _ => return Err(WireError::Value("cause of a conflict copy")),
        })
    }
}

/// What is known of a conflict copy beside its inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConflictCopy {
    /// How it came to be.
    pub cause: Cause,
    /// The operation that did not get the name it asked for.
    pub op: OpId,
    /// When that was done, by the clock of its device.
    pub time: Timestamp,
    /// The directory in which it is.
    pub dir: Ino,
    /// The name that it was to have there.
    pub name: Name,
    /// The inode that had that name.
    pub other: Ino,
}

impl Encode for ConflictCopy {
    fn encode(&self, w: &mut Writer) {
        self.cause.encode(w);
        self.op.encode(w);
        self.time.encode(w);
        self.dir.encode(w);
        self.name.encode(w);
        self.other.encode(w);
    }
}

impl Decode for ConflictCopy {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            cause: Cause::decode(r)?,
            op: OpId::decode(r)?,
            time: Timestamp::decode(r)?,
            dir: Ino::decode(r)?,
            name: Name::decode(r)?,
            other: Ino::decode(r)?,
        })
    }
}

fn copy_key(ino: Ino, entry: EntryId) -> Vec<u8> {
    key(COPY, &[&number(ino), entry.as_bytes()])
}

/// What is known of the entry of an inode, if it is a conflict copy.
pub fn conflict_copy(
    rows: &dyn Rows,
    ino: Ino,
    entry: EntryId,
) -> Result<Option<ConflictCopy>, RowsError> {
    read(rows, &copy_key(ino, entry))
}

pub(crate) fn put_conflict_copy(
    rows: &mut dyn Rows,
    ino: Ino,
    entry: EntryId,
    copy: &ConflictCopy,
) -> Result<(), RowsError> {
    write(rows, &copy_key(ino, entry), copy)
}

/// The entry loses its name. Names without the mark never have a row: that saves a look at the rows for nearly all of them.
pub(crate) fn forget_conflict_copy(
    rows: &mut dyn Rows,
    ino: Ino,
    entry: EntryId,
    name: &Name,
) -> Result<(), RowsError> {
    let key = copy_key(ino, entry);
    let marked = name.as_bytes().windows(MARK.len()).any(|w| w == MARK);
    match marked && rows.get(&key)?.is_some() {
        true => rows.delete(&key),
        false => Ok(()),
    }
}

/// Visits every conflict copy with its inode and the id of its entry.
pub fn for_each_conflict_copy(
    rows: &dyn Rows,
    mut visit: impl FnMut(Ino, EntryId, ConflictCopy) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    for_each(rows, &[COPY], |key, row| {
        let bad = |_| damaged(key, &WireError::Value("key of a conflict copy"));
        let mut r = Reader::new(key.get(1..).unwrap_or_default());
        let ino = Ino(u64::from_be_bytes(r.array().map_err(bad)?));
        let entry = EntryId(r.array().map_err(bad)?);
        visit(ino, entry, super::decode(key, row)?)
    })
}
