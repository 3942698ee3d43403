//! Vaults and mounts for tests: whatever happens, a mount is gone and its process has ended when its value is dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::storages::{On, Storage};

/// The program under test.
pub(crate) const SKRIN: &str = env!("CARGO_BIN_EXE_skrin");
/// The passphrase of every vault here.
pub(crate) const PASSPHRASE: &str = "seven blue horses 42";
/// After so long a command is killed and its test fails.
const COMMAND_SECONDS: &str = "900";
/// After so long the process behind a mount is killed, so that a test that waits for it fails; `SKRIN_MOUNT_SECONDS` is for long runs by hand.
fn mount_life() -> Duration {
    let seconds = std::env::var("SKRIN_MOUNT_SECONDS");
    Duration::from_secs(seconds.map_or(1200, |seconds| seconds.parse().unwrap()))
}

/// For a shell in a new mount namespace: it lets go of the mounts of other tests, which could not be unmounted else. Not of one at `$0`.
/// One process does, of all: whoever unmounts one meanwhile waits for a moment only.
pub(crate) const LETS_GO: &str =
    "awk '$1 ~ /^skrin:/ || $2 ~ /\\/skrin-disk-/ { print $2 }' /proc/self/mounts |
    grep -Fxv -e \"$0\" | tac | xargs -r -d '\\n' umount -l";

/// A command that ends in bounded time, in an environment that says the same everywhere.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "10", COMMAND_SECONDS, program]);
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

/// Short ways to run a command.
pub(crate) trait Run {
    /// Runs it to its end.
    fn finish(&mut self) -> Output;
    /// Its standard output; the test fails with all that it said where it fails.
    fn output_ok(&mut self) -> String;
    /// Its exit code and standard error.
    fn code(&mut self) -> (i32, String);
}

impl Run for Command {
    fn finish(&mut self) -> Output {
        self.output().unwrap_or_else(|e| panic!("{self:?}: {e}"))
    }

    fn output_ok(&mut self) -> String {
        let output = self.finish();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "{self:?}: {}\n{out}\n{err}",
            output.status
        );
        out.into_owned()
    }

    fn code(&mut self) -> (i32, String) {
        let output = self.finish();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), text)
    }
}

/// A vault that was made, with everything that belongs to it in one temporary directory.
pub(crate) struct Vault {
    pub storage: Storage,
    dir: TempDir,
}

impl Vault {
    /// Makes one.
    pub(crate) fn new(on: On) -> Self {
        let vault = Self::without_init(on);
        vault
            .skrin(&["init", &vault.address(), "--words-file"])
            .arg(vault.words_file())
            .output_ok();
        vault
    }

    /// Makes one in a folder below `dir`.
    pub(crate) fn new_in(dir: &Path) -> Self {
        let mut vault = Self::without_init(On::Local);
        vault.storage = Storage::local_in(dir);
        vault
            .skrin(&["init", &vault.address(), "--words-file"])
            .arg(vault.words_file())
            .output_ok();
        vault
    }

    /// Everything but the vault.
    pub(crate) fn without_init(on: On) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("skrin-test-")
            .tempdir()
            .unwrap();
        std::fs::write(dir.path().join("passphrase"), PASSPHRASE).unwrap();
        Self {
            storage: Storage::new(on),
            dir,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.storage.address()
    }

    /// A path that belongs to this vault's test and not to the vault.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn words_file(&self) -> PathBuf {
        self.path("words")
    }

    /// The state directory of a device.
    pub(crate) fn state(&self, device: &str) -> PathBuf {
        self.path(&format!("state-{device}"))
    }

    /// The program, with the passphrase at hand and the credentials of the storage.
    pub(crate) fn skrin(&self, args: &[&str]) -> Command {
        let mut command = command(SKRIN);
        command
            .args(args)
            .env("SKRIN_PASSPHRASE_FILE", self.path("passphrase"))
            .env("SKRIN_STATE_DIR", self.state("a"))
            .env("HOME", self.dir.path())
            .envs(self.storage.env());
        command
    }

    /// Mounts with the words, which costs no Argon2, as the device `device`.
    pub(crate) fn mount(&self, device: &str) -> Mount<'_> {
        self.mount_with(device, &[])
    }

    pub(crate) fn mount_with(&self, device: &str, options: &[&str]) -> Mount<'_> {
        let point = self.point(device);
        self.mount_command(device, &point, options).output_ok();
        Mount::adopt(self, point)
    }

    /// Makes the mount point of a device.
    pub(crate) fn point(&self, device: &str) -> PathBuf {
        let point = self.path(&format!("mount-{device}"));
        std::fs::create_dir_all(&point).unwrap();
        point
    }

    pub(crate) fn mount_command(&self, device: &str, point: &Path, options: &[&str]) -> Command {
        let mut command = self.skrin(&["mount", &self.address()]);
        command
            .arg(point)
            .arg("--state-dir")
            .arg(self.state(device))
            .arg("--words-file")
            .arg(self.words_file())
            .args(options);
        command
    }

    /// Runs `verify --data` and expects nothing to be found.
    pub(crate) fn verify_clean(&self) {
        self.skrin(&["verify", &self.address(), "--data", "--words-file"])
            .arg(self.words_file())
            .output_ok();
    }
}

