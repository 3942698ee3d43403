//! What publishing meets that is neither a refused log-in nor a storage that is away: nothing would be taken either, and programs hear of it
//! at once, not when the journal is full.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::Errno;
use skrin_fs::testutil::{Opened, SystemClock, TestVault};
use skrin_fs::{Caller, Fs, FsError, FsOptions, HandleId, NodeId, OpenMode, Shutdown};
use skrin_storage::fault::{Failure, Fault, Faults, Rule};
use skrin_storage::{ErrorKind, MemoryStore, Verb};
use std::path::Path;
use std::sync::Arc;

const CALLER: Caller = Caller {
    umask: 0,
    uid: 0,
    gid: 0,
    pid: 1,
};
const WRITE: OpenMode = OpenMode {
    write: true,
    truncate: false,
};
/// More than an operation holds, so that it goes into a segment.
static LARGE: [u8; 100_000] = [7; 100_000];

/// A vault on a storage in memory that can be made to fail and to show what another one wrote.
struct World {
    vault: TestVault,
    store: Arc<MemoryStore>,
    faults: Faults,
}

impl World {
    fn new(seed: u64) -> Self {
        let (store, faults) = (Arc::new(MemoryStore::new()), Faults::default());
        let faulty = Fault::new(Arc::clone(&store), faults.clone());
        let clock = Arc::new(SystemClock::default());
        Self {
            vault: TestVault::new(seed, Arc::new(faulty), clock).unwrap(),
            store,
            faults,
        }
    }

    /// A device that does nothing by itself.
    fn mount(&self, device: usize) -> Opened {
        let options = FsOptions {
            poll_interval: None,
            background: false,
            ..FsOptions::default()
        };
        self.vault.open(device, options).unwrap()
    }

    fn publish(&self, at: &Opened) -> Result<bool, FsError> {
        let step = at.fs.publish_step();
        self.vault.runtime().block_on(step)
    }

    /// From now on, until it is told otherwise, nothing is put, for this reason.
    fn fail_puts(&self, kind: ErrorKind) {
        self.faults.clear();
        self.faults
            .add(Rule::new(Failure::Before(kind)).on(Verb::Put));
    }
}

fn create(fs: &Fs, name: &[u8]) -> Result<HandleId, FsError> {
    let made = fs.create(NodeId::ROOT, name, 0o644, true, WRITE, &CALLER)?;
    Ok(made.1)
}

fn write(fs: &Fs, name: &[u8], bytes: &[u8]) -> Result<(), FsError> {
    let handle = create(fs, name)?;
    let written = fs.write(handle, 0, bytes);
    let synced = written.and_then(|()| fs.fsync(handle));
    fs.release(handle)?;
    synced
}

fn read(fs: &Fs, name: &[u8]) -> Vec<u8> {
    let node = fs.lookup(NodeId::ROOT, name).unwrap().node;
    let handle = fs.open_node(node, OpenMode::default()).unwrap();
    let bytes = fs.read(handle, 0, LARGE.len()).unwrap();
    fs.release(handle).unwrap();
    bytes
}

fn errno<T>(result: Result<T, FsError>) -> Option<Errno> {
    result.err().map(|error| error.errno())
}

/// `fsync` of what is open says it, as does whoever makes something.
fn assert_refused(fs: &Fs, open: HandleId, what: &str) {
    assert_eq!(errno(fs.fsync(open)), Some(Errno::EROFS), "{what}");
    assert_eq!(errno(fs.fsync_dir()), Some(Errno::EROFS), "{what}");
    let made = write(fs, b"new", b"new");
    assert_eq!(errno(made), Some(Errno::EROFS), "{what}");
}

