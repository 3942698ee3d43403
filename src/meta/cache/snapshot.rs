//! The rows as they were at one moment, readable without a lock while the cache goes on.

use super::Layer;
use super::db::{Db, Place, failed};
use crate::rows::{Row, RowKey, RowsError};
use crate::undo::Frame;
use std::ops::Bound;

/// Rows read at a time.
const AT_ONCE: usize = 1024;
/// So many bytes of rows that are put back are in memory in tests, so that random programs go that way.
const TESTED: usize = 512;
/// What a row that is put back takes beside its bytes.
const ROW_OVERHEAD: usize = 64;

/// A fixed state: what the database held, patched by what was not in it yet or had to be put back.
pub(crate) struct Snapshot {
    db: Option<Db>,
    /// Where what does not fit into memory may be put, and how many bytes do.
    place: Option<(Place, usize)>,
    patch: Layer,
    patch_bytes: usize,
    /// The patch, once there is much of it.
    scratch: Option<Db>,
}

impl Snapshot {
    pub(super) fn new(db: Option<Db>, place: Option<(Place, usize)>, patch: Layer) -> Self {
        let bytes = patch.iter().map(|(key, row)| cost(key, row.as_ref())).sum();
        Self {
            db,
            place,
            patch,
            patch_bytes: bytes,
            scratch: None,
        }
    }

    /// Whether the entries beside the rows can be read as they were.
    pub(crate) fn has_side(&self) -> bool {
        self.db.is_some()
    }

    /// One of the entries beside the rows, as the database had it.
    ///
    /// # Errors
    /// When the cache fails.
    pub(crate) fn side(&self, key: &[u8]) -> Result<Option<Row>, RowsError> {
        match &self.db {
            Some(db) => db.get("side", key).map_err(failed),
            None => Ok(None),
        }
    }

    /// Goes further back: undoes a frame, the latest first.
    ///
    /// # Errors
    /// When the disk has no room for what there is much of.
    pub(crate) fn revert(&mut self, frame: &Frame) -> Result<(), RowsError> {
        for (key, before) in frame.rows() {
            if self.patch.insert(key.clone(), before.clone()).is_none() {
                self.patch_bytes += cost(key, before.as_ref());
            }
        }
        let most = self.place.as_ref().map(|(_, most)| *most);
        let most = most.map(|most| if cfg!(test) { TESTED } else { most });
        match most.is_some_and(|most| self.patch_bytes > most) {
            true => self.put_aside(),
            false => Ok(()),
        }
    }

    fn put_aside(&mut self) -> Result<(), RowsError> {
        if let (None, Some((place, _))) = (&self.scratch, &self.place) {
            self.scratch = Some(place.scratch().map_err(failed)?);
        }
        if let Some(scratch) = &self.scratch {
            let rows = self.patch.iter().map(|(k, v)| (&**k, v.as_ref()));
            scratch.put_aside(rows).map_err(failed)?;
            self.patch = Layer::new();
            self.patch_bytes = 0;
        }
        Ok(())
    }

    /// Visits all rows in the order of their keys.
    ///
    /// # Errors
    /// When the cache fails, and those of `visit`.
    pub(crate) fn for_each<E: From<RowsError>>(
        &self,
        mut visit: impl FnMut(RowKey, Row) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut base = Ahead::new(|from: &[u8]| match &self.db {
            None => Ok(Vec::new()),
            Some(db) => db.scan("kv", from, None, AT_ONCE).map_err(failed),
        });
        let mut aside = Ahead::new(|from: &[u8]| match &self.scratch {
            None => Ok(Vec::new()),
            Some(scratch) => scratch.aside(from, AT_ONCE).map_err(failed),
        });
        let mut patch = Ahead::new(|from: &[u8]| {
            let rest = self
                .patch
                .range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
            let rows = rest.take(AT_ONCE).map(|(k, v)| (k.clone(), v.clone()));
            Ok(rows.collect())
        });
        loop {
            let keys = [base.peek()?, aside.peek()?, patch.peek()?];
            let Some(least) = keys.into_iter().flatten().min().cloned() else {
                return Ok(());
            };
            // The later of them hide the earlier.
            let base = base.next_if(&least);
            let aside = aside.next_if(&least);
            let patch = patch.next_if(&least);
            let row = patch.or(aside).unwrap_or(base);
            if let Some(row) = row {
                visit(least, row)?;
            }
        }
    }
}

fn cost(key: &[u8], row: Option<&Row>) -> usize {
    key.len() + row.map_or(0, |row| row.len()) + ROW_OVERHEAD
}

/// Rows in their order, of which some are read at a time.
struct Ahead<T, R> {
    read: R,
    /// The next ones.
    rows: std::vec::IntoIter<(RowKey, T)>,
    /// Where reading goes on; `None` at the end.
    from: Option<Vec<u8>>,
}

impl<T, R: Fn(&[u8]) -> Result<Vec<(RowKey, T)>, RowsError>> Ahead<T, R> {
    fn new(read: R) -> Self {
        Self {
            read,
            rows: Vec::new().into_iter(),
            from: Some(Vec::new()),
        }
    }

    fn peek(&mut self) -> Result<Option<&RowKey>, RowsError> {
        if self.rows.as_slice().is_empty()
            && let Some(from) = self.from.take()
        {
            let rows = (self.read)(&from)?;
            self.from = rows.last().map(|(last, _)| [last, &[0][..]].concat());
            self.rows = rows.into_iter();
        }
        Ok(self.rows.as_slice().first().map(|(key, _)| key))
    }

    /// The row of that key, if it is the next one.
    fn next_if(&mut self, key: &RowKey) -> Option<T> {
        let (next, _) = self.rows.as_slice().first()?;
        match next == key {
            true => self.rows.next().map(|(_, row)| row),
            false => None,
        }
    }
}
