//! What a file system is made of.

use crate::local::LocalFiles;
use crate::types::Space;
use skrin_base::{Clock, Entropy};
use skrin_data::{DataStore, Journal};
use skrin_meta::replica::Replica;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// What fsync waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// The journal has it on the local disk.
    #[default]
    Local,
    /// The commit is on the storage.
    Remote,
}

/// Asks the storage how much room it has; `None` where it does not tell.
pub type SpaceSource =
    dyn Fn() -> Pin<Box<dyn Future<Output = Option<Space>> + Send>> + Send + Sync;

/// Reads again who belongs to the room and with which keys, and hands it to the replica; tells of failures itself.
pub type ControlSource = dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// How a thread that may block waits for the storage.
#[derive(Clone)]
pub enum Waits {
    /// Others drive the runtime.
    Beside(Handle),
    /// Whoever waits drives it: a simulation has one thread.
    #[cfg(feature = "testutil")]
    Driving(Arc<dyn Drive>),
}

/// Runs everything until some work is done.
#[cfg(feature = "testutil")]
pub trait Drive: Send + Sync {
    /// Returns when it is.
    fn drive(&self, work: Pin<&mut dyn Future<Output = ()>>);
}

impl Waits {
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        match self {
            Self::Beside(handle) => handle.block_on(work),
            #[cfg(feature = "testutil")]
            Self::Driving(runtime) => {
                let mut done = None;
                runtime.drive(std::pin::pin!(async { done = Some(work.await) }));
                match done {
                    Some(done) => done,
                    None => unreachable!("who drives comes to the end"),
                }
            }
        }
    }
}

impl From<Handle> for Waits {
    fn from(handle: Handle) -> Self {
        Self::Beside(handle)
    }
}

/// The parts that `Fs::open` puts together.
pub struct FsConfig {
    /// Metadata of the room, opened.
    pub replica: Arc<Replica>,
    /// Contents, opened.
    pub data: Arc<DataStore>,
    /// The journal that both write to.
    pub journal: Arc<Journal>,
    /// Operations that the journal replayed: counter and bytes, in order.
    pub replayed: Vec<(u64, Vec<u8>)>,
    /// Edits that it replayed: number and bytes, in order.
    pub edits: Vec<(u64, Vec<u8>)>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where background work and waits for the storage run.
    pub runtime: Waits,
    /// Asks for room.
    pub space: Arc<SpaceSource>,
    /// Where what a Mac leaves in every directory is kept; `None` if such files are files like others.
    pub local: Option<LocalFiles>,
    /// The rest.
    pub options: FsOptions,
}

/// How it behaves.
#[derive(Clone, Debug)]
pub struct FsOptions {
    /// What fsync waits for.
    pub durability: Durability,
    /// How often other devices' changes are looked for; `None` for never (offline, and in tests).
    pub poll_interval: Option<Duration>,
    /// Whether changes are published and flushed in the background. Only tests say no.
    pub background: bool,
    /// Bytes that may wait in memory to be sealed, over all files.
    pub dirty_budget: usize,
    /// Operations that may wait to be published: each takes some memory.
    pub pending_max: usize,
    /// So many files the kernel may know; it is asked to forget those beyond. Directories and open files it keeps.
    pub known_max: usize,
    /// After so long a wait for the storage is an error: the kernel cannot interrupt us.
    pub deadline: Duration,
    /// Whether the storage did not answer just now: nobody waits for long until it does.
    pub unreachable: bool,
    /// Whether every change is refused.
    pub read_only: bool,
    /// So long a lock file counts that its device does not renew, which it does three times in that time.
    pub lease: Duration,
    /// Whether the first change of this mount says what people call the device, where the tree does not have it.
    pub label: bool,
    /// Owner of the root of a vault in which nothing was ever done.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Default for FsOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Local,
            poll_interval: Some(Duration::from_secs(3)),
            background: true,
            dirty_budget: 64 << 20,
            pending_max: 256 << 10,
            known_max: 512 << 10,
            deadline: Duration::from_secs(60),
            unreachable: false,
            read_only: false,
            lease: Duration::from_secs(300),
            label: false,
            uid: 0,
            gid: 0,
        }
    }
}

/// What is not on the storage yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Operations in the journal.
    pub operations: u64,
    /// Their bytes and those of the blocks they name.
    pub bytes: u64,
    /// Files with changes in memory that the journal does not have.
    pub unflushed_files: u64,
    /// What the last attempt to publish met, if it failed.
    pub last_error: Option<String>,
}

/// How much room there is on this machine for what is not on the storage yet, and who waits for some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalRoom {
    /// Bytes that the files of the journal take.
    pub journal_bytes: u64,
    /// The bound above which new contents wait; what is set aside for operations comes on top.
    pub journal_limit: u64,
    /// Operations that may wait to be published.
    pub operations_limit: u64,
    /// Calls that wait for one or the other.
    pub waiting: u64,
}

/// How the file system stands.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// What is not on the storage.
    pub pending: Pending,
    /// What the last attempt to look for changes met, if it failed.
    pub poll_error: Option<String>,
    /// Seconds since changes were last looked for with success.
    pub polled_ago: Option<u64>,
    /// Files open.
    pub open_files: usize,
    /// Room on the storage, where it tells.
    pub space: Option<Space>,
    /// Room in the journal.
    pub room: JournalRoom,
}
