//! One walk: a stretch of the ledger, judged event by event in its order.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use cqrs_es::Aggregate;
use punchtrail_domain::{
    Event,
    aggregate::Undecodable,
    device::{Chain, Device, DeviceCommand, DeviceEvent, Seen},
    epoch::Anchor,
    policy::judging::{Doubted, Facts, NEIGHBOURS_MAX, Neighbour, Person, judge},
    punch::{Anomaly, Clock, Punch, PunchCommand, PunchEvent},
    quarantine::QuarantineEvent,
    site::SiteEvent,
};
use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, Position, PunchId, SiteId, Time,
    capture::{Capture, PunchKind},
    vocabulary::QuarantineCode,
};

use super::{
    AdjudicatorError, Entries,
    register::{self, Captured, Held, Register},
};
use crate::{
    ledger::{DeviceMark, Entry, JudgedPunch, Judging, ReadError, StreamAppend, give_way, load},
    postgres::Pool,
};

/// A walk ends before an event that can't be read: what stands before it is judged all the same.
///
/// # Errors
/// When it is the next one.
pub(super) async fn keep_what_can_be_read(
    entries: &mut Vec<Arc<Entry>>,
) -> Result<(), Undecodable> {
    for index in 0..entries.len() {
        give_way(index).await;
        match entries[index].event() {
            Ok(_) => {}
            Err(error) if index == 0 => return Err(error),
            Err(_) => {
                entries.truncate(index);
                break;
            }
        }
    }
    Ok(())
}

/// A walk ends before what changes the rules, and is about nothing else after it: a policy says how
/// far neighbours matter, and a voided punch is none. What a walk has looked up would be out of
/// date.
pub(super) fn cut_at_changed_rules(entries: &mut Vec<Arc<Entry>>) {
    let changes = |entry: &Arc<Entry>| {
        matches!(
            entry.event(),
            Ok(Event::Punch(_, PunchEvent::Voided { .. } | PunchEvent::Reinstated {})
                | Event::Site(_, SiteEvent::PolicyChanged { .. }))
        )
    };
    let Some(first) = entries.first().map(changes) else { return };
    let cut = entries.iter().position(|entry| changes(entry) != first);
    entries.truncate(cut.unwrap_or(entries.len()));
}

/// A walk must not end between a capture and its receipt, which always stand side by side: a
/// receipt alone judges nothing. The capture that was left for the next walk, if there was one.
pub(super) fn keep_receipts_with_captures(entries: &mut Vec<Arc<Entry>>) -> Option<Arc<Entry>> {
    entries.pop_if(|entry| entry.recorded.event_type == "Captured")
}

/// What a walk found.
pub(super) struct Walked {
    pub from: Anchor,
    /// Up to where it walked: not to the end when it found too much on the way.
    pub to: Anchor,
    /// What each punch was found doubtful for at once, one time after the other: when it was
    /// recorded (nothing, mostly, and it is accepted), and whenever another one cast doubt on it.
    /// Each is a judgement of its own, as if the walk had ended between them.
    doubts: BTreeMap<PunchId, (Vec<Found>, Fresh)>,
    observed: BTreeMap<DeviceId, Vec<DeviceEvent>>,
    punches: Vec<JudgedPunch>,
    voided: BTreeMap<PunchId, bool>,
    doubted: Vec<(PunchId, Doubted)>,
    chains: HashMap<DeviceId, Chain>,
}

/// What was found of a punch at once.
#[derive(Debug, Clone)]
enum Found {
    /// What the site's policy says of it.
    Judged { anomalies: Vec<Anomaly>, verify_by: Option<Time> },
    /// A check of its picture came to something.
    Checked,
}

/// Whether a punch was recorded in this stretch, so that capture and receipt are probably all it
/// has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    Yes,
    No,
}

struct Walk<'a> {
    pool: &'a Pool,
    register: &'a mut Register,
    neighbours: HashMap<EmployeeId, Captured>,
    /// Where each punch walked now stands among those found.
    walked: HashMap<PunchId, usize>,
    doubted: BTreeMap<PunchId, Doubted>,
    /// How many events what was found will make, at most.
    events: usize,
    found: Walked,
}

