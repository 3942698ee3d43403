//! Several devices of one person on one vault.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::RawDir;

use crate::harness::{Dice, Mount, Run, Vault, command, wait_for};
use crate::rsync::{assert_same, compare};
use crate::storages::On;

fn two_devices_that_write_in_turns_see_the_same(on: On) {
    let vault = Vault::new(on);
    let devices = [vault.mount("a"), vault.mount("b")];
    let mut dice = Dice(21);
    for round in 0..6 {
        let (writer, reader) = (&devices[round % 2], &devices[(round + 1) % 2]);
        let name = format!("round {round}");
        std::fs::create_dir(writer.join(&name)).unwrap();
        let body = dice.bytes(10_000 * round + 5);
        std::fs::write(writer.join(&name).join("file"), &body).unwrap();
        if round > 0 {
            let earlier = format!("round {}", round - 1);
            std::fs::rename(
                writer.join(&earlier).join("file"),
                writer.join(&earlier).join("moved"),
            )
            .unwrap();
        }
        writer.sync();
        let seen = || std::fs::read(reader.join(&name).join("file")).is_ok_and(|back| back == body);
        wait_for("the other device to see it", seen);
    }
    wait_for("both to agree", || {
        // It fails where something gets another name while it looks.
        let output = compare(devices[0].path(), devices[1].path()).finish();
        output.status.success() && output.stdout.is_empty()
    });
    assert_same(devices[0].path(), devices[1].path());
    assert_eq!(
        inode(&devices[0].join("round 0")),
        inode(&devices[1].join("round 0"))
    );
    let [first, second] = devices;
    first.unmount();
    second.unmount();
    vault.verify_clean();
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::symlink_metadata(path).unwrap())
}

fn two_devices_that_write_at_once_lose_no_byte(on: On) {
    let vault = Vault::new(on);
    let first = vault.mount("a");
    let second = vault.mount("b");
    std::thread::scope(|scope| {
        for (name, mount) in [("a", &first), ("b", &second)] {
            scope.spawn(move || {
                for file in 0..100 {
                    std::fs::write(
                        mount.join(format!("{name}-{file}")),
                        format!("{name} wrote {file}"),
                    )
                    .unwrap();
                }
                mount.sync();
            });
        }
    });
    let all = |mount: &Mount<'_>| {
        (0..100).all(|file| {
            ["a", "b"].iter().all(|name| {
                std::fs::read_to_string(mount.join(format!("{name}-{file}")))
                    .is_ok_and(|text| text == format!("{name} wrote {file}"))
            })
        })
    };
    wait_for("both to see all files", || all(&first) && all(&second));
    first.unmount();
    second.unmount();
    vault.verify_clean();
}

fn a_new_device_is_told_what_it_cannot_know(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "x").unwrap();
    mount.unmount();
    let point = vault.point("b");
    let said = vault.mount_command("b", &point, &[]).finish();
    let second = Mount::adopt(&vault, point);
    let text =
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("new device"), "{text}");
    assert!(text.contains("heads code"), "{text}");
    second.unmount();
    // A device that is known says nothing of the kind.
    let point = vault.point("b");
    let said = vault.mount_command("b", &point, &[]).output_ok();
    let second = Mount::adopt(&vault, point);
    assert!(!said.contains("new device"), "{said}");
    second.unmount();
}

/// What getcwd tells a program that stands in a directory.
fn working_directory(dir: &Path) -> Option<PathBuf> {
    const TELL: &str = "import os
try: print(os.getcwd())
except FileNotFoundError: pass";
    let mut program = command("/usr/bin/python3");
    let told = program.args(["-c", TELL]).current_dir(dir).output_ok();
    (!told.is_empty()).then(|| PathBuf::from(told.trim_end()))
}

#[test]
fn a_directory_that_another_device_moves_has_its_old_parent_until_its_new_path_is_looked_up() {
    let vault = Vault::new(On::Local);
    let (here, there) = (vault.mount("a"), vault.mount("b"));
    std::fs::create_dir_all(here.join("new")).unwrap();
    std::fs::create_dir_all(here.join("old/dir")).unwrap();
    std::fs::write(here.join("old/dir/file"), "kept").unwrap();
    here.sync();
    wait_for("the directory to arrive", || {
        there.join("old/dir/file").exists()
    });
    let root = there.path().canonicalize().unwrap();
    let (old, new) = (inode(&there.join("old")), inode(&there.join("new")));
    let dir = File::open(there.join("old/dir")).unwrap();
    // What leads there is the open directory and no path, as from the working directory of a program.
    let open = format!("/proc/{}/fd/{}", std::process::id(), dir.as_raw_fd());
    let open = PathBuf::from(open);
    let stands = || (inode(&open.join("..")), working_directory(&open));
    assert_eq!(stands(), (old, Some(root.join("old/dir"))));

    std::fs::rename(here.join("old/dir"), here.join("new/moved")).unwrap();
    here.sync();
    wait_for("the move", || !there.join("old/dir").exists());
    assert_eq!(stands(), (old, None));
    // All that is in it is there.
    let file = open.join("file");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    std::fs::write(&file, "written").unwrap();
    std::fs::write(open.join("made"), "x").unwrap();
    assert_eq!(stands(), (old, None));
    assert_eq!(inode(&there.join("new/moved")), inode(&open.join(".")));
    assert_eq!(stands(), (new, Some(root.join("new/moved"))));

    // Where a directory above is moved, the path is the old one for so long.
    std::fs::rename(here.join("new"), here.join("newer")).unwrap();
    here.sync();
    wait_for("the move above", || !there.join("new").exists());
    assert_eq!(stands(), (new, Some(root.join("new/moved"))));
    assert_eq!(inode(&there.join("newer")), new);
    assert_eq!(stands(), (new, Some(root.join("newer/moved"))));
    drop(dir);
    there.sync();
    wait_for("what was written there", || {
        let text = std::fs::read_to_string(here.join("newer/moved/file"));
        text.is_ok_and(|text| text == "written") && here.join("newer/moved/made").exists()
    });
    there.unmount();
    here.unmount();
    vault.verify_clean();
}

