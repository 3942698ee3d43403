//! Puts the layers together: from an unlocked vault and a state directory to a file system.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use skrin_crypto::{RoomKeys, Roster};
use skrin_data::{DataConfig, DataError, DataParts, DataStore, Journal, JournalConfig};
use skrin_fs::{Fs, FsConfig, FsError, FsOptions, LocalFiles, Space, SpaceSource};
use skrin_meta::replica::{CheckpointPolicy, Replica, ReplicaConfig, ReplicaError};
use skrin_storage::Store;
use skrin_vault::{Device, Room, Unlocked};
use tokio::runtime::Handle;

use crate::exit::{Exit, Failure, Outcome};
use crate::machine::{OsEntropy, SystemClock};
use crate::pins::PinFile;

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let exit = match &error {
            DataError::Integrity { .. } | DataError::Missing(_) => Exit::Integrity,
            DataError::Storage(error) if error.is_closed() => Exit::Unreachable,
            _ if error.is_transient() => Exit::Unreachable,
            _ => Exit::Other,
        };
        Self::new(exit, error)
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::Store(error) => error.into(),
            error => Self::new(exit_of(&error), error),
        }
    }
}

fn exit_of(error: &ReplicaError) -> Exit {
    match error {
        ReplicaError::RolledBack(_)
        | ReplicaError::Withheld(_)
        | ReplicaError::OldControl
        | ReplicaError::Commit { .. }
        | ReplicaError::Checkpoint { .. }
        | ReplicaError::Past(_)
        | ReplicaError::ForeignOperation => Exit::Integrity,
        ReplicaError::Cloned => Exit::Busy,
        ReplicaError::Store(error) if error.is_closed() => Exit::Unreachable,
        _ => Exit::Other,
    }
}

impl From<FsError> for Failure {
    fn from(error: FsError) -> Self {
        let exit = match &error {
            FsError::Data(error) => return error.clone().into(),
            FsError::Lost { .. } => Exit::Integrity,
            FsError::NotFound
            | FsError::NothingThen
            | FsError::NoSuchPoint(_)
            | FsError::NoConflict => Exit::Absent,
            FsError::Exists | FsError::InUse(_) | FsError::ChangedMeanwhile => Exit::Busy,
            FsError::Refused(why) => return FsError::clone(why).into(),
            _ if error.is_transient() => Exit::Unreachable,
            FsError::Replica(error) => exit_of(error),
            _ => Exit::Other,
        };
        Self::new(exit, error)
    }
}

/// The journal may always be this long, however small the cache.
const JOURNAL_MIN: u64 = 1 << 30;

/// What the layers are made of.
pub(crate) struct Parts<'a> {
    /// The storage.
    pub(crate) store: Arc<dyn Store>,
    /// The open vault.
    pub(crate) unlocked: &'a Unlocked,
    /// Its root room.
    pub(crate) room: Room,
    /// Whether that was read from local copies.
    pub(crate) room_is_old: bool,
    /// Who we are there.
    pub(crate) device: Device,
    /// Where local state goes.
    pub(crate) state_dir: &'a Path,
    /// Bound of the memory of everything together.
    pub(crate) memory: u64,
    /// Bound of the local disk: of the journal, and of the cache of sealed blocks.
    pub(crate) cache_size: u64,
    /// Where such a cache lies, if there is one.
    pub(crate) disk_cache: Option<PathBuf>,
    /// Publish nothing.
    pub(crate) read_only: bool,
    /// What is pinned; decides what the cache may let go of.
    pub(crate) pins: Option<Arc<PinFile>>,
}

/// The layers below the file system, open.
pub(crate) struct Layers {
    /// Metadata.
    pub(crate) replica: Arc<Replica>,
    /// Contents.
    pub(crate) data: Arc<DataStore>,
    /// What is not on the storage.
    pub(crate) journal: Arc<Journal>,
    /// What the journal held.
    pub(crate) replayed: Vec<(u64, Vec<u8>)>,
    edits: Vec<(u64, Vec<u8>)>,
    /// What was wrong with it.
    findings: Vec<skrin_data::Finding>,
    /// Where what stays on this machine is kept, if it does.
    pub(crate) local: Option<LocalFiles>,
    dirty: usize,
    pending: usize,
    known: usize,
    store: Arc<dyn Store>,
}

/// How the bound of memory is divided. The rest is for code, stacks, buffers of connections and of the kernel.
struct Memory {
    rows: usize,
    data: u64,
    dirty: usize,
    /// Changes that may wait for the storage.
    pending: usize,
    /// Files that the kernel may know: each takes some 50 bytes here. A listing tells it of all that it shows, so that a bound below the
    /// largest directories costs much: each name is told and asked to be forgotten again.
    known: usize,
}

impl Memory {
    fn of(total: u64) -> Self {
        Self {
            rows: (total / 8) as usize,
            data: total * 3 / 8,
            dirty: (total / 8) as usize,
            pending: (total / 1024) as usize,
            known: (total / 224) as usize,
        }
    }
}

