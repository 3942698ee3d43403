//! The steps in which programs save a document, rebuilt from what is documented of them, and another device that looks all the while: it
//! sees the old document or the new one, and nothing else; so does one that is shown each commit by itself. And files that are made for a moment,
//! which never reach the storage.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, XattrFlags, fsetxattr, renameat_with};

use crate::harness::{Dice, Mount, Run, Vault, files_below};
use crate::storages::On;

/// A program saves `new` as `doc`, which exists. `step` is called between its steps.
type Save = fn(doc: &Path, new: &[u8], step: &mut dyn FnMut());

const SAVES: [(&str, Save); 16] = [
    ("libreoffice.odt", libreoffice),
    ("word.docx", word),
    ("word-replace.docx", word_replaces),
    ("excel.xlsx", excel),
    ("onlyoffice-copies.docx", onlyoffice_copies),
    ("onlyoffice-removes.docx", onlyoffice_removes),
    ("textedit.rtf", textedit),
    ("pages.pages", pages),
    ("vim-rename.txt", vim_renames),
    ("vim-copy.txt", vim_copies),
    ("gedit.txt", gedit),
    ("gedit-backup.txt", gedit_with_backup),
    ("vscode.txt", vscode),
    ("vscode-windows.txt", vscode_on_windows),
    ("slow.txt", rewritten_slowly),
    ("saved-as.docx", saved_under_a_name_that_was_removed),
];

fn beside(doc: &Path, name: &str) -> PathBuf {
    doc.with_file_name(name)
}

fn name(doc: &Path) -> &str {
    doc.file_name().unwrap().to_str().unwrap()
}

fn exclusive(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    options.mode(0o600).open(path).unwrap()
}

/// Writes in pieces, as an archive is written.
fn write(mut file: &File, bytes: &[u8], step: &mut dyn FnMut()) {
    for piece in bytes.chunks(bytes.len() / 3 + 1) {
        file.write_all(piece).unwrap();
        step();
    }
}

/// LibreOffice 7.4 as strace shows it: the lock file goes and comes, a temporary file in the directory takes the place of the document.
fn libreoffice(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let lock = beside(doc, &format!(".~lock.{}#", name(doc)));
    exclusive(&lock).write_all_at(b",anna,desk,,;", 0).unwrap();
    step();
    std::fs::remove_file(&lock).unwrap();
    let tmp = beside(doc, "lu9995f1m0z.tmp");
    drop(exclusive(&tmp));
    step();
    let file = OpenOptions::new().write(true).open(&tmp).unwrap();
    exclusive(&lock).write_all_at(b",anna,desk,,;", 0).unwrap();
    write(&file, new, step);
    drop(file);
    std::fs::rename(&tmp, doc).unwrap();
    step();
    File::open(doc).unwrap().sync_all().unwrap();
    std::fs::remove_file(&lock).unwrap();
}

/// Word (Microsoft's article 211632, "How Word for Windows uses temporary files"): the new document is a temporary file, the old one becomes another.
fn word(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let owner = beside(doc, &format!("~${}", &name(doc)[2..]));
    exclusive(&owner).write_all_at(&[4; 162], 0).unwrap();
    step();
    let (fresh, old) = (beside(doc, "~WRD0001.tmp"), beside(doc, "~WRL0002.tmp"));
    let file = exclusive(&fresh);
    write(&file, new, step);
    file.sync_all().unwrap();
    drop(file);
    std::fs::rename(doc, &old).unwrap();
    step();
    std::fs::rename(&fresh, doc).unwrap();
    step();
    std::fs::remove_file(&old).unwrap();
    step();
    std::fs::remove_file(&owner).unwrap();
}

/// Word with ReplaceFile: temporary names of eight digits, attributes taken along.
fn word_replaces(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let (fresh, old) = (beside(doc, "1A2B3C4D.tmp"), beside(doc, "5E6F7081.tmp"));
    let file = exclusive(&fresh);
    write(&file, new, step);
    fsetxattr(&file, "user.DOSATTRIB", b"0x20", XattrFlags::empty()).unwrap();
    drop(file);
    std::fs::rename(doc, &old).unwrap();
    step();
    std::fs::rename(&fresh, doc).unwrap();
    std::fs::remove_file(&old).unwrap();
}

