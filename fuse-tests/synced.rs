//! What each call of docs/durability.md, section 2, leaves when the process behind the mount is killed right after it; and what one
//! crashed state becomes under each option of the mount.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, removexattr, setxattr};

use crate::harness::{Dice, Run, Vault, command, is_alive, kill, wait_for};
use crate::mac_names::names;
use crate::storages::On;

/// When each of them returns, what was written is kept.
const PROMISING: [&str; 7] = [
    "O_SYNC",
    "O_DSYNC",
    "RWF_SYNC",
    "RWF_DSYNC",
    "fsync",
    "fdatasync",
    "msync",
];
/// None of these says that. The last one is followed by nothing.
const IDLE: [&str; 4] = ["sync_file_range", "write", "syncfs", "close"];

/// Of each line a call, a place, a length and a file; then what is to be written there. Files and maps stay open until the end: what
/// a `close` would put into the journal is not there for its sake.
const CALLS: &str = "import ctypes, mmap, os, sys
libc, held = ctypes.CDLL(None, use_errno=True), []
libc.sync_file_range.argtypes = ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint
def ok(said): assert said == 0, os.strerror(ctypes.get_errno())
OPENED = {'O_SYNC': os.O_SYNC, 'O_DSYNC': os.O_DSYNC}
WRITTEN = {'RWF_SYNC': os.RWF_SYNC, 'RWF_DSYNC': os.RWF_DSYNC}
THEN = {
    'fsync': os.fsync, 'fdatasync': os.fdatasync, 'close': os.close,
    'syncfs': lambda file: ok(libc.syncfs(file)),
    # As much as it can do: write, and wait before and after.
    'sync_file_range': lambda file: ok(libc.sync_file_range(file, 0, 0, 1 | 2 | 4)),
}
while line := sys.stdin.buffer.readline():
    call, at, size, path = line.decode().split()
    at, data = int(at), sys.stdin.buffer.read(int(size))
    end = at + len(data)
    file = os.open(path, os.O_RDWR | os.O_CREAT | OPENED.get(call, 0), 0o644)
    if call == 'msync':
        if os.fstat(file).st_size < end: os.ftruncate(file, end)
        pages = mmap.mmap(file, 0)
        pages[at:end] = data
        pages.flush()
        held.append(pages)
    else:
        assert os.pwritev(file, [data], at, WRITTEN.get(call, 0)) == len(data)
        THEN.get(call, lambda file: None)(file)
    print('done', flush=True)";

/// The program that makes the calls.
struct Caller(Child);

impl Caller {
    fn start() -> Self {
        let mut program = command("/usr/bin/python3");
        program.args(["-c", CALLS]);
        let program = program.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(program.spawn().unwrap())
    }

    /// Returns when the call has.
    fn does(&mut self, call: &str, path: &Path, at: usize, bytes: &[u8]) {
        let program = self.0.stdin.as_mut().unwrap();
        writeln!(program, "{call} {at} {} {}", bytes.len(), path.display()).unwrap();
        program.write_all(bytes).unwrap();
        let mut done = [0; 5];
        let program = self.0.stdout.as_mut().unwrap();
        let said = program.read_exact(&mut done);
        assert!(said.is_ok(), "{call} of {} failed", path.display());
    }

    /// Closes everything, on a mount that may be gone.
    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// Length of a file that is there before.
const STORED: usize = 200_000;
/// Where something is written in it: so little as calls without a promise write stays in one page.
const AT: usize = 70_001;

/// One call, on a file that is there before and on one that it makes.
struct Trial {
    call: &'static str,
    before: Vec<u8>,
    piece: Vec<u8>,
}

impl Trial {
    fn new(seed: u64, call: &'static str, piece: usize) -> Self {
        let mut dice = Dice(seed);
        Self {
            call,
            before: dice.bytes(STORED),
            piece: dice.bytes(piece),
        }
    }

    /// Both files, and where in them it writes.
    fn files(&self, root: &Path) -> [(PathBuf, usize); 2] {
        let file = |kind: &str| root.join(format!("{kind}-{}", self.call));
        [(file("stored"), AT), (file("made"), 0)]
    }

