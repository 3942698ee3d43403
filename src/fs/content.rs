//! The contents of one open file in memory: what is stored, and what is not yet. Knows blocks and extents, but neither the tree
//! nor the storage; whoever calls brings the blocks that must be read, and seals those that must be stored.

mod edits;
mod extents;

pub(crate) use edits::{Edits, Part, Start};
pub(crate) use extents::{ExtentMap, Ranges};

use crate::error::FsError;
use skrin_base::limits::{BLOCK_LEN, INLINE_MAX, RUNS_TOLD_MAX};
use skrin_base::{Content as Held, Extent, Stored};
use skrin_meta::Body;
use std::collections::BTreeMap;
use std::ops::Range;

const BLOCK: u64 = BLOCK_LEN as u64;
/// Extents in one operation; more are cut into several.
const OP_EXTENTS_MAX: usize = 16 * 1024;

/// Number of blocks of a file of that length.
pub(crate) fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// Bytes of a file of length `size` that its extents hold, without the holes.
pub(crate) fn stored_bytes(extents: &[Extent], size: u64) -> u64 {
    let held = extents.iter().filter(|e| e.content != Held::Hole);
    let end = |block: u64| size.min(block.saturating_mul(BLOCK));
    let lens = held.map(|e| end(e.end()).saturating_sub(end(e.first_block)));
    lens.fold(0, u64::saturating_add)
}

/// What a write may leave out, as the others know it.
pub(crate) enum Known {
    /// Whatever it does not change.
    All,
    /// The version that it starts from will not be remembered, and the write has to stand on its own. These are the extents of that
    /// version, if there are any.
    Few(Vec<Extent>),
}

/// Extents of a file of `blocks` blocks with others over them.
pub(crate) fn laid_over(below: Vec<Extent>, list: &[Extent], blocks: u64) -> Vec<Extent> {
    let mut all = ExtentMap::load(below, blocks);
    for extent in list {
        match extent.content {
            Held::Hole => all.cut(extent.first_block, extent.end()),
            Held::Lost | Held::Stored(_) => all.put(*extent),
        }
    }
    all.list(0, blocks)
}

/// Changes as bodies of operations; without any, the length may have changed.
fn parts_of(list: &[Extent]) -> Vec<Body> {
    let part = |list: &[Extent]| Body::Extents {
        full: false,
        list: list.to_vec(),
    };
    match list.is_empty() {
        true => vec![part(list)],
        false => list.chunks(OP_EXTENTS_MAX).map(part).collect(),
    }
}

/// Stores one block of the file and tells where it went.
pub(crate) trait Sealer {
    /// Seals `plain` as block `block`.
    fn seal(&mut self, block: u64, plain: &[u8]) -> Result<Stored, FsError>;
}

/// A block in memory. What is shorter than a block reads as zeros from its end on.
#[derive(Debug)]
struct Resident {
    data: Vec<u8>,
    dirty: bool,
    /// What the journal does not have of a dirty block.
    unnoted: Option<Range<usize>>,
    /// Whether the journal has the whole block, up to that.
    noted: bool,
}

impl Resident {
    /// A block as it is stored.
    fn clean(data: Vec<u8>) -> Self {
        Self {
            data,
            dirty: false,
            unnoted: None,
            noted: false,
        }
    }
}

/// A block that must be brought to memory first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Missing {
    /// Which block of the file.
    pub(crate) block: u64,
    /// Where it is stored.
    pub(crate) at: Stored,
}

/// Where bytes of a read come from.
#[derive(Debug)]
pub(crate) enum Piece {
    /// They are in memory.
    Bytes(Vec<u8>),
    /// So many zeros.
    Zeros(usize),
    /// From `from`, `len` bytes of a stored block.
    Stored { at: Stored, from: usize, len: usize },
}

impl Piece {
    /// Bytes of the read that it stands for.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeros(len) | Self::Stored { len, .. } => *len,
        }
    }
}

/// Contents of an open file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    size: u64,
    extents: ExtentMap,
    resident: BTreeMap<u64, Resident>,
    /// Blocks whose extents the tree does not know.
    changed: Ranges,
    /// Whether the tree's contents or length differ.
    modified: bool,
    /// Whether they differ in more than bytes of blocks in memory, and length added.
    restructured: bool,
    /// Where a sequential writer would go on.
    next_offset: u64,
    /// Whether blocks stay in memory until the tree is told: perhaps it never will be.
    kept: bool,
}

