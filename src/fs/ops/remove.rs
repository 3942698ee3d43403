use super::xattr::attributes;
use super::{dir_of, entry_of, inode_of, name_of};
use crate::core::Fs;
use crate::error::FsError;
use crate::file::{Gone, OpenFile, OpenFiles};
use crate::hold::is_passing;
use crate::leases::is_lock;
use crate::types::NodeId;
use skrin_base::{Ino, Name, OpId};
use skrin_meta::op::Place;
use skrin_meta::replica::TreeGuard;
use skrin_meta::state::{self, Entry, Inode};
use skrin_meta::{Kind, OpKind, Rows};
use std::sync::Arc;

/// What an operation says that takes a name away: the contents that it saw go, or none do, as others have names left. Should those names be
/// taken away elsewhere at the same time, this one stays: nobody meant the file to go.
pub(super) fn version_seen(inode: &Inode) -> OpId {
    match inode.kind != Kind::Dir && inode.links.len() > 1 {
        true => OpId::default(),
        false => inode.version,
    }
}

/// The operation that takes away an entry as it is seen.
fn removal(dir: Ino, name: Name, entry: &Entry, inode: &Inode) -> OpKind {
    OpKind::Remove {
        place: Place {
            dir,
            name,
            entry: entry.id,
        },
        ino: entry.ino,
        version: version_seen(inode),
    }
}

/// If the inode is about to lose its last name, what will outlive it here.
pub(super) struct Survivors {
    files: Vec<Arc<OpenFile>>,
    left: Gone,
}

impl Survivors {
    pub(super) fn of(
        files: Vec<Arc<OpenFile>>,
        rows: &dyn Rows,
        ino: Ino,
        inode: &Inode,
    ) -> Result<Option<Self>, FsError> {
        if inode.links.len() > 1 {
            return Ok(None);
        }
        let left = Gone {
            inode: inode.clone(),
            xattrs: attributes(rows, ino, inode)?,
        };
        Ok(Some(Self { files, left }))
    }

    /// The name is gone: from now on the inode lives in memory only, for those who have it open and for as long as the kernel knows it.
    pub(super) fn detach(mut self, rows: &dyn Rows, ino: Ino, fs: &Fs) -> Result<(), FsError> {
        if state::inode(rows, ino)?.is_some() {
            return Ok(());
        }
        self.left.inode.links.clear();
        self.left.inode.ctime = fs.now();
        let mut settled = Ok(());
        for file in self.files {
            // Another branch, which lives on as a conflict copy, or will when it is told.
            if fs.nodes.is_stale(file.node) {
                continue;
            }
            *file.gone.lock() = Some(self.left.clone());
            // Right behind the operation, so that they hold no log file for as long as the file stays open.
            settled = settled.and(fs.settle(&file));
        }
        self.left.inode.inline = None;
        fs.nodes.keep_removed(ino, self.left);
        settled
    }
}

impl Fs {
    /// Takes away the name of anything but a directory. Whoever has the file open keeps it.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `ReadOnly`.
    pub fn unlink(&self, dir: NodeId, name: &[u8]) -> Result<(), FsError> {
        let name = name_of(name)?;
        self.check_allowed()?;
        if let Some(place) = self.local_place(dir, &name)? {
            return self.remove_local(&place, false);
        }
        self.unlink_if(dir, name.clone(), |_, _| true)?;
        self.drop_hidden(dir, &name)
    }

    /// As `unlink`, if what has the name is what is meant; else it is not found.
    pub(crate) fn unlink_if(
        &self,
        dir: NodeId,
        name: Name,
        is_meant: impl FnOnce(Ino, &Inode) -> bool,
    ) -> Result<(), FsError> {
        self.check_writable()?;
        self.check_not_reserved(dir, &name)?;
        let dir = self.nodes.ino(dir);
        self.files.with_open(|open| {
            self.unlink_open(&mut self.replica.tree(), open, (dir, name), is_meant)
        })
    }

    /// The same for who holds the table of open files, which `open` looks into, and the tree.
    pub(crate) fn unlink_open(
        &self,
        tree: &mut TreeGuard<'_>,
        open: &OpenFiles<'_>,
        (dir, name): (Ino, Name),
        is_meant: impl FnOnce(Ino, &Inode) -> bool,
    ) -> Result<(), FsError> {
        let (dir, _) = dir_of(tree, dir)?;
        let entry = entry_of(tree, dir, &name)?;
        if entry.kind == Kind::Dir {
            return Err(FsError::IsDirectory);
        }
        let (ino, inode) = inode_of(tree, entry.ino)?;
        if !is_meant(ino, &inode) {
            return Err(FsError::NotFound);
        }
        let survivors = Survivors::of(open.of(ino), tree, ino, &inode)?;
        let removal = removal(dir, name.clone(), &entry, &inode);
        let counter = self.execute(tree, removal)?.counter;
        if survivors.is_some() {
            self.holds.file_told(ino, counter);
        }
        if !is_passing(name.as_bytes()) {
            self.holds
                .name_left(dir, &name, counter, self.clock.monotonic());
        }
        if is_lock(name.as_bytes()) {
            self.leases.forget(ino);
            self.publisher.hurry(counter);
        }
        survivors.map_or(Ok(()), |s| s.detach(tree, ino, self))
    }

    /// Takes away an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`, `ReadOnly`.
    pub fn rmdir(&self, dir: NodeId, name: &[u8]) -> Result<(), FsError> {
        let name = name_of(name)?;
        self.check_allowed()?;
        self.check_not_reserved(dir, &name)?;
        if let Some(place) = self.local_place(dir, &name)? {
            return self.remove_local(&place, true);
        }
        self.publisher.check_taken()?;
        self.rmdir_in_tree(dir, &name)?;
        self.drop_hidden(dir, &name)
    }

    /// What of the directory is on this machine alone goes with it.
    fn rmdir_in_tree(&self, dir: NodeId, name: &Name) -> Result<(), FsError> {
        let mut tree = self.replica.tree();
        let (dir, _) = dir_of(&tree, self.nodes.ino(dir))?;
        let entry = entry_of(&tree, dir, name)?;
        let (ino, inode) = dir_of(&tree, entry.ino)?;
        if !state::is_empty(&tree, ino)? {
            return Err(FsError::NotEmpty);
        }
        let survivors = Survivors::of(Vec::new(), &tree, ino, &inode)?;
        self.execute(&mut tree, removal(dir, name.clone(), &entry, &inode))?;
        self.drop_locals_in(ino);
        survivors.map_or(Ok(()), |s| s.detach(&tree, ino, self))
    }
}
