//! Fetching parts of one segment from the disk cache and the storage.

use super::disk::DiskCache;
use super::flight::{Boarding, Lead, TABLE, WHOLE};
use super::read::{Got, Want, flaw};
use super::{Inner, permits};
use crate::block::BlockRef;
use crate::error::{DataError, Flaw};
use crate::segment::{self, HEADER_LEN, Table};
use bytes::Bytes;
use skrin_base::{Copies, SegmentId, SegmentInfo};
use skrin_storage::disk::blocking;
use skrin_storage::{Place, StoreError, Urgency};
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;

/// How often to look again in vain after waiting for somebody else's fetch, before fetching the same once more.
const PATIENCE: usize = 4;
/// Segments whose blocks are smaller than this on the average hold many files.
const SMALL_BLOCK: u64 = 16 * 1024;

/// What to ask the storage for.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing: what is wanted came meanwhile.
    Look,
    Whole,
    Table,
    /// The ranges of slots that were claimed.
    Slots,
    /// The same, from where they lie besides.
    Copied,
}

/// The reading of one segment.
pub(super) struct Fetch {
    pub(super) info: Arc<SegmentInfo>,
    /// Held here, as the cache of tables may be too small for it.
    table: Option<Arc<Table>>,
    pub(super) wants: Vec<Want>,
    pub(super) got: Vec<Got>,
    /// Where blocks lie besides, until that was found wrong.
    pub(super) copies: Option<Copies>,
    /// What was found wrong.
    pub(super) failed: Option<DataError>,
}

impl Fetch {
    /// Answers wants of slots that the table does not have.
    fn answer_unknown(&mut self, table: &Table) {
        let (wants, got) = (std::mem::take(&mut self.wants), &mut self.got);
        self.wants = drop_unknown(table, wants, got);
    }

    /// Answers everything that is left with an error.
    fn fail(mut self, error: &DataError) -> Vec<Got> {
        let wants = std::mem::take(&mut self.wants);
        self.got
            .extend(wants.into_iter().map(|(i, _)| (i, Err(error.clone()))));
        self.finish()
    }

    /// The answers. Where the segment is gone, what is wrong is what was wrong with the place to which its blocks were relocated.
    fn finish(mut self) -> Vec<Got> {
        if let Some(failed) = &self.failed {
            for (_, result) in &mut self.got {
                if matches!(result, Err(DataError::Missing(_))) {
                    *result = Err(failed.clone());
                }
            }
        }
        self.got
    }
}

impl Inner {
    /// Answers all wants, which are of one segment.
    pub(super) async fn fetch(self: Arc<Self>, wants: Vec<Want>) -> Vec<Got> {
        let Some(id) = wants.first().map(|(_, read)| read.at.segment) else {
            return Vec::new();
        };
        let known = wants.iter().find_map(|(_, read)| read.info.clone());
        let Some(info) = known.filter(|info| info.id == id) else {
            let missing = DataError::Missing(id);
            return wants
                .into_iter()
                .map(|(i, _)| (i, Err(missing.clone())))
                .collect();
        };
        let mut fetch = Fetch {
            info,
            table: None,
            got: Vec::with_capacity(wants.len()),
            wants,
            copies: None,
            failed: None,
        };
        let (mut in_vain, mut asked) = (0, false);
        loop {
            let before = fetch.wants.len();
            self.look_in_caches(&mut fetch).await;
            if fetch.wants.is_empty() {
                return fetch.finish();
            }
            if !std::mem::replace(&mut asked, true) {
                fetch.copies = self.copies_of(id).await;
            }
            in_vain = match fetch.wants.len() < before {
                true => 0,
                false => in_vain + 1,
            };
            if let Err(e) = self.attempt(&mut fetch, in_vain > PATIENCE).await {
                return fetch.fail(&e);
            }
        }
    }

    /// Takes what is, or came meanwhile, into memory or the disk cache.
    async fn look_in_caches(self: &Arc<Self>, fetch: &mut Fetch) {
        for (i, read) in std::mem::take(&mut fetch.wants) {
            match self.blocks.get(&read.at) {
                Some(block) => fetch.got.push((i, Ok(block))),
                None => fetch.wants.push((i, read)),
            }
        }
        if fetch.table.is_none() {
            fetch.table = self.tables.get(&fetch.info.id);
        }
        if fetch.wants.is_empty() || self.disk.is_none() {
            return;
        }
        let (inner, info) = (Arc::clone(self), Arc::clone(&fetch.info));
        let (table, wants) = (fetch.table.take(), std::mem::take(&mut fetch.wants));
        let looked = blocking(&self.parts.runtime, move || {
            inner.look_on_disk(&info, table, wants)
        });
        // Where the runtime ended, the wants stay answered as the caller prepared them: stopped.
        let (table, found, rest) = looked.await.unwrap_or_default();
        fetch.table = table;
        fetch.wants = rest;
        fetch.got.extend(found);
    }

