//! `skrin-micro`: the parts that the speed of a mount is made of, each beside its ceiling in the same run. Build it
//! with `--release`.
#![forbid(unsafe_code)]

use clap::Parser;
use skrin_bench::micro::{Bench, run_all};
use std::process::ExitCode;
use std::time::Duration;

/// Prints rates of blocks, hashes, journal, rows and look-ups, in CPU-bound loops of one thread.
#[derive(Parser)]
struct Args {
    /// Seconds for each loop
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Only rows whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Where the journal and the database are written: the disk that is meant
    #[arg(long, default_value = "/tmp")]
    work: std::path::PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let bench = Bench::new(
        Duration::from_secs_f64(args.seconds),
        &args.only,
        &args.work,
    );
    match run_all(&bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skrin-micro: {error}");
            ExitCode::FAILURE
        }
    }
}
