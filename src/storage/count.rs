//! Counts what goes to a storage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Capacity, Listing, ObjectName, Prefix, Store, StoreError, Verb};

/// Operations begun and bytes moved since the counters were made. They may be shared and read at any time.
#[derive(Debug, Default)]
pub struct Counters {
    operations: [AtomicU64; Verb::ALL.len()],
    sent: AtomicU64,
    received: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Puts begun.
    pub puts: u64,
    /// Whole gets begun.
    pub gets: u64,
    /// Ranged gets begun.
    pub ranges: u64,
    /// Listings begun.
    pub lists: u64,
    /// Deletions begun.
    pub deletes: u64,
    /// Questions for the free space.
    pub capacities: u64,
    /// Bytes of objects handed to `put`, whether it succeeded or not.
    pub sent: u64,
    /// Bytes of objects that came back.
    pub received: u64,
}

impl Counts {
    /// All operations together.
    pub fn operations(&self) -> u64 {
        self.puts + self.gets + self.ranges + self.lists + self.deletes + self.capacities
    }

    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            puts: self.puts.saturating_sub(earlier.puts),
            gets: self.gets.saturating_sub(earlier.gets),
            ranges: self.ranges.saturating_sub(earlier.ranges),
            lists: self.lists.saturating_sub(earlier.lists),
            deletes: self.deletes.saturating_sub(earlier.deletes),
            capacities: self.capacities.saturating_sub(earlier.capacities),
            sent: self.sent.saturating_sub(earlier.sent),
            received: self.received.saturating_sub(earlier.received),
        }
    }
}

impl Counters {
    fn begin(&self, verb: Verb) {
        self.operations[verb as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn received(&self, result: &Result<Bytes, StoreError>) {
        let len = result.as_ref().map_or(0, Bytes::len);
        self.received.fetch_add(len as u64, Ordering::Relaxed);
    }

    /// Reads them.
    pub fn counts(&self) -> Counts {
        let of = |verb: Verb| self.operations[verb as usize].load(Ordering::Relaxed);
        Counts {
            puts: of(Verb::Put),
            gets: of(Verb::Get),
            ranges: of(Verb::GetRange),
            lists: of(Verb::List),
            deletes: of(Verb::Delete),
            capacities: of(Verb::Capacity),
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }
}

/// Counts the operations that reach the store inside.
pub struct Count<S> {
    inner: S,
    counters: Arc<Counters>,
}

impl<S: Store> Count<S> {
    /// Wraps a store; the counters may be shared with others.
    pub fn new(inner: S, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Count<S> {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.counters.begin(Verb::Put);
        let len = bytes.len() as u64;
        self.counters.sent.fetch_add(len, Ordering::Relaxed);
        self.inner.put(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        self.counters.begin(Verb::Get);
        let result = self.inner.get(name, max).await;
        self.counters.received(&result);
        result
    }
    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        self.counters.begin(Verb::GetRange);
        let result = self.inner.get_range(name, start, len).await;
        self.counters.received(&result);
        result
    }
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        self.counters.begin(Verb::List);
        self.inner.list(dir).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.counters.begin(Verb::Delete);
        self.inner.delete(name).await
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        self.counters.begin(Verb::Capacity);
        self.inner.capacity().await
    }
    fn place(&self) -> String {
        self.inner.place()
    }
}
