//! gocryptfs: over a folder, and over davfs2. (Not over s3fs: version 1.90 hangs on `rclone serve s3` when a file is
//! made in a directory.)

use super::{Endpoint, Peer, Site, first_line, remove};
use crate::error::{BenchError, Context};
use crate::mount::{Layer, Mounted, detach};
use crate::process::{Daemon, run};
use rustix::process::Pid;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

fn version() -> Result<String, BenchError> {
    first_line(Command::new("gocryptfs").arg("-version"))
}

fn init(site: &Site, cipher: &Path) -> Result<(), BenchError> {
    fs::create_dir_all(cipher).at("create", cipher)?;
    let mut command = Command::new("gocryptfs");
    command.args(["-init", "-q", "-passfile"]);
    run(command.arg(site.passphrase_file()?).arg(cipher)).map(drop)
}

fn mount(site: &Site, cipher: &Path) -> Result<Layer, BenchError> {
    let mut command = Command::new("gocryptfs");
    command.args(["-fg", "-q", "-passfile"]);
    command.arg(site.passphrase_file()?);
    command.args([cipher, &site.mountpoint]);
    let daemon = Daemon::start(&mut command, &site.log("gocryptfs"), "")?;
    Layer::wait(&site.mountpoint, daemon)
}

/// Over a folder.
pub(super) struct Gocryptfs;

impl Peer for Gocryptfs {
    fn name(&self) -> &'static str {
        "gocryptfs"
    }

    fn version(&self) -> Result<String, BenchError> {
        version()
    }

    fn init(&self, site: &Site) -> Result<(), BenchError> {
        init(site, &site.storage)
    }

    fn mount(&self, site: &Site) -> Result<Mounted, BenchError> {
        mount(site, &site.storage).map(|layer| Mounted::new(vec![layer]))
    }
}

/// The command returns before its daemon has written the file.
fn written_pid(file: &Path) -> Result<Pid, BenchError> {
    for _ in 0..500 {
        let pid = fs::read_to_string(file).unwrap_or_default();
        if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
            return Ok(pid);
        }
        sleep(Duration::from_millis(10));
    }
    let missing = format!("{} with davfs2's pid did not come", file.display());
    Err(BenchError::Wrong(missing))
}

/// Over a WebDAV server mounted by davfs2, which uploads a file some time after its close.
pub(super) struct OverDavfs;

impl OverDavfs {
    fn lower(site: &Site) -> Result<Layer, BenchError> {
        let Endpoint::WebDav(addr) = site.endpoint else {
            return Err(BenchError::Wrong("davfs2 needs WebDAV".into()));
        };
        let (dir, cache) = (site.state_dir("lower")?, site.state_dir("davfs-cache")?);
        // It drops its rights and then makes a folder in there.
        fs::set_permissions(&cache, Permissions::from_mode(0o777)).at("chmod", &cache)?;
        let config = format!(
            "ask_auth 0\nuse_locks 0\ndelay_upload 0\ncache_size 4096\ncache_dir {}\n\
             dir_refresh 3600\nfile_refresh 3600\n",
            cache.display()
        );
        let file = site.state.join("davfs2.conf");
        fs::write(&file, config).at("write", &file)?;
        let pid_file = dir.to_string_lossy().trim_matches('/').replace('/', "-");
        let pid_file = PathBuf::from(format!("/run/mount.davfs/{pid_file}.pid"));
        // One that was killed leaves it, and it would not start over it.
        let _none_left = fs::remove_file(&pid_file);
        let mut command = Command::new("mount.davfs");
        command.arg(format!("http://{addr}/")).arg(&dir);
        run(command.args(["-o", &format!("conf={},uid=0,gid=0", file.display())]))?;
        let pid = written_pid(&pid_file).inspect_err(|_| {
            let _best_effort = detach(&dir);
        })?;
        Layer::wait(&dir, Daemon::adopt(pid, "mount.davfs", &site.log("davfs")))
    }
}

impl Peer for OverDavfs {
    fn name(&self) -> &'static str {
        "gocryptfs + davfs2"
    }

    fn version(&self) -> Result<String, BenchError> {
        let davfs = first_line(Command::new("mount.davfs").arg("--version"))?;
        Ok(format!("{}; {davfs}", version()?))
    }

    fn init(&self, site: &Site) -> Result<(), BenchError> {
        let lower = Self::lower(site)?;
        let mounted = Mounted::new(vec![lower]);
        init(site, &mounted.dir().join(&site.name))?;
        mounted.unmount()
    }

    fn mount(&self, site: &Site) -> Result<Mounted, BenchError> {
        let lower = Self::lower(site)?;
        let upper = mount(site, &site.state.join("lower").join(&site.name))?;
        Ok(Mounted::new(vec![lower, upper]))
    }

    /// davfs2 does not say what it has still to upload; it waits for it when it is unmounted.
    fn settle(&self, _site: &Site, mounted: Mounted) -> Result<Option<Mounted>, BenchError> {
        mounted.unmount().map(|()| None)
    }

    fn drop_contents(&self, site: &Site) -> Result<(), BenchError> {
        remove(&site.state.join("davfs-cache"))
    }
}
