//! Copies of header, slots and control records in the state directory, as the storage has them: with these a vault
//! that was mounted here before opens without the storage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skrin_base::limits::CONTROL_MAX;
use skrin_base::{RoomId, VaultId};
use skrin_meta::replica::PutAgain;
use skrin_storage::{
    Capacity, ErrorKind, Listing, LocalStore, ObjectName, Prefix, Store, StoreError, put_over,
};
use skrin_vault::{HEADER_NAME, Unlocked};

use crate::exit::{Exit, Failure, Outcome};
use crate::machine::OsEntropy;
use crate::unlock::write_durably;

/// The folder of copies in a state directory.
const DIR: &str = "vault";
/// The file that says which address the state belongs to.
const ADDRESS: &str = "address";

/// The copies in a state directory, as a storage of their own.
///
/// # Errors
/// Where the folder cannot be made.
pub(crate) fn open(state_dir: &Path) -> Outcome<Arc<dyn Store>> {
    Ok(Arc::new(LocalStore::open(
        state_dir.join(DIR),
        true,
        &OsEntropy,
    )?))
}

/// Copies what is new on the storage, and notes the address.
///
/// # Errors
/// Of the storage and of the local disk.
pub(crate) async fn refresh(
    from: &dyn Store,
    state_dir: &Path,
    room: RoomId,
    address: &str,
) -> Outcome {
    let to = open(state_dir)?;
    for dir in ["slots".to_owned(), format!("rooms/{room}/control")] {
        let dir = Prefix::new(dir).map_err(StoreError::from)?;
        let known = to.list(&dir).await?.objects;
        for listed in from.list(&dir).await?.objects {
            if known
                .binary_search_by(|have| have.name.cmp(&listed.name))
                .is_err()
            {
                copy(from, &*to, &listed.name).await?;
            }
        }
    }
    copy(
        from,
        &*to,
        &ObjectName::new(HEADER_NAME).map_err(StoreError::from)?,
    )
    .await?;
    write_durably(&state_dir.join(ADDRESS), address.as_bytes())?;
    disown(state_dir, address);
    Ok(())
}

/// Whether the state directory is that of what was mounted from this address.
fn is_from(state_dir: &Path, address: &str) -> bool {
    let Ok(noted) = std::fs::read_to_string(state_dir.join(ADDRESS)) else {
        return false;
    };
    // As it was typed, in notes of before 2026-11-27.
    let is_same = |url: skrin_storage::VaultUrl| url.to_string() == address;
    noted == address || skrin_storage::VaultUrl::parse(&noted).is_ok_and(is_same)
}

/// What else was mounted from this address is not there any more: the storage has another vault now.
fn disown(state_dir: &Path, address: &str) {
    let others = state_dir
        .parent()
        .and_then(|base| std::fs::read_dir(base).ok());
    for other in others.into_iter().flatten().flatten() {
        let other = other.path();
        if other != state_dir && is_from(&other, address) {
            // Where it stays, the header of the storage still decides.
            let _ = std::fs::remove_file(other.join(ADDRESS));
        }
    }
}

/// Puts control records again that the storage does not have and an earlier mount has copied. Returns how many.
///
/// # Errors
/// Of the storage and of the local disk, and copies that are damaged.
pub(crate) async fn put_control_again(
    to: &dyn Store,
    state_dir: &Path,
    unlocked: &Unlocked,
) -> Outcome<usize> {
    let from = open(state_dir)?;
    // Whoever reads the copies finds out what is wrong with them.
    unlocked.load_room(&*from).await?;
    let dir = format!("rooms/{}/control", unlocked.root_room());
    let dir = Prefix::new(dir).map_err(StoreError::from)?;
    let known = to.list(&dir).await?.objects;
    let is_known = |name: &ObjectName| known.binary_search_by(|have| have.name.cmp(name)).is_ok();
    let mut put = 0;
    for copied in from.list(&dir).await?.objects {
        if !is_known(&copied.name) {
            copy(&*from, to, &copied.name).await?;
            put += 1;
        }
    }
    Ok(put)
}

