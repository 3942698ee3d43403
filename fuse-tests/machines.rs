//! Mounts as the administrator of a machine makes them: by mount(8) from /etc/fstab, with owners of his own, read-only for a
//! while, stopped and woken up again. What would change this machine happens in a mount namespace that goes with its test.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::{Dice, LETS_GO, Mount, Run, SKRIN, Vault, command, is_alive, kill, wait_for};
use crate::storages::On;

/// Puts the program where mount(8) looks for helpers, gives mount(8) a place of its own for notes, tells that it is done, and stays.
const NAMESPACE: &str = "set -e
    mount -t tmpfs skrin-test-sbin /sbin
    mkdir -p /run/mount
    mount -t tmpfs skrin-test-run /run/mount
    ln -s \"$0\" /sbin/mount.skrin
    echo ready
    exec sleep 1200";

/// A machine with mount.skrin installed and a line in its fstab.
struct Machine {
    vault: Vault,
    point: PathBuf,
    namespace: Child,
}

impl Machine {
    /// With these options in the line, besides those that say where secret and state are.
    fn new(options: &str) -> Self {
        let vault = Vault::new(On::Local);
        let point = vault.point("a");
        let mut namespace = Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg(format!("{LETS_GO}\n{NAMESPACE}"))
            .arg(SKRIN)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let out = namespace.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut ready).unwrap();
        let machine = Self {
            vault,
            point,
            namespace,
        };
        machine.write_fstab(&machine.source(), options);
        machine
    }

    /// The vault as the mount table shows it.
    fn source(&self) -> String {
        format!("skrin:{}", self.vault.address())
    }

    fn write_fstab(&self, source: &str, options: &str) {
        let line = format!(
            "{source} {} skrin words-file={},state-dir={},{options} 0 0\n",
            self.point.display(),
            self.vault.words_file().display(),
            self.vault.state("a").display(),
        );
        std::fs::write(self.vault.path("fstab"), line).unwrap();
    }

    /// A command that sees the mounts of this machine.
    fn run(&self, program: &str, args: &[&str]) -> Command {
        let mut command = command("nsenter");
        command
            .args(["--mount", "--target", &self.namespace.id().to_string()])
            .args([program])
            .args(args)
            .env_remove("SKRIN_PASSPHRASE_FILE")
            .current_dir("/");
        command
    }

    /// `mount` with these arguments, the fstab and the mount point.
    fn mount(&self, args: &[&str]) -> Command {
        let mut mount = self.run("mount", &["--fstab"]);
        mount.arg(self.vault.path("fstab")).args(args);
        mount.arg(&self.point);
        mount
    }

    /// A shell command, where `$0` is the mount point.
    fn shell(&self, line: &str) -> Command {
        self.run("sh", &["-c", line, self.point.to_str().unwrap()])
    }

    fn status(&self) -> serde_json::Value {
        let point = self.point.to_str().unwrap();
        let text = self.run(SKRIN, &["status", "--json", point]).output_ok();
        serde_json::from_str(&text).unwrap()
    }

    fn pid(&self) -> u32 {
        self.status()["pid"].as_u64().unwrap() as u32
    }

    /// Options of the mount as the kernel has them; `None` where nothing is mounted.
    fn mounted(&self) -> Option<String> {
        self.look().unwrap()
    }

    /// The same for who must not panic.
    fn look(&self) -> std::io::Result<Option<String>> {
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", self.namespace.id()))?;
        let mut lines = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let line = lines
            .find(|fields| fields[2].starts_with("fuse") && Path::new(fields[1]) == self.point);
        Ok(line.map(|fields| fields[3].to_owned()))
    }

    /// Ends the mount by umount(8), and waits for its process.
    fn umount(&self) {
        let pid = self.pid();
        self.run("umount", &[self.point.to_str().unwrap()])
            .output_ok();
        assert_eq!(self.mounted(), None);
        wait_for("the process behind the mount to end", || !is_alive(pid));
    }
}

impl Drop for Machine {
    /// Without a panic: in a test that fails already it would end all others too.
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.look() {
            let point = self.point.display().to_string();
            let said = self.run(SKRIN, &["status", "--json", &point]).output();
            let said = said.map(|said| serde_json::from_slice(&said.stdout));
            let status: serde_json::Value = said.ok().and_then(Result::ok).unwrap_or_default();
            if let Some(pid) = status["pid"].as_u64() {
                kill(pid as u32, "KILL");
            }
            let _ = self.run("umount", &["-l", &point]).output();
        }
        let _ = self.namespace.kill();
        let _ = self.namespace.wait();
    }
}

