//! A storage that goes back: what is said, what is refused, what is put again, and what accepting it means.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::harness::{Mount, Run, Vault, command};
use crate::storages::On;

/// A copy of the storage as it is now.
pub(crate) fn copy(vault: &Vault, name: &str) -> std::path::PathBuf {
    let to = vault.path(name);
    command("cp")
        .arg("-a")
        .arg(vault.storage.local())
        .arg(&to)
        .output_ok();
    to
}

/// Makes the storage what the copy is.
pub(crate) fn restore(vault: &Vault, from: &Path) {
    command("rsync")
        .args(["-a", "--delete"])
        .arg(format!("{}/", from.display()))
        .arg(vault.storage.local())
        .output_ok();
}

fn names(vault: &Vault) -> BTreeSet<String> {
    vault
        .storage
        .objects()
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

fn write(vault: &Vault, device: &str, name: &str) {
    let mount = vault.mount(device);
    fs::write(mount.join(name), name).unwrap();
    mount.unmount();
}

fn read(mount: &Mount<'_>, name: &str) -> Option<String> {
    fs::read_to_string(mount.join(name)).ok()
}

fn refused(vault: &Vault, device: &str) -> String {
    let point = vault.point(device);
    let (code, said) = vault.mount_command(device, &point, &[]).code();
    assert_eq!(code, 5, "{said}");
    said
}

fn accept(vault: &Vault, device: &str, options: &[&str]) -> (i32, String, serde_json::Value) {
    let output = vault
        .skrin(&["accept-rollback", &vault.address(), "--json"])
        .arg("--state-dir")
        .arg(vault.state(device))
        .arg("--words-file")
        .arg(vault.words_file())
        .args(options)
        .finish();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap_or(-1), said, json)
}

#[test]
fn a_storage_that_went_back_is_told_with_both_dates_and_can_be_accepted_without_losing_what_others_have()
 {
    let vault = Vault::new(On::Local);
    write(&vault, "a", "old");
    write(&vault, "b", "of b");
    let before = copy(&vault, "last-week");
    write(&vault, "b", "newer of b");
    write(&vault, "a", "newer of a");
    restore(&vault, &before);
    let shown = names(&vault);

    let said = refused(&vault, "a");
    for words in [
        "rolled back",
        "the storage shows the state of 20",
        "; this device has seen 20",
        ", written by ",
        "skrin accept-rollback",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(names(&vault), shown, "nothing was written");

    // Not accepted: what a has is put again, and that is all.
    let (code, said, _) = accept(&vault, "a", &[]);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("was seen"), "{said}");
    let own = names(&vault);
    assert!(own.is_superset(&shown) && own.len() > shown.len());
    let still = refused(&vault, "a");
    assert!(still.contains("written by"), "{still}");

    let (code, said, done) = accept(&vault, "a", &["--yes"]);
    assert_eq!((code, &done["accepted"]), (0, &true.into()), "{said}");
    assert!(
        done["what"]
            .as_str()
            .unwrap()
            .contains("this device has seen")
    );
    let kept = done["kept"].as_str().unwrap().to_owned();

    // A new device goes on with what is shown, and everybody sees why.
    let mount = vault.mount("a");
    assert_eq!(read(&mount, "old").unwrap(), "old");
    assert_eq!(read(&mount, "newer of b"), None);
    fs::write(mount.join("newest of a"), "newest of a").unwrap();
    let rollbacks = mount.status()["rollbacks"].to_string();
    assert!(
        rollbacks.contains("accepted on 20") && rollbacks.contains(&kept),
        "{rollbacks}"
    );
    // The new device knows what the old one saw.
    let events = mount.status()["events"].to_string();
    for kind in ["mount-refused", "rolled-back", "rollback-accepted"] {
        assert!(events.contains(kind), "{kind}: {events}");
    }
    mount.unmount();
    let state = fs::read_dir(vault.state("a")).unwrap().count();
    assert_eq!(state, 2, "the new state and the old one");

    // The old state is whole: what only that device has seen can still be read.
    let point = vault.point("kept");
    let options = ["--offline", "--read-only"];
    let mut old = vault.skrin(&["mount", &vault.address()]);
    old.arg(&point)
        .args(options)
        .arg("--state-dir")
        .arg(&kept)
        .arg("--words-file")
        .arg(vault.words_file());
    old.output_ok();
    let mount = Mount::adopt(&vault, point);
    for name in ["old", "newer of b", "newer of a"] {
        assert_eq!(read(&mount, name).as_deref(), Some(name));
    }
    mount.unmount();

    // b comes back, and has what was lost: nothing to accept for it.
    refused(&vault, "b");
    let (code, said, done) = accept(&vault, "b", &[]);
    assert_eq!((code, &done["accepted"]), (0, &false.into()), "{said}");
    assert!(done["put_again"].as_u64().unwrap() > 0);
    for device in ["b", "a", "fresh"] {
        let mount = vault.mount(device);
        for name in ["old", "of b", "newer of b", "newer of a", "newest of a"] {
            assert_eq!(read(&mount, name).as_deref(), Some(name), "{device}");
        }
        let lanes = mount.status()["lanes"].to_string();
        assert!(lanes.contains("rollback accepted 20"), "{lanes}");
        mount.unmount();
    }
    vault.verify_clean();
}

