//! A world: one thread, one clock that moves when everybody waits, one storage, some devices. Everything in it follows from its seed.

use crate::body::{Body, Image, Watcher};
use crate::clock::SimClock;
use crate::cloud::{Cloud, Link, Weather};
use crate::people::{Ended, FIRST, People};
use crate::random::{Chance, mix};
use crate::trace::{Counts, Trace};
use parking_lot::RwLock;
use skrin_base::clock::random;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::{DeviceId, Entropy, EpochId, PersonId, RoomId, VaultId};
use skrin_crypto::keys::{
    derive_epoch_commitment, derive_local_key, make_device_seed, make_epoch_key, make_room_secret,
};
use skrin_crypto::{
    DeviceSeed, DeviceSigner, EpochKey, RoomKeys, RoomSecret, Roster, RosterDevice,
};
use skrin_data::store::DataParts;
use skrin_data::{DataConfig, DataStore, Finding, Journal, JournalConfig};
use skrin_fs::{Drive, Fs, FsConfig, FsError, FsOptions, Waits};
use skrin_meta::replica::{CheckpointPolicy, Replica, ReplicaConfig};
use skrin_storage::disk::watch;
use skrin_storage::{Retry, RetryPolicy, Store};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

/// Devices that a room lists; those that are never started cost nothing.
const DEVICES: usize = 12;
/// Log files of this length come to their end soon.
const LOG_FILE: u32 = 256 << 10;

type Anything = Box<dyn std::error::Error>;
type Layers = (Arc<Fs>, Arc<Replica>, Arc<DataStore>);

struct Keys {
    id: DeviceId,
    seed: DeviceSeed,
    signer: Arc<DeviceSigner>,
}

/// A running device.
pub(crate) struct Machine {
    pub(crate) body: Arc<Body>,
    pub(crate) fs: Arc<Fs>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) link: Arc<Link>,
    pub(crate) clock: Arc<SimClock>,
    tasks: Vec<JoinHandle<()>>,
}

/// An epoch and its key.
type Secret = (EpochId, [u8; 32]);

/// Everything there is.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) chance: Chance,
    pub(crate) trace: Arc<Trace>,
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) bodies: Vec<Arc<Body>>,
    driver: Arc<Driver>,
    begin: Instant,
    /// Secrets of the room: its own, and one for each epoch.
    secrets: (VaultId, RoomId, [u8; 32], Vec<Secret>),
    devices: Vec<Keys>,
    pub(crate) people: RefCell<People>,
}

thread_local! {
    /// The work beside the programs, of which not all can go to another thread.
    static BESIDE: RefCell<Option<Rc<LocalSet>>> = const { RefCell::new(None) };
}

/// The one thread.
struct Driver {
    runtime: Runtime,
}

impl Driver {
    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        let beside = BESIDE.with(|b| b.borrow().clone()).unwrap();
        beside.block_on(&self.runtime, work)
    }
}

impl Drive for Driver {
    fn drive(&self, work: Pin<&mut dyn Future<Output = ()>>) {
        self.block_on(work);
    }
}

/// What is left of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of everything that happened, in its order.
    pub digest: String,
    /// How much.
    pub counts: Counts,
}

/// Where worlds keep their disks: in memory, if the machine has such a place.
fn somewhere() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    let dir = match shm.is_dir() {
        true => tempfile::tempdir_in(shm),
        false => tempfile::tempdir(),
    };
    dir.unwrap()
}

/// Lets a world happen.
pub(crate) fn run(seed: u64, happen: impl FnOnce(&World)) -> Outcome {
    let dir = somewhere();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let driver = Arc::new(Driver { runtime });
    let context = driver.runtime.enter();
    let local = LocalSet::new();
    BESIDE.with(|b| b.borrow_mut().replace(Rc::new(local)));
    let begin = Instant::now();
    let trace = Arc::new(Trace::new(begin));
    let bodies: Vec<_> = (0..DEVICES)
        .map(|n| Body::new(n, seed, dir.path(), &trace))
        .collect();
    let watched = watch::install(Watcher::new(&bodies));
    let world = World::new(seed, &driver, begin, trace, bodies);
    happen(&world);
    let outcome = Outcome {
        digest: world.trace.digest(),
        counts: world.trace.counts(),
    };
    drop(world);
    // With it all that goes on beside the programs.
    drop(BESIDE.with(|b| b.borrow_mut().take()));
    drop(watched);
    drop(context);
    outcome
}

