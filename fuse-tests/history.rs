//! What was comes back: whole trees, single files, snapshots; and what cannot be told is said.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{Dice, Mount, Run, Vault, command, files_below, wait_for};
use crate::storages::On;
use crate::tree;

/// Everything that a program can see of one entry, but for its number and the time of its last change.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Shown {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    links: u64,
    contents: Option<blake3::Hash>,
    target: Option<PathBuf>,
    note: Option<Vec<u8>>,
    /// The first of the names that are the same file.
    same_as: PathBuf,
}

type Picture = BTreeMap<PathBuf, Shown>;

fn entries(dir: &Path, below: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            entries(dir, &path, out);
        }
        out.push(path);
    }
}

/// The whole tree; the times of the top are not looked at.
fn picture(dir: &Path) -> Picture {
    let mut paths = Vec::new();
    entries(dir, Path::new(""), &mut paths);
    paths.sort();
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let show = |path: PathBuf| {
        let full = dir.join(&path);
        let meta = full.symlink_metadata().unwrap();
        let mut note = [0; 256];
        let note = rustix::fs::lgetxattr(&full, "user.note", &mut note)
            .ok()
            .map(|len| note[..len].to_vec());
        let shown = Shown {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            links: meta.nlink(),
            contents: meta
                .is_file()
                .then(|| blake3::hash(&std::fs::read(&full).unwrap())),
            target: meta
                .is_symlink()
                .then(|| std::fs::read_link(&full).unwrap()),
            note,
            same_as: first.entry(meta.ino()).or_insert(path.clone()).clone(),
        };
        (path, shown)
    };
    paths.into_iter().map(show).collect()
}

fn assert_same(now: &Picture, then: &Picture) {
    for (path, shown) in then {
        assert_eq!(now.get(path), Some(shown), "{}", path.display());
    }
    let more: Vec<_> = now
        .keys()
        .filter(|path| !then.contains_key(*path))
        .collect();
    assert!(more.is_empty(), "{more:?}");
}

/// A point between what was and what comes: `--at` takes it.
fn moment() -> String {
    std::thread::sleep(Duration::from_millis(30));
    let now = command("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"])
        .output_ok();
    std::thread::sleep(Duration::from_millis(30));
    now.trim().to_owned()
}

/// Real files, and what naive copies lose.
fn fill(dir: &Path) {
    let copied = command("cp")
        .args(["-a", "--"])
        .arg(tree::plain_tree())
        .arg(dir)
        .finish();
    assert!(copied.status.success());
    std::fs::create_dir_all(dir.join("odd/empty directory")).unwrap();
    let odd = dir.join("odd");
    std::fs::write(odd.join("empty"), b"").unwrap();
    std::fs::write(odd.join("many blocks"), Dice(3).bytes(1_000_000)).unwrap();
    std::fs::hard_link(odd.join("many blocks"), odd.join("its other name")).unwrap();
    symlink("many blocks", odd.join("link")).unwrap();
    let sparse = std::fs::File::create(odd.join("sparse")).unwrap();
    sparse.set_len(3_000_000).unwrap();
    sparse.write_all_at(b"island", 1_000_000).unwrap();
    std::fs::write(odd.join("secret"), "only mine").unwrap();
    std::fs::set_permissions(odd.join("secret"), PermissionsExt::from_mode(0o400)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(odd.join("secret"), "user.note", b"from me", flags).unwrap();
    drop(sparse);
    // Of a file that was cut and written at once the kernel tells nobody the very time that it shows.
    let times = ["-d", "2001-02-03 04:05:06"];
    command("touch")
        .args(times)
        .args([&odd.join("sparse"), &odd])
        .output_ok();
}

/// What it does to every file: other bytes in place, every third under another name, every fifth attribute lost.
fn ransom(dir: &Path) {
    for (n, file) in files_below(dir).into_iter().enumerate() {
        let mode = std::fs::metadata(&file).unwrap().permissions();
        let bytes = std::fs::read(&file).unwrap();
        let sealed: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x5a).chain([1]).collect();
        let open = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        open.write_all_at(&sealed, 0).unwrap();
        if n.is_multiple_of(5) {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o777)).unwrap();
        } else {
            std::fs::set_permissions(&file, mode).unwrap();
        }
        if n.is_multiple_of(3) {
            let mut name = file.clone().into_os_string();
            name.push(".locked");
            std::fs::rename(&file, name).unwrap();
        }
        if n.is_multiple_of(7) {
            std::fs::write(file.with_file_name("READ ME"), "pay").unwrap();
        }
    }
    let odd = dir.join("odd");
    if odd.join("link").is_symlink() {
        std::fs::remove_file(odd.join("link")).unwrap();
        std::fs::remove_dir(odd.join("empty directory")).unwrap();
        std::fs::write(odd.join("empty directory"), "now a file").unwrap();
        let _ = rustix::fs::removexattr(odd.join("secret"), "user.note");
    }
}

