//! What a batch of events adds to the figures. Pure: what was held before comes in, what is held
//! after comes out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use punchtrail_domain::{
    AggregateType, Event,
    dispute::DisputeEvent,
    punch::{Basis, Clock, PunchEvent},
    site::SiteEvent,
};
use punchtrail_infra::ledger::{Entry, give_way};
use punchtrail_protocol::{
    DisputeId, PunchId, SiteId, Time, dispute::DisputeCause, vocabulary::Reason,
};

use super::{DELAYS, LATER, counted};
use crate::engine::ProjectionError;

/// Events of a punch that say nothing here: passed over before they are decoded.
const ASIDE: [&str; 13] = [
    "AnomalyWithdrawn",
    "Identified",
    "Reassigned",
    "ShiftJoined",
    "ShiftParted",
    "Reinstated",
    "ReviewEscalated",
    "ConflictingCaptureReceived",
    "AnomalyFlagged",
    "VerificationRequested",
    "PhotoReceived",
    "PhotoRetaken",
    "PhotoErased",
];

/// Where a punch was made, and when by its device; an admitted one has no such time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub site: SiteId,
    pub captured_at: Option<Time>,
}

/// A dispute as it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disputed {
    pub site: SiteId,
    pub cause: DisputeCause,
    pub waits_since: Option<Timestamp>,
}

/// A punch that waits for a ruling, as it is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Referral {
    pub site: SiteId,
    pub reasons: BTreeSet<Reason>,
    pub amended: bool,
    /// Its doubts were taken back, and what follows says where it stands now.
    pub lifted: bool,
}

/// What the tables hold of what a batch is about.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub made: HashMap<PunchId, Made>,
    pub disputes: BTreeMap<DisputeId, Disputed>,
    pub referrals: BTreeMap<PunchId, Referral>,
    pub zones: HashMap<SiteId, String>,
}

/// Site, week, figure, code, detail.
pub(super) type Counter = (SiteId, Date, &'static str, &'static str, &'static str);

/// A time that a dispute was settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub dispute: DisputeId,
    pub sequence: u64,
    pub site: SiteId,
    pub week: Date,
    pub cause: DisputeCause,
    pub waited_ms: i64,
}

/// What a batch makes of the tables.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub counts: HashMap<Counter, i64>,
    pub waits: Vec<Wait>,
    pub disputes: BTreeMap<DisputeId, Disputed>,
    /// Those that waited before the batch, and are written anew or not at all.
    pub referrals_before: Vec<PunchId>,
    pub referrals: BTreeMap<PunchId, Referral>,
    pub sites: BTreeMap<SiteId, String>,
}

/// A batch's events that count, and what has to be known to count them.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    events: Vec<(&'a Entry, &'a Event)>,
    made: HashMap<PunchId, Made>,
    /// Punches of which the batch doesn't say where they were made.
    pub unknown: HashSet<PunchId>,
    /// Punches that may wait for a ruling.
    pub ruled: HashSet<PunchId>,
    pub disputes: HashSet<DisputeId>,
    /// Sites that the batch itself names.
    pub sites: HashSet<SiteId>,
}

