//! The file system through the kernel. These tests mount: they need /dev/fuse and root, as CI has.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

#[path = "mounted/caches.rs"]
mod caches;
#[path = "support/harness.rs"]
mod harness;

use harness::{Device, Mounted, mount_device, options};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, SeekFrom as RawSeek, XattrFlags};
use skrin_base::{Clock, Timestamp};
use skrin_fs::testutil::TestVault;
use skrin_fs::{Caller, FsOptions, Kind, NodeId, NodeSpec};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tempfile::TempDir;

fn pattern(len: usize, salt: u64) -> Vec<u8> {
    let mut x = salt | 1;
    let next = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(next).collect()
}

fn errno(e: &io::Error) -> i32 {
    e.raw_os_error().unwrap_or(0)
}

/// Waits for what a look at the storage in the background brings; when that is, is a matter of the machine.
#[track_caller]
fn wait_until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A clock that a test turns.
#[derive(Default)]
struct Hand(AtomicU64);

impl Hand {
    fn turn(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(1_790_000_000_000_000_000 + self.monotonic() as i64)
    }
    fn monotonic(&self) -> u64 {
        self.0.fetch_add(1000, Ordering::SeqCst)
    }
}

/// Two devices whose poll interval is over when the test says so: what one of them sees of the other, its `open` has looked for.
struct ByHand {
    first: Device,
    second: Device,
    clock: Arc<Hand>,
    // Dropped after the devices.
    _vault: TestVault,
    _storage: TempDir,
}

impl ByHand {
    /// Longer than any test.
    const INTERVAL: Duration = Duration::from_secs(3600);
    /// An `open` waits for a look for so long, then it goes on with what is known.
    const PATIENCE: Duration = Duration::from_secs(2);

    fn new(seed: u64) -> Self {
        let (storage, clock) = (tempfile::tempdir().unwrap(), Arc::new(Hand::default()));
        let mut vault = TestVault::in_folder(seed, &storage.path().join("vault")).unwrap();
        vault.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let options = || FsOptions {
            poll_interval: Some(Self::INTERVAL),
            ..options()
        };
        Self {
            first: mount_device(&vault, 0, options()),
            second: mount_device(&vault, 1, options()),
            clock,
            _vault: vault,
            _storage: storage,
        }
    }

    /// What the first device has is published, and the second one knows of it: no `open` looks for a name that the kernel does not find.
    fn exchange(&self) {
        self.first.opened.fs.sync(|_| ()).unwrap();
        self.second.opened.fs.poll().unwrap();
    }

    /// What `from` has closed is published, and an interval later `to` opens it.
    fn open_later(&self, from: &Device, to: &Device, name: &str) -> File {
        from.opened.fs.sync(|_| ()).unwrap();
        let begun = Instant::now();
        loop {
            self.clock.turn(Self::INTERVAL);
            // While a look goes on that was not waited for to its end, nobody waits.
            wait_until(|| to.opened.fs.is_outdated());
            let asked = Instant::now();
            let file = File::open(to.path(name)).unwrap();
            // One look has to do, but where a busy machine took too long for it.
            if asked.elapsed() < Self::PATIENCE {
                return file;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "no look ends");
        }
    }

