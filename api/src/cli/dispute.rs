//! `punchtrail dispute`: what is disputed, read from the ledger itself, and what people make of it.
//! What people wrote is shown as text, whatever is in it.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use punchtrail_domain::{
    dispute::{Dispute, DisputeEvent, Evidence, Subject},
    punch::RulingReason,
};
use punchtrail_infra::rulings::{
    Author,
    disputes::{self, Change, Happened, Opening, Resolution},
    notes::Note,
};
use punchtrail_projections::explanations;
use punchtrail_protocol::{
    DisputeId, PunchId, Time,
    capture::PunchKind,
    dispute::{About, Day, DisputeCause, DisputeState, Settlement, check_text},
    shown::Shown,
};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{
    answer::{Answer, table_or},
    look::Names,
    source::{Need, Opened, Source},
};

/// The most disputes that a list shows.
const LISTED_MAX: u32 = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum DisputeCommand {
    /// List disputes, the oldest first; those that wait unless asked otherwise
    List {
        /// Only those of this site: a name or an id
        #[arg(long)]
        site: Option<String>,
        /// Only those of this person: a name, a badge, an external id or an id
        #[arg(long)]
        employee: Option<String>,
        /// Only those that are open, answered, resolved or reopened
        #[arg(long)]
        state: Option<DisputeState>,
        /// Those that are resolved, too
        #[arg(long, conflicts_with = "state")]
        all: bool,
    },
    /// Show one: what happened to it, what was written, what is known of its day
    Show {
        /// The dispute
        dispute: DisputeId,
    },
    /// Open one for somebody
    Open(Open),
    /// Answer one; the worker is told
    Answer(Word),
    /// Settle one; to amend, accept, void, add and reassign rules on the punch, too
    Resolve(Resolve),
    /// Take a settled one up again
    Reopen(Word),
}

#[derive(Debug, Args)]
pub(super) struct Open {
    /// Where: a site's name or id
    #[arg(long)]
    site: String,
    /// Whose hours: a name, a badge, an external id or an id
    #[arg(long)]
    employee: String,
    /// The punch that it is about
    #[arg(long, required_unless_present = "day", conflicts_with = "day")]
    punch: Option<PunchId>,
    /// The business day that it is about, like 2026-11-21
    #[arg(long)]
    day: Option<Day>,
    /// `missing_punch`, `wrong_time`, `wrong_kind`, `wrong_person`, `not_mine`, `rejected`, `other`
    #[arg(long)]
    cause: DisputeCause,
    /// In words
    #[arg(long, default_value = "", value_parser = text)]
    text: String,
}

