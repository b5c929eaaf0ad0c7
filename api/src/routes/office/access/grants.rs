//! Leave for auditors to see names and photos.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_infra::access::{
    grants::{self, GRANT_LIFE_S_MAX, Grant, GrantError, REASON_CHARS_MAX},
    ids::{GrantId, UserId},
};
use punchtrail_protocol::Time;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ask::extract::{InPath, Json, Permitted},
    auth::Operator,
    problem::{Code, Refusal, sentence},
    state::App,
};

/// Leave to be given.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantBody {
    /// Why; 1 to 500 characters.
    pub reason: String,
    /// Until when, at most 31 days from now.
    pub expires_at: Time,
}

/// Leave that was given.
#[derive(Debug, Serialize, ToSchema)]
pub struct GrantView {
    #[schema(value_type = String)]
    pub grant: GrantId,
    #[schema(value_type = String)]
    pub user: UserId,
    pub reason: String,
    /// Who gave it, as events name an actor.
    pub granted_by: String,
    pub created_at: Time,
    pub expires_at: Time,
    /// When it was taken back, if it was.
    pub ended_at: Option<Time>,
}

impl From<Grant> for GrantView {
    fn from(grant: Grant) -> Self {
        Self {
            grant: grant.id,
            user: grant.user,
            reason: grant.reason,
            granted_by: grant.granted_by,
            created_at: grant.created_at,
            expires_at: grant.expires_at,
            ended_at: grant.ended_at,
        }
    }
}

/// Leave that was given.
#[derive(Debug, Serialize, ToSchema)]
pub struct Grants {
    /// The newest first, at most 1,000.
    pub data: Vec<GrantView>,
}

/// The leave's id.
#[derive(Debug, Serialize, ToSchema)]
pub struct GrantMade {
    #[schema(value_type = String)]
    pub grant: GrantId,
}

/// Gives an auditor leave to see workers' names, photos and what was written about them, for a
/// reason and until a time.
#[utoipa::path(
    post, path = "/v1/users/{user}/grants", tag = "access",
    operation_id = "giveGrant",
    params(("user" = String, Path, description = "The auditor")),
    request_body = GrantBody, responses((status = 201, body = GrantMade)),
)]
pub async fn give(
    State(app): State<App>,
    operator: Operator,
    InPath(user): InPath<UserId>,
    Json(body): Json<GrantBody>,
) -> Result<(StatusCode, Answer<GrantMade>), Refusal> {
    let GrantBody { reason, expires_at } = body;
    let reason = reason.trim();
    if !(1..=REASON_CHARS_MAX).contains(&reason.chars().count()) {
        let detail = format!("A reason has 1 to {REASON_CHARS_MAX} characters.");
        return Err(Refusal::field("/reason", "invalid_value", detail));
    }
    let now = app.ledger.now();
    if expires_at <= now || expires_at > now.plus_millis(i64::from(GRANT_LIFE_S_MAX) * 1_000) {
        let detail = "It ends within 31 days, and not before now.";
        return Err(Refusal::field("/expires_at", "invalid_value", detail));
    }
    let given = (reason, expires_at);
    let grant = grants::give(app.ledger.pool(), user, given, &operator.doer()).await?;
    Ok((StatusCode::CREATED, Answer(GrantMade { grant })))
}

/// The leave that was given, also what has ended.
#[utoipa::path(
    get, path = "/v1/grants", tag = "access", responses((status = 200, body = Grants)),
    operation_id = "listGrants",
)]
pub async fn list(State(app): State<App>, _operator: Operator) -> Result<Answer<Grants>, Refusal> {
    let found = grants::list(app.ledger.pool()).await?;
    Ok(Answer(Grants { data: found.into_iter().map(GrantView::from).collect() }))
}

/// Takes leave back, at once.
#[utoipa::path(
    delete, path = "/v1/grants/{grant}", tag = "access",
    operation_id = "endGrant",
    params(("grant" = String, Path, description = "Which")), responses((status = 204)),
)]
pub async fn end(
    State(app): State<App>,
    operator: Operator,
    InPath(grant): InPath<GrantId>,
    _: Permitted,
) -> Result<StatusCode, Refusal> {
    match grants::end(app.ledger.pool(), grant, &operator.doer()).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::not_found()),
    }
}

impl From<GrantError> for Refusal {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::NoAuditor => Self::new(Code::Conflict, sentence(&error)),
            GrantError::User(error) => error.into(),
        }
    }
}
