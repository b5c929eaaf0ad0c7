//! `punchtrail punch accept`, `reject`, `amend`, `use-server-time`, `void`: what a person at the
//! server's own machine rules.

use anyhow::bail;
use clap::Args;
use punchtrail_api::ask::limits::NOTE_CHARS_MAX;
use punchtrail_domain::punch::{PunchCommand, RejectionReason, RulingReason};
use punchtrail_infra::rulings::{self, Author, notes::Note};
use punchtrail_protocol::{Digest, PunchId, Time, capture::PunchKind};
use serde_json::json;

use super::{answer::Answer, source::Opened};

#[derive(Debug, Args)]
pub(super) struct Ruled {
    /// The punch
    punch: PunchId,
    /// A note for whoever reads the explanation
    #[arg(long, value_parser = note)]
    note: Option<String>,
    /// How many events it had when you looked; nothing is ruled when it has more
    #[arg(long, value_name = "N")]
    expected_sequence: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Accept {
    #[command(flatten)]
    ruled: Ruled,
    /// Why: `confirmed`, `recognised`, `mistake`, `other` …
    #[arg(long)]
    reason: Option<RulingReason>,
}

#[derive(Debug, Args)]
pub(super) struct Reject {
    #[command(flatten)]
    ruled: Ruled,
    /// Why: `wrong_person`, `duplicate`, `wrong_time`, `not_present` or `other`
    #[arg(long)]
    reason: RejectionReason,
}

#[derive(Debug, Args)]
pub(super) struct Amend {
    #[command(flatten)]
    ruled: Ruled,
    /// The time that shall count
    #[arg(long, value_name = "TIME", required_unless_present = "kind")]
    effective_at: Option<Time>,
    /// The kind that shall count: `in`, `out`, `break_start`, `break_end`
    #[arg(long)]
    kind: Option<PunchKind>,
    /// Why: `clock_wrong`, `wrong_time`, `wrong_kind`, `confirmed`, `other` …
    #[arg(long)]
    reason: Option<RulingReason>,
}

#[derive(Debug, Args)]
pub(super) struct Void {
    #[command(flatten)]
    ruled: Ruled,
    /// Why: `duplicate`, `test`, `wrong_person`, `mistake`, `other` …
    #[arg(long)]
    reason: Option<RulingReason>,
}

fn note(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0..=NOTE_CHARS_MAX => Ok(text.to_owned()),
        _ => Err(format!("a note has at most {NOTE_CHARS_MAX} characters")),
    }
}

impl Accept {
    pub(super) async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        let Self { ruled, reason } = self;
        ruled.run(opened, "accepted", |note| PunchCommand::Accept { reason, note }).await
    }
}

impl Reject {
    pub(super) async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        let Self { ruled, reason } = self;
        ruled.run(opened, "rejected", |note| PunchCommand::Reject { reason, note }).await
    }
}

impl Amend {
    pub(super) async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        let Self { ruled, effective_at, kind, reason } = self;
        let command = |note| PunchCommand::Amend { effective_at, kind, reason, note };
        ruled.run(opened, "corrected", command).await
    }
}

impl Void {
    pub(super) async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        let Self { ruled, reason } = self;
        let command = |note| PunchCommand::Void { reason, note };
        ruled.run(opened, "taken out of the count", command).await
    }
}

impl Ruled {
    /// Lets the time count that it had by the server's clock.
    pub(super) async fn use_server_time(self, opened: &Opened) -> anyhow::Result<Answer> {
        let command = |note| PunchCommand::UseServerTime { note };
        self.run(opened, "set to the server's time", command).await
    }

    async fn run(
        self,
        opened: &Opened,
        done: &str,
        command: impl Fn(Option<Digest>) -> PunchCommand,
    ) -> anyhow::Result<Answer> {
        let Self { punch, note, expected_sequence } = self;
        let author = Author::of_command_line(note.filter(|text| !text.is_empty()).map(Note::new));
        let ruled = rulings::rule(&opened.ledger, punch, &author, expected_sequence, command);
        let ruled = match ruled.await {
            Ok(ruled) => ruled,
            Err(error) => bail!("{error}"),
        };
        let object =
            json!({"punch": punch, "position": ruled.position, "sequence": ruled.sequence});
        let text = format!(
            "Punch {punch} is {done}. `punch explain {punch}` tells how it came to that; another \
             ruling undoes this one."
        );
        Ok(Answer::new(&object, text))
    }
}
