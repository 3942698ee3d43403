//! `--json` of the commands that do something: one object on standard output, whatever else there is to say.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Dice, Mount, Run, Vault, files_below, is_alive, kill, wait_for};
use crate::storages::On;

/// The one object that a command says, and its exit code.
fn said(command: &mut Command) -> (Value, i32) {
    let output = command.arg("--json").finish();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = serde_json::from_str(&text);
    let value = value.unwrap_or_else(|e| panic!("{command:?}: {e} in {text:?}"));
    assert_eq!(text.lines().count(), 1, "{text}");
    (value, output.status.code().unwrap())
}

fn said_ok(command: &mut Command) -> Value {
    let (value, code) = said(command);
    assert_eq!(code, 0, "{value}");
    value
}

fn path_of(value: &Value) -> &Path {
    Path::new(value.as_str().unwrap())
}

#[test]
fn init_tells_scripts_the_words_only_where_no_file_holds_them() {
    let vault = Vault::without_init(On::Local);
    let made = said_ok(&mut vault.skrin(&["init", &vault.address()]));
    let id = made["vault_id"].as_str().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(made["vault"].as_str().unwrap(), vault.address());
    assert!(made["words_file"].is_null());
    let words = made["words"].as_str().unwrap();
    assert_eq!(words.split(' ').count(), 12);
    // They are the words.
    std::fs::write(vault.words_file(), words).unwrap();
    let mount = vault.mount("a");
    assert!(vault.state("a").join(id).is_dir());
    mount.unmount();

    let vault = Vault::without_init(On::Local);
    let mut init = vault.skrin(&["init", &vault.address(), "--words-file"]);
    let made = said_ok(init.arg(vault.words_file()));
    assert_eq!(path_of(&made["words_file"]), vault.words_file());
    assert!(made.get("words").is_none(), "{made}");
    vault.mount("a").unmount();
}

#[test]
fn mount_sync_and_unmount_tell_scripts_where_who_and_what_is_left() {
    let vault = Vault::new(On::Local);
    let point = vault.point("a");
    let mounted = said_ok(&mut vault.mount_command("a", &point, &[]));
    let mount = Mount::adopt(&vault, point.clone());
    let status = mount.status();
    for field in ["vault", "vault_id", "mount_point", "pid", "heads_code"] {
        assert_eq!(mounted[field], status[field], "{field}");
    }
    assert_eq!(path_of(&mounted["mount_point"]), point);
    let state = path_of(&mounted["state_dir"]).to_owned();
    assert!(state.starts_with(vault.state("a")) && state.join("device").is_file());
    assert_eq!(mounted["read_only"], false);
    assert_eq!(mounted["online"], true);
    // A new device, of which the text output says the same.
    assert_eq!(mounted["new_device"], true);
    let notes = mounted["notes"].to_string();
    let code = mounted["heads_code"].as_str().unwrap();
    assert!(notes.contains("new device") && notes.contains(code));

    std::fs::write(mount.join("file"), Dice(7).bytes(100_000)).unwrap();
    let synced = said_ok(vault.skrin(&["sync"]).arg(mount.join("file")));
    assert_eq!(path_of(&synced["mount_point"]), point);
    let nothing = serde_json::json!({"bytes": 0, "operations": 0});
    assert_eq!(synced["pending"], nothing);
    let unmounted = said_ok(vault.skrin(&["unmount"]).arg(&point));
    assert_eq!(path_of(&unmounted["mount_point"]), point);
    assert_eq!(unmounted["pending"], nothing);
    drop(mount);

    let options = ["--offline", "--read-only"];
    let mounted = said_ok(&mut vault.mount_command("a", &point, &options));
    assert_eq!(mounted["read_only"], true);
    assert!(mounted["online"].is_null(), "{mounted}");
    assert_eq!(mounted["new_device"], false);
    assert_eq!(mounted["notes"], serde_json::json!([]));
    Mount::adopt(&vault, point).unmount();
}

