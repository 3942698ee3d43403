//! What a storage lost or damaged, told by `export` and put again by `verify --repair`.

use std::collections::BTreeMap;

use crate::harness::{Dice, Run, Vault};
use crate::storages::On;

/// Everything that lies there, by name.
fn all(vault: &Vault) -> BTreeMap<String, Vec<u8>> {
    let objects = vault.storage.objects().into_iter();
    objects
        .map(|(name, _)| (name.clone(), vault.storage.read(&name)))
        .collect()
}

/// Objects whose names hold this.
fn named(vault: &Vault, part: &str) -> Vec<String> {
    let objects = vault.storage.objects().into_iter();
    let names = objects.map(|(name, _)| name);
    names.filter(|name| name.contains(part)).collect()
}

/// Two devices, each with a file of its own that the other has seen; both unmounted.
fn of_two_devices(on: On) -> (Vault, Vec<(&'static str, Vec<u8>)>) {
    let vault = Vault::new(on);
    let mut dice = Dice(71);
    let files = vec![("of-a", dice.bytes(300_000)), ("of-b", dice.bytes(300_000))];
    for (device, (name, body)) in ["a", "b"].iter().zip(&files) {
        let mount = vault.mount(device);
        std::fs::write(mount.join(name), body).unwrap();
        mount.unmount();
    }
    let mount = vault.mount("a");
    assert_eq!(std::fs::read(mount.join("of-b")).unwrap(), files[1].1);
    mount.unmount();
    (vault, files)
}

/// Code and what it said, and its findings.
fn verify(vault: &Vault, device: &str, options: &[&str]) -> (i32, Vec<serde_json::Value>) {
    let output = vault
        .skrin(&["verify", &vault.address(), "--json", "--words-file"])
        .arg(vault.words_file())
        .arg("--state-dir")
        .arg(vault.state(device))
        .args(options)
        .finish();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{errors}");
    let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    let code = output.status.code().unwrap();
    assert!(
        matches!(code, 0 | 5) || lines.is_empty(),
        "{code}: {errors}"
    );
    (code, lines)
}

/// Which objects were put again, and which are still wrong.
fn outcome(lines: &[serde_json::Value]) -> (Vec<String>, Vec<String>) {
    let findings = lines.iter().filter(|line| line["kind"].is_string());
    let (repaired, wrong): (Vec<_>, Vec<_>) =
        findings.partition(|line| line["repaired"].as_bool().unwrap());
    let names = |lines: Vec<&serde_json::Value>| {
        let names = lines.iter().map(|line| line["object"].as_str().unwrap());
        names.map(str::to_owned).collect()
    };
    (names(repaired), names(wrong))
}

#[test]
fn an_export_that_leaves_something_out_says_so_and_ends_with_5() {
    let (vault, files) = of_two_devices(On::Local);
    let dest = vault.path("exported");
    let export = || {
        let _ = std::fs::remove_dir_all(&dest);
        let mut export = vault.skrin(&["export", &vault.address(), "--words-file"]);
        let (code, said) = export.arg(vault.words_file()).arg(&dest).code();
        let whole = files
            .iter()
            .filter(|(name, body)| std::fs::read(dest.join(name)).is_ok_and(|back| back == *body));
        (code, said, whole.count())
    };
    assert_eq!(export().0, 0);
    let objects = [named(&vault, "/tips/"), named(&vault, "/control/")].concat();
    let mut left_out = 0;
    for name in objects {
        let path = vault.storage.local().join(&name);
        let honest = std::fs::read(&path).unwrap();
        for cut in [false, true] {
            match cut {
                true => std::fs::write(&path, &honest[..honest.len() / 2]).unwrap(),
                false => std::fs::remove_file(&path).unwrap(),
            }
            let (code, said, whole) = export();
            match code {
                0 => assert_eq!(whole, files.len(), "{name}, cut: {cut}: {said}"),
                5 => {
                    let file = name.rsplit('/').next().unwrap();
                    let told = said.contains(file) || said.contains("missing or damaged");
                    assert!(told, "{name}, cut: {cut}: {said}");
                }
                code => panic!("{name}, cut: {cut}: {code}: {said}"),
            }
            if code == 5 && whole < files.len() && dest.join(files[0].0).exists() {
                left_out += 1;
            }
            std::fs::write(&path, &honest).unwrap();
        }
    }
    assert!(left_out > 0, "nothing here ever hides a file");
    let (code, said, whole) = export();
    assert_eq!((code, whole), (0, files.len()), "{said}");
}

#[test]
fn header_slots_control_records_commits_and_tips_are_put_again_byte_for_byte() {
    let (vault, _) = of_two_devices(On::Local);
    let before = all(&vault);
    let mut repaired = BTreeMap::new();
    for (name, honest) in &before {
        let is_segment = name.starts_with("segments/");
        let is_checkpoint = name.contains("/pages/") || name.contains("/checkpoints/");
        if is_segment || is_checkpoint {
            continue;
        }
        let path = vault.storage.local().join(name);
        let mut flipped = honest.clone();
        let at = honest.len() / 2;
        flipped[at] ^= 0x10;
        for damaged in [None, Some(flipped)] {
            match damaged {
                None => std::fs::remove_file(&path).unwrap(),
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            }
            // Both devices have mounted since everything was written but the commits of a's last time.
            let (first, lines) = verify(&vault, "a", &["--repair"]);
            let (second, more) = match first {
                0 => (0, Vec::new()),
                _ => verify(&vault, "b", &["--repair"]),
            };
            assert_eq!(second, 0, "{name}: {lines:?} {more:?}");
            let put = outcome(&lines).0.contains(name) || outcome(&more).0.contains(name);
            let mut after = all(&vault);
            // A tip that is gone is needless where a commit that follows is seen; one more leads to what can be had meanwhile.
            let needless = name.contains("/tips/") && !put;
            assert!(put || needless, "{name}: {lines:?} {more:?}");
            after.retain(|name, _| before.contains_key(name) || !name.contains("/tips/"));
            if needless {
                after.insert(name.clone(), honest.clone());
            }
            assert!(after == before, "{name}: {lines:?} {more:?}");
            let kind = name
                .split('/')
                .nth(2)
                .unwrap_or(name.split('/').next().unwrap());
            *repaired.entry(kind).or_insert(0) += usize::from(put);
            std::fs::write(&path, honest).unwrap();
        }
    }
    for kind in ["skrin.vault", "slots", "control", "lanes", "tips"] {
        assert!(repaired.get(kind).is_some_and(|n| *n > 0), "{repaired:?}");
    }
    vault.verify_clean();
}

fn damage(honest: &[u8], how: usize) -> Vec<u8> {
    let mut bytes = honest.to_vec();
    match how {
        0 => bytes[100_000] ^= 0x10,
        1 => bytes.truncate(honest.len() / 2),
        2 => bytes.extend_from_slice(&[7; 1000]),
        3 => bytes.fill(0),
        _ => *bytes.last_mut().unwrap() ^= 1,
    }
    bytes
}

#[test]
fn damaged_segments_come_back_from_the_cache_of_a_device_that_has_read_them() {
    let (vault, files) = of_two_devices(On::WebDav);
    let before = all(&vault);
    for how in 0..5 {
        for name in named(&vault, "segments/") {
            vault.storage.replace(&name, &damage(&before[&name], how));
        }
        let (code, lines) = verify(&vault, "a", &["--data"]);
        assert_eq!(code, 5);
        let (repaired, wrong) = outcome(&lines);
        assert!(
            repaired.is_empty() && wrong.iter().all(|o| o.starts_with("segments/")),
            "{lines:?}"
        );
        assert_eq!(
            wrong
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            2,
            "{lines:?}"
        );
        // Device a wrote one and has read the other.
        let (code, lines) = verify(&vault, "a", &["--repair"]);
        assert_eq!(code, 0, "{lines:?}");
        assert_eq!(all(&vault), before);
        assert_eq!(lines.last().unwrap()["findings"], 0);
    }
    vault.verify_clean();
    let mount = vault.mount("fresh");
    for (name, body) in &files {
        assert_eq!(std::fs::read(mount.join(name)).unwrap(), *body);
    }
    mount.unmount();
}

#[test]
fn contents_that_nobody_has_are_told_with_path_ranges_and_the_version_that_can_be_restored() {
    let vault = Vault::new(On::Local);
    let mut dice = Dice(72);
    let mount = vault.mount("a");
    std::fs::create_dir(mount.join("dir")).unwrap();
    let file = mount.join("dir/report");
    let (old, new) = (dice.bytes(300_000), dice.bytes(400_000));
    std::fs::write(&file, &old).unwrap();
    mount.sync();
    let before = named(&vault, "segments/");
    std::fs::write(&file, &new).unwrap();
    mount.unmount();
    let mut segments = named(&vault, "segments/");
    segments.retain(|name| !before.contains(name));
    let [segment] = segments.as_slice() else {
        panic!("{segments:?}");
    };
    let mut bytes = vault.storage.read(segment);
    // In the third block.
    bytes[16 + 2 * (65_536 + 28) + 500] ^= 1;
    vault.storage.replace(segment, &bytes);
    for options in [&["--data"][..], &["--repair"]] {
        let (code, lines) = verify(&vault, "a", options);
        assert_eq!(code, 5);
        let [finding, _summary] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        assert_eq!(finding["kind"], "block-damaged");
        assert_eq!(finding["object"], segment.as_str());
        assert_eq!(finding["block"], 2);
        assert_eq!(finding["severity"], "error");
        let file = &finding["files"][0];
        assert_eq!(file["path"], "dir/report");
        let range = serde_json::json!([{"from": 131_072, "to": 196_608}]);
        assert_eq!(file["ranges"], range);
    }
    assert_eq!(vault.storage.read(segment), bytes, "nothing was changed");
    let (_, lines) = verify(&vault, "a", &["--data"]);
    let version = lines[0]["files"][0]["earlier"].as_str().unwrap().to_owned();
    let mount = vault.mount("a");
    let file = mount.join("dir/report");
    vault
        .skrin(&["restore", "--at", &version])
        .arg(&file)
        .output_ok();
    assert_eq!(std::fs::read(&file).unwrap(), old);
    mount.unmount();
    vault
        .skrin(&["verify", &vault.address(), "--words-file"])
        .arg(vault.words_file())
        .output_ok();
}

#[test]
fn a_vault_that_was_made_where_another_was_is_not_repaired_into_that_one() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::write(mount.join("old"), "old").unwrap();
    mount.unmount();
    // Somebody begins anew at the same place, with the same passphrase.
    std::fs::remove_dir_all(vault.storage.local()).unwrap();
    std::fs::remove_file(vault.words_file()).unwrap();
    vault
        .skrin(&["init", &vault.address(), "--words-file"])
        .arg(vault.words_file())
        .output_ok();
    let made = all(&vault);
    let repair = || {
        let mut verify = vault.skrin(&["verify", &vault.address(), "--repair", "--state-dir"]);
        verify.arg(vault.state("a"));
        verify.env("SKRIN_PASSPHRASE_FILE", vault.path("passphrase"));
        verify.code()
    };
    let (code, said) = repair();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("another vault lies there"), "{said}");
    assert!(all(&vault) == made);
    // Once it was mounted here it is the one.
    let mount = vault.mount("a");
    std::fs::write(mount.join("new"), "new").unwrap();
    mount.unmount();
    let header = |vault: &Vault| all(vault).remove("skrin.vault");
    let (code, said) = repair();
    assert_eq!(code, 0, "{said}");
    assert_eq!(header(&vault), made.get("skrin.vault").cloned());
    let offline = vault.mount_with("a", &["--offline"]);
    assert_eq!(std::fs::read(offline.join("new")).unwrap(), b"new");
    offline.unmount();
}

