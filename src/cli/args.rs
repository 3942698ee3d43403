//! What was typed. Nothing is judged here but syntax; `plan` says what it means.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::{Exit, Failure};

/// Mounts an end-to-end-encrypted vault, kept on storage nobody has to trust, as a plain folder.
#[derive(Parser)]
#[command(name = "skrin", version, max_term_width = 100)]
#[command(
    after_help = "VAULT is a path or file:///path, webdavs://user@host/path, webdav://... (no TLS), \
    s3://bucket/prefix?endpoint=https://...&region=...\n\
    Exit codes: 0 done, 1 other, 2 usage, 3 wrong passphrase or words, 4 storage unreachable, 5 integrity, 6 busy, 7 nothing there"
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
    /// Check everything that can be reached on the storage
    Verify(VerifyArgs),
    /// Read a vault into a directory without mounting it
    Export(ExportArgs),
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
pub(crate) enum Durability {
    /// fsync returns when the local journal has it on stable storage
    Local,
    /// fsync returns when the storage has it
    Remote,
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
}

#[derive(Args)]
pub(crate) struct SyncArgs {
    /// The mount point, or anything below it
    pub dir: PathBuf,
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
pub(crate) struct VerifyArgs {
    /// The vault
    pub vault: String,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// Read and authenticate every block too
    #[arg(long)]
    pub data: bool,
    /// Findings and summary as JSON, for scripts
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
}

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// The storage; nothing is left behind there
    pub vault: String,
    /// Results as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Bytes from `4096`, `64KiB`, `10GiB`, `1.5TiB` or the decimal `10GB`.
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

/// Options that people expect to take a secret. They are refused by name, so that the secret is never repeated.
const SECRET_OPTIONS: [&str; 8] = [
    "--passphrase",
    "--password",
    "--pass",
    "--words",
    "--secret",
    "--secret-key",
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
        if SECRET_OPTIONS.contains(&option) {
            return Err(Failure::new(
                Exit::Usage,
                format!("{option}: a secret on the command line can be read by every user of this machine, and stays in the shell's history"),
            )
            .remedy("use --passphrase-file or --words-file, the environment, or the prompt; and change that secret"));
        }
    }
    Ok(())
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
