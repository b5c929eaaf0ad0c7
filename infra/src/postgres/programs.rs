//! Postgres's own programs that copy a database and put it back: `pg_basebackup`, `pg_dump`,
//! `pg_restore`. They read and write through the server, which goes on serving.
//!
//! They may take as long as the database is large. They are ended when whoever waits for them is
//! dropped, and never shown a password on their command line.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use super::{
    binaries::{self, Places},
    error::PostgresError,
};

/// How long a program may take: a terabyte at a slow disk's pace.
const RUN_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How much of what it said is repeated, in bytes from the end.
const SAID_BYTES_MAX: usize = 2_000;

/// How a program reaches the database.
#[derive(Debug)]
pub(super) struct Lead {
    pub url: String,
    pub password: Option<String>,
    /// Whether it is the private one: what a shell has set for another must not reach it.
    pub private: bool,
}

/// The folder that the programs are in.
#[derive(Debug)]
pub(super) struct Programs {
    pub dir: PathBuf,
}

impl Programs {
    /// The newest `pg_dump`, and what is beside it: an older one refuses a newer server.
    ///
    /// # Errors
    /// [`PostgresError::NoProgram`].
    pub fn newest() -> Result<Self, PostgresError> {
        let program = "pg_dump";
        let found = binaries::newest_with(&Places::from_environment(), program);
        found.map(|found| Self { dir: found.dir }).ok_or(PostgresError::NoProgram { program })
    }

    /// A copy of the cluster in the new folder `to`, with the log that was written meanwhile; of
    /// its blocks only those that changed since the copy `before` was made, if there is one.
    pub async fn base_backup(
        &self,
        lead: &Lead,
        to: &Path,
        before: Option<&Path>,
    ) -> Result<(), PostgresError> {
        let program = "pg_basebackup";
        let mut command = self.command(program, lead);
        if let Some(before) = before {
            command.arg("--incremental").arg(before.join("backup_manifest"));
        }
        command.arg("-d").arg(&lead.url).arg("-D").arg(to);
        command.args(["-X", "stream", "-c", "fast", "-l", "punchtrail", "-w", "--no-sync"]);
        run(program, command).await
    }

    /// A whole copy in the new folder `to`, of an earlier one and of what changed since.
    pub async fn combine(
        &self,
        before: &Path,
        changes: &Path,
        to: &Path,
    ) -> Result<(), PostgresError> {
        let program = "pg_combinebackup";
        let mut command = Command::new(self.dir.join(program));
        command.arg(before).arg(changes).arg("-o").arg(to).arg("--no-sync");
        run(program, command).await
    }

    /// What a snapshot sees, as an archive in the new file `to`.
    pub async fn dump(&self, lead: &Lead, snapshot: &str, to: &Path) -> Result<(), PostgresError> {
        let program = "pg_dump";
        let mut command = self.command(program, lead);
        command.arg("-d").arg(&lead.url).arg("-f").arg(to).arg(format!("--snapshot={snapshot}"));
        // The least of gzip: it halves the time, and hashes don't get smaller by more.
        command.args(["-Fc", "-Z", "1", "-w"]);
        run(program, command).await
    }

    /// Puts an archive back, whole or not at all.
    pub async fn restore(&self, lead: &Lead, from: &Path) -> Result<(), PostgresError> {
        let program = "pg_restore";
        let mut command = self.command(program, lead);
        command.arg("-d").arg(&lead.url);
        command.args(["-w", "--exit-on-error", "--single-transaction", "--no-owner"]);
        command.arg(from);
        run(program, command).await
    }

    /// Reads an archive's list of contents.
    pub async fn list(&self, archive: &Path) -> Result<(), PostgresError> {
        let program = "pg_restore";
        let mut command = Command::new(self.dir.join(program));
        command.arg("--list").arg(archive).stdout(Stdio::null());
        run(program, command).await
    }

    fn command(&self, program: &str, lead: &Lead) -> Command {
        let mut command = Command::new(self.dir.join(program));
        if lead.private {
            let of_postgres =
                |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(b"PG");
            for (name, _) in std::env::vars_os().filter(|(name, _)| of_postgres(name)) {
                command.env_remove(name);
            }
        }
        if let Some(password) = &lead.password {
            command.env("PGPASSWORD", password);
        }
        command
    }
}

async fn run(program: &'static str, mut command: Command) -> Result<(), PostgresError> {
    command.stdin(Stdio::null()).env("LC_ALL", "C").kill_on_drop(true);
    let failed = |output: String| PostgresError::Program { program, output };
    let done = match tokio::time::timeout(RUN_MAX, command.output()).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
            return Err(PostgresError::NoProgram { program });
        }
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("not done after {} s", RUN_MAX.as_secs()))),
    };
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let said = said.trim();
    let from = said.len().saturating_sub(SAID_BYTES_MAX);
    let from = (from..said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or(0);
    let said = &said[from..];
    Err(failed(if said.is_empty() { done.status.to_string() } else { said.to_owned() }))
}
