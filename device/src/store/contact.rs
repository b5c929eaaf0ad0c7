//! What the server last told an identity, and how the last try to reach it went.

use punchtrail_protocol::{
    BootId, EpochId, SiteId, Time,
    sealed_photo::PhotoKey,
    wire::{ANCHOR_CHARS_MAX, DevicePolicy, LedgerHistory},
};
use sqlx::Row;

use super::{
    Db, StoreError,
    failures::{self, Failure, Purpose},
    from_stored,
    identity::IdentityId,
    to_stored,
};
use crate::{clock::Moment, policy::followed};

/// What is known of an identity's contact with its server.
#[derive(Debug, Clone, PartialEq)]
pub struct Contact {
    /// The highest number up to which the server said that it holds every number.
    pub acked_through: u64,
    /// The ledger's head when last told.
    pub ledger: u64,
    /// The ledger's epoch when last told.
    pub epoch: Option<EpochId>,
    /// What the server said last of its ledger under its seal.
    pub anchor: Option<String>,
    /// The server's clock at its last answer.
    pub server_time: Option<Time>,
    /// The device's clock less the server's then, in milliseconds.
    pub clock_ahead_ms: Option<i64>,
    /// Whether the last try got an answer.
    pub reached: bool,
    /// When the server last answered: by wall clock, boot, uptime in milliseconds.
    pub reached_at: Option<(Time, BootId, u64)>,
    /// No try before this uptime (milliseconds) of this boot.
    pub hold: Option<(BootId, u64)>,
    /// What goes wrong now, by what it was for, the last first.
    pub failures: Vec<Failure>,
    /// The site's policy as this device follows it, if it was told.
    pub policy: Option<DevicePolicy>,
    /// Version of the manifest that is held; none: it is to be walked.
    pub roster: Option<String>,
    /// Whose people and policy are held, if any are. Another site's than the identity's between
    /// hearing of a move and the end of the walk there.
    pub roster_site: Option<SiteId>,
    /// The server's key that photos are sealed to, if it gave one.
    pub photo_key: Option<PhotoKey>,
}

impl Contact {
    /// The server's clock when the device's shows `now`, as far as it is known.
    pub fn server_now(&self, now: Time) -> Time {
        now.plus_millis(-self.clock_ahead_ms.unwrap_or(0))
    }
}

/// The manifest is to be walked again, whatever version is held.
///
/// # Errors
/// When the store refuses.
pub async fn forget_roster(db: Db<'_>, identity: IdentityId) -> Result<(), StoreError> {
    sqlx::query("UPDATE contact SET roster = NULL WHERE identity = ?")
        .bind(identity)
        .execute(db)
        .await?;
    Ok(())
}

/// Reads what is known of `identity`'s contact.
///
/// # Errors
/// When the store refuses.
pub async fn of(db: Db<'_>, identity: IdentityId) -> Result<Contact, StoreError> {
    let row = sqlx::query("SELECT * FROM contact WHERE identity = ?")
        .bind(identity)
        .fetch_one(&mut *db)
        .await?;
    let failures = failures::of(db, identity).await?;
    let boot = |column: &str| -> Result<Option<BootId>, StoreError> {
        let text: Option<String> = row.try_get(column)?;
        text.map(|text| text.parse().map_err(StoreError::unreadable)).transpose()
    };
    let number = |column: &str| row.try_get::<Option<i64>, _>(column);
    let reached_at =
        match (number("reached_at_ms")?, boot("reached_boot")?, number("reached_uptime_ms")?) {
            (Some(at), Some(boot), Some(uptime)) => {
                Some((Time::from_millis(at), boot, from_stored(uptime)))
            }
            _ => None,
        };
    let policy: Option<String> = row.try_get("policy")?;
    Ok(Contact {
        acked_through: from_stored(row.try_get("acked_through")?),
        ledger: from_stored(row.try_get("ledger")?),
        epoch: row
            .try_get::<Option<String>, _>("epoch")?
            .map(|text| text.parse().map_err(StoreError::unreadable))
            .transpose()?,
        anchor: row.try_get("anchor")?,
        server_time: number("server_time_ms")?.map(Time::from_millis),
        clock_ahead_ms: number("clock_ahead_ms")?,
        reached: row.try_get("reached")?,
        reached_at,
        hold: boot("hold_boot")?.zip(number("hold_uptime_ms")?.map(from_stored)),
        failures,
        policy: policy
            .map(|json| serde_json::from_str(&json).map_err(StoreError::unreadable))
            .transpose()?
            .map(followed),
        roster: row.try_get("roster")?,
        roster_site: row
            .try_get::<Option<String>, _>("roster_site")?
            .map(|text| text.parse().map_err(StoreError::unreadable))
            .transpose()?,
        photo_key: row
            .try_get::<Option<String>, _>("photo_key")?
            .map(|text| text.parse().map_err(StoreError::unreadable))
            .transpose()?,
    })
}