#[test]
fn a_line_in_fstab_mounts_and_what_umount_8_leaves_is_there_after_the_next_mount() {
    let machine = Machine::new(
        "rw,exec,auto,nosuid,nodev,noatime,allow_other,_netdev,nofail,comment=ours,x-systemd.automount,x-a.b=c",
    );
    machine.mount(&[]).output_ok();
    let options = machine.mounted().unwrap();
    for option in ["rw", "nosuid", "nodev", "noatime", "allow_other"] {
        assert!(
            options.split(',').any(|o| o == option),
            "{option}: {options}"
        );
    }
    let name = std::fs::read_to_string(format!("/proc/{}/comm", machine.pid()));
    assert_eq!(name.unwrap(), "skrin\n");
    // mount -a may be run at any time.
    let fstab = machine.vault.path("fstab");
    let all = ["--fstab", fstab.to_str().unwrap(), "-a"];
    let (code, said) = machine.run("mount", &all).code();
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!(
        machine
            .shell("grep -c \" $0 \" /proc/self/mounts")
            .output_ok(),
        "1\n"
    );

    // Nobody syncs. What is mounted at once again waits for the process that ends.
    for round in 0..3 {
        let file = machine.vault.path("body");
        std::fs::write(&file, Dice(round).bytes(3_000_000)).unwrap();
        let file = file.to_str().unwrap();
        let write = format!("cp {file} \"$0/{round}\" && mkdir \"$0/d{round}\" && umount \"$0\"");
        machine.shell(&write).output_ok();
        assert_eq!(machine.mounted(), None);
        machine.mount(&[]).output_ok();
        machine
            .shell(&format!(
                "cmp {file} \"$0/{round}\" && test -d \"$0/d{round}\""
            ))
            .output_ok();
    }
    machine
        .run(SKRIN, &["sync", machine.point.to_str().unwrap()])
        .output_ok();
    machine.umount();
    let other = machine.vault.mount("b");
    assert!(std::fs::read(other.join("2")).unwrap() == Dice(2).bytes(3_000_000));
    other.unmount();
}

#[test]
fn mount_8_finds_what_it_noted_by_the_source_that_the_mount_table_shows_and_a_plain_address_mounts_too()
 {
    let machine = Machine::new("_netdev");
    let is_found = || {
        let table = machine.run("mount", &[]).output_ok();
        let place = format!(" on {} type fuse", machine.point.display());
        let line = table.lines().find(|line| line.contains(&place)).unwrap();
        assert!(line.starts_with(&machine.source()), "{line}");
        line.contains(",_netdev")
    };
    machine.mount(&[]).output_ok();
    assert!(is_found());
    machine.umount();
    assert_eq!(machine.shell("cat /run/mount/utab").output_ok(), "");

    // It is told how the mount table has it, before anything is mounted.
    machine.write_fstab(&machine.source().replacen('/', "/./", 1), "_netdev");
    let (code, said) = machine.mount(&["-f"]).code();
    let shown = format!("will show {};", machine.source());
    assert!(code == 0 && said.contains(&shown), "{code} {said}");

    machine.write_fstab(&machine.vault.address(), "_netdev");
    machine.mount(&[]).output_ok();
    assert!(!is_found());
    let fstab = machine.vault.path("fstab");
    let all = ["--fstab", fstab.to_str().unwrap(), "-a"];
    let (code, said) = machine.run("mount", &all).code();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("mounted there already"), "{said}");
    machine.umount();
}

