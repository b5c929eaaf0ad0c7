//! Disputes: what device and server share of them. What one is about, why it was opened, where it
//! stands, how it was settled, and which text may come with it.
//!
//! A worker's text is kept and given back exactly as it was typed. Markup in it is text, and so are
//! marks that turn the direction of writing: they are kept, and whoever shows the text sees to it
//! that it ends where it ends, by [`crate::shown`] on a terminal, by isolating it (`<bdi>`) on a
//! page. It never stands within another sentence.

use std::{fmt, str::FromStr};

use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::PunchId;

/// The longest text of a dispute, of an answer and of a note, in characters.
pub const TEXT_CHARS_MAX: usize = 2_000;

/// A calendar day, in its one spelling: `2026-11-21`, years 0000 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = Date))]
pub struct Day(Date);

/// A text that is no day in the one spelling that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a day, like 2026-11-21")]
pub struct InvalidDay;

impl Day {
    /// The day as a date.
    pub const fn date(self) -> Date {
        self.0
    }
}

impl From<Date> for Day {
    /// A day outside the years that are written is the nearest of them.
    fn from(date: Date) -> Self {
        Self(if date.year() < 0 { Date::constant(0, 1, 1) } else { date })
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Day {
    type Err = InvalidDay;
    fn from_str(text: &str) -> Result<Self, InvalidDay> {
        let read: Date = text.parse().map_err(|_| InvalidDay)?;
        // The one spelling, and nothing that a date could also be read from.
        if read.year() >= 0 && read.to_string() == text { Ok(Self(read)) } else { Err(InvalidDay) }
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Day;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a day, like 2026-11-21")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Day, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// What a dispute is about: a punch, or a business day of the worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum About {
    Punch(PunchId),
    Day(Day),
}

impl About {
    /// The punch, if it is about one.
    pub const fn punch(self) -> Option<PunchId> {
        match self {
            Self::Punch(punch) => Some(punch),
            Self::Day(_) => None,
        }
    }

    /// The day, if it is about one.
    pub const fn day(self) -> Option<Day> {
        match self {
            Self::Punch(_) => None,
            Self::Day(day) => Some(day),
        }
    }
}

/// Why a dispute was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
#[strum(parse_err_ty = UnknownCause, parse_err_fn = UnknownCause::of)]
pub enum DisputeCause {
    /// On a day a punch is missing.
    MissingPunch,
    /// The punch's time is wrong.
    WrongTime,
    /// The punch says in where it was out, or another kind.
    WrongKind,
    /// It was recorded for somebody else: a wrong person was tapped.
    WrongPerson,
    /// It stands under the worker's name, who didn't make it.
    NotMine,
    /// It was rejected or taken out of the count, and should count.
    Rejected,
    Other,
}

/// A text that names no cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a cause is one of `missing_punch`, `wrong_time`, `wrong_kind`, `wrong_person`, `not_mine`, \
     `rejected`, `other`"
)]
pub struct UnknownCause;

impl UnknownCause {
    fn of(_: &str) -> Self {
        Self
    }
}

impl DisputeCause {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether a dispute for this cause may be about that. A punch that is missing has no id; one
    /// that is wrong has.
    pub const fn fits(self, about: About) -> bool {
        match (self, about) {
            (Self::MissingPunch, about) => matches!(about, About::Day(_)),
            (Self::WrongPerson | Self::Other, _) | (_, About::Punch(_)) => true,
            (_, About::Day(_)) => false,
        }
    }
}

/// Where a dispute stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
#[strum(parse_err_ty = UnknownDisputeState, parse_err_fn = UnknownDisputeState::of)]
pub enum DisputeState {
    #[default]
    Open,
    /// Somebody answered; it waits to be resolved still.
    Answered,
    Resolved,
    /// It was resolved, and waits again.
    Reopened,
}

/// A text that names no state of a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a state is one of `open`, `answered`, `resolved`, `reopened`")]
pub struct UnknownDisputeState;

impl UnknownDisputeState {
    fn of(_: &str) -> Self {
        Self
    }
}

impl DisputeState {
    /// The state as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether it waits for a person.
    pub const fn waits(self) -> bool {
        !matches!(self, Self::Resolved)
    }
}

/// How a dispute was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
#[strum(parse_err_ty = UnknownSettlement, parse_err_fn = UnknownSettlement::of)]
pub enum Settlement {
    /// Another time or kind of the punch counts.
    Amend,
    /// The punch counts as it is.
    Accept,
    /// The punch was taken out of the count.
    Void,
    /// A punch was entered that was missing.
    Add,
    /// A punch was given to whoever made it.
    Reassign,
    /// Everything stays as it was.
    Dismiss,
}

/// A text that names no way to settle a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`how` is one of `amend`, `accept`, `void`, `add`, `reassign`, `dismiss`")]
pub struct UnknownSettlement;

impl UnknownSettlement {
    fn of(_: &str) -> Self {
        Self
    }
}

impl Settlement {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether it is a ruling on the punch that the dispute is about.
    pub const fn rules_on_the_punch(self) -> bool {
        matches!(self, Self::Amend | Self::Accept | Self::Void)
    }

