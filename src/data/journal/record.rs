//! What stands in a log file, byte for byte (docs/durability.md, "The journal's files"). Pure functions.

use crate::segment::Entry;
use skrin_base::Entropy;
use skrin_base::ids::{Hash32, LaneId, RoomId, SegmentId, VaultId};
use skrin_base::limits::{OP_MAX, SEGMENT_SLOTS_MAX};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_crypto::{LocalAad, LocalKey, SEAL_OVERHEAD, hash, open, seal};
use std::ops::Range;
use zeroize::Zeroizing;

/// Length of the header of a log file, behind which the first record stands.
pub const FILE_HEADER_LEN: usize = 32;
/// What stands in front of a record's sealed head: marker and two lengths.
const FRAME_LEN: usize = 16;
/// Largest sealed head: an operation and what is said about it.
const HEAD_MAX: usize = OP_MAX + 1024;
/// Largest payload: a sealed table of the most slots.
const PAYLOAD_MAX: usize = 4 * 1024 * 1024;
/// Lanes whose numbers are remembered; a device has one at a time and few in its life.
const LANES_MAX: usize = 4096;

/// A place in the log: the file's number and an offset in it. Greater is later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// The place at `offset` of file `file`.
    pub(crate) fn new(file: u32, offset: u32) -> Self {
        Self(u64::from(file) << 32 | u64::from(offset))
    }

    /// The number of the file.
    pub(crate) fn file(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset in the file.
    pub(crate) fn offset(self) -> u32 {
        self.0 as u32
    }
}

/// Names a log file: its number, and random bytes that no earlier life of the same disk blocks had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileId {
    /// Rises by one from file to file.
    pub number: u32,
    /// Stands in front of each record.
    pub marker: [u8; 8],
}

impl FileId {
    /// `<number>-<marker>.log`, in hexadecimal.
    pub(crate) fn file_name(&self) -> String {
        format!(
            "{:08x}-{:016x}.log",
            self.number,
            u64::from_be_bytes(self.marker)
        )
    }

    /// Reads what `file_name` wrote.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (number, marker) = name.strip_suffix(".log")?.split_once('-')?;
        Some(Self {
            number: u32::from_be_bytes(skrin_base::ids::parse_hex(number)?),
            marker: skrin_base::ids::parse_hex(marker)?,
        })
    }

    /// What the file begins with; for people with a hex editor, as the name says it all.
    pub(crate) fn header(&self) -> [u8; FILE_HEADER_LEN] {
        let mut header = [0; FILE_HEADER_LEN];
        header[..8].copy_from_slice(b"skrnjnl\x01");
        header[8..12].copy_from_slice(&self.number.to_le_bytes());
        header[16..24].copy_from_slice(&self.marker);
        header
    }
}

