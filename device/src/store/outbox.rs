//! The outbox: captures, from the commit that confirmed them to the day they may be forgotten.

use punchtrail_protocol::{
    Digest, EmployeeId, PunchId, SiteId, Time, capture::Capture, signing::Signature,
    wire::ItemStatus,
};
use serde::Serialize;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{Db, StoreError, from_stored, identity::IdentityId, passed::Until, to_stored};

/// Rows in one insert: eight values each, well below SQLite's limit of 32,766 a statement.
const INSERT_ROWS_MAX: usize = 500;
/// How many captures one answer may forget: the rest goes with the next.
const FORGET_MAX: i64 = 1_000;

/// A capture that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub seq: u64,
    pub punch: PunchId,
    /// Under which it was made, and goes.
    pub site: SiteId,
    pub bytes: Vec<u8>,
    pub signature: Vec<u8>,
}

/// What the server said of one capture.
#[derive(Debug, Clone)]
pub struct Acknowledgement {
    pub seq: u64,
    pub status: ItemStatus,
    pub code: Option<String>,
}

/// How much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    pub waiting: u64,
    /// When the first of them was captured, by the device's clock.
    pub oldest: Option<Time>,
    /// Captures that are acknowledged and kept still, in case the server is restored.
    pub kept: u64,
    /// Captures that wait and were refused when sent alone.
    pub refused: u64,
}

/// A capture, its bytes and the signature over them.
#[derive(Debug, Clone)]
pub struct Signed {
    pub capture: Capture,
    pub bytes: Vec<u8>,
    pub signature: Signature,
}

/// A punch as its worker is shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldPunch {
    pub punch: PunchId,
    pub kind: String,
    /// When, by this device's clock.
    pub captured_at: Time,
    /// Whether it waits to be sent; else the server has it.
    pub waiting: bool,
}

/// Keeps captures, waiting.
///
/// # Errors
/// When the store refuses.
pub async fn add(db: Db<'_>, identity: IdentityId, signed: &[Signed]) -> Result<(), StoreError> {
    for chunk in signed.chunks(INSERT_ROWS_MAX) {
        let mut insert: QueryBuilder<'_, Sqlite> = QueryBuilder::new(
            "INSERT INTO capture (identity, seq, punch, site, bytes, signature, captured_at_ms, \
             photo) ",
        );
        insert.push_values(chunk, |mut values, Signed { capture, bytes, signature }| {
            values
                .push_bind(identity)
                .push_bind(to_stored(capture.seq))
                .push_bind(capture.punch.to_string())
                .push_bind(capture.site.to_string())
                .push_bind(bytes.as_slice())
                .push_bind(signature.0.to_vec())
                .push_bind(capture.captured_at.millis())
                .push_bind(capture.photo.map(|digest| digest.to_string()));
        });
        insert.build().execute(&mut *db).await?;
    }
    Ok(())
}

/// How much of `identity`'s waits.
///
/// # Errors
/// When the store refuses.
pub async fn backlog(db: Db<'_>, identity: IdentityId) -> Result<Backlog, StoreError> {
    let row = sqlx::query(
        "SELECT count(*) AS waiting, count(nullif(refused, 0)) AS refused,
             (SELECT captured_at_ms FROM capture WHERE identity = ?1 AND acked_ms IS NULL
              ORDER BY seq LIMIT 1) AS oldest,
             (SELECT count(*) FROM capture WHERE identity = ?1 AND acked_ms IS NOT NULL) AS kept
         FROM capture WHERE identity = ?1 AND acked_ms IS NULL",
    )
    .bind(identity)
    .fetch_one(db)
    .await?;
    Ok(Backlog {
        waiting: from_stored(row.try_get("waiting")?),
        oldest: row.try_get::<Option<i64>, _>("oldest")?.map(Time::from_millis),
        kept: from_stored(row.try_get("kept")?),
        refused: from_stored(row.try_get("refused")?),
    })
}

/// The next captures to send, the oldest first, at most `items_max`. One that was refused when it
/// was sent alone comes after all others, so that it never holds them up; it is never left out.
///
/// # Errors
/// When the store refuses.
pub async fn next(
    db: Db<'_>,
    identity: IdentityId,
    items_max: usize,
) -> Result<Vec<Waiting>, StoreError> {
    let rows = sqlx::query(
        "SELECT seq, punch, site, bytes, signature FROM capture
         WHERE identity = ? AND acked_ms IS NULL ORDER BY refused, seq LIMIT ?",
    )
    .bind(identity)
    .bind(to_stored(items_max as u64))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Waiting {
                seq: from_stored(row.try_get("seq")?),
                punch: row
                    .try_get::<String, _>("punch")?
                    .parse()
                    .map_err(StoreError::unreadable)?,
                site: row.try_get::<String, _>("site")?.parse().map_err(StoreError::unreadable)?,
                bytes: row.try_get("bytes")?,
                signature: row.try_get("signature")?,
            })
        })
        .collect()
}