fn segments(vault: &Vault) -> BTreeSet<String> {
    let objects = vault.storage.objects().into_iter().map(|(name, _)| name);
    objects
        .filter(|name| name.starts_with("segments/"))
        .collect()
}

fn restore(vault: &Vault, path: &Path, rest: &[&str]) -> serde_json::Value {
    let text = vault
        .skrin(&["restore", "--json"])
        .arg(path)
        .args(rest)
        .output_ok();
    serde_json::from_str(&text).unwrap()
}

fn a_tree_whose_files_were_all_encrypted_comes_back_with_one_command_and_no_byte_moves(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let dir = mount.join("work");
    fill(&dir);
    let before = picture(&dir);
    mount.sync();
    let then = moment();
    ransom(&dir);
    let encrypted = picture(&dir);
    assert_ne!(encrypted, before);
    mount.sync();
    let stored = segments(&vault);
    let damage = moment();
    let done = restore(&vault, mount.path(), &["--at", &then, "--exact"]);
    assert!(done["contents"].as_u64().unwrap() > 50, "{done}");
    assert!(done["removed"].as_u64().unwrap() > 10, "{done}");
    assert_same(&picture(&dir), &before);
    mount.sync();
    assert_eq!(segments(&vault), stored, "a restore uploads no contents");
    // What it replaced is a part of the past now: a restore can be taken back.
    let undone = moment();
    restore(&vault, &dir, &["--at", &damage, "--exact"]);
    assert_same(&picture(&dir), &encrypted);
    restore(&vault, &dir, &["--at", &undone, "--exact"]);
    assert_same(&picture(&dir), &before);
    let again = restore(&vault, &dir, &["--at", &undone, "--exact"]);
    let idle = ["contents", "made", "attributes", "removed", "kept"];
    assert!(idle.iter().all(|field| again[*field] == 0), "{again}");
    mount.unmount();
    let there = vault.mount("b");
    assert_same(&picture(&there.join("work")), &before);
    there.unmount();
    vault.verify_clean();
}