    /// Whether another punch settles it.
    pub const fn is_by_another_punch(self) -> bool {
        matches!(self, Self::Add | Self::Reassign)
    }
}

/// Why a text isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    #[error("it has at most {TEXT_CHARS_MAX} characters")]
    TooLong,
    /// Only new lines are.
    #[error("it holds a control character other than a new line")]
    Control,
}

/// Checks the text that comes with a dispute, an answer or a note. Letters, marks and signs of any
/// script are text, and so are those that turn the direction of writing.
///
/// # Errors
/// When it is too long, or holds what isn't writing.
pub fn check_text(text: &str) -> Result<(), BadText> {
    if text.chars().count() > TEXT_CHARS_MAX {
        return Err(BadText::TooLong);
    }
    if text.chars().any(|c| c.is_control() && c != '\n') { Err(BadText::Control) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn a_day_has_one_spelling() {
        for text in ["2026-11-21", "0000-01-01", "9999-12-31", "2024-02-29"] {
            assert_eq!(text.parse::<Day>().map(|day| day.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "2026-11-21T00:00:00",
            "2026-11-21[Europe/Berlin]",
            "20261121",
            "2026-02-29",
            "-000001-01-01",
            "+002026-11-21",
            " 2026-11-21",
            "2026-11-21Z",
            "",
        ] {
            assert_eq!(text.parse::<Day>(), Err(InvalidDay), "{text}");
        }
    }

    #[test]
    fn a_missing_punch_is_about_a_day_and_a_wrong_one_about_a_punch() {
        let (punch, day) = (About::Punch(PunchId::NIL), About::Day("2026-11-21".parse().unwrap()));
        for cause in DisputeCause::VARIANTS {
            let fits = (cause.fits(punch), cause.fits(day));
            let expected = match cause {
                DisputeCause::MissingPunch => (false, true),
                DisputeCause::WrongPerson | DisputeCause::Other => (true, true),
                _ => (true, false),
            };
            assert_eq!(fits, expected, "{cause:?}");
        }
    }

    #[test]
    fn what_people_write_is_taken_and_what_a_terminal_acts_on_is_not() {
        for text in
            ["", "<b>late</b> bus & rain\nquestion?", "\u{202e}abc", "\u{2066}x\u{2069}", "שלום"]
        {
            assert_eq!(check_text(text), Ok(()), "{text:?}");
        }
        assert_eq!(check_text(&"ü".repeat(TEXT_CHARS_MAX)), Ok(()));
        assert_eq!(check_text(&"x".repeat(TEXT_CHARS_MAX + 1)), Err(BadText::TooLong));
        for text in ["\u{1b}[2J", "a\tb", "\u{9b}31m", "a\0", "\r"] {
            assert_eq!(check_text(text), Err(BadText::Control), "{text:?}");
        }
    }
}
