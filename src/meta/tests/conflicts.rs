//! What becomes of two devices that did not know of each other, case by case, by the operations alone, in both orders where there are two.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::{DeviceId, EntryId, Ino, Name, OpId, Timestamp};
use skrin_meta::check::check;
use skrin_meta::state::Cause;
use skrin_meta::{
    Attributes, Body, Kind, MemoryRows, NewNode, Op, OpKind, Outcome, Place, Seen, apply, state,
};
use std::collections::BTreeMap;

/// 2026-11-21, noon.
const NOON: i64 = 1_795_262_400_000_000_000;

/// One device: what it did since it last knew of the other.
struct Device {
    id: DeviceId,
    rows: MemoryRows,
    ops: Vec<Op>,
    counter: u64,
}

impl Device {
    /// A device with a label, which knows what `rows` are.
    fn new(n: u8, label: &str, rows: &MemoryRows) -> Self {
        let mut device = Self {
            id: DeviceId([n; 16]),
            rows: rows.clone(),
            ops: Vec::new(),
            counter: 0,
        };
        device.act(OpKind::Label {
            label: label.to_owned(),
        });
        device
    }

    fn act(&mut self, kind: OpKind) -> Outcome {
        self.counter += 1;
        let op = Op {
            id: OpId {
                device: self.id,
                counter: self.counter,
            },
            time: Timestamp(NOON + self.counter as i64),
            kind,
        };
        let outcome = apply(&mut self.rows, &op).unwrap();
        self.ops.push(op);
        outcome
    }

    /// What is fresh of this device: an entry's id, a number.
    fn fresh(&self) -> u64 {
        u64::from(self.id.0[0]) * 1000 + self.counter + 100
    }

    fn place(&self, dir: Ino, name: &str) -> Place {
        let name = Name::new(name.as_bytes()).unwrap();
        match state::entry(&self.rows, dir, &name).unwrap() {
            Some(entry) => Place {
                dir,
                name,
                entry: entry.id,
            },
            None => Place {
                dir,
                name,
                entry: EntryId(u128::from(self.fresh()).to_be_bytes()),
            },
        }
    }

    fn seen(&self, dir: Ino, name: &str) -> Option<(Ino, state::Inode)> {
        let name = Name::new(name.as_bytes()).unwrap();
        let entry = state::entry(&self.rows, dir, &name).unwrap()?;
        let inode = state::inode(&self.rows, entry.ino).unwrap().unwrap();
        Some((entry.ino, inode))
    }

    fn make(&mut self, dir: Ino, name: &str, kind: Kind) -> Ino {
        let ino = Ino(self.fresh());
        let target = match kind {
            Kind::Symlink => b"target".to_vec(),
            _ => Vec::new(),
        };
        let node = NewNode {
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
            target,
        };
        let place = self.place(dir, name);
        self.act(OpKind::Create { place, ino, node });
        ino
    }

    fn write(&mut self, dir: Ino, name: &str, text: &str) {
        let (ino, inode) = self.seen(dir, name).unwrap();
        let place = self.place(dir, name);
        let outcome = self.act(OpKind::Write {
            ino,
            base: inode.version,
            size: text.len() as u64,
            mtime: Timestamp(NOON),
            keys: Vec::new(),
            body: Body::Inline(text.as_bytes().to_vec()),
            place,
            attributes: Attributes {
                mode: inode.mode,
                uid: inode.uid,
                gid: inode.gid,
                btime: inode.btime,
                xattrs: Vec::new(),
            },
        });
        assert_eq!(outcome, Outcome::Applied);
    }

    /// Makes a file with something in it.
    fn put(&mut self, dir: Ino, name: &str, text: &str) -> Ino {
        let ino = self.make(dir, name, Kind::File);
        self.write(dir, name, text);
        ino
    }

    fn link(&mut self, ino: Ino, dir: Ino, name: &str) {
        let place = self.place(dir, name);
        self.act(OpKind::Link { ino, place });
    }

    /// As the file system says it: who sees other names of the file does not say that it is to go.
    fn version(inode: &state::Inode) -> OpId {
        match inode.kind != Kind::Dir && inode.links.len() > 1 {
            true => OpId::default(),
            false => inode.version,
        }
    }

