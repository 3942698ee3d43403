//! fuser's trait over the file system: convert, call, convert, reply.

use crate::convert::{
    allocate_mode, attr_ttl, caller, entry_attr, errno, file_type, is_acl, keeps_set_gid,
    listed_for, node, node_spec, open_mode, permissions, raw_errno, rename_mode, set_time,
    xattr_mode,
};
use crate::host::{IS_MAC, kept_attribute, shown_attributes};
use crate::names::Names;
use crate::pool::Pool;
use crate::reply::{
    add_entry, negative, reply_attr, reply_data, reply_empty, reply_entry, reply_written,
    reply_xattr,
};
use crate::view::View;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use skrin_base::Errno;
use skrin_fs::{Fs, FsError, HandleId, NodeId, OpenMode, Seek, SetAttr, is_lock};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Threads for whatever may wait.
const WORKERS: usize = 16;
/// Threads for reading: more, as each program that reads on and on keeps two of them waiting, and somebody may want to see something else.
const READERS: usize = 32;
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
    names: Names,
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
    pub(crate) fn new(fs: Arc<Fs>, view: View, names: Names) -> Self {
        Self {
            fs,
            view,
            names,
            reads: Pool::new(READERS),
            writes: Pool::new(WORKERS),
            syncs: Pool::new(WORKERS),
            lists_alone: false,
        }
    }

    /// What the vault calls an extended attribute.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for one that this mount does not take: an access control list, where none are shown.
    fn attribute(&self, name: &OsStr) -> Result<Vec<u8>, Errno> {
        match kept_attribute(IS_MAC, name.as_bytes()) {
            Some(kept) if !(self.view.is_other() && is_acl(name)) => Ok(kept),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// What the vault calls what is asked for by this name.
    fn stored(&self, dir: INodeNo, name: &OsStr) -> Vec<u8> {
        let is_there = |name: &[u8]| match self.fs.lookup(node(dir), name) {
            Ok(attr) => {
                self.fs.forget(attr.node, 1);
                true
            }
            Err(_) => false,
        };
        self.names.stored(name.as_bytes(), is_there)
    }

    /// What the kernel may keep of a file that is opened: what it has cached of a node never changes behind its back.
    fn keep(&self) -> FopenFlags {
        match self.names.uncached {
            true => FopenFlags::empty(),
            false => FopenFlags::FOPEN_KEEP_CACHE,
        }
    }

    /// Runs what may wait for the storage on a thread where it may.
    fn later(&self, pool: &Pool, work: impl FnOnce(&Fs) + Send + 'static) {
        let fs = Arc::clone(&self.fs);
        pool.run(move || work(&fs));
    }

    /// Runs what looks at a node: at once, unless that lies in a snapshot, which may have to be folded first.
    fn look(&self, at: NodeId, work: impl FnOnce(&Fs) + Send + 'static) {
        if at.is_past() {
            self.later(&self.reads, work);
        } else {
            work(&self.fs);
        }
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
        let mut refused = InitFlags::empty();
        if self.view.is_other() {
            refused |= InitFlags::FUSE_POSIX_ACL;
        }
        if self.names.uncached {
            refused |= InitFlags::FUSE_WRITEBACK_CACHE | InitFlags::FUSE_CACHE_SYMLINKS;
        }
        let wanted = CAPABILITIES.into_iter();
        for capability in wanted.filter(|c| !refused.contains(*c)) {
            if config.add_capabilities(capability).is_err() {
                tracing::info!(?capability, "this kernel does not have it");
            }
        }
        let offered = config.capabilities();
        self.lists_alone =
            offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT) && !self.names.uncached;
        let refused = |n| io::Error::other(format!("the kernel takes requests of {n} bytes only"));
        config.set_max_write(MAX_WRITE).map_err(refused)?;
        config
            .set_max_background(MAX_BACKGROUND)
            .map_err(|n| refused(u32::from(n)))?;
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded(|| {
            let name = self.stored(parent, name);
            let (dir, view) = (node(parent), self.view);
            if is_lock(&name) && !dir.is_past() {
                return self.with_fresh_locks(move |fs| {
                    // Asked for again each time: the kernel is to keep neither that it is there nor that it is not.
                    match fs.lookup(dir, &name) {
                        Err(FsError::NotFound) => {
                            reply.entry(&Duration::ZERO, &negative(), Generation(0));
                        }
                        found => reply_entry(reply, view, Duration::ZERO, found),
                    }
                });
            }
            let (ttl, negative_ttl) = (self.names.ttl(&name), self.names.negative_ttl(&name));
            self.look(dir, move |fs| match fs.lookup(dir, &name) {
                // Of the snapshots that others take the kernel is not told.
                Err(FsError::NotFound) if !dir.is_past() => {
                    reply.entry(&negative_ttl, &negative(), Generation(0));
                }
                found => reply_entry(reply, view, ttl, found),
            });
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        guarded(|| {
            self.fs.forget(node(ino), nlookup);
        });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        guarded(|| {
            let (at, view) = (node(ino), self.view);
            self.look(at, move |fs| reply_attr(reply, view, fs.getattr(at)));
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
        fh: Option<FileHandle>,
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
            // Nothing changes in the past, and asking for what is there may take long.
            let now = !node(ino).is_past();
            let kept = || {
                now.then(|| self.fs.getattr(node(ino)).ok())?
                    .map(|attr| attr.mode)
            };
            if let Err(refused) = view.keep(&mut set, kept) {
                return reply.error(raw_errno(refused));
            }
            let thread = req.pid();
            // The kernel names a file otherwise only where it cuts it (fuse_flush_times).
            let is_late = fh.is_some() && size.is_none();
            let work = move |fs: &Fs| {
                let done = match is_late {
                    true => fs.set_back(node(ino), &set),
                    false => fs.setattr(node(ino), &set),
                };
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
            let at = node(ino);
            self.look(at, move |fs| reply_data(reply, fs.readlink(at)));
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
            let name = self.stored(parent, name);
            let (dir, caller) = (node(parent), caller(req, umask));
            let (view, ttl) = (self.view, self.names.ttl(&name));
            self.make(move |fs| {
                reply_entry(reply, view, ttl, fs.mknod(dir, &name, spec, &caller));
            });
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
            let name = self.stored(parent, name);
            let (dir, caller) = (node(parent), caller(req, umask));
            let mode = permissions(mode);
            let (view, ttl) = (self.view, self.names.ttl(&name));
            self.make(move |fs| {
                reply_entry(reply, view, ttl, fs.mkdir(dir, &name, mode, &caller));
            });
        });
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            reply_empty(
                reply,
                self.fs.unlink(node(parent), &self.stored(parent, name)),
            );
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            reply_empty(
                reply,
                self.fs.rmdir(node(parent), &self.stored(parent, name)),
            );
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
            let name = self.stored(parent, link_name);
            let target = target.as_os_str().as_bytes().to_vec();
            let (dir, caller) = (node(parent), caller(req, 0));
            let (view, ttl) = (self.view, self.names.ttl(&name));
            self.make(move |fs| {
                reply_entry(reply, view, ttl, fs.symlink(dir, &name, &target, &caller));
            });
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
            let name = self.stored(parent, name);
            let to_name = self.stored(newparent, newname);
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
            let name = self.stored(newparent, newname);
            let (view, ttl) = (self.view, self.names.ttl(&name));
            // What is dirty in the file is told first, which may wait for room in the journal.
            self.store(move |fs| {
                let linked = fs.link(node(ino), node(newparent), &name);
                reply_entry(reply, view, ttl, linked);
            });
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        guarded(|| {
            let keep = self.keep();
            let work = move |fs: &Fs| match fs.open_node(node(ino), open_mode(flags)) {
                Ok(id) => reply.opened(FileHandle(id.0), keep),
                Err(e) => reply.error(errno(&e)),
            };
            if node(ino).is_past() {
                return self.later(&self.reads, work);
            }
            if node(ino).is_local() || !self.fs.is_outdated() {
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
            let name = self.stored(parent, name);
            let (dir, caller) = (node(parent), caller(req, umask));
            let ttl = self.names.ttl(&name);
            let (mode, view) = (permissions(mode), self.view);
            let (lock, keep) = (is_lock(&name), self.keep());
            let ttl = match lock {
                true => Duration::ZERO,
                false => ttl,
            };
            let work = move |fs: &Fs| match fs.create(dir, &name, mode, exclusive, how, &caller) {
                Ok((attr, id)) => reply.created(
                    &attr_ttl(&attr).min(ttl),
                    &entry_attr(view, &attr),
                    Generation(0),
                    FileHandle(id.0),
                    keep,
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
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        guarded(|| {
            let (id, len) = (handle(fh), data.len() as u64);
            // From the page cache: the program was told long ago that it is written.
            let is_late = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
            let write = move |fs: &Fs, data: &[u8]| match is_late {
                true => fs.write_back(id, offset, data).map(|()| len),
                false => fs.write(id, offset, data).map(|()| len),
            };
            if self
                .fs
                .can_write_now(id, offset, data.len())
                .unwrap_or(true)
            {
                return reply_written(reply, write(&self.fs, data));
            }
            let data = data.to_vec();
            self.later(&self.writes, move |fs| {
                reply_written(reply, write(fs, &data))
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
        guarded(|| {
            let (at, lists_alone) = (node(ino), self.lists_alone);
            self.look(at, move |fs| match fs.opendir(at) {
                // Remembered for this mount: no directory is opened or closed with a message any more, and a listing stays in the
                // kernel's cache until the directory changes. Listings need no handle.
                Ok(()) if lists_alone => reply.error(raw_errno(Errno::ENOSYS)),
                Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
                Err(e) => reply.error(errno(&e)),
            });
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
            let at = node(ino);
            self.look(at, move |fs| {
                let mut after = offset;
                loop {
                    let batch = match fs.readdir(at, after, LIST_BATCH, false) {
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
            let (at, view, names) = (node(ino), self.view, self.names);
            self.look(at, move |fs| {
                let mut after = offset;
                loop {
                    let batch = match fs.readdir(at, after, LIST_BATCH, true) {
                        Ok(batch) => batch,
                        Err(e) => return reply.error(errno(&e)),
                    };
                    let Some(last) = batch.last().map(|e| e.cookie) else {
                        return reply.ok();
                    };
                    for e in &batch {
                        let full = add_entry(&mut reply, view, names, e);
                        if full {
                            return reply.ok();
                        }
                        if let Some(attr) = &e.attr {
                            fs.looked_up(attr.node);
                        }
                    }
                    after = last;
                }
            });
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
        position: u32,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            // A piece of an attribute, which macOS knows: nothing that is taken comes in pieces.
            if position != 0 {
                return reply.error(raw_errno(Errno::EINVAL));
            }
            let kept = match self.attribute(name) {
                Ok(kept) => kept,
                Err(refused) => return reply.error(raw_errno(refused)),
            };
            match xattr_mode(flags) {
                Some(_) if node(ino).is_past() => reply.error(raw_errno(Errno::EROFS)),
                Some(_) if is_acl(name) => {
                    let set = self.fs.getattr(node(ino)).and_then(|attr| {
                        let keep = keeps_set_gid(req, &attr);
                        self.fs.set_acl(node(ino), &kept, value, keep)
                    });
                    reply_empty(reply, set);
                }
                Some(mode) => reply_empty(reply, self.fs.setxattr(node(ino), &kept, value, mode)),
                None => reply.error(raw_errno(Errno::EINVAL)),
            }
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded(|| match self.attribute(name) {
            Err(refused) => reply.error(raw_errno(refused)),
            Ok(kept) => {
                let (at, kept) = (node(ino), kept.to_vec());
                self.look(at, move |fs| {
                    reply_xattr(reply, size, fs.getxattr(at, &kept));
                });
            }
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        guarded(|| {
            let (at, view, root) = (node(ino), self.view, req.uid() == 0);
            self.look(at, move |fs| {
                let known = fs.listxattr(at).map(|list| listed_for(root, view, list));
                reply_xattr(
                    reply,
                    size,
                    known.map(|list| shown_attributes(IS_MAC, list)),
                );
            });
        });
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| match self.attribute(name) {
            Err(refused) => reply.error(raw_errno(refused)),
            Ok(kept) => reply_empty(reply, self.fs.removexattr(node(ino), &kept)),
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
