//! Physical undo: the rows as they were before, and nothing else to get wrong.

use crate::rows::{Row, RowKey, Rows, RowsError};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use std::collections::BTreeMap;

/// Bounds for what a stored frame may hold; it never leaves this machine.
const KEY_MAX: usize = 1 << 16;
const VALUE_MAX: usize = 1 << 28;
const ROWS_MAX: usize = 1 << 26;

/// What each row that was touched held before it was touched first.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Frame(BTreeMap<RowKey, Option<Row>>);

impl Frame {
    /// Puts every row back. Frames are reverted in the opposite order of their making.
    ///
    /// # Errors
    /// When the cache fails.
    pub fn revert(&self, rows: &mut dyn Rows) -> Result<(), RowsError> {
        for (key, before) in &self.0 {
            match before {
                Some(value) => rows.put(key, value.clone())?,
                None => rows.delete(key)?,
            }
        }
        Ok(())
    }

    /// Takes in a frame that was made after this one: what stood here first stays.
    pub fn absorb(&mut self, later: Self) {
        for (key, before) in later.0 {
            self.0.entry(key).or_insert(before);
        }
    }

    /// The touched rows, with what they held before.
    pub fn rows(&self) -> impl Iterator<Item = (&RowKey, &Option<Row>)> {
        self.0.iter()
    }

    /// How many rows were touched.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both touched some row.
    pub fn touches_any(&self, other: &Self) -> bool {
        let (small, large) = match self.0.len() < other.0.len() {
            true => (&self.0, &other.0),
            false => (&other.0, &self.0),
        };
        small.keys().any(|key| large.contains_key(key))
    }
}

fn encode_value(value: Option<&Row>, w: &mut Writer) {
    match value {
        None => w.u8(0),
        Some(value) => {
            w.u8(1);
            w.bytes(value);
        }
    }
}

impl Encode for Frame {
    fn encode(&self, w: &mut Writer) {
        w.count(self.0.len());
        for (key, before) in &self.0 {
            w.bytes(key);
            encode_value(before.as_ref(), w);
        }
    }
}

impl Decode for Frame {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let n = r.count("rows of a frame", ROWS_MAX, 5)?;
        let mut rows = BTreeMap::new();
        for _ in 0..n {
            let key = r.bytes("row key", KEY_MAX)?.into();
            let before = match r.bool()? {
                true => Some(r.bytes("row", VALUE_MAX)?.into()),
                false => None,
            };
            rows.insert(key, before);
        }
        Ok(Self(rows))
    }
}

/// Rows that remember what stood where something is written.
pub struct Recorder<'a> {
    rows: &'a mut dyn Rows,
    frame: Frame,
}

impl<'a> Recorder<'a> {
    /// Records what is done to `rows` from now on.
    pub fn new(rows: &'a mut dyn Rows) -> Self {
        Self {
            rows,
            frame: Frame::default(),
        }
    }

    /// Goes on with what was recorded before.
    pub fn resume(rows: &'a mut dyn Rows, frame: Frame) -> Self {
        Self { rows, frame }
    }

    /// What was recorded.
    pub fn finish(self) -> Frame {
        self.frame
    }

    fn record(&mut self, key: &[u8]) -> Result<(), RowsError> {
        if !self.frame.0.contains_key(key) {
            let before = self.rows.get(key)?;
            self.frame.0.insert(key.into(), before);
        }
        Ok(())
    }
}

impl Rows for Recorder<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, RowsError> {
        self.rows.get(key)
    }
    fn put(&mut self, key: &[u8], value: Row) -> Result<(), RowsError> {
        self.record(key)?;
        self.rows.put(key, value)
    }
    fn delete(&mut self, key: &[u8]) -> Result<(), RowsError> {
        self.record(key)?;
        self.rows.delete(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(RowKey, Row)>, RowsError> {
        self.rows.scan(from, to, limit)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(RowKey, Row)>, RowsError> {
        self.rows.last(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::MemoryRows;
    use proptest::prelude::*;

    type Step = (u8, Option<u8>);

    fn run(rows: &mut dyn Rows, steps: &[Step]) {
        for (key, value) in steps {
            match value {
                Some(value) => rows.put(&[*key % 8], vec![*value].into()).unwrap(),
                None => rows.delete(&[*key % 8]).unwrap(),
            }
        }
    }

    proptest! {
        #[test]
        fn reverting_frames_backwards_gives_every_earlier_state(programs: Vec<Vec<Step>>) {
            let mut rows = MemoryRows::default();
            let mut history = Vec::new();
            for program in &programs {
                let before = rows.clone();
                let mut recorder = Recorder::new(&mut rows);
                run(&mut recorder, program);
                history.push((before, recorder.finish()));
            }
            let mut merged = Frame::default();
            for (_, frame) in &history {
                merged.absorb(frame.clone());
            }
            let mut all_at_once = rows.clone();
            merged.revert(&mut all_at_once).unwrap();
            prop_assert_eq!(&all_at_once, &MemoryRows::default());
            for (before, frame) in history.iter().rev() {
                prop_assert_eq!(&Frame::from_bytes(&frame.to_bytes()).unwrap(), frame);
                frame.revert(&mut rows).unwrap();
                prop_assert_eq!(&rows, before);
            }
        }

        #[test]
        fn any_bytes_decode_to_a_frame_or_an_error(bytes: Vec<u8>) {
            let _ = Frame::from_bytes(&bytes);
        }
    }
}
