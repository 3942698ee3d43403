use super::*;
use skrin_storage::fault::{Failure, Rule};
use skrin_storage::{ErrorKind, Verb};
use std::ops::Range;
use std::time::Instant;

/// Waits for what goes on in the background, however slow the machine is.
pub(super) async fn wait_for(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What was uploaded lies in the disk cache; whoever had it uploaded does not wait for that.
async fn wait_for_the_cache(store: &DataStore, written: &Written) {
    let disk = store.inner.disk.as_ref().unwrap();
    let is_kept = |info: &SegmentInfo| {
        disk.has_table(info.id) && disk.kept(info.id).contains(&(0..info.slots))
    };
    wait_for(|| written.infos.values().all(is_kept)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_block_of_a_large_segment_costs_its_table_and_itself() {
    let world = World::new();
    let written = Written::new(&world.open(), 100, 65_536).await;
    let store = world.open();
    let before = world.counts();
    written.check(&store, [50]).await;
    let first = world.counts().since(&before);
    assert_eq!((first.gets, first.ranges), (0, 2));
    assert!(first.received < 72_000);
    written.check(&store, [51]).await;
    written.check(&store, [51, 50]).await;
    assert_eq!(
        world.counts().since(&before).ranges,
        3,
        "table and blocks are remembered"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_near_each_other_are_one_request_and_most_of_a_segment_is_one_too() {
    let world = World::new();
    let written = Written::new(&world.open(), 100, 65_536).await;
    let store = world.open();
    written.check(&store, [0]).await;
    let before = world.counts();
    written.check(&store, [10, 11, 12, 14]).await;
    assert_eq!(
        world.counts().since(&before).ranges,
        1,
        "across a gap of one block"
    );
    let before = world.counts();
    written.check(&store, [20, 40]).await;
    assert_eq!(world.counts().since(&before).ranges, 2);
    let before = world.counts();
    written.check(&world.open(), 0..80).await;
    assert_eq!(
        (
            world.counts().since(&before).gets,
            world.counts().since(&before).ranges
        ),
        (1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_64_mib_in_sequence_costs_at_most_three_requests_a_segment() {
    let mut world = World::new();
    world.latency = Duration::from_millis(10);
    world.config = DataConfig::with_memory(VaultId([1; 16]), RoomId([2; 16]), 256 << 20);
    let written = Written::new(&world.open(), 1024, 65_536).await;
    assert_eq!(written.infos.len(), 9);
    let store = world.open();
    let before = world.counts();
    read_in_sequence(&written, &store, 2).await;
    let cost = world.counts().since(&before);
    // 16 when reading ahead always wins the race against the reader; a few more when the machine is busy.
    assert!(cost.gets + cost.ranges <= 9 * 3, "{cost:?}");
    assert!(cost.received < (64 << 20) * 102 / 100, "{cost:?}");
}

/// Reads 1024 blocks as a mount does, `step` at a time.
async fn read_in_sequence(written: &Written, store: &DataStore, step: u64) {
    let extent_end = |block: u64| (block - block % 127 + 127).min(1024);
    let mut ahead = store.read_ahead();
    for block in (0..1024).step_by(step as usize) {
        if let Some(range) = ahead.on_read(block..block + step, extent_end) {
            let blocks = range.start..range.end.min(1024);
            store.prefetch(blocks.map(|b| written.request(b)).collect());
        }
        written.check(store, block..block + step).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_in_sequence_fetches_no_byte_twice_into_the_disk_cache() {
    for step in [1, 2, 16] {
        let mut world = World::new();
        world.latency = Duration::from_millis(10);
        world.config = DataConfig::with_memory(VaultId([1; 16]), RoomId([2; 16]), 96 << 20);
        let written = Written::new(&world.open(), 1024, 65_536).await;
        let world = world.with_disk_cache(1 << 30);
        let store = world.open();
        let before = world.counts();
        read_in_sequence(&written, &store, step).await;
        let cost = world.counts().since(&before);
        let stored: u64 = written.infos.values().map(|info| info.object_len).sum();
        assert!(cost.received <= stored, "{step}: {cost:?} of {stored}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_read_in_any_order_cost_the_bytes_of_their_segment() {
    let world = World::new();
    let written = Written::new(&world.open(), 2000, 4000).await;
    let world = world.with_disk_cache(64 << 20);
    let store = world.open();
    let before = world.counts();
    // 707 and 2000 have no common divisor: every block once, far from the last one.
    for n in 0..2000 {
        written.check(&store, [n * 707 % 2000]).await;
    }
    let cost = world.counts().since(&before);
    assert!(cost.received <= written.the_info().object_len, "{cost:?}");
    assert!(cost.ranges <= 8, "{cost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_ranges_that_overlap_fetch_no_byte_twice() {
    let mut world = World::new();
    world.latency = Duration::from_millis(5);
    let written = Arc::new(Written::new(&world.open(), 1000, 8000).await);
    let world = world.with_disk_cache(64 << 20);
    let store = world.open();
    let before = world.counts();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..32u64 {
        let (store, written) = (store.clone(), Arc::clone(&written));
        let first = task * 269 % 900;
        tasks.spawn(async move { written.check(&store, first..first + 100).await });
    }
    tasks.join_all().await;
    let cost = world.counts().since(&before);
    assert!(cost.received <= written.the_info().object_len, "{cost:?}");
    assert!(store.inner.flights.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_fetches_is_asked_for_while_the_rest_is_on_its_way() {
    let world = World::new();
    let written = Arc::new(Written::new(&world.open(), 100, 65_536).await);
    let store = world.open();
    written.check(&store, [99]).await;
    let hang = Rule::new(Failure::Hang).on(Verb::GetRange).times(1);
    world.faults.add(hang);
    let before = world.counts();
    let read = |blocks: Range<u64>| {
        let (store, written) = (store.clone(), Arc::clone(&written));
        tokio::spawn(async move { written.check(&store, blocks).await })
    };
    let hanging = read(0..10);
    wait_for(|| world.faults.fired() == 1).await;
    let waiting = read(5..20);
    wait_for(|| world.counts().since(&before).ranges == 2).await;
    hanging.abort();
    waiting.await.unwrap();
    let cost = world.counts().since(&before);
    assert_eq!(cost.ranges, 3, "0 to 9 in vain, 10 to 19, and 5 to 9 again");
    assert!(cost.received < 15 * 66_000, "{cost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_the_same_blocks_share_one_request() {
    let world = World::new();
    let written = Arc::new(Written::new(&world.open(), 20, 4096).await);
    let store = world.open();
    let before = world.counts();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (store, written) = (store.clone(), Arc::clone(&written));
        tasks.spawn(async move { written.check(&store, 0..20).await });
    }
    tasks.join_all().await;
    let cost = world.counts().since(&before);
    assert_eq!(cost.gets + cost.ranges, 1);
    assert!(store.inner.flights.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_read_does_not_stop_the_next_one() {
    let world = World::new();
    let written = Written::new(&world.open(), 2, 4096).await;
    let store = world.open();
    world
        .faults
        .add(Rule::new(Failure::Hang).on(Verb::Get).times(1));
    tokio::select! {
        _ = store.read(vec![written.request(0)]) => panic!("it hangs"),
        // Else it is the next read that hangs.
        () = wait_for(|| world.faults.fired() == 1) => {}
    }
    written.check(&store, [0, 1]).await;
    assert!(store.inner.flights.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_storage_reach_each_reader_and_are_not_remembered() {
    let world = World::new();
    let written = Written::new(&world.open(), 3, 4096).await;
    let store = world.open();
    let all = || store.read((0..3).map(|b| written.request(b)).collect());
    world.faults.add(
        Rule::new(Failure::Before(ErrorKind::Transient))
            .on(Verb::Get)
            .times(1),
    );
    assert!(
        all()
            .await
            .iter()
            .all(|r| matches!(r, Err(DataError::Storage(e)) if e.is_transient()))
    );
    world
        .faults
        .add(Rule::new(Failure::Withhold).on(Verb::Get).times(1));
    let id = written.the_info().id;
    assert!(
        all()
            .await
            .iter()
            .all(|r| matches!(r, Err(DataError::Missing(s)) if *s == id))
    );
    written.check(&store, 0..3).await;
    let unknown = BlockRead {
        info: None,
        at: BlockRef {
            segment: SegmentId([0; 16]),
            slot: 0,
        },
        ..written.request(0)
    };
    assert!(matches!(
        store.read(vec![unknown]).await.remove(0),
        Err(DataError::Missing(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn small_blocks_bring_their_neighbours_into_the_disk_cache() {
    let world = World::new();
    let written = Written::new(&world.open(), 2000, 4096).await;
    let world = world.with_disk_cache(64 << 20);
    let store = world.open();
    let before = world.counts();
    written.check(&store, [600]).await;
    let cost = world.counts().since(&before);
    assert_eq!(cost.ranges, 2);
    assert!(
        cost.received > 1 << 20 && cost.received < 1300 << 10,
        "{cost:?}"
    );
    for block in 601..850 {
        written.check(&store, [block]).await;
    }
    assert_eq!(
        world.counts().since(&before).ranges,
        2,
        "the neighbours were there"
    );
    assert!(store.counters().disk_hits > 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_cache_has_what_was_written_and_survives_a_restart() {
    let world = World::new().with_disk_cache(64 << 20);
    let store = world.open();
    let written = Written::new(&store, 200, 65_536).await;
    wait_for_the_cache(&store, &written).await;
    drop(store);
    let before = world.counts();
    written.check(&world.open(), 0..200).await;
    let cost = world.counts().since(&before);
    assert_eq!((cost.gets, cost.ranges), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_entries_of_the_disk_cache_are_misses_and_counted() {
    let world = World::new().with_disk_cache(64 << 20);
    let store = world.open();
    let written = Written::new(&store, 10, 4096).await;
    let dir = world.dir.path().join("cache");
    // Start from an empty cache, into which nothing comes late.
    wait_for_the_cache(&store, &written).await;
    drop(store);
    std::fs::remove_dir_all(&dir).unwrap();
    written.check(&world.open(), 0..10).await;
    let files = walk(&dir);
    assert_eq!(files.len(), 2, "blocks and table");
    for file in &files {
        let good = std::fs::read(file).unwrap();
        for at in [0, 25, 40, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            let at = at.min(good.len() - 1);
            bad[at] ^= 1;
            std::fs::write(file, &bad).unwrap();
            let store = world.open();
            written.check(&store, 0..10).await;
            assert!(
                store.counters().bad_cache_entries > 0,
                "{} byte {at}",
                file.display()
            );
            assert!(file.exists(), "fetched and kept again");
            assert_eq!(std::fs::read(file).unwrap().len(), good.len());
        }
        std::fs::write(file, &good[..good.len() / 2]).unwrap();
        written.check(&world.open(), 0..10).await;
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path))
        } else {
            files.push(path)
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_cache_stays_within_its_bound() {
    let world = World::new().with_disk_cache(1 << 20);
    let written = Written::new(&world.open(), 300, 65_536).await;
    let store = world.open();
    for block in (0..300).step_by(7) {
        written.check(&store, [block]).await;
        let size: u64 = walk(&world.dir.path().join("cache"))
            .iter()
            .map(|f| f.metadata().unwrap().len())
            .sum();
        assert!(size <= 1 << 20, "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetching_takes_turns_and_what_it_brought_costs_nothing_more() {
    let mut world = World::new();
    world.config.prefetch_bytes = 1 << 20;
    world.latency = Duration::from_millis(20);
    let written = Written::new(&world.open(), 60, 65_536).await;
    let store = world.open();
    let before = world.counts();
    store.prefetch((0..60).map(|b| written.request(b)).collect());
    wait_for(|| store.inner.prefetched.load(Ordering::Relaxed) == 0).await;
    let cost = world.counts().since(&before);
    assert_eq!(
        (cost.gets, cost.ranges),
        (0, 9),
        "a table and eight parts of eight blocks"
    );
    written.check(&store, 0..60).await;
    assert_eq!(world.counts().since(&before), cost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_no_cache_can_hold_is_fetched_once_a_read() {
    let mut world = World::new();
    world.config.neighbours = 0;
    let written = Written::new(&world.open(), 1900, 4096).await;
    let store = world.open();
    let before = world.counts();
    let (a, b) = (written.request(100), written.request(101));
    store.inner.tables.invalidate_all();
    assert!(store.read(vec![a, b]).await.iter().all(Result::is_ok));
    assert_eq!(world.counts().since(&before).ranges, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn remembered_blocks_are_answered_from_memory() {
    let world = World::new();
    let written = Written::new(&world.open(), 1, 4096).await;
    let store = world.open();
    store.remember(written.blocks[0].0, &plain(0, 4096));
    assert_eq!(&*store.cached(&written.request(0)).unwrap(), plain(0, 4096));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_keeps_none_of_the_others_from_being_kept() {
    let world = World::new();
    let written = Written::new(&world.open(), 20, 4096).await;
    let world = world.with_disk_cache(64 << 20);
    let info = Arc::new(written.the_info().clone());
    let name = object_name(info.id).unwrap();
    let honest = world.storage.peek(&name).unwrap();
    let mut bytes = honest.to_vec();
    bytes[16 + 7 * 4124] ^= 1;
    world.storage.tamper(&name, Some(bytes.into()));
    let store = world.open();
    let (all, bad): (Range<u32>, Range<u32>) = (0..20, 7..8);
    let (all, bad) = (std::slice::from_ref(&all), std::slice::from_ref(&bad));
    for _ in 0..2 {
        let kept = store.keep(Arc::clone(&info), all).await;
        assert!(
            matches!(kept, Err(DataError::Integrity { slot: Some(7), .. })),
            "{kept:?}"
        );
        assert_eq!(store.absent(info.id, all), bad);
    }
    world.storage.tamper(&name, Some(honest));
    store.keep(Arc::clone(&info), all).await.unwrap();
    assert_eq!(store.absent(info.id, all), []);
    world.storage.tamper(&name, None);
    written.check(&store, 0..20).await;
}
