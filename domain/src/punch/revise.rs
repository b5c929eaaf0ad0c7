//! Judging a punch anew: what a doubt rested on may be gone, and what nobody knew may be known.

use punchtrail_protocol::{Time, vocabulary::Reason};

use super::{Anomaly, Basis, Punch, PunchError, PunchEvent, pictures::Finding};
use punchtrail_protocol::vocabulary::Standing;

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