/// The most punches of a person that are shown.
const SHOWN_MAX: u32 = 200;

/// A person's punches since `since` that are held here, the newest first.
///
/// # Errors
/// When the store refuses.
pub async fn of_person(
    db: Db<'_>,
    employee: EmployeeId,
    since: Time,
) -> Result<Vec<HeldPunch>, StoreError> {
    let rows = sqlx::query(
        "SELECT punch, captured_at_ms, acked_ms IS NULL AS waiting,
             json_extract(CAST(bytes AS TEXT), '$.kind') AS kind
         FROM capture
         WHERE captured_at_ms >= ? AND json_extract(CAST(bytes AS TEXT), '$.employee') = ?
         ORDER BY captured_at_ms DESC LIMIT ?",
    )
    .bind(since.millis())
    .bind(employee.to_string())
    .bind(SHOWN_MAX)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(HeldPunch {
                punch: row
                    .try_get::<String, _>("punch")?
                    .parse()
                    .map_err(StoreError::unreadable)?,
                kind: row.try_get("kind")?,
                captured_at: Time::from_millis(row.try_get("captured_at_ms")?),
                waiting: row.try_get("waiting")?,
            })
        })
        .collect()
}

/// When something was acknowledged, by all that tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckedAt {
    /// By the server's clock.
    pub server: Time,
    /// By the time that has surely passed for this identity, in milliseconds.
    pub passed_ms: u64,
    /// The ledger's head then, if it was told.
    pub ledger: Option<u64>,
}

/// The server answered for these. Neighbours that fared alike are written down in one statement.
///
/// # Errors
/// When the store refuses.
pub async fn acknowledge(
    db: Db<'_>,
    identity: IdentityId,
    items: &[Acknowledgement],
    at: AckedAt,
) -> Result<(), StoreError> {
    let alike = |one: &Acknowledgement, next: &Acknowledgement| {
        next.seq == one.seq + 1 && (next.status, &next.code) == (one.status, &one.code)
    };
    for run in items.chunk_by(alike) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let status = match first.status {
            ItemStatus::Applied => "applied",
            ItemStatus::Duplicate => "duplicate",
            ItemStatus::Conflict => "conflict",
            ItemStatus::Quarantined => "quarantined",
        };
        sqlx::query(
            "UPDATE capture SET acked_ms = ?, acked_passed_ms = ?, acked_ledger = ?, status = ?,
                 code = ?
             WHERE identity = ? AND seq BETWEEN ? AND ?",
        )
        .bind(at.server.millis())
        .bind(to_stored(at.passed_ms))
        .bind(at.ledger.map(to_stored))
        .bind(status)
        .bind(first.code.as_deref())
        .bind(identity)
        .bind(to_stored(first.seq))
        .bind(to_stored(last.seq))
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// From where on the server can't be relied on to hold what it acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubtful {
    /// Above this number of the device's.
    Number(u64),
    /// Acknowledged when the ledger's head was beyond this position.
    Ledger(u64),
}

impl Doubtful {
    /// At which position the histories parted, where somebody says so.
    pub(super) fn parted(self) -> Option<i64> {
        match self {
            Self::Ledger(after) => Some(to_stored(after)),
            Self::Number(_) => None,
        }
    }
}

/// The server's database went back: what it can't be relied on to hold waits again. Gives how many.
///
/// # Errors
/// When the store refuses.
pub async fn wait_again(
    db: Db<'_>,
    identity: IdentityId,
    doubtful: Doubtful,
) -> Result<u64, StoreError> {
    let (beyond, from) = match doubtful {
        Doubtful::Number(through) => ("seq > ?", through),
        Doubtful::Ledger(after) => ("coalesce(acked_ledger > ?, TRUE)", after),
    };
    let again = sqlx::query(&format!(
        "UPDATE capture SET acked_ms = NULL, acked_ledger = NULL, status = NULL, code = NULL,
             refused = 0
         WHERE identity = ? AND {beyond} AND acked_ms IS NOT NULL"
    ))
    .bind(identity)
    .bind(to_stored(from))
    .execute(db)
    .await?;
    Ok(again.rows_affected())
}

/// A capture was refused when it was sent alone; it keeps waiting, behind the others.
///
/// # Errors
/// When the store refuses.
pub async fn refused_alone(db: Db<'_>, identity: IdentityId, seq: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE capture SET refused = refused + 1 WHERE identity = ? AND seq = ?")
        .bind(identity)
        .bind(to_stored(seq))
        .execute(db)
        .await?;
    Ok(())
}

