//! Answers for punches that never came: asked for a worker and a day, what is known of where a
//! punch might still be.
//!
//! Two kinds of knowledge are kept apart. Numbers that are missing are facts of the ledger, with
//! their places. How many punches a device still holds is the device's own word, and always marked
//! as its last report. Nothing here knows what time it is: it says up to when something is known,
//! and the reader knows the time.

use jiff::{civil::Date, tz::TimeZone};
use punchtrail_protocol::{
    DeviceId, EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind, vocabulary::Standing,
};
use serde::Serialize;

use super::{Backlog, Names, Place, english};
use crate::device::Gap;

/// What is known of a worker's day.
#[derive(Debug, Clone)]
pub struct AbsenceFacts {
    pub employee: EmployeeId,
    pub day: Date,
    /// The zone in which the day is meant.
    pub zone: TimeZone,
    /// When the day begins, included, and ends, excluded.
    pub bounds: (Time, Time),
    /// The worker's punches of that day, in order of time.
    pub punches: Vec<DayPunch>,
    /// The devices of the worker's sites.
    pub devices: Vec<DeviceFacts>,
    /// Up to where in the ledger these facts are known.
    pub position: Position,
}

/// A punch of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DayPunch {
    pub punch: PunchId,
    pub kind: PunchKind,
    pub effective_at: Time,
    pub standing: Standing,
}

/// What is known of a device.
#[derive(Debug, Clone)]
pub struct DeviceFacts {
    pub device: DeviceId,
    /// The site that it serves for this worker.
    pub site: SiteId,
    /// When its access was ended, if it was.
    pub revoked: Option<Place>,
    /// Its last report; none if it never made one.
    pub report: Option<Backlog>,
    /// The highest of its numbers that the ledger holds; 0 for none.
    pub highest: u64,
    /// Numbers that are missing now.
    pub missing: Vec<MissingRun>,
    /// Whether more are missing than are listed.
    pub missing_more: bool,
}

/// Numbers of a device that have not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingRun {
    pub gap: Gap,
    /// Where the ledger notes that they are missing.
    pub noticed: Place,
    /// The time of the punch before them, by the device's clock, if it is held.
    pub after: Option<Time>,
    /// The time of the punch after them, by the device's clock, if it is held.
    pub before: Option<Time>,
}

impl MissingRun {
    /// Whether punches of that time could be among them. What isn't known doesn't rule them out.
    fn may_be_within(&self, (from, to): (Time, Time)) -> bool {
        let (Some(after), Some(before)) = (self.after, self.before) else {
            return self.after.is_none_or(|after| after < to)
                && self.before.is_none_or(|before| before >= from);
        };
        // A clock that was set back between the two bounds nothing.
        after > before || (after < to && before >= from)
    }
}

/// Where a worker's missing punches of a day might be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Absence {
    pub employee: EmployeeId,
    /// The business day, `YYYY-MM-DD`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Date))]
    pub day: Date,
    /// When it begins, included.
    pub from: Time,
    pub to: Time,
    /// The worker's punches of that day that the ledger holds.
    pub punches: Vec<DayPunch>,
    /// What the ledger says, in plain sentences.
    pub sentences: Vec<String>,
    /// Each device of the worker's sites, with what it last said of itself.
    pub devices: Vec<DeviceAnswer>,
    /// What follows. It rests on the devices' last reports.
    pub conclusion: Conclusion,
    /// Up to where in the ledger this is known.
    pub position: Position,
}

/// What a device may still hold of that day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceAnswer {
    pub device: DeviceId,
    pub site: SiteId,
    pub holds: Holds,
    /// When it last reported, by the server's clock; null if never.
    pub reported_at: Option<Time>,
    /// How many punches waited on it then.
    pub waiting: Option<u64>,
    /// The time of the oldest of them, by the device's clock.
    pub oldest: Option<Time>,
    /// Numbers that are missing and may be of that day.
    pub missing: Vec<MissingRun>,
    /// Whether more are missing than are listed.
    pub missing_more: bool,
    /// When its access was ended, if it was.
    pub revoked_at: Option<Time>,
    /// Its last report in words.
    pub report: String,
}

