//! A segment that an earlier run began and did not release may be on the storage all the same: put by that run, and perhaps damaged since;
//! or, if this local state is a restored backup, by the device when it went on after that was made, and filled the segment. What that put
//! begins with the same blocks and is taken as it is: nothing is ever put over it. Only over what is ours and not whole ours is put.

use super::Inner;
use super::pending::Pending;
use crate::error::{DataError, Flaw};
use crate::segment::{self, HEADER_LEN, Table};
use bytes::Bytes;
use skrin_base::SegmentInfo;
use skrin_base::limits::{SEGMENT_MAX, SEGMENT_SLOTS_MAX};
use skrin_crypto::hash;
use skrin_storage::ObjectName;
use skrin_storage::disk::blocking;
use std::sync::Arc;

/// Bytes that are tried as a table, in all: that is some 14,000 slots, and seconds. A hostile storage shall not keep us busy for longer.
const TABLES_TRIED: u64 = 4 << 30;

/// What lies under the name of a segment.
pub(super) enum There {
    /// Nothing, or ours.
    Nothing,
    /// Ours, cut short or damaged; of what is lost here it has nothing either.
    Damaged,
    /// One that holds all our blocks in their slots, with its declaration.
    Whole(SegmentInfo, Bytes),
}

impl Inner {
    /// Looks what lies under the name of a segment that is to be put as `ours`.
    ///
    /// # Errors
    /// Of the storage; `Integrity` if it is neither ours nor one that goes on from ours.
    pub(super) async fn look_there(
        self: &Arc<Self>,
        segment: &Arc<Pending>,
        name: &ObjectName,
        ours: (SegmentInfo, Bytes),
    ) -> Result<There, DataError> {
        let id = segment.place.segment;
        let there = match self.parts.store.get(name, SEGMENT_MAX).await {
            Ok(there) => there,
            Err(error) if error.is_absent() => return Ok(There::Nothing),
            Err(error) => return Err(DataError::storage(id, error)),
        };
        let (inner, segment) = (Arc::clone(self), Arc::clone(segment));
        let compared = blocking(&self.parts.runtime, move || {
            inner.compare(&segment, &ours, there)
        });
        let compared = compared.await.map_err(|_| DataError::Stopped)?;
        match &compared {
            Some(There::Damaged) => {
                tracing::warn!(segment = %id, "the segment is on the storage and not whole: it is put again");
            }
            Some(There::Whole(..)) => {
                tracing::info!(segment = %id, "the segment is on the storage already");
            }
            Some(There::Nothing) | None => {}
        }
        compared.ok_or_else(|| DataError::flawed(id, None, Flaw::Hash))
    }

    /// What an object is to the segment that would be put as `ours`; `None` if it is not known to be either ours or one that goes on from it.
    fn compare(
        &self,
        segment: &Pending,
        (info, ours): &(SegmentInfo, Bytes),
        there: Bytes,
    ) -> Option<There> {
        if *ours == there {
            return Some(There::Nothing);
        }
        // A put that was cut off may be repeated.
        if ours.starts_with(&there) {
            return Some(There::Damaged);
        }
        let sealed = segment::table_part(info, ours).ok()?;
        let table = Table::open(self.config.vault, self.config.room, info, sealed).ok()?;
        if there.get(info.table_offset as usize..info.object_len as usize) == Some(sealed) {
            return compare_with_own(segment, info, &table, there);
        }
        // Up to the first slot that is void or lost here nothing can lie elsewhere there.
        let has_block = |slot: &u32| matches!(segment.block(*slot), Ok(Some(_)));
        let known = (0..info.slots).take_while(has_block).count() as u32;
        let end = table.range(0..known)?.end as usize;
        if there.get(HEADER_LEN..end)? != ours.get(HEADER_LEN..end)? {
            return None;
        }
        let (info, table) = self.find_longer_table(segment, info, end, &there)?;
        segment::check_frame(&info, &table, &there).ok()?;
        let same = (0..table.entries().len() as u32).all(|slot| match segment.block(slot) {
            Ok(Some(block)) => {
                table.entry(slot) == Some(&block.entry) && is_good(&table, slot, &there)
            }
            // What is lost here is not lost there.
            Ok(None) | Err(_) => true,
        });
        same.then_some(There::Whole(info, there))
    }

    /// The table at the end of an object, which begins behind `from` and has at least as many slots as ours.
    fn find_longer_table(
        &self,
        segment: &Pending,
        ours: &SegmentInfo,
        from: usize,
        object: &[u8],
    ) -> Option<(SegmentInfo, Table)> {
        let mut tried = 0;
        for slots in ours.slots..=SEGMENT_SLOTS_MAX as u32 {
            let len = segment::sealed_table_len(slots as usize);
            let at = object.len().checked_sub(len).filter(|at| *at >= from)?;
            tried += len as u64;
            if tried > TABLES_TRIED {
                return None;
            }
            let sealed = object.get(at..)?;
            if !segment.place.has_table(&segment.table_key, sealed) {
                continue;
            }
            let info = SegmentInfo {
                object_len: object.len() as u64,
                table_offset: at as u64,
                table_hash: hash(sealed),
                slots,
                ..ours.clone()
            };
            let table = Table::open(self.config.vault, self.config.room, &info, sealed);
            return Some((info, table.ok()?));
        }
        None
    }
}

/// An object with our table, which differs from ours.
fn compare_with_own(
    segment: &Pending,
    info: &SegmentInfo,
    table: &Table,
    there: Bytes,
) -> Option<There> {
    let (lost, ours): (Vec<u32>, Vec<u32>) =
        (0..info.slots).partition(|slot| segment.block(*slot).is_err());
    let good = |slot: &u32| is_good(table, *slot, &there);
    let framed = segment::check_frame(info, table, &there).is_ok();
    let framed = framed && there.len() as u64 == info.object_len;
    if framed && ours.iter().all(good) {
        return Some(There::Whole(info.clone(), there));
    }
    // The only copy of a block is not put at stake for the others, which the journal has.
    (!lost.iter().any(good)).then_some(There::Damaged)
}

/// Whether an object has the block of a slot that is not void.
fn is_good(table: &Table, slot: u32, object: &[u8]) -> bool {
    let Some((entry, range)) = table.entry(slot).zip(table.range(slot..slot + 1)) else {
        return true;
    };
    let block = object.get(range.start as usize..range.end as usize);
    block.is_some_and(|block| hash(block) == entry.hash)
}
