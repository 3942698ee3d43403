use super::*;
use tempfile::TempDir;

const SEGMENT: SegmentId = SegmentId([0xcd; 16]);

#[test]
fn names_of_entries_come_back_and_others_are_ignored() {
    for kind in [Kind::Table, Kind::Slots(0, 1), Kind::Slots(17, 65_536)] {
        assert_eq!(parse_name(&file_name(SEGMENT, kind)), Some((SEGMENT, kind)));
    }
    for bad in ["", "x", "abc.table", "cdcd.0-1", ".1-2"] {
        assert_eq!(parse_name(bad), None);
    }
    assert_eq!(parse_name(&format!("{SEGMENT}.one-2")), None);
}

#[test]
fn the_least_recently_used_entry_goes_first() {
    let dir = TempDir::new().unwrap();
    let cache = DiskCache::open(dir.path().to_owned(), 4000, false).unwrap();
    for first in 0..3 {
        cache.put(SEGMENT, first..first + 1, &[1; 1000 - HEADER_LEN]);
    }
    assert!(
        cache
            .index
            .lock()
            .touch(SEGMENT, Kind::Slots(0, 1))
            .is_some()
    );
    for first in 3..5 {
        cache.put(SEGMENT, first..first + 1, &[1; 1000 - HEADER_LEN]);
    }
    let held = |slot| {
        cache
            .index
            .lock()
            .find(SEGMENT, Kind::Slots(slot, slot + 1))
            .is_some()
    };
    assert_eq!([0, 1, 2, 3, 4].map(held), [true, false, true, true, true]);
    assert!(!cache.path(SEGMENT, Kind::Slots(1, 2)).exists());
}

#[test]
fn a_range_replaces_those_inside_it_and_is_not_written_twice() {
    let dir = TempDir::new().unwrap();
    let cache = DiskCache::open(dir.path().to_owned(), 1 << 20, false).unwrap();
    cache.put(SEGMENT, 3..5, &[1; 100]);
    cache.put(SEGMENT, 0..10, &[1; 900]);
    cache.put(SEGMENT, 4..6, &[1; 100]);
    assert_eq!(cache.index.lock().total, 900 + HEADER_LEN as u64);
    assert!(!cache.path(SEGMENT, Kind::Slots(3, 5)).exists());
    assert!(!cache.path(SEGMENT, Kind::Slots(4, 6)).exists());
    drop(cache);
    let again = DiskCache::open(dir.path().to_owned(), 1 << 20, false).unwrap();
    assert_eq!(again.index.lock().total, 900 + HEADER_LEN as u64);
    drop(again);
    let smaller = DiskCache::open(dir.path().to_owned(), 100, false).unwrap();
    assert_eq!(smaller.index.lock().total, 0, "a lower bound holds at once");
}
