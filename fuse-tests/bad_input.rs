//! Everything that people get wrong has its own message and exit code.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use skrin_servers::{Kind, Server};

use crate::harness::{Run, SKRIN, Vault, command, is_mounted};
use crate::storages::On;

/// Mounts and expects a refusal with this exit code, and a message with these words; nothing stays mounted.
fn refused(
    vault: &Vault,
    vault_address: &str,
    point: &Path,
    change: impl for<'c> FnOnce(&'c mut Command) -> &'c mut Command,
    code: i32,
    words: &[&str],
) {
    let mut command = vault.skrin(&["mount", vault_address]);
    command.arg(point);
    change(&mut command);
    let (got, said) = command.code();
    assert_eq!(got, code, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
    assert_eq!(
        said.lines()
            .filter(|line| line.starts_with("skrin: error: "))
            .count(),
        1,
        "{said}"
    );
    assert!(!is_mounted(point));
}

fn with_words(vault: &Vault) -> impl for<'c> FnOnce(&'c mut Command) -> &'c mut Command {
    let words = vault.words_file();
    move |command| command.arg("--words-file").arg(words)
}

#[test]
fn a_wrong_passphrase_is_3() {
    let vault = Vault::new(On::Local);
    std::fs::write(vault.path("wrong"), "seven blue horses 43\n").unwrap();
    let wrong = vault.path("wrong");
    let point = vault.point("a");
    refused(
        &vault,
        &vault.address(),
        &point,
        |c| c.arg("--passphrase-file").arg(wrong),
        3,
        &["passphrase"],
    );
    std::fs::write(
        vault.path("other words"),
        "legal winner thank year wave sausage worth useful legal winner thank yellow",
    )
    .unwrap();
    let words = vault.path("other words");
    refused(
        &vault,
        &vault.address(),
        &point,
        |c| c.arg("--words-file").arg(words),
        3,
        &["words"],
    );
    std::fs::write(
        vault.path("typo"),
        "legal winner thank year wave sausage worth useful legal winner thank thank",
    )
    .unwrap();
    let typo = vault.path("typo");
    refused(
        &vault,
        &vault.address(),
        &point,
        |c| c.arg("--words-file").arg(typo),
        3,
        &["checksum"],
    );
    let (code, _) = vault
        .skrin(&["verify", &vault.address(), "--passphrase-file"])
        .arg(vault.path("wrong"))
        .code();
    assert_eq!(code, 3);
}

#[test]
fn the_right_passphrase_mounts() {
    let vault = Vault::new(On::Local);
    let point = vault.point("a");
    vault
        .skrin(&["mount", &vault.address()])
        .arg(&point)
        .output_ok();
    let mount = crate::harness::Mount::adopt(&vault, point);
    // Argon2id took 256 MiB for a moment; they were given back.
    let memory = mount.status()["memory_bytes"].as_u64().unwrap();
    assert!(memory < 128 << 20, "{} MiB are in use", memory >> 20);
    mount.unmount();
}

#[test]
fn what_is_no_vault_is_7() {
    let vault = Vault::without_init(On::Local);
    let point = vault.point("a");
    let empty = vault.path("empty");
    std::fs::create_dir(&empty).unwrap();
    refused(
        &vault,
        empty.to_str().unwrap(),
        &point,
        |c| c,
        7,
        &["no vault", "skrin init"],
    );
    let missing = vault.path("missing");
    refused(
        &vault,
        missing.to_str().unwrap(),
        &point,
        |c| c,
        7,
        &["missing"],
    );
    assert!(
        !missing.exists(),
        "mount made the folder of a vault that is not there"
    );
    for on in [On::WebDav, On::S3] {
        let vault = Vault::without_init(on);
        refused(&vault, &vault.address(), &point, |c| c, 7, &["no vault"]);
    }
    refused(
        &vault,
        "https://example.invalid/v",
        &point,
        |c| c,
        2,
        &["webdavs://"],
    );
    refused(
        &vault,
        "ftp://example.invalid/v",
        &point,
        |c| c,
        2,
        &["ftp"],
    );
}

