//! The files of this machine in memory: what there is, what of it the kernel knows, and the bytes that are kept of it.

use super::LocalPlace;
use crate::core::Fs;
use crate::error::FsError;
use crate::file::{Change, Gone, written_at};
use crate::ops::readdir::PARENT_COOKIE;
use crate::types::{Attr, DirEntry, HandleId, NodeId, RenameMode};
use skrin_base::limits::{LINK_MAX, XATTR_NAME_MAX, XATTR_TOTAL_MAX};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Ino, Name, Timestamp};
use skrin_meta::Kind;
use skrin_meta::state::{self, Inode};
use std::collections::{BTreeMap, HashMap};

/// Of the bytes that are kept.
const VERSION: u8 = 1;
/// What an inode and an entry take beside their contents and names, about.
const NODE_COST: usize = 256;
const ENTRY_COST: usize = 64;
/// More than fit into any bound.
const COUNT_MAX: usize = 1 << 24;
const DATA_MAX: usize = 1 << 30;

/// A file, directory or whatever else of this machine.
pub(super) struct LocalNode {
    /// What `stat` tells but for the length and the names, and the extended attributes.
    pub(super) attributes: Gone,
    data: Vec<u8>,
    /// Of a directory, where it is.
    parent: u64,
    /// Entries that lead here.
    names: usize,
    /// How often it was handed to the kernel and not forgotten.
    known: u64,
    /// Handles, and those of them that may write.
    open: usize,
    writers: usize,
    /// The modification time that was set last.
    set_mtime: Option<Timestamp>,
}

impl LocalNode {
    fn new(attributes: Gone, data: Vec<u8>) -> Self {
        Self {
            attributes,
            data,
            parent: 0,
            names: 0,
            known: 0,
            open: 0,
            writers: 0,
            set_mtime: None,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.attributes.inode.kind
    }

    fn cost(&self) -> usize {
        let xattrs = self.attributes.xattrs.iter();
        let xattrs: usize = xattrs.map(|(name, value)| name.len() + value.len()).sum();
        NODE_COST + self.data.len() + self.attributes.inode.target.len() + xattrs
    }

    fn written(&mut self, now: Timestamp) {
        let inode = &mut self.attributes.inode;
        inode.mtime = written_at(self.set_mtime, now);
        inode.ctime = now;
    }
}

/// Cookie and bytes of a name.
type Key = (u64, Vec<u8>);

struct Entry {
    name: Name,
    node: u64,
}

impl LocalPlace {
    fn key(&self) -> Key {
        let cookie = state::cookie(Ino(self.dir), &self.name);
        (cookie, self.name.as_bytes().to_vec())
    }
}

/// All of them.
pub(super) struct LocalTree {
    nodes: BTreeMap<u64, LocalNode>,
    /// By directory, in the order of cookies, where names lead.
    entries: BTreeMap<u64, BTreeMap<Key, Entry>>,
    handles: HashMap<HandleId, (u64, bool)>,
    next_node: u64,
    next_handle: u64,
    /// What everything takes, and may take.
    used: usize,
    pub(super) max: usize,
    /// Counts changes that are to be kept; the last one that is; when it was first seen that something is not.
    edition: u64,
    kept: u64,
    since: Option<u64>,
}

impl LocalTree {
    pub(super) fn new(max: usize) -> Self {
        Self {
            nodes: BTreeMap::new(),
            entries: BTreeMap::new(),
            handles: HashMap::new(),
            next_node: NodeId::FIRST_LOCAL,
            next_handle: HandleId::FIRST_LOCAL,
            used: 0,
            max,
            edition: 0,
            kept: 0,
            since: None,
        }
    }

    /// The edition that is to be kept, if that is not done.
    pub(super) fn unkept(&self) -> Option<u64> {
        (self.edition != self.kept).then_some(self.edition)
    }

    pub(super) fn was_kept(&mut self, edition: u64) {
        self.kept = edition;
        self.since = None;
    }

    /// Whether something is not kept, and was not already at a time `after` before `now`.
    pub(super) fn is_old(&mut self, now: u64, after: u64) -> bool {
        self.unkept().is_some() && now.saturating_sub(*self.since.get_or_insert(now)) >= after
    }

