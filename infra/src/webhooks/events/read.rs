//! The events as they were told, for whoever fills gaps.

use punchtrail_protocol::{Position, SiteId};
use sqlx::{PgExecutor, Row, postgres::PgRow};
use uuid::Uuid;

use super::NAME;

/// Which events are asked for.
#[derive(Debug, Default)]
pub struct Asked {
    pub after: Position,
    pub limit: u32,
    /// Of these types; all unless given.
    pub types: Option<Vec<String>>,
    /// Of these sites; all, and what is of no site, unless given.
    pub sites: Option<Vec<SiteId>>,
}

/// An event that was told, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub id: String,
    pub position: Position,
    /// The very bytes.
    pub body: String,
}

/// The events after a position, in order.
///
/// # Errors
/// When the database is out of reach.
pub async fn after(executor: impl PgExecutor<'_>, asked: &Asked) -> Result<Vec<Told>, sqlx::Error> {
    let sites = |sites: &Vec<SiteId>| sites.iter().map(|site| site.uuid()).collect::<Vec<Uuid>>();
    sqlx::query(
        "select id, position, body from webhook_events where position > $1 \
         and ($2::text[] is null or type = any($2)) and ($3::uuid[] is null or sites && $3) \
         order by position limit $4",
    )
    .bind(asked.after.to_db())
    .bind(&asked.types)
    .bind(asked.sites.as_ref().map(sites))
    .bind(i64::from(asked.limit))
    .try_map(|row: PgRow| {
        Ok(Told {
            id: row.try_get("id")?,
            position: Position::from_db(row.try_get("position")?),
            body: row.try_get("body")?,
        })
    })
    .fetch_all(executor)
    .await
}

/// Up to where the ledger was told.
///
/// # Errors
/// When the database is out of reach.
pub async fn place(executor: impl PgExecutor<'_>) -> Result<Position, sqlx::Error> {
    let position: i64 = sqlx::query_scalar("select position from followers where name = $1")
        .bind(NAME)
        .fetch_one(executor)
        .await?;
    Ok(Position::from_db(position))
}
