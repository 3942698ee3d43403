//! Publishing: the only place that knows both metadata and data. The order is segment durable, commit on the storage, journal released;
//! the first arrow is in the types, as a commit takes segments only with their witness.

use crate::commit::{Batch, weigh};
use crate::config::Pending;
use crate::core::Fs;
use crate::error::FsError;
use crate::poll::until_stopped;
use parking_lot::Mutex;
use skrin_base::limits::COMMIT_TARGET;
use skrin_base::{Errno, SegmentId};
use skrin_data::DataError;
use skrin_meta::replica::{ReplicaError, Settled, TreeGuard};
use skrin_meta::state;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often the publisher looks whether there is something to do.
const TICK: Duration = Duration::from_millis(250);
/// What came within this time goes along when somebody waits.
const GATHER: Duration = Duration::from_millis(200);
/// Operations older than this are published, nanoseconds.
const AGE_MAX: u64 = 3_000_000_000;
/// Bytes of log files from which on publishing makes haste: what is published lets the journal write over files that the
/// machine still has in its caches.
const JOURNAL_MUCH: u64 = 160 << 20;
/// How often an open lane gets a commit without operations, if others wait for it; nanoseconds.
const HEADS_EVERY: u64 = 600_000_000_000;
/// Pauses after failures, doubled from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The state of publishing.
pub(crate) struct Publisher {
    /// Only one batch is on its way.
    running: tokio::sync::Mutex<()>,
    wake: Notify,
    /// How many wait for the storage.
    waiting: AtomicUsize,
    /// What others are to see at once: everything up to this operation. Nobody waits for it.
    hurry: AtomicU64,
    /// Counts attempts, so that those who wait look again.
    attempts: watch::Sender<u64>,
    error: Mutex<Option<FsError>>,
    refusal: Mutex<Refusal>,
    /// Somebody waited for room through an attempt, and the storage still takes nothing.
    in_vain: AtomicBool,
    /// When it was looked last, on the monotonic clock, whether others wait for a commit; 0 before the first time.
    looked: AtomicU64,
}

impl Default for Publisher {
    fn default() -> Self {
        Self {
            running: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            waiting: AtomicUsize::new(0),
            hurry: AtomicU64::new(0),
            attempts: watch::Sender::new(0),
            error: Mutex::new(None),
            refusal: Mutex::default(),
            in_vain: AtomicBool::new(false),
            looked: AtomicU64::new(0),
        }
    }
}

/// Why nothing that is changed here would be taken, as was heard last.
#[derive(Default)]
struct Refusal {
    /// The last attempt was refused, and what it was to publish waits still.
    upload: Option<Arc<FsError>>,
    /// The storage shows less than was seen.
    rollback: Option<Arc<FsError>>,
    /// What does not end while this mount lasts, whatever is met after it.
    last: Option<Arc<FsError>>,
}

