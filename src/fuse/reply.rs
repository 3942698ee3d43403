//! Replies: what became of a call, in the kernel's words.

use crate::convert::{ENTRY_TTL, attr_ttl, entry_attr, errno, file_type, own_attr, raw_errno};
use crate::names::Names;
use crate::view::View;
use fuser::{
    FileAttr, Generation, INodeNo, ReplyAttr, ReplyData, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyWrite, ReplyXattr,
};
use skrin_base::Errno;
use skrin_fs::{Attr, DirEntry, FsError, is_lock};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

pub(crate) fn reply_entry(
    reply: ReplyEntry,
    view: View,
    ttl: Duration,
    result: Result<Attr, FsError>,
) {
    match result {
        Ok(attr) => reply.entry_with_ttls(
            &attr_ttl(&attr).min(ttl),
            &ttl,
            &entry_attr(view, &attr),
            Generation(0),
        ),
        Err(e) => reply.error(errno(&e)),
    }
}

pub(crate) fn reply_attr(reply: ReplyAttr, view: View, result: Result<Attr, FsError>) {
    match result {
        Ok(attr) => reply.attr(&ENTRY_TTL, &own_attr(view, &attr)),
        Err(e) => reply.error(errno(&e)),
    }
}

pub(crate) fn reply_empty(reply: ReplyEmpty, result: Result<(), FsError>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(&e)),
    }
}

pub(crate) fn reply_data(reply: ReplyData, result: Result<Vec<u8>, FsError>) {
    match result {
        Ok(data) => reply.data(&data),
        Err(e) => reply.error(errno(&e)),
    }
}

pub(crate) fn reply_written(reply: ReplyWrite, result: Result<u64, FsError>) {
    match result {
        Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
        Err(e) => reply.error(errno(&e)),
    }
}

pub(crate) fn reply_xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, FsError>) {
    match result {
        Err(e) => reply.error(errno(&e)),
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(raw_errno(Errno::ERANGE)),
        Ok(value) => reply.data(&value),
    }
}

/// A name that is not there, for the kernel to remember: an entry that leads to node 0.
pub(crate) fn negative() -> FileAttr {
    let none = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: none,
        mtime: none,
        ctime: none,
        crtime: none,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Adds one line to a listing with attributes; true if it did not fit.
pub(crate) fn add_entry(
    reply: &mut ReplyDirectoryPlus,
    view: View,
    names: Names,
    e: &DirEntry,
) -> bool {
    let name = OsStr::from_bytes(&e.name);
    let (number, ttl, attr) = match &e.attr {
        // One time is for the name and for the attributes.
        Some(attr) if is_lock(&e.name) => (attr.node.0, Duration::ZERO, own_attr(view, attr)),
        Some(attr) => {
            let ttl = attr_ttl(attr).min(names.ttl(&e.name));
            (attr.node.0, ttl, own_attr(view, attr))
        }
        // The kernel ignores all but name and number of `.` and `..`.
        None => {
            let attr = FileAttr {
                ino: INodeNo(e.ino.0),
                kind: file_type(e.kind),
                ..negative()
            };
            (e.ino.0, ENTRY_TTL, attr)
        }
    };
    reply.add(INodeNo(number), e.cookie, name, &ttl, &attr, Generation(0))
}
