//! The rows of the state on this machine: what was not written yet over what was used lately over an
//! encrypted database. It is a cache in every part: it may be deleted at any time, and whatever is
//! wrong with it is answered by making it again.

mod db;
mod hot;
mod merge;
mod snapshot;

pub(crate) use snapshot::Snapshot;

use crate::rows::{Row, RowKey, Rows, RowsError};
use db::{Db, Place, failed};
use hot::Hot;
use merge::{merged_last, merged_scan};
use parking_lot::Mutex;
use skrin_crypto::LocalKey;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

/// Changes to rows: a value, or `None` to delete it.
pub(crate) type Layer = BTreeMap<RowKey, Option<Row>>;

/// Rows with an overlay that a flush writes in one transaction.
pub struct CachedRows {
    place: Option<Place>,
    db: Option<Db>,
    writer: Option<Arc<Mutex<Db>>>,
    overlay: Layer,
    overlay_bytes: usize,
    /// What is being written; it lies between the overlay and the database.
    flushing: Option<Arc<Layer>>,
    /// The rows in the database are to be forgotten.
    cleared: bool,
    /// How often everything was forgotten.
    clears: u64,
    side: BTreeMap<RowKey, Row>,
    hot: RefCell<Hot>,
    budget: usize,
}

/// Rows on their way into the database, to be written without holding on to `CachedRows`.
pub(crate) struct FlushJob {
    writer: Arc<Mutex<Db>>,
    rows: Arc<Layer>,
    side: Layer,
    clear: bool,
    clears: u64,
}

/// What became of a `FlushJob`.
pub(crate) struct Flushed {
    clear: bool,
    clears: u64,
    failed: Option<(Layer, RowsError)>,
}

impl FlushJob {
    /// Writes everything in one transaction: after a crash there is either all of it or the state of the flush before.
    pub(crate) fn run(self) -> Flushed {
        let rows = self.rows.iter().map(|(k, v)| (&**k, v.as_ref()));
        let side = self.side.iter().map(|(k, v)| (&**k, v.as_ref()));
        let written = self.writer.lock().write(rows, side, self.clear);
        Flushed {
            clear: self.clear,
            clears: self.clears,
            failed: written.err().map(|error| (self.side, failed(error))),
        }
    }
}

