//! What the server last told an identity, and how the last try to reach it went.

use punchtrail_protocol::{
    BootId, EpochId, Time,
    wire::{DevicePolicy, LedgerHistory},
};
use sqlx::Row;

use super::{Db, StoreError, from_stored, identity::IdentityId, to_stored};
use crate::clock::Moment;

/// A failure, in words for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When, by the device's clock.
    pub at: Time,
    /// The server's code, or the device's own word.
    pub code: String,
    pub text: String,
}

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
    /// The last failure since the last success.
    pub failure: Option<Failure>,
    /// The site's policy, if it was told.
    pub policy: Option<DevicePolicy>,
    /// Version of the manifest that is held.
    pub roster: Option<String>,
}

/// Reads what is known of `identity`'s contact.
///
/// # Errors
/// When the store refuses.
pub async fn of(db: Db<'_>, identity: IdentityId) -> Result<Contact, StoreError> {
    let row = sqlx::query("SELECT * FROM contact WHERE identity = ?")
        .bind(identity)
        .fetch_one(db)
        .await?;
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
    let failure = number("error_at_ms")?
        .map(|at| -> Result<Failure, StoreError> {
            Ok(Failure {
                at: Time::from_millis(at),
                code: row.try_get::<Option<String>, _>("error_code")?.unwrap_or_default(),
                text: row.try_get::<Option<String>, _>("error_text")?.unwrap_or_default(),
            })
        })
        .transpose()?;
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
        failure,
        policy: policy
            .map(|json| serde_json::from_str(&json).map_err(StoreError::unreadable))
            .transpose()?,
        roster: row.try_get("roster")?,
    })
}

/// The server answered as the protocol says; `server_time` where the answer carries one.
///
/// # Errors
/// When the store refuses.
pub async fn reached(
    db: Db<'_>,
    identity: IdentityId,
    at: &Moment,
    server_time: Option<Time>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE contact SET reached = 1, reached_at_ms = ?, reached_boot = ?, reached_uptime_ms = ?,
             server_time_ms = coalesce(?, server_time_ms), clock_ahead_ms = coalesce(?, \
             clock_ahead_ms),
             error_at_ms = NULL, error_code = NULL, error_text = NULL
         WHERE identity = ?",
    )
    .bind(at.time.millis())
    .bind(at.boot.to_string())
    .bind(to_stored(at.uptime_ms))
    .bind(server_time.map(Time::millis))
    .bind(server_time.map(|server| at.time.millis_since(server)))
    .bind(identity)
    .execute(db)
    .await?;
    Ok(())
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
             hold_boot = ?3, hold_uptime_ms = ?4 + ?5,
             error_at_ms = ?6, error_code = ?7, error_text = ?8
         WHERE identity = ?9",
    )
    .bind(reached)
    .bind(at.time.millis())
    .bind(at.boot.to_string())
    .bind(to_stored(at.uptime_ms))
    .bind(to_stored(hold_ms))
    .bind(failure.at.millis())
    .bind(&failure.code)
    .bind(&failure.text)
    .bind(identity)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes which history the server says that its ledger has.
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
        .bind(&history.anchor)
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
