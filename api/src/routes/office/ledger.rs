//! The ledger itself: its head, its checkpoints, its events as they are.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::{AggregateType, Recorded};
use punchtrail_protocol::{EpochId, Position, Time, capture::INTEGER_LIMIT};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ask::{
        extract::{Params, page_limit},
        limits::{PAGE_DEFAULT, PAGE_MAX},
    },
    auth::Operator,
    health::{Follower, WentBack},
    problem::Refusal,
    state::App,
};

/// An event as the ledger keeps it.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventView {
    pub position: Position,
    pub recorded_at: Time,
    /// When, in microseconds since 1970, as the leaf has it.
    pub recorded_us: i64,
    pub aggregate_type: AggregateType,
    pub aggregate_id: String,
    /// Its number in the aggregate, from 1.
    pub sequence: u64,
    pub event_type: String,
    /// The version of its shape.
    pub event_version: String,
    /// The event: the exact text that is hashed.
    pub payload: String,
    /// Who caused it: the exact text that is hashed.
    pub metadata: String,
}

impl From<Recorded> for EventView {
    fn from(event: Recorded) -> Self {
        Self {
            position: event.position,
            recorded_at: event.recorded_at.into(),
            recorded_us: event.recorded_at.as_microsecond(),
            aggregate_type: event.aggregate_type,
            aggregate_id: event.aggregate_id,
            sequence: event.sequence,
            event_type: event.event_type,
            event_version: event.event_version,
            payload: event.payload,
            metadata: event.metadata,
        }
    }
}

/// From where events are read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// The events after this position; from the first on without it.
    pub after: Option<u64>,
    /// The most events, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// Events in the ledger's order.
#[derive(Debug, Serialize, ToSchema)]
pub struct Events {
    /// The events, without a hole.
    pub data: Vec<EventView>,
    /// Where to go on: give it as `after`.
    pub next_after: Position,
    /// Whether more is there now.
    pub has_more: bool,
}

/// The events after a position, exactly as they are kept.
#[utoipa::path(
    get, path = "/v1/ledger/events", tag = "ledger", params(EventQuery),
    operation_id = "listLedgerEvents",
    responses((status = 200, body = Events)), security(("operator_key" = [])),
)]
pub async fn events(
    State(app): State<App>,
    _operator: Operator,
    Params(query): Params<EventQuery>,
) -> Result<Answer<Events>, Refusal> {
    let limit = page_limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let after = query.after.unwrap_or_default();
    if after >= INTEGER_LIMIT {
        return Err(Refusal::field("after", "invalid_value", "`after` is a position, below 2^53."));
    }
    let entries = app.ledger.feed().read(Position(after), limit).await?;
    let data: Vec<_> =
        entries.iter().map(|entry| EventView::from(entry.recorded.clone())).collect();
    let next_after = data.last().map_or(Position(after), |event| event.position);
    Ok(Answer(Events { has_more: next_after < app.ledger.seen(), data, next_after }))
}

/// Where the ledger stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerState {
    /// Position of the last event; 0 when there is none.
    pub position: Position,
    /// The ledger's epoch: another one each time that the database went back.
    pub epoch: EpochId,
    /// Whether the database ever went back.
    pub went_back: Option<WentBack>,
    /// Who follows it, and how far: the adjudicator, the signed checkpoints, each read model.
    pub followers: Vec<Follower>,
}

/// The ledger's head, and who has followed how far.
#[utoipa::path(
    get, path = "/v1/ledger", tag = "ledger",
    operation_id = "getLedger",
    responses((status = 200, body = LedgerState)), security(("operator_key" = [])),
)]
pub async fn state(
    State(app): State<App>,
    _operator: Operator,
) -> Result<Answer<LedgerState>, Refusal> {
    // The head last: who stands there by then has taken everything.
    let followers = app.health.followers();
    let (position, history) = (app.ledger.head().await?, app.ledger.history());
    let (epoch, went_back) = (history.current(), WentBack::of(&history));
    Ok(Answer(LedgerState { position, epoch, went_back, followers }))
}