fn a_snapshot_holds_what_was_written_before_and_is_read_but_not_changed(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let dir = mount.join("work");
    fill(&dir);
    let before = picture(&dir);
    vault
        .skrin(&["snapshot", "create"])
        .arg(mount.path())
        .arg("monday evening")
        .output_ok();
    ransom(&dir);
    std::fs::remove_dir_all(dir.join("odd")).unwrap();
    let all = mount.join(".snapshots");
    let seen = all.join("monday evening/work");
    assert_same(&picture(&seen), &before);
    assert!(
        std::fs::read_dir(mount.path())
            .unwrap()
            .all(|entry| entry.unwrap().file_name() != ".snapshots")
    );
    let names = std::fs::read_dir(&all).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["monday evening"]);
    assert_refused(&seen);
    assert_eq!(errno(std::fs::create_dir(all.join("x"))), Some(30));
    assert_eq!(errno(std::fs::rename(&dir, &all)), Some(30));
    // Another device sees it too, and takes a file out with a plain copy.
    let there = vault.mount("b");
    let from = there.join(".snapshots/monday evening/work/odd/many blocks");
    std::fs::copy(&from, there.join("saved")).unwrap();
    assert_eq!(
        std::fs::read(there.join("saved")).unwrap(),
        Dice(3).bytes(1_000_000)
    );
    assert_same(
        &picture(&there.join(".snapshots/monday evening/work")),
        &before,
    );
    let done = vault
        .skrin(&["snapshot", "restore", "--exact", "--json"])
        .args([&there.join("work")])
        .arg("monday evening")
        .output_ok();
    assert!(done.contains("\"made\""), "{done}");
    assert_same(&picture(&there.join("work")), &before);
    // A name is taken once, and can be given back.
    let (code, said) = vault
        .skrin(&["snapshot", "create"])
        .arg(there.path())
        .arg("monday evening")
        .code();
    assert_eq!(code, 6, "{said}");
    let listed = |at: &Mount<'_>| {
        let mut list = vault.skrin(&["snapshot", "list", "--json"]);
        list.arg(at.path()).output_ok().lines().count()
    };
    assert_eq!(listed(&there), 1);
    vault
        .skrin(&["snapshot", "delete"])
        .arg(there.path())
        .arg("monday evening")
        .output_ok();
    assert_eq!(listed(&there), 0);
    assert!(!there.join(".snapshots/monday evening").exists());
    wait_for("the other device to see it", || listed(&mount) == 0);
    there.unmount();
    mount.unmount();
    vault.verify_clean();
}

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Whatever changes something is refused with EROFS.
fn assert_refused(seen: &Path) {
    const EROFS: Option<i32> = Some(30);
    let odd = seen.join("odd");
    let file = odd.join("many blocks");
    assert_eq!(errno(std::fs::write(&file, "x")), EROFS);
    assert_eq!(errno(std::fs::write(odd.join("new"), "x")), EROFS);
    assert_eq!(errno(std::fs::remove_file(&file)), EROFS);
    assert_eq!(
        errno(std::fs::remove_dir(odd.join("empty directory"))),
        EROFS
    );
    assert_eq!(errno(std::fs::create_dir(odd.join("new"))), EROFS);
    assert_eq!(errno(std::fs::rename(&file, odd.join("new"))), EROFS);
    assert_eq!(errno(std::fs::hard_link(&file, odd.join("new"))), EROFS);
    assert_eq!(errno(symlink("x", odd.join("new"))), EROFS);
    let mode = PermissionsExt::from_mode(0o777);
    assert_eq!(errno(std::fs::set_permissions(&file, mode)), EROFS);
    let appended = std::fs::OpenOptions::new().append(true).open(&file);
    assert_eq!(errno(appended), EROFS);
    let flags = rustix::fs::XattrFlags::empty();
    let set = rustix::fs::setxattr(&file, "user.note", b"x", flags);
    assert_eq!(set.unwrap_err(), rustix::io::Errno::ROFS);
}

crate::on_every_storage! {
    a_tree_whose_files_were_all_encrypted_comes_back_with_one_command_and_no_byte_moves;
    a_snapshot_holds_what_was_written_before_and_is_read_but_not_changed;
}

fn history(vault: &Vault, path: &Path) -> Vec<serde_json::Value> {
    let text = vault.skrin(&["history", "--json"]).arg(path).output_ok();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn changes(versions: &[serde_json::Value]) -> Vec<&str> {
    let all = versions.iter().map(|v| v["change"].as_str().unwrap());
    all.filter(|change| *change != "attributes").collect()
}

#[test]
fn the_history_of_a_file_follows_its_names_and_what_had_its_name_before() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let (old, new) = (mount.join("draft"), mount.join("report"));
    std::fs::write(&old, "one").unwrap();
    mount.sync();
    std::fs::write(&old, "second").unwrap();
    mount.sync();
    std::fs::rename(&old, &new).unwrap();
    let versions = history(&vault, &new);
    let told = changes(&versions);
    assert_eq!(told.first(), Some(&"made"), "{versions:?}");
    assert_eq!(told.last(), Some(&"renamed"), "{versions:?}");
    let sizes: Vec<_> = versions.iter().filter_map(|v| v["size"].as_u64()).collect();
    assert!(sizes.contains(&3) && sizes.contains(&6), "{versions:?}");
    // As an office suite saves: a new file takes the name.
    let temporary = mount.join("report.tmp");
    std::fs::write(&temporary, "third one").unwrap();
    mount.sync();
    std::fs::rename(&temporary, &new).unwrap();
    let versions = history(&vault, &new);
    assert!(changes(&versions).contains(&"replaced"), "{versions:?}");
    let mut renamed = versions.iter().rev().filter(|v| v["change"] == "renamed");
    let renamed = renamed.next().unwrap();
    assert_eq!(
        (renamed["from"].as_str(), renamed["name"].as_str()),
        (Some("report.tmp"), Some("report"))
    );
    // Each can be put back by its name.
    let written = |size: u64| {
        let mut all = versions.iter();
        let found = all.find(|v| v["change"] == "written" && v["size"] == size);
        found.unwrap()["version"].as_str().unwrap().to_owned()
    };
    for (size, text) in [(3, "one"), (6, "second"), (9, "third one")] {
        let beside = mount.join(format!("copy of {size}"));
        let path = if size == 9 { &temporary } else { &old };
        vault
            .skrin(&["restore", "--at", &written(size)])
            .arg(path)
            .arg("--to")
            .arg(&beside)
            .output_ok();
        assert_eq!(std::fs::read_to_string(beside).unwrap(), text);
    }
    std::fs::remove_file(&new).unwrap();
    let versions = history(&vault, &new);
    assert_eq!(changes(&versions).last(), Some(&"removed"), "{versions:?}");
    let text = vault.skrin(&["history"]).arg(&new).output_ok();
    assert!(text.contains("removed as report"), "{text}");
    mount.unmount();
}

