//! What was typed. Nothing is judged here but syntax; `plan` says what it means.

mod people;

pub(crate) use people::*;

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::{Exit, Failure, Outcome};

/// Mounts an end-to-end-encrypted vault, kept on storage nobody has to trust, as a plain folder.
#[derive(Parser)]
#[command(name = "skrin", version, max_term_width = 100)]
#[command(
    after_help = "VAULT is a path or file:///path, webdavs://user@host/path, webdav://... (no TLS), \
    s3://bucket/prefix?endpoint=https://...&region=...\n\
    Exit codes: 0 done, 1 other, 2 usage, 3 wrong passphrase or words, 4 storage unreachable, 5 integrity, 6 busy, 7 nothing there\n\
    With --json: one JSON object a line on standard output; docs/exit-codes.md lists the fields. Errors stay text on standard error"
)]
pub(crate) struct Typed {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a vault and its first identity, and show the twelve words once
    Init(InitArgs),
    /// Mount a vault; returns when the mount answers
    Mount(MountArgs),
    /// Upload what is pending, then unmount
    Unmount(UnmountArgs),
    /// Return when everything written is on the storage
    Sync(SyncArgs),
    /// Show what is pending, cached and seen
    Status(StatusArgs),
    /// Delete from the storage what nobody needs any more
    Gc(GcArgs),
    /// Show or set how much of the past is kept
    Retention(RetentionArgs),
    /// Keep files and directories on this machine, to read them without the storage
    Pin(PinArgs),
    /// Let go of what was pinned
    Unpin(UnpinArgs),
    /// What was done to a file, in a mount
    History(HistoryArgs),
    /// Put a file or a tree in a mount back to what it was
    Restore(RestoreArgs),
    /// List conflict copies, or choose between one and its document
    Conflicts(ConflictsArgs),
    /// Points of the past with a name
    Snapshot {
        #[command(subcommand)]
        verb: SnapshotVerb,
    },
    /// Show who one is in a vault, and the safety number that others compare
    Identity {
        #[command(subcommand)]
        verb: IdentityVerb,
    },
    /// Invite a person to a vault
    Invite(InviteArgs),
    /// Become a member of a vault, with an invitation
    Join(JoinArgs),
    /// Who is in a vault, and as what
    Member {
        #[command(subcommand)]
        verb: MemberVerb,
    },
    /// Which machines may open a vault
    Device {
        #[command(subcommand)]
        verb: DeviceVerb,
    },
    /// Change the passphrase
    Passphrase(PassphraseArgs),
    /// A key on paper, for the day on which nobody has his own any more
    Recovery {
        #[command(subcommand)]
        verb: RecoveryVerb,
    },
    /// Show what was decided about people, devices and keys, and by whom
    Audit(AuditArgs),
    /// Check everything that can be reached on the storage
    Verify(VerifyArgs),
    /// Look slowly at everything on the storage while the vault is mounted; goes on after a remount
    Scrub(ScrubArgs),
    /// Read a vault into a directory without mounting it
    Export(ExportArgs),
    /// Go on with a storage that shows less than this device has seen, after putting again what the device still has
    AcceptRollback(AcceptRollbackArgs),
    /// Measure what a storage can do
    Bench(BenchArgs),
    /// The process behind a mount; started by `mount`
    #[command(name = "__serve", hide = true)]
    Serve,
}

