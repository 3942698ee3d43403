//! What a mount on a Mac does with names, by the options that turn it on elsewhere.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::harness::Vault;
use crate::storages::On;

/// "é" and "ü" in one character each, and in two.
const COMPOSED: &str = "caf\u{e9} \u{fc}ber.txt";
const DECOMPOSED: &str = "cafe\u{301} u\u{308}ber.txt";

/// What a directory lists, in order.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let name = |entry: fs::DirEntry| String::from_utf8_lossy(&entry.file_name().into_vec()).into();
    let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

#[test]
fn with_any_form_of_unicode_a_name_is_found_by_both_and_made_composed() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount_with("a", &["--unicode", "any"]);
    let at = |name: &str| mount.join(name);
    // Asked for in vain first, so that the kernel has something wrong to remember.
    for name in [COMPOSED, DECOMPOSED] {
        assert!(!at(name).exists());
    }
    fs::write(at(DECOMPOSED), "first").unwrap();
    assert_eq!(names(mount.path()), [COMPOSED]);
    assert_eq!(fs::read_to_string(at(COMPOSED)).unwrap(), "first");
    fs::write(at(COMPOSED), "second").unwrap();
    assert_eq!(fs::read_to_string(at(DECOMPOSED)).unwrap(), "second");
    assert_eq!(names(mount.path()), [COMPOSED]);
    // A rename through one form, a look through the other.
    fs::rename(at(DECOMPOSED), at("plain")).unwrap();
    assert!(!at(COMPOSED).exists() && !at(DECOMPOSED).exists());
    fs::rename(at("plain"), at(DECOMPOSED)).unwrap();
    assert_eq!(names(mount.path()), [COMPOSED]);
    fs::remove_file(at(DECOMPOSED)).unwrap();
    assert!(!at(COMPOSED).exists());
    // Directories too, and what is in them.
    fs::create_dir(at(COMPOSED)).unwrap();
    fs::write(at(DECOMPOSED).join("in"), "x").unwrap();
    assert_eq!(names(&at(COMPOSED)), ["in"]);
    assert!(fs::create_dir(at(DECOMPOSED)).is_err());
    mount.unmount();
    vault.verify_clean();
}

#[test]
fn names_are_bytes_unless_asked_otherwise_and_both_forms_stay_reachable_when_it_is() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    fs::write(mount.join(COMPOSED), "composed").unwrap();
    assert!(!mount.join(DECOMPOSED).exists());
    fs::write(mount.join(DECOMPOSED), "decomposed").unwrap();
    assert_eq!(names(mount.path()).len(), 2);
    mount.unmount();

    let mount = vault.mount_with("a", &["--unicode", "any"]);
    for (name, text) in [(COMPOSED, "composed"), (DECOMPOSED, "decomposed")] {
        assert_eq!(fs::read_to_string(mount.join(name)).unwrap(), text);
    }
    // One of the two goes; the other is then found by either form.
    fs::remove_file(mount.join(COMPOSED)).unwrap();
    for name in [COMPOSED, DECOMPOSED] {
        assert_eq!(fs::read_to_string(mount.join(name)).unwrap(), "decomposed");
    }
    mount.unmount();
}