#[test]
fn the_options_of_mount_8_have_their_effect_and_unknown_ones_are_told() {
    let machine = Machine::new("user,noauto,uid=12,gid=34,umask=027");
    machine.mount(&["-v"]).output_ok();
    assert!(machine.mounted().unwrap().contains("noexec"));
    assert_eq!(
        machine.shell("stat -c '%u %g %a' \"$0\"").output_ok(),
        "12 34 750\n"
    );
    machine.umount();
    machine.mount(&["-o", "exec,ro"]).output_ok();
    let options = machine.mounted().unwrap();
    assert!(
        !options.contains("noexec") && options.starts_with("ro,"),
        "{options}"
    );
    assert_eq!(machine.status()["reader"], true);
    let (code, said) = machine.mount(&["-o", "remount,rw"]).code();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("begun read-only"), "{said}");
    machine.umount();

    for (options, says) in [
        ("nonsense=hunter2", "-o nonsense: there is no such option"),
        ("passphrase=hunter2", "a secret on the command line"),
        ("suid", "-o suid: a vault cannot be mounted so"),
        ("uid=hunter2", "a user or group is a number"),
        ("umask=888", "a mask looks like 022"),
    ] {
        let (code, said) = machine.mount(&["-o", options]).code();
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(says) && !said.contains("hunter2"), "{said}");
        assert_eq!(machine.mounted(), None);
    }
    // Only to see whether it would be mounted; and with what it does not know, where that was asked for.
    machine.mount(&["-f"]).output_ok();
    assert_eq!(machine.mounted(), None);
    machine.mount(&["-n", "-s", "-o", "nonsense"]).output_ok();
    machine.umount();
}

#[test]
fn without_a_terminal_nobody_is_asked_for_a_passphrase() {
    let machine = Machine::new("noauto");
    let line = format!(
        "{} {} skrin noauto 0 0\n",
        machine.vault.address(),
        machine.point.display()
    );
    std::fs::write(machine.vault.path("fstab"), line).unwrap();
    // As at boot, and from a script that has its input elsewhere.
    for stdin in [Stdio::null(), Stdio::piped()] {
        let child = machine
            .mount(&[])
            .stdin(stdin)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("there is no terminal to ask"), "{said}");
    }
    assert_eq!(machine.mounted(), None);
}

#[test]
fn a_remount_read_only_keeps_what_was_accepted_and_refuses_the_rest_until_it_is_taken_back() {
    let machine = Machine::new("noauto,noexec");
    machine.mount(&[]).output_ok();
    machine.shell("echo before > \"$0/file\"").output_ok();
    // As for any file system: not while somebody writes, and it is said who.
    let mut writer = machine.shell("exec 3>>\"$0/file\"; echo open; read line");
    let mut writer = writer
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    let (code, said) = machine.mount(&["-o", "remount,ro"]).code();
    assert_eq!(code, 32, "{said}");
    assert!(said.contains("(sh)"), "{said}");
    drop(writer.stdin.take());
    writer.wait().unwrap();

    machine.mount(&["-o", "remount,ro"]).output_ok();
    let options = machine.mounted().unwrap();
    assert!(
        options.starts_with("ro,") && options.contains("noexec"),
        "{options}"
    );
    let (code, said) = machine.shell("echo after > \"$0/file\"").code();
    assert!(
        code != 0 && said.contains("Read-only file system"),
        "{said}"
    );
    assert_eq!(machine.shell("cat \"$0/file\"").output_ok(), "before\n");
    let status = machine.status();
    assert_eq!(
        (&status["read_only"], &status["reader"]),
        (&true.into(), &false.into())
    );
    machine
        .run(SKRIN, &["sync", machine.point.to_str().unwrap()])
        .output_ok();
    let other = machine.vault.mount("b");
    assert_eq!(
        std::fs::read_to_string(other.join("file")).unwrap(),
        "before\n"
    );
    other.unmount();

    machine.mount(&["-o", "remount,rw"]).output_ok();
    machine.shell("echo after > \"$0/file\"").output_ok();
    assert_eq!(machine.status()["read_only"], false);
    // Without the line, where the type is said.
    let (vault, point) = (machine.vault.address(), machine.point.to_str().unwrap());
    let by_type = ["-t", "skrin", "-o", "remount,ro", &vault, point];
    machine.run("mount", &by_type).output_ok();
    assert!(machine.mounted().unwrap().starts_with("ro,"));
    machine.umount();
    machine.mount(&[]).output_ok();
    assert_eq!(machine.shell("cat \"$0/file\"").output_ok(), "after\n");
    machine.umount();
}

