//! A segment that an earlier run began and did not release may be on the storage all the same: if this local state is a restored backup, the
//! device went on after it was made, filled the segment and put it. Nothing is ever put over it. What is there begins with the same
//! blocks, so it is taken as it is.

use super::Inner;
use super::pending::Pending;
use crate::error::{DataError, Flaw};
use crate::segment::{self, Table};
use bytes::Bytes;
use skrin_base::SegmentInfo;
use skrin_base::limits::{SEGMENT_MAX, SEGMENT_SLOTS_MAX};
use skrin_crypto::hash;
use skrin_storage::ObjectName;

impl Inner {
    /// The segment that is on the storage under this name already, with its declaration; `None` if there is none, or a part of ours, or ours.
    ///
    /// # Errors
    /// Of the storage; `Integrity` if it is neither ours nor one that goes on from ours.
    pub(super) async fn put_in_another_life(
        &self,
        segment: &Pending,
        name: &ObjectName,
        ours: &(SegmentInfo, Bytes),
    ) -> Result<Option<(SegmentInfo, Bytes)>, DataError> {
        let id = segment.place.segment;
        let there = match self.parts.store.get(name, SEGMENT_MAX).await {
            Ok(there) => there,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(DataError::storage(id, error)),
        };
        // A put that was cut off may be repeated.
        if ours.1.starts_with(&there) {
            return Ok(None);
        }
        let Some(info) = self.continues(segment, &ours.0, &there) else {
            return Err(DataError::flawed(id, None, Flaw::Hash));
        };
        tracing::info!(segment = %id, "a restored state: the segment is on the storage already");
        Ok(Some((info, there)))
    }

    /// The declaration of an object that holds all our blocks in their slots.
    fn continues(
        &self,
        segment: &Pending,
        ours: &SegmentInfo,
        object: &[u8],
    ) -> Option<SegmentInfo> {
        let (vault, room) = (self.config.vault, self.config.room);
        let (info, table) = (ours.slots..=SEGMENT_SLOTS_MAX as u32).find_map(|slots| {
            let at = object
                .len()
                .checked_sub(segment::sealed_table_len(slots as usize))?;
            let sealed = object.get(at..)?;
            let info = SegmentInfo {
                object_len: object.len() as u64,
                table_offset: at as u64,
                table_hash: hash(sealed),
                slots,
                ..ours.clone()
            };
            let table = Table::open(vault, room, &info, sealed).ok()?;
            Some((info, table))
        })?;
        segment::check_frame(&info, &table, object).ok()?;
        let same = (0..ours.slots).all(|slot| match segment.block(slot) {
            Ok(Some(block)) => table.entry(slot) == Some(&block.entry),
            // What is lost here is not lost there.
            Ok(None) | Err(_) => true,
        });
        same.then_some(info)
    }
}
