//! Four devices that write to the same files and directories at once, on a WebDAV server that ignores conditional requests, for a while all online, then all offline, in turns.
//! Each line that was written says who wrote it. After each while all have the same tree, and every line is in it, unless a program that had read it took it out.
//!
//! Ten minutes: `SKRIN_FOUR_SECONDS=600 SKRIN_EVIDENCE=/tmp SKRIN_MOUNT_SECONDS=7200 cargo test --test blackbox four:: -- --nocapture`.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use skrin_servers::{Kind, Server};

use crate::harness::{Dice, Mount, Run, Vault, command, files_below};
use crate::relay::Relay;
use crate::rsync::{assert_same, compare};
use crate::storages::On;

/// Seconds of writing in the gate.
const SECONDS: u64 = 24;
/// So long one phase lasts, at most.
const PHASE: u64 = 25;
/// So long may the slowest machine take until all agree.
const PATIENCE: Duration = Duration::from_secs(300);
const NAMES: [&str; 4] = ["anna", "bert", "cleo", "dora"];
/// Directories of all.
const SHARED: [&str; 3] = ["plans", "notes", "lists"];
/// A file with more lines is made shorter.
const LINES: usize = 40;

/// Every line ever written, kept by the test itself.
#[derive(Default)]
struct Book {
    /// Somebody began to write it.
    begun: BTreeSet<String>,
    /// Somebody was told that it is written.
    written: BTreeSet<String>,
    /// A program that had read it took it out.
    removed: BTreeSet<String>,
}

/// One program on one device.
struct Worker<'a> {
    name: &'static str,
    root: PathBuf,
    dice: Dice,
    count: u64,
    book: &'a Mutex<Book>,
    done: [usize; 12],
}

/// What happens because others are at work too: the program gives up what it wanted to do. `ESTALE` where a file became another object twice
/// in a row.
fn is_usual(error: &io::Error) -> bool {
    use ErrorKind::{
        AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory, NotFound,
        StaleNetworkFileHandle, TimedOut,
    };
    matches!(
        error.kind(),
        NotFound
            | AlreadyExists
            | DirectoryNotEmpty
            | NotADirectory
            | IsADirectory
            | StaleNetworkFileHandle
            | TimedOut
    )
}

/// The lines of a file; whole ones only, and at least one.
fn lines(text: &str, path: &Path) -> Vec<String> {
    assert!(
        text.ends_with('\n'),
        "{}: {text:?} is half a save",
        path.display()
    );
    text.lines().map(str::to_owned).collect()
}

fn text(lines: &[String]) -> String {
    lines
        .iter()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect()
}

