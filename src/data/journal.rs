//! The write-back journal: an append-only log on the local disk of what the storage does not have yet
//! (docs/durability.md). Operations and sealed blocks share it, so that one `fdatasync` makes both durable;
//! threads that wait for one share it too.

mod file;
pub mod record;
mod replay;

use crate::error::DataError;
use crate::segment::{Entry, Place};
use bytes::Bytes;
use file::{LogFile, Output, Piece, Spares};
use parking_lot::{Condvar, Mutex, MutexGuard};
use record::{FILE_HEADER_LEN, FileId, Framing, Record, framed_len};
use skrin_base::clock::random;
use skrin_base::ids::{Hash32, LaneId, SegmentId, VaultId};
use skrin_base::limits::OP_MAX;
use skrin_base::wire::Encode;
use skrin_base::{Entropy, Errno};
use skrin_crypto::LocalKey;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use record::Lsn;
pub use replay::{BlockPos, Finding, Replay, ReplayedSegment};

/// Buffered bytes after which the appending thread writes them out (without a sync).
const QUEUE_WRITE: usize = 256 * 1024;
/// Buffered bytes after which appending threads wait for the disk.
const QUEUE_MAX: usize = 8 * 1024 * 1024;
/// Segment numbers reserved at a time: one synced record for so many segments.
const NUMBERS_AT_ONCE: u64 = 64;

/// A log as short as this is read at once.
const SHORT_LOG: u32 = 16 * 1024;

/// Room for what a file begins with, and for some more marks.
const SHORT_LOG_ROOM: u64 = 64 * 1024;

/// More than the record of a block takes without the block.
const BLOCK_HEAD_MAX: u64 = 128;

/// How a journal is opened.
pub struct JournalConfig {
    /// Its directory; made if it is not there.
    pub dir: PathBuf,
    /// Whose.
    pub vault: VaultId,
    /// The local key of purpose `journal`.
    pub key: LocalKey,
    /// Length of one log file; 64 MiB is good.
    pub file_len: u32,
    /// Bytes of log files after which blocks are refused until something is released. Operations and marks may take one file more.
    pub max_bytes: u64,
    /// How long an append waits for room. Whoever appends may hold what those need who make some, so that waiting is better done elsewhere.
    pub patience: Duration,
}

impl JournalConfig {
    /// A journal of 64 MiB files that holds up to `max_bytes` and refuses at once what finds no room.
    pub fn new(dir: PathBuf, vault: VaultId, key: LocalKey, max_bytes: u64) -> Self {
        Self {
            dir,
            vault,
            key,
            file_len: 64 << 20,
            max_bytes,
            patience: Duration::ZERO,
        }
    }
}

/// Whether a block has to wait for room in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// It is new and waits until something else is on the storage.
    Wait,
    /// The journal holds edits of it already, and can only let go of them with it: it may take one log file above the bound.
    Owed,
}

/// How much more than its bound the journal may take for a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A new block, which can wait: nothing.
    New,
    /// Operations, of which some make room, and blocks that were admitted: one file.
    Admitted,
    /// What ends a segment or says that something is on the storage: as much as it takes, or nothing could ever be released.
    Mark,
}

/// The log. All methods may be called from any thread; they block on the local disk only.
pub struct Journal {
    config: JournalConfig,
    entropy: Arc<dyn Entropy>,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    /// Oldest first; the last one is written to.
    files: VecDeque<LogFile>,
    spares: Spares,
    queue: Vec<Piece>,
    queued: usize,
    /// Where the next record goes, and how far the log is written and on stable storage.
    end: Lsn,
    written: Lsn,
    synced: Lsn,
    /// The last file of earlier runs. It may hold nothing, not even what a file repeats of those before it: the power may have failed
    /// when it was begun.
    opened: u32,
    /// Written and not synced.
    output: Output,
    /// Somebody is writing.
    busy: bool,
    /// After a failed sync nobody knows what the disk has: no promise is made any more.
    failed: Option<DataError>,
    released: u64,
    lanes: BTreeMap<LaneId, u64>,
    /// Edits that are superfluous once the log is synced up to there.
    settling: Vec<(Lsn, u64)>,
    closed: bool,
}

/// A record that was appended.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// Syncing up to here makes it durable.
    pub lsn: Lsn,
    /// Where its payload stands.
    pub payload: BlockPos,
}

