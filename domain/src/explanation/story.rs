//! From events to steps. No words here, and no names.

use cqrs_es::Aggregate;
use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, Position, PunchId, SiteId, Time,
    attachment::Attachment,
    capture::{Capture, PunchKind},
    vocabulary::{Reason, Standing},
};
use uuid::Uuid;

use super::{
    ChainMark, Context, DisputeMark, MissingNumbers, Place,
    step::{
        Amendment, ChainFact, Checked, Conflict, Decision, Disputed, Doubt, Escalation,
        Identification, Joined, NotChecked, Origin, Receipt, Step, Verification, What,
    },
};
use crate::{
    Event, Recorded,
    aggregate::Undecodable,
    device::{DeviceEvent, Gap},
    dispute::DisputeEvent,
    log::recorded::Actor,
    punch::{self, Anomaly, Clock, Failing, Ground, Punch, PunchEvent},
};

/// A punch as its steps tell it.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub punch: PunchId,
    /// Who made it, as far as that is known by now.
    pub employee: Option<EmployeeId>,
    /// Who was said to have made it at first.
    pub first_employee: Option<EmployeeId>,
    /// Whether it is doubtful or not known who made it, so that it counts for nobody.
    pub nobodys: bool,
    pub site: SiteId,
    /// None for a punch that no device made or sent.
    pub device: Option<DeviceId>,
    pub seq: Option<u64>,
    pub quarantine: Option<Digest>,
    pub captured_at: Time,
    /// The wall clock's offset at capture, in seconds; none if a person admitted the punch.
    pub utc_offset_s: Option<i32>,
    pub standing: Standing,
    pub effective: (Time, PunchKind),
    pub steps: Vec<Step>,
    pub position: Position,
}

/// A step under way: its place and who caused it.
struct Mark {
    place: Place,
    actor: Option<Actor>,
}

impl Mark {
    fn of(recorded: &Recorded) -> Self {
        Self { place: Place::of(recorded), actor: recorded.actor() }
    }

    fn step(self, what: What) -> Step {
        Step {
            what,
            device_time: None,
            ledger_time: Some(self.place.recorded_at),
            actor: self.actor,
            note: None,
            positions: vec![self.place.position],
        }
    }
}

fn not_happened(what: What) -> Step {
    let positions = Vec::new();
    Step { what, device_time: None, ledger_time: None, actor: None, note: None, positions }
}

/// Doubts flagged one after another, until what follows from them.
#[derive(Default)]
struct Flagged {
    anomalies: Vec<Anomaly>,
    positions: Vec<Position>,
    first: Option<(Time, Option<Actor>)>,
}

impl Flagged {
    fn add(&mut self, mark: Mark, anomaly: Anomaly) {
        self.anomalies.push(anomaly);
        self.positions.push(mark.place.position);
        self.first.get_or_insert((mark.place.recorded_at, mark.actor));
    }

    fn referred(self, mark: Mark, reasons: Vec<Reason>) -> Step {
        let referred = Decision::Referred { reasons, anomalies: self.anomalies };
        let mut step = mark.step(What::Decided(referred));
        step.positions.splice(0..0, self.positions);
        step
    }

    fn without_effect(self) -> Option<Step> {
        let (at, actor) = self.first?;
        Some(Step {
            what: What::Doubted(Doubt { anomalies: self.anomalies }),
            device_time: None,
            ledger_time: Some(at),
            actor,
            note: None,
            positions: self.positions,
        })
    }
}

