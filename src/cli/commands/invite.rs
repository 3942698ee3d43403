//! `skrin invite`: an invitation, to be handed over outside the storage.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::init::untold;
use super::member::ask_at;
use crate::args::InviteArgs;
use crate::commands::sync::senseless;
use crate::exit::{Exit, Failure, Outcome};
use crate::past::local;
use crate::people::{Answer, Request};
use crate::print;

/// Makes an invitation; the mount lets in whoever asks with it.
///
/// # Errors
/// `Busy` where the file is there already; `Other` where one may not invite.
pub(crate) fn run(args: &InviteArgs) -> Outcome {
    // Before anything is made: an invitation that cannot be kept would be lost.
    let file = args.output.as_deref().map(create).transpose()?;
    let made = ask_at(
        &args.dir,
        Request::Invite {
            name: args.name.clone(),
            role: args.role,
            expires: args.expires,
            until: args.until,
        },
    );
    let made = made.inspect_err(|_| {
        if let Some(path) = &args.output {
            let _ = std::fs::remove_file(path);
        }
    })?;
    let Answer::Invited(invited) = made else {
        return Err(senseless());
    };
    if let (Some(mut file), Some(path)) = (file, &args.output) {
        writeln!(file, "{}", invited.invitation)
            .and_then(|()| file.sync_all())
            .map_err(|e| Failure::io(path, "cannot write the invitation", &e))?;
    }
    let told = match (args.json, &args.output) {
        (true, _) => print::json_or_error(&invited),
        (false, Some(path)) => print::line_or_error(format!(
            "the invitation for {} is in {}",
            invited.name,
            path.display()
        )),
        (false, None) => print::line_or_error(&invited.invitation),
    };
    if let (Err(error), None) = (told, &args.output) {
        return Err(untold(&error).remedy("make another one: nobody has this one"));
    }
    if args.json {
        return Ok(());
    }
    print::note(format!(
        "hand it to {} yourself, not over the storage: whoever has it can ask to be let in until {}; this mount lets the first one in who does",
        invited.name,
        local(&invited.expires)
    ));
    Ok(())
}

fn create(path: &Path) -> Outcome<std::fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            Exit::Busy,
            format!("{}: there is a file already", path.display()),
        )
        .remedy("name a new file"),
        _ => Failure::io(path, "cannot make the file for the invitation", &e),
    })
}
