use crate::content::Piece;
use crate::core::Fs;
use crate::error::FsError;
use crate::file::Handle;
use crate::types::HandleId;
use skrin_base::Stored;
use skrin_base::limits::BLOCK_LEN;
use skrin_data::{Block, BlockRead};
use skrin_meta::state::Inode;
use std::sync::Arc;

/// What a read needs besides what is in memory of the file itself.
struct Plan {
    pieces: Vec<Piece>,
    stored: Vec<Stored>,
    /// The inode, for its keys; only if something is stored.
    inode: Option<Arc<Inode>>,
}

impl Plan {
    fn assemble(self, blocks: &[Block]) -> Vec<u8> {
        let total = self.pieces.iter().map(Piece::len).sum();
        let mut out = Vec::with_capacity(total);
        let mut blocks = blocks.iter();
        for piece in self.pieces {
            let end = out.len() + piece.len();
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(&bytes),
                Piece::Zeros(_) => {}
                Piece::Stored { from, len, .. } => {
                    let block: &[u8] = blocks.next().map_or(&[], |b| b);
                    let to = (from + len).min(block.len());
                    out.extend_from_slice(block.get(from..to).unwrap_or_default());
                }
            }
            // A short block reads as zeros from its end on.
            out.resize(end, 0);
        }
        out
    }
}

impl Fs {
    /// Reads up to `len` bytes at `offset`; less only at the end of the file. May wait for the storage.
    ///
    /// # Errors
    /// `BadHandle`; of the data layer where blocks are missing, damaged or not to be had.
    pub fn read(&self, handle: HandleId, offset: u64, len: usize) -> Result<Vec<u8>, FsError> {
        if handle.is_local() {
            return self.read_local(handle, offset, len);
        }
        let handle = self.files.handle(handle)?;
        let (plan, reads) = self.resolve_read(&handle, offset, len)?;
        self.read_ahead(&handle, offset, len);
        match self.fetch(reads) {
            Err(error) if error.is_missing() => {
                self.find_again(&handle.file)?;
                let (plan, reads) = self.resolve_read(&handle, offset, len)?;
                Ok(plan.assemble(&self.fetch(reads)?))
            }
            blocks => Ok(plan.assemble(&blocks?)),
        }
    }

    fn resolve_read(
        &self,
        handle: &Handle,
        offset: u64,
        len: usize,
    ) -> Result<(Plan, Vec<BlockRead>), FsError> {
        let plan = self.plan_read(handle, offset, len)?;
        let reads = match &plan.inode {
            Some(inode) => self.reads_of(&plan.stored, inode)?,
            None => Vec::new(),
        };
        Ok((plan, reads))
    }

    /// As `read` if that needs no wait, else `None`.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_now(
        &self,
        handle: HandleId,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, FsError> {
        if handle.is_local() {
            return self.read_local(handle, offset, len).map(Some);
        }
        let handle = self.files.handle(handle)?;
        let plan = self.plan_read(&handle, offset, len)?;
        let Some(inode) = &plan.inode else {
            return Ok(Some(plan.assemble(&[])));
        };
        let reads = self.reads_of(&plan.stored, inode)?;
        let blocks: Option<Vec<Block>> = reads.iter().map(|r| self.data.cached(r)).collect();
        let Some(blocks) = blocks else {
            return Ok(None);
        };
        self.read_ahead(&handle, offset, len);
        Ok(Some(plan.assemble(&blocks)))
    }

    fn plan_read(&self, handle: &Handle, offset: u64, len: usize) -> Result<Plan, FsError> {
        let state = handle.file.state.lock();
        let pieces = state.content.read(handle.file.ino.0, offset, len)?;
        let stored: Vec<Stored> = pieces
            .iter()
            .filter_map(|p| match p {
                Piece::Stored { at, .. } => Some(*at),
                Piece::Bytes(_) | Piece::Zeros(_) => None,
            })
            .collect();
        let inode = (!stored.is_empty()).then(|| state.inode.clone());
        Ok(Plan {
            pieces,
            stored,
            inode,
        })
    }

    /// Starts to read what a sequential reader will want next.
    fn read_ahead(&self, handle: &Handle, offset: u64, len: usize) {
        let first = offset / BLOCK_LEN as u64;
        let end = (offset + len as u64).div_ceil(BLOCK_LEN as u64);
        let (stored, inode) = {
            let state = handle.file.state.lock();
            let extent_end = |block| state.content.extent_end(block);
            let Some(range) = handle.ahead.lock().on_read(first..end, extent_end) else {
                return;
            };
            let count = range.end.saturating_sub(range.start);
            let stored = state.content.stored_from(range.start, count);
            if stored.is_empty() {
                return;
            }
            (stored, state.inode.clone())
        };
        if let Ok(reads) = self.reads_of(&stored, &inode) {
            self.data.prefetch(reads);
        }
    }
}
