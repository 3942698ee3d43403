//! `skrin export` without a mount.

use std::os::unix::fs::FileExt;

use crate::harness::{Dice, Run, Vault};
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

#[test]
fn what_the_target_cannot_take_is_named_and_the_rest_is_exported() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    for name in ["a", "z"] {
        std::fs::create_dir(mount.join(name)).unwrap();
        std::fs::write(mount.join(name).join("file"), name).unwrap();
    }
    let device = mount.join("a/device");
    let mut mknod = crate::harness::command("mknod");
    mknod.arg(&device).args(["c", "1", "3"]).output_ok();
    mount.unmount();
    // Who may not make devices.
    let dest = vault.path("export");
    let mut export = crate::harness::command("setpriv");
    export.args([
        "--bounding-set=-mknod",
        "--inh-caps=-mknod",
        crate::harness::SKRIN,
    ]);
    export.args(["export", &vault.address(), "--words-file"]);
    let (code, said) = export.arg(vault.words_file()).arg(&dest).code();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("a/device: cannot make it"), "{said}");
    assert!(said.contains("did not take 1 files"), "{said}");
    for name in ["a", "z"] {
        let file = dest.join(name).join("file");
        assert_eq!(std::fs::read_to_string(file).unwrap(), name);
    }
    assert!(!dest.join("a/device").exists());
}

/// A mebibyte is read at a time.
#[test]
fn of_a_file_with_bad_blocks_every_other_block_is_exported() {
    const BLOCK: usize = 65_536;
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let body = Dice(91).bytes(2_000_000);
    std::fs::write(mount.join("file"), &body).unwrap();
    mount.unmount();
    let objects = vault.storage.objects().into_iter();
    let segments = objects.filter(|(name, _)| name.starts_with("segments/"));
    let (segment, _) = segments.max_by_key(|(_, len)| *len).unwrap();
    // In two blocks that are no neighbours.
    let mut bytes = vault.storage.read(&segment);
    for slot in [1, 3] {
        bytes[16 + slot * (BLOCK + 28) + 500] ^= 1;
    }
    vault.storage.replace(&segment, &bytes);
    let dest = vault.path("export");
    let mut export = vault.skrin(&["export", &vault.address(), "--words-file"]);
    let (code, said) = export.arg(vault.words_file()).arg(&dest).code();
    assert_eq!(code, 5, "{said}");
    let back = std::fs::read(dest.join("file")).unwrap();
    assert_eq!(back.len(), body.len());
    let pairs = body.chunks(BLOCK).zip(back.chunks(BLOCK)).enumerate();
    let left_out: Vec<_> = pairs.filter(|(_, (was, is))| was != is).collect();
    assert_eq!(left_out.len(), 2, "{said}");
    for (n, (_, is)) in left_out {
        assert!(is.iter().all(|byte| *byte == 0), "block {n}");
        let told = format!("file: {} bytes from {} on: ", is.len(), n * BLOCK);
        assert!(said.contains(&told), "{told:?} is not in {said}");
    }
    assert!(said.contains("1 files are not whole"), "{said}");
}

crate::on_every_storage! { an_export_is_the_tree; }
