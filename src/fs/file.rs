//! Open files: one for each node that somebody has open, shared by its handles.

use crate::content::Content;
use crate::error::FsError;
use crate::types::{HandleId, NodeId};
use parking_lot::{Mutex, MutexGuard, RwLock};
use skrin_base::limits::XATTRS_TOLD_MAX;
use skrin_base::{Ino, OpId, Timestamp};
use skrin_data::{Gain, Lsn, ReadAhead};
use skrin_meta::replica::holds_tree;
use skrin_meta::rows::{Rows, RowsError};
use skrin_meta::state::{self, Inode, Link};
use skrin_meta::{Attributes, NamedKey};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// An open file.
///
/// Locks are taken in this order, and each may be left out: table of files, file (`state`), tree, then the leaves (`gone`,
/// nodes, pending operations), in which no other lock is taken. Nobody who holds one of them waits for room (`Fs::awaiting_room`).
pub(crate) struct OpenFile {
    /// The node under which it was opened.
    pub(crate) node: NodeId,
    /// Its inode.
    pub(crate) ino: Ino,
    /// Contents and what belongs to them.
    pub(crate) state: Mutex<FileState>,
    /// What there is of the inode since its last name went here: nothing more is told to the tree.
    pub(crate) gone: Mutex<Option<Gone>>,
    /// Handles that may write: while there are some, the kernel may hold contents that it has not told yet.
    pub(crate) writers: AtomicUsize,
    /// The number of its edits in the journal, 0 if it has none. Becomes another under the lock of `gone` only: edits are never noted
    /// behind the operation that takes the last name.
    pub(crate) noted: AtomicU64,
}

impl OpenFile {
    /// A file that is opened.
    pub(crate) fn new(node: NodeId, ino: Ino, state: FileState) -> Self {
        Self {
            node,
            ino,
            state: Mutex::new(state),
            gone: Mutex::new(None),
            writers: AtomicUsize::new(0),
            noted: AtomicU64::new(0),
        }
    }

    /// The number of its edits in the journal, if it has some.
    pub(crate) fn noted(&self) -> Option<u64> {
        Some(self.noted.load(Ordering::Acquire)).filter(|n| *n != 0)
    }

    /// The same; nobody will ask for it again.
    pub(crate) fn take_noted(&self) -> Option<u64> {
        Some(self.noted.swap(0, Ordering::AcqRel)).filter(|n| *n != 0)
    }
}

/// An inode that has no name any more.
#[derive(Clone)]
pub(crate) struct Gone {
    /// Its attributes.
    pub(crate) inode: Inode,
    /// Its extended attributes.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Gone {
    /// Takes note of new attributes.
    pub(crate) fn change(&mut self, change: &Change, now: Timestamp) {
        let inode = &mut self.inode;
        inode.mode = change.mode.unwrap_or(inode.mode);
        inode.uid = change.uid.unwrap_or(inode.uid);
        inode.gid = change.gid.unwrap_or(inode.gid);
        inode.atime = change.atime.unwrap_or(inode.atime);
        inode.mtime = change.mtime.unwrap_or(inode.mtime);
        inode.ctime = now;
    }
}

/// Attributes that the tree keeps, times resolved.
#[derive(Clone, Copy, Default)]
pub(crate) struct Change {
    pub(crate) mode: Option<u16>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) atime: Option<Timestamp>,
    pub(crate) mtime: Option<Timestamp>,
}

/// Nanoseconds for which a time that the kernel set is that of what it still writes.
const SAID_FOR: i64 = 1_000_000_000;

/// The modification time that a write leaves, `set` being the one that was set last. The kernel says itself when it has written pages, by a
/// clock that ticks every few milliseconds, and says nothing more of pages that came in the same tick: these must not make the file younger
/// than it knows.
pub(crate) fn written_at(set: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let said = set.filter(|said| {
        let since = now.0.saturating_sub(said.0);
        (0..SAID_FOR).contains(&since)
    });
    said.unwrap_or(now)
}

