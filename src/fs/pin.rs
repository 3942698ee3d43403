//! Keeping chosen files and directories on this machine, so that they can be read when the storage cannot.

use crate::core::Fs;
use crate::error::FsError;
use crate::poll::until_stopped;
use parking_lot::Mutex;
use skrin_base::{Content, Ino, SegmentId};
use skrin_meta::{Kind, Rows, state};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often it is looked whether the tree changed.
const LOOK: Duration = Duration::from_secs(2);
/// A walk through what is pinned rests for so many times as long as it took.
const REST: u32 = 20;
/// And for so long at most.
const REST_MAX: Duration = Duration::from_secs(60);
/// How long after a failure to fetch something it is tried again.
const AGAIN: Duration = Duration::from_secs(15);
/// Entries of a directory that are listed at once.
const BATCH: usize = 1024;
/// Directories nested deeper than this have no path.
pub(crate) const DEPTH_MAX: usize = 4096;

/// What is pinned, and how far it is here.
#[derive(Default)]
pub(crate) struct Pins {
    state: Mutex<PinState>,
    /// The tree may name other contents than at the last walk.
    pub(crate) stale: AtomicBool,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct PinState {
    roots: BTreeSet<Ino>,
    /// Counts changes of `roots`; 0 before anybody has said what is pinned.
    edition: u64,
    /// What the last walk of which edition found.
    seen: Option<(u64, PinStatus)>,
}

/// How far what is pinned can be read without the storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinStatus {
    /// Files below the pins, with those that are pinned themselves.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
    /// Blocks of up to 64 KiB that are not here yet.
    pub missing_blocks: u64,
    /// What the last attempt to fetch met, if it failed.
    pub error: Option<String>,
}

/// What pinned files consist of.
#[derive(Default)]
struct Wanted {
    slots: BTreeMap<SegmentId, Vec<Range<u32>>>,
    status: PinStatus,
}

/// The names that lead to an inode, by the first of its places; `None` if it has none.
pub(crate) fn path_of(
    rows: &dyn Rows,
    mut ino: Ino,
) -> Result<Option<Vec<skrin_base::Name>>, FsError> {
    let mut names = Vec::new();
    while ino != Ino::ROOT {
        if names.len() > DEPTH_MAX {
            return Ok(None);
        }
        let inode = state::inode(rows, ino)?;
        let Some(link) = inode.and_then(|inode| inode.links.into_iter().next()) else {
            return Ok(None);
        };
        names.push(link.name);
        ino = link.dir;
    }
    names.reverse();
    Ok(Some(names))
}

impl Fs {
    /// Keeps these files, and everything below these directories, on this machine from now on, and nothing else. Numbers that lead nowhere are
    /// kept for the time when they do. False where this mount has no cache on the local disk, as all contents are on it anyway.
    pub fn pin(&self, roots: BTreeSet<Ino>) -> bool {
        let mut state = self.pins.state.lock();
        let none = roots.is_empty();
        state.roots = roots;
        state.edition += 1;
        drop(state);
        self.pins.wake.notify_one();
        !none || self.data.pin([].into())
    }

    /// What is pinned.
    pub fn pins(&self) -> BTreeSet<Ino> {
        self.pins.state.lock().roots.clone()
    }

    /// How far that is here; `None` until it was looked.
    pub fn pin_status(&self) -> Option<PinStatus> {
        let state = self.pins.state.lock();
        let seen = state.seen.as_ref();
        let current = seen.filter(|(edition, _)| *edition == state.edition);
        current.map(|(_, status)| status.clone())
    }

    /// The names that lead to an inode, from the root on; `None` if there is none.
    ///
    /// # Errors
    /// A damaged local cache.
    pub fn path_of(&self, ino: Ino) -> Result<Option<Vec<skrin_base::Name>>, FsError> {
        path_of(&self.replica.tree(), ino)
    }

