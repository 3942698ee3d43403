use super::reading::wait_for;
use super::*;
use crate::journal::record::{FILE_HEADER_LEN, FileId, Framing, Record};
use crate::journal::{Finding, Lsn};
use skrin_storage::fault::{Failure, Rule};
use skrin_storage::{ErrorKind, Verb};
use std::path::Path;

fn last_log(world: &World) -> PathBuf {
    let logs = std::fs::read_dir(world.dir.path().join("journal")).unwrap();
    let mut logs: Vec<_> = logs
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "log"))
        .collect();
    logs.sort();
    logs.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn synced_blocks_and_operations_survive_the_process() {
    let world = World::new();
    let store = world.open();
    let at = write(&store, 1, 5000);
    let lsn = store
        .journal()
        .append_op(1, b"write block 1", None)
        .unwrap();
    store.journal().sync(lsn).unwrap();
    drop(store);
    let (store, replay) = world.open_replay();
    assert_eq!(replay.ops, [(1, b"write block 1".to_vec())]);
    let got = store.read(vec![request(at, None, 1)]).await.remove(0);
    assert_eq!(&*got.unwrap(), plain(1, 5000));
    let written = Written {
        blocks: vec![(at, 5000)],
        infos: publish(&store).await,
    };
    assert_eq!(
        written.infos[&at.segment].id, at.segment,
        "under the name that the operation has"
    );
    store.release(1, &[]).unwrap();
    store.journal().sync_all().unwrap();
    drop(store);
    let (store, replay) = world.open_replay();
    assert!(replay.ops.is_empty() && store.undeclared().is_empty());
    assert_ne!(
        write(&store, 2, 10).segment,
        at.segment,
        "the number is not used again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_answer_was_lost_is_repeated_byte_for_byte_after_a_crash() {
    for failure in [Failure::After(ErrorKind::Transient), Failure::HangAfter] {
        let world = World::new();
        let store = world.open();
        let refs: Vec<_> = (0..30).map(|n| write(&store, n, 20_000)).collect();
        world.faults.add(Rule::new(failure).on(Verb::Put));
        let ids = store.undeclared();
        let name = object_name(refs[0].segment).unwrap();
        let hangs = failure == Failure::HangAfter;
        let patience = Duration::from_secs(60);
        tokio::select! {
            ended = tokio::time::timeout(patience, store.make_durable(&ids)) => {
                assert!(!hangs && matches!(ended, Ok(Err(_))), "{failure:?}");
            }
            // Of an answer that never comes only the object tells that it is time for the crash.
            () = wait_for(|| world.storage.peek(&name).is_some()), if hangs => {}
        }
        let put = world.storage.peek(&name).expect("it was applied");
        drop(store);
        world.faults.clear();
        let store = world.open();
        // The storage refuses other bytes under the same name.
        let written = Written {
            blocks: refs.into_iter().map(|r| (r, 20_000)).collect(),
            infos: publish(&store).await,
        };
        assert_eq!(world.storage.peek(&name).unwrap(), put);
        written.check(&world.open(), 0..30).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_segment_is_put_before_the_journal_has_it() {
    let world = World::new();
    let store = world.open();
    let at = write(&store, 1, 5000);
    store.make_durable(&[at.segment]).await.unwrap();
    let put = world
        .storage
        .peek(&object_name(at.segment).unwrap())
        .unwrap();
    // Nobody synced: what the journal has on stable storage is what the upload asked for.
    let journal = store.journal();
    let (before, allocated) = (journal.written(), journal.allocated());
    assert!(before > Lsn::default() && allocated > 0);
    drop(store);
    let store = world.open();
    store.make_durable(&[at.segment]).await.unwrap();
    assert_eq!(
        world
            .storage
            .peek(&object_name(at.segment).unwrap())
            .unwrap(),
        put
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_whose_record_is_damaged_is_lost_alone() {
    let world = World::new();
    let store = world.open();
    world
        .faults
        .add(Rule::new(Failure::Before(ErrorKind::Transient)).on(Verb::Put));
    let refs: Vec<_> = (0..5).map(|n| write(&store, n, 5000)).collect();
    assert!(store.make_durable(&store.undeclared()).await.is_err());
    store.journal().append_op(1, b"x", None).unwrap();
    store.journal().sync_all().unwrap();
    let Ok(Some(pos)) = store.inner.pending.lock()[&refs[2].segment].block(2) else {
        panic!("a block")
    };
    drop(store);
    let path = last_log(&world);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[pos.pos.at.offset() as usize + 77] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    world.faults.clear();
    let (store, replay) = world.open_replay();
    assert!(
        matches!(&replay.findings[..], [Finding::Corrupt { .. }]),
        "{:?}",
        replay.findings
    );
    let check = |got: Vec<Result<Block, DataError>>| {
        for (n, got) in (0..).zip(got) {
            match got {
                Ok(block) => assert_eq!(&*block, plain(n, 5000)),
                Err(e) => assert!(
                    n == 2 && matches!(e, DataError::Integrity { .. }),
                    "{n}: {e}"
                ),
            }
        }
    };
    let requests = |infos: &HashMap<SegmentId, SegmentInfo>| {
        (0..)
            .zip(&refs)
            .map(|(n, at)| request(*at, infos.get(&at.segment), n))
            .collect()
    };
    check(store.read(requests(&HashMap::new())).await);
    let infos = publish(&store).await;
    check(world.open().read(requests(&infos)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_was_begun_and_never_filled_is_given_up() {
    let world = World::new();
    let store = world.open();
    let at = write(&store, 1, 5000);
    store.journal().sync_all().unwrap();
    drop(store);
    cut_after_begin(&last_log(&world));
    let store = world.open();
    assert!(store.undeclared().is_empty());
    assert_ne!(write(&store, 2, 10).segment, at.segment);
    assert_eq!(publish(&store).await.len(), 1);
}

/// Flips a byte in each record of the last log of which that is so.
fn damage(world: &World, is: impl Fn(&Record<'_>) -> bool) {
    let path = last_log(world);
    let mut bytes = std::fs::read(&path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let framing = Framing {
        key: &LocalKey::from_bytes([3; 32]),
        vault: world.config.vault,
        file: FileId::parse(name).unwrap(),
    };
    let (mut at, mut damaged) = (FILE_HEADER_LEN, vec![]);
    while let Some(parsed) = framing.parse(&bytes, at) {
        if is(&parsed.record().unwrap()) {
            damaged.push(at + 40);
        }
        at = parsed.payload.end;
    }
    assert!(!damaged.is_empty());
    damaged.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(&path, bytes).unwrap();
}

/// Some blocks that no commit names, and the proof that the journal had them on stable storage.
fn write_synced(store: &DataStore) -> Written {
    let blocks = (0..5).map(|n| (write(store, n, 5000), 5000)).collect();
    store.journal().sync_all().unwrap();
    store.journal().append_op(1, b"x", None).unwrap();
    store.journal().sync_all().unwrap();
    Written {
        blocks,
        infos: HashMap::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_whose_beginning_is_damaged_keeps_its_blocks_and_is_published() {
    for with_the_number in [false, true] {
        let world = World::new();
        let store = world.open();
        let mut written = write_synced(&store);
        drop(store);
        damage(&world, |record| match record {
            Record::Begin { .. } => true,
            Record::Reserve { .. } => with_the_number,
            _ => false,
        });
        let (store, replay) = world.open_replay();
        assert!(
            matches!(&replay.findings[..], [Finding::Corrupt { .. }]),
            "{:?}",
            replay.findings
        );
        written.check(&store, 0..5).await;
        let next = write(&store, 9, 10);
        assert_ne!(next.segment, written.blocks[0].0.segment);
        written.infos = publish(&store).await;
        assert_eq!(written.infos.len(), 2);
        let store = world.open();
        assert!(store.undeclared().is_empty());
        written.check(&store, 0..5).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_whose_beginning_is_damaged_is_put_again_byte_for_byte_if_it_was_put() {
    let world = World::new();
    let store = world.open();
    let mut written = write_synced(&store);
    let put = store.make_durable(&store.undeclared()).await.unwrap();
    let before = world.storage.snapshot();
    store.journal().append_op(2, b"y", None).unwrap();
    store.journal().sync_all().unwrap();
    drop(store);
    damage(&world, |record| matches!(record, Record::Begin { .. }));
    let store = world.open();
    written.check(&store, 0..5).await;
    written.infos = publish(&store).await;
    assert_eq!(written.the_info(), put[0].get());
    assert_eq!(world.storage.snapshot(), before);
    written.check(&world.open(), 0..5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_before_a_crash_and_damaged_since_is_put_again_from_the_journal() {
    let world = World::new();
    let store = world.open();
    let mut written = write_synced(&store);
    let ids = store.undeclared();
    let put = store.make_durable(&ids).await.unwrap();
    store.journal().sync_all().unwrap();
    drop(store);
    let (info, name) = (put[0].get(), object_name(ids[0]).unwrap());
    let honest = world.storage.peek(&name).unwrap();
    let flipped = |at: usize| {
        let mut bytes = honest.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let damaged = [
        flipped(3),
        flipped(16 + 2 * 5028 + 77),
        flipped(info.table_offset as usize - 1),
        [&honest[..], &[0; 100]].concat(),
        honest[..1000].to_vec(),
        vec![],
    ];
    for (n, bytes) in damaged.into_iter().enumerate() {
        world.storage.tamper(&name, Some(bytes.into()));
        let store = world.open();
        let again = store.make_durable(&ids).await.unwrap();
        assert_eq!(again[0].get(), info, "{n}");
        assert_eq!(world.storage.peek(&name).unwrap(), honest, "{n}");
        store.journal().sync_all().unwrap();
    }
    // One whose table does not open may be of another life.
    let bytes = Bytes::from(flipped(info.table_offset as usize + 5));
    world.storage.tamper(&name, Some(bytes.clone()));
    let store = world.open();
    let refused = store.make_durable(&ids).await;
    assert!(
        matches!(refused, Err(DataError::Integrity { .. })),
        "{refused:?}"
    );
    assert_eq!(world.storage.peek(&name).unwrap(), bytes);
    written.check(&store, 0..5).await;
    world.storage.tamper(&name, Some(honest));
    written.infos = publish(&store).await;
    written.check(&world.open(), 0..5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_copy_of_a_block_that_the_journal_lost_is_not_put_at_stake() {
    let world = World::new();
    let store = world.open();
    let written = write_synced(&store);
    let ids = store.undeclared();
    store.make_durable(&ids).await.unwrap();
    store.journal().append_op(2, b"y", None).unwrap();
    store.journal().sync_all().unwrap();
    drop(store);
    damage(&world, |r| matches!(r, Record::Block { slot: 2, .. }));
    let name = object_name(ids[0]).unwrap();
    let honest = world.storage.peek(&name).unwrap();
    let mut bytes = honest.to_vec();
    bytes[16 + 77] ^= 1;
    let bytes = Bytes::from(bytes);
    world.storage.tamper(&name, Some(bytes.clone()));
    let store = world.open();
    let refused = store.make_durable(&ids).await;
    assert!(
        matches!(refused, Err(DataError::Integrity { .. })),
        "{refused:?}"
    );
    assert_eq!(world.storage.peek(&name).unwrap(), bytes);
    written.check(&store, [0, 1, 3, 4]).await;
    drop(store);
    // Where nothing else is wrong it is taken as it is.
    world.storage.tamper(&name, Some(honest.clone()));
    let store = world.open();
    let infos = publish(&store).await;
    assert_eq!(world.storage.peek(&name).unwrap(), honest);
    let written = Written { infos, ..written };
    written.check(&world.open(), 0..5).await;
}

/// Damages the block's record, which is the last one with a payload.
fn cut_after_begin(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let marker = &bytes[16..24].to_vec();
    let last = bytes.windows(8).rposition(|w| w == marker).unwrap();
    std::fs::write(path, &bytes[..last + 100]).unwrap();
}

/// A world against a model: random writes, syncs, flushes, publications, faults and crashes. Whatever was synced or declared is read back; a
/// block that was not may be gone, but is never wrong.
#[tokio::test(flavor = "multi_thread")]
async fn random_lives_lose_nothing_that_was_promised() {
    for seed in 0..12 {
        let mut world = World::new();
        world.file_len = 256 << 10;
        world.config.pending_bytes = 100_000;
        if seed % 2 == 0 {
            world = world.with_disk_cache(2 << 20);
        }
        Model::new(seed).run(&world).await;
    }
}

#[derive(Default)]
struct Model {
    seed: u64,
    random: Option<SeededEntropy>,
    next: u64,
    /// Block number to its place; those behind `promised` may vanish in a crash.
    blocks: Vec<(u64, BlockRef, usize)>,
    promised: usize,
    infos: HashMap<SegmentId, SegmentInfo>,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Some(SeededEntropy::new(seed)),
            ..Self::default()
        }
    }

    fn draw(&self, below: u64) -> u64 {
        self.random.as_ref().unwrap().u64() % below
    }

    async fn run(&mut self, world: &World) {
        for life in 0..5 {
            let (store, replay) = world.open_replay();
            assert_eq!(replay.findings, [], "seed {} life {life}", self.seed);
            self.after_crash(&store).await;
            for _ in 0..25 {
                self.step(&store, &world.faults).await;
            }
            world.faults.clear();
            drop(store);
        }
    }

    async fn step(&mut self, store: &DataStore, faults: &Faults) {
        match self.draw(12) {
            0 => {
                store.journal().sync_all().unwrap();
                self.promised = self.blocks.len();
            }
            1 => store.journal().flush().unwrap(),
            2 => self.publish(store).await,
            3 => {
                let failure = [
                    Failure::Before(ErrorKind::Transient),
                    Failure::After(ErrorKind::Transient),
                ];
                let rule = Rule::new(failure[self.draw(2) as usize]).on(Verb::Put);
                faults.add(rule.times(self.draw(3)));
            }
            4 | 5 => self.check(store, self.blocks.len()).await,
            _ => {
                for _ in 0..self.draw(8) + 1 {
                    self.next += 1;
                    let len = self.draw(65_536) as usize + 1;
                    self.blocks
                        .push((self.next, write(store, self.next, len), len));
                }
            }
        }
    }

    async fn publish(&mut self, store: &DataStore) {
        let ids = store.undeclared();
        if let Ok(durable) = store.make_durable(&ids).await {
            self.infos
                .extend(durable.into_iter().map(|d| (d.get().id, d.into_inner())));
            store.release(0, &ids).unwrap();
            self.promised = self.blocks.len();
        }
    }

    async fn check(&self, store: &DataStore, count: usize) {
        let wanted = &self.blocks[..count];
        let reads = wanted
            .iter()
            .map(|(n, at, _)| request(*at, self.infos.get(&at.segment), *n));
        for ((n, _, len), got) in wanted.iter().zip(store.read(reads.collect()).await) {
            let got = got.unwrap_or_else(|e| panic!("seed {}: block {n}: {e}", self.seed));
            assert_eq!(&*got, plain(*n, *len), "seed {}: block {n}", self.seed);
        }
    }

    async fn after_crash(&mut self, store: &DataStore) {
        self.check(store, self.promised).await;
        let mut kept = self.blocks[..self.promised].to_vec();
        for (n, at, len) in &self.blocks[self.promised..] {
            let read = request(*at, self.infos.get(&at.segment), *n);
            if let Ok(block) = store.read(vec![read]).await.remove(0) {
                assert_eq!(
                    &*block,
                    plain(*n, *len),
                    "seed {}: gone, but never wrong",
                    self.seed
                );
                kept.push((*n, *at, *len));
            }
        }
        self.promised = kept.len();
        self.blocks = kept;
    }
}

/// A storage that has what a later life put, and the journal of a backup that was made before. The block that both have, and the declaration.
async fn restored() -> (World, BlockRef, SegmentInfo) {
    let world = World::new();
    let store = world.open();
    let first = write(&store, 1, 5000);
    store.journal().sync_all().unwrap();
    let (log, backup) = (last_log(&world), std::fs::read(last_log(&world)).unwrap());
    let second = write(&store, 2, 6000);
    assert_eq!(first.segment, second.segment);
    let info = publish(&store).await.remove(&first.segment).unwrap();
    drop(store);
    std::fs::remove_dir_all(log.parent().unwrap()).unwrap();
    std::fs::create_dir(log.parent().unwrap()).unwrap();
    std::fs::write(&log, backup).unwrap();
    (world, first, info)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_takes_the_segment_that_its_later_life_put_and_puts_nothing_over_it() {
    let (world, first, info) = restored().await;
    // Twice: the first life after it notes another end of the segment in its journal.
    for _ in 0..2 {
        let store = world.open();
        let before = world.storage.snapshot();
        let durable = store.make_durable(&[first.segment]).await.unwrap();
        assert_eq!(durable[0].get(), &info);
        assert_eq!(world.storage.snapshot(), before);
        store.journal().sync_all().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_of_a_later_life_that_is_damaged_is_not_taken_for_what_the_journal_has() {
    let (world, first, info) = restored().await;
    let name = object_name(info.id).unwrap();
    let mut bytes = world.storage.peek(&name).unwrap().to_vec();
    bytes[16 + 77] ^= 1;
    world.storage.tamper(&name, Some(bytes.into()));
    let store = world.open();
    let before = world.storage.snapshot();
    let refused = store.make_durable(&[first.segment]).await;
    assert!(
        matches!(refused, Err(DataError::Integrity { .. })),
        "{refused:?}"
    );
    assert_eq!(world.storage.snapshot(), before);
    let got = store.read(vec![request(first, None, 1)]).await.remove(0);
    assert_eq!(&*got.unwrap(), plain(1, 5000));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_reads_puts_nothing_that_waits_in_the_journal() {
    let mut world = World::new();
    let store = world.open();
    let mut written = write_synced(&store);
    drop(store);
    let log = last_log(&world);
    world.config.read_only = true;
    let store = world.open();
    written.check(&store, 0..5).await;
    let refused = store.make_durable(&store.undeclared()).await;
    assert!(matches!(refused, Err(DataError::Invalid(_))), "{refused:?}");
    // What would be put would be put in the background.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.counts(), Counts::default());
    assert_eq!(last_log(&world), log);
    drop(store);
    world.config.read_only = false;
    let store = world.open();
    written.infos = publish(&store).await;
    written.check(&world.open(), 0..5).await;
}