#[test]
fn after_a_lazy_umount_the_process_stays_for_those_who_use_it_and_then_puts_everything_into_the_journal()
 {
    let machine = Machine::new("noauto");
    machine.mount(&[]).output_ok();
    let pid = machine.pid();
    let mut writer = machine.shell("exec 3>\"$0/file\"; echo open; read line; echo \"$line\" >&3");
    let mut writer = writer
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    machine
        .run("umount", &["-l", machine.point.to_str().unwrap()])
        .output_ok();
    assert_eq!(machine.mounted(), None);
    // More than it takes to notice an end.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(is_alive(pid));
    std::io::Write::write_all(writer.stdin.as_mut().unwrap(), b"written late\n").unwrap();
    assert!(writer.wait().unwrap().success());
    wait_for("the process behind the mount to end", || !is_alive(pid));
    machine.mount(&[]).output_ok();
    assert_eq!(
        machine.shell("cat \"$0/file\"").output_ok(),
        "written late\n"
    );
    machine.umount();
}

#[test]
fn a_busy_unmount_names_who_has_mapped_a_file_and_lazy_leaves_it_to_him() {
    // Python keeps a descriptor beside the map; others do not.
    const MAPS: &str = "import mmap, os, sys
with open(sys.argv[1], 'r+b') as f: m = mmap.mmap(f.fileno(), 0)
for n in range(3, 20):
    if os.path.realpath(f'/proc/self/fd/{n}') == os.path.realpath(sys.argv[1]): os.close(n)
print('mapped', flush=True)
sys.stdin.readline()
m[:3] = b'new'";
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "old").unwrap();
    let mut user = Command::new("/usr/bin/python3")
        .args(["-c", MAPS])
        .arg(mount.join("file"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(user.stdout.as_mut().unwrap(), &mut [0; 7]).unwrap();
    let (code, said) = vault.skrin(&["unmount"]).arg(mount.path()).code();
    assert_eq!(code, 6, "{said}");
    assert!(said.contains(&format!("{} (python3)", user.id())), "{said}");
    let pid = mount.pid();
    vault
        .skrin(&["unmount", "--lazy"])
        .arg(mount.path())
        .output_ok();
    assert!(is_alive(pid));
    drop(user.stdin.take());
    assert!(user.wait().unwrap().success());
    wait_for("the process behind the mount to end", || !is_alive(pid));
    drop(mount);
    let mount = vault.mount("a");
    assert_eq!(std::fs::read_to_string(mount.join("file")).unwrap(), "new");
    mount.unmount();
}

/// Owner, group and mode.
fn shown(path: &Path) -> (u32, u32, u32) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

#[test]
fn a_mount_with_an_owner_of_its_own_shows_and_enforces_it_and_changes_nothing_for_others() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("b");
    let make = "umask 022; echo x > \"$0/old\"; chmod 4757 \"$0/old\"; chown 501:502 \"$0/old\"; chmod 4757 \"$0/old\"; \
        ln -s old \"$0/link\"; setfacl -m u:3:rwx \"$0/old\"; chmod 755 \"$0\"";
    command("sh")
        .args(["-c", make])
        .arg(mount.path())
        .output_ok();
    let kept = shown(&mount.join("old"));
    mount.unmount();

    // Others may pass, so that only the mount can keep them out.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(vault.path(""), open).unwrap();
    let options = [
        "--allow-other",
        "--uid",
        "1",
        "--gid",
        "7",
        "--umask",
        "027",
    ];
    let mount = vault.mount_with("a", &options);
    assert_eq!(shown(&mount.join("old")), (1, 7, kept.2 & !0o027));
    assert_eq!(shown(&mount.join("link")), (1, 7, 0o777));
    assert_eq!(shown(mount.path()), (1, 7, 0o750));
    // Listings show the same as stat.
    let listed = command("find")
        .arg(mount.path())
        .args(["-printf", "%U:%G\n"])
        .output_ok();
    assert!(listed.lines().all(|line| line == "1:7"), "{listed}");
    let as_user = |uid: &str, gid: &str, line: &str| {
        let mut run = command("setpriv");
        run.args([
            "--reuid",
            uid,
            "--regid",
            gid,
            "--clear-groups",
            "sh",
            "-c",
            line,
        ]);
        run.arg(mount.path()).current_dir("/").code().0 == 0
    };
    for (uid, gid, line, allowed) in [
        (
            "1",
            "1",
            "echo mine > \"$0/new\" && chmod 664 \"$0/new\" && chown 1:7 \"$0/new\"",
            true,
        ),
        ("1", "1", "chgrp 1 \"$0/new\"", false),
        ("2", "7", "cat \"$0/new\"", true),
        ("2", "7", "echo x >> \"$0/new\"", false),
        // Others had all permissions of the old file before the mask, and its list named them.
        ("4", "4", "cat \"$0/old\"", false),
        ("3", "7", "echo x >> \"$0/old\"", false),
        ("0", "0", "chown 501 \"$0/old\"", false),
        (
            "0",
            "0",
            "getfattr -n system.posix_acl_access \"$0/old\"",
            false,
        ),
        ("0", "0", "setfacl -m u:3:rwx \"$0/old\"", false),
        (
            "0",
            "0",
            "cp -p \"$0/new\" \"$0/copy\" && chmod 600 \"$0/old\"",
            true,
        ),
    ] {
        assert_eq!(as_user(uid, gid, line), allowed, "{uid}: {line}");
    }
    assert_eq!(shown(&mount.join("new")), (1, 7, 0o640));
    mount.unmount();

    // The others see what was asked for: the mode of whoever changed it but for the bits that he did not see, and who made what.
    let mount = vault.mount("b");
    let (uid, gid, mode) = shown(&mount.join("old"));
    assert_eq!((uid, gid), (kept.0, kept.1));
    assert_eq!(mode, 0o600 | kept.2 & 0o027);
    assert_eq!(shown(&mount.join("new")), (1, 1, 0o644));
    let list = command("getfacl")
        .arg("-cn")
        .arg(mount.join("old"))
        .output_ok();
    assert!(list.contains("user:3:rwx"), "{list}");
    mount.unmount();
}

