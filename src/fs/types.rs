//! The file system's own words: no kernel structure and no object of the storage is named here.

use skrin_base::{Ino, Name, Timestamp};
use skrin_meta::Kind;

/// What the kernel calls a file of this mount: an inode in one of its branches (docs/semantics.md).
/// Usually the inode's own number; a number above 2^63 where two branches of one inode are known at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(1);
    /// Numbers from here on are made up by this mount; inode numbers have 63 bits.
    pub(crate) const FIRST_ALIAS: u64 = 1 << 63;
    /// Numbers from here on stand for what this machine keeps to itself.
    pub(crate) const FIRST_LOCAL: u64 = 5 << 61;
    /// Numbers from here on stand for what was: the directory of snapshots is the first.
    pub(crate) const FIRST_PAST: u64 = 3 << 62;

    /// Whether it lies in a snapshot, or is the directory of them: it never changes, and looking at it may wait for the storage.
    pub fn is_past(self) -> bool {
        self.0 >= Self::FIRST_PAST
    }

    /// Whether this is not the inode's own number, so that `Attr::ino` differs from it.
    pub fn is_alias(self) -> bool {
        (Self::FIRST_ALIAS..Self::FIRST_LOCAL).contains(&self.0)
    }

    /// Whether it belongs to this machine alone: looking at it and changing it never waits.
    pub fn is_local(self) -> bool {
        (Self::FIRST_LOCAL..Self::FIRST_PAST).contains(&self.0)
    }
}

/// An open file of one program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HandleId(pub u64);

impl HandleId {
    /// Behind this number are handles of files that belong to this machine alone.
    pub(crate) const FIRST_LOCAL: u64 = 1 << 63;

    pub(crate) fn is_local(self) -> bool {
        self.0 > Self::FIRST_LOCAL
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, for the log.
    pub pid: u32,
    /// Permissions that new files do not get, unless their directory says what they get.
    pub umask: u16,
}

/// What `stat` tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Where the kernel finds it.
    pub node: NodeId,
    /// The same on every device and after every remount.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u16,
    /// Names of it; for a directory 2 and its subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device.
    pub rdev: u64,
    /// Length in bytes.
    pub size: u64,
    /// Bytes that are stored: the length without the holes.
    pub stored: u64,
    /// Last access as far as it is kept: set explicitly, never by reading.
    pub atime: Timestamp,
    /// Last change of contents.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// When it was made.
    pub btime: Timestamp,
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// That of the clock.
    Now,
    /// That given.
    At(Timestamp),
}

/// Attributes to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length; shortens or grows by a hole.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

/// What an open asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenMode {
    /// Whether it may write.
    pub write: bool,
    /// Whether contents go first.
    pub truncate: bool,
}

/// What mknod makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeSpec {
    /// Anything but a directory or a symbolic link.
    pub kind: Kind,
    /// Permission bits as asked for: the umask is taken away here.
    pub mode: u16,
    /// Device number of a device, else 0.
    pub rdev: u64,
}

/// One line of a directory listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Position behind this entry: a listing goes on from there, whatever changed meanwhile.
    pub cookie: u64,
    /// Name; `.` and `..` among them.
    pub name: Vec<u8>,
    /// What it names.
    pub ino: Ino,
    /// What kind of inode that is.
    pub kind: Kind,
    /// Its attributes, where they were asked for and the entry is a child.
    pub attr: Option<Attr>,
}

/// How a rename treats what is at the new name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RenameMode {
    /// Replace it.
    #[default]
    Replace,
    /// Refuse with EEXIST.
    NoReplace,
    /// Let both change places.
    Exchange,
}

/// How an extended attribute is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XattrMode {
    /// Make or replace.
    #[default]
    Any,
    /// Refuse with EEXIST if it is there.
    Create,
    /// Refuse with ENODATA if it is not.
    Replace,
}

/// What `lseek` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// The next byte that is stored.
    Data,
    /// The next hole; the end of the file is one.
    Hole,
}

/// What `fallocate` does to a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocate {
    /// Makes the file at least as long as the range's end. No room is set aside: the storage cannot promise any.
    Extend,
    /// Only promises room, which is not done.
    KeepSize,
    /// The range reads as zeros afterwards and takes no room.
    PunchHole,
    /// The range reads as zeros; the file grows to its end.
    Zero,
}

/// Room on the storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// All bytes.
    pub total: u64,
    /// Bytes that can still be written.
    pub free: u64,
}

/// What `statfs` tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatFs {
    /// Length of a block, the unit of the next two.
    pub block_len: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub free: u64,
    /// Longest name.
    pub name_max: u32,
}

/// Told what the kernel may have cached and is no longer so. Called on a thread that holds no lock of the file
/// system, after the new state is visible.
pub trait Notify: Send + Sync + 'static {
    /// The name in the directory means something else, or nothing, now.
    fn entry(&self, dir: NodeId, name: &Name);
    /// The attributes of the node changed.
    fn attributes(&self, node: NodeId);
    /// What the directory lists changed, and its attributes. Told behind the entries: a listing that was answered from the old
    /// state is in the kernel's cache by then, so that it is dropped as well.
    fn listing(&self, dir: NodeId);
    /// What programs wrote to the node is to be written here now, as far as the kernel still keeps it to itself. Returns when it is.
    fn write_back(&self, node: NodeId);
}
