//! Devices: made here, certified by the root, kept in a file on this machine.

use crate::epoch::{Binding, Purpose};
use crate::record::{DeviceAdd, Grant, Label, Recipient, Record, SignerRef};
use crate::room::{Room, RoomReader};
use crate::{Unlocked, VaultError};
use skrin_base::ids::{DeviceId, EpochId, PersonId, VaultId};
use skrin_base::limits::FORMAT_VERSION;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Clock, Entropy};
use skrin_crypto::{
    DeviceSeed, DeviceSigner, KemPublic, KemSecret, LocalAad, LocalKey, Suite, VerifyingKey, hash,
    keys, open, seal,
};
use skrin_storage::Store;

const MAGIC: &[u8; 4] = b"SKRD";

/// This machine's identity in one vault. Its seed never leaves the machine.
pub struct Device {
    id: DeviceId,
    suite: Suite,
    seed: DeviceSeed,
}

/// The id that follows from whose a device is, and from its public keys: nobody can give it to other keys, or certify
/// another's device as his own.
pub(crate) fn device_id(
    vault: VaultId,
    person: PersonId,
    sign: &VerifyingKey,
    kem: &KemPublic,
) -> DeviceId {
    let mut w = Writer::default();
    w.bytes(b"skrin/v1/device");
    vault.encode(&mut w);
    person.encode(&mut w);
    sign.encode(&mut w);
    kem.encode(&mut w);
    let hash = hash(&w.into_bytes());
    DeviceId(std::array::from_fn(|at| hash.0[at]))
}

impl Device {
    /// Draws a new one for the person who unlocked. Keep it with `seal_device_file` before it is certified, so that a crash
    /// between the two leaves no certificate without a key.
    pub fn make(unlocked: &Unlocked, room: &Room, entropy: &dyn Entropy) -> Self {
        let person = room.state.persons.get(&unlocked.person());
        let suite = person.map_or(Suite::XWing, |person| person.keys.root_kem.suite());
        Self::derive(keys::make_device_seed(entropy), unlocked, suite)
    }

    fn derive(seed: DeviceSeed, unlocked: &Unlocked, suite: Suite) -> Self {
        let vault = unlocked.vault();
        let sign = DeviceSigner::derive(&seed, vault).public();
        let kem = KemSecret::derive_device(&seed, vault, suite).public();
        let id = device_id(vault, unlocked.person(), &sign, &kem);
        Self { id, suite, seed }
    }

    /// Its name in the records.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Signs its commits.
    pub fn signer(&self, vault: VaultId) -> DeviceSigner {
        DeviceSigner::derive(&self.seed, vault)
    }

    /// Seals this machine's files of one purpose: `journal`, `heads`, `cache`, `meta`.
    pub fn local_key(&self, vault: VaultId, purpose: &str) -> LocalKey {
        keys::derive_local_key(&self.seed, vault, purpose)
    }

    pub(crate) fn seed(&self) -> &DeviceSeed {
        &self.seed
    }
}

fn aad(vault: VaultId, device: DeviceId) -> LocalAad {
    LocalAad {
        purpose: "device",
        vault,
        context: device.0.to_vec(),
    }
}

/// The bytes of the device file: only who can unlock the vault can open it.
pub fn seal_device_file(unlocked: &Unlocked, device: &Device, entropy: &dyn Entropy) -> Vec<u8> {
    let vault = unlocked.vault();
    let key = keys::derive_device_file_key(unlocked.root(), vault, device.id);
    let mut w = Writer::default();
    w.raw(MAGIC);
    w.u8(FORMAT_VERSION);
    vault.encode(&mut w);
    device.id.encode(&mut w);
    w.raw(&seal(
        &key,
        &aad(vault, device.id),
        device.seed.expose(),
        entropy,
    ));
    w.into_bytes()
}

/// Reads a device file that was sealed for this vault.
///
/// # Errors
/// `DeviceFile`.
pub fn open_device_file(unlocked: &Unlocked, bytes: &[u8]) -> Result<Device, VaultError> {
    let (vault, id, sealed) = parse_file(bytes)
        .map_err(|_| VaultError::DeviceFile("it is damaged, or made by another program"))?;
    if vault != unlocked.vault() {
        return Err(VaultError::DeviceFile("it belongs to another vault"));
    }
    let key = keys::derive_device_file_key(unlocked.root(), vault, id);
    let plain = open(&key, &aad(vault, id), sealed)
        .map_err(|_| VaultError::DeviceFile("it was changed, or sealed by another root"))?;
    for suite in [Suite::XWing, Suite::X25519] {
        let seed = <DeviceSeed as Decode>::from_bytes(&plain)
            .map_err(|_| VaultError::DeviceFile("it is damaged"))?;
        let device = Device::derive(seed, unlocked, suite);
        if device.id == id {
            return Ok(device);
        }
    }
    Err(VaultError::DeviceFile(
        "its device id is not the one that follows from its seed and its person",
    ))
}

