//! What happened in a world: a digest of everything, and the last of it in words.

use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;

/// Lines that are kept for the report of a failure.
const KEPT: usize = 60;

/// How much happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Worlds.
    pub worlds: u64,
    /// Calls of programs.
    pub operations: u64,
    /// Requests to the storage.
    pub requests: u64,
    /// Requests that went wrong on purpose.
    pub faults: u64,
    /// Trees of devices that were checked on their way.
    pub checks: u64,
    /// How often a process came by each point at which it can crash.
    pub passed: BTreeMap<String, u64>,
    /// Crashes, by what was going on.
    pub crashes: BTreeMap<String, u64>,
    /// Other events, by name.
    pub events: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds up.
    pub fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.operations += other.operations;
        self.requests += other.requests;
        self.faults += other.faults;
        self.checks += other.checks;
        for (name, n) in &other.passed {
            *self.passed.entry(name.clone()).or_default() += n;
        }
        for (name, n) in &other.crashes {
            *self.crashes.entry(name.clone()).or_default() += n;
        }
        for (name, n) in &other.events {
            *self.events.entry(name.clone()).or_default() += n;
        }
    }

    /// All crashes.
    pub fn all_crashes(&self) -> u64 {
        self.crashes.values().sum()
    }
}

struct State {
    hasher: blake3::Hasher,
    last: VecDeque<String>,
    counts: Counts,
}

/// The trace of one world.
pub(crate) struct Trace {
    begin: Instant,
    state: Mutex<State>,
    loud: bool,
}

impl Trace {
    pub(crate) fn new(begin: Instant) -> Self {
        let counts = Counts {
            worlds: 1,
            ..Counts::default()
        };
        Self {
            begin,
            state: Mutex::new(State {
                hasher: blake3::Hasher::new(),
                last: VecDeque::new(),
                counts,
            }),
            loud: std::env::var_os("SKRIN_TRACE").is_some(),
        }
    }

    /// Notes one thing.
    pub(crate) fn note(&self, line: impl Into<String>) {
        let line = format!(
            "{:>12.6} {}",
            self.begin.elapsed().as_secs_f64(),
            line.into()
        );
        if self.loud {
            eprintln!("{line}");
        }
        let mut state = self.state.lock();
        state.hasher.update(line.as_bytes());
        state.hasher.update(b"\n");
        state.last.push_back(line);
        if state.last.len() > KEPT {
            state.last.pop_front();
        }
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state.lock().counts);
    }

    /// Notes an event that is counted.
    pub(crate) fn event(&self, name: &str, line: impl Into<String>) {
        self.count(|c| *c.events.entry(name.to_owned()).or_default() += 1);
        self.note(format!("{name} {}", line.into()));
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state.lock().counts.clone()
    }

    pub(crate) fn digest(&self) -> String {
        self.state.lock().hasher.finalize().to_hex().to_string()
    }

    /// The end of it, for people.
    pub(crate) fn tail(&self) -> String {
        let state = self.state.lock();
        state.last.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}
