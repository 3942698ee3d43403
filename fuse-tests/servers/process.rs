//! A server's process group: ended on drop, and by its supervisor when our own process dies in any way.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{StartError, io_error};

/// Runs the server and waits for the end of its own input, which is ours to close: by dropping, or by dying.
const SUPERVISOR: &str = r#"
trap : TERM
"$@" </dev/null &
server=$!
( while kill -0 "$server" 2>/dev/null; do sleep 0.2; done; kill -KILL 0 ) </dev/null &
read -r _
kill -TERM 0
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    kill -0 "$server" 2>/dev/null || break
    sleep 0.2
done
kill -KILL 0
"#;

pub(crate) struct Process {
    name: String,
    supervisor: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output in `<dir>/<name>.log`.
    pub(crate) fn start(
        dir: &Path,
        name: &str,
        program: impl AsRef<Path>,
        args: &[&str],
    ) -> Result<Self, StartError> {
        let program = find(program.as_ref()).map_err(|e| io_error(name, e))?;
        let log = dir.join(format!("{name}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| io_error(name, e))?;
        let err = out.try_clone().map_err(|e| io_error(name, e))?;
        let supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, name])
            .arg(program)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(|e| io_error(name, e))?;
        Ok(Self {
            name: name.to_owned(),
            supervisor,
            log,
        })
    }

    /// Returns when something accepts connections on the port; an error if the process ends before.
    pub(crate) fn wait_for_port(
        &mut self,
        port: u16,
        patience: Duration,
    ) -> Result<(), StartError> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let begin = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            let ended = self
                .supervisor
                .try_wait()
                .is_ok_and(|status| status.is_some());
            if ended || begin.elapsed() > patience {
                return Err(StartError::Silent(self.name.clone(), self.tail()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(2000)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    fn signal(&self, signal: Signal) {
        // A group that is gone already needs no signal.
        let _ = kill_process_group(Pid::from_child(&self.supervisor), signal);
    }

    /// Ends the whole group at once.
    pub(crate) fn kill(&mut self) {
        // Once it was waited for, its number may be another's.
        if matches!(self.supervisor.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
        }
        let _ = self.supervisor.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.supervisor.try_wait(), Ok(None)) {
            return;
        }
        drop(self.supervisor.stdin.take());
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            if !matches!(self.supervisor.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }
}

/// Runs a command to its end and returns its output.
pub(crate) fn run(dir: &Path, program: &str, args: &[&str]) -> Result<String, StartError> {
    let output = Command::new(find(Path::new(program)).map_err(|e| io_error(program, e))?)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io_error(program, e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(StartError::Silent(
        format!("{program} {}", args.join(" ")),
        error,
    ))
}

/// The file of a program; daemons lie in sbin, which is not in everybody's path.
fn find(program: &Path) -> std::io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            let what = format!("{} is not installed", program.display());
            std::io::Error::new(std::io::ErrorKind::NotFound, what)
        })
}
