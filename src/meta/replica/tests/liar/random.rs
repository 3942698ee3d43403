//! Random programs of two devices and of liars beside them.

use super::*;

/// A random lie: what it names, closes, proposes and refutes.
pub(in super::super) async fn lie(vault: &Vault, liar: &mut Liar, rng: &mut Rng) {
    if rng.below(6) == 0 {
        let false_lanes = std::mem::take(&mut liar.false_lanes);
        *liar = Liar::new(liar.n, liar.incarnation + 1);
        liar.false_lanes = false_lanes;
    }
    let is_false = liar.false_lanes.contains(&liar.lane(vault));
    let mut all = opened(vault);
    all.retain(|c| !liar.false_lanes.contains(&c.head().lane));
    let mut newest: BTreeMap<LaneId, Vec<&CheckedCommit>> = BTreeMap::new();
    for checked in &all {
        newest.entry(checked.head().lane).or_default().push(checked);
    }
    newest.remove(&liar.lane(vault));
    let lanes: Vec<_> = newest.into_values().collect();
    let mut lie = Lie::default();
    for lane in &lanes {
        if rng.below(3) == 0 {
            lie.heads.push(*rng.pick(lane).unwrap().head());
        } else if rng.below(8) == 0 {
            lie.closes.push(*rng.pick(lane).unwrap().head());
        }
    }
    lie.heads.sort();
    lie.closes.sort();
    let proposals: Vec<CheckpointRef> = all
        .iter()
        .flat_map(|c| c.commit().verdicts.clone())
        .filter(|v| v.opinion == Opinion::Propose)
        .map(|v| v.checkpoint)
        .collect();
    match rng.below(4) {
        0 if !is_false => {
            let floor = 1 + rng.below(liar.lamport + 2);
            let mut covered = Vec::new();
            let mut lanes: BTreeMap<LaneId, Vec<&CheckedCommit>> = BTreeMap::new();
            for checked in all.iter().filter(|c| c.commit().lamport <= floor) {
                lanes.entry(checked.head().lane).or_default().push(checked);
            }
            for lane in lanes.values() {
                if rng.below(4) == 0 {
                    continue;
                }
                let last = match rng.below(3) {
                    0 => rng.pick(lane).unwrap(),
                    _ => lane.last().unwrap(),
                };
                let ended = rng.below(last.head().seq + 1);
                let closed = (rng.below(6) == 0).then_some(ended);
                let mut end = end_of(last);
                if rng.below(12) == 0 {
                    // One that nobody knows.
                    (end.seq, end.hash) = (end.seq + rng.below(5), Hash32([8; 32]));
                }
                covered.push(CoveredLane { closed, ..end });
            }
            let parent = match rng.below(3) {
                0 => None,
                _ => rng.pick(&proposals).copied(),
            };
            lie.verdicts
                .push(put_checkpoint(vault, liar.n, floor, parent, covered).await);
        }
        1 if !is_false => {
            let again = rng.pick(&proposals).copied();
            let opinion = match rng.below(2) {
                0 => Opinion::Refute,
                _ => Opinion::Propose,
            };
            lie.verdicts.extend(again.map(|checkpoint| Verdict {
                opinion,
                checkpoint,
                digest: Hash32::default(),
            }));
        }
        _ => {}
    }
    if rng.below(8) == 0 {
        lie.standing = rng.pick(&proposals).copied();
        if rng.below(2) == 0 {
            // Nobody proposes it.
            let ends = all.iter().rev().take(1).map(end_of).collect();
            let root = put_checkpoint(vault, liar.n, liar.lamport + 9, None, ends).await;
            lie.standing = Some(root.checkpoint);
        }
    }
    if rng.below(10) == 0 {
        lie.lamport = Some(1 + rng.below(liar.lamport + 6));
        liar.false_lanes.insert(liar.lane(vault));
        lie.verdicts.clear();
    }
    if rng.below(2) == 0 {
        let device = vault.world.device(liar.n);
        let counter = u64::from(liar.incarnation) * 1000 + liar.lamport + 1;
        lie.ops
            .push(an_op(device, counter, format!("l{counter}").as_bytes()));
    }
    let head = liar.say(vault, lie).await;
    if rng.below(10) == 0 {
        // A fork: the next one follows the one before.
        let last = all
            .iter()
            .find(|c| c.head().lane == head.lane && c.head().seq + 1 == head.seq);
        if let Some(last) = last {
            (liar.last, liar.lamport) = (Some(*last.head()), last.commit().lamport);
        }
    }
}

/// The devices and whoever begins with nothing have one tree with everything in it that the devices did, with and without what they
/// keep in a cache.
pub(in super::super) async fn assert_nothing_is_lost(
    vault: &Vault,
    devices: &mut [Device],
    seed: u64,
) {
    assert_converged(devices, seed);
    let made: BTreeSet<OpId> = devices
        .iter()
        .flat_map(|d| d.journal.iter().map(|op| op.id))
        .collect();
    for device in devices.iter() {
        for id in &made {
            let folded = crate::state::is_folded(&device.replica().tree(), *id).unwrap();
            assert!(folded, "seed {seed}: {id:?} is lost");
        }
    }
    assert_eq!(
        vault.fresh_digest().await,
        devices[0].digest(),
        "seed {seed}: folding anew differs"
    );
    let report = devices[0].replica().verify(|_| {}).await.unwrap();
    assert_eq!(
        report.digest,
        Some(devices[0].digest().1),
        "seed {seed}: {:?}",
        report.problems
    );
    for device in devices.iter_mut() {
        let before = device.digest();
        device.forget_cache();
        device.open(vault).await.unwrap();
        assert_eq!(device.digest(), before, "seed {seed}: without meta.db");
    }
}

async fn program(seed: u64) {
    println!("seed {seed}");
    let vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let mut liar = Liar::new(2, 0);
    let mut devices = vec![vault.open(0).await, vault.open(1).await];
    for _ in 0..80 {
        vault.clock.advance(2_000_000_000);
        let n = rng.below(2) as usize;
        let device = &mut devices[n];
        if device.replica.is_none() {
            device.open(&vault).await.unwrap();
        }
        match rng.below(16) {
            0..=4 => device.act(&mut rng),
            5 | 6 => drop(device.replica().pull().await.unwrap()),
            7..=9 => drop(device.publish().await.unwrap()),
            10 => drop(device.replica().checkpoint().await.unwrap()),
            11 => device.replica().flush().unwrap(),
            12 if rng.below(3) == 0 => device.forget_cache(),
            12 => device.replica = None,
            _ => lie(&vault, &mut liar, &mut rng).await,
        }
    }
    settle(&vault, &mut devices).await;
    settle(&vault, &mut devices).await;
    assert_nothing_is_lost(&vault, &mut devices, seed).await;
}

#[tokio::test]
async fn two_devices_and_liars_converge_and_the_two_lose_nothing() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (first, seeds) = match number("SKRIN_SEED") {
        Some(seed) => (seed, 1),
        None => (50_000, number("SKRIN_SEEDS").unwrap_or(24)),
    };
    for seed in first..first + seeds {
        program(seed).await;
    }
}
