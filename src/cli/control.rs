//! How `unmount`, `sync` and `status` talk to the process behind a mount: a Unix socket that only this user can
//! reach, one JSON object a line; one request, then any number of reports of progress, then the end.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::events::Event;
use crate::exit::{Exit, Failure, Outcome};
use crate::harden::KeyMemory;
use crate::state_dir::make_private;
use crate::{conflicts, mount_table, past, people, print, scrub};

/// Longest request, and longest line of an answer.
const LINE_MAX: u64 = 1 << 20;
const ANSWER_MAX: u64 = 1 << 28;
/// After so long without a word it is looked whether there is somebody who could say one.
const SILENCE: Duration = Duration::from_secs(2);

/// What is asked of a mount.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// How it goes.
    Status,
    /// Answer when everything written so far is on the storage.
    Sync,
    /// Delete from the storage what nobody needs any more.
    Gc,
    /// Start or stop looking at everything on the storage, and say how that stands.
    Scrub {
        /// Bytes a second from now on.
        rate: Option<u64>,
        /// Stop.
        stop: bool,
    },
    /// Say how many seconds of the past are kept, after setting it to this; 0 is for ever.
    Retention(Option<u64>),
    /// What is pinned.
    Pins,
    /// Pin these inodes, or let go of them.
    Pin {
        /// Their numbers.
        inodes: Vec<u64>,
        /// Which of the two.
        pinned: bool,
    },
    /// End.
    Unmount {
        /// Leave what is pending in the journal.
        now: bool,
        /// Detach even if it is in use.
        lazy: bool,
    },
    /// Something about what was.
    Past(past::Request),
    /// Something about conflict copies.
    Conflicts(conflicts::Request),
    /// Something about people and devices.
    People(people::Request),
}

/// What is not on the storage yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// Bytes of contents.
    pub bytes: u64,
    /// Changes of files and directories.
    pub operations: u64,
}

impl Pending {
    /// Whether everything is on the storage.
    pub(crate) fn is_nothing(&self) -> bool {
        self.bytes == 0 && self.operations == 0
    }
}

/// How much of what is not on the storage finds room on this machine. With `--json` these names are a stable interface: fields are added,
/// never renamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Room {
    /// Bytes that the journal takes.
    pub journal_bytes: u64,
    /// Bytes from which on new contents wait.
    pub journal_limit: u64,
    /// Changes of files and directories that may wait for the storage.
    pub operations_limit: u64,
    /// Calls of programs, and of the kernel for them, that wait for room now.
    pub waiting: u64,
}

/// What `gc` did. With `--json` these names are a stable interface: fields are added, never renamed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Collected {
    /// The mount point.
    pub mount_point: String,
    /// Segments that were on the storage.
    pub stored_segments: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Segments that were deleted.
    pub freed_segments: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Segments that no file of today names, and that had to stay.
    pub kept_segments: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Objects among the segments that no commit knows. They are never touched.
    pub unknown_objects: u64,
    /// Segments of which little is needed, whose needed blocks were copied together; they are deleted another time.
    pub repacked_segments: u64,
    /// About how many bytes were copied.
    pub repacked_bytes: u64,
    /// What keeps the rest.
    pub held_by: Vec<String>,
}

/// What is kept on this machine. With `--json` these names are a stable interface: fields are added, never renamed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PinReport {
    /// What was pinned, as this mount shows it.
    pub paths: Vec<String>,
    /// Files that are kept, with those below pinned directories.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
    /// Blocks of up to 64 KiB that are not here.
    pub missing_blocks: u64,
    /// Whether these numbers are those of what is pinned now.
    pub looked: bool,
    /// What the last attempt to fetch something met, if it failed.
    pub error: Option<String>,
}

impl PinReport {
    /// Whether all of it can be read without the storage.
    pub(crate) fn is_here(&self) -> bool {
        self.looked && self.missing_blocks == 0
    }
}