#[test]
fn a_newer_format_is_1_and_says_update() {
    let vault = Vault::new(On::Local);
    let header = vault.storage.local().join("skrin.vault");
    let mut bytes = std::fs::read(&header).unwrap();
    // docs/format/vault.md, section 1: the version follows the magic, and a hash of all before it ends the header.
    bytes[4] += 1;
    let body = bytes.len() - 32;
    let hash = blake3::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(hash.as_bytes());
    std::fs::set_permissions(&header, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&header, bytes).unwrap();
    let point = vault.point("a");
    refused(
        &vault,
        &vault.address(),
        &point,
        with_words(&vault),
        1,
        &["version 2", "update"],
    );
}

#[test]
fn a_server_that_asks_for_credentials_is_4() {
    let vault = Vault::new(On::WebDav);
    let point = vault.point("a");
    refused(
        &vault,
        &vault.address(),
        &point,
        |c| {
            c.env_remove("SKRIN_WEBDAV_USER")
                .env_remove("SKRIN_WEBDAV_PASSWORD")
        },
        4,
        &["asks for a user and a password", "~/.netrc"],
    );
    refused(
        &vault,
        &vault.address(),
        &point,
        |c| c.env("SKRIN_WEBDAV_PASSWORD", "hunter2"),
        4,
        &["SKRIN_WEBDAV_PASSWORD"],
    );
    let s3 = Vault::new(On::S3);
    refused(
        &s3,
        &s3.address(),
        &point,
        |c| c.env("AWS_SECRET_ACCESS_KEY", "hunter2"),
        4,
        &["AWS_ACCESS_KEY_ID"],
    );
}

#[test]
fn a_certificate_that_does_not_verify_is_4() {
    let vault = Vault::new(On::WebDav);
    let point = vault.point("a");
    refused(
        &vault,
        &vault.address(),
        &point,
        |c| c.env_remove("SKRIN_CA_FILE"),
        4,
        &["certificate", "SKRIN_CA_FILE"],
    );
}

#[test]
fn a_server_that_is_down_is_4() {
    let mut server = Server::start(Kind::Nginx).unwrap();
    let vault = Vault::without_init(On::Local);
    server.kill();
    let point = vault.point("a");
    refused(
        &vault,
        &server.vault_url("v"),
        &point,
        |c| c,
        4,
        &["127.0.0.1", "check the network"],
    );
    let mut mount = vault.skrin(&["mount", &server.vault_url("v")]);
    let (_, said) = mount.arg(&point).code();
    assert!(!said.contains("tried again"), "{said}");
}

#[test]
fn a_full_disk_is_1_for_init_and_enospc_for_a_write() {
    let vault = Vault::without_init(On::Local);
    let disk = vault.path("disk");
    std::fs::create_dir(&disk).unwrap();
    command("mount")
        .args(["-t", "tmpfs", "-o", "size=12m", "skrin-test"])
        .arg(&disk)
        .output_ok();
    let full = FullDisk(&disk);
    let address = disk.join("vault");
    vault
        .skrin(&["init", address.to_str().unwrap(), "--words-file"])
        .arg(vault.words_file())
        .output_ok();
    let point = vault.point("a");
    let mut mount = vault.skrin(&["mount", address.to_str().unwrap(), "--durability", "remote"]);
    mount
        .arg(&point)
        .arg("--words-file")
        .arg(vault.words_file())
        .output_ok();
    let mount = crate::harness::Mount::adopt(&vault, point);
    std::fs::write(mount.join("small"), "fits").unwrap();
    let written = write_synced(&mount.join("large"), 30 << 20);
    assert_eq!(
        written.unwrap_err().raw_os_error(),
        Some(28),
        "ENOSPC is expected"
    );
    std::fs::remove_file(mount.join("large")).unwrap();
    assert_eq!(
        std::fs::read_to_string(mount.join("small")).unwrap(),
        "fits"
    );
    mount.unmount_with(&["--now"]);
    std::fs::write(disk.join("filler"), vec![0u8; 12 << 20]).unwrap_err();
    let second = disk.join("second");
    let (code, said) = vault.skrin(&["init", second.to_str().unwrap()]).code();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("free some space"), "{said}");
    drop(full);
}

