//! What open files, maps and the kernel's caches show, on one device and on another; docs/semantics.md has
//! a sentence for each test.

use crate::harness::{Device, Mounted, options};
use crate::{ByHand, wait_until};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Many blocks, and more than one request of the kernel.
const LEN: usize = 3 << 20;

/// A program that has a file open and mapped, and answers questions about it: std has no mmap, Python does.
struct Program {
    child: Child,
    says: BufReader<ChildStdout>,
    asked: Option<ChildStdin>,
}

impl Program {
    /// `m` is the map, `f` the descriptor.
    const TEXT: &str = "import mmap, os, sys
f = os.open(sys.argv[1], os.O_RDWR if sys.argv[2] == 'write' else os.O_RDONLY)
m = mmap.mmap(f, 0, mmap.MAP_SHARED, mmap.PROT_READ | (mmap.PROT_WRITE if sys.argv[2] == 'write' else 0))
print('ready', flush=True)
for line in sys.stdin: print(eval(line), flush=True)
";

    fn map(file: &Path, how: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", Self::TEXT])
            .arg(file)
            .arg(how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut program = Self {
            says: BufReader::new(child.stdout.take().unwrap()),
            asked: child.stdin.take(),
            child,
        };
        assert_eq!(program.line(), "ready");
        program
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What an expression is.
    fn ask(&mut self, expression: &str) -> String {
        writeln!(self.asked.as_mut().unwrap(), "{expression}").unwrap();
        self.line()
    }

    /// Every value that a byte of the map has, and its length.
    fn values(&mut self) -> String {
        self.ask("sorted(set(m[:])), len(m)")
    }

    fn end(mut self) {
        drop(self.asked.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The contents of a generation: nothing else has this byte.
fn contents(generation: u8, len: usize) -> Vec<u8> {
    vec![generation; len]
}

/// Which generation this is, all of it.
fn generation(bytes: &[u8]) -> u8 {
    let values: BTreeSet<u8> = bytes.iter().copied().collect();
    assert_eq!(values.len(), 1, "a mixture of {values:?}");
    bytes[0]
}

/// What a device has closed is on the storage.
fn publish(from: &Device) {
    from.opened.fs.sync(|_| ()).unwrap();
}

/// Whether a device shows this as the contents of the file.
fn shows(device: &Device, expected: &[u8]) -> bool {
    fs::read(device.path("f")).is_ok_and(|back| back == expected)
}

fn read_all(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The kernel forgets the pages of a file, so that the next read asks us.
fn forget_pages(file: &File) {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn maps_and_descriptors_of_one_mount_show_the_same_at_once() {
    let mut m = Mounted::new(31);
    fs::write(m.path("f"), contents(1, LEN)).unwrap();
    let mut writer = Program::map(&m.path("f"), "write");
    let mut reader = Program::map(&m.path("f"), "read");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(m.path("f"))
        .unwrap();
    let direct = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(m.path("f"))
        .unwrap();
    for (round, at) in [0, 65_533, 1 << 20, LEN - 5].into_iter().enumerate() {
        let written = format!("map{round}");
        writer.ask(&format!(
            "m.__setitem__(slice({at}, {at} + 4), b'{written}')"
        ));
        let mut seen = [0; 4];
        file.read_exact_at(&mut seen, at as u64).unwrap();
        assert_eq!(seen, *written.as_bytes(), "mapped, then read");
        let slice = format!("m[{at}:{at} + 4]");
        assert_eq!(reader.ask(&slice), format!("b'{written}'"));
        let written = format!("fd-{round}");
        file.write_all_at(written.as_bytes(), at as u64).unwrap();
        assert_eq!(reader.ask(&slice), format!("b'{written}'"));
        assert_eq!(writer.ask(&slice), format!("b'{written}'"));
        let written = format!("dio{round}");
        direct.write_all_at(written.as_bytes(), at as u64).unwrap();
        assert_eq!(reader.ask(&slice), format!("b'{written}'"));
        writer.ask(&format!(
            "m.__setitem__(slice({at}, {at} + 4), b'{round}map')"
        ));
        direct.read_exact_at(&mut seen, at as u64).unwrap();
        assert_eq!(
            seen,
            *format!("{round}map").as_bytes(),
            "mapped, then read past the cache"
        );
    }
    writer.end();
    reader.end();
    let before = fs::read(m.path("f")).unwrap();
    drop((file, direct));
    m.remount();
    assert!(fs::read(m.path("f")).unwrap() == before, "after a remount");
}

#[test]
fn who_opens_a_file_anew_sees_what_another_device_wrote_and_who_has_it_open_or_mapped_keeps_his() {
    let pair = ByHand::new(32);
    let (m, other) = (&pair.first, &pair.second);
    fs::write(m.path("f"), contents(1, LEN)).unwrap();
    pair.exchange();
    let held = File::open(other.path("f")).unwrap();
    let mut mapped = Program::map(&other.path("f"), "read");
    // Only half of it is in the kernel's cache when it changes.
    assert_eq!(generation(&read_all(&held, LEN / 2)), 1);
    // Longer, shorter, empty, and the same length again.
    for (now, len) in [(2, LEN + 70_000), (3, 100_000), (4, 0), (5, LEN)] {
        fs::write(m.path("f"), contents(now, len)).unwrap();
        let back = pair.read_later(m, other, "f");
        assert_eq!(back.len(), len);
        if len > 0 {
            assert_eq!(generation(&back), now);
            let mut fresh = Program::map(&other.path("f"), "read");
            assert_eq!(fresh.values(), format!("([{now}], {len})"));
        }
        // From the kernel's pages, and from ours when it has none.
        for _ in 0..2 {
            assert_eq!(generation(&read_all(&held, LEN)), 1);
            assert_eq!(mapped.values(), format!("([1], {LEN})"));
            forget_pages(&held);
        }
        assert_eq!(held.metadata().unwrap().len(), LEN as u64);
        let named = fs::metadata(other.path("f")).unwrap();
        assert_eq!(named.len(), len as u64);
        assert_eq!(named.ino(), held.metadata().unwrap().ino());
    }
}

#[test]
fn attributes_that_another_device_sets_are_seen_through_an_open_descriptor() {
    let m = Mounted::new(33);
    let other = m.second();
    fs::write(m.path("f"), "contents").unwrap();
    publish(m.device());
    wait_until(|| shows(&other, b"contents"));
    let held = File::open(other.path("f")).unwrap();
    for mode in [0o600, 0o751] {
        fs::set_permissions(m.path("f"), Permissions::from_mode(mode)).unwrap();
        publish(m.device());
        wait_until(|| held.metadata().unwrap().mode() & 0o7777 == mode);
    }
}

#[test]
fn no_read_is_a_mixture_while_another_device_writes_the_file_again_and_again() {
    const ROUNDS: u32 = 16;
    // A busy machine gives the readers few turns, so that the writer goes on for them.
    const PATIENCE: Duration = Duration::from_secs(300);
    let m = Mounted::new(34);
    let other = m.second();
    fs::write(m.path("f"), contents(1, LEN)).unwrap();
    publish(m.device());
    wait_until(|| shows(&other, &contents(1, LEN)));
    let over = AtomicBool::new(false);
    let readers_go_on = || !over.load(Ordering::Relaxed);
    // How many generations each of the readers has seen.
    let [by_opens, by_maps, by_holds] = [const { AtomicUsize::new(0) }; 3];
    let is_seen = || {
        by_opens.load(Ordering::Relaxed) > 4
            && by_maps.load(Ordering::Relaxed) > 2
            && by_holds.load(Ordering::Relaxed) > 1
    };
    let mut last = 1;
    std::thread::scope(|scope| {
        let opens = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while readers_go_on() {
                let back = fs::read(other.path("f")).unwrap();
                assert_eq!(back.len(), LEN);
                seen.insert(generation(&back));
                by_opens.store(seen.len(), Ordering::Relaxed);
            }
            seen
        });
        let maps = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while readers_go_on() {
                let mut program = Program::map(&other.path("f"), "read");
                let first = program.values();
                assert!(first.ends_with(&format!("], {LEN})")), "{first}");
                assert!(!first[1..].contains(", ") || first.matches(", ").count() == 1);
                for _ in 0..3 {
                    assert_eq!(program.values(), first, "a map changed");
                }
                seen.insert(first);
                by_maps.store(seen.len(), Ordering::Relaxed);
            }
            seen
        });
        let holds = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while readers_go_on() {
                let held = File::open(other.path("f")).unwrap();
                let first = generation(&read_all(&held, 65_536));
                for round in 0..8 {
                    assert_eq!(generation(&read_all(&held, LEN)), first, "round {round}");
                    forget_pages(&held);
                    std::thread::sleep(options().poll_interval.unwrap() / 8);
                }
                seen.insert(first);
                by_holds.store(seen.len(), Ordering::Relaxed);
            }
            seen
        });
        let one_failed = || opens.is_finished() || maps.is_finished() || holds.is_finished();
        let begun = Instant::now();
        for round in 2.. {
            let is_enough = is_seen() || one_failed() || begun.elapsed() > PATIENCE;
            if round > ROUNDS && is_enough {
                break;
            }
            // Never zero, which holes have.
            last = ((round - 1) % 255 + 1) as u8;
            // In place, and by another file that takes its name.
            let file = match round % 2 {
                0 => OpenOptions::new().write(true).open(m.path("f")).unwrap(),
                _ => File::create(m.path("new")).unwrap(),
            };
            file.write_all_at(&contents(last, LEN), 0).unwrap();
            drop(file);
            if round % 2 == 1 {
                fs::rename(m.path("new"), m.path("f")).unwrap();
            }
            publish(m.device());
            std::thread::sleep(options().poll_interval.unwrap() * 2);
        }
        over.store(true, Ordering::Relaxed);
        let opened = opens.join().unwrap();
        assert!(opened.len() > 4, "{opened:?}");
        let (mapped, held) = (maps.join().unwrap(), holds.join().unwrap());
        assert!(mapped.len() > 2 && held.len() > 1, "{mapped:?} {held:?}");
    });
    wait_until(|| shows(&other, &contents(last, LEN)));
}

#[test]
fn what_is_written_through_a_map_of_old_contents_becomes_a_conflict_copy() {
    let m = Mounted::new(35);
    let other = m.second();
    fs::write(m.path("f"), contents(b'1', LEN)).unwrap();
    publish(m.device());
    wait_until(|| shows(&other, &contents(b'1', LEN)));
    let mut mapped = Program::map(&other.path("f"), "write");
    mapped.ask("m.__setitem__(slice(0, 3), b'abc')");
    fs::write(m.path("f"), contents(b'2', LEN)).unwrap();
    publish(m.device());
    wait_until(|| shows(&other, &contents(b'2', LEN)));
    mapped.ask("m.__setitem__(slice(2000000, 2000003), b'xyz')");
    assert_eq!(
        mapped.ask("m[0:4], m[1999999:2000004]"),
        "(b'abc1', b'1xyz1')"
    );
    mapped.end();
    other.opened.fs.sync(|_| ()).unwrap();
    let names = || -> BTreeSet<String> {
        let all = fs::read_dir(other.path("")).unwrap();
        all.map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    wait_until(|| names().len() == 2);
    let mut expected = contents(b'1', LEN);
    expected[..3].copy_from_slice(b"abc");
    expected[2_000_000..2_000_003].copy_from_slice(b"xyz");
    let names = names();
    let copy = names
        .iter()
        .find(|name| name.contains("(conflict, "))
        .unwrap();
    assert!(fs::read(other.path(copy)).unwrap() == expected);
    assert_eq!(generation(&fs::read(other.path("f")).unwrap()), b'2');
}
