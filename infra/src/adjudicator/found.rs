//! What the adjudicator found, and what to append of it.

use std::collections::{BTreeMap, HashMap};

use cqrs_es::Aggregate;
use punchtrail_domain::{
    device::{Chain, Device, DeviceCommand, DeviceEvent},
    epoch::Anchor,
    policy::judging::Doubted,
    punch::{Anomaly, Ground, Punch, PunchCommand, PunchEvent},
};
use punchtrail_protocol::{DeviceId, EmployeeId, PunchId, Time};

use crate::{
    ledger::{DeviceMark, JudgedPunch, Judging, ReadError, StreamAppend, load},
    postgres::Pool,
};

/// What was found on the way from one place to another.
#[derive(Default)]
pub(super) struct Walked {
    pub from: Anchor,
    /// Up to where it walked: not to the end when it found too much on the way.
    pub to: Anchor,
    /// What each punch was found doubtful for at once, one time after the other: when it was
    /// recorded (nothing, mostly, and it is accepted), and whenever another one cast doubt on it.
    /// Each is a judgement of its own, as if the walk had ended between them.
    pub doubts: BTreeMap<PunchId, (Vec<Found>, Fresh)>,
    pub observed: BTreeMap<DeviceId, Vec<DeviceEvent>>,
    pub punches: Vec<JudgedPunch>,
    /// Whether punches are out of the count by now.
    pub out: BTreeMap<PunchId, bool>,
    /// Whose punches are by now.
    pub people: BTreeMap<PunchId, EmployeeId>,
    pub doubted: BTreeMap<PunchId, Doubted>,
    pub chains: HashMap<DeviceId, Chain>,
    /// What must be looked at again before the walk goes on.
    pub again: Vec<PunchId>,
    /// What was looked at again.
    pub looked: Vec<PunchId>,
}

/// What was found of a punch at once.
#[derive(Debug, Clone)]
pub(super) enum Found {
    /// What the site's policy says of it, and who made it where its badge tells.
    Judged { who: Option<(EmployeeId, Ground)>, anomalies: Vec<Anomaly>, verify_by: Option<Time> },
    /// A check of its picture came to something.
    Checked,
    /// What the policy says of it now.
    Revised {
        who: Option<(EmployeeId, Ground)>,
        person: Vec<Anomaly>,
        beside: Vec<Anomaly>,
        verify_by: Option<Time>,
    },
}

/// Whether a punch was recorded in this stretch, so that capture and receipt are probably all it
/// has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    Yes,
    No,
}

impl Walked {
    /// Nothing yet, from there.
    pub(super) fn from(place: Anchor) -> Self {
        Self { from: place, to: place, ..Self::default() }
    }

    /// Adds what was found of a punch that isn't fresh.
    pub(super) fn found(&mut self, punch: PunchId, found: Found) {
        let doubts = self.doubts.entry(punch).or_insert((Vec::new(), Fresh::No));
        doubts.0.push(found);
    }

    /// What to append if nothing but capture and receipt happened to the punches of this stretch;
    /// none when it is known already that other streams must be loaded.
    pub(super) fn judging_of_fresh(&self) -> Option<Judging> {
        let fresh =
            self.observed.is_empty() && self.doubts.values().all(|(_, fresh)| *fresh == Fresh::Yes);
        if !fresh {
            return None;
        }
        let streams = self
            .doubts
            .iter()
            .map(|(punch, (doubts, _))| {
                let events: Vec<_> = doubts.iter().flat_map(Found::of_fresh).collect();
                StreamAppend::of(punch, 2, &events)
            })
            .collect();
        Some(self.judging(streams, &BTreeMap::new()))
    }

    /// What to append given what the streams hold by now.
    pub(super) async fn judging_of_loaded(&self, pool: &Pool) -> Result<Judging, ReadError> {
        let mut streams = Vec::with_capacity(self.doubts.len());
        let mut doubted = BTreeMap::new();
        for (id, punch) in load::<Punch>(pool, &texts(self.doubts.keys())).await? {
            let Ok(punch_id) = id.parse::<PunchId>() else { continue };
            let Some((doubts, _)) = self.doubts.get(&punch_id) else { continue };
            let (events, judged) = judged(punch.aggregate, doubts);
            if doubts.iter().any(|found| matches!(found, Found::Revised { .. })) {
                doubted.insert(punch_id, Doubted::of(judged.anomalies()));
            }
            if !events.is_empty() {
                streams.push(StreamAppend::of(id, punch.sequence, &events));
            }
        }
        for (id, device) in load::<Device>(pool, &texts(self.observed.keys())).await? {
            let observed = id.parse().ok().and_then(|id: DeviceId| self.observed.get(&id));
            let Some(events) = observed.cloned() else { continue };
            let command = DeviceCommand::Observe { events };
            let events = device.aggregate.decide(command).unwrap_or_default();
            if !events.is_empty() {
                streams.push(StreamAppend::of(id, device.sequence, &events));
            }
        }
        Ok(self.judging(streams, &doubted))
    }

    fn judging(&self, streams: Vec<StreamAppend>, revised: &BTreeMap<PunchId, Doubted>) -> Judging {
        let devices = self
            .chains
            .iter()
            .map(|(device, chain)| DeviceMark { device: *device, chain: chain.clone() })
            .collect();
        let doubted = self.doubted.iter().chain(revised);
        Judging {
            from: self.from,
            to: self.to,
            streams,
            punches: self.punches.clone(),
            out: self.out.iter().map(|(punch, out)| (*punch, *out)).collect(),
            people: self.people.iter().map(|(punch, who)| (*punch, *who)).collect(),
            doubted: doubted.map(|(punch, doubted)| (*punch, *doubted)).collect(),
            devices,
            again: self.again.clone(),
            looked: self.looked.clone(),
        }
    }
}

impl Found {
    fn commands(&self) -> Vec<PunchCommand> {
        let (who, then) = match self.clone() {
            Self::Judged { who, anomalies, verify_by } => {
                (who, PunchCommand::Judge { anomalies, verify_by })
            }
            Self::Checked => (None, PunchCommand::Settle {}),
            Self::Revised { who, person, beside, verify_by } => {
                (who, PunchCommand::Revise { person, beside, verify_by })
            }
        };
        let identify = |(employee, ground)| PunchCommand::Identify { employee, ground };
        who.map(identify).into_iter().chain([then]).collect()
    }

    /// Its events for a punch to which nothing else happened yet.
    fn of_fresh(&self) -> Vec<PunchEvent> {
        let Self::Judged { who, anomalies, verify_by } = self.clone() else { return Vec::new() };
        let identified = |(employee, ground)| {
            let note = None;
            PunchEvent::Identified { employee, ground, note }
        };
        let judged = Punch::first_judgement(anomalies, verify_by);
        who.map(identified).into_iter().chain(judged).collect()
    }
}

/// The events of one judgement after the other, and what they make of the punch.
fn judged(mut punch: Punch, doubts: &[Found]) -> (Vec<PunchEvent>, Punch) {
    let mut events = Vec::new();
    for command in doubts.iter().flat_map(Found::commands) {
        // Refused only for a punch that doesn't exist, and this one was just loaded.
        let found = punch.decide(command).unwrap_or_default();
        found.iter().cloned().for_each(|event| punch.apply(event));
        events.extend(found);
    }
    (events, punch)
}

fn texts(ids: impl Iterator<Item: ToString>) -> Vec<String> {
    ids.map(|id| id.to_string()).collect()
}
