//! `skrin init`: a vault, its first identity, and the twelve words.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::args::InitArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::machine::{OsEntropy, SystemClock};
use crate::store::{SHORT_PATIENCE, StoreSpec};
use crate::{print, secret};

/// What `--json` says. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize)]
struct Initialized<'a> {
    vault: String,
    vault_id: String,
    /// The file that holds the words.
    words_file: Option<String>,
    /// The words, where no file does: there is no second chance to learn them.
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<&'a str>,
}

/// Makes a vault.
///
/// # Errors
/// `Busy` where one is there already or the words file exists, `Usage` for a weak passphrase.
pub(crate) fn run(args: &InitArgs) -> Outcome {
    let spec = StoreSpec::new(&args.vault)?;
    let passphrase = secret::new_passphrase(args.passphrase_file.as_deref())?;
    // Before anything is written: words that cannot be kept would be lost.
    let words_file = args
        .words_file
        .as_deref()
        .map(WordsFile::create)
        .transpose()?;
    let mut options = skrin_vault::InitOptions::new(&owner(args));
    options.passphrase = Some(Zeroizing::new(passphrase.expose().to_owned()));
    let store = spec.open(true, SHORT_PATIENCE)?;
    let made = super::runtime()?.block_on(skrin_vault::init(
        &*store,
        &options,
        &SystemClock,
        &OsEntropy,
    ));
    let made = made.map_err(Failure::from)?;
    let (vault, vault_id) = (store.place(), made.anchor.vault.to_string());
    if !args.json {
        print::line(format!("made vault {vault_id} at {vault}"));
    }
    // Where they cannot be written they are told instead, for there is no second chance.
    let kept = words_file.and_then(|file| file.keep(&made.words));
    let words = kept.is_none().then_some(made.words.as_str());
    if args.json {
        print::json(&Initialized {
            vault,
            vault_id,
            words_file: kept.map(|path| path.display().to_string()),
            words,
        });
    } else if let Some(path) = kept {
        print::line(format!("the twelve words are in {}", path.display()));
    } else {
        show(&made.words);
    }
    Ok(())
}

fn owner(args: &InitArgs) -> String {
    args.owner.clone().unwrap_or_else(user)
}

/// What the system calls whoever runs this.
pub(super) fn user() -> String {
    let user = std::env::var("USER").ok().filter(|name| !name.is_empty());
    user.unwrap_or_else(|| "owner".into())
}

/// Shows the words, once.
pub(super) fn show(words: &str) {
    // Line by line: on a terminal the printer escapes what would move the cursor, a line end included.
    print::line("");
    print::line(
        "These twelve words open the vault on any machine. They are shown only now: write them down,",
    );
    print::line("keep them where nobody else finds them, and never in a file beside the vault.");
    print::line("");
    rows(words).into_iter().for_each(print::line);
}

/// Words in numbered rows of four.
pub(super) fn rows(words: &str) -> Vec<String> {
    let words: Vec<&str> = words.split(' ').collect();
    let row = |(row, four): (usize, &[&str])| {
        let numbered = four
            .iter()
            .enumerate()
            .map(|(i, word)| format!("{:2}. {word:<10}", row * 4 + i + 1));
        format!("    {}", numbered.collect::<String>().trim_end())
    };
    words.chunks(4).enumerate().map(row).collect()
}

/// A new private file; removed again unless the words reach it.
pub(super) struct WordsFile<'a> {
    path: &'a Path,
    file: Option<std::fs::File>,
}

impl<'a> WordsFile<'a> {
    /// Makes the file.
    ///
    /// # Errors
    /// `Busy` where it exists.
    pub(super) fn create(path: &'a Path) -> Outcome<Self> {
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = opened.map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::new(
                Exit::Busy,
                format!("{}: the words file is there already", path.display()),
            )
            .remedy("name a new file: other words may be in this one"),
            _ => Failure::io(path, "cannot make the words file", &e),
        })?;
        Ok(Self {
            path,
            file: Some(file),
        })
    }

    /// Writes the words; where to. `None` if that fails, which is said.
    pub(super) fn keep(mut self, words: &str) -> Option<&'a Path> {
        let written = self.file.take().map(|mut file| {
            file.write_all(words.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        });
        match written {
            Some(Err(error)) => {
                print::note(Failure::io(self.path, "cannot write the words", &error));
                None
            }
            _ => Some(self.path),
        }
    }
}

impl Drop for WordsFile<'_> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(self.path);
        }
    }
}
