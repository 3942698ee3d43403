//! Writes, and the copies that they fork when the world has moved on.

use super::conflict::{revive_dir, settle};
use super::{Outcome, invent};
use crate::op::{Body, Kind, NamedKey, NewNode, Op, OpKind, Place};
use crate::rows::{Rows, RowsError};
use crate::state::{self, Cause, Inode, KEYS_MAX, Link};
use skrin_base::{Content, EntryId, Extent, Ino, Name, OpId, Timestamp};

/// A write without its operation around it.
struct Change<'a> {
    size: u64,
    mtime: Timestamp,
    keys: &'a [NamedKey],
    body: &'a Body,
}

pub(super) fn write(rows: &mut dyn Rows, op: &Op) -> Result<Outcome, RowsError> {
    let OpKind::Write {
        ino,
        base,
        size,
        mtime,
        keys,
        body,
        place,
    } = &op.kind
    else {
        return Ok(super::GONE);
    };
    let is_full = |inode: &Inode| inode.keys.len() + keys.len() > KEYS_MAX;
    let change = Change {
        size: *size,
        mtime: *mtime,
        keys,
        body,
    };
    if let Some(inode) = newest(rows, *ino, *base)? {
        if is_full(&inode) {
            return Ok(FULL);
        }
        replace(rows, op, *ino, inode, &change)?;
        return Ok(Outcome::Applied);
    }
    if let Some(fork) = state::fork_of(rows, *base)?
        && let Some(inode) = newest(rows, fork, *base)?
    {
        if is_full(&inode) {
            return Ok(FULL);
        }
        state::put_fork(rows, *base, None)?;
        state::put_fork(rows, op.id, Some(fork))?;
        replace(rows, op, fork, inode, &change)?;
        return Ok(Outcome::Applied);
    }
    // A copy begins with the keys of what it is a copy of.
    if state::inode(rows, *ino)?.is_some_and(|inode| is_full(&inode)) {
        return Ok(FULL);
    }
    fork(rows, op, *ino, place, &change)
}

const FULL: Outcome = Outcome::Void("the inode has as many keys as the format allows");

/// The file `ino` if `version` is its newest.
fn newest(rows: &dyn Rows, ino: Ino, version: OpId) -> Result<Option<Inode>, RowsError> {
    let inode = state::inode(rows, ino)?;
    Ok(inode.filter(|i| i.kind == Kind::File && i.version == version))
}

fn replace(
    rows: &mut dyn Rows,
    op: &Op,
    ino: Ino,
    mut inode: Inode,
    change: &Change<'_>,
) -> Result<(), RowsError> {
    for key in change.keys {
        if inode.key(key.id).is_none() {
            inode.keys.push(key.clone());
        }
    }
    match change.body {
        Body::Inline(bytes) => {
            state::cut_extents(rows, ino, 0, u64::MAX)?;
            inode.inline = Some(bytes.clone());
        }
        Body::Extents { full, list } => {
            let stored = if inode.inline.take().is_some() {
                0
            } else {
                blocks(inode.size)
            };
            let blocks = blocks(change.size);
            state::cut_extents(rows, ino, if *full { 0 } else { blocks }, u64::MAX)?;
            for extent in list.iter().filter_map(|e| e.clip(0, blocks)) {
                state::cut_extents(rows, ino, extent.first_block, extent.end())?;
                state::put_extent(rows, ino, &extent)?;
            }
            fill_gaps(rows, ino, if *full { 0 } else { stored }, blocks)?;
        }
    }
    inode.size = change.size;
    inode.mtime = change.mtime;
    inode.ctime = op.time;
    inode.version = op.id;
    state::put_inode(rows, ino, &inode)
}

fn blocks(size: u64) -> u64 {
    size.div_ceil(skrin_base::limits::BLOCK_LEN as u64)
}

/// What no extent covers is lost, not zero: an honest device leaves no gap.
fn fill_gaps(rows: &mut dyn Rows, ino: Ino, from: u64, to: u64) -> Result<(), RowsError> {
    let mut next = from;
    let mut gaps = Vec::new();
    for extent in state::extents(rows, ino, from, to)? {
        gaps.push((next, extent.first_block));
        next = extent.end();
    }
    gaps.push((next, to));
    for (mut start, end) in gaps {
        while start < end {
            let count = u32::try_from(end - start).unwrap_or(u32::MAX);
            let lost = Extent {
                first_block: start,
                count,
                content: Content::Lost,
            };
            state::put_extent(rows, ino, &lost)?;
            start = lost.end();
        }
    }
    Ok(())
}

/// A write whose base is no longer the newest: its bytes go into a file of their own beside the other.
fn fork(
    rows: &mut dyn Rows,
    op: &Op,
    ino: Ino,
    place: &Place,
    change: &Change<'_>,
) -> Result<Outcome, RowsError> {
    let other = state::inode(rows, ino)?.filter(|i| i.kind == Kind::File);
    let (dir, name, entry) = match other.as_ref().and_then(|i| i.links.first()) {
        Some(link) => {
            let entry = EntryId(invent(b"skrin/v1/fork", op.id));
            let (dir, name) = name_to_fork(rows, ino, link)?;
            (dir, name, entry)
        }
        // Its device goes on to move and to remove it by the entry that it knows.
        None => (place.dir, place.name.clone(), place.entry),
    };
    let dir = revive_dir(rows, dir, op)?;
    // Only now: reviving the directory may have brought this number back.
    let copy = super::free_ino(rows, ino, op.id)?;
    let inode = match &other {
        Some(other) => {
            // A change of some extents is laid over what is there now: complete, if not what its device saw.
            for extent in state::extents(rows, ino, 0, u64::MAX)? {
                state::put_extent(rows, copy, &extent)?;
            }
            // Access control lists are among them.
            for (name, value) in state::xattrs(rows, ino)? {
                state::put_xattr(rows, copy, &name, &value)?;
            }
            Inode {
                links: Vec::new(),
                ..other.clone()
            }
        }
        None => Inode::new(&plain_file(), op.id, op.time),
    };
    state::put_inode(rows, copy, &inode)?;
    let wanted = Link {
        dir,
        name: name.clone(),
        entry,
    };
    let free = settle(rows, copy, wanted, Cause::Written, op)?;
    if let Some(inode) = state::inode(rows, copy)? {
        replace(rows, op, copy, inode, change)?;
    }
    state::put_fork(rows, op.id, Some(copy))?;
    Ok(if free == name {
        Outcome::Applied
    } else {
        Outcome::ConflictCopy { dir, name: free }
    })
}

/// The name of which a fork of the file is a conflict copy: of a conflict copy it is that of the document.
fn name_to_fork(rows: &dyn Rows, ino: Ino, link: &Link) -> Result<(Ino, Name), RowsError> {
    if let Some(copy) = state::conflict_copy(rows, ino, link.entry)?
        && state::entry(rows, copy.dir, &copy.name)?.is_some()
    {
        return Ok((copy.dir, copy.name));
    }
    Ok((link.dir, link.name.clone()))
}

fn plain_file() -> NewNode {
    NewNode {
        kind: Kind::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: Vec::new(),
    }
}
