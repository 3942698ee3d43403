//! What every storage must do, as functions that panic where it does not. Run on each backend, each decorator
//! and each real server; they share one storage and may run side by side.
#![allow(clippy::unwrap_used, clippy::panic)] // Assertions of tests, kept out of production builds by the feature.

use bytes::Bytes;
use futures_util::future::join_all;

use crate::{
    ErrorKind, Listing, ObjectName, Prefix, Store, StoreError, put_confirmed, put_verified,
};

/// All checks one after the other. `area` is the first segment of every name used and must be fresh.
pub async fn all(store: &dyn Store, area: &str) {
    what_was_put_comes_back(store, area).await;
    an_absent_object_is_absent(store, area).await;
    ranges_are_exact(store, area).await;
    the_same_bytes_may_be_put_again(store, area).await;
    an_object_above_the_bound_is_refused(store, area).await;
    a_listing_shows_what_lies_directly_in_a_directory(store, area).await;
    deleted_objects_are_gone_and_absent_ones_are_fine(store, area).await;
    puts_are_confirmed(store, area).await;
    many_at_once_do_not_disturb_each_other(store, area).await;
    capacity_is_plausible(store).await;
}

fn name(area: &str, rest: &str) -> ObjectName {
    ObjectName::new(format!("{area}/{rest}")).unwrap()
}

