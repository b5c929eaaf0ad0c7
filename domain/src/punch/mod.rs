//! The punch: captured once, judged by policy, ruled on by people.
//!
//! Two times stand on every punch: `captured_at`, the business truth, which counts until a person
//! amends it, and the ledger's position, which is the order. A doubt refers a punch and never stops
//! it from counting; only a person's `Rejected` or `Voided` does.

mod command;
mod error;
mod event;
mod pictures;
mod revise;
mod verification;

use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, PunchId, SiteId, Time,
    capture::{Capture, CaptureText, PunchKind},
    vocabulary::{Reason, Standing},
};
use serde::{Deserialize, Serialize};

pub use command::{PunchCommand, Verdict};
pub use error::PunchError;
pub use event::{
    Anomaly, Basis, CLOCK_NOISE_MS, Clock, Ground, PunchEvent, RejectionReason, RulingReason,
};
pub use pictures::{Picture, Pictures};
pub use verification::{Check, Comparison, Failing, Floors, Miss, Missing, Provider, Quality};

use crate::aggregate::aggregate;
use pictures::Finding;

/// A punch as its events make it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Punch {
    origin: Option<Origin>,
    /// Who made it, as far as that is known by now.
    employee: Option<EmployeeId>,
    /// The `out` that this `in` was joined with.
    joined: Option<PunchId>,
    synced: Option<(DeviceId, Time, Clock)>,
    effective: Option<(Time, PunchKind)>,
    standing: Standing,
    anomalies: Vec<Anomaly>,
    conflicted: bool,
    /// What it is referred for, beside its anomalies.
    reasons: Vec<Reason>,
    /// Whether nobody had ruled in time on what it is referred for.
    escalated: bool,
    /// Whether a person ruled that it counts or doesn't.
    ruled: bool,
    pictures: Pictures,
}

/// How a punch came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    Captured {
        /// Digest of the signed bytes.
        digest: Digest,
        capture: Box<Capture>,
    },
    /// A person admitted a quarantined item.
    Admitted {
        quarantine: Digest,
        employee: EmployeeId,
        site: SiteId,
        /// The device that delivered it.
        device: DeviceId,
        captured_at: Time,
        kind: PunchKind,
    },
    /// A person added it.
    Entered { employee: EmployeeId, site: SiteId, at: Time, kind: PunchKind, reason: RulingReason },
}

