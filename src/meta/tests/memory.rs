//! What a device allocates while it takes in very many changes, exactly counted: it must not grow with their number.
//!
//! More of them: `SKRIN_CHANGES=200000 cargo test --release -p skrin-meta --test memory -- --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use parking_lot::RwLock;
use peak_alloc::PeakAlloc;
use skrin_base::clock::random;
use skrin_base::clock::testutil::{ManualClock, SeededEntropy};
use skrin_base::{
    DeviceId, Entropy, EntryId, EpochId, Hash32, Ino, Name, OpId, PersonId, RoomId, Timestamp,
    VaultId,
};
use skrin_crypto::keys::{
    derive_epoch_commitment, make_device_seed, make_epoch_key, make_room_secret,
};
use skrin_crypto::{DeviceSigner, EpochKey, Everybody, LocalKey, RoomKeys, Roster, RosterDevice};
use skrin_meta::replica::{CheckpointPolicy, Replica, ReplicaConfig, Settled};
use skrin_meta::{Kind, NewNode, Op, OpKind, Place};
use skrin_storage::fault::{Failure, Fault, Faults, Rule};
use skrin_storage::{ErrorKind, LocalStore, Verb};
use std::sync::Arc;
use tempfile::TempDir;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Changes at first, unless `SKRIN_CHANGES` says otherwise.
const CHANGES: usize = 2000;
/// What four times as many may take besides: up to 65,536 changed inodes and names are listed. Before it was bounded, each change
/// took 210 to 1,200 bytes.
const ALLOWED: usize = 3 << 20;
/// Memory for rows and pages of the database.
const CACHE: usize = 1 << 20;
/// Bytes of the tree that are written at once.
const FLUSH: usize = 1 << 20;
/// Operations of one commit.
const COMMIT: usize = 500;

struct Vault {
    store: TempDir,
    keys: Arc<RoomKeys>,
    signers: Vec<(DeviceId, Arc<DeviceSigner>)>,
    clock: Arc<ManualClock>,
    entropy: Arc<SeededEntropy>,
}

impl Vault {
    fn new() -> Self {
        let entropy = SeededEntropy::new(1);
        let (vault, room) = (VaultId(random(&entropy)), RoomId(random(&entropy)));
        let secret = make_room_secret(&entropy);
        let key: EpochKey = make_epoch_key(&entropy);
        let commitment = derive_epoch_commitment(&key, vault, room);
        let epoch = EpochId(random(&entropy));
        let keys = RoomKeys::new(vault, room, &secret, epoch, key, commitment).unwrap();
        let signer = |_| {
            let signer = DeviceSigner::derive(&make_device_seed(&entropy), vault);
            (DeviceId(random(&entropy)), Arc::new(signer))
        };
        Self {
            store: tempfile::tempdir().unwrap(),
            keys: Arc::new(keys),
            signers: (0..4).map(signer).collect(),
            clock: Arc::default(),
            entropy: Arc::new(entropy),
        }
    }

    fn roster(&self) -> Roster {
        let device = |(id, signer): &(DeviceId, Arc<DeviceSigner>)| {
            let device = RosterDevice {
                key: signer.public(),
                person: PersonId([1; 16]),
                label: "device".to_owned(),
                cut: None,
            };
            (*id, device)
        };
        Roster {
            devices: self.signers.iter().map(device).collect(),
            control_heads: vec![Hash32([5; 32])],
            control: [(Hash32([5; 32]), Vec::new())].into(),
            rights: Arc::new(Everybody),
        }
    }

    fn device(&self, n: usize) -> Device<'_> {
        Device {
            vault: self,
            n,
            dir: tempfile::tempdir().unwrap(),
            faults: Faults::default(),
            replica: None,
        }
    }
}

struct Device<'a> {
    vault: &'a Vault,
    n: usize,
    dir: TempDir,
    faults: Faults,
    replica: Option<Replica>,
}

/// A file that was made.
#[derive(Clone, Copy)]
struct Made {
    id: OpId,
    number: usize,
}

fn bits(number: usize) -> [u8; 32] {
    *blake3::hash(&number.to_be_bytes()).as_bytes()
}

fn place(prefix: &str, number: usize) -> Place {
    let mut entry = [0; 16];
    entry.copy_from_slice(&bits(number)[16..]);
    Place {
        dir: Ino::ROOT,
        name: Name::new(format!("{prefix}-{number}").as_bytes()).unwrap(),
        entry: EntryId(entry),
    }
}

fn ino(number: usize) -> Ino {
    let mut ino = [0; 8];
    ino.copy_from_slice(&bits(number)[..8]);
    Ino::from_random(u64::from_le_bytes(ino))
}

fn create(number: usize) -> OpKind {
    OpKind::Create {
        place: place("old", number),
        ino: ino(number),
        node: NewNode {
            kind: Kind::File,
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            rdev: 0,
            target: Vec::new(),
        },
    }
}

