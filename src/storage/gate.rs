//! A storage before which every request waits until it is let in, for tests that count and order them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{Capacity, Listing, ObjectName, Prefix, Store, StoreError, Verb};

/// Lets requests in, in the order in which they came; clones are the same.
#[derive(Clone)]
pub struct Doorman(Arc<Door>);

struct Door {
    arrived: Mutex<Vec<(Verb, String)>>,
    admitted: Semaphore,
}

impl Default for Doorman {
    fn default() -> Self {
        Self(Arc::new(Door {
            arrived: Mutex::default(),
            admitted: Semaphore::new(0),
        }))
    }
}

impl Doorman {
    /// All that ever came: what was asked for, of which object or directory.
    pub fn arrived(&self) -> Vec<(Verb, String)> {
        self.0.arrived.lock().clone()
    }

    /// Lets so many more in.
    pub fn admit(&self, count: usize) {
        self.0.admitted.add_permits(count);
    }

    /// Lets all in from now on.
    pub fn open(&self) {
        self.admit(Semaphore::MAX_PERMITS / 2);
    }

    async fn wait(&self, verb: Verb, name: impl ToString) {
        self.0.arrived.lock().push((verb, name.to_string()));
        if let Ok(permit) = self.0.admitted.acquire().await {
            permit.forget();
        }
    }
}

/// Asks a [`Doorman`] before each request.
pub struct Gate<S> {
    inner: S,
    doorman: Doorman,
}

impl<S: Store> Gate<S> {
    /// A gate before `inner`.
    pub fn new(inner: S, doorman: Doorman) -> Self {
        Self { inner, doorman }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Gate<S> {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.doorman.wait(Verb::Put, name).await;
        self.inner.put(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        self.doorman.wait(Verb::Get, name).await;
        self.inner.get(name, max).await
    }
    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        self.doorman.wait(Verb::GetRange, name).await;
        self.inner.get_range(name, start, len).await
    }
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        self.doorman.wait(Verb::List, dir).await;
        self.inner.list(dir).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.doorman.wait(Verb::Delete, name).await;
        self.inner.delete(name).await
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        self.doorman.wait(Verb::Capacity, "").await;
        self.inner.capacity().await
    }
    fn place(&self) -> String {
        self.inner.place()
    }
}
