//! `skrin export` without a mount.

use std::os::unix::fs::FileExt;

use crate::harness::{Run, Vault};
use crate::rsync::{assert_same, copy};
use crate::storages::On;
use crate::tree::small_tree;

fn an_export_is_the_tree(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let (tree, sparse) = (mount.join("tree"), mount.join("sparse"));
    copy(small_tree(), &tree);
    let file = std::fs::File::create(&sparse).unwrap();
    file.set_len(500_000_000).unwrap();
    file.write_all_at(b"island", 300_000_000).unwrap();
    drop(file);
    mount.unmount();
    let dest = vault.path("export");
    vault
        .skrin(&["export", &vault.address(), "--words-file"])
        .arg(vault.words_file())
        .arg(&dest)
        .output_ok();
    assert_same(small_tree(), &dest.join("tree"));
    let blocks = |path: std::path::PathBuf| {
        std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap())
    };
    assert!(blocks(dest.join("sparse")) < 1000, "holes were filled");
    // A second export does not write over the first.
    let (code, error) = vault
        .skrin(&["export", &vault.address(), "--words-file"])
        .arg(vault.words_file())
        .arg(&dest)
        .code();
    assert_eq!(code, 6, "{error}");
}

crate::on_every_storage! { an_export_is_the_tree; }
