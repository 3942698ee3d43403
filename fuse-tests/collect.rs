//! `skrin gc` and `skrin retention`: space is given back while the vault is mounted.

use std::time::Duration;

use crate::harness::{Dice, Mount, Run, Vault};
use crate::storages::On;

fn json(vault: &Vault, mount: &Mount<'_>, args: &[&str]) -> serde_json::Value {
    let output = vault
        .skrin(args)
        .arg(mount.path())
        .arg("--json")
        .output_ok();
    serde_json::from_str(&output).unwrap()
}

fn number(value: &serde_json::Value, field: &str) -> u64 {
    value[field].as_u64().unwrap()
}

fn what_was_overwritten_is_deleted_while_the_vault_is_mounted(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let mut rng = Dice(5);
    let (file, removed) = (mount.join("file"), mount.join("removed"));
    for _ in 0..3 {
        std::fs::write(&file, rng.bytes(3 << 20)).unwrap();
        mount.sync();
    }
    std::fs::write(&removed, rng.bytes(3 << 20)).unwrap();
    mount.sync();
    std::fs::remove_file(&removed).unwrap();
    let kept = rng.bytes(3 << 20);
    std::fs::write(&file, &kept).unwrap();
    mount.sync();
    // Thirty days are kept, until somebody says otherwise.
    let first = json(&vault, &mount, &["gc"]);
    assert_eq!(number(&first, "freed_segments"), 0, "{first}");
    assert!(number(&first, "kept_bytes") >= 4 * (3 << 20), "{first}");
    assert!(!first["held_by"].as_array().unwrap().is_empty(), "{first}");
    vault
        .skrin(&["retention"])
        .arg(mount.path())
        .arg("1s")
        .output_ok();
    assert_eq!(number(&json(&vault, &mount, &["retention"]), "seconds"), 1);
    let mut freed = 0;
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(1100));
        std::fs::write(mount.join("note"), rng.bytes(10)).unwrap();
        let done = json(&vault, &mount, &["gc"]);
        freed += number(&done, "freed_bytes");
    }
    assert!(freed >= 4 * (3 << 20), "{freed}");
    let last = json(&vault, &mount, &["gc"]);
    assert_eq!(number(&last, "kept_segments"), 0, "{last}");
    assert!(number(&last, "stored_bytes") < 4 << 20, "{last}");
    assert_eq!(std::fs::read(&file).unwrap(), kept);
    mount.unmount();
    vault.verify_clean();
    // Another device reads it, too.
    let other = vault.mount("b");
    assert_eq!(std::fs::read(other.join("file")).unwrap(), kept);
    other.unmount();
}

fn what_is_needed_of_half_dead_segments_is_copied_together(on: On) {
    use std::os::unix::fs::FileExt;
    const BLOCK: usize = 65_536;
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    vault
        .skrin(&["retention"])
        .arg(mount.path())
        .arg("1s")
        .output_ok();
    let mut rng = Dice(6);
    let path = mount.join("file");
    let mut contents = rng.bytes(96 * BLOCK);
    std::fs::write(&path, &contents).unwrap();
    mount.sync();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for block in (0..96).filter(|block| block % 4 != 0) {
        let part = rng.bytes(BLOCK);
        file.write_all_at(&part, (block * BLOCK) as u64).unwrap();
        contents[block * BLOCK..][..BLOCK].copy_from_slice(&part);
    }
    drop(file);
    mount.sync();
    let before = std::fs::metadata(&path).unwrap();
    let first = json(&vault, &mount, &["gc"]);
    let (mut repacked, mut freed) = (0, 0);
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(1100));
        std::fs::write(mount.join("note"), rng.bytes(10)).unwrap();
        let done = json(&vault, &mount, &["gc"]);
        repacked += number(&done, "repacked_segments");
        freed += number(&done, "freed_segments");
        if freed > 0 {
            break;
        }
    }
    assert!(repacked > 0 && freed > 0, "{repacked} {freed}");
    let last = json(&vault, &mount, &["gc"]);
    assert_eq!(number(&last, "kept_segments"), 0, "{last}");
    let (stored, was) = (
        number(&last, "stored_bytes"),
        number(&first, "stored_bytes"),
    );
    let len = contents.len() as u64;
    assert!(
        was > len * 17 / 10 && stored < len * 13 / 10,
        "{was} {stored}"
    );
    // Nobody can tell it from the file.
    use std::os::unix::fs::MetadataExt;
    let after = std::fs::metadata(&path).unwrap();
    let times = |m: &std::fs::Metadata| (m.ino(), m.mtime_nsec(), m.ctime_nsec(), m.blocks());
    assert_eq!(times(&before), times(&after));
    mount.unmount();
    vault.verify_clean();
    let other = vault.mount("b");
    assert_eq!(std::fs::read(other.join("file")).unwrap(), contents);
    other.unmount();
}

crate::on_every_storage! {
    what_was_overwritten_is_deleted_while_the_vault_is_mounted;
    what_is_needed_of_half_dead_segments_is_copied_together;
}
