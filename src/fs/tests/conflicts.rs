//! Conflict copies between whole devices: what is listed, what choosing does, and that no line is lost to a conflict.
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

use model::Path;
use skrin_base::{Errno, Ino};
use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{
    Cause, Conflict, Fs, FsError, FsOptions, HandleId, NodeId, OpenMode, RenameMode, RestoreWish,
    SetAttr, Shutdown, When,
};
use skrin_meta::check::check;
use std::collections::{BTreeMap, BTreeSet};
use sut::{CALLER, find, read_all};

const WRITE: OpenMode = OpenMode {
    write: true,
    truncate: false,
};
const REWRITE: OpenMode = OpenMode {
    write: true,
    truncate: true,
};

fn options() -> FsOptions {
    FsOptions {
        poll_interval: None,
        background: false,
        label: true,
        ..FsOptions::default()
    }
}

fn path(text: &str) -> Path {
    let names = text.split('/').filter(|name| !name.is_empty());
    names.map(|name| name.as_bytes().to_vec()).collect()
}

fn split(text: &str) -> (Path, Vec<u8>) {
    let mut path = path(text);
    let last = path.pop().unwrap();
    (path, last)
}

struct Device(Opened);

impl Device {
    fn fs(&self) -> &Fs {
        &self.0.fs
    }

    fn node(&self, at: &str) -> NodeId {
        find(self.fs(), &path(at)).unwrap().node
    }

    /// Writes a whole file, in place if it is there.
    fn put(&self, at: &str, text: &[u8]) {
        let (dir, name) = split(at);
        let dir = sut::dir(self.fs(), &dir).unwrap();
        let made = self.fs().create(dir, &name, 0o644, false, REWRITE, &CALLER);
        let (attr, handle) = made.unwrap();
        self.fs().write(handle, 0, text).unwrap();
        self.fs().release(handle).unwrap();
        self.fs().forget(attr.node, 1);
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), FsError> {
        let ((from, name), (to, to_name)) = (split(from), split(to));
        let (from, to) = (
            sut::dir(self.fs(), &from).unwrap(),
            sut::dir(self.fs(), &to).unwrap(),
        );
        self.fs()
            .rename(from, &name, to, &to_name, RenameMode::Replace)
    }

    /// Saves as many programs do.
    fn save(&self, at: &str, text: &[u8]) {
        self.put(".new", text);
        self.rename(".new", at).unwrap();
    }

    fn unlink(&self, at: &str) {
        let (dir, name) = split(at);
        let dir = sut::dir(self.fs(), &dir).unwrap();
        self.fs().unlink(dir, &name).unwrap();
    }

    fn read(&self, at: &str) -> Vec<u8> {
        read_all(self.fs(), self.node(at))
    }

    fn names(&self) -> Vec<String> {
        let names = sut::tree(self.fs()).0.into_keys();
        let text = |path: Path| String::from_utf8(path.join(&b'/')).unwrap();
        names.filter(|path| !path.is_empty()).map(text).collect()
    }

    fn conflicts(&self) -> Vec<Conflict> {
        self.fs().conflicts(&[]).unwrap()
    }

    fn keep(&self, at: &str) -> Result<skrin_fs::Kept, FsError> {
        self.fs().keep(&path(at))
    }

    fn sync(&self) {
        self.fs().sync(|_| ()).unwrap();
    }

    fn poll(&self) {
        self.fs().poll().unwrap();
    }
}

struct World {
    vault: TestVault,
    devices: Vec<Device>,
}

impl World {
    fn new(seed: u64, devices: usize) -> Self {
        let vault = TestVault::in_memory(seed).unwrap();
        let devices = (0..devices).map(|n| Device(vault.open(n, options()).unwrap()));
        let devices = devices.collect();
        Self { vault, devices }
    }

    /// Everybody publishes, in this order, and sees everything.
    fn meet(&self) {
        for device in self.devices.iter().chain(&self.devices) {
            device.sync();
            device.poll();
        }
    }

    /// Two devices that know `doc.txt`, and change it without knowing of each other: the second one's becomes a copy.
    fn in_conflict(seed: u64, first: &[u8], second: &[u8]) -> Self {
        let world = Self::new(seed, 2);
        world.devices[0].put("doc.txt", b"old");
        world.meet();
        world.devices[0].put("doc.txt", first);
        world.devices[1].put("doc.txt", second);
        world.meet();
        world
    }

    /// The only copy.
    fn copy(&self) -> String {
        let conflicts = self.devices[0].conflicts();
        assert_eq!(conflicts.len(), 1);
        String::from_utf8(conflicts[0].copy.path.join(&b'/')).unwrap()
    }

