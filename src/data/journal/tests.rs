use super::record::{FILE_HEADER_LEN, FileId};
use super::*;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::ids::RoomId;
use skrin_crypto::hash;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const SEGMENT: SegmentId = SegmentId([3; 16]);

fn config(dir: &Path, file_len: u32) -> JournalConfig {
    JournalConfig {
        file_len,
        patience: Duration::from_millis(20),
        ..JournalConfig::new(
            dir.to_owned(),
            VaultId([1; 16]),
            LocalKey::from_bytes([2; 32]),
            1 << 20,
        )
    }
}

fn open_seeded(dir: &Path, file_len: u32, seed: u64) -> (Journal, Replay) {
    Journal::open(config(dir, file_len), Arc::new(SeededEntropy::new(seed))).unwrap()
}

/// Each opening draws other random bytes, as the operating system's would be.
fn open(dir: &Path) -> (Journal, Replay) {
    let seed = fs::read_dir(dir).map_or(0, |d| d.count() as u64);
    open_seeded(dir, 64 << 10, 1000 + seed)
}

fn place(segment: SegmentId) -> Place {
    Place {
        vault: VaultId([1; 16]),
        room: RoomId([4; 16]),
        segment,
        author: LaneId([5; 16]),
        number: 1,
    }
}

fn sealed(seed: u8, len: usize) -> (Entry, Bytes) {
    let bytes = vec![seed; len + 28];
    let entry = Entry {
        sealed_len: len as u32 + 28,
        plain_len: len as u32,
        flags: 0,
        hash: hash(&bytes),
    };
    (entry, bytes.into())
}

/// Drops a journal as a killed process would: what was not written is gone.
fn kill(journal: Journal) {
    drop(journal);
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let found = file::list(dir).unwrap();
    found.logs.into_iter().map(|(_, path)| path).collect()
}

fn ops(replay: &Replay) -> Vec<u64> {
    replay.ops.iter().map(|(counter, _)| *counter).collect()
}

#[test]
fn what_was_synced_comes_back_in_order() {
    let dir = TempDir::new().unwrap();
    let (journal, replay) = open(dir.path());
    assert!(replay.ops.is_empty() && replay.findings.is_empty());
    for counter in 1..=5 {
        journal
            .append_op(counter, &[counter as u8; 10], None)
            .unwrap();
    }
    journal.append_begin(&place(SEGMENT), &[6; 32]).unwrap();
    let (entry, bytes) = sealed(7, 100);
    let block = journal
        .append_block(SEGMENT, 2, entry, bytes.clone())
        .unwrap();
    journal.sync(block.lsn).unwrap();
    journal.append_op(6, b"never synced", None).unwrap();
    kill(journal);

    for _ in 0..2 {
        let (journal, replay) = open(dir.path());
        assert_eq!(ops(&replay), [1, 2, 3, 4, 5]);
        assert_eq!(replay.ops[3].1, [4; 10]);
        assert_eq!(replay.findings, []);
        let [segment] = &replay.segments[..] else {
            panic!("one segment")
        };
        assert_eq!(segment.begun, Some((place(SEGMENT), [6; 32])));
        assert_eq!(segment.slots[..2], [None, None]);
        let (found, pos) = segment.slots[2].unwrap();
        assert_eq!(found, entry);
        assert_eq!(journal.read(pos).unwrap().unwrap(), bytes);
        assert!(!segment.durable && segment.closed.is_none());
    }
}

#[test]
fn a_flushed_record_survives_the_process_but_promises_nothing_more() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    journal.append_op(1, b"x", None).unwrap();
    journal.flush().unwrap();
    kill(journal);
    assert_eq!(ops(&open(dir.path()).1), [1]);
}

