//! What a storage does to single objects: a byte that is flipped in each kind of them, and everything else that can be done to one.

mod apart;
mod each;
mod slots;
mod told;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::harness::{Dice, Mount, Run, Vault, files_below};
use crate::storages::On;

type IsKind = fn(&str) -> bool;

/// Kinds of objects, by what their names look like.
const KINDS: [(&str, IsKind); 8] = [
    ("header", |name| name == "skrin.vault"),
    ("slot", |name| name.starts_with("slots/")),
    ("control record", |name| name.contains("/control/")),
    ("commit", |name| name.contains("/lanes/")),
    ("page", |name| name.contains("/pages/")),
    ("checkpoint", |name| name.contains("/checkpoints/")),
    ("tip", |name| name.contains("/tips/")),
    ("segment", |name| name.starts_with("segments/")),
];

/// Something in the root of the vault, and the objects that its upload put on the storage.
struct Filed {
    name: String,
    /// None for a directory of `MANY` empty files.
    body: Option<Vec<u8>>,
    objects: BTreeSet<String>,
}

const MANY: usize = 5000;

/// A vault with every kind of object, and what is in it.
fn filled(on: On) -> (Vault, Vec<Filed>) {
    let vault = Vault::new(on);
    let mut dice = Dice(31);
    let mut filed = Vec::new();
    for device in ["a", "b"] {
        let mount = vault.mount(device);
        let mut file = |name: String, body: Option<Vec<u8>>| {
            let before = names(&vault, |_| true);
            let path = mount.join(&name);
            match &body {
                Some(body) => std::fs::write(path, body).unwrap(),
                // Enough changes for a checkpoint.
                None => {
                    std::fs::create_dir(&path).unwrap();
                    for number in 0..MANY {
                        std::fs::File::create(path.join(number.to_string())).unwrap();
                    }
                }
            }
            mount.sync();
            let objects = &names(&vault, |_| true) - &before;
            filed.push(Filed {
                name,
                body,
                objects,
            });
        };
        for number in 0..4 {
            file(format!("{device}{number}"), Some(dice.bytes(200_000)));
        }
        file(format!("many-{device}"), None);
        mount.unmount();
    }
    (vault, filed)
}

fn names(vault: &Vault, is_kind: IsKind) -> BTreeSet<String> {
    let all = vault.storage.objects().into_iter().map(|(name, _)| name);
    all.filter(|name| is_kind(name)).collect()
}

fn objects(vault: &Vault, is_kind: IsKind) -> Vec<(String, PathBuf)> {
    let root = vault.storage.local();
    names(vault, is_kind)
        .into_iter()
        .map(|name| (name.clone(), root.join(name)))
        .collect()
}

/// Flips a bit of one byte, and gives back what undoes it.
fn flip<'a>(vault: &'a Vault, name: &'a str, at: usize) -> impl FnOnce() + 'a {
    let before = vault.storage.read(name);
    let mut changed = before.clone();
    changed[at % before.len()] ^= 0x10;
    vault.storage.replace(name, &changed);
    move || vault.storage.replace(name, &before)
}

fn verify_names(vault: &Vault, kind: &str, name: &str) {
    let (code, findings, said) = told::verify(vault);
    assert_eq!(code, 5, "{kind} {name}: {said}");
    told::assert_finding(&findings, kind, name, false, &format!("{kind} {name}"));
}

fn verify_names_the_object_of_every_kind_that_was_changed(on: On) {
    let (vault, _) = filled(on);
    vault.verify_clean();
    let mut dice = Dice(32);
    for (kind, is_kind) in KINDS {
        let found = names(&vault, is_kind);
        let mut left_over = orphans(&vault, kind, found.len());
        // On a server one of each kind: it is the same code that judges the bytes.
        let tried = if on == On::Local { 3 } else { 1 };
        let mut named = 0;
        for name in &found {
            if named == tried {
                break;
            }
            if left_over > 0 && !is_proposed(&vault, name) {
                left_over -= 1;
                continue;
            }
            let undo = flip(&vault, name, dice.roll() as usize % (1 << 30));
            verify_names(&vault, kind, name);
            undo();
            named += 1;
        }
        assert!(named > 0, "there is no {kind}");
    }
    vault.verify_clean();
}

