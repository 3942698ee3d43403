//! PostgreSQL with its data in the mount: what it committed survives kills, of it and of the mount.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{Mount, Run, Vault, command, is_alive, kill, wait_for, wait_within};
use crate::storages::On;

/// A user that every Debian has; PostgreSQL refuses to run as root.
const DAEMON: u32 = 1;
/// Rows of `pgbench_accounts` for each of the scale.
const ACCOUNTS: &str = "100000";

/// Where Debian has the programs of the newest version that is installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let newest = versions.map(|entry| entry.unwrap().path()).max().unwrap();
    newest.join("bin")
}

/// Data that lie in a mount, and a directory for the socket that does not.
struct Cluster {
    data: PathBuf,
    outside: PathBuf,
}

impl Cluster {
    fn command(&self, program: &str) -> Command {
        let id = DAEMON.to_string();
        let mut command = command("setpriv");
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .arg(programs().join(program))
            .env("PGHOST", &self.outside)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("HOME", &self.outside)
            .env("PGDATA", &self.data)
            .current_dir(&self.outside);
        command
    }

    /// Starts it as a child of this program, which reaps it: PostgreSQL takes a zombie for a server that runs.
    fn start(&self) -> Server {
        let log = self.outside.join("log");
        let said = std::fs::File::create(&log).unwrap();
        let child = self
            .command("postgres")
            .args(["-c", "listen_addresses=", "-c"])
            .arg(format!(
                "unix_socket_directories={}",
                self.outside.display()
            ))
            .args(["-c", "shared_buffers=16MB", "-c", "max_wal_size=64MB"])
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        let mut server = Server { child, pid: 0 };
        wait_for("PostgreSQL to answer", || {
            let said = || std::fs::read_to_string(&log).unwrap();
            assert!(server.child.try_wait().unwrap().is_none(), "{}", said());
            self.command("pg_isready").arg("-q").code().0 == 0
        });
        let file = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap();
        server.pid = file.lines().next().unwrap().parse().unwrap();
        server
    }

    fn stop(&self, mut server: Server) {
        self.command("pg_ctl")
            .args(["stop", "-w", "-s", "-m", "fast", "-t", "120"])
            .output_ok();
        assert!(server.child.wait().unwrap().success());
    }

    fn sql(&self, text: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-X", "-A", "-t", "-q", "-c", text]);
        psql.output_ok().trim().to_owned()
    }

    fn transactions(&self) -> u64 {
        self.sql("SELECT count(*) FROM pgbench_history")
            .parse()
            .unwrap()
    }

    /// Begins transactions of four clients that last until somebody is killed.
    fn load(&self) -> Child {
        let before = self.transactions();
        let child = self
            .command("pgbench")
            .args(["-c", "4", "-T", "600", "-n"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let enough = || self.transactions() > before + 100;
        wait_within(Duration::from_secs(300), "some transactions", enough);
        std::thread::sleep(Duration::from_millis(700));
        child
    }

    /// Nothing is broken, the books balance, and no transaction is missing that was acknowledged.
    fn check(&self, acknowledged: u64) {
        let sums = self.sql(
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
                    (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)",
        );
        let mut sums = sums.split('|');
        let first = sums.next().unwrap();
        assert!(sums.all(|sum| sum == first), "the sums differ from {first}");
        assert_eq!(self.sql("SELECT count(*) FROM pgbench_accounts"), ACCOUNTS);
        let there = self.transactions();
        assert!(
            there >= acknowledged,
            "{there} transactions of {acknowledged} are left"
        );
        self.command("pg_amcheck")
            .args(["--install-missing", "--heapallindexed"])
            .output_ok();
    }

    fn dump(&self) -> String {
        let dump = self.command("pg_dump").output_ok();
        // Two lines hold a random word, which newer versions write.
        let lines = dump
            .lines()
            .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// A server that runs.
struct Server {
    child: Child,
    /// Of PostgreSQL itself.
    pid: u32,
}

impl Server {
    /// kill -9 of it and of all its processes.
    fn kill(mut self) {
        // Stopped first, so that it starts no new ones.
        kill(self.pid, "STOP");
        let children = format!("/proc/{0}/task/{0}/children", self.pid);
        // It may have ended by itself where its mount is gone; the others end with it.
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let children = children.split_ascii_whitespace().map(|pid| pid.parse());
        let mut all: Vec<u32> = children.collect::<Result<_, _>>().unwrap();
        all.push(self.pid);
        for pid in &all {
            kill(*pid, "KILL");
        }
        self.child.wait().unwrap();
        wait_for("PostgreSQL to be gone", || {
            !all.iter().any(|pid| is_alive(*pid))
        });
    }
}

/// A test that fails leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            kill(self.child.id(), "TERM");
        }
    }
}

/// How many transactions pgbench says were committed; it ends because the server is gone.
fn acknowledged(pgbench: Child) -> u64 {
    let output = pgbench.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let count = line.unwrap_or_else(|| panic!("pgbench said {said:?}"));
    let count = count.split('/').next().unwrap().parse().unwrap();
    assert!(count >= 100, "{count}");
    count
}

fn mount<'a>(vault: &'a Vault, device: &str) -> Mount<'a> {
    let mount = vault.mount_with(device, &["--allow-other"]);
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(mount.path(), open).unwrap();
    mount
}

fn a_database_keeps_what_it_committed_when_it_or_the_mount_is_killed(on: On) {
    let vault = Vault::new(on);
    let passable = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(vault.path(""), passable).unwrap();
    let outside = vault.path("postgres");
    std::fs::create_dir(&outside).unwrap();
    chown(&outside, Some(DAEMON), Some(DAEMON)).unwrap();
    let cluster = |mount: &Mount<'_>| Cluster {
        data: mount.join("data"),
        outside: outside.clone(),
    };

    let first = mount(&vault, "a");
    let postgres = cluster(&first);
    std::fs::create_dir(&postgres.data).unwrap();
    chown(&postgres.data, Some(DAEMON), Some(DAEMON)).unwrap();
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&postgres.data, mode).unwrap();
    postgres
        .command("initdb")
        .args(["--data-checksums", "--auth=trust", "--username=postgres"])
        .output_ok();
    let server = postgres.start();
    postgres
        .command("pgbench")
        .args(["--initialize", "--quiet"])
        .output_ok();

    // The database dies, the mount stays.
    let load = postgres.load();
    server.kill();
    let told = acknowledged(load);
    let server = postgres.start();
    postgres.check(told);

    // The mount dies, and with it the database.
    let before = postgres.transactions();
    let load = postgres.load();
    first.crash();
    server.kill();
    let told = before + acknowledged(load);
    let second = mount(&vault, "a");
    let postgres = cluster(&second);
    let server = postgres.start();
    postgres.check(told);
    let dump = postgres.dump();
    postgres.stop(server);
    postgres.command("pg_checksums").arg("--check").output_ok();
    second.unmount();

    // Another device has the same database.
    let other = mount(&vault, "b");
    let postgres = cluster(&other);
    postgres.command("pg_checksums").arg("--check").output_ok();
    let server = postgres.start();
    postgres.check(told);
    assert!(postgres.dump() == dump, "another device has other rows");
    postgres.stop(server);
    other.unmount();
    vault.verify_clean();
}

crate::on_every_storage! { a_database_keeps_what_it_committed_when_it_or_the_mount_is_killed; }
