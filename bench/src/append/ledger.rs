//! The ledger alone, and the limit: COPY of the very rows it wrote.

use std::time::Instant;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use punchtrail_domain::{log::recorded::Actor, punch::Clock};
use punchtrail_infra::ledger::{Append, Delivery, DeliveryItem, Ledger, Metadata, QuarantineRoom};
use punchtrail_protocol::{Digest, PunchId, Time, wire::BatchItem};

use crate::{database::Database, load, report::rate};

const BATCH_PUNCHES: usize = 500;
/// How many batches are on their way at once, so that one is prepared while another commits.
const IN_FLIGHT: usize = 4;
const COLUMNS: &str = "aggregate_type, aggregate_id, sequence, event_type, event_version, payload, \
    metadata, position, recorded_at, leaf_hash";

/// The ledger alone, in batches of 500.
pub async fn append(database: &Database, punches: usize) -> anyhow::Result<f64> {
    let mut kiosk = load::Kiosk::unknown(500);
    let batches: Vec<Append> = (0..punches.div_ceil(BATCH_PUNCHES))
        .map(|_| Append {
            streams: (0..BATCH_PUNCHES).map(|_| load::stream(&mut kiosk)).collect(),
            metadata: Metadata::new(Actor::Device(kiosk.device())),
            side: None,
        })
        .collect();
    let ledger = Ledger::open(database.pools.writer.clone()).await?;
    let started = Instant::now();
    futures::stream::iter(batches)
        .map(|batch| ledger.append(batch))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let rate = rate(punches, started);
    ledger.close().await;
    Ok(rate)
}

/// What a device's batches cost in the ledger: two events a punch and their place in the chain.
pub async fn deliver(database: &Database, punches: usize) -> anyhow::Result<f64> {
    let mut kiosk = load::Kiosk::unknown(500);
    let received_at = Time::from_millis(1_790_000_000_000);
    let batches: Vec<Delivery> = (0..punches.div_ceil(BATCH_PUNCHES))
        .map(|_| {
            let mut prev = Digest::ZERO;
            let items = (0..BATCH_PUNCHES)
                .map(|_| {
                    let signed = kiosk.punch();
                    let (punch, signature): (PunchId, _) = (signed.punch, signed.signature);
                    let digest = Digest::of(signed.text.as_bytes());
                    let before = std::mem::replace(&mut prev, digest);
                    let raw = BatchItem { capture: String::new(), signature: String::new() };
                    DeliveryItem::capture(
                        raw,
                        signed.text,
                        signature,
                        punch,
                        kiosk.seq(),
                        before,
                        kiosk.device(),
                        received_at,
                        Clock::Unknown,
                    )
                })
                .collect();
            let metadata = Metadata::new(Actor::Device(kiosk.device()));
            let room = QuarantineRoom::OF_DEVICE;
            Delivery { device: kiosk.device(), received_at, metadata, items, room }
        })
        .collect();
    let ledger = Ledger::open(database.pools.writer.clone()).await?;
    let started = Instant::now();
    futures::stream::iter(batches)
        .map(|batch| ledger.deliver(batch))
        .buffered(IN_FLIGHT)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let rate = rate(punches, started);
    ledger.close().await;
    Ok(rate)
}

/// The limit: COPY of the same event rows into the same table and indexes, in one statement.
pub async fn copy(from: &Database, to: &Database, punches: usize) -> anyhow::Result<f64> {
    let out =
        format!("copy (select {COLUMNS} from events order by position) to stdout (format binary)");
    let mut owner = from.pools.owner.acquire().await?;
    let rows: Vec<_> = owner.copy_out_raw(&out).await?.try_collect().await?;
    drop(owner);
    let bytes: Vec<Vec<u8>> = rows
        .chunks(4_096)
        .map(|chunk| chunk.iter().flat_map(|row| row.iter().copied()).collect())
        .collect();
    let statement = format!("copy events ({COLUMNS}) from stdin (format binary)");
    let mut owner = to.pools.owner.acquire().await?;
    let started = Instant::now();
    let mut copy = owner.copy_in_raw(&statement).await?;
    for chunk in bytes {
        copy.send(chunk).await?;
    }
    let taken = copy.finish().await?;
    let rate = rate(punches, started);
    let expected: u64 = (punches.div_ceil(BATCH_PUNCHES) * BATCH_PUNCHES * 3) as u64;
    (taken == expected).then_some(rate).context("COPY took another number of rows")
}
