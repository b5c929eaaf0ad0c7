//! What a ruling would do to a person's hours, before it is made: the days' sums as they are, and
//! as they would be, paired from the same punches.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use punchtrail_domain::timecard::{
    CountedAs, TimecardPunch, Totals, business_day, days_touched, punches_needed, timecards,
};
use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::{
    EmployeeId, PunchId, SiteId, Time, capture::PunchKind, vocabulary::Standing,
};
use serde::Serialize;
use uuid::Uuid;

use super::{
    row::PunchView,
    timecards::{TimecardsError, read},
};
use crate::sites::PairingPolicies;

/// What a punch would be of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub punch: PunchId,
    pub site: SiteId,
    /// None: it wouldn't count, or not for them.
    pub counted_as: Option<CountedAs>,
    pub effective_at: Time,
    pub kind: PunchKind,
}

impl Outcome {
    /// As the punch stands, but accepted.
    pub const fn accepted(view: &PunchView) -> Self {
        let PunchView { punch, site, effective_at, kind, .. } = *view;
        Self { punch, site, counted_as: Some(CountedAs::Accepted), effective_at, kind }
    }

    /// Out of the count, or no more theirs.
    pub const fn out(view: &PunchView) -> Self {
        Self { counted_as: None, ..Self::accepted(view) }
    }

    /// As it would count of whoever is found to have made it: whoever says so has ruled that a
    /// doubtful one counts.
    pub fn found(view: &PunchView) -> Self {
        let counted_as = match view.standing {
            Standing::Recorded => Some(CountedAs::Provisional),
            standing => standing.counts().then_some(CountedAs::Accepted),
        };
        Self { counted_as, ..Self::accepted(view) }
    }
}

/// A business day's hours, now and after a ruling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DayPreview {
    /// The business day, `YYYY-MM-DD`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Date))]
    pub day: Date,
    pub now: Hours,
    pub then: Hours,
}

/// Whole minutes worked, rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hours {
    /// Between accepted punches.
    pub accepted_min: u64,
    /// Resting on a punch that a person has yet to rule on.
    pub provisional_min: u64,
}

impl From<Totals> for Hours {
    fn from(totals: Totals) -> Self {
        Self {
            accepted_min: totals.worked_accepted_min(),
            provisional_min: totals.worked_provisional_min(),
        }
    }
}

/// A person's punches around some: all that the days need which a ruling on these can change.
#[derive(Debug)]
pub struct Surroundings {
    punches: Vec<TimecardPunch>,
    policies: PairingPolicies,
}

impl Surroundings {
    /// Reads them: around each of these, where it would lie and where it lies now.
    ///
    /// # Errors
    /// See [`TimecardsError`].
    pub async fn of(
        pool: &Pool,
        employee: EmployeeId,
        outcomes: &[Outcome],
        now: &[Time],
    ) -> Result<Self, TimecardsError> {
        let sites = outcomes.iter().map(|outcome| outcome.site);
        let policies = policies_of(pool, employee, sites).await?;
        let times = outcomes.iter().map(|outcome| outcome.effective_at);
        let mut windows: Vec<(Time, Time)> = times
            .chain(now.iter().copied())
            .flat_map(|at| policies.all().map(move |policy| (at, policy)))
            .map(|(at, policy)| {
                let (first, last) = days_touched(at, policy);
                punches_needed(first, last, policy)
            })
            .collect();
        windows.sort_unstable();
        let mut punches = BTreeMap::new();
        for (from, to) in joined(windows) {
            let found = read(pool, &[employee.uuid()], from, to, &policies).await?;
            let found = found.into_values().flatten();
            punches.extend(found.map(|punch| (punch.punch, punch)));
        }
        Ok(Self { punches: punches.into_values().collect(), policies })
    }

