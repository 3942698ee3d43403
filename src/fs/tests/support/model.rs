//! A file system as POSIX describes it, in the simplest form that can be compared with ours.

use skrin_base::Errno;
use std::collections::BTreeMap;

/// Number of an inode of the model.
pub(crate) type Id = usize;
/// A path as its names.
pub(crate) type Path = Vec<Vec<u8>>;

pub(crate) const ROOT: Id = 0;

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    File,
    Dir(BTreeMap<Vec<u8>, Id>),
    Symlink(Vec<u8>),
    Fifo,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Contents as programs see them.
    pub(crate) data: Vec<u8>,
    /// Contents as they would be after a crash, if everything said so far is in the journal.
    pub(crate) told: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) nlink: usize,
    pub(crate) handles: usize,
}

/// What can be seen of one path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) kind: &'static str,
    pub(crate) mode: u16,
    pub(crate) owner: (u32, u32),
    pub(crate) nlink: u32,
    pub(crate) data: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same inode.
    pub(crate) first: Path,
}

/// A whole tree by path.
pub(crate) type Tree = BTreeMap<Path, Seen>;

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<Id, Node>,
    next: Id,
}

pub(crate) type Done<T = ()> = Result<T, Errno>;

impl Model {
    pub(crate) fn new() -> Self {
        let mut model = Self {
            nodes: BTreeMap::new(),
            next: ROOT,
        };
        model.add(Kind::Dir(BTreeMap::new()), 0o755, (0, 0));
        model
    }

    fn add(&mut self, kind: Kind, mode: u16, (uid, gid): (u32, u32)) -> Id {
        let id = self.next;
        self.next += 1;
        let node = Node {
            kind,
            mode,
            uid,
            gid,
            data: Vec::new(),
            told: Vec::new(),
            xattrs: BTreeMap::new(),
            nlink: 1,
            handles: 0,
        };
        self.nodes.insert(id, node);
        id
    }

