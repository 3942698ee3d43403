//! A storage that takes no changes, for whatever reason: they are refused here, and what was accepted waits. And a kernel that takes its time
//! to forget.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::{Entropy, Errno, Name};
use skrin_fs::testutil::{Opened, Shelf, SystemClock, TestVault};
use skrin_fs::{
    Allocate, Caller, Durability, Fs, FsError, FsOptions, NodeId, Notify, OpenMode, RenameMode,
    SetAttr, Shutdown, XattrMode,
};
use skrin_storage::fault::{Failure, Fault, Faults, Rule};
use skrin_storage::{ErrorKind, MemoryStore, Verb};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

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
const REWRITE: OpenMode = OpenMode {
    write: true,
    truncate: true,
};
const READ: OpenMode = OpenMode {
    write: false,
    truncate: false,
};

/// A vault on a storage in memory that can be made to refuse and to go back.
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

    /// From now on, until it is told otherwise, requests of this kind fail so.
    fn fail(&self, verb: Verb, kind: ErrorKind) {
        self.faults.clear();
        self.faults.add(Rule::new(Failure::Before(kind)).on(verb));
    }
}

fn write(fs: &Fs, name: &[u8]) -> Result<(), FsError> {
    let (_, handle) = fs.create(NodeId::ROOT, name, 0o644, true, WRITE, &CALLER)?;
    let written = fs.write(handle, 0, name);
    let synced = written.and_then(|()| fs.fsync(handle));
    fs.release(handle)?;
    synced
}

fn read(fs: &Fs, name: &[u8]) -> Vec<u8> {
    let node = fs.lookup(NodeId::ROOT, name).unwrap().node;
    let handle = fs.open_node(node, READ).unwrap();
    let bytes = fs.read(handle, 0, 100).unwrap();
    fs.release(handle).unwrap();
    bytes
}

/// Whatever changes something is refused, and reading goes on.
fn assert_refused(fs: &Fs, there: &[u8]) {
    let node = fs.lookup(NodeId::ROOT, there).unwrap().node;
    let mode = SetAttr {
        mode: Some(0o600),
        ..SetAttr::default()
    };
    let refused = [
        ("create", write(fs, b"new").err()),
        (
            "mkdir",
            fs.mkdir(NodeId::ROOT, b"new", 0o755, &CALLER).err(),
        ),
        ("open", fs.open_node(node, WRITE).err()),
        ("chmod", fs.setattr(node, &mode).err()),
        ("unlink", fs.unlink(NodeId::ROOT, there).err()),
        ("fsync", fs.fsync_dir().err()),
    ];
    for (what, error) in refused {
        assert_eq!(error.map(|e| e.errno()), Some(Errno::EROFS), "{what}");
    }
    assert_eq!(read(fs, there), there);
}

