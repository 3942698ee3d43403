//! What a device saw of damage stays known to it when the mount that met it has ended.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::{Dice, Mount, Run, Vault, files_below};
use crate::rollback::{copy, restore};
use crate::storages::On;

/// The events of one kind, as `status` has them.
pub(crate) fn of_kind(mount: &Mount<'_>, kind: &str) -> Vec<Value> {
    let status = mount.status();
    let all = status["events"].as_array().unwrap().iter();
    all.filter(|event| event["kind"] == kind).cloned().collect()
}

#[test]
fn damage_and_a_refused_mount_stand_in_status_after_the_next_mount() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::write(mount.join("secret-name"), Dice(91).bytes(400_000)).unwrap();
    mount.unmount();
    let before = copy(&vault, "before");
    let mount = vault.mount("a");
    std::fs::write(mount.join("newer"), "newer").unwrap();
    assert_eq!(mount.status()["events"], serde_json::json!([]));
    mount.unmount();
    let after = copy(&vault, "after");

    restore(&vault, &before);
    let (code, said) = vault.mount_command("a", &vault.point("a"), &[]).code();
    assert_eq!(code, 5, "{said}");
    restore(&vault, &after);
    let names = vault.storage.objects().into_iter().map(|(name, _)| name);
    let mut segments = names.filter(|name| name.starts_with("segments/"));
    let segment = segments
        .find(|name| vault.storage.read(name).len() > 400_000)
        .unwrap();
    let mut bytes = vault.storage.read(&segment);
    bytes[70_000] ^= 1;
    vault.storage.replace(&segment, &bytes);

    let mount = vault.mount("a");
    let refused = of_kind(&mount, "mount-refused");
    let [refused] = &refused[..] else {
        panic!("{refused:?}");
    };
    let what = refused["what"].as_str().unwrap();
    assert!(what.contains("rolled back"), "{refused}");
    std::fs::read(mount.join("secret-name")).unwrap_err();
    let damaged = of_kind(&mount, "block-damaged");
    let [event] = &damaged[..] else {
        panic!("{damaged:?}");
    };
    assert_eq!(event["object"], segment.as_str());
    assert_eq!(event["repaired"], false);
    assert_eq!(event["times"], 1);
    mount.unmount();

    let mount = vault.mount("a");
    assert_eq!(of_kind(&mount, "block-damaged"), damaged);
    assert_eq!(
        of_kind(&mount, "mount-refused"),
        std::slice::from_ref(refused)
    );
    let said = vault.skrin(&["status"]).arg(mount.path()).output_ok();
    let last = event["last"].as_str().unwrap();
    let line = said.lines().find(|line| line.contains("[block-damaged]"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(last) && line.contains(&segment), "{line}");
    mount.unmount();

    let state = files_below(&vault.state("a")).into_iter();
    let mut files = state.filter(|path| path.ends_with("events"));
    let file = files.next().unwrap();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let sealed = std::fs::read(&file).unwrap();
    let text = String::from_utf8_lossy(&sealed);
    assert!(!text.contains("damaged") && !text.contains("segments"));
}

#[test]
fn what_verify_puts_again_stands_in_status_of_the_next_mount() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "file").unwrap();
    mount.unmount();
    let names = vault.storage.objects().into_iter().map(|(name, _)| name);
    let names: Vec<String> = names.collect();
    let commit = names.iter().find(|name| name.contains("/lanes/")).unwrap();
    let bytes = vault.storage.read(commit);
    vault.storage.replace(commit, &bytes[..100]);
    let mut repair = vault.skrin(&["verify", &vault.address(), "--repair", "--words-file"]);
    repair.arg(vault.words_file()).output_ok();
    let mount = vault.mount("a");
    let put = of_kind(&mount, "commit-damaged");
    assert!(
        put.iter()
            .any(|event| event["object"] == commit.as_str() && event["repaired"] == true),
        "{put:?}"
    );
    mount.unmount();
}
