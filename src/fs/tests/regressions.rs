//! Named tests of what must never break again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

#[path = "support/model.rs"]
#[allow(
    dead_code,
    reason = "shared with the random programs, which use all of it"
)]
mod model;
#[path = "support/sut.rs"]
#[allow(
    dead_code,
    reason = "shared with the random programs, which use all of it"
)]
mod sut;

use skrin_base::Errno;
use skrin_fs::testutil::{SystemClock, TestVault};
use skrin_fs::{Durability, Fs, FsOptions, NodeId, OpenMode, Shutdown};
use skrin_meta::replica::FindingKind;
use skrin_storage::fault::{Failure, Fault, Faults, Rule};
use skrin_storage::{ErrorKind, MemoryStore, ObjectName, Store, Verb};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use sut::{CALLER, read_all};

const WRITE: OpenMode = OpenMode {
    write: true,
    truncate: true,
};

fn manual() -> FsOptions {
    FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    }
}

fn write(fs: &Fs, name: &[u8], data: &[u8]) -> Result<NodeId, Errno> {
    let made = fs.create(NodeId::ROOT, name, 0o644, false, WRITE, &CALLER);
    let (attr, handle) = made.map_err(|e| e.errno())?;
    let written = fs.write(handle, 0, data).map_err(|e| e.errno());
    fs.release(handle).map_err(|e| e.errno())?;
    written.map(|()| attr.node)
}

fn random_bytes(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let next = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(next).collect()
}

fn vault_on(store: Arc<MemoryStore>) -> TestVault {
    TestVault::new(7, store, Arc::new(SystemClock::default())).unwrap()
}

