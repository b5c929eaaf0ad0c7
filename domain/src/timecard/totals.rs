//! Sums over segments, days and weeks.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::AddAssign;

use jiff::ToSpan;
use jiff::civil::{Date, Weekday};
use serde::{Deserialize, Serialize};

use super::{CountedAs, Segment, SegmentKind, Timecard};

const SECONDS_PER_MINUTE: u64 = 60;

/// Worked time, settled and not, and breaks. Seconds are what is summed; minutes are derived last,
/// so that a week is not short of the seconds of each of its days.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Totals {
    /// Worked, between accepted punches, in seconds.
    pub worked_accepted_s: u64,
    /// What would be added to that if all that is doubtful were found right, in seconds.
    pub worked_provisional_s: u64,
    /// What would then be taken from it, in seconds; until then it is part of what is settled.
    pub provisional_taken_s: u64,
    /// Breaks, in seconds; not part of the worked time.
    pub break_s: u64,
}

impl Totals {
    /// Settled worked time in whole minutes, rounded down.
    #[must_use]
    pub const fn worked_accepted_min(&self) -> u64 {
        self.worked_accepted_s / SECONDS_PER_MINUTE
    }

    /// Worked time that a person has yet to rule on, in whole minutes, rounded down.
    #[must_use]
    pub const fn worked_provisional_min(&self) -> u64 {
        self.worked_provisional_s / SECONDS_PER_MINUTE
    }

    /// Settled worked time that a doubt would take, in whole minutes, rounded down.
    #[must_use]
    pub const fn provisional_taken_min(&self) -> u64 {
        self.provisional_taken_s / SECONDS_PER_MINUTE
    }

    /// Worked time of all segments, in seconds.
    #[must_use]
    pub const fn worked_s(&self) -> u64 {
        self.worked_accepted_s + self.worked_provisional_s
    }

    pub(super) fn add_segment(&mut self, segment: &Segment) {
        let sum = match (segment.kind, segment.counted_as) {
            (SegmentKind::Break, _) => &mut self.break_s,
            (SegmentKind::Worked, CountedAs::Accepted) => &mut self.worked_accepted_s,
            (SegmentKind::Worked, CountedAs::Provisional) => &mut self.worked_provisional_s,
        };
        *sum += segment.elapsed_s;
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.worked_accepted_s += other.worked_accepted_s;
        self.worked_provisional_s += other.worked_provisional_s;
        self.provisional_taken_s += other.provisional_taken_s;
        self.break_s += other.break_s;
    }
}

impl Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(totals: I) -> Self {
        totals.fold(Self::default(), |mut sum, each| {
            sum += each;
            sum
        })
    }
}

/// A week's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WeekTotals {
    /// First day of the week, `YYYY-MM-DD`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Date))]
    pub week_of: Date,
    /// Sums over the week's cards.
    pub totals: Totals,
}

/// Sums the cards by week, in order; weeks without a card are left out. `first` is the day on which
/// weeks begin: Monday by ISO 8601, Sunday where the payroll has it so.
#[must_use]
pub fn totals_by_week(cards: &[Timecard], first: Weekday) -> Vec<WeekTotals> {
    let mut weeks = BTreeMap::<Date, Totals>::new();
    for card in cards {
        let into_week = i64::from(card.day.weekday().since(first));
        let week_of = card.day.saturating_sub(into_week.days());
        *weeks.entry(week_of).or_default() += card.totals;
    }
    weeks.into_iter().map(|(week_of, totals)| WeekTotals { week_of, totals }).collect()
}
