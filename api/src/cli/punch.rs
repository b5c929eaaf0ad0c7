//! `punchtrail punch`: one punch, read from the ledger itself and ruled on, so that it can be asked
//! while no server runs and no read model is up to date.

use std::fmt::Write as _;

use clap::Subcommand;
use cqrs_es::Aggregate as _;
use punchtrail_domain::{
    Event, Recorded,
    explanation::Explanation,
    punch::{self, Anomaly, Origin},
};
use punchtrail_projections::explanations;
use punchtrail_protocol::{
    DeviceId, EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind, vocabulary::Standing,
};
use serde::Serialize;

use super::{
    answer::Answer,
    events::{Shown, line, missing, of_punch},
    look::{NONE, Names},
    punches, ruling,
    source::{Need, Opened, Source},
};

#[derive(Debug, Subcommand)]
pub(super) enum Punch {
    /// Explain it in sentences: captured, synced, verified, accepted or not, by whom, why
    Explain {
        /// The punch
        punch: PunchId,
    },
    /// Show where it stands
    Show {
        /// The punch
        punch: PunchId,
    },
    /// List punches, the newest first, as the read model has them that a server keeps
    List(punches::List),
    /// Show its events, payload and metadata byte for byte as they are in the ledger
    Events {
        /// The punch
        punch: PunchId,
    },
    /// Accept it: it counts
    Accept(ruling::Accept),
    /// Reject it: it doesn't count
    Reject(ruling::Reject),
    /// Correct the time or the kind that counts; what the device captured stays
    Amend(ruling::Amend),
    /// Let the time count that it had by the server's clock, where the device's was wrong
    UseServerTime(ruling::Ruled),
    /// Take it out of the count, as one that should not be there
    Void(ruling::Void),
    /// Add one that nobody made at a device; it is marked so for ever
    Add(ruling::Add),
    /// Say who made it, of nobody or of another
    Assign(ruling::Assign),
    /// Join an `in` with an `out` to one shift, longer than the site's longest
    Join(ruling::Join),
    /// Undo that an `in` was joined with an `out`
    Part(ruling::Ruled),
}

impl Punch {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source
            .with(Need::Existing, async |opened| match self {
                Self::Explain { punch } => explain(opened, punch).await,
                Self::Show { punch } => show(opened, &of_punch(opened, punch).await?).await,
                Self::List(list) => list.run(opened).await,
                Self::Events { punch } => all(punch, &of_punch(opened, punch).await?),
                Self::Accept(accept) => accept.run(opened).await,
                Self::Reject(reject) => reject.run(opened).await,
                Self::Amend(amend) => amend.run(opened).await,
                Self::UseServerTime(ruled) => ruled.use_server_time(opened).await,
                Self::Void(void) => void.run(opened).await,
                Self::Add(add) => add.run(opened).await,
                Self::Assign(assign) => assign.run(opened).await,
                Self::Join(join) => join.run(opened).await,
                Self::Part(ruled) => ruled.part(opened).await,
            })
            .await
    }
}

/// Not by way of a JSON value, which would write texts anew.
#[derive(Serialize)]
struct Events<'a> {
    events: &'a [Shown],
    punch: PunchId,
}

#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    explanation: Explanation,
    /// Everything up to this position was taken into account.
    as_of: Position,
}

async fn explain(opened: &Opened, punch: PunchId) -> anyhow::Result<Answer> {
    let as_of = opened.ledger.head().await?;
    let explained = explanations::explain_from_ledger(opened.ledger.pool(), punch).await?;
    let explanation = explained.ok_or_else(|| missing(punch))?;
    let mut text = explanation.sentences.join("\n");
    if let Some(report) = &explanation.device_report {
        text.push_str("\n\n");
        text.push_str(&report.sentence);
    }
    text.push_str(&format!("\n\n(From the ledger up to position {as_of}.)"));
    Ok(Answer::new(&Explained { explanation, as_of }, text))
}

async fn show(opened: &Opened, events: &[Recorded]) -> anyhow::Result<Answer> {
    let state = PunchState::of(events)?;
    let text = state.told(opened).await?;
    Ok(Answer::new(&state, text))
}

fn all(punch: PunchId, events: &[Recorded]) -> anyhow::Result<Answer> {
    let shown: Vec<Shown> = events.iter().map(Shown::of).collect::<Result<_, _>>()?;
    let mut text = String::new();
    for event in events {
        writeln!(text, "{}", line(event))?;
        writeln!(text, "            payload   {}", event.payload)?;
        writeln!(text, "            metadata  {}", event.metadata)?;
    }
    Ok(Answer::new(&Events { events: &shown, punch }, text).exactly())
}