    fn remove(&mut self, dir: Ino, name: &str) {
        let (ino, inode) = self.seen(dir, name).unwrap();
        let place = self.place(dir, name);
        let version = Self::version(&inode);
        let outcome = self.act(OpKind::Remove {
            place,
            ino,
            version,
        });
        assert_eq!(outcome, Outcome::Applied);
    }

    fn rename(&mut self, (dir, name): (Ino, &str), (to_dir, to): (Ino, &str)) {
        let (ino, _) = self.seen(dir, name).unwrap();
        let from = self.place(dir, name);
        let there = self.seen(to_dir, to);
        let replaces = there.map(|(ino, inode)| Seen {
            entry: self.place(to_dir, to).entry,
            ino,
            version: Self::version(&inode),
        });
        let outcome = self.act(OpKind::Rename {
            ino,
            from,
            to_dir,
            to_name: Name::new(to.as_bytes()).unwrap(),
            replaces,
        });
        assert_eq!(outcome, Outcome::Applied);
    }

    /// Saves as many programs do: a new file, which then takes the name.
    fn save(&mut self, dir: Ino, name: &str, text: &str) {
        self.put(dir, ".new", text);
        self.rename((dir, ".new"), (dir, name));
    }

    fn chmod(&mut self, dir: Ino, name: &str, mode: u16) {
        let (ino, _) = self.seen(dir, name).unwrap();
        self.act(OpKind::SetAttr {
            ino,
            mode: Some(mode),
            uid: None,
            gid: None,
            atime: None,
            mtime: None,
        });
    }

    fn set_xattr(&mut self, dir: Ino, name: &str, value: &str) {
        let (ino, _) = self.seen(dir, name).unwrap();
        self.act(OpKind::SetXattr {
            ino,
            name: b"user.note".to_vec(),
            value: value.as_bytes().to_vec(),
        });
    }
}

/// What can be seen of a tree: each path with its contents. Directories end in a slash, symbolic links show an arrow.
type Shown = BTreeMap<String, String>;

fn show(rows: &MemoryRows) -> Shown {
    let mut out = BTreeMap::new();
    let mut todo = vec![(Ino::ROOT, String::new())];
    while let Some((dir, path)) = todo.pop() {
        for one in state::list(rows, dir, 0, 1000).unwrap() {
            let name = String::from_utf8_lossy(one.name.as_bytes()).into_owned();
            let inode = state::inode(rows, one.entry.ino).unwrap().unwrap();
            let text = inode.inline.clone().unwrap_or_default();
            let text = String::from_utf8(text).unwrap();
            let path = format!("{path}{name}");
            match inode.kind {
                Kind::Dir => {
                    out.insert(format!("{path}/"), String::new());
                    todo.push((one.entry.ino, format!("{path}/")));
                }
                Kind::Symlink => drop(out.insert(path, "->".to_owned())),
                _ => drop(out.insert(path, text)),
            }
        }
    }
    out
}

/// The rows of conflict copies, by the name that they have.
fn copies(rows: &MemoryRows) -> BTreeMap<String, (Cause, String)> {
    let mut out = BTreeMap::new();
    state::for_each_conflict_copy(rows, |ino, entry, copy| {
        let inode = state::inode(rows, ino)?.unwrap();
        let link = inode.links.iter().find(|l| l.entry == entry).unwrap();
        let text = |name: &Name| String::from_utf8_lossy(name.as_bytes()).into_owned();
        out.insert(text(&link.name), (copy.cause, text(&copy.name)));
        Ok(())
    })
    .unwrap();
    out
}

/// Two devices that know the same, and then do something without knowing of each other.
fn two<T>(before: impl FnOnce(&mut Device) -> T) -> (MemoryRows, Device, Device) {
    let mut maker = Device::new(3, "server", &MemoryRows::default());
    before(&mut maker);
    let rows = maker.rows;
    let anna = Device::new(1, "anna", &rows);
    let bob = Device::new(2, "bob", &rows);
    (rows, anna, bob)
}

fn fold(rows: &MemoryRows, devices: &[&Device]) -> MemoryRows {
    let mut rows = rows.clone();
    for device in devices {
        for op in &device.ops {
            apply(&mut rows, op).unwrap();
        }
    }
    assert_eq!(check(&rows, false).unwrap(), Vec::new());
    rows
}

