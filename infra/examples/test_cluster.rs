//! Holds the tests' Postgres for a whole run: `test_cluster start`, the tests, `test_cluster stop`.
//!
//! The hold ends by itself with the process that called `start`, or the one named by a second
//! argument, so that an interrupted run leaves no server that nobody stops.

use std::process::ExitCode;

use punchtrail_infra::testing;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["start"] => testing::start_cluster(std::os::unix::process::parent_id()).await,
        ["start", pid] => match pid.parse() {
            Ok(pid) => testing::start_cluster(pid).await,
            Err(_) => return usage(),
        },
        ["stop"] => testing::stop_cluster().await,
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("test_cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: test_cluster start [PID] | stop");
    ExitCode::from(2)
}
