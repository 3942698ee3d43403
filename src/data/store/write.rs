//! Filling segments.

use super::Inner;
use super::pending::{EndStep, Ended, Filled, Pending, Status};
use crate::block::{BlockRef, Gain, compress};
use crate::error::DataError;
use crate::journal::Room;
use crate::segment::{Entry, Place};
use bytes::Bytes;
use skrin_base::ids::{Ino, KeyId, LaneId, SegmentId};
use skrin_base::limits::BLOCK_LEN;
use skrin_crypto::keys::make_table_key;
use skrin_crypto::{BlockAad, FileKey, SEAL_OVERHEAD, hash, seal_block_into};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where new blocks go.
#[derive(Default)]
pub(super) struct Writer {
    lane: Option<LaneId>,
    /// Whether nobody can have put anything under the names of segments that are begun now.
    are_free: bool,
    /// Reserved numbers that were not used yet.
    numbers: Range<u64>,
    open: Option<Arc<Pending>>,
}

impl Writer {
    /// Nobody would ever declare what is added to a segment that was released.
    pub(super) fn let_go(&mut self, released: &[SegmentId]) {
        self.open
            .take_if(|open| released.contains(&open.place.segment));
    }
}

#[cfg(test)]
impl Writer {
    pub(super) fn take_lane(&mut self) {
        *self = Self::default();
    }
}

impl Inner {
    pub(super) fn set_lane(
        self: &Arc<Self>,
        lane: LaneId,
        are_free: bool,
    ) -> Result<(), DataError> {
        let mut writer = self.writer.lock();
        writer.are_free = are_free;
        if writer.lane == Some(lane) {
            return Ok(());
        }
        let open = std::mem::replace(
            &mut *writer,
            Writer {
                lane: Some(lane),
                are_free,
                ..Writer::default()
            },
        )
        .open;
        drop(writer);
        match open {
            Some(open) => self.end(&open),
            None => Ok(()),
        }
    }

    pub(super) fn write_block(
        self: &Arc<Self>,
        key_id: KeyId,
        key: &FileKey,
        origin: (Ino, u64),
        plain: &[u8],
        room: Room,
        gain: &mut Gain,
    ) -> Result<BlockRef, DataError> {
        if plain.is_empty() || plain.len() > BLOCK_LEN {
            return Err(DataError::Invalid("a block has 1 to 65536 bytes"));
        }
        // Before a slot is taken: a segment whose slots wait for room could not be ended, and nothing would make room. And before it is compressed,
        // as whoever is refused comes again and again.
        self.parts
            .journal
            .admit(plain.len() + SEAL_OVERHEAD, room)?;
        let (stored, flags) = compress(plain, self.config.compression, gain);
        let sealed_len = stored.len() + SEAL_OVERHEAD;
        let (segment, slot) = self.reserve_slot(sealed_len)?;
        let aad = BlockAad {
            vault: self.config.vault,
            room: self.config.room,
            segment: segment.place.segment,
            slot,
            author: segment.place.author,
            key_id,
            origin_file: origin.0,
            origin_block: origin.1,
            plain_len: plain.len() as u32,
            flags,
        };
        let mut sealed = Vec::with_capacity(sealed_len);
        seal_block_into(key, &aad, &stored, &*self.parts.entropy, &mut sealed);
        let entry = Entry {
            sealed_len: sealed.len() as u32,
            plain_len: plain.len() as u32,
            flags,
            hash: hash(&sealed),
        };
        self.place(&segment, slot, entry, sealed.into())?;
        Ok(BlockRef {
            segment: segment.place.segment,
            slot,
        })
    }

    /// Appends a sealed block to the journal and to its slot. A block that the journal refuses leaves a void slot.
    pub(super) fn place(
        self: &Arc<Self>,
        segment: &Arc<Pending>,
        slot: u32,
        entry: Entry,
        sealed: Bytes,
    ) -> Result<(), DataError> {
        let len = sealed.len();
        let appended =
            self.parts
                .journal
                .append_block(segment.place.segment, slot, entry, sealed.clone());
        let filled = appended.as_ref().ok().map(|appended| Filled {
            entry,
            pos: appended.payload,
            lsn: appended.lsn,
            memory: Some(sealed),
        });
        if filled.is_some() {
            self.in_memory.fetch_add(len as u64, Ordering::Relaxed);
        }
        let last = segment.fill(slot, len, filled);
        if last && let Err(error) = self.end(segment) {
            // The block is accepted. Whoever wants the segment durable ends it again and hears of it.
            tracing::warn!(%error, segment = %segment.place.segment, "a segment cannot be ended yet");
        }
        self.bound_memory();
        appended.map(drop)
    }

