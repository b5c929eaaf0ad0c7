//! What is aimed at (`docs/performance.md`), and whether a run got there.

use super::{
    Kind,
    readers::Phase,
    record::{FleetPart, RunReport},
};
use crate::report::Aim;

/// How much slower readers may become, times.
const READS_TIMES: f64 = 5.0;
/// What readers may always take, in milliseconds.
const READS_MS: f64 = 50.0;
/// Which part of `http`'s rate the drain has to reach.
const DRAIN_OF_HTTP: f64 = 0.5;
/// The server's memory, in MiB.
const MEMORY_MIB: f64 = 400.0;
/// How much more memory ten times the devices may take, times.
const MEMORY_TIMES: f64 = 1.2;
/// How much later the well-behaved may be drained when the others misbehave, times.
const WELL_BEHAVED_TIMES: f64 = 2.0;
/// If less than this share of all punches waits after the spread, the devices set the pace.
const LEFT_AFTER_SPREAD_MIN: f64 = 0.1;

/// All aims that these runs have something to say about.
pub fn judge(runs: &[RunReport]) -> Vec<Aim> {
    let find = |kind| runs.iter().find(|run| run.kind == kind);
    let throttled = [Kind::Both, Kind::Beset, Kind::Server];
    let throttled = runs.iter().filter(|run| throttled.contains(&run.kind));
    let mut aims: Vec<Aim> = throttled.flat_map(of_run).collect();
    if let Some((both, tenth)) = find(Kind::Both).zip(find(Kind::Tenth)) {
        let times = both.peak.server_mib / tenth.peak.server_mib;
        let what = "both: memory, of a tenth of the devices'".to_owned();
        aims.push(Aim::at_most(what, times, MEMORY_TIMES, " times"));
    }
    aims.extend(misbehaving(find(Kind::Misbehaving), find(Kind::Tenth)));
    aims
}

fn of_run(run: &RunReport) -> Vec<Aim> {
    let name = run.kind.name();
    let mut aims = vec![
        Aim::at_most(
            format!("{name}: reads' p99 in the storm"),
            run.storm.during.all.p99_ms,
            reads_limit_ms(&run.idle),
            " ms",
        ),
        Aim::at_most(format!("{name}: reads refused"), run.storm.during.failures() as f64, 0.0, ""),
        Aim::at_most(
            format!("{name}: the server's memory"),
            run.peak.server_mib,
            MEMORY_MIB,
            " MiB",
        ),
    ];
    aims.extend(run.fleet.as_ref().and_then(|fleet| drain(name, fleet)));
    aims
}

/// How long reads may take beside a storm, by how long they took without one.
pub fn reads_limit_ms(idle: &Phase) -> f64 {
    (idle.all.p99_ms * READS_TIMES).max(READS_MS)
}

fn drain(name: &str, fleet: &FleetPart) -> Option<Aim> {
    let measured = fleet.of_http?;
    let judged = fleet.drain.after_spread_share >= LEFT_AFTER_SPREAD_MIN;
    let aim = match judged {
        true => format!("at least {DRAIN_OF_HTTP}"),
        false => format!("at least {DRAIN_OF_HTTP}, but the devices' own rate set the pace"),
    };
    let met = judged.then_some(measured >= DRAIN_OF_HTTP);
    Some(Aim { what: format!("{name}: drain, of http"), measured, aim, met })
}

fn misbehaving(run: Option<&RunReport>, alone: Option<&RunReport>) -> Option<Aim> {
    let well = run?.fleet.as_ref()?.drained.well_behaved;
    let alone = alone?.fleet.as_ref()?.drained.all.last_s?;
    let what = "misbehaving: the others drained, of their time alone".to_owned();
    let aim = Aim::at_most(what, well.last_s? / alone, WELL_BEHAVED_TIMES, " times");
    Some(Aim { met: aim.met.map(|met| met && well.drained == well.devices), ..aim })
}

/// What shows that a run without throttles did harm; it is expected of `neither`.
pub fn harm(run: &RunReport) -> Vec<String> {
    let mut harm = run.broken.clone();
    let failures = run.storm.during.failures();
    if failures > 0 {
        harm.push(format!("{failures} reads were not answered: {:?}", run.storm.during.failed));
    }
    let (p99_ms, limit_ms) = (run.storm.during.all.p99_ms, reads_limit_ms(&run.idle));
    if p99_ms > limit_ms {
        harm.push(format!("reads' p99 was {p99_ms:.0} ms, over {limit_ms:.0} ms"));
    }
    if run.peak.server_mib > MEMORY_MIB {
        harm.push(format!("the server took {:.0} MiB", run.peak.server_mib));
    }
    let unanswered = run.fleet.as_ref().map_or(0, |fleet| fleet.failures.unanswered);
    if unanswered > 0 {
        harm.push(format!("{unanswered} calls of devices got no answer"));
    }
    harm
}
