//! Disputes, told: what somebody says of a punch or a day, and what was made of it. What people
//! wrote is never repeated here.

use punchtrail_protocol::{
    dispute::{About, DisputeCause, DisputeState, Settlement},
    vocabulary::Reason,
};

use super::Speaker;
use crate::{
    explanation::{
        absence::facts::DayDispute,
        step::{Disputed, Step},
    },
    log::recorded::Actor,
};

/// What happened to a dispute about a punch.
pub(super) fn sentence(speaker: &Speaker<'_>, step: &Step, disputed: &Disputed) -> String {
    let when = step.ledger_time.map_or_else(String::new, |at| speaker.when(at));
    let actor = speaker.actor(step.actor.as_ref());
    match disputed {
        Disputed::Opened { dispute, employee, cause, text } => {
            let who = match &step.actor {
                Some(Actor::Device(device)) => {
                    let (who, at) = (speaker.person(*employee), speaker.device_within(*device));
                    format!("{who}, at {at},")
                }
                _ => actor,
            };
            let text = if *text { " There is a text with it." } else { "" };
            format!("{who} disputed it {when}: {} (dispute {dispute}).{text}", because(*cause))
        }
        Disputed::Answered { .. } => format!("{actor} answered {when}."),
        Disputed::Resolved { how, by_punch, .. } => {
            let by = by_punch.map_or_else(String::new, |punch| format!(" (punch {punch})"));
            format!("{actor} settled the dispute {when}: {}{by}.", settled(*how))
        }
        Disputed::Reopened { .. } => format!("{actor} took the dispute up again {when}."),
    }
}

/// A dispute that touches a day.
pub(super) fn of_day(speaker: &Speaker<'_>, dispute: &DayDispute) -> String {
    let about = match dispute.about {
        About::Punch(punch) => format!("the punch {punch}"),
        About::Day(_) => "this day".to_owned(),
    };
    let stands = match (dispute.state, dispute.how) {
        (DisputeState::Resolved, Some(how)) => format!("It is settled: {}.", settled(how)),
        (DisputeState::Answered, _) => "It was answered, and waits to be settled.".to_owned(),
        _ => "It waits for a person. What isn't disputed counts as it did.".to_owned(),
    };
    format!(
        "Disputed {} is {about}: {} (dispute {}). {stands}",
        speaker.when(dispute.opened_at),
        because(dispute.cause),
        dispute.dispute
    )
}

/// Why, within a sentence.
const fn because(cause: DisputeCause) -> &'static str {
    match cause {
        DisputeCause::MissingPunch => "a punch is said to be missing",
        DisputeCause::WrongTime => "its time is said to be wrong",
        DisputeCause::WrongKind => "it is said to be another kind of punch",
        DisputeCause::WrongPerson => "it is said to be recorded for the wrong person",
        DisputeCause::NotMine => "it is said to be made by somebody else",
        DisputeCause::Rejected => "it is said that it should count",
        DisputeCause::Other => "for a reason of its own",
    }
}

/// How a dispute was settled, within a sentence.
pub(in crate::explanation) const fn settled(how: Settlement) -> &'static str {
    match how {
        Settlement::Amend => "the punch was corrected",
        Settlement::Accept => "the punch counts as it is",
        Settlement::Void => "the punch was taken out of the count",
        Settlement::Add => "the missing punch was entered",
        Settlement::Reassign => "the punch was given to whoever made it",
        Settlement::Dismiss => "everything stays as it was",
    }
}

/// Why a punch waits for a person, as its worker is told.
pub(in crate::explanation) const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::NearDuplicate => "The same punch came twice within a short time",
        Reason::ClockSuspect => "The device's clock was wrong",
        Reason::InFuture => "By the device's clock it was made in the future",
        Reason::Fork => "The device numbered another punch alike",
        Reason::UnknownBadge => "The badge was not known",
        Reason::UnknownEmployee => "The person was not known",
        Reason::DepartedWorker => "It is after the last day of work",
        Reason::RevokedDevice => "The device had no access any more",
        Reason::BeyondLookback => "It came very late",
        Reason::TwoSites => "Another punch was made at another site shortly before or after",
        Reason::OtherHolder => "The badge was no longer the worker's by then",
        Reason::Visitor => "The worker isn't assigned to that site",
        Reason::OppositeKind => "The opposite punch was made seconds before",
        Reason::FaceMismatch => "The picture was not recognised; a manager will look at it",
        Reason::FaceUnclear => "No picture was good enough to compare; a manager will look at it",
        Reason::PhotoMissing => "No picture came",
        Reason::FaceUnchecked => "The picture was not checked; a manager will look at it",
    }
}
