//! What a run showed: for a person at a glance (`text`), and as JSON.

mod text;

use std::collections::BTreeMap;

use punchtrail_device::store::photos::PhotoBacklog;
use punchtrail_protocol::Time;
use serde::{Deserialize, Serialize};

pub(crate) use self::text::grouped;
pub use crate::meter::Second;
use crate::{
    APP, Fleet, Misbehaviour, duration_ms,
    member::Member,
    meter::Tally,
    percentiles::{Percentiles, of_sorted},
};

/// How many discrepancies are listed; all are counted.
const DISCREPANCIES_LISTED_MAX: usize = 20;
/// Over how many seconds the highest rate is taken.
const PEAK_S: usize = 5;

/// What a run showed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub app: String,
    pub at: Time,
    pub server: String,
    /// The seed that chose everything that was chosen.
    pub seed: u64,
    pub devices: usize,
    /// How many punches each captured in this run.
    pub punches_each: usize,
    /// What some did wrong, and how many.
    pub misbehaviour: MisbehaviourReport,
    pub phases: Phases,
    /// Whether the promise held.
    pub outcome: Outcome,
    pub photos: Photos,
    /// How soon devices were drained of punches.
    pub drained: Drained,
    pub rate: Rate,
    /// Durations of answered calls by class, and of refusals as busy.
    pub latency: Latency,
    pub failures: Failures,
    pub sent: Sent,
    /// Where the simulator isn't a fleet at doors.
    pub simulator: Simulator,
    /// A row a second from the gate on.
    pub seconds: Vec<Second>,
}

/// What some devices did wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MisbehaviourReport {
    pub modes: Vec<Misbehaviour>,
    pub devices: usize,
}

/// Seconds of each part.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Phases {
    /// Enrolling, or opening what was enrolled before.
    pub enrol_s: f64,
    pub capture_s: f64,
    /// From the gate on, to the last device's last heartbeat.
    pub deliver_s: f64,
    pub check_s: f64,
}

/// What the files say after the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Checked {
    /// Acknowledged captures by status; of all runs of these folders.
    pub by_status: BTreeMap<String, u64>,
    pub waiting: u64,
    /// Photos that wait.
    pub photos_waiting: u64,
    /// What doesn't agree, device by device.
    pub discrepancies: Vec<String>,
}

/// How photos fared, which follow the punches of their device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Photos {
    /// Photos that waited when the gate opened.
    pub outstanding: u64,
    /// Of them, stored by the server.
    pub put: u64,
    /// That wait now, by the files.
    pub waiting: u64,
    /// Times that one was refused for what it is.
    pub refused: u64,
    /// Times that one was refused as busy, or its device before its turn.
    pub busy: u64,
    /// When the last was stored, in seconds after the gate opened; none if none was.
    pub last_s: Option<f64>,
    /// How long after the fleet's last punch that was, in seconds; below 0 if punches came later.
    pub after_punches_s: Option<f64>,
    /// How long devices waited for one of the simulator's places for photos on their way, all
    /// together, in milliseconds.
    pub waited_for_place_ms: u64,
}

/// Whether the promise held.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Everything acknowledged, and everything agrees.
    pub complete: bool,
    /// Punches that waited when the gate opened.
    pub outstanding: u64,
    pub acknowledged: u64,
    /// Punches that wait now, by the files.
    pub unacknowledged: u64,
    /// Devices that delivered everything and said so.
    pub devices_finished: usize,
    /// What the files say that the server answered; of all runs of these folders.
    pub by_status: BTreeMap<String, u64>,
    /// How many things don't agree.
    pub discrepancies: usize,
    pub discrepancies_listed: Vec<String>,
}

/// How soon devices were drained, in seconds after the gate opened.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Drained {
    pub all: DrainedOf,
    pub well_behaved: DrainedOf,
    pub misbehaving: DrainedOf,
}

/// The same of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DrainedOf {
    pub devices: usize,
    pub drained: usize,
    /// Half of the drained ones.
    pub p50_s: Option<f64>,
    pub p99_s: Option<f64>,
    pub last_s: Option<f64>,
}

/// Rates.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Rate {
    /// From the gate to the last acknowledgement.
    pub last_acknowledged_s: f64,
    /// Punches a second, over that time.
    pub mean_per_s: f64,
    /// Punches a second from the time a tenth was acknowledged to nine tenths.
    pub middle_per_s: f64,
    /// Punches a second in the best five seconds.
    pub peak_per_s: f64,
}

