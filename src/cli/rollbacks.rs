//! Rollbacks that a person accepted on this machine: a sealed file of the state directory, so that `status` goes on saying it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use skrin_base::VaultId;
use skrin_crypto::{LocalAad, open, seal};
use skrin_vault::Device;

use crate::exit::{Exit, Failure, Outcome};
use crate::machine::OsEntropy;
use crate::unlock::write_durably;

/// The file in a state directory.
const FILE: &str = "rollbacks";

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    /// When it was made.
    pub(crate) date: String,
    /// What the storage showed, and what had been seen.
    pub(crate) what: String,
    /// Where the state of the device lies that had seen more.
    pub(crate) kept: String,
}

impl Accepted {
    /// For people.
    pub(crate) fn line(&self) -> String {
        format!(
            "accepted on {}: {}; what was known before is kept in {}",
            self.date, self.what, self.kept
        )
    }
}

fn aad(vault: VaultId) -> LocalAad {
    LocalAad {
        purpose: FILE,
        vault,
        context: Vec::new(),
    }
}

/// What was accepted here, oldest first.
///
/// # Errors
/// A file that is not what was written.
pub(crate) fn load(dir: &Path, vault: VaultId, device: &Device) -> Outcome<Vec<Accepted>> {
    let path = dir.join(FILE);
    let sealed = match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| Failure::io(&path, "cannot read it", &e))?,
    };
    let damaged = || {
        let what = format!("{}: is damaged, or of another device", path.display());
        Failure::new(Exit::Integrity, what)
            .remedy("move it away; it only says which rollbacks were accepted here")
    };
    let plain =
        open(&device.local_key(vault, FILE), &aad(vault), &sealed).map_err(|_| damaged())?;
    serde_json::from_slice(&plain).map_err(|_| damaged())
}

/// Writes all of them.
///
/// # Errors
/// Of the local disk.
pub(crate) fn store(dir: &Path, vault: VaultId, device: &Device, all: &[Accepted]) -> Outcome {
    let plain = serde_json::to_vec(all)
        .map_err(|e| Failure::new(Exit::Other, format!("cannot write down the decision: {e}")))?;
    let sealed = seal(
        &device.local_key(vault, FILE),
        &aad(vault),
        &plain,
        &OsEntropy,
    );
    write_durably(&dir.join(FILE), &sealed)
}
