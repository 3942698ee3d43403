use super::remove::{Survivors, version_seen};
use super::{dir_of, entry_of, inode_of, name_of};
use crate::core::Fs;
use crate::error::FsError;
use crate::file::OpenFiles;
use crate::hold::is_passing;
use crate::types::{NodeId, RenameMode};
use skrin_base::{Ino, Name};
use skrin_meta::op::{Place, Seen};
use skrin_meta::replica::TreeGuard;
use skrin_meta::state::{self, Entry, Inode};
use skrin_meta::{Kind, OpKind, Rows};

/// A name in a directory, with what it names.
struct Found {
    dir: Ino,
    name: Name,
    entry: Entry,
    inode: Inode,
}

impl Found {
    fn find(rows: &dyn Rows, dir: Ino, name: &Name) -> Result<Option<Self>, FsError> {
        let Some(entry) = state::entry(rows, dir, name)? else {
            return Ok(None);
        };
        let (_, inode) = inode_of(rows, entry.ino)?;
        Ok(Some(Self {
            dir,
            name: name.clone(),
            entry,
            inode,
        }))
    }

    fn place(&self) -> Place {
        Place {
            dir: self.dir,
            name: self.name.clone(),
            entry: self.entry.id,
        }
    }

    fn is_dir(&self) -> bool {
        self.inode.kind == Kind::Dir
    }
}

/// Refuses to move a directory below itself.
fn check_no_cycle(rows: &dyn Rows, moved: &Found, to: Ino) -> Result<(), FsError> {
    let mut at = to;
    while moved.is_dir() && at != Ino::ROOT {
        if at == moved.entry.ino {
            return Err(FsError::MoveBelowItself);
        }
        let (_, dir) = inode_of(rows, at)?;
        at = dir.parent();
    }
    Ok(())
}

/// Refuses to replace what must not be.
fn check_replace(rows: &dyn Rows, moved: &Found, there: &Found) -> Result<(), FsError> {
    match (moved.is_dir(), there.is_dir()) {
        (true, false) => Err(FsError::NotDirectory),
        (false, true) => Err(FsError::IsDirectory),
        (true, true) if !state::is_empty(rows, there.entry.ino)? => Err(FsError::NotEmpty),
        _ => Ok(()),
    }
}

fn exchange(rows: &dyn Rows, a: &Found, b: &Found) -> Result<OpKind, FsError> {
    check_no_cycle(rows, a, b.dir)?;
    check_no_cycle(rows, b, a.dir)?;
    Ok(OpKind::Exchange {
        ino: a.entry.ino,
        a: a.place(),
        other: b.entry.ino,
        b: b.place(),
    })
}

fn movement(moved: &Found, to_dir: Ino, to_name: &Name, there: Option<&Found>) -> OpKind {
    OpKind::Rename {
        ino: moved.entry.ino,
        from: moved.place(),
        to_dir,
        to_name: to_name.clone(),
        replaces: there.map(|t| Seen {
            entry: t.entry.id,
            ino: t.entry.ino,
            version: version_seen(&t.inode),
        }),
    }
}

impl Fs {
    /// Moves an entry, atomically replacing what has the new name, or exchanges two.
    ///
    /// # Errors
    /// `NotFound`, `Exists`, `NotEmpty`, `NotDirectory`, `IsDirectory`, `MoveBelowItself`, `OtherDevice`, `ReadOnly`.
    pub fn rename(
        &self,
        dir: NodeId,
        name: &[u8],
        to_dir: NodeId,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let (name, to_name) = (name_of(name)?, name_of(to_name)?);
        self.check_allowed()?;
        self.check_not_reserved(dir, &name)?;
        self.check_not_reserved(to_dir, &to_name)?;
        let from = self.local_place(dir, &name)?;
        let to = self.local_place(to_dir, &to_name)?;
        if let Some(from) = &from {
            return self.rename_local(from, to.as_ref(), mode);
        }
        self.publisher.check_taken()?;
        if let Some(to) = &to {
            self.check_move_onto(dir, &name, to, mode)?;
        }
        self.flush_before_rename(dir, &name)?;
        if mode == RenameMode::Exchange {
            self.flush_before_rename(to_dir, &to_name)?;
        }
        self.awaiting_room(|| {
            let from = (self.nodes.ino(dir), name.clone());
            let into = (self.nodes.ino(to_dir), to_name.clone());
            self.files.with_open(|open| {
                let mut tree = self.replica.tree();
                self.rename_open(&mut tree, open, from, into, mode)
            })
        })?;
        if let Some(to) = &to {
            self.drop_local(to);
        }
        self.drop_hidden(dir, &name)
    }

