//! The bounded run of all targets: the seeds, the frozen vectors and mutants of both, with a bound on what is
//! allocated for each input. One test, because the count of allocations is one for the whole process.

use skrin_fuzz::{TARGETS, Target, mutate::Mutator, seeds};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: cap::Cap<System> = cap::Cap::new(System, usize::MAX);

/// Inputs for each target, where `SKRIN_FUZZ_INPUTS` does not say otherwise.
const INPUTS: usize = 3_000;
/// What one input may make a decoder allocate in sum, freed or not: so much, and so many times its length. The
/// largest structure that stands for few bytes is an operation.
const ALLOWANCE: usize = 512 * 1024;
const PER_BYTE: usize = 256;

fn feed(target: &Target, input: &[u8]) {
    let before = ALLOCATOR.total_allocated();
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    let allocated = ALLOCATOR.total_allocated() - before;
    let shown = || input.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert!(outcome.is_ok(), "{} panics on {}", target.name, shown());
    let allowed = ALLOWANCE + PER_BYTE * input.len();
    assert!(
        allocated <= allowed,
        "{} allocates {allocated} bytes for {}",
        target.name,
        shown()
    );
}

fn inputs() -> usize {
    let asked = std::env::var("SKRIN_FUZZ_INPUTS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(INPUTS)
}

#[test]
fn no_decoder_panics_or_allocates_without_bound() {
    let frozen = seeds::frozen();
    for (number, target) in TARGETS.iter().enumerate() {
        let own = (target.seeds)();
        assert!(!own.is_empty(), "{} has no seeds", target.name);
        for input in own.iter().chain(&frozen) {
            (target.run)(input); // once before counting: lazily made worlds, compression contexts
        }
        for input in frozen
            .iter()
            .cloned()
            .chain(Mutator::new(&own, number as u64).take(inputs()))
        {
            feed(target, &input);
        }
        if !frozen.is_empty() {
            for input in Mutator::new(&frozen, 1000 + number as u64).take(inputs() / 4) {
                feed(target, &input);
            }
        }
    }
}
