//! Timecards: a person's punches paired into worked time per business day.
//!
//! Only what two punches bound is counted. A punch without its counterpart is never given one by
//! guessing: it stands on the card with a code that says what is missing, a person adds or amends
//! the punch, and the cards are made anew. So one forgotten punch costs its own shift a gap that
//! everybody sees, and never turns the next morning's `in` into an `out`.
//!
//! A shift belongs wholly to the business day of its `in`, in the time zone and with the start of
//! day that the site where it began had on that day. Durations are the time that really passed: the
//! night the clocks go forward is an hour shorter than the wall says, and where two devices' clocks
//! are known to differ, the time between their punches is the true one.
//!
//! Voided and rejected punches are not passed in. Punches are paired twice: those that are accepted
//! among themselves, and those with the ones that a person has yet to rule on. The first gives what
//! is settled, and a doubt takes nothing from it; what the second has beyond it stands as
//! provisional. Nothing here reads a clock: a shift that may still be going on says until when it
//! may be.

mod cards;
mod clocks;
mod day;
#[cfg(test)]
mod doubts;
mod pairing;
#[cfg(test)]
mod properties;
mod rules;
#[cfg(test)]
mod tests;
mod totals;

use jiff::SignedDuration;
use jiff::civil::{self, Date};
use jiff::tz::TimeZone;
use punchtrail_protocol::capture::PunchKind;
use punchtrail_protocol::{PunchId, SiteId, Time};
use serde::{Deserialize, Serialize};

use crate::policy::Policy;

pub use cards::timecards;
pub use clocks::true_time;
pub use day::{business_day, day_bounds, days_touched, punches_needed};
pub use rules::Rules;
pub use totals::{Totals, WeekTotals, totals_by_week};

/// When a business day starts unless the policy says otherwise: midnight.
pub const DAY_STARTS_AT_DEFAULT: civil::Time = civil::Time::midnight();

/// Longest shift unless the policy says otherwise, in seconds: 16 hours.
pub const SHIFT_MAX_DEFAULT_S: u32 = 57_600;

/// Within how many seconds the same punch again is a double tap, unless the policy says otherwise.
pub const NEAR_DUPLICATE_DEFAULT_S: u32 = 60;

/// How far apart a joined shift's ends may be, in milliseconds: three days.
pub const JOINED_SHIFT_MAX_MS: i64 = 72 * 3_600_000;

const MILLIS_PER_S: i64 = 1_000;

/// How much of a punch is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CountedAs {
    Accepted,
    /// It counts until a person rules on it.
    Provisional,
}

/// A punch as the pairing sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimecardPunch {
    /// Which punch. Given twice, it would count twice.
    pub punch: PunchId,
    pub kind: PunchKind,
    /// The time that counts: as the clock showed it, or as a person amended it.
    pub effective_at: Time,
    /// How far the clock that showed it led the true time, in milliseconds; none where nothing is
    /// known of it. 0 where a person said when it was: that is true by definition.
    pub lead_ms: Option<i64>,
    /// Accepted, or not yet ruled on.
    pub standing: CountedAs,
    pub site: SiteId,
    /// IANA zone of the wall clock the worker saw. For showing only: the site's decides the day.
    pub tz: String,
    /// The `out` that a person joined this `in` with to one shift.
    pub joined: Option<PunchId>,
    /// Whether a person added it, so that no device made it.
    pub entered: bool,
}

impl TimecardPunch {
    /// When it truly was, as far as that is known.
    #[must_use]
    pub fn true_at(&self) -> Time {
        true_time(self.effective_at, self.lead_ms)
    }
}

/// How a site pairs punches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimecardPolicy {
    pub zone: TimeZone,
    /// Wall clock time at which a business day starts. A bar that closes at three in the morning
    /// sets five, and the night's work is the evening's day.
    pub day_starts_at: civil::Time,
    /// Longest time between a shift's `in` and its `out`, in seconds. What is longer is two
    /// unmatched punches.
    pub shift_max_s: u32,
    /// Within how many seconds after a punch the next one, if of the same kind, is a double tap of
    /// it; 0 for never.
    pub near_duplicate_s: u32,
}