impl Journal {
    /// Opens the journal and reads what it holds. A torn tail is cut off; damage is reported in `Replay::findings` and left
    /// where it is.
    ///
    /// # Errors
    /// `LocalDisk`.
    pub fn open(
        config: JournalConfig,
        entropy: Arc<dyn Entropy>,
    ) -> Result<(Self, Replay), DataError> {
        file::make_dir(&config.dir)?;
        let found = file::list(&config.dir)?;
        let mut replayer = replay::Replayer::new(&config.key, config.vault);
        // A file is synced before the next one is written to: not before that one is begun.
        let written = |(id, path): &(FileId, PathBuf)| replayer.is_written(*id, path);
        let last = found.logs.iter().rposition(written).unwrap_or(0);
        for (n, (id, path)) in found.logs.iter().enumerate() {
            let end = replayer.file(*id, path, n >= last)?;
            // What was read may be in the page cache only, if the last process was killed.
            match n >= last {
                true => file::cut(path, end)?,
                false => file::sync(path)?,
            }
        }
        let (replay, old) = replayer.finish();
        let files: VecDeque<_> = old
            .into_iter()
            .map(LogFile::reopen)
            .collect::<Result<_, _>>()?;
        let end = files
            .back()
            .map_or(Lsn::new(0, 0), |f| Lsn::new(f.id.number, f.end));
        let state = State {
            files,
            spares: found.spares,
            queue: Vec::new(),
            queued: 0,
            end,
            written: end,
            synced: end,
            opened: end.file(),
            output: Output::default(),
            busy: false,
            failed: None,
            released: replay.released,
            lanes: replay.numbers.clone(),
            settling: Vec::new(),
            closed: false,
        };
        let journal = Self {
            config,
            entropy,
            state: Mutex::new(state),
            wake: Condvar::new(),
        };
        Ok((journal, replay))
    }

    /// Appends an operation. Counters rise. It is buffered: `sync` makes it durable. With it the edits that it `settles` are forgotten:
    /// both or neither survive a crash.
    ///
    /// # Errors
    /// `Full`, `LocalDisk`; then nothing was accepted.
    pub fn append_op(
        &self,
        counter: u64,
        bytes: &[u8],
        settles: Option<u64>,
    ) -> Result<Lsn, DataError> {
        if bytes.len() > OP_MAX {
            return Err(DataError::Invalid(
                "an operation longer than the format allows",
            ));
        }
        let record = Record::Op {
            counter,
            settles,
            bytes,
        };
        // What settles edits lets go of a log file.
        let class = match settles {
            None => Class::Admitted,
            Some(_) => Class::Mark,
        };
        let appended = self.append(&record, Bytes::new(), class, |file| {
            file.max_op = file.max_op.max(counter);
        })?;
        if let Some(number) = settles {
            self.settle_after(appended.lsn, number);
        }
        Ok(appended.lsn)
    }

    /// Appends bytes of an open file that no operation names yet, for those who wait for a sync and not for a whole block. They come back
    /// after a crash, in this order, until they are settled.
    ///
    /// # Errors
    /// `Full`, `LocalDisk`; then nothing was accepted.
    pub fn append_edits(&self, number: u64, bytes: &[u8]) -> Result<Lsn, DataError> {
        if bytes.len() > OP_MAX {
            return Err(DataError::Invalid("edits longer than a record"));
        }
        let record = Record::Edits { number, bytes };
        let appended = self.append(&record, Bytes::new(), Class::New, |file| {
            file.edits.insert(number);
        })?;
        Ok(appended.lsn)
    }

    /// Forgets edits that nobody wants any more.
    ///
    /// # Errors
    /// `LocalDisk`.
    pub fn settle(&self, number: u64) -> Result<(), DataError> {
        let record = Record::Settled { number };
        let appended = self.append(&record, Bytes::new(), Class::Mark, |_| ())?;
        self.settle_after(appended.lsn, number);
        Ok(())
    }

    /// The files with these edits are not needed for them once the log is synced up to `lsn`.
    fn settle_after(&self, lsn: Lsn, number: u64) {
        let mut s = self.state.lock();
        s.settling.push((lsn, number));
        s.forget_settled();
        drop(s);
        // Who waits for room may now have it with a sync.
        self.wake.notify_all();
    }