    /// Directories of the tree of the vault in which there is something.
    pub(super) fn dirs_of_the_vault(&self) -> Vec<u64> {
        let all = self.entries.keys().copied();
        all.filter(|dir| *dir < NodeId::FIRST_LOCAL).collect()
    }

    pub(super) fn find(&self, at: &LocalPlace) -> Option<u64> {
        let entry = self.entries.get(&at.dir)?.get(&at.key())?;
        Some(entry.node)
    }

    fn must_find(&self, at: &LocalPlace) -> Result<u64, FsError> {
        self.find(at).ok_or(FsError::NotFound)
    }

    pub(super) fn node(&self, id: u64) -> Result<&LocalNode, FsError> {
        self.nodes.get(&id).ok_or(FsError::NotFound)
    }

    fn node_mut(&mut self, id: u64) -> Result<&mut LocalNode, FsError> {
        self.nodes.get_mut(&id).ok_or(FsError::NotFound)
    }

    /// A directory of this machine that has a name.
    pub(super) fn dir(&self, id: u64) -> Result<&LocalNode, FsError> {
        match self.node(id)? {
            node if node.kind() != Kind::Dir => Err(FsError::NotDirectory),
            node if node.names == 0 => Err(FsError::NotFound),
            node => Ok(node),
        }
    }

    fn is_dir(&self, id: u64) -> bool {
        self.nodes.get(&id).is_some_and(|n| n.kind() == Kind::Dir)
    }

    fn has_entries(&self, dir: u64) -> bool {
        self.entries.contains_key(&dir)
    }

    /// Subdirectories of a directory that are of this machine.
    pub(super) fn subdirs(&self, dir: u64) -> u32 {
        let children = self.entries.get(&dir).into_iter();
        let children = children.flat_map(BTreeMap::values);
        let count = children.filter(|entry| self.is_dir(entry.node)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    pub(super) fn attr(&self, id: u64) -> Result<Attr, FsError> {
        let node = self.node(id)?;
        let mut attr = Fs::attr_of(NodeId(id), Ino(id), &node.attributes.inode);
        match node.kind() {
            Kind::Dir if node.names == 0 => attr.nlink = 0,
            Kind::Dir => attr.nlink = self.subdirs(id).saturating_add(2),
            _ => attr.nlink = u32::try_from(node.names).unwrap_or(u32::MAX),
        }
        if node.kind() == Kind::File {
            attr.size = node.data.len() as u64;
        }
        attr.stored = attr.size;
        Ok(attr)
    }

    /// Counts that the kernel was told of it.
    pub(super) fn looked_up(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.known += 1;
        }
    }

    pub(super) fn forget(&mut self, id: u64, count: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.known = node.known.saturating_sub(count);
        }
        self.drop_unused(id);
    }

    fn drop_unused(&mut self, id: u64) {
        let unused = |n: &LocalNode| n.names == 0 && n.known == 0 && n.open == 0;
        if self.nodes.get(&id).is_some_and(unused)
            && let Some(node) = self.nodes.remove(&id)
        {
            self.used = self.used.saturating_sub(node.cost());
        }
    }

    fn check_room(&self, more: usize) -> Result<(), FsError> {
        match more == 0 || self.used.saturating_add(more) <= self.max {
            true => Ok(()),
            false => Err(FsError::LocalFull(self.max)),
        }
    }

    /// Changes a node, if there is room for what it becomes.
    fn change<T>(
        &mut self,
        id: u64,
        act: impl FnOnce(&mut LocalNode) -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        let node = self.node_mut(id)?;
        let before = node.cost();
        let done = act(node);
        let (after, named) = (node.cost(), node.names > 0);
        self.used = self.used.saturating_sub(before).saturating_add(after);
        self.edition += u64::from(named);
        done
    }

    /// The directory changed, if it is one of this machine.
    fn touch(&mut self, dir: u64, now: Timestamp) {
        self.edition += 1;
        if let Some(node) = self.nodes.get_mut(&dir) {
            let inode = &mut node.attributes.inode;
            (inode.mtime, inode.ctime) = (now, now);
        }
    }

