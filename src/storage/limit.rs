//! At most so many requests at once.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Capacity, Listing, ObjectName, Prefix, Store, StoreError};

/// Lets a fixed number of operations through at a time; the others wait in order.
pub struct Limit<S> {
    inner: S,
    permits: Semaphore,
}

impl<S: Store> Limit<S> {
    /// At most `parallel` at once, and at least one.
    pub fn new(inner: S, parallel: usize) -> Self {
        let permits = Semaphore::new(parallel.clamp(1, Semaphore::MAX_PERMITS));
        Self { inner, permits }
    }

    /// `None` only if the semaphore were closed, which nobody does.
    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.acquire().await.ok()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Limit<S> {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let _permit = self.permit().await;
        self.inner.put(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        let _permit = self.permit().await;
        self.inner.get(name, max).await
    }
    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let _permit = self.permit().await;
        self.inner.get_range(name, start, len).await
    }
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        let _permit = self.permit().await;
        self.inner.list(dir).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let _permit = self.permit().await;
        self.inner.delete(name).await
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        let _permit = self.permit().await;
        self.inner.capacity().await
    }
    fn place(&self) -> String {
        self.inner.place()
    }
}
