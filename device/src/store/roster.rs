//! The manifest as it is held: who works at the current site.

use std::collections::BTreeSet;

use punchtrail_protocol::{
    EmployeeId, SiteId,
    spelling::normal,
    wire::{DevicePolicy, ManifestRow},
};
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{Db, StoreError, from_stored, identity::IdentityId};

/// Rows in one insert: six values each, well below SQLite's limit of 32,766 a statement.
const INSERT_ROWS_MAX: usize = 500;

/// A person whose badge was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub employee: EmployeeId,
    pub name: String,
    /// The PIN's Argon2id hash, in PHC string format, if there is one.
    pub pin_phc: Option<String>,
    /// Whether photos are taken of this person.
    pub face: bool,
}

/// The one person with this badge, however it is spelled. None when nobody has it, and when several
/// do, as when it changes hands soon: then the punch goes with the badge as read, and the server
/// knows whose it was then.
///
/// # Errors
/// When the store refuses.
pub async fn by_badge(
    db: Db<'_>,
    identity: IdentityId,
    badge: &str,
) -> Result<Option<Person>, StoreError> {
    let rows = sqlx::query(
        "SELECT employee, name, pin_phc, face FROM manifest_badge
         JOIN manifest USING (identity, employee) WHERE identity = ? AND badge = ? LIMIT 2",
    )
    .bind(identity)
    .bind(normal(badge))
    .fetch_all(db)
    .await?;
    let [row] = rows.as_slice() else { return Ok(None) };
    Ok(Some(Person {
        employee: row.try_get::<String, _>("employee")?.parse().map_err(StoreError::unreadable)?,
        name: row.try_get("name")?,
        pin_phc: row.try_get("pin_phc")?,
        face: row.try_get("face")?,
    }))
}

/// Everybody on the manifest who has this badge or is called so.
///
/// # Errors
/// When the store refuses.
pub async fn called(
    db: Db<'_>,
    identity: IdentityId,
    word: &str,
) -> Result<Vec<(EmployeeId, String)>, StoreError> {
    let rows = sqlx::query(
        "SELECT DISTINCT employee, name FROM manifest
         LEFT JOIN manifest_badge USING (identity, employee)
         WHERE identity = ?1 AND (badge = ?2 OR name = ?2) ORDER BY employee",
    )
    .bind(identity)
    .bind(normal(word.trim()))
    .fetch_all(db)
    .await?;
    let one = |row: sqlx::sqlite::SqliteRow| -> Result<_, StoreError> {
        let employee = row.try_get::<String, _>("employee")?;
        Ok((employee.parse().map_err(StoreError::unreadable)?, row.try_get("name")?))
    };
    rows.into_iter().map(one).collect()
}

/// The person of this id, if the manifest has them.
///
/// # Errors
/// When the store refuses.
pub async fn by_id(
    db: Db<'_>,
    identity: IdentityId,
    employee: EmployeeId,
) -> Result<Option<Person>, StoreError> {
    let row =
        sqlx::query("SELECT name, pin_phc, face FROM manifest WHERE identity = ? AND employee = ?")
            .bind(identity)
            .bind(employee.to_string())
            .fetch_optional(db)
            .await?;
    row.map(|row| {
        let (name, pin_phc) = (row.try_get("name")?, row.try_get("pin_phc")?);
        Ok(Person { employee, name, pin_phc, face: row.try_get("face")? })
    })
    .transpose()
}

/// Takes a finished walk of `site`: these people, this policy, this version; whoever is absent is
/// forgotten, another site's people, too.
///
/// # Errors
/// When the store refuses; then the earlier manifest stands.
pub async fn replace(
    db: Db<'_>,
    (identity, site): (IdentityId, SiteId),
    rows: &[ManifestRow],
    policy: &DevicePolicy,
    roster: &str,
) -> Result<(), StoreError> {
    for table in ["manifest", "manifest_badge"] {
        let all = format!("DELETE FROM {table} WHERE identity = ?");
        sqlx::query(&all).bind(identity).execute(&mut *db).await?;
    }
    for chunk in rows.chunks(INSERT_ROWS_MAX) {
        let mut insert: QueryBuilder<'_, Sqlite> = QueryBuilder::new(
            "INSERT OR REPLACE INTO manifest (identity, employee, name, pin_phc, face, last_kind) ",
        );
        insert.push_values(chunk, |mut values, row| {
            values
                .push_bind(identity)
                .push_bind(row.employee.to_string())
                .push_bind(&row.name)
                .push_bind(row.pin.as_ref().map(|pin| pin.phc.as_str()))
                .push_bind(row.face)
                .push_bind(row.last_kind.map(|kind| kind.as_str()));
        });
        insert.build().execute(&mut *db).await?;
    }
    let badges: Vec<_> = rows.iter().flat_map(badges_of).collect();
    for chunk in badges.chunks(INSERT_ROWS_MAX) {
        let mut insert: QueryBuilder<'_, Sqlite> =
            QueryBuilder::new("INSERT OR IGNORE INTO manifest_badge (identity, badge, employee) ");
        insert.push_values(chunk, |mut values, (badge, employee)| {
            values.push_bind(identity).push_bind(badge).push_bind(employee.to_string());
        });
        insert.build().execute(&mut *db).await?;
    }
    let policy = serde_json::to_string(policy).map_err(StoreError::unreadable)?;
    sqlx::query("UPDATE contact SET policy = ?, roster = ?, roster_site = ? WHERE identity = ?")
        .bind(policy)
        .bind(roster)
        .bind(site.to_string())
        .bind(identity)
        .execute(db)
        .await?;
    Ok(())
}

/// A person's badges, as they are kept; a server that knows of one only tells that.
fn badges_of(row: &ManifestRow) -> Vec<(String, EmployeeId)> {
    let badges = row.badges.iter().chain(&row.badge).map(|badge| normal(badge));
    badges.collect::<BTreeSet<_>>().into_iter().map(|badge| (badge, row.employee)).collect()
}

/// Everybody on the manifest.
///
/// # Errors
/// When the store refuses.
pub async fn employees(db: Db<'_>, identity: IdentityId) -> Result<Vec<EmployeeId>, StoreError> {
    let ids: Vec<String> = sqlx::query_scalar("SELECT employee FROM manifest WHERE identity = ?")
        .bind(identity)
        .fetch_all(db)
        .await?;
    ids.iter().map(|id| id.parse().map_err(StoreError::unreadable)).collect()
}

/// How many people the manifest has.
///
/// # Errors
/// When the store refuses.
pub async fn count(db: Db<'_>, identity: IdentityId) -> Result<u64, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM manifest WHERE identity = ?")
        .bind(identity)
        .fetch_one(db)
        .await?;
    Ok(from_stored(count))
}
