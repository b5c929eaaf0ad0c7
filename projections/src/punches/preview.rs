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

use super::{
    row::PunchView,
    timecards::{Pairing, TimecardsError, read, several},
};
use crate::sites::PairingRules;

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
    /// What would be added if all that is doubtful were found right.
    pub provisional_min: u64,
    /// What would then be taken.
    pub taken_min: u64,
}

impl From<Totals> for Hours {
    fn from(totals: Totals) -> Self {
        Self {
            accepted_min: totals.worked_accepted_min(),
            provisional_min: totals.worked_provisional_min(),
            taken_min: totals.provisional_taken_min(),
        }
    }
}

/// A person's punches around some: all that the days need which a ruling on these can change.
#[derive(Debug)]
pub struct Surroundings {
    /// Those that count.
    punches: Vec<TimecardPunch>,
    /// Those that would be ruled on, whether they count or not; without what isn't there yet.
    ruled: BTreeMap<PunchId, TimecardPunch>,
    pairing: Pairing,
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
        let pairing = Pairing::of(pool, &[employee.uuid()]).await?.with_sites(pool, sites).await?;
        let ids: Vec<PunchId> = outcomes.iter().map(|outcome| outcome.punch).collect();
        let ruled = several(pool, &ids, &pairing.rules).await?;
        let ruled: BTreeMap<PunchId, TimecardPunch> =
            ruled.into_iter().map(|punch| (punch.punch, punch)).collect();
        let would_be = outcomes.iter().map(|outcome| as_found(outcome, &ruled, &pairing).true_at());
        let lie = ruled.values().map(TimecardPunch::true_at);
        let more_ms = pairing.more_ms();
        let mut windows: Vec<(Time, Time)> = would_be
            .chain(lie)
            .chain(now.iter().copied())
            .flat_map(|at| pairing.rules.all().map(move |rules| (at, rules)))
            .map(|(at, rules)| {
                let (first, last) = days_touched(at, rules);
                let (from, to) = punches_needed(first, last, rules);
                (from.plus_millis(-more_ms), to.plus_millis(more_ms))
            })
            .collect();
        windows.sort_unstable();
        let mut punches = BTreeMap::new();
        for (from, to) in joined(windows) {
            let found = read(pool, &[employee.uuid()], from, to, &pairing.rules).await?;
            let found = found.into_values().flatten();
            punches.extend(found.map(|punch| (punch.punch, punch)));
        }
        Ok(Self { punches: punches.into_values().collect(), ruled, pairing })
    }

    /// The days whose hours these outcomes change, and those that the punches themselves lie on
    /// now and would lie on, in order.
    pub fn preview(&self, outcomes: &[Outcome]) -> Vec<DayPreview> {
        let (rules, more_ms) = (&self.pairing.rules, self.pairing.more_ms());
        let ruled: BTreeSet<PunchId> = outcomes.iter().map(|outcome| outcome.punch).collect();
        let mut then = self.punches.clone();
        then.retain(|known| !ruled.contains(&known.punch));
        let (mut own, mut touched) = (BTreeSet::new(), BTreeSet::new());
        let mut lies = |at: Time, site: SiteId| {
            own.insert(business_day(at, rules.get(site)));
            touched.extend(rules.all().map(|rules| {
                let (first, _) = days_touched(at.plus_millis(-more_ms), rules);
                (first, days_touched(at.plus_millis(more_ms), rules).1)
            }));
        };
        for outcome in outcomes {
            if let Some(before) = self.punches.iter().find(|known| known.punch == outcome.punch) {
                lies(before.true_at(), before.site);
            }
            let found = as_found(outcome, &self.ruled, &self.pairing);
            lies(found.true_at(), found.site);
            if outcome.counted_as.is_some() {
                then.push(found);
            }
        }
        let (before, after) = (hours(&self.punches, rules), hours(&then, rules));
        changed(&before, &after, &own)
            .into_iter()
            .filter(|shown| {
                touched.iter().any(|(first, last)| (first..=last).contains(&&shown.day))
            })
            .collect()
    }

    /// The days whose hours it changes to join an `in` with an `out` to one shift, however long,
    /// and their own.
    pub fn preview_joined(&self, opening: &Outcome, out: &Outcome) -> Vec<DayPreview> {
        let rules = &self.pairing.rules;
        let mut then = self.punches.clone();
        then.retain(|known| ![opening.punch, out.punch].contains(&known.punch));
        let [mut start, end] = [opening, out].map(|end| as_found(end, &self.ruled, &self.pairing));
        start.joined = Some(out.punch);
        let own = [&start, &end].map(|end| business_day(end.true_at(), rules.get(end.site)));
        then.extend([start, end]);
        let (before, after) = (hours(&self.punches, rules), hours(&then, rules));
        let (first, last) = (own[0].min(own[1]), own[0].max(own[1]));
        let days = changed(&before, &after, &BTreeSet::from(own)).into_iter();
        days.filter(|shown| (first..=last).contains(&shown.day)).collect()
    }
}

/// A punch as it would be. A time that a person gives is true; one that stays is what it was.
fn as_found(
    outcome: &Outcome,
    ruled: &BTreeMap<PunchId, TimecardPunch>,
    pairing: &Pairing,
) -> TimecardPunch {
    let Outcome { punch, site, counted_as, effective_at, kind } = *outcome;
    let standing = counted_as.unwrap_or(CountedAs::Provisional);
    match ruled.get(&punch) {
        Some(known) => {
            let lead_ms = if effective_at == known.effective_at { known.lead_ms } else { Some(0) };
            TimecardPunch { kind, effective_at, standing, lead_ms, ..known.clone() }
        }
        None => TimecardPunch {
            punch,
            kind,
            effective_at,
            lead_ms: Some(0),
            standing,
            site,
            tz: pairing.rules.zone(site, effective_at).to_owned(),
            joined: None,
            entered: true,
        },
    }
}

/// Each day's hours, of one person's punches.
pub(crate) fn hours(punches: &[TimecardPunch], rules: &PairingRules) -> BTreeMap<Date, Hours> {
    let cards = timecards(punches, |site| rules.get(site));
    cards.into_iter().map(|card| (card.day, card.totals.into())).collect()
}

/// The days whose hours differ, and `always`, in order.
pub(crate) fn changed(
    before: &BTreeMap<Date, Hours>,
    after: &BTreeMap<Date, Hours>,
    always: &BTreeSet<Date>,
) -> Vec<DayPreview> {
    let days: BTreeSet<Date> = before.keys().chain(after.keys()).chain(always).copied().collect();
    let of = |hours: &BTreeMap<Date, Hours>, day| hours.get(day).copied().unwrap_or_default();
    days.iter()
        .map(|day| DayPreview { day: *day, now: of(before, day), then: of(after, day) })
        .filter(|shown| always.contains(&shown.day) || shown.now != shown.then)
        .collect()
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
