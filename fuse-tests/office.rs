//! LibreOffice edits documents in place, and another device sees them.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::harness::{Run, Vault, command, wait_for};
use crate::storages::On;

/// One at a time: it takes a core and a gigabyte.
fn office(verb: &str, directory: &Path, text: &str) -> String {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fuse-tests/office.py");
    let mut office = command("/usr/bin/python3");
    office.args([script, verb]).arg(directory);
    if !text.is_empty() {
        office.arg(text);
    }
    office.output_ok()
}

/// The bytes of all three documents, as the second device sees them.
fn contents(directory: &Path) -> Vec<Option<Vec<u8>>> {
    let names = ["report.docx", "sheet.ods", "letter.odt"];
    names
        .iter()
        .map(|name| std::fs::read(directory.join(name)).ok())
        .collect()
}

fn documents_are_edited_in_place_and_seen_by_another_device(on: On) {
    let vault = Vault::new(on);
    let here = vault.mount("a");
    let there = vault.mount("b");
    let folder = here.join("Documents");
    std::fs::create_dir(&folder).unwrap();
    office("make", &folder, "");
    office("edit", &folder, "the chest is locked");
    let saved = contents(&folder);
    let seen = there.join("Documents");
    wait_for("the other device to see the documents", || {
        contents(&seen) == saved
    });
    let text = office("read", &seen, "");
    for name in ["report.docx", "sheet.ods", "letter.odt"] {
        assert!(
            text.contains(&format!("{name}: the chest is locked")),
            "{text}"
        );
    }
    let names = |dir: &Path| {
        std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect::<Vec<_>>()
            .len()
    };
    wait_for("the lock files to go there too", || names(&seen) == 3);
    there.unmount();
    here.unmount();
}

crate::on_every_storage! { documents_are_edited_in_place_and_seen_by_another_device; }
