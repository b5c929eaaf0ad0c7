//! How a policy judges a punch: a pure function of what stood in the ledger up to the punch's
//! position. It never rejects. What it doubts, it refers to a person, and the punch counts until
//! that person has ruled.

use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time, capture::PunchKind};

use super::Policy;
use crate::punch::Anomaly;

/// What the ledger knows of who made a punch, as of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    Known {
        /// When they had left, if they were gone then.
        departed_at: Option<Time>,
        /// Who held the badge by which the device knew them, if it was somebody else's by then;
        /// none within where that can't be said.
        other_holder: Option<Option<EmployeeId>>,
        /// Whether they were assigned to the site.
        assigned: bool,
    },
    /// An id that this ledger has never seen.
    Unknown,
    /// Only a badge that was nobody's, or not exactly one person's.
    BadgeOnly,
}

impl Person {
    /// Known, and nothing is odd about them.
    pub const KNOWN: Self = Self::Known { departed_at: None, other_holder: None, assigned: true };
}

/// Everything about one punch that its judgement rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub punch: PunchId,
    pub site: SiteId,
    pub kind: PunchKind,
    pub captured_at: Time,
    /// When it truly was made, as far as the device's clock is known.
    pub true_at: Time,
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

/// Another punch of the same person, made not far from the one judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    pub punch: PunchId,
    pub site: SiteId,
    pub kind: PunchKind,
    /// When it truly was made, as far as its device's clock is known.
    pub true_at: Time,
    /// Whether it is out of the count: no doubt rests on it.
    pub out: bool,
    /// What it is doubted for already, because of another neighbour.
    pub doubted: Doubted,
}

/// The doubts about a punch that its neighbours give rise to: one of a kind is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doubted {
    pub near_duplicate: bool,
    pub two_sites: bool,
    pub opposite_kind: bool,
}

impl Doubted {
    /// The doubts among these that neighbours give rise to.
    pub fn of<'a>(anomalies: impl IntoIterator<Item = &'a Anomaly>) -> Self {
        let mut doubted = Self::default();
        for anomaly in anomalies {
            doubted.takes(anomaly);
        }
        doubted
    }

    /// Whether the doubt is the first of its kind; from now on it isn't.
    pub fn takes(&mut self, anomaly: &Anomaly) -> bool {
        let known = match anomaly {
            Anomaly::NearDuplicate { .. } => &mut self.near_duplicate,
            Anomaly::TwoSites { .. } => &mut self.two_sites,
            Anomaly::OppositeKind { .. } => &mut self.opposite_kind,
            _ => return true,
        };
        !std::mem::replace(known, true)
    }
}

/// What a judgement found: doubts about the punch itself, and about neighbours made after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    pub own: Vec<Anomaly>,
    /// Until when a verdict on its picture is waited for; none where faces aren't checked.
    pub verify_by: Option<Time>,
    /// Doubts about others, which this punch gave rise to.
    pub others: Vec<(PunchId, Anomaly)>,
}

/// How many neighbours of a punch are looked at, of those made before it and of those after: the
/// nearest. A person who punches more often than that within the policy's times has been doubted
/// for it.
pub const NEIGHBOURS_MAX: usize = 100;

/// Judges a punch by the policies that hold at a site at a time, beside the neighbours that stood
/// in the ledger before it: at most [`NEIGHBOURS_MAX`] to each side, the nearest first.
///
/// Of two that stand too close, the later made is doubted (tie: the higher id), by the policy that
/// held for it, whichever came first: so the order of arrival decides nothing. The nearest that
/// came before it gives the doubt, and one doubt of a kind is enough, so that many punches of one
/// person make as many doubts and not as many as they have pairs.
pub fn judge<'p>(
    policy_of: impl Fn(SiteId, Time) -> &'p Policy,
    facts: &Facts,
    neighbours: &[Neighbour],
) -> Judgement {
    let policy = policy_of(facts.site, facts.true_at);
    let mut own = about_itself(policy, facts);
    own.extend(about_person(policy, facts));
    let mut judgement = Judgement { own, verify_by: verify_by(policy, facts), others: Vec::new() };
    let this = facts.as_neighbour();
    let mut doubted = Doubted::default();
    for other in others(facts, neighbours) {
        if this.is_after(other) {
            let found = between(policy, other, &this);
            judgement.own.extend(found.into_iter().filter(|anomaly| doubted.takes(anomaly)));
        } else {
            let found = between(policy_of(other.site, other.true_at), &this, other);
            let mut known = other.doubted;
            let new = found.into_iter().filter(|anomaly| known.takes(anomaly));
            judgement.others.extend(new.map(|anomaly| (other.punch, anomaly)));
        }
    }
    judgement
}