/// What `status` shows. With `--json` these names are a stable interface: fields are added, never renamed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The mount point.
    pub mount_point: String,
    /// Address of the vault, without secrets.
    pub vault: String,
    /// Its id.
    pub vault_id: String,
    /// The process behind the mount.
    pub pid: u32,
    /// Seconds since it was mounted.
    pub uptime_seconds: u64,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Whether it was begun read-only, which no remount changes.
    #[serde(default)]
    pub reader: bool,
    /// Whether the last exchange with the storage worked; `None` before the first.
    pub online: Option<bool>,
    /// What is not on the storage yet.
    pub pending: Pending,
    /// Room for it.
    #[serde(default)]
    pub room: Room,
    /// Bytes in the encrypted cache on the local disk.
    pub cache_bytes: u64,
    /// Bytes of contents fetched from the storage since it was mounted.
    pub(crate) fetched_bytes: u64,
    /// Bytes that the process holds in memory.
    pub memory_bytes: u64,
    /// How the keys in memory are kept from the swap.
    pub key_memory: KeyMemory,
    /// One for each device that wrote.
    pub lanes: Vec<LaneStatus>,
    /// To compare with another device: equal codes have seen the same.
    pub heads_code: String,
    /// What went wrong last, newest first.
    pub errors: Vec<String>,
    /// Rollbacks of the storage that were accepted on this machine, oldest first.
    #[serde(default)]
    pub rollbacks: Vec<String>,
    /// What was found on this machine, by this mount or an earlier one, the newest last.
    #[serde(default)]
    pub(crate) events: Vec<Event>,
    /// What is kept on this machine.
    #[serde(default)]
    pub pinned: PinReport,
    /// How many conflict copies there are in the vault.
    #[serde(default)]
    pub conflicts: u64,
    /// How the scrub stands.
    #[serde(default)]
    pub(crate) scrub: scrub::Report,
}

/// One device's lane as this mount has seen it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaneStatus {
    /// The lane.
    pub lane: String,
    /// The device that writes it.
    pub device: String,
    /// Its newest commit.
    pub commit: u64,
    /// When that was published.
    pub time: String,
    /// Whether it is this device's.
    pub own: bool,
}

/// One line of the answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// Still at it.
    Progress(Pending),
    /// The end of `Status`.
    Status(Box<Status>),
    /// The end of `Retention`.
    Retention(u64),
    /// The end of `Scrub`.
    Scrub(Box<scrub::Report>),
    /// The end of `Gc`.
    Collected(Box<Collected>),
    /// The end of `Past`.
    Past(past::Answer),
    /// The end of `Conflicts`.
    Conflicts(conflicts::Answer),
    /// The end of `People`.
    People(people::Answer),
    /// The end of `Pins` and `Pin`.
    Pins(Box<PinReport>),
    /// The end of `Sync` and `Unmount`, with what is left in the journal.
    Done(Pending),
    /// The end, for a reason.
    Failed(Failure),
}

/// What a mount can do for its control socket.
pub(crate) trait Served: Send + Sync + 'static {
    /// How it goes.
    fn status(&self) -> Status;

    /// Returns when everything written before is on the storage.
    ///
    /// # Errors
    /// Where the storage refuses.
    fn sync(&self, progress: &mut (dyn FnMut(Pending) + Send)) -> Outcome<Pending>;

    /// Deletes from the storage what nobody needs any more.
    ///
    /// # Errors
    /// Where the storage refuses, and of a read-only mount.
    fn collect(&self) -> Outcome<Collected>;

    /// Starts or stops the scrub.
    ///
    /// # Errors
    /// A state directory that cannot be written.
    fn scrub(&self, rate: Option<u64>, stop: bool) -> Outcome<scrub::Report>;

    /// How many seconds of the past are kept, after setting that; 0 is for ever.
    ///
    /// # Errors
    /// Where the storage refuses, and of a read-only mount.
    fn retention(&self, set: Option<u64>) -> Outcome<u64>;

    /// What is pinned.
    fn pins(&self) -> PinReport;

    /// Pins inodes or lets go of them.
    ///
    /// # Errors
    /// `Absent` for what is not there or not pinned, `Usage` where pinning has no use.
    fn pin(&self, inodes: &[u64], pinned: bool) -> Outcome<PinReport>;

    /// Ends the mount; returns what is left in the journal.
    ///
    /// # Errors
    /// `Busy` where it is in use.
    fn unmount(
        &self,
        now: bool,
        lazy: bool,
        progress: &mut (dyn FnMut(Pending) + Send),
    ) -> Outcome<Pending>;

    /// Answers what is asked about the past.
    ///
    /// # Errors
    /// What is not there or cannot be told, and a storage that cannot be reached.
    fn past(&self, request: &past::Request) -> Outcome<past::Answer>;

    /// Lists conflict copies, or chooses.
    ///
    /// # Errors
    /// What is not there or cannot be chosen now.
    fn conflicts(&self, request: &conflicts::Request) -> Outcome<conflicts::Answer>;

    /// Answers about people and devices, or changes who may do what.
    ///
    /// # Errors
    /// Who is no member, who may not, and a storage that cannot be reached.
    fn people(&self, request: &people::Request) -> Outcome<people::Answer>;

    /// The answer to `unmount` was sent.
    fn answered(&self);
}

