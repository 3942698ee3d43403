//! JuiceFS with its encryption of contents. Names, sizes and the tree lie in a local SQLite file, in plain text and
//! only on this machine, so it does far less than the others; it is here because it is fast.

use super::{Endpoint, PASSPHRASE, Peer, Site, first_line, remove};
use crate::error::BenchError;
use crate::mount::{Layer, Mounted};
use crate::process::{Daemon, run};
use crate::servers::{ACCESS_KEY, BUCKET, SECRET_KEY};
use std::path::PathBuf;
use std::process::Command;

/// Without `--writeback`: a closed file is on the storage.
pub(super) struct JuiceFs(pub(super) PathBuf);

impl JuiceFs {
    fn meta(site: &Site) -> Result<String, BenchError> {
        let dir = site.state_dir("juicefs-meta")?;
        Ok(format!("sqlite3://{}", dir.join("meta.db").display()))
    }

    fn bucket(site: &Site) -> Result<(&'static str, String), BenchError> {
        match site.endpoint {
            Endpoint::Folder => Err(BenchError::Wrong("JuiceFS needs a server".into())),
            Endpoint::WebDav(addr) => Ok(("webdav", format!("http://{addr}/"))),
            Endpoint::S3(addr) => Ok(("s3", format!("http://{addr}/{BUCKET}"))),
        }
    }
}

impl Peer for JuiceFs {
    fn name(&self) -> &'static str {
        "JuiceFS"
    }

    fn version(&self) -> Result<String, BenchError> {
        first_line(Command::new(&self.0).arg("--version"))
    }

    fn init(&self, site: &Site) -> Result<(), BenchError> {
        let key = site.state.join("juicefs.pem");
        let mut openssl = Command::new("openssl");
        openssl.args([
            "genrsa",
            "-aes256",
            "-passout",
            "env:JFS_RSA_PASSPHRASE",
            "-out",
        ]);
        run(openssl
            .arg(&key)
            .arg("2048")
            .env("JFS_RSA_PASSPHRASE", PASSPHRASE))?;
        let (kind, bucket) = Self::bucket(site)?;
        let mut command = Command::new(&self.0);
        command
            .env("JFS_RSA_PASSPHRASE", PASSPHRASE)
            .args(["format", "--storage", kind, "--bucket", &bucket])
            .args(["--trash-days", "0", "--encrypt-rsa-key"])
            .arg(&key);
        if kind == "s3" {
            command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
        }
        run(command.args([&Self::meta(site)?, &site.name])).map(drop)
    }

    fn mount(&self, site: &Site) -> Result<Mounted, BenchError> {
        let (_, bucket) = Self::bucket(site)?;
        let mut command = Command::new(&self.0);
        command
            .env("JFS_RSA_PASSPHRASE", PASSPHRASE)
            .args(["mount", "--no-usage-report", "--backup-meta", "0"])
            .args(["--bucket", &bucket, "--cache-dir"])
            .arg(site.state_dir("juicefs-cache")?)
            .arg(Self::meta(site)?)
            .arg(&site.mountpoint);
        let daemon = Daemon::start(&mut command, &site.log("juicefs"), "")?;
        Layer::wait(&site.mountpoint, daemon).map(|layer| Mounted::new(vec![layer]))
    }

    fn drop_contents(&self, site: &Site) -> Result<(), BenchError> {
        remove(&site.state.join("juicefs-cache"))
    }

    /// The tree is nowhere else.
    fn forget(&self, _site: &Site) -> Result<bool, BenchError> {
        Ok(false)
    }
}
