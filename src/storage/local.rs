//! A local folder: stage, fsync, link, fsync the directory.

mod durable_file;

use std::collections::HashSet;
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind as Io, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{CWD, OFlags, RenameFlags};
use skrin_base::Entropy;

use self::durable_file::Writer;
use crate::memory::{too_long, too_short};
use crate::name::is_segment;
use crate::{
    Capacity, ErrorKind, LIST_MAX, Listed, Listing, ObjectName, Prefix, Store, StoreError,
    VAULT_HEADER,
};

/// Where objects are written before they get their names; hidden from listings.
const STAGE: &str = ".stage";
/// A staged file this old belongs to no running program.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of the local system. When `put` answers, bytes and name are on stable storage.
#[derive(Clone)]
pub struct LocalStore(Arc<Folder>);

struct Folder {
    root: PathBuf,
    /// What the root was when it was opened: file system and inode.
    opened: OnceLock<(u64, u64)>,
    /// Part of the names of staged files, so that two programs on one folder never share one.
    run: String,
    staged: AtomicU64,
    writer: Writer,
    /// Directories whose own entries are known to be on stable storage.
    durable: Mutex<HashSet<PathBuf>>,
}

impl LocalStore {
    /// Opens an existing folder; `create` makes it (not its parents) where it is missing.
    pub fn open(
        root: impl Into<PathBuf>,
        create: bool,
        entropy: &dyn Entropy,
    ) -> Result<Self, StoreError> {
        let folder = Folder {
            root: root.into(),
            opened: OnceLock::new(),
            run: format!("{:016x}", entropy.u64()),
            staged: AtomicU64::new(0),
            writer: Writer::default(),
            durable: Mutex::default(),
        };
        if create {
            folder
                .make_root()
                .map_err(|e| folder.fail(e, "the folder cannot be made"))?;
        }
        folder.check_root()?;
        if let Ok(meta) = std::fs::metadata(&folder.root) {
            folder.opened.get_or_init(|| identity(&meta));
        }
        folder.sweep_stage();
        Ok(Self(Arc::new(folder)))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(result) => result,
            Err(error) => Err(
                StoreError::new(ErrorKind::Transient, "the program is ending")
                    .place(self.place())
                    .caused_by(error),
            ),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for LocalStore {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let name = name.clone();
        self.blocking(move |folder| folder.put(&name, &bytes)).await
    }

    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        let name = name.clone();
        self.blocking(move |folder| folder.get(&name, max)).await
    }

    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let name = name.clone();
        self.blocking(move |folder| folder.get_range(&name, start, len))
            .await
    }

    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        let dir = dir.clone();
        self.blocking(move |folder| folder.list(&dir)).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let name = name.clone();
        self.blocking(
            move |folder| match std::fs::remove_file(folder.path(&name)) {
                Err(error) if error.kind() == Io::NotFound => folder.check_root(),
                Err(error) => Err(folder
                    .fail(error, "the object cannot be removed")
                    .object(&name)),
                Ok(()) => Ok(()),
            },
        )
        .await
    }

    async fn capacity(&self) -> Result<Capacity, StoreError> {
        self.blocking(|folder| {
            let stat = rustix::fs::statvfs(&folder.root)
                .map_err(|e| folder.fail(e.into(), "the free space cannot be read"))?;
            Ok(Capacity {
                total: Some(stat.f_blocks.saturating_mul(stat.f_frsize)),
                available: Some(stat.f_bavail.saturating_mul(stat.f_frsize)),
            })
        })
        .await
    }

    fn place(&self) -> String {
        self.0.place()
    }
}

