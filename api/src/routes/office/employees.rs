//! People, for operators to read.

use axum::{Json as Answer, extract::State};
use punchtrail_projections::people::{
    employees::{self, EmployeeView},
    roster,
};
use punchtrail_protocol::{EmployeeId, SiteId};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    ask::{
        after::After,
        extract::{InPath, Params, searchable},
        page::{Page, PageQuery},
        walk::Walk,
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// Which people.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EmployeeQuery {
    pub site: Option<SiteId>,
    /// A name or badge as typed, 1 to 64 characters: at most 20 people, best first, on one page.
    pub q: Option<String>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// People in the order of their ids, or whom a text may mean, best first.
#[utoipa::path(
    get, path = "/v1/employees", tag = "employees", params(EmployeeQuery),
    responses((status = 200, body = Page<EmployeeView>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    _operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<EmployeeQuery>,
) -> Result<Answer<Page<EmployeeView>>, Refusal> {
    after.reached(&app, &[roster::NAME]).await?;
    let page = PageQuery { cursor: query.cursor, limit: query.limit };
    if let Some(typed) = query.q {
        return search(&app, query.site, &typed, &page).await.map(Answer);
    }
    let place = page.place(&app, &walk)?.map(|id| EmployeeId(uuid::Uuid::from_bytes(id)));
    let found = employees::list(&app.pools.reader, query.site, place, page.limit()?).await?;
    let key = |row: &EmployeeView| *row.employee.0.as_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

async fn search(
    app: &App,
    site: Option<SiteId>,
    typed: &str,
    page: &PageQuery,
) -> Result<Page<EmployeeView>, Refusal> {
    searchable(typed)?;
    if page.cursor.is_some() {
        let why = "What is found by `q` is one page; leave `cursor` out, or `q`.";
        return Err(Refusal::field("cursor", "invalid_value", why));
    }
    let limit = page.limit()?;
    let mut data = employees::search(&app.pools.reader, site, typed).await?;
    data.truncate(limit as usize);
    Ok(Page { data, next_cursor: None, has_more: false })
}

/// One person.
#[utoipa::path(
    get, path = "/v1/employees/{employee}", tag = "employees",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 200, body = EmployeeView)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    _operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    after: After,
) -> Result<Answer<EmployeeView>, Refusal> {
    after.reached(&app, &[roster::NAME]).await?;
    employees::one(&app.pools.reader, employee).await?.map(Answer).ok_or_else(Refusal::not_found)
}
