//! Durations of a policy as people say them: `2min`, `3d`, `12h 30m`.

use jiff::{Span, SpanRelativeTo, Unit as Time};

/// Keys whose number is a duration, but for those that end in `_s`: a `_min` may also mean the
/// least there may be.
const OF_MINUTES: [&str; 1] = ["day_starts_min"];

/// What a key's number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    suffix: &'static str,
    seconds: u64,
    name: &'static str,
}

const SECONDS: Unit = Unit { suffix: "_s", seconds: 1, name: "seconds" };
const MINUTES: Unit = Unit { suffix: "_min", seconds: 60, name: "minutes" };
const DAYS: Unit = Unit { suffix: "_days", seconds: 86_400, name: "days" };

/// The unit of a policy's key; none if it is no duration.
pub(super) fn of(key: &str) -> Option<Unit> {
    match key {
        key if OF_MINUTES.contains(&key) => Some(MINUTES),
        key if key.ends_with(SECONDS.suffix) => Some(SECONDS),
        key if key.ends_with(DAYS.suffix) => Some(DAYS),
        _ => None,
    }
}

/// The key of a policy that was given without its unit.
pub(super) fn full(given: &str, is_key: impl Fn(&str) -> bool) -> Option<String> {
    let with = |unit: Unit| format!("{given}{}", unit.suffix);
    [SECONDS, MINUTES, DAYS].map(with).into_iter().find(|key| of(key).is_some() && is_key(key))
}

impl Unit {
    /// A key without its unit.
    pub fn bare(self, key: &str) -> &str {
        key.strip_suffix(self.suffix).unwrap_or(key)
    }

    /// A number in the largest units that tell it.
    pub fn told(self, number: u64) -> String {
        if number == 0 {
            return "0s".to_owned();
        }
        let mut left = number * self.seconds;
        // Days are only told of what counts whole ones: 36 hours are no day and a half.
        let days = left.is_multiple_of(DAYS.seconds).then_some((DAYS.seconds, "d"));
        let mut parts = Vec::new();
        for (seconds, name) in days.into_iter().chain([(3_600, "h"), (60, "min"), (1, "s")]) {
            if left >= seconds {
                parts.push(format!("{}{name}", left / seconds));
                left %= seconds;
            }
        }
        parts.join(" ")
    }

    /// Reads what was given for a key; none if it is a number in the key's own unit, which only a
    /// key that says the unit may have.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(self, key: &str, text: &str, is_bare: bool) -> Result<Option<u64>, String> {
        let text = text.trim();
        if text.parse::<i64>().is_ok() {
            return match is_bare && text != "0" {
                true => Err(format!("`{key}`: {text} of which unit? `{text}min` for one")),
                false if is_bare => Ok(Some(0)),
                false => Ok(None),
            };
        }
        let no_duration =
            || format!("`{key}`: `{text}` is no duration; `90s`, `2min`, `12h 30m` and `3d` are");
        let span: Span = text.parse().map_err(|_| no_duration())?;
        let total = span
            .total((Time::Millisecond, SpanRelativeTo::days_are_24_hours()))
            .map_err(|_| no_duration())?;
        let of_one = self.seconds as f64 * 1_000.0;
        let number = total / of_one;
        if number < 0.0 || number > f64::from(u32::MAX) {
            return Err(no_duration());
        }
        if number.fract() != 0.0 {
            return Err(format!("`{key}` is counted in whole {}", self.name));
        }
        Ok(Some(number as u64))
    }
}
