//! Devices that share nothing but a storage in memory.

mod attack;
mod checkpoints;
mod control;
mod converge;
mod cuts;
mod damage;
mod garbage;
mod history;
mod liar;
mod mend;
mod requests;
mod restart;
mod silence;
mod vectors;
mod verify;
mod wild;

use super::*;
use crate::check::check;
use crate::testing::{Rng, World, random_op, random_relocation};
use skrin_base::clock::testutil::{ManualClock, SeededEntropy};
use skrin_storage::fault::{Fault, Faults};
use skrin_storage::{Count, Counters, MemoryStore};
use std::path::Path;
use tempfile::TempDir;

type Digest = (u64, Hash32);

/// A vault with one room on one storage.
struct Vault {
    world: World,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    policy: CheckpointPolicy,
    /// The control records that a device reads which begins, if not those of the world.
    roster: Option<Roster>,
}

/// One device with its disk. The journal here never forgets, so that every restart offers all operations again.
struct Device {
    n: usize,
    dir: TempDir,
    faults: Faults,
    counters: Arc<Counters>,
    journal: Vec<Op>,
    /// The control records that it reads, if not those of everybody.
    roster: Option<Roster>,
    replica: Option<Replica>,
}

const NEVER: CheckpointPolicy = CheckpointPolicy {
    ops: u64::MAX,
    bytes: u64::MAX,
};

impl Vault {
    fn new(seed: u64) -> Self {
        Self {
            world: World::new(seed),
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(ManualClock::default()),
            policy: NEVER,
            roster: None,
        }
    }

    fn device(&self, n: usize) -> Device {
        Device {
            n,
            dir: tempfile::tempdir().unwrap(),
            faults: Faults::default(),
            counters: Arc::new(Counters::default()),
            journal: Vec::new(),
            roster: None,
            replica: None,
        }
    }

    async fn open(&self, n: usize) -> Device {
        let mut device = self.device(n);
        device.open(self).await.unwrap();
        device
    }

    fn config(&self, device: &Device, dir: &Path) -> ReplicaConfig {
        let count = Count::new(self.store.clone(), device.counters.clone());
        let roster = device.roster.clone().or_else(|| self.roster.clone());
        let roster = roster.unwrap_or_else(|| self.world.roster());
        ReplicaConfig {
            store: Arc::new(Fault::new(count, device.faults.clone())),
            keys: self.world.keys.clone(),
            roster: Arc::new(RwLock::new(roster)),
            control_is_old: false,
            device: self.world.device(device.n),
            signer: self.world.signer(device.n).clone(),
            state_dir: dir.to_owned(),
            heads_key: LocalKey::from_bytes([1; 32]),
            meta_key: LocalKey::from_bytes([2; 32]),
            clock: self.clock.clone(),
            entropy: Arc::new(SeededEntropy::new(self.world.entropy.u64())),
            read_only: false,
            cache_bytes: 1 << 20,
            checkpoints: self.policy,
        }
    }

    /// The digest that a device which has never seen the vault computes.
    async fn fresh_digest(&self) -> Digest {
        self.open(3).await.replica().digest().unwrap()
    }
}

impl Device {
    async fn open(&mut self, vault: &Vault) -> Result<(), ReplicaError> {
        self.replica = None;
        let replica = Replica::open(vault.config(self, self.dir.path())).await?;
        replica.restore_pending(self.journal.clone())?;
        self.replica = Some(replica);
        Ok(())
    }

    async fn put_own_again(&mut self, vault: &Vault) -> Result<usize, ReplicaError> {
        self.replica = None;
        Replica::put_own_again(vault.config(self, self.dir.path())).await
    }

    fn forget_cache(&mut self) {
        self.replica = None;
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(self.dir.path().join(format!("meta.db{suffix}")));
        }
    }

    fn replica(&self) -> &Replica {
        self.replica.as_ref().unwrap()
    }

    /// A random operation on what the device sees.
    fn act(&mut self, rng: &mut Rng) {
        let replica = self.replica.take().unwrap();
        {
            let mut tree = replica.tree();
            let id = tree.next_op_id().unwrap();
            let op = random_op(&tree, rng, id);
            self.journal.push(op.clone());
            tree.execute(op).unwrap();
        }
        self.replica = Some(replica);
    }

    /// Says of some blocks that they lie somewhere else.
    fn relocate(&mut self, rng: &mut Rng) {
        let mut tree = self.replica.as_ref().unwrap().tree();
        let op = Op {
            id: tree.next_op_id().unwrap(),
            time: Timestamp(1_790_000_000_000_000_000),
            kind: random_relocation(rng),
        };
        self.journal.push(op.clone());
        tree.execute(op).unwrap();
    }

    async fn publish(&self) -> Result<Published, ReplicaError> {
        self.replica()
            .publish(u64::MAX, Vec::new(), Settled::default())
            .await
    }

    fn digest(&self) -> Digest {
        self.replica().digest().unwrap()
    }

    fn pending(&self) -> usize {
        self.replica().tree().pending_size().0
    }

    fn kinds(&self) -> Vec<FindingKind> {
        self.replica()
            .status()
            .findings
            .iter()
            .map(|f| f.kind)
            .collect()
    }
}

/// Lets every device publish and pull until nobody has anything new.
async fn settle(vault: &Vault, devices: &mut [Device]) {
    for device in devices.iter() {
        device.faults.clear();
    }
    for _ in 0..4 {
        vault.clock.advance(120_000_000_000);
        for device in devices.iter_mut() {
            if device.replica.is_none() {
                device.open(vault).await.unwrap();
            }
            device.publish().await.unwrap();
        }
        for device in devices.iter() {
            device.replica().pull().await.unwrap();
        }
    }
}

/// All trees are one tree, and it is sane.
fn assert_converged(devices: &[Device], seed: u64) {
    let first = devices[0].digest();
    for device in devices {
        assert_eq!(
            device.pending(),
            0,
            "seed {seed}: device {} has not published",
            device.n
        );
        assert_eq!(
            device.digest(),
            first,
            "seed {seed}: device {} differs",
            device.n
        );
        let findings = check(&device.replica().tree(), false).unwrap();
        assert!(findings.is_empty(), "seed {seed}: {findings:?}");
    }
}