    pub(super) fn reserve_slot(
        self: &Arc<Self>,
        sealed_len: usize,
    ) -> Result<(Arc<Pending>, u32), DataError> {
        loop {
            let mut writer = self.writer.lock();
            let open = match &writer.open {
                Some(open) => Arc::clone(open),
                None => self.begin(&mut writer)?,
            };
            if let Some(slot) = open.reserve(sealed_len) {
                return Ok((open, slot));
            }
            writer.open = None;
            drop(writer);
            if let Err(error) = self.end(&open) {
                tracing::warn!(%error, segment = %open.place.segment, "a segment cannot be ended yet");
            }
        }
    }

    /// Begins a segment with a number that was never used.
    fn begin(&self, writer: &mut Writer) -> Result<Arc<Pending>, DataError> {
        let author = writer
            .lane
            .ok_or(DataError::Invalid("no lane to write in was opened"))?;
        if writer.numbers.is_empty() {
            writer.numbers = self.parts.journal.reserve(author)?;
        }
        let number = writer.numbers.start;
        let segment = (self.parts.names)(author, number);
        let place = Place {
            vault: self.config.vault,
            room: self.config.room,
            segment,
            author,
            number,
        };
        let table_key = make_table_key(&*self.parts.entropy);
        self.parts
            .journal
            .append_begin(&place, table_key.expose())?;
        writer.numbers.start += 1;
        let pending = Arc::new(Pending::begin(place, table_key, !writer.are_free));
        self.pending.lock().insert(segment, Arc::clone(&pending));
        writer.open = Some(Arc::clone(&pending));
        Ok(pending)
    }

    /// Ends a segment that is still filled, so that it can be uploaded.
    pub(super) fn end_if_open(self: &Arc<Self>, segment: &Arc<Pending>) -> Result<(), DataError> {
        let mut writer = self.writer.lock();
        if writer
            .open
            .as_ref()
            .is_some_and(|open| Arc::ptr_eq(open, segment))
        {
            writer.open = None;
        }
        drop(writer);
        self.end(segment)
    }

    /// Ends a segment and starts its upload. Nothing happens while blocks are being sealed: who adds the last one ends it.
    pub(super) fn end(self: &Arc<Self>, segment: &Arc<Pending>) -> Result<(), DataError> {
        let table = match segment.end()? {
            EndStep::Later => return Ok(()),
            EndStep::Done => {
                self.start_upload(segment);
                return Ok(());
            }
            EndStep::Empty => {
                let id = segment.place.segment;
                self.pending.lock().remove(&id);
                segment
                    .status
                    .send_replace(Status::Failed(DataError::Missing(id)));
                return self.parts.journal.release(0, &[id]);
            }
            EndStep::Finish(table) => table,
        };
        let (info, sealed_table) = segment.seal(&table, &*self.parts.entropy);
        let journal = &self.parts.journal;
        let noted = journal
            .append_close(info.id, info.slots, info.table_hash, sealed_table.clone())
            // Where the record that it was begun is damaged, what may be on the storage can be put again all the same.
            .and_then(|_| journal.append_again(&segment.place, segment.table_key.expose()));
        match noted {
            Ok(appended) => {
                segment.set_ended(Ended {
                    info,
                    sealed_table,
                    lsn: appended.lsn,
                });
                self.start_upload(segment);
                Ok(())
            }
            Err(e) => {
                segment.end_failed(e.clone());
                Err(e)
            }
        }
    }

    pub(super) fn decided_below(&self) -> Option<(LaneId, u64)> {
        let writer = self.writer.lock();
        let lane = writer.lane?;
        // Numbers reserved by an earlier run and not used by it are never used.
        let next = match writer.numbers.is_empty() {
            true => self.parts.journal.reserved(lane),
            false => writer.numbers.start,
        };
        let pending = self.pending.lock();
        let ours = pending.values().filter(|s| s.place.author == lane);
        let below = ours.map(|s| s.place.number).fold(next, u64::min);
        Some((lane, below))
    }

    /// Drops sealed bytes from memory, oldest segments first, when there are more than the budget allows.
    fn bound_memory(&self) {
        let budget = self.config.pending_bytes;
        if self.in_memory.load(Ordering::Relaxed) <= budget {
            return;
        }
        let mut segments: Vec<_> = self.pending.lock().values().cloned().collect();
        segments.sort_by_key(|s| s.place.number);
        let written = self.parts.journal.written();
        for segment in segments {
            let dropped = segment.drop_memory(written);
            let before = self.in_memory.fetch_sub(dropped, Ordering::Relaxed);
            if before.saturating_sub(dropped) <= budget / 4 * 3 {
                break;
            }
        }
    }

    /// Takes a segment that is not pending any more out of the sum. `bound_memory` may have listed it just before.
    pub(super) fn forget_memory(&self, segment: &Pending) {
        self.in_memory
            .fetch_sub(segment.drop_all_memory(), Ordering::Relaxed);
    }
}
