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
    get, path = "/v1/employees", tag = "employees", params(After, EmployeeQuery),
    operation_id = "listEmployees",
    responses((status = 200, body = Page<EmployeeView>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<EmployeeQuery>,
) -> Result<Answer<Page<EmployeeView>>, Refusal> {
    after.reached(&app, &[roster::NAME]).await?;
    let page = PageQuery { cursor: query.cursor, limit: query.limit };
    if let Some(typed) = query.q {
        return search(&app, &operator, query.site, &typed, &page).await.map(Answer);
    }
    let place = page.place(&app, &walk)?.map(|id| EmployeeId(uuid::Uuid::from_bytes(id)));
    let sites = operator.lists(query.site)?;
    let mut found = employees::list(&app.pools.reader, sites, place, page.limit()?).await?;
    found.rows.iter_mut().for_each(|row| veil(&operator, row));
    let key = |row: &EmployeeView| *row.employee.0.as_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

async fn search(
    app: &App,
    operator: &Operator,
    site: Option<SiteId>,
    typed: &str,
    page: &PageQuery,
) -> Result<Page<EmployeeView>, Refusal> {
    searchable(typed)?;
    operator.may_see_people()?;
    let site = operator.lists_one(site)?;
    if page.cursor.is_some() {
        let why = "What is found by `q` is one page; leave `cursor` out, or `q`.";
        return Err(Refusal::field("cursor", "invalid_value", why));
    }
    let limit = page.limit()?;
    let mut data = employees::search(&app.pools.reader, site, typed).await?;
    data.truncate(limit as usize);
    data.iter_mut().for_each(|row| veil(operator, row));
    Ok(Page { data, next_cursor: None, has_more: false })
}

/// Takes off a row what its caller may not see.
fn veil(operator: &Operator, row: &mut EmployeeView) {
    if !operator.sees_names() {
        (row.name, row.badge, row.external_id) = (None, None, None);
        row.badges.clear();
    }
    if let Some(own) = operator.sites() {
        row.sites.retain(|site| own.contains(site));
    }
}

/// One person.
#[utoipa::path(
    get, path = "/v1/employees/{employee}", tag = "employees",
    operation_id = "getEmployee",
    params(After, ("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 200, body = EmployeeView)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    after: After,
) -> Result<Answer<EmployeeView>, Refusal> {
    after.reached(&app, &[roster::NAME]).await?;
    operator.reaches_employee(&app, employee).await?;
    let found = employees::one(&app.pools.reader, employee).await?;
    let mut row = found.ok_or_else(Refusal::not_found)?;
    veil(&operator, &mut row);
    Ok(Answer(row))
}
