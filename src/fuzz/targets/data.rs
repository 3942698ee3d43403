//! Segments and the journal.

use super::crypto::VAULT;
use super::vault::ROOM;
use super::{canonical, chosen};
use skrin_base::SegmentInfo;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::ids::{LaneId, SegmentId};
use skrin_base::wire::{Encode, Reader};
use skrin_crypto::{LocalKey, TableAad, TableKey, hash, seal};
use skrin_data::journal::record::{FileId, Framing, decode_record};
use skrin_data::segment::{Place, Table, check_frame, table_part};
use skrin_data::store::disk::DiskCache;
use skrin_data::{Journal, JournalConfig};
use std::sync::Arc;

/// The segment of all tables here.
pub const PLACE: Place = Place {
    vault: VAULT,
    room: ROOM,
    segment: SegmentId([0x81; 16]),
    author: LaneId([0x82; 16]),
    number: 7,
};
/// Seals them.
pub const TABLE_KEY: [u8; 32] = [0x83; 32];

/// A declaration that fits a sealed table, so that only the table itself can be wrong.
fn declaration(sealed: &[u8], slots: u32, object_len: u64) -> SegmentInfo {
    SegmentInfo {
        id: PLACE.segment,
        author: PLACE.author,
        number: PLACE.number,
        object_len,
        table_offset: object_len.saturating_sub(sealed.len() as u64),
        table_hash: hash(sealed),
        table_key: TABLE_KEY,
        slots,
    }
}

/// The plain text of a table, on its own and under a good seal.
pub fn segment_table(data: &[u8]) {
    let slots = canonical::<Table>(data).map_or(1, |table| {
        for slot in 0..table.entries().len() as u32 + 2 {
            let _ = (
                table.entry(slot),
                table.range(0..slot),
                table.range(slot..slot + 1),
            );
        }
        table.entries().len() as u32
    });
    let aad = TableAad {
        vault: VAULT,
        room: ROOM,
        segment: PLACE.segment,
        author: PLACE.author,
    };
    let sealed = seal(
        &TableKey::from_bytes(TABLE_KEY),
        &aad,
        data,
        &SeededEntropy::new(6),
    );
    for object_len in [sealed.len() as u64, 1 << 26] {
        let info = declaration(&sealed, slots, object_len);
        if let Ok(table) = Table::open(VAULT, ROOM, &info, &sealed) {
            assert_eq!(
                (*table.place(), table.entries().len() as u32),
                (PLACE, slots)
            );
            assert!(
                table.blocks_end() <= info.table_offset,
                "blocks lie in the table"
            );
        }
    }
}

/// A whole segment object whose declaration says where the table is: header, blocks and padding.
pub fn segment_object(data: &[u8]) {
    let Some((at, object)) = data.split_first_chunk::<4>() else {
        return;
    };
    let offset = u32::from_le_bytes(*at) as u64;
    let mut info = declaration(&[], 1, object.len() as u64);
    info.table_offset = offset;
    let Ok(sealed) = table_part(&info, object) else {
        return;
    };
    info.table_hash = hash(sealed);
    for slots in 1..4 {
        info.slots = slots;
        if let Ok(table) = Table::open(VAULT, ROOM, &info, sealed) {
            let _ = check_frame(&info, &table, object);
            for entry in 0..slots {
                let range = table.range(entry..entry + 1);
                assert!(
                    range.is_some_and(|r| r.end <= offset),
                    "a block lies outside of the object"
                );
            }
        }
    }
}

/// A record of the journal: its head, and a piece of a log file of a known key.
pub fn journal_record(data: &[u8]) {
    let mut r = Reader::new(data);
    if let Ok(record) = decode_record(&mut r) {
        let used = data.len() - r.rest().len();
        assert_eq!(
            record.to_bytes(),
            &data[..used],
            "a journal record has two encodings"
        );
    }
    let key = LocalKey::from_bytes([0x84; 32]);
    let file = FileId {
        number: 3,
        marker: [9; 8],
    };
    let framing = Framing {
        key: &key,
        vault: VAULT,
        file,
    };
    for offset in [0, 32, data.len(), usize::MAX] {
        assert!(
            framing.parse(data, offset).is_none(),
            "a forged journal record opens"
        );
    }
}

/// The key of the journals here.
pub fn journal_key() -> LocalKey {
    LocalKey::from_bytes([0x84; 32])
}

/// A directory for one journal, removed in the end; in memory where that can be had, because nothing here is about disks.
pub fn scratch() -> Option<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .ok()
}

/// A whole log file under the name that its marker belongs to: opens, whatever is in it, and what comes back is a
/// prefix of operations in order.
pub fn journal_file(data: &[u8]) {
    let Some(dir) = scratch() else {
        return;
    };
    let Some((name, _)) = crate::seeds::data::log_file() else {
        unreachable!("a journal can be made");
    };
    if std::fs::write(dir.path().join(name), data).is_err() {
        return;
    }
    let mut config = JournalConfig::new(dir.path().to_owned(), VAULT, journal_key(), 1 << 20);
    config.file_len = 1 << 16;
    let Ok((_, replay)) = Journal::open(config, Arc::new(SeededEntropy::new(11))) else {
        return;
    };
    let counters: Vec<u64> = replay.ops.iter().map(|(counter, _)| *counter).collect();
    assert!(
        counters.is_sorted(),
        "operations come back out of order: {counters:?}"
    );
}

/// An entry of the cache on the local disk, under its name or under any: whatever lies there, a block is given only as the table of
/// its segment has it.
pub fn disk_cache(data: &[u8]) {
    cached_blocks(data);
}

/// How many blocks such an entry gives.
pub fn cached_blocks(data: &[u8]) -> usize {
    let Some(scratch) = scratch() else {
        return 0;
    };
    let good = crate::seeds::data::cached_name();
    let (which, rest) = chosen(data);
    let (name, contents) = match which % 2 {
        0 => (good.clone(), rest),
        _ => {
            let name = String::from_utf8_lossy(rest.get(..80).unwrap_or(rest));
            (name.replace(['/', '\0'], "_"), crate::seeds::data::cached())
        }
    };
    let dir = scratch.path().join(&good[..2]);
    let written = std::fs::create_dir(&dir).and_then(|()| std::fs::write(dir.join(name), contents));
    if written.is_err() {
        return 0;
    }
    let Ok(cache) = DiskCache::open(scratch.path().to_owned(), 1 << 20, false) else {
        unreachable!("a cache opens, whatever is in it");
    };
    let table = crate::seeds::data::cached_table();
    let mut given = 0;
    for slot in 0..3 {
        if let Some(bytes) = cache.block(&table, slot) {
            let expected = table.entry(slot).map(|entry| entry.hash);
            given += 1;
            assert_eq!(
                Some(hash(&bytes)),
                expected,
                "a block that is not of the table"
            );
        }
    }
    if let Some(bytes) = cache.table(PLACE.segment) {
        assert_eq!(bytes, contents);
    }
    given
}
