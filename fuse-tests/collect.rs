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

crate::on_every_storage! { what_was_overwritten_is_deleted_while_the_vault_is_mounted; }
