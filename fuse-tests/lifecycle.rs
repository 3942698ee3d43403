//! How mounts begin and end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::{
    Dice, Mount, Run, Vault, command, files_below, is_alive, is_mounted, kill, wait_for,
};
use crate::relay::Distant;
use crate::storages::{On, unless_gone};
use skrin_servers::{Kind, Server};

#[test]
fn unmount_now_says_what_is_left_and_the_next_mount_uploads_it() {
    let vault = Vault::new(On::Local);
    let point = vault.point("a");
    let (code, said) = vault.mount_command("a", &point, &["--offline"]).code();
    assert_eq!(code, 7, "{said}");
    vault.mount("a").unmount();
    let mount = vault.mount_with("a", &["--offline"]);
    let body = Dice(41).bytes(3_000_000);
    std::fs::write(mount.join("file"), &body).unwrap();
    let pending = mount.status()["pending"]["bytes"].as_u64().unwrap();
    let said = mount.unmount_with(&["--now"]);
    assert!(said.contains("left in the journal"), "{said}");
    assert!(pending >= 3_000_000, "{pending}");
    let other = vault.mount("b");
    assert!(!other.join("file").exists());
    other.unmount();
    let mount = vault.mount("a");
    assert!(std::fs::read(mount.join("file")).unwrap() == body);
    mount.unmount();
    let other = vault.mount("b");
    assert!(std::fs::read(other.join("file")).unwrap() == body);
    other.unmount();
}

#[test]
fn sigterm_unmounts_cleanly() {
    for signal in ["TERM", "INT"] {
        let vault = Vault::new(On::Local);
        let mount = vault.mount("a");
        std::fs::write(mount.join("file"), signal).unwrap();
        kill(mount.pid(), signal);
        wait_for("the process to end", || !is_alive(mount.pid()));
        assert!(!is_mounted(mount.path()));
        drop(mount);
        let mount = vault.mount("a");
        assert_eq!(std::fs::read_to_string(mount.join("file")).unwrap(), signal);
        mount.unmount();
    }
}

#[test]
fn a_second_sigterm_ends_a_mount_that_waits_for_a_server_which_does_not_answer() {
    let distant = Distant::new();
    let mount = distant.mount("a");
    let body = Dice(61).bytes(3_000_000);
    distant.relay.shut();
    std::fs::write(mount.join("file"), &body).unwrap();
    let logs = files_below(&distant.vault.state("a"));
    let log = logs.iter().find(|file| file.ends_with("log")).unwrap();
    let logged = |words: &str| std::fs::read_to_string(log).unwrap().contains(words);
    kill(mount.pid(), "TERM");
    wait_for("the first signal to be heard", || logged("asked to end"));
    assert!(is_alive(mount.pid()) && is_mounted(mount.path()));
    kill(mount.pid(), "TERM");
    wait_for("the process to end", || !is_alive(mount.pid()));
    // By the signal, not because its patience was over.
    assert!(logged("asked to end again"));
    assert!(logged("left in the journal for the next mount"));
    assert!(!is_mounted(mount.path()));
    drop(mount);
    distant.relay.open();
    let mount = distant.mount("a");
    assert!(std::fs::read(mount.join("file")).unwrap() == body);
    mount.unmount();
    let other = distant.mount("b");
    assert!(std::fs::read(other.join("file")).unwrap() == body);
    other.unmount();
}

