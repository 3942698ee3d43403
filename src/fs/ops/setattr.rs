use super::inode_of;
use crate::core::Fs;
use crate::error::FsError;
use crate::file::{Change, Gone, OpenFile};
use crate::types::{Attr, NodeId, SetAttr, SetTime};
use skrin_base::Timestamp;
use skrin_base::limits::FILE_LEN_MAX;
use skrin_meta::OpKind;

const MODE_BITS: u16 = 0o7777;

impl Change {
    /// The attributes to set but for the length.
    pub(crate) fn of(set: &SetAttr, now: Timestamp) -> Self {
        let time = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::At(at) => at,
        };
        Self {
            mode: set.mode.map(|m| m & MODE_BITS),
            uid: set.uid,
            gid: set.gid,
            atime: set.atime.map(time),
            mtime: set.mtime.map(time),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let owner = self.uid.is_none() && self.gid.is_none();
        owner && self.mode.is_none() && self.atime.is_none() && self.mtime.is_none()
    }
}

impl Fs {
    /// Changes attributes. A new length may wait for the storage: a block that is cut is read first.
    ///
    /// # Errors
    /// `NotFound`, `Stale` (a new length for a branch that is no longer the tree's), `IsDirectory`, `TooLarge`, `ReadOnly`; for a shorter
    /// length, that the storage has no room.
    pub fn setattr(&self, node: NodeId, set: &SetAttr) -> Result<Attr, FsError> {
        match set.size.and_then(|_| self.files.get(node)) {
            Some(file) => self.check_file_writable(&file)?,
            None => self.check_node_writable(node)?,
        }
        self.set(node, set)
    }

    /// As `setattr`, for times of what a program has written already, which only the kernel has: also where the storage takes no changes from
    /// here. Where they are refused the kernel ends `fsync` and `close` there, before it asks for what these promise.
    ///
    /// # Errors
    /// As those of `setattr`.
    pub fn set_back(&self, node: NodeId, set: &SetAttr) -> Result<Attr, FsError> {
        self.check_allowed()?;
        self.set(node, set)
    }

    fn set(&self, node: NodeId, set: &SetAttr) -> Result<Attr, FsError> {
        self.check_present(node)?;
        if node.is_local() {
            return self.set_local(node, set);
        }
        if let Some(size) = set.size {
            let file = self.open_file(node)?;
            let attr = self
                .resize(&file, size)
                .and_then(|()| self.set_others(node, set))
                .and_then(|()| self.open_attr(&file));
            // For a file that nobody has open this tells the tree.
            self.close_file(&file)?;
            return attr;
        }
        self.set_others(node, set)?;
        self.getattr(node)
    }

    fn set_others(&self, node: NodeId, set: &SetAttr) -> Result<(), FsError> {
        let now = self.now();
        let mut change = Change::of(set, now);
        self.unlease_if_copied(self.nodes.ino(node), change.mtime)?;
        if let Some(file) = self.files.get(node)
            && self.keep_in_memory(&file, &mut change)
        {
            return Ok(());
        }
        if change.is_empty() {
            return Ok(());
        }
        let told = self.commit(|tree| {
            let (ino, _) = inode_of(tree, self.nodes.ino(node))?;
            Ok(OpKind::SetAttr {
                ino,
                mode: change.mode,
                uid: change.uid,
                gid: change.gid,
                atime: change.atime,
                mtime: change.mtime,
            })
        });
        let kept = |gone: &mut Gone| gone.change(&change, now);
        match told {
            // The kernel tells times of a file when its last name is gone already.
            Err(FsError::NotFound) if self.nodes.with_removed(node, kept).is_some() => {}
            told => told.map(drop)?,
        }
        self.files
            .get(node)
            .map_or(Ok(()), |file| self.note_attributes(&file))
    }

    /// What an open file keeps for itself until it is told to the tree: its modification time if it has changes, everything if it has no
    /// name. True if nothing is left to do.
    fn keep_in_memory(&self, file: &OpenFile, change: &mut Change) -> bool {
        let mut state = file.state.lock();
        if let Some(mtime) = change.mtime {
            state.set_mtime = Some(mtime);
            if state.content.is_modified() {
                state.mtime = Some(mtime);
                change.mtime = None;
            } else {
                state.inode_mut().mtime = mtime;
            }
        }
        let mut gone = file.gone.lock();
        let Some(gone) = gone.as_mut() else {
            return change.is_empty();
        };
        gone.change(change, self.now());
        true
    }

    /// Cuts or grows an open file.
    pub(crate) fn resize(&self, file: &OpenFile, size: u64) -> Result<(), FsError> {
        self.resize_if(file, size, |_| true)
    }

    /// The same where the length is such a one when it is changed.
    pub(crate) fn resize_if(
        &self,
        file: &OpenFile,
        size: u64,
        is_meant: impl Fn(u64) -> bool,
    ) -> Result<(), FsError> {
        if size > FILE_LEN_MAX {
            return Err(FsError::TooLarge);
        }
        loop {
            let mut state = file.state.lock();
            if !is_meant(state.content.size()) {
                return Ok(());
            }
            // What is written instead might find no room. Of a file without a name the storage hears nothing.
            if size < state.content.size() && file.gone.lock().is_none() {
                self.publisher.check_space()?;
            }
            if let Some(missing) = state.content.missing_for_cut(size) {
                drop(state);
                self.bring(file, missing)?;
                continue;
            }
            state.rewritten |= size == 0 && state.inode.size > 0;
            if size != state.content.size() {
                state.content.resize(size);
            }
            state.mtime = Some(self.now());
            state.content.touch();
            self.count(&mut state);
            return Ok(());
        }
    }
}
