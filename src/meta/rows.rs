//! The state is a set of ordered rows, key -> value. Everything above (the typed state, `apply`,
//! undo, checkpoints, the cache) speaks of rows only through this trait.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use thiserror::Error;

/// A row's value.
pub type Row = Arc<[u8]>;
/// A row's key; the first byte names its table.
pub type RowKey = Box<[u8]>;

/// The local cache failed. The state itself is not in danger: it can be folded again.
#[derive(Debug, Error)]
pub enum RowsError {
    /// SQLite or the disk below it.
    #[error(
        "the local metadata cache failed: {0}; it may be deleted and is made again at the next mount"
    )]
    Cache(String),
    /// A row that does not decode: only a bug or a damaged cache makes one.
    #[error(
        "row {key} of the local metadata cache is damaged: {reason}; unmount, delete meta.db and mount again"
    )]
    Damaged {
        /// The key in hexadecimal.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// Ordered rows.
pub trait Rows {
    /// The value of one row.
    fn get(&self, key: &[u8]) -> Result<Option<Row>, RowsError>;
    /// Writes one row.
    fn put(&mut self, key: &[u8], value: Row) -> Result<(), RowsError>;
    /// Deletes one row; an absent one is fine.
    fn delete(&mut self, key: &[u8]) -> Result<(), RowsError>;
    /// Up to `limit` rows with `from <= key < to`, in ascending order of keys.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(RowKey, Row)>, RowsError>;
    /// The last row with `from <= key < to`.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(RowKey, Row)>, RowsError>;
}

/// Rows in memory: the reference for the cache, and what tests use.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct MemoryRows(pub BTreeMap<RowKey, Row>);

impl Rows for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, RowsError> {
        Ok(self.0.get(key).cloned())
    }
    fn put(&mut self, key: &[u8], value: Row) -> Result<(), RowsError> {
        self.0.insert(key.into(), value);
        Ok(())
    }
    fn delete(&mut self, key: &[u8]) -> Result<(), RowsError> {
        self.0.remove(key);
        Ok(())
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(RowKey, Row)>, RowsError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let rows = self.0.range::<[u8], _>(range).take(limit);
        Ok(rows.map(|(k, v)| (k.clone(), v.clone())).collect())
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(RowKey, Row)>, RowsError> {
        if from >= to {
            return Ok(None);
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let found = self.0.range::<[u8], _>(range).next_back();
        Ok(found.map(|(k, v)| (k.clone(), v.clone())))
    }
}