#[test]
fn an_automount_point_mounts_when_somebody_looks() {
    // What systemd does for an automount unit: wait in the kernel for whoever looks, mount from the own process group, let him go.
    const AUTOMOUNT: &str = "import ctypes, fcntl, os, struct, subprocess, sys
point, fstab = sys.argv[1:]
reads, writes = os.pipe()
options = f'fd={writes},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct'
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b'skrin-test-auto', point.encode(), b'autofs', 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
below = os.open(point, os.O_RDONLY)
print('waiting', flush=True)
token = struct.unpack_from('I', os.read(reads, 4096), 8)[0]
READY, FAIL = 0x9360, 0x9361
try:
    subprocess.run(['mount', '--fstab', fstab, point], check=True, timeout=60)
    fcntl.ioctl(below, READY, token)
except Exception:
    fcntl.ioctl(below, FAIL, token)
    raise";
    let machine = Machine::new("noauto,x-systemd.automount");
    machine.mount(&[]).output_ok();
    machine.shell("echo found > \"$0/file\"").output_ok();
    machine.umount();
    let (point, fstab) = (machine.point.to_str().unwrap(), machine.vault.path("fstab"));
    let arguments = ["-c", AUTOMOUNT, point, fstab.to_str().unwrap()];
    let mut automount = machine.run("/usr/bin/python3", &arguments);
    let mut automount = automount.stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(automount.stdout.as_mut().unwrap(), &mut [0; 8]).unwrap();
    assert_eq!(machine.mounted(), None);
    let text = machine.shell("cat \"$0/file\"").output_ok();
    assert_eq!(text, "found\n");
    assert!(automount.wait().unwrap().success());
    // It waits for the next one, whoever ended the mount.
    let waits = || {
        machine
            .shell("grep -q \"$0 autofs \" /proc/self/mounts")
            .output_ok()
    };
    waits();
    machine.umount();
    waits();
    machine.mount(&[]).output_ok();
    let pid = machine.pid();
    machine.run(SKRIN, &["unmount", point]).output_ok();
    wait_for("the process behind the mount to end", || !is_alive(pid));
    assert_eq!(machine.mounted(), None);
    waits();
}

