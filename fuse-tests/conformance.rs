//! The suites that file systems are measured with, on a mount: pjdfstest for what calls promise, fsx and fio for contents, stress-ng for
//! many programs at once.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Mount, Run, Vault, command};
use crate::storages::On;

/// Tests of pjdfstest 0.2.2 that there are for Linux.
const PJDFSTEST_COUNT: usize = 398;
/// Operations of fsx for each seed, and their halves, which have a remount between them.
const FSX_OPERATIONS: RangeInclusive<u32> = 1..=4000;
const FSX_HALVES: [RangeInclusive<u32>; 2] = [1..=2000, 2001..=4000];
/// Seeds of fsx.
const FSX_SEEDS: u32 = 4;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuse-tests/conformance")
        .join(name)
}

/// A suite that `.ci/install-test-deps` built.
fn suite(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/test-deps/suites/bin")
        .join(name);
    assert!(
        path.is_file(),
        "no {}; has .ci/install-test-deps been run?",
        path.display()
    );
    command(path.to_str().unwrap())
}

/// Runs the tests of pjdfstest that match; how each ended.
fn pjdfstest(
    dir: &Path,
    config: &Path,
    secondary: &Path,
    only: &[&str],
) -> BTreeMap<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = suite("pjdfstest")
        .arg("-c")
        .arg(config)
        .arg("-p")
        .arg(dir)
        .arg("-s")
        .arg(secondary)
        .args(only)
        .env("PATH", format!("{}:{path}", file("bin").display()))
        .env("NO_COLOR", "1")
        .finish();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("Summary"), "{said}");
    let mut ended = BTreeMap::new();
    for line in said.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(name), Some(how @ ("ok" | "FAILED" | "skipped")), None) =
            (words.next(), words.next(), words.next())
        {
            ended.insert(name.to_owned(), how.to_owned());
        }
    }
    if !output.status.success() {
        eprintln!("{said}");
    }
    ended
}

/// Names in an exclusion list, each of which has a reason.
fn exclusions(list: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file(list)).unwrap();
    let lines = text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty());
    lines
        .map(|line| {
            let (name, reason) = line.split_once(' ').unwrap();
            assert!(!reason.trim().is_empty(), "{name} has no reason");
            name.to_owned()
        })
        .collect()
}

#[test]
fn every_test_of_pjdfstest_passes_that_is_not_excluded_for_a_reason() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount_with("a", &["--allow-other"]);
    let open = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    // The suite acts as other users too.
    open(mount.path());
    open(&vault.path(""));
    let secondary = vault.path("secondary");
    std::fs::create_dir(&secondary).unwrap();
    open(&secondary);
    // Some tests of the suite leave a file open, after which no file system can be remounted read-only: those that do, alone.
    let config = std::fs::read_to_string(file("pjdfstest.toml")).unwrap();
    let never = vault.path("no-remount.toml");
    std::fs::write(
        &never,
        config.replace("allow_remount = true", "allow_remount = false"),
    )
    .unwrap();
    let mut ended = pjdfstest(mount.path(), &never, &secondary, &[]);
    let remounted = pjdfstest(
        mount.path(),
        &file("pjdfstest.toml"),
        &secondary,
        &["erofs"],
    );
    assert_eq!(remounted.len(), 13);
    ended.extend(remounted);
    assert_eq!(ended.len(), PJDFSTEST_COUNT);
    let not_passed: Vec<String> = ended
        .into_iter()
        .filter(|(_, how)| how != "ok")
        .map(|(name, _)| name)
        .collect();
    assert_eq!(not_passed, exclusions("exclusions"));
    mount.unmount();
}

/// Where calls do something else than on a native file system, and what: as docs/semantics.md says, but for values of attributes, of which
/// others take less.
const DIFFERENCES: [(&str, &str); 18] = [
    ("rename with a whiteout", "EINVAL"),
    ("a value of 64 KiB", "None"),
    ("the value of 64 KiB again", "True"),
    (
        "30,000 bytes five times",
        "[None, None, None, None, 'ENOSPC']",
    ),
    ("collapse", "ENOTSUP"),
    ("insert", "ENOTSUP"),
    ("time of birth", "not told"),
    ("FICLONE", "ENOTSUP"),
    ("FICLONERANGE", "ENOTSUP"),
    ("FS_IOC_FIEMAP", "ENOTSUP"),
    ("FS_IOC_GETFLAGS", "ENOTTY"),
    ("FS_IOC_SETFLAGS", "ENOTTY"),
    ("FS_IOC_FSGETXATTR", "ENOTTY"),
    ("FS_IOC_ENABLE_VERITY", "ENOTTY"),
    ("RWF_NOWAIT, read", "ENOTSUP"),
    ("RWF_NOWAIT, write", "ENOTSUP"),
    ("FALLOC_FL_UNSHARE_RANGE", "ENOTSUP"),
    ("open d 0o20200002", "ENOTSUP"),
];
/// Lines that `calls.py` prints.
const CALLS: usize = 482;

