//! Random programs on several devices end in one tree.

use super::*;
use skrin_storage::ErrorKind::Transient;
use skrin_storage::Verb;

pub(super) fn random_fault(rng: &mut Rng, faults: &Faults) {
    use skrin_storage::fault::{Failure, Rule};
    let rule = match rng.below(9) {
        0 => Rule::new(Failure::Before(Transient)).on(Verb::Put),
        1 | 2 => Rule::new(Failure::After(Transient)).on(Verb::Put),
        3 => Rule::new(Failure::Before(Transient)).on(Verb::Get),
        4 => Rule::new(Failure::FlipGet(rng.below(2000) as usize)).on(Verb::Get),
        5 => Rule::new(Failure::CutGet(rng.below(900) as usize)).on(Verb::Get),
        6 => Rule::new(Failure::StaleList).on(Verb::List),
        7 => Rule::new(Failure::CutPut(rng.below(900) as usize))
            .on(Verb::Put)
            .named(|n| n.contains("/lanes/")),
        _ => Rule::new(Failure::Withhold).on(Verb::Get),
    };
    faults.add(rule.after(rng.below(4)).times(1 + rng.below(3)));
}

#[derive(Clone, Copy)]
struct Mix {
    faults: bool,
    crashes: bool,
    checkpoints: bool,
}

async fn step(vault: &Vault, device: &mut Device, rng: &mut Rng, mix: Mix) {
    vault.clock.advance(2_000_000_000);
    if device.replica.is_none() && device.open(vault).await.is_err() {
        return;
    }
    if mix.faults && rng.below(3) == 0 {
        random_fault(rng, &device.faults);
    }
    // Errors are what the faults are for: the next attempt must come through.
    match rng.below(16) {
        0..=8 => (0..=rng.below(4)).for_each(|_| match rng.below(8) {
            0 => device.relocate(rng),
            _ => device.act(rng),
        }),
        9 | 10 => drop(device.replica().pull().await),
        11..=13 => drop(device.publish().await),
        14 => device.replica().flush().unwrap(),
        _ if mix.checkpoints && rng.below(2) == 0 => drop(device.replica().checkpoint().await),
        _ if mix.crashes => match rng.below(4) {
            0 => device.forget_cache(),
            1 => {
                let _ = device.replica().close_lane(Settled::default()).await;
                device.replica = None;
            }
            _ => device.replica = None,
        },
        _ => {}
    }
    if mix.faults && rng.below(2) == 0 {
        device.faults.clear();
    }
}

async fn program(seed: u64, count: usize, steps: usize, mix: Mix) {
    println!("seed {seed}");
    let vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let mut devices = Vec::new();
    for n in 0..count {
        devices.push(vault.open(n).await);
    }
    for _ in 0..steps {
        let n = rng.below(count as u64) as usize;
        step(&vault, &mut devices[n], &mut rng, mix).await;
    }
    settle(&vault, &mut devices).await;
    assert_converged(&devices, seed);
    assert_eq!(
        vault.fresh_digest().await,
        devices[0].digest(),
        "seed {seed}: folding anew differs"
    );
    let report = devices[0].replica().verify(|_| {}).await.unwrap();
    assert_eq!(report.problems, [], "seed {seed}");
    assert_eq!(report.digest, Some(devices[0].digest().1), "seed {seed}");
    for device in &mut devices {
        let before = device.digest();
        device.forget_cache();
        device.open(&vault).await.unwrap();
        assert_eq!(
            device.digest(),
            before,
            "seed {seed}: without meta.db device {} differs",
            device.n
        );
        assert_eq!(device.pending(), 0);
    }
}

/// A dozen seeds from `first` on; `SKRIN_SEEDS` asks for more of them, `SKRIN_SEED` for a single one.
async fn programs(first: u64, count: usize, mix: Mix) {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (first, seeds) = match number("SKRIN_SEED") {
        Some(seed) => (seed, 1),
        None => (first, number("SKRIN_SEEDS").unwrap_or(12)),
    };
    for seed in first..first + seeds {
        program(seed, count, 60, mix).await;
    }
}

#[tokio::test]
async fn two_devices_on_an_honest_storage_converge() {
    let mix = Mix {
        faults: false,
        crashes: false,
        checkpoints: false,
    };
    programs(0, 2, mix).await;
}

#[tokio::test]
async fn three_devices_that_crash_and_close_converge() {
    let mix = Mix {
        faults: false,
        crashes: true,
        checkpoints: false,
    };
    programs(10000, 3, mix).await;
}

#[tokio::test]
async fn devices_on_a_storage_that_loses_answers_and_lists_late_converge() {
    let mix = Mix {
        faults: true,
        crashes: true,
        checkpoints: false,
    };
    programs(20000, 3, mix).await;
}

#[tokio::test]
async fn devices_that_make_checkpoints_converge() {
    let mix = Mix {
        faults: false,
        crashes: true,
        checkpoints: true,
    };
    programs(30000, 3, mix).await;
}

#[tokio::test]
async fn devices_that_make_checkpoints_on_a_bad_storage_converge() {
    let mix = Mix {
        faults: true,
        crashes: true,
        checkpoints: true,
    };
    programs(40000, 3, mix).await;
}
