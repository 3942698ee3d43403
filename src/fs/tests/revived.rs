//! Files that another device removed or replaced while they were edited: they come back as they were, whole and with their attributes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

#[path = "support/model.rs"]
#[allow(
    dead_code,
    reason = "shared with the random programs, which use all of it"
)]
mod model;
#[path = "support/sut.rs"]
#[allow(
    dead_code,
    reason = "shared with the random programs, which use all of it"
)]
mod sut;

use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{Fs, FsOptions, HandleId, NodeId, OpenMode, RenameMode, SetAttr, Shutdown};
use sut::{CALLER, find, read_all};

const WRITE: OpenMode = OpenMode {
    write: true,
    truncate: false,
};
const REWRITE: OpenMode = OpenMode {
    write: true,
    truncate: true,
};
const BLOCK: usize = 65_536;

fn options() -> FsOptions {
    FsOptions {
        poll_interval: None,
        background: false,
        label: true,
        ..FsOptions::default()
    }
}

fn node(fs: &Fs, name: &str) -> NodeId {
    find(fs, &[name.as_bytes().to_vec()]).unwrap().node
}

fn make(fs: &Fs, name: &str) -> HandleId {
    let made = fs.create(
        NodeId::ROOT,
        name.as_bytes(),
        0o644,
        false,
        REWRITE,
        &CALLER,
    );
    let (attr, handle) = made.unwrap();
    fs.forget(attr.node, 1);
    handle
}

/// Both publish, and see everything.
fn meet(devices: &[Opened; 2]) {
    for device in devices.iter().chain(devices) {
        device.fs.sync(|_| ()).unwrap();
        device.fs.poll().unwrap();
    }
}

fn open(seed: u64) -> (TestVault, [Opened; 2]) {
    let vault = TestVault::in_memory(seed).unwrap();
    let devices = [0, 1].map(|n| vault.open(n, options()).unwrap());
    (vault, devices)
}

fn end(devices: [Opened; 2]) {
    for device in devices {
        device.fs.shutdown(Shutdown::LeaveInJournal).unwrap();
    }
}

/// Every file of more than a few bytes, by name.
fn files(fs: &Fs) -> Vec<(String, Vec<u8>)> {
    let seen = sut::tree(fs).0.into_iter();
    let files = seen.filter(|(path, seen)| !path.is_empty() && !seen.data.is_empty());
    files
        .map(|(path, seen)| {
            let name = String::from_utf8(path.join(&b'/')).unwrap();
            (name, seen.data)
        })
        .collect()
}

/// What the other device does to the file.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Blow {
    Remove,
    Replace,
    Cut,
    Write,
}

impl Blow {
    fn strike(self, fs: &Fs) {
        match self {
            Self::Remove => fs.unlink(NodeId::ROOT, b"large").unwrap(),
            Self::Replace => {
                let handle = make(fs, "new");
                fs.write(handle, 0, b"something else").unwrap();
                fs.release(handle).unwrap();
                fs.rename(
                    NodeId::ROOT,
                    b"new",
                    NodeId::ROOT,
                    b"large",
                    RenameMode::Replace,
                )
                .unwrap();
            }
            Self::Cut => {
                let size = Some(3);
                let set = SetAttr {
                    size,
                    ..SetAttr::default()
                };
                fs.setattr(node(fs, "large"), &set).unwrap();
            }
            Self::Write => {
                let handle = fs.open_node(node(fs, "large"), WRITE).unwrap();
                for at in 0..100 {
                    fs.write(handle, at * 2 * BLOCK as u64, b"theirs").unwrap();
                }
                fs.release(handle).unwrap();
            }
        }
    }
}

#[test]
fn an_edit_of_a_large_file_keeps_all_of_it_whatever_another_device_did_to_the_file() {
    for (seed, blow) in (0..).zip([Blow::Remove, Blow::Replace, Blow::Cut, Blow::Write]) {
        for edits in [1, 3] {
            let (_vault, devices) = open(seed);
            let [a, b] = &devices;
            let mut model = vec![0; 199 * BLOCK];
            let handle = make(&a.fs, "large");
            for at in 0..100usize {
                let offset = at * 2 * BLOCK;
                model[offset..offset + 5].copy_from_slice(b"first");
                a.fs.write(handle, offset as u64, b"first").unwrap();
            }
            a.fs.write(handle, 198 * BLOCK as u64 + 5, &[7; BLOCK - 5])
                .unwrap();
            model[198 * BLOCK + 5..].fill(7);
            a.fs.release(handle).unwrap();
            meet(&devices);
            blow.strike(&a.fs);
            a.fs.sync(|_| ()).unwrap();
            for edit in 0..edits {
                let offset = (edit * 10 + 1) * BLOCK + 9;
                let handle = b.fs.open_node(node(&b.fs, "large"), WRITE).unwrap();
                b.fs.write(handle, offset as u64, b"edited").unwrap();
                b.fs.release(handle).unwrap();
                model[offset..offset + 6].copy_from_slice(b"edited");
            }
            meet(&devices);
            let seen = files(&a.fs);
            let whole = seen.iter().filter(|(_, data)| *data == model).count();
            assert_eq!(whole, 1, "{blow:?}, {edits} edits");
            assert_eq!(seen.len(), 1 + usize::from(blow != Blow::Remove));
            assert!(seen == files(&b.fs));
            end(devices);
        }
    }
}