    fn read_later(&self, from: &Device, to: &Device, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut file = self.open_later(from, to, name);
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

#[test]
fn what_is_written_is_read_back_also_after_a_remount() {
    let mut m = Mounted::new(1);
    let big = pattern(5_000_000, 3);
    fs::write(m.path("small"), b"hello").unwrap();
    fs::write(m.path("big"), &big).unwrap();
    fs::create_dir(m.path("dir")).unwrap();
    symlink("../small", m.path("dir/link")).unwrap();
    let ino = fs::metadata(m.path("big")).unwrap().ino();
    for round in 0..3 {
        assert_eq!(
            fs::read(m.path("small")).unwrap(),
            b"hello",
            "round {round}"
        );
        assert!(fs::read(m.path("big")).unwrap() == big, "round {round}");
        assert_eq!(fs::read(m.path("dir/link")).unwrap(), b"hello");
        assert_eq!(fs::metadata(m.path("big")).unwrap().ino(), ino);
        match round {
            0 => m.remount(),
            _ => m.remount_without_local_state(),
        }
    }
}

#[test]
fn random_writes_truncations_and_reads_are_those_of_a_plain_file() {
    let mut m = Mounted::new(2);
    let plain = tempfile::tempdir().unwrap();
    let model = plain.path().join("file");
    let mut x = 12345u64;
    let mut next = move |n: u64| {
        x = x
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (x >> 33) % n
    };
    for round in 0..4 {
        // The mount point changes with each mount.
        let paths = [m.path("file"), model.clone()];
        let open = |p| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(p)
                .unwrap()
        };
        let files: Vec<File> = paths.iter().map(open).collect();
        for _ in 0..40 {
            let (kind, offset, len) = (next(10), next(400_000), next(150_000) as usize + 1);
            let data = pattern(len, offset);
            for f in &files {
                match kind {
                    0..=5 => f.write_all_at(&data, offset).unwrap(),
                    6 | 7 => f.set_len(offset).unwrap(),
                    8 => f.sync_all().unwrap(),
                    _ => {
                        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                        rustix::fs::fallocate(f, mode, offset, len as u64).unwrap();
                    }
                }
            }
            let read: Vec<Vec<u8>> = paths.iter().map(|p| fs::read(p).unwrap()).collect();
            assert!(
                read[0] == read[1],
                "round {round}, kind {kind} at {offset} of {len}"
            );
        }
        drop(files);
        match round % 2 {
            0 => m.remount(),
            _ => m.remount_without_local_state(),
        }
        assert!(
            fs::read(m.path("file")).unwrap() == fs::read(&model).unwrap(),
            "after round {round}"
        );
    }
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let m = Mounted::new(3);
    let data = pattern(300_000, 9);
    fs::write(m.path("a"), &data).unwrap();
    let mut f = OpenOptions::new()
        .read(true)
        .write(true)
        .open(m.path("a"))
        .unwrap();
    fs::remove_file(m.path("a")).unwrap();
    assert_eq!(f.metadata().unwrap().nlink(), 0);
    f.seek(SeekFrom::End(0)).unwrap();
    f.write_all(b"more").unwrap();
    f.sync_all().unwrap();
    f.seek(SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    f.read_to_end(&mut all).unwrap();
    assert!(all[..300_000] == data && &all[300_000..] == b"more");
    f.set_len(10).unwrap();
    assert_eq!(f.metadata().unwrap().len(), 10);
    f.set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    drop(f);
    assert_eq!(fs::read_dir(m.path("")).unwrap().count(), 0);
}

#[test]
fn rename_over_open_file_keeps_old_content_readable() {
    let m = Mounted::new(4);
    fs::write(m.path("old"), b"old contents").unwrap();
    fs::write(m.path("new"), b"new").unwrap();
    let mut open = File::open(m.path("old")).unwrap();
    fs::rename(m.path("new"), m.path("old")).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old contents");
    assert_eq!(fs::read(m.path("old")).unwrap(), b"new");
}

#[test]
fn renames_follow_posix() {
    let m = Mounted::new(5);
    fs::create_dir_all(m.path("d/e")).unwrap();
    fs::write(m.path("f"), b"f").unwrap();
    fs::write(m.path("g"), b"g").unwrap();
    let rename = |a: &str, b: &str| fs::rename(m.path(a), m.path(b)).map_err(|e| errno(&e));
    let with =
        |a: &str, b: &str, flags| rustix::fs::renameat_with(CWD, m.path(a), CWD, m.path(b), flags);
    assert_eq!(rename("d", "d/e/x"), Err(libc::EINVAL));
    assert_eq!(rename("d", "f"), Err(libc::ENOTDIR));
    assert_eq!(rename("f", "d"), Err(libc::EISDIR));
    fs::create_dir(m.path("full")).unwrap();
    fs::write(m.path("full/x"), b"").unwrap();
    assert_eq!(rename("d", "full"), Err(libc::ENOTEMPTY));
    assert_eq!(
        with("f", "g", RenameFlags::NOREPLACE),
        Err(rustix::io::Errno::EXIST)
    );
    with("f", "g", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(m.path("f")).unwrap(), b"g");
    with("d", "f", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(m.path("d")).unwrap(), b"g");
    assert!(m.path("f/e").is_dir());
    fs::hard_link(m.path("g"), m.path("h")).unwrap();
    rename("g", "h").unwrap();
    assert!(
        m.path("g").exists() && m.path("h").exists(),
        "two names of one inode both stay"
    );
    assert_eq!(fs::metadata(m.path("g")).unwrap().nlink(), 2);
}

#[test]
fn a_directory_of_five_thousand_is_listed_once_each_also_while_it_shrinks() {
    let m = Mounted::new(6);
    let dir = m.path("large");
    fs::create_dir(&dir).unwrap();
    for n in 0..5000 {
        File::create(dir.join(format!("file-{n}"))).unwrap();
    }
    let listed: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    let unique: BTreeSet<_> = listed.iter().collect();
    assert_eq!((listed.len(), unique.len()), (5000, 5000));
    let removed = fs::read_dir(&dir)
        .unwrap()
        .map(|e| fs::remove_file(e.unwrap().path()).unwrap())
        .count();
    assert_eq!(removed, 5000);
    fs::remove_dir(&dir).unwrap();
}

#[test]
fn names_of_255_bytes_and_any_bytes_are_kept_and_longer_ones_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let m = Mounted::new(7);
    let long = "x".repeat(255);
    fs::write(m.path(&long), b"1").unwrap();
    assert_eq!(fs::read(m.path(&long)).unwrap(), b"1");
    let longer = fs::write(m.path(&"x".repeat(256)), b"1").unwrap_err();
    assert_eq!(errno(&longer), libc::ENAMETOOLONG);
    let odd = m.path("").join(OsStr::from_bytes(b"\xff\xfe new\nline"));
    fs::write(&odd, b"2").unwrap();
    assert_eq!(fs::read(&odd).unwrap(), b"2");
}

#[test]
fn modes_owners_and_times_to_the_nanosecond_survive() {
    let mut m = Mounted::new(8);
    fs::write(m.path("f"), b"x").unwrap();
    fs::set_permissions(m.path("f"), fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(m.path("f"), Some(1234), Some(5678)).unwrap();
    let (atime, mtime) = (
        UNIX_EPOCH + Duration::new(1, 2),
        UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789),
    );
    let times = fs::FileTimes::new().set_accessed(atime).set_modified(mtime);
    File::options()
        .write(true)
        .open(m.path("f"))
        .unwrap()
        .set_times(times)
        .unwrap();
    for _ in 0..2 {
        let meta = fs::metadata(m.path("f")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 5678));
        assert_eq!(meta.mode() & 0o777, 0o751);
        assert_eq!(meta.modified().unwrap(), mtime);
        assert_eq!(meta.accessed().unwrap(), atime);
        m.remount_without_local_state();
    }
}

