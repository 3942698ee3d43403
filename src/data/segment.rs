//! The format of a segment (docs/format/segments.md): pure functions over bytes.

use crate::block::FLAG_ZSTD;
use crate::error::Flaw;
use skrin_base::ids::{Hash32, LaneId, RoomId, SegmentId, VaultId};
use skrin_base::limits::{
    BLOCK_LEN, FORMAT_VERSION, SEGMENT_MAX, SEGMENT_SLOTS_MAX, SEGMENT_TARGET,
};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Entropy, SegmentInfo};
use skrin_crypto::{SEAL_OVERHEAD, TableAad, TableKey, hash, open, seal};
use skrin_storage::{BadName, ObjectName};
use std::ops::Range;

/// Length of the header, where slot 0 begins.
pub const HEADER_LEN: usize = 16;
/// A segment of fewer bytes is padded to this, so that its length does not show which small file was saved.
pub const SEGMENT_FLOOR: usize = 256 * 1024;
/// The plain text of a table without its entries.
pub const TABLE_FIXED_LEN: usize = 85;
/// One entry of a table.
pub const ENTRY_LEN: usize = 41;

const MAGIC: &[u8; 7] = b"skrnseg";

/// Which segment it is: what its table must repeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Whose.
    pub vault: VaultId,
    /// Of which room.
    pub room: RoomId,
    /// Its name.
    pub segment: SegmentId,
    /// The lane that wrote it first.
    pub author: LaneId,
    /// The author's number of it.
    pub number: u64,
}

impl Place {
    /// The place that a declaration in `room` speaks of.
    pub fn of(vault: VaultId, room: RoomId, info: &SegmentInfo) -> Self {
        Self {
            vault,
            room,
            segment: info.id,
            author: info.author,
            number: info.number,
        }
    }

    /// Whether these bytes are a table of it, sealed under its key.
    pub(crate) fn has_table(&self, key: &TableKey, sealed: &[u8]) -> bool {
        open(key, &self.aad(), sealed).is_ok()
    }

    fn aad(&self) -> TableAad {
        TableAad {
            vault: self.vault,
            room: self.room,
            segment: self.segment,
            author: self.author,
        }
    }
}

/// One slot of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Bytes in the segment.
    pub sealed_len: u32,
    /// Bytes of plain text.
    pub plain_len: u32,
    /// Bit 0: compressed.
    pub flags: u8,
    /// BLAKE3 of the sealed bytes.
    pub hash: Hash32,
}

impl Entry {
    /// A slot that was given up.
    pub const VOID: Self = Self {
        sealed_len: 0,
        plain_len: 0,
        flags: 0,
        hash: Hash32([0; 32]),
    };

    /// Whether it was given up.
    pub fn is_void(&self) -> bool {
        *self == Self::VOID
    }

    fn check(&self) -> Result<(), WireError> {
        let overhead = SEAL_OVERHEAD as u32;
        let stored = self.sealed_len.wrapping_sub(overhead);
        let plain_ok = (1..=BLOCK_LEN as u32).contains(&self.plain_len);
        let length_ok = self.sealed_len > overhead
            && match self.flags {
                0 => stored == self.plain_len,
                FLAG_ZSTD => stored < self.plain_len,
                _ => {
                    return Err(WireError::Unknown {
                        what: "block flag",
                        found: self.flags.into(),
                    });
                }
            };
        if self.is_void() || (plain_ok && length_ok) {
            Ok(())
        } else {
            Err(WireError::Value("block length"))
        }
    }
}

impl Encode for Entry {
    fn encode(&self, w: &mut Writer) {
        w.u32(self.sealed_len);
        w.u32(self.plain_len);
        w.u8(self.flags);
        self.hash.encode(w);
    }
}

impl Decode for Entry {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let entry = Self {
            sealed_len: r.u32()?,
            plain_len: r.u32()?,
            flags: r.u8()?,
            hash: Hash32::decode(r)?,
        };
        entry.check()?;
        Ok(entry)
    }
}

/// The table of a segment: where each block is and what its hash must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Features that a reader may ignore; none yet.
    optional: u32,
    place: Place,
    entries: Vec<Entry>,
    /// Where each slot begins; one more than there are slots.
    offsets: Vec<u32>,
}

