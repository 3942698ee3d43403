//! Operations (docs/format/operations.md, section 1): what a device says that it did, naming what it saw.

use skrin_base::limits::{
    FILE_LEN_MAX, INLINE_MAX, LABEL_MAX, OP_MAX, RELOCATED_SLOTS_MAX, RUNS_TOLD_MAX,
    SEGMENT_SLOTS_MAX, SYMLINK_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTRS_TOLD_MAX,
};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, EntryId, Extent, Ino, KeyId, Name, OpId, SegmentId, Timestamp};
use std::fmt;

/// Extents in one operation: `OP_MAX` divided by the length of a stored extent.
const EXTENTS_MAX: usize = OP_MAX / 61;
/// File keys that one operation may introduce: those of a file of `RUNS_TOLD_MAX` runs, and as many new ones.
pub const NEW_KEYS_MAX: usize = 2 * RUNS_TOLD_MAX;

/// Runs of versions that one operation forgets.
pub const VERSION_RUNS_MAX: usize = 4096;

/// A place in the tree: an entry of that id and name in that directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The directory.
    pub dir: Ino,
    /// The name.
    pub name: Name,
    /// The entry's id; a rename keeps it.
    pub entry: EntryId,
}

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    File = 1,
    /// A directory.
    Dir = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A named pipe.
    Fifo = 4,
    /// A socket.
    Socket = 5,
    /// A character device.
    CharDevice = 6,
    /// A block device.
    BlockDevice = 7,
}

impl Kind {
    fn from_tag(tag: u8) -> Result<Self, WireError> {
        Ok(match tag {
            1 => Self::File,
            2 => Self::Dir,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::Socket,
            6 => Self::CharDevice,
            7 => Self::BlockDevice,
            _ => return Err(WireError::Value("inode kind")),
        })
    }
}

impl Encode for Kind {
    fn encode(&self, w: &mut Writer) {
        w.u8(*self as u8);
    }
}

impl Decode for Kind {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Self::from_tag(r.u8()?)
    }
}

/// A file key as it stands in operations and inodes. Prints its name only.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedKey {
    /// Names the key in extents.
    pub id: KeyId,
    /// The key itself.
    pub key: [u8; 32],
}

impl fmt::Debug for NamedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamedKey({})", self.id)
    }
}

impl Encode for NamedKey {
    fn encode(&self, w: &mut Writer) {
        self.id.encode(w);
        w.raw(&self.key);
    }
}

impl Decode for NamedKey {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            id: KeyId::decode(r)?,
            key: r.array()?,
        })
    }
}

/// A new inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewNode {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-uid, set-gid and sticky: 12 bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device inode, else 0.
    pub rdev: u64,
    /// Target of a symbolic link, else empty.
    pub target: Vec<u8>,
}

/// New contents of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// The whole contents, in the operation itself; as long as the file.
    Inline(Vec<u8>),
    /// Extents that replace what was in their ranges.
    Extents {
        /// Whether they are all extents of the file: those not named are gone.
        full: bool,
        /// Ascending, without overlap.
        list: Vec<Extent>,
    },
}

/// What a file was beside its contents, for whoever has to make it again from a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Permission bits, with set-uid, set-gid and sticky: 12 bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was made.
    pub btime: Timestamp,
    /// Extended attributes, access control lists among them, in the order of names: `XATTRS_TOLD_MAX` bytes in all.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What was seen at a name that a rename replaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The entry.
    pub entry: EntryId,
    /// The inode it named.
    pub ino: Ino,
    /// That inode's content version.
    pub version: OpId,
}

/// Consecutive slots of one segment, and where they lie in another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotRun {
    /// First slot in the segment.
    pub first: u32,
    /// How many; at least 1.
    pub count: u32,
    /// First slot in the host.
    pub at: u32,
}

