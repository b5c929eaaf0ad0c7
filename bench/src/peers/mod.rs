//! Peers, each used in its own best documented way; and what they share: eight callers at once, who
//! bring the same punches and count them the same way.

pub mod check_in;
pub mod disintegrate;
pub mod message_db;
pub mod postgres_es;

use std::{future::Future, time::Instant};

use anyhow::ensure;
use punchtrail_domain::punch::PunchEvent;
use punchtrail_protocol::PunchId;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{load, report::rate};

/// How many callers write at once.
const AT_ONCE: usize = 8;
/// How many people punch, in turn.
const PEOPLE: usize = 500;

/// A punch and all that happens to it.
type Punch = (PunchId, [PunchEvent; 3]);

fn punches(count: usize) -> Vec<Punch> {
    let mut kiosk = load::Kiosk::unknown(PEOPLE);
    (0..count)
        .map(|_| {
            let signed = kiosk.punch();
            (signed.punch, load::events(&signed, kiosk.device()))
        })
        .collect()
}

/// Deals `work` out to the callers, each of whom takes its share piece by piece. Returns how many
/// of `punches` were done a second.
async fn side_by_side<Work, Call, Done>(
    punches: usize,
    work: Vec<Work>,
    call: Call,
) -> anyhow::Result<f64>
where
    Work: Send + 'static,
    Call: Fn(Work) -> Done + Clone + Send + Sync + 'static,
    Done: Future<Output = anyhow::Result<()>> + Send,
{
    let mut shares: Vec<Vec<Work>> = (0..AT_ONCE).map(|_| Vec::new()).collect();
    for (n, piece) in work.into_iter().enumerate() {
        shares[n % AT_ONCE].push(piece);
    }
    let started = Instant::now();
    let callers = shares.into_iter().map(|share| {
        let call = call.clone();
        tokio::spawn(async move {
            for piece in share {
                call(piece).await?;
            }
            anyhow::Ok(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    Ok(rate(punches, started))
}

/// A connection for each caller, not asked whether it still stands each time it is taken.
async fn connect(options: PgConnectOptions) -> anyhow::Result<PgPool> {
    let connections = AT_ONCE as u32;
    Ok(PgPoolOptions::new()
        .min_connections(connections)
        .max_connections(connections)
        .test_before_acquire(false)
        .connect_with(options)
        .await?)
}

/// Closes the pool, once all `rows` of what was written are there.
async fn finish(pool: PgPool, table: &str, rows: usize) -> anyhow::Result<()> {
    let count = format!("select count(*) from {table}");
    let stored: i64 = sqlx::query_scalar(&count).fetch_one(&pool).await?;
    pool.close().await;
    ensure!(usize::try_from(stored)? == rows, "{stored} of {rows} rows are in {table}");
    Ok(())
}
