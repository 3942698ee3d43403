//! `skrin join`: from an invitation to a member with keys of his own.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use skrin_storage::Store;
use skrin_vault::{
    Argon2Params, Invitation, JoinOptions, Pending, Place, Secret, VaultError, join_request,
};
use zeroize::Zeroizing;

use super::init::{WordsFile, show, untold, user};
use crate::args::JoinArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::machine::{OsEntropy, SystemClock};
use crate::store::{SHORT_PATIENCE, StoreSpec};
use crate::unlock::write_durably;
use crate::{print, secret, state_dir};

/// How often it is looked whether the answer is there.
const LOOK: Duration = Duration::from_secs(1);
/// Longest invitation that is read.
const TEXT_MAX: u64 = 16 << 10;

/// What `--json` says. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize)]
struct Joined<'a> {
    vault: String,
    vault_id: String,
    /// Whether one is a member now; if not, the same command goes on.
    joined: bool,
    /// The file that holds the words, if this run made them.
    words_file: Option<String>,
    /// The words, where no file does: there is no second chance to learn them.
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<&'a str>,
}

/// Asks to be let in, waits for the answer, and makes what opens the vault.
///
/// # Errors
/// `Usage` for an invitation that cannot be used, `Integrity` for an answer that is not what it must be, `Busy` where the words file
/// exists, `Other` where nobody can be told the words.
pub(crate) fn run(args: &JoinArgs) -> Outcome {
    let invitation = Invitation::from_text(&read(&args.invitation)?)?;
    let address = args.vault.clone().or_else(|| invitation.place.clone());
    let address = address.ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            "the invitation does not say where the vault is",
        )
        .remedy("name it: skrin join INVITATION VAULT")
    })?;
    let spec = StoreSpec::new(&address)?;
    // Whoever wrote the invitation could name his own server.
    if args.vault.is_none() && spec.sends_password_of_environment() {
        return Err(Failure::new(
            Exit::Usage,
            format!("the invitation says that the vault is at {address}, and SKRIN_WEBDAV_PASSWORD would be sent there"),
        )
        .remedy("if that is the server of this password, name its address after the invitation: skrin join INVITATION VAULT"));
    }
    let store = spec.open(false, SHORT_PATIENCE)?;
    let base = state_dir::base(args.state_dir.as_deref())?;
    let file = base.join(format!("joining-{}", invitation.anchor.vault));
    let runtime = super::runtime()?;
    let joining = Joining {
        args,
        store: &*store,
        file: &file,
    };
    runtime.block_on(joining.run(invitation))
}

/// The text of an invitation; wiped like a secret.
fn read(path: &Path) -> Outcome<Zeroizing<String>> {
    let fail = |e: std::io::Error| Failure::io(path, "cannot read the invitation", &e);
    let from: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(fail)?),
    };
    let mut text = Zeroizing::new(String::with_capacity(TEXT_MAX as usize));
    from.take(TEXT_MAX)
        .read_to_string(&mut text)
        .map_err(fail)?;
    Ok(text)
}

struct Joining<'a> {
    args: &'a JoinArgs,
    store: &'a dyn Store,
    /// Holds root and words, sealed, until one is a member.
    file: &'a Path,
}

