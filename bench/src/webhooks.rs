//! `bench webhooks`: deliveries a second to a receiver on this machine beside a bare loop of the
//! same requests, and what receivers that hang cost those that don't.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use jiff::Timestamp;
use punchtrail_infra::{
    access::trail::Doer,
    postgres::Pool,
    webhooks::{
        address::Egress,
        deliverer::{Deliverer, Now},
        endpoints::{self, Described, Start},
        secrets::Keeper,
        sending::Sender,
    },
};
use punchtrail_testkit::{Receiver, Reply, eventually};
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    database::Cluster,
    kernel::{mib, status},
    report::{Aim, Report, Row, rate, write},
};

/// However slow the machine is.
const WAIT: Duration = Duration::from_secs(600);
/// A body, of the size that a punch's has.
const BODY: &str = concat!(
    r#"{"type":"punch.accepted","timestamp":"2026-11-21T09:00:00.000Z","data":{"position":1,"#,
    r#""punch":"0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e","#,
    r#""employee":"0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8f","external_id":"P-4711","#,
    r#""site":"0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d90","#,
    r#""device":"0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d91","kind":"in","#,
    r#""captured_at":"2026-11-21T08:59:58.000Z","effective_at":"2026-11-21T08:59:58.000Z","#,
    r#""standing":"accepted","counts":true,"reasons":[],"joined":null,"basis":"policy"}}"#,
);

/// What to measure, and how much of it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Deliveries to one receiver.
    #[arg(long, default_value_t = 20_000)]
    deliveries: usize,
    /// Receivers that answer, beside those that hang.
    #[arg(long, default_value_t = 100)]
    well: usize,
    /// Receivers that hang.
    #[arg(long, default_value_t = 900)]
    hang: usize,
    /// Deliveries to each of those.
    #[arg(long, default_value_t = 50)]
    each: usize,
}

#[derive(Debug, Serialize)]
struct Measured {
    rows: Vec<Row>,
    aims: Vec<Aim>,
}

/// Measures it.
///
/// # Errors
/// When anything fails.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let measured = measure(&cluster, &options).await;
    cluster.stop().await?;
    let Measured { rows, aims } = measured?;
    for aim in &aims {
        aim.print();
    }
    write("webhooks", &Measured { rows, aims })
}

async fn measure(cluster: &Cluster, options: &Options) -> anyhow::Result<Measured> {
    let mut report = Report::default();
    report.add("bare_loop", bare(options.deliveries).await?, "requests/s", None);
    let database = cluster.database().await?;
    let place = Place::of(&database.pools.writer).await?;
    let receiver = Receiver::counting(Reply::status(200)).await?;
    let endpoint = place.endpoint(&receiver.url()).await?;
    place.fill(&[endpoint], options.deliveries).await?;
    let started = Instant::now();
    place.deliver(&receiver, options.deliveries).await?;
    report.add("delivered", rate(options.deliveries, started), "requests/s", Some("bare_loop"));
    cluster.discard(database).await?;

    let alone = among(cluster, options, 0).await?;
    let beside = among(cluster, options, options.hang).await?;
    let count = options.well * options.each;
    report.add("alone", count as f64 / alone.seconds, "requests/s", None);
    report.add("beside_hanging", count as f64 / beside.seconds, "requests/s", Some("alone"));
    let ratio = report.rows[1].ratio.context("a row beside the bare loop")?;
    let aims = vec![
        Aim::at_least("deliveries by a bare loop's requests", ratio, 0.5, ""),
        Aim::at_most(
            "time beside hanging receivers by alone",
            beside.seconds / alone.seconds,
            2.0,
            "",
        ),
        Aim::at_most(
            "memory beside them, more than alone",
            beside.more_mib - alone.more_mib,
            64.0,
            " MiB",
        ),
    ];
    Ok(Measured { rows: report.rows, aims })
}

/// One request after the other, and nothing else.
async fn bare(count: usize) -> anyhow::Result<f64> {
    let receiver = Receiver::counting(Reply::status(200)).await?;
    let (http, url) = (reqwest::Client::builder().no_proxy().build()?, receiver.url());
    let started = Instant::now();
    for _ in 0..count {
        let asked = http.post(&url).header("content-type", "application/json").body(BODY);
        asked.send().await?.bytes().await?;
    }
    Ok(rate(count, started))
}

