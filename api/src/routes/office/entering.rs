//! Punches that a person adds, since nobody made them at a device. They are marked so for ever.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_domain::{
    punch::{PunchError, RulingReason},
    timecard::CountedAs,
};
use punchtrail_infra::{
    people::directory,
    rulings::{self, Entered, Entering, Fault, RuleError},
};
use punchtrail_projections::punches::{
    preview::{Outcome, Surroundings},
    timecards,
};
use punchtrail_protocol::{EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rulings::{RulingPreview, has_come};
use crate::{
    ask::{after::After, extract::Json},
    auth::Operator,
    problem::Refusal,
    routes::note_of,
    state::App,
};

/// A punch to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnterBody {
    /// A UUIDv7 made by the caller: the idempotency key, for ever.
    pub punch: PunchId,
    /// Who came or went.
    pub employee: EmployeeId,
    /// Where.
    pub site: SiteId,
    pub kind: PunchKind,
    /// When; not in the future, by the server's clock.
    #[serde(deserialize_with = "crate::ask::time::read")]
    pub at: Time,
    /// Why nobody made it at a device: `forgotten`, `no_device`, `other` …
    pub reason: RulingReason,
    /// A note for whoever reads the explanation; at most 2,000 characters.
    #[serde(default)]
    pub note: Option<String>,
}

impl EnterBody {
    fn entering(&self) -> Entering {
        let Self { punch, employee, site, kind, at, reason, .. } = *self;
        Entering { punch, employee, site, kind, at, reason }
    }
}

/// Answer to a punch that was added: the same whenever the same is sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct PunchEntered {
    pub punch: PunchId,
    /// Where it was added in the ledger: give it to a read as `Punchtrail-After`.
    pub position: Position,
    /// The sequence of the punch then.
    pub sequence: u64,
}

/// Adds a punch: 201, or 200 for the same one again. Another under its id is 409 `conflict`, whose
/// `detail` says what stands.
#[utoipa::path(
    post, path = "/v1/punches", tag = "punches", request_body = EnterBody,
    operation_id = "addPunch",
    responses((status = 201, body = PunchEntered), (status = 200, body = PunchEntered)),
    security(("operator_key" = [])),
)]
pub async fn enter(
    State(app): State<App>,
    operator: Operator,
    Json(body): Json<EnterBody>,
) -> Result<(StatusCode, Answer<PunchEntered>), Refusal> {
    let entering = body.entering();
    operator.reaches_site(entering.site)?;
    operator.reaches_employee(&app, entering.employee).await?;
    let author = operator.author(note_of(body.note)?);
    let entered = rulings::enter(&app.ledger, entering, &author).await?;
    let Entered { is_new, position, sequence } = entered;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(PunchEntered { punch: entering.punch, position, sequence })))
}

/// What it would do to the hours of its days to add a punch; nothing is written.
#[utoipa::path(
    post, path = "/v1/punches/preview", tag = "punches", request_body = EnterBody,
    operation_id = "previewAddedPunch",
    responses((status = 200, body = RulingPreview)), security(("operator_key" = [])),
)]
pub async fn preview(
    State(app): State<App>,
    operator: Operator,
    after: After,
    Json(body): Json<EnterBody>,
) -> Result<Answer<RulingPreview>, Refusal> {
    after.reached(&app, &timecards::RESTS_ON).await?;
    note_of(body.note.clone())?;
    let Entering { punch, employee, site, kind, at, .. } = body.entering();
    operator.reaches_site(site)?;
    operator.reaches_employee(&app, employee).await?;
    has_come(&app, "at", at)?;
    known(&app, punch, employee, site).await?;
    let counted_as = Some(CountedAs::Accepted);
    let added = [Outcome { punch, site, counted_as, effective_at: at, kind }];
    let around = Surroundings::of(&app.pools.reader, employee, &added, &[]).await?;
    Ok(Answer(RulingPreview { days: around.preview(&added) }))
}

async fn known(
    app: &App,
    punch: PunchId,
    employee: EmployeeId,
    site: SiteId,
) -> Result<(), Refusal> {
    let pool = &app.pools.reader;
    let fault = if !punch.is_v7() {
        Fault::NotV7
    } else if !directory::employee_exists(pool, employee).await? {
        Fault::NoSuchPerson
    } else if !directory::site_exists(pool, site).await? {
        Fault::NoSuchSite
    } else {
        return Ok(());
    };
    Err(RuleError::<PunchError>::AtFault(fault).into())
}