    fn end(self) {
        for device in self.devices {
            device.0.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
        }
    }
}

#[test]
fn a_copy_is_listed_with_its_document_and_a_name_that_a_person_gave_is_not() {
    let world = World::in_conflict(1, b"anna's", b"bob's, longer");
    let [a, b] = &world.devices[..] else { panic!() };
    a.put("other (conflict, nobody, 2026-11-21).txt", b"a person's");
    world.meet();
    for device in [a, b] {
        let [one] = &device.conflicts()[..] else {
            panic!("{:?}", device.conflicts())
        };
        assert_eq!(one.cause, Cause::Written);
        assert_eq!(one.of, b"doc.txt");
        assert_eq!((&*one.device, one.copy.size), ("device-1", 13));
        let document = one.document.as_ref().unwrap();
        assert_eq!(document.path, path("doc.txt"));
        assert_eq!((&*document.device, document.size), ("device-0", 6));
        assert_eq!(device.fs().conflict_count().unwrap(), 1);
        assert_eq!(device.read(&world.copy()), b"bob's, longer");
        assert!(world.copy().starts_with("doc (conflict, device-1, "));
    }
    // Of a directory, those below it; of a document, its copies.
    assert_eq!(a.fs().conflicts(&path("doc.txt")).unwrap().len(), 1);
    let other = path("other (conflict, nobody, 2026-11-21).txt");
    assert_eq!(a.fs().conflicts(&other).unwrap(), []);
    let nothing = a.fs().conflicts(&path("nothing"));
    assert!(matches!(nothing, Err(FsError::NotFound)));
    // What was renamed is a document now; and the document is found under its new name.
    a.rename("doc.txt", "final.txt").unwrap();
    let document = a.conflicts()[0].document.clone().unwrap();
    assert_eq!(document.path, path("final.txt"));
    a.rename(&world.copy(), "second.txt").unwrap();
    assert_eq!(a.conflicts(), []);
    world.meet();
    assert_eq!(b.conflicts(), []);
    world.end();
}

#[test]
fn of_a_copy_that_is_kept_the_document_has_the_contents_and_what_it_was_can_be_restored() {
    let (first, second) = (vec![b'a'; 200_000], vec![b'b'; 300_000]);
    let world = World::in_conflict(2, &first, &second);
    let [a, b] = &world.devices[..] else { panic!() };
    let copy = world.copy();
    let before = a.conflicts().remove(0).document.unwrap();
    let ino = find(a.fs(), &path("doc.txt")).unwrap().ino;
    let pending = a.fs().pending().bytes;
    let kept = a.keep(&copy).unwrap();
    assert!(
        a.fs().pending().bytes - pending < 4096,
        "no contents are to be uploaded"
    );
    assert_eq!(kept.document, path("doc.txt"));
    assert_eq!(kept.from, Some(path(&copy)));
    assert_eq!((kept.gone, kept.left), (vec![path(&copy)], 0));
    world.meet();
    for device in [a, b] {
        assert_eq!(device.names(), ["doc.txt"]);
        assert!(device.read("doc.txt") == second);
        assert_eq!(find(device.fs(), &path("doc.txt")).unwrap().ino, ino);
        assert_eq!(device.conflicts(), []);
    }
    let device: String = before.version.device.to_string().chars().take(8).collect();
    let wish = RestoreWish {
        path: path("doc.txt"),
        when: When::Version(device, before.version.counter),
        exact: false,
        to: None,
    };
    b.fs().restore_path(&wish).unwrap();
    assert!(b.read("doc.txt") == first);
    world.end();
}

#[test]
fn of_a_document_that_is_kept_the_copies_go() {
    let world = World::new(3, 3);
    world.devices[0].put("doc.txt", b"old");
    world.meet();
    for (n, device) in world.devices.iter().enumerate() {
        device.put("doc.txt", format!("by {n}").as_bytes());
    }
    world.meet();
    let a = &world.devices[0];
    assert_eq!(a.conflicts().len(), 2);
    // Of two copies one can be chosen without the other.
    let chosen = a.conflicts()[1].copy.clone();
    let kept = a.fs().keep(&chosen.path).unwrap();
    assert_eq!(kept.left, 1);
    let kept = a.keep("doc.txt").unwrap();
    assert_eq!((kept.from, kept.gone.len(), kept.left), (None, 1, 0));
    assert_eq!(a.names(), ["doc.txt"]);
    assert_eq!(a.read("doc.txt"), b"by 2");
    assert!(matches!(a.keep("doc.txt"), Err(FsError::NoConflict)));
    world.meet();
    assert_eq!(world.devices[2].names(), ["doc.txt"]);
    world.end();
}