/// Excel (Microsoft's "Description of the way that Excel saves files"): a file of a random name without an ending, the original is deleted.
fn excel(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let fresh = beside(doc, "CEDD4100");
    let file = exclusive(&fresh);
    write(&file, new, step);
    drop(file);
    std::fs::remove_file(doc).unwrap();
    step();
    std::fs::rename(&fresh, doc).unwrap();
}

/// ONLYOFFICE Desktop Editors: converted elsewhere, then copied over the document.
fn onlyoffice_copies(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let lock = beside(doc, &format!(".~lock.{}#", name(doc)));
    std::fs::write(&lock, ",anna,desk,,;").unwrap();
    let file = File::create(doc).unwrap();
    step();
    write(&file, new, step);
    drop(file);
    std::fs::remove_file(&lock).unwrap();
}

/// Its other way (`write` in its core library): removes the file and makes it anew.
fn onlyoffice_removes(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    std::fs::remove_file(doc).unwrap();
    step();
    let file = File::create(doc).unwrap();
    step();
    write(&file, new, step);
}

/// TextEdit (NSDocument): the new document in a directory beside the old one, attributes, then both change places (renamex_np, RENAME_SWAP).
fn textedit(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let dir = beside(doc, &format!("{}.sb-5a2e9c1f-XyZ012", name(doc)));
    std::fs::create_dir(&dir).unwrap();
    let fresh = dir.join(name(doc));
    let file = exclusive(&fresh);
    write(&file, new, step);
    fsetxattr(
        &file,
        "user.com.apple.TextEncoding",
        b"utf-8;134217984",
        XattrFlags::empty(),
    )
    .unwrap();
    drop(file);
    step();
    renameat_with(CWD, &fresh, CWD, doc, RenameFlags::EXCHANGE).unwrap();
    step();
    std::fs::remove_file(&fresh).unwrap();
    std::fs::remove_dir(&dir).unwrap();
}

/// Pages where the file system cannot exchange: the same with a rename, and a sync of the file.
fn pages(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let dir = beside(doc, &format!("{}.sb-5a2e9c1f-Pag012", name(doc)));
    std::fs::create_dir(&dir).unwrap();
    let fresh = dir.join(name(doc));
    let file = exclusive(&fresh);
    write(&file, new, step);
    file.sync_all().unwrap();
    drop(file);
    std::fs::rename(&fresh, doc).unwrap();
    step();
    std::fs::remove_dir(&dir).unwrap();
}

/// vim's look whether it may write there (":help 'backupcopy'").
fn vim_tries(doc: &Path) {
    let probe = beside(doc, "4913");
    drop(exclusive(&probe));
    std::fs::remove_file(&probe).unwrap();
}

/// vim, 'nobackup writebackup backupcopy=no': the old document becomes the backup, a new one is written.
fn vim_renames(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    vim_tries(doc);
    let backup = beside(doc, &format!("{}~", name(doc)));
    std::fs::rename(doc, &backup).unwrap();
    step();
    let file = File::create(doc).unwrap();
    step();
    write(&file, new, step);
    file.sync_all().unwrap();
    drop(file);
    step();
    std::fs::remove_file(&backup).unwrap();
}

/// vim, 'backupcopy=yes': the backup is a copy, the document is cut and written again.
fn vim_copies(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    vim_tries(doc);
    let backup = beside(doc, &format!("{}~", name(doc)));
    std::fs::write(&backup, std::fs::read(doc).unwrap()).unwrap();
    step();
    let file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(doc)
        .unwrap();
    step();
    write(&file, new, step);
    file.sync_all().unwrap();
    drop(file);
    std::fs::remove_file(&backup).unwrap();
}

/// gedit and whatever saves by GIO (glocalfileoutputstream.c): a temporary file is synced and takes the place of the document.
fn gedit(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let fresh = beside(doc, ".goutputstream-ABC123");
    let file = exclusive(&fresh);
    write(&file, new, step);
    file.sync_all().unwrap();
    std::fs::rename(&fresh, doc).unwrap();
    step();
}

/// The same with a backup: the old document is renamed first.
fn gedit_with_backup(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let fresh = beside(doc, ".goutputstream-DEF456");
    let file = exclusive(&fresh);
    write(&file, new, step);
    std::fs::rename(doc, beside(doc, &format!("{}~", name(doc)))).unwrap();
    step();
    std::fs::rename(&fresh, doc).unwrap();
}

/// VS Code (diskFileSystemProvider.ts): opened with "w", written, synced, closed.
fn vscode(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let file = File::create(doc).unwrap();
    step();
    write(&file, new, step);
    file.sync_data().unwrap();
}