impl TimecardPolicy {
    /// The defaults, in this zone.
    #[must_use]
    pub const fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            day_starts_at: DAY_STARTS_AT_DEFAULT,
            shift_max_s: SHIFT_MAX_DEFAULT_S,
            near_duplicate_s: NEAR_DUPLICATE_DEFAULT_S,
        }
    }

    /// What a site's policy says of timecards, in the site's zone.
    #[must_use]
    pub fn of_site(policy: &Policy, zone: TimeZone) -> Self {
        let into_day = SignedDuration::from_mins(i64::from(policy.day_starts_min));
        Self {
            zone,
            day_starts_at: DAY_STARTS_AT_DEFAULT.saturating_add(into_day),
            shift_max_s: policy.shift_max_s,
            near_duplicate_s: policy.near_duplicate_s,
        }
    }
}

/// One person's business day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timecard {
    /// The business day, `YYYY-MM-DD`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Date))]
    pub day: Date,
    /// What was worked and what was break, in order of true time. Segments never overlap, neither
    /// on a card nor across cards.
    pub segments: Vec<Segment>,
    /// Punches that lack their counterpart, or repeat another.
    pub unmatched: Vec<Unmatched>,
    pub totals: Totals,
}

/// A stretch of time between two punches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Segment {
    pub kind: SegmentKind,
    /// The shift it is part of, named by its `in`.
    pub shift: PunchId,
    /// The punch it starts with.
    pub from: Mark,
    pub to: Mark,
    /// Time that passed, in whole seconds: by true time where the clocks at its ends are known to
    /// differ, else as they showed it.
    pub elapsed_s: u64,
    /// Accepted if accepted punches alone make it. Provisional is what the doubtful ones would add
    /// to that, cut where it meets what is accepted.
    pub counted_as: CountedAs,
    /// Why it is provisional; null if it is accepted.
    pub doubt: Option<SegmentDoubt>,
}

/// Why a segment is provisional.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SegmentDoubt {
    /// It rests on a punch that a person has yet to rule on.
    Punch,
    /// Which of two punches came first hangs on a clock of which nothing is known: the other's is
    /// known to be wrong, and they changed places if the unknown one were as wrong. To amend
    /// the time of one of them settles it.
    Clocks,
}

/// What a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    Worked,
    Break,
}

/// One punch on a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mark {
    pub punch: PunchId,
    /// As the worker saw it, or as a person amended it.
    pub at: Time,
    /// When it truly was, where the clock is known to have been wrong; else null.
    pub true_at: Option<Time>,
    pub site: SiteId,
    /// IANA zone of the wall clock the worker saw.
    pub tz: String,
    /// Whether a person added the punch, so that no device made it.
    pub entered: bool,
}

/// A punch that could not be paired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unmatched {
    /// What is missing or too much.
    pub code: UnmatchedCode,
    pub kind: PunchKind,
    /// Which punch, when and where.
    pub mark: Mark,
    /// Whether the punch itself is settled.
    pub standing: CountedAs,
    /// Until then a counterpart may still come: before it, a shift that goes on looks like this.
    /// Null if a later punch has ruled that out.
    pub may_pair_until: Option<Time>,
}

/// Why a punch is unmatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnmatchedCode {
    /// The shift has no `out` in time. What its breaks bound is counted all the same.
    InWithoutOut,
    /// No shift was open, or only one that began too long ago.
    OutWithoutIn,
    /// A break started or ended while no shift was open.
    BreakWithoutShift,
    /// The break has no end of its own. If the shift's `out` followed, it counts as break until
    /// then; else nothing after it is counted.
    BreakNotEnded,
    /// The break that ends here never started. Nothing is taken off the worked time.
    BreakNotStarted,
    /// Repeats the `in` just before; the first one counts.
    DoubleIn,
    /// Repeats the `out` just before; the first one counts.
    DoubleOut,
    /// Repeats the `break_start` just before; the first one counts.
    DoubleBreakStart,
    /// Repeats the `break_end` just before; the first one counts.
    DoubleBreakEnd,
    /// Settled itself, but its only counterpart is a punch that a person has yet to rule on.
    WaitsForDoubtful,
    /// Doubtful, and nothing that it would add: what it would take is in the sums. Nothing settled
    /// changes until a person rules on it.
    WaitsForRuling,
}
