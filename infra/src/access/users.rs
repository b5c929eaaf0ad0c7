//! People who sign in: who they are, what they are here, at which sites.
//!
//! Whoever changes admins locks the row of their role first, one after the other; then it is looked
//! at who is an admin still, of those who change and of those who remain. So of two who demote each
//! other at once one does, and there is always one.

use jiff_sqlx::Timestamp;
use punchtrail_domain::log::recorded::Actor;
use punchtrail_protocol::{EmployeeId, SiteId, Time, spelling::normal};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    CHANGE_MAX,
    ids::UserId,
    links::{self, Link},
    provider::{begun, entering},
    roles::Role,
    second_factor, sessions,
    trail::{self, Act, Doer},
};
use crate::{
    ledger::begin_beside,
    postgres::{Pool, within},
};

/// The longest login and name, in characters.
pub const NAME_CHARS_MAX: usize = 128;
/// How many sites a manager may have.
pub const SITES_MAX: usize = 1_000;

/// A user as listed: never the password or the second factor's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    /// What they sign in with; none once they were erased.
    pub login: Option<String>,
    pub name: Option<String>,
    pub role: Role,
    /// In the order of their ids; none but a manager's.
    pub sites: Vec<SiteId>,
    /// The worker who they are.
    pub employee: Option<EmployeeId>,
    /// Whether they have used their first link.
    pub has_password: bool,
    pub has_second_factor: bool,
    /// Whether they are tied to what a provider of sign-ins calls them.
    pub has_provider: bool,
    pub created_at: Time,
    pub disabled_at: Option<Time>,
    pub erased_at: Option<Time>,
}

impl std::fmt::Debug for User {
    /// Names don't belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Why a user was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is none of that id.
    #[error("there is no such user")]
    Unknown,
    /// Somebody signs in so already.
    #[error("somebody signs in by this name already")]
    LoginTaken,
    /// Another user is this worker.
    #[error("another user is tied to this worker")]
    EmployeeTaken,
    /// Nobody could change anything any more.
    #[error(
        "they are the last admin who can sign in; nothing was changed. Make another one first, \
         who has used their link"
    )]
    LastAdmin,
    /// Whoever asked has lost the right meanwhile.
    #[error("you are no admin any more; nothing was changed")]
    NoAdmin,
    /// Another admin has to do it.
    #[error("this is about yourself; another admin has to do it. Nothing was changed")]
    Own,
    /// They were erased, and nothing of them is changed any more.
    #[error("this user was erased; nothing was changed")]
    Erased,
    /// One of the two is tied already.
    #[error(
        "you are tied to an account of the provider already, or somebody else is to this one; an \
         admin can untie. Nothing was changed"
    )]
    IdentityTaken,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A login as it is kept: in Unicode's form C and lower case, without blanks around it.
pub fn spelled(login: &str) -> String {
    normal(login.trim()).to_lowercase()
}

const SELECT: &str = "select u.id, u.login, u.name, u.role, u.employee, \
         u.password_phc is not null as has_password, u.totp_secret is not null as has_factor, \
         exists (select from user_identities i where i.user_id = u.id) as has_provider, \
         array(select site from user_sites s where s.user_id = u.id order by site) as sites, \
         u.created_at, u.disabled_at, u.erased_at from users u";

fn user(row: &PgRow) -> Result<User, sqlx::Error> {
    let time = |at: Timestamp| Time::from(at.to_jiff());
    let some = |column| row.try_get::<Option<Timestamp>, _>(column).map(|at| at.map(time));
    let sites: Vec<Uuid> = row.try_get("sites")?;
    Ok(User {
        id: UserId(row.try_get("id")?),
        login: row.try_get("login")?,
        name: row.try_get("name")?,
        role: Role::of(row.try_get("role")?)?,
        sites: sites.into_iter().map(SiteId).collect(),
        employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
        has_password: row.try_get("has_password")?,
        has_second_factor: row.try_get("has_factor")?,
        has_provider: row.try_get("has_provider")?,
        created_at: time(row.try_get("created_at")?),
        disabled_at: some("disabled_at")?,
        erased_at: some("erased_at")?,
    })
}

