//! One file under every operation that changes contents, with remounts in the middle, beside a model in memory: all that fsx does, and
//! `FALLOC_FL_ZERO_RANGE`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, sendfile};

use crate::harness::{Dice, Mount, Vault, command, wait_for};
use crate::storages::On;

/// No longer than this.
const LEN_MAX: usize = 1 << 20;
/// Of one write.
const PIECE_MAX: usize = 150_000;
/// Operations between two mounts.
const OPERATIONS: usize = 300;
const MOUNTS: usize = 8;

/// Some place in the file and a length.
fn place(dice: &mut Dice) -> (usize, usize) {
    let len = 1 + dice.below(PIECE_MAX);
    (dice.below(LEN_MAX - len), len)
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).unwrap()
}

/// What the model becomes when `bytes` are written.
fn put(model: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    model.resize(model.len().max(at + bytes.len()), 0);
    model[at..at + bytes.len()].copy_from_slice(bytes);
}

fn copied(file: &File, (from, to, len): (usize, usize, usize), model: &mut Vec<u8>) {
    let mut done = 0;
    // It may copy less than it was asked for.
    while done < len {
        let (mut from, mut to) = ((from + done) as u64, (to + done) as u64);
        let count =
            rustix::fs::copy_file_range(file, Some(&mut from), file, Some(&mut to), len - done);
        match count.unwrap() {
            0 => break,
            count => done += count,
        }
    }
    let piece = model[from..from + done].to_vec();
    put(model, to, &piece);
}

/// What sendfile tells.
fn sent(file: &File, at: usize, len: usize) -> Vec<u8> {
    let (out, mut back) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut offset, end) = (at as u64, (at + len) as u64);
            while offset < end {
                let rest = (end - offset) as usize;
                let count = sendfile(&out, file, Some(&mut offset), rest).unwrap();
                assert!(count > 0, "the file ends at {offset}");
            }
        });
        let mut found = Vec::new();
        back.read_to_end(&mut found).unwrap();
        found
    })
}

