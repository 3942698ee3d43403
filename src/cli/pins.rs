//! Which files and directories this machine keeps: inode numbers in a sealed file of the state directory.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use skrin_base::{Ino, VaultId};
use skrin_vault::Device;

use crate::exit::{Failure, Outcome};
use crate::sealed::SealedFile;

const PURPOSE: &str = "pins";

/// The file `pins`.
pub(crate) struct PinFile {
    file: SealedFile,
    changing: Mutex<()>,
}

impl PinFile {
    /// The file in a state directory.
    pub(crate) fn new(state_dir: &Path, device: &Device, vault: VaultId) -> Arc<Self> {
        let file = SealedFile::new(state_dir, PURPOSE, device, vault);
        Arc::new(Self::of(file))
    }

    /// In this file.
    pub(crate) fn of(file: SealedFile) -> Self {
        Self {
            file,
            changing: Mutex::default(),
        }
    }

    /// To be held from before what is pinned is looked at until it is replaced: of two who do so at once the first would be undone.
    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// What is pinned; nothing where there is no file.
    ///
    /// # Errors
    /// `Integrity` where it does not open: it is never taken for empty, as what was pinned would be let go.
    pub(crate) fn load(&self) -> Outcome<BTreeSet<Ino>> {
        let explained = |failure: Failure| {
            failure.remedy("delete it, mount, and pin again what this machine is to keep")
        };
        let Some(plain) = self.file.load().map_err(explained)? else {
            return Ok(BTreeSet::new());
        };
        let (numbers, rest) = plain.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(explained(self.file.damaged()));
        }
        let inodes = numbers.iter().map(|n| Ino(u64::from_le_bytes(*n)));
        Ok(inodes.collect())
    }

    /// Replaces it.
    ///
    /// # Errors
    /// A disk that cannot be written.
    pub(crate) fn store(&self, pins: &BTreeSet<Ino>) -> Outcome {
        let numbers: Vec<u8> = pins.iter().flat_map(|ino| ino.0.to_le_bytes()).collect();
        let stored = self.file.store(&numbers);
        stored.map_err(|e| Failure::io(self.file.path(), "cannot write it", &e))
    }
}

#[cfg(test)]
mod tests {
    use skrin_crypto::LocalKey;

    use super::*;

    #[test]
    fn pins_come_back_and_what_is_no_list_of_them_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let key = LocalKey::from_bytes([1; 32]);
        let file = SealedFile::with_key(dir.path(), PURPOSE, key, VaultId([1; 16]));
        let pins = PinFile::of(file);
        assert_eq!(pins.load().unwrap(), BTreeSet::new());
        let wanted = BTreeSet::from([Ino::ROOT, Ino(77), Ino(u64::MAX)]);
        pins.store(&wanted).unwrap();
        assert_eq!(pins.load().unwrap(), wanted);
        pins.file.store(b"no list").unwrap();
        assert!(pins.load().is_err());
    }
}
