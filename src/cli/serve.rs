//! The process behind a mount: opens everything, answers the kernel and the control socket, and ends cleanly.

mod answers;
mod noted;
mod watch;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use skrin_base::{Ino, VaultId};
use skrin_fs::{Durability, Fs, FsError, FsOptions, Shutdown};
use skrin_fuse::{MountError, MountHandle, MountOptions, Names, View};
use skrin_meta::replica::Replica;
use skrin_storage::Store;
use skrin_vault::{Device, Officer, Place, Room, Unlocked, VaultError};

use crate::args;
use crate::commands::mount::{Plan, Ready, Word};
use crate::control::{self, Pending, Served};
use crate::events::{self, EventLog};
use crate::exit::{Exit, Failure, Outcome};
use crate::harden::{self, KeyMemory};
use crate::invitations::Invitations;
use crate::mount_point::{self, MountPoint};
use crate::officer::{Known, People, PeopleParts};
use crate::pins::PinFile;
use crate::scrub::Scrub;
use crate::session::{Layers, Parts};
use crate::state_dir::{StateDir, make_private};
use crate::store::SHORT_PATIENCE;
use crate::{commands, log, machine, mirror, mount_table, told, unlock};
use noted::Noted;
use watch::Watch;

/// How long one request is tried again before whoever made it hears of it. What is pending is tried again for ever.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same for the first mount of a vault here, which nothing else can open: some servers take their time for the first request.
const FIRST_PATIENCE: Duration = Duration::from_secs(60);
/// Without any progress for so long, and with an error, somebody who waits for uploads is told.
const STALLED: Duration = Duration::from_secs(30);
/// What to do about an upload that fails.
const NOTHING_LOST: &str = "nothing is lost: it is tried again while the vault is mounted, and `skrin unmount --now` leaves it in the journal";
/// The same of the time that is kept, when it is to be another.
const NOTED: &str = "it is noted here, and holds as soon as it is on the storage, which is tried again while the vault is mounted";
/// How long a mount may be in use for a moment: by a program between fork and exec, by who looks through /proc, by an indexer.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// The same where nobody can be seen who uses it.
const UNSEEN_PATIENCE: Duration = Duration::from_secs(10);
/// How long SIGTERM waits for uploads.
const TERM_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether somebody else has unmounted us.
const LOOK: Duration = Duration::from_millis(300);

/// Tells whoever started the mount how it goes; false when nobody listens any more.
pub(crate) type Say<'a> = &'a mut dyn FnMut(Word) -> bool;

/// Mounts in the foreground, logging to standard error; returns when the mount has ended.
///
/// # Errors
/// Everything that a mount can meet.
pub(crate) fn run(plan: Plan, say: Say<'_>) -> Outcome {
    log::to_stderr();
    Serving::start(plan, say, false)?.until_the_end()
}

/// The same in the background, logging to the state directory.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_logged(plan: Plan, say: Say<'_>) -> Outcome {
    Serving::start(plan, say, true)?.until_the_end()
}

/// A vault that is open, before it is mounted.
struct Opened {
    store: Arc<dyn Store>,
    state: StateDir,
    unlocked: Unlocked,
    room: Room,
    /// Whether that was read from local copies.
    room_is_old: bool,
    /// Whether the storage answered; `None` if it was not asked.
    answered: Option<bool>,
    device: Device,
    /// Never seen here before.
    fresh: bool,
}

/// Everything of a mount that lives as long as it does.
struct Serving {
    runtime: tokio::runtime::Runtime,
    mounted: Arc<Mounted>,
    point: Arc<MountPoint>,
    events: Receiver<Event>,
    _control: control::Server,
    state: StateDir,
}

enum Event {
    /// A request has ended the mount, and was answered.
    Ended,
    /// SIGTERM or SIGINT.
    Signal,
}

