//! A segment of this device that no confirmed commit declares yet.

use crate::error::DataError;
use crate::journal::{BlockPos, Lsn};
use crate::segment::{self, Entry, HEADER_LEN, Place, Table};
use bytes::Bytes;
use parking_lot::Mutex;
use skrin_base::{Entropy, SegmentInfo};
use skrin_crypto::TableKey;
use skrin_storage::Durable;
use tokio::sync::watch;

/// How far a segment has come.
#[derive(Clone, Debug)]
pub(super) enum Status {
    /// Blocks are added, or the last of them are being sealed.
    Filling,
    /// Ended; an upload may begin.
    Ready,
    /// Somebody uploads it.
    Uploading,
    /// On the storage.
    Durable(Durable<SegmentInfo>),
    /// The last attempt failed.
    Failed(DataError),
}

/// The segment.
pub(super) struct Pending {
    /// An earlier run began it.
    pub(super) may_be_stored: bool,
    /// The key is another one than what was copied into it is masked with.
    pub(super) rekeyed: bool,
    pub(super) place: Place,
    pub(super) table_key: TableKey,
    body: Mutex<Body>,
    pub(super) status: watch::Sender<Status>,
}

struct Body {
    slots: Vec<Slot>,
    /// Bytes of sealed blocks, those included that are still being sealed.
    reserved: usize,
    in_flight: usize,
    ending: bool,
    /// Somebody makes the table: there must be one only.
    finishing: bool,
    ended: Option<Ended>,
}

#[derive(Clone)]
enum Slot {
    /// Being sealed.
    Reserved,
    /// Given up.
    Void,
    /// Its record in the journal is damaged: the table names a hash that nothing has any more.
    Lost(Entry),
    Filled(Filled),
}

/// A sealed block.
#[derive(Clone)]
pub(super) struct Filled {
    pub(super) entry: Entry,
    pub(super) pos: BlockPos,
    /// The log is written up to here when it can be read back.
    pub(super) lsn: Lsn,
    pub(super) memory: Option<Bytes>,
}

/// What an ended segment is.
#[derive(Clone)]
pub(super) struct Ended {
    pub(super) info: SegmentInfo,
    pub(super) sealed_table: Bytes,
    /// Must be synced before the first byte is put.
    pub(super) lsn: Lsn,
}

/// What `end` asks its caller to do.
pub(super) enum EndStep {
    /// Blocks are still being sealed: who adds the last one finishes. Or somebody finishes right now.
    Later,
    /// The table is made; the journal must note it.
    Finish(Box<Table>),
    /// It was ended before.
    Done,
    /// It holds nothing.
    Empty,
}

/// A block for the upload.
pub(super) enum Part {
    Sealed(Filled),
    /// So many bytes that were lost.
    Lost(usize),
}

impl Pending {
    /// A new segment.
    pub(super) fn begin(place: Place, table_key: TableKey, may_be_stored: bool) -> Self {
        Self::with_body(place, table_key, Vec::new(), may_be_stored)
    }

    /// A segment as the journal knows it. Slots that a table names and the journal lacks are lost.
    pub(super) fn replayed(
        place: Place,
        table_key: TableKey,
        slots: Vec<Option<(Entry, BlockPos)>>,
        table: Option<&Table>,
        lsn: Lsn,
    ) -> Self {
        let named = |slot: usize| table.and_then(|t| t.entry(slot as u32));
        let count = table.map_or(slots.len(), |t| t.entries().len());
        let mut slots = slots.into_iter();
        let slots = (0..count).map(|n| match (slots.next().flatten(), named(n)) {
            (Some((entry, pos)), _) => Slot::Filled(Filled {
                entry,
                pos,
                lsn,
                memory: None,
            }),
            (None, Some(entry)) => Slot::Lost(*entry),
            (None, None) => Slot::Void,
        });
        Self::with_body(place, table_key, slots.collect(), true)
    }

    fn with_body(place: Place, table_key: TableKey, slots: Vec<Slot>, may_be_stored: bool) -> Self {
        let reserved = slots.iter().map(|s| s.entry().sealed_len as usize).sum();
        let body = Body {
            slots,
            reserved,
            in_flight: 0,
            ending: false,
            finishing: false,
            ended: None,
        };
        Self {
            may_be_stored,
            rekeyed: false,
            place,
            table_key,
            body: Mutex::new(body),
            status: watch::Sender::new(Status::Filling),
        }
    }

    /// A slot for a block of `sealed_len` bytes, unless the segment is full or ending.
    pub(super) fn reserve(&self, sealed_len: usize) -> Option<u32> {
        let mut body = self.body.lock();
        let slot = body.slots.len();
        if body.ending || !segment::has_room(body.reserved, slot, sealed_len) {
            return None;
        }
        body.slots.push(Slot::Reserved);
        body.reserved += sealed_len;
        body.in_flight += 1;
        u32::try_from(slot).ok()
    }