#[test]
fn a_repair_is_refused_while_the_same_device_has_the_vault_mounted_and_goes_on_beside_others() {
    let (vault, files) = of_two_devices(On::Local);
    let mount = vault.mount("a");
    let (code, said) = vault
        .skrin(&["verify", &vault.address(), "--repair", "--words-file"])
        .arg(vault.words_file())
        .code();
    assert_eq!(code, 6, "{said}");
    // A commit of device b, while a goes on.
    let commits = named(&vault, "/lanes/");
    let before = all(&vault);
    for name in &commits {
        std::fs::write(mount.join("meanwhile"), name).unwrap();
        mount.sync();
        let path = vault.storage.local().join(name);
        std::fs::remove_file(&path).unwrap();
        let (_, lines) = verify(&vault, "b", &["--repair"]);
        let put = outcome(&lines).0.contains(name);
        assert_eq!(put, path.exists(), "{name}: {lines:?}");
        std::fs::write(&path, &before[name]).unwrap();
    }
    for (name, body) in &files {
        assert_eq!(std::fs::read(mount.join(name)).unwrap(), *body);
    }
    mount.unmount();
    vault.verify_clean();
}

#[test]
fn a_repair_is_not_done_while_the_storage_shows_less_than_the_device_has_seen() {
    let (vault, files) = of_two_devices(On::Local);
    // The last that b wrote, which device a has seen and follows in nothing of its own.
    let tips = named(&vault, "/tips/");
    let commits = named(&vault, "/lanes/");
    let newest = |tip: &&String| {
        let (lane, _) = tip.rsplit('/').next().unwrap().split_once('-').unwrap();
        let of_lane = commits.iter().filter(|name| name.contains(lane));
        of_lane.max().unwrap().clone()
    };
    for tip in &tips {
        let commit = newest(&tip);
        let kept = [tip, &commit].map(|name| (name.clone(), vault.storage.read(name)));
        for (name, _) in &kept {
            std::fs::remove_file(vault.storage.local().join(name)).unwrap();
        }
        let (on_a, lines) = verify(&vault, "a", &["--repair"]);
        let (repaired, wrong) = outcome(&lines);
        // Its own it has; of another's it knows that it was there.
        assert_eq!(on_a == 0, repaired.contains(&commit), "{lines:?}");
        assert_eq!(on_a == 0, wrong.is_empty(), "{lines:?}");
        let (on_b, lines) = verify(&vault, "b", &["--repair"]);
        assert_eq!(on_b, 0, "{lines:?}");
        assert_eq!(verify(&vault, "a", &["--repair"]).0, 0);
        assert_eq!(vault.storage.read(&commit), kept[1].1);
    }
    let mount = vault.mount("a");
    for (name, body) in &files {
        assert_eq!(std::fs::read(mount.join(name)).unwrap(), *body);
    }
    mount.unmount();
    vault.verify_clean();
}