/// Walks the entries that follow `from`, until it has found more than `events_max` events make.
pub(super) async fn walk(
    pool: &Pool,
    register: &mut Register,
    entries: &Entries,
    from: Anchor,
    events_max: usize,
) -> Result<Walked, AdjudicatorError> {
    let (devices, people) = concerned(entries).await?;
    let neighbours = register::neighbours(pool, &people, register.neighbourhood_ms()).await?;
    let found = Walked {
        from,
        to: from,
        doubts: BTreeMap::new(),
        observed: BTreeMap::new(),
        punches: Vec::with_capacity(people.len()),
        voided: BTreeMap::new(),
        doubted: Vec::new(),
        chains: register::chains(pool, &devices).await?,
    };
    let (walked, doubted) = (HashMap::new(), BTreeMap::new());
    let mut walk = Walk { pool, register, neighbours, walked, doubted, events: 0, found };
    let mut captured: Option<&Entry> = None;
    for (index, entry) in entries.iter().enumerate() {
        give_way(index).await;
        match entry.event()? {
            Event::Punch(_, PunchEvent::Captured { .. }) => captured = Some(entry),
            event => {
                walk.take(entry, event, captured.take()).await?;
                walk.found.to = entry.anchor();
            }
        }
        if walk.events > events_max {
            break;
        }
    }
    walk.register.moved_to(walk.found.to);
    Ok(walk.end())
}

/// Devices, and people with the times of their punches.
type Concerned = (Vec<DeviceId>, Vec<(EmployeeId, Time, PunchId)>);

/// The devices whose chains, and the people whose neighbouring punches, a stretch is about.
async fn concerned(entries: &Entries) -> Result<Concerned, AdjudicatorError> {
    let (mut devices, mut people) = (HashSet::new(), Vec::new());
    for (index, entry) in entries.iter().enumerate() {
        give_way(index).await;
        match entry.event()? {
            Event::Punch(punch, PunchEvent::Captured { .. }) => {
                let Some(capture) = entry.capture() else { continue };
                devices.insert(capture.device);
                people.extend(capture.employee.map(|who| (who, capture.captured_at, *punch)));
            }
            Event::Punch(punch, PunchEvent::Admitted { employee, captured_at, .. }) => {
                people.push((*employee, *captured_at, *punch));
            }
            Event::Punch(_, PunchEvent::ConflictingCaptureReceived { device, .. })
            | Event::Quarantine(_, QuarantineEvent::Quarantined { device, .. }) => {
                devices.insert(*device);
            }
            _ => {}
        }
    }
    Ok((devices.into_iter().collect(), people))
}

