use crate::core::Fs;
use crate::error::FsError;
use crate::file::{FileState, OpenFile};
use crate::types::HandleId;
use skrin_base::limits::{BLOCK_LEN, FILE_LEN_MAX};
use skrin_base::{Content, Extent};
use skrin_meta::NamedKey;
use std::sync::Arc;

const BLOCK: u64 = BLOCK_LEN as u64;
/// Bytes copied through memory in one call; the kernel calls again.
const COPY_MAX: u64 = 4 << 20;

/// Keys shared at once; one operation brings at most 16.
const KEYS_MAX: usize = 8;

/// Whole blocks of one file, ready to be shared with another.
struct Shared {
    extents: Vec<Extent>,
    keys: Vec<NamedKey>,
    len: u64,
}

impl Fs {
    /// Copies between two open files. Whole blocks that are stored are shared and not moved; the rest goes through memory. May copy less than
    /// asked, and may wait for the storage. The number of bytes copied; 0 at the end of the source.
    ///
    /// # Errors
    /// `Invalid` for ranges of one file that overlap, `TooLarge`, `BadHandle`, `ReadOnly`; no room on the storage, as last heard.
    pub fn copy_range(
        &self,
        (from, from_offset): (HandleId, u64),
        (to, to_offset): (HandleId, u64),
        len: u64,
    ) -> Result<u64, FsError> {
        self.check_allowed()?;
        if from.is_local() || to.is_local() {
            let data = self.read(from, from_offset, len.min(COPY_MAX) as usize)?;
            if data.is_empty() {
                return Ok(0);
            }
            self.write(to, to_offset, &data)?;
            return Ok(data.len() as u64);
        }
        let source = self.files.handle(from)?;
        let target = self.files.handle(to)?;
        self.check_takes(&target.file)?;
        if !target.write {
            return Err(FsError::BadHandle);
        }
        let size = source.file.state.lock().content.size();
        let len = len.min(size.saturating_sub(from_offset));
        if to_offset.checked_add(len).is_none_or(|e| e > FILE_LEN_MAX) {
            return Err(FsError::TooLarge);
        }
        let same = Arc::ptr_eq(&source.file, &target.file);
        if same && from_offset < to_offset + len && to_offset < from_offset + len {
            return Err(FsError::Invalid("the ranges overlap"));
        }
        if len == 0 {
            return Ok(0);
        }
        let shared = self.awaiting_room(|| {
            let shared = self.shareable(&source.file, from_offset, to_offset, len)?;
            if let Some(shared) = &shared {
                self.share(&target.file, to_offset, shared)?;
            }
            Ok(shared.map(|shared| shared.len))
        })?;
        if let Some(len) = shared {
            return Ok(len);
        }
        let data = self.read(from, from_offset, len.min(COPY_MAX) as usize)?;
        self.write_file(&target.file, to_offset, &data)?;
        Ok(data.len() as u64)
    }

    /// The whole blocks at the start of the range, if both offsets begin one.
    fn shareable(
        &self,
        source: &OpenFile,
        from: u64,
        to: u64,
        len: u64,
    ) -> Result<Option<Shared>, FsError> {
        if !from.is_multiple_of(BLOCK) || !to.is_multiple_of(BLOCK) || len < BLOCK {
            return Ok(None);
        }
        let mut state = source.state.lock();
        self.with_sealer(source, &mut state, |s, sealer| s.content.seal_dirty(sealer))?;
        let count = len / BLOCK;
        let Some(extents) = state.content.shareable(from / BLOCK, from / BLOCK + count) else {
            return Ok(None);
        };
        let keys = keys_of(&extents, &state);
        Ok((keys.len() <= KEYS_MAX).then_some(Shared {
            extents,
            keys,
            len: count * BLOCK,
        }))
    }

    fn share(&self, target: &OpenFile, to: u64, shared: &Shared) -> Result<(), FsError> {
        let mut state = target.state.lock();
        // Before, so that nothing has happened where there is no room.
        if state.borrowed.len() > KEYS_MAX / 2 {
            self.flush_state(target, &mut state)?;
        }
        for key in &shared.keys {
            add_key(&mut state, key);
        }
        state
            .content
            .share(to / BLOCK, &shared.extents, to + shared.len);
        state.shares = true;
        state.mtime = Some(self.now());
        self.count(&mut state);
        Ok(())
    }
}

/// The keys that extents name.
fn keys_of(extents: &[Extent], state: &FileState) -> Vec<NamedKey> {
    let named = |key: &&NamedKey| {
        extents
            .iter()
            .any(|e| matches!(e.content, Content::Stored(s) if s.key == key.id))
    };
    state.inode.keys.iter().filter(named).cloned().collect()
}

/// The target must name the keys of what it shares.
fn add_key(state: &mut FileState, key: &NamedKey) {
    if state.inode.key(key.id).is_none() {
        state.inode_mut().keys.push(key.clone());
        state.borrowed.push(key.clone());
    }
}
