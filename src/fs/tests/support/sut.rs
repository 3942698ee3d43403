//! The file system under test, by path.

use super::model::{Path, Seen, Tree};
use skrin_base::{Errno, Ino};
use skrin_fs::{Attr, Caller, Fs, FsError, Kind, NodeId, OpenMode};
use std::collections::BTreeMap;

pub(crate) const CALLER: Caller = Caller {
    umask: 0,
    uid: 1000,
    gid: 100,
    pid: 1,
};

/// Where a program that runs on files of one machine has its root; else that is the root.
pub(crate) const BASE: &[u8] = b".TemporaryItems";

fn root(fs: &Fs) -> Result<Attr, FsError> {
    match fs.lookup(NodeId::ROOT, BASE) {
        Ok(attr) => {
            fs.forget(attr.node, 1);
            Ok(attr)
        }
        Err(_) => fs.getattr(NodeId::ROOT),
    }
}

/// Finds a path; the kernel's reference is given back at once.
pub(crate) fn find(fs: &Fs, path: &[Vec<u8>]) -> Result<Attr, FsError> {
    let mut attr = root(fs)?;
    for name in path {
        attr = fs.lookup(attr.node, name)?;
        fs.forget(attr.node, 1);
    }
    Ok(attr)
}

/// The directory of a path.
pub(crate) fn dir(fs: &Fs, path: &[Vec<u8>]) -> Result<NodeId, FsError> {
    find(fs, path).map(|attr| attr.node)
}

/// Lets go of the reference that a creation counts.
pub(crate) fn let_go(fs: &Fs, made: Result<Attr, FsError>) -> Result<(), Errno> {
    made.map(|attr| fs.forget(attr.node, 1))
        .map_err(|e| e.errno())
}

pub(crate) fn read_all(fs: &Fs, node: NodeId) -> Vec<u8> {
    let handle = fs.open_node(node, OpenMode::default()).unwrap();
    let mut out = Vec::new();
    loop {
        let part = fs.read(handle, out.len() as u64, 100_000).unwrap();
        if part.is_empty() {
            break;
        }
        out.extend(part);
    }
    fs.release(handle).unwrap();
    out
}

fn xattrs(fs: &Fs, node: NodeId) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let list = fs.listxattr(node).unwrap();
    let names = list.split(|b| *b == 0).filter(|n| !n.is_empty());
    names
        .map(|name| (name.to_vec(), fs.getxattr(node, name).unwrap()))
        .collect()
}

fn listing(fs: &Fs, node: NodeId) -> Vec<(Vec<u8>, Attr)> {
    let mut out = Vec::new();
    let mut after = 0;
    loop {
        // A small step, so that listings go on from cookies.
        let batch = fs.readdir(node, after, 3, true).unwrap();
        let Some(last) = batch.last() else { return out };
        after = last.cookie;
        let children = batch.into_iter().filter_map(|e| Some((e.name, e.attr?)));
        out.extend(children);
    }
}

/// Everything that can be seen, and the inode number of each path.
pub(crate) fn tree(fs: &Fs) -> (Tree, BTreeMap<Path, Ino>) {
    let (mut seen, mut inos) = (Tree::new(), BTreeMap::new());
    let mut todo = vec![(Path::new(), root(fs).unwrap())];
    while let Some((path, attr)) = todo.pop() {
        inos.insert(path.clone(), attr.ino);
        if attr.kind == Kind::Dir {
            todo.extend(listing(fs, attr.node).into_iter().map(|(name, attr)| {
                let mut path = path.clone();
                path.push(name);
                (path, attr)
            }));
        }
        let (kind, data) = match attr.kind {
            Kind::File => ("file", read_all(fs, attr.node)),
            Kind::Symlink => ("symlink", fs.readlink(attr.node).unwrap()),
            Kind::Fifo => ("fifo", Vec::new()),
            _ => ("dir", Vec::new()),
        };
        if attr.kind == Kind::File {
            assert_eq!(attr.size, data.len() as u64, "{path:?}");
        }
        let one = Seen {
            kind,
            mode: attr.mode,
            owner: (attr.uid, attr.gid),
            nlink: attr.nlink,
            data,
            xattrs: xattrs(fs, attr.node),
            first: Path::new(),
        };
        seen.insert(path, one);
    }
    let mut firsts: BTreeMap<Ino, Path> = BTreeMap::new();
    for (path, one) in &mut seen {
        one.first = firsts
            .entry(inos[path])
            .or_insert_with(|| path.clone())
            .clone();
    }
    (seen, inos)
}

/// Where two trees differ, for people.
pub(crate) fn difference(left: &Tree, right: &Tree) -> String {
    let name = |path: &Path| {
        path.iter()
            .map(|n| n.escape_ascii().to_string())
            .collect::<Vec<_>>()
            .join("/")
    };
    let brief = |seen: &Seen| {
        let Seen {
            kind,
            mode,
            owner,
            nlink,
            data,
            xattrs,
            first,
        } = seen;
        let head = &data[..data.len().min(8)];
        format!(
            "{kind} {mode:o} {owner:?} nlink {nlink} len {} {head:?} xattrs {} first {}",
            data.len(),
            xattrs.len(),
            name(first)
        )
    };
    let mut out = Vec::new();
    for (path, a) in left {
        match right.get(path) {
            None => out.push(format!("only left: {}", name(path))),
            Some(b) if a != b => {
                let at = a.data.iter().zip(&b.data).position(|(x, y)| x != y);
                out.push(format!(
                    "{}: {} | {} first difference {at:?}",
                    name(path),
                    brief(a),
                    brief(b)
                ));
            }
            Some(_) => {}
        }
    }
    out.extend(
        right
            .keys()
            .filter(|p| !left.contains_key(*p))
            .map(|p| format!("only right: {}", name(p))),
    );
    out.join("\n")
}
