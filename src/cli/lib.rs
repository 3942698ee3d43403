//! The command line: what was typed (`args`), what it means, and then the act (`commands`). Everything below this
//! crate is a library; this one talks to people, to the terminal and to the operating system.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod conflicts;
mod control;
mod credentials;
mod events;
mod exit;
mod finding;
mod fsck;
mod harden;
#[cfg(target_os = "linux")]
mod helper;
mod invitations;
mod left_out;
mod log;
mod lost;
mod machine;
mod mend;
mod mirror;
mod mount_point;
mod mount_table;
mod officer;
mod past;
mod people;
mod pins;
mod print;
mod progress;
mod reader;
mod repair;
mod rollbacks;
mod scrub;
mod sealed;
mod secret;
mod serve;
mod session;
mod state_dir;
mod store;
mod told;
mod unlock;

/// What reads the files in which people keep credentials, and that of pins, for the fuzz targets.
#[cfg(feature = "testutil")]
pub mod testutil {
    use std::collections::BTreeSet;
    use std::path::Path;

    use skrin_base::{Ino, VaultId};
    use skrin_crypto::LocalKey;

    use crate::credentials::{ini, netrc};
    use crate::pins::PinFile;
    use crate::sealed::SealedFile;

    /// User and password that a .netrc has for a host, and for this user if one is wanted.
    pub fn netrc(text: &str, host: &str, user: Option<&str>) -> Option<(String, String)> {
        netrc::find(text, host, user)
    }

    /// The value of a key in a section of a file of ~/.aws.
    pub fn ini(text: &str, section: &str, key: &str) -> Option<String> {
        ini::parse(text).get(section, key)
    }

    /// What the file `pins` of a state directory says; `None` for one that is damaged, or of another device.
    pub fn pins(state_dir: &Path, key: LocalKey, vault: VaultId) -> Option<BTreeSet<Ino>> {
        let file = SealedFile::with_key(state_dir, "pins", key, vault);
        PinFile::of(file).load().ok()
    }
}

use std::process::ExitCode;

use clap::Parser;

use args::{Command, Typed};
use exit::{Exit, Outcome};

/// Runs the program.
pub fn main() -> ExitCode {
    harden::no_dumps();
    harden::private_files();
    let arguments: Vec<_> = std::env::args_os().collect();
    #[cfg(target_os = "linux")]
    if helper::is_meant(&arguments) {
        return helper::main(&arguments);
    }
    let outcome =
        args::refuse_secrets(&arguments).and_then(|()| match Typed::try_parse_from(&arguments) {
            Ok(typed) => run(typed.command),
            Err(error) => args::not_understood(&error),
        });
    let exit = match outcome {
        Ok(()) => Exit::Done,
        Err(failure) => {
            print::failure(&failure);
            failure.exit
        }
    };
    ExitCode::from(exit as u8)
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Init(args) => commands::init::run(&args),
        Command::Unmount(args) => commands::unmount::run(&args),
        Command::Sync(args) => commands::sync::run(&args),
        Command::Gc(args) => commands::gc::run(&args),
        Command::Retention(args) => commands::gc::retention(&args),
        Command::Status(args) => commands::status::run(&args),
        Command::History(args) => commands::history::run(&args),
        Command::Restore(args) => commands::restore::run(&args),
        Command::Snapshot { verb } => commands::snapshot::run(&verb),
        Command::Conflicts(args) => commands::conflicts::run(&args),
        Command::Pin(args) => commands::pin::pin(&args),
        Command::Unpin(args) => commands::pin::unpin(&args),
        Command::Mount(args) => commands::mount::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Serve => commands::mount::serve_parent(),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Scrub(args) => commands::scrub::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Identity { verb } => commands::member::identity(&verb),
        Command::Invite(args) => commands::invite::run(&args),
        Command::Join(args) => commands::join::run(&args),
        Command::Member { verb } => commands::member::run(&verb),
        Command::Device { verb } => commands::member::devices(&verb),
        Command::Passphrase(args) => commands::passphrase::run(&args),
        Command::Recovery { verb } => commands::recovery::run(&verb),
        Command::Audit(args) => commands::member::audit(&args),
        Command::AcceptRollback(args) => commands::accept_rollback::run(&args),
    }
}