/// One entry of the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// First of each file: repeats what older files said and may be needed after they are gone.
    Start {
        /// Where the file before this one ended.
        previous: Option<Lsn>,
        /// Operations up to this counter are published.
        released: u64,
        /// For each lane the first segment number that was never reserved.
        lanes: Vec<(LaneId, u64)>,
    },
    /// An operation of the metadata layer.
    Op {
        /// Its counter.
        counter: u64,
        /// The edits that it makes superfluous, as it names what they changed.
        settles: Option<u64>,
        /// Its bytes, opaque here.
        bytes: &'a [u8],
    },
    /// Bytes of an open file that no operation names yet; later ones of the same number lie over them.
    Edits {
        /// Which edits belong together: until they are settled all of them count.
        number: u64,
        /// What was written and where, opaque here.
        bytes: &'a [u8],
    },
    /// Edits that are not wanted any more.
    Settled {
        /// Which.
        number: u64,
    },
    /// A segment was begun.
    Begin {
        /// Of which room.
        room: RoomId,
        /// Its name.
        segment: SegmentId,
        /// In which lane.
        author: LaneId,
        /// Its number.
        number: u64,
        /// Will seal its table.
        table_key: [u8; 32],
    },
    /// A sealed block, which is the payload.
    Block {
        /// In which segment.
        segment: SegmentId,
        /// At which place.
        slot: u32,
        /// What the table will say of it.
        entry: Entry,
    },
    /// A segment was ended; its sealed table is the payload.
    Close {
        /// Which.
        segment: SegmentId,
        /// How many slots it has.
        slots: u32,
        /// BLAKE3 of the sealed table.
        table_hash: Hash32,
    },
    /// The segment is on the storage.
    Durable {
        /// Which.
        segment: SegmentId,
    },
    /// A confirmed commit declares the segment: its blocks need not be kept here.
    Declared {
        /// Which.
        segment: SegmentId,
    },
    /// Operations up to this counter are published.
    Released {
        /// The last of them.
        counter: u64,
    },
    /// Segment numbers below `until` may have been used.
    Reserve {
        /// In which lane.
        lane: LaneId,
        /// The first that was not.
        until: u64,
    },
    /// What `Begin` said, once more: the segment was ended, and nothing else opens its table.
    Again {
        /// Of which room.
        room: RoomId,
        /// Its name.
        segment: SegmentId,
        /// In which lane.
        author: LaneId,
        /// Its number.
        number: u64,
        /// Seals its table.
        table_key: [u8; 32],
    },
}

impl Record<'_> {
    /// Whether `payload` is what this record says it is.
    pub(crate) fn vouches_for(&self, payload: &[u8]) -> bool {
        match self {
            Self::Block { entry, .. } => {
                payload.len() == entry.sealed_len as usize && hash(payload) == entry.hash
            }
            Self::Close { table_hash, .. } => hash(payload) == *table_hash,
            _ => payload.is_empty(),
        }
    }
}

impl Encode for Record<'_> {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Start {
                previous,
                released,
                lanes,
            } => {
                w.u8(0);
                w.option(previous.map(|lsn| lsn.0).as_ref());
                w.u64(*released);
                w.count(lanes.len());
                for (lane, until) in lanes {
                    lane.encode(w);
                    w.u64(*until);
                }
            }
            Self::Op {
                counter,
                settles,
                bytes,
            } => {
                w.u8(1);
                w.u64(*counter);
                w.option(settles.as_ref());
                w.bytes(bytes);
            }
            Self::Edits { number, bytes } => {
                w.u8(9);
                w.u64(*number);
                w.bytes(bytes);
            }
            Self::Settled { number } => {
                w.u8(10);
                w.u64(*number);
            }
            Self::Begin {
                room,
                segment,
                author,
                number,
                table_key,
            }
            | Self::Again {
                room,
                segment,
                author,
                number,
                table_key,
            } => {
                w.u8(match self {
                    Self::Again { .. } => 11,
                    _ => 2,
                });
                room.encode(w);
                segment.encode(w);
                author.encode(w);
                w.u64(*number);
                w.raw(table_key);
            }
            Self::Block {
                segment,
                slot,
                entry,
            } => {
                w.u8(3);
                segment.encode(w);
                w.u32(*slot);
                entry.encode(w);
            }
            Self::Close {
                segment,
                slots,
                table_hash,
            } => {
                w.u8(4);
                segment.encode(w);
                w.u32(*slots);
                table_hash.encode(w);
            }
            Self::Durable { segment } => {
                w.u8(5);
                segment.encode(w);
            }
            Self::Declared { segment } => {
                w.u8(6);
                segment.encode(w);
            }
            Self::Released { counter } => {
                w.u8(7);
                w.u64(*counter);
            }
            Self::Reserve { lane, until } => {
                w.u8(8);
                lane.encode(w);
                w.u64(*until);
            }
        }
    }
}

