//! PIN guesses, so that they can be counted across processes and restarts.

use punchtrail_protocol::EmployeeId;

use super::{Db, StoreError, from_stored, to_stored};
use crate::clock::Moment;

/// Guesses within the window that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recent {
    pub of_person: u64,
    pub of_device: u64,
}

/// Counts guesses of the last `window_ms` milliseconds, forgetting earlier ones. Uptime measures,
/// since the wall clock can be set. Guesses of another boot count as made now, when they are first
/// seen in this one: how long ago they were nobody can say, and a boot is easily claimed
/// (`--boot`). To be committed whatever follows, or they would be seen first again and again.
///
/// # Errors
/// When the store refuses.
pub async fn recent(
    db: Db<'_>,
    employee: EmployeeId,
    now: &Moment,
    window_ms: u64,
) -> Result<Recent, StoreError> {
    sqlx::query(
        "UPDATE pin_guess SET boot = ?1, uptime_ms = ?2 WHERE boot <> ?1 OR uptime_ms > ?2",
    )
    .bind(now.boot.to_string())
    .bind(to_stored(now.uptime_ms))
    .execute(&mut *db)
    .await?;
    sqlx::query("DELETE FROM pin_guess WHERE uptime_ms <= ? - ?")
        .bind(to_stored(now.uptime_ms))
        .bind(to_stored(window_ms))
        .execute(&mut *db)
        .await?;
    let (of_device, of_person): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(CASE WHEN employee = ? THEN 1 END) FROM pin_guess")
            .bind(employee.to_string())
            .fetch_one(db)
            .await?;
    Ok(Recent { of_person: from_stored(of_person), of_device: from_stored(of_device) })
}

/// Writes down a guess before it is looked at.
///
/// # Errors
/// When the store refuses.
pub async fn add(db: Db<'_>, employee: EmployeeId, now: &Moment) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO pin_guess (employee, boot, uptime_ms) VALUES (?, ?, ?)")
        .bind(employee.to_string())
        .bind(now.boot.to_string())
        .bind(to_stored(now.uptime_ms))
        .execute(db)
        .await?;
    Ok(())
}

/// The PIN was right: that person's guesses are forgotten.
///
/// # Errors
/// When the store refuses.
pub async fn clear(db: Db<'_>, employee: EmployeeId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM pin_guess WHERE employee = ?")
        .bind(employee.to_string())
        .execute(db)
        .await?;
    Ok(())
}
