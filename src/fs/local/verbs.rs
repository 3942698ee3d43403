//! What the verbs do with files of this machine. Such a file is found by a name that only a Mac means, in a directory of the tree, or in a
//! directory that is one itself.

use super::tree::LocalTree;
use super::{LocalPlace, names};
use crate::acl;
use crate::core::Fs;
use crate::error::FsError;
use crate::file::{Change, Gone};
use crate::ops::create::inherit_group;
use crate::ops::readdir::dots;
use crate::ops::{dir_of, inode_of};
use crate::types::{
    Allocate, Attr, DirEntry, HandleId, NodeId, Notify, OpenMode, RenameMode, Seek, SetAttr,
};
use skrin_base::{Ino, Name, OpId};
use skrin_meta::op::NewNode;
use skrin_meta::state::{self, Inode};
use skrin_meta::{Kind, Rows};
use std::collections::BTreeSet;

impl Fs {
    /// The place on this machine that a name leads to, or would. What the vault has of that name comes first.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, of the directory.
    pub(crate) fn local_place(
        &self,
        dir: NodeId,
        name: &Name,
    ) -> Result<Option<LocalPlace>, FsError> {
        let place = |dir: u64| LocalPlace {
            dir,
            name: name.clone(),
        };
        if dir.is_local() {
            return Ok(Some(place(dir.0)));
        }
        let meant = || names::is_local_name(name.as_bytes(), dir == NodeId::ROOT);
        if !self.locals.is_on() || dir.is_past() || !meant() {
            return Ok(None);
        }
        let tree = self.replica.tree();
        let (dir, _) = dir_of(&tree, self.nodes.ino(dir))?;
        let is_free = state::entry(&tree, dir, name)?.is_none();
        Ok(is_free.then(|| place(dir.0)))
    }

    /// Does what needs room; if there is none, what is left of directories that are gone makes some.
    fn with_room<T>(
        &self,
        act: impl Fn(&mut LocalTree) -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        let done = act(&mut self.locals.tree());
        match done {
            Err(FsError::LocalFull(_)) if self.drop_lost_locals()? => act(&mut self.locals.tree()),
            Err(FsError::LocalFull(max)) => {
                self.locals.tell_full(max);
                Err(FsError::LocalFull(max))
            }
            done => done,
        }
    }

    /// Directories that another device removed may come back, so that what is in them here stays until there is no room.
    fn drop_lost_locals(&self) -> Result<bool, FsError> {
        let (dirs, now) = (self.locals.tree().dirs_of_the_vault(), self.now());
        let mut dropped = false;
        for dir in dirs {
            match inode_of(&self.replica.tree(), Ino(dir)) {
                Err(FsError::NotFound) => {}
                found => {
                    found?;
                    continue;
                }
            }
            self.locals.tree().drop_dir(dir, now);
            dropped = true;
        }
        Ok(dropped)
    }

    /// Of two directories that devices made at once one goes on; what this machine has in the other moves along. Looks at `changed`, or at
    /// all.
    pub(crate) fn rehome_locals(&self, changed: Option<&BTreeSet<Ino>>) -> Result<(), FsError> {
        let dirs = self.locals.tree().dirs_of_the_vault();
        let is_meant = |dir: &u64| changed.is_none_or(|changed| changed.contains(&Ino(*dir)));
        for dir in dirs.into_iter().filter(is_meant) {
            let to = match inode_of(&self.replica.tree(), Ino(dir)) {
                Err(FsError::NotFound) => continue,
                found => found?.0.0,
            };
            if to != dir {
                self.locals.tree().rehome(dir, to, self.now());
            }
        }
        Ok(())
    }

    /// Subdirectories count as names of a directory.
    pub(crate) fn count_local_dirs(&self, attr: &mut Attr) {
        if self.locals.is_on() {
            let more = self.locals.tree().subdirs(attr.ino.0);
            attr.nlink = attr.nlink.saturating_add(more);
        }
    }