impl Punch {
    /// How the punch came to be; none before its first event.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }
    /// Digest of the bytes that stand, if it was captured.
    pub fn digest(&self) -> Option<Digest> {
        match &self.origin {
            Some(Origin::Captured { digest, .. }) => Some(*digest),
            _ => None,
        }
    }
    /// Where it stands.
    pub fn standing(&self) -> Standing {
        self.standing
    }
    /// The time and kind that count.
    pub fn effective(&self) -> Option<(Time, PunchKind)> {
        self.effective
    }
    /// Who delivered it, when, and what was known of the device's clock then.
    pub fn synced(&self) -> Option<(DeviceId, Time, Clock)> {
        self.synced
    }
    /// The `out` that this `in` was joined with to one shift.
    pub const fn joined(&self) -> Option<PunchId> {
        self.joined
    }
    /// Everything doubtful that was found and not taken back.
    pub fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }
    /// Whether other bytes came under its id.
    pub fn is_conflicted(&self) -> bool {
        self.conflicted
    }

    /// Whether a person ruled that it counts or doesn't.
    pub fn is_ruled(&self) -> bool {
        self.ruled
    }
    /// Its pictures, and what was made of them.
    pub fn pictures(&self) -> &Pictures {
        &self.pictures
    }
    /// The device that captured it; none if a person admitted it.
    pub fn captured_by(&self) -> Option<DeviceId> {
        match &self.origin {
            Some(Origin::Captured { capture, .. }) => Some(capture.device),
            _ => None,
        }
    }

    /// What follows from `command`; no events when nothing is left to do.
    ///
    /// # Errors
    /// When the punch doesn't exist, or its standing allows no such ruling.
    pub fn decide(&self, command: PunchCommand) -> Result<Vec<PunchEvent>, PunchError> {
        match command {
            PunchCommand::Record { capture, signature, device, received_at, clock } => {
                self.record(capture, signature, device, received_at, clock)
            }
            PunchCommand::Admit { quarantine, employee, site, kind, captured_at, device, note } => {
                if self.origin.is_some() {
                    return Err(PunchError::Exists);
                }
                let admitted = PunchEvent::Admitted {
                    quarantine,
                    employee,
                    site,
                    kind,
                    captured_at,
                    device,
                    note,
                };
                let accepted =
                    PunchEvent::Accepted { basis: Basis::Manager, note: None, reason: None };
                Ok(vec![admitted, accepted])
            }
            PunchCommand::Enter { .. } if self.origin.is_some() => Err(PunchError::Exists),
            PunchCommand::Enter { employee, site, kind, at, reason, note } => {
                let (basis, by) = (Basis::Manager, Some(reason));
                Ok(vec![
                    PunchEvent::Entered { employee, site, kind, at, reason, note },
                    PunchEvent::Accepted { basis, note: None, reason: by },
                ])
            }
            PunchCommand::Identify { employee, ground } => self.identify(employee, ground),
            PunchCommand::Assign { employee, reason, note } => self.assign(employee, reason, note),
            PunchCommand::JoinShift { out, note } => self.join(out, note),
            PunchCommand::PartShift { note } => match self.joined {
                Some(_) => Ok(vec![PunchEvent::ShiftParted { note }]),
                None => Err(PunchError::NotJoined),
            },
            PunchCommand::Revise { person, beside, verify_by } => {
                self.revise(person, &beside, verify_by)
            }
            PunchCommand::Judge { anomalies, verify_by } => self.judge(anomalies, verify_by),
            PunchCommand::Settle {} => Ok(self.settle()),
            PunchCommand::Retake { .. } | PunchCommand::ReceivePhoto { .. }
                if !matches!(self.origin, Some(Origin::Captured { .. })) =>
            {
                Err(if self.origin.is_none() {
                    PunchError::Unknown
                } else {
                    PunchError::NotCaptured
                })
            }
            PunchCommand::Retake { record, signature, received_at } => {
                self.pictures.retake(record, signature, received_at)
            }
            PunchCommand::ReceivePhoto { photo, received_at } => {
                Ok(self.pictures.receive(photo, received_at))
            }
            PunchCommand::Verify { verdict } => Ok(self.pictures.verify(verdict)),
            PunchCommand::GiveUp { missing } => Ok(self.pictures.give_up(missing)),
            PunchCommand::ErasePhoto { photo, because, at } => {
                Ok(self.pictures.erase(photo, because, at))
            }
            PunchCommand::Accept { reason, note } => {
                let accepted = PunchEvent::Accepted { basis: Basis::Manager, note, reason };
                self.rule(self.standing == Standing::Accepted, accepted)
            }
            PunchCommand::Reject { reason, note } => self
                .rule(self.standing == Standing::Rejected, PunchEvent::Rejected { reason, note }),
            PunchCommand::Void { reason, note } => {
                self.rule(self.standing == Standing::Voided, PunchEvent::Voided { note, reason })
            }
            PunchCommand::Amend { effective_at, kind, reason, note } => {
                self.amend(effective_at, kind, reason, note)
            }
            PunchCommand::UseServerTime { note } => {
                let at = self.server_time().ok_or(PunchError::NoOtherTime)?;
                self.amend(Some(at), None, Some(RulingReason::ClockWrong), note)
            }
            PunchCommand::Escalate { due_at } => Ok(match self.standing {
                Standing::Referred if !self.escalated => {
                    vec![PunchEvent::ReviewEscalated { due_at }]
                }
                _ => Vec::new(),
            }),
        }
    }

    /// When it was made by the server's clock, if its device's is known to have been another.
    pub fn server_time(&self) -> Option<Time> {
        let (_, _, clock) = self.synced?;
        let Some(Origin::Captured { capture, .. }) = &self.origin else { return None };
        let offset_ms = clock.offset_ms().filter(|offset_ms| *offset_ms != 0)?;
        Some(capture.captured_at.plus_millis(offset_ms.saturating_neg()))
    }

    /// Who made it, if that is known by now.
    pub const fn employee(&self) -> Option<EmployeeId> {
        self.employee
    }

    /// Where it was made.
    pub fn site(&self) -> Option<SiteId> {
        Some(match self.origin.as_ref()? {
            Origin::Captured { capture, .. } => capture.site,
            Origin::Admitted { site, .. } | Origin::Entered { site, .. } => *site,
        })
    }

    /// Whether it is doubtful who made it, so that it counts for nobody.
    pub fn is_nobodys(&self) -> bool {
        let other = |anomaly: &Anomaly| matches!(anomaly, Anomaly::OtherHolder { .. });
        let doubted = self.standing == Standing::Referred && self.anomalies.iter().any(other);
        self.employee.is_none() || doubted
    }

    /// Once only: whoever was found stays until a person says otherwise.
    fn identify(
        &self,
        employee: EmployeeId,
        ground: Ground,
    ) -> Result<Vec<PunchEvent>, PunchError> {
        if self.origin.is_none() {
            return Err(PunchError::Unknown);
        }
        let identified = PunchEvent::Identified { employee, ground, note: None };
        Ok(if self.employee.is_none() { vec![identified] } else { Vec::new() })
    }

    /// Whoever says who made a punch has ruled that it counts; of what is out of the count, too, it
    /// is said whose it was.
    fn assign(
        &self,
        employee: EmployeeId,
        reason: Option<RulingReason>,
        note: Option<Digest>,
    ) -> Result<Vec<PunchEvent>, PunchError> {
        if self.origin.is_none() {
            return Err(PunchError::Unknown);
        }
        let said = match self.employee {
            Some(held) if held == employee => return Err(PunchError::Unchanged),
            Some(_) => PunchEvent::Reassigned { employee, reason, note },
            None => PunchEvent::Identified { employee, ground: Ground::Manager, note },
        };
        let of_person = self.anomalies.iter().filter(|anomaly| anomaly.is_who());
        let withdrawn =
            of_person.map(|anomaly| PunchEvent::AnomalyWithdrawn { anomaly: anomaly.clone() });
        let mut events: Vec<PunchEvent> = [said].into_iter().chain(withdrawn).collect();
        if self.standing == Standing::Referred {
            let basis = Basis::Manager;
            events.push(PunchEvent::Accepted { basis, note: None, reason });
        }
        Ok(events)
    }

    fn join(&self, out: PunchId, note: Option<Digest>) -> Result<Vec<PunchEvent>, PunchError> {
        match self.effective {
            None => Err(PunchError::Unknown),
            Some((_, PunchKind::In)) if self.standing.counts() => match self.joined {
                Some(held) if held == out => Err(PunchError::Unchanged),
                _ => Ok(vec![PunchEvent::ShiftJoined { out, note }]),
            },
            Some(_) => Err(PunchError::NoShift),
        }
    }

    /// Everything it is referred for now, in order.
    pub fn referred_for(&self) -> &[Reason] {
        if self.standing == Standing::Referred { &self.reasons } else { &[] }
    }

    /// Whoever says what a doubtful punch counts as has ruled that it counts.
    fn amend(
        &self,
        effective_at: Option<Time>,
        kind: Option<PunchKind>,
        reason: Option<RulingReason>,
        note: Option<Digest>,
    ) -> Result<Vec<PunchEvent>, PunchError> {
        let (at, what) = self.effective.ok_or(PunchError::Unknown)?;
        if self.standing == Standing::Voided {
            return Err(PunchError::Voided);
        }
        let to = (effective_at.unwrap_or(at), kind.unwrap_or(what));
        let amended = PunchEvent::Amended { effective_at: to.0, kind: to.1, note, reason };
        let mut events = self.rule(to == (at, what), amended)?;
        if self.standing == Standing::Referred {
            let basis = Basis::Manager;
            events.push(PunchEvent::Accepted { basis, note: None, reason });
        }
        Ok(events)
    }

    /// A punch counts once: the same bytes again change nothing, other bytes are evidence, once.
    fn record(
        &self,
        capture: CaptureText,
        signature: punchtrail_protocol::signing::Signature,
        device: DeviceId,
        received_at: Time,
        clock: Clock,
    ) -> Result<Vec<PunchEvent>, PunchError> {
        if self.origin.is_none() {
            return Ok(vec![
                PunchEvent::Captured { capture, signature },
                PunchEvent::Synced { device, received_at, clock },
            ]);
        }
        let digest = capture.digest();
        if self.digest() == Some(digest) || self.conflicted {
            return Ok(Vec::new());
        }
        Ok(vec![PunchEvent::ConflictingCaptureReceived { digest, device, received_at }])
    }

    fn judge(
        &self,
        anomalies: Vec<Anomaly>,
        verify_by: Option<Time>,
    ) -> Result<Vec<PunchEvent>, PunchError> {
        if self.origin.is_none() {
            return Err(PunchError::Unknown);
        }
        let new: Vec<Anomaly> =
            anomalies.into_iter().filter(|anomaly| !self.anomalies.contains(anomaly)).collect();
        let verify_by = verify_by.filter(|_| self.pictures.verify_by().is_none());
        let waits = self.pictures.verify_by().is_some();
        let mut events = match (new.is_empty(), self.standing) {
            (true, Standing::Recorded) if waits => Vec::new(),
            (true, Standing::Recorded) | (false, _) => Self::first_judgement(new, verify_by),
            (true, _) => Vec::new(),
        };
        if !self.standing.counts() {
            events.retain(|event| matches!(event, PunchEvent::AnomalyFlagged { .. }));
        }
        Ok(events)
    }

    /// What the checks of its pictures lead to. A match accepts a punch about which nothing else is
    /// doubtful; what is no match refers it. A person's ruling stands.
    fn settle(&self) -> Vec<PunchEvent> {
        if self.ruled || !self.standing.counts() {
            return Vec::new();
        }
        match self.pictures.finding() {
            Some(Finding::Match) => {
                let waits = matches!(self.standing, Standing::Recorded | Standing::Referred);
                let basis = Basis::Verification;
                let accepted = PunchEvent::Accepted { basis, note: None, reason: None };
                if waits && self.anomalies.is_empty() { vec![accepted] } else { Vec::new() }
            }
            Some(Finding::Doubt(reason)) => {
                let is_new = !self.reasons.contains(&reason);
                let referred = PunchEvent::ReferredForReview { reasons: vec![reason] };
                if self.standing != Standing::Accepted && is_new {
                    vec![referred]
                } else {
                    Vec::new()
                }
            }
            None => Vec::new(),
        }
    }

    /// What the first judgement of a recorded punch leads to: without a doubt it is accepted, or
    /// waits for the verdict on its picture.
    pub fn first_judgement(anomalies: Vec<Anomaly>, verify_by: Option<Time>) -> Vec<PunchEvent> {
        let requested = verify_by.map(|due_at| PunchEvent::VerificationRequested { due_at });
        if anomalies.is_empty() {
            let accepted = PunchEvent::Accepted { basis: Basis::Policy, note: None, reason: None };
            return vec![requested.unwrap_or(accepted)];
        }
        let mut flagged: Vec<Anomaly> = Vec::with_capacity(anomalies.len());
        for anomaly in anomalies {
            if !flagged.contains(&anomaly) {
                flagged.push(anomaly);
            }
        }
        let mut reasons: Vec<Reason> = flagged.iter().map(Anomaly::reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        requested
            .into_iter()
            .chain(flagged.into_iter().map(|anomaly| PunchEvent::AnomalyFlagged { anomaly }))
            .chain([PunchEvent::ReferredForReview { reasons }])
            .collect()
    }

    fn rule(&self, unchanged: bool, event: PunchEvent) -> Result<Vec<PunchEvent>, PunchError> {
        match self.standing {
            _ if self.origin.is_none() => Err(PunchError::Unknown),
            _ if unchanged => Err(PunchError::Unchanged),
            // A ruling is undone by a new one; both stay.
            Standing::Voided => Ok(vec![PunchEvent::Reinstated {}, event]),
            _ => Ok(vec![event]),
        }
    }

    fn evolve(&mut self, event: PunchEvent) {
        match event {
            PunchEvent::Captured { capture, .. } => {
                // What is in the ledger was read before it was written; a text that can't be read
                // leaves the punch without an origin, and every command on it is refused.
                if let Ok(read) = capture.capture() {
                    self.effective = Some((read.captured_at, read.kind));
                    self.pictures = Pictures::of(read.photo);
                    self.employee = read.employee;
                    let (digest, read) = (capture.digest(), Box::new(read.clone()));
                    self.origin = Some(Origin::Captured { digest, capture: read });
                }
            }
            PunchEvent::Synced { device, received_at, clock } => {
                self.synced = Some((device, received_at, clock));
            }
            PunchEvent::Admitted {
                quarantine, employee, site, kind, captured_at, device, ..
            } => {
                self.effective = Some((captured_at, kind));
                self.employee = Some(employee);
                self.origin = Some(Origin::Admitted {
                    quarantine,
                    employee,
                    site,
                    device,
                    captured_at,
                    kind,
                });
            }
            PunchEvent::Entered { employee, site, kind, at, reason, .. } => {
                self.effective = Some((at, kind));
                self.employee = Some(employee);
                self.origin = Some(Origin::Entered { employee, site, at, kind, reason });
            }
            PunchEvent::Identified { employee, .. } | PunchEvent::Reassigned { employee, .. } => {
                self.employee = Some(employee);
            }
            PunchEvent::ShiftJoined { out, .. } => self.joined = Some(out),
            PunchEvent::ShiftParted { .. } => self.joined = None,
            PunchEvent::AnomalyWithdrawn { anomaly } => {
                self.anomalies.retain(|held| *held != anomaly);
            }
            PunchEvent::ReferralLifted {} => {
                self.standing = Standing::Recorded;
                self.reasons.clear();
            }
            PunchEvent::ConflictingCaptureReceived { .. } => self.conflicted = true,
            PunchEvent::AnomalyFlagged { anomaly } => self.anomalies.push(anomaly),
            PunchEvent::ReferredForReview { reasons } => {
                if self.standing != Standing::Referred {
                    self.reasons.clear();
                    self.escalated = false;
                }
                self.standing = Standing::Referred;
                self.reasons.extend(reasons);
            }
            PunchEvent::Accepted { basis, .. } => {
                self.ruled |= basis == Basis::Manager;
                self.standing = Standing::Accepted;
            }
            PunchEvent::Rejected { .. } => {
                self.ruled = true;
                self.standing = Standing::Rejected;
            }
            PunchEvent::Amended { effective_at, kind, .. } => {
                self.effective = Some((effective_at, kind));
            }
            PunchEvent::Voided { .. } => {
                self.ruled = true;
                self.standing = Standing::Voided;
            }
            PunchEvent::Reinstated {} => self.standing = Standing::Recorded,
            PunchEvent::ReviewEscalated { .. } => self.escalated = true,
            event => self.pictures.evolve(event),
        }
    }
}