#[test]
fn a_torn_tail_is_dropped_at_every_byte_of_the_last_record() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    journal.append_begin(&place(SEGMENT), &[6; 32]).unwrap();
    let good = journal.append_op(1, b"kept", None).unwrap();
    journal.sync(good).unwrap();
    let (entry, bytes) = sealed(7, 300);
    let last = journal.append_block(SEGMENT, 0, entry, bytes).unwrap().lsn;
    journal.flush().unwrap();
    kill(journal);
    let [path] = &logs(dir.path())[..] else {
        panic!("one file")
    };
    let whole = fs::read(path).unwrap();
    let (start, end) = (good.offset() as usize, last.offset() as usize);
    assert!(end - start > 300);
    for cut in start..end {
        for fill in [0u8, 0xff] {
            let mut torn = whole.clone();
            torn[cut..].fill(fill);
            check_torn(&torn, path, start, cut > start + 8);
        }
        check_torn(&whole[..cut], path, start, cut > start + 8);
    }
}

/// The torn file as the only one in a directory: everything up to `start` comes back, twice.
fn check_torn(torn: &[u8], path: &Path, start: usize, begun: bool) {
    let dir = TempDir::new().unwrap();
    let copy = dir.path().join(path.file_name().unwrap());
    fs::write(&copy, torn).unwrap();
    let (journal, replay) = open(dir.path());
    assert_eq!(ops(&replay), [1]);
    assert!(replay.segments[0].slots.is_empty());
    let finding = Finding::TornTail {
        file: copy.clone(),
        offset: start as u64,
    };
    assert!(!begun || replay.findings == [finding]);
    assert_eq!(
        fs::metadata(&copy).unwrap().len(),
        start as u64,
        "cut off for good"
    );
    let lsn = journal.append_op(2, b"after the crash", None).unwrap();
    journal.sync(lsn).unwrap();
    kill(journal);
    let (_, again) = open(dir.path());
    assert_eq!(ops(&again), [1, 2]);
    assert_eq!(again.findings, [], "no trace of the torn tail is left");
}

#[test]
fn damage_in_what_was_synced_is_reported_and_the_rest_is_kept() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    let mut ends = vec![];
    for counter in 1..=4 {
        let lsn = journal.append_op(counter, b"some operation", None).unwrap();
        journal.sync(lsn).unwrap();
        ends.push(lsn.offset() as usize);
    }
    kill(journal);
    let [path] = &logs(dir.path())[..] else {
        panic!("one file")
    };
    let whole = fs::read(path).unwrap();
    for at in ends[0]..ends[1] {
        let mut bad = whole.clone();
        bad[at] ^= 0x40;
        let dir = TempDir::new().unwrap();
        let copy = dir.path().join(path.file_name().unwrap());
        fs::write(&copy, bad).unwrap();
        let (_, replay) = open(dir.path());
        assert_eq!(ops(&replay), [1, 3, 4], "byte {at}");
        let (offset, end) = (ends[0] as u64, ends[1] as u64);
        assert_eq!(
            replay.findings,
            [Finding::Corrupt {
                file: copy,
                offset,
                end
            }]
        );
    }
}

#[test]
fn pages_of_an_unsynced_tail_that_arrive_out_of_order_are_no_damage() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    let first = journal.append_op(1, b"synced", None).unwrap();
    journal.sync(first).unwrap();
    journal.append_op(2, b"lost by the disk", None).unwrap();
    journal.append_op(3, b"written by the disk", None).unwrap();
    journal.flush().unwrap();
    kill(journal);
    let [path] = &logs(dir.path())[..] else {
        panic!("one file")
    };
    let mut bytes = fs::read(path).unwrap();
    bytes[first.offset() as usize..][..40].fill(0);
    fs::write(path, bytes).unwrap();
    let (_, replay) = open(dir.path());
    assert_eq!(ops(&replay), [1], "what follows a gap was never promised");
    assert_eq!(replay.findings, []);
}

#[test]
fn the_header_of_a_file_is_only_for_people() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    journal.append_op(1, b"x", None).unwrap();
    journal.sync_all().unwrap();
    kill(journal);
    let [path] = &logs(dir.path())[..] else {
        panic!("one file")
    };
    let mut bytes = fs::read(path).unwrap();
    bytes[..FILE_HEADER_LEN].fill(0xee);
    fs::write(path, bytes).unwrap();
    assert_eq!(ops(&open(dir.path()).1), [1]);
}

