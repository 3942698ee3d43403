//! The storage that the remote settings run against, on loopback: Apache mod_dav and `rclone serve s3`, both over
//! a plain folder, so that what they store can be weighed.

use crate::error::{BenchError, Context};
use crate::process::{Daemon, run};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of the S3 server; loopback only.
pub const ACCESS_KEY: &str = "skrinbenchaccess";
/// Of the S3 server; loopback only.
pub const SECRET_KEY: &str = "skrinbenchsecret";
/// The one bucket.
pub const BUCKET: &str = "bench";
const PATIENCE: u64 = 30;

/// A running server.
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The folder that holds its objects.
    pub folder: PathBuf,
    _daemon: Daemon,
}

fn free_addr() -> Result<SocketAddr, BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0");
    listener
        .and_then(|l| l.local_addr())
        .context(|| "find a free port".to_owned())
}

/// Starts Apache with mod_dav over a new folder in `dir`, without a password.
///
/// # Errors
/// When it is not installed or does not start.
pub fn apache(dir: &Path) -> Result<Server, BenchError> {
    let addr = free_addr()?;
    let (folder, lock) = (dir.join("dav"), dir.join("lock"));
    for each in [&folder, &lock] {
        fs::create_dir_all(each).at("create", each)?;
    }
    run(Command::new("chown")
        .arg("www-data:")
        .args([&folder, &lock]))?;
    let modules = ["mpm_event", "authn_core", "authz_core", "dav", "dav_fs"];
    let load =
        modules.map(|m| format!("LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so\n"));
    let config = format!(
        "{}ServerRoot {dir}\nServerName 127.0.0.1\nListen {addr}\nPidFile {dir}/apache.pid\n\
         ErrorLog {dir}/error.log\nUser www-data\nDavLockDB {lock}/db\nDocumentRoot {folder}\n\
         <Directory {folder}>\nDav On\nRequire all granted\n</Directory>\n",
        load.concat(),
        dir = dir.display(),
        lock = lock.display(),
        folder = folder.display(),
    );
    let file = dir.join("apache.conf");
    fs::write(&file, config).at("write", &file)?;
    let mut command = Command::new("apache2");
    command.arg("-DFOREGROUND").arg("-f").arg(&file);
    listen(command, addr, folder, &dir.join("apache.log"))
}

/// Starts `rclone serve s3` over a new folder in `dir`.
///
/// # Errors
/// When it does not start.
pub fn rclone_s3(rclone: &Path, dir: &Path) -> Result<Server, BenchError> {
    let addr = free_addr()?;
    let folder = dir.join("s3");
    let bucket = folder.join(BUCKET);
    fs::create_dir_all(&bucket).at("create", &bucket)?;
    let mut command = Command::new(rclone);
    command
        .args(["serve", "s3", "--config", "/dev/null", "--addr"])
        .arg(addr.to_string())
        .args(["--auth-key", &format!("{ACCESS_KEY},{SECRET_KEY}")])
        // Or it reads every object through for each listing.
        .args(["--etag-hash", ""])
        .arg(&folder);
    listen(command, addr, bucket, &dir.join("s3.log"))
}

fn listen(
    mut command: Command,
    addr: SocketAddr,
    folder: PathBuf,
    log: &Path,
) -> Result<Server, BenchError> {
    let mut daemon = Daemon::start(&mut command, log, "")?;
    daemon.wait_until("a server that listens", PATIENCE, || {
        TcpStream::connect(addr).is_ok()
    })?;
    Ok(Server {
        addr,
        folder,
        _daemon: daemon,
    })
}