fn write_synced(path: &Path, len: usize) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    file.write_all(&crate::harness::Dice(3).bytes(len))?;
    file.sync_all()
}

/// A small tmpfs that goes away whatever happens.
struct FullDisk<'a>(&'a Path);

impl Drop for FullDisk<'_> {
    fn drop(&mut self) {
        command("umount").arg("-l").arg(self.0).finish();
    }
}

#[test]
fn a_mount_point_that_is_missing_not_empty_or_mounted_is_refused() {
    let vault = Vault::new(On::Local);
    let missing = vault.path("no such directory");
    refused(
        &vault,
        &vault.address(),
        &missing,
        with_words(&vault),
        7,
        &["no such directory", "--mkdir"],
    );
    assert!(!missing.exists());
    let full = vault.point("full");
    std::fs::write(full.join("file"), "x").unwrap();
    refused(
        &vault,
        &vault.address(),
        &full,
        with_words(&vault),
        6,
        &["not empty"],
    );
    let file = vault.path("a file");
    std::fs::write(&file, "x").unwrap();
    refused(
        &vault,
        &vault.address(),
        &file,
        with_words(&vault),
        2,
        &["not a directory"],
    );
    let mount = vault.mount("a");
    let mut again = vault.skrin(&["mount", &vault.address()]);
    let (code, said) = again
        .arg(mount.path())
        .arg("--words-file")
        .arg(vault.words_file())
        .code();
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("mounted there already"), "{said}");
    mount.unmount();
}

#[test]
fn a_second_mount_with_the_same_state_is_6() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let other = vault.point("other");
    refused(
        &vault,
        &vault.address(),
        &other,
        with_words(&vault),
        6,
        &["in use", "--state-dir"],
    );
    mount.unmount();
}

