//! One run: readers of an idle server, then the storm with readers, then whether everything is there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use punchtrail_tests::{Server, compare, eventually, process::Process};
use sqlx::PgPool;
use tokio::{task::JoinHandle, time::timeout};

use super::{
    Kind, Over, memory,
    readers::{Phase, Readers},
    report::{Checked, FleetPart, RunReport},
    say,
    setup::{Copy, World, simulator},
    traffic::{Drain, FleetReport},
};
use crate::{database::Cluster, fleet::settled, report::REPORTS};

/// How much less the fleet gets of the processors than the server: it stands for other machines.
const FLEET_NICE: &str = "10";
/// What the site's policy spreads a reconnect over, unless somebody changed it, in seconds; and the
/// second within which the gate opens.
const SPREAD_S: usize = 61;
/// Opening ten thousand files before the gate, reading them anew after it.
const FLEET_FILES_MAX: Duration = Duration::from_secs(900);
/// `ledger verify` of millions of events.
const VERIFY_MAX: Duration = Duration::from_secs(1_800);
/// How often progress is told.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// What the simulator says when the gate opens, and when nobody delivers any more.
const GATE_LINE: &str = "delivering:";
const DRAINED_LINE: &str = "checking:";

/// Which run.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// What it is about.
    pub kind: Kind,
    /// How many devices take part.
    pub devices: usize,
    /// The seed.
    pub seed: u64,
    /// When it is given up, in seconds after the gate.
    pub deadline_s: u64,
    /// Reads of a phase at least.
    pub reads_min: usize,
    /// What the drain is compared with.
    pub http_per_s: Option<f64>,
}

/// Does it, on a copy of `world`. What goes wrong in it is the report's first broken promise.
///
/// # Errors
/// When the copy can't be made or removed.
pub async fn run(
    cluster: &Cluster,
    world: &World,
    options: RunOptions,
) -> anyhow::Result<RunReport> {
    let name = options.kind.name();
    let copy = world.copy(cluster, name, options.devices).await?;
    say(&format!("{name}: copied"));
    let mut report = RunReport::new(options.kind, options.devices);
    let driven = Box::pin(drive(cluster, world, &copy, options, &mut report)).await;
    report.note_failure(driven);
    report.note_promises();
    copy.remove(cluster).await?;
    say(&report.line());
    Ok(report)
}

async fn drive(
    cluster: &Cluster,
    world: &World,
    copy: &Copy,
    options: RunOptions,
    report: &mut RunReport,
) -> anyhow::Result<()> {
    let pool = copy.pool().await?;
    let mut server = Server::start_with(&copy.place, options.kind.server_arguments()).await?;
    let over = Over::default();
    let watching =
        tokio::spawn(memory::watch(server.process().id(), cluster.postmaster()?, over.clone()));
    let stormed = storm(world, copy, options, &mut server, &pool, report).await;
    over.set();
    report.peak = watching.await?;
    stormed?;
    let metrics = Readers::metrics(server.url(), &world.library).await;
    report.server_refusals = metrics.as_deref().map(refusals).unwrap_or_default();
    fs::write(beside(options.kind, "prom"), metrics.unwrap_or_default())?;
    let ended = server.terminate().await?;
    ensure!(ended.success(), "the server ended with {ended}");
    say(&format!("{}: comparing files and ledger", options.kind.name()));
    let comparison = compare(&copy.folders, &pool).await?;
    pool.close().await;
    let verified = verify(copy).await?;
    report.checked = Some(Checked::of(&comparison, verified));
    Ok(())
}

/// Readers alone, then readers and the fleet, until the followers have caught up.
async fn storm(
    world: &World,
    copy: &Copy,
    options: RunOptions,
    server: &mut Server,
    pool: &PgPool,
    report: &mut RunReport,
) -> anyhow::Result<()> {
    settled(pool).await?;
    let readers = Readers::new(server.url(), &world.library).await?;
    let at_once = Over::default();
    at_once.set();
    report.idle = readers.run(options.reads_min, &at_once).await?;
    let mut fleet = Fleet::start(world, copy, options, server.url())?;
    fleet.says(GATE_LINE, FLEET_FILES_MAX).await?;
    let drained = Over::default();
    let reading: JoinHandle<anyhow::Result<Phase>> = tokio::spawn({
        let (readers, drained, reads_min) = (readers.clone(), drained.clone(), options.reads_min);
        async move { readers.run(reads_min, &drained).await }
    });
    let telling = tokio::spawn(tell(options.kind, pool.clone(), drained.clone()));
    let patience = Duration::from_secs(options.deadline_s) + FLEET_FILES_MAX;
    let ended = fleet.says(DRAINED_LINE, patience).await;
    drained.set();
    let since = Instant::now();
    ensure!(server.process().runs()?, "the server ended: {}", server.process().log_tail());
    let caught_up = settled(pool).await;
    report.settled_s = caught_up.is_ok().then(|| since.elapsed().as_secs_f64());
    report.storm = reading.await??;
    telling.await?;
    ended?;
    report.fleet = Some(fleet.report(options).await?);
    caught_up
}

