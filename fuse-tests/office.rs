//! LibreOffice edits documents in place, and another device sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::harness::{Mount, Run, Vault, command, files_below, kill, wait_for};
use crate::storages::On;

/// One test at a time: each takes a core and a gigabyte.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn office(verb: &str, directory: &Path, text: &str) -> String {
    let _turn = turn();
    office_alone(verb, directory, text)
}

/// As `office`, for one who has his turn.
fn office_alone(verb: &str, directory: &Path, text: &str) -> String {
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
    let made = assert_seen(&here, &folder, &seen, &[None, None, None, None]);
    // What the other device has read, and its kernel keeps, is looked at again as well.
    office("edit", &folder, "the chest is locked");
    assert_seen(&here, &folder, &seen, &made);
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

/// A look at each document, one poll interval after all was uploaded, shows it as it was saved, or where the storage is slower than an `open`
/// waits, as it was before; then a later look shows it. What was saved.
fn assert_seen(
    here: &Mount<'_>,
    folder: &Path,
    seen: &Path,
    before: &[Option<Vec<u8>>],
) -> Vec<Option<Vec<u8>>> {
    let saved = contents(folder);
    assert!(saved.iter().all(Option::is_some));
    here.sync();
    std::thread::sleep(POLL_INTERVAL + Duration::from_secs(1));
    wait_for("the documents as they were saved", || {
        let there = contents(seen);
        for (n, name) in NAMES.iter().enumerate() {
            let len = there[n].as_ref().map(Vec::len);
            assert!(
                there[n] == saved[n] || there[n] == before[n],
                "{name} is neither the old one nor the new one there: {len:?} bytes"
            );
        }
        // The lock files have gone there too.
        there == saved && listed(seen) == BTreeSet::from(NAMES.map(OsString::from))
    });
    saved
}

/// In one of so many rounds the machine is quick enough: who waits for the interval is late in each.
const ROUNDS: usize = 20;

/// The other device looks for changes by itself one interval after its last look. A lock that it shows before that was looked for.
fn a_lock_file_is_seen_by_a_look_up_before_the_poll_interval_is_over(on: On) {
    let vault = Vault::new(on);
    let (here, there) = (vault.mount("a"), vault.mount("b"));
    let is_seen_in_time = |round: usize| {
        let mark = format!("mark-{round}");
        // Its next look of itself comes no sooner than an interval after this.
        let mut not_yet = Instant::now();
        std::fs::write(here.join(&mark), "x").unwrap();
        here.sync();
        wait_for("a look of the other device", || {
            let now = Instant::now();
            let seen = there.join(&mark).exists();
            if !seen {
                not_yet = now;
            }
            seen
        });
        // What LibreOffice makes, and what Word makes.
        let locks = [
            format!(".~lock.letter-{round}.odt#"),
            format!("~$report-{round}.docx"),
        ];
        for lock in &locks {
            std::fs::write(here.join(lock), ",anna,desk,,;").unwrap();
            wait_for("the lock", || there.join(lock).exists());
        }
        let time = not_yet.elapsed();
        for lock in &locks {
            std::fs::remove_file(here.join(lock)).unwrap();
        }
        wait_for("the locks to go", || {
            !locks.iter().any(|lock| there.join(lock).exists())
        });
        println!("both locks were seen {time:?} after a look, or less");
        time < POLL_INTERVAL
    };
    assert!((0..ROUNDS).any(is_seen_in_time));
    there.unmount();
    here.unmount();
    vault.verify_clean();
}

crate::on_every_storage! {
    documents_are_edited_in_place_and_seen_by_another_device_after_one_poll_interval;
    a_lock_file_is_seen_by_a_look_up_before_the_poll_interval_is_over;
    the_second_user_is_told_who_has_the_document_until_it_is_closed_or_the_program_is_killed;
    what_was_not_saved_when_the_program_is_killed_is_recovered_and_seen_by_another_device;
}

/// A LibreOffice of its own for one user; what it says on standard output.
fn suite(verb: &str, args: &[&str]) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fuse-tests/suite.py");
    let mut office = command("/usr/bin/python3");
    office.args([script, verb]).args(args);
    office
}

/// Each kind of document in both formats, by the names that `suite.py` knows.
const KINDS: [&str; 6] = [
    "text.docx",
    "text.odt",
    "sheet.xlsx",
    "sheet.ods",
    "slides.pptx",
    "slides.odp",
];

