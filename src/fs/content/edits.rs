//! What an open file holds in memory only, for the journal: a program that saves a little waits for a little, and not for whole
//! blocks to be sealed and named by an operation. Each block goes there once as a whole, so that a replay needs nothing else; from
//! then on what changes of it.

use super::{BLOCK, Content, Resident, blocks};
use skrin_base::limits::{BLOCK_LEN, INLINE_MAX, XATTRS_TOLD_MAX};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Extent, Ino, OpId, Timestamp};
use skrin_meta::state::Inode;

/// More than so many bytes at once are better sealed as blocks.
const AT_ONCE_MAX: usize = 256 << 10;
/// Blocks in a record; their bytes are bounded too.
const PARTS_MAX: usize = AT_ONCE_MAX;

/// What a file was when its first edit was noted: enough to make it again, whatever has become of it elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Start {
    /// The inode, with its keys and places, and its length of then.
    pub(crate) inode: Inode,
    /// All its extents.
    pub(crate) extents: Vec<Extent>,
    /// Extended attributes, as far as a write carries them.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Bytes of one block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// Which block of the file.
    pub(crate) block: u64,
    /// From which byte of it; `None` is the whole block as it is in memory.
    pub(crate) from: Option<u32>,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

/// One record: what changed of a file since the record before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Edits {
    /// The inode.
    pub(crate) ino: Ino,
    /// The version that the contents started from.
    pub(crate) base: OpId,
    /// The contents that they started from; in the first record of a number.
    pub(crate) start: Option<Start>,
    /// Length of the file.
    pub(crate) size: u64,
    /// When it was changed.
    pub(crate) mtime: Timestamp,
    /// In any order, each block at most once.
    pub(crate) parts: Vec<Part>,
}

impl Edits {
    /// Longer records are not worth it.
    pub(crate) const LEN_MAX: usize = 2 * AT_ONCE_MAX;
}

impl Content {
    /// The extents of the file as long as it was when the tree was told last.
    pub(crate) fn stored_extents(&self, size: u64) -> Vec<Extent> {
        self.extents.list(0, blocks(size))
    }

    /// What the journal does not have yet, if edits can tell it: blocks of a stored file that are in memory, not too many bytes.
    pub(crate) fn unnoted(&self) -> Option<Vec<Part>> {
        if self.restructured || self.extents.is_empty() || self.size <= INLINE_MAX as u64 {
            return None;
        }
        let mut parts = Vec::new();
        let mut total = 0;
        for (block, resident) in self.resident.iter().filter(|(_, r)| r.dirty) {
            let part = match (&resident.unnoted, resident.noted) {
                (None, true) => continue,
                (Some(range), true) => Part {
                    block: *block,
                    from: Some(range.start as u32),
                    bytes: resident.data.get(range.clone())?.to_vec(),
                },
                (_, false) => Part {
                    block: *block,
                    from: None,
                    bytes: resident.data.clone(),
                },
            };
            total += part.bytes.len();
            if total > AT_ONCE_MAX {
                return None;
            }
            parts.push(part);
        }
        Some(parts)
    }

    /// The journal has everything that `unnoted` gave.
    pub(crate) fn noted(&mut self) {
        for resident in self.resident.values_mut().filter(|r| r.dirty) {
            (resident.noted, resident.unnoted) = (true, None);
        }
    }

    /// Takes in what the journal gave back after a crash, in the order in which it was noted. False if a part was left out, as
    /// its block did not come back whole before.
    pub(crate) fn restore(&mut self, size: u64, parts: Vec<Part>) -> bool {
        let mut complete = true;
        for part in parts {
            match part.from {
                None => {
                    let block = Resident {
                        dirty: true,
                        ..Resident::clean(part.bytes)
                    };
                    self.resident.insert(part.block, block);
                }
                Some(from) if self.resident.contains_key(&part.block) => {
                    self.patch(part.block, from as usize, &part.bytes);
                }
                Some(_) => complete = false,
            }
        }
        self.noted();
        self.grow(size);
        self.modified = true;
        complete
    }
}

impl Encode for Start {
    fn encode(&self, w: &mut Writer) {
        self.inode.encode(w);
        w.list(&self.extents);
        w.count(self.xattrs.len());
        for (name, value) in &self.xattrs {
            w.bytes(name);
            w.bytes(value);
        }
    }
}

impl Decode for Start {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (inode, extents) = (Inode::decode(r)?, r.list("extents", Edits::LEN_MAX)?);
        let n = r.count("extended attributes", XATTRS_TOLD_MAX, 8)?;
        let xattr = |r: &mut Reader<'_>| {
            let mut bytes = || r.bytes("extended attribute", XATTRS_TOLD_MAX);
            Ok((bytes()?.to_vec(), bytes()?.to_vec()))
        };
        Ok(Self {
            inode,
            extents,
            xattrs: (0..n).map(|_| xattr(r)).collect::<Result<_, _>>()?,
        })
    }
}

impl Encode for Edits {
    fn encode(&self, w: &mut Writer) {
        self.ino.encode(w);
        self.base.encode(w);
        w.option(self.start.as_ref());
        w.u64(self.size);
        self.mtime.encode(w);
        w.count(self.parts.len());
        for part in &self.parts {
            w.u64(part.block);
            w.u32(part.from.unwrap_or(u32::MAX));
            w.bytes(&part.bytes);
        }
    }
}

impl Decode for Edits {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (ino, base) = (Ino::decode(r)?, OpId::decode(r)?);
        let start = r.option()?;
        let (size, mtime) = (r.u64()?, Timestamp::decode(r)?);
        let n = r.count("edited blocks", PARTS_MAX, 16)?;
        let part = |r: &mut Reader<'_>| {
            let (block, from) = (r.u64()?, r.u32()?);
            let bytes = r.bytes("bytes of an edit", BLOCK_LEN)?.to_vec();
            let end = from as usize + bytes.len();
            let from = (from != u32::MAX).then_some(from);
            if from.is_some() && end > BLOCK_LEN || block > u64::MAX / BLOCK {
                return Err(WireError::Value("place of an edit"));
            }
            Ok(Part { block, from, bytes })
        };
        let parts = (0..n).map(|_| part(r)).collect::<Result<_, _>>()?;
        Ok(Self {
            ino,
            base,
            start,
            size,
            mtime,
            parts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skrin_base::DeviceId;

    fn edits(from: Option<u32>, len: usize) -> Edits {
        Edits {
            ino: Ino(7),
            base: OpId {
                device: DeviceId([1; 16]),
                counter: 3,
            },
            start: Some(Start {
                inode: Inode::root(),
                extents: Vec::new(),
                xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())],
            }),
            size: 100,
            mtime: Timestamp(5),
            parts: vec![Part {
                block: 2,
                from,
                bytes: vec![9; len],
            }],
        }
    }

    #[test]
    fn edits_have_one_encoding_and_stay_inside_their_block() {
        for (from, len) in [(None, BLOCK_LEN), (Some(0), 1), (Some(65_000), 536)] {
            let edits = edits(from, len);
            let bytes = edits.to_bytes();
            assert_eq!(Edits::from_bytes(&bytes), Ok(edits));
            for cut in 0..bytes.len() {
                assert!(Edits::from_bytes(&bytes[..cut]).is_err());
            }
        }
        let beyond = edits(Some(65_000), 537).to_bytes();
        assert!(Edits::from_bytes(&beyond).is_err());
        let mut far = edits(None, 1);
        far.parts[0].block = u64::MAX;
        assert!(Edits::from_bytes(&far.to_bytes()).is_err());
    }
}
