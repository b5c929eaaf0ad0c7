//! Signing in by a provider of OpenID Connect: the way there, the way back, and what a user has to
//! do with one.
//!
//! The way back is a navigation that another site begins, so it isn't held to come from our own
//! pages: what binds it to the browser is the token in a cookie, from which `state` is made.

use axum::{
    Json as Answer,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use punchtrail_infra::access::{
    ids::UserId,
    provider::{
        Identity, Provider, ProviderError, Returned,
        begun::{self, Begun, For},
        entering::{self, Vouched},
    },
    sessions,
    sign_in::{Along, Asking, SignInError},
    trail::Doer,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    factor::{CodeBody, CurrentBody},
    session::proven,
    sign_in::{SignedInView, agent, read},
};
use crate::{
    ask::extract::{InPath, Json, Line, Params, Permitted},
    auth::{
        Operator,
        check::Stranger,
        cookies::{self, BROWSER_COOKIE, PROVIDER_COOKIE},
    },
    door::gate::{SESSION_COOKIE, cookie},
    once::Unkept,
    problem::{Code, Refusal, sentence},
    state::App,
};

/// Where a browser goes once it is signed in.
const HOME: &str = "/";
/// When to ask again a provider that is away, in seconds.
const AWAY_RETRY_S: u64 = 10;

/// The ways to sign in.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaysIn {
    /// By login and password: always.
    pub password: bool,
    /// By a provider; null where none is set.
    pub provider: Option<ProviderView>,
}

/// A provider of sign-ins.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderView {
    /// What stands on the button.
    pub name: String,
    /// Where the button leads.
    pub path: String,
}

/// The ways to sign in here.
#[utoipa::path(
    get, path = "/v1/sign-in", tag = "access", responses((status = 200, body = WaysIn)),
    operation_id = "listSignInWays",
)]
pub async fn ways(State(app): State<App>) -> Answer<WaysIn> {
    let view = |provider: &Provider| ProviderView {
        name: provider.name().to_owned(),
        path: "/v1/sign-in/provider".to_owned(),
    };
    Answer(WaysIn { password: true, provider: app.provider.as_deref().map(view) })
}

fn provider(app: &App) -> Result<&Provider, Refusal> {
    app.provider.as_deref().ok_or_else(Refusal::not_found)
}

/// Begins to sign in by the provider: the browser is sent there.
#[utoipa::path(
    get, path = "/v1/sign-in/provider", tag = "access",
    operation_id = "beginProviderSignIn",
    responses((status = 303, description = "To the provider, by `Location`")),
)]
pub async fn begin(
    State(app): State<App>,
    line: Line,
    stranger: Stranger,
) -> Result<(StatusCode, HeaderMap), Refusal> {
    let (location, mut headers) = begun(&app, &line, (None, &stranger.0)).await?;
    headers.insert(header::LOCATION, location_of(&location)?);
    Ok((StatusCode::SEE_OTHER, headers))
}

/// Where a browser goes that begins, and what it gets on its way.
async fn begun(
    app: &App,
    line: &Line,
    (ties, doer): (Option<UserId>, &Doer),
) -> Result<(String, HeaderMap), Refusal> {
    let provider = provider(app)?;
    let (begun, token) = begun::begin(app.ledger.pool(), ties, doer).await?;
    line.put_down().await;
    let location = provider.authorization_url(&begun).await?;
    line.wait_for_permit().await?;
    Ok((location, cookies::begun(&token)?))
}

fn location_of(location: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(location).map_err(|_| Refusal::internal())
}

/// What a provider sends back with a browser. What else it adds is its own.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CallbackQuery {
    /// What this server gave it.
    pub state: Option<String>,
    /// To be changed for its word.
    pub code: Option<String>,
    /// Who it is (RFC 9207).
    pub iss: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
}

