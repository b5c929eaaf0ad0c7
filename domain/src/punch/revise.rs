//! Judging a punch anew: what a doubt rested on may be gone, and what nobody knew may be known.

use punchtrail_protocol::{
    Time,
    vocabulary::{Reason, Standing},
};

use super::{Anomaly, Basis, Punch, PunchError, PunchEvent, pictures::Finding};

/// What a doubt is about, as far as it can go again.
#[derive(PartialEq, Eq)]
enum About {
    Person,
    Neighbour,
    /// The capture itself, which stays as it is.
    Itself,
}

const fn about(anomaly: &Anomaly) -> About {
    match anomaly {
        Anomaly::UnknownBadge
        | Anomaly::UnknownEmployee
        | Anomaly::DepartedWorker { .. }
        | Anomaly::OtherHolder { .. }
        | Anomaly::Visitor => About::Person,
        Anomaly::NearDuplicate { .. } | Anomaly::TwoSites { .. } | Anomaly::OppositeKind { .. } => {
            About::Neighbour
        }
        Anomaly::ClockSuspect { .. }
        | Anomaly::InFuture { .. }
        | Anomaly::Fork { .. }
        | Anomaly::RevokedDevice
        | Anomaly::BeyondLookback { .. } => About::Itself,
    }
}

impl Punch {
    /// Takes back the doubts whose ground is gone, and raises those that are new: every one about
    /// the person, and of each kind that a neighbour gives the nearest, where none stands. What a
    /// person ruled stands until there is a new doubt.
    pub(super) fn revise(
        &self,
        person: Vec<Anomaly>,
        beside: &[Anomaly],
        verify_by: Option<Time>,
    ) -> Result<Vec<PunchEvent>, PunchError> {
        if self.origin.is_none() {
            return Err(PunchError::Unknown);
        }
        let stands = |anomaly: &&Anomaly| match about(anomaly) {
            About::Person => person.contains(anomaly),
            About::Neighbour => beside.contains(anomaly),
            About::Itself => true,
        };
        let mut left: Vec<Anomaly> = self.anomalies.iter().filter(stands).cloned().collect();
        let gone: Vec<Anomaly> =
            self.anomalies.iter().filter(|anomaly| !stands(anomaly)).cloned().collect();
        let mut new = Vec::new();
        for anomaly in person.iter().chain(beside) {
            let known = match about(anomaly) {
                About::Neighbour => left.iter().any(|held| held.reason() == anomaly.reason()),
                About::Person | About::Itself => left.contains(anomaly),
            };
            if !known {
                left.push(anomaly.clone());
                new.push(anomaly.clone());
            }
        }
        let mut events: Vec<PunchEvent> = gone
            .iter()
            .map(|anomaly| PunchEvent::AnomalyWithdrawn { anomaly: anomaly.clone() })
            .chain(
                new.iter().map(|anomaly| PunchEvent::AnomalyFlagged { anomaly: anomaly.clone() }),
            )
            .collect();
        if !self.standing.counts() {
            return Ok(events);
        }
        let asked = verify_by.filter(|_| !self.ruled && self.pictures.verify_by().is_none());
        events.extend(asked.map(|due_at| PunchEvent::VerificationRequested { due_at }));
        events.extend(self.standing_after(&gone, &new, &left, asked.is_some()));
        Ok(events)
    }

    /// Where it stands after doubts went and came.
    fn standing_after(
        &self,
        gone: &[Anomaly],
        new: &[Anomaly],
        left: &[Anomaly],
        asked: bool,
    ) -> Vec<PunchEvent> {
        let is_left = |reason: Reason| left.iter().any(|anomaly| anomaly.reason() == reason);
        let went = |reason: &Reason| {
            gone.iter().any(|anomaly| anomaly.reason() == *reason) && !is_left(*reason)
        };
        let fresh: Vec<Reason> = new.iter().map(Anomaly::reason).collect();
        if self.standing != Standing::Referred {
            return match (fresh.is_empty(), self.standing) {
                (false, _) => vec![referred(fresh)],
                // What counts already waits all the same for the picture of who was found to have
                // made it.
                (true, Standing::Accepted) if asked => vec![PunchEvent::ReferralLifted {}],
                (true, _) => Vec::new(),
            };
        }
        if !self.reasons.iter().any(went) {
            let joins = fresh.iter().any(|reason| !self.reasons.contains(reason));
            return if joins { vec![referred(fresh)] } else { Vec::new() };
        }
        let lifted = PunchEvent::ReferralLifted {};
        let reasons: Vec<Reason> =
            self.reasons.iter().copied().filter(|reason| !went(reason)).chain(fresh).collect();
        if !reasons.is_empty() {
            return vec![lifted, referred(reasons)];
        }
        let accepted = |basis| PunchEvent::Accepted { basis, note: None, reason: None };
        match self.pictures.finding() {
            _ if self.ruled => vec![lifted, accepted(Basis::Manager)],
            Some(Finding::Match) => vec![lifted, accepted(Basis::Verification)],
            Some(Finding::Doubt(reason)) => vec![lifted, referred(vec![reason])],
            None if asked || self.pictures.verify_by().is_some() => vec![lifted],
            None => vec![lifted, accepted(Basis::Policy)],
        }
    }
}

