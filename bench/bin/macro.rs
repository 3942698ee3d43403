//! `skrin-macro`: the same work on a mount of ours and on peers.
#![forbid(unsafe_code)]

use clap::Parser;
use skrin_bench::error::BenchError;
use skrin_bench::peers::Tools;
use skrin_bench::plan::{Plan, Where, about};
use skrin_bench::process::{request_stop, tear_down};
use skrin_bench::relay::Link;
use skrin_bench::report::Report;
use skrin_bench::session::Sizes;
use skrin_bench::work::Phase;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Measures mounts and prints one Markdown table per setting. A ratio above 1 means that ours is better than the
/// best competitor. Needs root, for mounts and servers. Progress goes to stderr.
#[derive(Parser)]
struct Args {
    /// Storage and link
    #[arg(long, value_delimiter = ',', default_value = "local")]
    settings: Vec<Where>,
    /// Groups of rows
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "large,small,edits,names,many"
    )]
    rows: Vec<Phase>,
    /// Only peers whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// How often; the tables show medians
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The large file in MiB
    #[arg(long, default_value_t = 1024)]
    large: u64,
    /// The large file in MiB over the slow link
    #[arg(long, default_value_t = 256)]
    large_slow: u64,
    /// Small files
    #[arg(long, default_value_t = 2000)]
    small: usize,
    /// Files in the large vault
    #[arg(long, default_value_t = 100_000)]
    many: usize,
    /// Most seconds of edits and of names
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Round trip of the slow link in milliseconds
    #[arg(long, default_value_t = 20)]
    rtt_ms: u64,
    /// Rate of the slow link in Mbit/s each way
    #[arg(long, default_value_t = 100)]
    mbit: u64,
    /// Our binary
    #[arg(long, default_value = "target/release/skrin")]
    skrin: PathBuf,
    /// Another build of ours to compare with, measured in turn
    #[arg(long)]
    before: Option<PathBuf>,
    /// Also measure ours with nothing kept by the kernel
    #[arg(long)]
    uncached: bool,
    /// Where bench/install-peers put rclone and JuiceFS
    #[arg(long, default_value = "target/bench-peers")]
    peers_dir: PathBuf,
    /// Where everything is written: a folder of its own is made in it and removed
    #[arg(long, default_value = "/tmp")]
    work: PathBuf,
    /// Leave the kernel's caches alone
    #[arg(long)]
    keep_caches: bool,
    /// Also write everything as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(BenchError::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("skrin-macro: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<(), BenchError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| BenchError::Io { what, source }
    };
    let runtime = Runtime::new().map_err(io("start the runtime"))?;
    end_on_signals(&runtime).map_err(io("listen for signals"))?;
    let mut folder = tempfile::Builder::new();
    folder.prefix("skrin-bench-");
    // The servers run as other users.
    let work = folder.permissions(Permissions::from_mode(0o711));
    let work = work
        .tempdir_in(&args.work)
        .map_err(io("make the work folder"))?;
    let plan = plan(args, &work)?;
    let mut report = Report {
        about: about(&plan),
        versions: BTreeMap::new(),
        settings: Vec::new(),
        peers: Vec::new(),
        ceilings: Vec::new(),
        samples: Vec::new(),
        failures: Vec::new(),
    };
    let done = plan.run(&runtime, &mut report);
    print(args, &report)?;
    done
}

fn plan(args: &Args, work: &TempDir) -> Result<Plan, BenchError> {
    let program = |path: &Path| {
        path.canonicalize().map_err(|source| BenchError::Io {
            what: format!(
                "find {} (bench/install-peers, cargo build --release)",
                path.display()
            ),
            source,
        })
    };
    let other = |name: &str| {
        let path = args.peers_dir.join(name);
        program(&path).unwrap_or(path)
    };
    Ok(Plan {
        settings: args.settings.clone(),
        phases: args.rows.clone(),
        peers: args.peers.clone(),
        runs: args.runs.max(1),
        sizes: Sizes {
            large: args.large.max(1) << 20,
            small: args.small.max(1),
            seconds: args.seconds,
            many: args.many.max(1),
        },
        large_slow: args.large_slow.max(1) << 20,
        slow: Link {
            round_trip: Duration::from_millis(args.rtt_ms),
            rate: (args.mbit > 0).then_some(args.mbit * 125_000),
        },
        tools: Tools {
            // May be missing: then it is reported as not measured.
            skrin: program(&args.skrin).unwrap_or_else(|_| args.skrin.clone()),
            before: args.before.as_deref().map(program).transpose()?,
            uncached: args.uncached,
            // As ours: whoever compares two builds needs no others.
            rclone: other("rclone"),
            juicefs: other("juicefs"),
        },
        work: work.path().to_owned(),
        drop_caches: !args.keep_caches,
    })
}

/// The first signal lets the work end itself; the second ends it from here.
fn end_on_signals(runtime: &Runtime) -> std::io::Result<()> {
    let _context = runtime.enter();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    runtime.spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        eprintln!("ending; once more to end at once");
        request_stop();
        // timeout(1) and terminals send the same signal twice at once.
        tokio::time::sleep(Duration::from_secs(1)).await;
        while either_now(&mut interrupt, &mut terminate).await {}
        either(&mut interrupt, &mut terminate).await;
        tear_down();
        std::process::exit(130);
    });
    Ok(())
}

/// Takes a signal that has arrived already.
async fn either_now(a: &mut Signal, b: &mut Signal) -> bool {
    let none = Duration::from_millis(10);
    tokio::time::timeout(none, either(a, b)).await.is_ok()
}

async fn either(a: &mut Signal, b: &mut Signal) {
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
    }
}

fn print(args: &Args, report: &Report) -> Result<(), BenchError> {
    for (key, value) in report.about.iter().chain(&report.versions) {
        println!("- {key}: {value}");
    }
    println!("\n{}", report.markdown());
    let Some(path) = &args.json else {
        return Ok(());
    };
    let failed = |source| BenchError::Io {
        what: format!("write {}", path.display()),
        source,
    };
    let json = serde_json::to_string_pretty(report).map_err(|e| failed(e.into()))?;
    fs::write(path, json).map_err(failed)
}
