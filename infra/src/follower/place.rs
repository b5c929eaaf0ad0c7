//! Where a follower stands that keeps nothing else: one row, moved when its step is done. What such
//! a one does must be harmless twice.

use punchtrail_protocol::Position;

use crate::postgres::Pool;

/// The followers that keep their place so, besides the adjudicator, which moves its own with what
/// it judges.
pub const KEPT: [&str; 3] = ["checks", "erasures", "webhooks"];

/// Where a follower stands.
///
/// # Errors
/// When the database is out of reach.
pub async fn of(pool: &Pool, name: &str) -> Result<Position, sqlx::Error> {
    let position: i64 = sqlx::query_scalar("select position from followers where name = $1")
        .bind(name)
        .fetch_one(pool)
        .await?;
    Ok(Position::from_db(position))
}

/// Moves it on. Whether it stood where it was thought to: another node may have moved it.
///
/// # Errors
/// When the database is out of reach.
pub async fn move_on(
    pool: &Pool,
    name: &str,
    from: Position,
    to: Position,
) -> Result<bool, sqlx::Error> {
    sqlx::query("update followers set position = $3 where name = $1 and position = $2")
        .bind(name)
        .bind(from.to_db())
        .bind(to.to_db())
        .execute(pool)
        .await
        .map(|done| done.rows_affected() == 1)
}