fn referred(mut reasons: Vec<Reason>) -> PunchEvent {
    reasons.sort_unstable();
    reasons.dedup();
    PunchEvent::ReferredForReview { reasons }
}

#[cfg(test)]
mod tests {
    use punchtrail_protocol::{DeviceId, PunchId, signing::Signature};
    use punchtrail_testkit::EXAMPLE;

    use super::*;
    use crate::punch::{Clock, PunchCommand};

    fn near(n: u128) -> Anomaly {
        Anomaly::NearDuplicate { of: PunchId(uuid::Uuid::from_u128(n)), apart_ms: 1_000 }
    }

    fn revise(person: &[Anomaly], beside: &[Anomaly]) -> PunchCommand {
        let (person, beside) = (person.to_vec(), beside.to_vec());
        PunchCommand::Revise { person, beside, verify_by: None }
    }

    fn judge(anomalies: &[Anomaly], verify_by: Option<Time>) -> PunchCommand {
        PunchCommand::Judge { anomalies: anomalies.to_vec(), verify_by }
    }

    const ACCEPT: PunchCommand = PunchCommand::Accept { reason: None, note: None };

    fn after(commands: impl IntoIterator<Item = PunchCommand>) -> Punch {
        let record = PunchCommand::Record {
            capture: EXAMPLE.into(),
            signature: Signature([0; 64]),
            device: DeviceId::NIL,
            received_at: Time::from_millis(0),
            clock: Clock::Unknown,
        };
        let mut punch = Punch::default();
        for command in [record].into_iter().chain(commands) {
            for event in punch.decide(command).unwrap() {
                punch.evolve(event);
            }
        }
        punch
    }

    #[test]
    fn the_last_doubt_that_goes_lets_it_be_accepted_and_another_keeps_it_referred() {
        let doubts = [near(1), Anomaly::Visitor];
        let one_left = after([judge(&doubts, None), revise(&[Anomaly::Visitor], &[])]);
        assert_eq!(one_left.standing(), Standing::Referred);
        assert_eq!(one_left.referred_for(), [Reason::Visitor]);
        let none_left = after([judge(&doubts, None), revise(&[], &[])]);
        assert_eq!(none_left.standing(), Standing::Accepted);
        assert_eq!(none_left.anomalies(), []);
    }

    #[test]
    fn of_a_kind_the_doubt_that_stands_is_kept_and_a_lost_one_replaced() {
        let doubted = after([judge(&[near(1)], None), revise(&[], &[near(2), near(1)])]);
        assert_eq!(doubted.anomalies(), [near(1)]);
        let replaced = after([judge(&[near(1)], None), revise(&[], &[near(2), near(3)])]);
        assert_eq!(replaced.anomalies(), [near(2)]);
        assert_eq!(replaced.standing(), Standing::Referred);
    }

    #[test]
    fn what_the_capture_itself_says_never_goes() {
        let doubts = [Anomaly::RevokedDevice, near(1)];
        let punch = after([judge(&doubts, None), revise(&[], &[])]);
        assert_eq!(punch.anomalies(), [Anomaly::RevokedDevice]);
        assert_eq!(punch.referred_for(), [Reason::RevokedDevice]);
    }

    #[test]
    fn a_ruling_stands_while_doubts_go_and_a_new_one_refers_again() {
        let ruled = after([judge(&[near(1)], None), ACCEPT]);
        let events = ruled.decide(revise(&[], &[])).unwrap();
        assert!(matches!(events[..], [PunchEvent::AnomalyWithdrawn { .. }]), "{events:?}");
        let again = after([judge(&[near(1)], None), ACCEPT, revise(&[Anomaly::Visitor], &[])]);
        assert_eq!(again.standing(), Standing::Referred);
        let back = after([
            judge(&[near(1)], None),
            ACCEPT,
            revise(&[Anomaly::Visitor], &[]),
            revise(&[], &[]),
        ]);
        assert_eq!((back.standing(), back.is_ruled()), (Standing::Accepted, true));
    }

    #[test]
    fn while_a_verdict_is_waited_for_it_waits_again() {
        let due_at = Some(Time::from_millis(9));
        let waits = after([judge(&[near(1)], due_at), revise(&[], &[])]);
        assert_eq!(waits.standing(), Standing::Recorded);
    }

    #[test]
    fn a_punch_that_is_out_of_the_count_keeps_its_doubts_right_and_stays_out() {
        let void = PunchCommand::Void { reason: None, note: None };
        let out = after([judge(&[near(1)], None), void, revise(&[Anomaly::Visitor], &[])]);
        assert_eq!(out.standing(), Standing::Voided);
        assert_eq!(out.anomalies(), [Anomaly::Visitor]);
    }
}