impl Story {
    /// The punch's events, read in their order; none for a punch that has none.
    pub fn of(events: &[Recorded]) -> Result<Option<Self>, Undecodable> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(None) };
        let mut punch = Punch::default();
        let mut steps = Vec::with_capacity(events.len() + 2);
        let mut flagged = Flagged::default();
        let mut id = None;
        for recorded in events {
            let wrong = |what| Undecodable::new(recorded.position, what);
            let Event::Punch(of, event) = recorded.event()? else {
                return Err(wrong("it is no event of a punch"));
            };
            id = Some(of);
            let before = Before { effective: punch.effective(), employee: punch.employee() };
            punch.apply(event.clone());
            let mark = Mark::of(recorded);
            match event {
                PunchEvent::AnomalyFlagged { anomaly } => flagged.add(mark, anomaly),
                PunchEvent::AnomalyWithdrawn { anomaly } => withdraw(&mut steps, mark, anomaly),
                // Told with what follows.
                PunchEvent::ReferralLifted {} => {
                    if let Some(step) = steps.last_mut() {
                        step.positions.push(recorded.position);
                    }
                }
                PunchEvent::ReferredForReview { reasons } => {
                    steps.push(std::mem::take(&mut flagged).referred(mark, reasons));
                }
                other => {
                    steps.extend(std::mem::take(&mut flagged).without_effect());
                    let step = step(other, mark, before, &punch);
                    steps.push(step.ok_or_else(|| wrong("the punch's first event is missing"))?);
                }
            }
        }
        steps.extend(flagged.without_effect());
        let unreadable =
            || Undecodable::new(first.position, "the punch's first event can't be read");
        let (id, effective) = id.zip(punch.effective()).ok_or_else(unreadable)?;
        let origin = punch.origin().ok_or_else(unreadable)?;
        let mut story = match origin {
            punch::Origin::Captured { capture, .. } => Self::captured(id, capture),
            punch::Origin::Entered { employee, site, at, .. } => {
                Self { first_employee: Some(*employee), site: *site, ..Self::begun(id, *at) }
            }
            punch::Origin::Admitted { quarantine, employee, site, device, captured_at, .. } => {
                Self {
                    first_employee: Some(*employee),
                    site: *site,
                    device: Some(*device),
                    quarantine: Some(*quarantine),
                    ..Self::begun(id, *captured_at)
                }
            }
        };
        if punch.pictures().is_waiting() {
            mark_waiting(&mut steps);
        } else if punch.standing() == Standing::Recorded {
            steps.push(not_happened(What::Decided(Decision::Pending {})));
        }
        if punch.pictures().verify_by().is_none() {
            let verified = What::Verified(not_checked(origin));
            let at = steps.iter().take_while(|step| is_arrival(&step.what)).count();
            steps.insert(at, not_happened(verified));
        }
        story.steps = steps;
        story.employee = punch.employee();
        story.nobodys = punch.is_nobodys();
        story.standing = punch.standing();
        story.effective = effective;
        story.position = last.position;
        Ok(Some(story))
    }

    fn begun(punch: PunchId, captured_at: Time) -> Self {
        Self {
            punch,
            employee: None,
            first_employee: None,
            nobodys: false,
            site: SiteId::NIL,
            device: None,
            seq: None,
            quarantine: None,
            captured_at,
            utc_offset_s: None,
            standing: Standing::Recorded,
            effective: (captured_at, PunchKind::In),
            steps: Vec::new(),
            position: Position::START,
        }
    }

    fn captured(punch: PunchId, capture: &Capture) -> Self {
        Self {
            first_employee: capture.employee,
            site: capture.site,
            device: Some(capture.device),
            seq: Some(capture.seq),
            utc_offset_s: Some(capture.utc_offset_s),
            ..Self::begun(punch, capture.captured_at)
        }
    }

    /// Adds what the surroundings say.
    pub fn amid(mut self, context: &Context) -> Self {
        let mut arrival = Vec::new();
        let item = context.quarantined.filter(|_| self.quarantine.is_some());
        if let (Some(item), Some(device)) = (item, self.device) {
            let sync = Receipt {
                device,
                received_at: item.received_at,
                offline: None,
                clock: Clock::Unknown,
                delay_ms: item.received_at.millis_since(self.captured_at),
                quarantined: Some(item.code),
            };
            let actor = Some(Actor::Device(device));
            arrival.push(Mark { place: item.place, actor }.step(What::Synced(sync)));
        }
        let mut gaps: Vec<_> = context.gaps.iter().filter(|gap| self.is_beside(gap)).collect();
        gaps.sort_unstable_by_key(|missing| missing.gap);
        arrival.extend(gaps.into_iter().map(missing));
        let mut marks: Vec<_> = context.marks.iter().collect();
        marks.sort_by_key(|mark| mark.place);
        arrival.extend(marks.into_iter().filter_map(|mark| self.quoted(mark)));
        let mut disputes: Vec<_> = context.disputes.iter().collect();
        disputes.sort_by_key(|mark| mark.place);
        let disputes: Vec<_> = disputes.into_iter().filter_map(disputed).collect();
        let newest =
            arrival.iter().chain(&disputes).flat_map(|step| step.positions.iter().copied()).max();
        self.position = self.position.max(newest.unwrap_or_default());
        let at = self.steps.iter().take_while(|step| is_arrival(&step.what)).count();
        self.steps.splice(at..at, arrival);
        self.steps.extend(disputes);
        self
    }

    fn is_beside(&self, missing: &MissingNumbers) -> bool {
        let Gap { from, to } = missing.gap;
        self.seq.is_some_and(|seq| from <= seq.saturating_add(1) && seq <= to.saturating_add(1))
    }

    fn quoted(&self, mark: &ChainMark) -> Option<Step> {
        let fact = match mark.event {
            DeviceEvent::LinkBroken { seq, named, held } if Some(seq) == self.seq => {
                ChainFact::LinkBroken { named, held }
            }
            DeviceEvent::ForkDetected { seq, first, second } if Some(seq) == self.seq => {
                ChainFact::Fork { seq, first, second }
            }
            _ => return None,
        };
        Some(Mark { place: mark.place, actor: Some(Actor::Policy) }.step(What::Chain(fact)))
    }

    /// The site, and others that it speaks of.
    pub fn sites(&self) -> Vec<SiteId> {
        let others = self.anomalies().filter_map(|anomaly| match anomaly {
            Anomaly::TwoSites { site, .. } => Some(*site),
            _ => None,
        });
        std::iter::once(self.site).chain(others).collect()
    }

    /// Everybody that it speaks of: who is or was said to have made it.
    pub fn people(&self) -> Vec<EmployeeId> {
        let holders = self.anomalies().filter_map(|anomaly| match anomaly {
            Anomaly::OtherHolder { holder } => *holder,
            _ => None,
        });
        let found = self.steps.iter().flat_map(|step| match &step.what {
            What::Identified(found) => [Some(found.employee), found.instead_of],
            _ => [None, None],
        });
        let known = self.employee.into_iter().chain(self.first_employee);
        known.chain(holders).chain(found.flatten()).collect()
    }

    /// The doubts that it speaks of.
    fn anomalies(&self) -> impl Iterator<Item = &Anomaly> {
        self.steps.iter().flat_map(|step| match &step.what {
            What::Decided(Decision::Referred { anomalies, .. }) => anomalies.as_slice(),
            What::Doubted(Doubt { anomalies }) | What::Withdrawn(Doubt { anomalies }) => {
                anomalies.as_slice()
            }
            _ => &[],
        })
    }

    /// The operators, keys and users, that had a part in it.
    pub fn keys(&self) -> Vec<Uuid> {
        let key = |step: &Step| match step.actor {
            Some(Actor::Key(id) | Actor::User(id)) => Some(id),
            _ => None,
        };
        self.steps.iter().filter_map(key).collect()
    }
}