/// Where the secret comes from, for commands that open a vault.
#[derive(Args, Default)]
pub(crate) struct UnlockArgs {
    /// Read the passphrase from the first line of this file (- for standard input)
    #[arg(
        long,
        value_name = "F",
        env = "SKRIN_PASSPHRASE_FILE",
        hide_env_values = true
    )]
    pub passphrase_file: Option<PathBuf>,
    /// Read the twelve words from this file (- for standard input) instead of a passphrase
    #[arg(long, value_name = "F")]
    pub words_file: Option<PathBuf>,
    /// Read one share of a recovery key from the first line of this file; give it for each share that is needed
    #[arg(long, value_name = "F")]
    pub share_file: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct InitArgs {
    /// Where the vault is to live
    pub vault: String,
    /// Read the passphrase from the first line of this file (- for standard input)
    #[arg(
        long,
        value_name = "F",
        env = "SKRIN_PASSPHRASE_FILE",
        hide_env_values = true
    )]
    pub passphrase_file: Option<PathBuf>,
    /// Write the twelve words into this new file instead of showing them
    #[arg(long, value_name = "F")]
    pub words_file: Option<PathBuf>,
    /// A name for this vault's owner, as other devices show it
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// One JSON object, for scripts; without --words-file it holds the words
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
pub(crate) enum Durability {
    /// fsync returns when the local journal has it on stable storage
    Local,
    /// fsync returns when the storage has it
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
pub(crate) enum Unicode {
    /// Names are bytes
    Exact,
    /// A name is found by its composed and by its decomposed form; new names are composed
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
pub(crate) enum MacFiles {
    /// They stay on this device, sealed in its state directory, and are never uploaded; 16 MiB in all
    Local,
    /// They are files like others, and every device sees them
    Shared,
}

#[derive(Args)]
pub(crate) struct MountArgs {
    /// The vault
    pub vault: String,
    /// An empty directory
    pub dir: PathBuf,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    pub foreground: bool,
    /// Change nothing
    #[arg(long)]
    pub read_only: bool,
    /// Let other users of this machine in, as far as the permissions of the files allow
    #[arg(long)]
    pub allow_other: bool,
    /// Make DIR, out of bounds while nothing is mounted there, and remove it on unmount
    #[arg(long)]
    pub mkdir: bool,
    /// Keep local state below this directory [default: $XDG_STATE_HOME/skrin]
    #[arg(long, value_name = "D", env = "SKRIN_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Bound of the encrypted cache on the local disk
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = parse_size)]
    pub cache_size: u64,
    /// Bound of this program's memory, from 64MiB on; opening with a passphrase takes 256MiB for about a second. One change
    /// for each KiB may wait for the storage
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    pub memory: u64,
    /// What fsync promises
    #[arg(long, value_enum, default_value = "local")]
    pub durability: Durability,
    /// Do not talk to the storage: use what is cached, keep what is written in the journal
    #[arg(long)]
    pub offline: bool,
    /// Show everything as owned by this user; what the vault keeps is not changed
    #[arg(long, value_name = "NUMBER", value_parser = parse_id)]
    pub uid: Option<u32>,
    /// Show everything as of this group; what the vault keeps is not changed
    #[arg(long, value_name = "NUMBER", value_parser = parse_id)]
    pub gid: Option<u32>,
    /// Hide these permissions (octal); what the vault keeps is not changed
    #[arg(long, value_name = "OCTAL", value_parser = parse_umask)]
    pub umask: Option<u16>,
    /// How names beyond ASCII are looked up: as their bytes, or in any form of Unicode, new ones being composed
    /// [default: exact; any on macOS]
    #[arg(long, value_enum)]
    pub unicode: Option<Unicode>,
    /// Where files go that only mean something to the Mac that makes them: `._*`, `.DS_Store` and the like
    /// [default: shared; local on macOS]
    #[arg(long, value_enum)]
    pub mac_files: Option<MacFiles>,
    /// Let no program of the vault be run; an option of mount(8) only
    #[arg(skip)]
    pub no_exec: bool,
    /// Let the kernel keep nothing, for measuring what its caches are worth
    #[arg(long, hide = true)]
    pub uncached: bool,
    /// One JSON object when the mount answers, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct UnmountArgs {
    /// The mount point
    pub dir: PathBuf,
    /// Do not wait for uploads: leave what is pending in the journal and say what is left
    #[arg(long)]
    pub now: bool,
    /// Detach a busy mount point; the process ends when the last open file is closed
    #[arg(long)]
    pub lazy: bool,
    /// What is left as one JSON object, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct SyncArgs {
    /// The mount point, or anything below it
    pub dir: PathBuf,
    /// What is left as one JSON object, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct RetentionArgs {
    /// The mount point, or anything below it
    pub dir: PathBuf,
    /// So far back every state stays readable, for all devices: 30d, 12h, 10m, 90s or forever
    #[arg(value_parser = parse_retention)]
    pub time: Option<u64>,
    /// One JSON object, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct GcArgs {
    /// The mount point, or anything below it
    pub dir: PathBuf,
    /// What was freed and what was not as one JSON object, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The mount point, or anything below it; all mounts of this user without it
    pub dir: Option<PathBuf>,
    /// One JSON object a mount, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct PinArgs {
    /// Files, and directories with everything that is or will be below them, all in one mount
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Show what is pinned in the mount of PATH, and pin nothing
    #[arg(long)]
    pub list: bool,
    /// Do not wait until everything is here
    #[arg(long)]
    pub no_wait: bool,
    /// What is pinned, and how much of it is here, as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct UnpinArgs {
    /// What was pinned
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// What is still pinned as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct HistoryArgs {
    /// A file or directory in a mount; it may be one that was removed
    pub path: PathBuf,
    /// One JSON object a change, for scripts
    #[arg(long)]
    pub json: bool,
}

