use super::{dir_of, entry_of, inode_of, name_of};
use crate::core::Fs;
use crate::error::FsError;
use crate::leases::is_lock;
use crate::types::{Attr, NodeId};

impl Fs {
    /// Finds a name in a directory. A success counts as one look-up, which `forget` takes back.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NameTooLong`.
    pub fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Attr, FsError> {
        let name = name_of(name)?;
        if dir.is_past() {
            return self.past_lookup(dir, &name);
        }
        if self.is_reserved(dir, &name)? {
            return self.snapshots_attr();
        }
        if let Some(place) = self.local_place(dir, &name)? {
            return self.local_lookup(&place);
        }
        if is_lock(name.as_bytes())
            && let Err(error) = self.end_if_dead(self.nodes.ino(dir), &name)
        {
            tracing::debug!(%error, "a lock file whose program has ended cannot be removed now");
        }
        let (ino, inode, stored) = {
            let tree = self.replica.tree();
            let (dir, _) = dir_of(&tree, self.nodes.ino(dir))?;
            let entry = entry_of(&tree, dir, &name)?;
            let (ino, inode) = inode_of(&tree, entry.ino)?;
            let stored = self.stored_bytes(&tree, ino, &inode)?;
            (ino, inode, stored)
        };
        Ok(self.entry_attr((ino, &inode), stored, true))
    }

    /// The kernel lets go of so many look-ups of a node.
    pub fn forget(&self, node: NodeId, count: u64) {
        match node {
            past if past.is_past() => self.views.forget(node, count),
            local if local.is_local() => self.forget_local(node, count),
            _ => self.nodes.forget(node, count),
        }
    }

    /// Counts one look-up: the kernel was told of the node in a listing.
    pub fn looked_up(&self, node: NodeId) {
        match node {
            past if past.is_past() => self.views.looked_up(node),
            local if local.is_local() => self.local_looked_up(node),
            _ => self.nodes.looked_up(node),
        }
    }
}
