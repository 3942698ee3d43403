//! Sealed blocks and tables on the local disk, as the storage gave them. Everything here can be deleted at any time. Nothing in it is
//! believed: each block is checked against its segment's table, each table against the declaration; what fails is a miss.

mod present;

use crate::error::DataError;
use crate::segment::Table;
use parking_lot::Mutex;
use skrin_base::SegmentId;
use skrin_crypto::hash;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{DirEntry, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// In front of the blocks of a range: magic, segment, first slot, the slot behind the last.
const HEADER_LEN: usize = 32;

/// The cache: a file for each range of slots that was fetched at once, and one for each table.
pub struct DiskCache {
    dir: PathBuf,
    bound: u64,
    index: Mutex<Index>,
    bad: AtomicU64,
    hits: AtomicU64,
}

#[derive(Default)]
struct Index {
    segments: HashMap<SegmentId, Vec<Entry>>,
    /// Those that may go, by last use; the first one goes first.
    order: BTreeMap<u64, (SegmentId, Kind)>,
    /// Bytes of those that may go.
    total: u64,
    /// Segments of which nothing goes.
    pinned: HashSet<SegmentId>,
    /// Bytes of theirs.
    pinned_total: u64,
    /// It is not known yet what is pinned: nothing goes.
    held: bool,
    tick: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    kind: Kind,
    len: u64,
    used: u64,
}

/// Which part of a segment a file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Table,
    Slots(u32, u32),
}

impl Kind {
    fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Table, Self::Table) => true,
            (Self::Slots(a, b), Self::Slots(c, d)) => a <= c && d <= b,
            _ => false,
        }
    }
}

fn file_name(segment: SegmentId, kind: Kind) -> String {
    match kind {
        Kind::Table => format!("{segment}.table"),
        Kind::Slots(first, end) => format!("{segment}.{first}-{end}"),
    }
}

fn parse_name(name: &str) -> Option<(SegmentId, Kind)> {
    let (segment, kind) = name.split_once('.')?;
    let kind = match kind.split_once('-') {
        None => (kind == "table").then_some(Kind::Table)?,
        Some((first, end)) => Kind::Slots(first.parse().ok()?, end.parse().ok()?),
    };
    Some((SegmentId::from_hex(segment)?, kind))
}

fn header(segment: SegmentId, first: u32, end: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(b"skrncch\x01");
    header[8..24].copy_from_slice(segment.as_bytes());
    header[24..28].copy_from_slice(&first.to_le_bytes());
    header[28..].copy_from_slice(&end.to_le_bytes());
    header
}