/// What a replica of this room is made of.
pub(crate) fn replica_config(
    store: &Arc<dyn Store>,
    (keys, roster): (&Arc<RoomKeys>, &Arc<RwLock<Roster>>),
    device: &Device,
    control_is_old: bool,
    state_dir: &Path,
    read_only: bool,
    cache_bytes: usize,
) -> ReplicaConfig {
    let vault = keys.vault();
    ReplicaConfig {
        store: Arc::clone(store),
        keys: Arc::clone(keys),
        roster: Arc::clone(roster),
        control_is_old,
        device: device.id(),
        signer: Arc::new(device.signer(vault)),
        state_dir: state_dir.to_owned(),
        heads_key: device.local_key(vault, "heads"),
        meta_key: device.local_key(vault, "meta"),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(OsEntropy),
        read_only,
        cache_bytes,
        checkpoints: CheckpointPolicy::default(),
    }
}

impl Layers {
    /// Opens journal, replica and data store.
    ///
    /// # Errors
    /// As the layers have them.
    pub(crate) async fn open(parts: Parts<'_>) -> Outcome<Self> {
        let vault = parts.unlocked.vault();
        let Parts {
            store,
            room,
            device,
            ..
        } = parts;
        let memory = Memory::of(parts.memory);
        let keys = Arc::new(room.keys);
        let roster = Arc::new(RwLock::new(room.roster));
        let entropy = Arc::new(OsEntropy);
        let key = |purpose: &str| device.local_key(vault, purpose);

        let path = parts.state_dir.join("journal");
        let bound = parts.cache_size.max(JOURNAL_MIN);
        let config = JournalConfig::new(path, vault, key("journal"), bound);
        let (journal, mut replay) = Journal::open(config, entropy.clone())?;
        let journal = Arc::new(journal);
        let config = replica_config(
            &store,
            (&keys, &roster),
            &device,
            parts.room_is_old,
            parts.state_dir,
            parts.read_only,
            memory.rows,
        );
        let replica = Arc::new(Replica::open(config).await?);
        let mut config = DataConfig::with_memory(vault, keys.room(), memory.data);
        config.compression = room.state.compression.then_some(1);
        config.disk_cache = parts.disk_cache.map(|dir| (dir, parts.cache_size));
        config.hold_cache = parts.pins.is_some();
        config.read_only = parts.read_only;
        let names = Arc::clone(&keys);
        let located = Arc::downgrade(&replica);
        let data_parts = DataParts {
            store: Arc::clone(&store),
            journal: Arc::clone(&journal),
            names: Arc::new(move |lane, number| names.segment_id(lane, number)),
            copies: Arc::new(move |id| located.upgrade()?.copies(id)),
            entropy,
            runtime: Handle::current(),
        };
        let data = DataStore::open(config, data_parts, &mut replay)?;
        if !parts.read_only {
            let own = replica.own_names().await;
            data.set_lane(own.lane, own.decided_below, own.are_free)?;
        }
        Ok(Self {
            replica,
            data: Arc::new(data),
            journal,
            replayed: replay.ops,
            edits: replay.edits,
            findings: replay.findings,
            local: None,
            dirty: memory.dirty,
            pending: memory.pending,
            known: memory.known,
            store,
        })
    }

    /// What a person must know of the journal. A torn end is normal after a crash.
    pub(crate) fn findings(&self) -> Vec<String> {
        use skrin_data::Finding;
        let text = |finding: &Finding| match finding {
            Finding::TornTail { .. } => None,
            Finding::Corrupt { file, offset, end } => Some(format!(
                "{}: bytes {offset} to {end} of the journal are damaged; changes that were not uploaded may be lost; check the disk",
                file.display()
            )),
            Finding::MissingFile { number } => Some(format!(
                "file {number} of the journal is missing; changes that were not uploaded may be lost"
            )),
        };
        self.findings.iter().filter_map(text).collect()
    }

    /// The file system over them.
    ///
    /// # Errors
    /// A damaged cache or journal.
    pub(crate) fn file_system(&mut self, mut options: FsOptions) -> Outcome<Arc<Fs>> {
        options.dirty_budget = self.dirty;
        options.pending_max = self.pending;
        options.known_max = self.known;
        let store = Arc::clone(&self.store);
        let space: Arc<SpaceSource> = Arc::new(move || {
            let store = Arc::clone(&store);
            Box::pin(async move { space(&*store).await })
        });
        Ok(Fs::open(FsConfig {
            replica: Arc::clone(&self.replica),
            data: Arc::clone(&self.data),
            journal: Arc::clone(&self.journal),
            replayed: std::mem::take(&mut self.replayed),
            edits: std::mem::take(&mut self.edits),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            runtime: Handle::current().into(),
            space,
            local: self.local.take(),
            options,
        })?)
    }
}

async fn space(store: &dyn Store) -> Option<Space> {
    let capacity = store.capacity().await.ok()?;
    let free = capacity.available?;
    let total = capacity.total.unwrap_or(free);
    Some(Space { total, free })
}
