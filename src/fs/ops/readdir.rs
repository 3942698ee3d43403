use super::dir_of;
use crate::core::Fs;
use crate::error::FsError;
use crate::types::{DirEntry, NodeId};
use skrin_base::Ino;
use skrin_meta::state::{self, Inode};
use skrin_meta::{Kind, Rows};

/// Cookie behind `.`.
pub const CURRENT_COOKIE: u64 = 1;
/// Cookie behind `..`.
pub const PARENT_COOKIE: u64 = 2;

impl Fs {
    /// Checks that a node is a directory. Listings need no handle: their cookies are good for ever.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn opendir(&self, node: NodeId) -> Result<(), FsError> {
        if node.is_past() {
            return self.past_opendir(node);
        }
        if node.is_local() {
            return self.opendir_local(node);
        }
        match dir_of(&self.replica.tree(), self.nodes.ino(node)) {
            // There is nothing in it, and the kernel asks for no more.
            Err(FsError::NotFound) if self.nodes.with_removed(node, |_| ()).is_some() => Ok(()),
            found => found.map(drop),
        }
    }

    /// Up to `limit` entries behind the cookie `after`, 0 for the first; none at the end. Entries that exist all the while are listed exactly
    /// once, whatever changes meanwhile. With `attributes` those of the children come along; they are not counted as looked up.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn readdir(
        &self,
        node: NodeId,
        after: u64,
        limit: usize,
        attributes: bool,
    ) -> Result<Vec<DirEntry>, FsError> {
        if node.is_past() {
            return self.past_readdir(node, after, limit, attributes);
        }
        if node.is_local() {
            return self.readdir_local(node, after, limit);
        }
        let (mut out, found, locals) = {
            let tree = self.replica.tree();
            let (ino, dir) = dir_of(&tree, self.nodes.ino(node))?;
            let mut out = dots(ino, dir.parent(), after);
            let more = limit.saturating_sub(out.len());
            let found = children(
                self,
                &tree,
                ino,
                after.max(PARENT_COOKIE),
                more,
                attributes,
                &mut out,
            )?;
            (out, found, self.locals_in(&tree, ino, after, limit)?)
        };
        for (entry, (ino, inode, stored)) in out.iter_mut().rev().zip(found.iter().rev()) {
            entry.attr = Some(self.entry_attr((*ino, inode), *stored, false));
        }
        if !locals.is_empty() {
            out.extend(locals);
            out.sort_unstable_by_key(|entry| entry.cookie);
            out.truncate(limit);
        }
        Ok(out)
    }
}

/// The first two lines of a listing.
pub(crate) fn dots(ino: Ino, parent: Ino, after: u64) -> Vec<DirEntry> {
    let line = |cookie, name: &[u8], ino| DirEntry {
        cookie,
        name: name.to_vec(),
        ino,
        kind: Kind::Dir,
        attr: None,
    };
    let both = [
        line(CURRENT_COOKIE, b".", ino),
        line(PARENT_COOKIE, b"..", parent),
    ];
    both.into_iter().filter(|e| e.cookie > after).collect()
}

/// Appends children to `out`; the inodes of the appended ones and what is stored of them, in the same order, where they are wanted.
fn children(
    fs: &Fs,
    rows: &dyn Rows,
    dir: Ino,
    after: u64,
    limit: usize,
    attributes: bool,
    out: &mut Vec<DirEntry>,
) -> Result<Vec<(Ino, Inode, u64)>, FsError> {
    let mut inodes = Vec::new();
    for listed in state::list(rows, dir, after, limit)? {
        if attributes {
            match state::inode(rows, listed.entry.ino)? {
                Some(inode) => {
                    let stored = fs.stored_bytes(rows, listed.entry.ino, &inode)?;
                    inodes.push((listed.entry.ino, inode, stored));
                }
                None => continue,
            }
        }
        out.push(DirEntry {
            cookie: listed.cookie,
            name: listed.name.as_bytes().to_vec(),
            ino: listed.entry.ino,
            kind: listed.entry.kind,
            attr: None,
        });
    }
    Ok(inodes)
}
