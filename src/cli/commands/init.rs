//! `skrin init`: a vault, its first identity, and the twelve words.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use skrin_base::limits::CONTROL_MAX;
use skrin_storage::{
    Capacity, ErrorKind, Listing, ObjectName, Prefix, Store, StoreError, put_verified,
};
use skrin_vault::{HEADER_NAME, InitOptions, InitResult};
use zeroize::Zeroizing;

use crate::args::InitArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::machine::{OsEntropy, SystemClock};
use crate::store::{SHORT_PATIENCE, StoreSpec};
use crate::{print, secret};

/// What `--json` says. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize)]
struct Initialized<'a> {
    vault: &'a str,
    vault_id: String,
    /// The file that holds the words.
    words_file: Option<String>,
    /// The words, where no file does: there is no second chance to learn them.
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<&'a str>,
}

impl<'a> Initialized<'a> {
    fn new(vault: &'a str, made: &'a InitResult, file: Option<&Path>) -> Self {
        Self {
            vault,
            vault_id: made.anchor.vault.to_string(),
            words_file: file.map(|path| path.display().to_string()),
            words: file.is_none().then_some(made.words.as_str()),
        }
    }
}

/// Makes a vault.
///
/// # Errors
/// `Busy` where one is there already or the words file exists, `Usage` for a weak passphrase, `Other` where nobody can be told the words.
pub(crate) fn run(args: &InitArgs) -> Outcome {
    let spec = StoreSpec::new(&args.vault)?;
    let passphrase = secret::new_passphrase(args.passphrase_file.as_deref())?;
    // Before anything is written: words that cannot be kept would be lost.
    let words_file = args
        .words_file
        .as_deref()
        .map(WordsFile::create)
        .transpose()?;
    let mut options = InitOptions::new(&owner(args));
    options.passphrase = Some(Zeroizing::new(passphrase.expose().to_owned()));
    let store = spec.open(true, SHORT_PATIENCE)?;
    let vault = store.place();
    let tell = |made: &InitResult| -> Outcome<Option<PathBuf>> {
        // Where they cannot be written they are told instead, for there is no second chance.
        let kept = words_file.and_then(|file| file.keep(&made.words));
        match (kept, args.json) {
            (Some(_), _) => {}
            (None, true) => print::json_or_error(&Initialized::new(&vault, made, None))
                .map_err(|error| untold(&error))?,
            (None, false) => show(&made.words)?,
        }
        Ok(kept.map(Path::to_owned))
    };
    let (made, kept) = super::runtime()?.block_on(make(store, &options, tell))?;
    match (kept, args.json) {
        (None, true) => {}
        (kept, true) => print::json(&Initialized::new(&vault, &made, kept.as_deref())),
        (kept, false) => {
            print::line(format!("made vault {} at {vault}", made.anchor.vault));
            if let Some(path) = kept {
                print::line(format!("the twelve words are in {}", path.display()));
            }
        }
    }
    Ok(())
}

/// Makes a vault. Whatever becomes of the last step, `tell` has handed the words out before it.
async fn make<T>(
    store: Arc<dyn Store>,
    options: &InitOptions,
    tell: impl FnOnce(&InitResult) -> Outcome<T>,
) -> Outcome<(InitResult, T)> {
    let headless = Headless {
        store,
        header: Mutex::new(None),
    };
    let made = skrin_vault::init(&headless, options, &SystemClock, &OsEntropy).await?;
    let told = tell(&made).map_err(|failure| {
        failure.remedy("no vault was made: name another place, or empty this one unless a vault is in it by now, and try again with --words-file")
    })?;
    let place = headless.store.place();
    headless.finish().await.map_err(|error| match error.kind() {
        ErrorKind::Exists => Failure::new(
            Exit::Busy,
            format!("{place}: somebody else made a vault there meanwhile; the words that were just told open nothing"),
        )
        .remedy("destroy them, and leave that vault alone: it has words of its own"),
        _ => Failure::from(error)
            .during("the vault may not be there, though its words were handed out")
            .remedy("if `skrin mount` opens it with these words, all is well; if it finds no vault, empty the place and begin anew; if the words are wrong, the vault there is another one: leave it alone"),
    })?;
    Ok((made, told))
}

/// A storage that keeps the header back: with it there is a vault, which nobody is to have whose words nobody has.
struct Headless {
    store: Arc<dyn Store>,
    header: Mutex<Option<Bytes>>,
}

impl Headless {
    /// Puts the header and reads it back.
    async fn finish(self) -> Result<(), StoreError> {
        let header = self.header.into_inner();
        let header =
            header.ok_or_else(|| StoreError::new(ErrorKind::Broken, "there is no header"))?;
        let name = ObjectName::new(HEADER_NAME)?;
        // Telling the words takes its time, and a storage may put one thing over another.
        match self.store.get(&name, CONTROL_MAX).await {
            Err(error) if error.is_absent() => {}
            Err(error) if error.kind() != ErrorKind::Broken => return Err(error),
            _ => {
                return Err(StoreError::new(
                    ErrorKind::Exists,
                    "there is a header by now",
                ));
            }
        }
        put_verified(&*self.store, &name, header).await.map(drop)
    }

    fn kept_back(&self, name: &ObjectName) -> Option<Bytes> {
        let is_header = name.as_str() == HEADER_NAME;
        is_header.then(|| self.header.lock().clone())?
    }
}

