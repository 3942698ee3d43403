//! Control records that tips say are there (docs/format/lanes.md, section 8). Tips are hints: one of a record that never comes must not
//! make anybody read for ever.

use skrin_base::Hash32;
use skrin_crypto::Roster;
use std::collections::{BTreeMap, BTreeSet};

/// So many are looked at.
const MANY: usize = 256;
const RETRY_MIN: u64 = 1_000_000_000;
const RETRY_MAX: u64 = 3_600_000_000_000;
/// How often the control records are read for one tip: after some hours it is given up.
const TRIES_MAX: u32 = 16;

/// When the control records are read next for a tip, and how often they were.
#[derive(Clone, Copy, Default)]
struct Tried {
    next: u64,
    tries: u32,
}

/// What the tips show.
#[derive(Default)]
pub(super) struct News(BTreeMap<Hash32, Tried>);

impl News {
    /// Notes what a listing shows.
    pub(super) fn see(&mut self, shown: impl Iterator<Item = Hash32>) {
        let shown: BTreeSet<Hash32> = shown.take(MANY).collect();
        self.0.retain(|record, _| shown.contains(record));
        for record in shown {
            self.0.entry(record).or_default();
        }
    }

    /// Whether it is time to read the control records.
    pub(super) fn is_due(&self, now: u64, roster: &Roster) -> bool {
        let mut unknown = self.0.iter().filter(|(record, _)| !roster.stands(record));
        unknown.any(|(_, tried)| tried.tries < TRIES_MAX && tried.next <= now)
    }

    /// Notes that they were read, with this outcome.
    pub(super) fn was_read(&mut self, now: u64, roster: &Roster) {
        let unknown = self
            .0
            .iter_mut()
            .filter(|(record, _)| !roster.stands(record));
        for (_, tried) in unknown {
            let pause = RETRY_MIN.saturating_mul(1 << tried.tries.min(12));
            tried.next = now.saturating_add(pause.min(RETRY_MAX));
            tried.tries = tried.tries.saturating_add(1);
        }
    }
}
