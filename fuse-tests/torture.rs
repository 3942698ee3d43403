//! One directory with very many entries that are made, renamed and removed by several threads while others list it.
//!
//! A million, which takes most of an hour:
//! `SKRIN_ENTRIES=1000000 SKRIN_MOUNT_SECONDS=7200 cargo test --release --test blackbox torture -- --nocapture`.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::big_file::{KERNEL, MEMORY};
use crate::cgroup::{Anonymous, Cgroup};
use crate::harness::{Mount, Run, Vault};
use crate::storages::On;

/// Entries unless `SKRIN_ENTRIES` says otherwise.
const ENTRIES: usize = 30_000;
/// Entries that nobody touches meanwhile: every listing shows each of them once.
const STEADY: usize = 500;
/// Between two listings, at least.
const LIST_EVERY: Duration = Duration::from_millis(500);
/// Threads that change the directory.
const WRITERS: usize = 2;
/// What a process has resident beside the memory that `--memory` bounds: pages of the program and of the files that it maps.
const MAPPED: u64 = 64 << 20;

/// Runs `act` on every number, by several threads.
fn by_all(count: usize, act: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for first in 0..WRITERS {
            let act = &act;
            scope.spawn(move || (first..count).step_by(WRITERS).for_each(act));
        }
    });
}

/// Every kind of entry that needs no device.
fn make(dir: &Path, number: usize) {
    let path = dir.join(format!("old-{number}"));
    match number % 20 {
        17 => std::fs::create_dir(path).unwrap(),
        18 => std::os::unix::fs::symlink("nowhere", path).unwrap(),
        19 => std::fs::write(path, number.to_string()).unwrap(),
        _ => drop(File::create_new(path).unwrap()),
    }
}

fn remove(dir: &Path, number: usize) {
    let path = dir.join(format!("new-{number}"));
    match number % 20 {
        17 => std::fs::remove_dir(path).unwrap(),
        _ => std::fs::remove_file(path).unwrap(),
    }
}

/// The names in a directory; none is shown twice.
fn names(dir: &Path) -> HashSet<String> {
    let mut names = HashSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!names.contains(&name), "{name} is listed twice");
        names.insert(name);
    }
    names
}

/// Lists the directory for as long as `act` takes, and at least once; how often.
fn listed_during(dir: &Path, act: impl FnOnce()) -> usize {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let lister = scope.spawn(|| {
            let mut count = 0;
            loop {
                let last = over.load(Ordering::Relaxed);
                let begun = Instant::now();
                let seen = names(dir);
                let took = begun.elapsed();
                let steady = (0..STEADY).filter(|n| seen.contains(&format!("steady-{n}")));
                assert_eq!(steady.count(), STEADY);
                count += 1;
                if last {
                    return count;
                }
                // A listing keeps all who change the directory waiting: the kernel has one lock for both.
                std::thread::sleep(LIST_EVERY.max(3 * took));
            }
        });
        // Also where the writers fail, so that the lister ends and the test with it.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let end = Over(&over);
        act();
        drop(end);
        lister.join().unwrap()
    })
}

fn assert_all(dir: &Path, prefix: &str, count: usize) {
    let there = names(dir);
    assert_eq!(there.len(), count + STEADY);
    for number in 0..count {
        let name = format!("{prefix}-{number}");
        assert!(there.contains(&name), "{name} is missing");
    }
}

#[test]
fn a_huge_directory_is_changed_while_it_is_listed_in_bounded_memory() {
    let entries = std::env::var("SKRIN_ENTRIES").map_or(ENTRIES, |n| n.parse().unwrap());
    let vault = Vault::new(On::Local);
    let group = Cgroup::new("torture", MEMORY + KERNEL);
    let mount = |device: &str| {
        let point = vault.point(device);
        group
            .within(&vault.mount_command(device, &point, &[]))
            .output_ok();
        let mount = Mount::adopt(&vault, point);
        let held = Anonymous::watch(mount.pid());
        (mount, held)
    };
    let bounded = |mount: &Mount<'_>, held: Anonymous| {
        let peak = mount.peak_memory();
        println!("resident: {} MiB at most", peak >> 20);
        assert!(peak <= MEMORY + MAPPED, "{} MiB", peak >> 20);
        assert!(held.peak() <= MEMORY, "{} MiB", held.peak() >> 20);
    };
    let begun = Instant::now();
    let done = |what: &str, listings: usize| {
        println!("{what} after {:.1?}, {listings} listings", begun.elapsed());
    };

    let (first, held) = mount("a");
    let dir = first.join("many");
    std::fs::create_dir(&dir).unwrap();
    for number in 0..STEADY {
        File::create(dir.join(format!("steady-{number}"))).unwrap();
    }
    let listings = listed_during(&dir, || by_all(entries, |number| make(&dir, number)));
    assert_all(&dir, "old", entries);
    done("made", listings);
    let rename = |number: usize| {
        let name = |prefix: &str| dir.join(format!("{prefix}-{number}"));
        std::fs::rename(name("old"), name("new")).unwrap();
    };
    let listings = listed_during(&dir, || by_all(entries, rename));
    assert_all(&dir, "new", entries);
    done("renamed", listings);
    bounded(&first, held);
    first.unmount();

    // Another device has all of it, and removes all of it.
    let (other, held) = mount("b");
    let dir = other.join("many");
    assert_all(&dir, "new", entries);
    done("on another device", 1);
    let listings = listed_during(&dir, || by_all(entries, |number| remove(&dir, number)));
    assert_all(&dir, "new", 0);
    done("removed", listings);
    std::fs::remove_dir_all(&dir).unwrap();
    bounded(&other, held);
    other.unmount();
    assert_eq!(group.kills(), 0);

    let (back, held) = mount("a");
    assert_eq!(std::fs::read_dir(back.path()).unwrap().count(), 0);
    bounded(&back, held);
    back.unmount();
    done("all done", 0);
}
