//! Conflict copies: which there are (docs/format/operations.md, the rows `C`), and choosing between one and its document.

use crate::core::Fs;
use crate::error::FsError;
use crate::file::OpenFiles;
use crate::ops::{check_free, dir_of, entry_of, inode_of, name_of};
use crate::past::put_contents;
use crate::pin::path_of;
use crate::types::RenameMode;
use skrin_base::{EntryId, Ino, Name, OpId, Timestamp};
use skrin_meta::replica::{MergeDiff, TreeGuard};
use skrin_meta::state::{self, Cause, ConflictCopy, Inode, Link};
use skrin_meta::{Kind, Rows};
use std::sync::atomic::Ordering;

/// A path from the root, name by name.
type Path = Vec<Vec<u8>>;

/// One of the two between which somebody has to choose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Side {
    /// Where it is.
    pub path: Path,
    /// What it is.
    pub kind: Kind,
    /// Length in bytes.
    pub size: u64,
    /// When its contents were changed last.
    pub mtime: Timestamp,
    /// The operation that made its contents.
    pub version: OpId,
    /// What people call the device that did that.
    pub device: String,
}

/// A conflict copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The copy.
    pub copy: Side,
    /// The name that it was to have.
    pub of: Vec<u8>,
    /// What has that name now; else what had it then, wherever it is now. `None` if that is gone as well.
    pub document: Option<Side>,
    /// How it came to be.
    pub cause: Cause,
    /// The operation that did not get the name.
    pub op: OpId,
    /// When that was done, by the clock of its device.
    pub time: Timestamp,
    /// What people call that device.
    pub device: String,
}

/// What came of a choice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Where the document is.
    pub document: Path,
    /// The copy that it has its contents from; `None` if it kept its own.
    pub from: Option<Path>,
    /// Copies that are gone.
    pub gone: Vec<Path>,
    /// How many other copies of the document there still are.
    pub left: u64,
}

/// An inode at one of its places.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Placed {
    ino: Ino,
    inode: Inode,
    link: Link,
}

/// A copy with what it is a copy of.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pair {
    copy: Placed,
    of: ConflictCopy,
    document: Option<Placed>,
}

impl Pair {
    fn find(
        rows: &dyn Rows,
        ino: Ino,
        entry: EntryId,
        of: ConflictCopy,
    ) -> Result<Option<Self>, FsError> {
        let Some(inode) = state::inode(rows, ino)? else {
            return Ok(None);
        };
        let Some(link) = inode.links.iter().find(|l| l.entry == entry).cloned() else {
            return Ok(None);
        };
        let document = document(rows, &of)?.filter(|d| d.link != link);
        let copy = Placed { ino, inode, link };
        Ok(Some(Self { copy, of, document }))
    }

    fn all(rows: &dyn Rows) -> Result<Vec<Self>, FsError> {
        let mut found = Vec::new();
        state::for_each_conflict_copy(rows, |ino, entry, copy| {
            found.push((ino, entry, copy));
            Ok(())
        })?;
        let pairs = found.into_iter();
        let pairs = pairs.map(|(ino, entry, copy)| Self::find(rows, ino, entry, copy));
        pairs.filter_map(Result::transpose).collect()
    }

    fn places(&self) -> impl Iterator<Item = &Placed> {
        [&self.copy].into_iter().chain(&self.document)
    }

    fn is_of(&self, place: &Link) -> bool {
        self.document.as_ref().is_some_and(|d| d.link == *place)
    }
}

/// What has the name that the copy was to have; else what had it, where it is now.
fn document(rows: &dyn Rows, of: &ConflictCopy) -> Result<Option<Placed>, FsError> {
    let dir = state::resolve_alias(rows, of.dir)?;
    if let Some(entry) = state::entry(rows, dir, &of.name)? {
        let (ino, inode) = inode_of(rows, entry.ino)?;
        let (name, entry) = (of.name.clone(), entry.id);
        let link = Link { dir, name, entry };
        return Ok(Some(Placed { ino, inode, link }));
    }
    let other = state::inode(rows, of.other)?;
    let link = other.as_ref().and_then(|other| other.links.first());
    Ok(link.cloned().zip(other).map(|(link, inode)| Placed {
        ino: of.other,
        inode,
        link,
    }))
}

