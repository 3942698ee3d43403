//! Commands and daemons: each in a process group of its own, so that ctrl-c reaches the harness alone, which then
//! ends what it started, by pid.

use crate::error::{BenchError, Context};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

static STOP: AtomicBool = AtomicBool::new(false);
static STARTED: Mutex<Started> = Mutex::new(Started {
    commands: BTreeSet::new(),
    daemons: BTreeSet::new(),
    mounts: BTreeSet::new(),
});

/// Everything that must not outlive the harness.
struct Started {
    commands: BTreeSet<i32>,
    daemons: BTreeSet<i32>,
    mounts: BTreeSet<PathBuf>,
}

fn started() -> MutexGuard<'static, Started> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first signal: running commands are ended and the work returns `Interrupted`, which unmounts on its way.
pub fn request_stop() {
    STOP.store(true, Ordering::SeqCst);
    for pid in started().commands.iter().copied().filter_map(Pid::from_raw) {
        let _gone_already = kill_process_group(pid, Signal::TERM);
    }
}

/// The second signal: the work hangs, so everything is torn down from here.
pub fn tear_down() {
    let started = started();
    for dir in started.mounts.iter().rev() {
        let _gone_already = crate::mount::detach(dir);
    }
    let pids = started.commands.iter().chain(&started.daemons);
    for pid in pids.copied().filter_map(Pid::from_raw) {
        let _gone_already = kill_process_group(pid, Signal::KILL);
    }
}

/// To be asked in every long loop.
///
/// # Errors
/// `Interrupted` after a signal.
pub fn check() -> Result<(), BenchError> {
    match STOP.load(Ordering::SeqCst) {
        true => Err(BenchError::Interrupted),
        false => Ok(()),
    }
}

pub(crate) fn register_mount(dir: &Path) {
    started().mounts.insert(dir.to_owned());
}