impl Joining<'_> {
    fn place(&self) -> Place<'_> {
        Place {
            store: self.store,
            clock: &SystemClock,
            entropy: &OsEntropy,
        }
    }

    async fn run(&self, invitation: Invitation) -> Outcome {
        let begun = self.begun()?;
        // Whether an earlier run has handed the words out.
        let are_told = begun.is_some() && !self.is_untold();
        let (pending, passphrase, words_file) = match begun {
            Some((pending, passphrase)) => {
                if pending.invitation().tag() != invitation.tag() {
                    return Err(Failure::new(
                        Exit::Busy,
                        "joining this vault was begun here with another invitation",
                    )
                    .remedy(format!(
                        "go on with that one, or delete {} to begin anew",
                        self.file.display()
                    )));
                }
                let kept = match are_told {
                    true => None,
                    false => self.hand_out(self.words_file()?, &pending)?,
                };
                (pending, passphrase, kept)
            }
            None => self.begin(invitation).await?,
        };
        pending.ask(&self.place()).await?;
        let joined = self.wait(&pending, &passphrase).await?;
        // Before what has the words goes.
        self.tell(&pending, (are_told, joined), words_file)?;
        if joined {
            std::fs::remove_file(self.file)
                .map_err(|e| Failure::io(self.file, "cannot remove it", &e))?;
        }
        Ok(())
    }

    /// There as long as nobody may have seen the words of what was begun: under `--json` without a file they are told at the end only, and
    /// a run may be stopped before.
    fn untold_file(&self) -> PathBuf {
        self.file.with_extension("untold")
    }

    fn is_untold(&self) -> bool {
        self.untold_file().try_exists().unwrap_or(true)
    }

    /// Notes that the words are with somebody. Where that fails they are told once more.
    fn are_told_now(&self) {
        let _ = std::fs::remove_file(self.untold_file());
    }

    fn words_file(&self) -> Outcome<Option<WordsFile<'_>>> {
        let path = self.args.words_file.as_deref();
        path.map(WordsFile::create).transpose()
    }

    /// Writes the words where that was asked for, else shows them; in which file they are. Under `--json` they are told at the end instead.
    fn hand_out(&self, file: Option<WordsFile<'_>>, pending: &Pending) -> Outcome<Option<PathBuf>> {
        let words = pending.words();
        let kept = file.and_then(|file| file.keep(&words));
        match (kept, self.args.json) {
            (None, true) => write_durably(&self.untold_file(), &[])?,
            (Some(_), _) => self.are_told_now(),
            (None, false) => {
                show(&words).map_err(|failure| failure.remedy("try again, with --words-file"))?;
                self.are_told_now();
            }
        }
        Ok(kept.map(Path::to_owned))
    }

    /// An earlier run of this command that did not come to its end.
    fn begun(&self) -> Outcome<Option<(Pending, Zeroizing<String>)>> {
        let bytes = match std::fs::read(self.file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::io(self.file, "cannot read it", &e)),
        };
        let text = match self.args.passphrase_file.as_deref() {
            Some(file) => secret::new_passphrase(Some(file))?,
            None => secret::prompt("Passphrase (the one you chose when you began to join): ")?,
        };
        let passphrase = Zeroizing::new(text.expose().to_owned());
        let pending = Pending::open(&bytes, &Secret::Passphrase(passphrase.clone()))?;
        Ok(Some((pending, passphrase)))
    }

    async fn begin(
        &self,
        invitation: Invitation,
    ) -> Outcome<(Pending, Zeroizing<String>, Option<PathBuf>)> {
        invitation.require_valid(&SystemClock)?;
        let text = secret::new_passphrase(self.args.passphrase_file.as_deref())?;
        let passphrase = Zeroizing::new(text.expose().to_owned());
        let words_file = self.words_file()?;
        let mut options = JoinOptions::new(&self.args.name.clone().unwrap_or_else(user));
        options.passphrase = Some(passphrase.clone());
        let pending = join_request(&self.place(), invitation, &options).await?;
        if let Some(dir) = self.file.parent() {
            state_dir::make_private(dir)?;
        }
        // Before they are kept: whoever goes on later does not show them again.
        let kept = self.hand_out(words_file, &pending)?;
        // Before anything is asked for: keys that nobody has any more are let in for nothing.
        write_durably(self.file, pending.to_file())?;
        Ok((pending, passphrase, kept))
    }

    /// Whether the answer came, and everything is done.
    async fn wait(&self, pending: &Pending, passphrase: &Zeroizing<String>) -> Outcome<bool> {
        let slot = Some((passphrase, Argon2Params::DEFAULT));
        let mut told = false;
        loop {
            match pending.finish(&self.place(), slot).await {
                Ok(_) => return Ok(true),
                Err(VaultError::Waiting(_)) if self.args.no_wait => return Ok(false),
                Err(VaultError::Waiting(_)) => {
                    // It ends while nobody answered.
                    pending.invitation().require_valid(&SystemClock)?;
                    if !std::mem::replace(&mut told, true) {
                        print::note(
                            "asked to be let in; waiting for a mount of who invited you to answer. You may stop this: the same command goes on",
                        );
                    }
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says how it stands.
    ///
    /// # Errors
    /// `Other` where the words are to be told and cannot be: the same command tells them again.
    fn tell(
        &self,
        pending: &Pending,
        (are_told, joined): (bool, bool),
        words_file: Option<PathBuf>,
    ) -> Outcome {
        let vault_id = pending.invitation().anchor.vault.to_string();
        let vault = self.store.place();
        if self.args.json {
            let words = pending.words();
            // An earlier run has written them into the file.
            let are_kept = words_file.is_some() || (are_told && self.args.words_file.is_some());
            let said = print::json_or_error(&Joined {
                vault,
                vault_id,
                joined,
                words: (!are_kept).then_some(words.as_str()),
                words_file: words_file.map(|path| path.display().to_string()),
            });
            match said {
                Err(error) if !are_kept => {
                    return Err(untold(&error).remedy("the same command tells it again"));
                }
                _ => self.are_told_now(),
            }
            return Ok(());
        }
        if let Some(path) = words_file {
            print::line(format!("the twelve words are in {}", path.display()));
        }
        print::line(match joined {
            true => format!(
                "you are a member of the vault {vault_id} now; mount it: skrin mount {vault} DIR"
            ),
            false => "asked to be let in; the same command goes on when you are".to_owned(),
        });
        Ok(())
    }
}
