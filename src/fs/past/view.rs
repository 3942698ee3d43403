//! `.snapshots/NAME/` in the root: the tree as it was, to be read only. It is listed nowhere; a real entry of that name is shown instead.
//!
//! Nodes have numbers of their own, from `NodeId::FIRST_PAST` on, which are their inode numbers too. The rows of a snapshot are folded when they
//! are looked at first, and those of a few snapshots are held in memory.

use crate::content::Content;
use crate::core::Fs;
use crate::error::FsError;
use crate::file::{FileState, OpenFile};
use crate::ops::readdir::{CURRENT_COOKIE, PARENT_COOKIE};
use crate::ops::xattr::{attributes, shown};
use crate::ops::{entry_of, inode_of, name_of};
use crate::types::{Attr, DirEntry, HandleId, NodeId, OpenMode};
use parking_lot::Mutex;
use skrin_base::{Ino, Name, OpId};
use skrin_meta::state::{self, Inode};
use skrin_meta::{Kind, MemoryRows};
use std::collections::HashMap;
use std::sync::Arc;

/// The name in the root.
pub(crate) const NAME: &[u8] = b".snapshots";
/// Snapshots whose rows are held at once.
const HELD_MAX: usize = 2;

/// What a node of the past stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum At {
    /// The directory of snapshots.
    All,
    /// An inode of one of them.
    In(OpId, Ino),
}

impl At {
    /// The number that it has unless another one has it.
    fn number(self) -> u64 {
        let Self::In(op, ino) = self else {
            return NodeId::FIRST_PAST;
        };
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(op.device.as_bytes())
            .update(&op.counter.to_be_bytes())
            .update(&ino.0.to_be_bytes());
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        NodeId::FIRST_PAST | u64::from_be_bytes(first)
    }
}

#[derive(Default)]
struct Table {
    known: HashMap<NodeId, (At, u64)>,
    /// Of the snapshots that were looked at last, the latest first.
    held: Vec<(OpId, Arc<MemoryRows>)>,
}

/// Which snapshots are looked at.
#[derive(Default)]
pub(crate) struct Views {
    table: Mutex<Table>,
    /// One is folded at a time.
    folding: Mutex<()>,
}

impl Views {
    fn at(&self, node: NodeId) -> Result<At, FsError> {
        if node.0 == NodeId::FIRST_PAST {
            return Ok(At::All);
        }
        let table = self.table.lock();
        table.known.get(&node).map(|k| k.0).ok_or(FsError::Stale)
    }

    fn node(&self, at: At) -> NodeId {
        let mut table = self.table.lock();
        let mut number = at.number();
        loop {
            let node = NodeId(number | NodeId::FIRST_PAST);
            let known = table.known.entry(node).or_insert((at, 0));
            if known.0 == at {
                return node;
            }
            number = number.wrapping_add(1);
        }
    }

    pub(crate) fn looked_up(&self, node: NodeId) {
        if let Some((_, count)) = self.table.lock().known.get_mut(&node) {
            *count += 1;
        }
    }

    pub(crate) fn forget(&self, node: NodeId, count: u64) {
        let mut table = self.table.lock();
        if let Some((_, known)) = table.known.get_mut(&node) {
            *known = known.saturating_sub(count);
            if *known == 0 {
                table.known.remove(&node);
            }
        }
    }

    fn held(&self, op: OpId) -> Option<Arc<MemoryRows>> {
        let mut table = self.table.lock();
        let at = table.held.iter().position(|(held, _)| *held == op)?;
        let found = table.held.remove(at);
        let rows = found.1.clone();
        table.held.insert(0, found);
        Some(rows)
    }

    fn hold(&self, op: OpId, rows: &Arc<MemoryRows>) {
        let mut table = self.table.lock();
        table.held.insert(0, (op, rows.clone()));
        table.held.truncate(HELD_MAX);
    }
}

/// An inode of a snapshot, with the rows around it.
struct Seen {
    op: OpId,
    rows: Arc<MemoryRows>,
    ino: Ino,
    inode: Inode,
}

impl Fs {
    /// Refuses to change what was.
    pub(crate) fn check_present(&self, node: NodeId) -> Result<(), FsError> {
        match node.is_past() {
            true => Err(FsError::ReadOnly),
            false => Ok(()),
        }
    }

    /// Refuses to change what has this name in this directory, where it is the directory of snapshots or would hide it.
    pub(crate) fn check_not_reserved(&self, dir: NodeId, name: &Name) -> Result<(), FsError> {
        self.check_present(dir)?;
        if self.is_reserved(dir, name)? {
            return Err(FsError::ReadOnly);
        }
        Ok(())
    }

    /// Whether the name leads to the directory of snapshots.
    pub(crate) fn is_reserved(&self, dir: NodeId, name: &Name) -> Result<bool, FsError> {
        let here = dir == NodeId::ROOT && name.as_bytes() == NAME;
        Ok(here && state::entry(&self.replica.tree(), Ino::ROOT, name)?.is_none())
    }