/// Where sockets may lie: short (a socket's path has at most 107 bytes), private, and the same in every session of a user. The second
/// place is for a mount that was made before its user logged in, as by a unit of the system.
fn socket_places() -> [PathBuf; 2] {
    let uid = rustix::process::geteuid();
    let run = match uid.is_root() {
        true => PathBuf::from("/run"),
        false => PathBuf::from(format!("/run/user/{}", uid.as_raw())),
    };
    let other = PathBuf::from(format!("/tmp/skrin-{}", uid.as_raw()));
    [run.join("skrin"), other]
}

/// Where a new one is made.
///
/// # Errors
/// Where no such directory can be made.
fn socket_dir() -> Outcome<PathBuf> {
    let [usual, other] = socket_places();
    let dir = match usual.parent().is_some_and(Path::is_dir) {
        true => usual,
        false => other,
    };
    make_private(&dir)?;
    Ok(dir)
}

/// Where to look for them: what nobody else may write to, as anybody may make a directory in /tmp.
fn socket_dirs() -> impl Iterator<Item = PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    socket_places().into_iter().filter(move |dir| {
        let meta = std::fs::symlink_metadata(dir);
        meta.is_ok_and(|meta| meta.is_dir() && meta.uid() == own && meta.mode() & 0o022 == 0)
    })
}

fn socket_name(mount_point: &Path) -> String {
    let name = skrin_crypto::hash(mount_point.as_os_str().as_bytes()).to_string();
    format!("{}.sock", name.get(..32).unwrap_or(&name))
}

/// Which file lies at a path.
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// The listening end; its socket is removed when dropped.
pub(crate) struct Server {
    path: PathBuf,
    file: (u64, u64),
}