    /// The same for who holds the table of open files and the tree, and has told the tree what is moved.
    pub(crate) fn rename_open(
        &self,
        tree: &mut TreeGuard<'_>,
        open: &OpenFiles<'_>,
        (dir, name): (Ino, Name),
        (to_dir, to_name): (Ino, Name),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let (dir, _) = dir_of(tree, dir)?;
        let (to_dir, _) = dir_of(tree, to_dir)?;
        let moved = Found::find(tree, dir, &name)?.ok_or(FsError::NotFound)?;
        let there = Found::find(tree, to_dir, &to_name)?;
        let there = match (there, mode) {
            (Some(there), RenameMode::Exchange) => {
                let op = exchange(tree, &moved, &there)?;
                self.leases.forget(moved.entry.ino);
                self.leases.forget(there.entry.ino);
                return self.execute(tree, op).map(drop);
            }
            (None, RenameMode::Exchange) => return Err(FsError::NotFound),
            (Some(_), RenameMode::NoReplace) => return Err(FsError::Exists),
            // Two names of one inode: nothing happens, says POSIX.
            (Some(there), _) if there.entry.ino == moved.entry.ino => return Ok(()),
            (there, _) => there,
        };
        check_no_cycle(tree, &moved, to_dir)?;
        if let Some(there) = &there {
            check_replace(tree, &moved, there)?;
        }
        let replaced = there.as_ref().map(|t| t.entry.ino);
        let survivors = match &there {
            Some(t) => Survivors::of(open.of(t.entry.ino), tree, t.entry.ino, &t.inode)?,
            None => None,
        };
        let movement = movement(&moved, to_dir, &to_name, there.as_ref());
        let counter = self.execute(tree, movement)?.counter;
        self.holds.name_taken(to_dir, &to_name, counter);
        if !moved.is_dir() && !is_passing(name.as_bytes()) {
            self.holds
                .name_left(dir, &name, counter, self.clock.monotonic());
        }
        self.leases.forget(moved.entry.ino);
        if let Some(ino) = replaced.filter(|_| survivors.is_some()) {
            self.holds.file_told(ino, counter);
            self.leases.forget(ino);
            self.drop_locals_in(ino);
        }
        match (survivors, replaced) {
            (Some(s), Some(ino)) => s.detach(tree, ino, self),
            _ => Ok(()),
        }
    }

    /// A file that is renamed while changes of it are only in memory is told to the tree first: otherwise a crash could leave the new
    /// name with the old, empty contents, and the replaced file gone.
    fn flush_before_rename(&self, dir: NodeId, name: &Name) -> Result<(), FsError> {
        let ino = {
            let tree = self.replica.tree();
            let (dir, _) = dir_of(&tree, self.nodes.ino(dir))?;
            entry_of(&tree, dir, name)?.ino
        };
        self.flush_renamed(ino)
    }

    /// The tree is told what a file holds that gets another name.
    pub(super) fn flush_renamed(&self, ino: Ino) -> Result<(), FsError> {
        match self.files.get(self.nodes.current(ino)) {
            Some(file) => {
                // It may get more than has been written so far.
                file.state.lock().content.keep_no_more();
                self.flush_and_discard(&file)
            }
            None => Ok(()),
        }
    }
}
