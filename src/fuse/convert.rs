//! Conversions between the kernel's words and ours.

use crate::host::{self, LONG};
use crate::view::View;
use fuser::{FileAttr, FileType, INodeNo, OpenAccMode, OpenFlags, Request, TimeOrNow};
use skrin_base::{Errno, Timestamp};
use skrin_fs::{
    Allocate, Attr, Caller, FsError, Kind, NodeId, NodeSpec, OpenMode, RenameMode, SetTime,
    XattrMode,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

/// How long the kernel may keep names.
pub(crate) const ENTRY_TTL: Duration = LONG;

/// How long the kernel may keep that a name is not there.
pub(crate) const NEGATIVE_TTL: Duration = match LONG.as_secs() {
    long if long < 60 => LONG,
    _ => Duration::from_secs(60),
};

/// How long the kernel may keep attributes that came with an entry. There fuser names inode and node by one number: for an alias the
/// kernel must ask again, to learn the true inode number; of a snapshot in a listing, to learn all the rest.
pub(crate) fn attr_ttl(attr: &Attr) -> Duration {
    if attr.node.is_alias() || attr.node.is_past() {
        Duration::ZERO
    } else {
        LONG
    }
}

pub(crate) fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

/// Who makes something new, with the umask that the request brings.
pub(crate) fn caller(req: &Request, umask: u32) -> Caller {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
        pid: req.pid(),
        umask: permissions(umask),
    }
}

pub(crate) fn errno(e: &FsError) -> fuser::Errno {
    if e.is_fault() {
        tracing::warn!(error = %e, "a call failed");
    }
    raw_errno(e.errno())
}

pub(crate) fn raw_errno(e: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(host::errno(e))
}

fn system_time(t: Timestamp) -> SystemTime {
    let distance = Duration::from_nanos(t.0.unsigned_abs());
    let time = if t.0 >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Times outside 1677 to 2262 become the nearest that can be kept.
pub(crate) fn timestamp(t: SystemTime) -> Timestamp {
    match t.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Timestamp(i64::try_from(after.as_nanos()).unwrap_or(i64::MAX)),
        Err(e) => Timestamp(
            i64::try_from(e.duration().as_nanos())
                .map(i64::wrapping_neg)
                .unwrap_or(i64::MIN),
        ),
    }
}

/// A time as fuser passes it on. Before 1970 the kernel counts seconds down and nanoseconds up from there, and fuser 0.18 takes both as
/// down.
fn received(t: SystemTime) -> Timestamp {
    const SECOND: i64 = 1_000_000_000;
    match SystemTime::UNIX_EPOCH.duration_since(t) {
        Ok(before) if !before.is_zero() => {
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            let whole = seconds.saturating_mul(-SECOND);
            Timestamp(whole.saturating_add(i64::from(before.subsec_nanos())))
        }
        _ => timestamp(t),
    }
}

pub(crate) fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::SpecificTime(t) => SetTime::At(received(t)),
        TimeOrNow::Now => SetTime::Now,
    }
}

pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// Attributes with `ino` as the number that the program sees; in entries it is also the node's.
fn file_attr(view: View, attr: &Attr, ino: u64) -> FileAttr {
    let mut attr = attr.clone();
    view.show(&mut attr);
    FileAttr {
        ino: INodeNo(ino),
        size: attr.size,
        blocks: attr.stored.div_ceil(512),
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: u32::try_from(attr.rdev).unwrap_or(0),
        blksize: 64 * 1024,
        flags: 0,
    }
}

/// Attributes for a reply that says which node an entry leads to.
pub(crate) fn entry_attr(view: View, attr: &Attr) -> FileAttr {
    file_attr(view, attr, attr.node.0)
}

/// Attributes alone.
pub(crate) fn own_attr(view: View, attr: &Attr) -> FileAttr {
    file_attr(view, attr, attr.ino.0)
}

pub(crate) fn open_mode(flags: OpenFlags) -> OpenMode {
    OpenMode {
        write: flags.acc_mode() != OpenAccMode::O_RDONLY,
        truncate: flags.0 & libc::O_TRUNC != 0,
    }
}

/// The permission bits of a mode word.
pub(crate) fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

