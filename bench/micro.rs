//! Loops over single parts. Each is repeated until its time is up; the median of the batches counts. What waits for
//! no disk is measured in CPU time of the thread, which a busy machine changes little.

mod blocks;
mod journal;
mod rows;

use crate::error::{BenchError, Context};
use crate::report::median;
use rustix::time::{ClockId, clock_gettime};
use skrin_base::Entropy;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Batches that one loop is divided into.
const BATCHES: u32 = 9;
/// Turns in a batch at least.
const TURNS: u32 = 10;

/// How the loops are run and printed.
pub struct Bench {
    time: Duration,
    only: String,
    work: PathBuf,
}

/// What one turn of a loop does, for the unit of its rate.
#[derive(Clone, Copy)]
enum Unit {
    /// So many bytes.
    Bytes(usize),
    /// One operation.
    Op,
    /// One operation that waits for the disk: the clock counts.
    Sync,
}

/// Seconds since some moment, on the clock that fits the work.
fn seconds(unit: Unit) -> f64 {
    let id = match unit {
        Unit::Bytes(_) | Unit::Op => ClockId::ThreadCPUTime,
        Unit::Sync => ClockId::Monotonic,
    };
    let time = clock_gettime(id);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

impl Bench {
    /// Each loop takes about `time`; only those whose name contains `only` are run; files go below `work`.
    pub fn new(time: Duration, only: &str, work: &Path) -> Self {
        Self {
            time,
            only: only.to_owned(),
            work: work.to_owned(),
        }
    }

    fn folder(&self) -> Result<TempDir, BenchError> {
        TempDir::with_prefix_in("skrin-micro-", &self.work).at("make a folder in", &self.work)
    }

    /// Runs `turn` again and again and prints its rate. `ceiling` is the rate of what it cannot beat; the own rate
    /// is returned, to be one. Loops that are not asked for give nothing.
    fn rate(
        &self,
        name: &str,
        unit: Unit,
        ceiling: Option<f64>,
        mut turn: impl FnMut() -> Result<(), BenchError>,
    ) -> Result<Option<f64>, BenchError> {
        if !name.contains(&self.only) {
            return Ok(None);
        }
        turn()?; // warms caches and allocates
        let mut taken = Vec::new();
        for _ in 0..BATCHES {
            let (begin, cpu, mut turns) = (Instant::now(), seconds(unit), 0_u32);
            while begin.elapsed() < self.time / BATCHES || turns < TURNS {
                turn()?;
                turns += 1;
            }
            taken.push((seconds(unit) - cpu) / f64::from(turns));
        }
        let each = median(&taken).unwrap_or(f64::INFINITY);
        let (rate, shown) = match unit {
            Unit::Bytes(n) => {
                let rate = n as f64 / each;
                (rate, format!("{:9.3} GB/s", rate / 1e9))
            }
            Unit::Op | Unit::Sync => (1.0 / each, format!("{:9.2} K/s", 1e-3 / each)),
        };
        let share = ceiling.map_or_else(String::new, |c| format!("{:5.0} %", 100.0 * rate / c));
        println!("{name:<52} {shown:<15} {share}");
        Ok(Some(rate))
    }
}

/// Keys, nonces and identifiers; fast, and of no worth outside of a benchmark.
fn entropy() -> Arc<dyn Entropy> {
    Arc::new(skrin_base::clock::testutil::SeededEntropy::new(5))
}

/// All loops.
///
/// # Errors
/// Of the disk below the journal and the database.
pub fn run_all(bench: &Bench) -> Result<(), BenchError> {
    println!("{:<52} {:<15} share of the ceiling above it", "", "");
    blocks::run(bench)?;
    journal::run(bench)?;
    rows::run(bench)
}

fn wrong(error: impl std::fmt::Display) -> BenchError {
    BenchError::Wrong(error.to_string())
}
