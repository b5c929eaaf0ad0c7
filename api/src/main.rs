//! The binary `punchtrail`: the server, and the operator's commands.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