/// The simulator's process and what it writes.
struct Fleet {
    process: Process,
    log: PathBuf,
    report: PathBuf,
}

impl Fleet {
    fn start(
        world: &World,
        copy: &Copy,
        options: RunOptions,
        server: &str,
    ) -> anyhow::Result<Self> {
        let (key, site) = (&world.library.operator_key, &world.library.device.1);
        let simulator = simulator(&copy.fleet, server, key, site)?;
        let mut command = Command::new("nice");
        command.args(["-n", FLEET_NICE]).arg(simulator.get_program()).args(simulator.get_args());
        command.envs(simulator.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let report = beside(options.kind, "fleet.json");
        command
            .env_remove("RUST_LOG")
            .args(["--moved", "--punches", "0", "--devices", &options.devices.to_string()])
            .args(["--seed", &options.seed.to_string()])
            .args(["--deadline-s", &options.deadline_s.to_string()])
            .args(options.kind.fleet_arguments())
            .arg("--report")
            .arg(&report)
            .arg("--plot")
            .arg(beside(options.kind, "svg"));
        // What an earlier run left must not be taken for this one's.
        if report.exists() {
            fs::remove_file(&report)?;
        }
        let log = copy.place.data.log("fleet")?;
        let process = Process::start("the fleet", command, &log)?;
        Ok(Self { process, log, report })
    }

    /// Waits for a line of its progress.
    async fn says(&mut self, start: &str, within: Duration) -> anyhow::Result<()> {
        eventually(format!("the fleet to say `{start}`"), within, async || {
            let said = fs::read_to_string(&self.log)?;
            if said.lines().any(|line| line.starts_with(start)) {
                return Ok(Some(()));
            }
            ensure!(self.process.runs()?, "the fleet ended: {}", self.process.log_tail());
            Ok(None)
        })
        .await
    }

    async fn report(mut self, options: RunOptions) -> anyhow::Result<FleetPart> {
        eventually("the fleet to end", FLEET_FILES_MAX, async || {
            Ok((!self.process.runs()?).then_some(()))
        })
        .await?;
        let text = fs::read_to_string(&self.report)
            .with_context(|| format!("the fleet made no report: {}", self.process.log_tail()))?;
        let told: FleetReport = serde_json::from_str(&text)?;
        let spread_s = if options.kind.spreads() { SPREAD_S } else { 0 };
        let drain = Drain::of(&told.seconds, spread_s);
        let of_http = options.http_per_s.map(|http| drain.after_spread_per_s / http);
        let FleetReport { outcome, drained, failures, .. } = told;
        Ok(FleetPart { outcome, drained, failures, drain, of_http })
    }
}

/// Tells how far it is, now and then.
async fn tell(kind: Kind, pool: PgPool, over: Over) {
    let gate = Instant::now();
    let mut due = gate + SAY_EVERY;
    while !over.is_set() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if Instant::now() < due {
            continue;
        }
        due += SAY_EVERY;
        let head = sqlx::query_scalar("select position from ledger_head").fetch_one(&pool).await;
        let head: i64 = head.unwrap_or_default();
        let elapsed_s = gate.elapsed().as_secs();
        say(&format!("{}: {elapsed_s} s after the gate, {head} events", kind.name()));
    }
}

/// `punchtrail ledger verify`: whether it is content.
async fn verify(copy: &Copy) -> anyhow::Result<bool> {
    let mut command = copy.place.command()?;
    command.args(["--json", "ledger", "verify"]).stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let output = timeout(VERIFY_MAX, command.kill_on_drop(true).output()).await;
    let output = output.context("`ledger verify` takes too long")??;
    if !output.status.success() {
        say(&String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.status.success())
}

/// A file of a run, beside the report.
fn beside(kind: Kind, extension: &str) -> PathBuf {
    Path::new(REPORTS).join(format!("storm-{}.{extension}", kind.name()))
}

/// Requests that the server answered with 503 or 429, by its own metrics.
fn refusals(metrics: &str) -> u64 {
    let requests =
        metrics.lines().filter(|line| line.starts_with("punchtrail_http_requests_total"));
    requests
        .filter(|line| line.contains("status=\"503\"") || line.contains("status=\"429\""))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_summed_over_routes() {
        let metrics = "# TYPE punchtrail_http_requests_total counter\n\
            punchtrail_http_requests_total{method=\"POST\",route=\"/a\",status=\"503\"} 7\n\
            punchtrail_http_requests_total{method=\"POST\",route=\"/b\",status=\"429\"} 2\n\
            punchtrail_http_requests_total{method=\"GET\",route=\"/c\",status=\"200\"} 90\n\
            punchtrail_items_total{status=\"503\"} 5\n";
        assert_eq!(refusals(metrics), 9);
    }
}