    /// Notes that a segment was begun.
    pub(crate) fn append_begin(
        &self,
        place: &Place,
        table_key: &[u8; 32],
    ) -> Result<Lsn, DataError> {
        let Place {
            room,
            segment,
            author,
            number,
            ..
        } = *place;
        let record = Record::Begin {
            room,
            segment,
            author,
            number,
            table_key: *table_key,
        };
        let appended = self.append(&record, Bytes::new(), Class::Mark, |f| f.holds(segment))?;
        Ok(appended.lsn)
    }

    /// Waits until a block of `len` bytes may be written.
    ///
    /// # Errors
    /// `Full` after the configured patience, `LocalDisk`.
    pub(crate) fn admit(&self, len: usize, room: Room) -> Result<(), DataError> {
        let class = match room {
            Room::Wait => Class::New,
            Room::Owed => Class::Admitted,
        };
        self.with_room(framed_len(&[], len) + BLOCK_HEAD_MAX, class)
            .map(drop)
    }

    /// Appends a sealed block of a segment that was begun; it was admitted before.
    pub(crate) fn append_block(
        &self,
        segment: SegmentId,
        slot: u32,
        entry: Entry,
        sealed: Bytes,
    ) -> Result<Appended, DataError> {
        let record = Record::Block {
            segment,
            slot,
            entry,
        };
        self.append(&record, sealed, Class::Admitted, |f| f.holds(segment))
    }

    /// Notes that a segment was ended, with its sealed table.
    pub(crate) fn append_close(
        &self,
        segment: SegmentId,
        slots: u32,
        table_hash: Hash32,
        table: Bytes,
    ) -> Result<Appended, DataError> {
        let record = Record::Close {
            segment,
            slots,
            table_hash,
        };
        self.append(&record, table, Class::Mark, |f| f.holds(segment))
    }

    /// Says once more how a segment began that was ended: who loses the first record has its table all the same.
    pub(crate) fn append_again(
        &self,
        place: &Place,
        table_key: &[u8; 32],
    ) -> Result<Appended, DataError> {
        let Place {
            room,
            segment,
            author,
            number,
            ..
        } = *place;
        let record = Record::Again {
            room,
            segment,
            author,
            number,
            table_key: *table_key,
        };
        self.append(&record, Bytes::new(), Class::Mark, |f| f.holds(segment))
    }

    /// Notes that the storage has a segment. Losing the note costs a repeated upload.
    pub(crate) fn append_durable(&self, segment: SegmentId) -> Result<(), DataError> {
        self.append(
            &Record::Durable { segment },
            Bytes::new(),
            Class::Mark,
            |_| (),
        )
        .map(drop)
    }

    /// The next segment numbers of a lane, never given out before, not even before a crash.
    ///
    /// # Errors
    /// `LocalDisk`, `Full`.
    pub(crate) fn reserve(&self, lane: LaneId) -> Result<Range<u64>, DataError> {
        let from = self.reserved(lane);
        let until = from + NUMBERS_AT_ONCE;
        // Known before the record is: a file begun in between repeats it. If this fails, the numbers are never used.
        self.state.lock().lanes.insert(lane, until);
        let record = Record::Reserve { lane, until };
        let appended = self.append(&record, Bytes::new(), Class::Mark, |_| ())?;
        self.sync(appended.lsn)?;
        Ok(from..until)
    }

    /// From now on this lane alone gets numbers, and none below, which are in use whether this journal knows it or not. A device that has left a
    /// lane never comes back to it, and each file repeats what is known of all.
    pub(crate) fn only(&self, lane: LaneId, below: u64) {
        let mut s = self.state.lock();
        s.lanes.retain(|other, _| *other == lane);
        let known = s.lanes.entry(lane).or_default();
        if *known < below {
            tracing::warn!(%lane, below, known = *known, "the journal has forgotten which segments this device has written");
            *known = below;
        }
    }

    /// A segment has this number, whether this journal still knows that it was reserved or not.
    pub(crate) fn note_used(&self, lane: LaneId, number: u64) {
        let mut s = self.state.lock();
        let known = s.lanes.entry(lane).or_default();
        *known = number.saturating_add(1).max(*known);
    }

    /// Keeps no file any more for segments with which nobody can do anything.
    pub(crate) fn let_go(&self, segments: &[SegmentId]) {
        let mut s = self.state.lock();
        for file in &mut s.files {
            file.segments.retain(|id| !segments.contains(id));
        }
    }

    /// The first segment number of a lane that was not reserved yet.
    pub(crate) fn reserved(&self, lane: LaneId) -> u64 {
        self.state.lock().lanes.get(&lane).copied().unwrap_or(0)
    }

