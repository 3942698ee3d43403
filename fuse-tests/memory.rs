//! What `--memory` bounds, beside the large file of `big_file`.

use std::fs::File;
use std::path::Path;

use crate::big_file::{KERNEL, MEMORY};
use crate::cgroup::{Anonymous, Cgroup, anonymous};
use crate::harness::{Mount, Run, Vault, wait_for};
use crate::storages::On;

/// Argon2id's floor (docs/format/keys.md).
const ARGON2: u64 = 256 << 20;
const PER_DIRECTORY: usize = 1000;

fn make_files(at: &Path, count: usize) {
    for number in 0..count {
        let dir = at.join(format!("d{}", number / PER_DIRECTORY));
        if number % PER_DIRECTORY == 0 {
            std::fs::create_dir(&dir).unwrap();
        }
        File::create(dir.join(format!("f{number}"))).unwrap();
    }
}

fn count_files(at: &Path) -> usize {
    let dirs = std::fs::read_dir(at).unwrap();
    dirs.map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap().count())
        .sum()
}

#[test]
fn two_hundred_thousand_changes_wait_for_the_storage_in_bounded_memory() {
    const FILES: usize = 200_000;
    let vault = Vault::new(On::Local);
    vault.mount("a").unmount();
    let group = Cgroup::new("pending", MEMORY + KERNEL);
    let mount = |options: &[&str]| {
        let point = vault.point("a");
        group
            .within(&vault.mount_command("a", &point, options))
            .output_ok();
        let mount = Mount::adopt(&vault, point);
        let held = Anonymous::watch(mount.pid());
        (mount, held)
    };
    let (offline, held) = mount(&["--offline"]);
    make_files(offline.path(), FILES);
    let pending = offline.status()["pending"]["operations"].as_u64().unwrap();
    assert!(pending >= FILES as u64, "{pending}");
    offline.unmount_with(&["--now"]);
    assert!(held.peak() <= MEMORY, "{} MiB", held.peak() >> 20);
    // Another device writes meanwhile, so that all of them go on top of that.
    let other = vault.mount("b");
    std::fs::create_dir(other.join("meanwhile")).unwrap();
    other.unmount();
    let (online, held) = mount(&[]);
    assert_eq!(count_files(online.path()), FILES);
    online.sync();
    assert_eq!(online.status()["pending"]["operations"].as_u64(), Some(0));
    assert!(held.peak() <= MEMORY, "{} MiB", held.peak() >> 20);
    online.unmount();
    assert_eq!(group.kills(), 0);
    let other = vault.mount("b");
    assert_eq!(count_files(other.path()), FILES);
    other.unmount();
}

#[test]
fn the_memory_that_a_passphrase_takes_is_given_back() {
    const SMALL: u64 = 64 << 20;
    let vault = Vault::new(On::Local);
    vault.mount("a").unmount();
    let group = Cgroup::new("passphrase", ARGON2 + SMALL);
    let point = vault.point("a");
    let mut command = vault.skrin(&["mount", &vault.address(), "--memory", "64MiB"]);
    command.arg(&point).arg("--state-dir").arg(vault.state("a"));
    group.within(&command).output_ok();
    let mount = Mount::adopt(&vault, point);
    assert!(mount.peak_memory() >= ARGON2);
    wait_for("the memory to be given back", || {
        anonymous(mount.pid()) <= SMALL
    });
    mount.unmount();
    assert_eq!(group.kills(), 0);
}