#[test]
fn a_file_without_write_back_of_its_times_gets_those_of_the_write() {
    let m = Mounted::new(9);
    fs::write(m.path("f"), b"x").unwrap();
    let before = fs::metadata(m.path("f")).unwrap().modified().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let mut f = OpenOptions::new().append(true).open(m.path("f")).unwrap();
    f.write_all(b"y").unwrap();
    drop(f);
    let after = fs::metadata(m.path("f")).unwrap().modified().unwrap();
    assert!(after > before);
    assert_eq!(fs::read(m.path("f")).unwrap(), b"xy");
}

#[test]
fn exclusive_creation_append_and_truncation_work() {
    let m = Mounted::new(10);
    let exclusive = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(m.path("x"))
    };
    exclusive().unwrap().write_all(b"0123456789").unwrap();
    assert_eq!(errno(&exclusive().unwrap_err()), libc::EEXIST);
    let mut a = OpenOptions::new().append(true).open(m.path("x")).unwrap();
    let mut b = OpenOptions::new().append(true).open(m.path("x")).unwrap();
    a.write_all(b"A").unwrap();
    b.write_all(b"B").unwrap();
    a.write_all(b"C").unwrap();
    assert_eq!(fs::read(m.path("x")).unwrap(), b"0123456789ABC");
    File::create(m.path("x")).unwrap();
    assert_eq!(fs::metadata(m.path("x")).unwrap().len(), 0);
}

