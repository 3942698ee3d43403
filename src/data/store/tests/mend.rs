use super::*;
use skrin_storage::fault::{Failure, Rule};
use skrin_storage::{ErrorKind, Verb};

/// What a storage did to an object; `None` is a missing one.
fn damaged(honest: &[u8], how: usize, dice: &mut SeededEntropy) -> Option<Vec<u8>> {
    let len = honest.len();
    let mut bytes = honest.to_vec();
    match how {
        0 => bytes[(dice.u64() % len as u64) as usize] ^= 0x10,
        1 => bytes.truncate((dice.u64() % len as u64) as usize),
        2 => bytes.push(7),
        3 => bytes.resize(len + (1 << 20), 7),
        4 => bytes.fill(0),
        5 => bytes.clear(),
        6 => bytes.reverse(),
        _ => return None,
    }
    Some(bytes)
}

fn spare(world: &World) -> PathBuf {
    world.dir.path().join("spare")
}

fn is_empty(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir);
    entries.map_or(true, |mut entries| entries.next().is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_done_to_a_segment_the_cache_puts_the_very_bytes_again() {
    let world = World::new().with_disk_cache(64 << 20);
    let store = world.open();
    let written = Written::new(&store, 20, 4096).await;
    let info = Arc::new(written.the_info().clone());
    let name = object_name(info.id).unwrap();
    let honest = world.storage.peek(&name).unwrap();
    wait_for_cache(&store, &info).await;
    let mut dice = SeededEntropy::new(5);
    let spare_dir = spare(&world);
    let mend = || store.mend_segment(Arc::clone(&info), &spare_dir);
    assert_eq!(mend().await.unwrap(), Mended::Whole);
    for how in (0..64).map(|n| n % 8) {
        let bytes = damaged(&honest, how, &mut dice).map(Bytes::from);
        world.storage.tamper(&name, bytes);
        assert_eq!(mend().await.unwrap(), Mended::PutAgain, "{how}");
        assert_eq!(world.storage.peek(&name).unwrap(), honest, "{how}");
        assert_eq!(mend().await.unwrap(), Mended::Whole, "{how}");
        assert!(is_empty(&spare(&world)));
    }
}

/// The upload keeps what it put in the cache after it has said that it is there.
async fn wait_for_cache(store: &DataStore, info: &SegmentInfo) {
    let all = 0..info.slots;
    while !store.absent(info.id, std::slice::from_ref(&all)).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_header_and_padding_are_made_and_lost_blocks_are_told_and_nothing_is_put() {
    let world = World::new();
    let store = world.open();
    let written = Written::new(&store, 20, 4096).await;
    let info = Arc::new(written.the_info().clone());
    let name = object_name(info.id).unwrap();
    let honest = world.storage.peek(&name).unwrap();
    let block = |slot: usize| 16 + slot * (4096 + 28);
    let table = info.table_offset as usize;
    let lost = |slots: &[u32]| Mended::Lost(slots.to_vec());
    for (at, expected) in [
        (vec![3], Mended::PutAgain),
        (vec![15, block(20), table - 1], Mended::PutAgain),
        (vec![block(7)], lost(&[7])),
        (vec![3, block(0), block(19) + 4123], lost(&[0, 19])),
        (vec![table], Mended::NoTable),
        (vec![honest.len() - 1, block(2)], Mended::NoTable),
    ] {
        let mut bytes = honest.to_vec();
        at.iter().for_each(|at| bytes[*at] ^= 1);
        let bytes = Bytes::from(bytes);
        world.storage.tamper(&name, Some(bytes.clone()));
        let mended = store.mend_segment(Arc::clone(&info), &spare(&world)).await;
        assert_eq!(mended.unwrap(), expected, "{at:?}");
        let after = match expected {
            Mended::PutAgain => &honest,
            _ => &bytes,
        };
        assert_eq!(&world.storage.peek(&name).unwrap(), after, "{at:?}");
    }
    // Longer than declared, all of it is there.
    world
        .storage
        .tamper(&name, Some([&honest[..], &[1; 5000]].concat().into()));
    let mended = store.mend_segment(Arc::clone(&info), &spare(&world)).await;
    assert_eq!(mended.unwrap(), Mended::PutAgain);
    world.storage.tamper(&name, None);
    let mended = store.mend_segment(Arc::clone(&info), &spare(&world)).await;
    assert_eq!(mended.unwrap(), Mended::NoTable);
    assert_eq!(world.storage.peek(&name), None);
    assert!(is_empty(&spare(&world)));
}

/// Half of the blocks only the damaged object has, the other half only the cache.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_fails_half_way_loses_nothing_that_only_the_damaged_object_had() {
    let world = World::new().with_disk_cache(64 << 20);
    let store = world.open();
    let written = Written::new(&store, 20, 4096).await;
    let info = Arc::new(written.the_info().clone());
    let name = object_name(info.id).unwrap();
    let honest = world.storage.peek(&name).unwrap();
    wait_for_cache(&store, &info).await;
    drop(store);
    std::fs::remove_dir_all(world.dir.path().join("cache")).unwrap();
    let store = world.open();
    let half = 0..10;
    let half = std::slice::from_ref(&half);
    store.keep(Arc::clone(&info), half).await.unwrap();
    let mut bytes = honest.to_vec();
    bytes[16 + 3 * 4124] ^= 1;
    world.storage.tamper(&name, Some(bytes.into()));
    // The old object goes, and the new one does not come.
    let second_put = Rule::new(Failure::Before(ErrorKind::Full)).on(Verb::Put);
    world.faults.add(second_put.after(1).times(1));
    let failed = store.mend_segment(Arc::clone(&info), &spare(&world)).await;
    assert!(failed.is_err());
    assert_eq!(world.faults.fired(), 1);
    assert_eq!(world.storage.peek(&name), None);
    let mended = store.mend_segment(Arc::clone(&info), &spare(&world)).await;
    assert_eq!(mended.unwrap(), Mended::PutAgain);
    assert_eq!(world.storage.peek(&name).unwrap(), honest);
    assert!(is_empty(&spare(&world)));
}

/// A segment that another device of this lane's person would have to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_journal_mends_too() {
    let world = World::new();
    let store = world.open();
    let at = write(&store, 1, 4096);
    let durable = store.make_durable(&[at.segment]).await.unwrap();
    let info = Arc::new(durable[0].get().clone());
    let name = object_name(info.id).unwrap();
    let honest = world.storage.peek(&name).unwrap();
    world.storage.tamper(&name, None);
    let mended = store.mend_segment(Arc::clone(&info), &spare(&world)).await;
    assert_eq!(mended.unwrap(), Mended::PutAgain);
    assert_eq!(world.storage.peek(&name).unwrap(), honest);
}
