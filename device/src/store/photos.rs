//! Photos that captures and attachments name: which wait, which the server has. The bytes are files
//! in the folder, sealed to the server where it gave a key.

use std::collections::HashSet;

use punchtrail_protocol::{Digest, EmployeeId, Time, sealed_photo::SEALED_PHOTO_TYPE};
use sqlx::{Row, sqlite::SqliteRow};

use super::{
    Db, StoreError, from_stored,
    identity::IdentityId,
    outbox::{AckedAt, Doubtful},
    passed::Until,
    to_stored,
};
use crate::folder::PhotoFile;

/// A photo that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPhoto {
    /// Of the plain bytes.
    pub digest: Digest,
    /// Of the file.
    pub size_bytes: u64,
    /// `image/jpeg` or `image/png`: what it is, once opened.
    pub media: String,
    /// Whether the file holds it sealed.
    pub sealed: bool,
}

impl KeptPhoto {
    /// Its file, as `identity`'s.
    pub fn file(&self, identity: IdentityId) -> PhotoFile {
        file(self.digest, self.sealed, identity)
    }

    /// What the file is, for whoever it is sent to.
    pub fn content_type(&self) -> &str {
        if self.sealed { SEALED_PHOTO_TYPE } else { &self.media }
    }
}

fn file(digest: Digest, sealed: bool, identity: IdentityId) -> PhotoFile {
    if sealed { PhotoFile::Sealed(digest, identity) } else { PhotoFile::Plain(digest) }
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
    /// Photos that were erased because their person is to be forgotten.
    pub erased: u64,
}

/// Keeps a photo's row, waiting; of one that is there already only the file may be another.
///
/// # Errors
/// When the store refuses.
pub async fn add(db: Db<'_>, identity: IdentityId, photo: &KeptPhoto) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO photo (identity, sha256, size_bytes, media, sealed) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (identity, sha256) DO UPDATE SET
             size_bytes = excluded.size_bytes, sealed = excluded.sealed, erased_at_ms = NULL,
             lost = 0, stored = CASE WHEN lost THEN 0 ELSE stored END",
    )
    .bind(identity)
    .bind(photo.digest.to_string())
    .bind(to_stored(photo.size_bytes))
    .bind(&photo.media)
    .bind(photo.sealed)
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
             (SELECT count(*) FROM photo
              WHERE identity = ?1 AND lost AND erased_at_ms IS NULL) AS lost,
             (SELECT count(*) FROM photo
              WHERE identity = ?1 AND erased_at_ms IS NOT NULL) AS erased
         FROM photo WHERE identity = ?1 AND stored = 0 AND lost = 0",
    )
    .bind(identity)
    .fetch_one(db)
    .await?;
    Ok(PhotoBacklog {
        waiting: from_stored(row.try_get("waiting")?),
        refused: from_stored(row.try_get("refused")?),
        lost: from_stored(row.try_get("lost")?),
        erased: from_stored(row.try_get("erased")?),
    })
}

/// The next photo to send: the one that failed least, the oldest of those.
///
/// # Errors
/// When the store refuses.
pub async fn next(db: Db<'_>, identity: IdentityId) -> Result<Option<KeptPhoto>, StoreError> {
    let row = sqlx::query(
        "SELECT sha256, size_bytes, media, sealed FROM photo
         WHERE identity = ? AND stored = 0 AND lost = 0
         ORDER BY tries + stalled, rowid LIMIT 1",
    )
    .bind(identity)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(kept).transpose()
}

/// The next photo that isn't sealed yet, sent or not; one whose file is gone never is.
///
/// # Errors
/// When the store refuses.
pub async fn unsealed(db: Db<'_>, identity: IdentityId) -> Result<Option<KeptPhoto>, StoreError> {
    let row = sqlx::query(
        "SELECT sha256, size_bytes, media, sealed FROM photo
         WHERE identity = ? AND sealed = 0 AND lost = 0 LIMIT 1",
    )
    .bind(identity)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(kept).transpose()
}

fn kept(row: &SqliteRow) -> Result<KeptPhoto, StoreError> {
    Ok(KeptPhoto {
        digest: row.try_get::<String, _>("sha256")?.parse().map_err(StoreError::unreadable)?,
        size_bytes: from_stored(row.try_get("size_bytes")?),
        media: row.try_get("media")?,
        sealed: row.try_get("sealed")?,
    })
}

/// The photo's file is now a sealed one of so many bytes.
///
/// # Errors
/// When the store refuses.
pub async fn sealed(
    db: Db<'_>,
    identity: IdentityId,
    digest: Digest,
    size_bytes: u64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE photo SET sealed = 1, size_bytes = ? WHERE identity = ? AND sha256 = ?")
        .bind(to_stored(size_bytes))
        .bind(identity)
        .bind(digest.to_string())
        .execute(db)
        .await?;
    Ok(())
}

