//! Reading the log back after a crash or an unmount.

use super::record::{FILE_HEADER_LEN, FileId, Framing, Lsn, Parsed, Record};
use crate::error::DataError;
use crate::segment::{Entry, Place};
use skrin_base::ids::{LaneId, SegmentId, VaultId};
use skrin_crypto::LocalKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Something that replay met and that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The end of the last file was not wholly written when the machine stopped. Normal after a crash: nothing in it was ever
    /// acknowledged by a sync.
    TornTail {
        /// The file.
        file: PathBuf,
        /// Where the whole records end.
        offset: u64,
    },
    /// Records that had reached stable storage are damaged: acknowledged data may be lost. What could be read was kept.
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// Where the next good record stands, or the file ends.
        end: u64,
    },
    /// A whole file is missing between two others.
    MissingFile {
        /// Its number.
        number: u32,
    },
}

/// A segment that is not declared yet, as the journal knows it.
pub struct ReplayedSegment {
    segment: SegmentId,
    /// Which segment it is, and what seals its table; `None` where the record of its beginning is damaged.
    pub(crate) begun: Option<(Place, [u8; 32])>,
    /// What each slot holds and where; `None` was given up or lost.
    pub(crate) slots: Vec<Option<(Entry, BlockPos)>>,
    /// The number of slots and the sealed table, when it was ended.
    pub(crate) closed: Option<(u32, BlockPos)>,
    /// Whether the storage had confirmed it.
    pub(crate) durable: bool,
}

impl ReplayedSegment {
    fn new(segment: SegmentId) -> Self {
        Self {
            segment,
            begun: None,
            slots: Vec::new(),
            closed: None,
            durable: false,
        }
    }

    /// Its name.
    pub fn id(&self) -> SegmentId {
        self.segment
    }

    /// Bytes of sealed blocks in it.
    pub fn bytes(&self) -> u64 {
        self.slots
            .iter()
            .flatten()
            .map(|(_, pos)| u64::from(pos.len))
            .sum()
    }
}

/// Where bytes stand in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockPos {
    pub(crate) at: Lsn,
    pub(crate) len: u32,
}

/// Everything that was accepted and is not yet on the storage for good.
#[derive(Default)]
pub struct Replay {
    /// Operations that were not released, in the order in which they were appended: counter and bytes.
    pub ops: Vec<(u64, Vec<u8>)>,
    /// Edits that were not settled, in the order in which they were appended: number and bytes.
    pub edits: Vec<(u64, Vec<u8>)>,
    /// Segments that were not declared.
    pub segments: Vec<ReplayedSegment>,
    /// For each lane the first segment number that was certainly never used.
    pub numbers: BTreeMap<LaneId, u64>,
    /// The last operation known to be released; 0 when none.
    pub released: u64,
    /// What was not as it should be.
    pub findings: Vec<Finding>,
}

/// A log file as replay leaves it.
pub(super) struct OldFile {
    pub(super) id: FileId,
    pub(super) path: PathBuf,
    pub(super) end: u32,
    pub(super) max_op: u64,
    pub(super) segments: BTreeSet<SegmentId>,
    pub(super) edits: BTreeSet<u64>,
}

/// Replays files one after the other.
pub(super) struct Replayer<'a> {
    key: &'a LocalKey,
    vault: VaultId,
    replay: Replay,
    segments: HashMap<SegmentId, ReplayedSegment>,
    order: Vec<SegmentId>,
    pub(super) files: Vec<OldFile>,
}

/// What ended the reading of a file.
enum Stop {
    /// The end of its bytes.
    Clean,
    /// Unsynced bytes that are no record.
    Torn(usize),
}