/// What the control socket works on.
struct Mounted {
    fs: Arc<Fs>,
    people: Arc<People>,
    replica: Arc<Replica>,
    data: Arc<skrin_data::DataStore>,
    scrub: Arc<Scrub>,
    watch: Watch,
    /// What is pinned, across mounts; `None` above a local folder.
    pin_file: Option<Arc<PinFile>>,
    /// Whether something was uploaded.
    uploaded: AtomicBool,
    /// Taken by whoever unmounts.
    handle: Mutex<Option<MountHandle>>,
    /// Whoever took it has put everything away.
    is_down: AtomicBool,
    ended: Sender<Event>,
    info: Info,
}

/// What does not change.
struct Info {
    point: Arc<MountPoint>,
    vault: String,
    vault_id: String,
    read_only: bool,
    key_memory: KeyMemory,
    device: skrin_base::DeviceId,
    since: Instant,
    /// Whether the storage answered when the vault was opened; `None` if it was not asked.
    answered: Option<bool>,
    cache: Option<PathBuf>,
    state_dir: PathBuf,
    /// Never seen here before.
    fresh: bool,
    /// Rollbacks that were accepted here.
    rollbacks: Vec<String>,
}

impl Serving {
    fn start(plan: Plan, say: Say<'_>, logged: bool) -> Outcome<Self> {
        let runtime = commands::runtime()?;
        let point = Arc::new(MountPoint::prepare(&plan.dir, plan.mkdir)?);
        let result = runtime
            .block_on(open(&plan, say, logged))
            .and_then(|opened| {
                let _context = runtime.enter();
                mount(&runtime, &plan, opened, &point, say)
            });
        match result {
            Ok((mounted, events, control, state)) => {
                point.guard();
                let serving = Self {
                    runtime,
                    mounted,
                    point,
                    events,
                    _control: control,
                    state,
                };
                // Whoever asked for the mount is gone: nobody knows that it is there.
                let ready = Box::new(serving.mounted.ready());
                if !say(Word::Ready(ready)) {
                    serving.mounted.end(Shutdown::LeaveInJournal)?;
                    serving.point.remove();
                    return Err(Failure::new(
                        Exit::Other,
                        "the command that asked for this mount was ended",
                    ));
                }
                Ok(serving)
            }
            Err(failure) => {
                point.remove();
                Err(failure)
            }
        }
    }

    fn until_the_end(self) -> Outcome {
        let mounted = &self.mounted;
        let outcome = loop {
            mounted.note_events();
            match self.events.recv_timeout(LOOK) {
                Ok(Event::Ended) => break Ok(()),
                Ok(Event::Signal) => break self.end_by_signal(),
                Err(RecvTimeoutError::Timeout) if mounted.was_unmounted() => {
                    tracing::info!("unmounted from outside");
                    self.state.ends();
                    break mounted.shut_down(Shutdown::LeaveInJournal);
                }
                Err(_) => {}
            }
        };
        mounted.note_events();
        self.state.ends();
        self.point.remove();
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        outcome
    }

    /// Uploads for a while, or until the next signal, then leaves the rest in the journal.
    fn end_by_signal(&self) -> Outcome {
        tracing::info!("asked to end");
        let uploaded = self.mounted.start_upload()?;
        let until = Instant::now() + TERM_PATIENCE;
        while let Err(RecvTimeoutError::Timeout) = uploaded.recv_timeout(LOOK)
            && Instant::now() < until
        {
            if let Ok(Event::Signal) = self.events.try_recv() {
                tracing::info!("asked to end again");
                break;
            }
        }
        let left = self.mounted.left();
        if !left.is_nothing() {
            tracing::warn!(
                bytes = left.bytes,
                changes = left.operations,
                "left in the journal for the next mount"
            );
        }
        self.mounted.end(Shutdown::LeaveInJournal)
    }
}

type Started = (Arc<Mounted>, Receiver<Event>, control::Server, StateDir);

