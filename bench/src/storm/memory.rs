//! What the server and its Postgres take meanwhile, by the kernel's own account.

use std::{fs, time::Duration};

use serde::Serialize;

use super::Over;
use crate::kernel::{mib, status};

/// Between two looks at the server.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks at the server between two at Postgres, which has many processes.
const POSTGRES_EVERY: u32 = 4;

/// The most that was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Peak {
    /// The server's resident memory at its highest, as the kernel noted it (`VmHWM`), in MiB.
    pub server_mib: f64,
    /// The server's open files: its connections, those to Postgres, and a few dozen others.
    pub server_files: usize,
    /// Postgres' resident memory: what each process has to itself and what all share, once, in MiB.
    pub postgres_mib: f64,
    pub postgres_processes: usize,
}

/// Watches until it is `over` or the server is gone.
pub async fn watch(server: u32, postmaster: u32, over: Over) -> Peak {
    let mut peak = Peak::default();
    for look in 0.. {
        let Some(status) = status(server) else { break };
        peak.server_mib = peak.server_mib.max(mib(&status, "VmHWM"));
        let files = fs::read_dir(format!("/proc/{server}/fd")).map_or(0, Iterator::count);
        peak.server_files = peak.server_files.max(files);
        if look % POSTGRES_EVERY == 0 {
            let (mib, processes) = postgres(postmaster);
            peak.postgres_mib = peak.postgres_mib.max(mib);
            peak.postgres_processes = peak.postgres_processes.max(processes);
        }
        if over.is_set() {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    peak
}

fn postgres(postmaster: u32) -> (f64, usize) {
    // Found in `Pid:` and in `PPid:`: itself and its children.
    let family = format!("Pid:\t{postmaster}\n");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let statuses: Vec<String> = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(status)
        .filter(|status| status.contains(&family))
        .collect();
    let own: f64 = statuses.iter().map(|status| mib(status, "RssAnon")).sum();
    let shared = statuses.iter().map(|status| mib(status, "RssShmem")).fold(0.0, f64::max);
    (own + shared, statuses.len())
}
