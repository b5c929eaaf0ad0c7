//! The server process of a private cluster: is it there, start it, stop it.
//!
//! Whether it runs is asked of the process itself (its pid file and the system), whether it serves
//! is asked through its socket. Nothing here is ever killed: a server that doesn't stop is left
//! running and reported.

use std::{
    fs,
    io::ErrorKind,
    os::unix::process::CommandExt,
    path::Path,
    process::Child,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};

use super::{binaries::Binaries, cluster::Cluster, error::PostgresError};

/// How long an answer on the socket may take.
const PING_WAIT: Duration = Duration::from_secs(2);
/// How often a starting or stopping server is looked at.
const POLL: Duration = Duration::from_millis(15);
/// After an attempt that failed, before the next.
const RETRY: Duration = Duration::from_millis(200);
/// A predecessor's leftovers (a pid not yet reaped, shared memory still attached) go by themselves.
const LEFTOVERS_WAIT: Duration = Duration::from_secs(30);
/// Attempts that fail for any other reason.
const ATTEMPTS_MAX: u32 = 3;
/// Replaying `max_wal_size` of log on a slow disk takes minutes, and must not be given up.
pub(super) const RECOVERY_WAIT: Duration = Duration::from_secs(600);
/// A fast shutdown writes a checkpoint first.
pub(super) const STOP_WAIT: Duration = Duration::from_secs(120);

/// Servers this process started. Reaped whenever one is looked at: an unreaped one still counts as
/// running for Postgres, which then says that its lock file already exists.
static STARTED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

fn reap() -> Vec<u32> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    started.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    started.iter().map(Child::id).collect()
}

/// What the socket says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Up,
    /// It recovers, or is on its way up or down.
    NotYet,
    Nobody,
}

/// Asks for a connection.
pub(super) async fn ping(options: &PgConnectOptions) -> Answer {
    const CANNOT_CONNECT_NOW: &str = "57P03";
    match tokio::time::timeout(PING_WAIT, options.connect()).await {
        Ok(Ok(connection)) => {
            // Closing politely or not is all the same to a server that just answered.
            drop(connection.close().await);
            Answer::Up
        }
        Ok(Err(sqlx::Error::Database(error))) => match error.code() {
            Some(code) if code == CANNOT_CONNECT_NOW => Answer::NotYet,
            _ => Answer::Up,
        },
        Ok(Err(_)) => Answer::Nobody,
        Err(_) => Answer::NotYet,
    }
}

/// The process that serves `cluster`, if it is alive.
pub(super) fn running(cluster: &Path) -> Option<Pid> {
    reap();
    let pid = pid_in(cluster)?;
    (alive(pid) && !works_elsewhere(pid, cluster)).then_some(pid)
}

fn still_there(pid: Pid) -> bool {
    reap();
    alive(pid)
}

/// The first line of `postmaster.pid`.
fn pid_in(cluster: &Path) -> Option<Pid> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    Pid::from_raw(text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 1)?)
}

/// Whether a process is there and not merely unreaped.
fn alive(pid: Pid) -> bool {
    let exists = rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH);
    exists && !is_zombie(pid)
}

fn is_zombie(pid: Pid) -> bool {
    // proc_pid_stat(5): "pid (name) state …", and the name may hold anything.
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(')')?.1.trim_start().starts_with('Z')))
        .unwrap_or(false)
}

/// Whether the process certainly isn't this cluster's: a server works in its cluster's directory.
/// After a restart of the machine or container, the pid may belong to anybody.
fn works_elsewhere(pid: Pid, cluster: &Path) -> bool {
    fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()))
        .is_ok_and(|directory| directory != cluster)
}

/// Removes a pid file that names a living process which certainly isn't Postgres: Postgres itself
/// would refuse to start for ever. Its own check of the shared memory still stands behind.
fn clear_foreign_pid(cluster: &Path) {
    if let Some(pid) = pid_in(cluster)
        && alive(pid)
        && works_elsewhere(pid, cluster)
    {
        tracing::warn!(
            pid = pid.as_raw_nonzero(),
            "removing a pid file whose pid belongs to another program now"
        );
        if let Err(error) = fs::remove_file(cluster.join("postmaster.pid")) {
            tracing::warn!(%error, "the pid file could not be removed");
        }
    }
}

