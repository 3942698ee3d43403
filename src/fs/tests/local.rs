//! Files that stay on one machine: what POSIX says of them, how they lie among those of the vault, and that nobody else hears of them.
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
#[path = "support/program.rs"]
#[allow(
    dead_code,
    reason = "shared with the random programs, which use all of it"
)]
mod program;
#[path = "support/sut.rs"]
#[allow(
    dead_code,
    reason = "shared with the random programs, which use all of it"
)]
mod sut;

use program::Program;
use skrin_base::Errno;
use skrin_fs::testutil::{Opened, Shelf, TestVault, TickingClock};
use skrin_fs::{
    Fs, FsError, FsOptions, Kind, NodeId, NodeSpec, OpenMode, RenameMode, Seek, SetAttr, Shutdown,
    XattrMode,
};
use skrin_storage::MemoryStore;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use sut::{BASE, CALLER, read_all};

const ROOT: NodeId = NodeId::ROOT;
const MAX: usize = 16 << 20;
const WRITE: OpenMode = OpenMode {
    write: true,
    truncate: true,
};

fn options() -> FsOptions {
    FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    }
}

/// A vault whose first device keeps such files to itself.
fn vault(seed: u64, max: usize) -> (TestVault, Arc<Shelf>) {
    vault_on(Arc::new(MemoryStore::new()), seed, max)
}

fn vault_on(store: Arc<MemoryStore>, seed: u64, max: usize) -> (TestVault, Arc<Shelf>) {
    let shelf = Arc::new(Shelf::default());
    let mut vault = TestVault::new(seed, store, Arc::new(TickingClock::default())).unwrap();
    let kept = Arc::clone(&shelf);
    vault.local = Box::new(move |device| (device == 0).then(|| kept.files(max)));
    (vault, shelf)
}

fn open(vault: &TestVault, device: usize) -> Opened {
    vault.open(device, options()).unwrap()
}

fn end(at: Opened) {
    at.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
}

fn errno<T>(done: Result<T, FsError>) -> Option<Errno> {
    done.err().map(|e| e.errno())
}

fn write(fs: &Fs, dir: NodeId, name: &[u8], data: &[u8]) -> Result<NodeId, FsError> {
    let (attr, handle) = fs.create(dir, name, 0o644, false, WRITE, &CALLER)?;
    let written = fs.write(handle, 0, data);
    fs.release(handle)?;
    written.map(|()| attr.node)
}

fn mkdir(fs: &Fs, dir: NodeId, name: &[u8]) -> NodeId {
    fs.mkdir(dir, name, 0o755, &CALLER).unwrap().node
}

fn contents(fs: &Fs, dir: NodeId, name: &[u8]) -> Option<Vec<u8>> {
    let attr = fs.lookup(dir, name).ok()?;
    let data = read_all(fs, attr.node);
    fs.forget(attr.node, 1);
    Some(data)
}

