//! Figures of sites and weeks, as JSON for programs and as CSV for tables.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use punchtrail_projections::figures::{self, FiguresView, Row, Weeks, WrongWeeks};
use punchtrail_protocol::{SiteId, dispute::Day};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ask::{after::After, extract::Params, limits::FIGURE_ROWS_MAX},
    auth::Operator,
    problem::{Code, Refusal},
    state::App,
};

/// Which figures.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FiguresQuery {
    /// Those of this site; of all together without it.
    pub site: Option<SiteId>,
    /// From the week on that this day is in, `YYYY-MM-DD`; the last 12 weeks unless given.
    #[param(value_type = Option<String>, format = Date)]
    pub from: Option<Day>,
    /// To the week that this day is in, `YYYY-MM-DD`; that of the newest event unless given. At
    /// most 104 weeks in all.
    #[param(value_type = Option<String>, format = Date)]
    pub to: Option<Day>,
    /// `json` or `csv`; what `Accept` asks for unless given.
    #[param(inline)]
    pub format: Option<Format>,
}

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Json,
    Csv,
}

impl Format {
    fn of(query: &FiguresQuery, headers: &HeaderMap) -> Self {
        let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let csv = accepted.is_some_and(|accept| accept.trim_start().starts_with("text/csv"));
        query.format.unwrap_or(if csv { Self::Csv } else { Self::Json })
    }
}

/// Disputes by cause and how long they waited, referred punches and how they were ruled, checks of
/// pictures, how late punches came: week by week.
///
/// As CSV a row each site, week and figure: `week,from,site,figure,code,detail,value`.
#[utoipa::path(
    get, path = "/v1/figures", tag = "figures", params(After, FiguresQuery),
    operation_id = "listFigures",
    responses((status = 200, content(
        (FiguresView = "application/json"), (String = "text/csv"),
    ))),
    security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    after: After,
    headers: HeaderMap,
    Params(query): Params<FiguresQuery>,
) -> Result<Response, Refusal> {
    after.reached(&app, &[figures::NAME]).await?;
    let (pool, site) = (&app.pools.reader, operator.lists_one(query.site)?);
    let newest = figures::newest(pool, site).await?;
    let weeks = Weeks::of(query.from, query.to, newest).map_err(|error| wrong(&query, error))?;
    match Format::of(&query, &headers) {
        Format::Json => Ok(Json(figures::figures(pool, site, weeks).await?).into_response()),
        Format::Csv => match figures::rows(pool, site, weeks, FIGURE_ROWS_MAX).await? {
            Some(rows) => csv(&rows),
            None => Err(too_many()),
        },
    }
}

fn wrong(query: &FiguresQuery, error: WrongWeeks) -> Refusal {
    let pointer = if query.from.is_some() { "from" } else { "to" };
    Refusal::field(pointer, "invalid_value", format!("Of these weeks none is shown: {error}."))
}

fn too_many() -> Refusal {
    let detail = format!(
        "These are more than {FIGURE_ROWS_MAX} rows. Ask for one site, or for fewer weeks at once."
    );
    Refusal::field("from", "invalid_value", detail)
}

/// The cells are codes, ids, dates and numbers of ours: none begins a formula.
fn csv(rows: &[Row]) -> Result<Response, Refusal> {
    let unwritable = |_| Refusal::new(Code::Internal, "The figures can't be written as CSV.");
    let bytes = figures::csv(rows).map_err(unwritable)?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"figures.csv\""),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, bytes).into_response())
}
