//! Situations and what is said of them, word for word.

mod absence;
mod known;
mod properties;
mod situations;

use jiff::tz::TimeZone;
use punchtrail_protocol::{Digest, EmployeeId, signing::Signature};
use punchtrail_testkit::EXAMPLE;

use super::*;
use crate::{
    StoredEvent,
    aggregate::AggregateType,
    device::Gap,
    log::recorded::Actor,
    punch::{Anomaly, Basis, Clock, PunchEvent},
    site::SiteEvent,
};

pub(super) const PUNCH: &str = "0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e";
pub(super) const OTHER: &str = "0190b5a2-1111-7c1a-9d2e-3f4a5b6c7d8e";
const SITE: &str = "5f0c7a52-0000-4000-8000-000000000002";
const OTHER_SITE: &str = "5f0c7a52-0000-4000-8000-00000000000a";
const DEVICE: &str = "5f0c7a52-0000-4000-8000-000000000003";
const EMPLOYEE: &str = "5f0c7a52-0000-4000-8000-000000000004";
const BEN: &str = "5f0c7a52-0000-4000-8000-000000000014";
const KEY: &str = "5f0c7a52-0000-4000-8000-00000000000b";

pub(super) fn time(text: &str) -> Time {
    text.parse().unwrap()
}

/// That time of 21 November 2026 in UTC; an hour later on the wall in Berlin.
pub(super) fn at(clock: &str) -> Time {
    time(&format!("2026-11-21T{clock}Z"))
}

pub(super) fn place(position: u64, clock: &str) -> Place {
    Place { position: Position(position), recorded_at: at(clock) }
}

pub(super) fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

pub(super) fn key() -> Actor {
    Actor::Key(KEY.parse().unwrap())
}

pub(super) fn device() -> DeviceId {
    DEVICE.parse().unwrap()
}

pub(super) fn employee() -> EmployeeId {
    EMPLOYEE.parse().unwrap()
}

pub(super) fn ben() -> EmployeeId {
    BEN.parse().unwrap()
}

pub(super) fn site() -> SiteId {
    SITE.parse().unwrap()
}

pub(super) fn other_punch() -> PunchId {
    OTHER.parse().unwrap()
}

pub(super) fn names() -> Names {
    Names {
        erased: BTreeMap::new(),
        employees: [(employee(), "Maria Ortiz".to_owned()), (ben(), "Ben Okafor".to_owned())]
            .into(),
        devices: [(device(), "Front door".to_owned())].into(),
        sites: [
            (site(), "Harbour Café".to_owned()),
            (OTHER_SITE.parse().unwrap(), "Hill Bakery".to_owned()),
        ]
        .into(),
        keys: [(KEY.parse().unwrap(), "Front office".to_owned())].into(),
        notes: BTreeMap::new(),
    }
}

pub(super) fn context() -> Context {
    let mut context = Context::default();
    context.rules.evolve(&SiteEvent::Registered { tz: "Europe/Berlin".to_owned() });
    context
}

/// A punch's stream, written event by event from position 100.
#[derive(Clone, Default)]
pub(super) struct Stream(pub Vec<Recorded>);

impl Stream {
    pub fn then(mut self, clock: &str, actor: Actor, event: PunchEvent) -> Self {
        let sequence = self.0.len() as u64 + 1;
        self.0.push(Recorded {
            position: Position(99 + sequence),
            recorded_at: at(clock).timestamp(),
            aggregate_type: AggregateType::Punch,
            aggregate_id: PUNCH.to_owned(),
            sequence,
            event_type: event.name().to_owned(),
            event_version: event.version().to_owned(),
            payload: serde_json::to_string(&event).unwrap(),
            metadata: serde_json::json!({"actor": actor.to_string()}).to_string(),
        });
        self
    }

    /// Captured at 09:59:03 in Berlin, with `from` in the capture replaced by `to`, and received
    /// then.
    pub fn synced(clock: &str, known: Clock, replaced: &[(&str, &str)]) -> Self {
        let capture = replaced.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        let device = Actor::Device(device());
        let captured =
            PunchEvent::Captured { capture: capture.into(), signature: Signature([0; 64]) };
        let synced =
            PunchEvent::Synced { device: self::device(), received_at: at(clock), clock: known };
        Self::default().then(clock, device.clone(), captured).then(clock, device, synced)
    }

    /// Captured offline, received eleven minutes later from a device with a right clock.
    pub fn offline() -> Self {
        Self::synced("09:10:05.000", Clock::Known { offset_ms: 12 }, &[])
    }

    pub fn accepted(self) -> Self {
        let accepted = PunchEvent::Accepted { basis: Basis::Policy, note: None, reason: None };
        self.then("09:10:07.000", Actor::Policy, accepted)
    }

    pub fn referred(self, clock: &str, anomalies: impl IntoIterator<Item = Anomaly>) -> Self {
        let mut reasons = Vec::new();
        let flagged = anomalies.into_iter().fold(self, |stream, anomaly| {
            reasons.push(anomaly.reason());
            stream.then(clock, Actor::Policy, PunchEvent::AnomalyFlagged { anomaly })
        });
        flagged.then(clock, Actor::Policy, PunchEvent::ReferredForReview { reasons })
    }

    pub fn explained(&self, context: &Context) -> Explanation {
        explain(&self.0, context, &names()).unwrap().unwrap()
    }

    pub fn told(&self, context: &Context) -> String {
        self.explained(context).sentences.join("\n")
    }
}

pub(super) fn note() -> Option<Digest> {
    Some(Digest::of(b"a note"))
}

/// One of each doubt; a new one doesn't compile without being added here.
pub(super) fn every_anomaly() -> Vec<Anomaly> {
    let all = vec![
        Anomaly::NearDuplicate { of: other_punch(), apart_ms: 12_000 },
        Anomaly::ClockSuspect { offset_ms: 10_800_000 },
        Anomaly::InFuture { ahead_ms: 7_260_000 },
        Anomaly::Fork { seq: 1, other: Some(other_punch()) },
        Anomaly::UnknownBadge,
        Anomaly::UnknownEmployee,
        Anomaly::DepartedWorker { departed_at: time("2026-11-03T16:00:00.000Z") },
        Anomaly::RevokedDevice,
        Anomaly::BeyondLookback { age_ms: 31 * 86_400_000 },
        Anomaly::TwoSites {
            other: other_punch(),
            site: OTHER_SITE.parse().unwrap(),
            apart_ms: 300_000,
        },
        Anomaly::OtherHolder { holder: None },
        Anomaly::Visitor,
        Anomaly::OppositeKind { of: other_punch(), apart_ms: 4_000 },
    ];
    for anomaly in &all {
        match anomaly {
            Anomaly::NearDuplicate { .. }
            | Anomaly::ClockSuspect { .. }
            | Anomaly::InFuture { .. }
            | Anomaly::Fork { .. }
            | Anomaly::UnknownBadge
            | Anomaly::UnknownEmployee
            | Anomaly::DepartedWorker { .. }
            | Anomaly::RevokedDevice
            | Anomaly::BeyondLookback { .. }
            | Anomaly::TwoSites { .. }
            | Anomaly::OtherHolder { .. }
            | Anomaly::Visitor
            | Anomaly::OppositeKind { .. } => {}
        }
    }
    all
}
