//! `skrin bench`: how long a storage takes for what skrin does most, measured with random bytes that are removed again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use indicatif::HumanBytes;
use serde::Serialize;
use skrin_base::Entropy;
use skrin_storage::{ObjectName, Prefix, Store, StoreError};

use crate::args::BenchArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::machine::OsEntropy;
use crate::print;
use crate::progress::Counter;
use crate::store::{SHORT_PATIENCE, StoreSpec};

/// A commit of a few operations, and a full segment.
const SIZES: [usize; 2] = [1024, 8 << 20];
/// Rounds for each size; the median of them is told.
const ROUNDS: [usize; 2] = [20, 3];

/// One line of the result.
#[derive(Serialize)]
struct Row {
    what: &'static str,
    bytes: usize,
    rounds: usize,
    median_ms: f64,
    worst_ms: f64,
}

/// Measures.
///
/// # Errors
/// `Unreachable`, `Absent`, and whatever else the storage says; what was put is removed even then.
pub(crate) fn run(args: &BenchArgs) -> Outcome {
    let store = StoreSpec::new(&args.vault)?.open(false, SHORT_PATIENCE)?;
    let counter = Counter::new("measuring");
    let rows = super::runtime()?.block_on(measure(&store, &counter))?;
    drop(counter);
    for row in &rows {
        if args.json {
            print::json(row);
        } else {
            print::line(format!(
                "{:<10} {:>9}  median {:>8.1} ms  worst {:>8.1} ms  of {}",
                row.what,
                HumanBytes(row.bytes as u64).to_string(),
                row.median_ms,
                row.worst_ms,
                row.rounds
            ));
        }
    }
    Ok(())
}

async fn measure(store: &Arc<dyn Store>, counter: &Counter) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for (len, rounds) in SIZES.into_iter().zip(ROUNDS) {
        let mut names = Vec::new();
        let measured = rounds_of(store, counter, len, rounds, &mut names).await;
        for name in &names {
            store.delete(name).await?;
        }
        rows.extend(measured?);
    }
    Ok(rows)
}

/// Puts, reads, lists. `names` tells what must be removed, whatever happens.
async fn rounds_of(
    store: &Arc<dyn Store>,
    counter: &Counter,
    len: usize,
    rounds: usize,
    names: &mut Vec<ObjectName>,
) -> Outcome<[Row; 3]> {
    let mut times = [(); 3].map(|()| Vec::with_capacity(rounds));
    for round in 0..rounds {
        let mut body = vec![0; len];
        OsEntropy.fill(&mut body);
        let body = Bytes::from(body);
        let mut name = [0; 16];
        OsEntropy.fill(&mut name);
        let name = skrin_base::SegmentId(name).to_string();
        let name =
            ObjectName::new(format!("bench/{name}")).map_err(|e| Failure::new(Exit::Other, e))?;
        names.push(name.clone());
        times[0].push(timed(store.put(&name, body.clone())).await?.0);
        let (time, back) = timed(store.get(&name, len)).await?;
        times[1].push(time);
        if back != body {
            return Err(Failure::new(
                Exit::Integrity,
                format!("{name}: the storage gave back other bytes than were put"),
            )
            .remedy("do not keep anything there"));
        }
        times[2].push(timed(store.list(&bench_dir()?)).await?.0);
        counter.report(round as u64 + 1, len as u64);
    }
    let [put, get, list] = times;
    Ok([
        row("put", len, put),
        row("get", len, get),
        row("list", 0, list),
    ])
}

fn bench_dir() -> Outcome<Prefix> {
    Prefix::new("bench").map_err(|e| Failure::new(Exit::Other, e))
}

async fn timed<T>(work: impl Future<Output = Result<T, StoreError>>) -> Outcome<(Duration, T)> {
    let start = Instant::now();
    let done = work.await?;
    Ok((start.elapsed(), done))
}

fn row(what: &'static str, bytes: usize, mut times: Vec<Duration>) -> Row {
    times.sort();
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    Row {
        what,
        bytes,
        rounds: times.len(),
        median_ms: ms(times.get(times.len() / 2)),
        worst_ms: ms(times.last()),
    }
}
