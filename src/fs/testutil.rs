//! A vault for tests, with devices that can be mounted, killed and mounted again. Everything below is real but the roster, which is given.

use crate::{Fs, FsConfig, FsError, FsOptions, LocalFiles, LocalKeeper, Space};
use parking_lot::{Mutex, RwLock};
use skrin_base::clock::random;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::{Clock, DeviceId, Entropy, EpochId, Hash32, PersonId, RoomId, Timestamp, VaultId};
use skrin_crypto::keys::{
    derive_epoch_commitment, derive_local_key, make_device_seed, make_epoch_key, make_room_secret,
};
use skrin_crypto::{
    DeviceSeed, DeviceSigner, EpochKey, Everybody, RoomKeys, RoomSecret, Roster, RosterDevice,
};
use skrin_data::store::DataParts;
use skrin_data::{DataConfig, DataStore, Journal, JournalConfig};
use skrin_meta::checkpoint::{DigestOfRows, Root, seal_root};
use skrin_meta::commit::{Commit, Decided, Opinion, Verdict, seal_commit};
use skrin_meta::lane::RoomNames;
use skrin_meta::replica::{CheckpointPolicy, Replica, ReplicaConfig};
use skrin_storage::{LocalStore, MemoryStore, ObjectName, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// A clock of which no two readings are equal.
#[derive(Default)]
pub struct TickingClock(AtomicU64);

impl Clock for TickingClock {
    fn now(&self) -> Timestamp {
        let ticks = self.0.fetch_add(1_000_000, Ordering::Relaxed);
        Timestamp(1_790_000_000_000_000_000 + ticks as i64)
    }
    fn monotonic(&self) -> u64 {
        self.0.fetch_add(1_000, Ordering::Relaxed)
    }
}

/// The clock of the machine.
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| d.as_nanos() as i64))
    }
    fn monotonic(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// Keeps what stays on the machine of a device, in memory and as it is.
#[derive(Default)]
pub struct Shelf {
    kept: Mutex<Option<Vec<u8>>>,
    /// How often something was stored.
    pub stored: AtomicU64,
    /// Whether the disk is full.
    pub full: AtomicBool,
}

impl LocalKeeper for Shelf {
    fn store(&self, bytes: &[u8]) -> std::io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.stored.fetch_add(1, Ordering::Relaxed);
        *self.kept.lock() = Some(bytes.to_vec());
        Ok(())
    }
}

impl Shelf {
    /// What a mount begins with.
    pub fn files(self: &Arc<Self>, max: usize) -> LocalFiles {
        LocalFiles {
            kept: self.kept.lock().clone(),
            keeper: Arc::clone(self) as Arc<dyn LocalKeeper>,
            max,
        }
    }
}

/// One of the devices of a vault.
struct Device {
    id: DeviceId,
    seed: DeviceSeed,
    signer: Arc<DeviceSigner>,
}

/// A vault and its devices.
pub struct TestVault {
    /// Where it lies.
    pub store: Arc<dyn Store>,
    /// Adjusts the journal of each device.
    pub journal: Box<dyn Fn(&mut JournalConfig)>,
    /// Adjusts what each device keeps of contents, and how.
    pub data: Box<dyn Fn(&mut DataConfig)>,
    /// Where each device keeps what stays on its machine, if it does.
    pub local: Box<dyn Fn(usize) -> Option<LocalFiles>>,
    /// Time for everything in it.
    pub clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    keys: Arc<RoomKeys>,
    first: (RoomSecret, EpochId, EpochKey),
    devices: Vec<Device>,
    dir: TempDir,
    runtime: tokio::runtime::Runtime,
}

/// What a vault is made with.
pub type Anything = Box<dyn std::error::Error>;

/// A mounted device with its parts.
pub struct Opened {
    /// The file system.
    pub fs: Arc<Fs>,
    /// Its metadata.
    pub replica: Arc<Replica>,
    /// Its contents.
    pub data: Arc<DataStore>,
}

