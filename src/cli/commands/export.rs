//! `skrin export`: a vault into a directory, from keys and objects alone.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Gid, Mode, RawMode, Timespec, Timestamps, Uid, XattrFlags};
use serde::Serialize;
use skrin_base::limits::BLOCK_LEN;
use skrin_base::{Ino, Timestamp};
use skrin_fs::{Attr, Fs, FsError, FsOptions, HandleId, Kind, NodeId, OpenMode, Seek};

use crate::args::ExportArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::finding::Finding;
use crate::left_out;
use crate::progress::Counter;
use crate::reader::Target;
use crate::session::Layers;
use crate::{machine, print};

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;
/// Entries listed at a time.
const BATCH: usize = 1000;

/// What `--json` says. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize)]
struct Exported {
    vault: String,
    vault_id: String,
    dest: String,
    files: u64,
    bytes: u64,
    damaged: u64,
    /// Files, directories, links and attributes that the target could not take.
    refused: u64,
    /// What hides something of which nobody can tell what it is, unless nothing does.
    left_out: Vec<Finding>,
}

/// Exports.
///
/// # Errors
/// `Busy` for a directory that is not empty; `Integrity` where some contents are damaged, or something is missing of which
/// nobody can tell what it is, after everything else was written.
pub(crate) fn run(args: &ExportArgs) -> Outcome {
    prepare(&args.dest)?;
    let runtime = super::runtime()?;
    let target = runtime.block_on(Target::open(&args.vault, &args.unlock))?;
    let (mut layers, _dir) = runtime.block_on(target.layers())?;
    let left_out = runtime.block_on(left_out(&target, &layers))?;
    for finding in &left_out {
        print::note(format!("{}: {}", finding.object, finding.what));
    }
    let _context = runtime.enter();
    let fs = layers.file_system(FsOptions {
        read_only: true,
        poll_interval: None,
        ..FsOptions::default()
    })?;
    let mut export = Export::new(fs);
    let root = export.fs.getattr(NodeId::ROOT)?;
    export.directory(&root, &args.dest)?;
    let Export {
        files,
        bytes,
        damaged,
        counter,
        refused,
        ..
    } = export;
    drop(counter);
    // An error of a disk that writes later is told to who asks for it.
    let synced = machine::sync_file_system(&args.dest);
    if args.json {
        print::json(&Exported {
            vault: target.store.place(),
            vault_id: target.unlocked.vault().to_string(),
            dest: args.dest.display().to_string(),
            files,
            bytes,
            damaged,
            refused,
            left_out: left_out.clone(),
        });
    } else {
        print::line(format!(
            "{files} files and {} were written to {}",
            indicatif::HumanBytes(bytes),
            args.dest.display()
        ));
    }
    let mut wrong = Vec::new();
    if damaged > 0 {
        wrong.push(format!(
            "{damaged} files are not whole; each was named above"
        ));
    }
    if let Err(error) = &synced {
        wrong.push(format!(
            "{}: the system cannot write what was exported: {error}",
            args.dest.display()
        ));
    }
    if refused > 0 {
        wrong.push(format!(
            "the target did not take {refused} files, directories or attributes; each was named above"
        ));
    }
    if !left_out.is_empty() {
        wrong.push(format!(
            "files or changes may be missing altogether, because {} objects on the storage are missing or damaged; each was named above, what they said nobody can tell",
            left_out.len()
        ));
    }
    let is_here = damaged == 0 && left_out.is_empty();
    match wrong.is_empty() {
        true => Ok(()),
        false if is_here => Err(Failure::new(Exit::Other, wrong.join("; ")).remedy(
            "export into a file system of this machine, as root if there are devices or other owners",
        )),
        false => Err(Failure::new(Exit::Integrity, wrong.join("; "))
            .remedy("skrin verify --repair, on each device that has used the vault, puts again what they still have; else restore these objects from a backup of the storage, and export again")),
    }
}

async fn left_out(target: &Target, layers: &Layers) -> Outcome<Vec<Finding>> {
    let room = target.unlocked.load_room(&*target.store).await?;
    left_out::findings(&layers.replica, &*target.store, &room.findings).await
}

/// The directory is there and empty afterwards.
fn prepare(dest: &Path) -> Outcome {
    match std::fs::read_dir(dest) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(
                Failure::new(Exit::Busy, format!("{}: is not empty", dest.display()))
                    .remedy("export into a directory that is empty or missing"),
            ),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => DirBuilder::new()
            .mode(0o700)
            .create(dest)
            .map_err(|e| Failure::io(dest, "cannot make it", &e)),
        Err(e) => Err(Failure::io(dest, "cannot export there", &e)),
    }
}

struct Export {
    fs: Arc<Fs>,
    counter: Counter,
    files: u64,
    bytes: u64,
    damaged: u64,
    refused: u64,
    /// Where an inode with several names was written first.
    written: HashMap<Ino, PathBuf>,
    root: bool,
}

/// A file that is being written.
struct Writing<'a> {
    path: &'a Path,
    file: &'a File,
    handle: HandleId,
    gaps: Vec<Gap>,
}

