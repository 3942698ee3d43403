//! Looking for what other devices did, and telling the kernel what it must forget; and the other things done now and then.

use crate::core::Fs;
use crate::error::FsError;
use skrin_base::{Ino, Name};
use skrin_meta::replica::MergeDiff;
use skrin_meta::{Kind, state};
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// How often old changes are flushed and the journal is handed to the operating system.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long nothing must have been pending before a checkpoint is made, at least.
const QUIET: Duration = Duration::from_secs(10);
/// Bytes of the tree that are written to the local cache at once.
const CACHE_FLUSH: usize = 4 << 20;
/// What is under way when the file system ends may take so long; then it is given up, as a crash would.
const GRACE: Duration = Duration::from_secs(2);
/// How often the storage is asked for its room, in nanoseconds.
const SPACE_EVERY: u64 = 60_000_000_000;

/// What the kernel is told of one inode.
enum Told {
    Attributes(Ino),
    Entries(Vec<(Ino, Name)>),
}

impl Fs {
    /// Looks for changes of other devices now and takes them in. Waits for the storage.
    ///
    /// # Errors
    /// Of the storage, or an integrity alarm; the tree stays as it was.
    pub fn poll(&self) -> Result<(), FsError> {
        let pulled = self.runtime.block_on(self.replica.pull());
        self.take_in(pulled.map_err(FsError::from))
    }

    fn take_in(&self, pulled: Result<MergeDiff, FsError>) -> Result<(), FsError> {
        let diff = {
            let mut polled = self.polled.lock();
            polled.error = pulled.as_ref().err().map(ToString::to_string);
            if pulled.is_ok() {
                polled.at = Some(self.clock.monotonic());
            }
            pulled?
        };
        self.invalidate(diff)
    }

    /// Makes the kernel forget what changed. Holds no lock while it tells.
    pub(crate) fn invalidate(&self, mut diff: MergeDiff) -> Result<(), FsError> {
        if diff.everything {
            self.suspect_everything(&mut diff)?;
        }
        let mut entries: Vec<(Ino, Name)> = diff.entries.into_iter().collect();
        let mut attributes = Vec::new();
        for ino in diff.inodes {
            match self.outdate(ino)? {
                Told::Attributes(ino) => attributes.push(ino),
                Told::Entries(names) => entries.extend(names),
            }
        }
        let Some(notify) = self.notify.lock().clone() else {
            return Ok(());
        };
        for (dir, name) in entries {
            notify.entry(self.nodes.known_as(dir), &name);
        }
        for ino in attributes {
            notify.attributes(self.nodes.known_as(ino));
        }
        Ok(())
    }

    /// The state was folded again: whatever the kernel knows may be another now.
    fn suspect_everything(&self, diff: &mut MergeDiff) -> Result<(), FsError> {
        for ino in self.nodes.all_known() {
            diff.inodes.insert(ino);
            let inode = state::inode(&self.replica.tree(), ino)?;
            let links = inode.map(|i| i.links).unwrap_or_default();
            let names = links.into_iter().map(|link| (link.dir, link.name));
            diff.entries.extend(names);
        }
        Ok(())
    }

    /// What the kernel must forget of an inode that changed. The contents of a regular file come under a new node; an open file keeps those that
    /// it was opened with.
    fn outdate(&self, ino: Ino) -> Result<Told, FsError> {
        let inode = state::inode(&self.replica.tree(), ino)?;
        let Some(inode) = inode.filter(|i| i.kind == Kind::File) else {
            return Ok(Told::Attributes(ino));
        };
        if let Some(file) = self.files.get(self.nodes.known_as(ino))
            && file.state.lock().base == inode.version
        {
            return Ok(Told::Attributes(ino));
        }
        self.nodes.outdate(ino);
        let names = inode.links.into_iter().map(|link| (link.dir, link.name));
        Ok(Told::Entries(names.collect()))
    }

    /// Starts the threads of the background work. They hold the file system weakly and end with it.
    pub(crate) fn start_background(self: &Arc<Self>) -> Result<(), FsError> {
        let weak = Arc::downgrade(self);
        if !self.options.read_only {
            let (weak, stop) = (weak.clone(), self.stop.subscribe());
            self.start("skrin-publish", move || Self::publish_forever(weak, stop))?;
        }
        if !self.options.read_only {
            let (weak, stop) = (weak.clone(), self.stop.subscribe());
            self.start("skrin-check", move || Self::checkpoint_forever(weak, stop))?;
        }
        if let Some(every) = self.options.poll_interval {
            let (weak, stop) = (weak.clone(), self.stop.subscribe());
            self.start("skrin-poll", move || Self::poll_forever(weak, stop, every))?;
        }
        let stop = self.stop.subscribe();
        self.start("skrin-house", move || Self::keep_house(weak, stop))
    }