#[test]
fn extended_attributes_are_kept_by_namespace() {
    let m = Mounted::new(11);
    fs::write(m.path("f"), b"").unwrap();
    let set =
        |name: &str, value: &[u8], flags| rustix::fs::setxattr(m.path("f"), name, value, flags);
    set("user.a", b"1", XattrFlags::empty()).unwrap();
    assert_eq!(
        set("user.a", b"2", XattrFlags::CREATE),
        Err(rustix::io::Errno::EXIST)
    );
    assert_eq!(
        set("user.b", b"2", XattrFlags::REPLACE),
        Err(rustix::io::Errno::NODATA)
    );
    set("trusted.t", &[7; 5000], XattrFlags::empty()).unwrap();
    let mut value = vec![0; 6000];
    let n = rustix::fs::getxattr(m.path("f"), "trusted.t", value.as_mut_slice()).unwrap();
    assert_eq!(&value[..n], &[7; 5000]);
    let mut list = vec![0; 100];
    let n = rustix::fs::listxattr(m.path("f"), list.as_mut_slice()).unwrap();
    assert_eq!(&list[..n], b"trusted.t\0user.a\0");
    rustix::fs::removexattr(m.path("f"), "user.a").unwrap();
    let gone = rustix::fs::getxattr(m.path("f"), "user.a", value.as_mut_slice());
    assert_eq!(gone, Err(rustix::io::Errno::NODATA));
    let acl = rustix::fs::getxattr(m.path("f"), "system.posix_acl_access", value.as_mut_slice());
    assert_eq!(acl, Err(rustix::io::Errno::NODATA));
    let other = set("system.other", b"x", XattrFlags::empty());
    assert_eq!(other, Err(rustix::io::Errno::OPNOTSUPP));
}

