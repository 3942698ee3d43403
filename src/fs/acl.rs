//! POSIX access control lists, in the form in which Linux keeps them in extended attributes (`posix_acl_xattr.h`, version 2): a
//! version and entries of tag, permissions and id, little-endian, in the order of tags.
//!
//! The mode of an inode is the truth about its owner, its group class and all others: of an access list only what the mode
//! cannot say counts, so that `chmod`, or another device that sets the mode, changes the list along.

use crate::error::FsError;
use skrin_base::Ino;
use skrin_meta::state::{self, Inode};
use skrin_meta::{Kind, Rows};

/// The attribute that holds who may do what.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of a directory that holds what new entries begin with.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_LEN: usize = 8;
const PERMISSIONS: u16 = 0o777;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A list that has the form of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Acl(Vec<Entry>);

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_le_bytes(two))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(four))
}

impl Acl {
    /// The list that `bytes` hold; `None` if they do not have the form of one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_at_checked(4)?;
        if u32_at(version, 0)? != VERSION || rest.len() % ENTRY_LEN != 0 {
            return None;
        }
        let entry = |e: &[u8]| {
            Some(Entry {
                tag: u16_at(e, 0)?,
                permissions: u16_at(e, 2)?,
                id: u32_at(e, 4)?,
            })
        };
        let entries: Option<Vec<Entry>> = rest.chunks_exact(ENTRY_LEN).map(entry).collect();
        Some(Self(entries?)).filter(Self::is_valid)
    }

    /// One entry each for owner, group and others, at most one mask, which there must be where users or groups are named.
    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|e| e.tag == tag).count();
        let known = |e: &Entry| {
            matches!(e.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER)
                && e.permissions <= 7
        };
        let needed = [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|t| count(*t) == 1);
        let named = count(USER) + count(GROUP) > 0;
        let masks = count(MASK);
        self.0.iter().all(known)
            && self.0.is_sorted_by_key(|e| e.tag)
            && needed
            && masks <= 1
            && (masks == 1 || !named)
    }

    /// The bytes of the attribute.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for e in &self.0 {
            out.extend_from_slice(&e.tag.to_le_bytes());
            out.extend_from_slice(&e.permissions.to_le_bytes());
            out.extend_from_slice(&e.id.to_le_bytes());
        }
        out
    }

    fn has_mask(&self) -> bool {
        self.0.iter().any(|e| e.tag == MASK)
    }

    /// Whether the mode says all that the list does.
    pub(crate) fn is_mode(&self) -> bool {
        !self.has_mask()
    }

    fn permissions(&self, tag: u16) -> u16 {
        let found = self.0.iter().find(|e| e.tag == tag);
        found.map_or(0, |e| e.permissions)
    }

    /// The nine bits that an inode with this list has: the mask, if there is one, is its group class.
    pub(crate) fn mode(&self) -> u16 {
        let group = if self.has_mask() { MASK } else { GROUP_OBJ };
        self.permissions(USER_OBJ) << 6 | self.permissions(group) << 3 | self.permissions(OTHER)
    }

    /// The permissions of the group itself, in their place in a mode: what the group class is without the list.
    pub(crate) fn group_bits(&self) -> u16 {
        self.permissions(GROUP_OBJ) << 3
    }

    /// The list as an inode with that mode has it.
    pub(crate) fn with_mode(mut self, mode: u16) -> Self {
        let group = if self.has_mask() { MASK } else { GROUP_OBJ };
        for e in &mut self.0 {
            match e.tag {
                USER_OBJ => e.permissions = mode >> 6 & 7,
                OTHER => e.permissions = mode & 7,
                tag if tag == group => e.permissions = mode >> 3 & 7,
                _ => {}
            }
        }
        self
    }
}

/// `mode` with other permission bits.
pub(crate) fn with_permissions(mode: u16, permissions: u16) -> u16 {
    mode & !PERMISSIONS | permissions & PERMISSIONS
}

