//! What surrounds a punch in the ledger: what its device's numbers say, its site's zone, where it
//! came from if it was admitted; and apart from that the device's backlog, which rests on a report.

use jiff::tz::TimeZone;
use punchtrail_protocol::{DeviceId, DisputeId, EmployeeId, Time, vocabulary::QuarantineCode};
use uuid::Uuid;

use super::{DoubtedAfter, OnCard, Place};
use crate::{
    Event, Recorded,
    aggregate::Undecodable,
    device::{Cut, DeviceEvent, Gap},
    dispute::DisputeEvent,
    log::recorded::Actor,
    quarantine::QuarantineEvent,
    site::SiteRules,
};

/// What surrounds a punch: facts from the ledger about its device and site, and the device's last
/// report.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// What the site set, and from when: its zone tells times; without it, the punch's own offset
    /// does.
    pub rules: SiteRules,
    /// Missing numbers of the device next to the punch's, open or filled since.
    pub gaps: Vec<MissingNumbers>,
    /// What the device's events say of the punch's own number: forks and broken links.
    pub marks: Vec<ChainMark>,
    /// Where an admitted punch came from.
    pub quarantined: Option<Quarantined>,
    /// What happened to disputes about the punch.
    pub disputes: Vec<DisputeMark>,
    /// What the worker's card says of it, if it has no partner there.
    pub on_card: Option<OnCard>,
    /// The worker's next punch, if that is doubted for standing so near.
    pub doubted_after: Option<DoubtedAfter>,
    /// The device's last report.
    pub report: Option<Backlog>,
}

impl Context {
    /// Takes in what an event of the punch's device, of its site, of the item that it was admitted
    /// from or of a dispute about it says. To be given the events of each in their order.
    ///
    /// # Errors
    /// When the event can't be read by this program.
    pub fn take(&mut self, recorded: &Recorded) -> Result<(), Undecodable> {
        let place = Place::of(recorded);
        match recorded.event()? {
            Event::Device(_, event) => self.note(event, place),
            Event::Site(_, event) => self.rules.evolve(&event),
            Event::Quarantine(_, event) => {
                self.quarantined = self.quarantined.or_else(|| Quarantined::of(&event, place));
            }
            Event::Dispute(dispute, event) => {
                let actor = recorded.actor();
                self.disputes.push(DisputeMark { place, actor, dispute, event });
            }
            Event::Punch(..) | Event::Employee(..) | Event::Epoch(..) => {}
        }
        Ok(())
    }

    /// The site's zone then.
    pub fn zone(&self, at: Time) -> Option<TimeZone> {
        TimeZone::get(self.rules.zone_at(at)?).ok()
    }

    /// The operators, keys and users, that had a part in the disputes.
    pub fn keys(&self) -> Vec<Uuid> {
        let key = |mark: &DisputeMark| match mark.actor {
            Some(Actor::Key(id) | Actor::User(id)) => Some(id),
            _ => None,
        };
        self.disputes.iter().filter_map(key).collect()
    }

    /// The people whose disputes these are.
    pub fn disputers(&self) -> Vec<EmployeeId> {
        let who = |mark: &DisputeMark| match mark.event {
            DisputeEvent::Opened { subject, .. } => Some(subject.employee),
            _ => None,
        };
        self.disputes.iter().filter_map(who).collect()
    }

    fn note(&mut self, event: DeviceEvent, place: Place) {
        match event {
            DeviceEvent::SequenceGapOpened { gap } => {
                self.gaps.push(MissingNumbers { gap, noticed: place, came: None });
            }
            DeviceEvent::SequenceGapClosed { gap } => {
                let missing = std::mem::take(&mut self.gaps).into_iter();
                self.gaps = missing.flat_map(|missing| missing.after(gap, place)).collect();
            }
            DeviceEvent::LinkBroken { .. } | DeviceEvent::ForkDetected { .. } => {
                self.marks.push(ChainMark { place, event });
            }
            _ => {}
        }
    }
}

/// Numbers of a device that were missing when a later one came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingNumbers {
    pub gap: Gap,
    /// Where the ledger notes that they are missing.
    pub noticed: Place,
    /// Where it notes that they came after all.
    pub came: Option<Place>,
}

impl MissingNumbers {
    /// The same once `came` have come, as the event at that place says: cut into runs with one fate
    /// each.
    fn after(self, came: Gap, place: Place) -> impl Iterator<Item = Self> {
        let parts = match self.came {
            Some(_) => [(Some(self.gap), self.came), (None, None), (None, None)],
            None => {
                let Cut { before, within, after } = self.gap.cut(came);
                [(before, None), (within, Some(place)), (after, None)]
            }
        };
        parts.into_iter().filter_map(move |(gap, came)| Some(Self { gap: gap?, came, ..self }))
    }
}

/// An event of a device about one of its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainMark {
    pub place: Place,
    pub event: DeviceEvent,
}

/// An event of a dispute about the punch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisputeMark {
    pub place: Place,
    /// Who caused it.
    pub actor: Option<Actor>,
    pub dispute: DisputeId,
    pub event: DisputeEvent,
}

impl DisputeMark {
    /// The device that caused it, if one did.
    pub fn device(&self) -> Option<DeviceId> {
        match self.actor {
            Some(Actor::Device(device)) => Some(device),
            _ => None,
        }
    }
}

/// The quarantined item that a punch was admitted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantined {
    pub place: Place,
    /// Why it could not be taken as it came.
    pub code: QuarantineCode,
    /// When it was received, by the server's clock.
    pub received_at: Time,
}

impl Quarantined {
    /// What the item's event at that place says; none unless it is the first.
    pub fn of(event: &QuarantineEvent, place: Place) -> Option<Self> {
        match event {
            QuarantineEvent::Quarantined { code, received_at, .. } => {
                Some(Self { place, code: *code, received_at: *received_at })
            }
            _ => None,
        }
    }
}

/// How many punches a device last said it holds, and how far its numbers have come since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// When, by the server's clock.
    pub reported_at: Time,
    /// How many punches waited on it.
    pub waiting: u64,
    /// The time of the oldest of them, by the device's clock.
    pub oldest: Option<Time>,
    /// The last number it had made.
    pub made_through: u64,
    /// Up to which number the ledger holds every one now.
    pub held_through: u64,
}

impl Backlog {
    /// Whether everything that waited then has come since.
    pub const fn has_come_since(&self) -> bool {
        self.held_through >= self.made_through
    }

    /// How many of its punches the ledger may still be waiting for.
    pub const fn still_waiting(&self) -> u64 {
        if self.has_come_since() { 0 } else { self.waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchtrail_protocol::Position;

    fn at(position: u64) -> Place {
        Place { position: Position(position), recorded_at: Time::from_millis(0) }
    }

    #[test]
    fn missing_numbers_are_cut_where_some_came() {
        let mut context = Context::default();
        let gap = |from, to| Gap { from, to };
        context.note(DeviceEvent::SequenceGapOpened { gap: gap(3, 9) }, at(1));
        context.note(DeviceEvent::SequenceGapClosed { gap: gap(5, 6) }, at(2));
        context.note(DeviceEvent::SequenceGapClosed { gap: gap(3, 4) }, at(3));
        let runs: Vec<_> = context
            .gaps
            .iter()
            .map(|run| (run.gap.from, run.gap.to, run.came.map(|place| place.position.0)))
            .collect();
        assert_eq!(runs, [(3, 4, Some(3)), (5, 6, Some(2)), (7, 9, None)]);
    }
}
