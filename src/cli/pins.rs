//! Which files and directories this machine keeps: inode numbers in a sealed file of the state directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skrin_base::limits::FORMAT_VERSION;
use skrin_base::wire::{Reader, Writer};
use skrin_base::{Ino, VaultId};
use skrin_crypto::{LocalAad, LocalKey, open, seal};
use skrin_vault::Device;

use crate::exit::{Exit, Failure, Outcome};
use crate::machine::OsEntropy;
use crate::unlock::write_durably;

const MAGIC: &[u8; 4] = b"SKRN";
const PURPOSE: &str = "pins";

/// The file `pins`, and what seals it.
pub(crate) struct PinFile {
    path: PathBuf,
    key: LocalKey,
    aad: LocalAad,
}

impl PinFile {
    /// The file in a state directory.
    pub(crate) fn new(state_dir: &Path, device: &Device, vault: VaultId) -> Arc<Self> {
        Arc::new(Self {
            path: state_dir.join(PURPOSE),
            key: device.local_key(vault, PURPOSE),
            aad: LocalAad {
                purpose: PURPOSE,
                vault,
                context: Vec::new(),
            },
        })
    }

    /// What is pinned; nothing where there is no file.
    ///
    /// # Errors
    /// `Integrity` where it does not open: it is never taken for empty, as what was pinned would be let go.
    pub(crate) fn load(&self) -> Outcome<BTreeSet<Ino>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(e) => return Err(Failure::io(&self.path, "cannot read it", &e)),
        };
        self.open(&bytes).ok_or_else(|| {
            Failure::new(
                Exit::Integrity,
                format!("{}: it is damaged", self.path.display()),
            )
            .remedy("delete it, mount, and pin again what this machine is to keep")
        })
    }

    fn open(&self, bytes: &[u8]) -> Option<BTreeSet<Ino>> {
        let mut r = Reader::new(bytes);
        if r.raw(MAGIC.len()) != Ok(MAGIC) || r.u8() != Ok(FORMAT_VERSION) {
            return None;
        }
        let plain = open(&self.key, &self.aad, r.rest()).ok()?;
        let numbers = plain.as_chunks::<8>();
        let whole = numbers.1.is_empty();
        whole.then(|| {
            numbers
                .0
                .iter()
                .map(|n| Ino(u64::from_le_bytes(*n)))
                .collect()
        })
    }

    /// Replaces it.
    ///
    /// # Errors
    /// A disk that cannot be written.
    pub(crate) fn store(&self, pins: &BTreeSet<Ino>) -> Outcome {
        let numbers: Vec<u8> = pins.iter().flat_map(|ino| ino.0.to_le_bytes()).collect();
        let mut w = Writer::default();
        w.raw(MAGIC);
        w.u8(FORMAT_VERSION);
        w.raw(&seal(&self.key, &self.aad, &numbers, &OsEntropy));
        write_durably(&self.path, &w.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, key: u8) -> PinFile {
        PinFile {
            path: dir.join(PURPOSE),
            key: LocalKey::from_bytes([key; 32]),
            aad: LocalAad {
                purpose: PURPOSE,
                vault: VaultId([1; 16]),
                context: Vec::new(),
            },
        }
    }

    #[test]
    fn pins_come_back_and_a_changed_file_is_an_error_and_never_none() {
        let dir = tempfile::tempdir().unwrap();
        let pins = file(dir.path(), 1);
        assert_eq!(pins.load().unwrap(), BTreeSet::new());
        let wanted = BTreeSet::from([Ino::ROOT, Ino(77), Ino(u64::MAX)]);
        pins.store(&wanted).unwrap();
        assert_eq!(pins.load().unwrap(), wanted);
        assert!(file(dir.path(), 2).load().is_err());
        let bytes = std::fs::read(&pins.path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(&pins.path, &changed).unwrap();
            assert_eq!(pins.load().unwrap_err().exit, Exit::Integrity, "at {at}");
            std::fs::write(&pins.path, &bytes[..at]).unwrap();
            assert_eq!(
                pins.load().unwrap_err().exit,
                Exit::Integrity,
                "cut at {at}"
            );
        }
    }
}
