//! What a local folder does beyond the common contract.
#![allow(clippy::unwrap_used)] // Helpers of tests; the lint only excuses the test functions themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_storage::{ErrorKind, LocalStore, ObjectName, Prefix, Store};

fn open(path: &Path) -> LocalStore {
    LocalStore::open(path, false, &SeededEntropy::new(1)).unwrap()
}

fn name(s: &str) -> ObjectName {
    ObjectName::new(s).unwrap()
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_no_empty_vault() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let entropy = SeededEntropy::new(1);
    let error = LocalStore::open(&path, false, &entropy).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NoPlace);
    let store = LocalStore::open(&path, true, &entropy).unwrap();
    store
        .put(&name("a/b"), Bytes::from_static(b"x"))
        .await
        .unwrap();
    // The disk goes away under a running program.
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    let kind = |r: Result<(), skrin_storage::StoreError>| r.unwrap_err().kind();
    let get = store.get(&name("a/b"), 9).await.map(drop);
    assert_eq!(kind(get), ErrorKind::NoPlace);
    assert_eq!(
        kind(store.list(&Prefix::root()).await.map(drop)),
        ErrorKind::NoPlace
    );
    assert_eq!(kind(store.delete(&name("a/b")).await), ErrorKind::NoPlace);
    let put = store.put(&name("a/c"), Bytes::from_static(b"x")).await;
    assert_eq!(kind(put), ErrorKind::NoPlace);
    assert!(!path.exists());
}

/// Found by a review: what was put below the mount point of a disk that was away was called durable, and hidden when it came back.
#[tokio::test]
async fn a_mount_point_without_its_disk_is_no_empty_vault_and_a_disk_that_comes_back_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let (path, disk) = (dir.path().join("mount-point"), dir.path().join("disk"));
    let store = LocalStore::open(&path, true, &SeededEntropy::new(1)).unwrap();
    let put = async |at: &str| store.put(&name(at), Bytes::from_static(b"x")).await;
    put("skrin.vault").await.unwrap();
    put("a/b").await.unwrap();
    fs::rename(&path, &disk).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(put("a/c").await.unwrap_err().kind(), ErrorKind::NoPlace);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    let get = store.get(&name("a/b"), 9).await;
    assert_eq!(get.unwrap_err().kind(), ErrorKind::NoPlace);
    let listing = store.list(&Prefix::new("a").unwrap()).await;
    assert_eq!(listing.unwrap_err().kind(), ErrorKind::NoPlace);
    // Mounted again it may have another number.
    fs::remove_dir(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::copy(disk.join("skrin.vault"), path.join("skrin.vault")).unwrap();
    put("a/c").await.unwrap();
}

#[tokio::test]
async fn hidden_and_foreign_files_are_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .put(&name("ours"), Bytes::from_static(b"x"))
        .await
        .unwrap();
    for foreign in [".hidden", "Upper", "with space", "x~"] {
        fs::write(dir.path().join(foreign), b"x").unwrap();
    }
    symlink("/dev/zero", dir.path().join("planted")).unwrap();
    let listing = store.list(&Prefix::root()).await.unwrap();
    assert_eq!(listing.objects.len(), 1);
    assert!(listing.dirs.is_empty(), "{:?}", listing.dirs);
}

#[tokio::test]
async fn planted_links_pipes_and_directories_are_errors_and_do_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    symlink("/dev/zero", dir.path().join("link")).unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(dir.path().join("pipe"))
        .status();
    assert!(made.unwrap().success());
    for planted in ["link", "dir", "pipe"] {
        let error = store.get(&name(planted), 100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Broken, "{error}");
        let put = store.put(&name(planted), Bytes::from_static(b"x")).await;
        assert!(put.is_err());
    }
}

#[tokio::test]
async fn nothing_is_left_in_the_stage_and_stale_files_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .put(&name("a"), Bytes::from_static(b"x"))
        .await
        .unwrap();
    let _ = store.put(&name("a"), Bytes::from_static(b"y")).await;
    let stage = dir.path().join(".stage");
    assert_eq!(fs::read_dir(&stage).unwrap().count(), 0);

    fs::write(stage.join("fresh"), b"x").unwrap();
    let old = fs::File::create(stage.join("old")).unwrap();
    let two_days_ago =
        std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 24 * 60 * 60);
    old.set_modified(two_days_ago).unwrap();
    drop(open(dir.path()));
    assert!(stage.join("fresh").exists());
    assert!(!stage.join("old").exists());
}

#[tokio::test]
async fn a_directory_removed_by_others_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .put(&name("d/e/a"), Bytes::from_static(b"x"))
        .await
        .unwrap();
    fs::remove_dir_all(dir.path().join("d")).unwrap();
    fs::remove_dir_all(dir.path().join(".stage")).unwrap();
    store
        .put(&name("d/e/b"), Bytes::from_static(b"y"))
        .await
        .unwrap();
    assert_eq!(store.get(&name("d/e/b"), 9).await.unwrap(), "y");
}

#[tokio::test]
async fn the_folder_tells_its_capacity() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = open(dir.path()).capacity().await.unwrap();
    assert!(capacity.available.unwrap() <= capacity.total.unwrap());
    assert!(capacity.total.unwrap() > 0);
}
