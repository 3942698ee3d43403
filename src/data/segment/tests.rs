use super::*;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_crypto::keys::make_table_key;

fn place() -> Place {
    Place {
        vault: VaultId([1; 16]),
        room: RoomId([2; 16]),
        segment: SegmentId([3; 16]),
        author: LaneId([4; 16]),
        number: 9,
    }
}

fn entry(plain_len: u32) -> Entry {
    Entry {
        sealed_len: plain_len + 28,
        plain_len,
        flags: 0,
        hash: Hash32([plain_len as u8; 32]),
    }
}

/// A whole object with blocks of these lengths, whose bytes are the slot's number.
fn object(lens: &[u32]) -> (SegmentInfo, Vec<u8>) {
    let entropy = SeededEntropy::new(5);
    let blocks: Vec<Vec<u8>> = (1..)
        .zip(lens)
        .map(|(n, len)| vec![n; *len as usize + 28])
        .collect();
    let entries = lens.iter().zip(&blocks).map(|(len, b)| Entry {
        hash: hash(b),
        ..entry(*len)
    });
    let table = Table::new(place(), entries.collect()).unwrap();
    let key = make_table_key(&entropy);
    let sealed = table.seal(&key, &entropy);
    let info = declare(&table, &key, &sealed);
    let mut object = Vec::new();
    begin_object(&mut object, &info);
    blocks.iter().for_each(|b| object.extend_from_slice(b));
    finish_object(&mut object, &info, &sealed);
    (info, object)
}

fn read(info: &SegmentInfo, object: &[u8]) -> Result<Table, Flaw> {
    let sealed = table_part(info, object)?;
    let table = Table::open(VaultId([1; 16]), RoomId([2; 16]), info, sealed)?;
    check_frame(info, &table, object)?;
    for slot in 0..info.slots {
        let range = table.range(slot..slot + 1).unwrap();
        let bytes = &object[range.start as usize..range.end as usize];
        if hash(bytes) != table.entry(slot).unwrap().hash {
            return Err(Flaw::Hash);
        }
    }
    Ok(table)
}

#[test]
fn the_worked_example_of_the_specification_holds() {
    let (info, object) = object(&[100, 65_536]);
    assert_eq!(info.object_len, 262_144);
    assert_eq!(info.table_offset, 261_949);
    assert_eq!(object.len() as u64, info.object_len);
    let table = read(&info, &object).unwrap();
    assert_eq!(table.range(0..1), Some(16..144));
    assert_eq!(table.range(1..2), Some(144..65_708));
    assert_eq!(table.range(0..2), Some(16..65_708));
    assert_eq!(table.range(0..3), None);
    assert_eq!(table.blocks_end(), 65_708);
    assert_eq!(table.entry(2), None);
}

#[test]
fn padme_follows_the_paper() {
    for (n, padded) in [
        (0, 0),
        (1, 1),
        (2, 2),
        (9, 10),
        (1000, 1024),
        (1025, 1088),
        (8 << 20, 8 << 20),
    ] {
        assert_eq!(padme(n), padded, "{n}");
    }
    for n in (1..5_000_000).step_by(997) {
        let padded = padme(n);
        assert!(
            padded >= n && padded - n <= n * 12 / 100 + 1,
            "{n} -> {padded}"
        );
        assert_eq!(padme(padded), padded, "padding twice changes nothing");
    }
    assert!(padme(u64::MAX) > 0, "no overflow");
}

#[test]
fn a_full_segment_of_whole_blocks_costs_less_than_one_percent() {
    let sealed = BLOCK_LEN + SEAL_OVERHEAD;
    let mut slots = 0;
    while has_room(slots * sealed, slots, sealed) {
        slots += 1;
    }
    assert_eq!(slots, 127);
    let len = object_len(slots * sealed, slots);
    assert_eq!(len, SEGMENT_TARGET as u64);
    assert!((len as f64) < 1.01 * (slots * BLOCK_LEN) as f64);
}

#[test]
fn flipping_any_region_of_an_object_is_noticed() {
    let (info, object) = object(&[100, 3000, 65_536, 1]);
    let end = object.len();
    let table = info.table_offset as usize;
    let around = |at: usize| at.saturating_sub(40)..(at + 40).min(end);
    let regions = [
        0..200,
        around(3172),
        around(68_764),
        around(table),
        around(end),
        table - 5000..table - 4990,
    ];
    for at in regions.into_iter().flatten() {
        let mut bad = object.clone();
        bad[at] ^= 1;
        assert!(read(&info, &bad).is_err(), "byte {at}");
    }
    assert!(read(&info, &object[..end - 1]).is_err(), "cut short");
}