impl DiskCache {
    /// Opens the cache, with what an earlier run left. With `hold` nothing is removed from it until `pin` was called.
    ///
    /// # Errors
    /// `LocalDisk`.
    pub fn open(dir: PathBuf, bound: u64, hold: bool) -> Result<Self, DataError> {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir);
        made.map_err(|e| DataError::disk("make the cache's directory", &dir, e))?;
        let mut found = Vec::new();
        collect(&dir, &mut found).map_err(|e| DataError::disk("list the cache", &dir, e))?;
        found.sort_by_key(|(time, ..)| *time);
        let mut index = Index {
            held: hold,
            ..Index::default()
        };
        for (_, segment, kind, len) in found {
            index.add(segment, kind, len);
        }
        let cache = Self {
            dir,
            bound,
            index: Mutex::new(index),
            bad: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        };
        cache.evict();
        Ok(cache)
    }

    fn path(&self, segment: SegmentId, kind: Kind) -> PathBuf {
        let name = file_name(segment, kind);
        self.dir.join(&name[..2]).join(name)
    }

    /// The sealed table of a segment, unchecked.
    pub fn table(&self, segment: SegmentId) -> Option<Vec<u8>> {
        self.index.lock().touch(segment, Kind::Table)?;
        match std::fs::read(self.path(segment, Kind::Table)) {
            Ok(sealed) => Some(sealed),
            // Removed meanwhile, perhaps by somebody else.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.index.lock().remove(segment, Kind::Table);
                None
            }
            Err(_) => {
                self.drop_bad(segment, Kind::Table);
                None
            }
        }
    }

    /// Whether there is one.
    pub fn has_table(&self, segment: SegmentId) -> bool {
        self.index.lock().find(segment, Kind::Table).is_some()
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A table turned out to be damaged.
    pub fn bad_table(&self, segment: SegmentId) {
        self.drop_bad(segment, Kind::Table);
    }

    /// Keeps a sealed table.
    pub fn put_table(&self, segment: SegmentId, sealed: &[u8]) {
        self.store(segment, Kind::Table, &[], sealed);
    }

    /// A sealed block whose hash is that of the table.
    pub fn block(&self, table: &Table, slot: u32) -> Option<Vec<u8>> {
        let segment = table.place().segment;
        let wanted = Kind::Slots(slot, slot + 1);
        let kind = self.index.lock().touch(segment, wanted)?;
        let read = self.read_block(table, slot, kind);
        match read {
            Ok(Some(bytes)) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Some(bytes)
            }
            // Removed meanwhile, perhaps by somebody else.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.index.lock().remove(segment, kind);
                None
            }
            Ok(None) | Err(_) => {
                self.drop_bad(segment, kind);
                None
            }
        }
    }

    fn read_block(&self, table: &Table, slot: u32, kind: Kind) -> io::Result<Option<Vec<u8>>> {
        let Kind::Slots(first, end) = kind else {
            return Ok(None);
        };
        let segment = table.place().segment;
        let entry = table.entry(slot);
        let (Some(entry), Some(before)) = (entry, table.range(first..slot)) else {
            return Ok(None);
        };
        let file = File::open(self.path(segment, kind))?;
        let mut found = [0; HEADER_LEN];
        file.read_exact_at(&mut found, 0)?;
        if found != header(segment, first, end) {
            return Ok(None);
        }
        let mut bytes = vec![0; entry.sealed_len as usize];
        file.read_exact_at(&mut bytes, HEADER_LEN as u64 + before.end - before.start)?;
        Ok((hash(&bytes) == entry.hash).then_some(bytes))
    }

    /// The slots of a segment that are here, in no order.
    pub fn kept(&self, segment: SegmentId) -> Vec<Range<u32>> {
        let index = self.index.lock();
        let entries = index.segments.get(&segment).into_iter().flatten();
        let ranges = entries.filter_map(|entry| match entry.kind {
            Kind::Slots(first, end) => Some(first..end),
            Kind::Table => None,
        });
        ranges.collect()
    }

    /// Of these segments, and of no others, nothing is removed from now on, and it does not count against the bound.
    pub fn pin(&self, segments: HashSet<SegmentId>) {
        self.index.lock().pin(segments);
        self.evict();
    }

    /// Bytes of what is pinned.
    pub fn pinned(&self) -> u64 {
        self.index.lock().pinned_total
    }

    /// Keeps the sealed blocks of consecutive slots. A cache that cannot be written is only slower.
    pub fn put(&self, segment: SegmentId, slots: Range<u32>, bytes: &[u8]) {
        let large = bytes.len() as u64 > self.bound / 4;
        if slots.is_empty() || large && !self.index.lock().pinned.contains(&segment) {
            return;
        }
        let kind = Kind::Slots(slots.start, slots.end);
        self.store(
            segment,
            kind,
            &header(segment, slots.start, slots.end),
            bytes,
        );
    }

    fn store(&self, segment: SegmentId, kind: Kind, header: &[u8], bytes: &[u8]) {
        if self.index.lock().find(segment, kind).is_some() {
            return;
        }
        if let Err(error) = write_file(&self.path(segment, kind), header, bytes) {
            tracing::debug!(%error, "the cache cannot be written");
            return;
        }
        let covered = self
            .index
            .lock()
            .add(segment, kind, (header.len() + bytes.len()) as u64);
        self.remove(segment, covered);
        self.evict();
    }

    fn evict(&self) {
        loop {
            let mut index = self.index.lock();
            if index.held || index.total <= self.bound {
                return;
            }
            let Some((segment, kind)) = index.order.values().next().copied() else {
                return;
            };
            index.remove(segment, kind);
            drop(index);
            self.remove(segment, vec![kind]);
        }
    }

    fn drop_bad(&self, segment: SegmentId, kind: Kind) {
        self.bad.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%segment, ?kind, "a damaged entry of the local cache was dropped");
        self.index.lock().remove(segment, kind);
        self.remove(segment, vec![kind]);
    }

    fn remove(&self, segment: SegmentId, kinds: Vec<Kind>) {
        for kind in kinds {
            let path = self.path(segment, kind);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(%error, path = %path.display(), "a cache file cannot be removed");
            }
        }
    }

    /// Damaged entries met, and blocks given.
    pub fn counters(&self) -> (u64, u64) {
        (
            self.bad.load(Ordering::Relaxed),
            self.hits.load(Ordering::Relaxed),
        )
    }
}

