//! Side-by-side measurements: each command prints a table and writes `target/bench/NAME.json`, all
//! rows from one run on one Postgres with fsync on. What counts is the ratios: the machine under
//! them varies.

mod append;
mod database;
mod fleet;
mod growth;
mod kernel;
mod load;
mod peers;
mod read;
mod rebuild;
mod report;
mod storm;
mod verify;
mod webhooks;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(about = "Measure Punchtrail beside its peers and its limits")]
struct Options {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Punches a second into the ledger: COPY, the ledger alone, HTTP, HTTP settled, stock
    /// postgres-es
    Append(append::Options),
    /// What appends, reads, a start, a checkpoint and a verification cost as the ledger grows
    Growth(growth::Options),
    /// Explanations a second over HTTP, beside the bare row by pgbench
    Read(read::Options),
    /// Events a second through a rebuild of each read model, beside COPY out and in
    Rebuild(rebuild::Options),
    /// A whole fleet comes back at once: promises, readers' latency, drain rate and memory, by who
    /// throttles
    Storm(storm::Options),
    /// Faces: checks a second beside the bare models, the delay until a verdict, calls to SQS, and
    /// memory while photos wait
    Verify(verify::Options),
    /// Webhooks delivered a second beside a bare loop of the same requests, and beside receivers
    /// that hang
    Webhooks(webhooks::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Options::parse().bench {
        Bench::Append(options) => append::run(options).await,
        Bench::Growth(options) => growth::run(options).await,
        Bench::Read(options) => read::run(options).await,
        Bench::Rebuild(options) => rebuild::run(options).await,
        Bench::Storm(options) => storm::run(options).await,
        Bench::Verify(options) => verify::run(options).await,
        Bench::Webhooks(options) => webhooks::run(options).await,
    }
}

/// Returns when somebody wants it to end.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