/// Reads a record from the plain text of a head.
///
/// # Errors
/// Whatever is not the encoding of a record.
pub fn decode_record<'a>(r: &mut Reader<'a>) -> Result<Record<'a>, WireError> {
    let record = match r.u8()? {
        0 => Record::Start {
            previous: r.option()?.map(Lsn),
            released: r.u64()?,
            lanes: decode_lanes(r)?,
        },
        1 => Record::Op {
            counter: r.u64()?,
            settles: r.option()?,
            bytes: r.bytes("operation length", OP_MAX)?,
        },
        2 => Record::Begin {
            room: RoomId::decode(r)?,
            segment: SegmentId::decode(r)?,
            author: LaneId::decode(r)?,
            number: r.u64()?,
            table_key: r.array()?,
        },
        3 => Record::Block {
            segment: SegmentId::decode(r)?,
            slot: slot_number(r)?,
            entry: Entry::decode(r)?,
        },
        4 => Record::Close {
            segment: SegmentId::decode(r)?,
            slots: slot_number(r)?,
            table_hash: Hash32::decode(r)?,
        },
        5 => Record::Durable {
            segment: SegmentId::decode(r)?,
        },
        6 => Record::Declared {
            segment: SegmentId::decode(r)?,
        },
        7 => Record::Released { counter: r.u64()? },
        8 => Record::Reserve {
            lane: LaneId::decode(r)?,
            until: r.u64()?,
        },
        9 => Record::Edits {
            number: r.u64()?,
            bytes: r.bytes("length of edits", OP_MAX)?,
        },
        10 => Record::Settled { number: r.u64()? },
        11 => Record::Again {
            room: RoomId::decode(r)?,
            segment: SegmentId::decode(r)?,
            author: LaneId::decode(r)?,
            number: r.u64()?,
            table_key: r.array()?,
        },
        found => {
            return Err(WireError::Unknown {
                what: "journal record",
                found: found.into(),
            });
        }
    };
    r.finish()?;
    Ok(record)
}

fn decode_lanes(r: &mut Reader<'_>) -> Result<Vec<(LaneId, u64)>, WireError> {
    let count = r.count("lanes", LANES_MAX, LaneId::LEN + 8)?;
    (0..count)
        .map(|_| Ok((LaneId::decode(r)?, r.u64()?)))
        .collect()
}

fn slot_number(r: &mut Reader<'_>) -> Result<u32, WireError> {
    let slot = r.u32()?;
    if slot as usize > SEGMENT_SLOTS_MAX {
        return Err(WireError::Value("slot"));
    }
    Ok(slot)
}

/// What seals and opens records: the key, whose they are, and in which file they stand.
pub struct Framing<'a> {
    /// The journal's key.
    pub key: &'a LocalKey,
    /// Whose.
    pub vault: VaultId,
    /// In which file.
    pub file: FileId,
}