/// What tells who punched where no picture was to be compared.
fn not_checked(origin: &punch::Origin) -> Verification {
    let (reason, identified_by) = match origin {
        punch::Origin::Captured { capture, .. } if capture.employee.is_none() => {
            (NotChecked::NoneSetUp, None)
        }
        punch::Origin::Captured { capture, .. } => {
            (NotChecked::Otherwise, Some(capture.identified_by))
        }
        punch::Origin::Admitted { .. } | punch::Origin::Entered { .. } => {
            (NotChecked::Otherwise, None)
        }
    };
    Verification::NotChecked { reason, identified_by }
}

/// Doubts that are taken back one after the other are told together.
fn withdraw(steps: &mut Vec<Step>, mark: Mark, anomaly: Anomaly) {
    let position = mark.place.position;
    if let Some(Step { what: What::Withdrawn(doubt), positions, .. }) = steps.last_mut() {
        doubt.anomalies.push(anomaly);
        positions.push(position);
    } else {
        steps.push(mark.step(What::Withdrawn(Doubt { anomalies: vec![anomaly] })));
    }
}

/// How a punch came and what came with it: told before what was made of it.
const fn is_arrival(what: &What) -> bool {
    matches!(what, What::Captured(_) | What::Synced(_) | What::Chain(_))
}

