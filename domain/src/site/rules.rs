//! A site's zone and policy, each from a day on: what was set on the day of a punch is what it is
//! judged and paired by, whenever the punch becomes known.

use jiff::{civil::Date, tz::TimeZone};
use punchtrail_protocol::Time;
use serde::{Deserialize, Serialize};

use super::SiteEvent;
use crate::policy::Policy;

/// A value that holds from a business day on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dated<T> {
    /// None: since ever.
    pub day: Option<Date>,
    pub value: T,
}

/// What a site set, and from when. Of two values from one day the one that was set last holds; each
/// holds until the next one's day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SiteRules {
    zones: Vec<Dated<String>>,
    policies: Vec<Dated<Policy>>,
    default_policy: Policy,
}

/// Zone and policy that hold from an instant on.
#[derive(Debug, Clone)]
pub struct Rule<'a> {
    /// None: since ever.
    pub since: Option<Time>,
    /// The IANA name of the zone.
    pub tz: &'a str,
    pub policy: &'a Policy,
}

impl SiteRules {
    /// Takes an event of the site.
    pub fn evolve(&mut self, event: &SiteEvent) {
        match event {
            SiteEvent::Registered { tz } => set(&mut self.zones, None, tz.clone()),
            SiteEvent::ZoneChanged { tz, from } => set(&mut self.zones, *from, tz.clone()),
            SiteEvent::PolicyChanged { policy, from } => {
                set(&mut self.policies, *from, policy.clone());
            }
        }
    }

    /// The policy where none was set.
    pub const fn default_policy(&self) -> &Policy {
        &self.default_policy
    }

    /// Whether the site is known.
    pub fn is_registered(&self) -> bool {
        !self.zones.is_empty()
    }

    /// The zones, in the order of their days.
    pub fn zones(&self) -> &[Dated<String>] {
        &self.zones
    }

    /// The policies that were set, in the order of their days.
    pub fn policies(&self) -> &[Dated<Policy>] {
        &self.policies
    }

    /// The zone that holds on a day.
    pub fn zone_on(&self, day: Date) -> Option<&str> {
        on(&self.zones, day).map(String::as_str)
    }

    /// The policy that holds on a business day.
    pub fn policy_on(&self, day: Date) -> &Policy {
        on(&self.policies, day).unwrap_or(&self.default_policy)
    }

    /// The policy that holds then.
    pub fn policy_at(&self, at: Time) -> &Policy {
        if let [] | [Dated { day: None, .. }] = &*self.policies {
            return self.policy_first();
        }
        let begun = |policy: &&Dated<Policy>| self.begins(policy).is_none_or(|since| since <= at);
        self.policies.iter().rev().find(begun).map_or(&self.default_policy, |policy| &policy.value)
    }

    /// The zone that holds then.
    pub fn zone_at(&self, at: Time) -> Option<&str> {
        let begun = |zone: &&Dated<String>| midnight_of(zone).is_none_or(|since| since <= at);
        self.zones.iter().rev().find(begun).or(self.zones.first()).map(|zone| &*zone.value)
    }

    /// What holds from when on, in order: the first since ever. None before the site is known.
    pub fn all(&self) -> Vec<Rule<'_>> {
        let Some(first) = self.zones.first() else { return Vec::new() };
        let mut since: Vec<Time> = self.zones.iter().filter_map(midnight_of).collect();
        since.extend(self.policies.iter().filter_map(|policy| self.begins(policy)));
        since.sort_unstable();
        since.dedup();
        let mut rules = vec![Rule { since: None, tz: &first.value, policy: self.policy_first() }];
        rules.extend(since.into_iter().map(|at| Rule {
            since: Some(at),
            tz: self.zone_at(at).unwrap_or(&first.value),
            policy: self.policy_at(at),
        }));
        rules
    }

    fn policy_first(&self) -> &Policy {
        let first = self.policies.first().filter(|policy| policy.day.is_none());
        first.map_or(&self.default_policy, |policy| &policy.value)
    }

    /// When a policy begins to hold: with its first business day, as it counts days.
    fn begins(&self, policy: &Dated<Policy>) -> Option<Time> {
        let day = policy.day?;
        let zone = self.zone_on(day).or(self.zones.first().map(|zone| &*zone.value));
        let into_day = jiff::SignedDuration::from_mins(i64::from(policy.value.day_starts_min));
        Some(start(day, into_day, zone))
    }
}

