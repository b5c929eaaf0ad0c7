//! One walk: a stretch of the ledger, judged event by event in its order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use punchtrail_domain::{
    Event,
    aggregate::Undecodable,
    device::{DeviceEvent, Seen},
    epoch::Anchor,
    policy::judging::{Doubted, Facts, NEIGHBOURS_MAX, Neighbour, Person, judge},
    punch::{Anomaly, Clock, PunchEvent},
    quarantine::QuarantineEvent,
};
use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, Position, PunchId, SiteId, Time,
    capture::{Capture, PunchKind},
    spelling::normal,
    vocabulary::QuarantineCode,
};

use super::{
    AdjudicatorError, Entries,
    badges::Holders,
    found::{Found, Fresh, Walked},
    memory::{self, Captured, Held},
    register::{Maker, Register},
};
use crate::{
    ledger::{Entry, JudgedPunch, give_way},
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

/// A walk must not end between a capture and its receipt, which always stand side by side: a
/// receipt alone judges nothing. The capture that was left for the next walk, if there was one.
pub(super) fn keep_receipts_with_captures(entries: &mut Vec<Arc<Entry>>) -> Option<Arc<Entry>> {
    entries.pop_if(|entry| entry.recorded.event_type == "Captured")
}

struct Walk<'a> {
    pool: &'a Pool,
    register: &'a mut Register,
    holders: Holders,
    neighbours: HashMap<EmployeeId, Captured>,
    /// Where each punch walked now stands among those found.
    walked: HashMap<PunchId, usize>,
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
    let (numbers, holdings) = badges(register, entries).await?;
    let holders = Holders::read(pool, &numbers, &holdings).await?;
    let (devices, people) = concerned(entries, &holders).await?;
    let neighbours = memory::neighbours(pool, &people, register.neighbourhood_ms()).await?;
    let chains = memory::chains(pool, &devices).await?;
    let found = Walked { chains, ..Walked::from(from) };
    let walked = HashMap::new();
    let mut walk = Walk { pool, register, holders, neighbours, walked, events: 0, found };
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

/// The badge that was read, as it is spelled, where only that is known.
pub(super) fn badge_read(capture: &Capture) -> Option<String> {
    capture.badge.as_deref().filter(|_| capture.employee.is_none()).map(normal)
}

/// The badges that a stretch turns on: those that were read, and those that are no longer held.
async fn badges(
    register: &Register,
    entries: &Entries,
) -> Result<(Vec<String>, Vec<Digest>), AdjudicatorError> {
    let (mut numbers, mut holdings) = (BTreeSet::new(), BTreeSet::new());
    for (index, entry) in entries.iter().enumerate() {
        give_way(index).await;
        let Event::Punch(_, PunchEvent::Captured { .. }) = entry.event()? else { continue };
        let Some(capture) = entry.capture() else { continue };
        numbers.extend(badge_read(capture));
        holdings.extend(capture.employee.into_iter().flat_map(|who| register.ended_badges(who)));
    }
    Ok((numbers.into_iter().collect(), holdings.into_iter().collect()))
}

/// Devices, and people with the times of their punches.
type Concerned = (Vec<DeviceId>, Vec<(EmployeeId, Time, PunchId)>);

/// The devices whose chains, and the people whose neighbouring punches, a stretch is about.
async fn concerned(entries: &Entries, holders: &Holders) -> Result<Concerned, AdjudicatorError> {
    let (mut devices, mut people) = (HashSet::new(), Vec::new());
    let mut captured: Option<&Capture> = None;
    for (index, entry) in entries.iter().enumerate() {
        give_way(index).await;
        match entry.event()? {
            Event::Punch(_, PunchEvent::Captured { .. }) => {
                captured = entry.capture();
                devices.extend(captured.map(|capture| capture.device));
            }
            Event::Punch(punch, PunchEvent::Synced { clock, .. }) => {
                let Some(capture) = captured.take() else { continue };
                let at = clock.true_time(capture.captured_at);
                let read = badge_read(capture);
                let held = read.as_deref().map_or(&[][..], |number| holders.of(number));
                let who = held.iter().map(|holder| holder.employee).chain(capture.employee);
                people.extend(who.map(|who| (who, at, *punch)));
            }
            Event::Punch(punch, PunchEvent::Admitted { employee, captured_at: at, .. })
            | Event::Punch(punch, PunchEvent::Entered { employee, at, .. }) => {
                people.push((*employee, *at, *punch));
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
        for (punch, index) in self.walked {
            if let Some(doubted) = self.found.doubted.remove(&punch) {
                self.found.punches[index].doubted = doubted;
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
            Event::Punch(
                punch,
                PunchEvent::Admitted { employee, site, kind, captured_at: at, .. }
                | PunchEvent::Entered { employee, site, kind, at, .. },
            ) => {
                self.entered(*punch, *employee, (*site, *kind, *at), entry);
            }
            Event::Punch(
                punch,
                PunchEvent::VerificationSucceeded { .. }
                | PunchEvent::VerificationFailed { .. }
                | PunchEvent::VerificationUnavailable { .. },
            ) => {
                self.events += 1;
                self.found.found(*punch, Found::Checked);
                if let Some((_, fresh)) = self.found.doubts.get_mut(punch) {
                    *fresh = Fresh::No;
                }
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
            Event::Device(..) | Event::Site(..) | Event::Employee(..) => {
                let recorded_at = entry.recorded.recorded_at.into();
                self.register.take(event, entry.position(), recorded_at);
            }
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
        let true_at = clock.true_time(capture.captured_at);
        let badge = badge_read(capture);
        let who =
            badge.as_deref().and_then(|badge| self.register.holder(badge, true_at, &self.holders));
        let employee = capture.employee.or(who.map(|(employee, _)| employee));
        let maker = employee.map(|employee| Maker::of(capture, employee));
        let facts = Facts {
            punch,
            site: capture.site,
            kind: capture.kind,
            captured_at: capture.captured_at,
            true_at,
            received_at,
            clock_offset_ms: clock.offset_ms(),
            person: self.register.person(maker, capture.site, true_at, &self.holders),
            compares: self.register.compares(employee, capture.captured_at),
            device_revoked: self.register.is_revoked(capture.device),
            fork: fork.map(|first| (capture.seq, first)),
        };
        let (anomalies, verify_by) = self.judge(&facts, employee, badge);
        self.events += anomalies.len() + 3;
        let judged = Found::Judged { who, anomalies, verify_by };
        self.found.doubts.insert(punch, (vec![judged], Fresh::Yes));
        Ok(())
    }

    /// A person has ruled on it by admitting or entering it; it may still cast doubt on what was
    /// made after.
    fn entered(
        &mut self,
        punch: PunchId,
        employee: EmployeeId,
        (site, kind, at): (SiteId, PunchKind, Time),
        entry: &Entry,
    ) {
        let facts = Facts {
            punch,
            site,
            kind,
            captured_at: at,
            true_at: at,
            received_at: Time::from(entry.recorded.recorded_at),
            clock_offset_ms: None,
            person: Person::KNOWN,
            compares: false,
            device_revoked: false,
            fork: None,
        };
        self.judge(&facts, Some(employee), None);
    }

    fn judge(
        &mut self,
        facts: &Facts,
        employee: Option<EmployeeId>,
        badge: Option<String>,
    ) -> (Vec<Anomaly>, Option<Time>) {
        let &Facts { punch, site, kind, true_at, .. } = facts;
        let key = (true_at, punch);
        let nearest: Vec<Neighbour> = match employee.and_then(|who| self.neighbours.get(&who)) {
            None => Vec::new(),
            Some(known) => known
                .range(..key)
                .rev()
                .take(NEIGHBOURS_MAX)
                .chain(known.range(key..).take(NEIGHBOURS_MAX))
                .map(|(_, neighbour)| *neighbour)
                .collect(),
        };
        let judgement = judge(|site, at| self.register.policy(site, at), facts, &nearest);
        let doubted = Doubted::of(&judgement.own);
        self.walked.insert(punch, self.found.punches.len());
        self.found.punches.push(JudgedPunch {
            punch,
            employee,
            badge,
            true_at,
            site,
            kind,
            doubted,
        });
        let Some(employee) = employee else { return (judgement.own, None) };
        let known = self.neighbours.entry(employee).or_default();
        known.insert(key, Neighbour { punch, site, kind, true_at, out: false, doubted });
        let mut others = BTreeMap::<PunchId, Vec<Anomaly>>::new();
        for (other, anomaly) in judgement.others {
            let beside = nearest.iter().find(|neighbour| neighbour.punch == other);
            let beside = beside.and_then(|other| known.get_mut(&(other.true_at, other.punch)));
            if let Some(neighbour) = beside {
                neighbour.doubted.takes(&anomaly);
                self.found.doubted.insert(other, neighbour.doubted);
            }
            others.entry(other).or_default().push(anomaly);
        }
        for (other, anomalies) in others {
            self.events += anomalies.len() + 1;
            self.found.found(other, Found::Judged { who: None, anomalies, verify_by: None });
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
        if let Some(held) = memory::held_at(self.pool, device, position).await? {
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
                let beside = memory::held(self.pool, device, around, before).await?;
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
                let holders = memory::held(self.pool, device, (held.seq, held.seq), before).await?;
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
