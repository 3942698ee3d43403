//! Small edits that a program wants durable: noted in the journal as they are, told to the tree when they have come to rest, and
//! taken in again after a crash.

use crate::content::Edits;
use crate::core::Fs;
use crate::error::FsError;
use crate::file::{FileState, LastNoted, OpenFile};
use parking_lot::Mutex;
use skrin_base::Ino;
use skrin_base::wire::{Decode, Encode};
use skrin_data::Lsn;

/// Bytes of edits of one file after which the tree is told instead: so much a replay has to lay over it.
const NOTED_MAX: usize = 64 << 20;

impl Fs {
    /// Notes in the journal what an open file holds in memory only; where that was noted. `None` if the tree has to be told.
    ///
    /// # Errors
    /// Those of the journal; then nothing was noted.
    pub(crate) fn note_edits(&self, file: &OpenFile) -> Result<Option<Lsn>, FsError> {
        let mut state = file.state.lock();
        // A journal that is nearly full must not be held by what cannot be uploaded.
        let plain = state.content.is_modified() && file.gone.lock().is_none();
        if !plain || self.is_congested() || self.check_writable().is_err() {
            return Ok(None);
        }
        let Some(parts) = state.content.unnoted() else {
            return Ok(None);
        };
        let bytes = parts.iter().map(|p| p.bytes.len()).sum::<usize>();
        if state.noted.bytes + bytes > NOTED_MAX {
            return Ok(None);
        }
        let mtime = *state.mtime.get_or_insert_with(|| self.now());
        let size = state.content.size();
        if let Some(last) = state.noted.last
            && parts.is_empty()
            && (last.size, last.mtime) == (size, mtime)
        {
            return Ok(Some(last.lsn));
        }
        let number = *state.noted.number.get_or_insert_with(|| self.entropy.u64());
        let edits = Edits {
            ino: file.ino,
            base: state.base,
            size,
            mtime,
            parts,
        };
        let lsn = self.journal.append_edits(number, &edits.to_bytes())?;
        state.content.noted();
        state.noted.bytes += bytes;
        state.noted.last = Some(LastNoted {
            lsn,
            size,
            mtime,
            at: self.clock.monotonic(),
        });
        Ok(Some(lsn))
    }

    /// Takes in what was noted before a crash and never told: the files are as they were, open or not, and are told at once.
    ///
    /// # Errors
    /// Edits that do not decode; of the local cache.
    pub(crate) fn restore_edits(&self, noted: Vec<(u64, Vec<u8>)>) -> Result<(), FsError> {
        let mut files: Vec<(u64, Vec<Edits>)> = Vec::new();
        for (number, bytes) in noted {
            let edits = Edits::from_bytes(&bytes).map_err(|error| {
                tracing::error!(number, %error, "edits in the journal do not decode");
                FsError::Invalid("edits in the journal do not decode; a newer version wrote them")
            })?;
            match files.iter_mut().find(|(n, _)| *n == number) {
                Some((_, all)) => all.push(edits),
                None => files.push((number, vec![edits])),
            }
        }
        for (number, edits) in files {
            self.restore_file(number, edits)?;
        }
        Ok(())
    }

    fn restore_file(&self, number: u64, edits: Vec<Edits>) -> Result<(), FsError> {
        let Some((ino, base)) = edits.first().map(|first| (first.ino, first.base)) else {
            return Ok(());
        };
        let (inode, content) = match self.loaded(ino) {
            // Removed since.
            Err(FsError::NotFound) if self.options.read_only => return Ok(()),
            Err(FsError::NotFound) => return Ok(self.journal.settle(number)?),
            found => found?,
        };
        let mut state = FileState::new(inode, content);
        state.base = base;
        state.noted.number = Some(number);
        for Edits {
            size, mtime, parts, ..
        } in edits
        {
            state.content.restore(size, parts);
            state.mtime = Some(mtime);
        }
        self.count(&mut state);
        let file = self.files.add_unused(OpenFile {
            node: self.nodes.current(ino),
            ino,
            state: Mutex::new(state),
            gone: Mutex::new(None),
        });
        if let Err(error) = self.flush_and_discard(&file) {
            tracing::warn!(ino = ino.0, %error, "edits from before a crash cannot be told yet");
        }
        Ok(())
    }

    /// Another device changed or removed an inode: what is noted of an open file of it is told before anything else, so that it
    /// names the version that it started from.
    pub(crate) fn tell_edits(&self, ino: Ino) {
        let files = self.files.with_open(|open| open(ino));
        for file in files {
            let noted = file.state.lock().noted.number.is_some();
            if noted && let Err(error) = self.flush_file(&file) {
                tracing::warn!(ino = ino.0, %error, "edits cannot be told yet");
            }
        }
    }
}
