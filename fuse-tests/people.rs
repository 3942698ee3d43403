//! Several people on one vault: invited, joined, removed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Mount, Run, Vault, files_below, kill, wait_for};
use crate::lifecycle::on_a_full_disk;
use crate::storages::{On, unless_gone};

/// A vault and those who share it. Each has a state directory and words of his own; nobody has those of another.
pub(crate) struct Team {
    pub(crate) vault: Vault,
}

impl Team {
    pub(crate) fn new(on: On) -> Self {
        Self {
            vault: Vault::new(on),
        }
    }

    pub(crate) fn words(&self, person: &str) -> PathBuf {
        match person {
            "anna" => self.vault.words_file(),
            person => self.vault.path(&format!("words-{person}")),
        }
    }

    /// Mounts as a person, on the machine of this name.
    pub(crate) fn mount_command(&self, person: &str, machine: &str) -> Command {
        let mut command = self.vault.skrin(&["mount", &self.vault.address()]);
        command
            .arg(self.vault.point(machine))
            .arg("--state-dir")
            .arg(self.vault.state(machine))
            .arg("--words-file")
            .arg(self.words(person));
        command
    }

    pub(crate) fn mount(&self, person: &str, machine: &str) -> Mount<'_> {
        self.mount_command(person, machine).output_ok();
        Mount::adopt(&self.vault, self.vault.point(machine))
    }

    /// Invites from a mount; the file with the invitation.
    fn invite(&self, from: &Mount<'_>, person: &str, role: &str) -> PathBuf {
        let file = self.vault.path(&format!("invitation-{person}"));
        let mut invite = self.vault.skrin(&["invite"]);
        invite.arg(from.path());
        invite.args(["--name", person, "--role", role, "--output"]);
        invite.arg(&file).output_ok();
        file
    }

    fn join_command(&self, invitation: &Path, person: &str) -> Command {
        let mut join = self.vault.skrin(&["join"]);
        join.arg(invitation).arg(self.vault.address());
        join.arg("--words-file").arg(self.words(person));
        join.arg("--state-dir").arg(self.vault.state(person));
        join
    }

    /// Invites and joins; the mount that invites answers.
    pub(crate) fn bring(&self, from: &Mount<'_>, person: &str, role: &str) {
        let invitation = self.invite(from, person, role);
        self.join_command(&invitation, person).output_ok();
    }

    pub(crate) fn members(&self, mount: &Mount<'_>) -> Vec<Value> {
        let mut list = self.vault.skrin(&["member", "list", "--json"]);
        let text = list.arg(mount.path()).output_ok();
        let parse = |line| serde_json::from_str(line).unwrap();
        text.lines().map(parse).collect()
    }

    pub(crate) fn role(&self, mount: &Mount<'_>, person: &str) -> String {
        let members = self.members(mount);
        let member = members.iter().find(|m| m["name"] == person);
        member.map_or("none".to_owned(), |m| {
            m["role"].as_str().unwrap().to_owned()
        })
    }

    pub(crate) fn remove(&self, from: &Mount<'_>, person: &str) {
        let mut remove = self.vault.skrin(&["member", "remove"]);
        remove.arg(from.path()).arg(person).output_ok();
    }
}

fn reads(mount: &Mount<'_>, name: &str, text: &str) -> bool {
    std::fs::read_to_string(mount.join(name)).is_ok_and(|back| back == text)
}

fn people_who_are_invited_share_a_vault_and_a_reader_cannot_write(on: On) {
    let team = Team::new(on);
    let anna = team.mount("anna", "anna");
    std::fs::write(anna.join("plan"), "from before").unwrap();
    anna.sync();
    team.bring(&anna, "bea", "editor");
    team.bring(&anna, "carl", "reader");
    let bea = team.mount("bea", "bea");
    let carl = team.mount("carl", "carl");
    assert!(reads(&bea, "plan", "from before"));
    std::fs::write(bea.join("plan"), "from bea").unwrap();
    std::fs::write(bea.join("new"), "of bea").unwrap();
    bea.sync();
    for mount in [&anna, &carl] {
        wait_for("what Bea wrote", || {
            reads(mount, "plan", "from bea") && reads(mount, "new", "of bea")
        });
    }
    let refused = std::fs::write(carl.join("plan"), "from carl").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(30), "EROFS: {refused}");
    let roles = ["anna", "bea", "carl"].map(|person| team.role(&bea, person));
    assert_eq!(roles[1..], ["editor", "reader"]);
    assert_eq!(team.members(&carl).len(), 3);
    for mount in [carl, bea, anna] {
        mount.unmount();
    }
    team.vault.verify_clean();
}