/// Every doubt that neighbours made before it give a punch now, the nearest first.
pub fn doubts_beside(policy: &Policy, facts: &Facts, neighbours: &[Neighbour]) -> Vec<Anomaly> {
    let this = facts.as_neighbour();
    let before = others(facts, neighbours).filter(|other| this.is_after(other));
    before.flat_map(|other| between(policy, other, &this)).collect()
}

/// Every doubt about who made it.
pub fn about_person(policy: &Policy, facts: &Facts) -> Vec<Anomaly> {
    match facts.person {
        Person::BadgeOnly => vec![Anomaly::UnknownBadge],
        Person::Unknown => vec![Anomaly::UnknownEmployee],
        Person::Known { departed_at, other_holder, assigned } => {
            let departed = departed_at.map(|departed_at| Anomaly::DepartedWorker { departed_at });
            let other = other_holder.map(|holder| Anomaly::OtherHolder { holder });
            let visitor = (policy.refer_visitors && !assigned).then_some(Anomaly::Visitor);
            departed.into_iter().chain(other).chain(visitor).collect()
        }
    }
}

/// Until when a verdict on its picture is waited for.
pub fn verify_by(policy: &Policy, facts: &Facts) -> Option<Time> {
    let deadline_ms = i64::from(policy.face_deadline_s) * 1_000;
    (policy.faces && facts.compares).then(|| facts.received_at.plus_millis(deadline_ms))
}

impl Facts {
    fn as_neighbour(&self) -> Neighbour {
        let Self { punch, site, kind, true_at, .. } = *self;
        Neighbour { punch, site, kind, true_at, out: false, doubted: Doubted::default() }
    }
}

impl Neighbour {
    fn is_after(&self, other: &Self) -> bool {
        (self.true_at, self.punch) > (other.true_at, other.punch)
    }
}

fn others<'n>(
    facts: &Facts,
    neighbours: &'n [Neighbour],
) -> impl Iterator<Item = &'n Neighbour> + use<'n> {
    let punch = facts.punch;
    neighbours.iter().filter(move |other| !other.out && other.punch != punch)
}

fn about_itself(policy: &Policy, facts: &Facts) -> Vec<Anomaly> {
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
    if facts.device_revoked {
        found.push(Anomaly::RevokedDevice);
    }
    if age_ms > i64::from(policy.lookback_s) * 1_000 {
        found.push(Anomaly::BeyondLookback { age_ms });
    }
    found
}

fn between(policy: &Policy, earlier: &Neighbour, later: &Neighbour) -> Vec<Anomaly> {
    let apart_ms = later.true_at.millis_since(earlier.true_at);
    let within = |limit_s: u32| limit_s > 0 && apart_ms <= i64::from(limit_s) * 1_000;
    let mut found = Vec::new();
    if earlier.kind == later.kind && within(policy.near_duplicate_s) {
        found.push(Anomaly::NearDuplicate { of: earlier.punch, apart_ms });
    }
    // At one instant a shift ends and another begins.
    if are_opposite(earlier.kind, later.kind) && apart_ms > 0 && within(policy.opposite_kind_s) {
        found.push(Anomaly::OppositeKind { of: earlier.punch, apart_ms });
    }
    if earlier.site != later.site && within(policy.travel_s) {
        found.push(Anomaly::TwoSites { other: earlier.punch, site: earlier.site, apart_ms });
    }
    found
}

