//! `bench append`: punches a second, each with its three events, by every way into a ledger.

pub mod http;
mod ledger;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use crate::{database::Cluster, peers, report::Report};

/// The limit that the rows are measured against, but for those over HTTP.
const LIMIT: Option<&str> = Some("copy");
const UNIT: &str = "punches/s";
/// How many punches share a transaction of `message_db_batched`: as many as a device's batch has.
const BATCH_PUNCHES: usize = 100;
/// How many punches `disintegrate_postgres` is given at most. Its tables stay small, which favours
/// it; all 200,000 would take it a quarter of an hour.
const DISINTEGRATE_PUNCHES_MAX: usize = 20_000;
const ROWS: [&str; 9] = [
    "copy",
    "ledger_append",
    "ledger_deliver",
    "stock_postgres_es",
    "disintegrate_postgres",
    "message_db",
    "message_db_batched",
    "check_in",
    "http",
];

/// What to measure, and how much of it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many punches each row appends.
    #[arg(long, default_value_t = 200_000)]
    punches: usize,
    /// Only these rows; `http` brings `http_settled`, too.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(ROWS))]
    only: Vec<String>,
    /// The unpacked package of the peer Message DB; `./dev bench` brings it where npm is. Without
    /// it its rows are left out.
    #[arg(long, env = "PUNCHTRAIL_BENCH_MESSAGE_DB")]
    message_db: Option<PathBuf>,
}

impl Options {
    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }
}

/// Measures appends, by every way.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let mut report = Report::default();
    ledger_rows(&options, &cluster, &mut report).await?;
    peer_rows(&options, &cluster, &mut report).await?;
    if options.wants("http") {
        let rates = http::measure(&cluster, options.punches).await?;
        let of = Some("stock_postgres_es");
        report.add("http", rates.acknowledged, UNIT, of);
        report.add("http_settled", rates.settled, UNIT, of);
    }
    cluster.stop().await?;
    report.finish("append")
}

async fn ledger_rows(
    options: &Options,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    let n = options.punches;
    if options.wants("copy") || options.wants("ledger_append") {
        let appended = cluster.database().await?;
        let append_rate = ledger::append(&appended, n).await?;
        if options.wants("copy") {
            let copied = cluster.database().await?;
            report.add("copy", ledger::copy(&appended, &copied, n).await?, UNIT, None);
            cluster.discard(copied).await?;
        }
        cluster.discard(appended).await?;
        report.add("ledger_append", append_rate, UNIT, LIMIT);
    }
    if options.wants("ledger_deliver") {
        let delivered = cluster.database().await?;
        report.add("ledger_deliver", ledger::deliver(&delivered, n).await?, UNIT, LIMIT);
        cluster.discard(delivered).await?;
    }
    Ok(())
}

async fn peer_rows(
    options: &Options,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    let n = options.punches;
    if options.wants("stock_postgres_es") {
        let rate = cluster.in_empty(async |url| peers::postgres_es::execute(url, n).await).await?;
        report.add("stock_postgres_es", rate, UNIT, LIMIT);
    }
    if options.wants("disintegrate_postgres") {
        let n = n.min(DISINTEGRATE_PUNCHES_MAX);
        let rate = cluster.in_empty(async |url| peers::disintegrate::decide(url, n).await).await?;
        report.add("disintegrate_postgres", rate, UNIT, LIMIT);
    }
    for (row, batch_punches) in [("message_db", 1), ("message_db_batched", BATCH_PUNCHES)] {
        if options.wants(row) {
            message_db_row(row, batch_punches, options, cluster, report).await?;
        }
    }
    if options.wants("check_in") {
        let rate = cluster.in_empty(async |url| peers::check_in::insert(url, n).await).await?;
        report.add("check_in", rate, UNIT, LIMIT);
    }
    Ok(())
}

async fn message_db_row(
    row: &str,
    batch_punches: usize,
    options: &Options,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    let Some(package) = &options.message_db else {
        eprintln!(
            "{row} is left out: the package of Message DB isn't here, ./dev bench brings it by npm"
        );
        return Ok(());
    };
    let psql = cluster.program("psql")?;
    let write = async |url: &str| {
        peers::message_db::write(url, package, &psql, batch_punches, options.punches).await
    };
    let rate = cluster.in_empty(write).await?;
    report.add(row, rate, UNIT, LIMIT);
    Ok(())
}