#[test]
fn what_is_open_for_writing_or_locked_by_an_office_suite_is_not_chosen() {
    let world = World::in_conflict(4, b"anna's", b"bob's");
    let a = &world.devices[0];
    let copy = world.copy();
    for open in ["doc.txt", &copy] {
        let handle = a.fs().open_node(a.node(open), WRITE).unwrap();
        for chosen in ["doc.txt", &copy] {
            let refused = a.keep(chosen).unwrap_err();
            assert!(matches!(refused, FsError::InUse(_)), "{refused}");
            assert_eq!(refused.errno(), Errno::EBUSY);
        }
        a.fs().release(handle).unwrap();
    }
    for lock in [".~lock.doc.txt#", "~$c.txt"] {
        a.put(lock, b"Anna,");
        assert!(matches!(a.keep(&copy), Err(FsError::InUse(_))), "{lock}");
        a.unlink(lock);
    }
    assert_eq!(a.conflicts().len(), 1, "nothing was changed");
    // Who only reads goes on with what he opened.
    let handle = a
        .fs()
        .open_node(a.node("doc.txt"), OpenMode::default())
        .unwrap();
    a.keep(&copy).unwrap();
    assert_eq!(a.fs().read(handle, 0, 100).unwrap(), b"anna's");
    a.fs().release(handle).unwrap();
    assert_eq!(a.read("doc.txt"), b"bob's");
    world.end();
}

#[test]
fn who_still_writes_to_what_was_forked_has_the_copy_open() {
    let world = World::new(5, 2);
    let [a, b] = &world.devices[..] else { panic!() };
    a.put("doc.txt", b"old");
    world.meet();
    let handle = b.fs().open_node(b.node("doc.txt"), WRITE).unwrap();
    b.fs().write(handle, 0, b"bob").unwrap();
    b.fs().flush(handle).unwrap();
    a.put("doc.txt", b"anna's");
    world.meet();
    assert_eq!(b.conflicts().len(), 1);
    assert!(matches!(b.keep("doc.txt"), Err(FsError::InUse(_))));
    b.fs().write(handle, 3, b"'s").unwrap();
    b.fs().release(handle).unwrap();
    let copy = world.copy();
    b.keep(&copy).unwrap();
    world.meet();
    assert_eq!(a.read("doc.txt"), b"bob's");
    assert_eq!(a.names(), ["doc.txt"]);
    world.end();
}

/// Found by a review: the branch was taken for the file whose name went, and what was written to it, fsync or not, for unlinked.
#[test]
fn who_writes_to_a_conflict_copy_goes_on_when_the_document_is_removed_or_replaced() {
    for replaced in [false, true] {
        let world = World::new(50 + u64::from(replaced), 2);
        let [a, b] = &world.devices[..] else { panic!() };
        a.put("doc.txt", b"old");
        world.meet();
        // As the kernel does, it knows what it has open.
        let node = b.fs().lookup(NodeId::ROOT, b"doc.txt").unwrap().node;
        let handle = b.fs().open_node(node, WRITE).unwrap();
        b.fs().write(handle, 0, b"bob").unwrap();
        b.fs().flush(handle).unwrap();
        a.put("doc.txt", b"anna's");
        world.meet();
        let copy = world.copy();
        match replaced {
            true => b.save("doc.txt", b"chris's"),
            false => b.fs().unlink(NodeId::ROOT, b"doc.txt").unwrap(),
        }
        b.fs().write(handle, 3, b"'s").unwrap();
        b.fs().fsync(handle).unwrap();
        b.fs().release(handle).unwrap();
        world.meet();
        assert_eq!(a.read(&copy), b"bob's");
        assert_eq!(b.read(&copy), b"bob's");
        world.end();
    }
}

#[test]
fn a_choice_is_refused_where_another_device_had_changed_what_was_looked_at() {
    let world = World::in_conflict(6, b"anna's", b"bob's");
    let [a, b] = &world.devices[..] else { panic!() };
    let copy = world.copy();
    b.put("doc.txt", b"newer");
    b.sync();
    assert!(matches!(a.keep(&copy), Err(FsError::ChangedMeanwhile)));
    assert_eq!(a.read("doc.txt"), b"newer");
    a.keep(&copy).unwrap();
    world.meet();
    assert_eq!(b.read("doc.txt"), b"bob's");
    world.end();
}