/// Notes the key that the server wants photos sealed to from now on.
///
/// # Errors
/// When the store refuses.
pub async fn told_photo_key(
    db: Db<'_>,
    identity: IdentityId,
    key: &PhotoKey,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE contact SET photo_key = ? WHERE identity = ?")
        .bind(key.to_string())
        .bind(identity)
        .execute(db)
        .await?;
    Ok(())
}

/// The server answered a call for `purpose` as the protocol says; `server_time` where the answer
/// carries one.
///
/// # Errors
/// When the store refuses.
pub async fn reached(
    db: Db<'_>,
    identity: IdentityId,
    purpose: Purpose,
    at: &Moment,
    server_time: Option<Time>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE contact SET reached = 1, reached_at_ms = ?, reached_boot = ?, reached_uptime_ms = ?,
             server_time_ms = coalesce(?, server_time_ms),
             clock_ahead_ms = coalesce(?, clock_ahead_ms)
         WHERE identity = ?",
    )
    .bind(at.time.millis())
    .bind(at.boot.to_string())
    .bind(to_stored(at.uptime_ms))
    .bind(server_time.map(Time::millis))
    .bind(server_time.map(|server| at.time.millis_since(server)))
    .bind(identity)
    .execute(&mut *db)
    .await?;
    failures::clear(db, identity, purpose).await
}

/// A try failed. `reached` when the server itself said no; then that, too, is contact. No try
/// before `hold_ms` milliseconds from now, also after a restart.
///
/// # Errors
/// When the store refuses.
pub async fn failed(
    db: Db<'_>,
    identity: IdentityId,
    at: &Moment,
    reached: bool,
    failure: &Failure,
    hold_ms: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE contact SET reached = ?1,
             reached_at_ms = CASE WHEN ?1 THEN ?2 ELSE reached_at_ms END,
             reached_boot = CASE WHEN ?1 THEN ?3 ELSE reached_boot END,
             reached_uptime_ms = CASE WHEN ?1 THEN ?4 ELSE reached_uptime_ms END,
             hold_boot = ?3, hold_uptime_ms = ?4 + ?5
         WHERE identity = ?6",
    )
    .bind(reached)
    .bind(at.time.millis())
    .bind(at.boot.to_string())
    .bind(to_stored(at.uptime_ms))
    .bind(to_stored(hold_ms))
    .bind(identity)
    .execute(&mut *db)
    .await?;
    failures::note(db, identity, failure).await
}

/// Notes which history the server says that its ledger has. An anchor longer than any that this
/// protocol knows is none: a heartbeat that carried it would be refused.
///
/// # Errors
/// When the store refuses.
pub async fn told_history(
    db: Db<'_>,
    identity: IdentityId,
    history: &LedgerHistory,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE contact SET epoch = coalesce(?, epoch), anchor = ? WHERE identity = ?")
        .bind(history.current().map(|epoch| epoch.to_string()))
        .bind(Some(&history.anchor).filter(|anchor| anchor.chars().count() <= ANCHOR_CHARS_MAX))
        .bind(identity)
        .execute(db)
        .await?;
    Ok(())
}

/// Notes how far the server says it holds this identity's chain, and the ledger's head where told.
///
/// # Errors
/// When the store refuses.
pub async fn told(
    db: Db<'_>,
    identity: IdentityId,
    acked_through: u64,
    ledger: Option<u64>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE contact SET acked_through = ?, ledger = coalesce(?, ledger) WHERE identity = ?",
    )
    .bind(to_stored(acked_through))
    .bind(ledger.map(to_stored))
    .bind(identity)
    .execute(db)
    .await?;
    Ok(())
}
