use super::inode_of;
use crate::core::Fs;
use crate::error::FsError;
use crate::file::{Gone, OpenFile};
use crate::types::{Attr, NodeId};
use skrin_meta::{Kind, state};

impl Fs {
    /// Attributes of a node.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn getattr(&self, node: NodeId) -> Result<Attr, FsError> {
        if node.is_past() {
            return self.past_getattr(node);
        }
        if node.is_local() {
            return self.local_attr(node);
        }
        if let Some(file) = self.files.get(node) {
            return self.open_attr(&file);
        }
        let tree = self.replica.tree();
        let (ino, inode) = match inode_of(&tree, self.nodes.ino(node)) {
            Err(FsError::NotFound) => return self.removed_attr(node),
            found => found?,
        };
        let mut attr = Self::attr_of(node, ino, &inode);
        attr.stored = self.stored_bytes(&tree, ino, &inode)?;
        if inode.kind == Kind::Dir {
            self.count_local_dirs(&mut attr);
        }
        Ok(attr)
    }

    /// Attributes of what has no name any more and is no open file.
    fn removed_attr(&self, node: NodeId) -> Result<Attr, FsError> {
        let ino = self.nodes.ino(node);
        let seen = |gone: &mut Gone| Attr {
            nlink: 0,
            ..Self::attr_of(node, ino, &gone.inode)
        };
        self.nodes.with_removed(node, seen).ok_or(FsError::NotFound)
    }

    /// Attributes of an open file, whether or not it still has a name.
    pub(crate) fn open_attr(&self, file: &OpenFile) -> Result<Attr, FsError> {
        let gone = file.gone.lock().as_ref().map(|gone| gone.inode.clone());
        let found = match gone {
            Some(inode) => Some(inode),
            None => state::inode(&self.replica.tree(), file.ino)?,
        };
        let inode = match found {
            Some(inode) => inode,
            None => {
                // Another device removed it: it lives on as it was opened.
                let mut inode = (*file.state.lock().inode).clone();
                inode.links.clear();
                inode
            }
        };
        let mut attr = Self::attr_of(file.node, file.ino, &inode);
        attr.stored = file.state.lock().content.stored_bytes();
        self.overlay(&mut attr, inode.version);
        Ok(attr)
    }

    /// Where a symbolic link points to.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` for anything else.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>, FsError> {
        if node.is_past() {
            return self.past_readlink(node);
        }
        if node.is_local() {
            return self.local_readlink(node);
        }
        let (_, inode) = inode_of(&self.replica.tree(), self.nodes.ino(node))?;
        match inode.kind {
            Kind::Symlink => Ok(inode.target),
            _ => Err(FsError::Invalid("not a symbolic link")),
        }
    }
}
