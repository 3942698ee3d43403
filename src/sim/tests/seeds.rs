//! Worlds of fixed seeds, and of new ones.

use skrin_sim::solo;

#[test]
fn solo_worlds_of_fixed_seeds() {
    let seeds = match std::env::var("SKRIN_SEED") {
        Ok(one) => vec![one.parse().unwrap()],
        Err(_) => (0..20).collect(),
    };
    for seed in seeds {
        let outcome = solo(seed, 150);
        println!(
            "{seed}: {} {} crashes",
            &outcome.digest[..16],
            outcome.counts.all_crashes()
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_digest_twice() {
    for seed in 1000..1003 {
        assert_eq!(solo(seed, 120), solo(seed, 120), "seed {seed}");
    }
}
