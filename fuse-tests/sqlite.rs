//! SQLite, with its rollback journal and with its write-ahead log.

use std::path::Path;

use crate::harness::{Run, Vault, command};
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

crate::on_every_storage! { both_journal_modes_keep_their_integrity; }