/// What a write says of the file, with those extended attributes that it carries.
pub(crate) fn attributes_of(inode: &Inode, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Attributes {
    Attributes {
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        btime: inode.btime,
        xattrs,
    }
}

/// The extended attributes of an inode that a write carries: what finds room, in the order of names.
pub(crate) fn attributes_to_tell(
    rows: &dyn Rows,
    ino: Ino,
    inode: &Inode,
) -> Result<Attributes, RowsError> {
    if inode.xattrs == 0 {
        return Ok(attributes_of(inode, Vec::new()));
    }
    let mut room = XATTRS_TOLD_MAX;
    let mut xattrs = Vec::new();
    for (name, value) in state::xattrs(rows, ino)? {
        if let Some(left) = room.checked_sub(name.len() + value.len()) {
            room = left;
            xattrs.push((name.into_vec(), value.to_vec()));
        }
    }
    Ok(attributes_of(inode, xattrs))
}

/// What an open file holds in memory.
pub(crate) struct FileState {
    /// Contents: those of the branch that was opened, with the changes made here.
    pub(crate) content: Content,
    /// The version that they started from.
    pub(crate) base: OpId,
    /// Attributes as of opening, for a file whose inode another device removed.
    pub(crate) inode: Arc<Inode>,
    /// Attributes as the tree had them last, for whoever has to make the file again.
    pub(crate) attributes: Attributes,
    /// A place at which the file was known.
    pub(crate) place: Option<Link>,
    /// Modification time of the changes that the tree does not have.
    pub(crate) mtime: Option<Timestamp>,
    /// The modification time that was set last.
    pub(crate) set_mtime: Option<Timestamp>,
    /// The key under which new blocks are sealed.
    pub(crate) key: Option<NamedKey>,
    /// Whether the tree does not have that key yet.
    pub(crate) key_is_new: bool,
    /// Keys of blocks shared with other files that the tree does not have for this one yet.
    pub(crate) borrowed: Vec<NamedKey>,
    /// Whether it holds blocks of others that the tree does not have for this one yet. It may have had their keys before.
    pub(crate) shares: bool,
    /// When the first change came that the tree does not have, on the monotonic clock.
    pub(crate) since: Option<u64>,
    /// Bytes of blocks in memory as last counted.
    pub(crate) counted: usize,
    /// Bytes that were stored and that no operation names yet.
    pub(crate) unnamed: u64,
    /// Whether it was cut to nothing and the tree still has what was in it: other devices keep the old contents until the new ones are
    /// whole.
    pub(crate) rewritten: bool,
    /// Whether the kernel wrote pages back when the storage had no room: their program was told that they are written, and hears of it when it
    /// closes.
    pub(crate) late: bool,
    /// The thread that made it or cut it to nothing, until its contents are told.
    pub(crate) author: Option<u32>,
    /// Whether its blocks are worth compressing.
    pub(crate) gain: Gain,
    /// What the journal has of changes that the tree does not have.
    pub(crate) noted: Noted,
    /// What went wrong in the background, for the next fsync or close.
    pub(crate) error: Option<FsError>,
}

/// Edits of an open file that the journal has (`content::Edits`), until an operation tells the tree and settles them.
#[derive(Default)]
pub(crate) struct Noted {
    /// Bytes of them.
    pub(crate) bytes: usize,
    /// Where the last of them stands, its length and time of the file, and when that was on the monotonic clock.
    pub(crate) last: Option<LastNoted>,
}

/// The last edits.
#[derive(Clone, Copy)]
pub(crate) struct LastNoted {
    pub(crate) lsn: Lsn,
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) at: u64,
}

impl FileState {
    /// The state of a file as the tree has it.
    pub(crate) fn new(inode: Inode, content: Content) -> Self {
        Self {
            content,
            base: inode.version,
            attributes: attributes_of(&inode, Vec::new()),
            place: inode.links.first().cloned(),
            mtime: None,
            set_mtime: None,
            key: inode.keys.last().cloned(),
            key_is_new: false,
            borrowed: Vec::new(),
            shares: false,
            since: None,
            counted: 0,
            unnamed: 0,
            rewritten: false,
            late: false,
            author: None,
            gain: Gain::default(),
            noted: Noted::default(),
            error: None,
            inode: Arc::new(inode),
        }
    }

