//! From open files to the tree: sealing blocks, and the operations that name them.

use crate::content::{Content, Known, Missing, Sealer};
use crate::core::Fs;
use crate::error::FsError;
use crate::file::{FileState, OpenFile, attributes_to_tell};
use crate::ops::inode_of;
use crate::pin::DEPTH_MAX;
use skrin_base::{Content as Held, Ino, KeyId, SegmentId, SegmentInfo, Stored, clock};
use skrin_data::{Block, BlockRead, BlockRef, DataError, FileKey, Gain, Room};
use skrin_meta::op::{NEW_KEYS_MAX, Place};
use skrin_meta::replica::TreeGuard;
use skrin_meta::state::{self, Inode};
use skrin_meta::{Body, NamedKey, OpKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An open file is told to the tree after so long at the latest.
pub(crate) const FLUSH_AFTER: u64 = 5_000_000_000;
/// One that is written anew from its beginning, and still open, after so long.
const REWRITTEN_AFTER: u64 = 30_000_000_000;
/// One whose edits the journal has is told when the program has not saved for so long: most saves come in bursts, and what is
/// overwritten meanwhile need not be uploaded.
const REST: u64 = 1_000_000_000;
/// Stored bytes of one file after which an operation names them, so that they can be uploaded.
const UNNAMED_MAX: u64 = 64 << 20;
/// And the part of the journal that they may take: what no operation names cannot be uploaded, and never makes room.
const UNNAMED_PART: u64 = 16;

/// Seals blocks of one file under one key.
struct FileSealer<'a> {
    fs: &'a Fs,
    ino: Ino,
    key_id: KeyId,
    key: FileKey,
    room: Room,
    gain: Gain,
    stored: u64,
}

impl Sealer for FileSealer<'_> {
    fn seal(&mut self, block: u64, plain: &[u8]) -> Result<Stored, FsError> {
        // A block of nothing but a hole's edge still has one byte.
        let plain = if plain.is_empty() { &[0][..] } else { plain };
        let BlockRef { segment, slot } = self.fs.data.write_block(
            self.key_id,
            &self.key,
            (self.ino, block),
            plain,
            self.room,
            &mut self.gain,
        )?;
        self.stored += plain.len() as u64;
        Ok(Stored {
            segment,
            first_slot: slot,
            key: self.key_id,
            origin_file: self.ino,
            origin_block: block,
        })
    }
}

impl Fs {
    /// Runs `act` on an open file with something that seals its blocks, and counts afterwards what it holds in memory.
    pub(crate) fn with_sealer<T>(
        &self,
        file: &OpenFile,
        state: &mut FileState,
        act: impl FnOnce(&mut FileState, &mut dyn Sealer) -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        let key = self.write_key(state);
        let mut sealer = FileSealer {
            fs: self,
            ino: file.ino,
            key_id: key.id,
            key: FileKey::from_bytes(key.key),
            room: match file.noted() {
                None => Room::Wait,
                Some(_) => Room::Owed,
            },
            gain: std::mem::take(&mut state.gain),
            stored: 0,
        };
        let done = act(state, &mut sealer);
        state.gain = sealer.gain;
        state.unnamed += sealer.stored;
        self.count(state);
        done
    }

    /// The key for new blocks: the newest one of the file that nobody knows who was removed; if there is none, a new one.
    fn write_key(&self, state: &mut FileState) -> NamedKey {
        let is_clean = |key: &&NamedKey| self.replica.is_clean(&key.id);
        if let Some(key) = state.key.as_ref().filter(is_clean) {
            return key.clone();
        }
        let known = state.inode.keys.iter().rev().find(is_clean);
        if let Some(key) = known.cloned() {
            state.key = Some(key.clone());
            state.key_is_new = false;
            return key;
        }
        let key = NamedKey {
            id: self.replica.draw_key_id(),
            key: clock::random(&*self.entropy),
        };
        state.inode_mut().keys.push(key.clone());
        state.key = Some(key.clone());
        state.key_is_new = true;
        key
    }