/// What a restore does with what it finds.
#[derive(Args)]
pub(crate) struct RestoreHow {
    /// Remove what was not there then; without it, that stays
    #[arg(long)]
    pub exact: bool,
    /// Put it at this new path of the same mount instead
    #[arg(long, value_name = "DEST", conflicts_with = "exact")]
    pub to: Option<PathBuf>,
    /// What was done as one JSON object, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// A file or directory in a mount, or the mount point for everything; it may be one that was removed
    pub path: PathBuf,
    /// When: 2026-11-21T14:03:00Z, "2026-11-21 14:03" (local time), 1h, 30m, 2d (so long ago), or a change as `skrin history` names it
    #[arg(long, value_name = "TIME", value_parser = crate::past::parse_when)]
    pub at: crate::past::When,
    #[command(flatten)]
    pub how: RestoreHow,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ConflictsArgs {
    #[command(subcommand)]
    pub verb: Option<ConflictsVerb>,
    /// A mount point or anything below it, for the copies that are there; or a vault that is not mounted
    #[arg(required = true, value_name = "DIR|VAULT")]
    pub place: Option<String>,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// One JSON object a copy, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub(crate) enum ConflictsVerb {
    /// Keep what is at PATH: of a copy, its contents become the document and the copy goes; of a document, its copies go. What goes
    /// stays in the history
    Keep(KeepArgs),
}

#[derive(Args)]
pub(crate) struct KeepArgs {
    /// A conflict copy, or a document that has some, in a mount
    pub path: PathBuf,
    /// What was done as one JSON object, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub(crate) enum SnapshotVerb {
    /// Name the present state; everything written before is in it
    Create {
        /// The mount point, or anything below it
        dir: PathBuf,
        /// The name; the snapshot can be looked at as .snapshots/NAME in the mount
        name: std::ffi::OsString,
    },
    /// List the snapshots
    List {
        /// The mount point, or anything below it
        dir: PathBuf,
        /// One JSON object a snapshot, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Take the name away; what is in no other state may be deleted from the storage later
    Delete {
        /// The mount point, or anything below it
        dir: PathBuf,
        /// The name
        name: std::ffi::OsString,
    },
    /// Put a tree back to what it was in a snapshot
    Restore {
        /// The mount point for everything, or a file or directory in it
        path: PathBuf,
        /// The name
        name: std::ffi::OsString,
        #[command(flatten)]
        how: RestoreHow,
    },
}

/// What can be asked of a mount, or of a vault that is not mounted.
#[derive(Args)]
pub(crate) struct PlaceArgs {
    /// A mount point or anything below it; or a vault that is not mounted
    #[arg(value_name = "DIR|VAULT")]
    pub place: String,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// For scripts: JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The vault
    pub vault: String,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// Read and authenticate every block too
    #[arg(long)]
    pub data: bool,
    /// Also put again, byte for byte, what the storage lost or damaged and the state directory still has (commits of this
    /// device, header, slots, control records, blocks in its cache) or the storage itself still tells. Implies --data; the
    /// vault must not be mounted with this state directory, and may be with others
    #[arg(long)]
    pub repair: bool,
    /// Local state lies below this directory, for --repair [default: $XDG_STATE_HOME/skrin]
    #[arg(long, value_name = "D", env = "SKRIN_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Findings and summary as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct ScrubArgs {
    /// The mount point, or anything below it
    pub dir: PathBuf,
    /// Read at most so much in a second [default: what was said last, else 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub rate: Option<u64>,
    /// Stop; `skrin scrub` goes on from there
    #[arg(long, conflicts_with = "rate")]
    pub stop: bool,
    /// How it stands as one JSON object, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The vault
    pub vault: String,
    /// A directory that is empty or missing
    pub dest: PathBuf,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// What was written as one JSON object, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct AcceptRollbackArgs {
    /// The vault
    pub vault: String,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// Local state lies below this directory [default: $XDG_STATE_HOME/skrin]
    #[arg(long, value_name = "D", env = "SKRIN_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Do not ask: go on without what only the storage had
    #[arg(long)]
    pub yes: bool,
    /// What was done as one JSON object, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// The storage; nothing is left behind there
    pub vault: String,
    /// Results as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// As a size, and never nothing.
fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("a rate is at least one byte a second; --stop stops".into()),
        rate => Ok(rate),
    }
}

/// Its errors never repeat the value: they are shown. Bytes from `4096`, `64KiB`, `10GiB`, `1.5TiB` or the decimal `10GB`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "B" => 1.0,
        "K" | "KiB" => 1024.0,
        "M" | "MiB" => 1048576.0,
        "G" | "GiB" => 1073741824.0,
        "T" | "TiB" => 1099511627776.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return Err("a size looks like 512MiB or 10GiB".into()),
    };
    match number.parse::<f64>() {
        // Bounded by 2^60, so the conversion is exact enough and never saturates.
        Ok(n) if n * unit < (1u64 << 60) as f64 => Ok((n * unit) as u64),
        Ok(_) => Err("that is more than any disk has".into()),
        Err(_) => Err("a size looks like 512MiB or 10GiB".into()),
    }
}