    pub(crate) fn node(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    fn entries(&self, dir: Id) -> Done<&BTreeMap<Vec<u8>, Id>> {
        match &self.nodes[&dir].kind {
            Kind::Dir(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn entries_mut(&mut self, dir: Id) -> &mut BTreeMap<Vec<u8>, Id> {
        match &mut self.node(dir).kind {
            Kind::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    /// All paths with what they name, in order; the root is the empty path.
    pub(crate) fn paths(&self) -> Vec<(Path, Id)> {
        let mut out = vec![(Vec::new(), ROOT)];
        let mut at = 0;
        while at < out.len() {
            let (path, id) = out[at].clone();
            if let Kind::Dir(entries) = &self.nodes[&id].kind {
                out.extend(entries.iter().map(|(name, id)| {
                    let mut path = path.clone();
                    path.push(name.clone());
                    (path, *id)
                }));
            }
            at += 1;
        }
        out.sort();
        out
    }

    pub(crate) fn is_dir(&self, id: Id) -> bool {
        matches!(self.nodes[&id].kind, Kind::Dir(_))
    }

    pub(crate) fn is_file(&self, id: Id) -> bool {
        matches!(self.nodes[&id].kind, Kind::File)
    }

    pub(crate) fn lookup(&self, dir: Id, name: &[u8]) -> Done<Id> {
        self.entries(dir)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(crate) fn make(&mut self, dir: Id, name: &[u8], kind: Kind, mode: u16) -> Done<Id> {
        if self.entries(dir)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let mode = if matches!(kind, Kind::Symlink(_)) {
            0o777
        } else {
            mode
        };
        let parent = &self.nodes[&dir];
        let (mut gid, mut mode) = (100, mode);
        if parent.mode & 0o2000 != 0 {
            gid = parent.gid;
            mode |= if matches!(kind, Kind::Dir(_)) {
                0o2000
            } else {
                0
            };
        }
        let id = self.add(kind, mode, (1000, gid));
        self.entries_mut(dir).insert(name.to_vec(), id);
        Ok(id)
    }

    pub(crate) fn link(&mut self, id: Id, dir: Id, name: &[u8]) -> Done {
        if self.is_dir(id) {
            return Err(Errno::EPERM);
        }
        if self.entries(dir)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.entries_mut(dir).insert(name.to_vec(), id);
        self.node(id).nlink += 1;
        Ok(())
    }

    fn drop_link(&mut self, id: Id) {
        self.node(id).nlink -= 1;
        self.collect(id);
    }

    fn collect(&mut self, id: Id) {
        let node = &self.nodes[&id];
        if node.nlink == 0 && node.handles == 0 {
            self.nodes.remove(&id);
        }
    }

    pub(crate) fn unlink(&mut self, dir: Id, name: &[u8]) -> Done {
        let id = self.lookup(dir, name)?;
        if self.is_dir(id) {
            return Err(Errno::EISDIR);
        }
        self.entries_mut(dir).remove(name);
        self.drop_link(id);
        Ok(())
    }

    pub(crate) fn rmdir(&mut self, dir: Id, name: &[u8]) -> Done {
        let id = self.lookup(dir, name)?;
        if !self.entries(id)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.entries_mut(dir).remove(name);
        self.nodes.remove(&id);
        Ok(())
    }

    fn is_below(&self, dir: Id, id: Id) -> bool {
        if dir == id {
            return true;
        }
        let children = match &self.nodes[&id].kind {
            Kind::Dir(entries) => entries.values(),
            _ => return false,
        };
        children.into_iter().any(|child| self.is_below(dir, *child))
    }

    pub(crate) fn rename(
        &mut self,
        from: (Id, &[u8]),
        to: (Id, &[u8]),
        mode: skrin_fs::RenameMode,
    ) -> Done {
        use skrin_fs::RenameMode::{Exchange, NoReplace};
        let id = self.lookup(from.0, from.1)?;
        let there = self.lookup(to.0, to.1).ok();
        match (mode, there) {
            (Exchange, None) => return Err(Errno::ENOENT),
            (NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (Exchange, Some(there)) => {
                let cycle = (self.is_dir(id) && self.is_below(to.0, id))
                    || (self.is_dir(there) && self.is_below(from.0, there));
                if cycle {
                    return Err(Errno::EINVAL);
                }
                self.entries_mut(from.0).insert(from.1.to_vec(), there);
                self.entries_mut(to.0).insert(to.1.to_vec(), id);
                return Ok(());
            }
            (_, Some(there)) if there == id => return Ok(()),
            _ => {}
        }
        if self.is_dir(id) && self.is_below(to.0, id) {
            return Err(Errno::EINVAL);
        }
        if let Some(there) = there {
            match (self.is_dir(id), self.is_dir(there)) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if !self.entries(there)?.is_empty() => return Err(Errno::ENOTEMPTY),
                (true, true) => {
                    self.nodes.remove(&there);
                }
                (false, false) => self.drop_link(there),
            }
        }
        self.entries_mut(from.0).remove(from.1);
        self.entries_mut(to.0).insert(to.1.to_vec(), id);
        Ok(())
    }

    pub(crate) fn write(&mut self, id: Id, offset: usize, bytes: &[u8]) {
        let data = &mut self.node(id).data;
        let end = offset + bytes.len();
        data.resize(data.len().max(end), 0);
        data[offset..end].copy_from_slice(bytes);
    }

    /// The journal knows the contents now.
    pub(crate) fn tell(&mut self, id: Id) {
        let node = self.node(id);
        node.told = node.data.clone();
    }

    pub(crate) fn tell_all(&mut self) {
        let ids: Vec<Id> = self.nodes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.tell(id));
    }

    pub(crate) fn open(&mut self, id: Id) {
        self.node(id).handles += 1;
    }

    pub(crate) fn close(&mut self, id: Id) {
        self.node(id).handles -= 1;
        if self.node(id).handles == 0 {
            self.tell(id);
        }
        self.collect(id);
    }

    /// What a crash would leave of this state, once the journal has it.
    pub(crate) fn crashed(&self) -> Self {
        let mut model = self.clone();
        for node in model.nodes.values_mut() {
            node.data = node.told.clone();
            node.handles = 0;
        }
        model.nodes.retain(|_, node| node.nlink > 0);
        model
    }

    pub(crate) fn tree(&self) -> Tree {
        let mut firsts: BTreeMap<Id, Path> = BTreeMap::new();
        let mut tree = Tree::new();
        for (path, id) in self.paths() {
            let node = &self.nodes[&id];
            let first = firsts.entry(id).or_insert_with(|| path.clone()).clone();
            let (kind, nlink, data) = match &node.kind {
                Kind::File => ("file", node.nlink, node.data.clone()),
                Kind::Symlink(target) => ("symlink", node.nlink, target.clone()),
                Kind::Fifo => ("fifo", node.nlink, Vec::new()),
                Kind::Dir(entries) => {
                    let dirs = entries.values().filter(|id| self.is_dir(**id)).count();
                    ("dir", 2 + dirs, Vec::new())
                }
            };
            let seen = Seen {
                kind,
                mode: node.mode,
                owner: (node.uid, node.gid),
                nlink: nlink as u32,
                data,
                xattrs: node.xattrs.clone(),
                first,
            };
            tree.insert(path, seen);
        }
        tree
    }
}
