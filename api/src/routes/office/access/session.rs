//! One's own session: who one is, one's password, one's other sessions.

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use punchtrail_infra::access::{
    ids::{SessionId, UserId},
    passwords,
    sessions::{self, Listed},
    sign_in::{self as entry, Asking, SignInError},
    trail::Act,
    users,
};
use punchtrail_protocol::{EmployeeId, SiteId, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{sign_in::agent, users::RoleName};
use crate::{
    ask::extract::{InPath, Json, Permitted},
    auth::{
        Operator,
        cookies::{self, BROWSER_COOKIE},
    },
    door::gate::cookie,
    once::Unkept,
    problem::Refusal,
    state::App,
};

/// How long after signing in somebody without a password may change by what they sign in, in
/// seconds.
const FRESH_S: u32 = 10 * 60;

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnSession {
    #[schema(value_type = String)]
    pub session: SessionId,
    #[schema(value_type = String)]
    pub user: UserId,
    pub login: Option<String>,
    pub name: Option<String>,
    pub role: RoleName,
    /// A manager's; null for whoever has all.
    pub sites: Option<Vec<SiteId>>,
    /// The worker who they are, if they are one.
    pub employee: Option<EmployeeId>,
    pub has_second_factor: bool,
    /// Whether a second factor has to be set before anything else can be called.
    pub lacks_second_factor: bool,
    /// Whether workers' names and photos are shown.
    pub sees_names: bool,
}

/// Who is signed in by this session.
#[utoipa::path(
    get, path = "/v1/session", tag = "access", responses((status = 200, body = OwnSession)),
    operation_id = "getSession",
)]
pub async fn own(
    State(app): State<App>,
    operator: Operator,
) -> Result<Answer<OwnSession>, Refusal> {
    let signed_in = operator.user()?;
    let user = users::one(app.ledger.pool(), signed_in.user).await?;
    let user = user.ok_or_else(Refusal::not_found)?;
    Ok(Answer(OwnSession {
        session: signed_in.session,
        user: signed_in.user,
        login: user.login,
        name: user.name,
        role: signed_in.role.into(),
        sites: operator.sites().map(<[SiteId]>::to_vec),
        employee: signed_in.employee,
        has_second_factor: user.has_second_factor,
        lacks_second_factor: signed_in.lacks_factor,
        sees_names: operator.sees_names(),
    }))
}

/// Signs out: the session ends on all nodes at once.
#[utoipa::path(
    delete, path = "/v1/session", tag = "access",
    operation_id = "signOut",
    responses((status = 204)),
)]
pub async fn sign_out(
    State(app): State<App>,
    operator: Operator,
    _: Permitted,
) -> Result<(StatusCode, HeaderMap), Refusal> {
    let (user, doer) = (operator.user()?, operator.doer());
    let session = Some(user.session);
    sessions::end(app.ledger.pool(), user.user, session, (Act::SignedOut, &doer)).await?;
    Ok((StatusCode::NO_CONTENT, cookies::taken()?))
}

/// A new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordBody {
    /// The one that is good now.
    pub current: String,
    /// At least 12 characters.
    pub password: String,
}

/// Changes one's password. Every session ends; a new one begins in this browser.
#[utoipa::path(
    post, path = "/v1/session/password", tag = "access", request_body = PasswordBody,
    operation_id = "changePassword",
    responses((status = 204)),
)]
pub async fn change_password(
    State(app): State<App>,
    operator: Operator,
    headers: HeaderMap,
    Json(body): Json<PasswordBody>,
) -> Result<Unkept<(StatusCode, HeaderMap)>, Refusal> {
    let PasswordBody { current, password } = body;
    let old = proven(&app, &operator, &headers, current).await?;
    passwords::check(&password, &old.login)?;
    let phc = app.on_a_core(move || passwords::hash(&password)).await??;
    let (user, doer) = (operator.user()?.user, operator.doer());
    let (pool, agent) = (app.ledger.pool(), agent(&headers));
    let change = (old.phc.as_deref(), phc.as_str());
    let token = entry::change_password(pool, user, change, agent.as_deref(), &doer).await?;
    Ok(Unkept((StatusCode::NO_CONTENT, cookies::given(&token, None)?)))
}

