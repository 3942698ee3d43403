//! Which files and directories this machine keeps: inode numbers in a sealed file of the state directory.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use skrin_base::{Ino, VaultId};
use skrin_vault::Device;

use crate::exit::{Failure, Outcome};
use crate::sealed::SealedFile;

const PURPOSE: &str = "pins";

/// The file `pins`.
pub(crate) struct PinFile(SealedFile);

impl PinFile {
    /// The file in a state directory.
    pub(crate) fn new(state_dir: &Path, device: &Device, vault: VaultId) -> Arc<Self> {
        Arc::new(Self(SealedFile::new(state_dir, PURPOSE, device, vault)))
    }

    /// What is pinned; nothing where there is no file.
    ///
    /// # Errors
    /// `Integrity` where it does not open: it is never taken for empty, as what was pinned would be let go.
    pub(crate) fn load(&self) -> Outcome<BTreeSet<Ino>> {
        let explained = |failure: Failure| {
            failure.remedy("delete it, mount, and pin again what this machine is to keep")
        };
        let Some(plain) = self.0.load().map_err(explained)? else {
            return Ok(BTreeSet::new());
        };
        let (numbers, rest) = plain.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(explained(self.0.damaged()));
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
        let stored = self.0.store(&numbers);
        stored.map_err(|e| Failure::io(self.0.path(), "cannot write it", &e))
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
        let pins = PinFile(SealedFile::with_key(
            dir.path(),
            PURPOSE,
            key,
            VaultId([1; 16]),
        ));
        assert_eq!(pins.load().unwrap(), BTreeSet::new());
        let wanted = BTreeSet::from([Ino::ROOT, Ino(77), Ino(u64::MAX)]);
        pins.store(&wanted).unwrap();
        assert_eq!(pins.load().unwrap(), wanted);
        pins.0.store(b"no list").unwrap();
        assert!(pins.load().is_err());
    }
}
