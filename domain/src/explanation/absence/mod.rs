//! Answers for punches that never came: asked for a worker and a day, what is known of where a
//! punch might still be.
//!
//! Two kinds of knowledge are kept apart. Numbers that are missing are facts of the ledger, with
//! their places. How many punches a device still holds is the device's own word, and always marked
//! as its last report. Nothing here knows what time it is: it says up to when something is known,
//! and the reader knows the time.

pub(super) mod facts;

use punchtrail_protocol::Time;

pub use facts::{
    Absence, AbsenceFacts, BadgeTie, Conclusion, ConclusionCode, DayBadge, DayClock, DayDispute,
    DayDoubt, DayItem, DayPunch, DeviceAnswer, DeviceFacts, Holds, LISTED_COUNT_MAX, MissingRun,
};

use super::{Names, english};

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
    let mut sentence = english::absence::conclusion(&speaker, code, known_until, &devices);
    if facts.waits_for_a_person() {
        sentence.push_str(english::absence::WAITS);
    }
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
        quarantined_more: facts.quarantined_count > facts.quarantined.len() as u64,
        quarantined: facts.quarantined,
        quarantined_count: facts.quarantined_count,
        unknown_badges: facts.unknown_badges,
        unknown_badges_count: facts.unknown_badges_count,
        doubted: facts.doubted,
        doubted_count: facts.doubted_count,
        wrong_clocks: facts.wrong_clocks,
        wrong_clocks_count: facts.wrong_clocks_count,
        disputes: facts.disputes,
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
