//! Files that only mean something to the Mac that makes them, which stay on the device: by the option that is the default there.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::harness::{Mount, Run, Vault, command, files_below, wait_for};
use crate::mac_names::names;
use crate::rsync::{assert_same, differences};
use crate::storages::On;

/// The option.
const LOCAL: [&str; 2] = ["--mac-files", "local"];
/// What all of them may take.
const BOUND: usize = 16 << 20;
const EXDEV: i32 = 18;
const EDQUOT: i32 = 122;

fn error(result: std::io::Result<impl Sized>) -> Option<i32> {
    result.err().and_then(|e| e.raw_os_error())
}

/// What a Mac leaves: in a directory, beside a file, and at the root of a volume.
fn leave_everywhere(mount: &Mount<'_>) {
    fs::write(mount.join(".DS_Store"), "how the window of the root looks").unwrap();
    fs::write(mount.join("photos/.DS_Store"), "how that of photos looks").unwrap();
    fs::write(mount.join("photos/._a.jpg"), "a resource fork").unwrap();
    command("setfattr")
        .args(["-n", "user.note", "-v", "of the fork"])
        .arg(mount.join("photos/._a.jpg"))
        .output_ok();
    fs::create_dir_all(mount.join(".Trashes/501")).unwrap();
    fs::write(mount.join(".Trashes/501/old report"), "thrown away").unwrap();
    symlink("501", mount.join(".Trashes/link")).unwrap();
    fs::hard_link(mount.join("photos/._a.jpg"), mount.join(".Trashes/second")).unwrap();
}

fn are_left(mount: &Mount<'_>) {
    let text = |name: &str| fs::read_to_string(mount.join(name)).unwrap();
    assert_eq!(names(mount.path()), [".DS_Store", ".Trashes", "photos"]);
    assert_eq!(
        names(&mount.join("photos")),
        [".DS_Store", "._a.jpg", "a.jpg"]
    );
    assert_eq!(text("photos/.DS_Store"), "how that of photos looks");
    assert_eq!(text("photos/._a.jpg"), "a resource fork");
    assert_eq!(text(".Trashes/link/old report"), "thrown away");
    let note = command("getfattr")
        .args(["--only-values", "--absolute-names", "-n", "user.note"])
        .arg(mount.join("photos/._a.jpg"))
        .output_ok();
    assert_eq!(note, "of the fork");
    let (fork, second) = (mount.join("photos/._a.jpg"), mount.join(".Trashes/second"));
    let both = [fork, second].map(|path| fs::metadata(path).unwrap());
    assert_eq!((both[0].ino(), both[0].nlink()), (both[1].ino(), 2));
}

fn what_a_mac_leaves_stays_on_its_device_and_nothing_is_uploaded_of_it(on: On) {
    let vault = Vault::new(on);
    let (mount, other) = (vault.mount_with("a", &LOCAL), vault.mount("b"));
    fs::create_dir(mount.join("photos")).unwrap();
    fs::write(mount.join("photos/a.jpg"), "a picture").unwrap();
    mount.sync();
    wait_for("the other device to see the picture", || {
        other.join("photos/a.jpg").exists()
    });
    let before = vault.storage.objects();
    leave_everywhere(&mount);
    are_left(&mount);
    mount.sync();
    assert!(vault.storage.objects() == before, "something was uploaded");
    assert_eq!(names(other.path()), ["photos"]);
    assert_eq!(names(&other.join("photos")), ["a.jpg"]);

    // The directory has another name when this device comes back.
    mount.unmount();
    fs::rename(other.join("photos"), other.join("elsewhere")).unwrap();
    other.sync();
    let mount = vault.mount_with("a", &LOCAL);
    fs::rename(mount.join("elsewhere"), mount.join("photos")).unwrap();
    are_left(&mount);
    // Of a directory that has nothing else no device sees more than an empty one.
    fs::create_dir_all(mount.join("empty/inner")).unwrap();
    fs::write(mount.join("empty/inner/.DS_Store"), "x").unwrap();
    fs::write(mount.join("empty/.DS_Store"), "x").unwrap();
    mount.sync();
    wait_for("the other device to see both", || {
        other.join("empty/inner").is_dir() && other.join("photos").is_dir()
    });
    fs::remove_dir(other.join("empty/inner")).unwrap();
    other.sync();
    wait_for("the inner one to be gone", || {
        !mount.join("empty/inner").exists()
    });
    fs::remove_dir(mount.join("empty")).unwrap();
    command("rm")
        .arg("-r")
        .arg(mount.join("photos"))
        .output_ok();
    command("rm")
        .arg("-r")
        .arg(mount.join(".Trashes"))
        .output_ok();
    assert_eq!(names(mount.path()), [".DS_Store"]);
    mount.unmount();
    other.unmount();

    // Without the option they are not there, and come back with it.
    let mount = vault.mount("a");
    assert_eq!(names(mount.path()), [""; 0]);
    fs::write(mount.join("._shared"), "for all").unwrap();
    mount.unmount();
    let mount = vault.mount_with("a", &LOCAL);
    assert_eq!(names(mount.path()), [".DS_Store", "._shared"]);
    mount.unmount();
    let other = vault.mount_with("b", &LOCAL);
    assert_eq!(names(other.path()), ["._shared"]);
    other.unmount();
    vault.verify_clean();
}

