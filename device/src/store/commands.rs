//! Commands of the server, from the commit that kept one to the day it may be forgotten. A row
//! stands before anything is done, and is changed together with what is done: so each is acted on
//! once, whatever dies in between.

use punchtrail_protocol::{
    CommandId, Time,
    command::{COMMANDS_GIVEN_MAX, CommandStatus, CommandType, RESULT_DETAIL_CHARS_MAX},
};
use serde::Serialize;
use sqlx::Row;

use super::{Db, StoreError, from_stored, identity::IdentityId};
use crate::client::CommandGiven;

/// Commands that are kept of an identity once their results were told, the newest.
pub const COMMANDS_KEPT_MAX: u32 = 20_000;
/// The longest type that is kept, in characters.
const TYPE_CHARS_MAX: usize = 64;
/// The longest arguments that are kept, in bytes of JSON.
const ARGS_BYTES_MAX: usize = 8_192;
/// Messages that are shown, the newest.
const MESSAGES_SHOWN_MAX: u32 = 20;

/// A command that is to be acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenCommand {
    pub command: CommandId,
    /// As the server wrote it; this program may not know it.
    pub kind: String,
    /// JSON.
    pub args: String,
    /// By the server's clock.
    pub expires_at: Time,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub status: CommandStatus,
    /// For people.
    pub detail: Option<String>,
}

impl Outcome {
    /// It was done.
    pub const fn done(detail: Option<String>) -> Self {
        Self { status: CommandStatus::Done, detail }
    }

    /// This device won't act on it.
    pub fn refused(why: impl Into<String>) -> Self {
        Self { status: CommandStatus::Refused, detail: Some(why.into()) }
    }
}

/// A text that is to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    pub text: String,
    /// By the server's clock.
    pub until: Time,
}

/// Keeps commands that the server gave. Of one that was acted on already the result is told again:
/// the server doesn't know it.
///
/// # Errors
/// When the store refuses.
pub async fn take(
    db: Db<'_>,
    identity: IdentityId,
    given: &[CommandGiven],
) -> Result<(), StoreError> {
    for CommandGiven { command, kind, args, expires_at } in given.iter().take(COMMANDS_GIVEN_MAX) {
        let args = args.to_string();
        let fits = kind.chars().count() <= TYPE_CHARS_MAX && args.len() <= ARGS_BYTES_MAX;
        sqlx::query(
            "INSERT INTO command (identity, command, type, args, expires_at_ms, status, detail)
             VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (identity, command) DO UPDATE SET told = 0",
        )
        .bind(identity)
        .bind(command.to_string())
        .bind(if fits { kind.as_str() } else { "" })
        .bind(if fits { args.as_str() } else { "{}" })
        .bind(expires_at.millis())
        .bind((!fits).then_some(CommandStatus::Refused.as_str()))
        .bind((!fits).then_some("longer than this device keeps a command"))
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// How many of `identity`'s are to be acted on or told of.
///
/// # Errors
/// When the store refuses.
pub async fn open(db: Db<'_>, identity: IdentityId) -> Result<u64, StoreError> {
    let open = sqlx::query_scalar("SELECT count(*) FROM command WHERE identity = ? AND told = 0")
        .bind(identity)
        .fetch_one(db)
        .await?;
    Ok(from_stored(open))
}

/// The next one to act on, the oldest.
///
/// # Errors
/// When the store refuses.
pub async fn next_to_do(
    db: Db<'_>,
    identity: IdentityId,
) -> Result<Option<TakenCommand>, StoreError> {
    let row = sqlx::query(
        "SELECT command, type, args, expires_at_ms FROM command
         WHERE identity = ? AND told = 0 AND status IS NULL ORDER BY id LIMIT 1",
    )
    .bind(identity)
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(TakenCommand {
            command: row
                .try_get::<String, _>("command")?
                .parse()
                .map_err(StoreError::unreadable)?,
            kind: row.try_get("type")?,
            args: row.try_get("args")?,
            expires_at: Time::from_millis(row.try_get("expires_at_ms")?),
        })
    })
    .transpose()
}

