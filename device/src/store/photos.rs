//! Photos that captures name: which wait, which the server has. The bytes are files in the folder.

use punchtrail_protocol::Digest;
use sqlx::Row;

use super::{
    Db, StoreError, from_stored,
    identity::IdentityId,
    outbox::{AckedAt, Doubtful},
    passed::Until,
    to_stored,
};

/// A photo that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPhoto {
    pub digest: Digest,
    pub size_bytes: u64,
    /// `image/jpeg` or `image/png`.
    pub media: String,
}

/// How many photos wait, and how many can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhotoBacklog {
    /// Photos that wait, those refused before included.
    pub waiting: u64,
    /// Photos that wait and were refused by the server.
    pub refused: u64,
    /// Photos whose file is gone or damaged.
    pub lost: u64,
}

/// Keeps a photo's row, waiting; one that is there already stays as it is.
///
/// # Errors
/// When the store refuses.
pub async fn add(
    db: Db<'_>,
    identity: IdentityId,
    digest: Digest,
    size_bytes: u64,
    media: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO photo (identity, sha256, size_bytes, media) VALUES (?, ?, ?, ?)
         ON CONFLICT (identity, sha256) DO UPDATE SET
             lost = 0, stored = CASE WHEN lost THEN 0 ELSE stored END",
    )
    .bind(identity)
    .bind(digest.to_string())
    .bind(to_stored(size_bytes))
    .bind(media)
    .execute(db)
    .await?;
    Ok(())
}

/// How many of `identity`'s photos wait.
///
/// # Errors
/// When the store refuses.
pub async fn backlog(db: Db<'_>, identity: IdentityId) -> Result<PhotoBacklog, StoreError> {
    let row = sqlx::query(
        "SELECT count(*) AS waiting, count(nullif(tries, 0)) AS refused,
             (SELECT count(*) FROM photo WHERE identity = ?1 AND lost) AS lost
         FROM photo WHERE identity = ?1 AND stored = 0 AND lost = 0",
    )
    .bind(identity)
    .fetch_one(db)
    .await?;
    Ok(PhotoBacklog {
        waiting: from_stored(row.try_get("waiting")?),
        refused: from_stored(row.try_get("refused")?),
        lost: from_stored(row.try_get("lost")?),
    })
}

/// The next photo to send: the one that failed least, the oldest of those.
///
/// # Errors
/// When the store refuses.
pub async fn next(db: Db<'_>, identity: IdentityId) -> Result<Option<WaitingPhoto>, StoreError> {
    let row = sqlx::query(
        "SELECT sha256, size_bytes, media FROM photo
         WHERE identity = ? AND stored = 0 AND lost = 0
         ORDER BY tries + stalled, rowid LIMIT 1",
    )
    .bind(identity)
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(WaitingPhoto {
            digest: row.try_get::<String, _>("sha256")?.parse().map_err(StoreError::unreadable)?,
            size_bytes: from_stored(row.try_get("size_bytes")?),
            media: row.try_get("media")?,
        })
    })
    .transpose()
}

/// The server has the photo.
///
/// # Errors
/// When the store refuses.
pub async fn stored(db: Db<'_>, identity: IdentityId, digest: Digest) -> Result<(), StoreError> {
    set(
        db,
        "UPDATE photo SET stored = 1, error_text = NULL WHERE identity = ? AND sha256 = ?",
        identity,
        digest,
    )
    .await
}

