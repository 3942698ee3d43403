//! Operations on directory entries.

use super::conflict::{attach, revive_dir, settle};
use super::{GONE, Outcome, touch_dir};
use crate::op::{Kind, NewNode, Op, Place, Seen};
use crate::rows::{Rows, RowsError};
use crate::state::{self, Cause, ConflictCopy, Entry, Inode, Link};
use skrin_base::{EntryId, Ino, Name, OpId};

/// Directories nested deeper than this cannot be moved: a walk to the root must end.
const DEPTH_MAX: usize = 65_536;

/// Where a rename goes, and what it replaces there.
pub(super) struct Target<'a> {
    pub(super) dir: Ino,
    pub(super) name: &'a Name,
    pub(super) replaces: Option<&'a Seen>,
}

fn placed(asked: &Name, dir: Ino, name: Name) -> Outcome {
    if *asked == name {
        Outcome::Applied
    } else {
        Outcome::ConflictCopy { dir, name }
    }
}

fn wanted(dir: Ino, place: &Place) -> Link {
    Link {
        dir,
        name: place.name.clone(),
        entry: place.entry,
    }
}

pub(super) fn create(
    rows: &mut dyn Rows,
    op: &Op,
    place: &Place,
    ino: Ino,
    node: &NewNode,
) -> Result<Outcome, RowsError> {
    let dir = revive_dir(rows, place.dir, op)?;
    if node.kind == Kind::Dir
        && super::is_free(rows, ino)?
        && let Some(there) = state::entry(rows, dir, &place.name)?.filter(|e| e.kind == Kind::Dir)
    {
        // Two devices made one directory: the later one is an alias of the earlier.
        state::put_alias(rows, ino, there.ino)?;
        return Ok(Outcome::Applied);
    }
    let ino = super::free_ino(rows, ino, op.id)?;
    state::put_inode(rows, ino, &Inode::new(node, op.id, op.time))?;
    let name = settle(rows, ino, wanted(dir, place), Cause::Made, op)?;
    Ok(placed(&place.name, dir, name))
}

pub(super) fn link(
    rows: &mut dyn Rows,
    op: &Op,
    ino: Ino,
    place: &Place,
) -> Result<Outcome, RowsError> {
    let Some(inode) = state::inode(rows, ino)?.filter(|i| i.kind != Kind::Dir) else {
        return Ok(GONE);
    };
    if !super::has_room_for_link(&inode) {
        return Ok(Outcome::Void(
            "the inode has as many links as the format allows",
        ));
    }
    let dir = revive_dir(rows, place.dir, op)?;
    let name = settle(rows, ino, wanted(dir, place), Cause::Made, op)?;
    Ok(placed(&place.name, dir, name))
}

/// Takes an entry away; the inode stays, even without any place.
fn detach(
    rows: &mut dyn Rows,
    op: &Op,
    ino: Ino,
    inode: &mut Inode,
    at: usize,
) -> Result<Link, RowsError> {
    let link = inode.links.remove(at);
    state::delete_entry(rows, link.dir, &link.name)?;
    state::forget_conflict_copy(rows, ino, link.entry, &link.name)?;
    touch_dir(rows, link.dir, op.time, -i32::from(inode.kind == Kind::Dir))?;
    inode.ctime = op.time;
    state::put_inode(rows, ino, inode)?;
    Ok(link)
}

/// Lets go of an inode that has no place any more.
fn bury(
    rows: &mut dyn Rows,
    op: &Op,
    ino: Ino,
    mut inode: Inode,
    last: Link,
) -> Result<(), RowsError> {
    state::remember(rows, ino, &inode, op.id)?;
    state::delete_contents(rows, ino)?;
    rows.delete(&state::inode_key(ino))?;
    if inode.kind == Kind::Dir {
        inode.links = vec![last];
        inode.xattrs = 0;
        state::put_tombstone(rows, ino, Some(&inode))?;
    }
    Ok(())
}

fn find_link(inode: &Inode, place: &Place) -> Option<usize> {
    inode.links.iter().position(|l| l.entry == place.entry)
}

pub(super) fn remove(
    rows: &mut dyn Rows,
    op: &Op,
    place: &Place,
    ino: Ino,
    version: OpId,
) -> Result<Outcome, RowsError> {
    let ino = state::resolve_alias(rows, ino)?;
    let outcome = remove_seen(rows, op, place.entry, ino, version)?;
    if outcome != Outcome::Applied
        && let Some(fork) = Standing::fork(rows, version)?
    {
        fork.replace(rows, op)?;
        return Ok(Outcome::Applied);
    }
    Ok(outcome)
}

