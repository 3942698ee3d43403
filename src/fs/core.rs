//! The file system as a whole: its parts, how it starts and how it ends.

use crate::commit::Committed;
use crate::config::{
    ControlSource, FsConfig, FsOptions, JournalRoom, Pending, SpaceSource, Status, Waits,
};
use crate::error::FsError;
use crate::file::{Files, OpenFile};
use crate::hold::Holds;
use crate::leases::Leases;
use crate::local::Locals;
use crate::nodes::Nodes;
use crate::past::view::Views;
use crate::pin::Pins;
use crate::poll::Untold;
use crate::publish::Publisher;
use crate::types::{NodeId, Notify, Space};
use parking_lot::Mutex;
use skrin_base::wire::Decode;
use skrin_base::{Clock, Entropy, Ino, OpId, SegmentId, Timestamp};
use skrin_data::{DataStore, Journal};
use skrin_meta::replica::{Replica, ReplicaError};
use skrin_meta::{Op, OpKind, state};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long somebody waits for a storage that did not answer when it was asked for changes.
const GONE_PATIENCE: Duration = Duration::from_secs(5);
/// How often the own lane is ended before a clean end is given up.
const CLOSE_ATTEMPTS: usize = 4;

/// A file system over one room: POSIX on inodes, in our own types. Methods may be called from any thread; those that may
/// wait for the storage say so.
pub struct Fs {
    pub(crate) replica: Arc<Replica>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) runtime: Waits,
    pub(crate) space: Arc<SpaceSource>,
    pub(crate) options: FsOptions,
    pub(crate) nodes: Nodes,
    pub(crate) files: Files,
    pub(crate) views: Views,
    /// Bytes of open files that are only in memory.
    pub(crate) dirty: AtomicUsize,
    /// Bytes of edits in the journal that are not settled.
    pub(crate) noted: AtomicUsize,
    /// What is stored of files with many extents, by the version that was looked at.
    pub(crate) counted: Mutex<HashMap<Ino, (OpId, u64)>>,
    pub(crate) committed: Committed,
    pub(crate) publisher: Publisher,
    /// Calls that wait for room.
    pub(crate) waiting: AtomicUsize,
    pub(crate) holds: Holds,
    pub(crate) leases: Leases,
    pub(crate) pins: Pins,
    pub(crate) locals: Locals,
    /// Whether the tree was looked at for what people call this device.
    pub(crate) labelled: AtomicBool,
    pub(crate) notify: Mutex<Option<Arc<dyn Notify>>>,
    pub(crate) untold: Untold,
    pub(crate) control: Mutex<Option<Arc<ControlSource>>>,
    pub(crate) known_space: Mutex<Option<Space>>,
    pub(crate) polled: Mutex<Polled>,
    /// Asks the poller to look now.
    pub(crate) look: Arc<tokio::sync::Notify>,
    /// Counts how often it has looked.
    pub(crate) looks: tokio::sync::watch::Sender<u64>,
    pub(crate) stop: tokio::sync::watch::Sender<bool>,
    stopped: AtomicBool,
    /// Segments of the last run that were to hold copies of others' blocks, and do not.
    pub(crate) spoiled: Mutex<HashSet<SegmentId>>,
    /// The threads of the background work, until `shutdown` waits for them.
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How looking for changes went, on the monotonic clock.
#[derive(Default)]
pub(crate) struct Polled {
    /// The last success.
    pub(crate) at: Option<u64>,
    /// What the last attempt met.
    pub(crate) error: Option<String>,
    /// Whether that was that the storage does not answer.
    pub(crate) unreachable: bool,
    /// The beginning of the last attempt that has ended, or of the mount, which is one; the end of one that took longer than the interval.
    /// `None` where nobody polls.
    pub(crate) tried: Option<u64>,
    /// When the attempt that is under way began.
    pub(crate) begun: u64,
    /// An attempt is under way.
    pub(crate) running: bool,
    /// Somebody waited for it for too long: nobody else does.
    pub(crate) given_up: bool,
    /// Somebody needs one though the interval is not over.
    pub(crate) forced: bool,
}

/// How a shutdown treats what is not on the storage.
pub enum Shutdown {
    /// Uploads everything and calls back now and then.
    UploadAll {
        /// Told what is left.
        progress: Box<dyn FnMut(&Pending) + Send>,
    },
    /// Leaves it in the journal, on stable storage, for the next mount.
    LeaveInJournal,
}

