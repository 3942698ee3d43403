//! Programs that write and remember, outside the mount, what they began and what `fsync` promised them: what may and what must be there after a crash.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};

use crate::harness::Dice;

/// Tells the time in whatever a crash is told in.
pub(crate) type Clock<'a> = &'a (dyn Fn() -> u64 + Sync);
/// A crash after everything that was done.
pub(crate) const NOW: u64 = u64::MAX;

/// So long may the slowest machine take for the promises of one load.
const PATIENCE: Duration = Duration::from_secs(300);

/// One program with a directory of its own.
pub(crate) trait Writer: Send {
    /// Does one thing and, mostly, waits until it is promised.
    fn step(&mut self, dir: &Path, clock: Clock<'_>) -> io::Result<()>;
    /// Whether this may be what is there after a crash at that time; what is wrong.
    fn check(&self, dir: &Path, crash: u64) -> Result<(), String>;
    /// What is there counts as promised from now on; to be called after [`Writer::check`].
    fn accept(&mut self, dir: &Path);
    /// Lets go of what it has open.
    fn close(&mut self) {}
    /// Everything that it did is promised by something else than its own `fsync`.
    fn settle(&mut self, clock: Clock<'_>);
    /// How often `fsync` has promised something since the last [`Writer::accept`].
    fn promises(&self) -> usize;
}

/// One of each, and two of those who save documents.
pub(crate) fn writers(seed: u64) -> Vec<Box<dyn Writer>> {
    vec![
        Box::new(Appends::new(seed)),
        Box::new(Edits::new(seed + 1)),
        Box::new(Saves::new(seed + 2, "doc.new")),
        // By its name a file of a moment, which would not be told to anybody for a while.
        Box::new(Saves::new(seed + 3, "doc.tmp")),
        Box::new(Names::new(seed + 4)),
    ]
}

/// The directory of the writer with that number.
pub(crate) fn dir_of(root: &Path, number: usize) -> PathBuf {
    root.join(format!("writer-{number}"))
}

/// All writers at once.
pub(crate) struct Load<'a> {
    /// Where their directories are.
    pub root: &'a Path,
    pub clock: Clock<'a>,
    /// What goes on beside them until it is over.
    pub beside: &'a (dyn Fn(&AtomicBool) + Sync),
    /// For how many promises they go on.
    pub promises: usize,
}

impl Load<'_> {
    /// Calls `end` in the middle of it all, with what it has to set before it makes calls fail; how much was promised.
    pub(crate) fn run(
        &self,
        writers: &mut [Box<dyn Writer>],
        end: impl FnOnce(&AtomicBool),
    ) -> usize {
        let (over, killed) = (AtomicBool::new(false), AtomicBool::new(false));
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (over, killed, done) = (&over, &killed, &done);
            let mut threads = Vec::new();
            for (number, writer) in writers.iter_mut().enumerate() {
                let dir = dir_of(self.root, number);
                threads.push(scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        let before = writer.promises();
                        if let Err(error) = writer.step(&dir, self.clock) {
                            assert!(killed.load(Ordering::SeqCst), "writer {number}: {error}");
                            break;
                        }
                        done.fetch_add(writer.promises() - before, Ordering::SeqCst);
                    }
                }));
            }
            scope.spawn(|| (self.beside)(over));
            let begun = Instant::now();
            while done.load(Ordering::SeqCst) < self.promises {
                // One that has failed says so when the others have ended.
                let failed = threads.iter().any(|thread| thread.is_finished());
                if failed || begun.elapsed() > PATIENCE {
                    over.store(true, Ordering::SeqCst);
                    panic!(
                        "{done:?} promises in {:?}; failed: {failed}",
                        begun.elapsed()
                    );
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            end(killed);
            over.store(true, Ordering::SeqCst);
        });
        done.into_inner()
    }
}

/// What was begun, and when.
type Begun<O> = (u64, O);

/// What one writer began, in this order, and how much of it was promised when.
struct Log<O> {
    begun: Vec<(u64, O)>,
    /// (time, how many of them).
    promised: Vec<(u64, usize)>,
}

impl<O> Log<O> {
    fn new() -> Self {
        Self {
            begun: Vec::new(),
            promised: Vec::new(),
        }
    }

    fn begin(&mut self, op: O, clock: Clock<'_>) -> &O {
        self.begun.push((clock(), op));
        &self.begun.last().unwrap().1
    }

