//! A control group with a bound of memory, of either version; and what a process really holds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";

/// The group; it goes with its last process.
pub(crate) struct Cgroup {
    dir: PathBuf,
    v2: bool,
}

impl Cgroup {
    /// A group in which the kernel kills whoever needs more than `limit` bytes that it cannot reclaim.
    pub(crate) fn new(name: &str, limit: u64) -> Self {
        let v2 = Path::new(V2).join("cgroup.controllers").exists();
        let base = Path::new(if v2 { V2 } else { V1 });
        if v2 {
            // Where it is on already, the file says so and the write changes nothing.
            let _ = std::fs::write(base.join("cgroup.subtree_control"), "+memory");
        }
        let dir = base.join(format!("skrin-test-{}-{name}", std::process::id()));
        // One that a killed run left has the name again when our number is that of the old process.
        let _ = std::fs::remove_dir(&dir);
        std::fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let group = Self { dir, v2 };
        let (bound, swap) = match v2 {
            true => ("memory.max", "memory.swap.max"),
            false => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        };
        group.set(bound, limit);
        // Memory and swap together are one bound in the old version.
        if group.dir.join(swap).exists() {
            group.set(swap, if v2 { 0 } else { limit });
        }
        group
    }

    fn set(&self, file: &str, bytes: u64) {
        let path = self.dir.join(file);
        std::fs::write(&path, bytes.to_string())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// The same command, begun inside.
    pub(crate) fn within(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.dir)
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// How many processes were killed.
    pub(crate) fn kills(&self) -> u64 {
        let file = match self.v2 {
            true => "memory.events",
            false => "memory.oom_control",
        };
        self.field(file, "oom_kill")
    }

    fn field(&self, file: &str, name: &str) -> u64 {
        let path = self.dir.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{} has no {name}", path.display()))
            .parse()
            .unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended may still be listed.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(
            std::thread::panicking(),
            "{} is not empty",
            self.dir.display()
        );
    }
}

/// Watches the anonymous memory of a process: what it cannot give back. Pages of files that a group is charged for are no such.
pub(crate) struct Anonymous {
    peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

/// Anonymous bytes now; 0 for a process that has ended.
pub(crate) fn anonymous(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

impl Anonymous {
    /// Begins to watch.
    pub(crate) fn watch(pid: u32) -> Self {
        let (peak, over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (shared, end) = (Arc::clone(&peak), Arc::clone(&over));
        let watcher = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                shared.fetch_max(anonymous(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            peak,
            over,
            watcher: Some(watcher),
        }
    }

    /// The most that was seen; shown with `--nocapture`.
    pub(crate) fn peak(&self) -> u64 {
        let peak = self.peak.load(Ordering::Relaxed);
        println!("anonymous memory: {} MiB at most", peak >> 20);
        peak
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}