/// Bytes that cannot be read, and why.
struct Gap {
    bytes: Range<u64>,
    why: String,
}

impl Writing<'_> {
    /// Of a segment that is gone every block says the same: that is told once.
    fn leave_out(&mut self, bytes: Range<u64>, error: &FsError) {
        let why = error.to_string();
        match self.gaps.last_mut() {
            Some(last) if last.bytes.end == bytes.start && last.why == why => {
                last.bytes.end = bytes.end;
            }
            _ => self.gaps.push(Gap { bytes, why }),
        }
    }
}

impl Gap {
    fn text(&self, path: &Path) -> String {
        let (from, len) = (self.bytes.start, self.bytes.end - self.bytes.start);
        format!(
            "{}: {len} bytes from {from} on: {}",
            path.display(),
            self.why
        )
    }
}

/// Whether single blocks are at fault, so that others beside them may be whole.
fn is_of_blocks(error: &FsError) -> bool {
    match error {
        FsError::Lost { .. } => true,
        FsError::Data(error) => error.is_about_the_object(),
        _ => false,
    }
}

/// The parts of these bytes that lie in one block each.
fn blocks_of(bytes: &Range<u64>) -> Vec<Range<u64>> {
    let len = BLOCK_LEN as u64;
    let blocks = bytes.start / len..bytes.end.div_ceil(len);
    blocks
        .map(|n| bytes.start.max(n * len)..bytes.end.min((n + 1) * len))
        .collect()
}

impl Export {
    fn new(fs: Arc<Fs>) -> Self {
        Self {
            fs,
            counter: Counter::new("exporting"),
            files: 0,
            bytes: 0,
            damaged: 0,
            refused: 0,
            written: HashMap::new(),
            root: rustix::process::geteuid().is_root(),
        }
    }

    /// What is in a directory, then the directory's own attributes: writing into it would change its times. The walk keeps
    /// a list of its own, because trees may be deeper than a stack.
    fn directory(&mut self, root: &Attr, dest: &Path) -> Outcome {
        let mut open = vec![(root.clone(), dest.to_owned())];
        let mut done = Vec::new();
        while let Some((attr, path)) = open.pop() {
            let mut after = 0;
            loop {
                let batch = self.fs.readdir(attr.node, after, BATCH, false)?;
                let Some(last) = batch.last() else { break };
                after = last.cookie;
                for entry in batch
                    .iter()
                    .filter(|entry| !matches!(entry.name.as_slice(), b"." | b".."))
                {
                    let below = path.join(OsStr::from_bytes(&entry.name));
                    let child = self.fs.lookup(attr.node, &entry.name)?;
                    if child.kind == Kind::Dir {
                        match make_dir(&below) {
                            Ok(()) => open.push((child, below)),
                            Err(failure) => self.leave_out(&failure),
                        }
                    } else {
                        self.entry(&child, &below)?;
                        self.fs.forget(child.node, 1);
                    }
                }
            }
            done.push((attr, path));
        }
        // Children before parents.
        for (attr, path) in done.iter().rev() {
            self.attributes(attr, path)?;
        }
        Ok(())
    }

