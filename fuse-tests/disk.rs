//! Disks that remember each write and each flush, so that what a power cut at any moment would leave can be made again. The kernel's ext4 lies on a
//! loop device, that on a file of a small FUSE file system here: what the device is asked to flush arrives as `fsync` of the file.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};
use tempfile::TempDir;

use crate::harness::{Dice, Run, command, wait_for};

/// A write may be torn between any two of these.
const PAGE: usize = 4096;
/// Where everything lies: `fsync` of a real disk would take longer than all else.
const MEMORY: &str = "/dev/shm";

/// What reached a disk.
enum Event {
    Write {
        disk: usize,
        at: u64,
        bytes: Vec<u8>,
    },
    Flush {
        disk: usize,
    },
}

/// What the disks hold now, and all that came to be so.
struct Recorder {
    images: Vec<File>,
    size: u64,
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let root = ino == INodeNo::ROOT;
        let then = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino,
            size: if root { 0 } else { self.size },
            blocks: self.size / 512,
            atime: then,
            mtime: then,
            ctime: then,
            crtime: then,
            kind: if root {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: PAGE as u32,
        }
    }

    fn disk(ino: INodeNo) -> usize {
        (u64::from(ino) - 2) as usize
    }
}

/// The files `0`, `1`, ...: a disk each.
struct Images(Arc<Recorder>);

const LONG: Duration = Duration::from_secs(3600);