fn tree(lines: &[(&str, &str)]) -> Shown {
    let lines = lines.iter();
    lines
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect()
}

const ROOT: Ino = Ino::ROOT;
const BOBS: &str = "doc (conflict, bob, 2026-11-21).txt";
const ANNAS: &str = "doc (conflict, anna, 2026-11-21).txt";

#[test]
fn of_a_file_that_two_edit_both_contents_stay_and_the_later_one_is_a_copy() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.write(ROOT, "doc.txt", "anna's");
    bob.write(ROOT, "doc.txt", "bob's");
    bob.write(ROOT, "doc.txt", "bob's again");
    let rows = fold(&rows, &[&anna, &bob]);
    assert_eq!(
        show(&rows),
        tree(&[("doc.txt", "anna's"), (BOBS, "bob's again")])
    );
    let row = (Cause::Written, "doc.txt".to_owned());
    assert_eq!(copies(&rows), [(BOBS.to_owned(), row)].into());
}

#[test]
fn an_edit_is_stronger_than_a_removal_in_either_order() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.remove(ROOT, "doc.txt");
    bob.write(ROOT, "doc.txt", "bob's");
    for order in [[&anna, &bob], [&bob, &anna]] {
        let rows = fold(&rows, &order);
        assert_eq!(show(&rows), tree(&[("doc.txt", "bob's")]));
        assert_eq!(copies(&rows), BTreeMap::new());
    }
}

#[test]
fn a_file_that_an_edit_brought_back_can_be_moved_and_removed_by_its_editor() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.remove(ROOT, "doc.txt");
    bob.write(ROOT, "doc.txt", "bob's");
    bob.rename((ROOT, "doc.txt"), (ROOT, "moved.txt"));
    for order in [[&anna, &bob], [&bob, &anna]] {
        assert_eq!(show(&fold(&rows, &order)), tree(&[("moved.txt", "bob's")]));
    }
    bob.remove(ROOT, "moved.txt");
    for order in [[&anna, &bob], [&bob, &anna]] {
        assert_eq!(show(&fold(&rows, &order)), tree(&[]));
    }
}

#[test]
fn of_two_names_that_two_give_to_one_file_the_later_one_stays_and_no_copy_is_made() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.rename((ROOT, "doc.txt"), (ROOT, "a.txt"));
    bob.rename((ROOT, "doc.txt"), (ROOT, "b.txt"));
    let last = fold(&rows, &[&anna, &bob]);
    assert_eq!(show(&last), tree(&[("b.txt", "old")]));
    let last = fold(&rows, &[&bob, &anna]);
    assert_eq!(show(&last), tree(&[("a.txt", "old")]));
    assert_eq!(copies(&last), BTreeMap::new());
}

#[test]
fn of_two_files_that_are_given_one_name_the_later_one_is_a_copy() {
    let (rows, mut anna, mut bob) = two(|d| {
        d.put(ROOT, "a.txt", "a");
        d.put(ROOT, "b.txt", "b");
    });
    anna.rename((ROOT, "a.txt"), (ROOT, "doc.txt"));
    bob.rename((ROOT, "b.txt"), (ROOT, "doc.txt"));
    let rows = fold(&rows, &[&anna, &bob]);
    assert_eq!(show(&rows), tree(&[("doc.txt", "a"), (BOBS, "b")]));
    let row = (Cause::Moved, "doc.txt".to_owned());
    assert_eq!(copies(&rows), [(BOBS.to_owned(), row)].into());
}

#[test]
fn an_edit_follows_a_file_that_another_renamed() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.rename((ROOT, "doc.txt"), (ROOT, "final.txt"));
    bob.write(ROOT, "doc.txt", "bob's");
    for order in [[&anna, &bob], [&bob, &anna]] {
        let rows = fold(&rows, &order);
        assert_eq!(show(&rows), tree(&[("final.txt", "bob's")]));
    }
}