/// Of each line a verb, a place and a length; then what is to be stored. It answers with what a map shows there when that is done, and looks
/// that the last page of the file has zeros behind its end.
const MAPS: &str = "import ctypes, mmap, os, sys
path, PAGE, SHARED, READ_WRITE = sys.argv[1], mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
MS_INVALIDATE, MS_SYNC = 2, 4
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
libc.munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
libc.msync.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
while line := sys.stdin.buffer.readline():
    verb, at, size = line.split()
    at, size = int(at), int(size)
    first = at - at % PAGE
    span = at + size - first
    with open(path, 'r+b') as file:
        end = os.fstat(file.fileno()).st_size - first
        base = libc.mmap(None, span, READ_WRITE, SHARED, file.fileno(), first)
    assert base != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
    if verb in (b'store', b'sync'):
        ctypes.memmove(base + at - first, sys.stdin.buffer.read(size), size)
    flags = {b'sync': MS_SYNC, b'invalidate': MS_INVALIDATE}.get(verb)
    assert flags is None or libc.msync(base, span, flags) == 0, os.strerror(ctypes.get_errno())
    shown = ctypes.string_at(base + at - first, size)
    # The map ends with a whole page.
    if end <= -(-span // PAGE) * PAGE:
        assert not any(ctypes.string_at(base + end, -end % PAGE)), 'behind the end'
    assert libc.munmap(base, span) == 0
    sys.stdout.buffer.write(shown)
    sys.stdout.buffer.flush()";

/// Another program that maps the file, while it is open here.
struct Mapper(Child);

impl Mapper {
    fn start(path: &Path) -> Self {
        let mut program = command("/usr/bin/python3");
        program.args(["-c", MAPS]).arg(path);
        let program = program.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(program.spawn().unwrap())
    }

    /// Expects that it shows `bytes`, which it stores first if the verb says so.
    fn shows(&mut self, verb: &str, at: usize, bytes: &[u8]) {
        let program = self.0.stdin.as_mut().unwrap();
        writeln!(program, "{verb} {at} {}", bytes.len()).unwrap();
        if ["store", "sync"].contains(&verb) {
            program.write_all(bytes).unwrap();
        }
        let mut shown = vec![0; bytes.len()];
        let program = self.0.stdout.as_mut().unwrap();
        program.read_exact(&mut shown).unwrap();
        assert!(shown == bytes, "mapped, {verb}: {at} and {}", bytes.len());
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// One operation, on the file and on the model.
fn step(dice: &mut Dice, file: &File, mapper: &mut Mapper, model: &mut Vec<u8>) {
    let (at, len) = place(dice);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // As much of it as there is.
    let end = (at + len).min(model.len());
    let there = at.min(end)..end;
    match dice.below(22) {
        0..6 => {
            let bytes = dice.bytes(len);
            file.write_all_at(&bytes, at as u64).unwrap();
            put(model, at, &bytes);
        }
        6 | 7 => {
            file.set_len(at as u64).unwrap();
            model.resize(at, 0);
        }
        8 => {
            fallocate(file, punch, at as u64, len as u64).unwrap();
            model[there].fill(0);
        }
        9 => {
            fallocate(file, FallocateFlags::ZERO_RANGE, at as u64, len as u64).unwrap();
            put(model, at, &vec![0; len]);
        }
        10 => {
            fallocate(file, FallocateFlags::empty(), at as u64, len as u64).unwrap();
            model.resize(model.len().max(at + len), 0);
        }
        11 | 12 => {
            let from = dice.below(model.len());
            // Within one file the two must not overlap.
            let len = len.min(model.len() - from).min(from.abs_diff(at));
            copied(file, (from, at, len), model);
        }
        13 => file.sync_all().unwrap(),
        14 => file.sync_data().unwrap(),
        15 => {
            let all = [
                Advice::Normal,
                Advice::Sequential,
                Advice::Random,
                Advice::NoReuse,
                Advice::WillNeed,
                Advice::DontNeed,
            ];
            let advice = all[dice.below(all.len())];
            fadvise(file, at as u64, NonZeroU64::new(len as u64), advice).unwrap();
        }
        16 => assert!(sent(file, there.start, there.len()) == model[there]),
        17 | 18 => {
            let bytes = dice.bytes(len);
            // A map reaches to the end of the file.
            if model.len() < at + len {
                file.set_len((at + len) as u64).unwrap();
            }
            put(model, at, &bytes);
            mapper.shows(["store", "sync"][dice.below(2)], at, &bytes);
        }
        19 if !there.is_empty() => {
            mapper.shows(["read", "invalidate"][dice.below(2)], at, &model[there]);
        }
        _ => {
            let mut found = vec![1; there.len()];
            file.read_exact_at(&mut found, there.start as u64).unwrap();
            assert!(found == model[there], "{at} to {end}");
        }
    }
    assert_eq!(file.metadata().unwrap().len(), model.len() as u64);
}

fn life(dice: &mut Dice, path: &Path, model: &mut Vec<u8>) {
    let mut file = open(path);
    let mut mapper = Mapper::start(path);
    assert_eq!(file.metadata().unwrap().len(), model.len() as u64);
    for _ in 0..OPERATIONS {
        if dice.below(20) == 0 {
            drop(file);
            file = open(path);
        }
        step(dice, &file, &mut mapper, model);
    }
    let (at, len) = place(dice);
    let end = (at + len).min(model.len());
    if at < end {
        let bytes = dice.bytes(end - at);
        mapper.shows("store", at, &bytes);
        put(model, at, &bytes);
    }
    drop(file);
    mapper.end();
    assert!(std::fs::read(path).unwrap() == *model);
}

fn one_file_under_random_operations_and_remounts_is_what_a_model_says(on: On) {
    let vault = Vault::new(on);
    for seed in 0..2 {
        let (mut dice, mut model) = (Dice(77 + seed), Vec::new());
        for number in 0..MOUNTS {
            let mount = vault.mount("a");
            let path = mount.join(format!("file-{seed}"));
            if number > 0 {
                assert!(
                    std::fs::read(&path).unwrap() == model,
                    "after remount {number}"
                );
            }
            life(&mut dice, &path, &mut model);
            // Every other time what is not uploaded stays in the journal.
            let how: &[&str] = if number % 2 == 0 { &[] } else { &["--now"] };
            Mount::unmount_with(mount, how);
        }
        let other = vault.mount("b");
        other.sync();
        let mount = vault.mount("a");
        mount.sync();
        mount.unmount();
        wait_for("the last of it", || {
            std::fs::read(other.join(format!("file-{seed}"))).is_ok_and(|there| there == model)
        });
        other.unmount();
    }
    vault.verify_clean();
}

crate::on_every_storage! { one_file_under_random_operations_and_remounts_is_what_a_model_says; }
