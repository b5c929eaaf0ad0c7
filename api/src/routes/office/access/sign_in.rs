//! What takes no credentials: to sign in, and to set a password by a link.

use std::sync::Arc;

use axum::{
    Json as Answer,
    extract::{Request, State},
    http::{HeaderMap, header},
};
use punchtrail_infra::access::{
    ids::UserId,
    links::{self, LinkError},
    passwords::{self, PasswordError},
    sign_in::{self as entry, Along, Asking, SignInError},
    trail::Doer,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::{
    ask::extract::{Coming, read_json, read_json_body},
    auth::{
        check::Stranger,
        cookies::{self, BROWSER_COOKIE},
    },
    door::{
        gate::{SESSION_COOKIE, cookie},
        limits::STRANGERS_BODY_BYTES_MAX,
    },
    problem::{Code, Refusal, sentence},
    state::App,
};

/// How much of what a browser says of itself is kept, in characters.
const AGENT_CHARS_MAX: usize = 200;

/// Who asks to be let in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInBody {
    pub login: String,
    pub password: String,
    /// A code of the second factor, or one of the recovery codes; where one is set.
    #[serde(default)]
    pub code: Option<String>,
}

/// Somebody who was let in. The session is in the cookie.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignedInView {
    #[schema(value_type = String)]
    pub user: UserId,
}

/// What a browser says of itself, as far as it is kept.
pub(super) fn agent(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(agent.chars().take(AGENT_CHARS_MAX).collect())
}

/// A small body of somebody who isn't known yet.
pub(super) async fn read<T: DeserializeOwned>(
    app: &App,
    request: Request,
) -> Result<(T, HeaderMap, Arc<Doer>), Refusal> {
    let headers = request.headers().clone();
    let stranger = request.extensions().get::<Stranger>().ok_or_else(Refusal::internal)?.clone();
    let Coming { body, admitted } = read_json_body(app, request, STRANGERS_BODY_BYTES_MAX).await?;
    admitted.wait_for_permit().await?;
    Ok((read_json(body.bytes())?, headers, stranger.0))
}

/// Signs in with a password and, where one is set, a code of the second factor: a new session,
/// whose token is in a cookie. The session that the browser had before ends.
#[utoipa::path(
    post, path = "/v1/sign-in", tag = "access", request_body = SignInBody,
    operation_id = "signIn",
    responses((status = 200, body = SignedInView)),
)]
pub async fn sign_in(
    State(app): State<App>,
    request: Request,
) -> Result<(HeaderMap, Answer<SignedInView>), Refusal> {
    let (body, headers, doer): (SignInBody, _, _) = read(&app, request).await?;
    let browser = cookie(&headers, BROWSER_COOKIE);
    let asking = Asking { login: &body.login, browser, doer: &doer };
    let pool = app.ledger.pool();
    let candidate = entry::begin(pool, &asking).await?;
    let password = body.password.clone();
    let (candidate, is_right) = app
        .on_a_core(move || {
            let is_right = candidate.is_by(&password);
            (candidate, is_right)
        })
        .await?;
    let agent = agent(&headers);
    let along = Along {
        code: body.code.as_deref(),
        agent: agent.as_deref(),
        last_session: cookie(&headers, SESSION_COOKIE),
    };
    let entered = entry::finish(pool, &asking, candidate, is_right, along).await?;
    let given = cookies::given(&entered.token, Some(&entered.browser))?;
    Ok((given, Answer(SignedInView { user: entered.user })))
}

/// A password to be set by a link.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptanceBody {
    /// What stands behind `#` in the link.
    pub token: String,
    /// At least 12 characters.
    pub password: String,
}

/// Whose password was set.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcceptedView {
    #[schema(value_type = String)]
    pub user: UserId,
    /// What they sign in with.
    pub login: String,
}

/// Sets a password by the link of an invitation or a reset: good once, for thirty minutes. Every
/// session of theirs ends; sign in after it.
#[utoipa::path(
    post, path = "/v1/links/acceptance", tag = "access", request_body = AcceptanceBody,
    operation_id = "acceptLink",
    responses((status = 200, body = AcceptedView)),
)]
pub async fn accept(
    State(app): State<App>,
    request: Request,
) -> Result<Answer<AcceptedView>, Refusal> {
    let (body, _, doer): (AcceptanceBody, _, _) = read(&app, request).await?;
    let AcceptanceBody { token, password } = body;
    let pool = app.ledger.pool();
    let (_, login) = links::whose(pool, &token).await?;
    passwords::check(&password, &login)?;
    let phc = app.on_a_core(move || passwords::hash(&password)).await??;
    let user = links::accept(pool, &token, &phc, &doer).await?;
    Ok(Answer(AcceptedView { user, login }))
}

impl From<SignInError> for Refusal {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Wrong => Self::new(
                Code::SignInRefused,
                "Login, password or code is wrong. Whoever forgot theirs asks an admin for a link.",
            ),
            SignInError::CodeNeeded => Self::new(
                Code::SecondFactorNeeded,
                "Send `code` as well: of your second factor, or one of your recovery codes.",
            ),
            SignInError::Throttled { retry_after_s } => Self::new(
                Code::QuotaExceeded,
                "Too many failed from there, or at this account. Wait for the time in Retry-After; \
                 a browser from which you have signed in before isn't kept waiting by others.",
            )
            .retried_after(retry_after_s),
            SignInError::Over => super::provider::over(&error),
            SignInError::Database(error) => error.into(),
        }
    }
}

impl From<LinkError> for Refusal {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Invalid => Self::new(Code::LinkInvalid, sentence(&error)),
            LinkError::Database(error) => error.into(),
        }
    }
}

impl From<PasswordError> for Refusal {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Hash => Self::internal(),
            error => Self::field("/password", "invalid_value", sentence(&error)),
        }
    }
}