#[test]
fn the_log_goes_on_in_new_files_and_released_ones_are_used_again() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    let op = vec![1; 10_000];
    for counter in 1..=100 {
        let lsn = journal.append_op(counter, &op, None).unwrap();
        journal.sync(lsn).unwrap();
        if counter % 10 == 0 {
            journal.release(counter - 3, &[]).unwrap();
        }
    }
    assert!(
        journal.allocated() < 5 * (80 << 10),
        "{}",
        journal.allocated()
    );
    kill(journal);
    let (journal, replay) = open(dir.path());
    assert_eq!(
        replay.released, 87,
        "the last mark was never synced: the operations come once more"
    );
    let back = ops(&replay);
    assert!(
        (88..=98).contains(&back[0]),
        "what still stands in a file comes once more"
    );
    assert_eq!(back, (back[0]..=100).collect::<Vec<_>>());
    assert_eq!(
        replay.findings,
        [],
        "remains of an earlier life are no torn record"
    );
    journal.release(100, &[]).unwrap();
    journal.append_op(101, &op, None).unwrap();
    journal.close().unwrap();
    assert!(matches!(
        journal.append_op(102, &op, None),
        Err(DataError::Stopped)
    ));
    kill(journal);
    let (_, replay) = open(dir.path());
    assert_eq!(ops(&replay), [101]);
    let size: u64 = logs(dir.path())
        .iter()
        .map(|p| fs::metadata(p).unwrap().len())
        .sum();
    assert!(size < 130_000, "unused room was given back: {size}");
}

#[test]
fn damage_at_the_end_of_a_file_that_has_a_successor_is_noticed() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    for counter in 1..=8 {
        journal.append_op(counter, &[9; 20_000], None).unwrap();
    }
    journal.sync_all().unwrap();
    kill(journal);
    let paths = logs(dir.path());
    assert!(paths.len() > 2);
    let mut bytes = fs::read(&paths[0]).unwrap();
    let at = bytes.iter().rposition(|b| *b != 0).unwrap();
    bytes[at] ^= 1;
    fs::write(&paths[0], bytes).unwrap();
    let (journal, replay) = open(dir.path());
    assert_eq!(ops(&replay), [1, 2, 4, 5, 6, 7, 8]);
    let [Finding::Corrupt { file, .. }] = &replay.findings[..] else {
        panic!("{:?}", replay.findings)
    };
    assert_eq!(file, &paths[0]);
    kill(journal);
    fs::remove_file(&paths[1]).unwrap();
    let (_, replay) = open(dir.path());
    assert!(
        replay
            .findings
            .contains(&Finding::MissingFile { number: 2 })
    );
}

#[test]
fn blocks_wait_for_room_and_are_then_refused_but_operations_are_not() {
    let dir = TempDir::new().unwrap();
    let small = JournalConfig {
        max_bytes: 150 << 10,
        ..config(dir.path(), 64 << 10)
    };
    let (journal, _) = Journal::open(small, Arc::new(SeededEntropy::new(1))).unwrap();
    journal.append_begin(&place(SEGMENT), &[6; 32]).unwrap();
    let mut accepted = 0;
    let full = loop {
        let (entry, bytes) = sealed(1, 20_000);
        let admitted = journal.admit(bytes.len(), Room::Wait);
        match admitted.and_then(|()| journal.append_block(SEGMENT, accepted, entry, bytes)) {
            Ok(_) => accepted += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(accepted, 6);
    assert!(matches!(full, DataError::Full { .. }), "{full}");
    journal.append_op(1, &[0; 30_000], None).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (0..500).find(|_| journal.admit(60_000, Room::Wait).is_ok()));
        std::thread::sleep(Duration::from_millis(30));
        journal.release(1, &[SEGMENT]).unwrap();
        assert!(waiting.join().unwrap().is_some(), "releasing makes room");
    });
}

#[test]
fn what_finds_no_room_is_refused_at_once_unless_somebody_says_otherwise() {
    let dir = TempDir::new().unwrap();
    let new = JournalConfig::new(
        dir.path().to_owned(),
        VaultId([1; 16]),
        LocalKey::from_bytes([2; 32]),
        16 << 10,
    );
    assert_eq!(new.patience, Duration::ZERO);
    let small = JournalConfig {
        file_len: 16 << 10,
        ..new
    };
    let (journal, _) = Journal::open(small, Arc::new(SeededEntropy::new(1))).unwrap();
    let full = (1..).find_map(|counter| journal.append_op(counter, &[0; 5_000], None).err());
    assert!(matches!(full, Some(DataError::Full { .. })), "{full:?}");
}

