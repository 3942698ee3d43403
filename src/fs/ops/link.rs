use super::{check_free, dir_of, inode_of, name_of};
use crate::core::Fs;
use crate::error::FsError;
use crate::types::{Attr, NodeId};
use skrin_base::limits::LINK_MAX;
use skrin_meta::{Kind, OpKind, state};

impl Fs {
    /// Gives an inode one more name; counts as a look-up.
    ///
    /// # Errors
    /// `NotPermitted` for directories, `TooManyLinks`, `Exists`, `OtherDevice`, `NotFound` also for a file without any name left.
    pub fn link(&self, node: NodeId, dir: NodeId, name: &[u8]) -> Result<Attr, FsError> {
        let name = name_of(name)?;
        self.check_allowed()?;
        self.check_present(node)?;
        self.check_not_reserved(dir, &name)?;
        match (node.is_local(), self.local_place(dir, &name)?) {
            (false, None) => self.publisher.check_taken()?,
            (true, Some(place)) => return self.link_local(node, place),
            _ => return Err(FsError::OtherDevice),
        }
        self.flush_renamed(self.nodes.ino(node))?;
        let (ino, inode, stored) = self.awaiting_room(|| {
            let mut tree = self.replica.tree();
            let (ino, inode) = inode_of(&tree, self.nodes.ino(node))?;
            let (dir, _) = dir_of(&tree, self.nodes.ino(dir))?;
            if inode.kind == Kind::Dir {
                return Err(FsError::NotPermitted("directories have one name"));
            }
            if inode.links.len() >= LINK_MAX {
                return Err(FsError::TooManyLinks);
            }
            check_free(&tree, dir, &name)?;
            let place = self.new_place(dir, name.clone());
            self.execute(&mut tree, OpKind::Link { ino, place })?;
            let inode = state::inode(&tree, ino)?.ok_or(FsError::NotFound)?;
            let stored = self.stored_bytes(&tree, ino, &inode)?;
            Ok((ino, inode, stored))
        })?;
        Ok(self.entry_attr((ino, &inode), stored, true))
    }
}