const fn are_opposite(a: PunchKind, b: PunchKind) -> bool {
    use PunchKind::{BreakEnd, BreakStart, In, Out};
    matches!((a, b), (In, Out) | (Out, In) | (BreakStart, BreakEnd) | (BreakEnd, BreakStart))
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
            true_at: Time::from_millis(captured_ms),
            received_at: Time::from_millis(NOON_MS),
            clock_offset_ms: Some(0),
            person: Person::KNOWN,
            compares: false,
            device_revoked: false,
            fork: None,
        }
    }

    fn neighbour(of: &Facts) -> Neighbour {
        of.as_neighbour()
    }

    fn judged(policy: &Policy, facts: &Facts, neighbours: &[Neighbour]) -> Judgement {
        judge(|_, _| policy, facts, neighbours)
    }

    fn alone(change: impl FnOnce(&mut Facts)) -> Vec<Anomaly> {
        let mut facts = facts(1, NOON_MS - 1_000);
        change(&mut facts);
        judged(&Policy::default(), &facts, &[]).own
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
        assert_eq!(judged(&faces, &agreed, &[]).verify_by, Some(due_at));
        assert_eq!(judged(&faces, &facts(1, NOON_MS), &[]), Judgement::default());
        assert_eq!(judged(&Policy::default(), &agreed, &[]).verify_by, None);
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
        let known = |departed_at, other_holder| {
            let assigned = true;
            Person::Known { departed_at, other_holder, assigned }
        };
        assert_eq!(
            alone(|f| f.person = known(Some(left), None)),
            [Anomaly::DepartedWorker { departed_at: left }]
        );
        assert_eq!(
            alone(|f| f.person = known(None, Some(None))),
            [Anomaly::OtherHolder { holder: None }]
        );
    }

    #[test]
    fn of_two_close_ones_the_later_captured_is_doubted_whichever_came_first() {
        let (a, b) = (facts(1, NOON_MS - 60_000), facts(2, NOON_MS));
        let doubt = Anomaly::NearDuplicate { of: a.punch, apart_ms: 60_000 };
        let policy = Policy::default();
        assert_eq!(judged(&policy, &b, &[neighbour(&a)]).own, std::slice::from_ref(&doubt));
        let found = judged(&policy, &a, &[neighbour(&b)]);
        assert_eq!((found.own, found.others), (vec![], vec![(b.punch, doubt)]));
    }

    #[test]
    fn one_doubt_of_a_kind_is_enough_however_many_neighbours_there_are() {
        let policy = Policy::default();
        let crowd: Vec<_> = (1..50).map(|n| facts(n, NOON_MS - 1_000 * n as i64)).collect();
        let last = facts(99, NOON_MS);
        let before: Vec<_> = crowd.iter().map(neighbour).collect();
        let own = judged(&policy, &last, &before).own;
        assert_eq!(own, [Anomaly::NearDuplicate { of: crowd[0].punch, apart_ms: 1_000 }]);
        let first = facts(100, NOON_MS - 55_000);
        let doubted = Doubted { near_duplicate: true, ..Doubted::default() };
        let after: Vec<_> = before.iter().map(|n| Neighbour { doubted, ..*n }).collect();
        assert_eq!(judged(&policy, &first, &after), Judgement::default());
        assert_eq!(judged(&policy, &first, &before).others.len(), before.len());
    }

    #[test]
    fn a_tie_goes_by_id_and_a_voided_neighbour_is_none() {
        let (a, b) = (facts(1, NOON_MS), facts(2, NOON_MS));
        let policy = Policy::default();
        assert_eq!(judged(&policy, &b, &[neighbour(&a)]).own.len(), 1);
        assert_eq!(judged(&policy, &a, &[neighbour(&b)]).own.len(), 0);
        let voided = Neighbour { out: true, ..neighbour(&a) };
        assert_eq!(judged(&policy, &b, &[voided]), Judgement::default());
    }

    #[test]
    fn one_reading_taken_twice_is_doubted_and_a_change_at_one_instant_is_not() {
        let a = facts(1, NOON_MS - 8_000);
        let out = |ms| Facts { kind: PunchKind::Out, ..facts(2, ms) };
        let own = judged(&Policy::default(), &out(NOON_MS), &[neighbour(&a)]).own;
        assert_eq!(own, [Anomaly::OppositeKind { of: a.punch, apart_ms: 8_000 }]);
        let at_once = judged(&Policy::default(), &out(NOON_MS - 8_000), &[neighbour(&a)]).own;
        assert_eq!(at_once, []);
    }

    #[test]
    fn a_visitor_is_referred_where_the_site_asks_for_it() {
        let visits = |refer_visitors| {
            let person = Person::Known { departed_at: None, other_holder: None, assigned: false };
            let policy = Policy { refer_visitors, ..Policy::default() };
            judged(&policy, &Facts { person, ..facts(1, NOON_MS) }, &[]).own
        };
        assert_eq!((visits(false), visits(true)), (vec![], vec![Anomaly::Visitor]));
    }

    #[test]
    fn two_sites_within_the_travel_time_are_doubted_whatever_the_kind() {
        let a = facts(1, NOON_MS - 600_000);
        let mut b = facts(2, NOON_MS);
        b.site = SiteId(Uuid::from_u128(9));
        b.kind = PunchKind::Out;
        let own = judged(&Policy::default(), &b, &[neighbour(&a)]).own;
        assert_eq!(own, [Anomaly::TwoSites { other: a.punch, site: a.site, apart_ms: 600_000 }]);
    }
}
