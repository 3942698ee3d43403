//! Two mounts that did not know of each other: what is listed, and choosing through the mount.

use std::fs::{self, OpenOptions};
use std::path::Path;

use serde_json::Value;

use crate::harness::{Mount, Run, Vault, command, wait_for};
use crate::people::Team;
use crate::storages::On;

const BEFORE: &str = "what both know";
const ANNAS: &str = "what Anna wrote at home";

/// As many programs save.
fn save(at: &Path, text: &str) {
    let new = at.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, at).unwrap();
}

/// The conflict copies that a mount or a vault has.
fn listed(vault: &Vault, args: &[&str], place: &Path) -> Vec<Value> {
    let mut list = vault.skrin(&["conflicts", "--json"]);
    let text = list.args(args).arg(place).output_ok();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn keep(vault: &Vault, path: &Path) -> (i32, String) {
    vault.skrin(&["conflicts", "keep"]).arg(path).code()
}

/// The second of now, as times begin in answers.
fn second() -> String {
    let date = command("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%S"])
        .output_ok();
    date.trim().to_owned()
}

fn is_between(time: &Value, from: &str, to: &str) -> bool {
    let second = &time.as_str().unwrap()[..from.len()];
    from <= second && second <= to
}

/// A document that is edited at home, and saved again and again on a train.
fn in_conflict(vault: &Vault) -> (Mount<'_>, Mount<'_>) {
    let home = vault.mount("a");
    fs::create_dir(home.join("Documents")).unwrap();
    fs::write(home.join("Documents/report.docx"), BEFORE).unwrap();
    home.sync();
    let train = vault.mount("b");
    assert_eq!(
        fs::read_to_string(train.join("Documents/report.docx")).unwrap(),
        BEFORE
    );
    train.unmount();
    let train = vault.mount_with("b", &["--offline"]);
    for n in 1..=3 {
        save(
            &train.join("Documents/report.docx"),
            &format!("version {n} from the train"),
        );
    }
    train.unmount_with(&["--now"]);
    fs::write(home.join("Documents/report.docx"), ANNAS).unwrap();
    home.sync();
    let train = vault.mount("b");
    train.sync();
    wait_for("the copy to come home", || home.status()["conflicts"] == 1);
    (home, train)
}

#[test]
fn a_document_saved_on_a_train_and_at_home_is_one_conflict_and_is_settled_by_one_command() {
    let vault = Vault::new(On::Local);
    let begun = second();
    let (home, train) = in_conflict(&vault);
    let over = second();
    let [one] = &listed(&vault, &[], home.path())[..] else {
        panic!("{:?}", listed(&vault, &[], home.path()))
    };
    assert_eq!(one["cause"], "moved");
    assert_eq!(one["of"], "report.docx");
    assert_eq!(one["document"]["path"], "Documents/report.docx");
    assert_eq!(one["document"]["size"], ANNAS.len());
    assert_eq!(one["copy"]["path"], one["path"]);
    let copy = home.join(one["path"].as_str().unwrap());
    let host = command("uname").arg("-n").output_ok();
    let named = format!("report (conflict, {}, ", host.trim());
    assert!(one["path"].as_str().unwrap().contains(&named), "{one}");
    let mut members = vault.skrin(&["member", "list", "--json"]);
    let anna = members.arg(home.path()).output_ok();
    let anna: Value = serde_json::from_str(&anna).unwrap();
    for who in [one, &one["copy"], &one["document"]] {
        assert_eq!(who["device"], host.trim(), "{one}");
        assert_eq!(who["person"], anna["name"], "{one}");
    }
    let (copied, written) = (&one["copy"]["mtime"], &one["document"]["mtime"]);
    for time in [&one["time"], copied, written] {
        assert!(is_between(time, &begun, &over), "{begun} {over} {one}");
    }
    assert_eq!(
        fs::read_to_string(&copy).unwrap(),
        "version 3 from the train"
    );
    assert_eq!(
        fs::read_dir(home.join("Documents")).unwrap().count(),
        2,
        "one copy, though it was saved three times"
    );
    // The same from the vault alone, and nothing beside it.
    let words = vault.words_file();
    let words = ["--words-file", words.to_str().unwrap()];
    let alone = listed(&vault, &words, Path::new(&vault.address()));
    assert_eq!(alone, std::slice::from_ref(one));
    assert_eq!(listed(&vault, &[], &home.join("Documents")).len(), 1);
    let text = vault.skrin(&["conflicts"]).arg(train.path()).output_ok();
    assert!(text.contains("saved or moved over"), "{text}");
    let whose = format!("by {} ({})", host.trim(), anna["name"].as_str().unwrap());
    assert_eq!(text.matches(&whose).count(), 2, "{text}");

    let document = home.join("Documents/report.docx");
    let open = OpenOptions::new().append(true).open(&document).unwrap();
    let (code, said) = keep(&vault, &copy);
    assert!(code == 6 && said.contains("open for writing"), "{said}");
    drop(open);
    let (code, said) = keep(&vault, &home.join("Documents"));
    assert!(
        code == 7 && said.contains("neither a conflict copy"),
        "{said}"
    );
    assert_eq!(home.status()["conflicts"], 1);
    // The kernel tells of the close when it likes to.
    wait_for("the choice to be made", || keep(&vault, &copy).0 == 0);
    assert_eq!(
        fs::read_to_string(&document).unwrap(),
        "version 3 from the train"
    );
    assert!(!copy.exists());
    home.sync();
    let there = train.join("Documents/report.docx");
    wait_for("the choice to reach the other device", || {
        train.status()["conflicts"] == 0
            && fs::read_to_string(&there).unwrap() == "version 3 from the train"
    });
    let text = vault.skrin(&["conflicts"]).arg(train.path()).output_ok();
    assert_eq!(text, "no conflict copies\n");
    // What was not chosen is not lost.
    let version = one["document"]["version"].as_str().unwrap();
    let mut restore = vault.skrin(&["restore", "--at", version]);
    restore.arg(&document).output_ok();
    assert_eq!(fs::read_to_string(&document).unwrap(), ANNAS);
    train.unmount();
    home.unmount();
    vault.verify_clean();
}

