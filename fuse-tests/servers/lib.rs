//! Real WebDAV and S3 servers for tests: each runs in a directory of its own on a free port of 127.0.0.1 and ends
//! with the value that stands for it, or with the program that started it, however that ends.
//! `.ci/install-test-deps` installs them; one that is missing is an error, not a skipped test.
#![forbid(unsafe_code)]

mod apache;
mod bucket;
mod nginx;
mod process;
mod radosgw;
mod simple;
mod tls;

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use process::Process;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Apache mod_dav with Basic.
    Apache,
    /// Apache mod_dav with Digest.
    ApacheDigest,
    /// Apache mod_dav with Basic inside TLS, the certificate signed by a CA that only [`Server::ca_pem`] knows.
    ApacheTls,
    /// nginx with dav-ext, without a log-in.
    Nginx,
    /// rclone's WebDAV server with Basic.
    Rclone,
    /// wsgidav with Digest.
    WsgiDav,
    /// moto's S3, which checks no signatures.
    Moto,
    /// Ceph's S3, which does.
    Radosgw,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Apache,
        Self::ApacheDigest,
        Self::ApacheTls,
        Self::Nginx,
        Self::Rclone,
        Self::WsgiDav,
        Self::Moto,
        Self::Radosgw,
    ];

    fn is_s3(self) -> bool {
        matches!(self, Self::Moto | Self::Radosgw)
    }

    fn has_login(self) -> bool {
        self != Self::Nginx
    }

    /// How long the slowest machine may take until it answers.
    fn patience(self) -> Duration {
        Duration::from_secs(if self == Self::Radosgw { 240 } else { 90 })
    }
}

/// User, or access key, of every server that wants one.
pub const USER: &str = "anna";
/// Password, or secret key, of the same.
pub const PASSWORD: &str = "correct-horse-42";
/// The bucket that exists.
pub const BUCKET: &str = "skrin-test";
/// The region that S3 requests are signed for.
pub const REGION: &str = "us-east-1";

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A program is missing or a file cannot be written.
    #[error("{0}: {1}; has .ci/install-test-deps been run?")]
    Io(String, #[source] io::Error),
    /// It ended, or never answered; with the end of its output.
    #[error("{0} did not start: {1}")]
    Silent(String, String),
}

/// A running server.
pub struct Server {
    kind: Kind,
    port: u16,
    processes: Vec<Process>,
    ca: Option<Vec<u8>>,
    // Last, so that it is removed after the processes are gone.
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server and returns when it answers.
    pub fn start(kind: Kind) -> Result<Self, StartError> {
        let dir = tempfile::Builder::new()
            .prefix("skrin-server-")
            .tempdir()
            .map_err(|e| io_error("temporary directory", e))?;
        let mut server = Self {
            kind,
            port: free_port().map_err(|e| io_error("free port", e))?,
            processes: Vec::new(),
            ca: None,
            dir,
        };
        server.prepare()?;
        server.launch()?;
        if kind.is_s3() {
            server.make_bucket()?;
        }
        Ok(server)
    }

    fn prepare(&mut self) -> Result<(), StartError> {
        make_dir(&self.dir.path().join("data"))?;
        match self.kind {
            Kind::ApacheTls => {
                self.ca = Some(tls::make_certificates(self.dir.path())?);
                apache::prepare(self.dir.path())
            }
            Kind::Apache | Kind::ApacheDigest => apache::prepare(self.dir.path()),
            Kind::Radosgw => radosgw::prepare(self.dir.path(), self.port),
            _ => Ok(()),
        }
    }

