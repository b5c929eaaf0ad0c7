//! Instants as the wire writes them: RFC 3339 in UTC with exactly three decimals,
//! `2026-11-21T08:59:03.120Z`. No leap seconds, no other offsets, one spelling for each instant.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant, to the millisecond.
///
/// Covers years 0000 to 9999 as far as [`jiff::Timestamp`] does; the last 26 hours of the year 9999
/// are out of range and refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(Timestamp);

/// A text that is not an instant in the wire's one spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time in UTC with milliseconds, like 2026-11-21T08:59:03.120Z")]
pub struct InvalidTime;

impl Time {
    /// The first instant that the wire can write, `0000-01-01T00:00:00.000Z`.
    pub const FIRST: Self = Self(Timestamp::constant(-62_167_219_200, 0));
    /// The last one, `9999-12-30T22:00:00.999Z`.
    pub const LAST: Self = Self(Timestamp::constant(253_402_207_200, 999_000_000));

    /// The instant that many milliseconds after 1970-01-01T00:00:00Z; out of range gives the
    /// nearest.
    pub fn from_millis(milliseconds: i64) -> Self {
        let fallback = if milliseconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Self(Timestamp::from_millisecond(milliseconds).unwrap_or(fallback)).truncated()
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// The instant as a timestamp.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }

    /// How much later than `earlier` this is, in milliseconds; negative when it is earlier. Between
    /// the first instant and the last there are fewer than 2^50.
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.millis() - earlier.millis()
    }

    /// The instant `milliseconds` later.
    pub fn plus_millis(self, milliseconds: i64) -> Self {
        Self::from_millis(self.millis().saturating_add(milliseconds))
    }

    fn truncated(self) -> Self {
        let below = self.0.subsec_nanosecond().rem_euclid(1_000_000);
        Self(
            Timestamp::from_nanosecond(self.0.as_nanosecond() - i128::from(below))
                .unwrap_or(self.0),
        )
    }
}

impl From<Timestamp> for Time {
    /// Drops what is finer than a millisecond.
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp).truncated()
    }
}

fn digits(text: &[u8]) -> Option<i16> {
    text.iter().try_fold(0i16, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i16::from(byte - b'0'))
    })
}

fn parse(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    let punctuated = b.len() == 24
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')]
            .iter()
            .all(|&(at, mark)| b[at] == mark);
    if !punctuated {
        return None;
    }
    let part = |from: usize, to: usize| digits(&b[from..to]);
    let narrow = |value: i16| i8::try_from(value).ok();
    civil::DateTime::new(
        part(0, 4)?,
        narrow(part(5, 7)?)?,
        narrow(part(8, 10)?)?,
        narrow(part(11, 13)?)?,
        narrow(part(14, 16)?)?,
        narrow(part(17, 19)?)?,
        i32::from(part(20, 23)?) * 1_000_000,
    )
    .ok()?
    .to_zoned(TimeZone::UTC)
    .ok()
    .map(|zoned| zoned.timestamp())
}

impl FromStr for Time {
    type Err = InvalidTime;
    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        parse(text).map(Self).ok_or(InvalidTime)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time in UTC with milliseconds")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Time {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(
                utoipa::openapi::KnownFormat::DateTime,
            )))
            .into()
    }
}
#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Time {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_there_and_back() {
        for text in
            ["2026-11-21T08:59:03.120Z", "1970-01-01T00:00:00.000Z", "0001-01-01T00:00:00.000Z"]
        {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_spellings_and_impossible_times_are_refused() {
        for text in [
            "2026-11-21T08:59:03Z",
            "2026-11-21T08:59:03.12Z",
            "2026-11-21T08:59:03.1200Z",
            "2026-11-21T08:59:03.120+00:00",
            "2026-11-21t08:59:03.120z",
            "2026-11-21 08:59:03.120Z",
            "2016-12-31T23:59:60.000Z",
            "2026-02-30T08:59:03.120Z",
            "2026-11-21T24:00:00.000Z",
            "9999-12-31T23:59:59.999Z",
            "-026-11-21T08:59:03.120Z",
            "",
        ] {
            assert_eq!(text.parse::<Time>(), Err(InvalidTime), "{text}");
        }
    }

    #[test]
    fn finer_than_a_millisecond_is_dropped_downwards() {
        let t = Timestamp::from_nanosecond(-1).unwrap();
        assert_eq!(Time::from(t).millis(), -1);
    }
}