#[test]
fn of_two_files_made_under_one_name_the_later_one_is_a_copy() {
    let (rows, mut anna, mut bob) = two(|_| ());
    anna.put(ROOT, "doc.txt", "anna's");
    bob.put(ROOT, "doc.txt", "bob's");
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(show(&both), tree(&[("doc.txt", "anna's"), (BOBS, "bob's")]));
    let row = (Cause::Made, "doc.txt".to_owned());
    assert_eq!(copies(&both), [(BOBS.to_owned(), row)].into());
    let both = fold(&rows, &[&bob, &anna]);
    assert_eq!(
        show(&both),
        tree(&[("doc.txt", "bob's"), (ANNAS, "anna's")])
    );
}

#[test]
fn of_two_directories_of_one_name_one_directory_with_all_that_is_in_them_is_left() {
    let (rows, mut anna, mut bob) = two(|_| ());
    let dir = anna.make(ROOT, "dir", Kind::Dir);
    anna.put(dir, "a.txt", "a");
    anna.put(dir, "doc.txt", "anna's");
    let dir = bob.make(ROOT, "dir", Kind::Dir);
    bob.put(dir, "b.txt", "b");
    bob.put(dir, "doc.txt", "bob's");
    let both = fold(&rows, &[&anna, &bob]);
    let copy = format!("dir/{BOBS}");
    assert_eq!(
        show(&both),
        tree(&[
            ("dir/", ""),
            ("dir/a.txt", "a"),
            ("dir/b.txt", "b"),
            ("dir/doc.txt", "anna's"),
            (&copy, "bob's")
        ])
    );
}

#[test]
fn of_a_directory_and_a_file_of_one_name_the_later_one_is_a_copy_with_what_is_in_it() {
    let (rows, mut anna, mut bob) = two(|_| ());
    anna.put(ROOT, "x", "file");
    let dir = bob.make(ROOT, "x", Kind::Dir);
    bob.put(dir, "in.txt", "in");
    let copy = "x (conflict, bob, 2026-11-21)";
    let (dir, inside) = (format!("{copy}/"), format!("{copy}/in.txt"));
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(
        show(&both),
        tree(&[("x", "file"), (&dir, ""), (&inside, "in")])
    );
    assert_eq!(copies(&both)[copy], (Cause::Made, "x".to_owned()));
    let both = fold(&rows, &[&bob, &anna]);
    let copy = "x (conflict, anna, 2026-11-21)";
    assert_eq!(
        show(&both),
        tree(&[("x/", ""), ("x/in.txt", "in"), (copy, "file")])
    );
}

#[test]
fn of_a_symbolic_link_and_a_file_of_one_name_the_later_one_is_a_copy() {
    let (rows, mut anna, mut bob) = two(|_| ());
    anna.make(ROOT, "doc.txt", Kind::Symlink);
    bob.put(ROOT, "doc.txt", "bob's");
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(show(&both), tree(&[("doc.txt", "->"), (BOBS, "bob's")]));
    let both = fold(&rows, &[&bob, &anna]);
    assert_eq!(show(&both), tree(&[("doc.txt", "bob's"), (ANNAS, "->")]));
}

#[test]
fn of_two_moves_that_would_make_a_cycle_the_later_one_does_not_happen() {
    let (rows, mut anna, mut bob) = two(|d| {
        let (a, b) = (d.make(ROOT, "a", Kind::Dir), d.make(ROOT, "b", Kind::Dir));
        d.put(a, "a.txt", "a");
        d.put(b, "b.txt", "b");
    });
    let (a, b) = (
        anna.seen(ROOT, "a").unwrap().0,
        anna.seen(ROOT, "b").unwrap().0,
    );
    anna.rename((ROOT, "a"), (b, "a"));
    bob.rename((ROOT, "b"), (a, "b"));
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(
        show(&both),
        tree(&[
            ("b/", ""),
            ("b/a/", ""),
            ("b/a/a.txt", "a"),
            ("b/b.txt", "b")
        ])
    );
    let both = fold(&rows, &[&bob, &anna]);
    assert_eq!(
        show(&both),
        tree(&[
            ("a/", ""),
            ("a/b/", ""),
            ("a/a.txt", "a"),
            ("a/b/b.txt", "b")
        ])
    );
    assert_eq!(copies(&both), BTreeMap::new());
}