    /// The modification time that a write leaves.
    pub(crate) fn written_at(&self, now: Timestamp) -> Timestamp {
        written_at(self.set_mtime, now)
    }

    /// Whether closing tells the tree nothing yet: what it holds may be gone in a moment, or is about to be written.
    pub(crate) fn may_wait(&self) -> bool {
        let empty = self.rewritten && self.content.size() == 0;
        self.content.is_modified() && (self.content.is_kept() || empty)
    }

    /// The inode, to change it.
    pub(crate) fn inode_mut(&mut self) -> &mut Inode {
        Arc::make_mut(&mut self.inode)
    }
}

/// An open file of one program.
pub(crate) struct Handle {
    /// What is open.
    pub(crate) file: Arc<OpenFile>,
    /// Whether it was opened for writing.
    pub(crate) write: bool,
    /// How it is read.
    pub(crate) ahead: Mutex<ReadAhead>,
}

struct Entry {
    file: Arc<OpenFile>,
    handles: usize,
}

/// The open files, of which none is opened or closed meanwhile.
pub(crate) struct OpenFiles<'a>(&'a HashMap<NodeId, Entry>);

impl OpenFiles<'_> {
    /// Those of an inode.
    pub(crate) fn of(&self, ino: Ino) -> Vec<Arc<OpenFile>> {
        let direct = self.0.get(&NodeId(ino.0)).into_iter();
        let aliases = self.0.values().filter(|e| e.file.node.is_alias());
        let all = direct.chain(aliases).filter(|e| e.file.ino == ino);
        all.map(|e| Arc::clone(&e.file)).collect()
    }

    /// Those that somebody writes.
    pub(crate) fn written(&self) -> impl Iterator<Item = &OpenFile> {
        let files = self.0.values().map(|e| &*e.file);
        files.filter(|file| file.writers.load(Ordering::Acquire) > 0)
    }
}

/// The files that are open, and those that are closed but not yet told to the tree.
#[derive(Default)]
pub(crate) struct Files {
    open: Mutex<HashMap<NodeId, Entry>>,
    handles: RwLock<HashMap<u64, Arc<Handle>>>,
    last: AtomicU64,
}

