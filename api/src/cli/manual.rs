//! `punchtrail completions` and `punchtrail man`: made from what the command line is parsed by.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;
use serde_json::json;

use super::answer::{Answer, is_closed};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The folder to write into; made if it isn't there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Completions {
    pub(super) fn run(self, mut command: Command, json: bool) -> anyhow::Result<Answer> {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        if json {
            let (shell, script) = (self.shell.to_string(), String::from_utf8(script)?);
            return Ok(Answer::new(&json!({"shell": shell, "script": script}), ""));
        }
        // As it is: tabs and all are the shell's.
        match io::stdout().lock().write_all(&script) {
            Err(error) if !is_closed(&error) => Err(error.into()),
            _ => Ok(Answer::silent()),
        }
    }
}

impl Man {
    pub(super) fn run(self, command: Command) -> anyhow::Result<Answer> {
        let shown = self.dir.display();
        let cant = || format!("{shown} can't be written into");
        std::fs::create_dir_all(&self.dir).with_context(cant)?;
        let name = command.get_name().to_owned();
        clap_mangen::generate_to(command, &self.dir).with_context(cant)?;
        let pages = pages(&self.dir, &name).with_context(cant)?;
        let text = format!(
            "{pages} pages are in {shown}. To read one: `man {}`",
            self.dir.join(format!("{name}.1")).display()
        );
        Ok(Answer::new(&json!({"dir": shown.to_string(), "pages": pages}), text))
    }
}

/// How many pages of this program are there.
fn pages(dir: &Path, name: &str) -> io::Result<usize> {
    let mut pages = 0;
    for entry in std::fs::read_dir(dir)? {
        let file = entry?.file_name();
        let file = file.to_string_lossy();
        pages += usize::from(file.starts_with(name) && file.ends_with(".1"));
    }
    Ok(pages)
}