/// Takes itself back from the number of those who wait.
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(crate) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Publisher {
    /// Refuses changes while the storage takes none from here: what was accepted before waits in the journal, and is tried again.
    ///
    /// # Errors
    /// `Refused`.
    pub(crate) fn check_taken(&self) -> Result<(), FsError> {
        let refusal = self.refusal.lock();
        let now = refusal.rollback.as_ref().or(refusal.upload.as_ref());
        match refusal.last.as_ref().or(now) {
            Some(why) => Err(FsError::Refused(Arc::clone(why))),
            None => Ok(()),
        }
    }

    /// Refuses what needs room, if the storage said at the last attempt that it has none; and whatever `check_taken` refuses.
    ///
    /// # Errors
    /// Those of both.
    pub(crate) fn check_room(&self) -> Result<(), FsError> {
        self.check_taken()?;
        self.check_space()
    }

    /// Refuses what needs room, if the storage said at the last attempt that it has none.
    ///
    /// # Errors
    /// That error: ENOSPC or EDQUOT.
    pub(crate) fn check_space(&self) -> Result<(), FsError> {
        match &*self.error.lock() {
            Some(e) if matches!(e.errno(), Errno::ENOSPC | Errno::EDQUOT) => Err(e.clone()),
            _ => Ok(()),
        }
    }

    /// How many attempts have ended.
    pub(crate) fn attempts(&self) -> u64 {
        *self.attempts.borrow()
    }

    /// Whether nobody makes room: the storage takes nothing, and one attempt more, after the first `since`, was no better. Whoever comes then does
    /// not wait for another one, as each page of the kernel would.
    pub(crate) fn is_in_vain(&self, since: u64) -> bool {
        if self.check_room().is_ok() {
            return false;
        }
        if self.attempts() != since {
            self.in_vain.store(true, Ordering::Release);
        }
        self.in_vain.load(Ordering::Acquire)
    }

    /// What the last attempt met.
    pub(crate) fn error(&self) -> Option<FsError> {
        self.error.lock().clone()
    }

    /// Returns when what is waited for is on the storage.
    ///
    /// # Errors
    /// What keeps it from there and does not go away by itself.
    pub(crate) async fn wait_until(&self, published: impl Fn() -> bool) -> Result<(), FsError> {
        let _waiting = Waiting::new(&self.waiting);
        let mut attempts = self.attempts.subscribe();
        self.wake.notify_one();
        while !published() {
            self.check_room()?;
            if attempts.changed().await.is_err() {
                return Err(FsError::Stopped);
            }
        }
        Ok(())
    }

    /// Others are to see everything up to that operation at once.
    pub(crate) fn hurry(&self, counter: u64) {
        self.hurry.fetch_max(counter, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// Takes note of what a look at the storage met.
    pub(crate) fn note_look(&self, error: Option<&FsError>) {
        let mut refusal = self.refusal.lock();
        match error {
            None => refusal.rollback = None,
            Some(error) if error.is_rollback() => {
                refusal.rollback = Some(Arc::new(error.clone()));
            }
            // It says nothing of what was seen.
            Some(_) => {}
        }
    }

    /// A look may show that what waited was published before: nobody would try again, and changes would be refused for ever.
    fn nothing_waits(&self) {
        self.refusal.lock().upload = None;
    }

    /// Takes note of how an attempt went, behind which something is `left` to publish or not.
    fn note(&self, result: &Result<Option<Batch>, FsError>, left: bool) {
        // Where there was nothing to publish nobody was asked.
        if !matches!(result, Ok(None)) {
            self.note_look(result.as_ref().err());
        }
        let mut refusal = self.refusal.lock();
        match result {
            Ok(done) if left && done.as_ref().is_none_or(|batch| batch.count == 0) => {}
            // Also where nothing is left: what comes later would be accepted and never published.
            Err(error) if error.is_final() => refusal.last = Some(Arc::new(error.clone())),
            // Where nothing is left nobody would try again, and changes would be refused for ever.
            Err(error) if left && error.is_refusal() => {
                refusal.upload = Some(Arc::new(error.clone()));
            }
            // A storage that does not answer is one that is away: changes wait for it.
            _ => refusal.upload = None,
        }
        drop(refusal);
        *self.error.lock() = result.as_ref().err().cloned();
        if self.check_room().is_ok() {
            self.in_vain.store(false, Ordering::Release);
        }
        self.attempts.send_modify(|n| *n += 1);
    }
}

impl Fs {
    /// Publishes the oldest operations that fit into one commit, with `patience` only those that no later one belongs to. `None` if there were none.
    pub(crate) async fn publish_next(&self, patience: bool) -> Result<Option<Batch>, FsError> {
        self.publish_or(patience, false).await
    }

    /// The same without patience; where there is nothing to publish, an open lane gets a commit nevertheless.
    pub(crate) async fn publish_heads(&self) -> Result<(), FsError> {
        self.publish_or(false, true).await.map(drop)
    }

    async fn publish_or(&self, patience: bool, heads: bool) -> Result<Option<Batch>, FsError> {
        let _one = self.publisher.running.lock().await;
        let result = self.try_publish(patience, heads).await;
        let left = self.replica.has_unconfirmed() || self.replica.tree().pending_count() > 0;
        self.publisher.note(&result, left);
        result
    }

    async fn try_publish(&self, patience: bool, heads: bool) -> Result<Option<Batch>, FsError> {
        let found = {
            let tree = self.replica.tree();
            match self.next_batch(&tree, patience)? {
                Some(batch) => Some((self.to_declare(&tree, &batch.segments)?, batch)),
                None => None,
            }
        };
        if let Some(barred) = self.replica.barred() {
            // It stays in the journal. Nothing else is due either.
            let nothing = found.is_none() && !self.holds_unnamed();
            return match nothing {
                true => Ok(None),
                false => Err(ReplicaError::from(barred).into()),
            };
        }
        let (segments, batch, heads) = match found {
            Some((segments, batch)) => (segments, batch, true),
            None if self.holds_unnamed() => (self.data.undeclared(), Batch::default(), true),
            None if heads || self.has_to_refute() => (Vec::new(), Batch::default(), true),
            // A look at the storage comes before what is published, and puts those back that wait for one.
            None if self.has_unconfirmed() || self.replica.tree().has_parked() => {
                (Vec::new(), Batch::default(), false)
            }
            None => return Ok(None),
        };
        // A look at the storage may have shown that it has to be another one.
        self.keep_to_own_lane().await?;
        let begun = self.clock.monotonic();
        // Of those that no operation names some may be declared all the same: they are only let go of.
        let needed = undeclared(&self.replica.tree(), &segments)?;
        let durable = self.data.make_durable(&needed).await?;
        let settled = Settled {
            heads,
            ..self.settled()
        };
        let batch = self.grown(batch, &segments, patience)?;
        self.tell_lost(&batch)?;
        // No commit says what a crash could take from the journal.
        self.journal.sync_all()?;
        let done = self.replica.publish(batch.upto, durable, settled).await?;
        self.holds.published(batch.upto);
        let left = self.replica.tree().pending_size().0 > 0;
        self.committed.published(left.then_some(begun));
        self.pins.stale.store(true, Ordering::Release);
        // These may wait for the local disk: publishing has threads of its own.
        // Some may have been declared before a crash, or are not needed any more.
        let mut done_with = segments;
        let named = batch.segments.iter();
        done_with.extend(named.filter(|id| self.data.is_undeclared(id)));
        done_with.sort_unstable();
        done_with.dedup();
        if let Err(error) = self.data.release(batch.upto, &done_with) {
            tracing::warn!(%error, "the journal cannot be shortened");
        }
        // Many commits one after the other would all be held until the next look around the house.
        if let Err(error) = self.relieve_tree() {
            tracing::warn!(%error, "the local cache cannot be written");
        }
        // The kernel may wait, before it forgets anything of a directory, for who waits for this thread to make room.
        self.invalidate_soon(done.diff)?;
        Ok(Some(batch))
    }

    /// What a commit may say that is put now.
    pub(crate) fn settled(&self) -> Settled {
        // What stands is asked first: what is opened after that is of a tree in which it stands.
        let release = self.replica.tree().releasable();
        let release = release.filter(|_| self.needs_nothing_old());
        // A crash must not bring back a tree from before: what is gone could be edited in it, offline.
        let is_written = || self.replica.flush().is_ok() && self.replica.tree().is_whole();
        let release = release.filter(|_| is_written());
        Settled {
            numbers: self.data.decided_below(),
            // What a file told just before it was looked at has to be published, too.
            release: release.map(|release| self.replica.tree().renewed(release)),
            heads: true,
        }
    }

    /// Whether nothing that is open names contents that the tree does not name.
    fn needs_nothing_old(&self) -> bool {
        let mut files = self.files.all().into_iter();
        files.all(|file| {
            // Whoever is at it now is asked the next time.
            let Some(state) = file.state.try_lock() else {
                return false;
            };
            if state.content.named_extents().is_empty() && file.noted().is_none() {
                return true;
            }
            let told = state.unnamed == 0 && !state.shares;
            let inode = state::inode(&self.replica.tree(), file.ino);
            let version = inode.ok().flatten().map(|inode| inode.version);
            told && file.gone.lock().is_none() && version == Some(state.base)
        })
    }

    /// Whether others wait for a commit of this device, which has nothing to say.
    fn is_waited_for(&self) -> bool {
        let now = self.clock.monotonic().max(1);
        let looked = self.publisher.looked.load(Ordering::Relaxed);
        if looked != 0 && now.saturating_sub(looked) < HEADS_EVERY {
            return false;
        }
        self.publisher.looked.store(now, Ordering::Relaxed);
        looked != 0 && self.publishes() && self.replica.tree().is_waited_for()
    }

    /// Whether anybody takes what is published here.
    fn publishes(&self) -> bool {
        !self.options.read_only && self.replica.barred().is_none()
    }

    /// Whether a commit is due without operations: others would lose what this device has seen.
    fn has_to_refute(&self) -> bool {
        self.publishes() && self.replica.tree().has_to_refute()
    }

    /// Whether a commit is on its way whose operations are pending no more.
    fn has_unconfirmed(&self) -> bool {
        self.publishes() && self.replica.has_unconfirmed()
    }

    /// Whether the journal is held by segments that no operation will ever name: those of files that lost their last name
    /// while they are open.
    fn holds_unnamed(&self) -> bool {
        self.journal.allocated() >= JOURNAL_MUCH && !self.data.undeclared().is_empty()
    }

    /// Lets the journal forget segments that no operation names: a crash came before it.
    pub(crate) fn release_unnamed(&self) -> Result<(), FsError> {
        let mut unnamed = self.data.undeclared();
        if unnamed.is_empty() || self.options.read_only {
            return Ok(());
        }
        let tree = self.replica.tree();
        let mut named = HashSet::new();
        for op in tree.pending() {
            named.extend(weigh(&op?.kind).1);
        }
        drop(tree);
        unnamed.retain(|id| !named.contains(id));
        Ok(self.data.release(0, &unnamed)?)
    }

    /// What came while the segments of a batch were sent goes along with it, if it needs no others: a commit costs several
    /// round trips.
    fn grown(&self, batch: Batch, durable: &[SegmentId], patience: bool) -> Result<Batch, FsError> {
        let tree = self.replica.tree();
        let Some(now) = self
            .next_batch(&tree, patience)?
            .filter(|now| now.upto > batch.upto)
        else {
            return Ok(batch);
        };
        let needed = self.to_declare(&tree, &now.segments)?;
        Ok(match needed.iter().all(|id| durable.contains(id)) {
            true => now,
            false => batch,
        })
    }

    /// Those of the segments that a commit which names them has to declare. What neither a commit has declared nor the journal has is lost,
    /// and would be lost still if everything else waited for it for ever.
    fn to_declare(
        &self,
        tree: &TreeGuard<'_>,
        segments: &[SegmentId],
    ) -> Result<Vec<SegmentId>, FsError> {
        let mut needed = undeclared(tree, segments)?;
        // Contents of others, which commits have named for long, would be looked for there from now on.
        if let Some(host) = needed.iter().find(|id| self.spoiled.lock().contains(id)) {
            return Err(DataError::Missing(*host).into());
        }
        needed.retain(|id| self.data.is_undeclared(id));
        Ok(needed)
    }

    /// Says which segments a batch names that are lost: it is published without them, and reading what was in them fails.
    fn tell_lost(&self, batch: &Batch) -> Result<(), FsError> {
        for segment in undeclared(&self.replica.tree(), &batch.segments)? {
            if !self.data.is_undeclared(&segment) {
                tracing::error!(
                    %segment,
                    "the journal has lost a segment; what names it is published, and its contents cannot be read"
                );
            }
        }
        Ok(())
    }

    /// What is not on the storage yet.
    pub fn pending(&self) -> Pending {
        let (operations, bytes) = self.replica.tree().pending_size();
        let files = self.files.all();
        let unflushed = files.iter().filter(|f| {
            f.state.try_lock().is_none_or(|s| s.content.is_modified()) && f.gone.lock().is_none()
        });
        Pending {
            operations: operations as u64,
            bytes: bytes as u64 + self.data.pending().bytes,
            unflushed_files: unflushed.count() as u64,
            last_error: {
                let refused = || self.publisher.check_taken().err();
                self.publisher
                    .error()
                    .or_else(refused)
                    .map(|e| e.to_string())
            },
        }
    }

    /// Publishes until nothing is left; on a thread that may block.
    pub(crate) fn upload_all(
        &self,
        mut progress: impl FnMut(&Pending) + Send,
    ) -> Result<(), FsError> {
        self.runtime.block_on(async {
            let mut pause = BACKOFF.0;
            loop {
                progress(&self.pending());
                // Large segments take their time: tell how it goes meanwhile.
                let mut next = std::pin::pin!(self.publish_next(false));
                let done = loop {
                    tokio::select! {
                        biased;
                        done = &mut next => break done,
                        () = tokio::time::sleep(TICK) => progress(&self.pending()),
                    }
                };
                match done {
                    Ok(None) => return Ok(()),
                    Ok(Some(_)) => pause = BACKOFF.0,
                    Err(error) if error.is_transient() => {
                        tracing::warn!(%error, "uploading goes on later");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(BACKOFF.1);
                    }
                    Err(error) => return Err(error),
                }
            }
        })
    }

    /// Whether it is time to publish.
    fn publish_due(&self) -> bool {
        let (count, bytes) = self.replica.tree().pending_size();
        if count == 0 {
            let due = self.holds_unnamed() || self.has_to_refute() || self.has_unconfirmed();
            if !due {
                self.publisher.nothing_waits();
            }
            return due;
        }
        let since = self.committed.since().unwrap_or(0);
        let age = self.clock.monotonic().saturating_sub(since);
        let waited_for = self.publisher.waiting.load(Ordering::Acquire) > 0;
        let first = self.replica.tree().first_pending().unwrap_or_default();
        if self.has_patience() && self.holds.limit(self.clock.monotonic(), u64::MAX) <= first {
            return false;
        }
        let hurried = self.publisher.hurry.load(Ordering::Acquire) >= first;
        let much = bytes >= COMMIT_TARGET || self.journal.allocated() >= JOURNAL_MUCH;
        waited_for || hurried || much || age >= AGE_MAX
    }

    /// Whether what belongs together may wait for its other part: not if somebody waits, or there is no room for more.
    fn has_patience(&self) -> bool {
        let waited_for = self.publisher.waiting.load(Ordering::Acquire) > 0;
        !waited_for && !self.is_congested() && !self.is_crowded()
    }

    /// What is published next. With patience it ends where it tears nothing apart.
    fn next_batch(&self, tree: &TreeGuard<'_>, patience: bool) -> Result<Option<Batch>, FsError> {
        if !patience {
            return Batch::next(tree, u64::MAX);
        }
        let now = self.clock.monotonic();
        let Some(batch) = Batch::next(tree, self.holds.limit(now, u64::MAX))? else {
            return Ok(None);
        };
        // One commit may take less than that; then rather a little less still, if anything is left.
        let whole = Batch::next(tree, self.holds.limit(now, batch.upto + 1))?;
        Ok(Some(whole.unwrap_or(batch)))
    }

    /// Publishes in the background until the file system ends or nobody holds it any more.
    pub(crate) async fn publish_forever(weak: Weak<Self>, mut stop: watch::Receiver<bool>) {
        let mut pause = BACKOFF.0;
        while !*stop.borrow() {
            let Some(fs) = weak.upgrade() else { return };
            let urgent = fs.publisher.waiting.load(Ordering::Acquire) > 0;
            let heads = fs.is_waited_for();
            if heads || fs.publish_due() {
                if urgent {
                    tokio::time::sleep(GATHER).await;
                }
                let published = fs.publish_or(fs.has_patience(), heads);
                let failed = match until_stopped(&mut stop, published).await {
                    None => return,
                    Some(Ok(_)) => false,
                    Some(Err(error)) => {
                        tracing::warn!(%error, "publishing failed; it is tried again");
                        true
                    }
                };
                pause = match failed {
                    true => (pause * 2).min(BACKOFF.1),
                    false => BACKOFF.0,
                };
                if failed && Self::stopped_within(&mut stop, pause).await {
                    return;
                }
                continue;
            }
            if Self::idle(fs, &mut stop).await {
                return;
            }
        }
    }

    async fn stopped_within(stop: &mut watch::Receiver<bool>, pause: Duration) -> bool {
        tokio::select! {
            _ = stop.wait_for(|s| *s) => true,
            () = tokio::time::sleep(pause) => false,
        }
    }

    /// Waits for the next tick or for somebody in a hurry. True if the file system ends.
    async fn idle(fs: Arc<Self>, stop: &mut watch::Receiver<bool>) -> bool {
        tokio::select! {
            _ = stop.wait_for(|s| *s) => true,
            () = fs.publisher.wake.notified() => false,
            () = tokio::time::sleep(TICK) => false,
        }
    }
}

/// Those of the segments that no commit has declared yet, and that the replica does not declare again by itself.
fn undeclared(tree: &TreeGuard<'_>, segments: &[SegmentId]) -> Result<Vec<SegmentId>, FsError> {
    let mut out = Vec::new();
    for id in segments {
        if state::segment(tree, *id)?.is_none() && !tree.redeclares(id) {
            out.push(*id);
        }
    }
    Ok(out)
}

#[cfg(all(test, feature = "testutil"))]
mod tests {
    use crate::testutil::TestVault;
    use crate::{Caller, FsOptions, NodeId, OpenMode};
    use skrin_base::Errno;

    /// As after damage to the journal that left nothing of a segment.
    #[test]
    fn a_segment_that_neither_tree_nor_journal_has_keeps_nothing_else_from_being_published() {
        let options = || FsOptions {
            poll_interval: None,
            background: false,
            ..FsOptions::default()
        };
        let caller = Caller {
            uid: 1000,
            gid: 100,
            pid: 1,
            umask: 0,
        };
        let (vault, bytes) = (TestVault::in_memory(8).unwrap(), vec![7u8; 100_000]);
        let at = vault.open(0, options()).unwrap();
        let make = |name: &[u8]| {
            let rewrite = OpenMode {
                write: true,
                truncate: true,
            };
            let made = at
                .fs
                .create(NodeId::ROOT, name, 0o644, true, rewrite, &caller);
            let handle = made.unwrap().1;
            at.fs.write(handle, 0, &bytes).unwrap();
            at.fs.fsync(handle).unwrap();
            at.fs.release(handle).unwrap();
        };
        make(b"lost");
        let lost = at.data.undeclared();
        assert_eq!(lost.len(), 1);
        at.data.release(0, &lost).unwrap();
        make(b"kept");
        at.fs.sync(|_| ()).unwrap();
        assert_eq!(at.fs.pending().operations, 0);
        let other = vault.open(1, options()).unwrap();
        let read = |name: &[u8]| {
            let node = other.fs.lookup(NodeId::ROOT, name).unwrap().node;
            let handle = other.fs.open_node(node, OpenMode::default()).unwrap();
            other.fs.read(handle, 0, bytes.len())
        };
        assert_eq!(read(b"kept").unwrap(), bytes);
        assert_eq!(read(b"lost").unwrap_err().errno(), Errno::EIO);
    }
}