impl Worker<'_> {
    fn own(&self) -> PathBuf {
        self.root.join(format!("of {}", self.name))
    }

    /// A line that nobody ever wrote.
    fn line(&mut self) -> String {
        self.count += 1;
        let filler = "x".repeat(self.dice.roll() as usize % 200);
        let line = format!("{} {} {filler}", self.name, self.count);
        self.book.lock().unwrap().begun.insert(line.clone());
        line
    }

    fn wrote(&self, line: String) {
        self.book.lock().unwrap().written.insert(line);
    }

    fn removes<'l>(&self, lines: impl IntoIterator<Item = &'l String>) {
        let mut book = self.book.lock().unwrap();
        book.removed.extend(lines.into_iter().cloned());
    }

    /// A directory of all, or one below it.
    fn dir(&mut self) -> io::Result<PathBuf> {
        let dir = self
            .root
            .join(SHARED[self.dice.roll() as usize % SHARED.len()]);
        if self.dice.roll().is_multiple_of(2) {
            return Ok(dir);
        }
        let below = entries(&dir)?.into_iter().filter(|path| path.is_dir());
        let below: Vec<PathBuf> = below.collect();
        match below.is_empty() {
            true => Ok(dir),
            false => Ok(below[self.dice.roll() as usize % below.len()].clone()),
        }
    }

    fn new_name(&mut self) -> io::Result<PathBuf> {
        let name = format!("note-{}", self.dice.roll() % 8);
        Ok(self.dir()?.join(name))
    }

    /// Some file that all may write.
    fn file(&mut self) -> io::Result<PathBuf> {
        let dir = self.dir()?;
        let files: Vec<PathBuf> = entries(&dir)?
            .into_iter()
            .filter(|path| path.is_file())
            .collect();
        match files.is_empty() {
            true => Err(ErrorKind::NotFound.into()),
            false => Ok(files[self.dice.roll() as usize % files.len()].clone()),
        }
    }

    /// A new state of a document: without some of its lines, with a new one.
    fn edited(&mut self, old: &[String]) -> (Vec<String>, Vec<String>, String) {
        let mut new = old.to_vec();
        let most = if new.len() > LINES {
            new.len() / 2
        } else {
            usize::from(new.len() > 3)
        };
        let gone: Vec<String> = (0..most)
            .map(|_| new.remove(self.dice.roll() as usize % new.len()))
            .collect();
        let line = self.line();
        new.insert(self.dice.roll() as usize % (new.len() + 1), line.clone());
        (new, gone, line)
    }

    fn append(&mut self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let line = self.line();
        file.write_all(format!("{line}\n").as_bytes())?;
        if self.dice.roll().is_multiple_of(2) {
            file.sync_all()?;
        }
        drop(file);
        self.wrote(line);
        Ok(())
    }

    fn create(&mut self) -> io::Result<()> {
        let path = self.new_name()?;
        let mut file = File::create_new(&path)?;
        let line = self.line();
        file.write_all(format!("{line}\n").as_bytes())?;
        drop(file);
        self.wrote(line);
        Ok(())
    }

    /// Writes a document anew where it lies.
    fn edit(&mut self) -> io::Result<()> {
        let path = self.file()?;
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut old = String::new();
        file.read_to_string(&mut old)?;
        let (new, gone, line) = self.edited(&lines(&old, &path));
        let new = text(&new);
        self.removes(&gone);
        file.rewind()?;
        if self.dice.roll().is_multiple_of(2) {
            file.set_len(0)?;
        }
        file.write_all(new.as_bytes())?;
        file.set_len(new.len() as u64)?;
        file.sync_all()?;
        drop(file);
        self.wrote(line);
        Ok(())
    }

    /// Writes a document into a new file beside it; the path of that, what it took out, and the new line.
    fn beside(&mut self, path: &Path) -> io::Result<(PathBuf, Vec<String>, String)> {
        let old = lines(&std::fs::read_to_string(path)?, path);
        let (new, gone, line) = self.edited(&old);
        let beside = self.own().join(format!("save-{}", self.count));
        let mut file = File::create_new(&beside)?;
        file.write_all(text(&new).as_bytes())?;
        file.sync_all()?;
        Ok((beside, gone, line))
    }

    /// A save after which the old document is still there, under the name that the new one had: whatever came to it since it was read is not lost.
    fn exchange(&mut self) -> io::Result<()> {
        let path = self.file()?;
        let (beside, _, line) = self.beside(&path)?;
        renameat_with(CWD, &beside, CWD, &path, RenameFlags::EXCHANGE)?;
        self.wrote(line);
        Ok(())
    }

    /// A save by a rename over the document; only offline, where nothing comes to the document after it was read.
    fn replace(&mut self) -> io::Result<()> {
        let path = self.file()?;
        let (beside, gone, line) = self.beside(&path)?;
        self.removes(&gone);
        std::fs::rename(&beside, &path)?;
        self.wrote(line);
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        let (from, to) = (self.file()?, self.new_name()?);
        Ok(renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE)?)
    }

    fn mkdir(&mut self) -> io::Result<()> {
        let dir = SHARED[self.dice.roll() as usize % SHARED.len()];
        let name = format!("part {}", self.dice.roll() % 3);
        std::fs::create_dir(self.root.join(dir).join(name))
    }

    /// Moves a directory with all that is in it.
    fn move_dir(&mut self) -> io::Result<()> {
        let from = self.dir()?;
        let dir = SHARED[self.dice.roll() as usize % SHARED.len()];
        let to = self
            .root
            .join(dir)
            .join(format!("part {}", self.dice.roll() % 3));
        if from.parent() == Some(&self.root) || to.starts_with(&from) {
            return Ok(());
        }
        Ok(renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE)?)
    }

    /// Removes a file; only offline.
    fn remove(&mut self) -> io::Result<()> {
        let path = self.file()?;
        self.remove_file(&path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.removes(&lines(&std::fs::read_to_string(path)?, path));
        std::fs::remove_file(path)
    }

    /// Removes a directory and all that is in it; only offline.
    fn remove_dir(&mut self) -> io::Result<()> {
        let dir = self.dir()?;
        if dir.parent() == Some(&self.root) {
            return Ok(());
        }
        for file in files_below(&dir) {
            self.remove_file(&file)?;
        }
        std::fs::remove_dir_all(dir)
    }

    fn act(&mut self, online: bool) -> io::Result<()> {
        let most = if online { 9 } else { 12 };
        let which = (self.dice.roll() % most) as usize;
        self.done[which] += 1;
        match which {
            0 | 1 => {
                let path = self.file().or_else(|_| self.new_name())?;
                self.append(&path)
            }
            2 => self.append(&self.own().join("log")),
            3 => self.create(),
            4 => self.edit(),
            5 => self.exchange(),
            6 => self.rename(),
            7 => self.mkdir(),
            8 => self.move_dir(),
            9 => self.replace(),
            10 => self.remove(),
            _ => self.remove_dir(),
        }
    }

    fn work(&mut self, online: bool, until: Instant) {
        while Instant::now() < until {
            match self.act(online) {
                Err(error) if !is_usual(&error) => panic!("{}: {error}", self.name),
                _ => std::thread::sleep(Duration::from_millis(self.dice.roll() % 60)),
            }
        }
    }

    /// Removes what its saves left, and the conflict copies that are its share. Nobody else writes meanwhile.
    fn tidy(&mut self, copies: &[PathBuf]) {
        let left = entries(&self.own()).unwrap().into_iter();
        let left = left.filter(|path| path.file_name().unwrap() != "log");
        let copies = copies.iter().map(|copy| self.root.join(copy));
        for path in left.chain(copies) {
            self.remove_file(&path).unwrap();
        }
    }
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// The four devices, each with its own way to the server.
struct Four<'a> {
    vault: &'a Vault,
    server: &'a Server,
    relays: Vec<Relay>,
    mounts: Vec<Mount<'a>>,
}

