//! Sealed files of the state directory: only the device that wrote one can read it.

use std::io;
use std::path::{Path, PathBuf};

use skrin_base::VaultId;
use skrin_base::limits::FORMAT_VERSION;
use skrin_base::wire::{Reader, Writer};
use skrin_crypto::{LocalAad, LocalKey, open, seal};
use skrin_fs::LocalKeeper;
use skrin_vault::Device;

use crate::exit::{Exit, Failure, Outcome};
use crate::machine::OsEntropy;
use crate::unlock::replace_durably;

const MAGIC: &[u8; 4] = b"SKRN";

/// A file that is written and read as a whole, and what seals it.
pub(crate) struct SealedFile {
    path: PathBuf,
    key: LocalKey,
    aad: LocalAad,
}

impl SealedFile {
    /// The file of that purpose, which is its name, in a state directory.
    pub(crate) fn new(
        state_dir: &Path,
        purpose: &'static str,
        device: &Device,
        vault: VaultId,
    ) -> Self {
        Self::with_key(state_dir, purpose, device.local_key(vault, purpose), vault)
    }

    pub(crate) fn with_key(
        state_dir: &Path,
        purpose: &'static str,
        key: LocalKey,
        vault: VaultId,
    ) -> Self {
        let aad = LocalAad {
            purpose,
            vault,
            context: Vec::new(),
        };
        Self {
            path: state_dir.join(purpose),
            key,
            aad,
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was stored last; `None` where there is no file.
    ///
    /// # Errors
    /// `Integrity` where it does not open: it is never taken for empty.
    pub(crate) fn load(&self) -> Outcome<Option<Vec<u8>>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::io(&self.path, "cannot read it", &e)),
        };
        self.open(&bytes).map(Some).ok_or_else(|| self.damaged())
    }

    /// That what it holds is not what was stored.
    pub(crate) fn damaged(&self) -> Failure {
        let what = format!(
            "{}: it is damaged, or of another device",
            self.path.display()
        );
        Failure::new(Exit::Integrity, what)
    }

    fn open(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut r = Reader::new(bytes);
        if r.raw(MAGIC.len()) != Ok(MAGIC) || r.u8() != Ok(FORMAT_VERSION) {
            return None;
        }
        let plain = open(&self.key, &self.aad, r.rest()).ok()?;
        Some(plain.to_vec())
    }

    /// Replaces it; after a crash there is either this or what was before.
    ///
    /// # Errors
    /// Of the disk.
    pub(crate) fn store(&self, plain: &[u8]) -> io::Result<()> {
        let mut w = Writer::default();
        w.raw(MAGIC);
        w.u8(FORMAT_VERSION);
        w.raw(&seal(&self.key, &self.aad, plain, &OsEntropy));
        replace_durably(&self.path, &w.into_bytes())
    }
}

impl LocalKeeper for SealedFile {
    fn store(&self, bytes: &[u8]) -> io::Result<()> {
        self.store(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, key: u8) -> SealedFile {
        let key = LocalKey::from_bytes([key; 32]);
        SealedFile::with_key(dir, "test", key, VaultId([1; 16]))
    }

    #[test]
    fn what_was_stored_comes_back_and_a_changed_file_is_an_error_and_never_none() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = file(dir.path(), 1);
        assert_eq!(sealed.load().unwrap(), None);
        sealed.store(b"what is kept").unwrap();
        assert_eq!(
            sealed.load().unwrap().as_deref(),
            Some(&b"what is kept"[..])
        );
        assert!(file(dir.path(), 2).load().is_err());
        let bytes = std::fs::read(sealed.path()).unwrap();
        assert!(!bytes.windows(4).any(|four| four == b"what"));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(sealed.path(), &changed).unwrap();
            assert_eq!(sealed.load().unwrap_err().exit, Exit::Integrity, "at {at}");
            std::fs::write(sealed.path(), &bytes[..at]).unwrap();
            assert_eq!(
                sealed.load().unwrap_err().exit,
                Exit::Integrity,
                "cut at {at}"
            );
        }
    }
}