impl Files {
    /// The table. Never locked by who holds the tree: others lock it first and then the tree.
    fn table(&self) -> MutexGuard<'_, HashMap<NodeId, Entry>> {
        debug_assert!(!holds_tree(), "the table of files after the tree");
        self.open.lock()
    }

    /// The open file of a node; `load` makes it, under the table's lock.
    pub(crate) fn open(
        &self,
        node: NodeId,
        load: impl FnOnce() -> Result<OpenFile, FsError>,
    ) -> Result<Arc<OpenFile>, FsError> {
        let mut open = self.table();
        if let Some(entry) = open.get_mut(&node) {
            entry.handles += 1;
            return Ok(Arc::clone(&entry.file));
        }
        let file = Arc::new(load()?);
        let entry = Entry {
            file: Arc::clone(&file),
            handles: 1,
        };
        open.insert(node, entry);
        Ok(file)
    }

    /// Adds a file that nobody has open and that has something to tell the tree.
    pub(crate) fn add_unused(&self, file: OpenFile) -> Arc<OpenFile> {
        let file = Arc::new(file);
        let entry = Entry {
            file: Arc::clone(&file),
            handles: 0,
        };
        self.table().insert(file.node, entry);
        file
    }

    /// Takes one reference back. True if it was the last: then the file stays in the table until `discard`.
    pub(crate) fn close(&self, node: NodeId) -> bool {
        let mut open = self.table();
        let Some(entry) = open.get_mut(&node) else {
            return false;
        };
        entry.handles = entry.handles.saturating_sub(1);
        entry.handles == 0
    }

    /// Drops a file if nobody has it open and nothing is left to tell; true if it did.
    pub(crate) fn discard(&self, file: &OpenFile) -> bool {
        let mut open = self.table();
        let same = |e: &Entry| e.handles == 0 && std::ptr::eq(&raw const *e.file, file);
        if !open.get(&file.node).is_some_and(same) {
            return false;
        }
        // Somebody may have opened, changed and closed it since it was told.
        let left = file.state.lock().content.is_modified() && file.gone.lock().is_none();
        !left && open.remove(&file.node).is_some()
    }

    /// The open file of a node, if there is one.
    pub(crate) fn get(&self, node: NodeId) -> Option<Arc<OpenFile>> {
        self.table().get(&node).map(|e| Arc::clone(&e.file))
    }

    /// Runs `act` while no file is opened or closed.
    pub(crate) fn with_open<T>(&self, act: impl FnOnce(&OpenFiles<'_>) -> T) -> T {
        act(&OpenFiles(&self.table()))
    }

    /// All open files.
    pub(crate) fn all(&self) -> Vec<Arc<OpenFile>> {
        let open = self.table();
        let mut files: Vec<_> = open
            .iter()
            .map(|(node, e)| (*node, Arc::clone(&e.file)))
            .collect();
        // Always in the same order: what is told of them is told in it.
        files.sort_unstable_by_key(|(node, _)| *node);
        files.into_iter().map(|(_, file)| file).collect()
    }

    /// Hands out a handle, which is read ahead of as far as `ahead` goes.
    pub(crate) fn add_handle(
        &self,
        file: Arc<OpenFile>,
        write: bool,
        ahead: ReadAhead,
    ) -> HandleId {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        file.writers.fetch_add(usize::from(write), Ordering::AcqRel);
        let handle = Handle {
            file,
            write,
            ahead: Mutex::new(ahead),
        };
        self.handles.write().insert(id, Arc::new(handle));
        HandleId(id)
    }

    /// The handle of that number.
    ///
    /// # Errors
    /// `BadHandle`.
    pub(crate) fn handle(&self, id: HandleId) -> Result<Arc<Handle>, FsError> {
        let handles = self.handles.read();
        handles.get(&id.0).map(Arc::clone).ok_or(FsError::BadHandle)
    }

    /// Takes a handle back.
    pub(crate) fn remove_handle(&self, id: HandleId) -> Option<Arc<Handle>> {
        let handle = self.handles.write().remove(&id.0)?;
        let writes = usize::from(handle.write);
        handle.file.writers.fetch_sub(writes, Ordering::AcqRel);
        Some(handle)
    }
}

#[cfg(all(test, feature = "testutil"))]
mod tests {
    use crate::testutil::TestVault;
    use crate::{Caller, FsOptions, NodeId, OpenMode};

    #[test]
    fn a_file_is_read_ahead_of_no_further_than_the_memory_of_the_mount_allows() {
        let mut vault = TestVault::in_memory(3).unwrap();
        vault.data = Box::new(|config| config.prefetch_bytes = 1 << 20);
        let options = FsOptions {
            poll_interval: None,
            background: false,
            ..FsOptions::default()
        };
        let at = vault.open(0, options).unwrap();
        let caller = Caller {
            uid: 0,
            gid: 0,
            pid: 1,
            umask: 0,
        };
        let how = OpenMode::default();
        let made = at
            .fs
            .create(NodeId::ROOT, b"f", 0o600, true, how, &caller)
            .unwrap();
        let handle = at.fs.files.handle(made.1).unwrap();
        let mut ahead = handle.ahead.lock();
        let mut most = 0;
        for block in 0..1000 {
            if let Some(range) = ahead.on_read(block..block + 1, |block| block + 1) {
                most = most.max(range.end - block);
            }
        }
        assert!((1..=17).contains(&most), "{most} blocks of 64 KiB");
    }
}
