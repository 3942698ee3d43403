//! SQLite, with its rollback journal and with its write-ahead log.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Dice, Run, Vault, command, kill};
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
            mount.crash();
            kill(python.id(), "KILL");
            python.wait().unwrap();

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

crate::on_every_storage! {
    both_journal_modes_keep_their_integrity;
    what_a_transaction_committed_survives_kills;
}
