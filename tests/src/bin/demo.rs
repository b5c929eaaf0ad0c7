//! `./dev demo`: a punch's whole journey, shown with real processes.

use std::process::ExitCode;

use clap::Parser;
use punchtrail_tests::demo::{self, Options};

/// Shows a punch's whole journey with real processes, and exits non-zero if a promise was broken.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// End after the last word, instead of going on serving.
    #[arg(long)]
    exit: bool,
    /// Decides who punches when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Days of shifts that are made without a network.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    days: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { exit, seed, days } = Arguments::parse();
    match demo::run(Options { exit, seed, days }).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