impl Walk<'_> {
    /// What it found, and what the punches are doubted for in the end.
    fn end(mut self) -> Walked {
        for (punch, doubted) in self.doubted {
            match self.walked.get(&punch) {
                Some(index) => self.found.punches[*index].doubted = doubted,
                None => self.found.doubted.push((punch, doubted)),
            }
        }
        self.found
    }

    async fn take(
        &mut self,
        entry: &Entry,
        event: &Event,
        captured: Option<&Entry>,
    ) -> Result<(), AdjudicatorError> {
        match event {
            Event::Punch(punch, PunchEvent::Synced { received_at, clock, .. }) => {
                if let Some((digest, capture)) = captured.and_then(digest_and_capture) {
                    self.recorded(*punch, digest, capture, (*received_at, *clock), entry).await?;
                }
            }
            Event::Punch(punch, PunchEvent::Admitted { employee, site, kind, captured_at, .. }) => {
                self.admitted(*punch, *employee, (*site, *kind, *captured_at), entry);
            }
            Event::Punch(punch, PunchEvent::Voided { .. }) => {
                self.found.voided.insert(*punch, true);
            }
            Event::Punch(punch, PunchEvent::Reinstated {}) => {
                self.found.voided.insert(*punch, false);
            }
            Event::Punch(
                punch,
                PunchEvent::VerificationSucceeded { .. }
                | PunchEvent::VerificationFailed { .. }
                | PunchEvent::VerificationUnavailable { .. },
            ) => {
                self.events += 1;
                let found = self.found.doubts.entry(*punch).or_insert((Vec::new(), Fresh::No));
                found.0.push(Found::Checked);
                found.1 = Fresh::No;
            }
            Event::Punch(punch, PunchEvent::ConflictingCaptureReceived { device, .. }) => {
                self.held_otherwise(*device, entry.position(), true).await?;
                let detected = DeviceEvent::ConflictDetected { punch: *punch };
                self.events += 1;
                self.found.observed.entry(*device).or_default().push(detected);
            }
            Event::Quarantine(
                _,
                QuarantineEvent::Quarantined { device, seq: Some(_), code, .. },
            ) => {
                let conflicts = *code == QuarantineCode::Conflict;
                self.held_otherwise(*device, entry.position(), conflicts).await?;
            }
            // What is disputed stands as it stood until a person rules.
            Event::Punch(..) | Event::Quarantine(..) | Event::Epoch(..) | Event::Dispute(..) => {}
            Event::Device(..) | Event::Site(..) | Event::Employee(..) => self.register.take(event),
        }
        Ok(())
    }

    async fn recorded(
        &mut self,
        punch: PunchId,
        digest: Digest,
        capture: &Capture,
        (received_at, clock): (Time, Clock),
        entry: &Entry,
    ) -> Result<(), AdjudicatorError> {
        let held = Held { seq: capture.seq, digest, prev: capture.prev, punch: Some(punch) };
        let before = Position(entry.position().0.saturating_sub(1));
        let fork = self.chain(capture.device, held, before).await?;
        let facts = Facts {
            punch,
            site: capture.site,
            kind: capture.kind,
            captured_at: capture.captured_at,
            true_at: clock.true_time(capture.captured_at),
            received_at,
            clock_offset_ms: clock.offset_ms(),
            person: self.register.person(
                capture.employee,
                capture.site,
                clock.true_time(capture.captured_at),
            ),
            compares: self.register.compares(capture.employee, capture.captured_at),
            device_revoked: self.register.is_revoked(capture.device),
            fork: fork.map(|first| (capture.seq, first)),
        };
        let (anomalies, verify_by) = self.judge(&facts, capture.employee);
        self.events += anomalies.len() + 2;
        let judged = Found::Judged { anomalies, verify_by };
        self.found.doubts.insert(punch, (vec![judged], Fresh::Yes));
        Ok(())
    }

    /// A person has ruled on it by admitting it; it may still cast doubt on what was captured
    /// after.
    fn admitted(
        &mut self,
        punch: PunchId,
        employee: EmployeeId,
        (site, kind, captured_at): (SiteId, PunchKind, Time),
        entry: &Entry,
    ) {
        let facts = Facts {
            punch,
            site,
            kind,
            captured_at,
            true_at: captured_at,
            received_at: Time::from(entry.recorded.recorded_at),
            clock_offset_ms: None,
            person: Person::KNOWN,
            compares: false,
            device_revoked: false,
            fork: None,
        };
        self.judge(&facts, Some(employee));
    }

    fn judge(
        &mut self,
        facts: &Facts,
        employee: Option<EmployeeId>,
    ) -> (Vec<Anomaly>, Option<Time>) {
        let Some(employee) = employee else {
            return (judge(|site, at| self.register.policy(site, at), facts, &[]).own, None);
        };
        let (punch, site, kind, true_at) = (facts.punch, facts.site, facts.kind, facts.true_at);
        let (known, key) = (self.neighbours.entry(employee).or_default(), (true_at, punch));
        let nearest: Vec<Neighbour> = known
            .range(..key)
            .rev()
            .take(NEIGHBOURS_MAX)
            .chain(known.range(key..).take(NEIGHBOURS_MAX))
            .map(|(_, neighbour)| *neighbour)
            .collect();
        let judgement = judge(|site, at| self.register.policy(site, at), facts, &nearest);
        let mut doubted = Doubted::default();
        for anomaly in &judgement.own {
            doubted.takes(anomaly);
        }
        let this = Neighbour { punch, site, kind, true_at, out: false, doubted };
        known.insert(key, this);
        self.walked.insert(punch, self.found.punches.len());
        let captured_at = true_at;
        self.found.punches.push(JudgedPunch { punch, employee, captured_at, site, kind, doubted });
        let mut others = BTreeMap::<PunchId, Vec<Anomaly>>::new();
        for (other, anomaly) in judgement.others {
            let beside = nearest.iter().find(|neighbour| neighbour.punch == other);
            let beside = beside.and_then(|other| known.get_mut(&(other.true_at, other.punch)));
            if let Some(neighbour) = beside {
                neighbour.doubted.takes(&anomaly);
                self.doubted.insert(other, neighbour.doubted);
            }
            others.entry(other).or_default().push(anomaly);
        }
        for (other, anomalies) in others {
            self.events += anomalies.len() + 1;
            let doubts = self.found.doubts.entry(other).or_insert((Vec::new(), Fresh::No));
            doubts.0.push(Found::Judged { anomalies, verify_by: None });
        }
        (judgement.own, judgement.verify_by)
    }

    /// Conflicting bytes and quarantined items that a device signed hold their numbers, too. Those
    /// that are in conflict are passed over under a number that it came by before.
    async fn held_otherwise(
        &mut self,
        device: DeviceId,
        position: Position,
        conflicts: bool,
    ) -> Result<(), AdjudicatorError> {
        if let Some(held) = register::held_at(self.pool, device, position).await? {
            let chain = self.found.chains.entry(device).or_default();
            if !(conflicts && held.seq <= chain.highest) {
                self.chain(device, held, position).await?;
            }
        }
        Ok(())
    }

    /// Walks the device's chain over one more capture; the punch that had its number, if one had.
    async fn chain(
        &mut self,
        device: DeviceId,
        held: Held,
        before: Position,
    ) -> Result<Option<Option<PunchId>>, AdjudicatorError> {
        let chain = self.found.chains.entry(device).or_default();
        let seen = chain.walk(held.seq, held.digest, held.prev);
        let (noted, fork) = match seen {
            Seen::Ahead(noted) => (noted, None),
            Seen::Filled(closed) => {
                let around = (held.seq.saturating_sub(1), held.seq + 1);
                let beside = register::held(self.pool, device, around, before).await?;
                match beside.iter().find(|holder| holder.seq == held.seq) {
                    Some(first) => forked(held, first.punch),
                    None => {
                        let mut noted = vec![closed];
                        noted.extend(broken_links(held, &beside));
                        (noted, None)
                    }
                }
            }
            Seen::Fork => {
                let holders =
                    register::held(self.pool, device, (held.seq, held.seq), before).await?;
                forked(held, holders.first().and_then(|holder| holder.punch))
            }
        };
        if !noted.is_empty() {
            self.events += noted.len();
            self.found.observed.entry(device).or_default().extend(noted);
        }
        Ok(fork)
    }
}