    fn put_entry(&mut self, at: &LocalPlace, id: u64) {
        self.used = self
            .used
            .saturating_add(ENTRY_COST + at.name.as_bytes().len());
        let names = self.entries.entry(at.dir).or_default();
        let name = at.name.clone();
        names.insert(at.key(), Entry { name, node: id });
        if let Some(node) = self.nodes.get_mut(&id) {
            node.names += 1;
            node.parent = at.dir;
        }
    }

    fn take_entry(&mut self, at: &LocalPlace) -> Option<u64> {
        let names = self.entries.get_mut(&at.dir)?;
        let id = names.remove(&at.key())?.node;
        if names.is_empty() {
            self.entries.remove(&at.dir);
        }
        self.used = self
            .used
            .saturating_sub(ENTRY_COST + at.name.as_bytes().len());
        if let Some(node) = self.nodes.get_mut(&id) {
            node.names = node.names.saturating_sub(1);
        }
        Some(id)
    }

    /// Refuses a place in a directory that went while nobody looked.
    fn check_place(&self, at: &LocalPlace) -> Result<(), FsError> {
        match NodeId(at.dir).is_local() {
            true => self.dir(at.dir).map(drop),
            false => Ok(()),
        }
    }

    /// Makes something new; counts as a look-up.
    pub(super) fn make(&mut self, at: &LocalPlace, attributes: Gone) -> Result<Attr, FsError> {
        self.check_place(at)?;
        if self.find(at).is_some() {
            return Err(FsError::Exists);
        }
        let now = attributes.inode.ctime;
        let mut node = LocalNode::new(attributes, Vec::new());
        self.check_room(node.cost() + ENTRY_COST + at.name.as_bytes().len())?;
        node.known = 1;
        let id = self.next_node;
        self.next_node += 1;
        self.used = self.used.saturating_add(node.cost());
        self.nodes.insert(id, node);
        self.put_entry(at, id);
        self.touch(at.dir, now);
        self.attr(id)
    }

    /// Gives one more name; counts as a look-up.
    pub(super) fn link(
        &mut self,
        id: u64,
        at: &LocalPlace,
        now: Timestamp,
    ) -> Result<Attr, FsError> {
        self.check_place(at)?;
        let node = self.node(id)?;
        match node.kind() {
            Kind::Dir => return Err(FsError::NotPermitted("directories have one name")),
            _ if node.names == 0 => return Err(FsError::NotFound),
            _ if node.names >= LINK_MAX => return Err(FsError::TooManyLinks),
            _ if self.find(at).is_some() => return Err(FsError::Exists),
            _ => {}
        }
        self.check_room(ENTRY_COST + at.name.as_bytes().len())?;
        self.put_entry(at, id);
        self.touch(at.dir, now);
        let node = self.node_mut(id)?;
        node.attributes.inode.ctime = now;
        node.known += 1;
        self.attr(id)
    }

    /// Takes a name away, of a directory (`dir`) or of anything else.
    pub(super) fn remove(
        &mut self,
        at: &LocalPlace,
        dir: bool,
        now: Timestamp,
    ) -> Result<(), FsError> {
        let id = self.must_find(at)?;
        match (self.is_dir(id), dir) {
            (true, false) => return Err(FsError::IsDirectory),
            (false, true) => return Err(FsError::NotDirectory),
            (true, true) if self.has_entries(id) => return Err(FsError::NotEmpty),
            _ => {}
        }
        self.drop_entry(at, now);
        Ok(())
    }

    fn places_in(&self, dir: u64) -> Vec<LocalPlace> {
        let entries = self.entries.get(&dir).into_iter();
        let place = |entry: &Entry| LocalPlace {
            dir,
            name: entry.name.clone(),
        };
        entries.flat_map(BTreeMap::values).map(place).collect()
    }

    /// Takes a name away with whatever is below it; nothing where there is none.
    pub(super) fn drop_entry(&mut self, at: &LocalPlace, now: Timestamp) {
        let mut doomed = vec![at.clone()];
        while let Some(at) = doomed.pop() {
            let Some(id) = self.take_entry(&at) else {
                continue;
            };
            self.touch(at.dir, now);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.attributes.inode.ctime = now;
            }
            if self.is_dir(id) {
                doomed.extend(self.places_in(id));
            }
            self.drop_unused(id);
        }
    }

    /// A directory is gone, and what was in it.
    pub(super) fn drop_dir(&mut self, dir: u64, now: Timestamp) {
        for place in self.places_in(dir) {
            self.drop_entry(&place, now);
        }
    }

