//! Blocks that lie in another segment than the one for which they were sealed (docs/format/segments.md, section 7). Whatever is read there is
//! believed by the table of the first segment, which lies there, too; its hash has been declared by its author.

use super::Inner;
use super::fetch::{Answer, Fetch};
use super::flight::Lead;
use super::keep::is_whole;
use super::read::{Got, Want};
use crate::block::BlockRef;
use crate::error::{DataError, Flaw};
use crate::journal::Room;
use crate::segment::{self, Entry, Table};
use bytes::Bytes;
use skrin_base::limits::BLOCK_LEN;
use skrin_base::{CopiedRun, Copies, SegmentId, SegmentInfo};
use skrin_crypto::{SEAL_OVERHEAD, TableKey, hash, mask_copy};
use skrin_storage::disk::blocking;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Copies of a table that are tried before the segment itself is: a member may have named thousands of places where it is not.
const TABLES_TRIED_FIRST: usize = 3;
/// And at most in all.
const TABLES_TRIED: usize = 32;

/// Blocks of a segment that were copied to another one, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// For which they were sealed.
    pub segment: SegmentId,
    /// Where they are, ascending; all in one host, at one table.
    pub runs: Vec<CopiedRun>,
}

impl Relocation {
    /// Adds a block behind the others.
    fn push(&mut self, run: CopiedRun) {
        match self.runs.last_mut() {
            Some(last)
                if last.end() == run.first_slot && last.host_slot + last.count == run.host_slot =>
            {
                last.count += run.count;
            }
            _ => self.runs.push(run),
        }
    }
}

/// A copied block that was found.
type Found = (u32, Bytes);

impl Inner {
    /// What is known of other places of a segment's blocks.
    pub(super) async fn copies_of(self: &Arc<Self>, id: SegmentId) -> Option<Copies> {
        let inner = Arc::clone(self);
        let found = blocking(&self.parts.runtime, move || (inner.parts.copies)(id));
        found.await.ok().flatten()
    }

    fn unmask(&self, host: &SegmentInfo, slot: u32, bytes: &mut [u8]) {
        let key = TableKey::from_bytes(host.table_key);
        let (vault, room) = (self.config.vault, self.config.room);
        mask_copy(&key, vault, room, host.id, slot, bytes);
    }

    /// The sealed table of a segment: where a copy of it lies, or at its end.
    pub(super) async fn sealed_table(
        self: &Arc<Self>,
        info: &SegmentInfo,
        copies: Option<&Copies>,
    ) -> Result<Answer, DataError> {
        let mut all = copies.map(first_of_each_host).unwrap_or_default();
        all.truncate(TABLES_TRIED);
        let after = all.split_off(all.len().min(TABLES_TRIED_FIRST));
        let failed = match self.any_copied_table(info, copies, &all).await {
            Ok(table) => return Ok(table),
            Err(failed) => failed,
        };
        let itself = self.get_range(info.id, info.table_offset..info.object_len);
        match (itself.await, failed) {
            (Err(DataError::Missing(_)), Some(error)) => {
                let found = self.any_copied_table(info, copies, &after).await;
                // What should be there says more than what need not be.
                found.map_err(|last| last.unwrap_or(error))
            }
            (itself, _) => itself,
        }
    }

