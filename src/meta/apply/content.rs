//! Writes, and the copies that they fork when the world has moved on.

use super::conflict::{revive_dir, settle};
use super::{Outcome, invent};
use crate::op::{Attributes, Body, Kind, NamedKey, NewNode, Op, OpKind, Place};
use crate::rows::{Rows, RowsError};
use crate::state::{self, Cause, Held, Inode, KEYS_MAX, Link, Old};
use skrin_base::{Content, EntryId, Extent, Ino, KeyId, Name, OpId, Timestamp};
use std::collections::BTreeSet;

/// A write without its operation around it.
struct Change<'a> {
    size: u64,
    mtime: Timestamp,
    keys: &'a [NamedKey],
    body: &'a Body,
    place: &'a Place,
    attributes: &'a Attributes,
}

impl Change<'_> {
    /// The ranges of blocks that lose what they have.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let Body::Extents { full: false, list } = self.body else {
            return vec![(0, u64::MAX)];
        };
        let blocks = blocks(self.size);
        let told = list.iter().filter_map(|extent| extent.clip(0, blocks));
        let told = told.map(|extent| (extent.first_block, extent.end()));
        told.chain([(blocks, u64::MAX)]).collect()
    }
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
        attributes,
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
        place,
        attributes,
    };
    let fork_of_base = state::fork_of(rows, *base)?;
    for ino in [Some(*ino), fork_of_base].into_iter().flatten() {
        let Some(inode) = newest(rows, ino, *base)? else {
            continue;
        };
        if is_full(&inode) {
            return Ok(FULL);
        }
        // Also where the file has its old number: its device may have seen the fork under another one.
        if fork_of_base.is_some() {
            state::put_fork(rows, *base, None)?;
            state::put_fork(rows, op.id, Some(ino))?;
        }
        replace(rows, op, ino, inode, &change)?;
        return Ok(Outcome::Applied);
    }
    fork(rows, op, (*ino, *base), &change)
}

const FULL: Outcome = Outcome::Void("the inode has as many keys as the format allows");

/// The file `ino` if `version` is its newest.
fn newest(rows: &dyn Rows, ino: Ino, version: OpId) -> Result<Option<Inode>, RowsError> {
    let inode = state::inode(rows, ino)?;
    Ok(inode.filter(|i| i.kind == Kind::File && i.version == version))
}

/// A newer version in the place of the newest.
fn replace(
    rows: &mut dyn Rows,
    op: &Op,
    ino: Ino,
    inode: Inode,
    change: &Change<'_>,
) -> Result<(), RowsError> {
    let old = Old::of(rows, ino, &inode, change.ranges())?;
    put_contents(rows, op, ino, inode, change)?;
    match old {
        Some(old) => old.replaced(rows, op.id),
        None => Ok(()),
    }
}

fn put_contents(
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
    (ino, base): (Ino, OpId),
    change: &Change<'_>,
) -> Result<Outcome, RowsError> {
    // Who tells only what he changed relies on the rest as he saw it.
    let held = match change.body {
        Body::Extents { full: false, .. } => state::held_by_version(rows, base)?,
        _ => None,
    };
    let file = |ino| Ok::<_, RowsError>(state::inode(rows, ino)?.filter(|i| i.kind == Kind::File));
    let ino = match &held {
        Some(held) if file(held.ino)?.is_some() => held.ino,
        _ => ino,
    };
    let other = file(ino)?;
    let mut inode = match &other {
        Some(other) => Inode {
            links: Vec::new(),
            ..other.clone()
        },
        None => made_again(op, change.attributes),
    };
    if let Some(held) = &held {
        take_back(&mut inode, held);
    }
    // A copy begins with the keys of what it is a copy of.
    if inode.keys.len() + change.keys.len() > KEYS_MAX {
        return Ok(FULL);
    }
    let (dir, name, entry) = match other.as_ref().and_then(|i| i.links.first()) {
        Some(link) => {
            let entry = EntryId(invent(b"skrin/v1/fork", op.id));
            let (dir, name) = name_to_fork(rows, ino, link)?;
            (dir, name, entry)
        }
        // Its device goes on to move and to remove it by the entry that it knows.
        None => (
            change.place.dir,
            change.place.name.clone(),
            change.place.entry,
        ),
    };
    let dir = revive_dir(rows, dir, op)?;
    // Only now: reviving the directory may have brought this number back.
    let copy = super::free_ino(rows, ino, op.id)?;
    put_beside_contents(rows, (ino, copy), other.is_some(), change.attributes)?;
    // Without the old version, a change of some extents is laid over what is there now: complete, if not what its device saw.
    let below = match held {
        Some(held) => held.list,
        None => state::extents(rows, ino, 0, u64::MAX)?,
    };
    for extent in below {
        state::put_extent(rows, copy, &extent)?;
    }
    state::put_inode(rows, copy, &inode)?;
    let wanted = Link {
        dir,
        name: name.clone(),
        entry,
    };
    let free = settle(rows, copy, wanted, Cause::Written, op)?;
    if let Some(inode) = state::inode(rows, copy)? {
        put_contents(rows, op, copy, inode, change)?;
    }
    state::put_fork(rows, op.id, Some(copy))?;
    Ok(if free == name {
        Outcome::Applied
    } else {
        Outcome::ConflictCopy { dir, name: free }
    })
}

/// A file that is gone, as its device knew it, without contents.
fn made_again(op: &Op, attributes: &Attributes) -> Inode {
    let node = NewNode {
        kind: Kind::File,
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        target: Vec::new(),
    };
    Inode {
        btime: attributes.btime,
        xattrs: u32::try_from(attributes.xattrs.len()).unwrap_or(u32::MAX),
        ..Inode::new(&node, op.id, op.time)
    }
}

/// The length and the keys that a version had.
fn take_back(inode: &mut Inode, held: &Held) {
    inode.inline = None;
    inode.size = held.size;
    let known: BTreeSet<KeyId> = inode.keys.iter().map(|key| key.id).collect();
    let missing = held.keys.iter().filter(|key| !known.contains(&key.id));
    inode.keys.extend(missing.cloned());
}

/// Extended attributes, access control lists among them: those of the file that is there, or those that its device knew.
fn put_beside_contents(
    rows: &mut dyn Rows,
    (ino, copy): (Ino, Ino),
    is_there: bool,
    attributes: &Attributes,
) -> Result<(), RowsError> {
    if is_there {
        for (name, value) in state::xattrs(rows, ino)? {
            state::put_xattr(rows, copy, &name, &value)?;
        }
        return Ok(());
    }
    let mut told = attributes.xattrs.iter();
    told.try_for_each(|(name, value)| state::put_xattr(rows, copy, name, value))
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
