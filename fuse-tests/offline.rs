//! Without the storage: what is pinned is here, what is not fails with an error, and nothing hangs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{Dice, Mount, Run, Vault, kill, wait_for};
use crate::relay::Distant;
use crate::storages::On;

/// Less than what is pinned and than what is read besides.
const SMALL_CACHE: [&str; 2] = ["--cache-size", "1MiB"];

/// Files of many lengths, some in directories.
fn write_tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut dice = Dice(7);
    let files: BTreeMap<PathBuf, Vec<u8>> = [
        ("empty", 0),
        ("inline", 900),
        ("small", 40_000),
        ("below/large", 5 << 20),
        ("below/further/odd", 300_001),
    ]
    .into_iter()
    .map(|(name, len)| (dir.join(name), dice.bytes(len)))
    .collect();
    for (path, bytes) in &files {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    files
}

fn pinned(mount: &Mount<'_>) -> serde_json::Value {
    mount.status()["pinned"].clone()
}

fn pins_stay_readable_offline_and_the_rest_fails(on: On) {
    let vault = Vault::new(on);
    let writer = vault.mount("a");
    let expected = write_tree(&writer.join("kept"));
    let other = Dice(9).bytes(6 << 20);
    std::fs::write(writer.join("other"), &other).unwrap();
    std::fs::write(writer.join("later"), b"comes later").unwrap();
    writer.sync();

    let mount = vault.mount_with("b", &SMALL_CACHE);
    let said = vault
        .skrin(&["pin", "--json"])
        .arg(mount.join("kept"))
        .output_ok();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["files"], 5, "{said}");
    assert_eq!(said["missing_blocks"], 0, "{said}");
    assert_eq!(said["paths"][0], mount.join("kept").to_str().unwrap());
    // What another device adds below a pin comes by itself.
    let added = Dice(8).bytes(200_000);
    std::fs::write(writer.join("kept/added"), &added).unwrap();
    writer.unmount();
    wait_for("the new file to be pinned too", || {
        let pins = pinned(&mount);
        pins["files"] == 6 && pins["missing_blocks"] == 0
    });
    // Pushes everything else out of the cache, several times over.
    assert_eq!(std::fs::read(mount.join("other")).unwrap(), other);
    mount.unmount();

    let mut offline = SMALL_CACHE.to_vec();
    offline.push("--offline");
    let mount = vault.mount_with("b", &offline);
    for (path, bytes) in &expected {
        let path = mount.join(path.strip_prefix(vault.path("mount-a")).unwrap());
        assert_eq!(&std::fs::read(&path).unwrap(), bytes, "{}", path.display());
    }
    assert_eq!(std::fs::read(mount.join("kept/added")).unwrap(), added);
    let error = std::fs::read(mount.join("other")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(110), "ETIMEDOUT: {error}");
    assert_eq!(std::fs::read(mount.join("later")).unwrap(), b"comes later");
    // Work goes on without the storage, and reaches it later.
    std::fs::write(mount.join("kept/written offline"), b"on a train").unwrap();
    let (code, said) = vault.skrin(&["pin"]).arg(mount.join("other")).code();
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("it stays pinned"), "{said}");
    mount.unmount_with(&["--now"]);

    let mount = vault.mount_with("b", &SMALL_CACHE);
    wait_for("what was pinned offline to come", || {
        pinned(&mount)["missing_blocks"] == 0 && pinned(&mount)["looked"] == true
    });
    let (code, said) = vault.skrin(&["unpin"]).arg(mount.join("later")).code();
    assert_eq!(code, 7, "{said}");
    let left = vault
        .skrin(&["unpin"])
        .args([mount.join("kept"), mount.join("other")])
        .output_ok();
    assert_eq!(left, "nothing is pinned\n");
    assert_eq!(std::fs::read(mount.join("other")).unwrap(), other);
    mount.unmount();
    let mount = vault.mount_with("b", &offline);
    std::fs::read(mount.join("kept/below/large")).unwrap_err();
    let seen = vault.mount("c");
    let text = std::fs::read(seen.join("kept/written offline")).unwrap();
    assert_eq!(text, b"on a train");
}

#[test]
fn pins_stay_readable_offline_and_the_rest_fails_on_webdav() {
    pins_stay_readable_offline_and_the_rest_fails(On::WebDav);
}

#[test]
fn pins_stay_readable_offline_and_the_rest_fails_on_s3() {
    pins_stay_readable_offline_and_the_rest_fails(On::S3);
}

#[test]
fn in_a_folder_of_this_machine_there_is_nothing_to_pin() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let (code, said) = vault.skrin(&["pin"]).arg(mount.path()).code();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("is here already"), "{said}");
}

