//! Recovery keys: nobody has his own keys any more, and everything comes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Mount, Run, files_below, wait_for};
use crate::people::Team;
use crate::storages::On;

impl Team {
    /// Makes a key in shares; their files.
    fn enable_shares(&self, from: &Mount<'_>) -> Vec<PathBuf> {
        let dir = self.vault.path("shares");
        let mut enable = self.vault.skrin(&["recovery", "enable"]);
        enable
            .arg(from.path())
            .args(["--shares", "2/3", "--output"]);
        enable.arg(&dir).arg("--words-file").arg(self.words("anna"));
        enable.output_ok();
        (1..=3)
            .map(|n| dir.join(format!("share-{n}-of-3")))
            .collect()
    }

    fn with_shares(&self, verb: &[&str], shares: &[&PathBuf]) -> Command {
        let mut command = self.vault.skrin(verb);
        for share in shares {
            command.arg("--share-file").arg(share);
        }
        command
    }

    fn audit(&self, mount: &Mount<'_>) -> Vec<String> {
        let mut audit = self.vault.skrin(&["audit", "--json"]);
        let text = audit.arg(mount.path()).output_ok();
        let entry = |line| -> Value { serde_json::from_str(line).unwrap() };
        let what = |line| entry(line)["what"].as_str().unwrap().to_owned();
        text.lines().map(what).collect()
    }
}

/// The files below a directory.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_below(dir).into_iter();
    let relative = |path: &Path| path.strip_prefix(dir).unwrap().to_owned();
    files
        .map(|path| (relative(&path), std::fs::read(&path).unwrap()))
        .collect()
}

const NAME: &str = "recovery key (2 of 3 shares)";

fn everything_comes_back_with_two_of_three_shares_and_all_members_see_it(on: On) {
    let team = Team::new(on);
    let address = team.vault.address();
    let anna = team.mount("anna", "anna");
    std::fs::write(anna.join("old"), vec![b'o'; 300_000]).unwrap();
    anna.sync();
    team.bring(&anna, "bea", "editor");
    let bea = team.mount("bea", "bea");
    let shares = team.enable_shares(&anna);
    // Under keys that were made after it, and by somebody else.
    std::fs::create_dir(bea.join("dir")).unwrap();
    std::fs::write(bea.join("dir/of bea"), vec![b'b'; 300_000]).unwrap();
    bea.sync();
    team.bring(&anna, "carl", "reader");
    team.remove(&anna, "carl");
    std::fs::write(anna.join("new"), "after a removal").unwrap();
    anna.sync();
    wait_for("what Bea wrote", || anna.join("dir/of bea").exists());
    assert_eq!(team.role(&bea, NAME), "recovery");
    bea.unmount();
    // Whoever mounts is told, once.
    let told = "made a recovery key";
    let said = team.mount_command("bea", "bea").output_ok();
    assert!(said.contains(told) && said.contains(NAME), "{said}");
    Mount::adopt(&team.vault, team.vault.point("bea")).unmount();
    let said = team.mount_command("bea", "bea").output_ok();
    assert!(!said.contains(told), "{said}");
    Mount::adopt(&team.vault, team.vault.point("bea")).unmount();

    let two = [&shares[2], &shares[0]];
    let mut drill = team.with_shares(&["recovery", "drill", &address, "--json"], &two);
    let drilled: Value = serde_json::from_str(&drill.output_ok()).unwrap();
    assert!(drilled["epochs"].as_u64().unwrap() >= 4);
    assert_eq!(drilled["opened"], drilled["epochs"]);

    // It is there to read, not to work with.
    let point = team.vault.point("nowhere");
    let mut mount = team.with_shares(&["mount", &address], &two);
    mount
        .arg(&point)
        .arg("--state-dir")
        .arg(team.vault.state("nowhere"));
    let (code, said) = mount.code();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("skrin export"), "{said}");
    // One share opens nothing, and says how many do.
    let dest = team.vault.path("recovered");
    let mut one = team.with_shares(&["export", &address], &two[..1]);
    let (code, said) = one.arg(&dest).code();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("2 are needed"), "{said}");
    std::fs::remove_dir_all(&dest).unwrap_or_default();

    // All keys are gone: no passphrase, no words, no state directory but the shares.
    let expected = contents(anna.path());
    let mut export = team.with_shares(&["export", &address], &two);
    export.arg(&dest).output_ok();
    let found = contents(&dest);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    assert!(found == expected);
    let used = "read the vault with the recovery key";
    wait_for("the word of the recovery key", || {
        team.audit(&anna).iter().any(|what| what == used)
    });
    let audit = team.audit(&anna);
    assert!(
        audit
            .iter()
            .any(|what| what == "showed that the recovery key works"),
        "{audit:?}"
    );

    // Who removes it keeps what comes later from it.
    team.remove(&anna, NAME);
    std::fs::write(anna.join("secret"), "not for the key").unwrap();
    anna.sync();
    let later = team.vault.path("later");
    let mut export = team.with_shares(&["export", &address], &two);
    let (code, said) = export.arg(&later).code();
    assert_ne!(code, 0, "{said}");
    assert!(!later.join("secret").exists());
    anna.unmount();
    team.vault.verify_clean();
}

