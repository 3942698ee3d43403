//! SQLite, with its rollback journal and with its write-ahead log.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Dice, Run, Vault, command, kill, wait_for};
use crate::storages::On;

fn sql(file: &Path, text: &str) -> String {
    command("sqlite3")
        .arg("-batch")
        .arg(file)
        .arg(text)
        .output_ok()
}

const FILL: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000) INSERT INTO t SELECT i, randomblob(700) FROM n;
    CREATE INDEX by_body ON t(body);";
const CHANGE: &str = "BEGIN; DELETE FROM t WHERE id % 3 = 0; UPDATE t SET body = randomblob(900) WHERE id % 7 = 0; COMMIT;
    BEGIN; DELETE FROM t; ROLLBACK; VACUUM;";

fn both_journal_modes_keep_their_integrity(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    for mode in ["delete", "wal"] {
        let file = mount.join(format!("{mode}.db"));
        assert_eq!(
            sql(&file, &format!("PRAGMA journal_mode={mode};")).trim(),
            mode
        );
        sql(&file, FILL);
        for _ in 0..5 {
            sql(&file, CHANGE);
            sql(&file, "INSERT INTO t(body) VALUES('one more');");
        }
        assert_eq!(sql(&file, "PRAGMA integrity_check;").trim(), "ok");
    }
    let count = |mount: &crate::harness::Mount<'_>, mode: &str| {
        sql(
            &mount.join(format!("{mode}.db")),
            "SELECT count(*), total(length(body)) FROM t;",
        )
    };
    let before = ["delete", "wal"].map(|mode| count(&mount, mode));
    mount.unmount();
    let mount = vault.mount("b");
    for mode in ["delete", "wal"] {
        assert_eq!(
            sql(&mount.join(format!("{mode}.db")), "PRAGMA integrity_check;").trim(),
            "ok"
        );
    }
    assert_eq!(["delete", "wal"].map(|mode| count(&mount, mode)), before);
    mount.unmount();
}

/// Inserts rows, each in a transaction of its own, and says so outside of the mount, until the mount goes away.
const INSERT: &str = r#"
import itertools, os, sqlite3, sys
path, mode, told = sys.argv[1:]
db = sqlite3.connect(path, timeout=5)
db.execute(f"PRAGMA journal_mode={mode}")
db.execute("PRAGMA synchronous=EXTRA")
db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)")
with open(told, "a") as told:
    for n in itertools.count():
        row = db.execute("INSERT INTO t(body) VALUES(?)", (os.urandom(n * 37 % 3000),)).lastrowid
        if n % 5 == 4:
            db.execute("UPDATE t SET body = ? WHERE id = ?", (os.urandom(500), n * 7919 % row + 1))
        db.commit()
        # Where it cannot open the directory to sync it, SQLite says that all is well: only what a living mount synced was promised.
        os.statvfs(os.path.dirname(path))
        told.write(f"{row}\n")
        told.flush()
"#;

fn what_a_transaction_committed_survives_kills(on: On) {
    let vault = Vault::new(on);
    let mut dice = Dice(5);
    for mode in ["delete", "wal"] {
        let told = vault.path(&format!("told-{mode}"));
        std::fs::write(&told, "").unwrap();
        for round in 0..4 {
            let mount = vault.mount("a");
            let file = mount.join(format!("{mode}.db"));
            let mut python = command("/usr/bin/python3");
            python.args(["-c", INSERT]).arg(&file).arg(mode).arg(&told);
            let mut python = python.stderr(Stdio::null()).spawn().unwrap();
            // Until it has begun; then for a while, through the moments when edits are told and published.
            let lines = || std::fs::read_to_string(&told).unwrap().lines().count();
            let before = lines();
            while lines() == before {
                assert!(python.try_wait().unwrap().is_none(), "it inserts nothing");
                std::thread::sleep(Duration::from_millis(20));
            }
            std::thread::sleep(Duration::from_millis(dice.roll() % 3000));
            // Before the dead mount is taken away: without it SQLite has nothing to sync, and would say so of a row.
            kill(mount.pid(), "KILL");
            let group = format!("-{}", python.id());
            let signal = |signal: &str| command("kill").args(["-s", signal, "--", &group]).finish();
            signal("KILL");
            python.wait().unwrap();
            wait_for("python to be gone", || !signal("0").status.success());
            mount.crash();

            let mount = vault.mount("a");
            let text = std::fs::read_to_string(&told).unwrap();
            let last: u64 = text.lines().last().unwrap().parse().unwrap();
            let file = mount.join(format!("{mode}.db"));
            assert_eq!(sql(&file, "PRAGMA integrity_check;").trim(), "ok");
            let count: u64 = sql(&file, "SELECT count(*) FROM t;")
                .trim()
                .parse()
                .unwrap();
            assert!(
                count >= last,
                "{mode}, round {round}: {count} rows of {last}"
            );
            mount.unmount();
        }
    }
    vault.verify_clean();
}