impl Framing<'_> {
    fn aad(&self, offset: u32, head_len: u32, payload_len: u32) -> LocalAad {
        let mut w = Writer::default();
        w.u32(self.file.number);
        w.raw(&self.file.marker);
        w.u32(offset);
        w.u32(head_len);
        w.u32(payload_len);
        LocalAad {
            purpose: "journal",
            vault: self.vault,
            context: w.into_bytes(),
        }
    }

    /// Everything of a record at `offset` but its payload, which follows raw. `synced` is how far the log was known to
    /// be on stable storage.
    pub(crate) fn frame(
        &self,
        offset: u32,
        synced: Lsn,
        record: &[u8],
        payload_len: u32,
        entropy: &dyn Entropy,
    ) -> Vec<u8> {
        let mut plain = Zeroizing::new(Vec::with_capacity(record.len() + 8));
        plain.extend_from_slice(&synced.0.to_le_bytes());
        plain.extend_from_slice(record);
        let head_len = (plain.len() + SEAL_OVERHEAD) as u32;
        let head = seal(
            self.key,
            &self.aad(offset, head_len, payload_len),
            &plain,
            entropy,
        );
        let mut out = Vec::with_capacity(FRAME_LEN + head.len());
        out.extend_from_slice(&self.file.marker);
        out.extend_from_slice(&head_len.to_le_bytes());
        out.extend_from_slice(&payload_len.to_le_bytes());
        out.extend_from_slice(&head);
        out
    }

    /// Opens the record at `offset` of the file's bytes, or `None` where no whole, authentic record stands there.
    pub fn parse(&self, bytes: &[u8], offset: usize) -> Option<Parsed> {
        let mut r = Reader::new(bytes.get(offset..)?);
        if r.array::<8>().ok()? != self.file.marker {
            return None;
        }
        let (head_len, payload_len) = (r.u32().ok()?, r.u32().ok()?);
        if head_len as usize > HEAD_MAX || payload_len as usize > PAYLOAD_MAX {
            return None;
        }
        let head = r.raw(head_len as usize).ok()?;
        let payload = r.raw(payload_len as usize).ok()?;
        let at = u32::try_from(offset).ok()?;
        let plain = open(self.key, &self.aad(at, head_len, payload_len), head)
            .ok()?
            .into_inner();
        let (synced, _) = plain.split_first_chunk::<8>()?;
        let synced = Lsn(u64::from_le_bytes(*synced));
        let start = offset + FRAME_LEN + head_len as usize;
        let parsed = Parsed {
            synced,
            plain,
            payload: start..start + payload_len as usize,
        };
        let authentic = parsed
            .record()
            .is_ok_and(|record| record.vouches_for(payload));
        authentic.then_some(parsed)
    }

    /// The first authentic record at or behind `from`.
    pub(crate) fn find(&self, bytes: &[u8], from: usize) -> Option<(usize, Parsed)> {
        let marked = bytes.get(from..)?.windows(8).enumerate();
        let mut places = marked
            .filter(|(_, w)| **w == self.file.marker)
            .map(|(i, _)| from + i);
        places.find_map(|at| Some((at, self.parse(bytes, at)?)))
    }
}

/// Length of a record in the log.
pub(crate) fn framed_len(record: &[u8], payload: usize) -> u64 {
    (FRAME_LEN + 8 + record.len() + SEAL_OVERHEAD + payload) as u64
}

/// An authentic record.
pub struct Parsed {
    /// How far the log was on stable storage when this was written.
    pub(crate) synced: Lsn,
    plain: Zeroizing<Vec<u8>>,
    /// Where its payload stands in the file; the record ends with it.
    pub(crate) payload: Range<usize>,
}

impl Parsed {
    /// The record.
    ///
    /// # Errors
    /// Never for what `parse` returned.
    pub fn record(&self) -> Result<Record<'_>, WireError> {
        decode_record(&mut Reader::new(self.plain.get(8..).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skrin_base::clock::testutil::SeededEntropy;

    const FILE: FileId = FileId {
        number: 3,
        marker: [9; 8],
    };

    fn key() -> LocalKey {
        LocalKey::from_bytes([1; 32])
    }

    fn framing(key: &LocalKey) -> Framing<'_> {
        Framing {
            key,
            vault: VaultId([2; 16]),
            file: FILE,
        }
    }

    fn all_records() -> Vec<Record<'static>> {
        let (segment, lane) = (SegmentId([4; 16]), LaneId([5; 16]));
        let entry = Entry {
            sealed_len: 29,
            plain_len: 1,
            flags: 0,
            hash: hash(&[0; 29]),
        };
        vec![
            Record::Start {
                previous: None,
                released: 1,
                lanes: vec![],
            },
            Record::Start {
                previous: Some(Lsn::new(2, 77)),
                released: 9,
                lanes: vec![(lane, 1024)],
            },
            Record::Op {
                counter: 12,
                settles: None,
                bytes: b"rename",
            },
            Record::Op {
                counter: 13,
                settles: Some(77),
                bytes: b"write",
            },
            Record::Edits {
                number: 77,
                bytes: b"at 5: x",
            },
            Record::Settled { number: 77 },
            Record::Begin {
                room: RoomId([6; 16]),
                segment,
                author: lane,
                number: 5,
                table_key: [7; 32],
            },
            Record::Block {
                segment,
                slot: 8,
                entry,
            },
            Record::Close {
                segment,
                slots: 9,
                table_hash: Hash32([1; 32]),
            },
            Record::Durable { segment },
            Record::Declared { segment },
            Record::Released { counter: 3 },
            Record::Reserve { lane, until: 2048 },
            Record::Again {
                room: RoomId([6; 16]),
                segment,
                author: lane,
                number: 5,
                table_key: [7; 32],
            },
        ]
    }

