//! What the rules are for, by example.

use super::*;

fn set(numbers: &[usize]) -> BTreeSet<usize> {
    numbers.iter().copied().collect()
}