#[test]
fn people_who_are_invited_share_a_vault_and_a_reader_cannot_write_on_a_local_folder() {
    people_who_are_invited_share_a_vault_and_a_reader_cannot_write(On::Local);
}

#[test]
fn people_who_are_invited_share_a_vault_and_a_reader_cannot_write_on_webdav() {
    people_who_are_invited_share_a_vault_and_a_reader_cannot_write(On::WebDav);
}

#[test]
fn people_who_are_invited_share_a_vault_and_a_reader_cannot_write_on_s3() {
    people_who_are_invited_share_a_vault_and_a_reader_cannot_write(On::S3);
}

fn who_is_removed_while_writing_writes_and_reads_nothing_more(on: On) {
    let team = Team::new(on);
    let anna = team.mount("anna", "anna");
    team.bring(&anna, "bea", "editor");
    let bea = team.mount("bea", "bea");
    std::fs::write(bea.join("shared"), vec![b'x'; 200_000]).unwrap();
    bea.sync();
    wait_for("what Bea wrote", || {
        std::fs::metadata(anna.join("shared")).is_ok_and(|meta| meta.len() == 200_000)
    });
    // She goes on writing while she is removed.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let _ = std::fs::write(bea.join(format!("late-{n}")), "late");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        team.remove(&anna, "bea");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(team.role(&anna, "bea"), "removed");
    let secret = "written after the removal";
    std::fs::write(anna.join("after"), secret).unwrap();
    // New contents of an old file, whose key she had.
    std::fs::write(anna.join("shared"), secret.repeat(4000)).unwrap();
    anna.sync();
    // Her mount learns of it, and says so.
    wait_for("her mount to refuse", || {
        std::fs::write(bea.join("more"), "more").is_err()
    });
    assert!(!bea.join("after").exists());
    let seen: Vec<_> = names(&anna);
    std::fs::write(anna.join("still"), "here").unwrap();
    anna.sync();
    bea.unmount_with(&["--now"]);
    // Nothing of what she wrote later came.
    let later: Vec<_> = names(&anna)
        .into_iter()
        .filter(|n| !seen.contains(n))
        .collect();
    assert_eq!(later, ["still"]);
    // With all that she ever had and the whole storage.
    let dest = team.vault.path("stolen");
    let mut export = team.vault.skrin(&["export", &team.vault.address()]);
    export.arg(&dest).arg("--words-file").arg(team.words("bea"));
    let (code, said) = export.code();
    assert_ne!(code, 0, "{said}");
    assert!(!dest.join("after").exists());
    let stolen = std::fs::read_to_string(dest.join("shared")).unwrap_or_default();
    assert!(!stolen.contains(secret));
    let again = team.mount_command("bea", "bea").code();
    assert_ne!(again.0, 0, "{}", again.1);
    anna.unmount();
    team.vault.verify_clean();
}