#[test]
fn of_a_document_that_is_kept_the_copy_goes_and_a_read_only_mount_chooses_nothing() {
    let vault = Vault::new(On::Local);
    let (home, train) = in_conflict(&vault);
    train.unmount();
    let reader = vault.mount_with("b", &["--read-only"]);
    let copies = listed(&vault, &[], reader.path());
    let copy = copies[0]["path"].as_str().unwrap();
    let (code, said) = keep(&vault, &reader.join(copy));
    assert!(code == 1 && said.contains("read-only"), "{said}");
    reader.unmount();
    let mut chosen = vault.skrin(&["conflicts", "keep", "--json"]);
    let document = home.join("Documents/report.docx");
    let said: Value = serde_json::from_str(&chosen.arg(&document).output_ok()).unwrap();
    assert_eq!(said["gone"], serde_json::json!([copy]));
    assert_eq!(said["from"], Value::Null);
    assert_eq!(fs::read_to_string(&document).unwrap(), ANNAS);
    assert_eq!(fs::read_dir(home.join("Documents")).unwrap().count(), 1);
    home.unmount();
}

/// Their devices have one name here, as they are one machine.
#[test]
fn of_a_conflict_between_two_people_each_side_names_who_made_it() {
    let team = Team::new(On::Local);
    let anna = team.mount("anna", "anna");
    save(&anna.join("report"), BEFORE);
    anna.sync();
    team.bring(&anna, "bea", "editor");
    team.mount("bea", "bea").unmount();
    let mut offline = team.mount_command("bea", "bea");
    offline.arg("--offline").output_ok();
    let bea = Mount::adopt(&team.vault, team.vault.point("bea"));
    save(&bea.join("report"), "what Bea wrote on a train");
    bea.unmount_with(&["--now"]);
    save(&anna.join("report"), ANNAS);
    anna.sync();
    let bea = team.mount("bea", "bea");
    bea.sync();
    wait_for("the copy to come", || anna.status()["conflicts"] == 1);
    let members = team.members(&anna);
    let own = members.iter().find(|member| member["own"] == true).unwrap();
    for mount in [&anna, &bea] {
        let [one] = &listed(&team.vault, &[], mount.path())[..] else {
            panic!("{:?}", listed(&team.vault, &[], mount.path()))
        };
        assert_eq!(one["person"], "bea", "{one}");
        assert_eq!(one["copy"]["person"], "bea", "{one}");
        assert_eq!(one["document"]["person"], own["name"], "{one}");
    }
    bea.unmount();
    anna.unmount();
}
