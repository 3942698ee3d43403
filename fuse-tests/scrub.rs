//! `skrin scrub`: a slow look at everything on the storage while the vault is mounted.

use crate::damage::log_of;
use crate::events::of_kind;
use crate::harness::{Dice, Mount, Run, Vault, wait_for};
use crate::storages::On;

fn scrub(vault: &Vault, mount: &Mount<'_>, options: &[&str]) -> serde_json::Value {
    let mut command = vault.skrin(&["scrub", "--json"]);
    let output = command.arg(mount.path()).args(options).output_ok();
    serde_json::from_str(&output).unwrap()
}

/// Lets it run to its end.
fn whole(vault: &Vault, mount: &Mount<'_>) -> serde_json::Value {
    let begun = scrub(vault, mount, &["--rate", "1GiB"]);
    assert!(begun["begun"].is_string(), "{begun}");
    let mut report = begun;
    wait_for("the scrub to end", || {
        report = mount.status()["scrub"].clone();
        report["running"] == false
    });
    assert_eq!(report["percent"], 100, "{report}");
    assert!(report["ended"].is_string(), "{report}");
    report
}

fn segments(vault: &Vault) -> Vec<String> {
    let objects = vault.storage.objects().into_iter();
    let names = objects.map(|(name, _)| name);
    names.filter(|name| name.starts_with("segments/")).collect()
}

#[test]
fn a_scrub_puts_again_what_the_cache_has_and_says_what_it_found() {
    let vault = Vault::new(On::WebDav);
    let mount = vault.mount("a");
    let mut dice = Dice(81);
    for name in ["one", "two", "three"] {
        std::fs::write(mount.join(name), dice.bytes(400_000)).unwrap();
        mount.sync();
    }
    let none = mount.status()["scrub"].clone();
    assert!(
        none["begun"].is_null() && none["running"] == false,
        "{none}"
    );
    let clean = whole(&vault, &mount);
    assert_eq!(
        (&clean["found"], &clean["repaired"]),
        (&0.into(), &0.into()),
        "{clean}"
    );
    let segments = segments(&vault);
    assert_eq!(segments.len(), 3);
    // From the storage, whatever is cached.
    let least: u64 = segments
        .iter()
        .map(|name| vault.storage.read(name).len() as u64)
        .sum();
    assert!(clean["bytes"].as_u64().unwrap() >= least, "{clean}");
    let honest = vault.storage.read(&segments[1]);
    let mut bytes = honest.clone();
    bytes[70_000] ^= 1;
    vault.storage.replace(&segments[1], &bytes);
    let report = whole(&vault, &mount);
    assert_eq!(
        (&report["found"], &report["repaired"]),
        (&1.into(), &1.into()),
        "{report}"
    );
    assert_eq!(report["findings"][0]["object"], segments[1].as_str());
    assert_eq!(report["findings"][0]["kind"], "block-damaged");
    assert_eq!(vault.storage.read(&segments[1]), honest);
    assert_eq!(mount.status()["errors"], serde_json::json!([]));
    let again = whole(&vault, &mount);
    assert_eq!(again["found"], 0, "{again}");
    mount.unmount();
    vault.verify_clean();
}

#[test]
fn what_a_scrub_cannot_mend_stands_in_status_and_log() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), Dice(82).bytes(400_000)).unwrap();
    mount.sync();
    let [segment] = segments(&vault).try_into().unwrap();
    let commit = vault.storage.objects().into_iter().map(|(name, _)| name);
    let commit = commit
        .into_iter()
        .find(|name| name.contains("/lanes/"))
        .unwrap();
    let before = vault.storage.read(&commit);
    vault.storage.replace(&commit, &before[..100]);
    let mut bytes = vault.storage.read(&segment);
    bytes[70_000] ^= 1;
    vault.storage.replace(&segment, &bytes);
    let report = whole(&vault, &mount);
    // This device keeps its commit, and no block.
    assert_eq!(
        (&report["found"], &report["repaired"]),
        (&2.into(), &1.into()),
        "{report}"
    );
    assert_eq!(vault.storage.read(&commit), before);
    assert_eq!(vault.storage.read(&segment), bytes);
    let errors = mount.status()["errors"].to_string();
    assert!(
        errors.contains(&segment) && !errors.contains(&commit),
        "{errors}"
    );
    let said = vault.skrin(&["status"]).arg(mount.path()).output_ok();
    assert!(said.contains("2 found, 1 put again"), "{said}");
    mount.unmount();
    let log = std::fs::read_to_string(log_of(&vault.state("a"))).unwrap();
    assert!(log.contains(&segment) && log.contains(&commit), "{log}");
}

