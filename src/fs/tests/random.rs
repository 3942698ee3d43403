//! Random programs against a reference model: the whole tree is compared after every step, across remounts, lost caches and
//! crashes. A failure names its seed; run it alone with SKRIN_SEED.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

#[path = "support/model.rs"]
mod model;
#[path = "support/program.rs"]
mod program;
#[path = "support/sut.rs"]
mod sut;

use model::Model;
use program::Program;
use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{FsOptions, Shutdown};

fn options() -> FsOptions {
    FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SKRIN_SEED") {
        Ok(one) => vec![one.parse().unwrap()],
        Err(_) => (0..count).collect(),
    }
}

/// Opens a device; a failure says which program led to it.
fn open(vault: &TestVault, device: usize, seed: u64, after: &str) -> Opened {
    let opened = vault.open(device, options());
    opened.unwrap_or_else(|e| {
        panic!("SKRIN_SEED={seed}: device {device} does not open after {after}: {e} ({e:?})")
    })
}

fn shut_down(at: &Opened, how: Shutdown, seed: u64, after: &str) {
    let ended = at.fs.shutdown(how);
    ended.unwrap_or_else(|e| panic!("SKRIN_SEED={seed}: no end after {after}: {e} ({e:?})"));
}

fn upload_all() -> Shutdown {
    Shutdown::UploadAll {
        progress: Box::new(|_| ()),
    }
}

fn delete_cache(vault: &TestVault, device: usize) {
    for name in ["meta.db", "meta.db-wal", "meta.db-shm"] {
        let path = vault.state_dir(device).join(name);
        assert!(!path.exists() || std::fs::remove_file(path).is_ok());
    }
}

fn check(p: &mut Program, at: &Opened, seed: u64, what: &str) {
    if let Err(difference) = p.compare(&at.fs) {
        panic!("SKRIN_SEED={seed}: after {what}:\n{difference}");
    }
}

#[test]
fn random_programs_do_what_posix_says_also_across_remounts() {
    for seed in seeds(12) {
        let vault = TestVault::in_memory(seed).unwrap();
        let mut p = Program::new(seed);
        let mut at = open(&vault, 0, seed, "nothing");
        for step in 0..150 {
            let what = format!("step {step}, {}", p.step(&at.fs));
            check(&mut p, &at, seed, &what);
            if p.below(40) > 0 {
                continue;
            }
            p.close_all(&at.fs);
            let inos = sut::tree(&at.fs).1;
            let how = p.below(3);
            let mode = match how {
                0 => Shutdown::LeaveInJournal,
                _ => upload_all(),
            };
            let what = format!("remount {how} after {what}");
            shut_down(&at, mode, seed, &what);
            drop(at);
            if how == 2 {
                delete_cache(&vault, 0);
            }
            at = open(&vault, 0, seed, &what);
            check(&mut p, &at, seed, &what);
            assert!(
                sut::tree(&at.fs).1 == inos,
                "SKRIN_SEED={seed}: inode numbers changed"
            );
        }
    }
}

/// What a crash may leave: the state after some step, not before the last promise.
struct History {
    states: Vec<Model>,
    floor: usize,
}

impl History {
    fn push(&mut self, model: &Model) {
        self.states.push(model.crashed());
    }

    fn promise(&mut self) {
        self.floor = self.states.len() - 1;
    }

    /// The latest state that looks like `tree`.
    fn find(&self, tree: &model::Tree) -> Option<Model> {
        let allowed = &self.states[self.floor..];
        allowed.iter().rev().find(|m| m.tree() == *tree).cloned()
    }
}