/// VS Code on Windows: cut by its name, then opened with "r+".
fn vscode_on_windows(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    let cut = OpenOptions::new().write(true).open(doc).unwrap();
    cut.set_len(0).unwrap();
    drop(cut);
    step();
    let file = OpenOptions::new().write(true).open(doc).unwrap();
    step();
    write(&file, new, step);
    file.sync_data().unwrap();
}

/// A document that takes longer to write than changes wait in memory.
fn rewritten_slowly(doc: &Path, new: &[u8], _: &mut dyn FnMut()) {
    let file = File::create(doc).unwrap();
    write(&file, new, &mut || {
        std::thread::sleep(Duration::from_secs(3))
    });
}

/// "Save as" over a document: LibreOffice makes the name first and replaces it then.
fn saved_under_a_name_that_was_removed(doc: &Path, new: &[u8], step: &mut dyn FnMut()) {
    std::fs::remove_file(doc).unwrap();
    drop(exclusive(doc));
    step();
    let fresh = beside(doc, "lu4711f1m0z.tmp");
    let file = exclusive(&fresh);
    write(&file, new, step);
    drop(file);
    std::fs::rename(&fresh, doc).unwrap();
}

/// Where a document is, with no other beside it.
fn place(mount: &Mount<'_>, name: &str) -> PathBuf {
    mount.join(format!("of {name}")).join(name)
}

/// Makes a document where nothing is yet.
fn make(mount: &Mount<'_>, name: &str, contents: &[u8]) {
    let doc = place(mount, name);
    std::fs::create_dir(doc.parent().unwrap()).unwrap();
    std::fs::write(&doc, contents).unwrap();
}

/// What may be seen under each name.
type Versions = BTreeMap<&'static str, Vec<Vec<u8>>>;

/// Three versions each, of very different lengths.
fn versions() -> Versions {
    let mut dice = Dice(5);
    let mut made = BTreeMap::new();
    for (name, _) in SAVES {
        let lens = [300_000, 1_900, 700_000];
        made.insert(name, lens.map(|len| dice.bytes(len)).to_vec());
    }
    made
}

/// What another device found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    Version(usize),
    /// So many bytes of no version.
    Strange(usize),
    Missing,
}

