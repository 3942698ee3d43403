//! The extents of a file in memory, and the runs of blocks that changed since they were last told.

use skrin_base::{Content as Held, Extent};
use std::collections::BTreeMap;

/// Extents without overlap; what no extent covers is a hole.
#[derive(Clone, Default, Debug)]
pub(crate) struct ExtentMap {
    runs: BTreeMap<u64, Extent>,
    /// Blocks of them that are not holes.
    held: u64,
}

/// Blocks of an extent that are not holes.
fn held(extent: &Extent) -> u64 {
    match extent.content {
        Held::Hole => 0,
        Held::Stored(_) | Held::Lost => u64::from(extent.count),
    }
}

impl ExtentMap {
    /// The extents of a file of `blocks` blocks as the tree has them. There a missing extent is an error, never zeros: what is
    /// missing counts as lost.
    pub(crate) fn load(list: Vec<Extent>, blocks: u64) -> Self {
        let mut map = Self::default();
        let mut next = 0;
        for extent in list {
            map.lose(next, extent.first_block.min(blocks));
            next = extent.end();
            if let (false, Some(extent)) = (extent.content == Held::Hole, extent.clip(0, blocks)) {
                map.put(extent);
            }
        }
        map.lose(next, blocks);
        map
    }

    fn lose(&mut self, mut from: u64, to: u64) {
        while from < to {
            let count = u32::try_from(to - from).unwrap_or(u32::MAX);
            self.put(Extent {
                first_block: from,
                count,
                content: Held::Lost,
            });
            from += u64::from(count);
        }
    }

    /// How many runs there are.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// Blocks that are not holes.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Whether the whole file is a hole.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// What block `block` holds: an extent of that one block.
    pub(crate) fn get(&self, block: u64) -> Option<Extent> {
        let (_, extent) = self.runs.range(..=block).next_back()?;
        extent.clip(block, block + 1)
    }

    /// The block behind the extent that holds `block`; behind `block` itself in a hole.
    pub(crate) fn end_of(&self, block: u64) -> u64 {
        let found = self.runs.range(..=block).next_back().map(|(_, e)| e.end());
        found.unwrap_or(0).max(block + 1)
    }

    /// The first block at or behind `block` that is not a hole.
    pub(crate) fn next_held(&self, block: u64) -> Option<u64> {
        if self.get(block).is_some() {
            return Some(block);
        }
        self.runs.range(block..).next().map(|(first, _)| *first)
    }

    /// The first hole at or behind `block`.
    pub(crate) fn next_hole(&self, mut block: u64) -> u64 {
        while let Some((_, extent)) = self.runs.range(..=block).next_back() {
            if extent.end() <= block {
                break;
            }
            block = extent.end();
        }
        block
    }

    /// Makes a hole of blocks `from..to`.
    pub(crate) fn cut(&mut self, from: u64, to: u64) {
        let before = self.runs.range(..from).next_back().map(|(k, e)| (*k, *e));
        if let Some((key, extent)) = before.filter(|(_, e)| e.end() > from) {
            self.remove(key);
            self.insert(extent.clip(0, from));
            self.insert(extent.clip(to, u64::MAX));
        }
        let inside: Vec<u64> = self.runs.range(from..to).map(|(k, _)| *k).collect();
        for key in inside {
            if let Some(extent) = self.remove(key) {
                self.insert(extent.clip(to, u64::MAX));
            }
        }
    }

    fn insert(&mut self, extent: Option<Extent>) {
        if let Some(extent) = extent {
            self.held = self.held.saturating_add(held(&extent));
            self.runs.insert(extent.first_block, extent);
        }
    }

    fn remove(&mut self, key: u64) -> Option<Extent> {
        let extent = self.runs.remove(&key)?;
        self.held -= held(&extent);
        Some(extent)
    }

    /// Puts an extent in the place of what was in its range.
    pub(crate) fn put(&mut self, extent: Extent) {
        self.cut(extent.first_block, extent.end());
        if let Some((_, last)) = self.runs.range_mut(..extent.first_block).next_back()
            && let Some(joined) = last.join(&extent)
        {
            *last = joined;
            self.held += held(&extent);
            return;
        }
        self.insert(Some(extent));
    }