fn names(mount: &Mount<'_>) -> Vec<String> {
    let entries = std::fs::read_dir(mount.path()).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries.map(|e| name(e).into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn who_is_removed_while_writing_writes_and_reads_nothing_more_on_a_local_folder() {
    who_is_removed_while_writing_writes_and_reads_nothing_more(On::Local);
}

#[test]
fn who_is_removed_while_writing_writes_and_reads_nothing_more_on_webdav() {
    who_is_removed_while_writing_writes_and_reads_nothing_more(On::WebDav);
}

#[test]
fn who_is_removed_while_writing_writes_and_reads_nothing_more_on_s3() {
    who_is_removed_while_writing_writes_and_reads_nothing_more(On::S3);
}

/// Joins as Bea, without a file for the words.
fn join_without_a_file(team: &Team, invitation: &Path, options: &[&str]) -> Command {
    let mut join = team.vault.skrin(&["join"]);
    join.arg(invitation).arg(team.vault.address());
    join.arg("--state-dir").arg(team.vault.state("bea"));
    join.args(options);
    join
}

/// Whether Bea has keys that were made to join with.
fn has_begun_to_join(team: &Team) -> bool {
    let files = files_below(&team.vault.state("bea")).into_iter();
    let mut names = files.filter_map(|file| file.file_name()?.to_str().map(str::to_owned));
    names.any(|name| name.starts_with("joining-") && !name.contains('.'))
}

/// The words in rows as they are shown: each behind its number.
fn shown_words(text: &str) -> Vec<&str> {
    let is_number = |token: &str| {
        let number = token.strip_suffix('.');
        number.is_some_and(|number| number.parse::<u8>().is_ok())
    };
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let pairs = tokens.windows(2).filter(|pair| is_number(pair[0]));
    pairs.map(|pair| pair[1]).collect()
}

#[test]
fn who_was_stopped_while_joining_is_shown_the_words_by_the_next_run_and_then_no_more() {
    let team = Team::new(On::Local);
    let anna = team.mount("anna", "anna");
    let invitation = team.invite(&anna, "bea", "editor");
    // So nobody answers.
    anna.unmount();
    let join = |options: &[&str]| join_without_a_file(&team, &invitation, options);
    let mut waiting = join(&["--json"]);
    waiting.stdout(Stdio::piped()).stderr(Stdio::null());
    let child = waiting.spawn().unwrap();
    wait_for("the keys to be made", || has_begun_to_join(&team));
    kill(child.id(), "TERM");
    let stopped = child.wait_with_output().unwrap();
    assert!(stopped.stdout.is_empty(), "{stopped:?}");
    let text = join(&["--no-wait"]).output_ok();
    let words = shown_words(&text);
    assert_eq!(words.len(), 12, "{text}");
    let again = join(&["--no-wait"]).output_ok();
    assert!(shown_words(&again).is_empty(), "{again}");
    // They are the words.
    std::fs::write(team.words("bea"), words.join(" ")).unwrap();
    let anna = team.mount("anna", "anna");
    join(&[]).output_ok();
    let bea = team.mount("bea", "bea");
    assert_eq!(team.role(&bea, "bea"), "editor");
    bea.unmount();
    anna.unmount();
}

#[test]
fn a_join_fails_whose_words_cannot_be_shown_and_nothing_of_them_is_lost() {
    let team = Team::new(On::Local);
    let anna = team.mount("anna", "anna");
    let invitation = team.invite(&anna, "bea", "editor");
    let join = |options: &[&str]| join_without_a_file(&team, &invitation, options);
    let (code, said) = on_a_full_disk(&mut join(&["--no-wait"]));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("standard output"), "{said}");
    assert!(!has_begun_to_join(&team), "nobody has been asked");
    // With all done, but that nobody can read what it says.
    let (code, said) = on_a_full_disk(&mut join(&["--json"]));
    assert_eq!(code, 1, "{said}");
    assert_eq!(team.role(&anna, "bea"), "editor");
    let joined = join(&[]).output_ok();
    let words = shown_words(&joined);
    assert_eq!(words.len(), 12, "{joined}");
    assert!(!has_begun_to_join(&team));
    std::fs::write(team.words("bea"), words.join(" ")).unwrap();
    team.mount("bea", "bea").unmount();
    anna.unmount();
}

#[test]
fn an_invitation_serves_once_and_not_after_its_time() {
    let team = Team::new(On::Local);
    let anna = team.mount("anna", "anna");
    let invitation = team.invite(&anna, "bea", "editor");
    team.join_command(&invitation, "bea").output_ok();
    // Somebody who has read it asks as well; nobody looks for him any more.
    let mut second = team.vault.skrin(&["join"]);
    second.arg(&invitation).arg(team.vault.address());
    second
        .arg("--words-file")
        .arg(team.vault.path("words-other"));
    second.arg("--state-dir").arg(team.vault.state("other"));
    second.arg("--no-wait").output_ok();
    team.bring(&anna, "dora", "reader");
    let names: Vec<_> = team
        .members(&anna)
        .iter()
        .map(|m| m["name"].clone())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    second.output_ok();
    assert_eq!(team.members(&anna).len(), 3);
    let mut late = team.vault.skrin(&["invite"]);
    let file = team.vault.path("late");
    late.arg(anna.path())
        .args(["--name", "carl", "--expires", "1s", "--output"]);
    late.arg(&file).output_ok();
    std::thread::sleep(Duration::from_secs(2));
    let (code, said) = team.join_command(&file, "carl").code();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("expired"), "{said}");
    anna.unmount();
}