impl TestVault {
    /// A vault in memory with three devices.
    ///
    /// # Errors
    /// When there is no room for temporary files.
    pub fn in_memory(seed: u64) -> Result<Self, Anything> {
        Self::new(
            seed,
            Arc::new(MemoryStore::new()),
            Arc::new(TickingClock::default()),
        )
    }

    /// A vault in a local folder, with the machine's clock.
    ///
    /// # Errors
    /// When there is no room for temporary files.
    pub fn in_folder(seed: u64, folder: &Path) -> Result<Self, Anything> {
        let store = LocalStore::open(folder, true, &SeededEntropy::new(seed))?;
        Self::new(seed, Arc::new(store), Arc::new(SystemClock::default()))
    }

    /// A vault with three devices.
    ///
    /// # Errors
    /// When there is no room for temporary files.
    pub fn new(seed: u64, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, Anything> {
        let entropy = SeededEntropy::new(seed);
        let (vault, room) = (VaultId(random(&entropy)), RoomId(random(&entropy)));
        let secret = make_room_secret(&entropy);
        let key = make_epoch_key(&entropy);
        let commitment = derive_epoch_commitment(&key, vault, room);
        let epoch = EpochId(random(&entropy));
        let first = EpochKey::from_bytes(*key.expose());
        let keys = RoomKeys::new(vault, room, &secret, epoch, key, commitment)?;
        let device = |_| {
            let seed = make_device_seed(&entropy);
            Device {
                id: DeviceId(random(&entropy)),
                signer: Arc::new(DeviceSigner::derive(&seed, vault)),
                seed,
            }
        };
        let devices = (0..3).map(device).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        Ok(Self {
            store,
            journal: Box::new(|_| ()),
            data: Box::new(|_| ()),
            local: Box::new(|_| None),
            clock,
            entropy: Arc::new(entropy),
            keys: Arc::new(keys),
            first: (secret, epoch, first),
            devices,
            dir: tempfile::tempdir()?,
            runtime,
        })
    }

    /// Where a device keeps its local state.
    pub fn state_dir(&self, device: usize) -> PathBuf {
        self.dir.path().join(format!("device-{device}"))
    }

    /// The runtime of all devices.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// The keys after somebody was removed: a second epoch, and no file key of the first is clean.
    ///
    /// # Errors
    /// None, as the keys are those that were made.
    pub fn keys_after_a_removal(&self) -> Result<RoomKeys, Anything> {
        let (secret, epoch, key) = &self.first;
        let (vault, room) = (self.keys.vault(), self.keys.room());
        let commit = |key: &EpochKey| derive_epoch_commitment(key, vault, room);
        let key = EpochKey::from_bytes(*key.expose());
        let commitment = commit(&key);
        let mut keys = RoomKeys::new(vault, room, secret, *epoch, key, commitment)?;
        let (next, key) = (EpochId([7; 32]), EpochKey::from_bytes([8; 32]));
        let commitment = commit(&key);
        keys.add_epoch(next, key, commitment)?;
        keys.set_current(next);
        keys.set_clean([next]);
        Ok(keys)
    }

    /// Who may write.
    pub fn roster(&self) -> Roster {
        let device = |(n, d): (usize, &Device)| {
            let device = RosterDevice {
                key: d.signer.public(),
                person: PersonId([1; 16]),
                label: format!("device-{n}"),
                cut: None,
            };
            (d.id, device)
        };
        Roster {
            devices: self.devices.iter().enumerate().map(device).collect(),
            control_heads: vec![Hash32([5; 32])],
            control: [(Hash32([5; 32]), Vec::new())].into(),
            rights: Arc::new(Everybody),
        }
    }

    /// Opens a device, from its local state if it has one.
    ///
    /// # Errors
    /// Whatever keeps a mount from starting.
    pub fn open(&self, device: usize, options: FsOptions) -> Result<Opened, Anything> {
        let dir = self.state_dir(device);
        std::fs::create_dir_all(&dir)?;
        let me = self.devices.get(device).ok_or("no such device")?;
        let (vault, room) = (self.keys.vault(), self.keys.room());
        let local = |purpose: &str| derive_local_key(&me.seed, vault, purpose);
        let config = ReplicaConfig {
            store: Arc::clone(&self.store),
            keys: Arc::clone(&self.keys),
            roster: Arc::new(RwLock::new(self.roster())),
            control_is_old: false,
            device: me.id,
            signer: Arc::clone(&me.signer),
            state_dir: dir.clone(),
            heads_key: local("heads"),
            meta_key: local("meta.db"),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            read_only: options.read_only,
            cache_bytes: 16 << 20,
            checkpoints: CheckpointPolicy::default(),
        };
        let replica = Arc::new(self.runtime.block_on(Replica::open(config))?);
        let mut config = JournalConfig::new(dir.join("journal"), vault, local("journal"), 4 << 30);
        (self.journal)(&mut config);
        let (journal, mut replay) = Journal::open(config, Arc::clone(&self.entropy))?;
        let journal = Arc::new(journal);
        let keys = Arc::clone(&self.keys);
        let located = Arc::downgrade(&replica);
        let parts = DataParts {
            store: Arc::clone(&self.store),
            journal: Arc::clone(&journal),
            names: Arc::new(move |lane, n| keys.segment_id(lane, n)),
            copies: Arc::new(move |id| located.upgrade()?.copies(id)),
            entropy: Arc::clone(&self.entropy),
            runtime: self.runtime().clone(),
        };
        let mut config = DataConfig::with_memory(vault, room, 128 << 20);
        (self.data)(&mut config);
        let _inside = self.runtime.enter();
        let data = Arc::new(DataStore::open(config, parts, &mut replay)?);
        drop(_inside);
        let fs = Fs::open(FsConfig {
            replica: Arc::clone(&replica),
            data: Arc::clone(&data),
            journal,
            replayed: replay.ops,
            edits: replay.edits,
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            runtime: self.runtime().clone().into(),
            space: self.space(),
            local: (self.local)(device),
            options,
        })?;
        Ok(Opened { fs, replica, data })
    }

    /// Writes commits of a device by hand that name nobody; the last one proposes a checkpoint of nothing above all others, so
    /// that what other devices wrote at these Lamport times would be void.
    ///
    /// # Errors
    /// When they cannot be sealed or put.
    pub fn pretend_to_have_seen_nobody(&self, device: usize, commits: u64) -> Result<(), Anything> {
        let me = self.devices.get(device).ok_or("no such device")?;
        let (keys, entropy) = (&self.keys, &*self.entropy);
        let (epoch, commitment) = keys.current();
        let (rows, digest) = DigestOfRows::default().finish();
        let root = Root {
            optional: 0,
            vault: keys.vault(),
            room: keys.room(),
            name: random(entropy),
            epoch,
            commitment,
            device: me.id,
            time: self.clock.now(),
            floor: commits.saturating_sub(1),
            parent: None,
            covered: Vec::new(),
            control: self.roster().control_heads,
            rules: skrin_meta::RULE_SET,
            rows,
            digest,
            pages: Vec::new(),
        };
        let names = RoomNames(keys.room());
        let put = |name: &ObjectName, bytes| self.runtime.block_on(self.store.put(name, bytes));
        let (checkpoint, bytes) = seal_root(&root, keys, &me.signer, entropy)?;
        put(&names.checkpoint(&root.name)?, bytes)?;
        let mut prev = Hash32::default();
        for seq in 0..commits {
            let proposal = Verdict {
                opinion: Opinion::Propose,
                checkpoint,
                digest,
            };
            let verdicts = match seq + 1 == commits {
                true => vec![proposal],
                false => Vec::new(),
            };
            let commit = Commit {
                optional: 0,
                vault: keys.vault(),
                room: keys.room(),
                lane: keys.lane_id(me.id, 0),
                incarnation: 0,
                seq,
                prev,
                epoch,
                commitment,
                control: self.roster().control_heads,
                device: me.id,
                lamport: seq + 1,
                heads: Vec::new(),
                time: self.clock.now(),
                standing: None,
                decided: Decided::default(),
                verdicts,
                segments: Vec::new(),
                closes: Vec::new(),
                ops: Vec::new(),
            };
            let sealed = seal_commit(&commit, keys, &me.signer, entropy)?;
            prev = sealed.head.hash;
            put(&names.commit(&sealed.head)?, sealed.bytes)?;
            put(&names.tip(&sealed.head)?, (&b"\n"[..]).into())?;
        }
        Ok(())
    }

    fn space(&self) -> Arc<crate::SpaceSource> {
        let store = Arc::clone(&self.store);
        Arc::new(move || {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let capacity = store.capacity().await.ok()?;
                Some(Space {
                    total: capacity.total?,
                    free: capacity.available?,
                })
            })
        })
    }
}