/// How many of those of a kind that are there are nobody's: what was put of a checkpoint that was interrupted, which `verify` does not read.
fn orphans(vault: &Vault, kind: &str, found: usize) -> usize {
    let counted = match kind {
        "page" => "pages",
        "checkpoint" => "checkpoints",
        _ => return 0,
    };
    let said = vault
        .skrin(&["verify", &vault.address(), "--json", "--words-file"])
        .arg(vault.words_file())
        .output_ok();
    let summary = said.lines().last().unwrap();
    let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
    found - summary[counted].as_u64().unwrap() as usize
}

/// What became of something in the vault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Found {
    Whole,
    Eio,
    /// Not there, or not all names in the directory.
    Absent,
}

/// Reads all of it; anything but its very bytes, EIO or nothing at all is wrong.
fn look_at(mount: &Mount<'_>, filed: &Filed, what: &str) -> Found {
    let path = mount.join(&filed.name);
    let right = match &filed.body {
        Some(body) => std::fs::read(path).map(|back| (back == *body, Found::Whole)),
        None => std::fs::read_dir(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map(|entries| match entries.len() {
                MANY => (true, Found::Whole),
                fewer => (fewer < MANY, Found::Absent),
            }),
    };
    match right.map_err(|error| error.raw_os_error()) {
        Ok((right, found)) => {
            assert!(right, "{what}: {} came back otherwise", filed.name);
            found
        }
        Err(Some(5)) => Found::Eio,
        Err(Some(2)) => Found::Absent,
        Err(other) => panic!("{what}: {}: {other:?}", filed.name),
    }
}

/// What a mount on a new device came to.
enum Outcome {
    /// Exit code 5, and the object is named, with a reason.
    Refused,
    /// It answers; what was found, one by one, and whether log or status name the object and a reason.
    Mounted(Vec<Found>, bool),
}

fn mount_over(vault: &Vault, filed: &[Filed], name: &str, what: &str) -> Outcome {
    let point = vault.point("fresh");
    let (code, said) = vault.mount_command("fresh", &point, &[]).code();
    assert!(!said.contains("panicked"), "{what}: {said}");
    if code != 0 {
        assert_eq!(code, 5, "{what}: {said}");
        assert!(said.contains(name), "{what} is not named: {said}");
        assert!(told::is_reason(&said), "{what}: no reason: {said}");
        return Outcome::Refused;
    }
    let mount = Mount::adopt(vault, point);
    let found = filed.iter().map(|filed| look_at(&mount, filed, what));
    let found = found.collect();
    std::fs::write(mount.join("new"), "still works").unwrap();
    assert_eq!(std::fs::read(mount.join("new")).unwrap(), b"still works");
    // It goes with the mount, so that the next one finds what this one did.
    let errors = told::errors(&mount);
    mount.crash();
    let log = std::fs::read_to_string(log_of(&vault.state("fresh"))).unwrap();
    assert!(!log.contains("panicked"), "{what}: {log}");
    Outcome::Mounted(found, told::names_it(&[&log, &errors], name))
}

fn a_mount_over_a_changed_object_refuses_or_has_all_but_what_the_object_carries(on: On) {
    let (vault, filed) = filled(on);
    let mut dice = Dice(33);
    for (kind, is_kind) in KINDS {
        let all = names(&vault, is_kind);
        let mut refused = 0;
        // Both slots, because a mount opens one of them; of commits all, because it depends on who follows them; of control
        // records too, as those of the mounts before bind nobody.
        let tried = match (on, kind) {
            (On::Local, _) | (_, "slot" | "commit" | "control record") => all.len(),
            _ => 1,
        };
        for name in all.iter().take(tried) {
            let at = match kind {
                // Within the second block: what pads the end of a segment is read by nobody.
                "segment" => 70_000,
                _ => dice.roll() as usize % (1 << 30),
            };
            let what = format!("{kind} {name}, byte {at}");
            let undo = flip(&vault, name, at);
            match mount_over(&vault, &filed, name, &what) {
                Outcome::Refused => refused += 1,
                Outcome::Mounted(found, named) => {
                    let right = filed.iter().zip(&found).all(|(filed, found)| {
                        *found == right_over(kind, name, filed, &all, *found)
                    });
                    assert!(right, "{what}: {found:?}");
                    let lost = found.iter().any(|found| *found != Found::Whole);
                    assert!(named || !lost, "{what} is named nowhere: {found:?}");
                }
            }
            undo();
            std::fs::remove_dir_all(vault.state("fresh")).unwrap_or_default();
        }
        match kind {
            "header" => assert_eq!(refused, 1),
            "slot" => assert_eq!((refused, tried), (1, 2), "of the words, of the passphrase"),
            // Those that the mounts before left behind bind nobody.
            "control record" => assert!(refused >= 1),
            "commit" => {}
            _ => assert_eq!(refused, 0, "a {kind} is no reason to refuse"),
        }
    }
    // What these mounts saw has hurt nothing.
    vault.verify_clean();
    let mount = vault.mount("whole");
    for filed in &filed {
        assert_eq!(look_at(&mount, filed, "in the end"), Found::Whole);
    }
    mount.unmount();
}

/// What a mount that answers over the changed object `name` must find of `filed`, where `found` is one of two that are right.
fn right_over(
    kind: &str,
    name: &str,
    filed: &Filed,
    all: &BTreeSet<String>,
    found: Found,
) -> Found {
    match kind {
        "segment" if filed.objects.contains(name) => Found::Eio,
        // A checkpoint covers it; or what it says, and what its lane said after it, is not there. The newest of a lane
        // leads to those before it: without it, none of them is known that no checkpoint covers.
        "commit" => {
            let lane = name.rsplit_once('/').unwrap().0;
            let newest = all.iter().rfind(|commit| commit.starts_with(lane));
            let is_newest = newest.is_some_and(|newest| newest == name);
            let of_lane = filed
                .objects
                .iter()
                .filter(|object| object.starts_with(lane));
            let hidden = of_lane
                .max()
                .is_some_and(|last| is_newest || last.as_str() >= name);
            match hidden && found == Found::Absent {
                true => Found::Absent,
                false => Found::Whole,
            }
        }
        // Pages and checkpoints say what commits say too; a tip says all by its name.
        _ => Found::Whole,
    }
}

/// What a storage does to one object.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Done {
    Emptied,
    Halved,
    CutByOne,
    LongerByOne,
    LongerByMuch,
    Zeroed,
    /// The bytes of another of its kind.
    Swapped,
    /// The bytes of one of its kind that was there before it.
    Older,
    Deleted,
}

