//! What is measured of writing: a start, batches over HTTP, the ledger alone, a checkpoint.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use punchtrail_domain::{log::recorded::Actor, punch::Clock};
use punchtrail_infra::{
    access::deployment::Deployment,
    audit::checkpoint::{Checkpoints, Folder},
    ledger::{Delivery, DeliveryItem, Ledger, Metadata},
};
use punchtrail_protocol::{
    Time,
    signing::to_base64url,
    wire::{BatchItem, BatchRequest},
};
use punchtrail_testkit::eventually;
use punchtrail_tests::{Installation, Server};
use sqlx::PgPool;

use super::history::{Door, History, Signed};
use crate::{
    append::http::{Sender, send_all},
    database::Database,
    fleet::settled,
    report::rate,
};

/// How often each of these is measured; the middle one counts.
const TIMES: usize = 3;
/// Devices that send batches at once.
const SENDERS: usize = 8;
/// Rounds of a device's twenty people in a batch over HTTP.
const BATCH_ROUNDS: usize = 5;
/// And in one of the ledger alone.
const DELIVERY_ROUNDS: usize = 25;
const IN_FLIGHT: usize = 4;
/// How long read models may take to catch up with what was written.
const CATCH_UP_MAX: std::time::Duration = std::time::Duration::from_secs(4 * 3_600);

/// Lets a server's read models take what was written.
pub async fn catch_up(url: &str, place: &Installation, written: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut server = Server::start(place).await?;
    let pool = PgPool::connect(url).await?;
    eventually("read models at the head", CATCH_UP_MAX, async || {
        let behind: i64 = sqlx::query_scalar(
            "select (select position from ledger_head) - coalesce( \
             (select min(position) from read.projections where live), 0)",
        )
        .fetch_one(&pool)
        .await?;
        Ok((behind == 0).then_some(()))
    })
    .await?;
    settled(&pool).await?;
    signed(&server, place).await?;
    pool.close().await;
    server.terminate().await?;
    eprintln!("read models took {:.0} events a second", rate(written as usize, started));
    Ok(())
}

/// Waits until the newest checkpoint is of the head, too.
async fn signed(server: &Server, place: &Installation) -> anyhow::Result<()> {
    let operator = punchtrail_tests::Operator::new(&place.cli(), server.url(), "bench").await?;
    operator.settled(true, CATCH_UP_MAX).await.map(drop)
}

/// From the start of a server's process until it explains a punch, in milliseconds.
pub async fn start(place: &Installation, history: &History) -> anyhow::Result<f64> {
    let key = place.cli().text(&["key", "new"], "key").await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut took_ms = Vec::new();
    for turn in 0..TIMES {
        let started = Instant::now();
        let mut server = Server::start(place).await?;
        let url = format!("{}/v1/punches/{}/explanation", server.url(), history.punch(turn));
        let answer = http.get(url).bearer_auth(&key).send().await?;
        answer.error_for_status()?.bytes().await?;
        took_ms.push(started.elapsed().as_secs_f64() * 1_000.0);
        server.terminate().await?;
    }
    Ok(middle(took_ms))
}

/// Punches a second over HTTP, acknowledged.
pub async fn batch(
    url: &str,
    place: &Installation,
    history: &mut History,
    punches: usize,
) -> anyhow::Result<f64> {
    let mut server = Server::start(place).await?;
    let pool = PgPool::connect(url).await?;
    let mut rates = Vec::new();
    for _ in 0..TIMES {
        let bodies = |door: &mut Door| -> anyhow::Result<Sender> {
            let url = format!("{}/v1/sites/{}/punches/batch", server.url(), door.site);
            let batch = BATCH_ROUNDS * door.people.len();
            let batches = punches.div_ceil(TIMES * SENDERS * batch);
            let bodies = (0..batches).map(|_| body(door)).collect::<Result<_, _>>()?;
            Ok(Sender { url, token: door.token.clone(), bodies })
        };
        // Of different sites.
        let step = history.doors.len() / SENDERS;
        let senders: Vec<Sender> =
            history.doors.iter_mut().step_by(step).map(bodies).collect::<Result<_, _>>()?;
        let started = Instant::now();
        let applied = send_all(&reqwest::Client::new(), senders).await?;
        rates.push(rate(applied, started));
        settled(&pool).await?;
    }
    signed(&server, place).await?;
    pool.close().await;
    server.terminate().await?;
    Ok(middle(rates))
}

fn body(door: &mut Door) -> anyhow::Result<Vec<u8>> {
    let item = |signed: Signed| BatchItem {
        capture: to_base64url(signed.text.as_bytes()),
        signature: signed.signature.to_string(),
    };
    let punches = (0..BATCH_ROUNDS).flat_map(|_| door.measured_round()).map(item).collect();
    Ok(serde_json::to_vec(&BatchRequest { punches })?)
}

/// Punches a second into the ledger alone, in devices' batches of 500.
pub async fn append(
    database: &Database,
    history: &mut History,
    punches: usize,
) -> anyhow::Result<f64> {
    let ledger = Ledger::open(database.pools.writer.clone()).await?;
    let mut rates = Vec::new();
    for time in 0..TIMES {
        let each = history.doors.len() / TIMES;
        let doors = &mut history.doors[time * each..][..each];
        let batch = DELIVERY_ROUNDS * doors[0].people.len();
        let batches = punches.div_ceil(TIMES * batch);
        ensure!(batches <= doors.len(), "--punches is too much for one batch a device");
        let deliveries: Vec<Delivery> =
            doors[..batches].iter_mut().map(|door| delivery(door)).collect();
        let started = Instant::now();
        futures::stream::iter(deliveries)
            .map(|delivery| ledger.deliver(delivery))
            .buffered(IN_FLIGHT)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        rates.push(rate(batches * batch, started));
    }
    ledger.close().await;
    Ok(middle(rates))
}

fn delivery(door: &mut Door) -> Delivery {
    let (device, received_at) = (door.device, Time::from(jiff::Timestamp::now()));
    let signed: Vec<Signed> = (0..DELIVERY_ROUNDS).flat_map(|_| door.measured_round()).collect();
    let item = |Signed { capture, text, signature }: Signed| {
        let raw = BatchItem { capture: String::new(), signature: String::new() };
        DeliveryItem::capture(
            raw,
            text,
            signature,
            capture.punch,
            capture.seq,
            capture.prev,
            device,
            received_at,
            Clock::Unknown,
        )
    };
    let items = signed.into_iter().map(item).collect();
    Delivery { device, received_at, metadata: Metadata::new(Actor::Device(device)), items }
}

/// A checkpoint of what was appended since the last one, in microseconds an event.
pub async fn checkpoint(database: &Database, place: &Installation) -> anyhow::Result<f64> {
    let org = Deployment::open(&database.pools.writer).await?.org;
    let folder = Arc::new(Folder::open(place.data.path(), org)?);
    let before = folder.latest()?.context("the server has signed one")?.checkpoint.size;
    let checkpoints = Checkpoints::new(database.pools.writer.clone(), folder);
    let started = Instant::now();
    let signed = checkpoints.advance().await?.0 - before;
    ensure!(signed > 0, "something was appended since");
    Ok(started.elapsed().as_secs_f64() * 1e6 / signed as f64)
}

/// The middle one of what was measured.
pub fn middle(mut measured: Vec<f64>) -> f64 {
    measured.sort_unstable_by(f64::total_cmp);
    measured[measured.len() / 2]
}