/// Bytes that differ from place to place, so that a shifted range is noticed.
pub fn pattern(len: usize, seed: u64) -> Bytes {
    let mut x = seed | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// A put object is there, whole, at once: empty, small and large, at the root of the area and deep down.
pub async fn what_was_put_comes_back(store: &dyn Store, area: &str) {
    for (i, len) in [0, 1, 63, 4096, 65_537, 4 << 20].into_iter().enumerate() {
        for place in [
            format!("back-{i}"),
            format!("rooms/ab/lanes/cd/00000000/back-{i}.x"),
        ] {
            let name = name(area, &place);
            let bytes = pattern(len, i as u64);
            store.put(&name, bytes.clone()).await.unwrap();
            assert_eq!(store.get(&name, len).await.unwrap(), bytes, "{name}");
        }
    }
}

/// Reading what nobody put says so, also below directories that do not exist.
pub async fn an_absent_object_is_absent(store: &dyn Store, area: &str) {
    for place in ["nothing", "no/such/place", "absent/sibling-not"] {
        let name = name(area, place);
        assert_eq!(
            kind(store.get(&name, 10).await),
            ErrorKind::Absent,
            "{name}"
        );
        let error = store.get_range(&name, 0, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Absent);
        assert!(error.to_string().contains(name.as_str()), "{error}");
    }
}

/// A range is exactly what was asked for, at every edge; what lies beyond the end is an error.
pub async fn ranges_are_exact(store: &dyn Store, area: &str) {
    let name = name(area, "ranges");
    let len = 300_000;
    let bytes = pattern(len, 7);
    store.put(&name, bytes.clone()).await.unwrap();
    for (start, n) in [
        (0, 1),
        (0, len),
        (1, 1),
        (len - 1, 1),
        (65_536, 65_536),
        (len - 64, 64),
    ] {
        let got = store.get_range(&name, start as u64, n).await.unwrap();
        assert_eq!(got, bytes[start..start + n], "{start}+{n}");
    }
    assert!(store.get_range(&name, 5, 0).await.unwrap().is_empty());
    for (start, n) in [
        (0, len + 1),
        (len - 1, 2),
        (len, 1),
        (len + 1, 1),
        (usize::MAX >> 1, 1),
    ] {
        let kind = kind(store.get_range(&name, start as u64, n).await);
        assert_eq!(kind, ErrorKind::Broken, "{start}+{n}");
    }
    assert_eq!(
        kind(store.get_range(&name, u64::MAX, 1).await),
        ErrorKind::Broken
    );
}

/// A repeat of the same put, one after the other and at once, is fine.
pub async fn the_same_bytes_may_be_put_again(store: &dyn Store, area: &str) {
    let name = name(area, "again/object");
    let bytes = pattern(100_000, 9);
    for _ in 0..3 {
        store.put(&name, bytes.clone()).await.unwrap();
    }
    assert_eq!(store.get(&name, bytes.len()).await.unwrap(), bytes);
}

/// The reader's bound holds exactly.
pub async fn an_object_above_the_bound_is_refused(store: &dyn Store, area: &str) {
    let name = name(area, "bound");
    let bytes = pattern(200_000, 11);
    store.put(&name, bytes.clone()).await.unwrap();
    assert_eq!(store.get(&name, 200_000).await.unwrap(), bytes);
    for max in [0, 1, 199_999] {
        assert_eq!(
            kind(store.get(&name, max).await),
            ErrorKind::Broken,
            "{max}"
        );
    }
}

fn objects(listing: &Listing) -> Vec<&str> {
    listing.objects.iter().map(|o| o.name.file_name()).collect()
}

/// Objects and directories, sorted, direct ones only; an absent directory is empty.
pub async fn a_listing_shows_what_lies_directly_in_a_directory(store: &dyn Store, area: &str) {
    let dir = Prefix::new(format!("{area}/list")).unwrap();
    assert_eq!(store.list(&dir).await.unwrap(), Listing::default());
    let names = ["b", "a.b-c", "sub/one", "sub/two", "sub2/deep/er", "bb"];
    for (i, rest) in names.iter().enumerate() {
        let bytes = pattern(i, 1);
        store
            .put(&name(area, &format!("list/{rest}")), bytes)
            .await
            .unwrap();
    }
    let listing = store.list(&dir).await.unwrap();
    assert_eq!(objects(&listing), ["a.b-c", "b", "bb"]);
    assert_eq!(listing.dirs, ["sub", "sub2"]);
    for object in &listing.objects {
        assert_eq!(object.name.parent(), dir);
        let len = store.get(&object.name, 10).await.unwrap().len() as u64;
        assert!(object.len.is_none_or(|listed| listed == len));
    }
    let sub = store.list(&dir.dir("sub").unwrap()).await.unwrap();
    assert_eq!(objects(&sub), ["one", "two"]);
    assert!(sub.dirs.is_empty());
    // A directory's name is no prefix of another's.
    let none = store.list(&dir.dir("su").unwrap()).await.unwrap();
    assert_eq!(none, Listing::default());
    let top = store.list(&Prefix::root()).await.unwrap();
    assert!(top.dirs.iter().any(|d| d == area));
}

/// What was deleted is neither read nor listed; deleting it again, or what never was, is fine.
pub async fn deleted_objects_are_gone_and_absent_ones_are_fine(store: &dyn Store, area: &str) {
    let name = name(area, "deleted/object");
    store.delete(&name).await.unwrap();
    store.put(&name, pattern(10, 1)).await.unwrap();
    store.delete(&name).await.unwrap();
    store.delete(&name).await.unwrap();
    assert_eq!(kind(store.get(&name, 10).await), ErrorKind::Absent);
    assert!(store.list(&name.parent()).await.unwrap().objects.is_empty());
}

/// The witness is given for what is really there, for lengths around the trailer and the whole read-back.
pub async fn puts_are_confirmed(store: &dyn Store, area: &str) {
    for len in [0, 1, 64, 65, 4096, 65_536, 65_537, 1 << 20] {
        let bytes = pattern(len, 13);
        let one = name(area, &format!("confirmed/{len}"));
        let witness = put_confirmed(store, &one, bytes.clone()).await.unwrap();
        assert_eq!(witness.get(), &one);
        let two = name(area, &format!("verified/{len}"));
        let witness = put_verified(store, &two, bytes.clone()).await.unwrap();
        assert_eq!(witness.into_inner(), two);
        assert_eq!(store.get(&one, len).await.unwrap(), bytes);
    }
}

/// Sixteen writers in fresh directories, then sixteen readers: nobody is lost, nothing is mixed up.
pub async fn many_at_once_do_not_disturb_each_other(store: &dyn Store, area: &str) {
    let names: Vec<_> = (0..16)
        .map(|i| name(area, &format!("many/{}/deep/{i}", i % 4)))
        .collect();
    let puts = names.iter().enumerate().map(|(i, name)| {
        let bytes = pattern(10_000 + i, i as u64);
        async move { store.put(name, bytes).await }
    });
    for result in join_all(puts).await {
        result.unwrap();
    }
    let gets = names.iter().map(|name| store.get(name, 20_000));
    for (i, result) in join_all(gets).await.into_iter().enumerate() {
        assert_eq!(result.unwrap(), pattern(10_000 + i, i as u64));
    }
    let dir = Prefix::new(format!("{area}/many")).unwrap();
    assert_eq!(store.list(&dir).await.unwrap().dirs, ["0", "1", "2", "3"]);
}

/// Where the storage tells, no more is free than there is.
pub async fn capacity_is_plausible(store: &dyn Store) {
    let capacity = store.capacity().await.unwrap();
    if let (Some(total), Some(available)) = (capacity.total, capacity.available) {
        assert!(available <= total, "{capacity:?}");
    }
}

/// Only for storages that can tell: other bytes under a name that is taken are refused and change nothing.
pub async fn other_bytes_under_a_taken_name_are_refused(store: &dyn Store, area: &str) {
    let name = name(area, "taken");
    store.put(&name, pattern(70_000, 1)).await.unwrap();
    for other in [pattern(70_000, 3), pattern(69_999, 1), Bytes::new()] {
        assert_eq!(kind(store.put(&name, other).await), ErrorKind::Exists);
    }
    assert_eq!(store.get(&name, 70_000).await.unwrap(), pattern(70_000, 1));
}