#[test]
fn special_files_and_set_gid_directories_are_made() {
    use rustix::fs::{FileType, Mode, mknodat};
    let m = Mounted::new(12);
    mknodat(
        CWD,
        m.path("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    let dev = rustix::fs::makedev(1, 3);
    mknodat(
        CWD,
        m.path("null"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o600),
        dev,
    )
    .unwrap();
    let meta = fs::metadata(m.path("null")).unwrap();
    assert_eq!(meta.rdev(), dev);
    assert_eq!(
        fs::metadata(m.path("fifo")).unwrap().mode() & libc::S_IFMT,
        libc::S_IFIFO
    );
    fs::create_dir(m.path("d")).unwrap();
    std::os::unix::fs::chown(m.path("d"), None, Some(42)).unwrap();
    fs::set_permissions(m.path("d"), fs::Permissions::from_mode(0o2775)).unwrap();
    fs::create_dir(m.path("d/sub")).unwrap();
    let sub = fs::metadata(m.path("d/sub")).unwrap();
    assert_eq!((sub.gid(), sub.mode() & 0o2000), (42, 0o2000));
}

#[test]
fn holes_are_found_and_copies_share_blocks() {
    let m = Mounted::new(13);
    let f = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(m.path("sparse"))
        .unwrap();
    f.write_all_at(&[1; 65536], 10 << 20).unwrap();
    f.set_len(20 << 20).unwrap();
    f.sync_all().unwrap();
    assert_eq!(rustix::fs::seek(&f, RawSeek::Data(0)).unwrap(), 10 << 20);
    assert_eq!(
        rustix::fs::seek(&f, RawSeek::Hole(10 << 20)).unwrap(),
        (10 << 20) + 65536
    );
    let data = pattern(3_000_123, 77);
    fs::write(m.path("a"), &data).unwrap();
    let before = m.device().opened.data.pending().bytes;
    fs::copy(m.path("a"), m.path("b")).unwrap();
    assert!(fs::read(m.path("b")).unwrap() == data);
    let after = m.device().opened.data.pending().bytes;
    assert!(after < before + 200_000, "{before} {after}");
}

#[test]
fn a_mapped_file_is_written() {
    // std has no mmap; python does.
    let m = Mounted::new(14);
    fs::write(m.path("f"), vec![b'.'; 200_000]).unwrap();
    let program = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[100000:100005]=b'hello'\nm.flush()\nm.close()\n";
    let status = std::process::Command::new("python3")
        .arg("-c")
        .arg(program)
        .arg(m.path("f"))
        .status()
        .unwrap();
    assert!(status.success());
    let read = fs::read(m.path("f")).unwrap();
    assert_eq!(&read[99_999..100_006], b".hello.");
}

#[test]
fn a_second_device_sees_changes_within_the_poll_interval_also_of_a_cached_file() {
    // At the first open after an interval, and not only at some time.
    let pair = ByHand::new(15);
    let (m, other) = (&pair.first, &pair.second);
    fs::write(m.path("shared"), b"one").unwrap();
    pair.exchange();
    assert_eq!(fs::read(other.path("shared")).unwrap(), b"one");
    let ino = fs::metadata(m.path("shared")).unwrap().ino();
    assert_eq!(fs::metadata(other.path("shared")).unwrap().ino(), ino);
    // Longer, shorter, and the same length again; while it is held open for reading too.
    for text in [&b"a much longer text"[..], b"2", b"3"] {
        let held = File::open(other.path("shared")).unwrap();
        fs::write(m.path("shared"), text).unwrap();
        assert_eq!(pair.read_later(m, other, "shared"), text);
        let meta = fs::metadata(other.path("shared")).unwrap();
        assert_eq!((meta.len(), meta.ino()), (text.len() as u64, ino));
        drop(held);
    }
    fs::write(other.path("shared"), b"from the other").unwrap();
    let back = pair.read_later(other, m, "shared");
    assert_eq!(back, b"from the other");

    // Names, which no open asks for, by the looks in the background.
    let m = Mounted::new(15);
    let other = m.second();
    fs::write(m.path("shared"), b"one").unwrap();
    m.device().opened.fs.sync(|_| ()).unwrap();
    wait_until(|| fs::read(other.path("shared")).is_ok_and(|text| text == b"one"));
    fs::remove_file(other.path("shared")).unwrap();
    other.opened.fs.sync(|_| ()).unwrap();
    wait_until(|| !m.path("shared").exists());
    fs::create_dir(m.path("new-dir")).unwrap();
    m.device().opened.fs.sync(|_| ()).unwrap();
    wait_until(|| other.path("new-dir").exists());
}

#[test]
fn a_listing_that_the_kernel_keeps_is_made_anew_when_this_or_another_device_changes_the_directory()
{
    let m = Mounted::new(21);
    let other = m.passive_second();
    let names = |dir: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|&n| n.into()).collect() };
    fs::create_dir_all(m.path("dir/inner")).unwrap();
    fs::write(m.path("dir/old"), b"").unwrap();
    // What the first device has is on the storage; then the second one takes it in and tells its kernel.
    let exchange = |from: &Device, to: &Device| {
        from.opened.fs.sync(|_| ()).unwrap();
        to.opened.fs.poll().unwrap();
    };
    exchange(m.device(), &other);
    for _ in 0..2 {
        assert_eq!(names(other.path("dir")), set(&["inner", "old"]));
    }

    // A name that the other kernel never asked for, so that only the listing can tell of it.
    fs::write(m.path("dir/new"), b"").unwrap();
    exchange(m.device(), &other);
    assert_eq!(names(other.path("dir")), set(&["inner", "new", "old"]));
    fs::rename(m.path("dir/old"), m.path("dir/inner/moved")).unwrap();
    fs::remove_file(m.path("dir/new")).unwrap();
    exchange(m.device(), &other);
    assert_eq!(names(other.path("dir")), set(&["inner"]));
    assert_eq!(names(other.path("dir/inner")), set(&["moved"]));

    // Changes of its own.
    fs::write(other.path("dir/own"), b"").unwrap();
    assert_eq!(names(other.path("dir")), set(&["inner", "own"]));
    fs::rename(other.path("dir/own"), other.path("dir/renamed")).unwrap();
    assert_eq!(names(other.path("dir")), set(&["inner", "renamed"]));
    fs::remove_file(other.path("dir/renamed")).unwrap();
    fs::remove_file(other.path("dir/inner/moved")).unwrap();
    assert_eq!(names(other.path("dir/inner")), set(&[]));
    assert_eq!(names(other.path("dir")), set(&["inner"]));

    // Made behind the kernel's back and not told: that it is missing shows that nobody was asked. (A listing from us changes the time of
    // access as the kernel sees it, so that the next one fetches the attributes.) Where memory is short the kernel keeps no listing for long.
    let spec = NodeSpec {
        kind: Kind::File,
        mode: 0o644,
        rdev: 0,
    };
    let caller = Caller {
        uid: 0,
        gid: 0,
        pid: 1,
        umask: 0,
    };
    let fs = &other.opened.fs;
    let dir = fs.lookup(NodeId::ROOT, b"dir").unwrap().node;
    let mut all = set(&["inner"]);
    let is_kept = |attempt: usize| {
        for _ in 0..3 {
            assert_eq!(names(other.path("dir")), all);
        }
        let name = format!("behind-{attempt}");
        fs.mknod(dir, name.as_bytes(), spec, &caller).unwrap();
        let kept = names(other.path("dir")) == all;
        all.insert(name);
        kept
    };
    assert!((0..10).any(is_kept));
    fs::write(other.path("dir/before"), b"").unwrap();
    all.insert("before".to_owned());
    assert_eq!(names(other.path("dir")), all);
}

