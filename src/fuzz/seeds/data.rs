//! Tables, segments, journal records.

use super::choose;
use crate::targets::crypto::VAULT;
use crate::targets::data::{PLACE, TABLE_KEY, journal_key, scratch};
use crate::targets::vault::ROOM;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::ids::Hash32;
use skrin_base::wire::Encode;
use skrin_crypto::{TableKey, hash};
use skrin_data::journal::record::Record;
use skrin_data::segment::{Entry, Table, header};
use skrin_data::store::disk::DiskCache;
use skrin_data::{Journal, JournalConfig};
use std::sync::{Arc, LazyLock};

fn entry(len: u32) -> Entry {
    Entry {
        sealed_len: len + 28,
        plain_len: len,
        flags: 0,
        hash: hash(&vec![1; len as usize + 28]),
    }
}

fn table(entries: Vec<Entry>) -> Table {
    match Table::new(PLACE, entries) {
        Ok(table) => table,
        Err(error) => unreachable!("a good table: {error}"),
    }
}

fn some_tables() -> Vec<Table> {
    let packed = Entry {
        flags: 1,
        plain_len: 65_536,
        ..entry(40)
    };
    vec![
        table(vec![entry(1)]),
        table(vec![entry(100), Entry::VOID, packed]),
        table(vec![entry(65_536); 12]),
    ]
}

/// For `targets::data::segment_table`.
pub fn tables() -> Vec<Vec<u8>> {
    some_tables().iter().map(Encode::to_bytes).collect()
}

/// For `targets::data::segment_object`: the offset of the table, then the object, with little padding.
pub fn objects() -> Vec<Vec<u8>> {
    let object = |table: Table| {
        let sealed = table.seal(&TableKey::from_bytes(TABLE_KEY), &SeededEntropy::new(8));
        let mut object = header().to_vec();
        object.resize(table.blocks_end() as usize, 1);
        object.resize(object.len() + 9, 0);
        let offset = object.len() as u32;
        object.extend_from_slice(&sealed);
        [&offset.to_le_bytes()[..], &object].concat()
    };
    some_tables().into_iter().take(2).map(object).collect()
}

/// For `targets::data::journal_record`.
pub fn records() -> Vec<Vec<u8>> {
    let (segment, lane) = (PLACE.segment, PLACE.author);
    let records = [
        Record::Start {
            previous: None,
            released: 9,
            lanes: vec![(lane, 1024)],
        },
        Record::Op {
            counter: 12,
            settles: Some(77),
            bytes: b"rename",
        },
        Record::Edits {
            number: 77,
            bytes: b"at 5: x",
        },
        Record::Settled { number: 77 },
        Record::Begin {
            room: ROOM,
            segment,
            author: lane,
            number: 5,
            table_key: [7; 32],
        },
        Record::Block {
            segment,
            slot: 8,
            entry: entry(50),
        },
        Record::Close {
            segment,
            slots: 9,
            table_hash: Hash32([1; 32]),
        },
        Record::Durable { segment },
        Record::Declared { segment },
        Record::Released { counter: 3 },
        Record::Reserve { lane, until: 2048 },
        Record::Again {
            room: ROOM,
            segment,
            author: lane,
            number: 5,
            table_key: [7; 32],
        },
    ];
    let marked = [
        &[9; 8][..],
        &60u32.to_le_bytes(),
        &[0; 4],
        VAULT.as_bytes(),
        &[0; 60],
    ]
    .concat();
    records
        .iter()
        .map(Encode::to_bytes)
        .chain([marked])
        .collect()
}

/// The table of the entries of `cache_entries`.
pub fn cached_table() -> Table {
    table(vec![entry(100), entry(7)])
}

/// The file name of such an entry in the cache, for both slots of the table.
pub fn cached_name() -> String {
    format!("{}.0-2", PLACE.segment)
}

static CACHED: LazyLock<Option<Vec<u8>>> = LazyLock::new(|| {
    let dir = scratch()?;
    let cache = DiskCache::open(dir.path().to_owned(), 1 << 20, false).ok()?;
    let blocks = vec![
        1;
        cached_table()
            .entries()
            .iter()
            .map(|e| e.sealed_len as usize)
            .sum()
    ];
    cache.put(PLACE.segment, 0..2, &blocks);
    let name = cached_name();
    std::fs::read(dir.path().join(&name[..2]).join(&name)).ok()
});

/// An entry of the disk cache as the program writes it.
pub fn cached() -> &'static [u8] {
    match &*CACHED {
        Some(bytes) => bytes,
        None => unreachable!("the cache can be written"),
    }
}

/// For `targets::data::disk_cache`: contents of an entry, and names of one.
pub fn cache_entries() -> Vec<Vec<u8>> {
    let name = cached_name();
    let table = name.replace("0-2", "table");
    vec![
        choose(0, cached()),
        choose(1, name.as_bytes()),
        choose(1, table.as_bytes()),
    ]
}

static LOG: LazyLock<Option<(String, Vec<u8>)>> = LazyLock::new(|| {
    let dir = scratch()?;
    let mut config = JournalConfig::new(dir.path().to_owned(), VAULT, journal_key(), 1 << 20);
    config.file_len = 1 << 16;
    let (journal, _) = Journal::open(config, Arc::new(SeededEntropy::new(10))).ok()?;
    for counter in 1..6 {
        let lsn = journal
            .append_op(counter, &vec![counter as u8; 100 * counter as usize], None)
            .ok()?;
        if counter < 4 {
            journal.sync(lsn).ok()?;
        }
    }
    journal.close().ok()?;
    let logs = std::fs::read_dir(dir.path()).ok()?.flatten();
    let mut logs = logs.filter(|file| file.file_name().to_string_lossy().ends_with(".log"));
    let file = logs.next()?;
    Some((
        file.file_name().into_string().ok()?,
        std::fs::read(file.path()).ok()?,
    ))
});

/// Name and bytes of a log file of five operations.
pub fn log_file() -> Option<&'static (String, Vec<u8>)> {
    LOG.as_ref()
}

/// For `targets::data::journal_file`, without the empty rest of the file.
pub fn log_files() -> Vec<Vec<u8>> {
    let Some((_, bytes)) = log_file() else {
        unreachable!("a journal can be made");
    };
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    vec![bytes[..used].to_vec(), bytes[..used / 2].to_vec()]
}