/// Seconds; 0 is for ever.
fn parse_retention(text: &str) -> Result<u64, String> {
    match text {
        "forever" => Ok(0),
        _ => parse_time(text).map_err(|how| how + "; or say forever"),
    }
}

/// Seconds, at least one.
fn parse_time(text: &str) -> Result<u64, String> {
    const HOW: &str = "a time looks like 30d, 12h, 10m or 90s";
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "d" => 86_400,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(HOW.into()),
    };
    let number: Option<u64> = number.parse().ok();
    let seconds = number.and_then(|n| n.checked_mul(unit));
    seconds.filter(|s| *s > 0).ok_or_else(|| HOW.into())
}

/// The number of a user or group; 2^32 - 1 means "nobody said" to the kernel.
fn parse_id(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|id| *id != u32::MAX);
    number.ok_or_else(|| "a user or group is a number, as `id` shows it".into())
}

fn parse_umask(text: &str) -> Result<u16, String> {
    let mask = u16::from_str_radix(text, 8).ok();
    let mask = mask.filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| "a mask looks like 022 or 077".into())
}

/// Options that people expect to take a secret. They are refused by name, so that the secret is never repeated.
const SECRET_OPTIONS: [&str; 11] = [
    "--passphrase",
    "--password",
    "--passwd",
    "--pass",
    "--pin",
    "--words",
    "--secret",
    "--secret-key",
    "--key",
    "--access-key",
    "--token",
];

/// Refuses secrets on the command line, where every user of the machine can read them.
///
/// # Errors
/// Names the option, never its value.
pub(crate) fn refuse_secrets(arguments: &[std::ffi::OsString]) -> Result<(), Failure> {
    for argument in arguments.iter().skip(1) {
        let text = argument.to_string_lossy();
        let option = text.split('=').next().unwrap_or_default();
        if option == "--" {
            break;
        }
        refuse_secret(option)?;
    }
    Ok(())
}

/// Refuses one option that stands for a secret.
///
/// # Errors
/// Names the option.
pub(crate) fn refuse_secret(option: &str) -> Outcome {
    if !SECRET_OPTIONS.contains(&option) {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format!("{option}: a secret on the command line can be read by every user of this machine, and stays in the shell's history"),
    )
    .remedy("use --passphrase-file or --words-file, the environment, or the prompt; and change that secret"))
}

/// What clap has to say: help and version as they are, everything else as a failure in our form. Values are not repeated,
/// whatever they are: what stands in the wrong place may be a secret.
///
/// # Errors
/// `Usage` for everything but help and version.
pub(crate) fn not_understood(error: &clap::Error) -> Outcome {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        // A closed pipe is nobody's fault.
        let _ = error.print();
        return Ok(());
    }
    Err(misunderstood(error))
}

/// The same for everything but help and version.
pub(crate) fn misunderstood(error: &clap::Error) -> Failure {
    let mut failure = Failure::new(Exit::Usage, what_is_wrong(error));
    failure.usage = match error.kind() {
        // The message is the help itself.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Some(error.render().to_string()),
        _ => {
            let usage = error.get(ContextKind::Usage).map(ContextValue::to_string);
            let usage = usage.unwrap_or_default();
            Some(format!(
                "{usage}\n\nFor more information, try 'skrin --help'."
            ))
        }
    };
    failure
}

