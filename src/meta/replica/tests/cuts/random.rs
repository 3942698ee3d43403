//! Random programs of devices, of which one or two are removed by others and go on with whatever they like.

use super::super::liar::random::{assert_nothing_is_lost, lie};
use super::*;

/// Of what a device wrote, the operations within its cut and those beyond.
fn split(vault: &Vault, device: DeviceId, cut: &Cut) -> (BTreeSet<OpId>, BTreeSet<OpId>) {
    let all = opened(vault);
    let mine: BTreeMap<Hash32, &CheckedCommit> = all
        .iter()
        .filter(|c| c.commit().device == device)
        .map(|c| (c.head().hash, c))
        .collect();
    let mut within = BTreeSet::new();
    for (_, hash) in cut.values().flatten() {
        let mut next = *hash;
        while let Some(commit) = mine.get(&next) {
            within.insert(next);
            next = commit.commit().prev;
        }
    }
    let ops = |is_within: bool| {
        let commits = mine
            .iter()
            .filter(|(hash, _)| within.contains(*hash) == is_within);
        let ops = commits.flat_map(|(_, c)| c.commit().ops.iter().map(|op| op.id));
        ops.collect::<BTreeSet<OpId>>()
    };
    (ops(true), ops(false))
}

/// Two honest devices, and one that is removed at some time: a program of ours that goes on until it hears of it, or a liar.
async fn program(seed: u64) {
    println!("seed {seed}");
    let mut vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let removed = vault.world.device(2);
    let lies = seed.is_multiple_of(2);
    let mut liar = Liar::new(2, 0);
    let mut devices = vec![vault.open(0).await, vault.open(1).await];
    if !lies {
        devices.push(vault.open(2).await);
    }
    for device in &mut devices {
        device.roster = Some(vault.world.roster());
    }
    let mut records = Records::new();
    let (at, mut cut, mut ending) = (20 + rng.below(50), None, None);
    let mut told = [false; 3];
    for step in 0..90 {
        vault.clock.advance(2_000_000_000);
        let n = rng.below(devices.len() as u64) as usize;
        if step >= at && cut.is_none() && n < 2 && devices[n].replica.is_some() {
            let of = devices[n].replica().cut_of(&[removed]);
            ending = Some(records.end(removed, of.clone()));
            cut = Some(of);
            vault.roster = Some(records.roster(&vault));
            tell(&mut devices[n], &vault, &records).await;
            told[n] = true;
        }
        let device = &mut devices[n];
        if device.replica.is_none() {
            device.open(&vault).await.unwrap();
        }
        let asks = cut.is_some() && device.replica().needs_control().await;
        if cut.is_some() && !told[n] && (asks && rng.below(2) == 0 || rng.below(30) == 0) {
            tell(device, &vault, &records).await;
            told[n] = true;
        }
        match rng.below(16) {
            0..=4 => device.act(&mut rng),
            5 | 6 => drop(device.replica().pull().await.unwrap()),
            7..=9 => drop(device.publish().await),
            10 => drop(device.replica().checkpoint().await.unwrap()),
            11 => device.replica().flush().unwrap(),
            12 if rng.below(3) == 0 => device.forget_cache(),
            12 => device.replica = None,
            _ if lies => lie(&vault, &mut liar, &mut rng).await,
            _ => device.act(&mut rng),
        }
    }
    let Some(cut) = cut else { return };
    let overruled = seed.is_multiple_of(5);
    if overruled {
        records.add(Says::Overrules(ending.unwrap()));
        vault.roster = Some(records.roster(&vault));
    }
    for device in &mut devices {
        tell(device, &vault, &records).await;
    }
    let staying = if overruled { devices.len() } else { 2 };
    if !lies && !overruled {
        let gone = &mut devices[2];
        if gone.replica.is_none() {
            gone.open(&vault).await.unwrap();
        }
        assert!(gone.publish().await.is_err(), "seed {seed}");
    }
    devices.truncate(staying);
    settle(&vault, &mut devices).await;
    settle(&vault, &mut devices).await;
    assert_nothing_is_lost(&vault, &mut devices, seed).await;
    if overruled {
        return;
    }
    let (within, beyond) = split(&vault, removed, &cut);
    for device in &devices {
        for id in beyond.difference(&within) {
            let folded = crate::state::is_folded(&device.replica().tree(), *id).unwrap();
            assert!(!folded, "seed {seed}: {id:?} lies beyond the cut");
        }
        assert!(
            !device.kinds().contains(&FindingKind::Rollback),
            "seed {seed}"
        );
    }
    if !lies {
        for id in &within {
            let folded = crate::state::is_folded(&devices[0].replica().tree(), *id).unwrap();
            assert!(folded, "seed {seed}: {id:?} lies within the cut");
        }
    }
}

#[tokio::test]
async fn whoever_stays_loses_nothing_and_nothing_counts_that_a_removed_device_wrote_beyond_its_cut()
{
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (first, seeds) = match number("SKRIN_SEED") {
        Some(seed) => (seed, 1),
        None => (70_000, number("SKRIN_SEEDS").unwrap_or(24)),
    };
    for seed in first..first + seeds {
        program(seed).await;
    }
}
