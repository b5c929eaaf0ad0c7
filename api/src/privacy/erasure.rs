//! Erases a person, unless something stands in the way; then all of it is told at once.
//!
//! Whoever calls has waited until the models that this rests on
//! ([`RESTS_ON`](punchtrail_projections::privacy::RESTS_ON)) have taken the whole ledger. What
//! stands beside the ledger goes with the event; pictures follow it, by the follower of erasures.

use punchtrail_domain::employee::{Employee, EmployeeError};
use punchtrail_infra::{
    ledger::{ExecuteError, Ledger, Metadata, ReadError},
    people::erasure,
    postgres::{DatabaseError, Pools},
};
use punchtrail_projections::privacy::{
    held,
    obstacles::{Obstacle, obstacles},
};
use punchtrail_protocol::{Digest, EmployeeId, Position, wire::FieldError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::{Code, Refusal};

/// What an erasure would take, and what stands in its way.
#[derive(Debug, Serialize, ToSchema)]
pub struct Outlook {
    pub employee: EmployeeId,
    /// What stands in the way; nothing if it may be done now.
    pub obstacles: Vec<Obstacle>,
    /// Entries of the directory: name, PIN and the id in another system.
    pub directory: u64,
    /// Numbers of badges, one for each time that they held one.
    pub badges: u64,
    /// Codes for their reference photos.
    pub codes: u64,
    /// Notes about them and their punches.
    pub notes: u64,
    /// Pictures of their punches.
    pub photos: u64,
    /// Reference photos, with what was made of them.
    pub references: u64,
}

/// Why nothing was erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error("there is no such employee")]
    Unknown,
    #[error("nothing was erased: {}", sentences(.0))]
    Obstacles(Vec<Obstacle>),
    #[error(transparent)]
    Ledger(#[from] ExecuteError<EmployeeError>),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the database is out of reach: {0}")]
    Database(#[from] DatabaseError),
}

fn sentences(obstacles: &[Obstacle]) -> String {
    obstacles.iter().map(|obstacle| obstacle.sentence()).collect::<Vec<_>>().join(" ")
}

impl From<EraseError> for Refusal {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::Unknown => Self::not_found(),
            EraseError::Obstacles(obstacles) => {
                let errors = obstacles.iter().map(|obstacle| FieldError {
                    pointer: String::new(),
                    code: obstacle.code().to_owned(),
                });
                let detail = format!("Nothing was erased. {}", sentences(&obstacles));
                Self::new(Code::ErasureRefused, detail).because_of(errors.collect())
            }
            EraseError::Ledger(error) => error.into(),
            EraseError::Read(error) => error.into(),
            EraseError::Database(error) => error.into(),
        }
    }
}

/// What an erasure would take now, and what stands in its way.
///
/// # Errors
/// When there is no such person, or the database is out of reach.
pub async fn outlook(
    ledger: &Ledger,
    pools: &Pools,
    employee: EmployeeId,
) -> Result<Outlook, EraseError> {
    let obstacles = in_the_way(ledger, pools, employee).await?;
    let notes = notes(pools, employee).await?;
    let kept = erasure::kept(&pools.writer, employee, &notes).await?;
    let (photos, references) = held::pictures(&pools.reader, employee).await?;
    Ok(Outlook {
        employee,
        obstacles,
        directory: kept.directory,
        badges: kept.badges,
        codes: kept.codes,
        notes: kept.notes,
        photos,
        references,
    })
}

/// Erases a person; where the ledger says so. Who was erased before is erased again: what came back
/// since, from an older copy of a table for one, goes.
///
/// # Errors
/// When there is no such person, something stands in the way, or the ledger doesn't take it.
pub async fn erase(
    ledger: &Ledger,
    pools: &Pools,
    employee: EmployeeId,
    metadata: &Metadata,
) -> Result<Position, EraseError> {
    let obstacles = in_the_way(ledger, pools, employee).await?;
    if !obstacles.is_empty() {
        return Err(EraseError::Obstacles(obstacles));
    }
    let notes = notes(pools, employee).await?;
    let erased = erasure::erase(ledger, employee, notes, metadata).await;
    match erased {
        // Placed since it was asked about.
        Err(ExecuteError::Refused(EmployeeError::Held)) => {
            Err(EraseError::Obstacles(vec![Obstacle::LegalHold { holds: 1 }]))
        }
        erased => Ok(erased?.position),
    }
}

/// Nothing stands in the way of who is erased already.
async fn in_the_way(
    ledger: &Ledger,
    pools: &Pools,
    employee: EmployeeId,
) -> Result<Vec<Obstacle>, EraseError> {
    let person = ledger.load::<Employee>(&employee.to_string()).await?.aggregate;
    if !person.is_registered() {
        return Err(EraseError::Unknown);
    }
    if person.erased_at().is_some() {
        return Ok(Vec::new());
    }
    Ok(obstacles(&pools.reader, employee, &person, ledger.now()).await?)
}

async fn notes(pools: &Pools, employee: EmployeeId) -> Result<Vec<Digest>, DatabaseError> {
    let named = held::notes(&pools.reader, employee).await?;
    Ok(named.into_iter().map(|note| note.digest).collect())
}
