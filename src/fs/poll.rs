//! Looking for what other devices did, and telling the kernel what it must forget; and the other things done now and then.

use crate::core::{Fs, Polled};
use crate::error::FsError;
use crate::flush::FLUSH_AFTER;
use crate::leases::is_lock;
use crate::nodes::Seen;
use crate::types::Notify;
use parking_lot::{Mutex, MutexGuard};
use skrin_base::{Ino, Name};
use skrin_meta::replica::{MergeDiff, ReplicaError, holds_tree};
use skrin_meta::{Kind, state};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// How often old changes are flushed and the journal is handed to the operating system.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long nothing must have been pending before a checkpoint is made, at least.
const QUIET: Duration = Duration::from_secs(10);
/// Bytes of the tree that are written to the local cache at once.
const CACHE_FLUSH: usize = 4 << 20;
/// An `open` waits for so long for a look at what other devices did.
const REFRESH_PATIENCE: Duration = Duration::from_secs(2);
/// A look at a lock file is good for so long: whoever asks wants to know who has it now.
const LOCK_FRESH: u64 = 250_000_000;
/// What is under way when the file system ends may take so long; then it is given up, as a crash would.
const GRACE: Duration = Duration::from_secs(2);
/// A control record that the storage withholds is asked for so seldom, in nanoseconds.
const AGAIN: u64 = 5_000_000_000;
/// How often the storage is asked for its room, in nanoseconds.
const SPACE_EVERY: u64 = 60_000_000_000;
/// So much the kernel has still to be told, at most, before it is told of everything that it knows.
const UNTOLD_MAX: usize = 65_536;

/// What the kernel is told of one inode.
enum Told {
    Attributes(Ino),
    Listing(Ino),
    Entries(Vec<(Ino, Name)>),
}

/// What the kernel is told after a merge.
#[derive(Default)]
struct Outdated {
    entries: Vec<(Ino, Name)>,
    attributes: Vec<Ino>,
    listings: BTreeSet<Ino>,
    /// Besides, whatever it knows.
    everything: bool,
}

impl Outdated {
    fn is_empty(&self) -> bool {
        let names = self.entries.is_empty() && self.listings.is_empty();
        names && self.attributes.is_empty() && !self.everything
    }

    /// Takes in what came later. Of very much, only that it is.
    fn extend(&mut self, later: Self) {
        self.entries.extend(later.entries);
        self.attributes.extend(later.attributes);
        self.listings.extend(later.listings);
        self.everything |= later.everything;
        if self.entries.len() + self.attributes.len() + self.listings.len() > UNTOLD_MAX {
            // As in `MergeDiff::extend`.
            self.entries.retain(|(dir, _)| *dir == Ino::ROOT);
            self.attributes.clear();
            self.listings.clear();
            self.everything = true;
        }
    }
}

/// What the kernel has still to be told by the thread that does nothing else: whoever brought it about must not wait for the kernel.
#[derive(Default)]
pub(crate) struct Untold {
    outdated: Mutex<Outdated>,
    wake: Arc<tokio::sync::Notify>,
    /// Held while the kernel is told. Nobody takes it for a call of the kernel's.
    telling: Mutex<()>,
}

