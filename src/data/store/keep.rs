//! Bringing parts of segments to the disk cache, for a time without the storage.

use super::Inner;
use super::disk::DiskCache;
use crate::error::{DataError, Flaw};
use crate::segment::Table;
use skrin_base::{Copies, SegmentId, SegmentInfo};
use skrin_crypto::hash;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

const KEEP: &str = "keep what is pinned";

/// The parts of `wanted` that none of `have` covers, in order.
fn without(wanted: &[Range<u32>], have: &[Range<u32>]) -> Vec<Range<u32>> {
    let mut have: Vec<_> = have.to_vec();
    have.sort_unstable_by_key(|range| range.start);
    let mut out = Vec::new();
    for range in wanted {
        let mut next = range.start;
        for known in have.iter().filter(|known| known.end > range.start) {
            if known.start >= range.end {
                break;
            }
            if known.start > next {
                out.push(next..known.start);
            }
            next = next.max(known.end);
        }
        if next < range.end {
            out.push(next..range.end);
        }
    }
    out
}

/// Whether each block is the one of the table.
pub(super) fn is_whole(table: &Table, slots: Range<u32>, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    slots.into_iter().all(|slot| {
        let Some(entry) = table.entry(slot) else {
            // A void slot has no bytes.
            return table.range(slot..slot + 1).is_some_and(|r| r.is_empty());
        };
        let Some((block, after)) = rest.split_at_checked(entry.sealed_len as usize) else {
            return false;
        };
        rest = after;
        hash(block) == entry.hash
    })
}

/// Consecutive slots with their bytes.
type Run<'a> = (Range<u32>, &'a [u8]);

/// Those of consecutive slots whose blocks are the ones of the table, with their bytes; and the first other one.
fn good_runs<'a>(table: &Table, slots: Range<u32>, bytes: &'a [u8]) -> (Vec<Run<'a>>, Option<u32>) {
    let start = table.range(slots.clone()).map_or(0, |range| range.start);
    let part = |slots: &Range<u32>| {
        let range = table.range(slots.clone())?;
        bytes.get((range.start - start) as usize..(range.end - start) as usize)
    };
    let (mut runs, mut bad): (Vec<Range<u32>>, _) = (Vec::new(), None);
    for slot in slots {
        let one = slot..slot + 1;
        let good = part(&one).is_some_and(|bytes| is_whole(table, one.clone(), bytes));
        if !good {
            bad.get_or_insert(slot);
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.end == slot => last.end = one.end,
            _ => runs.push(one),
        }
    }
    let runs = runs.into_iter().filter_map(|run| {
        let bytes = part(&run).filter(|bytes| !bytes.is_empty())?;
        Some((run, bytes))
    });
    (runs.collect(), bad)
}

impl Inner {
    pub(super) fn absent(&self, segment: SegmentId, slots: &[Range<u32>]) -> Vec<Range<u32>> {
        let pending = self.pending.lock().get(&segment).cloned();
        if let Some(pending) = pending {
            // After damage to the journal it may have a part of it only.
            let lacks = |slot: &u32| !matches!(pending.block(*slot), Ok(Some(_)));
            let slots = slots.iter().flat_map(|range| range.clone().filter(lacks));
            return slots.map(|slot| slot..slot + 1).collect();
        }
        let Some(disk) = &self.disk else {
            return slots.to_vec();
        };
        disk.forget_removed(segment);
        match disk.has_table(segment) {
            true => without(slots, &disk.kept(segment)),
            false => slots.to_vec(),
        }
    }

    /// Refuses so many bytes more on the disk of `dir`, which may still have to be made, where they would not leave room for the journal.
    pub(super) fn check_free(
        &self,
        what: &'static str,
        dir: &Path,
        bytes: u64,
    ) -> Result<(), DataError> {
        let mut above = dir.ancestors();
        let Some(disk) = above.find_map(|dir| rustix::fs::statvfs(dir).ok()) else {
            // Whoever writes there hears why.
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match free >= bytes.saturating_add(self.config.keep_free) {
            true => Ok(()),
            false => Err(DataError::disk(what, dir, full())),
        }
    }

    pub(super) async fn keep(
        self: &Arc<Self>,
        info: Arc<SegmentInfo>,
        slots: &[Range<u32>],
    ) -> Result<(), DataError> {
        let Some(disk) = &self.disk else {
            return Ok(());
        };
        let absent = self.absent(info.id, slots);
        if absent.is_empty() {
            return Ok(());
        }
        self.check_free(KEEP, disk.dir(), 0)?;
        let copies = self.copies_of(info.id).await;
        let table = self.table_to_keep(disk, &info, copies.as_ref()).await?;
        let mut failed = None;
        for slots in absent {
            let range = table
                .range(slots.clone())
                .ok_or_else(|| DataError::flawed(info.id, Some(slots.start), Flaw::NoSlot))?;
            if range.is_empty() {
                continue;
            }
            // What finds no room is not fetched.
            self.check_free(KEEP, disk.dir(), range.end - range.start)?;
            let bytes = self
                .slot_bytes(&table, slots.clone(), copies.as_ref())
                .await?;
            let (inner, table) = (Arc::clone(self), Arc::clone(&table));
            let kept = self.parts.runtime.spawn_blocking(move || {
                let (good, bad) = good_runs(&table, slots, &bytes);
                let id = table.place().segment;
                for (slots, bytes) in good {
                    inner.put_to_keep(id, slots, bytes)?;
                }
                let flawed = |slot| DataError::flawed(id, Some(slot), Flaw::Hash);
                Ok::<_, DataError>(bad.map(flawed))
            });
            // What is good is here then, and is not fetched again for the sake of what is not.
            let bad = kept.await.unwrap_or(Err(DataError::Stopped))?;
            failed = failed.or(bad);
        }
        failed.map_or(Ok(()), Err)
    }

    /// The table of a segment, which is in the disk cache afterwards.
    async fn table_to_keep(
        self: &Arc<Self>,
        disk: &DiskCache,
        info: &SegmentInfo,
        copies: Option<&Copies>,
    ) -> Result<Arc<Table>, DataError> {
        if let Some(table) = self.table_on_disk(disk, info) {
            return Ok(table);
        }
        let sealed = self.sealed_table(info, copies).await?;
        let table = self.open_table(info, &sealed)?;
        disk.put_table(info.id, &sealed);
        match disk.has_table(info.id) {
            true => Ok(table),
            false => Err(disk_full(disk)),
        }
    }

    fn put_to_keep(
        &self,
        segment: SegmentId,
        slots: Range<u32>,
        bytes: &[u8],
    ) -> Result<(), DataError> {
        let Some(disk) = &self.disk else {
            return Ok(());
        };
        disk.put(segment, slots.clone(), bytes);
        match without(&[slots], &disk.kept(segment)).is_empty() {
            true => Ok(()),
            false => Err(disk_full(disk)),
        }
    }
}

fn disk_full(disk: &DiskCache) -> DataError {
    DataError::disk(KEEP, disk.dir(), full())
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_already_is_not_wanted() {
        let wanted = [2..10, 20..21];
        assert_eq!(without(&wanted, &[]), wanted);
        assert_eq!(
            without(&wanted, &[8..9, 0..4, 5..6]),
            [4..5, 6..8, 9..10, 20..21]
        );
        assert_eq!(without(&wanted, &[0..12, 3..4]), wanted[1..]);
        assert_eq!(without(&wanted, &[15..30, 2..3, 3..10]), []);
    }
}
