//! Reading an ordered overlay over an ordered base.

use crate::rows::{Row, RowKey, RowsError};
use std::collections::BTreeMap;
use std::ops::Bound;

fn bounds<'a>(from: &'a [u8], to: Option<&'a [u8]>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (
        Bound::Included(from),
        to.map_or(Bound::Unbounded, Bound::Excluded),
    )
}

/// Up to `limit` rows with `from <= key < to`, where the overlay (`None` deletes) hides the base;
/// `base(from, limit)` reads the base up to the same end.
pub(super) fn merged_scan(
    overlay: &BTreeMap<RowKey, Option<Row>>,
    from: &[u8],
    to: Option<&[u8]>,
    limit: usize,
    base: impl Fn(&[u8], usize) -> Result<Vec<(RowKey, Row)>, RowsError>,
) -> Result<Vec<(RowKey, Row)>, RowsError> {
    let mut out = Vec::new();
    let mut from = from.to_vec();
    while out.len() < limit && to.is_none_or(|to| from.as_slice() < to) {
        let want = limit - out.len();
        let below = base(&from, want)?;
        // The base is known up to its last row only, unless it ended.
        let next = (below.len() == want).then(|| after(below.last()));
        let until = next.as_deref().or(to);
        merge(overlay, bounds(&from, until), below, &mut out);
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    out.truncate(limit);
    Ok(out)
}

/// The last row with `from <= key < to`; `base(to)` finds the last one of the base before `to`.
pub(super) fn merged_last(
    overlay: &BTreeMap<RowKey, Option<Row>>,
    from: &[u8],
    to: &[u8],
    base: impl Fn(&[u8]) -> Result<Option<(RowKey, Row)>, RowsError>,
) -> Result<Option<(RowKey, Row)>, RowsError> {
    let mut to = to.to_vec();
    while *from < *to {
        let below = base(&to)?;
        let above = overlay
            .range::<[u8], _>(bounds(from, Some(&to)))
            .next_back();
        match (above, below) {
            (Some((key, row)), below) if below.as_ref().is_none_or(|(k, _)| k <= key) => {
                match row {
                    Some(row) => return Ok(Some((key.clone(), row.clone()))),
                    None => to = key.to_vec(),
                }
            }
            (_, below) => return Ok(below),
        }
    }
    Ok(None)
}

fn after(last: Option<&(RowKey, Row)>) -> Vec<u8> {
    let mut key = last.map_or_else(Vec::new, |(key, _)| key.to_vec());
    key.push(0);
    key
}

fn merge(
    overlay: &BTreeMap<RowKey, Option<Row>>,
    range: (Bound<&[u8]>, Bound<&[u8]>),
    below: Vec<(RowKey, Row)>,
    out: &mut Vec<(RowKey, Row)>,
) {
    let mut above = overlay.range::<[u8], _>(range).peekable();
    let mut emit = |key: &RowKey, value: &Option<Row>| {
        out.extend(value.as_ref().map(|value| (key.clone(), value.clone())));
    };
    let mut hidden = Vec::new();
    for (key, value) in below {
        while let Some((over, row)) = above.next_if(|(over, _)| **over < key) {
            emit(over, row);
        }
        match above.next_if(|(over, _)| **over == key) {
            Some((over, row)) => emit(over, row),
            None => hidden.push((key, value)),
        }
        hidden
            .drain(..)
            .for_each(|(key, value)| emit(&key, &Some(value)));
    }
    above.for_each(|(over, row)| emit(over, row));
}
