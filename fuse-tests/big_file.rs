//! One file larger than the memory that the program may use.

use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::cgroup::{Anonymous, Cgroup};
use crate::harness::{Dice, Mount, Run, Vault, command};
use crate::rsync::{assert_same, copy};
use crate::storages::On;
use crate::tree::small_tree;

const LEN: u64 = 1 << 30;
/// The default of `--memory`.
pub(crate) const MEMORY: u64 = 256 << 20;
/// What the kernel charges a group beside the memory of the program: page tables, sockets, pages of files that are being written.
pub(crate) const KERNEL: u64 = 32 << 20;

fn hash(file: &Path) -> String {
    let line = command("sha256sum").arg(file).output_ok();
    // The name follows, and a backslash leads where it is odd.
    line.split(' ').next().unwrap().to_owned()
}

fn mount_in<'a>(vault: &'a Vault, group: &Cgroup) -> Mount<'a> {
    let point = vault.point("a");
    group
        .within(&vault.mount_command("a", &point, &[]))
        .output_ok();
    Mount::adopt(vault, point)
}

fn a_gigabyte_stays_the_same_in_bounded_memory(on: On) {
    let vault = Vault::new(on);
    let source = vault.path("random");
    let group = Cgroup::new(&format!("big-{}", on as u32), MEMORY + KERNEL);
    let mount = mount_in(&vault, &group);
    let held = Anonymous::watch(mount.pid());
    command("dd")
        .args(["if=/dev/urandom", "bs=1M", "count=1024", "status=none"])
        .arg(format!("of={}", source.display()))
        .output_ok();
    command("cp")
        .arg(&source)
        .arg(mount.join("big"))
        .output_ok();
    let expected = hash(&source);
    assert_eq!(hash(&mount.join("big")), expected);
    let tree = mount.join("tree");
    copy(small_tree(), &tree);
    assert_same(small_tree(), &tree);
    std::fs::remove_dir_all(&tree).unwrap();
    mount.sync();
    let peak = mount.peak_memory();
    assert!(peak <= MEMORY, "{} MiB of memory were used", peak >> 20);
    assert!(held.peak() <= MEMORY, "{} MiB", held.peak() >> 20);
    mount.unmount();
    assert_eq!(group.kills(), 0);
    std::fs::remove_dir_all(vault.state("a")).unwrap();

    let mount = mount_in(&vault, &group);
    assert_eq!(hash(&mount.join("big")), expected);
    let peak = mount.peak_memory();
    assert!(peak <= MEMORY, "{} MiB of memory were used", peak >> 20);

    let before = vault.storage.bytes();
    let change = Dice(9).bytes(4096);
    for path in [&source, &mount.join("big")] {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&change, LEN / 2).unwrap();
        file.sync_all().unwrap();
    }
    mount.sync();
    let grown = vault.storage.bytes() - before;
    assert!(grown < 1 << 20, "a change of 4 KiB uploaded {grown} bytes");
    let expected = hash(&source);
    mount.unmount();
    assert_eq!(group.kills(), 0);
    let mount = vault.mount("b");
    assert_eq!(hash(&mount.join("big")), expected);
    mount.unmount();
}

crate::on_every_storage! { a_gigabyte_stays_the_same_in_bounded_memory; }
