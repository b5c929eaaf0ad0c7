//! `punchtrail-fleet`: thousands of simulated devices against a server of yours.
//!
//! The report on stdout, seed, progress and logs on stderr. Exit status: 0 every punch is
//! acknowledged and everything agrees, 1 not, 2 wrong usage.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use punchtrail_device::program;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    // Thousands of devices say the same; the report counts it.
    program::log("error,punchtrail_simulator=info");
    match cli::run(arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("punchtrail-fleet: {}", program::whole(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
