//! Mounts of people who are not root. /etc/fuse.conf is another one for each test: it lies in a mount namespace of its own, which goes
//! with the mount.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{LETS_GO, Run, SKRIN, Vault, command, is_alive, kill, wait_for};
use crate::storages::On;

/// Two users that every Debian has: `daemon`, who mounts here, and `nobody`.
const DAEMON: u32 = 1;
const NOBODY: u32 = 65534;

/// Puts a file over /etc/fuse.conf, lets everybody open /dev/fuse, as udev does where it runs, and goes on with the rest.
const NAMESPACE: &str = "set -e
    mount --bind \"$0\" /etc/fuse.conf
    mount -t tmpfs skrin-test-dev \"$1\"
    mknod -m 666 \"$1/fuse\" c 10 229
    mount --bind \"$1/fuse\" /dev/fuse
    shift
    exec \"$@\"";

/// Says `program` as another user.
fn as_user(uid: u32, program: &Path) -> Vec<String> {
    let id = uid.to_string();
    let words = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.push(program.to_str().unwrap().to_owned());
    words
}

/// A vault, a state directory and a mount point that belong to `daemon`, and a copy of the program that he may run.
struct Home {
    vault: Vault,
    point: PathBuf,
    program: PathBuf,
}

impl Home {
    fn new() -> Self {
        let vault = Vault::without_init(On::Local);
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        open(&vault.path(""), 0o711);
        let program = vault.path("skrin");
        std::fs::copy(SKRIN, &program).unwrap();
        let point = vault.point("a");
        for dir in [&point, &vault.path("vault"), &vault.state("a")] {
            std::fs::create_dir_all(dir).unwrap();
            chown(dir, Some(DAEMON), Some(DAEMON)).unwrap();
        }
        // Others may pass it, so that only the mount can keep them out.
        open(&point, 0o755);
        chown(vault.path("passphrase"), Some(DAEMON), Some(DAEMON)).unwrap();
        open(&vault.path("passphrase"), 0o600);
        let home = Self {
            vault,
            point,
            program,
        };
        let words = as_user(DAEMON, &home.program);
        home.run(&words, &["init"])
            .arg(home.vault.path("vault"))
            .output_ok();
        home
    }

    /// One program, with the environment of the vault.
    fn run(&self, before: &[String], args: &[&str]) -> Command {
        let mut command = command(&before[0]);
        command
            .args(&before[1..])
            .args(args)
            .env("SKRIN_PASSPHRASE_FILE", self.vault.path("passphrase"))
            .env("SKRIN_STATE_DIR", self.vault.state("a"))
            .current_dir("/");
        command
    }

    /// `skrin mount --json` as `daemon` where /etc/fuse.conf says this.
    fn mount(&self, fuse_conf: &str, options: &[&str]) -> Command {
        let conf = self.vault.path("fuse.conf");
        std::fs::write(&conf, fuse_conf).unwrap();
        std::fs::set_permissions(&conf, std::fs::Permissions::from_mode(0o644)).unwrap();
        let dev = self.vault.path("dev");
        std::fs::create_dir_all(&dev).unwrap();
        let (conf, dev) = (conf.to_str().unwrap(), dev.to_str().unwrap());
        let script = format!("{LETS_GO}\n{NAMESPACE}");
        let inside = ["unshare", "--mount", "sh", "-c", &script, conf, dev];
        let mut words = inside.map(str::to_owned).to_vec();
        words.extend(as_user(DAEMON, &self.program));
        let mut mount = self.run(&words, &["mount", "--json"]);
        mount
            .args(options)
            .arg(self.vault.path("vault"))
            .arg(&self.point);
        mount
    }
}

/// A mount that only its own namespace sees.
struct Inside<'a> {
    home: &'a Home,
    pid: u32,
}

impl<'a> Inside<'a> {
    fn new(home: &'a Home, fuse_conf: &str, options: &[&str]) -> Self {
        let said = home.mount(fuse_conf, options).output_ok();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let pid = said["pid"].as_u64().unwrap() as u32;
        let inside = Self { home, pid };
        assert!(inside.is_mounted());
        inside
    }

    fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", self.pid));
        let mounts = mounts.unwrap_or_default();
        let point = self.home.point.to_str().unwrap();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(point))
    }

    /// Runs something where the mount is seen.
    fn run(&self, uid: u32, program: &str, args: &[&str]) -> Command {
        let pid = self.pid.to_string();
        let enter = ["nsenter", "--mount", "--target", &pid];
        let mut words: Vec<String> = enter.map(str::to_owned).to_vec();
        words.extend(as_user(uid, Path::new(program)));
        self.home.run(&words, args)
    }

    /// The exit code of a shell command there, where `$0` is the mount point.
    fn shell(&self, uid: u32, line: &str) -> i32 {
        let point = self.home.point.to_str().unwrap();
        self.run(uid, "sh", &["-c", line, point]).code().0
    }

    fn unmount(self) {
        let program = self.home.program.to_str().unwrap().to_owned();
        let point = self.home.point.to_str().unwrap().to_owned();
        self.run(DAEMON, &program, &["unmount", &point]).output_ok();
        wait_for("the process to end", || !is_alive(self.pid));
        // Where sockets of users without a session lie.
        let _ = std::fs::remove_dir(format!("/tmp/skrin-{DAEMON}"));
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if is_alive(self.pid) {
            kill(self.pid, "KILL");
        }
    }
}

#[test]
fn a_user_may_let_others_in_where_the_administrator_allows_it_and_is_told_otherwise() {
    let home = Home::new();
    for conf in ["", "# user_allow_other\n"] {
        let (code, said) = home.mount(conf, &["--allow-other"]).code();
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("user_allow_other") && said.contains("/etc/fuse.conf"),
            "{said}"
        );
    }
    // Not even root gets in where others were not let in.
    let mount = Inside::new(&home, "", &[]);
    let write = "umask 077; echo mine > \"$0/private\"; umask 022; echo ours > \"$0/public\"";
    assert_eq!(mount.shell(DAEMON, write), 0);
    for uid in [0, NOBODY] {
        assert_ne!(mount.shell(uid, "cat \"$0/public\""), 0, "{uid}");
        assert_ne!(mount.shell(uid, "ls \"$0\""), 0, "{uid}");
    }
    mount.unmount();

    let mount = Inside::new(&home, "user_allow_other\n", &["--allow-other"]);
    assert_eq!(mount.shell(DAEMON, "chmod 755 \"$0\""), 0);
    for (uid, line, allowed) in [
        (DAEMON, "grep -q mine \"$0/private\"", true),
        (0, "grep -q mine \"$0/private\"", true),
        (NOBODY, "grep -q ours \"$0/public\"", true),
        (NOBODY, "cat \"$0/private\"", false),
        (NOBODY, "echo x > \"$0/public\"", false),
        (NOBODY, "echo x > \"$0/new\"", false),
        (NOBODY, "rm -f \"$0/public\"", false),
    ] {
        assert_eq!(mount.shell(uid, line) == 0, allowed, "{uid}: {line}");
    }
    mount.unmount();
}
