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

    fn policy_first(&self) -> &Policy {
        let first = self.policies.first().filter(|policy| policy.day.is_none());
        first.map_or(&self.default_policy, |policy| &policy.value)
    }

    /// When a policy begins to hold: with its first business day, where the day before ends as
    /// its own rules say.
    fn begins(&self, policy: &Dated<Policy>) -> Option<Time> {
        let day = policy.day?;
        let before = day.yesterday().unwrap_or(day);
        let zone = self.zone_on(before).or(self.zones.first().map(|zone| &*zone.value));
        Some(start(day, self.policy_on(before).day_starts_min, zone))
    }
}

/// When a zone begins to hold: at its first midnight there.
fn midnight_of(zone: &Dated<String>) -> Option<Time> {
    Some(start(zone.day?, 0, Some(&zone.value)))
}

fn start(day: Date, into_day_min: u32, zone: Option<&str>) -> Time {
    let zone = zone.and_then(|tz| TimeZone::get(tz).ok()).unwrap_or(TimeZone::UTC);
    let into_day = jiff::SignedDuration::from_mins(i64::from(into_day_min));
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
    fn a_policy_holds_from_where_the_day_before_it_ends() {
        let (ninth, tenth) = (Some(date(2026, 3, 9)), Some(date(2026, 3, 10)));
        let rules = rules([berlin(), starts(60, ninth), starts(300, tenth)]);
        let min = |text| rules.policy_at(at(text)).day_starts_min;
        assert_eq!(min("2026-03-08T22:59:59.999Z"), 0);
        assert_eq!(min("2026-03-08T23:00:00.000Z"), 60);
        assert_eq!(min("2026-03-09T23:59:59.999Z"), 60, "00:59 in Berlin is the day before");
        assert_eq!(min("2026-03-10T00:00:00.000Z"), 300);
        assert_eq!(rules.policy_on(date(2026, 3, 9)).day_starts_min, 60);
        assert_eq!(rules.policy_on(date(2026, 3, 10)).day_starts_min, 300);
    }

    #[test]
    fn the_later_day_holds_whichever_was_set_first_and_one_day_again_is_replaced() {
        let (early, late) = (Some(date(2026, 3, 5)), Some(date(2026, 3, 10)));
        let rules = rules([berlin(), starts(60, late), starts(120, early), starts(180, late)]);
        let min = |day| rules.policy_on(date(2026, 3, day)).day_starts_min;
        assert_eq!([min(4), min(5), min(9), min(10)], [0, 120, 120, 180]);
    }

    #[test]
    fn a_zone_since_ever_corrects_the_past_and_one_from_a_day_leaves_it() {
        let changed = |tz: &str, from| SiteEvent::ZoneChanged { tz: tz.to_owned(), from };
        let corrected = rules([berlin(), changed("Europe/Lisbon", None)]);
        assert_eq!(corrected.zone_at(at("2026-03-01T00:00:00.000Z")), Some("Europe/Lisbon"));
        let moved = rules([berlin(), changed("Europe/Lisbon", Some(date(2026, 3, 10)))]);
        assert_eq!(moved.zone_at(at("2026-03-09T23:59:59.999Z")), Some("Europe/Berlin"));
        assert_eq!(moved.zone_at(at("2026-03-10T00:00:00.000Z")), Some("Europe/Lisbon"));
    }
}
