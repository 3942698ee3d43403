//! Keeping chosen files and directories on this machine, so that they can be read when the storage cannot.

use crate::core::Fs;
use crate::error::FsError;
use crate::poll::until_stopped;
use parking_lot::Mutex;
use skrin_base::{Content, Ino, SegmentId};
use skrin_data::DataError;
use skrin_meta::{Kind, Rows, state};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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
/// How long after a failure to fetch something it is tried again; doubled from the first to the second for a segment that is damaged or missing, and
/// where the disk has no room.
const AGAIN: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3600));
/// Anybody may remove files of the cache: so long after it was looked whether all is here, it is looked again, on the monotonic clock.
const CHECK: Duration = Duration::from_secs(600);
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

/// What of it is not here.
type Absent = BTreeMap<SegmentId, Vec<Range<u32>>>;

/// When to look again.
struct Round {
    /// Not before, whatever changes.
    rest: Duration,
    /// Then also if nothing has changed, on the monotonic clock.
    next: u64,
}

/// For how long something is let be.
#[derive(Default)]
struct Pause {
    last: Duration,
    /// On the monotonic clock.
    until: u64,
}

impl Pause {
    fn again(&mut self, now: u64) {
        self.last = (self.last * 2).clamp(AGAIN.0, AGAIN.1);
        self.until = later(now, self.last);
    }
}

fn later(now: u64, by: Duration) -> u64 {
    now.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX))
}

/// What could not be had of a segment.
struct Failed {
    slots: Vec<Range<u32>>,
    error: String,
    pause: Pause,
}

impl Failed {
    fn covers(&self, range: &Range<u32>) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|own| own.start <= range.start && range.end <= own.end)
    }
}

/// What is not asked for again at once.
#[derive(Default)]
struct Failures {
    /// Of which pins: whoever pins something has all of it tried.
    edition: u64,
    segments: HashMap<SegmentId, Failed>,
    /// The local disk had no room, or failed: nothing is fetched.
    disk: Option<(String, Pause)>,
    /// The storage did not answer the last time: until when, on the monotonic clock.
    away: Option<u64>,
}

impl Failures {
    /// Forgets what came, or is not wanted any more.
    fn begin(&mut self, edition: u64, absent: &Absent) {
        if self.edition != edition || absent.is_empty() {
            *self = Self::default();
        }
        self.edition = edition;
        self.away = None;
        self.segments.retain(|segment, failed| {
            // What was good of it came.
            let slots = absent.get(segment);
            slots.is_some_and(|slots| slots.iter().all(|range| failed.covers(range)))
        });
    }

    /// What a segment met the last time, if it is not to be asked for yet.
    fn paused(&self, segment: SegmentId, now: u64) -> Option<&str> {
        if let Some((error, pause)) = &self.disk
            && now < pause.until
        {
            return Some(error);
        }
        let failed = self.segments.get(&segment)?;
        (now < failed.pause.until).then_some(&*failed.error)
    }

    fn fetched(&mut self, segment: SegmentId) {
        self.segments.remove(&segment);
        self.disk = None;
    }

    /// Notes an error; false if the others would meet it as well.
    fn note(
        &mut self,
        segment: SegmentId,
        slots: Vec<Range<u32>>,
        error: &FsError,
        now: u64,
    ) -> bool {
        let said = error.to_string();
        match error {
            FsError::Data(cause) if cause.is_about_the_object() => {
                let failed = self.segments.entry(segment).or_insert_with(|| Failed {
                    slots: Vec::new(),
                    error: String::new(),
                    pause: Pause::default(),
                });
                (failed.slots, failed.error) = (slots, said);
                failed.pause.again(now);
                true
            }
            FsError::Data(DataError::LocalDisk { .. }) => {
                let (error, pause) = self.disk.get_or_insert_with(Default::default);
                *error = said;
                pause.again(now);
                false
            }
            _ => {
                self.away = Some(later(now, AGAIN.0));
                false
            }
        }
    }