/// How often what was found of each document.
type Seen = BTreeMap<(&'static str, Look), u32>;

fn look(there: &Mount<'_>, name: &str, versions: &[Vec<u8>]) -> Look {
    match std::fs::read(place(there, name)) {
        Ok(found) => match versions.iter().position(|v| *v == found) {
            Some(which) => Look::Version(which),
            None => Look::Strange(found.len()),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Look::Missing,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Looks at all documents again and again.
fn watch(there: &Mount<'_>, versions: &Versions, over: &AtomicBool, seen: &Mutex<Seen>) {
    while !over.load(Ordering::Acquire) {
        for (name, versions) in versions {
            // Whoever asks for a lock file is told the newest of a moment ago.
            let _ = std::fs::metadata(there.join(".~lock.nothing#"));
            let look = look(there, name, versions);
            *seen.lock().unwrap().entry((*name, look)).or_insert(0) += 1;
        }
    }
}

/// How long the saves of one document took, at most: on a slow machine longer than what is between them is kept from others.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// From the end of one step to the beginning of the next but one. A name that one step leaves free is free no longer.
    gap: Duration,
    /// From the beginning to the end.
    whole: Duration,
}

impl Pace {
    /// Saves once, and rests in each step.
    fn save(&mut self, save: Save, doc: &Path, new: &[u8], rest: &mut dyn FnMut()) {
        let begun = Instant::now();
        let (mut last, mut ended) = (begun, begun);
        let mut gap = Duration::ZERO;
        save(doc, new, &mut || {
            gap = gap.max(last.elapsed());
            last = ended;
            rest();
            ended = Instant::now();
        });
        self.gap = self.gap.max(gap).max(last.elapsed());
        self.whole = self.whole.max(begun.elapsed());
    }

    /// Whether the promise of docs/semantics.md, that nothing between is seen, ended before the save did.
    fn excuses(&self, name: &str, look: Look) -> bool {
        match (look, name) {
            (Look::Version(_), _) => true,
            // It is never without its name.
            (Look::Missing, "slow.txt") => false,
            (Look::Missing, _) => self.gap >= Duration::from_secs(1),
            // Cut, and written where it lies.
            (Look::Strange(_), "slow.txt") => self.whole >= Duration::from_secs(30),
            // Closed without contents.
            (Look::Strange(_), "saved-as.docx") => self.whole >= Duration::from_secs(2),
            (Look::Strange(_), _) => self.whole >= Duration::from_secs(5),
        }
    }
}

/// Has published what does not wait for more: a lock file is seen by others at once, with all that was done before.
fn publish(dir: &Path, n: u32) {
    std::fs::write(dir.join(format!(".~lock.{n}#")), ",anna,desk,,;").unwrap();
}

/// Publishes at every moment.
fn hurry(here: &Mount<'_>, over: &AtomicBool) {
    let dir = here.join("hurry");
    std::fs::create_dir(&dir).unwrap();
    let mut n = 0;
    while !over.load(Ordering::Acquire) {
        publish(&dir, n);
        n += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn of_a_save_another_device_sees_the_old_document_or_the_new_one_and_nothing_between() {
    let vault = Vault::new(On::Local);
    let (here, there) = (vault.mount("a"), vault.mount("b"));
    let versions = versions();
    for (name, versions) in &versions {
        make(&here, name, &versions[0]);
    }
    here.sync();
    let all_there = || versions.keys().all(|name| place(&there, name).exists());
    crate::harness::wait_for("the documents to arrive", || {
        let _ = std::fs::metadata(there.join(".~lock.nothing#"));
        all_there()
    });
    let (over, seen) = (AtomicBool::new(false), Mutex::new(Seen::new()));
    let last_seen = |name: &&'static str| {
        let seen = seen.lock().unwrap();
        seen.contains_key(&(*name, Look::Version(2)))
    };
    let paces = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&there, &versions, &over, &seen));
        scope.spawn(|| hurry(&here, &over));
        let savers: Vec<_> = SAVES
            .iter()
            .enumerate()
            .map(|(n, (name, save))| {
                let (doc, versions) = (place(&here, name), &versions[name]);
                scope.spawn(move || {
                    let (mut dice, mut pace) = (Dice(n as u64), Pace::default());
                    for new in &versions[1..] {
                        pace.save(*save, &doc, new, &mut || {
                            std::thread::sleep(Duration::from_millis(dice.roll() % 300));
                        });
                        // Until the other device has seen it.
                        std::thread::sleep(Duration::from_secs(4));
                    }
                    (*name, pace)
                })
            })
            .collect();
        let saved: Vec<_> = savers.into_iter().map(|saver| saver.join()).collect();
        // Nobody panics while others wait for the end.
        let patience = Instant::now() + Duration::from_secs(60);
        let waits = || Instant::now() < patience && !watcher.is_finished();
        while waits() && !versions.keys().all(last_seen) {
            std::thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Release);
        watcher.join().unwrap();
        let paces = saved.into_iter().map(Result::unwrap);
        paces.collect::<BTreeMap<_, _>>()
    });
    for name in versions.keys() {
        assert!(
            last_seen(name),
            "{name}: the last version was not seen: {seen:?}"
        );
    }
    for (name, look) in seen.into_inner().unwrap().into_keys() {
        let pace = paces[name];
        assert!(pace.excuses(name, look), "{name}: {look:?}, {pace:?}");
    }
    here.sync();
    there.unmount();
    here.unmount();
    vault.verify_clean();
}

/// A rest in which what may be published is, and shorter than anything is kept from others.
const REST: Duration = Duration::from_millis(250);

/// All commits of a lone device, the oldest first.
fn commits(vault: &Vault) -> Vec<String> {
    let objects = vault.storage.objects().into_iter().map(|(name, _)| name);
    let mut commits: Vec<String> = objects.filter(|name| name.contains("/lanes/")).collect();
    commits.sort();
    commits
}

/// What tells other devices of a commit (docs/format/lanes.md, section 2).
fn tip_of(commit: &str) -> String {
    let parts: Vec<&str> = commit.split('/').collect();
    match parts[..] {
        ["rooms", room, "lanes", lane, _, file] => format!("rooms/{room}/tips/{lane}-{file}"),
        _ => panic!("{commit}"),
    }
}