/// Entries that stay in the directory that is listed.
const STAYING: usize = 1200;
/// Entries of which some are removed, and some get another name, while it is listed.
const GOING: usize = 400;
/// Of each kind of change so many at a time.
const CHANGES: usize = 8;

/// What one call tells of a directory: some thirty names.
fn next_names(dir: &File) -> Vec<String> {
    let mut room = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(dir, &mut room);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        if entries.is_buffer_empty() {
            break;
        }
    }
    names
}

/// All names, from a handle of its own.
fn names_in(dir: &Path) -> BTreeSet<OsString> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// Lists a directory from one handle, while another device changes it and that is taken in again and again. How often that was.
fn list_while_it_changes(
    (here, there): (&Mount<'_>, &Mount<'_>),
    name: &str,
    others_list: bool,
) -> usize {
    let (changed, listed) = (here.join(name), there.join(name));
    std::fs::create_dir(&changed).unwrap();
    let mut going: BTreeSet<String> = (0..GOING).map(|n| format!("goes-{n}")).collect();
    let staying: Vec<String> = (0..STAYING).map(|n| format!("stays-{n}")).collect();
    for name in going.iter().chain(&staying) {
        File::create(changed.join(name)).unwrap();
    }
    let arrived = |name: &str| {
        here.sync();
        wait_for("the changes to arrive", || {
            // Whoever asks for a lock file is told the newest.
            let _ = std::fs::metadata(there.join(".~lock.nothing#"));
            listed.join(name).exists()
        });
    };
    arrived(staying.last().unwrap());
    if others_list {
        // The kernel keeps what it was told.
        assert_eq!(names_in(&listed).len(), STAYING + GOING);
    }
    let dir = File::open(&listed).unwrap();
    let mut seen = BTreeMap::<String, usize>::new();
    let (mut calls, mut rounds) = (0, 0);
    loop {
        let names = next_names(&dir);
        if names.is_empty() {
            break;
        }
        calls += 1;
        for name in &names {
            *seen.entry(name.clone()).or_default() += 1;
        }
        if calls % 6 != 0 {
            continue;
        }
        rounds += 1;
        // The entry that the listing stands at goes as well.
        let last = names.iter().rev().find(|name| going.contains(*name));
        if let Some(last) = last {
            std::fs::remove_file(changed.join(last)).unwrap();
            going.remove(last);
        }
        for n in 0..CHANGES {
            let [removed, renamed] = [(); 2].map(|()| going.pop_first().unwrap());
            std::fs::remove_file(changed.join(&removed)).unwrap();
            let other = changed.join(format!("other-{renamed}"));
            std::fs::rename(changed.join(renamed), other).unwrap();
            File::create(changed.join(format!("new-{rounds}-{n}"))).unwrap();
        }
        arrived(&format!("new-{rounds}-{}", CHANGES - 1));
        if others_list {
            names_in(&listed);
        }
    }
    let missed = staying.iter().filter(|name| !seen.contains_key(*name));
    let missed: Vec<_> = missed.collect();
    assert!(missed.is_empty(), "{name}: not seen: {missed:?}");
    let again: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(again.is_empty(), "{name}: seen again: {again:?}");
    assert_eq!(names_in(&listed), names_in(&changed));
    rounds
}

#[test]
fn a_listing_shows_what_stays_once_while_changes_of_another_device_in_the_directory_are_taken_in() {
    let vault = Vault::new(On::Local);
    let (here, there) = (vault.mount("a"), vault.mount("b"));
    // From us, and from what the kernel keeps of other listings.
    for (name, others_list) in [("alone", false), ("kept", true)] {
        let rounds = list_while_it_changes((&here, &there), name, others_list);
        assert!(rounds >= 5, "taken in {rounds} times only");
    }
    there.unmount();
    here.unmount();
    vault.verify_clean();
}

crate::on_every_storage! {
    two_devices_that_write_in_turns_see_the_same;
    two_devices_that_write_at_once_lose_no_byte;
    a_new_device_is_told_what_it_cannot_know;
}