/// Versions that operations of one device made, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionRun {
    /// The device.
    pub device: DeviceId,
    /// The first counter.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpKind {
    /// A new inode at a new entry.
    Create {
        /// Where.
        place: Place,
        /// Its number, drawn at random.
        ino: Ino,
        /// What.
        node: NewNode,
    },
    /// One more entry for an inode that exists.
    Link {
        /// The inode.
        ino: Ino,
        /// The new entry.
        place: Place,
    },
    /// An entry goes, and with the last one its inode.
    Remove {
        /// The entry as seen.
        place: Place,
        /// The inode it named.
        ino: Ino,
        /// The content version that was seen; a newer one is kept.
        version: OpId,
    },
    /// An entry moves.
    Rename {
        /// The inode that the entry names.
        ino: Ino,
        /// The entry, where it was seen.
        from: Place,
        /// Directory that it moves to.
        to_dir: Ino,
        /// Its new name.
        to_name: Name,
        /// What was seen at the new name and is to be replaced.
        replaces: Option<Seen>,
    },
    /// Two entries change places.
    Exchange {
        /// Inode at the first place.
        ino: Ino,
        /// The first place.
        a: Place,
        /// Inode at the second place.
        other: Ino,
        /// The second place.
        b: Place,
    },
    /// Attributes; the last writer of each field wins.
    SetAttr {
        /// The inode.
        ino: Ino,
        /// Permission bits.
        mode: Option<u16>,
        /// Owner.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
        /// Access time.
        atime: Option<Timestamp>,
        /// Modification time.
        mtime: Option<Timestamp>,
    },
    /// New contents or a new length.
    Write {
        /// The inode.
        ino: Ino,
        /// The content version that the change started from.
        base: OpId,
        /// Length of the file afterwards, in bytes.
        size: u64,
        /// Modification time.
        mtime: Timestamp,
        /// Keys that the inode gets and that the extents name.
        keys: Vec<NamedKey>,
        /// What is there now.
        body: Body,
        /// A place at which the writer knew the file: it is made again there if it is gone.
        place: Place,
        /// And as what.
        attributes: Attributes,
    },
    /// An extended attribute gets a value.
    SetXattr {
        /// The inode.
        ino: Ino,
        /// Name with its namespace, as in `user.comment`.
        name: Vec<u8>,
        /// Value.
        value: Vec<u8>,
    },
    /// An extended attribute goes.
    RemoveXattr {
        /// The inode.
        ino: Ino,
        /// Name with its namespace.
        name: Vec<u8>,
    },
    /// What people call the device, for the names of conflict copies.
    Label {
        /// At most 64 bytes of UTF-8.
        label: String,
    },
    /// The state before this operation, as its device saw it, gets a name.
    Snapshot {
        /// The name.
        name: Name,
    },
    /// A snapshot loses its name.
    ForgetSnapshot {
        /// The name.
        name: Name,
        /// The operation that gave it.
        snapshot: OpId,
    },
    /// Blocks of a segment lie in another one as well. Changes no file.
    Relocate {
        /// The segment for which they were sealed.
        segment: SegmentId,
        /// Where they lie, too.
        host: SegmentId,
        /// Slot of the segment's table there.
        table_slot: u32,
        /// Which ones, and where; ascending, without overlap.
        runs: Vec<SlotRun>,
    },
    /// How much of the past is kept; the last one counts.
    Retention {
        /// So many seconds back; 0 is for ever.
        seconds: u64,
    },
    /// Nobody starts from these versions any more: what they held need not be remembered.
    ForgetVersions {
        /// Which.
        runs: Vec<VersionRun>,
    },
    /// An operation that this version does not know and may ignore; kept as it is.
    Unknown {
        /// Its tag, 0x80 or above.
        tag: u8,
        /// Its encoding.
        body: Vec<u8>,
    },
}

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    /// Its permanent name.
    pub id: OpId,
    /// When the device's user did it, by that device's clock.
    pub time: Timestamp,
    /// What happened.
    pub kind: OpKind,
}