fn parse_file(bytes: &[u8]) -> Result<(VaultId, DeviceId, &[u8]), WireError> {
    let mut r = Reader::new(bytes);
    if r.raw(MAGIC.len())? != MAGIC || r.u8()? != FORMAT_VERSION {
        return Err(WireError::Value("device file"));
    }
    Ok((
        VaultId::decode(&mut r)?,
        DeviceId::decode(&mut r)?,
        r.rest(),
    ))
}

impl Unlocked {
    /// Certifies a device of this person with the root and grants it every epoch that the root
    /// can open. Does nothing for a device that is certified already; `room` is brought up to date.
    ///
    /// # Errors
    /// `UnlistedSlot`, `Label`, `Storage`, and `Integrity` for another device of the same id.
    pub async fn certify_device(
        &self,
        store: &dyn Store,
        room: &mut Room,
        device: &Device,
        label: &str,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<(), VaultError> {
        self.require_listed_slot(&room.state)?;
        let sign = device.signer(self.vault()).public();
        match room.state.devices.get(&device.id) {
            Some(known) if known.sign == sign && known.person == self.person() => {}
            Some(known) => {
                let object = format!("device {} ({})", device.id, known.label.as_str());
                return Err(VaultError::integrity(
                    object,
                    "it is certified with other keys",
                ));
            }
            None => {
                let record = self.device_add(room, device, label)?;
                self.publish(store, room, record, clock, entropy).await?;
            }
        }
        self.grant_epochs(store, room, device, clock, entropy).await
    }

    fn device_add(&self, room: &Room, device: &Device, label: &str) -> Result<Record, VaultError> {
        let label = Label::new(label).map_err(|_| VaultError::Label(label.to_owned()))?;
        let Some(previous) = room.state.key_log_end(&self.person()) else {
            return Err(VaultError::integrity(
                "control records",
                "this person is not in them",
            ));
        };
        Ok(Record::DeviceAdd(Box::new(DeviceAdd {
            person: self.person(),
            previous,
            device: device.id,
            sign: device.signer(self.vault()).public(),
            kem: KemSecret::derive_device(&device.seed, self.vault(), device.suite).public(),
            label,
        })))
    }

    async fn grant_epochs(
        &self,
        store: &dyn Store,
        room: &mut Room,
        device: &Device,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<(), VaultError> {
        let recipient = Recipient::Device(device.id);
        let epochs: Vec<EpochId> = room.keys.epochs().collect();
        for epoch in epochs {
            let has = |r: &Recipient| *r == recipient;
            let granted = room.state.grants.iter();
            let mut granted = granted.filter(|g| g.epoch == epoch).map(|g| &g.recipient);
            let info = room.state.epochs.get(&epoch);
            let listed = info.is_some_and(|i| i.envelopes.iter().any(|(r, _)| has(r)));
            if listed || granted.any(has) {
                continue;
            }
            let record = self.grant(room, epoch, recipient, device, entropy)?;
            self.publish(store, room, record, clock, entropy).await?;
        }
        Ok(())
    }

    fn grant(
        &self,
        room: &Room,
        epoch: EpochId,
        recipient: Recipient,
        device: &Device,
        entropy: &dyn Entropy,
    ) -> Result<Record, VaultError> {
        let known = room.state.devices.get(&device.id);
        let key = room.keys.epoch_key(&epoch);
        let (Some(known), Some(key)) = (known, key) else {
            return Err(VaultError::NotForUs(epoch));
        };
        let binding = Binding {
            vault: self.vault(),
            room: room.state.room,
            author: self.person(),
            signer: SignerRef::Root,
        };
        let envelope = binding.wrap(Purpose::Grant(epoch), recipient, &known.kem, key, entropy)?;
        Ok(Record::Grant(Box::new(Grant {
            epoch,
            recipient,
            envelope,
        })))
    }

    /// A reader of the root room that works without the root, for as long as this device is mounted.
    pub fn reader_for(&self, device: &Device) -> RoomReader {
        RoomReader::for_device(self, device)
    }
}
