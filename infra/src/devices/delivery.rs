//! A device's delivery on its way into the ledger: what was read of it, with what is known of the
//! clock that each capture was made by.

use std::collections::HashMap;

use punchtrail_domain::{
    delivery::{Found, ReadItem},
    punch::Clock,
};
use punchtrail_protocol::{BootId, DeviceId, Time};

use super::reports::{self, BootReport};
use crate::{ledger::DeliveryItem, postgres::Pool};

/// Makes what was read of a device's delivery ready for the ledger, in order.
///
/// # Errors
/// When the database is out of reach.
pub async fn prepare(
    writer: &Pool,
    device: DeviceId,
    received_at: Time,
    items: Vec<ReadItem>,
) -> Result<Vec<DeliveryItem>, sqlx::Error> {
    let mut boots: Vec<_> = items.iter().filter_map(boot).map(BootId::uuid).collect();
    boots.sort_unstable();
    boots.dedup();
    let known = reports::boots(writer, device, &boots).await?;
    Ok(items.into_iter().map(|item| ready(item, device, received_at, &known)).collect())
}

fn boot(item: &ReadItem) -> Option<BootId> {
    match &item.found {
        Found::Capture { said, .. } => Some(said.boot),
        Found::Fault { .. } => None,
    }
}

fn ready(
    ReadItem { raw, found }: ReadItem,
    device: DeviceId,
    received_at: Time,
    boots: &HashMap<BootId, BootReport>,
) -> DeliveryItem {
    match found {
        Found::Fault { code, fragment, held, known_as, .. } => {
            DeliveryItem::quarantine(raw, code, fragment.punch, held, known_as)
        }
        Found::Capture { text, signature, said } => {
            let clock = boots
                .get(&said.boot)
                .map_or(Clock::Unknown, |b| b.clock_at(said.captured_at, said.uptime_ms));
            DeliveryItem::capture(
                raw,
                text,
                signature,
                said.punch,
                said.seq,
                said.prev,
                device,
                received_at,
                clock,
            )
        }
    }
}