    fn look_on_disk(
        &self,
        info: &SegmentInfo,
        table: Option<Arc<Table>>,
        wants: Vec<Want>,
    ) -> (Option<Arc<Table>>, Vec<Got>, Vec<Want>) {
        let Some(disk) = &self.disk else {
            return (table, Vec::new(), wants);
        };
        let Some(table) = table.or_else(|| self.table_on_disk(disk, info)) else {
            return (None, Vec::new(), wants);
        };
        let (mut found, mut rest) = (Vec::new(), Vec::new());
        for (i, read) in wants {
            let sealed = table
                .entry(read.at.slot)
                .zip(disk.block(&table, read.at.slot));
            match sealed {
                Some((entry, bytes)) => {
                    found.push((i, self.open_block(info.author, entry, &read, &bytes)))
                }
                None => rest.push((i, read)),
            }
        }
        (Some(table), found, rest)
    }

    pub(super) fn table_on_disk(&self, disk: &DiskCache, info: &SegmentInfo) -> Option<Arc<Table>> {
        let opened = self.open_table(info, &disk.table(info.id)?);
        if opened.is_err() {
            disk.bad_table(info.id);
        }
        opened.ok()
    }

    /// Checks a table and keeps it in memory.
    pub(super) fn open_table(
        &self,
        info: &SegmentInfo,
        sealed: &[u8],
    ) -> Result<Arc<Table>, DataError> {
        let table = Table::open(self.config.vault, self.config.room, info, sealed)
            .map_err(|flaw| DataError::flawed(info.id, None, flaw))?;
        let table = Arc::new(table);
        self.tables.insert(info.id, Arc::clone(&table));
        Ok(table)
    }

    /// One step: requests for what nobody fetches yet, or a wait for somebody else's.
    async fn attempt(
        self: &Arc<Self>,
        fetch: &mut Fetch,
        impatient: bool,
    ) -> Result<(), DataError> {
        let table = fetch.table.clone();
        if let Some(table) = &table {
            fetch.answer_unknown(table);
        }
        let plan = |flying: &[Range<u32>]| self.plan(fetch, impatient, flying);
        let (plan, leads) = match self.flights.board(fetch.info.id, plan) {
            Boarding::Lead(plan, leads) => (plan, leads),
            Boarding::Wait(mut landed) => {
                // Closed or changed, it is over.
                let _ = landed.changed().await;
                return Ok(());
            }
        };
        match (plan, table) {
            (Plan::Look, _) => Ok(()),
            (Plan::Slots, Some(table)) => {
                self.get_ranges(fetch, &table, leads).await;
                Ok(())
            }
            (Plan::Copied, Some(table)) => {
                self.get_copied(fetch, &table, leads).await;
                Ok(())
            }
            (Plan::Whole, _) => self.get_whole(fetch).await,
            (Plan::Table | Plan::Slots | Plan::Copied, _) => self.get_table(fetch).await,
        }
    }

    /// What to fetch now, with the claims on it; or which of the fetches under way to wait for. Nothing is fetched that the disk
    /// cache has or somebody fetches, unless that was waited for in vain.
    fn plan(
        &self,
        fetch: &Fetch,
        impatient: bool,
        flying: &[Range<u32>],
    ) -> Result<(Plan, Vec<Range<u32>>), usize> {
        let flying = if impatient { &[] } else { flying };
        let kept = self.disk.as_ref().filter(|_| !impatient);
        let kept = kept.map_or_else(Vec::new, |disk| disk.kept(fetch.info.id));
        let Some(table) = &fetch.table else {
            // Also on its way with the whole object.
            if let Some(flight) = flying.iter().position(|f| f.end > TABLE.start) {
                return Err(flight);
            }
            // Landed since the caches were looked at.
            if !impatient && self.tables.contains_key(&fetch.info.id) {
                return Ok((Plan::Look, Vec::new()));
            }
            let new = flying.is_empty() && kept.is_empty() && fetch.copies.is_none();
            return Ok(match new && self.is_whole_wanted(fetch) {
                true => (Plan::Whole, vec![WHOLE]),
                false => (Plan::Table, vec![TABLE]),
            });
        };
        let taken: Vec<_> = kept.iter().chain(flying).cloned().collect();
        let mut free = slots(&fetch.wants);
        let segment = fetch.info.id;
        free.retain(|&slot| {
            let came = !impatient && self.blocks.contains_key(&BlockRef { segment, slot });
            !came && !taken.iter().any(|r| r.contains(&slot))
        });
        let copied = |slot: &u32| fetch.copies.as_ref().and_then(|c| c.find(*slot)).is_some();
        let copied: Vec<u32> = free.iter().copied().filter(copied).collect();
        if !copied.is_empty() {
            return Ok((Plan::Copied, runs(&copied)));
        }
        if !free.is_empty() {
            let ranges = self.plan_slots(&fetch.info, table, &free, &taken);
            return Ok((Plan::Slots, ranges));
        }
        let wanted = |f: &Range<u32>| fetch.wants.iter().any(|(_, r)| f.contains(&r.at.slot));
        flying
            .iter()
            .position(wanted)
            .map_or(Ok((Plan::Look, Vec::new())), Err)
    }

