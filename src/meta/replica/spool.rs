//! Objects that wait on the local disk rather than in memory, sealed as they came. Nothing of it outlives the program.

use crate::heads::{LocalError, io_error};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file without a name, which is emptied when nothing in it is wanted any more.
pub(super) struct Spool {
    path: Arc<PathBuf>,
    file: Option<Arc<File>>,
    end: u64,
}

/// An object in it.
#[derive(Clone, Debug)]
pub(super) struct Spooled {
    path: Arc<PathBuf>,
    file: Arc<File>,
    at: u64,
    len: usize,
}

impl Spool {
    /// One in this directory; there is no file before something is kept.
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            path: Arc::new(dir.join("incoming")),
            file: None,
            end: 0,
        }
    }

    /// Keeps an object for as long as somebody has what this returns.
    ///
    /// # Errors
    /// When the disk says no.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Result<Spooled, LocalError> {
        self.let_go();
        let file = match &self.file {
            Some(file) => file.clone(),
            None => self.file.insert(Arc::new(self.make()?)).clone(),
        };
        let written = file.write_all_at(bytes, self.end);
        written.map_err(io_error(&self.path))?;
        let spooled = Spooled {
            path: self.path.clone(),
            file,
            at: self.end,
            len: bytes.len(),
        };
        self.end += bytes.len() as u64;
        Ok(spooled)
    }

    /// Gives the room on the disk back, if nothing in it is wanted.
    pub(super) fn let_go(&mut self) {
        if let Some(file) = &self.file
            && Arc::strong_count(file) == 1
        {
            (self.file, self.end) = (None, 0);
        }
    }

    fn make(&self) -> Result<File, LocalError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.mode(0o600).open(&*self.path);
        let file = file.map_err(io_error(&self.path))?;
        // The room is free when the file is closed, whatever ends this program.
        std::fs::remove_file(&*self.path).map_err(io_error(&self.path))?;
        Ok(file)
    }
}

impl Spooled {
    /// The object.
    ///
    /// # Errors
    /// When the disk says no.
    pub(super) fn read(&self) -> Result<Vec<u8>, LocalError> {
        let mut bytes = vec![0; self.len];
        let read = self.file.read_exact_at(&mut bytes, self.at);
        read.map_err(io_error(&self.path))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_the_room_is_given_back_with_the_last_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path());
        let first = spool.keep(b"first").unwrap();
        let second = spool.keep(b"the second").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(first.read().unwrap(), b"first");
        drop(first);
        spool.let_go();
        assert_eq!(second.read().unwrap(), b"the second");
        assert_eq!(spool.end, 15);
        drop(second);
        let third = spool.keep(b"third").unwrap();
        assert_eq!((third.at, spool.end), (0, 5));
        assert_eq!(third.read().unwrap(), b"third");
    }
}