    #[test]
    fn every_record_has_one_encoding() {
        for record in all_records() {
            let bytes = record.to_bytes();
            assert_eq!(decode_record(&mut Reader::new(&bytes)), Ok(record));
            for cut in 0..bytes.len() {
                assert!(decode_record(&mut Reader::new(&bytes[..cut])).is_err());
            }
            let long = [&bytes[..], &[0]].concat();
            assert!(decode_record(&mut Reader::new(&long)).is_err());
        }
        assert!(
            decode_record(&mut Reader::new(&[12])).is_err(),
            "unknown kind"
        );
    }

    #[test]
    fn a_record_opens_only_at_its_own_place() {
        let (key, entropy) = (key(), SeededEntropy::new(1));
        let framing = framing(&key);
        let op = Record::Op {
            counter: 1,
            settles: None,
            bytes: b"x",
        }
        .to_bytes();
        let frame = framing.frame(32, Lsn::default(), &op, 0, &entropy);
        assert_eq!(frame.len() as u64, framed_len(&op, 0));
        let at = |offset: usize| [vec![0; offset], frame.clone()].concat();
        assert!(framing.parse(&at(32), 32).is_some());
        assert!(framing.parse(&at(33), 33).is_none(), "moved");
        let elsewhere = Framing {
            file: FileId { number: 4, ..FILE },
            ..framing
        };
        assert!(elsewhere.parse(&at(32), 32).is_none(), "another file");
        let other = Framing {
            vault: VaultId([0; 16]),
            ..elsewhere
        };
        assert!(other.parse(&at(32), 32).is_none());
    }

    #[test]
    fn flipping_any_byte_of_a_record_or_its_payload_is_noticed() {
        let (key, entropy) = (key(), SeededEntropy::new(1));
        let framing = framing(&key);
        let payload = [3; 50];
        let entry = Entry {
            sealed_len: 50,
            plain_len: 22,
            flags: 0,
            hash: hash(&payload),
        };
        let record = Record::Block {
            segment: SegmentId([4; 16]),
            slot: 0,
            entry,
        }
        .to_bytes();
        let mut bytes = framing.frame(0, Lsn::default(), &record, 50, &entropy);
        bytes.extend_from_slice(&payload);
        let parsed = framing.parse(&bytes, 0).unwrap();
        assert_eq!(&bytes[parsed.payload.clone()], &payload);
        assert_eq!(parsed.payload.end, bytes.len());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(framing.parse(&bad, 0).is_none(), "byte {at}");
            assert!(framing.parse(&bytes[..at], 0).is_none(), "cut at {at}");
        }
        let shifted = [vec![9; 3], bytes.clone()].concat();
        assert!(
            framing.find(&shifted, 0).is_none(),
            "moved records are not found"
        );
        assert_eq!(framing.find(&bytes, 0).map(|f| f.0), Some(0));
    }

    #[test]
    fn file_names_come_back() {
        assert_eq!(FileId::parse(&FILE.file_name()), Some(FILE));
        for bad in [
            "",
            ".log",
            "00000003-09.log",
            "00000003-0909090909090909",
            "x-y.log",
        ] {
            assert_eq!(FileId::parse(bad), None);
        }
    }
}
