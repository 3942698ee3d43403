//! Worlds of fixed seeds, which every run sees, and of new ones. `SKRIN_SEED=n` runs that one alone, `SKRIN_SEEDS=n` so many new ones.
#![allow(clippy::unwrap_used)] // Helpers of tests; the lint only excuses the test functions themselves.

use skrin_sim::{Counts, PEOPLE, SCENES, Scene};

/// Seeds of every run.
const FIXED: u64 = 150;
/// New ones, unless said otherwise.
const FRESH: u64 = 25;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn scene(name: &str) -> &'static Scene {
    let mut all = SCENES.iter().chain([&PEOPLE]);
    all.find(|scene| scene.name == name).unwrap()
}

fn worlds(name: &str) {
    let scene = scene(name);
    let mut counts = Counts::default();
    let mut run = |seed| counts.add(&(scene.run)(seed).counts);
    if let Some(one) = number("SKRIN_SEED") {
        run(one);
    } else {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let first = now.unwrap().as_secs() * 1000;
        let unsaid = if name == PEOPLE.name { 0 } else { FRESH };
        let fresh = number("SKRIN_SEEDS").unwrap_or(unsaid);
        println!(
            "{name}: seeds 0 to {FIXED}, and {first} to {}",
            first + fresh
        );
        (0..FIXED).chain(first..first + fresh).for_each(&mut run);
    }
    println!("{name}: {counts:#?}");
}

#[test]
fn solo_worlds_keep_every_promise_to_the_programs_of_one_device() {
    worlds("solo");
}

#[test]
fn many_worlds_converge_and_lose_no_line_that_was_acknowledged() {
    worlds("many");
}

#[test]
fn past_worlds_show_what_was_and_delete_nothing_that_anybody_needs() {
    worlds("past");
}

/// A seed of a soak: the model took contents for told by a call that failed.
#[test]
fn an_exchange_with_a_name_that_is_missing_tells_nothing_of_the_other() {
    (scene("solo").run)(7_100_361);
}

/// A seed of a soak.
#[test]
fn a_device_starts_though_the_storage_stores_its_commit_in_part_twice() {
    (scene("past").run)(7_100_330);
}

/// New ones only by `SKRIN_SEEDS`: too few have been seen for every run to draw them.
#[test]
fn people_worlds_keep_what_those_wrote_who_stay_and_nothing_that_the_others_wrote_beyond_their_cut()
{
    worlds("people");
}

/// A seed of a run: a device that began with a checkpoint was told to go back, as it named again what lies beyond a cut.
#[test]
fn nobody_is_told_to_go_back_who_names_again_what_a_checkpoint_does_not_hold() {
    (scene("people").run)(1_795_746_635_179);
}

#[test]
fn the_same_seed_gives_the_same_digest_twice() {
    for scene in SCENES.iter().chain([&PEOPLE]) {
        for seed in 1000..1003 {
            let (once, twice) = ((scene.run)(seed), (scene.run)(seed));
            assert_eq!(once, twice, "{} of seed {seed}", scene.name);
        }
    }
}
