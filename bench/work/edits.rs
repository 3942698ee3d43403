//! A program that saves: 4 KiB somewhere in a file of 16 MiB, and fsync, again and again.

use crate::error::{BenchError, Context};
use crate::metric::{EDITS, EDITS_SENT, FSYNC_KEPT};
use crate::process::check;
use crate::session::{Cost, Session};
use crate::tree::Random;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Instant;

const FILE: usize = 16 << 20;
const EDIT: usize = 4096;
/// Enough for a rate.
const MOST: u64 = 5000;

pub(super) fn run(session: &mut Session<'_>) -> Result<(), BenchError> {
    session.mount()?;
    let path = session.path("database");
    let noise = session.setting.noise.get(..FILE).unwrap_or_default();
    let mut file = File::create(&path).at("create", &path)?;
    file.write_all(noise).at("write", &path)?;
    session.fsync(&file)?;
    drop(file);
    session.settle()?;
    session.mount()?;

    let seconds = session.setting.sizes.seconds;
    let ((edits, rate), all) = session.timed(|s| {
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .at("open", &path)?;
        let begin = Instant::now();
        let mut random = Random::new(2);
        let mut edits = 0;
        while edits < MOST && begin.elapsed().as_secs_f64() < seconds {
            check()?;
            let at = random.below((FILE / EDIT) as u64) * EDIT as u64;
            let bytes = noise.get(at as usize / 2..).and_then(|n| n.get(..EDIT));
            file.write_all_at(bytes.unwrap_or_default(), at)
                .at("write", &path)?;
            s.fsync(&file)?;
            edits += 1;
        }
        let rate = edits as f64 / begin.elapsed().as_secs_f64();
        drop(file);
        s.settle()?;
        Ok((edits, rate))
    })?;
    session.record(&EDITS, rate, &all);
    if let Some(network) = &all.network {
        session.record(&EDITS_SENT, network.bytes_up as f64 / edits as f64, &all);
    }
    let kept = f64::from(u8::from(survives(session)?));
    session.record(&FSYNC_KEPT, kept, &Cost::default());
    Ok(())
}

/// Whether what fsync answered for is there after kill -9 of the file system's processes.
fn survives(session: &mut Session<'_>) -> Result<bool, BenchError> {
    session.mount()?;
    let path = session.path("database");
    let mark = Random::new(4).bytes(EDIT);
    let file = OpenOptions::new()
        .write(true)
        .open(&path)
        .at("open", &path)?;
    file.write_all_at(&mark, 0).at("write", &path)?;
    session.fsync(&file)?;
    session.crash()?;
    drop(file);
    let mut found = vec![0; EDIT];
    // A file that is gone or damaged is an answer too.
    let read = File::open(&path).and_then(|f| f.read_exact_at(&mut found, 0));
    Ok(read.is_ok() && found == mark)
}
