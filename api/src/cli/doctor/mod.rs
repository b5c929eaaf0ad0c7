//! `punchtrail doctor`: what is missing, unsafe or out of date, each with its cure. It looks, and
//! changes nothing: no schema, no folder, no event.

mod data;
mod host;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{
    answer::{Answer, EXIT_REFUSED},
    identity::Identity,
    serve::Listening,
    source::Source,
};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    at: Listening,

    #[command(flatten)]
    identity: Identity,

    /// The folder with your backups, to see how old the newest is
    #[arg(long, value_name = "DIR", env = "PUNCHTRAIL_BACKUPS")]
    backups: Option<PathBuf>,
}

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// As it should be.
    Ok,
    /// Nothing to be done, but to be known; or what can't be seen from here.
    Note,
    /// Something is to be done.
    Wrong,
}

/// Something that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    /// What was looked at, in a word that stays.
    check: &'static str,
    state: State,
    what: String,
    /// What to do.
    cure: Option<String>,
}

/// All that was looked at.
#[derive(Debug, Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn ok(&mut self, check: &'static str, what: impl Into<String>) {
        self.0.push(Check { check, state: State::Ok, what: what.into(), cure: None });
    }

    fn note(&mut self, check: &'static str, what: impl Into<String>, cure: impl Into<String>) {
        let cure = Some(cure.into()).filter(|cure| !cure.is_empty());
        self.0.push(Check { check, state: State::Note, what: what.into(), cure });
    }

    fn wrong(&mut self, check: &'static str, what: impl Into<String>, cure: impl Into<String>) {
        let cure = Some(cure.into()).filter(|cure| !cure.is_empty());
        self.0.push(Check { check, state: State::Wrong, what: what.into(), cure });
    }

    fn wrongs(&self) -> usize {
        self.0.iter().filter(|check| check.state == State::Wrong).count()
    }

    fn told(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for Check { check, state, what, cure } in &self.0 {
            let state = match state {
                State::Ok => "ok",
                State::Note => "note",
                State::Wrong => "WRONG",
            };
            lines.push(format!("{state:<5}  {check:<12}  {what}"));
            lines.extend(cure.as_ref().map(|cure| format!("{:21}→ {cure}", "")));
        }
        lines.push(String::new());
        lines.push(match self.wrongs() {
            0 => "Nothing is wrong.".to_owned(),
            1 => "One thing is wrong.".to_owned(),
            wrongs => format!("{wrongs} things are wrong."),
        });
        lines.join("\n")
    }
}

impl Doctor {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        // Neither given is no finding: there is nothing to be looked at.
        if source.url().is_none() {
            source.dir()?;
        }
        let mut found = Findings::default();
        host::files(&mut found, &source, &self.at);
        host::listening(&mut found, &self.at);
        host::certificate(&mut found, &self.at).await;
        host::disk(&mut found, &source);
        host::zone_data(&mut found);
        host::backups(&mut found, self.backups.as_deref());
        data::look(&mut found, &source, &self.identity).await;
        let wrongs = found.wrongs();
        let object = json!({"healthy": wrongs == 0, "wrong": wrongs, "checks": found.0});
        let answer = Answer::new(&object, found.told());
        Ok(if wrongs == 0 { answer } else { answer.exiting(EXIT_REFUSED) })
    }
}

/// Some of a list by name, and how many more.
fn some(names: &[String]) -> String {
    /// The most that are named.
    const NAMED_MAX: usize = 5;
    let more = names.len().saturating_sub(NAMED_MAX);
    let named = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

/// A count with its noun.
fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}
