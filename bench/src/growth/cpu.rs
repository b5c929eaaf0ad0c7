//! What work costs in processor time, of the server's process and of all of Postgres: unlike the
//! clock, that hardly depends on what else the machine does.

use std::{fs, time::Duration};

use anyhow::Context;

/// How long a tick of Linux's accounts is, in milliseconds: `USER_HZ` is 100 on every machine.
const TICK_MS: u64 = 10;

/// Whose time counts.
#[derive(Debug, Clone, Copy)]
pub struct Workers {
    /// The process that all others of Postgres descend from.
    pub postmaster: u32,
    /// The server, when it runs as a process of its own.
    pub server: Option<u32>,
}

impl Workers {
    /// The time that they have taken until now: Postgres's ended processes included.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn time(self) -> anyhow::Result<Duration> {
        let mut ticks = account(self.postmaster).context("Postgres runs")?.with_ended;
        if let Some(server) = self.server {
            ticks += account(server).context("the server runs")?.own;
        }
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            // One that ends meanwhile is in the postmaster's account from then on.
            if let Some(child) = account(pid).filter(|child| child.parent == self.postmaster) {
                ticks += child.own;
            }
        }
        Ok(Duration::from_millis(ticks * TICK_MS))
    }
}

struct Account {
    parent: u32,
    /// Of the process, in ticks.
    own: u64,
    /// And of its children that have ended.
    with_ended: u64,
}

/// A process's account, as `proc_pid_stat(5)` has it.
fn account(pid: u32) -> Option<Account> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may hold anything but ends with the last bracket; the state comes next.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<u64> =
        rest.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
    let [user, system, user_ended, system_ended] = *fields.get(10..14)? else { return None };
    let own = user + system;
    let with_ended = own + user_ended + system_ended;
    Some(Account { parent: u32::try_from(fields[0]).ok()?, own, with_ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_in_the_account() {
        let own = Workers { postmaster: std::process::id(), server: None };
        let before = own.time().unwrap();
        let mut sum = 0_u64;
        while own.time().unwrap() < before + Duration::from_millis(50) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
