//! How a policy judges a punch: a pure function of what stood in the ledger up to the punch's
//! position. It never rejects. What it doubts, it refers to a person, and the punch counts until
//! that person has ruled.

use punchtrail_protocol::{PunchId, SiteId, Time, capture::PunchKind};

use super::Policy;
use crate::punch::Anomaly;

/// What the ledger knew of a person when a punch was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    Known,
    /// Known, and departed then.
    Departed(Time),
    /// An id that this ledger has never seen.
    Unknown,
    /// Only a badge that the device didn't know.
    BadgeOnly,
}

/// Everything about one punch that its judgement rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub punch: PunchId,
    pub site: SiteId,
    pub kind: PunchKind,
    pub captured_at: Time,
    /// When it reached the server.
    pub received_at: Time,
    /// The device clock's known lead, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    pub person: Person,
    /// Whether they had agreed that their face is compared, and with something.
    pub compares: bool,
    /// Whether the device had been revoked.
    pub device_revoked: bool,
    /// The sequence number and the punch that held it before, when it was used already.
    pub fork: Option<(u64, Option<PunchId>)>,
}

/// Another punch of the same person, captured not far from the one judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    pub punch: PunchId,
    pub site: SiteId,
    pub kind: PunchKind,
    pub captured_at: Time,
    pub voided: bool,
    /// What it is doubted for already, because of another neighbour.
    pub doubted: Doubted,
}

/// The doubts about a punch that its neighbours give rise to: one of a kind is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doubted {
    pub near_duplicate: bool,
    pub two_sites: bool,
}

impl Doubted {
    /// Whether the doubt is the first of its kind; from now on it isn't.
    pub fn takes(&mut self, anomaly: &Anomaly) -> bool {
        let known = match anomaly {
            Anomaly::NearDuplicate { .. } => &mut self.near_duplicate,
            Anomaly::TwoSites { .. } => &mut self.two_sites,
            _ => return true,
        };
        !std::mem::replace(known, true)
    }
}

/// What a judgement found: doubts about the punch itself, and about neighbours captured after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    pub own: Vec<Anomaly>,
    /// Until when a verdict on its picture is waited for; none where faces aren't checked.
    pub verify_by: Option<Time>,
    /// Doubts about others, which this punch gave rise to.
    pub others: Vec<(PunchId, Anomaly)>,
}

/// How many neighbours of a punch are looked at, of those captured before it and of those after:
/// the nearest. A person who punches more often than that within the policy's times has been
/// doubted for it.
pub const NEIGHBOURS_MAX: usize = 100;

/// Judges a punch under `policy`, beside the neighbours that stood in the ledger before it: at most
/// [`NEIGHBOURS_MAX`] to each side, the nearest first.
///
/// Of two that stand too close, the later captured is doubted (tie: the higher id), whichever came
/// first: so the order of arrival decides nothing. The nearest that came before it gives the doubt,
/// and one doubt of a kind is enough, so that many punches of one person make as many doubts and
/// not as many as they have pairs.
pub fn judge(policy: &Policy, facts: &Facts, neighbours: &[Neighbour]) -> Judgement {
    let deadline_ms = i64::from(policy.face_deadline_s) * 1_000;
    let verify_by =
        (policy.faces && facts.compares).then(|| facts.received_at.plus_millis(deadline_ms));
    let mut judgement = Judgement { own: doubts(policy, facts), verify_by, others: Vec::new() };
    let this = Neighbour {
        punch: facts.punch,
        site: facts.site,
        kind: facts.kind,
        captured_at: facts.captured_at,
        voided: false,
        doubted: Doubted::default(),
    };
    let mut own = Doubted::default();
    for other in neighbours.iter().filter(|other| !other.voided && other.punch != facts.punch) {
        let this_is_later = (this.captured_at, this.punch) > (other.captured_at, other.punch);
        let (earlier, later) = if this_is_later { (other, &this) } else { (&this, other) };
        for anomaly in between(policy, earlier, later) {
            if this_is_later && own.takes(&anomaly) {
                judgement.own.push(anomaly);
            } else if !this_is_later && { other.doubted }.takes(&anomaly) {
                judgement.others.push((other.punch, anomaly));
            }
        }
    }
    judgement
}

