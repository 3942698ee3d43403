//! Opens a vault to read it without mounting and without leaving a trace: on the storage nothing is written, but that a recovery
//! key is used, and local state lies in a temporary directory that goes with the value.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skrin_storage::Store;
use skrin_vault::record::RecoveryPurpose;
use skrin_vault::{Device, Place, Room};
use tempfile::TempDir;

use crate::args::UnlockArgs;
use crate::exit::{Failure, Outcome};
use crate::machine::{OsEntropy, SystemClock};
use crate::session::{Layers, Parts};
use crate::store::{SHORT_PATIENCE, StoreSpec};
use crate::unlock::{require_member, unlock};
use crate::{print, secret};

/// How long a single request of a long read is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
/// No cache is longer.
const UNBOUNDED: u64 = 1 << 60;
/// As much memory as a mount takes.
const MEMORY: u64 = 256 << 20;

/// A vault whose address and secret were given.
pub(crate) struct Target {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) unlocked: skrin_vault::Unlocked,
}

impl Target {
    /// Opens the storage and the vault.
    ///
    /// # Errors
    /// As the layers have them.
    pub(crate) async fn open(vault: &str, args: &UnlockArgs) -> Outcome<Self> {
        let spec = StoreSpec::new(vault)?;
        let quick = spec.open(false, SHORT_PATIENCE)?;
        // Before somebody types a passphrase for what is no vault.
        skrin_vault::open_header(&*quick).await?;
        let unlocked = unlock(&*quick, &secret::credential(args)?).await?;
        Self::opened(&spec, unlocked)
    }

    /// A vault that was opened in another way.
    ///
    /// # Errors
    /// As the storage has them.
    pub(crate) fn opened(spec: &StoreSpec, unlocked: skrin_vault::Unlocked) -> Outcome<Self> {
        Ok(Self {
            store: spec.open(false, PATIENCE)?,
            unlocked,
        })
    }

    /// Where records go, and what they are made with.
    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            store: &*self.store,
            clock: &SystemClock,
            entropy: &OsEntropy,
        }
    }

    /// A recovery key is not used behind the members' backs. A storage that takes nothing any more must not keep it from what it is for.
    async fn tell_members(&self, room: &mut Room) {
        let (place, purpose) = (self.place(), RecoveryPurpose::Read);
        if let Err(error) = self.unlocked.tell_recovery(&place, room, purpose).await {
            print::note(format!(
                "warning: the members of the vault are not told that the recovery key is used: {error}"
            ));
        }
    }

    /// Opens the layers, read-only, over a temporary directory.
    ///
    /// # Errors
    /// As the layers have them.
    pub(crate) async fn layers(&self) -> Outcome<(Layers, TempDir)> {
        self.layers_with(None).await
    }

    /// The same, with the cache of sealed blocks of a device of this machine, which is only read.
    ///
    /// # Errors
    /// As the layers have them.
    pub(crate) async fn layers_with(&self, cache: Option<PathBuf>) -> Outcome<(Layers, TempDir)> {
        let dir = tempfile::Builder::new().prefix("skrin-").tempdir();
        let mut room = self.unlocked.load_room(&*self.store).await?;
        require_member(&self.unlocked, &room)?;
        if self.unlocked.is_recovery(&room) {
            self.tell_members(&mut room).await;
        }
        let dir = dir.map_err(|e| {
            Failure::io(
                &std::env::temp_dir(),
                "cannot make a temporary directory",
                &e,
            )
        })?;
        let layers = Layers::open(Parts {
            store: Arc::clone(&self.store),
            unlocked: &self.unlocked,
            // It signs nothing: it only names the temporary files.
            device: Device::make(&self.unlocked, &room, &OsEntropy),
            room,
            room_is_old: false,
            state_dir: dir.path(),
            memory: MEMORY,
            // A cache that somebody else made loses nothing by it.
            cache_size: match cache {
                Some(_) => UNBOUNDED,
                None => 0,
            },
            disk_cache: cache,
            pins: None,
            read_only: true,
        })
        .await?;
        Ok((layers, dir))
    }
}