const DONE: [Done; 9] = [
    Done::Emptied,
    Done::Halved,
    Done::CutByOne,
    Done::LongerByOne,
    Done::LongerByMuch,
    Done::Zeroed,
    Done::Swapped,
    Done::Older,
    Done::Deleted,
];

/// After these the vault is read in every way, which takes longer than checking it.
const READ: [Done; 5] = [
    Done::Halved,
    Done::LongerByOne,
    Done::Swapped,
    Done::Older,
    Done::Deleted,
];

/// Whether there is time for everything: `SKRIN_DAMAGE=all`.
fn is_all() -> bool {
    std::env::var("SKRIN_DAMAGE").is_ok_and(|what| what == "all")
}

/// Two of them, which is what there is time for always.
fn some() -> Vec<Done> {
    match is_all() {
        true => DONE.to_vec(),
        false => vec![Done::Halved, Done::Deleted],
    }
}

/// All but what takes a long look at the ages of objects, for which there is not always time either.
fn most() -> Vec<Done> {
    let mut done = DONE.to_vec();
    done.retain(|done| is_all() || *done != Done::Older);
    done
}

/// Does it, and gives back what undoes it; nothing where that changes nothing.
fn act<'a>(
    vault: &'a Vault,
    done: Done,
    name: &'a str,
    other: &str,
) -> Option<impl FnOnce() + use<'a>> {
    let before = vault.storage.read(name);
    let len = before.len();
    let changed = match done {
        Done::Emptied => Some(Vec::new()),
        Done::Halved => Some(before[..len / 2].to_vec()),
        Done::CutByOne => Some(before[..len.saturating_sub(1)].to_vec()),
        Done::LongerByOne => Some([&before[..], &[7]].concat()),
        Done::LongerByMuch => Some([&before[..], &vec![7; 1 << 20]].concat()),
        Done::Zeroed => Some(vec![0; len]),
        Done::Swapped | Done::Older => Some(vault.storage.read(other)),
        Done::Deleted => None,
    };
    if changed.as_ref() == Some(&before) {
        return None;
    }
    match changed {
        Some(changed) => vault.storage.replace(name, &changed),
        None => vault.storage.remove(name),
    }
    Some(move || vault.storage.replace(name, &before))
}

