//! `bench storm`: a whole fleet comes back at once, with readers asking meanwhile, on one machine.
//!
//! The devices are enrolled and capture once. Then each run starts from a copy of the same database
//! and the same files with a server process of its own, so that runs differ in nothing but what
//! they are about: who throttles, and who misbehaves. What is promised is checked in each run; what
//! is aimed at is measured, and missing it is only said.

mod aims;
mod memory;
mod photos;
mod readers;
mod record;
mod report;
mod run;
mod setup;
mod traffic;
mod webhooks;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::bail;
use punchtrail_simulator::PHOTOS_SHARE;

use self::{
    report::{Http, StormReport},
    run::RunOptions,
    setup::World,
};
use crate::{append::http, database::Cluster, interrupted};

/// The fleet of a run, beside what its devices hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Devices and server throttle
    Both,
    /// Only the server does: devices know no spread, no rate, and one pause after a failure
    Server,
    /// Only the devices do: the server's admission is off
    Device,
    /// Nobody does
    Neither,
    /// As `both`, with a tenth of the devices: what the others of `misbehaving` need alone, and how
    /// memory grows
    Tenth,
    /// Nine of ten devices do everything wrong that a device can; the server throttles
    Misbehaving,
    /// As `both`, beside a stranger and a revoked device that do their worst
    Beset,
}

impl Kind {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Server => "server",
            Self::Device => "device",
            Self::Neither => "neither",
            Self::Tenth => "tenth",
            Self::Misbehaving => "misbehaving",
            Self::Beset => "beset",
        }
    }

    /// What `punchtrail serve` is told.
    fn server_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Device | Self::Neither => &["--admission", "off"],
            _ => &[],
        }
    }

    /// What the fleet is told.
    fn fleet_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Server | Self::Neither => {
                &["--misbehave", "no-throttle,fixed-retry", "--share", "1"]
            }
            Self::Misbehaving => &[
                "--misbehave",
                "no-throttle,fixed-retry,ignore-retry-after,duplicates,garbage,clocks",
                "--share",
                "0.9",
            ],
            Self::Both | Self::Device | Self::Tenth | Self::Beset => &[],
        }
    }

    /// Whether all devices spread their start.
    fn spreads(self) -> bool {
        matches!(self, Self::Both | Self::Device | Self::Tenth | Self::Beset)
    }

    /// How many of `devices` take part.
    fn devices(self, devices: usize) -> usize {
        match self {
            Self::Tenth => (devices / 10).max(1),
            _ => devices,
        }
    }
}

/// What to measure, and how much of it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many devices come back.
    #[arg(long, default_value_t = 10_000)]
    devices: usize,
    /// How many punches each of them holds.
    #[arg(long, default_value_t = 150)]
    punches: usize,
    /// The newest of them have a photo, which follows them.
    #[arg(long)]
    photos: bool,
    /// With --photos: which share of the punches has one, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = PHOTOS_SHARE, requires = "photos")]
    photos_of_punches: f64,
    /// A receiver on this machine is told by webhook of everything that happens.
    #[arg(long)]
    webhooks: bool,
    /// Only these runs, in this order.
    #[arg(
        long,
        value_delimiter = ',',
        value_enum,
        default_value = "both,beset,server,device,neither,tenth,misbehaving"
    )]
    runs: Vec<Kind>,
    /// Chooses who misbehaves, who punches when, and jitter; printed, so that a run can be
    /// repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds from the gate after which a run is given up.
    #[arg(long, default_value_t = 1_200)]
    deadline_s: u64,
    /// Reads of a phase at least, at 50 a second; they go on until the drain is over.
    #[arg(long, default_value_t = 3_000)]
    readers_min: usize,
    /// Punches of the row `http`, which the drain is compared with; 0 leaves it out.
    #[arg(long, default_value_t = 200_000)]
    http_punches: usize,
}

/// Measures storms.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    // However it ends, what it started ends with it: servers and fleets as they are dropped,
    // Postgres here.
    let done = tokio::select! {
        done = all_runs(&cluster, &options) => done,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    cluster.stop().await?;
    let report = done?;
    report.print();
    let broken = report.broken_where_promised();
    if !broken.is_empty() {
        bail!("a promise was broken: {}", broken.join("; "));
    }
    Ok(())
}

async fn all_runs(cluster: &Cluster, options: &Options) -> anyhow::Result<StormReport> {
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    say(&format!("{} devices with {} punches each, seed {seed}", options.devices, options.punches));
    let photos = if options.photos { options.photos_of_punches } else { 0.0 };
    let mut report = StormReport::new(options.devices, options.punches, photos, seed);
    if options.http_punches > 0 {
        report.http = Some(measure_http(cluster, options.http_punches).await?);
    }
    let sizes = (options.devices, options.punches);
    let world = World::prepare(cluster, sizes, photos, seed).await?;
    report.setup = Some(world.took);
    for kind in &options.runs {
        let run = RunOptions {
            kind: *kind,
            devices: kind.devices(options.devices),
            seed,
            deadline_s: options.deadline_s,
            reads_min: options.readers_min,
            http_per_s: report.http.map(|http| http.acknowledged_per_s),
            webhooks: options.webhooks,
        };
        let done = run::run(cluster, &world, run).await?;
        report.runs.push(done);
        report.judge();
        report.write()?;
    }
    Ok(report)
}

/// The row `http` of `bench append`, from the same machine and hour.
async fn measure_http(cluster: &Cluster, punches: usize) -> anyhow::Result<Http> {
    let rates = http::measure(cluster, punches).await?;
    say(&format!("http: {:.0} punches/s acknowledged", rates.acknowledged));
    Ok(Http { punches, acknowledged_per_s: rates.acknowledged, settled_per_s: rates.settled })
}

/// Says to those who go on until then that something is over.
#[derive(Debug, Clone, Default)]
struct Over(Arc<AtomicBool>);

impl Over {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Progress, for whoever waits.
fn say(what: &str) {
    eprintln!("storm: {what}");
}