    /// A thread of its own: this work waits for the disk and for the kernel as well as for the storage.
    fn start<W: Future<Output = ()>>(
        &self,
        name: &str,
        work: impl FnOnce() -> W + Send + 'static,
    ) -> Result<(), FsError> {
        let runtime = self.runtime.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        match thread.spawn(move || runtime.block_on(work())) {
            Ok(thread) => {
                self.threads.lock().push(thread);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, name, "a thread cannot be started");
                Err(FsError::Stopped)
            }
        }
    }

    /// Waits until the background work has ended, after `stop` was sent.
    pub(crate) fn join_background(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the background work panicked");
            }
        }
    }

    async fn poll_forever(weak: Weak<Self>, mut stop: watch::Receiver<bool>, every: Duration) {
        while !pause(&mut stop, every).await {
            let Some(fs) = weak.upgrade() else { return };
            let Some(pulled) = until_stopped(&mut stop, fs.replica.pull()).await else {
                return;
            };
            if let Err(error) = fs.take_in(pulled.map_err(FsError::from)) {
                tracing::warn!(%error, "looking for changes of other devices failed");
                // What it took in before it failed is in the tree all the same.
                let diff = fs.replica.take_diff().await;
                if let Err(error) = fs.invalidate(diff) {
                    tracing::warn!(%error, "the kernel could not be told of changes");
                }
            }
        }
    }

    /// Makes checkpoints when nothing has been pending for a while: in the middle of a long copy each would be outdated at once.
    async fn checkpoint_forever(weak: Weak<Self>, mut stop: watch::Receiver<bool>) {
        let mut quiet = false;
        while !pause(&mut stop, QUIET).await {
            let Some(fs) = weak.upgrade() else { return };
            let nothing = fs.pending().operations == 0;
            if nothing && quiet && until_stopped(&mut stop, fs.checkpoint()).await.is_none() {
                return;
            }
            quiet = nothing;
        }
    }

    /// Makes a checkpoint if one is due. Doing without costs the next fresh device time, and nobody anything else.
    pub(crate) async fn checkpoint(&self) {
        if let Err(error) = self.replica.checkpoint_if_due().await {
            tracing::warn!(%error, "no checkpoint could be made");
        }
    }

    async fn keep_house(weak: Weak<Self>, mut stop: watch::Receiver<bool>) {
        let mut space_at = None;
        loop {
            let Some(fs) = weak.upgrade() else { return };
            if !fs.options.read_only
                && let Err(error) = fs.keep_local()
            {
                tracing::warn!(%error, "local files cannot be written");
            }
            let now = fs.clock.monotonic();
            if space_at.is_none_or(|at| now.saturating_sub(at) >= SPACE_EVERY) {
                space_at = Some(now);
                let Some(asked) = until_stopped(&mut stop, (fs.space)()).await else {
                    return;
                };
                if let Some(space) = asked {
                    *fs.known_space.lock() = Some(space);
                }
            }
            drop(fs);
            if pause(&mut stop, HOUSEKEEPING).await {
                return;
            }
        }
    }

    /// What is in memory goes to the journal, and from there to the operating system.
    fn keep_local(&self) -> Result<(), FsError> {
        self.flush_old();
        self.journal.flush()?;
        // Losing the cache costs time only.
        if self.replica.tree().unflushed() >= CACHE_FLUSH {
            self.replica.flush()?;
        }
        Ok(())
    }
}

/// What became of the work; `None` if the file system ended and it did not end with it.
pub(crate) async fn until_stopped<T>(
    stop: &mut watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return Some(done),
        _ = stop.wait_for(|s| *s) => {}
    }
    tokio::time::timeout(GRACE, work).await.ok()
}

/// Waits; true if the file system ends meanwhile.
async fn pause(stop: &mut watch::Receiver<bool>, time: Duration) -> bool {
    tokio::select! {
        _ = stop.wait_for(|s| *s) => true,
        () = tokio::time::sleep(time) => false,
    }
}
