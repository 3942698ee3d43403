//! Nothing readable: not on the storage, not in the local state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use crate::harness::{Run, SKRIN, Vault, command, files_below};
use crate::rsync::copy;
use crate::storages::{On, unless_gone};
use crate::tree::small_tree;

const NAMES: [&str; 3] = [
    "salary-negotiation",
    "Zeugnisverweigerung",
    "quicksilver.txt",
];
const BODY: &str = "the combination of the safe is 17-4-33; ";
const XATTR: &str = "remember-the-milk";

/// What is looked for, in each spelling, and the places where it was found.
struct Needles {
    /// By their first bytes, each with what it spells.
    by_start: BTreeMap<[u8; START], Vec<(Vec<u8>, String)>>,
    /// Whether any begins with these two bytes: most places are done with then.
    begins: Vec<bool>,
}

/// The shortest needle.
const START: usize = 8;

impl Needles {
    fn new() -> Self {
        Self {
            by_start: BTreeMap::new(),
            begins: vec![false; 1 << 16],
        }
    }

    fn add(&mut self, spelled: Vec<u8>, what: &str) {
        let start: [u8; START] = spelled[..START].try_into().unwrap();
        self.begins[usize::from(u16::from_le_bytes([start[0], start[1]]))] = true;
        let same = self.by_start.entry(start).or_default();
        same.push((spelled, what.to_owned()));
    }

    /// As it is, and as programs like to write it elsewhere.
    fn add_in_all_spellings(&mut self, text: &str) {
        for (how, spelled) in spellings(text) {
            self.add(spelled, &format!("{text:?} {how}"));
        }
    }

    fn found_in(&self, hay: &[u8]) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for (at, start) in hay.windows(START).enumerate() {
            if !self.begins[usize::from(u16::from_le_bytes([start[0], start[1]]))] {
                continue;
            }
            let Some(same) = self.by_start.get(start) else {
                continue;
            };
            let here = same
                .iter()
                .filter(|(spelled, _)| hay[at..].starts_with(spelled));
            found.extend(here.map(|(_, what)| what.as_str()));
        }
        found
    }

    /// What the program says by itself, in its messages and those of its libraries: the log may hold that. (rustls, of a connection that was cut off, names
    /// a page with `index.html` and the word `unexpected`.) The same for all: whoever makes needles makes them of one tree.
    fn of_the_program(&self) -> &'static BTreeSet<String> {
        static SAID: OnceLock<BTreeSet<String>> = OnceLock::new();
        SAID.get_or_init(|| {
            let program = std::fs::read(SKRIN).unwrap();
            let found = self.found_in(&program).into_iter();
            found.map(str::to_owned).collect()
        })
    }

    /// Neither in what the files below `dir` hold nor in what they and their directories are called.
    fn assert_absent(&self, dir: &Path) {
        let files = files_below(dir);
        assert!(!files.is_empty(), "{} is empty", dir.display());
        for file in files {
            let name = file.strip_prefix(dir).unwrap();
            let found = self.found_in(name.as_os_str().as_encoded_bytes());
            assert!(found.is_empty(), "{} says {found:?}", name.display());
            // A mount may be at work there.
            let Some(bytes) = unless_gone(std::fs::read(&file)) else {
                continue;
            };
            let mut found = self.found_in(&bytes);
            if name.file_name() == Some("log".as_ref()) {
                found.retain(|what| !self.of_the_program().contains(*what));
            }
            assert!(found.is_empty(), "{} holds {found:?}", file.display());
        }
    }
}

fn spellings(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = text.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![
        ("raw", bytes.to_vec()),
        (
            "in UTF-16",
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
        (
            "in UTF-16, big end first",
            text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        ),
        ("in HEX", hex.to_uppercase().into_bytes()),
        ("in hex", hex.into_bytes()),
    ];
    // Wherever it begins within a group of three bytes.
    all.extend((0..3).map(|shift| ("in base64", base64_of_middle(bytes, shift))));
    all
}

/// The letters of base64 that `bytes` alone decide, when `shift` others stand before them in their group.
fn base64_of_middle(bytes: &[u8], shift: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let rest = &bytes[(3 - shift) % 3..];
    let groups = rest.as_chunks::<3>().0.iter();
    groups
        .flat_map(|&[a, b, c]| {
            let group = u32::from_be_bytes([0, a, b, c]);
            [18, 12, 6, 0].map(|by| LETTERS[(group >> by) as usize & 63])
        })
        .collect()
}

/// Names and unusual lines of a tree of real files.
fn names_and_lines(tree: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut names, mut lines) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    for file in files_below(tree) {
        let below = file.strip_prefix(tree).unwrap();
        let parts = below.iter().filter_map(|part| part.to_str());
        // A crate has files that are called 0000000002; so does our storage number its objects.
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let long = parts.filter(|part| part.len() >= START && !is_number(part));
        names.extend(long.map(str::to_owned));
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let long = text
            .lines()
            .filter(|line| (40..200).contains(&line.trim().len()));
        for line in long.step_by(50) {
            *lines.entry(line.trim().to_owned()).or_default() += 1;
        }
    }
    let once = lines.into_iter().filter(|(_, times)| *times == 1);
    (names, once.map(|(line, _)| line).collect())
}

