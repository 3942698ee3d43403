//! Repeats what may be repeated.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use skrin_base::Entropy;
use tokio::time::{Instant, timeout};

use crate::{Capacity, ErrorKind, Listing, ObjectName, Prefix, Store, StoreError};

/// How transient errors are repeated.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Upper bound of the first pause; each pause is a random part of its bound ("full jitter").
    pub first: Duration,
    /// The bound doubles up to this.
    pub longest: Duration,
    /// No new attempt begins later than this after the first one.
    pub patience: Duration,
    /// An attempt that moves nothing may take so long.
    pub attempt: Duration,
    /// Slowest acceptable rate of an attempt in bytes per second.
    pub slowest: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(10),
            patience: Duration::from_secs(120),
            attempt: Duration::from_secs(120),
            slowest: 8 * 1024,
        }
    }
}

/// Repeats operations that ended in a transient error: all of them may be, a put because it repeats the same bytes.
/// Every attempt has a deadline, so that no operation hangs for ever. Patience is counted from the last success of anybody: while the
/// storage is gone, each operation makes one attempt.
pub struct Retry<S> {
    inner: S,
    policy: RetryPolicy,
    entropy: Arc<dyn Entropy>,
    /// Since when nothing but transient errors came, if it is so.
    failing: Mutex<Option<Instant>>,
}

impl<S: Store> Retry<S> {
    /// Wraps a store.
    pub fn new(inner: S, policy: RetryPolicy, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            inner,
            policy,
            entropy,
            failing: Mutex::default(),
        }
    }

    /// When failing began, if this is one more failure; anything else ends it.
    fn failing_since(&self, failed: bool) -> Option<Instant> {
        let mut failing = self.failing.lock();
        *failing = match failed {
            true => Some(failing.unwrap_or_else(Instant::now)),
            false => None,
        };
        *failing
    }

    async fn run<T, F>(
        &self,
        object: &(dyn Display + Sync),
        len: u64,
        operation: impl Fn() -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let begin = Instant::now();
        let moving = Duration::from_secs(len / self.policy.slowest.max(1));
        let mut bound = self.policy.first;
        loop {
            let error = match timeout(self.policy.attempt + moving, operation()).await {
                Ok(Ok(value)) => {
                    self.failing_since(false);
                    return Ok(value);
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    StoreError::new(ErrorKind::Transient, "the storage did not answer in time")
                        .object(object)
                        .place(self.inner.place())
                }
            };
            let pause = self.pause(bound, error.pause());
            let since = self.failing_since(error.is_transient()).unwrap_or(begin);
            // Where others have waited in vain for long enough, one attempt tells whether it is still so.
            if !error.is_transient()
                || since.min(begin).elapsed().saturating_add(pause) > self.policy.patience
            {
                return Err(error);
            }
            tracing::debug!(%error, ?pause, "trying again");
            tokio::time::sleep(pause).await;
            bound = (bound * 2).min(self.policy.longest);
        }
    }

    /// A random part of the bound, on top of what the server asked for.
    fn pause(&self, bound: Duration, asked: Option<Duration>) -> Duration {
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(self.entropy.u64() % nanos.saturating_add(1).max(1));
        asked.unwrap_or_default().saturating_add(jitter)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Retry<S> {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let len = bytes.len() as u64;
        let put = || self.inner.put(name, bytes.clone());
        self.run(name, len, put).await
    }
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        let get = || self.inner.get(name, max);
        self.run(name, max as u64, get).await
    }
    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let get = || self.inner.get_range(name, start, len);
        self.run(name, len as u64, get).await
    }
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        // A listing of a large directory moves as much as an object.
        let list = || self.inner.list(dir);
        self.run(dir, 4 << 20, list).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let delete = || self.inner.delete(name);
        self.run(name, 0, delete).await
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        let capacity = || self.inner.capacity();
        self.run(&"the free space", 0, capacity).await
    }
    fn place(&self) -> String {
        self.inner.place()
    }
}
