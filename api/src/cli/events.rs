//! Events as commands show them: one object or one line each, exactly as the ledger has them.

use anyhow::anyhow;
use punchtrail_domain::{AggregateType, Recorded};
use punchtrail_protocol::{Position, PunchId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::source::Opened;

/// The punch's events, in order.
///
/// # Errors
/// When there are none.
pub(super) async fn of_punch(opened: &Opened, punch: PunchId) -> anyhow::Result<Vec<Recorded>> {
    let id = [punch.to_string()];
    let events = opened.ledger.feed().streams(AggregateType::Punch, &id).await?;
    if events.is_empty() { Err(missing(punch)) } else { Ok(events) }
}

/// What is said of a punch that has no events.
pub(super) fn missing(punch: PunchId) -> anyhow::Error {
    anyhow!(
        "the ledger holds no punch {punch}. If a device shows it as made, the device still holds \
         it: `device list` shows how many each held when it last reported"
    )
}

/// An event, its texts exactly as the ledger has them.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    position: Position,
    recorded_at: jiff::Timestamp,
    aggregate_type: &'static str,
    aggregate_id: String,
    sequence: u64,
    event_type: String,
    event_version: String,
    payload: Box<RawValue>,
    metadata: Box<RawValue>,
}

impl Shown {
    pub(super) fn of(event: &Recorded) -> serde_json::Result<Self> {
        Ok(Self {
            position: event.position,
            recorded_at: event.recorded_at,
            aggregate_type: event.aggregate_type.as_str(),
            aggregate_id: event.aggregate_id.clone(),
            sequence: event.sequence,
            event_type: event.event_type.clone(),
            event_version: event.event_version.clone(),
            payload: RawValue::from_string(event.payload.clone())?,
            metadata: RawValue::from_string(event.metadata.clone())?,
        })
    }
}

/// An event in one line for people.
pub(super) fn line(event: &Recorded) -> String {
    let actor = event.actor().map_or_else(|| "-".to_owned(), |actor| actor.to_string());
    format!(
        "{:>10}  {:.3}  {:<10} {}  {:>3}  {}  by {actor}",
        event.position,
        event.recorded_at,
        event.aggregate_type.as_str(),
        event.aggregate_id,
        event.sequence,
        event.event_type
    )
}