    fn promise(&mut self, clock: Clock<'_>) {
        self.promised.push((clock(), self.begun.len()));
    }

    /// What must be there after a crash at that time, and what may be there as well.
    fn at(&self, crash: u64) -> (&[Begun<O>], &[Begun<O>]) {
        let kept = self.promised.iter().rev().find(|(at, _)| *at <= crash);
        let must = kept.map_or(0, |(_, count)| *count);
        let may = self.begun.iter().take_while(|(at, _)| *at <= crash).count();
        (&self.begun[..must], &self.begun[must..may.max(must)])
    }
}

/// What a file holds; nothing where it does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Nothing but these names is in the directory.
fn only(dir: &Path, names: &[&str]) -> Result<(), String> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| format!("{}: {e}", dir.display()))?,
    };
    for entry in entries {
        let name = entry.map_err(|e| e.to_string())?.file_name();
        if !names.iter().any(|known| name == *known) {
            return Err(format!("{}: {name:?} is there", dir.display()));
        }
    }
    Ok(())
}

/// Appends to one file.
struct Appends {
    seed: u64,
    dice: Dice,
    base: u64,
    /// The length that each append makes.
    log: Log<u64>,
}

impl Appends {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            dice: Dice(seed),
            base: 0,
            log: Log::new(),
        }
    }

    /// Every file of this writer holds the same bytes at the same place.
    fn pattern(&self, from: u64, to: u64) -> Vec<u8> {
        let words = from / 8..to.div_ceil(8);
        let bytes: Vec<u8> = words
            .flat_map(|word| Dice(self.seed ^ (word << 20)).roll().to_le_bytes())
            .collect();
        let skip = (from % 8) as usize;
        bytes[skip..skip + (to - from) as usize].to_vec()
    }
}

impl Writer for Appends {
    fn step(&mut self, dir: &Path, clock: Clock<'_>) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(dir.join("log"))?;
        for _ in 0..=self.dice.roll() % 3 {
            let from = self.log.begun.last().map_or(self.base, |(_, len)| *len);
            let most = if self.dice.roll().is_multiple_of(16) {
                150_000
            } else {
                3000
            };
            let to = from + 1 + self.dice.roll() % most;
            self.log.begin(to, clock);
            file.write_all(&self.pattern(from, to))?;
        }
        match self.dice.roll() % 2 {
            0 => file.sync_all()?,
            _ => file.sync_data()?,
        }
        self.log.promise(clock);
        Ok(())
    }

    fn check(&self, dir: &Path, crash: u64) -> Result<(), String> {
        let (must, may) = self.log.at(crash);
        let least = must.last().map_or(self.base, |(_, len)| *len);
        let most = may.last().map_or(least, |(_, len)| *len);
        let found = read(&dir.join("log"))?.unwrap_or_default();
        let len = found.len() as u64;
        if len < least || len > most {
            return Err(format!("log has {len} bytes, not {least} to {most}"));
        }
        let wrong = found.iter().zip(self.pattern(0, len));
        match wrong.enumerate().find(|(_, (a, b))| **a != *b) {
            Some((at, _)) => Err(format!(
                "log of {len} bytes ({least} synced) differs at {at}"
            )),
            None => only(dir, &["log"]),
        }
    }

    fn accept(&mut self, dir: &Path) {
        self.base = std::fs::metadata(dir.join("log")).map_or(0, |meta| meta.len());
        self.log = Log::new();
    }

    fn settle(&mut self, clock: Clock<'_>) {
        self.log.promise(clock);
    }

    fn promises(&self) -> usize {
        self.log.promised.len()
    }
}

/// What is done to the file that is edited in place.
enum Edit {
    Write(usize, Vec<u8>),
    Zero(usize, usize),
    Resize(usize),
}

impl Edit {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                to.resize(to.len().max(at + bytes.len()), 0);
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Zero(at, len) => to[*at..at + len].fill(0),
            Self::Resize(len) => to.resize(*len, 0),
        }
    }

    /// What it makes of the byte at a place; nothing if it leaves that alone.
    fn at(&self, place: usize) -> Option<u8> {
        match self {
            Self::Write(at, bytes) => place.checked_sub(*at).and_then(|i| bytes.get(i).copied()),
            Self::Zero(at, len) => (*at..at + len).contains(&place).then_some(0),
            Self::Resize(len) => (place >= *len).then_some(0),
        }
    }
}