#[test]
fn a_lost_device_is_revoked_and_reads_nothing_that_comes_later() {
    let team = Team::new(On::Local);
    let desktop = team.mount("anna", "desktop");
    let laptop = team.mount("anna", "laptop");
    std::fs::write(laptop.join("file"), "before").unwrap();
    laptop.sync();
    wait_for("the file", || reads(&desktop, "file", "before"));
    let mut list = team.vault.skrin(&["device", "list", "--json"]);
    let text = list.arg(laptop.path()).output_ok();
    let own = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let own = own
        .into_iter()
        .find(|device| device["own"] == true)
        .unwrap();
    let mut revoke = team.vault.skrin(&["device", "revoke"]);
    revoke
        .arg(desktop.path())
        .arg(own["device"].as_str().unwrap());
    revoke
        .arg("--words-file")
        .arg(team.words("anna"))
        .output_ok();
    std::fs::write(desktop.join("file"), "after").unwrap();
    desktop.sync();
    wait_for("the laptop to refuse", || {
        std::fs::write(laptop.join("file"), "thief").is_err()
    });
    assert!(reads(&desktop, "file", "after"));
    assert!(!reads(&laptop, "file", "after"));
    laptop.unmount_with(&["--now"]);
    desktop.unmount();
    team.vault.verify_clean();
}

#[test]
fn safety_numbers_are_the_same_for_all_who_look() {
    let team = Team::new(On::Local);
    let anna = team.mount("anna", "anna");
    team.bring(&anna, "bea", "manager");
    let bea = team.mount("bea", "bea");
    let number = |mount: &Mount<'_>, of: &str| {
        let mut show = team
            .vault
            .skrin(&["identity", "show", "--json", "--of", of]);
        let text = show.arg(mount.path()).output_ok();
        let value: Value = serde_json::from_str(&text).unwrap();
        value["safety_number"].as_str().unwrap().to_owned()
    };
    let own = team
        .vault
        .skrin(&["identity", "show", "--qr"])
        .arg(bea.path())
        .output_ok();
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).count();
    assert_eq!(number(&anna, "bea"), number(&bea, "bea"));
    assert_eq!(digits(&number(&anna, "bea")), 60);
    assert!(own.contains(&number(&bea, "bea")[..35]), "{own}");
    bea.unmount();
    anna.unmount();
}

#[test]
fn an_invitation_outlives_the_mount_that_made_it() {
    let team = Team::new(On::Local);
    let anna = team.mount("anna", "anna");
    let invitation = team.invite(&anna, "bea", "editor");
    anna.unmount();
    let kept = team.vault.path("state-anna");
    let text = std::fs::read_to_string(&invitation).unwrap();
    let anna = team.mount("anna", "anna");
    team.join_command(&invitation, "bea").output_ok();
    assert_eq!(team.role(&anna, "bea"), "editor");
    let secret = text.trim().as_bytes();
    for path in files_below(&kept) {
        let Some(bytes) = unless_gone(std::fs::read(&path)) else {
            continue;
        };
        let holds = bytes
            .windows(20)
            .any(|w| secret.windows(20).any(|s| s == w));
        assert!(!holds, "{path:?} holds the invitation");
    }
    anna.unmount();
}

#[test]
fn a_membership_ends_at_its_time_without_anybody_doing_anything() {
    let team = Team::new(On::Local);
    let anna = team.mount("anna", "anna");
    let file = team.vault.path("invitation");
    // Longer than a slow machine takes to invite and join.
    let until = std::time::SystemTime::now() + Duration::from_secs(90);
    let until = until
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let until = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("@{until}")])
        .output_ok();
    let mut invite = team.vault.skrin(&["invite"]);
    invite
        .arg(anna.path())
        .args(["--name", "bea", "--until", until.trim(), "--output"]);
    invite.arg(&file).output_ok();
    team.join_command(&file, "bea").output_ok();
    // The mount tries again a minute after it could not.
    let end = Instant::now() + Duration::from_secs(180);
    while team.role(&anna, "bea") != "removed" {
        assert!(Instant::now() < end, "she is a member after her time");
        std::thread::sleep(Duration::from_millis(500));
    }
    anna.unmount();
}

