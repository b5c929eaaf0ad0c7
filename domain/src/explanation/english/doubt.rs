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
        Anomaly::OtherHolder { .. } => {
            format!("The badge by which the device knew {worker} was no longer theirs by then")
        }
        Anomaly::Visitor => format!("{worker} was not assigned to this site then"),
        Anomaly::OppositeKind { of, apart_ms } => format!(
            "{worker} had made the opposite punch only {} (punch {of}); perhaps one reading was \
             taken twice",
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

fn earlier(apart_ms: i64) -> String {
    if apart_ms == 0 {
        "at the same moment".to_owned()
    } else {
        format!("{} earlier", duration(apart_ms))
    }
}