/// When a zone begins to hold: at its first midnight there.
fn midnight_of(zone: &Dated<String>) -> Option<Time> {
    Some(start(zone.day?, jiff::SignedDuration::ZERO, Some(&zone.value)))
}

fn start(day: Date, into_day: jiff::SignedDuration, zone: Option<&str>) -> Time {
    let zone = zone.and_then(|tz| TimeZone::get(tz).ok()).unwrap_or(TimeZone::UTC);
    let wall = day.to_datetime(jiff::civil::Time::midnight().saturating_add(into_day));
    // Beyond what a timestamp can say, it never begins.
    wall.to_zoned(zone).map_or_else(
        |_| Time::from_millis(if day.year() > 0 { i64::MAX } else { i64::MIN }),
        |zoned| zoned.timestamp().into(),
    )
}

fn set<T>(values: &mut Vec<Dated<T>>, day: Option<Date>, value: T) {
    match values.binary_search_by_key(&day, |held| held.day) {
        Ok(index) => values[index].value = value,
        Err(index) => values.insert(index, Dated { day, value }),
    }
}

fn on<T>(values: &[Dated<T>], day: Date) -> Option<&T> {
    values.iter().rev().find(|held| held.day.is_none_or(|from| from <= day)).map(|held| &held.value)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn rules(events: impl IntoIterator<Item = SiteEvent>) -> SiteRules {
        let mut rules = SiteRules::default();
        events.into_iter().for_each(|event| rules.evolve(&event));
        rules
    }

    fn starts(day_starts_min: u32, from: Option<Date>) -> SiteEvent {
        let policy = Policy { day_starts_min, ..Policy::default() };
        SiteEvent::PolicyChanged { policy, from }
    }

    fn berlin() -> SiteEvent {
        SiteEvent::Registered { tz: "Europe/Berlin".to_owned() }
    }

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    #[test]
    fn a_policy_holds_from_its_first_business_day_as_it_counts_days() {
        let rules = rules([berlin(), starts(300, Some(date(2026, 3, 10)))]);
        let min = |text| rules.policy_at(at(text)).day_starts_min;
        assert_eq!(min("2026-03-10T03:59:59.999Z"), 0, "04:59 in Berlin is the day before");
        assert_eq!(min("2026-03-10T04:00:00.000Z"), 300);
        assert_eq!(rules.policy_on(date(2026, 3, 9)).day_starts_min, 0);
        assert_eq!(rules.policy_on(date(2026, 3, 10)).day_starts_min, 300);
    }

    #[test]
    fn the_later_day_holds_whichever_was_set_first_and_one_day_again_is_replaced() {
        let (early, late) = (Some(date(2026, 3, 5)), Some(date(2026, 3, 10)));
        let rules = rules([berlin(), starts(60, late), starts(120, early), starts(180, late)]);
        let min = |day| rules.policy_on(date(2026, 3, day)).day_starts_min;
        assert_eq!([min(4), min(5), min(9), min(10)], [0, 120, 120, 180]);
        assert_eq!(rules.all().len(), 3);
    }

    #[test]
    fn a_zone_since_ever_corrects_the_past_and_one_from_a_day_leaves_it() {
        let changed = |tz: &str, from| SiteEvent::ZoneChanged { tz: tz.to_owned(), from };
        let corrected = rules([berlin(), changed("Europe/Lisbon", None)]);
        assert_eq!(corrected.zone_at(at("2026-03-01T00:00:00.000Z")), Some("Europe/Lisbon"));
        let moved = rules([berlin(), changed("Europe/Lisbon", Some(date(2026, 3, 10)))]);
        assert_eq!(moved.zone_at(at("2026-03-09T23:59:59.999Z")), Some("Europe/Berlin"));
        assert_eq!(moved.zone_at(at("2026-03-10T00:00:00.000Z")), Some("Europe/Lisbon"));
        let said: Vec<_> = moved.all().iter().map(|rule| (rule.since, rule.tz)).collect();
        let since = Some(at("2026-03-10T00:00:00.000Z"));
        assert_eq!(said, [(None, "Europe/Berlin"), (since, "Europe/Lisbon")]);
    }
}