#[test]
fn foreground_stays_until_it_is_told_to_end() {
    let vault = Vault::new(On::Local);
    let point = vault.point("a");
    let mut child = vault
        .mount_command("a", &point, &["--foreground"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line.contains("mounted")));
    let mount = Mount::adopt(&vault, point);
    assert!(is_alive(mount.pid()));
    kill(mount.pid(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(mount);
}

#[test]
fn a_mount_point_that_mount_made_takes_no_plain_text_and_goes_with_the_mount() {
    let vault = Vault::new(On::Local);
    let point = vault.path("made");
    vault.mount_command("a", &point, &["--mkdir"]).output_ok();
    let mount = Mount::adopt(&vault, point.clone());
    std::fs::write(mount.join("file"), "x").unwrap();
    mount.unmount();
    assert!(!point.exists());
    // After a crash it is there, and closed: even to root where the file system has immutable directories.
    vault.mount_command("a", &point, &["--mkdir"]).output_ok();
    let mount = Mount::adopt(&vault, point.clone());
    mount.crash();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&point).unwrap());
    assert_eq!(mode & 0o777, 0);
    // The next mount takes it over.
    vault.mount_command("a", &point, &["--mkdir"]).output_ok();
    Mount::adopt(&vault, point.clone()).unmount();
    assert!(!point.exists());
    // A directory that somebody else made stays.
    let theirs = vault.point("theirs");
    vault.mount_command("a", &theirs, &["--mkdir"]).output_ok();
    Mount::adopt(&vault, theirs.clone()).unmount();
    assert!(theirs.exists());
}

#[test]
fn without_its_server_a_vault_mounts_from_what_is_known_and_nobody_waits_for_ever() {
    let mut server = Server::start(Kind::Rclone).unwrap();
    let vault = Vault::without_init(On::Local);
    let address = server.vault_url("vault");
    let env = server.env();
    let skrin = |args: &[&str]| {
        let mut command = vault.skrin(args);
        command.envs(env.clone());
        command
    };
    let words = vault.words_file();
    skrin(&["init", &address, "--words-file"])
        .arg(&words)
        .output_ok();
    let point = vault.point("a");
    let mount = |device: &str| {
        let mut command = skrin(&["mount", &address, "--words-file"]);
        command
            .arg(&words)
            .arg("--state-dir")
            .arg(vault.state(device));
        let said = command.arg(&point).output_ok();
        (Mount::adopt(&vault, point.clone()), said)
    };
    let body = Dice(51).bytes(300_000);
    let (first, _) = mount("a");
    std::fs::write(first.join("file"), &body).unwrap();
    first.unmount();
    let (again, _) = mount("a");
    assert!(std::fs::read(again.join("file")).unwrap() == body);
    again.unmount();

    server.kill();
    let (alone, said) = mount("a");
    assert!(said.contains("mounting what is known here"), "{said}");
    let cached = std::fs::read(alone.join("file")).unwrap();
    assert!(cached == body, "the cache had other bytes");
    std::fs::write(alone.join("written on a train"), &body).unwrap();
    let (code, said) = vault.skrin(&["unmount"]).arg(&point).code();
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("--now"), "{said}");

    server.restart().unwrap();
    alone.unmount();
    let (other, _) = mount("b");
    assert!(std::fs::read(other.join("written on a train")).unwrap() == body);
    other.unmount();
}

#[test]
fn retention_and_gc_say_that_the_server_is_away_and_what_was_set_holds_when_it_is_back() {
    let mut server = Server::start(Kind::Rclone).unwrap();
    let vault = Vault::without_init(On::Local);
    let address = server.vault_url("vault");
    let env = server.env();
    let words = vault.words_file();
    let mut init = vault.skrin(&["init", &address, "--words-file"]);
    init.envs(env.clone()).arg(&words).output_ok();
    let mount = |device: &str| {
        let point = vault.point(device);
        let mut mount = vault.skrin(&["mount", &address, "--words-file"]);
        mount.envs(env.clone()).arg(&words);
        mount.arg("--state-dir").arg(vault.state(device));
        mount.arg(&point).output_ok();
        Mount::adopt(&vault, point)
    };
    let here = mount("a");
    std::fs::write(here.join("file"), "x").unwrap();
    here.sync();
    server.kill();
    for args in [&["retention", "7d"][..], &["gc"]] {
        let mut command = vault.skrin(&args[..1]);
        let (code, said) = command.arg(here.path()).args(&args[1..]).code();
        assert_eq!(code, 4, "{args:?}: {said}");
    }
    server.restart().unwrap();
    here.sync();
    vault.skrin(&["gc"]).arg(here.path()).output_ok();
    let there = mount("b");
    for mount in [&here, &there] {
        let mut retention = vault.skrin(&["retention", "--json"]);
        let said = retention.arg(mount.path()).output_ok();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["seconds"], 7 * 86_400, "{said}");
    }
    there.unmount();
    here.unmount();
}

