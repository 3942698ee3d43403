use crate::core::Fs;
use crate::error::FsError;
use crate::file::{FileState, OpenFile, attributes_to_tell};
use crate::leases::process_of;
use crate::types::{HandleId, NodeId, OpenMode};
use skrin_meta::Kind;
use std::sync::Arc;

impl Fs {
    /// Opens a regular file. What the kernel has cached of the node stays good: whatever another device changes comes under another node.
    ///
    /// # Errors
    /// `Stale` if the node is of a branch that is no longer the tree's: look the name up again. `IsDirectory`, `Invalid` for
    /// other kinds, `ReadOnly`.
    pub fn open_node(&self, node: NodeId, how: OpenMode) -> Result<HandleId, FsError> {
        if node.is_past() {
            return self.past_open(node, how);
        }
        if how.write || how.truncate {
            self.check_node_writable(node)?;
        }
        if node.is_local() {
            return self.open_local(node, how);
        }
        // Also while somebody holds the branch open: who opens a name is to have what the name leads to.
        if self.nodes.is_stale(node) {
            return Err(FsError::Stale);
        }
        let file = self.open_file(node)?;
        if how.truncate
            && let Err(e) = self.resize(&file, 0)
        {
            self.close_file(&file)?;
            return Err(e);
        }
        Ok(self
            .files
            .add_handle(file, how.write, self.data.read_ahead()))
    }

    /// The open file of a node, counted once more; `close_file` takes that back.
    pub(crate) fn open_file(&self, node: NodeId) -> Result<Arc<OpenFile>, FsError> {
        if self.nodes.is_stale(node) && self.files.get(node).is_none() {
            return Err(FsError::Stale);
        }
        let ino = self.nodes.ino(node);
        self.files.open(node, || {
            let (inode, content) = match self.loaded(ino) {
                Err(FsError::NotFound) => return Err(FsError::Stale),
                found => found?,
            };
            match inode.kind {
                Kind::File => {}
                Kind::Dir => return Err(FsError::IsDirectory),
                _ => return Err(FsError::Invalid("only regular files are opened here")),
            }
            // A merge shows its state before it comes to tell what changed. Under the old length the kernel would cut the new contents off.
            if self.nodes.believes_other(node, inode.version) {
                self.nodes.outdate(ino);
                return Err(FsError::Stale);
            }
            let mut state = FileState::new(inode, content);
            if state.inode.xattrs > 0 {
                state.attributes = attributes_to_tell(&self.replica.tree(), ino, &state.inode)?;
            }
            Ok(OpenFile::new(node, ino, state))
        })
    }

    /// Takes back one `open_file`: with the last one the tree is told what the file holds. If that fails the file stays in memory and is
    /// tried again.
    pub(crate) fn close_file(&self, file: &OpenFile) -> Result<(), FsError> {
        if !self.files.close(file.node) {
            return Ok(());
        }
        self.tell_closed(file)?;
        if !file.state.lock().content.is_modified() {
            self.holds.file_closed(file.ino, self.clock.monotonic());
        }
        self.discard(file)
    }

    /// A program closed one of its descriptors: the tree is told what the file holds.
    ///
    /// # Errors
    /// What went wrong since the last call, once; that the storage has no room, where the kernel wrote back what programs had written;
    /// `BadHandle`.
    pub fn flush(&self, handle: HandleId) -> Result<(), FsError> {
        if handle.is_local() {
            return Ok(());
        }
        let handle = self.files.handle(handle)?;
        let told = self.tell_closed(&handle.file);
        let (earlier, late) = {
            let mut state = handle.file.state.lock();
            let late = handle.write && std::mem::take(&mut state.late);
            (state.error.take(), late)
        };
        told.and(earlier.map_or(Ok(()), Err))?;
        match late {
            true => self.publisher.check_space(),
            false => Ok(()),
        }
    }

    /// As `flush`, by a thread. A program that starts another while it writes a document gives it copies of its descriptors for a moment: that those
    /// are closed says nothing of the document.
    ///
    /// # Errors
    /// As `flush`.
    pub fn flush_by(&self, handle: HandleId, thread: u32) -> Result<(), FsError> {
        if handle.is_local() {
            return Ok(());
        }
        let author = self.files.handle(handle)?.file.state.lock().author;
        let other = author
            .filter(|author| *author != thread)
            .is_some_and(|author| {
                let both = (process_of(author), process_of(thread));
                matches!(both, (Some(author), Some(this)) if author != this)
            });
        match other {
            true => Ok(()),
            false => self.flush(handle),
        }
    }

    /// Who cut a file to nothing, to write it anew.
    pub fn note_author(&self, node: NodeId, thread: u32) {
        if let Some(file) = self.files.get(node) {
            let mut state = file.state.lock();
            if state.rewritten {
                state.author = Some(thread);
            }
        }
    }

    fn tell_closed(&self, file: &OpenFile) -> Result<(), FsError> {
        self.awaiting_room(|| {
            let mut state = file.state.lock();
            match state.may_wait() {
                true => Ok(()),
                false => self.flush_state(file, &mut state),
            }
        })
    }

    /// The last descriptor of a handle is gone.
    ///
    /// # Errors
    /// As `flush`; the kernel tells nobody.
    pub fn release(&self, handle: HandleId) -> Result<(), FsError> {
        if handle.is_local() {
            return self.close_local(handle);
        }
        match self.files.remove_handle(handle) {
            Some(handle) => self.close_file(&handle.file),
            None => Err(FsError::BadHandle),
        }
    }
}
