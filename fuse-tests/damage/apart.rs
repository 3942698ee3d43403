//! Objects that a storage shows one device otherwise than all the others: what that one makes of it, and that nothing of it is left once
//! it is shown the same again.

use std::path::{Path, PathBuf};

use super::{Done, Filed, Found, KINDS, is_all, log_of, look_at, names, told};
use crate::harness::{Dice, Mount, Run, Vault, command};
use crate::storages::On;

/// What is shown otherwise, and how. Those of control records are of a device that the one who is shown them has never heard of.
const ALWAYS: [(&str, Done); 3] = [
    ("commit", Done::Halved),
    ("segment", Done::Deleted),
    ("tip", Done::Deleted),
];
const MORE: [(&str, Done); 5] = [
    ("commit", Done::Deleted),
    ("segment", Done::Halved),
    ("tip", Done::Halved),
    ("control record", Done::Deleted),
    ("control record", Done::Halved),
];

/// Mounts a copy of the vault as device b; nothing where that is refused, with the object and a reason.
fn mount_of_b<'a>(vault: &'a Vault, fork: &Path, name: &str, what: &str) -> Option<Mount<'a>> {
    let point = vault.point("b");
    let mut mount = vault.skrin(&["mount", fork.to_str().unwrap()]);
    mount.arg(&point).arg("--state-dir").arg(vault.state("b"));
    let (code, said) = mount.arg("--words-file").arg(vault.words_file()).code();
    assert!(!said.contains("panicked"), "{what}: {said}");
    if code == 0 {
        return Some(Mount::adopt(vault, point));
    }
    assert_eq!(code, 5, "{what}: {said}");
    assert!(told::names_it(&[&said], name), "{what}: {said}");
    None
}

/// A copy of the vault in which something is done to one object.
fn fork(vault: &Vault, number: usize, done: Done, name: &str) -> PathBuf {
    let to = vault.path(&format!("fork-{number}"));
    command("cp")
        .arg("-a")
        .args([vault.storage.local(), to.as_path()])
        .output_ok();
    let object = to.join(name);
    match done {
        Done::Deleted => std::fs::remove_file(object).unwrap(),
        _ => {
            let bytes = std::fs::read(&object).unwrap();
            std::fs::write(object, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    to
}

fn write(vault: &Vault, device: &str, name: String, body: Vec<u8>) -> Filed {
    let before = names(vault, |_| true);
    let mount = vault.mount(device);
    std::fs::write(mount.join(&name), &body).unwrap();
    mount.unmount();
    Filed {
        name,
        body: Some(body),
        objects: &names(vault, |_| true) - &before,
    }
}

/// What b finds of a file of which it is shown everything but one object, and whether that is told.
fn assert_found(mount: &Mount<'_>, filed: &Filed, (kind, done): (&str, Done), what: &str) {
    let right = match (kind, done) {
        ("segment", _) => Found::Eio,
        // All that a tip says is its name.
        ("tip", Done::Halved) => Found::Whole,
        _ => Found::Absent,
    };
    assert_eq!(look_at(mount, filed, what), right, "{what}");
}

#[test]
fn what_one_device_alone_was_not_shown_as_it_is_is_whole_for_all_once_they_are_shown_the_same() {
    let vault = Vault::new(On::Local);
    let mut dice = Dice(36);
    let mut all = vec![
        write(&vault, "a", "first-of-a".to_owned(), dice.bytes(1000)),
        write(&vault, "b", "first-of-b".to_owned(), dice.bytes(1000)),
    ];
    let mut cases = ALWAYS.to_vec();
    if is_all() {
        cases.extend(MORE);
    }
    for (number, (kind, done)) in cases.into_iter().enumerate() {
        let (_, is_kind) = KINDS.into_iter().find(|(name, _)| *name == kind).unwrap();
        let writer = match kind {
            "control record" => format!("c{number}"),
            _ => "a".to_owned(),
        };
        let name = format!("{number}-of-{writer}");
        let filed = write(&vault, &writer, name, dice.bytes(100_000));
        let name = filed.objects.iter().find(|name| is_kind(name)).unwrap();
        let what = format!("{kind} {name} {done:?}");
        let fork = fork(&vault, number, done, name);
        if let Some(mount) = mount_of_b(&vault, &fork, name, &what) {
            assert_found(&mount, &filed, (kind, done), &what);
            // The rest goes on.
            for earlier in &all {
                assert_eq!(look_at(&mount, earlier, &what), Found::Whole, "{what}");
            }
            let alone = Filed {
                name: format!("{number}-of-b-alone"),
                body: Some(dice.bytes(100_000)),
                objects: filed.objects.clone(),
            };
            std::fs::write(mount.join(&alone.name), alone.body.as_ref().unwrap()).unwrap();
            let errors = told::errors(&mount);
            mount.unmount();
            let log = std::fs::read_to_string(log_of(&vault.state("b"))).unwrap();
            assert!(!log.contains("panicked"), "{what}: {log}");
            // What a tip leads to nobody misses who has not seen it.
            let is_told = told::names_it(&[&log, &errors], name);
            assert!(is_told || kind == "tip", "{what}: {errors}: {log}");
            all.push(alone);
        }
        all.push(filed);
        // Whoever runs the storage shows all of them the same again.
        command("rsync")
            .args(["-a", "--ignore-existing"])
            .arg(format!("{}/", fork.display()))
            .arg(vault.storage.local())
            .output_ok();
    }
    for device in ["a", "b", "fresh"] {
        let mount = vault.mount(device);
        for filed in &all {
            let what = format!("{device}, in the end");
            assert_eq!(look_at(&mount, filed, &what), Found::Whole, "{what}");
        }
        mount.unmount();
    }
    vault.verify_clean();
}
