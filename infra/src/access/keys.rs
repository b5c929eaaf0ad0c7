//! Operators' keys: for programs, and for people at a command line. One without scopes may do
//! everything; one with scopes what they name, at the sites it names, until it expires.

use std::collections::HashMap;

use jiff_sqlx::{Timestamp, ToSqlx as _};
use punchtrail_protocol::{Digest, EmployeeId, SiteId, Time};
use sqlx::{PgExecutor, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    CHANGE_MAX,
    credentials::{OPERATOR_KEY_PREFIX, Secret, plausible},
    trail::{self, Act, Doer},
    users::{self, UserError},
};
use crate::{
    ledger::begin_beside,
    postgres::{Pool, within},
};

/// An operator whose key was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorKey {
    /// The key's id, which events name.
    pub id: Uuid,
    /// The worker whose key it is, if one's: nobody rules on their own.
    pub employee: Option<EmployeeId>,
    /// What it may do; none for everything.
    pub scopes: Option<Vec<String>>,
    /// Where; none for everywhere.
    pub sites: Option<Vec<SiteId>>,
    /// From when on it opens nothing any more.
    pub expires_at: Option<Time>,
}

/// A key to be made.
#[derive(Debug, Clone, Default)]
pub struct NewKey<'a> {
    /// Whose it is, or what for.
    pub name: &'a str,
    pub employee: Option<EmployeeId>,
    pub scopes: Option<Vec<String>>,
    pub sites: Option<Vec<SiteId>>,
    pub expires_at: Option<Time>,
}

/// Makes a key that may do everything; `name` says whose or what for, `employee` which worker's it
/// is, if one's.
///
/// # Errors
/// When the database is out of reach.
pub async fn create_operator_key(
    writer: &Pool,
    name: &str,
    employee: Option<EmployeeId>,
) -> Result<(OperatorKey, Secret), sqlx::Error> {
    let new = NewKey { name, employee, ..NewKey::default() };
    match create(writer, new, &Doer::command_line()).await {
        Ok(made) => Ok(made),
        Err(UserError::Database(error)) => Err(error),
        Err(error) => Err(sqlx::Error::Encode(Box::new(error))),
    }
}

/// Makes a key.
///
/// # Errors
/// When whoever asks is no admin any more, or the database is out of reach.
pub async fn create(
    writer: &Pool,
    new: NewKey<'_>,
    doer: &Doer,
) -> Result<(OperatorKey, Secret), UserError> {
    let (id, secret) = (Uuid::now_v7(), Secret::operator_key());
    let NewKey { name, employee, scopes, sites, expires_at } = new;
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        users::lock_admins(&mut tx, doer).await?;
        sqlx::query(
            "insert into operator_keys (id, key_hash, name, employee, scopes, sites, expires_at) \
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id)
        .bind(secret.digest().0.as_slice())
        .bind(name)
        .bind(employee.map(EmployeeId::uuid))
        .bind(&scopes)
        .bind(sites.as_ref().map(|sites| sites.iter().map(|site| site.uuid()).collect::<Vec<_>>()))
        .bind(expires_at.map(|at| at.timestamp().to_sqlx()))
        .execute(&mut *tx)
        .await?;
        let detail = scopes.as_ref().map(|scopes| scopes.join(" "));
        let subject = Some(format!("key:{id}"));
        trail::note(&mut *tx, doer, Act::KeyMade, subject, detail.as_deref()).await?;
        tx.commit().await?;
        Ok::<_, UserError>(())
    })
    .await?;
    Ok((OperatorKey { id, employee, scopes, sites, expires_at }, secret))
}

/// The operator that a key belongs to; none when it is nobody's, was revoked or has expired.
///
/// # Errors
/// When the database is out of reach.
pub async fn operator_of_key(writer: &Pool, key: &str) -> Result<Option<OperatorKey>, sqlx::Error> {
    if !plausible(key, OPERATOR_KEY_PREFIX) {
        return Ok(None);
    }
    sqlx::query(
        "select id, employee, scopes, sites, expires_at from operator_keys where key_hash = $1 \
         and revoked_at is null and (expires_at is null or expires_at > now())",
    )
    .bind(Digest::of(key.as_bytes()).0.as_slice())
    .try_map(|row: PgRow| {
        Ok(OperatorKey {
            id: row.try_get("id")?,
            employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
            scopes: row.try_get("scopes")?,
            sites: sites(&row)?,
            expires_at: time(&row, "expires_at")?,
        })
    })
    .fetch_optional(writer)
    .await
}