#[test]
fn a_mode_an_attribute_and_an_edit_of_one_file_are_all_kept_in_one_file() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.chmod(ROOT, "doc.txt", 0o600);
    anna.set_xattr(ROOT, "doc.txt", "anna's");
    bob.write(ROOT, "doc.txt", "bob's");
    for order in [[&anna, &bob], [&bob, &anna]] {
        let rows = fold(&rows, &order);
        assert_eq!(show(&rows), tree(&[("doc.txt", "bob's")]));
        let (ino, inode) = Device::new(9, "x", &rows).seen(ROOT, "doc.txt").unwrap();
        assert_eq!(inode.mode, 0o600);
        let note = state::xattr(&rows, ino, b"user.note").unwrap().unwrap();
        assert_eq!(&note[..], b"anna's");
    }
}

#[test]
fn of_two_modes_and_two_values_of_an_attribute_the_later_ones_stand() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.chmod(ROOT, "doc.txt", 0o600);
    anna.set_xattr(ROOT, "doc.txt", "anna's");
    bob.chmod(ROOT, "doc.txt", 0o444);
    bob.set_xattr(ROOT, "doc.txt", "bob's");
    let rows = fold(&rows, &[&anna, &bob]);
    let (ino, inode) = Device::new(9, "x", &rows).seen(ROOT, "doc.txt").unwrap();
    assert_eq!(inode.mode, 0o444);
    let note = state::xattr(&rows, ino, b"user.note").unwrap().unwrap();
    assert_eq!((&note[..], inode.xattrs), (&b"bob's"[..], 1));
}

#[test]
fn a_copy_has_the_mode_and_the_attributes_of_its_document() {
    let (rows, mut anna, mut bob) = two(|d| {
        d.put(ROOT, "doc.txt", "old");
        d.chmod(ROOT, "doc.txt", 0o640);
        d.set_xattr(ROOT, "doc.txt", "list");
    });
    anna.write(ROOT, "doc.txt", "anna's");
    bob.write(ROOT, "doc.txt", "bob's");
    let rows = fold(&rows, &[&anna, &bob]);
    let (ino, inode) = Device::new(9, "x", &rows).seen(ROOT, BOBS).unwrap();
    let note = state::xattr(&rows, ino, b"user.note").unwrap().unwrap();
    assert_eq!(
        (inode.mode, inode.xattrs, &note[..]),
        (0o640, 1, &b"list"[..])
    );
}

#[test]
fn what_is_put_into_a_directory_that_another_removed_brings_it_back() {
    let (rows, mut anna, mut bob) = two(|d| {
        let dir = d.make(ROOT, "dir", Kind::Dir);
        d.put(dir, "old.txt", "old");
    });
    let dir = anna.seen(ROOT, "dir").unwrap().0;
    anna.remove(dir, "old.txt");
    anna.remove(ROOT, "dir");
    bob.put(dir, "new.txt", "new");
    for order in [[&anna, &bob], [&bob, &anna]] {
        let rows = fold(&rows, &order);
        assert_eq!(show(&rows), tree(&[("dir/", ""), ("dir/new.txt", "new")]));
        assert_eq!(copies(&rows), BTreeMap::new());
    }
}

#[test]
fn a_directory_that_comes_back_while_its_name_is_taken_is_a_copy() {
    let (rows, mut anna, mut bob) = two(|d| d.make(ROOT, "dir", Kind::Dir));
    let dir = anna.seen(ROOT, "dir").unwrap().0;
    anna.remove(ROOT, "dir");
    anna.put(ROOT, "dir", "a file now");
    bob.put(dir, "new.txt", "new");
    let copy = "dir (conflict, bob, 2026-11-21)";
    let rows = fold(&rows, &[&anna, &bob]);
    let (dir, inside) = (format!("{copy}/"), format!("{copy}/new.txt"));
    assert_eq!(
        show(&rows),
        tree(&[("dir", "a file now"), (&dir, ""), (&inside, "new")])
    );
    assert_eq!(copies(&rows)[copy], (Cause::Revived, "dir".to_owned()));
}