fn path_at(rows: &dyn Rows, link: &Link) -> Result<Path, FsError> {
    let names = path_of(rows, link.dir)?.ok_or(FsError::NotFound)?;
    let names = names.iter().chain([&link.name]);
    Ok(names.map(|name| name.as_bytes().to_vec()).collect())
}

/// Refuses to change what somebody writes. What was closed was told before.
fn check_closed(fs: &Fs, pair: &Pair, open: &OpenFiles<'_>) -> Result<(), FsError> {
    const IN_USE: FsError = FsError::InUse("it is open for writing");
    // Who had the document open when it was forked still writes to the copy.
    let inodes = pair.places().map(|placed| placed.ino);
    for file in inodes.chain([pair.of.other]).flat_map(|ino| open.of(ino)) {
        let busy = || file.state.lock().content.is_modified() && file.gone.lock().is_none();
        if file.writers.load(Ordering::Acquire) > 0 || busy() {
            return Err(IN_USE);
        }
    }
    // So does who had another copy open, of which this is one.
    for file in open.written() {
        let state = file.state.lock();
        let lives = state::fork_of(&fs.replica.tree(), state.base)?;
        if pair.places().any(|placed| Some(placed.ino) == lives) {
            return Err(IN_USE);
        }
    }
    Ok(())
}

/// Refuses to choose between other things than were looked at, or while an office suite shows one of them to somebody, wherever he is.
fn check_unchanged(rows: &dyn Rows, pair: &Pair) -> Result<(), FsError> {
    for placed in pair.places() {
        let inode = state::inode(rows, placed.ino)?;
        let is_same = |inode: &Inode| {
            let link = &placed.link;
            let mut links = inode.links.iter();
            let is_there =
                links.any(|l| (l.dir, &l.name, l.entry) == (link.dir, &link.name, link.entry));
            is_there && inode.version == placed.inode.version
        };
        if !inode.as_ref().is_some_and(is_same) {
            return Err(FsError::ChangedMeanwhile);
        }
        for lock in locks_of(&placed.link.name) {
            if state::entry(rows, placed.link.dir, &lock)?.is_some() {
                return Err(FsError::InUse(
                    "a lock file beside it says that it is open in an office suite",
                ));
            }
        }
    }
    Ok(())
}

/// Lock files that office suites make beside a document of this name.
fn locks_of(name: &Name) -> Vec<Name> {
    let name = name.as_bytes();
    let short = name.get(2..).unwrap_or_default();
    let locks = [
        [b".~lock.", name, b"#"].concat(),
        [b"~$", name].concat(),
        [b"~$", short].concat(),
    ];
    locks.iter().filter_map(|lock| name_of(lock).ok()).collect()
}