impl Fs {
    /// How looking for changes went. Who holds the tree must not ask: others take the tree while they have this.
    pub(crate) fn polled(&self) -> MutexGuard<'_, Polled> {
        debug_assert!(!holds_tree(), "the state of polling after the tree");
        self.polled.lock()
    }

    /// Looks for changes of other devices now and takes them in. Waits for the storage.
    ///
    /// # Errors
    /// Of the storage, or an integrity alarm; the tree stays as it was.
    pub fn poll(&self) -> Result<(), FsError> {
        let pulled = self.runtime.block_on(self.pull_once());
        self.take_in(pulled.map_err(FsError::from))
    }

    pub(crate) fn take_in(&self, pulled: Result<MergeDiff, FsError>) -> Result<(), FsError> {
        if let Err(error) = &pulled {
            self.publisher.note_look(Some(error));
        }
        let error = pulled.as_ref().err().map(ToString::to_string);
        let unreachable = pulled.as_ref().is_err_and(FsError::is_transient);
        let outdated = pulled.and_then(|diff| self.outdate_all(diff));
        {
            let mut polled = self.polled();
            let now = self.clock.monotonic();
            if error.is_none() {
                polled.at = Some(now);
            }
            (polled.error, polled.unreachable) = (error, unreachable);
            // What was published while it was under way may not have been seen.
            let seen = match polled.running && self.is_within_interval(polled.begun, now) {
                true => polled.begun,
                false => now,
            };
            polled.tried = polled.tried.map(|_| seen);
            (polled.running, polled.given_up) = (false, false);
        }
        // Before the kernel is told, which may take until a call is answered that waits for this.
        self.looks.send_modify(|n| *n += 1);
        self.tell_kernel(outdated?);
        self.keep_leases();
        Ok(())
    }

    /// Whether `refresh` would wait: the last look for changes is longer ago than the interval, and the storage seems to answer.
    pub fn is_outdated(&self) -> bool {
        self.is_worth_waiting(&self.polled())
    }

    fn is_worth_waiting(&self, polled: &Polled) -> bool {
        polled.error.is_none() && !polled.given_up && self.is_due(polled)
    }

    fn is_due(&self, polled: &Polled) -> bool {
        let now = self.clock.monotonic();
        polled
            .tried
            .is_some_and(|tried| !self.is_within_interval(tried, now))
    }

    fn is_within_interval(&self, from: u64, to: u64) -> bool {
        let every = self.options.poll_interval.unwrap_or_default().as_nanos();
        u128::from(to.saturating_sub(from)) < every
    }

    /// Whoever goes on after this sees what other devices had published an interval ago, if the storage answers soon enough; else, what is
    /// known. All who wait at the same time share one look.
    pub fn refresh(&self) {
        let look = {
            let polled = self.polled();
            if !self.is_worth_waiting(&polled) {
                return;
            }
            if !polled.running {
                self.look.notify_one();
            }
            self.next_look(1)
        };
        if !self.await_look(look, REFRESH_PATIENCE) {
            self.polled().given_up = true;
            tracing::info!("the storage does not answer; files are opened as they are known");
        }
    }

    /// Whether `refresh_locks` would wait.
    pub fn is_outdated_for_locks(&self) -> bool {
        let polled = self.polled();
        let now = self.clock.monotonic();
        let old = |tried: u64| now.saturating_sub(tried) >= LOCK_FRESH;
        polled.error.is_none() && !polled.given_up && polled.tried.is_some_and(old)
    }

    /// Whoever goes on after this knows of the lock files that other devices had published a moment ago, if the storage answers soon enough.
    pub fn refresh_locks(&self) {
        if !self.is_outdated_for_locks() {
            return;
        }
        let look = self.ask_for_look();
        if let Some(look) = look
            && !self.await_look(look, REFRESH_PATIENCE)
        {
            self.polled().given_up = true;
        }
    }

    /// Looks for changes now, whatever the interval: something that the tree names is not there. Waits for the storage.
    pub(crate) fn look_again(&self) {
        match self.ask_for_look() {
            Some(look) => {
                self.await_look(look, self.options.deadline);
            }
            None => {
                if let Err(error) = self.poll() {
                    tracing::debug!(%error, "looking for changes failed");
                }
            }
        }
    }

    /// Asks for a look that begins now; `None` if nobody polls.
    fn ask_for_look(&self) -> Option<(watch::Receiver<u64>, u64)> {
        let mut polled = self.polled();
        polled.forced = polled.tried.is_some();
        self.look.notify_one();
        // One that has begun may have seen too little.
        polled
            .forced
            .then(|| self.next_look(1 + u64::from(polled.running)))
    }

    /// The look that is so many after the last one that ended; call it while `polled` is locked.
    fn next_look(&self, nth: u64) -> (watch::Receiver<u64>, u64) {
        let looks = self.looks.subscribe();
        let number = *looks.borrow() + nth;
        (looks, number)
    }

    /// False if it did not end in time.
    fn await_look(
        &self,
        (mut looks, number): (watch::Receiver<u64>, u64),
        patience: Duration,
    ) -> bool {
        let ended = async {
            let ended = looks.wait_for(|n| *n >= number);
            tokio::time::timeout(patience, ended).await.is_ok()
        };
        self.runtime.block_on(ended)
    }

    /// Makes the kernel forget what changed. Holds no lock while it tells.
    pub(crate) fn invalidate(&self, diff: MergeDiff) -> Result<(), FsError> {
        let told = self.outdate_all(diff)?;
        self.tell_kernel(told);
        Ok(())
    }

    /// The same for who must not wait for the kernel: another thread tells it soon.
    pub(crate) fn invalidate_soon(&self, diff: MergeDiff) -> Result<(), FsError> {
        let outdated = self.outdate_all(diff)?;
        // Where there is no kernel nobody takes it away again.
        if outdated.is_empty() || self.notify.lock().is_none() {
            return Ok(());
        }
        self.untold.outdated.lock().extend(outdated);
        self.untold.wake.notify_one();
        Ok(())
    }

    /// The kernel has been told, when this returns, what others had left to be told. Whoever calls holds no lock, and nothing that a call of the
    /// kernel's waits for.
    pub(crate) fn tell_untold(&self) {
        let _turn = self.untold.telling.lock();
        let outdated = std::mem::take(&mut *self.untold.outdated.lock());
        self.tell_kernel(outdated);
    }

    /// Gives new numbers to what changed; what the kernel must be told.
    fn outdate_all(&self, diff: MergeDiff) -> Result<Outdated, FsError> {
        if !diff.is_empty() {
            self.pins.stale.store(true, Ordering::Release);
        }
        self.rehome_locals((!diff.everything).then_some(&diff.inodes))?;
        let mut entries: Vec<(Ino, Name)> = diff.entries.into_iter().collect();
        let (mut attributes, mut listings) = (Vec::new(), BTreeSet::new());
        for ino in diff.inodes {
            match self.outdate(ino)? {
                Told::Attributes(ino) => attributes.push(ino),
                Told::Listing(dir) => {
                    listings.insert(dir);
                }
                Told::Entries(names) => entries.extend(names),
            }
        }
        for (dir, name) in entries.iter().filter(|(_, name)| is_lock(name.as_bytes())) {
            self.watch(&self.replica.tree(), *dir, name)?;
        }
        listings.extend(entries.iter().map(|(dir, _)| *dir));
        if diff.everything {
            self.suspect_everything()?;
        }
        Ok(Outdated {
            entries,
            attributes,
            listings,
            everything: diff.everything,
        })
    }

    fn tell_kernel(&self, outdated: Outdated) {
        let Some(notify) = self.notify.lock().clone() else {
            return;
        };
        for (dir, name) in outdated.entries {
            notify.entry(self.nodes.known_as(dir), &name);
        }
        for ino in outdated.attributes {
            notify.attributes(self.nodes.known_as(ino));
        }
        for dir in outdated.listings {
            notify.listing(self.nodes.known_as(dir));
        }
        if outdated.everything {
            self.tell_everything(&*notify);
        }
    }

    /// The state was folded again, or more changed than is listed: whatever the kernel knows may be another now. One after the
    /// other, as it may know very much.
    fn suspect_everything(&self) -> Result<(), FsError> {
        for ino in self.nodes.all_known() {
            self.outdate(ino)?;
            let tree = self.replica.tree();
            let links = state::inode(&tree, ino)?.map(|inode| inode.links);
            for link in links.into_iter().flatten() {
                if is_lock(link.name.as_bytes()) {
                    self.watch(&tree, link.dir, &link.name)?;
                }
            }
        }
        Ok(())
    }

    /// With the name of a directory the kernel forgets the names in it.
    fn tell_everything(&self, notify: &dyn Notify) {
        let known = self.nodes.all_known();
        let inode = |ino| match state::inode(&self.replica.tree(), ino) {
            Ok(inode) => inode,
            Err(error) => {
                tracing::warn!(%error, "the kernel is not told what an inode is called");
                None
            }
        };
        for ino in &known {
            let (node, inode) = (self.nodes.known_as(*ino), inode(*ino));
            if !self.nodes.is_stale(node) {
                notify.attributes(node);
            }
            for link in inode.into_iter().flat_map(|inode| inode.links) {
                notify.entry(self.nodes.known_as(link.dir), &link.name);
            }
        }
        let is_dir = |ino: &&Ino| inode(**ino).is_some_and(|inode| inode.kind == Kind::Dir);
        for dir in known.iter().filter(is_dir) {
            notify.listing(self.nodes.known_as(*dir));
        }
    }

    /// What the kernel must forget of an inode that changed. The contents of a regular file come under a new node; an open file keeps those that
    /// it was opened with.
    fn outdate(&self, ino: Ino) -> Result<Told, FsError> {
        self.tell_edits(ino);
        let inode = state::inode(&self.replica.tree(), ino)?;
        let inode = match inode {
            Some(inode) if inode.kind == Kind::File => inode,
            Some(inode) if inode.kind == Kind::Dir => return Ok(Told::Listing(ino)),
            _ => return Ok(Told::Attributes(ino)),
        };
        if let Some(file) = self.files.get(self.nodes.known_as(ino))
            && file.state.lock().base == inode.version
            // One whose last name went here, and that a merge gave one again, is another to who has it open.
            && file.gone.lock().is_none()
        {
            return Ok(Told::Attributes(ino));
        }
        // Of a state that was folded anew most files are as they were.
        if self.nodes.is_as_introduced(ino, Seen::of(&inode)) {
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
        if !self.options.read_only {
            let (weak, stop) = (weak.clone(), self.stop.subscribe());
            self.start("skrin-collect", move || Self::collect_forever(weak, stop))?;
        }
        if !self.options.read_only {
            let (weak, stop) = (weak.clone(), self.stop.subscribe());
            self.start("skrin-tell", move || Self::tell_forever(weak, stop))?;
        }
        if let Some(every) = self.options.poll_interval {
            let (weak, stop) = (weak.clone(), self.stop.subscribe());
            // Opening the replica has looked.
            self.polled().tried = Some(self.clock.monotonic());
            self.start("skrin-poll", move || Self::poll_forever(weak, stop, every))?;
        }
        {
            let (weak, stop) = (weak.clone(), self.stop.subscribe());
            self.start("skrin-pins", move || Self::pin_forever(weak, stop))?;
        }
        {
            let (weak, stop) = (weak.clone(), self.stop.subscribe());
            self.start("skrin-forget", move || Self::relieve_forever(weak, stop))?;
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
        let Some(look) = weak.upgrade().map(|fs| Arc::clone(&fs.look)) else {
            return;
        };
        let mut in_vain = None;
        loop {
            let asked = tokio::select! {
                ended = pause(&mut stop, every) => match ended {
                    true => return,
                    false => false,
                },
                () = look.notified() => true,
            };
            let Some(fs) = weak.upgrade() else { return };
            if !fs.begin_look(asked) {
                continue;
            }
            let Some(pulled) = until_stopped(&mut stop, fs.pull(&mut in_vain)).await else {
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

    /// What others published, that of devices and people included who came since the control records were read: only with newer ones it counts.
    /// `in_vain` is when such were asked for and did not help.
    async fn pull(&self, in_vain: &mut Option<u64>) -> Result<MergeDiff, ReplicaError> {
        let pulled = self.pull_once().await;
        let source = self.control.lock().clone();
        let now = self.clock.monotonic();
        let source = source.filter(|_| in_vain.is_none_or(|at| now.saturating_sub(at) >= AGAIN));
        let Some(source) = source else {
            return pulled;
        };
        if !self.replica.needs_control().await {
            *in_vain = None;
            return pulled;
        }
        source().await;
        let again = self.pull_once().await;
        let still = self.replica.needs_control().await;
        *in_vain = still.then(|| self.clock.monotonic());
        let Ok(mut diff) = pulled else {
            return again;
        };
        match again {
            Ok(more) => diff.extend(more),
            // The next look meets it again.
            Err(error) => tracing::warn!(%error, "looking for changes of other devices failed"),
        }
        Ok(diff)
    }

    /// Notes at once that it went well: what publishing meets after it must not be taken back.
    async fn pull_once(&self) -> Result<MergeDiff, ReplicaError> {
        let pulled = self.replica.pull().await;
        if pulled.is_ok() {
            self.publisher.note_look(None);
        }
        pulled
    }

    /// Whether to look now: not for somebody whose wish was fulfilled meanwhile.
    fn begin_look(&self, asked: bool) -> bool {
        let mut polled = self.polled();
        let forced = std::mem::take(&mut polled.forced);
        polled.running = !asked || forced || self.is_due(&polled);
        polled.begun = self.clock.monotonic();
        polled.running
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

    /// A thread of its own: the kernel may keep it waiting for whoever changes a directory, and he may wait for all others.
    async fn tell_forever(weak: Weak<Self>, mut stop: watch::Receiver<bool>) {
        let Some(wake) = weak.upgrade().map(|fs| Arc::clone(&fs.untold.wake)) else {
            return;
        };
        loop {
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                () = wake.notified() => {}
            }
            let Some(fs) = weak.upgrade() else { return };
            fs.tell_untold();
        }
    }

    /// A thread of its own, as the kernel may keep it waiting for whoever changes the directory.
    async fn relieve_forever(weak: Weak<Self>, mut stop: watch::Receiver<bool>) {
        let mut bound = 0;
        while !pause(&mut stop, HOUSEKEEPING).await {
            let Some(fs) = weak.upgrade() else { return };
            let (most, known) = (fs.options.known_max, fs.nodes.count());
            // What it cannot forget is not asked for again and again.
            bound = bound.min(known + most / 8).max(most);
            if known > bound {
                fs.relieve_kernel();
                bound = usize::MAX;
            }
        }
    }

    /// Asks the kernel to forget files, where it knows too many: for each of them this process keeps something, and what
    /// the kernel needs room for is only its own. Not open files, whose pages and locks would come under another name; and not directories, in which
    /// programs may stand. Waits for the kernel.
    pub fn relieve_kernel(&self) {
        let most = self.options.known_max;
        let Some(notify) = self.notify.lock().clone() else {
            return;
        };
        for ino in self.nodes.surplus(most - most / 8) {
            // Whoever ends the file system waits for this thread, and the kernel may take long for each.
            if *self.stop.borrow() {
                return;
            }
            if self.files.get(self.nodes.known_as(ino)).is_some() {
                continue;
            }
            let inode = state::inode(&self.replica.tree(), ino);
            let inode =
                inode.inspect_err(|error| tracing::debug!(%error, "an inode cannot be read"));
            let inode = inode.ok().flatten().filter(|i| i.kind != Kind::Dir);
            for link in inode.into_iter().flat_map(|inode| inode.links) {
                notify.entry(self.nodes.known_as(link.dir), &link.name);
            }
        }
    }

    /// What is in memory goes to the journal, and from there to the operating system.
    pub(crate) fn keep_local(&self) -> Result<(), FsError> {
        self.flush_old();
        self.journal.flush()?;
        self.keep_leases();
        self.relieve_tree()?;
        self.locals.keep_old(self.clock.monotonic(), FLUSH_AFTER)
    }

    /// Writes the tree to the local cache when much of it is only in memory. Losing the cache costs time only.
    pub(crate) fn relieve_tree(&self) -> Result<(), FsError> {
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