#[test]
fn pins_that_are_set_at_the_same_time_are_all_kept() {
    const FILES: usize = 24;
    let vault = Vault::new(On::WebDav);
    let mount = vault.mount("a");
    let paths: Vec<_> = (0..FILES)
        .map(|n| mount.join(format!("file-{n}")))
        .collect();
    for path in &paths {
        std::fs::write(path, "kept").unwrap();
    }
    let pin = |path: &PathBuf| {
        let mut pin = vault.skrin(&["pin", "--no-wait"]);
        pin.arg(path).stdout(Stdio::null()).stderr(Stdio::null());
        pin.spawn().unwrap()
    };
    let pinning: Vec<_> = paths.iter().map(pin).collect();
    for mut child in pinning {
        assert!(child.wait().unwrap().success());
    }
    let pinned = |mount: &Mount<'_>| {
        let listed = mount.status()["pinned"]["paths"].clone();
        listed.as_array().unwrap().len()
    };
    assert_eq!(pinned(&mount), FILES);
    mount.unmount();
    let mount = vault.mount("a");
    assert_eq!(pinned(&mount), FILES);
    mount.unmount();
}

/// As if nobody could read what a program says.
pub(crate) fn on_a_full_disk(command: &mut Command) -> (i32, String) {
    let full = std::fs::File::options().write(true).open("/dev/full");
    command.stdout(full.unwrap()).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), said)
}

#[test]
fn init_makes_no_vault_whose_words_cannot_be_shown() {
    let plain: &[&str] = &[];
    for options in [plain, &["--json"]] {
        let vault = Vault::without_init(On::Local);
        let mut init = vault.skrin(&["init", &vault.address()]);
        let (code, said) = on_a_full_disk(init.args(options));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("no vault was made"), "{said}");
        assert!(!vault.storage.local().join("skrin.vault").exists());
        // In a file they are somewhere.
        let vault = Vault::without_init(On::Local);
        let mut init = vault.skrin(&["init", &vault.address(), "--words-file"]);
        let (code, said) = on_a_full_disk(init.arg(vault.words_file()).args(options));
        assert_eq!(code, 0, "{said}");
        vault.mount("a").unmount();
    }
}

#[test]
fn a_dead_mount_is_cleared_by_mount_and_by_unmount() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    kill(mount.pid(), "KILL");
    wait_for("the process to be gone", || !is_alive(mount.pid()));
    assert!(is_mounted(mount.path()));
    let said = vault.skrin(&["unmount"]).arg(mount.path()).output_ok();
    assert!(!is_mounted(mount.path()), "{said}");
    drop(mount);
    let mount = vault.mount("a");
    kill(mount.pid(), "KILL");
    wait_for("the process to be gone", || !is_alive(mount.pid()));
    let again = vault.mount("a");
    assert!(std::fs::read_dir(again.path()).unwrap().next().is_none());
    again.unmount();
    drop(mount);
}

#[test]
fn a_busy_mount_is_6_and_names_who_holds_it() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "x").unwrap();
    let held = std::fs::File::open(mount.join("file")).unwrap();
    let (code, said) = vault.skrin(&["unmount"]).arg(mount.path()).code();
    assert_eq!(code, 6, "{said}");
    assert!(said.contains(&std::process::id().to_string()), "{said}");
    assert_eq!(std::fs::read_to_string(mount.join("file")).unwrap(), "x");
    std::fs::write(mount.join("file"), "still writable").unwrap();
    drop(held);
    mount.unmount();
}