#[test]
fn an_edit_that_nobody_knew_of_when_somebody_chose_is_not_lost() {
    for edited in [0, 1] {
        let world = World::in_conflict(7, b"anna's", b"bob's");
        let [a, b] = &world.devices[..] else { panic!() };
        let copy = world.copy();
        a.keep(&copy).unwrap();
        b.put([&copy, "doc.txt"][edited], b"newer");
        world.meet();
        let tree = sut::tree(a.fs()).0;
        let texts: BTreeSet<&[u8]> = tree.values().map(|seen| &seen.data[..]).collect();
        assert!(texts.contains(&b"newer"[..]) && texts.contains(&b"bob's"[..]));
        assert!(tree == sut::tree(b.fs()).0);
        world.end();
    }
}

#[test]
fn a_copy_that_is_saved_by_renaming_stays_a_copy() {
    let world = World::in_conflict(30, b"anna's", b"bob's");
    let [a, b] = &world.devices[..] else { panic!() };
    let copy = world.copy();
    for text in [b"first save", b"again save"] {
        a.save(&copy, text);
        world.meet();
        assert_eq!(world.copy(), copy);
        assert_eq!(b.conflicts(), a.conflicts());
        let found = check(&a.0.replica.tree(), true).unwrap();
        assert!(found.is_empty(), "{found:?}");
    }
    b.keep(&copy).unwrap();
    world.meet();
    assert_eq!(a.read("doc.txt"), b"again save");
    assert_eq!(a.names(), ["doc.txt"]);
    world.end();
}

#[test]
fn a_copy_of_a_copy_is_not_chosen_while_who_made_it_still_writes_to_it() {
    let world = World::in_conflict(31, b"anna's", b"bob's");
    let [a, b] = &world.devices[..] else { panic!() };
    let copy = world.copy();
    let handle = b.fs().open_node(b.node(&copy), WRITE).unwrap();
    b.fs().write(handle, 0, b"mine").unwrap();
    b.fs().flush(handle).unwrap();
    a.put(&copy, b"anna's too");
    world.meet();
    let copies = b.conflicts().into_iter().map(|c| c.copy.path);
    let copies: Vec<String> = copies
        .map(|path| String::from_utf8(path.join(&b'/')).unwrap())
        .collect();
    let [second] = &copies.iter().filter(|c| **c != copy).collect::<Vec<_>>()[..] else {
        panic!("{copies:?}")
    };
    assert!(matches!(b.keep(second), Err(FsError::InUse(_))));
    b.fs().release(handle).unwrap();
    b.keep(second).unwrap();
    world.meet();
    assert_eq!(a.read("doc.txt"), b"mines");
    world.end();
}

#[test]
fn of_the_copies_of_a_document_all_go_or_none() {
    for open in [0, 1] {
        let world = World::new(32, 3);
        world.devices[0].put("doc.txt", b"old");
        world.meet();
        for (n, device) in world.devices.iter().enumerate() {
            device.put("doc.txt", &[b'0' + n as u8]);
        }
        world.meet();
        let a = &world.devices[0];
        let before = a.conflicts();
        assert_eq!(before.len(), 2);
        let copy = &before[open].copy.path;
        let node = find(a.fs(), copy).unwrap().node;
        let handle = a.fs().open_node(node, WRITE).unwrap();
        assert!(matches!(a.keep("doc.txt"), Err(FsError::InUse(_))));
        assert_eq!(a.conflicts(), before);
        a.fs().release(handle).unwrap();
        a.keep("doc.txt").unwrap();
        assert_eq!(a.names(), ["doc.txt"]);
        world.end();
    }
}

#[test]
fn a_copy_that_lies_too_deep_for_a_path_does_not_hide_the_others() {
    let world = World::in_conflict(33, b"anna's", b"bob's");
    let [a, b] = &world.devices[..] else { panic!() };
    let mut dir = NodeId::ROOT;
    for _ in 0..4_200 {
        dir = a.fs().mkdir(dir, b"d", 0o755, &CALLER).unwrap().node;
    }
    let write = |device: &Device, text: &[u8]| {
        let made = device
            .fs()
            .create(dir, b"deep", 0o644, false, REWRITE, &CALLER);
        let handle = made.unwrap().1;
        device.fs().write(handle, 0, text).unwrap();
        device.fs().release(handle).unwrap();
    };
    write(a, b"old");
    world.meet();
    write(a, b"anna's");
    write(b, b"bob's");
    world.meet();
    assert_eq!(a.fs().conflict_count().unwrap(), 2);
    assert_eq!(a.conflicts().len(), 1);
    assert_eq!(b.conflicts(), a.conflicts());
    world.end();
}

