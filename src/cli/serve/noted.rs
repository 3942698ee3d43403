//! What earlier mounts noted on this machine for its device.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skrin_base::{Ino, VaultId};
use skrin_fs::LocalFiles;
use skrin_vault::Device;

use crate::args;
use crate::commands::mount::Plan;
use crate::events::EventLog;
use crate::exit::Outcome;
use crate::pins::PinFile;
use crate::rollbacks::{self, Accepted};
use crate::sealed::SealedFile;
use crate::state_dir::CACHE;

/// All of it, and where the cache is.
pub(super) struct Noted {
    pub(super) events: Arc<EventLog>,
    pub(super) rollbacks: Vec<String>,
    pub(super) cache: Option<PathBuf>,
    pub(super) pin_file: Option<Arc<PinFile>>,
    pub(super) pinned: Option<BTreeSet<Ino>>,
    pub(super) local: Option<LocalFiles>,
}

impl Noted {
    /// # Errors
    /// `Integrity` where something does not open.
    pub(super) fn load(plan: &Plan, own: &Path, device: &Device, vault: VaultId) -> Outcome<Self> {
        let accepted = rollbacks::load(own, vault, device)?;
        // A cache of sealed blocks beside a local folder would only hold everything twice.
        let cache = (!plan.store.is_local()).then(|| own.join(CACHE));
        let pin_file = cache.as_ref().map(|_| PinFile::new(own, device, vault));
        Ok(Self {
            events: EventLog::open(own, device, vault),
            rollbacks: accepted.iter().map(Accepted::line).collect(),
            pinned: pin_file.as_ref().map(|file| file.load()).transpose()?,
            local: mac_files(plan, own, device, vault)?,
            cache,
            pin_file,
        })
    }
}

/// The most that files which stay on this machine may take, and the part of the memory, as all of them are in it.
const MAC_FILES_MAX: u64 = 16 << 20;
const MAC_FILES_PART: u64 = 16;

/// Where what only Macs mean is kept, if it is to stay on this machine: as was said, or as this system's users expect.
///
/// # Errors
/// `Integrity` where what is kept does not open.
fn mac_files(
    plan: &Plan,
    state_dir: &Path,
    device: &Device,
    vault: VaultId,
) -> Outcome<Option<LocalFiles>> {
    const FILE: &str = "mac-files";
    let usual = match cfg!(target_os = "macos") {
        true => args::MacFiles::Local,
        false => args::MacFiles::Shared,
    };
    if plan.mac_files.unwrap_or(usual) == args::MacFiles::Shared {
        return Ok(None);
    }
    let file = SealedFile::new(state_dir, FILE, device, vault);
    let kept = file.load().map_err(|failure| {
        failure.remedy("move it away: what Finder keeps of this vault begins anew; or mount with --mac-files shared")
    })?;
    let max = MAC_FILES_MAX.min(plan.memory / MAC_FILES_PART);
    Ok(Some(LocalFiles {
        kept,
        keeper: Arc::new(file),
        max: usize::try_from(max).unwrap_or(usize::MAX),
    }))
}