/// Puts documents in a directory, for one who has his turn. LibreOffice makes one of each kind once for all tests.
fn put(names: [&'static str; 2], directory: &Path) -> [PathBuf; 2] {
    static MADE: OnceLock<BTreeMap<&str, Vec<u8>>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let paths = KINDS.map(|name| dir.path().join(name));
        suite("make", &[]).args(&paths).output_ok();
        let bytes = paths.iter().map(|path| std::fs::read(path).unwrap());
        KINDS.into_iter().zip(bytes).collect()
    });
    names.map(|name| {
        let document = directory.join(name);
        std::fs::write(&document, &made[name]).unwrap();
        document
    })
}

/// One that keeps documents open until it is told to go on, or killed.
struct Holder(Child);

impl Holder {
    fn start(documents: &[PathBuf], user: &str) -> Self {
        let mut office = suite("hold", &[user]);
        office.args(documents);
        office.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = office.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.as_mut().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let process = Self(child);
        assert_eq!(line, "open\n");
        process
    }

    /// It saves and closes.
    fn finish(mut self) {
        writeln!(self.0.stdin.as_mut().unwrap()).unwrap();
        assert!(self.0.wait().unwrap().success());
    }

    /// kill -9 of LibreOffice itself, by the number that only its own profile has.
    fn kill(mut self) {
        let mut pids = vec![self.0.id()];
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.unwrap_or_default();
            pids.extend(
                children
                    .split_whitespace()
                    .map(|pid| pid.parse::<u32>().unwrap()),
            );
            next += 1;
        }
        for pid in pids.into_iter().rev() {
            kill(pid, "KILL");
        }
        self.0.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// A screen that nobody sees, and that ends with the value.
struct Screen(Child, String);

impl Screen {
    fn start() -> Self {
        // It draws a free number itself, and writes it to standard output.
        let mut screen = Command::new("Xvfb");
        screen.args([
            "-ac",
            "-noreset",
            "-displayfd",
            "1",
            "-screen",
            "0",
            "1280x900x24",
        ]);
        screen.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = screen.spawn().unwrap();
        let mut number = String::new();
        let mut said = BufReader::new(child.stdout.as_mut().unwrap());
        said.read_line(&mut number).unwrap();
        Self(child, format!(":{}", number.trim()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn writer_calc_and_impress_make_edit_save_and_save_as_in_both_formats_with_backup_copies() {
    let vault = Vault::new(On::Local);
    let here = vault.mount("a");
    let folder = here.join("Documents");
    std::fs::create_dir(&folder).unwrap();
    {
        let _turn = turn();
        suite("all", &[folder.to_str().unwrap()]).output_ok();
    }
    here.sync();
    let there = vault.mount("b");
    let seen = there.join("Documents");
    // Twelve documents, and not one lock or temporary file.
    let names = listed(&folder);
    assert_eq!(names.len(), 13, "{names:?}");
    assert_eq!(listed(&seen), names);
    for file in files_below(&folder) {
        let other = seen.join(file.strip_prefix(&folder).unwrap());
        assert!(std::fs::read(&file).unwrap() == std::fs::read(other).unwrap());
    }
    there.unmount();
    here.unmount();
}

/// Whether these names are there and nothing else, no lock and no conflict copy.
fn lists_only(directory: &Path, names: &[&str]) -> bool {
    let names: BTreeSet<OsString> = names.iter().map(OsString::from).collect();
    listed(directory) == names
}

fn the_second_user_is_told_who_has_the_document_until_it_is_closed_or_the_program_is_killed(
    on: On,
) {
    let names = match on {
        On::Local => ["text.odt", "slides.pptx"],
        On::WebDav => ["text.docx", "sheet.ods"],
        On::S3 => ["sheet.xlsx", "slides.odp"],
    };
    let vault = Vault::new(on);
    let _turn = turn();
    let (here, there) = (vault.mount("a"), vault.mount_with("b", &["--allow-other"]));
    let documents = put(names, here.path());
    let seen = names.map(|name| there.join(name));
    for path in documents.iter().map(PathBuf::as_path).chain([here.path()]) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    here.sync();
    wait_for("the documents to arrive", || {
        seen.iter().all(|path| path.exists())
    });
    let screen = Screen::start();
    let user = |verb: &str, paths: &[PathBuf]| {
        let mut office = suite(verb, &["Ben"]);
        office.args(paths).env("DISPLAY", &screen.1).output_ok()
    };

    let locks_at = |mount: &Mount<'_>| names.map(|name| mount.join(format!(".~lock.{name}#")));
    let (own, locks) = (locks_at(&here), locks_at(&there));
    // A look is given up after a moment, and then the document opens as if nobody had it.
    let come = || {
        wait_for("the locks to come", || {
            locks.iter().all(|lock| {
                std::fs::read_to_string(lock).is_ok_and(|text| text.starts_with("Anna"))
            })
        });
    };
    let go = |what: &str, locks: &[PathBuf]| {
        wait_for(what, || !locks.iter().any(|lock| lock.exists()));
    };

    let anna = Holder::start(&documents, "Anna");
    come();
    for document in &seen {
        let told = user("told", std::slice::from_ref(document));
        assert!(told.contains("locked for editing by:\n\nAnna"), "{told}");
    }
    anna.finish();
    here.sync();
    // Whoever asks for the lock files has the newest documents as well.
    go("the locks to go", &locks);
    let opened = user("second", &seen);
    assert_eq!(opened, "read-only: False\ntext: edited by Anna\n".repeat(2));
    there.sync();
    go("the locks of the second user to go", &own);

    let anna = Holder::start(&documents, "Anna");
    come();
    anna.kill();
    go("the locks of a dead program to go", &locks);
    // The second user edits, and whose program died gets that.
    Holder::start(&seen, "Ben").finish();
    let bytes = |paths: &[PathBuf; 2]| paths.each_ref().map(|path| std::fs::read(path).ok());
    let written = bytes(&seen);
    assert!(written.iter().all(Option::is_some));
    there.sync();
    wait_for("what the second user wrote, and nothing else", || {
        bytes(&documents) == written && lists_only(here.path(), &names)
    });
    there.unmount();
    here.unmount();
}

/// Has a document edited in a window and the program killed with a copy of that in the vault; recovered and saved it is another one.
fn recover(verb: &str, document: &Path, text: &str, screen: &Screen) {
    let before = std::fs::read(document).unwrap();
    let mut office = suite(verb, &[]);
    let said = office.arg(document).env("DISPLAY", &screen.1).output_ok();
    assert!(said.contains(text), "{said}");
    let after = std::fs::read(document).unwrap();
    assert!(after != before, "it was not saved: {said}");
}

/// Waits until another device sees a document as it is.
fn assert_arrives(document: &Path, there: &Mount<'_>) {
    let saved = std::fs::read(document).unwrap();
    let seen = there.join(document.file_name().unwrap());
    wait_for("what was saved and recovered to arrive", || {
        std::fs::read(&seen).is_ok_and(|seen| seen == saved)
    });
}

fn what_was_not_saved_when_the_program_is_killed_is_recovered_and_seen_by_another_device(on: On) {
    let names = match on {
        On::Local => ["text.docx", "slides.odp"],
        On::WebDav => ["text.odt", "sheet.xlsx"],
        On::S3 => ["sheet.ods", "slides.pptx"],
    };
    let vault = Vault::new(on);
    let _turn = turn();
    let (here, there) = (vault.mount("a"), vault.mount("b"));
    let documents = put(names, here.path());
    here.sync();
    let screen = Screen::start();
    for document in &documents {
        assert_arrives(document, &there);
        recover("crash", document, "not saved", &screen);
    }
    here.sync();
    for document in &documents {
        assert_arrives(document, &there);
    }
    let [first, second] = names;
    wait_for("nothing to be left but the copies' directory", || {
        lists_only(there.path(), &[first, second, "backups"])
    });
    there.unmount();
    here.unmount();
}

#[test]
fn a_window_is_typed_into_and_saved_by_keys_and_recovers_after_a_kill() {
    let vault = Vault::new(On::Local);
    let _turn = turn();
    let here = vault.mount("a");
    office_alone("make", here.path(), "");
    let screen = Screen::start();
    let letter = here.join("letter.odt");
    let sheet = here.join("sheet.ods");
    // The same in another format, and slides.
    let more = here.join("more");
    std::fs::create_dir(&more).unwrap();
    suite("all", &[more.to_str().unwrap()]).output_ok();
    let made = ["text.docx", "sheet.xlsx", "slides.odp", "slides.pptx"].map(|name| more.join(name));
    let mut typed = suite("window", &[]);
    typed.args([&letter, &sheet]).args(&made);
    typed.env("DISPLAY", &screen.1).output_ok();
    for document in [&letter, &sheet] {
        recover("autosave", document, "timed", &screen);
    }
    let there = vault.mount("b");
    here.sync();
    for document in [&letter, &sheet] {
        assert_arrives(document, &there);
    }
    there.unmount();
    here.unmount();
}
