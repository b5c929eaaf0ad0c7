//! One person's data: what must be kept of it, its erasure, and all of it for them to have.

use std::sync::Arc;

use axum::{
    Json as Answer,
    body::Body,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use bytes::Bytes;
use futures::TryStreamExt as _;
use punchtrail_infra::people::holds;
use punchtrail_projections::privacy::RESTS_ON;
use punchtrail_protocol::EmployeeId;
use tokio::io::AsyncReadExt as _;

use crate::{
    ask::{
        after::after,
        extract::{InPath, Json, Permitted},
    },
    auth::Operator,
    privacy::{
        erasure::{self, Outlook},
        export::Export,
    },
    problem::Refusal,
    routes::{NoteBody, Written, note_of},
    state::App,
};

/// Waits until what is read of the person is all there is.
async fn caught_up(app: &App) -> Result<(), Refusal> {
    let head = app.ledger.head().await?;
    after(app, &RESTS_ON, head).await
}

/// Places a legal hold: nothing of the person is erased on request while one stands. Asked for
/// twice, two stand, and each is lifted by itself.
#[utoipa::path(
    post, path = "/v1/employees/{employee}/legal-hold", tag = "employees",
    operation_id = "placeLegalHold",
    params(("employee" = EmployeeId, Path, description = "Who")),
    request_body = NoteBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn hold(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    Json(body): Json<NoteBody>,
) -> Result<Answer<Written>, Refusal> {
    let author = operator.author(note_of(body.note)?);
    if author.note.is_none() {
        let detail = "A legal hold needs a note that says what it is about.";
        return Err(Refusal::field("/note", "missing_field", detail));
    }
    let done = holds::place(&app.ledger, employee, &author).await?;
    Ok(Answer(Written { position: done.position }))
}

/// Lifts one of the person's legal holds.
#[utoipa::path(
    delete, path = "/v1/employees/{employee}/legal-hold", tag = "employees",
    operation_id = "liftLegalHold",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 200, body = Written)), security(("operator_key" = [])),
)]
pub async fn lift(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    _: Permitted,
) -> Result<Answer<Written>, Refusal> {
    let done = holds::lift(&app.ledger, employee, &operator.author(None)).await?;
    Ok(Answer(Written { position: done.position }))
}

/// What an erasure would take of a person now, and what stands in its way. Nothing is erased.
#[utoipa::path(
    get, path = "/v1/employees/{employee}/erasure", tag = "employees",
    operation_id = "previewEmployeeErasure",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 200, body = Outlook)), security(("operator_key" = [])),
)]
pub async fn outlook(
    State(app): State<App>,
    _operator: Operator,
    InPath(employee): InPath<EmployeeId>,
) -> Result<Answer<Outlook>, Refusal> {
    caught_up(&app).await?;
    Ok(Answer(erasure::outlook(&app.ledger, &app.pools, employee).await?))
}

/// Erases a person: name, badge, PIN, the id in another system, notes about them, and everything
/// that is kept of their face. Their punches stand, under an id that says nothing. Pictures go
/// shortly after; each punch says when.
#[utoipa::path(
    post, path = "/v1/employees/{employee}/erasure", tag = "employees",
    operation_id = "eraseEmployee",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 202, body = Written)), security(("operator_key" = [])),
)]
pub async fn erase(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
    _: Permitted,
) -> Result<(StatusCode, Answer<Written>), Refusal> {
    caught_up(&app).await?;
    let metadata = operator.metadata();
    let position = erasure::erase(&app.ledger, &app.pools, employee, &metadata).await?;
    Ok((StatusCode::ACCEPTED, Answer(Written { position })))
}

/// Bytes of an archive that are read from disk at once.
const PIECE_BYTES: usize = 64 << 10;

/// Everything that is held of a person, for them to have: a ZIP archive with JSON, CSV, their
/// pictures (each noted as looked at), and `index.html`, a page for people. One is made at a time.
#[utoipa::path(
    get, path = "/v1/employees/{employee}/export", tag = "employees",
    operation_id = "exportEmployee",
    params(("employee" = EmployeeId, Path, description = "Who")),
    responses((status = 200, body = Vec<u8>, content_type = "application/zip")),
    security(("operator_key" = [])),
)]
pub async fn export(
    State(app): State<App>,
    operator: Operator,
    InPath(employee): InPath<EmployeeId>,
) -> Result<([(HeaderName, HeaderValue); 3], Body), Refusal> {
    caught_up(&app).await?;
    let export = Export {
        ledger: &app.ledger,
        pools: &app.pools,
        photos: Arc::clone(&app.photos),
        reader: operator.actor(),
        request: Some(operator.request().to_owned()),
    };
    let file = tokio::fs::File::from_std(export.of(employee).await?);
    let pieces = futures::stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE_BYTES];
        let read = file.read(&mut piece).await?;
        piece.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(piece), file)))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/zip")),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_static("attachment; filename=\"person.zip\""),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(pieces.into_stream())))
}