/// Where a punch stands, folded from its events.
#[derive(Debug, Serialize)]
pub(super) struct PunchState {
    punch: PunchId,
    standing: Standing,
    counts: bool,
    employee: Option<EmployeeId>,
    badge: Option<String>,
    site: Option<SiteId>,
    device: Option<DeviceId>,
    seq: Option<u64>,
    captured_at: Option<Time>,
    kind: Option<PunchKind>,
    effective_at: Option<Time>,
    received_at: Option<Time>,
    anomalies: Vec<Anomaly>,
    /// Whether a person added it, which nobody made at a device.
    entered: bool,
    /// The `out` that it is joined with to one shift.
    joined: Option<PunchId>,
    position: Position,
}

impl PunchState {
    pub(super) fn of(events: &[Recorded]) -> anyhow::Result<Self> {
        let mut punch = punch::Punch::default();
        let mut id = PunchId::NIL;
        for recorded in events {
            if let Event::Punch(of, event) = recorded.event()? {
                id = of;
                punch.apply(event);
            }
        }
        let (effective_at, kind) = punch.effective().unzip();
        let mut state = Self {
            punch: id,
            standing: punch.standing(),
            counts: punch.standing().counts(),
            employee: punch.employee(),
            badge: None,
            site: None,
            device: None,
            seq: None,
            captured_at: None,
            kind,
            effective_at,
            received_at: punch.synced().map(|(_, at, _)| at),
            anomalies: punch.anomalies().to_vec(),
            entered: matches!(punch.origin(), Some(Origin::Entered { .. })),
            joined: punch.joined(),
            position: events.last().map_or(Position::START, |event| event.position),
        };
        match punch.origin() {
            Some(Origin::Captured { capture, .. }) => {
                state.badge.clone_from(&capture.badge);
                (state.site, state.device) = (Some(capture.site), Some(capture.device));
                (state.seq, state.captured_at) = (Some(capture.seq), Some(capture.captured_at));
            }
            Some(Origin::Entered { site, at, .. }) => {
                (state.site, state.captured_at) = (Some(*site), Some(*at));
            }
            Some(Origin::Admitted { site, device, captured_at, .. }) => {
                (state.site, state.device) = (Some(*site), Some(*device));
                state.captured_at = Some(*captured_at);
            }
            None => {}
        }
        Ok(state)
    }
}

impl PunchState {
    /// For people: names and local times, unless others are asked for.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub(super) async fn told(&self, opened: &Opened) -> anyhow::Result<String> {
        let names = Names::of(opened).await?.with_people(opened, self.employee).await?;
        let names = names.with_devices(opened, self.device).await?;
        let dash = || NONE.to_owned();
        let at = |at: Option<Time>| at.map_or_else(dash, |at| names.at_second(self.site, at));
        let counts = if self.counts { "counts" } else { "does not count" };
        let mut lines = vec![
            ("punch", self.punch.to_string()),
            ("standing", format!("{} ({counts})", self.standing.as_str())),
            ("kind", self.kind.map_or_else(dash, |kind| kind.to_string())),
            ("captured at", at(self.captured_at)),
            ("effective", at(self.effective_at)),
            ("received", at(self.received_at)),
            ("employee", self.employee.map_or_else(dash, |who| names.person(who))),
        ];
        lines.extend(
            self.badge.as_ref().map(|badge| ("badge", format!("{badge} (unknown to the device)"))),
        );
        lines.push(("site", self.site.map_or_else(dash, |site| names.site(site))));
        lines.push(match self.entered {
            true => ("device", "none: a person added it".to_owned()),
            false => {
                let device = self.device.map_or_else(dash, |device| names.device(device));
                let seq = self.seq.map_or_else(dash, |seq| seq.to_string());
                ("device", format!("{device}, number {seq}"))
            }
        });
        lines.extend(self.joined.map(|out| ("joined with", format!("{out}, to one shift"))));
        let doubts = self.anomalies.iter().map(|one| one.reason().as_str().replace('_', " "));
        lines.extend(doubts.map(|doubt| ("doubt", doubt)));
        lines.push(("position", self.position.to_string()));
        let line = |(what, is): &(&str, String)| format!("{what:<11}  {is}");
        Ok(lines.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}
