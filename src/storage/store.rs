//! The contract of every storage.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{ObjectName, Prefix, StoreError};

/// Entries of one directory that a listing returns at most; a longer one is an error, not a cut.
pub const LIST_MAX: usize = 1 << 21;

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its whole name.
    pub name: ObjectName,
    /// Its length in bytes, where the storage tells. A hint: only reading proves it.
    pub len: Option<u64>,
}

/// What lies directly in a directory, both parts sorted and without repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The objects.
    pub objects: Vec<Listed>,
    /// The last segments of the directories.
    pub dirs: Vec<String>,
}

/// Room on the storage in bytes, as far as it tells; some servers tell stale numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// All there is.
    pub total: Option<u64>,
    /// What is left for us.
    pub available: Option<u64>,
}

/// The operations of a [`Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// [`Store::put`]
    Put,
    /// [`Store::get`]
    Get,
    /// [`Store::get_range`]
    GetRange,
    /// [`Store::list`]
    List,
    /// [`Store::delete`]
    Delete,
    /// [`Store::capacity`]
    Capacity,
}

impl Verb {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Put,
        Self::Get,
        Self::GetRange,
        Self::List,
        Self::Delete,
        Self::Capacity,
    ];
}

/// A place that keeps immutable objects under names.
///
/// What every implementation promises, and the conformance suite checks:
/// - An object that was put and answered is visible, whole, to the next `get`, `get_range` and `list`.
/// - After an error of `put` the object may be absent, whole or (on some servers) *cut*: put the same bytes
///   again, and believe only what a read-back shows ([`crate::put_confirmed`]).
/// - Nothing depends on locks, conditional requests, ETags or times of the storage.
/// - Bytes that come back are untrusted, and so are lengths, listings and the absence of anything.
/// - Errors name the object and the place, never a secret. Only [`crate::ErrorKind::Transient`] is worth repeating.
/// - Dropping the future of an operation leaves its outcome unknown, and everything else usable.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Puts a new object. The same bytes may be put again under the same name, as a repeat after an unknown
    /// answer; other bytes never ([`crate::put_over`] is the one exception): where the storage can tell, that is
    /// [`crate::ErrorKind::Exists`]. Success is a hint
    /// only, except that a local folder has the bytes and the name on stable storage.
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError>;

    /// The whole object. One longer than `max` bytes is refused before more than `max` bytes are held.
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError>;

    /// Exactly the `len` bytes from `start` on; an object that ends before is an error.
    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError>;

    /// The objects and directories that lie directly in `dir`; nothing at all if there is no such directory.
    /// Names that are not ours are left out. A listing may lack what was put while it ran.
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError>;

    /// Removes an object; an absent one is fine.
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// How much room there is.
    async fn capacity(&self) -> Result<Capacity, StoreError>;

    /// Where this is, for people; without secrets.
    fn place(&self) -> String;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        (**self).put(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        (**self).get(name, max).await
    }
    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        (**self).get_range(name, start, len).await
    }
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        (**self).list(dir).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        (**self).delete(name).await
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        (**self).capacity().await
    }
    fn place(&self) -> String {
        (**self).place()
    }
}