#[test]
fn a_copy_without_a_document_gets_its_name_and_so_does_a_symbolic_link() {
    let world = World::in_conflict(8, b"anna's", b"bob's");
    let a = &world.devices[0];
    let copy = world.copy();
    a.unlink("doc.txt");
    assert_eq!(a.conflicts()[0].document, None);
    a.keep(&copy).unwrap();
    assert_eq!(a.names(), ["doc.txt"]);
    assert_eq!(a.read("doc.txt"), b"bob's");
    world.end();

    let world = World::new(9, 2);
    let [a, b] = &world.devices[..] else { panic!() };
    a.put("x", b"a file");
    b.fs()
        .symlink(NodeId::ROOT, b"x", b"target", &CALLER)
        .unwrap();
    world.meet();
    let copy = world.copy();
    a.keep(&copy).unwrap();
    world.meet();
    assert_eq!(b.names(), ["x"]);
    assert_eq!(b.fs().readlink(b.node("x")).unwrap(), b"target");
    world.end();
}

#[test]
fn a_directory_is_never_taken_away_by_a_choice() {
    let world = World::new(10, 2);
    let [a, b] = &world.devices[..] else { panic!() };
    a.put("x", b"a file");
    b.fs().mkdir(NodeId::ROOT, b"x", 0o755, &CALLER).unwrap();
    b.put("x/in", b"in");
    world.meet();
    let copy = a.conflicts()[0].copy.clone();
    for chosen in [&copy.path, &path("x")] {
        assert!(matches!(a.fs().keep(chosen), Err(FsError::IsDirectory)));
    }
    assert_eq!(a.names().len(), 3);
    world.end();
}

#[test]
fn two_devices_that_save_by_renaming_all_day_have_one_copy_with_the_last_of_it() {
    let world = World::new(11, 2);
    let [a, b] = &world.devices[..] else { panic!() };
    a.put("doc.txt", b"old");
    world.meet();
    for n in 0..20 {
        a.save("doc.txt", format!("anna's {n}").as_bytes());
        b.save("doc.txt", format!("bob's {n}").as_bytes());
        if n % 7 == 0 {
            a.sync();
        }
    }
    world.meet();
    assert_eq!(b.names().len(), 2);
    assert_eq!(b.read("doc.txt"), b"anna's 19");
    assert_eq!(b.read(&world.copy()), b"bob's 19");
    world.end();
}

#[test]
fn a_file_that_one_device_cuts_and_another_writes_is_there_in_both_forms() {
    let world = World::new(12, 2);
    let [a, b] = &world.devices[..] else { panic!() };
    a.put("doc.txt", &[b'o'; 150_000]);
    world.meet();
    let set = SetAttr {
        size: Some(70_000),
        ..SetAttr::default()
    };
    a.fs().setattr(a.node("doc.txt"), &set).unwrap();
    let handle = b.fs().open_node(b.node("doc.txt"), WRITE).unwrap();
    b.fs().write(handle, 140_000, b"bob").unwrap();
    b.fs().release(handle).unwrap();
    world.meet();
    assert!(a.read("doc.txt") == [b'o'; 70_000]);
    let mut bobs = vec![b'o'; 150_000];
    bobs[140_000..140_003].copy_from_slice(b"bob");
    assert!(a.read(&world.copy()) == bobs);
    world.end();
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        let at = self.below(items.len().max(1) as u64) as usize;
        items.get(at).cloned()
    }
}

/// Lines of files in which a line is longer than a block, and of the others.
const LONG: usize = 70_000;
const SHORT: usize = 16;

/// A line with a number that no other line has.
fn line(number: u32, width: usize) -> Vec<u8> {
    let mut line = format!("{number:08}").into_bytes();
    line.resize(width - 1, b'.');
    line.push(b'\n');
    line
}

/// The numbers of all lines of a file.
fn lines(data: &[u8]) -> BTreeSet<u32> {
    let lines = data.split(|b| *b == b'\n').filter(|line| line.len() >= 8);
    lines
        .map(|line| std::str::from_utf8(&line[..8]).unwrap().parse().unwrap())
        .collect()
}

/// A file that a program has open for long.
struct Held {
    handle: HandleId,
    ino: Ino,
}

/// What is known of the lines.
#[derive(Default)]
struct Lines {
    last: u32,
    /// Who wrote them was told that they are written.
    written: BTreeSet<u32>,
    /// Somebody who saw them wrote over them, or removed them.
    given_up: BTreeSet<u32>,
}