    fn rows_of(&self, op: OpId) -> Result<Arc<MemoryRows>, FsError> {
        if let Some(rows) = self.views.held(op) {
            return Ok(rows);
        }
        let _one = self.views.folding.lock();
        if let Some(rows) = self.views.held(op) {
            return Ok(rows);
        }
        // However many commits there are: each request has its own bound.
        let history = self.replica.history(self.now(), |_| {});
        let history = self.runtime.block_on(history)?;
        let cut = history.at_op(op)?.ok_or(FsError::NotFound)?;
        let rows = Arc::new(history.rows(&cut)?);
        self.views.hold(op, &rows);
        Ok(rows)
    }

    fn seen(&self, op: OpId, ino: Ino) -> Result<Seen, FsError> {
        let rows = self.rows_of(op)?;
        let (ino, inode) = inode_of(&*rows, ino)?;
        Ok(Seen {
            op,
            rows,
            ino,
            inode,
        })
    }

    fn has_snapshot(&self, op: OpId) -> Result<bool, FsError> {
        let mut found = false;
        state::for_each_snapshot(&self.replica.tree(), |_, snapshot| {
            found |= snapshot.op == op;
            Ok(())
        })?;
        Ok(found)
    }

    fn seen_at(&self, node: NodeId) -> Result<Option<Seen>, FsError> {
        match self.views.at(node)? {
            At::All => Ok(None),
            At::In(op, ino) => self.seen(op, ino).map(Some),
        }
    }

    fn past_attr(&self, seen: &Seen) -> Result<Attr, FsError> {
        let node = self.views.node(At::In(seen.op, seen.ino));
        let mut attr = Self::attr_of(node, Ino(node.0), &seen.inode);
        attr.stored = self.stored_bytes(&*seen.rows, seen.ino, &seen.inode)?;
        Ok(attr)
    }

    /// The directory of snapshots: whoever may list the root may list it.
    pub(crate) fn snapshots_attr(&self) -> Result<Attr, FsError> {
        let tree = self.replica.tree();
        let (_, mut root) = inode_of(&tree, Ino::ROOT)?;
        root.mode &= 0o555;
        root.subdirs = 0;
        state::for_each_snapshot(&tree, |_, snapshot| {
            root.subdirs = root.subdirs.saturating_add(1);
            root.mtime = root.mtime.max(snapshot.time);
            Ok(())
        })?;
        let node = NodeId(NodeId::FIRST_PAST);
        Ok(Self::attr_of(node, Ino(node.0), &root))
    }

    pub(crate) fn past_lookup(&self, dir: NodeId, name: &Name) -> Result<Attr, FsError> {
        let found = match self.seen_at(dir)? {
            None => {
                let snapshot = state::snapshot(&self.replica.tree(), name)?;
                self.seen(snapshot.ok_or(FsError::NotFound)?.op, Ino::ROOT)?
            }
            Some(seen) => {
                if seen.inode.kind != Kind::Dir {
                    return Err(FsError::NotDirectory);
                }
                let entry = entry_of(&*seen.rows, seen.ino, name)?;
                self.seen(seen.op, entry.ino)?
            }
        };
        let attr = self.past_attr(&found)?;
        self.views.looked_up(attr.node);
        Ok(attr)
    }

    pub(crate) fn past_getattr(&self, node: NodeId) -> Result<Attr, FsError> {
        match self.seen_at(node)? {
            None => self.snapshots_attr(),
            Some(seen) => Ok(Attr {
                node,
                ..self.past_attr(&seen)?
            }),
        }
    }

    pub(crate) fn past_readlink(&self, node: NodeId) -> Result<Vec<u8>, FsError> {
        match self.seen_at(node)? {
            Some(seen) if seen.inode.kind == Kind::Symlink => Ok(seen.inode.target),
            _ => Err(FsError::Invalid("not a symbolic link")),
        }
    }

    pub(crate) fn past_opendir(&self, node: NodeId) -> Result<(), FsError> {
        match self.seen_at(node)? {
            Some(seen) if seen.inode.kind != Kind::Dir => Err(FsError::NotDirectory),
            _ => Ok(()),
        }
    }