aggregate!(Punch, PunchCommand, PunchEvent, PunchError, {
    Captured, Synced, Admitted, ConflictingCaptureReceived, AnomalyFlagged, ReferredForReview,
    Accepted, Rejected, Amended, Voided, VerificationRequested, PhotoReceived, PhotoRetaken,
    VerificationSucceeded, VerificationFailed, VerificationUnavailable, PhotoErased, Reinstated,
    ReviewEscalated, Entered, Identified, Reassigned, ShiftJoined, ShiftParted, AnomalyWithdrawn,
    ReferralLifted,
}, second { Accepted, Amended, Voided });

#[cfg(test)]
mod tests {
    use punchtrail_protocol::signing::Signature;
    use punchtrail_testkit::EXAMPLE;

    use super::*;

    fn record(capture: &str) -> PunchCommand {
        PunchCommand::Record {
            capture: capture.into(),
            signature: Signature([0; 64]),
            device: DeviceId::NIL,
            received_at: Time::from_millis(0),
            clock: Clock::Unknown,
        }
    }

    fn after(commands: impl IntoIterator<Item = PunchCommand>) -> Punch {
        let mut punch = Punch::default();
        for command in commands {
            for event in punch.decide(command).unwrap() {
                punch.evolve(event);
            }
        }
        punch
    }

