//! Two punches that a person joins to one exceptionally long shift, and parts again.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::punch::{Punch, PunchCommand, PunchError};
use punchtrail_infra::{
    ledger::ExecuteError,
    rulings::{self, RuleError},
};
use punchtrail_projections::punches::{
    preview::{Outcome, Surroundings},
    timecards, timeline,
};
use punchtrail_protocol::{PunchId, Time, capture::PunchKind};
use serde::Deserialize;
use utoipa::ToSchema;

use super::rulings::{RulingMade, RulingPreview};
use crate::{
    ask::{
        after::After,
        extract::{InPath, Json, Permitted},
    },
    auth::Operator,
    problem::Refusal,
    routes::note_of,
    state::App,
};

/// What ends a shift.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShiftBody {
    /// An `out` that counts, of the same person, at most 72 hours after the `in`.
    pub out: PunchId,
    /// A note for whoever reads the explanation; at most 2,000 characters.
    #[serde(default)]
    pub note: Option<String>,
    /// The sequence of the `in` when you looked; then nothing is written if something came since.
    #[serde(default)]
    pub expected_sequence: Option<u64>,
}

/// Joins an `in` with an `out` to one shift, longer than the site's longest.
#[utoipa::path(
    post, path = "/v1/punches/{punch}/shift", tag = "punches",
    operation_id = "joinShift",
    params(("punch" = PunchId, Path, description = "The `in`")),
    request_body = ShiftBody, responses((status = 200, body = RulingMade)),
    security(("operator_key" = [])),
)]
pub async fn join(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    Json(body): Json<ShiftBody>,
) -> Result<Answer<RulingMade>, Refusal> {
    let ShiftBody { out, note, expected_sequence } = body;
    operator.reaches_punch(&app, punch).await?;
    operator.reaches_punch(&app, out).await?;
    let author = operator.author(note_of(note)?);
    let command = |note| PunchCommand::JoinShift { out, note };
    let ruled = rulings::rule(&app.ledger, punch, &author, expected_sequence, command).await?;
    Ok(Answer(ruled.into()))
}

/// What it would do to the hours to join an `in` with an `out` to one shift; nothing is written.
#[utoipa::path(
    post, path = "/v1/punches/{punch}/shift/preview", tag = "punches",
    operation_id = "previewJoinedShift",
    params(("punch" = PunchId, Path, description = "The `in`")),
    request_body = ShiftBody, responses((status = 200, body = RulingPreview)),
    security(("operator_key" = [])),
)]
pub async fn preview(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    after: After,
    Json(body): Json<ShiftBody>,
) -> Result<Answer<RulingPreview>, Refusal> {
    after.reached(&app, &timecards::RESTS_ON).await?;
    after.reached(&app, &[timeline::NAME]).await?;
    note_of(body.note)?;
    operator.reaches_punch(&app, punch).await?;
    operator.reaches_punch(&app, body.out).await?;
    let of = async |id: PunchId| app.ledger.load::<Punch>(&id.to_string()).await;
    let (start, end) = (of(punch).await?.aggregate, of(body.out).await?.aggregate);
    let opens = start.effective().is_some_and(|(_, kind)| kind == PunchKind::In);
    let refused = match (start.origin(), opens && start.standing().counts()) {
        (None, _) => Some(PunchError::Unknown),
        (_, false) => Some(PunchError::NoShift),
        _ => None,
    };
    if let Some(error) = refused {
        return Err(ExecuteError::Refused(error).into());
    }
    rulings::fits(&start, &end).map_err(RuleError::<PunchError>::AtFault)?;
    let pool = &app.pools.reader;
    let view = async |id| timeline::one(pool, id).await?.ok_or_else(Refusal::not_found);
    let (start, end) = (view(punch).await?, view(body.out).await?);
    let employee = start.employee.ok_or_else(Refusal::not_found)?;
    let ends = [Outcome::found(&start), Outcome::found(&end)];
    let between = between(start.effective_at, end.effective_at);
    let around = Surroundings::of(pool, employee, &ends, &between).await?;
    Ok(Answer(RulingPreview { days: around.preview_joined(&ends[0], &ends[1]) }))
}

/// Times so near each other that everything between two is read.
fn between(from: Time, to: Time) -> Vec<Time> {
    let every_ms: i64 = 3_600_000;
    let hours = to.millis_since(from).max(0) / every_ms;
    (1..=hours).map(|hour| from.plus_millis(hour * every_ms)).collect()
}

/// Undoes that an `in` was joined with an `out`.
#[utoipa::path(
    delete, path = "/v1/punches/{punch}/shift", tag = "punches",
    operation_id = "partShift",
    params(("punch" = PunchId, Path, description = "The `in`")),
    responses((status = 200, body = RulingMade)), security(("operator_key" = [])),
)]
pub async fn part(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    _: Permitted,
) -> Result<Answer<RulingMade>, Refusal> {
    operator.reaches_punch(&app, punch).await?;
    let author = operator.author(None);
    let command = |note| PunchCommand::PartShift { note };
    let ruled = rulings::rule(&app.ledger, punch, &author, None, command).await?;
    Ok(Answer(ruled.into()))
}