/// The step of a dispute's event; evidence about a day says nothing of a punch.
fn disputed(mark: &DisputeMark) -> Option<Step> {
    let dispute = mark.dispute;
    let fact = match mark.event {
        DisputeEvent::Opened { subject, note } => {
            let (employee, cause) = (subject.employee, subject.cause);
            Disputed::Opened { dispute, employee, cause, text: note.is_some() }
        }
        DisputeEvent::Answered { .. } => Disputed::Answered { dispute },
        DisputeEvent::Resolved { how, by_punch, .. } => {
            Disputed::Resolved { dispute, how, by_punch }
        }
        DisputeEvent::Reopened { .. } => Disputed::Reopened { dispute },
        DisputeEvent::EvidenceAdded { .. } => return None,
    };
    let (place, actor) = (mark.place, mark.actor.clone());
    Some(Mark { place, actor }.step(What::Disputed(fact)))
}

fn missing(missing: &MissingNumbers) -> Step {
    let fact = ChainFact::Missing {
        gap: missing.gap,
        came_at: missing.came.map(|place| place.recorded_at),
    };
    let mark = Mark { place: missing.noticed, actor: Some(Actor::Policy) };
    let mut step = mark.step(What::Chain(fact));
    step.positions.extend(missing.came.map(|place| place.position));
    step
}

/// What a punch was before an event.
#[derive(Clone, Copy)]
struct Before {
    effective: Option<(Time, PunchKind)>,
    employee: Option<EmployeeId>,
}

/// The step of one event; none if it can't stand before the punch's first.
fn step(event: PunchEvent, mark: Mark, before: Before, punch: &Punch) -> Option<Step> {
    let note = event.note();
    let what = match event {
        PunchEvent::Captured { .. } => return captured(mark, punch),
        PunchEvent::Admitted { quarantine, kind, captured_at, note, .. } => {
            let origin = Origin::Quarantine { kind, item: quarantine, note: note.is_some() };
            let step = mark.step(What::Captured(origin));
            return Some(Step { device_time: Some(captured_at), note, ..step });
        }
        PunchEvent::Entered { kind, at, reason, note, .. } => {
            let origin = Origin::Entered { kind, reason, note: note.is_some() };
            let step = mark.step(What::Captured(origin));
            return Some(Step { device_time: Some(at), note, ..step });
        }
        PunchEvent::Synced { device, received_at, clock } => {
            let offline = match punch.origin()? {
                punch::Origin::Captured { capture, .. } => Some(capture.offline),
                punch::Origin::Admitted { .. } | punch::Origin::Entered { .. } => None,
            };
            let delay_ms = received_at.millis_since(before.effective?.0);
            What::Synced(Receipt {
                device,
                received_at,
                offline,
                clock,
                delay_ms,
                quarantined: None,
            })
        }
        PunchEvent::ConflictingCaptureReceived { digest, device, received_at } => {
            What::Conflict(Conflict { digest, device, received_at })
        }
        PunchEvent::Accepted { basis, note, reason } => {
            What::Decided(Decision::Accepted { basis, reason, note: note.is_some() })
        }
        PunchEvent::Rejected { reason, note } => {
            What::Decided(Decision::Rejected { reason, note: note.is_some() })
        }
        PunchEvent::Voided { note, reason } => {
            What::Decided(Decision::Voided { reason, note: note.is_some() })
        }
        PunchEvent::Reinstated {} => What::Decided(Decision::Reinstated {}),
        PunchEvent::ReviewEscalated { due_at } => What::Escalated(Escalation { due_at }),
        PunchEvent::Amended { effective_at, kind, note, reason } => {
            let (from_at, from_kind) = before.effective?;
            What::Amended(Amendment {
                from_at,
                from_kind,
                to_at: effective_at,
                to_kind: kind,
                reason,
                note: note.is_some(),
            })
        }
        PunchEvent::VerificationRequested { .. }
        | PunchEvent::PhotoReceived { .. }
        | PunchEvent::PhotoRetaken { .. }
        | PunchEvent::VerificationSucceeded { .. }
        | PunchEvent::VerificationFailed { .. }
        | PunchEvent::VerificationUnavailable { .. }
        | PunchEvent::PhotoErased { .. } => {
            return verified(event, mark, before.effective?.0, punch);
        }
        PunchEvent::Identified { employee, ground, note } => What::Identified(Identification {
            employee,
            ground,
            instead_of: None,
            reason: None,
            note: note.is_some(),
        }),
        PunchEvent::Reassigned { employee, reason, note } => What::Identified(Identification {
            employee,
            ground: Ground::Manager,
            instead_of: before.employee,
            reason,
            note: note.is_some(),
        }),
        PunchEvent::ShiftJoined { out, note } => {
            What::Joined(Joined { out: Some(out), note: note.is_some() })
        }
        PunchEvent::ShiftParted { note } => {
            What::Joined(Joined { out: None, note: note.is_some() })
        }
        // The caller gathers these into one step.
        PunchEvent::AnomalyFlagged { .. }
        | PunchEvent::AnomalyWithdrawn { .. }
        | PunchEvent::ReferralLifted {}
        | PunchEvent::ReferredForReview { .. } => return None,
    };
    before.effective.map(|_| Step { note, ..mark.step(what) })
}

