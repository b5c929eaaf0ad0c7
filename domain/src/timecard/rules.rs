//! How a site pairs punches, each way from a day on.
//!
//! A day ends as its own rules say. So a change from day D leaves the days before D as they were,
//! where D begins included; D itself is longer or shorter if the start of day or the zone changed.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use punchtrail_protocol::Time;

use super::{MILLIS_PER_S, TimecardPolicy, business_day, clocks::SWAP_REACH_MS};
use crate::site::SiteRules;

/// A site's ways of pairing, in order of the days they hold from. The first holds since ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    first: TimecardPolicy,
    later: Vec<(Date, TimecardPolicy)>,
}

impl Rules {
    /// One way, on all days.
    #[must_use]
    pub const fn always(policy: TimecardPolicy) -> Self {
        Self { first: policy, later: Vec::new() }
    }

    /// What a site set; the default policy in UTC where nothing is known of it.
    #[must_use]
    pub fn of_site(site: &SiteRules) -> Self {
        let zone = |name: Option<&str>| {
            // The zone was known when it was set.
            name.and_then(|tz| TimeZone::get(tz).ok()).unwrap_or(TimeZone::UTC)
        };
        let mut days: Vec<Date> = site.zones().iter().filter_map(|zone| zone.day).collect();
        days.extend(site.policies().iter().filter_map(|policy| policy.day));
        days.sort_unstable();
        days.dedup();
        let on = |day| TimecardPolicy::of_site(site.policy_on(day), zone(site.zone_on(day)));
        let since_ever = site.zones().first().map(|zone| &*zone.value);
        let policy = site.policies().first().filter(|policy| policy.day.is_none());
        let policy = policy.map_or_else(|| site.default_policy(), |policy| &policy.value);
        Self {
            first: TimecardPolicy::of_site(policy, zone(since_ever)),
            later: days.into_iter().map(|day| (day, on(day))).collect(),
        }
    }

    /// How the punches of a business day are paired.
    #[must_use]
    pub fn on(&self, day: Date) -> &TimecardPolicy {
        let held = self.later.iter().rev().find(|(from, _)| *from <= day);
        held.map_or(&self.first, |(_, policy)| policy)
    }

    /// How a punch at `at` is paired.
    #[must_use]
    pub fn at(&self, at: Time) -> &TimecardPolicy {
        if self.later.is_empty() { &self.first } else { self.on(business_day(at, self)) }
    }

    /// Whether nothing changes from `first` to `last`.
    pub(super) fn are_one(&self, first: Date, last: Date) -> bool {
        !self.later.iter().any(|(from, _)| first < *from && *from <= last)
    }

    /// How far a punch reaches: a shift is open no longer than the longest; double taps before its
    /// `in` and after its `out` move its ends, also those of what is accepted alone; and which of
    /// two punches came first may hang on a clock.
    pub(super) fn reach_ms(&self) -> i64 {
        let of = |policy: &TimecardPolicy| {
            (i64::from(policy.shift_max_s) + 4 * i64::from(policy.near_duplicate_s)) * MILLIS_PER_S
        };
        let longest = self.later.iter().map(|(_, policy)| of(policy)).max().unwrap_or_default();
        longest.max(of(&self.first)) + SWAP_REACH_MS
    }
}