impl Encode for Place {
    fn encode(&self, w: &mut Writer) {
        self.dir.encode(w);
        self.name.encode(w);
        self.entry.encode(w);
    }
}

impl Decode for Place {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            dir: Ino::decode(r)?,
            name: Name::decode(r)?,
            entry: EntryId::decode(r)?,
        })
    }
}

impl Encode for Seen {
    fn encode(&self, w: &mut Writer) {
        self.entry.encode(w);
        self.ino.encode(w);
        self.version.encode(w);
    }
}

impl Decode for Seen {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            entry: EntryId::decode(r)?,
            ino: Ino::decode(r)?,
            version: OpId::decode(r)?,
        })
    }
}

impl Encode for SlotRun {
    fn encode(&self, w: &mut Writer) {
        w.u32(self.first);
        w.u32(self.count);
        w.u32(self.at);
    }
}

impl Decode for SlotRun {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let run = Self {
            first: r.u32()?,
            count: r.u32()?,
            at: r.u32()?,
        };
        let within = |first: u32, max: usize| u64::from(first) + u64::from(run.count) <= max as u64;
        let fits = within(run.first, RELOCATED_SLOTS_MAX) && within(run.at, SEGMENT_SLOTS_MAX);
        match run.count > 0 && fits {
            true => Ok(run),
            false => Err(WireError::Value("slots")),
        }
    }
}

impl Encode for VersionRun {
    fn encode(&self, w: &mut Writer) {
        self.device.encode(w);
        w.u64(self.first);
        w.u64(self.last);
    }
}

impl Decode for VersionRun {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let run = Self {
            device: DeviceId::decode(r)?,
            first: r.u64()?,
            last: r.u64()?,
        };
        match run.first <= run.last {
            true => Ok(run),
            false => Err(WireError::Value("versions")),
        }
    }
}

fn decode_relocate(r: &mut Reader<'_>) -> Result<OpKind, WireError> {
    let (segment, host) = (SegmentId::decode(r)?, SegmentId::decode(r)?);
    let table_slot = r.u32()?;
    let runs: Vec<SlotRun> = r.list("relocated slots", RELOCATED_SLOTS_MAX)?;
    let ascending = runs
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.first + a.count <= b.first));
    let sane = segment != host && !runs.is_empty() && ascending;
    if !sane || table_slot as usize >= SEGMENT_SLOTS_MAX {
        return Err(WireError::Value("relocation"));
    }
    Ok(OpKind::Relocate {
        segment,
        host,
        table_slot,
        runs,
    })
}

fn mode(r: &mut Reader<'_>) -> Result<u16, WireError> {
    match r.u16()? {
        bits if bits <= 0o7777 => Ok(bits),
        _ => Err(WireError::Value("mode bits")),
    }
}

impl Encode for NewNode {
    fn encode(&self, w: &mut Writer) {
        self.kind.encode(w);
        w.u16(self.mode);
        w.u32(self.uid);
        w.u32(self.gid);
        w.u64(self.rdev);
        w.bytes(&self.target);
    }
}

impl Decode for NewNode {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let node = Self {
            kind: Kind::decode(r)?,
            mode: mode(r)?,
            uid: r.u32()?,
            gid: r.u32()?,
            rdev: r.u64()?,
            target: r.bytes("symbolic link", SYMLINK_MAX)?.to_vec(),
        };
        if (node.kind == Kind::Symlink) == node.target.is_empty() {
            return Err(WireError::Value("target of a symbolic link"));
        }
        Ok(node)
    }
}

impl Encode for Attributes {
    fn encode(&self, w: &mut Writer) {
        w.u16(self.mode);
        w.u32(self.uid);
        w.u32(self.gid);
        self.btime.encode(w);
        w.count(self.xattrs.len());
        for (name, value) in &self.xattrs {
            w.bytes(name);
            w.bytes(value);
        }
    }
}

