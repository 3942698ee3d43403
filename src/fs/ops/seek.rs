use crate::core::Fs;
use crate::error::FsError;
use crate::types::{HandleId, Seek};
use std::sync::atomic::Ordering;

impl Fs {
    /// Whether a `seek` has to wait for what the kernel holds of the file.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn is_written_to(&self, handle: HandleId) -> Result<bool, FsError> {
        if handle.is_local() {
            return self.locals.is_written_to(handle);
        }
        let writers = &self.files.handle(handle)?.file.writers;
        Ok(writers.load(Ordering::Acquire) > 0)
    }

    /// The next data or hole at or behind `offset`, to the grain of blocks. Of a file that is open for writing the kernel is asked for what it
    /// has not told yet: without that it would count as a hole, and whoever copies by holes would lose it. Waits for writes to be answered then.
    ///
    /// # Errors
    /// `NoMoreData` behind the last data and behind the end, `BadHandle`.
    pub fn seek(&self, handle: HandleId, offset: u64, what: Seek) -> Result<u64, FsError> {
        let written_to = self.is_written_to(handle)?;
        let notify = self.notify.lock().clone();
        let notify = notify.filter(|_| written_to);
        if handle.is_local() {
            return self.seek_local(handle, offset, what, notify.as_deref());
        }
        let handle = self.files.handle(handle)?;
        if let Some(notify) = notify {
            notify.write_back(handle.file.node);
        }
        let state = handle.file.state.lock();
        let found = state.content.seek(offset, what == Seek::Data);
        found.ok_or(FsError::NoMoreData)
    }
}