/// Notes what became of a command, in the transaction of what was done.
///
/// # Errors
/// When the store refuses.
pub async fn finish(
    db: Db<'_>,
    identity: IdentityId,
    command: CommandId,
    outcome: &Outcome,
) -> Result<(), StoreError> {
    let detail: Option<String> =
        outcome.detail.as_ref().map(|text| text.chars().take(RESULT_DETAIL_CHARS_MAX).collect());
    sqlx::query("UPDATE command SET status = ?, detail = ? WHERE identity = ? AND command = ?")
        .bind(outcome.status.as_str())
        .bind(detail)
        .bind(identity)
        .bind(command.to_string())
        .execute(db)
        .await?;
    Ok(())
}

/// The next result to tell, the oldest.
///
/// # Errors
/// When the store refuses.
pub async fn next_to_tell(
    db: Db<'_>,
    identity: IdentityId,
) -> Result<Option<(CommandId, Outcome)>, StoreError> {
    let row = sqlx::query(
        "SELECT command, status, detail FROM command
         WHERE identity = ? AND told = 0 AND status IS NOT NULL ORDER BY id LIMIT 1",
    )
    .bind(identity)
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let command: String = row.try_get("command")?;
        let status: String = row.try_get("status")?;
        let status = status.parse().map_err(StoreError::unreadable)?;
        let outcome = Outcome { status, detail: row.try_get("detail")? };
        Ok((command.parse().map_err(StoreError::unreadable)?, outcome))
    })
    .transpose()
}

/// The server has heard the result, or wants none.
///
/// # Errors
/// When the store refuses.
pub async fn told(db: Db<'_>, identity: IdentityId, command: CommandId) -> Result<(), StoreError> {
    sqlx::query("UPDATE command SET told = 1 WHERE identity = ? AND command = ?")
        .bind(identity)
        .bind(command.to_string())
        .execute(db)
        .await?;
    Ok(())
}

/// What is to be shown at `server_now`, the newest first.
///
/// # Errors
/// When the store refuses.
pub async fn messages(
    db: Db<'_>,
    identity: IdentityId,
    server_now: Time,
) -> Result<Vec<Message>, StoreError> {
    let rows = sqlx::query(
        "SELECT args ->> '$.text' AS text, expires_at_ms FROM command
         WHERE identity = ? AND type = ? AND status = 'done' AND expires_at_ms > ?
             AND args ->> '$.text' IS NOT NULL
         ORDER BY id DESC LIMIT ?",
    )
    .bind(identity)
    .bind(CommandType::ShowMessage.as_str())
    .bind(server_now.millis())
    .bind(MESSAGES_SHOWN_MAX)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let until = Time::from_millis(row.try_get("expires_at_ms")?);
            Ok(Message { text: row.try_get("text")?, until })
        })
        .collect()
}

/// Forgets what nobody asks for any more: arguments of commands that expired by the server's clock,
/// and whole commands that were told of and whose time was over before `until`, or of which there
/// are too many.
///
/// # Errors
/// When the store refuses.
pub async fn forget(
    db: Db<'_>,
    identity: IdentityId,
    (server_now, until): (Time, Time),
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE command SET args = '{}'
         WHERE identity = ? AND status IS NOT NULL AND expires_at_ms <= ? AND args <> '{}'",
    )
    .bind(identity)
    .bind(server_now.millis())
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "DELETE FROM command WHERE identity = ?1 AND told = 1 AND (expires_at_ms <= ?2 OR id <=
             (SELECT id FROM command WHERE identity = ?1 AND told = 1
              ORDER BY id DESC LIMIT 1 OFFSET ?3))",
    )
    .bind(identity)
    .bind(until.millis())
    .bind(COMMANDS_KEPT_MAX)
    .execute(db)
    .await?;
    Ok(())
}