    /// Forgets what is on the storage for good: operations up to `counter`, and segments that a confirmed commit declares. Log files that
    /// hold nothing else are used again or deleted.
    ///
    /// # Errors
    /// `LocalDisk`. What was released stays released.
    pub fn release(&self, counter: u64, segments: &[SegmentId]) -> Result<(), DataError> {
        let known = self.state.lock().released;
        for segment in segments {
            let record = Record::Declared { segment: *segment };
            self.append(&record, Bytes::new(), Class::Mark, |_| ())?;
        }
        if counter > known {
            let record = Record::Released { counter };
            self.append(&record, Bytes::new(), Class::Mark, |_| ())?;
        }
        let mut s = self.state.lock();
        s.released = counter.max(s.released);
        for file in &mut s.files {
            segments.iter().for_each(|id| {
                file.segments.remove(id);
            });
        }
        let freed = s.free_files();
        drop(s);
        self.wake.notify_all();
        freed
    }

    /// Returns when everything up to `lsn` is on stable storage. Callers that wait at the same time share one `fdatasync`.
    ///
    /// # Errors
    /// `LocalDisk`: it is not on stable storage. After a failed write (a full disk) it may be tried again, and nothing was lost;
    /// after a failed sync the journal makes no promise until it is opened again.
    pub fn sync(&self, lsn: Lsn) -> Result<(), DataError> {
        let mut s = self.state.lock();
        loop {
            if s.synced >= lsn.min(s.end) {
                return Ok(());
            }
            if let Some(e) = &s.failed {
                return Err(e.clone());
            }
            if s.busy {
                self.wake.wait(&mut s);
                continue;
            }
            s = self.write_out(s, true)?;
        }
    }

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    /// As `sync`.
    pub fn sync_all(&self) -> Result<(), DataError> {
        let end = self.state.lock().end;
        self.sync(end)
    }

    /// Hands buffered records to the operating system, so that a killed process loses nothing; call it about once a second.
    ///
    /// # Errors
    /// `LocalDisk`; nothing was lost.
    pub fn flush(&self) -> Result<(), DataError> {
        let s = self.state.lock();
        if s.busy || s.queue.is_empty() {
            return Ok(());
        }
        self.write_out(s, false).map(drop)
    }

    /// Ends the journal: everything is durable, unused room is given back, and of a log in which nothing is needed only a beginning
    /// is left for the next replay to read. Appending is refused from then on.
    ///
    /// # Errors
    /// `LocalDisk`.
    pub fn close(&self) -> Result<(), DataError> {
        self.state.lock().closed = true;
        self.sync_all()?;
        if let Err(error) = self.begin_anew() {
            tracing::debug!(%error, "the next mount reads a log in which nothing is needed");
        }
        let mut s = self.state.lock();
        s.spares.clear();
        match s.files.back() {
            Some(file) => file::cut(&file.path, file.end.into()),
            None => Ok(()),
        }
    }

    fn begin_anew(&self) -> Result<(), DataError> {
        let mut s = self.state.lock();
        let unneeded = |file: &LogFile| file.end > SHORT_LOG && !file.is_needed(s.released);
        if s.files.back().is_some_and(unneeded) {
            self.begin_file(&mut s, self.config.file_len.into())?;
            drop(self.write_out(s, true)?);
        }
        Ok(())
    }

    /// How far the log was handed to the operating system; payloads up to there can be read back.
    pub(crate) fn written(&self) -> Lsn {
        self.state.lock().written
    }

    /// Bytes that the log files take.
    pub fn allocated(&self) -> u64 {
        self.state.lock().allocated()
    }

    /// The bound after which blocks are refused.
    pub fn limit(&self) -> u64 {
        self.config.max_bytes
    }

    /// Reads a payload back; `None` when its file was released meanwhile.
    pub(crate) fn read(&self, pos: BlockPos) -> Result<Option<Vec<u8>>, DataError> {
        let Some((file, path)) = self.state.lock().file(pos.at) else {
            return Ok(None);
        };
        let mut out = vec![0; pos.len as usize];
        file::read_at(&file, &path, &mut out, pos.at.offset())?;
        // A file that was released meanwhile may have been overwritten while we read.
        let still = self.state.lock().file(pos.at).is_some();
        Ok(still.then_some(out))
    }

