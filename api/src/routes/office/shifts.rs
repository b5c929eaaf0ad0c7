//! Two punches that a person joins to one exceptionally long shift, and parts again.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::punch::PunchCommand;
use punchtrail_infra::rulings;
use punchtrail_protocol::PunchId;
use serde::Deserialize;
use utoipa::ToSchema;

use super::rulings::RulingMade;
use crate::{
    ask::extract::{InPath, Json, Permitted},
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
    let author = operator.author(note_of(note)?);
    let command = |note| PunchCommand::JoinShift { out, note };
    let ruled = rulings::rule(&app.ledger, punch, &author, expected_sequence, command).await?;
    Ok(Answer(ruled.into()))
}

/// Undoes that an `in` was joined with an `out`.
#[utoipa::path(
    delete, path = "/v1/punches/{punch}/shift", tag = "punches",
    params(("punch" = PunchId, Path, description = "The `in`")),
    responses((status = 200, body = RulingMade)), security(("operator_key" = [])),
)]
pub async fn part(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    _: Permitted,
) -> Result<Answer<RulingMade>, Refusal> {
    let author = operator.author(None);
    let command = |note| PunchCommand::PartShift { note };
    let ruled = rulings::rule(&app.ledger, punch, &author, None, command).await?;
    Ok(Answer(ruled.into()))
}