/// How long those took that answer, and how much more memory there was then.
struct Among {
    seconds: f64,
    more_mib: f64,
}

async fn among(cluster: &Cluster, options: &Options, hang: usize) -> anyhow::Result<Among> {
    let database = cluster.database().await?;
    let place = Place::of(&database.pools.writer).await?;
    let well = Receiver::counting(Reply::status(200)).await?;
    let hanging = Receiver::counting(Reply::Hangs).await?;
    let mut endpoints = Vec::new();
    for nth in 0..options.well + hang {
        let receiver = if nth < options.well { &well } else { &hanging };
        endpoints.push(place.endpoint(&receiver.url()).await?);
    }
    place.fill(&endpoints, options.each).await?;
    let before_mib = resident()?;
    let started = Instant::now();
    let stop = place.begin()?;
    received(&well, options.well * options.each).await?;
    let among = Among {
        seconds: started.elapsed().as_secs_f64(),
        more_mib: (resident()? - before_mib).max(0.0),
    };
    stop.end().await;
    cluster.discard(database).await?;
    Ok(among)
}

fn resident() -> anyhow::Result<f64> {
    Ok(mib(&status(std::process::id()).context("this process runs")?, "VmRSS"))
}

async fn received(receiver: &Receiver, count: usize) -> anyhow::Result<()> {
    eventually(format!("{count} deliveries"), WAIT, async || {
        Ok((receiver.count() >= count).then_some(()))
    })
    .await
}

/// A database with endpoints and deliveries in it.
struct Place {
    pool: Pool,
    keeper: Keeper,
    _dir: tempfile::TempDir,
}

/// Who delivers, until it is ended.
struct Delivering {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Delivering {
    async fn end(self) {
        self.stop.cancel();
        // It ends whatever becomes of what is under way.
        let _ = self.task.await;
    }
}

impl Place {
    async fn of(pool: &Pool) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let keeper = Keeper::of(&dir.path().join("webhooks.key")).await?;
        Ok(Self { pool: pool.clone(), keeper, _dir: dir })
    }

    async fn endpoint(&self, url: &str) -> anyhow::Result<Uuid> {
        let described = Described {
            name: "bench".to_owned(),
            url: url.to_owned(),
            types: None,
            sites: None,
            contact: None,
        };
        let at = (Start::Now, Timestamp::now());
        let doer = Doer::command_line();
        Ok(endpoints::make(&self.pool, &self.keeper, &described, at, &doer).await?.0)
    }

    /// So many deliveries in line for each.
    async fn fill(&self, endpoints: &[Uuid], each: usize) -> anyhow::Result<()> {
        sqlx::query(
            "insert into webhook_events (id, position, type, sites, body, at) \
             select 'evt_' || n, n, 'punch.accepted', '{}', $2, now() \
             from generate_series(1, $1::bigint) as n",
        )
        .bind(each as i64)
        .bind(BODY)
        .execute(&self.pool)
        .await?;
        sqlx::query(
            "insert into webhook_deliveries (endpoint, event, position, due_at, made_at) \
             select endpoint, 'evt_' || n, n, now(), now() \
             from generate_series(1, $1::bigint) as n, unnest($2::uuid[]) as endpoint",
        )
        .bind(each as i64)
        .bind(endpoints)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    fn begin(&self) -> anyhow::Result<Delivering> {
        let now: Now = Arc::new(Timestamp::now);
        let sender = Sender::new(Egress::new(Vec::new(), true))?;
        let (pool, keeper) = (self.pool.clone(), self.keeper.clone());
        let news = Arc::new(Notify::new());
        let deliverer = Deliverer::new(pool, keeper, sender, (Uuid::new_v4(), now), news);
        let stop = CancellationToken::new();
        let task = tokio::spawn(deliverer.run(None, stop.clone()));
        Ok(Delivering { stop, task })
    }

    async fn deliver(&self, receiver: &Receiver, count: usize) -> anyhow::Result<()> {
        let delivering = self.begin()?;
        received(receiver, count).await?;
        delivering.end().await;
        Ok(())
    }
}