impl Server {
    /// Starts to answer for the mount at `mount_point`, on a thread of its own.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub(crate) fn start(mount_point: &Path, served: Arc<dyn Served>) -> Outcome<Self> {
        Self::start_in(&socket_dir()?, mount_point, served)
    }

    fn start_in(dir: &Path, mount_point: &Path, served: Arc<dyn Served>) -> Outcome<Self> {
        let path = dir.join(socket_name(mount_point));
        // What lies there belonged to a process that was killed: two mounts never share a mount point.
        let _ = std::fs::remove_file(&path);
        let fail = |e: std::io::Error| Failure::io(&path, "cannot make the control socket", &e);
        let listener = UnixListener::bind(&path).map_err(fail)?;
        let file = identity(&path).map_err(fail)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                let answer = move || answer(&stream, &*served);
                let _ = std::thread::Builder::new()
                    .name("control".into())
                    .spawn(answer);
            }
        };
        std::thread::Builder::new()
            .name("control-accept".into())
            .spawn(accept)
            .map_err(fail)?;
        Ok(Self { path, file })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Another mount at the same directory may have put its own there meanwhile.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn answer(stream: &UnixStream, served: &dyn Served) {
    let request: Option<Request> = read_line(&mut BufReader::new(stream), LINE_MAX);
    let mut progress = |pending| send(stream, &Answer::Progress(pending));
    let unmounts = matches!(request, Some(Request::Unmount { .. }));
    let end = match request {
        None => return,
        Some(Request::Status) => Answer::Status(Box::new(served.status())),
        Some(Request::Pins) => Answer::Pins(Box::new(served.pins())),
        Some(Request::Pin { inodes, pinned }) => match served.pin(&inodes, pinned) {
            Ok(report) => Answer::Pins(Box::new(report)),
            Err(failure) => Answer::Failed(failure),
        },
        Some(Request::Sync) => ended(served.sync(&mut progress)),
        Some(Request::Retention(set)) => match served.retention(set) {
            Ok(seconds) => Answer::Retention(seconds),
            Err(failure) => Answer::Failed(failure),
        },
        Some(Request::Scrub { rate, stop }) => match served.scrub(rate, stop) {
            Ok(report) => Answer::Scrub(Box::new(report)),
            Err(failure) => Answer::Failed(failure),
        },
        Some(Request::Gc) => match served.collect() {
            Ok(collected) => Answer::Collected(Box::new(collected)),
            Err(failure) => Answer::Failed(failure),
        },
        Some(Request::Past(request)) => match served.past(&request) {
            Ok(answer) => Answer::Past(answer),
            Err(failure) => Answer::Failed(failure),
        },
        Some(Request::Conflicts(request)) => match served.conflicts(&request) {
            Ok(answer) => Answer::Conflicts(answer),
            Err(failure) => Answer::Failed(failure),
        },
        Some(Request::People(request)) => match served.people(&request) {
            Ok(answer) => Answer::People(answer),
            Err(failure) => Answer::Failed(failure),
        },
        Some(Request::Unmount { now, lazy }) => ended(served.unmount(now, lazy, &mut progress)),
    };
    send(stream, &end);
    if unmounts {
        served.answered();
    }
}

fn ended(outcome: Outcome<Pending>) -> Answer {
    match outcome {
        Ok(left) => Answer::Done(left),
        Err(failure) => Answer::Failed(failure),
    }
}

/// Who does not read any more is no reason to stop.
fn send(mut stream: &UnixStream, line: &impl Serialize) {
    if let Ok(mut text) = serde_json::to_vec(line) {
        text.push(b'\n');
        let _ = stream.write_all(&text);
    }
}

fn read_line<T: for<'de> Deserialize<'de>>(from: &mut impl BufRead, max: u64) -> Option<T> {
    let mut line = Vec::new();
    from.take(max).read_until(b'\n', &mut line).ok()?;
    serde_json::from_slice(&line).ok()
}

/// The next line of an answer, however long it takes; `None` at its end.
///
/// # Errors
/// `Busy` where the process is stopped: nobody knows when it goes on.
fn read_answer(stream: &UnixStream, from: &mut BufReader<&UnixStream>) -> Outcome<Option<Answer>> {
    let mut line = Vec::new();
    loop {
        let room = ANSWER_MAX.saturating_sub(line.len() as u64);
        match from.take(room).read_until(b'\n', &mut line) {
            Ok(_) => return Ok(serde_json::from_slice(&line).ok()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if let Some(pid) = stopped_peer(stream) {
                    return Err(stopped(pid));
                }
            }
            Err(_) => return Ok(None),
        }
    }
}

/// The process at the other end.
#[cfg(target_os = "linux")]
fn peer(stream: &UnixStream) -> Option<i32> {
    let peer = rustix::net::sockopt::socket_peercred(stream).ok()?;
    Some(peer.pid.as_raw_pid())
}

#[cfg(not(target_os = "linux"))]
fn peer(_: &UnixStream) -> Option<i32> {
    None
}

/// The same, if it is stopped.
#[cfg(target_os = "linux")]
fn stopped_peer(stream: &UnixStream) -> Option<i32> {
    let pid = peer(stream)?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is the process's own choice.
    let (_, state) = stat.rsplit_once(") ")?;
    state.starts_with('T').then_some(pid)
}

#[cfg(not(target_os = "linux"))]
fn stopped_peer(_: &UnixStream) -> Option<i32> {
    None
}