fn rename(made: Made) -> OpKind {
    OpKind::Rename {
        ino: ino(made.number),
        from: place("old", made.number),
        to_dir: Ino::ROOT,
        to_name: place("new", made.number).name,
        replaces: None,
    }
}

fn remove(prefix: &str, made: Made) -> OpKind {
    OpKind::Remove {
        place: place(prefix, made.number),
        ino: ino(made.number),
        version: made.id,
    }
}

impl Device<'_> {
    async fn open(&mut self) -> &mut Self {
        let vault = self.vault;
        let store = LocalStore::open(vault.store.path(), true, &*vault.entropy).unwrap();
        let (device, signer) = vault.signers[self.n].clone();
        let config = ReplicaConfig {
            store: Arc::new(Fault::new(store, self.faults.clone())),
            keys: vault.keys.clone(),
            roster: Arc::new(RwLock::new(vault.roster())),
            control_is_old: false,
            device,
            signer,
            state_dir: self.dir.path().to_owned(),
            heads_key: LocalKey::from_bytes([1; 32]),
            meta_key: LocalKey::from_bytes([2; 32]),
            clock: vault.clock.clone(),
            entropy: Arc::new(SeededEntropy::new(vault.entropy.u64())),
            read_only: false,
            cache_bytes: CACHE,
            checkpoints: CheckpointPolicy::default(),
        };
        self.replica = Some(Replica::open(config).await.unwrap());
        self
    }

    fn replica(&self) -> &Replica {
        self.replica.as_ref().unwrap()
    }

    fn act(&self, kind: OpKind) -> OpId {
        let id = {
            let mut tree = self.replica().tree();
            let id = tree.next_op_id().unwrap();
            let time = Timestamp(1_790_000_000_000_000_000);
            tree.execute(Op { id, time, kind }).unwrap();
            id
        };
        self.relieve();
        id
    }

    fn relieve(&self) {
        if self.replica().tree().unflushed() >= FLUSH {
            self.replica().flush().unwrap();
        }
    }

    async fn publish(&self) {
        let publish = |upto| self.replica().publish(upto, Vec::new(), Settled::default());
        publish(u64::MAX).await.unwrap();
        self.relieve();
    }

    /// Makes and publishes changes, a thousand in each commit.
    async fn change<T>(&self, of: &[T], kind: impl Fn(&T) -> OpKind) -> Vec<OpId> {
        let mut ids = Vec::with_capacity(of.len());
        for some in of.chunks(COMMIT) {
            ids.extend(some.iter().map(|one| self.act(kind(one))));
            self.publish().await;
        }
        ids
    }

    async fn make(&self, numbers: std::ops::Range<usize>) -> Vec<Made> {
        let numbers: Vec<usize> = numbers.collect();
        let ids = self.change(&numbers, |number| create(*number)).await;
        let made = ids.into_iter().zip(numbers);
        made.map(|(id, number)| Made { id, number }).collect()
    }

    /// As a clean unmount.
    async fn close(&mut self) {
        self.replica().checkpoint().await.unwrap();
        self.replica().close_lane(Settled::default()).await.unwrap();
        self.replica().flush().unwrap();
        self.replica = None;
    }

    fn forget_cache(&mut self) {
        self.replica = None;
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(self.dir.path().join(format!("meta.db{suffix}")));
        }
    }

    fn entries(&self) -> usize {
        let mut count = 0;
        skrin_meta::state::for_each_entry(&self.replica().tree(), |_, _, _| {
            count += 1;
            Ok(())
        })
        .unwrap();
        count
    }
}

/// What was allocated at most, above what was before.
async fn peak<T>(work: impl Future<Output = T>) -> usize {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    work.await;
    ALLOCATED.peak_usage() - before
}

/// Another device removes all that this one has, which comes back.
async fn removals(count: usize) -> usize {
    let vault = Vault::new();
    let (mut a, mut b) = (vault.device(0), vault.device(1));
    let made = a.open().await.make(0..count).await;
    a.close().await;
    b.open().await;
    b.change(&made, |made| remove("old", *made)).await;
    b.close().await;
    let peak = peak(a.open()).await;
    assert_eq!(a.entries(), 0);
    peak
}

/// Another device makes and renames while this one is mounted and looks only then; there is no checkpoint.
async fn creates(count: usize) -> usize {
    let vault = Vault::new();
    let (mut a, mut b) = (vault.device(0), vault.device(1));
    a.open().await.publish().await;
    let made = b.open().await.make(0..count / 2).await;
    b.change(&made, |made| rename(*made)).await;
    b.replica = None;
    let peak = peak(async { a.replica().pull().await.unwrap() }).await;
    assert_eq!(a.entries(), count / 2);
    peak
}