#[test]
fn a_removal_follows_what_another_moved_and_takes_it_in_either_order() {
    let (rows, mut anna, mut bob) = two(|d| {
        let dir = d.make(ROOT, "dir", Kind::Dir);
        d.put(dir, "old.txt", "old");
        d.make(ROOT, "elsewhere", Kind::Dir);
    });
    let dir = anna.seen(ROOT, "dir").unwrap().0;
    let elsewhere = anna.seen(ROOT, "elsewhere").unwrap().0;
    anna.remove(dir, "old.txt");
    anna.remove(ROOT, "dir");
    bob.rename((ROOT, "dir"), (elsewhere, "moved"));
    for order in [[&anna, &bob], [&bob, &anna]] {
        assert_eq!(show(&fold(&rows, &order)), tree(&[("elsewhere/", "")]));
    }
    // But what was edited there stays.
    bob.write(dir, "old.txt", "edited");
    let rows_after = fold(&rows, &[&bob, &anna]);
    assert_eq!(
        show(&rows_after),
        tree(&[
            ("elsewhere/", ""),
            ("elsewhere/moved/", ""),
            ("elsewhere/moved/old.txt", "edited")
        ])
    );
    let rows_after = fold(&rows, &[&anna, &bob]);
    assert_eq!(
        show(&rows_after),
        tree(&[("dir/", ""), ("dir/old.txt", "edited"), ("elsewhere/", "")])
    );
}

#[test]
fn a_file_that_is_renamed_over_one_that_another_edits_leaves_both() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.write(ROOT, "doc.txt", "anna's");
    bob.save(ROOT, "doc.txt", "bob's");
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(show(&both), tree(&[("doc.txt", "anna's"), (BOBS, "bob's")]));
    assert_eq!(copies(&both)[BOBS].0, Cause::Moved);
    let both = fold(&rows, &[&bob, &anna]);
    assert_eq!(
        show(&both),
        tree(&[("doc.txt", "bob's"), (ANNAS, "anna's")])
    );
    assert_eq!(copies(&both)[ANNAS].0, Cause::Written);
}

#[test]
fn a_document_that_two_save_by_renaming_has_one_copy_however_often_they_save() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    for n in 1..=5 {
        anna.save(ROOT, "doc.txt", &format!("anna's {n}"));
        bob.save(ROOT, "doc.txt", &format!("bob's {n}"));
    }
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(
        show(&both),
        tree(&[("doc.txt", "anna's 5"), (BOBS, "bob's 5")])
    );
    let row = (Cause::Moved, "doc.txt".to_owned());
    assert_eq!(copies(&both), [(BOBS.to_owned(), row)].into());
    let both = fold(&rows, &[&bob, &anna]);
    assert_eq!(
        show(&both),
        tree(&[("doc.txt", "bob's 5"), (ANNAS, "anna's 5")])
    );
}

#[test]
fn who_writes_in_place_and_then_saves_by_renaming_goes_on_in_his_copy() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.write(ROOT, "doc.txt", "anna's");
    bob.write(ROOT, "doc.txt", "bob's");
    bob.save(ROOT, "doc.txt", "bob's, saved");
    bob.save(ROOT, "doc.txt", "bob's, saved again");
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(
        show(&both),
        tree(&[("doc.txt", "anna's"), (BOBS, "bob's, saved again")])
    );
    assert_eq!(copies(&both)[BOBS].1, "doc.txt");
    // And who removes what he wrote removes that, and not what another wrote.
    bob.remove(ROOT, "doc.txt");
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(show(&both), tree(&[("doc.txt", "anna's")]));
    assert_eq!(copies(&both), BTreeMap::new());
}

#[test]
fn a_removal_of_what_was_just_written_takes_its_own_copy_only() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.write(ROOT, "doc.txt", "anna's");
    bob.write(ROOT, "doc.txt", "bob's");
    bob.remove(ROOT, "doc.txt");
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(show(&both), tree(&[("doc.txt", "anna's")]));
    let both = fold(&rows, &[&bob, &anna]);
    assert_eq!(show(&both), tree(&[("doc.txt", "anna's")]));
}