fn doubts(policy: &Policy, facts: &Facts) -> Vec<Anomaly> {
    let mut found = Vec::new();
    let tolerated_ms = i64::from(policy.clock_suspect_s) * 1_000;
    let age_ms = facts.received_at.millis_since(facts.captured_at);
    if let Some((seq, other)) = facts.fork {
        found.push(Anomaly::Fork { seq, other });
    }
    if let Some(offset_ms) =
        facts.clock_offset_ms.filter(|offset| offset.saturating_abs() > tolerated_ms)
    {
        found.push(Anomaly::ClockSuspect { offset_ms });
    }
    if -age_ms > tolerated_ms {
        found.push(Anomaly::InFuture { ahead_ms: -age_ms });
    }
    match facts.person {
        Person::Known => {}
        Person::BadgeOnly => found.push(Anomaly::UnknownBadge),
        Person::Unknown => found.push(Anomaly::UnknownEmployee),
        Person::Departed(departed_at) if departed_at < facts.captured_at => {
            found.push(Anomaly::DepartedWorker { departed_at });
        }
        Person::Departed(_) => {}
    }
    if facts.device_revoked {
        found.push(Anomaly::RevokedDevice);
    }
    if age_ms > i64::from(policy.lookback_s) * 1_000 {
        found.push(Anomaly::BeyondLookback { age_ms });
    }
    found
}

