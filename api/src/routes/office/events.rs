//! What webhooks are told, for whoever missed some: the same bodies, in order.

use axum::{Json as Answer, extract::State};
use punchtrail_infra::webhooks::events::{self, Asked, EventType};
use punchtrail_protocol::{Position, SiteId, capture::INTEGER_LIMIT};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    ask::{
        extract::{Params, page_limit},
        limits::{PAGE_DEFAULT, PAGE_MAX},
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// From where events are read, and which.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// The events after this position of the ledger; from the first on without it.
    pub after: Option<u64>,
    /// The most events, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
    /// Of these types, separated by commas; all unless given.
    pub types: Option<String>,
    /// Of this site; of all, and of none, unless given.
    pub site: Option<SiteId>,
}

/// An event as webhooks are told it.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventTold {
    /// What `webhook-id` says of it.
    pub id: String,
    /// Its place in the ledger.
    pub position: Position,
    /// The body, byte for byte: `type`, `timestamp`, `data`.
    #[schema(value_type = Object)]
    pub body: Box<RawValue>,
}

/// Events in the ledger's order.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsTold {
    pub data: Vec<EventTold>,
    /// Where to go on: give it as `after`.
    pub next_after: Position,
    /// Whether more is there now.
    pub has_more: bool,
}

/// What webhooks are told: punches, disputes, devices and people, the events after a position.
#[utoipa::path(
    get, path = "/v1/events", tag = "webhooks",
    operation_id = "listEvents", params(EventQuery),
    responses((status = 200, body = EventsTold)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    Params(query): Params<EventQuery>,
) -> Result<Answer<EventsTold>, Refusal> {
    let limit = page_limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let after = query.after.unwrap_or_default();
    if after >= INTEGER_LIMIT {
        return Err(Refusal::field("after", "invalid_value", "`after` is a position, below 2^53."));
    }
    let types = query.types.as_deref().map(types).transpose()?;
    let (site, sites) = operator.lists(query.site)?;
    let sites = site.map(|site| vec![site]).or_else(|| sites.map(<[SiteId]>::to_vec));
    // Before what is read: nothing that it says to be there is missed then.
    let place = events::place(&app.pools.reader).await?;
    let asked = Asked { after: Position(after), limit: limit + 1, types, sites };
    let mut found = events::after(&app.pools.reader, &asked).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let last = found.last().map_or(Position(after), |event| event.position);
    let next_after = if has_more { last } else { last.max(place) };
    let told = |event: events::Told| {
        let body = RawValue::from_string(event.body).map_err(|_| Refusal::internal())?;
        Ok::<_, Refusal>(EventTold { id: event.id, position: event.position, body })
    };
    let data = found.into_iter().map(told).collect::<Result<_, Refusal>>()?;
    Ok(Answer(EventsTold { data, next_after, has_more }))
}

fn types(text: &str) -> Result<Vec<String>, Refusal> {
    let types: Vec<String> = text.split(',').map(|one| one.trim().to_owned()).collect();
    match types.iter().all(|one| one.parse::<EventType>().is_ok()) {
        true => Ok(types),
        false => Err(Refusal::field("types", "unknown", unknown_type())),
    }
}

/// What there is, for who asked for something else.
pub(super) fn unknown_type() -> String {
    format!("There is no such type; there are {}.", EventType::names().join(", "))
}
