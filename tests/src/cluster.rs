//! A data directory, and the private Postgres that a server keeps in it.
//!
//! That Postgres outlives a killed server by design: the next start adopts it. So whoever made the
//! directory has to see to it that it stops in the end: dropping a [`DataDir`] does, by the id in
//! Postgres's own pid file and only if that process works in this very cluster.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::process::tail;

/// How long Postgres may take to go when its directory goes.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// If set, directories are kept: for looking into a failure.
const KEEP: &str = "PUNCHTRAIL_TEST_KEEP";

/// A data directory of one's own, removed in the end.
#[derive(Debug)]
pub struct DataDir {
    dir: tempfile::TempDir,
    starts: AtomicU32,
}

impl DataDir {
    /// A fresh, empty one, where a Postgres that runs as another user than root finds its way.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn fresh() -> anyhow::Result<Self> {
        Self::fresh_in(&std::env::temp_dir())
    }

    /// The same in `parent`, which other users have to be able to search.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn fresh_in(parent: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("punchtrail-").tempdir_in(parent)?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        Ok(Self { dir, starts: AtomicU32::new(0) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A new file for a program's log; the directory of logs is beside what the server keeps.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn log(&self, program: &str) -> anyhow::Result<PathBuf> {
        let logs = self.path().join("logs");
        fs::create_dir_all(&logs)?;
        let number = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(logs.join(format!("{number:02}-{program}.log")))
    }

    /// The cluster: Postgres's own data directory.
    pub fn cluster(&self) -> PathBuf {
        self.path().join("postgres/cluster")
    }

    /// The running Postgres, if one runs in this directory.
    pub fn postmaster(&self) -> Option<Pid> {
        let cluster = fs::canonicalize(self.cluster()).ok()?;
        let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
        let works_in = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).ok()?;
        (works_in == cluster && lives(pid)).then_some(pid)
    }

    /// Ends Postgres and all its children without a chance to do anything more: kill -9.
    ///
    /// # Errors
    /// When none runs, or the system refuses.
    pub fn kill_9_postgres(&self) -> anyhow::Result<Pid> {
        let postmaster = self.postmaster().context("no Postgres runs here")?;
        // The children first would let the postmaster recover; with it gone, each ends by itself.
        kill_process(postmaster, Signal::KILL)?;
        Ok(postmaster)
    }

    /// Copies the stopped cluster, with owners and modes, to `copy`.
    ///
    /// # Errors
    /// When Postgres runs, or the copy fails.
    pub fn copy_cluster_to(&self, copy: &Path) -> anyhow::Result<()> {
        ensure!(self.postmaster().is_none(), "a running cluster can't be copied file by file");
        copy_tree(&self.cluster(), copy)
    }

    /// Puts the cluster back to what was copied to `copy`; what was there meanwhile is lost.
    ///
    /// # Errors
    /// When Postgres runs, or the copy fails.
    pub fn put_cluster_back(&self, copy: &Path) -> anyhow::Result<()> {
        ensure!(self.postmaster().is_none(), "a running cluster can't be replaced");
        fs::remove_dir_all(self.cluster())?;
        copy_tree(copy, &self.cluster())
    }
}

impl DataDir {
    /// The ends of all logs, for whoever wants to know why a test failed.
    fn log_tails(&self) -> String {
        let mut logs: Vec<PathBuf> = fs::read_dir(self.path().join("logs"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        let tails = logs.iter().map(|log| format!("--- {}\n{}\n", log.display(), tail(log)));
        tails.collect()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails());
        }
        if std::env::var_os(KEEP).is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}", self.path().display());
        }
        let Some(postmaster) = self.postmaster() else { return };
        // Immediate shutdown: what is in the directory goes with it.
        let _ = kill_process(postmaster, Signal::QUIT);
        let began = Instant::now();
        while lives(postmaster) && began.elapsed() < STOP_WAIT {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Whether a process is there and not merely unreaped.
pub fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let zombie = stat.is_ok_and(|stat| {
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    });
    test_kill_process(pid).is_ok() && !zombie
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").arg("--").arg(from).arg(to).status()?;
    ensure!(status.success(), "{} could not be copied to {}", from.display(), to.display());
    Ok(())
}