    fn prepare(&self, root: &Path) {
        let [(stored, _), _] = self.files(root);
        fs::write(stored, &self.before).unwrap();
    }

    fn after(&self) -> Vec<u8> {
        let mut after = self.before.clone();
        after[AT..AT + self.piece.len()].copy_from_slice(&self.piece);
        after
    }

    fn assert_kept(&self, root: &Path) {
        let [(stored, _), (made, _)] = self.files(root);
        let is = |path: &Path, bytes: &[u8]| fs::read(path).unwrap() == bytes;
        assert!(
            is(&stored, &self.after()),
            "{}: of a stored file",
            self.call
        );
        assert!(is(&made, &self.piece), "{}: of a new file", self.call);
    }

    /// All of it or nothing; of a new file the name or nothing.
    fn assert_whole(&self, root: &Path) {
        let [(stored, _), (made, _)] = self.files(root);
        let found = fs::read(stored).unwrap();
        let is_whole = found == self.before || found == self.after();
        assert!(is_whole, "{}: of a stored file", self.call);
        match fs::read(made) {
            Ok(found) => assert!(
                found.is_empty() || found == self.piece,
                "{}: of a new file",
                self.call
            ),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{}", self.call),
        }
    }
}

/// Everything that is tried on one mount.
struct Trials {
    promising: Vec<Trial>,
    idle: Vec<Trial>,
}

impl Trials {
    /// With everything that has to be there before, below `root`.
    fn prepare(root: &Path) -> Self {
        let trial = |(seed, call): (u64, &'static str), piece| Trial::new(seed, call, piece);
        let trials = Self {
            promising: (1..).zip(PROMISING).map(|of| trial(of, 50_000)).collect(),
            idle: (50..).zip(IDLE).map(|of| trial(of, 1000)).collect(),
        };
        for trial in trials.promising.iter().chain(&trials.idle) {
            trial.prepare(root);
        }
        fs::create_dir(root.join("names")).unwrap();
        for name in ["old", "gone", "document"] {
            fs::write(root.join("names").join(name), "before").unwrap();
        }
        sync_dir(root);
        trials
    }

    /// Before every call that says that it is kept `before` is called, and `after` behind it.
    fn run<T>(
        &self,
        caller: &mut Caller,
        root: &Path,
        before: impl Fn() -> T,
        after: impl Fn(&str, T),
    ) {
        for trial in &self.promising {
            for (path, at) in trial.files(root) {
                let seen = before();
                caller.does(trial.call, &path, at, &trial.piece);
                after(trial.call, seen);
            }
        }
        let seen = before();
        change_names(&root.join("names"));
        after("fsync of a directory", seen);
        for trial in &self.idle {
            for (path, at) in trial.files(root) {
                caller.does(trial.call, &path, at, &trial.piece);
            }
        }
    }

    fn check(&self, root: &Path) {
        for trial in &self.promising {
            trial.assert_kept(root);
        }
        for trial in &self.idle {
            trial.assert_whole(root);
        }
        let dir = root.join("names");
        assert_eq!(
            names(&dir),
            ["document", "link", "new", "renamed", "second"]
        );
        for (name, text) in [
            ("document", "saved"),
            ("renamed", "before"),
            ("second", "closed"),
            ("link", "closed"),
        ] {
            assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), text, "{name}");
        }
    }
}

fn sync_dir(dir: &Path) {
    File::open(dir).unwrap().sync_all().unwrap();
}

/// Names of every kind, with what was closed before.
fn change_names(dir: &Path) {
    fs::write(dir.join("new"), "closed").unwrap();
    fs::rename(dir.join("old"), dir.join("renamed")).unwrap();
    fs::remove_file(dir.join("gone")).unwrap();
    fs::write(dir.join("save"), "saved").unwrap();
    fs::rename(dir.join("save"), dir.join("document")).unwrap();
    fs::hard_link(dir.join("new"), dir.join("second")).unwrap();
    symlink("new", dir.join("link")).unwrap();
    sync_dir(dir);
}

