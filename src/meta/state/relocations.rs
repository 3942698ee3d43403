//! Rows `M`: blocks of a segment that lie in another one as well.

use super::{COPIED, damaged, decode, for_each, key, segment, write};
use crate::rows::{Row, Rows, RowsError};
use skrin_base::limits::{RELOCATED_SLOTS_MAX, SEGMENT_SLOTS_MAX};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{CopiedRun, Copies, SegmentId};
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// The value of a row; the rest is its key.
struct Value {
    count: u32,
    host: SegmentId,
    host_slot: u32,
    table_slot: u32,
}

impl Encode for Value {
    fn encode(&self, w: &mut Writer) {
        w.u32(self.count);
        self.host.encode(w);
        w.u32(self.host_slot);
        w.u32(self.table_slot);
    }
}

impl Decode for Value {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            count: r.u32()?,
            host: SegmentId::decode(r)?,
            host_slot: r.u32()?,
            table_slot: r.u32()?,
        })
    }
}

fn run_key(id: SegmentId, slot: u32) -> Vec<u8> {
    key(COPIED, &[id.as_bytes(), &slot.to_be_bytes()])
}

fn parse(key: &[u8], row: &[u8]) -> Result<(SegmentId, CopiedRun), RowsError> {
    let mut r = Reader::new(key.get(1..).unwrap_or_default());
    let parsed = SegmentId::decode(&mut r).and_then(|id| Ok((id, u32::from_be_bytes(r.array()?))));
    let (id, first_slot) = parsed.map_err(|error| damaged(key, &error))?;
    let value: Value = decode(key, row)?;
    // Pages of checkpoints are what a member wrote.
    let within = |first: u32, max: usize| u64::from(first) + u64::from(value.count) <= max as u64;
    let fits =
        within(first_slot, RELOCATED_SLOTS_MAX) && within(value.host_slot, SEGMENT_SLOTS_MAX);
    if value.count == 0 || !fits || value.table_slot as usize >= SEGMENT_SLOTS_MAX {
        return Err(damaged(key, &WireError::Value("relocated slots")));
    }
    let run = CopiedRun {
        first_slot,
        count: value.count,
        host: value.host,
        host_slot: value.host_slot,
        table_slot: value.table_slot,
    };
    Ok((id, run))
}

/// The segment and the run, if the row is one of these.
pub(crate) fn copied_row(
    key: &[u8],
    row: &Row,
) -> Result<Option<(SegmentId, CopiedRun)>, RowsError> {
    let is_one = key.first() == Some(&COPIED);
    is_one.then(|| parse(key, row)).transpose()
}

/// The runs of a segment, ascending and without overlap.
pub fn copied_runs(rows: &dyn Rows, id: SegmentId) -> Result<Vec<CopiedRun>, RowsError> {
    let mut runs = Vec::new();
    for_each(rows, &key(COPIED, &[id.as_bytes()]), |key, row| {
        runs.push(parse(key, row)?.1);
        Ok(())
    })?;
    Ok(runs)
}

/// Where blocks of a segment lie besides, as far as commits have declared the hosts. `None` where there is nothing of the kind.
pub fn copies(rows: &dyn Rows, id: SegmentId) -> Result<Option<Copies>, RowsError> {
    let mut copies = Copies::default();
    for run in copied_runs(rows, id)? {
        if let Entry::Vacant(place) = copies.hosts.entry(run.host) {
            let Some(info) = segment(rows, run.host)? else {
                continue;
            };
            place.insert(Arc::new(info));
        }
        copies.runs.push(run);
    }
    Ok((!copies.runs.is_empty()).then_some(copies))
}

/// Visits every run with its segment.
pub fn for_each_copied_run(
    rows: &dyn Rows,
    mut visit: impl FnMut(SegmentId, CopiedRun) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    for_each(rows, &[COPIED], |key, row| {
        let (id, run) = parse(key, row)?;
        visit(id, run)
    })
}

/// Puts a run in the place of what was said of its slots.
pub(crate) fn put_copied_run(
    rows: &mut dyn Rows,
    id: SegmentId,
    run: &CopiedRun,
) -> Result<(), RowsError> {
    for old in copied_runs(rows, id)? {
        let parts = [old.clip(0, run.first_slot), old.clip(run.end(), u32::MAX)];
        if parts == [Some(old), None] || parts == [None, Some(old)] {
            continue;
        }
        rows.delete(&run_key(id, old.first_slot))?;
        for part in parts.into_iter().flatten() {
            put(rows, id, &part)?;
        }
    }
    put(rows, id, run)
}

fn put(rows: &mut dyn Rows, id: SegmentId, run: &CopiedRun) -> Result<(), RowsError> {
    let value = Value {
        count: run.count,
        host: run.host,
        host_slot: run.host_slot,
        table_slot: run.table_slot,
    };
    write(rows, &run_key(id, run.first_slot), &value)
}
