//! Rows that were used lately, bounded in bytes: two generations, the older of which is dropped
//! whole when the younger is full. Absent rows are remembered too.

use crate::rows::{Row, RowKey};
use std::collections::HashMap;

/// What an entry costs beside its bytes: hash table slot, two allocations, the counters of the `Arc`.
const ENTRY_OVERHEAD: usize = 96;

type Generation = HashMap<RowKey, Option<Row>>;

/// The cache.
pub(super) struct Hot {
    young: Generation,
    old: Generation,
    young_bytes: usize,
    budget: usize,
}

fn cost(key: &[u8], value: Option<&Row>) -> usize {
    key.len() + value.map_or(0, |row| row.len()) + ENTRY_OVERHEAD
}

impl Hot {
    /// At most `budget` bytes in both generations together.
    pub(super) fn new(budget: usize) -> Self {
        Self {
            young: Generation::new(),
            old: Generation::new(),
            young_bytes: 0,
            budget,
        }
    }

    /// What is known of a row: `Some(None)` is a row known to be absent.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<Option<Row>> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Remembers a row.
    pub(super) fn insert(&mut self, key: RowKey, value: Option<Row>) {
        self.young_bytes += cost(&key, value.as_ref());
        self.young.insert(key, value);
        if self.young_bytes > self.budget / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.budget);
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let all = self.young.iter().chain(&self.old);
        all.map(|(key, value)| cost(key, value.as_ref())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_what_is_used_stays() {
        let mut hot = Hot::new(64 * 1024);
        hot.insert([0u8].into(), Some(vec![7].into()));
        for n in 1..10_000u32 {
            hot.insert(n.to_be_bytes().into(), Some(vec![0; 64].into()));
            assert!(hot.get(&[0]).is_some(), "a row used all the time is kept");
            assert!(hot.bytes() <= 64 * 1024 + 512);
        }
        assert!(hot.get(&1u32.to_be_bytes()).is_none());
    }

    #[test]
    fn absence_is_remembered_and_a_later_value_replaces_it() {
        let mut hot = Hot::new(1 << 20);
        hot.insert([1u8].into(), None);
        assert_eq!(hot.get(&[1]), Some(None));
        hot.insert([1u8].into(), Some(vec![2].into()));
        assert_eq!(hot.get(&[1]), Some(Some(vec![2].into())));
        assert_eq!(hot.get(&[2]), None);
    }
}