    #[test]
    fn a_capture_counts_once_and_other_bytes_are_kept_once() {
        let punch = after([record(EXAMPLE)]);
        assert_eq!(punch.decide(record(EXAMPLE)), Ok(vec![]));
        let other = EXAMPLE.replacen("\"in\"", "\"out\"", 1);
        let events = punch.decide(record(&other)).unwrap();
        assert!(matches!(events[..], [PunchEvent::ConflictingCaptureReceived { .. }]));
        assert_eq!(after([record(EXAMPLE), record(&other)]).decide(record(&other)), Ok(vec![]));
    }

    #[test]
    fn without_a_doubt_it_is_accepted_and_only_once() {
        let judge = PunchCommand::Judge { anomalies: vec![], verify_by: None };
        let punch = after([record(EXAMPLE), judge.clone()]);
        assert_eq!(punch.standing(), Standing::Accepted);
        assert_eq!(punch.decide(judge), Ok(vec![]));
    }

    #[test]
    fn a_doubt_refers_even_after_acceptance_and_the_punch_still_counts() {
        let doubt = PunchCommand::Judge { anomalies: vec![Anomaly::UnknownBadge], verify_by: None };
        let punch = after([
            record(EXAMPLE),
            PunchCommand::Judge { anomalies: vec![], verify_by: None },
            doubt.clone(),
        ]);
        assert_eq!(punch.standing(), Standing::Referred);
        assert!(punch.standing().counts());
        assert_eq!(punch.decide(doubt), Ok(vec![]));
    }

