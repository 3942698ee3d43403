//! A storage that misbehaves on purpose, for tests.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Capacity, ErrorKind, Listing, ObjectName, Prefix, Store, StoreError, Verb, memory::too_short,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing reaches the storage; the caller gets an error of this kind.
    Before(ErrorKind),
    /// It is done, and the caller gets an error of this kind all the same: a lost answer.
    After(ErrorKind),
    /// The answer never comes, and nothing is done.
    Hang,
    /// It is done, and the answer never comes.
    HangAfter,
    /// A get returns only this many bytes. A range that is longer is too short, which is an error.
    CutGet(usize),
    /// One bit of what a get returns is wrong: in the byte at this position, modulo the length.
    FlipGet(usize),
    /// A put stores only this many bytes and says that all is well.
    CutPut(usize),
    /// A listing is that of the last time, or empty the first time; the new one is remembered.
    StaleList,
    /// An object that exists is said to be absent.
    Withhold,
}

/// One rule: which operations fail, how, and how often. Made by [`Rule::new`] and narrowed down.
pub struct Rule {
    failure: Failure,
    verb: Option<Verb>,
    matches: Box<dyn Fn(&str) -> bool + Send + Sync>,
    skip: u64,
    times: u64,
}

impl Rule {
    /// Every operation fails in this way, for ever.
    pub fn new(failure: Failure) -> Self {
        Self {
            failure,
            verb: None,
            matches: Box::new(|_| true),
            skip: 0,
            times: u64::MAX,
        }
    }

    /// Only operations of this verb.
    #[must_use]
    pub fn on(mut self, verb: Verb) -> Self {
        self.verb = Some(verb);
        self
    }

    /// Only objects (for listings: directories) whose name fulfils this.
    #[must_use]
    pub fn named(mut self, matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.matches = Box::new(matches);
        self
    }

    /// Only after so many matching operations went well.
    #[must_use]
    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// Only so many times.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    fired: u64,
    seen: HashMap<Prefix, Listing>,
}

/// The handle by which a test sets the faults; clones act on the same store.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// Adds a rule. Of several that match, the first one added acts.
    pub fn add(&self, rule: Rule) {
        self.0.lock().rules.push(rule);
    }

    /// Removes all rules; what hangs goes on hanging.
    pub fn clear(&self) {
        self.0.lock().rules.clear();
    }

    /// How often any rule has acted.
    pub fn fired(&self) -> u64 {
        self.0.lock().fired
    }

    fn next(&self, verb: Verb, name: &str) -> Option<Failure> {
        let mut state = self.0.lock();
        let state = &mut *state;
        for rule in &mut state.rules {
            let applies = rule.verb.is_none_or(|v| v == verb) && (rule.matches)(name);
            if !applies || rule.times == 0 {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times -= 1;
            state.fired += 1;
            return Some(rule.failure);
        }
        None
    }

    /// Remembers a listing and returns the one remembered before.
    fn remember(&self, dir: &Prefix, listing: &Listing) -> Listing {
        let mut state = self.0.lock();
        let old = state.seen.insert(dir.clone(), listing.clone());
        old.unwrap_or_default()
    }
}

/// Passes operations on to the store inside, except where a rule says otherwise.
pub struct Fault<S> {
    inner: S,
    faults: Faults,
}

impl<S: Store> Fault<S> {
    /// Wraps a store that behaves until `faults` gets rules.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults }
    }

    fn error(&self, kind: ErrorKind, object: &str) -> StoreError {
        StoreError::new(kind, "a fault was injected")
            .object(object)
            .place(self.inner.place())
    }

    /// What comes before and after any operation. `Ok` holds the failure that is left for the caller to apply.
    async fn run<T, F>(
        &self,
        verb: Verb,
        name: &str,
        operation: F,
    ) -> Result<(T, Option<Failure>), StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let failure = self.faults.next(verb, name);
        match failure {
            Some(Failure::Before(kind)) => return Err(self.error(kind, name)),
            Some(Failure::Withhold) => return Err(self.error(ErrorKind::Absent, name)),
            Some(Failure::Hang) => std::future::pending::<()>().await,
            _ => {}
        }
        let result = operation.await;
        match failure {
            Some(Failure::After(kind)) => Err(self.error(kind, name)),
            Some(Failure::HangAfter) => std::future::pending().await,
            _ => Ok((result?, failure)),
        }
    }
}

fn spoil(bytes: Bytes, failure: Option<Failure>) -> Bytes {
    match failure {
        Some(Failure::CutGet(len)) => bytes.slice(..len.min(bytes.len())),
        Some(Failure::FlipGet(at)) if !bytes.is_empty() => {
            let mut bytes = Vec::from(bytes);
            let at = at % bytes.len();
            bytes[at] ^= 1;
            bytes.into()
        }
        _ => bytes,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Fault<S> {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        // Whether a put is cut must be known before it is done.
        let cut = self.faults.next(Verb::Put, name.as_str());
        let put = match cut {
            Some(Failure::Before(kind)) => return Err(self.error(kind, name.as_str())),
            Some(Failure::Hang) => std::future::pending().await,
            Some(Failure::CutPut(len)) => bytes.slice(..len.min(bytes.len())),
            _ => bytes,
        };
        let result = self.inner.put(name, put).await;
        match cut {
            Some(Failure::After(kind)) => Err(self.error(kind, name.as_str())),
            Some(Failure::HangAfter) => std::future::pending().await,
            _ => result,
        }
    }

    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        let get = self.inner.get(name, max);
        let (bytes, failure) = self.run(Verb::Get, name.as_str(), get).await?;
        Ok(spoil(bytes, failure))
    }

    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let get = self.inner.get_range(name, start, len);
        let (bytes, failure) = self.run(Verb::GetRange, name.as_str(), get).await?;
        let bytes = spoil(bytes, failure);
        if bytes.len() < len {
            return Err(too_short(start, len).object(name).place(self.inner.place()));
        }
        Ok(bytes)
    }

    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        let list = self.inner.list(dir);
        let (listing, failure) = self.run(Verb::List, dir.as_str(), list).await?;
        let old = self.faults.remember(dir, &listing);
        Ok(match failure {
            Some(Failure::StaleList) => old,
            _ => listing,
        })
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let delete = self.inner.delete(name);
        let done = self.run(Verb::Delete, name.as_str(), delete).await;
        done.map(|((), _)| ())
    }

    async fn capacity(&self) -> Result<Capacity, StoreError> {
        let capacity = self.inner.capacity();
        let done = self.run(Verb::Capacity, "", capacity).await;
        done.map(|(capacity, _)| capacity)
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}
