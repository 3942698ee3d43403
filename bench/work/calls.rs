//! Single calls on what was used a moment ago, where the kernel's caches count most.

use crate::error::{BenchError, Context};
use crate::metric::{CALLS_ABSENT, CALLS_LIST, CALLS_OPEN, CALLS_REREAD, CALLS_STAT, CALLS_WRITE};
use crate::process::check;
use crate::session::Session;
use crate::work::MIB;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

const DIRS: usize = 20;
const PER_DIR: usize = 50;
const SMALL: usize = 4096;
const LARGE: usize = 32 << 20;
const STEP: usize = 1 << 20;
/// Seconds for each row, at least; what is begun is ended.
const LONG_ENOUGH: f64 = 0.4;

pub(super) fn run(session: &mut Session<'_>) -> Result<(), BenchError> {
    session.mount()?;
    let root = session.path("calls");
    let dirs: Vec<PathBuf> = (0..DIRS).map(|d| root.join(d.to_string())).collect();
    let noise = session.setting.noise;
    let part = |at: usize, len: usize| noise.get(at..at + len).unwrap_or_default();
    for dir in &dirs {
        fs::create_dir_all(dir).at("create", dir)?;
        for n in 0..PER_DIR {
            let file = dir.join(n.to_string());
            fs::write(&file, part(n * SMALL, SMALL)).at("write", &file)?;
        }
    }
    let files: Vec<PathBuf> = dirs
        .iter()
        .flat_map(|dir| (0..PER_DIR).map(|n| dir.join(n.to_string())))
        .collect();
    let large = root.join("large");
    fs::write(&large, part(0, LARGE)).at("write", &large)?;
    session.settle()?;
    session.mount()?;

    let all = files.len() as f64;
    let mut row = |metric, amount: f64, work: &dyn Fn() -> Result<(), BenchError>| {
        // The first time is for the caches.
        work()?;
        let ((count, seconds), cost) = session.timed(|_| repeat(work))?;
        session.record(metric, amount * count as f64 / seconds, &cost);
        Ok::<_, BenchError>(())
    };
    row(&CALLS_STAT, all, &|| {
        each(&files, |f| fs::metadata(f).map(drop).at("stat", f))
    })?;
    row(&CALLS_ABSENT, all, &|| {
        each(&files, |f| {
            let absent = f.with_extension("absent");
            match absent.exists() {
                true => Err(BenchError::Wrong("a file that nobody made".to_owned())),
                false => Ok(()),
            }
        })
    })?;
    row(&CALLS_OPEN, all, &|| each(&files, |f| read(f, SMALL)))?;
    row(&CALLS_LIST, all, &|| each(&dirs, list))?;
    row(&CALLS_REREAD, LARGE as f64 / MIB, &|| read(&large, LARGE))?;
    let written = root.join("written");
    row(&CALLS_WRITE, LARGE as f64 / MIB, &|| {
        let mut file = File::create(&written).at("create", &written)?;
        for bytes in part(0, LARGE).chunks_exact(SMALL) {
            file.write_all(bytes).at("write", &written)?;
        }
        file.sync_all().at("fsync", &written)
    })?;
    session.settle()
}

/// How often it was done, and how long that took.
fn repeat(work: &dyn Fn() -> Result<(), BenchError>) -> Result<(usize, f64), BenchError> {
    let begin = Instant::now();
    let mut count = 0;
    loop {
        work()?;
        count += 1;
        let seconds = begin.elapsed().as_secs_f64();
        if seconds >= LONG_ENOUGH {
            return Ok((count, seconds));
        }
    }
}

fn each(
    paths: &[PathBuf],
    act: impl Fn(&Path) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    paths
        .iter()
        .try_for_each(|path| check().and_then(|()| act(path)))
}

fn read(path: &Path, len: usize) -> Result<(), BenchError> {
    let mut file = File::open(path).at("open", path)?;
    let mut buffer = vec![0; len.min(STEP)];
    for _ in 0..len / buffer.len() {
        file.read_exact(&mut buffer).at("read", path)?;
    }
    Ok(())
}

fn list(dir: &Path) -> Result<(), BenchError> {
    match fs::read_dir(dir).at("list", dir)?.count() {
        PER_DIR => Ok(()),
        other => Err(BenchError::Wrong(format!("{other} of {PER_DIR} entries"))),
    }
}
