//! The site's policy, and how it judges a punch: a pure function of what stood in the ledger up to the
//! punch's position. It never rejects. What it doubts, it refers to a person, and the punch counts
//! until that person has ruled.

use punchtrail_protocol::{PunchId, SiteId, Time, capture::PunchKind, wire::DevicePolicy};
use serde::{Deserialize, Serialize};

use crate::punch::Anomaly;

/// One day in seconds.
const DAY_S: u32 = 86_400;

/// How punches at a site are captured, delivered and judged. Durations are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The most items a device puts into one batch, 1 to 500.
    pub batch_max: u32,
    /// The rate at which a device drains, punches a minute, 1 to 60,000.
    pub punches_per_minute: u32,
    /// Over how long devices spread their first sync after a reconnect, 0 to 3,600.
    pub reconnect_spread_s: u32,
    /// How often a device reports, 5 to 86,400.
    pub heartbeat_s: u32,
    /// How long a device keeps what was acknowledged, 1 day to 1 year.
    pub restore_window_s: u32,
    /// Punches older than this on receipt are referred, 1 hour to 1 year.
    pub lookback_s: u32,
    /// A clock known to be off by more than this is suspect, 1 to 86,400.
    pub clock_suspect_s: u32,
    /// Two punches of one person and kind within this time are near-duplicates, 0 (off) to 3,600.
    pub near_duplicate_s: u32,
    /// Punches of one person at two sites within this time are doubted, 0 (off) to 86,400.
    pub travel_s: u32,
    /// Whether photos are taken.
    pub photos: bool,
    /// The kiosk's languages (BCP 47), the first is the default; 1 to 16.
    pub languages: Vec<String>,
    /// When the business day starts, in minutes after midnight, 0 to 1,439.
    pub day_starts_min: u32,
    /// The longest plausible shift; one open for longer is unmatched. 1 hour to 48 hours.
    pub shift_max_s: u32,
}

impl Default for Policy {
    fn default() -> Self {
        let told = DevicePolicy::default();
        Self {
            batch_max: told.batch_max,
            punches_per_minute: told.punches_per_minute,
            reconnect_spread_s: told.reconnect_spread_s,
            heartbeat_s: told.heartbeat_s,
            restore_window_s: told.restore_window_s,
            lookback_s: told.lookback_s,
            clock_suspect_s: told.clock_suspect_s,
            near_duplicate_s: told.near_duplicate_s,
            travel_s: 600,
            photos: told.photos,
            languages: told.languages,
            day_starts_min: 0,
            shift_max_s: 16 * 3_600,
        }
    }
}

/// A value of a policy that is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` must be from {min} to {max}")]
pub struct PolicyError {
    /// The field.
    pub field: &'static str,
    /// Its least value.
    pub min: u32,
    /// Its greatest value.
    pub max: u32,
}

impl Policy {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// Names the first that isn't.
    pub fn check(&self) -> Result<(), PolicyError> {
        let languages = u32::try_from(self.languages.len()).unwrap_or(u32::MAX);
        let ranges = [
            ("batch_max", self.batch_max, 1, 500),
            ("punches_per_minute", self.punches_per_minute, 1, 60_000),
            ("reconnect_spread_s", self.reconnect_spread_s, 0, 3_600),
            ("heartbeat_s", self.heartbeat_s, 5, DAY_S),
            ("restore_window_s", self.restore_window_s, DAY_S, 366 * DAY_S),
            ("lookback_s", self.lookback_s, 3_600, 366 * DAY_S),
            ("clock_suspect_s", self.clock_suspect_s, 1, DAY_S),
            ("near_duplicate_s", self.near_duplicate_s, 0, 3_600),
            ("travel_s", self.travel_s, 0, DAY_S),
            ("languages", languages, 1, 16),
            ("day_starts_min", self.day_starts_min, 0, 1_439),
            ("shift_max_s", self.shift_max_s, 3_600, 48 * 3_600),
        ];
        match ranges.into_iter().find(|&(_, value, min, max)| value < min || value > max) {
            Some((field, _, min, max)) => Err(PolicyError { field, min, max }),
            None => Ok(()),
        }
    }

    /// How far around a punch its neighbours must be known, in milliseconds.
    pub fn neighbourhood_ms(&self) -> i64 {
        i64::from(self.near_duplicate_s.max(self.travel_s)) * 1_000
    }
}

impl From<&Policy> for DevicePolicy {
    fn from(policy: &Policy) -> Self {
        Self {
            batch_max: policy.batch_max,
            punches_per_minute: policy.punches_per_minute,
            reconnect_spread_s: policy.reconnect_spread_s,
            heartbeat_s: policy.heartbeat_s,
            restore_window_s: policy.restore_window_s,
            lookback_s: policy.lookback_s,
            clock_suspect_s: policy.clock_suspect_s,
            near_duplicate_s: policy.near_duplicate_s,
            photos: policy.photos,
            languages: policy.languages.clone(),
        }
    }
}

/// What the ledger knew of a person when a punch was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    /// Known and not departed.
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
    /// The punch.
    pub punch: PunchId,
    /// Where.
    pub site: SiteId,
    /// What it says.
    pub kind: PunchKind,
    /// When, by the device.
    pub captured_at: Time,
    /// When it reached the server.
    pub received_at: Time,
    /// The device clock's known lead, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// Who.
    pub person: Person,
    /// Whether the device had been revoked.
    pub device_revoked: bool,
    /// The sequence number and the punch that held it before, when it was used already.
    pub fork: Option<(u64, Option<PunchId>)>,
}

/// Another punch of the same person, captured not far from the one judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The punch.
    pub punch: PunchId,
    /// Where.
    pub site: SiteId,
    /// What it says.
    pub kind: PunchKind,
    /// When, by its device.
    pub captured_at: Time,
    /// Whether it was voided.
    pub voided: bool,
}

/// What a judgement found: doubts about the punch itself, and about neighbours captured after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// Doubts about the punch.
    pub own: Vec<Anomaly>,
    /// Doubts about others, which this punch gave rise to.
    pub others: Vec<(PunchId, Anomaly)>,
}

/// Judges a punch under `policy`, beside the neighbours that stood in the ledger before it.
///
/// Of two that stand too close, the later captured is doubted (tie: the higher id), whichever came
/// first: so the order of arrival decides nothing.
pub fn judge(policy: &Policy, facts: &Facts, neighbours: &[Neighbour]) -> Judgement {
    let mut judgement = Judgement { own: doubts(policy, facts), others: Vec::new() };
    let this = Neighbour {
        punch: facts.punch,
        site: facts.site,
        kind: facts.kind,
        captured_at: facts.captured_at,
        voided: false,
    };
    for other in neighbours.iter().filter(|other| !other.voided && other.punch != facts.punch) {
        let this_is_later = (this.captured_at, this.punch) > (other.captured_at, other.punch);
        let (earlier, later) = if this_is_later { (other, &this) } else { (&this, other) };
        for anomaly in between(policy, earlier, later) {
            if this_is_later {
                judgement.own.push(anomaly);
            } else {
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
    if let Some(offset_ms) = facts.clock_offset_ms.filter(|offset| offset.abs() > tolerated_ms) {
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

    #[test]
    fn a_policy_out_of_range_names_its_field() {
        assert_eq!(Policy::default().check(), Ok(()));
        let wrong = Policy { batch_max: 501, ..Policy::default() };
        assert_eq!(wrong.check(), Err(PolicyError { field: "batch_max", min: 1, max: 500 }));
    }
}
