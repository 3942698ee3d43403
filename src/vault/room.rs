//! A room as a member sees it: its keys, and who may sign in it.

use crate::control::{self, Opened, Unread};
use crate::epoch::{Binding, Purpose};
use crate::record::Recipient;
use crate::slot::Payload;
use crate::state::{BadRecord, ControlState, EpochInfo};
use crate::{Anchor, Device, Unlocked, VaultError, objects};
use bytes::Bytes;
use parking_lot::Mutex;
use skrin_base::ids::{EpochId, Hash32};
use skrin_base::limits::CONTROL_RECORDS_MAX;
use skrin_crypto::{ControlKey, EpochKey, KemSecret, RoomKeys, Roster, Suite, keys};
use skrin_storage::{ErrorKind, ObjectName, Store, StoreError};
use std::collections::HashMap;

/// What the control records of a room give a member.
pub struct Room {
    /// Opens and seals its objects.
    pub keys: RoomKeys,
    /// Judges its commits.
    pub roster: Roster,
    /// All that the records say.
    pub state: ControlState,
    /// Objects among the records that say nothing: to be told to the person.
    pub findings: Vec<BadRecord>,
}

impl Room {
    /// Whether an epoch has to be made before anything is written here (`Officer::make_epoch`): there are several, or the
    /// current one is not for whom it should be.
    pub fn needs_epoch(&self) -> bool {
        self.state.needs_epoch()
    }
}

/// Reads a room again and again without the root: control key, anchor, and the KEM keys of one recipient.
pub struct RoomReader {
    anchor: Anchor,
    control: ControlKey,
    recipient: Recipient,
    secrets: Vec<KemSecret>,
    read: ReadBefore,
}

/// Objects as they were read before, by the ids of their records: each removal makes everybody read the records again, and those of a
/// large team are many. The storage says each time which of them there are. Its lock is a leaf.
#[derive(Default)]
struct ReadBefore(Mutex<HashMap<Hash32, Bytes>>);

impl ReadBefore {
    /// What is kept at most, in bytes.
    const ROOM: usize = 16 << 20;

    fn get(&self, hash: &Hash32) -> Option<Bytes> {
        self.0.lock().get(hash).cloned()
    }

    /// Keeps what was just read, as far as there is room.
    fn keep(&self, all: impl Iterator<Item = (Hash32, Bytes)>) {
        let mut left = Self::ROOM;
        let fits = all.filter(|(_, bytes)| {
            let fits = bytes.len() <= left;
            left -= if fits { bytes.len() } else { 0 };
            fits
        });
        *self.0.lock() = fits.collect();
    }

    /// Whether there was something.
    fn forget(&self) -> bool {
        !std::mem::take(&mut *self.0.lock()).is_empty()
    }
}

impl RoomReader {
    pub(crate) fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    pub(crate) fn control_key(&self) -> &ControlKey {
        &self.control
    }

    pub(crate) fn new(
        anchor: Anchor,
        control: ControlKey,
        recipient: Recipient,
        secrets: Vec<KemSecret>,
    ) -> Self {
        Self {
            anchor,
            control,
            recipient,
            secrets,
            read: ReadBefore::default(),
        }
    }

    /// For somebody whose root is known.
    pub(crate) fn for_root(anchor: Anchor, payload: &Payload) -> Self {
        let (vault, room) = (anchor.vault, anchor.room);
        let root = |suite| KemSecret::derive_root(&payload.root_seed, vault, suite);
        Self::new(
            anchor,
            keys::derive_control_key(&payload.vault_secret, vault, room),
            Recipient::Root(payload.person),
            vec![root(Suite::X25519), root(Suite::XWing)],
        )
    }

    /// For a mounted device: what it can read stays readable after the root was wiped.
    pub fn for_device(unlocked: &Unlocked, device: &Device) -> Self {
        let vault = unlocked.vault();
        let kem = |suite| KemSecret::derive_device(device.seed(), vault, suite);
        Self::new(
            *unlocked.anchor(),
            unlocked.control_key(unlocked.root_room()),
            Recipient::Device(device.id()),
            vec![kem(Suite::X25519), kem(Suite::XWing)],
        )
    }

    /// Reads and checks all control records, and opens the epochs.
    ///
    /// # Errors
    /// `Integrity`, `Missing`, `NewerVersion`, `NewerFeature`, `WrongEpochKey`, `NotForUs`, `Storage`.
    pub async fn load(&self, store: &dyn Store) -> Result<Room, VaultError> {
        let loaded = self.load_once(store).await;
        // What a record wraps does not belong to its name, and may be there in a better state by now.
        match loaded.is_ok() || !self.read.forget() {
            true => loaded,
            false => self.load_once(store).await,
        }
    }

    async fn load_once(&self, store: &dyn Store) -> Result<Room, VaultError> {
        let records = self.fetch_records(store).await?;
        let (state, findings) = ControlState::fold(&self.anchor, records)?;
        for bad in &findings {
            tracing::warn!(object = bad.object, what = bad.what, "a bad control record");
        }
        let keys = self.open_epochs(&state, &findings)?;
        let roster = state.roster();
        Ok(Room {
            keys,
            roster,
            state,
            findings,
        })
    }