fn mount(
    runtime: &tokio::runtime::Runtime,
    plan: &Plan,
    opened: Opened,
    point: &Arc<MountPoint>,
    say: Say<'_>,
) -> Outcome<Started> {
    let Opened {
        store,
        state,
        unlocked,
        room,
        room_is_old,
        answered,
        device,
        fresh,
    } = opened;
    let (vault_id, device_id, place) = (unlocked.vault().to_string(), device.id(), store.place());
    let own = own_dir(state.path(), fresh && plan.read_only)?;
    let people = people_parts(plan, (&unlocked, &device), &store, &own)?;
    let known = Known::of(&room, &people.officer);
    let noted = Noted::load(plan, &own, &device, unlocked.vault())?;
    watch::note_opened(&noted.events, &unlocked, &room);
    let parts = Parts {
        store,
        unlocked: &unlocked,
        room,
        room_is_old,
        device,
        state_dir: &own,
        memory: plan.memory,
        cache_size: plan.cache_size,
        disk_cache: noted.cache.clone(),
        read_only: plan.read_only,
        pins: noted.pin_file.clone(),
    };
    let layers = runtime.block_on(Layers::open(parts));
    let mut layers = layers.inspect_err(|failure| noted.events.refused(failure))?;
    drop(unlocked);
    layers.local = noted.local;
    warn(&layers, fresh, &noted.events, say);
    let key_memory = harden::lock_memory();
    let fs = file_system(plan, &mut layers, answered, noted.pinned)?;
    let people = People::new(people, known, (&fs, Arc::clone(&layers.replica)));
    let people = follow(runtime, plan, people, &fs);
    let copies = mirror::open(state.path())?;
    runtime.spawn(Arc::clone(&people).read_copies(Arc::clone(&copies)));
    let handle = skrin_fuse::mount(Arc::clone(&fs), point.path(), &mount_options(plan))
        .map_err(mount_failure)?;
    let around = (&people, copies, &noted.events);
    let scrub = Scrub::new(&layers, around, &own, plan.read_only);
    let (ended, events) = channel();
    signals(runtime, ended.clone())?;
    let mounted = Arc::new(Mounted {
        fs,
        people,
        replica: layers.replica,
        data: layers.data,
        scrub,
        watch: Watch::new(noted.events),
        pin_file: noted.pin_file,
        uploaded: AtomicBool::new(false),
        handle: Mutex::new(Some(handle)),
        is_down: AtomicBool::new(false),
        ended,
        info: Info {
            point: Arc::clone(point),
            vault: place,
            vault_id,
            read_only: plan.read_only,
            key_memory,
            device: device_id,
            since: Instant::now(),
            answered,
            cache: noted.cache,
            state_dir: state.path().to_owned(),
            fresh,
            rollbacks: noted.rollbacks,
        },
    });
    match answer(runtime, &mounted, point) {
        Ok(control) => Ok((mounted, events, control, state)),
        Err(failure) => {
            mounted.end(Shutdown::LeaveInJournal)?;
            Err(failure)
        }
    }
}

/// The file system over the layers, with what is pinned.
fn file_system(
    plan: &Plan,
    layers: &mut Layers,
    answered: Option<bool>,
    pinned: Option<BTreeSet<Ino>>,
) -> Outcome<Arc<Fs>> {
    let mut options = fs_options(plan);
    options.unreachable = answered == Some(false);
    let fs = layers.file_system(options)?;
    if let Some(pinned) = pinned {
        fs.pin(pinned);
    }
    Ok(fs)
}

/// Where what is sealed for this machine's device is kept. Somebody who only reads, with a device that ends with the mount, has a directory of
/// his own: what another one left there is removed, as nobody can open it any more.
fn own_dir(state_dir: &Path, ends: bool) -> Outcome<PathBuf> {
    let reader = state_dir.join("reader");
    match std::fs::remove_dir_all(&reader) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::io(&reader, "cannot be removed", &error));
        }
        _ => {}
    }
    if !ends {
        return Ok(state_dir.to_owned());
    }
    make_private(&reader)?;
    Ok(reader)
}