impl<'a> Batch<'a> {
    pub(super) async fn of(events: &'a [Arc<Entry>]) -> Result<Self, ProjectionError> {
        let mut batch = Self::default();
        for (index, entry) in events.iter().enumerate() {
            give_way(index).await;
            if concerns(entry) {
                let event = entry.event()?;
                batch.look(entry, event);
                batch.events.push((entry, event));
            }
        }
        Ok(batch)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn look(&mut self, entry: &Entry, event: &Event) {
        match event {
            Event::Punch(punch, event) => self.look_at(*punch, entry, event),
            Event::Dispute(dispute, event) => {
                self.disputes.insert(*dispute);
                if let DisputeEvent::Opened { subject, .. } = event {
                    self.sites.insert(subject.site);
                }
            }
            _ => {}
        }
    }

    fn look_at(&mut self, punch: PunchId, entry: &Entry, event: &PunchEvent) {
        let made = match event {
            PunchEvent::Captured { .. } => entry
                .capture()
                .map(|capture| Made { site: capture.site, captured_at: Some(capture.captured_at) }),
            PunchEvent::Admitted { site, .. } | PunchEvent::Entered { site, .. } => {
                Some(Made { site: *site, captured_at: None })
            }
            PunchEvent::Accepted { .. }
            | PunchEvent::ReferralLifted {}
            | PunchEvent::Amended { .. }
            | PunchEvent::Rejected { .. }
            | PunchEvent::Voided { .. } => {
                self.ruled.insert(punch);
                return;
            }
            event => {
                if matches!(event, PunchEvent::ReferredForReview { .. }) {
                    self.ruled.insert(punch);
                }
                if !self.made.contains_key(&punch) {
                    self.unknown.insert(punch);
                }
                return;
            }
        };
        if let Some(made) = made {
            self.sites.insert(made.site);
            self.made.insert(punch, made);
        }
    }

    /// Counts the batch, event after event.
    pub(super) async fn fold(self, held: Held) -> Result<Folded, ProjectionError> {
        let Held { mut made, disputes, referrals, zones } = held;
        made.extend(self.made);
        let folded = Folded {
            referrals_before: referrals.keys().copied().collect(),
            disputes,
            referrals,
            ..Folded::default()
        };
        let mut folding = Folding { folded, made, weeks: Weeks::of(zones) };
        for (index, (entry, event)) in self.events.into_iter().enumerate() {
            give_way(index).await;
            match event {
                Event::Punch(punch, event) => folding.punch(*punch, entry, event),
                Event::Dispute(dispute, event) => folding.dispute(*dispute, entry, event)?,
                Event::Site(site, SiteEvent::Registered { tz }) => {
                    folding.weeks.know(*site, tz);
                    folding.folded.sites.insert(*site, tz.clone());
                }
                _ => {}
            }
        }
        Ok(folding.folded)
    }
}

fn concerns(entry: &Entry) -> bool {
    let recorded = &entry.recorded;
    let event_type = recorded.event_type.as_str();
    match recorded.aggregate_type {
        // As one in three events is, of a punch that was never referred.
        AggregateType::Punch if event_type == "Accepted" => recorded.sequence > 3,
        AggregateType::Punch => !ASIDE.contains(&event_type),
        AggregateType::Dispute => matches!(event_type, "Opened" | "Resolved" | "Reopened"),
        AggregateType::Site => event_type == "Registered",
        _ => false,
    }
}

struct Folding {
    folded: Folded,
    made: HashMap<PunchId, Made>,
    weeks: Weeks,
}

impl Folding {
    fn count(&mut self, site: SiteId, at: Timestamp, what: [&'static str; 3]) {
        let week = self.weeks.week(site, at);
        let [figure, code, detail] = what;
        *self.folded.counts.entry((site, week, figure, code, detail)).or_default() += 1;
    }

    fn punch(&mut self, punch: PunchId, entry: &Entry, event: &PunchEvent) {
        let at = entry.recorded.recorded_at;
        let mut count_made = |what| {
            if let Some(made) = self.made.get(&punch) {
                self.count(made.site, at, what);
            }
        };
        match event {
            PunchEvent::Captured { .. } => count_made([counted::CAPTURED, "", ""]),
            PunchEvent::VerificationSucceeded { check, .. } => {
                count_made([counted::MATCHED, check.provider.as_str(), ""]);
            }
            PunchEvent::VerificationFailed { check, failing, .. } => {
                let (provider, miss) = (check.provider.as_str(), failing.miss.as_str());
                count_made([counted::MISSED, provider, miss]);
            }
            PunchEvent::VerificationUnavailable { missing } => {
                count_made([counted::UNCHECKED, missing.as_str(), ""]);
            }
            PunchEvent::Synced { received_at, clock, .. } => {
                let made = self.made.get(&punch).copied();
                if let Some(Made { site, captured_at: Some(captured_at) }) = made {
                    let code = delay(captured_at, *received_at, *clock);
                    self.count(site, at, [counted::SYNC_DELAY, code, ""]);
                }
            }
            PunchEvent::ReferredForReview { reasons } => self.referred(punch, at, reasons),
            PunchEvent::Amended { .. } => {
                if let Some(referral) = self.folded.referrals.get_mut(&punch) {
                    referral.amended = true;
                }
            }
            PunchEvent::ReferralLifted {} => {
                if let Some(referral) = self.folded.referrals.get_mut(&punch) {
                    referral.lifted = true;
                }
            }
            PunchEvent::Accepted { basis, .. } => self.ruled(punch, at, |referral| match basis {
                // Nobody ruled on it: the doubts went by themselves.
                _ if referral.lifted => "withdrawn",
                Basis::Manager if referral.amended => "amended",
                Basis::Manager => "accepted",
                Basis::Verification | Basis::Policy => "verified",
            }),
            PunchEvent::Rejected { .. } => self.ruled(punch, at, |_| "rejected"),
            PunchEvent::Voided { .. } => self.ruled(punch, at, |_| "voided"),
            _ => {}
        }
    }

    fn referred(&mut self, punch: PunchId, at: Timestamp, reasons: &[Reason]) {
        let Some(Made { site, .. }) = self.made.get(&punch).copied() else { return };
        let referrals = &mut self.folded.referrals;
        let is_new = !referrals.contains_key(&punch);
        let fresh = Referral { site, reasons: BTreeSet::new(), amended: false, lifted: false };
        let referral = referrals.entry(punch).or_insert(fresh);
        if std::mem::take(&mut referral.lifted) {
            // It waits on for what is left.
            referral.reasons.retain(|reason| reasons.contains(reason));
        }
        let added: Vec<Reason> =
            reasons.iter().copied().filter(|reason| referral.reasons.insert(*reason)).collect();
        if is_new {
            self.count(site, at, [counted::REFERRED, "", ""]);
        }
        for reason in added {
            self.count(site, at, [counted::REFERRED, reason.as_str(), ""]);
        }
    }

    fn ruled(&mut self, punch: PunchId, at: Timestamp, how: impl Fn(&Referral) -> &'static str) {
        // What doesn't wait was ruled on before; a new ruling on it is none of a referral.
        let Some(referral) = self.folded.referrals.remove(&punch) else { return };
        let how = how(&referral);
        self.count(referral.site, at, [counted::RULED, how, ""]);
        for reason in referral.reasons {
            self.count(referral.site, at, [counted::RULED, how, reason.as_str()]);
        }
    }

    fn dispute(
        &mut self,
        dispute: DisputeId,
        entry: &Entry,
        event: &DisputeEvent,
    ) -> Result<(), ProjectionError> {
        let recorded = &entry.recorded;
        let at = recorded.recorded_at;
        if let DisputeEvent::Opened { subject, .. } = event {
            let (site, cause) = (subject.site, subject.cause);
            let opened = Disputed { site, cause, waits_since: Some(at) };
            self.folded.disputes.insert(dispute, opened);
            self.count(site, at, [counted::OPENED, cause.as_str(), ""]);
            return Ok(());
        }
        let Some(held) = self.folded.disputes.get_mut(&dispute) else {
            let what = "a dispute that changes is not in the model";
            return Err(ProjectionError::inconsistent(recorded.position, what));
        };
        let Disputed { site, cause, waits_since } = *held;
        match event {
            DisputeEvent::Resolved { how, .. } => {
                held.waits_since = None;
                let waited = at.duration_since(waits_since.unwrap_or(at));
                let waited_ms = i64::try_from(waited.as_millis()).unwrap_or(i64::MAX);
                let (sequence, week) = (recorded.sequence, self.weeks.week(site, at));
                let wait = Wait { dispute, sequence, site, week, cause, waited_ms };
                self.folded.waits.push(wait);
                self.count(site, at, [counted::RESOLVED, cause.as_str(), how.as_str()]);
            }
            DisputeEvent::Reopened { .. } => {
                held.waits_since = Some(at);
                self.count(site, at, [counted::REOPENED, cause.as_str(), ""]);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The bucket of how late a punch came, by its device's clock as far as that is known to have been
/// right.
fn delay(captured_at: Time, received_at: Time, clock: Clock) -> &'static str {
    let ahead_ms = clock.offset_ms().unwrap_or_default();
    let late_ms =
        i128::from(received_at.millis()) - i128::from(captured_at.millis()) + i128::from(ahead_ms);
    let within = |(at_most_s, _): &&(u64, &str)| late_ms <= i128::from(*at_most_s) * 1_000;
    DELAYS.iter().find(within).map_or(LATER, |(_, code)| *code)
}

/// In which week of a site's something falls. The last week of each site is remembered: most
/// events follow others of the same one.
struct Weeks {
    zones: HashMap<SiteId, TimeZone>,
    last: HashMap<SiteId, (Timestamp, Timestamp, Date)>,
}

impl Weeks {
    fn of(zones: HashMap<SiteId, String>) -> Self {
        let mut weeks = Self { zones: HashMap::new(), last: HashMap::new() };
        for (site, tz) in zones {
            weeks.know(site, &tz);
        }
        weeks
    }

    fn know(&mut self, site: SiteId, tz: &str) {
        // The zone was known when the site was registered.
        self.zones.insert(site, TimeZone::get(tz).unwrap_or(TimeZone::UTC));
        self.last.remove(&site);
    }

    fn week(&mut self, site: SiteId, at: Timestamp) -> Date {
        if let Some((from, until, week)) = self.last.get(&site)
            && (*from..*until).contains(&at)
        {
            return *week;
        }
        let zone = self.zones.get(&site).cloned().unwrap_or(TimeZone::UTC);
        let week = monday(zone.to_datetime(at).date());
        let begins = |date: Date| Some(date.to_zoned(zone.clone()).ok()?.timestamp());
        let next = week.checked_add(7.days()).ok();
        if let (Some(from), Some(until)) = (begins(week), next.and_then(begins)) {
            self.last.insert(site, (from, until, week));
        }
        week
    }
}

/// The Monday of a day's week.
pub(super) fn monday(date: Date) -> Date {
    date.saturating_sub(i32::from(date.weekday().to_monday_zero_offset()).days())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_begins_on_monday_in_the_sites_zone() {
        let (east, west) = (SiteId::NIL, SiteId(uuid::Uuid::from_u128(1)));
        let mut weeks = Weeks::of(HashMap::from([(east, "Pacific/Auckland".to_owned())]));
        weeks.know(west, "America/New_York");
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let date = |text: &str| text.parse::<Date>().unwrap();
        // Sunday in New York, Monday in Auckland; and once more from memory.
        for sunday in ["2026-11-22T23:00:00Z", "2026-11-22T23:30:00Z"] {
            assert_eq!(weeks.week(west, at(sunday)), date("2026-11-16"));
            assert_eq!(weeks.week(east, at(sunday)), date("2026-11-23"));
        }
        assert_eq!(weeks.week(west, at("2026-11-23T05:00:00Z")), date("2026-11-23"));
        assert_eq!(weeks.week(west, at("2026-11-23T04:59:59Z")), date("2026-11-16"));
        let unknown = SiteId(uuid::Uuid::from_u128(2));
        assert_eq!(weeks.week(unknown, at("2026-11-22T23:00:00Z")), date("2026-11-16"));
    }

    #[test]
    fn a_punch_is_late_by_the_true_time_where_it_is_known() {
        let late = |ms, clock| delay(Time::from_millis(0), Time::from_millis(ms), clock);
        assert_eq!(late(1_000, Clock::Unknown), "1");
        assert_eq!(late(1_001, Clock::Unknown), "5");
        assert_eq!(late(-9_000, Clock::Unknown), "1");
        assert_eq!(late(604_800_001, Clock::Unknown), LATER);
        // Its clock was an hour ahead: it was captured an hour earlier than it says.
        assert_eq!(late(1_000, Clock::Known { offset_ms: 3_590_000 }), "3600");
        assert_eq!(late(i64::MAX, Clock::Known { offset_ms: i64::MAX }), LATER);
    }
}