    /// Without the table: the whole object where most of it is wanted or it is small, else the table first.
    fn is_whole_wanted(&self, fetch: &Fetch) -> bool {
        let least = self.config.neighbours.max(segment::SEGMENT_FLOOR as u64);
        fetch.wants.len() * 2 >= fetch.info.slots as usize || fetch.info.object_len <= least
    }

    /// Joins wanted slots (in order) across small gaps; takes neighbours along where they can be kept. None of the slots that
    /// are `taken`, as the wanted ones are not, is in a range.
    fn plan_slots(
        &self,
        info: &SegmentInfo,
        table: &Table,
        wanted: &[u32],
        taken: &[Range<u32>],
    ) -> Vec<Range<u32>> {
        let len = |r: &Range<u32>| table.range(r.clone()).map_or(0, |b| b.end - b.start);
        let free = |slot| free_around(slot, info.slots, taken);
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for slot in wanted {
            match ranges.last_mut() {
                Some(last)
                    if free(*slot).start <= last.start
                        && len(&(last.end..*slot)) <= self.config.gap =>
                {
                    last.end = slot + 1;
                }
                _ => ranges.push(*slot..slot + 1),
            }
        }
        let all = table.blocks_end() - HEADER_LEN as u64;
        if self.disk.is_some() {
            let had = taken.iter().map(|r| r.start..r.end.min(info.slots));
            let had = had.map(|r| len(&r)).sum::<u64>();
            // Who reads many small files reads the others too: twice as much each time.
            let target = match all / u64::from(info.slots.max(1)) < SMALL_BLOCK {
                true => self.config.neighbours.max(had),
                false => self.config.neighbours,
            };
            let widened = ranges
                .into_iter()
                .map(|r| widen(r.clone(), free(r.start), target, self.config.gap, &len));
            ranges = widened.fold(Vec::new(), |mut done: Vec<Range<u32>>, r| {
                match done.last_mut() {
                    Some(last) if r.start <= last.end => last.end = last.end.max(r.end),
                    _ => done.push(r),
                }
                done
            });
        }
        let sum: u64 = ranges.iter().map(&len).sum();
        // One long answer costs less than many requests.
        if ranges.len() > 1 && sum * 2 >= all && taken.is_empty() {
            ranges.clear();
            ranges.push(0..info.slots);
        }
        ranges
    }

    async fn get_table(self: &Arc<Self>, fetch: &mut Fetch) -> Result<(), DataError> {
        let info = &fetch.info;
        let sealed = self.sealed_table(info, fetch.copies.as_ref()).await?;
        fetch.table = Some(self.open_table(info, &sealed)?);
        if self.disk.is_some() {
            let (inner, id) = (Arc::clone(self), info.id);
            let put = blocking(&self.parts.runtime, move || {
                if let Some(disk) = &inner.disk {
                    disk.put_table(id, &sealed);
                }
            });
            // A table that could not be kept is fetched again another time.
            let _ = put.await;
        }
        Ok(())
    }