/// Puts header, slots and control records again where the storage does not show them as they are and the copies of an earlier
/// mount hold them as they are. What `unlocked` was opened from must be the copies, as far as its header is concerned. Slots
/// come last: which of them count the control records say.
///
/// # Errors
/// Of the storage and of the local disk.
pub(crate) async fn put_again(
    to: &dyn Store,
    state_dir: &Path,
    unlocked: &Unlocked,
) -> Outcome<Vec<PutAgain>> {
    let from = open(state_dir)?;
    let mut put = Vec::new();
    let header = ObjectName::new(HEADER_NAME).map_err(StoreError::from)?;
    let is_header = |bytes: &[u8]| skrin_crypto::hash(bytes) == unlocked.anchor().header;
    put.extend(put_one(&*from, to, &header, is_header).await?);
    let dir = format!("rooms/{}/control", unlocked.root_room());
    for copied in listed(&*from, &dir).await? {
        let is_record = |bytes: &[u8]| unlocked.is_control_record(&copied, bytes);
        put.extend(put_one(&*from, to, &copied, is_record).await?);
    }
    let room = unlocked.load_room(to).await?;
    let slots = unlocked.check_slots(to, &room.state).await?;
    for slot in slots {
        let live = room.state.live_slots.iter();
        let hashes: Vec<_> = live.map(|slot| slot.hash).collect();
        let name = ObjectName::new(slot.object).map_err(StoreError::from)?;
        let is_slot = |bytes: &[u8]| hashes.contains(&skrin_crypto::hash(bytes));
        put.extend(put_one(&*from, to, &name, is_slot).await?);
    }
    Ok(put)
}

async fn listed(store: &dyn Store, dir: &str) -> Outcome<Vec<ObjectName>> {
    let dir = Prefix::new(dir).map_err(StoreError::from)?;
    let objects = store.list(&dir).await?.objects;
    Ok(objects.into_iter().map(|listed| listed.name).collect())
}

/// Puts one object again, if only the copy of it is what it must be.
async fn put_one(
    from: &dyn Store,
    to: &dyn Store,
    name: &ObjectName,
    is_right: impl Fn(&[u8]) -> bool,
) -> Outcome<Option<PutAgain>> {
    let was_missing = match bytes_of(to, name).await? {
        Some(bytes) if is_right(&bytes) => return Ok(None),
        shown => shown.is_none(),
    };
    match bytes_of(from, name).await? {
        Some(bytes) if is_right(&bytes) => {
            put_over(to, name, bytes).await?;
            Ok(Some(PutAgain {
                object: name.to_string(),
                was_missing,
            }))
        }
        _ => Ok(None),
    }
}

/// An object's bytes: empty where there are none that can be had.
///
/// # Errors
/// Of the storage.
pub(crate) async fn bytes_of(store: &dyn Store, name: &ObjectName) -> Outcome<Option<Bytes>> {
    match store.get(name, CONTROL_MAX).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) if error.kind() == ErrorKind::Broken => Ok(Some(Bytes::new())),
        Err(error) => Err(error.into()),
    }
}

async fn copy(from: &dyn Store, to: &dyn Store, name: &ObjectName) -> Outcome {
    let bytes = from.get(name, CONTROL_MAX).await?;
    Ok(to.put(name, bytes).await?)
}

/// Whether a storage has one of the slots that an earlier mount has copied.
///
/// # Errors
/// Of the storage and of the local disk.
pub(crate) async fn has_slots(store: &dyn Store, state_dir: &Path) -> Outcome<bool> {
    let there = listed(store, "slots").await?;
    let copied = listed(&*open(state_dir)?, "slots").await?;
    Ok(copied.iter().any(|slot| there.contains(slot)))
}

/// Which vault was last mounted from this address, according to the state below `base`.
pub(crate) fn find(base: &Path, address: &str) -> Option<VaultId> {
    let entries = std::fs::read_dir(base).ok()?;
    let dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    dirs.iter().find_map(|dir| {
        let vault = VaultId::from_hex(dir.file_name()?.to_str()?)?;
        is_from(dir, address).then_some(vault)
    })
}

/// The error of a mount without a storage and without local state.
pub(crate) fn never_mounted(address: &str) -> Failure {
    Failure::new(
        Exit::Absent,
        format!("{address}: there is no local state of this vault here"),
    )
    .remedy("mount it once while the storage can be reached; after that --offline works")
}

/// The storage of a mount that must not talk to any.
pub(crate) struct Offline {
    /// The address that it would talk to.
    pub(crate) place: String,
}

impl Offline {
    fn refuse<T>(&self) -> Result<T, StoreError> {
        Err(StoreError::new(ErrorKind::Transient, "this mount is --offline").place(&self.place))
    }
}

#[async_trait]
impl Store for Offline {
    async fn put(&self, _: &ObjectName, _: Bytes) -> Result<(), StoreError> {
        self.refuse()
    }
    async fn get(&self, _: &ObjectName, _: usize) -> Result<Bytes, StoreError> {
        self.refuse()
    }
    async fn get_range(&self, _: &ObjectName, _: u64, _: usize) -> Result<Bytes, StoreError> {
        self.refuse()
    }
    async fn list(&self, _: &Prefix) -> Result<Listing, StoreError> {
        self.refuse()
    }
    async fn delete(&self, _: &ObjectName) -> Result<(), StoreError> {
        self.refuse()
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        Ok(Capacity::default())
    }
    fn place(&self) -> String {
        self.place.clone()
    }
}
