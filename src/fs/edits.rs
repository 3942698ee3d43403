//! Small edits that a program wants durable: noted in the journal as they are, told to the tree when they have come to rest, and
//! taken in again after a crash.

use crate::content::{Content, Edits, Part, Start, blocks};
use crate::core::Fs;
use crate::error::FsError;
use crate::file::{FileState, LastNoted, OpenFile, attributes_to_tell};
use skrin_base::limits::BLOCK_LEN;
use skrin_base::wire::{Decode, Encode};
use skrin_base::{Ino, OpId};
use skrin_data::Lsn;
use skrin_meta::Kind;
use skrin_meta::state::{self, Inode};
use std::collections::HashSet;
use std::sync::atomic::Ordering;

/// All records of one number.
type Noted = (u64, Vec<Edits>);

impl Fs {
    /// Notes in the journal what an open file holds in memory only; where that was noted. `None` if the tree has to be told.
    ///
    /// # Errors
    /// Those of the journal; then nothing was noted.
    pub(crate) fn note_edits(&self, file: &OpenFile) -> Result<Option<Lsn>, FsError> {
        let mut state = file.state.lock();
        // A journal that is nearly full must not be held by what cannot be uploaded.
        if !state.content.is_modified()
            || self.is_congested()
            || self.check_keeps_changes().is_err()
        {
            return Ok(None);
        }
        let Some(parts) = state.content.unnoted() else {
            return Ok(None);
        };
        let mtime = *state.mtime.get_or_insert_with(|| self.now());
        let size = state.content.size();
        if let Some(last) = state.noted.last
            && parts.is_empty()
            && (last.size, last.mtime) == (size, mtime)
        {
            return Ok(Some(last.lsn));
        }
        self.note_parts(file, &mut state, parts)
    }

    fn note_parts(
        &self,
        file: &OpenFile,
        state: &mut FileState,
        parts: Vec<Part>,
    ) -> Result<Option<Lsn>, FsError> {
        let (size, mtime) = (
            state.content.size(),
            state.mtime.unwrap_or(state.inode.mtime),
        );
        let known = file.noted();
        let start = match known {
            Some(_) => None,
            None => Some(Start {
                inode: state.inode.as_ref().clone(),
                extents: state.content.stored_extents(state.inode.size),
                xattrs: state.attributes.xattrs.clone(),
            }),
        };
        let edits = Edits {
            ino: file.ino,
            base: state.base,
            start,
            size,
            mtime,
            parts,
        };
        let bytes = edits.to_bytes();
        let all = self.noted.load(Ordering::Relaxed) + bytes.len();
        // A replay holds all of them, and lays them over what the files were.
        if bytes.len() > Edits::LEN_MAX || all > self.options.dirty_budget.saturating_mul(2) {
            return Ok(None);
        }
        let number = known.unwrap_or_else(|| self.entropy.u64() | 1);
        let lsn = {
            // Nothing comes behind the operation that takes the last name.
            let gone = file.gone.lock();
            if gone.is_some() {
                return Ok(None);
            }
            // Only what the journal took counts: after a full disk the next attempt has to bring the beginning again.
            let lsn = self.journal.append_edits(number, &bytes)?;
            file.noted.store(number, Ordering::Release);
            lsn
        };
        state.content.noted();
        state.noted.bytes += bytes.len();
        self.noted.fetch_add(bytes.len(), Ordering::Relaxed);
        state.noted.last = Some(LastNoted {
            lsn,
            size,
            mtime,
            at: self.clock.monotonic(),
        });
        Ok(Some(lsn))
    }

    /// An operation has told what was noted, or nobody will.
    pub(crate) fn forget_noted(&self, state: &mut FileState) {
        let noted = std::mem::take(&mut state.noted);
        self.noted.fetch_sub(noted.bytes, Ordering::Relaxed);
    }

    /// Lets the journal forget the edits of a file that nobody wants any more.
    pub(crate) fn settle(&self, file: &OpenFile) -> Result<(), FsError> {
        let Some(number) = file.take_noted() else {
            return Ok(());
        };
        let settled = self.journal.settle(number);
        if settled.is_err() {
            // Whoever comes next tries again.
            file.noted.store(number, Ordering::Release);
        }
        Ok(settled?)
    }

    /// Takes in what was noted before a crash and never told: the files are as they were, open or not, and are told at once. `removed`
    /// are inodes that operations of the journal may have taken the last name from.
    ///
    /// # Errors
    /// Edits that do not decode; of the local cache.
    pub(crate) fn restore_edits(
        &self,
        noted: Vec<(u64, Vec<u8>)>,
        removed: &HashSet<Ino>,
    ) -> Result<(), FsError> {
        let mut files: Vec<Noted> = Vec::new();
        for (number, bytes) in noted {
            let edits = Edits::from_bytes(&bytes).map_err(|error| {
                tracing::error!(number, %error, "edits in the journal do not decode");
                FsError::Invalid("edits in the journal do not decode; a newer version wrote them")
            })?;
            match files.iter_mut().find(|(n, _)| *n == number) {
                Some((_, all)) => all.push(edits),
                None => files.push((number, vec![edits])),
            }
        }
        if self.options.read_only {
            files = self.one_branch_each(files)?;
        }
        for (number, edits) in files {
            self.restore_file(number, edits, removed)?;
        }
        Ok(())
    }

