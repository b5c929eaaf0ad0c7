//! The real agent, `punchtrail-device`, on a folder of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use punchtrail_protocol::{BootId, DeviceId, SiteId, capture::PunchKind};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    file::{self, Kept},
    process::Process,
    programs::{DEVICE, program},
};

/// A command of the agent: a punch takes milliseconds, a sync may wait out some failures.
const COMMAND_WAIT: Duration = Duration::from_secs(120);
/// How long a running agent may take to say that it runs, and to stop.
const RUN_WAIT: Duration = Duration::from_secs(30);
/// The longest pause between tries that agents choose here, in milliseconds.
pub(crate) const RETRY_CAP_MS: u64 = 2_000;

/// A device and the processes on its folder.
#[derive(Debug)]
pub struct Agent {
    name: String,
    dir: PathBuf,
    tz: String,
    clock_offset_s: i64,
    running: Option<Process>,
    runs: u32,
}

/// What the agent said when it was enrolled.
#[derive(Debug, Clone, Deserialize)]
pub struct Enrolled {
    pub device: DeviceId,
    pub site: SiteId,
    /// People on the manifest it has.
    pub employees: u64,
}

/// A punch at the door.
#[derive(Debug, Clone)]
pub struct Punch<'a> {
    pub badge: &'a str,
    pub kind: PunchKind,
    /// The PIN, if one is typed.
    pub pin: Option<&'a str>,
    /// Another wall clock and boot than the machine's, for punches of another day.
    pub then: Option<(i64, BootId)>,
}

impl Agent {
    /// A device named `name` on the folder `dir`, its wall clock in zone `tz`.
    pub fn new(name: &str, dir: &Path, tz: &str) -> Self {
        Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            tz: tz.to_owned(),
            clock_offset_s: 0,
            running: None,
            runs: 0,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its wall clock is ahead by so many seconds from now on.
    pub fn set_clock_ahead_s(&mut self, seconds: i64) {
        self.clock_offset_s = seconds;
    }

    /// The agent's program, told where its folder is.
    ///
    /// # Errors
    /// When it isn't built.
    pub fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(program(DEVICE)?);
        command
            .arg("--dir")
            .arg(&self.dir)
            .env("PUNCHTRAIL_DEVICE_RETRY_CAP_MS", RETRY_CAP_MS.to_string())
            .env("PUNCHTRAIL_DEVICE_CLOCK_OFFSET_S", self.clock_offset_s.to_string())
            .env("TZ", &self.tz)
            .stdin(Stdio::null());
        Ok(command)
    }

    async fn say(&self, command: Command) -> anyhow::Result<(ExitStatus, Value)> {
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let output = timeout(COMMAND_WAIT, command.output())
            .await
            .with_context(|| format!("a command of {} takes too long", self.name))??;
        let text = String::from_utf8_lossy(&output.stdout);
        let Ok(object) = serde_json::from_str(text.trim()) else {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{} printed no object ({}): {text} {stderr}", self.name, output.status);
        };
        Ok((output.status, object))
    }

    async fn succeed(&self, command: Command) -> anyhow::Result<Value> {
        let (status, object) = self.say(command).await?;
        if !status.success() {
            bail!("{} refused ({status}): {object}", self.name);
        }
        Ok(object)
    }

    /// Enrols at `server` by a pairing code.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn enroll(&self, server: &str, code: &str) -> anyhow::Result<Enrolled> {
        let mut command = self.command()?;
        command
            .args(["enroll", "--json", "--server", server, "--code", code, "--name", &self.name]);
        Ok(serde_json::from_value(self.succeed(command).await?)?)
    }

    /// Punches, and gives the confirmation.
    ///
    /// # Errors
    /// When the punch was not recorded.
    pub async fn punch(&self, punch: &Punch<'_>) -> anyhow::Result<Value> {
        self.succeed(self.punch_command(punch)?).await
    }

    /// The process that records a punch.
    ///
    /// # Errors
    /// When the program isn't built.
    pub fn punch_command(&self, punch: &Punch<'_>) -> anyhow::Result<Command> {
        let mut command = self.command()?;
        if let Some((offset_s, boot)) = punch.then {
            command
                .env("PUNCHTRAIL_DEVICE_BOOT", boot.to_string())
                .env("PUNCHTRAIL_DEVICE_CLOCK_OFFSET_S", offset_s.to_string());
        }
        command.args(["punch", "--json", "--badge", punch.badge, "--kind", punch.kind.as_str()]);
        if let Some(pin) = punch.pin {
            command.args(["--pin", pin]);
        }
        Ok(command)
    }

    /// Runs a command that has to succeed, and gives the object it printed.
    ///
    /// # Errors
    /// When it fails.
    pub async fn ask(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = self.command()?;
        command.args(arguments);
        self.succeed(command).await
    }

    /// Runs a command, and gives the object it printed, whatever came of it.
    ///
    /// # Errors
    /// When it can't be run.
    pub async fn try_ask(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = self.command()?;
        command.args(arguments);
        Ok(self.say(command).await?.1)
    }

    /// Starts the agent that delivers, and waits until it runs.
    ///
    /// # Errors
    /// When it ends at once.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.runs += 1;
        let mut command = self.command()?;
        command.arg("run");
        let log = self.dir.with_extension(format!("{}.log", self.runs));
        let mut process = Process::start(&self.name, command, &log)?;
        process.says("running as ", RUN_WAIT).await?;
        self.running = Some(process);
        Ok(())
    }

    /// kill -9 of the running agent.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        self.running.take().with_context(|| format!("{} does not run", self.name))?.kill_9()
    }

    /// Asks the running agent to stop, and waits until it has.
    ///
    /// # Errors
    /// When none runs, or it doesn't stop.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let mut process =
            self.running.take().with_context(|| format!("{} does not run", self.name))?;
        process.terminate(RUN_WAIT).await
    }

    /// Delivers everything now; gives the report, also of a sync that could not.
    ///
    /// # Errors
    /// When it can't be run.
    pub async fn sync(&self) -> anyhow::Result<Value> {
        let mut command = self.command()?;
        command.args(["sync", "--json"]);
        Ok(self.say(command).await?.1)
    }

    /// What the device says of itself.
    ///
    /// # Errors
    /// When it can't.
    pub async fn status(&self) -> anyhow::Result<Value> {
        let mut command = self.command()?;
        command.args(["status", "--json"]);
        self.succeed(command).await
    }

    /// How many captures wait, by the device's own file.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn waiting(&self) -> anyhow::Result<u64> {
        file::waiting(&self.dir).await
    }

    /// Every capture in the device's own file, in order.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn kept(&self) -> anyhow::Result<Vec<Kept>> {
        file::kept(&self.dir).await
    }
}
