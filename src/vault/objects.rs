//! Names of our objects, and reading and writing them.

use crate::VaultError;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use skrin_base::ids::{Hash32, RoomId};
use skrin_base::limits::CONTROL_MAX;
use skrin_storage::{ErrorKind, Listing, ObjectName, Prefix, Store, StoreError, put_verified};

/// How many objects are fetched at once: hides the round trips of a slow link.
const AT_ONCE: usize = 16;

pub(crate) fn object(name: String) -> Result<ObjectName, VaultError> {
    ObjectName::new(name).map_err(|e| StoreError::from(e).into())
}

pub(crate) fn control_name(room: RoomId, hash: Hash32) -> String {
    format!("rooms/{room}/control/{hash}")
}

pub(crate) async fn list(store: &dyn Store, dir: String) -> Result<Listing, VaultError> {
    let dir = Prefix::new(dir).map_err(StoreError::from)?;
    Ok(store.list(&dir).await?)
}

/// Fetches whole objects, several at once, in the order of `names`.
pub(crate) async fn fetch(
    store: &dyn Store,
    names: &[ObjectName],
) -> Result<Vec<Bytes>, VaultError> {
    let mut out = Vec::with_capacity(names.len());
    for some in names.chunks(AT_ONCE) {
        out.extend(try_join_all(some.iter().map(|name| store.get(name, CONTROL_MAX))).await?);
    }
    Ok(out)
}

/// As `fetch`; an object that is gone or cannot be had whole fails alone.
pub(crate) async fn fetch_each(
    store: &dyn Store,
    names: &[ObjectName],
) -> Result<Vec<Result<Bytes, StoreError>>, VaultError> {
    let mut out = Vec::with_capacity(names.len());
    for some in names.chunks(AT_ONCE) {
        for got in join_all(some.iter().map(|name| store.get(name, CONTROL_MAX))).await {
            match got {
                Err(error) if !matches!(error.kind(), ErrorKind::Absent | ErrorKind::Broken) => {
                    return Err(error.into());
                }
                got => out.push(got),
            }
        }
    }
    Ok(out)
}

/// Puts an object and reads it back.
pub(crate) async fn put(store: &dyn Store, name: String, bytes: Vec<u8>) -> Result<(), VaultError> {
    if bytes.len() > CONTROL_MAX {
        return Err(VaultError::TooLarge(bytes.len()));
    }
    put_verified(store, &object(name)?, Bytes::from(bytes)).await?;
    Ok(())
}