/// The server takes none of that site's from this device now, as one whose database went back to
/// before the device was moved there; they keep waiting, behind those of other sites.
///
/// # Errors
/// When the store refuses.
pub async fn site_refused(
    db: Db<'_>,
    identity: IdentityId,
    site: SiteId,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE capture SET refused = refused + 1
         WHERE identity = ? AND acked_ms IS NULL AND site = ?",
    )
    .bind(identity)
    .bind(site.to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// The server's clock shows `at.server`. What was acknowledged later by that clock was so while it
/// was ahead, and counts from now: else it would be kept until the clock comes by again.
///
/// # Errors
/// When the store refuses.
pub async fn count_from(db: Db<'_>, identity: IdentityId, at: AckedAt) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE capture SET acked_ms = ?2, acked_passed_ms = ?3
         WHERE identity = ?1 AND acked_ms IS NOT NULL AND acked_ms > ?2",
    )
    .bind(identity)
    .bind(at.server.millis())
    .bind(to_stored(at.passed_ms))
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets what the server has had since before `until`. Gives how many.
///
/// # Errors
/// When the store refuses.
pub async fn forget(db: Db<'_>, identity: IdentityId, until: Until) -> Result<u64, StoreError> {
    let forgotten = sqlx::query(
        "DELETE FROM capture WHERE rowid IN (SELECT rowid FROM capture
             WHERE identity = ? AND acked_ms IS NOT NULL AND acked_ms <= ? AND acked_passed_ms <= ?
             LIMIT ?)",
    )
    .bind(identity)
    .bind(until.server.millis())
    .bind(until.passed_ms)
    .bind(FORGET_MAX)
    .execute(db)
    .await?;
    Ok(forgotten.rows_affected())
}

/// A capture that is held, as those find it who ask for it by its punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub identity: IdentityId,
    pub punch: PunchId,
    /// Whether the server has acknowledged it.
    pub acknowledged: bool,
}

/// The capture of `punch`, of whichever identity of this folder.
///
/// # Errors
/// When the store refuses.
pub async fn find(db: Db<'_>, punch: PunchId) -> Result<Option<Found>, StoreError> {
    found(
        sqlx::query(
            "SELECT identity, punch, acked_ms IS NOT NULL AS acknowledged FROM capture
             WHERE punch = ?",
        )
        .bind(punch.to_string())
        .fetch_optional(db)
        .await?,
    )
}

/// The capture that `identity` made last, if it is held still.
///
/// # Errors
/// When the store refuses.
pub async fn last(db: Db<'_>, identity: IdentityId) -> Result<Option<Found>, StoreError> {
    found(
        sqlx::query(
            "SELECT identity, punch, acked_ms IS NOT NULL AS acknowledged FROM capture
             WHERE identity = ? ORDER BY seq DESC LIMIT 1",
        )
        .bind(identity)
        .fetch_optional(db)
        .await?,
    )
}

fn found(row: Option<sqlx::sqlite::SqliteRow>) -> Result<Option<Found>, StoreError> {
    row.map(|row| {
        Ok(Found {
            identity: row.try_get("identity")?,
            punch: row.try_get::<String, _>("punch")?.parse().map_err(StoreError::unreadable)?,
            acknowledged: row.try_get("acknowledged")?,
        })
    })
    .transpose()
}

/// How many captures `identity` holds, by what the server said of them; none: they wait.
///
/// # Errors
/// When the store refuses.
pub async fn by_status(
    db: Db<'_>,
    identity: IdentityId,
) -> Result<Vec<(Option<String>, u64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT status, count(*) AS captures FROM capture WHERE identity = ? GROUP BY status",
    )
    .bind(identity)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("status")?, from_stored(row.try_get("captures")?))))
        .collect()
}

/// A capture as it is kept: for whoever compares this device's file with the ledger.
#[derive(Debug, Clone)]
pub struct Kept {
    pub seq: u64,
    /// The signed bytes' digest.
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub signature: Vec<u8>,
    /// Whether the server has acknowledged it.
    pub acknowledged: bool,
}

/// Everything that `identity` still holds, in its order.
///
/// # Errors
/// When the store refuses.
pub async fn held(db: Db<'_>, identity: IdentityId) -> Result<Vec<Kept>, StoreError> {
    let rows = sqlx::query(
        "SELECT seq, bytes, signature, acked_ms IS NOT NULL AS acknowledged FROM capture
         WHERE identity = ? ORDER BY seq",
    )
    .bind(identity)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let bytes: Vec<u8> = row.try_get("bytes")?;
            Ok(Kept {
                seq: from_stored(row.try_get("seq")?),
                digest: Digest::of(&bytes),
                bytes,
                signature: row.try_get("signature")?,
                acknowledged: row.try_get("acknowledged")?,
            })
        })
        .collect()
}
