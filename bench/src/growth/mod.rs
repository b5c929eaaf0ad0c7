//! `bench growth`: whether what things cost depends on how much there is already. One ledger grows
//! from size to size, and at each the same is measured; what counts is each size's ratio to the
//! first of the run.
//!
//! What lies between two sizes is written straight into the tables, as the ledger and the
//! adjudicator would have left it, by devices that are enrolled and sign: a verification at the
//! end finds nothing amiss, or the run fails. The read models take it from the ledger themselves.

mod cpu;
pub(crate) mod history;
pub(crate) mod measure;
mod reads;
mod table;

use std::time::Instant;

use anyhow::ensure;
use punchtrail_tests::Installation;
use sqlx::PgPool;

use crate::{
    database::Cluster,
    report::{self, rate},
};
use history::{Calendar, History};
use table::{Aim, Table};

/// What an event takes on the disk at most, in bytes, with indexes, its part of the rows beside the
/// ledger and of the read models.
const EVENT_DISK_BYTES: u64 = 1_250;
/// What the run needs besides, in bytes: the log, and the measurements' own events.
const BESIDES_BYTES: u64 = 4 << 30;

/// How far to grow.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Events in the ledger at each measurement, smallest first.
    #[arg(long, value_delimiter = ',', default_value = "1000000,5000000,20000000")]
    events: Vec<u64>,
    /// How many punches each measurement of appends writes.
    #[arg(long, default_value_t = 20_000)]
    punches: usize,
    /// How many answers each measurement of reads takes.
    #[arg(long, default_value_t = 4_000)]
    reads: usize,
}

/// Grows a ledger, and measures at each size.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let sizes = &options.events;
    ensure!(sizes.is_sorted() && !sizes.is_empty(), "--events has sizes in ascending order");
    let cluster = Cluster::start().await?;
    cluster
        .ensure_free(sizes.iter().max().copied().unwrap_or(0) * EVENT_DISK_BYTES + BESIDES_BYTES)?;
    let url = cluster.empty().await?;
    let place = Installation::with_database(&url)?;
    let mut history = {
        let database = cluster.open(&url).await?;
        let history =
            History::begin(&database.pools, sizes[sizes.len() - 1], Calendar::Today).await?;
        database.pools.close().await;
        history
    };
    let mut table = Table::default();
    for size in sizes {
        grow(&cluster, &url, &place, &mut history, *size).await?;
        table.size(*size);
        at_size(&cluster, &url, &place, &mut history, &options, &mut table).await?;
        table.print();
    }
    cluster.stop().await?;
    table.print();
    report::write("growth", &table)
}

/// Writes what is missing to the size.
async fn grow(
    cluster: &Cluster,
    url: &str,
    place: &Installation,
    history: &mut History,
    size: u64,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let owner = PgPool::connect(url).await?;
    let written = history.write_up_to(&owner, size).await?;
    eprintln!("{written} events written, {:.0} a second", rate(written as usize, started));
    owner.close().await;
    measure::catch_up(url, place, written).await?;
    let owner = PgPool::connect(url).await?;
    sqlx::query("vacuum analyze").execute(&owner).await?;
    owner.close().await;
    cluster.checkpoint().await
}

async fn at_size(
    cluster: &Cluster,
    url: &str,
    place: &Installation,
    history: &mut History,
    options: &Options,
    table: &mut Table,
) -> anyhow::Result<()> {
    let [slower, less] = [Aim::AtMost(1.5), Aim::AtLeast(0.8)];
    table.measured("start", "ms", slower, measure::start(cluster, place, history).await?);
    reads::measure(cluster, place, history, options.reads, table).await?;
    let batch = measure::batch((cluster, url), place, history, options.punches).await?;
    table.measured("batch", "punches/s", less, batch);
    let database = cluster.open(url).await?;
    let there = (cluster, &database);
    let append = measure::append(there, history, options.punches).await?;
    table.measured("append", "punches/s", less, append);
    let bytes: i64 = sqlx::query_scalar("select pg_database_size(current_database())")
        .fetch_one(&database.pools.owner)
        .await?;
    let head: i64 = sqlx::query_scalar("select position from ledger_head")
        .fetch_one(&database.pools.owner)
        .await?;
    table.add("disk", bytes as f64 / head as f64, "B/event", Aim::AtMost(1.1));
    table.measured("checkpoint", "µs/event", slower, measure::checkpoint(there, place).await?);
    table.measured("verify", "events/s", less, measure::verify(there, place).await?);
    database.pools.close().await;
    Ok(database.postgres.close().await?)
}