impl Index {
    /// An entry that covers `kind`.
    fn find(&self, segment: SegmentId, kind: Kind) -> Option<Entry> {
        let entries = self.segments.get(&segment)?;
        entries.iter().find(|e| e.kind.covers(kind)).copied()
    }

    /// The same, as used just now.
    fn touch(&mut self, segment: SegmentId, kind: Kind) -> Option<Kind> {
        let found = self.find(segment, kind)?;
        self.tick += 1;
        let tick = self.tick;
        let entries = self.segments.get_mut(&segment)?;
        let entry = entries.iter_mut().find(|e| e.kind == found.kind)?;
        // Only those that may go are in the order.
        if self.order.remove(&entry.used).is_some() {
            self.order.insert(tick, (segment, entry.kind));
        }
        entry.used = tick;
        Some(entry.kind)
    }

    fn pin(&mut self, pinned: HashSet<SegmentId>) {
        self.held = false;
        self.pinned = pinned;
        self.order.clear();
        (self.total, self.pinned_total) = (0, 0);
        for (segment, entries) in &self.segments {
            for entry in entries {
                if self.pinned.contains(segment) {
                    self.pinned_total += entry.len;
                } else {
                    self.total += entry.len;
                    self.order.insert(entry.used, (*segment, entry.kind));
                }
            }
        }
    }

    /// Adds an entry; returns those that it covers and that are gone now.
    fn add(&mut self, segment: SegmentId, kind: Kind, len: u64) -> Vec<Kind> {
        let entries = self.segments.get(&segment).map_or(&[][..], Vec::as_slice);
        let inside = entries
            .iter()
            .map(|e| e.kind)
            .filter(|k| kind.covers(*k) && *k != kind);
        let covered: Vec<_> = inside.collect();
        covered.iter().for_each(|k| self.remove(segment, *k));
        self.remove(segment, kind);
        self.tick += 1;
        if self.pinned.contains(&segment) {
            self.pinned_total += len;
        } else {
            self.total += len;
            self.order.insert(self.tick, (segment, kind));
        }
        let entry = Entry {
            kind,
            len,
            used: self.tick,
        };
        self.segments.entry(segment).or_default().push(entry);
        covered
    }

    fn remove(&mut self, segment: SegmentId, kind: Kind) {
        let Some(entries) = self.segments.get_mut(&segment) else {
            return;
        };
        if let Some(at) = entries.iter().position(|e| e.kind == kind) {
            let entry = entries.swap_remove(at);
            match self.order.remove(&entry.used) {
                Some(_) => self.total -= entry.len,
                None => self.pinned_total -= entry.len,
            }
        }
        if entries.is_empty() {
            self.segments.remove(&segment);
        }
    }
}

fn write_file(path: &Path, header: &[u8], bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let written = file.write_all(header).and_then(|()| file.write_all(bytes));
    if written.is_err() {
        // Half an entry would be found bad later; better none.
        let _ = std::fs::remove_file(path);
    }
    written
}

type Found = (SystemTime, SegmentId, Kind, u64);

fn collect(dir: &Path, found: &mut Vec<Found>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        // The cache does without what cannot be read, or is gone by now.
        let noted = entry.and_then(|entry| note(&entry, found));
        if let Err(error) = noted {
            tracing::warn!(%error, dir = %dir.display(), "a part of the local cache cannot be read");
        }
    }
    Ok(())
}

fn note(entry: &DirEntry, found: &mut Vec<Found>) -> io::Result<()> {
    let meta = entry.metadata()?;
    if meta.is_dir() {
        collect(&entry.path(), found)?;
    } else if let Some((segment, kind)) = entry.file_name().to_str().and_then(parse_name) {
        found.push((meta.modified()?, segment, kind, meta.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