#[test]
fn many_threads_that_wait_for_a_sync_all_get_one() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let journal = &journal;
            scope.spawn(move || {
                for i in 0..50 {
                    let lsn = journal
                        .append_op(thread * 1000 + i + 1, &[thread as u8; 500], None)
                        .unwrap();
                    journal.sync(lsn).unwrap();
                }
            });
        }
    });
    kill(journal);
    let (_, replay) = open(dir.path());
    let mut found: HashMap<u64, Vec<u64>> = HashMap::new();
    for (counter, bytes) in &replay.ops {
        assert!(bytes.iter().all(|b| u64::from(*b) == counter / 1000));
        found.entry(counter / 1000).or_default().push(*counter);
    }
    assert_eq!(found.len(), 8);
    for (thread, counters) in found {
        assert_eq!(
            counters,
            (thread * 1000 + 1..=thread * 1000 + 50).collect::<Vec<_>>()
        );
    }
}

#[test]
fn segment_numbers_are_never_given_out_twice() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (LaneId([1; 16]), LaneId([2; 16]));
    let mut next = 0;
    for round in 0..40u64 {
        let (journal, replay) = open_seeded(dir.path(), 16 << 10, round);
        assert_eq!(replay.numbers.get(&a).copied().unwrap_or(0), next);
        let range = journal.reserve(a).unwrap();
        assert_eq!(range.start, next);
        next = range.end;
        assert_eq!(journal.reserve(a).unwrap().start, next);
        next += NUMBERS_AT_ONCE;
        journal.reserve(b).unwrap();
        // Enough to begin new files and give up old ones.
        let lsn = journal.append_op(round + 1, &[0; 9000], None).unwrap();
        journal.sync(lsn).unwrap();
        journal.release(round + 1, &[]).unwrap();
        kill(journal);
    }
    assert!(logs(dir.path()).len() < 6);
}

/// As the power leaves a file that was just begun.
fn begun_and_empty(dir: &Path, number: u32) {
    let id = FileId {
        number,
        marker: [7; 8],
    };
    fs::write(dir.join(id.file_name()), [0; 16 << 10]).unwrap();
}

fn number(path: &Path) -> u32 {
    FileId::parse(path.file_name().unwrap().to_str().unwrap())
        .unwrap()
        .number
}

/// A seed of the simulation (1795765700122 of `past`): the power failed when a file was begun, and the next run let go of the one before it.
#[test]
fn a_file_that_was_begun_and_holds_nothing_lets_go_of_no_other() {
    let dir = TempDir::new().unwrap();
    let lane = LaneId([1; 16]);
    let (journal, _) = open(dir.path());
    let used = journal.reserve(lane).unwrap();
    let lsn = journal.append_op(1, &[1; 10], None).unwrap();
    journal.sync(lsn).unwrap();
    journal.release(1, &[]).unwrap();
    journal.flush().unwrap();
    kill(journal);
    begun_and_empty(dir.path(), 2);
    let (journal, _) = open(dir.path());
    journal.release(2, &[]).unwrap();
    let kept = logs(dir.path());
    assert_eq!(number(&kept[0]), 1);
    kill(journal);
    // What is not synced may be lost with the power: here all files of this run are.
    for path in kept.iter().filter(|path| number(path) > 2) {
        fs::remove_file(path).unwrap();
    }
    let (journal, _) = open(dir.path());
    assert_eq!(journal.reserve(lane).unwrap().start, used.end);
    // Once a file of this run is on stable storage, it stands for all before it.
    journal.release(3, &[]).unwrap();
    assert_eq!(logs(dir.path()).len(), 1);
}