/// Durations.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Latency {
    pub batches: Percentiles,
    pub heartbeats: Percentiles,
    /// Walks of the manifest, all pages.
    pub manifest: Percentiles,
    pub photos: Percentiles,
    /// Refusals as busy, of any class: how soon a device is told.
    pub sheds: Percentiles,
}

/// Calls that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failures {
    pub busy_503: u64,
    pub busy_429: u64,
    pub refused: u64,
    /// No answer, or none that makes sense.
    pub unanswered: u64,
    /// Calls that followed a failed one of the same device.
    pub retries: u64,
    pub by_code: BTreeMap<String, u64>,
}

/// What was sent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sent {
    pub calls: u64,
    /// The most in flight at once.
    pub in_flight_max: u64,
    /// Punches, each time counted.
    pub items: u64,
    /// Batches sent twice on purpose.
    pub batches_twice: u64,
    pub garbage: u64,
}

/// Where the simulator isn't a fleet at doors.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Simulator {
    /// Captures were made in one transaction a device.
    pub bulk_capture: bool,
    /// Whether commits waited for this machine's disk.
    pub synced: bool,
    /// The most files of devices open at a time.
    pub files_max: usize,
    /// How long devices waited for memory of the simulator, all together, in milliseconds.
    pub waited_for_memory_ms: u64,
    /// Times that a device's folder refused.
    pub store_failures: u64,
}

impl Checked {
    /// Takes the account of one device's file.
    pub(crate) fn device(
        &mut self,
        index: usize,
        statuses: &[(Option<String>, u64)],
        acked_through: u64,
        seq: u64,
    ) {
        let mut waiting = 0;
        for (status, captures) in statuses {
            match status {
                None => waiting += captures,
                Some(status) => {
                    *self.by_status.entry(status.clone()).or_default() += captures;
                    if !matches!(status.as_str(), "applied" | "duplicate") {
                        self.disagree(index, &format!("{captures} of its punches are {status}"));
                    }
                }
            }
        }
        self.waiting += waiting;
        if waiting == 0 && acked_through != seq {
            self.disagree(
                index,
                &format!(
                    "all of its punches up to number {seq} are acknowledged, but the server says \
                     that it holds them without a hole up to {acked_through} only"
                ),
            );
        }
    }

    /// Takes the account of one device's photos.
    pub(crate) fn photos(&mut self, index: usize, photos: PhotoBacklog) {
        self.photos_waiting += photos.waiting;
        if photos.refused > 0 {
            self.disagree(index, &format!("{} of its photos were refused", photos.refused));
        }
        if photos.erased > 0 {
            self.disagree(index, &format!("{} of its photos are erased", photos.erased));
        }
        if photos.lost > 0 {
            self.disagree(index, &format!("{} of its photos are gone or damaged", photos.lost));
        }
    }

    fn disagree(&mut self, index: usize, what: &str) {
        self.discrepancies.push(format!("device {index:05}: {what}"));
    }
}

/// Puts the report together.
pub(crate) fn compose(
    fleet: &Fleet,
    members: &[Member],
    mut checked: Checked,
    phases: Phases,
) -> Report {
    let (plan, tally) = (&fleet.plan, fleet.meter.tally());
    let seconds = tally.series();
    if tally.garbage_taken > 0 {
        let taken = tally.garbage_taken;
        checked.discrepancies.push(format!("{taken} items of garbage weren't quarantined"));
    }
    let finished = members.iter().filter(|member| member.finished).count();
    Report {
        app: APP.to_owned(),
        at: jiff::Timestamp::now().into(),
        server: plan.server.clone(),
        seed: plan.seed,
        devices: plan.devices,
        punches_each: plan.punches,
        misbehaviour: MisbehaviourReport {
            modes: plan.misbehaviours.clone(),
            devices: members.iter().filter(|member| member.behaviour.misbehaves).count(),
        },
        phases,
        outcome: Outcome {
            complete: checked.waiting + checked.photos_waiting == 0
                && checked.discrepancies.is_empty()
                && finished == members.len(),
            outstanding: tally.outstanding,
            // By the files: a run that was ended in the middle of an answer counted less.
            acknowledged: tally.outstanding.saturating_sub(checked.waiting),
            unacknowledged: checked.waiting,
            devices_finished: finished,
            by_status: checked.by_status,
            discrepancies: checked.discrepancies.len(),
            discrepancies_listed: checked
                .discrepancies
                .into_iter()
                .take(DISCREPANCIES_LISTED_MAX)
                .collect(),
        },
        photos: photos(fleet, &tally, checked.photos_waiting),
        drained: drained(members),
        rate: rate(&seconds),
        latency: Latency {
            batches: tally.batches.percentiles(),
            heartbeats: tally.heartbeats.percentiles(),
            manifest: tally.manifests.percentiles(),
            photos: tally.photos.percentiles(),
            sheds: tally.sheds.percentiles(),
        },
        failures: failures(&tally),
        sent: Sent {
            calls: tally.calls,
            in_flight_max: tally.in_flight_max,
            items: tally.items_sent,
            batches_twice: tally.batches_twice,
            garbage: tally.garbage_sent,
        },
        simulator: Simulator {
            bulk_capture: true,
            synced: plan.synced,
            files_max: crate::FILES_MAX,
            waited_for_memory_ms: fleet.places.waited_ms(),
            store_failures: tally.store_failures,
        },
        seconds,
    }
}