#[test]
fn of_a_file_of_two_names_of_which_two_take_one_each_the_later_one_stays() {
    let (rows, mut anna, mut bob) = two(|d| {
        let ino = d.put(ROOT, "one", "the only bytes");
        d.link(ino, ROOT, "two");
    });
    anna.remove(ROOT, "one");
    bob.remove(ROOT, "two");
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(show(&both), tree(&[("two", "the only bytes")]));
    let both = fold(&rows, &[&bob, &anna]);
    assert_eq!(show(&both), tree(&[("one", "the only bytes")]));
    // Of one who takes both and one who takes one: in doubt it stays.
    bob.remove(ROOT, "one");
    let both = fold(&rows, &[&bob, &anna]);
    assert_eq!(show(&both), tree(&[]));
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(show(&both), tree(&[("two", "the only bytes")]));
}

#[test]
fn of_an_edit_and_a_removal_of_one_of_two_names_both_happen() {
    let (rows, mut anna, mut bob) = two(|d| {
        let ino = d.put(ROOT, "one", "old");
        d.link(ino, ROOT, "two");
    });
    anna.remove(ROOT, "one");
    bob.write(ROOT, "one", "bob's");
    for order in [[&anna, &bob], [&bob, &anna]] {
        assert_eq!(show(&fold(&rows, &order)), tree(&[("two", "bob's")]));
    }
}

#[test]
fn a_copy_that_two_edit_has_another_copy_of_the_document_beside_it() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.write(ROOT, "doc.txt", "anna's");
    bob.write(ROOT, "doc.txt", "bob's");
    let rows = fold(&rows, &[&anna, &bob]);
    let (mut carl, mut dora) = (Device::new(4, "carl", &rows), Device::new(5, "dora", &rows));
    carl.write(ROOT, BOBS, "carl's");
    dora.write(ROOT, BOBS, "dora's");
    let doras = "doc (conflict, dora, 2026-11-21).txt";
    assert_eq!(
        show(&fold(&rows, &[&carl, &dora])),
        tree(&[("doc.txt", "anna's"), (BOBS, "carl's"), (doras, "dora's")])
    );
}

#[test]
fn an_edit_through_one_of_two_names_is_seen_at_both_and_a_copy_lies_beside_the_first() {
    let (rows, mut anna, mut bob) = two(|d| {
        let ino = d.put(ROOT, "doc.txt", "old");
        d.link(ino, ROOT, "other.txt");
    });
    anna.write(ROOT, "other.txt", "anna's");
    bob.write(ROOT, "other.txt", "bob's");
    let both = fold(&rows, &[&anna, &bob]);
    assert_eq!(
        show(&both),
        tree(&[
            ("doc.txt", "anna's"),
            ("other.txt", "anna's"),
            (BOBS, "bob's")
        ])
    );
}

#[test]
fn of_three_devices_with_one_file_each_contents_stay() {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    let mut carl = Device::new(4, "carl", &rows);
    anna.write(ROOT, "doc.txt", "anna's");
    bob.write(ROOT, "doc.txt", "bob's");
    carl.save(ROOT, "doc.txt", "carl's");
    let carls = "doc (conflict, carl, 2026-11-21).txt";
    let all = fold(&rows, &[&anna, &bob, &carl]);
    assert_eq!(
        show(&all),
        tree(&[("doc.txt", "anna's"), (BOBS, "bob's"), (carls, "carl's")])
    );
    let all = fold(&rows, &[&carl, &bob, &anna]);
    assert_eq!(
        show(&all),
        tree(&[("doc.txt", "carl's"), (BOBS, "bob's"), (ANNAS, "anna's")])
    );
    assert_eq!(copies(&all).len(), 2);
}

#[test]
fn a_name_that_a_person_gave_is_no_copy_and_a_copy_that_is_renamed_is_none_any_more() {
    let (rows, mut anna, mut bob) = two(|d| {
        d.put(ROOT, "doc.txt", "old");
        d.put(ROOT, "x (conflict, nobody, 2026-11-21).txt", "a person's");
    });
    assert_eq!(copies(&rows), BTreeMap::new());
    anna.write(ROOT, "doc.txt", "anna's");
    bob.write(ROOT, "doc.txt", "bob's");
    let rows = fold(&rows, &[&anna, &bob]);
    assert_eq!(copies(&rows).len(), 1);
    let mut later = Device::new(5, "later", &rows);
    later.rename((ROOT, BOBS), (ROOT, "mine.txt"));
    assert_eq!(copies(&later.rows), BTreeMap::new());
    later.rename((ROOT, "mine.txt"), (ROOT, BOBS));
    assert_eq!(copies(&later.rows), BTreeMap::new(), "a person gave it");
    let mut later = Device::new(6, "later", &rows);
    let dir = later.make(ROOT, "dir", Kind::Dir);
    later.put(dir, "in.txt", "in");
    later.remove(ROOT, BOBS);
    assert_eq!(copies(&later.rows), BTreeMap::new());
}

