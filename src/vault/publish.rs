//! Putting control records, and the news of them.

use crate::control::{Signer, open_record, seal_record};
use crate::record::{Body, Record};
use crate::room::Room;
use crate::{VaultError, objects};
use skrin_base::ids::{Hash32, PersonId, VaultId};
use skrin_base::{Clock, Entropy};
use skrin_crypto::ControlKey;
use skrin_storage::Store;

/// Where records go, and the time and randomness for making them.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The storage.
    pub store: &'a dyn Store,
    /// Time, for people.
    pub clock: &'a dyn Clock,
    /// Randomness.
    pub entropy: &'a dyn Entropy,
}

/// Who makes a record.
pub(crate) struct Author<'a> {
    pub(crate) vault: VaultId,
    pub(crate) person: PersonId,
    pub(crate) signer: Signer<'a>,
    pub(crate) control: &'a ControlKey,
}

/// Signs a record on top of what `room` knows, puts it, reads it back and takes it into `room`. After an error `room` may
/// be ahead of the storage: read it again.
pub(crate) async fn publish(
    place: &Place<'_>,
    room: &mut Room,
    author: &Author<'_>,
    record: Record,
    attachment: &[u8],
) -> Result<Hash32, VaultError> {
    let id = room.state.room;
    let body = Body {
        vault: author.vault,
        room: id,
        optional: 0,
        parents: room.state.heads(),
        author: author.person,
        signer: author.signer.reference(),
        time: place.clock.now(),
        record,
    };
    let signer = &author.signer;
    let (name, object) = seal_record(author.control, &body, signer, attachment, place.entropy);
    if object.len() > skrin_base::limits::CONTROL_MAX {
        return Err(VaultError::TooLarge(object.len()));
    }
    // First of all: what would not stand is not put.
    let opened = open_record(author.control, author.vault, id, name, &object)?;
    room.state.accept(opened)?;
    objects::put(place.store, objects::control_name(id, name), object).await?;
    room.roster = room.state.roster();
    Ok(name)
}

const TIP: &str = "control-";

/// Tells all who poll that there are new records: a tip for each head, none for those before them.
pub(crate) async fn announce(store: &dyn Store, room: &Room) -> Result<(), VaultError> {
    let dir = format!("rooms/{}/tips", room.state.room);
    let heads = room.state.heads();
    let listing = objects::list(store, dir.clone()).await?;
    let mut old = Vec::new();
    let mut there = Vec::new();
    for object in listing.objects {
        let name = object.name.file_name().strip_prefix(TIP);
        let Some(record) = name.and_then(Hash32::from_hex) else {
            continue;
        };
        if heads.contains(&record) {
            there.push(record);
        } else if heads
            .iter()
            .any(|head| room.state.is_ancestor(&record, head))
        {
            old.push(object.name);
        }
    }
    for head in heads.iter().filter(|head| !there.contains(head)) {
        objects::put(store, format!("{dir}/{TIP}{head}"), vec![b'\n']).await?;
    }
    for name in old {
        // Somebody else may have been quicker.
        match store.delete(&name).await {
            Err(error) if !error.is_absent() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