impl Fs {
    /// Publishes an operation that nobody checked, as a member might who lies.
    ///
    /// # Errors
    /// As publishing meets them.
    pub fn say(&self, kind: skrin_meta::OpKind) -> Result<(), FsError> {
        self.commit(|_| Ok(kind))?;
        self.upload_all(|_| ())
    }
}

/// The steps of the background work, one at a time, for whoever is the scheduler himself.
impl Fs {
    /// Publishes what fits into one commit; whether there was something.
    ///
    /// # Errors
    /// As publishing in the background meets them.
    pub async fn publish_step(&self) -> Result<bool, FsError> {
        Ok(self.publish_next(false).await?.is_some())
    }

    /// Looks for changes once.
    ///
    /// # Errors
    /// As looking in the background meets them.
    pub async fn poll_step(&self) -> Result<(), FsError> {
        let pulled = self.replica.pull().await.map_err(FsError::from);
        let looked = self.take_in(pulled);
        if looked.is_err() {
            self.invalidate(self.replica.take_diff().await)?;
        }
        looked
    }

    /// Looks around the house once.
    ///
    /// # Errors
    /// When local files cannot be written.
    pub fn house_step(&self) -> Result<(), FsError> {
        self.keep_local()
    }
}

/// What reads attributes, and what is kept on this machine, for the fuzz targets: each gives what it read as it is written again, and `None` for
/// what is nothing of the kind.
pub mod decoders {
    use crate::acl::{Acl, inherit};
    use crate::content::Edits;
    use skrin_base::wire::{Decode, Encode};
    use skrin_meta::Kind;

    /// An access control list.
    pub fn acl(bytes: &[u8]) -> Option<Vec<u8>> {
        Acl::parse(bytes).map(|acl| acl.to_bytes())
    }

    /// The same as an inode with that mode has it, and the mode that it says.
    pub fn acl_with_mode(bytes: &[u8], mode: u16) -> Option<(Vec<u8>, u16)> {
        let acl = Acl::parse(bytes)?.with_mode(mode);
        Some((acl.to_bytes(), acl.mode()))
    }

    /// The attributes of a new directory where this is the default list.
    pub fn inherited(default: &[u8], mode: u16) -> Vec<(&'static [u8], Vec<u8>)> {
        inherit(Some(default.to_vec()), Kind::Dir, mode, 0).xattrs
    }

    /// Noted edits, as the journal has them.
    pub fn edits(bytes: &[u8]) -> Option<Vec<u8>> {
        Edits::from_bytes(bytes).ok().map(|edits| edits.to_bytes())
    }

    /// The files that stay on this machine.
    pub fn local_files(bytes: &[u8]) -> Option<Vec<u8>> {
        crate::local::kept_again(bytes, 1 << 20)
    }
}