/// Removes an entry if what it names is as it was seen.
fn remove_seen(
    rows: &mut dyn Rows,
    op: &Op,
    entry: EntryId,
    ino: Ino,
    version: OpId,
) -> Result<Outcome, RowsError> {
    let Some(mut inode) = state::inode(rows, ino)? else {
        return Ok(GONE);
    };
    let Some(at) = inode.links.iter().position(|l| l.entry == entry) else {
        return Ok(Outcome::Void("the entry is gone"));
    };
    if inode.kind == Kind::Dir && !state::is_empty(rows, ino)? {
        return Ok(Outcome::Void("the directory is not empty"));
    }
    if inode.kind != Kind::Dir && inode.links.len() == 1 && inode.version != version {
        return Ok(Outcome::Void("the file was edited meanwhile"));
    }
    let last = detach(rows, op, ino, &mut inode, at)?;
    if inode.links.is_empty() {
        bury(rows, op, ino, inode, last)?;
    }
    Ok(Outcome::Applied)
}

/// What a device saw at a name, where it stands now under a conflict name: what that device does to the name goes on there.
struct Standing {
    ino: Ino,
    inode: Inode,
    link: Link,
}

impl Standing {
    /// The fork in which a version lives as the newest, as long as it is a conflict copy: what somebody has moved since is his.
    fn fork(rows: &dyn Rows, version: OpId) -> Result<Option<Self>, RowsError> {
        let Some(ino) = state::fork_of(rows, version)? else {
            return Ok(None);
        };
        let Some(fork) = Self::only(rows, ino, version)? else {
            return Ok(None);
        };
        let copy = state::conflict_copy(rows, ino, fork.link.entry)?;
        Ok(copy.map(|_| fork))
    }

    /// The conflict copy, of this name, that has the entry.
    fn copy(
        rows: &dyn Rows,
        seen: &Seen,
        (dir, name): (Ino, &Name),
    ) -> Result<Option<Self>, RowsError> {
        let copy = state::conflict_copy(rows, seen.ino, seen.entry)?;
        match copy.is_some_and(|copy| copy.dir == dir && copy.name == *name) {
            true => Self::only(rows, seen.ino, seen.version),
            false => Ok(None),
        }
    }

    fn only(rows: &dyn Rows, ino: Ino, version: OpId) -> Result<Option<Self>, RowsError> {
        let inode = state::inode(rows, ino)?;
        let inode = inode.filter(|i| i.kind != Kind::Dir && i.version == version);
        let Some(inode) = inode.filter(|i| i.links.len() == 1) else {
            return Ok(None);
        };
        let link = inode.links.first().cloned();
        Ok(link.map(|link| Self { ino, inode, link }))
    }

    /// Takes it away; its place, and what was known of it.
    fn replace(
        mut self,
        rows: &mut dyn Rows,
        op: &Op,
    ) -> Result<(Link, Option<ConflictCopy>), RowsError> {
        let copy = state::conflict_copy(rows, self.ino, self.link.entry)?;
        let last = detach(rows, op, self.ino, &mut self.inode, 0)?;
        bury(rows, op, self.ino, self.inode, last)?;
        Ok((self.link, copy))
    }
}

/// Whether `dir` is `ino` or lies below it.
fn is_below(rows: &dyn Rows, dir: Ino, ino: Ino) -> Result<bool, RowsError> {
    let mut at = dir;
    for _ in 0..DEPTH_MAX {
        if at == ino {
            return Ok(true);
        }
        match state::inode(rows, at)?
            .as_ref()
            .and_then(|i| i.links.first())
        {
            Some(link) => at = link.dir,
            None => return Ok(false),
        }
    }
    Ok(true)
}

pub(super) fn rename(
    rows: &mut dyn Rows,
    op: &Op,
    ino: Ino,
    from: &Place,
    to: &Target<'_>,
) -> Result<Outcome, RowsError> {
    let ino = state::resolve_alias(rows, ino)?;
    let Some(inode) = state::inode(rows, ino)? else {
        return Ok(GONE);
    };
    let Some(at) = find_link(&inode, from) else {
        return Ok(Outcome::Void("the entry is gone"));
    };
    let dir = revive_dir(rows, to.dir, op)?;
    if inode.kind == Kind::Dir && is_below(rows, dir, ino)? {
        return Ok(Outcome::Void("the move would make a cycle"));
    }
    if inode
        .links
        .get(at)
        .is_some_and(|l| l.dir == dir && l.name == *to.name)
    {
        return Ok(Outcome::Applied);
    }
    let elsewhere = make_room(rows, op, (ino, inode.kind), dir, to)?;
    let Some(mut inode) = state::inode(rows, ino)? else {
        return Ok(GONE);
    };
    let Some(at) = find_link(&inode, from) else {
        return Ok(GONE);
    };
    let entry = detach(rows, op, ino, &mut inode, at)?.entry;
    let Some((place, copy)) = elsewhere else {
        let name = to.name.clone();
        let name = settle(rows, ino, Link { dir, name, entry }, Cause::Moved, op)?;
        return Ok(placed(to.name, dir, name));
    };
    let link = Link { entry, ..place };
    if let Some(copy) = copy {
        let (time, op) = (op.time, op.id);
        state::put_conflict_copy(rows, ino, entry, &ConflictCopy { op, time, ..copy })?;
    }
    attach(rows, ino, link.clone(), op.time)?;
    Ok(placed(to.name, link.dir, link.name))
}

