//! Who is signed in. A session is a random token in a cookie, kept as its digest, in the database
//! that all nodes share: ended here, it is ended everywhere with the next request.

use jiff_sqlx::Timestamp;
use punchtrail_protocol::{EmployeeId, SiteId, Time};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    CHANGE_MAX,
    credentials::{SESSION_TOKEN_PREFIX, Secret, plausible},
    ids::{SessionId, UserId},
    roles::Role,
    trail::{self, Act, Doer},
};
use crate::{
    ledger::begin_beside,
    postgres::{Pool, within},
};

/// How long a session lasts at most, in seconds.
pub const SESSION_LIFE_S: u32 = 12 * 60 * 60;
/// And without a request.
pub const SESSION_IDLE_S: u32 = 2 * 60 * 60;
/// Sessions of one user; one more ends the oldest.
pub const SESSIONS_MAX: u32 = 20;
/// How long a browser is known, in seconds.
pub const BROWSER_KNOWN_S: u32 = 180 * 24 * 60 * 60;
/// Browsers of one user that are known.
const BROWSERS_MAX: u32 = 20;
/// A session's time is noted so often at most, in seconds.
const SEEN_EVERY_S: u32 = 60;

/// Who is signed in by a session that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    pub session: SessionId,
    pub user: UserId,
    pub role: Role,
    /// A manager's.
    pub sites: Vec<SiteId>,
    /// The worker who they are: nobody rules on their own.
    pub employee: Option<EmployeeId>,
    /// Whether their role needs a second factor that they haven't set: then they may set it, and
    /// nothing else.
    pub lacks_factor: bool,
    /// Whether they have leave to see names and photos now.
    pub is_granted_names: bool,
}

/// Who is signed in by that token; none when it is nobody's, ended or over. One statement.
///
/// # Errors
/// When the database is out of reach.
pub async fn signed_in(writer: &Pool, token: &str) -> Result<Option<SignedIn>, sqlx::Error> {
    if !plausible(token, SESSION_TOKEN_PREFIX) {
        return Ok(None);
    }
    let found = sqlx::query(
        "select s.id as session, u.id, u.role, u.employee, \
             r.totp_required and u.totp_secret is null and not s.is_multi_factor as lacks_factor, \
             array(select site from user_sites at where at.user_id = u.id order by site) as sites, \
             exists (select from name_grants g where g.user_id = u.id and g.expires_at > now() \
                 and g.ended_at is null) as granted, \
             s.seen_at < now() - make_interval(secs => $4) as stale \
         from sessions s join users u on u.id = s.user_id join role_rules r on r.role = u.role \
         where s.token_hash = $1 and u.disabled_at is null \
             and s.created_at > now() - make_interval(secs => $2) \
             and s.seen_at > now() - make_interval(secs => $3)",
    )
    .bind(Secret::digest_of(token).0.as_slice())
    .bind(f64::from(SESSION_LIFE_S))
    .bind(f64::from(SESSION_IDLE_S))
    .bind(f64::from(SEEN_EVERY_S))
    .try_map(|row: PgRow| Ok((read(&row)?, row.try_get::<bool, _>("stale")?)))
    .fetch_optional(writer)
    .await?;
    let Some((signed_in, stale)) = found else { return Ok(None) };
    if stale {
        sqlx::query("update sessions set seen_at = now() where id = $1")
            .bind(signed_in.session.0)
            .execute(writer)
            .await?;
    }
    Ok(Some(signed_in))
}

fn read(row: &PgRow) -> Result<SignedIn, sqlx::Error> {
    let sites: Vec<Uuid> = row.try_get("sites")?;
    Ok(SignedIn {
        session: SessionId(row.try_get("session")?),
        user: UserId(row.try_get("id")?),
        role: Role::of(row.try_get("role")?)?,
        sites: sites.into_iter().map(SiteId).collect(),
        employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
        lacks_factor: row.try_get("lacks_factor")?,
        is_granted_names: row.try_get("granted")?,
    })
}

/// Begins a session, with a token that nobody knew before.
pub(super) async fn begin(
    connection: &mut PgConnection,
    user: UserId,
    agent: Option<&str>,
    doer: &Doer,
) -> Result<(SessionId, Secret), sqlx::Error> {
    let (id, token) = (SessionId::new(), Secret::session_token());
    sqlx::query(
        "delete from sessions where id in (select id from sessions where user_id = $1 \
         order by created_at desc, id desc offset $2)",
    )
    .bind(user.0)
    .bind(i64::from(SESSIONS_MAX) - 1)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into sessions (id, token_hash, user_id, address, agent) \
         values ($1, $2, $3, $4, $5)",
    )
    .bind(id.0)
    .bind(token.digest().0.as_slice())
    .bind(user.0)
    .bind(doer.address.map(|address| address.to_string()))
    .bind(agent)
    .execute(connection)
    .await?;
    Ok((id, token))
}

