//! A program that runs beside us until it is ended.
//!
//! Its output goes to files, which are read like anything else and never fill a pipe. It leads a
//! process group of its own, so that Ctrl-C reaches the demo first, and it is killed when its owner
//! is dropped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use punchtrail_testkit::eventually;
use rustix::process::{Pid, Signal, kill_process};

/// How much of a log is shown when a program fails, in bytes.
const TAIL_BYTES_MAX: usize = 2_000;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    said: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with `name` for messages; stdout goes to `<log>.out`, stderr to `<log>`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt;
        let said = log.with_extension("out");
        let open = |path: &Path| {
            File::create(path).with_context(|| format!("can't write {}", path.display()))
        };
        command.stdin(Stdio::null()).stdout(open(&said)?).stderr(open(log)?).process_group(0);
        let child = command.spawn().with_context(|| format!("can't start {name}"))?;
        Ok(Self { name: name.to_owned(), child, said, log: log.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has said on its stdout.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// The end of its log, for messages.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Waits for a line on its stdout that starts with `start`, and gives the rest of that line.
    ///
    /// # Errors
    /// When it ends or the time is up before.
    pub async fn says(&mut self, start: &str, within: Duration) -> anyhow::Result<String> {
        let what = format!("{} to say `{start}`", self.name);
        eventually(what, within, async || {
            let said = self.said();
            let whole = said.rfind('\n').map_or("", |end| &said[..end]);
            if let Some(rest) = whole.lines().find_map(|line| line.strip_prefix(start)) {
                return Ok(Some(rest.trim().to_owned()));
            }
            match self.child.try_wait()? {
                None => Ok(None),
                Some(status) => bail!("{} ended ({status}): {}", self.name, self.log_tail()),
            }
        })
        .await
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system doesn't say.
    pub fn runs(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends it without a chance to do anything more: kill -9.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("can't kill {}", self.name))?;
        self.child.wait().with_context(|| format!("{} is not to be waited for", self.name))?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub async fn ends(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        eventually(what, within, async || Ok(self.child.try_wait()?)).await
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub async fn terminate(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process id")?, Signal::TERM)?;
        self.ends(within).await
    }
}

/// The end of a log; empty when there is none.
pub(crate) fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let from = text.len().saturating_sub(TAIL_BYTES_MAX);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[from..].trim().to_owned()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