/// Overwrites, cuts and zeroes pieces of one file.
struct Edits {
    dice: Dice,
    base: Vec<u8>,
    /// As the program sees it.
    now: Vec<u8>,
    open: Option<File>,
    log: Log<Edit>,
}

impl Edits {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            base: Vec::new(),
            now: Vec::new(),
            open: None,
            log: Log::new(),
        }
    }

    fn next(&mut self) -> Edit {
        let len = self.now.len();
        if len == 0 {
            return Edit::Write(0, self.dice.bytes(300_000));
        }
        let at = self.dice.roll() as usize % len;
        match self.dice.roll() % 16 {
            0 => Edit::Zero(at, 1 + self.dice.roll() as usize % (len - at)),
            1 => Edit::Resize(100_000 + self.dice.roll() as usize % 400_000),
            2 => {
                let many = 1 + self.dice.roll() as usize % 100_000;
                Edit::Write(at, self.dice.bytes(many))
            }
            _ => {
                let few = 1 + self.dice.roll() as usize % 5000;
                Edit::Write(at, self.dice.bytes(few))
            }
        }
    }
}

impl Writer for Edits {
    fn step(&mut self, dir: &Path, clock: Clock<'_>) -> io::Result<()> {
        let file = match self.open.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(dir.join("file"))?,
        };
        let edit = self.next();
        match self.log.begin(edit, clock) {
            Edit::Write(at, bytes) => file.write_all_at(bytes, *at as u64)?,
            Edit::Zero(at, len) => {
                fallocate(&file, FallocateFlags::ZERO_RANGE, *at as u64, *len as u64)?;
            }
            Edit::Resize(len) => file.set_len(*len as u64)?,
        }
        self.log.begun.last().unwrap().1.apply(&mut self.now);
        match self.dice.roll() % 8 {
            0 | 1 => {
                self.open = Some(file);
                return Ok(());
            }
            2 | 3 => file.sync_all()?,
            4 => {
                // What was closed is in the journal, and synced with whatever is.
                drop(file);
                sync_dir(dir)?;
                self.log.promise(clock);
                return Ok(());
            }
            _ => file.sync_data()?,
        }
        self.log.promise(clock);
        if self.dice.roll().is_multiple_of(2) {
            self.open = Some(file);
        }
        Ok(())
    }

    fn check(&self, dir: &Path, crash: u64) -> Result<(), String> {
        let (must, may) = self.log.at(crash);
        let mut kept = self.base.clone();
        must.iter().for_each(|(_, edit)| edit.apply(&mut kept));
        let found = read(&dir.join("file"))?.unwrap_or_default();
        let mut lens = vec![kept.len()];
        let mut then = kept.clone();
        for (_, edit) in may {
            edit.apply(&mut then);
            lens.push(then.len());
        }
        let allowed = |place: usize, byte: u8| {
            byte == kept.get(place).copied().unwrap_or(0)
                || may.iter().any(|(_, edit)| edit.at(place) == Some(byte))
        };
        let wrong = (0..found.len()).find(|place| !allowed(*place, found[*place]));
        match wrong {
            // A write that the kernel has told in part may end at any page.
            _ if found.len() < *lens.iter().min().unwrap()
                || found.len() > *lens.iter().max().unwrap() =>
            {
                Err(format!("file has {} bytes, not {lens:?}", found.len()))
            }
            Some(at) => Err(format!(
                "file of {} bytes differs at {at} ({} edits synced, {} not)",
                found.len(),
                must.len(),
                may.len()
            )),
            None => only(dir, &["file"]),
        }
    }

    fn accept(&mut self, dir: &Path) {
        self.open = None;
        self.base = std::fs::read(dir.join("file")).unwrap_or_default();
        self.now.clone_from(&self.base);
        self.log = Log::new();
    }

    fn close(&mut self) {
        self.open = None;
    }

    fn settle(&mut self, clock: Clock<'_>) {
        self.log.promise(clock);
    }

    fn promises(&self) -> usize {
        self.log.promised.len()
    }
}

/// Saves a document again and again: a new file, `fsync`, `rename` over the old one, `fsync` of the directory.
struct Saves {
    seed: u64,
    dice: Dice,
    /// The file that is written and renamed.
    beside: &'static str,
    base: u64,
    last: u64,
    log: Log<Save>,
}

/// One step of saving a version.
enum Save {
    Write(u64),
    Rename(u64),
}

impl Saves {
    fn new(seed: u64, beside: &'static str) -> Self {
        Self {
            seed,
            dice: Dice(seed),
            beside,
            base: 0,
            last: 0,
            log: Log::new(),
        }
    }