/// Saves one document after the other: what one save keeps from others hides nothing of another. Returns how many commits were there before,
/// and the pace of each.
fn save_in_turn(
    vault: &Vault,
    saves: &[(&'static str, Save)],
    versions: &Versions,
) -> (usize, BTreeMap<&'static str, Pace>) {
    let here = vault.mount("a");
    let dir = here.join("hurry");
    std::fs::create_dir(&dir).unwrap();
    for (name, _) in saves {
        make(&here, name, &versions[name][0]);
    }
    here.sync();
    let before = commits(vault).len();
    let (mut paces, mut n) = (BTreeMap::new(), 0);
    for (name, save) in saves {
        let mut publish_now = || {
            publish(&dir, n);
            n += 1;
        };
        let (doc, mut pace) = (place(&here, name), Pace::default());
        pace.save(*save, &doc, &versions[name][2], &mut || {
            publish_now();
            std::thread::sleep(REST);
        });
        publish_now();
        // Not by `skrin sync`, for which nothing waits.
        crate::harness::wait_for("the save to be published", || {
            here.status()["pending"]["operations"] == 0
        });
        paces.insert(*name, pace);
    }
    here.unmount();
    (before, paces)
}

/// What a device sees that is told of one commit after the other, from the last of those `before` the saves on.
fn see_each_commit(
    vault: &Vault,
    before: usize,
    saves: &[(&'static str, Save)],
    versions: &Versions,
) -> BTreeMap<&'static str, Vec<Look>> {
    for (name, _) in vault.storage.objects() {
        if name.contains("/tips/") && !name.contains("/tips/control-") {
            vault.storage.remove(&name);
        }
    }
    let tell = |commit: &str| vault.storage.replace(&tip_of(commit), b"\n");
    let commits = commits(vault);
    tell(&commits[before - 1]);
    let there = vault.mount_with("b", &["--read-only"]);
    let mut seen: BTreeMap<&'static str, Vec<Look>> = BTreeMap::new();
    let mut look_at_all = || {
        for (name, _) in saves {
            let look = look(&there, name, &versions[name]);
            seen.entry(*name).or_default().push(look);
        }
    };
    look_at_all();
    for commit in &commits[before..] {
        tell(commit);
        // Whoever is asked for the history looks at the storage first.
        vault.skrin(&["history"]).arg(there.path()).output_ok();
        look_at_all();
    }
    // Where it was looking by itself just then the kernel is told a moment later.
    crate::harness::wait_for("the last versions to be seen", || {
        let mut all = saves.iter();
        all.all(|(name, _)| look(&there, name, &versions[name]) == Look::Version(2))
    });
    look_at_all();
    there.unmount();
    seen
}

#[test]
fn no_commit_of_a_save_shows_another_device_anything_but_the_old_document_or_the_new_one() {
    let versions = versions();
    // That one rests by itself, so long that whoever looks now and then sees what there is to see.
    let saves = SAVES.into_iter().filter(|(name, _)| *name != "slow.txt");
    let saves: Vec<(&'static str, Save)> = saves.collect();
    std::thread::scope(|scope| {
        for saves in saves.chunks(4) {
            let versions = &versions;
            scope.spawn(move || {
                let vault = Vault::new(On::Local);
                let (before, paces) = save_in_turn(&vault, saves, versions);
                for (name, looks) in see_each_commit(&vault, before, saves, versions) {
                    let pace = paces[name];
                    let excused = looks.iter().all(|look| pace.excuses(name, *look));
                    assert!(excused, "{name}: {looks:?}, {pace:?}");
                    let mut found = looks.clone();
                    found.retain(|look| matches!(look, Look::Version(_)));
                    found.dedup();
                    let both = [Look::Version(0), Look::Version(2)];
                    assert_eq!(found, both, "{name}: {looks:?}");
                }
            });
        }
    });
}

fn segments(vault: &Vault) -> usize {
    files_below(&vault.storage.local().join("segments")).len()
}

#[test]
fn files_that_are_made_for_a_moment_are_never_uploaded() {
    let vault = Vault::new(On::Local);
    let here = vault.mount("a");
    std::fs::write(here.join("report.docx"), Dice(1).bytes(100_000)).unwrap();
    here.sync();
    let before = segments(&vault);
    let names = [
        "lu9995f1m0z.tmp",
        "~WRD0001.tmp",
        "~WRL0002.tmp",
        "1A2B3C4D.tmp",
        "report.docx~",
        ".goutputstream-ABC123",
        "report.docx.sb-5a2e9c1f-XyZ012/report.docx",
    ];
    let mut slow = 0;
    for n in 0..6 * names.len() {
        let path = here.join(names[n % names.len()]);
        let body = Dice(n as u64).bytes(300_000);
        let begun = Instant::now();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &body).unwrap();
        assert!(std::fs::read(&path).unwrap() == body);
        vim_tries(&path);
        std::fs::remove_file(&path).unwrap();
        slow += usize::from(begun.elapsed() > Duration::from_secs(4));
        if path.parent() != Some(here.path()) {
            std::fs::remove_dir(path.parent().unwrap()).unwrap();
        }
    }
    here.sync();
    // One that was there for longer may be in a segment of its own.
    let after = segments(&vault);
    assert!(
        after <= before + slow,
        "of 12 MB that were removed something was uploaded: {before} segments, {after}, {slow} slow rounds"
    );
    // Any other name counts from the moment it is closed.
    std::fs::write(here.join("kept.docx"), Dice(2).bytes(300_000)).unwrap();
    here.sync();
    assert_eq!(segments(&vault), after + 1);
    here.unmount();
}

#[test]
fn a_file_that_is_made_for_a_moment_is_kept_if_it_is_synced_or_stays() {
    let vault = Vault::new(On::Local);
    let here = vault.mount("a");
    let body = Dice(3).bytes(300_000);
    let file = exclusive(&here.join("lu1.tmp"));
    file.write_all_at(&body, 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    std::fs::write(here.join("lu2.tmp"), &body).unwrap();
    std::fs::rename(here.join("lu2.tmp"), here.join("report.docx")).unwrap();
    std::fs::write(here.join("lu3.tmp"), &body).unwrap();
    std::fs::hard_link(here.join("lu3.tmp"), here.join("letter.odt")).unwrap();
    std::fs::remove_file(here.join("lu3.tmp")).unwrap();
    File::open(here.path()).unwrap().sync_all().unwrap();
    here.crash();
    let here = vault.mount("a");
    for name in ["lu1.tmp", "report.docx", "letter.odt"] {
        assert!(std::fs::read(here.join(name)).unwrap() == body, "{name}");
    }
    // One that nobody touches is a file like any other.
    std::fs::write(here.join("lu4.tmp"), &body).unwrap();
    let there = vault.mount("b");
    crate::harness::wait_for("it to arrive", || {
        let _ = std::fs::metadata(there.join(".~lock.nothing#"));
        std::fs::read(there.join("lu4.tmp")).is_ok_and(|found| found == body)
    });
    there.unmount();
    here.unmount();
}

#[test]
fn a_program_that_starts_another_while_it_writes_a_document_does_not_publish_half_of_it() {
    let vault = Vault::new(On::Local);
    let (here, there) = (vault.mount("a"), vault.mount("b"));
    let (old, new) = (Dice(7).bytes(90_000), Dice(8).bytes(120_000));
    let names = ["report.txt", "made-anew.txt"];
    for name in names {
        std::fs::write(here.join(name), &old).unwrap();
    }
    here.sync();
    let look = |name| {
        let _ = std::fs::metadata(there.join(".~lock.nothing#"));
        std::fs::read(there.join(name)).ok()
    };
    crate::harness::wait_for("the documents to arrive", || {
        names.iter().all(|name| look(name).is_some())
    });
    let begun = Instant::now();
    std::fs::remove_file(here.join(names[1])).unwrap();
    let files = names.map(|name| File::create(here.join(name)).unwrap());
    // So long nothing else of either is seen: one is written where it lies. The other is told after five seconds, and gone if its name was free
    // for one.
    let anew = match begun.elapsed() < Duration::from_secs(1) {
        true => Duration::from_secs(4),
        false => Duration::ZERO,
    };
    let kept = [Duration::from_secs(25), anew];
    for mut file in &files {
        file.write_all(&new[..50_000]).unwrap();
    }
    // It has the descriptors until it runs.
    assert!(
        std::process::Command::new("true")
            .status()
            .unwrap()
            .success()
    );
    std::fs::write(here.join(".~lock.hurry#"), ",anna,desk,,;").unwrap();
    for _ in 0..8 {
        for (name, kept) in names.iter().zip(kept) {
            let found = look(name);
            let late = begun.elapsed() >= kept;
            assert!(late || found.is_some_and(|found| found == old), "{name}");
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    for mut file in &files {
        file.write_all(&new[50_000..]).unwrap();
    }
    drop(files);
    crate::harness::wait_for("the new documents to arrive", || {
        names
            .iter()
            .all(|name| look(name).is_some_and(|found| found == new))
    });
    there.unmount();
    here.unmount();
}