fn what_is_wrong(error: &clap::Error) -> String {
    let names = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => Some(name.clone()),
        Some(ContextValue::Strings(names)) if !names.is_empty() => Some(names.join(", ")),
        _ => None,
    };
    // For all kinds but `UnknownArgument` this comes from the definitions above, not from what was typed.
    let argument = || names(ContextKind::InvalidArg).unwrap_or_else(|| "an argument".into());
    let meant = |kind| match names(kind) {
        Some(name) => format!("; did you mean {name}?"),
        None => String::new(),
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let typed = names(ContextKind::InvalidArg).filter(|typed| is_option_name(typed));
            let meant = meant(ContextKind::SuggestedArg);
            match typed {
                Some(option) => format!("{option}: there is no such option{meant}"),
                None => {
                    format!("there is an argument too many, or an option of an unusual form{meant}")
                }
            }
        }
        ErrorKind::InvalidSubcommand => {
            let meant = meant(ContextKind::SuggestedSubcommand);
            format!("there is no such command{meant}")
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "a command is missing".into()
        }
        ErrorKind::MissingRequiredArgument => format!("missing: {}", argument()),
        ErrorKind::InvalidValue => {
            match names(ContextKind::InvalidValue).is_some_and(|v| !v.is_empty()) {
                true => format!(
                    "{}: this value is not possible{}",
                    argument(),
                    choices(names(ContextKind::ValidValue))
                ),
                false => format!("{}: the value is missing", argument()),
            }
        }
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(ToString::to_string);
            format!(
                "{}: {}",
                argument(),
                why.unwrap_or_else(|| "this value is not possible".into())
            )
        }
        ErrorKind::ArgumentConflict => match names(ContextKind::PriorArg) {
            Some(prior) if prior != argument() => {
                format!("{} cannot stand beside {prior}", argument())
            }
            _ => format!("{} was given more than once", argument()),
        },
        ErrorKind::TooManyValues | ErrorKind::WrongNumberOfValues => {
            format!("{}: a value too many", argument())
        }
        ErrorKind::TooFewValues | ErrorKind::NoEquals => {
            format!("{}: a value is missing", argument())
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".into(),
        _ => "the command line makes no sense".into(),
    }
}

fn choices(names: Option<String>) -> String {
    names.map_or_else(String::new, |names| format!("; possible are {names}"))
}

/// Whether it looks like the name of an option and of nothing else: only such is repeated.
fn is_option_name(typed: &str) -> bool {
    let named = |name: &str| {
        let mut bytes = name.bytes();
        (2..=20).contains(&name.len()) && bytes.all(|b| b.is_ascii_lowercase() || b == b'-')
    };
    match typed.strip_prefix("--") {
        Some(name) => named(name),
        None => typed.len() == 2 && typed.starts_with('-'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Typed::command().debug_assert();
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size("256M"), Ok(256 << 20));
        assert_eq!(parse_size("1.5KiB"), Ok(1536));
        assert_eq!(parse_size("2GB"), Ok(2_000_000_000));
        assert!(parse_size("lots").is_err());
        assert!(parse_size("9999999TiB").is_err());
    }

    #[test]
    fn what_is_not_understood_is_named_but_no_value_is_repeated() {
        for (typed, says) in [
            (&["mount", "v", "m", "hunter2"][..], "an argument too many"),
            (&["hunter2"], "no such command"),
            (&["moun"], "did you mean mount"),
            (
                &["status", "--jsn"],
                "--jsn: there is no such option; did you mean --json?",
            ),
            (&["status", "--hunter2"], "an argument too many"),
            (&["status", "--json=hunter2"], "--json"),
            (
                &["status", "--nothing=hunter2"],
                "--nothing: there is no such option",
            ),
            (
                &["mount", "v", "m", "--memory", "hunter2"],
                "--memory <SIZE>: a size looks like",
            ),
            (
                &["mount", "v", "m", "--durability", "hunter2"],
                "possible are local, remote",
            ),
            (
                &["mount", "v", "m", "--memory"],
                "--memory <SIZE>: the value is missing",
            ),
            (
                &["mount", "v", "m", "-phunter2"],
                "-p: there is no such option",
            ),
            (
                &["status", "--json", "--json"],
                "--json was given more than once",
            ),
            (&["mount", "v"], "missing: <DIR>"),
            (&[], "a command is missing"),
        ] {
            let error = Typed::try_parse_from([&["skrin"], typed].concat())
                .err()
                .unwrap();
            let failure = not_understood(&error).unwrap_err();
            let text = format!(
                "{failure}\n{}",
                failure.usage.as_deref().unwrap_or_default()
            );
            assert!(text.contains(says), "{says:?} is missing in: {text}");
            assert!(
                text.contains("Usage: skrin") || text.contains("--help"),
                "{text}"
            );
            assert!(!text.contains("hunter2"), "{text}");
            assert_eq!(failure.exit, Exit::Usage);
        }
    }

    #[test]
    fn a_secret_among_the_arguments_is_refused_without_repeating_it() {
        let typed = ["skrin", "mount", "--passphrase=hunter2"].map(Into::into);
        let failure = refuse_secrets(&typed).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(!failure.to_string().contains("hunter2"));
        assert!(
            refuse_secrets(&["skrin", "init", "--passphrase-file", "f"].map(Into::into)).is_ok()
        );
    }
}
