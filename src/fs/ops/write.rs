use crate::core::Fs;
use crate::error::FsError;
use crate::file::OpenFile;
use crate::types::HandleId;
use skrin_base::limits::{BLOCK_LEN, FILE_LEN_MAX};

/// Room in the journal below which writers may have to wait: two of its files.
const HEADROOM: u64 = 128 << 20;

impl Fs {
    /// Writes bytes at `offset`. Whole blocks are sealed and in the journal afterwards, the rest is in memory. May wait for the
    /// storage where a part of a block is written that is only there.
    ///
    /// # Errors
    /// `TooLarge`, `BadHandle`, `ReadOnly`; no room in the journal or, as last heard, on the storage.
    pub fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<(), FsError> {
        if handle.is_local() {
            return self.write_local(handle, offset, data);
        }
        let handle = self.files.handle(handle)?;
        self.write_file(&handle.file, offset, data)
    }

    /// As `write`, for what a program has written already, so that only the kernel has it: also where the storage takes no changes from here, or
    /// has no room. `fsync` tells how that stands, and `flush` that there was no room.
    ///
    /// # Errors
    /// As those of `write`, but for the storage.
    pub fn write_back(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<(), FsError> {
        if handle.is_local() {
            return self.write_local(handle, offset, data);
        }
        let handle = self.files.handle(handle)?;
        self.check_allowed()?;
        self.put(&handle.file, offset, data)?;
        if self.publisher.check_space().is_err() {
            handle.file.state.lock().late = true;
        }
        Ok(())
    }

    /// Refuses to put anything into an open file where the storage takes nothing from here, or has no room as last heard; but for one that was
    /// cut to nothing before, whose `fsync` and `flush` tell it.
    pub(crate) fn check_takes(&self, file: &OpenFile) -> Result<(), FsError> {
        self.check_file_writable(file)?;
        let space = self.publisher.check_space();
        let mut state = file.state.lock();
        state.late |= state.rewritten && space.is_err();
        match state.rewritten {
            true => Ok(()),
            false => space,
        }
    }

    pub(crate) fn write_file(
        &self,
        file: &OpenFile,
        offset: u64,
        data: &[u8],
    ) -> Result<(), FsError> {
        self.check_takes(file)?;
        self.put(file, offset, data)
    }

    fn put(&self, file: &OpenFile, offset: u64, data: &[u8]) -> Result<(), FsError> {
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > FILE_LEN_MAX) {
            return Err(FsError::TooLarge);
        }
        let (mut at, mut rest) = (offset, data);
        self.awaiting_room(|| self.write_on(file, &mut at, &mut rest))
    }

    /// Writes what is left, `rest` at `at`, which come along block by block: whoever finds no room goes on from there.
    fn write_on(&self, file: &OpenFile, at: &mut u64, rest: &mut &[u8]) -> Result<(), FsError> {
        loop {
            let mut state = file.state.lock();
            let missing = state
                .content
                .missing_for_write(file.ino.0, *at, rest.len())?;
            if let Some(missing) = missing {
                drop(state);
                self.bring(file, missing)?;
                continue;
            }
            self.with_sealer(file, &mut state, |s, sealer| {
                while !rest.is_empty() {
                    let from = (*at % BLOCK_LEN as u64) as usize;
                    let (part, after) = rest.split_at(rest.len().min(BLOCK_LEN - from));
                    s.content.write(*at, part, sealer)?;
                    *at += part.len() as u64;
                    *rest = after;
                }
                Ok(())
            })?;
            state.mtime = Some(state.written_at(self.now()));
            return self.relieve(file, &mut state);
        }
    }

    /// Whether a write can be made without waiting for the storage or for room.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn can_write_now(
        &self,
        handle: HandleId,
        offset: u64,
        len: usize,
    ) -> Result<bool, FsError> {
        if handle.is_local() {
            return Ok(true);
        }
        let handle = self.files.handle(handle)?;
        if self.is_congested() {
            return Ok(false);
        }
        let state = handle.file.state.lock();
        let missing = state
            .content
            .missing_for_write(handle.file.ino.0, offset, len);
        Ok(!matches!(missing, Ok(Some(_))))
    }

    /// Whether the journal is nearly full, so that storing a block may have to wait for the storage to catch up.
    pub fn is_congested(&self) -> bool {
        self.journal.allocated() + HEADROOM > self.journal.limit()
    }
}
