//! Where the programs under test are, and what this machine has of others.

use std::path::PathBuf;

use anyhow::{Context, bail};
use tokio::process::Command;

/// The server and the operator's commands.
pub const SERVER: &str = "punchtrail";
/// The agent at the door.
pub const DEVICE: &str = "punchtrail-device";
/// The fleet simulator.
pub const FLEET: &str = "punchtrail-fleet";
/// The demo itself.
pub const DEMO: &str = "demo";

/// The program of that name, of the same build as this one: beside it, or where a test finds it,
/// one folder up.
///
/// # Errors
/// When it isn't built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("this program's own place isn't known")?;
    let found =
        this.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "`{name}` is not built beside {}. Run `./dev test` (or `./dev demo`), which builds \
             all programs first; by hand: cargo build --workspace --bins",
            this.display()
        ),
    }
}

/// Why a program of the system's can't be run as `probe` would; none if it can.
pub async fn refusal(probe: &mut Command) -> Option<String> {
    let name = probe.as_std().get_program().display().to_string();
    match probe.output().await {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("{name}: {error}")),
    }
}