pub(crate) fn forget_mount(dir: &Path) {
    started().mounts.remove(dir);
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// When it cannot be started or fails, and `Interrupted`.
pub fn run(command: &mut Command) -> Result<String, BenchError> {
    check()?;
    let shown = shown(command);
    let child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(|| format!("start {shown}"))?;
    let pid = child.id() as i32;
    started().commands.insert(pid);
    let output = child.wait_with_output();
    started().commands.remove(&pid);
    check()?;
    let output = output.context(|| format!("wait for {shown}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(BenchError::Command {
        command: shown,
        status: output.status.to_string(),
        output: text(&output.stdout) + &text(&output.stderr),
    })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|w| w.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A server or the process behind a mount.
pub struct Daemon {
    pid: Pid,
    child: Option<Child>,
    shown: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts a process that stays in the foreground; what it says goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command, log: &Path, input: &str) -> Result<Self, BenchError> {
        check()?;
        let shown = shown(command);
        let out = File::create(log).at("create", log)?;
        let err = out.try_clone().at("open", log)?;
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .context(|| format!("start {shown}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // Most close it unread, which is an error that does not matter.
            let _unread = std::io::Write::write_all(&mut stdin, input.as_bytes());
        }
        let pid = Pid::from_child(&child);
        started().daemons.insert(pid.as_raw_pid());
        Ok(Self {
            pid,
            child: Some(child),
            shown,
            log: log.to_owned(),
        })
    }

    /// Takes over a process that went to the background by itself.
    pub fn adopt(pid: Pid, shown: &str, log: &Path) -> Self {
        started().daemons.insert(pid.as_raw_pid());
        let (shown, log) = (shown.to_owned(), log.to_owned());
        Self {
            pid,
            child: None,
            shown,
            log,
        }
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => test_kill_process(self.pid).is_ok(),
        }
    }

    /// The end of what it said.
    pub fn said(&self) -> String {
        let all = fs::read(&self.log).unwrap_or_default();
        let tail = all.get(all.len().saturating_sub(2000)..).unwrap_or(&all);
        String::from_utf8_lossy(tail).into_owned()
    }

    /// Waits until `ready`, failing early when the process has ended.
    ///
    /// # Errors
    /// `Late`, `Command` when it ended, `Interrupted`.
    pub fn wait_until(
        &mut self,
        what: &str,
        seconds: u64,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), BenchError> {
        let begin = Instant::now();
        while !ready() {
            check()?;
            if !self.alive() && !ready() {
                return Err(self.failed(format!("ended before: {what}")));
            }
            if begin.elapsed().as_secs() >= seconds {
                let (what, output) = (format!("{what} ({})", self.shown), self.said());
                return Err(BenchError::Late {
                    what,
                    seconds,
                    output,
                });
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn failed(&self, status: String) -> BenchError {
        BenchError::Command {
            command: self.shown.clone(),
            status,
            output: self.said(),
        }
    }

    /// Waits for it to end by itself, as a daemon does when it was unmounted.
    ///
    /// # Errors
    /// `Late`, and `Command` for an exit code that is not zero.
    pub fn wait_end(&mut self, seconds: u64) -> Result<(), BenchError> {
        let begin = Instant::now();
        while self.alive() {
            check()?;
            if begin.elapsed().as_secs() >= seconds {
                return Err(BenchError::Late {
                    what: format!("end of {}", self.shown),
                    seconds,
                    output: self.said(),
                });
            }
            sleep(Duration::from_millis(1));
        }
        let status = self
            .child
            .as_mut()
            .and_then(|c| c.try_wait().ok().flatten());
        match status {
            Some(status) if !status.success() => Err(self.failed(status.to_string())),
            _ => Ok(()),
        }
    }

    /// CPU time of all its threads and children so far, in seconds (user and system).
    pub fn cpu_seconds(&self) -> f64 {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        self.members().map(|m| m.cpu_ticks / ticks).sum()
    }

    /// The most memory that it and its children ever held, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.members().map(|m| peak_memory(m.pid)).sum()
    }

    /// The process and what it started: some daemons serve from a child.
    fn members(&self) -> impl Iterator<Item = Member> {
        let this = self.pid.as_raw_pid();
        let group = self.child.is_some();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(member)
            .filter(move |m| m.pid == this || (group && m.group == this))
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        while self.alive() {
            sleep(Duration::from_millis(1));
        }
    }

    fn signal(&self, signal: Signal) {
        let _gone_already = match self.child {
            Some(_) => kill_process_group(self.pid, signal),
            None => kill_process(self.pid, signal),
        };
    }
}

struct Member {
    pid: i32,
    group: i32,
    cpu_ticks: f64,
}

/// From /proc/PID/stat, see proc(5).
fn member(pid: i32) -> Option<Member> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the field behind it is the third.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |n: usize| fields.get(n - 3)?.parse::<f64>().ok();
    Some(Member {
        pid,
        group: fields.get(5 - 3)?.parse().ok()?,
        cpu_ticks: ticks(14)? + ticks(15)?,
    })
}

fn peak_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kib.map_or(0, |kib: u64| kib * 1024)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for (signal, patience) in [(Signal::TERM, 100), (Signal::KILL, 50)] {
            if self.alive() {
                self.signal(signal);
            }
            for _ in 0..patience {
                if !self.alive() {
                    break;
                }
                sleep(Duration::from_millis(50));
            }
        }
        started().daemons.remove(&self.pid.as_raw_pid());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_daemon_and_its_children_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (log, mark) = (dir.path().join("log"), dir.path().join("child"));
        let script = format!("sleep 1000 & echo $! > {}; wait", mark.display());
        let mut sh = Command::new("sh");
        let mut daemon = Daemon::start(sh.args(["-c", &script]), &log, "").unwrap();
        let child = || fs::read_to_string(&mark).unwrap_or_default();
        daemon
            .wait_until("child", 10, || child().ends_with('\n'))
            .unwrap();
        let child = Pid::from_raw(child().trim().parse().unwrap()).unwrap();
        assert!(daemon.alive());
        drop(daemon);
        let begin = Instant::now();
        while fs::read_to_string(format!("/proc/{}/stat", child.as_raw_pid()))
            .is_ok_and(|s| !s.contains(") Z "))
        {
            assert!(begin.elapsed().as_secs() < 10);
        }
    }

    #[test]
    fn a_command_that_fails_says_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]));
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("no such thing") && text.contains('3'),
            "{text}"
        );
    }

    #[test]
    fn a_daemon_that_ends_early_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut sh = Command::new("sh");
        let sh = sh.args(["-c", "echo bad option; exit 2"]);
        let mut daemon = Daemon::start(sh, &dir.path().join("log"), "").unwrap();
        let error = daemon.wait_until("mount", 60, || false).unwrap_err();
        assert!(error.to_string().contains("bad option"), "{error}");
    }

    #[test]
    fn cpu_and_memory_of_a_process_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut sh = Command::new("sh");
        let sh = sh.args([
            "-c",
            "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo x; sleep 100",
        ]);
        let mut daemon = Daemon::start(sh, &dir.path().join("log"), "").unwrap();
        let log = dir.path().join("log");
        let done = || fs::read(&log).is_ok_and(|l| !l.is_empty());
        daemon.wait_until("loop", 60, done).unwrap();
        assert!(daemon.cpu_seconds() > 0.0);
        assert!(daemon.peak_memory() > 100_000);
    }
}