    #[test]
    fn a_rejected_punch_is_not_referred_again_but_the_doubt_is_kept() {
        let reject = PunchCommand::Reject { reason: RejectionReason::Other, note: None };
        let punch = after([record(EXAMPLE), reject]);
        let events = punch
            .decide(PunchCommand::Judge {
                anomalies: vec![Anomaly::RevokedDevice],
                verify_by: None,
            })
            .unwrap();
        assert!(matches!(events[..], [PunchEvent::AnomalyFlagged { .. }]));
    }

    #[test]
    fn a_ruling_is_undone_by_another_and_both_stay() {
        let void = PunchCommand::Void { reason: Some(RulingReason::Duplicate), note: None };
        let accept = PunchCommand::Accept { reason: Some(RulingReason::Mistake), note: None };
        let voided = after([record(EXAMPLE), void.clone()]);
        assert_eq!(voided.decide(void.clone()), Err(PunchError::Unchanged));
        let events = voided.decide(accept.clone()).unwrap();
        assert!(
            matches!(events[..], [PunchEvent::Reinstated {}, PunchEvent::Accepted { .. }]),
            "{events:?}"
        );
        let back = after([record(EXAMPLE), void.clone(), accept.clone()]);
        assert_eq!(back.standing(), Standing::Accepted);
        let again = after([record(EXAMPLE), void.clone(), accept.clone(), void]);
        assert_eq!(again.standing(), Standing::Voided);
        assert_eq!(Punch::default().decide(accept), Err(PunchError::Unknown));
    }