#[test]
fn the_units_for_systemd_are_well_formed_and_name_a_program_that_is_there() {
    // Where it looks for programs, and where a manager of one user wants to be.
    const PLACE: &str = "set -e
        mount -t tmpfs skrin-test-bin /usr/local/bin
        ln -s \"$0\" /usr/local/bin/skrin
        export XDG_RUNTIME_DIR=/usr/local/bin
        exec \"$@\"";
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    // Nothing but what systemd-analyze says is to be heard.
    let place = format!("{LETS_GO} 2>/dev/null\n{PLACE}");
    let verify = |how: &[&str], names: &[&str]| {
        let output = command("unshare")
            .args(["--mount", "sh", "-c", &place, SKRIN, "systemd-analyze"])
            .args(how)
            .args(names.iter().map(|name| units.join(name)))
            .finish();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && said.is_empty(),
            "{names:?}: {said}"
        );
    };
    verify(&["verify"], &["mnt-vault.mount", "mnt-vault.automount"]);
    verify(&["--user", "verify"], &["skrin@.service"]);

    // The helper takes what the mount unit says, and knows nothing better.
    let unit = std::fs::read_to_string(units.join("mnt-vault.mount")).unwrap();
    let says = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key));
    let (what, options) = (says("What=").unwrap(), says("Options=").unwrap());
    let machine = Machine::new("noauto");
    let point = machine.point.to_str().unwrap();
    let asked = ["-t", "skrin", "-f", "-o", options, what, point];
    let (code, said) = machine.run("mount", &asked).code();
    assert_eq!((code, said.as_str()), (0, ""));
    // So does the command of the service.
    let unit = std::fs::read_to_string(units.join("skrin@.service")).unwrap();
    for (begins, ends) in [
        ("ExecStart=skrin mount", "-- ${VAULT} ${DIR}"),
        ("ExecStop=-skrin unmount", "-- ${DIR}"),
    ] {
        let line = unit.lines().find(|line| line.starts_with(begins));
        assert!(line.is_some_and(|line| line.ends_with(ends)), "{unit}");
    }
    service_starts_and_stops(&unit);
}

/// What the service's lines do when they are run as they stand, with its file of settings as environment.
fn service_starts_and_stops(unit: &str) {
    let vault = Vault::new(On::Local);
    let dir = vault.path("safe");
    let run = |begins: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(begins));
        let line = line.unwrap().replacen("skrin", SKRIN, 1);
        let mut shell = command("sh");
        shell.args(["-c", &line]).env("VAULT", vault.address());
        shell.env("DIR", &dir).env("HOME", vault.path("home"));
        shell.env("SKRIN_STATE_DIR", vault.state("service"));
        shell.env("SKRIN_PASSPHRASE_FILE", vault.path("passphrase"));
        shell.output_ok();
    };
    run("ExecStart=");
    let mount = Mount::adopt(&vault, dir.clone());
    std::fs::write(mount.join("file"), "written").unwrap();
    run("ExecStop=-");
    assert!(!dir.exists(), "it was made for the mount");
    let again = vault.mount("a");
    assert_eq!(std::fs::read(again.join("file")).unwrap(), b"written");
    again.unmount();
}

/// Where Homebrew puts what it makes, on today's Macs.
const HOMEBREW: &str = "/opt/homebrew";

/// A file that comes with the program. Those for Macs are read here, and what this machine can do of what they say is done.
fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging")
        .join(name)
}

#[test]
fn the_agent_for_launchd_is_a_property_list_whose_command_mounts_until_somebody_unmounts() {
    const READ: &str = "import json, plistlib, sys
with open(sys.argv[1], 'rb') as file:
    print(json.dumps(plistlib.load(file, fmt=plistlib.FMT_XML)))";
    let file = packaged("launchd/invalid.skrin.vault.plist");
    let mut python = command("/usr/bin/python3");
    let said = python.args(["-c", READ]).arg(&file).output_ok();
    let agent: serde_json::Value = serde_json::from_str(&said).unwrap();
    // As launchd.plist(5) writes them; one that it does not know launchd passes over in silence.
    let mut keys: Vec<&String> = agent.as_object().unwrap().keys().collect();
    keys.sort();
    let expected = [
        "EnvironmentVariables",
        "ExitTimeOut",
        "KeepAlive",
        "Label",
        "ProgramArguments",
        "RunAtLoad",
        "StandardErrorPath",
        "ThrottleInterval",
    ];
    assert_eq!(keys, expected);
    // By convention the name of the file.
    let label = agent["Label"].as_str().unwrap();
    assert_eq!(file.file_stem().unwrap(), label);
    assert_eq!(agent["RunAtLoad"], true);
    let again = serde_json::json!({ "SuccessfulExit": false });
    assert_eq!(agent["KeepAlive"], again);
    assert!(agent["ThrottleInterval"].as_u64().unwrap() > 0);
    // SIGTERM uploads for half a minute.
    assert!(agent["ExitTimeOut"].as_u64().unwrap() > 30);

    let words = agent["ProgramArguments"].as_array().unwrap();
    let words: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
    let [program, options @ .., _, dir] = &words[..] else {
        panic!("{words:?}")
    };
    let installed = Path::new(program).strip_prefix(HOMEBREW).unwrap();
    let built = Path::new("bin").join(Path::new(SKRIN).file_name().unwrap());
    assert_eq!(installed, built);
    let secrets = agent["EnvironmentVariables"].as_object().unwrap();
    let secrets: Vec<(&String, &serde_json::Value)> = secrets.iter().collect();
    let [(variable, secret)] = &secrets[..] else {
        panic!("{secrets:?}")
    };
    assert_eq!(*variable, "SKRIN_PASSPHRASE_FILE");
    // launchd knows no `~`, and no variables.
    let log = agent["StandardErrorPath"].as_str().unwrap();
    for path in [*dir, log, secret.as_str().unwrap()] {
        assert!(path.starts_with("/Users/anna/"), "{path}");
    }
    agent_mounts_until_somebody_unmounts(options);
}