/// What an event says of the punch's pictures.
fn verified(event: PunchEvent, mark: Mark, pressed_at: Time, punch: &Punch) -> Option<Step> {
    let checked = |check| Box::new(Checked { check, after_ruling: punch.is_ruled() });
    let mut device_time = None;
    let verification = match event {
        PunchEvent::VerificationRequested { due_at } => {
            Verification::Requested { due_at, waits: false }
        }
        PunchEvent::PhotoReceived { photo, attempt, received_at } => {
            let delay_ms = received_at.millis_since(pressed_at);
            Verification::Received { attempt, photo, delay_ms }
        }
        PunchEvent::PhotoRetaken { record, .. } => {
            let Attachment { attempt, photo, taken_at, .. } =
                Attachment::parse_kept(record.as_bytes()).ok()?;
            device_time = Some(taken_at);
            Verification::Retaken { attempt, photo }
        }
        PunchEvent::VerificationSucceeded { check, comparison } => {
            Verification::Matched { check: checked(check), comparison }
        }
        PunchEvent::VerificationFailed { check, failing, comparison } => {
            let Failing { miss, guidance } = failing;
            Verification::Missed { check: checked(check), miss, guidance, comparison }
        }
        PunchEvent::VerificationUnavailable { missing } => {
            Verification::Unavailable { reason: missing }
        }
        PunchEvent::PhotoErased { photo, because, .. } => Verification::Erased { photo, because },
        _ => return None,
    };
    Some(Step { device_time, ..mark.step(What::Verified(verification)) })
}

/// Marks the request for a verdict as one that is waited for still.
fn mark_waiting(steps: &mut [Step]) {
    for step in steps {
        if let What::Verified(Verification::Requested { waits, .. }) = &mut step.what {
            *waits = true;
        }
    }
}

fn captured(mark: Mark, punch: &Punch) -> Option<Step> {
    let punch::Origin::Captured { digest, capture } = punch.origin()? else { return None };
    let origin = Origin::Device {
        kind: capture.kind,
        seq: capture.seq,
        identified_by: capture.identified_by,
        badge_unknown: capture.badge.is_some(),
        photo: capture.photo.is_some(),
        utc_offset_s: capture.utc_offset_s,
        digest: *digest,
    };
    let step = mark.step(What::Captured(origin));
    Some(Step { device_time: Some(capture.captured_at), ..step })
}
