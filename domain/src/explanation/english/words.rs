//! Durations, numbers and lists in words.

use punchtrail_protocol::capture::{IdentifiedBy, PunchKind};

const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];

/// From here on, seconds are left out of a length of time, in seconds: ten minutes.
const SECONDS_TOLD_BELOW_S: u64 = 600;

/// A length of time in its two greatest units, to the nearest minute when long, whatever its sign.
pub(super) fn duration(milliseconds: i64) -> String {
    let seconds = milliseconds.unsigned_abs() / 1_000;
    let seconds = if seconds < SECONDS_TOLD_BELOW_S { seconds } else { (seconds + 30) / 60 * 60 };
    let Some(greatest) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else {
        return "less than a second".to_owned();
    };
    let (unit, name) = UNITS[greatest];
    let first = many(seconds / unit, name);
    let second = UNITS
        .get(greatest + 1)
        .map(|(next, name)| (seconds % unit / next, name))
        .filter(|(count, _)| *count > 0);
    match second {
        Some((count, name)) => format!("{first} {}", many(count, name)),
        None => first,
    }
}

/// `1 punch`, `2 punches`.
pub(super) fn many(count: u64, one: &str) -> String {
    let ending = match one {
        _ if count == 1 => "",
        "punch" => "es",
        _ => "s",
    };
    format!("{count} {one}{ending}")
}

/// `number 7`, `numbers 7 to 9`.
pub(super) fn numbers(from: u64, to: u64) -> String {
    if from == to { format!("number {from}") } else { format!("numbers {from} to {to}") }
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The first letter made great.
pub(super) fn sentence_case(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What somebody did.
pub(super) const fn did(kind: PunchKind) -> &'static str {
    match kind {
        PunchKind::In => "clocked in",
        PunchKind::Out => "clocked out",
        PunchKind::BreakStart => "started a break",
        PunchKind::BreakEnd => "ended a break",
    }
}

/// What somebody had done.
pub(super) const fn had_done(kind: PunchKind) -> &'static str {
    match kind {
        PunchKind::In => "had clocked in",
        PunchKind::Out => "had clocked out",
        PunchKind::BreakStart => "had started a break",
        PunchKind::BreakEnd => "had ended a break",
    }
}

/// What a punch counts as.
pub(super) const fn doing(kind: PunchKind) -> &'static str {
    match kind {
        PunchKind::In => "clocking in",
        PunchKind::Out => "clocking out",
        PunchKind::BreakStart => "the start of a break",
        PunchKind::BreakEnd => "the end of a break",
    }
}

/// How the device knew who punched.
pub(super) const fn identified(by: IdentifiedBy) -> &'static str {
    match by {
        IdentifiedBy::Pin => "confirmed by PIN",
        IdentifiedBy::Badge => "by badge",
        IdentifiedBy::Qr => "by QR code",
        IdentifiedBy::Search => "chosen by name",
        IdentifiedBy::Terminal => "as a terminal told it",
    }
}