/// Starts the server, or finds it running, and waits until it serves. The caller holds the
/// transition lock.
///
/// # Errors
/// [`PostgresError::DidNotStart`] with the end of the log.
pub(super) async fn start(
    cluster: &Cluster,
    binaries: &Binaries,
    ping_options: &PgConnectOptions,
) -> Result<(), PostgresError> {
    let began = Instant::now();
    let log_start = cluster.log_length();
    let mut spawned: Option<u32> = None;
    let mut failures = 0;
    loop {
        match ping(ping_options).await {
            Answer::Up => return Ok(()),
            Answer::NotYet if began.elapsed() < RECOVERY_WAIT => {
                tokio::time::sleep(POLL).await;
                continue;
            }
            Answer::NotYet => return Err(did_not_start(cluster, log_start)),
            Answer::Nobody => {}
        }
        let ours_lives = spawned.is_some_and(|pid| reap().contains(&pid));
        if ours_lives && began.elapsed() < RECOVERY_WAIT {
            tokio::time::sleep(POLL).await;
            continue;
        }
        if spawned.take().is_some() {
            let only_leftovers = blames_leftovers(&cluster.log_tail(log_start));
            failures += u32::from(!only_leftovers);
            if failures >= ATTEMPTS_MAX || began.elapsed() > LEFTOVERS_WAIT {
                return Err(did_not_start(cluster, log_start));
            }
            tokio::time::sleep(RETRY).await;
        }
        clear_foreign_pid(&cluster.dir);
        spawned = Some(spawn(cluster, binaries)?);
    }
}

fn spawn(cluster: &Cluster, binaries: &Binaries) -> Result<u32, PostgresError> {
    let mut command = cluster.server_command(binaries)?;
    // Ctrl-C at a terminal goes to the whole group, and Postgres has to outlast our own drain.
    command.process_group(0);
    let child = command.spawn().map_err(|source| PostgresError::NotRunnable {
        program: binaries.program("postgres"),
        user: cluster.account.name().to_owned(),
        source,
    })?;
    let pid = child.id();
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    Ok(pid)
}

/// Whether an attempt failed only because of what a killed predecessor left for a moment.
fn blames_leftovers(log: &str) -> bool {
    let last_fatal = log.lines().rev().find(|line| line.contains("FATAL:"));
    last_fatal.is_some_and(|line| {
        line.contains("lock file") || line.contains("pre-existing shared memory")
    })
}

fn did_not_start(cluster: &Cluster, log_start: u64) -> PostgresError {
    PostgresError::DidNotStart {
        cluster: cluster.dir.clone(),
        log: cluster.log.clone(),
        tail: cluster.log_tail(log_start),
    }
}

/// Stops the server, if it runs, and waits until it is gone: a "fast shutdown" ends sessions,
/// rolls back what they had open, and writes everything out. The caller holds the transition lock.
///
/// # Errors
/// [`PostgresError::DidNotStop`]; it is left running then.
pub(super) async fn stop(cluster: &Cluster) -> Result<(), PostgresError> {
    let Some(pid) = running(&cluster.dir) else { return Ok(()) };
    if let Err(error) = kill_process(pid, Signal::INT) {
        let error = std::io::Error::from(error);
        if error.kind() != ErrorKind::NotFound {
            return Err(PostgresError::io("stop the server of", &cluster.dir)(error));
        }
    }
    let began = Instant::now();
    // Not until its pid file is gone: it removes that a moment before it ends.
    while still_there(pid) {
        if began.elapsed() > STOP_WAIT {
            return Err(PostgresError::DidNotStop {
                pid: pid.as_raw_nonzero().get(),
                waited_s: STOP_WAIT.as_secs(),
                log: cluster.log.clone(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_predecessors_leftovers_are_waited_for() {
        let lock =
            "2026-11-22 02:00:00 UTC [9]  FATAL:  lock file \"postmaster.pid\" already exists";
        let memory =
            "x FATAL:  pre-existing shared memory block (key 1, ID 2) is still in use\nHINT: y";
        let disk = "x FATAL:  could not write to file: No space left on device";
        assert!(blames_leftovers(lock));
        assert!(blames_leftovers(memory));
        assert!(!blames_leftovers(disk));
        assert!(!blames_leftovers(""));
        assert!(!blames_leftovers(&format!("{lock}\n{disk}")));
    }

    #[test]
    fn a_pid_file_that_names_another_program_is_not_our_server() {
        let cluster = tempfile::tempdir().unwrap();
        let pid_file = cluster.path().join("postmaster.pid");
        fs::write(&pid_file, format!("{}\n/data\n", std::process::id())).unwrap();
        assert_eq!(running(cluster.path()), None);
        clear_foreign_pid(cluster.path());
        assert!(!pid_file.exists());

        fs::write(&pid_file, "garbage\n").unwrap();
        assert_eq!(running(cluster.path()), None);
        clear_foreign_pid(cluster.path());
        assert!(pid_file.exists(), "what we don't understand is left to Postgres");
    }
}