    fn body(&self, version: u64) -> Vec<u8> {
        let mut dice = Dice(self.seed ^ (version << 24));
        let most = match version % 12 {
            0 => 2_000_000,
            1..4 => 200_000,
            _ => 20_000,
        };
        let len = dice.roll() % most;
        let mut body = version.to_le_bytes().to_vec();
        body.extend(dice.bytes(len as usize));
        body
    }

    /// Which whole version a file holds; 0 where it is not there.
    fn version(&self, path: &Path) -> Result<u64, String> {
        let Some(found) = read(path)? else {
            return Ok(0);
        };
        let version = found
            .first_chunk()
            .map_or(0, |head| u64::from_le_bytes(*head));
        if version == 0 || found != self.body(version) {
            return Err(format!("{} is no whole version", path.display()));
        }
        Ok(version)
    }
}

impl Writer for Saves {
    fn step(&mut self, dir: &Path, clock: Clock<'_>) -> io::Result<()> {
        let (beside, document) = (dir.join(self.beside), dir.join("doc"));
        self.last += 1;
        self.log.begin(Save::Write(self.last), clock);
        // Some programs begin with a copy of what they save.
        if self.dice.roll().is_multiple_of(4) && document.exists() {
            std::fs::copy(&document, &beside)?;
        }
        let mut file = File::create(&beside)?;
        file.write_all(&self.body(self.last))?;
        file.sync_all()?;
        self.log.promise(clock);
        self.log.begin(Save::Rename(self.last), clock);
        std::fs::rename(&beside, &document)?;
        if self.dice.roll().is_multiple_of(4) {
            return Ok(());
        }
        sync_dir(dir)?;
        self.log.promise(clock);
        Ok(())
    }

    fn check(&self, dir: &Path, crash: u64) -> Result<(), String> {
        let (must, may) = self.log.at(crash);
        let renamed = |ops: &[(u64, Save)]| {
            let mut versions = ops.iter().rev().filter_map(|(_, op)| match op {
                Save::Rename(version) => Some(*version),
                Save::Write(_) => None,
            });
            versions.next()
        };
        let least = renamed(must).unwrap_or(self.base);
        let most = renamed(may).unwrap_or(least);
        let found = self.version(&dir.join("doc"))?;
        if found < least || found > most {
            return Err(format!("doc is version {found}, not {least} to {most}"));
        }
        let written = match must.last() {
            Some((_, Save::Write(version))) => *version,
            _ => 0,
        };
        if written > found {
            let beside = self.version(&dir.join(self.beside))?;
            if beside != written {
                return Err(format!("version {written} was synced, {beside} is there"));
            }
        }
        only(dir, &["doc", self.beside])
    }

    fn accept(&mut self, dir: &Path) {
        self.base = self.version(&dir.join("doc")).unwrap_or(0);
        self.log = Log::new();
    }

    fn settle(&mut self, clock: Clock<'_>) {
        self.log.promise(clock);
    }

    fn promises(&self) -> usize {
        self.log.promised.len()
    }
}

/// What a name leads to.
#[derive(Clone, PartialEq, Eq)]
enum Node {
    Dir,
    Link(String),
    /// A file, by number: several names may lead to one.
    File(u64),
}

/// Names and modes, as they should be.
#[derive(Clone, Default)]
struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    modes: BTreeMap<u64, u32>,
}