/// What a directory gives to a new entry.
pub(crate) struct Inherited {
    /// The mode to make it with: safe for as long as the attributes are not there.
    pub(crate) first_mode: u16,
    /// The mode that it has in the end.
    pub(crate) mode: u16,
    /// Attributes that it gets.
    pub(crate) xattrs: Vec<(&'static [u8], Vec<u8>)>,
}

/// What a new entry begins with, asked for with `mode`, in a directory with this default list: where there is one the umask has no part
/// in it.
pub(crate) fn inherit(default: Option<Vec<u8>>, kind: Kind, mode: u16, umask: u16) -> Inherited {
    let plain = |mode| Inherited {
        first_mode: mode,
        mode,
        xattrs: Vec::new(),
    };
    if kind == Kind::Symlink {
        return plain(mode);
    }
    let default = default.and_then(|bytes| Some((Acl::parse(&bytes)?, bytes)));
    let Some((acl, bytes)) = default else {
        return plain(mode & !(umask & PERMISSIONS));
    };
    let mode = with_permissions(mode, mode & acl.mode());
    let mut inherited = plain(mode);
    if !acl.is_mode() {
        inherited.first_mode = mode & (acl.group_bits() | !0o070);
        let access = acl.with_mode(mode).to_bytes();
        inherited.xattrs.push((ACCESS, access));
    }
    if kind == Kind::Dir {
        inherited.xattrs.push((DEFAULT, bytes));
    }
    inherited
}

/// The default list of a directory of the tree.
pub(crate) fn default_of(
    rows: &dyn Rows,
    dir: Ino,
    parent: &Inode,
) -> Result<Option<Vec<u8>>, FsError> {
    if parent.xattrs == 0 {
        return Ok(None);
    }
    let found = state::xattr(rows, dir, DEFAULT)?;
    Ok(found.map(|bytes| bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        let entry = |(tag, permissions, id): &(u16, u16, u32)| Entry {
            tag: *tag,
            permissions: *permissions,
            id: *id,
        };
        Acl(entries.iter().map(entry).collect())
    }

    fn named() -> Acl {
        acl(&[
            (USER_OBJ, 6, u32::MAX),
            (USER, 6, 1000),
            (GROUP_OBJ, 4, u32::MAX),
            (GROUP, 7, 50),
            (MASK, 6, u32::MAX),
            (OTHER, 0, u32::MAX),
        ])
    }

    #[test]
    fn a_list_is_read_back_as_it_was_written() {
        let bytes = named().to_bytes();
        assert_eq!(bytes.len(), 4 + 6 * 8);
        assert_eq!(Acl::parse(&bytes), Some(named()));
    }

    #[test]
    fn what_has_not_the_form_of_a_list_is_none() {
        let bytes = named().to_bytes();
        for len in (0..bytes.len()).filter(|len| (len + 4) % 8 != 0) {
            assert_eq!(Acl::parse(&bytes[..len]), None, "{len} bytes");
        }
        let mut version = bytes;
        version[0] = 1;
        let (u, g, o) = ((USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 4, 0));
        let wrong = [
            acl(&[]),
            acl(&[u, g]),
            acl(&[u, u, g, o]),
            acl(&[u, (USER, 7, 5), g, o]),
            acl(&[u, o, g]),
            acl(&[u, g, (MASK, 7, 0), (MASK, 7, 0), o]),
            acl(&[u, g, (OTHER, 8, 0)]),
            acl(&[u, g, o, (0x40, 0, 0)]),
        ];
        let all = wrong.iter().map(Acl::to_bytes).chain([version]);
        all.for_each(|bytes| assert_eq!(Acl::parse(&bytes), None, "{bytes:?}"));
    }

    #[test]
    fn the_mask_is_the_group_class_of_the_mode() {
        assert_eq!(named().mode(), 0o660);
        assert_eq!(named().group_bits(), 0o040);
        let changed = named().with_mode(0o4751);
        assert_eq!(changed.mode(), 0o751);
        assert_eq!(changed.group_bits(), 0o040);
        let plain = acl(&[(USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 4, 0)]);
        assert!(plain.is_mode());
        assert_eq!(plain.with_mode(0o710).mode(), 0o710);
    }
}
