//! `punchtrail-device`: the agent at the door, and the hand that punches.
//!
//! One object on stdout with `--json`, plain sentences without; logs go to stderr. Exit status: 0 done, 1
//! not done (the text says what was kept and what to do), 2 wrong usage.

mod cli;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(arguments.default_filter()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // A log on a full disk loses lines. Complaining of that on stderr would panic whoever wrote one.
        .log_internal_errors(false)
        .init();
    cli::run(arguments).await
}