/// A mount that answers.
pub(crate) struct Mount<'a> {
    vault: &'a Vault,
    point: PathBuf,
    pid: u32,
    /// Dropping it ends the watchdog.
    _life: Sender<()>,
}

impl<'a> Mount<'a> {
    /// Takes care of what was mounted at `point`.
    pub(crate) fn adopt(vault: &'a Vault, point: PathBuf) -> Self {
        assert!(
            is_mounted(&point),
            "mount said that {} answers",
            point.display()
        );
        let status = vault.skrin(&["status", "--json"]).arg(&point).output_ok();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let pid = status["pid"].as_u64().unwrap() as u32;
        let (life, over) = channel();
        let seconds = mount_life();
        std::thread::spawn(move || {
            if over.recv_timeout(seconds) == Err(RecvTimeoutError::Timeout) {
                kill(pid, "KILL");
            }
        });
        Self {
            vault,
            point,
            pid,
            _life: life,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.point.join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let text = self
            .vault
            .skrin(&["status", "--json"])
            .arg(&self.point)
            .output_ok();
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until everything is on the storage.
    pub(crate) fn sync(&self) {
        self.vault.skrin(&["sync"]).arg(&self.point).output_ok();
    }

    /// Uploads and unmounts, and expects that nothing is left of it.
    pub(crate) fn unmount(self) {
        self.unmount_with(&[]);
    }

    pub(crate) fn unmount_with(self, options: &[&str]) -> String {
        let mut unmount = self.vault.skrin(&["unmount"]);
        let output = unmount.arg(&self.point).args(options).finish();
        let [said, told] = [&output.stdout, &output.stderr].map(|o| String::from_utf8_lossy(o));
        // Another test has a new namespace and has not let go yet (`LETS_GO`). All is uploaded, and the process ends when it has.
        let is_held = output.status.code() == Some(6) && told.contains("another mount namespace");
        assert!(
            output.status.success() || is_held,
            "{unmount:?}: {}\n{said}\n{told}",
            output.status
        );
        assert!(
            !is_mounted(&self.point),
            "unmount left {} mounted",
            self.point.display()
        );
        wait_for("the process behind the mount to end", || {
            !is_alive(self.pid)
        });
        said.into_owned()
    }

    /// kill -9, as the kernel would when memory runs out; then takes the dead mount away.
    pub(crate) fn crash(self) {
        kill(self.pid, "KILL");
        wait_for("the process to be gone", || !is_alive(self.pid));
        detach(&self.point);
        assert!(!is_mounted(&self.point));
    }

    /// The most memory that the process ever had resident, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if is_mounted(&self.point) {
            kill(self.pid, "KILL");
            detach(&self.point);
        }
        let left = is_mounted(&self.point);
        assert!(
            std::thread::panicking() || !left,
            "{} is still mounted",
            self.point.display()
        );
    }
}

/// Whether the mount table shows something there.
pub(crate) fn is_mounted(point: &Path) -> bool {
    let file = std::fs::File::open("/proc/self/mounts").unwrap();
    let point = point.canonicalize().unwrap_or_else(|_| point.to_owned());
    let mut lines = BufReader::new(file).lines().map_while(Result::ok);
    lines.any(|line| {
        line.split(' ')
            .nth(1)
            .is_some_and(|at| Path::new(at) == point)
    })
}

/// Takes a mount away whose process is gone.
pub(crate) fn detach(point: &Path) {
    let done = command("umount")
        .arg("-l")
        .arg(point)
        .finish()
        .status
        .success();
    if !done {
        command("fusermount3")
            .args(["-u", "-z"])
            .arg(point)
            .finish();
    }
}

/// Sends a signal to one process that a test knows.
pub(crate) fn kill(pid: u32, signal: &str) {
    command("kill")
        .args(["-s", signal, &pid.to_string()])
        .finish();
}

/// A zombie is no longer alive, unless it has threads that are not dead yet: they still hold its files and locks.
pub(crate) fn is_alive(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    if threads.is_ok_and(|threads| threads.count() > 1) {
        return true;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Waits for a condition, for a minute at most.
pub(crate) fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    wait_within(Duration::from_secs(60), what, condition);
}

/// The same for what takes longer.
pub(crate) fn wait_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All regular files below a directory.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest = vec![dir.to_owned()];
    while let Some(dir) = rest.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => rest.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Numbers that look random and are the same for the same seed: SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.roll().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}
