//! The rows of the state on this machine: what was not written yet over what was used lately over an
//! encrypted database. It is a cache in every part: it may be deleted at any time, and whatever is
//! wrong with it is answered by making it again.

mod db;
mod hot;
mod merge;
mod snapshot;

pub(crate) use db::Change;
pub(crate) use snapshot::Snapshot;

use crate::rows::{Row, RowKey, Rows, RowsError};
use db::{Db, Place, failed};
use hot::Hot;
use merge::{merged_last, merged_scan};
use skrin_crypto::LocalKey;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

/// Rows with an overlay that `flush` writes in one transaction.
pub struct CachedRows {
    place: Option<Place>,
    db: Option<Db>,
    overlay: BTreeMap<RowKey, Option<Row>>,
    overlay_bytes: usize,
    cleared: bool,
    side: BTreeMap<RowKey, Row>,
    hot: RefCell<Hot>,
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
        let place = Place::new(path, &key.into_database_key(), budget / 2);
        let (db, kept) = match place.open(identity) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the metadata cache is damaged or foreign and is made again");
                let remove = place.delete();
                remove.map_err(|e| RowsError::Cache(format!("{}: {e}", path.display())))?;
                place.open(identity).map_err(failed)?
            }
        };
        Ok((Self::over(Some(place), Some(db), budget / 2), kept))
    }

    /// Keeps everything in memory; `flush` writes nowhere. For tests.
    pub fn in_memory() -> Self {
        Self::over(None, None, 1 << 20)
    }

    fn over(place: Option<Place>, db: Option<Db>, hot: usize) -> Self {
        Self {
            place,
            db,
            overlay: BTreeMap::new(),
            overlay_bytes: 0,
            cleared: false,
            side: BTreeMap::new(),
            hot: RefCell::new(Hot::new(hot)),
        }
    }

    /// Whether there is a database below, so that what was flushed need not stay in memory.
    pub fn is_persistent(&self) -> bool {
        self.db.is_some()
    }

    /// Bytes of rows that `flush` has to write.
    pub fn unflushed(&self) -> usize {
        match self.db {
            Some(_) => self.overlay_bytes,
            None => 0,
        }
    }

    /// Writes what is new, together with `side`, in one transaction: after a crash there is either
    /// all of it or the state of the flush before.
    pub(crate) fn flush(&mut self, side: Vec<Change>) -> Result<(), RowsError> {
        let Some(db) = &self.db else {
            for (key, value) in side {
                match value {
                    Some(value) => self.side.insert(key, value),
                    None => self.side.remove(&key),
                };
            }
            return Ok(());
        };
        let rows = self.overlay.iter().map(|(k, v)| (&**k, v.as_ref()));
        let side = side.iter().map(|(k, v)| (&**k, v.as_ref()));
        db.write(rows, side, self.cleared).map_err(failed)?;
        self.cleared = false;
        self.overlay_bytes = 0;
        let hot = self.hot.get_mut();
        for (key, value) in std::mem::take(&mut self.overlay) {
            hot.insert(key, value);
        }
        Ok(())
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
        self.side.clear();
        self.hot.get_mut().clear();
        self.cleared = true;
    }

    /// The rows of this moment, for reading without a lock.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, RowsError> {
        let db = match (&self.place, self.cleared) {
            (Some(place), false) => Some(place.snapshot().map_err(failed)?),
            _ => None,
        };
        Ok(Snapshot {
            db,
            patch: self.overlay.clone(),
        })
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
    fn base(&self) -> Option<&Db> {
        self.db.as_ref().filter(|_| !self.cleared)
    }
}

impl Rows for CachedRows {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, RowsError> {
        if let Some(value) = self.overlay.get(key) {
            return Ok(value.clone());
        }
        let Some(db) = self.base() else {
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
        merged_scan(
            &self.overlay,
            from,
            Some(to),
            limit,
            |from, limit| match self.base() {
                None => Ok(Vec::new()),
                Some(db) => db.scan("kv", from, Some(to), limit).map_err(failed),
            },
        )
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(RowKey, Row)>, RowsError> {
        merged_last(&self.overlay, from, to, |to| match self.base() {
            None => Ok(None),
            Some(db) => db.last(from, to).map_err(failed),
        })
    }
}

#[cfg(test)]
mod tests;
