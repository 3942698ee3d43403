//! Putting a tree back to what it was. Operations only: contents are named again where they lie, no byte moves. What is
//! replaced stays in the history, so that a restore can itself be taken back.

use super::{Then, When};
use crate::content::laid_over;
use crate::core::Fs;
use crate::error::FsError;
use crate::file::attributes_to_tell;
use crate::leases::is_lock;
use crate::ops::xattr::attributes;
use crate::ops::{dir_of, inode_of, name_of};
use crate::types::{NodeId, RenameMode};
use skrin_base::limits::{BLOCK_LEN, RUNS_TOLD_MAX};
use skrin_base::{Content, Extent, Ino, KeyId, Name, OpId};
use skrin_data::DataError;
use skrin_meta::op::{NEW_KEYS_MAX, NewNode, Place};
use skrin_meta::replica::{MergeDiff, TreeGuard};
use skrin_meta::state::{self, Inode};
use skrin_meta::{Body, Kind, NamedKey, OpKind, Rows};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The kernel is told whenever so many files were changed.
const TELL_AFTER: usize = 4096;
/// Extents and keys of one operation.
const OP_EXTENTS_MAX: usize = 16 * 1024;
const OP_KEYS_MAX: usize = NEW_KEYS_MAX - RUNS_TOLD_MAX;
/// Entries of a directory read at once.
const BATCH: usize = 512;

/// What is to be put back.
#[derive(Clone, Debug)]
pub struct RestoreWish {
    /// The path from the root, name by name; empty for everything.
    pub path: Vec<Vec<u8>>,
    /// To what it was when.
    pub when: When,
    /// Whether what was not there then goes. It stays otherwise.
    pub exact: bool,
    /// A new path to put it at instead; its directory must be there.
    pub to: Option<Vec<Vec<u8>>>,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files whose contents were put back.
    pub contents: u64,
    /// Files and directories that were made again.
    pub made: u64,
    /// Files and directories of which only attributes were put back.
    pub attributes: u64,
    /// Those that were as they are.
    pub unchanged: u64,
    /// Names that were taken away.
    pub removed: u64,
    /// Names that were not there then and stay.
    pub kept: u64,
    /// What makes, or may make, the result differ from what was.
    pub doubts: Vec<String>,
}

enum Step {
    /// Puts back what `then` has as `old` at a name.
    Entry { old: Ino, dir: Ino, name: Name },
    /// A directory is done with.
    Finish { old: Ino, now: Ino, new: bool },
}

struct Work<'a> {
    fs: &'a Fs,
    then: &'a dyn Rows,
    exact: bool,
    done: Restored,
    diff: MergeDiff,
    /// The directories of then by those that stand for them.
    dirs: HashMap<Ino, Ino>,
    /// What stands for an inode of then that had several names.
    links: HashMap<Ino, Ino>,
    /// Inodes that stand for one of then.
    taken: HashSet<Ino>,
}

impl Fs {
    /// Puts the tree at a path back to what it was, or beside. Waits for the storage while it looks; what it did is in the journal
    /// when it returns.
    ///
    /// # Errors
    /// `NoSuchPoint`, `NothingThen`, `Exists` for a new path that is taken, `NotFound` for one whose directory is not there; an object
    /// of the past that cannot be had. It may be called again after an error.
    pub fn restore_path(&self, wish: &RestoreWish) -> Result<Restored, FsError> {
        self.check_writable()?;
        let path = names(&wish.path)?;
        let to = wish.to.as_deref().map(names).transpose()?;
        let Then { rows, doubts } = self.then(&wish.when)?;
        let mut work = Work {
            fs: self,
            then: &rows,
            exact: wish.exact,
            done: Restored {
                doubts,
                ..Restored::default()
            },
            diff: MergeDiff::default(),
            dirs: HashMap::new(),
            links: HashMap::new(),
            taken: HashSet::new(),
        };
        let outcome = match &to {
            None => work.in_place(&path),
            Some(to) => work.beside(&path, to),
        };
        let told = work.tell();
        let done = work.done;
        outcome.and(told)?;
        self.journal.sync_all()?;
        Ok(done)
    }
}

fn names(path: &[Vec<u8>]) -> Result<Vec<Name>, FsError> {
    path.iter().map(|name| name_of(name)).collect()
}

