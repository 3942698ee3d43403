//! Ours, by its command line.

use super::{Endpoint, Peer, Site, first_line, remove};
use crate::error::{BenchError, Context};
use crate::mount::{Layer, Mounted};
use crate::process::{Daemon, run};
use crate::servers::{ACCESS_KEY, BUCKET, SECRET_KEY};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A binary under test.
pub(super) struct Skrin {
    pub(super) program: PathBuf,
    /// As it stands in the tables.
    pub(super) name: &'static str,
    /// Whether the kernel is to keep nothing.
    pub(super) uncached: bool,
}

impl Skrin {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command
    }
}

fn vault(site: &Site) -> String {
    let name = &site.name;
    match site.endpoint {
        Endpoint::Folder => site.storage.display().to_string(),
        Endpoint::WebDav(addr) => format!("webdav://{addr}/{name}"),
        Endpoint::S3(addr) => {
            format!("s3://{BUCKET}/{name}?endpoint=http://{addr}&region=us-east-1")
        }
    }
}

impl Peer for Skrin {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> Result<String, BenchError> {
        first_line(self.command().arg("--version"))
    }

    fn init(&self, site: &Site) -> Result<(), BenchError> {
        let mut command = self.command();
        command.arg("init").arg(vault(site));
        command
            .arg("--passphrase-file")
            .arg(site.passphrase_file()?);
        command.arg("--words-file").arg(site.state.join("words"));
        command.env("SKRIN_STATE_DIR", site.state_dir("skrin")?);
        run(&mut command).map(drop)
    }

    fn mount(&self, site: &Site) -> Result<Mounted, BenchError> {
        let mut command = self.command();
        command.arg("mount").arg(vault(site)).arg(&site.mountpoint);
        command
            .arg("--passphrase-file")
            .arg(site.passphrase_file()?);
        command.arg("--state-dir").arg(site.state_dir("skrin")?);
        command.arg("--foreground");
        if self.uncached {
            command.arg("--uncached");
        }
        let daemon = Daemon::start(&mut command, &site.log("skrin"), "")?;
        let mut unmount = self.command();
        unmount.arg("unmount").arg(&site.mountpoint);
        unmount.env("SKRIN_STATE_DIR", site.state_dir("skrin")?);
        let layer = Layer::wait(&site.mountpoint, daemon)?.unmount_with(unmount);
        Ok(Mounted::new(vec![layer]))
    }

    fn settle(&self, site: &Site, mounted: Mounted) -> Result<Option<Mounted>, BenchError> {
        let mut command = self.command();
        command.env("SKRIN_STATE_DIR", site.state_dir("skrin")?);
        run(command.arg("sync").arg(&site.mountpoint))?;
        Ok(Some(mounted))
    }

    /// Deletes `cache/` of the vault's local state; the journal and the metadata stay.
    fn drop_contents(&self, site: &Site) -> Result<(), BenchError> {
        let state = site.state_dir("skrin")?;
        remove(&state.join("cache"))?;
        for entry in fs::read_dir(&state).at("list", &state)? {
            let entry = entry.at("list", &state)?.path();
            if entry.is_dir() {
                remove(&entry.join("cache"))?;
            }
        }
        Ok(())
    }

    fn forget(&self, site: &Site) -> Result<bool, BenchError> {
        remove(&site.state_dir("skrin")?).map(|()| true)
    }
}
