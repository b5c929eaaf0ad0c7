//! `bench rebuild`: events a second through a rebuild of each read model, beside COPY of as many
//! event rows out of the ledger's table and into one like it.

use std::time::Instant;

use futures::TryStreamExt;
use punchtrail_infra::ledger::Ledger;
use punchtrail_tests::{Installation, Server};
use sqlx::postgres::PgPoolCopyExt;

use crate::{append::http, database::Cluster, report::Report};

/// What to measure, and how much of it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many punches the ledger holds, three events each.
    #[arg(long, default_value_t = 100_000)]
    punches: usize,
}

/// Measures each read model from the first event on.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let url = cluster.empty().await?;
    let place = Installation::with_database(&url)?;
    let mut server = Server::start(&place).await?;
    let pool = sqlx::PgPool::connect(&url).await?;
    http::fill(&server, &place, &pool, options.punches).await?;
    server.terminate().await?;
    let events: i64 =
        sqlx::query_scalar("select position from ledger_head").fetch_one(&pool).await?;

    let mut report = Report::default();
    sqlx::query("create table copied (like events including all)").execute(&pool).await?;
    let started = Instant::now();
    let chunks: Vec<_> =
        pool.copy_out_raw("copy events to stdout (format binary)").await?.try_collect().await?;
    let mut copy = pool.copy_in_raw("copy copied from stdin (format binary)").await?;
    let mut buffer = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(&chunk);
        if buffer.len() >= 256 << 10 {
            copy.send(std::mem::take(&mut buffer)).await?;
        }
    }
    copy.send(buffer).await?;
    copy.finish().await?;
    let rate = |started: Instant| events as f64 / started.elapsed().as_secs_f64();
    report.add("copy_out_and_in", rate(started), "events/s", None);

    let database = cluster.open(&url).await?;
    let ledger = Ledger::open(database.pools.writer.clone()).await?;
    let models = punchtrail_projections::all();
    for model in &models {
        let started = Instant::now();
        punchtrail_projections::engine::rebuild(
            &models,
            &database.pools.reader,
            &ledger.feed(),
            model.name(),
            |_, _| {},
        )
        .await?;
        report.add(model.name(), rate(started), "events/s", Some("copy_out_and_in"));
    }
    ledger.close().await;
    cluster.discard(database).await?;
    pool.close().await;
    cluster.stop().await?;
    report.finish("rebuild")
}
