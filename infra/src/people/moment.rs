//! A time as people say it: a day at a site, or an instant. A day that begins something begins it
//! with its first midnight there; one that ends something is the last whole day.

use std::{fmt, str::FromStr};

use jiff::{civil::Date, tz::TimeZone};
use punchtrail_domain::site::{Site, SiteRules};
use punchtrail_protocol::{EmployeeId, SiteId, Time};

use super::error::PeopleError;
use crate::ledger::Ledger;

/// A day, or an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Day(Date),
    At(Time),
}

/// What a text that is none can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is neither a day (2026-11-26) nor a time with its offset (2026-11-26T18:00:00+01:00)")]
pub struct NoMoment;

impl FromStr for Moment {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Self, NoMoment> {
        let text = text.trim();
        // Ten characters are a day; jiff would take the day of a longer text, and drop the rest.
        if text.len() == 10 {
            return text.parse().map(Self::Day).map_err(|_| NoMoment);
        }
        text.parse::<jiff::Timestamp>().map(|at| Self::At(at.into())).map_err(|_| NoMoment)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => day.fmt(f),
            Self::At(at) => at.fmt(f),
        }
    }
}

impl Moment {
    /// When what begins with it begins.
    pub fn begins(self, site: &SiteRules) -> Time {
        match self {
            Self::Day(day) => midnight(day, site),
            Self::At(at) => at,
        }
    }

    /// When what ends with it ends.
    pub fn ends(self, site: &SiteRules) -> Time {
        match self {
            Self::Day(day) => midnight(day.tomorrow().unwrap_or(day), site),
            Self::At(at) => at,
        }
    }
}

fn midnight(day: Date, site: &SiteRules) -> Time {
    let zone = site.zone_on(day).or_else(|| site.zones().first().map(|zone| &*zone.value));
    let zone = zone.and_then(|tz| TimeZone::get(tz).ok()).unwrap_or(TimeZone::UTC);
    day.to_zoned(zone).map_or_else(|_| Time::default(), |zoned| zoned.timestamp().into())
}

/// The rules of a site, whose zone its days are of.
///
/// # Errors
/// When the database is out of reach.
pub async fn rules_of(ledger: &Ledger, site: SiteId) -> Result<SiteRules, PeopleError> {
    let loaded = ledger.load::<Site>(&site.to_string()).await?;
    Ok(loaded.aggregate.rules().clone())
}

/// The site where a person works, the one where they began first; where they worked last.
///
/// # Errors
/// When the database is out of reach.
pub async fn home_of(ledger: &Ledger, employee: EmployeeId) -> Result<Option<SiteId>, PeopleError> {
    let loaded =
        ledger.load::<punchtrail_domain::employee::Employee>(&employee.to_string()).await?;
    let assignments = loaded.aggregate.assignments();
    Ok(assignments.open().next().or(assignments.all().last().map(|one| one.site)))
}

/// The rules of the site where a person works, the one where they began first.
///
/// # Errors
/// When the database is out of reach.
pub async fn rules_of_home(
    ledger: &Ledger,
    employee: EmployeeId,
) -> Result<SiteRules, PeopleError> {
    match home_of(ledger, employee).await? {
        Some(site) => rules_of(ledger, site).await,
        None => Ok(SiteRules::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchtrail_domain::site::SiteEvent;

    #[test]
    fn a_day_is_a_day_at_the_site() {
        let mut site = SiteRules::default();
        site.evolve(&SiteEvent::Registered { tz: "Europe/Berlin".to_owned() });
        let day: Moment = "2026-11-20".parse().unwrap();
        assert_eq!(day.begins(&site).to_string(), "2026-11-19T23:00:00.000Z");
        assert_eq!(day.ends(&site).to_string(), "2026-11-20T23:00:00.000Z");
        let at: Moment = "2026-11-20T18:00:00+01:00".parse().unwrap();
        assert_eq!(at.begins(&site).to_string(), "2026-11-20T17:00:00.000Z");
        for wrong in ["2026-11-31", "20.11.2026", "2026-11-20T18:00", "yesterday", ""] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }
}