/// The first of two segments cannot be put: the directory of copies takes no file for it.
#[test]
fn a_segment_that_cannot_be_put_again_keeps_no_other_from_it() {
    let (vault, _) = of_two_devices(On::Local);
    let mount = vault.mount("a");
    let id = mount.status()["vault_id"].as_str().unwrap().to_owned();
    mount.unmount();
    let segments = named(&vault, "segments/");
    let [first, second] = segments.as_slice() else {
        panic!("{segments:?}");
    };
    let before = all(&vault);
    for name in [first, second] {
        // In the header, which can be made again without a cache.
        let mut bytes = before[name].clone();
        bytes[3] ^= 1;
        vault.storage.replace(name, &bytes);
    }
    let damaged = vault.storage.read(first);
    let staged = format!("{}.new", first.rsplit('/').next().unwrap());
    let in_the_way = vault.state("a").join(id).join("repair").join(staged);
    std::fs::create_dir_all(&in_the_way).unwrap();
    let (code, lines) = verify(&vault, "a", &["--repair"]);
    assert_eq!(code, 5, "{lines:?}");
    let (repaired, wrong) = outcome(&lines);
    assert_eq!(repaired, [second.as_str()], "{lines:?}");
    assert_eq!(wrong, [first.as_str()], "{lines:?}");
    let what = lines.iter().find(|line| line["object"] == first.as_str());
    let what = what.unwrap()["what"].as_str().unwrap();
    assert!(what.contains("cannot be put again"), "{what}");
    assert_eq!(vault.storage.read(first), damaged, "nothing was changed");
    assert_eq!(vault.storage.read(second), before[second]);
    std::fs::remove_dir(&in_the_way).unwrap();
    let (code, lines) = verify(&vault, "a", &["--repair"]);
    assert_eq!(code, 0, "{lines:?}");
    assert!(all(&vault) == before);
    vault.verify_clean();
}