impl Decode for Attributes {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (mode, uid, gid) = (mode(r)?, r.u32()?, r.u32()?);
        let btime = Timestamp::decode(r)?;
        let count = r.count("extended attributes", XATTRS_TOLD_MAX, 9)?;
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(count);
        let mut len = 0;
        for _ in 0..count {
            let name = xattr_name(r)?;
            let value = r.bytes("value of an extended attribute", XATTRS_TOLD_MAX)?;
            len += name.len() + value.len();
            if len > XATTRS_TOLD_MAX || xattrs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(WireError::Value("extended attributes of a file"));
            }
            xattrs.push((name, value.to_vec()));
        }
        Ok(Self {
            mode,
            uid,
            gid,
            btime,
            xattrs,
        })
    }
}

impl Encode for Body {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Inline(bytes) => {
                w.u8(0);
                w.bytes(bytes);
            }
            Self::Extents { full, list } => {
                w.u8(if *full { 2 } else { 1 });
                w.list(list);
            }
        }
    }
}

impl Decode for Body {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let full = match r.u8()? {
            0 => {
                return Ok(Self::Inline(
                    r.bytes("inline contents", INLINE_MAX)?.to_vec(),
                ));
            }
            1 => false,
            2 => true,
            _ => return Err(WireError::Value("contents tag")),
        };
        let list: Vec<Extent> = r.list("extents", EXTENTS_MAX)?;
        if list
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.end() > b.first_block))
        {
            return Err(WireError::Value("order of extents"));
        }
        Ok(Self::Extents { full, list })
    }
}

mod tag {
    pub(super) const CREATE: u8 = 1;
    pub(super) const LINK: u8 = 2;
    pub(super) const REMOVE: u8 = 3;
    pub(super) const RENAME: u8 = 4;
    pub(super) const EXCHANGE: u8 = 5;
    pub(super) const SET_ATTR: u8 = 6;
    pub(super) const WRITE: u8 = 7;
    pub(super) const SET_XATTR: u8 = 8;
    pub(super) const REMOVE_XATTR: u8 = 9;
    pub(super) const LABEL: u8 = 10;
    pub(super) const SNAPSHOT: u8 = 11;
    pub(super) const FORGET_SNAPSHOT: u8 = 12;
    pub(super) const RELOCATE: u8 = 13;
    pub(super) const RETENTION: u8 = 14;
    pub(super) const FORGET_VERSIONS: u8 = 15;
    /// From here on a reader may ignore what it does not know.
    pub(super) const OPTIONAL: u8 = 0x80;
}

struct Field<T>(T);

impl Encode for Field<u16> {
    fn encode(&self, w: &mut Writer) {
        w.u16(self.0);
    }
}

impl Decode for Field<u16> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        mode(r).map(Field)
    }
}

impl Encode for Field<u32> {
    fn encode(&self, w: &mut Writer) {
        w.u32(self.0);
    }
}

impl Decode for Field<u32> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.u32().map(Field)
    }
}

