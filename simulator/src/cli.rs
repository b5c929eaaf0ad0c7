//! The command line.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use punchtrail_device::{
    backoff::BACKOFF_CAP_MS,
    program::{say, stop_on_signal},
};
use punchtrail_protocol::SiteId;
use zeroize::Zeroizing;

use punchtrail_simulator::{Misbehaviour, PHOTOS_SHARE, Pairing, Plan, Progress};

/// Rehearses ten thousand devices coming back at once, against a server of yours, and reports how
/// it bore them.
#[derive(Debug, Parser)]
#[command(name = "punchtrail-fleet", version)]
#[command(group = clap::ArgGroup::new("pairing").required(true).args(["key", "codes"]))]
pub struct Arguments {
    /// How many devices, each with a folder, key and connection of its own.
    #[arg(long, default_value_t = 100)]
    devices: usize,
    /// Punches that each captures before the gate opens; 0 delivers what an earlier run left.
    #[arg(long, default_value_t = 150)]
    punches: usize,
    /// The newest of these punches have a photo, which follows when the punches are delivered.
    #[arg(long)]
    photos: bool,
    /// With --photos: which share of the punches has one, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = PHOTOS_SHARE, requires = "photos")]
    photos_of_punches: f64,
    /// The server's address.
    #[arg(long)]
    server: String,
    /// An operator's key, to make pairing codes with.
    #[arg(long, env = "PUNCHTRAIL_OPERATOR_KEY", hide_env_values = true, requires = "site")]
    key: Option<String>,
    /// A file of pairing codes, one a line, instead of a key.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "site"])]
    codes: Option<PathBuf>,
    /// The site that the devices belong to; several take them in turn.
    #[arg(long)]
    site: Vec<SiteId>,
    /// The fleet's folder. A fleet that is there is used again.
    #[arg(long, value_name = "DIR", default_value = "punchtrail-fleet")]
    fleet_dir: PathBuf,
    /// Enrols and captures, and stops before the gate opens; `--punches 0` delivers later.
    #[arg(long, conflicts_with_all = ["report", "plot"])]
    capture_only: bool,
    /// The fleet that is there belongs to this very server, which had another address then.
    #[arg(long)]
    moved: bool,
    /// What some devices do wrong; several with commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODES")]
    misbehave: Vec<Misbehaviour>,
    /// Which share of the devices misbehaves, from 0 to 1.
    #[arg(long, default_value_t = 0.9)]
    share: f64,
    /// Which share of the devices finds a changed roster and walks the manifest, from 0 to 1.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    stale_rosters: f64,
    /// Chooses who misbehaves, who punches when, jitter and garbage; printed, so that a run can be
    /// repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds after which what isn't acknowledged counts as failed.
    #[arg(long, default_value_t = 1_800)]
    deadline_s: u64,
    /// Hours before now that the punches are spread over.
    #[arg(long, default_value_t = 8.0, value_name = "HOURS")]
    offline_h: f64,
    /// Memory for batches on their way, all devices together, in MiB.
    #[arg(long, default_value_t = 1_024, value_name = "MIB")]
    memory_mib: u32,
    /// Waits for this machine's disk at each commit, as a device at a door does.
    #[arg(long)]
    synced: bool,
    /// The report as JSON.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// The report as a picture.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Says that a server on another machine is yours and may be loaded.
    #[arg(long)]
    i_own_this_server: bool,
    /// Bound on the waits between tries, in milliseconds.
    #[arg(long, hide = true, default_value_t = BACKOFF_CAP_MS)]
    #[arg(env = "PUNCHTRAIL_DEVICE_RETRY_CAP_MS")]
    retry_cap_ms: u64,
    /// Bound on the spread after a reconnect, in seconds.
    #[arg(long, hide = true, env = "PUNCHTRAIL_DEVICE_SPREAD_CAP_S")]
    spread_cap_s: Option<u32>,
}

impl Arguments {
    fn plan(self) -> anyhow::Result<Plan> {
        let pairing = match (self.key, self.codes) {
            (Some(key), _) => Pairing::Operator { key: Zeroizing::new(key), sites: self.site },
            (None, Some(file)) => Pairing::Codes(codes_in(&file)?),
            (None, None) => {
                anyhow::bail!("give an operator's key (--key) or pairing codes (--codes)")
            }
        };
        anyhow::ensure!(
            self.offline_h.is_finite() && self.offline_h > 0.0 && self.offline_h < 10_000.0,
            "--offline-h is a number of hours above 0"
        );
        Ok(Plan {
            dir: self.fleet_dir,
            server: self.server,
            pairing,
            devices: self.devices,
            punches: self.punches,
            photos: if self.photos { self.photos_of_punches } else { 0.0 },
            moved: self.moved,
            misbehaviours: self.misbehave,
            share: self.share,
            stale_rosters: self.stale_rosters,
            seed: self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
            deadline: Duration::from_secs(self.deadline_s),
            offline: Duration::from_secs_f64(self.offline_h * 3_600.0),
            spread_cap_s: self.spread_cap_s,
            retry_cap_ms: self.retry_cap_ms,
            memory_mib: self.memory_mib,
            synced: self.synced,
            own_server: self.i_own_this_server,
        })
    }
}

/// Runs it. Success only when every punch is acknowledged and the files agree with the server.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (report_file, plot_file) = (arguments.report.clone(), arguments.plot.clone());
    let capture_only = arguments.capture_only;
    let plan = arguments.plan()?;
    eprintln!("seed {}", plan.seed);
    let (stop, listener) = stop_on_signal().context("can't listen for signals")?;
    if capture_only {
        let waiting = punchtrail_simulator::capture_only(plan, &Progress::shown(), &stop).await?;
        listener.abort();
        say(&waiting.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    let report = punchtrail_simulator::run(plan, &Progress::shown(), &stop).await?;
    listener.abort();
    say(&report.to_string());
    if let Some(file) = report_file {
        std::fs::write(&file, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("can't write the report {}", file.display()))?;
    }
    if let Some(file) = plot_file {
        std::fs::write(&file, punchtrail_simulator::plot(&report)?)
            .with_context(|| format!("can't write the plot {}", file.display()))?;
    }
    Ok(if report.outcome.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn codes_in(file: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("can't read the pairing codes {}", file.display()))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
