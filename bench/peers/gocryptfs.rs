//! gocryptfs: over a folder, over davfs2, over s3fs.

use super::{Endpoint, Peer, Site, first_line, remove};
use crate::error::{BenchError, Context};
use crate::mount::{Layer, Mounted, is_mounted};
use crate::process::{Daemon, run};
use crate::servers::{ACCESS_KEY, BUCKET, SECRET_KEY};
use rustix::process::Pid;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Over a WebDAV server mounted by davfs2, which uploads a file some time after its close.
pub(super) struct OverDavfs;

impl OverDavfs {
    fn lower(site: &Site) -> Result<Layer, BenchError> {
        let Endpoint::WebDav(addr) = site.endpoint else {
            return Err(BenchError::Wrong("davfs2 needs WebDAV".into()));
        };
        let (dir, cache) = (site.state_dir("lower")?, site.state_dir("davfs-cache")?);
        let config = format!(
            "ask_auth 0\nuse_locks 0\ndelay_upload 0\ncache_size 4096\ncache_dir {}\n\
             dav_user root\ndav_group root\ndir_refresh 3600\nfile_refresh 3600\n",
            cache.display()
        );
        let file = site.state.join("davfs2.conf");
        fs::write(&file, config).at("write", &file)?;
        let mut command = Command::new("mount.davfs");
        command.arg(format!("http://{addr}/")).arg(&dir);
        run(command.args(["-o", &format!("conf={},uid=0,gid=0", file.display())]))?;
        let pid_file = dir.to_string_lossy().trim_matches('/').replace('/', "-");
        let pid_file = PathBuf::from(format!("/run/mount.davfs/{pid_file}.pid"));
        let pid = fs::read_to_string(&pid_file).at("read", &pid_file)?;
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| BenchError::Wrong("davfs2 wrote no pid".into()))?;
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

/// Over an S3 server mounted by s3fs, which uploads a file at its close.
pub(super) struct OverS3fs;

impl OverS3fs {
    fn lower(site: &Site) -> Result<Layer, BenchError> {
        let Endpoint::S3(addr) = site.endpoint else {
            return Err(BenchError::Wrong("s3fs needs S3".into()));
        };
        let dir = site.state_dir("lower")?;
        debug_assert!(!is_mounted(&dir), "one at a time");
        let secret = site.state.join("s3fs-secret");
        fs::write(&secret, format!("{ACCESS_KEY}:{SECRET_KEY}")).at("write", &secret)?;
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).at("chmod", &secret)?;
        let mut command = Command::new("s3fs");
        command.arg(BUCKET).arg(&dir).arg("-f");
        let options = format!(
            "url=http://{addr},use_path_request_style,passwd_file={},stat_cache_expire=3600,max_stat_cache_size=200000",
            secret.display()
        );
        command.args(["-o", &options]);
        Layer::wait(&dir, Daemon::start(&mut command, &site.log("s3fs"), "")?)
    }
}

impl Peer for OverS3fs {
    fn name(&self) -> &'static str {
        "gocryptfs + s3fs"
    }

    fn version(&self) -> Result<String, BenchError> {
        let s3fs = first_line(Command::new("s3fs").arg("--version"))?;
        Ok(format!("{}; {s3fs}", version()?))
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
}
