//! Reading what is in quarantine: the items in the order they came, and the bytes of one as sent.

use jiff_sqlx::Timestamp;
use punchtrail_domain::{Digest, Position, Time};
use sqlx::{PgExecutor, Row, postgres::PgRow};

/// The bytes of an item as the device sent them, two texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawItem {
    /// The capture's text.
    pub capture: String,
    /// The signature's text.
    pub signature: String,
}

/// Where an item came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The item.
    pub item: Digest,
    /// Position of its first event.
    pub position: Position,
    /// When that was committed.
    pub recorded_at: Time,
}

/// At most `limit` items that came after a position, in the order they came; only those not yet settled
/// when `open`.
///
/// # Errors
/// When the database is out of reach.
pub async fn page(
    executor: impl PgExecutor<'_>,
    after: Position,
    open: bool,
    limit: i64,
) -> Result<Vec<Place>, sqlx::Error> {
    sqlx::query(
        "select aggregate_id, position, recorded_at from events q \
         where aggregate_type = 'quarantine' and sequence = 1 and position > $1 \
         and (not $2 or not exists (select from events s where s.aggregate_type = 'quarantine' \
         and s.aggregate_id = q.aggregate_id and s.sequence > 1)) order by position limit $3",
    )
    .bind(after.to_db())
    .bind(open)
    .bind(limit)
    .try_map(|row: PgRow| {
        let item: &str = row.try_get("aggregate_id")?;
        Ok(Place {
            item: item.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            position: Position::from_db(row.try_get("position")?),
            recorded_at: row.try_get::<Timestamp, _>("recorded_at")?.to_jiff().into(),
        })
    })
    .fetch_all(executor)
    .await
}

/// The bytes of an item; none when there is no such item.
///
/// # Errors
/// When the database is out of reach.
pub async fn raw(
    executor: impl PgExecutor<'_>,
    item: Digest,
) -> Result<Option<RawItem>, sqlx::Error> {
    sqlx::query("select capture, signature from quarantine_items where id = $1")
        .bind(item.0.as_slice())
        .try_map(|row: PgRow| {
            Ok(RawItem { capture: row.try_get("capture")?, signature: row.try_get("signature")? })
        })
        .fetch_optional(executor)
        .await
}