    #[test]
    fn what_is_out_of_the_count_is_not_corrected() {
        let void = PunchCommand::Void { note: None, reason: None };
        let amend = PunchCommand::Amend {
            effective_at: None,
            kind: Some(PunchKind::Out),
            reason: None,
            note: None,
        };
        let voided = after([record(EXAMPLE), void]);
        assert_eq!(voided.decide(amend), Err(PunchError::Voided));
    }

    #[test]
    fn a_doubtful_punch_that_is_corrected_is_ruled_on() {
        let judge = PunchCommand::Judge { anomalies: vec![Anomaly::UnknownBadge], verify_by: None };
        let amend = PunchCommand::Amend {
            effective_at: None,
            kind: Some(PunchKind::Out),
            reason: Some(RulingReason::WrongKind),
            note: None,
        };
        let punch = after([record(EXAMPLE), judge, amend]);
        assert_eq!(punch.standing(), Standing::Accepted);
        assert!(punch.is_ruled() && punch.referred_for().is_empty());
    }

    #[test]
    fn the_servers_time_is_used_where_it_is_known() {
        let known = |offset_ms| {
            let PunchCommand::Record { capture, signature, device, received_at, .. } =
                record(EXAMPLE)
            else {
                unreachable!("it records")
            };
            let clock = Clock::Known { offset_ms };
            after([PunchCommand::Record { capture, signature, device, received_at, clock }])
        };
        let at = known(0).effective().unwrap().0;
        let use_it = PunchCommand::UseServerTime { note: None };
        let events = known(180_000).decide(use_it.clone()).unwrap();
        let [PunchEvent::Amended { effective_at, .. }] = events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(effective_at, at.plus_millis(-180_000));
        for punch in [known(0), after([record(EXAMPLE)])] {
            assert_eq!(punch.decide(use_it.clone()), Err(PunchError::NoOtherTime));
        }
    }