/// A server that accepts and never answers.
#[test]
fn with_a_server_that_falls_silent_reads_fail_and_the_mount_can_be_ended() {
    let distant = Distant::new();
    let writer = distant.mount("a");
    let kept = write_tree(&writer.join("kept"));
    let other = Dice(9).bytes(2 << 20);
    std::fs::write(writer.join("other"), &other).unwrap();
    writer.unmount();
    let mount = distant.mount("b");
    let mut pin = distant.vault.skrin(&["pin"]);
    pin.arg(mount.join("kept")).output_ok();
    distant.relay.shut();
    let error = std::fs::read(mount.join("other")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(110), "ETIMEDOUT: {error}");
    for (path, bytes) in &kept {
        let name = path.strip_prefix(distant.vault.path("mount-a")).unwrap();
        assert_eq!(&std::fs::read(mount.join(name)).unwrap(), bytes);
    }
    std::fs::write(mount.join("kept/small"), b"written in the silence").unwrap();
    mount.unmount_with(&["--now"]);

    // The same from the start.
    let mount = distant.mount("b");
    for name in ["kept/below/large", "kept/inline"] {
        let path = distant.vault.path("mount-a").join(name);
        assert_eq!(std::fs::read(mount.join(name)).unwrap(), kept[&path]);
    }
    let text = std::fs::read(mount.join("kept/small")).unwrap();
    assert_eq!(text, b"written in the silence");
    std::fs::read(mount.join("other")).unwrap_err();
    distant.relay.open();
    mount.sync();
    assert_eq!(std::fs::read(mount.join("other")).unwrap(), other);
    mount.unmount();
}

/// What a machine does that sleeps: nothing, and when it goes on its connections are gone.
#[test]
fn a_mount_goes_on_after_a_sleep_in_which_its_connections_ended() {
    let distant = Distant::new();
    let (mount, other) = (distant.mount("a"), distant.mount("b"));
    let before = Dice(1).bytes(3 << 20);
    std::fs::write(other.join("before"), &before).unwrap();
    other.sync();
    wait_for("the file of the other device", || {
        mount.join("before").exists()
    });
    // Written and not uploaded when it falls asleep.
    let body = Dice(2).bytes(3 << 20);
    std::fs::write(mount.join("written"), &body).unwrap();
    kill(mount.pid(), "STOP");
    distant.relay.cut();
    std::fs::write(other.join("meanwhile"), "x").unwrap();
    other.sync();
    std::thread::sleep(Duration::from_secs(3));
    kill(mount.pid(), "CONT");
    assert!(std::fs::read(mount.join("before")).unwrap() == before);
    mount.sync();
    wait_for("what was done meanwhile", || {
        mount.join("meanwhile").exists()
    });
    wait_for("what was written before", || {
        std::fs::read(other.join("written")).is_ok_and(|there| there == body)
    });
    assert_eq!(mount.status()["errors"], serde_json::json!([]));
    mount.unmount();
    other.unmount();
}

/// The log-in was changed on the server, and not here.
#[test]
fn with_a_password_that_the_server_refuses_what_is_known_here_is_mounted_and_what_is_written_waits()
{
    let vault = Vault::new(On::WebDav);
    let refused = |device: &str| {
        let mut mount = vault.mount_command(device, &vault.point(device), &[]);
        mount.env("SKRIN_WEBDAV_PASSWORD", "hunter2");
        mount
    };
    let (code, said) = refused("b").code();
    assert_eq!(code, 4, "nothing is known here: {said}");
    assert!(said.contains("refuses the user"), "{said}");

    let mount = vault.mount("a");
    std::fs::write(mount.join("before"), "known").unwrap();
    mount.unmount();
    let said = refused("a").output_ok();
    for part in ["refuses the user", "mounting what is known here"] {
        assert!(said.contains(part), "{said}");
    }
    let mount = Mount::adopt(&vault, vault.path("mount-a"));
    assert_eq!(std::fs::read(mount.join("before")).unwrap(), b"known");
    std::fs::write(mount.join("accepted"), "waits").unwrap();
    let mut number = 0;
    wait_for("the first upload to be refused", || {
        number += 1;
        let made = std::fs::create_dir(mount.join(format!("dir-{number}")));
        made.is_err_and(|error| error.raw_os_error() == Some(30))
    });
    let errors = mount.status()["errors"].to_string();
    assert!(errors.contains("refuses the user"), "{errors}");
    assert_eq!(std::fs::read(mount.join("accepted")).unwrap(), b"waits");
    mount.unmount_with(&["--now"]);

    // Once it is corrected here, all of it goes to the storage.
    vault.mount("a").unmount();
    let other = vault.mount("b");
    assert_eq!(std::fs::read(other.join("accepted")).unwrap(), b"waits");
    other.unmount();
}
