//! At most so many requests at once, the urgent ones first.

use async_trait::async_trait;
use bytes::Bytes;

use crate::urgency::Places;
use crate::{Capacity, Listing, ObjectName, Prefix, Store, StoreError};

/// Lets a fixed number of operations through at a time; the others wait in order, and what is not urgent ([`crate::Urgency`]) waits apart.
pub struct Limit<S> {
    inner: S,
    places: Places,
}

impl<S: Store> Limit<S> {
    /// At most `parallel` at once, and at least one.
    pub fn new(inner: S, parallel: usize) -> Self {
        let places = Places::new(parallel);
        Self { inner, places }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Limit<S> {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let _place = self.places.take(1).await;
        self.inner.put(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        let _place = self.places.take(1).await;
        self.inner.get(name, max).await
    }
    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let _place = self.places.take(1).await;
        self.inner.get_range(name, start, len).await
    }
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        let _place = self.places.take(1).await;
        self.inner.list(dir).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let _place = self.places.take(1).await;
        self.inner.delete(name).await
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        let _place = self.places.take(1).await;
        self.inner.capacity().await
    }
    fn place(&self) -> String {
        self.inner.place()
    }
}