    /// When something is to be tried again.
    fn next(&self, now: u64) -> Option<u64> {
        let disk = self.disk.as_ref().map(|(_, pause)| pause.until);
        // Nothing is before that is over.
        let all = self.away.or(disk).filter(|until| *until > now);
        all.or_else(|| {
            let each = self.segments.values().map(|failed| failed.pause.until);
            each.filter(|until| *until > now).min()
        })
    }
}

/// How many blocks these are.
fn blocks(slots: &[Range<u32>]) -> u64 {
    slots.iter().map(|range| range.len() as u64).sum()
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
        let (mut rest, mut next, mut dropped) = (Duration::ZERO, 0, 0);
        let mut failures = Failures::default();
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
            if !fs.pins.is_due(fs.clock.monotonic() >= next) {
                continue;
            }
            let kept = until_stopped(&mut stop, fs.keep_pinned(&mut failures));
            let Some(round) = kept.await else {
                return;
            };
            (rest, next) = (round.rest, round.next);
        }
    }

    /// Looks through what is pinned and fetches what is missing, but for what failed a moment ago.
    async fn keep_pinned(&self, failures: &mut Failures) -> Round {
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
                return Round {
                    rest: AGAIN.0,
                    next: begun,
                };
            }
        };
        // Also those that are not published yet: what is uploaded goes to the cache.
        self.data.pin(wanted.slots.keys().copied().collect());
        let (mut status, mut absent) = (wanted.status, Absent::new());
        for (segment, slots) in wanted.slots {
            let slots = self.data.absent(segment, &slots);
            if !slots.is_empty() {
                status.missing_blocks += blocks(&slots);
                absent.insert(segment, slots);
            }
        }
        self.pins.saw(edition, &status);
        let looked = self.clock.monotonic().saturating_sub(begun);
        failures.begin(edition, &absent);
        self.fetch_absent(edition, absent, &mut status, failures)
            .await;
        self.pins.saw(edition, &status);
        let now = self.clock.monotonic();
        let rest = Duration::from_nanos(looked).saturating_mul(REST);
        let check = later(now, rest.max(CHECK));
        // A storage that does not answer is not asked more often because the tree changes.
        let least = failures.away.map_or(Duration::ZERO, |_| AGAIN.0);
        Round {
            rest: rest.min(REST_MAX).max(least),
            next: failures.next(now).map_or(check, |next| next.min(check)),
        }
    }

    /// Fetches what is not here, until that fails for what is not about one segment alone.
    async fn fetch_absent(
        &self,
        edition: u64,
        absent: Absent,
        status: &mut PinStatus,
        failures: &mut Failures,
    ) {
        for (segment, slots) in absent {
            if let Some(error) = failures.paused(segment, self.clock.monotonic()) {
                status.error = Some(error.to_owned());
                continue;
            }
            match self.keep_slots(segment, &slots).await {
                Ok(true) => {
                    status.missing_blocks -= blocks(&slots);
                    failures.fetched(segment);
                }
                // Nobody has published it yet: the tree will be another one then.
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%segment, %error, "what is pinned cannot be fetched");
                    status.error = Some(error.to_string());
                    // If the storage is gone, so is the rest.
                    if !failures.note(segment, slots, &error, self.clock.monotonic()) {
                        return;
                    }
                }
            }
            if !self.pins.saw(edition, status) {
                return;
            }
        }
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
    /// Whether it is to be looked: something changed, or it `is_time`.
    fn is_due(&self, is_time: bool) -> bool {
        let state = self.state.lock();
        if state.edition == 0 {
            return false;
        }
        let current = state.seen.as_ref();
        let current = current.filter(|(edition, _)| *edition == state.edition);
        let idle = state.roots.is_empty()
            && current.is_some_and(|(_, seen)| *seen == PinStatus::default());
        !idle && (is_time || current.is_none() || self.stale.load(Ordering::Acquire))
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
