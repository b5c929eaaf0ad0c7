//! What a person punched, and what it comes to: timelines and timecards.

use axum::{Json as Answer, extract::State};
use jiff::civil::Date;
use punchtrail_infra::people::directory;
use punchtrail_projections::{
    engine::page::Order,
    punches::{
        PunchView,
        timecards::{self, PersonTimecards, TimecardsError},
        timeline::{self, Filter, Key},
    },
};
use punchtrail_protocol::{EmployeeId, SiteId, Time};
use serde::Deserialize;
use utoipa::IntoParams;

use super::punches;
use crate::{
    ask::{
        after::After,
        extract::{Params, page_limit},
        limits::{PAGE_DEFAULT, PAGE_MAX},
        page::{Page, place},
        walk::Walk,
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// Whose timeline.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    pub employee: EmployeeId,
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub from: Option<Time>,
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub to: Option<Time>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most punches looked at, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// A person's punches that count, accepted or provisionally, the earliest first.
#[utoipa::path(
    get, path = "/v1/timeline", tag = "timecards", params(After, TimelineQuery),
    operation_id = "getTimeline",
    responses((status = 200, body = Page<PunchView>)), security(("operator_key" = [])),
)]
pub async fn timeline(
    State(app): State<App>,
    operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<TimelineQuery>,
) -> Result<Answer<Page<PunchView>>, Refusal> {
    after.reached(&app, &[timeline::NAME]).await?;
    let limit = page_limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let place = place(&app, &walk, query.cursor.as_deref())?;
    let place = place.map(Key::from_bytes);
    operator.reaches_employee(&app, query.employee).await?;
    let (employee, (site, within)) = (Some(query.employee), operator.lists(None)?);
    let (from, to) = (query.from, query.to);
    let filter = Filter { employee, site, within, from, to, ..Filter::default() };
    let found =
        timeline::list(&app.pools.reader, &filter, Order::OldestFirst, place, limit).await?;
    let key = |row: &PunchView| Key::from(row).to_bytes();
    let mut page = Page::of(&app, &walk, found.rows, found.more, key);
    page.data.retain(|row| row.standing.counts());
    punches::name(&app, &operator, &mut page.data).await?;
    Ok(Answer(page))
}

/// Whose timecards.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TimecardQuery {
    /// One person; give this or `site`.
    pub employee: Option<EmployeeId>,
    /// Everybody who punched at a site; give this or `employee`.
    pub site: Option<SiteId>,
    /// The first business day, `YYYY-MM-DD`.
    #[param(value_type = String, format = Date)]
    pub from: Date,
    /// The last business day, `YYYY-MM-DD`; at most 92 days in all.
    #[param(value_type = String, format = Date)]
    pub to: Date,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most people, 1 to 200; 100 unless given.
    pub limit: Option<u32>,
}

/// Punches paired into worked time per business day, of a person or of everybody at a site. Hours
/// are one person's, wherever they punched: who may see some of them sees them whole.
#[utoipa::path(
    get, path = "/v1/timecards", tag = "timecards", params(After, TimecardQuery),
    operation_id = "listTimecards",
    responses((status = 200, body = Page<PersonTimecards>)), security(("operator_key" = [])),
)]
pub async fn cards(
    State(app): State<App>,
    operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<TimecardQuery>,
) -> Result<Answer<Page<PersonTimecards>>, Refusal> {
    after.reached(&app, &timecards::RESTS_ON).await?;
    let mut page = match (query.employee, query.site) {
        (Some(employee), None) => {
            operator.reaches_employee(&app, employee).await?;
            of_employee(&app, employee, &query).await?
        }
        (None, Some(site)) => {
            operator.reaches_site(site)?;
            of_site(&app, &walk, site, query).await?
        }
        _ => {
            return Err(Refusal::field(
                "employee",
                "invalid_value",
                "Give `employee` or `site`, one of the two.",
            ));
        }
    };
    if operator.sees_names() {
        name(&app, &mut page.data).await?;
    }
    Ok(Answer(page))
}

async fn of_employee(
    app: &App,
    employee: EmployeeId,
    query: &TimecardQuery,
) -> Result<Page<PersonTimecards>, Refusal> {
    let cards = timecards::of_employee(&app.pools.reader, employee, query.from, query.to).await?;
    let person = PersonTimecards { employee, employee_name: None, cards };
    Ok(Page { data: vec![person], next_cursor: None, has_more: false })
}

async fn of_site(
    app: &App,
    walk: &Walk,
    site: SiteId,
    query: TimecardQuery,
) -> Result<Page<PersonTimecards>, Refusal> {
    let limit = page_limit(query.limit, PAGE_DEFAULT, timecards::PAGE_PEOPLE_MAX)?;
    let place = place(app, walk, query.cursor.as_deref())?;
    let after = place.map(|id| EmployeeId(uuid::Uuid::from_bytes(id)));
    let pool = &app.pools.reader;
    let found = timecards::of_site(pool, site, query.from, query.to, after, limit).await?;
    Ok(Page::of(app, walk, found.rows, found.more, |row| *row.employee.0.as_bytes()))
}

/// Gives the people their names, as far as the directory has them.
async fn name(app: &App, people: &mut [PersonTimecards]) -> Result<(), Refusal> {
    let ids: Vec<_> = people.iter().map(|person| person.employee).collect();
    let mut names = directory::employee_names(&app.pools.reader, &ids).await?;
    for person in people {
        person.employee_name = names.remove(&person.employee);
    }
    Ok(())
}

impl From<TimecardsError> for Refusal {
    fn from(error: TimecardsError) -> Self {
        match error {
            TimecardsError::Database(error) => error.into(),
            TimecardsError::Range => {
                Self::field("to", "invalid_value", "The days are in order and at most 92.")
            }
            TimecardsError::TooMany => Self::field(
                "to",
                "too_many",
                "Those days hold too many punches for one read; ask for fewer days or people.",
            ),
        }
    }
}
