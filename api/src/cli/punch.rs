//! `punchtrail punch`: one punch, read from the ledger itself, so that it can be asked while no server
//! runs and no read model is up to date.

use std::fmt::Write as _;

use anyhow::bail;
use clap::Subcommand;
use punchtrail_domain::{AggregateType, Recorded};
use punchtrail_protocol::PunchId;
use serde_json::json;

use super::{
    answer::Answer,
    explain,
    replay::{PunchState, Shown, line},
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
    /// Show its events, as they are in the ledger
    Events {
        /// The punch
        punch: PunchId,
    },
}

impl Punch {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source
            .with(Need::Existing, async |opened| match self {
                Self::Explain { punch } => {
                    explain::punch(opened, &events(opened, punch).await?).await
                }
                Self::Show { punch } => show(&events(opened, punch).await?),
                Self::Events { punch } => all(punch, &events(opened, punch).await?),
            })
            .await
    }
}

/// The punch's events, in order.
///
/// # Errors
/// When there are none.
pub(super) async fn events(opened: &Opened, punch: PunchId) -> anyhow::Result<Vec<Recorded>> {
    let id = [punch.to_string()];
    let events = opened.ledger.feed().streams(AggregateType::Punch, &id).await?;
    if events.is_empty() {
        bail!(
            "the ledger holds no punch {punch}. If a device shows it as made, the device still holds \
             it: `device list` shows how many each held when it last reported"
        );
    }
    Ok(events)
}

fn show(events: &[Recorded]) -> anyhow::Result<Answer> {
    let state = PunchState::of(events)?;
    let text = state.to_string();
    Ok(Answer::new(&state, text))
}

fn all(punch: PunchId, events: &[Recorded]) -> anyhow::Result<Answer> {
    let shown: Vec<Shown> = events.iter().map(Shown::of).collect::<Result<_, _>>()?;
    let mut text = String::new();
    for event in events {
        writeln!(text, "{}", line(event))?;
    }
    Ok(Answer::new(&json!({"punch": punch, "events": shown}), text))
}
