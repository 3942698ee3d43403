use super::*;

/// What stands beside the rows in these tests.
fn side(key: &[u8], value: &[u8]) -> Layer {
    Layer::from([(key.into(), Some(value.into()))])
}
use crate::rows::MemoryRows;
use proptest::prelude::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const ID: &[u8] = b"vault and room";

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes([byte; 32])
}

fn open(dir: &Path) -> (CachedRows, bool) {
    CachedRows::open(&dir.join("meta.db"), key(1), ID, 1 << 20).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Get(Vec<u8>),
    Scan(Vec<u8>, Vec<u8>, usize),
    Last(Vec<u8>, Vec<u8>),
    BeginFlush,
    EndFlush { fails: bool },
    Reopen,
    Clear,
}

fn a_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..4, 0..4)
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (a_key(), prop::collection::vec(any::<u8>(), 0..8)).prop_map(|(k, v)| Step::Put(k, v)),
        4 => a_key().prop_map(Step::Delete),
        4 => a_key().prop_map(Step::Get),
        4 => (a_key(), a_key(), 0usize..6).prop_map(|(a, b, n)| Step::Scan(a, b, n)),
        4 => (a_key(), a_key()).prop_map(|(a, b)| Step::Last(a, b)),
        3 => Just(Step::BeginFlush),
        3 => prop::bool::weighted(0.2).prop_map(|fails| Step::EndFlush { fails }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Clear),
    ]
}

/// The cache, what it must hold, and what it must hold after a crash.
struct Run {
    dir: tempfile::TempDir,
    rows: CachedRows,
    model: MemoryRows,
    durable: MemoryRows,
    job: Option<(FlushJob, MemoryRows)>,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            rows: open(dir.path()).0,
            dir,
            model: MemoryRows::default(),
            durable: MemoryRows::default(),
            job: None,
        }
    }

    fn step(&mut self, step: Step) {
        let (rows, model) = (&mut self.rows, &mut self.model);
        match step {
            Step::Put(k, v) => {
                rows.put(&k, v.clone().into()).unwrap();
                model.put(&k, v.into()).unwrap();
            }
            Step::Delete(k) => {
                rows.delete(&k).unwrap();
                model.delete(&k).unwrap();
            }
            Step::Get(k) => assert_eq!(rows.get(&k).unwrap(), model.get(&k).unwrap()),
            Step::Scan(a, b, n) => {
                assert_eq!(
                    rows.scan(&a, &b, n).unwrap(),
                    model.scan(&a, &b, n).unwrap()
                );
            }
            Step::Last(a, b) => assert_eq!(rows.last(&a, &b).unwrap(), model.last(&a, &b).unwrap()),
            Step::BeginFlush => {
                let begun = rows.begin_flush(side(b"s", &[1])).ok().flatten();
                self.job = begun.map(|job| (job, model.clone())).or(self.job.take());
            }
            Step::EndFlush { fails } => self.end_flush(fails),
            Step::Reopen => {
                self.job = None;
                self.rows = open(self.dir.path()).0;
                self.model = self.durable.clone();
            }
            Step::Clear => {
                self.rows.clear();
                self.model.0.clear();
                // What was being written when everything was forgotten may still arrive.
                self.end_flush(false);
            }
        }
    }

    fn end_flush(&mut self, fails: bool) {
        let Some((job, written)) = self.job.take() else {
            return;
        };
        let outcome = if fails {
            let failed = RowsError::Cache("no room".to_owned());
            Flushed {
                clear: job.clear,
                clears: job.clears,
                failed: Some((job.side, failed)),
            }
        } else {
            self.durable = written;
            job.run()
        };
        assert_eq!(self.rows.end_flush(outcome).is_err(), fails);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_cache_is_an_ordered_map_across_flush_and_reopen(steps in prop::collection::vec(a_step(), 1..120)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            let all = run.rows.scan(&[], &[0xff], usize::MAX).unwrap();
            prop_assert_eq!(&all, &run.model.scan(&[], &[0xff], usize::MAX).unwrap());
        }
    }

    #[test]
    fn a_snapshot_keeps_its_moment(before: Vec<(u8, Option<u8>)>, after: Vec<(u8, Option<u8>)>, flush: [bool; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let mut rows = open(dir.path()).0;
        let run = |rows: &mut CachedRows, steps: &[(u8, Option<u8>)]| {
            for (k, v) in steps {
                match v {
                    Some(v) => rows.put(&[*k % 16], vec![*v].into()).unwrap(),
                    None => rows.delete(&[*k % 16]).unwrap(),
                }
            }
        };
        run(&mut rows, &before);
        if flush[0] {
            rows.flush(Layer::new()).unwrap();
        }
        let expected = rows.scan(&[], &[0xff], usize::MAX).unwrap();
        let snapshot = rows.snapshot().unwrap();
        run(&mut rows, &after);
        if flush[1] {
            rows.flush(Layer::new()).unwrap();
        }
        let mut seen = Vec::new();
        snapshot.for_each(|k, v| { seen.push((k, v)); Ok::<_, RowsError>(()) }).unwrap();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn nothing_that_was_written_stands_in_the_file_in_clear() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = open(dir.path()).0;
    rows.put(
        b"a-very-telling-name",
        b"a-very-telling-value".as_slice().into(),
    )
    .unwrap();
    rows.flush(side(b"telling-side", b"telling")).unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(7).any(|w| w == b"telling"));
        assert!(!bytes.starts_with(b"SQLite"));
    }
}

