//! What the worker's other punches make of one, told.

use punchtrail_protocol::{capture::PunchKind, vocabulary::Reason};

use super::{Speaker, words};
use crate::{
    explanation::{DoubtedAfter, OnCard},
    timecard::UnmatchedCode,
};

/// A punch without its partner, as the card has it.
pub(super) fn sentence(speaker: &Speaker<'_>, kind: PunchKind, on_card: OnCard) -> String {
    let day = match Some(on_card.day) == speaker.day {
        true => String::new(),
        false => format!(" of {}", on_card.day.strftime("%A, %-d %B %Y")),
    };
    let card = format!("On the card{day}");
    let alone = |why: &str| format!("{card} it has no partner: {why}.");
    let until = on_card.may_pair_until.map(|until| speaker.exact_clock(until));
    match (on_card.code, until) {
        (UnmatchedCode::InWithoutOut, None) => alone("no clocking out followed it in time"),
        (UnmatchedCode::InWithoutOut, Some(until)) => format!(
            "{card} it has no partner so far: no clocking out has followed it; the shift may still \
             be closed by one until {until}."
        ),
        (UnmatchedCode::OutWithoutIn, _) => alone("no shift was open for it to close"),
        (UnmatchedCode::BreakWithoutShift, _) => alone("no shift was open then"),
        (UnmatchedCode::BreakNotEnded, None) => alone("the break has no end of its own"),
        (UnmatchedCode::BreakNotEnded, Some(until)) => format!(
            "{card} it has no partner so far: the break has not ended; it may still be ended until \
             {until}."
        ),
        (UnmatchedCode::BreakNotStarted, _) => alone("no break had begun"),
        (
            UnmatchedCode::DoubleIn
            | UnmatchedCode::DoubleOut
            | UnmatchedCode::DoubleBreakStart
            | UnmatchedCode::DoubleBreakEnd,
            _,
        ) => format!("{card} it repeats {} just before; the first one counts there.", the(kind)),
    }
}

/// That a later punch is doubted because of this one.
pub(super) fn doubted_after(after: DoubtedAfter) -> String {
    let DoubtedAfter { punch, kind, apart_ms, reason } = after;
    let how = match reason {
        Reason::OppositeKind => "perhaps one reading was taken twice",
        _ => "it may repeat this one",
    };
    let later = if apart_ms == 0 {
        "at the same moment".to_owned()
    } else {
        format!("{} later", words::duration(apart_ms))
    };
    format!(
        "{} {later} (punch {punch}) waits for a manager: {how}.",
        words::sentence_case(the(kind))
    )
}

const fn the(kind: PunchKind) -> &'static str {
    match kind {
        PunchKind::In => "the clocking in",
        PunchKind::Out => "the clocking out",
        PunchKind::BreakStart => "the start of a break",
        PunchKind::BreakEnd => "the end of a break",
    }
}