/// What the command of the agent does here, with an address and a directory that there are.
fn agent_mounts_until_somebody_unmounts(options: &[&str]) {
    let vault = Vault::new(On::Local);
    let dir = vault.path("Vault");
    let mut agent = vault.skrin(options);
    agent.arg(vault.address()).arg(&dir);
    let agent = agent.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut agent = agent.spawn().unwrap();
    let said = BufReader::new(agent.stdout.take().unwrap());
    let mut lines = said.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("mounted")));
    let mount = Mount::adopt(&vault, dir.clone());
    std::fs::write(mount.join("file"), "written").unwrap();
    assert!(agent.try_wait().unwrap().is_none(), "launchd has to see it");
    mount.unmount();
    // Not begun again.
    assert!(agent.wait().unwrap().success());
    let again = vault.mount("a");
    assert_eq!(std::fs::read(again.join("file")).unwrap(), b"written");
    again.unmount();
}

/// By its text: there is no Ruby among what the tests need.
#[test]
fn the_formula_for_homebrew_says_what_the_workspace_says_and_names_a_program_that_is_there() {
    let formula = std::fs::read_to_string(packaged("homebrew/skrin.rb")).unwrap();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let workspace = std::fs::read_to_string(workspace).unwrap();
    let repository = workspace
        .lines()
        .find_map(|line| line.strip_prefix("repository = "))
        .unwrap()
        .trim_matches('"');
    let licenses: Vec<String> = env!("CARGO_PKG_LICENSE")
        .split(" OR ")
        .map(|name| format!("{name:?}"))
        .collect();
    let has = |line: &str| {
        let has = formula.lines().any(|own| own.trim() == line);
        assert!(has, "no line {line:?}");
    };
    // The class is looked for by the name of the file.
    has("class Skrin < Formula");
    has(&format!("homepage {repository:?}"));
    has(&format!("license any_of: [{}]", licenses.join(", ")));
    let head = format!("{repository}.git");
    has(&format!("head {head:?}, branch: \"main\""));
    // SQLCipher takes its ciphers from there.
    for needed in [
        "\"pkgconf\" => :build",
        "\"rust\" => :build",
        ":macos",
        "\"openssl@3\"",
    ] {
        has(&format!("depends_on {needed}"));
    }
    // With --locked, and into the prefix.
    has("system \"cargo\", \"install\", *std_cargo_args");
    assert!(workspace.contains("[[bin]]\nname = \"skrin\"\n"));
    let begins = ["class ", "def ", "test do"];
    let blocks = formula.lines().map(str::trim);
    let begun = blocks
        .clone()
        .filter(|line| begins.iter().any(|word| line.starts_with(word)));
    assert_eq!(begun.count(), blocks.filter(|line| *line == "end").count());
    // What its test runs.
    let name = Path::new(SKRIN).file_name().unwrap().to_str().unwrap();
    assert!(formula.contains(&format!("#{{bin}}/{name} --version")));
    let said = command(SKRIN).arg("--version").output_ok();
    let version = format!("{name} {}", env!("CARGO_PKG_VERSION"));
    assert!(said.starts_with(&version), "{said}");
}

