//! `bench append`: punches a second, each with its three events, by every way into a ledger.

pub mod http;
mod ledger;

use std::time::Instant;

use crate::{database::Cluster, peers, report::Report};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many punches each row appends.
    #[arg(long, default_value_t = 200_000)]
    punches: usize,
    /// Only these rows.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Options {
    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }
}

/// Punches a second since `started`.
pub fn rate(punches: usize, started: Instant) -> f64 {
    punches as f64 / started.elapsed().as_secs_f64()
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let mut report = Report::default();
    let n = options.punches;

    let appended = cluster.database().await?;
    let append_rate = ledger::append(&appended, n).await?;
    if options.wants("copy") {
        let copied = cluster.database().await?;
        report.add("copy", ledger::copy(&appended, &copied, n).await?, "punches/s", None);
        copied.close().await?;
    }
    appended.close().await?;
    report.add("ledger_append", append_rate, "punches/s", Some("copy"));
    if options.wants("ledger_deliver") {
        let delivered = cluster.database().await?;
        let rate = ledger::deliver(&delivered, n).await?;
        report.add("ledger_deliver", rate, "punches/s", Some("copy"));
        delivered.close().await?;
    }
    if options.wants("stock_postgres_es") {
        let url = cluster.empty().await?;
        let rate = peers::postgres_es::execute(&url, n).await?;
        report.add("stock_postgres_es", rate, "punches/s", None);
    }
    if options.wants("http") {
        let url = cluster.empty().await?;
        let pool = sqlx::PgPool::connect(&url).await?;
        let rates = http::deliver(&url, &pool, n).await?;
        pool.close().await;
        let of = Some("stock_postgres_es");
        report.add("http", rates.acknowledged, "punches/s", of);
        report.add("http_settled", rates.settled, "punches/s", of);
    }
    cluster.stop().await?;
    report.finish("append")
}
