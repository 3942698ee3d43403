//! Everything at once: several devices, faults, crashes, restored copies, and liars.

use super::liar::Liar;
use super::liar::random::{assert_nothing_is_lost, lie};
use super::*;
use skrin_storage::Verb;
use skrin_storage::fault::{Failure, Rule};
use std::collections::BTreeSet;

/// Two or three honest devices on a bad storage of which each is shown something else, with restored copies of their state, and up to
/// two liars.
async fn program(seed: u64) {
    println!("seed {seed}");
    let vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let (honest, lying): (&[usize], &[usize]) = match seed % 4 {
        0 => (&[0, 1, 3], &[2]),
        1 => (&[0, 3], &[1, 2]),
        2 => (&[0, 1, 3], &[2, 2]),
        _ => (&[0, 1, 2], &[]),
    };
    let (faulty, copies) = (rng.below(3) != 0, rng.below(3) == 0);
    let mut liars: Vec<Liar> = Vec::new();
    for (at, n) in lying.iter().enumerate() {
        liars.push(Liar::new(*n, at as u32 * 1000));
    }
    let mut devices = Vec::new();
    for n in honest {
        devices.push(vault.open(*n).await);
    }
    let mut backups: Vec<Option<(TempDir, usize)>> = honest.iter().map(|_| None).collect();
    for _ in 0..120 {
        vault.clock.advance(2_000_000_000);
        let n = rng.below(devices.len() as u64) as usize;
        let device = &mut devices[n];
        if device.replica.is_none() && device.open(&vault).await.is_err() {
            device.faults.clear();
            continue;
        }
        if faulty && rng.below(3) == 0 {
            converge::random_fault(&mut rng, &device.faults);
        }
        if faulty && rng.below(6) == 0 {
            let rule = Rule::new(Failure::StaleList).on(Verb::List);
            device.faults.add(rule.times(8));
        }
        match rng.below(20) {
            0..=5 => (0..=rng.below(3)).for_each(|_| device.act(&mut rng)),
            6 | 7 => drop(device.replica().pull().await),
            8..=10 => drop(device.publish().await),
            11 | 12 => drop(device.replica().checkpoint().await),
            13 => drop(device.replica().flush()),
            14 if rng.below(2) == 0 => device.forget_cache(),
            14 if rng.below(3) == 0 => {
                let _ = device.replica().close_lane(Settled::default()).await;
                device.replica = None;
            }
            14 => device.replica = None,
            15 if copies && rng.below(2) == 0 && faulty => {}
            15 if copies => {
                device.faults.clear();
                let _ = device.publish().await;
                let _ = device.replica().flush();
                device.replica = None;
                match backups[n].take() {
                    None => {
                        let aside = tempfile::tempdir().unwrap();
                        restart::copy_dir(device.dir.path(), aside.path());
                        backups[n] = Some((aside, device.journal.len()));
                    }
                    Some((aside, journal)) => {
                        // What was never published is lost with the disk.
                        device.faults.clear();
                        device.dir = aside;
                        device.journal.truncate(journal);
                        device.open(&vault).await.unwrap();
                    }
                }
            }
            _ if liars.is_empty() => drop(device.publish().await),
            _ => {
                let at = rng.below(liars.len() as u64) as usize;
                lie(&vault, &mut liars[at], &mut rng).await;
                let mut all = BTreeSet::new();
                liars.iter().for_each(|l| all.extend(&l.false_lanes));
                liars.iter_mut().for_each(|l| l.false_lanes = all.clone());
            }
        }
        if faulty && rng.below(2) == 0 {
            devices[n].faults.clear();
        }
    }
    for _ in 0..3 {
        settle(&vault, &mut devices).await;
    }
    assert_converged(&devices, seed);
    for device in &devices {
        assert_eq!(
            device.publish().await.unwrap().commits,
            0,
            "seed {seed}: goes on for ever"
        );
        let earlier = device.counters.counts();
        device.replica().pull().await.unwrap();
        let requests = device.counters.counts().since(&earlier).operations();
        assert!(
            requests <= 12,
            "seed {seed}: {requests} requests with nothing new"
        );
    }
    let stands: Vec<_> = devices
        .iter()
        .map(|d| d.replica().status().checkpoint)
        .collect();
    assert!(
        stands.iter().all(|s| *s == stands[0]),
        "seed {seed}: {stands:?}"
    );
    assert_nothing_is_lost(&vault, &mut devices, seed).await;
}

#[tokio::test]
async fn devices_on_a_bad_storage_with_restored_copies_and_liars_converge_and_lose_nothing() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (first, seeds) = match number("SKRIN_SEED") {
        Some(seed) => (seed, 1),
        None => (60_000, number("SKRIN_SEEDS").unwrap_or(12)),
    };
    for seed in first..first + seeds {
        program(seed).await;
    }
}