#[test]
fn programs_move_and_copy_trees_that_contain_what_a_mac_left() {
    let vault = Vault::new(On::Local);
    let source = vault.path("source");
    for dir in ["d/e", "empty", ".fseventsd"] {
        fs::create_dir_all(source.join(dir)).unwrap();
        fs::write(source.join(dir).join(".DS_Store"), dir.repeat(2000)).unwrap();
    }
    for name in ["f", "._f", "d/g", "d/._g", "d/e/._only"] {
        fs::write(source.join(name), name.repeat(1000)).unwrap();
    }
    command("touch")
        .args(["-d", "2011-02-03 04:05:06.123456789 UTC"])
        .args([source.join("._f"), source.join("d/.DS_Store")])
        .output_ok();
    command("setfattr")
        .args(["-n", "user.com.apple.FinderInfo", "-v", "x"])
        .arg(source.join("d/._g"))
        .output_ok();

    let mount = vault.mount_with("a", &LOCAL);
    let at = |name: &str| mount.join(name);
    let rsync = |to: &Path| {
        let mut command = command("rsync");
        command.args(["-aHAXS", "--delete", "--itemize-changes"]);
        command.arg(source.join("")).arg(to.join("")).output_ok()
    };
    assert_ne!(rsync(&at("copy")), "");
    assert_eq!(
        rsync(&at("copy")),
        "",
        "and a second time there is nothing to do"
    );
    assert_same(&source, &at("copy"));
    command("cp")
        .arg("-a")
        .arg(at("copy"))
        .arg(at("second"))
        .output_ok();
    assert_same(&source, &at("second"));
    command("tar")
        .args(["--xattrs", "-cf"])
        .arg(vault.path("tar"))
        .arg("-C")
        .arg(at("second"))
        .arg(".")
        .output_ok();
    fs::create_dir(at("third")).unwrap();
    command("tar")
        .args(["--xattrs", "-xpf"])
        .arg(vault.path("tar"))
        .arg("-C")
        .arg(at("third"))
        .output_ok();
    assert_same(&source, &at("third"));
    // A directory takes them along; from the vault to this device and back programs have to copy, and do.
    command("mv").arg(at("third")).arg(at("moved")).output_ok();
    assert_same(&source, &at("moved"));
    fs::create_dir(at(".Trashes")).unwrap();
    assert_eq!(
        error(fs::rename(at("moved"), at(".Trashes/moved"))),
        Some(EXDEV)
    );
    assert_eq!(error(fs::hard_link(at("moved/f"), at("._f"))), Some(EXDEV));
    command("mv")
        .arg(at("moved"))
        .arg(at(".Trashes"))
        .output_ok();
    assert_same(&source, &at(".Trashes/moved"));
    command("mv")
        .arg(at(".Trashes/moved"))
        .arg(at("back"))
        .output_ok();
    assert_same(&source, &at("back"));
    for name in ["copy", "second", "back", ".Trashes"] {
        command("rm").arg("-r").arg(at(name)).output_ok();
    }
    assert_eq!(names(mount.path()), [""; 0]);
    rsync(&at("copy"));
    mount.unmount();
    let mount = vault.mount_with("a", &LOCAL);
    assert_eq!(differences(&source, &mount.join("copy")), "");
    mount.unmount();

    let other = vault.mount("b");
    let seen = files_below(&other.join("copy"));
    let seen: Vec<_> = seen
        .iter()
        .map(|path| path.strip_prefix(other.join("copy")).unwrap())
        .collect();
    // At the root of a volume alone a Mac makes the other names.
    assert_eq!(seen, [Path::new("d/g"), Path::new("f")]);
    assert!(other.join("copy/.fseventsd").is_dir());
    other.unmount();
    vault.verify_clean();
}

