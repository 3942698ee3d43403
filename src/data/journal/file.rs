//! The files of the log: made, written, synced, used again.

use super::Held;
use super::record::{FILE_HEADER_LEN, FileId};
use super::replay::OldFile;
use crate::error::DataError;
use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use skrin_base::SegmentId;
use skrin_storage::disk;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Finished files kept for another life: overwriting allocated blocks makes `fdatasync` cheap.
const SPARES_MAX: usize = 2;
/// Slices of one `pwritev`; IOV_MAX is 1024.
const SLICES_MAX: usize = 256;

/// A file of the log.
pub(super) struct LogFile {
    pub(super) id: FileId,
    pub(super) path: Arc<Path>,
    pub(super) file: Arc<File>,
    pub(super) capacity: u32,
    pub(super) end: u32,
    /// The last operation in it, and the undeclared segments of which something is in it.
    pub(super) max_op: u64,
    pub(super) segments: Held,
    /// Edits in it that are not settled.
    pub(super) edits: BTreeSet<u64>,
}

impl LogFile {
    /// Makes a file of `len` bytes, from a spare one if there is one, whose name survives a crash.
    pub(super) fn create(
        dir: &Path,
        id: FileId,
        len: u32,
        spares: &mut Spares,
    ) -> Result<Self, DataError> {
        let path = dir.join(id.file_name());
        let file = match spares.reuse(&path, len) {
            Some(file) => file,
            None => allocate(&path, len)?,
        };
        if let Err(e) = sync_dir(dir) {
            // Or the next attempt would make a second file of this number; it never held anything.
            let _ = std::fs::remove_file(&path);
            return Err(e);
        }
        Ok(Self {
            id,
            path: path.into(),
            file: Arc::new(file),
            capacity: len,
            end: FILE_HEADER_LEN as u32,
            max_op: 0,
            segments: Held::new(),
            edits: BTreeSet::new(),
        })
    }

    /// A file of an earlier run, which is only read.
    pub(super) fn reopen(old: OldFile) -> Result<Self, DataError> {
        let file = File::open(&old.path).map_err(|e| DataError::disk("open", &old.path, e))?;
        Ok(Self {
            id: old.id,
            path: old.path.into(),
            file: Arc::new(file),
            capacity: old.end,
            end: old.end,
            max_op: old.max_op,
            segments: old.segments,
            edits: old.edits,
        })
    }

    /// Bytes left.
    pub(super) fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.end).into()
    }

    /// Whether something in it is not yet on the storage for good.
    pub(super) fn is_needed(&self, released: u64) -> bool {
        self.max_op > released || !self.segments.is_empty() || !self.edits.is_empty()
    }

    /// Notes that something of a segment is in it.
    pub(super) fn holds(&mut self, segment: SegmentId) {
        self.segments.insert(segment);
    }
}

fn allocate(path: &Path, len: u32) -> Result<File, DataError> {
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let file = open.map_err(|e| DataError::disk("make a journal file", path, e))?;
    let room = fallocate(&file, FallocateFlags::empty(), 0, len.into()).map_err(io::Error::from);
    let room = match room {
        // Not every file system can allocate ahead; then a full disk shows when records are written.
        Err(e) if e.kind() == io::ErrorKind::Unsupported => file.set_len(len.into()),
        other => other,
    };
    let synced = room.and_then(|()| disk::sync_all(&file, path));
    if let Err(e) = synced {
        // It never held anything; what cannot be removed is an empty file for the next replay.
        let _ = std::fs::remove_file(path);
        return Err(DataError::disk("make room for the journal", path, e));
    }
    Ok(file)
}

/// Files whose life is over, kept to be written over.
#[derive(Default)]
pub(super) struct Spares(Vec<PathBuf>);

impl Spares {
    fn reuse(&mut self, path: &Path, len: u32) -> Option<File> {
        while let Some(spare) = self.0.pop() {
            let file = OpenOptions::new().read(true).write(true).open(&spare).ok();
            let fits = file.filter(|f| f.metadata().is_ok_and(|m| m.len() == u64::from(len)));
            match fits {
                Some(file) if std::fs::rename(&spare, path).is_ok() => return Some(file),
                _ => {
                    // Of another length, or gone: a spare is worth no error.
                    let _ = std::fs::remove_file(&spare);
                }
            }
        }
        None
    }

    /// Takes a file whose contents nobody needs any more; its name does not come back. It would bring what later files have said is done with, and
    /// these may be given up next.
    ///
    /// # Errors
    /// `LocalDisk`: it may come back, and may be given up again.
    pub(super) fn take_over(&mut self, file: &LogFile) -> Result<(), DataError> {
        let failed = |what| move |e| DataError::disk(what, &file.path, e);
        if self.0.len() >= SPARES_MAX {
            match std::fs::remove_file(&file.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove")(e)),
                _ => {}
            }
        } else {
            let spare = file.path.with_extension("spare");
            match std::fs::rename(&file.path, &spare) {
                Ok(()) => self.0.push(spare),
                // An attempt before this one came so far.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("rename")(e)),
            }
        }
        match file.path.parent() {
            Some(dir) => sync_dir(dir),
            None => Ok(()),
        }
    }

