use crate::core::Fs;
use crate::error::FsError;
use crate::types::{HandleId, Seek};

impl Fs {
    /// The next data or hole at or behind `offset`, to the grain of blocks.
    ///
    /// # Errors
    /// `NoMoreData` behind the last data and behind the end, `BadHandle`.
    pub fn seek(&self, handle: HandleId, offset: u64, what: Seek) -> Result<u64, FsError> {
        let handle = self.files.handle(handle)?;
        let state = handle.file.state.lock();
        let found = state.content.seek(offset, what == Seek::Data);
        found.ok_or(FsError::NoMoreData)
    }
}
