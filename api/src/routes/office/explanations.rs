//! Explanations: what happened to a punch and why, and where one that never came might be.

use axum::{Json as Answer, extract::State};
use jiff::civil::Date;
use punchtrail_domain::explanation::{Explanation, absence::Absence};
use punchtrail_projections::explanations::{self, AbsenceError, ExplainError};
use punchtrail_protocol::{EmployeeId, PunchId};

use crate::{
    ask::{after::After, extract::InPath},
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// What happened to a punch, by whom, and why: from its events, as data and in plain sentences.
#[utoipa::path(
    get, path = "/v1/punches/{punch}/explanation", tag = "explanations",
    operation_id = "explainPunch",
    params(After, ("punch" = PunchId, Path, description = "The punch")),
    responses((status = 200, body = Explanation)), security(("operator_key" = [])),
)]
pub async fn of_punch(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    after: After,
) -> Result<Answer<Explanation>, Refusal> {
    after.reached(&app, &explanations::OF_PUNCH_RESTS_ON).await?;
    let explained = app.explanations.explain(punch, operator.sees_names()).await?;
    let explained = explained.ok_or_else(Refusal::not_found)?;
    // It says itself where the punch was made: nothing more is read for it.
    operator.reaches_site(explained.site)?;
    Ok(Answer(explained))
}

/// Where a worker's punches of a day might be that never came: numbers that are missing, and what
/// the devices of the worker's sites still hold by their last reports.
#[utoipa::path(
    get, path = "/v1/employees/{employee}/days/{day}/explanation", tag = "explanations",
    operation_id = "explainEmployeeDay",
    params(
        After,
        ("employee" = EmployeeId, Path, description = "The worker"),
        ("day" = String, Path, description = "The business day, `YYYY-MM-DD`"),
    ),
    responses((status = 200, body = Absence)), security(("operator_key" = [])),
)]
pub async fn of_day(
    State(app): State<App>,
    operator: Operator,
    InPath((employee, day)): InPath<(EmployeeId, Date)>,
    after: After,
) -> Result<Answer<Absence>, Refusal> {
    after.reached(&app, &explanations::RESTS_ON).await?;
    operator.reaches_employee(&app, employee).await?;
    let who = (employee, operator.sees_names());
    let absence = explanations::explain_absence(&app.pools.reader, who, day).await?;
    absence.map(Answer).ok_or_else(Refusal::not_found)
}

impl From<ExplainError> for Refusal {
    fn from(error: ExplainError) -> Self {
        match error {
            ExplainError::Busy => Self::busy("Too many ask for explanations just now. Ask again."),
            ExplainError::Read(error) => Self::from(&*error),
        }
    }
}

impl From<AbsenceError> for Refusal {
    fn from(error: AbsenceError) -> Self {
        let AbsenceError::Read(error) = error;
        error.into()
    }
}
