//! What goes wrong with an identity's calls, by what they were for: each is known until such a call
//! goes well, so that a heartbeat that is answered doesn't hide that batches aren't.

use punchtrail_protocol::Time;
use sqlx::Row;

use super::{Db, StoreError, from_stored, identity::IdentityId};

/// What a call was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    Heartbeat,
    /// A walk of the manifest.
    Manifest,
    Commands,
    Punches,
    Attachments,
    Disputes,
    Photos,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Heartbeat,
        Self::Manifest,
        Self::Commands,
        Self::Punches,
        Self::Attachments,
        Self::Disputes,
        Self::Photos,
    ];

    /// A stable word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Manifest => "manifest",
            Self::Commands => "commands",
            Self::Punches => "punches",
            Self::Attachments => "attachments",
            Self::Disputes => "disputes",
            Self::Photos => "photos",
        }
    }
}

/// A failure, in words for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the call was for.
    pub purpose: Purpose,
    /// When, by the device's clock.
    pub at: Time,
    /// The server's code, or the device's own word.
    pub code: String,
    pub text: String,
    /// How many calls for this failed in a row.
    pub times: u64,
}

/// Notes that another call failed. How many did is the store's to count.
///
/// # Errors
/// When the store refuses.
pub async fn note(db: Db<'_>, identity: IdentityId, failure: &Failure) -> Result<(), StoreError> {
    // A row that is put anew is the last by rowid, whatever the clock does.
    sqlx::query(
        "INSERT OR REPLACE INTO failure (identity, purpose, at_ms, code, text, times)
         VALUES (?1, ?2, ?3, ?4, ?5, 1 + coalesce(
             (SELECT times FROM failure WHERE identity = ?1 AND purpose = ?2), 0))",
    )
    .bind(identity)
    .bind(failure.purpose.word())
    .bind(failure.at.millis())
    .bind(&failure.code)
    .bind(&failure.text)
    .execute(db)
    .await?;
    Ok(())
}

/// A call for `purpose` went well. After a heartbeat nothing is wrong, either, with what has
/// nothing to deliver any more.
///
/// # Errors
/// When the store refuses.
pub async fn clear(db: Db<'_>, identity: IdentityId, purpose: Purpose) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM failure WHERE identity = ?1 AND (purpose = ?2 OR ?2 = 'heartbeat' AND (
             purpose = 'punches' AND NOT EXISTS
                 (SELECT 1 FROM capture WHERE identity = ?1 AND acked_ms IS NULL)
             OR purpose = 'commands' AND NOT EXISTS
                 (SELECT 1 FROM command WHERE identity = ?1 AND told = 0)
             OR purpose = 'attachments' AND NOT EXISTS
                 (SELECT 1 FROM attachment WHERE identity = ?1 AND status IS NULL)
             OR purpose = 'disputes' AND NOT EXISTS
                 (SELECT 1 FROM dispute WHERE identity = ?1 AND status IS NULL)
             OR purpose = 'photos' AND NOT EXISTS
                 (SELECT 1 FROM photo WHERE identity = ?1 AND stored = 0 AND lost = 0)))",
    )
    .bind(identity)
    .bind(purpose.word())
    .execute(db)
    .await?;
    Ok(())
}

/// What goes wrong now, the last first.
///
/// # Errors
/// When the store refuses.
pub async fn of(db: Db<'_>, identity: IdentityId) -> Result<Vec<Failure>, StoreError> {
    let rows = sqlx::query(
        "SELECT purpose, at_ms, code, text, times FROM failure WHERE identity = ?
         ORDER BY rowid DESC",
    )
    .bind(identity)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let word: String = row.try_get("purpose")?;
            let purpose = Purpose::ALL.into_iter().find(|purpose| purpose.word() == word);
            Ok(Failure {
                purpose: purpose.ok_or_else(|| StoreError::unreadable(&word))?,
                at: Time::from_millis(row.try_get("at_ms")?),
                code: row.try_get("code")?,
                text: row.try_get("text")?,
                times: from_stored(row.try_get("times")?),
            })
        })
        .collect()
}
