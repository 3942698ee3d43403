//! Putting a segment again whose object is damaged or missing. Its bytes are a function of its blocks and of its sealed table, all
//! of which the signed declaration fixes: header and padding are made, the table is believed by its hash, each block by its hash in
//! the table. So whatever part is found anywhere fits, and the object is the one that was put first, or it is not put at all.

use super::Inner;
use crate::error::{DataError, Flaw};
use crate::segment::{self, Table, object_name};
use bytes::Bytes;
use skrin_base::limits::SEGMENT_MAX;
use skrin_base::{SegmentId, SegmentInfo};
use skrin_crypto::hash;
use skrin_storage::disk::{blocking, sync_all, sync_dir};
use skrin_storage::{ErrorKind, put_over};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SPARE: &str = "keep a copy of what is put again";

/// What became of a segment that was to be mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mended {
    /// The storage shows it as it was written.
    Whole,
    /// It was put again, byte for byte.
    PutAgain,
    /// Nobody here has these slots; nothing was changed.
    Lost(Vec<u32>),
    /// Nobody here has its table, without which no block of it can be told; nothing was changed.
    NoTable,
}

/// What can be had of it.
enum Found {
    Whole,
    /// The whole object, which the storage does not show.
    Object(Bytes),
    Parts(Mended),
}

impl Inner {
    pub(super) async fn mend(
        self: Arc<Self>,
        info: Arc<SegmentInfo>,
        spare: &Path,
    ) -> Result<Mended, DataError> {
        let id = info.id;
        let name = object_name(id).map_err(|e| DataError::storage(id, e.into()))?;
        if info.object_len > SEGMENT_MAX as u64 {
            return Err(DataError::flawed(id, None, Flaw::Length));
        }
        let _place = self.take_place(info.object_len).await;
        let stored = match self.parts.store.get(&name, SEGMENT_MAX).await {
            Ok(bytes) => Some(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::Absent | ErrorKind::Broken) => None,
            Err(error) => return Err(DataError::storage(id, error)),
        };
        let (inner, path) = (Arc::clone(&self), spare.join(id.to_string()));
        let found = blocking(&self.parts.runtime, move || {
            let spare = Spare(path);
            let kept = spare.read();
            let found = inner.find_parts(&info, stored.as_deref(), kept.as_deref());
            if let Found::Object(object) = &found {
                // One for each object that the storage does not take: they must not fill the disk.
                if kept.as_deref() != Some(&object[..]) {
                    inner.check_free(SPARE, spare.dir(), object.len() as u64)?;
                }
                // What the storage shows of it may go before the whole is there.
                spare.store(object)?;
            }
            Ok((found, spare))
        });
        let (found, spare) = found.await.map_err(|_| DataError::Stopped)??;
        let mended = match found {
            Found::Parts(mended) => return Ok(mended),
            Found::Whole => Mended::Whole,
            Found::Object(object) => {
                let put = put_over(&*self.parts.store, &name, object).await;
                put.map_err(|error| DataError::storage(id, error))?;
                Mended::PutAgain
            }
        };
        spare.remove();
        Ok(mended)
    }

    /// Looks in the object itself, in what an earlier attempt left, in the disk cache and in what waits for its upload.
    fn find_parts(&self, info: &SegmentInfo, stored: Option<&[u8]>, spare: Option<&[u8]>) -> Found {
        let objects = [stored, spare];
        let Some((table, sealed)) = self.find_table(info, &objects) else {
            return Found::Parts(Mended::NoTable);
        };
        let mut object = Vec::new();
        object.extend_from_slice(&segment::header_of(&table));
        let mut lost = Vec::new();
        for slot in 0..info.slots {
            match self.find_block(&table, slot, &objects) {
                Some(block) => object.extend_from_slice(&block),
                None if table.entry(slot).is_some() => lost.push(slot),
                None => {}
            }
        }
        if !lost.is_empty() {
            return Found::Parts(Mended::Lost(lost));
        }
        segment::finish_object(&mut object, info, &sealed);
        match stored == Some(&object[..]) {
            true => Found::Whole,
            false => Found::Object(object.into()),
        }
    }

