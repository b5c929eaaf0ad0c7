//! `punchtrail-device`: the agent at the door, and the hand that punches.
//!
//! One object on stdout with `--json`, plain sentences without; logs go to stderr. Exit status: 0
//! done, 1 not done (the text says what was kept and what to do), 2 wrong usage, 3 (`run` alone)
//! ended as the server asked, to be started again.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return cli::misused(&error),
    };
    punchtrail_device::program::log(arguments.default_filter());
    cli::run(arguments).await
}
