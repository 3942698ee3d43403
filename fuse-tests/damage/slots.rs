//! Slots from before a change of the passphrase.

use super::{Done, KINDS, is_words_slot, names, told, verified};
use crate::harness::{Run, Vault};
use crate::storages::On;

/// Mounts a new device with the old passphrase, which must be refused: what the records do not list lets nobody in.
fn is_refused(vault: &Vault, slot: &str, what: &str) {
    let point = vault.point("fresh");
    let mut mount = vault.skrin(&["mount", &vault.address()]);
    mount.arg(&point).arg("--state-dir");
    let (code, said) = mount.arg(vault.state("fresh")).code();
    assert_eq!(code, 5, "{what}: {said}");
    assert!(told::names_it(&[&said], slot), "{what}: {said}");
    assert!(!said.contains("panicked"), "{what}: {said}");
}

#[test]
fn a_slot_from_before_a_change_of_the_passphrase_is_named_and_lets_no_device_in() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "file").unwrap();
    mount.unmount();
    let before = names(&vault, KINDS[1].1);
    let old = before.iter().find(|name| !is_words_slot(&vault, name));
    let old = old.unwrap();
    let honest = vault.storage.read(old);
    let new_passphrase = vault.path("new passphrase");
    std::fs::write(&new_passphrase, "seventeen green walruses").unwrap();
    let mut change = vault.skrin(&["passphrase", &vault.address(), "--new-passphrase-file"]);
    change.arg(&new_passphrase).output_ok();
    let after = names(&vault, KINDS[1].1);
    let new = after.difference(&before).next().unwrap();
    assert!(!after.contains(old), "the old slot is deleted");

    // In the place of the new one.
    let made = vault.storage.read(new);
    vault.storage.replace(new, &honest);
    let what = "the old slot under the name of the new one";
    let found = verified(&vault, "slot", Done::Older, new, what);
    assert_eq!(found, "named", "{what}");
    is_refused(&vault, new, what);
    let mut verify = vault.skrin(&["verify", &vault.address(), "--passphrase-file"]);
    let (code, said) = verify.arg(&new_passphrase).code();
    assert_eq!(code, 3, "{said}");
    vault.storage.replace(new, &made);

    // Under its own name, where nothing is missing.
    vault.storage.replace(old, &honest);
    vault.verify_clean();
    is_refused(&vault, old, "the old slot beside the new one");
    let mount = vault.mount("a");
    assert_eq!(std::fs::read(mount.join("file")).unwrap(), b"file");
    mount.unmount();
}
