//! Taking up what the journal held.

use super::Inner;
use super::pending::{Ended, Pending};
use crate::error::{DataError, Flaw};
use crate::journal::{Lsn, ReplayedSegment};
use crate::segment::{self, Table};
use skrin_base::SegmentInfo;
use skrin_crypto::{TableKey, hash};
use std::sync::Arc;

impl Inner {
    /// Makes segments of an earlier run pending again.
    pub(super) fn adopt(self: &Arc<Self>, segments: Vec<ReplayedSegment>) -> Result<(), DataError> {
        let mut abandoned = Vec::new();
        for replayed in segments {
            if replayed.place.room != self.config.room {
                continue;
            }
            let id = replayed.id();
            if replayed.slots.is_empty() && replayed.closed.is_none() {
                abandoned.push(id);
                continue;
            }
            match self.revive(replayed) {
                Ok(pending) => self.take_up(pending)?,
                Err(error @ DataError::LocalDisk { .. }) => return Err(error),
                Err(error) => {
                    tracing::error!(%error, segment = %id, "the journal cannot give a segment back")
                }
            }
        }
        if abandoned.is_empty() {
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
        match self.end(&pending) {
            // Blocks can be read; whoever wants the segment durable tries again. Only a mount can make room on a full disk.
            Err(error @ (DataError::Full { .. } | DataError::LocalDisk { .. })) => {
                tracing::warn!(%error, "a segment of the last run cannot be ended yet");
                Ok(())
            }
            other => other,
        }
    }

    fn revive(&self, replayed: ReplayedSegment) -> Result<Pending, DataError> {
        let ReplayedSegment {
            place,
            table_key,
            slots,
            closed,
            ..
        } = replayed;
        let key = TableKey::from_bytes(table_key);
        let Some((count, pos)) = closed else {
            return Ok(Pending::replayed(place, key, slots, None, Lsn::default()));
        };
        let sealed = self
            .parts
            .journal
            .read(pos)?
            .ok_or(DataError::Missing(place.segment))?;
        // The declaration is made again from its parts; first as far as the table needs it to be opened.
        let info = SegmentInfo {
            id: place.segment,
            author: place.author,
            number: place.number,
            object_len: u64::MAX,
            table_offset: u64::MAX,
            table_hash: hash(&sealed),
            table_key,
            slots: count,
        };
        let table = Table::open(place.vault, place.room, &info, &sealed);
        let table = table.map_err(|flaw: Flaw| DataError::flawed(place.segment, None, flaw))?;
        let info = segment::declare(&table, &key, &sealed);
        let pending = Pending::replayed(place, key, slots, Some(&table), Lsn::default());
        pending.set_ended(Ended {
            info,
            sealed_table: sealed.into(),
            lsn: Lsn::default(),
        });
        Ok(pending)
    }
}