    fn launch(&mut self) -> Result<(), StartError> {
        let (dir, port) = (self.dir.path(), self.port);
        self.processes = match self.kind {
            Kind::Apache => vec![apache::start(dir, port, apache::Login::Basic)?],
            Kind::ApacheDigest => vec![apache::start(dir, port, apache::Login::Digest)?],
            Kind::ApacheTls => vec![apache::start(dir, port, apache::Login::BasicInTls)?],
            Kind::Nginx => vec![nginx::start(dir, port)?],
            Kind::Rclone => vec![simple::rclone(dir, port)?],
            Kind::WsgiDav => vec![simple::wsgidav(dir, port)?],
            Kind::Moto => vec![simple::moto(dir, port)?],
            Kind::Radosgw => radosgw::start(dir)?,
        };
        for process in &mut self.processes {
            process.wait_for_port(self.port, self.kind.patience())?;
        }
        Ok(())
    }

    fn make_bucket(&self) -> Result<(), StartError> {
        if self.kind == Kind::Radosgw {
            radosgw::make_user(self.dir.path())?;
        }
        bucket::make(self.port, self.kind.patience())
    }

    /// Ends the server as a crash would, keeping its files and port.
    pub fn kill(&mut self) {
        for process in &mut self.processes {
            process.kill();
        }
        self.processes.clear();
    }

    /// Starts it again after [`Server::kill`]. What moto and radosgw keep in memory is gone.
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.kill();
        self.launch()
    }

    /// Which server this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a vault at `path` (no slash at either end), as the command line takes it.
    pub fn vault_url(&self, path: &str) -> String {
        self.vault_url_at(self.port, path)
    }

    /// The same through a relay that listens on another port.
    pub fn vault_url_at(&self, port: u16, path: &str) -> String {
        match self.kind {
            Kind::Moto | Kind::Radosgw => {
                format!("s3://{BUCKET}/{path}?endpoint=http://127.0.0.1:{port}&region={REGION}")
            }
            Kind::ApacheTls => format!("webdavs://127.0.0.1:{port}/{path}"),
            _ => format!("webdav://127.0.0.1:{port}/{path}"),
        }
    }

    /// User (or access key) and password (or secret key), where it wants any.
    pub fn login(&self) -> Option<(&'static str, &'static str)> {
        self.kind.has_login().then_some((USER, PASSWORD))
    }

    /// The login as environment variables for the command line, and the CA.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = Vec::new();
        if let Some((user, password)) = self.login() {
            let (user_var, password_var) = match self.kind.is_s3() {
                true => ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
                false => ("SKRIN_WEBDAV_USER", "SKRIN_WEBDAV_PASSWORD"),
            };
            env.push((user_var, user.to_owned()));
            env.push((password_var, password.to_owned()));
        }
        if self.ca.is_some() {
            let path = tls::ca_path(self.dir.path());
            env.push(("SKRIN_CA_FILE", path.display().to_string()));
        }
        env
    }

    /// The CA that signed the server's certificate, in PEM.
    pub fn ca_pem(&self) -> Option<&[u8]> {
        self.ca.as_deref()
    }

    /// Where a WebDAV server keeps what was put, file by file; none for S3.
    pub fn data_dir(&self) -> Option<PathBuf> {
        (!self.kind.is_s3()).then(|| self.dir.path().join("data"))
    }
}

fn io_error(what: &str, error: io::Error) -> StartError {
    StartError::Io(what.to_owned(), error)
}

fn make_dir(path: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(path).map_err(|e| io_error(&path.display().to_string(), e))
}

fn write(path: &Path, text: &str) -> Result<(), StartError> {
    std::fs::write(path, text).map_err(|e| io_error(&path.display().to_string(), e))
}

/// Below what the kernel gives to clients, who would have taken a port meanwhile, or while its server is away.
const PORTS: std::ops::Range<u32> = 10_000..20_000;

/// A port that was free a moment ago, and that nobody else in this program is given. Programs that run beside this one begin elsewhere.
fn free_port() -> io::Result<u16> {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Numbers of processes that were started one after the other lie far apart then.
    let begin = std::process::id().wrapping_mul(6181) % count;
    loop {
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        if drawn >= count {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let port = PORTS.start + (begin + drawn) % count;
        let port = u16::try_from(port).map_err(io::Error::other)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
}

/// `file` in the clone's `target/test-deps`, found from where this crate was compiled.
fn test_dep(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/test-deps")
        .join(file)
}
