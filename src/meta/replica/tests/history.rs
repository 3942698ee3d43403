//! Every earlier state can be folded again, and nothing that comes later changes it.

use super::*;
use crate::checkpoint::DigestOfRows;
use crate::rows::MemoryRows;
use bytes::Bytes;
use skrin_base::Timestamp;
use skrin_storage::ObjectName;
use std::collections::BTreeMap;

const SECOND: u64 = 1_000_000_000;
/// Of operations that are done in a time that no cut reaches.
const NO_TIME: Timestamp = Timestamp(i64::MAX);

fn digest_of(rows: &MemoryRows) -> Digest {
    let mut digest = DigestOfRows::default();
    rows.0.iter().for_each(|(key, row)| digest.row(key, row));
    digest.finish()
}

impl Vault {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The digest in a world where nothing but these objects was ever made.
    async fn digest_with_only(&self, objects: BTreeMap<ObjectName, Bytes>) -> Digest {
        let store = Arc::new(MemoryStore::new());
        store.restore(objects);
        let other = Self {
            roster: None,
            world: World::new(0),
            store: store.clone(),
            clock: self.clock.clone(),
            policy: NEVER,
        };
        let reader = other.device(3);
        let config = ReplicaConfig {
            store,
            read_only: true,
            ..self.config(&reader, reader.dir.path())
        };
        let replica = Replica::open(config).await.unwrap();
        replica.digest().unwrap()
    }
}

impl Device {
    fn act_at(&mut self, rng: &mut Rng, time: Timestamp) -> OpId {
        let replica = self.replica.take().unwrap();
        let id = {
            let mut tree = replica.tree();
            let id = tree.next_op_id().unwrap();
            let op = Op {
                time,
                ..random_op(&tree, rng, id)
            };
            self.journal.push(op.clone());
            tree.execute(op).unwrap();
            id
        };
        self.replica = Some(replica);
        id
    }

    async fn history(&self, vault: &Vault) -> History {
        let replica = self.replica();
        replica.pull().await.unwrap();
        replica.history(vault.now(), |_| {}).await.unwrap()
    }
}

async fn random_step(vault: &Vault, device: &mut Device, rng: &mut Rng) {
    if device.replica.is_none() {
        device.open(vault).await.unwrap();
    }
    match rng.below(16) {
        0..=7 => (0..=rng.below(4)).for_each(|_| _ = device.act_at(rng, NO_TIME)),
        8 | 9 => drop(device.replica().pull().await),
        10..=12 => drop(device.publish().await),
        13 => drop(device.replica().checkpoint().await),
        14 => device.forget_cache(),
        _ => {
            let _ = device.replica().close_lane(Settled::default()).await;
            device.replica = None;
        }
    }
}

#[tokio::test]
async fn the_state_at_a_time_is_that_of_a_world_in_which_nothing_was_made_later() {
    for seed in 700..712 {
        println!("seed {seed}");
        let vault = Vault::new(seed);
        let mut rng = Rng(seed);
        let mut devices = Vec::new();
        for n in 0..3 {
            devices.push(vault.open(n).await);
        }
        let mut points = Vec::new();
        for _ in 0..60 {
            vault.clock.advance(2 * SECOND);
            let n = rng.below(3) as usize;
            random_step(&vault, &mut devices[n], &mut rng).await;
            if rng.below(4) == 0 {
                points.push((vault.now(), vault.store.snapshot()));
            }
        }
        settle(&vault, &mut devices).await;
        let history = devices[0].history(&vault).await;
        let end = history.rows(&history.at_end().unwrap()).unwrap();
        assert_eq!(digest_of(&end), devices[0].digest(), "seed {seed}");
        for (time, objects) in points {
            let cut = history.at_time(time).unwrap();
            let then = history.rows(&cut).unwrap();
            let only = vault.digest_with_only(objects).await;
            assert_eq!(digest_of(&then), only, "seed {seed}, {time:?}");
            assert_eq!(history.doubts(&cut), Vec::<&Problem>::new());
        }
    }
}

#[tokio::test]
async fn the_state_at_an_operation_is_what_its_device_saw_when_it_did_it() {
    for seed in 720..732 {
        println!("seed {seed}");
        let vault = Vault::new(seed);
        let mut rng = Rng(seed);
        let mut devices = Vec::new();
        for n in 0..3 {
            devices.push(vault.open(n).await);
        }
        let mut marks = Vec::new();
        for _ in 0..60 {
            vault.clock.advance(2 * SECOND);
            let device = &mut devices[rng.below(3) as usize];
            random_step(&vault, device, &mut rng).await;
            if device.replica.is_some() && rng.below(4) == 0 {
                device.replica().pull().await.unwrap();
                device.publish().await.unwrap();
                (0..rng.below(3)).for_each(|_| _ = device.act_at(&mut rng, NO_TIME));
                let before = device.digest();
                marks.push((device.act_at(&mut rng, NO_TIME), before));
                device.publish().await.unwrap();
            }
        }
        settle(&vault, &mut devices).await;
        let history = devices[1].history(&vault).await;
        assert!(!marks.is_empty());
        for (id, before) in marks {
            let cut = history.at_op(id).unwrap().unwrap();
            let then = digest_of(&history.rows(&cut).unwrap());
            assert_eq!(then, before, "seed {seed}, {id:?}");
        }
        let other = OpId {
            device: vault.world.device(0),
            counter: u64::MAX,
        };
        assert_eq!(history.at_op(other).unwrap(), None);
    }
}

