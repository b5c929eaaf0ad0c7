//! Times as they stand in sentences: by the wall at the site, and where that shows a time twice,
//! which of the two it was.

use jiff::{
    Timestamp,
    tz::{AmbiguousOffset, Offset, TimeZone},
};
use punchtrail_protocol::Time;

use super::Speaker;

impl Speaker<'_> {
    /// `at 09:10:05`, with the day if it is another one.
    pub(super) fn when(&self, time: Time) -> String {
        self.told(time, "at %H:%M:%S", "on %A, %-d %B %Y, at %H:%M:%S")
    }

    /// `at 09:10`, with the day if it is another one.
    pub(super) fn when_about(&self, time: Time) -> String {
        self.told(time, "at %H:%M", "on %A, %-d %B %Y, at %H:%M")
    }

    /// `09:10`, with the day if it is another one.
    pub(super) fn clock(&self, time: Time) -> String {
        self.told(time, "%H:%M", "%-d %B %Y %H:%M")
    }

    /// `09:10:05`, with the day if it is another one.
    pub(super) fn exact_clock(&self, time: Time) -> String {
        self.told(time, "%H:%M:%S", "%-d %B %Y %H:%M:%S")
    }

    /// `21 November 2026 09:10:05`, whatever the day.
    pub(super) fn exact_clock_in_full(&self, time: Time) -> String {
        self.told(time, "%-d %B %Y %H:%M:%S", "%-d %B %Y %H:%M:%S")
    }

    /// `on Saturday, 21 November 2026, at 08:59:03`, whatever the day.
    pub(super) fn when_in_full(&self, time: Time) -> String {
        self.told(time, "on %A, %-d %B %Y, at %H:%M:%S", "on %A, %-d %B %Y, at %H:%M:%S")
    }

    /// Whether both are of one day on the wall.
    pub(super) fn is_one_day(&self, one: Time, other: Time) -> bool {
        let date = |time: Time| self.zone.to_datetime(time.timestamp()).date();
        date(one) == date(other)
    }

    fn told(&self, time: Time, same_day: &str, other_day: &str) -> String {
        let zoned = time.timestamp().to_zoned(self.zone.clone());
        let format = if Some(zoned.date()) == self.day { same_day } else { other_day };
        let said = zoned.strftime(format).to_string();
        match which(&self.zone, time.timestamp()) {
            Some(which) => format!("{said} {which}"),
            None => said,
        }
    }
}

/// Which of two instants that a wall shows alike: `EDT` or `EST`; `UTC+3` where the zone has no
/// letters for them, or the same ones. None where the wall shows a time once.
fn which(zone: &TimeZone, at: Timestamp) -> Option<String> {
    let wall = zone.to_datetime(at);
    let ambiguous = zone.to_ambiguous_timestamp(wall).offset();
    let AmbiguousOffset::Fold { before, after } = ambiguous else { return None };
    let letters = |offset: Offset| {
        let info = zone.to_offset_info(offset.to_timestamp(wall).ok()?);
        let letters = info.abbreviation().to_owned();
        letters.starts_with(|first: char| first.is_ascii_alphabetic()).then_some(letters)
    };
    let here = zone.to_offset(at);
    match (letters(before), letters(after)) {
        (Some(before), Some(after)) if before == after => Some(utc(here)),
        (Some(_), Some(_)) => letters(here),
        _ => Some(utc(here)),
    }
}

/// `UTC`, `UTC+3`, `UTC-3:30`.
pub(super) fn utc(offset: Offset) -> String {
    let seconds = offset.seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, rest) = (seconds.unsigned_abs() / 3_600, seconds.unsigned_abs() % 3_600);
    match (hours, rest / 60, rest % 60) {
        (0, 0, 0) => "UTC".to_owned(),
        (hours, 0, 0) => format!("UTC{sign}{hours}"),
        (hours, minutes, 0) => format!("UTC{sign}{hours}:{minutes:02}"),
        (hours, minutes, seconds) => format!("UTC{sign}{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn which_of(zone: &str, at: &str) -> Option<String> {
        which(&TimeZone::get(zone).unwrap(), at.parse().unwrap())
    }

    #[test]
    fn a_time_that_a_wall_shows_twice_says_which() {
        let told = [
            ("America/New_York", "2026-11-01T05:45:00Z", Some("EDT")),
            ("America/New_York", "2026-11-01T06:15:00Z", Some("EST")),
            ("America/New_York", "2026-11-01T04:59:59Z", None),
            ("America/New_York", "2026-11-01T07:00:00Z", None),
            ("America/New_York", "2026-03-08T07:00:00Z", None),
            ("Europe/Berlin", "2026-10-25T00:30:00Z", Some("CEST")),
            ("Europe/Berlin", "2026-10-25T01:30:00Z", Some("CET")),
            ("Europe/London", "2026-10-25T01:30:00Z", Some("GMT")),
            ("Australia/Sydney", "2026-04-04T15:30:00Z", Some("AEDT")),
            // No letters, and half an hour.
            ("Australia/Lord_Howe", "2026-04-04T14:45:00Z", Some("UTC+11")),
            ("Australia/Lord_Howe", "2026-04-04T15:15:00Z", Some("UTC+10:30")),
            ("America/Sao_Paulo", "2018-02-18T01:30:00Z", Some("UTC-2")),
            ("America/Sao_Paulo", "2018-02-18T02:30:00Z", Some("UTC-3")),
            ("Atlantic/Azores", "2026-10-25T00:30:00Z", Some("UTC")),
            ("Atlantic/Azores", "2026-10-25T01:30:00Z", Some("UTC-1")),
            // The same letters for both.
            ("Europe/Moscow", "2014-10-25T21:30:00Z", Some("UTC+4")),
            ("Europe/Moscow", "2014-10-25T22:30:00Z", Some("UTC+3")),
            ("Etc/UTC", "2026-10-25T01:30:00Z", None),
        ];
        for (zone, at, which) in told {
            assert_eq!(which_of(zone, at).as_deref(), which, "{zone} {at}");
        }
    }

    #[test]
    fn an_offset_is_told_as_short_as_it_is() {
        let told = [0, 3_600, -12_600, 20_700, -1].map(|s| utc(Offset::from_seconds(s).unwrap()));
        assert_eq!(told, ["UTC", "UTC+1", "UTC-3:30", "UTC+5:45", "UTC-0:00:01"]);
    }
}