impl Content {
    /// The contents of a tiny file.
    pub(crate) fn inline(size: u64, bytes: Vec<u8>) -> Self {
        let mut content = Self {
            size,
            ..Self::default()
        };
        if !bytes.is_empty() {
            content.resident.insert(0, Resident::clean(bytes));
        }
        content
    }

    /// The contents of a file that is stored in blocks.
    pub(crate) fn stored(size: u64, extents: Vec<Extent>) -> Self {
        Self {
            size,
            extents: ExtentMap::load(extents, blocks(size)),
            ..Self::default()
        }
    }

    /// Length in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of it that are stored or in memory: its length without the holes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let only_here = |block: &&u64| self.extents.get(**block).is_none();
        let in_memory = self.resident.keys().filter(only_here).count() as u64;
        let held = self.extents.held().saturating_add(in_memory);
        let whole = held.saturating_mul(BLOCK);
        // The last block may end behind the file.
        let last = self.size.saturating_sub(1) / BLOCK;
        let end = blocks(self.size).saturating_mul(BLOCK);
        let behind = end.saturating_sub(self.size);
        match self.resident.contains_key(&last) || self.extents.get(last).is_some() {
            true => whole.saturating_sub(behind),
            false => whole,
        }
    }

    /// Whether the tree has to be told.
    pub(crate) fn is_modified(&self) -> bool {
        self.modified
    }

    /// Lets blocks stay in memory until the tree is told, if there is room.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// They do no longer.
    pub(crate) fn keep_no_more(&mut self) {
        self.kept = false;
    }

    /// Whether they do.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept
    }

    /// The tree has to be told even if nothing is different: a truncation to the same length changes the times.
    pub(crate) fn touch(&mut self) {
        self.modified = true;
    }

    /// Bytes held in memory that are stored nowhere else.
    pub(crate) fn dirty_bytes(&self) -> usize {
        let dirty = self.resident.values().filter(|r| r.dirty);
        dirty.map(|r| r.data.len()).sum()
    }

    /// The pieces of `offset..offset+len`, cut at the end of the file.
    ///
    /// # Errors
    /// `Lost` where nobody holds a block any more.
    pub(crate) fn read(&self, ino: u64, offset: u64, len: usize) -> Result<Vec<Piece>, FsError> {
        let end = offset.saturating_add(len as u64).min(self.size);
        let mut pieces = Vec::new();
        let mut at = offset;
        while at < end {
            let (block, from) = (at / BLOCK, (at % BLOCK) as usize);
            let len = ((end - at) as usize).min(BLOCK_LEN - from);
            self.read_block(ino, block, from, len, &mut pieces)?;
            at += len as u64;
        }
        Ok(pieces)
    }

    fn read_block(
        &self,
        ino: u64,
        block: u64,
        from: usize,
        len: usize,
        out: &mut Vec<Piece>,
    ) -> Result<(), FsError> {
        if let Some(resident) = self.resident.get(&block) {
            let end = (from + len).min(resident.data.len());
            let bytes = resident.data.get(from..end).unwrap_or_default();
            if !bytes.is_empty() {
                out.push(Piece::Bytes(bytes.to_vec()));
            }
            if bytes.len() < len {
                out.push(Piece::Zeros(len - bytes.len()));
            }
            return Ok(());
        }
        match self.extents.get(block).map(|e| e.content) {
            None | Some(Held::Hole) => out.push(Piece::Zeros(len)),
            Some(Held::Lost) => return Err(FsError::Lost { ino, block }),
            Some(Held::Stored(at)) => out.push(Piece::Stored { at, from, len }),
        }
        Ok(())
    }

    /// What is stored of it.
    pub(crate) fn named_extents(&self) -> Vec<Extent> {
        let mut list = self.extents.list(0, blocks(self.size));
        list.retain(|extent| matches!(extent.content, Held::Stored(_)));
        list
    }

    /// The block behind the extent that holds `block`.
    pub(crate) fn extent_end(&self, block: u64) -> u64 {
        self.extents.end_of(block)
    }

    /// The next stored blocks behind `block`, for read-ahead.
    pub(crate) fn stored_from(&self, block: u64, count: u64) -> Vec<Stored> {
        let until = block.saturating_add(count).min(blocks(self.size));
        let list = self.extents.list(block, until.max(block));
        list.iter()
            .flat_map(|e| (e.first_block..e.end()).filter_map(|b| e.clip(b, b + 1)))
            .filter_map(|e| match e.content {
                Held::Stored(at) => Some(at),
                Held::Hole | Held::Lost => None,
            })
            .collect()
    }

    /// The block that must be admitted before `offset..offset+len` can be written, if any.
    ///
    /// # Errors
    /// `Lost` where a part of a lost block would be overwritten.
    pub(crate) fn missing_for_write(
        &self,
        ino: u64,
        offset: u64,
        len: usize,
    ) -> Result<Option<Missing>, FsError> {
        if len == 0 {
            return Ok(None);
        }
        let end = offset + len as u64;
        let first = (!offset.is_multiple_of(BLOCK)).then_some(offset / BLOCK);
        // The last block need not be read if everything up to the end of the file is overwritten.
        let last = (!end.is_multiple_of(BLOCK) && end < self.size).then_some(end / BLOCK);
        for block in [first, last].into_iter().flatten() {
            if let Some(missing) = self.missing(ino, block)? {
                return Ok(Some(missing));
            }
        }
        Ok(None)
    }

    /// The block that must be admitted before the file can be cut at `size`, if any.
    pub(crate) fn missing_for_cut(&self, size: u64) -> Option<Missing> {
        if size >= self.size || size.is_multiple_of(BLOCK) {
            return None;
        }
        // A lost block stays lost; cutting it needs nothing.
        self.missing(0, size / BLOCK).ok().flatten()
    }

    fn missing(&self, ino: u64, block: u64) -> Result<Option<Missing>, FsError> {
        if self.resident.contains_key(&block) {
            return Ok(None);
        }
        match self.extents.get(block).map(|e| e.content) {
            Some(Held::Stored(at)) => Ok(Some(Missing { block, at })),
            Some(Held::Lost) => Err(FsError::Lost { ino, block }),
            None | Some(Held::Hole) => Ok(None),
        }
    }

    /// Takes a block that was read, unless it changed meanwhile.
    pub(crate) fn admit(&mut self, missing: Missing, plain: &[u8]) {
        let still = self.extents.get(missing.block).map(|e| e.content);
        if still != Some(Held::Stored(missing.at)) || self.resident.contains_key(&missing.block) {
            return;
        }
        // Bytes behind the end of the file must never come back when it grows.
        let room = self.size.saturating_sub(missing.block * BLOCK);
        let room = usize::try_from(room).unwrap_or(BLOCK_LEN).min(plain.len());
        let data = plain.get(..room).unwrap_or_default().to_vec();
        self.resident.insert(missing.block, Resident::clean(data));
    }

    /// Writes bytes whose edges are in memory. Whole blocks are stored at once.
    ///
    /// # Errors
    /// Those of the sealer; what was written before stays written.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        sealer: &mut dyn Sealer,
    ) -> Result<(), FsError> {
        let sequential = offset == self.next_offset;
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (block, from) = (at / BLOCK, (at % BLOCK) as usize);
            let (part, after) = rest.split_at(rest.len().min(BLOCK_LEN - from));
            if part.len() == BLOCK_LEN && !self.kept {
                self.store(block, sealer.seal(block, part)?);
            } else {
                self.patch(block, from, part);
                // Before anything fails: no block holds more than the file.
                self.modified = true;
                self.grow(at + part.len() as u64);
                if sequential && from + part.len() == BLOCK_LEN && !self.kept {
                    self.seal_resident(block, sealer)?;
                }
            }
            self.modified = true;
            at += part.len() as u64;
            self.grow(at);
            rest = after;
        }
        self.next_offset = at;
        Ok(())
    }

    /// Notes where a block is stored now.
    fn store(&mut self, block: u64, at: Stored) {
        self.resident.remove(&block);
        self.extents.put(Extent {
            first_block: block,
            count: 1,
            content: Held::Stored(at),
        });
        self.changed.add(block, block + 1);
        self.modified = true;
        self.restructured = true;
    }

    fn patch(&mut self, block: u64, from: usize, part: &[u8]) {
        let fresh = || Resident::clean(Vec::new());
        let resident = self.resident.entry(block).or_insert_with(fresh);
        let data = &mut resident.data;
        let end = from + part.len();
        if data.capacity() < end && end > BLOCK_LEN / 8 {
            data.reserve_exact(BLOCK_LEN - data.len());
        }
        if data.len() < from {
            data.resize(from, 0);
        }
        let overlap = part.len().min(data.len() - from);
        let (over, beyond) = part.split_at(overlap);
        if let Some(place) = data.get_mut(from..from + overlap) {
            place.copy_from_slice(over);
        }
        data.extend_from_slice(beyond);
        resident.dirty = true;
        resident.unnoted = Some(match resident.unnoted.take() {
            Some(old) => old.start.min(from)..old.end.max(end),
            None => from..end,
        });
    }

    fn grow(&mut self, end: u64) {
        if end > self.size {
            self.changed.add(blocks(self.size), blocks(end));
            self.size = end;
            self.modified = true;
        }
    }

    fn seal_resident(&mut self, block: u64, sealer: &mut dyn Sealer) -> Result<(), FsError> {
        if let Some(resident) = self.resident.get(&block) {
            let at = sealer.seal(block, &resident.data)?;
            self.store(block, at);
        }
        Ok(())
    }

    /// Stores every block that is only in memory, to make room there.
    ///
    /// # Errors
    /// Those of the sealer; the blocks that were not stored stay in memory.
    pub(crate) fn seal_dirty(&mut self, sealer: &mut dyn Sealer) -> Result<(), FsError> {
        if self.size <= INLINE_MAX as u64 {
            return Ok(());
        }
        let dirty: Vec<u64> = self
            .resident
            .iter()
            .filter(|(_, r)| r.dirty)
            .map(|(b, _)| *b)
            .collect();
        dirty
            .into_iter()
            .try_for_each(|b| self.seal_resident(b, sealer))
    }

    /// Changes the length. A block that is cut must be in memory, unless it is a hole or lost.
    pub(crate) fn resize(&mut self, size: u64) {
        if size >= self.size {
            self.grow(size);
            return;
        }
        let kept = blocks(size);
        self.resident.split_off(&kept);
        self.extents.cut(kept, u64::MAX);
        self.changed.truncate(kept);
        let inside = (size % BLOCK) as usize;
        if inside > 0 {
            self.cut_block(kept - 1, inside);
        }
        self.size = size;
        self.next_offset = self.next_offset.min(size);
        self.modified = true;
        self.restructured = true;
    }

    fn cut_block(&mut self, block: u64, len: usize) {
        if let Some(resident) = self.resident.get_mut(&block)
            && resident.data.len() > len
        {
            resident.data.truncate(len);
            resident.dirty = true;
        }
    }

    /// The blocks that must be admitted before `offset..offset+len` can be made to read as zeros.
    pub(crate) fn missing_for_zero(
        &self,
        ino: u64,
        offset: u64,
        len: u64,
    ) -> Result<Option<Missing>, FsError> {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return Ok(None);
        }
        let first = (!offset.is_multiple_of(BLOCK)).then_some(offset / BLOCK);
        let last = (!end.is_multiple_of(BLOCK) && end < self.size).then_some(end / BLOCK);
        for block in [first, last].into_iter().flatten() {
            if let Some(missing) = self.missing(ino, block)? {
                return Ok(Some(missing));
            }
        }
        Ok(None)
    }

    /// Makes `offset..offset+len`, as far as the file goes, read as zeros; whole blocks become holes.
    pub(crate) fn zero(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return;
        }
        let whole_end = if end == self.size {
            blocks(end)
        } else {
            end / BLOCK
        };
        let whole_first = offset.div_ceil(BLOCK);
        if whole_first < whole_end {
            let behind = self.resident.split_off(&whole_end);
            self.resident.split_off(&whole_first);
            self.resident.extend(behind);
            self.extents.cut(whole_first, whole_end);
            self.changed.add(whole_first, whole_end);
        }
        for block in [offset / BLOCK, (end - 1) / BLOCK] {
            self.zero_inside(block, offset, end);
        }
        self.modified = true;
        self.restructured = true;
    }

    fn zero_inside(&mut self, block: u64, offset: u64, end: u64) {
        let start = block * BLOCK;
        let from = offset.saturating_sub(start).min(BLOCK) as usize;
        let to = end.saturating_sub(start).min(BLOCK) as usize;
        if let Some(resident) = self.resident.get_mut(&block) {
            let to = to.min(resident.data.len());
            if let Some(place) = resident.data.get_mut(from..to) {
                place.fill(0);
                resident.dirty = true;
            }
        }
    }

    /// Puts `extents`, whose first block is `extents`' first, at block `at` of this file: shared, not copied.
    pub(crate) fn share(&mut self, at: u64, list: &[Extent], end: u64) {
        for extent in list {
            let Some(first) = list.first().map(|e| e.first_block) else {
                return;
            };
            let moved = Extent {
                first_block: at + (extent.first_block - first),
                ..*extent
            };
            let behind = self.resident.split_off(&moved.end());
            self.resident.split_off(&moved.first_block);
            self.resident.extend(behind);
            match moved.content {
                Held::Hole => self.extents.cut(moved.first_block, moved.end()),
                Held::Lost | Held::Stored(_) => self.extents.put(moved),
            }
            self.changed.add(moved.first_block, moved.end());
        }
        self.grow(end);
        self.modified = true;
        self.restructured = true;
    }

    /// The extents of blocks `from..to`, if none of them is only in memory, or lost: who copies must be told.
    pub(crate) fn shareable(&self, from: u64, to: u64) -> Option<Vec<Extent>> {
        let in_memory = self.resident.range(from..to).next().is_some();
        let extents = (!in_memory).then(|| self.extents.list(from, to))?;
        let is_lost = |extent: &Extent| matches!(extent.content, Held::Lost);
        (!extents.iter().any(is_lost)).then_some(extents)
    }

    /// The first byte at or behind `offset` that is data, or is a hole.
    pub(crate) fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let mut block = offset / BLOCK;
        let held = |b: u64| self.resident.contains_key(&b) || self.extents.get(b).is_some();
        if data {
            let stored = self.extents.next_held(block);
            let resident = self.resident.range(block..).next().map(|(b, _)| *b);
            let next = [stored, resident].into_iter().flatten().min()?;
            return (next < blocks(self.size)).then(|| offset.max(next * BLOCK));
        }
        while held(block) {
            block = self.extents.next_hole(block).max(block + 1);
        }
        Some((block * BLOCK).clamp(offset, self.size))
    }

    /// Stores what must be stored and tells what the tree has to know: nothing if it knows all; several bodies for very many extents.
    ///
    /// # Errors
    /// Those of the sealer; nothing is lost and it may be tried again.
    pub(crate) fn prepare(
        &mut self,
        sealer: &mut dyn Sealer,
        known: Known,
    ) -> Result<Vec<Body>, FsError> {
        if !self.modified {
            return Ok(Vec::new());
        }
        if let Some(bytes) = self.as_inline() {
            return Ok(vec![Body::Inline(bytes)]);
        }
        // A block of an inline file is not dirty, and stored nowhere yet.
        if self.extents.get(0).is_none() {
            self.seal_resident(0, sealer)?;
        }
        self.seal_dirty(sealer)?;
        let end = blocks(self.size);
        let whole = |list| Body::Extents { full: true, list };
        if self.extents.len() <= RUNS_TOLD_MAX {
            return Ok(vec![whole(self.extents.list(0, end))]);
        }
        let below = match known {
            Known::All => return Ok(parts_of(&self.changed_extents(end))),
            Known::Few(below) => below,
        };
        let list = self.extents.list(0, end);
        if list.len() <= OP_EXTENTS_MAX {
            return Ok(vec![whole(list)]);
        }
        let list = match below.is_empty() {
            true => list,
            false => self.changed_extents(end),
        };
        let (first, rest) = list.split_at(list.len().min(OP_EXTENTS_MAX));
        let mut bodies = vec![whole(laid_over(below, first, end))];
        bodies.extend(parts_of(rest).into_iter().filter(|_| !rest.is_empty()));
        Ok(bodies)
    }

    /// The extents of what changed.
    fn changed_extents(&self, end: u64) -> Vec<Extent> {
        let changed = self.changed.iter();
        changed
            .flat_map(|(from, to)| self.extents.list(from, to.min(end)))
            .collect()
    }

    /// The whole contents if the file is to live in the metadata.
    fn as_inline(&self) -> Option<Vec<u8>> {
        let size = usize::try_from(self.size)
            .ok()
            .filter(|n| *n <= INLINE_MAX)?;
        let stored_only = !self.resident.contains_key(&0) && !self.extents.is_empty();
        if stored_only {
            return None;
        }
        let block = self.resident.get(&0).map(|r| r.data.as_slice());
        let mut bytes = block.unwrap_or_default().to_vec();
        bytes.resize(size, 0);
        Some(bytes)
    }

    /// The tree knows everything now.
    pub(crate) fn committed(&mut self) {
        (self.modified, self.kept) = (false, false);
        self.restructured = false;
        self.changed.clear();
        for resident in self.resident.values_mut() {
            (resident.noted, resident.unnoted) = (false, None);
        }
        if self.size <= INLINE_MAX as u64 && self.resident.contains_key(&0) {
            self.extents.cut(0, u64::MAX);
            self.resident.values_mut().for_each(|r| r.dirty = false);
            return;
        }
        if !self.extents.is_empty() || self.size > INLINE_MAX as u64 {
            self.resident.retain(|_, r| r.dirty);
        }
    }
}

#[cfg(test)]
mod tests;