/// Adds one to a counter and a row beside it, each time in one transaction, and reads both in between: they always agree.
const COUNT: &str = r#"
import sqlite3, sys
path, count = sys.argv[1], int(sys.argv[2])
db = sqlite3.connect(path, timeout=60, isolation_level=None)
assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
db.execute("PRAGMA wal_autocheckpoint=50")
seen = 0
for n in range(count):
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE counter SET n = n + 1")
    db.execute("INSERT INTO t(body) VALUES(zeroblob(?))", (n * 37 % 2000,))
    db.execute("COMMIT")
    now, rows = db.execute("SELECT n, (SELECT count(*) FROM t) FROM counter").fetchone()
    assert now == rows and now > seen, f"{now} {rows} {seen}"
    seen = now
"#;

/// The write-ahead log's index is memory that the programs share through the mount.
fn two_programs_share_one_write_ahead_log(on: On) {
    const EACH: u32 = 400;
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let file = mount.join("shared.db");
    sql(
        &file,
        "PRAGMA journal_mode=wal; CREATE TABLE counter(n); INSERT INTO counter VALUES(0);
         CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB);",
    );
    let programs = [(); 2].map(|()| {
        let mut python = command("/usr/bin/python3");
        python.args(["-c", COUNT]).arg(&file).arg(EACH.to_string());
        std::thread::spawn(move || python.output_ok())
    });
    for program in programs {
        program.join().unwrap();
    }
    let count = "SELECT n, (SELECT count(*) FROM t) FROM counter; PRAGMA integrity_check;";
    let all = format!("{0}|{0}\nok\n", 2 * EACH);
    assert_eq!(sql(&file, count), all);
    mount.unmount();
    let other = vault.mount("b");
    assert_eq!(sql(&other.join("shared.db"), count), all);
    other.unmount();
}

/// The kinds of work of SQLite's speedtest1, which Debian does not package: inserts with and without an index and in odd order, ranges,
/// joins by index and by text, updates and deletes one by one and in bulk, a schema that changes, VACUUM. No random numbers: it makes the same
/// rows everywhere.
const SPEEDTEST: &str = "
    CREATE TABLE one(a INTEGER, b INTEGER, c TEXT);
    BEGIN;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000)
        INSERT INTO one SELECT i, i*7919%20011, printf('number %d', i*7919%20011) FROM n;
    COMMIT;
    CREATE TABLE two(a INTEGER PRIMARY KEY, b INTEGER, c TEXT) WITHOUT ROWID;
    INSERT INTO two SELECT b, a, c FROM one ORDER BY c;
    CREATE UNIQUE INDEX one_b ON one(b);
    CREATE INDEX one_c ON one(c);
    SELECT count(*), avg(a) FROM one WHERE b BETWEEN 1000 AND 9000;
    SELECT count(*) FROM one WHERE c LIKE '%99%';
    SELECT count(*), sum(two.b) FROM one JOIN two ON two.a = one.b WHERE one.a % 3 = 0;
    UPDATE one SET c = c || ' changed' WHERE a % 5 = 0;
    UPDATE two SET b = b + 1;
    DELETE FROM one WHERE b BETWEEN 3000 AND 5000;
    INSERT INTO one SELECT a, 100000 + b, c FROM two WHERE a < 3000;
    ALTER TABLE one ADD COLUMN d DEFAULT 'new';
    UPDATE one SET d = substr(c, 3, 9) WHERE b % 2;
    DROP INDEX one_c;
    DELETE FROM two WHERE a % 4;
    VACUUM;
    REINDEX;
    ANALYZE;
    PRAGMA integrity_check;";

fn a_benchmark_of_many_kinds_makes_the_same_rows_as_on_a_disk(on: On) {
    let vault = Vault::new(on);
    let native = vault.path("native.db");
    let said = sql(&native, SPEEDTEST);
    assert!(said.ends_with("\nok\n"), "{said}");
    let dump = sql(&native, ".dump");
    let mount = vault.mount("a");
    for begin in [
        "PRAGMA journal_mode=delete;",
        "PRAGMA journal_mode=wal; PRAGMA mmap_size=100000000;",
        "PRAGMA page_size=65536; PRAGMA journal_mode=truncate; PRAGMA cache_size=50;",
    ] {
        let file = mount.join(format!("{}.db", begin.len()));
        let here = sql(&file, &format!("{begin}{SPEEDTEST}"));
        assert!(here.ends_with(&said), "{begin} {here}");
        assert!(sql(&file, ".dump") == dump, "{begin}: other rows");
    }
    mount.unmount();
}

crate::on_every_storage! {
    two_programs_share_one_write_ahead_log;
    a_benchmark_of_many_kinds_makes_the_same_rows_as_on_a_disk;
    both_journal_modes_keep_their_integrity;
    what_a_transaction_committed_survives_kills;
}