fn between(policy: &Policy, earlier: &Neighbour, later: &Neighbour) -> Vec<Anomaly> {
    let apart_ms = later.captured_at.millis_since(earlier.captured_at);
    let within = |limit_s: u32| limit_s > 0 && apart_ms <= i64::from(limit_s) * 1_000;
    let mut found = Vec::new();
    if earlier.kind == later.kind && within(policy.near_duplicate_s) {
        found.push(Anomaly::NearDuplicate { of: earlier.punch, apart_ms });
    }
    if earlier.site != later.site && within(policy.travel_s) {
        found.push(Anomaly::TwoSites { other: earlier.punch, site: earlier.site, apart_ms });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const NOON_MS: i64 = 1_800_000_000_000;

    fn facts(id: u128, captured_ms: i64) -> Facts {
        Facts {
            punch: PunchId(Uuid::from_u128(id)),
            site: SiteId::NIL,
            kind: PunchKind::In,
            captured_at: Time::from_millis(captured_ms),
            received_at: Time::from_millis(NOON_MS),
            clock_offset_ms: Some(0),
            person: Person::Known,
            compares: false,
            device_revoked: false,
            fork: None,
        }
    }

    fn neighbour(of: &Facts) -> Neighbour {
        Neighbour {
            punch: of.punch,
            site: of.site,
            kind: of.kind,
            captured_at: of.captured_at,
            voided: false,
            doubted: Doubted::default(),
        }
    }

    fn alone(change: impl FnOnce(&mut Facts)) -> Vec<Anomaly> {
        let mut facts = facts(1, NOON_MS - 1_000);
        change(&mut facts);
        judge(&Policy::default(), &facts, &[]).own
    }

    #[test]
    fn nothing_doubtful_is_no_doubt_and_an_unknown_clock_alone_is_none() {
        assert_eq!(alone(|_| {}), []);
        assert_eq!(alone(|f| f.clock_offset_ms = None), []);
    }

    #[test]
    fn a_face_is_checked_where_the_site_does_and_the_person_agreed() {
        let faces = Policy { faces: true, ..Policy::default() };
        let agreed = Facts { compares: true, ..facts(1, NOON_MS) };
        let due_at = Time::from_millis(NOON_MS + 4 * 3_600_000);
        assert_eq!(judge(&faces, &agreed, &[]).verify_by, Some(due_at));
        assert_eq!(judge(&faces, &facts(1, NOON_MS), &[]), Judgement::default());
        assert_eq!(judge(&Policy::default(), &agreed, &[]).verify_by, None);
    }

    #[test]
    fn each_doubt_is_found_beyond_its_limit_and_not_at_it() {
        assert_eq!(alone(|f| f.clock_offset_ms = Some(120_000)), []);
        assert_eq!(
            alone(|f| f.clock_offset_ms = Some(-120_001)),
            [Anomaly::ClockSuspect { offset_ms: -120_001 }]
        );
        assert_eq!(alone(|f| f.captured_at = Time::from_millis(NOON_MS + 120_000)), []);
        assert_eq!(
            alone(|f| f.captured_at = Time::from_millis(NOON_MS + 120_001)),
            [Anomaly::InFuture { ahead_ms: 120_001 }]
        );
        let month_ms = 2_592_000_000;
        assert_eq!(alone(|f| f.captured_at = Time::from_millis(NOON_MS - month_ms)), []);
        assert_eq!(
            alone(|f| f.captured_at = Time::from_millis(NOON_MS - month_ms - 1)),
            [Anomaly::BeyondLookback { age_ms: month_ms + 1 }]
        );
        assert_eq!(alone(|f| f.person = Person::BadgeOnly), [Anomaly::UnknownBadge]);
        assert_eq!(alone(|f| f.person = Person::Unknown), [Anomaly::UnknownEmployee]);
        assert_eq!(alone(|f| f.device_revoked = true), [Anomaly::RevokedDevice]);
        assert_eq!(alone(|f| f.fork = Some((7, None))), [Anomaly::Fork { seq: 7, other: None }]);
        let left = Time::from_millis(NOON_MS - 2_000);
        assert_eq!(
            alone(|f| f.person = Person::Departed(left)),
            [Anomaly::DepartedWorker { departed_at: left }]
        );
        assert_eq!(alone(|f| f.person = Person::Departed(Time::from_millis(NOON_MS))), []);
    }

    #[test]
    fn of_two_close_ones_the_later_captured_is_doubted_whichever_came_first() {
        let (a, b) = (facts(1, NOON_MS - 60_000), facts(2, NOON_MS));
        let doubt = Anomaly::NearDuplicate { of: a.punch, apart_ms: 60_000 };
        let policy = Policy::default();
        assert_eq!(judge(&policy, &b, &[neighbour(&a)]).own, std::slice::from_ref(&doubt));
        let judged = judge(&policy, &a, &[neighbour(&b)]);
        assert_eq!((judged.own, judged.others), (vec![], vec![(b.punch, doubt)]));
    }

    #[test]
    fn one_doubt_of_a_kind_is_enough_however_many_neighbours_there_are() {
        let policy = Policy::default();
        let crowd: Vec<_> = (1..50).map(|n| facts(n, NOON_MS - 1_000 * n as i64)).collect();
        let last = facts(99, NOON_MS);
        let before: Vec<_> = crowd.iter().map(neighbour).collect();
        let own = judge(&policy, &last, &before).own;
        assert_eq!(own, [Anomaly::NearDuplicate { of: crowd[0].punch, apart_ms: 1_000 }]);
        let first = facts(100, NOON_MS - 55_000);
        let doubted = Doubted { near_duplicate: true, two_sites: false };
        let after: Vec<_> = before.iter().map(|n| Neighbour { doubted, ..*n }).collect();
        assert_eq!(judge(&policy, &first, &after), Judgement::default());
        assert_eq!(judge(&policy, &first, &before).others.len(), before.len());
    }

    #[test]
    fn a_tie_goes_by_id_and_a_voided_neighbour_is_none() {
        let (a, b) = (facts(1, NOON_MS), facts(2, NOON_MS));
        let policy = Policy::default();
        assert_eq!(judge(&policy, &b, &[neighbour(&a)]).own.len(), 1);
        assert_eq!(judge(&policy, &a, &[neighbour(&b)]).own.len(), 0);
        let voided = Neighbour { voided: true, ..neighbour(&a) };
        assert_eq!(judge(&policy, &b, &[voided]), Judgement::default());
    }

    #[test]
    fn two_sites_within_the_travel_time_are_doubted_whatever_the_kind() {
        let a = facts(1, NOON_MS - 600_000);
        let mut b = facts(2, NOON_MS);
        b.site = SiteId(Uuid::from_u128(9));
        b.kind = PunchKind::Out;
        let own = judge(&Policy::default(), &b, &[neighbour(&a)]).own;
        assert_eq!(own, [Anomaly::TwoSites { other: a.punch, site: a.site, apart_ms: 600_000 }]);
    }
}
