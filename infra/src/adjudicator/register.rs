//! What the adjudicator knows besides the punches: devices, sites and employees as of its place.
//! They are few, so they are kept in memory, folded from the ledger a page at a time; after a
//! failure they are folded anew.

use std::collections::{BTreeSet, HashMap};

use punchtrail_domain::{
    AggregateType, Event,
    device::DeviceEvent,
    employee::{Assignments, BadgeEnd, Badges, Biometrics, EmployeeEvent, Employment, Holding},
    epoch::Anchor,
    policy::{Policy, judging::Person},
    punch::Ground,
    site::SiteRules,
};
use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, Position, SiteId, Time,
    capture::{Capture, IdentifiedBy},
};

use crate::ledger::Feed;

use super::{
    AdjudicatorError,
    badges::{Holder, Holders},
};

/// Devices, sites and employees as of a place in the ledger.
#[derive(Debug, Default)]
pub(super) struct Register {
    at: Anchor,
    revoked: HashMap<DeviceId, Time>,
    sites: HashMap<SiteId, SiteRules>,
    default_policy: Policy,
    employees: HashMap<EmployeeId, Known>,
    /// Where it stands that somebody holds a badge, and when it was recorded.
    issued: HashMap<Digest, (Position, Time)>,
}

/// Who made a punch, as far as its device and people said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker {
    employee: EmployeeId,
    /// Whether the device knew them by a badge, and nobody has said otherwise since.
    by_badge: bool,
    /// Whether the device was cut off.
    offline: bool,
}

impl Maker {
    /// Of a captured punch, which `employee` is said to have made by now.
    pub(super) fn of(capture: &Capture, employee: EmployeeId) -> Self {
        let by_badge = matches!(capture.identified_by, IdentifiedBy::Badge | IdentifiedBy::Qr);
        let as_captured = capture.employee == Some(employee);
        Self { employee, by_badge: by_badge && as_captured, offline: capture.offline }
    }
}

/// What is known of an employee.
#[derive(Debug, Default)]
struct Known {
    employment: Employment,
    assignments: Assignments,
    badges: Badges,
    biometrics: Biometrics,
}

impl Known {
    fn evolve(&mut self, event: &EmployeeEvent) {
        self.employment.evolve(event);
        self.assignments.evolve(event);
        self.badges.evolve(event);
        self.biometrics.evolve(event);
    }
}

impl Register {
    /// Knows what stands up to `place`: nothing to do but after a start, a failure, when another
    /// node judged meanwhile, or when the database went back.
    pub(super) async fn catch_up(
        &mut self,
        feed: &Feed,
        place: Anchor,
    ) -> Result<(), AdjudicatorError> {
        if self.at == place {
            return Ok(());
        }
        *self = Self::default();
        for kind in [AggregateType::Device, AggregateType::Site, AggregateType::Employee] {
            feed.of_type(kind, place.position, |recorded| {
                self.take(&recorded.event()?, recorded.position, recorded.recorded_at.into());
                Ok(())
            })
            .await?;
        }
        self.at = place;
        Ok(())
    }

    /// Moves on to `place`; everything up to it was given to [`Self::take`].
    pub(super) fn moved_to(&mut self, place: Anchor) {
        self.at = place;
    }

    pub(super) fn take(&mut self, event: &Event, position: Position, recorded_at: Time) {
        match event {
            Event::Device(device, DeviceEvent::Revoked { at }) => {
                self.revoked.insert(*device, *at);
            }
            Event::Site(site, event) => self.sites.entry(*site).or_default().evolve(event),
            Event::Employee(employee, event) => {
                self.employees.entry(*employee).or_default().evolve(event);
                if let EmployeeEvent::BadgeIssued { holding, .. } = event {
                    self.issued.insert(*holding, (position, recorded_at));
                }
            }
            _ => {}
        }
    }

    /// The policy that held at the site then.
    pub(super) fn policy(&self, site: SiteId, at: Time) -> &Policy {
        self.sites.get(&site).map_or(&self.default_policy, |rules| rules.policy_at(at))
    }

    /// How far around any punch neighbours can matter, in milliseconds.
    pub(super) fn neighbourhood_ms(&self) -> i64 {
        let policies = self.sites.values().flat_map(SiteRules::policies);
        let largest = policies.map(|dated| dated.value.neighbourhood_ms()).max();
        largest.unwrap_or(0).max(self.default_policy.neighbourhood_ms())
    }

    pub(super) fn is_revoked(&self, device: DeviceId) -> bool {
        self.revoked.contains_key(&device)
    }

    /// What is known of who made a punch, as of its true time.
    pub(super) fn person(
        &self,
        maker: Option<Maker>,
        site: SiteId,
        at: Time,
        holders: &Holders,
    ) -> Person {
        let Some(maker) = maker else { return Person::BadgeOnly };
        let Some(known) = self.employees.get(&maker.employee) else { return Person::Unknown };
        Person::Known {
            departed_at: known.employment.departed_before(at),
            other_holder: maker
                .by_badge
                .then(|| self.other_holder(maker, at, site, holders))
                .flatten(),
            assigned: known.assignments.holds_at(site, at),
        }
    }

