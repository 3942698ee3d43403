//! A storage in memory, for tests and for trying things.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use crate::{Capacity, ErrorKind, Listed, Listing, ObjectName, Prefix, Store, StoreError};

/// Keeps objects in memory, optionally up to a number of bytes.
#[derive(Default)]
pub struct MemoryStore {
    objects: RwLock<BTreeMap<ObjectName, Bytes>>,
    limit: Option<u64>,
}

impl MemoryStore {
    /// An empty storage without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty storage that is full at `limit` bytes.
    pub fn with_limit(limit: u64) -> Self {
        Self {
            limit: Some(limit),
            ..Self::default()
        }
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<ObjectName> {
        self.objects.read().keys().cloned().collect()
    }

    /// An object's bytes, without going through the trait.
    pub fn peek(&self, name: &ObjectName) -> Option<Bytes> {
        self.objects.read().get(name).cloned()
    }

    /// Replaces or adds an object as a hostile or broken storage would; `None` removes it.
    pub fn tamper(&self, name: &ObjectName, bytes: Option<Bytes>) {
        let mut objects = self.objects.write();
        match bytes {
            Some(bytes) => objects.insert(name.clone(), bytes),
            None => objects.remove(name),
        };
    }

    /// All objects as they are now, to serve later as an old copy of the storage.
    pub fn snapshot(&self) -> BTreeMap<ObjectName, Bytes> {
        self.objects.read().clone()
    }

    /// Goes back to an old copy.
    pub fn restore(&self, snapshot: BTreeMap<ObjectName, Bytes>) {
        *self.objects.write() = snapshot;
    }

    fn find(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.peek(name).ok_or_else(|| {
            self.fail(ErrorKind::Absent, "there is no such object")
                .object(name)
        })
    }

    fn fail(&self, kind: ErrorKind, what: &str) -> StoreError {
        StoreError::new(kind, what).place(self.place())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for MemoryStore {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let mut objects = self.objects.write();
        if let Some(old) = objects.get(name) {
            return if *old == bytes {
                Ok(())
            } else {
                Err(self
                    .fail(
                        ErrorKind::Exists,
                        "other bytes stand under this name already",
                    )
                    .object(name))
            };
        }
        if let Some(limit) = self.limit {
            let used: u64 = objects.values().map(|b| b.len() as u64).sum();
            if used + bytes.len() as u64 > limit {
                return Err(self
                    .fail(ErrorKind::Full, "the memory storage is full")
                    .object(name));
            }
        }
        objects.insert(name.clone(), bytes);
        Ok(())
    }

    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        let bytes = self.find(name)?;
        if bytes.len() > max {
            return Err(too_long(bytes.len() as u64, max)
                .object(name)
                .place(self.place()));
        }
        Ok(bytes)
    }

    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let bytes = self.find(name)?;
        let range = usize::try_from(start)
            .ok()
            .and_then(|start| Some(start..start.checked_add(len)?))
            .filter(|range| range.end <= bytes.len());
        match range {
            Some(range) => Ok(bytes.slice(range)),
            None => Err(too_short(start, len).object(name).place(self.place())),
        }
    }

    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        let mut dirs = BTreeSet::new();
        for (name, bytes) in self.objects.read().iter() {
            let Some(rest) = below(name.as_str(), dir) else {
                continue;
            };
            match rest.split_once('/') {
                Some((sub, _)) => {
                    dirs.insert(sub.to_owned());
                }
                None => listing.objects.push(Listed {
                    name: name.clone(),
                    len: Some(bytes.len() as u64),
                }),
            }
        }
        listing.dirs.extend(dirs);
        Ok(listing)
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.objects.write().remove(name);
        Ok(())
    }

    async fn capacity(&self) -> Result<Capacity, StoreError> {
        let used: u64 = self.objects.read().values().map(|b| b.len() as u64).sum();
        Ok(Capacity {
            total: self.limit,
            available: self.limit.map(|limit| limit.saturating_sub(used)),
        })
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

/// What follows the directory in `name`, if it lies below it.
fn below<'a>(name: &'a str, dir: &Prefix) -> Option<&'a str> {
    match dir.as_str() {
        "" => Some(name),
        dir => name.strip_prefix(dir)?.strip_prefix('/'),
    }
}

/// The error for an object above the bound that its reader gave.
pub(crate) fn too_long(len: u64, max: usize) -> StoreError {
    StoreError::new(
        ErrorKind::Broken,
        format!("the object has {len} bytes or more where at most {max} are valid"),
    )
}

/// The error for an object that ends before a range does.
pub(crate) fn too_short(start: u64, len: usize) -> StoreError {
    StoreError::new(
        ErrorKind::Broken,
        format!("the object ends before the {len} bytes from {start} on that it must have"),
    )
}
