//! What a ruling would do to a person's hours, before it is made: the days' sums as they are, and
//! as they would be, paired from the same punches.

use std::collections::BTreeMap;

use jiff::civil::Date;
use punchtrail_domain::timecard::{
    CountedAs, TimecardPunch, Totals, days_touched, punches_needed, timecards,
};
use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::{EmployeeId, Time, capture::PunchKind};
use serde::Serialize;

use super::{
    row::PunchView,
    timecards::{TimecardsError, policies_of, read},
};
use crate::sites::PairingPolicies;

/// What a punch would count as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// None: it wouldn't count.
    pub counted_as: Option<CountedAs>,
    pub effective_at: Time,
    pub kind: PunchKind,
}

impl Outcome {
    /// As the punch stands, but accepted.
    pub const fn accepted(punch: &PunchView) -> Self {
        let PunchView { effective_at, kind, .. } = *punch;
        Self { counted_as: Some(CountedAs::Accepted), effective_at, kind }
    }

    /// Out of the count.
    pub const fn out(punch: &PunchView) -> Self {
        Self { counted_as: None, ..Self::accepted(punch) }
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

/// A person's punches around one of theirs: all that the days need which a ruling on it can change.
#[derive(Debug)]
pub struct Surroundings {
    punch: PunchView,
    punches: Vec<TimecardPunch>,
    policies: PairingPolicies,
}

impl Surroundings {
    /// Reads them; `times` are those that the punch may come to count at, beside its present one.
    ///
    /// # Errors
    /// See [`TimecardsError`].
    pub async fn of(
        pool: &Pool,
        punch: PunchView,
        employee: EmployeeId,
        times: &[Time],
    ) -> Result<Self, TimecardsError> {
        let policies = policies_of(pool, &[employee.uuid()]).await?;
        let policy = policies.get(punch.site);
        let mut punches = BTreeMap::new();
        for at in times.iter().copied().chain([punch.effective_at]) {
            let (first, last) = days_touched(at, policy);
            let (from, to) = punches_needed(first, last, policy);
            let found = read(pool, &[employee.uuid()], from, to, &policies).await?;
            let found = found.into_values().flatten();
            punches.extend(found.map(|punch| (punch.punch, punch)));
        }
        Ok(Self { punch, punches: punches.into_values().collect(), policies })
    }

    /// The days whose hours an outcome changes, and the punch's own, in order.
    pub fn preview(&self, outcome: Outcome) -> Vec<DayPreview> {
        let policy = self.policies.get(self.punch.site);
        let mut then = self.punches.clone();
        then.retain(|other| other.punch != self.punch.punch);
        if let Some(standing) = outcome.counted_as {
            let known = self.punches.iter().find(|other| other.punch == self.punch.punch);
            then.push(TimecardPunch {
                punch: self.punch.punch,
                kind: outcome.kind,
                effective_at: outcome.effective_at,
                standing,
                site: self.punch.site,
                tz: known.map_or_else(String::new, |known| known.tz.clone()),
            });
        }
        let (before, after) = (self.hours(&self.punches), self.hours(&then));
        let (first, last) = days_touched(self.punch.effective_at, policy);
        let (new_first, new_last) = days_touched(outcome.effective_at, policy);
        let own = punchtrail_domain::timecard::business_day(self.punch.effective_at, policy);
        let touched =
            |day: &Date| (first..=last).contains(day) || (new_first..=new_last).contains(day);
        let mut days: Vec<Date> = before.keys().chain(after.keys()).copied().chain([own]).collect();
        days.sort_unstable();
        days.dedup();
        let of = |hours: &BTreeMap<Date, Hours>, day| hours.get(day).copied().unwrap_or_default();
        days.iter()
            .filter(|day| touched(day))
            .map(|day| DayPreview { day: *day, now: of(&before, day), then: of(&after, day) })
            .filter(|shown| shown.day == own || shown.now != shown.then)
            .collect()
    }

    fn hours(&self, punches: &[TimecardPunch]) -> BTreeMap<Date, Hours> {
        let cards = timecards(punches, |site| self.policies.get(site));
        cards.into_iter().map(|card| (card.day, card.totals.into())).collect()
    }
}
