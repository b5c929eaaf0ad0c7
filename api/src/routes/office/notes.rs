//! People's notes on punches: read by whoever may read the explanation, and erased for good.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_infra::rulings::notes;
use punchtrail_protocol::Digest;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{ask::extract::InPath, auth::Operator, problem::Refusal, state::App};

/// A note.
#[derive(Debug, Serialize, ToSchema)]
pub struct NoteView {
    /// Its salted digest, by which events name it.
    #[schema(value_type = String)]
    pub note: Digest,
    /// Who wrote it, as events name them.
    pub author: String,
    pub text: String,
}

/// A note that a person left, by the digest that an event or a step of an explanation names. One
/// that was erased is 404 `not_found`.
#[utoipa::path(
    get, path = "/v1/notes/{note}", tag = "punches",
    operation_id = "getNote",
    params(("note" = String, Path, description = "Its digest")),
    responses((status = 200, body = NoteView)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    InPath(note): InPath<Digest>,
) -> Result<Answer<NoteView>, Refusal> {
    operator.may_see_people()?;
    let mut found = notes::kept(&app.pools.reader, &[note]).await?;
    let kept = found.remove(&note).ok_or_else(Refusal::not_found)?;
    Ok(Answer(NoteView { note, author: kept.author, text: kept.body }))
}

/// Erases a note, and the salt of its digest, so that nobody can tell what it said. The event
/// stays.
#[utoipa::path(
    delete, path = "/v1/notes/{note}", tag = "punches",
    operation_id = "eraseNote",
    params(("note" = String, Path, description = "Its digest")),
    responses((status = 204)), security(("operator_key" = [])),
)]
pub async fn erase(
    State(app): State<App>,
    _operator: Operator,
    InPath(note): InPath<Digest>,
) -> Result<StatusCode, Refusal> {
    match notes::erase(app.ledger.pool(), note).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::not_found()),
    }
}