impl Encode for OpKind {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Create { place, ino, node } => {
                w.u8(tag::CREATE);
                place.encode(w);
                ino.encode(w);
                node.encode(w);
            }
            Self::Link { ino, place } => {
                w.u8(tag::LINK);
                ino.encode(w);
                place.encode(w);
            }
            Self::Remove {
                place,
                ino,
                version,
            } => {
                w.u8(tag::REMOVE);
                place.encode(w);
                ino.encode(w);
                version.encode(w);
            }
            Self::Rename {
                ino,
                from,
                to_dir,
                to_name,
                replaces,
            } => {
                w.u8(tag::RENAME);
                ino.encode(w);
                from.encode(w);
                to_dir.encode(w);
                to_name.encode(w);
                w.option(replaces.as_ref());
            }
            Self::Exchange { ino, a, other, b } => {
                w.u8(tag::EXCHANGE);
                ino.encode(w);
                a.encode(w);
                other.encode(w);
                b.encode(w);
            }
            Self::SetAttr {
                ino,
                mode,
                uid,
                gid,
                atime,
                mtime,
            } => {
                w.u8(tag::SET_ATTR);
                ino.encode(w);
                w.option(mode.map(Field).as_ref());
                w.option(uid.map(Field).as_ref());
                w.option(gid.map(Field).as_ref());
                w.option(atime.as_ref());
                w.option(mtime.as_ref());
            }
            Self::Write {
                ino,
                base,
                size,
                mtime,
                keys,
                body,
                place,
                attributes,
            } => {
                w.u8(tag::WRITE);
                ino.encode(w);
                base.encode(w);
                w.u64(*size);
                mtime.encode(w);
                w.list(keys);
                body.encode(w);
                place.encode(w);
                attributes.encode(w);
            }
            Self::SetXattr { ino, name, value } => {
                w.u8(tag::SET_XATTR);
                ino.encode(w);
                w.bytes(name);
                w.bytes(value);
            }
            Self::RemoveXattr { ino, name } => {
                w.u8(tag::REMOVE_XATTR);
                ino.encode(w);
                w.bytes(name);
            }
            Self::Label { label } => {
                w.u8(tag::LABEL);
                w.bytes(label.as_bytes());
            }
            Self::Snapshot { name } => {
                w.u8(tag::SNAPSHOT);
                name.encode(w);
            }
            Self::ForgetSnapshot { name, snapshot } => {
                w.u8(tag::FORGET_SNAPSHOT);
                name.encode(w);
                snapshot.encode(w);
            }
            Self::Relocate {
                segment,
                host,
                table_slot,
                runs,
            } => {
                w.u8(tag::RELOCATE);
                segment.encode(w);
                host.encode(w);
                w.u32(*table_slot);
                w.list(runs);
            }
            Self::Retention { seconds } => {
                w.u8(tag::RETENTION);
                w.u64(*seconds);
            }
            Self::ForgetVersions { runs } => {
                w.u8(tag::FORGET_VERSIONS);
                w.list(runs);
            }
            Self::Unknown { tag, body } => {
                w.u8(*tag);
                w.bytes(body);
            }
        }
    }
}

fn xattr_name(r: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
    match r.bytes("name of an extended attribute", XATTR_NAME_MAX)? {
        b"" => Err(WireError::Value("empty name of an extended attribute")),
        name => Ok(name.to_vec()),
    }
}

fn decode_label(r: &mut Reader<'_>) -> Result<String, WireError> {
    let label = std::str::from_utf8(r.bytes("label", LABEL_MAX)?);
    match label {
        Ok(label) if !label.is_empty() && !label.chars().any(char::is_control) => {
            Ok(label.to_owned())
        }
        _ => Err(WireError::Value("label")),
    }
}

fn decode_write(r: &mut Reader<'_>) -> Result<OpKind, WireError> {
    let (ino, base, size) = (Ino::decode(r)?, OpId::decode(r)?, r.u64()?);
    let (mtime, keys) = (
        Timestamp::decode(r)?,
        r.list("new file keys", NEW_KEYS_MAX)?,
    );
    let (body, place) = (Body::decode(r)?, Place::decode(r)?);
    let attributes = Attributes::decode(r)?;
    let fits = match &body {
        Body::Inline(bytes) => bytes.len() as u64 == size,
        Body::Extents { .. } => size <= FILE_LEN_MAX,
    };
    if !fits {
        return Err(WireError::Value("length of a file"));
    }
    Ok(OpKind::Write {
        ino,
        base,
        size,
        mtime,
        keys,
        body,
        place,
        attributes,
    })
}

