//! The badges that people hold, for operators.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::employee::BadgeEnd;
use punchtrail_infra::people::badges::{self, HeldBadge, Which};
use punchtrail_protocol::{Digest, EmployeeId, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::routes::Written;
use crate::{
    ask::extract::{InPath, Json, Permitted},
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// A person's badges.
#[derive(Debug, Serialize, ToSchema)]
pub struct Badges {
    /// Those that ended included, the earliest first.
    pub data: Vec<HeldBadge>,
}

/// The badges that a person holds and held.
#[utoipa::path(
    get, path = "/v1/employees/{employee}/badges", tag = "employees",
    operation_id = "listEmployeeBadges",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 200, body = Badges)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    _: Permitted,
) -> Result<Answer<Badges>, Refusal> {
    operator.may_see_people()?;
    operator.reaches_employee(&app, employee).await?;
    let held = badges::list(&app.ledger, employee).await?;
    held.map(|data| Answer(Badges { data })).ok_or_else(Refusal::not_found)
}

/// A badge that somebody is to hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BadgeBody {
    /// Its number, 1 to 64 characters.
    pub badge: String,
    /// Since when; now unless given.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub from: Option<Time>,
    /// That it changed hands then: whoever held it holds it until then. Otherwise one that
    /// somebody holds is refused.
    #[serde(default)]
    pub reissue: bool,
}

/// Issues a badge to a person. It has one holder at a time.
#[utoipa::path(
    post, path = "/v1/employees/{employee}/badges", tag = "employees",
    operation_id = "issueEmployeeBadge",
    params(("employee" = EmployeeId, Path, description = "Who")),
    request_body = BadgeBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn issue(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    Json(body): Json<BadgeBody>,
) -> Result<Answer<Written>, Refusal> {
    let number = badges::number(&body.badge)?;
    operator.answers_for(&app, employee).await?;
    let (ledger, by) = (&app.ledger, operator.metadata());
    let from = body.from.unwrap_or_else(|| ledger.now());
    // Whoever gives it up has to be theirs, too.
    if body.reissue
        && operator.sites().is_some()
        && let Some(holder) = badges::holder(ledger, &number, from).await?
    {
        operator.answers_for(&app, holder).await?;
    }
    let done = match body.reissue {
        true => badges::reissue(ledger, employee, &number, from, &by).await,
        false => badges::issue(ledger, employee, &number, from, &by).await,
    };
    Ok(Answer(done.map_err(|error| operator.told(error))?.into()))
}

/// Why somebody no longer holds a badge.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndedBecause {
    Returned,
    Lost,
}

/// A badge that somebody no longer holds.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BadgeEndBody {
    pub because: EndedBecause,
    /// Since when; now unless given. Of one that ended before, it corrects when.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub until: Option<Time>,
}

/// Notes that a person gave a badge back, or lost it; or corrects when.
#[utoipa::path(
    post, path = "/v1/employees/{employee}/badges/{holding}/end", tag = "employees",
    operation_id = "endEmployeeBadge",
    params(("employee" = EmployeeId, Path, description = "Who"),
        ("holding" = String, Path, description = "Which, as the list of their badges names it")),
    request_body = BadgeEndBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn end(
    State(app): State<App>,
    operator: Operator,
    InPath((employee, holding)): InPath<(EmployeeId, Digest)>,
    Json(body): Json<BadgeEndBody>,
) -> Result<Answer<Written>, Refusal> {
    let because = match body.because {
        EndedBecause::Returned => BadgeEnd::Returned,
        EndedBecause::Lost => BadgeEnd::Lost,
    };
    operator.answers_for(&app, employee).await?;
    let until = body.until.unwrap_or_else(|| app.ledger.now());
    let (which, by) = (Which::Holding(holding), operator.metadata());
    let done = badges::end(&app.ledger, employee, &which, until, because, &by).await;
    Ok(Answer(done.map_err(|error| operator.told(error))?.into()))
}
