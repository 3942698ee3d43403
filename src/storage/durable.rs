//! The witness that something is on the storage, and the only ways to get one.

use bytes::Bytes;

use crate::{ErrorKind, ObjectName, Store, StoreError};

/// How much of an object's end is read back as proof of its length and its last bytes.
pub const TRAILER_LEN: usize = 64;
/// Objects up to this length are read back whole by [`put_verified`].
pub const VERIFIED_MAX: usize = 64 * 1024;

/// Proof that the storage showed us what was put. Only this crate makes one; [`Durable::map`] projects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// What is durable.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// What is durable, without the proof.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// Turns the proof of a thing into the proof of what the thing holds.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Durable<U> {
        Durable(f(self.0))
    }
}

fn differs(store: &(impl Store + ?Sized), name: &ObjectName) -> StoreError {
    StoreError::new(
        ErrorKind::Broken,
        "the storage accepted the object but shows other bytes",
    )
    .object(name)
    .place(store.place())
}

/// An answer that the object is not there, right after it was accepted, may be a stale cache of the server.
fn absent_is_transient(error: StoreError, name: &ObjectName) -> StoreError {
    if error.is_absent() {
        return StoreError::new(
            ErrorKind::Transient,
            "the storage accepted the object but does not show it",
        )
        .object(name)
        .caused_by(error);
    }
    error
}

/// Puts an object and reads its last [`TRAILER_LEN`] bytes back from where they must lie, which proves its length
/// and its trailer: some servers answer 201 on a full disk. Repeating it with the same bytes is fine.
pub async fn put_confirmed(
    store: &(impl Store + ?Sized),
    name: &ObjectName,
    bytes: Bytes,
) -> Result<Durable<ObjectName>, StoreError> {
    if bytes.len() <= TRAILER_LEN {
        return put_verified(store, name, bytes).await;
    }
    let start = bytes.len() - TRAILER_LEN;
    let trailer = bytes.slice(start..);
    store.put(name, bytes).await?;
    let back = store.get_range(name, start as u64, TRAILER_LEN).await;
    if back.map_err(|e| absent_is_transient(e, name))? != trailer {
        return Err(differs(store, name));
    }
    Ok(Durable(name.clone()))
}

/// Puts an object and reads it back whole; above [`VERIFIED_MAX`] bytes it is [`put_confirmed`].
pub async fn put_verified(
    store: &(impl Store + ?Sized),
    name: &ObjectName,
    bytes: Bytes,
) -> Result<Durable<ObjectName>, StoreError> {
    if bytes.len() > VERIFIED_MAX {
        return Box::pin(put_confirmed(store, name, bytes)).await;
    }
    put_and_compare(store, name, bytes).await
}

/// Puts an object in the place of whatever lies under its name, and reads it back whole. This is the one way in which
/// something that is stored gives way: only for bytes that signed objects demand under this very name, where the storage
/// shows other ones, and only if the caller has them on stable storage of its own: a storage that does not replace has
/// neither the old nor the new ones for a moment.
///
/// # Errors
/// As `put`; `Broken` where the storage shows other bytes all the same.
pub async fn put_over(
    store: &(impl Store + ?Sized),
    name: &ObjectName,
    bytes: Bytes,
) -> Result<Durable<ObjectName>, StoreError> {
    match store.put(name, bytes.clone()).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::Exists => {}
        // What cannot be put now is not put after the removal either.
        Err(error) => return Err(error),
    }
    // Right before the removal: somebody else may have mended it.
    let back = store.get(name, bytes.len()).await;
    match back {
        Ok(back) if back == bytes => return Ok(Durable(name.clone())),
        Ok(_) => {}
        // Longer than it should be, or cut short.
        Err(error) if error.kind() == ErrorKind::Broken => {}
        Err(error) => return Err(error),
    }
    store.delete(name).await?;
    put_and_compare(store, name, bytes).await
}

async fn put_and_compare(
    store: &(impl Store + ?Sized),
    name: &ObjectName,
    bytes: Bytes,
) -> Result<Durable<ObjectName>, StoreError> {
    store.put(name, bytes.clone()).await?;
    let back = store.get(name, bytes.len()).await;
    if back.map_err(|e| absent_is_transient(e, name))? != bytes {
        return Err(differs(store, name));
    }
    Ok(Durable(name.clone()))
}
