//! Access control lists and extended attributes on inodes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::Errno;
use skrin_fs::testutil::{Opened, TestVault};
use skrin_fs::{
    Caller, Fs, FsError, FsOptions, Kind, NodeId, NodeSpec, OpenMode, SetAttr, Shutdown, XattrMode,
};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const NOBODY: u32 = u32::MAX;

const CALLER: Caller = Caller {
    umask: 0o022,
    uid: 1000,
    gid: 100,
    pid: 1,
};

fn options() -> FsOptions {
    FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    }
}

fn open(vault: &TestVault, device: usize) -> Opened {
    vault.open(device, options()).unwrap()
}

/// A list: owner, user 7, group, mask, others.
fn list(owner: u16, user: u16, group: u16, mask: u16, other: u16) -> Vec<u8> {
    encode(&[
        (1, owner, NOBODY),
        (2, user, 7),
        (4, group, NOBODY),
        (16, mask, NOBODY),
        (32, other, NOBODY),
    ])
}

fn encode(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

fn file(fs: &Fs, dir: NodeId, name: &[u8], mode: u16) -> NodeId {
    let spec = NodeSpec {
        kind: Kind::File,
        mode,
        rdev: 0,
    };
    fs.mknod(dir, name, spec, &CALLER).unwrap().node
}

fn mode(fs: &Fs, node: NodeId) -> u16 {
    fs.getattr(node).unwrap().mode
}

fn chmod(fs: &Fs, node: NodeId, mode: u16) {
    let set = SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    fs.setattr(node, &set).unwrap();
}

fn errno<T>(result: Result<T, FsError>) -> Option<Errno> {
    result.err().map(|e| e.errno())
}

fn end(opened: &Opened) {
    let progress = Box::new(|_: &_| ());
    opened
        .fs
        .shutdown(Shutdown::UploadAll { progress })
        .unwrap();
}

#[test]
fn a_list_and_the_mode_say_the_same_whichever_is_set() {
    let vault = TestVault::in_memory(1).unwrap();
    let at = open(&vault, 0);
    let fs = &at.fs;
    let f = file(fs, NodeId::ROOT, b"f", 0o640);
    assert_eq!(errno(fs.getxattr(f, ACCESS)), Some(Errno::ENODATA));
    fs.setxattr(f, ACCESS, &list(7, 6, 4, 6, 1), XattrMode::Any)
        .unwrap();
    assert_eq!(mode(fs, f), 0o761, "the mask is the group class");
    chmod(fs, f, 0o4750);
    assert_eq!(fs.getxattr(f, ACCESS).unwrap(), list(7, 6, 4, 5, 0));
    // A list that says no more than a mode is a mode.
    let plain = encode(&[(1, 6, NOBODY), (4, 4, NOBODY), (32, 4, NOBODY)]);
    fs.setxattr(f, ACCESS, &plain, XattrMode::Any).unwrap();
    assert_eq!(mode(fs, f), 0o4644);
    assert_eq!(errno(fs.getxattr(f, ACCESS)), Some(Errno::ENODATA));
    assert_eq!(fs.listxattr(f).unwrap(), b"");
    end(&at);
}

#[test]
fn what_is_no_list_or_has_no_place_is_refused() {
    let vault = TestVault::in_memory(2).unwrap();
    let at = open(&vault, 0);
    let fs = &at.fs;
    let f = file(fs, NodeId::ROOT, b"f", 0o640);
    let set = |name, value: &[u8]| errno(fs.setxattr(f, name, value, XattrMode::Any));
    assert_eq!(set(ACCESS, b"rubbish"), Some(Errno::EINVAL));
    assert_eq!(set(ACCESS, &list(8, 6, 4, 6, 1)), Some(Errno::EINVAL));
    assert_eq!(set(DEFAULT, &list(7, 6, 4, 6, 1)), Some(Errno::EOPNOTSUPP));
    assert_eq!(set(b"system.other", b"x"), Some(Errno::EOPNOTSUPP));
    assert_eq!(set(b"user.", b"x"), Some(Errno::EINVAL));
    assert_eq!(fs.listxattr(f).unwrap(), b"");
    assert_eq!(mode(fs, f), 0o640);
    end(&at);
}

#[test]
fn new_entries_inherit_the_default_list_and_else_the_umask_counts() {
    let vault = TestVault::in_memory(3).unwrap();
    let at = open(&vault, 0);
    let fs = &at.fs;
    let plain = file(fs, NodeId::ROOT, b"plain", 0o666);
    assert_eq!(mode(fs, plain), 0o644);
    let dir = fs
        .mkdir(NodeId::ROOT, b"dir", 0o2777, &CALLER)
        .unwrap()
        .node;
    assert_eq!(mode(fs, dir), 0o2755);
    let default = list(7, 6, 4, 7, 0);
    fs.setxattr(dir, DEFAULT, &default, XattrMode::Any).unwrap();
    assert_eq!(mode(fs, dir), 0o2755, "a default list changes no mode");
    let f = file(fs, dir, b"f", 0o666);
    assert_eq!(mode(fs, f), 0o660);
    assert_eq!(fs.getxattr(f, ACCESS).unwrap(), list(6, 6, 4, 6, 0));
    assert_eq!(errno(fs.getxattr(f, DEFAULT)), Some(Errno::ENODATA));
    let below = fs.mkdir(dir, b"below", 0o777, &CALLER).unwrap().node;
    assert_eq!(mode(fs, below), 0o2770);
    assert_eq!(fs.getxattr(below, ACCESS).unwrap(), list(7, 6, 4, 7, 0));
    assert_eq!(fs.getxattr(below, DEFAULT).unwrap(), default);
    let link = fs.symlink(dir, b"link", b"f", &CALLER).unwrap().node;
    assert_eq!(
        (mode(fs, link), fs.listxattr(link).unwrap()),
        (0o777, vec![])
    );
    end(&at);
    // Nothing of it is this device's own.
    let other = open(&vault, 1);
    let dir = other.fs.lookup(NodeId::ROOT, b"dir").unwrap().node;
    let f = other.fs.lookup(dir, b"f").unwrap().node;
    assert_eq!(other.fs.getxattr(f, ACCESS).unwrap(), list(6, 6, 4, 6, 0));
    assert_eq!(mode(&other.fs, f), 0o660);
    end(&other);
}

#[test]
fn set_gid_goes_where_one_who_is_not_of_the_group_sets_a_list() {
    let vault = TestVault::in_memory(4).unwrap();
    let at = open(&vault, 0);
    let fs = &at.fs;
    let f = file(fs, NodeId::ROOT, b"f", 0o2750);
    fs.set_acl(f, ACCESS, &list(7, 5, 5, 5, 0), true).unwrap();
    assert_eq!(mode(fs, f), 0o2750);
    fs.set_acl(f, ACCESS, &list(7, 5, 5, 5, 0), false).unwrap();
    assert_eq!(mode(fs, f), 0o750);
    end(&at);
}

#[test]
fn an_open_file_without_a_name_keeps_its_attributes_and_takes_new_ones() {
    let vault = TestVault::in_memory(5).unwrap();
    let at = open(&vault, 0);
    let fs = &at.fs;
    let f = file(fs, NodeId::ROOT, b"f", 0o640);
    fs.setxattr(f, b"user.a", b"1", XattrMode::Any).unwrap();
    let handle = fs.open_node(f, OpenMode::default()).unwrap();
    fs.unlink(NodeId::ROOT, b"f").unwrap();
    assert_eq!(fs.getxattr(f, b"user.a").unwrap(), b"1");
    let exists = fs.setxattr(f, b"user.a", b"2", XattrMode::Create);
    assert_eq!(errno(exists), Some(Errno::EEXIST));
    fs.setxattr(f, b"user.b", b"2", XattrMode::Any).unwrap();
    fs.removexattr(f, b"user.a").unwrap();
    assert_eq!(fs.listxattr(f).unwrap(), b"user.b\0");
    assert_eq!(errno(fs.removexattr(f, b"user.a")), Some(Errno::ENODATA));
    fs.setxattr(f, ACCESS, &list(6, 7, 4, 7, 0), XattrMode::Any)
        .unwrap();
    assert_eq!(mode(fs, f), 0o670);
    fs.release(handle).unwrap();
    end(&at);
}

#[test]
fn a_directory_that_was_removed_while_the_kernel_knows_it_keeps_its_attributes() {
    let vault = TestVault::in_memory(6).unwrap();
    let at = open(&vault, 0);
    let fs = &at.fs;
    let dir = fs.mkdir(NodeId::ROOT, b"d", 0o755, &CALLER).unwrap().node;
    fs.setxattr(dir, b"user.a", b"1", XattrMode::Any).unwrap();
    fs.rmdir(NodeId::ROOT, b"d").unwrap();
    assert_eq!(fs.getxattr(dir, b"user.a").unwrap(), b"1");
    fs.setxattr(dir, b"user.b", b"2", XattrMode::Any).unwrap();
    assert_eq!(fs.listxattr(dir).unwrap(), b"user.a\0user.b\0");
    assert_eq!(fs.getattr(dir).unwrap().nlink, 0);
    fs.opendir(dir).unwrap();
    fs.forget(dir, 1);
    assert_eq!(errno(fs.getattr(dir)), Some(Errno::ENOENT));
    end(&at);
}
