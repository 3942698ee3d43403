//! Taking up what the journal held.

use super::Inner;
use super::pending::{Ended, Pending};
use crate::error::DataError;
use crate::journal::{BlockPos, Lsn, Replay, ReplayedSegment};
use crate::segment::{self, Place, Table};
use skrin_base::SegmentInfo;
use skrin_base::ids::{LaneId, SegmentId};
use skrin_crypto::keys::make_table_key;
use skrin_crypto::{TableKey, hash};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So many numbers are tried, over all lanes, to find which segment has a name: a second or so.
const NUMBERS_TRIED: usize = 1 << 20;
/// Numbers that may have been used beyond those known to be reserved, where the record of that is damaged too.
const NUMBERS_BEYOND: u64 = 1024;

impl Inner {
    /// Makes segments of an earlier run pending again.
    pub(super) fn adopt(self: &Arc<Self>, replay: &mut Replay) -> Result<(), DataError> {
        let (mut abandoned, mut orphans) = (Vec::new(), Vec::new());
        for replayed in std::mem::take(&mut replay.segments) {
            let id = replayed.id();
            match replayed.begun {
                Some((place, _)) if place.room != self.config.room => {}
                Some(_) if replayed.slots.is_empty() && replayed.closed.is_none() => {
                    abandoned.push(id);
                }
                Some(begun) => {
                    let pending = self.revive(begun, replayed)?;
                    self.take_up(pending)?;
                }
                None if replayed.slots.is_empty() => abandoned.push(id),
                None => orphans.push(replayed),
            }
        }
        self.orphans.lock().extend(orphans);
        let lanes = replay.numbers.iter().map(|(lane, until)| (*lane, *until));
        self.take_up_orphans(&lanes.collect::<Vec<_>>());
        // Who changes nothing leaves it to the next one.
        if abandoned.is_empty() || self.config.read_only {
            Ok(())
        } else {
            self.parts.journal.release(0, &abandoned)
        }
    }

    fn take_up(self: &Arc<Self>, pending: Pending) -> Result<(), DataError> {
        let pending = Arc::new(pending);
        self.pending
            .lock()
            .insert(pending.place.segment, Arc::clone(&pending));
        if self.config.read_only {
            return Ok(());
        }
        match self.end(&pending) {
            // Blocks can be read; whoever wants the segment durable tries again. Only a mount can make room on a full disk.
            Err(error @ (DataError::Full { .. } | DataError::LocalDisk { .. })) => {
                tracing::warn!(%error, "a segment of the last run cannot be ended yet");
                Ok(())
            }
            other => other,
        }
    }

    fn revive(
        &self,
        (place, table_key): (Place, [u8; 32]),
        replayed: ReplayedSegment,
    ) -> Result<Pending, DataError> {
        let key = TableKey::from_bytes(table_key);
        let closed = match replayed.closed {
            Some(closed) => self.reopen_table(place, &key, closed)?,
            None => None,
        };
        let table = closed.as_ref().map(|(table, _)| table);
        let pending = Pending::replayed(place, key, replayed.slots, table, Lsn::default());
        if let Some((_, ended)) = closed {
            pending.set_ended(ended);
        }
        Ok(pending)
    }

    /// The table with which a segment was ended. One that does not open is no reason to do without the blocks: it is ended once more.
    fn reopen_table(
        &self,
        place: Place,
        key: &TableKey,
        (slots, pos): (u32, BlockPos),
    ) -> Result<Option<(Table, Ended)>, DataError> {
        let Some(sealed) = self.parts.journal.read(pos)? else {
            return Ok(None);
        };
        // The declaration is made again from its parts; first as far as the table needs it to be opened.
        let info = SegmentInfo {
            id: place.segment,
            author: place.author,
            number: place.number,
            object_len: u64::MAX,
            table_offset: u64::MAX,
            table_hash: hash(&sealed),
            table_key: *key.expose(),
            slots,
        };
        match Table::open(place.vault, place.room, &info, &sealed) {
            Ok(table) => {
                let ended = Ended {
                    info: segment::declare(&table, key, &sealed),
                    sealed_table: sealed.into(),
                    lsn: Lsn::default(),
                };
                Ok(Some((table, ended)))
            }
            Err(flaw) => {
                tracing::error!(%flaw, segment = %place.segment, "the journal has a table that does not open");
                Ok(None)
            }
        }
    }

    /// Segments of which the journal has blocks and not how they began. Their name says which they are, if they are of one of these lanes,
    /// of which so many numbers were reserved. The table gets another key. They are ended when a commit is to declare them and no sooner:
    /// they may be declared already, if it was not only the beginning that was lost.
    fn take_up_orphans(&self, lanes: &[(LaneId, u64)]) {
        let mut orphans = self.orphans.lock();
        let wanted = orphans.iter().map(ReplayedSegment::id).collect();
        let places = self.find_places(wanted, lanes);
        for replayed in std::mem::take(&mut *orphans) {
            let segment = replayed.id();
            let Some(place) = places.get(&segment) else {
                orphans.push(replayed);
                continue;
            };
            tracing::warn!(%segment, "the journal has lost how a segment began; its blocks are kept");
            self.parts.journal.note_used(place.author, place.number);
            let key = make_table_key(&*self.parts.entropy);
            let mut pending = Pending::replayed(*place, key, replayed.slots, None, Lsn::default());
            pending.rekeyed = true;
            self.pending.lock().insert(segment, Arc::new(pending));
        }
    }

    /// The lane of this run is known now, which may be the one whose numbers were lost together with what they were reserved for.
    pub(super) fn take_up_orphans_of(&self, lane: LaneId) {
        if self.orphans.lock().is_empty() {
            return;
        }
        self.take_up_orphans(&[(lane, self.parts.journal.reserved(lane))]);
        let lost: Vec<_> = std::mem::take(&mut *self.orphans.lock())
            .iter()
            .map(ReplayedSegment::id)
            .collect();
        for segment in &lost {
            tracing::error!(%segment, "the journal has blocks of a segment of which it has lost everything else");
        }
        self.parts.journal.let_go(&lost);
    }

    fn find_places(
        &self,
        mut wanted: BTreeSet<SegmentId>,
        lanes: &[(LaneId, u64)],
    ) -> BTreeMap<SegmentId, Place> {
        let mut found = BTreeMap::new();
        let most = NUMBERS_TRIED / lanes.len().max(1);
        for (lane, until) in lanes {
            // The newest first.
            for number in (0..until.saturating_add(NUMBERS_BEYOND)).rev().take(most) {
                if wanted.is_empty() {
                    return found;
                }
                let segment = (self.parts.names)(*lane, number);
                if wanted.remove(&segment) {
                    let place = Place {
                        vault: self.config.vault,
                        room: self.config.room,
                        segment,
                        author: *lane,
                        number,
                    };
                    found.insert(segment, place);
                }
            }
        }
        found
    }
}