/// A fresh device with nothing but commits.
async fn fresh(count: usize) -> usize {
    let vault = Vault::new();
    let (mut a, mut b) = (vault.device(0), vault.device(1));
    let made = b.open().await.make(0..count / 2).await;
    b.change(&made, |made| rename(*made)).await;
    b.replica = None;
    let peak = peak(a.open()).await;
    assert_eq!(a.entries(), count / 2);
    peak
}

/// What the journal gave back goes to the storage, in one commit after the other, as the file system does it.
async fn published(count: usize) -> usize {
    let vault = Vault::new();
    let mut a = vault.device(0);
    a.open().await;
    for number in 0..count {
        a.act(create(number));
    }
    let publish = async {
        let first = || a.replica().tree().first_pending();
        while let Some(first) = first() {
            let upto = first + COMMIT as u64 - 1;
            let published = a.replica().publish(upto, Vec::new(), Settled::default());
            published.await.unwrap();
            a.relieve();
        }
    };
    let peak = peak(publish).await;
    assert_eq!(a.replica().tree().pending_count(), 0);
    peak
}

/// The own commits are on this disk, and the cache is gone.
async fn own_again(count: usize) -> usize {
    let vault = Vault::new();
    let mut a = vault.device(0);
    a.open().await.make(0..count).await;
    a.forget_cache();
    let peak = peak(a.open()).await;
    assert_eq!(a.entries(), count);
    peak
}

/// A commit comes late that belongs below everything that was taken in.
async fn late(count: usize) -> usize {
    let vault = Vault::new();
    let (mut a, mut b, mut c) = (vault.device(0), vault.device(1), vault.device(2));
    c.open().await.make(count..count + 1).await;
    c.act(create(count + 1));
    c.faults
        .add(Rule::new(Failure::Before(ErrorKind::Transient)).on(Verb::Put));
    let failed = c
        .replica()
        .publish(u64::MAX, Vec::new(), Settled::default())
        .await;
    assert!(failed.is_err());
    a.open().await;
    b.open().await.make(0..count).await;
    a.replica().pull().await.unwrap();
    a.replica().flush().unwrap();
    c.faults.clear();
    c.publish().await;
    let peak = peak(async { a.replica().pull().await.unwrap() }).await;
    assert_eq!(a.entries(), count + 2);
    peak
}

/// A checkpoint far below: a lane that is silent holds the floor back.
async fn checkpoint(count: usize) -> usize {
    let vault = Vault::new();
    let (mut a, mut c) = (vault.device(0), vault.device(2));
    c.open().await.make(count..count + 1).await;
    c.make(count + 1..count + 2).await;
    a.open().await.make(0..count).await;
    a.replica().flush().unwrap();
    peak(async { assert!(a.replica().checkpoint().await.unwrap()) }).await
}

/// The state is folded again while it is looked at, from a checkpoint: a commit comes that is older than what can be undone.
async fn rebuilt(count: usize) -> usize {
    let vault = Vault::new();
    let (mut a, mut b, mut c) = (vault.device(0), vault.device(1), vault.device(2));
    b.open().await.make(0..count).await;
    assert!(b.replica().checkpoint().await.unwrap());
    b.make(count..count + 1).await;
    c.open().await.act(create(count + 1));
    c.faults
        .add(Rule::new(Failure::Before(ErrorKind::Transient)).on(Verb::Put));
    let failed = c
        .replica()
        .publish(u64::MAX, Vec::new(), Settled::default())
        .await;
    assert!(failed.is_err());
    for number in 0..100 {
        b.make(count + 2 + number..count + 3 + number).await;
    }
    a.open().await;
    c.faults.clear();
    c.publish().await;
    let pull = async {
        let diff = a.replica().pull().await.unwrap();
        assert!(diff.everything);
    };
    let peak = peak(pull).await;
    assert_eq!(a.entries(), count + 102);
    peak
}

/// Four times as many changes must not take much more.
async fn is_bounded(what: &str, work: impl AsyncFn(usize) -> usize) {
    let few = std::env::var("SKRIN_CHANGES").map_or(CHANGES, |n| n.parse().unwrap());
    let (less, more) = (work(few).await, work(4 * few).await);
    println!("{what}: {} and {} KiB", less >> 10, more >> 10);
    assert!(more <= less + ALLOWED, "{what}: {less} and {more} bytes");
}

/// One test, because the count of allocations is one for the whole process.
#[tokio::test]
async fn what_is_allocated_to_take_changes_in_does_not_grow_with_their_number() {
    is_bounded("removals", removals).await;
    is_bounded("makes and renames", creates).await;
    is_bounded("a fresh device", fresh).await;
    is_bounded("published", published).await;
    is_bounded("own commits again", own_again).await;
    is_bounded("below all others", late).await;
    is_bounded("a checkpoint far below", checkpoint).await;
    is_bounded("folded again", rebuilt).await;
}
