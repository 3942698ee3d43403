//! The encrypted database file: two ordered tables of bytes, written in transactions.

use crate::rows::{Row, RowKey, RowsError};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::cell::Cell;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::Zeroizing;

/// Bytes of the file's write-ahead log after which it is copied back: 4096 pages of 4 KiB.
const WAL_PAGES: u32 = 4096;
const NAME_OF_IDENTITY: &[u8] = b"\0identity";

pub(super) fn failed(error: rusqlite::Error) -> RowsError {
    RowsError::Cache(error.to_string())
}

fn cannot_open(path: &Path, error: &std::io::Error) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
    rusqlite::Error::SqliteFailure(code, Some(format!("{}: {error}", path.display())))
}

/// Where the file is and what opens it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    key: Zeroizing<String>,
    page_cache_kib: usize,
}

impl Place {
    pub(super) fn new(path: &Path, key: &[u8; 32], page_cache: usize) -> Self {
        let mut hex = Zeroizing::new(String::with_capacity(64 + 4));
        hex.push_str("x'");
        for byte in key {
            for nibble in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        hex.push('\'');
        Self {
            path: path.to_owned(),
            key: hex,
            page_cache_kib: (page_cache / 1024).max(256),
        }
    }

    fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let conn =
            Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        // A damaged file is our error to tell, not the library's to print.
        conn.pragma_update(None, "cipher_log_level", "NONE")?;
        conn.pragma_update(None, "key", self.key.as_str())?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.pragma_update(None, "cache_size", -(self.page_cache_kib as i64))?;
        // FULL: after a power loss the journal is applied to it, maybe without the storage, and an older state would not fit.
        conn.pragma_update(None, "synchronous", "FULL")?;
        // Or statements whose range depends on a parameter are prepared again at each call (the library has STAT4).
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        conn.set_prepared_statement_cache_capacity(16);
        Ok(conn)
    }

    /// SQLite would make the file readable by others; its companions get the rights that the file has.
    fn make_private(&self) -> rusqlite::Result<()> {
        let private = || {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&self.path)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))
        };
        private().map_err(|e| cannot_open(&self.path, &e))
    }

    /// Opens the file and its tables; whatever is wrong with it is an error here.
    pub(super) fn open(&self, identity: &[u8]) -> rusqlite::Result<(Db, bool)> {
        self.make_private()?;
        let conn = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
        // Values of `side` are up to megabytes long: in an index (WITHOUT ROWID) each comparison would read them.
        conn.execute_batch(
            "CREATE TABLE IF NOT EXISTS kv(key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS side(key BLOB PRIMARY KEY, value BLOB NOT NULL);",
        )?;
        let db = Db::new(conn);
        match db.get("side", NAME_OF_IDENTITY)? {
            Some(found) if *found == *identity => Ok((db, true)),
            Some(_) => Err(rusqlite::Error::InvalidQuery),
            None => {
                let fresh: (RowKey, Option<Row>) = (NAME_OF_IDENTITY.into(), Some(identity.into()));
                db.write(
                    std::iter::empty(),
                    std::iter::once((&*fresh.0, fresh.1.as_ref())),
                    false,
                )?;
                Ok((db, false))
            }
        }
    }

    /// A connection for writing beside the one that reads.
    pub(super) fn writer(&self) -> rusqlite::Result<Db> {
        let conn = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
        Ok(Db::new(conn))
    }

    /// A second connection that reads the state of this moment for as long as it lives.
    pub(super) fn snapshot(&self) -> rusqlite::Result<Db> {
        let conn = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.pragma_update(None, "query_only", true)?;
        conn.execute_batch("BEGIN")?;
        // The state is fixed by the first read, not by BEGIN.
        let db = Db::new(conn);
        db.get("side", NAME_OF_IDENTITY)?;
        Ok(db)
    }

    /// A database for what there is much of for a while: nobody else sees it, and it goes when it is closed.
    pub(super) fn scratch(&self) -> rusqlite::Result<Db> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let mut path = self.path.clone().into_os_string();
        path.push(format!("-aside{}", MADE.fetch_add(1, Ordering::Relaxed)));
        let other = Self {
            path: path.into(),
            ..self.clone()
        };
        // What an earlier run left under that name, if it was killed just then.
        let gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
        let removed = std::fs::remove_file(&other.path);
        if let Err(error) = removed.or_else(|e| if gone(&e) { Ok(()) } else { Err(e) }) {
            return Err(cannot_open(&other.path, &error));
        }
        other.make_private()?;
        let conn = other.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        conn.pragma_update(None, "journal_mode", "OFF")?;
        conn.pragma_update(None, "synchronous", "OFF")?;
        conn.execute_batch("CREATE TABLE aside(key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;")?;
        std::fs::remove_file(&other.path).map_err(|e| cannot_open(&other.path, &e))?;
        Ok(Db::new(conn))
    }

    /// Removes the file with its companions.
    pub(super) fn delete(&self) -> std::io::Result<()> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

/// An open database.
pub(super) struct Db {
    conn: Connection,
    /// Whether a read transaction is open that spans queries.
    pinned: Cell<bool>,
}

impl Db {
    fn new(conn: Connection) -> Self {
        Self {
            conn,
            pinned: Cell::new(false),
        }
    }

    /// Lets the queries from now on share one read transaction, which saves each of them locking and unlocking the file.
    /// They see the state of the first one until `unpin`.
    pub(super) fn pin(&self) -> rusqlite::Result<()> {
        if !self.pinned.replace(true) {
            self.conn.execute_batch("BEGIN")?;
        }
        Ok(())
    }