impl World {
    fn new(
        seed: u64,
        driver: &Arc<Driver>,
        begin: Instant,
        trace: Arc<Trace>,
        bodies: Vec<Arc<Body>>,
    ) -> Self {
        let entropy = SeededEntropy::new(mix(seed, "vault"));
        let (vault, room) = (VaultId(random(&entropy)), RoomId(random(&entropy)));
        let secret = make_room_secret(&entropy);
        let key = make_epoch_key(&entropy);
        let epoch = EpochId(random(&entropy));
        let later = SeededEntropy::new(mix(seed, "epochs"));
        let mut epochs = vec![(epoch, *key.expose())];
        epochs.extend((1..DEVICES).map(|_| {
            let key = make_epoch_key(&later);
            (EpochId(random(&later)), *key.expose())
        }));
        let device = |_| {
            let seed = make_device_seed(&entropy);
            Keys {
                id: DeviceId(random(&entropy)),
                signer: Arc::new(DeviceSigner::derive(&seed, vault)),
                seed,
            }
        };
        Self {
            seed,
            chance: Chance::new(seed, "world"),
            cloud: Arc::new(Cloud::new(Arc::clone(&trace))),
            trace,
            driver: Arc::clone(driver),
            begin,
            secrets: (vault, room, *secret.expose(), epochs),
            devices: (0..DEVICES).map(device).collect(),
            people: RefCell::default(),
            bodies,
        }
    }

    /// What the first so many removals say.
    pub(crate) fn roster(&self, known: usize) -> Roster {
        let people = self.people.borrow();
        let removals = &people.removals[..known];
        let device = |(n, d): (usize, &Keys)| {
            let device = RosterDevice {
                key: d.signer.public(),
                person: PersonId([n as u8; 16]),
                label: format!("device-{n}"),
                cut: removals.iter().find_map(|r| r.ended.get(&d.id)).cloned(),
            };
            (d.id, device)
        };
        let mut control = BTreeMap::from([(FIRST, Vec::new())]);
        let mut head = FIRST;
        for removal in removals {
            control.insert(removal.id, vec![head]);
            head = removal.id;
        }
        let ended = removals.iter();
        let ended = ended.map(|r| (r.id, r.ended.keys().copied().collect()));
        Roster {
            devices: self.devices.iter().enumerate().map(device).collect(),
            control_heads: vec![head],
            control,
            rights: Arc::new(Ended(ended.collect())),
        }
    }

    /// The keys of the room after so many removals, each of which began an epoch.
    pub(crate) fn room_keys(&self, known: usize) -> Arc<RoomKeys> {
        let (vault, room, secret, epochs) = &self.secrets;
        let secret = RoomSecret::from_bytes(*secret);
        let mut keys: Option<RoomKeys> = None;
        for (id, key) in epochs.iter().take(known + 1) {
            let key = EpochKey::from_bytes(*key);
            let commitment = derive_epoch_commitment(&key, *vault, *room);
            match &mut keys {
                None => {
                    let new = RoomKeys::new(*vault, *room, &secret, *id, key, commitment);
                    keys = Some(new.unwrap());
                }
                Some(keys) => {
                    keys.add_epoch(*id, key, commitment).unwrap();
                    keys.set_current(*id);
                    keys.set_clean([*id]);
                }
            }
        }
        Arc::new(keys.unwrap())
    }

    pub(crate) fn room(&self) -> RoomId {
        self.secrets.1
    }