fn conflict_name_of(name: &str) -> String {
    let (rows, mut anna, mut bob) = two(|_| ());
    anna.put(ROOT, name, "anna's");
    bob.put(ROOT, name, "bob's");
    let copies = copies(&fold(&rows, &[&anna, &bob]));
    assert_eq!(copies.len(), 1);
    copies.into_keys().next().unwrap()
}

#[test]
fn a_conflict_name_keeps_the_extension_and_is_cut_between_characters() {
    let mark = " (conflict, bob, 2026-11-21)";
    for (name, conflict) in [
        ("report.docx", format!("report{mark}.docx")),
        ("archive.tar.gz", format!("archive{mark}.tar.gz")),
        (".bashrc", format!(".bashrc{mark}")),
        (".config.json", format!(".config{mark}.json")),
        ("Makefile", format!("Makefile{mark}")),
        ("Übung.odt", format!("Übung{mark}.odt")),
    ] {
        assert_eq!(conflict_name_of(name), conflict);
    }
    let long = format!("{}.docx", "x".repeat(250));
    let kept = 255 - mark.len() - 5;
    let expected = format!("{}{mark}.docx", "x".repeat(kept));
    assert_eq!(conflict_name_of(&long), expected);
    assert_eq!(expected.len(), 255);
    // Three bytes each: 222 bytes are room for 74 of them, and with one byte more before them for 73.
    let long = format!("{}.docx", "本".repeat(83));
    let expected = format!("{}{mark}.docx", "本".repeat(kept / 3));
    assert_eq!(conflict_name_of(&long), expected);
    let long = format!("a{}.docx", "本".repeat(83));
    let expected = format!("a{}{mark}.docx", "本".repeat((kept - 1) / 3));
    assert_eq!(conflict_name_of(&long), expected);
}

/// A document that an edit brought back: a version that lives in another file than the one it was written to.
fn brought_back() -> MemoryRows {
    let (rows, mut anna, mut bob) = two(|d| d.put(ROOT, "doc.txt", "old"));
    anna.remove(ROOT, "doc.txt");
    bob.write(ROOT, "doc.txt", "back");
    let rows = fold(&rows, &[&anna, &bob]);
    assert_eq!(show(&rows), tree(&[("doc.txt", "back")]));
    rows
}

#[test]
fn what_somebody_moved_away_is_not_taken_for_the_copy_of_who_saves_the_document() {
    let rows = brought_back();
    let (mut carol, mut dan) = (Device::new(4, "carol", &rows), Device::new(5, "dan", &rows));
    dan.rename((ROOT, "doc.txt"), (ROOT, "doc.txt~"));
    dan.put(ROOT, "doc.txt", "dan's");
    carol.save(ROOT, "doc.txt", "carol's");
    let name = "doc (conflict, carol, 2026-11-21).txt";
    let both = fold(&rows, &[&dan, &carol]);
    assert_eq!(
        show(&both),
        tree(&[
            ("doc.txt", "dan's"),
            ("doc.txt~", "back"),
            (name, "carol's")
        ])
    );
    assert_eq!(copies(&both).len(), 1);
}

#[test]
fn a_name_that_another_gave_to_a_file_stays_when_the_one_it_had_is_removed() {
    let rows = brought_back();
    let (mut carol, mut dan) = (Device::new(4, "carol", &rows), Device::new(5, "dan", &rows));
    let (ino, _) = dan.seen(ROOT, "doc.txt").unwrap();
    dan.link(ino, ROOT, "mine.txt");
    dan.remove(ROOT, "doc.txt");
    carol.remove(ROOT, "doc.txt");
    let both = fold(&rows, &[&dan, &carol]);
    assert_eq!(show(&both), tree(&[("mine.txt", "back")]));
}
