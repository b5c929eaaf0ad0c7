//! What is asked about the ledger without reading its events: where it ends and since when, how far
//! it is judged, which hash stands at a position.

use punchtrail_domain::epoch::Anchor;
use punchtrail_protocol::{Digest, Position};
use sqlx::{PgExecutor, Row};

use super::{epochs, judging::ADJUDICATOR};
use crate::postgres::Pool;

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

/// Where the adjudicator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JudgedThrough {
    /// As it is kept, with the hash that was noted or, where none was, that stands there.
    pub anchor: Anchor,
    /// Whether the ledger has that event.
    pub stands: bool,
}

impl JudgedThrough {
    /// Where it stands, if the ledger has that event.
    pub fn standing(self) -> Option<Anchor> {
        self.stands.then_some(self.anchor)
    }
}

/// How far the adjudicator has come.
///
/// # Errors
/// When the database is out of reach.
pub async fn judged_through(executor: impl PgExecutor<'_>) -> Result<JudgedThrough, sqlx::Error> {
    Ok(judged(executor, Position::START).await?.0)
}

/// The same, and the hash that stands at a position.
pub(super) async fn judged(
    executor: impl PgExecutor<'_>,
    at: Position,
) -> Result<(JudgedThrough, Option<Digest>), sqlx::Error> {
    let row = sqlx::query(
        "select position, leaf_hash, (select leaf_hash from events event \
         where event.position = follower.position) as stored, \
         (select leaf_hash from events where position = $2) as there from followers follower \
         where name = $1",
    )
    .bind(ADJUDICATOR)
    .bind(at.to_db())
    .fetch_one(executor)
    .await?;
    let there = epochs::digest(&row, "there")?;
    let position = Position::from_db(row.try_get("position")?);
    let stored = epochs::digest(&row, "stored")?;
    let noted = epochs::digest(&row, "leaf_hash")?.or(stored);
    Ok(match position {
        Position::START => (JudgedThrough { anchor: Anchor::START, stands: true }, there),
        _ => {
            let anchor = Anchor { position, leaf_hash: noted.unwrap_or_default() };
            (JudgedThrough { anchor, stands: stored.is_some() && stored == noted }, there)
        }
    })
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
