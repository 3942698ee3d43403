//! The units of packaging/systemd under a living systemd: a machine made of namespaces, with a first process, a control group, a
//! network and a tree of its own, that is booted and ended. Nothing of it is seen by the machine that runs the tests.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{LETS_GO, PASSPHRASE, Run, SKRIN, command, wait_for, wait_within};

/// Puts the first process of the machine into a group of its own: systemd needs one that it may divide. Of the second version, which is
/// there also where the machine uses the first. `$0` is the disk, `$1` the program, `$2` what comes next.
const GROUP: &str = "set -e
    mount -t cgroup2 skrin-test-group \"$0/group\"
    mkdir -p \"$0/group/${0##*/}\"
    echo 0 > \"$0/group/${0##*/}/cgroup.procs\"
    umount \"$0/group\"
    exec unshare --cgroup --ipc --uts --net sh -c \"$2\" \"$0\" \"$1\"";

/// Removes the group, once those in it are gone.
const NO_GROUP: &str = "mount -t cgroup2 skrin-test-group \"$0/group\"
    for _ in $(seq 1200); do
        [ -d \"$0/group/${0##*/}\" ] || exit 0
        find \"$0/group/${0##*/}\" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
    done
    exit 1";

/// Lays out the tree of the machine, lets go of everything else, and becomes systemd. /proc/sys belongs to the whole kernel.
const TREE: &str = "set -e
    mount -t tmpfs -o mode=755 skrin-test-root \"$0/root\"
    cd \"$0/root\"
    mkdir usr etc var home root dev proc sys run tmp mnt old
    for name in bin sbin lib lib64; do ln -s usr/$name $name; done
    mount --rbind /usr usr
    mount -o remount,bind,ro usr
    mount -t tmpfs skrin-test-sbin usr/sbin
    mount -t tmpfs skrin-test-bin usr/local/bin
    touch usr/local/bin/skrin
    mount --bind \"$1\" usr/local/bin/skrin
    ln -s /usr/local/bin/skrin usr/sbin/mount.skrin
    for name in etc var home; do mount --bind \"$0/$name\" $name; done
    for name in dev run tmp; do mount -t tmpfs -o mode=755 skrin-test-$name $name; done
    chmod 1777 tmp
    mknod -m 666 dev/null c 1 3
    mknod -m 666 dev/zero c 1 5
    mknod -m 666 dev/random c 1 8
    mknod -m 666 dev/urandom c 1 9
    mknod -m 666 dev/tty c 5 0
    mknod -m 666 dev/fuse c 10 229
    mknod -m 600 dev/autofs c 10 235
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    pivot_root . old
    umount -l /old
    exec env -i container=skrin-test /usr/lib/systemd/systemd --system --unit=remote-fs.target --show-status=no";

/// What user@.service does at a login, without PAM and logind.
const ANNAS_MANAGER: &str = "[Unit]
DefaultDependencies=no
[Service]
Type=notify
User=1000
Delegate=yes
KillMode=mixed
Environment=HOME=/home/anna XDG_RUNTIME_DIR=/run/anna
RuntimeDirectory=anna
RuntimeDirectoryMode=0700
ExecStart=/usr/lib/systemd/systemd --user
";

const ANNAS_CONF: &str = "VAULT=/home/anna/vault
DIR=/home/anna/safe
SKRIN_PASSPHRASE_FILE=/home/anna/.config/skrin/passphrase
";

/// More than systemd gives the units that upload as they end.
const SHUTDOWN: Duration = Duration::from_secs(330);

const SYSTEM: &str = "etc/systemd/system";
const USER: &str = "home/anna/.config/systemd/user";
const MOUNT: &str = "mnt-vault.mount";
const AUTOMOUNT: &str = "mnt-vault.automount";
const SERVICE: &str = "skrin@safe.service";

/// A unit as it is shipped.
fn unit(name: &str) -> String {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    std::fs::read_to_string(units.join(name)).unwrap()
}

/// /etc, /var and /home of the machine, which outlive it.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("skrin-units-")
            .tempdir()
            .unwrap();
        let disk = Self { dir };
        for name in ["group", "root", "var/lib"] {
            std::fs::create_dir_all(disk.path(name)).unwrap();
        }
        disk.write(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\n",
        );
        disk.write("etc/group", "root:x:0:\nanna:x:1000:\n");
        disk.write("etc/machine-id", "0000000000000000000000000000000a\n");
        disk.write("etc/fuse.conf", "");
        std::os::unix::fs::symlink("../proc/self/mounts", disk.path("etc/mtab")).unwrap();
        // A vault in a folder, in the place of one on a server; all else is as shipped.
        let shipped = unit(MOUNT);
        let mount = shipped.lines().map(|line| match line.split_once('=') {
            Some(("What", _)) => "What=skrin:/home/vault\n".to_owned(),
            _ => format!("{line}\n"),
        });
        disk.write(&format!("{SYSTEM}/{MOUNT}"), &mount.collect::<String>());
        disk.write(&format!("{SYSTEM}/{AUTOMOUNT}"), &unit(AUTOMOUNT));
        disk.write(&format!("{SYSTEM}/anna.service"), ANNAS_MANAGER);
        disk.write(&format!("{USER}/skrin@.service"), &unit("skrin@.service"));
        disk.write("home/anna/.config/skrin/safe.conf", ANNAS_CONF);
        for name in ["etc/skrin/passphrase", "home/anna/.config/skrin/passphrase"] {
            disk.write(name, PASSPHRASE);
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(disk.path(name), mode).unwrap();
        }
        disk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Starts the machine; what is enabled is started by itself.
    fn boot(&self) -> Machine<'_> {
        command("chown")
            .args(["-R", "1000:1000"])
            .arg(self.path("home/anna"))
            .output_ok();
        // It ends with its test, however that ends.
        let life = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid"])
            .args(["--kill-child", "sh", "-c"])
            .arg(format!("{LETS_GO}\n{GROUP}"))
            .arg(self.dir.path())
            .args([SKRIN, TREE])
            .stdin(Stdio::null())
            .current_dir("/")
            .spawn()
            .unwrap();
        let mut machine = Machine {
            disk: self,
            life,
            init: 0,
        };
        // Before that moment its namespaces show the tree of the machine below.
        wait_for("systemd to be there", || {
            assert!(machine.life.try_wait().unwrap().is_none(), "it has ended");
            machine.init = child_of(machine.life.id()).unwrap_or(0);
            let name = std::fs::read_to_string(format!("/proc/{}/comm", machine.init));
            name.is_ok_and(|name| name == "systemd\n")
        });
        wait_for("systemd to answer", || {
            let asked = machine.run(&["systemctl", "show"]).finish();
            asked.status.success()
        });
        machine
    }
}

