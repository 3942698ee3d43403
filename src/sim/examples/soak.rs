//! Worlds of new seeds for as long as asked: `cargo run -p skrin-sim --example soak -- MINUTES [FIRST_SEED]`. Prints what happened, and
//! how to see each failure again; ends with 1 if there was one.
#![allow(
    clippy::disallowed_methods,
    reason = "how long it runs, and which worlds, is for the wall clock to say"
)]

use skrin_sim::{Counts, SCENES};
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

fn number(nth: usize) -> Option<u64> {
    std::env::args().nth(nth)?.parse().ok()
}

fn main() -> ExitCode {
    let time = Duration::from_secs(60 * number(1).unwrap_or(60));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let first = number(2).unwrap_or(now.map_or(0, |d| d.as_secs()) * 1_000_000);
    let begun = Instant::now();
    let (mut counts, mut failed, mut seed) = (Counts::default(), Vec::new(), first);
    while begun.elapsed() < time {
        for scene in SCENES {
            match catch_unwind(|| (scene.run)(seed)) {
                Ok(outcome) => counts.add(&outcome.counts),
                Err(_) => failed.push(format!(
                    "SKRIN_SEED={seed} cargo test -p skrin-sim {}",
                    scene.name
                )),
            }
        }
        seed += 1;
        if (seed - first).is_multiple_of(200) {
            eprintln!("{} worlds, {} failed", counts.worlds, failed.len());
        }
    }
    let requests = (counts.requests, counts.faults);
    println!("seeds {first} to {seed}, {:?}", begun.elapsed());
    println!(
        "{} worlds, {} operations, {} requests of which {} failed, {} crashes",
        counts.worlds,
        counts.operations,
        requests.0,
        requests.1,
        counts.all_crashes()
    );
    for (what, n) in counts.crashes.iter().chain(&counts.events) {
        println!("{n:>10} {what}");
    }
    failed.iter().for_each(|again| println!("failed: {again}"));
    ExitCode::from(u8::from(!failed.is_empty()))
}
