use super::inode_of;
use crate::acl::{self, Acl};
use crate::core::Fs;
use crate::error::FsError;
use crate::file::Gone;
use crate::types::{NodeId, XattrMode};
use skrin_base::limits::{XATTR_NAME_MAX, XATTR_TOTAL_MAX, XATTR_VALUE_MAX};
use skrin_base::{Ino, Timestamp};
use skrin_meta::state::{self, Inode};
use skrin_meta::{Kind, OpKind, Rows};
use std::collections::BTreeMap;

/// Namespaces that are kept. Of `system.` there are the two access control lists only.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
const SET_GID: u16 = 0o2000;

/// Extended attributes by name.
pub(crate) type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// One change of an inode.
enum Change {
    Set(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Mode(u16),
}

impl Change {
    fn operation(self, ino: Ino) -> OpKind {
        match self {
            Self::Set(name, value) => OpKind::SetXattr { ino, name, value },
            Self::Remove(name) => OpKind::RemoveXattr { ino, name },
            Self::Mode(mode) => set_mode(ino, mode),
        }
    }

    /// The same for an inode that only an open file has.
    fn apply(self, gone: &mut Gone) {
        match self {
            Self::Set(name, value) => drop(gone.xattrs.insert(name, value)),
            Self::Remove(name) => drop(gone.xattrs.remove(&name)),
            Self::Mode(mode) => gone.inode.mode = mode,
        }
    }
}

/// The operation that sets nothing but the mode.
pub(super) fn set_mode(ino: Ino, mode: u16) -> OpKind {
    OpKind::SetAttr {
        ino,
        mode: Some(mode),
        uid: None,
        gid: None,
        atime: None,
        mtime: None,
    }
}

fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.len() > XATTR_NAME_MAX {
        return Err(FsError::NameTooLong);
    }
    if NAMESPACES.contains(&name) {
        return Err(FsError::Invalid("the name of the attribute is empty"));
    }
    let known = NAMESPACES.iter().any(|space| name.starts_with(space));
    if known || is_acl(name) {
        Ok(())
    } else {
        Err(FsError::AttributeNamespace)
    }
}

/// The attributes that an inode has in the tree.
pub(crate) fn attributes(rows: &dyn Rows, ino: Ino, inode: &Inode) -> Result<Attributes, FsError> {
    if inode.xattrs == 0 {
        return Ok(Attributes::new());
    }
    let rows = state::xattrs(rows, ino)?;
    let all = rows.into_iter().map(|(n, v)| (n.into_vec(), v.to_vec()));
    Ok(all.collect())
}

/// A value as programs see it: of an access list, what the mode says comes from the mode.
pub(crate) fn shown(name: &[u8], value: &[u8], mode: u16) -> Result<Vec<u8>, FsError> {
    if name != acl::ACCESS {
        return Ok(value.to_vec());
    }
    let list = Acl::parse(value).ok_or(FsError::NoAttribute)?;
    Ok(list.with_mode(mode).to_bytes())
}

impl Gone {
    pub(crate) fn shown(&self, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let value = self.xattrs.get(name).ok_or(FsError::NoAttribute)?;
        shown(name, value, self.inode.mode)
    }

    fn change_xattrs(
        &mut self,
        plan: impl FnOnce(&Inode, &Attributes) -> Result<Vec<Change>, FsError>,
        now: Timestamp,
    ) -> Result<(), FsError> {
        for change in plan(&self.inode, &self.xattrs)? {
            change.apply(self);
        }
        self.inode.ctime = now;
        Ok(())
    }
}

fn check_room(there: &Attributes, name: &[u8], value: &[u8]) -> Result<(), FsError> {
    let others = there.iter().filter(|(n, _)| *n != name);
    let others: usize = others.map(|(n, v)| n.len() + v.len()).sum();
    if others + name.len() + value.len() > XATTR_TOTAL_MAX {
        return Err(FsError::AttributesFull);
    }
    Ok(())
}

impl Fs {
    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, `AttributeNamespace`, `NotFound`.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>, FsError> {
        check_name(name)?;
        if node.is_past() {
            return self.past_getxattr(node, name);
        }
        if node.is_local() {
            return self.with_local(node, |attributes| attributes.shown(name))?;
        }
        // Before the tree: the table of files is locked first everywhere.
        let file = self.files.get(node);
        let tree = self.replica.tree();
        if let Some(file) = &file
            && let Some(gone) = &*file.gone.lock()
        {
            return gone.shown(name);
        }
        let (ino, inode) = match inode_of(&tree, self.nodes.ino(node)) {
            // Of a file that another device removed nothing but contents is kept.
            Err(FsError::NotFound) if file.is_some() => return Err(FsError::NoAttribute),
            Err(FsError::NotFound) => {
                let kept = |gone: &mut Gone| gone.shown(name);
                let kept = self.nodes.with_removed(node, kept);
                return kept.unwrap_or(Err(FsError::NotFound));
            }
            found => found?,
        };
        if inode.xattrs == 0 {
            return Err(FsError::NoAttribute);
        }
        let value = state::xattr(&tree, ino, name)?;
        shown(name, &value.ok_or(FsError::NoAttribute)?, inode.mode)
    }