impl Fs {
    /// Puts the file system together, folds the journal's operations into the tree and starts the background work.
    ///
    /// # Errors
    /// A damaged local cache or journal, as its error says.
    pub fn open(config: FsConfig) -> Result<Arc<Self>, FsError> {
        let polled = Polled {
            unreachable: config.options.unreachable,
            ..Polled::default()
        };
        let mut key = [0; 32];
        config.entropy.fill(&mut key);
        let fs = Arc::new(Self {
            replica: config.replica,
            data: config.data,
            journal: config.journal,
            clock: config.clock,
            entropy: config.entropy,
            runtime: config.runtime,
            space: config.space,
            options: config.options,
            nodes: Nodes::new(key),
            files: Files::default(),
            views: Views::default(),
            dirty: AtomicUsize::new(0),
            noted: AtomicUsize::new(0),
            counted: Mutex::default(),
            committed: Committed::default(),
            publisher: Publisher::default(),
            waiting: AtomicUsize::new(0),
            holds: Holds::default(),
            leases: Leases::default(),
            pins: Pins::default(),
            locals: Locals::open(config.local)?,
            labelled: AtomicBool::new(false),
            notify: Mutex::new(None),
            untold: Untold::default(),
            control: Mutex::new(None),
            known_space: Mutex::new(None),
            polled: Mutex::new(polled),
            look: Arc::default(),
            looks: tokio::sync::watch::Sender::new(0),
            stop: tokio::sync::watch::Sender::new(false),
            stopped: AtomicBool::new(false),
            spoiled: Mutex::default(),
            threads: Mutex::default(),
        });
        let removed = fs.restore(config.replayed)?;
        // Before edits are taken in: what they seal now may wait for room to be named.
        fs.release_unnamed()?;
        fs.restore_edits(config.edits, &removed)?;
        fs.own_fresh_root()?;
        fs.rehome_locals(None)?;
        if fs.options.background {
            fs.start_background()?;
        }
        Ok(fs)
    }

    /// Ends the own lane when everything is published. Others may have closed it meanwhile: then something of it may have to be published again.
    async fn close_lane(&self) -> Result<(), FsError> {
        for _ in 0..CLOSE_ATTEMPTS {
            // The commit that closes the lane proposes it.
            self.checkpoint().await;
            self.replica.close_lane(self.settled()).await?;
            let is_done = self.replica.tree().pending_count() == 0;
            if is_done || self.replica.barred().is_some() {
                return Ok(());
            }
            while self.publish_next(false).await?.is_some() {}
        }
        Err(FsError::Invalid(
            "other devices close the lane of this one again and again; what is left is in the journal",
        ))
    }

    /// Segments are written in the lane that this device writes now.
    pub(crate) async fn keep_to_own_lane(&self) -> Result<(), FsError> {
        let own = self.replica.own_names().await;
        let set = self
            .data
            .set_lane(own.lane, own.decided_below, own.are_free);
        Ok(set?)
    }

    /// Folds what the journal replayed into the tree again; the inodes whose last name may have gone with it.
    fn restore(&self, replayed: Vec<(u64, Vec<u8>)>) -> Result<HashSet<Ino>, FsError> {
        let mut ops = Vec::with_capacity(replayed.len());
        let (mut removed, mut hosts) = (HashSet::new(), Vec::new());
        for (counter, bytes) in replayed {
            let op = Op::from_bytes(&bytes).map_err(|error| {
                tracing::error!(counter, %error, "an operation of the journal does not decode");
                FsError::Invalid(
                    "an operation of the journal does not decode; a newer version wrote it",
                )
            })?;
            match &op.kind {
                OpKind::Remove { ino, .. } => removed.extend([*ino]),
                OpKind::Rename { replaces, .. } => removed.extend(replaces.iter().map(|r| r.ino)),
                OpKind::Relocate { host, .. } => hosts.push(*host),
                _ => {}
            }
            ops.push(op);
        }
        self.replica.restore_pending(ops)?;
        for host in hosts {
            let declared = state::segment(&self.replica.tree(), host)?.is_some();
            if !declared && self.data.has_lost_copies(&host) {
                tracing::error!(%host, "the journal has lost what was copied into a segment; nothing that names it is published");
                self.spoiled.lock().insert(host);
            }
        }
        if !self.options.read_only {
            self.runtime.block_on(self.keep_to_own_lane())?;
        }
        Ok(removed)
    }

    /// The root of a new vault belongs to whoever mounts it first.
    fn own_fresh_root(&self) -> Result<(), FsError> {
        let root = state::inode(&self.replica.tree(), Ino::ROOT)?;
        let fresh = root.is_some_and(|r| r.ctime == Timestamp(0));
        let (uid, gid) = (self.options.uid, self.options.gid);
        if !fresh || self.options.read_only || (uid, gid) == (0, 0) {
            return Ok(());
        }
        self.commit(|_| {
            Ok(OpKind::SetAttr {
                ino: Ino::ROOT,
                mode: None,
                uid: Some(uid),
                gid: Some(gid),
                atime: None,
                mtime: None,
            })
        })?;
        Ok(())
    }

    /// Who is asked when a look for changes finds what newer control records than the known ones are needed for: that look ends with them.
    /// `None`: what needs them waits.
    pub fn set_control_source(&self, source: Option<Arc<ControlSource>>) {
        *self.control.lock() = source;
    }

