//! One file under every operation that changes contents, with remounts in the middle, beside a model in memory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use rustix::fs::FallocateFlags;

use crate::harness::{Dice, Mount, Vault, command, wait_for};
use crate::storages::On;

/// No longer than this.
const LEN_MAX: usize = 1 << 20;
/// Of one write.
const PIECE_MAX: usize = 150_000;
/// Operations between two mounts.
const OPERATIONS: usize = 250;
const MOUNTS: usize = 8;

/// Some place in the file and a length.
fn place(dice: &mut Dice) -> (usize, usize) {
    let len = 1 + dice.below(PIECE_MAX);
    (dice.below(LEN_MAX - len), len)
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
    model.resize(model.len().max(to + done), 0);
    model[to..to + done].copy_from_slice(&piece);
}

/// Through a shared map, from another program, while the file is open here.
fn mapped(path: &Path, at: usize, bytes: &[u8]) {
    const MAP: &str = "import mmap, sys
path, at = sys.argv[1], int(sys.argv[2])
data = sys.stdin.buffer.read()
with open(path, 'r+b') as file, mmap.mmap(file.fileno(), 0) as map:
    map[at : at + len(data)] = data";
    let mut program = command("python3");
    program.args(["-c", MAP]).arg(path).arg(at.to_string());
    let mut program = program.stdin(Stdio::piped()).spawn().unwrap();
    program.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(program.wait().unwrap().success());
}

/// One operation, on the file and on the model.
fn step(dice: &mut Dice, file: &File, model: &mut Vec<u8>) {
    let (at, len) = place(dice);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let zero = |model: &mut Vec<u8>| {
        let end = (at + len).min(model.len());
        if at < end {
            model[at..end].fill(0);
        }
    };
    match dice.below(10) {
        0..4 => {
            let bytes = dice.bytes(len);
            file.write_all_at(&bytes, at as u64).unwrap();
            model.resize(model.len().max(at + len), 0);
            model[at..at + len].copy_from_slice(&bytes);
        }
        4 => {
            file.set_len(at as u64).unwrap();
            model.resize(at, 0);
        }
        5 => {
            rustix::fs::fallocate(file, punch, at as u64, len as u64).unwrap();
            zero(model);
        }
        6 => {
            rustix::fs::fallocate(file, FallocateFlags::ZERO_RANGE, at as u64, len as u64).unwrap();
            zero(model);
            model.resize(model.len().max(at + len), 0);
        }
        7 if model.len() > 2 * len => {
            let from = dice.below(model.len() - len);
            // Within one file the two must not overlap.
            if from + len <= at || at + len <= from {
                copied(file, (from, at, len), model);
            }
        }
        8 => file.sync_all().unwrap(),
        _ => {
            let end = (at + len).min(model.len());
            let mut found = vec![1; end.saturating_sub(at)];
            file.read_exact_at(&mut found, at as u64).unwrap();
            assert!(found == model[at.min(end)..end], "{at} to {end}");
        }
    }
}

fn life(dice: &mut Dice, path: &Path, model: &mut Vec<u8>) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    assert_eq!(file.metadata().unwrap().len(), model.len() as u64);
    for _ in 0..OPERATIONS {
        step(dice, &file, model);
    }
    let (at, len) = place(dice);
    let end = (at + len).min(model.len());
    if at < end {
        let bytes = dice.bytes(end - at);
        mapped(path, at, &bytes);
        model[at..end].copy_from_slice(&bytes);
    }
    drop(file);
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
