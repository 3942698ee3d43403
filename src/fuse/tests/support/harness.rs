//! Mounts a vault in a local folder and always unmounts it.

use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{FsOptions, Shutdown};
use skrin_fuse::{MountError, MountHandle, MountOptions, mount};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A mounted device.
pub(crate) struct Device {
    pub(crate) opened: Opened,
    mount: MountHandle,
    dir: TempDir,
}

/// A vault with its first device mounted.
pub(crate) struct Mounted {
    // Dropped first: a mount without the runtime of its vault answers nothing that waits.
    device: Option<Device>,
    vault: TestVault,
    _storage: TempDir,
}

pub(crate) fn options() -> FsOptions {
    FsOptions {
        poll_interval: Some(Duration::from_millis(300)),
        ..FsOptions::default()
    }
}

pub(crate) fn mount_device(vault: &TestVault, device: usize, options: FsOptions) -> Device {
    let read_only = options.read_only;
    let opened = vault.open(device, options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let how = MountOptions {
        name: "test".to_owned(),
        allow_other: true,
        read_only,
        ..MountOptions::default()
    };
    let mount = mount(Arc::clone(&opened.fs), dir.path(), &how).unwrap();
    Device { opened, mount, dir }
}

impl Device {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Unmounts and ends it.
    pub(crate) fn end(mut self, mode: Shutdown) {
        let start = Instant::now();
        // A program that another test starts holds all our files between fork and exec.
        while let Err(error) = self.mount.unmount(false) {
            let busy = matches!(error, MountError::Busy(_));
            assert!(busy && start.elapsed() < Duration::from_secs(20), "{error}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.opened.fs.shutdown(mode).unwrap();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !self.mount.is_finished() {
            let ended = self.mount.unmount(true);
            assert!(std::thread::panicking() || ended.is_ok(), "{ended:?}");
            // Its threads end before the vault's runtime does.
            let ended = self.opened.fs.shutdown(Shutdown::LeaveInJournal);
            assert!(std::thread::panicking() || ended.is_ok(), "{ended:?}");
        }
    }
}

pub(crate) fn upload_all() -> Shutdown {
    Shutdown::UploadAll {
        progress: Box::new(|_| ()),
    }
}

impl Mounted {
    pub(crate) fn new(seed: u64) -> Self {
        let storage = tempfile::tempdir().unwrap();
        let vault = TestVault::in_folder(seed, &storage.path().join("vault")).unwrap();
        let device = Some(mount_device(&vault, 0, options()));
        Self {
            vault,
            device,
            _storage: storage,
        }
    }

    pub(crate) fn device(&self) -> &Device {
        self.device.as_ref().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.device().path(name)
    }

    /// Mounts the second device beside the first.
    pub(crate) fn second(&self) -> Device {
        mount_device(&self.vault, 1, options())
    }

    /// The same, and it does nothing by itself.
    pub(crate) fn passive_second(&self) -> Device {
        let options = FsOptions {
            poll_interval: None,
            background: false,
            ..FsOptions::default()
        };
        mount_device(&self.vault, 1, options)
    }

    /// Unmounts, leaving in the journal what is not on the storage, and mounts again.
    pub(crate) fn remount(&mut self) {
        self.device.take().unwrap().end(Shutdown::LeaveInJournal);
        self.device = Some(mount_device(&self.vault, 0, options()));
    }

    /// Mounts again, for reading only.
    pub(crate) fn remount_read_only(&mut self) {
        self.device.take().unwrap().end(upload_all());
        let options = FsOptions {
            read_only: true,
            ..options()
        };
        self.device = Some(mount_device(&self.vault, 0, options));
    }

    /// Unmounts only.
    pub(crate) fn unmount(&mut self) -> Result<(), MountError> {
        self.device.as_mut().unwrap().mount.unmount(false)
    }

    /// Unmounts, uploading everything, deletes the device's cache of metadata, and mounts again.
    pub(crate) fn remount_without_local_state(&mut self) {
        self.device.take().unwrap().end(upload_all());
        for name in ["meta.db", "meta.db-wal", "meta.db-shm"] {
            let gone = std::fs::remove_file(self.vault.state_dir(0).join(name));
            assert!(gone.is_ok() || name != "meta.db", "{gone:?}");
        }
        self.device = Some(mount_device(&self.vault, 0, options()));
    }
}