fn stopped(pid: i32) -> Failure {
    let what = format!("the process behind the mount, {pid}, is stopped and answers nobody");
    Failure::new(Exit::Busy, what).remedy(format!(
        "`kill -CONT {pid}` lets it go on; after `kill -KILL {pid}`, `skrin unmount` lets go of the directory, and what was not uploaded is in the journal"
    ))
}

/// The process behind the mount at `mount_point`, if it listens.
fn connect(mount_point: &Path) -> Option<UnixStream> {
    let name = socket_name(mount_point);
    socket_dirs().find_map(|dir| UnixStream::connect(dir.join(&name)).ok())
}

/// Whether a mount that is in the mount table is that of the process `pid`; also where nobody can tell.
pub(crate) fn has_mount(pid: u32) -> bool {
    let Ok(lines) = mount_table::mounts() else {
        return true;
    };
    let ours = lines.iter().filter(|line| line.is_ours());
    let mut there = ours.filter_map(|line| connect(&line.point));
    there.any(|stream| peer(&stream).is_none_or(|peer| u32::try_from(peer) == Ok(pid)))
}

/// Asks the mount at `mount_point`. `None`: nobody answers there.
///
/// # Errors
/// What the mount says, `Busy` where its process is stopped, and `Other` where it ends in the middle.
pub(crate) fn ask(
    mount_point: &Path,
    request: &Request,
    progress: &mut dyn FnMut(Pending),
) -> Outcome<Option<Answer>> {
    let Some(stream) = connect(mount_point) else {
        return Ok(None);
    };
    ask_on(&stream, request, progress).map(Some)
}

fn ask_on(
    stream: &UnixStream,
    request: &Request,
    progress: &mut dyn FnMut(Pending),
) -> Outcome<Answer> {
    // What is sent to it would be done when it goes on, though we said that it was not.
    if let Some(pid) = stopped_peer(stream) {
        return Err(stopped(pid));
    }
    send(stream, request);
    stream
        .set_read_timeout(Some(SILENCE))
        .map_err(|e| Failure::io(Path::new("control socket"), "cannot be set up", &e))?;
    let mut reader = BufReader::new(stream);
    loop {
        match read_answer(stream, &mut reader)? {
            Some(Answer::Progress(pending)) => progress(pending),
            Some(Answer::Failed(failure)) => return Err(failure),
            Some(end) => return Ok(end),
            None => {
                return Err(Failure::new(
                    Exit::Other,
                    "the process behind the mount ended in the middle of the answer",
                )
                .remedy("what it had not uploaded is in the journal; mount again to go on"));
            }
        }
    }
}

/// The status of every mount of this user.
///
/// # Errors
/// Where a directory of sockets cannot be read.
pub(crate) fn all() -> Outcome<Vec<Status>> {
    let mut found = Vec::new();
    for dir in socket_dirs() {
        found.extend(all_in(&dir)?);
    }
    found.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    Ok(found)
}

