//! Everything that is held of a person, as one archive for them to have: JSON and CSV for programs,
//! pictures, and a page for people.
//!
//! It is read a page at a time and goes to disk as it comes, so a person of twenty years takes no
//! more memory than one of a day. Each picture in it is noted as looked at by who asks.

mod archive;
mod page;
mod pictures;
mod punches;
mod subject;

use std::{fs::File, io, sync::Arc};

use punchtrail_domain::{AggregateType, log::recorded::Actor};
use punchtrail_infra::{
    ledger::{self, Ledger, ReadError},
    people::PeopleError,
    photos::PhotoStore,
    postgres::{DatabaseError, Pools},
};
use punchtrail_projections::{
    explanations::ExplainError, privacy::held, punches::timecards::TimecardsError,
    rulings::disputes,
};
use punchtrail_protocol::{EmployeeId, Position};
use tokio::sync::Semaphore;

use crate::problem::Refusal;
use archive::{Archive, Spool};

/// Archives that are made at once on a node.
const AT_ONCE: usize = 1;
/// Punches, or items, that are read together.
const PAGE: u32 = 200;
/// The most punches that stand on the page for people, the newest; the tables have them all.
pub const PAGE_PUNCHES_MAX: u64 = 5_000;

static ROOM: Semaphore = Semaphore::const_new(AT_ONCE);

/// Why there is no archive. Nothing was changed, but that pictures may be noted as looked at.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("there is no such employee, or they were erased")]
    Unknown,
    /// Others are being made.
    #[error("another export is being made; ask again when it is done")]
    Busy,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    People(#[from] PeopleError),
    #[error("the database is out of reach: {0}")]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Explain(#[from] ExplainError),
    #[error(transparent)]
    Timecards(#[from] TimecardsError),
    #[error("a file could not be read or written: {0}")]
    File(#[from] io::Error),
    #[error("what was read could not be written down: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<ExportError> for Refusal {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Unknown => Self::not_found(),
            ExportError::Read(error) => error.into(),
            ExportError::Database(error) => error.into(),
            ExportError::Busy => Self::busy("Another export is being made. Ask again later."),
            error => {
                tracing::warn!(%error, "an export was not made");
                Self::busy("The export can't be made now. Ask again.")
            }
        }
    }
}

/// Who asks, and where everything is.
pub struct Export<'a> {
    pub ledger: &'a Ledger,
    pub pools: &'a Pools,
    pub photos: Arc<dyn PhotoStore>,
    pub reader: Actor,
    /// The request, for the operator's log.
    pub request: Option<String>,
}

impl Export<'_> {
    /// Makes a person's archive; whoever calls has waited for the models that it rests on. The file
    /// has no name and is gone when it is closed.
    ///
    /// # Errors
    /// When there is no such person, another archive is being made, or something is out of reach.
    pub async fn of(&self, employee: EmployeeId) -> Result<File, ExportError> {
        let _room = ROOM.try_acquire().map_err(|_| ExportError::Busy)?;
        let subject = self.subject(employee).await?;
        let mut archive = Archive::new()?;
        archive.add("person.json", serde_json::to_vec_pretty(&subject)?).await?;
        let notes = self.notes(employee).await?;
        archive.add("notes.json", serde_json::to_vec_pretty(&notes)?).await?;
        let mut events = Spool::new()?;
        self.stream(&mut events, AggregateType::Employee, &[employee.to_string()]).await?;
        let mut page = page::Writing::begin(&subject, &notes).await?;
        self.punches(&mut archive, &mut events, &mut page, employee).await?;
        self.items(&mut archive, &mut events, employee).await?;
        self.disputes(&mut archive, &mut events, employee).await?;
        archive.add_spool("events.jsonl", events).await?;
        self.pictures(&mut archive, employee).await?;
        archive.add_spool("index.html", page.end().await?).await?;
        Ok(archive.finished().await?)
    }

    /// The events of these streams, the exact texts, a line each.
    async fn stream(
        &self,
        spool: &mut Spool,
        kind: AggregateType,
        ids: &[String],
    ) -> Result<(), ExportError> {
        for event in ledger::streams(&self.pools.reader, kind, ids).await? {
            let line = serde_json::json!({
                "position": event.position, "recorded_at": event.recorded_at,
                "aggregate_type": kind, "aggregate_id": event.aggregate_id,
                "sequence": event.sequence, "event_type": event.event_type,
                "event_version": event.event_version, "payload": event.payload,
                "metadata": event.metadata,
            });
            spool.write(format!("{line}\n").as_bytes()).await?;
        }
        Ok(())
    }

    /// What they dispute, and what became of it; the texts are among the notes.
    async fn disputes(
        &self,
        archive: &mut Archive,
        events: &mut Spool,
        employee: EmployeeId,
    ) -> Result<(), ExportError> {
        let (mut spool, mut after, pool) = (Spool::new()?, Position::START, &self.pools.reader);
        loop {
            let page = disputes::of_employee_after(pool, employee, after, PAGE).await?;
            let Some(last) = page.last().map(|dispute| dispute.position) else { break };
            after = last;
            let ids: Vec<String> = page.iter().map(|one| one.dispute.to_string()).collect();
            self.stream(events, AggregateType::Dispute, &ids).await?;
            for dispute in page {
                let line = serde_json::to_string(&dispute)?;
                spool.write(format!("{line}\n").as_bytes()).await?;
            }
        }
        Ok(archive.add_spool("disputes.jsonl", spool).await?)
    }

    /// What devices sent that says to be this person's punches and could not be taken as such.
    async fn items(
        &self,
        archive: &mut Archive,
        events: &mut Spool,
        employee: EmployeeId,
    ) -> Result<(), ExportError> {
        let (mut spool, mut after, pool) = (Spool::new()?, Position::START, &self.pools.reader);
        loop {
            let items = held::items_after(pool, employee, after, PAGE).await?;
            let Some((_, last)) = items.last().copied() else { break };
            after = last;
            let ids: Vec<String> = items.iter().map(|(item, _)| item.to_string()).collect();
            self.stream(events, AggregateType::Quarantine, &ids).await?;
            for (item, position) in items {
                let raw = punchtrail_infra::rulings::quarantine::raw(pool, item).await?;
                let (capture, signature) = raw.map(|raw| (raw.capture, raw.signature)).unzip();
                let line = serde_json::json!({
                    "item": item, "position": position, "capture": capture, "signature": signature,
                });
                spool.write(format!("{line}\n").as_bytes()).await?;
            }
        }
        Ok(archive.add_spool("quarantine.jsonl", spool).await?)
    }
}
