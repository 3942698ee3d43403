//! Reading: memory, then what waits for its upload, then the local disk, then the storage.

use super::{BlockRead, Inner, permits};
use crate::block::{Block, expand};
use crate::error::{DataError, Flaw};
use crate::segment::Entry;
use skrin_base::ids::{LaneId, SegmentId};
use skrin_base::limits::BLOCK_LEN;
use skrin_crypto::{BlockAad, hash, open_block_into};
use skrin_storage::Urgency;
use skrin_storage::disk::blocking;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;

/// Blocks that wait to be prefetched, or are; hints beyond are dropped.
const PREFETCH_QUEUE: usize = 8192;

/// A block that is wanted, and its place in the caller's list.
pub(super) type Want = (usize, BlockRead);
/// What became of it.
pub(super) type Got = (usize, Result<Block, DataError>);

impl Inner {
    pub(super) async fn read(
        self: Arc<Self>,
        reads: Vec<BlockRead>,
    ) -> Vec<Result<Block, DataError>> {
        let mut out: Vec<_> = reads.iter().map(|_| Err(DataError::Stopped)).collect();
        let mut wanted = Vec::new();
        for (i, read) in reads.into_iter().enumerate() {
            match self.blocks.get(&read.at) {
                Some(block) => out[i] = Ok(block),
                None => wanted.push((i, read)),
            }
        }
        let remote = self.read_pending(wanted, &mut out).await;
        let mut by_segment: BTreeMap<SegmentId, Vec<Want>> = BTreeMap::new();
        for want in remote {
            by_segment.entry(want.1.at.segment).or_default().push(want);
        }
        let mut groups = by_segment.into_values();
        if groups.len() == 1 {
            let got = Arc::clone(&self)
                .fetch(groups.next().unwrap_or_default())
                .await;
            got.into_iter().for_each(|(i, result)| out[i] = result);
            return out;
        }
        let mut tasks = JoinSet::new();
        for group in groups {
            let fetched = Urgency::current().scope(Arc::clone(&self).fetch(group));
            tasks.spawn_on(fetched, &self.parts.runtime);
        }
        while let Some(got) = tasks.join_next().await {
            got.unwrap_or_default()
                .into_iter()
                .for_each(|(i, result)| out[i] = result);
        }
        out
    }

    /// Answers what is in segments that are not declared yet; returns the rest.
    async fn read_pending(
        self: &Arc<Self>,
        wanted: Vec<Want>,
        out: &mut [Result<Block, DataError>],
    ) -> Vec<Want> {
        let (here, remote): (Vec<_>, Vec<_>) = {
            let pending = self.pending.lock();
            wanted
                .into_iter()
                .partition(|(_, read)| pending.contains_key(&read.at.segment))
        };
        if here.is_empty() {
            return remote;
        }
        let inner = Arc::clone(self);
        let opened = blocking(&self.parts.runtime, move || {
            let open = |(i, read): Want| (i, inner.open_pending(&read), read);
            here.into_iter().map(open).collect::<Vec<_>>()
        });
        let mut rest = remote;
        for (i, result, read) in opened.await.unwrap_or_default() {
            match result {
                Some(result) => out[i] = result,
                None => rest.push((i, read)),
            }
        }
        rest
    }

    /// A block of an undeclared segment; `None` when the segment was released meanwhile.
    fn open_pending(&self, read: &BlockRead) -> Option<Result<Block, DataError>> {
        let segment = self.pending.lock().get(&read.at.segment).cloned()?;
        let filled = match segment.block(read.at.slot) {
            Ok(Some(filled)) => filled,
            // A journal that is damaged may hold a part only of what is on the storage.
            Ok(None) | Err(_) if read.info.is_some() => return None,
            Ok(None) => return Some(Err(flaw(read, Flaw::NoSlot))),
            Err(e) => return Some(Err(e)),
        };
        let author = segment.place.author;
        if let Some(bytes) = &filled.memory {
            return Some(self.open_block(author, &filled.entry, read, bytes));
        }
        match self.parts.journal.read(filled.pos) {
            Ok(Some(bytes)) => Some(self.open_block(author, &filled.entry, read, &bytes)),
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        }
    }