impl Filesystem for Images {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.parse::<usize>().ok());
        match number.filter(|number| *number < self.0.images.len()) {
            Some(number) => {
                let attr = self.0.attr(INodeNo(number as u64 + 2));
                reply.entry(&LONG, &attr, Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&LONG, &self.0.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.0.size.saturating_sub(offset);
        let mut bytes = vec![0; left.min(u64::from(size)) as usize];
        match self.0.images[Recorder::disk(ino)].read_exact_at(&mut bytes, offset) {
            Ok(()) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let disk = Recorder::disk(ino);
        let mut events = self.0.events.lock().unwrap();
        if self.0.images[disk].write_all_at(data, offset).is_err() {
            return reply.error(Errno::EIO);
        }
        events.push(Event::Write {
            disk,
            at: offset,
            bytes: data.to_vec(),
        });
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let disk = Recorder::disk(ino);
        self.0.events.lock().unwrap().push(Event::Flush { disk });
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// Some disks of one size, each with an ext4 that is mounted.
pub(crate) struct Disks {
    recorder: Arc<Recorder>,
    session: Option<BackgroundSession>,
    mounted: Vec<Mounted>,
    dir: TempDir,
}

impl Disks {
    /// Makes so many, of so many bytes.
    pub(crate) fn new(count: usize, size: u64) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("skrin-disk-")
            .tempdir_in(MEMORY)
            .unwrap();
        let served = dir.path().join("served");
        std::fs::create_dir(&served).unwrap();
        let image = |number: usize| sparse(&dir.path().join(format!("now-{number}")), size);
        let recorder = Arc::new(Recorder {
            images: (0..count).map(image).collect(),
            size,
            events: Mutex::default(),
        });
        let mut config = Config::default();
        // By such a name tests that keep a copy of the mount table let go of it.
        config.mount_options = vec![MountOption::FSName("skrin:disk".to_owned())];
        let session = Session::new(Images(Arc::clone(&recorder)), &served, &config).unwrap();
        let mut disks = Self {
            recorder,
            session: Some(session.spawn().unwrap()),
            mounted: Vec::new(),
            dir,
        };
        for number in 0..count {
            let image = served.join(number.to_string());
            // Journal and tables are written now, and not behind the back of the test.
            command("mkfs.ext4")
                .args([
                    "-q",
                    "-F",
                    "-E",
                    "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
                ])
                .arg(&image)
                .output_ok();
            let at = disks.dir.path().join(format!("disk-{number}"));
            disks.mounted.push(Mounted::new(&image, at));
        }
        disks
    }

    /// Where a disk is mounted.
    pub(crate) fn at(&self, disk: usize) -> &Path {
        &self.mounted[disk].at
    }

    /// How much has reached the disks.
    pub(crate) fn time(&self) -> u64 {
        self.recorder.events.lock().unwrap().len() as u64
    }

    /// Unmounts them and hands out what was recorded.
    pub(crate) fn stop(mut self) -> Recorded {
        self.mounted.clear();
        self.unserve();
        let dir = std::mem::replace(&mut self.dir, TempDir::new_in(MEMORY).unwrap());
        let events = std::mem::take(&mut *self.recorder.events.lock().unwrap());
        let disks = self.recorder.images.len();
        let durable = |disk: usize| {
            std::fs::remove_file(dir.path().join(format!("now-{disk}"))).unwrap();
            sparse(
                &dir.path().join(format!("durable-{disk}")),
                self.recorder.size,
            )
        };
        Recorded {
            durable: (0..disks).map(durable).collect(),
            pending: (0..disks).map(|_| Vec::new()).collect(),
            events,
            next: 0,
            cuts: 0,
            dir,
        }
    }

    /// A loop device lets go of its file a moment after it was unmounted.
    fn unserve(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let served = self.dir.path().join("served");
        wait_for("the loop devices to let go", || {
            command("umount").arg(&served).finish().status.success()
        });
        session.join().unwrap();
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.mounted.clear();
        self.unserve();
    }
}

/// All that reached some disks, to be cut off anywhere.
pub(crate) struct Recorded {
    events: Vec<Event>,
    /// What was flushed before `next`.
    durable: Vec<File>,
    /// Writes before `next` that were not.
    pending: Vec<Vec<usize>>,
    next: usize,
    /// How often the power was cut.
    cuts: usize,
    dir: TempDir,
}

impl Recorded {
    /// The times right behind each flush.
    pub(crate) fn barriers(&self) -> Vec<u64> {
        let events = self.events.iter().zip(1u64..);
        events
            .filter(|(event, _)| matches!(event, Event::Flush { .. }))
            .map(|(_, time)| time)
            .collect()
    }

    /// How much reached the disks in all.
    pub(crate) fn end(&self) -> u64 {
        self.events.len() as u64
    }

    /// Cuts the power at a time that is not before the last one, and mounts what is left: what was flushed, and of the rest what `keeps` says of a disk, page by page.
    pub(crate) fn cut(&mut self, time: u64, mut keeps: impl FnMut(usize) -> bool) -> Vec<Mounted> {
        while self.next < time as usize {
            match &self.events[self.next] {
                Event::Write { disk, .. } => self.pending[*disk].push(self.next),
                Event::Flush { disk } => {
                    for write in std::mem::take(&mut self.pending[*disk]) {
                        let (at, bytes) = self.write(write);
                        self.durable[*disk].write_all_at(bytes, at).unwrap();
                    }
                }
            }
            self.next += 1;
        }
        let cut = self.cuts;
        self.cuts += 1;
        let mut mounted = Vec::new();
        for disk in 0..self.durable.len() {
            let image = |cut: usize| self.dir.path().join(format!("cut-{cut}-{disk}"));
            // Under a name of its own: a loop device lets go of its file a moment after it was unmounted.
            if let Some(before) = cut.checked_sub(1) {
                std::fs::remove_file(image(before)).unwrap();
            }
            let image = image(cut);
            command("cp")
                .arg("--sparse=always")
                .arg(self.dir.path().join(format!("durable-{disk}")))
                .arg(&image)
                .output_ok();
            let file = File::options().write(true).open(&image).unwrap();
            for write in &self.pending[disk] {
                let (at, bytes) = self.write(*write);
                for (page, bytes) in bytes.chunks(PAGE).enumerate() {
                    if keeps(disk) {
                        file.write_all_at(bytes, at + (page * PAGE) as u64).unwrap();
                    }
                }
            }
            let at = self.dir.path().join(format!("mounted-{disk}"));
            if let Some(evidence) = std::env::var_os("SKRIN_EVIDENCE") {
                let before = Path::new(&evidence).join(format!("skrin-cut-{disk}"));
                command("cp")
                    .arg("--sparse=always")
                    .args([&image, &before])
                    .output_ok();
            }
            mounted.push(Mounted::new(&image, at));
        }
        mounted
    }

    fn write(&self, event: usize) -> (u64, &[u8]) {
        match &self.events[event] {
            Event::Write { at, bytes, .. } => (*at, bytes),
            Event::Flush { .. } => (0, &[]),
        }
    }
}

fn sparse(path: &Path, size: u64) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path);
    let file = file.unwrap();
    file.set_len(size).unwrap();
    file
}

/// A file system in an image, mounted until dropped.
pub(crate) struct Mounted {
    pub at: PathBuf,
}

impl Mounted {
    fn new(image: &Path, at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        command("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(&at)
            .output_ok();
        Self { at }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let gone = command("umount").arg(&self.at).finish();
        if !gone.status.success() {
            command("umount").arg("-l").arg(&self.at).finish();
        }
        assert!(
            std::thread::panicking() || gone.status.success(),
            "{gone:?}"
        );
    }
}

/// Decides of each page that was not flushed whether the disk keeps it: in one cut most, in another one few.
pub(crate) fn some(mut dice: Dice) -> impl FnMut() -> bool {
    let kept = dice.roll() % 9;
    move || dice.roll() % 8 < kept
}