    pub(crate) async fn pin_forever(weak: Weak<Self>, mut stop: watch::Receiver<bool>) {
        let Some(wake) = weak.upgrade().map(|fs| Arc::clone(&fs.pins.wake)) else {
            return;
        };
        let (mut rest, mut dropped) = (Duration::ZERO, 0);
        loop {
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                () = wake.notified() => {}
                () = tokio::time::sleep(rest.max(LOOK)) => {}
            }
            let Some(fs) = weak.upgrade() else { return };
            // A damaged block of the cache is dropped when it is read.
            let bad = fs.data.counters().bad_cache_entries;
            if std::mem::replace(&mut dropped, bad) != bad {
                fs.pins.stale.store(true, Ordering::Release);
            }
            if !fs.pins.is_due() {
                continue;
            }
            let Some(kept) = until_stopped(&mut stop, fs.keep_pinned()).await else {
                return;
            };
            rest = kept.map_or(AGAIN, |walk| walk.saturating_mul(REST).min(REST_MAX));
        }
    }

    /// Looks through what is pinned and fetches what is missing. How long the looking took; `None` if something failed.
    async fn keep_pinned(&self) -> Option<Duration> {
        let begun = self.clock.monotonic();
        self.pins.stale.store(false, Ordering::Release);
        let (edition, roots) = {
            let state = self.pins.state.lock();
            (state.edition, state.roots.clone())
        };
        let wanted = match self.wanted(roots) {
            Ok(wanted) => wanted,
            Err(error) => {
                tracing::warn!(%error, "what is pinned cannot be looked through");
                self.pins.stale.store(true, Ordering::Release);
                return None;
            }
        };
        let walk = Duration::from_nanos(self.clock.monotonic().saturating_sub(begun));
        // Also those that are not published yet: what is uploaded goes to the cache.
        self.data.pin(wanted.slots.keys().copied().collect());
        let (mut status, mut absent) = (wanted.status, Vec::new());
        for (segment, slots) in wanted.slots {
            let slots = self.data.absent(segment, &slots);
            let blocks: u64 = slots.iter().map(|r| r.len() as u64).sum();
            if blocks > 0 {
                status.missing_blocks += blocks;
                absent.push((segment, slots, blocks));
            }
        }
        self.pins.saw(edition, &status);
        for (segment, slots, blocks) in absent {
            match self.keep_slots(segment, &slots).await {
                Ok(true) => status.missing_blocks -= blocks,
                // Nobody has published it yet.
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%segment, %error, "what is pinned cannot be fetched");
                    status.error = Some(error.to_string());
                    // If the storage is gone, so is the rest.
                    if error.is_transient() {
                        break;
                    }
                }
            }
            if !self.pins.saw(edition, &status) {
                break;
            }
        }
        self.pins.saw(edition, &status);
        status.error.is_none().then_some(walk)
    }

    /// False where the tree does not know the segment.
    async fn keep_slots(&self, segment: SegmentId, slots: &[Range<u32>]) -> Result<bool, FsError> {
        let info = state::segment(&self.replica.tree(), segment)?;
        match info {
            Some(info) => {
                self.data.keep(Arc::new(info), slots).await?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Everything below the roots. The tree is free for others between two inodes.
    fn wanted(&self, roots: BTreeSet<Ino>) -> Result<Wanted, FsError> {
        let mut wanted = Wanted::default();
        let mut seen = BTreeSet::new();
        let mut queue: Vec<Ino> = roots.into_iter().collect();
        while let Some(ino) = queue.pop() {
            if !seen.insert(ino) {
                continue;
            }
            let inode = state::inode(&self.replica.tree(), ino)?;
            match inode {
                Some(inode) if inode.kind == Kind::Dir => self.list_below(ino, &mut queue)?,
                Some(inode) if inode.kind == Kind::File => {
                    wanted.status.files += 1;
                    wanted.status.bytes = wanted.status.bytes.saturating_add(inode.size);
                    self.add_extents(ino, &mut wanted)?;
                }
                _ => {}
            }
        }
        for slots in wanted.slots.values_mut() {
            join(slots);
        }
        Ok(wanted)
    }

    fn list_below(&self, dir: Ino, queue: &mut Vec<Ino>) -> Result<(), FsError> {
        let mut after = 0;
        loop {
            let listed = state::list(&self.replica.tree(), dir, after, BATCH)?;
            let Some(last) = listed.last() else {
                return Ok(());
            };
            after = last.cookie;
            queue.extend(listed.iter().map(|entry| entry.entry.ino));
        }
    }

    fn add_extents(&self, ino: Ino, wanted: &mut Wanted) -> Result<(), FsError> {
        for extent in state::extents(&self.replica.tree(), ino, 0, u64::MAX)? {
            if let Content::Stored(at) = extent.content {
                let end = at.first_slot.saturating_add(extent.count);
                let slots = wanted.slots.entry(at.segment).or_default();
                slots.push(at.first_slot..end);
            }
        }
        Ok(())
    }
}

impl Pins {
    fn is_due(&self) -> bool {
        let state = self.state.lock();
        if state.edition == 0 {
            return false;
        }
        let current = state.seen.as_ref();
        let current = current.filter(|(edition, _)| *edition == state.edition);
        let done = current.is_some_and(|(_, seen)| seen.missing_blocks == 0);
        let idle = state.roots.is_empty()
            && current.is_some_and(|(_, seen)| *seen == PinStatus::default());
        !idle && (!done || self.stale.load(Ordering::Acquire))
    }

    /// Notes what was found. False if something else is pinned by now.
    fn saw(&self, edition: u64, status: &PinStatus) -> bool {
        let mut state = self.state.lock();
        state.seen = Some((edition, status.clone()));
        state.edition == edition
    }
}

/// Puts ranges in order and together where they touch.
fn join(ranges: &mut Vec<Range<u32>>) {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let touch = next.start <= last.end;
        if touch {
            last.end = last.end.max(next.end);
        }
        touch
    });
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = vec![7..9, 0..3, 3..4, 8..12, 20..21];
        join(&mut ranges);
        assert_eq!(ranges, [0..4, 7..12, 20..21]);
    }
}