/// The server refused the photo; it keeps waiting, behind the others.
///
/// # Errors
/// When the store refuses.
pub async fn refused(
    db: Db<'_>,
    identity: IdentityId,
    digest: Digest,
    why: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE photo SET tries = tries + 1, error_text = ? WHERE identity = ? AND sha256 = ?",
    )
    .bind(why)
    .bind(identity)
    .bind(digest.to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// The photo was sent and nothing sensible came back; it keeps waiting, behind the others.
///
/// # Errors
/// When the store refuses.
pub async fn stalled(db: Db<'_>, identity: IdentityId, digest: Digest) -> Result<(), StoreError> {
    set(
        db,
        "UPDATE photo SET stalled = stalled + 1 WHERE identity = ? AND sha256 = ?",
        identity,
        digest,
    )
    .await
}

/// The photo's file is gone or damaged; its capture stands without it.
///
/// # Errors
/// When the store refuses.
pub async fn lost(db: Db<'_>, identity: IdentityId, digest: Digest) -> Result<(), StoreError> {
    set(db, "UPDATE photo SET lost = 1 WHERE identity = ? AND sha256 = ?", identity, digest).await
}

async fn set(
    db: Db<'_>,
    sql: &'static str,
    identity: IdentityId,
    digest: Digest,
) -> Result<(), StoreError> {
    sqlx::query(sql).bind(identity).bind(digest.to_string()).execute(db).await?;
    Ok(())
}

/// The first answer after photos were stored: they count as acknowledged then. What was so by a
/// server's clock that was ahead counts anew from now.
///
/// # Errors
/// When the store refuses.
pub async fn acknowledge(db: Db<'_>, identity: IdentityId, at: AckedAt) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE photo SET acked_ms = ?2, acked_passed_ms = ?3,
             acked_ledger = CASE WHEN acked_ms IS NULL THEN ?4 ELSE acked_ledger END
         WHERE identity = ?1 AND stored = 1 AND (acked_ms IS NULL OR acked_ms > ?2)",
    )
    .bind(identity)
    .bind(at.server.millis())
    .bind(to_stored(at.passed_ms))
    .bind(at.ledger.map(to_stored))
    .execute(db)
    .await?;
    Ok(())
}

/// Photos of captures that wait again wait again too, and those that were acknowledged after the
/// histories parted; where nobody says at which position that was, all of them. A photo is no event
/// of the ledger: one that was stored when the head stood where they parted may be lacking.
///
/// # Errors
/// When the store refuses.
pub async fn wait_again(
    db: Db<'_>,
    identity: IdentityId,
    doubtful: Doubtful,
) -> Result<(), StoreError> {
    let parted = match doubtful {
        Doubtful::Ledger(after) => Some(to_stored(after)),
        Doubtful::Number(_) => None,
    };
    sqlx::query(
        "UPDATE photo SET stored = 0, acked_ms = NULL, acked_ledger = NULL, tries = 0, stalled = 0
         WHERE identity = ?1 AND stored = 1 AND (coalesce(acked_ledger >= ?2, TRUE) OR sha256 IN
             (SELECT photo FROM capture
              WHERE identity = ?1 AND acked_ms IS NULL AND photo IS NOT NULL))",
    )
    .bind(identity)
    .bind(parted)
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets photos that the server has had for the restore window and that no capture here names; a
/// lost one as soon as none does. Gives the digests whose files nobody needs any more.
///
/// # Errors
/// When the store refuses.
pub async fn forget(
    db: Db<'_>,
    identity: IdentityId,
    until: Until,
) -> Result<Vec<Digest>, StoreError> {
    let gone: Vec<String> = sqlx::query_scalar(
        "DELETE FROM photo WHERE identity = ?1
             AND (lost OR acked_ms <= ?2 AND acked_passed_ms <= ?3) AND NOT EXISTS
             (SELECT 1 FROM capture WHERE capture.identity = ?1 AND capture.photo = photo.sha256)
         RETURNING sha256",
    )
    .bind(identity)
    .bind(until.server.millis())
    .bind(until.passed_ms)
    .fetch_all(&mut *db)
    .await?;
    let mut unneeded = Vec::new();
    for text in gone {
        let named: i64 = sqlx::query_scalar("SELECT count(*) FROM photo WHERE sha256 = ?")
            .bind(&text)
            .fetch_one(&mut *db)
            .await?;
        if named == 0 {
            unneeded.push(text.parse().map_err(StoreError::unreadable)?);
        }
    }
    Ok(unneeded)
}

/// Every photo that a row names.
///
/// # Errors
/// When the store refuses.
pub async fn all(db: Db<'_>) -> Result<std::collections::HashSet<Digest>, StoreError> {
    let texts: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT sha256 FROM photo").fetch_all(db).await?;
    texts.iter().map(|text| text.parse().map_err(StoreError::unreadable)).collect()
}