#[test]
fn secrets_on_the_command_line_are_2_and_not_repeated() {
    for args in [
        &["mount", "v", "m", "--passphrase=hunter2"][..],
        &["init", "webdavs://anna:hunter2@host/v"],
        &["verify", "s3://key:hunter2@bucket/v"],
        &["mount", "v", "m", "--password", "hunter2"],
        &["mount", "v", "m", "--passwd=hunter2"],
        &["mount", "v", "m", "--pin", "hunter2"],
        &["mount", "v", "m", "--key", "hunter2"],
        &["mount", "v", "m", "hunter2"],
        &["mount", "v", "m", "--memory", "hunter2"],
        &["mount", "v", "m", "--durability=hunter2"],
        &["status", "--json=hunter2"],
        &["status", "--hunter2"],
        &["hunter2"],
    ] {
        let (code, said) = command(SKRIN).args(args).code();
        assert_eq!(code, 2, "{said}");
        assert!(said.starts_with("skrin: error: "), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["mount", "--help"], &["--version"]] {
        let said = command(SKRIN).args(args).output_ok();
        assert!(said.contains("skrin"), "{said}");
    }
}

#[test]
fn a_way_without_tls_is_warned_of_unless_it_ends_on_this_machine() {
    let vault = Vault::without_init(On::Local);
    let point = vault.point("a");
    // Offline, so that nobody is asked: the address alone decides.
    for (address, warned) in [
        ("webdav://host.example/v", true),
        ("s3://bucket/v?endpoint=http://host.example", true),
        ("webdavs://host.example/v", false),
        ("s3://bucket/v?endpoint=https://host.example", false),
        ("webdav://127.0.0.2:8080/v", false),
        ("webdav://[::1]/v", false),
        ("s3://bucket/v?endpoint=http://localhost:9000", false),
    ] {
        let mut mount = vault.skrin(&["mount", address, "--offline"]);
        let (code, said) = mount.arg(&point).code();
        assert_eq!(code, 7, "{said}");
        let warnings = said
            .lines()
            .filter(|line| line.starts_with("skrin: warning: ") && line.contains("host.example"));
        assert_eq!(warnings.count(), usize::from(warned), "{address}: {said}");
    }
    let mut mount = vault.skrin(&["mount", "s3://bucket/v", "--offline"]);
    mount.env("AWS_ENDPOINT_URL", "http://host.example");
    let (_, said) = mount.arg(&point).code();
    assert!(said.contains("skrin: warning: "), "{said}");
}

#[test]
fn refusals_say_what_to_do_next() {
    let vault = Vault::new(On::Local);
    let point = vault.point("a");
    std::fs::write(vault.path("few"), "legal winner thank year").unwrap();
    std::fs::write(vault.path("wrong"), "seven blue horses 43\n").unwrap();
    for (option, file, code, words) in [
        (
            "--words-file",
            "few",
            3,
            "4 words were given, there must be 12: give all",
        ),
        ("--passphrase-file", "wrong", 3, "keyboard layout"),
        (
            "--passphrase-file",
            "not there",
            7,
            "name a text file that you can read",
        ),
    ] {
        let file = vault.path(file);
        refused(
            &vault,
            &vault.address(),
            &point,
            |c| c.arg(option).arg(file),
            code,
            &[words],
        );
    }
    refused(
        &vault,
        "s3://b/v",
        &point,
        |c| c,
        2,
        &["3 to 63 characters"],
    );
}

#[test]
fn init_on_a_terminal_shows_the_words_on_lines_of_their_own() {
    let vault = Vault::without_init(On::Local);
    let init = format!("'{SKRIN}' init '{}'", vault.address());
    let said = command("script")
        .args(["-qec", &init, "/dev/null"])
        .env("SKRIN_PASSPHRASE_FILE", vault.path("passphrase"))
        .output_ok();
    assert!(!said.contains("\\u{"), "{said}");
    let (words, _) = said.split_once("made vault").unwrap();
    let shown = words
        .split_whitespace()
        .skip_while(|word| *word != "1.")
        .filter(|word| word.bytes().all(|b| b.is_ascii_lowercase()));
    assert_eq!(shown.count(), 12, "{said}");
}

#[test]
fn init_refuses_what_is_there_and_weak_passphrases() {
    let vault = Vault::new(On::Local);
    let (code, said) = vault.skrin(&["init", &vault.address()]).code();
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("already"), "{said}");
    let fresh = Vault::without_init(On::Local);
    std::fs::write(fresh.path("weak"), "hunter2").unwrap();
    let (code, said) = fresh
        .skrin(&["init", &fresh.address(), "--passphrase-file"])
        .arg(fresh.path("weak"))
        .code();
    assert_eq!(code, 2, "{said}");
    assert!(!said.contains("hunter2"));
    assert!(fresh.storage.objects().is_empty());
}

#[test]
fn commands_on_what_is_not_mounted_are_7() {
    let vault = Vault::without_init(On::Local);
    let point = vault.point("a");
    for verb in ["unmount", "sync", "status"] {
        let (code, said) = vault.skrin(&[verb]).arg(&point).code();
        assert_eq!(code, 7, "{verb}: {said}");
        assert!(said.contains("no vault is mounted there"), "{said}");
    }
    let (code, _) = vault.skrin(&["frobnicate"]).code();
    assert_eq!(code, 2);
}

#[test]
fn without_a_terminal_or_a_file_nobody_is_asked_for_ever() {
    let vault = Vault::new(On::Local);
    let point = vault.point("a");
    refused(
        &vault,
        &vault.address(),
        &point,
        |c| c.env_remove("SKRIN_PASSPHRASE_FILE"),
        2,
        &["--passphrase-file"],
    );
}
