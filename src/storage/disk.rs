//! Work on this machine that takes a moment, and bytes of local files that must survive a power cut: both go through here, so that
//! a simulation can do the one in its own order and know of the other what would be left.

use std::fs::File;
use std::io;
use std::path::Path;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Does work that waits for the disk or takes the processor for long on a thread that may. A simulation does it at once.
pub fn blocking<T: Send + 'static>(
    runtime: &Handle,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    #[cfg(any(test, feature = "testutil"))]
    if watch::is_on() {
        return runtime.spawn(std::future::ready(work()));
    }
    runtime.spawn_blocking(work)
}

/// `fdatasync` of a file whose name is on stable storage already.
///
/// # Errors
/// Those of the system: then nobody knows what the disk has.
pub fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    around(path, watch_file, || file.sync_data())
}

/// `fsync` of a file.
///
/// # Errors
/// As [`sync_data`].
pub fn sync_all(file: &File, path: &Path) -> io::Result<()> {
    around(path, watch_file, || file.sync_all())
}

/// Puts the names in a directory on stable storage.
///
/// # Errors
/// Those of the system.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    around(path, watch_dir, || File::open(path)?.sync_all())
}

/// Tells the watcher before and after; without the feature this is the work alone.
fn around(
    path: &Path,
    told: fn(&Path, bool),
    work: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    told(path, false);
    work()?;
    told(path, true);
    Ok(())
}

#[cfg(not(any(test, feature = "testutil")))]
fn watch_file(_: &Path, _: bool) {}
#[cfg(not(any(test, feature = "testutil")))]
fn watch_dir(_: &Path, _: bool) {}
#[cfg(any(test, feature = "testutil"))]
fn watch_file(path: &Path, done: bool) {
    watch::tell(|w| w.file(path, done));
}
#[cfg(any(test, feature = "testutil"))]
fn watch_dir(path: &Path, done: bool) {
    watch::tell(|w| w.dir(path, done));
}

/// For simulations: who sees what this thread does to its disk.
#[cfg(any(test, feature = "testutil"))]
pub mod watch {
    use std::cell::RefCell;
    use std::path::Path;
    use std::rc::Rc;

    /// Is told of each sync, before it and after it.
    pub trait Watch {
        /// A file's contents are about to be on stable storage, or are.
        fn file(&self, path: &Path, done: bool);
        /// The names in a directory are.
        fn dir(&self, path: &Path, done: bool);
    }

    thread_local! {
        static WATCH: RefCell<Option<Rc<dyn Watch>>> = const { RefCell::new(None) };
    }

    /// Until it is dropped, this thread's work is watched and nothing is handed to other threads.
    pub struct Watched(());

    impl Drop for Watched {
        fn drop(&mut self) {
            WATCH.with(|w| w.borrow_mut().take());
        }
    }

    /// Watches this thread.
    #[must_use]
    pub fn install(watch: Rc<dyn Watch>) -> Watched {
        WATCH.with(|w| w.borrow_mut().replace(watch));
        Watched(())
    }

    pub(super) fn is_on() -> bool {
        WATCH.with(|w| w.borrow().is_some())
    }

    pub(super) fn tell(what: impl FnOnce(&dyn Watch)) {
        let watch = WATCH.with(|w| w.borrow().clone());
        if let Some(watch) = watch {
            what(&*watch);
        }
    }
}