/// The one child of a process.
fn child_of(parent: u32) -> Option<u32> {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let of = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(1));
        of.is_some_and(|of| of == parent.to_string())
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(is_child)
}

/// One life of the machine.
struct Machine<'a> {
    disk: &'a Disk,
    /// unshare(1), which takes the first process along when it ends.
    life: Child,
    /// That process, by its number outside.
    init: u32,
}

impl Machine<'_> {
    /// A command of root.
    fn run(&self, words: &[&str]) -> Command {
        let mut command = command("nsenter");
        command
            .args(["--target", &self.init.to_string(), "--mount", "--pid"])
            .args(["--ipc", "--uts", "--net", "--cgroup", "env", "-i"])
            .args(["PATH=/usr/local/bin:/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8"])
            .args(words)
            .current_dir("/");
        command
    }

    /// A command of Anna's.
    fn anna(&self, words: &[&str]) -> Command {
        const SHE: [&str; 8] = [
            "setpriv",
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "env",
            "HOME=/home/anna",
            "XDG_RUNTIME_DIR=/run/anna",
            "SKRIN_PASSPHRASE_FILE=/home/anna/.config/skrin/passphrase",
        ];
        self.run(&[&SHE[..], words].concat())
    }

    /// `systemctl` of root.
    fn system(&self, words: &[&str]) -> String {
        self.run(&[&["systemctl"][..], words].concat()).output_ok()
    }

    /// `systemctl` of Anna's own manager.
    fn user(&self, words: &[&str]) -> String {
        self.anna(&[&["systemctl", "--user"][..], words].concat())
            .output_ok()
    }

    fn property(&self, unit: &str, name: &str) -> String {
        let said = self.system(&["show", "--value", "--property", name, unit]);
        said.trim().to_owned()
    }

    fn property_of_service(&self, name: &str) -> String {
        let said = self.user(&["show", "--value", "--property", name, SERVICE]);
        said.trim().to_owned()
    }

    /// Whether the vault is mounted there.
    fn has_mount(&self, point: &str) -> bool {
        let mounts = self.run(&["cat", "/proc/self/mounts"]).output_ok();
        let mut fields = mounts.lines().map(|line| line.split(' '));
        fields.any(|mut line| {
            line.next().is_some_and(|from| from.starts_with("skrin:")) && line.next() == Some(point)
        })
    }

    /// Makes the vault that the mount unit names.
    fn make_vault(&self) {
        let passphrase = "SKRIN_PASSPHRASE_FILE=/etc/skrin/passphrase";
        self.run(&["env", passphrase, "skrin", "init", "/home/vault"])
            .args(["--words-file", "/home/words"])
            .output_ok();
    }

    fn shell(&self, line: &str) -> String {
        self.run(&["sh", "-c", line]).output_ok()
    }

    /// Ends it in order, as a shutdown does.
    fn end(mut self) {
        self.run(&["systemctl", "--no-block", "exit"]).finish();
        wait_within(SHUTDOWN, "the machine to end", || {
            self.life.try_wait().unwrap().is_some()
        });
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let _ = self.life.kill();
        let _ = self.life.wait();
        let mut unshare = Command::new("unshare");
        let script = format!("{LETS_GO}\n{NO_GROUP}");
        unshare.args(["--mount", "sh", "-c", &script]);
        let done = unshare.arg(self.disk.dir.path()).status();
        assert!(
            std::thread::panicking() || done.is_ok_and(|status| status.success()),
            "its control group is still there"
        );
    }
}

