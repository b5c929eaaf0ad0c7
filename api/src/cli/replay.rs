//! `punchtrail ledger replay`: the ledger's events in their order, up to a position or a time.

use std::{collections::BTreeMap, str::FromStr};

use clap::Args;
use punchtrail_domain::Recorded;
use punchtrail_protocol::{Position, PunchId};
use serde::Serialize;

use super::{
    answer::{Answer, Refusal, is_closed, print_json},
    events::{self, Shown, line},
    punch::PunchState,
    source::{Need, Opened, Source},
};

/// How many events are read at a time.
const PAGE_EVENTS: u32 = 5_000;

/// Show the ledger's events in their order
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Stop after this position, or after this time (2026-11-21T09:00:00Z)
    #[arg(long, value_name = "POSITION|TIME")]
    until: Option<Until>,
    /// Only this punch, and how it stood then
    #[arg(long, value_name = "ID")]
    punch: Option<PunchId>,
    /// Print one JSON object a line and event, as it comes
    #[arg(long, conflicts_with = "json")]
    ndjson: bool,
}

/// Where a replay ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    Position(Position),
    /// After the last event recorded by then.
    Time(jiff::Timestamp),
}

impl FromStr for Until {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(position) = text.parse() {
            return Ok(Self::Position(Position(position)));
        }
        text.parse().map(Self::Time).map_err(|_| {
            "neither a position (a number) nor a time with a zone (2026-11-21T09:00:00Z)".to_owned()
        })
    }
}

impl Until {
    fn includes(self, event: &Recorded) -> bool {
        match self {
            Self::Position(position) => event.position <= position,
            Self::Time(time) => event.recorded_at <= time,
        }
    }
}

impl Replay {
    pub(super) async fn run(self, source: Source, json: bool) -> anyhow::Result<Answer> {
        if self.ndjson && json {
            let what = "--json prints one object, --ndjson one a line; choose one".to_owned();
            return Err(Refusal::Usage(what).into());
        }
        source
            .with(Need::Existing, async |opened| match self.punch {
                Some(punch) => self.one(opened, punch).await,
                None => self.all(opened, json).await,
            })
            .await
    }

    async fn one(&self, opened: &Opened, id: PunchId) -> anyhow::Result<Answer> {
        let mut events = events::of_punch(opened, id).await?;
        events.retain(|event| self.until.is_none_or(|until| until.includes(event)));
        if events.is_empty() {
            anyhow::bail!("the punch {id} was not in the ledger yet by then");
        }
        if self.ndjson {
            let objects: Vec<Shown> = events.iter().map(Shown::of).collect::<Result<_, _>>()?;
            let lines: Vec<String> =
                objects.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
            shown(&mut lines.join("\n"))?;
            return Ok(Answer::silent());
        }
        let state = PunchState::of(&events)?;
        let objects: Vec<Shown> = events.iter().map(Shown::of).collect::<Result<_, _>>()?;
        let lines: Vec<String> = events.iter().map(line).collect();
        let text = format!("{}\n\n{}", lines.join("\n"), state.told(opened).await?);
        let object = Replayed { events: objects, punch: id, state };
        Ok(Answer::new(&object, text))
    }

    async fn all(&self, opened: &Opened, json: bool) -> anyhow::Result<Answer> {
        let feed = opened.ledger.feed();
        let mut summary = Summary::default();
        let mut lines = String::new();
        'pages: loop {
            let page = feed.read(summary.through, PAGE_EVENTS).await?;
            if page.is_empty() {
                break;
            }
            for entry in &page {
                let event = &entry.recorded;
                if self.until.is_some_and(|until| !until.includes(event)) {
                    break 'pages;
                }
                summary.add(event);
                if self.ndjson {
                    lines.push_str(&serde_json::to_string(&Shown::of(event)?)?);
                    lines.push('\n');
                } else if !json {
                    lines.push_str(&line(event));
                    lines.push('\n');
                }
            }
            if !shown(&mut lines)? {
                return Ok(Answer::silent());
            }
        }
        shown(&mut lines)?;
        if self.ndjson {
            return Ok(Answer::silent());
        }
        let text = format!("{} events, up to position {}.", summary.events, summary.through);
        Ok(Answer::new(&summary, text))
    }
}

/// Prints what has gathered. Whether anybody still reads.
fn shown(lines: &mut String) -> std::io::Result<bool> {
    if lines.is_empty() {
        return Ok(true);
    }
    match print_json(&std::mem::take(lines)) {
        Ok(()) => Ok(true),
        Err(error) if is_closed(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A punch's events, their texts as they are stored, and how it stood then.
#[derive(Serialize)]
struct Replayed {
    events: Vec<Shown>,
    punch: PunchId,
    state: PunchState,
}

/// What a replay went through.
#[derive(Debug, Default, Serialize)]
struct Summary {
    through: Position,
    recorded_at: Option<jiff::Timestamp>,
    events: u64,
    /// How many there are of each, `punch.Accepted` for one.
    by_type: BTreeMap<String, u64>,
}

impl Summary {
    fn add(&mut self, event: &Recorded) {
        self.through = event.position;
        self.recorded_at = Some(event.recorded_at);
        self.events += 1;
        let kind = format!("{}.{}", event.aggregate_type.as_str(), event.event_type);
        *self.by_type.entry(kind).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_position_or_a_time() {
        assert_eq!("17".parse(), Ok(Until::Position(Position(17))));
        let time: Until = "2026-11-21T10:00:00+01:00".parse().unwrap();
        assert_eq!(time, Until::Time("2026-11-21T09:00:00Z".parse().unwrap()));
        assert!("yesterday".parse::<Until>().is_err());
        assert!("2026-11-21T10:00:00".parse::<Until>().is_err());
    }
}
