//! All runs of a storm, for a person as a table, for programs as JSON.

use punchtrail_tests::comparison::Comparison;
use serde::Serialize;

use super::{
    Kind,
    aims::{Aim, harm, judge},
    memory::Peak,
    readers::{Phase, Storm},
    setup::Took,
    traffic::{Drain, Drained, Failures, Outcome},
};

/// All runs.
#[derive(Debug, Serialize)]
pub struct StormReport {
    /// How many devices come back.
    pub devices: usize,
    /// How many punches each of them holds.
    pub punches_each: usize,
    /// The seed.
    pub seed: u64,
    /// Processors that everything shared.
    pub processors: usize,
    /// What the drain is compared with.
    pub http: Option<Http>,
    /// How long the set-up took.
    pub setup: Option<Took>,
    /// In the order they were done.
    pub runs: Vec<RunReport>,
    /// What was aimed at.
    pub aims: Vec<Aim>,
}

/// The row `http` of `bench append`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Http {
    /// How many punches.
    pub punches: usize,
    /// Punches a second until the last answer.
    pub acknowledged_per_s: f64,
    /// And until every follower stood at the head.
    pub settled_per_s: f64,
}

/// One run.
#[derive(Debug, Serialize)]
pub struct RunReport {
    /// What it is about.
    pub kind: Kind,
    /// How many devices took part.
    pub devices: usize,
    /// Promises that were broken; none if all were kept.
    pub broken: Vec<String>,
    /// What shows harm: broken promises, and what readers and devices had to bear.
    pub harm: Vec<String>,
    /// Readers before the storm.
    pub idle: Phase,
    /// Readers during it.
    pub storm: Storm,
    /// The fleet's own account.
    pub fleet: Option<FleetPart>,
    /// The most memory and files.
    pub peak: Peak,
    /// Requests that the server refused as busy, by its own account.
    pub server_refusals: u64,
    /// From the last acknowledgement until every follower stood at the head, in seconds.
    pub settled_s: Option<f64>,
    /// Files and ledger.
    pub checked: Option<Checked>,
}

/// The fleet's own account.
#[derive(Debug, Serialize)]
pub struct FleetPart {
    /// How it ended.
    pub outcome: Outcome,
    /// How soon devices were drained.
    pub drained: Drained,
    /// Calls that failed.
    pub failures: Failures,
    /// How fast.
    pub drain: Drain,
    /// The rate after the spread, of `http`'s.
    pub of_http: Option<f64>,
}

/// The devices' own files held against the ledger.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Captures in the files.
    pub captures: u64,
    /// Of them, not acknowledged by the device's own account.
    pub waiting: u64,
    /// Acknowledged, and not in the ledger.
    pub lost: u64,
    /// In the ledger more than once.
    pub twice: u64,
    /// In the ledger with other bytes.
    pub other_bytes: u64,
    /// In the ledger and in no file.
    pub foreign: u64,
    /// Positions that are missing.
    pub holes: u64,
    /// The ledger's head.
    pub head: u64,
    /// What `punchtrail ledger verify` said.
    pub verified: bool,
}

impl Checked {
    /// From a comparison, and what `ledger verify` said.
    pub fn of(comparison: &Comparison, verified: bool) -> Self {
        let Comparison {
            captures, waiting, lost, twice, other_bytes, foreign, holes, head, ..
        } = *comparison;
        Self { captures, waiting, lost, twice, other_bytes, foreign, holes, head, verified }
    }

    fn broken(&self) -> Vec<String> {
        let counted = [
            (self.lost, "acknowledged punches are not in the ledger"),
            (self.twice, "punches are in the ledger more than once"),
            (self.other_bytes, "punches are in the ledger with other bytes"),
            (self.foreign, "punches are in the ledger and in no device's file"),
            (self.holes, "positions are missing"),
            (self.waiting, "punches still wait"),
        ];
        let wrong = counted.iter().filter(|(count, _)| *count > 0);
        let mut broken: Vec<String> =
            wrong.map(|(count, what)| format!("{count} {what}")).collect();
        if !self.verified {
            broken.push("`ledger verify` is not content".to_owned());
        }
        broken
    }
}

impl RunReport {
    /// Nothing yet.
    pub fn new(kind: Kind, devices: usize) -> Self {
        Self {
            kind,
            devices,
            broken: Vec::new(),
            harm: Vec::new(),
            idle: Phase::default(),
            storm: Storm::default(),
            fleet: None,
            peak: Peak::default(),
            server_refusals: 0,
            settled_s: None,
            checked: None,
        }
    }

