//! What is kept on the local disk for a time without the storage.

use super::*;
use std::fs;
use std::io::ErrorKind;

const CACHE: u64 = 64 << 20;

/// Blocks on the storage, and a store with an empty cache that may differ.
async fn published(adjust: impl FnOnce(&mut DataConfig)) -> (World, DataStore, Written) {
    let world = World::new();
    let written = Written::new(&world.open(), 20, 4096).await;
    let mut world = world.with_disk_cache(CACHE);
    adjust(&mut world.config);
    let store = world.open();
    (world, store, written)
}

/// The files of tables in the cache, or the others.
fn files(world: &World, tables: bool) -> Vec<PathBuf> {
    let dirs = fs::read_dir(world.dir.path().join("cache")).unwrap();
    let files = dirs.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    let is_table = |path: &PathBuf| path.extension().is_some_and(|end| end == "table");
    paths.filter(|path| is_table(path) == tables).collect()
}

fn is_full(error: &DataError) -> bool {
    matches!(error, DataError::LocalDisk { source, .. } if source.kind() == ErrorKind::StorageFull)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_removed_or_emptied_in_the_cache_is_not_called_here_and_is_kept_anew() {
    let (world, store, written) = published(|_| ()).await;
    let info = Arc::new(written.the_info().clone());
    let slots = [0..5, 5..20];
    store.keep(Arc::clone(&info), &slots).await.unwrap();
    assert_eq!(store.absent(info.id, &slots), []);
    for (tables, empty) in [(false, false), (false, true), (true, false), (true, true)] {
        let spoilt = files(&world, tables);
        assert!(!spoilt.is_empty());
        for path in spoilt {
            match empty {
                true => fs::write(path, b"").unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
        let what = format!("tables: {tables}, emptied: {empty}");
        assert_eq!(store.absent(info.id, &slots), slots, "{what}");
        store.keep(Arc::clone(&info), &slots).await.unwrap();
        assert_eq!(store.absent(info.id, &slots), [], "{what}");
    }
    assert!(!files(&world, false).is_empty() && !files(&world, true).is_empty());
    let before = world.counts();
    written.check(&store, 0..20).await;
    let after = world.counts();
    assert_eq!((after.ranges, after.gets), (before.ranges, before.gets));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_local_disk_has_no_room_for_is_not_fetched() {
    let (world, store, written) = published(|config| config.keep_free = u64::MAX).await;
    let info = Arc::new(written.the_info().clone());
    let before = world.counts();
    let all = 0..20;
    let kept = store.keep(info, std::slice::from_ref(&all)).await;
    assert!(is_full(&kept.unwrap_err()));
    let after = world.counts();
    assert_eq!((after.ranges, after.gets), (before.ranges, before.gets));
    // Whoever reads is served all the same.
    written.check(&store, 0..20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_again_is_not_where_its_copy_would_fill_the_local_disk() {
    let (world, store, written) = published(|config| config.keep_free = u64::MAX).await;
    let info = Arc::new(written.the_info().clone());
    let name = object_name(info.id).unwrap();
    let mut bytes = world.storage.peek(&name).unwrap().to_vec();
    bytes[3] ^= 1;
    let bytes = Bytes::from(bytes);
    world.storage.tamper(&name, Some(bytes.clone()));
    let spare = world.dir.path().join("spare");
    let mended = store.mend_segment(Arc::clone(&info), &spare).await;
    assert!(is_full(&mended.unwrap_err()));
    assert_eq!(world.storage.peek(&name).unwrap(), bytes);
    assert!(!spare.exists());
}