/// One user; none if there is none of that id.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(writer: &Pool, id: UserId) -> Result<Option<User>, sqlx::Error> {
    let statement = format!("{SELECT} where u.id = $1");
    sqlx::query(&statement).bind(id.0).try_map(|row| user(&row)).fetch_optional(writer).await
}

/// The user who signs in so, or has that id; none if there is none.
///
/// # Errors
/// When the database is out of reach.
pub async fn named(writer: &Pool, named: &str) -> Result<Option<User>, sqlx::Error> {
    let statement = format!("{SELECT} where u.login = $1 or u.id = $2");
    sqlx::query(&statement)
        .bind(spelled(named))
        .bind(named.parse::<UserId>().ok().map(|id| id.0))
        .try_map(|row| user(&row))
        .fetch_optional(writer)
        .await
}

/// The users in the order of their ids, after that one; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    writer: &Pool,
    after: Option<UserId>,
    limit: u32,
) -> Result<Vec<User>, sqlx::Error> {
    let statement = format!("{SELECT} where u.id > $1 order by u.id limit $2");
    sqlx::query(&statement)
        .bind(after.map_or(Uuid::nil(), |id| id.0))
        .bind(i64::from(limit))
        .try_map(|row| user(&row))
        .fetch_all(writer)
        .await
}

/// Somebody to be invited.
#[derive(Debug, Clone)]
pub struct Invited<'a> {
    pub login: &'a str,
    pub name: &'a str,
    pub role: Role,
    /// A manager's.
    pub sites: &'a [SiteId],
}

/// Makes a user and the link by which they set their password.
///
/// # Errors
/// See [`UserError`].
pub async fn invite(
    writer: &Pool,
    invited: &Invited<'_>,
    doer: &Doer,
) -> Result<(UserId, Link), UserError> {
    let id = UserId::new();
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        lock_admins(&mut tx, doer).await?;
        let made = sqlx::query("insert into users (id, login, name, role) values ($1, $2, $3, $4)")
            .bind(id.0)
            .bind(spelled(invited.login))
            .bind(invited.name)
            .bind(invited.role.as_str())
            .execute(&mut *tx)
            .await;
        made.map_err(|error| taken(error, UserError::LoginTaken))?;
        put_sites(&mut tx, id, invited.role, invited.sites).await?;
        let (subject, detail) = (Some(id.to_string()), Some(invited.role.as_str()));
        trail::note(&mut *tx, doer, Act::UserInvited, subject, detail).await?;
        let link = links::make(&mut tx, id, false, doer).await?;
        tx.commit().await?;
        Ok((id, link))
    })
    .await
}

/// Makes a link for the first admin, or for one who is locked out, by whoever sits at the server's
/// own command line; the last one is void. It takes the second factor away, too.
///
/// # Errors
/// When somebody who is no admin signs in so, or the database is out of reach.
pub async fn admin_link(writer: &Pool, login: &str) -> Result<(UserId, Link), UserError> {
    let (login, doer) = (spelled(login), Doer::command_line());
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        lock_admins(&mut tx, &doer).await?;
        let found: Option<(Uuid, String, bool)> =
            sqlx::query_as("select id, role, disabled_at is not null from users where login = $1")
                .bind(&login)
                .fetch_optional(&mut *tx)
                .await?;
        let id = match found {
            Some((_, role, _)) if role != Role::Admin.as_str() => return Err(UserError::NoAdmin),
            Some((id, _, disabled)) => {
                let id = UserId(id);
                if disabled {
                    set_disabled(&mut tx, id, false, &doer).await?;
                }
                id
            }
            None => {
                let id = UserId::new();
                let statement = "insert into users (id, login, name, role) values ($1, $2, $2, $3)";
                let role = Role::Admin.as_str();
                let made = sqlx::query(statement).bind(id.0).bind(&login).bind(role);
                made.execute(&mut *tx).await?;
                let subject = Some(id.to_string());
                trail::note(&mut *tx, &doer, Act::UserInvited, subject, Some(role)).await?;
                id
            }
        };
        let link = links::make(&mut tx, id, true, &doer).await?;
        tx.commit().await?;
        Ok((id, link))
    })
    .await
}