    /// Brings the count of bytes in memory up to date.
    pub(crate) fn count(&self, state: &mut FileState) {
        let now = state.content.dirty_bytes();
        let before = std::mem::replace(&mut state.counted, now);
        if now >= before {
            self.dirty.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.dirty.fetch_sub(before - now, Ordering::Relaxed);
        }
        if state.content.is_modified() {
            state.since.get_or_insert_with(|| self.clock.monotonic());
        }
    }

    /// Makes room after a change: too many bytes in memory are sealed, too many sealed bytes are told to the tree.
    pub(crate) fn relieve(&self, file: &OpenFile, state: &mut FileState) -> Result<(), FsError> {
        if self.dirty.load(Ordering::Relaxed) > self.options.dirty_budget {
            self.with_sealer(file, state, |s, sealer| s.content.seal_dirty(sealer))?;
        }
        let part = self.journal.limit() / UNNAMED_PART;
        let max = match state.rewritten {
            true => part,
            false => UNNAMED_MAX.min(part),
        };
        if state.unnamed > max {
            self.flush_state(file, state)?;
        }
        Ok(())
    }

    /// Tells the tree what an open file holds. It is in the journal then, though not yet on stable storage. Waits for room there.
    pub(crate) fn flush_file(&self, file: &OpenFile) -> Result<(), FsError> {
        self.awaiting_room(|| self.flush_state(file, &mut file.state.lock()))
    }

    /// The same for who has locked the file, and so waits for no room.
    pub(crate) fn flush_state(
        &self,
        file: &OpenFile,
        state: &mut FileState,
    ) -> Result<(), FsError> {
        // Of a file without a name nobody is told.
        let told = !state.content.is_modified() || file.gone.lock().is_some();
        if told || self.options.read_only {
            return Ok(());
        }
        let known = self.known_of(file, state)?;
        let mut bodies =
            self.with_sealer(file, state, |s, sealer| s.content.prepare(sealer, known))?;
        let last = bodies.pop();
        for body in bodies {
            self.tell(file, state, body, None)?;
        }
        if let Some(body) = last {
            self.tell(file, state, body, file.noted())?;
        }
        state.content.committed();
        let (size, mtime) = (state.content.size(), state.mtime.take());
        let inode = state.inode_mut();
        inode.size = size;
        inode.mtime = mtime.unwrap_or(inode.mtime);
        state.since = None;
        (state.unnamed, state.shares) = (0, false);
        (state.rewritten, state.author) = (false, None);
        self.count(state);
        Ok(())
    }

    /// What the others know of the version that the file started from, whatever becomes of that meanwhile.
    fn known_of(&self, file: &OpenFile, state: &FileState) -> Result<Known, FsError> {
        let tree = self.replica.tree();
        if state::may_tell_part(&tree, file.ino, state.base)? {
            return Ok(Known::All);
        }
        let inode = state::inode(&tree, file.ino)?;
        Ok(Known::Few(match inode {
            Some(inode) if inode.version == state.base => {
                state::extents(&tree, file.ino, 0, u64::MAX)?
            }
            _ => Vec::new(),
        }))
    }

    /// Takes note of the attributes that the tree has, as long as it has the file.
    pub(crate) fn note_attributes(&self, file: &OpenFile) -> Result<(), FsError> {
        let mut state = file.state.lock();
        let tree = self.replica.tree();
        if let Some(inode) = state::inode(&tree, file.ino)? {
            state.attributes = attributes_to_tell(&tree, file.ino, &inode)?;
        }
        Ok(())
    }

    /// One operation with new contents.
    fn tell(
        &self,
        file: &OpenFile,
        state: &mut FileState,
        body: Body,
        settles: Option<u64>,
    ) -> Result<(), FsError> {
        let mtime = state.mtime.unwrap_or_else(|| self.now());
        state.mtime = Some(mtime);
        let mut tree = self.replica.tree();
        if file.gone.lock().is_some() {
            return Ok(());
        }
        let there = state::inode(&tree, file.ino)?;
        let was_there = there.is_some();
        if let Some(inode) = there {
            state.attributes = attributes_to_tell(&tree, file.ino, &inode)?;
            state.place = inode.links.first().cloned().or(state.place.take());
        }
        let place = state.place.as_ref().ok_or(FsError::NotFound)?;
        let dir_was_there = state::inode(&tree, place.dir)?.is_some();
        let keys = keys_to_tell(state, &body);
        let kind = OpKind::Write {
            ino: file.ino,
            base: state.base,
            size: state.content.size(),
            mtime,
            keys,
            body,
            place: Place {
                dir: place.dir,
                name: place.name.clone(),
                entry: place.entry,
            },
            attributes: state.attributes.clone(),
        };
        state.base = self.execute_settling(&mut tree, kind, settles)?;
        if !was_there {
            self.tell_revived(&tree, file.ino, !dir_was_there);
        }
        self.nodes.believe(file.node, state.base);
        self.holds.file_told(file.ino, state.base.counter);
        if self.leases.knows(file.ino) {
            self.publisher.hurry(state.base.counter);
        }
        if settles.is_some() {
            file.noted.store(0, Ordering::Release);
            self.forget_noted(state);
        }
        state.key_is_new = false;
        state.borrowed.clear();
        Ok(())
    }

