//! Whose a punch is: given to the person who made it, when nobody knew or it stands as another's.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::punch::{PunchCommand, PunchError, RulingReason};
use punchtrail_infra::{
    people::directory,
    rulings::{self, Fault, RuleError},
};
use punchtrail_projections::punches::{
    PunchView,
    preview::{DayPreview, Outcome, Surroundings},
    timecards, timeline,
};
use punchtrail_protocol::{EmployeeId, PunchId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rulings::RulingMade;
use crate::{
    ask::{
        after::After,
        extract::{InPath, Json},
    },
    auth::Operator,
    problem::Refusal,
    routes::note_of,
    state::App,
};

/// Who made a punch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonBody {
    pub employee: EmployeeId,
    /// Why, as a code: `recognised`, `confirmed`, `wrong_person`, `other` …
    #[serde(default)]
    pub reason: Option<RulingReason>,
    /// A note for whoever reads the explanation; at most 2,000 characters.
    #[serde(default)]
    pub note: Option<String>,
    /// The punch's sequence when you looked; then nothing is written if something came since.
    #[serde(default)]
    pub expected_sequence: Option<u64>,
}

/// Says who made a punch, of nobody or of another. One that waits for a ruling is accepted by it.
#[utoipa::path(
    put, path = "/v1/punches/{punch}/person", tag = "punches",
    operation_id = "assignPunch",
    params(("punch" = PunchId, Path, description = "The punch")),
    request_body = PersonBody, responses((status = 200, body = RulingMade)),
    security(("operator_key" = [])),
)]
pub async fn assign(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    Json(body): Json<PersonBody>,
) -> Result<Answer<RulingMade>, Refusal> {
    let PersonBody { employee, reason, note, expected_sequence } = body;
    operator.reaches_punch(&app, punch).await?;
    operator.reaches_employee(&app, employee).await?;
    let author = operator.author(note_of(note)?);
    let command = |note| PunchCommand::Assign { employee, reason, note };
    let ruled = rulings::rule(&app.ledger, punch, &author, expected_sequence, command).await?;
    Ok(Answer(ruled.into()))
}

/// What it would do to the hours of both to give a punch to somebody.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonPreview {
    /// Whose it is now; null if it is nobody's.
    pub from: Option<PersonDays>,
    /// Whose it would be.
    pub to: PersonDays,
}

/// A person's days, now and then.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonDays {
    pub employee: EmployeeId,
    /// The name, if the directory has it and you may see it.
    pub employee_name: Option<String>,
    pub days: Vec<DayPreview>,
}

/// What it would do to the hours of both to give a punch to somebody; nothing is written.
#[utoipa::path(
    post, path = "/v1/punches/{punch}/person/preview", tag = "punches",
    operation_id = "previewPunchAssignment",
    params(("punch" = PunchId, Path, description = "The punch")),
    request_body = PersonBody, responses((status = 200, body = PersonPreview)),
    security(("operator_key" = [])),
)]
pub async fn preview(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    after: After,
    Json(body): Json<PersonBody>,
) -> Result<Answer<PersonPreview>, Refusal> {
    after.reached(&app, &timecards::RESTS_ON).await?;
    after.reached(&app, &[timeline::NAME]).await?;
    note_of(body.note)?;
    operator.reaches_punch(&app, punch).await?;
    operator.reaches_employee(&app, body.employee).await?;
    let pool = &app.pools.reader;
    if !directory::employee_exists(pool, body.employee).await? {
        return Err(RuleError::<PunchError>::AtFault(Fault::NoSuchPerson).into());
    }
    let view = timeline::one(pool, punch).await?.ok_or_else(Refusal::not_found)?;
    let from = view.employee.filter(|from| *from != body.employee);
    let from = match from {
        Some(from) => Some(days_of(&app, &operator, from, (&view, Outcome::out(&view))).await?),
        None => None,
    };
    let to = days_of(&app, &operator, body.employee, (&view, Outcome::found(&view))).await?;
    Ok(Answer(PersonPreview { from, to }))
}

/// A person's days around a punch, if it came to count as that of them.
pub(super) async fn days_of(
    app: &App,
    operator: &Operator,
    employee: EmployeeId,
    (view, outcome): (&PunchView, Outcome),
) -> Result<PersonDays, Refusal> {
    let pool = &app.pools.reader;
    let around = Surroundings::of(pool, employee, &[outcome], &[view.effective_at]).await?;
    let employee_name = match operator.sees_names() {
        true => directory::employee_names(pool, &[employee]).await?.remove(&employee),
        false => None,
    };
    Ok(PersonDays { employee, employee_name, days: around.preview(&[outcome]) })
}
