//! One large incompressible file.

use super::MIB;
use crate::error::{BenchError, Context};
use crate::metric::{SEQ_OVERHEAD, SEQ_READ_COLD, SEQ_READ_WARM, SEQ_SENT, SEQ_STORED, SEQ_WRITE};
use crate::process::check;
use crate::session::{Cost, Session};
use crate::tree::volume;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

const STEP: usize = 1 << 20;

pub(super) fn run(session: &mut Session<'_>) -> Result<(), BenchError> {
    let len = session.setting.sizes.large;
    let mib = len as f64 / MIB;
    session.mount()?;
    let empty = volume(&session.site.storage)?.bytes;
    let path = session.path("large.bin");
    let (written, stored) = session.timed(|s| {
        let ((), written) = s.timed(|s| write(s, &path, len))?;
        s.settle()?;
        Ok(written)
    })?;
    session.record(&SEQ_WRITE, mib / written.wall, &written);
    session.record(&SEQ_STORED, mib / stored.wall, &stored);
    if let Some(network) = &stored.network {
        session.record(&SEQ_SENT, network.bytes_up as f64 / len as f64, &stored);
    }
    let on_storage = volume(&session.site.storage)?.bytes - empty;
    session.record(
        &SEQ_OVERHEAD,
        on_storage as f64 / len as f64,
        &Cost::default(),
    );

    session.cold()?;
    let ((), cold) = session.timed(|_| read(&path, len, |_, _| true))?;
    session.record(&SEQ_READ_COLD, mib / cold.wall, &cold);
    let noise = session.setting.noise;
    read(&path, len, |at, bytes| {
        noise
            .get(at % noise.len()..)
            .is_some_and(|n| n.starts_with(bytes))
    })?;
    let ((), warm) = session.timed(|_| read(&path, len, |_, _| true))?;
    session.record(&SEQ_READ_WARM, mib / warm.wall, &warm);
    Ok(())
}

/// The noise over and over; its length and that of the file are multiples of a step.
fn write(session: &Session<'_>, path: &Path, len: u64) -> Result<(), BenchError> {
    let mut file = File::create(path).at("create", path)?;
    let steps = session.setting.noise.chunks_exact(STEP).cycle();
    for bytes in steps.take(len as usize / STEP) {
        check()?;
        file.write_all(bytes).at("write", path)?;
    }
    session.fsync(&file)
}

fn read(path: &Path, len: u64, right: impl Fn(usize, &[u8]) -> bool) -> Result<(), BenchError> {
    let mut file = File::open(path).at("open", path)?;
    let mut buffer = vec![0; STEP];
    for step in 0..len as usize / STEP {
        check()?;
        file.read_exact(&mut buffer).at("read", path)?;
        if !right(step * STEP, &buffer) {
            let wrong = format!("{} differs near byte {}", path.display(), step * STEP);
            return Err(BenchError::Wrong(wrong));
        }
    }
    Ok(())
}
