//! The doubts, each in plain words with its numbers.

use punchtrail_protocol::capture::PunchKind;

use super::{Speaker, words::duration};
use crate::punch::Anomaly;

/// A doubt as a statement, without a full stop.
pub(super) fn statement(speaker: &Speaker<'_>, kind: PunchKind, anomaly: &Anomaly) -> String {
    let worker = speaker.worker();
    match anomaly {
        Anomaly::NearDuplicate { of, apart_ms } => {
            format!("{worker} also {} {} (punch {of})", super::words::did(kind), earlier(*apart_ms))
        }
        Anomaly::ClockSuspect { offset_ms } => format!(
            "The device's clock was {} {}, which is more than the site allows",
            duration(*offset_ms),
            if *offset_ms < 0 { "behind" } else { "ahead" },
        ),
        Anomaly::InFuture { ahead_ms } => format!(
            "When it reached the server, the time on this punch was still {} away",
            duration(*ahead_ms)
        ),
        Anomaly::Fork { seq, other: Some(other) } => {
            format!(
                "The device had used its number {seq} before, for another punch (punch {other})"
            )
        }
        Anomaly::Fork { seq, other: None } => format!(
            "The device had used its number {seq} before, for something that is in quarantine"
        ),
        Anomaly::UnknownBadge => "The device did not know the badge".to_owned(),
        Anomaly::UnknownEmployee => "The worker is not known to the server".to_owned(),
        Anomaly::DepartedWorker { departed_at } => {
            format!("{worker} had left {}", speaker.when(*departed_at))
        }
        Anomaly::OtherHolder { holder: Some(holder) } => format!(
            "The badge by which the device knew {} was {} by then, and who made it is in doubt",
            speaker.worker_within(),
            match speaker.names.employees.get(holder) {
                Some(name) => format!("{}'s", super::shown(name)),
                None => "somebody else's".to_owned(),
            }
        ),
        Anomaly::OtherHolder { holder: None } => format!(
            "The badge by which the device knew {} was no longer theirs by then, and who made it \
             is in doubt",
            speaker.worker_within()
        ),
        Anomaly::Visitor => format!("{worker} was not assigned to this site then"),
        Anomaly::OppositeKind { of, apart_ms } => format!(
            "{worker} {} only {} (punch {of}); perhaps one reading was taken twice",
            super::words::had_done(opposite(kind)),
            earlier(*apart_ms)
        ),
        Anomaly::RevokedDevice => {
            "The device's access had been ended before this punch arrived".to_owned()
        }
        Anomaly::BeyondLookback { age_ms } => format!(
            "It was {} old when it reached the server, which is longer than the site looks back",
            duration(*age_ms)
        ),
        Anomaly::TwoSites { other, site, apart_ms } => format!(
            "{worker} had punched at {} only {} (punch {other})",
            speaker.site(*site).unwrap_or_else(|| "another site".to_owned()),
            earlier(*apart_ms)
        ),
    }
}

/// A doubt that is taken back: what was doubted, and why it no longer is, where that is known.
/// `found` is whether it became known just before whose the punch is.
pub(super) fn withdrawn(speaker: &Speaker<'_>, anomaly: &Anomaly, found: bool) -> String {
    let what = match anomaly {
        Anomaly::UnknownBadge => {
            return "So it is known whose the badge was, and that doubt is gone.".to_owned();
        }
        Anomaly::UnknownEmployee => {
            return "The server knows the worker now, so that doubt is gone.".to_owned();
        }
        Anomaly::NearDuplicate { of, .. } => format!("That it repeats punch {of}"),
        Anomaly::OppositeKind { of, .. } => {
            format!("That it may be the same reading as punch {of}")
        }
        Anomaly::TwoSites { other, .. } => {
            format!("That it was made too soon after punch {other} at another site")
        }
        Anomaly::DepartedWorker { .. } => "That the worker had left by then".to_owned(),
        Anomaly::OtherHolder { .. } => "That the badge was somebody else's by then".to_owned(),
        Anomaly::Visitor => "That the worker was not assigned to this site then".to_owned(),
        Anomaly::ClockSuspect { .. } => "That the device's clock was off".to_owned(),
        Anomaly::InFuture { .. } => "That it was of a time still to come".to_owned(),
        Anomaly::Fork { seq, .. } => format!("That the device had used its number {seq} before"),
        Anomaly::RevokedDevice => "That the device's access had been ended".to_owned(),
        Anomaly::BeyondLookback { .. } => "That it came very late".to_owned(),
    };
    let why = match anomaly {
        _ if found => {
            format!(", as the punch is known to be {}", belonging(&speaker.worker_within()))
        }
        Anomaly::NearDuplicate { .. } | Anomaly::OppositeKind { .. } | Anomaly::TwoSites { .. } => {
            ", as the other punch no longer stands beside it: it was taken out of the count, or \
             is known to be of another time or person"
                .to_owned()
        }
        Anomaly::DepartedWorker { .. } => {
            ", as the day on which they left was corrected".to_owned()
        }
        Anomaly::OtherHolder { .. } => ", as who held the badge then was corrected".to_owned(),
        Anomaly::Visitor => ", as it is known now that they were".to_owned(),
        _ => String::new(),
    };
    format!("{what} is no longer a doubt{why}.")
}

fn belonging(whom: &str) -> String {
    format!("{whom}'s")
}

const fn opposite(kind: PunchKind) -> PunchKind {
    match kind {
        PunchKind::In => PunchKind::Out,
        PunchKind::Out => PunchKind::In,
        PunchKind::BreakStart => PunchKind::BreakEnd,
        PunchKind::BreakEnd => PunchKind::BreakStart,
    }
}

fn earlier(apart_ms: i64) -> String {
    if apart_ms == 0 {
        "at the same moment".to_owned()
    } else {
        format!("{} earlier", duration(apart_ms))
    }
}
