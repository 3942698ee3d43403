//! LibreOffice edits documents in place, and another device sees them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::harness::{Mount, Run, Vault, command};
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

const NAMES: [&str; 4] = ["report.docx", "sheet.ods", "letter.odt", "contract.docx"];

/// What a mount takes to look for changes again, if nobody opens anything: the default.
const POLL_INTERVAL: Duration = Duration::from_secs(3);

/// The bytes of all documents, as a device sees them.
fn contents(directory: &Path) -> Vec<Option<Vec<u8>>> {
    NAMES
        .iter()
        .map(|name| std::fs::read(directory.join(name)).ok())
        .collect()
}

/// Names in a directory, lock files too.
fn listed(directory: &Path) -> BTreeSet<OsString> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

fn documents_are_edited_in_place_and_seen_by_another_device_after_one_poll_interval(on: On) {
    let vault = Vault::new(on);
    let here = vault.mount("a");
    let there = vault.mount("b");
    let folder = here.join("Documents");
    let seen = there.join("Documents");
    std::fs::create_dir(&folder).unwrap();
    office("make", &folder, "");
    // What the other device has read, and its kernel keeps, is looked at again as well.
    assert_seen(&here, &folder, &seen);
    office("edit", &folder, "the chest is locked");
    assert_seen(&here, &folder, &seen);
    let text = office("read", &seen, "");
    for name in &NAMES[..3] {
        assert!(
            text.contains(&format!("{name}: 'the chest is locked'")),
            "{text}"
        );
    }
    // What another program had written is still around what was added.
    let contract =
        r"contract.docx: 'Contract of sale\nThe seller keeps nothing.\nthe chest is locked'";
    assert!(text.contains(contract), "{text}");
    there.unmount();
    here.unmount();
}

/// A look at each document, one poll interval after all was uploaded, shows it; there is no second one.
fn assert_seen(here: &Mount<'_>, folder: &Path, seen: &Path) {
    let saved = contents(folder);
    assert!(saved.iter().all(Option::is_some));
    here.sync();
    std::thread::sleep(POLL_INTERVAL + Duration::from_secs(1));
    let there = contents(seen);
    for (name, (there, saved)) in NAMES.iter().zip(there.iter().zip(&saved)) {
        let len = there.as_ref().map(Vec::len);
        assert!(there == saved, "{name} is the old one there: {len:?} bytes");
    }
    // The lock files have gone there too.
    assert_eq!(listed(seen), NAMES.map(OsString::from).into());
}

crate::on_every_storage! { documents_are_edited_in_place_and_seen_by_another_device_after_one_poll_interval; }