/// Where the provider sends a browser back to: a new session, whose token is in a cookie, as by a
/// password. 401 `second_factor_needed` when the provider saw no second factor and the user has set
/// one here: send its code (`POST /v1/sign-in/provider/code`) from the same browser.
#[utoipa::path(
    get, path = "/v1/sign-in/provider/callback", tag = "access", params(CallbackQuery),
    operation_id = "endProviderSignIn",
    responses((status = 303, description = "Signed in, or tied; to the server's own page")),
)]
pub async fn callback(
    State(app): State<App>,
    line: Line,
    Stranger(doer): Stranger,
    headers: HeaderMap,
    Params(query): Params<CallbackQuery>,
) -> Result<(StatusCode, HeaderMap), Refusal> {
    let provider = provider(&app)?;
    let (begun, what_for) = taken(&app, &headers, &query).await?;
    let identity = identity(&app, provider, &line, (&begun, &query), &doer).await?;
    let mut given = match what_for {
        For::Tying(user) => tied(&app, &headers, user, &identity, &doer).await?,
        For::Entering => entered(&app, &headers, &begun, &identity, &doer).await?,
    };
    cookies::take_begun(&mut given)?;
    given.insert(header::LOCATION, HeaderValue::from_static(HOME));
    // The address that it comes from holds the code.
    given.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok((StatusCode::SEE_OTHER, given))
}

/// The sign-in that this browser began and comes back with, taken: it is good once.
async fn taken(
    app: &App,
    headers: &HeaderMap,
    query: &CallbackQuery,
) -> Result<(Begun, For), Refusal> {
    let begun = of_browser(headers)?;
    if !query.state.as_ref().is_some_and(|state| begun.is_answered_by(state)) {
        return Err(SignInError::Over.into());
    }
    match begun::take(app.ledger.pool(), &begun).await? {
        Some(what_for) => Ok((begun, what_for)),
        None => Err(SignInError::Over.into()),
    }
}

/// Who comes back, by the provider's word. It is waited for without a permit, which others need.
async fn identity(
    app: &App,
    provider: &Provider,
    line: &Line,
    (begun, query): (&Begun, &CallbackQuery),
    doer: &Doer,
) -> Result<Identity, Refusal> {
    let pool = app.ledger.pool();
    if let Some(error) = &query.error {
        tracing::info!(error = %said(error), "the provider let nobody in");
        entering::failed(pool, doer).await?;
        return Err(refused());
    }
    let code = query.code.as_deref().unwrap_or_default();
    let returned = Returned { code, issuer: query.iss.as_deref() };
    line.put_down().await;
    let identity = provider.identity(begun, returned).await;
    line.wait_for_permit().await?;
    if let Err(ProviderError::Refused(_)) = identity {
        entering::failed(pool, doer).await?;
    }
    Ok(identity?)
}

/// Ties a user to the provider's word, if the session that asked for it is this browser's still.
async fn tied(
    app: &App,
    headers: &HeaderMap,
    user: UserId,
    identity: &Identity,
    doer: &Doer,
) -> Result<HeaderMap, Refusal> {
    let pool = app.ledger.pool();
    let session = cookie(headers, SESSION_COOKIE).unwrap_or_default();
    let signed_in = sessions::signed_in(pool, session).await?;
    if signed_in.is_none_or(|signed_in| signed_in.user != user) {
        return Err(SignInError::Over.into());
    }
    entering::tie(pool, user, identity, &doer.known_as(user)).await?;
    Ok(HeaderMap::new())
}

/// Lets somebody in by the provider's word: what their browser gets.
async fn entered(
    app: &App,
    headers: &HeaderMap,
    begun: &Begun,
    identity: &Identity,
    doer: &Doer,
) -> Result<HeaderMap, Refusal> {
    let agent = agent(headers);
    let (asking, along) = coming(headers, doer, agent.as_deref());
    match entering::enter(app.ledger.pool(), begun, identity, &asking, along).await {
        Ok(Vouched::Entered(entered)) => cookies::given(&entered.token, Some(&entered.browser)),
        Ok(Vouched::CodeWanted) => Err(code_needed()),
        Err(SignInError::Wrong) => Err(refused()),
        Err(error) => Err(error.into()),
    }
}

/// The sign-in that a browser began.
fn of_browser(headers: &HeaderMap) -> Result<Begun, SignInError> {
    let token = cookie(headers, PROVIDER_COOKIE);
    token.and_then(Begun::of_token).ok_or(SignInError::Over)
}

fn coming<'a>(
    headers: &'a HeaderMap,
    doer: &'a Doer,
    agent: Option<&'a str>,
) -> (Asking<'a>, Along<'a>) {
    let asking = Asking { login: "", browser: cookie(headers, BROWSER_COOKIE), doer };
    let along = Along { code: None, agent, last_session: cookie(headers, SESSION_COOKIE) };
    (asking, along)
}

