//! Devices: where they serve, what came from them, what is missing.
//!
//! What the ledger proves stands in this model's tables. What a device last said of itself (how
//! much it still holds) is joined from its report when read, and is only that: its last word, with
//! its time.

mod batch;
pub mod commands;
mod read;

use std::sync::Arc;

use futures::future::BoxFuture;
use punchtrail_infra::ledger::Entry;
use sqlx::PgConnection;

use crate::engine::{Generation, Projection, ProjectionError};

pub use read::{DeviceView, GAPS_SHOWN_MAX, LastReport, list, of_person, one};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "devices";

/// The model.
#[derive(Debug)]
pub struct Devices;

impl Projection for Devices {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &["devices", "devices_sites", "devices_gaps"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        // A row of a busy device moves with every batch: room on its page keeps it there.
        format!(
            "create table {devices} (
                 -- Serves one device, and the list in the order of ids.
                 device         uuid primary key,
                 -- The present one.
                 site           uuid,
                 app            text,
                 enrolled_at    timestamptz,
                 revoked_at     timestamptz,
                 punches        bigint not null,
                 quarantined    bigint not null,
                 forks          bigint not null,
                 conflicts      bigint not null,
                 broken_links   bigint not null,
                 last_seq       bigint not null,
                 last_synced_at timestamptz,
                 position       bigint not null
             ) with (fillfactor = 50);
             create table {sites} (
                 site   uuid not null,
                 device uuid not null,
                 -- Serves a site's devices in the order of ids.
                 primary key (site, device)
             );
             -- Serves every site of a device.
             create index {by_device} on {sites} (device);
             create table {gaps} (
                 device uuid not null,
                 first  bigint not null,
                 last   bigint not null,
                 -- Serves the open gaps of a device in order.
                 primary key (device, first)
             );",
            devices = generation.table("devices"),
            sites = generation.table("devices_sites"),
            by_device = generation.index("devices_sites", "device"),
            gaps = generation.table("devices_gaps"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(batch::apply(tx, generation, events))
    }
}