/// What is done to names.
#[derive(Clone)]
enum Name {
    Mkdir(PathBuf),
    Create(PathBuf, u64),
    Symlink(PathBuf, String),
    Link(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    Rmdir(PathBuf),
    Chmod(PathBuf, u32),
}

impl Tree {
    fn apply(&mut self, op: &Name) {
        match op {
            Name::Mkdir(path) => drop(self.nodes.insert(path.clone(), Node::Dir)),
            Name::Create(path, number) => {
                self.nodes.insert(path.clone(), Node::File(*number));
                self.modes.insert(*number, 0o644);
            }
            Name::Symlink(path, to) => {
                self.nodes.insert(path.clone(), Node::Link(to.clone()));
            }
            Name::Link(from, to) => {
                let node = self.nodes[from].clone();
                self.nodes.insert(to.clone(), node);
            }
            Name::Rename(from, to) => self.rename(from, to),
            Name::Unlink(path) | Name::Rmdir(path) => drop(self.nodes.remove(path)),
            Name::Chmod(path, mode) => {
                if let Node::File(number) = self.nodes[path] {
                    self.modes.insert(number, *mode);
                }
            }
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let below: Vec<PathBuf> = self
            .nodes
            .keys()
            .filter(|path| path.starts_with(from))
            .cloned()
            .collect();
        for path in below {
            let node = self.nodes.remove(&path).unwrap();
            let rest = path.strip_prefix(from).unwrap();
            let new = if rest.as_os_str().is_empty() {
                to.to_owned()
            } else {
                to.join(rest)
            };
            self.nodes.insert(new, node);
        }
    }

    /// One line for each name, sorted.
    fn lines(&self) -> Vec<String> {
        let mut links = BTreeMap::new();
        for node in self.nodes.values() {
            if let Node::File(number) = node {
                *links.entry(*number).or_insert(0u64) += 1;
            }
        }
        let line = |(path, node): (&PathBuf, &Node)| match node {
            Node::Dir => format!("{} directory", path.display()),
            Node::Link(to) => format!("{} -> {to}", path.display()),
            Node::File(number) => {
                let (mode, links) = (self.modes[number], links[number]);
                format!("{} {mode:o} {links}", path.display())
            }
        };
        let mut lines: Vec<String> = self.nodes.iter().map(line).collect();
        lines.sort();
        lines
    }
}

/// Files and their inodes.
type Inodes = Vec<(PathBuf, u64)>;

/// The same of what is there; with the inode of each file.
fn lines_of(dir: &Path) -> Result<(Vec<String>, Inodes), String> {
    let mut lines = Vec::new();
    let mut inodes = Vec::new();
    let mut rest = vec![PathBuf::new()];
    while let Some(below) = rest.pop() {
        let say = |e: io::Error| format!("{}: {e}", dir.join(&below).display());
        let entries = match std::fs::read_dir(dir.join(&below)) {
            Err(e) if e.kind() == ErrorKind::NotFound && below.as_os_str().is_empty() => break,
            other => other.map_err(say)?,
        };
        for entry in entries {
            let entry = entry.map_err(say)?;
            let path = below.join(entry.file_name());
            let meta = entry.metadata().map_err(say)?;
            if meta.is_dir() {
                lines.push(format!("{} directory", path.display()));
                rest.push(path);
            } else if meta.is_symlink() {
                let to = std::fs::read_link(entry.path()).map_err(say)?;
                lines.push(format!("{} -> {}", path.display(), to.display()));
            } else {
                let (mode, links) = (meta.mode() & 0o7777, meta.nlink());
                lines.push(format!("{} {mode:o} {links}", path.display()));
                inodes.push((path, meta.ino()));
            }
        }
    }
    lines.sort();
    Ok((lines, inodes))
}

/// Makes, links, renames and removes names, and sets modes.
struct Names {
    dice: Dice,
    base: Tree,
    now: Tree,
    count: u64,
    log: Log<Name>,
}

impl Names {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            base: Tree::default(),
            now: Tree::default(),
            count: 0,
            log: Log::new(),
        }
    }

    /// One name of those that `which` takes.
    fn pick(&mut self, which: impl Fn(&Path, &Node) -> bool) -> Option<PathBuf> {
        let fit: Vec<&PathBuf> = self
            .now
            .nodes
            .iter()
            .filter(|(path, node)| which(path, node))
            .map(|(path, _)| path)
            .collect();
        let number = self.dice.roll() as usize;
        (!fit.is_empty()).then(|| fit[number % fit.len()].clone())
    }

    /// A new name in some directory.
    fn fresh(&mut self) -> PathBuf {
        self.count += 1;
        let dir = self.pick(|path, node| *node == Node::Dir && path.iter().count() < 4);
        let dir = if self.dice.roll().is_multiple_of(3) {
            None
        } else {
            dir
        };
        dir.unwrap_or_default().join(format!("n{}", self.count))
    }