/// systemd looks again at what is mounted, and orders what it takes for a local file system before the network. Gives what comes after it.
fn comes_after_the_network(machine: &Machine<'_>) -> String {
    let order = || ["Before", "After"].map(|name| machine.property(MOUNT, name));
    let is_right = |[before, after]: &[String; 2]| {
        let has = |what: &str| after.contains(what) || before.contains(what);
        after.contains("network-online.target") && !has("local-fs")
    };
    // It sees the mount a moment before it sees what mount(8) notes of it.
    wait_for("the order of a network mount", || is_right(&order()));
    machine.system(&["daemon-reload"]);
    let order = order();
    assert!(is_right(&order), "{order:?}");
    let [before, _] = order;
    before
}

#[test]
fn a_mount_unit_mounts_at_each_boot_after_the_network_and_what_was_written_is_there_again() {
    let disk = Disk::new();
    let machine = disk.boot();
    machine.make_vault();
    machine.system(&["enable", "--now", MOUNT]);
    assert!(machine.has_mount("/mnt/vault"));
    machine.shell("echo one > /mnt/vault/first");
    let before = comes_after_the_network(&machine);
    assert!(before.contains("remote-fs.target"), "{before}");

    machine.system(&["stop", MOUNT]);
    assert_eq!(machine.property(MOUNT, "ActiveState"), "inactive");
    assert!(!machine.has_mount("/mnt/vault"));
    machine.system(&["start", MOUNT]);
    machine.shell("cat /mnt/vault/first && echo two > /mnt/vault/second");
    machine.end();

    let machine = disk.boot();
    wait_for("the unit to be started", || {
        machine.property(MOUNT, "ActiveState") == "active"
    });
    let text = machine.shell("cat /mnt/vault/first /mnt/vault/second");
    assert_eq!(text, "one\ntwo\n");
    machine.shell("skrin sync /mnt/vault");
    machine.system(&["stop", MOUNT]);
    machine.shell("skrin verify /home/vault --data --words-file /home/words");
    machine.end();
}

/// Looks, waits until the mount was let go of for want of use, and looks again.
fn comes_and_goes(machine: &Machine<'_>) {
    let let_go = || {
        wait_for("the mount to be let go of", || {
            machine.property(MOUNT, "ActiveState") == "inactive"
        });
        assert!(!machine.has_mount("/mnt/vault"));
        assert_eq!(machine.property(AUTOMOUNT, "ActiveState"), "active");
    };
    let_go();
    for _ in 0..2 {
        assert_eq!(machine.shell("cat /mnt/vault/file"), "found\n");
        let_go();
    }
}