    /// A block whose sealed bytes wait for their upload in memory.
    pub(super) fn open_in_memory(&self, read: &BlockRead) -> Option<Block> {
        let segment = self.pending.lock().get(&read.at.segment).cloned()?;
        let filled = segment.block(read.at.slot).ok()??;
        self.open_block(
            segment.place.author,
            &filled.entry,
            read,
            filled.memory.as_ref()?,
        )
        .ok()
    }

    /// Checks and opens a sealed block, and keeps it in memory.
    pub(super) fn open_block(
        &self,
        author: LaneId,
        entry: &Entry,
        read: &BlockRead,
        sealed: &[u8],
    ) -> Result<Block, DataError> {
        let bytes = self
            .open_sealed(author, entry, read, sealed)
            .map_err(|f| flaw(read, f))?;
        let block = self.pool.block(bytes);
        self.blocks.insert(read.at, block.clone());
        Ok(block)
    }

    pub(super) fn open_sealed(
        &self,
        author: LaneId,
        entry: &Entry,
        read: &BlockRead,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Flaw> {
        if sealed.len() != entry.sealed_len as usize || hash(sealed) != entry.hash {
            return Err(Flaw::Hash);
        }
        let aad = BlockAad {
            vault: self.config.vault,
            room: self.config.room,
            segment: read.at.segment,
            slot: read.at.slot,
            author,
            key_id: read.key_id,
            origin_file: read.origin_file,
            origin_block: read.origin_block,
            plain_len: entry.plain_len,
            flags: entry.flags,
        };
        let mut opened = self.pool.take();
        open_block_into(&read.key, &aad, sealed, &mut opened).map_err(|_| Flaw::Seal)?;
        expand(opened, entry.flags, entry.plain_len, &self.pool)
    }

    pub(super) fn prefetch(self: Arc<Self>, mut reads: Vec<BlockRead>) {
        let pending = self.pending.lock();
        // What waits for its upload is near enough.
        reads.retain(|r| !self.blocks.contains_key(&r.at) && !pending.contains_key(&r.at.segment));
        drop(pending);
        // More than fits at once would push out what is being read: the parts take turns. Two at a time, so that one is on its
        // way while the other is opened; and each of one segment, as a segment is had by one request. Blocks are not sealed in
        // quite the order of the file.
        let most = (self.config.prefetch_bytes / 2 / BLOCK_LEN as u64).max(1);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut segments: Vec<Vec<BlockRead>> = Vec::new();
        for read in reads {
            let is_its = |s: &&mut Vec<BlockRead>| {
                s.first().is_some_and(|r| r.at.segment == read.at.segment)
            };
            match segments.iter_mut().find(is_its) {
                Some(segment) => segment.push(read),
                None => segments.push(vec![read]),
            }
        }
        for part in segments.iter().flat_map(|segment| segment.chunks(most)) {
            Arc::clone(&self).prefetch_part(part.to_vec());
        }
    }

    fn prefetch_part(self: Arc<Self>, reads: Vec<BlockRead>) {
        let count = reads.len();
        if self.prefetched.fetch_add(count, Ordering::Relaxed) > PREFETCH_QUEUE {
            self.prefetched.fetch_sub(count, Ordering::Relaxed);
            return;
        }
        let need = permits((count * BLOCK_LEN) as u64, self.config.prefetch_bytes);
        let runtime = self.parts.runtime.clone();
        runtime.spawn(async move {
            let permit = self.prefetches.acquire_many(need).await;
            let read = Arc::clone(&self).read(reads);
            let results = Urgency::later().scope(read).await;
            // Whoever reads the block meets the error himself.
            let failed = results.iter().filter(|r| r.is_err()).count();
            tracing::trace!(blocks = results.len(), failed, "prefetched");
            drop(permit);
            self.prefetched.fetch_sub(count, Ordering::Relaxed);
        });
    }
}

/// Something wrong with the block that is read.
pub(super) fn flaw(read: &BlockRead, flaw: Flaw) -> DataError {
    DataError::flawed(read.at.segment, Some(read.at.slot), flaw)
}