    /// Of a file that another device had removed and a write here brought back, the kernel may know that its name leads nowhere; of the
    /// directories above it too, if these were gone. Of one that is there the kernel must not forget the name: programs stand in it.
    fn tell_revived(&self, tree: &TreeGuard<'_>, ino: Ino, with_dirs: bool) {
        let mut at = ino;
        for _ in 0..if with_dirs { DEPTH_MAX } else { 1 } {
            // Where the cache fails, the next operation says so.
            let inode = state::inode(tree, at).ok().flatten();
            let Some(link) = inode.and_then(|inode| inode.links.into_iter().next()) else {
                break;
            };
            at = link.dir;
            self.tell_names([(link.dir, link.name)]);
        }
    }

    /// Tells the tree what every open file holds. All are tried; the first error is returned.
    pub(crate) fn flush_all(&self) -> Result<(), FsError> {
        let mut first = Ok(());
        for file in self.files.all() {
            first = first.and(self.flush_and_discard(&file));
        }
        first
    }

    /// Tells the tree what files hold that were changed long enough ago.
    pub(crate) fn flush_old(&self) {
        let now = self.clock.monotonic();
        for file in self.files.all() {
            // Whoever holds the lock is at work; there is another time.
            let due = file.state.try_lock().is_some_and(|s| {
                let older = |than, time| now.saturating_sub(time) >= than;
                let after = match s.rewritten && file.writers.load(Ordering::Acquire) > 0 {
                    true => REWRITTEN_AFTER,
                    false => FLUSH_AFTER,
                };
                s.since.is_some_and(|since| older(after, since))
                    || s.noted.last.is_some_and(|last| older(REST, last.at))
                    || file.noted().is_some() && self.is_congested()
            });
            if !due {
                continue;
            }
            if let Err(error) = self.flush_and_discard(&file) {
                tracing::warn!(ino = file.ino.0, %error, "changes cannot be written yet");
                // Where there is no room now, `close` and `fsync` wait for it themselves.
                if !matches!(error, FsError::Data(DataError::Full { .. })) {
                    file.state.lock().error = Some(error);
                }
            }
        }
    }

    pub(crate) fn flush_and_discard(&self, file: &OpenFile) -> Result<(), FsError> {
        self.flush_file(file)?;
        // One that was closed while it could not be told is done with now.
        self.discard(file)
    }

    /// Lets go of a file that nobody has open and of which the tree knows everything.
    pub(crate) fn discard(&self, file: &OpenFile) -> Result<(), FsError> {
        if !self.files.discard(file) {
            return Ok(());
        }
        // Of a file without a name something may be left, in memory and in the journal.
        let mut state = file.state.lock();
        let left = std::mem::take(&mut state.counted);
        self.dirty.fetch_sub(left, Ordering::Relaxed);
        self.forget_noted(&mut state);
        self.settle(file)
    }

    /// Loads contents that the tree has for an open file.
    pub(crate) fn read_of(
        &self,
        at: &Stored,
        inode: &Inode,
        tree: &TreeGuard<'_>,
    ) -> Result<BlockRead, FsError> {
        let key = inode.key(at.key).ok_or(FsError::Lost {
            ino: at.origin_file.0,
            block: at.origin_block,
        })?;
        Ok(BlockRead {
            at: BlockRef {
                segment: at.segment,
                slot: at.first_slot,
            },
            info: self.segment_info(tree, at.segment)?,
            key_id: at.key,
            key: Arc::new(FileKey::from_bytes(key.key)),
            origin_file: at.origin_file,
            origin_block: at.origin_block,
        })
    }