/// Whether a row names this file.
///
/// # Errors
/// When the store refuses.
pub async fn is_named(db: Db<'_>, file: PhotoFile) -> Result<bool, StoreError> {
    let (digest, identity) = match file {
        PhotoFile::Plain(digest) => (digest, None),
        PhotoFile::Sealed(digest, identity) => (digest, Some(identity)),
    };
    let rows: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM photo WHERE sha256 = ?1 AND erased_at_ms IS NULL
             AND CASE WHEN ?2 IS NULL THEN sealed = 0 ELSE sealed AND identity = ?2 END",
    )
    .bind(digest.to_string())
    .bind(identity)
    .fetch_one(db)
    .await?;
    Ok(rows > 0)
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

/// Photos of captures and attachments that wait again wait again too, and those that were
/// acknowledged after the histories parted; where nobody says at which position that was, all of
/// them. A photo is no event of the ledger: one that was stored when the head stood where they
/// parted may be lacking.
///
/// # Errors
/// When the store refuses.
pub async fn wait_again(
    db: Db<'_>,
    identity: IdentityId,
    doubtful: Doubtful,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE photo SET stored = 0, acked_ms = NULL, acked_ledger = NULL, tries = 0, stalled = 0
         WHERE identity = ?1 AND stored = 1 AND (coalesce(acked_ledger >= ?2, TRUE) OR sha256 IN
             (SELECT photo FROM capture
              WHERE identity = ?1 AND acked_ms IS NULL AND photo IS NOT NULL
              UNION ALL SELECT photo FROM attachment WHERE identity = ?1 AND status IS NULL))",
    )
    .bind(identity)
    .bind(doubtful.parted())
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets photos that the server has had for the restore window and that no capture or attachment
/// here names; a lost one as soon as none does. Gives the files that nobody needs any more.
///
/// # Errors
/// When the store refuses.
pub async fn forget(
    db: Db<'_>,
    identity: IdentityId,
    until: Until,
) -> Result<Vec<PhotoFile>, StoreError> {
    let gone = sqlx::query(
        "DELETE FROM photo WHERE identity = ?1
             AND (lost OR acked_ms <= ?2 AND acked_passed_ms <= ?3) AND NOT EXISTS
             (SELECT 1 FROM capture WHERE capture.identity = ?1 AND capture.photo = photo.sha256)
             AND NOT EXISTS (SELECT 1 FROM attachment
                 WHERE attachment.identity = ?1 AND attachment.photo = photo.sha256)
         RETURNING identity, sha256, sealed",
    )
    .bind(identity)
    .bind(until.server.millis())
    .bind(until.passed_ms)
    .fetch_all(&mut *db)
    .await?;
    unneeded(db, &gone).await
}

/// Erases the photos of a person's punches, retakes included, delivered or not, of those captured
/// until `taken_until` or of all: none is sent any more, and that they were erased stays on record
/// for as long as the punch does. Gives the files to delete. Of a badge that the manifest didn't
/// know nobody can say whose it was.
///
/// # Errors
/// When the store refuses.
pub async fn forget_of(
    db: Db<'_>,
    employee: EmployeeId,
    at: Time,
    taken_until: Option<Time>,
) -> Result<Vec<PhotoFile>, StoreError> {
    let erased = sqlx::query(
        "UPDATE photo SET lost = 1, erased_at_ms = ?1
         WHERE erased_at_ms IS NULL AND (identity, sha256) IN (
             SELECT c.identity, c.photo FROM capture c
             WHERE c.photo IS NOT NULL AND CAST(c.bytes AS TEXT) ->> '$.employee' = ?2
                 AND (?3 IS NULL OR c.captured_at_ms <= ?3)
             UNION ALL SELECT a.identity, a.photo FROM attachment a
             JOIN capture c ON c.identity = a.identity AND c.punch = a.punch
             WHERE CAST(c.bytes AS TEXT) ->> '$.employee' = ?2
                 AND (?3 IS NULL OR c.captured_at_ms <= ?3))
         RETURNING identity, sha256, sealed",
    )
    .bind(at.millis())
    .bind(employee.to_string())
    .bind(taken_until.map(Time::millis))
    .fetch_all(&mut *db)
    .await?;
    unneeded(db, &erased).await
}

/// The files of these rows that no other names.
async fn unneeded(db: Db<'_>, rows: &[SqliteRow]) -> Result<Vec<PhotoFile>, StoreError> {
    let mut files = Vec::new();
    for row in rows {
        let file = named(row)?;
        if !is_named(&mut *db, file).await? {
            files.push(file);
        }
    }
    Ok(files)
}

fn named(row: &SqliteRow) -> Result<PhotoFile, StoreError> {
    let digest = row.try_get::<String, _>("sha256")?.parse().map_err(StoreError::unreadable)?;
    Ok(file(digest, row.try_get("sealed")?, row.try_get("identity")?))
}

/// Every file that a row names.
///
/// # Errors
/// When the store refuses.
pub async fn all(db: Db<'_>) -> Result<HashSet<PhotoFile>, StoreError> {
    let rows = sqlx::query("SELECT identity, sha256, sealed FROM photo WHERE erased_at_ms IS NULL")
        .fetch_all(db)
        .await?;
    rows.iter().map(named).collect()
}
