//! The outbox of disputes: what workers dispute here, from the commit that kept it to the day it
//! may be forgotten. None is ever dropped because the server doesn't take it now.

use punchtrail_protocol::{
    DisputeId, EmployeeId, PunchId, SiteId, Time,
    dispute::Day,
    wire::{DisputeAnswer, DisputeRequest, ItemStatus},
};
use serde::Serialize;
use sqlx::{Row, sqlite::SqliteRow};

use super::{
    Db, StoreError, from_stored,
    identity::IdentityId,
    outbox::{AckedAt, Doubtful},
    passed::Until,
    to_stored,
};

/// How many that are not taken are told of, the newest.
const UNTAKEN_TOLD_MAX: u32 = 20;
/// How many of a person's are shown, the newest.
const SHOWN_MAX: u32 = 50;

/// Which dispute of this folder, in their order.
pub type RowId = i64;

/// A dispute that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDispute {
    pub id: RowId,
    /// Where it was made, and goes.
    pub site: SiteId,
    pub request: DisputeRequest,
}

/// How many disputes wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DisputeBacklog {
    pub waiting: u64,
    /// Of those, the ones that the server did not take when it was asked.
    pub refused: u64,
    /// Disputes that the server will never take: another one stands under their id.
    pub failed: u64,
}

/// A dispute as this device holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldDispute {
    pub dispute: DisputeId,
    pub employee: EmployeeId,
    pub punch: Option<PunchId>,
    pub day: Option<Day>,
    pub cause: String,
    /// When it was opened, by this device's clock.
    pub made_at: Time,
    /// `waiting`, `taken` or `failed`.
    pub state: &'static str,
    /// Why the server didn't take it, if it was asked.
    pub code: Option<String>,
    pub detail: Option<String>,
}

/// Keeps a dispute, waiting.
///
/// # Errors
/// When the store refuses.
pub async fn add(
    db: Db<'_>,
    (identity, site): (IdentityId, SiteId),
    request: &DisputeRequest,
    made_at: Time,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO dispute (identity, site, dispute, employee, punch, day, cause, text,
             made_at_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(identity)
    .bind(site.to_string())
    .bind(request.dispute.to_string())
    .bind(request.employee.to_string())
    .bind(request.punch.map(|punch| punch.to_string()))
    .bind(request.day.map(|day| day.to_string()))
    .bind(request.cause.as_str())
    .bind(&request.text)
    .bind(made_at.millis())
    .execute(db)
    .await?;
    Ok(())
}

/// How many of `identity`'s wait.
///
/// # Errors
/// When the store refuses.
pub async fn backlog(db: Db<'_>, identity: IdentityId) -> Result<DisputeBacklog, StoreError> {
    let row = sqlx::query(
        "SELECT count(CASE WHEN status IS NULL THEN 1 END) AS waiting,
             count(CASE WHEN status IS NULL AND tries > 0 THEN 1 END) AS refused,
             count(CASE WHEN status = 'failed' THEN 1 END) AS failed
         FROM dispute WHERE identity = ?",
    )
    .bind(identity)
    .fetch_one(db)
    .await?;
    Ok(DisputeBacklog {
        waiting: from_stored(row.try_get("waiting")?),
        refused: from_stored(row.try_get("refused")?),
        failed: from_stored(row.try_get("failed")?),
    })
}

/// How many of a person's wait here, and how many of everybody's.
///
/// # Errors
/// When the store refuses.
pub async fn waiting_of(db: Db<'_>, employee: EmployeeId) -> Result<(u64, u64), StoreError> {
    let (of_person, of_all): (i64, i64) = sqlx::query_as(
        "SELECT count(CASE WHEN employee = ? THEN 1 END), count(*) FROM dispute
         WHERE status IS NULL",
    )
    .bind(employee.to_string())
    .fetch_one(db)
    .await?;
    Ok((from_stored(of_person), from_stored(of_all)))
}

/// The next dispute to send: the one that was not taken least often, the oldest of those.
///
/// # Errors
/// When the store refuses.
pub async fn next(db: Db<'_>, identity: IdentityId) -> Result<Option<WaitingDispute>, StoreError> {
    let row = sqlx::query(
        "SELECT id, site, dispute, employee, punch, day, cause, text FROM dispute
         WHERE identity = ? AND status IS NULL ORDER BY tries, id LIMIT 1",
    )
    .bind(identity)
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let request = DisputeRequest {
            dispute: read(&row, "dispute")?,
            employee: read(&row, "employee")?,
            punch: read_or_none(&row, "punch")?,
            day: read_or_none(&row, "day")?,
            cause: read(&row, "cause")?,
            text: row.try_get("text")?,
        };
        Ok(WaitingDispute { id: row.try_get("id")?, site: read(&row, "site")?, request })
    })
    .transpose()
}

fn read<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &SqliteRow,
    column: &str,
) -> Result<T, StoreError> {
    row.try_get::<String, _>(column)?.parse().map_err(StoreError::unreadable)
}

