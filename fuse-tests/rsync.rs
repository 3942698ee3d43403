//! rsync, and the whole tree from nothing but the words.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{Run, Vault, command};
use crate::storages::On;
use crate::tree::{real_tree, small_tree};

/// Checks that `conformance/copies` makes.
const COPY_CHECKS: usize = 26;

/// Prints what rsync would still have to do; nothing at all where the copy is true.
pub(crate) fn compare(from: &Path, to: &Path) -> Command {
    let mut command = command("rsync");
    command.args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"]);
    command.arg(from.join("")).arg(to.join(""));
    command
}

/// What that prints.
pub(crate) fn differences(from: &Path, to: &Path) -> String {
    compare(from, to).output_ok()
}

/// Copies with everything that rsync can keep.
pub(crate) fn copy(from: &Path, to: &Path) {
    command("rsync")
        .args(["-aHAX", "--delete"])
        .arg(from.join(""))
        .arg(to.join(""))
        .output_ok();
}

/// Both trees hold the same.
pub(crate) fn assert_same(from: &Path, to: &Path) {
    assert_eq!(differences(from, to), "");
    command("diff")
        .args(["-r", "--no-dereference"])
        .arg(from)
        .arg(to)
        .output_ok();
}

fn a_real_tree_comes_back_from_the_words_alone(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    copy(real_tree(), mount.path());
    assert_eq!(differences(real_tree(), mount.path()), "");
    mount.unmount();
    std::fs::remove_dir_all(vault.state("a")).unwrap();
    let again = vault.mount("a");
    assert_same(real_tree(), again.path());
    again.unmount();
    vault.verify_clean();
}

fn what_copies_trees_keeps_everything_also_after_interruptions(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let checks = concat!(env!("CARGO_MANIFEST_DIR"), "/fuse-tests/conformance/copies");
    let said = command(checks)
        .arg(mount.path())
        .arg(vault.path("scratch"))
        .output_ok();
    let ok = said.lines().filter(|line| line.starts_with("ok "));
    assert_eq!(ok.count(), COPY_CHECKS, "{said}");
    mount.unmount();
    vault.verify_clean();
}

/// With options that change how rsync writes, over a remount between two runs, and seen from another device.
#[test]
fn a_backup_that_another_device_goes_on_with_transfers_only_what_is_new() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let first = mount.join("first");
    // Without lists: with --link-dest rsync forgets some of a directory, on any file system.
    let all = ["-aHXS", "--numeric-ids", "--itemize-changes"];
    let run = |options: &[&str], to: &Path| {
        let mut command = command("rsync");
        command.args(all).args(options).arg(small_tree().join(""));
        command.arg(to.join("")).output_ok()
    };
    run(&["--delay-updates"], &first);
    mount.unmount();
    let other = vault.mount("b");
    let first = other.join("first");
    assert_eq!(run(&["--delete"], &first), "");
    let second = other.join("second");
    let link_dest = format!("--link-dest={}", first.display());
    run(&["--inplace", &link_dest], &second);
    for name in ["odd/large", "odd/one block", "odd/sparse"] {
        let inode = |root: &Path| std::fs::metadata(root.join(name)).unwrap().ino();
        assert_eq!(inode(&first), inode(&second), "{name}");
    }
    other.unmount();
    let mount = vault.mount("a");
    for name in ["first", "second"] {
        assert_eq!(run(&["--delete", "--checksum"], &mount.join(name)), "");
    }
    mount.unmount();
    vault.verify_clean();
}

crate::on_every_storage! {
    a_real_tree_comes_back_from_the_words_alone;
    what_copies_trees_keeps_everything_also_after_interruptions;
}
