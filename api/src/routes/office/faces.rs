//! What people agreed to about their faces, the photos that pictures are compared with, and their
//! erasure.

use axum::{
    Json as Answer,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
};
use punchtrail_domain::{
    employee::{Consent, Employee, EmployeeCommand, Supervised},
    erasure::Erasure,
};
use punchtrail_infra::people::{directory, faces};
use punchtrail_protocol::{Digest, EmployeeId, Time, wire::PHOTO_BYTES_MAX};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ask::extract::{
        InPath, Json, Line, Permitted, content_length, next_chunk, too_large, too_slow,
    },
    auth::Operator,
    identity::{erasures, references},
    once::Unkept,
    problem::Refusal,
    routes::{Written, office::sites::PairingCodeView},
    state::App,
};

/// What a person agreed to, and what pictures of them are compared with.
#[derive(Debug, Serialize, ToSchema)]
pub struct FaceView {
    pub employee: EmployeeId,
    /// When they agreed; null if they didn't, or no longer do.
    pub consent: Option<Time>,
    /// The reference photos, the newest first.
    #[schema(value_type = Vec<String>)]
    pub references: Vec<Digest>,
    /// When everything of their face was erased last.
    pub erased_at: Option<Time>,
    /// Whether a head covering is expected on their pictures.
    pub head_covering: bool,
}

/// What is known of a person's face.
#[utoipa::path(
    get, path = "/v1/employees/{employee}/face", tag = "faces",
    operation_id = "getEmployeeFace",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 200, body = FaceView)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
) -> Result<Answer<FaceView>, Refusal> {
    operator.reaches_employee(&app, employee).await?;
    let person = app.ledger.load::<Employee>(&employee.to_string()).await?.aggregate;
    if !person.is_registered() {
        return Err(Refusal::not_found());
    }
    let biometrics = person.biometrics();
    Ok(Answer(FaceView {
        employee,
        consent: biometrics.consent(),
        references: biometrics.references().iter().rev().copied().collect(),
        erased_at: biometrics.erased_at(),
        head_covering: faces::covers_head(app.ledger.pool(), employee).await?,
    }))
}

/// That a person agrees.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsentBody {
    /// The version of the notice that they read; 1 to 32 characters.
    pub notice: String,
    /// The language in which they read it, as a tag of BCP 47.
    pub language: String,
    /// When they agreed; now unless given.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub given_at: Option<Time>,
}

/// Records that a person agrees that their face is compared.
#[utoipa::path(
    post, path = "/v1/employees/{employee}/face/consent", tag = "faces",
    operation_id = "giveFaceConsent",
    params(("employee" = EmployeeId, Path, description = "Who")),
    request_body = ConsentBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn consent(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    Json(body): Json<ConsentBody>,
) -> Result<Answer<Written>, Refusal> {
    let ConsentBody { notice, language, given_at } = body;
    references::check_notice(&notice, &language)?;
    let now = app.ledger.now();
    let given_at = given_at.unwrap_or(now).min(now);
    let consent = Consent { notice, language, given_at, place: Supervised::Office };
    run(&app, &operator, employee, EmployeeCommand::GiveConsent(consent)).await
}

/// Records that a person no longer agrees. Everything that is kept of their face is erased.
#[utoipa::path(
    delete, path = "/v1/employees/{employee}/face/consent", tag = "faces",
    operation_id = "withdrawFaceConsent",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 200, body = Written)), security(("operator_key" = [])),
)]
pub async fn withdraw(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    _: Permitted,
) -> Result<Answer<Written>, Refusal> {
    let command = EmployeeCommand::WithdrawConsent { at: app.ledger.now() };
    run(&app, &operator, employee, command).await
}

async fn run(
    app: &App,
    operator: &Operator,
    employee: EmployeeId,
    command: EmployeeCommand,
) -> Result<Answer<Written>, Refusal> {
    operator.answers_for(app, employee).await?;
    let id = employee.to_string();
    let done = app.ledger.execute::<Employee>(&id, command, &operator.metadata()).await?;
    Ok(Answer(Written { position: done.position }))
}

