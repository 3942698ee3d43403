//! rsync, and the whole tree from nothing but the words.

use std::path::Path;

use crate::harness::{Run, Vault, command};
use crate::storages::On;
use crate::tree::real_tree;

/// What rsync would still have to do; nothing at all where the copy is true.
pub(crate) fn differences(from: &Path, to: &Path) -> String {
    let mut command = command("rsync");
    command.args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"]);
    command.arg(from.join("")).arg(to.join("")).output_ok()
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

crate::on_every_storage! { a_real_tree_comes_back_from_the_words_alone; }