const LIST: [u8; 44] = {
    // Version 2; owner rw, user 7 r, group r, mask r, others none.
    let mut list = [0; 44];
    let entries: [(u8, u8, u8); 5] = [
        (1, 6, 255),
        (2, 4, 7),
        (4, 4, 255),
        (16, 4, 255),
        (32, 0, 255),
    ];
    list[0] = 2;
    let mut n = 0;
    while n < entries.len() {
        let at = 4 + n * 8;
        list[at] = entries[n].0;
        list[at + 2] = entries[n].1;
        let id = entries[n].2;
        list[at + 4] = id;
        if id == 255 {
            list[at + 5] = 255;
            list[at + 6] = 255;
            list[at + 7] = 255;
        }
        n += 1;
    }
    list
};

fn dress(fs: &Fs, name: &str) {
    let set = SetAttr {
        mode: Some(0o640),
        uid: Some(1234),
        gid: Some(567),
        ..SetAttr::default()
    };
    let at = node(fs, name);
    fs.setattr(at, &set).unwrap();
    let mode = skrin_fs::XattrMode::Any;
    fs.setxattr(at, b"user.color", b"red", mode).unwrap();
    fs.setxattr(at, b"system.posix_acl_access", &LIST, mode)
        .unwrap();
}

#[test]
fn a_file_that_an_edit_brings_back_has_the_attributes_that_it_had() {
    for open_meanwhile in [false, true] {
        let (_vault, devices) = open(20);
        let [a, b] = &devices;
        let handle = make(&a.fs, "file");
        a.fs.write(handle, 0, b"old").unwrap();
        a.fs.release(handle).unwrap();
        meet(&devices);
        let edit = || b.fs.open_node(node(&b.fs, "file"), WRITE).unwrap();
        let handle = match open_meanwhile {
            true => {
                let handle = edit();
                dress(&b.fs, "file");
                b.fs.sync(|_| ()).unwrap();
                a.fs.poll().unwrap();
                handle
            }
            false => {
                dress(&a.fs, "file");
                meet(&devices);
                edit()
            }
        };
        let before = b.fs.getattr(node(&b.fs, "file")).unwrap();
        a.fs.unlink(NodeId::ROOT, b"file").unwrap();
        a.fs.sync(|_| ()).unwrap();
        if open_meanwhile {
            b.fs.poll().unwrap();
        }
        b.fs.write(handle, 0, b"new").unwrap();
        b.fs.release(handle).unwrap();
        meet(&devices);
        for device in &devices {
            let at = node(&device.fs, "file");
            assert_eq!(read_all(&device.fs, at), b"new");
            let attr = device.fs.getattr(at).unwrap();
            assert_eq!(
                (attr.mode, attr.uid, attr.gid, attr.btime),
                (0o640, 1234, 567, before.btime)
            );
            assert_eq!(device.fs.getxattr(at, b"user.color").unwrap(), b"red");
            let list = device.fs.getxattr(at, b"system.posix_acl_access");
            assert_eq!(list.unwrap(), LIST);
        }
        end(devices);
    }
}

/// Found by a review: the name led to what a program of this device had open and unlinked, so what others wrote under it was unlinked, too.
#[test]
fn what_is_written_under_a_name_that_another_device_gave_a_file_unlinked_here_is_kept() {
    let (_vault, devices) = open(40);
    let [a, b] = &devices;
    let handle = make(&a.fs, "file");
    a.fs.write(handle, 0, b"old").unwrap();
    a.fs.release(handle).unwrap();
    meet(&devices);
    // The kernel knows what it has open.
    let known = a.fs.lookup(NodeId::ROOT, b"file").unwrap().node;
    let before = a.fs.open_node(known, WRITE).unwrap();
    a.fs.unlink(NodeId::ROOT, b"file").unwrap();
    b.fs.link(node(&b.fs, "file"), NodeId::ROOT, b"link")
        .unwrap();
    // The link comes first in the order.
    b.fs.sync(|_| ()).unwrap();
    meet(&devices);
    let linked = a.fs.lookup(NodeId::ROOT, b"link").unwrap().node;
    let again = a.fs.open_node(linked, WRITE).unwrap();
    a.fs.write(again, 0, b"new").unwrap();
    a.fs.fsync(again).unwrap();
    a.fs.release(again).unwrap();
    meet(&devices);
    for device in &devices {
        let at = device.fs.lookup(NodeId::ROOT, b"link").unwrap().node;
        assert_eq!(read_all(&device.fs, at), b"new");
    }
    a.fs.release(before).unwrap();
    end(devices);
}