    async fn fetch_records(
        &self,
        store: &dyn Store,
    ) -> Result<Vec<Result<Opened, Unread>>, VaultError> {
        let dir = format!("rooms/{}/control", self.anchor.room);
        let listing = objects::list(store, dir.clone()).await?;
        if listing.objects.len() > CONTROL_RECORDS_MAX {
            let what = format!("it holds more than {CONTROL_RECORDS_MAX} objects");
            return Err(VaultError::integrity(dir, what));
        }
        let mut names: Vec<(Hash32, ObjectName)> = Vec::new();
        for object in listing.objects {
            // Names that are not ours are never touched.
            if let Some(hash) = Hash32::from_hex(object.name.file_name()) {
                names.push((hash, object.name));
            }
        }
        let known: Vec<Option<Bytes>> = names.iter().map(|(hash, _)| self.read.get(hash)).collect();
        let new = names
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none());
        let paths: Vec<ObjectName> = new.map(|((_, name), _)| name.clone()).collect();
        let mut fetched = objects::fetch_each(store, &paths).await?.into_iter();
        let missing = || Err(StoreError::new(ErrorKind::Absent, "it was not read"));
        let one =
            |known: Option<Bytes>| known.map_or_else(|| fetched.next().unwrap_or_else(missing), Ok);
        let objects: Vec<Result<Bytes, StoreError>> = known.into_iter().map(one).collect();
        let bytes: Vec<Option<Bytes>> = objects.iter().map(|o| o.as_ref().ok().cloned()).collect();
        let (vault, room) = (self.anchor.vault, self.anchor.room);
        let read = |(hash, bytes): (Hash32, Result<Bytes, StoreError>)| match bytes {
            Ok(bytes) => control::examine(&self.control, vault, room, hash, &bytes),
            Err(error) => {
                let name = objects::control_name(room, hash);
                Err(Unread::new(hash, VaultError::integrity(name, error)))
            }
        };
        let hashes = names.iter().map(|(hash, _)| *hash);
        let records: Vec<_> = hashes.zip(objects).map(read).collect();
        // What cannot be read may be put right: it is asked for each time.
        let good = bytes
            .into_iter()
            .zip(&records)
            .filter_map(|(bytes, record)| {
                let record = record.as_ref().ok()?;
                Some((record.hash, bytes?))
            });
        self.read.keep(good);
        Ok(records)
    }

    fn open_epochs(
        &self,
        state: &ControlState,
        findings: &[BadRecord],
    ) -> Result<RoomKeys, VaultError> {
        let heads = state.epoch_heads();
        if heads.is_empty() {
            let dir = format!("rooms/{}/control", self.anchor.room);
            let bad = findings.iter().map(|bad| format!("; {bad}"));
            let what = "no epoch is there: the storage lost or withholds it".to_owned();
            return Err(VaultError::integrity(dir, what + &bad.collect::<String>()));
        }
        let (vault, room) = (self.anchor.vault, self.anchor.room);
        let mut keys: Option<RoomKeys> = None;
        for (id, info) in &state.epochs {
            // Epochs from before one's time are not for everybody.
            let Some(key) = self.open_epoch(state, id, info) else {
                continue;
            };
            match &mut keys {
                None => {
                    let secret = &state.room_secret;
                    let first = RoomKeys::new(vault, room, secret, *id, key, info.commitment)?;
                    keys = Some(first);
                }
                Some(keys) => keys.add_epoch(*id, key, info.commitment)?,
            }
        }
        let missing = heads.first().copied().unwrap_or_default();
        let mut keys = keys.ok_or(VaultError::NotForUs(missing))?;
        // Of several the first that is for us; before anything is written they are merged.
        match heads.iter().find(|id| keys.commitment(id).is_some()) {
            Some(current) => drop(keys.set_current(*current)),
            None if self.is_entitled(state) => return Err(VaultError::NotForUs(missing)),
            // Who was put out reads on what he could read, and seals nothing.
            None => {}
        }
        keys.set_clean(state.clean_epochs());
        Ok(keys)
    }

    /// Whether the epochs of today are for us.
    fn is_entitled(&self, state: &ControlState) -> bool {
        let now = state.now();
        match self.recipient {
            Recipient::Device(device) => now.devices.contains_key(&device),
            Recipient::Root(person) | Recipient::Words(person) => now.members.contains_key(&person),
        }
    }

    /// Tries the epoch's own envelope, then grants, then what a later member was given.
    fn open_epoch(&self, state: &ControlState, id: &EpochId, info: &EpochInfo) -> Option<EpochKey> {
        let own = info
            .envelopes
            .iter()
            .filter(|(recipient, _)| *recipient == self.recipient)
            .map(|(_, envelope)| {
                let binding = self.binding(info.author, info.signer);
                (binding, Purpose::Epoch(info.core), envelope)
            });
        let granted = state
            .grants
            .iter()
            .filter(|grant| grant.epoch == *id && grant.recipient == self.recipient)
            .map(|grant| {
                let binding = self.binding(grant.author, grant.signer);
                (binding, Purpose::Grant(*id), &grant.envelope)
            });
        let linked = state
            .back_links
            .iter()
            .filter(|link| link.earlier == *id && link.recipient == self.recipient)
            .map(|link| {
                let binding = self.binding(link.author, link.signer);
                let (epoch, earlier) = (link.epoch, link.earlier);
                (binding, Purpose::Link { epoch, earlier }, &link.envelope)
            });
        let mut all = own.chain(granted).chain(linked);
        all.find_map(|(binding, purpose, envelope)| {
            let mut secrets = self.secrets.iter();
            secrets.find_map(|s| binding.unwrap(purpose, self.recipient, s, envelope))
        })
    }

    fn binding(
        &self,
        author: skrin_base::ids::PersonId,
        signer: crate::record::SignerRef,
    ) -> Binding {
        Binding {
            vault: self.anchor.vault,
            room: self.anchor.room,
            author,
            signer,
        }
    }
}