fn calls_do_what_they_do_on_a_native_file_system_but_where_it_is_said(on: On) {
    let vault = Vault::new(on);
    let native = vault.path("native");
    std::fs::create_dir(&native).unwrap();
    let mount = vault.mount_with("a", &["--allow-other"]);
    let here = mount.join("here");
    std::fs::create_dir(&here).unwrap();
    for dir in [mount.path(), &vault.path("")] {
        std::fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    }
    let said = |dir: &Path| {
        let script = command("python3")
            .arg(file("calls.py"))
            .arg(dir)
            .output_ok();
        let lines: Vec<String> = script.lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), CALLS, "{script}");
        lines
    };
    for (theirs, ours) in said(&native).iter().zip(&said(&here)) {
        let (what, value) = ours.split_once(": ").unwrap_or((ours, ""));
        match DIFFERENCES.iter().find(|(name, _)| *name == what) {
            Some((_, expected)) => assert_eq!(value, *expected, "{what}"),
            None => assert_eq!(ours, theirs),
        }
    }
    assert_eq!(std::fs::read_dir(&here).unwrap().count(), 0);
    mount.unmount();
    vault.verify_clean();
}

/// Files that stay on the device are another implementation of all that these suites check.
#[test]
fn pjdfstest_and_fsx_pass_among_the_files_that_stay_on_the_device() {
    let vault = Vault::new(On::Local);
    let mut mount = vault.mount_with("a", &["--allow-other", "--mac-files", "local"]);
    let dir = mount.join(".TemporaryItems");
    std::fs::create_dir(&dir).unwrap();
    let open = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    let secondary = vault.path("secondary");
    std::fs::create_dir(&secondary).unwrap();
    for dir in [mount.path(), &dir, &vault.path(""), &secondary] {
        open(dir);
    }
    let config = std::fs::read_to_string(file("pjdfstest.toml")).unwrap();
    let never = vault.path("no-remount.toml");
    let config = config.replace("allow_remount = true", "allow_remount = false");
    std::fs::write(&never, config).unwrap();
    let ended = pjdfstest(&dir, &never, &secondary, &[]);
    assert_eq!(ended.len(), PJDFSTEST_COUNT);
    // None of these is about anything but the remount.
    let remounts = |name: &str| name.contains("erofs");
    let not_passed = ended
        .into_iter()
        .filter(|(name, how)| how != "ok" && !remounts(name));
    let not_passed: Vec<String> = not_passed.map(|(name, _)| name).collect();
    // A file of 2 GiB is beyond their bound.
    let expected = [exclusions("exclusions"), vec!["open::interact_2gb".into()]].concat();
    assert_eq!(not_passed, expected);

    let native = vault.path("native");
    std::fs::create_dir(&native).unwrap();
    fsx(1, FSX_OPERATIONS, &native, &native.join("fsx"));
    for half in FSX_HALVES {
        fsx(1, half, &native, &dir.join("fsx"));
        mount.unmount();
        mount = vault.mount_with("a", &["--mac-files", "local"]);
    }
    let back = std::fs::read(dir.join("fsx")).unwrap();
    assert!(back == std::fs::read(native.join("fsx")).unwrap());
    mount.unmount();
    vault.verify_clean();
}

/// Those operations of a seed, of which the first begins the file anew. Where others come first, the file has to be as those before them left
/// it, and fsx looks whether it is (`fsx-continue.patch`).
fn fsx_command(
    seed: u32,
    operations: RangeInclusive<u32>,
    artifacts: &Path,
    target: &Path,
) -> Command {
    let (first, last) = operations.into_inner();
    let mut fsx = suite("fsx");
    fsx.arg("-f").arg(file("fsx.toml"));
    fsx.args(["-S", &seed.to_string(), "-b", &first.to_string()]);
    fsx.args(["-N", &last.to_string(), "-P"]);
    fsx.arg(artifacts).arg(target);
    fsx
}

fn fsx(seed: u32, operations: RangeInclusive<u32>, artifacts: &Path, target: &Path) {
    fsx_command(seed, operations, artifacts, target).output_ok();
}

/// As published, fsx would write over all that the other tests want looked at.
#[test]
fn fsx_goes_on_where_it_ended_and_finds_what_changed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(name));
    let [first, second] = [1..=200, 201..=400];
    fsx(1, 1..=400, dir.path(), &whole);
    fsx(1, first, dir.path(), &parts);
    let middle = std::fs::read(&parts).unwrap();
    assert!(!middle.is_empty());
    fsx(1, second.clone(), dir.path(), &parts);
    assert!(std::fs::read(&parts).unwrap() == std::fs::read(&whole).unwrap());

    let finds = |contents: &[u8], what: &str| {
        std::fs::write(&parts, contents).unwrap();
        let (code, said) = fsx_command(1, second.clone(), dir.path(), &parts).code();
        assert!(code == 1 && said.contains(what), "{code}: {said}");
    };
    let mut changed = middle.clone();
    changed[middle.len() / 2] ^= 1;
    finds(&changed, "miscompare");
    finds(&middle[..middle.len() - 1], "Size error");
    std::fs::remove_file(&parts).unwrap();
    let (code, said) = fsx_command(1, second, dir.path(), &parts).code();
    assert!(code != 0 && !parts.exists(), "{code}: {said}");
}

