//! What the table of docs/hostile-server.md has no rows for, as it depends on which object it is: control records, tips, and headers of
//! another vault. In a vault that is small, so that each of them can be tried.

use super::{
    DONE, Done, Filed, KINDS, READ, act, exported, is_all, mounted, names, told, verified,
};
use crate::harness::{Dice, Vault};
use crate::storages::On;

/// A vault of two devices that have each written two files, and of which a has seen what b wrote.
struct Small {
    vault: Vault,
    /// Those of a, then those of b.
    filed: Vec<Filed>,
    /// The control records that let b in: nobody but b has anything above them.
    of_b: Vec<String>,
}

impl Small {
    fn new(on: On) -> Self {
        let vault = Vault::new(on);
        let mut dice = Dice(35);
        let (mut filed, mut of_b) = (Vec::new(), Vec::new());
        for device in ["a", "b"] {
            let before = names(&vault, KINDS[2].1);
            let mount = vault.mount(device);
            of_b = (&names(&vault, KINDS[2].1) - &before).into_iter().collect();
            for number in 0..2 {
                let (name, body) = (format!("{device}{number}"), dice.bytes(100_000));
                let before = names(&vault, |_| true);
                std::fs::write(mount.join(&name), &body).unwrap();
                mount.sync();
                filed.push(Filed {
                    name,
                    body: Some(body),
                    objects: &names(&vault, |_| true) - &before,
                });
            }
            mount.unmount();
        }
        vault.mount("a").unmount();
        vault.verify_clean();
        assert_eq!(of_b.len(), 2, "certificate and grant of b");
        Self { vault, filed, of_b }
    }

    /// The commit, or the segment, that a file came with.
    fn of_file(&self, number: usize, kind: &str) -> &String {
        let (_, is_kind) = KINDS.into_iter().find(|(name, _)| *name == kind).unwrap();
        let mut objects = self.filed[number].objects.iter();
        objects.rfind(|name| is_kind(name)).unwrap()
    }

    fn control_records(&self) {
        let all: Vec<String> = names(&self.vault, KINDS[2].1).into_iter().collect();
        let (tried, all_done) = match is_all() {
            true => (&all, DONE.to_vec()),
            false => (&self.of_b, vec![Done::Deleted]),
        };
        let mut hid = 0;
        for name in tried {
            let is_older = |other: &&String| *other != name && !self.of_b.contains(other);
            let older = all.iter().find(is_older).unwrap();
            let other = all.iter().rfind(|other| *other != name).unwrap();
            for done in &all_done {
                let other = if *done == Done::Older { older } else { other };
                hid += usize::from(self.control_record(name, *done, other));
            }
        }
        assert!(hid > 0, "without the grant of b the vault opens");
    }

    /// Whether the vault opens without what the record certifies.
    fn control_record(&self, name: &str, done: Done, other: &str) -> bool {
        let (vault, filed) = (&self.vault, &*self.filed);
        let what = format!("control record {name} {done:?}");
        let Some(undo) = act(vault, done, name, other) else {
            return false;
        };
        let found = verified(vault, "control record", done, name, &what);
        assert_eq!(found, "named", "{what}");
        let mut hides = false;
        if READ.contains(&done) {
            let found = exported(vault, filed, name, &what);
            hides = found == "less, told";
            assert!(hides || found == "refused", "{what}: {found}");
            let new = mounted(vault, filed, false, name, &what);
            assert_eq!(new, found, "{what}");
            // It remembers the record.
            let seen = mounted(vault, filed, true, name, &what);
            assert_eq!(seen, "refused", "{what}");
        }
        undo();
        hides
    }

    /// What is done to the only byte of a tip hurts nobody.
    fn contents_of_tips(&self) {
        let all_done = match is_all() {
            true => DONE.to_vec(),
            false => vec![Done::LongerByMuch],
        };
        let (_, tips) = self.tips_of_b();
        let name = tips.last().unwrap();
        // One that is gone is among the cases below.
        for done in all_done.into_iter().filter(|done| *done != Done::Deleted) {
            let what = format!("tip {name} {done:?}");
            let Some(undo) = act(&self.vault, done, name, name) else {
                continue;
            };
            let found = verified(&self.vault, "tip", done, name, &what);
            assert_eq!(found, "named", "{what}");
            if READ.contains(&done) {
                let new = mounted(&self.vault, &self.filed, false, name, &what);
                assert_eq!(new, "whole", "{what}");
            }
            undo();
        }
    }

    /// The tip that led to the first file of b, and the tips of its lane that are there.
    fn tips_of_b(&self) -> (String, Vec<String>) {
        let first = tip_of(self.of_file(2, "commit"));
        let (lane, _) = first.split_once('-').unwrap();
        let mut tips = names(&self.vault, KINDS[6].1);
        tips.retain(|tip| tip.starts_with(lane));
        (first, tips.into_iter().collect())
    }