#[test]
fn what_each_call_acknowledged_is_there_after_a_kill_from_the_journal_alone() {
    let vault = Vault::new(On::Local);
    vault.mount("a").unmount();
    let mount = vault.mount_with("a", &["--offline"]);
    let stored = vault.storage.objects();
    let trials = Trials::prepare(mount.path());
    let mut caller = Caller::start();
    trials.run(&mut caller, mount.path(), || (), |_, ()| ());
    mount.crash();
    caller.end();
    assert!(vault.storage.objects() == stored, "something was published");
    let mount = vault.mount("a");
    trials.check(mount.path());
    mount.unmount();
    vault.verify_clean();
}

#[test]
fn with_durability_remote_what_each_call_acknowledged_is_on_the_storage_for_another_device() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount_with("a", &["--durability", "remote"]);
    let trials = Trials::prepare(mount.path());
    mount.sync();
    let mut caller = Caller::start();
    // Each by itself, whatever the ones behind it wait for.
    let is_more = |call: &str, before: Vec<(String, u64)>| {
        let now = vault.storage.objects();
        assert!(now != before, "{call} returned before the storage had it");
    };
    let objects = || vault.storage.objects();
    trials.run(&mut caller, mount.path(), objects, is_more);
    mount.crash();
    caller.end();
    let other = vault.mount("b");
    trials.check(other.path());
    other.unmount();
}

/// By SIGTERM the mount keeps what it has and does not ask the kernel for more.
#[test]
fn sync_file_range_and_syncfs_hand_over_pages_of_files_that_stay_open_and_promise_no_more() {
    let vault = Vault::new(On::Local);
    for call in ["sync_file_range", "syncfs"] {
        let mount = vault.mount("a");
        let handed = Trial::new(3, call, 1000);
        let (earlier, later) = (Trial::new(4, "write", 1000), Trial::new(5, "close", 1000));
        let root = mount.join(call);
        fs::create_dir(&root).unwrap();
        for trial in [&handed, &earlier, &later] {
            trial.prepare(&root);
        }
        sync_dir(&root);
        let mut caller = Caller::start();
        let mut write = |call: &str, trial: &Trial| {
            let [(stored, at), _] = trial.files(&root);
            caller.does(call, &stored, at, &trial.piece);
        };
        write("write", &earlier);
        write(call, &handed);
        write("write", &later);
        // Of what the kernel had sent before, the mount has heard then.
        assert!(!root.join("not there").exists());
        kill(mount.pid(), "TERM");
        wait_for("the process to end", || !is_alive(mount.pid()));
        caller.end();
        drop(mount);

        let mount = vault.mount("a");
        let is_kept = |trial: &Trial| {
            let [(stored, _), _] = trial.files(&root);
            fs::read(stored).unwrap() == trial.after()
        };
        assert!(is_kept(&handed), "{call}: the pages of its range");
        assert!(
            call != "syncfs" || is_kept(&earlier),
            "pages of other files"
        );
        for trial in [&earlier, &later] {
            trial.assert_whole(&root);
        }
        mount.unmount();
    }
}

const ETIMEDOUT: i32 = 110;
/// Length of what only the storage has.
const FAR: usize = 300_000;
const EDITED: usize = 200_000;

/// Everything that a program can see of an entry, but for the times of its last change and of its last reading.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    modified: (i64, i64),
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    length: Option<u64>,
    /// Or why they cannot be read.
    contents: Option<Result<blake3::Hash, Option<i32>>>,
    target: Option<PathBuf>,
}

type Picture = BTreeMap<PathBuf, Shown>;

fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = [0_u8; 1024];
    let len = llistxattr(path, &mut list).unwrap();
    let names = list[..len].split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = [0_u8; 256];
        let len = lgetxattr(path, name, &mut value).unwrap();
        (name.to_vec(), value[..len].to_vec())
    };
    names.map(value).collect()
}

fn shown(path: &Path) -> Shown {
    let meta = path.symlink_metadata().unwrap();
    let read = || {
        let bytes = fs::read(path).map_err(|error| error.raw_os_error());
        bytes.map(|bytes| blake3::hash(&bytes))
    };
    Shown {
        inode: meta.ino(),
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        links: meta.nlink(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        attributes: attributes(path),
        length: meta.is_file().then_some(meta.len()),
        contents: meta.is_file().then(read),
        target: meta.is_symlink().then(|| fs::read_link(path).unwrap()),
    }
}

/// The whole tree; of the top itself nothing.
fn picture(root: &Path) -> Picture {
    let mut found = Picture::new();
    let mut rest = vec![root.to_owned()];
    while let Some(dir) = rest.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            found.insert(name, shown(&path));
            if entry.file_type().unwrap().is_dir() {
                rest.push(path);
            }
        }
    }
    found
}