    /// Who held a badge then, if that was exactly one, and on what ground.
    pub(super) fn holder(
        &self,
        number: &str,
        at: Time,
        holders: &Holders,
    ) -> Option<(EmployeeId, Ground)> {
        let mut held = holders.of(number).iter().filter(|holder| self.holds(holder, at));
        let first = held.next()?;
        if held.any(|other| other.employee != first.employee) {
            return None;
        }
        let holding = first.holding;
        let issued = self.issued.get(&holding).map(|(position, _)| *position);
        Some((first.employee, Ground::Badge { holding, issued }))
    }

    /// Whether it is said by now that somebody holds a badge, then or ever; whatever stands beside
    /// the ledger may be of later.
    pub(super) fn has_come_to_hold(&self, holder: &Holder) -> bool {
        let known = self.employees.get(&holder.employee);
        known.is_some_and(|known| holder.undated || known.badges.get(holder.holding).is_some())
    }

    fn holds(&self, holder: &Holder, at: Time) -> bool {
        let known = self.employees.get(&holder.employee);
        match known.and_then(|known| known.badges.get(holder.holding)) {
            Some(holding) => holding.is_held_at(at),
            // What isn't dated stands in no event; what is, and isn't known, comes later.
            None => holder.undated && known.is_some(),
        }
    }

    /// Whether the badge by which the device knew somebody was no longer theirs by then, and whose
    /// it was, if exactly one other's. Of somebody with several badges it can't be told which was
    /// read; then it is doubted where one was another's and the device can't have heard of it.
    fn other_holder(
        &self,
        maker: Maker,
        at: Time,
        site: SiteId,
        holders: &Holders,
    ) -> Option<Option<EmployeeId>> {
        let badges = &self.employees.get(&maker.employee)?.badges;
        let ended = || badges.all().iter().filter(|held| held.until.is_some_and(|end| end <= at));
        let others: Vec<&Holder> = ended()
            .flat_map(|held| holders.beside(held.holding))
            .filter(|other| other.employee != maker.employee && self.holds(other, at))
            .collect();
        let heard_by = i64::from(self.policy(site, at).heartbeat_s) * 2_000;
        let unheard = |other: &&Holder| {
            let issued = self.issued.get(&other.holding);
            maker.offline || issued.is_some_and(|(_, said)| at < said.plus_millis(heard_by))
        };
        let is_doubted = if badges.any_at(at) {
            others.iter().any(unheard)
        } else {
            // That they had left says enough of a badge that is nobody's.
            let given_up = |held: &Holding| held.because != Some(BadgeEnd::Departed);
            !others.is_empty() || ended().any(given_up)
        };
        let who: BTreeSet<EmployeeId> = others.iter().map(|other| other.employee).collect();
        is_doubted.then(|| if who.len() == 1 { who.first().copied() } else { None })
    }

    /// The badges that somebody no longer holds: whose number may be another's by now.
    pub(super) fn ended_badges(&self, employee: EmployeeId) -> impl Iterator<Item = Digest> {
        let known = self.employees.get(&employee);
        let all = known.into_iter().flat_map(|known| known.badges.all());
        all.filter(|held| held.until.is_some()).map(|held| held.holding)
    }

    /// From when on punches of somebody must be looked at again because of that event; none when it
    /// changes no judgement.
    pub(super) fn changes_from(&self, employee: EmployeeId, event: &EmployeeEvent) -> Option<Time> {
        let unknown = Known::default();
        let known = self.employees.get(&employee).unwrap_or(&unknown);
        let by_badge = known.badges.changes_from(event);
        by_badge.or_else(|| known.employment.changes_from(event)).or_else(|| match event {
            EmployeeEvent::AssignedToSite { .. } | EmployeeEvent::UnassignedFromSite { .. } => {
                let policies = self.sites.values().flat_map(SiteRules::policies);
                let mut asked = policies.map(|dated| dated.value.refer_visitors);
                asked.any(|asked| asked).then_some(Time::FIRST)
            }
            // They are known from now on.
            EmployeeEvent::Registered {} => Some(Time::FIRST),
            _ => None,
        })
    }

    /// When it was recorded that somebody holds a badge.
    pub(super) fn issued_at(&self, holding: Digest) -> Option<Time> {
        self.issued.get(&holding).map(|(_, recorded_at)| *recorded_at)
    }

    /// Whether a picture of theirs that was taken then may be compared, and with something.
    pub(super) fn compares(&self, employee: Option<EmployeeId>, taken_at: Time) -> bool {
        let known = employee.and_then(|employee| self.employees.get(&employee));
        known.is_some_and(|known| known.biometrics.compares(taken_at))
    }
}
