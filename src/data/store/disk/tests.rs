use super::*;
use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
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

#[test]
fn a_part_of_the_cache_that_cannot_be_read_is_done_without() {
    let dir = TempDir::new().unwrap();
    let cache = DiskCache::open(dir.path().to_owned(), 1 << 20, false).unwrap();
    cache.put(SEGMENT, 0..10, &[1; 900]);
    drop(cache);
    // Directories deeper than a path may be long: they have to be made step by step, and not even root can list the last ones.
    let name = "n".repeat(200);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut last = open(dir.path(), flags, Mode::empty()).unwrap();
    for _ in 0..25 {
        mkdirat(&last, name.as_str(), Mode::RWXU).unwrap();
        last = openat(&last, name.as_str(), flags, Mode::empty()).unwrap();
    }
    let again = DiskCache::open(dir.path().to_owned(), 1 << 20, false).unwrap();
    assert_eq!(again.index.lock().total, 900 + HEADER_LEN as u64);
}

#[test]
fn a_table_that_somebody_removed_is_not_called_here_once_it_was_missed() {
    let dir = TempDir::new().unwrap();
    let cache = DiskCache::open(dir.path().to_owned(), 1 << 20, false).unwrap();
    cache.put_table(SEGMENT, &[1; 100]);
    assert!(cache.has_table(SEGMENT));
    std::fs::remove_file(cache.path(SEGMENT, Kind::Table)).unwrap();
    assert_eq!(cache.table(SEGMENT), None);
    assert!(!cache.has_table(SEGMENT));
    // So it can be kept again.
    cache.put_table(SEGMENT, &[2; 100]);
    assert_eq!(cache.table(SEGMENT), Some(vec![2; 100]));
}
