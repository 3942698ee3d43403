//! One flipped byte in each kind of object on the storage.

use std::path::{Path, PathBuf};

use crate::harness::{Dice, Run, Vault, files_below};
use crate::storages::On;

type IsKind = fn(&str) -> bool;

/// Kinds of objects, by what their names look like.
const KINDS: [(&str, IsKind); 8] = [
    ("header", |name| name == "skrin.vault"),
    ("slot", |name| name.starts_with("slots/")),
    ("control record", |name| name.contains("/control/")),
    ("commit", |name| name.contains("/lanes/")),
    ("page", |name| name.contains("/pages/")),
    ("checkpoint", |name| name.contains("/checkpoints/")),
    ("tip", |name| name.contains("/tips/")),
    ("segment", |name| name.starts_with("segments/")),
];

/// A vault with every kind of object, and what is in it.
fn filled() -> (Vault, Vec<(String, Vec<u8>)>) {
    let vault = Vault::new(On::Local);
    let mut dice = Dice(31);
    let mut files = Vec::new();
    for device in ["a", "b"] {
        let mount = vault.mount(device);
        for number in 0..4 {
            let name = format!("{device}{number}");
            let body = dice.bytes(200_000);
            std::fs::write(mount.join(&name), &body).unwrap();
            files.push((name, body));
            mount.sync();
        }
        // Enough changes for a checkpoint.
        let many = mount.join(format!("many-{device}"));
        std::fs::create_dir(&many).unwrap();
        for number in 0..5000 {
            std::fs::File::create(many.join(number.to_string())).unwrap();
        }
        mount.sync();
        mount.unmount();
    }
    (vault, files)
}

fn objects(vault: &Vault, is_kind: IsKind) -> Vec<(String, PathBuf)> {
    let root = vault.storage.local();
    let name = |path: &Path| {
        path.strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let all = files_below(root)
        .into_iter()
        .map(|path| (name(&path), path));
    all.filter(|(name, _)| is_kind(name)).collect()
}

/// Flips a bit of one byte, and gives back what undoes it.
fn flip(path: &Path, at: usize) -> impl FnOnce() {
    let before = std::fs::read(path).unwrap();
    let mut changed = before.clone();
    changed[at] ^= 0x10;
    std::fs::write(path, changed).unwrap();
    let path = path.to_owned();
    move || std::fs::write(path, before).unwrap()
}

#[test]
fn verify_names_the_object_of_every_kind_that_was_changed() {
    let (vault, _) = filled();
    vault.verify_clean();
    let mut dice = Dice(32);
    for (kind, is_kind) in KINDS {
        let found = objects(&vault, is_kind);
        assert!(!found.is_empty(), "there is no {kind}");
        for (name, path) in found.into_iter().take(3) {
            let len = std::fs::metadata(&path).unwrap().len();
            let undo = flip(&path, (dice.roll() % len) as usize);
            let output = vault
                .skrin(&["verify", &vault.address(), "--data", "--words-file"])
                .arg(vault.words_file())
                .finish();
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(5), "{kind} {name}: {said}");
            assert!(said.contains(&name), "{kind} {name} is not named: {said}");
            assert!(!said.contains("panicked"), "{said}");
            undo();
        }
    }
    vault.verify_clean();
}

#[test]
fn a_changed_segment_gives_eio_for_what_it_carries_and_nothing_else_suffers() {
    let (vault, files) = filled();
    let (_, segment) = objects(&vault, KINDS[7].1).swap_remove(0);
    let undo = flip(&segment, 70_000);
    let mount = vault.mount("fresh");
    let mut broken = 0;
    for (name, body) in &files {
        match std::fs::read(mount.join(name)) {
            Ok(back) => assert!(back == *body, "{name} came back with wrong bytes"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5), "{name}: {error}");
                broken += 1;
            }
        }
    }
    assert!(
        broken >= 1 && broken < files.len(),
        "{broken} files are broken"
    );
    std::fs::write(mount.join("new"), "still works").unwrap();
    undo();
    mount.unmount();
    let log = std::fs::read_to_string(log_of(&vault.state("fresh"))).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        log.contains(segment.file_name().unwrap().to_str().unwrap()),
        "the log does not name the segment: {log}"
    );
}

/// The log in a state directory, which holds one vault's.
pub(crate) fn log_of(state: &Path) -> PathBuf {
    let found = files_below(state)
        .into_iter()
        .find(|path| path.ends_with("log"));
    found.unwrap_or_else(|| panic!("no log below {}", state.display()))
}

#[test]
fn a_mount_over_a_changed_commit_or_control_record_refuses_or_reads_right() {
    let (vault, files) = filled();
    for (kind, is_kind) in &KINDS[2..4] {
        let (name, path) = objects(&vault, *is_kind).swap_remove(0);
        let undo = flip(&path, 40);
        let point = vault.point("fresh");
        let (code, said) = vault.mount_command("fresh", &point, &[]).code();
        if code == 0 {
            let mount = crate::harness::Mount::adopt(&vault, point);
            for (file, body) in &files {
                if let Ok(back) = std::fs::read(mount.join(file)) {
                    assert!(back == *body, "{kind} {name}: {file} has wrong bytes");
                }
            }
            mount.unmount_with(&["--now"]);
        } else {
            assert_eq!(code, 5, "{kind} {name}: {said}");
            assert!(said.contains(&name), "{kind} {name} is not named: {said}");
        }
        undo();
        std::fs::remove_dir_all(vault.state("fresh")).unwrap();
    }
}

#[test]
fn control_records_that_the_storage_takes_back_refuse_the_mount_of_who_has_seen_them() {
    let vault = Vault::new(On::Local);
    let write = |device: &str| {
        let mount = vault.mount(device);
        std::fs::write(mount.join(device), device).unwrap();
        mount.unmount();
    };
    let control = || objects(&vault, KINDS[2].1);
    write("a");
    let before = control();
    write("b");
    write("a");
    let newer: Vec<(PathBuf, Vec<u8>)> = control()
        .into_iter()
        .filter(|object| !before.contains(object))
        .map(|(_, path)| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    assert_eq!(newer.len(), 2, "certificate and grant of b");
    newer
        .iter()
        .for_each(|(path, _)| std::fs::remove_file(path).unwrap());
    let point = vault.point("a");
    let (code, said) = vault.mount_command("a", &point, &[]).code();
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("rolled back"), "{said}");
    let named = newer.iter().any(|(path, _)| {
        let name = path.file_name().unwrap().to_str().unwrap();
        said.contains(name)
    });
    assert!(named, "{said}");
    for (path, bytes) in &newer {
        std::fs::write(path, bytes).unwrap();
    }
    let mount = vault.mount("a");
    assert_eq!(std::fs::read(mount.join("b")).unwrap(), b"b");
    mount.unmount();
    vault.verify_clean();
}