#[test]
fn a_table_of_another_place_is_refused() {
    let (info, object) = object(&[10]);
    let sealed = table_part(&info, &object).unwrap();
    let (vault, room) = (VaultId([1; 16]), RoomId([2; 16]));
    assert!(Table::open(vault, room, &info, sealed).is_ok());
    assert_eq!(
        Table::open(VaultId([9; 16]), room, &info, sealed),
        Err(Flaw::Seal)
    );
    assert_eq!(
        Table::open(vault, RoomId([9; 16]), &info, sealed),
        Err(Flaw::Seal)
    );
    let change = |f: fn(&mut SegmentInfo)| {
        let mut other = info.clone();
        f(&mut other);
        Table::open(vault, room, &other, sealed)
    };
    assert_eq!(change(|i| i.id = SegmentId([9; 16])), Err(Flaw::Seal));
    assert_eq!(change(|i| i.author = LaneId([9; 16])), Err(Flaw::Seal));
    assert_eq!(change(|i| i.table_key = [9; 32]), Err(Flaw::Seal));
    assert_eq!(change(|i| i.number = 10), Err(Flaw::Place));
    assert!(matches!(change(|i| i.slots = 2), Err(Flaw::Table(_))));
    assert!(matches!(
        change(|i| i.table_offset = 30),
        Err(Flaw::Table(_))
    ));
    assert_eq!(change(|i| i.table_hash = Hash32([0; 32])), Err(Flaw::Hash));
}

#[test]
fn entries_that_break_the_format_are_refused() {
    let good = entry(100);
    let bad = [
        Entry {
            sealed_len: 28,
            plain_len: 0,
            ..good
        },
        Entry {
            sealed_len: 129,
            ..good
        },
        Entry {
            flags: FLAG_ZSTD,
            ..good
        },
        Entry { flags: 2, ..good },
        Entry {
            plain_len: 65_537,
            sealed_len: 65_565,
            ..good
        },
        Entry {
            sealed_len: 0,
            ..good
        },
        Entry {
            hash: Hash32([1; 32]),
            ..Entry::VOID
        },
    ];
    for entry in bad {
        assert!(Table::new(place(), vec![entry]).is_err(), "{entry:?}");
        assert!(Entry::from_bytes(&entry.to_bytes()).is_err(), "{entry:?}");
    }
    let packed = Entry {
        flags: FLAG_ZSTD,
        sealed_len: 127,
        ..good
    };
    assert!(Table::new(place(), vec![packed, Entry::VOID]).is_ok());
    assert!(Table::new(place(), vec![]).is_err());
    assert!(
        Table::new(place(), vec![entry(65_536); 1024]).is_err(),
        "longer than any segment"
    );
}

#[test]
fn a_void_slot_takes_no_room_and_cannot_be_read() {
    let table = Table::new(place(), vec![entry(5), Entry::VOID, entry(6)]).unwrap();
    assert_eq!(table.range(1..2), Some(49..49));
    assert_eq!(table.entry(1), None);
    assert_eq!(table.range(2..3), Some(49..83));
    assert_eq!(Table::from_bytes(&table.to_bytes()), Ok(table));
}

#[test]
fn tables_of_other_versions_and_critical_features_are_refused() {
    let bytes = Table::new(place(), vec![entry(5)]).unwrap().to_bytes();
    assert_eq!(bytes.len(), TABLE_FIXED_LEN + ENTRY_LEN);
    for at in [0, 1, 4] {
        let mut other = bytes.clone();
        other[at] ^= 2;
        assert!(Table::from_bytes(&other).is_err(), "byte {at}");
    }
    let mut optional = bytes.clone();
    optional[8] ^= 2;
    let table = Table::from_bytes(&optional).unwrap();
    assert_eq!(
        table.to_bytes(),
        optional,
        "an unknown optional feature is kept"
    );
    let mut long = bytes.clone();
    long.push(0);
    assert!(Table::from_bytes(&long).is_err());
    for cut in 0..bytes.len() {
        assert!(Table::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn decoding_noise_never_panics() {
    let entropy = SeededEntropy::new(77);
    let good = Table::new(place(), vec![entry(5); 3]).unwrap().to_bytes();
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        let [a, b, c, _] = (entropy.u64() as u32).to_le_bytes();
        let at = usize::from(a) % bytes.len();
        bytes[at] = b;
        bytes.truncate(usize::from(c) + 1);
        if let Ok(table) = Table::from_bytes(&bytes) {
            assert_eq!(table.to_bytes(), bytes, "one encoding only");
        }
    }
}

#[test]
fn objects_are_named_by_their_id() {
    let name = object_name(SegmentId([0xa1; 16])).unwrap();
    assert_eq!(name.as_str(), format!("segments/a1/{}", "a1".repeat(16)));
}