/// What is needed to follow what is decided about people once the root is wiped.
fn people_parts(
    plan: &Plan,
    (unlocked, device): (&Unlocked, &Device),
    store: &Arc<dyn Store>,
    own: &Path,
) -> Outcome<PeopleParts> {
    Ok(PeopleParts {
        officer: Officer::for_device(unlocked, device),
        own: device.id(),
        store: Arc::clone(store),
        address: plan.store.address.clone(),
        read_only: plan.read_only,
        invitations: Invitations::load(own, device, unlocked.vault())?,
    })
}

/// Begins to follow what is decided about people, where there is a storage to ask.
fn follow(runtime: &tokio::runtime::Runtime, plan: &Plan, people: People, fs: &Fs) -> Arc<People> {
    let people = Arc::new(people);
    if !plan.offline {
        people.follow_from(fs);
    }
    // A reader leaves no trace on the storage.
    if !plan.offline && !plan.read_only {
        runtime.spawn(Arc::clone(&people).watch());
    }
    people
}

/// What whoever mounts has to know first.
fn warn(layers: &Layers, fresh: bool, events: &EventLog, say: Say<'_>) {
    for finding in layers.findings() {
        events.note(events::JOURNAL_DAMAGED, "journal", &finding, false);
        say(Word::Note(format!("warning: {finding}")));
    }
    if fresh {
        first_contact(&layers.replica, say);
    }
}

/// Begins to answer other commands, and goes on with a scrub.
fn answer(
    runtime: &tokio::runtime::Runtime,
    mounted: &Arc<Mounted>,
    point: &MountPoint,
) -> Outcome<control::Server> {
    let control = control::Server::start(point.path(), Arc::clone(mounted) as Arc<dyn Served>)?;
    mounted.scrub.begin(runtime.handle().clone())?;
    Ok(control)
}

fn mount_options(plan: &Plan) -> MountOptions {
    MountOptions {
        // What was typed, and not the server that the environment names: mount(8) and `mount.skrin` look for that.
        name: mount_table::source_of(&plan.store.address),
        allow_other: plan.allow_other,
        read_only: plan.read_only,
        no_exec: plan.no_exec,
        view: View {
            uid: plan.owner.uid,
            gid: plan.owner.gid,
            umask: plan.owner.umask,
        },
        names: names(plan),
    }
}

fn fs_options(plan: &Plan) -> FsOptions {
    FsOptions {
        durability: match plan.durability {
            args::Durability::Local => Durability::Local,
            args::Durability::Remote => Durability::Remote,
        },
        poll_interval: FsOptions::default().poll_interval.filter(|_| !plan.offline),
        read_only: plan.read_only,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        label: true,
        ..FsOptions::default()
    }
}

/// It goes on for programs in another mount namespace, whose changes go to the journal when it ends.
fn elsewhere(error: &MountError, owners: &[String]) -> Failure {
    let by = match owners {
        [] => String::new(),
        some => format!(", by {}", some.join(", ")),
    };
    let own = std::process::id();
    Failure::new(Exit::Busy, format!("{error}{by}")).remedy(format!(
        "the process behind the mount ({own}) ends when they do, or when it is sent SIGTERM"
    ))
}

/// What was said about names, and what this system's users expect of the rest.
fn names(plan: &Plan) -> Names {
    let usual = Names::default();
    Names {
        any_form: plan
            .unicode
            .map_or(usual.any_form, |how| how == args::Unicode::Any),
        uncached: plan.uncached,
    }
}

fn mount_failure(error: MountError) -> Failure {
    let exit = match error {
        MountError::Busy(_) => Exit::Busy,
        MountError::MountPoint { .. } => Exit::Absent,
        _ => Exit::Other,
    };
    Failure::new(exit, error)
}