/// What is noted of a number that was used again, and who had it first.
fn forked(again: Held, first: Option<PunchId>) -> (Vec<DeviceEvent>, Option<Option<PunchId>>) {
    let fork = DeviceEvent::ForkDetected { seq: again.seq, first, second: again.punch };
    (vec![fork], Some(first))
}

fn digest_and_capture(entry: &Entry) -> Option<(Digest, &Capture)> {
    match entry.event() {
        Ok(Event::Punch(_, PunchEvent::Captured { capture, .. })) => {
            Some((capture.digest(), capture.capture().ok()?))
        }
        _ => None,
    }
}

/// The links that a late capture doesn't fit, to the one before it and the one after.
fn broken_links(late: Held, beside: &[Held]) -> Vec<DeviceEvent> {
    let before = beside.iter().find(|held| held.seq + 1 == late.seq);
    let after = beside.iter().find(|held| held.seq == late.seq + 1);
    let mut broken = Vec::new();
    if let Some(before) = before.filter(|before| before.digest != late.prev) {
        broken.push(DeviceEvent::LinkBroken {
            seq: late.seq,
            named: late.prev,
            held: before.digest,
        });
    }
    if let Some(after) = after.filter(|after| after.prev != late.digest) {
        broken.push(DeviceEvent::LinkBroken {
            seq: after.seq,
            named: after.prev,
            held: late.digest,
        });
    }
    broken
}

impl Walked {
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
        Some(self.judging(streams))
    }

    /// What to append given what the streams hold by now.
    pub(super) async fn judging_of_loaded(&self, pool: &Pool) -> Result<Judging, ReadError> {
        let mut streams = Vec::with_capacity(self.doubts.len());
        for (id, punch) in load::<Punch>(pool, &texts(self.doubts.keys())).await? {
            let doubts = id.parse().ok().and_then(|id: PunchId| self.doubts.get(&id));
            let Some((doubts, _)) = doubts else { continue };
            let events = judged(punch.aggregate, doubts);
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
        Ok(self.judging(streams))
    }

    fn judging(&self, streams: Vec<StreamAppend>) -> Judging {
        let devices = self
            .chains
            .iter()
            .map(|(device, chain)| DeviceMark { device: *device, chain: chain.clone() })
            .collect();
        Judging {
            from: self.from,
            to: self.to,
            streams,
            punches: self.punches.clone(),
            voided: self.voided.iter().map(|(punch, voided)| (*punch, *voided)).collect(),
            doubted: self.doubted.clone(),
            devices,
        }
    }
}

impl Found {
    fn command(&self) -> PunchCommand {
        match self.clone() {
            Self::Judged { anomalies, verify_by } => PunchCommand::Judge { anomalies, verify_by },
            Self::Checked => PunchCommand::Settle {},
        }
    }

    /// Its events for a punch to which nothing else happened yet.
    fn of_fresh(&self) -> Vec<PunchEvent> {
        match self.clone() {
            Self::Judged { anomalies, verify_by } => Punch::first_judgement(anomalies, verify_by),
            Self::Checked => Vec::new(),
        }
    }
}

/// The events of one judgement after the other.
fn judged(mut punch: Punch, doubts: &[Found]) -> Vec<PunchEvent> {
    let mut events = Vec::new();
    for found in doubts {
        // Refused only for a punch that doesn't exist, and this one was just loaded.
        let command = found.command();
        let found = punch.decide(command).unwrap_or_default();
        found.iter().cloned().for_each(|event| punch.apply(event));
        events.extend(found);
    }
    events
}

fn texts(ids: impl Iterator<Item: ToString>) -> Vec<String> {
    ids.map(|id| id.to_string()).collect()
}
