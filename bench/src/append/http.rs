//! Signed batches over HTTP into the real server: until acknowledged, and until settled.

use std::time::Instant;

use anyhow::ensure;
use punchtrail_protocol::{
    signing::to_base64url,
    wire::{BatchAnswer, BatchItem, BatchRequest, ItemStatus},
};
use punchtrail_tests::{Installation, Server};
use sqlx::PgPool;

use crate::{
    database::Cluster,
    fleet::{Enlisted, enlist, settled},
    load::Kiosk,
    report::rate,
};

const DEVICES: usize = 8;
const BATCH_PUNCHES: usize = 100;

/// Punches a second until the last answer, and until every follower stands at the head.
pub struct Rates {
    pub acknowledged: f64,
    pub settled: f64,
}

/// A device's batches, ready to be sent one after the other.
pub struct Sender {
    pub url: String,
    pub token: String,
    pub bodies: Vec<Vec<u8>>,
}

/// The row, in a database of its own.
pub async fn measure(cluster: &Cluster, punches: usize) -> anyhow::Result<Rates> {
    cluster
        .in_empty(async |url| {
            let pool = PgPool::connect(url).await?;
            let rates = deliver(url, &pool, punches).await?;
            pool.close().await;
            Ok(rates)
        })
        .await
}

async fn deliver(url: &str, pool: &PgPool, punches: usize) -> anyhow::Result<Rates> {
    let place = Installation::with_database(url)?;
    let mut server = Server::start(&place).await?;
    let fleet = enlist(&server, &place, DEVICES).await?;
    let senders = bodies(&server, fleet, punches)?;
    settled(pool).await?;
    let client = reqwest::Client::builder().pool_max_idle_per_host(DEVICES).build()?;
    let started = Instant::now();
    let applied = send_all(&client, senders).await?;
    let acknowledged = rate(applied, started);
    settled(pool).await?;
    let settled = rate(applied, started);
    ensure!(applied >= punches, "{applied} of {punches} punches were applied");
    server.terminate().await?;
    Ok(Rates { acknowledged, settled })
}

/// Fills a server with punches whose ids are numbers from 0 on, and waits until it has settled.
pub async fn fill(
    server: &Server,
    place: &Installation,
    pool: &PgPool,
    punches: usize,
) -> anyhow::Result<()> {
    let each = punches.div_ceil(DEVICES * BATCH_PUNCHES) * BATCH_PUNCHES;
    let fleet = enlist(server, place, DEVICES)
        .await?
        .into_iter()
        .zip(0..)
        .map(|(enlisted, n)| {
            let kiosk = enlisted.kiosk.numbered_from((n * each) as u64);
            Enlisted { kiosk, ..enlisted }
        })
        .collect();
    let client = reqwest::Client::new();
    let senders = bodies(server, fleet, punches)?;
    send_all(&client, senders).await?;
    settled(pool).await
}

/// All senders at once; how many punches were applied.
pub async fn send_all(client: &reqwest::Client, senders: Vec<Sender>) -> anyhow::Result<usize> {
    let sending = senders.into_iter().map(|sender| tokio::spawn(send(client.clone(), sender)));
    let mut applied = 0;
    for task in sending.collect::<Vec<_>>() {
        applied += task.await??;
    }
    Ok(applied)
}

async fn send(client: reqwest::Client, sender: Sender) -> anyhow::Result<usize> {
    let mut applied = 0;
    for body in sender.bodies {
        let answer: BatchAnswer = client
            .post(&sender.url)
            .bearer_auth(&sender.token)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        applied += answer.results.iter().filter(|r| r.status == ItemStatus::Applied).count();
    }
    Ok(applied)
}

/// Makes every body before the clock runs.
fn bodies(server: &Server, fleet: Vec<Enlisted>, punches: usize) -> anyhow::Result<Vec<Sender>> {
    let batches = punches.div_ceil(DEVICES * BATCH_PUNCHES);
    fleet
        .into_iter()
        .map(|Enlisted { token, mut kiosk }| {
            let bodies = (0..batches).map(|_| body(&mut kiosk)).collect::<Result<_, _>>()?;
            let url = format!("{}/v1/sites/{}/punches/batch", server.url(), kiosk.site());
            Ok(Sender { url, token, bodies })
        })
        .collect()
}

fn body(kiosk: &mut Kiosk) -> anyhow::Result<Vec<u8>> {
    let punches = (0..BATCH_PUNCHES)
        .map(|_| {
            let signed = kiosk.punch();
            BatchItem {
                capture: to_base64url(signed.text.as_bytes()),
                signature: signed.signature.to_string(),
            }
        })
        .collect();
    Ok(serde_json::to_vec(&BatchRequest { punches })?)
}