    pub(crate) fn device(&self, n: usize) -> DeviceId {
        self.devices[n].id
    }

    /// Time since the world began.
    pub(crate) fn time(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Lets time pass, and everybody do what he has to do in it.
    pub(crate) fn pass(&self, time: Duration) {
        self.driver.block_on(tokio::time::sleep(time));
    }

    /// Waits for something, while everybody else goes on.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.driver.block_on(work)
    }

    /// Starts a device with a local state.
    pub(crate) fn start(
        &self,
        device: usize,
        image: &Image,
        weather: Weather,
        read_only: bool,
    ) -> Result<Machine, Anything> {
        let body = &self.bodies[device];
        let dir = body.start(image);
        let purpose = format!("device {device} run {}", body.run());
        self.trace.note(format!("{purpose} starts"));
        let link = Link::new(
            &self.cloud,
            body,
            Chance::new(self.seed, &format!("{purpose} link")),
            weather,
        );
        let link = Arc::new(link);
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(mix(
            self.seed,
            &format!("{purpose} entropy"),
        )));
        let error = Chance::new(self.seed, &format!("clock {device}")).below(600) as i64;
        let clock = Arc::new(SimClock::new(self.begin, (error - 300) * 1_000_000_000));
        let policy = RetryPolicy {
            patience: Duration::from_secs(120),
            ..RetryPolicy::default()
        };
        let store: Arc<dyn Store> =
            Arc::new(Retry::new(Arc::clone(&link), policy, Arc::clone(&entropy)));
        let opened = self.open(device, &dir, &store, &entropy, &clock, read_only);
        let (fs, replica, data) = match opened {
            Ok(parts) => parts,
            Err(error) => {
                self.trace
                    .note(format!("{purpose} does not start: {error}"));
                return Err(error);
            }
        };
        Ok(Machine {
            body: Arc::clone(body),
            fs,
            replica,
            data,
            link,
            clock,
            tasks: Vec::new(),
        })
    }

    fn open(
        &self,
        device: usize,
        dir: &Path,
        store: &Arc<dyn Store>,
        entropy: &Arc<dyn Entropy>,
        clock: &Arc<SimClock>,
        read_only: bool,
    ) -> Result<Layers, Anything> {
        let me = &self.devices[device];
        let (vault, room) = (self.secrets.0, self.room());
        let known = {
            let mut people = self.people.borrow_mut();
            let all = people.removals.len();
            *people.told.entry(device).or_insert(all)
        };
        let keys = self.room_keys(known);
        let local = |purpose: &str| derive_local_key(&me.seed, vault, purpose);
        let mut config = JournalConfig::new(dir.join("journal"), vault, local("journal"), 64 << 20);
        (config.file_len, config.patience) = (LOG_FILE, Duration::ZERO);
        let (journal, mut replay) = Journal::open(config, Arc::clone(entropy))?;
        let journal = Arc::new(journal);
        let damage = replay
            .findings
            .iter()
            .find(|f| !matches!(f, Finding::TornTail { .. }));
        if let Some(damage) = damage {
            return Err(format!("the journal is damaged: {damage:?}").into());
        }
        let replica = self.driver.block_on(Replica::open(ReplicaConfig {
            store: Arc::clone(store),
            keys: Arc::clone(&keys),
            roster: Arc::new(RwLock::new(self.roster(known))),
            control_is_old: false,
            device: me.id,
            signer: Arc::clone(&me.signer),
            state_dir: dir.to_owned(),
            heads_key: local("heads"),
            meta_key: local("meta.db"),
            clock: Arc::clone(clock) as _,
            entropy: Arc::clone(entropy),
            read_only,
            cache_bytes: 4 << 20,
            checkpoints: CheckpointPolicy {
                ops: 40,
                bytes: 64 << 10,
            },
        }))?;
        let replica = Arc::new(replica);
        let located = Arc::downgrade(&replica);
        let parts = DataParts {
            store: Arc::clone(store),
            journal: Arc::clone(&journal),
            names: Arc::new(move |lane, n| keys.segment_id(lane, n)),
            copies: Arc::new(move |id| located.upgrade()?.copies(id)),
            entropy: Arc::clone(entropy),
            runtime: self.driver.runtime.handle().clone(),
        };
        let config = DataConfig::with_memory(vault, room, 128 << 20);
        let data = Arc::new(DataStore::open(config, parts, &mut replay)?);
        let fs = Fs::open(FsConfig {
            replica: Arc::clone(&replica),
            data: Arc::clone(&data),
            journal,
            replayed: replay.ops,
            edits: replay.edits,
            clock: Arc::clone(clock) as _,
            entropy: Arc::clone(entropy),
            runtime: Waits::Driving(Arc::clone(&self.driver) as _),
            space: Arc::new(|| Box::pin(std::future::ready(None))),
            local: None,
            options: FsOptions {
                poll_interval: None,
                background: false,
                deadline: Duration::from_secs(600),
                read_only,
                ..FsOptions::default()
            },
        })?;
        Ok((fs, replica, data))
    }

    /// Ends the world with a failure, saying how to see it again.
    pub(crate) fn fail(&self, scene: &str, what: impl AsRef<str>) -> ! {
        panic!(
            "{}\nthe last of what happened:\n{}\nagain: SKRIN_SEED={} cargo test -p skrin-sim {scene}",
            what.as_ref(),
            self.trace.tail(),
            self.seed,
        );
    }
}