    fn append(
        &self,
        record: &Record<'_>,
        payload: Bytes,
        class: Class,
        track: impl FnOnce(&mut LogFile),
    ) -> Result<Appended, DataError> {
        let plain = zeroize::Zeroizing::new(record.to_bytes());
        let need = framed_len(&plain, payload.len());
        let mut s = self.with_room(need, class)?;
        let appended = self.push(&mut s, &plain, payload, track)?;
        if s.queued >= QUEUE_WRITE && !s.busy {
            // The record is accepted; what fails to be written now stays queued for the sync that somebody waits for.
            if let Err(error) = self.write_out(s, false) {
                tracing::warn!(%error, "the journal cannot be written");
            }
        }
        Ok(appended)
    }

    /// Seals a record at the end of the current file, which has room for it.
    fn push(
        &self,
        s: &mut State,
        plain: &[u8],
        payload: Bytes,
        track: impl FnOnce(&mut LogFile),
    ) -> Result<Appended, DataError> {
        let synced = s.synced;
        let file = s.files.back_mut().ok_or(DataError::Stopped)?;
        let framing = Framing {
            key: &self.config.key,
            vault: self.config.vault,
            file: file.id,
        };
        let (offset, len) = (file.end, payload.len() as u32);
        let head = framing.frame(offset, synced, plain, len, &*self.entropy);
        let start = offset + head.len() as u32;
        file.end = start + len;
        track(file);
        let (number, end) = (file.id.number, file.end);
        let piece = Piece {
            file: Arc::clone(&file.file),
            path: Arc::clone(&file.path),
            offset,
            head,
            payload,
        };
        s.queued += (end - offset) as usize;
        s.queue.push(piece);
        s.end = Lsn::new(number, end);
        let payload = BlockPos {
            at: Lsn::new(number, start),
            len,
        };
        Ok(Appended {
            lsn: s.end,
            payload,
        })
    }

    /// Waits until a record of `need` bytes fits, beginning a new file where that is allowed.
    fn with_room(&self, need: u64, class: Class) -> Result<MutexGuard<'_, State>, DataError> {
        let deadline = Instant::now() + self.config.patience;
        let mut s = self.state.lock();
        loop {
            if let Some(e) = &s.failed {
                return Err(e.clone());
            }
            if s.closed {
                return Err(DataError::Stopped);
            }
            if s.queued >= QUEUE_MAX {
                if s.busy {
                    self.wake.wait(&mut s);
                } else {
                    s = self.write_out(s, false)?;
                }
                continue;
            }
            // What is set aside for operations is not for contents.
            let may =
                class != Class::New || s.files.len() == 1 || s.needed() <= self.config.max_bytes;
            if may && s.files.back().is_some_and(|f| f.room() >= need) {
                return Ok(s);
            }
            let len = need.max(self.config.file_len.into()) + 4096;
            let extra = match class {
                Class::New => 0,
                Class::Admitted => len,
                Class::Mark => u64::MAX / 2,
            };
            let (used, limit) = (s.needed(), self.config.max_bytes);
            if used + len <= limit + extra || used == 0 {
                match self.begin_file(&mut s, len) {
                    // What lets go of files has to find room where there is hardly any.
                    Err(error) if error.errno() == Errno::ENOSPC && class == Class::Mark => {
                        self.begin_file(&mut s, need + SHORT_LOG_ROOM)?;
                    }
                    begun => begun?,
                }
            } else if s.awaits_sync() {
                // Nobody but the disk is waited for here.
                if s.busy {
                    self.wake.wait(&mut s);
                } else {
                    s = self.write_out(s, true)?;
                    // What cannot be given up is told, and not tried for ever.
                    s.free_files()?;
                }
            } else if s.is_front_free() && s.end.file() <= s.opened {
                // Files of earlier runs are let go of with the first one of this run.
                self.begin_file(&mut s, len)?;
            } else if self.wake.wait_until(&mut s, deadline).timed_out() {
                return Err(DataError::Full { used, limit });
            }
        }
    }

    fn begin_file(&self, s: &mut State, len: u64) -> Result<(), DataError> {
        let number = s.end.file() + 1;
        let id = FileId {
            number,
            marker: random(&*self.entropy),
        };
        let file = LogFile::create(&self.config.dir, id, len as u32, &mut s.spares)?;
        let previous = (number > 1).then_some(s.end);
        let lanes = s
            .lanes
            .iter()
            .map(|(lane, until)| (*lane, *until))
            .collect();
        let start = Record::Start {
            previous,
            released: s.released,
            lanes,
        };
        s.queue.push(Piece {
            file: Arc::clone(&file.file),
            path: Arc::clone(&file.path),
            offset: 0,
            head: id.header().to_vec(),
            payload: Bytes::new(),
        });
        s.queued += FILE_HEADER_LEN;
        s.files.push_back(file);
        self.push(s, &start.to_bytes(), Bytes::new(), |_| ())
            .map(drop)
    }

    /// Writes what is queued, and syncs it if asked to, without holding the lock. What cannot be written stays queued.
    fn write_out<'a>(
        &'a self,
        mut s: MutexGuard<'a, State>,
        sync: bool,
    ) -> Result<MutexGuard<'a, State>, DataError> {
        s.busy = true;
        let target = s.end;
        let pieces = std::mem::take(&mut s.queue);
        let queued = std::mem::take(&mut s.queued);
        let mut output = std::mem::take(&mut s.output);
        drop(s);
        let written = output.write(&pieces);
        let synced = if written.is_ok() && sync {
            output.sync()
        } else {
            Ok(())
        };
        let mut s = self.state.lock();
        s.busy = false;
        s.output = output;
        if let Err(e) = &synced {
            s.failed = Some(e.clone());
        }
        match &written {
            Ok(()) => s.written = target,
            Err(e) => {
                if e.is_final() {
                    s.failed = Some(e.error().clone());
                }
                let newer = std::mem::replace(&mut s.queue, pieces);
                s.queue.extend(newer);
                s.queued += queued;
            }
        }
        if sync && written.is_ok() && synced.is_ok() {
            s.synced = target;
            s.forget_settled();
            // The record is durable all the same; the file is tried again at the next release.
            if let Err(error) = s.free_files() {
                tracing::warn!(%error, "a journal file that is not needed any more cannot be removed");
            }
        }
        self.wake.notify_all();
        written.map_err(|e| e.error().clone())?;
        synced.map(|()| s)
    }
}