/// The bound would let no writer begin the file with which those of earlier runs go.
#[test]
fn files_of_earlier_runs_that_nobody_needs_keep_nobody_waiting() {
    for second_is_needed in [false, true] {
        let dir = TempDir::new().unwrap();
        let (journal, _) = open_seeded(dir.path(), 16 << 10, 1);
        journal.append_op(1, &[1; 11_000], None).unwrap();
        if second_is_needed {
            journal.append_op(2, &[1; 11_000], None).unwrap();
        }
        journal.release(1, &[]).unwrap();
        journal.flush().unwrap();
        kill(journal);
        begun_and_empty(dir.path(), 2 + u32::from(second_is_needed));
        let tight = JournalConfig {
            max_bytes: 16 << 10,
            patience: Duration::ZERO,
            ..config(dir.path(), 16 << 10)
        };
        let (journal, _) = Journal::open(tight, Arc::new(SeededEntropy::new(9))).unwrap();
        journal.admit(100, Room::Wait).unwrap();
    }
}

/// One of the syncs may be the last thing that happens.
struct GivenUp {
    dir: PathBuf,
    left: std::cell::RefCell<Vec<usize>>,
}

impl skrin_storage::disk::watch::Watch for GivenUp {
    fn file(&self, _: &Path, _: bool) {}

    fn dir(&self, _: &Path, done: bool) {
        if done {
            self.left.borrow_mut().push(logs(&self.dir).len());
        }
    }
}

#[test]
fn the_name_of_a_file_is_gone_for_good_before_the_next_one_goes() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open_seeded(dir.path(), 16 << 10, 1);
    for counter in 1..=5 {
        journal.append_op(counter, &[1; 11_000], None).unwrap();
    }
    journal.sync_all().unwrap();
    assert_eq!(logs(dir.path()).len(), 5);
    let watch = std::rc::Rc::new(GivenUp {
        dir: dir.path().to_owned(),
        left: Vec::new().into(),
    });
    let _watched = skrin_storage::disk::watch::install(watch.clone());
    journal.release(4, &[]).unwrap();
    assert_eq!(*watch.left.borrow(), [4, 3, 2, 1]);
}

#[test]
fn a_file_that_cannot_be_given_up_is_given_up_later_and_those_behind_it_stay() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open_seeded(dir.path(), 16 << 10, 1);
    for counter in 1..=4 {
        journal.append_op(counter, &[1; 11_000], None).unwrap();
    }
    journal.sync_all().unwrap();
    let in_the_way = logs(dir.path())[0].with_extension("spare");
    fs::create_dir(&in_the_way).unwrap();
    assert!(journal.release(3, &[]).is_err());
    assert_eq!(logs(dir.path()).len(), 4);
    fs::remove_dir(&in_the_way).unwrap();
    journal.release(3, &[]).unwrap();
    assert_eq!(logs(dir.path()).len(), 1);
}

/// Each mount opens a lane, and each file repeats what is known of lanes.
#[test]
fn numbers_of_lanes_that_were_left_are_forgotten() {
    let dir = TempDir::new().unwrap();
    for lane in 0..20u8 {
        let (journal, replay) = open(dir.path());
        assert!(replay.numbers.len() <= 2);
        journal.only(LaneId([lane; 16]), 0);
        journal.reserve(LaneId([lane; 16])).unwrap();
        kill(journal);
    }
}

#[test]
fn a_released_block_is_gone_rather_than_wrong() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    journal.append_begin(&place(SEGMENT), &[6; 32]).unwrap();
    let (entry, bytes) = sealed(7, 30_000);
    let block = journal.append_block(SEGMENT, 0, entry, bytes).unwrap();
    journal.sync_all().unwrap();
    assert!(journal.read(block.payload).unwrap().is_some());
    journal.release(0, &[SEGMENT]).unwrap();
    for counter in 1..=12 {
        let lsn = journal.append_op(counter, &[0; 20_000], None).unwrap();
        journal.sync(lsn).unwrap();
        journal.release(counter, &[]).unwrap();
    }
    assert_eq!(journal.read(block.payload).unwrap(), None);
}