    #[test]
    fn a_review_is_escalated_once() {
        let judge = PunchCommand::Judge { anomalies: vec![Anomaly::UnknownBadge], verify_by: None };
        let escalate = PunchCommand::Escalate { due_at: Time::from_millis(9) };
        let punch = after([record(EXAMPLE), judge, escalate.clone()]);
        assert_eq!(punch.decide(escalate.clone()), Ok(vec![]));
        assert_eq!(after([record(EXAMPLE)]).decide(escalate), Ok(vec![]));
    }

    #[test]
    fn a_ruling_of_the_first_version_has_no_reason() {
        use crate::aggregate::StoredEvent as _;
        let payload = r#"{"Accepted":{"basis":"manager","note":null}}"#;
        let accepted = PunchEvent::Accepted { basis: Basis::Manager, note: None, reason: None };
        for version in ["1", "2"] {
            let read = PunchEvent::of_version(version, payload);
            assert_eq!(read.unwrap().unwrap(), accepted, "version {version}");
        }
        assert!(PunchEvent::of_version("3", payload).is_none());
        let rejected = r#"{"Rejected":{"reason":"other","note":null}}"#;
        assert!(PunchEvent::of_version("2", rejected).is_none());
        assert_eq!(accepted.version(), "2");
        assert_eq!(PunchEvent::Reinstated {}.version(), "1");
        let reason = Some(RulingReason::Recognised);
        let accepted = PunchEvent::Accepted { basis: Basis::Manager, note: None, reason };
        let written = serde_json::to_string(&accepted).unwrap();
        assert_eq!(
            written,
            r#"{"Accepted":{"basis":"manager","note":null,"reason":"recognised"}}"#
        );
    }

    #[test]
    fn an_amendment_changes_what_counts_and_leaves_the_capture() {
        let to: Time = "2026-11-21T09:00:00.000Z".parse().unwrap();
        let amend =
            PunchCommand::Amend { effective_at: Some(to), kind: None, note: None, reason: None };
        let punch = after([record(EXAMPLE), amend.clone()]);
        assert_eq!(punch.effective(), Some((to, PunchKind::In)));
        assert_eq!(punch.decide(amend), Err(PunchError::Unchanged));
        assert_eq!(punch.digest(), Some(Digest::of(EXAMPLE.as_bytes())));
    }
}