    async fn get_whole(self: &Arc<Self>, fetch: &mut Fetch) -> Result<(), DataError> {
        let object = self.get_object(&fetch.info).await?;
        let (inner, info) = (Arc::clone(self), Arc::clone(&fetch.info));
        // Kept in `fetch` too: an object that is wrong answers them with its error.
        let wants = fetch.wants.clone();
        let opened = blocking(&self.parts.runtime, move || {
            let flawed = |flaw| DataError::flawed(info.id, None, flaw);
            let sealed = segment::table_part(&info, &object).map_err(flawed)?;
            let table = inner.open_table(&info, sealed)?;
            if let Some(disk) = &inner.disk {
                disk.put_table(info.id, sealed);
            }
            let blocks = object.slice(HEADER_LEN..table.blocks_end() as usize);
            let mut got = Vec::new();
            let wants = drop_unknown(&table, wants, &mut got);
            got.extend(inner.open_range(&table, 0..info.slots, &blocks, wants));
            Ok(got)
        });
        let got = opened.await.unwrap_or(Err(DataError::Stopped))?;
        fetch.got.extend(got);
        fetch.wants.clear();
        Ok(())
    }

    /// Fetches the claimed ranges at the same time, as far as the bound on memory goes.
    async fn get_ranges(self: &Arc<Self>, fetch: &mut Fetch, table: &Arc<Table>, leads: Vec<Lead>) {
        let mut tasks = JoinSet::new();
        for lead in leads {
            let wants = std::mem::take(&mut fetch.wants).into_iter();
            let (now, later) =
                wants.partition::<Vec<_>, _>(|(_, read)| lead.slots.contains(&read.at.slot));
            fetch.wants = later;
            let got = Arc::clone(self).get_slots(Arc::clone(table), lead, now);
            tasks.spawn_on(Urgency::current().scope(got), &self.parts.runtime);
        }
        while let Some(got) = tasks.join_next().await {
            fetch.got.extend(got.unwrap_or_default());
        }
    }

    /// A failed range answers its own wants only.
    async fn get_slots(
        self: Arc<Self>,
        table: Arc<Table>,
        lead: Lead,
        wants: Vec<Want>,
    ) -> Vec<Got> {
        let (id, slots) = (table.place().segment, lead.slots.clone());
        let fetched = match table.range(slots.clone()) {
            Some(range) => self.get_range(id, range).await,
            None => Err(DataError::flawed(id, Some(slots.start), Flaw::NoSlot)),
        };
        match fetched {
            Ok(bytes) => {
                let inner = Arc::clone(&self);
                let open = move || inner.open_range(&table, slots, &bytes, wants);
                let opened = blocking(&self.parts.runtime, open).await;
                opened.unwrap_or_default()
            }
            Err(e) => {
                let failed = wants.into_iter().map(|(i, _)| (i, Err(e.clone())));
                failed.collect()
            }
        }
    }

    /// Opens wanted blocks out of the bytes of consecutive slots, and keeps the bytes in the disk cache. Blocks that nobody wants and
    /// that are damaged are noticed when they are read from there.
    fn open_range(
        &self,
        table: &Table,
        slots: Range<u32>,
        bytes: &Bytes,
        wants: Vec<Want>,
    ) -> Vec<Got> {
        let got = wants.into_iter().map(|(i, read)| {
            let slot = read.at.slot;
            let place = table
                .range(slots.start..slot)
                .zip(table.range(slot..slot + 1));
            let sealed = place.and_then(|(before, own)| {
                let start = (before.end - before.start) as usize;
                bytes.get(start..start + (own.end - own.start) as usize)
            });
            let result = match (sealed, table.entry(slot)) {
                (Some(sealed), Some(entry)) => {
                    self.open_block(table.place().author, entry, &read, sealed)
                }
                _ => Err(flaw(&read, Flaw::NoSlot)),
            };
            (i, result)
        });
        let got: Vec<_> = got.collect();
        if let Some(disk) = &self.disk
            && got.iter().all(|(_, result)| result.is_ok())
        {
            disk.put(table.place().segment, slots, bytes);
        }
        got
    }

    /// A whole object.
    pub(super) async fn get_object(&self, info: &SegmentInfo) -> Result<Answer, DataError> {
        let name =
            segment::object_name(info.id).map_err(|e| DataError::storage(info.id, e.into()))?;
        let place = self.take_place(info.object_len).await;
        let object = self.parts.store.get(&name, info.object_len as usize).await;
        self.answer(info.id, object, place)
    }

    pub(super) async fn get_range(
        &self,
        id: SegmentId,
        range: Range<u64>,
    ) -> Result<Answer, DataError> {
        let name = segment::object_name(id).map_err(|e| DataError::storage(id, e.into()))?;
        let len = range.end - range.start;
        let place = self.take_place(len).await;
        let bytes = self
            .parts
            .store
            .get_range(&name, range.start, len as usize)
            .await;
        self.answer(id, bytes, place)
    }