    fn entry(&mut self, attr: &Attr, path: &Path) -> Outcome {
        if attr.nlink > 1
            && let Some(first) = self.written.get(&attr.ino)
        {
            if let Err(e) = std::fs::hard_link(first, path) {
                self.leave_out(&Failure::io(path, "cannot link it", &e));
            }
            return Ok(());
        }
        match attr.kind {
            Kind::File => {
                let made = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path);
                match made {
                    Ok(file) => self.file(attr, path, &file)?,
                    Err(e) => {
                        self.leave_out(&Failure::io(path, "cannot make it", &e));
                        return Ok(());
                    }
                }
            }
            Kind::Symlink => {
                let target = self.fs.readlink(attr.node)?;
                if let Err(e) = symlink(OsStr::from_bytes(&target), path) {
                    self.leave_out(&Failure::io(path, "cannot make the link", &e));
                    return Ok(());
                }
            }
            _ => match self.special(attr, path) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(failure) => {
                    self.leave_out(&failure);
                    return Ok(());
                }
            },
        }
        // Where it was not made, the next name gets the contents.
        if attr.nlink > 1 {
            self.written.insert(attr.ino, path.to_owned());
        }
        self.files += 1;
        self.counter.report(self.files, self.bytes);
        self.attributes(attr, path)
    }

    /// Makes a pipe, a socket or a device; false where this system has no way.
    #[cfg(target_os = "linux")]
    fn special(&self, attr: &Attr, path: &Path) -> Outcome<bool> {
        use rustix::fs::FileType;
        let kind = match attr.kind {
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::CharDevice => FileType::CharacterDevice,
            _ => FileType::BlockDevice,
        };
        let made = rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), attr.rdev);
        made.map(|()| true)
            .map_err(|e| Failure::io(path, "cannot make it", &e.into()))
    }

    #[cfg(not(target_os = "linux"))]
    fn special(&self, _attr: &Attr, path: &Path) -> Outcome<bool> {
        self.note(format!(
            "{}: pipes, sockets and devices are not exported on this system",
            path.display()
        ));
        Ok(false)
    }

    /// Contents, with holes as holes. What cannot be read is reported and stays a hole; the rest goes on.
    fn file(&mut self, attr: &Attr, path: &Path, file: &File) -> Outcome {
        file.set_len(attr.size)
            .map_err(|e| Failure::io(path, "cannot write it", &e))?;
        let mut copy = Writing {
            path,
            file,
            handle: self.fs.open_node(attr.node, OpenMode::default())?,
            gaps: Vec::new(),
        };
        let result = self.contents(attr.size, &mut copy);
        for gap in &copy.gaps {
            self.note(gap.text(path));
        }
        self.damaged += u64::from(!copy.gaps.is_empty());
        self.fs.release(copy.handle)?;
        result
    }

    fn contents(&mut self, size: u64, copy: &mut Writing<'_>) -> Outcome {
        let mut at = 0;
        while at < size {
            at = match self.fs.seek(copy.handle, at, Seek::Data) {
                Ok(data) => data,
                Err(FsError::NoMoreData) => break,
                Err(error) => return Err(error.into()),
            };
            let end = self.fs.seek(copy.handle, at, Seek::Hole)?;
            while at < end {
                let to = end.min(at + PIECE);
                self.piece(at..to, copy)?;
                at = to;
            }
        }
        Ok(())
    }

    /// Copies a piece; one that cannot be read as a whole block by block, as what is good is not left out with what is not.
    fn piece(&mut self, bytes: Range<u64>, copy: &mut Writing<'_>) -> Outcome {
        let len = (bytes.end - bytes.start) as usize;
        match self.fs.read(copy.handle, bytes.start, len) {
            Ok(read) => {
                let written = copy.file.write_all_at(&read, bytes.start);
                written.map_err(|e| Failure::io(copy.path, "cannot write it", &e))?;
                self.bytes += read.len() as u64;
            }
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => {
                let blocks = blocks_of(&bytes);
                if blocks.len() == 1 || !is_of_blocks(&error) {
                    copy.leave_out(bytes, &error);
                    return Ok(());
                }
                for block in blocks {
                    self.piece(block, copy)?;
                }
            }
        }
        Ok(())
    }

    fn attributes(&mut self, attr: &Attr, path: &Path) -> Outcome {
        self.xattrs(attr, path)?;
        if let Err(failure) = self.own_attributes(attr, path) {
            self.leave_out(&failure);
        }
        Ok(())
    }

    /// What the target cannot take is said and counted, and no reason to leave out the rest.
    fn leave_out(&mut self, failure: &Failure) {
        self.refused += 1;
        self.note(failure.to_string());
    }

    fn own_attributes(&self, attr: &Attr, path: &Path) -> Outcome {
        let fail = |e: rustix::io::Errno| Failure::io(path, "cannot set its attributes", &e.into());
        // What is refused keeps nothing else from being set.
        let (uid, gid) = (Uid::from_raw(attr.uid), Gid::from_raw(attr.gid));
        let owned = match self.root {
            true => rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW),
            false => Ok(()),
        };
        // After chown, which takes set-uid away. Links have no mode.
        let mode = Mode::from_raw_mode(RawMode::from(attr.mode));
        let moded = match attr.kind {
            Kind::Symlink => Ok(()),
            _ => rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()),
        };
        let times = Timestamps {
            last_access: timespec(attr.atime),
            last_modification: timespec(attr.mtime),
        };
        let timed = rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
        owned.and(moded).and(timed).map_err(fail)
    }

    fn note(&self, text: String) {
        self.counter.beside(|| print::note(text));
    }

    /// Attributes that the target cannot take are said, and no reason to stop.
    fn xattrs(&self, attr: &Attr, path: &Path) -> Outcome {
        let names = self.fs.listxattr(attr.node)?;
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let value = self.fs.getxattr(attr.node, name)?;
            if let Err(error) = rustix::fs::lsetxattr(path, name, &value, XattrFlags::empty()) {
                let name = String::from_utf8_lossy(name);
                self.note(format!(
                    "{}: the extended attribute {name} is not kept there: {error}",
                    path.display()
                ));
            }
        }
        Ok(())
    }
}

fn make_dir(path: &Path) -> Outcome {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|e| Failure::io(path, "cannot make the directory", &e))
}

fn timespec(time: Timestamp) -> Timespec {
    Timespec {
        tv_sec: time.0.div_euclid(1_000_000_000),
        tv_nsec: time.0.rem_euclid(1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_divided_where_blocks_end() {
        let len = BLOCK_LEN as u64;
        assert_eq!(blocks_of(&(0..len)).len(), 1);
        assert_eq!(blocks_of(&(5..len + 7)), [5..len, len..len + 7]);
        let whole = blocks_of(&(3 * len..3 * len + PIECE));
        assert_eq!(whole.len(), 16);
        assert_eq!(whole.last(), Some(&(18 * len..19 * len)));
    }
}