#[test]
fn a_handle_that_is_open_while_another_device_writes_keeps_its_branch() {
    let m = Mounted::new(16);
    let other = m.second();
    fs::write(m.path("doc"), b"first").unwrap();
    m.device().opened.fs.sync(|_| ()).unwrap();
    wait_until(|| fs::read(other.path("doc")).is_ok_and(|text| text == b"first"));
    let mut held = OpenOptions::new()
        .read(true)
        .write(true)
        .open(m.path("doc"))
        .unwrap();
    fs::write(other.path("doc"), b"second, from the other device").unwrap();
    wait_until(|| fs::read(m.path("doc")).unwrap().starts_with(b"second"));
    let mut mine = String::new();
    held.read_to_string(&mut mine).unwrap();
    assert_eq!(mine, "first");
    held.write_all(b" and mine").unwrap();
    drop(held);
    let names = || -> Vec<String> {
        let all = fs::read_dir(m.path("")).unwrap();
        all.map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    wait_until(|| names().len() == 2);
    let copy = names().into_iter().find(|n| n != "doc").unwrap();
    assert!(copy.starts_with("doc (conflict, "), "{copy}");
    assert_eq!(fs::read(m.path(&copy)).unwrap(), b"first and mine");
    assert_eq!(
        fs::read(m.path("doc")).unwrap(),
        b"second, from the other device"
    );
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    let mut m = Mounted::new(17);
    fs::write(m.path("f"), b"x").unwrap();
    m.remount_read_only();
    assert_eq!(fs::read(m.path("f")).unwrap(), b"x");
    let all = [
        fs::write(m.path("f"), b"y"),
        fs::create_dir(m.path("d")),
        fs::remove_file(m.path("f")),
        fs::rename(m.path("f"), m.path("g")),
        fs::set_permissions(m.path("f"), fs::Permissions::from_mode(0o600)),
    ];
    for e in all {
        assert_eq!(errno(&e.unwrap_err()), libc::EROFS);
    }
}

#[test]
fn unmounting_a_busy_mount_is_refused_and_it_goes_on() {
    let mut m = Mounted::new(18);
    let held = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(m.path("f"))
        .unwrap();
    assert!(matches!(m.unmount(), Err(skrin_fuse::MountError::Busy(_))));
    fs::write(m.path("g"), b"still there").unwrap();
    drop(held);
    m.unmount().unwrap();
}

#[test]
fn other_users_are_held_to_the_permissions() {
    let m = Mounted::new(19);
    fs::set_permissions(m.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(m.path("private"), b"x").unwrap();
    fs::set_permissions(m.path("private"), fs::Permissions::from_mode(0o600)).unwrap();
    // The mount point lies in a private directory: go there as root, then become nobody.
    let run = |command: &str| {
        let out = std::process::Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "sh",
                "-c",
                command,
            ])
            .current_dir(m.path(""))
            .output()
            .unwrap();
        out.status.success()
    };
    assert!(run("ls"));
    assert!(!run("cat private"));
    assert!(!run("touch new"));
    fs::set_permissions(m.path(""), fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(run("touch new"));
    assert!(!run("rm -f private"), "the sticky bit keeps it");
    assert_eq!(fs::metadata(m.path("new")).unwrap().uid(), 65534);
}

#[test]
fn many_threads_on_two_devices_neither_hang_nor_lose_what_they_wrote() {
    let m = Mounted::new(20);
    let other = m.second();
    let roots = [m.path(""), other.path("")];
    let until = Instant::now() + Duration::from_secs(6);
    std::thread::scope(|scope| {
        for n in 0..6usize {
            let root = &roots[n % 2];
            scope.spawn(move || {
                let own = root.join(format!("thread-{n}"));
                fs::create_dir(&own).unwrap();
                let mut round = 0u64;
                while Instant::now() < until {
                    round += 1;
                    let data = pattern(1 + (round as usize * 7919) % 200_000, round);
                    let (draft, file) =
                        (own.join("draft"), own.join(format!("file-{}", round % 5)));
                    fs::write(&draft, &data).unwrap();
                    fs::rename(&draft, &file).unwrap();
                    assert!(fs::read(&file).unwrap() == data);
                    // All of them at the same names: whatever comes of it, nobody hangs.
                    let shared = root.join(format!("shared-{}", round % 3));
                    drop(fs::write(&shared, &data));
                    drop(fs::rename(&shared, root.join("moved")));
                    drop(fs::read_dir(root).map(Iterator::count));
                    drop(fs::remove_file(root.join("moved")));
                }
            });
        }
    });
    for device in [m.device(), &other, m.device(), &other] {
        device.opened.fs.sync(|_| ()).unwrap();
        device.opened.fs.poll().unwrap();
    }
    for n in 0..6 {
        let of = |root: &std::path::Path| -> Vec<Vec<u8>> {
            let names = (0..5).map(|f| root.join(format!("thread-{n}/file-{f}")));
            names.map(|p| fs::read(p).unwrap_or_default()).collect()
        };
        assert!(of(&roots[0]) == of(&roots[1]), "thread {n}");
    }
}

#[test]
fn holes_are_not_looked_for_where_the_kernel_has_data_that_it_has_not_told_yet() {
    let m = Mounted::new(40);
    let mut f = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(m.path("f"))
        .unwrap();
    f.write_all(&pattern(1_000_000, 5)).unwrap();
    f.write_all_at(b"far", 10 << 20).unwrap();
    // Others copy what the writer still has open.
    let reader = File::open(m.path("f")).unwrap();
    let seek = |what| rustix::fs::seek(&reader, what).unwrap();
    assert_eq!(seek(RawSeek::Data(0)), 0);
    assert_eq!(seek(RawSeek::Hole(0)), 16 * 65536);
    assert_eq!(seek(RawSeek::Data(2_000_000)), 10 << 20);
    f.write_all_at(b"between", 5 << 20).unwrap();
    assert_eq!(seek(RawSeek::Data(2_000_000)), 5 << 20);
}

#[test]
fn stat_tells_what_is_stored_of_a_sparse_file() {
    let mut m = Mounted::new(41);
    let f = File::create_new(m.path("sparse")).unwrap();
    f.set_len(1 << 30).unwrap();
    f.write_all_at(&[1; 65536], 10 << 20).unwrap();
    drop(f);
    fs::write(m.path("full"), pattern(1_000_000, 6)).unwrap();
    fs::write(m.path("small"), b"abc").unwrap();
    for _ in 0..2 {
        let blocks = |name: &str| fs::metadata(m.path(name)).unwrap().blocks();
        assert_eq!(blocks("sparse"), 65536 / 512);
        assert_eq!(blocks("full"), 1_000_000_u64.div_ceil(512));
        assert_eq!(blocks("small"), 1);
        m.remount();
    }
    let status = std::process::Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .args([m.path("sparse"), m.path("copy")])
        .status();
    assert!(status.unwrap().success());
    assert_eq!(fs::metadata(m.path("copy")).unwrap().blocks(), 65536 / 512);
}

#[test]
fn a_time_that_no_clock_has_is_the_nearest_that_is_kept_and_the_mount_goes_on() {
    let mut m = Mounted::new(12);
    fs::write(m.path("f"), b"x").unwrap();
    for seconds in [i64::MIN, i64::MIN + 1, i64::MAX] {
        let at = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        let times = rustix::fs::Timestamps {
            last_access: at,
            last_modification: at,
        };
        let path = m.path("f");
        rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        fs::write(m.path("g"), b"and goes on").unwrap();
        assert_eq!(fs::read(m.path("g")).unwrap(), b"and goes on");
        // The kernel itself shows what was asked for until it asks us.
        m.remount();
        let mtime = fs::metadata(m.path("f")).unwrap().mtime();
        let nearest = seconds.clamp(i64::MIN / 1_000_000_000 - 1, i64::MAX / 1_000_000_000);
        assert!(mtime == nearest || mtime == nearest + 1, "{mtime}");
    }
}

#[test]
fn times_before_1970_keep_their_nanoseconds() {
    let mut m = Mounted::new(42);
    let name = "f";
    File::create(m.path(name)).unwrap();
    fs::create_dir(m.path("d")).unwrap();
    let at = |seconds, nanos| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    // 5.5 s and one nanosecond before.
    let times = rustix::fs::Timestamps {
        last_access: at(-6, 500_000_000),
        last_modification: at(-1, 999_999_999),
    };
    for name in ["f", "d"] {
        rustix::fs::utimensat(CWD, m.path(name), &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    for _ in 0..2 {
        for name in ["f", "d"] {
            let meta = fs::metadata(m.path(name)).unwrap();
            assert_eq!((meta.atime(), meta.atime_nsec()), (-6, 500_000_000));
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (-1, 999_999_999));
        }
        m.remount();
    }
}

#[test]
fn what_is_open_without_a_name_has_attributes_until_it_is_closed() {
    use rustix::fs::{FileType, Mode, OFlags, fstat, futimens, mknodat, open};
    let m = Mounted::new(43);
    fs::create_dir(m.path("dir")).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, m.path("fifo"), FileType::Fifo, mode, 0).unwrap();
    fs::write(m.path("file"), b"x").unwrap();
    let names = ["dir", "fifo", "file"];
    let open = |(name, flags)| open(m.path(name), flags, Mode::empty()).unwrap();
    let flags = [
        OFlags::RDONLY,
        OFlags::RDONLY | OFlags::NONBLOCK,
        OFlags::PATH,
    ];
    let all: Vec<_> = names.into_iter().zip(flags).map(open).collect();
    let before: Vec<_> = all.iter().map(|fd| fstat(fd).unwrap()).collect();
    fs::remove_dir(m.path("dir")).unwrap();
    fs::remove_file(m.path("fifo")).unwrap();
    fs::remove_file(m.path("file")).unwrap();
    for (fd, before) in all.iter().zip(before) {
        let now = fstat(fd).unwrap();
        assert_eq!(now.st_nlink, 0);
        assert_eq!((now.st_ino, now.st_mode), (before.st_ino, before.st_mode));
    }
    let time = rustix::fs::Timespec {
        tv_sec: 5,
        tv_nsec: 6,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    futimens(&all[0], &times).unwrap();
    assert_eq!(fstat(&all[0]).unwrap().st_mtime, 5);
    // Nothing of it comes back.
    assert_eq!(fs::read_dir(m.path("")).unwrap().count(), 0);
}

#[test]
fn removing_files_whose_times_the_kernel_has_not_told_is_no_error_of_writing() {
    let m = Mounted::new(44);
    let root = File::open(m.path("")).unwrap();
    for number in 0..50 {
        fs::write(m.path(&number.to_string()), b"x").unwrap();
    }
    for number in 0..50 {
        fs::remove_file(m.path(&number.to_string())).unwrap();
    }
    rustix::fs::syncfs(&root).unwrap();
}