impl<'a> Four<'a> {
    fn mount(vault: &'a Vault, server: &'a Server) -> Self {
        let relays: Vec<Relay> = NAMES.iter().map(|_| Relay::to(server.port())).collect();
        let mounts = NAMES.iter().zip(&relays);
        let mounts = mounts.map(|(name, relay)| mount(vault, server, relay.port(), name));
        Self {
            vault,
            server,
            mounts: mounts.collect(),
            relays,
        }
    }

    /// Waits until everything is on the storage and all show the same.
    fn agree(&self) {
        let begun = Instant::now();
        loop {
            std::thread::scope(|scope| {
                for mount in &self.mounts {
                    scope.spawn(|| mount.sync());
                }
            });
            let others = self.mounts[1..].iter();
            // It fails where something goes away while it looks.
            let said = |mount: &Mount<'_>| {
                let output = compare(self.mounts[0].path(), mount.path()).finish();
                match output.status.success() {
                    true => String::from_utf8_lossy(&output.stdout).into_owned(),
                    false => String::from_utf8_lossy(&output.stderr).into_owned(),
                }
            };
            let left: Vec<String> = others.map(said).collect();
            if left.iter().all(String::is_empty) {
                return;
            }
            if begun.elapsed() > PATIENCE {
                panic!("they do not agree: {left:?}; {}", self.keep());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Every line is there; the conflict copies.
    fn check(&self, book: &Book) -> Vec<PathBuf> {
        let root = self.mounts[0].path();
        let mut there = BTreeSet::new();
        let mut copies = Vec::new();
        for path in files_below(root) {
            let found = lines(&std::fs::read_to_string(&path).unwrap(), &path);
            let strange = found.iter().find(|line| !book.begun.contains(*line));
            assert!(
                strange.is_none(),
                "{}: {strange:?}; {}",
                path.display(),
                self.keep()
            );
            there.extend(found);
            let below = path.strip_prefix(root).unwrap();
            // What lies in a device's own directory is removed by that device.
            let shared = SHARED.iter().any(|dir| below.starts_with(dir));
            if shared && below.to_string_lossy().contains("(conflict") {
                copies.push(below.to_owned());
            }
        }
        let lost = book
            .written
            .iter()
            .filter(|line| !book.removed.contains(*line) && !there.contains(*line));
        let lost: Vec<&String> = lost.collect();
        assert!(lost.is_empty(), "lost: {lost:?}; {}", self.keep());
        copies
    }

    /// Keeps a copy of all states, of the storage and of one tree below `SKRIN_EVIDENCE`, and says where.
    fn keep(&self) -> String {
        let Some(dir) = std::env::var_os("SKRIN_EVIDENCE") else {
            return "set SKRIN_EVIDENCE to a directory to keep a copy of the state".to_owned();
        };
        let to = Path::new(&dir).join(format!("skrin-four-{}", std::process::id()));
        std::fs::create_dir_all(&to).unwrap();
        for mount in &self.mounts {
            command("cp").arg("-a").arg(mount.path()).arg(&to).finish();
        }
        let data = self.server.data_dir().unwrap();
        for path in [self.vault.path(""), data] {
            command("cp").arg("-axn").arg(path).arg(&to).finish();
        }
        format!("evidence is in {}", to.display())
    }
}

fn mount<'a>(vault: &'a Vault, server: &Server, port: u16, device: &str) -> Mount<'a> {
    let point = vault.point(device);
    let mut mount = vault.skrin(&["mount", &server.vault_url_at(port, "vault"), "--words-file"]);
    mount
        .envs(server.env())
        .arg(vault.words_file())
        .arg("--state-dir")
        .arg(vault.state(device))
        .arg(&point)
        .output_ok();
    Mount::adopt(vault, point)
}