fn leave(devices: impl IntoIterator<Item = Opened>) {
    for device in devices {
        device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

#[test]
fn an_upload_that_is_too_large_for_the_server_is_told_at_fsync_until_what_waits_is_taken() {
    let world = World::new(41);
    let here = world.mount(0);
    let open = create(&here.fs, b"open").unwrap();
    here.fs.sync(|_| ()).unwrap();
    world.fail_puts(ErrorKind::Unsupported);
    // Nobody has heard of it yet.
    write(&here.fs, b"large", &LARGE).unwrap();
    world.publish(&here).unwrap_err();
    assert_refused(&here.fs, open, "too large");
    assert!(read(&here.fs, b"large") == LARGE);
    world.faults.clear();
    assert!(world.publish(&here).unwrap());
    write(&here.fs, b"after", b"after").unwrap();
    here.fs.fsync(open).unwrap();
    here.fs.release(open).unwrap();
    here.fs.sync(|_| ()).unwrap();
    let there = world.mount(1);
    assert!(read(&there.fs, b"large") == LARGE);
    assert_eq!(read(&there.fs, b"after"), b"after");
    leave([here, there]);
}

#[test]
fn what_is_away_or_answers_without_sense_is_waited_for() {
    // A disk that was pulled; a network that wants a log-in first, or a certificate that ended; a proxy that has its hour.
    for kind in [ErrorKind::NoPlace, ErrorKind::Untrusted, ErrorKind::Broken] {
        wait_for_it(kind, Verb::Put);
    }
    // Whoever answers instead of the server knows nothing of WebDAV.
    wait_for_it(ErrorKind::Unsupported, Verb::List);
}

fn wait_for_it(kind: ErrorKind, verb: Verb) {
    let world = World::new(51);
    let here = world.mount(0);
    world.faults.add(Rule::new(Failure::Before(kind)).on(verb));
    write(&here.fs, b"first", b"first").unwrap();
    world.publish(&here).unwrap_err();
    write(&here.fs, b"second", b"second").unwrap();
    world.faults.clear();
    here.fs.sync(|_| ()).unwrap();
    let there = world.mount(1);
    for name in [&b"first"[..], b"second"] {
        assert_eq!(read(&there.fs, name), name);
    }
    leave([here, there]);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
}

/// A device whose state was copied, and the storage as the other copy leaves it meanwhile, which this one has not seen.
fn of_a_copied_state(world: &World) -> Opened {
    let own = world.vault.state_dir(0);
    let copy = own.with_file_name("copy");
    let first = world.mount(0);
    write(&first.fs, b"before", b"before").unwrap();
    first.fs.sync(|_| ()).unwrap();
    leave([first]);
    copy_dir(&own, &copy);
    let before = world.store.snapshot();
    let other = world.mount(0);
    write(&other.fs, b"theirs", b"theirs").unwrap();
    other.fs.sync(|_| ()).unwrap();
    leave([other]);
    let newer = world.store.snapshot();
    std::fs::remove_dir_all(&own).unwrap();
    std::fs::rename(&copy, &own).unwrap();
    world.store.restore(before);
    let here = world.mount(0);
    world.store.restore(newer);
    here
}

#[test]
fn where_another_copy_of_the_state_publishes_changes_are_refused_at_once_and_for_the_life_of_the_mount()
 {
    let world = World::new(52);
    let here = of_a_copied_state(&world);
    let open = create(&here.fs, b"mine").unwrap();
    here.fs.write(open, 0, b"mine").unwrap();
    here.fs.fsync(open).unwrap();
    let told = world.publish(&here).unwrap_err().to_string();
    assert!(told.contains("another copy"), "{told}");
    assert_refused(&here.fs, open, "at once");
    // The kernel's pages are kept all the same, and need a segment.
    here.fs.write_back(open, 0, &LARGE).unwrap();
    here.fs.release(open).unwrap();
    // That the storage is away now does not make one copy of two.
    world.fail_puts(ErrorKind::Transient);
    let met = world.publish(&here).unwrap_err();
    assert!(met.is_transient(), "{met}");
    let made = write(&here.fs, b"new", b"new");
    assert_eq!(errno(made), Some(Errno::EROFS));
    world.faults.clear();
    world.publish(&here).unwrap_err();
    let made = write(&here.fs, b"new", b"new");
    assert_eq!(errno(made), Some(Errno::EROFS));
    assert!(read(&here.fs, b"mine") == LARGE);
    leave([here]);
}