    fn find_table(
        &self,
        info: &SegmentInfo,
        objects: &[Option<&[u8]>],
    ) -> Option<(Table, Vec<u8>)> {
        let range = info.table_offset as usize..info.object_len as usize;
        let parts = objects.iter().flatten();
        let mut sealed: Vec<Vec<u8>> = parts
            .filter_map(|object| object.get(range.clone()))
            .map(<[u8]>::to_vec)
            .collect();
        sealed.extend(self.disk.as_ref().and_then(|disk| disk.table(info.id)));
        let pending = self.pending.lock().get(&info.id).cloned();
        let ended = pending.and_then(|pending| pending.ended());
        sealed.extend(ended.map(|(ended, _)| ended.sealed_table.to_vec()));
        let (vault, room) = (self.config.vault, self.config.room);
        sealed.into_iter().find_map(|sealed| {
            let table = Table::open(vault, room, info, &sealed).ok()?;
            Some((table, sealed))
        })
    }

    /// The sealed bytes of a block, with the hash that the table has for it.
    fn find_block(&self, table: &Table, slot: u32, objects: &[Option<&[u8]>]) -> Option<Vec<u8>> {
        let entry = table.entry(slot)?;
        let range = table.range(slot..slot + 1)?;
        let range = range.start as usize..range.end as usize;
        let good = |bytes: &[u8]| hash(bytes) == entry.hash;
        let parts = objects.iter().flatten();
        let mut parts = parts.filter_map(|object| object.get(range.clone()));
        parts
            .find(|bytes| good(bytes))
            .map(<[u8]>::to_vec)
            .or_else(|| self.disk.as_ref()?.block(table, slot))
            .or_else(|| {
                let sealed = self.sealed_pending(table.place().segment, slot)?;
                good(&sealed).then_some(sealed)
            })
    }

    /// The sealed bytes of a block that waits for its upload, or waited just now.
    fn sealed_pending(&self, id: SegmentId, slot: u32) -> Option<Vec<u8>> {
        let segment = self.pending.lock().get(&id).cloned()?;
        let filled = segment.block(slot).ok()??;
        match &filled.memory {
            Some(bytes) => Some(bytes.to_vec()),
            None => self.parts.journal.read(filled.pos).ok()?,
        }
    }
}

/// The file that holds an object while its place on the storage may be empty.
struct Spare(PathBuf);

impl Spare {
    fn read(&self) -> Option<Vec<u8>> {
        let len = std::fs::metadata(&self.0).ok()?.len();
        (len <= SEGMENT_MAX as u64).then(|| std::fs::read(&self.0).ok())?
    }

    fn dir(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new("/"))
    }

    fn store(&self, object: &[u8]) -> Result<(), DataError> {
        let written = write_synced(self.dir(), &self.0, object);
        written.map_err(|e| DataError::disk(SPARE, &self.0, e))
    }

    /// It is on the storage. One that stays is of use, or found to be of none.
    fn remove(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn write_synced(dir: &Path, path: &Path, object: &[u8]) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let staged = path.with_extension("new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&staged)?;
    file.write_all(object)?;
    sync_all(&file, &staged)?;
    std::fs::rename(&staged, path)?;
    sync_dir(dir)
}

impl Mended {
    /// What is wrong with a segment that is not whole, as an error of the block or of the object.
    pub fn error(&self, segment: SegmentId) -> Option<DataError> {
        match self {
            Self::Whole | Self::PutAgain => None,
            Self::Lost(slots) => Some(DataError::flawed(
                segment,
                slots.first().copied(),
                Flaw::Hash,
            )),
            Self::NoTable => Some(DataError::flawed(segment, None, Flaw::Hash)),
        }
    }
}