#[derive(Debug, Args)]
pub(super) struct Word {
    /// The dispute
    dispute: DisputeId,
    /// What is said; the worker is told
    #[arg(long, value_parser = note)]
    note: String,
    /// How many events it had when you looked; nothing is written when it has more
    #[arg(long, value_name = "N")]
    expected_sequence: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Resolve {
    #[command(flatten)]
    word: Word,
    /// `amend`, `accept`, `void`, `add`, `reassign` or `dismiss`
    #[arg(long)]
    how: Settlement,
    /// The time that shall count, to amend; that of the punch which this adds
    #[arg(long, value_name = "TIME")]
    effective_at: Option<Time>,
    /// The kind that shall count, to amend; that of the punch which this adds
    #[arg(long)]
    kind: Option<PunchKind>,
    /// The punch that was added before, or is reassigned
    #[arg(long, value_name = "PUNCH")]
    by_punch: Option<PunchId>,
    /// Where the punch was made that this adds, if elsewhere: a site's name or id
    #[arg(long)]
    site: Option<String>,
    /// Who made the punch that this reassigns: a name, a badge, an external id or an id
    #[arg(long, value_name = "WHO")]
    to: Option<String>,
    /// Why, as a code: `forgotten`, `no_device`, `wrong_person`, `other` …
    #[arg(long)]
    reason: Option<RulingReason>,
}

fn text(text: &str) -> Result<String, String> {
    check_text(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn note(words: &str) -> Result<String, String> {
    match words.trim() {
        "" => Err("say why, in at least a word".to_owned()),
        _ => text(words),
    }
}

impl DisputeCommand {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source.with(Need::Existing, async |opened| self.done(opened).await).await
    }

    async fn done(&self, opened: &Opened) -> anyhow::Result<Answer> {
        match self {
            Self::List { site, employee, state, all } => {
                let site = opened.site_if(site.as_deref()).await?;
                let employee = opened.employee_if(employee.as_deref()).await?;
                let wanted = |row: &Listed| {
                    site.is_none_or(|site| site == row.subject.site)
                        && employee.is_none_or(|employee| employee == row.subject.employee)
                        && state.map_or(*all || row.state.waits(), |state| state == row.state)
                };
                list(opened, wanted).await
            }
            Self::Show { dispute } => show(opened, *dispute).await,
            Self::Open(open) => open.done(opened).await,
            Self::Answer(word) => word.change(opened, &Change::Answer, "answered").await,
            Self::Reopen(word) => word.change(opened, &Change::Reopen, "taken up again").await,
            Self::Resolve(resolve) => resolve.done(opened).await,
        }
    }
}

fn author(note: &str) -> Author {
    let note = Some(note).filter(|text| !text.is_empty());
    let note = note.map(|text| Note::new(text.to_owned()));
    Author::of_command_line(note)
}

/// What is known of the day; none without read models, which a server keeps.
async fn evidence(opened: &Opened, subject: &Subject) -> Option<Evidence> {
    let day = subject.about.day()?;
    match explanations::evidence(&opened.pools.reader, subject.employee, day).await {
        Ok(evidence) => evidence,
        Err(error) => {
            tracing::warn!(%error, "what is known of the day can't be read now; it isn't kept");
            None
        }
    }
}

impl Open {
    async fn done(&self, opened: &Opened) -> anyhow::Result<Answer> {
        let site = opened.site(&self.site).await?;
        let employee = opened.employee(&self.employee).await?;
        let about = self.punch.map(About::Punch).or(self.day.map(About::Day));
        let about = about.context("give --punch or --day; nothing was written")?;
        let subject = Subject { site, employee, about, cause: self.cause };
        if !disputes::worked_at(&opened.ledger, employee, site).await? {
            bail!("that person never worked at this site; nothing was written");
        }
        if let About::Day(day) = about
            && !disputes::has_begun(&opened.ledger, site, day).await?
        {
            bail!("{day} has not begun yet there; nothing was written");
        }
        let dispute = DisputeId(Uuid::now_v7());
        let opening = Opening { dispute, subject, evidence: evidence(opened, &subject).await };
        let author = author(&self.text);
        let done = disputes::open(&opened.ledger, &opening, &self.text, &author).await?;
        let text = format!("Opened: dispute {dispute}. What isn't disputed counts as before.");
        Ok(Answer::new(&json!({"dispute": dispute, "position": done.position}), text))
    }
}

impl Word {
    async fn change(&self, opened: &Opened, change: &Change, done: &str) -> anyhow::Result<Answer> {
        let (dispute, author) = (self.dispute, author(&self.note));
        let ledger = &opened.ledger;
        let expected = self.expected_sequence;
        let position = disputes::change(ledger, dispute, change, expected, &author).await?;
        let text = format!("The dispute {dispute} was {done}; the worker is told at the device.");
        Ok(Answer::new(&json!({"dispute": dispute, "position": position}), text))
    }
}

impl Resolve {
    async fn done(&self, opened: &Opened) -> anyhow::Result<Answer> {
        let Self { word, how, effective_at, kind, by_punch, reason, .. } = self;
        let times = effective_at.is_some() || kind.is_some();
        let is_whole = effective_at.is_some() == kind.is_some();
        match how {
            Settlement::Amend if !times => bail!("to amend gives a time, a kind or both"),
            Settlement::Add if !is_whole => bail!("a punch that is added has a time and a kind"),
            how if times && !matches!(how, Settlement::Amend | Settlement::Add) => {
                bail!("only to amend and to add gives a time or a kind")
            }
            how if self.to.is_some() && *how != Settlement::Reassign => {
                bail!("--to says whose a punch is that this reassigns")
            }
            how if self.site.is_some() && !(times && *how == Settlement::Add) => {
                bail!("--site says where a punch was made that this adds")
            }
            _ => {}
        }
        let loaded = opened.ledger.load::<Dispute>(&word.dispute.to_string()).await?;
        let subject = loaded.aggregate.subject().with_context(|| no_such(word.dispute))?;
        let adds = times && *how == Settlement::Add;
        let site = opened.site_if(self.site.as_deref()).await?;
        let employee = opened.employee_if(self.to.as_deref()).await?;
        let resolution = Resolution {
            how: *how,
            effective_at: *effective_at,
            kind: *kind,
            by_punch: by_punch.or_else(|| adds.then(|| PunchId(Uuid::now_v7()))),
            site,
            employee,
            reason: *reason,
            evidence: evidence(opened, subject).await,
        };
        word.change(opened, &Change::Resolve(resolution), "settled").await
    }
}

fn no_such(dispute: DisputeId) -> String {
    format!("there is no dispute {dispute}; `dispute list --all` shows them")
}

/// A dispute, folded from its events.
#[derive(Debug, Serialize)]
struct Listed {
    dispute: DisputeId,
    #[serde(flatten)]
    subject: Subject,
    state: DisputeState,
    how: Option<Settlement>,
    opened_at: Time,
    /// How many events it has.
    sequence: u64,
}

impl Listed {
    /// From what happened to it, the first event first.
    fn of(happened: &[Happened]) -> Option<Self> {
        use cqrs_es::Aggregate as _;
        let (first, last) = (happened.first()?, happened.last()?);
        let mut dispute = Dispute::default();
        happened.iter().for_each(|one| dispute.apply(one.event.clone()));
        Some(Self {
            dispute: first.dispute,
            subject: *dispute.subject()?,
            state: dispute.state(),
            how: dispute.settled().map(|(how, _)| how),
            opened_at: first.at,
            sequence: last.sequence,
        })
    }
}

fn in_words(cause: DisputeCause) -> String {
    cause.as_str().replace('_', " ")
}

fn about(about: About) -> String {
    match about {
        About::Punch(punch) => format!("punch {punch}"),
        About::Day(day) => day.to_string(),
    }
}

async fn list(opened: &Opened, wanted: impl Fn(&Listed) -> bool) -> anyhow::Result<Answer> {
    let pool = opened.ledger.pool();
    let ids = disputes::oldest(pool, LISTED_MAX).await?;
    let happened = disputes::history(pool, &ids).await?;
    let streams = happened.chunk_by(|a, b| a.dispute == b.dispute);
    let mut rows: Vec<Listed> = streams.filter_map(Listed::of).filter(wanted).collect();
    rows.sort_by_key(|row| (row.opened_at, row.dispute));
    let people = rows.iter().map(|row| row.subject.employee);
    let names = Names::of(opened).await?.with_people(opened, people).await?;
    let cells = |row: &Listed| {
        let site = row.subject.site;
        vec![
            row.dispute.to_string(),
            names.person(row.subject.employee),
            names.site(site),
            row.state.as_str().to_owned(),
            in_words(row.subject.cause),
            about(row.subject.about),
            names.at(Some(site), row.opened_at),
        ]
    };
    let heading = ["dispute", "who", "where", "state", "cause", "about", "opened"];
    let rows_shown: Vec<_> = rows.iter().map(cells).collect();
    let none = "No such dispute. Settled ones are listed with --all.";
    let text = table_or(&heading, &rows_shown, none);
    Ok(Answer::new(&json!({"disputes": rows}), text))
}

/// Something that happened, for programs.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    event: &'a DisputeEvent,
    at: Time,
    actor: Option<String>,
    text: Option<&'a str>,
    position: punchtrail_protocol::Position,
}

impl<'a> Entry<'a> {
    fn of(happened: &'a Happened) -> Self {
        let Happened { event, text, actor, at, position, .. } = happened;
        let actor = actor.as_ref().map(ToString::to_string);
        Self { event, at: *at, actor, text: text.as_deref(), position: *position }
    }
}

async fn show(opened: &Opened, dispute: DisputeId) -> anyhow::Result<Answer> {
    let happened = disputes::history(opened.ledger.pool(), &[dispute]).await?;
    let listed = Listed::of(&happened).with_context(|| no_such(dispute))?;
    let Subject { employee, site, .. } = listed.subject;
    let names = Names::of(opened).await?.with_people(opened, [employee]).await?;
    let mut lines = vec![format!(
        "dispute {dispute}: {}, {}, {} ({}, at {})",
        listed.state.as_str(),
        listed.subject.cause.as_str(),
        about(listed.subject.about),
        names.person(employee),
        names.site(site)
    )];
    for one in &happened {
        lines.push(line(one, &names.at_second(Some(site), one.at)));
        let said = one.text.iter().flat_map(|text| text.lines());
        lines.extend(said.map(|line| format!("    {}", Shown::new(line))));
    }
    let history: Vec<Entry<'_>> = happened.iter().map(Entry::of).collect();
    Ok(Answer::new(&json!({"dispute": listed, "history": history}), lines.join("\n")))
}

fn line(one: &Happened, at: &str) -> String {
    let by = one.actor.as_ref().map_or_else(|| "somebody".to_owned(), ToString::to_string);
    let what = match &one.event {
        DisputeEvent::Opened { .. } => "opened".to_owned(),
        DisputeEvent::Answered { .. } => "answered".to_owned(),
        DisputeEvent::Reopened { .. } => "taken up again".to_owned(),
        DisputeEvent::Resolved { how, by_punch, .. } => {
            let by_punch = by_punch.map_or_else(String::new, |punch| format!(" by punch {punch}"));
            format!("settled: {}{by_punch}", how.as_str())
        }
        DisputeEvent::EvidenceAdded { evidence } => {
            let Evidence { punches, quarantined, unknown_badges, devices, .. } = evidence;
            format!(
                "known of the day: {punches} punches, {} in quarantine, {} by unknown badges, {} \
                 devices that may hold or lack something by their last reports",
                quarantined.len(),
                unknown_badges.len(),
                devices.len()
            )
        }
    };
    format!("  {at}  {what} ({by})")
}