    /// Names of the extended attributes, each followed by a NUL.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn listxattr(&self, node: NodeId) -> Result<Vec<u8>, FsError> {
        if node.is_past() {
            return self.past_listxattr(node);
        }
        let names = |all: Attributes| {
            let names = all.into_keys().flat_map(|name| [name, vec![0]].concat());
            names.collect()
        };
        if node.is_local() {
            return self.with_local(node, |attributes| names(attributes.xattrs.clone()));
        }
        let file = self.files.get(node);
        let tree = self.replica.tree();
        let gone = file
            .as_ref()
            .and_then(|f| f.gone.lock().as_ref().map(|gone| gone.xattrs.clone()));
        let all = match gone {
            Some(all) => all,
            None => match inode_of(&tree, self.nodes.ino(node)) {
                Err(FsError::NotFound) if file.is_some() => Attributes::new(),
                Err(FsError::NotFound) => {
                    let kept = self.nodes.with_removed(node, |gone| gone.xattrs.clone());
                    kept.ok_or(FsError::NotFound)?
                }
                found => {
                    let (ino, inode) = found?;
                    attributes(&tree, ino, &inode)?
                }
            },
        };
        Ok(names(all))
    }

    /// Sets an extended attribute that is not an access control list.
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
        if is_acl(name) {
            return self.set_acl(node, name, value, true);
        }
        if value.len() > XATTR_VALUE_MAX {
            return Err(FsError::AttributeTooLong);
        }
        self.change(node, |_, there| {
            match (mode, there.contains_key(name)) {
                (XattrMode::Create, true) => return Err(FsError::Exists),
                (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
                _ => {}
            }
            check_room(there, name, value)?;
            Ok(vec![Change::Set(name.to_vec(), value.to_vec())])
        })
    }

    /// Sets one of the two access control lists; the mode follows the list of who may do what. Without `keep_set_gid` the
    /// set-group-id bit goes: whoever asks is not of the file's group.
    ///
    /// # Errors
    /// `Invalid` for what is not a list, `Unsupported` where there can be none, `AttributesFull`, `NotFound`, `ReadOnly`.
    pub fn set_acl(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        keep_set_gid: bool,
    ) -> Result<(), FsError> {
        let list = Acl::parse(value).ok_or(FsError::Invalid("not an access control list"))?;
        let access = name == acl::ACCESS;
        self.change(node, |inode, there| {
            if inode.kind == Kind::Symlink || !access && inode.kind != Kind::Dir {
                return Err(FsError::Unsupported("such an access control list here"));
            }
            check_room(there, name, value)?;
            let set = Change::Set(name.to_vec(), value.to_vec());
            if !access {
                return Ok(vec![set]);
            }
            let mut mode = acl::with_permissions(inode.mode, list.mode());
            if !keep_set_gid {
                mode &= !SET_GID;
            }
            let mode = (mode != inode.mode).then_some(Change::Mode(mode));
            // In between nobody has more than before or after: the mode of a list goes wider than its group.
            Ok(match list.is_mode() {
                false => [set].into_iter().chain(mode).collect(),
                true => {
                    let had = there.contains_key(name);
                    let remove = had.then(|| Change::Remove(name.to_vec()));
                    mode.into_iter().chain(remove).collect()
                }
            })
        })
    }

    /// Takes an extended attribute away.
    ///
    /// # Errors
    /// `NoAttribute`, `AttributeNamespace`, `NotFound`, `ReadOnly`.
    pub fn removexattr(&self, node: NodeId, name: &[u8]) -> Result<(), FsError> {
        check_name(name)?;
        self.change(node, |_, there| match there.contains_key(name) {
            true => Ok(vec![Change::Remove(name.to_vec())]),
            false => Err(FsError::NoAttribute),
        })
    }

    /// Changes attributes as `plan` says, which sees the inode and what it has.
    fn change(
        &self,
        node: NodeId,
        plan: impl FnOnce(&Inode, &Attributes) -> Result<Vec<Change>, FsError>,
    ) -> Result<(), FsError> {
        self.check_node_writable(node)?;
        self.check_present(node)?;
        if node.is_local() {
            return self.change_local(node, |gone| gone.change_xattrs(plan, self.now()));
        }
        let file = self.files.get(node);
        let mut tree = self.replica.tree();
        if let Some(file) = &file
            && let Some(gone) = &mut *file.gone.lock()
        {
            return gone.change_xattrs(plan, self.now());
        }
        let (ino, inode) = match inode_of(&tree, self.nodes.ino(node)) {
            Err(FsError::NotFound) => {
                let change = |gone: &mut Gone| gone.change_xattrs(plan, self.now());
                let changed = self.nodes.with_removed(node, change);
                return changed.unwrap_or(Err(FsError::NotFound));
            }
            found => found?,
        };
        for change in plan(&inode, &attributes(&tree, ino, &inode)?)? {
            self.execute(&mut tree, change.operation(ino))?;
        }
        drop(tree);
        file.map_or(Ok(()), |file| self.note_attributes(&file))
    }
}
