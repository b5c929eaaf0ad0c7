//! Users, for admins: who they are, what they are, their links and sessions.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_infra::{
    access::{
        ids::UserId,
        links::Link,
        roles::Role,
        sessions,
        trail::Act,
        users::{self, Invited, NAME_CHARS_MAX, SITES_MAX, User, UserError},
    },
    people::directory,
};
use punchtrail_protocol::{EmployeeId, SiteId, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::session::Sessions;
use crate::{
    ask::{
        extract::{InPath, Json, Params, Permitted},
        page::{Page, PageQuery},
        walk::Walk,
    },
    auth::Operator,
    once::Unkept,
    problem::{Code, Refusal, sentence},
    state::App,
};

/// What a user is; docs/roles.md says what each may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    Admin,
    Manager,
    Auditor,
    Payroll,
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Manager => Self::Manager,
            Role::Auditor => Self::Auditor,
            Role::Payroll => Self::Payroll,
        }
    }
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Manager => Self::Manager,
            RoleName::Auditor => Self::Auditor,
            RoleName::Payroll => Self::Payroll,
        }
    }
}

/// A user.
#[derive(Serialize, ToSchema)]
pub struct UserView {
    #[schema(value_type = String)]
    pub user: UserId,
    /// What they sign in with; null once they were erased.
    pub login: Option<String>,
    pub name: Option<String>,
    pub role: RoleName,
    /// A manager's sites, in the order of their ids.
    pub sites: Vec<SiteId>,
    /// The worker who they are, if they are one: nobody rules on their own.
    pub employee: Option<EmployeeId>,
    /// Whether they have set a password.
    pub has_password: bool,
    pub has_second_factor: bool,
    /// Whether they are tied to an account at the provider of sign-ins.
    pub has_provider: bool,
    pub created_at: Time,
    pub disabled_at: Option<Time>,
    pub erased_at: Option<Time>,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            user: user.id,
            login: user.login,
            name: user.name,
            role: user.role.into(),
            sites: user.sites,
            employee: user.employee,
            has_password: user.has_password,
            has_second_factor: user.has_second_factor,
            has_provider: user.has_provider,
            created_at: user.created_at,
            disabled_at: user.disabled_at,
            erased_at: user.erased_at,
        }
    }
}

/// Users in the order of their ids.
#[utoipa::path(
    get, path = "/v1/users", tag = "access", params(PageQuery),
    operation_id = "listUsers",
    responses((status = 200, body = Page<UserView>)),
)]
pub async fn list(
    State(app): State<App>,
    _operator: Operator,
    walk: Walk,
    Params(query): Params<PageQuery>,
) -> Result<Answer<Page<UserView>>, Refusal> {
    let (limit, place) = (query.limit()?, query.place(&app, &walk)?);
    let after = place.map(|id| UserId(uuid::Uuid::from_bytes(id)));
    let mut found = users::list(app.ledger.pool(), after, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let rows = found.into_iter().map(UserView::from).collect();
    Ok(Answer(Page::of(&app, &walk, rows, more, |row: &UserView| *row.user.0.as_bytes())))
}

/// One user.
#[utoipa::path(
    get, path = "/v1/users/{user}", tag = "access",
    operation_id = "getUser",
    params(("user" = String, Path, description = "The user")),
    responses((status = 200, body = UserView)),
)]
pub async fn one(
    State(app): State<App>,
    _operator: Operator,
    InPath(user): InPath<UserId>,
) -> Result<Answer<UserView>, Refusal> {
    let found = users::one(app.ledger.pool(), user).await?.ok_or_else(Refusal::not_found)?;
    Ok(Answer(found.into()))
}

/// Somebody to be invited.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteBody {
    /// What they will sign in with, an e-mail address for one: 1 to 128 characters without blanks.
    pub login: String,
    /// For people, in explanations for one: 1 to 128 characters.
    pub name: String,
    pub role: RoleName,
    /// A manager's sites.
    #[serde(default)]
    pub sites: Vec<SiteId>,
}

/// A link by which somebody sets their password. It is shown this once: hand it over.
#[derive(Serialize, ToSchema)]
pub struct LinkView {
    #[schema(value_type = String)]
    pub user: UserId,
    /// Its path on this server.
    pub path: String,
    /// What stands behind `#` in it.
    pub token: String,
    /// When it can no longer be used.
    pub expires_at: Time,
}

