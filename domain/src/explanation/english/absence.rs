//! A worker's day, told: what the ledger holds, what is missing, what may still come.

use punchtrail_protocol::{Time, vocabulary::Standing};

use super::{Speaker, disputed, report, waiting, words};
use crate::explanation::absence::facts::{
    AbsenceFacts, ConclusionCode, DayPunch, DeviceAnswer, DeviceFacts, Holds, MissingRun,
};

/// What the ledger says, from events alone.
pub(in crate::explanation) fn sentences(
    speaker: &Speaker<'_>,
    facts: &AbsenceFacts,
    devices: &[DeviceAnswer],
) -> Vec<String> {
    let day = facts.day.strftime("%A, %-d %B %Y");
    let held: Vec<String> = facts.punches.iter().map(|punch| held(speaker, punch)).collect();
    let worker = speaker.worker_within();
    let mut told = vec![if held.is_empty() {
        format!("The ledger holds no punch of {worker} for {day}.")
    } else {
        let count = words::many(held.len() as u64, "punch");
        format!("The ledger holds {count} of {worker} for {day}: {}.", words::list(&held))
    }];
    told.extend(waiting::sentences(speaker, facts));
    told.extend(facts.disputes.iter().map(|dispute| disputed::of_day(speaker, dispute)));
    for device in devices {
        let name = speaker.device(device.device);
        told.extend(device.missing.iter().map(|run| missing(speaker, &name, run)));
        if device.missing_more {
            told.push(format!("{name} has more missing numbers than are listed here."));
        }
        if let Some(at) = device.revoked_at {
            told.push(format!("{name} has had no access since {}.", speaker.clock(at)));
        }
    }
    told.extend(speaker.erased());
    told
}

fn held(speaker: &Speaker<'_>, punch: &DayPunch) -> String {
    let stands = match punch.standing {
        Standing::Recorded | Standing::Referred if punch.nobodys => {
            " (who made it is in doubt; it counts for nobody until a manager has ruled)"
        }
        Standing::Accepted => "",
        Standing::Recorded => " (not judged yet)",
        Standing::Referred => " (waits for a manager)",
        Standing::Rejected => " (rejected)",
        Standing::Voided => " (taken out of the count)",
    };
    format!("{} {}{stands}", words::did(punch.kind), speaker.when(punch.effective_at))
}

fn missing(speaker: &Speaker<'_>, device: &str, run: &MissingRun) -> String {
    let which = words::numbers(run.gap.from, run.gap.to);
    let verb = if run.gap.from == run.gap.to { "is" } else { "are" };
    let made = match (run.after, run.before) {
        (Some(after), Some(before)) => format!(
            ", made between {} and {} by its clock",
            speaker.clock(after),
            speaker.clock(before)
        ),
        (Some(after), None) => format!(", made after {} by its clock", speaker.clock(after)),
        (None, Some(before)) => format!(", made before {} by its clock", speaker.clock(before)),
        (None, None) => String::new(),
    };
    format!(
        "{device}: {which} {verb} missing{made}; that was noticed {} (position {}).",
        speaker.when_about(run.noticed.recorded_at),
        run.noticed.position
    )
}

/// What follows, beside that, where something waits for a person.
pub(in crate::explanation) const WAITS: &str =
    " Beside what devices hold, a punch of that day may be among what waits for a person here.";

/// A device's last report.
pub(in crate::explanation) fn report(speaker: &Speaker<'_>, device: &DeviceFacts) -> String {
    match &device.report {
        Some(last) => report::sentence(speaker, device.device, last),
        None => format!(
            "{} has never reported, so what it holds is not known.",
            speaker.device(device.device)
        ),
    }
}

/// What follows.
pub(in crate::explanation) fn conclusion(
    speaker: &Speaker<'_>,
    code: ConclusionCode,
    known_until: Option<Time>,
    devices: &[DeviceAnswer],
) -> String {
    let named = |holds: Holds| -> Vec<String> {
        let which = devices.iter().filter(|device| device.holds == holds);
        which.map(|device| speaker.device_within(device.device)).collect()
    };
    let missing = devices.iter().filter(|device| {
        !device.missing.is_empty() || device.missing_more || device.holds == Holds::Unaccounted
    });
    let until = known_until.map_or_else(String::new, |time| speaker.clock(time));
    match code {
        ConclusionCode::OnTheWay => format!(
            "By the devices' last reports, a punch of that day may still be on {}.",
            words::list(&named(Holds::Punches))
        ),
        ConclusionCode::NumbersMissing => {
            let which: Vec<String> =
                missing.map(|device| speaker.device_within(device.device)).collect();
            format!(
                "No punch of that day waits to be sent, by the devices' last reports, but one may \
                 be among the missing numbers of {}.",
                words::list(&which)
            )
        }
        ConclusionCode::NotKnown => format!(
            "Whether a punch of that day is still on its way is not known: {} never reported.",
            words::list(&named(Holds::Unknown))
        ),
        ConclusionCode::DeliveredSoFar => format!(
            "By the devices' last reports, everything made up to {until} has been delivered, so no \
             punch from before then is on its way. What was made after that may still come."
        ),
        ConclusionCode::NothingOnTheWay => {
            "By the devices' last reports, all of them have delivered \
             everything they made on that day, so no punch of that day is on its way."
                .to_owned()
        }
        ConclusionCode::NoDevices => {
            "There is no device at the worker's sites that could still hold a punch.".to_owned()
        }
    }
}