    /// The days whose hours these outcomes change, and those that the punches themselves lie on
    /// now and would lie on, in order.
    pub fn preview(&self, outcomes: &[Outcome]) -> Vec<DayPreview> {
        let known: BTreeMap<PunchId, &TimecardPunch> =
            self.punches.iter().map(|known| (known.punch, known)).collect();
        let ruled: BTreeSet<PunchId> = outcomes.iter().map(|outcome| outcome.punch).collect();
        let mut then = self.punches.clone();
        then.retain(|known| !ruled.contains(&known.punch));
        let (mut own, mut touched) = (BTreeSet::new(), BTreeSet::new());
        let mut lies = |at: Time, site: SiteId| {
            own.insert(business_day(at, self.policies.get(site)));
            touched.extend(self.policies.all().map(|policy| days_touched(at, policy)));
        };
        for outcome in outcomes {
            let before = known.get(&outcome.punch);
            if let Some(before) = before {
                lies(before.effective_at, before.site);
            }
            lies(outcome.effective_at, outcome.site);
            let Some(standing) = outcome.counted_as else { continue };
            let tz = before.map(|before| before.tz.clone());
            then.push(TimecardPunch {
                punch: outcome.punch,
                kind: outcome.kind,
                effective_at: outcome.effective_at,
                standing,
                site: outcome.site,
                tz: tz.unwrap_or_else(|| self.policies.zone(outcome.site).to_owned()),
            });
        }
        let (before, after) = (self.hours(&self.punches), self.hours(&then));
        let days: BTreeSet<Date> = before.keys().chain(after.keys()).chain(&own).copied().collect();
        let of = |hours: &BTreeMap<Date, Hours>, day| hours.get(day).copied().unwrap_or_default();
        days.iter()
            .filter(|day| touched.iter().any(|(first, last)| (first..=last).contains(day)))
            .map(|day| DayPreview { day: *day, now: of(&before, day), then: of(&after, day) })
            .filter(|shown| own.contains(&shown.day) || shown.now != shown.then)
            .collect()
    }

    /// The days whose hours it changes to join an `in` with an `out` to one shift, however long, and
    /// their own: what lies between is a break or nothing.
    pub fn preview_joined(&self, opening: &Outcome, out: &Outcome) -> Vec<DayPreview> {
        let (from, to) = (opening.effective_at, out.effective_at);
        let between = |punch: &TimecardPunch| (from..=to).contains(&punch.effective_at);
        let (shift, others): (Vec<_>, Vec<_>) = self.punches.iter().cloned().partition(between);
        let is_of_it = |punch: &TimecardPunch| match punch.kind {
            PunchKind::In => punch.punch == opening.punch,
            PunchKind::Out => punch.punch == out.punch,
            PunchKind::BreakStart | PunchKind::BreakEnd => true,
        };
        let shift: Vec<TimecardPunch> = shift.into_iter().filter(is_of_it).collect();
        let mut policy = self.policies.get(opening.site).clone();
        let length_ms = to.millis_since(from).max(0);
        policy.shift_max_s = u32::try_from(length_ms / 1_000 + 1).unwrap_or(u32::MAX);
        let (before, mut after) = (self.hours(&self.punches), self.hours(&others));
        for card in timecards(&shift, |_| &policy) {
            let hours: Hours = card.totals.into();
            let day = after.entry(card.day).or_default();
            day.accepted_min += hours.accepted_min;
            day.provisional_min += hours.provisional_min;
        }
        let day = |end: &Outcome| business_day(end.effective_at, self.policies.get(end.site));
        let (first, last) = (day(opening), day(out));
        let of = |hours: &BTreeMap<Date, Hours>, day| hours.get(day).copied().unwrap_or_default();
        let days: BTreeSet<Date> =
            before.keys().chain(after.keys()).chain([&first, &last]).copied().collect();
        days.range(first..=last)
            .map(|day| DayPreview { day: *day, now: of(&before, day), then: of(&after, day) })
            .filter(|shown| [first, last].contains(&shown.day) || shown.now != shown.then)
            .collect()
    }

    fn hours(&self, punches: &[TimecardPunch]) -> BTreeMap<Date, Hours> {
        let cards = timecards(punches, |site| self.policies.get(site));
        cards.into_iter().map(|card| (card.day, card.totals.into())).collect()
    }
}

/// The policies of all sites where a person ever punched, and of these.
async fn policies_of(
    pool: &Pool,
    employee: EmployeeId,
    more: impl Iterator<Item = SiteId>,
) -> Result<PairingPolicies, sqlx::Error> {
    let sites: Vec<Uuid> =
        sqlx::query_scalar("select site from read.timecards_people where employee = $1")
            .bind(employee.uuid())
            .fetch_all(pool)
            .await?;
    let mut sites: Vec<SiteId> = sites.into_iter().map(SiteId).chain(more).collect();
    sites.sort_unstable();
    sites.dedup();
    PairingPolicies::of(pool, &sites).await
}

/// Windows in order, those that meet as one: days in a row are one read.
fn joined(windows: Vec<(Time, Time)>) -> Vec<(Time, Time)> {
    let mut apart: Vec<(Time, Time)> = Vec::new();
    for (from, to) in windows {
        match apart.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => apart.push((from, to)),
        }
    }
    apart
}