impl Folder {
    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn fail(&self, error: io::Error, what: &str) -> StoreError {
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::Absent,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::Full,
            Io::Interrupted | Io::TimedOut | Io::StaleNetworkFileHandle => ErrorKind::Transient,
            _ => ErrorKind::Broken,
        };
        StoreError::new(kind, format!("{what}: {error}"))
            .place(self.place())
            .caused_by(error)
    }

    /// "Absent" is only believed while the folder itself is there: a disk that is not mounted is no empty vault. What lies below a mount
    /// point is another folder, without a vault; a disk that was mounted again is another one, too, and has it.
    fn check_root(&self) -> Result<(), StoreError> {
        let opened = self.opened.get();
        let same = |meta: &Metadata| opened.is_none_or(|opened| *opened == identity(meta));
        let what = match std::fs::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => {
                if same(&meta) || self.root.join(VAULT_HEADER).exists() {
                    return Ok(());
                }
                "another folder without a vault is there than when it was opened; is its disk mounted?"
            }
            Ok(_) => "this is not a folder",
            Err(error) if error.kind() == Io::NotFound => "the folder does not exist",
            Err(error) => return Err(self.fail(error, "the folder cannot be reached")),
        };
        Err(StoreError::new(ErrorKind::NoPlace, what).place(self.place()))
    }

    fn missing(&self, error: io::Error, what: &str, name: &ObjectName) -> StoreError {
        if error.kind() != Io::NotFound {
            return self.fail(error, what).object(name);
        }
        match self.check_root() {
            Err(error) => error.object(name),
            Ok(()) => StoreError::new(ErrorKind::Absent, "there is no such object")
                .object(name)
                .place(self.place()),
        }
    }

    fn make_root(&self) -> io::Result<()> {
        let was_there = self.root.is_dir();
        make_dir(&self.root)?;
        let synced = match self.root.parent() {
            Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
            Some(parent) => sync_dir(parent),
            None => Ok(()),
        };
        match synced {
            // A folder that somebody made for us where we may pass and not look.
            Err(error) if was_there && error.kind() == Io::PermissionDenied => Ok(()),
            other => other,
        }
    }

    /// Makes a directory below the root and puts its entry, and those above, on stable storage.
    fn ensure_dir(&self, dir: &Path) -> io::Result<()> {
        if dir == self.root || self.durable.lock().contains(dir) {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(&self.root);
        self.ensure_dir(parent)?;
        make_dir(dir)?;
        sync_dir(parent)?;
        self.durable.lock().insert(dir.to_owned());
        Ok(())
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_root().map_err(|e| e.object(name))?;
        let mut result = self.put_once(name, bytes);
        if matches!(&result, Err(error) if error.kind() == Io::NotFound) {
            // Somebody removed a directory that we knew.
            self.check_root().map_err(|e| e.object(name))?;
            self.durable.lock().clear();
            result = self.put_once(name, bytes);
        }
        match result {
            Err(error) if error.kind() == Io::AlreadyExists => self.put_again(name, bytes),
            Err(error) => Err(self
                .fail(error, "the object cannot be written")
                .object(name)),
            // The disk may have gone meanwhile.
            Ok(()) => self.check_root().map_err(|e| e.object(name)),
        }
    }

    fn put_once(&self, name: &ObjectName, bytes: &[u8]) -> io::Result<()> {
        let target = self.path(name);
        let dir = target.parent().unwrap_or(&self.root);
        self.ensure_dir(dir)?;
        let stage = self.stage(bytes)?;
        let linked = match std::fs::hard_link(&stage, &target) {
            // FAT, and some network and FUSE file systems, have no hard links.
            Err(error) if no_links(&error) => rename_new(&stage, &target),
            other => other,
        };
        let _ = std::fs::remove_file(&stage);
        linked?;
        sync_dir(dir)
    }

    /// Writes a file of our own and puts its bytes on stable storage.
    fn stage(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let dir = self.root.join(STAGE);
        let n = self.staged.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{}-{n:x}", self.run));
        let mut written = self.writer.write(&path, bytes);
        if matches!(&written, Err(error) if error.kind() == Io::NotFound) {
            make_dir(&dir)?;
            written = self.writer.write(&path, bytes);
        }
        if let Err(error) = written {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(path)
    }

    /// The name is taken: fine if the same bytes are there, and then they are made durable as promised.
    fn put_again(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        let result = (|| {
            let (file, len) = open_object(&self.path(name))?;
            let mut rest = bytes;
            let mut buffer = vec![0; 64 * 1024];
            while len == bytes.len() as u64 && !rest.is_empty() {
                let part = rest.len().min(buffer.len());
                let at = (bytes.len() - rest.len()) as u64;
                file.read_exact_at(&mut buffer[..part], at)?;
                if buffer[..part] != rest[..part] {
                    return Ok(false);
                }
                rest = &rest[part..];
            }
            if len != bytes.len() as u64 {
                return Ok(false);
            }
            file.sync_all()?;
            sync_dir(self.path(name).parent().unwrap_or(&self.root))?;
            Ok(true)
        })();
        match result {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::new(
                ErrorKind::Exists,
                "other bytes stand under this name already",
            )
            .object(name)
            .place(self.place())),
            Err(error) => Err(self
                .fail(error, "the object exists and cannot be read")
                .object(name)),
        }
    }

    fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        const WHAT: &str = "the object cannot be read";
        let (file, len) = open_object(&self.path(name)).map_err(|e| self.missing(e, WHAT, name))?;
        if len > max as u64 {
            return Err(too_long(len, max).object(name).place(self.place()));
        }
        let mut bytes = Vec::with_capacity(len as usize);
        // A file that grows meanwhile is cut at its bound: callers check what they read anyway.
        file.take(max as u64)
            .read_to_end(&mut bytes)
            .map_err(|e| self.fail(e, WHAT).object(name))?;
        Ok(bytes.into())
    }

    fn get_range(&self, name: &ObjectName, start: u64, len: usize) -> Result<Bytes, StoreError> {
        const WHAT: &str = "the object cannot be read";
        let (mut file, file_len) =
            open_object(&self.path(name)).map_err(|e| self.missing(e, WHAT, name))?;
        if start
            .checked_add(len as u64)
            .is_none_or(|end| end > file_len)
        {
            return Err(too_short(start, len).object(name).place(self.place()));
        }
        // Not `read_exact` into zeros: writing those costs as much as the hash.
        let mut bytes = Vec::with_capacity(len);
        let read = file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.take(len as u64).read_to_end(&mut bytes));
        match read {
            Ok(n) if n == len => Ok(bytes.into()),
            Ok(_) => Err(too_short(start, len).object(name).place(self.place())),
            Err(e) => Err(self.fail(e, WHAT).object(name)),
        }
    }

    fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        const WHAT: &str = "the directory cannot be listed";
        let fail = |e| self.fail(e, WHAT).object(dir);
        let entries = match std::fs::read_dir(self.root.join(dir.as_str())) {
            Err(error) if error.kind() == Io::NotFound => {
                self.check_root().map_err(|e| e.object(dir))?;
                return Ok(Listing::default());
            }
            other => other.map_err(fail)?,
        };
        let mut listing = Listing::default();
        for entry in entries {
            let entry = entry.map_err(fail)?;
            self.list_entry(dir, &entry, &mut listing).map_err(fail)?;
            if listing.objects.len() + listing.dirs.len() > LIST_MAX {
                return Err(fail(io::Error::other("there are too many entries")));
            }
        }
        listing.objects.sort_unstable();
        listing.dirs.sort_unstable();
        Ok(listing)
    }

    fn list_entry(
        &self,
        dir: &Prefix,
        entry: &std::fs::DirEntry,
        listing: &mut Listing,
    ) -> io::Result<()> {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_segment(name)) else {
            return Ok(());
        };
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
            listing.dirs.push(name.to_owned());
        } else if kind.is_file()
            && let Ok(name) = dir.object(name)
        {
            match entry.metadata() {
                Ok(meta) => listing.objects.push(Listed {
                    name,
                    len: Some(meta.len()),
                }),
                Err(error) if error.kind() == Io::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes what crashed programs left; failing to is no harm.
    fn sweep_stage(&self) {
        let Ok(entries) = std::fs::read_dir(self.root.join(STAGE)) else {
            return;
        };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|m| m.modified());
            let old = age.is_ok_and(|t| t.elapsed().is_ok_and(|age| age > STALE));
            if old {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Opens a regular file and nothing else: a planted link, pipe or device must neither be followed nor block.
fn open_object(path: &Path) -> io::Result<(File, u64)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("this is not a regular file"));
    }
    Ok((file, meta.len()))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == Io::AlreadyExists && dir.is_dir() => Ok(()),
        other => other,
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from)
}