#[tokio::test]
async fn what_a_lone_device_did_offline_is_told_apart_by_the_times_of_its_operations() {
    let vault = Vault::new(740);
    let mut rng = Rng(740);
    let mut device = vault.open(0).await;
    device.act_at(&mut rng, vault.now());
    device.publish().await.unwrap();
    let mut points = Vec::new();
    for _ in 0..12 {
        vault.clock.advance(600 * SECOND);
        device.act_at(&mut rng, vault.now());
        points.push((vault.now(), device.digest()));
    }
    vault.clock.advance(600 * SECOND);
    device.publish().await.unwrap();
    let history = device.history(&vault).await;
    assert_eq!(history.commits().count(), 2);
    for (time, then) in points {
        let rows = history.rows(&history.at_time(time).unwrap()).unwrap();
        assert_eq!(digest_of(&rows), then);
    }
    assert!(history.at_time(Timestamp(0)).unwrap().is_empty());
}

/// Three commits of one device, an hour apart, and one of another that follows them.
async fn two_lanes(seed: u64) -> (Vault, Device, Vec<Timestamp>) {
    let vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let (mut one, mut other) = (vault.open(0).await, vault.open(1).await);
    let mut times = Vec::new();
    for _ in 0..3 {
        vault.clock.advance(3600 * SECOND);
        one.act_at(&mut rng, vault.now());
        one.publish().await.unwrap();
        times.push(vault.now());
    }
    vault.clock.advance(3600 * SECOND);
    other.act_at(&mut rng, vault.now());
    other.publish().await.unwrap();
    times.push(vault.now());
    (vault, one, times)
}

fn commit_name(vault: &Vault, history: &History, n: usize) -> ObjectName {
    let names = RoomNames(vault.world.keys.room());
    names
        .commit(history.commits().nth(n).unwrap().head)
        .unwrap()
}

#[tokio::test]
async fn a_damaged_commit_is_named_by_whatever_needs_it_and_by_nothing_else() {
    let (vault, device, times) = two_lanes(741).await;
    let whole = device.history(&vault).await;
    let name = commit_name(&vault, &whole, 2);
    let honest = vault.store.peek(&name).unwrap();
    let mut flipped = honest.to_vec();
    flipped[40] ^= 1;
    for damaged in [Some(Bytes::from(flipped)), None] {
        vault.store.tamper(&name, damaged);
        let history = device.replica().history(vault.now(), |_| {}).await.unwrap();
        let named: Vec<_> = history.problems().map(|p| p.object.clone()).collect();
        assert_eq!(named, [name.to_string()]);
        // The last one before it may be older than the damaged one, or not.
        for time in &times[1..] {
            let error = history.at_time(*time).unwrap_err().to_string();
            assert!(error.starts_with(name.as_str()), "{error}");
        }
        let before = history.at_time(Timestamp(times[1].0 - 1));
        let rows = history.rows(&before.unwrap()).unwrap();
        let cut = whole.at_time(times[0]).unwrap();
        assert_eq!(rows, whole.rows(&cut).unwrap());
        assert!(history.at_end().is_err());
    }
    vault.store.tamper(&name, Some(honest));
    let history = device.history(&vault).await;
    assert_eq!(history.problems().count(), 0);
}

#[tokio::test]
async fn an_object_that_the_storage_made_up_stands_in_nobodys_way() {
    let (vault, device, _) = two_lanes(742).await;
    let history = device.history(&vault).await;
    let name = commit_name(&vault, &history, 2);
    let (dir, _) = name.as_str().rsplit_once('/').unwrap();
    let made_up = format!("{dir}/{:016x}-{}", 1, "ab".repeat(32));
    let made_up = ObjectName::new(made_up).unwrap();
    vault
        .store
        .tamper(&made_up, Some(Bytes::from_static(b"nonsense")));
    let again = device.history(&vault).await;
    assert_eq!(again.problems().count(), 0);
    assert_eq!(again.at_end().unwrap(), history.at_end().unwrap());
}

#[tokio::test]
async fn a_newest_commit_that_was_seen_here_and_is_withheld_is_missed() {
    let (vault, device, times) = two_lanes(743).await;
    let history = device.history(&vault).await;
    let name = commit_name(&vault, &history, 3);
    vault.store.tamper(&name, None);
    let history = device.replica().history(vault.now(), |_| {}).await.unwrap();
    let error = history.at_end().unwrap_err().to_string();
    assert!(error.starts_with(name.as_str()), "{error}");
    assert!(history.at_time(times[3]).is_err());
}

#[tokio::test]
async fn a_clock_that_is_a_year_ahead_hides_nothing_that_came_after() {
    let vault = Vault::new(744);
    let mut rng = Rng(744);
    let mut one = vault.open(0).await;
    one.act_at(&mut rng, vault.now());
    one.publish().await.unwrap();
    let first = vault.now();
    // The other device lives a year later.
    let mut other = vault.device(1);
    let config = ReplicaConfig {
        clock: {
            let ahead = ManualClock::default();
            ahead.advance(365 * 24 * 3600 * SECOND);
            Arc::new(ahead)
        },
        ..vault.config(&other, other.dir.path())
    };
    other.replica = Some(Replica::open(config).await.unwrap());
    vault.clock.advance(3600 * SECOND);
    other.act_at(&mut rng, NO_TIME);
    other.publish().await.unwrap();
    one.replica().pull().await.unwrap();
    one.act_at(&mut rng, vault.now());
    one.publish().await.unwrap();
    let history = one.history(&vault).await;
    let times: Vec<Timestamp> = history.commits().map(|commit| commit.time).collect();
    assert_eq!(times, [first, first, vault.now()]);
    let all = history.at_time(vault.now()).unwrap();
    assert_eq!(all, history.at_end().unwrap());
    assert_eq!(digest_of(&history.rows(&all).unwrap()), one.digest());
}