/// What `verify --data` came to: clean, or exit code 5 and a finding that names the object and a reason, or what opening the vault says.
fn verified(vault: &Vault, kind: &str, done: Done, name: &str, what: &str) -> &'static str {
    let (code, findings, said) = told::verify(vault);
    match code {
        0 => "clean",
        5 => {
            told::assert_finding(&findings, kind, name, done == Done::Deleted, what);
            "named"
        }
        7 if name == "skrin.vault" && said.contains(name) => "no vault",
        3 if name.starts_with("slots/") && said.contains("slot") => "no secret",
        code => panic!("{what}: {code}: {said}"),
    }
}

/// What an export came to: whole; or exit code 5, with the object and a reason, and each file that is not right was named; or refused
/// with the same.
fn exported(vault: &Vault, filed: &[Filed], name: &str, what: &str) -> &'static str {
    let dest = vault.path("exported");
    let output = vault
        .skrin(&["export", &vault.address()])
        .arg(&dest)
        .arg("--words-file")
        .arg(vault.words_file())
        .finish();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{what}: {said}");
    let (mut wrong, mut absent) = (0, 0);
    for filed in filed {
        let (path, Some(body)) = (dest.join(&filed.name), &filed.body) else {
            continue;
        };
        match std::fs::read(&path) {
            Ok(back) if back == *body => {}
            Ok(back) => {
                wrong += 1;
                assert!(said.contains(path.to_str().unwrap()), "{what}: {said}");
                let right = back.iter().zip(body).all(|(b, a)| b == a || *b == 0);
                assert!(right && back.len() == body.len(), "{what}: {}", filed.name);
            }
            Err(_) => absent += 1,
        }
    }
    let began = std::fs::read_dir(&dest).is_ok_and(|entries| entries.count() > 0);
    let _ = std::fs::remove_dir_all(&dest);
    if output.status.code() == Some(5) {
        assert!(told::names_it(&[&said], name), "{what}: {said}");
    }
    match (output.status.code(), wrong, absent) {
        (Some(0), 0, 0) => "whole",
        (Some(5), 1.., 0) => "told",
        (Some(5), 0, 0) if said.contains("missing or damaged") => "whole, told",
        (Some(5), 0, _) if began && said.contains("missing or damaged") => "less, told",
        (Some(5), 0, _) if said.contains(name) => "refused",
        (Some(7), 0, _) if name == "skrin.vault" => "refused",
        (Some(3), 0, _) if name.starts_with("slots/") => "refused",
        other => panic!("{what}: {other:?}: {said}"),
    }
}

/// What a mount came to that writes nothing: of a device that has seen everything, or of one that has seen nothing.
fn mounted(vault: &Vault, filed: &[Filed], seen: bool, name: &str, what: &str) -> &'static str {
    let state = vault.state("look");
    let _ = std::fs::remove_dir_all(&state);
    if seen {
        crate::harness::command("cp")
            .arg("-a")
            .args([vault.state("a"), state.clone()])
            .output_ok();
    }
    let point = vault.point("look");
    let (code, said) = vault.mount_command("look", &point, &["--read-only"]).code();
    assert!(!said.contains("panicked"), "{what}: {said}");
    match code {
        0 => {}
        // A device that knows the vault names what is missing by its commit and writer.
        5 if said.contains(told::file(name)) || said.contains("rolled back") => {
            assert!(told::is_reason(&said), "{what}: no reason: {said}");
            return "refused";
        }
        7 if name == "skrin.vault" => return "refused",
        3 if name.starts_with("slots/") => return "refused",
        _ => panic!("{what}: {code}: {said}"),
    }
    let mount = Mount::adopt(vault, point);
    let found: Vec<Found> = filed.iter().map(|f| look_at(&mount, f, what)).collect();
    let errors = told::errors(&mount);
    mount.unmount();
    let log = std::fs::read_to_string(log_of(&state)).unwrap();
    assert!(!log.contains("panicked"), "{what}: {log}");
    let named = told::names_it(&[&log, &errors], name);
    let has = |one| found.contains(&one);
    match (has(Found::Eio), has(Found::Absent)) {
        (false, false) => "whole",
        (true, false) if named => "EIO",
        (false, true) if named => "less, told",
        (false, true) => "less",
        other => panic!("{what} is named nowhere: {other:?}, {found:?}"),
    }
}

