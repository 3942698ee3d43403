//! fuser's trait over the file system: convert, call, convert, reply.

use crate::convert::{
    NEGATIVE_TTL, allocate_mode, attr_ttl, caller, entry_attr, errno, file_type, is_acl,
    keeps_set_gid, listed_for, node, node_spec, open_mode, permissions, raw_errno, rename_mode,
    set_time, xattr_mode,
};
use crate::pool::Pool;
use crate::reply::{
    add_entry, negative, reply_attr, reply_data, reply_empty, reply_entry, reply_entry_for,
    reply_written, reply_xattr,
};
use crate::view::View;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use skrin_base::Errno;
use skrin_fs::{Fs, FsError, HandleId, OpenMode, Seek, SetAttr, is_lock};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Threads for whatever may wait.
const WORKERS: usize = 16;
/// Largest write request; the kernel's limit without raising a sysctl.
const MAX_WRITE: u32 = 1 << 20;
/// Requests of read-ahead and write-back under way.
const MAX_BACKGROUND: u16 = 64;
/// Entries fetched at once for a listing.
const LIST_BATCH: usize = 128;

/// What we ask the kernel for, if it has it. What is not here we could not honour:
/// - locks: they stay local to this kernel;
/// - security contexts of what is made: fuser does not pass them on;
/// - opens without a message: open is where a stale branch is noticed.
const CAPABILITIES: [InitFlags; 9] = [
    // The umask comes along, as it has no part where a directory has a default list.
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_WRITEBACK_CACHE,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
];

/// The file system as fuser sees it.
pub(crate) struct Adapter {
    fs: Arc<Fs>,
    view: View,
    /// Reads that wait for the storage, and what else may.
    reads: Pool,
    /// Writes, which may wait for room in the journal: apart, so that readers go on.
    writes: Pool,
    /// Those who wait until something is durable.
    syncs: Pool,
    /// Whether the kernel opens and closes directories without us, and keeps what they list.
    lists_alone: bool,
}

/// Runs a handler. One that panics drops its reply, which answers EIO; the thread that takes requests goes on.
fn guarded(handler: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(handler)).is_err() {
        tracing::error!("a handler panicked; its caller got EIO");
    }
}

fn handle(fh: FileHandle) -> HandleId {
    HandleId(fh.0)
}

impl Adapter {
    pub(crate) fn new(fs: Arc<Fs>, view: View) -> Self {
        Self {
            fs,
            view,
            reads: Pool::new(WORKERS),
            writes: Pool::new(WORKERS),
            syncs: Pool::new(WORKERS),
            lists_alone: false,
        }
    }

    /// Whether this is an access control list, where none are shown.
    fn hides(&self, name: &OsStr) -> bool {
        self.view.is_other() && is_acl(name)
    }

    /// Runs what may wait for the storage on a thread where it may.
    fn later(&self, pool: &Pool, work: impl FnOnce(&Fs) + Send + 'static) {
        let fs = Arc::clone(&self.fs);
        pool.run(move || work(&fs));
    }

    /// Runs what makes something new: at once, unless it may have to wait for room.
    fn make(&self, work: impl FnOnce(&Fs) + Send + 'static) {
        if self.fs.is_crowded() {
            self.later(&self.writes, work);
        } else {
            work(&self.fs);
        }
    }

    /// Runs what depends on lock files of other devices, after a look at them.
    fn with_fresh_locks(&self, work: impl FnOnce(&Fs) + Send + 'static) {
        if !self.fs.is_outdated_for_locks() && !self.fs.is_crowded() {
            return work(&self.fs);
        }
        self.later(&self.reads, move |fs| {
            fs.refresh_locks();
            work(fs);
        });
    }