    /// The first copy of a table that is one; else what is wrong with the last of them, if there are any.
    async fn any_copied_table(
        self: &Arc<Self>,
        info: &SegmentInfo,
        copies: Option<&Copies>,
        runs: &[CopiedRun],
    ) -> Result<Answer, Option<DataError>> {
        let mut failed = None;
        for run in runs {
            match self.copied_table(info, copies, run).await {
                Ok(table) => return Ok(table),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed)
    }

    async fn copied_table(
        self: &Arc<Self>,
        info: &SegmentInfo,
        copies: Option<&Copies>,
        run: &CopiedRun,
    ) -> Result<Answer, DataError> {
        let host = copies.and_then(|copies| copies.hosts.get(&run.host));
        let host = host.ok_or(DataError::Missing(run.host))?;
        let slot = run.table_slot;
        let parts = self.host_slots(host, slot..slot + 1).await?;
        let (_, sealed) = parts.into_iter().next().unwrap_or_default();
        match hash(&sealed) == info.table_hash {
            true => Ok(Answer::of(sealed)),
            false => Err(DataError::flawed(host.id, Some(slot), Flaw::Hash)),
        }
    }

    /// The table of a host.
    async fn host_table(self: &Arc<Self>, host: &SegmentInfo) -> Result<Arc<Table>, DataError> {
        if let Some(table) = self.tables.get(&host.id) {
            return Ok(table);
        }
        let range = host.table_offset..host.object_len;
        let sealed = self.get_range(host.id, range).await?;
        self.open_table(host, &sealed)
    }

    /// Consecutive slots of a host, without their masks.
    async fn host_slots(
        self: &Arc<Self>,
        host: &Arc<SegmentInfo>,
        slots: Range<u32>,
    ) -> Result<Vec<Found>, DataError> {
        let table = self.host_table(host).await?;
        let lacks = || DataError::flawed(host.id, Some(slots.start), Flaw::NoSlot);
        let range = table.range(slots.clone()).ok_or_else(lacks)?;
        let bytes = self.get_range(host.id, range).await?;
        let (inner, host, slots) = (Arc::clone(self), Arc::clone(host), slots.clone());
        let unmasked = blocking(&self.parts.runtime, move || {
            let mut rest: &[u8] = &bytes;
            let part = |slot: u32| {
                let len = table.entry(slot).map_or(0, |e| e.sealed_len as usize);
                let (own, after) = rest.split_at_checked(len)?;
                rest = after;
                let mut own = own.to_vec();
                inner.unmask(&host, slot, &mut own);
                Some((slot, own.into()))
            };
            slots.map_while(part).collect::<Vec<Found>>()
        });
        unmasked.await.map_err(|_| DataError::Stopped)
    }

    /// Blocks of a segment at their other places, with their slots in the segment. Neighbours there come by one request, also across gaps.
    async fn copied_blocks(
        self: &Arc<Self>,
        copies: &Copies,
        slots: impl Iterator<Item = u32>,
    ) -> Result<Vec<Found>, DataError> {
        let mut wanted: BTreeMap<SegmentId, BTreeMap<u32, u32>> = BTreeMap::new();
        for run in slots.filter_map(|slot| copies.find(slot)) {
            let host = wanted.entry(run.host).or_default();
            host.insert(run.host_slot, run.first_slot);
        }
        let mut found = Vec::new();
        for (id, wanted) in wanted {
            let host = copies.hosts.get(&id).ok_or(DataError::Missing(id))?;
            let table = self.host_table(host).await?;
            for range in joined(&table, wanted.keys().copied(), self.config.gap) {
                let blocks = self.host_slots(host, range).await?;
                let named = blocks.into_iter();
                found.extend(named.filter_map(|(at, bytes)| Some((*wanted.get(&at)?, bytes))));
            }
        }
        Ok(found)
    }

    /// Answers wants from where the blocks lie besides. What is not there as it must be is looked for in the segment itself.
    pub(super) async fn get_copied(
        self: &Arc<Self>,
        fetch: &mut Fetch,
        table: &Arc<Table>,
        leads: Vec<Lead>,
    ) {
        let Some(copies) = fetch.copies.take() else {
            return;
        };
        let slots = leads.iter().flat_map(|lead| lead.slots.clone());
        let blocks = match self.copied_blocks(&copies, slots).await {
            Ok(blocks) => blocks,
            Err(error) => {
                tracing::debug!(%error, segment = %fetch.info.id, "relocated blocks cannot be read");
                fetch.failed = Some(error);
                return;
            }
        };
        let (inner, of) = (Arc::clone(self), Arc::clone(table));
        let wants = std::mem::take(&mut fetch.wants);
        let opened = blocking(&self.parts.runtime, move || {
            inner.open_copied(&of, &blocks, wants)
        });
        let (got, rest, wrong) = opened.await.unwrap_or_default();
        fetch.got.extend(got);
        fetch.wants = rest;
        match wrong.and_then(|slot| copies.find(slot)) {
            Some(run) => {
                let flaw = Flaw::Hash;
                fetch.failed = Some(DataError::flawed(run.host, Some(run.host_slot), flaw));
            }
            None => fetch.copies = Some(copies),
        }
    }

    /// Answers the wants of blocks that are those that were sealed; what is left, and a slot whose block is not.
    fn open_copied(
        &self,
        table: &Table,
        blocks: &[Found],
        wants: Vec<Want>,
    ) -> (Vec<Got>, Vec<Want>, Option<u32>) {
        let segment = table.place().segment;
        let (mut good, mut wrong) = (BTreeMap::new(), None);
        for (slot, bytes) in blocks {
            if is_whole(table, *slot..*slot + 1, bytes) {
                if let Some(disk) = &self.disk {
                    disk.put(segment, *slot..*slot + 1, bytes);
                }
                good.insert(*slot, bytes);
            } else {
                tracing::error!(%segment, slot, "a relocated block is not the one that was sealed");
                wrong = Some(*slot);
            }
        }
        let (mut got, mut rest) = (Vec::new(), Vec::new());
        for (i, read) in wants {
            let slot = read.at.slot;
            match good.get(&slot).zip(table.entry(slot)) {
                Some((bytes, entry)) => {
                    let author = table.place().author;
                    got.push((i, self.open_block(author, entry, &read, bytes)));
                }
                None => rest.push((i, read)),
            }
        }
        (got, rest, wrong)
    }

    /// The sealed bytes of consecutive slots, from where they lie.
    pub(super) async fn slot_bytes(
        self: &Arc<Self>,
        table: &Arc<Table>,
        slots: Range<u32>,
        copies: Option<&Copies>,
    ) -> Result<Answer, DataError> {
        let id = table.place().segment;
        let all = |copies: &&Copies| slots.clone().all(|slot| copies.find(slot).is_some());
        if let Some(copies) = copies.filter(all) {
            match self.copied_blocks(copies, slots.clone()).await {
                Ok(mut blocks) => {
                    blocks.sort_unstable_by_key(|(slot, _)| *slot);
                    let bytes: Vec<u8> = blocks.iter().flat_map(|(_, b)| b.to_vec()).collect();
                    if is_whole(table, slots.clone(), &bytes) {
                        return Ok(Answer::of(bytes.into()));
                    }
                }
                Err(error) => tracing::debug!(%error, "relocated blocks cannot be read"),
            }
        }
        let lacks = || DataError::flawed(id, Some(slots.start), Flaw::NoSlot);
        let range = table.range(slots.clone()).ok_or_else(lacks)?;
        self.get_range(id, range).await
    }

    pub(super) async fn check_copies(
        self: Arc<Self>,
        info: Arc<SegmentInfo>,
        copies: Copies,
    ) -> Result<u64, DataError> {
        // What a cache has does not show that it is there.
        copies
            .hosts
            .keys()
            .for_each(|host| self.tables.invalidate(host));
        for run in first_of_each_host(&copies) {
            let sealed = self.copied_table(&info, Some(&copies), &run).await?;
            let table = self.open_table(&info, &sealed)?;
            let is_here =
                |other: &&CopiedRun| (other.host, other.table_slot) == (run.host, run.table_slot);
            let here = copies.runs.iter().filter(is_here);
            let slots: Vec<u32> = here.flat_map(|r| r.first_slot..r.end()).collect();
            let found = self.copied_blocks(&copies, slots.iter().copied()).await?;
            let good = |(slot, bytes): &Found| is_whole(&table, *slot..*slot + 1, bytes);
            if found.len() != slots.len() || !found.iter().all(good) {
                let flaw = Flaw::Hash;
                return Err(DataError::flawed(run.host, Some(run.host_slot), flaw));
            }
        }
        Ok(copies.runs.iter().map(|run| u64::from(run.count)).sum())
    }

    pub(super) async fn copy_blocks(
        self: Arc<Self>,
        object: Arc<SegmentInfo>,
        needed: Vec<(Arc<SegmentInfo>, Vec<CopiedRun>)>,
    ) -> Result<Vec<Relocation>, DataError> {
        // These first, as each gives its place back: the object holds its own until all is copied, and with little memory that is all there is
        // for what nobody waits for.
        let mut tables = Vec::with_capacity(needed.len());
        for (info, runs) in needed {
            let other = match info.id == object.id {
                true => None,
                false => {
                    let copies = self.copies_of(info.id).await;
                    let sealed = self.sealed_table(&info, copies.as_ref()).await?.bytes();
                    Some((self.open_table(&info, &sealed)?, sealed))
                }
            };
            tables.push((other, runs));
        }
        let bytes = self.get_object(&object).await?;
        let inner = Arc::clone(&self);
        let copied = blocking(&self.parts.runtime, move || {
            let own_sealed = segment::table_part(&object, &bytes)
                .map_err(|f| DataError::flawed(object.id, None, f))?;
            let own = inner.open_table(&object, own_sealed)?;
            let mut all = Vec::new();
            for (other, runs) in tables {
                let its_own = || (Arc::clone(&own), bytes.slice_ref(own_sealed));
                let (table, sealed) = other.unwrap_or_else(its_own);
                let from = Source {
                    object: &object,
                    own: &own,
                    bytes: &bytes,
                    table: &table,
                };
                inner.copy_of(&from, &sealed, &runs, &mut all)?;
            }
            Ok(all)
        });
        copied.await.map_err(|_| DataError::Stopped)?
    }

    /// Copies blocks of one segment.
    fn copy_of(
        self: &Arc<Self>,
        from: &Source<'_>,
        sealed_table: &[u8],
        runs: &[CopiedRun],
        all: &mut Vec<Relocation>,
    ) -> Result<(), DataError> {
        let id = from.table.place().segment;
        if sealed_table.len() > BLOCK_LEN + SEAL_OVERHEAD {
            return Err(DataError::Invalid("a table that is too long to be copied"));
        }
        let whole = Entry {
            sealed_len: sealed_table.len() as u32,
            plain_len: sealed_table.len().saturating_sub(SEAL_OVERHEAD) as u32,
            flags: 0,
            hash: hash(sealed_table),
        };
        // Where the table was put last, and what of the segment is there.
        let mut there: Option<(BlockRef, Relocation)> = None;
        for (slot, at) in runs.iter().flat_map(slots_of) {
            let (entry, bytes) = self.checked_block(from, slot, at)?;
            let (table, placed) = loop {
                let placed = match &there {
                    Some((table, _)) => {
                        let placed = self.put_copy(&entry, &bytes)?;
                        (placed.segment == table.segment).then_some((*table, placed))
                    }
                    None => None,
                };
                match placed {
                    Some(placed) => break placed,
                    // The first one, or the segment was ended before the block.
                    None => {
                        let table = self.put_copy(&whole, sealed_table)?;
                        let next = Relocation {
                            segment: id,
                            runs: Vec::new(),
                        };
                        let done = there.replace((table, next));
                        all.extend(done.map(|(_, relocation)| relocation));
                    }
                }
            };
            let run = CopiedRun {
                first_slot: slot,
                count: 1,
                host: placed.segment,
                host_slot: placed.slot,
                table_slot: table.slot,
            };
            if let Some((_, relocation)) = &mut there {
                relocation.push(run);
            }
        }
        all.extend(there.map(|(_, relocation)| relocation));
        all.retain(|relocation| !relocation.runs.is_empty());
        Ok(())
    }

    /// A block as it was sealed, and as the table of its segment knows it.
    fn checked_block(
        &self,
        from: &Source<'_>,
        slot: u32,
        at: u32,
    ) -> Result<(Entry, Vec<u8>), DataError> {
        let flawed = |flaw| DataError::flawed(from.object.id, Some(at), flaw);
        let range = from.own.entry(at).and(from.own.range(at..at + 1));
        let range = range.ok_or_else(|| flawed(Flaw::NoSlot))?;
        let bytes = from.bytes.get(range.start as usize..range.end as usize);
        let mut bytes = bytes.ok_or_else(|| flawed(Flaw::Length))?.to_vec();
        if from.object.id != from.table.place().segment {
            self.unmask(from.object, at, &mut bytes);
        }
        let entry = from.table.entry(slot);
        let entry = entry.ok_or_else(|| flawed(Flaw::NoSlot))?;
        match hash(&bytes) == entry.hash {
            true => Ok((*entry, bytes)),
            false => Err(flawed(Flaw::Hash)),
        }
    }

    /// Appends bytes that are sealed for another place to the segment that is being filled.
    pub(super) fn put_copy(
        self: &Arc<Self>,
        entry: &Entry,
        sealed: &[u8],
    ) -> Result<BlockRef, DataError> {
        // Not behind those who write: it is published soon, and gives room.
        self.parts.journal.admit(sealed.len(), Room::Owed)?;
        let (segment, slot) = self.reserve_slot(sealed.len())?;
        let mut bytes = sealed.to_vec();
        let (vault, room) = (self.config.vault, self.config.room);
        let host = segment.place.segment;
        mask_copy(&segment.table_key, vault, room, host, slot, &mut bytes);
        let entry = Entry {
            hash: hash(&bytes),
            ..*entry
        };
        self.place(&segment, slot, entry, bytes.into())?;
        Ok(BlockRef {
            segment: host,
            slot,
        })
    }
}

/// Where blocks are copied from.
struct Source<'a> {
    object: &'a SegmentInfo,
    /// The object's own table.
    own: &'a Table,
    bytes: &'a [u8],
    /// That of the segment for which the blocks were sealed.
    table: &'a Table,
}

