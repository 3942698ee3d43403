//! What was typed about people, devices and keys.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{PlaceArgs, UnlockArgs, parse_time};

#[derive(Subcommand)]
pub(crate) enum IdentityVerb {
    /// Show name, id and safety number
    Show {
        #[command(flatten)]
        at: PlaceArgs,
        /// Show the safety number as a QR code, too
        #[arg(long)]
        qr: bool,
        /// Of this member instead: a name, or the first digits of an id
        #[arg(long, value_name = "PERSON")]
        of: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// May also add, change and remove members
    Manager,
    /// May change files
    Editor,
    /// May read
    Reader,
}

#[derive(Args)]
pub(crate) struct InviteArgs {
    /// The mount point, or anything below it
    pub dir: PathBuf,
    /// What the others are to call that person
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// What that person may do
    #[arg(long, value_enum, default_value = "editor")]
    pub role: Role,
    /// The invitation is good for so long
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_time)]
    pub expires: u64,
    /// The membership ends then
    #[arg(long, value_name = "DATE", value_parser = crate::past::parse_date)]
    pub until: Option<i64>,
    /// Write the invitation into this new file instead of showing it. Whoever has it can ask to be let in until it is used: hand
    /// it over outside the storage
    #[arg(long, value_name = "F")]
    pub output: Option<PathBuf>,
    /// One JSON object, for scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(crate) struct JoinArgs {
    /// The file with the invitation (- for standard input)
    pub invitation: PathBuf,
    /// Where the vault is, if not where the invitation says
    pub vault: Option<String>,
    /// What the others are to call you [default: what the invitation says]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Read the new passphrase from the first line of this file (- for standard input)
    #[arg(
        long,
        value_name = "F",
        env = "SKRIN_PASSPHRASE_FILE",
        hide_env_values = true
    )]
    pub passphrase_file: Option<PathBuf>,
    /// Write your twelve words into this new file instead of showing them
    #[arg(long, value_name = "F")]
    pub words_file: Option<PathBuf>,
    /// Keep local state below this directory [default: $XDG_STATE_HOME/skrin]
    #[arg(long, value_name = "D", env = "SKRIN_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Do not wait for the answer; the same command goes on
    #[arg(long)]
    pub no_wait: bool,
    /// One JSON object, for scripts; without --words-file it holds the words
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub(crate) enum MemberVerb {
    /// List members, and who was one
    List {
        #[command(flatten)]
        at: PlaceArgs,
    },
    /// Change what a member may do
    Role {
        /// The mount point, or anything below it
        dir: PathBuf,
        /// A name, or the first digits of an id
        person: String,
        #[arg(value_enum)]
        role: Role,
        /// One JSON object, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Remove a member: nothing that is written afterwards can be read by that person
    Remove {
        /// The mount point, or anything below it
        dir: PathBuf,
        /// A name, or the first digits of an id
        person: String,
        /// One JSON object, for scripts
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum DeviceVerb {
    /// List the devices of all members
    List {
        #[command(flatten)]
        at: PlaceArgs,
    },
    /// Revoke a device of your own that was lost: nothing that is written afterwards can be read with what was on it
    Revoke {
        /// The mount point, or anything below it
        dir: PathBuf,
        /// Its name, or the first digits of its id
        device: String,
        #[command(flatten)]
        unlock: UnlockArgs,
        /// One JSON object, for scripts
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(crate) struct PassphraseArgs {
    /// The vault
    pub vault: String,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// Read the new passphrase from the first line of this file (- for standard input)
    #[arg(long, value_name = "F")]
    pub new_passphrase_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum RecoveryVerb {
    /// Make a recovery key: whoever has it reads everything in the vault, and all members see that there is one
    Enable {
        /// The vault, or a mount of it
        vault: String,
        #[command(flatten)]
        unlock: UnlockArgs,
        /// What members are to see it as
        #[arg(long, value_name = "NAME", default_value = "recovery key")]
        name: String,
        /// Divide it: with 2/3, any two of three people have it together
        #[arg(long, value_name = "K/N", value_parser = parse_division)]
        shares: Option<(u8, u8)>,
        /// Write it into this new file, or its shares into files of this new directory, instead of showing it
        #[arg(long, value_name = "F")]
        output: Option<PathBuf>,
        /// Show QR codes, too
        #[arg(long)]
        qr: bool,
        /// One JSON object, for scripts; without --output it holds the words
        #[arg(long)]
        json: bool,
    },
    /// Show that a recovery key works, without reading anybody's files. All members see that it was done
    Drill {
        /// The vault
        vault: String,
        #[command(flatten)]
        unlock: UnlockArgs,
        /// One JSON object, for scripts
        #[arg(long)]
        json: bool,
    },
}

/// How a recovery key is divided: how many shares are needed, of how many.
fn parse_division(text: &str) -> Result<(u8, u8), String> {
    let parts = text.split_once('/');
    let parts = parts.and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    parts.ok_or_else(|| "it looks like 2/3: two of three shares are needed".to_owned())
}

#[derive(Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub at: PlaceArgs,
    /// Only what came since then: 2026-11-21T14:03:00Z, "2026-11-21 14:03" (local time), 1h, 30m, 2d
    #[arg(long, value_name = "TIME", value_parser = crate::past::parse_since)]
    pub since: Option<i64>,
}
