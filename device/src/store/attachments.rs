//! The outbox of attachments: retakes for punches captured here, from the commit that kept them to
//! the day they may be forgotten. One goes after its punch: what the server doesn't know of nobody
//! can attach to.

use punchtrail_protocol::{
    Digest, PunchId, attachment::Attachment, signing::Signature, wire::AttachmentAnswer,
    wire::ItemStatus,
};
use serde::Serialize;
use sqlx::Row;

use super::{
    Db, StoreError, from_stored,
    identity::IdentityId,
    outbox::{AckedAt, Doubtful},
    passed::Until,
    to_stored,
};

/// How many that failed are told of, the newest.
const FAILED_TOLD_MAX: u32 = 20;

/// Which attachment of this folder, in their order.
pub type AttachmentId = i64;

/// An attachment that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingAttachment {
    pub id: AttachmentId,
    pub punch: PunchId,
    pub attempt: u32,
    pub bytes: Vec<u8>,
    pub signature: Vec<u8>,
}

/// How many attachments wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttachmentBacklog {
    pub waiting: u64,
    /// Of those, the ones whose punch doesn't wait itself.
    pub ready: u64,
    /// Attachments that the server won't take.
    pub failed: u64,
}

/// An attachment that the server won't take, for people to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedAttachment {
    pub punch: PunchId,
    pub attempt: u32,
    pub photo: Digest,
    pub code: String,
    pub detail: String,
}

/// Keeps an attachment, waiting.
///
/// # Errors
/// When the store refuses; another of this attempt is one reason.
pub async fn add(
    db: Db<'_>,
    identity: IdentityId,
    record: &Attachment,
    bytes: &[u8],
    signature: Signature,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO attachment (identity, punch, attempt, bytes, signature, photo)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(identity)
    .bind(record.punch.to_string())
    .bind(record.attempt)
    .bind(bytes)
    .bind(signature.0.to_vec())
    .bind(record.photo.to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// A punch's attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempts {
    /// The last one; 0 if the capture's own frame is.
    pub last: u32,
    /// The last one that the server takes; the same.
    pub last_good: u32,
    /// Those that wait.
    pub waiting: u32,
}

/// The attempts at `punch`.
///
/// # Errors
/// When the store refuses.
pub async fn attempts(
    db: Db<'_>,
    identity: IdentityId,
    punch: PunchId,
) -> Result<Attempts, StoreError> {
    let (last, last_good, waiting) = sqlx::query_as(
        "SELECT coalesce(max(attempt), 0),
             coalesce(max(CASE WHEN status IS NOT 'failed' THEN attempt END), 0),
             count(CASE WHEN status IS NULL THEN 1 END)
         FROM attachment WHERE identity = ? AND punch = ?",
    )
    .bind(identity)
    .bind(punch.to_string())
    .fetch_one(db)
    .await?;
    Ok(Attempts { last, last_good, waiting })
}

/// How many of `identity`'s wait.
///
/// # Errors
/// When the store refuses.
pub async fn backlog(db: Db<'_>, identity: IdentityId) -> Result<AttachmentBacklog, StoreError> {
    let row = sqlx::query(
        "SELECT count(*) AS waiting,
             count(CASE WHEN NOT EXISTS (SELECT 1 FROM capture c WHERE c.punch = a.punch
                 AND c.acked_ms IS NULL) THEN 1 END) AS ready,
             (SELECT count(*) FROM attachment
              WHERE identity = ?1 AND status = 'failed') AS failed
         FROM attachment a WHERE a.identity = ?1 AND a.status IS NULL",
    )
    .bind(identity)
    .fetch_one(db)
    .await?;
    Ok(AttachmentBacklog {
        waiting: from_stored(row.try_get("waiting")?),
        ready: from_stored(row.try_get("ready")?),
        failed: from_stored(row.try_get("failed")?),
    })
}

/// The next attachment to send: the one that was not taken least often, the oldest of those. One
/// whose punch waits itself isn't ready.
///
/// # Errors
/// When the store refuses.
pub async fn next(
    db: Db<'_>,
    identity: IdentityId,
) -> Result<Option<WaitingAttachment>, StoreError> {
    let row = sqlx::query(
        "SELECT id, punch, attempt, bytes, signature FROM attachment a
         WHERE identity = ? AND status IS NULL AND NOT EXISTS
             (SELECT 1 FROM capture c WHERE c.punch = a.punch AND c.acked_ms IS NULL)
         ORDER BY tries, id LIMIT 1",
    )
    .bind(identity)
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(WaitingAttachment {
            id: row.try_get("id")?,
            punch: row.try_get::<String, _>("punch")?.parse().map_err(StoreError::unreadable)?,
            attempt: row.try_get("attempt")?,
            bytes: row.try_get("bytes")?,
            signature: row.try_get("signature")?,
        })
    })
    .transpose()
}

