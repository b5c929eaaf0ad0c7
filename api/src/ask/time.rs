//! Times as people and integrators write them: RFC 3339 with any fraction or none, in UTC or at an
//! offset. What is finer than a millisecond is dropped. Devices write one spelling
//! (`punchtrail_protocol::Time`), and so does the server.

use std::str::FromStr;

use jiff::Timestamp;
use punchtrail_protocol::Time;
use serde::{Deserialize, Deserializer};

/// A time as it is asked for.
#[derive(Debug, Clone, Copy)]
struct Asked(Time);

impl FromStr for Asked {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // More spellings than RFC 3339 has can be read: of days without hours, of zones by name.
        let bytes = text.as_bytes();
        let is_spelled = bytes.len() >= 20
            && bytes.is_ascii()
            && [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')]
                .iter()
                .all(|&(at, mark)| bytes[at] == mark)
            && matches!(bytes[10], b'T' | b't')
            && is_offset(text);
        let time = Some(text).filter(|_| is_spelled).and_then(|text| text.parse().ok());
        time.map(|time: Timestamp| Self(time.into())).ok_or(
            "not a time of RFC 3339, like 2026-11-21T08:59:03Z, 2026-11-21T08:59:03.120Z or \
             2026-11-21T09:59:03+01:00",
        )
    }
}

/// `Z` or hours and minutes, after seconds and their fraction.
fn is_offset(text: &str) -> bool {
    let rest = text.get(19..).unwrap_or_default();
    let fraction = rest.strip_prefix('.');
    let digits = fraction.map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    let offset = match fraction {
        Some(fraction) if digits > 0 => &fraction[digits..],
        Some(_) => return false,
        None => rest,
    };
    match offset.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hours @ .., b':', ten, one] => {
            let digit = u8::is_ascii_digit;
            hours.len() == 2 && hours.iter().all(digit) && [ten, one].into_iter().all(digit)
        }
        _ => false,
    }
}

/// For a field with a time: `#[serde(deserialize_with = "crate::ask::time::read")]`.
///
/// # Errors
/// When it is none.
pub fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    let text = String::deserialize(deserializer)?;
    let asked: Asked = text.parse().map_err(serde::de::Error::custom)?;
    Ok(asked.0)
}

/// For a field that may be left out or null:
/// `#[serde(default, deserialize_with = "crate::ask::time::read_if_any")]`.
///
/// # Errors
/// When it is none.
pub fn read_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let asked = text.map(|text| text.parse::<Asked>()).transpose();
    Ok(asked.map_err(serde::de::Error::custom)?.map(|asked| asked.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        text.parse::<Asked>().ok().map(|asked| asked.0.to_string())
    }

    #[test]
    fn every_spelling_of_rfc_3339_is_read_and_no_other() {
        for (text, time) in [
            ("2026-11-21T08:59:03Z", "2026-11-21T08:59:03.000Z"),
            ("2026-11-21T08:59:03.1Z", "2026-11-21T08:59:03.100Z"),
            ("2026-11-21T08:59:03.120Z", "2026-11-21T08:59:03.120Z"),
            ("2026-11-21T08:59:03.120999999Z", "2026-11-21T08:59:03.120Z"),
            ("2026-11-21t08:59:03z", "2026-11-21T08:59:03.000Z"),
            ("2026-11-21T09:59:03+01:00", "2026-11-21T08:59:03.000Z"),
            ("2026-11-21T08:59:03.5-00:00", "2026-11-21T08:59:03.500Z"),
        ] {
            assert_eq!(read(text).as_deref(), Some(time), "{text}");
        }
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T08:59Z",
            "2026-11-21T08:59:03",
            "2026-11-21 08:59:03Z",
            "2026-11-21T08:59:03.Z",
            "2026-11-21T08:59:03+01",
            "2026-11-21T08:59:03+0100",
            "2026-11-21T08:59:03Z[Europe/Berlin]",
            "2026-11-21T08:59:03+01:00[Europe/Berlin]",
            "2026-02-30T08:59:03Z",
            "2026-11-21T25:59:03Z",
            "1790000000",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