fn leave(devices: impl IntoIterator<Item = Opened>) {
    for device in devices {
        device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

#[test]
fn where_the_storage_denies_an_upload_changes_are_refused_until_it_takes_what_waits() {
    let world = World::new(31);
    let here = world.mount(0);
    write(&here.fs, b"before").unwrap();
    here.fs.sync(|_| ()).unwrap();
    world.fail(Verb::Put, ErrorKind::Denied);
    let made = here
        .fs
        .create(NodeId::ROOT, b"open", 0o644, true, WRITE, &CALLER);
    let (_, handle) = made.unwrap();
    here.fs.write(handle, 0, b"open").unwrap();
    // Nobody has heard of it yet.
    write(&here.fs, b"accepted").unwrap();
    world.publish(&here).unwrap_err();
    assert_refused(&here.fs, b"accepted");
    let more = here.fs.write(handle, 4, b"more").unwrap_err();
    assert_eq!(more.errno(), Errno::EROFS);
    // The program was told before that this is written.
    here.fs.write_back(handle, 4, b"kept").unwrap();
    assert_eq!(here.fs.fsync(handle).unwrap_err().errno(), Errno::EROFS);
    // What an open file holds was accepted, and goes to the journal all the same.
    here.fs.release(handle).unwrap();
    // A look shows that reading is allowed, and says nothing of writing.
    here.fs.poll().unwrap();
    assert_refused(&here.fs, b"accepted");
    let told = here.fs.status().pending.last_error.unwrap();
    assert!(told.contains("permissions of the storage"), "{told}");
    world.faults.clear();
    assert!(world.publish(&here).unwrap());
    write(&here.fs, b"after").unwrap();
    here.fs.sync(|_| ()).unwrap();
    let there = world.mount(1);
    for name in [&b"before"[..], b"accepted", b"after"] {
        assert_eq!(read(&there.fs, name), name);
    }
    assert_eq!(read(&there.fs, b"open"), b"openkept");
    leave([here, there]);
}

#[test]
fn a_storage_that_denied_an_upload_and_then_does_not_answer_is_away_and_changes_wait_for_it() {
    let world = World::new(32);
    let here = world.mount(0);
    write(&here.fs, b"first").unwrap();
    world.fail(Verb::Put, ErrorKind::Denied);
    world.publish(&here).unwrap_err();
    assert_refused(&here.fs, b"first");
    world.fail(Verb::Put, ErrorKind::Transient);
    assert!(world.publish(&here).unwrap_err().is_transient());
    write(&here.fs, b"offline").unwrap();
    world.faults.clear();
    here.fs.sync(|_| ()).unwrap();
    let there = world.mount(1);
    for name in [&b"first"[..], b"offline"] {
        assert_eq!(read(&there.fs, name), name);
    }
    leave([here, there]);
}

#[test]
fn with_durability_remote_fsync_says_that_the_storage_denies_what_it_waits_for() {
    let world = World::new(33);
    let options = FsOptions {
        durability: Durability::Remote,
        poll_interval: None,
        ..FsOptions::default()
    };
    let here = world.vault.open(0, options).unwrap();
    write(&here.fs, b"before").unwrap();
    world.fail(Verb::Put, ErrorKind::Denied);
    let refused = write(&here.fs, b"accepted").unwrap_err();
    assert_eq!(refused.errno(), Errno::EROFS);
    world.faults.clear();
    wait_until("the upload to be tried again", || {
        write(&here.fs, b"after").is_ok()
    });
    let there = world.mount(1);
    for name in [&b"before"[..], b"accepted", b"after"] {
        assert_eq!(read(&there.fs, name), name);
    }
    leave([here, there]);
}

#[test]
fn where_the_storage_goes_back_under_a_mount_changes_are_refused_until_it_shows_what_was_seen() {
    let world = World::new(34);
    let (here, there) = (world.mount(0), world.mount(1));
    write(&here.fs, b"mine").unwrap();
    here.fs.sync(|_| ()).unwrap();
    let before = world.store.snapshot();
    write(&there.fs, b"theirs").unwrap();
    there.fs.sync(|_| ()).unwrap();
    here.fs.poll().unwrap();
    write(&here.fs, b"accepted").unwrap();
    let newer = world.store.snapshot();
    world.store.restore(before);
    let told = here.fs.poll().unwrap_err().to_string();
    assert!(told.contains("rolled back"), "{told}");
    assert_refused(&here.fs, b"theirs");
    world.publish(&here).unwrap_err();
    assert_refused(&here.fs, b"accepted");
    // That it cannot be asked does not make it whole.
    world.fail(Verb::List, ErrorKind::Transient);
    here.fs.poll().unwrap_err();
    assert_refused(&here.fs, b"accepted");
    world.faults.clear();
    world.store.restore(newer);
    here.fs.poll().unwrap();
    write(&here.fs, b"after").unwrap();
    here.fs.sync(|_| ()).unwrap();
    there.fs.poll().unwrap();
    for name in [&b"mine"[..], b"theirs", b"accepted", b"after"] {
        assert_eq!(read(&there.fs, name), name);
    }
    leave([here, there]);
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "waited in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Keeps whoever tells it of a name waiting until it is let go: as the kernel does, of a directory in which a program changes something.
#[derive(Default)]
struct Busy {
    free: Mutex<bool>,
    freed: Condvar,
    asked: Mutex<Vec<Vec<u8>>>,
}

impl Busy {
    fn was_told(&self, name: &[u8]) -> bool {
        self.asked.lock().unwrap().iter().any(|asked| asked == name)
    }

    fn let_go(&self) {
        *self.free.lock().unwrap() = true;
        self.freed.notify_all();
    }
}

impl Notify for Busy {
    fn entry(&self, _: NodeId, name: &Name) {
        self.asked.lock().unwrap().push(name.as_bytes().to_vec());
        let free = self.free.lock().unwrap();
        drop(self.freed.wait_while(free, |free| !*free).unwrap());
    }
    fn attributes(&self, _: NodeId) {}
    fn listing(&self, _: NodeId) {}
    fn write_back(&self, _: NodeId) {}
}

#[test]
fn publishing_goes_on_while_the_kernel_has_no_time_to_forget_a_name() {
    let world = World::new(35);
    let options = FsOptions {
        durability: Durability::Remote,
        poll_interval: None,
        ..FsOptions::default()
    };
    let (here, there) = (world.vault.open(0, options).unwrap(), world.mount(1));
    let kernel = Arc::new(Busy::default());
    here.fs
        .set_notify(Some(Arc::clone(&kernel) as Arc<dyn Notify>));
    write(&there.fs, b"theirs").unwrap();
    there.fs.sync(|_| ()).unwrap();
    // What is published takes in what others published.
    write(&here.fs, b"first").unwrap();
    wait_until("the kernel to be told", || kernel.was_told(b"theirs"));
    write(&there.fs, b"also theirs").unwrap();
    there.fs.sync(|_| ()).unwrap();
    // Somebody who waits for it, as the program that keeps the kernel busy may.
    for name in [&b"second"[..], b"third"] {
        write(&here.fs, name).unwrap();
    }
    assert_eq!(read(&here.fs, b"also theirs"), b"also theirs");
    assert!(!kernel.was_told(b"also theirs"), "it waits for its turn");
    kernel.let_go();
    // When that has come to its end the kernel knows.
    here.fs.sync(|_| ()).unwrap();
    assert!(kernel.was_told(b"also theirs"));
    here.fs.set_notify(None);
    leave([here, there]);
}

fn node(fs: &Fs, name: &[u8]) -> NodeId {
    fs.lookup(NodeId::ROOT, name).unwrap().node
}

fn with_length(size: u64) -> SetAttr {
    SetAttr {
        size: Some(size),
        ..SetAttr::default()
    }
}

#[test]
fn where_the_storage_is_full_nothing_is_cut_and_what_the_kernel_had_taken_is_kept_and_fsync_and_close_tell()
 {
    let world = World::new(36);
    let here = world.mount(0);
    let fs = &here.fs;
    for name in [&b"document"[..], b"open"] {
        write(fs, name).unwrap();
    }
    fs.sync(|_| ()).unwrap();
    let handle = fs.open_node(node(fs, b"open"), WRITE).unwrap();
    let source = fs.open_node(node(fs, b"document"), READ).unwrap();
    world.fail(Verb::Put, ErrorKind::Full);
    // Nobody has heard of it yet.
    write(fs, b"accepted").unwrap();
    world.publish(&here).unwrap_err();
    let document = node(fs, b"document");
    let refused = [
        ("O_TRUNC", fs.open_node(document, REWRITE).err()),
        ("truncate", fs.setattr(document, &with_length(3)).err()),
        ("write", fs.write(handle, 4, b"more").err()),
        (
            "fallocate",
            fs.allocate(handle, 0, 100, Allocate::Extend).err(),
        ),
        (
            "copy_file_range",
            fs.copy_range((source, 0), (handle, 4), 8).err(),
        ),
    ];
    for (what, error) in refused {
        assert_eq!(error.map(|e| e.errno()), Some(Errno::ENOSPC), "{what}");
    }
    assert_eq!(read(fs, b"document"), b"document");
    // The program was told before that this is written.
    fs.write_back(handle, 4, b"kept").unwrap();
    assert_eq!(fs.flush(handle).unwrap_err().errno(), Errno::ENOSPC);
    fs.flush(handle).unwrap();
    assert_eq!(fs.fsync(handle).unwrap_err().errno(), Errno::ENOSPC);
    for handle in [handle, source] {
        fs.release(handle).unwrap();
    }
    world.faults.clear();
    fs.sync(|_| ()).unwrap();
    let there = world.mount(1);
    for name in [&b"document"[..], b"accepted"] {
        assert_eq!(read(&there.fs, name), name);
    }
    assert_eq!(read(&there.fs, b"open"), b"openkept");
    leave([here, there]);
}

#[test]
fn a_file_that_was_cut_to_nothing_before_the_storage_refused_gets_its_new_contents_by_every_call() {
    const BLOCK: u64 = 1 << 16;
    let world = World::new(37);
    let here = world.mount(0);
    let fs = &here.fs;
    write(fs, b"document").unwrap();
    let made = fs.create(NodeId::ROOT, b"source", 0o644, true, WRITE, &CALLER);
    let (_, source) = made.unwrap();
    fs.write(source, 0, &[7u8; BLOCK as usize]).unwrap();
    fs.sync(|_| ()).unwrap();
    let document = node(fs, b"document");
    let handle = fs.open_node(document, REWRITE).unwrap();
    world.fail(Verb::Put, ErrorKind::Denied);
    write(fs, b"accepted").unwrap();
    world.publish(&here).unwrap_err();
    assert_refused(fs, b"accepted");
    let copied = fs.copy_range((source, 0), (handle, 0), BLOCK);
    assert_eq!(copied.unwrap(), BLOCK);
    fs.allocate(handle, 0, BLOCK + 5, Allocate::Extend).unwrap();
    fs.write(handle, BLOCK, b"new").unwrap();
    fs.setattr(document, &with_length(BLOCK + 4)).unwrap();
    // What was not cut has its old contents still.
    let refused = fs.write(source, 0, b"new").unwrap_err();
    assert_eq!(refused.errno(), Errno::EROFS);
    assert_eq!(fs.fsync(handle).unwrap_err().errno(), Errno::EROFS);
    for handle in [handle, source] {
        fs.release(handle).unwrap();
    }
    world.faults.clear();
    fs.sync(|_| ()).unwrap();
    let there = world.mount(1);
    let handle = there
        .fs
        .open_node(node(&there.fs, b"document"), READ)
        .unwrap();
    let bytes = there.fs.read(handle, 0, 2 * BLOCK as usize).unwrap();
    there.fs.release(handle).unwrap();
    assert!(bytes == [&[7u8; BLOCK as usize][..], b"new\0"].concat());
    leave([here, there]);
}

#[test]
fn at_the_bound_of_the_journal_who_writes_waits_once_for_a_storage_that_refuses_and_not_for_each_page()
 {
    const PAGES: usize = 1 << 16;
    let mut world = World::new(38);
    world.vault.journal = Box::new(|config| {
        config.file_len = 256 << 10;
        config.max_bytes = 1 << 20;
    });
    let options = FsOptions {
        poll_interval: None,
        ..FsOptions::default()
    };
    let here = world.vault.open(0, options).unwrap();
    let fs = &here.fs;
    world.fail(Verb::Put, ErrorKind::Denied);
    let made = fs.create(NodeId::ROOT, b"large", 0o644, true, WRITE, &CALLER);
    let (_, handle) = made.unwrap();
    // No compression makes less of them.
    let mut data = vec![0; 48 * PAGES];
    SeededEntropy::new(1).fill(&mut data);
    let parts = data.chunks(PAGES).enumerate();
    let mut written = parts.map(|(n, part)| fs.write_back(handle, (n * PAGES) as u64, part));
    let refused = written.find_map(Result::err).unwrap();
    assert_eq!(refused.errno(), Errno::ENOSPC);
    let begun = Instant::now();
    let refused = written.take(5).filter(Result::is_err).count();
    assert_eq!(refused, 5);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    world.faults.clear();
    wait_until("room for the first pages", || {
        fs.write_back(handle, 0, &data[..PAGES]).is_ok()
    });
    assert!(fs.read(handle, 0, PAGES).unwrap() == data[..PAGES]);
    fs.release(handle).unwrap();
    leave([here]);
}

#[test]
fn files_of_this_machine_are_changed_while_the_storage_takes_nothing() {
    let mut world = World::new(39);
    let shelf = Arc::new(Shelf::default());
    world.vault.local = Box::new(move |device| (device == 0).then(|| shelf.files(1 << 20)));
    let here = world.mount(0);
    let fs = &here.fs;
    write(fs, b".DS_Store").unwrap();
    world.fail(Verb::Put, ErrorKind::Denied);
    write(fs, b"accepted").unwrap();
    world.publish(&here).unwrap_err();
    write(fs, b"._fork").unwrap();
    let window = node(fs, b".DS_Store");
    let source = fs.open_node(node(fs, b"accepted"), READ).unwrap();
    let handle = fs.open_node(window, REWRITE).unwrap();
    fs.write(handle, 0, b"new").unwrap();
    assert_eq!(fs.copy_range((source, 0), (handle, 3), 8).unwrap(), 8);
    fs.allocate(handle, 0, 20, Allocate::Extend).unwrap();
    for handle in [handle, source] {
        fs.release(handle).unwrap();
    }
    fs.setattr(window, &with_length(11)).unwrap();
    fs.setxattr(window, b"user.x", b"y", XattrMode::Any)
        .unwrap();
    assert_eq!(read(fs, b".DS_Store"), b"newaccepted");
    fs.link(window, NodeId::ROOT, b"._second").unwrap();
    let rename = |from: &[u8], to: &[u8]| {
        let mode = RenameMode::Replace;
        fs.rename(NodeId::ROOT, from, NodeId::ROOT, to, mode)
    };
    rename(b"._second", b"._fork").unwrap();
    fs.unlink(NodeId::ROOT, b"._fork").unwrap();
    fs.mkdir(NodeId::ROOT, b".Trashes", 0o755, &CALLER).unwrap();
    fs.rmdir(NodeId::ROOT, b".Trashes").unwrap();
    // What the others are to see is refused as before.
    let moved = rename(b"accepted", b"._moved");
    assert_eq!(moved.unwrap_err().errno(), Errno::EROFS);
    assert_refused(fs, b"accepted");
    world.faults.clear();
    leave([here]);
}