impl Decode for OpKind {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match r.u8()? {
            tag::CREATE => Self::Create {
                place: Place::decode(r)?,
                ino: Ino::decode(r)?,
                node: NewNode::decode(r)?,
            },
            tag::LINK => Self::Link {
                ino: Ino::decode(r)?,
                place: Place::decode(r)?,
            },
            tag::REMOVE => Self::Remove {
                place: Place::decode(r)?,
                ino: Ino::decode(r)?,
                version: OpId::decode(r)?,
            },
            tag::RENAME => Self::Rename {
                ino: Ino::decode(r)?,
                from: Place::decode(r)?,
                to_dir: Ino::decode(r)?,
                to_name: Name::decode(r)?,
                replaces: r.option()?,
            },
            tag::EXCHANGE => Self::Exchange {
                ino: Ino::decode(r)?,
                a: Place::decode(r)?,
                other: Ino::decode(r)?,
                b: Place::decode(r)?,
            },
            tag::SET_ATTR => Self::SetAttr {
                ino: Ino::decode(r)?,
                mode: r.option::<Field<u16>>()?.map(|f| f.0),
                uid: r.option::<Field<u32>>()?.map(|f| f.0),
                gid: r.option::<Field<u32>>()?.map(|f| f.0),
                atime: r.option()?,
                mtime: r.option()?,
            },
            tag::WRITE => decode_write(r)?,
            tag::SET_XATTR => Self::SetXattr {
                ino: Ino::decode(r)?,
                name: xattr_name(r)?,
                value: r
                    .bytes("value of an extended attribute", XATTR_VALUE_MAX)?
                    .to_vec(),
            },
            tag::REMOVE_XATTR => Self::RemoveXattr {
                ino: Ino::decode(r)?,
                name: xattr_name(r)?,
            },
            tag::LABEL => Self::Label {
                label: decode_label(r)?,
            },
            tag::SNAPSHOT => Self::Snapshot {
                name: Name::decode(r)?,
            },
            tag::FORGET_SNAPSHOT => Self::ForgetSnapshot {
                name: Name::decode(r)?,
                snapshot: OpId::decode(r)?,
            },
            tag::RELOCATE => decode_relocate(r)?,
            tag::RETENTION => Self::Retention { seconds: r.u64()? },
            tag::FORGET_VERSIONS => Self::ForgetVersions {
                runs: r.list("forgotten versions", VERSION_RUNS_MAX)?,
            },
            tag if tag >= tag::OPTIONAL => Self::Unknown {
                tag,
                body: r.bytes("unknown operation", OP_MAX)?.to_vec(),
            },
            found => {
                return Err(WireError::Unknown {
                    what: "operation",
                    found: u64::from(found),
                });
            }
        })
    }
}

impl Op {
    /// As it stands in a commit of `device`, whose id is not repeated.
    pub fn encode_in_commit(&self, device: DeviceId, w: &mut Writer) {
        if self.id.device == device {
            w.u8(0);
        } else {
            w.u8(1);
            self.id.device.encode(w);
        }
        w.u64(self.id.counter);
        self.time.encode(w);
        self.kind.encode(w);
    }

    /// Reads what `encode_in_commit` wrote.
    ///
    /// # Errors
    /// Whatever is not the canonical encoding.
    pub fn decode_in_commit(device: DeviceId, r: &mut Reader<'_>) -> Result<Self, WireError> {
        let device = match r.option()? {
            Some(same) if same == device => return Err(WireError::Value("device of an operation")),
            Some(other) => other,
            None => device,
        };
        let counter = r.u64()?;
        Ok(Self {
            id: OpId { device, counter },
            time: Timestamp::decode(r)?,
            kind: OpKind::decode(r)?,
        })
    }
}

impl Encode for Op {
    fn encode(&self, w: &mut Writer) {
        self.id.encode(w);
        self.time.encode(w);
        self.kind.encode(w);
    }
}

impl Decode for Op {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            id: OpId::decode(r)?,
            time: Timestamp::decode(r)?,
            kind: OpKind::decode(r)?,
        })
    }
}
