//! One run: readers of an idle server, then the storm with readers, then whether everything is
//! there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use punchtrail_domain::policy::Policy;
use punchtrail_simulator::Report;
use punchtrail_testkit::eventually;
use punchtrail_tests::{Hostile, Kiosk, Server, compare, process::Process};
use sqlx::PgPool;
use tokio::{task::JoinHandle, time::timeout};

use super::{
    Kind, Over,
    aims::harm,
    memory, photos,
    readers::{Readers, Storm},
    record::{Checked, FleetPart, RunReport},
    say,
    setup::{Copy, Library, World, simulator},
    traffic::Drain,
    webhooks::Listener,
};
use crate::{database::Cluster, fleet::settled, report::REPORTS};

/// How much less the fleet gets of the processors than the server: it stands for other machines.
const FLEET_NICE: &str = "10";
/// The second within which the gate opens.
const GATE_S: usize = 1;
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
    pub kind: Kind,
    /// How many devices take part.
    pub devices: usize,
    pub seed: u64,
    /// When it is given up, in seconds after the gate.
    pub deadline_s: u64,
    /// Reads of a phase at least.
    pub reads_min: usize,
    /// What the drain is compared with.
    pub http_per_s: Option<f64>,
    /// Whether a receiver is told by webhook.
    pub webhooks: bool,
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
    let driven = drive(cluster, world, &copy, options, &mut report).await;
    report.note_failure(driven);
    // Also of a run that couldn't be carried through, or was given up: nothing may be lost in it.
    say(&format!("{name}: comparing files and ledger"));
    match check(&copy).await {
        Ok(checked) => report.checked = Some(checked),
        Err(error) => report.note_failure(Err(error)),
    }
    report.note_promises();
    report.harm = harm(&report);
    copy.remove(cluster).await?;
    say(&report.line());
    Ok(report)
}

/// Starts the server, and ends it when all is over.
async fn drive(
    cluster: &Cluster,
    world: &World,
    copy: &Copy,
    options: RunOptions,
    report: &mut RunReport,
) -> anyhow::Result<()> {
    let listener = if options.webhooks { Some(Listener::new(copy).await?) } else { None };
    let mut server = Server::start_with(&copy.place, options.kind.server_arguments()).await?;
    let over = Over::default();
    let watching =
        tokio::spawn(memory::watch(server.process().id(), cluster.postmaster()?, over.clone()));
    let stormed = storm(world, copy, options, &mut server, report).await;
    let told = match &listener {
        Some(listener) if stormed.is_ok() => listener.told(copy).await.map(Some),
        _ => Ok(None),
    };
    over.set();
    report.peak = watching.await?;
    stormed?;
    report.webhooks = told?;
    let metrics = Readers::metrics(server.url(), &world.library).await?;
    report.server_refusals = refusals(&metrics);
    fs::write(beside(options.kind, "prom"), metrics)?;
    let ended = server.terminate().await?;
    ensure!(ended.success(), "the server ended with {ended}");
    Ok(())
}

/// A stranger and a revoked device begin to do their worst.
async fn beset(server: &Server, library: &Library) -> anyhow::Result<Hostile> {
    let (http, url, key) = (reqwest::Client::new(), server.url(), &library.operator_key);
    let post = |path: String| http.post(format!("{url}{path}")).bearer_auth(key).send();
    let code = post(format!("/v1/sites/{}/pairing-codes", library.device.1)).await?;
    let code: serde_json::Value = code.error_for_status()?.json().await?;
    let code = code["code"].as_str().context("a pairing code")?;
    let revoked = Kiosk::enroll(url, code, "revoked").await?;
    post(format!("/v1/devices/{}/revoke", revoked.chain.next.device)).await?.error_for_status()?;
    Hostile::begin(url, server.address()?, &revoked)
}

/// Readers alone, then readers and the fleet, until the followers have caught up.
async fn storm(
    world: &World,
    copy: &Copy,
    options: RunOptions,
    server: &mut Server,
    report: &mut RunReport,
) -> anyhow::Result<()> {
    let pool = copy.pool().await?;
    settled(&pool).await?;
    let readers = Readers::new(server.url(), &world.library).await?;
    report.idle = readers.idle(options.reads_min).await?;
    let mut fleet = Fleet::start(world, copy, options, server.url())?;
    fleet.says(GATE_LINE, FLEET_FILES_MAX).await?;
    let hostile = match options.kind {
        Kind::Beset => Some(beset(server, &world.library).await?),
        _ => None,
    };
    let drained = Over::default();
    let reading: JoinHandle<anyhow::Result<Storm>> = tokio::spawn({
        let (readers, drained, reads_min) = (readers.clone(), drained.clone(), options.reads_min);
        async move { readers.storm(reads_min, &drained).await }
    });
    let telling = tokio::spawn(tell(options.kind, pool.clone(), drained.clone()));
    let patience = Duration::from_secs(options.deadline_s) + FLEET_FILES_MAX;
    let delivered = fleet.says(DRAINED_LINE, patience).await;
    drained.set();
    drop(hostile);
    let caught_up = catch_up(server, &pool).await;
    report.settled_s = caught_up.as_ref().ok().copied();
    let told = photos::told(&pool).await;
    report.storm = reading.await??;
    telling.await?;
    delivered?;
    report.fleet = Some(fleet.report(options).await?);
    pool.close().await;
    told?;
    caught_up.map(drop)
}

/// Waits until every follower stands at the head, and gives how many seconds that took.
async fn catch_up(server: &mut Server, pool: &PgPool) -> anyhow::Result<f64> {
    let since = Instant::now();
    ensure!(server.process().runs()?, "the server ended: {}", server.process().log_tail());
    settled(pool).await?;
    Ok(since.elapsed().as_secs_f64())
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
        let Library { operator_key, device: (_, site), .. } = &world.library;
        let sites = std::slice::from_ref(site);
        let simulator = simulator(&copy.fleet, server, operator_key, sites)?;
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
        self.process.ends(FLEET_FILES_MAX).await?;
        let text = fs::read_to_string(&self.report)
            .with_context(|| format!("the fleet made no report: {}", self.process.log_tail()))?;
        let told: Report = serde_json::from_str(&text)?;
        let spread_s = match options.kind.spreads() {
            true => Policy::default().reconnect_spread_s as usize + GATE_S,
            false => 0,
        };
        let drain = Drain::of(&told.seconds, spread_s);
        let of_http = options.http_per_s.map(|http| drain.after_spread_per_s / http);
        let Report { outcome, drained, photos, failures, .. } = told;
        Ok(FleetPart { outcome, drained, photos, failures, drain, of_http })
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

/// Holds the devices' own files against the ledger.
async fn check(copy: &Copy) -> anyhow::Result<Checked> {
    let pool = copy.pool().await?;
    let comparison = compare(&copy.folders, &pool).await?;
    let photos = photos::found(&pool, &copy.place.data.path().join("photos")).await?;
    pool.close().await;
    Ok(Checked::of(&comparison, verify(copy).await?, photos))
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