#[async_trait]
impl Store for Headless {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        if name.as_str() == HEADER_NAME {
            *self.header.lock() = Some(bytes);
            return Ok(());
        }
        self.store.put(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        match self.kept_back(name) {
            Some(bytes) => Ok(bytes),
            None => self.store.get(name, max).await,
        }
    }
    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        self.store.get_range(name, start, len).await
    }
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        self.store.list(dir).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.store.delete(name).await
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        self.store.capacity().await
    }
    fn place(&self) -> String {
        self.store.place()
    }
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
///
/// # Errors
/// `Other` where they cannot be shown: nobody has them then.
pub(super) fn show(words: &str) -> Outcome {
    let about = [
        "",
        "These twelve words open the vault on any machine. They are shown only now: write them down,",
        "keep them where nobody else finds them, and never in a file beside the vault.",
        "",
    ];
    let lines = about.into_iter().map(str::to_owned).chain(rows(words));
    tell_once(lines)
}

/// Prints lines of which there is no second copy. One by one: on a terminal the printer escapes what would move the cursor, a line end
/// included.
///
/// # Errors
/// `Other` where that cannot be done.
pub(super) fn tell_once(lines: impl IntoIterator<Item = String>) -> Outcome {
    let mut lines = lines.into_iter();
    let told = lines.try_for_each(print::line_or_error);
    told.map_err(|error| untold(&error))
}

/// Why nobody has what was to be told once.
pub(super) fn untold(error: &io::Error) -> Failure {
    let what = format!("standard output does not take what is told only once: {error}");
    Failure::new(Exit::Other, what)
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
            io::ErrorKind::AlreadyExists => Failure::new(
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
                let _ = std::fs::remove_file(self.path);
                print::note(Failure::io(self.path, "cannot write the words", &error));
                None
            }
            _ => {
                // Its name, too: where the directory may not be read, the words are in the file all the same.
                let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
                let dir = std::fs::File::open(dir.unwrap_or(Path::new(".")));
                if let Err(error) = dir.and_then(|dir| dir.sync_all()) {
                    print::note(Failure::io(
                        self.path,
                        "its directory cannot be synced",
                        &error,
                    ));
                }
                Some(self.path)
            }
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

#[cfg(test)]
mod tests {
    use skrin_storage::MemoryStore;
    use skrin_vault::{Secret, open_header, unlock};

    use super::*;

    /// Takes everything, and does not show a header that it has.
    struct Blind(MemoryStore);

    #[async_trait]
    impl Store for Blind {
        async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
            self.0.put(name, bytes).await
        }
        async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
            match self.0.get(name, max).await {
                Ok(_) if name.as_str() == HEADER_NAME => {
                    Err(StoreError::new(ErrorKind::Transient, "no answer"))
                }
                got => got,
            }
        }
        async fn get_range(
            &self,
            name: &ObjectName,
            start: u64,
            len: usize,
        ) -> Result<Bytes, StoreError> {
            self.0.get_range(name, start, len).await
        }
        async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
            self.0.list(dir).await
        }
        async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
            self.0.delete(name).await
        }
        async fn capacity(&self) -> Result<Capacity, StoreError> {
            self.0.capacity().await
        }
        fn place(&self) -> String {
            self.0.place()
        }
    }

    #[tokio::test]
    async fn nothing_is_put_over_a_vault_that_somebody_else_made_while_the_words_were_told() {
        let store = Arc::new(MemoryStore::new());
        let name = ObjectName::new(HEADER_NAME).unwrap();
        let tell = |_: &InitResult| {
            store.tamper(&name, Some(Bytes::from_static(b"of another vault")));
            Ok(())
        };
        let dynamic: Arc<dyn Store> = store.clone();
        let made = make(dynamic, &InitOptions::new("anna"), tell).await;
        let failure = made.err().unwrap();
        assert_eq!(failure.exit, Exit::Busy);
        assert!(failure.to_string().contains("somebody else"), "{failure}");
        assert_eq!(store.peek(&name).unwrap(), "of another vault");
    }

    #[tokio::test]
    async fn the_words_of_a_vault_whose_header_cannot_be_read_back_are_told_all_the_same() {
        let store = Arc::new(Blind(MemoryStore::new()));
        let mut words = None;
        let tell = |made: &InitResult| {
            words = Some(made.words.clone());
            Ok(())
        };
        let dynamic: Arc<dyn Store> = store.clone();
        let made = make(dynamic, &InitOptions::new("anna"), tell).await;
        let failure = made.err().unwrap();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.to_string().contains("handed out"), "{failure}");
        // It is there, and they open it.
        unlock(&store.0, &Secret::Words(words.unwrap()))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn where_nobody_can_be_told_the_words_there_is_no_vault() {
        let store = Arc::new(MemoryStore::new());
        let tell = |_: &InitResult| -> Outcome {
            Err(untold(&io::Error::from(io::ErrorKind::StorageFull)))
        };
        let dynamic: Arc<dyn Store> = store.clone();
        let made = make(dynamic, &InitOptions::new("anna"), tell).await;
        let failure = made.err().unwrap();
        assert_eq!(failure.exit, Exit::Other);
        assert!(open_header(&*store).await.is_err());
    }
}
