//! What is compared: each knows how to make a vault, to mount it and to say when everything is on the storage.

mod cryfs;
mod gocryptfs;
mod juicefs;
mod plain;
mod rclone;
mod skrin;

use crate::error::{BenchError, Context};
use crate::mount::Mounted;
use crate::process::run;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a vault lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// In a folder of this machine.
    Folder,
    /// Behind a WebDAV server.
    WebDav(SocketAddr),
    /// Behind an S3 server, in the bucket `bench`.
    S3(SocketAddr),
}

/// One vault with everything that belongs to it.
#[derive(Clone, Debug)]
pub struct Site {
    /// How the client reaches the storage.
    pub endpoint: Endpoint,
    /// The same without a slow link between.
    pub direct: Endpoint,
    /// The folder in which the ciphertext can be counted, whatever stands before it.
    pub storage: PathBuf,
    /// The vault's name within bucket or server: the last part of `storage`.
    pub name: String,
    /// Local state, caches and logs of the client.
    pub state: PathBuf,
    /// Where to mount.
    pub mountpoint: PathBuf,
}

/// The peer that the others are compared with.
pub const OURS: &str = "skrin";

/// All vaults have this passphrase.
pub const PASSPHRASE: &str = "correct horse battery staple 7";

impl Site {
    /// A file that holds the passphrase.
    pub fn passphrase_file(&self) -> Result<PathBuf, BenchError> {
        let file = self.state.join("passphrase");
        fs::write(&file, PASSPHRASE).at("write", &file)?;
        Ok(file)
    }

    /// A folder of the client's local state, made if it is missing.
    pub fn state_dir(&self, name: &str) -> Result<PathBuf, BenchError> {
        let dir = self.state.join(name);
        fs::create_dir_all(&dir).at("create", &dir)?;
        Ok(dir)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.state.join(format!("{name}.log"))
    }
}

/// Programs under test.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Ours.
    pub skrin: PathBuf,
    /// Another build of ours to compare with.
    pub before: Option<PathBuf>,
    /// Whether to compare with ours where the kernel keeps nothing.
    pub uncached: bool,
    /// 1.75 or later.
    pub rclone: PathBuf,
    /// 1.4 or later.
    pub juicefs: PathBuf,
}

/// An encrypted file system.
pub trait Peer {
    /// As it stands in the tables.
    fn name(&self) -> &'static str;

    /// Its version.
    fn version(&self) -> Result<String, BenchError>;

    /// Makes an empty vault.
    fn init(&self, site: &Site) -> Result<(), BenchError>;

    /// Mounts it and returns when the mount answers.
    fn mount(&self, site: &Site) -> Result<Mounted, BenchError>;

    /// Returns when everything that was written is on the storage, and on a folder's disk. `None` when it had to be
    /// unmounted for that.
    fn settle(&self, site: &Site, mounted: Mounted) -> Result<Option<Mounted>, BenchError> {
        sync_folder(mounted.dir())?;
        if site.endpoint == Endpoint::Folder {
            sync_folder(&site.storage)?;
        }
        Ok(Some(mounted))
    }

    /// Deletes contents cached on this machine, while unmounted.
    fn drop_contents(&self, site: &Site) -> Result<(), BenchError> {
        let _ = site;
        Ok(())
    }

    /// Deletes all local state, while unmounted: what is then mounted is a new machine. `false` where the vault
    /// cannot be had without it.
    fn forget(&self, site: &Site) -> Result<bool, BenchError> {
        self.drop_contents(site).map(|()| true)
    }

    /// Copies a folder into the vault, as `tree`, as fast as the peer can and not over the slow link.
    fn populate(&self, site: &Site, from: &Path) -> Result<(), BenchError> {
        let direct = Site {
            endpoint: site.direct,
            ..site.clone()
        };
        let mounted = self.mount(&direct)?;
        copy(from, &mounted.dir().join("tree"))?;
        match self.settle(&direct, mounted)? {
            Some(mounted) => mounted.unmount(),
            None => Ok(()),
        }
    }

    /// Whether it counts as a competitor in the ratios.
    fn competes(&self) -> bool {
        true
    }
}

/// rsync of one folder to another that does not exist yet.
pub fn copy(from: &Path, to: &Path) -> Result<(), BenchError> {
    let mut command = Command::new("rsync");
    command.arg("-a");
    let mut from = from.as_os_str().to_owned();
    from.push("/");
    run(command.arg(from).arg(to)).map(drop)
}

fn sync_folder(dir: &Path) -> Result<(), BenchError> {
    let open = fs::File::open(dir).at("open", dir)?;
    rustix::fs::syncfs(&open).at("sync", dir)
}

fn remove(dir: &Path) -> Result<(), BenchError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.at("remove", dir),
    }
}

/// The first line of `program --version` or the like.
fn first_line(command: &mut Command) -> Result<String, BenchError> {
    let output = run(command)?;
    Ok(output.lines().next().unwrap_or_default().to_owned())
}

/// The peers that can work on this kind of storage, ours first.
pub fn for_endpoint(endpoint: Endpoint, tools: &Tools) -> Vec<Box<dyn Peer>> {
    let skrin = |program: &Path, name, uncached| -> Box<dyn Peer> {
        Box::new(skrin::Skrin {
            program: program.to_owned(),
            name,
            uncached,
        })
    };
    let mut peers = vec![skrin(&tools.skrin, OURS, false)];
    if let Some(before) = &tools.before {
        peers.push(skrin(before, "skrin before", false));
    }
    if tools.uncached {
        peers.push(skrin(&tools.skrin, "skrin uncached", true));
    }
    let rclone = || Box::new(rclone::Rclone(tools.rclone.clone()));
    let juicefs = || Box::new(juicefs::JuiceFs(tools.juicefs.clone()));
    let others: Vec<Box<dyn Peer>> = match endpoint {
        Endpoint::Folder => vec![
            Box::new(gocryptfs::Gocryptfs),
            Box::new(cryfs::CryFs),
            Box::new(plain::Plain),
        ],
        Endpoint::WebDav(_) => vec![rclone(), juicefs(), Box::new(gocryptfs::OverDavfs)],
        Endpoint::S3(_) => vec![rclone(), juicefs()],
    };
    peers.extend(others);
    peers
}