    /// What kept the run from being carried through.
    pub fn note_failure(&mut self, driven: anyhow::Result<()>) {
        self.broken.extend(driven.err().map(|error| format!("{error:#}")));
    }

    /// Holds what was measured against what is promised.
    pub fn note_promises(&mut self) {
        self.broken.extend(self.checked.iter().flat_map(Checked::broken));
        if let Some(fleet) = self.fleet.as_ref().filter(|fleet| !fleet.outcome.complete) {
            let Outcome { outstanding, acknowledged, discrepancies, devices_finished, .. } =
                fleet.outcome;
            self.broken.push(format!(
                "the fleet is not complete: {acknowledged} of {outstanding} punches acknowledged, \
                 {devices_finished} devices finished, {discrepancies} discrepancies"
            ));
        }
        self.harm = harm(self);
    }

    /// How it went, in a line.
    pub fn line(&self) -> String {
        let (fleet, name) = (self.fleet.as_ref(), self.kind.name());
        let of = |part: fn(&FleetPart) -> f64| fleet.map_or(f64::NAN, part);
        let failures = |part: fn(&Failures) -> u64| fleet.map_or(0, |fleet| part(&fleet.failures));
        format!(
            "{name:<12} {:>9} {:>8.0} {:>7.2} {:>8.1} {:>8.1} {:>7} {:>7.0} {:>8} {:>8} {:>8} {:>8.1}  {}",
            fleet.map_or(0, |fleet| fleet.outcome.acknowledged),
            of(|fleet| fleet.drain.after_spread_per_s),
            of(|fleet| fleet.of_http.unwrap_or(f64::NAN)),
            self.idle.all.p99_ms,
            self.storm.during.all.p99_ms,
            self.storm.during.failures(),
            self.peak.server_mib,
            failures(|failures| failures.busy_503 + failures.busy_429),
            failures(|failures| failures.retries),
            failures(|failures| failures.unanswered),
            self.settled_s.unwrap_or(f64::NAN),
            if self.broken.is_empty() { "kept" } else { "BROKEN" },
        )
    }
}

/// The names of what [`RunReport::line`] says.
fn heading() -> String {
    let [run, acked, drain, of_http, idle, storm, refused, memory, sheds, retries, mute, settled] = [
        "run", "acked", "drain/s", "of http", "idle p99", "p99", "refused", "memory", "sheds",
        "retries", "no reply", "settled",
    ];
    format!(
        "{run:<12} {acked:>9} {drain:>8} {of_http:>7} {idle:>8} {storm:>8} {refused:>7} {memory:>7} \
         {sheds:>8} {retries:>8} {mute:>8} {settled:>8}  promises"
    )
}

impl StormReport {
    /// Nothing yet.
    pub fn new(devices: usize, punches_each: usize, seed: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let (http, setup, runs, aims) = (None, None, Vec::new(), Vec::new());
        Self { devices, punches_each, seed, processors, http, setup, runs, aims }
    }

    /// Holds what was measured against what is aimed at.
    pub fn judge(&mut self) {
        self.aims = judge(&self.runs);
    }

    /// Writes `target/bench/storm.json`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self) -> anyhow::Result<()> {
        crate::report::write("storm", self)
    }

    /// Prints it for a person.
    pub fn print(&self) {
        println!("\n{}", heading());
        for run in &self.runs {
            println!("{}", run.line());
        }
        println!(
            "\ndrain/s: punches a second after the spread window, neither its seconds nor its punches counted; \
             p99 in ms from when a read was due; memory in MiB; settled in s after the drain"
        );
        for run in &self.runs {
            for harm in &run.harm {
                println!("  {}: {harm}", run.kind.name());
            }
        }
        println!();
        for Aim { what, measured, aim, met } in &self.aims {
            let met = match met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not judged",
            };
            println!("{what:<55} {measured:>9.2}  {aim:<28} {met}");
        }
        println!(
            "\ntarget/bench/storm.json, and beside it each run's fleet report, plot and metrics"
        );
    }

    /// What was broken where it must not be.
    pub fn broken_where_promised(&self) -> Vec<String> {
        let promised = self.runs.iter().filter(|run| matches!(run.kind, Kind::Both | Kind::Server));
        promised
            .flat_map(|run| run.broken.iter().map(|what| format!("{}: {what}", run.kind.name())))
            .collect()
    }
}
