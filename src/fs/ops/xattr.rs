use super::inode_of;
use crate::core::Fs;
use crate::error::FsError;
use crate::types::{NodeId, XattrMode};
use skrin_base::limits::{XATTR_NAME_MAX, XATTR_TOTAL_MAX, XATTR_VALUE_MAX};
use skrin_meta::{OpKind, Rows, state};

/// Namespaces that are kept. `system.` would be ACLs, which are not supported.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.len() > XATTR_NAME_MAX {
        return Err(FsError::NameTooLong);
    }
    let known = NAMESPACES
        .iter()
        .any(|space| name.starts_with(space) && name.len() > space.len());
    if known {
        Ok(())
    } else {
        Err(FsError::AttributeNamespace)
    }
}

impl Fs {
    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, `AttributeNamespace`, `NotFound`.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>, FsError> {
        check_name(name)?;
        // Before the tree: the table of files is locked first everywhere.
        let is_open = self.files.get(node).is_some();
        let tree = self.replica.tree();
        let (ino, inode) = match inode_of(&tree, self.nodes.ino(node)) {
            // Of a file without a name nothing but contents is kept.
            Err(FsError::NotFound) if is_open => return Err(FsError::NoAttribute),
            found => found?,
        };
        if inode.xattrs == 0 {
            return Err(FsError::NoAttribute);
        }
        let value = state::xattr(&tree, ino, name)?;
        value.map(|v| v.to_vec()).ok_or(FsError::NoAttribute)
    }

    /// Names of the extended attributes, each followed by a NUL.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn listxattr(&self, node: NodeId) -> Result<Vec<u8>, FsError> {
        let is_open = self.files.get(node).is_some();
        let tree = self.replica.tree();
        let (ino, inode) = match inode_of(&tree, self.nodes.ino(node)) {
            Err(FsError::NotFound) if is_open => return Ok(Vec::new()),
            found => found?,
        };
        let mut out = Vec::new();
        if inode.xattrs > 0 {
            for (name, _) in state::xattrs(&tree, ino)? {
                out.extend_from_slice(&name);
                out.push(0);
            }
        }
        Ok(out)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// `AttributeNamespace`, `AttributeTooLong`, `AttributesFull`, `Exists`, `NoAttribute`, `NotFound`, `ReadOnly`.
    pub fn setxattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), FsError> {
        check_name(name)?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(FsError::AttributeTooLong);
        }
        self.commit(|tree| {
            let (ino, _) = inode_of(tree, self.nodes.ino(node))?;
            let there = state::xattr(tree, ino, name)?.is_some();
            match (mode, there) {
                (XattrMode::Create, true) => return Err(FsError::Exists),
                (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
                _ => {}
            }
            let others = total_but(tree, ino, name)?;
            if others + name.len() + value.len() > XATTR_TOTAL_MAX {
                return Err(FsError::AttributesFull);
            }
            let (name, value) = (name.to_vec(), value.to_vec());
            Ok(OpKind::SetXattr { ino, name, value })
        })?;
        Ok(())
    }

    /// Takes an extended attribute away.
    ///
    /// # Errors
    /// `NoAttribute`, `AttributeNamespace`, `NotFound`, `ReadOnly`.
    pub fn removexattr(&self, node: NodeId, name: &[u8]) -> Result<(), FsError> {
        check_name(name)?;
        self.commit(|tree| {
            let (ino, _) = inode_of(tree, self.nodes.ino(node))?;
            if state::xattr(tree, ino, name)?.is_none() {
                return Err(FsError::NoAttribute);
            }
            let name = name.to_vec();
            Ok(OpKind::RemoveXattr { ino, name })
        })?;
        Ok(())
    }
}

fn total_but(rows: &dyn Rows, ino: skrin_base::Ino, name: &[u8]) -> Result<usize, FsError> {
    let all = state::xattrs(rows, ino)?;
    let others = all.iter().filter(|(n, _)| **n != *name);
    Ok(others.map(|(n, v)| n.len() + v.len()).sum())
}