/// The table of docs/hostile-server.md that this test fills: kind and what was done, then verify, export, a mount of who has seen
/// nothing, a mount of who has seen everything.
fn table() -> Vec<String> {
    let page = include_str!("../docs/hostile-server.md");
    let rows = page.split("<!-- matrix -->").nth(1).unwrap_or_default();
    let rows = rows.lines().filter(|line| line.starts_with("| "));
    rows.skip(1).map(str::to_owned).collect()
}

fn whatever_is_done_ends_as_the_table_says_and_never_in_wrong_bytes(
    kinds: &[&str],
    all_done: &[Done],
) {
    let (vault, filed) = filled(On::Local);
    // Device a sees what b wrote.
    vault.mount("a").unmount();
    vault.verify_clean();
    let mut rows = Vec::new();
    for (kind, is_kind) in KINDS {
        if !kinds.contains(&kind) {
            continue;
        }
        let all: Vec<String> = names(&vault, is_kind).into_iter().collect();
        // Before anything is done to one of them.
        let older = match all_done.contains(&Done::Older) {
            true => with_older(&vault, &filed, kind, is_kind),
            false => None,
        };
        let name = match kind {
            // What carries the first file; the commit that follows it is followed by others.
            "segment" | "commit" => filed[0].objects.iter().find(|name| is_kind(name)).unwrap(),
            "slot" => all.iter().find(|name| is_words_slot(&vault, name)).unwrap(),
            "page" | "checkpoint" => all.iter().find(|name| is_proposed(&vault, name)).unwrap(),
            _ => &all[0],
        };
        let other = all.iter().rfind(|other| *other != name).unwrap_or(name);
        for done in all_done.iter().copied() {
            let (name, other) = match (done, &older) {
                (Done::Older, Some((name, older))) => (name, older),
                (Done::Older, None) => continue,
                _ => (name, other),
            };
            let what = format!("{kind} {name} {done:?}");
            let Some(undo) = act(&vault, done, name, other) else {
                continue;
            };
            let mut cells = vec![verified(&vault, kind, done, name, &what)];
            if READ.contains(&done) {
                cells.push(exported(&vault, &filed, name, &what));
                cells.push(mounted(&vault, &filed, false, name, &what));
                cells.push(mounted(&vault, &filed, true, name, &what));
            }
            cells.resize(4, "");
            undo();
            rows.push(format!("| {kind} | {done:?} | {} |", cells.join(" | ")));
            println!("{}", rows[rows.len() - 1]);
        }
    }
    vault.verify_clean();
    let mut table = table();
    table.retain(|row| {
        let mut cells = row.trim_start_matches("| ").split(" | ");
        let (kind, done) = (cells.next().unwrap(), cells.next().unwrap());
        kinds.contains(&kind) && all_done.iter().any(|one| format!("{one:?}") == done)
    });
    assert!(rows == table, "the table is now:\n{}\n", rows.join("\n"));
}

/// An object and an older one: of a commit what came before it in its lane, of checkpoints and pages the newest that a commit proposes and
/// what is left of the first. Nothing of header and slots, which are in slots.rs and each.rs.
fn with_older(
    vault: &Vault,
    filed: &[Filed],
    kind: &str,
    is_kind: IsKind,
) -> Option<(String, String)> {
    let of = |filed: &Filed| filed.objects.iter().find(|name| is_kind(name)).cloned();
    match kind {
        "commit" | "segment" => of(&filed[1]).zip(of(&filed[0])),
        "page" | "checkpoint" => {
            let mut aged = objects(vault, is_kind);
            aged.sort_by_key(|(_, path)| std::fs::metadata(path).unwrap().modified().unwrap());
            let newest = aged.iter().rfind(|(name, _)| is_proposed(vault, name));
            newest
                .cloned()
                .zip(aged.first().cloned())
                .map(|((newest, _), (first, _))| (newest, first))
        }
        _ => None,
    }
}