/// Opens the vault: from the storage, or from the copies of an earlier mount where the storage cannot be reached or does not let us in.
async fn open(plan: &Plan, say: Say<'_>, logged: bool) -> Outcome<Opened> {
    let address = &plan.store.address;
    let (header, store, reached) = reach(plan).await?;
    let vault = match header {
        Some(vault) => vault,
        None => {
            mirror::find(&plan.state_base, address).ok_or_else(|| mirror::never_mounted(address))?
        }
    };
    let state = StateDir::open(&plan.state_base, vault)?;
    if logged {
        log::to_file(state.path())?;
    }
    if let Reached::No(why) = &reached {
        say(Word::Note(format!(
            "{why}; mounting what is known here, changes wait in the journal"
        )));
    }
    let source = match &reached {
        Reached::Yes(store) => Arc::clone(store),
        Reached::No(_) | Reached::NotAsked => mirror::open(state.path())?,
    };
    let unlocked = unlock::unlock_here(&*source, &plan.credential, state.path()).await?;
    for slot in unlocked.damaged_slots() {
        say(Word::Note(format!(
            "warning: {slot} is damaged; run skrin verify"
        )));
    }
    let entered = enter(plan, say, &*source, &unlocked, state.path()).await;
    let (mut room, device, fresh) =
        entered.inspect_err(|failure| watch::note_refused(state.path(), &unlocked, failure))?;
    if let Reached::Yes(from) = &reached {
        if !plan.read_only && room.needs_epoch() && room.state.now().may_write(&device.id()) {
            let place = Place {
                store: &**from,
                clock: &machine::SystemClock,
                entropy: &machine::OsEntropy,
            };
            room = Officer::for_device(&unlocked, &device)
                .make_epoch(&place)
                .await?;
        }
        mirror::refresh(&**from, state.path(), unlocked.root_room(), address).await?;
    }
    Ok(Opened {
        store,
        state,
        unlocked,
        room,
        room_is_old: !matches!(reached, Reached::Yes(_)),
        answered: match reached {
            Reached::Yes(_) => Some(true),
            Reached::No(_) => Some(false),
            Reached::NotAsked => None,
        },
        device,
        fresh,
    })
}

/// The root room, who we are there, and whether that is new.
async fn enter(
    plan: &Plan,
    say: Say<'_>,
    source: &dyn Store,
    unlocked: &Unlocked,
    state_dir: &Path,
) -> Outcome<(Room, Device, bool)> {
    let mut room = unlocked.load_room(source).await?;
    unlock::require_member(unlocked, &room)?;
    require_no_recovery(unlocked, &room)?;
    told::tell(state_dir, &room, &mut |text| {
        say(Word::Note(text));
    });
    let (device, fresh) = match plan.read_only && !unlock::has_device(state_dir) {
        // A reader leaves no trace on the storage.
        true => (Device::make(unlocked, &room, &machine::OsEntropy), true),
        false => unlock::device(source, unlocked, &mut room, state_dir).await?,
    };
    Ok((room, device, fresh))
}

/// A recovery key has no devices: it is there to get everything back, not to work with.
fn require_no_recovery(unlocked: &Unlocked, room: &Room) -> Outcome {
    match unlocked.is_recovery(room) {
        false => Ok(()),
        true => Err(Failure::new(
            Exit::Usage,
            "these are the words of a recovery key, which reads the vault and mounts nothing",
        )
        .remedy(
            "skrin export reads everything into a directory; skrin init makes a new vault of it",
        )),
    }
}

/// Whether the storage answered, and let us in.
enum Reached {
    Yes(Arc<dyn Store>),
    No(Failure),
    NotAsked,
}