    /// Runs what stores blocks: at once, unless the journal is so full that it may have to wait for room.
    fn store(&self, work: impl FnOnce(&Fs) + Send + 'static) {
        if self.fs.is_congested() {
            self.later(&self.writes, work);
        } else {
            work(&self.fs);
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = CAPABILITIES
            .into_iter()
            .filter(|c| !self.view.is_other() || *c != InitFlags::FUSE_POSIX_ACL);
        for capability in wanted {
            if config.add_capabilities(capability).is_err() {
                tracing::info!(?capability, "this kernel does not have it");
            }
        }
        let offered = config.capabilities();
        self.lists_alone = offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        let refused = |n| io::Error::other(format!("the kernel takes requests of {n} bytes only"));
        config.set_max_write(MAX_WRITE).map_err(refused)?;
        config
            .set_max_background(MAX_BACKGROUND)
            .map_err(|n| refused(u32::from(n)))?;
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded(|| {
            if is_lock(name.as_bytes()) {
                let (dir, name, view) = (node(parent), name.as_bytes().to_vec(), self.view);
                return self.with_fresh_locks(move |fs| {
                    // Asked for again each time: the kernel is to keep neither that it is there nor that it is not.
                    match fs.lookup(dir, &name) {
                        Err(FsError::NotFound) => {
                            reply.entry(&Duration::ZERO, &negative(), Generation(0));
                        }
                        found => reply_entry_for(reply, view, found, Duration::ZERO),
                    }
                });
            }
            match self.fs.lookup(node(parent), name.as_bytes()) {
                Err(FsError::NotFound) => reply.entry(&NEGATIVE_TTL, &negative(), Generation(0)),
                found => reply_entry(reply, self.view, found),
            }
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        guarded(|| {
            self.fs.forget(node(ino), nlookup);
        });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        guarded(|| {
            reply_attr(reply, self.view, self.fs.getattr(node(ino)));
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        guarded(|| {
            let mut set = SetAttr {
                mode: mode.map(permissions),
                uid,
                gid,
                size,
                atime: atime.map(set_time),
                mtime: mtime.map(set_time),
            };
            let view = self.view;
            let kept = || self.fs.getattr(node(ino)).ok().map(|attr| attr.mode);
            if let Err(refused) = view.keep(&mut set, kept) {
                return reply.error(raw_errno(refused));
            }
            let thread = req.pid();
            let work = move |fs: &Fs| {
                let done = fs.setattr(node(ino), &set);
                if size == Some(0) {
                    fs.note_author(node(ino), thread);
                }
                reply_attr(reply, view, done);
            };
            match size {
                None => work(&self.fs),
                Some(0) => self.store(work),
                // A block that is cut may have to be read.
                Some(_) => self.later(&self.writes, work),
            }
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        guarded(|| {
            reply_data(reply, self.fs.readlink(node(ino)));
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            let Some(spec) = node_spec(mode, rdev) else {
                return reply.error(raw_errno(Errno::EINVAL));
            };
            let (dir, name, caller) = (node(parent), name.as_bytes().to_vec(), caller(req, umask));
            let view = self.view;
            self.make(move |fs| reply_entry(reply, view, fs.mknod(dir, &name, spec, &caller)));
        });
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            let (dir, name, caller) = (node(parent), name.as_bytes().to_vec(), caller(req, umask));
            let mode = permissions(mode);
            let view = self.view;
            self.make(move |fs| reply_entry(reply, view, fs.mkdir(dir, &name, mode, &caller)));
        });
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            reply_empty(reply, self.fs.unlink(node(parent), name.as_bytes()));
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            reply_empty(reply, self.fs.rmdir(node(parent), name.as_bytes()));
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            let target = target.as_os_str().as_bytes().to_vec();
            let (dir, name) = (node(parent), link_name.as_bytes().to_vec());
            let caller = caller(req, 0);
            let view = self.view;
            self.make(move |fs| reply_entry(reply, view, fs.symlink(dir, &name, &target, &caller)));
        });
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            let Some(mode) = rename_mode(flags.bits()) else {
                return reply.error(raw_errno(Errno::EINVAL));
            };
            let (dir, to_dir) = (node(parent), node(newparent));
            let (name, to_name) = (name.as_bytes().to_vec(), newname.as_bytes().to_vec());
            self.store(move |fs| {
                reply_empty(reply, fs.rename(dir, &name, to_dir, &to_name, mode));
            });
        });
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            reply_entry(
                reply,
                self.view,
                self.fs.link(node(ino), node(newparent), newname.as_bytes()),
            );
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        guarded(|| {
            let work = move |fs: &Fs| match fs.open_node(node(ino), open_mode(flags)) {
                // What the kernel has cached of a node never changes behind its back.
                Ok(id) => reply.opened(FileHandle(id.0), FopenFlags::FOPEN_KEEP_CACHE),
                Err(e) => reply.error(errno(&e)),
            };
            if !self.fs.is_outdated() {
                return work(&self.fs);
            }
            self.later(&self.reads, move |fs| {
                fs.refresh();
                work(fs);
            });
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        guarded(|| {
            let OpenMode { write, truncate } = open_mode(OpenFlags(flags));
            let exclusive = flags & libc::O_EXCL != 0;
            let how = OpenMode { write, truncate };
            let (dir, name, caller) = (node(parent), name.as_bytes().to_vec(), caller(req, umask));
            let (mode, view) = (permissions(mode), self.view);
            let lock = is_lock(&name);
            let work = move |fs: &Fs| match fs.create(dir, &name, mode, exclusive, how, &caller) {
                Ok((attr, id)) => reply.created(
                    &if lock {
                        Duration::ZERO
                    } else {
                        attr_ttl(&attr)
                    },
                    &entry_attr(view, &attr),
                    Generation(0),
                    FileHandle(id.0),
                    FopenFlags::FOPEN_KEEP_CACHE,
                ),
                Err(e) => reply.error(errno(&e)),
            };
            match lock {
                true => self.with_fresh_locks(work),
                false => self.make(work),
            }
        });
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        guarded(|| {
            let (id, len) = (handle(fh), size as usize);
            match self.fs.read_now(id, offset, len) {
                Ok(Some(data)) => reply.data(&data),
                Ok(None) => self.later(&self.reads, move |fs| {
                    reply_data(reply, fs.read(id, offset, len))
                }),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        guarded(|| {
            let (id, len) = (handle(fh), data.len() as u64);
            if self
                .fs
                .can_write_now(id, offset, data.len())
                .unwrap_or(true)
            {
                return reply_written(reply, self.fs.write(id, offset, data).map(|()| len));
            }
            let data = data.to_vec();
            self.later(&self.writes, move |fs| {
                reply_written(reply, fs.write(id, offset, &data).map(|()| len))
            });
        });
    }

    fn flush(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            let thread = req.pid();
            self.store(move |fs| reply_empty(reply, fs.flush_by(handle(fh), thread)));
        });
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            self.store(move |fs| reply_empty(reply, fs.release(handle(fh))));
        });
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            self.later(&self.syncs, move |fs| {
                reply_empty(reply, fs.fsync(handle(fh)))
            });
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        guarded(|| match self.fs.opendir(node(ino)) {
            // Remembered for this mount: no directory is opened or closed with a message any more, and a listing stays in the
            // kernel's cache until the directory changes. Listings need no handle.
            Ok(()) if self.lists_alone => reply.error(raw_errno(Errno::ENOSYS)),
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(e) => reply.error(errno(&e)),
        });
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        guarded(|| {
            let mut after = offset;
            loop {
                let batch = match self.fs.readdir(node(ino), after, LIST_BATCH, false) {
                    Ok(batch) => batch,
                    Err(e) => return reply.error(errno(&e)),
                };
                let Some(last) = batch.last().map(|e| e.cookie) else {
                    return reply.ok();
                };
                for e in &batch {
                    let name = OsStr::from_bytes(&e.name);
                    if reply.add(INodeNo(e.ino.0), e.cookie, file_type(e.kind), name) {
                        return reply.ok();
                    }
                }
                after = last;
            }
        });
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        guarded(|| {
            let mut after = offset;
            loop {
                let batch = match self.fs.readdir(node(ino), after, LIST_BATCH, true) {
                    Ok(batch) => batch,
                    Err(e) => return reply.error(errno(&e)),
                };
                let Some(last) = batch.last().map(|e| e.cookie) else {
                    return reply.ok();
                };
                for e in &batch {
                    let full = add_entry(&mut reply, self.view, e);
                    if full {
                        return reply.ok();
                    }
                    if let Some(attr) = &e.attr {
                        self.fs.looked_up(attr.node);
                    }
                }
                after = last;
            }
        });
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            self.later(&self.syncs, move |fs| reply_empty(reply, fs.fsync_dir()));
        });
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        guarded(|| {
            let s = self.fs.statfs();
            // Inodes are not limited; some programs refuse to write where none are free.
            let inodes = 1 << 40;
            reply.statfs(
                s.blocks,
                s.free,
                s.free,
                inodes,
                inodes,
                s.block_len,
                s.name_max,
                s.block_len,
            );
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        guarded(|| match xattr_mode(flags) {
            _ if self.hides(name) => reply.error(raw_errno(Errno::EOPNOTSUPP)),
            Some(_) if is_acl(name) => {
                let set = self.fs.getattr(node(ino)).and_then(|attr| {
                    let keep = keeps_set_gid(req, &attr);
                    self.fs.set_acl(node(ino), name.as_bytes(), value, keep)
                });
                reply_empty(reply, set);
            }
            Some(mode) => reply_empty(
                reply,
                self.fs.setxattr(node(ino), name.as_bytes(), value, mode),
            ),
            None => reply.error(raw_errno(Errno::EINVAL)),
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded(|| match self.hides(name) {
            true => reply.error(raw_errno(Errno::EOPNOTSUPP)),
            false => reply_xattr(reply, size, self.fs.getxattr(node(ino), name.as_bytes())),
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        guarded(|| {
            let list = self.fs.listxattr(node(ino));
            reply_xattr(
                reply,
                size,
                list.map(|list| listed_for(req, self.view, list)),
            );
        });
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| match self.hides(name) {
            true => reply.error(raw_errno(Errno::EOPNOTSUPP)),
            false => reply_empty(reply, self.fs.removexattr(node(ino), name.as_bytes())),
        });
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        guarded(|| match allocate_mode(mode) {
            Some(how) => self.later(&self.writes, move |fs| {
                reply_empty(reply, fs.allocate(handle(fh), offset, length, how))
            }),
            None => reply.error(raw_errno(Errno::EOPNOTSUPP)),
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        guarded(|| {
            let what = match whence {
                libc::SEEK_DATA => Seek::Data,
                libc::SEEK_HOLE => Seek::Hole,
                _ => return reply.error(raw_errno(Errno::EINVAL)),
            };
            let Ok(from) = u64::try_from(offset) else {
                return reply.error(raw_errno(Errno::ENXIO));
            };
            let id = handle(fh);
            let work = move |fs: &Fs| match fs.seek(id, from, what) {
                Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
                Err(e) => reply.error(errno(&e)),
            };
            match self.fs.is_written_to(id) {
                Ok(true) => self.later(&self.reads, work),
                _ => work(&self.fs),
            }
        });
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        guarded(|| {
            // The reply has 32 bits.
            let len = len.min(1 << 30);
            let (from, to) = ((handle(fh_in), offset_in), (handle(fh_out), offset_out));
            self.later(&self.writes, move |fs| {
                reply_written(reply, fs.copy_range(from, to, len))
            });
        });
    }
}