/// Removes what the rename saw at its target, if it is as it was seen: there, or under the conflict name that it has now. That place is
/// returned with the row of a conflict copy: a document that is saved again and again by renaming has one, not one for each time.
fn make_room(
    rows: &mut dyn Rows,
    op: &Op,
    (ino, kind): (Ino, Kind),
    dir: Ino,
    to: &Target<'_>,
) -> Result<Option<(Link, Option<ConflictCopy>)>, RowsError> {
    let Some(seen) = to.replaces else {
        return Ok(None);
    };
    let there = state::entry(rows, dir, to.name)?;
    let seen_ino = state::resolve_alias(rows, seen.ino)?;
    let same = there.is_some_and(|there| there.id == seen.entry && there.ino == seen_ino);
    if seen_ino == ino || kind == Kind::Dir && !same {
        return Ok(None);
    }
    let copy = state::conflict_copy(rows, seen_ino, seen.entry)?;
    if same && remove_seen(rows, op, seen.entry, seen_ino, seen.version)? == Outcome::Applied {
        // Who saves a conflict copy by renaming saves a conflict copy.
        let (name, entry) = (to.name.clone(), seen.entry);
        let place = Link { dir, name, entry };
        let copy = copy.filter(|_| kind != Kind::Dir);
        return Ok(copy.map(|copy| (place, Some(copy))));
    }
    let standing = match Standing::fork(rows, seen.version)? {
        None if !same => Standing::copy(rows, seen, (dir, to.name))?,
        fork => fork,
    };
    let standing = standing.filter(|standing| standing.ino != ino && kind != Kind::Dir);
    standing.map(|s| s.replace(rows, op)).transpose()
}

pub(super) fn exchange(
    rows: &mut dyn Rows,
    op: &Op,
    (ino, a): (Ino, &Place),
    (other, b): (Ino, &Place),
) -> Result<Outcome, RowsError> {
    let (ino, other) = (
        state::resolve_alias(rows, ino)?,
        state::resolve_alias(rows, other)?,
    );
    let (Some(first), Some(second)) = (state::inode(rows, ino)?, state::inode(rows, other)?) else {
        return Ok(GONE);
    };
    let there = |inode: &Inode, place: &Place| {
        find_link(inode, place).and_then(|at| inode.links.get(at).cloned())
    };
    let (Some(from), Some(to)) = (there(&first, a), there(&second, b)) else {
        return Ok(Outcome::Void("an entry is gone"));
    };
    let cycle = (first.kind == Kind::Dir && is_below(rows, to.dir, ino)?)
        || (second.kind == Kind::Dir && is_below(rows, from.dir, other)?);
    if cycle {
        return Ok(Outcome::Void("the move would make a cycle"));
    }
    move_entry(rows, op, ino, &from, &to)?;
    move_entry(rows, op, other, &to, &from)?;
    for (dir, change) in [(from.dir, &second), (to.dir, &first)] {
        touch_dir(rows, dir, op.time, i32::from(change.kind == Kind::Dir))?;
    }
    for (dir, change) in [(from.dir, &first), (to.dir, &second)] {
        touch_dir(rows, dir, op.time, -i32::from(change.kind == Kind::Dir))?;
    }
    Ok(Outcome::Applied)
}

/// Writes the entry of `ino` that was at `from` into the place `to`, whose old entry it overwrites.
fn move_entry(
    rows: &mut dyn Rows,
    op: &Op,
    ino: Ino,
    from: &Link,
    to: &Link,
) -> Result<(), RowsError> {
    let Some(mut inode) = state::inode(rows, ino)? else {
        return Ok(());
    };
    let entry = Entry {
        id: from.entry,
        ino,
        kind: inode.kind,
    };
    state::put_entry(rows, to.dir, &to.name, &entry)?;
    state::forget_conflict_copy(rows, ino, from.entry, &from.name)?;
    if let Some(link) = inode.links.iter_mut().find(|l| l.entry == from.entry) {
        (link.dir, link.name) = (to.dir, to.name.clone());
    }
    inode.ctime = op.time;
    state::put_inode(rows, ino, &inode)
}
