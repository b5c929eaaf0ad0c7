//! Punches for people and integrators: the list, one, its events, and rulings on it.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::AggregateType;
use punchtrail_infra::people::directory;
use punchtrail_projections::{
    engine::page::Order,
    punches::{
        PunchView,
        timeline::{self, Filter, Key},
    },
};
use punchtrail_protocol::{DeviceId, EmployeeId, PunchId, SiteId, Time, vocabulary::Standing};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ledger::EventView;
use crate::{
    ask::{
        after::After,
        extract::{InPath, Params, page_limit},
        limits::{PAGE_DEFAULT, PAGE_MAX, STREAM_EVENTS_MAX},
        page::{Page, place},
        walk::Walk,
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// Which punches.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PunchQuery {
    pub employee: Option<EmployeeId>,
    pub site: Option<SiteId>,
    pub device: Option<DeviceId>,
    #[param(inline)]
    pub standing: Option<Standing>,
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub from: Option<Time>,
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub to: Option<Time>,
    /// `newest` (unless given) or `oldest` first.
    #[serde(default)]
    #[param(inline)]
    pub order: OrderParam,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// In which order.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderParam {
    #[default]
    Newest,
    Oldest,
}

impl From<OrderParam> for Order {
    fn from(order: OrderParam) -> Self {
        match order {
            OrderParam::Newest => Self::NewestFirst,
            OrderParam::Oldest => Self::OldestFirst,
        }
    }
}

/// Punches in the order of the time that counts.
#[utoipa::path(
    get, path = "/v1/punches", tag = "punches", params(After, PunchQuery),
    operation_id = "listPunches",
    responses((status = 200, body = Page<PunchView>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<PunchQuery>,
) -> Result<Answer<Page<PunchView>>, Refusal> {
    after.reached(&app, &[timeline::NAME]).await?;
    let limit = page_limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let place = place(&app, &walk, query.cursor.as_deref())?;
    let filter = query.filter(&operator)?;
    let (order, place) = (query.order.into(), place.map(Key::from_bytes));
    let mut found = timeline::list(&app.pools.reader, &filter, order, place, limit).await?;
    name(&app, &operator, &mut found.rows).await?;
    let key = |row: &PunchView| Key::from(row).to_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

impl PunchQuery {
    fn filter<'a>(&self, operator: &'a Operator) -> Result<Filter<'a>, Refusal> {
        let (site, within) = operator.lists(self.site)?;
        Ok(Filter {
            employee: self.employee,
            site,
            within,
            device: self.device,
            standing: self.standing,
            from: self.from,
            to: self.to,
        })
    }
}

/// Gives the people their names, as far as the directory has them and the caller may see them.
pub(super) async fn name(
    app: &App,
    operator: &Operator,
    punches: &mut [PunchView],
) -> Result<(), Refusal> {
    if !operator.sees_names() {
        return Ok(());
    }
    let people: Vec<_> = punches.iter().filter_map(|punch| punch.employee).collect();
    let names = directory::employee_names(&app.pools.reader, &people).await?;
    for punch in punches {
        punch.employee_name = punch.employee.and_then(|employee| names.get(&employee).cloned());
    }
    Ok(())
}

/// One punch as it stands.
#[utoipa::path(
    get, path = "/v1/punches/{punch}", tag = "punches",
    operation_id = "getPunch",
    params(After, ("punch" = PunchId, Path, description = "The punch")),
    responses((status = 200, body = PunchView)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    after: After,
) -> Result<Answer<PunchView>, Refusal> {
    after.reached(&app, &[timeline::NAME]).await?;
    let mut row = timeline::one(&app.pools.reader, punch).await?.ok_or_else(Refusal::not_found)?;
    operator.reaches_site(row.site)?;
    name(&app, &operator, std::slice::from_mut(&mut row)).await?;
    Ok(Answer(row))
}

/// A punch's events, the exact texts.
#[derive(Debug, Serialize, ToSchema)]
pub struct PunchEvents {
    pub data: Vec<EventView>,
}

/// The events of a punch as the ledger keeps them.
#[utoipa::path(
    get, path = "/v1/punches/{punch}/events", tag = "punches",
    operation_id = "listPunchEvents",
    params(("punch" = PunchId, Path, description = "The punch")),
    responses((status = 200, body = PunchEvents)), security(("operator_key" = [])),
)]
pub async fn events(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
) -> Result<Answer<PunchEvents>, Refusal> {
    operator.reaches_punch(&app, punch).await?;
    let id = [punch.to_string()];
    let recorded = app.ledger.feed().streams(AggregateType::Punch, &id).await?;
    if recorded.is_empty() {
        return Err(Refusal::not_found());
    }
    let data = recorded.into_iter().take(STREAM_EVENTS_MAX).map(EventView::from).collect();
    Ok(Answer(PunchEvents { data }))
}