#[test]
fn whatever_is_done_to_header_and_slot_ends_as_the_table_says() {
    whatever_is_done_ends_as_the_table_says_and_never_in_wrong_bytes(&["header", "slot"], &DONE);
}

#[test]
fn whatever_is_done_to_a_commit_that_a_checkpoint_covers_ends_as_the_table_says() {
    whatever_is_done_ends_as_the_table_says_and_never_in_wrong_bytes(&["commit"], &most());
}

#[test]
fn whatever_is_done_to_a_segment_ends_as_the_table_says() {
    whatever_is_done_ends_as_the_table_says_and_never_in_wrong_bytes(&["segment"], &some());
}

#[test]
fn whatever_is_done_to_a_checkpoint_and_its_pages_ends_as_the_table_says() {
    whatever_is_done_ends_as_the_table_says_and_never_in_wrong_bytes(
        &["page", "checkpoint"],
        &some(),
    );
}

#[test]
fn a_segment_that_has_grown_is_named_by_verify_and_the_rest_is_checked() {
    let (vault, filed) = filled(On::Local);
    let name = filed[0].objects.iter().find(|name| KINDS[7].1(name));
    let name = name.unwrap();
    for done in [Done::LongerByOne, Done::LongerByMuch] {
        let undo = act(&vault, done, name, name).unwrap();
        verify_names(&vault, "segment", name);
        undo();
    }
    vault.verify_clean();
}

/// Whether the words do not open the vault without it.
fn is_words_slot(vault: &Vault, name: &str) -> bool {
    let undo = act(vault, Done::Deleted, name, name).unwrap();
    let opens = vault
        .skrin(&["verify", &vault.address(), "--words-file"])
        .arg(vault.words_file())
        .finish();
    undo();
    opens.status.code() == Some(3)
}

/// Whether a commit proposes the checkpoint that it belongs to: others are nobody's.
fn is_proposed(vault: &Vault, name: &str) -> bool {
    let undo = act(vault, Done::Deleted, name, name).unwrap();
    let verified = vault
        .skrin(&["verify", &vault.address(), "--words-file"])
        .arg(vault.words_file())
        .finish();
    undo();
    verified.status.code() == Some(5)
}

/// The log in a state directory, which holds one vault's.
pub(crate) fn log_of(state: &Path) -> PathBuf {
    let found = files_below(state)
        .into_iter()
        .find(|path| path.ends_with("log"));
    found.unwrap_or_else(|| panic!("no log below {}", state.display()))
}

#[test]
fn control_records_that_the_storage_takes_back_refuse_the_mount_of_who_has_seen_them() {
    let vault = Vault::new(On::Local);
    let write = |device: &str| {
        let mount = vault.mount(device);
        std::fs::write(mount.join(device), device).unwrap();
        mount.unmount();
    };
    let control = || objects(&vault, KINDS[2].1);
    write("a");
    let before = control();
    write("b");
    write("a");
    let newer: Vec<(PathBuf, Vec<u8>)> = control()
        .into_iter()
        .filter(|object| !before.contains(object))
        .map(|(_, path)| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    assert_eq!(newer.len(), 2, "certificate and grant of b");
    newer
        .iter()
        .for_each(|(path, _)| std::fs::remove_file(path).unwrap());
    let point = vault.point("a");
    let (code, said) = vault.mount_command("a", &point, &[]).code();
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("rolled back"), "{said}");
    let named = newer.iter().any(|(path, _)| {
        let name = path.file_name().unwrap().to_str().unwrap();
        said.contains(name)
    });
    assert!(named, "{said}");
    for (path, bytes) in &newer {
        std::fs::write(path, bytes).unwrap();
    }
    let mount = vault.mount("a");
    assert_eq!(std::fs::read(mount.join("b")).unwrap(), b"b");
    mount.unmount();
    vault.verify_clean();
}

crate::on_every_storage! {
    verify_names_the_object_of_every_kind_that_was_changed;
    a_mount_over_a_changed_object_refuses_or_has_all_but_what_the_object_carries;
}