fn linked(user: UserId, link: &Link) -> (StatusCode, Unkept<Answer<LinkView>>) {
    let view = LinkView {
        user,
        path: link.path(),
        token: link.token().to_owned(),
        expires_at: link.expires_at,
    };
    (StatusCode::CREATED, Unkept(Answer(view)))
}

/// Invites somebody: a user, and the link by which they set their password within thirty minutes.
#[utoipa::path(
    post, path = "/v1/users", tag = "access", request_body = InviteBody,
    operation_id = "inviteUser",
    responses((status = 201, body = LinkView)),
)]
pub async fn invite(
    State(app): State<App>,
    operator: Operator,
    Json(body): Json<InviteBody>,
) -> Result<(StatusCode, Unkept<Answer<LinkView>>), Refusal> {
    let InviteBody { login, name, role, sites } = &body;
    check_text("/login", login, char::is_whitespace)?;
    check_text("/name", name, |_| false)?;
    check_sites(&app, (*role).into(), sites).await?;
    let invited = Invited { login, name: name.trim(), role: (*role).into(), sites };
    let (user, link) = users::invite(app.ledger.pool(), &invited, &operator.doer()).await?;
    Ok(linked(user, &link))
}

fn check_text(pointer: &str, text: &str, is_wrong: impl Fn(char) -> bool) -> Result<(), Refusal> {
    let text = text.trim();
    let wrong = text.chars().any(|letter| letter.is_control() || is_wrong(letter));
    match wrong || !(1..=NAME_CHARS_MAX).contains(&text.chars().count()) {
        true => Err(Refusal::field(
            pointer,
            "invalid_value",
            format!("1 to {NAME_CHARS_MAX} characters; a login has no blanks."),
        )),
        false => Ok(()),
    }
}

async fn check_sites(app: &App, role: Role, sites: &[SiteId]) -> Result<(), Refusal> {
    if role.has_sites() == sites.is_empty() || sites.len() > SITES_MAX {
        let detail = "A manager has 1 to 1,000 sites, and nobody else has any.";
        return Err(Refusal::field("/sites", "invalid_value", detail));
    }
    let known = directory::site_names(&app.pools.reader, sites).await?;
    match sites.iter().all(|site| known.contains_key(site)) {
        true => Ok(()),
        false => Err(Refusal::field("/sites", "unknown", "There is no such site.")),
    }
}

/// What a user shall be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleBody {
    pub role: RoleName,
    /// A manager's sites.
    #[serde(default)]
    pub sites: Vec<SiteId>,
}

