//! A worker's own record, after their PIN: what the server says of it when it can be asked, and
//! what this device itself holds, told apart.

use punchtrail_protocol::EmployeeId;
use serde::Serialize;

use crate::{
    client::{AddressError, CallError, RecordOutcome, Server},
    confirm::NotConfirmed,
    device::Device,
    pin::Pin,
    store::{
        StoreError,
        disputes::{self, HeldDispute},
        outbox::{self, HeldPunch},
    },
};

/// A worker's own record.
#[derive(Debug, Clone, Serialize)]
pub struct OwnRecord {
    pub employee: EmployeeId,
    /// What the server says; none when it could not be asked.
    pub record: Option<RecordOutcome>,
    /// Why it could not be asked.
    pub error: Option<RecordRefusal>,
    /// What this device itself holds, whatever the server says.
    pub here: Here,
}

/// Why the server gave no record.
#[derive(Debug, Clone, Serialize)]
pub struct RecordRefusal {
    pub code: String,
    pub detail: String,
}

/// What a device holds of a worker.
#[derive(Debug, Clone, Serialize)]
pub struct Here {
    /// Punches made here, the newest first.
    pub punches: Vec<HeldPunch>,
    /// Disputes opened here, the newest first.
    pub disputes: Vec<HeldDispute>,
}

/// Why no record was shown.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    NotConfirmed(#[from] NotConfirmed),
    #[error("{0}. Nothing was asked")]
    Address(#[from] AddressError),
    #[error("{0}. Nothing was shown; try again")]
    Store(#[from] StoreError),
}

impl RecordError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotConfirmed(error) => error.code(),
            Self::Address(_) => "address",
            Self::Store(_) => "store",
        }
    }
}

impl Device {
    /// The record of the last `days` business days of whoever gave their PIN.
    ///
    /// # Errors
    /// When it isn't them, or the folder can't be read. A server that can't be asked is said in the
    /// record.
    pub async fn record(
        &self,
        employee: EmployeeId,
        pin: Pin,
        days: u32,
    ) -> Result<OwnRecord, RecordError> {
        let identity = self.confirm(employee, pin).await?;
        let server = Server::with_patience(&identity.server, self.options.call_ms)?
            .with_token(&identity.token)?;
        let asked = server.record(identity.site, employee, days).await;
        let mut db = self.store.read().await?;
        let since = self.now().time.plus_millis(-i64::from(days) * 86_400_000);
        let punches = outbox::of_person(&mut db, employee, since).await?;
        let here = Here { punches, disputes: disputes::of_person(&mut db, employee).await? };
        let refusal = |error: &CallError| RecordRefusal {
            code: error.code().to_owned(),
            detail: error.to_string(),
        };
        let error = asked.as_ref().err().map(refusal);
        Ok(OwnRecord { employee, record: asked.ok(), error, here })
    }
}
