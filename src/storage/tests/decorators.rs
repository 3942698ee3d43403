//! The decorators: each alone, wrapped twice, all together, and what each promises.
#![allow(clippy::unwrap_used)] // Helpers of tests; the lint only excuses the test functions themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_storage::fault::{Failure, Fault, Faults, Rule};
use skrin_storage::{
    Capacity, Count, Counters, ErrorKind, Limit, Listing, MemoryStore, ObjectName, Prefix, Retry,
    RetryPolicy, Store, StoreError, Verb, conformance, put_confirmed, put_over, put_verified,
};
use tokio::time::Instant;

fn name(s: &str) -> ObjectName {
    ObjectName::new(s).unwrap()
}

fn retry<S: Store>(inner: S) -> Retry<S> {
    let entropy = Arc::new(SeededEntropy::new(7));
    Retry::new(inner, RetryPolicy::default(), entropy)
}

fn faulty() -> (Fault<Arc<MemoryStore>>, Faults, Arc<MemoryStore>) {
    let (memory, faults) = (Arc::new(MemoryStore::new()), Faults::default());
    (
        Fault::new(Arc::clone(&memory), faults.clone()),
        faults,
        memory,
    )
}

#[tokio::test]
async fn each_decorator_conforms() {
    let memory = || Arc::new(MemoryStore::new());
    conformance::all(&retry(memory()), "a").await;
    conformance::all(&Limit::new(memory(), 3), "a").await;
    conformance::all(&Count::new(memory(), Arc::default()), "a").await;
    conformance::all(&Fault::new(memory(), Faults::default()), "a").await;
    conformance::all(&memory(), "a").await;
}

#[tokio::test]
async fn each_decorator_conforms_when_wrapped_twice() {
    let memory = || Arc::new(MemoryStore::new());
    conformance::all(&retry(retry(memory())), "a").await;
    conformance::all(&Limit::new(Limit::new(memory(), 1), 2), "a").await;
    let counted = Count::new(memory(), Arc::default());
    conformance::all(&Count::new(counted, Arc::default()), "a").await;
    let fault = Fault::new(memory(), Faults::default());
    conformance::all(&Fault::new(fault, Faults::default()), "a").await;
}