    /// Something of the vault had the name, and is gone: what it hid goes too, as who removed it saw one file.
    pub(crate) fn drop_hidden(&self, dir: NodeId, name: &Name) -> Result<(), FsError> {
        match self.local_place(dir, name) {
            Ok(Some(place)) => self.drop_local(&place),
            Ok(None) => {}
            // With the directory, which another device removed meanwhile, what it hid is gone.
            Err(FsError::NotFound | FsError::NotDirectory) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(crate) fn drop_local(&self, at: &LocalPlace) {
        self.locals.tree().drop_entry(at, self.now());
    }

    /// A directory of the tree is gone, and what of it is on this machine alone.
    pub(crate) fn drop_locals_in(&self, dir: Ino) {
        self.locals.tree().drop_dir(dir.0, self.now());
    }

    pub(crate) fn local_lookup(&self, at: &LocalPlace) -> Result<Attr, FsError> {
        let mut tree = self.locals.tree();
        if NodeId(at.dir).is_local() {
            tree.dir(at.dir)?;
        }
        let id = tree.find(at).ok_or(FsError::NotFound)?;
        tree.looked_up(id);
        tree.attr(id)
    }

    pub(crate) fn local_looked_up(&self, node: NodeId) {
        self.locals.tree().looked_up(node.0);
    }

    pub(crate) fn forget_local(&self, node: NodeId, count: u64) {
        self.locals.tree().forget(node.0, count);
    }

    pub(crate) fn local_attr(&self, node: NodeId) -> Result<Attr, FsError> {
        self.locals.tree().attr(node.0)
    }

    /// Looks at what is kept of a node beside its contents.
    pub(crate) fn with_local<T>(
        &self,
        node: NodeId,
        look: impl FnOnce(&Gone) -> T,
    ) -> Result<T, FsError> {
        Ok(look(&self.locals.tree().node(node.0)?.attributes))
    }

    /// Changes extended attributes.
    pub(crate) fn change_local(
        &self,
        node: NodeId,
        plan: impl FnOnce(&mut Gone) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        self.locals.tree().set_xattrs(node.0, plan)
    }

    pub(crate) fn local_readlink(&self, node: NodeId) -> Result<Vec<u8>, FsError> {
        self.with_local(node, |at| match at.inode.kind {
            Kind::Symlink => Ok(at.inode.target.clone()),
            _ => Err(FsError::Invalid("not a symbolic link")),
        })?
    }

    /// The directory of a place, with its default list.
    fn parent_of(&self, at: &LocalPlace) -> Result<(Inode, Option<Vec<u8>>), FsError> {
        if NodeId(at.dir).is_local() {
            let tree = self.locals.tree();
            let parent = &tree.dir(at.dir)?.attributes;
            let default = parent.xattrs.get(acl::DEFAULT).cloned();
            return Ok((parent.inode.clone(), default));
        }
        let tree = self.replica.tree();
        let (dir, parent) = dir_of(&tree, Ino(at.dir))?;
        let default = acl::default_of(&tree, dir, &parent)?;
        Ok((parent, default))
    }

    /// Makes something new; counts as a look-up.
    pub(crate) fn make_local(
        &self,
        at: LocalPlace,
        mut node: NewNode,
        umask: u16,
    ) -> Result<Attr, FsError> {
        let (parent, default) = self.parent_of(&at)?;
        inherit_group(&parent, &mut node);
        let inherited = acl::inherit(default, node.kind, node.mode, umask);
        node.mode = inherited.mode;
        let mut inode = Inode::new(&node, OpId::default(), self.now());
        inode.inline = None;
        let lists = inherited.xattrs.into_iter();
        let attributes = Gone {
            inode,
            xattrs: lists.map(|(name, value)| (name.to_vec(), value)).collect(),
        };
        self.with_room(|tree| tree.make(&at, attributes.clone()))
    }

    pub(crate) fn link_local(&self, node: NodeId, at: LocalPlace) -> Result<Attr, FsError> {
        self.parent_of(&at)?;
        self.with_room(|tree| tree.link(node.0, &at, self.now()))
    }

    pub(crate) fn remove_local(&self, at: &LocalPlace, dir: bool) -> Result<(), FsError> {
        self.locals.tree().remove(at, dir, self.now())
    }

    /// Moves something of this machine to another place on it, which `to` has to be.
    pub(crate) fn rename_local(
        &self,
        from: &LocalPlace,
        to: Option<&LocalPlace>,
        mode: RenameMode,
    ) -> Result<(), FsError> {
        match to {
            Some(to) => {
                self.parent_of(to)?;
                self.with_room(|tree| tree.rename(from, to, mode, self.now()))
            }
            None => match self.locals.tree().find(from) {
                Some(_) => Err(FsError::OtherDevice),
                None => Err(FsError::NotFound),
            },
        }
    }

    /// Refuses to move something of the vault to a place on this machine. What came to the vault under the name of such a file is moved to
    /// another such name as any file of the vault.
    pub(crate) fn check_move_onto(
        &self,
        dir: NodeId,
        name: &Name,
        to: &LocalPlace,
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let named = names::is_local_name(name.as_bytes(), dir == NodeId::ROOT);
        if !named || NodeId(to.dir).is_local() {
            return Err(FsError::OtherDevice);
        }
        let there = self.locals.tree().find(to).is_some();
        match mode {
            RenameMode::NoReplace if there => Err(FsError::Exists),
            RenameMode::Exchange if there => Err(FsError::OtherDevice),
            _ => Ok(()),
        }
    }

    pub(crate) fn opendir_local(&self, node: NodeId) -> Result<(), FsError> {
        match self.locals.tree().node(node.0)?.kind() {
            Kind::Dir => Ok(()),
            _ => Err(FsError::NotDirectory),
        }
    }

    pub(crate) fn readdir_local(
        &self,
        node: NodeId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DirEntry>, FsError> {
        let tree = self.locals.tree();
        let mut out = dots(Ino(node.0), Ino(tree.parent(node.0)), after);
        let more = limit.saturating_sub(out.len());
        out.extend(tree.list(node.0, after, more, |_| Ok(true))?);
        Ok(out)
    }

    /// What a directory of the tree shows of this machine behind a cookie.
    pub(crate) fn locals_in(
        &self,
        rows: &dyn Rows,
        dir: Ino,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DirEntry>, FsError> {
        if !self.locals.is_on() {
            return Ok(Vec::new());
        }
        let is_shown = |name: &Name| Ok(state::entry(rows, dir, name)?.is_none());
        self.locals.tree().list(dir.0, after, limit, is_shown)
    }

    pub(crate) fn set_local(&self, node: NodeId, set: &SetAttr) -> Result<Attr, FsError> {
        let now = self.now();
        if let Some(size) = set.size {
            self.with_room(|tree| tree.resize(node.0, size, now))?;
        }
        let change = Change::of(set, now);
        let mut tree = self.locals.tree();
        if !change.is_empty() {
            tree.set(node.0, &change, now)?;
        }
        tree.attr(node.0)
    }

    pub(crate) fn open_local(&self, node: NodeId, how: OpenMode) -> Result<HandleId, FsError> {
        let mut tree = self.locals.tree();
        let handle = tree.open(node.0, how.write)?;
        if how.truncate {
            tree.resize(node.0, 0, self.now())?;
        }
        Ok(handle)
    }

    pub(crate) fn close_local(&self, handle: HandleId) -> Result<(), FsError> {
        self.locals.tree().close(handle)
    }

    pub(crate) fn read_local(
        &self,
        handle: HandleId,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, FsError> {
        let tree = self.locals.tree();
        let data = tree.data(handle)?;
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let end = start.saturating_add(len).min(data.len());
        Ok(data.get(start..end).unwrap_or_default().to_vec())
    }

    pub(crate) fn write_local(
        &self,
        handle: HandleId,
        offset: u64,
        data: &[u8],
    ) -> Result<(), FsError> {
        self.check_allowed()?;
        let now = self.now();
        self.with_room(|tree| tree.write(handle, offset, data, now))
    }

    pub(crate) fn allocate_local(
        &self,
        handle: HandleId,
        offset: u64,
        len: u64,
        how: Allocate,
    ) -> Result<(), FsError> {
        if len == 0 {
            return Err(FsError::Invalid("an empty range"));
        }
        let end = offset.checked_add(len).ok_or(FsError::TooLarge)?;
        let now = self.now();
        self.with_room(|tree| {
            let (id, write) = tree.opened(handle)?;
            if !write {
                return Err(FsError::BadHandle);
            }
            let longer = end > tree.data(handle)?.len() as u64;
            if matches!(how, Allocate::Extend | Allocate::Zero) && longer {
                tree.resize(id, end, now)?;
            }
            match how {
                Allocate::PunchHole | Allocate::Zero => tree.zero(handle, offset, len, now),
                Allocate::Extend | Allocate::KeepSize => Ok(()),
            }
        })
    }

    /// All of it is data.
    pub(crate) fn seek_local(
        &self,
        handle: HandleId,
        offset: u64,
        what: Seek,
        notify: Option<&dyn Notify>,
    ) -> Result<u64, FsError> {
        let (id, _) = self.locals.tree().opened(handle)?;
        if let Some(notify) = notify {
            notify.write_back(NodeId(id));
        }
        let len = self.locals.tree().data(handle)?.len() as u64;
        match what {
            _ if offset >= len => Err(FsError::NoMoreData),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(len),
        }
    }
}