#[test]
fn fsx_finds_no_wrong_byte_over_a_remount_nor_does_a_comparison_after_it_and_on_another_device() {
    let vault = Vault::new(On::Local);
    let native = vault.path("native");
    std::fs::create_dir(&native).unwrap();
    let name = |seed: u32| format!("seed-{seed}");
    // One seed makes the same file everywhere: fsx compares within the mount, the native file with what comes after it.
    for seed in 1..=FSX_SEEDS {
        fsx(seed, FSX_OPERATIONS, &native, &native.join(name(seed)));
    }
    let mut mount = vault.mount("a");
    for half in FSX_HALVES {
        for seed in 1..=FSX_SEEDS {
            fsx(seed, half.clone(), &native, &mount.join(name(seed)));
        }
        mount.unmount();
        mount = vault.mount("a");
    }
    let compare = |mount: &Mount<'_>, place: &str| {
        for seed in 1..=FSX_SEEDS {
            let back = std::fs::read(mount.join(name(seed))).unwrap();
            let expected = std::fs::read(native.join(name(seed))).unwrap();
            assert!(back == expected, "seed {seed} {place}");
        }
    };
    compare(&mount, "after a remount");
    mount.unmount();
    let other = vault.mount("b");
    compare(&other, "on another device");
    other.unmount();
    vault.verify_clean();
}

fn fio(vault: &Vault, mount: &Mount<'_>, options: &[&str]) -> (i32, String) {
    command("fio")
        .args(["--output-format=terse", "--terse-version=3"])
        .args(options)
        .arg(file("verify.fio"))
        .env("DIR", mount.path())
        .current_dir(vault.path(""))
        .code()
}

fn fio_reads_what_it_wrote_also_after_a_remount_and_on_another_device(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    assert_eq!(fio(&vault, &mount, &[]), (0, String::new()));
    mount.unmount();
    for device in ["a", "b"] {
        let mount = vault.mount(device);
        let said = fio(&vault, &mount, &["--verify_only"]);
        assert_eq!(said, (0, String::new()), "on {device}");
        mount.unmount();
    }
    vault.verify_clean();
}

/// What stress-ng calls its class of file systems, but for those that are excluded.
fn stressors() -> Vec<String> {
    let said = command("stress-ng")
        .args(["--class", "filesystem?"])
        .finish();
    let said =
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    let (_, names) = said.split_once("stressors:").unwrap();
    let excluded = exclusions("stressors");
    let names = names.split_ascii_whitespace().map(str::to_owned);
    names.filter(|name| !excluded.contains(name)).collect()
}

#[test]
fn every_stressor_of_file_systems_passes_that_is_not_excluded_for_a_reason() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let stressors = stressors();
    assert!(stressors.len() >= 30, "{stressors:?}");
    let passes = |name: &str| {
        let output = command("stress-ng")
            .args([&format!("--{name}"), "2", &format!("--{name}-ops"), "60"])
            .args(["--timeout", "2", "--verify", "--temp-path"])
            .arg(mount.path())
            .finish();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        // Where it finds something, it does not always end with an error.
        let bad = ["fail:", "error:", "skip"];
        let passed = output.status.success() && !bad.iter().any(|word| said.contains(word));
        if !passed {
            println!("{name}: {}\n{said}", output.status);
        }
        passed
    };
    for name in &stressors {
        // Some miss on a busy machine what they look for when their time is over; what is wrong is so each time.
        let passed = (0..3).any(|_| passes(name));
        assert!(passed, "{name} failed three times");
        let left = std::fs::read_dir(mount.path()).unwrap().count();
        assert_eq!(left, 0, "{name} could not remove what it made");
        // What the kernel could not write back is told here.
        let sync = || command("sync").arg("-f").arg(mount.path()).code();
        // Of a process that was killed while it punched holes the kernel may say to the next one that it was interrupted.
        let interrupted = |(_, said): &(i32, String)| said.contains("Interrupted system call");
        let first = sync();
        let (code, said) = if interrupted(&first) { sync() } else { first };
        assert_eq!(code, 0, "{name}: {said}");
    }
    mount.unmount();
    vault.verify_clean();
}

crate::on_every_storage! {
    fio_reads_what_it_wrote_also_after_a_remount_and_on_another_device;
    calls_do_what_they_do_on_a_native_file_system_but_where_it_is_said;
}