/// Takes a photo to compare a person's pictures with: a JPEG or PNG of at most 5 MiB with one face
/// that can be compared.
#[utoipa::path(
    put, path = "/v1/employees/{employee}/face/references/{sha256}", tag = "faces",
    operation_id = "putFaceReference",
    params(("employee" = EmployeeId, Path, description = "Who"),
        ("sha256" = String, Path, description = "SHA-256 of the bytes, 64 lower-case hex digits")),
    request_body(content = Vec<u8>, content_type = "image/jpeg"),
    responses((status = 200, body = Written)), security(("operator_key" = [])),
)]
pub async fn enrol(
    State(app): State<App>,
    operator: Operator,
    InPath((employee, photo)): InPath<(EmployeeId, Digest)>,
    request: Request,
) -> Result<Answer<Written>, Refusal> {
    operator.answers_for(&app, employee).await?;
    operator.decides_on(employee)?;
    let (parts, body) = request.into_parts();
    if content_length(&parts.headers).is_some_and(|length| length > PHOTO_BYTES_MAX) {
        return Err(too_large(PHOTO_BYTES_MAX));
    }
    let line = Line::of(&parts);
    let coming = whole(&app, body, &line);
    let bytes =
        tokio::time::timeout(app.door.timeouts.photo, coming).await.map_err(|_| too_slow())??;
    line.wait_for_permit().await?;
    references::keep(&app, photo, bytes).await?;
    let command = EmployeeCommand::EnrolReferences {
        consent: None,
        photos: vec![photo],
        place: Supervised::Office,
    };
    run(&app, &operator, employee, command).await
}

async fn whole(app: &App, mut body: Body, line: &Line) -> Result<Vec<u8>, Refusal> {
    let mut held = app.body(line.standing());
    while let Some(chunk) = next_chunk(&mut body, app.door.timeouts.silence).await? {
        if held.bytes().len() + chunk.len() > PHOTO_BYTES_MAX {
            return Err(too_large(PHOTO_BYTES_MAX));
        }
        held.push(&chunk)?;
    }
    line.has_come();
    Ok(held.bytes().to_vec())
}

/// Removes a reference photo: nothing is compared with it any more, and its bytes are erased.
#[utoipa::path(
    delete, path = "/v1/employees/{employee}/face/references/{sha256}", tag = "faces",
    operation_id = "deleteFaceReference",
    params(("employee" = EmployeeId, Path, description = "Who"),
        ("sha256" = String, Path, description = "Which photo")),
    responses((status = 200, body = Written)), security(("operator_key" = [])),
)]
pub async fn remove(
    State(app): State<App>,
    operator: Operator,
    InPath((employee, photo)): InPath<(EmployeeId, Digest)>,
    _: Permitted,
) -> Result<Answer<Written>, Refusal> {
    run(&app, &operator, employee, EmployeeCommand::RemoveReference { photo }).await
}

/// Makes a code by which this person's reference photos are taken at a kiosk, while whoever made it
/// looks on: single use, ten minutes.
#[utoipa::path(
    post, path = "/v1/employees/{employee}/face/codes", tag = "faces",
    operation_id = "createFaceCode",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 201, body = PairingCodeView)), security(("operator_key" = [])),
)]
pub async fn make_code(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    _: Permitted,
) -> Result<(StatusCode, Unkept<Answer<PairingCodeView>>), Refusal> {
    operator.answers_for(&app, employee).await?;
    operator.decides_on(employee)?;
    if !directory::employee_exists(&app.pools.reader, employee).await? {
        return Err(Refusal::not_found());
    }
    let code = faces::make_code(app.ledger.pool(), employee).await?;
    let view = PairingCodeView { code: code.shown(), expires_at: code.expires_at };
    Ok((StatusCode::CREATED, Unkept(Answer(view))))
}

/// Whether a head covering is expected.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadCoveringBody {
    pub expected: bool,
}

/// Says whether a head covering, worn for faith or health, is expected on a person's pictures: then
/// nobody is asked to take it off. It stands beside the ledger, which only knows that the entry
/// changed.
#[utoipa::path(
    put, path = "/v1/employees/{employee}/face/head-covering", tag = "faces",
    operation_id = "setHeadCovering",
    params(("employee" = EmployeeId, Path, description = "Who")),
    request_body = HeadCoveringBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn head_covering(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    Json(body): Json<HeadCoveringBody>,
) -> Result<Answer<Written>, Refusal> {
    operator.answers_for(&app, employee).await?;
    let metadata = operator.metadata();
    let done = faces::expect_covered_head(&app.ledger, employee, body.expected, &metadata).await?;
    Ok(Answer(Written { position: done.position }))
}

/// Erases everything that is kept of a person's face: reference photos, what was made of them, and
/// the pictures of their punches. The punches stand. Done shortly after; each punch says when.
#[utoipa::path(
    post, path = "/v1/employees/{employee}/face/erasure", tag = "faces",
    operation_id = "eraseEmployeeFace",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 202, body = Written)), security(("operator_key" = [])),
)]
pub async fn erase(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    _: Permitted,
) -> Result<(StatusCode, Answer<Written>), Refusal> {
    operator.answers_for(&app, employee).await?;
    let position =
        erasures::erase(&app.ledger, employee, Erasure::Requested, &operator.metadata()).await?;
    Ok((StatusCode::ACCEPTED, Answer(Written { position })))
}