/// The server has it.
///
/// # Errors
/// When the store refuses.
pub async fn taken(
    db: Db<'_>,
    id: AttachmentId,
    answer: AttachmentAnswer,
) -> Result<(), StoreError> {
    let status = if answer.status == ItemStatus::Applied { "applied" } else { "duplicate" };
    sqlx::query(
        "UPDATE attachment SET status = ?, position = ?, code = NULL, error_text = NULL
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
pub async fn failed(db: Db<'_>, id: AttachmentId, code: &str, why: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE attachment SET status = 'failed', code = ?, error_text = ? WHERE id = ?")
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
pub async fn put_off(db: Db<'_>, id: AttachmentId, why: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE attachment SET tries = tries + 1, error_text = ? WHERE id = ?")
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
        "UPDATE attachment SET acked_ms = ?2, acked_passed_ms = ?3
         WHERE identity = ?1 AND status IS NOT NULL AND (acked_ms IS NULL OR acked_ms > ?2)",
    )
    .bind(identity)
    .bind(at.server.millis())
    .bind(to_stored(at.passed_ms))
    .execute(db)
    .await?;
    Ok(())
}

/// The server's database went back: attachments that were recorded beyond where the histories
/// parted wait again, and those that failed, which a server that went back may see otherwise; all
/// of them where nobody says at which position that was.
///
/// # Errors
/// When the store refuses.
pub async fn wait_again(
    db: Db<'_>,
    identity: IdentityId,
    doubtful: Doubtful,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE attachment SET status = NULL, position = NULL, code = NULL, error_text = NULL,
             tries = 0, acked_ms = NULL
         WHERE identity = ?1 AND status IS NOT NULL AND (coalesce(position > ?2, TRUE)
             OR punch IN (SELECT punch FROM capture WHERE identity = ?1 AND acked_ms IS NULL))",
    )
    .bind(identity)
    .bind(doubtful.parted())
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets attachments that were answered before `until` and whose capture is forgotten: while it
/// is held its attempts are numbered.
///
/// # Errors
/// When the store refuses.
pub async fn forget(db: Db<'_>, identity: IdentityId, until: Until) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM attachment WHERE identity = ? AND status IS NOT NULL
             AND acked_ms <= ? AND acked_passed_ms <= ? AND NOT EXISTS
             (SELECT 1 FROM capture c WHERE c.punch = attachment.punch)",
    )
    .bind(identity)
    .bind(until.server.millis())
    .bind(until.passed_ms)
    .execute(db)
    .await?;
    Ok(())
}

/// Those that the server won't take, the newest first.
///
/// # Errors
/// When the store refuses.
pub async fn all_failed(
    db: Db<'_>,
    identity: IdentityId,
) -> Result<Vec<FailedAttachment>, StoreError> {
    let rows = sqlx::query(
        "SELECT punch, attempt, photo, code, error_text FROM attachment
         WHERE identity = ? AND status = 'failed' ORDER BY id DESC LIMIT ?",
    )
    .bind(identity)
    .bind(FAILED_TOLD_MAX)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(FailedAttachment {
                punch: row
                    .try_get::<String, _>("punch")?
                    .parse()
                    .map_err(StoreError::unreadable)?,
                attempt: row.try_get("attempt")?,
                photo: row
                    .try_get::<String, _>("photo")?
                    .parse()
                    .map_err(StoreError::unreadable)?,
                code: row.try_get("code")?,
                detail: row.try_get("error_text")?,
            })
        })
        .collect()
}