/// What mknod is asked for; `None` for a kind that it does not make.
pub(crate) fn node_spec(mode: u32, rdev: u32) -> Option<NodeSpec> {
    // The S_IF numbers, of the same value and not of the same type everywhere.
    let kind = match mode & 0o170_000 {
        0o100_000 | 0 => Kind::File,
        0o010_000 => Kind::Fifo,
        0o140_000 => Kind::Socket,
        0o020_000 => Kind::CharDevice,
        0o060_000 => Kind::BlockDevice,
        _ => return None,
    };
    Some(NodeSpec {
        kind,
        mode: permissions(mode),
        rdev: u64::from(rdev),
    })
}

/// What renameat2's flags ask for; `None` for what is not known.
pub(crate) fn rename_mode(flags: u32) -> Option<RenameMode> {
    match flags {
        0 => Some(RenameMode::Replace),
        #[cfg(target_os = "linux")]
        libc::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        #[cfg(target_os = "linux")]
        libc::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        _ => None,
    }
}

/// What setxattr's flags ask for; `None` for what is not known.
pub(crate) fn xattr_mode(flags: i32) -> Option<XattrMode> {
    match flags {
        0 => Some(XattrMode::Any),
        libc::XATTR_CREATE => Some(XattrMode::Create),
        libc::XATTR_REPLACE => Some(XattrMode::Replace),
        _ => None,
    }
}

/// Whether an attribute is an access control list.
pub(crate) fn is_acl(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"system.posix_acl_")
}

/// Whether the set-group-id bit stays when the caller sets an access control list: root and members of the group keep it. The kernel's
/// own word on this is in a field that fuser does not read.
pub(crate) fn keeps_set_gid(req: &Request, attr: &Attr) -> bool {
    const SET_GID: u16 = 0o2000;
    if attr.mode & SET_GID == 0 || req.uid() == 0 || req.gid() == attr.gid {
        return true;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", req.pid())).unwrap_or_default();
    let groups = status.lines().find_map(|l| l.strip_prefix("Groups:"));
    let mut groups = groups.unwrap_or_default().split_ascii_whitespace();
    groups.any(|group| group.parse() == Ok(attr.gid))
}

/// The names of a list that the caller may know of: those of `trusted.` are for root, and the kernel leaves that to us.
///
/// Lists of access control are not named where they are not shown.
pub(crate) fn listed_for(root: bool, view: View, list: Vec<u8>) -> Vec<u8> {
    let other = view.is_other();
    if root && !other {
        return list;
    }
    let names = list.split_inclusive(|byte| *byte == 0);
    let known = names.filter(|name| root || !name.starts_with(b"trusted."));
    let shown = known.filter(|name| !other || !is_acl(OsStr::from_bytes(name)));
    shown.flatten().copied().collect()
}

/// What fallocate's mode asks for; `None` for what is not supported.
#[cfg(target_os = "linux")]
pub(crate) fn allocate_mode(mode: i32) -> Option<Allocate> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Some(Allocate::Extend),
        KEEP => Some(Allocate::KeepSize),
        PUNCH | ZERO_KEEP => Some(Allocate::PunchHole),
        ZERO => Some(Allocate::Zero),
        _ => None,
    }
}

/// macOS asks in other words, which nobody has shown us yet.
#[cfg(not(target_os = "linux"))]
pub(crate) fn allocate_mode(_mode: i32) -> Option<Allocate> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_far_away_survive() {
        for ns in [
            0,
            1,
            -1,
            1_790_000_000_123_456_789,
            -86_400_000_000_001,
            i64::MAX,
        ] {
            assert_eq!(timestamp(system_time(Timestamp(ns))), Timestamp(ns));
        }
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(timestamp(far), Timestamp(i64::MAX));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn unknown_flags_are_refused() {
        assert_eq!(rename_mode(libc::RENAME_WHITEOUT), None);
        assert_eq!(
            rename_mode(libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE),
            None
        );
        assert_eq!(allocate_mode(libc::FALLOC_FL_COLLAPSE_RANGE), None);
        assert_eq!(xattr_mode(3), None);
        assert_eq!(node_spec(libc::S_IFDIR | 0o755, 0), None);
    }
}