#[test]
fn the_state_of_segments_is_replayed() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    let ids: Vec<_> = (1..=4).map(|n| SegmentId([n; 16])).collect();
    for id in &ids {
        journal.append_begin(&place(*id), &[6; 32]).unwrap();
        let (entry, bytes) = sealed(id.0[0], 50);
        journal.append_block(*id, 0, entry, bytes).unwrap();
    }
    for id in &ids[1..] {
        journal
            .append_close(*id, 1, hash(b"table"), Bytes::from_static(b"table"))
            .unwrap();
    }
    journal.append_durable(ids[2]).unwrap();
    journal.append_durable(ids[3]).unwrap();
    journal.release(0, &[ids[3]]).unwrap();
    journal.sync_all().unwrap();
    kill(journal);
    let (journal, replay) = open(dir.path());
    let states: Vec<_> = replay
        .segments
        .iter()
        .map(|s| (s.id(), s.closed.is_some(), s.durable))
        .collect();
    assert_eq!(
        states,
        [
            (ids[0], false, false),
            (ids[1], true, false),
            (ids[2], true, true)
        ]
    );
    let (slots, table) = replay.segments[1].closed.unwrap();
    assert_eq!(
        (slots, journal.read(table).unwrap().unwrap()),
        (1, b"table".to_vec())
    );
    assert_eq!(replay.segments[0].bytes(), 78);
}

/// A log of two files at least, whose first one begins a segment. Says where.
fn begun_in_the_first_of_two(dir: &Path, ended: bool) -> usize {
    let (journal, _) = open(dir);
    let begun = journal.append_begin(&place(SEGMENT), &[6; 32]).unwrap();
    for slot in 0..6 {
        let (entry, bytes) = sealed(slot as u8, 20_000);
        journal.append_block(SEGMENT, slot, entry, bytes).unwrap();
    }
    if ended {
        let table = Bytes::from_static(b"table");
        journal
            .append_close(SEGMENT, 6, hash(&table), table)
            .unwrap();
        journal.append_again(&place(SEGMENT), &[6; 32]).unwrap();
    }
    journal.sync_all().unwrap();
    kill(journal);
    assert!(logs(dir).len() > 1);
    begun.offset() as usize - 10
}

#[test]
fn blocks_whose_beginning_is_damaged_are_kept() {
    for ended in [false, true] {
        let dir = TempDir::new().unwrap();
        let at = begun_in_the_first_of_two(dir.path(), ended);
        let path = &logs(dir.path())[0];
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
        for _ in 0..2 {
            let (_, replay) = open(dir.path());
            assert!(
                matches!(&replay.findings[..], [Finding::Corrupt { .. }]),
                "{:?}",
                replay.findings
            );
            let [segment] = &replay.segments[..] else {
                panic!("one segment")
            };
            assert_eq!(segment.id(), SEGMENT);
            assert_eq!(segment.slots.iter().flatten().count(), 6);
            // What ends it says once more how it began.
            assert_eq!(
                segment.begun,
                ended.then(|| (place(SEGMENT), [6; 32])),
                "{ended}"
            );
            assert_eq!(segment.closed.is_some(), ended);
        }
    }
}

#[test]
fn blocks_whose_segment_began_in_a_file_that_is_gone_are_of_a_declared_one() {
    let dir = TempDir::new().unwrap();
    begun_in_the_first_of_two(dir.path(), false);
    fs::remove_file(&logs(dir.path())[0]).unwrap();
    let (_, replay) = open(dir.path());
    assert_eq!(replay.findings, []);
    assert!(replay.segments.is_empty());
}