#[test]
fn everything_comes_back_with_two_of_three_shares_and_all_members_see_it_on_a_local_folder() {
    everything_comes_back_with_two_of_three_shares_and_all_members_see_it(On::Local);
}

#[test]
fn everything_comes_back_with_two_of_three_shares_and_all_members_see_it_on_webdav() {
    everything_comes_back_with_two_of_three_shares_and_all_members_see_it(On::WebDav);
}

#[test]
fn everything_comes_back_with_two_of_three_shares_and_all_members_see_it_on_s3() {
    everything_comes_back_with_two_of_three_shares_and_all_members_see_it(On::S3);
}

#[test]
fn an_undivided_recovery_key_is_shown_once_and_its_words_read_everything() {
    let team = Team::new(On::Local);
    let address = team.vault.address();
    let anna = team.mount("anna", "anna");
    std::fs::write(anna.join("file"), "contents").unwrap();
    anna.unmount();
    let words_of_anna = team.words("anna");
    let mut enable = team
        .vault
        .skrin(&["recovery", "enable", &address, "--json"]);
    enable.arg("--words-file").arg(&words_of_anna);
    let made: Value = serde_json::from_str(&enable.output_ok()).unwrap();
    let words = made["words"][0].as_str().unwrap();
    assert_eq!(
        (words.split(' ').count(), &made["needed"]),
        (12, &Value::from(1))
    );
    let file = team.vault.path("paper");
    std::fs::write(&file, words).unwrap();
    let dest = team.vault.path("recovered");
    let mut export = team.vault.skrin(&["export", &address]);
    export.arg(&dest).arg("--words-file").arg(&file).output_ok();
    assert_eq!(std::fs::read(dest.join("file")).unwrap(), b"contents");
    // What is there already is not written over.
    let mut again = team
        .vault
        .skrin(&["recovery", "enable", &address, "--output"]);
    again.arg(&file).arg("--words-file").arg(&words_of_anna);
    assert_eq!(again.code().0, 6);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), words);
    let taken = team.vault.path("taken");
    std::fs::create_dir(&taken).unwrap();
    let mut shares = team.vault.skrin(&[
        "recovery", "enable", &address, "--shares", "2/3", "--output",
    ]);
    shares.arg(&taken).arg("--words-file").arg(&words_of_anna);
    assert_eq!(shares.code().0, 6);
    assert_eq!(std::fs::read_dir(&taken).unwrap().count(), 0);
    // Neither made a member of anybody.
    let mut list = team.vault.skrin(&["member", "list", &address, "--json"]);
    let members = list.arg("--words-file").arg(&words_of_anna).output_ok();
    assert_eq!(members.lines().count(), 2, "{members}");
    // Nobody's own words make a drill.
    let mut drill = team.vault.skrin(&["recovery", "drill", &address]);
    let (code, said) = drill.arg("--words-file").arg(&words_of_anna).code();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no words of a recovery key"), "{said}");
}
