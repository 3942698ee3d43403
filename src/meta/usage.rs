//! Which blocks of segments are needed, and in which object each of them lies.

use crate::rows::{Row, Rows, RowsError};
use crate::state;
use skrin_base::{Content, CopiedRun, Extent, SegmentId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Needed blocks, by the segments for which they were sealed, and where blocks lie besides.
#[derive(Clone, Default, Debug)]
pub struct Usage {
    named: BTreeMap<SegmentId, Vec<Range<u32>>>,
    copied: BTreeMap<SegmentId, Vec<CopiedRun>>,
}

/// Needed blocks that lie together in one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Located {
    /// The segment for which they were sealed.
    pub segment: SegmentId,
    /// Where they lie; `host` is the segment itself where they were never moved.
    pub run: CopiedRun,
}

impl Usage {
    /// What these rows name.
    ///
    /// # Errors
    /// Of the rows.
    pub fn of(rows: &dyn Rows) -> Result<Self, RowsError> {
        let mut usage = Self::default();
        usage.name_all(rows)?;
        usage.locate_by(rows)?;
        Ok(usage)
    }

    /// Needs whatever the extents of these rows name.
    ///
    /// # Errors
    /// Of the rows.
    pub fn name_all(&mut self, rows: &dyn Rows) -> Result<(), RowsError> {
        state::for_each_extent(rows, |extent| {
            self.name(&extent);
            Ok(())
        })
    }

    /// Believes these rows of where blocks lie, and nothing that was said before.
    ///
    /// # Errors
    /// Of the rows.
    pub fn locate_by(&mut self, rows: &dyn Rows) -> Result<(), RowsError> {
        self.copied.clear();
        state::for_each_copied_run(rows, |segment, run| {
            self.copied.entry(segment).or_default().push(run);
            Ok(())
        })
    }

    /// Takes in one row, in the order of keys.
    pub(crate) fn row(&mut self, key: &[u8], row: &Row) -> Result<(), RowsError> {
        if let Some(extent) = state::extent_row(key, row)? {
            self.name(&extent);
        }
        if let Some((segment, run)) = state::copied_row(key, row)? {
            self.copied.entry(segment).or_default().push(run);
        }
        Ok(())
    }

    /// Needs what an extent names.
    pub fn name(&mut self, extent: &Extent) {
        if let Content::Stored(at) = &extent.content {
            let end = at.first_slot.saturating_add(extent.count);
            self.name_slots(at.segment, at.first_slot..end);
        }
    }

    /// Needs slots of a segment.
    pub fn name_slots(&mut self, segment: SegmentId, slots: Range<u32>) {
        let ranges = self.named.entry(segment).or_default();
        match ranges.last_mut() {
            // Extents of a file come in order.
            Some(last) if last.end == slots.start => last.end = slots.end,
            _ => ranges.push(slots),
        }
    }

    /// Whether any block of the segment is needed, wherever it lies.
    pub fn names(&self, segment: SegmentId) -> bool {
        self.named.contains_key(&segment)
    }

    /// The needed blocks of a segment, ascending, each run once and with its place.
    pub fn located(&self, segment: SegmentId) -> Vec<Located> {
        let mut named = self.named.get(&segment).cloned().unwrap_or_default();
        named.sort_unstable_by_key(|slots| slots.start);
        let copied = self.copied.get(&segment).map_or(&[][..], Vec::as_slice);
        let (mut out, mut next) = (Vec::new(), 0);
        for slots in named {
            let slots = slots.start.max(next)..slots.end;
            next = next.max(slots.end);
            locate(segment, slots, copied, &mut out);
        }
        out
    }

    /// All needed blocks, by the objects in which they lie.
    pub fn by_object(&self) -> BTreeMap<SegmentId, Vec<Located>> {
        let mut objects: BTreeMap<SegmentId, Vec<Located>> = BTreeMap::new();
        for located in self.named.keys().flat_map(|id| self.located(*id)) {
            objects.entry(located.run.host).or_default().push(located);
        }
        objects
    }

    /// The objects without which something that is needed cannot be read.
    pub fn objects(&self) -> BTreeSet<SegmentId> {
        self.by_object().into_keys().collect()
    }
}

/// Splits needed slots by where they lie.
fn locate(segment: SegmentId, slots: Range<u32>, copied: &[CopiedRun], out: &mut Vec<Located>) {
    let mut push = |run: CopiedRun| out.push(Located { segment, run });
    let itself = |slots: Range<u32>| CopiedRun {
        first_slot: slots.start,
        count: slots.end.saturating_sub(slots.start),
        host: segment,
        host_slot: slots.start,
        table_slot: 0,
    };
    let mut next = slots.start;
    let first = copied.partition_point(|run| run.end() <= slots.start);
    let inside = copied.get(first..).unwrap_or_default().iter();
    for run in inside.map_while(|run| run.clip(slots.start, slots.end)) {
        if next < run.first_slot {
            push(itself(next..run.first_slot));
        }
        next = run.end();
        push(run);
    }
    if next < slots.end {
        push(itself(next..slots.end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first_slot: u32, count: u32, host: u8, host_slot: u32) -> CopiedRun {
        CopiedRun {
            first_slot,
            count,
            host: SegmentId([host; 16]),
            host_slot,
            table_slot: 7,
        }
    }

    #[test]
    fn each_needed_block_lies_in_one_object() {
        let segment = SegmentId([1; 16]);
        let mut usage = Usage::default();
        // Named twice, out of order, and overlapping.
        for slots in [30..40, 0..10, 5..12, 12..14] {
            usage.name_slots(segment, slots);
        }
        let copied = vec![run(3, 4, 2, 100), run(13, 19, 3, 200)];
        usage.copied.insert(segment, copied);
        let itself = |first_slot, count| {
            let mut run = run(first_slot, count, 1, first_slot);
            run.table_slot = 0;
            run
        };
        let expected = [
            itself(0, 3),
            run(3, 4, 2, 100),
            itself(7, 3),
            itself(10, 3),
            run(13, 1, 3, 200),
            run(30, 2, 3, 217),
            itself(32, 8),
        ];
        let located: Vec<CopiedRun> = usage.located(segment).iter().map(|l| l.run).collect();
        assert_eq!(located, expected);
        let objects: Vec<u8> = usage.objects().iter().map(|id| id.0[0]).collect();
        assert_eq!(objects, [1, 2, 3]);
        assert_eq!(usage.located(SegmentId([2; 16])), []);
    }
}