    pub(crate) fn past_readdir(
        &self,
        node: NodeId,
        after: u64,
        limit: usize,
        plus: bool,
    ) -> Result<Vec<DirEntry>, FsError> {
        let all = NodeId(NodeId::FIRST_PAST);
        let Some(seen) = self.seen_at(node)? else {
            let out = dots(all, NodeId::ROOT, after);
            return self.list_snapshots(after, limit, plus, out);
        };
        let parent = match seen.ino == Ino::ROOT {
            true => all,
            false => self.views.node(At::In(
                seen.op,
                inode_of(&*seen.rows, seen.inode.parent())?.0,
            )),
        };
        let mut out = dots(node, parent, after);
        let more = limit.saturating_sub(out.len());
        for listed in state::list(&*seen.rows, seen.ino, after.max(PARENT_COOKIE), more)? {
            let child = self.seen(seen.op, listed.entry.ino)?;
            let attr = self.past_attr(&child)?;
            out.push(DirEntry {
                cookie: listed.cookie,
                name: listed.name.as_bytes().to_vec(),
                ino: attr.ino,
                kind: listed.entry.kind,
                attr: plus.then_some(attr),
            });
        }
        Ok(out)
    }

    /// What the names lead to is folded when somebody goes there: until then the attributes are those of their directory.
    fn list_snapshots(
        &self,
        after: u64,
        limit: usize,
        plus: bool,
        mut out: Vec<DirEntry>,
    ) -> Result<Vec<DirEntry>, FsError> {
        let mut listed = Vec::new();
        state::for_each_snapshot(&self.replica.tree(), |name, snapshot| {
            let cookie = state::cookie(Ino(NodeId::FIRST_PAST), &name);
            listed.push((cookie, name, snapshot.op));
            Ok(())
        })?;
        listed.retain(|(cookie, ..)| *cookie > after);
        listed.sort();
        let more = limit.saturating_sub(out.len());
        let all = self.snapshots_attr()?;
        for (cookie, name, op) in listed.into_iter().take(more) {
            out.push(DirEntry {
                cookie,
                name: name.as_bytes().to_vec(),
                ino: Ino(self.views.node(At::In(op, Ino::ROOT)).0),
                kind: Kind::Dir,
                attr: plus.then(|| {
                    let node = self.views.node(At::In(op, Ino::ROOT));
                    let (ino, all) = (Ino(node.0), all.clone());
                    Attr { node, ino, ..all }
                }),
            });
        }
        Ok(out)
    }

    pub(crate) fn past_open(&self, node: NodeId, how: OpenMode) -> Result<HandleId, FsError> {
        if how.write || how.truncate {
            return Err(FsError::ReadOnly);
        }
        let seen = self.seen_at(node)?.ok_or(FsError::IsDirectory)?;
        // The kernel may know the way into one that was forgotten. Its contents may be deleted, and a copy would name them.
        if !self.has_snapshot(seen.op)? {
            return Err(FsError::Stale);
        }
        match seen.inode.kind {
            Kind::File => {}
            Kind::Dir => return Err(FsError::IsDirectory),
            _ => return Err(FsError::Invalid("only regular files are opened here")),
        }
        let content = match &seen.inode.inline {
            Some(bytes) => Content::inline(seen.inode.size, bytes.clone()),
            None => {
                let extents = state::extents(&*seen.rows, seen.ino, 0, u64::MAX)?;
                Content::stored(seen.inode.size, extents)
            }
        };
        let state = FileState::new(seen.inode, content);
        // Under its number here, so that it is nobody's open file when the present one is removed.
        let file = OpenFile::new(node, Ino(node.0), state);
        let file = self.files.open(node, || Ok(file))?;
        let ahead = self.data.read_ahead();
        Ok(self.files.add_handle(file, false, ahead))
    }

    pub(crate) fn past_getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let seen = self.seen_at(node)?.ok_or(FsError::NoAttribute)?;
        let value = state::xattr(&*seen.rows, seen.ino, name)?;
        shown(name, &value.ok_or(FsError::NoAttribute)?, seen.inode.mode)
    }

    pub(crate) fn past_listxattr(&self, node: NodeId) -> Result<Vec<u8>, FsError> {
        let Some(seen) = self.seen_at(node)? else {
            return Ok(Vec::new());
        };
        let all = attributes(&*seen.rows, seen.ino, &seen.inode)?;
        let names = all.into_keys().flat_map(|name| [name, vec![0]].concat());
        Ok(names.collect())
    }

    /// The kernel is told that a snapshot came or went.
    pub(super) fn tell_snapshot(&self, name: &[u8]) -> Result<(), FsError> {
        let notify = self.notify.lock().clone();
        if let Some(notify) = notify {
            let all = NodeId(NodeId::FIRST_PAST);
            notify.entry(all, &name_of(name)?);
            notify.listing(all);
        }
        Ok(())
    }
}

fn dots(node: NodeId, parent: NodeId, after: u64) -> Vec<DirEntry> {
    let line = |cookie, name: &[u8], node: NodeId| DirEntry {
        cookie,
        name: name.to_vec(),
        ino: Ino(node.0),
        kind: Kind::Dir,
        attr: None,
    };
    let both = [
        line(CURRENT_COOKIE, b".", node),
        line(PARENT_COOKIE, b"..", parent),
    ];
    both.into_iter().filter(|e| e.cookie > after).collect()
}
