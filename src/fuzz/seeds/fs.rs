//! Access control lists, and what a mounted vault keeps on its machine.

use crate::targets::data::journal_key;
use skrin_base::VaultId;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_data::{Journal, JournalConfig};
use skrin_fs::testutil::{Anything, Shelf, TestVault};
use skrin_fs::{Caller, Fs, FsError, FsOptions, NodeId, OpenMode, XattrMode};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

const CALLER: Caller = Caller {
    uid: 1000,
    gid: 100,
    pid: 1,
    umask: 0,
};
const WRITE: OpenMode = OpenMode {
    write: true,
    truncate: false,
};
/// What such a vault may keep on the machine, and the length of a file of its journal.
const ROOM: usize = 1 << 20;

fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// For `targets::fs::acl`: what the mode says as well, and a list that names a user and a group.
pub fn acls() -> Vec<Vec<u8>> {
    const NOBODY: u32 = u32::MAX;
    let (owner, group, other) = ((1, 6, NOBODY), (4, 4, NOBODY), (0x20, 0, NOBODY));
    vec![
        list(&[owner, group, other]),
        list(&[
            owner,
            (2, 6, 1000),
            group,
            (8, 7, 50),
            (0x10, 6, NOBODY),
            other,
        ]),
    ]
}

/// What a mount left on its machine when it died.
struct Left {
    edits: Vec<Vec<u8>>,
    local: Vec<u8>,
}

static LEFT: LazyLock<Option<Left>> = LazyLock::new(|| leave().ok());

fn leave() -> Result<Left, Anything> {
    let mut vault = TestVault::in_memory(17)?;
    let shelf = Arc::new(Shelf::default());
    let kept = Arc::clone(&shelf);
    vault.local = Box::new(move |_| Some(kept.files(ROOM)));
    let id: Rc<Cell<Option<VaultId>>> = Rc::default();
    let seen = Rc::clone(&id);
    vault.journal = Box::new(move |config| {
        seen.set(Some(config.vault));
        (config.key, config.file_len) = (journal_key(), ROOM as u32);
    });
    let options = FsOptions {
        poll_interval: None,
        background: false,
        ..FsOptions::default()
    };
    let at = vault.open(0, options)?;
    write_local(&at.fs)?;
    note_edits(&at.fs)?;
    drop(at);
    let id = id.get().ok_or("a vault without a journal")?;
    let dir = vault.state_dir(0).join("journal");
    let mut config = JournalConfig::new(dir, id, journal_key(), 1 << 30);
    config.file_len = ROOM as u32;
    let (_, replay) = Journal::open(config, Arc::new(SeededEntropy::new(18)))?;
    Ok(Left {
        edits: replay.edits.into_iter().map(|(_, bytes)| bytes).collect(),
        local: shelf.files(ROOM).kept.ok_or("nothing was kept")?,
    })
}

/// A directory with a file of two names, which is kept.
fn write_local(fs: &Fs) -> Result<(), FsError> {
    let dir = fs.mkdir(NodeId::ROOT, b".Trashes", 0o755, &CALLER)?.node;
    let (attr, handle) = fs.create(dir, b"first", 0o644, true, WRITE, &CALLER)?;
    fs.write(handle, 0, b"a resource fork")?;
    fs.setxattr(attr.node, b"user.x", b"1", XattrMode::Any)?;
    fs.link(attr.node, dir, b"second")?;
    fs.fsync(handle)?;
    fs.release(handle)
}

/// Three small changes of a stored file, the last one behind its end. Shorter than a block, so that mutants are whole.
fn note_edits(fs: &Fs) -> Result<(), FsError> {
    let made = fs.create(NodeId::ROOT, b"database", 0o644, true, WRITE, &CALLER)?;
    let handle = made.1;
    fs.write(handle, 0, &[7; 3000])?;
    fs.fsync(handle)?;
    for (at, byte) in [(10, 1), (2990, 2), (70_000, 3)] {
        fs.write(handle, at, &[byte; 20])?;
        fs.fsync(handle)?;
    }
    Ok(())
}

fn left() -> &'static Left {
    match &*LEFT {
        Some(left) => left,
        None => unreachable!("a vault in memory can be mounted"),
    }
}

/// For `targets::fs::edits`.
pub fn edits() -> Vec<Vec<u8>> {
    left().edits.clone()
}

/// For `targets::fs::mac_files`.
pub fn mac_files() -> Vec<Vec<u8>> {
    vec![left().local.clone()]
}