    /// A mount that makes no copies has one place for the branches of a file: the one of its present contents goes there, which would
    /// keep the name, or else the oldest. The others wait in the journal.
    fn one_branch_each(&self, files: Vec<Noted>) -> Result<Vec<Noted>, FsError> {
        let mut shown: Vec<(Noted, bool)> = Vec::new();
        for (number, edits) in files {
            let Some(Edits { ino, base, .. }) = edits.first() else {
                continue;
            };
            let inode = state::inode(&self.replica.tree(), *ino)?;
            let is_present = inode.is_some_and(|inode| inode.version == *base);
            let is_same =
                |((_, other), _): &&mut (Noted, bool)| other.first().is_some_and(|e| e.ino == *ino);
            match shown.iter_mut().find(is_same) {
                None => shown.push(((number, edits), is_present)),
                Some(other) => {
                    tracing::warn!(
                        ino = ino.0,
                        "a branch of a file waits in the journal; mount without --read-only to see it as a copy"
                    );
                    if is_present && !other.1 {
                        *other = ((number, edits), true);
                    }
                }
            }
        }
        Ok(shown.into_iter().map(|(file, _)| file).collect())
    }

    fn restore_file(
        &self,
        number: u64,
        mut edits: Vec<Edits>,
        removed: &HashSet<Ino>,
    ) -> Result<(), FsError> {
        let Some(first) = edits.first_mut() else {
            return Ok(());
        };
        let (ino, base, start) = (first.ino, first.base, first.start.take());
        let (inode, is_copy) = {
            let tree = self.replica.tree();
            let is_copy = state::fork_of(&tree, base)?.is_some();
            (state::inode(&tree, ino)?, is_copy)
        };
        if inode.is_none() && !is_copy && removed.contains(&ino) {
            // This device removed it; another's removal does not beat an edit.
            return match self.options.read_only {
                true => Ok(()),
                false => Ok(self.journal.settle(number)?),
            };
        }
        let start = match start {
            Some(start) => start,
            // Its record was damaged; the journal has said so.
            None => match self.start_of(ino, base, &edits)? {
                Some(start) => start,
                None => {
                    tracing::error!(ino = ino.0, "edits without their beginning cannot be used");
                    return Ok(());
                }
            },
        };
        // What the file was when it was edited, whatever it is now: the tree may have another device's contents.
        let content = Content::stored(start.inode.size, start.extents);
        let mut inode = inode
            .filter(|i| i.kind == Kind::File)
            .unwrap_or_else(|| start.inode.clone());
        for key in start.inode.keys {
            if inode.key(key.id).is_none() {
                inode.keys.push(key);
            }
        }
        inode.size = start.inode.size;
        let mut state = FileState::new(inode, content);
        state.base = base;
        state.attributes.xattrs = start.xattrs;
        // What was shared before the first edit was noted is told by nobody else.
        state.shares = true;
        for Edits {
            size, mtime, parts, ..
        } in edits
        {
            if !state.content.restore(size, parts) {
                tracing::error!(ino = ino.0, "an edit without its block cannot be used");
            }
            state.mtime = Some(mtime);
        }
        self.count(&mut state);
        let file = OpenFile::new(self.nodes.current(ino), ino, state);
        file.noted.store(number, Ordering::Release);
        let file = self.files.add_unused(file);
        if self.options.read_only {
            return Ok(());
        }
        if let Err(error) = self.flush_and_discard(&file) {
            tracing::warn!(ino = ino.0, %error, "edits from before a crash cannot be told yet");
        }
        Ok(())
    }

    /// What a file was before edits of which the first record is lost, with its own: the tree has it still. `None` where that has other contents
    /// by now, or where one of them needs a block that was in that record: they stay where they are.
    fn start_of(&self, ino: Ino, base: OpId, edits: &[Edits]) -> Result<Option<Start>, FsError> {
        let tree = self.replica.tree();
        let inode = state::inode(&tree, ino)?;
        let is_meant = |inode: &Inode| {
            let is_base = inode.kind == Kind::File && inode.version == base;
            is_base && are_whole(edits, inode.size)
        };
        let Some(inode) = inode.filter(is_meant) else {
            return Ok(None);
        };
        tracing::error!(
            ino = ino.0,
            "the first edits of a file are lost; the later ones are laid over what it was before"
        );
        Ok(Some(Start {
            extents: state::extents(&tree, ino, 0, u64::MAX)?,
            xattrs: attributes_to_tell(&tree, ino, &inode)?.xattrs,
            inode,
        }))
    }

    /// Another device changed or removed an inode: what is noted of an open file of it is told soon, so that what each of them saw stays
    /// apart. Waits for no room: it may be the publisher who tells.
    pub(crate) fn tell_edits(&self, ino: Ino) {
        let files = self.files.with_open(|open| open.of(ino));
        for file in files {
            if file.noted().is_some()
                && let Err(error) = self.flush_state(&file, &mut file.state.lock())
            {
                tracing::warn!(ino = ino.0, %error, "edits cannot be told yet");
            }
        }
    }
}

/// Whether each block comes as a whole before what changed of it, and each that lies behind the `size` before them comes at all: what was lost
/// may have written it.
fn are_whole(edits: &[Edits], size: u64) -> bool {
    let mut whole = HashSet::new();
    let mut parts = edits.iter().flat_map(|edits| &edits.parts);
    let come_whole = parts.all(|part| match part.from {
        None => {
            whole.insert(part.block);
            true
        }
        Some(_) => whole.contains(&part.block),
    });
    let grown = edits.last().map_or(0, |last| last.size);
    let mut added = size / BLOCK_LEN as u64..blocks(grown);
    come_whole && (grown <= size || added.all(|block| whole.contains(&block)))
}