/// Whoever has shown that they know their password.
pub(super) struct Proven {
    pub login: String,
    phc: Option<String>,
}

/// That whoever is signed in knows their password: a session that was left open isn't enough to
/// change by what one signs in. Guesses count as they do for signing in. Who has no password, since
/// a provider vouches for them, has to have signed in a moment ago.
pub(super) async fn proven(
    app: &App,
    operator: &Operator,
    headers: &HeaderMap,
    password: String,
) -> Result<Proven, Refusal> {
    let (pool, doer) = (app.ledger.pool(), operator.doer());
    let user = users::one(pool, operator.user()?.user).await?.ok_or_else(Refusal::not_found)?;
    let login = user.login.unwrap_or_default();
    if !user.has_password {
        let session = operator.user()?.session;
        return match sessions::is_younger(pool, session, FRESH_S).await? {
            true => Ok(Proven { login, phc: None }),
            false => Err(Refusal::field(
                "/current",
                "invalid_value",
                "You have no password, and signed in a while ago. Nothing was changed; sign in by \
                 the provider again, and do this within ten minutes.",
            )),
        };
    }
    let asking = Asking { login: &login, browser: cookie(headers, BROWSER_COOKIE), doer: &doer };
    let candidate = entry::begin(pool, &asking).await?;
    let (candidate, is_right) = app
        .on_a_core(move || {
            let is_right = candidate.is_by(&password);
            (candidate, is_right)
        })
        .await?;
    let phc = candidate.phc().map(str::to_owned);
    match entry::prove(pool, &asking, candidate, is_right).await {
        Ok(()) => Ok(Proven { login, phc }),
        Err(SignInError::Wrong) => {
            let detail = "This isn't your password. Nothing was changed.";
            Err(Refusal::field("/current", "invalid_value", detail))
        }
        Err(error) => Err(error.into()),
    }
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionView {
    #[schema(value_type = String)]
    pub session: SessionId,
    pub created_at: Time,
    /// When it was used last, to the minute.
    pub seen_at: Time,
    pub address: Option<String>,
    /// What the browser says of itself.
    pub agent: Option<String>,
}

/// Sessions that last.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sessions {
    /// The newest first, at most 20.
    pub data: Vec<SessionView>,
}

impl From<Vec<Listed>> for Sessions {
    fn from(listed: Vec<Listed>) -> Self {
        let view = |one: Listed| SessionView {
            session: one.session,
            created_at: one.created_at,
            seen_at: one.seen_at,
            address: one.address,
            agent: one.agent,
        };
        Self { data: listed.into_iter().map(view).collect() }
    }
}

/// One's sessions.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "access", responses((status = 200, body = Sessions)),
    operation_id = "listSessions",
)]
pub async fn list(State(app): State<App>, operator: Operator) -> Result<Answer<Sessions>, Refusal> {
    let listed = sessions::of_user(app.ledger.pool(), operator.user()?.user).await?;
    Ok(Answer(listed.into()))
}

/// Ends one of one's sessions.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}", tag = "access",
    operation_id = "endSession",
    params(("session" = String, Path, description = "The session")),
    responses((status = 204)),
)]
pub async fn end(
    State(app): State<App>,
    operator: Operator,
    InPath(session): InPath<SessionId>,
    _: Permitted,
) -> Result<StatusCode, Refusal> {
    let (user, doer) = (operator.user()?.user, operator.doer());
    let act = (Act::SessionsEnded, &doer);
    match sessions::end(app.ledger.pool(), user, Some(session), act).await? {
        0 => Err(Refusal::not_found()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}
