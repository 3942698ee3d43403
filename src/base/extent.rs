//! Where the contents of a file are (docs/format/segments.md): the one vocabulary that metadata and
//! data share.

use crate::ids::{Hash32, Ino, KeyId, LaneId, SegmentId};
use crate::limits::{FILE_LEN_MAX, SEGMENT_MAX, SEGMENT_SLOTS_MAX};
use crate::wire::{Decode, Encode, Reader, WireError, Writer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Blocks of a file of the largest length, for any block size from 4 KiB up.
const BLOCKS_MAX: u64 = FILE_LEN_MAX >> 12;

/// A run of consecutive blocks of a file. The extents of a file cover every block from 0 to its last one:
/// a missing extent is an error, never zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First block of the file that this run covers.
    pub first_block: u64,
    /// How many blocks; at least 1.
    pub count: u32,
    /// What is there.
    pub content: Content,
}

/// What a run of blocks holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Zeros that were never stored.
    Hole,
    /// Contents that nobody holds any more: reading answers EIO.
    Lost,
    /// Consecutive slots of a segment.
    Stored(Stored),
}

/// Consecutive slots of a segment, and what their seals are bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The segment.
    pub segment: SegmentId,
    /// Slot of the first block.
    pub first_slot: u32,
    /// Names the file key, which stands in the inode.
    pub key: KeyId,
    /// The inode for which the blocks were sealed; shared extents keep it.
    pub origin_file: Ino,
    /// The block of that inode as which the first block was sealed.
    pub origin_block: u64,
}

/// A run of blocks of a segment that lie in another one, the host, as well: as they were sealed, behind a mask of the host's.
/// The host holds the segment's table, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopiedRun {
    /// Slot of the first block in the segment for which it was sealed.
    pub first_slot: u32,
    /// How many blocks; at least 1.
    pub count: u32,
    /// Where they lie.
    pub host: SegmentId,
    /// Slot of the first block there; the others follow.
    pub host_slot: u32,
    /// Slot of the segment's table there.
    pub table_slot: u32,
}

impl CopiedRun {
    /// The slot behind the last one.
    pub fn end(&self) -> u32 {
        self.first_slot.saturating_add(self.count)
    }

    /// The part of this run that lies in slots `[from, to)`, if any.
    pub fn clip(&self, from: u32, to: u32) -> Option<Self> {
        let first_slot = self.first_slot.max(from);
        let count = self.end().min(to).checked_sub(first_slot)?;
        (count > 0).then(|| Self {
            first_slot,
            count,
            host_slot: self.host_slot.saturating_add(first_slot - self.first_slot),
            ..*self
        })
    }
}

/// Where blocks of one segment lie besides.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    /// Ascending, without overlap.
    pub runs: Vec<CopiedRun>,
    /// The declarations of all hosts.
    pub hosts: BTreeMap<SegmentId, Arc<SegmentInfo>>,
}

impl Copies {
    /// The run that holds a slot: of that one block.
    pub fn find(&self, slot: u32) -> Option<CopiedRun> {
        let at = self.runs.partition_point(|run| run.end() <= slot);
        self.runs.get(at)?.clip(slot, slot + 1)
    }
}

impl Extent {
    /// The block after the last one covered.
    pub fn end(&self) -> u64 {
        self.first_block + u64::from(self.count)
    }

    /// The part of this extent that lies in `[from, to)`, if any.
    pub fn clip(&self, from: u64, to: u64) -> Option<Self> {
        let first_block = self.first_block.max(from);
        let end = self.end().min(to);
        let count = u32::try_from(end.checked_sub(first_block)?)
            .ok()
            .filter(|n| *n > 0)?;
        let skip = first_block - self.first_block;
        let content = match self.content {
            Content::Stored(s) => Content::Stored(Stored {
                first_slot: s.first_slot + skip as u32,
                origin_block: s.origin_block + skip,
                ..s
            }),
            other => other,
        };
        Some(Self {
            first_block,
            count,
            content,
        })
    }

    /// This extent and `next` as one, if `next` continues it in the file and in what it holds.
    pub fn join(&self, next: &Self) -> Option<Self> {
        let count = self.count.checked_add(next.count)?;
        let follows = next.first_block == self.end();
        let continues = match (self.content, next.content) {
            (Content::Hole, Content::Hole) | (Content::Lost, Content::Lost) => true,
            (Content::Stored(a), Content::Stored(b)) => {
                let moved = Stored {
                    first_slot: a.first_slot.checked_add(self.count)?,
                    origin_block: a.origin_block + u64::from(self.count),
                    ..a
                };
                moved == b
            }
            _ => false,
        };
        (follows && continues).then_some(Self { count, ..*self })
    }
}