impl CachedRows {
    /// Opens the database at `path`, and says whether it held something. One that is damaged, of
    /// another version or of another vault (`identity` tells) is deleted and begun again.
    /// `budget` bounds the memory in bytes: half for rows, half for pages of the database.
    ///
    /// # Errors
    /// When even a new database cannot be made.
    pub fn open(
        path: &Path,
        key: LocalKey,
        identity: &[u8],
        budget: usize,
    ) -> Result<(Self, bool), RowsError> {
        let place = Place::new(path, &key.into_database_key(), budget / 4);
        let (db, kept) = match place.open(identity) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the metadata cache is damaged or foreign and is made again");
                let remove = place.delete();
                remove.map_err(|e| RowsError::Cache(format!("{}: {e}", path.display())))?;
                place.open(identity).map_err(failed)?
            }
        };
        let writer = place.writer().map_err(failed)?;
        let mut rows = Self::over(budget);
        (rows.place, rows.db) = (Some(place), Some(db));
        rows.writer = Some(Arc::new(Mutex::new(writer)));
        Ok((rows, kept))
    }

    /// Keeps everything in memory; `flush` writes nowhere. For tests.
    pub fn in_memory() -> Self {
        Self::over(2 << 20)
    }

    fn over(budget: usize) -> Self {
        Self {
            place: None,
            db: None,
            writer: None,
            overlay: BTreeMap::new(),
            overlay_bytes: 0,
            flushing: None,
            cleared: false,
            clears: 0,
            side: BTreeMap::new(),
            hot: RefCell::new(Hot::new(budget / 2)),
            budget,
        }
    }

    /// Whether there is a database below, so that what was flushed need not stay in memory.
    pub fn is_persistent(&self) -> bool {
        self.db.is_some()
    }

    /// The bound of memory with which this was opened.
    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    /// Bytes of rows that `flush` has to write.
    pub fn unflushed(&self) -> usize {
        match self.db {
            Some(_) => self.overlay_bytes,
            None => 0,
        }
    }

    /// Hands out what is new, together with `side`, to be written elsewhere; `end_flush` comes after. `None` if there is
    /// no database. `Err` gives `side` back while an earlier flush is not at its end.
    pub(crate) fn begin_flush(&mut self, side: Layer) -> Result<Option<FlushJob>, Layer> {
        let Some(writer) = &self.writer else {
            for (key, value) in side {
                match value {
                    Some(value) => self.side.insert(key, value),
                    None => self.side.remove(&key),
                };
            }
            return Ok(None);
        };
        let unpinned = self.db.as_ref().is_none_or(|db| db.unpin().is_ok());
        if self.flushing.is_some() || !unpinned {
            return Err(side);
        }
        let rows = Arc::new(std::mem::take(&mut self.overlay));
        self.overlay_bytes = 0;
        self.flushing = Some(rows.clone());
        Ok(Some(FlushJob {
            writer: writer.clone(),
            rows,
            side,
            clear: self.cleared,
            clears: self.clears,
        }))
    }

    /// Takes the outcome of a flush. After a failure everything is as if it had not begun, and the side comes back.
    pub(crate) fn end_flush(&mut self, flushed: Flushed) -> Result<(), (Layer, RowsError)> {
        if flushed.clears != self.clears {
            // Everything was forgotten meanwhile, so nothing of this matters any more.
            return Ok(());
        }
        let rows = self.flushing.take().unwrap_or_default();
        let rows = Arc::try_unwrap(rows).unwrap_or_else(|shared| (*shared).clone());
        if let Some((side, error)) = flushed.failed {
            for (key, value) in rows {
                if !self.overlay.contains_key(&key) {
                    self.write(&key, value);
                }
            }
            return Err((side, error));
        }
        self.cleared &= !flushed.clear;
        let hot = self.hot.get_mut();
        for (key, value) in rows {
            hot.insert(key, value);
        }
        Ok(())
    }

    /// Writes what is new, together with `side`, at once.
    pub(crate) fn flush(&mut self, side: Layer) -> Result<(), (Layer, RowsError)> {
        match self.begin_flush(side) {
            Ok(Some(job)) => self.end_flush(job.run()),
            Ok(None) => Ok(()),
            Err(side) => Err((
                side,
                RowsError::Cache("it is being written already".to_owned()),
            )),
        }
    }

    /// Whether a flush has begun and is not at its end.
    pub(crate) fn is_flushing(&self) -> bool {
        self.flushing.is_some()
    }

    /// One of the entries that `flush` wrote beside the rows.
    pub(crate) fn side(&self, key: &[u8]) -> Result<Option<Row>, RowsError> {
        match &self.db {
            Some(db) => db.get("side", key).map_err(failed),
            None => Ok(self.side.get(key).cloned()),
        }
    }

    /// The entries whose keys begin with `prefix`.
    pub(crate) fn side_scan(&self, prefix: u8) -> Result<Vec<(RowKey, Row)>, RowsError> {
        let (from, to) = (vec![prefix], vec![prefix.saturating_add(1)]);
        match &self.db {
            Some(db) => db
                .scan("side", &from, Some(&to), usize::MAX)
                .map_err(failed),
            None => {
                let range = self
                    .side
                    .range::<[u8], _>((Bound::Included(&*from), Bound::Excluded(&*to)));
                Ok(range.map(|(k, v)| (k.clone(), v.clone())).collect())
            }
        }
    }

    /// The keys of the entries that begin with `prefix`.
    pub(crate) fn side_keys(&self, prefix: u8) -> Result<Vec<RowKey>, RowsError> {
        match &self.db {
            Some(db) => db.side_keys(prefix).map_err(failed),
            None => Ok(self
                .side_scan(prefix)?
                .into_iter()
                .map(|(key, _)| key)
                .collect()),
        }
    }

    /// Forgets all rows; the database follows with the next flush.
    pub(crate) fn clear(&mut self) {
        self.overlay.clear();
        self.overlay_bytes = 0;
        self.flushing = None;
        self.side.clear();
        self.hot.get_mut().clear();
        self.cleared = true;
        self.clears += 1;
    }

    /// The rows of this moment, for reading without a lock.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, RowsError> {
        let place = self.place.as_ref();
        let db = match place.filter(|_| !self.cleared) {
            Some(place) => Some(place.snapshot().map_err(failed)?),
            None => None,
        };
        let mut patch = self.flushing.as_deref().cloned().unwrap_or_default();
        patch.extend(self.overlay.clone());
        let most = self.budget / 8;
        Ok(Snapshot::new(
            db,
            place.cloned().map(|place| (place, most)),
            patch,
        ))
    }

    fn write(&mut self, key: &[u8], value: Option<Row>) {
        self.overlay_bytes += key.len() + value.as_ref().map_or(0, |row| row.len());
        match self.overlay.get_mut(key) {
            Some(slot) => *slot = value,
            None => {
                self.overlay.insert(key.into(), value);
            }
        }
    }

    /// The database, unless its rows are all to be forgotten.
    fn base(&self) -> Result<Option<&Db>, RowsError> {
        let db = self.db.as_ref().filter(|_| !self.cleared);
        if let (Some(db), None) = (db, &self.flushing) {
            db.pin().map_err(failed)?;
        }
        Ok(db)
    }
}

impl Rows for CachedRows {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, RowsError> {
        if let Some(value) = self.overlay.get(key) {
            return Ok(value.clone());
        }
        if let Some(value) = self.flushing.as_ref().and_then(|layer| layer.get(key)) {
            return Ok(value.clone());
        }
        let Some(db) = self.base()? else {
            return Ok(None);
        };
        let mut hot = self.hot.borrow_mut();
        if let Some(known) = hot.get(key) {
            return Ok(known);
        }
        let value = db.get("kv", key).map_err(failed)?;
        hot.insert(key.into(), value.clone());
        Ok(value)
    }

    fn put(&mut self, key: &[u8], value: Row) -> Result<(), RowsError> {
        self.write(key, Some(value));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), RowsError> {
        match self.db {
            // Without a database below, a deleted row is just not there.
            None => drop(self.overlay.remove(key)),
            Some(_) => self.write(key, None),
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(RowKey, Row)>, RowsError> {
        let below = self.base()?;
        let base = |from: &[u8], limit| match below {
            None => Ok(Vec::new()),
            Some(db) => db.scan("kv", from, Some(to), limit).map_err(failed),
        };
        let Some(flushing) = &self.flushing else {
            return merged_scan(&self.overlay, from, Some(to), limit, base);
        };
        merged_scan(&self.overlay, from, Some(to), limit, |from, limit| {
            merged_scan(flushing, from, Some(to), limit, base)
        })
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(RowKey, Row)>, RowsError> {
        let below = self.base()?;
        let base = |to: &[u8]| match below {
            None => Ok(None),
            Some(db) => db.last(from, to).map_err(failed),
        };
        let Some(flushing) = &self.flushing else {
            return merged_last(&self.overlay, from, to, base);
        };
        merged_last(&self.overlay, from, to, |to| {
            merged_last(flushing, from, to, base)
        })
    }
}

#[cfg(test)]
mod tests;
