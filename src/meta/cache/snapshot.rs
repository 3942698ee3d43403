//! The rows as they were at one moment, readable without a lock while the cache goes on.

use super::db::{Db, failed};
use super::merge::merged_scan;
use crate::rows::{Row, RowKey, RowsError};
use crate::undo::Frame;
use std::collections::BTreeMap;

/// A fixed state: what the database held, patched by what was not in it yet or had to be put back.
pub(crate) struct Snapshot {
    pub(super) db: Option<Db>,
    pub(super) patch: BTreeMap<RowKey, Option<Row>>,
}

impl Snapshot {
    /// Goes further back: undoes a frame, the latest first.
    pub(crate) fn revert(&mut self, frame: &Frame) {
        for (key, before) in frame.rows() {
            self.patch.insert(key.clone(), before.clone());
        }
    }

    /// Up to `limit` rows from `from` on, ascending.
    pub(crate) fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<(RowKey, Row)>, RowsError> {
        merged_scan(&self.patch, from, None, limit, |from, limit| {
            match &self.db {
                None => Ok(Vec::new()),
                Some(db) => db.scan("kv", from, None, limit).map_err(failed),
            }
        })
    }

    /// Visits all rows in the order of their keys.
    pub(crate) fn for_each<E: From<RowsError>>(
        &self,
        mut visit: impl FnMut(RowKey, Row) -> Result<(), E>,
    ) -> Result<(), E> {
        const AT_ONCE: usize = 1024;
        let mut from = Vec::new();
        loop {
            let rows = self.scan(&from, AT_ONCE)?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            from = last.to_vec();
            from.push(0);
            for (key, value) in rows {
                visit(key, value)?;
            }
        }
    }
}