impl State {
    fn allocated(&self) -> u64 {
        self.files.iter().map(|f| u64::from(f.capacity)).sum()
    }

    /// Bytes of files that cannot be given up yet.
    fn needed(&self) -> u64 {
        let last = self.files.back().filter(|f| !f.is_needed(self.released));
        self.allocated() - last.map_or(0, |f| u64::from(f.capacity))
    }

    /// Whether a sync would let a file be given up.
    fn awaits_sync(&self) -> bool {
        let is_repeated = self.end.file() > self.opened;
        let goes = self.is_front_free() || !self.settling.is_empty();
        self.files.len() > 1 && is_repeated && goes
    }

    fn is_front_free(&self) -> bool {
        let front = self.files.front();
        front.is_some_and(|file| !file.is_needed(self.released))
    }

    /// Lets go of edits whose successor is on stable storage.
    fn forget_settled(&mut self) {
        let synced = self.synced;
        let files = &mut self.files;
        self.settling.retain(|(lsn, number)| {
            let wait = *lsn > synced;
            if !wait {
                files.iter_mut().for_each(|file| {
                    file.edits.remove(number);
                });
            }
            wait
        });
    }

    fn file(&self, at: Lsn) -> Option<(Arc<std::fs::File>, Arc<std::path::Path>)> {
        let first = self.files.front()?.id.number;
        let nth = at.file().checked_sub(first)? as usize;
        // Of two with one number one holds nothing: neither it nor its name could be synced, nor could it be removed.
        let fits = |f: &&LogFile| f.id.number == at.file() && at.offset() <= f.end;
        // Numbers follow each other unless a file was missing.
        let file = self
            .files
            .get(nth)
            .filter(fits)
            .or_else(|| self.files.iter().find(fits))?;
        Some((Arc::clone(&file.file), Arc::clone(&file.path)))
    }

    /// Gives up files from the oldest on, as long as nothing in them is needed and a later one, begun by this run, is on stable storage: it
    /// repeats what must outlive them.
    fn free_files(&mut self) -> Result<(), DataError> {
        while self.files.len() > 1 {
            let Some(front) = self.files.front() else {
                break;
            };
            let last_alone = front.id.number.max(self.opened);
            if front.is_needed(self.released) || self.synced.file() <= last_alone {
                break;
            }
            self.spares.take_over(front)?;
            self.files.pop_front();
        }
        Ok(())
    }
}

/// Segments that a file holds something of.
type Held = BTreeSet<SegmentId>;

#[cfg(test)]
mod tests;