    /// Fills a reserved slot, or gives it up. Says whether the segment waits for its end and this was the last one.
    pub(super) fn fill(&self, slot: u32, sealed_len: usize, filled: Option<Filled>) -> bool {
        let mut body = self.body.lock();
        if filled.is_none() {
            body.reserved -= sealed_len;
        }
        if let Some(place) = body.slots.get_mut(slot as usize) {
            *place = filled.map_or(Slot::Void, Slot::Filled);
        }
        body.in_flight -= 1;
        body.ending && body.in_flight == 0
    }

    /// Takes no more blocks; says what to do next.
    pub(super) fn end(&self) -> Result<EndStep, DataError> {
        let mut body = self.body.lock();
        body.ending = true;
        if body.ended.is_some() {
            return Ok(EndStep::Done);
        }
        if body.in_flight > 0 || body.finishing {
            return Ok(EndStep::Later);
        }
        if body.slots.iter().all(|s| matches!(s, Slot::Void)) {
            return Ok(EndStep::Empty);
        }
        let entries = body.slots.iter().map(Slot::entry).collect();
        let table = Table::new(self.place, entries)
            .map_err(|_| DataError::Invalid("a segment that breaks its own format"))?;
        body.finishing = true;
        self.status.send_replace(Status::Filling);
        Ok(EndStep::Finish(Box::new(table)))
    }

    /// The journal refused the table: the next caller of `end` tries again.
    pub(super) fn end_failed(&self, error: DataError) {
        self.body.lock().finishing = false;
        self.status.send_replace(Status::Failed(error));
    }

    /// Seals the table that `end` gave.
    pub(super) fn seal(&self, table: &Table, entropy: &dyn Entropy) -> (SegmentInfo, Bytes) {
        let sealed = table.seal(&self.table_key, entropy);
        (
            segment::declare(table, &self.table_key, &sealed),
            sealed.into(),
        )
    }

    /// Notes that the journal has the table; the first one counts.
    pub(super) fn set_ended(&self, ended: Ended) {
        self.body.lock().ended.get_or_insert(ended);
        self.status.send_if_modified(|status| {
            let first = matches!(status, Status::Filling | Status::Failed(_));
            if first {
                *status = Status::Ready;
            }
            first
        });
    }

    /// What was ended, with its blocks in order.
    pub(super) fn ended(&self) -> Option<(Ended, Vec<Part>)> {
        let body = self.body.lock();
        let ended = body.ended.clone()?;
        let part = |slot: &Slot| match slot {
            Slot::Filled(filled) => Some(Part::Sealed(filled.clone())),
            Slot::Lost(entry) => Some(Part::Lost(entry.sealed_len as usize)),
            Slot::Void | Slot::Reserved => None,
        };
        Some((ended, body.slots.iter().filter_map(part).collect()))
    }

    /// A sealed block; `None` for a slot that has none, an error for a lost one.
    pub(super) fn block(&self, slot: u32) -> Result<Option<Filled>, DataError> {
        match self.body.lock().slots.get(slot as usize) {
            Some(Slot::Filled(filled)) => Ok(Some(filled.clone())),
            Some(Slot::Lost(_)) => Err(DataError::flawed(
                self.place.segment,
                Some(slot),
                crate::error::Flaw::Hash,
            )),
            Some(Slot::Reserved | Slot::Void) | None => Ok(None),
        }
    }

    /// Drops sealed bytes from memory that the log has up to `written`; returns how many.
    pub(super) fn drop_memory(&self, written: Lsn) -> u64 {
        self.take_memory(|filled| filled.lsn <= written)
    }

    /// Drops all sealed bytes from memory; returns how many. Whoever drops them counts them, so that nobody does so twice.
    pub(super) fn drop_all_memory(&self) -> u64 {
        self.take_memory(|_| true)
    }

    fn take_memory(&self, goes: impl Fn(&Filled) -> bool) -> u64 {
        let mut dropped = 0;
        for slot in &mut self.body.lock().slots {
            if let Slot::Filled(filled) = slot
                && goes(filled)
                && let Some(bytes) = filled.memory.take()
            {
                dropped += bytes.len() as u64;
            }
        }
        dropped
    }

    /// Whether it holds no block (yet).
    pub(super) fn is_empty(&self) -> bool {
        !self
            .body
            .lock()
            .slots
            .iter()
            .any(|s| matches!(s, Slot::Filled(_) | Slot::Lost(_)))
    }

    /// Bytes of sealed blocks.
    pub(super) fn bytes(&self) -> u64 {
        (self.body.lock().reserved + HEADER_LEN) as u64
    }

    pub(super) fn is_durable(&self) -> bool {
        matches!(*self.status.borrow(), Status::Durable(_))
    }
}

impl Slot {
    fn entry(&self) -> Entry {
        match self {
            Self::Filled(filled) => filled.entry,
            Self::Lost(entry) => *entry,
            Self::Void | Self::Reserved => Entry::VOID,
        }
    }
}