#[test]
fn a_removed_tree_comes_back_and_what_is_newer_stays_unless_it_is_to_be_exact() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let dir = mount.join("parent/work");
    std::fs::create_dir(mount.join("parent")).unwrap();
    fill(&dir);
    let before = picture(&mount.join("parent"));
    mount.sync();
    let then = moment();
    std::fs::remove_dir_all(mount.join("parent")).unwrap();
    let done = restore(&vault, &dir, &["--at", &then]);
    assert!(done["made"].as_u64().unwrap() > 100, "{done}");
    assert_same(&picture(&mount.join("parent")), &before);
    // A directory in the place of a file is not thrown away, nor is a newer file.
    std::fs::remove_file(dir.join("odd/secret")).unwrap();
    std::fs::create_dir(dir.join("odd/secret")).unwrap();
    std::fs::write(dir.join("odd/secret/new"), "kept").unwrap();
    std::fs::write(dir.join("newer"), "kept too").unwrap();
    let done = restore(&vault, &dir, &["--at", &then]);
    assert_eq!(done["kept"], 2, "{done}");
    let aside = dir.join("odd/secret (kept by restore)/new");
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "kept");
    assert_eq!(
        std::fs::read_to_string(dir.join("newer")).unwrap(),
        "kept too"
    );
    assert_eq!(
        std::fs::read_to_string(dir.join("odd/secret")).unwrap(),
        "only mine"
    );
    restore(&vault, &mount.join("parent"), &["--at", &then, "--exact"]);
    assert_same(&picture(&mount.join("parent")), &before);
    // Beside, and by a path relative to the working directory.
    let beside = vault
        .skrin(&["restore", "work", "--at", &then, "--to", "copy"])
        .current_dir(mount.join("parent"))
        .code();
    assert_eq!(beside.0, 0, "{}", beside.1);
    let work = picture(&dir);
    assert_same(&picture(&mount.join("parent/copy")), &work);
    mount.unmount();
}

#[test]
fn names_that_became_one_file_are_two_again_and_names_that_were_one_are_one_again() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let dir = mount.join("work");
    std::fs::create_dir(&dir).unwrap();
    for (name, text) in [("a", "first"), ("b", "second"), ("x", "of both")] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    std::fs::hard_link(dir.join("x"), dir.join("y")).unwrap();
    let before = picture(&dir);
    mount.sync();
    let then = moment();
    std::fs::remove_file(dir.join("b")).unwrap();
    std::fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
    std::fs::remove_file(dir.join("y")).unwrap();
    std::fs::write(dir.join("y"), "apart").unwrap();
    restore(&vault, &dir, &["--at", &then, "--exact"]);
    assert_same(&picture(&dir), &before);
    let again = restore(&vault, &dir, &["--at", &then, "--exact"]);
    assert_eq!(again["unchanged"], 5, "{again}");
    mount.unmount();
}