#[test]
fn a_process_that_is_stopped_lets_programs_wait_and_goes_on_where_it_was() {
    const LOAD: &str = "i=0
        while [ ! -e \"$1\" ]; do i=$((i + 1)); echo $i > \"$0/$i\" || exit 1; done
        echo $i";
    let vault = Vault::new(On::Local);
    let (mount, other) = (vault.mount("a"), vault.mount("b"));
    let enough = vault.path("enough");
    let mut load = command("sh");
    load.args(["-c", LOAD]).arg(mount.path()).arg(&enough);
    let mut load = load.stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the load to begin", || mount.join("20").exists());
    kill(mount.pid(), "STOP");
    // What others do meanwhile comes later.
    std::fs::write(other.join("meanwhile"), "x").unwrap();
    other.sync();
    std::thread::sleep(std::time::Duration::from_secs(4));
    std::fs::write(&enough, "").unwrap();
    assert!(load.try_wait().unwrap().is_none(), "it did not wait");
    // Nobody who asks waits with them.
    for what in ["status", "sync", "unmount"] {
        let (code, said) = vault.skrin(&[what]).arg(mount.path()).code();
        let stopped = format!("the process behind the mount, {}, is stopped", mount.pid());
        assert!(
            code == 6 && said.contains(&stopped),
            "{what}: {code} {said}"
        );
    }
    let all = vault.skrin(&["status"]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, told) = (text(&all.stdout), text(&all.stderr));
    assert!(
        all.status.success() && told.contains("is stopped"),
        "{told}"
    );
    assert!(said.contains(&other.path().display().to_string()), "{said}");
    kill(mount.pid(), "CONT");
    let output = load.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let last = String::from_utf8(output.stdout).unwrap();
    let last: u32 = last.trim().parse().unwrap();
    wait_for("what the other device wrote", || {
        mount.join("meanwhile").exists()
    });
    mount.sync();
    for number in 1..=last {
        let text = std::fs::read_to_string(mount.join(number.to_string())).unwrap();
        assert_eq!(text, format!("{number}\n"));
    }
    for mount in [&mount, &other] {
        assert_eq!(mount.status()["errors"], serde_json::json!([]));
    }
    mount.unmount();
    wait_for("the last file on the other device", || {
        other.join(last.to_string()).exists()
    });
    other.unmount();
}

/// A process with a mount namespace of its own, in which the mount stays that there is at a point.
struct Copy(Child);

impl Copy {
    fn new(point: &Path) -> Self {
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!("{LETS_GO}\necho ready; exec sleep 1200"))
            .arg(point)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut [0; 6]).unwrap();
        Self(child)
    }

    fn shell(&self, line: &str, point: &Path) -> String {
        let mut command = command("nsenter");
        command.args(["--mount", "--target", &self.0.id().to_string()]);
        command.args(["sh", "-c", line]).arg(point).output_ok()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_unmount_says_who_has_the_mount_in_another_namespace_and_leaves_it_to_him() {
    let vault = Vault::new(On::Local);
    let unmount = |mount: &Mount<'_>, copy: &Copy| {
        let (code, said) = vault.skrin(&["unmount"]).arg(mount.path()).code();
        assert_eq!(code, 6, "{said}");
        // The shell may not have become what it runs yet.
        assert!(said.contains(&format!("{} (", copy.0.id())), "{said}");
        assert!(said.contains(&mount.pid().to_string()), "{said}");
        assert!(!crate::harness::is_mounted(mount.path()));
        assert!(is_alive(mount.pid()));
    };
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "early").unwrap();
    let (pid, point) = (mount.pid(), mount.path().to_owned());
    let copy = Copy::new(&point);
    unmount(&mount, &copy);
    drop(mount);
    assert_eq!(
        copy.shell("cat \"$0/file\"; echo late >\"$0/new\"", &point),
        "early"
    );
    drop(copy);
    wait_for("the process behind the mount to end", || !is_alive(pid));

    let mount = vault.mount("a");
    assert_eq!(
        std::fs::read_to_string(mount.join("new")).unwrap(),
        "late\n"
    );
    let copy = Copy::new(mount.path());
    unmount(&mount, &copy);
    kill(mount.pid(), "TERM");
    wait_for("the process behind the mount to end", || {
        !is_alive(mount.pid())
    });
    drop(mount);
    let mount = vault.mount("a");
    mount.unmount();
}
