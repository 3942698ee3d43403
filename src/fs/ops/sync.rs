use crate::config::{Durability, Pending};
use crate::core::Fs;
use crate::error::FsError;
use crate::types::HandleId;
use std::sync::Arc;

impl Fs {
    /// Makes what a file holds durable: on the local disk, or on the storage if the mount says so. Waits for either.
    ///
    /// # Errors
    /// What went wrong since the last call, once; no room; the disk. After an error nothing is promised.
    pub fn fsync(&self, handle: HandleId) -> Result<(), FsError> {
        if handle.is_local() {
            return self.locals.keep();
        }
        if self.options.durability == Durability::Local {
            let file = Arc::clone(&self.files.handle(handle)?.file);
            if let Some(edits) = self.awaiting_room(|| self.note_edits(&file))? {
                // Names and attributes that were changed since are in operations.
                let operations = self.committed.last().1;
                self.journal
                    .sync(operations.map_or(edits, |lsn| lsn.max(edits)))?;
                self.publisher.check_room()?;
                return file.state.lock().error.take().map_or(Ok(()), Err);
            }
        }
        let file = Arc::clone(&self.files.handle(handle)?.file);
        let told = self.flush_file(&file);
        let earlier = file.state.lock().error.take();
        told.and(earlier.map_or(Ok(()), Err))?;
        self.sync_journal()
    }

    /// Makes every change of names that was made durable, as `fsync` does.
    ///
    /// # Errors
    /// As `fsync`.
    pub fn fsync_dir(&self) -> Result<(), FsError> {
        self.locals.keep()?;
        self.sync_journal()
    }

    fn sync_journal(&self) -> Result<(), FsError> {
        let (counter, lsn) = self.committed.last();
        if let Some(lsn) = lsn {
            self.journal.sync(lsn)?;
        }
        self.publisher.check_room()?;
        match self.options.durability {
            Durability::Local => Ok(()),
            Durability::Remote => self.wait(
                self.options.deadline,
                self.publisher.wait_until(|| self.is_published(counter)),
            ),
        }
    }

    /// Whether everything up to that operation is on the storage.
    fn is_published(&self, counter: u64) -> bool {
        let first = self.replica.tree().first_unconfirmed();
        first.is_none_or(|first| first > counter)
    }

    /// Puts everything on the storage, calling back now and then with what is left. Waits as long as it makes progress or the storage may come
    /// back.
    ///
    /// # Errors
    /// What cannot be mended by waiting.
    pub fn sync(&self, mut progress: impl FnMut(&Pending) + Send) -> Result<(), FsError> {
        let told = self.flush_all();
        self.journal.sync_all()?;
        self.upload_all(&mut progress)?;
        if told.is_err() {
            // A full journal has room again.
            self.flush_all()?;
            self.journal.sync_all()?;
            self.upload_all(progress)?;
        }
        // Whoever asked looks next at what others had published.
        self.tell_untold();
        // Last: a full disk here is no reason to keep from the storage what would make room.
        self.locals.keep()
    }
}