fn assert_shown(now: &Picture, then: &Picture, what: &str) {
    for (path, shown) in then {
        assert_eq!(now.get(path), Some(shown), "{what}: {}", path.display());
    }
    let more: Vec<_> = now
        .keys()
        .filter(|path| !then.contains_key(*path))
        .collect();
    assert!(more.is_empty(), "{what}: {more:?}");
}

/// What only the storage has may be out of reach, if the error says so.
fn forgive_far(picture: &mut Picture, whole: &Picture) {
    let far = Path::new("kept/far");
    let shown = picture.get_mut(far).unwrap();
    if shown.contents == Some(Err(Some(ETIMEDOUT))) {
        shown.contents = whole[far].contents;
    }
}

/// But for what is edited last. Of files that were just written in place the kernel tells nobody the very time that it shows.
fn without_times(mut picture: Picture) -> Picture {
    picture.remove(Path::new("new/edited"));
    for shown in picture.values_mut() {
        shown.modified = (0, 0);
    }
    picture
}

/// What is on the storage before everything else.
fn publish(root: &Path) {
    for dir in ["kept/away", "kept/tree/below"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for (name, len) in [
        ("inline", 900),
        ("far", FAR),
        ("cut", 50_000),
        ("gone", 700),
        ("moved", 700),
        ("replaced", 700),
        ("away/file", 700),
        ("tree/below/file", 700),
    ] {
        let bytes = Dice(len as u64).bytes(len);
        fs::write(root.join("kept").join(name), bytes).unwrap();
    }
    let file = root.join("kept/inline");
    setxattr(&file, "user.note", b"goes", XattrFlags::empty()).unwrap();
}

/// Changes of every kind, all synced. What is returned is open and has no name.
fn change(root: &Path) -> File {
    let (kept, new) = (root.join("kept"), root.join("new"));
    fs::create_dir(&new).unwrap();
    for (name, len) in [
        ("empty", 0),
        ("small", 700),
        ("large", 500_000),
        ("edited", EDITED),
        ("without name", 100_000),
        ("save", 3000),
        ("._fork", 10),
        ("\u{fc}ber", 1),
        ("u\u{308}ber", 2),
    ] {
        let bytes = Dice(1 + len as u64).bytes(len);
        fs::write(new.join(name), bytes).unwrap();
    }
    fs::rename(kept.join("moved"), new.join("moved")).unwrap();
    fs::rename(kept.join("tree"), new.join("tree")).unwrap();
    fs::rename(new.join("save"), kept.join("replaced")).unwrap();
    fs::remove_file(kept.join("gone")).unwrap();
    fs::remove_dir_all(kept.join("away")).unwrap();
    fs::hard_link(new.join("large"), kept.join("second")).unwrap();
    symlink("large", new.join("link")).unwrap();
    command("mkfifo").arg(new.join("fifo")).output_ok();

    let mut inline = OpenOptions::new();
    let mut inline = inline.append(true).open(kept.join("inline")).unwrap();
    inline.write_all(b"more").unwrap();
    let cut = open(&kept.join("cut"));
    cut.set_len(0).unwrap();
    cut.sync_all().unwrap();
    let sparse = File::create(new.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 5_000_000).unwrap();
    drop((inline, cut, sparse));

    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    chown(new.join("small"), Some(1234), Some(4321)).unwrap();
    mode(&new.join("small"), 0o751);
    mode(&kept.join("far"), 0o640);
    mode(&new, 0o775);
    let flags = XattrFlags::empty();
    setxattr(kept.join("far"), "user.note", b"comes", flags).unwrap();
    setxattr(&new, "user.bytes", b"\0\xff", flags).unwrap();
    removexattr(kept.join("inline"), "user.note").unwrap();
    command("touch")
        .args(["-d", "2001-02-03 04:05:06.789012345 UTC"])
        .arg(new.join("large"))
        .output_ok();

    let without_name = open(&new.join("without name"));
    without_name.write_all_at(b"edited", AT as u64).unwrap();
    without_name.sync_all().unwrap();
    fs::remove_file(new.join("without name")).unwrap();
    sync_dir(root);
    without_name
}

fn open(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

/// Leaves what a kill leaves before anything is published, and a copy of it; what the mount showed before its last edit.
fn crashed(vault: &Vault) -> Picture {
    let mount = vault.mount("a");
    publish(mount.path());
    mount.unmount();
    let stored = vault.storage.objects();
    let mount = vault.mount_with("a", &["--offline"]);
    let without_name = change(mount.path());
    let live = picture(mount.path());
    // Last: a moment later it would be an operation, and here it is an edit that the journal notes.
    let edited = open(&mount.join("new/edited"));
    edited.write_all_at(b"edited", AT as u64).unwrap();
    edited.sync_data().unwrap();
    mount.crash();
    drop((edited, without_name));
    assert!(vault.storage.objects() == stored, "something was published");
    copy(&vault.state("a"), &vault.path("crashed-state"));
    copy(vault.storage.local(), &vault.path("crashed-storage"));
    live
}

/// Makes `to` what `from` is.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    command("cp").arg("-a").arg(from).arg(to).output_ok();
}

/// Puts back what the kill left, the storage too: a second copy of a state on the same storage would be another device.
fn restore(vault: &Vault) {
    copy(&vault.path("crashed-state"), &vault.state("a"));
    copy(&vault.path("crashed-storage"), vault.storage.local());
}

/// Those under which the tree has to be the very same.
const OPTIONS: [&[&str]; 6] = [
    &["--durability", "remote"],
    &["--memory", "64MiB", "--cache-size", "1MiB"],
    &["--mac-files", "local", "--unicode", "any"],
    &["--offline"],
    &["--read-only"],
    &["--read-only", "--offline"],
];

#[test]
fn what_a_kill_left_in_the_journal_is_one_and_the_same_tree_under_each_option_of_the_mount() {
    let vault = Vault::new(On::Local);
    let mut live = crashed(&vault);
    let stored = vault.storage.objects();

    let mount = vault.mount("a");
    let whole = picture(mount.path());
    forgive_far(&mut live, &whole);
    assert_shown(
        &without_times(whole.clone()),
        &without_times(live),
        "what was shown before the kill",
    );
    let mut edited = Dice(1 + EDITED as u64).bytes(EDITED);
    edited[AT..AT + 6].copy_from_slice(b"edited");
    let contents = |name: &str| whole[Path::new(name)].contents;
    assert_eq!(contents("new/edited"), Some(Ok(blake3::hash(&edited))));
    let far = Dice(FAR as u64).bytes(FAR);
    assert_eq!(contents("kept/far"), Some(Ok(blake3::hash(&far))));
    let set = (981_173_106, 789_012_345);
    assert_eq!(whole[Path::new("new/large")].modified, set);
    mount.unmount();
    let other = vault.mount("b");
    assert_shown(&picture(other.path()), &whole, "another device");
    other.unmount();

    for options in OPTIONS {
        restore(&vault);
        let mount = vault.mount_with("a", options);
        let mut now = picture(mount.path());
        if options.contains(&"--offline") {
            forgive_far(&mut now, &whole);
        }
        assert_shown(&now, &whole, &options.join(" "));
        mount.crash();
        if options.contains(&"--offline") || options.contains(&"--read-only") {
            assert!(vault.storage.objects() == stored, "{options:?} put objects");
        }
    }
    // Who only read has left it to the next one.
    let mount = vault.mount("a");
    assert_shown(&picture(mount.path()), &whole, "after a read-only mount");
    mount.crash();

    restore(&vault);
    let owned = ["--uid", "1001", "--gid", "1002", "--umask", "027"];
    let mount = vault.mount_with("a", &owned);
    let mut mapped = whole;
    for shown in mapped.values_mut() {
        shown.owner = (1001, 1002);
        if shown.target.is_none() {
            shown.mode &= !0o027;
        }
    }
    assert_shown(&picture(mount.path()), &mapped, "with an owner of its own");
    mount.unmount();
    vault.verify_clean();
}
