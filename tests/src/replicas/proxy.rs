//! HAProxy: leads to whichever node takes writes, and ends the sessions on one that no longer does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use punchtrail_testkit::{PATIENCE, eventually};

use super::{
    DATABASE,
    node::{USER, direct, free_port, run_on},
};
use crate::{DataDir, process::Process};

/// Where it is besides on PATH, which an ordinary user's hasn't.
const PLACES: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];
/// Ports that were taken between their choice and their use, at most.
const ATTEMPTS_MAX: u32 = 5;

/// The check of docs/operations.md: what a session may do, asked in Postgres's own protocol.
/// `StartupMessage` (user punchtrail, database postgres), and of the answer `ReadyForQuery`; then
/// the question and `Terminate` at once, and of the answer a row `off`.
const SETTINGS: &str = "
defaults
  mode tcp
  retries 0
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  timeout check 1s

listen primary
  option tcp-check
  tcp-check connect
  tcp-check send-binary 0000004200030000757365720070756e6368747261696c00646174616261736500\
      706f737467726573006170706c69636174696f6e5f6e616d6500636865636b0000
  tcp-check expect binary 5a0000000549
  tcp-check send-binary 510000001f73686f77207472616e73616374696f6e5f726561645f6f6e6c790058\
      00000004
  tcp-check expect binary 440000000d0001000000036f6666
  default-server inter 100ms fastinter 100ms downinter 100ms fall 1 rise 1 \
      on-marked-down shutdown-sessions
";

/// The program, where this machine has it.
pub(super) fn program() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path);
    on_path
        .chain(PLACES.iter().map(PathBuf::from))
        .map(|dir| dir.join("haproxy"))
        .find(|program| program.is_file())
}

/// A running HAProxy.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    _process: Process,
}

impl Proxy {
    /// Starts `program` before the nodes at `gates`, and waits until it leads to a primary alone:
    /// at first it takes every node for one.
    ///
    /// # Errors
    /// When it doesn't.
    pub async fn start(program: &Path, gates: &[u16], folder: &DataDir) -> anyhow::Result<Self> {
        let mut attempt = 1;
        loop {
            let port = free_port()?;
            let file = folder.path().join("haproxy.cfg");
            fs::write(&file, settings(port, gates))?;
            let mut command = Command::new(program);
            command.arg("-db").arg("-f").arg(&file);
            let mut process = Process::start("haproxy", command, &folder.log("haproxy")?)?;
            let leads = eventually("haproxy to lead to a primary", PATIENCE, async || {
                if !process.runs()? {
                    return Ok(Some(false));
                }
                for _ in gates {
                    if !leads_to_a_primary(port).await {
                        return Ok(None);
                    }
                }
                Ok(Some(true))
            });
            if leads.await.with_context(|| process.log_tail())? {
                return Ok(Self { port, _process: process });
            }
            let said = process.log_tail();
            if attempt == ATTEMPTS_MAX || !said.to_lowercase().contains("cannot bind") {
                bail!("haproxy does not start: {said}");
            }
            attempt += 1;
        }
    }

    /// The database's URL by way of it.
    pub fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{DATABASE}?sslmode=disable", self.port)
    }
}

fn settings(port: u16, gates: &[u16]) -> String {
    let servers = (1..).zip(gates);
    let servers = servers.map(|(n, gate)| format!("  server n{n} 127.0.0.1:{gate} check\n"));
    format!("{SETTINGS}  bind 127.0.0.1:{port}\n{}", servers.collect::<String>())
}

/// Whether the next session takes writes. They go round among those that are taken for a primary.
async fn leads_to_a_primary(port: u16) -> bool {
    run_on(&direct(port), "create temporary table written ()").await.is_ok()
}