/// Each slot of a run, with the one where it lies.
fn slots_of(run: &CopiedRun) -> impl Iterator<Item = (u32, u32)> {
    (run.first_slot..run.end()).zip(run.host_slot..)
}

/// One run for each copy of the table, those first with which most blocks lie.
fn first_of_each_host(copies: &Copies) -> Vec<CopiedRun> {
    let mut tables: BTreeMap<_, (u64, CopiedRun)> = BTreeMap::new();
    for run in &copies.runs {
        let (blocks, first) = tables
            .entry((run.host, run.table_slot))
            .or_insert((0, *run));
        *blocks += u64::from(run.count);
        *first = *run;
    }
    let mut tables: Vec<(u64, CopiedRun)> = tables.into_values().collect();
    tables.sort_by_key(|(blocks, _)| std::cmp::Reverse(*blocks));
    tables.into_iter().map(|(_, run)| run).collect()
}

/// Slots in order, joined where no more than `gap` bytes are between them.
fn joined(table: &Table, slots: impl Iterator<Item = u32>, gap: u64) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for slot in slots {
        let between = |last: &Range<u32>| {
            let range = table.range(last.end..slot);
            range.map_or(u64::MAX, |r| r.end - r.start)
        };
        match ranges.last_mut() {
            Some(last) if between(last) <= gap => last.end = slot.saturating_add(1),
            _ => ranges.push(slot..slot.saturating_add(1)),
        }
    }
    ranges
}
