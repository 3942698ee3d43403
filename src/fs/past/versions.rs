//! The versions of a file: what was done to it, under all of its names, and to what had its name before.

use crate::core::Fs;
use crate::error::FsError;
use crate::ops::{dir_of, name_of};
use skrin_base::{Ino, Name, OpId, Timestamp};
use skrin_meta::{Kind, Op, OpKind, Outcome, state};
use std::collections::BTreeSet;

/// What happened to a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It was made under this name.
    Made(Vec<u8>),
    /// It has new contents.
    Written,
    /// It has other attributes.
    Attributes,
    /// It has this name too.
    Linked(Vec<u8>),
    /// This name of it is gone.
    Removed(Vec<u8>),
    /// It has another name.
    Renamed {
        /// Before.
        from: Vec<u8>,
        /// Now.
        to: Vec<u8>,
    },
    /// Another file took its name.
    Replaced(Vec<u8>),
}

/// One change of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// Names the point right behind it.
    pub id: OpId,
    /// When it was done, by the clock of the device that did it.
    pub time: Timestamp,
    /// From when on it is in the tree of a point of time: when it was published.
    pub published: Timestamp,
    /// What people call that device.
    pub device: String,
    /// What happened.
    pub change: Change,
    /// Length in bytes afterwards, as long as there is one.
    pub size: Option<u64>,
    /// The name of the copy, if the change conflicted with another one.
    pub conflict: Option<Vec<u8>>,
}

/// Whose versions are wanted.
struct Wanted {
    /// The place that the path names: directory and name.
    place: Option<(Ino, Name)>,
    /// What was ever found there.
    inodes: BTreeSet<Ino>,
    /// A directory whose children count too.
    dir: Option<Ino>,
}

impl Fs {
    /// What was done to the file or directory at a path, the oldest first. The path may name what was removed. Waits for the storage.
    ///
    /// # Errors
    /// `NothingThen` if there never was such a thing; a commit that cannot be had.
    pub fn versions(&self, path: &[Vec<u8>]) -> Result<Vec<Version>, FsError> {
        let history = self.history()?;
        let mut wanted = self.versions_wanted(path)?;
        if let Some((dir, name)) = &wanted.place {
            let inodes = &mut wanted.inodes;
            history.walk(|_, _, _, rows| {
                inodes.extend(state::entry(rows, *dir, name)?.map(|entry| entry.ino));
                Ok::<_, FsError>(())
            })?;
        }
        let mut versions = Vec::new();
        history.walk(|past, op, outcome, rows| {
            if matches!(outcome, Outcome::Void(_) | Outcome::Duplicate) {
                return Ok(());
            }
            for (ino, change) in wanted.changes(op) {
                let inode = state::inode(rows, ino)?.filter(|i| i.kind == Kind::File);
                versions.push(Version {
                    id: op.id,
                    time: op.time,
                    published: past.time,
                    device: self.device_name(rows, op.id)?,
                    change,
                    size: inode.map(|inode| inode.size),
                    conflict: match outcome {
                        Outcome::ConflictCopy { name, .. } => Some(name.as_bytes().to_vec()),
                        _ => None,
                    },
                });
            }
            Ok::<_, FsError>(())
        })?;
        match versions.is_empty() && wanted.place.is_some() {
            true => Err(FsError::NothingThen),
            false => Ok(versions),
        }
    }

    fn versions_wanted(&self, path: &[Vec<u8>]) -> Result<Wanted, FsError> {
        let Some((last, parents)) = path.split_last() else {
            return Ok(Wanted {
                place: None,
                inodes: [Ino::ROOT].into(),
                dir: Some(Ino::ROOT),
            });
        };
        let tree = self.replica.tree();
        let mut dir = Ino::ROOT;
        for name in parents {
            let name = name_of(name)?;
            dir = match state::entry(&tree, dir, &name)? {
                Some(entry) => dir_of(&tree, entry.ino)?.0,
                None => {
                    let gone = state::removed_dir_at(&tree, dir, &name)?;
                    gone.ok_or(FsError::NothingThen)?
                }
            };
        }
        let name = name_of(last)?;
        let here = state::entry(&tree, dir, &name)?.filter(|entry| entry.kind == Kind::Dir);
        Ok(Wanted {
            place: Some((dir, name)),
            inodes: BTreeSet::new(),
            dir: here.map(|entry| entry.ino),
        })
    }
}

impl Wanted {
    fn is(&self, ino: Ino, dir: Ino) -> bool {
        self.inodes.contains(&ino) || self.dir == Some(dir)
    }

    /// What an operation does to what is wanted.
    fn changes(&self, op: &Op) -> Vec<(Ino, Change)> {
        let bytes = |name: &Name| name.as_bytes().to_vec();
        match &op.kind {
            OpKind::Create { place, ino, .. } if self.is(*ino, place.dir) => {
                vec![(*ino, Change::Made(bytes(&place.name)))]
            }
            OpKind::Link { ino, place } if self.is(*ino, place.dir) => {
                vec![(*ino, Change::Linked(bytes(&place.name)))]
            }
            OpKind::Remove { ino, place, .. } if self.is(*ino, place.dir) => {
                vec![(*ino, Change::Removed(bytes(&place.name)))]
            }
            OpKind::Write { ino, .. } if self.inodes.contains(ino) => {
                vec![(*ino, Change::Written)]
            }
            // The kernel tells the time of what it wrote behind each write: no change of its own.
            OpKind::SetAttr {
                mode: None,
                uid: None,
                gid: None,
                ..
            } => Vec::new(),
            OpKind::SetAttr { ino, .. }
            | OpKind::SetXattr { ino, .. }
            | OpKind::RemoveXattr { ino, .. }
                if self.inodes.contains(ino) =>
            {
                vec![(*ino, Change::Attributes)]
            }
            OpKind::Rename {
                ino,
                from,
                to_dir,
                to_name,
                replaces,
            } => {
                let replaced = replaces.iter().filter(|r| self.is(r.ino, *to_dir));
                let replaced = replaced.map(|r| (r.ino, Change::Replaced(bytes(to_name))));
                let moved = self.is(*ino, from.dir) || self.is(*ino, *to_dir);
                let moved = moved.then(|| {
                    let (from, to) = (bytes(&from.name), bytes(to_name));
                    (*ino, Change::Renamed { from, to })
                });
                replaced.chain(moved).collect()
            }
            OpKind::Exchange { ino, a, other, b } => {
                let moves = [(ino, a, b), (other, b, a)].into_iter();
                let moves = moves
                    .filter(|(ino, from, to)| self.is(**ino, from.dir) || self.is(**ino, to.dir));
                let renamed = moves.map(|(ino, from, to)| {
                    let (from, to) = (bytes(&from.name), bytes(&to.name));
                    (*ino, Change::Renamed { from, to })
                });
                renamed.collect()
            }
            _ => Vec::new(),
        }
    }
}
