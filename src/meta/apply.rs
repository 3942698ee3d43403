//! `apply`: what an operation does to the state (docs/format/operations.md, section 3). Pure, synchronous, deterministic
//! and total: whatever the state, every operation has an outcome, and the same operations in the same order make the same rows
//! everywhere. No clock, no randomness, no locale, no order of a hash map. What it invents is a function of the operation's id.

mod conflict;
mod content;
mod entries;

use crate::op::{Op, OpKind};
use crate::rows::{Rows, RowsError};
use crate::state;
use skrin_base::limits::{LINK_MAX, XATTR_TOTAL_MAX};
use skrin_base::{CopiedRun, Ino, Name, OpId, Timestamp};

/// Number of these rules. It changes only by an operation in the room.
pub const RULE_SET: u32 = 1;

/// What became of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It did what its device saw.
    Applied,
    /// It was folded before.
    Duplicate,
    /// It kept everything but not at the name that was asked for.
    ConflictCopy {
        /// Directory of the copy.
        dir: Ino,
        /// Its name.
        name: Name,
    },
    /// The world had moved on, so that it has nothing to do.
    Void(&'static str),
}

/// Folds one operation into the state.
///
/// # Errors
/// Only when the local cache fails; then nothing may be assumed of the rows, and the caller reverts them.
pub fn apply(rows: &mut dyn Rows, op: &Op) -> Result<Outcome, RowsError> {
    if !state::note_folded(rows, op.id)? {
        return Ok(Outcome::Duplicate);
    }
    match &op.kind {
        OpKind::Create { place, ino, node } => entries::create(rows, op, place, *ino, node),
        OpKind::Link { ino, place } => entries::link(rows, op, *ino, place),
        OpKind::Remove {
            place,
            ino,
            version,
        } => entries::remove(rows, op, place, *ino, *version),
        OpKind::Rename {
            ino,
            from,
            to_dir,
            to_name,
            replaces,
        } => {
            let to = entries::Target {
                dir: *to_dir,
                name: to_name,
                replaces: replaces.as_ref(),
            };
            entries::rename(rows, op, *ino, from, &to)
        }
        OpKind::Exchange { ino, a, other, b } => {
            entries::exchange(rows, op, (*ino, a), (*other, b))
        }
        OpKind::SetAttr { .. } => set_attr(rows, op),
        OpKind::Write { .. } => content::write(rows, op),
        OpKind::SetXattr { ino, name, value } => set_xattr(rows, op, *ino, name, Some(value)),
        OpKind::RemoveXattr { ino, name } => set_xattr(rows, op, *ino, name, None),
        OpKind::Label { label } => {
            state::put_label(rows, op.id.device, label)?;
            Ok(Outcome::Applied)
        }
        OpKind::Snapshot { name } => snapshot(rows, op, name),
        OpKind::ForgetSnapshot { name, snapshot } => {
            match state::snapshot(rows, name)?.filter(|known| known.op == *snapshot) {
                Some(_) => {
                    state::delete_snapshot(rows, name)?;
                    Ok(Outcome::Applied)
                }
                None => Ok(Outcome::Void("the snapshot is gone")),
            }
        }
        OpKind::Relocate { .. } => relocate(rows, &op.kind),
        OpKind::Retention { seconds } => {
            state::put_retention(rows, *seconds, op.id)?;
            Ok(Outcome::Applied)
        }
        OpKind::ForgetVersions { runs } => {
            for run in runs {
                state::forget_versions(rows, run)?;
            }
            Ok(Outcome::Applied)
        }
        OpKind::Unknown { .. } => Ok(Outcome::Void("unknown optional operation")),
    }
}

/// Names the state before the operation. The row says which operation; the state itself can be folded again.
fn snapshot(rows: &mut dyn Rows, op: &Op, name: &Name) -> Result<Outcome, RowsError> {
    let free = conflict::free_name_for(rows, name, op, |rows, name| {
        Ok(state::snapshot(rows, name)?.is_none())
    })?;
    let snapshot = state::Snapshot {
        op: op.id,
        time: op.time,
    };
    state::put_snapshot(rows, &free, &snapshot)?;
    match free == *name {
        true => Ok(Outcome::Applied),
        false => Ok(Outcome::ConflictCopy {
            dir: Ino::ROOT,
            name: free,
        }),
    }
}

