//! What a person punched, and what it comes to: timelines and timecards.

use axum::{Json as Answer, extract::State};
use jiff::civil::Date;
use punchtrail_domain::timecard::Timecard;
use punchtrail_infra::people::directory;
use punchtrail_projections::{
    engine::page::Order,
    punches::{
        PunchRow,
        timecards::{self, PersonCards, TimecardsError},
        timeline::{self, Filter, Key},
    },
};
use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::punches::{PunchView, named};
use crate::{
    ask::{
        after::After,
        extract::{Params, page_limit},
        limits::{PAGE_DEFAULT, PAGE_MAX},
        page::{Page, PageQuery},
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

const CARDS: &str = "timecards";
const TIMELINE: &str = "timeline";

/// Whose timeline.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    /// The person.
    pub employee: EmployeeId,
    /// Effective then or later.
    pub from: Option<Time>,
    /// Effective before then.
    pub to: Option<Time>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most punches looked at, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// A person's punches that count, accepted or provisionally, the earliest first.
#[utoipa::path(
    get, path = "/v1/timeline", tag = "timecards", params(TimelineQuery),
    responses((status = 200, body = Page<PunchView>)), security(("operator_key" = [])),
)]
pub async fn timeline(
    State(app): State<App>,
    _operator: Operator,
    after: After,
    Params(query): Params<TimelineQuery>,
) -> Result<Answer<Page<PunchView>>, Refusal> {
    after.reached(&app, &[timeline::NAME]).await?;
    let limit = page_limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let place = PageQuery { cursor: query.cursor, limit: None }.place(&app, TIMELINE)?.map(key);
    let employee = Some(query.employee);
    let filter = Filter { employee, from: query.from, to: query.to, ..Filter::default() };
    let found =
        timeline::list(&app.pools.reader, &filter, Order::OldestFirst, place, limit).await?;
    let mut page = Page::of(&app, TIMELINE, found.rows, found.more, key_bytes);
    page.data.retain(|row| row.standing.counts());
    Ok(Answer(named(&app, page).await?))
}

fn key_bytes(row: &PunchRow) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&row.effective_at.millis().to_be_bytes());
    bytes[8..].copy_from_slice(row.punch.0.as_bytes());
    bytes
}

fn key(bytes: [u8; 24]) -> Key {
    let (mut time, mut punch) = ([0; 8], [0; 16]);
    time.copy_from_slice(&bytes[..8]);
    punch.copy_from_slice(&bytes[8..]);
    let effective_at = Time::from_millis(i64::from_be_bytes(time));
    Key { effective_at, punch: PunchId(uuid::Uuid::from_bytes(punch)) }
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

/// A person's timecards.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonTimecards {
    /// Who.
    pub employee: EmployeeId,
    /// The name, if the directory has it.
    pub employee_name: Option<String>,
    /// A card for each business day with a punch, in order.
    pub cards: Vec<Timecard>,
}

/// Punches paired into worked time per business day, of a person or of everybody at a site.
#[utoipa::path(
    get, path = "/v1/timecards", tag = "timecards", params(TimecardQuery),
    responses((status = 200, body = Page<PersonTimecards>)), security(("operator_key" = [])),
)]
pub async fn cards(
    State(app): State<App>,
    _operator: Operator,
    after: After,
    Params(query): Params<TimecardQuery>,
) -> Result<Answer<Page<PersonTimecards>>, Refusal> {
    after.reached(&app, &timecards::RESTS_ON).await?;
    let page = match (query.employee, query.site) {
        (Some(employee), None) => of_employee(&app, employee, &query).await?,
        (None, Some(site)) => of_site(&app, site, query).await?,
        _ => {
            return Err(Refusal::field(
                "employee",
                "invalid_value",
                "Give `employee` or `site`, one of the two.",
            ));
        }
    };
    with_names(&app, page).await.map(Answer)
}

async fn of_employee(
    app: &App,
    employee: EmployeeId,
    query: &TimecardQuery,
) -> Result<Page<PersonCards>, Refusal> {
    let cards = timecards::of_employee(&app.pools.reader, employee, query.from, query.to).await?;
    Ok(Page { data: vec![PersonCards { employee, cards }], next_cursor: None, has_more: false })
}

async fn of_site(
    app: &App,
    site: SiteId,
    query: TimecardQuery,
) -> Result<Page<PersonCards>, Refusal> {
    let limit = page_limit(query.limit, PAGE_DEFAULT, timecards::PAGE_PEOPLE_MAX)?;
    let place = PageQuery { cursor: query.cursor, limit: None }.place(app, CARDS)?;
    let after = place.map(|id| EmployeeId(uuid::Uuid::from_bytes(id)));
    let pool = &app.pools.reader;
    let found = timecards::of_site(pool, site, query.from, query.to, after, limit).await?;
    Ok(Page::of(app, CARDS, found.rows, found.more, |row| *row.employee.0.as_bytes()))
}

async fn with_names(app: &App, page: Page<PersonCards>) -> Result<Page<PersonTimecards>, Refusal> {
    let people: Vec<_> = page.data.iter().map(|row| row.employee).collect();
    let mut names = directory::employee_names(&app.pools.reader, &people).await?;
    Ok(page.map(|PersonCards { employee, cards }| PersonTimecards {
        employee,
        employee_name: names.remove(&employee),
        cards,
    }))
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