impl<'a> Replayer<'a> {
    pub(super) fn new(key: &'a LocalKey, vault: VaultId) -> Self {
        Self {
            key,
            vault,
            replay: Replay::default(),
            segments: HashMap::new(),
            order: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Whether there is a record in a file: then the one before it was synced.
    pub(super) fn is_written(&self, id: FileId, path: &Path) -> bool {
        let framing = self.framing(id);
        let bytes = std::fs::read(path).unwrap_or_default();
        framing.find(&bytes, FILE_HEADER_LEN).is_some()
    }

    fn framing(&self, file: FileId) -> Framing<'a> {
        let (key, vault) = (self.key, self.vault);
        Framing { key, vault, file }
    }

    /// Reads one file; files come in the order of their numbers. `last`: no later one proves that it was synced to its end. Returns where its records end.
    pub(super) fn file(&mut self, id: FileId, path: &Path, last: bool) -> Result<u64, DataError> {
        let bytes =
            std::fs::read(path).map_err(|e| DataError::disk("read the journal", path, e))?;
        self.note_missing(id.number);
        self.files.push(OldFile {
            id,
            path: path.to_owned(),
            end: bytes.len() as u32,
            max_op: 0,
            segments: BTreeSet::new(),
            edits: BTreeSet::new(),
        });
        let Stop::Torn(at) = self.records(id, path, &bytes, last) else {
            return Ok(bytes.len() as u64);
        };
        if let Some(file) = self.files.last_mut() {
            file.end = at as u32;
        }
        // Zeros, or remains of the file's earlier life, are no record that was begun.
        if bytes
            .get(at..)
            .is_some_and(|rest| rest.starts_with(&id.marker))
        {
            let (file, offset) = (path.to_owned(), at as u64);
            self.replay
                .findings
                .push(Finding::TornTail { file, offset });
        }
        Ok(at as u64)
    }

    fn note_missing(&mut self, number: u32) {
        let Some(previous) = self.files.last() else {
            return;
        };
        for number in previous.id.number.saturating_add(1)..number {
            self.replay.findings.push(Finding::MissingFile { number });
        }
    }

    fn records(&mut self, id: FileId, path: &Path, bytes: &[u8], last: bool) -> Stop {
        let framing = self.framing(id);
        let mut at = FILE_HEADER_LEN.min(bytes.len());
        while at < bytes.len() {
            let parsed = match framing.parse(bytes, at) {
                Some(parsed) => parsed,
                None => match self.after_damage(&framing, path, bytes, at, last) {
                    Some((next, parsed)) => {
                        let (file, offset, end) = (path.to_owned(), at as u64, next as u64);
                        self.replay
                            .findings
                            .push(Finding::Corrupt { file, offset, end });
                        parsed
                    }
                    None => return Stop::Torn(at),
                },
            };
            at = parsed.payload.end;
            self.apply(id, &parsed);
        }
        Stop::Clean
    }

    /// The next record behind a damaged place that had been synced; `None` where the rest is a tail that nobody was promised.
    fn after_damage(
        &self,
        framing: &Framing<'_>,
        path: &Path,
        bytes: &[u8],
        at: usize,
        last: bool,
    ) -> Option<(usize, Parsed)> {
        let damaged = Lsn::new(framing.file.number, at as u32);
        let first = framing.find(bytes, at + 1);
        // In an earlier file everything had been synced before the next file was written to.
        let mut proven = !last;
        let mut from = first.as_ref().map(|(next, _)| *next);
        while let Some(next) = from.filter(|_| !proven) {
            from = framing.find(bytes, next).map(|(next, parsed)| {
                proven = parsed.synced > damaged;
                next + 1
            });
        }
        if first.is_none() || !proven {
            tracing::debug!(file = %path.display(), at, "the whole records of a journal file end here");
        }
        first.filter(|_| proven)
    }

    fn apply(&mut self, file: FileId, parsed: &Parsed) {
        let Ok(record) = parsed.record() else { return };
        let again = matches!(record, Record::Again { .. });
        let pos = BlockPos {
            at: Lsn::new(file.number, parsed.payload.start as u32),
            len: parsed.payload.len() as u32,
        };
        match record {
            Record::Start {
                previous,
                released,
                lanes,
            } => self.start(file, previous, released, lanes),
            Record::Op {
                counter,
                settles,
                bytes,
            } => {
                self.replay.ops.push((counter, bytes.to_vec()));
                if let Some(file) = self.files.last_mut() {
                    file.max_op = file.max_op.max(counter);
                }
                if let Some(number) = settles {
                    self.settle(number);
                }
            }
            Record::Edits { number, bytes } => {
                self.replay.edits.push((number, bytes.to_vec()));
                if let Some(file) = self.files.last_mut() {
                    file.edits.insert(number);
                }
            }
            Record::Settled { number } => self.settle(number),
            Record::Begin {
                room,
                segment,
                author,
                number,
                table_key,
            }
            | Record::Again {
                room,
                segment,
                author,
                number,
                table_key,
            } => {
                let place = Place {
                    vault: self.vault,
                    room,
                    segment,
                    author,
                    number,
                };
                // It is in use, also where the record that reserved it is damaged.
                self.reserve(author, number.saturating_add(1));
                if !again || self.may_be_undeclared(segment) {
                    self.known(segment).begun.get_or_insert((place, table_key));
                }
            }
            Record::Block {
                segment,
                slot,
                entry,
            } => self.block(segment, slot, entry, pos),
            Record::Close { segment, slots, .. } => {
                if self.may_be_undeclared(segment) {
                    self.known(segment).closed = Some((slots, pos));
                }
            }
            Record::Durable { segment } => {
                if let Some(s) = self.segments.get_mut(&segment) {
                    s.durable = true;
                }
            }
            Record::Declared { segment } => {
                self.segments.remove(&segment);
                self.files.iter_mut().for_each(|f| {
                    f.segments.remove(&segment);
                });
            }
            Record::Released { counter } => {
                self.replay.released = self.replay.released.max(counter)
            }
            Record::Reserve { lane, until } => self.reserve(lane, until),
        }
    }

    fn start(
        &mut self,
        file: FileId,
        previous: Option<Lsn>,
        released: u64,
        lanes: Vec<(LaneId, u64)>,
    ) {
        self.replay.released = self.replay.released.max(released);
        lanes
            .into_iter()
            .for_each(|(lane, until)| self.reserve(lane, until));
        // Where the file before ended is known here: less than that was read means that its end is damaged.
        let before = self
            .files
            .len()
            .checked_sub(2)
            .and_then(|i| self.files.get(i));
        let (Some(before), Some(previous)) = (before, previous) else {
            return;
        };
        if before.id.number != previous.file() || before.id.number == file.number {
            return;
        }
        let (path, offset, end) = (
            before.path.clone(),
            before.end.into(),
            previous.offset().into(),
        );
        let of_it = |f: &Finding| matches!(f, Finding::TornTail { file, .. } if *file == path);
        self.replay.findings.retain(|f| !of_it(f));
        if offset < end {
            self.replay.findings.push(Finding::Corrupt {
                file: path,
                offset,
                end,
            });
        }
    }

    fn block(&mut self, segment: SegmentId, slot: u32, entry: Entry, pos: BlockPos) {
        if !self.may_be_undeclared(segment) {
            return;
        }
        let slots = &mut self.known(segment).slots;
        let slot = slot as usize;
        if slots.len() <= slot {
            slots.resize(slot + 1, None);
        }
        slots[slot] = Some((entry, pos));
    }

    /// Blocks whose segment began in a file that is gone belong to a declared segment; unless something is damaged, which may be the record
    /// that it was begun.
    fn may_be_undeclared(&mut self, segment: SegmentId) -> bool {
        if self.segments.contains_key(&segment) {
            return true;
        }
        let damage = |f: &Finding| !matches!(f, Finding::TornTail { .. });
        let damaged = self.replay.findings.iter().any(damage);
        if damaged {
            // Without the damage its blocks would be those of a declared one: the files that show it stay as long as the segment.
            for file in &mut self.files {
                file.segments.insert(segment);
            }
        }
        damaged
    }

    /// A segment of which something is in this file.
    fn known(&mut self, segment: SegmentId) -> &mut ReplayedSegment {
        self.uses(segment);
        let order = &mut self.order;
        self.segments.entry(segment).or_insert_with(|| {
            order.push(segment);
            ReplayedSegment::new(segment)
        })
    }

    fn settle(&mut self, number: u64) {
        self.replay.edits.retain(|(of, _)| *of != number);
        for file in &mut self.files {
            file.edits.remove(&number);
        }
    }

    fn uses(&mut self, segment: SegmentId) {
        if let Some(file) = self.files.last_mut() {
            file.segments.insert(segment);
        }
    }

    fn reserve(&mut self, lane: LaneId, until: u64) {
        let known = self.replay.numbers.entry(lane).or_default();
        *known = until.max(*known);
    }

    /// What was found, and the files.
    pub(super) fn finish(mut self) -> (Replay, Vec<OldFile>) {
        let released = self.replay.released;
        self.replay.ops.retain(|(counter, _)| *counter > released);
        let segments = self.order.iter().filter_map(|id| self.segments.remove(id));
        self.replay.segments = segments.collect();
        (self.replay, self.files)
    }
}