    /// The extents of blocks `from..to`, clipped, with explicit holes between them.
    pub(crate) fn list(&self, from: u64, to: u64) -> Vec<Extent> {
        let mut out = Vec::new();
        let mut next = from;
        let before = self.runs.range(..from).next_back().map(|(_, e)| *e);
        let inside = self.runs.range(from..to).map(|(_, e)| *e);
        for extent in before
            .into_iter()
            .chain(inside)
            .filter_map(|e| e.clip(from, to))
        {
            holes(&mut out, next, extent.first_block);
            next = extent.end();
            out.push(extent);
        }
        holes(&mut out, next, to);
        out
    }
}

fn holes(out: &mut Vec<Extent>, mut from: u64, to: u64) {
    while from < to {
        let count = u32::try_from(to - from).unwrap_or(u32::MAX);
        out.push(Extent {
            first_block: from,
            count,
            content: Held::Hole,
        });
        from += u64::from(count);
    }
}

/// Disjoint runs of blocks, first to end.
#[derive(Clone, Default, Debug)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds blocks `from..to`.
    pub(crate) fn add(&mut self, mut from: u64, mut to: u64) {
        if from >= to {
            return;
        }
        while let Some((first, end)) = self.0.range(..=to).next_back().map(|(a, b)| (*a, *b)) {
            if end < from {
                break;
            }
            self.0.remove(&first);
            from = from.min(first);
            to = to.max(end);
        }
        self.0.insert(from, to);
    }

    /// Takes away what is at or behind `from`.
    pub(crate) fn truncate(&mut self, from: u64) {
        self.0.split_off(&from);
        if let Some((_, end)) = self.0.range_mut(..from).next_back() {
            *end = (*end).min(from);
        }
    }

    /// The runs in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(a, b)| (*a, *b))
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skrin_base::{Ino, KeyId, SegmentId, Stored};

    fn stored(first_block: u64, count: u32, first_slot: u32) -> Extent {
        let content = Held::Stored(Stored {
            segment: SegmentId([1; 16]),
            first_slot,
            key: KeyId([2; 16]),
            origin_file: Ino(77),
            origin_block: first_block,
        });
        Extent {
            first_block,
            count,
            content,
        }
    }

    #[test]
    fn blocks_sealed_in_order_become_one_extent() {
        let mut map = ExtentMap::default();
        (0..100).for_each(|n| map.put(stored(n, 1, n as u32)));
        assert_eq!(map.list(0, 100), vec![stored(0, 100, 0)]);
    }

    #[test]
    fn an_overwrite_in_the_middle_leaves_both_sides() {
        let mut map = ExtentMap::default();
        map.put(stored(0, 10, 0));
        map.put(stored(4, 2, 50));
        let list = map.list(0, 12);
        let hole = Extent {
            first_block: 10,
            count: 2,
            content: Held::Hole,
        };
        assert_eq!(
            list,
            vec![
                stored(0, 4, 0),
                stored(4, 2, 50),
                stored(0, 10, 0).clip(6, 10).unwrap(),
                hole
            ]
        );
        assert_eq!(map.next_hole(3), 10);
        assert_eq!(map.next_held(10), None);
        assert_eq!(map.held(), 10);
        map.cut(1, 9);
        assert_eq!(map.next_held(1), Some(9));
        assert_eq!(map.held(), 2);
    }

    #[test]
    fn what_the_tree_does_not_cover_is_lost_and_never_zeros() {
        let map = ExtentMap::load(vec![stored(2, 2, 0)], 6);
        assert_eq!(map.get(0).unwrap().content, Held::Lost);
        assert_eq!(map.get(5).unwrap().content, Held::Lost);
        assert_eq!(map.get(3), stored(2, 2, 0).clip(3, 4));
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        for (a, b) in [(0, 2), (5, 6), (2, 5), (9, 12)] {
            ranges.add(a, b);
        }
        assert_eq!(ranges.iter().collect::<Vec<_>>(), vec![(0, 6), (9, 12)]);
        ranges.truncate(10);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), vec![(0, 6), (9, 10)]);
        ranges.truncate(3);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), vec![(0, 3)]);
    }
}