    /// Ends that, so that the write-ahead log can be copied back and begun anew.
    pub(super) fn unpin(&self) -> rusqlite::Result<()> {
        if self.pinned.replace(false) {
            self.conn.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    pub(super) fn get(&self, table: &str, key: &[u8]) -> rusqlite::Result<Option<Row>> {
        let sql = match table {
            "kv" => "SELECT value FROM kv WHERE key = ?1",
            _ => "SELECT value FROM side WHERE key = ?1",
        };
        let mut statement = self.conn.prepare_cached(sql)?;
        statement
            .query_row([key], |row| Ok(Row::from(row.get_ref(0)?.as_blob()?)))
            .optional()
    }

    /// Rows with `from <= key < to`, ascending; `to` of `None` is the end.
    pub(super) fn scan(
        &self,
        table: &str,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> rusqlite::Result<Vec<(RowKey, Row)>> {
        let sql = match (table, to) {
            ("kv", Some(_)) => {
                "SELECT key, value FROM kv WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3"
            }
            ("kv", None) => {
                "SELECT key, value FROM kv WHERE key >= ?1 AND ?2 IS NULL ORDER BY key LIMIT ?3"
            }
            (_, Some(_)) => {
                "SELECT key, value FROM side WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3"
            }
            (_, None) => {
                "SELECT key, value FROM side WHERE key >= ?1 AND ?2 IS NULL ORDER BY key LIMIT ?3"
            }
        };
        let mut statement = self.conn.prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![from, to, limit], |row| {
            let key = RowKey::from(row.get_ref(0)?.as_blob()?);
            Ok((key, Row::from(row.get_ref(1)?.as_blob()?)))
        })?;
        rows.collect()
    }

    /// The keys of `side` that begin with `prefix`.
    pub(super) fn side_keys(&self, prefix: u8) -> rusqlite::Result<Vec<RowKey>> {
        let sql = "SELECT key FROM side WHERE key >= ?1 AND key < ?2 ORDER BY key";
        let mut statement = self.conn.prepare_cached(sql)?;
        let (from, to) = ([prefix], [prefix.saturating_add(1)]);
        let keys = statement.query_map([&from[..], &to[..]], |row| {
            Ok(RowKey::from(row.get_ref(0)?.as_blob()?))
        })?;
        keys.collect()
    }

    /// The last row with `from <= key < to`.
    pub(super) fn last(&self, from: &[u8], to: &[u8]) -> rusqlite::Result<Option<(RowKey, Row)>> {
        let sql =
            "SELECT key, value FROM kv WHERE key >= ?1 AND key < ?2 ORDER BY key DESC LIMIT 1";
        let mut statement = self.conn.prepare_cached(sql)?;
        statement
            .query_row([from, to], |row| {
                let key = RowKey::from(row.get_ref(0)?.as_blob()?);
                Ok((key, Row::from(row.get_ref(1)?.as_blob()?)))
            })
            .optional()
    }

    /// Puts rows into a scratch database, over those that it has.
    pub(super) fn put_aside<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a Row>)>,
    ) -> rusqlite::Result<()> {
        let transaction = self.conn.unchecked_transaction()?;
        {
            let sql = "INSERT OR REPLACE INTO aside(key, value) VALUES (?1, ?2)";
            let mut put = transaction.prepare_cached(sql)?;
            for (key, value) in rows {
                put.execute(params![key, value.map(|value| &value[..])])?;
            }
        }
        transaction.commit()
    }

    /// Up to `limit` rows of a scratch database from `from` on, ascending.
    pub(super) fn aside(
        &self,
        from: &[u8],
        limit: usize,
    ) -> rusqlite::Result<Vec<(RowKey, Option<Row>)>> {
        let sql = "SELECT key, value FROM aside WHERE key >= ?1 ORDER BY key LIMIT ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![from, limit], |row| {
            let key = RowKey::from(row.get_ref(0)?.as_blob()?);
            let value = row.get_ref(1)?.as_blob_or_null()?;
            Ok((key, value.map(Row::from)))
        })?;
        rows.collect()
    }

    /// Writes everything in one transaction; with `clear`, both tables are emptied first, except
    /// for the identity.
    pub(super) fn write<'a>(
        &self,
        kv: impl Iterator<Item = (&'a [u8], Option<&'a Row>)>,
        side: impl Iterator<Item = (&'a [u8], Option<&'a Row>)>,
        clear: bool,
    ) -> rusqlite::Result<()> {
        let transaction = self.conn.unchecked_transaction()?;
        if clear {
            transaction.execute("DELETE FROM kv", [])?;
            transaction.execute("DELETE FROM side WHERE key <> ?1", [NAME_OF_IDENTITY])?;
        }
        for (put, delete, changes) in [
            (
                "INSERT OR REPLACE INTO kv(key, value) VALUES (?1, ?2)",
                "DELETE FROM kv WHERE key = ?1",
                &mut kv.into_iter() as &mut dyn Iterator<Item = (&[u8], Option<&Row>)>,
            ),
            (
                "INSERT OR REPLACE INTO side(key, value) VALUES (?1, ?2)",
                "DELETE FROM side WHERE key = ?1",
                &mut side.into_iter(),
            ),
        ] {
            let mut put = transaction.prepare_cached(put)?;
            let mut delete = transaction.prepare_cached(delete)?;
            for (key, value) in changes {
                match value {
                    Some(value) => put.execute(params![key, &value[..]])?,
                    None => delete.execute([key])?,
                };
            }
        }
        transaction.commit()
    }
}