    /// Deletes them all.
    pub(super) fn clear(&mut self) {
        for spare in self.0.drain(..) {
            // Only space is at stake.
            let _ = std::fs::remove_file(spare);
        }
    }
}

/// What a journal's directory holds.
pub(super) struct Found {
    /// In the order of their numbers.
    pub(super) logs: Vec<(FileId, PathBuf)>,
    pub(super) spares: Spares,
}

/// Lists the directory.
pub(super) fn list(dir: &Path) -> Result<Found, DataError> {
    let failed = |e| DataError::disk("list the journal", dir, e);
    let mut found = Found {
        logs: Vec::new(),
        spares: Spares::default(),
    };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "spare") {
            found.spares.0.push(path);
        } else if let Some(id) = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(FileId::parse)
        {
            found.logs.push((id, path));
        }
    }
    found.logs.sort_by_key(|(id, _)| (id.number, id.marker));
    Ok(found)
}

/// Makes the directory, for the user alone.
pub(super) fn make_dir(dir: &Path) -> Result<(), DataError> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|e| DataError::disk("make the journal's directory", dir, e))
}

/// Cuts a file behind its last whole record, for good.
pub(super) fn cut(path: &Path, len: u64) -> Result<(), DataError> {
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(len)?;
        disk::sync_all(&file, path)
    });
    cut.map_err(|e| DataError::disk("cut a journal file", path, e))
}

/// What a file holds is on stable storage.
pub(super) fn sync(path: &Path) -> Result<(), DataError> {
    let synced = File::open(path).and_then(|file| disk::sync_all(&file, path));
    synced.map_err(|e| DataError::disk("sync a journal file", path, e))
}

fn sync_dir(dir: &Path) -> Result<(), DataError> {
    disk::sync_dir(dir).map_err(|e| DataError::disk("sync the journal's directory", dir, e))
}

/// Fills `out` from `offset` on.
pub(super) fn read_at(
    file: &File,
    path: &Path,
    out: &mut [u8],
    offset: u32,
) -> Result<(), DataError> {
    file.read_exact_at(out, offset.into())
        .map_err(|e| DataError::disk("read the journal", path, e))
}

/// A record that waits to be written.
pub(super) struct Piece {
    pub(super) file: Arc<File>,
    pub(super) path: Arc<Path>,
    pub(super) offset: u32,
    pub(super) head: Vec<u8>,
    pub(super) payload: Bytes,
}

impl Piece {
    fn end(&self) -> u64 {
        u64::from(self.offset) + (self.head.len() + self.payload.len()) as u64
    }
}

/// How writing failed.
pub(super) enum WriteError {
    /// The same bytes may be written again to the same place.
    Retry(DataError),
    /// A sync failed: nobody knows what the disk has.
    Final(DataError),
}

impl WriteError {
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Final(_))
    }

    pub(super) fn error(&self) -> &DataError {
        let (Self::Retry(e) | Self::Final(e)) = self;
        e
    }
}

/// The file that was written last and is not synced yet.
#[derive(Default)]
pub(super) struct Output(Option<(Arc<File>, Arc<Path>)>);

impl Output {
    /// Writes pieces to their places. A file is synced before the next one is written, so that the log on disk has no gap
    /// where it goes on.
    pub(super) fn write(&mut self, pieces: &[Piece]) -> Result<(), WriteError> {
        let mut rest = pieces;
        while let Some(first) = rest.first() {
            let mut end = u64::from(first.offset);
            let run = rest.iter().take(SLICES_MAX / 2).take_while(|p| {
                let follows = Arc::ptr_eq(&p.file, &first.file) && u64::from(p.offset) == end;
                end = p.end();
                follows
            });
            let (now, later) = rest.split_at(run.count().max(1));
            self.turn_to(first).map_err(WriteError::Final)?;
            let slices = now
                .iter()
                .flat_map(|p| [IoSlice::new(&p.head), IoSlice::new(&p.payload)]);
            write_all(&first.file, slices.collect(), first.offset.into()).map_err(|e| {
                WriteError::Retry(DataError::disk("write the journal", &first.path, e))
            })?;
            rest = later;
        }
        Ok(())
    }

    fn turn_to(&mut self, piece: &Piece) -> Result<(), DataError> {
        if self
            .0
            .as_ref()
            .is_some_and(|(file, _)| !Arc::ptr_eq(file, &piece.file))
        {
            self.sync()?;
        }
        self.0 = Some((Arc::clone(&piece.file), Arc::clone(&piece.path)));
        Ok(())
    }

    /// `fdatasync`.
    pub(super) fn sync(&mut self) -> Result<(), DataError> {
        match self.0.take() {
            Some((file, path)) => disk::sync_data(&file, &path)
                .map_err(|e| DataError::disk("sync the journal", &path, e)),
            None => Ok(()),
        }
    }
}

fn write_all(file: &File, mut slices: Vec<IoSlice<'_>>, mut offset: u64) -> io::Result<()> {
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, offset) {
            Ok(0) if slices.iter().all(|s| s.is_empty()) => return Ok(()),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                offset += n as u64;
                IoSlice::advance_slices(&mut slices, n);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