fn is_begun_again(dir: &Path, key_byte: u8, identity: &[u8]) {
    let (rows, kept) =
        CachedRows::open(&dir.join("meta.db"), key(key_byte), identity, 1 << 20).unwrap();
    assert!(!kept);
    assert_eq!(rows.get(b"row").unwrap(), None);
}

#[test]
fn a_damaged_or_foreign_file_is_deleted_and_begun_again() {
    let write = |dir: &Path| {
        let mut rows = open(dir).0;
        rows.put(b"row", vec![1; 9000].into()).unwrap();
        rows.flush(Layer::new()).unwrap();
    };
    let cases: [(&str, u8, &[u8]); 3] =
        [("key", 2, ID), ("identity", 1, b"other"), ("bytes", 1, ID)];
    for (case, key_byte, identity) in cases {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        if case == "bytes" {
            std::fs::write(dir.path().join("meta.db"), vec![0x5a; 40_000]).unwrap();
        }
        is_begun_again(dir.path(), key_byte, identity);
        assert!(!open(dir.path()).1 || case == "bytes", "{case}");
    }
}

const CHILD: &str = "SKRIN_TEST_CACHE_CHILD";

/// Not a test of its own: the process that the next test kills.
#[test]
fn child_that_flushes_for_ever() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let mut rows = open(Path::new(&dir)).0;
    for generation in 0u32.. {
        for n in 0..200u32 {
            rows.put(&n.to_be_bytes(), generation.to_be_bytes().to_vec().into())
                .unwrap();
        }
        rows.flush(side(b"generation", &generation.to_be_bytes()))
            .unwrap();
        println!("generation {generation}");
    }
}

#[test]
fn a_flush_torn_by_a_kill_leaves_one_consistent_state() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "cache::tests::child_that_flushes_for_ever",
                "--nocapture",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("generation 3")));
        std::thread::sleep(std::time::Duration::from_micros(700 * round));
        child.kill().unwrap();
        child.wait().unwrap();

        let (rows, kept) = open(dir.path());
        assert!(kept);
        let mark = rows.side(b"generation").unwrap().unwrap();
        let all = rows.scan(&[], &[0xff], usize::MAX).unwrap();
        assert_eq!(all.len(), 200);
        assert!(all.iter().all(|(_, value)| *value == mark));
    }
}

/// Bounds are generous: the machine that runs this may be busy. docs/format says nothing of them.
#[test]
fn looking_up_absent_rows_is_cheap() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = CachedRows::open(&dir.path().join("meta.db"), key(1), ID, 64 << 20)
        .unwrap()
        .0;
    let row_key = |n: u64| {
        [
            &b"dirent-of-some-directory"[..],
            &n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(),
        ]
        .concat()
    };
    for n in 0..100_000u64 {
        rows.put(&row_key(n), vec![0; 60].into()).unwrap();
    }
    rows.flush(Layer::new()).unwrap();
    // The best of several rounds: the others tell how busy the machine is.
    let round = |round: u64| {
        let start = std::time::Instant::now();
        for n in 0..1000 {
            let absent = row_key(1_000_000 + round * 1000 + n);
            assert_eq!(rows.get(&absent).unwrap(), None);
        }
        start.elapsed() / 1000
    };
    let each = (0..20).map(round).min().unwrap();
    println!("absent row: {each:?}");
    assert!(each < std::time::Duration::from_micros(100), "{each:?}");
}