#[test]
fn who_is_made_a_reader_writes_nothing_more_and_managers_invite() {
    let team = Team::new(On::Local);
    let anna = team.mount("anna", "anna");
    team.bring(&anna, "bea", "manager");
    let bea = team.mount("bea", "bea");
    team.bring(&bea, "carl", "editor");
    let carl = team.mount("carl", "carl");
    std::fs::write(carl.join("his"), "before").unwrap();
    carl.sync();
    wait_for("what Carl wrote", || reads(&bea, "his", "before"));
    let mut role = team.vault.skrin(&["member", "role"]);
    role.arg(bea.path()).args(["carl", "reader"]).output_ok();
    wait_for("his mount to refuse", || {
        std::fs::write(carl.join("probe"), "after").is_err()
    });
    assert!(reads(&carl, "his", "before"));
    std::fs::write(bea.join("news"), "of Bea").unwrap();
    bea.sync();
    wait_for("what Bea wrote", || reads(&carl, "news", "of Bea"));
    // An editor and a reader decide nothing, and nobody removes the owner.
    for (mount, whom) in [(&carl, "bea"), (&bea, "anna")] {
        let owner = team.members(&anna);
        let owner = owner.iter().find(|m| m["role"] == "owner").unwrap();
        let whom = match whom {
            "anna" => owner["person"].as_str().unwrap().to_owned(),
            other => other.to_owned(),
        };
        let mut remove = team.vault.skrin(&["member", "remove"]);
        let (code, said) = remove.arg(mount.path()).arg(whom).code();
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("not allowed"), "{said}");
    }
    for mount in [carl, bea, anna] {
        mount.unmount_with(&["--now"]);
    }
}

#[test]
fn the_new_passphrase_opens_the_vault_and_the_old_one_does_not() {
    let team = Team::new(On::Local);
    let vault = &team.vault;
    let new = vault.path("new passphrase");
    std::fs::write(&new, "seventeen green walruses").unwrap();
    let mut change = vault.skrin(&["passphrase", &vault.address(), "--new-passphrase-file"]);
    change.arg(&new).output_ok();
    let list = |file: &Path| {
        let mut list = vault.skrin(&["member", "list", &vault.address(), "--passphrase-file"]);
        list.arg(file).code()
    };
    let (code, said) = list(&vault.path("passphrase"));
    assert_eq!(code, 3, "{said}");
    let (code, said) = list(&new);
    assert_eq!(code, 0, "{said}");
    vault.verify_clean();
}

#[test]
fn the_audit_tells_who_decided_what_in_an_order_in_which_nothing_comes_before_what_it_follows() {
    let team = Team::new(On::Local);
    let anna = team.mount("anna", "anna");
    team.bring(&anna, "bea", "editor");
    team.remove(&anna, "bea");
    let mut audit = team.vault.skrin(&["audit", "--json"]);
    let text = audit.arg(anna.path()).output_ok();
    let entries: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let told = |what: &str| {
        let is_it = |entry: &Value| entry["what"].as_str().unwrap().starts_with(what);
        entries
            .iter()
            .position(is_it)
            .unwrap_or_else(|| panic!("{what}: {text}"))
    };
    let made = told("made the vault");
    assert!(made < told("let bea in as editor") && told("let bea in") < told("removed bea"));
    let mut seen = Vec::new();
    for entry in &entries {
        for follows in entry["follows"].as_array().unwrap() {
            assert!(seen.contains(follows), "{entry} before {follows}");
        }
        seen.push(entry["id"].clone());
        assert_eq!(entry["counts"], true);
    }
    // The vault says the same without a mount, and what is older is left out.
    let mut audit = team
        .vault
        .skrin(&["audit", "--json", &team.vault.address()]);
    let unmounted = audit
        .arg("--words-file")
        .arg(team.words("anna"))
        .output_ok();
    assert_eq!(unmounted, text);
    let mut audit = team
        .vault
        .skrin(&["audit", "--json", "--since", "2020-01-01"]);
    assert_eq!(audit.arg(anna.path()).output_ok(), text);
    anna.unmount();
}

/// A look for a lock file is waited for so long, then what is known is shown.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn what_a_device_writes_that_has_just_come_is_seen_by_the_next_look() {
    let team = Team::new(On::Local);
    let here = team.mount("anna", "laptop");
    for device in ["desktop", "phone"] {
        let there = team.mount("anna", device);
        let lock = format!(".~lock.{device}.odt#");
        std::fs::write(there.join(&lock), "Anna").unwrap();
        there.sync();
        // Whoever looks for a lock file makes a look of its own, unless there was one a moment ago.
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        let seen = reads(&here, &lock, "Anna");
        // It is waited for a moment, and goes on where the machine is slower.
        assert!(seen || begun.elapsed() >= LOOK_PATIENCE, "{device}");
        wait_for("the lock file", || reads(&here, &lock, "Anna"));
        there.unmount();
    }
    here.unmount();
}
