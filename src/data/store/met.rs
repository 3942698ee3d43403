//! Damage that readers met, until somebody asks for it to write it down. Its lock is a leaf.

use crate::error::DataError;
use parking_lot::Mutex;
use skrin_base::ids::SegmentId;
use skrin_storage::ErrorKind;
use std::collections::BTreeSet;

/// What is held at most.
const KEPT: usize = 64;

#[derive(Default)]
pub(super) struct Met(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// Segments that were missing once: they may have been given back. Whoever needs them looks for changes and reads again.
    once: BTreeSet<SegmentId>,
    errors: Vec<DataError>,
}

impl Met {
    pub(super) fn note(&self, error: &DataError) {
        let mut held = self.0.lock();
        let is_damage = match error {
            DataError::Integrity { .. } => true,
            DataError::Missing(id) => {
                if held.once.len() >= KEPT {
                    held.once.clear();
                }
                !held.once.insert(*id)
            }
            DataError::Storage(cause) => cause.kind() == ErrorKind::Broken,
            _ => false,
        };
        if is_damage && held.errors.len() < KEPT {
            held.errors.push(error.clone());
        }
    }

    pub(super) fn take(&self) -> Vec<DataError> {
        std::mem::take(&mut self.0.lock().errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Flaw;

    #[test]
    fn what_is_missing_counts_the_second_time_and_what_passes_never() {
        let (met, id) = (Met::default(), SegmentId([1; 16]));
        met.note(&DataError::Missing(id));
        met.note(&DataError::Stopped);
        assert!(met.take().is_empty());
        met.note(&DataError::Missing(id));
        met.note(&DataError::flawed(id, Some(3), Flaw::Hash));
        let taken = met.take();
        assert!(
            matches!(
                taken[..],
                [DataError::Missing(_), DataError::Integrity { .. }]
            ),
            "{taken:?}"
        );
        assert!(met.take().is_empty());
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let met = Met::default();
        for n in 0..10_000_u32 {
            met.note(&DataError::flawed(SegmentId([1; 16]), Some(n), Flaw::Hash));
        }
        assert_eq!(met.take().len(), KEPT);
    }
}