#[tokio::test(start_paused = true)]
async fn with_faults_every_third_time_a_retried_store_conforms() {
    let (fault, faults, _) = faulty();
    let every_third = Arc::new(AtomicUsize::new(0));
    for failure in [
        Failure::Before(ErrorKind::Transient),
        Failure::After(ErrorKind::Transient),
    ] {
        let n = Arc::clone(&every_third);
        faults.add(
            Rule::new(failure).named(move |_| n.fetch_add(1, Ordering::Relaxed).is_multiple_of(3)),
        );
    }
    conformance::all(&Limit::new(retry(fault), 4), "a").await;
    assert!(faults.fired() > 50, "{}", faults.fired());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_put_is_repeated_with_the_same_bytes() {
    let (fault, faults, memory) = faulty();
    let counters = Arc::new(Counters::default());
    let store = retry(Count::new(fault, Arc::clone(&counters)));
    faults.add(
        Rule::new(Failure::After(ErrorKind::Transient))
            .on(Verb::Put)
            .times(2),
    );
    store
        .put(&name("a/b"), Bytes::from_static(b"x"))
        .await
        .unwrap();
    assert_eq!(counters.counts().puts, 3);
    assert_eq!(counters.counts().sent, 3);
    assert_eq!(memory.peek(&name("a/b")).unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn only_transient_errors_are_repeated() {
    for kind in [
        ErrorKind::Absent,
        ErrorKind::Exists,
        ErrorKind::Denied,
        ErrorKind::Full,
        ErrorKind::Broken,
        ErrorKind::Unsupported,
        ErrorKind::NoPlace,
        ErrorKind::Untrusted,
    ] {
        let (fault, faults, _) = faulty();
        faults.add(Rule::new(Failure::Before(kind)));
        let error = retry(fault).get(&name("x"), 10).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(faults.fired(), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_pauses_grow_up_to_their_bound() {
    let (fault, faults, _) = faulty();
    faults.add(Rule::new(Failure::Before(ErrorKind::Transient)));
    let begin = Instant::now();
    let error = retry(fault).list(&Prefix::root()).await.unwrap_err();
    assert!(error.is_transient());
    let policy = RetryPolicy::default();
    assert!(begin.elapsed() <= policy.patience);
    // Were the pauses not to grow, there would be over a thousand attempts; were they not bounded, under ten.
    assert!(
        (12..80).contains(&faults.fired()),
        "{} attempts",
        faults.fired()
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_storage_is_gone_each_operation_makes_one_attempt_until_one_succeeds() {
    let (fault, faults, _) = faulty();
    let store = retry(fault);
    faults.add(Rule::new(Failure::Before(ErrorKind::Transient)));
    let root = Prefix::root();
    let gone = || store.list(&root);
    gone().await.unwrap_err();
    tokio::time::advance(RetryPolicy::default().patience).await;
    for _ in 0..3 {
        let (before, begin) = (faults.fired(), Instant::now());
        gone().await.unwrap_err();
        assert_eq!(
            (faults.fired() - before, begin.elapsed()),
            (1, Duration::ZERO)
        );
    }
    faults.clear();
    gone().await.unwrap();
    let before = faults.fired();
    faults.add(Rule::new(Failure::Before(ErrorKind::Transient)).times(3));
    gone().await.unwrap();
    assert_eq!(faults.fired() - before, 3, "patience is back");
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_hangs_is_given_up_and_tried_again() {
    let (fault, faults, _) = faulty();
    faults.add(Rule::new(Failure::Hang).times(1));
    let policy = RetryPolicy {
        patience: Duration::from_secs(1000),
        ..RetryPolicy::default()
    };
    let store = Retry::new(fault, policy, Arc::new(SeededEntropy::new(1)));
    let begin = Instant::now();
    let bytes = Bytes::from_static(b"x");
    store.put(&name("a"), bytes.clone()).await.unwrap();
    assert!(begin.elapsed() >= policy.attempt);
    faults.add(Rule::new(Failure::Hang));
    let impatient = retry(store);
    let error = impatient.get(&name("a"), 1).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2000));
}

/// Answers once that it is busy and says for how long.
struct Busy(AtomicUsize, MemoryStore);

#[async_trait]
impl Store for Busy {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(StoreError::new(ErrorKind::Transient, "busy")
                .retry_after(Some(Duration::from_secs(33))));
        }
        self.1.put(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        self.1.get(name, max).await
    }
    async fn get_range(&self, n: &ObjectName, start: u64, len: usize) -> Result<Bytes, StoreError> {
        self.1.get_range(n, start, len).await
    }
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        self.1.list(dir).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.1.delete(name).await
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        self.1.capacity().await
    }
    fn place(&self) -> String {
        self.1.place()
    }
}

#[tokio::test(start_paused = true)]
async fn the_pause_that_a_server_asks_for_is_kept() {
    let begin = Instant::now();
    let store = retry(Busy(AtomicUsize::new(0), MemoryStore::new()));
    store.put(&name("a"), Bytes::new()).await.unwrap();
    let waited = begin.elapsed();
    assert!(
        waited >= Duration::from_secs(33) && waited < Duration::from_secs(34),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limit_run_at_once_and_one_that_is_dropped_makes_room() {
    let (fault, faults, _) = faulty();
    let store = Arc::new(Limit::new(fault, 2));
    faults.add(Rule::new(Failure::Hang).on(Verb::Get));
    let hanging: Vec<_> = (0..2)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.get(&name("x"), 1).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let object = name("a");
    let put = store.put(&object, Bytes::new());
    let waited = tokio::time::timeout(Duration::from_secs(60), put).await;
    assert!(waited.is_err());
    hanging[0].abort();
    store.put(&name("a"), Bytes::new()).await.unwrap();
    hanging[1].abort();
}

#[tokio::test]
async fn counts_are_exact() {
    let counters = Arc::new(Counters::default());
    let store = Count::new(MemoryStore::new(), Arc::clone(&counters));
    let bytes = conformance::pattern(1000, 1);
    put_confirmed(&store, &name("a/b"), bytes.clone())
        .await
        .unwrap();
    let first = counters.counts();
    assert_eq!(
        (first.puts, first.ranges, first.gets, first.operations()),
        (1, 1, 0, 2)
    );
    assert_eq!((first.sent, first.received), (1000, 64));
    let object = name("a/b");
    let gets = (0..5).map(|_| store.get(&object, 1000));
    assert!(join_all(gets).await.iter().all(Result::is_ok));
    store.list(&Prefix::root()).await.unwrap();
    store.delete(&name("a/b")).await.unwrap();
    store.capacity().await.unwrap();
    assert!(store.get(&name("a/b"), 1000).await.is_err());
    let then = counters.counts().since(&first);
    assert_eq!(
        (then.gets, then.lists, then.deletes, then.capacities),
        (6, 1, 1, 1)
    );
    assert_eq!((then.puts, then.sent, then.received), (0, 0, 5000));
}

#[tokio::test]
async fn a_put_that_was_cut_or_changed_is_never_called_durable() {
    let bytes = conformance::pattern(5000, 1);
    for failure in [
        Failure::CutPut(0),
        Failure::CutPut(4999),
        Failure::CutPut(64),
        Failure::FlipGet(63),
        Failure::CutGet(63),
        Failure::Withhold,
    ] {
        let (store, faults, _) = faulty();
        faults.add(Rule::new(failure));
        assert!(
            put_confirmed(&store, &name("a"), bytes.clone())
                .await
                .is_err(),
            "{failure:?}"
        );
        let (store, faults, _) = faulty();
        faults.add(Rule::new(failure));
        assert!(
            put_verified(&store, &name("a"), bytes.clone())
                .await
                .is_err(),
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn an_object_that_is_accepted_and_not_shown_may_be_tried_again() {
    let (store, faults, _) = faulty();
    faults.add(Rule::new(Failure::Withhold).on(Verb::GetRange));
    let bytes = conformance::pattern(1000, 1);
    let error = put_confirmed(&store, &name("a"), bytes.clone())
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
    faults.clear();
    put_confirmed(&store, &name("a"), bytes).await.unwrap();
}

#[tokio::test]
async fn faults_act_on_the_names_and_as_often_as_told() {
    let (store, faults, memory) = faulty();
    faults.add(
        Rule::new(Failure::Before(ErrorKind::Full))
            .on(Verb::Put)
            .named(|name| name.starts_with("segments/"))
            .after(1)
            .times(2),
    );
    let put = |n: &'static str| {
        let store = &store;
        async move {
            store
                .put(&name(n), Bytes::new())
                .await
                .map_err(|e| e.kind())
        }
    };
    assert_eq!(put("segments/a").await, Ok(()));
    assert_eq!(put("slots/a").await, Ok(()));
    assert_eq!(put("segments/b").await, Err(ErrorKind::Full));
    assert_eq!(put("segments/c").await, Err(ErrorKind::Full));
    assert_eq!(put("segments/d").await, Ok(()));
    assert_eq!((faults.fired(), memory.names().len()), (2, 3));
}

#[tokio::test]
async fn a_stale_listing_is_that_of_the_last_time() {
    let (store, faults, _) = faulty();
    let put = |n: &'static str| store.put_now(n);
    put("d/a").await;
    let dir = Prefix::new("d").unwrap();
    assert_eq!(store.list(&dir).await.unwrap().objects.len(), 1);
    put("d/b").await;
    faults.add(Rule::new(Failure::StaleList).times(1));
    assert_eq!(store.list(&dir).await.unwrap().objects.len(), 1);
    assert_eq!(store.list(&dir).await.unwrap().objects.len(), 2);
}

trait PutNow {
    async fn put_now(&self, object: &str);
}

impl<S: Store> PutNow for S {
    async fn put_now(&self, object: &str) {
        self.put(&name(object), Bytes::new()).await.unwrap();
    }
}

/// What stands where the good bytes belong.
#[tokio::test]
async fn good_bytes_take_the_place_of_whatever_lies_there_and_are_read_back() {
    let good = Bytes::from(vec![7; 200_000]);
    let mut flipped = good.to_vec();
    flipped[1000] ^= 1;
    for there in [
        None,
        Some(good.clone()),
        Some(Bytes::new()),
        Some(good.slice(..100)),
        Some(Bytes::from(flipped)),
        Some(Bytes::from(vec![7; 200_001])),
    ] {
        let memory = MemoryStore::new();
        let name = name("segments/aa/x");
        memory.tamper(&name, there);
        put_over(&memory, &name, good.clone()).await.unwrap();
        assert_eq!(memory.peek(&name), Some(good.clone()));
    }
}

#[tokio::test]
async fn what_cannot_be_put_over_leaves_what_lies_there() {
    // Broken: a disk that fails.
    for kind in [ErrorKind::Full, ErrorKind::Broken, ErrorKind::Denied] {
        let (fault, faults, memory) = faulty();
        let name = name("segments/aa/x");
        memory.tamper(&name, Some(Bytes::from_static(b"damaged")));
        faults.add(Rule::new(Failure::Before(kind)).on(Verb::Put));
        let error = put_over(&fault, &name, Bytes::from_static(b"good")).await;
        assert_eq!(error.unwrap_err().kind(), kind);
        assert_eq!(memory.peek(&name), Some(Bytes::from_static(b"damaged")));
    }
}
