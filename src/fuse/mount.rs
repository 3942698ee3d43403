//! Mounting and unmounting.

use crate::adapter::Adapter;
use crate::error::MountError;
use crate::host;
use crate::names::Names;
use crate::notify::KernelNotify;
use crate::unmount::unmount;
use crate::view::View;
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use skrin_fs::Fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Threads that take requests from the kernel, at most. They answer from memory; what may wait goes to the pool.
const SESSION_THREADS_MAX: usize = 4;
/// How long the kernel may take to let go of what is unmounted. A copy of the mount in another mount namespace keeps it for longer.
const LETTING_GO: Duration = Duration::from_secs(5);
/// How often to look whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// How to mount.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// Source shown in the mount table: the vault's URL without secrets.
    pub name: String,
    /// Whether other users may enter; permissions are checked by the kernel.
    pub allow_other: bool,
    /// Whether every change is refused.
    pub read_only: bool,
    /// Whether no program may be run from it.
    pub no_exec: bool,
    /// Whose everything appears to be.
    pub view: View,
    /// How names are taken.
    pub names: Names,
}

/// A mounted file system. Dropping it unmounts.
pub struct MountHandle {
    dir: PathBuf,
    fs: Arc<Fs>,
    session: Option<BackgroundSession>,
}

/// Whether unprivileged users may let others in.
fn user_allow_other() -> bool {
    let text = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    text.lines().any(|line| line.trim() == "user_allow_other")
}

fn config(dir: &Path, options: &MountOptions) -> Config {
    let mut mount_options = vec![
        MountOption::FSName(options.name.clone()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
    ];
    mount_options.extend(host::mount_options(dir));
    if options.read_only {
        mount_options.push(MountOption::RO);
    }
    if options.no_exec {
        mount_options.push(MountOption::NoExec);
    }
    let mut config = Config::default();
    config.mount_options = mount_options;
    config.acl = match options.allow_other {
        true => SessionACL::All,
        false => SessionACL::Owner,
    };
    config.n_threads = Some(session_threads());
    config
}

/// One for every four processors: each request wakes the thread that has waited longest, and on a small machine that switch
/// costs more than the request. fuser has one on other systems than Linux.
fn session_threads() -> usize {
    if !cfg!(target_os = "linux") {
        return 1;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.div_ceil(4).min(SESSION_THREADS_MAX)
}

/// Mounts `fs` on the directory `dir`. Requests are answered when this returns.
///
/// # Errors
/// As `MountError` says; nothing is mounted then.
pub fn mount(fs: Arc<Fs>, dir: &Path, options: &MountOptions) -> Result<MountHandle, MountError> {
    let at = |source| MountError::MountPoint {
        dir: dir.to_owned(),
        source,
    };
    let dir = dir.canonicalize().map_err(at)?;
    if !dir.metadata().map_err(at)?.is_dir() {
        return Err(at(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    if cfg!(target_os = "linux") {
        let root = rustix::process::geteuid().is_root();
        if options.allow_other && !root && !user_allow_other() {
            return Err(MountError::AllowOther);
        }
        std::fs::metadata("/dev/fuse").map_err(MountError::Device)?;
    }
    let adapter = Adapter::new(Arc::clone(&fs), options.view, options.names);
    let failed = |source| MountError::Mount {
        dir: dir.clone(),
        source,
    };
    let session = Session::new(adapter, &dir, &config(&dir, options)).map_err(failed)?;
    let notifier = session.notifier();
    let session = session.spawn().map_err(failed)?;
    fs.set_notify(Some(Arc::new(KernelNotify(notifier))));
    host::raise_read_ahead(&dir);
    Ok(MountHandle {
        dir,
        fs,
        session: Some(session),
    })
}

impl MountHandle {
    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the kernel has let go of the mount, whoever unmounted it.
    pub fn is_finished(&self) -> bool {
        self.session.as_ref().is_none_or(|s| s.guard.is_finished())
    }

    /// Unmounts and waits until the last request is answered. The file system itself goes on: end it with `Fs::shutdown`.
    ///
    /// # Errors
    /// `Busy` while programs use it, unless `lazy`: then it disappears at once and ends when the last of them does. It stays
    /// mounted after an error, but for `Elsewhere`: then it is gone here, and goes on for those who have it in another mount namespace.
    pub fn unmount(&mut self, lazy: bool) -> Result<(), MountError> {
        if !self.is_finished() {
            unmount(&self.dir, lazy)?;
        }
        let begun = Instant::now();
        while !lazy && !self.is_finished() {
            if begun.elapsed() > LETTING_GO {
                return Err(MountError::Elsewhere(self.dir.clone()));
            }
            std::thread::sleep(LOOK);
        }
        self.join()
    }

    /// Waits until somebody unmounts it.
    ///
    /// # Errors
    /// `Session`.
    pub fn join(&mut self) -> Result<(), MountError> {
        if self.session.is_none() {
            return Ok(());
        }
        let none = std::thread::Builder::new().spawn(|| Ok(()));
        let none = none.map_err(MountError::Session)?;
        let Some(mut session) = self.session.take() else {
            return Ok(());
        };
        // Dropped, fuser 0.18 unmounts whatever is at the path once more: it takes an ended connection for a mount that is there. That
        // would be the automount point below, or what somebody has mounted since.
        let guard = std::mem::replace(&mut session.guard, none);
        let panicked = |_| io::Error::other("the thread of the session panicked");
        let ended = guard.join().map_err(panicked).flatten();
        self.fs.set_notify(None);
        match ended {
            Ok(()) => {
                std::mem::forget(session);
                Ok(())
            }
            // Here it may be mounted still.
            Err(error) => Err(MountError::Session(error)),
        }
    }
}

impl Drop for MountHandle {
    fn drop(&mut self) {
        if self.is_finished() {
            let _ = self.join();
        }
    }
}
