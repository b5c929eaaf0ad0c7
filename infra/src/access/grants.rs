//! Leave for an auditor to see workers' names and photos: an admin gives it, for a reason, until a
//! time.

use jiff_sqlx::{Timestamp, ToSqlx as _};
use punchtrail_domain::log::recorded::Actor;
use punchtrail_protocol::Time;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    CHANGE_MAX,
    ids::{GrantId, UserId},
    roles::Role,
    trail::{self, Act, Doer},
    users::{self, UserError},
};
use crate::{
    ledger::begin_beside,
    postgres::{Pool, within},
};

/// The longest that leave is given for, in seconds.
pub const GRANT_LIFE_S_MAX: u32 = 31 * 24 * 60 * 60;
/// The longest reason, in characters.
pub const REASON_CHARS_MAX: usize = 500;
/// How many are told of at once.
pub const GRANTS_TOLD_MAX: u32 = 1_000;

/// Leave that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub id: GrantId,
    pub user: UserId,
    pub reason: String,
    /// Who gave it, as events name an actor.
    pub granted_by: String,
    pub created_at: Time,
    pub expires_at: Time,
    /// When it was taken back, if it was.
    pub ended_at: Option<Time>,
}

/// Why leave was not given.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// Only auditors need one.
    #[error("only an auditor needs leave to see names and photos; nothing was changed")]
    NoAuditor,
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<sqlx::Error> for GrantError {
    fn from(error: sqlx::Error) -> Self {
        Self::User(error.into())
    }
}

/// Gives an auditor leave until then.
///
/// # Errors
/// See [`GrantError`].
pub async fn give(
    writer: &Pool,
    user: UserId,
    (reason, until): (&str, Time),
    doer: &Doer,
) -> Result<GrantId, GrantError> {
    let id = GrantId::new();
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        users::lock_admins(&mut tx, doer).await?;
        if doer.actor == Some(Actor::User(user.0)) {
            return Err(UserError::Own.into());
        }
        let role: Option<String> =
            sqlx::query_scalar("select role from users where id = $1 and erased_at is null")
                .bind(user.0)
                .fetch_optional(&mut *tx)
                .await?;
        let role = role.ok_or(UserError::Unknown)?;
        if role != Role::Auditor.as_str() {
            return Err(GrantError::NoAuditor);
        }
        sqlx::query(
            "insert into name_grants (id, user_id, reason, granted_by, expires_at) \
             values ($1, $2, $3, $4, $5)",
        )
        .bind(id.0)
        .bind(user.0)
        .bind(reason)
        .bind(doer.actor.as_ref().map(ToString::to_string).unwrap_or_default())
        .bind(until.timestamp().to_sqlx())
        .execute(&mut *tx)
        .await?;
        let (subject, grant) = (Some(user.to_string()), id.to_string());
        trail::note(&mut *tx, doer, Act::GrantMade, subject, Some(&grant)).await?;
        tx.commit().await?;
        Ok(id)
    })
    .await
}

/// Takes leave back: whether there was any.
///
/// # Errors
/// When the database is out of reach.
pub async fn end(writer: &Pool, id: GrantId, doer: &Doer) -> Result<bool, sqlx::Error> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        let ended: Option<Uuid> = sqlx::query_scalar(
            "update name_grants set ended_at = coalesce(ended_at, now()) where id = $1 \
             returning user_id",
        )
        .bind(id.0)
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(user) = ended {
            let (subject, grant) = (Some(UserId(user).to_string()), id.to_string());
            trail::note(&mut *tx, doer, Act::GrantEnded, subject, Some(&grant)).await?;
        }
        tx.commit().await?;
        Ok(ended.is_some())
    })
    .await
}

/// The leave that was given, the newest first; at most [`GRANTS_TOLD_MAX`].
///
/// # Errors
/// When the database is out of reach.
pub async fn list(writer: &Pool) -> Result<Vec<Grant>, sqlx::Error> {
    sqlx::query("select * from name_grants order by id desc limit $1")
        .bind(i64::from(GRANTS_TOLD_MAX))
        .try_map(|row: PgRow| {
            let time = |at: Timestamp| Time::from(at.to_jiff());
            Ok(Grant {
                id: GrantId(row.try_get("id")?),
                user: UserId(row.try_get("user_id")?),
                reason: row.try_get("reason")?,
                granted_by: row.try_get("granted_by")?,
                created_at: time(row.try_get("created_at")?),
                expires_at: time(row.try_get("expires_at")?),
                ended_at: row.try_get::<Option<Timestamp>, _>("ended_at")?.map(time),
            })
        })
        .fetch_all(writer)
        .await
}