impl Encode for Extent {
    fn encode(&self, w: &mut Writer) {
        w.u64(self.first_block);
        w.u32(self.count);
        match self.content {
            Content::Hole => w.u8(0),
            Content::Lost => w.u8(1),
            Content::Stored(s) => {
                w.u8(2);
                s.segment.encode(w);
                w.u32(s.first_slot);
                s.key.encode(w);
                s.origin_file.encode(w);
                w.u64(s.origin_block);
            }
        }
    }
}

impl Decode for Extent {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (first_block, count) = (r.u64()?, r.u32()?);
        if count == 0 || first_block > BLOCKS_MAX || u64::from(count) > BLOCKS_MAX {
            return Err(WireError::Value("extent range"));
        }
        let content = match r.u8()? {
            0 => Content::Hole,
            1 => Content::Lost,
            2 => Content::Stored(Stored {
                segment: SegmentId::decode(r)?,
                first_slot: r.u32()?,
                key: KeyId::decode(r)?,
                origin_file: Ino::decode(r)?,
                origin_block: r.u64()?,
            }),
            _ => return Err(WireError::Value("extent kind")),
        };
        if let Content::Stored(s) = content {
            let end = u64::from(s.first_slot) + u64::from(count);
            if end > SEGMENT_SLOTS_MAX as u64 || s.origin_block > BLOCKS_MAX {
                return Err(WireError::Value("extent slots"));
            }
        }
        Ok(Self {
            first_block,
            count,
            content,
        })
    }
}

/// What a commit declares of a segment, once and for ever: how to find, open and believe its table.
#[derive(Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The segment's name.
    pub id: SegmentId,
    /// The lane whose device sealed it.
    pub author: LaneId,
    /// The author's number of it; the name derives from lane and number.
    pub number: u64,
    /// Length of the whole object, padding included.
    pub object_len: u64,
    /// Where the sealed table begins; it ends with the object.
    pub table_offset: u64,
    /// BLAKE3 of the sealed table.
    pub table_hash: Hash32,
    /// Opens the sealed table.
    pub table_key: [u8; 32],
    /// How many blocks it holds.
    pub slots: u32,
}

impl fmt::Debug for SegmentInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentInfo")
            .field("id", &self.id)
            .field("author", &self.author)
            .field("number", &self.number)
            .field("object_len", &self.object_len)
            .field("table_offset", &self.table_offset)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

impl Encode for SegmentInfo {
    fn encode(&self, w: &mut Writer) {
        self.id.encode(w);
        self.author.encode(w);
        w.u64(self.number);
        w.u64(self.object_len);
        w.u64(self.table_offset);
        self.table_hash.encode(w);
        w.raw(&self.table_key);
        w.u32(self.slots);
    }
}

impl Decode for SegmentInfo {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let info = Self {
            id: SegmentId::decode(r)?,
            author: LaneId::decode(r)?,
            number: r.u64()?,
            object_len: r.u64()?,
            table_offset: r.u64()?,
            table_hash: Hash32::decode(r)?,
            table_key: r.array()?,
            slots: r.u32()?,
        };
        let too_long = info.object_len > SEGMENT_MAX as u64;
        let too_many = info.slots == 0 || info.slots as usize > SEGMENT_SLOTS_MAX;
        if too_long || too_many || info.table_offset >= info.object_len {
            return Err(WireError::Value("segment dimensions"));
        }
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(first_block: u64, count: u32, first_slot: u32) -> Extent {
        let content = Content::Stored(Stored {
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
    fn clipping_moves_slot_and_origin_along() {
        assert_eq!(stored(10, 5, 3).clip(12, 14), Some(stored(12, 2, 5)));
        assert_eq!(stored(10, 5, 3).clip(15, 20), None);
        assert_eq!(stored(10, 5, 3).clip(0, 10), None);
    }

    #[test]
    fn a_slot_is_found_in_the_run_that_holds_it() {
        let run = |first_slot, count, host_slot| CopiedRun {
            first_slot,
            count,
            host: SegmentId([9; 16]),
            host_slot,
            table_slot: 1,
        };
        let copies = Copies {
            runs: vec![run(2, 3, 10), run(5, 1, 40), run(9, 2, 41)],
            ..Copies::default()
        };
        let at = |slot| copies.find(slot).map(|found| found.host_slot);
        let found: Vec<_> = (0..12).filter_map(at).collect();
        assert_eq!(found, [10, 11, 12, 40, 41, 42]);
        assert_eq!((at(1), at(6), at(11)), (None, None, None));
        assert_eq!(run(2, 3, 10).clip(3, 99), Some(run(3, 2, 11)));
        assert_eq!(run(2, 3, 10).clip(5, 99), None);
    }

    #[test]
    fn joining_undoes_clipping() {
        let whole = stored(4, 9, 1);
        let (a, b) = (whole.clip(0, 7).unwrap(), whole.clip(7, 99).unwrap());
        assert_eq!(a.join(&b), Some(whole));
        assert_eq!(b.join(&a), None);
        assert_eq!(
            a.join(&stored(7, 2, 9)),
            None,
            "other slots do not continue"
        );
    }
}
