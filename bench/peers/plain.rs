//! The folder itself, without encryption or FUSE: not a competitor but the ceiling.

use super::{Peer, Site};
use crate::error::{BenchError, Context};
use crate::mount::{Layer, Mounted};
use crate::process::{Daemon, run};
use std::fs;
use std::process::Command;

/// A bind mount of the storage folder.
pub(super) struct Plain;

impl Peer for Plain {
    fn name(&self) -> &'static str {
        "(no encryption)"
    }

    fn version(&self) -> Result<String, BenchError> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease");
        let kernel = kernel.context(|| "read the kernel's version".to_owned())?;
        Ok(format!("Linux {}", kernel.trim()))
    }

    fn init(&self, site: &Site) -> Result<(), BenchError> {
        fs::create_dir_all(&site.storage).at("create", &site.storage)
    }

    fn mount(&self, site: &Site) -> Result<Mounted, BenchError> {
        // A bind mount has no process; one that waits stands in for it.
        run(Command::new("mount")
            .arg("--bind")
            .args([&site.storage, &site.mountpoint]))?;
        let waiting = Daemon::start(Command::new("cat").arg("-"), &site.log("bind"), "")?;
        Layer::wait(&site.mountpoint, waiting).map(|layer| Mounted::new(vec![layer]))
    }

    fn competes(&self) -> bool {
        false
    }
}
