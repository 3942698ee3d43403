//! `skrin mount`: checks what was asked, asks for the secret, and starts the process behind the mount. That is this
//! program again, because a process with threads cannot be forked; what it needs goes through a pipe.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::args::{Durability, MacFiles, MountArgs, Unicode};
use crate::exit::{Exit, Failure, Outcome};
use crate::mount_point::MountPoint;
use crate::mount_table;
use crate::progress::Counter;
use crate::secret::{self, Credential};
use crate::serve;
use crate::store::StoreSpec;
use crate::{print, state_dir};

/// Room for the request, so that the buffer with secrets in it never moves.
const REQUEST_MAX: usize = 64 * 1024;
/// The least that `--memory` takes.
const MEMORY_MIN: u64 = 64 << 20;

/// What a mount is to be; the meaning of the options.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The storage.
    pub(crate) store: StoreSpec,
    /// What opens the vault.
    pub(crate) credential: Credential,
    /// Where to mount.
    pub(crate) dir: PathBuf,
    /// Make it first.
    pub(crate) mkdir: bool,
    /// Where the state of all vaults lies.
    pub(crate) state_base: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) allow_other: bool,
    pub(crate) offline: bool,
    pub(crate) cache_size: u64,
    pub(crate) memory: u64,
    pub(crate) durability: Durability,
    /// Whose everything appears to be.
    pub(crate) owner: Owner,
    pub(crate) no_exec: bool,
    pub(crate) uncached: bool,
    /// How names are taken, where that was said.
    pub(crate) unicode: Option<Unicode>,
    pub(crate) mac_files: Option<MacFiles>,
}

/// Whose everything appears to be, and the permissions that do not appear.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) umask: Option<u16>,
}

/// What the process behind the mount says on its way.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// A person should know.
    Note(String),
    /// The mount answers.
    Ready(Box<Ready>),
    /// It will not.
    Failed(Failure),
}

/// A mount that answers, as `--json` tells it. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Address of the vault, without secrets.
    pub(crate) vault: String,
    /// Its id.
    pub(crate) vault_id: String,
    /// The mount point.
    pub(crate) mount_point: String,
    /// Where this vault's local state lies.
    pub(crate) state_dir: String,
    /// The process behind the mount.
    pub(crate) pid: u32,
    /// Whether writing is refused.
    pub(crate) read_only: bool,
    /// Whether the storage answered; `None` if it was not asked.
    pub(crate) online: Option<bool>,
    /// Whether this state directory has never seen the vault before.
    pub(crate) new_device: bool,
    /// To compare with another device: equal codes have seen the same.
    pub(crate) heads_code: String,
}

/// Tells what a mount says on its way, as people or as scripts want it.
struct Teller {
    json: bool,
    /// Held until there is an object to put them in.
    notes: Vec<String>,
}

impl Teller {
    fn new(json: bool) -> Self {
        Self {
            json,
            notes: Vec::new(),
        }
    }

    fn note(&mut self, text: String) {
        match self.json {
            true => self.notes.push(text),
            false => print::line(text),
        }
    }

    fn ready(&mut self, ready: &Ready) {
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(flatten)]
            ready: &'a Ready,
            notes: Vec<String>,
        }
        if self.json {
            let notes = std::mem::take(&mut self.notes);
            print::json(&Document { ready, notes });
        }
    }
}

impl Drop for Teller {
    /// The mount never answered: what it said before is what is known.
    fn drop(&mut self) {
        self.notes.drain(..).for_each(print::note);
    }
}

/// Mounts.
///
/// # Errors
/// Everything that a mount can meet.
pub(crate) fn run(args: &MountArgs) -> Outcome {
    let plan = plan(args)?;
    let mut teller = Teller::new(args.json);
    if args.foreground {
        return serve::run(plan, &mut |word| {
            match word {
                Word::Note(text) => teller.note(text),
                Word::Ready(ready) => {
                    teller.ready(&ready);
                    if !args.json {
                        print::line(format!("mounted at {}", args.dir.display()));
                    }
                }
                Word::Failed(failure) => print::failure(&failure),
            }
            true
        });
    }
    let mut child = start(&plan)?;
    drop(plan);
    follow(&mut child, &mut teller)
}

/// Whether that could be mounted, as far as it can be told without a secret and without the storage.
///
/// # Errors
/// Of the options and of the mount point.
#[cfg(target_os = "linux")]
pub(crate) fn check(args: &MountArgs) -> Outcome {
    StoreSpec::address_of(&args.vault)?;
    check_here(args)?;
    state_dir::base(args.state_dir.as_deref()).map(drop)
}