#[test]
fn four_devices_that_write_to_the_same_files_online_and_off_lose_no_line_and_agree() {
    let seconds = std::env::var("SKRIN_FOUR_SECONDS").map_or(SECONDS, |n| n.parse().unwrap());
    let server = Server::start(Kind::Rclone).unwrap();
    let address = server.vault_url("vault");
    let vault = Vault::without_init(On::Local);
    let skrin = |verb: &str| {
        let mut command = vault.skrin(&[verb, &address, "--words-file"]);
        command.arg(vault.words_file()).envs(server.env());
        command
    };
    skrin("init").output_ok();
    let four = Four::mount(&vault, &server);
    let book = Mutex::new(Book::default());
    let mut workers: Vec<Worker<'_>> = NAMES
        .iter()
        .zip(&four.mounts)
        .zip(1..)
        .map(|((name, mount), seed)| Worker {
            name,
            root: mount.path().to_owned(),
            dice: Dice(seed),
            count: 0,
            book: &book,
            done: [0; 12],
        })
        .collect();
    for dir in SHARED {
        std::fs::create_dir(four.mounts[0].join(dir)).unwrap();
    }
    workers
        .iter()
        .for_each(|worker| std::fs::create_dir(worker.own()).unwrap());
    four.agree();
    let phases = seconds.div_ceil(PHASE).max(4);
    let mut conflicts = 0;
    let mut longer = None;
    for phase in 0.. {
        // Four that get little of the machine seldom meet: they go on until they did.
        if phase >= phases {
            let begun = *longer.get_or_insert_with(Instant::now);
            if conflicts > 0 || begun.elapsed() > PATIENCE {
                break;
            }
        }
        let online = phase % 2 == 0;
        if !online {
            four.relays.iter().for_each(Relay::shut);
        }
        let until = Instant::now() + Duration::from_secs(seconds) / phases as u32;
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(move || worker.work(online, until));
            }
        });
        four.relays.iter().for_each(Relay::open);
        four.agree();
        let copies = {
            let book = book.lock().unwrap();
            let copies = four.check(&book);
            conflicts += copies.len();
            println!(
                "phase {phase}: {} lines, {} taken out, {conflicts} conflict copies",
                book.written.len(),
                book.removed.len()
            );
            copies
        };
        for (number, worker) in workers.iter_mut().enumerate() {
            let share = copies.iter().skip(number).step_by(NAMES.len());
            worker.tidy(&share.cloned().collect::<Vec<_>>());
        }
    }
    println!(
        "{:?}",
        workers.iter().map(|worker| worker.done).collect::<Vec<_>>()
    );
    assert!(conflicts > 0, "nobody was ever in anybody's way");
    four.agree();
    four.check(&book.lock().unwrap());
    let fresh = mount(&vault, &server, server.port(), "fresh");
    assert_same(four.mounts[0].path(), fresh.path());
    fresh.unmount();
    drop(workers);
    four.mounts.into_iter().for_each(Mount::unmount);
    skrin("verify").arg("--data").output_ok();
}