/// As much of a provider's code for an error as can be one.
fn said(error: &str) -> String {
    let letters = error.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_');
    letters.take(40).collect()
}

/// Goes on after a sign-in by the provider, where a code of one's own second factor is wanted.
#[utoipa::path(
    post, path = "/v1/sign-in/provider/code", tag = "access", request_body = CodeBody,
    operation_id = "confirmProviderSignIn",
    responses((status = 200, body = SignedInView)),
)]
pub async fn code(
    State(app): State<App>,
    request: Request,
) -> Result<(HeaderMap, Answer<SignedInView>), Refusal> {
    let (body, headers, doer): (CodeBody, _, _) = read(&app, request).await?;
    provider(&app)?;
    let begun = of_browser(&headers)?;
    let agent = agent(&headers);
    let (asking, along) = coming(&headers, &doer, agent.as_deref());
    let try_ = (body.code.as_str(), asking.browser);
    let entered = entering::by_code(app.ledger.pool(), &begun, try_, &doer, along).await?;
    let mut given = cookies::given(&entered.token, Some(&entered.browser))?;
    cookies::take_begun(&mut given)?;
    Ok((given, Answer(SignedInView { user: entered.user })))
}

/// Where to go.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeadView {
    /// The provider's address, for this browser, within ten minutes.
    pub location: String,
}

/// Begins to tie oneself to an account at the provider: whoever is signed in there then signs in
/// here without a password. Go to `location` in the same browser.
#[utoipa::path(
    post, path = "/v1/session/provider", tag = "access", request_body = CurrentBody,
    operation_id = "tieToProvider",
    responses((status = 200, body = LeadView)),
)]
pub async fn tie(
    State(app): State<App>,
    operator: Operator,
    line: Line,
    headers: HeaderMap,
    Json(body): Json<CurrentBody>,
) -> Result<(HeaderMap, Unkept<Answer<LeadView>>), Refusal> {
    provider(&app)?;
    proven(&app, &operator, &headers, body.current).await?;
    let ties = (Some(operator.user()?.user), &operator.doer());
    let (location, given) = begun(&app, &line, ties).await?;
    Ok((given, Unkept(Answer(LeadView { location }))))
}

/// Unties a user from their account at the provider: it lets nobody in as them any more. Their
/// sessions end. Who has no password is then as if just invited.
#[utoipa::path(
    delete, path = "/v1/users/{user}/provider", tag = "access",
    operation_id = "untieUserFromProvider",
    params(("user" = String, Path, description = "The user")), responses((status = 204)),
)]
pub async fn untie(
    State(app): State<App>,
    operator: Operator,
    InPath(user): InPath<UserId>,
    _: Permitted,
) -> Result<StatusCode, Refusal> {
    entering::untie(app.ledger.pool(), user, &operator.doer()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Nobody, somebody kept out, somebody erased, and a word that isn't taken: all look the same.
fn refused() -> Refusal {
    Refusal::new(
        Code::SignInRefused,
        "That account at the provider lets nobody in here. Who was invited needs an address there \
         that it has verified and that is their login here; who has a password signs in with it, \
         and ties the account then. An admin can look into it.",
    )
}

fn code_needed() -> Refusal {
    Refusal::new(
        Code::SecondFactorNeeded,
        "The provider says who you are. Send a code of your second factor as well, or one of your \
         recovery codes, to /v1/sign-in/provider/code within ten minutes.",
    )
}

impl From<ProviderError> for Refusal {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Unavailable(why) => {
                tracing::warn!(%why, "the provider of sign-ins can't be asked");
                Self::new(
                    Code::ProviderUnavailable,
                    "The provider can't be asked now. Nobody was signed in; begin again after the \
                     time in Retry-After, or sign in with a password.",
                )
                .retried_after(AWAY_RETRY_S)
            }
            ProviderError::Refused(why) => {
                tracing::warn!(%why, "a provider's word isn't taken");
                refused()
            }
        }
    }
}

/// What is said of a sign-in that can't go on.
pub(super) fn over(error: &SignInError) -> Refusal {
    let detail = "It was begun in another browser, was used, or took longer than ten minutes. \
                  Begin again.";
    Refusal::new(Code::SignInOver, format!("{} {detail}", sentence(error)))
}