#[test]
fn a_device_whose_own_writing_alone_was_lost_puts_it_again_and_is_asked_nothing() {
    let vault = Vault::new(On::Local);
    write(&vault, "a", "old");
    let before = copy(&vault, "last-week");
    for name in ["one", "two", "three"] {
        write(&vault, "a", name);
    }
    let (code, said, done) = accept(&vault, "a", &[]);
    assert_eq!((code, &done["put_again"]), (0, &0.into()), "{said}");
    restore(&vault, &before);
    refused(&vault, "a");
    let (code, said, done) = accept(&vault, "a", &[]);
    assert_eq!((code, &done["accepted"]), (0, &false.into()), "{said}");
    assert!(done["put_again"].as_u64().unwrap() >= 3, "{done}");
    for device in ["a", "fresh"] {
        let mount = vault.mount(device);
        for name in ["old", "one", "two", "three"] {
            assert_eq!(read(&mount, name).as_deref(), Some(name), "{device}");
        }
        // While it is mounted there is nothing to decide.
        let (code, said, _) = accept(&vault, device, &["--yes"]);
        assert_eq!(code, 6, "{said}");
        mount.unmount();
    }
    let (code, said, _) = accept(&vault, "never", &["--yes"]);
    assert_eq!(code, 7, "{said}");
    vault.verify_clean();
}

#[test]
fn a_device_whose_certificate_the_storage_lost_writes_no_new_one_beside_it() {
    let vault = Vault::new(On::Local);
    write(&vault, "a", "old");
    let before = copy(&vault, "last-week");
    write(&vault, "b", "of b");
    restore(&vault, &before);
    let said = refused(&vault, "b");
    assert!(
        said.contains("rolled back") && said.contains("belongs to the vault"),
        "{said}"
    );
    let copied: BTreeSet<_> = {
        let shown = names(&vault);
        restore(&vault, &before);
        assert_eq!(names(&vault), shown, "nothing was written");
        shown
    };
    let (code, said, done) = accept(&vault, "b", &[]);
    assert_eq!((code, &done["accepted"]), (0, &false.into()), "{said}");
    assert!(names(&vault).len() > copied.len());
    let mount = vault.mount("b");
    assert_eq!(read(&mount, "of b").as_deref(), Some("of b"));
    mount.unmount();
    vault.verify_clean();
}

#[test]
fn two_devices_that_were_shown_two_storages_lose_nothing_when_the_two_are_joined() {
    let vault = Vault::new(On::Local);
    write(&vault, "a", "old");
    write(&vault, "b", "of b");
    // From here on b is shown a copy, which nothing of a reaches.
    let fork = copy(&vault, "fork");
    write(&vault, "a", "a alone");
    let point = vault.point("b");
    let mut mounted = vault.skrin(&["mount", fork.to_str().unwrap()]);
    mounted
        .arg(&point)
        .arg("--state-dir")
        .arg(vault.state("b"))
        .arg("--words-file")
        .arg(vault.words_file())
        .output_ok();
    let mount = Mount::adopt(&vault, point);
    assert_eq!(read(&mount, "a alone"), None);
    fs::write(mount.join("b alone"), "b alone").unwrap();
    fs::write(mount.join("old"), "changed by b").unwrap();
    mount.unmount();
    let mount = vault.mount("a");
    fs::write(mount.join("old"), "changed by a").unwrap();
    mount.unmount();
    // Whoever runs the storage joins the two.
    command("rsync")
        .args(["-a", "--ignore-existing"])
        .arg(format!("{}/", fork.display()))
        .arg(vault.storage.local())
        .output_ok();
    let mut listings = BTreeSet::new();
    for device in ["a", "b", "fresh"] {
        let mount = vault.mount(device);
        let mut all = Vec::new();
        for entry in fs::read_dir(mount.path()).unwrap() {
            let entry = entry.unwrap();
            let body = fs::read_to_string(entry.path()).unwrap();
            all.push((entry.file_name().into_string().unwrap(), body));
        }
        all.sort();
        let bodies: BTreeSet<&str> = all.iter().map(|(_, body)| body.as_str()).collect();
        for body in ["a alone", "b alone", "of b", "changed by a", "changed by b"] {
            assert!(bodies.contains(body), "{device}: {all:?}");
        }
        listings.insert(all);
        mount.unmount();
    }
    assert_eq!(listings.len(), 1, "all see the same");
    vault.verify_clean();
}
