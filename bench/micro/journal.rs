//! The journal: appending, and making durable.

use super::{Bench, Unit, entropy, wrong};
use crate::error::{BenchError, Context};
use skrin_base::VaultId;
use skrin_crypto::LocalKey;
use skrin_data::{Journal, JournalConfig};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An operation of a write with one extent is about so long.
const OP: usize = 200;

pub(super) fn run(bench: &Bench) -> Result<(), BenchError> {
    let folder = bench.folder()?;
    let ceiling = fdatasync(bench, &folder.path().join("plain"))?;
    let key = LocalKey::from_bytes([1; 32]);
    let dir = folder.path().join("journal");
    let config = JournalConfig::new(dir, VaultId([1; 16]), key, 1 << 30);
    let (journal, _) = Journal::open(config, entropy()).map_err(wrong)?;
    let mut counter = 0;
    let mut append = || {
        counter += 1;
        let lsn = journal.append_op(counter, &[7; OP], None).map_err(wrong)?;
        // Or the journal would be full before the loop ends.
        if counter % 1000 == 0 {
            journal.release(counter, &[]).map_err(wrong)?;
        }
        Ok(lsn)
    };
    bench.rate("journal: append an operation", Unit::Op, None, || {
        append().map(drop)
    })?;
    bench.rate("journal: append and sync", Unit::Sync, ceiling, || {
        journal.sync(append()?).map_err(wrong)
    })?;
    journal.close().map_err(wrong)
}

/// Overwriting 4 KiB of a file that has its blocks already.
fn fdatasync(bench: &Bench, path: &Path) -> Result<Option<f64>, BenchError> {
    let file = File::create(path).at("create", path)?;
    file.write_all_at(&[1; 1 << 20], 0).at("write", path)?;
    file.sync_all().at("sync", path)?;
    let mut at = 0;
    bench.rate("pwrite of 4 KiB and fdatasync", Unit::Sync, None, || {
        at = (at + 4096) % (1 << 20);
        file.write_all_at(&[2; 4096], at).at("write", path)?;
        file.sync_data().at("sync", path)
    })
}
