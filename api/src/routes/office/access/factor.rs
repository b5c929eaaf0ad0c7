//! One's own second factor.

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use punchtrail_infra::access::{
    second_factor::{self, FactorError},
    sign_in::{self as entry},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{session::proven, sign_in::agent};
use crate::{
    ask::extract::Json,
    auth::{Operator, cookies},
    once::Unkept,
    problem::{Code, Refusal, sentence},
    state::App,
};

/// That it is oneself.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CurrentBody {
    /// The password that is good now.
    pub current: String,
}

/// A secret that was made. It does nothing until it is confirmed.
#[derive(Serialize, ToSchema)]
pub struct PendingFactor {
    /// In base 32, to be typed into an app that makes codes (RFC 6238).
    pub secret: String,
    /// The same as an `otpauth:` address, to be scanned.
    pub uri: String,
}

/// Makes a secret for one's second factor, shown this once.
#[utoipa::path(
    post, path = "/v1/session/second-factor", tag = "access", request_body = CurrentBody,
    operation_id = "beginSecondFactor",
    responses((status = 201, body = PendingFactor)),
)]
pub async fn begin(
    State(app): State<App>,
    operator: Operator,
    headers: HeaderMap,
    Json(body): Json<CurrentBody>,
) -> Result<(StatusCode, Unkept<Answer<PendingFactor>>), Refusal> {
    let login = proven(&app, &operator, &headers, body.current).await?.login;
    let user = operator.user()?.user;
    let pending = second_factor::begin(app.ledger.pool(), user, &login).await?;
    let view = PendingFactor { secret: pending.secret, uri: pending.uri };
    Ok((StatusCode::CREATED, Unkept(Answer(view))))
}

/// A code of the second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeBody {
    pub code: String,
}

/// The recovery codes.
#[derive(Serialize, ToSchema)]
pub struct RecoveryCodes {
    /// Each good once in place of a code, when the device is lost; shown this once.
    pub recovery_codes: Vec<String>,
}

/// Sets the second factor by a code of the secret that was made. Recovery codes of before are void;
/// other sessions end, and this one goes on under a new token.
#[utoipa::path(
    post, path = "/v1/session/second-factor/confirmation", tag = "access",
    operation_id = "confirmSecondFactor",
    request_body = CodeBody, responses((status = 200, body = RecoveryCodes)),
)]
pub async fn confirm(
    State(app): State<App>,
    operator: Operator,
    headers: HeaderMap,
    Json(body): Json<CodeBody>,
) -> Result<(HeaderMap, Unkept<Answer<RecoveryCodes>>), Refusal> {
    let (pool, user, doer) = (app.ledger.pool(), operator.user()?.user, operator.doer());
    let recovery_codes = second_factor::confirm(pool, user, &body.code, &doer).await?;
    let token = entry::rotate(pool, user, agent(&headers).as_deref(), &doer).await?;
    let codes = Unkept(Answer(RecoveryCodes { recovery_codes }));
    Ok((cookies::given(&token, None)?, codes))
}

/// That it is oneself, and a last code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemovalBody {
    /// The password that is good now.
    pub current: String,
    /// A code of the second factor, or a recovery code.
    pub code: String,
}

/// Takes one's second factor away, unless one's role needs it.
#[utoipa::path(
    post, path = "/v1/session/second-factor/removal", tag = "access",
    operation_id = "removeSecondFactor",
    request_body = RemovalBody, responses((status = 204)),
)]
pub async fn remove(
    State(app): State<App>,
    operator: Operator,
    headers: HeaderMap,
    Json(body): Json<RemovalBody>,
) -> Result<StatusCode, Refusal> {
    let RemovalBody { current, code } = body;
    proven(&app, &operator, &headers, current).await?;
    let (pool, user, doer) = (app.ledger.pool(), operator.user()?.user, operator.doer());
    second_factor::remove(pool, user, &code, &doer).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<FactorError> for Refusal {
    fn from(error: FactorError) -> Self {
        match error {
            FactorError::Code => Self::field("/code", "invalid_value", sentence(&error)),
            FactorError::Required => Self::new(Code::Conflict, sentence(&error)),
            FactorError::Database(error) => error.into(),
        }
    }
}
