//! The verbs, and what several of them share.

mod allocate;
mod copy;
pub(crate) mod create;
mod getattr;
mod link;
mod lookup;
mod open;
mod read;
pub(crate) mod readdir;
mod remove;
mod rename;
mod seek;
pub(crate) mod setattr;
mod statfs;
mod sync;
mod write;
pub(crate) mod xattr;

use crate::content;
use crate::core::Fs;
use crate::error::FsError;
use crate::nodes::Seen;
use crate::types::{Attr, NodeId};
use skrin_base::limits::{BLOCK_LEN, NAME_MAX};
use skrin_base::{EntryId, Ino, Name, OpId, clock};
use skrin_meta::op::Place;
use skrin_meta::state::{self, Entry, Inode};
use skrin_meta::{Kind, Rows};

/// Of a file with more extents it is remembered what they add up to, of so many files at once.
const EXTENTS_CHEAP: usize = 128;
const COUNTED_MAX: usize = 1024;

/// Checks the bytes of a name that a program gave.
pub(crate) fn name_of(bytes: &[u8]) -> Result<Name, FsError> {
    if bytes.len() > NAME_MAX {
        return Err(FsError::NameTooLong);
    }
    Name::new(bytes).map_err(|_| FsError::BadName)
}

/// The inode that a number stands for now, and its number: a directory that two devices made at once has two.
pub(crate) fn inode_of(rows: &dyn Rows, ino: Ino) -> Result<(Ino, Inode), FsError> {
    if let Some(inode) = state::inode(rows, ino)? {
        return Ok((ino, inode));
    }
    let ino = state::resolve_alias(rows, ino)?;
    let inode = state::inode(rows, ino)?.ok_or(FsError::NotFound)?;
    Ok((ino, inode))
}

/// The directory that a number stands for.
pub(crate) fn dir_of(rows: &dyn Rows, ino: Ino) -> Result<(Ino, Inode), FsError> {
    let (ino, inode) = inode_of(rows, ino)?;
    match inode.kind {
        Kind::Dir => Ok((ino, inode)),
        _ => Err(FsError::NotDirectory),
    }
}

/// The entry of a name, which must be there.
pub(crate) fn entry_of(rows: &dyn Rows, dir: Ino, name: &Name) -> Result<Entry, FsError> {
    state::entry(rows, dir, name)?.ok_or(FsError::NotFound)
}

/// Refuses a name that is taken.
pub(crate) fn check_free(rows: &dyn Rows, dir: Ino, name: &Name) -> Result<(), FsError> {
    match state::entry(rows, dir, name)? {
        Some(_) => Err(FsError::Exists),
        None => Ok(()),
    }
}

impl Fs {
    /// A new place: its entry's id is drawn at random.
    pub(crate) fn new_place(&self, dir: Ino, name: Name) -> Place {
        Place {
            dir,
            name,
            entry: EntryId(clock::random(&*self.entropy)),
        }
    }

    /// Bytes of an inode that are stored: its length without the holes, which only files of more than one block have.
    pub(crate) fn stored_bytes(
        &self,
        rows: &dyn Rows,
        ino: Ino,
        inode: &Inode,
    ) -> Result<u64, FsError> {
        if inode.kind != Kind::File || inode.inline.is_some() || inode.size <= BLOCK_LEN as u64 {
            return Ok(inode.size);
        }
        let counted = self.counted.lock().get(&ino).copied();
        if let Some((_, stored)) = counted.filter(|(version, _)| *version == inode.version) {
            return Ok(stored);
        }
        let extents = state::extents(rows, ino, 0, u64::MAX)?;
        let stored = content::stored_bytes(&extents, inode.size);
        if extents.len() > EXTENTS_CHEAP {
            let mut counted = self.counted.lock();
            if counted.len() >= COUNTED_MAX {
                counted.clear();
            }
            counted.insert(ino, (inode.version, stored));
        }
        Ok(stored)
    }

    /// A number that no inode has.
    pub(crate) fn new_ino(&self, rows: &dyn Rows) -> Result<Ino, FsError> {
        loop {
            let ino = Ino::from_random(self.entropy.u64());
            if state::inode(rows, ino)?.is_none() {
                return Ok(ino);
            }
        }
    }

    /// Attributes as the tree has them, holes counted as stored.
    pub(crate) fn attr_of(node: NodeId, ino: Ino, inode: &Inode) -> Attr {
        Attr {
            node,
            ino,
            kind: inode.kind,
            mode: inode.mode,
            nlink: inode.nlink(),
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            size: inode.size,
            stored: inode.size,
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            btime: inode.btime,
        }
    }

    /// Attributes of an inode for an entry: under its present node, with the changes of an open file laid over.
    /// Counts a look-up if `count`.
    pub(crate) fn entry_attr(&self, (ino, inode): (Ino, &Inode), stored: u64, count: bool) -> Attr {
        let node = self.nodes.current(ino);
        let seen = (inode.kind == Kind::File).then(|| Seen::of(inode));
        match seen {
            _ if count => self.nodes.introduce(node, seen),
            Some(_) => self.nodes.offer(node, inode.version),
            None => {}
        }
        let mut attr = Self::attr_of(node, ino, inode);
        attr.stored = stored;
        match inode.kind {
            Kind::File => self.overlay(&mut attr, inode.version),
            Kind::Dir => self.count_local_dirs(&mut attr),
            _ => {}
        }
        attr
    }

    /// Lays over what an open file knows better than the tree, which has contents of version `version`.
    pub(crate) fn overlay(&self, attr: &mut Attr, version: OpId) {
        let Some(file) = self.files.get(attr.node) else {
            return;
        };
        let state = file.state.lock();
        if !state.content.is_modified() && state.base == version {
            return;
        }
        attr.size = state.content.size();
        attr.stored = state.content.stored_bytes();
        attr.mtime = state.mtime.unwrap_or(state.inode.mtime);
        attr.ctime = attr.ctime.max(attr.mtime);
    }
}