impl Fs {
    /// How many conflict copies there are. Looks at nothing but these.
    ///
    /// # Errors
    /// Those of the local cache.
    pub fn conflict_count(&self) -> Result<u64, FsError> {
        let mut count = 0;
        state::for_each_conflict_copy(&self.replica.tree(), |_, _, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// The conflict copies at a path and below it, by their paths; the empty path stands for everything. Of a document, its copies.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn conflicts(&self, below: &[Vec<u8>]) -> Result<Vec<Conflict>, FsError> {
        let tree = self.replica.tree();
        if !below.is_empty() {
            self.place_of(&tree, below)?;
        }
        let mut all = Vec::new();
        for pair in Pair::all(&tree)? {
            let Some(copy) = self.side(&tree, &pair.copy)? else {
                tracing::warn!(
                    ino = pair.copy.ino.0,
                    "a conflict copy lies too deep to be listed"
                );
                continue;
            };
            let document = pair.document.as_ref();
            let document = document.map(|d| self.side(&tree, d)).transpose()?.flatten();
            let document_is = document.iter().any(|d| d.path.starts_with(below));
            if !document_is && !copy.path.starts_with(below) {
                continue;
            }
            all.push(Conflict {
                copy,
                of: pair.of.name.as_bytes().to_vec(),
                document,
                cause: pair.of.cause,
                op: pair.of.op,
                time: pair.of.time,
                device: self.device_name(&tree, pair.of.op)?,
            });
        }
        all.sort_by(|a, b| a.copy.path.cmp(&b.copy.path));
        Ok(all)
    }

    /// `None` if it lies so deep that it has no path.
    fn side(&self, rows: &dyn Rows, placed: &Placed) -> Result<Option<Side>, FsError> {
        let inode = &placed.inode;
        let path = match path_at(rows, &placed.link) {
            Err(FsError::NotFound) => return Ok(None),
            path => path?,
        };
        Ok(Some(Side {
            path,
            kind: inode.kind,
            size: inode.size,
            mtime: inode.mtime,
            version: inode.version,
            device: self.device_name(rows, inode.version)?,
        }))
    }

    fn place_of(&self, rows: &dyn Rows, path: &[Vec<u8>]) -> Result<Link, FsError> {
        let (last, parents) = path.split_last().ok_or(FsError::NoConflict)?;
        let mut dir = Ino::ROOT;
        for name in parents {
            let entry = entry_of(rows, dir, &name_of(name)?)?;
            dir = dir_of(rows, entry.ino)?.0;
        }
        let name = name_of(last)?;
        let entry = entry_of(rows, dir, &name)?.id;
        Ok(Link { dir, name, entry })
    }

    /// What somebody has to choose between who chooses this path: a copy with its document, or a document with all its copies.
    fn choice(&self, path: &[Vec<u8>]) -> Result<Vec<Pair>, FsError> {
        let tree = self.replica.tree();
        let place = self.place_of(&tree, path)?;
        let pairs = Pair::all(&tree)?;
        let copy = pairs.iter().find(|pair| pair.copy.link == place);
        match copy {
            Some(copy) => Ok(vec![copy.clone()]),
            None => Ok(pairs.into_iter().filter(|p| p.is_of(&place)).collect()),
        }
    }

    /// Keeps what is at a path, which is a conflict copy or a document that has some. The contents of a copy become those of the document,
    /// and the copy goes; of a document all copies go. What goes stays in the history. Changes of other devices are looked for first,
    /// if the storage answers; it is in the journal when this returns.
    ///
    /// # Errors
    /// `NotFound`; `NoConflict`; `InUse` if one of them is open for writing; `ChangedMeanwhile` if another device had changed one of them;
    /// `IsDirectory` where that would take a directory away; `ReadOnly`.
    pub fn keep(&self, path: &[Vec<u8>]) -> Result<Kept, FsError> {
        self.check_writable()?;
        self.await_room()?;
        self.flush_all()?;
        let seen = self.choice(path)?;
        self.look_again();
        match self.choice(path) {
            Ok(now) if now == seen => {}
            Ok(_) | Err(FsError::NotFound) => return Err(FsError::ChangedMeanwhile),
            Err(error) => return Err(error),
        }
        let done = match &seen[..] {
            [] => return Err(FsError::NoConflict),
            [pair] if self.place_of(&self.replica.tree(), path)? == pair.copy.link => {
                self.keep_copy(pair)
            }
            pairs => self.keep_document(pairs),
        };
        let kept = done?;
        self.journal.sync_all()?;
        Ok(kept)
    }

    fn keep_copy(&self, pair: &Pair) -> Result<Kept, FsError> {
        let from = path_at(&self.replica.tree(), &pair.copy.link)?;
        let document = match &pair.document {
            Some(document) if document.ino == pair.copy.ino => {
                self.take(pair, None)?;
                document.link.clone()
            }
            Some(document)
                if (pair.copy.inode.kind, document.inode.kind) == (Kind::File, Kind::File) =>
            {
                self.take(pair, Some(document))?;
                document.link.clone()
            }
            document => self.take_name(pair, document.as_ref())?,
        };
        let tree = self.replica.tree();
        let left = Pair::all(&tree)?;
        let left = left.iter().filter(|other| other.is_of(&document)).count() as u64;
        Ok(Kept {
            document: path_at(&tree, &document)?,
            from: Some(from.clone()),
            gone: vec![from],
            left,
        })
    }

    /// All copies go, or none where one of them may not.
    fn keep_document(&self, pairs: &[Pair]) -> Result<Kept, FsError> {
        let document = pairs.iter().find_map(|pair| pair.document.as_ref());
        let document = document.ok_or(FsError::NoConflict)?;
        if pairs.iter().any(|pair| pair.copy.inode.kind == Kind::Dir) {
            return Err(FsError::IsDirectory);
        }
        let (path, gone) = self.files.with_open(|open| {
            for pair in pairs {
                check_closed(self, pair, open)?;
            }
            let mut tree = self.replica.tree();
            for pair in pairs {
                check_unchanged(&tree, pair)?;
            }
            let gone = pairs.iter().map(|pair| path_at(&tree, &pair.copy.link));
            let gone = gone.collect::<Result<Vec<_>, FsError>>()?;
            let path = path_at(&tree, &document.link)?;
            for pair in pairs {
                self.take_away(&mut tree, open, &pair.copy)?;
            }
            Ok::<_, FsError>((path, gone))
        })?;
        for pair in pairs {
            self.tell_chosen(pair)?;
        }
        Ok(Kept {
            document: path,
            from: None,
            gone,
            left: 0,
        })
    }

    fn take_away(
        &self,
        tree: &mut TreeGuard<'_>,
        open: &OpenFiles<'_>,
        copy: &Placed,
    ) -> Result<(), FsError> {
        let place = (copy.link.dir, copy.link.name.clone());
        self.unlink_open(tree, open, place, |ino, _| ino == copy.ino)
    }

    /// Takes the copy away, after its contents became those of the document, if that is asked for: its blocks are named there, and no byte moves.
    fn take(&self, pair: &Pair, contents: Option<&Placed>) -> Result<(), FsError> {
        let Pair { copy, .. } = pair;
        self.files.with_open(|open| {
            check_closed(self, pair, open)?;
            let mut tree = self.replica.tree();
            check_unchanged(&tree, pair)?;
            if let Some(document) = contents {
                let extents = state::extents(&tree, copy.ino, 0, u64::MAX)?;
                put_contents(self, &mut tree, document.ino, extents, &copy.inode)?;
            }
            self.take_away(&mut tree, open, copy)
        })?;
        self.tell_chosen(pair)
    }

    /// What is no file, or has no document any more, gets the name. Its new place.
    fn take_name(&self, pair: &Pair, document: Option<&Placed>) -> Result<Link, FsError> {
        let from = &pair.copy.link;
        let is_dir = |placed: &Placed| placed.inode.kind == Kind::Dir;
        if document.is_some_and(|d| is_dir(d) || is_dir(&pair.copy)) {
            return Err(FsError::IsDirectory);
        }
        // Looked at and done in one: nobody can save in between.
        let target = self.files.with_open(|open| {
            check_closed(self, pair, open)?;
            let mut tree = self.replica.tree();
            check_unchanged(&tree, pair)?;
            let (target, mode) = match document {
                Some(document) => (document.link.clone(), RenameMode::Replace),
                None => {
                    // Where the directory is gone, beside the copy; that is the same one else.
                    let dir = state::resolve_alias(&tree, pair.of.dir)?;
                    let dir = dir_of(&tree, dir).map_or(from.dir, |(dir, _)| dir);
                    check_free(&tree, dir, &pair.of.name)?;
                    let (name, entry) = (pair.of.name.clone(), from.entry);
                    (Link { dir, name, entry }, RenameMode::NoReplace)
                }
            };
            let old = (from.dir, from.name.clone());
            let new = (target.dir, target.name.clone());
            self.rename_open(&mut tree, open, old, new, mode)?;
            Ok::<_, FsError>(target)
        })?;
        self.tell_chosen(pair)?;
        Ok(Link {
            entry: from.entry,
            ..target
        })
    }

    /// The kernel was not asked for any of this.
    fn tell_chosen(&self, pair: &Pair) -> Result<(), FsError> {
        let places = pair.places().map(|p| (p.link.dir, p.link.name.clone()));
        let wanted = (pair.of.dir, pair.of.name.clone());
        self.invalidate(MergeDiff {
            inodes: pair.places().map(|p| p.ino).collect(),
            entries: places.chain([wanted]).collect(),
            ..MergeDiff::default()
        })
    }
}