#[test]
fn an_automount_unit_and_a_line_in_fstab_mount_when_somebody_looks_and_let_go_when_nobody_does() {
    let disk = Disk::new();
    let machine = disk.boot();
    machine.make_vault();
    machine.system(&["start", MOUNT]);
    machine.shell("echo found > /mnt/vault/file");
    machine.system(&["stop", MOUNT]);
    disk.write(
        &format!("{SYSTEM}/{AUTOMOUNT}.d/soon.conf"),
        "[Automount]\nTimeoutIdleSec=1\n",
    );
    machine.system(&["daemon-reload"]);
    machine.system(&["enable", "--now", AUTOMOUNT]);
    comes_and_goes(&machine);
    machine.system(&["disable", "--now", AUTOMOUNT]);

    // The same without units of ours.
    std::fs::remove_file(disk.path(SYSTEM).join(MOUNT)).unwrap();
    std::fs::remove_file(disk.path(SYSTEM).join(AUTOMOUNT)).unwrap();
    std::fs::remove_dir_all(disk.path(SYSTEM).join(format!("{AUTOMOUNT}.d"))).unwrap();
    disk.write(
        "etc/fstab",
        "skrin:/home/vault /mnt/vault skrin passphrase-file=/etc/skrin/passphrase,state-dir=/var/lib/skrin,allow_other,\
        _netdev,nofail,x-systemd.automount,x-systemd.idle-timeout=1 0 0\n",
    );
    machine.end();
    let machine = disk.boot();
    wait_for("the line in fstab to be a unit", || {
        machine.property(AUTOMOUNT, "ActiveState") == "active"
    });
    comes_and_goes(&machine);

    // Somebody stays, so that it does.
    let mut user = machine.run(&["sh", "-c", "cd /mnt/vault && echo in && exec cat"]);
    let user = user.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut user = user.spawn().unwrap();
    std::io::Read::read_exact(user.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    comes_after_the_network(&machine);
    drop(user.stdin.take());
    user.wait().unwrap();

    // What a killed process leaves goes as what nobody uses does, and comes again.
    // Held meanwhile: nobody lets go of what is in use.
    machine.shell(
        r#"exec 3< /mnt/vault/file
        pid=$(skrin status --json /mnt/vault | sed 's/.*"pid":\([0-9]*\).*/\1/')
        kill -s KILL "$pid""#,
    );
    comes_and_goes(&machine);
    machine.end();
}

#[test]
fn a_service_of_one_user_uploads_when_it_ends_comes_again_when_it_is_killed_and_only_then() {
    let disk = Disk::new();
    disk.write(
        &format!("{USER}/skrin@.service.d/soon.conf"),
        "[Service]\nRestartSec=1\n",
    );
    let machine = disk.boot();
    machine.system(&["start", "anna.service"]);
    let init = ["skrin", "init", "/home/anna/vault", "--words-file"];
    machine.anna(&init).arg("/home/anna/words").output_ok();
    machine.user(&["enable", "--now", SERVICE]);
    let is = |state: &str| machine.property_of_service("ActiveState") == state;
    assert!(is("active") && machine.has_mount("/home/anna/safe"));

    let pid = machine.property_of_service("MainPID");
    machine.shell(&format!("kill -s KILL {pid}"));
    // In this order: before systemd has heard of the kill the service is active, too.
    wait_for("it to be started again", || {
        machine.property_of_service("NRestarts") == "1" && is("active")
    });
    assert_ne!(machine.property_of_service("MainPID"), pid);
    let write = |name: &str| {
        let line = format!("echo {name} > /home/anna/safe/{name}");
        machine.anna(&["sh", "-c", &line]).output_ok();
    };
    write("one");

    // Whoever unmounts it by hand wants it unmounted.
    let unmount = ["skrin", "unmount", "/home/anna/safe"];
    machine.anna(&unmount).output_ok();
    wait_for("the service to end", || is("inactive"));

    // It ends also where somebody is in it.
    machine.user(&["start", SERVICE]);
    let stay = "cd /home/anna/safe && echo in && exec cat";
    let mut stays = machine.anna(&["sh", "-c", stay]);
    let stays = stays.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut stays = stays.spawn().unwrap();
    std::io::Read::read_exact(stays.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    machine.user(&["stop", SERVICE]);
    assert!(is("inactive") && !machine.has_mount("/home/anna/safe"));
    drop(stays.stdin.take());
    stays.wait().unwrap();

    // She logs out. What she wrote is on the storage, for another device.
    machine.user(&["start", SERVICE]);
    write("two");
    machine.system(&["stop", "anna.service"]);
    assert!(!machine.has_mount("/home/anna/safe"));
    let mount = ["skrin", "mount", "--mkdir", "--state-dir=/home/anna/other"];
    machine
        .anna(&mount)
        .args(["/home/anna/vault", "/home/anna/seen"])
        .output_ok();
    let seen = machine
        .anna(&["cat", "/home/anna/seen/one", "/home/anna/seen/two"])
        .output_ok();
    assert_eq!(seen, "one\ntwo\n");
    machine
        .anna(&["skrin", "unmount", "/home/anna/seen"])
        .output_ok();
    machine.end();
}