fn photos(fleet: &Fleet, tally: &Tally, waiting: u64) -> Photos {
    let (punch_s, photo_s) = (tally.last_punch.as_secs_f64(), tally.last_photo.as_secs_f64());
    let some = tally.photos_put > 0;
    Photos {
        outstanding: tally.photos_outstanding,
        put: tally.photos_put,
        waiting,
        refused: tally.photos_refused,
        busy: tally.photos_busy,
        last_s: some.then_some(photo_s),
        after_punches_s: some.then_some(photo_s - punch_s),
        waited_for_place_ms: fleet.places.photos_waited_ms(),
    }
}

fn failures(tally: &Tally) -> Failures {
    let sum = |part: fn(&Second) -> u64| tally.seconds.iter().map(part).sum();
    Failures {
        busy_503: sum(|second| second.busy_503),
        busy_429: sum(|second| second.busy_429),
        refused: sum(|second| second.refused),
        unanswered: sum(|second| second.unanswered),
        retries: sum(|second| second.retries),
        by_code: tally.failures.clone(),
    }
}

fn drained(members: &[Member]) -> Drained {
    let times = |wanted: fn(&Member) -> bool| -> Vec<Option<u64>> {
        members
            .iter()
            .filter(|member| wanted(member))
            .map(|member| member.drained.map(duration_ms))
            .collect()
    };
    Drained {
        all: drained_of(times(|_| true)),
        well_behaved: drained_of(times(|member| !member.behaviour.misbehaves)),
        misbehaving: drained_of(times(|member| member.behaviour.misbehaves)),
    }
}

/// Of devices' times in milliseconds; none for one that isn't drained.
fn drained_of(times: Vec<Option<u64>>) -> DrainedOf {
    let devices = times.len();
    let mut known: Vec<u64> = times.into_iter().flatten().collect();
    known.sort_unstable();
    let at = |share| of_sorted(&known, share).map(|ms| ms as f64 / 1_000.0);
    DrainedOf { devices, drained: known.len(), p50_s: at(0.5), p99_s: at(0.99), last_s: at(1.0) }
}

/// Rates from the rows.
fn rate(seconds: &[Second]) -> Rate {
    let total: u64 = seconds.iter().map(|second| second.acknowledged).sum();
    let last = seconds.iter().rposition(|second| second.acknowledged > 0).map_or(0, |s| s + 1);
    let reached = |share: f64| {
        let wanted = (share * total as f64).ceil() as u64;
        let mut sum = 0;
        seconds.iter().position(|second| {
            sum += second.acknowledged;
            sum >= wanted
        })
    };
    let per_s = |punches: f64, seconds: usize| match seconds {
        0 => 0.0,
        seconds => punches / seconds as f64,
    };
    let middle = reached(0.1).zip(reached(0.9)).map_or(0.0, |(from, until)| {
        let within: u64 = seconds[from..=until].iter().map(|second| second.acknowledged).sum();
        per_s(within as f64, until - from + 1)
    });
    let peak: u64 = seconds
        .windows(PEAK_S.min(seconds.len()).max(1))
        .map(|window| window.iter().map(|second| second.acknowledged).sum())
        .max()
        .unwrap_or(0);
    Rate {
        last_acknowledged_s: last as f64,
        mean_per_s: per_s(total as f64, last),
        middle_per_s: middle,
        peak_per_s: per_s(peak as f64, PEAK_S.min(seconds.len())),
    }
}

#[cfg(test)]
mod tests;