#[test]
fn a_crash_leaves_a_prefix_that_is_not_shorter_than_the_last_fsync() {
    for seed in seeds(16) {
        let vault = TestVault::in_memory(seed).unwrap();
        let mut p = Program::new(seed);
        let mut at = open(&vault, 0, seed, "nothing");
        let mut history = History {
            states: Vec::new(),
            floor: 0,
        };
        history.push(&p.model);
        for step in 0..160 {
            let what = format!("step {step}, {}", p.step(&at.fs));
            p.between.iter().for_each(|m| history.push(m));
            history.push(&p.model);
            match p.below(24) {
                0..=2 => {
                    if let Some(open) = p.open.first() {
                        at.fs.fsync(open.handle).unwrap();
                        p.model.tell(open.id);
                    } else {
                        at.fs.fsync_dir().unwrap();
                    }
                    history.push(&p.model);
                    history.promise();
                }
                3 => {
                    at.fs.sync(|_| ()).unwrap();
                    p.model.tell_all();
                    history.push(&p.model);
                    history.promise();
                }
                4 => at.replica.flush().unwrap(),
                5 => {
                    // Power fails: nothing is closed, nothing flushed.
                    p.open.clear();
                    drop(at);
                    if p.below(3) == 0 {
                        delete_cache(&vault, 0);
                    }
                    at = open(&vault, 0, seed, &format!("a crash after {what}"));
                    let tree = sut::tree(&at.fs).0;
                    let Some(model) = history.find(&tree) else {
                        let last = history.states.last().unwrap().tree();
                        let difference = sut::difference(&tree, &last);
                        panic!(
                            "SKRIN_SEED={seed}: crash after {what} left no state after the floor; to the last:\n{difference}"
                        );
                    };
                    p.model = model;
                    history = History {
                        states: Vec::new(),
                        floor: 0,
                    };
                    history.push(&p.model);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn two_devices_that_share_only_the_storage_converge() {
    for seed in seeds(8) {
        let vault = TestVault::in_memory(seed).unwrap();
        // The programs are checked against no model here: each sees what the other does.
        let devices = [0, 1].map(|n| open(&vault, n, seed, "nothing"));
        let random = Program::new(seed);
        for round in 0..12 {
            for (n, device) in devices.iter().enumerate() {
                for _ in 0..random.below(6) {
                    edit(&random, &device.fs, n);
                }
                if random.below(2) == 0 {
                    device.fs.sync(|_| ()).unwrap();
                }
                if random.below(2) == 0 {
                    device.fs.poll().unwrap();
                }
            }
            for device in devices.iter().chain(&devices) {
                device.fs.sync(|_| ()).unwrap();
                device.fs.poll().unwrap();
            }
            let (a, b) = (sut::tree(&devices[0].fs), sut::tree(&devices[1].fs));
            assert!(
                a.0 == b.0,
                "SKRIN_SEED={seed} round {round}:\n{}",
                sut::difference(&a.0, &b.0)
            );
            assert!(
                a.1 == b.1,
                "SKRIN_SEED={seed} round {round}: inode numbers differ"
            );
        }
        let (before, _) = sut::tree(&devices[0].fs);
        let [first, second] = devices;
        shut_down(&first, upload_all(), seed, "all rounds");
        shut_down(&second, upload_all(), seed, "all rounds");
        drop(first);
        delete_cache(&vault, 0);
        let again = open(&vault, 0, seed, "all rounds");
        let after = sut::tree(&again.fs).0;
        assert!(
            after == before,
            "SKRIN_SEED={seed}:\n{}",
            sut::difference(&after, &before)
        );
    }
}

/// One change by path, errors and all: what matters is that both devices end with the same tree.
fn edit(p: &Program, fs: &skrin_fs::Fs, device: usize) {
    let (tree, _) = sut::tree(fs);
    let dirs: Vec<_> = tree
        .iter()
        .filter(|(_, s)| s.kind == "dir")
        .map(|(path, _)| path.clone())
        .collect();
    let all: Vec<_> = tree
        .keys()
        .filter(|path| !path.is_empty())
        .cloned()
        .collect();
    let dir = sut::dir(fs, &dirs[p.below(dirs.len() as u64) as usize]).unwrap();
    let name = [&b"x"[..], b"y", b"z.txt"][p.below(3) as usize];
    let data = vec![device as u8 + b'0'; p.below(p.scale) as usize];
    match (p.below(8), all.is_empty()) {
        (0..=3, _) | (_, true) => {
            let how = skrin_fs::OpenMode {
                write: true,
                truncate: true,
            };
            if let Ok((_, handle)) = fs.create(dir, name, 0o600, false, how, &sut::CALLER) {
                fs.write(handle, p.below(1000), &data).unwrap();
                fs.release(handle).unwrap();
            }
        }
        (4, _) => drop(fs.mkdir(dir, name, 0o700, &sut::CALLER)),
        (kind, _) => {
            let mut path = all[p.below(all.len() as u64) as usize].clone();
            let last = path.pop().unwrap();
            let from = sut::dir(fs, &path).unwrap();
            let done = match kind {
                5 => fs.unlink(from, &last),
                6 => fs.rmdir(from, &last),
                _ => fs.rename(from, &last, dir, name, skrin_fs::RenameMode::Replace),
            };
            drop(done);
        }
    }
}