#[test]
fn unmount_tells_scripts_what_stays_in_the_journal_and_that_it_cannot_know() {
    let vault = Vault::new(On::Local);
    vault.mount("a").unmount();
    let mount = vault.mount_with("a", &["--offline"]);
    std::fs::write(mount.join("file"), Dice(8).bytes(100_000)).unwrap();
    let unmounted = said_ok(vault.skrin(&["unmount", "--now"]).arg(mount.path()));
    assert!(unmounted["pending"]["bytes"].as_u64().unwrap() >= 100_000);
    assert!(unmounted["pending"]["operations"].as_u64().unwrap() >= 1);
    wait_for("the process to end", || !is_alive(mount.pid()));
    drop(mount);
    let mount = vault.mount("a");
    kill(mount.pid(), "KILL");
    wait_for("the process to be gone", || !is_alive(mount.pid()));
    let unmounted = said_ok(vault.skrin(&["unmount"]).arg(mount.path()));
    assert!(unmounted["pending"].is_null(), "{unmounted}");
    drop(mount);
}

#[test]
fn a_mount_in_the_foreground_tells_scripts_once_that_it_answers() {
    let vault = Vault::new(On::Local);
    let point = vault.point("a");
    let mut child = vault
        .mount_command("a", &point, &["--foreground", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It stands in the table of mounts before it answers.
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut rest) = (String::new(), String::new());
    out.read_line(&mut line).unwrap();
    let mount = Mount::adopt(&vault, point.clone());
    kill(mount.pid(), "TERM");
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mounted: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(mounted["pid"].as_u64().unwrap(), u64::from(mount.pid()));
    assert_eq!(path_of(&mounted["mount_point"]), point);
    drop(mount);
}

#[test]
fn export_tells_scripts_what_it_wrote_and_how_many_files_are_not_whole() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::create_dir(mount.join("dir")).unwrap();
    for number in 0..3 {
        let body = Dice(number).bytes(100_000);
        std::fs::write(mount.join(format!("dir/{number}")), body).unwrap();
    }
    mount.unmount();
    let export = |dest: &str| {
        let mut command = vault.skrin(&["export", &vault.address(), "--words-file"]);
        said(command.arg(vault.words_file()).arg(vault.path(dest)))
    };
    let (exported, code) = export("whole");
    assert_eq!(code, 0);
    assert_eq!(exported["vault"].as_str().unwrap(), vault.address());
    assert_eq!(path_of(&exported["dest"]), vault.path("whole"));
    for (field, value) in [("files", 3), ("bytes", 300_000), ("damaged", 0)] {
        assert_eq!(exported[field], value, "{field}");
    }
    let segments = vault.storage.local().join("segments");
    for file in files_below(&segments) {
        std::fs::remove_file(file).unwrap();
    }
    let (exported, code) = export("damaged");
    assert_eq!(code, 5);
    for (field, value) in [("files", 3), ("bytes", 0), ("damaged", 3)] {
        assert_eq!(exported[field], value, "{field}");
    }
}

#[test]
fn an_error_under_json_is_text_on_standard_error_and_nothing_on_standard_output() {
    let vault = Vault::without_init(On::Local);
    std::fs::create_dir(vault.path("there")).unwrap();
    std::fs::write(vault.path("there/file"), "x").unwrap();
    let (there, point) = (vault.path("there"), vault.point("a"));
    let (there, point) = (there.to_str().unwrap(), point.to_str().unwrap());
    for (args, code) in [
        (&["mount", "/no/such/vault", point][..], 7),
        (&["mount", "/no/such/vault", point, "--foreground"], 7),
        (&["sync", point], 7),
        (&["unmount", point], 7),
        (&["status", point], 7),
        (&["export", "/no/such/vault", there], 6),
        (&["verify", "/no/such/vault"], 7),
        (&["init", "ftp://example.invalid/v"], 2),
    ] {
        let output = vault.skrin(args).arg("--json").finish();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("skrin: error: "), "{args:?}: {text}");
    }
}