fn sites(row: &PgRow) -> Result<Option<Vec<SiteId>>, sqlx::Error> {
    let sites: Option<Vec<Uuid>> = row.try_get("sites")?;
    Ok(sites.map(|sites| sites.into_iter().map(SiteId).collect()))
}

fn time(row: &PgRow, column: &str) -> Result<Option<Time>, sqlx::Error> {
    Ok(row.try_get::<Option<Timestamp>, _>(column)?.map(|at| at.to_jiff().into()))
}

/// A key as it is listed: never the key itself, which isn't kept.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListedKey {
    /// The key's id, which events name.
    pub id: Uuid,
    /// Whose it is, or what for.
    pub name: String,
    /// The worker whose key it is, if one's.
    pub employee: Option<EmployeeId>,
    /// What it may do; none for everything.
    pub scopes: Option<Vec<String>>,
    /// Where; none for everywhere.
    pub sites: Option<Vec<SiteId>>,
    pub created_at: Time,
    /// From when on it opens nothing.
    pub expires_at: Option<Time>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Time>,
}

/// Every operator's key, oldest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn operator_keys(writer: &Pool) -> Result<Vec<ListedKey>, sqlx::Error> {
    sqlx::query(
        "select id, name, employee, scopes, sites, created_at, expires_at, revoked_at \
         from operator_keys order by id",
    )
    .try_map(|row: PgRow| {
        Ok(ListedKey {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
            scopes: row.try_get("scopes")?,
            sites: sites(&row)?,
            created_at: row.try_get::<Timestamp, _>("created_at")?.to_jiff().into(),
            expires_at: time(&row, "expires_at")?,
            revoked_at: time(&row, "revoked_at")?,
        })
    })
    .fetch_all(writer)
    .await
}

/// The names of these operators: what their keys are called, revoked ones, too, and the names of
/// users who weren't erased.
///
/// # Errors
/// When the database is out of reach.
pub async fn operator_names(
    executor: impl PgExecutor<'_>,
    operators: &[Uuid],
) -> Result<HashMap<Uuid, String>, sqlx::Error> {
    if operators.is_empty() {
        return Ok(HashMap::new());
    }
    let names: Vec<(Uuid, String)> = sqlx::query_as(
        "select id, name from operator_keys where id = any($1) \
         union all select id, name from users where id = any($1) and name is not null",
    )
    .bind(operators)
    .fetch_all(executor)
    .await?;
    Ok(names.into_iter().collect())
}

/// Ends a key's access, and gives when that was; none when there is no such key.
///
/// # Errors
/// When the database is out of reach.
pub async fn revoke_operator_key(
    writer: &Pool,
    id: Uuid,
    doer: &Doer,
) -> Result<Option<Time>, sqlx::Error> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        let revoked_at: Option<Timestamp> = sqlx::query_scalar(
            "update operator_keys set revoked_at = coalesce(revoked_at, now()) where id = $1 \
             returning revoked_at",
        )
        .bind(id)
        .fetch_optional(&mut *tx)
        .await?;
        if revoked_at.is_some() {
            let subject = Some(format!("key:{id}"));
            trail::note(&mut *tx, doer, Act::KeyRevoked, subject, None).await?;
        }
        tx.commit().await?;
        Ok(revoked_at.map(|at| at.to_jiff().into()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn a_key_opens_until_it_is_revoked_and_is_not_kept() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let (key, secret) = create_operator_key(&pools.writer, "payroll", None).await.unwrap();
        let found = operator_of_key(&pools.writer, secret.reveal()).await.unwrap();
        assert_eq!(found.as_ref(), Some(&key));
        let wrong = Secret::operator_key();
        assert_eq!(operator_of_key(&pools.writer, wrong.reveal()).await.unwrap(), None);
        let kept: Vec<u8> = sqlx::query_scalar("select key_hash from operator_keys")
            .fetch_one(&pools.writer)
            .await
            .unwrap();
        assert_eq!(kept, Digest::of(secret.reveal().as_bytes()).0);
        let doer = Doer::command_line();
        let revoked = revoke_operator_key(&pools.writer, key.id, &doer).await.unwrap();
        assert!(revoked.is_some());
        let again = revoke_operator_key(&pools.writer, key.id, &doer).await.unwrap();
        assert_eq!(again, revoked, "the first time stands");
        assert_eq!(operator_of_key(&pools.writer, secret.reveal()).await.unwrap(), None);
        pools.close().await;
        database.close().await;
    }
}