/// Asks the storage for the header, with little patience where the vault is known here. Returns the vault it names, and the storage to use from now on.
async fn reach(plan: &Plan) -> Outcome<(Option<VaultId>, Arc<dyn Store>, Reached)> {
    let address = &plan.store.address;
    if plan.offline {
        let place = address.clone();
        return Ok((None, Arc::new(mirror::Offline { place }), Reached::NotAsked));
    }
    let known = mirror::find(&plan.state_base, address);
    let patience = match known {
        Some(_) => SHORT_PATIENCE,
        None => FIRST_PATIENCE,
    };
    let quick = plan.store.open(false, patience)?;
    let store = plan.store.open(false, PATIENCE)?;
    match (skrin_vault::open_header(&*quick).await, known) {
        (Ok(header), _) => Ok((Some(header.vault), store, Reached::Yes(quick))),
        (Err(VaultError::Storage(error)), Some(vault)) if error.is_transient() => {
            Ok((Some(vault), store, Reached::No(error.into())))
        }
        // `quick` was refused a moment ago and sends nothing for a while. `store` would try the same password again at once, and servers count.
        (Err(VaultError::Storage(error)), Some(vault)) if error.is_closed() => {
            Ok((Some(vault), quick, Reached::No(error.into())))
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// What a person must compare himself: a bare machine cannot know whether it is shown everything.
fn first_contact(replica: &Replica, say: Say<'_>) {
    let status = replica.status();
    say(Word::Note("this is a new device of this vault; compare with another device that it shows the newest state:".into()));
    let newest = status.newest_by_device();
    for lane in &newest {
        say(Word::Note(format!(
            "  newest commit of {}: {}",
            lane.label,
            machine::date(lane.time)
        )));
    }
    if newest.is_empty() {
        say(Word::Note("  nothing was ever written to it".into()));
    }
    say(Word::Note(format!("  heads code: {}", status.heads_code())));
}

fn signals(runtime: &tokio::runtime::Runtime, events: Sender<Event>) -> Outcome {
    use tokio::signal::unix::{SignalKind, signal};
    let fail =
        |e: std::io::Error| Failure::new(Exit::Other, format!("cannot listen to signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(fail)?;
    let mut int = signal(SignalKind::interrupt()).map_err(fail)?;
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if events.send(Event::Signal).is_err() {
                return;
            }
        }
    });
    Ok(())
}

impl Mounted {
    fn ready(&self) -> Ready {
        let info = &self.info;
        Ready {
            vault: info.vault.clone(),
            vault_id: info.vault_id.clone(),
            mount_point: info.point.path().display().to_string(),
            state_dir: info.state_dir.display().to_string(),
            pid: std::process::id(),
            read_only: info.read_only,
            online: info.answered,
            new_device: info.fresh,
            heads_code: self.replica.status().heads_code(),
        }
    }

    /// Where the mount shows an inode, at one of its places.
    fn path(&self, ino: Ino) -> Option<String> {
        let names = self.fs.path_of(ino).ok()??;
        let mut path = self.info.point.path().to_owned();
        path.extend(names.iter().map(|n| OsStr::from_bytes(n.as_bytes())));
        Some(path.display().to_string())
    }

    fn left(&self) -> Pending {
        let pending = self.fs.pending();
        Pending {
            bytes: pending.bytes,
            operations: pending.operations + pending.unflushed_files,
        }
    }

    /// Whether the kernel refuses to write here, whatever we were told.
    fn is_remounted_read_only(&self) -> bool {
        let line = mount_table::at(self.info.point.path()).ok().flatten();
        line.is_some_and(|line| line.has("ro"))
    }

    /// Whether the kernel has let go of the mount without being asked by us.
    fn was_unmounted(&self) -> bool {
        let handle = self.handle.try_lock();
        handle.is_some_and(|handle| handle.as_ref().is_some_and(MountHandle::is_finished))
    }

    /// Returns when everything is on the storage, or with the reason why nothing moves. The attempt itself goes on then.
    fn upload(&self, progress: &mut (dyn FnMut(Pending) + Send)) -> Outcome {
        let first = self.left();
        let done = self.patiently(|fs| fs.sync(|_| {}), progress);
        // Where nothing was pending, nobody was asked.
        if done.is_ok() && !first.is_nothing() {
            self.uploaded.store(true, Ordering::Relaxed);
        }
        done.map_err(|failure| failure.remedy(NOTHING_LOST))
    }

    /// Does what waits for uploads as long as it takes, or returns with the reason why nothing moves. The attempt itself goes on then.
    fn patiently(
        &self,
        work: impl FnOnce(&Fs) -> Result<(), FsError> + Send + 'static,
        progress: &mut (dyn FnMut(Pending) + Send),
    ) -> Outcome {
        let mut last = self.left();
        let done = self.begin(work)?;
        let mut moved = Instant::now();
        loop {
            match done.recv_timeout(LOOK) {
                Ok(result) => return Ok(result?),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(
                        Exit::Other,
                        "the upload ended early; see the log",
                    ));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let left = self.left();
            progress(left);
            if left != last {
                (last, moved) = (left, Instant::now());
            }
            if moved.elapsed() > STALLED
                && let Some(error) = self.fs.status().pending.last_error
            {
                return Err(Failure::new(Exit::Unreachable, error));
            }
        }
    }

    fn start_upload(&self) -> Outcome<Receiver<Result<(), FsError>>> {
        self.begin(|fs| fs.sync(|_| {}))
    }

    /// Begins on a thread of its own what waits for uploads.
    fn begin(
        &self,
        work: impl FnOnce(&Fs) -> Result<(), FsError> + Send + 'static,
    ) -> Outcome<Receiver<Result<(), FsError>>> {
        let fs = Arc::clone(&self.fs);
        let (done, result) = channel();
        let upload = move || {
            let _ = done.send(work(&fs));
        };
        let started = std::thread::Builder::new()
            .name("upload".into())
            .spawn(upload);
        started.map_err(|e| Failure::new(Exit::Other, format!("cannot start a thread: {e}")))?;
        Ok(result)
    }

    fn shut_down(&self, how: Shutdown) -> Outcome {
        self.scrub.end();
        self.fs.shutdown(how)?;
        self.replica
            .flush()
            .map_err(|e| Failure::new(Exit::Other, e))?;
        Ok(())
    }

    /// Unmounts whatever it takes, and closes the journal.
    fn end(&self, how: Shutdown) -> Outcome {
        let mut detached = Ok(());
        if let Some(mut handle) = self.handle.lock().take()
            && let Err(error) = handle.unmount(false)
        {
            let holders = mount_table::holders(self.info.point.path());
            tracing::warn!(%error, ?holders, "still in use; detached");
            // Its session ends with this process: waiting for the last open file could take for ever.
            if !matches!(error, MountError::Elsewhere(_)) {
                detached = mount_point::detach(self.info.point.path(), true);
            }
            std::mem::forget(handle);
        }
        // Whatever the kernel says of the mount.
        self.shut_down(how)?;
        detached
    }

    /// Takes the mount away, or says who uses it.
    fn let_go(&self) -> Outcome {
        let mut handle = self.handle.lock();
        let Some(mut mount) = handle.take() else {
            return Err(Failure::new(Exit::Busy, "this mount is ending already"));
        };
        // While it is in our table.
        let line = mount_table::at(self.info.point.path()).ok().flatten();
        match unmount_patiently(&mut mount, self.info.point.path()) {
            Ok(()) => Ok(()),
            Err(error @ MountError::Elsewhere(_)) => {
                *handle = Some(mount);
                let owners = line.as_ref().map(mount_table::owners).unwrap_or_default();
                Err(elsewhere(&error, &owners))
            }
            Err(MountError::Busy(_)) => {
                *handle = Some(mount);
                Err(mount_point::busy(self.info.point.path()))
            }
            Err(error) => {
                *handle = Some(mount);
                Err(mount_failure(error))
            }
        }
    }
}

/// Unmounts; what is in use is tried again for a moment, as most such uses are over before anybody could look for them.
fn unmount_patiently(mount: &mut MountHandle, point: &Path) -> Result<(), MountError> {
    let begun = Instant::now();
    loop {
        let result = mount.unmount(false);
        if !matches!(result, Err(MountError::Busy(_))) || begun.elapsed() > UNSEEN_PATIENCE {
            return result;
        }
        if begun.elapsed() > BUSY_PATIENCE && !mount_table::holders(point).is_empty() {
            return result;
        }
        std::thread::sleep(LOOK);
    }
}