#[test]
fn what_was_synced_of_them_survives_a_kill_and_the_rest_is_kept_within_seconds() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount_with("a", &LOCAL);
    fs::create_dir(mount.join("d")).unwrap();
    let mut synced = File::create(mount.join("d/._synced")).unwrap();
    synced.write_all(b"promised").unwrap();
    synced.sync_all().unwrap();
    File::open(mount.join("d")).unwrap().sync_all().unwrap();
    mount.crash();
    let mount = vault.mount_with("a", &LOCAL);
    assert_eq!(fs::read(mount.join("d/._synced")).unwrap(), b"promised");
    let stamp = || {
        let state = files_below(&vault.state("a"));
        let file = state.iter().find(|path| path.ends_with("mac-files"));
        fs::metadata(file.unwrap()).unwrap().ino()
    };
    let before = stamp();
    fs::write(mount.join("d/._later"), "not promised").unwrap();
    wait_for("it to be kept", || stamp() != before);
    mount.crash();
    let mount = vault.mount_with("a", &LOCAL);
    assert_eq!(fs::read(mount.join("d/._later")).unwrap(), b"not promised");
    mount.unmount();
    vault.verify_clean();
}

#[test]
fn beyond_their_bound_programs_hear_it_and_the_vault_takes_what_it_takes() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount_with("a", &LOCAL);
    let mut big = File::create(mount.join("._big")).unwrap();
    let written = big.write_all(&vec![7; BOUND + 1]);
    assert_eq!(error(written.and_then(|()| big.sync_all())), Some(EDQUOT));
    drop(big);
    let fits = vec![8; BOUND - (1 << 20)];
    fs::write(mount.join("._big"), &fits).unwrap();
    fs::write(mount.join("real"), vec![9; 2 * BOUND]).unwrap();
    File::open(mount.join("real")).unwrap().sync_all().unwrap();
    mount.unmount();
    let mount = vault.mount_with("a", &LOCAL);
    assert!(fs::read(mount.join("._big")).unwrap() == fits);
    fs::remove_file(mount.join("._big")).unwrap();
    fs::write(mount.join("._again"), &fits).unwrap();
    mount.unmount();

    // Bytes that are not what was kept are told, and never taken for none.
    let state = files_below(&vault.state("a"));
    let file = state.iter().find(|path| path.ends_with("mac-files"));
    let file = file.unwrap();
    let mut bytes = fs::read(file).unwrap();
    bytes[100] ^= 1;
    fs::write(file, bytes).unwrap();
    let (code, said) = vault.mount_command("a", &vault.point("a"), &LOCAL).code();
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("mac-files"), "{said}");
    let mount = vault.mount("a");
    mount.unmount();
    fs::remove_file(file).unwrap();
    let mount = vault.mount_with("a", &LOCAL);
    assert_eq!(names(mount.path()), ["real"]);
    mount.unmount();
}

crate::on_every_storage! { what_a_mac_leaves_stays_on_its_device_and_nothing_is_uploaded_of_it; }