/// Random appends, syncs, releases and crashes against a list in memory: what comes back is a prefix of what was appended
/// that reaches at least to the last sync.
#[test]
fn a_crash_leaves_a_prefix_that_holds_everything_synced() {
    for seed in 0..30 {
        let dir = TempDir::new().unwrap();
        let random = SeededEntropy::new(seed);
        let (mut appended, mut synced, mut released) = (0u64, 0u64, 0u64);
        for life in 0..6 {
            let (journal, replay) = open_seeded(dir.path(), 16 << 10, seed * 100 + life);
            assert_eq!(replay.findings, [], "seed {seed}");
            let back = ops(&replay);
            let last = back.last().copied().unwrap_or(replay.released);
            assert!(
                last >= synced && last <= appended,
                "seed {seed}: {last} of {synced}..{appended}"
            );
            // A mark of release that was not synced is lost, the files that it freed are not back.
            let first = back.first().copied().unwrap_or(last + 1);
            assert!(
                first > replay.released && first <= released + 1,
                "seed {seed}"
            );
            assert_eq!(back, (first..=last).collect::<Vec<_>>(), "seed {seed}");
            assert!(replay.released <= released);
            (appended, synced) = (last, last);
            for _ in 0..60 {
                match random.u64() % 10 {
                    0 => {
                        journal.sync_all().unwrap();
                        synced = appended;
                    }
                    1 => journal.flush().unwrap(),
                    2 => {
                        released = released.max(synced.saturating_sub(random.u64() % 5));
                        journal.release(released, &[]).unwrap();
                    }
                    _ => {
                        appended += 1;
                        let bytes = vec![appended as u8; (random.u64() % 3000) as usize];
                        journal.append_op(appended, &bytes, None).unwrap();
                    }
                }
            }
            kill(journal);
        }
    }
}

#[test]
fn a_file_that_cannot_be_begun_is_said_and_nothing_accepted_is_lost() {
    let outer = TempDir::new().unwrap();
    let (dir, away) = (outer.path().join("journal"), outer.path().join("away"));
    let (journal, _) = open(&dir);
    journal.append_op(1, &[1; 10_000], None).unwrap();
    fs::rename(&dir, &away).unwrap();
    let mut accepted = 1;
    let error = loop {
        match journal.append_op(accepted + 1, &[1; 10_000], None) {
            Ok(_) => accepted += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(error, DataError::LocalDisk { .. }), "{error}");
    assert!(error.to_string().contains("journal"), "{error}");
    assert!(accepted > 4);
    journal.sync_all().unwrap();
    fs::rename(&away, &dir).unwrap();
    let lsn = journal.append_op(accepted + 1, &[1; 10_000], None).unwrap();
    journal.sync(lsn).unwrap();
    kill(journal);
    let (_, replay) = open(&dir);
    assert_eq!(ops(&replay), (1..=accepted + 1).collect::<Vec<_>>());
    assert_eq!(replay.findings, []);
}

fn edits(replay: &Replay) -> Vec<(u64, u8)> {
    replay.edits.iter().map(|(n, b)| (*n, b[0])).collect()
}

#[test]
fn edits_come_back_in_order_until_they_are_settled() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    for (number, byte) in [(5, 1), (6, 2), (5, 3)] {
        journal.append_edits(number, &[byte; 10]).unwrap();
    }
    journal.sync_all().unwrap();
    kill(journal);
    let (journal, replay) = open(dir.path());
    assert_eq!(edits(&replay), [(5, 1), (6, 2), (5, 3)]);
    journal
        .append_op(1, b"names what 5 changed", Some(5))
        .unwrap();
    journal.sync_all().unwrap();
    kill(journal);
    let (journal, replay) = open(dir.path());
    assert_eq!(edits(&replay), [(6, 2)]);
    journal.settle(6).unwrap();
    journal.sync_all().unwrap();
    kill(journal);
    assert_eq!(edits(&open(dir.path()).1), []);
}

#[test]
fn a_log_file_with_edits_is_kept_until_what_settles_them_is_on_stable_storage() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    journal.append_edits(5, &[1; 100]).unwrap();
    // Of the first file nothing else is needed.
    for counter in 1..=5 {
        journal.append_op(counter, &[0; 30_000], None).unwrap();
    }
    journal.sync_all().unwrap();
    let first = logs(dir.path())[0].clone();
    journal.release(5, &[]).unwrap();
    assert!(first.exists());
    journal.append_op(6, b"names it", Some(5)).unwrap();
    journal.release(5, &[]).unwrap();
    assert!(first.exists(), "a crash now would lose the operation");
    journal.sync_all().unwrap();
    assert!(!first.exists());
}

#[test]
fn what_settles_edits_and_is_torn_settles_nothing() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    let lsn = journal.append_edits(5, &[1; 100]).unwrap();
    journal.sync(lsn).unwrap();
    journal.append_op(1, b"names it", Some(5)).unwrap();
    journal.flush().unwrap();
    kill(journal);
    let path = logs(dir.path())[0].clone();
    let bytes = fs::read(&path).unwrap();
    let mut torn = bytes.clone();
    torn[lsn.offset() as usize + 30] ^= 1;
    fs::write(&path, torn).unwrap();
    let (_, replay) = open(dir.path());
    assert_eq!((ops(&replay), edits(&replay)), (vec![], vec![(5, 1)]));
}