#[test]
fn a_full_storage_is_reported_at_write_and_fsync_and_not_only_in_the_log() {
    let vault = vault_on(Arc::new(MemoryStore::with_limit(3 << 20)));
    let at = vault
        .open(
            0,
            FsOptions {
                poll_interval: None,
                ..FsOptions::default()
            },
        )
        .unwrap();
    write(&at.fs, b"fits", &random_bytes(100_000)).unwrap();
    at.fs.sync(|_| ()).unwrap();
    write(&at.fs, b"large", &random_bytes(6 << 20)).unwrap();
    // Locally durable, and nobody has heard of the storage yet; then somebody has.
    let start = Instant::now();
    let refused = loop {
        match write(&at.fs, b"more", b"x") {
            Err(e) => break e,
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(30), "never refused"),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(refused, Errno::ENOSPC);
    let handle = at
        .fs
        .open_node(
            at.fs.lookup(NodeId::ROOT, b"large").unwrap().node,
            OpenMode::default(),
        )
        .unwrap();
    assert_eq!(at.fs.fsync(handle).unwrap_err().errno(), Errno::ENOSPC);
    assert_eq!(
        at.fs.read(handle, 0, 10).unwrap(),
        random_bytes(10),
        "what is only in the journal is still read"
    );
    at.fs.release(handle).unwrap();
    at.fs.unlink(NodeId::ROOT, b"fits").unwrap();
    at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn attributes_of_an_unlinked_open_file_do_not_lock_the_tree_before_the_table_of_files() {
    let vault = vault_on(Arc::new(MemoryStore::new()));
    let at = vault.open(0, manual()).unwrap();
    let made = at
        .fs
        .create(NodeId::ROOT, b"f", 0o600, true, WRITE, &CALLER);
    let (attr, handle) = made.unwrap();
    at.fs.unlink(NodeId::ROOT, b"f").unwrap();
    // The kernel asks for this one before it cuts a file; an open that came meanwhile hung, and with it the mount. Debug builds know the order.
    let asked = at.fs.getxattr(attr.node, b"security.capability");
    assert_eq!(asked.unwrap_err().errno(), Errno::ENODATA);
    assert_eq!(at.fs.listxattr(attr.node).unwrap(), b"");
    at.fs.release(handle).unwrap();
    at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn more_changes_than_fit_into_memory_are_refused_until_the_storage_has_some() {
    let options = FsOptions {
        pending_max: 64,
        ..manual()
    };
    let vault = vault_on(Arc::new(MemoryStore::new()));
    let at = vault.open(0, options).unwrap();
    let make = |n: usize| {
        let name = format!("d{n}");
        at.fs.mkdir(NodeId::ROOT, name.as_bytes(), 0o755, &CALLER)
    };
    for n in 0..64 {
        make(n).unwrap();
    }
    assert_eq!(make(64).unwrap_err().errno(), Errno::ENOSPC);
    // What makes room goes on.
    at.fs.rmdir(NodeId::ROOT, b"d0").unwrap();
    assert_eq!(make(0).unwrap_err().errno(), Errno::ENOSPC);
    at.fs.sync(|_| ()).unwrap();
    make(64).unwrap();
    at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn after_shutdown_nothing_of_the_background_works_on_the_local_state() {
    for failure in [Failure::Hang, Failure::HangAfter] {
        let faults = Faults::default();
        let store = Fault::new(MemoryStore::new(), faults.clone());
        let clock = Arc::new(SystemClock::default());
        let vault = TestVault::new(8, Arc::new(store), clock).unwrap();
        let options = FsOptions {
            poll_interval: Some(Duration::from_millis(1)),
            ..FsOptions::default()
        };
        let at = vault.open(0, options).unwrap();
        // The poller waits for an answer that never comes, and so does the publisher behind it.
        faults.add(Rule::new(failure));
        write(&at.fs, b"f", b"x").unwrap();
        at.fs.fsync_dir().unwrap();
        let start = Instant::now();
        while faults.fired() == 0 {
            assert!(start.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
        at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
        assert_eq!(Arc::strong_count(&at.fs), 1);
        drop(at.fs);
        assert_eq!(Arc::strong_count(&at.replica), 1);
        drop((at.replica, at.data));
        faults.clear();
        std::fs::remove_file(vault.state_dir(0).join("meta.db")).unwrap();
        let again = vault.open(0, manual()).unwrap();
        again.fs.lookup(NodeId::ROOT, b"f").unwrap();
        again.fs.sync(|_| ()).unwrap();
        again.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

#[test]
fn with_remote_durability_fsync_returns_when_another_device_can_see_it() {
    let vault = vault_on(Arc::new(MemoryStore::new()));
    let options = FsOptions {
        durability: Durability::Remote,
        poll_interval: None,
        ..FsOptions::default()
    };
    let first = vault.open(0, options).unwrap();
    let (_, handle) = first
        .fs
        .create(NodeId::ROOT, b"f", 0o600, true, WRITE, &CALLER)
        .unwrap();
    first.fs.write(handle, 0, &random_bytes(300_000)).unwrap();
    first.fs.fsync(handle).unwrap();
    assert_eq!(first.fs.pending().operations, 0);
    let second = vault.open(1, manual()).unwrap();
    let node = second.fs.lookup(NodeId::ROOT, b"f").unwrap().node;
    assert!(read_all(&second.fs, node) == random_bytes(300_000));
    first.fs.release(handle).unwrap();
    first.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

/// Found by a review: an operation that a sealed commit holds is pending no more, and was taken for published before a byte of it was put.
#[test]
fn with_remote_durability_fsync_does_not_return_before_the_commit_is_on_the_storage() {
    let faults = Faults::default();
    let store = Arc::new(Fault::new(MemoryStore::new(), faults.clone()));
    let vault = TestVault::new(12, store, Arc::new(SystemClock::default())).unwrap();
    let options = FsOptions {
        durability: Durability::Remote,
        poll_interval: None,
        deadline: Duration::from_secs(2),
        ..FsOptions::default()
    };
    let at = vault.open(0, options).unwrap();
    let made = at
        .fs
        .create(NodeId::ROOT, b"f", 0o600, true, WRITE, &CALLER);
    let handle = made.unwrap().1;
    at.fs.fsync(handle).unwrap();
    let of_lanes = |name: &str| name.contains("/lanes/");
    let refused = Failure::Before(ErrorKind::Transient);
    faults.add(Rule::new(refused).on(Verb::Put).named(of_lanes));
    at.fs.write(handle, 0, &random_bytes(300_000)).unwrap();
    let told = at.fs.fsync(handle).unwrap_err();
    assert_eq!(told.errno(), Errno::ETIMEDOUT, "{told}");
    assert!(faults.fired() > 0);
    faults.clear();
    at.fs.fsync(handle).unwrap();
    let other = vault.open(1, manual()).unwrap();
    let node = other.fs.lookup(NodeId::ROOT, b"f").unwrap().node;
    assert!(read_all(&other.fs, node) == random_bytes(300_000));
    at.fs.release(handle).unwrap();
    at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

fn segments(store: &MemoryStore) -> Vec<ObjectName> {
    let names = store.names().into_iter();
    names
        .filter(|n| n.to_string().contains("segments/"))
        .collect()
}

#[test]
fn what_is_made_while_a_segment_is_sent_goes_along_in_the_same_commit() {
    let (faults, store) = (Faults::default(), Arc::new(MemoryStore::new()));
    let (sending, begun) = std::sync::mpsc::channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let channels = Mutex::new((sending, wait));
    // Holds up the first segment in the middle of its upload.
    let segment = move |name: &str| {
        let is_one = name.starts_with("segments/");
        if is_one {
            let (sending, wait) = &*channels.lock().unwrap();
            sending.send(()).unwrap();
            wait.recv().unwrap();
        }
        is_one
    };
    let hold = Rule::new(Failure::Before(ErrorKind::Transient)).on(Verb::Put);
    faults.add(hold.named(segment).times(1).after(1));
    let slow = Fault::new(Arc::clone(&store), faults.clone());
    let vault = TestVault::new(3, Arc::new(slow), Arc::new(SystemClock::default())).unwrap();
    let at = vault.open(0, manual()).unwrap();
    write(&at.fs, b"large", &random_bytes(100_000)).unwrap();
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| at.fs.sync(|_| ()));
        begun.recv().unwrap();
        at.fs
            .mkdir(NodeId::ROOT, b"meanwhile", 0o755, &CALLER)
            .unwrap();
        go_on.send(()).unwrap();
        syncing.join().unwrap().unwrap();
    });
    let names = store.names().into_iter().map(|n| n.to_string());
    let commits = names.filter(|n| n.contains("/lanes/")).count();
    assert_eq!((commits, at.fs.pending().operations), (1, 0));
    at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

#[test]
fn a_damaged_or_missing_segment_is_eio_and_everything_else_still_reads() {
    let store = Arc::new(MemoryStore::new());
    let vault = vault_on(Arc::clone(&store));
    let first = vault.open(0, manual()).unwrap();
    write(&first.fs, b"one", &random_bytes(200_000)).unwrap();
    first.fs.sync(|_| ()).unwrap();
    let of_one = segments(&store);
    write(&first.fs, b"two", &random_bytes(150_000)).unwrap();
    write(&first.fs, b"tiny", b"inline").unwrap();
    first.fs.sync(|_| ()).unwrap();
    assert_eq!((of_one.len(), segments(&store).len()), (1, 2));
    for missing in [false, true] {
        let bytes = store.peek(&of_one[0]).unwrap();
        let mut bad = bytes.to_vec();
        bad[70_000] ^= 1;
        store.tamper(&of_one[0], (!missing).then(|| bad.into()));
        let second = vault.open(1, manual()).unwrap();
        let node = |name: &[u8]| second.fs.lookup(NodeId::ROOT, name).unwrap().node;
        let handle = second
            .fs
            .open_node(node(b"one"), OpenMode::default())
            .unwrap();
        let all = (0..200_000)
            .step_by(65_536)
            .map(|at| second.fs.read(handle, at, 65_536));
        let failed: Vec<_> = all.filter_map(Result::err).collect();
        assert!(
            !failed.is_empty() && failed.iter().all(|e| e.errno() == Errno::EIO),
            "{failed:?}"
        );
        second.fs.release(handle).unwrap();
        assert!(read_all(&second.fs, node(b"two")) == random_bytes(150_000));
        assert_eq!(read_all(&second.fs, node(b"tiny")), b"inline");
        drop(second);
        store.tamper(&of_one[0], Some(bytes));
    }
}

#[test]
fn ten_thousand_small_files_are_few_objects() {
    let store = Arc::new(MemoryStore::new());
    let vault = vault_on(Arc::clone(&store));
    let at = vault.open(0, manual()).unwrap();
    for n in 0..10_000usize {
        write(
            &at.fs,
            format!("file-{n}").as_bytes(),
            &random_bytes(1000 + n % 7000),
        )
        .unwrap();
    }
    at.fs.sync(|_| ()).unwrap();
    let objects = store.names().len();
    assert!(objects < 100, "{objects}");
}

#[test]
fn a_small_change_in_a_large_file_uploads_little() {
    let store = Arc::new(MemoryStore::new());
    let vault = vault_on(Arc::clone(&store));
    let at = vault.open(0, manual()).unwrap();
    let node = write(&at.fs, b"large", &random_bytes(40 << 20)).unwrap();
    at.fs.sync(|_| ()).unwrap();
    let bytes = || -> usize {
        store
            .names()
            .iter()
            .map(|n| store.peek(n).unwrap().len())
            .sum()
    };
    let before = bytes();
    let handle = at
        .fs
        .open_node(
            node,
            OpenMode {
                write: true,
                truncate: false,
            },
        )
        .unwrap();
    at.fs.write(handle, 20 << 20, &[7; 4096]).unwrap();
    at.fs.release(handle).unwrap();
    at.fs.sync(|_| ()).unwrap();
    assert!(bytes() - before < 300_000, "{}", bytes() - before);
}

#[test]
fn a_file_removed_by_another_device_while_it_is_open_is_made_again_by_a_write() {
    let vault = vault_on(Arc::new(MemoryStore::new()));
    let (a, b) = (
        vault.open(0, manual()).unwrap(),
        vault.open(1, manual()).unwrap(),
    );
    let node = write(&a.fs, b"f", &random_bytes(100_000)).unwrap();
    a.fs.sync(|_| ()).unwrap();
    b.fs.poll().unwrap();
    let handle =
        a.fs.open_node(
            node,
            OpenMode {
                write: true,
                truncate: false,
            },
        )
        .unwrap();
    b.fs.unlink(NodeId::ROOT, b"f").unwrap();
    b.fs.sync(|_| ()).unwrap();
    a.fs.poll().unwrap();
    assert_eq!(
        a.fs.lookup(NodeId::ROOT, b"f").unwrap_err().errno(),
        Errno::ENOENT
    );
    assert_eq!(a.fs.getattr(node).unwrap().nlink, 0);
    a.fs.write(handle, 0, b"edited").unwrap();
    a.fs.release(handle).unwrap();
    a.fs.sync(|_| ()).unwrap();
    b.fs.poll().unwrap();
    for at in [&a, &b] {
        let found = at.fs.lookup(NodeId::ROOT, b"f").unwrap();
        let mut want = random_bytes(100_000);
        want[..6].copy_from_slice(b"edited");
        assert!(read_all(&at.fs, found.node) == want);
    }
}

#[test]
fn a_full_journal_refuses_writes_until_it_was_uploaded_and_loses_nothing() {
    let mut vault = vault_on(Arc::new(MemoryStore::new()));
    vault.journal = Box::new(|config| {
        config.file_len = 256 << 10;
        config.max_bytes = 1 << 20;
        config.patience = Duration::from_millis(50);
    });
    let at = vault.open(0, manual()).unwrap();
    let data = random_bytes(3 << 20);
    let (attr, handle) = at
        .fs
        .create(NodeId::ROOT, b"f", 0o600, true, WRITE, &CALLER)
        .unwrap();
    let mut refused = 0;
    for (n, part) in data.chunks(100_000).enumerate() {
        while let Err(e) = at.fs.write(handle, n as u64 * 100_000, part) {
            assert_eq!(e.errno(), Errno::ENOSPC);
            refused += 1;
            assert!(refused < 50);
            at.fs.sync(|_| ()).unwrap();
        }
    }
    assert!(refused > 0);
    while at.fs.flush(handle).is_err() {
        at.fs.sync(|_| ()).unwrap();
    }
    at.fs.release(handle).unwrap();
    assert!(read_all(&at.fs, attr.node) == data);
}

#[test]
fn the_store_sees_no_name_and_no_content() {
    let store = Arc::new(MemoryStore::new());
    let vault = vault_on(Arc::clone(&store));
    let at = vault.open(0, manual()).unwrap();
    write(&at.fs, b"a-very-telling-name", b"and some telling content").unwrap();
    at.fs
        .shutdown(Shutdown::UploadAll {
            progress: Box::new(|_| ()),
        })
        .unwrap();
    let capacity = vault.runtime().block_on(store.capacity());
    assert!(capacity.is_ok());
    for name in store.names() {
        let bytes = store.peek(&name).unwrap();
        for needle in [&b"telling"[..], b"content"] {
            assert!(!bytes.windows(needle.len()).any(|w| w == needle), "{name}");
        }
    }
}

/// Its first commit came late: a checkpoint stood by then that did not hold it. The journal has let go of operations and blocks
/// since, and the segment is on the storage, but declared by a commit that counts for nothing.
#[test]
fn what_a_void_commit_said_is_published_again_with_its_segments_after_a_restart() {
    let (main, aside) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let mut vault = TestVault::new(81, aside.clone(), Arc::new(SystemClock::default())).unwrap();
    let body = random_bytes(300_000);
    let late = vault.open(1, manual()).unwrap();
    write(&late.fs, b"late", &body).unwrap();
    late.fs.sync(|_| ()).unwrap();
    // So that the journal does not find it again.
    late.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    drop(late);

    vault.store = main.clone();
    let first = vault.open(0, manual()).unwrap();
    for n in 0..8 {
        write(&first.fs, format!("file {n}").as_bytes(), b"x").unwrap();
        first.fs.sync(|_| ()).unwrap();
    }
    assert!(
        vault
            .runtime()
            .block_on(first.replica.checkpoint())
            .unwrap()
    );
    write(&first.fs, b"one more", b"x").unwrap();
    first.fs.sync(|_| ()).unwrap();
    assert!(first.replica.status().checkpoint.is_some());
    for name in aside.names() {
        main.tamper(&name, aside.peek(&name));
    }
    first.fs.poll().unwrap();
    assert!(
        first.fs.lookup(NodeId::ROOT, b"late").is_err(),
        "it is void"
    );

    for _ in 0..2 {
        let late = vault.open(1, manual()).unwrap();
        assert!(late.fs.pending().operations > 0);
        drop(late);
    }
    let late = vault.open(1, manual()).unwrap();
    late.fs.sync(|_| ()).unwrap();
    assert_eq!(late.fs.pending().operations, 0);
    first.fs.poll().unwrap();
    for fs in [&first.fs, &late.fs] {
        let node = fs.lookup(NodeId::ROOT, b"late").unwrap().node;
        assert_eq!(read_all(fs, node), body);
    }
}

#[test]
fn a_clean_unmount_leaves_the_next_mount_no_journal_to_read() {
    let vault = vault_on(Arc::new(MemoryStore::new()));
    let at = vault.open(0, manual()).unwrap();
    write(&at.fs, b"large", &random_bytes(3 << 20)).unwrap();
    at.fs
        .shutdown(Shutdown::UploadAll {
            progress: Box::new(|_| ()),
        })
        .unwrap();
    drop(at);
    let files = std::fs::read_dir(vault.state_dir(0).join("journal")).unwrap();
    let logs = files.map(|f| f.unwrap().metadata().unwrap());
    let bytes: u64 = logs.filter(|m| m.is_file()).map(|m| m.len()).sum();
    assert!(bytes < 1000, "{bytes}");
    let at = vault.open(0, manual()).unwrap();
    let node = at.fs.lookup(NodeId::ROOT, b"large").unwrap().node;
    assert!(read_all(&at.fs, node) == random_bytes(3 << 20));
}

/// Its user writes nothing, and the others must hear of it.
#[test]
fn a_mount_that_only_looks_on_says_that_it_refutes_a_checkpoint_that_would_take_from_others() {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SystemClock::default());
    let vault = TestVault::new(77, Arc::clone(&store) as Arc<dyn Store>, clock).unwrap();
    let writer = vault.open(0, manual()).unwrap();
    for n in 0..4u8 {
        write(&writer.fs, &[b'a' + n], b"what was there").unwrap();
        writer.fs.sync(|_| ()).unwrap();
    }
    let on_looker = FsOptions {
        poll_interval: Some(Duration::from_millis(100)),
        ..FsOptions::default()
    };
    let looker = vault.open(1, on_looker).unwrap();
    let before = looker.replica.digest().unwrap();
    vault.pretend_to_have_seen_nobody(2, 5).unwrap();
    let refuted = || {
        let findings = looker.replica.status().findings;
        let refuted = findings.iter().any(|f| f.kind == FindingKind::Refuted);
        refuted && !looker.replica.tree().has_to_refute()
    };
    for _ in 0..3000 {
        if refuted() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(refuted(), "it looks every 100 ms");
    assert_eq!(looker.replica.digest().unwrap(), before);
    looker.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    drop(writer);
    let fresh = vault.open(0, manual()).unwrap();
    assert_eq!(fresh.replica.digest().unwrap(), before);
    assert_eq!(fresh.replica.status().checkpoint, None);
}

/// The kernel keeps the length that it was told first: an appending program would write into the middle, a reading one would see half of it.
#[test]
fn a_file_that_a_merge_has_changed_and_not_told_of_yet_is_not_opened_under_the_old_length() {
    let vault = TestVault::in_memory(61).unwrap();
    let (here, there) = (
        vault.open(0, manual()).unwrap(),
        vault.open(1, manual()).unwrap(),
    );
    write(&there.fs, b"f", b"short").unwrap();
    there.fs.sync(|_| ()).unwrap();
    here.fs.poll().unwrap();
    let old = here.fs.lookup(NodeId::ROOT, b"f").unwrap();
    assert_eq!(old.size, 5);
    // What is written here the kernel knows of.
    let mode = OpenMode {
        write: true,
        truncate: false,
    };
    for len in [6, 7] {
        let handle = here.fs.open_node(old.node, mode).unwrap();
        here.fs.write(handle, 0, &random_bytes(len)).unwrap();
        here.fs.release(handle).unwrap();
    }
    here.fs.sync(|_| ()).unwrap();

    there.fs.poll().unwrap();
    write_again(&there.fs, b"f", b"much longer than before");
    there.fs.sync(|_| ()).unwrap();
    // The tree shows it, and who merged it has not come further.
    let diff = vault.runtime().block_on(here.replica.pull()).unwrap();
    assert!(!diff.is_empty());
    assert_eq!(here.fs.getattr(old.node).unwrap().size, 23);
    let opened = here.fs.open_node(old.node, OpenMode::default());
    assert!(matches!(opened, Err(skrin_fs::FsError::Stale)));
    // As the kernel does then.
    let new = here.fs.lookup(NodeId::ROOT, b"f").unwrap();
    assert!(new.node != old.node && (new.ino, new.size) == (old.ino, 23));
    let handle = here.fs.open_node(new.node, OpenMode::default()).unwrap();
    assert_eq!(
        here.fs.read(handle, 0, 100).unwrap(),
        b"much longer than before"
    );
    here.fs.release(handle).unwrap();
    for opened in [here, there] {
        opened.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

fn write_again(fs: &Fs, name: &[u8], data: &[u8]) {
    let node = fs.lookup(NodeId::ROOT, name).unwrap().node;
    let handle = fs.open_node(node, WRITE).unwrap();
    fs.write(handle, 0, data).unwrap();
    fs.release(handle).unwrap();
}

/// The kernel tells the time of pages that it writes, and not once more for pages that came in the same tick of its clock: four
/// mounts did not agree on a time.
#[test]
fn what_is_written_right_after_the_kernel_has_set_a_time_keeps_that_time() {
    let vault = TestVault::in_memory(62).unwrap();
    let here = vault.open(0, manual()).unwrap();
    write(&here.fs, b"f", b"one").unwrap();
    let node = here.fs.lookup(NodeId::ROOT, b"f").unwrap().node;
    let handle = here.fs.open_node(node, WRITE).unwrap();
    here.fs.write(handle, 0, b"two").unwrap();
    let said = here.fs.getattr(node).unwrap().mtime;
    for (ago, stays) in [(5_000_000, true), (3_600_000_000_000, false)] {
        let set = skrin_base::Timestamp(said.0 - ago);
        let times = skrin_fs::SetAttr {
            mtime: Some(skrin_fs::SetTime::At(set)),
            ..skrin_fs::SetAttr::default()
        };
        here.fs.setattr(node, &times).unwrap();
        here.fs.write(handle, 0, b"six").unwrap();
        let now = here.fs.getattr(node).unwrap().mtime;
        assert_eq!(now == set, stays, "{now:?} {set:?}");
    }
    here.fs.release(handle).unwrap();
    here.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

/// Found by the simulation (`SKRIN_SEED=1795720232051 many`): the operations of a commit are pending no more when it is kept, and
/// `sync` said that all was well though the storage had not taken it.
#[test]
fn sync_puts_a_commit_whose_put_failed_before_it_says_that_all_is_there() {
    let faults = Faults::default();
    let inner = Arc::new(MemoryStore::new());
    let store = Fault::new(Arc::clone(&inner), faults.clone());
    let clock = Arc::new(SystemClock::default());
    let vault = TestVault::new(63, Arc::new(store), clock).unwrap();
    let here = vault.open(0, manual()).unwrap();
    for (n, kind) in [ErrorKind::Denied, ErrorKind::Transient]
        .into_iter()
        .enumerate()
    {
        write(&here.fs, format!("f{n}").as_bytes(), b"x").unwrap();
        let refused = Rule::new(Failure::Before(kind)).on(Verb::Put);
        faults.add(refused.named(|name| name.contains("/lanes/")).times(1));
        let first = here.fs.sync(|_| ());
        assert_eq!(first.is_ok(), kind == ErrorKind::Transient, "{first:?}");
        assert_eq!(faults.fired(), n as u64 + 1);
        here.fs.sync(|_| ()).unwrap();
        let commits = inner.names();
        let commits = commits
            .iter()
            .filter(|name| name.as_str().contains("/lanes/"));
        assert_eq!(commits.count(), n + 1);
        let there = vault.open(1, manual()).unwrap();
        assert_eq!(
            there.replica.digest().unwrap(),
            here.replica.digest().unwrap()
        );
        there.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
    here.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}