/// Makes a new link for somebody who forgot their password, or lost their second factor; the last
/// one is void.
///
/// # Errors
/// See [`UserError`].
pub async fn reset(
    writer: &Pool,
    id: UserId,
    clears_factor: bool,
    doer: &Doer,
) -> Result<Link, UserError> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        changing(&mut tx, id, doer).await?;
        let link = links::make(&mut tx, id, clears_factor, doer).await?;
        tx.commit().await?;
        Ok(link)
    })
    .await
}

/// Gives a user another role, or other sites. Their sessions end.
///
/// # Errors
/// See [`UserError`].
pub async fn change_role(
    writer: &Pool,
    id: UserId,
    (role, sites): (Role, &[SiteId]),
    doer: &Doer,
) -> Result<(), UserError> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        let held = changing(&mut tx, id, doer).await?;
        sqlx::query("update users set role = $2 where id = $1")
            .bind(id.0)
            .bind(role.as_str())
            .execute(&mut *tx)
            .await?;
        put_sites(&mut tx, id, role, sites).await?;
        if role != Role::Admin {
            held.leaves_an_admin(&mut tx).await?;
        }
        sessions::end_all(&mut tx, id, None).await?;
        let subject = Some(id.to_string());
        trail::note(&mut *tx, doer, Act::RoleChanged, subject, Some(role.as_str())).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Keeps a user out, or lets them in again. Their sessions end.
