//! The operator's commands, each as a process, with `--json`.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::time::timeout;

use crate::server::Installation;

/// A command that replays or verifies everything, on two busy cores.
const COMMAND_WAIT: Duration = Duration::from_secs(120);

/// The operator's commands on some data.
#[derive(Debug, Clone)]
pub struct Cli {
    place: Installation,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// The object on its stdout; null when there is none.
    pub json: Value,
    pub stderr: String,
}

impl Cli {
    pub(crate) fn new(place: Installation) -> Self {
        Self { place }
    }

    /// Runs a command to its end, whatever that is.
    ///
    /// # Errors
    /// When it can't be run, takes too long, or prints something else than one object.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        let mut command = self.place.command()?;
        command.arg("--json").args(arguments).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let shown = arguments.join(" ");
        let output = timeout(COMMAND_WAIT, command.output())
            .await
            .with_context(|| format!("`punchtrail {shown}` takes too long"))??;
        let text = String::from_utf8_lossy(&output.stdout);
        let json = match text.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text)
                .with_context(|| format!("`punchtrail --json {shown}` printed {text:?}"))?,
        };
        Ok(Said {
            code: output.status.code().unwrap_or(-1),
            json,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that has to succeed, and gives the object it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let said = self.run(arguments).await?;
        if said.code != 0 {
            bail!(
                "`punchtrail {}` exits {}: {}",
                arguments.join(" "),
                said.code,
                said.stderr.trim()
            );
        }
        Ok(said.json)
    }

    /// Runs a command that has to succeed, and gives one text of the object it printed.
    ///
    /// # Errors
    /// When it fails or prints no such text.
    pub async fn text(&self, arguments: &[&str], field: &str) -> anyhow::Result<String> {
        let object = self.json(arguments).await?;
        match object.get(field).and_then(Value::as_str) {
            Some(text) => Ok(text.to_owned()),
            None => bail!("`punchtrail {}` printed no `{field}`: {object}", arguments.join(" ")),
        }
    }
}
