//! From an open storage and a secret to keys, a device and the room.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use skrin_storage::Store;
use skrin_vault::error::Class;
use skrin_vault::{Device, Room, Unlocked, VaultError, open_device_file, seal_device_file};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, Outcome};
use crate::machine::{OsEntropy, SystemClock, host_name};
use crate::secret::Credential;

/// The file of the state directory that holds the device's seed, sealed under the root.
const DEVICE_FILE: &str = "device";

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        let exit = match error.class() {
            Class::WrongSecret => Exit::Secret,
            Class::NothingThere => Exit::Absent,
            Class::Integrity => Exit::Integrity,
            Class::Exists => Exit::Busy,
            Class::Usage => Exit::Usage,
            Class::Newer | Class::Machine => Exit::Other,
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
    let copy = |text: &str| Zeroizing::new(text.to_owned());
    let secret = match credential {
        Credential::Passphrase(text) => skrin_vault::Secret::Passphrase(copy(text.expose())),
        Credential::Words(text) => skrin_vault::Secret::Words(copy(text.expose())),
    };
    Ok(skrin_vault::unlock(store, &secret).await?)
}

/// Whether this machine has a device in this vault.
pub(crate) fn has_device(state_dir: &Path) -> bool {
    state_dir.join(DEVICE_FILE).exists()
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
    let path = state_dir.join(DEVICE_FILE);
    let known = match std::fs::read(&path) {
        Ok(bytes) => Some(
            open_device_file(unlocked, &bytes)
                .map_err(|e| Failure::from(e).during(path.display()))?,
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(Failure::io(&path, "cannot read the device file", &e)),
    };
    let fresh = known.is_none();
    let device = match known {
        Some(device) => device,
        None => {
            let device = Device::make(unlocked, room, &OsEntropy);
            write_durably(&path, &seal_device_file(unlocked, &device, &OsEntropy))?;
            device
        }
    };
    unlocked
        .certify_device(store, room, &device, &host_name(), &SystemClock, &OsEntropy)
        .await?;
    Ok((device, fresh))
}

/// Writes a private file so that it is there whole, or not at all, after a crash.
///
/// # Errors
/// Names the file.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let staged = path.with_extension("new");
    let write = || -> std::io::Result<()> {
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
    };
    write().map_err(|e| Failure::io(path, "cannot write it", &e))
}
