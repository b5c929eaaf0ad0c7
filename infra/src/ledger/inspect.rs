//! What is asked about the ledger without reading its events: where it ends and since when, how far
//! it is judged, which hash stands at a position.

use crate::postgres::Pool;
use punchtrail_protocol::Position;

/// The head, and when the event there was recorded; no time before the first event.
///
/// # Errors
/// When the database is out of reach.
pub async fn dated_head(pool: &Pool) -> Result<(Position, Option<jiff::Timestamp>), sqlx::Error> {
    let (position, recorded_us): (i64, i64) = sqlx::query_as(
        "select position, (extract(epoch from recorded_at) * 1000000)::bigint from ledger_head",
    )
    .fetch_one(pool)
    .await?;
    let recorded_at = match position {
        0 => None,
        _ => Some(
            jiff::Timestamp::from_microsecond(recorded_us)
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        ),
    };
    Ok((Position::from_db(position), recorded_at))
}

/// How far the adjudicator has come.
///
/// # Errors
/// When the database is out of reach.
pub async fn judged_through(pool: &Pool) -> Result<Position, sqlx::Error> {
    let position: i64 =
        sqlx::query_scalar("select position from followers where name = 'adjudicator'")
            .fetch_one(pool)
            .await?;
    Ok(Position::from_db(position))
}

/// The leaf hash of the event at a position; none where no event stands.
///
/// # Errors
/// When the database is out of reach.
pub async fn leaf_hash(pool: &Pool, position: Position) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("select leaf_hash from events where position = $1")
        .bind(position.to_db())
        .fetch_optional(pool)
        .await
}
