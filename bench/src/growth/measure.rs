//! What is measured of writing: a start, batches over HTTP, the ledger alone, a checkpoint; and a
//! verification.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use punchtrail_domain::{log::recorded::Actor, punch::Clock};
use punchtrail_infra::{
    access::deployment::Deployment,
    audit::{
        self, Claims,
        checkpoint::{Checkpoints, Folder},
    },
    ledger::{Delivery, DeliveryItem, Ledger, Metadata, QuarantineRoom},
};
use punchtrail_protocol::{
    Time,
    signing::to_base64url,
    wire::{BatchItem, BatchRequest},
};
use punchtrail_testkit::eventually;
use punchtrail_tests::{Installation, Server};
use sqlx::PgPool;

use super::{
    cpu::Workers,
    history::{Door, History, Signed},
};
use crate::{
    append::http::{Sender, send_all},
    database::{Cluster, Database},
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
const CATCH_UP_MAX: Duration = Duration::from_secs(4 * 3_600);

/// What was measured, by the clock and by the processors.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub by_clock: f64,
    /// Processor time of the server and of Postgres, for each of what was done, in microseconds.
    pub cpu_us: f64,
}

/// Processor time since, in microseconds for each of `done`.
pub fn cpu_us(workers: Workers, before: Duration, done: usize) -> anyhow::Result<f64> {
    Ok(workers.time()?.saturating_sub(before).as_secs_f64() * 1e6 / done as f64)
}

/// Of work in this process.
fn here(cluster: &Cluster) -> anyhow::Result<Workers> {
    Ok(Workers { postmaster: cluster.postmaster()?, server: Some(std::process::id()) })
}

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
pub async fn start(
    cluster: &Cluster,
    place: &Installation,
    history: &History,
) -> anyhow::Result<Measured> {
    let key = place.cli().text(&["key", "new"], "key").await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut measured = Vec::new();
    for turn in 0..TIMES {
        let postmaster = cluster.postmaster()?;
        let (before, started) = (Workers { postmaster, server: None }.time()?, Instant::now());
        let mut server = Server::start(place).await?;
        let url = format!("{}/v1/punches/{}/explanation", server.url(), history.punch(turn));
        let answer = http.get(url).bearer_auth(&key).send().await?;
        answer.error_for_status()?.bytes().await?;
        let by_clock = started.elapsed().as_secs_f64() * 1_000.0;
        let workers = Workers { postmaster, server: Some(server.process().id()) };
        measured.push(Measured { by_clock, cpu_us: cpu_us(workers, before, 1)? });
        server.terminate().await?;
    }
    Ok(middle(measured))
}

/// Punches a second over HTTP, acknowledged; the processors' time until they are judged and in all
/// read models.
pub async fn batch(
    (cluster, url): (&Cluster, &str),
    place: &Installation,
    history: &mut History,
    punches: usize,
) -> anyhow::Result<Measured> {
    let mut server = Server::start(place).await?;
    let pool = PgPool::connect(url).await?;
    settled(&pool).await?;
    let (postmaster, server_id) = (cluster.postmaster()?, server.process().id());
    let workers = Workers { postmaster, server: Some(server_id) };
    let mut measured = Vec::new();
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
        let (before, started) = (workers.time()?, Instant::now());
        let applied = send_all(&reqwest::Client::new(), senders).await?;
        let by_clock = rate(applied, started);
        settled(&pool).await?;
        measured.push(Measured { by_clock, cpu_us: cpu_us(workers, before, applied)? });
    }
    signed(&server, place).await?;
    pool.close().await;
    server.terminate().await?;
    Ok(middle(measured))
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
    (cluster, database): (&Cluster, &Database),
    history: &mut History,
    punches: usize,
) -> anyhow::Result<Measured> {
    let workers = here(cluster)?;
    let ledger = Ledger::open(database.pools.writer.clone()).await?;
    let mut measured = Vec::new();
    for time in 0..TIMES {
        let each = history.doors.len() / TIMES;
        let doors = &mut history.doors[time * each..][..each];
        let batch = DELIVERY_ROUNDS * doors[0].people.len();
        let batches = punches.div_ceil(TIMES * batch);
        ensure!(batches <= doors.len(), "--punches is too much for one batch a device");
        let deliveries: Vec<Delivery> = doors[..batches].iter_mut().map(delivery).collect();
        let (before, started) = (workers.time()?, Instant::now());
        futures::stream::iter(deliveries)
            .map(|delivery| ledger.deliver(delivery))
            .buffered(IN_FLIGHT)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        let done = batches * batch;
        let by_clock = rate(done, started);
        measured.push(Measured { by_clock, cpu_us: cpu_us(workers, before, done)? });
    }
    ledger.close().await;
    Ok(middle(measured))
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
    let (metadata, room) = (Metadata::new(Actor::Device(device)), QuarantineRoom::OF_DEVICE);
    Delivery { device, received_at, metadata, items, room }
}

/// A checkpoint of what was appended since the last one, in microseconds an event.
pub async fn checkpoint(
    (cluster, database): (&Cluster, &Database),
    place: &Installation,
) -> anyhow::Result<Measured> {
    let workers = here(cluster)?;
    let org = Deployment::open(&database.pools.writer).await?.org;
    let folder = Arc::new(Folder::open(place.data.path(), org)?);
    let before = folder.latest()?.context("the server has signed one")?.checkpoint.size;
    let checkpoints = Checkpoints::new(database.pools.writer.clone(), folder);
    let (cpu, started) = (workers.time()?, Instant::now());
    let signed = usize::try_from(checkpoints.advance().await?.0 - before)?;
    ensure!(signed > 0, "something was appended since");
    let by_clock = started.elapsed().as_secs_f64() * 1e6 / signed as f64;
    Ok(Measured { by_clock, cpu_us: cpu_us(workers, cpu, signed)? })
}

/// Events a second through a verification, which must find nothing.
pub async fn verify(
    (cluster, database): (&Cluster, &Database),
    place: &Installation,
) -> anyhow::Result<Measured> {
    let workers = here(cluster)?;
    let org = Deployment::open(&database.pools.writer).await?.org;
    let claims = Claims::read(place.data.path(), org)?;
    let (before, started) = (workers.time()?, Instant::now());
    let audited = audit::audit(&database.pools.owner, claims, &|_| {}).await?;
    ensure!(audited.intact, "verification found {:?}", audited.findings);
    let events = usize::try_from(audited.events)?;
    Ok(Measured { by_clock: rate(events, started), cpu_us: cpu_us(workers, before, events)? })
}

/// The middle ones of what was measured.
fn middle(mut measured: Vec<Measured>) -> Measured {
    let mut middle_by = |of: fn(&Measured) -> f64| {
        measured.sort_unstable_by(|one, other| of(one).total_cmp(&of(other)));
        of(&measured[measured.len() / 2])
    };
    Measured { by_clock: middle_by(|it| it.by_clock), cpu_us: middle_by(|it| it.cpu_us) }
}