fn read_or_none<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &SqliteRow,
    column: &str,
) -> Result<Option<T>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(StoreError::unreadable)).transpose()
}

/// The server has it.
///
/// # Errors
/// When the store refuses.
pub async fn taken(db: Db<'_>, id: RowId, answer: DisputeAnswer) -> Result<(), StoreError> {
    let status = if answer.status == ItemStatus::Applied { "applied" } else { "duplicate" };
    sqlx::query(
        "UPDATE dispute SET status = ?, position = ?, code = NULL, error_text = NULL
         WHERE id = ?",
    )
    .bind(status)
    .bind(to_stored(answer.position.0))
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// The server will never take it; it stays for people to see.
///
/// # Errors
/// When the store refuses.
pub async fn failed(db: Db<'_>, id: RowId, code: &str, why: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE dispute SET status = 'failed', code = ?, error_text = ? WHERE id = ?")
        .bind(code)
        .bind(why)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// It wasn't taken this time; it keeps waiting, behind the others.
///
/// # Errors
/// When the store refuses.
pub async fn put_off(db: Db<'_>, id: RowId, code: &str, why: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE dispute SET tries = tries + 1, code = ?, error_text = ? WHERE id = ?")
        .bind(code)
        .bind(why)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// The first answer with a time after these were answered: they count as acknowledged then. What
/// was so by a server's clock that was ahead counts anew from now.
///
/// # Errors
/// When the store refuses.
pub async fn acknowledge(db: Db<'_>, identity: IdentityId, at: AckedAt) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE dispute SET acked_ms = ?2, acked_passed_ms = ?3
         WHERE identity = ?1 AND status IS NOT NULL AND (acked_ms IS NULL OR acked_ms > ?2)",
    )
    .bind(identity)
    .bind(at.server.millis())
    .bind(to_stored(at.passed_ms))
    .execute(db)
    .await?;
    Ok(())
}

/// The server's database went back: disputes that were opened beyond where the histories parted
/// wait again, and those that failed; all of them where nobody says at which position that was.
///
/// # Errors
/// When the store refuses.
pub async fn wait_again(
    db: Db<'_>,
    identity: IdentityId,
    doubtful: Doubtful,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE dispute SET status = NULL, position = NULL, code = NULL, error_text = NULL,
             tries = 0, acked_ms = NULL
         WHERE identity = ?1 AND status IS NOT NULL AND coalesce(position > ?2, TRUE)",
    )
    .bind(identity)
    .bind(doubtful.parted())
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets disputes that were answered before `until`.
///
/// # Errors
/// When the store refuses.
pub async fn forget(db: Db<'_>, identity: IdentityId, until: Until) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM dispute WHERE identity = ? AND status IS NOT NULL
             AND acked_ms <= ? AND acked_passed_ms <= ?",
    )
    .bind(identity)
    .bind(until.server.millis())
    .bind(until.passed_ms)
    .execute(db)
    .await?;
    Ok(())
}

const HELD: &str =
    "SELECT dispute, employee, punch, day, cause, made_at_ms, status, code, error_text
     FROM dispute";

fn held(row: &SqliteRow) -> Result<HeldDispute, StoreError> {
    let status: Option<String> = row.try_get("status")?;
    Ok(HeldDispute {
        dispute: read(row, "dispute")?,
        employee: read(row, "employee")?,
        punch: read_or_none(row, "punch")?,
        day: read_or_none(row, "day")?,
        cause: row.try_get("cause")?,
        made_at: Time::from_millis(row.try_get("made_at_ms")?),
        state: match status.as_deref() {
            None => "waiting",
            Some("failed") => "failed",
            Some(_) => "taken",
        },
        code: row.try_get("code")?,
        detail: row.try_get("error_text")?,
    })
}

/// A person's disputes that are held here, the newest first.
///
/// # Errors
/// When the store refuses.
pub async fn of_person(db: Db<'_>, employee: EmployeeId) -> Result<Vec<HeldDispute>, StoreError> {
    let rows = sqlx::query(&format!("{HELD} WHERE employee = ? ORDER BY id DESC LIMIT ?"))
        .bind(employee.to_string())
        .bind(SHOWN_MAX)
        .fetch_all(db)
        .await?;
    rows.iter().map(held).collect()
}

/// Those that the server did not take when it was asked, or never will, the newest first.
///
/// # Errors
/// When the store refuses.
pub async fn untaken(db: Db<'_>, identity: IdentityId) -> Result<Vec<HeldDispute>, StoreError> {
    let rows = sqlx::query(&format!(
        "{HELD} WHERE identity = ? AND code IS NOT NULL ORDER BY id DESC LIMIT ?"
    ))
    .bind(identity)
    .bind(UNTAKEN_TOLD_MAX)
    .fetch_all(db)
    .await?;
    rows.iter().map(held).collect()
}
