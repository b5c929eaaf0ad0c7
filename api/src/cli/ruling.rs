//! `punchtrail punch accept`, `reject`, `amend`, `use-server-time`, `void`, `add`, `assign`,
//! `join`, `part`: what a person at the server's own machine rules.

use anyhow::bail;
use clap::Args;
use punchtrail_api::ask::limits::NOTE_CHARS_MAX;
use punchtrail_domain::punch::{PunchCommand, RejectionReason, RulingReason};
use punchtrail_infra::rulings::{self, Author, Entering, notes::Note};
use punchtrail_protocol::{Digest, PunchId, Time, capture::PunchKind};
use serde_json::json;
use uuid::Uuid;

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

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Who came or went: a name, a badge, an external id or an id
    #[arg(long)]
    who: String,
    /// Where: a site's name or id
    #[arg(long)]
    site: String,
    /// What: `in`, `out`, `break_start`, `break_end`
    #[arg(long)]
    kind: PunchKind,
    /// When; not in the future
    #[arg(long, value_name = "TIME")]
    at: Time,
    /// Why nobody made it at a device: `forgotten`, `no_device`, `other` …
    #[arg(long)]
    reason: RulingReason,
    /// A note for whoever reads the explanation
    #[arg(long, value_parser = note)]
    note: Option<String>,
    /// Its id, a UUIDv7 of your own, to add it once however often you say so
    #[arg(long, value_name = "PUNCH")]
    id: Option<PunchId>,
}

#[derive(Debug, Args)]
pub(super) struct Assign {
    #[command(flatten)]
    ruled: Ruled,
    /// Who made it: a name, a badge, an external id or an id
    who: String,
    /// Why: `recognised`, `confirmed`, `wrong_person`, `other` …
    #[arg(long)]
    reason: Option<RulingReason>,
}

#[derive(Debug, Args)]
pub(super) struct Join {
    #[command(flatten)]
    ruled: Ruled,
    /// The `out` that ends the shift, at most 72 hours after the `in`
    out: PunchId,
}

pub(super) fn note(text: &str) -> Result<String, String> {
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

impl Add {
    pub(super) async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        let Self { who, site, kind, at, reason, note, id } = self;
        let (employee, site) = (opened.employee(&who).await?, opened.site(&site).await?);
        let punch = id.unwrap_or_else(|| PunchId(Uuid::now_v7()));
        let entering = Entering { punch, employee, site, kind, at, reason };
        let author = Author::of_command_line(note.filter(|text| !text.is_empty()).map(Note::new));
        let entered = match rulings::enter(&opened.ledger, entering, &author).await {
            Ok(entered) => entered,
            Err(error) => bail!("{error}"),
        };
        let object = json!({
            "punch": punch, "position": entered.position, "sequence": entered.sequence,
            "added": entered.is_new,
        });
        let text = match entered.is_new {
            true => format!(
                "Punch {punch} is added, and marked for ever as one that a person added. `punch \
                 void {punch}` takes it out of the count."
            ),
            false => format!("Punch {punch} was added before; nothing was changed."),
        };
        Ok(Answer::new(&object, text))
    }
}

impl Assign {
    pub(super) async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        let Self { ruled, who, reason } = self;
        let employee = opened.employee(&who).await?;
        let command = |note| PunchCommand::Assign { employee, reason, note };
        ruled.run(opened, "given to whoever made it", command).await
    }
}

impl Join {
    pub(super) async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        let Self { ruled, out } = self;
        let command = |note| PunchCommand::JoinShift { out, note };
        ruled.run(opened, "joined to one shift", command).await
    }
}

impl Ruled {
    /// Undoes that it was joined to a shift.
    pub(super) async fn part(self, opened: &Opened) -> anyhow::Result<Answer> {
        self.run(opened, "parted", |note| PunchCommand::PartShift { note }).await
    }

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
        let object = json!({
            "punch": punch, "position": ruled.position, "sequence": ruled.sequence,
            "days": ruled.days,
        });
        let text = format!(
            "Punch {punch} is {done}. `punch explain {punch}` tells how it came to that; another \
             ruling undoes this one."
        );
        Ok(Answer::new(&object, text))
    }
}