    /// All that a tip says is its name, so what can be done is to show others, or none.
    fn tips(&self) {
        let (first, of_b) = self.tips_of_b();
        let (lane, _) = first.split_once('-').unwrap();
        let newest = of_b.last().unwrap();
        let invented = format!("{lane}-{:016x}-{}", 0xff, "0123".repeat(16));
        let (start, end) = newest.split_at(newest.len() - 1);
        let renamed = format!("{start}{}", if end == "0" { "1" } else { "0" });
        let cases = [
            // The rest of the lane is hidden from who has not seen it, which nobody but a check of the lanes can tell.
            Case {
                what: "an older one of its lane",
                gone: of_b.clone(),
                put: Some(first.clone()),
                named: newest,
                told_as: newest.clone(),
                new: "less",
                exported: Some("less, told"),
            },
            Case {
                what: "one more that leads nowhere",
                gone: Vec::new(),
                put: Some(invented.clone()),
                named: &invented,
                told_as: commit_of(&invented),
                new: "whole",
                exported: Some("whole, told"),
            },
            Case {
                what: "one with another hash",
                gone: of_b.clone(),
                put: Some(renamed.clone()),
                named: &renamed,
                told_as: commit_of(&renamed),
                new: "less, told",
                exported: Some("less, told"),
            },
            Case {
                what: "none of its lane",
                gone: of_b.clone(),
                put: None,
                named: newest,
                told_as: newest.clone(),
                new: "less",
                exported: Some("less, told"),
            },
            Case {
                what: "none at all",
                gone: names(&self.vault, KINDS[6].1).into_iter().collect(),
                put: None,
                named: newest,
                told_as: newest.clone(),
                new: "less",
                // Nothing is left to be written, which looks as if it was refused.
                exported: None,
            },
        ];
        let tried = if is_all() { cases.len() } else { 2 };
        cases.iter().take(tried).for_each(|case| self.tip(case));
    }

    fn tip(&self, case: &Case<'_>) {
        let (vault, filed, what) = (&self.vault, &*self.filed, case.what);
        case.gone.iter().for_each(|tip| vault.storage.remove(tip));
        if let Some(tip) = &case.put {
            vault.storage.replace(tip, b"\n");
        }
        let (code, findings, said) = told::verify(vault);
        assert_eq!(code, 5, "{what}: {said}");
        let is_gone = case.put.as_deref() != Some(case.named.as_str());
        told::assert_finding(&findings, "tip", case.named, is_gone, what);
        let new = mounted(vault, filed, false, &case.told_as, what);
        assert_eq!(new, case.new, "{what}");
        // What it has seen it asks for by its exact name.
        let seen = mounted(vault, filed, true, &case.told_as, what);
        assert_eq!(seen, "whole", "{what}");
        if let (true, Some(right)) = (is_all(), case.exported) {
            let found = exported(vault, filed, &case.told_as, what);
            assert_eq!(found, right, "{what}");
        }
        if let Some(tip) = &case.put {
            vault.storage.remove(tip);
        }
        for tip in &case.gone {
            vault.storage.replace(tip, b"\n");
        }
    }

    /// The bytes of what the same device wrote before it.
    fn older(&self) {
        for kind in ["commit", "segment"] {
            let (name, older) = (self.of_file(3, kind), self.of_file(2, kind));
            let what = format!("{kind} {name} Older");
            let undo = act(&self.vault, Done::Older, name, older).unwrap();
            let found = verified(&self.vault, kind, Done::Older, name, &what);
            assert_eq!(found, "named", "{what}");
            undo();
        }
    }

    /// A header that is whole by itself: nothing but the slots says which one belongs to them.
    fn headers(&self) {
        const VAULT: usize = 13;
        const CREATED: usize = 29;
        const CHECKSUM: usize = 37;
        let (vault, filed, name) = (&self.vault, &*self.filed, "skrin.vault");
        let honest = vault.storage.read(name);
        assert_eq!(honest.len(), CHECKSUM + 32);
        for (what, at) in [("of another vault", VAULT), ("of another day", CREATED)] {
            let mut other = honest.clone();
            other[at] ^= 1;
            let checksum = blake3::hash(&other[..CHECKSUM]);
            other[CHECKSUM..].copy_from_slice(checksum.as_bytes());
            vault.storage.replace(name, &other);
            let found = verified(vault, "header", Done::Swapped, name, what);
            assert_eq!(found, "named", "{what}");
            if is_all() {
                assert_eq!(exported(vault, filed, name, what), "refused", "{what}");
                for seen in [false, true] {
                    let found = mounted(vault, filed, seen, name, what);
                    assert_eq!(found, "refused", "{what}, seen: {seen}");
                }
            }
        }
        vault.storage.replace(name, &honest);
    }
}

/// Which tips a storage shows instead of those that are there.
struct Case<'a> {
    what: &'a str,
    gone: Vec<String>,
    put: Option<String>,
    /// What `verify` names.
    named: &'a String,
    /// What mounts and exports name, if they tell it at all.
    told_as: String,
    /// What a mount finds that has seen nothing.
    new: &'a str,
    /// The same of an export.
    exported: Option<&'a str>,
}

/// The tip that leads to a commit.
fn tip_of(commit: &str) -> String {
    let parts: Vec<&str> = commit.split('/').collect();
    let [rooms, room, _, lane, _, file] = parts[..] else {
        panic!("{commit} is no commit");
    };
    format!("{rooms}/{room}/tips/{lane}-{file}")
}

/// The last part of the name of the commit that a tip leads to.
fn commit_of(tip: &str) -> String {
    told::file(tip).split_once('-').unwrap().1.to_owned()
}

fn control_records_tips_and_headers_that_are_not_what_was_written_are_named_and_the_rest_is_read(
    on: On,
) {
    let small = Small::new(on);
    small.control_records();
    // On servers it is the same code that judges names and bytes.
    if on == On::Local || is_all() {
        small.contents_of_tips();
        small.tips();
        small.older();
        small.headers();
    }
    small.vault.verify_clean();
    let (vault, filed) = (&small.vault, &small.filed);
    assert_eq!(mounted(vault, filed, false, "", "in the end"), "whole");
}

crate::on_every_storage! {
    control_records_tips_and_headers_that_are_not_what_was_written_are_named_and_the_rest_is_read;
}