/// What a path leads to.
fn resolve(rows: &dyn Rows, path: &[Name]) -> Result<Option<Ino>, FsError> {
    let mut at = Ino::ROOT;
    for name in path {
        let dir = match dir_of(rows, at) {
            Err(FsError::NotFound | FsError::NotDirectory) => return Ok(None),
            dir => dir?.0,
        };
        match state::entry(rows, dir, name)? {
            Some(entry) => at = entry.ino,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

fn node_of(dir: Ino) -> NodeId {
    NodeId(dir.0)
}

/// Does what may find no room, with nothing locked, for as long as publishing makes some: what was put back halfway is a tree that never was,
/// and a link takes the time that it takes. `act` begins anew without doing anything twice.
fn with_room<T>(fs: &Fs, mut act: impl FnMut() -> Result<T, FsError>) -> Result<T, FsError> {
    loop {
        let done = fs.awaiting_room(&mut act);
        match &done {
            Err(FsError::Data(DataError::Full { .. })) if may_get_room(fs) => {}
            Err(FsError::Crowded(_)) if fs.await_room().is_ok() || may_get_room(fs) => {}
            _ => return done,
        }
    }
}

/// Whether something is being published, and meets no error.
fn may_get_room(fs: &Fs) -> bool {
    if !fs.options.background || fs.check_keeps_changes().is_err() {
        return false;
    }
    let pending = fs.pending();
    pending.last_error.is_none() && pending.operations > 0
}

impl Work<'_> {
    fn in_place(&mut self, path: &[Name]) -> Result<(), FsError> {
        let Some((last, parents)) = path.split_last() else {
            return self.run(vec![Step::Finish {
                old: Ino::ROOT,
                now: Ino::ROOT,
                new: false,
            }]);
        };
        if let Some(old) = resolve(self.then, path)? {
            let (dir, made) = self.parents(parents)?;
            let (dir, name) = (dir, last.clone());
            self.run(vec![Step::Entry { old, dir, name }])?;
            // Those that had to be made are not as they were before what they hold is.
            return made.into_iter().rev().try_for_each(|(old, now)| {
                let (_, inode) = inode_of(self.then, old)?;
                self.attributes(old, &inode, now).map(drop)
            });
        }
        // It may have had another name then.
        let (dir, now) = {
            let tree = self.fs.replica.tree();
            let dir = resolve(&tree, parents)?.ok_or(FsError::NothingThen)?;
            (dir, resolve(&tree, path)?.ok_or(FsError::NothingThen)?)
        };
        let old = match inode_of(self.then, now) {
            Err(FsError::NotFound) => return Err(FsError::NothingThen),
            old => old?.0,
        };
        let name = last.clone();
        self.run(vec![Step::Entry { old, dir, name }])
    }

    /// The directory at a path, made again as far as it is gone.
    fn parents(&mut self, path: &[Name]) -> Result<(Ino, Vec<(Ino, Ino)>), FsError> {
        let (mut old, mut now, mut made) = (Ino::ROOT, Ino::ROOT, Vec::new());
        for name in path {
            let entry = state::entry(self.then, dir_of(self.then, old)?.0, name)?;
            old = entry.ok_or(FsError::NothingThen)?.ino;
            let there = {
                let tree = self.fs.replica.tree();
                let there = state::entry(&tree, now, name)?;
                there.filter(|e| e.kind == Kind::Dir).map(|e| e.ino)
            };
            now = match there {
                Some(there) => inode_of(&self.fs.replica.tree(), there)?.0,
                None => {
                    let (_, inode) = inode_of(self.then, old)?;
                    self.clear(now, name)?;
                    let new = self.make(now, name, &inode)?;
                    made.push((old, new));
                    new
                }
            };
        }
        Ok((now, made))
    }

    fn beside(&mut self, path: &[Name], to: &[Name]) -> Result<(), FsError> {
        let old = resolve(self.then, path)?.ok_or(FsError::NothingThen)?;
        let (name, parents) = to.split_last().ok_or(FsError::Exists)?;
        let dir = {
            let tree = self.fs.replica.tree();
            let dir = resolve(&tree, parents)?.ok_or(FsError::NotFound)?;
            let (dir, _) = dir_of(&tree, dir)?;
            crate::ops::check_free(&tree, dir, name)?;
            dir
        };
        let name = name.clone();
        self.run(vec![Step::Entry { old, dir, name }])
    }

    /// Trees may be deeper than the stack of a thread.
    fn run(&mut self, mut steps: Vec<Step>) -> Result<(), FsError> {
        if let [Step::Finish { old, now, .. }] = steps[..] {
            self.push_children(old, now, &mut steps)?;
        }
        while let Some(step) = steps.pop() {
            with_room(self.fs, || self.fs.await_room())?;
            match step {
                Step::Entry { old, dir, name } => self.entry(old, dir, &name, &mut steps)?,
                Step::Finish { old, now, new } => self.finish(old, now, new)?,
            }
            if self.diff.inodes.len() + self.diff.entries.len() >= TELL_AFTER {
                self.tell()?;
            }
        }
        Ok(())
    }

    fn tell(&mut self) -> Result<(), FsError> {
        self.fs.invalidate(std::mem::take(&mut self.diff))
    }

    fn push_children(&self, old: Ino, now: Ino, steps: &mut Vec<Step>) -> Result<(), FsError> {
        each_entry(self.then, old, |name, entry| {
            let (old, dir) = (entry.ino, now);
            steps.push(Step::Entry { old, dir, name });
            Ok(())
        })
    }

    fn entry(
        &mut self,
        old: Ino,
        dir: Ino,
        name: &Name,
        steps: &mut Vec<Step>,
    ) -> Result<(), FsError> {
        // Who has a document open now was not who had it then.
        if is_lock(name.as_bytes()) {
            return Ok(());
        }
        let (old, inode) = inode_of(self.then, old)?;
        if inode.kind == Kind::File && !self.is_declared(old)? {
            let name = String::from_utf8_lossy(name.as_bytes());
            let why = "its contents of then belong to a device that never published them for good";
            self.done
                .doubts
                .push(format!("{name}: {why}; it was left as it is"));
            return Ok(());
        }
        let there = {
            let tree = self.fs.replica.tree();
            match state::entry(&tree, dir, name)? {
                Some(entry) => Some(inode_of(&tree, entry.ino)?),
                None => None,
            }
        };
        if let Some(now) = self.links.get(&old).copied() {
            return self.link_again(now, dir, name, there.map(|(ino, _)| ino));
        }
        let (now, new) = match there {
            Some((ino, there)) if self.fits((old, &inode), (ino, &there))? => (ino, false),
            there => {
                if there.is_some() {
                    self.clear(dir, name)?;
                }
                (self.make(dir, name, &inode)?, true)
            }
        };
        self.taken.insert(now);
        if inode.kind == Kind::Dir {
            self.dirs.insert(now, old);
            steps.push(Step::Finish { old, now, new });
            return self.push_children(old, now, steps);
        }
        if inode.links.len() > 1 {
            self.links.insert(old, now);
        }
        let written = inode.kind == Kind::File && self.contents(old, &inode, now)?;
        let changed = self.attributes(old, &inode, now)?;
        self.count(new, written, changed);
        Ok(())
    }

    /// Whether all segments that a file of then names may be named now. Only their author declares segments: a commit that counted in the cut and
    /// became void later may have been the only one that did.
    fn is_declared(&self, old: Ino) -> Result<bool, FsError> {
        let extents = state::extents(self.then, old, 0, u64::MAX)?;
        let tree = self.fs.replica.tree();
        let mut last = None;
        for extent in extents {
            if let Content::Stored(stored) = extent.content
                && last.replace(stored.segment) != Some(stored.segment)
                && state::segment(&tree, stored.segment)?.is_none()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn count(&mut self, new: bool, written: bool, changed: bool) {
        let field = match (new, written, changed) {
            (true, _, _) => &mut self.done.made,
            (false, true, _) => &mut self.done.contents,
            (false, false, true) => &mut self.done.attributes,
            (false, false, false) => &mut self.done.unchanged,
        };
        *field += 1;
    }

    /// Whether what is there now can become what was there then.
    fn fits(
        &self,
        (old, inode): (Ino, &Inode),
        (now, there): (Ino, &Inode),
    ) -> Result<bool, FsError> {
        let same_kind = there.kind == inode.kind
            && there.target == inode.target
            && there.rdev == inode.rdev
            && !self.taken.contains(&now);
        if !same_kind || old == now || there.kind == Kind::Dir || there.links.len() <= 1 {
            return Ok(same_kind);
        }
        // Two names of one inode that were two files then become two again.
        for link in &there.links {
            let dir = self.dirs.get(&link.dir).copied().unwrap_or(link.dir);
            let entry = state::entry(self.then, dir, &link.name)?;
            if entry.is_none_or(|entry| entry.ino != old) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn link_again(
        &mut self,
        now: Ino,
        dir: Ino,
        name: &Name,
        there: Option<Ino>,
    ) -> Result<(), FsError> {
        if there == Some(now) {
            self.done.unchanged += 1;
            return Ok(());
        }
        if there.is_some() {
            self.clear(dir, name)?;
        }
        with_room(self.fs, || {
            let place = self.fs.new_place(dir, name.clone());
            self.fs.commit(|_| Ok(OpKind::Link { ino: now, place }))
        })?;
        self.diff.entries.insert((dir, name.clone()));
        self.done.made += 1;
        Ok(())
    }

    /// Takes away what has the name. A directory with something in it stays, under another name, unless the tree is to be exactly what it was.
    fn clear(&mut self, dir: Ino, name: &Name) -> Result<(), FsError> {
        let found = state::entry(&self.fs.replica.tree(), dir, name)?;
        let Some(entry) = found else {
            return Ok(());
        };
        self.diff.entries.insert((dir, name.clone()));
        if entry.kind != Kind::Dir || self.exact {
            return self.remove(dir, name, entry.kind == Kind::Dir);
        }
        let mut n = 1;
        loop {
            let count = if n > 1 {
                format!(" {n}")
            } else {
                String::new()
            };
            let mark = format!(" (kept by restore{count})");
            let room = skrin_base::limits::NAME_MAX.saturating_sub(mark.len());
            let stem = name.as_bytes();
            let mut aside = stem.get(..room).unwrap_or(stem).to_vec();
            aside.extend_from_slice(mark.as_bytes());
            let (from, to) = (name.as_bytes(), &aside);
            let (dir_node, no) = (node_of(dir), RenameMode::NoReplace);
            match with_room(self.fs, || self.fs.rename(dir_node, from, dir_node, to, no)) {
                Err(FsError::Exists) => n += 1,
                moved => {
                    moved?;
                    // It is counted with all that is newer in its directory.
                    self.diff.entries.insert((dir, name_of(to)?));
                    return Ok(());
                }
            }
        }
    }

    fn remove(&mut self, dir: Ino, name: &Name, is_dir: bool) -> Result<(), FsError> {
        let mut steps = vec![(dir, name.clone(), is_dir, false)];
        while let Some((dir, name, is_dir, empty)) = steps.pop() {
            with_room(self.fs, || self.fs.await_room())?;
            self.diff.entries.insert((dir, name.clone()));
            let node = node_of(dir);
            if !is_dir {
                with_room(self.fs, || self.fs.unlink(node, name.as_bytes()))?;
                self.done.removed += 1;
                continue;
            }
            if empty {
                with_room(self.fs, || self.fs.rmdir(node, name.as_bytes()))?;
                self.done.removed += 1;
                continue;
            }
            let tree = self.fs.replica.tree();
            let Some(entry) = state::entry(&tree, dir, &name)? else {
                continue;
            };
            let (ino, _) = inode_of(&tree, entry.ino)?;
            steps.push((dir, name, true, true));
            each_entry(&tree, ino, |name, entry| {
                steps.push((ino, name, entry.kind == Kind::Dir, false));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn make(&mut self, dir: Ino, name: &Name, inode: &Inode) -> Result<Ino, FsError> {
        let node = NewNode {
            kind: inode.kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            target: inode.target.clone(),
        };
        let ino = with_room(self.fs, || {
            let mut tree = self.fs.replica.tree();
            let ino = self.fs.new_ino(&tree)?;
            let (place, node) = (self.fs.new_place(dir, name.clone()), node.clone());
            let kind = OpKind::Create { place, ino, node };
            self.fs.execute(&mut tree, kind)?;
            Ok(ino)
        })?;
        self.diff.entries.insert((dir, name.clone()));
        self.diff.inodes.insert(dir);
        Ok(ino)
    }

    /// Names the old contents in the file. False if it has them.
    fn contents(&mut self, old: Ino, inode: &Inode, now: Ino) -> Result<bool, FsError> {
        // Of several operations the first ones may be done when it begins anew, which names the same once more.
        let mut tries = 0;
        let (now, written) = with_room(self.fs, || {
            tries += 1;
            let mut tree = self.fs.replica.tree();
            let extents = state::extents(self.then, old, 0, u64::MAX)?;
            let written = put_contents(self.fs, &mut tree, now, extents, inode)?;
            Ok((inode_of(&tree, now)?.0, written))
        })?;
        let written = written || tries > 1;
        if written {
            self.diff.inodes.insert(now);
        }
        Ok(written)
    }

    fn finish(&mut self, old: Ino, now: Ino, new: bool) -> Result<(), FsError> {
        let (old, inode) = inode_of(self.then, old)?;
        let mut later = Vec::new();
        {
            let tree = self.fs.replica.tree();
            each_entry(&tree, now, |name, entry| {
                if !is_lock(name.as_bytes()) && state::entry(self.then, old, &name)?.is_none() {
                    later.push((name, entry.kind == Kind::Dir));
                }
                Ok(())
            })?;
        }
        for (name, is_dir) in later {
            match self.exact {
                true => self.remove(now, &name, is_dir)?,
                false => self.done.kept += 1,
            }
        }
        let changed = self.attributes(old, &inode, now)?;
        self.count(new, false, changed);
        Ok(())
    }

    /// Puts attributes back. False if they are what they were.
    fn attributes(&mut self, old: Ino, inode: &Inode, now: Ino) -> Result<bool, FsError> {
        let then = attributes(self.then, old, inode)?;
        let mut tries = 0;
        let (now, changed) = with_room(self.fs, || {
            tries += 1;
            self.put_attributes(&then, inode, now)
        })?;
        let changed = changed || tries > 1;
        if changed {
            self.diff.inodes.insert(now);
        }
        Ok(changed)
    }

    /// The inode, and whether it had others.
    fn put_attributes(
        &self,
        then: &BTreeMap<Vec<u8>, Vec<u8>>,
        inode: &Inode,
        now: Ino,
    ) -> Result<(Ino, bool), FsError> {
        let mut tree = self.fs.replica.tree();
        let (now, there) = inode_of(&tree, now)?;
        let present = attributes(&tree, now, &there)?;
        let mut ops = Vec::new();
        // What goes makes room for what comes.
        for name in present.keys().filter(|name| !then.contains_key(*name)) {
            let name = name.clone();
            ops.push(OpKind::RemoveXattr { ino: now, name });
        }
        for (name, value) in then {
            if present.get(name) != Some(value) {
                let (name, value) = (name.clone(), value.clone());
                ops.push(OpKind::SetXattr {
                    ino: now,
                    name,
                    value,
                });
            }
        }
        let set = OpKind::SetAttr {
            ino: now,
            mode: (there.mode != inode.mode).then_some(inode.mode),
            uid: (there.uid != inode.uid).then_some(inode.uid),
            gid: (there.gid != inode.gid).then_some(inode.gid),
            atime: (there.atime != inode.atime).then_some(inode.atime),
            mtime: (there.mtime != inode.mtime).then_some(inode.mtime),
        };
        let differs = (there.mode, there.uid, there.gid, there.atime, there.mtime)
            != (inode.mode, inode.uid, inode.gid, inode.atime, inode.mtime);
        ops.extend(differs.then_some(set));
        let changed = !ops.is_empty();
        for op in ops {
            self.fs.execute(&mut tree, op)?;
        }
        Ok((now, changed))
    }
}

/// Names the contents of `inode`, whose extents are given, in the file `now`. False if it has them.
pub(crate) fn put_contents(
    fs: &Fs,
    tree: &mut TreeGuard<'_>,
    now: Ino,
    extents: Vec<Extent>,
    inode: &Inode,
) -> Result<bool, FsError> {
    let (now, there) = inode_of(tree, now)?;
    let same = there.size == inode.size
        && there.inline == inode.inline
        && (there.version == inode.version || state::extents(tree, now, 0, u64::MAX)? == extents);
    if same {
        return Ok(false);
    }
    let bodies = match &inode.inline {
        Some(bytes) => vec![(Body::Inline(bytes.clone()), inode.size)],
        None => {
            // Of a version that will not be remembered, nothing may be left out.
            let below = match state::may_tell_part(tree, now, there.version)? {
                true => None,
                false => Some(state::extents(tree, now, 0, u64::MAX)?),
            };
            parts(extents, inode.size, there.size, below)
        }
    };
    let mut base = there.version;
    for (body, size) in bodies {
        base = put_part(fs, tree, (now, base), inode, body, size)?;
    }
    Ok(true)
}

fn put_part(
    fs: &Fs,
    tree: &mut TreeGuard<'_>,
    (now, base): (Ino, OpId),
    inode: &Inode,
    body: Body,
    size: u64,
) -> Result<OpId, FsError> {
    let (_, there) = inode_of(tree, now)?;
    let link = there.links.first().ok_or(FsError::NotFound)?;
    let kind = OpKind::Write {
        ino: now,
        base,
        size,
        mtime: inode.mtime,
        keys: keys_of(&body, [inode, &there]),
        body,
        place: Place {
            dir: link.dir,
            name: link.name.clone(),
            entry: link.entry,
        },
        attributes: attributes_to_tell(tree, now, &there)?,
    };
    fs.execute(tree, kind)
}

fn each_entry(
    rows: &dyn Rows,
    dir: Ino,
    mut visit: impl FnMut(Name, state::Entry) -> Result<(), FsError>,
) -> Result<(), FsError> {
    let mut after = 0;
    loop {
        let listed = state::list(rows, dir, after, BATCH)?;
        let Some(last) = listed.last().map(|l| l.cookie) else {
            return Ok(());
        };
        for one in listed {
            visit(one.name, one.entry)?;
        }
        after = last;
    }
}

fn key_of(extent: &Extent) -> Option<KeyId> {
    match extent.content {
        Content::Stored(stored) => Some(stored.key),
        Content::Hole | Content::Lost => None,
    }
}

/// The keys that an operation has to bring along.
fn keys_of(body: &Body, inodes: [&Inode; 2]) -> Vec<NamedKey> {
    let Body::Extents { list, .. } = body else {
        return Vec::new();
    };
    let named: BTreeSet<KeyId> = list.iter().filter_map(key_of).collect();
    let key = |id| inodes.iter().find_map(|inode| inode.key(id));
    named.into_iter().filter_map(key).cloned().collect()
}

/// All extents of a file as the bodies of operations, each with the length of the file behind it. Of several, each replaces
/// what is in its range, and only the last one shortens, so that the file is whole at every step. The first one names what is `below` it, too.
fn parts(
    extents: Vec<Extent>,
    size: u64,
    there: u64,
    mut below: Option<Vec<Extent>>,
) -> Vec<(Body, u64)> {
    let mut lists: Vec<Vec<Extent>> = vec![Vec::new()];
    let mut keys = BTreeSet::new();
    for extent in extents {
        let key = key_of(&extent).filter(|key| !keys.contains(key));
        let is_full = lists.last().is_some_and(|l| l.len() >= OP_EXTENTS_MAX);
        if is_full || (key.is_some() && keys.len() >= OP_KEYS_MAX) {
            lists.push(Vec::new());
            keys.clear();
        }
        keys.extend(key_of(&extent));
        if let Some(list) = lists.last_mut() {
            list.push(extent);
        }
    }
    let full = lists.len() == 1;
    let count = lists.len();
    let body = |(at, list): (usize, Vec<Extent>)| {
        let end = list.last().map_or(0, Extent::end);
        let end = end.saturating_mul(BLOCK_LEN as u64);
        let size = match at + 1 == count {
            true => size,
            false => there.max(end),
        };
        match below.take().filter(|_| !full) {
            Some(below) => {
                let list = laid_over(below, &list, size.div_ceil(BLOCK_LEN as u64));
                (Body::Extents { full: true, list }, size)
            }
            None => (Body::Extents { full, list }, size),
        }
    };
    lists.into_iter().enumerate().map(body).collect()
}
