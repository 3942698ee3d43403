//! CryFS over a folder.

use super::{PASSPHRASE, Peer, Site, first_line, sync_folder};
use crate::error::{BenchError, Context};
use crate::mount::{Layer, Mounted};
use crate::process::Daemon;
use std::fs;
use std::process::Command;

/// Blocks of 16 KiB, XChaCha20-Poly1305: its defaults.
pub(super) struct CryFs;

impl Peer for CryFs {
    fn name(&self) -> &'static str {
        "CryFS"
    }

    fn version(&self) -> Result<String, BenchError> {
        first_line(
            Command::new("cryfs")
                .arg("--version")
                .env("CRYFS_NO_UPDATE_CHECK", "true"),
        )
    }

    /// A vault is made by mounting it for the first time.
    fn init(&self, site: &Site) -> Result<(), BenchError> {
        fs::create_dir_all(&site.storage).at("create", &site.storage)?;
        self.mount(site)?.unmount()
    }

    fn mount(&self, site: &Site) -> Result<Mounted, BenchError> {
        let mut command = Command::new("cryfs");
        command
            .env("CRYFS_FRONTEND", "noninteractive")
            .env("CRYFS_NO_UPDATE_CHECK", "true")
            .env("CRYFS_LOCAL_STATE_DIR", site.state_dir("cryfs")?)
            .arg("-f")
            .args([&site.storage, &site.mountpoint]);
        let input = format!("{PASSPHRASE}\n");
        let daemon = Daemon::start(&mut command, &site.log("cryfs"), &input)?;
        Layer::wait(&site.mountpoint, daemon).map(|layer| Mounted::new(vec![layer]))
    }

    /// Its fsync leaves blocks in memory; what writes them is unmounting.
    fn settle(&self, site: &Site, mounted: Mounted) -> Result<Option<Mounted>, BenchError> {
        mounted.unmount()?;
        sync_folder(&site.storage).map(|()| None)
    }
}
