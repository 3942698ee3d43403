//! From an open storage and a secret to keys, a device and the room.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use skrin_base::ids::parse_hex;
use skrin_storage::Store;
use skrin_vault::error::Class;
use skrin_vault::{Device, Room, Unlocked, VaultError, open_device_file, seal_device_file};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, Outcome};
use crate::machine::{OsEntropy, SystemClock, host_name};
use crate::secret::Credential;

/// The file of the state directory that holds the device's seed, sealed under the root.
const DEVICE_FILE: &str = "device";
/// The name of the slot that the passphrase opened last, which everybody can see on the storage.
const SLOT_FILE: &str = "slot";
/// Where the replica remembers what was seen.
const HEADS_FILE: &str = "heads";

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        let exit = match error.class() {
            Class::WrongSecret => Exit::Secret,
            Class::NothingThere => Exit::Absent,
            Class::Integrity => Exit::Integrity,
            Class::Exists => Exit::Busy,
            Class::Usage => Exit::Usage,
            Class::Newer | Class::Machine | Class::NotAllowed => Exit::Other,
            Class::Storage => match error {
                VaultError::Storage(error) => return error.into(),
                _ => Exit::Unreachable,
            },
        };
        Self::new(exit, error)
    }
}

/// Opens a vault. A passphrase costs 256 MiB and about a second.
///
/// # Errors
/// `Secret`, `Absent`, `Unreachable`, `Integrity`.
pub(crate) async fn unlock(store: &dyn Store, credential: &Credential) -> Outcome<Unlocked> {
    unlock_with_hint(store, credential, None).await
}

/// The same where somebody may have done so before: each member has a passphrase slot, and the one that was opened last is tried first.
///
/// # Errors
/// As [`unlock`].
pub(crate) async fn unlock_here(
    store: &dyn Store,
    credential: &Credential,
    state_dir: &Path,
) -> Outcome<Unlocked> {
    let path = state_dir.join(SLOT_FILE);
    let known = std::fs::read_to_string(&path).ok();
    let known: Option<[u8; 16]> = known.and_then(|text| parse_hex(text.trim()));
    let unlocked = unlock_with_hint(store, credential, known.as_ref()).await?;
    let name = unlocked.slot().name;
    if matches!(credential, Credential::Passphrase(_)) && known != Some(name) {
        let text: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        // It costs time only where it is missing.
        if let Err(failure) = write_durably(&path, text.as_bytes()) {
            tracing::debug!(error = %failure, "the slot is not remembered");
        }
    }
    Ok(unlocked)
}

async fn unlock_with_hint(
    store: &dyn Store,
    credential: &Credential,
    hint: Option<&[u8; 16]>,
) -> Outcome<Unlocked> {
    let copy = |text: &str| Zeroizing::new(text.to_owned());
    let secret = match credential {
        Credential::Passphrase(text) => skrin_vault::Secret::Passphrase(copy(text.expose())),
        Credential::Words(text) => skrin_vault::Secret::Words(copy(text.expose())),
    };
    Ok(skrin_vault::unlock_with_hint(store, &secret, hint).await?)
}

/// Refuses whoever is no member any more.
///
/// # Errors
/// `Secret`.
pub(crate) fn require_member(unlocked: &Unlocked, room: &Room) -> Outcome {
    if room.state.now().members.contains_key(&unlocked.person()) {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Secret,
        "these keys were valid once: their owner was removed from this vault, and what was written since cannot be read with them",
    )
    .remedy("ask a manager of the vault for a new invitation"))
}

/// Whether this machine has a device in this vault.
pub(crate) fn has_device(state_dir: &Path) -> bool {
    state_dir.join(DEVICE_FILE).exists()
}

/// This machine's device, if there is one in the state directory.
///
/// # Errors
/// A file that cannot be read or opened.
pub(crate) fn known_device(unlocked: &Unlocked, state_dir: &Path) -> Outcome<Option<Device>> {
    let path = state_dir.join(DEVICE_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => open_device_file(unlocked, &bytes)
            .map(Some)
            .map_err(|e| Failure::from(e).during(path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::io(&path, "cannot read the device file", &e)),
    }
}

/// This machine's device: the one in the state directory, or a new one, which is kept there and then certified.
/// The second value is whether it is new here.
///
/// # Errors
/// As the vault has them, and a state directory that cannot be written.
pub(crate) async fn device(
    store: &dyn Store,
    unlocked: &Unlocked,
    room: &mut Room,
    state_dir: &Path,
) -> Outcome<(Device, bool)> {
    let Some(device) = known_device(unlocked, state_dir)? else {
        let device = new_device(store, unlocked, room, state_dir, &host_name()).await?;
        return Ok((device, true));
    };
    // What was certified and has seen something stays certified; a new certificate would be written beside what is missing.
    if !room.state.devices.contains_key(&device.id()) && state_dir.join(HEADS_FILE).exists() {
        return Err(Failure::new(
            Exit::Integrity,
            "the storage was rolled back or lost objects: it does not show that this device belongs to the vault; nothing was changed",
        )
        .remedy("ask whoever runs it to bring the newer objects back; `skrin accept-rollback` puts again what this device still has, and asks whether to go on without the rest"));
    }
    certify(store, unlocked, room, &device, &host_name()).await?;
    Ok((device, false))
}

/// Makes a device, keeps it in the state directory and certifies it.
///
/// # Errors
/// As [`device`].
pub(crate) async fn new_device(
    store: &dyn Store,
    unlocked: &Unlocked,
    room: &mut Room,
    state_dir: &Path,
    label: &str,
) -> Outcome<Device> {
    let device = Device::make(unlocked, room, &OsEntropy);
    let sealed = seal_device_file(unlocked, &device, &OsEntropy);
    write_durably(&state_dir.join(DEVICE_FILE), &sealed)?;
    certify(store, unlocked, room, &device, label).await?;
    Ok(device)
}

async fn certify(
    store: &dyn Store,
    unlocked: &Unlocked,
    room: &mut Room,
    device: &Device,
    label: &str,
) -> Outcome {
    Ok(unlocked
        .certify_device(store, room, device, label, &SystemClock, &OsEntropy)
        .await?)
}

/// Writes a private file so that it is there whole, or not at all, after a crash.
///
/// # Errors
/// Names the file.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Outcome<()> {
    replace_durably(path, bytes).map_err(|e| Failure::io(path, "cannot write it", &e))
}

/// The same for who has to tell the kernel what went wrong.
///
/// # Errors
/// Of the disk.
pub(crate) fn replace_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let staged = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&staged, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