    fn next(&mut self) -> Name {
        let is_file = |_: &Path, node: &Node| matches!(node, Node::File(_));
        let fresh = self.fresh();
        let number = self.count;
        let some = match self.dice.roll() % 10 {
            0 => Some(Name::Mkdir(fresh.clone())),
            1 => Some(Name::Symlink(fresh.clone(), format!("to {number}"))),
            2 => self
                .pick(is_file)
                .map(|from| Name::Link(from, fresh.clone())),
            // Anything but a directory into itself.
            3 => self
                .pick(|path, _| !fresh.starts_with(path))
                .map(|from| Name::Rename(from, fresh.clone())),
            4 => self.over(),
            5 | 6 => self.pick(|_, node| *node != Node::Dir).map(Name::Unlink),
            7 => {
                let used: Vec<PathBuf> = self
                    .now
                    .nodes
                    .keys()
                    .filter_map(|path| path.parent())
                    .map(Path::to_owned)
                    .collect();
                let empty = |path: &Path, node: &Node| {
                    *node == Node::Dir && !used.iter().any(|dir| dir == path)
                };
                self.pick(empty).map(Name::Rmdir)
            }
            8 => {
                let mode = 0o600 | (self.dice.roll() as u32 & 0o077);
                self.pick(is_file).map(|path| Name::Chmod(path, mode))
            }
            _ => None,
        };
        some.unwrap_or(Name::Create(fresh, number))
    }

    /// A rename of a file over another one.
    fn over(&mut self) -> Option<Name> {
        let is_file = |_: &Path, node: &Node| matches!(node, Node::File(_));
        let from = self.pick(is_file)?;
        let node = self.now.nodes[&from].clone();
        // Two names of one file would both stay.
        let to = self.pick(|_, other| matches!(other, Node::File(_)) && *other != node)?;
        Some(Name::Rename(from, to))
    }

    fn act(dir: &Path, op: &Name) -> io::Result<()> {
        match op {
            Name::Mkdir(path) => std::fs::create_dir(dir.join(path)),
            Name::Create(path, _) => {
                let file = File::create_new(dir.join(path))?;
                file.set_permissions(std::fs::Permissions::from_mode(0o644))
            }
            Name::Symlink(path, to) => symlink(to, dir.join(path)),
            Name::Link(from, to) => std::fs::hard_link(dir.join(from), dir.join(to)),
            Name::Rename(from, to) => std::fs::rename(dir.join(from), dir.join(to)),
            Name::Unlink(path) => std::fs::remove_file(dir.join(path)),
            Name::Rmdir(path) => std::fs::remove_dir(dir.join(path)),
            Name::Chmod(path, mode) => {
                std::fs::set_permissions(dir.join(path), std::fs::Permissions::from_mode(*mode))
            }
        }
    }

    /// What a crash may have left: after so many of what was begun.
    fn match_of(&self, crash: u64, lines: &[String]) -> Result<Tree, String> {
        let (must, may) = self.log.at(crash);
        let mut tree = self.base.clone();
        must.iter().for_each(|(_, op)| tree.apply(op));
        let promised = tree.lines();
        if promised == lines {
            return Ok(tree);
        }
        for (_, op) in may {
            tree.apply(op);
            if tree.lines() == lines {
                return Ok(tree);
            }
        }
        let missing = promised.iter().filter(|line| !lines.contains(line));
        let more = lines.iter().filter(|line| !promised.contains(line));
        Err(format!(
            "names are as after none of {} steps that were not synced; of what was synced {:?} is missing, and {:?} is there",
            may.len(),
            missing.collect::<Vec<_>>(),
            more.collect::<Vec<_>>()
        ))
    }
}

impl Writer for Names {
    fn step(&mut self, dir: &Path, clock: Clock<'_>) -> io::Result<()> {
        for _ in 0..=self.dice.roll() % 6 {
            let op = self.next();
            Self::act(dir, self.log.begin(op, clock))?;
            let (_, op) = self.log.begun.last().unwrap();
            self.now.apply(op);
        }
        sync_dir(dir)?;
        self.log.promise(clock);
        Ok(())
    }

    fn check(&self, dir: &Path, crash: u64) -> Result<(), String> {
        let (lines, inodes) = lines_of(dir)?;
        let tree = self.match_of(crash, &lines)?;
        let mut seen = BTreeMap::new();
        for (path, inode) in inodes {
            let number = &tree.nodes[&path];
            let first = seen.entry(inode).or_insert_with(|| number.clone());
            if first != number {
                return Err(format!("{} leads to another file", path.display()));
            }
        }
        Ok(())
    }

    fn accept(&mut self, dir: &Path) {
        let (lines, _) = lines_of(dir).unwrap();
        self.base = self.match_of(NOW, &lines).unwrap();
        self.now = self.base.clone();
        self.log = Log::new();
    }

    fn settle(&mut self, clock: Clock<'_>) {
        self.log.promise(clock);
    }

    fn promises(&self) -> usize {
        self.log.promised.len()
    }
}
