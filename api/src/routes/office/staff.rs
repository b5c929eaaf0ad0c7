//! People by hand, for operators: taken on, renamed, leaving, coming back, working at one site
//! more.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_infra::people::{
    import::Pin,
    pins,
    staff::{self, NewEmployee},
};
use punchtrail_protocol::{EmployeeId, Position, SiteId, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::routes::Written;
use crate::{
    ask::extract::{InPath, Json, Permitted},
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// Somebody who is taken on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmployeeBody {
    pub name: String,
    /// Where they work.
    pub site: SiteId,
    /// Since when; since ever unless given.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub from: Option<Time>,
    /// A badge that they hold from then on, or since it is free.
    #[serde(default)]
    pub badge: Option<String>,
    /// The id in another system.
    #[serde(default)]
    pub external_id: Option<String>,
    /// 4 to 12 digits.
    #[serde(default)]
    pub pin: Option<String>,
}

/// Somebody who was taken on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Hired {
    pub employee: EmployeeId,
    pub position: Position,
}

/// Takes somebody on.
#[utoipa::path(
    post, path = "/v1/employees", tag = "employees", request_body = EmployeeBody,
    operation_id = "hireEmployee",
    responses((status = 201, body = Hired)), security(("operator_key" = [])),
)]
pub async fn hire(
    State(app): State<App>,
    operator: Operator,
    Json(body): Json<EmployeeBody>,
) -> Result<(StatusCode, Answer<Hired>), Refusal> {
    let EmployeeBody { name, site, from, badge, external_id, pin } = body;
    operator.reaches_site(site)?;
    let pin = pin.as_deref().map(pin_of).transpose()?;
    let new = NewEmployee { name, site, from, badge, external_id, pin };
    let hired = staff::hire(&app.ledger, new, &operator.metadata()).await;
    let hired = hired.map_err(|error| operator.told(error))?;
    let hired = Hired { employee: hired.employee, position: hired.position };
    Ok((StatusCode::CREATED, Answer(hired)))
}

/// A name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NameBody {
    pub name: String,
}

/// Gives a person another name.
#[utoipa::path(
    put, path = "/v1/employees/{employee}/name", tag = "employees",
    operation_id = "renameEmployee",
    params(("employee" = EmployeeId, Path, description = "Who")),
    request_body = NameBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn rename(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    Json(body): Json<NameBody>,
) -> Result<Answer<Written>, Refusal> {
    operator.answers_for(&app, employee).await?;
    let done = staff::rename(&app.ledger, employee, &body.name, &operator.metadata()).await?;
    Ok(Answer(done.into()))
}

pub(super) fn pin_of(digits: &str) -> Result<Pin, Refusal> {
    let wrong = |_| {
        let detail = "A PIN has 4 to 12 digits and nothing else. Nothing was changed.";
        Refusal::field("/pin", "invalid_value", detail)
    };
    Pin::new(digits).map_err(wrong)
}

/// A PIN.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinBody {
    /// 4 to 12 digits.
    pub pin: String,
}

/// Sets a person's PIN. Devices have it with their next manifest; whoever was asked for another PIN
/// isn't any more.
#[utoipa::path(
    put, path = "/v1/employees/{employee}/pin", tag = "employees",
    operation_id = "setEmployeePin",
    params(("employee" = EmployeeId, Path, description = "Who")),
    request_body = PinBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn set_pin(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    Json(PinBody { pin }): Json<PinBody>,
) -> Result<Answer<Written>, Refusal> {
    operator.answers_for(&app, employee).await?;
    let pin = Some(pin_of(&pin)?);
    let done = pins::set(&app.ledger, employee, pin, &operator.metadata()).await?;
    Ok(Answer(done.into()))
}

/// Takes a person's PIN back: they have none then.
#[utoipa::path(
    delete, path = "/v1/employees/{employee}/pin", tag = "employees",
    operation_id = "deleteEmployeePin",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 200, body = Written)), security(("operator_key" = [])),
)]
pub async fn take_pin(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    _: Permitted,
) -> Result<Answer<Written>, Refusal> {
    operator.answers_for(&app, employee).await?;
    let done = pins::set(&app.ledger, employee, None, &operator.metadata()).await?;
    Ok(Answer(done.into()))
}

/// A person leaves.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DepartureBody {
    /// When; now unless given. Given for somebody who left, it corrects when.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub at: Option<Time>,
}

/// Notes that a person leaves, or corrects when they left. Their badges end with it; punches
/// captured after it are referred.
#[utoipa::path(
    post, path = "/v1/employees/{employee}/departure", tag = "employees",
    operation_id = "departEmployee",
    params(("employee" = EmployeeId, Path, description = "Who")),
    request_body = DepartureBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn depart(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    Json(body): Json<DepartureBody>,
) -> Result<Answer<Written>, Refusal> {
    operator.answers_for(&app, employee).await?;
    let done = staff::depart(&app.ledger, employee, body.at, &operator.metadata()).await?;
    Ok(Answer(done.into()))
}

/// Notes that a person didn't leave after all. The badges that ended with it are theirs again,
/// those left out that somebody else got since.
#[utoipa::path(
    delete, path = "/v1/employees/{employee}/departure", tag = "employees",
    operation_id = "cancelEmployeeDeparture",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 200, body = Written)), security(("operator_key" = [])),
)]
pub async fn cancel_departure(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    _: Permitted,
) -> Result<Answer<Written>, Refusal> {
    operator.answers_for(&app, employee).await?;
    let done = staff::cancel_departure(&app.ledger, employee, &operator.metadata()).await?;
    Ok(Answer(done.into()))
}

/// A person comes back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ComeBackBody {
    /// Since when; now unless given.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub at: Option<Time>,
}

/// Notes that a person who had left comes back. Their badges ended when they left; each is issued
/// anew.
#[utoipa::path(
    post, path = "/v1/employees/{employee}/return", tag = "employees",
    operation_id = "returnEmployee",
    params(("employee" = EmployeeId, Path, description = "Who")),
    request_body = ComeBackBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn come_back(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    Json(body): Json<ComeBackBody>,
) -> Result<Answer<Written>, Refusal> {
    operator.answers_for(&app, employee).await?;
    let at = body.at.unwrap_or_else(|| app.ledger.now());
    let done = staff::come_back(&app.ledger, employee, at, &operator.metadata()).await?;
    Ok(Answer(done.into()))
}

/// From when until when a person works at a site.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AssignmentBody {
    /// Since when; since ever unless given. Of an assignment that stands an earlier one corrects
    /// it.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub from: Option<Time>,
    /// Until when; without an end unless given.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub until: Option<Time>,
}

/// Lets a person work at a site, beside others, and says from when until when. With `until` alone
/// an assignment that stands ends.
#[utoipa::path(
    put, path = "/v1/employees/{employee}/assignments/{site}", tag = "employees",
    operation_id = "assignEmployeeToSite",
    params(("employee" = EmployeeId, Path, description = "Who"),
        ("site" = SiteId, Path, description = "Where")),
    request_body = AssignmentBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn assign(
    State(app): State<App>,
    operator: Operator,
    InPath((employee, site)): InPath<(EmployeeId, SiteId)>,
    Json(body): Json<AssignmentBody>,
) -> Result<Answer<Written>, Refusal> {
    let AssignmentBody { from, until } = body;
    operator.reaches_site(site)?;
    operator.answers_for(&app, employee).await?;
    let by = operator.metadata();
    let done = staff::assign(&app.ledger, employee, site, (from, until), &by).await?;
    Ok(Answer(done.into()))
}
