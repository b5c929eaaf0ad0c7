//! What stands beside the ledger of a person goes in the transaction of the event that says so.
//!
//! Whether they may be erased is asked before (`punchtrail_projections::privacy`); what was kept of
//! their face follows the event, as the bytes of pictures are in no database.

use std::time::Duration;

use punchtrail_domain::employee::{Employee, EmployeeCommand, EmployeeError};
use punchtrail_protocol::{Digest, EmployeeId};
use serde::Serialize;
use sqlx::PgConnection;

use crate::{
    ledger::{ExecuteError, Executed, Ledger, Metadata, SideWrite},
    postgres::{Pool, within},
};

/// The tables that hold something of a person by the id in their column `employee`. A new one takes
/// a line here, and a number in [`Kept`].
const BESIDE: [&str; 3] = ["employee_directory", "reference_codes", "badge_holdings"];

/// How long it may take to remove what stands of one person.
const FORGET_MAX: Duration = Duration::from_secs(60);

/// How much of a person stands beside the ledger, in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Kept {
    /// The entry with name, PIN and the id in another system.
    pub directory: u64,
    /// Codes for their reference photos.
    pub codes: u64,
    /// Numbers of badges, one for each time that one was held.
    pub badges: u64,
    pub notes: u64,
}

/// Erases a person: the event, and with it what stands beside the ledger of them, and these notes.
/// Whoever was erased before has no new event; rows that came back since go all the same.
///
/// # Errors
/// When there is no such person, a legal hold stands, or the ledger doesn't take it.
pub async fn erase(
    ledger: &Ledger,
    employee: EmployeeId,
    notes: Vec<Digest>,
    metadata: &Metadata,
) -> Result<Executed<Employee>, ExecuteError<EmployeeError>> {
    let command = EmployeeCommand::Erase { at: ledger.now() };
    let side = || {
        let notes = notes.clone();
        Some(SideWrite::new(move |connection| {
            let notes = notes.clone();
            Box::pin(async move { remove(connection, employee, &notes).await.map(drop) })
        }))
    };
    ledger.execute_with::<Employee>(&employee.to_string(), command, metadata, side).await
}

/// Removes what stands beside the ledger of somebody who was erased, and these notes; how much
/// there was. To be done again whenever it may have come back.
///
/// # Errors
/// When the database is out of reach: then nothing was removed.
pub async fn forget(
    writer: &Pool,
    employee: EmployeeId,
    notes: &[Digest],
) -> Result<Kept, sqlx::Error> {
    within(FORGET_MAX, async {
        let mut transaction = writer.begin().await?;
        let removed = remove(&mut transaction, employee, notes).await?;
        transaction.commit().await?;
        Ok(removed)
    })
    .await
}

/// What there is to be removed.
///
/// # Errors
/// When the database is out of reach.
pub async fn kept(
    writer: &Pool,
    employee: EmployeeId,
    notes: &[Digest],
) -> Result<Kept, sqlx::Error> {
    let mut rows = [0_i64; BESIDE.len()];
    for (table, rows) in BESIDE.iter().zip(&mut rows) {
        let statement = format!("select count(*) from {table} where employee = $1");
        *rows = sqlx::query_scalar(&statement).bind(employee.uuid()).fetch_one(writer).await?;
    }
    let notes: i64 = sqlx::query_scalar("select count(*) from notes where digest = any($1)")
        .bind(bytes(notes))
        .fetch_one(writer)
        .await?;
    let [directory, codes, badges] = rows.map(i64::cast_unsigned);
    Ok(Kept { directory, codes, badges, notes: notes.cast_unsigned() })
}

async fn remove(
    connection: &mut PgConnection,
    employee: EmployeeId,
    notes: &[Digest],
) -> Result<Kept, sqlx::Error> {
    let mut rows = [0; BESIDE.len()];
    for (table, rows) in BESIDE.iter().zip(&mut rows) {
        let statement = format!("delete from {table} where employee = $1");
        let done = sqlx::query(&statement).bind(employee.uuid()).execute(&mut *connection).await?;
        *rows = done.rows_affected();
    }
    let notes = sqlx::query("delete from notes where digest = any($1)")
        .bind(bytes(notes))
        .execute(connection)
        .await?
        .rows_affected();
    let [directory, codes, badges] = rows;
    Ok(Kept { directory, codes, badges, notes })
}

fn bytes(notes: &[Digest]) -> Vec<&[u8]> {
    notes.iter().map(|note| note.0.as_slice()).collect()
}
