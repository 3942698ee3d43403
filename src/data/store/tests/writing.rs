use super::reading::wait_for;
use super::*;
use skrin_storage::fault::{Failure, Rule};
use skrin_storage::{ErrorKind, Verb};
use std::collections::HashSet;

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_read_back_at_every_stage_of_its_life() {
    let world = World::new();
    let store = world.open();
    let at = write(&store, 5, 1000);
    let check = |store: DataStore, info: Option<SegmentInfo>| async move {
        let got = store
            .read(vec![request(at, info.as_ref(), 5)])
            .await
            .remove(0);
        assert_eq!(&*got.unwrap(), plain(5, 1000));
    };
    assert!(
        store.cached(&request(at, None, 5)).is_some(),
        "from the memory of what waits"
    );
    check(store.clone(), None).await;
    assert_eq!(store.pending().segments, 1);
    let info = store
        .make_durable(&[at.segment])
        .await
        .unwrap()
        .remove(0)
        .into_inner();
    assert_eq!(store.pending(), PendingSummary::default());
    check(store.clone(), None).await;
    store.release(0, &[at.segment]).unwrap();
    store.journal().sync_all().unwrap();
    assert!(store.undeclared().is_empty());
    assert_eq!(world.counts().gets, 0);
    drop(store);
    check(world.open(), Some(info)).await;
    assert_eq!((world.counts().gets, world.counts().puts), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_small_blocks_make_five_objects() {
    let world = World::new();
    let store = world.open();
    let written = Written::new(&store, 10_000, 4096).await;
    assert_eq!(world.counts().puts, 5);
    assert_eq!(world.counts().ranges, 5, "each confirmed by its trailer");
    assert!(
        world.counts().sent < 10_000 * 4096 * 103 / 100,
        "{}",
        world.counts().sent
    );
    written.check(&store, (0..10_000).step_by(37)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_incompressible_data_costs_less_than_one_percent_more() {
    let world = World::new();
    let store = world.open();
    let blocks = 127 * 4;
    Written::new(&store, blocks, 65_536).await;
    assert_eq!(world.counts().puts, 4);
    assert!((world.counts().sent as f64) < 1.01 * (blocks * 65_536) as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_change_uploads_a_quarter_of_a_mebibyte() {
    let world = World::new();
    let store = world.open();
    Written::new(&store, 1, 65_536).await;
    assert_eq!(world.counts().sent, 256 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_segments_are_uploaded_before_anybody_asks() {
    let world = World::new();
    let store = world.open();
    (0..128).for_each(|n| _ = write(&store, n, 65_536));
    wait_for(|| world.counts().ranges == 1).await;
    assert_eq!(world.counts().puts, 1);
    assert_eq!(store.undeclared().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_stored_compressed_where_that_is_on() {
    let mut world = World::new();
    world.config.compression = Some(1);
    let store = world.open();
    let text = b"it is what it is, said the fish; ".repeat(1500);
    let at = store
        .write_block(
            KEY,
            &key(),
            (FILE, 1),
            &text,
            Room::Wait,
            &mut Gain::default(),
        )
        .unwrap();
    assert!(store.pending().bytes < 4096);
    let infos = publish(&store).await;
    drop(store);
    let store = world.open();
    let got = store
        .read(vec![request(at, infos.get(&at.segment), 1)])
        .await
        .remove(0);
    assert_eq!(&*got.unwrap(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_threads_write_and_flush_at_once() {
    let world = World::new();
    let store = world.open();
    let refs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u64)
            .map(|t| {
                let (store, runtime) = (&store, Handle::current());
                scope.spawn(move || {
                    let mut refs = vec![];
                    for i in 0..60 {
                        let block = t * 1000 + i;
                        refs.push((block, write(store, block, 30_000)));
                        if i % 20 == 19 {
                            runtime
                                .block_on(store.make_durable(&[refs[i as usize].1.segment]))
                                .unwrap();
                        }
                    }
                    refs
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    let unique: HashSet<_> = refs.iter().map(|(_, at)| *at).collect();
    assert_eq!(unique.len(), 480, "no slot was given twice");
    let infos = publish(&store).await;
    drop(store);
    let store = world.open();
    let requests = refs
        .iter()
        .map(|(block, at)| request(*at, infos.get(&at.segment), *block));
    for ((block, _), got) in refs.iter().zip(store.read(requests.collect()).await) {
        assert_eq!(&*got.unwrap(), plain(*block, 30_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_slow_storage_leaves_memory_and_stays_readable() {
    let mut world = World::new();
    world.config.pending_bytes = 4 << 20;
    world.config.cache_bytes = 1 << 20;
    world
        .faults
        .add(Rule::new(Failure::Before(ErrorKind::Transient)).on(Verb::Put));
    let store = world.open();
    let refs: Vec<_> = (0..400).map(|n| write(&store, n, 65_536)).collect();
    let held = store.inner.in_memory.load(Ordering::Relaxed);
    assert!(
        held < 13 << 20,
        "the budget and what the journal has not written: {held}"
    );
    assert!(store.pending().bytes > 25 << 20);
    let requests = refs.iter().zip(0..).map(|(at, n)| request(*at, None, n));
    for (n, got) in (0..).zip(store.read(requests.collect()).await) {
        assert_eq!(&*got.unwrap(), plain(n, 65_536));
    }
    world.faults.clear();
    publish(&store).await;
    assert_eq!(store.inner.in_memory.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_a_segment_that_is_released_meanwhile_is_given_back_once() {
    let world = World::new();
    let store = world.open();
    let at = write(&store, 1, 5000);
    store.journal().sync_all().unwrap();
    // Whoever makes room has listed it before it is released.
    let listed = Arc::clone(&store.inner.pending.lock()[&at.segment]);
    store.release(0, &[at.segment]).unwrap();
    assert_eq!(listed.drop_memory(store.journal().written()), 0);
    assert_eq!(store.inner.in_memory.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_is_said_to_the_writer_and_empties_by_uploading() {
    let mut world = World::new();
    world.journal_bytes = 20 << 20;
    world
        .faults
        .add(Rule::new(Failure::Before(ErrorKind::Transient)).on(Verb::Put));
    let store = world.open();
    let mut written = Written::default();
    let error = loop {
        let n = written.blocks.len() as u64;
        match store.write_block(
            KEY,
            &key(),
            (FILE, n),
            &plain(n, 65_536),
            Room::Wait,
            &mut Gain::default(),
        ) {
            Ok(at) => written.blocks.push((at, 65_536)),
            Err(e) => break e,
        }
    };
    assert!(matches!(error, DataError::Full { .. }), "{error}");
    assert!(written.blocks.len() > 200);
    // Operations go on for a while, and fill what is left.
    let op = vec![0; 1 << 20];
    let ops = (1..)
        .find(|n| store.journal().append_op(*n, &op, None).is_err())
        .unwrap();
    assert!(ops > 2, "{ops}");
    assert!(store.make_durable(&store.undeclared()).await.is_err());
    world.faults.clear();
    written.infos = publish(&store).await;
    store.release(ops, &[]).unwrap();
    write(&store, 1, 65_536);
    written.check(&store, (0..200).step_by(9)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_in_any_way_is_repeated_with_the_same_bytes() {
    let failures = [
        Failure::Before(ErrorKind::Transient),
        Failure::After(ErrorKind::Transient),
        Failure::Before(ErrorKind::Full),
    ];
    for failure in failures {
        let world = World::new();
        let store = world.open();
        let at = write(&store, 1, 5000);
        world.faults.add(Rule::new(failure).on(Verb::Put).times(1));
        let error = store.make_durable(&[at.segment]).await.unwrap_err();
        assert!(matches!(error, DataError::Storage(_)), "{error}");
        assert_eq!(store.pending().segments, 1);
        let before = world.storage.peek(&object_name(at.segment).unwrap());
        let info = store
            .make_durable(&[at.segment])
            .await
            .unwrap()
            .remove(0)
            .into_inner();
        let after = world
            .storage
            .peek(&object_name(at.segment).unwrap())
            .unwrap();
        assert!(before.is_none_or(|b| b == after));
        assert_eq!(after.len() as u64, info.object_len);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_the_storage_cut_is_never_called_durable() {
    let world = World::new();
    let store = world.open();
    let at = write(&store, 1, 5000);
    world
        .faults
        .add(Rule::new(Failure::CutPut(1000)).on(Verb::Put).times(1));
    assert!(store.make_durable(&[at.segment]).await.is_err());
    assert_eq!(store.pending().segments, 1);
    let got = store.read(vec![request(at, None, 1)]).await.remove(0);
    assert_eq!(&*got.unwrap(), plain(1, 5000), "the journal still has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_without_a_lane_and_blocks_have_a_length() {
    let world = World::new();
    let store = world.open();
    let bad = |bytes: &[u8]| {
        store.write_block(
            KEY,
            &key(),
            (FILE, 0),
            bytes,
            Room::Wait,
            &mut Gain::default(),
        )
    };
    assert!(matches!(bad(&[]), Err(DataError::Invalid(_))));
    assert!(matches!(bad(&[0; 65_537]), Err(DataError::Invalid(_))));
    store.inner.writer.lock().take_lane();
    assert!(matches!(bad(&[0; 5]), Err(DataError::Invalid(_))));
    assert!(matches!(
        store.make_durable(&[SegmentId([0; 16])]).await,
        Err(DataError::Missing(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_lane_ends_the_segment_and_starts_its_own_numbers() {
    let world = World::new();
    let store = world.open();
    let a = write(&store, 1, 100);
    store.set_lane(LaneId([0x55; 16]), 0, true).unwrap();
    let b = write(&store, 2, 100);
    assert_ne!(a.segment, b.segment);
    let infos = publish(&store).await;
    assert_eq!(infos[&a.segment].author, LANE);
    assert_eq!(infos[&b.segment].author, LaneId([0x55; 16]));
    assert_eq!((infos[&a.segment].number, infos[&b.segment].number), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_decided_when_their_segments_are_released_or_given_up() {
    let world = World::new();
    let store = world.open();
    let below = |store: &DataStore| {
        let decided = store.decided_below();
        decided
            .filter(|(lane, _)| *lane == LANE)
            .map(|(_, below)| below)
    };
    assert_eq!(below(&store), Some(0));
    write(&store, 1, 10);
    assert_eq!(below(&store), Some(0), "number 0 is open");
    publish(&store).await;
    assert_eq!(below(&store), Some(1));
    drop(store);
    let store = world.open();
    assert_eq!(
        below(&store),
        Some(64),
        "what the last run had reserved is never used"
    );
    write(&store, 2, 10);
    assert_eq!(below(&store), Some(64));
    publish(&store).await;
    assert_eq!(below(&store), Some(65));
}

/// Whatever became of the journal: what a lane has said of its numbers stands in its commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_gives_no_segment_a_number_that_it_has_called_decided() {
    let world = World::new();
    let store = world.open();
    store.set_lane(LANE, 500, true).unwrap();
    // Known already: nothing goes back.
    store.set_lane(LANE, 3, true).unwrap();
    let block = write(&store, 1, 100);
    assert_eq!(publish(&store).await[&block.segment].number, 500);
}

/// A device that was restored from a backup and has not seen the storage yet uses numbers that its later life has used.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_over_a_segment_of_another_life() {
    let (world, other) = (World::new(), World::new());
    let store = world.open();
    let first = write(&store, 1, 100);
    publish(&store).await;
    let name = object_name(first.segment).unwrap();
    let stored = world.storage.get(&name, 1 << 20).await.unwrap();
    // The same lane and number, and nothing of it in its journal.
    let restored = World {
        storage: Arc::clone(&world.storage),
        ..other
    };
    let store = restored.open();
    store.set_lane(LANE, 0, false).unwrap();
    let second = write(&store, 2, 100);
    assert_eq!(second.segment, first.segment);
    let refused = store.make_durable(&[second.segment]).await;
    assert!(
        matches!(refused, Err(DataError::Integrity { .. })),
        "{refused:?}"
    );
    assert_eq!(world.storage.get(&name, 1 << 20).await.unwrap(), stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_after_the_open_segment_was_released_goes_into_another() {
    let world = World::new();
    let store = world.open();
    let first = write(&store, 1, 100);
    store.release(0, &[first.segment]).unwrap();
    let second = write(&store, 2, 100);
    assert_ne!(second.segment, first.segment);
    let infos = publish(&store).await;
    let asked = request(second, infos.get(&second.segment), 2);
    let got = store.read(vec![asked]).await.remove(0).unwrap();
    assert_eq!(&*got, plain(2, 100));
}
