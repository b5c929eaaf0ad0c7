//! Why a step on a picture's way was not made. It is made again.

use punchtrail_infra::{
    ledger::{ExecuteError, ReadError},
    postgres::DatabaseError,
};
use punchtrail_projections::engine::models::ReadBehind;

use crate::problem::Refusal;

/// What kept a step from being made.
#[derive(Debug, thiserror::Error)]
pub enum Broke {
    #[error("the ledger can't take it now: {0}")]
    Ledger(String),
    #[error("the ledger can't be read: {0}")]
    Read(#[from] ReadError),
    #[error("the database is out of reach: {0}")]
    Database(#[from] DatabaseError),
    #[error("the photo store failed: {0}")]
    Store(#[from] std::io::Error),
    #[error(transparent)]
    Behind(#[from] ReadBehind),
}

impl<E: std::error::Error> From<ExecuteError<E>> for Broke {
    fn from(error: ExecuteError<E>) -> Self {
        Self::Ledger(error.to_string())
    }
}

impl From<Broke> for Refusal {
    fn from(broke: Broke) -> Self {
        tracing::warn!(error = %broke, "a step on a picture's way was not made");
        Self::busy("This can't be done now. Ask again.")
    }
}