    fn segment_info(
        &self,
        tree: &TreeGuard<'_>,
        id: SegmentId,
    ) -> Result<Option<Arc<SegmentInfo>>, FsError> {
        Ok(state::segment(tree, id)?.map(Arc::new))
    }

    /// What the data layer needs to read stored blocks of an open file.
    pub(crate) fn reads_of(
        &self,
        stored: &[Stored],
        inode: &Inode,
    ) -> Result<Vec<BlockRead>, FsError> {
        let tree = self.replica.tree();
        stored
            .iter()
            .map(|at| self.read_of(at, inode, &tree))
            .collect()
    }

    /// Reads blocks; waits for the storage where they are not in memory.
    pub(crate) fn fetch(&self, reads: Vec<BlockRead>) -> Result<Vec<Block>, FsError> {
        let cached: Option<Vec<Block>> = reads.iter().map(|r| self.data.cached(r)).collect();
        if let Some(blocks) = cached {
            return Ok(blocks);
        }
        let blocks = self.wait(self.reading_deadline(), async {
            let blocks = self.data.read(reads).await;
            blocks
                .into_iter()
                .map(|b| b.map_err(FsError::from))
                .collect()
        });
        blocks.inspect_err(|error| {
            tracing::error!(%error, "contents cannot be read");
            if let FsError::Data(error) = error {
                self.data.note_damage(error);
            }
        })
    }

    /// Brings a block that an edit needs to memory. The file is unlocked meanwhile.
    pub(crate) fn bring(&self, file: &OpenFile, missing: Missing) -> Result<(), FsError> {
        let fetch = || {
            let inode = file.state.lock().inode.clone();
            self.fetch(self.reads_of(&[missing.at], &inode)?)
        };
        let blocks = match fetch() {
            Err(error) if error.is_missing() => {
                self.find_again(file)?;
                fetch()?
            }
            blocks => blocks?,
        };
        let mut state = file.state.lock();
        if let Some(block) = blocks.first() {
            state.content.admit(missing, block);
        }
        Ok(())
    }

    /// A segment is not where the tree says: it may have been declared or replaced meanwhile. Looks for changes, and takes the file as
    /// the tree has it now, if that is what was opened.
    pub(crate) fn find_again(&self, file: &OpenFile) -> Result<(), FsError> {
        self.look_again();
        let mut state = file.state.lock();
        if state.content.is_modified() || file.gone.lock().is_some() {
            return Ok(());
        }
        let (inode, content) = match self.loaded(file.ino) {
            Err(FsError::NotFound) => return Ok(()),
            found => found?,
        };
        if inode.version == state.base {
            state.content = content;
            *state.inode_mut() = inode;
            self.count(&mut state);
        }
        Ok(())
    }

    /// The inode as the tree has it, for loading contents.
    pub(crate) fn loaded(&self, ino: Ino) -> Result<(Inode, Content), FsError> {
        let tree = self.replica.tree();
        let (ino, inode) = inode_of(&tree, ino)?;
        let content = match &inode.inline {
            Some(bytes) => Content::inline(inode.size, bytes.clone()),
            None => {
                let extents = state::extents(&tree, ino, 0, u64::MAX)?;
                Content::stored(inode.size, extents)
            }
        };
        Ok((inode, content))
    }
}

/// The keys that an operation brings along: those that the tree does not have, and those that its extents name, so that the file can be made
/// again from the operation if another device removed it.
fn keys_to_tell(state: &FileState, body: &Body) -> Vec<NamedKey> {
    let own = state.key.iter().filter(|_| state.key_is_new);
    let mut keys: Vec<NamedKey> = own.chain(&state.borrowed).cloned().collect();
    if let Body::Extents { list, .. } = body {
        for extent in list {
            let Held::Stored(stored) = extent.content else {
                continue;
            };
            let known = keys.iter().any(|k| k.id == stored.key);
            if !known && keys.len() < NEW_KEYS_MAX {
                keys.extend(state.inode.key(stored.key).cloned());
            }
        }
    }
    keys
}