fn identity(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

fn no_links(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::XDEV)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use skrin_base::clock::testutil::SeededEntropy;

    #[test]
    fn what_the_system_says_becomes_what_a_caller_may_do() {
        use rustix::io::Errno;
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path(), false, &SeededEntropy::new(1)).unwrap();
        for (errno, kind) in [
            (Errno::NOSPC, ErrorKind::Full),
            (Errno::DQUOT, ErrorKind::Full),
            (Errno::ACCESS, ErrorKind::Denied),
            (Errno::PERM, ErrorKind::Denied),
            (Errno::ROFS, ErrorKind::Denied),
            (Errno::IO, ErrorKind::Broken),
            (Errno::STALE, ErrorKind::Transient),
        ] {
            let error = store.0.fail(errno.into(), "it failed");
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(&store.place()));
        }
    }

    #[test]
    fn without_hard_links_a_rename_that_never_replaces_is_used() {
        use rustix::io::Errno;
        for errno in [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::MLINK] {
            assert!(no_links(&errno.into()));
        }
        for errno in [Errno::EXIST, Errno::NOENT, Errno::NOSPC, Errno::ACCESS] {
            assert!(!no_links(&errno.into()));
        }
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, b"1").unwrap();
        rename_new(&from, &to).unwrap();
        std::fs::write(&from, b"2").unwrap();
        let error = rename_new(&from, &to).unwrap_err();
        assert_eq!(error.kind(), Io::AlreadyExists);
        assert_eq!(std::fs::read(&to).unwrap(), b"1");
    }
}
