//! An inode as it stands in the state.

use crate::op::{Kind, NamedKey, NewNode};
use skrin_base::limits::{INLINE_MAX, LINK_MAX, SYMLINK_MAX};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{EntryId, Ino, KeyId, Name, OpId, Timestamp};

/// File keys that one inode may collect: one for each removal of a member and each shared range.
pub(crate) const KEYS_MAX: usize = 65_536;

/// One of the places at which an inode is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The directory.
    pub dir: Ino,
    /// The name in it.
    pub name: Name,
    /// The entry's id.
    pub entry: EntryId,
}

/// An inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device inode.
    pub rdev: u64,
    /// Length in bytes; of a symbolic link, that of its target.
    pub size: u64,
    /// Last access, as far as it is kept.
    pub atime: Timestamp,
    /// Last change of contents.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// When it was made.
    pub btime: Timestamp,
    /// The operation that made the present contents.
    pub version: OpId,
    /// Subdirectories, each of which has `..` pointing here.
    pub subdirs: u32,
    /// How many extended attributes it has.
    pub xattrs: u32,
    /// Where it is found. Directories have one place; the root has none.
    pub links: Vec<Link>,
    /// Keys that its extents name.
    pub keys: Vec<NamedKey>,
    /// Whole contents of a tiny file.
    pub inline: Option<Vec<u8>>,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
}

impl Inode {
    /// A new inode, made by `version` at `time`.
    pub fn new(node: &NewNode, version: OpId, time: Timestamp) -> Self {
        Self {
            kind: node.kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            size: node.target.len() as u64,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version,
            subdirs: 0,
            xattrs: 0,
            links: Vec::new(),
            keys: Vec::new(),
            inline: (node.kind == Kind::File).then(Vec::new),
            target: node.target.clone(),
        }
    }

    /// The root of a room before anything changed it.
    pub fn root() -> Self {
        let node = NewNode {
            kind: Kind::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: Vec::new(),
        };
        Self::new(&node, OpId::default(), Timestamp(0))
    }

    /// What `stat` calls the number of links.
    pub fn nlink(&self) -> u32 {
        match self.kind {
            Kind::Dir => self.subdirs.saturating_add(2),
            _ => u32::try_from(self.links.len()).unwrap_or(u32::MAX),
        }
    }

    /// The key of that name.
    pub fn key(&self, id: KeyId) -> Option<&NamedKey> {
        self.keys.iter().find(|k| k.id == id)
    }

    /// The directory in which a directory is; the root's is itself.
    pub fn parent(&self) -> Ino {
        self.links.first().map_or(Ino::ROOT, |link| link.dir)
    }
}

impl Encode for Link {
    fn encode(&self, w: &mut Writer) {
        self.dir.encode(w);
        self.name.encode(w);
        self.entry.encode(w);
    }
}

impl Decode for Link {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            dir: Ino::decode(r)?,
            name: Name::decode(r)?,
            entry: EntryId::decode(r)?,
        })
    }
}

impl Encode for Inode {
    fn encode(&self, w: &mut Writer) {
        self.kind.encode(w);
        w.u16(self.mode);
        w.u32(self.uid);
        w.u32(self.gid);
        w.u64(self.rdev);
        w.u64(self.size);
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            time.encode(w);
        }
        self.version.encode(w);
        w.u32(self.subdirs);
        w.u32(self.xattrs);
        w.list(&self.links);
        w.list(&self.keys);
        match &self.inline {
            None => w.u8(0),
            Some(bytes) => {
                w.u8(1);
                w.bytes(bytes);
            }
        }
        w.bytes(&self.target);
    }
}

impl Decode for Inode {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            kind: Kind::decode(r)?,
            mode: r.u16()?,
            uid: r.u32()?,
            gid: r.u32()?,
            rdev: r.u64()?,
            size: r.u64()?,
            atime: Timestamp::decode(r)?,
            mtime: Timestamp::decode(r)?,
            ctime: Timestamp::decode(r)?,
            btime: Timestamp::decode(r)?,
            version: OpId::decode(r)?,
            subdirs: r.u32()?,
            xattrs: r.u32()?,
            links: r.list("links", LINK_MAX)?,
            keys: r.list("file keys", KEYS_MAX)?,
            inline: match r.bool()? {
                true => Some(r.bytes("inline contents", INLINE_MAX)?.to_vec()),
                false => None,
            },
            target: r.bytes("symbolic link", SYMLINK_MAX)?.to_vec(),
        })
    }
}
