//! `bench verify`: what checking faces costs, part by part, each of which can be run alone.
//!
//! - `checks`: local checks a second on all cores, beside the models alone.
//! - `delay`: how long a worker waits for a verdict, and the highest rate that holds.
//! - `sqs`: calls to SQS for a thousand messages, as Moto counts them.
//! - `memory`: the server's memory while a thousand photos wait for a checker that is away.
//!
//! An aim that is missed is only said.

mod checks;
mod delay;
mod door;
mod memory;
mod pictures;
mod report;
mod search;
mod sqs;

use anyhow::{Context, ensure};
use punchtrail_testkit::Faces;

use self::report::VerifyReport;
use crate::{database::Cluster, interrupted};

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Local checks a second, beside the bare models
    Checks,
    /// From punch and photo to the verdict, at given rates, and the highest rate that holds
    Delay,
    /// Calls to SQS for so many messages
    Sqs,
    /// The server's memory while photos wait
    Memory,
}

/// What to measure, and how much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Only these parts, in this order.
    #[arg(long, value_delimiter = ',', value_enum, default_value = "checks,delay,sqs,memory")]
    parts: Vec<Part>,
    /// `checks`: rounds of each row, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// `checks`: how long a round takes, in seconds.
    #[arg(long, default_value_t = 3)]
    round_s: u64,
    /// `delay`: punches a second, one rate after the other.
    #[arg(long, value_delimiter = ',', default_value = "1,5,10")]
    rates: Vec<f64>,
    /// `delay`: how long each of them is kept up, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// `delay`: how long each rate is tried in the search for the highest that holds, in seconds; 0
    /// leaves the search out.
    #[arg(long, default_value_t = 20)]
    search_s: u64,
    /// `delay`: devices that take turns; a punch that finds none free waits, and its wait counts.
    #[arg(long, default_value_t = 64)]
    devices: usize,
    /// `sqs`: messages.
    #[arg(long, default_value_t = 1_000)]
    messages: usize,
    /// `memory`: photos that wait.
    #[arg(long, default_value_t = 1_000)]
    photos: usize,
}

/// Measures what checking faces costs.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let rates = &options.rates;
    ensure!(rates.iter().all(|rate| rate.is_finite() && *rate > 0.0), "--rates are above 0");
    ensure!(options.devices > 0 && options.rounds > 0, "--devices and --rounds are above 0");
    let mut report = VerifyReport::new();
    if options.parts.contains(&Part::Sqs) {
        report.sqs = sqs::measure(options.messages).await?;
    }
    if options.parts.iter().any(|part| *part != Part::Sqs) {
        let faces = Faces::brought().context("faces can't be checked without the models")?;
        let cluster = Cluster::start().await?;
        // However it ends, what it started ends with it: servers as they are dropped, Postgres
        // here.
        let done = tokio::select! {
            done = with_faces(&cluster, &faces, &options, &mut report) => done,
            () = interrupted() => Err(anyhow::anyhow!("interrupted")),
        };
        cluster.stop().await?;
        done?;
    }
    report.finish()
}

async fn with_faces(
    cluster: &Cluster,
    faces: &Faces,
    options: &Options,
    report: &mut VerifyReport,
) -> anyhow::Result<()> {
    for part in &options.parts {
        match part {
            Part::Checks => report.checks = Some(checks::measure(cluster, faces, options).await?),
            Part::Delay => report.delay = Some(delay::measure(cluster, faces, options).await?),
            Part::Memory => report.memory = Some(memory::measure(cluster, faces, options).await?),
            Part::Sqs => {}
        }
    }
    Ok(())
}

/// Progress, for whoever waits.
fn say(what: &str) {
    eprintln!("verify: {what}");
}
