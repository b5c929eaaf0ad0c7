//! Explanations: one cheap read of what happened to a punch, and why.
//!
//! A punch is explained from its own events, read where they are: in the ledger, by the key of
//! their stream. So an explanation is never older than the ledger, costs nothing when a punch is
//! written, and can't differ from the events. What the events of *devices* say around a punch's
//! number (numbers that are missing, links that are broken, forks) can't be found that way; this
//! model keeps just that, a row for each such fact, and most devices never have one.
//!
//! Names and devices' last reports are read beside the ledger at the moment of asking.
//!
//! The model must never hold what the ledger says of a punch itself: there would be two answers.

mod absence;
mod cards;
mod context;
mod disputed;
mod evidence;
mod gaps;
mod ledger_alone;
mod memory;
mod read;
mod reader;
mod waiting;

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff_sqlx::ToSqlx;
use punchtrail_domain::{AggregateType, Event, device::DeviceEvent};
use punchtrail_infra::ledger::Entry;
use sqlx::PgConnection;

use crate::engine::{Generation, Projection, ProjectionError};

pub use absence::{
    AbsenceError, DEVICES_MAX, MISSING_RUNS_MAX, PUNCHES_MAX, RESTS_ON, explain_absence,
};
pub use evidence::evidence;
pub use ledger_alone::explain_from_ledger;
pub use read::{ExplainError, explain, explain_many, explain_many_to};
pub use reader::{EXPLAIN_BATCH_MAX, EXPLAIN_WAITING_MAX, Explanations};
pub use waiting::ITEMS_MAX;

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "explanations";

/// The models that a punch's explanation rests on.
pub const OF_PUNCH_RESTS_ON: [&str; 5] = [
    NAME,
    crate::rulings::disputes::NAME,
    crate::punches::timeline::NAME,
    crate::punches::timecards::NAME,
    crate::sites::NAME,
];

/// A device's numbers that were missing once, open or filled.
const GAPS: &str = "explanation_gaps";
/// What devices' events say of one number.
const MARKS: &str = "explanation_marks";
/// The number under which a device's revocation is kept; no capture has it.
const REVOKED: i64 = 0;

/// The model.
#[derive(Debug)]
pub struct ChainFacts;

impl Projection for ChainFacts {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &[GAPS, MARKS]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {gaps} (
                 device     uuid not null,
                 from_seq   bigint not null,
                 to_seq     bigint not null,
                 noticed    bigint not null,
                 noticed_at timestamptz not null,
                 came       bigint,
                 came_at    timestamptz,
                 -- Serves the numbers beside a punch's, and filling them. A device's runs never \
                 overlap.
                 primary key (device, from_seq)
             );
             create table {marks} (
                 device      uuid not null,
                 seq         bigint not null,
                 position    bigint not null,
                 recorded_at timestamptz not null,
                 -- Serves what is said of one number of a device; 0 stands for the device itself.
                 primary key (device, seq, position)
             )",
            gaps = generation.table(GAPS),
            marks = generation.table(MARKS),
        )
    }

    fn index_sql(&self, generation: &Generation) -> String {
        format!(
            "-- Serves the numbers that a device's punches are missing now, newest first.
             create index if not exists {open} on {gaps} (device, from_seq) where came is null;",
            open = generation.index(GAPS, "open"),
            gaps = generation.table(GAPS),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let mut changes = Vec::new();
            let mut marks = Marks::default();
            for entry in events.iter().filter(|entry| is_of_a_device(entry)) {
                let Event::Device(device, event) = entry.event()? else { continue };
                match event {
                    DeviceEvent::SequenceGapOpened { .. }
                    | DeviceEvent::SequenceGapClosed { .. } => {
                        changes.push((*device, entry.as_ref()));
                    }
                    DeviceEvent::LinkBroken { seq, .. } | DeviceEvent::ForkDetected { seq, .. } => {
                        marks.add(device.uuid(), seq.cast_signed(), entry);
                    }
                    DeviceEvent::Revoked { .. } => marks.add(device.uuid(), REVOKED, entry),
                    DeviceEvent::Registered { .. }
                    | DeviceEvent::Enrolled { .. }
                    | DeviceEvent::SiteAssigned { .. } => {}
                    // The punch's own events tell of it.
                    DeviceEvent::ConflictDetected { .. } => {}
                    // What a device is told to do says nothing of a punch.
                    DeviceEvent::CommandIssued { .. }
                    | DeviceEvent::CommandFinished { .. }
                    | DeviceEvent::CommandExpired { .. }
                    | DeviceEvent::CommandCancelled { .. } => {}
                }
            }
            marks.write(tx, &generation.table(MARKS)).await?;
            gaps::apply(tx, &generation.table(GAPS), &changes).await
        })
    }
}

fn is_of_a_device(entry: &Entry) -> bool {
    entry.recorded.aggregate_type == AggregateType::Device
}

#[derive(Default)]
struct Marks {
    devices: Vec<uuid::Uuid>,
    seqs: Vec<i64>,
    positions: Vec<i64>,
    times: Vec<jiff_sqlx::Timestamp>,
}

impl Marks {
    fn add(&mut self, device: uuid::Uuid, seq: i64, entry: &Entry) {
        self.devices.push(device);
        self.seqs.push(seq);
        self.positions.push(entry.recorded.position.to_db());
        self.times.push(entry.recorded.recorded_at.to_sqlx());
    }

    async fn write(self, tx: &mut PgConnection, table: &str) -> Result<(), ProjectionError> {
        if self.devices.is_empty() {
            return Ok(());
        }
        let statement = format!(
            "insert into {table} (device, seq, position, recorded_at) select * from \
             unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[])"
        );
        sqlx::query(&statement)
            .bind(self.devices)
            .bind(self.seqs)
            .bind(self.positions)
            .bind(self.times)
            .execute(tx)
            .await?;
        Ok(())
    }
}