#[test]
fn what_cannot_be_restored_is_said_with_the_codes_for_scripts() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let file = mount.join("file");
    std::fs::write(&file, "1").unwrap();
    mount.sync();
    let then = moment();
    std::fs::write(mount.join("later"), "2").unwrap();
    let code = |args: &[&str], path: &Path| {
        let (code, said) = vault.skrin(args).arg(path).code();
        assert!(!said.contains("panicked"), "{said}");
        code
    };
    assert_eq!(code(&["restore", "--at", &then], &mount.join("later")), 7);
    assert_eq!(code(&["restore", "--at", &then], &mount.join("never")), 7);
    assert_eq!(code(&["restore", "--at", "2019-01-01"], &file), 7);
    assert_eq!(code(&["restore", "--at", "2200-01-01"], &file), 2);
    assert_eq!(code(&["restore", "--at", "then"], &file), 2);
    assert_eq!(code(&["restore", "--at", "0a1b2c3d:4"], &file), 7);
    assert_eq!(code(&["history"], &mount.join("never")), 7);
    assert_eq!(code(&["history"], Path::new("/usr")), 7);
    let to = file.to_str().unwrap();
    assert_eq!(code(&["restore", "--at", "0s", "--to", to], &file), 6);
    let mut no = vault.skrin(&["snapshot", "restore"]);
    assert_eq!(no.arg(mount.path()).arg("none").code().0, 7);
    mount.unmount();
}

#[test]
fn a_commit_of_the_past_that_was_tampered_with_is_named_and_nothing_is_restored() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let file = mount.join("file");
    for text in ["one", "two", "three"] {
        std::fs::write(&file, text).unwrap();
        mount.sync();
    }
    let then = moment();
    std::fs::write(&file, "four").unwrap();
    mount.sync();
    let commits = vault.storage.objects().into_iter().map(|(name, _)| name);
    let mut commits: Vec<String> = commits.filter(|name| name.contains("/lanes/")).collect();
    commits.sort();
    let name = &commits[1];
    let whole = vault.storage.read(name);
    let mut changed = whole.clone();
    changed[40] ^= 1;
    vault.storage.replace(name, &changed);
    let (code, said) = vault.skrin(&["restore", "--at", &then]).arg(&file).code();
    assert_eq!(code, 5, "{said}");
    assert!(said.contains(name.as_str()), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "four");
    let (code, said) = vault.skrin(&["history"]).arg(&file).code();
    assert_eq!(code, 5, "{said}");
    assert!(said.contains(name.as_str()), "{said}");
    vault.storage.replace(name, &whole);
    restore(&vault, &file, &["--at", &then]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "three");
    mount.unmount();
}

#[test]
fn an_edit_that_another_device_makes_while_a_tree_is_restored_is_kept_beside() {
    let vault = Vault::new(On::Local);
    let here = vault.mount("a");
    std::fs::create_dir(here.join("work")).unwrap();
    for n in 0..4 {
        std::fs::write(here.join(format!("work/{n}.txt")), format!("old {n}")).unwrap();
    }
    here.sync();
    let then = moment();
    for n in 0..4 {
        std::fs::write(here.join(format!("work/{n}.txt")), format!("newer {n}")).unwrap();
    }
    here.unmount();
    // It knows the newer ones, edits one of them offline and comes back when they are restored.
    let there = vault.mount("b");
    assert_eq!(
        std::fs::read_to_string(there.join("work/2.txt")).unwrap(),
        "newer 2"
    );
    there.unmount();
    let there = vault.mount_with("b", &["--offline"]);
    std::fs::write(there.join("work/2.txt"), "newest of all").unwrap();
    there.unmount_with(&["--now"]);
    let here = vault.mount("a");
    restore(&vault, here.path(), &["--at", &then]);
    here.sync();
    let there = vault.mount("b");
    there.sync();
    let texts = |mount: &Mount<'_>| -> BTreeSet<String> {
        let all = files_below(&mount.join("work")).into_iter();
        all.map(|file| std::fs::read_to_string(file).unwrap())
            .collect()
    };
    let expected: BTreeSet<String> = ["old 0", "old 1", "old 2", "old 3", "newest of all"]
        .map(str::to_owned)
        .into();
    wait_for("both to see all", || {
        texts(&here) == expected && texts(&there) == expected
    });
    there.unmount();
    here.unmount();
    vault.verify_clean();
}

#[test]
fn a_file_that_is_open_while_it_is_restored_keeps_what_its_program_sees() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let path = mount.join("file");
    std::fs::write(&path, "before").unwrap();
    mount.sync();
    let then = moment();
    std::fs::write(&path, "after it").unwrap();
    let open = std::fs::File::open(&path).unwrap();
    restore(&vault, &path, &["--at", &then]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
    let mut seen = [0; 8];
    open.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"after it");
    drop(open);
    mount.unmount();
}
