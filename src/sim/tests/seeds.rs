//! Worlds of fixed seeds, which every run sees, and of new ones. `SKRIN_SEED=n` runs that one alone, `SKRIN_SEEDS=n` so many new ones.
#![allow(clippy::unwrap_used)] // Helpers of tests; the lint only excuses the test functions themselves.

use skrin_sim::{Counts, PEOPLE, SCENES, Scene, crash_points};
use std::ops::Range;

/// Seeds of every run.
const FIXED: u64 = 100;
/// New ones, unless said otherwise.
const FRESH: u64 = 25;
/// Both, of worlds in which devices die at points that are chosen: a few come by everything.
const POINTS: (u64, u64) = (40, 0);
/// A point that all these come by so often is one at which somebody died.
const OFTEN: u64 = 250;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn scene(name: &str) -> &'static Scene {
    let mut all = SCENES.iter().chain([&PEOPLE]);
    all.find(|scene| scene.name == name).unwrap()
}

/// Lets the worlds of a scene happen. How much did in those of fixed seeds, unless one is seen alone.
fn worlds(name: &str) -> Option<Counts> {
    let scene = scene(name);
    if let Some(one) = number("SKRIN_SEED") {
        println!("{name}: {:#?}", (scene.run)(one).counts);
        return None;
    }
    let (fixed, unsaid) = match name {
        "points" => POINTS,
        "people" => (FIXED, 0),
        _ => (FIXED, FRESH),
    };
    let all = |seeds: Range<u64>| {
        let mut counts = Counts::default();
        seeds.for_each(|seed| counts.add(&(scene.run)(seed).counts));
        counts
    };
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let first = now.unwrap().as_secs() * 1000;
    let fresh = number("SKRIN_SEEDS").unwrap_or(unsaid);
    println!(
        "{name}: seeds 0 to {fixed}, and {first} to {}",
        first + fresh
    );
    let seen = all(0..fixed);
    let mut counts = seen.clone();
    counts.add(&all(first..first + fresh));
    println!("{name}: {counts:#?}");
    Some(seen)
}

#[test]
fn solo_worlds_keep_every_promise_to_the_programs_of_one_device() {
    worlds("solo");
}

#[test]
fn many_worlds_converge_and_lose_no_line_that_was_acknowledged() {
    let Some(counts) = worlds("many") else { return };
    let hours = counts.events.get("an hour without network, two wrote");
    assert!(hours.is_some(), "{:#?}", counts.events);
}

/// Whatever point the code has that the simulation can see: each that was come by often, and each sync and put.
#[test]
fn points_worlds_have_somebody_die_at_every_one_and_keep_what_the_others_keep() {
    let Some(counts) = worlds("points") else {
        return;
    };
    let missed = missed(&counts);
    assert!(missed.is_empty(), "nobody died: {missed:#?}, {counts:#?}");
}

/// The points of the code at which too few died.
fn missed(counts: &Counts) -> Vec<String> {
    let died = |end: &str, point: &str| counts.crashes.contains_key(&format!("{end} {point}"));
    let often = counts.passed.iter().filter(|(_, times)| **times >= OFTEN);
    let mut points: Vec<String> = often.map(|(point, _)| point.clone()).collect();
    points.extend(crash_points());
    points.retain(|point| {
        let (killed, cut) = (died("Kill", point), died("Power", point));
        // What is on stable storage shows only when the power fails.
        let enough = match point.contains(" sync ") {
            true => killed && cut,
            false => killed || cut,
        };
        !enough
    });
    points
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
