//! rclone crypt, mounted with its write-back cache.

use super::{Endpoint, PASSPHRASE, Peer, Site, first_line, remove};
use crate::error::{BenchError, Context};
use crate::mount::{Layer, Mounted};
use crate::process::{Daemon, check, run};
use crate::servers::{ACCESS_KEY, BUCKET, SECRET_KEY};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

/// `--vfs-cache-mode full`: without it an open file cannot be changed in place.
pub(super) struct Rclone(pub(super) PathBuf);

impl Rclone {
    /// Writes a configuration with the remotes `base` and `vault`.
    fn config(&self, site: &Site, base: &str, root: &str) -> Result<PathBuf, BenchError> {
        let password = run(Command::new(&self.0).args(["obscure", PASSPHRASE]))?;
        let text = format!(
            "[base]\n{base}\n[vault]\ntype = crypt\nremote = base:{root}\npassword = {}\n",
            password.trim()
        );
        let file = site.state.join("rclone.conf");
        fs::write(&file, text).at("write", &file)?;
        Ok(file)
    }

    fn remote_config(&self, site: &Site) -> Result<PathBuf, BenchError> {
        let name = &site.name;
        match site.endpoint {
            Endpoint::Folder => {
                let root = site.storage.to_string_lossy();
                self.config(site, "type = local", &root)
            }
            Endpoint::WebDav(addr) => {
                // Its pause of 10 ms between requests is for Sharepoint; others do not need it.
                let base = format!(
                    "type = webdav\nurl = http://{addr}/\nvendor = other\npacer_min_sleep = 0.01ms"
                );
                self.config(site, &base, name)
            }
            Endpoint::S3(addr) => {
                let base = format!(
                    "type = s3\nprovider = Rclone\nendpoint = http://{addr}\nforce_path_style = true\n\
                     access_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\nregion = us-east-1"
                );
                self.config(site, &base, &format!("{BUCKET}/{name}"))
            }
        }
    }
}

fn port_file(site: &Site) -> PathBuf {
    site.state.join("rclone.rc")
}

/// Asks the mount's control port how many files wait for their upload.
fn waiting_uploads(control: &str) -> Result<u64, BenchError> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(control)?;
        stream.write_all(
            b"POST /vfs/stats HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().context(|| "ask rclone for its uploads".to_owned())?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let wrong = || BenchError::Wrong(format!("rclone's statistics: {answer}"));
    let stats: serde_json::Value = serde_json::from_str(body).map_err(|_| wrong())?;
    let count = |key| stats["diskCache"][key].as_u64().ok_or_else(wrong);
    Ok(count("uploadsInProgress")? + count("uploadsQueued")?)
}

impl Peer for Rclone {
    fn name(&self) -> &'static str {
        "rclone crypt"
    }

    fn version(&self) -> Result<String, BenchError> {
        first_line(Command::new(&self.0).arg("version"))
    }

    fn init(&self, site: &Site) -> Result<(), BenchError> {
        let config = self.remote_config(site)?;
        let mut command = Command::new(&self.0);
        run(command
            .arg("--config")
            .arg(config)
            .args(["mkdir", "vault:"]))
        .map(drop)
    }

    fn mount(&self, site: &Site) -> Result<Mounted, BenchError> {
        let listener = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let control = listener.context(|| "find a free port".to_owned())?;
        fs::write(port_file(site), control.to_string()).at("write", &port_file(site))?;
        let mut command = Command::new(&self.0);
        command
            .arg("--config")
            .arg(self.remote_config(site)?)
            .args(["mount", "vault:"])
            .arg(&site.mountpoint)
            .arg("--cache-dir")
            .arg(site.state_dir("rclone-cache")?)
            .args("--vfs-cache-mode full --vfs-write-back 100ms --transfers 8".split(' '))
            .args("--dir-cache-time 1000h --poll-interval 0 --attr-timeout 1h".split(' '))
            .args(["--rc", "--rc-no-auth", "--rc-addr", &control.to_string()]);
        let daemon = Daemon::start(&mut command, &site.log("rclone"), "")?;
        Layer::wait(&site.mountpoint, daemon).map(|layer| Mounted::new(vec![layer]))
    }

    fn settle(&self, site: &Site, mounted: Mounted) -> Result<Option<Mounted>, BenchError> {
        let control = fs::read_to_string(port_file(site)).at("read", &port_file(site))?;
        loop {
            check()?;
            match waiting_uploads(&control)? {
                0 => return Ok(Some(mounted)),
                _ => sleep(Duration::from_millis(10)),
            }
        }
    }

    fn drop_contents(&self, site: &Site) -> Result<(), BenchError> {
        remove(&site.state.join("rclone-cache"))
    }

    /// Past its mount, and past Apache, which only keeps files in a folder: this would take hours otherwise.
    fn populate(&self, site: &Site, from: &Path) -> Result<(), BenchError> {
        let config = match site.direct {
            Endpoint::S3(_) => self.remote_config(&Site {
                endpoint: site.direct,
                ..site.clone()
            })?,
            _ => self.config(site, "type = local", &site.storage.to_string_lossy())?,
        };
        let mut command = Command::new(&self.0);
        command.arg("--config").arg(config).arg("copy").arg(from);
        run(command.args(["vault:tree", "--transfers", "16"]))?;
        match site.endpoint {
            // Apache's user must be able to read them.
            Endpoint::WebDav(_) => {
                let mut command = Command::new("chown");
                run(command.args(["-R", "www-data:"]).arg(&site.storage)).map(drop)
            }
            _ => Ok(()),
        }
    }
}
