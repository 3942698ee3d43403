//! `skrin-relay`: puts a slow link between a client and a server, and counts what crosses it.
#![forbid(unsafe_code)]

use clap::Parser;
use serde_json::json;
use skrin_bench::relay::{Link, Relay};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Relays TCP connections over an imagined slow link. Prints where it listens, and its counts on SIGUSR1 and at
/// the end (SIGINT, SIGTERM), each as one line of JSON.
#[derive(Parser)]
struct Args {
    /// Where clients connect; port 0 picks one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The server
    #[arg(long)]
    to: SocketAddr,
    /// Round trip to add, in milliseconds
    #[arg(long, default_value_t = 20)]
    rtt_ms: u64,
    /// Rate of each way in Mbit/s; 0 = as fast as it goes
    #[arg(long, default_value_t = 100)]
    mbit: u64,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    let link = Link {
        round_trip: Duration::from_millis(args.rtt_ms),
        rate: (args.mbit > 0).then_some(args.mbit * 125_000),
    };
    let relay = Relay::start(args.listen, args.to, link).await?;
    print(&json!({ "listening": relay.addr() }))?;
    let mut asked = signal(SignalKind::user_defined1())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let last = tokio::select! {
            _ = asked.recv() => false,
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
        };
        print(&serde_json::to_value(relay.counts())?)?;
        if last {
            return Ok(());
        }
    }
}

fn print(value: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}