impl Table {
    /// The table of blocks that lie one after the other.
    ///
    /// # Errors
    /// No or too many slots, entries that break the format, or more bytes than a segment may have.
    pub fn new(place: Place, entries: Vec<Entry>) -> Result<Self, WireError> {
        if entries.is_empty() || entries.len() > SEGMENT_SLOTS_MAX {
            return Err(WireError::Value("slot count"));
        }
        let mut offsets = Vec::with_capacity(entries.len() + 1);
        let mut end = HEADER_LEN as u64;
        for entry in &entries {
            entry.check()?;
            offsets.push(end as u32);
            end += u64::from(entry.sealed_len);
            if end > SEGMENT_MAX as u64 {
                return Err(WireError::Value("segment length"));
            }
        }
        offsets.push(end as u32);
        Ok(Self {
            optional: 0,
            place,
            entries,
            offsets,
        })
    }

    /// Whose table it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// All slots.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A slot's entry, unless it is void or beyond the end.
    pub fn entry(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot as usize).filter(|e| !e.is_void())
    }

    /// Where the bytes of `slots` lie in the object.
    pub fn range(&self, slots: Range<u32>) -> Option<Range<u64>> {
        let start = *self.offsets.get(slots.start as usize)?;
        let end = *self.offsets.get(slots.end as usize)?;
        (start <= end).then_some(start.into()..end.into())
    }

    /// Where the last block ends and the padding begins.
    pub fn blocks_end(&self) -> u64 {
        self.offsets
            .last()
            .copied()
            .unwrap_or(HEADER_LEN as u32)
            .into()
    }

    /// Roughly the bytes of memory that it takes.
    pub(crate) fn memory(&self) -> u32 {
        (self.entries.len() * (size_of::<Entry>() + 4) + 256) as u32
    }

    /// Seals the table under its segment's key.
    pub fn seal(&self, key: &TableKey, entropy: &dyn Entropy) -> Vec<u8> {
        seal(key, &self.place.aad(), &self.to_bytes(), entropy)
    }

    /// Checks and opens a table as declared by `info`.
    ///
    /// # Errors
    /// Whatever differs from the declaration, in the order of docs/format/segments.md, section 3.
    pub fn open(
        vault: VaultId,
        room: RoomId,
        info: &SegmentInfo,
        sealed: &[u8],
    ) -> Result<Self, Flaw> {
        if hash(sealed) != info.table_hash {
            return Err(Flaw::Hash);
        }
        let place = Place::of(vault, room, info);
        let key = TableKey::from_bytes(info.table_key);
        let plain = open(&key, &place.aad(), sealed).map_err(|_| Flaw::Seal)?;
        let table = Self::from_bytes(&plain).map_err(Flaw::Table)?;
        if table.place != place {
            return Err(Flaw::Place);
        }
        let fits =
            table.entries.len() == info.slots as usize && table.blocks_end() <= info.table_offset;
        fits.then_some(table)
            .ok_or(Flaw::Table(WireError::Value("slot count")))
    }
}

impl Encode for Table {
    fn encode(&self, w: &mut Writer) {
        let place = &self.place;
        w.u8(FORMAT_VERSION);
        w.u32(0);
        w.u32(self.optional);
        place.vault.encode(w);
        place.room.encode(w);
        place.segment.encode(w);
        place.author.encode(w);
        w.u64(place.number);
        w.list(&self.entries);
    }
}

impl Decode for Table {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let optional = decode_versions(r)?;
        let place = Place {
            vault: VaultId::decode(r)?,
            room: RoomId::decode(r)?,
            segment: SegmentId::decode(r)?,
            author: LaneId::decode(r)?,
            number: r.u64()?,
        };
        let count = r.count("slot count", SEGMENT_SLOTS_MAX, ENTRY_LEN)?;
        let entries = (0..count)
            .map(|_| Entry::decode(r))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            optional,
            ..Self::new(place, entries)?
        })
    }
}

/// Version and feature words; returns the optional ones, which are kept.
fn decode_versions(r: &mut Reader<'_>) -> Result<u32, WireError> {
    let version = r.u8()?;
    if version != FORMAT_VERSION {
        return Err(WireError::Unknown {
            what: "format version",
            found: version.into(),
        });
    }
    match r.u32()? {
        0 => r.u32(),
        bits => Err(WireError::Unknown {
            what: "segment feature",
            found: bits.into(),
        }),
    }
}

