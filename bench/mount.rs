//! Mounts that are gone when their guard is.

use crate::error::{BenchError, Context};
use crate::process::{self, Daemon};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a mount may take to answer, and an unmount to be possible.
const PATIENCE: u64 = 120;
/// How long an unmounted daemon may go on uploading.
const UPLOADS: u64 = 1800;

/// One file system over another (or over nothing), and the process that serves it.
pub struct Layer {
    dir: PathBuf,
    daemon: Daemon,
    unmount_with: Option<Command>,
}

impl Layer {
    /// Waits until `dir` is a mount that answers.
    ///
    /// # Errors
    /// `Late`, or what the daemon said when it ended.
    pub fn wait(dir: &Path, mut daemon: Daemon) -> Result<Self, BenchError> {
        process::register_mount(dir);
        let answers = || is_mounted(dir) && fs::metadata(dir).is_ok();
        let waited = daemon.wait_until("a mount that answers", PATIENCE, answers);
        let layer = Self {
            dir: dir.to_owned(),
            daemon,
            unmount_with: None,
        };
        waited.map(|()| layer)
    }

    /// Unmounts with this command rather than umount(2).
    pub fn unmount_with(mut self, command: Command) -> Self {
        self.unmount_with = Some(command);
        self
    }

    fn unmount(mut self) -> Result<(), BenchError> {
        match &mut self.unmount_with {
            Some(command) => drop(process::run(command)?),
            None => unmount(&self.dir)?,
        }
        self.daemon.wait_end(UPLOADS)
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        if is_mounted(&self.dir) {
            let _best_effort = detach(&self.dir);
        }
        process::forget_mount(&self.dir);
    }
}

/// A whole mount: the last layer is the one that is worked in.
pub struct Mounted {
    layers: Vec<Layer>,
}

impl Mounted {
    /// From the lowest layer to the highest.
    pub fn new(layers: Vec<Layer>) -> Self {
        Self { layers }
    }

    /// Where to work.
    pub fn dir(&self) -> &Path {
        self.layers.last().map_or(Path::new("/"), |l| &l.dir)
    }

    /// CPU seconds of its processes so far.
    pub fn cpu_seconds(&self) -> f64 {
        self.layers.iter().map(|l| l.daemon.cpu_seconds()).sum()
    }

    /// Peak memory of its processes together, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.layers.iter().map(|l| l.daemon.peak_memory()).sum()
    }

    /// Kills its processes without a warning, and takes what is left of it out of the tree.
    pub fn kill(mut self) {
        while let Some(mut layer) = self.layers.pop() {
            layer.daemon.kill();
            drop(layer);
        }
    }

    /// Unmounts all layers and waits for their processes, which upload what is left.
    ///
    /// # Errors
    /// What umount or the processes said.
    pub fn unmount(mut self) -> Result<(), BenchError> {
        while let Some(layer) = self.layers.pop() {
            layer.unmount()?;
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        while let Some(layer) = self.layers.pop() {
            drop(layer);
        }
    }
}

/// Whether something is mounted exactly there.
pub fn is_mounted(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.to_string_lossy();
    mounts.lines().any(|l| l.split(' ').nth(1) == Some(&dir))
}

fn unmount(dir: &Path) -> Result<(), BenchError> {
    let begin = Instant::now();
    loop {
        process::check()?;
        match rustix::mount::unmount(dir, UnmountFlags::empty()) {
            Err(Errno::BUSY) if begin.elapsed().as_secs() < PATIENCE => {
                sleep(Duration::from_millis(20));
            }
            other => return other.at("unmount", dir),
        }
    }
}

/// Takes the mount out of the tree whatever still uses it.
///
/// # Errors
/// When nothing is mounted there.
pub fn detach(dir: &Path) -> Result<(), BenchError> {
    rustix::mount::unmount(dir, UnmountFlags::DETACH).at("detach", dir)
}

/// Makes the kernel forget pages, entries and inodes that it can read again.
///
/// # Errors
/// Where only root of the machine may.
pub fn drop_kernel_caches() -> Result<(), BenchError> {
    rustix::fs::sync();
    let file = Path::new("/proc/sys/vm/drop_caches");
    fs::write(file, "3").at("write", file)
}
