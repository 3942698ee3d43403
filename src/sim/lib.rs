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
mod oracle;
mod past;
mod people;
mod random;
mod solo;
mod trace;
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
];

/// Several people, some of whom are removed. Not among the others yet: every run sees worlds of fixed seeds only.
pub const PEOPLE: Scene = Scene {
    name: "people",
    run: |seed| many::many(seed, 250, Play::People),
};
use many::Play;
pub use trace::Counts;
pub use world::Outcome;