    /// Waits for room in memory for an answer of the storage.
    pub(super) async fn take_place(&self, bytes: u64) -> Place {
        let need = permits(bytes, self.config.fetch_bytes);
        self.fetches.take(need).await
    }

    fn answer(
        &self,
        id: SegmentId,
        answer: Result<Bytes, StoreError>,
        place: Place,
    ) -> Result<Answer, DataError> {
        self.counters.fetches.fetch_add(1, Ordering::Relaxed);
        let bytes = answer.map_err(|e| DataError::storage(id, e))?;
        self.counters
            .fetched_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(Answer {
            bytes,
            _place: Some(place),
        })
    }
}

/// Bytes of the storage, which count against the bound until they are dropped.
pub(super) struct Answer {
    bytes: Bytes,
    _place: Option<Place>,
}

impl Answer {
    /// Bytes that were put together from others.
    pub(super) fn of(bytes: Bytes) -> Self {
        Self {
            bytes,
            _place: None,
        }
    }

    /// The bytes alone; they count no longer.
    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl Deref for Answer {
    type Target = Bytes;
    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// Answers wants of slots that the table does not have; returns the others.
fn drop_unknown(table: &Table, wants: Vec<Want>, got: &mut Vec<Got>) -> Vec<Want> {
    let (known, unknown): (Vec<_>, Vec<_>) = wants
        .into_iter()
        .partition(|(_, read)| table.entry(read.at.slot).is_some());
    got.extend(
        unknown
            .into_iter()
            .map(|(i, read)| (i, Err(flaw(&read, Flaw::NoSlot)))),
    );
    known
}

/// The wanted slots in order.
fn slots(wants: &[Want]) -> Vec<u32> {
    let mut slots: Vec<_> = wants.iter().map(|(_, read)| read.at.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

/// Slots in order as ranges.
fn runs(slots: &[u32]) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for slot in slots {
        match ranges.last_mut() {
            Some(last) if last.end == *slot => last.end += 1,
            _ => ranges.push(*slot..*slot + 1),
        }
    }
    ranges
}

/// The slots around one that is not taken, up to the next ones that are.
fn free_around(slot: u32, count: u32, taken: &[Range<u32>]) -> Range<u32> {
    let before = taken.iter().filter(|r| r.end <= slot).map(|r| r.end);
    let behind = taken.iter().filter(|r| r.start > slot).map(|r| r.start);
    before.max().unwrap_or(0)..behind.min().unwrap_or(count).min(count)
}

/// Grows a range of slots within `free`, forwards first, until it is `target` bytes long; what would be left over at an end of
/// `free` and is no more than `rest` bytes comes along.
fn widen(
    range: Range<u32>,
    free: Range<u32>,
    target: u64,
    rest: u64,
    len: &impl Fn(&Range<u32>) -> u64,
) -> Range<u32> {
    let mut wide = range;
    let mut size = len(&wide);
    if size >= target {
        return wide;
    }
    while wide.end < free.end && size < target {
        size += len(&(wide.end..wide.end + 1));
        wide.end += 1;
    }
    while wide.start > free.start && size < target {
        wide.start -= 1;
        size += len(&(wide.start..wide.start + 1));
    }
    if len(&(wide.end..free.end)) <= rest {
        wide.end = free.end;
    }
    if len(&(free.start..wide.start)) <= rest {
        wide.start = free.start;
    }
    wide
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{World, Written};

    #[tokio::test(flavor = "multi_thread")]
    async fn what_landed_since_the_caches_were_looked_at_is_not_fetched_again() {
        let world = World::new();
        let written = Written::new(&world.open(), 20, 4096).await;
        let store = world.open();
        let wants: Vec<_> = (0..20).map(|n| (n, written.request(n as u64))).collect();
        let late = Fetch {
            info: Arc::new(written.the_info().clone()),
            table: None,
            wants,
            got: Vec::new(),
            copies: None,
            failed: None,
        };
        let first = store.inner.plan(&late, false, &[]).unwrap();
        assert_eq!(first, (Plan::Whole, vec![WHOLE]));
        written.check(&store, 0..20).await;
        let plan = store.inner.plan(&late, false, &[]).unwrap();
        assert_eq!(plan, (Plan::Look, Vec::new()));
        let again = store.inner.plan(&late, true, &[]).unwrap();
        assert_eq!(again, (Plan::Whole, vec![WHOLE]), "in vain too often");
    }
}
