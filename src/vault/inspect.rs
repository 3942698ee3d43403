//! Telling whether header, control records and slots are what was written, without the root: for who looks beside a mount.

use crate::state::ControlState;
use crate::unlock::slot_object;
use crate::{Anchor, RoomReader, VaultError, control, objects};
use skrin_base::ids::Hash32;
use skrin_crypto::{ControlKey, hash};
use skrin_storage::{ObjectName, Store};

impl RoomReader {
    /// Whether these are the bytes of the vault's header.
    pub fn is_header(&self, bytes: &[u8]) -> bool {
        hash(bytes) == self.anchor().header
    }

    /// Whether these are the bytes of a control record of this name.
    pub fn is_control_record(&self, name: &ObjectName, bytes: &[u8]) -> bool {
        is_record(self.control_key(), self.anchor(), name, bytes)
    }

    /// The objects that have names of control records.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn control_objects(&self, store: &dyn Store) -> Result<Vec<ObjectName>, VaultError> {
        let dir = format!("rooms/{}/control", self.anchor().room);
        let listed = objects::list(store, dir).await?.objects.into_iter();
        let names = listed.map(|object| object.name);
        Ok(names
            .filter(|name| Hash32::from_hex(name.file_name()).is_some())
            .collect())
    }
}

/// The objects of the slots that the records list, each with the hash of its bytes.
pub fn slot_objects(state: &ControlState) -> Vec<(String, Hash32)> {
    let slots = state.live_slots.iter();
    slots.map(|slot| (slot_object(slot), slot.hash)).collect()
}

/// Whether these are the bytes of a control record of this name in the root room of that vault.
pub(crate) fn is_record(
    key: &ControlKey,
    anchor: &Anchor,
    name: &ObjectName,
    bytes: &[u8],
) -> bool {
    let (vault, room) = (anchor.vault, anchor.room);
    let Some(hash) = Hash32::from_hex(name.file_name()) else {
        return false;
    };
    name.as_str() == objects::control_name(room, hash)
        && match control::examine(key, vault, room, hash, bytes) {
            Ok(_) => true,
            // By a newer program.
            Err(unread) => unread.is_newer(),
        }
}