/// The header of the segments that this program writes.
pub fn header() -> [u8; HEADER_LEN] {
    header_with(0)
}

/// The header of the segment that has this table.
pub(crate) fn header_of(table: &Table) -> [u8; HEADER_LEN] {
    header_with(table.optional)
}

/// The header of a segment of this version with optional features.
fn header_with(optional: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..7].copy_from_slice(MAGIC);
    header[7] = FORMAT_VERSION;
    header[12..].copy_from_slice(&optional.to_le_bytes());
    header
}

/// Padmé: the smallest length of at least `n` whose last `e - s` bits are zero, with e = floor(log2 n) and
/// s = floor(log2 e) + 1. It adds 12 % at most and leaves log(log n) bits of the length.
pub fn padme(n: u64) -> u64 {
    let Some(e) = n.checked_ilog2().filter(|e| *e > 0) else {
        return n;
    };
    let s = e.ilog2() + 1;
    let mask = (1u64 << e.saturating_sub(s)) - 1;
    n.saturating_add(mask) & !mask
}

/// Length of a sealed table of `slots` entries.
pub fn sealed_table_len(slots: usize) -> usize {
    TABLE_FIXED_LEN + slots * ENTRY_LEN + SEAL_OVERHEAD
}

/// Length of the object for `blocks` bytes of sealed blocks in `slots` slots, padding included.
pub fn object_len(blocks: usize, slots: usize) -> u64 {
    let n = HEADER_LEN + blocks + sealed_table_len(slots);
    padme(n.max(SEGMENT_FLOOR) as u64)
}

/// Whether a segment takes one more block of `sealed_len` bytes and stays within the target length.
pub fn has_room(blocks: usize, slots: usize, sealed_len: usize) -> bool {
    let n = HEADER_LEN + blocks + sealed_len + sealed_table_len(slots + 1);
    slots < SEGMENT_SLOTS_MAX && n <= SEGMENT_TARGET
}

/// What a commit will declare of a segment with this table.
pub fn declare(table: &Table, key: &TableKey, sealed_table: &[u8]) -> SegmentInfo {
    let place = table.place();
    let blocks = table.blocks_end() as usize - HEADER_LEN;
    let object_len = object_len(blocks, table.entries.len());
    SegmentInfo {
        id: place.segment,
        author: place.author,
        number: place.number,
        object_len,
        table_offset: object_len - sealed_table.len() as u64,
        table_hash: hash(sealed_table),
        table_key: *key.expose(),
        slots: table.entries.len() as u32,
    }
}

/// Starts an object in an empty buffer: the header. Blocks follow in the order of their slots.
pub fn begin_object(object: &mut Vec<u8>, info: &SegmentInfo) {
    object.reserve_exact(info.object_len as usize);
    object.extend_from_slice(&header());
}

/// Ends an object behind its last block: padding and table.
pub fn finish_object(object: &mut Vec<u8>, info: &SegmentInfo, sealed_table: &[u8]) {
    object.resize(info.table_offset as usize, 0);
    object.extend_from_slice(sealed_table);
}

/// The sealed table at the end of a whole object, after its length was checked.
///
/// # Errors
/// `Length` for an object of another length than declared.
pub fn table_part<'a>(info: &SegmentInfo, object: &'a [u8]) -> Result<&'a [u8], Flaw> {
    if object.len() as u64 != info.object_len {
        return Err(Flaw::Length);
    }
    object.get(info.table_offset as usize..).ok_or(Flaw::Length)
}

/// What does not belong to blocks or table of a whole object: its header and its padding.
///
/// # Errors
/// `Header`, `Padding`.
pub fn check_frame(info: &SegmentInfo, table: &Table, object: &[u8]) -> Result<(), Flaw> {
    if !object.starts_with(&header_of(table)) {
        return Err(Flaw::Header);
    }
    let padding = object.get(table.blocks_end() as usize..info.table_offset as usize);
    let zero = padding.is_some_and(|p| p.iter().all(|b| *b == 0));
    zero.then_some(()).ok_or(Flaw::Padding)
}

/// Name of the object.
///
/// # Errors
/// Never for an identifier; the type of names asks for it.
pub fn object_name(id: SegmentId) -> Result<ObjectName, BadName> {
    let hex = id.to_string();
    ObjectName::new(format!("segments/{}/{hex}", &hex[..2]))
}

#[cfg(test)]
mod tests;