/// What a device may hold of a day, by its last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// Punches that may be of that day.
    Punches,
    /// It has made punches that neither wait on it nor are in the ledger; after a restore of the
    /// server they come again.
    Unaccounted,
    /// Not known: it never reported.
    Unknown,
    /// Nothing up to its last report, which was before the day ended.
    NothingUntilReport,
    Nothing,
}

/// What follows for the day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conclusion {
    pub code: ConclusionCode,
    /// Up to when everything that was made is known to be in the ledger; null if that isn't known.
    pub known_until: Option<Time>,
    pub sentence: String,
}

/// What follows for the day, as a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ConclusionCode {
    /// A device still holds punches that may be of that day.
    OnTheWay,
    /// Numbers are missing that may be of that day.
    NumbersMissing,
    NotKnown,
    /// Nothing is on its way of what was made up to the devices' last reports; the day went on
    /// after.
    DeliveredSoFar,
    /// Nothing of that day is on its way.
    NothingOnTheWay,
    /// The worker's sites have no device.
    NoDevices,
}

/// Answers for a worker's day.
pub fn explain_absence(facts: AbsenceFacts, names: &Names) -> Absence {
    let speaker = english::Speaker::of_day(&facts, names);
    let (from, to) = facts.bounds;
    let devices: Vec<DeviceAnswer> = facts
        .devices
        .iter()
        .map(|device| {
            let report = english::absence::report(&speaker, device);
            answer(device, facts.bounds, report)
        })
        .collect();
    let code = conclude(&devices);
    let known_until = match code {
        ConclusionCode::DeliveredSoFar => {
            devices.iter().filter_map(|device| device.reported_at).min()
        }
        ConclusionCode::NothingOnTheWay => Some(to),
        _ => None,
    };
    let sentence = english::absence::conclusion(&speaker, code, known_until, &devices);
    let sentences = english::absence::sentences(&speaker, &facts, &devices);
    Absence {
        employee: facts.employee,
        day: facts.day,
        from,
        to,
        sentences,
        conclusion: Conclusion { code, known_until, sentence },
        devices,
        punches: facts.punches,
        position: facts.position,
    }
}

fn answer(device: &DeviceFacts, bounds: (Time, Time), report: String) -> DeviceAnswer {
    let missing = device.missing.iter().copied().filter(|run| run.may_be_within(bounds)).collect();
    DeviceAnswer {
        device: device.device,
        site: device.site,
        holds: holds(device, bounds),
        reported_at: device.report.map(|report| report.reported_at),
        waiting: device.report.map(|report| report.waiting),
        oldest: device.report.and_then(|report| report.oldest),
        missing,
        missing_more: device.missing_more,
        revoked_at: device.revoked.map(|place| place.recorded_at),
        report,
    }
}

fn holds(device: &DeviceFacts, (_, to): (Time, Time)) -> Holds {
    let Some(report) = device.report else { return Holds::Unknown };
    // The oldest waits at the front: if it is of a later day, so are all behind it.
    let of_that_day = report.oldest.is_none_or(|oldest| oldest < to);
    if report.still_waiting() > 0 && of_that_day {
        return Holds::Punches;
    }
    if report.waiting == 0 && report.made_through > device.highest {
        return Holds::Unaccounted;
    }
    if report.reported_at < to { Holds::NothingUntilReport } else { Holds::Nothing }
}

fn conclude(devices: &[DeviceAnswer]) -> ConclusionCode {
    let any = |holds: Holds| devices.iter().any(|device| device.holds == holds);
    let missing = |device: &DeviceAnswer| !device.missing.is_empty() || device.missing_more;
    if devices.is_empty() {
        ConclusionCode::NoDevices
    } else if any(Holds::Punches) {
        ConclusionCode::OnTheWay
    } else if any(Holds::Unaccounted) || devices.iter().any(missing) {
        ConclusionCode::NumbersMissing
    } else if any(Holds::Unknown) {
        ConclusionCode::NotKnown
    } else if any(Holds::NothingUntilReport) {
        ConclusionCode::DeliveredSoFar
    } else {
        ConclusionCode::NothingOnTheWay
    }
}