fn names(fs: &Fs, dir: NodeId, step: usize) -> Vec<String> {
    let (mut out, mut after) = (Vec::new(), 0);
    loop {
        let batch = fs.readdir(dir, after, step, true).unwrap();
        // The first two lines come together.
        assert!(batch.len() <= step.max(2));
        let Some(last) = batch.last() else { break };
        after = last.cookie;
        out.extend(batch.into_iter().filter(|e| e.attr.is_some()));
    }
    let names = out.into_iter().map(|e| String::from_utf8(e.name).unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn sync(at: &Opened) {
    at.fs.sync(|_| ()).unwrap();
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SKRIN_SEED") {
        Ok(one) => vec![one.parse().unwrap()],
        Err(_) => (0..count).collect(),
    }
}

#[test]
fn random_programs_on_files_of_this_machine_do_what_posix_says_and_a_crash_leaves_what_was_kept_last()
 {
    for seed in seeds(12) {
        let (vault, shelf) = vault(seed, 1 << 30);
        let mut p = Program::new(seed);
        let mut at = open(&vault, 0);
        // Owner and mode as the model has its root.
        let root = at.fs.mkdir(ROOT, BASE, 0o755, &CALLER).unwrap();
        let owner = SetAttr {
            uid: Some(0),
            gid: Some(0),
            ..SetAttr::default()
        };
        at.fs.setattr(root.node, &owner).unwrap();
        at.fs.fsync_dir().unwrap();
        let mut kept = p.model.clone();
        for step in 0..200 {
            let what = format!("SKRIN_SEED={seed} step {step}, {}", p.step(&at.fs));
            p.compare(&at.fs).unwrap_or_else(|e| panic!("{what}:\n{e}"));
            assert_eq!(at.fs.pending().operations, 0, "{what}");
            match p.below(30) {
                0 | 1 => {
                    match p.open.first() {
                        Some(open) => at.fs.fsync(open.handle).unwrap(),
                        None => at.fs.fsync_dir().unwrap(),
                    }
                    kept = p.model.clone();
                }
                2 => {
                    p.close_all(&at.fs);
                    end(at);
                    at = open(&vault, 0);
                    kept = p.model.clone();
                }
                3 => {
                    p.open.clear();
                    drop(at);
                    at = open(&vault, 0);
                    kept.tell_all();
                    p.model = kept.crashed();
                }
                _ => continue,
            }
            p.compare(&at.fs)
                .unwrap_or_else(|e| panic!("after {what}:\n{e}"));
        }
        assert!(shelf.stored.load(Ordering::Relaxed) > 0);
        p.close_all(&at.fs);
        end(at);
    }
}

#[test]
fn what_a_mac_leaves_in_a_directory_of_the_vault_is_found_there_and_no_object_and_no_other_device_knows_of_it()
 {
    let store = Arc::new(MemoryStore::new());
    let (vault, _) = vault_on(Arc::clone(&store), 1, MAX);
    let at = open(&vault, 0);
    let dir = mkdir(&at.fs, ROOT, b"photos");
    write(&at.fs, dir, b"a.jpg", b"picture").unwrap();
    sync(&at);
    let before = store.names();
    write(&at.fs, dir, b".DS_Store", b"view").unwrap();
    let double = write(&at.fs, dir, b"._a.jpg", b"fork").unwrap();
    at.fs
        .setxattr(double, b"user.x", b"1", XattrMode::Any)
        .unwrap();
    let trash = mkdir(&at.fs, ROOT, b".Trashes");
    let own = mkdir(&at.fs, trash, b"501");
    write(&at.fs, own, b"report.pdf", b"any name in there").unwrap();
    at.fs.symlink(trash, b"to", b"501", &CALLER).unwrap();
    let fifo = NodeSpec {
        kind: Kind::Fifo,
        mode: 0o600,
        rdev: 0,
    };
    at.fs.mknod(trash, b"pipe", fifo, &CALLER).unwrap();
    at.fs.link(double, trash, b"second name").unwrap();
    for step in [1, 2, 3, 100] {
        assert_eq!(names(&at.fs, dir, step), [".DS_Store", "._a.jpg", "a.jpg"]);
        assert_eq!(names(&at.fs, ROOT, step), [".Trashes", "photos"]);
        assert_eq!(
            names(&at.fs, trash, step),
            ["501", "pipe", "second name", "to"]
        );
    }
    assert_eq!(contents(&at.fs, dir, b"._a.jpg").unwrap(), b"fork");
    assert_eq!(at.fs.getattr(double).unwrap().nlink, 2);
    assert_eq!(
        at.fs.getattr(ROOT).unwrap().nlink,
        4,
        "a subdirectory counts"
    );
    assert_eq!(at.fs.pending().operations, 0);
    sync(&at);
    assert_eq!(store.names(), before);

    let other = open(&vault, 1);
    let seen = other.fs.lookup(ROOT, b"photos").unwrap().node;
    assert_eq!(names(&other.fs, seen, 10), ["a.jpg"]);
    assert_eq!(names(&other.fs, ROOT, 10), ["photos"]);
    end(at);

    // The directory is another path by then, and the files are in it all the same.
    other
        .fs
        .rename(ROOT, b"photos", ROOT, b"pictures", RenameMode::Replace)
        .unwrap();
    sync(&other);
    let at = open(&vault, 0);
    at.fs.poll().unwrap();
    let dir = at.fs.lookup(ROOT, b"pictures").unwrap().node;
    assert_eq!(names(&at.fs, dir, 2), [".DS_Store", "._a.jpg", "a.jpg"]);
    let double = at.fs.lookup(dir, b"._a.jpg").unwrap().node;
    assert_eq!(at.fs.getxattr(double, b"user.x").unwrap(), b"1");
    end(at);
    end(other);
}

#[test]
fn a_directory_with_nothing_else_is_empty_for_rmdir_and_for_a_rename_onto_it() {
    let (vault, _) = vault(2, MAX);
    let at = open(&vault, 0);
    let dir = mkdir(&at.fs, ROOT, b"d");
    let node = write(&at.fs, dir, b".DS_Store", b"view").unwrap();
    let held = at.fs.open_node(node, OpenMode::default()).unwrap();
    at.fs.rmdir(ROOT, b"d").unwrap();
    assert_eq!(at.fs.read(held, 0, 10).unwrap(), b"view");
    assert_eq!(at.fs.getattr(node).unwrap().nlink, 0);
    at.fs.release(held).unwrap();
    at.fs.forget(node, 1);
    assert_eq!(errno(at.fs.getattr(node)), Some(Errno::ENOENT));
    assert_eq!(
        errno(write(&at.fs, dir, b".DS_Store", b"x")),
        Some(Errno::ENOENT)
    );

    let (from, to) = (mkdir(&at.fs, ROOT, b"from"), mkdir(&at.fs, ROOT, b"to"));
    write(&at.fs, from, b"._f", b"of from").unwrap();
    write(&at.fs, to, b"._t", b"of to").unwrap();
    at.fs
        .rename(ROOT, b"from", ROOT, b"to", RenameMode::Replace)
        .unwrap();
    let moved = at.fs.lookup(ROOT, b"to").unwrap().node;
    assert_eq!(names(&at.fs, moved, 10), ["._f"]);
    write(&at.fs, moved, b"real", b"x").unwrap();
    assert_eq!(errno(at.fs.rmdir(ROOT, b"to")), Some(Errno::ENOTEMPTY));
    end(at);
}

#[test]
fn between_vault_and_machine_nothing_is_renamed_or_linked() {
    let (vault, _) = vault(3, MAX);
    let at = open(&vault, 0);
    let fs = &at.fs;
    let real = write(fs, ROOT, b"real", b"r").unwrap();
    let local = write(fs, ROOT, b"._local", b"l").unwrap();
    let trash = mkdir(fs, ROOT, b".Trashes");
    mkdir(fs, ROOT, b"dir");
    let moves: [(&[u8], NodeId, &[u8]); 5] = [
        (b"real", ROOT, b"._local"),
        (b"real", ROOT, b"._new"),
        (b"real", trash, b"real"),
        (b"dir", trash, b"dir"),
        (b"._local", ROOT, b"real"),
    ];
    for mode in [
        RenameMode::Replace,
        RenameMode::NoReplace,
        RenameMode::Exchange,
    ] {
        for (name, to_dir, to) in moves {
            let done = errno(fs.rename(ROOT, name, to_dir, to, mode));
            assert_eq!(done, Some(Errno::EXDEV), "{mode:?} {}", name.escape_ascii());
        }
    }
    assert_eq!(errno(fs.link(real, ROOT, b"._real")), Some(Errno::EXDEV));
    assert_eq!(errno(fs.link(real, trash, b"real")), Some(Errno::EXDEV));
    assert_eq!(errno(fs.link(local, ROOT, b"local")), Some(Errno::EXDEV));
    let absent = fs.rename(ROOT, b"._absent", ROOT, b"real", RenameMode::Replace);
    assert_eq!(errno(absent), Some(Errno::ENOENT));
    // Among themselves.
    fs.rename(ROOT, b"._local", trash, b"any name", RenameMode::Replace)
        .unwrap();
    assert_eq!(contents(fs, trash, b"any name").unwrap(), b"l");
    // Both copy as the kernel is told to.
    let from = fs.open_node(real, OpenMode::default()).unwrap();
    let (_, to) = fs
        .create(ROOT, b"._copy", 0o600, true, WRITE, &CALLER)
        .unwrap();
    assert_eq!(fs.copy_range((from, 0), (to, 0), 10).unwrap(), 1);
    assert_eq!(fs.seek(to, 0, Seek::Data).unwrap(), 0);
    assert_eq!(fs.seek(to, 0, Seek::Hole).unwrap(), 1);
    fs.release(from).unwrap();
    fs.release(to).unwrap();
    assert_eq!(contents(fs, ROOT, b"._copy").unwrap(), b"r");
    end(at);
}

#[test]
fn what_the_vault_has_of_that_name_comes_first_and_is_a_file_like_others() {
    let (vault, _) = vault(4, MAX);
    let (at, other) = (open(&vault, 0), open(&vault, 1));
    let dir = mkdir(&at.fs, ROOT, b"d");
    write(&at.fs, dir, b"._a", b"mine").unwrap();
    sync(&at);
    other.fs.poll().unwrap();
    let there = other.fs.lookup(ROOT, b"d").unwrap().node;
    for name in [&b"._a"[..], b"._b"] {
        write(&other.fs, there, name, b"of the vault").unwrap();
    }
    sync(&other);
    at.fs.poll().unwrap();
    assert_eq!(names(&at.fs, dir, 1), ["._a", "._b"]);
    assert_eq!(contents(&at.fs, dir, b"._a").unwrap(), b"of the vault");
    // Renamed as any file, from such a name to another; what was here under that goes, as what a rename replaces.
    write(&at.fs, dir, b"._c", b"mine").unwrap();
    let onto = at
        .fs
        .rename(dir, b"._b", dir, b"._c", RenameMode::NoReplace);
    assert_eq!(errno(onto), Some(Errno::EEXIST));
    at.fs
        .rename(dir, b"._b", dir, b"._c", RenameMode::Replace)
        .unwrap();
    assert_eq!(names(&at.fs, dir, 1), ["._a", "._c"]);
    assert_eq!(contents(&at.fs, dir, b"._c").unwrap(), b"of the vault");
    // Who moves or removes it saw one file of that name: the other does not come out from behind it.
    at.fs
        .rename(dir, b"._a", dir, b"a", RenameMode::Replace)
        .unwrap();
    assert_eq!(names(&at.fs, dir, 1), ["._c", "a"]);
    write(&other.fs, there, b"._e", b"of the vault").unwrap();
    write(&at.fs, dir, b"._e", b"mine").unwrap();
    sync(&other);
    at.fs.poll().unwrap();
    for name in [&b"._e"[..], b"._c", b"a"] {
        at.fs.unlink(dir, name).unwrap();
    }
    assert_eq!(names(&at.fs, dir, 1), [""; 0]);
    sync(&at);
    other.fs.poll().unwrap();
    assert_eq!(names(&other.fs, there, 10), [""; 0]);
    end(at);
    end(other);
}

#[test]
fn of_two_directories_made_at_once_the_one_that_goes_on_has_what_was_in_either() {
    let (vault, _) = vault(5, MAX);
    let (at, other) = (open(&vault, 0), open(&vault, 1));
    for device in [&at, &other] {
        mkdir(&device.fs, ROOT, b"d");
    }
    let before = at.fs.lookup(ROOT, b"d").unwrap();
    write(&at.fs, before.node, b".DS_Store", b"view").unwrap();
    // The other one is published first, so that its directory stays.
    sync(&other);
    at.fs.poll().unwrap();
    sync(&at);
    at.fs.poll().unwrap();
    let after = at.fs.lookup(ROOT, b"d").unwrap();
    assert_ne!(after.ino, before.ino, "ours went on: this tests nothing");
    assert_eq!(contents(&at.fs, after.node, b".DS_Store").unwrap(), b"view");
    assert_eq!(names(&at.fs, after.node, 10), [".DS_Store"]);
    end(at);
    let at = open(&vault, 0);
    let again = at.fs.lookup(ROOT, b"d").unwrap().node;
    assert_eq!(names(&at.fs, again, 10), [".DS_Store"]);
    end(at);
    end(other);
}

#[test]
fn a_listing_shows_each_entry_of_both_once_while_it_goes_on() {
    let (vault, _) = vault(6, MAX);
    let at = open(&vault, 0);
    let mut all = Vec::new();
    for n in 0..300 {
        for name in [format!("file {n}"), format!("._file {n}")] {
            write(&at.fs, ROOT, name.as_bytes(), b"x").unwrap();
            all.push(name);
        }
    }
    all.sort();
    for step in [1, 7, 128, 1000] {
        assert_eq!(names(&at.fs, ROOT, step), all, "{step} at a time");
    }
    end(at);
}

#[test]
fn beyond_their_bound_nothing_is_made_or_grows_until_something_went() {
    const SMALL: usize = 100_000;
    let (vault, shelf) = vault(7, SMALL);
    let at = open(&vault, 0);
    let fs = &at.fs;
    let gone = mkdir(fs, ROOT, b"gone");
    let lost = write(fs, gone, b"._x", &[1; 40_000]).unwrap();
    fs.forget(lost, 1);
    let big = write(fs, ROOT, b"._big", &[2; 50_000]).unwrap();
    let handle = fs
        .open_node(
            big,
            OpenMode {
                write: true,
                truncate: false,
            },
        )
        .unwrap();
    let full = Some(Errno::EDQUOT);
    assert_eq!(errno(fs.write(handle, 40_000, &[3; 20_000])), full);
    assert_eq!(
        fs.getattr(big).unwrap().size,
        50_000,
        "and nothing of it is written"
    );
    let longer = SetAttr {
        size: Some(1 << 40),
        ..SetAttr::default()
    };
    assert_eq!(errno(fs.setattr(big, &longer)), full);
    fs.write(handle, 0, &[3; 50_000]).unwrap();
    assert_eq!(
        errno(fs.setxattr(big, b"user.x", &[0; 20_000], XattrMode::Any)),
        full
    );
    let made = (0..1000).find_map(|n| {
        let name = format!("._{n}");
        errno(fs.mkdir(ROOT, name.as_bytes(), 0o700, &CALLER)).map(|e| (n, e))
    });
    assert!(matches!(made, Some((1..100, Errno::EDQUOT))), "{made:?}");
    // A directory that another device removed is given up when its room is needed.
    sync(&at);
    let other = open(&vault, 1);
    other.fs.rmdir(ROOT, b"gone").unwrap();
    sync(&other);
    fs.poll().unwrap();
    fs.write(handle, 50_000, &[4; 30_000]).unwrap();
    // What is kept by an earlier bound stays, and does not grow.
    fs.release(handle).unwrap();
    end(at);
    let kept = Arc::clone(&shelf);
    let mut vault = vault;
    vault.local = Box::new(move |_| Some(kept.files(10)));
    let at = open(&vault, 0);
    assert_eq!(contents(&at.fs, ROOT, b"._big").unwrap().len(), 80_000);
    assert_eq!(errno(write(&at.fs, ROOT, b"._new", b"x")), full);
    at.fs.unlink(ROOT, b"._big").unwrap();
    end(at);
    end(other);
}

#[test]
fn what_fsync_said_is_kept_through_a_kill_and_a_full_disk_is_told() {
    let (vault, shelf) = vault(8, MAX);
    let at = open(&vault, 0);
    let dir = mkdir(&at.fs, ROOT, b"d");
    let (_, handle) = at
        .fs
        .create(dir, b"._f", 0o600, true, WRITE, &CALLER)
        .unwrap();
    at.fs.write(handle, 0, b"promised").unwrap();
    shelf.full.store(true, Ordering::Relaxed);
    assert_eq!(errno(at.fs.fsync(handle)), Some(Errno::ENOSPC));
    assert_eq!(errno(at.fs.fsync_dir()), Some(Errno::ENOSPC));
    // What would make room goes on: the vault's own files reach the storage.
    write(&at.fs, ROOT, b"of the vault", b"x").unwrap();
    assert_eq!(errno(at.fs.sync(|_| ())), Some(Errno::ENOSPC));
    assert_eq!(at.fs.pending().operations, 0);
    shelf.full.store(false, Ordering::Relaxed);
    at.fs.fsync(handle).unwrap();
    let stored = shelf.stored.load(Ordering::Relaxed);
    at.fs.fsync(handle).unwrap();
    assert_eq!(
        shelf.stored.load(Ordering::Relaxed),
        stored,
        "nothing is new"
    );
    at.fs.write(handle, 0, b"not promised").unwrap();
    at.fs.fsync_dir().unwrap();
    at.fs.write(handle, 0, b"forgotten").unwrap();
    drop(at);
    let at = open(&vault, 0);
    let dir = at.fs.lookup(ROOT, b"d").unwrap().node;
    assert_eq!(contents(&at.fs, dir, b"._f").unwrap(), b"not promised");
    end(at);
}

#[test]
fn changes_are_kept_within_seconds_without_anybody_asking() {
    let (vault, shelf) = vault(9, MAX);
    let at = open(&vault, 0);
    write(&at.fs, ROOT, b"._f", b"x").unwrap();
    // The clock of this vault moves with each look at it.
    let looks = (0..10_000_000).find(|_| {
        at.fs.house_step().unwrap();
        shelf.stored.load(Ordering::Relaxed) > 0
    });
    assert!(looks.is_some_and(|n| n > 0));
    drop(at);
    let at = open(&vault, 0);
    assert_eq!(contents(&at.fs, ROOT, b"._f").unwrap(), b"x");
    end(at);
}

#[test]
fn without_the_option_they_are_files_like_others_and_those_that_were_kept_wait() {
    let (mut vault, shelf) = vault(10, MAX);
    let at = open(&vault, 0);
    write(&at.fs, ROOT, b"._f", b"kept here").unwrap();
    end(at);
    let with = std::mem::replace(&mut vault.local, Box::new(|_| None));
    let at = open(&vault, 0);
    assert_eq!(contents(&at.fs, ROOT, b"._f"), None);
    write(&at.fs, ROOT, b"._g", b"uploaded").unwrap();
    sync(&at);
    end(at);
    vault.local = with;
    let at = open(&vault, 0);
    assert_eq!(names(&at.fs, ROOT, 10), ["._f", "._g"]);
    let other = open(&vault, 1);
    assert_eq!(names(&other.fs, ROOT, 10), ["._g"]);
    assert!(shelf.stored.load(Ordering::Relaxed) > 0);
    end(at);
    end(other);

    let at = vault
        .open(
            0,
            FsOptions {
                read_only: true,
                ..options()
            },
        )
        .unwrap();
    assert_eq!(contents(&at.fs, ROOT, b"._f").unwrap(), b"kept here");
    assert_eq!(errno(write(&at.fs, ROOT, b"._h", b"x")), Some(Errno::EROFS));
    assert_eq!(errno(at.fs.unlink(ROOT, b"._f")), Some(Errno::EROFS));
    end(at);
}

#[test]
fn new_ones_get_the_group_and_the_default_list_of_their_directory() {
    let (vault, _) = vault(11, MAX);
    let at = open(&vault, 0);
    let fs = &at.fs;
    let dir = mkdir(fs, ROOT, b"d");
    let group = SetAttr {
        gid: Some(77),
        mode: Some(0o2770),
        ..SetAttr::default()
    };
    fs.setattr(dir, &group).unwrap();
    // user::rwx user:7:rwx group::r-x mask::rwx other::---
    let entry = |tag: u16, bits: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &bits.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let list = [
        2u32.to_le_bytes().to_vec(),
        entry(1, 7, u32::MAX),
        entry(2, 7, 7),
        entry(4, 5, u32::MAX),
        entry(16, 7, u32::MAX),
        entry(32, 0, u32::MAX),
    ]
    .concat();
    let (access, default) = (b"system.posix_acl_access", b"system.posix_acl_default");
    fs.setxattr(dir, default, &list, XattrMode::Any).unwrap();
    let caller = skrin_fs::Caller {
        umask: 0o077,
        ..CALLER
    };
    let (attr, handle) = fs.create(dir, b"._f", 0o666, true, WRITE, &caller).unwrap();
    fs.release(handle).unwrap();
    assert_eq!((attr.mode, attr.gid), (0o660, 77));
    assert!(fs.getxattr(attr.node, access).is_ok());
    fs.setxattr(attr.node, access, &list, XattrMode::Any)
        .unwrap();
    assert_eq!(fs.getattr(attr.node).unwrap().mode, 0o770);
    end(at);
}