fn check_here(args: &MountArgs) -> Outcome {
    if args.memory < MEMORY_MIN {
        return Err(Failure::new(
            Exit::Usage,
            "--memory: less than 64MiB is not enough to work with",
        ));
    }
    // Before the person types a passphrase; the process behind the mount looks again.
    if !args.mkdir {
        drop(MountPoint::prepare(&args.dir, false)?);
    }
    Ok(())
}

fn plan(args: &MountArgs) -> Outcome<Plan> {
    let store = StoreSpec::new(&args.vault)?;
    check_here(args)?;
    let dir = std::path::absolute(&args.dir);
    Ok(Plan {
        store,
        dir: dir.map_err(|e| Failure::io(&args.dir, "cannot make the path absolute", &e))?,
        mkdir: args.mkdir,
        state_base: state_dir::base(args.state_dir.as_deref())?,
        read_only: args.read_only,
        allow_other: args.allow_other,
        offline: args.offline,
        cache_size: args.cache_size,
        memory: args.memory,
        durability: args.durability,
        owner: Owner {
            uid: args.uid,
            gid: args.gid,
            umask: args.umask,
        },
        no_exec: args.no_exec,
        uncached: args.uncached,
        unicode: args.unicode,
        mac_files: args.mac_files,
        credential: secret::credential(&args.unlock)?,
    })
}

/// This program: on Linux what runs, even where its file was replaced meanwhile.
fn own_program() -> std::io::Result<PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok("/proc/self/exe".into()),
        false => std::env::current_exe(),
    }
}

fn start(plan: &Plan) -> Outcome<Child> {
    let fail = |e: std::io::Error| {
        Failure::new(
            Exit::Other,
            format!("cannot start the process behind the mount: {e}"),
        )
    };
    let mut request = Zeroizing::new(Vec::with_capacity(REQUEST_MAX));
    serde_json::to_writer(&mut *request, plan).map_err(|e| fail(e.into()))?;
    let mut child = Command::new(own_program().map_err(fail)?)
        .arg0("skrin")
        .arg("__serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(fail)?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(&request).map_err(fail)?;
    }
    Ok(child)
}

/// Repeats what the child says, until the mount answers or the child gives up.
fn follow(child: &mut Child, teller: &mut Teller) -> Outcome {
    let spinner = Counter::new("mounting");
    let lines = child
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufRead::lines);
    for line in lines.map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Word::Note(text)) => spinner.beside(|| teller.note(text)),
            Ok(Word::Ready(ready)) => {
                drop(spinner);
                teller.ready(&ready);
                return Ok(());
            }
            Ok(Word::Failed(failure)) => {
                let _ = child.wait();
                return Err(failure);
            }
            Err(_) => break,
        }
    }
    let ended = child
        .wait()
        .map(|status| status.to_string())
        .unwrap_or_default();
    Err(Failure::new(
        Exit::Other,
        format!("the process behind the mount ended before it answered ({ended})"),
    )
    .remedy("look into the log in the state directory, or try --foreground"))
}

/// The child's side.
///
/// # Errors
/// None: whatever happens was said to the parent, or is in the log.
pub(crate) fn serve_parent() -> Outcome {
    // The kernel has named it `exe`, after the link that it was started from.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_name(c"skrin");
    let mut request = Zeroizing::new(Vec::with_capacity(REQUEST_MAX));
    let read = std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut request);
    let plan: Plan = match read.map(|_| serde_json::from_slice(&request)) {
        Ok(Ok(plan)) => plan,
        _ => {
            return Err(Failure::new(
                Exit::Usage,
                "this is started by `skrin mount` only",
            ));
        }
    };
    drop(request);
    // The terminal that started us may close; fails only for a leader of a group, which we are not at first.
    let leave = || {
        let _ = rustix::process::setsid();
    };
    // Below an automount only the group of whoever mounts may look before something is mounted there: we would wait for ourselves.
    let below = mount_table::at(&plan.dir).ok().flatten();
    if !below.is_some_and(|line| line.is_automount()) {
        leave();
    }
    let _ = std::env::set_current_dir("/");
    let mut said = |word: Word| {
        if matches!(word, Word::Ready(_)) {
            leave();
        }
        let mut out = std::io::stdout().lock();
        let line = serde_json::to_string(&word).unwrap_or_default();
        writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
    };
    let outcome = serve::run_logged(plan, &mut said);
    if let Err(failure) = outcome {
        tracing::error!(%failure, "the mount ends");
        let exit = failure.exit;
        said(Word::Failed(failure));
        std::process::exit(exit as i32);
    }
    Ok(())
}