///
/// # Errors
/// See [`UserError`].
pub async fn disable(
    writer: &Pool,
    id: UserId,
    disabled: bool,
    doer: &Doer,
) -> Result<(), UserError> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        let held = changing(&mut tx, id, doer).await?;
        set_disabled(&mut tx, id, disabled, doer).await?;
        if disabled {
            held.leaves_an_admin(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Says which worker a user is, or that they are none: another admin than themselves does.
///
/// # Errors
/// See [`UserError`].
pub async fn tie(
    writer: &Pool,
    id: UserId,
    employee: Option<EmployeeId>,
    doer: &Doer,
) -> Result<(), UserError> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        changing(&mut tx, id, doer).await?;
        if doer.actor == Some(Actor::User(id.0)) {
            return Err(UserError::Own);
        }
        sqlx::query("update users set employee = $2 where id = $1")
            .bind(id.0)
            .bind(employee.map(EmployeeId::uuid))
            .execute(&mut *tx)
            .await
            .map_err(|error| taken(error, UserError::EmployeeTaken))?;
        let (subject, worker) = (Some(id.to_string()), employee.map(|who| who.to_string()));
        trail::note(&mut *tx, doer, Act::UserTied, subject, worker.as_deref()).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Erases what is kept of a user: login, name, password, second factor, what a provider calls them,
/// sessions. What they did stands, by their id.
///
/// # Errors
/// See [`UserError`].
pub async fn erase(writer: &Pool, id: UserId, doer: &Doer) -> Result<(), UserError> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        let held = changing(&mut tx, id, doer).await?;
        sqlx::query(
            "update users set login = null, name = null, employee = null, password_phc = null, \
             disabled_at = coalesce(disabled_at, now()), erased_at = now() where id = $1",
        )
        .bind(id.0)
        .execute(&mut *tx)
        .await?;
        held.leaves_an_admin(&mut tx).await?;
        second_factor::clear(&mut tx, id).await?;
        put_sites(&mut tx, id, Role::Admin, &[]).await?;
        sessions::end_all(&mut tx, id, None).await?;
        sessions::forget_browsers(&mut tx, id).await?;
        links::void(&mut tx, id).await?;
        entering::forget(&mut tx, id).await?;
        trail::note(&mut *tx, doer, Act::UserErased, Some(id.to_string()), None).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Says whether a role's people need a second factor.
///
/// # Errors
/// See [`UserError`].
pub async fn require_factor(
    writer: &Pool,
    role: Role,
    required: bool,
    doer: &Doer,
) -> Result<(), UserError> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        lock_admins(&mut tx, doer).await?;
        sqlx::query("update role_rules set totp_required = $2 where role = $1")
            .bind(role.as_str())
            .bind(required)
            .execute(&mut *tx)
            .await?;
        let detail = if required { "second_factor_required" } else { "second_factor_optional" };
        let subject = Some(role.as_str().to_owned());
        trail::note(&mut *tx, doer, Act::RoleRuleChanged, subject, Some(detail)).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// A user who is about to be changed, their row locked.
struct Held {
    was_admin: bool,
}

impl Held {
    /// That somebody remains who can sign in and change everything, if it was they who could: by a
    /// password, since a provider may be away.
    async fn leaves_an_admin(&self, connection: &mut PgConnection) -> Result<(), UserError> {
        if !self.was_admin {
            return Ok(());
        }
        let remains: bool = sqlx::query_scalar(
            "select exists (select from users where role = 'admin' and disabled_at is null \
             and password_phc is not null)",
        )
        .fetch_one(connection)
        .await?;
        if remains { Ok(()) } else { Err(UserError::LastAdmin) }
    }
}

async fn changing(
    connection: &mut PgConnection,
    id: UserId,
    doer: &Doer,
) -> Result<Held, UserError> {
    lock_admins(connection, doer).await?;
    let held: Option<(bool, bool)> = sqlx::query_as(
        "select role = 'admin' and disabled_at is null and (password_phc is not null \
         or exists (select from user_identities where user_id = id)), \
         erased_at is not null from users where id = $1 for update",
    )
    .bind(id.0)
    .fetch_optional(connection)
    .await?;
    match held.ok_or(UserError::Unknown)? {
        (_, true) => Err(UserError::Erased),
        (was_admin, false) => Ok(Held { was_admin }),
    }
}

/// Waits for whoever else changes users, and sees that the one who asks may still.
pub(super) async fn lock_admins(
    connection: &mut PgConnection,
    doer: &Doer,
) -> Result<(), UserError> {
    sqlx::query("select from role_rules where role = 'admin' for update")
        .execute(&mut *connection)
        .await?;
    let Some(Actor::User(user)) = doer.actor else { return Ok(()) };
    let is_admin: bool = sqlx::query_scalar(
        "select exists (select from users where id = $1 and role = 'admin' \
         and disabled_at is null)",
    )
    .bind(user)
    .fetch_one(connection)
    .await?;
    if is_admin { Ok(()) } else { Err(UserError::NoAdmin) }
}

async fn set_disabled(
    connection: &mut PgConnection,
    id: UserId,
    disabled: bool,
    doer: &Doer,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update users set disabled_at = case when $2 then coalesce(disabled_at, now()) end \
         where id = $1",
    )
    .bind(id.0)
    .bind(disabled)
    .execute(&mut *connection)
    .await?;
    sessions::end_all(connection, id, None).await?;
    begun::end_of_user(connection, id).await?;
    let act = if disabled { Act::UserDisabled } else { Act::UserEnabled };
    trail::note(connection, doer, act, Some(id.to_string()), None).await
}

/// Puts a manager's sites in place of those before; whoever is none has none.
async fn put_sites(
    connection: &mut PgConnection,
    id: UserId,
    role: Role,
    sites: &[SiteId],
) -> Result<(), sqlx::Error> {
    sqlx::query("delete from user_sites where user_id = $1")
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    if !role.has_sites() {
        return Ok(());
    }
    let sites: Vec<Uuid> = sites.iter().map(|site| site.uuid()).collect();
    sqlx::query(
        "insert into user_sites (user_id, site) \
         select $1, site from unnest($2::uuid[]) as s (site) on conflict do nothing",
    )
    .bind(id.0)
    .bind(sites)
    .execute(connection)
    .await
    .map(drop)
}

fn taken(error: sqlx::Error, taken: UserError) -> UserError {
    let unique =
        error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
    if unique { taken } else { UserError::Database(error) }
}