impl Lines {
    fn write(&mut self, width: usize) -> Vec<u8> {
        self.last += 1;
        self.written.insert(self.last);
        line(self.last, width)
    }
}

struct Game {
    world: World,
    rng: Rng,
    lines: Lines,
    held: BTreeMap<usize, Held>,
    log: Vec<String>,
}

impl Game {
    fn new(seed: u64) -> Self {
        let world = World::new(seed, 3);
        for dir in ["d", "e"] {
            let made = world.devices[0]
                .fs()
                .mkdir(NodeId::ROOT, dir.as_bytes(), 0o755, &CALLER);
            made.unwrap();
        }
        world.meet();
        Self {
            world,
            rng: Rng(seed),
            lines: Lines::default(),
            held: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    fn a_path(&mut self) -> String {
        let dir = self.rng.pick(&["", "d/", "e/"]).unwrap();
        let name = self.rng.pick(&["x", "y.txt", "long"]).unwrap();
        format!("{dir}{name}")
    }

    /// The files that a device sees, with what it reads in them.
    fn files(&self, n: usize) -> Vec<(Path, Vec<u8>, u32)> {
        let (tree, _) = sut::tree(self.world.devices[n].fs());
        let files = tree.into_iter().filter(|(_, seen)| seen.kind == "file");
        files.map(|(p, seen)| (p, seen.data, seen.nlink)).collect()
    }

    fn width(path: &[Vec<u8>]) -> usize {
        match path.last().is_some_and(|name| name.starts_with(b"long")) {
            true => LONG,
            false => SHORT,
        }
    }

    /// Whoever had it open writes into nothing from now on.
    fn dead(&mut self, n: usize, path: &[Vec<u8>]) {
        let ino = find(self.world.devices[n].fs(), path).map(|attr| attr.ino);
        let held = self.held.get(&n).map(|held| held.ino);
        if ino.ok() == held
            && let Some(held) = self.held.remove(&n)
        {
            self.world.devices[n].fs().release(held.handle).unwrap();
        }
    }

    fn step(&mut self, n: usize) {
        let what = match self.rng.below(15) {
            0 | 1 => self.create_or_rewrite(n),
            2 | 3 => self.append_or_overwrite(n),
            4 | 5 => self.save(n),
            6 => self.unlink(n),
            7 => self.rename(n),
            8 => self.link(n),
            9 => self.directory(n),
            10 => self.hold(n),
            11 | 12 => self.write_held(n),
            13 => self.choose(n),
            _ => self.crash(n),
        };
        self.log.push(format!("{n}: {what}"));
    }

    fn create_or_rewrite(&mut self, n: usize) -> String {
        let at = self.a_path();
        let (dir, name) = split(&at);
        let Ok(dir) = sut::dir(self.world.devices[n].fs(), &dir) else {
            return "no directory".to_owned();
        };
        let files = self.files(n);
        let there = files.into_iter().find(|(p, ..)| *p == path(&at));
        let width = Self::width(&path(&at));
        let fs = self.world.devices[n].fs();
        let Ok((attr, handle)) = fs.create(dir, &name, 0o644, false, REWRITE, &CALLER) else {
            return "not created".to_owned();
        };
        let text = self.lines.write(width);
        fs.write(handle, 0, &text).unwrap();
        fs.release(handle).unwrap();
        fs.forget(attr.node, 1);
        if let Some((_, data, _)) = there {
            self.lines.given_up.extend(lines(&data));
        }
        format!("line {} is all of {at}", self.lines.last)
    }

    fn append_or_overwrite(&mut self, n: usize) -> String {
        let Some((path, data, _)) = self.rng.pick(&self.files(n)) else {
            return "nothing".to_owned();
        };
        let node = find(self.world.devices[n].fs(), &path).unwrap().node;
        let fs = self.world.devices[n].fs();
        let handle = fs.open_node(node, WRITE).unwrap();
        let what = Self::edit(&mut self.rng, &mut self.lines, fs, handle, &data);
        self.world.devices[n].fs().release(handle).unwrap();
        format!("{what} of {}", path.join(&b'/').escape_ascii())
    }

    /// Writes a line behind all others, or in the place of one.
    fn edit(rng: &mut Rng, all: &mut Lines, fs: &Fs, handle: HandleId, data: &[u8]) -> String {
        let width = data
            .iter()
            .position(|b| *b == b'\n')
            .map_or(SHORT, |end| end + 1);
        let count = data.len() / width;
        let at = rng.below(count as u64 + 2).min(count as u64) as usize * width;
        fs.write(handle, at as u64, &all.write(width)).unwrap();
        let over = data.get(at..).unwrap_or_default();
        all.given_up.extend(lines(&over[..over.len().min(width)]));
        format!("line {} at {at}", all.last)
    }

    fn save(&mut self, n: usize) -> String {
        let files = self.files(n);
        let Some((to, data, nlink)) = self.rng.pick(&files) else {
            return "nothing".to_owned();
        };
        let text = self.lines.write(Self::width(&to));
        let new = format!(".new{}", self.lines.last);
        self.world.devices[n].put(&new, &text);
        if nlink == 1 {
            self.dead(n, &to);
            self.lines.given_up.extend(lines(&data));
        }
        let to = String::from_utf8(to.join(&b'/')).unwrap();
        self.world.devices[n].rename(&new, &to).unwrap();
        format!("line {} saved as {to}", self.lines.last)
    }

    fn unlink(&mut self, n: usize) -> String {
        let Some((path, data, nlink)) = self.rng.pick(&self.files(n)) else {
            return "nothing".to_owned();
        };
        if nlink == 1 {
            self.dead(n, &path);
            self.lines.given_up.extend(lines(&data));
        }
        let text = String::from_utf8(path.join(&b'/')).unwrap();
        self.world.devices[n].unlink(&text);
        format!("unlink {text}")
    }

    fn rename(&mut self, n: usize) -> String {
        let files = self.files(n);
        let Some((from, ..)) = self.rng.pick(&files) else {
            return "nothing".to_owned();
        };
        let to = self.a_path();
        let device = &self.world.devices[n];
        if sut::dir(device.fs(), &split(&to).0).is_err()
            || Self::width(&from) != Self::width(&path(&to))
        {
            return "no directory".to_owned();
        }
        let there = files.into_iter().find(|(p, ..)| *p == path(&to));
        let ino = |p: &[Vec<u8>]| find(device.fs(), p).map(|attr| attr.ino).ok();
        let same = ino(&from) == ino(&path(&to));
        let text = String::from_utf8(from.join(&b'/')).unwrap();
        if let Some((p, data, nlink)) = there.filter(|_| !same)
            && nlink == 1
        {
            self.dead(n, &p);
            self.lines.given_up.extend(lines(&data));
        }
        self.world.devices[n].rename(&text, &to).unwrap();
        format!("rename {text} to {to}")
    }

    fn link(&mut self, n: usize) -> String {
        let Some((from, ..)) = self.rng.pick(&self.files(n)) else {
            return "nothing".to_owned();
        };
        let to = self.a_path();
        let fs = self.world.devices[n].fs();
        let (dir, name) = split(&to);
        let (Ok(dir), true) = (
            sut::dir(fs, &dir),
            Self::width(&from) == Self::width(&path(&to)),
        ) else {
            return "no directory".to_owned();
        };
        let node = find(fs, &from).unwrap().node;
        let done = sut::let_go(fs, fs.link(node, dir, &name));
        format!("link {} as {to}: {done:?}", from.join(&b'/').escape_ascii())
    }

    fn directory(&mut self, n: usize) -> String {
        let fs = self.world.devices[n].fs();
        let name = self.rng.pick(&["d", "e"]).unwrap();
        match self.rng.below(3) {
            0 => {
                let other = ["d", "e"][usize::from(name == "d")];
                let Ok(to) = sut::dir(fs, &path(other)) else {
                    return "no directory".to_owned();
                };
                let mode = RenameMode::NoReplace;
                let done = fs.rename(NodeId::ROOT, name.as_bytes(), to, b"sub", mode);
                format!("move {name} into {other}: {done:?}")
            }
            1 => {
                let made = fs.mkdir(NodeId::ROOT, name.as_bytes(), 0o755, &CALLER);
                format!("mkdir {name}: {:?}", sut::let_go(fs, made))
            }
            _ => format!(
                "rmdir {name}: {:?}",
                fs.rmdir(NodeId::ROOT, name.as_bytes())
            ),
        }
    }

    fn hold(&mut self, n: usize) -> String {
        if let Some(held) = self.held.remove(&n) {
            self.world.devices[n].fs().release(held.handle).unwrap();
            return "close".to_owned();
        }
        let Some((path, ..)) = self.rng.pick(&self.files(n)) else {
            return "nothing".to_owned();
        };
        let fs = self.world.devices[n].fs();
        let attr = find(fs, &path).unwrap();
        let handle = fs.open_node(attr.node, WRITE).unwrap();
        let ino = attr.ino;
        self.held.insert(n, Held { handle, ino });
        format!("open {}", path.join(&b'/').escape_ascii())
    }

    fn write_held(&mut self, n: usize) -> String {
        let Some(held) = self.held.get(&n) else {
            return "nothing".to_owned();
        };
        let fs = self.world.devices[n].fs();
        let data = fs.read(held.handle, 0, 10_000_000).unwrap();
        let what = Self::edit(&mut self.rng, &mut self.lines, fs, held.handle, &data);
        fs.flush(held.handle).unwrap();
        format!("{what} of what is open")
    }

    fn choose(&mut self, n: usize) -> String {
        let device = &self.world.devices[n];
        let Some(one) = self.rng.pick(&device.conflicts()) else {
            return "nothing".to_owned();
        };
        let document = one.document.as_ref().map(|d| d.path.clone());
        let before = self.files(n);
        let chosen = match (self.rng.below(2), document) {
            (0, Some(document)) => document,
            _ => one.copy.path,
        };
        let text = |path: &[Vec<u8>]| path.join(&b'/').escape_ascii().to_string();
        let device = &self.world.devices[n];
        let Ok(kept) = device.fs().keep(&chosen) else {
            return format!("{} cannot be kept", text(&chosen));
        };
        // It looked for changes, and found none in these.
        let gives = |p: &Path| p == &kept.document || kept.gone.contains(p);
        let gone = before.iter().filter(|(p, ..)| gives(p));
        let gone: BTreeSet<u32> = gone.flat_map(|(_, data, _)| lines(data)).collect();
        let stays = lines(&device.read(&String::from_utf8(kept.document.join(&b'/')).unwrap()));
        self.lines.given_up.extend(gone.difference(&stays));
        format!("keep {} for {}", text(&chosen), text(&kept.document))
    }

    /// Power fails after everything was acknowledged.
    fn crash(&mut self, n: usize) -> String {
        if self.rng.below(4) > 0 || self.held.contains_key(&n) {
            return "nothing".to_owned();
        }
        self.world.devices[n].fs().fsync_dir().unwrap();
        drop(self.world.devices.remove(n));
        let again = Device(self.world.vault.open(n, options()).unwrap());
        self.world.devices.insert(n, again);
        "crash".to_owned()
    }

    fn check(&mut self, seed: u64) {
        for (n, held) in std::mem::take(&mut self.held) {
            self.world.devices[n].fs().release(held.handle).unwrap();
        }
        self.world.meet();
        self.world.meet();
        let trees: Vec<_> = self
            .world
            .devices
            .iter()
            .map(|d| sut::tree(d.fs()))
            .collect();
        let said = || self.log.join("\n");
        for (tree, inos) in &trees[1..] {
            let same = *tree == trees[0].0 && *inos == trees[0].1;
            let difference = sut::difference(&trees[0].0, tree);
            assert!(
                same,
                "SKRIN_SEED={seed}: trees differ\n{}\n{difference}",
                said()
            );
        }
        for device in &self.world.devices {
            let findings = check(&device.0.replica.tree(), true).unwrap();
            assert_eq!(findings, [], "SKRIN_SEED={seed}\n{}", said());
        }
        let there: BTreeSet<u32> = trees[0].0.values().flat_map(|s| lines(&s.data)).collect();
        let lost = self.lines.written.iter();
        let lost = lost.filter(|n| !there.contains(n) && !self.lines.given_up.contains(n));
        let lost: Vec<_> = lost.collect();
        assert!(
            lost.is_empty(),
            "SKRIN_SEED={seed}: lost {lost:?}\n{}",
            said()
        );
    }
}

/// `SKRIN_SEED` runs one world, `SKRIN_SEEDS` so many of them.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    match number("SKRIN_SEED") {
        Some(one) => one..one + 1,
        None => 0..number("SKRIN_SEEDS").unwrap_or(count),
    }
}

#[test]
fn no_line_is_lost_unless_somebody_who_saw_it_wrote_over_it_or_removed_it() {
    for seed in seeds(4) {
        let mut game = Game::new(seed);
        for _ in 0..8 {
            for _ in 0..12 {
                let n = game.rng.below(3) as usize;
                game.step(n);
                match game.rng.below(8) {
                    0 => game.world.devices[n].sync(),
                    1 => game.world.devices[n].poll(),
                    _ => {}
                }
            }
            game.check(seed);
        }
        game.world.end();
    }
}
