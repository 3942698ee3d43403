//! Secrets as text: from a file, standard input or a prompt; wiped when dropped, never printed.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::args::UnlockArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::print;

/// Longest secret file that is read; a passphrase has at most 4096 bytes.
const FILE_MAX: u64 = 8192;

/// Text that is wiped when dropped. Serialized only into the pipe to our own child process.
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over a string.
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// What opens a vault.
#[derive(Serialize, Deserialize)]
pub(crate) enum Credential {
    /// A passphrase, as typed.
    Passphrase(Secret),
    /// Twelve words, as typed; not yet checked.
    Words(Secret),
}

/// Finds what opens a vault: a words file, a passphrase file, the environment, and last a prompt.
///
/// # Errors
/// `Usage` where both were named or nobody can be asked, `Absent` for a missing file.
pub(crate) fn credential(unlock: &UnlockArgs) -> Outcome<Credential> {
    if !unlock.share_file.is_empty() {
        return shares(unlock).map(Credential::Words);
    }
    // A passphrase file from the environment is a default that --words-file overrules.
    let passphrase_typed = unlock.passphrase_file.is_some()
        && std::env::var_os("SKRIN_PASSPHRASE_FILE").as_deref()
            != unlock.passphrase_file.as_deref().map(Path::as_os_str);
    match (&unlock.words_file, &unlock.passphrase_file) {
        (Some(_), Some(_)) if passphrase_typed => Err(Failure::new(
            Exit::Usage,
            "--words-file and --passphrase-file were both given",
        )
        .remedy("give one of them")),
        (Some(file), _) => Ok(Credential::Words(read_whole(file)?)),
        (None, Some(file)) => Ok(Credential::Passphrase(read_first_line(file)?)),
        (None, None) => Ok(Credential::Passphrase(prompt("Passphrase: ")?)),
    }
}

/// The words that shares of a recovery key are of.
fn shares(unlock: &UnlockArgs) -> Outcome<Secret> {
    if unlock.words_file.is_some() {
        return Err(
            Failure::new(Exit::Usage, "--words-file and --share-file were both given")
                .remedy("give one of them"),
        );
    }
    let read: Vec<Secret> = unlock
        .share_file
        .iter()
        .map(|file| read_first_line(file))
        .collect::<Outcome<_>>()?;
    let texts: Vec<&str> = read.iter().map(Secret::expose).collect();
    let words = skrin_crypto::shares::join(&texts).map_err(|error| {
        Failure::new(Exit::Secret, error).remedy(
            "each --share-file names a file whose first line is the fifteen words of one share",
        )
    })?;
    Ok(Secret(skrin_crypto::words::words_of(&words)))
}

/// The passphrase for a new vault; typed twice where it is typed.
///
/// # Errors
/// As [`credential`], and `Usage` where the two differ.
pub(crate) fn new_passphrase(file: Option<&Path>) -> Outcome<Secret> {
    if let Some(file) = file {
        return read_first_line(file);
    }
    let first = prompt("New passphrase (several random words are best): ")?;
    let second = prompt("Once more: ")?;
    if first.expose() != second.expose() {
        return Err(Failure::new(Exit::Usage, "the two passphrases differ").remedy("try again"));
    }
    Ok(first)
}

/// Asks on the terminal, without echo.
///
/// # Errors
/// `Usage` where there is no terminal.
pub(crate) fn prompt(question: &str) -> Outcome<Secret> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "a passphrase is needed, and there is no terminal to ask for it",
        )
        .remedy("use --passphrase-file, --words-file or SKRIN_PASSPHRASE_FILE"));
    }
    rpassword::prompt_password(question)
        .map(Secret::new)
        .map_err(|e| Failure::new(Exit::Other, format!("the prompt failed: {e}")))
}

fn open(path: &Path) -> Outcome<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let file = File::open(path).map_err(|e| unreadable(path, "the secret", &e))?;
    if let Ok(meta) = file.metadata()
        && meta.is_file()
        && meta.mode() & 0o077 != 0
    {
        print::note(format!(
            "warning: {} can be read by other users; chmod 600 it",
            path.display()
        ));
    }
    Ok(Box::new(file))
}

fn unreadable(path: &Path, what: &str, error: &std::io::Error) -> Failure {
    Failure::io(path, &format!("cannot read {what}"), error).remedy(
        "--passphrase-file, --words-file and SKRIN_PASSPHRASE_FILE name a text file that you can read; without them you are asked",
    )
}

/// The first line, as an editor leaves it, without its line end.
fn read_first_line(path: &Path) -> Outcome<Secret> {
    let mut text = Zeroizing::new(String::with_capacity(FILE_MAX as usize));
    BufReader::new(open(path)?.take(FILE_MAX))
        .read_line(&mut text)
        .map_err(|e| unreadable(path, "the passphrase", &e))?;
    let line = text.trim_end_matches(['\n', '\r']);
    if line.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "{}: the first line is empty; it must hold the passphrase",
                path.display()
            ),
        ));
    }
    Ok(Secret::new(line.to_owned()))
}

fn read_whole(path: &Path) -> Outcome<Secret> {
    let mut text = Zeroizing::new(String::with_capacity(FILE_MAX as usize));
    open(path)?
        .take(FILE_MAX)
        .read_to_string(&mut text)
        .map_err(|e| unreadable(path, "the words", &e))?;
    Ok(Secret::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(contents: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents).unwrap();
        file
    }

    #[test]
    fn only_the_line_end_is_cut_from_a_passphrase() {
        let file = file("  two words \r\nsecond line\n");
        assert_eq!(
            read_first_line(file.path()).unwrap().expose(),
            "  two words "
        );
    }

    #[test]
    fn an_empty_passphrase_file_is_refused() {
        let failure = read_first_line(file("\n").path()).err().unwrap();
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn a_missing_secret_file_is_named() {
        let failure = read_whole(Path::new("/nowhere/words")).err().unwrap();
        assert_eq!(failure.exit, Exit::Absent);
        let text = failure.to_string();
        assert!(
            text.contains("/nowhere/words") && text.contains("--words-file"),
            "{text}"
        );
    }
}