/// The first of two segments cannot be put: the directory of copies takes no file for it.
#[test]
fn a_scrub_goes_on_behind_a_segment_that_cannot_be_put_again() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let mut dice = Dice(84);
    for name in ["one", "two"] {
        std::fs::write(mount.join(name), dice.bytes(300_000)).unwrap();
        mount.sync();
    }
    let [first, second] = segments(&vault).try_into().unwrap();
    let honest = [&first, &second].map(|name| vault.storage.read(name));
    for (name, honest) in [&first, &second].into_iter().zip(&honest) {
        // In the header, which can be made again without a cache.
        let mut bytes = honest.clone();
        bytes[3] ^= 1;
        vault.storage.replace(name, &bytes);
    }
    let id = mount.status()["vault_id"].as_str().unwrap().to_owned();
    let staged = format!("{}.new", first.rsplit('/').next().unwrap());
    let in_the_way = vault.state("a").join(id).join("repair").join(staged);
    std::fs::create_dir_all(&in_the_way).unwrap();
    let report = whole(&vault, &mount);
    assert_eq!(
        (&report["found"], &report["repaired"]),
        (&2.into(), &1.into()),
        "{report}"
    );
    assert_eq!(vault.storage.read(&second), honest[1]);
    let errors = mount.status()["errors"].to_string();
    assert!(
        errors.contains(&first) && errors.contains("cannot be put again"),
        "{errors}"
    );
    std::fs::remove_dir(&in_the_way).unwrap();
    let again = whole(&vault, &mount);
    assert_eq!(again["repaired"], 1, "{again}");
    assert_eq!(vault.storage.read(&first), honest[0]);
    mount.unmount();
    vault.verify_clean();
}

#[test]
fn a_scrub_goes_on_where_it_was_after_a_stop_a_crash_and_a_remount() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let mut dice = Dice(83);
    for n in 0..12 {
        std::fs::write(mount.join(format!("file-{n}")), dice.bytes(300_000)).unwrap();
        mount.sync();
    }
    let all = whole(&vault, &mount);
    assert_eq!(segments(&vault).len(), 12);
    // Each takes five seconds: long enough to be stopped in the middle, and to be still at it after a kill.
    let begun = scrub(&vault, &mount, &["--rate", "60KiB"]);
    assert!(begun["running"] == true && begun["percent"] == 0, "{begun}");
    let percent = |mount: &Mount<'_>| mount.status()["scrub"]["percent"].as_u64().unwrap();
    wait_for("a part to be looked at", || percent(&mount) > 0);
    let stopped = scrub(&vault, &mount, &["--stop"]);
    assert_eq!(stopped["running"], false);
    let at = stopped["percent"].as_u64().unwrap();
    assert!((1..100).contains(&at), "{stopped}");
    mount.unmount();
    let mount = vault.mount("a");
    let kept = mount.status()["scrub"].clone();
    assert_eq!(
        (&kept["running"], &kept["percent"]),
        (&false.into(), &at.into()),
        "{kept}"
    );
    scrub(&vault, &mount, &[]);
    wait_for("it to go on", || percent(&mount) > at);
    // What was noted last may lie a few seconds back.
    mount.crash();
    let mount = vault.mount("a");
    let kept = mount.status()["scrub"].clone();
    assert_eq!(kept["running"], true, "{kept}");
    assert!(kept["percent"].as_u64().unwrap() >= at, "{kept}");
    let report = whole(&vault, &mount);
    assert_eq!(report["found"], 0, "{report}");
    assert_eq!(report["objects"], all["objects"], "each is looked at once");
    assert_ne!(report["ended"], serde_json::Value::Null);
    mount.unmount();
}

/// Each of them opens the vault.
#[test]
fn a_scrub_tells_what_is_wrong_with_header_slots_and_control_records_and_that_is_known_after_a_remount()
 {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let names = vault.storage.objects().into_iter().map(|(name, _)| name);
    let names: Vec<String> = names.collect();
    let one = |part: &str| names.iter().find(|name| name.contains(part)).unwrap();
    let (header, slot, record) = (one("skrin.vault"), one("slots/"), one("/control/"));
    let honest = [header, slot, record].map(|name| vault.storage.read(name));
    for (name, honest) in [header, record].into_iter().zip([&honest[0], &honest[2]]) {
        let mut bytes = honest.clone();
        *bytes.last_mut().unwrap() ^= 1;
        vault.storage.replace(name, &bytes);
    }
    vault.storage.remove(slot);
    let report = whole(&vault, &mount);
    assert_eq!(report["repaired"], 0, "{report}");
    mount.unmount();
    for (name, honest) in [header, slot, record].into_iter().zip(&honest) {
        vault.storage.replace(name, honest);
    }
    let mount = vault.mount("a");
    // Without the record nobody knows of the slot.
    for (kind, object) in [("header-damaged", header), ("control-damaged", record)] {
        let events = of_kind(&mount, kind);
        let [event] = &events[..] else {
            panic!("{kind}: {events:?}");
        };
        assert_eq!(event["object"], object.as_str());
        assert_eq!(event["repaired"], false);
    }
    assert_eq!(whole(&vault, &mount)["found"], 0);
    vault.storage.remove(slot);
    assert_eq!(whole(&vault, &mount)["found"], 1);
    vault.storage.replace(slot, &honest[1]);
    assert_eq!(of_kind(&mount, "slot-missing").len(), 1);
    mount.unmount();
    vault.verify_clean();
}