/// Gives a user another role, or other sites. Their sessions end. The last admin keeps theirs.
#[utoipa::path(
    put, path = "/v1/users/{user}/role", tag = "access",
    operation_id = "putUserRole",
    params(("user" = String, Path, description = "The user")),
    request_body = RoleBody, responses((status = 204)),
)]
pub async fn change_role(
    State(app): State<App>,
    operator: Operator,
    InPath(user): InPath<UserId>,
    Json(RoleBody { role, sites }): Json<RoleBody>,
) -> Result<StatusCode, Refusal> {
    check_sites(&app, role.into(), &sites).await?;
    let role = (Role::from(role), sites.as_slice());
    users::change_role(app.ledger.pool(), user, role, &operator.doer()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which worker a user is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TieBody {
    /// Null if they are none.
    pub employee: Option<EmployeeId>,
}

/// Says which worker a user is, or that they are none: nobody rules on their own. Another admin
/// than themselves says so.
#[utoipa::path(
    put, path = "/v1/users/{user}/employee", tag = "access",
    operation_id = "putUserEmployee",
    params(("user" = String, Path, description = "The user")),
    request_body = TieBody, responses((status = 204)),
)]
pub async fn tie(
    State(app): State<App>,
    operator: Operator,
    InPath(user): InPath<UserId>,
    Json(TieBody { employee }): Json<TieBody>,
) -> Result<StatusCode, Refusal> {
    if let Some(employee) = employee
        && !directory::employee_exists(&app.pools.reader, employee).await?
    {
        return Err(Refusal::field("/employee", "unknown", "There is no such employee."));
    }
    users::tie(app.ledger.pool(), user, employee, &operator.doer()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a user is kept out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DisabledBody {
    pub disabled: bool,
}

/// Keeps a user out, or lets them in again. Their sessions end. The last admin can't be kept out.
#[utoipa::path(
    put, path = "/v1/users/{user}/disabled", tag = "access",
    operation_id = "putUserDisabled",
    params(("user" = String, Path, description = "The user")),
    request_body = DisabledBody, responses((status = 204)),
)]
pub async fn disable(
    State(app): State<App>,
    operator: Operator,
    InPath(user): InPath<UserId>,
    Json(DisabledBody { disabled }): Json<DisabledBody>,
) -> Result<StatusCode, Refusal> {
    users::disable(app.ledger.pool(), user, disabled, &operator.doer()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a new link is for.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LinkBody {
    /// Whether the second factor goes with the old password: because it is lost.
    pub clears_second_factor: bool,
}

/// Makes a new link for somebody who forgot their password or let the last one expire; the last one
/// is void. The old password stays good until the link is used.
#[utoipa::path(
    post, path = "/v1/users/{user}/link", tag = "access",
    operation_id = "createUserLink",
    params(("user" = String, Path, description = "The user")),
    request_body = LinkBody, responses((status = 201, body = LinkView)),
)]
pub async fn make_link(
    State(app): State<App>,
    operator: Operator,
    InPath(user): InPath<UserId>,
    Json(body): Json<LinkBody>,
) -> Result<(StatusCode, Unkept<Answer<LinkView>>), Refusal> {
    let (pool, doer) = (app.ledger.pool(), operator.doer());
    let link = users::reset(pool, user, body.clears_second_factor, &doer).await?;
    Ok(linked(user, &link))
}

/// Erases what is kept of a user: login, name, password, second factor, sessions. What they did
/// stands, under an id that says nothing.
#[utoipa::path(
    delete, path = "/v1/users/{user}", tag = "access",
    operation_id = "eraseUser",
    params(("user" = String, Path, description = "The user")), responses((status = 204)),
)]
pub async fn erase(
    State(app): State<App>,
    operator: Operator,
    InPath(user): InPath<UserId>,
    _: Permitted,
) -> Result<StatusCode, Refusal> {
    users::erase(app.ledger.pool(), user, &operator.doer()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A user's sessions.
#[utoipa::path(
    get, path = "/v1/users/{user}/sessions", tag = "access",
    operation_id = "listUserSessions",
    params(("user" = String, Path, description = "The user")),
    responses((status = 200, body = Sessions)),
)]
pub async fn sessions(
    State(app): State<App>,
    _operator: Operator,
    InPath(user): InPath<UserId>,
) -> Result<Answer<Sessions>, Refusal> {
    users::one(app.ledger.pool(), user).await?.ok_or_else(Refusal::not_found)?;
    Ok(Answer(sessions::of_user(app.ledger.pool(), user).await?.into()))
}

/// Ends all sessions of a user.
#[utoipa::path(
    delete, path = "/v1/users/{user}/sessions", tag = "access",
    operation_id = "endUserSessions",
    params(("user" = String, Path, description = "The user")), responses((status = 204)),
)]
pub async fn end_sessions(
    State(app): State<App>,
    operator: Operator,
    InPath(user): InPath<UserId>,
    _: Permitted,
) -> Result<StatusCode, Refusal> {
    users::one(app.ledger.pool(), user).await?.ok_or_else(Refusal::not_found)?;
    let doer = operator.doer();
    sessions::end(app.ledger.pool(), user, None, (Act::SessionsEnded, &doer)).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<UserError> for Refusal {
    fn from(error: UserError) -> Self {
        let code = match error {
            UserError::Unknown => return Self::not_found(),
            UserError::Database(error) => return error.into(),
            UserError::LoginTaken
            | UserError::EmployeeTaken
            | UserError::IdentityTaken
            | UserError::Erased => Code::Conflict,
            UserError::LastAdmin => Code::LastAdmin,
            UserError::NoAdmin => Code::Forbidden,
            UserError::Own => Code::OwnRecord,
        };
        Self::new(code, sentence(&error))
    }
}