    /// Whom to tell what the kernel must forget. Before it is set nobody is told.
    pub fn set_notify(&self, notify: Option<Arc<dyn Notify>>) {
        *self.notify.lock() = notify;
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Refuses what a read-only mount, one that is ending, or one whose changes nobody would take, must not do.
    pub(crate) fn check_writable(&self) -> Result<(), FsError> {
        self.check_allowed()?;
        self.publisher.check_taken()
    }

    /// The same, but for a storage that takes nothing now and may do so again.
    pub(crate) fn check_allowed(&self) -> Result<(), FsError> {
        self.check_keeps_changes()?;
        match self.replica.barred() {
            Some(barred) => Err(ReplicaError::from(barred).into()),
            None => Ok(()),
        }
    }

    /// The same, for what programs have done already: it is kept even if nobody takes it any more.
    pub(crate) fn check_keeps_changes(&self) -> Result<(), FsError> {
        if self.options.read_only {
            return Err(FsError::ReadOnly);
        }
        if self.stopped.load(Ordering::Acquire) {
            return Err(FsError::Stopped);
        }
        Ok(())
    }

    /// As `check_writable`, for a node. What stays on this machine is taken whatever the storage says.
    pub(crate) fn check_node_writable(&self, node: NodeId) -> Result<(), FsError> {
        match node.is_local() {
            true => self.check_allowed(),
            false => self.check_writable(),
        }
    }

    /// As `check_writable`, for an open file: one that was cut to nothing before gets its new contents, as otherwise the empty file would be
    /// published.
    pub(crate) fn check_file_writable(&self, file: &OpenFile) -> Result<(), FsError> {
        let is_cut = file.state.lock().rewritten;
        match is_cut {
            true => self.check_allowed(),
            false => self.check_writable(),
        }
    }

    /// How long somebody who reads waits for the storage: not so long if it has not answered lately.
    pub(crate) fn reading_deadline(&self) -> Duration {
        match self.polled().unreachable {
            true => self.options.deadline.min(GONE_PATIENCE),
            false => self.options.deadline,
        }
    }

    /// Waits for the storage on a thread that may block, at most for so long.
    pub(crate) fn wait<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, FsError>>,
    ) -> Result<T, FsError> {
        self.runtime.block_on(async {
            match tokio::time::timeout(limit, work).await {
                Ok(done) => done,
                Err(_) => Err(FsError::Deadline(limit.as_secs())),
            }
        })
    }

    /// How the file system stands.
    pub fn status(&self) -> Status {
        // These take locks of their own, under which others ask when it was polled.
        let (pending, open_files) = (self.pending(), self.files.all().len());
        let polled = self.polled();
        let now = self.clock.monotonic();
        Status {
            pending,
            poll_error: polled.error.clone(),
            polled_ago: polled.at.map(|at| now.saturating_sub(at) / 1_000_000_000),
            open_files,
            space: *self.known_space.lock(),
            room: JournalRoom {
                journal_bytes: self.journal.allocated(),
                journal_limit: self.journal.limit(),
                operations_limit: self.options.pending_max as u64,
                waiting: self.waiting.load(Ordering::Relaxed) as u64,
            },
        }
    }

    /// Ends the file system: tells the tree what open files hold, makes the journal durable and, if asked, uploads everything and
    /// closes the lane. Waits for the storage without an end when uploading. Unmount before: changes are refused afterwards. When it
    /// returns nothing of the background work goes on: the local state may be opened again.
    ///
    /// # Errors
    /// What could not be written; then nothing was given up and it may be called again.
    pub fn shutdown(&self, mode: Shutdown) -> Result<(), FsError> {
        let (told, upload) = match mode {
            Shutdown::UploadAll { progress } => (self.sync(progress), true),
            Shutdown::LeaveInJournal => (self.flush_all(), false),
        };
        if told.is_err() {
            // Nobody may call again: what can be kept is kept.
            let kept = self.journal.sync_all().map_err(FsError::from);
            if let Err(error) = kept.and(self.locals.keep()) {
                tracing::error!(%error, "not all that was changed could be kept on the local disk");
            }
        }
        told?;
        self.stopped.store(true, Ordering::Release);
        self.stop.send_replace(true);
        self.join_background();
        // What the background work did after the last look.
        while upload && self.runtime.block_on(self.publish_next(false))?.is_some() {}
        self.journal.sync_all()?;
        self.locals.keep()?;
        self.runtime.block_on(self.replica.settle_locally())?;
        if upload && !self.options.read_only && self.replica.barred().is_none() {
            self.runtime.block_on(self.close_lane())?;
        }
        self.replica.flush()?;
        if !self.options.read_only {
            self.journal.close()?;
        }
        Ok(())
    }
}
