//! All runs of a storm, for a person as a table, for programs as JSON.

use punchtrail_simulator::report::Failures;
use serde::Serialize;

use super::{
    Kind,
    aims::judge,
    record::{FleetPart, RunReport},
    setup::Took,
};
use crate::report::Aim;

/// All runs.
#[derive(Debug, Serialize)]
pub struct StormReport {
    /// How many devices come back.
    pub devices: usize,
    /// How many punches each of them holds.
    pub punches_each: usize,
    /// Which share of them has a photo.
    pub photos_share: f64,
    pub seed: u64,
    /// Processors that everything shared.
    pub processors: usize,
    /// What the drain is compared with.
    pub http: Option<Http>,
    /// How long the set-up took.
    pub setup: Option<Took>,
    /// In the order they were done.
    pub runs: Vec<RunReport>,
    pub aims: Vec<Aim>,
}

/// The row `http` of `bench append`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Http {
    pub punches: usize,
    /// Punches a second until the last answer.
    pub acknowledged_per_s: f64,
    /// And until every follower stood at the head.
    pub settled_per_s: f64,
}

impl RunReport {
    /// How it went, in a line.
    pub fn line(&self) -> String {
        let (fleet, name) = (self.fleet.as_ref(), self.kind.name());
        let of = |part: fn(&FleetPart) -> f64| fleet.map_or(f64::NAN, part);
        let failures = |part: fn(&Failures) -> u64| fleet.map_or(0, |fleet| part(&fleet.failures));
        format!(
            "{name:<12} {:>9} {:>8.0} {:>7.2} {:>8.1} {:>8.1} {:>7} {:>7.0} {:>8} {:>8} {:>8} \
             {:>8.1}  {}",
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

impl RunReport {
    /// How its photos fared, in a line; none of a run without.
    fn photos_line(&self) -> Option<String> {
        let photos = self.fleet.as_ref()?.photos;
        let after_s = photos.after_punches_s.unwrap_or(f64::NAN);
        (photos.outstanding > 0).then(|| {
            format!(
                "{}: {} of {} photos stored, refused {} times as busy and {} for what they are; \
                 the last {after_s:.1} s after the last punch",
                self.kind.name(),
                photos.put,
                photos.outstanding,
                photos.busy,
                photos.refused
            )
        })
    }
}

impl RunReport {
    /// What a receiver of webhooks was told, in a line; none of a run without.
    fn webhooks_line(&self) -> Option<String> {
        let told = self.webhooks?;
        Some(format!(
            "{}: {} events told by webhook in {} requests; the last {:.1} s after the followers \
             had caught up",
            self.kind.name(),
            told.events,
            told.requests,
            told.after_s
        ))
    }
}

/// The names of what [`RunReport::line`] says.
fn heading() -> String {
    format!(
        "{:<12} {:>9} {:>8} {:>7} {:>8} {:>8} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8}  promises",
        "run",
        "acked",
        "drain/s",
        "of http",
        "idle p99",
        "p99",
        "refused",
        "memory",
        "sheds",
        "retries",
        "no reply",
        "settled"
    )
}

impl StormReport {
    /// Nothing yet.
    pub fn new(devices: usize, punches_each: usize, photos_share: f64, seed: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let (http, setup, runs, aims) = (None, None, Vec::new(), Vec::new());
        Self { devices, punches_each, photos_share, seed, processors, http, setup, runs, aims }
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
            "\ndrain/s: punches a second after the spread window, neither its seconds nor its \
             punches counted; \
             p99 in ms from when a read was due; memory in MiB; settled in s after the drain"
        );
        let beside = |run: &RunReport| [run.photos_line(), run.webhooks_line()];
        for line in self.runs.iter().flat_map(beside).flatten() {
            println!("  {line}");
        }
        for run in &self.runs {
            for harm in &run.harm {
                println!("  {}: {harm}", run.kind.name());
            }
        }
        println!();
        for aim in &self.aims {
            aim.print();
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
