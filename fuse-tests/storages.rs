//! The three kinds of storage that vaults live on here, and what an onlooker there can count and break.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use skrin_servers::{BUCKET, Kind, PASSWORD, Server, USER};
use tempfile::TempDir;

use crate::harness::{Run, command, files_below};

/// Which kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Local,
    WebDav,
    S3,
}

/// What is to be said of a file that was listed a moment ago; nothing where it has gone since.
pub(crate) fn unless_gone<T>(said: std::io::Result<T>) -> Option<T> {
    match said {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        said => Some(said.unwrap()),
    }
}

/// An empty place for one vault; what is in it goes with it.
pub(crate) enum Storage {
    Local(TempDir),
    Server {
        server: &'static Server,
        path: String,
    },
}

fn shared(kind: Kind, cell: &'static OnceLock<Server>) -> &'static Server {
    cell.get_or_init(|| Server::start(kind).unwrap())
}

impl Storage {
    /// A place that no other test uses. Servers are shared by all tests, and end with the program.
    pub(crate) fn new(on: On) -> Self {
        static WEB_DAV: OnceLock<Server> = OnceLock::new();
        static S3: OnceLock<Server> = OnceLock::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = format!("vault-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        match on {
            On::Local => Self::Local(
                tempfile::Builder::new()
                    .prefix("skrin-vault-")
                    .tempdir()
                    .unwrap(),
            ),
            On::WebDav => Self::Server {
                server: shared(Kind::ApacheTls, &WEB_DAV),
                path,
            },
            On::S3 => Self::Server {
                server: shared(Kind::Radosgw, &S3),
                path,
            },
        }
    }

    /// An empty folder below `dir`.
    pub(crate) fn local_in(dir: &Path) -> Self {
        Self::Local(tempfile::tempdir_in(dir).unwrap())
    }

    /// What the command line is given.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Local(dir) => dir.path().to_str().unwrap().to_owned(),
            Self::Server { server, path } => server.vault_url(path),
        }
    }

    /// Credentials.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Local(_) => Vec::new(),
            Self::Server { server, .. } => server.env(),
        }
    }

    /// Where the objects lie as files; not on S3.
    fn dir(&self) -> Option<PathBuf> {
        match self {
            Self::Local(dir) => Some(dir.path().to_owned()),
            Self::Server { server, path } => server.data_dir().map(|data| data.join(path)),
        }
    }

    /// The folder of a local vault.
    pub(crate) fn local(&self) -> &Path {
        match self {
            Self::Local(dir) => dir.path(),
            Self::Server { .. } => panic!("only a local vault has a folder"),
        }
    }

    /// rclone on the bucket, which knows nothing of us: on all that is there, or on one object.
    fn rclone(&self, verb: &[&str], object: Option<&str>) -> Command {
        let Self::Server { server, path } = self else {
            panic!("not on a server")
        };
        let endpoint = format!("http://127.0.0.1:{}", server.port());
        let below = object.map_or_else(|| path.clone(), |name| format!("{path}/{name}"));
        let mut rclone = command("rclone");
        rclone
            .env_remove("AWS_CA_BUNDLE")
            .args([
                "--config",
                "/dev/null",
                "--s3-provider",
                "Ceph",
                "--s3-force-path-style",
                "--s3-no-check-bucket",
            ])
            .args([
                "--s3-access-key-id",
                USER,
                "--s3-secret-access-key",
                PASSWORD,
                "--s3-endpoint",
                &endpoint,
            ])
            .args(verb)
            .arg(format!(":s3:{BUCKET}/{below}"));
        rclone
    }

    /// What an object holds.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        let Some(dir) = self.dir() else {
            let output = self.rclone(&["cat"], Some(name)).finish();
            assert!(output.status.success(), "{name}: {output:?}");
            return output.stdout;
        };
        std::fs::read(dir.join(name)).unwrap()
    }

    /// Puts other bytes in an object's place, as who runs the storage can.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) {
        let Some(dir) = self.dir() else {
            let from = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(from.path(), bytes).unwrap();
            let from = from.path().to_str().unwrap();
            self.rclone(&["copyto", "--ignore-times", from], Some(name))
                .output_ok();
            return;
        };
        std::fs::write(dir.join(name), bytes).unwrap();
    }

    /// Takes an object away, as who runs the storage can.
    pub(crate) fn remove(&self, name: &str) {
        match self.dir() {
            Some(dir) => std::fs::remove_file(dir.join(name)).unwrap(),
            None => drop(self.rclone(&["deletefile"], Some(name)).output_ok()),
        }
    }

    /// Everything that is there, as files: where it lies, or copied to `to`.
    pub(crate) fn as_files(&self, to: &Path) -> PathBuf {
        self.dir().unwrap_or_else(|| {
            self.rclone(&["copy"], None).arg(to).output_ok();
            to.to_owned()
        })
    }

    /// Length of every object, by name.
    pub(crate) fn objects(&self) -> Vec<(String, u64)> {
        let Some(dir) = self.dir() else {
            let lines = self
                .rclone(
                    &[
                        "lsf",
                        "-R",
                        "--files-only",
                        "--format",
                        "ps",
                        "--separator",
                        "\t",
                    ],
                    None,
                )
                .output_ok();
            return lines
                .lines()
                .map(|line| line.split_once('\t').unwrap())
                .map(|(name, size)| (name.to_owned(), size.parse().unwrap()))
                .collect();
        };
        let files = files_below(&dir).into_iter();
        let named = files.filter_map(|file| {
            let name = file
                .strip_prefix(&dir)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let meta = unless_gone(std::fs::metadata(&file))?;
            Some((name, meta.len()))
        });
        // Where objects are staged, and what servers keep beside them, is no object.
        named
            .filter(|(name, _)| !name.split('/').any(|part| part.starts_with('.')))
            .collect()
    }

    /// Bytes of all objects.
    pub(crate) fn bytes(&self) -> u64 {
        self.objects().iter().map(|(_, len)| len).sum()
    }
}

impl Drop for Storage {
    /// radosgw and Apache keep what they have in memory and on the disk until the end of the program.
    fn drop(&mut self) {
        if let Self::Server { .. } = self {
            match self.dir() {
                Some(dir) => drop(std::fs::remove_dir_all(dir)),
                None if std::thread::panicking() => {}
                None => drop(self.rclone(&["purge"], None).finish()),
            }
        }
    }
}

/// Makes three tests of one function that takes `On`.
#[macro_export]
macro_rules! on_every_storage {
    ($($name:ident;)*) => {
        mod local {
            $(#[test] fn $name() { super::$name($crate::storages::On::Local) })*
        }
        mod webdav {
            $(#[test] fn $name() { super::$name($crate::storages::On::WebDav) })*
        }
        mod s3 {
            $(#[test] fn $name() { super::$name($crate::storages::On::S3) })*
        }
    };
}