    /// A directory of the vault is found under another number now. What has the same name there stays as it is.
    pub(super) fn rehome(&mut self, from: u64, to: u64, now: Timestamp) {
        for at in self.places_in(from) {
            let there = LocalPlace {
                dir: to,
                name: at.name.clone(),
            };
            if self.find(&there).is_none()
                && let Some(id) = self.take_entry(&at)
            {
                self.put_entry(&there, id);
                self.edition += 1;
            }
        }
        self.drop_dir(from, now);
    }

    /// Refuses to move a directory below itself.
    fn check_no_cycle(&self, moved: u64, to: u64) -> Result<(), FsError> {
        let mut at = to;
        // As many steps as there are directories.
        for _ in 0..=self.nodes.len() {
            if at == moved {
                return Err(FsError::MoveBelowItself);
            }
            match self.nodes.get(&at) {
                Some(node) => at = node.parent,
                None => break,
            }
        }
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        from: &LocalPlace,
        to: &LocalPlace,
        mode: RenameMode,
        now: Timestamp,
    ) -> Result<(), FsError> {
        self.check_place(to)?;
        let moved = self.must_find(from)?;
        let there = match (self.find(to), mode) {
            (None, RenameMode::Exchange) => return Err(FsError::NotFound),
            (Some(_), RenameMode::NoReplace) => return Err(FsError::Exists),
            // Two names of one inode: nothing happens, says POSIX.
            (Some(there), _) if there == moved => return Ok(()),
            (there, _) => there,
        };
        self.check_no_cycle(moved, to.dir)?;
        match there {
            Some(there) if mode == RenameMode::Exchange => self.check_no_cycle(there, from.dir)?,
            Some(there) => self.check_replace(moved, there)?,
            None => self.check_room(
                to.name
                    .as_bytes()
                    .len()
                    .saturating_sub(from.name.as_bytes().len()),
            )?,
        }
        self.take_entry(from);
        match there {
            Some(there) if mode == RenameMode::Exchange => {
                self.take_entry(to);
                self.put_entry(from, there);
            }
            Some(_) => self.drop_entry(to, now),
            None => {}
        }
        self.put_entry(to, moved);
        self.touch(from.dir, now);
        self.touch(to.dir, now);
        for id in there.into_iter().chain([moved]) {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.attributes.inode.ctime = now;
            }
        }
        Ok(())
    }

    fn check_replace(&self, moved: u64, there: u64) -> Result<(), FsError> {
        match (self.is_dir(moved), self.is_dir(there)) {
            (true, false) => Err(FsError::NotDirectory),
            (false, true) => Err(FsError::IsDirectory),
            (true, true) if self.has_entries(there) => Err(FsError::NotEmpty),
            _ => Ok(()),
        }
    }

    /// Up to `limit` entries of a directory behind a cookie, in the order of cookies, that are to be shown.
    pub(super) fn list(
        &self,
        dir: u64,
        after: u64,
        limit: usize,
        is_shown: impl Fn(&Name) -> Result<bool, FsError>,
    ) -> Result<Vec<DirEntry>, FsError> {
        let mut listed = Vec::new();
        let Some(entries) = self.entries.get(&dir) else {
            return Ok(listed);
        };
        let from = (after.max(PARENT_COOKIE).saturating_add(1), Vec::new());
        for ((cookie, name), entry) in entries.range(from..) {
            if listed.len() == limit {
                break;
            }
            if is_shown(&entry.name)? {
                let attr = self.attr(entry.node)?;
                listed.push(DirEntry {
                    cookie: *cookie,
                    name: name.clone(),
                    ino: attr.ino,
                    kind: attr.kind,
                    attr: Some(attr),
                });
            }
        }
        Ok(listed)
    }

    /// Where `..` of a directory of this machine leads.
    pub(super) fn parent(&self, id: u64) -> u64 {
        self.nodes.get(&id).map_or(id, |node| node.parent)
    }

    /// Changes attributes.
    pub(super) fn set(&mut self, id: u64, change: &Change, now: Timestamp) -> Result<(), FsError> {
        self.change(id, |node| {
            node.set_mtime = change.mtime.or(node.set_mtime);
            node.attributes.change(change, now);
            Ok(())
        })
    }

    /// Changes extended attributes and what goes with them.
    pub(super) fn set_xattrs(
        &mut self,
        id: u64,
        plan: impl FnOnce(&mut Gone) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let node = self.node(id)?;
        let (before, mut attributes) = (node.cost(), node.attributes.clone());
        plan(&mut attributes)?;
        let data = node.data.len();
        let after = LocalNode::new(attributes, Vec::new());
        self.check_room((after.cost() + data).saturating_sub(before))?;
        self.change(id, |node| {
            node.attributes = after.attributes;
            Ok(())
        })
    }

    pub(super) fn open(&mut self, id: u64, write: bool) -> Result<HandleId, FsError> {
        let node = self.node_mut(id)?;
        match node.kind() {
            Kind::File => {}
            Kind::Dir => return Err(FsError::IsDirectory),
            _ => return Err(FsError::Invalid("only regular files are opened here")),
        }
        node.open += 1;
        node.writers += usize::from(write);
        self.next_handle += 1;
        let handle = HandleId(self.next_handle);
        self.handles.insert(handle, (id, write));
        Ok(handle)
    }

    pub(super) fn close(&mut self, handle: HandleId) -> Result<(), FsError> {
        let (id, write) = self.handles.remove(&handle).ok_or(FsError::BadHandle)?;
        let node = self.node_mut(id)?;
        node.open = node.open.saturating_sub(1);
        node.writers = node.writers.saturating_sub(usize::from(write));
        self.drop_unused(id);
        Ok(())
    }

    pub(super) fn opened(&self, handle: HandleId) -> Result<(u64, bool), FsError> {
        self.handles.get(&handle).copied().ok_or(FsError::BadHandle)
    }

    pub(super) fn is_written_to(&self, handle: HandleId) -> Result<bool, FsError> {
        let (id, _) = self.opened(handle)?;
        Ok(self.node(id)?.writers > 0)
    }

    pub(super) fn data(&self, handle: HandleId) -> Result<&[u8], FsError> {
        let (id, _) = self.opened(handle)?;
        Ok(&self.node(id)?.data)
    }

    fn for_writing(&self, handle: HandleId) -> Result<u64, FsError> {
        match self.opened(handle)? {
            (id, true) => Ok(id),
            (_, false) => Err(FsError::BadHandle),
        }
    }

    pub(super) fn write(
        &mut self,
        handle: HandleId,
        offset: u64,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<(), FsError> {
        let id = self.for_writing(handle)?;
        let (start, end) = self.range(offset, bytes.len() as u64)?;
        self.check_room(end.saturating_sub(self.node(id)?.data.len()))?;
        self.change(id, |node| {
            if node.data.len() < end {
                node.data.resize(end, 0);
            }
            if let Some(there) = node.data.get_mut(start..end) {
                there.copy_from_slice(bytes);
            }
            node.written(now);
            Ok(())
        })
    }

    /// A range in memory. What lies beyond the bound of all of them never fits.
    fn range(&self, offset: u64, len: u64) -> Result<(usize, usize), FsError> {
        let end = offset.checked_add(len).ok_or(FsError::TooLarge)?;
        let full = |_| FsError::LocalFull(self.max);
        Ok((
            usize::try_from(offset).map_err(full)?,
            usize::try_from(end).map_err(full)?,
        ))
    }

    pub(super) fn resize(&mut self, id: u64, size: u64, now: Timestamp) -> Result<(), FsError> {
        if self.is_dir(id) {
            return Err(FsError::IsDirectory);
        }
        let (_, size) = self.range(size, 0)?;
        self.check_room(size.saturating_sub(self.node(id)?.data.len()))?;
        self.change(id, |node| {
            node.data.resize(size, 0);
            node.data.shrink_to_fit();
            node.written(now);
            Ok(())
        })
    }

    /// Zeroes what of a range lies inside the file.
    pub(super) fn zero(
        &mut self,
        handle: HandleId,
        offset: u64,
        len: u64,
        now: Timestamp,
    ) -> Result<(), FsError> {
        let id = self.for_writing(handle)?;
        let (start, end) = self.range(offset, len)?;
        self.change(id, |node| {
            let end = end.min(node.data.len());
            if let Some(there) = node.data.get_mut(start..end) {
                there.fill(0);
            }
            node.written(now);
            Ok(())
        })
    }

    /// The bytes that are kept: what has a name.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u8(VERSION);
        w.u64(self.next_node);
        let named: Vec<_> = self.nodes.iter().filter(|(_, n)| n.names > 0).collect();
        w.count(named.len());
        for (id, node) in named {
            w.u64(*id);
            node.attributes.inode.encode(&mut w);
            w.count(node.attributes.xattrs.len());
            for (name, value) in &node.attributes.xattrs {
                w.bytes(name);
                w.bytes(value);
            }
            w.bytes(&node.data);
        }
        w.count(self.entries.values().map(BTreeMap::len).sum());
        for (dir, names) in &self.entries {
            for entry in names.values() {
                w.u64(*dir);
                entry.name.encode(&mut w);
                w.u64(entry.node);
            }
        }
        w.into_bytes()
    }

    /// Reads them. What is above `max` stays, and does not grow.
    pub(super) fn decode(bytes: &[u8], max: usize) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let mut tree = Self::new(max);
        match r.u8()? {
            VERSION => {}
            found => {
                let what = "version of the files of this machine";
                let found = found.into();
                return Err(WireError::Unknown { what, found });
            }
        }
        tree.next_node = r.u64()?;
        for _ in 0..r.count("nodes", COUNT_MAX, 1)? {
            let (id, node) = tree.decode_node(&mut r)?;
            tree.used = tree.used.saturating_add(node.cost());
            if tree.nodes.insert(id, node).is_some() {
                return Err(WireError::Value("a node twice"));
            }
        }
        for _ in 0..r.count("entries", COUNT_MAX, 1)? {
            let (dir, name, id) = (r.u64()?, Name::decode(&mut r)?, r.u64()?);
            tree.admit(&LocalPlace { dir, name }, id)?;
        }
        r.finish()?;
        match tree.nodes.values().all(|node| node.names > 0) {
            true => Ok(tree),
            false => Err(WireError::Value("a node without a name")),
        }
    }

    fn decode_node(&self, r: &mut Reader<'_>) -> Result<(u64, LocalNode), WireError> {
        let id = r.u64()?;
        if !NodeId(id).is_local() || id >= self.next_node || self.next_node > NodeId::FIRST_PAST {
            return Err(WireError::Value("the number of a node"));
        }
        let inode = Inode::decode(r)?;
        let mut xattrs = BTreeMap::new();
        for _ in 0..r.count("extended attributes", COUNT_MAX, 1)? {
            let name = r.bytes("name of an attribute", XATTR_NAME_MAX)?.to_vec();
            let value = r.bytes("value of an attribute", XATTR_TOTAL_MAX)?.to_vec();
            xattrs.insert(name, value);
        }
        let data = r.bytes("contents", DATA_MAX)?.to_vec();
        Ok((id, LocalNode::new(Gone { inode, xattrs }, data)))
    }

    fn admit(&mut self, at: &LocalPlace, id: u64) -> Result<(), WireError> {
        let dir = self.nodes.get(&at.dir).map(LocalNode::kind);
        let below = match NodeId(at.dir).is_local() {
            true => dir == Some(Kind::Dir),
            false => at.dir < NodeId::FIRST_ALIAS,
        };
        let Some(node) = self.nodes.get(&id) else {
            return Err(WireError::Value("an entry that leads nowhere"));
        };
        let second = node.kind() == Kind::Dir && node.names > 0;
        if !below || second || self.find(at).is_some() {
            return Err(WireError::Value("the place of an entry"));
        }
        self.put_entry(at, id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skrin_base::OpId;
    use skrin_meta::op::NewNode;

    fn place(dir: u64, name: &str) -> LocalPlace {
        LocalPlace {
            dir,
            name: Name::new(name.as_bytes()).unwrap(),
        }
    }

    fn made(tree: &mut LocalTree, at: &LocalPlace, kind: Kind) -> u64 {
        let node = NewNode {
            kind,
            mode: 0o700,
            uid: 1,
            gid: 2,
            rdev: 0,
            target: Vec::new(),
        };
        let mut inode = Inode::new(&node, OpId::default(), Timestamp(3));
        inode.inline = None;
        let xattrs = [(b"user.x".to_vec(), b"1".to_vec())].into();
        tree.make(at, Gone { inode, xattrs }).unwrap().node.0
    }

    fn sample() -> LocalTree {
        let mut tree = LocalTree::new(1 << 20);
        let outer = made(&mut tree, &place(1, ".Trashes"), Kind::Dir);
        let inner = made(&mut tree, &place(outer, "inner"), Kind::Dir);
        let file = made(&mut tree, &place(inner, "f"), Kind::File);
        tree.link(file, &place(77, "._f"), Timestamp(4)).unwrap();
        let handle = tree.open(file, true).unwrap();
        tree.write(handle, 3, b"contents", Timestamp(5)).unwrap();
        tree
    }

    #[test]
    fn nothing_is_put_into_a_directory_that_has_gone_meanwhile() {
        let mut tree = LocalTree::new(1 << 20);
        let dir = made(&mut tree, &place(77, "._x"), Kind::Dir);
        let file = made(&mut tree, &place(1, "._f"), Kind::File);
        let moved = place(1, "._f");
        tree.drop_dir(77, Timestamp(5));
        let inside = place(dir, "inside");
        let attributes = |tree: &LocalTree| tree.nodes[&file].attributes.clone();
        let made = tree.make(&inside, attributes(&tree));
        assert!(matches!(made, Err(FsError::NotFound)), "{made:?}");
        assert!(tree.link(file, &inside, Timestamp(6)).is_err());
        let renamed = tree.rename(&moved, &inside, RenameMode::Replace, Timestamp(6));
        assert!(renamed.is_err());
        LocalTree::decode(&tree.encode(), 1 << 20).unwrap();
    }

    #[test]
    fn bytes_that_are_damaged_are_an_error_or_a_tree_and_never_an_endless_walk() {
        let bytes = sample().encode();
        let again = LocalTree::decode(&bytes, 10).unwrap();
        assert_eq!(again.encode(), bytes);
        assert_eq!(again.used, sample().used);
        for end in 0..bytes.len() {
            assert!(
                LocalTree::decode(&bytes[..end], 10).is_err(),
                "cut at {end}"
            );
        }
        let mut refused = 0;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                match LocalTree::decode(&changed, 1 << 20) {
                    Err(_) => refused += 1,
                    Ok(tree) => walk(tree),
                }
            }
        }
        assert!(refused > bytes.len());
    }

    /// Whatever it is, it can be used.
    fn walk(mut tree: LocalTree) {
        let dirs: Vec<u64> = tree.entries.keys().copied().collect();
        for dir in dirs {
            let listed = tree.list(dir, 0, 100, |_| Ok(true)).unwrap();
            let names = listed.into_iter().map(|entry| entry.name);
            for name in names.map(|name| Name::new(&name).unwrap()) {
                let (from, to) = (LocalPlace { dir, name }, place(dir, "new"));
                let _ = tree.rename(&from, &to, RenameMode::Replace, Timestamp(9));
            }
            tree.drop_dir(dir, Timestamp(9));
        }
        assert!(tree.entries.is_empty());
    }

    #[test]
    fn what_is_used_is_what_there_is_and_nothing_is_left_of_what_is_gone() {
        let mut tree = sample();
        let ids: Vec<u64> = tree.nodes.keys().copied().collect();
        tree.drop_dir(1, Timestamp(6));
        tree.drop_dir(77, Timestamp(6));
        assert!(tree.entries.is_empty());
        // The kernel knows them, and one is open.
        assert_eq!(tree.nodes.len(), 3);
        let handles: Vec<HandleId> = tree.handles.keys().copied().collect();
        handles.into_iter().for_each(|h| tree.close(h).unwrap());
        ids.into_iter().for_each(|id| tree.forget(id, 9));
        assert_eq!((tree.nodes.len(), tree.used), (0, 0));
    }

    #[test]
    fn directories_in_each_other_to_any_depth_go_without_a_deep_stack() {
        let mut tree = LocalTree::new(1 << 26);
        let mut dir = 1;
        for _ in 0..100_000 {
            dir = made(&mut tree, &place(dir, "d"), Kind::Dir);
        }
        tree.drop_dir(1, Timestamp(6));
        assert!(tree.entries.is_empty());
    }
}