impl Machine {
    pub(crate) fn is_alive(&self) -> bool {
        self.body.is_alive()
    }

    /// Starts work beside the programs.
    fn beside(&mut self, world: &World, work: impl Future<Output = ()> + 'static) {
        self.tasks.retain(|task| !task.is_finished());
        let beside = BESIDE.with(|b| b.borrow().clone()).unwrap();
        self.tasks.push(beside.spawn_local(work));
        let _ = world;
    }

    /// Puts everything on the storage; once more where that stored something in part.
    pub(crate) fn sync(&self) -> Result<(), FsError> {
        let mut done = self.fs.sync(|_| ());
        for _ in 0..20 {
            let text = done
                .as_ref()
                .err()
                .map(ToString::to_string)
                .unwrap_or_default();
            let again = ["the object ends before", "shows other bytes"]
                .iter()
                .any(|part| text.contains(part));
            if !again || !self.is_alive() {
                break;
            }
            done = self.fs.sync(|_| ());
        }
        done
    }

    /// Publishes one batch.
    pub(crate) fn publish(&mut self, world: &World) {
        let (fs, trace, device) = (
            Arc::clone(&self.fs),
            Arc::clone(&world.trace),
            self.body.device,
        );
        self.beside(world, async move {
            let done = fs.publish_step().await;
            trace.event("publish", format!("{device}: {done:?}"));
        });
    }

    /// Looks for changes of others.
    pub(crate) fn poll(&mut self, world: &World) {
        let (fs, trace, device) = (
            Arc::clone(&self.fs),
            Arc::clone(&world.trace),
            self.body.device,
        );
        self.beside(world, async move {
            let done = fs.poll_step().await;
            trace.event("poll", format!("{device}: {done:?}"));
        });
    }

    /// Makes a checkpoint, if one is due or `at_once`.
    pub(crate) fn checkpoint(&mut self, world: &World, at_once: bool) {
        let (replica, trace) = (Arc::clone(&self.replica), Arc::clone(&world.trace));
        let device = self.body.device;
        self.beside(world, async move {
            let made = match at_once {
                true => replica.checkpoint().await,
                false => replica.checkpoint_if_due().await,
            };
            trace.event("checkpoint", format!("{device}: {:?}", made.as_ref().ok()));
        });
    }

    /// Waits until all of that is done.
    pub(crate) fn rest(&mut self, world: &World) {
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = world.wait(task)
                && error.is_panic()
            {
                world.fail("", format!("device {}: {error}", self.body.device));
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