#[test]
fn a_log_in_which_nothing_is_needed_leaves_a_beginning_only() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    let lane = LaneId([5; 16]);
    let numbers = journal.reserve(lane).unwrap();
    for counter in 1..=3 {
        journal.append_op(counter, &[0; 30_000], None).unwrap();
    }
    journal.release(2, &[]).unwrap();
    journal.close().unwrap();
    let length = || -> u64 {
        let files = fs::read_dir(dir.path()).unwrap();
        files.map(|f| f.unwrap().metadata().unwrap().len()).sum()
    };
    assert!(length() > 30_000, "an operation is still needed");
    let (journal, replay) = open(dir.path());
    assert_eq!(ops(&replay), [3]);
    journal.append_op(4, &[0; 30_000], None).unwrap();
    journal.release(4, &[]).unwrap();
    journal.close().unwrap();
    assert!(length() < 1000, "{}", length());
    let (_, replay) = open(dir.path());
    assert_eq!((replay.released, replay.ops.len()), (4, 0));
    assert_eq!(replay.numbers.get(&lane), Some(&numbers.end));
    assert_eq!(replay.findings, []);
}

/// Copies the log before its first file is synced, and notes what is synced.
struct BetweenFiles {
    dir: TempDir,
    copy: PathBuf,
    synced: std::cell::RefCell<Vec<PathBuf>>,
}

impl skrin_storage::disk::watch::Watch for BetweenFiles {
    fn file(&self, path: &Path, done: bool) {
        let logs_now = logs(self.dir.path());
        let copied = !logs(&self.copy).is_empty();
        if !done && !copied && logs_now.len() > 1 && Some(path) == logs_now.first().map(|p| &**p) {
            for log in logs_now {
                fs::copy(&log, self.copy.join(log.file_name().unwrap())).unwrap();
            }
        }
        self.synced.borrow_mut().push(path.to_owned());
    }

    fn dir(&self, _: &Path, _: bool) {}
}

/// A log whose first file is full and only written, and whose second one has been made and holds nothing.
fn killed_between_files(copy: &Path) -> (std::rc::Rc<BetweenFiles>, impl Sized) {
    let watch = std::rc::Rc::new(BetweenFiles {
        dir: TempDir::new().unwrap(),
        copy: copy.to_owned(),
        synced: Vec::new().into(),
    });
    let watched = skrin_storage::disk::watch::install(watch.clone());
    let (journal, _) = open(watch.dir.path());
    for counter in 1..100 {
        journal.append_op(counter, &[7; 1000], None).unwrap();
    }
    journal.sync_all().unwrap();
    assert_eq!(logs(copy).len(), 2);
    watch.synced.borrow_mut().clear();
    (watch, watched)
}

#[test]
fn what_a_killed_process_had_only_written_is_synced_before_anybody_believes_it() {
    let copy = TempDir::new().unwrap();
    let (watch, _watched) = killed_between_files(copy.path());
    let (_, replay) = open(copy.path());
    assert!(replay.ops.len() > 10);
    let synced = watch.synced.borrow();
    assert!(logs(copy.path()).iter().all(|log| synced.contains(log)));
}

#[test]
fn a_file_before_one_that_holds_nothing_has_a_torn_tail_and_no_damage() {
    let copy = TempDir::new().unwrap();
    let _watched = killed_between_files(copy.path());
    // The power fails: of the first file two pages never reached the disk, and later ones did.
    let path = logs(copy.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..8192].fill(0);
    fs::write(&path, bytes).unwrap();
    for _ in 0..2 {
        let (_, replay) = open(copy.path());
        assert_eq!(ops(&replay), [1, 2, 3]);
        let torn = |f: &Finding| matches!(f, Finding::TornTail { .. });
        assert!(replay.findings.iter().all(torn), "{:?}", replay.findings);
    }
}