/// Notes of a session that more than one factor was shown to whoever vouched for its begin.
pub(super) async fn saw_factors(
    connection: &mut PgConnection,
    session: SessionId,
) -> Result<(), sqlx::Error> {
    sqlx::query("update sessions set is_multi_factor = true where id = $1")
        .bind(session.0)
        .execute(connection)
        .await
        .map(drop)
}

/// Whether a session was begun within so many seconds.
///
/// # Errors
/// When the database is out of reach.
pub async fn is_younger(
    writer: &Pool,
    session: SessionId,
    seconds: u32,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from sessions where id = $1 \
         and created_at > now() - make_interval(secs => $2))",
    )
    .bind(session.0)
    .bind(f64::from(seconds))
    .fetch_one(writer)
    .await
}

/// Ends a user's sessions, but for that one if any: how many.
pub(super) async fn end_all(
    connection: &mut PgConnection,
    user: UserId,
    but: Option<SessionId>,
) -> Result<u64, sqlx::Error> {
    let ended = sqlx::query("delete from sessions where user_id = $1 and id is distinct from $2")
        .bind(user.0)
        .bind(but.map(|session| session.0))
        .execute(connection)
        .await?;
    Ok(ended.rows_affected())
}

/// Forgets the browsers from which a user has signed in.
pub(super) async fn forget_browsers(
    connection: &mut PgConnection,
    user: UserId,
) -> Result<(), sqlx::Error> {
    sqlx::query("delete from known_browsers where user_id = $1")
        .bind(user.0)
        .execute(connection)
        .await
        .map(drop)
}

/// Knows a browser of a user from now on: its token, a new one.
pub(super) async fn know_browser(
    connection: &mut PgConnection,
    user: UserId,
    last: Option<&str>,
) -> Result<Secret, sqlx::Error> {
    let token = Secret::browser_token();
    sqlx::query(
        "delete from known_browsers where token_hash = $2 or token_hash in (select token_hash \
         from known_browsers where user_id = $1 order by seen_at desc offset $3)",
    )
    .bind(user.0)
    .bind(last.map(|last| Secret::digest_of(last).0.to_vec()))
    .bind(i64::from(BROWSERS_MAX) - 1)
    .execute(&mut *connection)
    .await?;
    sqlx::query("insert into known_browsers (token_hash, user_id) values ($1, $2)")
        .bind(token.digest().0.as_slice())
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(token)
}

/// A session as it is listed: never its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub session: SessionId,
    pub created_at: Time,
    /// To the minute.
    pub seen_at: Time,
    pub address: Option<String>,
    /// What the browser says of itself.
    pub agent: Option<String>,
}

/// A user's sessions, the newest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_user(writer: &Pool, user: UserId) -> Result<Vec<Listed>, sqlx::Error> {
    sqlx::query(
        "select id, created_at, seen_at, address, agent from sessions where user_id = $1 \
         and created_at > now() - make_interval(secs => $2) \
         and seen_at > now() - make_interval(secs => $3) order by created_at desc, id desc",
    )
    .bind(user.0)
    .bind(f64::from(SESSION_LIFE_S))
    .bind(f64::from(SESSION_IDLE_S))
    .try_map(|row: PgRow| {
        let time = |at: Timestamp| Time::from(at.to_jiff());
        Ok(Listed {
            session: SessionId(row.try_get("id")?),
            created_at: time(row.try_get("created_at")?),
            seen_at: time(row.try_get("seen_at")?),
            address: row.try_get("address")?,
            agent: row.try_get("agent")?,
        })
    })
    .fetch_all(writer)
    .await
}

/// Ends one session of a user, or all of them: how many.
///
/// # Errors
/// When the database is out of reach.
pub async fn end(
    writer: &Pool,
    user: UserId,
    session: Option<SessionId>,
    (act, doer): (Act, &Doer),
) -> Result<u64, sqlx::Error> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        let ended = sqlx::query(
            "delete from sessions where user_id = $1 and ($2::uuid is null or id = $2)",
        )
        .bind(user.0)
        .bind(session.map(|session| session.0))
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if ended > 0 {
            let which = session.map(|session| session.to_string());
            trail::note(&mut *tx, doer, act, Some(user.to_string()), which.as_deref()).await?;
        }
        tx.commit().await?;
        Ok(ended)
    })
    .await
}

/// Forgets sessions, links and browsers whose time is over.
///
/// # Errors
/// When the database is out of reach.
pub async fn forget_over(writer: &Pool) -> Result<(), sqlx::Error> {
    let statements = [
        ("delete from sessions where seen_at < now() - make_interval(secs => $1)", SESSION_IDLE_S),
        (
            "delete from sessions where created_at < now() - make_interval(secs => $1)",
            SESSION_LIFE_S,
        ),
        ("delete from provider_sign_ins where expires_at < now() - make_interval(secs => $1)", 0),
        ("delete from user_links where expires_at < now() - make_interval(secs => $1)", 0),
        (
            "delete from known_browsers where seen_at < now() - make_interval(secs => $1)",
            BROWSER_KNOWN_S,
        ),
    ];
    for (statement, seconds) in statements {
        sqlx::query(statement).bind(f64::from(seconds)).execute(writer).await?;
    }
    Ok(())
}
