//! One seed, one world: the whole of Skrin but kernel and command line, on disks, clocks and ways to the storage that are made up, and in
//! which everything goes wrong that may (docs/simulation.md).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of this is a test: what must not be ends it"
)]

mod body;
mod clock;
mod cloud;
mod many;
mod objects;
mod oracle;
mod past;
mod people;
mod random;
mod solo;
mod trace;
mod trouble;
mod world;

#[path = "../fs/tests/support/model.rs"]
mod model;
#[path = "../fs/tests/support/program.rs"]
mod program;
#[path = "../fs/tests/support/sut.rs"]
mod sut;

/// A kind of world.
pub struct Scene {
    /// Of the test, too.
    pub name: &'static str,
    /// Lets the world of a seed happen.
    pub run: fn(u64) -> Outcome,
}

/// All kinds.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "solo",
        run: |seed| solo::solo(seed, 150),
    },
    Scene {
        name: "many",
        run: |seed| many::many(seed, 250, Play::Many),
    },
    Scene {
        name: "past",
        run: |seed| many::many(seed, 200, Play::Past),
    },
    Scene {
        name: "points",
        run: |seed| many::many(seed, 200, Play::Points),
    },
];

/// Several people, some of whom are removed. Not among the others yet: every run sees worlds of fixed seeds only.
pub const PEOPLE: Scene = Scene {
    name: "people",
    run: |seed| many::many(seed, 250, Play::People),
};

/// Points at which devices crash that no run of `points` leaves out: before and after each sync, and before and after each kind of object
/// is put. There are more: [`Counts::passed`] has all that were come by.
pub fn crash_points() -> Vec<String> {
    let puts = cloud::PLACES.map(|place| format!("put {}", place.trim_start_matches('/')));
    let all = body::SYNCS.map(str::to_owned).into_iter().chain(puts);
    all.flat_map(|what| ["before", "after"].map(|when| format!("{when} {what}")))
        .collect()
}

use many::Play;
pub use trace::Counts;
pub use world::Outcome;