fn all_in(dir: &Path) -> Outcome<Vec<Status>> {
    let entries =
        std::fs::read_dir(dir).map_err(|e| Failure::io(dir, "cannot look for mounts", &e))?;
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        // One that refuses may be that of a mount which is about to listen: the next mount there removes it.
        let Ok(stream) = UnixStream::connect(&path) else {
            continue;
        };
        match ask_on(&stream, &Request::Status, &mut |_| {}) {
            Ok(Answer::Status(status)) => found.push(*status),
            Err(failure) if failure.exit == Exit::Busy => print::failure(&failure),
            // It is just ending.
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Served for Fake {
        fn status(&self) -> Status {
            Status {
                mount_point: "/m".into(),
                vault: "/v".into(),
                vault_id: "00".into(),
                pid: 1,
                uptime_seconds: 2,
                read_only: false,
                reader: false,
                online: None,
                pending: Pending::default(),
                room: Room {
                    journal_bytes: 5,
                    waiting: 3,
                    ..Room::default()
                },
                cache_bytes: 0,
                fetched_bytes: 0,
                memory_bytes: 0,
                key_memory: KeyMemory::NoSwap,
                lanes: Vec::new(),
                heads_code: String::new(),
                errors: Vec::new(),
                rollbacks: Vec::new(),
                events: Vec::new(),
                pinned: PinReport::default(),
                conflicts: 0,
                scrub: scrub::Report::default(),
            }
        }
        fn scrub(&self, _: Option<u64>, _: bool) -> Outcome<scrub::Report> {
            Ok(scrub::Report::default())
        }
        fn pins(&self) -> PinReport {
            PinReport::default()
        }
        fn pin(&self, _: &[u64], _: bool) -> Outcome<PinReport> {
            Err(Failure::new(Exit::Absent, "not there"))
        }
        fn sync(&self, progress: &mut (dyn FnMut(Pending) + Send)) -> Outcome<Pending> {
            progress(Pending {
                bytes: 5,
                operations: 1,
            });
            Ok(Pending::default())
        }
        fn collect(&self) -> Outcome<Collected> {
            Ok(Collected::default())
        }
        fn retention(&self, set: Option<u64>) -> Outcome<u64> {
            Ok(set.unwrap_or(7))
        }
        fn answered(&self) {}
        fn past(&self, _: &past::Request) -> Outcome<past::Answer> {
            Err(Failure::new(Exit::Absent, "nothing was"))
        }
        fn conflicts(&self, _: &conflicts::Request) -> Outcome<conflicts::Answer> {
            Err(Failure::new(Exit::Absent, "no conflict"))
        }
        fn people(&self, _: &people::Request) -> Outcome<people::Answer> {
            Err(Failure::new(Exit::Absent, "nobody"))
        }
        fn unmount(
            &self,
            _: bool,
            _: bool,
            _: &mut (dyn FnMut(Pending) + Send),
        ) -> Outcome<Pending> {
            Err(Failure::new(Exit::Busy, "in use"))
        }
    }

    #[test]
    fn requests_reach_the_mount_and_answers_come_back() {
        let point = tempfile::tempdir().unwrap();
        let server = Server::start(point.path(), Arc::new(Fake)).unwrap();
        let mut seen = Vec::new();
        let done = ask(point.path(), &Request::Sync, &mut |p| seen.push(p.bytes)).unwrap();
        assert!(matches!(done, Some(Answer::Done(left)) if left.is_nothing()));
        assert_eq!(seen, [5]);
        let failure = ask(
            point.path(),
            &Request::Unmount {
                now: true,
                lazy: false,
            },
            &mut |_| {},
        );
        assert_eq!(failure.unwrap_err().exit, Exit::Busy);
        drop(server);
        assert!(!answers(point.path()));
    }

    fn answers(point: &Path) -> bool {
        let answer = ask(point, &Request::Status, &mut |_| {}).unwrap();
        matches!(answer, Some(Answer::Status(_)))
    }

    #[test]
    fn a_status_says_how_much_room_there_is_also_that_of_an_older_mount() {
        let status = serde_json::to_value(Fake.status()).unwrap();
        assert_eq!(
            status["room"],
            serde_json::json!({
                "journal_bytes": 5,
                "journal_limit": 0,
                "operations_limit": 0,
                "waiting": 3,
            })
        );
        let mut older = status;
        older.as_object_mut().unwrap().remove("room");
        let older: Status = serde_json::from_value(older).unwrap();
        assert_eq!(older.room, Room::default());
    }

    #[test]
    fn a_server_that_ends_late_leaves_the_socket_of_the_next_one() {
        let point = tempfile::tempdir().unwrap();
        let first = Server::start(point.path(), Arc::new(Fake)).unwrap();
        let second = Server::start(point.path(), Arc::new(Fake)).unwrap();
        drop(first);
        assert!(answers(point.path()));
        drop(second);
        assert!(!answers(point.path()));
    }

    #[test]
    fn a_mount_that_was_made_before_its_user_logged_in_is_found() {
        let [_, other] = socket_places();
        make_private(&other).unwrap();
        let point = tempfile::tempdir().unwrap();
        let _server = Server::start_in(&other, point.path(), Arc::new(Fake)).unwrap();
        assert!(answers(point.path()));
    }

    #[test]
    fn who_looks_for_mounts_leaves_a_socket_on_which_nobody_listens_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(all_in(dir.path()).unwrap().is_empty());
        assert!(path.exists());
    }
}
