use crate::core::Fs;
use crate::error::FsError;
use crate::file::OpenFile;
use crate::types::{Allocate, HandleId};
use skrin_base::limits::FILE_LEN_MAX;

impl Fs {
    /// `fallocate`: grows, punches holes and zeroes. Room is never set aside. May wait for the storage.
    ///
    /// # Errors
    /// `TooLarge`, `Invalid`, `BadHandle`, `ReadOnly`; no room on the storage, as last heard.
    pub fn allocate(
        &self,
        handle: HandleId,
        offset: u64,
        len: u64,
        how: Allocate,
    ) -> Result<(), FsError> {
        if handle.is_local() {
            self.check_allowed()?;
            return self.allocate_local(handle, offset, len, how);
        }
        let handle = self.files.handle(handle)?;
        self.check_takes(&handle.file)?;
        if !handle.write {
            return Err(FsError::BadHandle);
        }
        let end = match offset.checked_add(len) {
            Some(end) if end <= FILE_LEN_MAX => end,
            _ => return Err(FsError::TooLarge),
        };
        if len == 0 {
            return Err(FsError::Invalid("an empty range"));
        }
        if matches!(how, Allocate::PunchHole | Allocate::Zero) {
            self.zero(&handle.file, offset, len)?;
        }
        if matches!(how, Allocate::Extend | Allocate::Zero) {
            // The kernel may write meanwhile what it had kept: never shorter than that.
            self.resize_if(&handle.file, end, |size| size < end)?;
        }
        Ok(())
    }

    fn zero(&self, file: &OpenFile, offset: u64, len: u64) -> Result<(), FsError> {
        loop {
            let mut state = file.state.lock();
            let missing = state.content.missing_for_zero(file.ino.0, offset, len)?;
            if let Some(missing) = missing {
                drop(state);
                self.bring(file, missing)?;
                continue;
            }
            state.content.zero(offset, len);
            state.mtime = Some(self.now());
            self.count(&mut state);
            return Ok(());
        }
    }
}