/// CI failed on it: nobody held the mount by the time somebody looked.
#[test]
fn a_mount_that_is_in_use_for_a_moment_only_is_unmounted_all_the_same() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "x").unwrap();
    // So that it is tried at once.
    mount.sync();
    let held = std::fs::File::open(mount.join("file")).unwrap();
    let moment = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(held);
    });
    mount.unmount();
    moment.join().unwrap();
}

#[test]
fn there_are_no_core_dumps_and_keys_are_locked() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", mount.pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let key_memory = mount.status()["key_memory"].as_str().unwrap().to_owned();
    assert!(
        ["locked", "no-swap"].contains(&key_memory.as_str()),
        "{key_memory}"
    );
    mount.unmount();
}

#[test]
fn the_local_cache_may_be_deleted_at_any_time() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    crate::rsync::copy(crate::tree::small_tree(), mount.path());
    mount.unmount();
    let state = std::fs::read_dir(vault.state("a"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for entry in std::fs::read_dir(&state).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("meta.db") {
            std::fs::remove_file(entry.path()).unwrap();
        } else if name == "cache" {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let mount = vault.mount("a");
    crate::rsync::assert_same(crate::tree::small_tree(), mount.path());
    mount.unmount();
}

#[test]
fn status_knows_that_the_storage_was_spoken_to_from_the_beginning() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    assert_eq!(mount.status()["online"], true);
    std::fs::write(mount.join("file"), "x").unwrap();
    mount.sync();
    assert_eq!(mount.status()["online"], true);
    mount.unmount();
    let mount = vault.mount_with("a", &["--offline"]);
    assert!(mount.status()["online"].is_null());
    mount.unmount();
}

#[test]
fn local_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "x").unwrap();
    mount.sync();
    let files = files_below(&vault.state("a"));
    for name in ["heads", "meta.db", "meta.db-wal", "device", "lock", "log"] {
        let mut found = files.iter().filter(|file| file.ends_with(name));
        let file = found
            .next()
            .unwrap_or_else(|| panic!("{name} is missing in {files:?}"));
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", file.display());
    }
    mount.unmount();
}

#[test]
fn the_disk_cache_and_the_journal_are_for_their_owner_alone_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let vault = Vault::new(On::WebDav);
    let body = Dice(62).bytes(3_000_000);
    let writer = vault.mount("b");
    std::fs::write(writer.join("file"), &body).unwrap();
    writer.unmount();
    let point = vault.point("a");
    let mount = vault.mount_command("a", &point, &[]);
    let mut lax = command("sh");
    lax.args(["-c", "umask 0; exec \"$@\"", "sh"])
        .arg(mount.get_program())
        .args(mount.get_args())
        .envs(
            mount
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .output_ok();
    let mount = Mount::adopt(&vault, point);
    assert!(std::fs::read(mount.join("file")).unwrap() == body);
    std::fs::write(mount.join("new"), &body).unwrap();
    let mut seen = BTreeMap::new();
    let mut rest = vec![vault.state("a")];
    while let Some(path) = rest.pop() {
        let Some(meta) = unless_gone(std::fs::metadata(&path)) else {
            continue;
        };
        let way = path.display();
        let mode = meta.permissions().mode() & 0o7777;
        let expected = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{way}: {mode:o}");
        for part in ["cache", "journal"] {
            let inside = path.components().any(|name| name.as_os_str() == part);
            *seen.entry((part, meta.is_dir())).or_insert(0) += u32::from(inside);
        }
        if meta.is_dir() {
            let entries = unless_gone(std::fs::read_dir(&path)).into_iter().flatten();
            rest.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen.values().all(|count| *count > 0), "{seen:?}");
    mount.unmount();
}

#[test]
fn status_without_a_directory_lists_all_mounts() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let all = vault.skrin(&["status", "--json"]).output_ok();
    assert!(
        all.lines()
            .any(|line| line.contains(mount.path().to_str().unwrap())),
        "{all}"
    );
    mount.unmount();
}