fn storage_and_local_state_hold_no_name_and_no_content(on: On) {
    let tree = small_tree();
    let (names, lines) = names_and_lines(tree);
    assert!(
        names.len() > 300 && lines.len() > 500,
        "{} names, {} lines",
        names.len(),
        lines.len()
    );
    let mut needles = Needles::new();
    for text in names.iter().chain(&lines) {
        needles.add(text.as_bytes().to_vec(), text);
    }
    let some = names.iter().step_by(20).chain(lines.iter().step_by(50));
    let some: Vec<&str> = some.map(String::as_str).collect();
    for text in some
        .iter()
        .chain(&NAMES)
        .chain(&[BODY, XATTR, "user.skrin test"])
    {
        needles.add_in_all_spellings(text);
    }
    assert_finds_all(&needles, tree, &names, &lines, &some);

    let vault = Vault::new(on);
    let copied = vault.path("objects");
    let look = |devices: &[&str]| {
        needles.assert_absent(&vault.storage.as_files(&copied));
        for (name, _) in vault.storage.objects() {
            assert_eq!(needles.found_in(name.as_bytes()), BTreeSet::new());
        }
        for device in devices {
            needles.assert_absent(&vault.state(device));
        }
    };
    let mount = vault.mount_with("a", &["--mac-files", "local"]);
    let dir = mount.join(NAMES[0]);
    std::fs::create_dir(&dir).unwrap();
    copy(tree, &dir);
    std::fs::write(dir.join(format!("._{}", NAMES[2])), BODY.repeat(20)).unwrap();
    std::fs::write(dir.join(NAMES[1]), BODY).unwrap();
    std::fs::write(dir.join(NAMES[2]), BODY.repeat(50_000)).unwrap();
    std::os::unix::fs::symlink(BODY, dir.join("pointer")).unwrap();
    command("setfattr")
        .args(["-n", "user.note", "-v", XATTR])
        .arg(dir.join(NAMES[1]))
        .output_ok();
    // Errors name objects, not files, in the log too.
    assert!(std::fs::read(dir.join("quicksilver.txt.missing")).is_err());
    mount.sync();
    look(&["a"]);
    std::fs::write(dir.join("late"), BODY.repeat(10_000)).unwrap();
    mount.crash();
    needles.assert_absent(&vault.state("a"));
    // What another device fetches and keeps is no more readable.
    let mount = vault.mount("b");
    let other = mount.join(NAMES[0]);
    assert_eq!(std::fs::read_to_string(other.join(NAMES[1])).unwrap(), BODY);
    command("tar")
        .args(["-cf", "/dev/null"])
        .arg(&other)
        .output_ok();
    mount.unmount();
    let mount = vault.mount("a");
    assert_eq!(std::fs::read_to_string(dir.join(NAMES[1])).unwrap(), BODY);
    mount.unmount();
    look(&["a", "b"]);
}

/// The search would find each of them.
fn assert_finds_all(
    needles: &Needles,
    tree: &Path,
    names: &BTreeSet<String>,
    lines: &BTreeSet<String>,
    some: &[&str],
) {
    let mut found = BTreeSet::new();
    for file in files_below(tree) {
        found.extend(needles.found_in(file.as_os_str().as_encoded_bytes()));
        found.extend(needles.found_in(&std::fs::read(&file).unwrap()));
    }
    let lost = names
        .iter()
        .chain(lines)
        .find(|text| !found.contains(text.as_str()));
    assert_eq!(lost, None);
    for text in some {
        let spelled: Vec<u8> = spellings(text)
            .into_iter()
            .flat_map(|(_, bytes)| bytes)
            .collect();
        let found = needles.found_in(&spelled).into_iter();
        let of_it = found
            .filter(|what| what.starts_with(&format!("{text:?} in")))
            .count();
        assert_eq!(of_it, 5, "{text:?}");
    }
}

#[test]
fn what_base64_makes_of_a_text_is_looked_for_wherever_it_begins() {
    // By hand: base64 of "a safe place", after "", "x" and "xy".
    for (shift, whole) in [
        "YSBzYWZlIHBsYWNl",
        "eGEgc2FmZSBwbGFjZQ==",
        "eHlhIHNhZmUgcGxhY2U=",
    ]
    .iter()
    .enumerate()
    {
        let middle = String::from_utf8(base64_of_middle(b"a safe place", shift)).unwrap();
        assert!(
            whole.contains(&middle) && middle.len() >= 12,
            "{middle} in {whole}"
        );
    }
}

crate::on_every_storage! { storage_and_local_state_hold_no_name_and_no_content; }
