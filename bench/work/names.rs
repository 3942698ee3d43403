//! Creating, renaming and removing empty files in one directory.

use crate::error::{BenchError, Context};
use crate::metric::NAMES;
use crate::process::check;
use crate::session::Session;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Files at a time.
const BATCH: usize = 100;
/// Enough for a rate.
const MOST: usize = 50;

pub(super) fn run(session: &mut Session<'_>) -> Result<(), BenchError> {
    session.mount()?;
    let dir = session.path("names");
    fs::create_dir(&dir).at("create", &dir)?;
    let seconds = session.setting.sizes.seconds;
    let (operations, cost) = session.timed(|_| {
        let begin = Instant::now();
        let mut batches = 0;
        while batches < MOST && (batches == 0 || begin.elapsed().as_secs_f64() < seconds) {
            batch(&dir)?;
            batches += 1;
        }
        Ok(3 * BATCH * batches)
    })?;
    session.record(&NAMES, operations as f64 / cost.wall, &cost);
    session.settle()
}

fn batch(dir: &Path) -> Result<(), BenchError> {
    let name = |kind: &str, n: usize| -> PathBuf { dir.join(format!("{kind} {n}")) };
    let each = |act: &dyn Fn(usize) -> Result<(), BenchError>| {
        (0..BATCH).try_for_each(|n| check().and_then(|()| act(n)))
    };
    each(&|n| File::create_new(name("new", n)).map(drop).at("create", dir))?;
    each(&|n| fs::rename(name("new", n), name("renamed", n)).at("rename in", dir))?;
    each(&|n| fs::remove_file(name("renamed", n)).at("unlink in", dir))
}