/// Notes where blocks lie; the last word counts for each slot. Nothing else is touched: extents go on naming the segment for which
/// the blocks were sealed, so that nothing that names them can be older or newer than this.
fn relocate(rows: &mut dyn Rows, kind: &OpKind) -> Result<Outcome, RowsError> {
    let OpKind::Relocate {
        segment,
        host,
        table_slot,
        runs,
    } = kind
    else {
        return Ok(Outcome::Void("not a relocation"));
    };
    for run in runs {
        let copied = CopiedRun {
            first_slot: run.first,
            count: run.count,
            host: *host,
            host_slot: run.at,
            table_slot: *table_slot,
        };
        state::put_copied_run(rows, *segment, &copied)?;
    }
    Ok(Outcome::Applied)
}

const GONE: Outcome = Outcome::Void("the inode is gone");

/// Whether nothing ever had this number, so that an operation may give it to something new.
fn is_free(rows: &dyn Rows, ino: Ino) -> Result<bool, RowsError> {
    Ok(ino.0 >= Ino::FIRST_RANDOM
        && state::inode(rows, ino)?.is_none()
        && state::tombstone(rows, ino)?.is_none()
        && state::resolve_alias(rows, ino)? == ino)
}

/// The number that was asked for if it is free, else one that is a function of the operation alone.
fn free_ino(rows: &dyn Rows, wanted: Ino, id: OpId) -> Result<Ino, RowsError> {
    let (mut ino, mut attempt) = (wanted, 0u64);
    while !is_free(rows, ino)? {
        let mut purpose = b"skrin/v1/ino".to_vec();
        purpose.extend_from_slice(&attempt.to_be_bytes());
        ino = Ino::from_random(u64::from_be_bytes(invent(&purpose, id)));
        attempt += 1;
    }
    Ok(ino)
}

fn invent<const N: usize>(purpose: &[u8], id: OpId) -> [u8; N] {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(purpose)
        .update(id.device.as_bytes())
        .update(&id.counter.to_be_bytes());
    let mut out = [0; N];
    hasher.finalize_xof().fill(&mut out);
    out
}

fn set_attr(rows: &mut dyn Rows, op: &Op) -> Result<Outcome, RowsError> {
    let OpKind::SetAttr {
        ino,
        mode,
        uid,
        gid,
        atime,
        mtime,
    } = &op.kind
    else {
        return Ok(GONE);
    };
    let ino = state::resolve_alias(rows, *ino)?;
    let Some(mut inode) = state::inode(rows, ino)? else {
        return Ok(GONE);
    };
    inode.mode = mode.unwrap_or(inode.mode);
    inode.uid = uid.unwrap_or(inode.uid);
    inode.gid = gid.unwrap_or(inode.gid);
    inode.atime = atime.unwrap_or(inode.atime);
    inode.mtime = mtime.unwrap_or(inode.mtime);
    inode.ctime = op.time;
    state::put_inode(rows, ino, &inode)?;
    Ok(Outcome::Applied)
}

fn set_xattr(
    rows: &mut dyn Rows,
    op: &Op,
    ino: Ino,
    name: &[u8],
    value: Option<&Vec<u8>>,
) -> Result<Outcome, RowsError> {
    let ino = state::resolve_alias(rows, ino)?;
    let Some(mut inode) = state::inode(rows, ino)? else {
        return Ok(GONE);
    };
    let had = state::xattr(rows, ino, name)?.is_some();
    match value {
        Some(value) => {
            let others: usize = state::xattrs(rows, ino)?
                .iter()
                .filter(|(n, _)| **n != *name)
                .map(|(n, v)| n.len() + v.len())
                .sum();
            if others + name.len() + value.len() > XATTR_TOTAL_MAX {
                return Ok(Outcome::Void("no room for another extended attribute"));
            }
            state::put_xattr(rows, ino, name, value)?;
        }
        None => state::delete_xattr(rows, ino, name)?,
    }
    inode.xattrs = (inode.xattrs + u32::from(value.is_some())).saturating_sub(u32::from(had));
    inode.ctime = op.time;
    state::put_inode(rows, ino, &inode)?;
    Ok(Outcome::Applied)
}

/// Notes in a directory that its entries changed.
fn touch_dir(
    rows: &mut dyn Rows,
    dir: Ino,
    time: Timestamp,
    subdirs: i32,
) -> Result<(), RowsError> {
    if let Some(mut inode) = state::inode(rows, dir)? {
        inode.mtime = time;
        inode.ctime = time;
        inode.subdirs = inode.subdirs.saturating_add_signed(subdirs);
        state::put_inode(rows, dir, &inode)?;
    }
    Ok(())
}

fn has_room_for_link(inode: &state::Inode) -> bool {
    inode.links.len() < LINK_MAX
}
