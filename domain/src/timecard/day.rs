//! Business days: which one an instant belongs to, when each begins, and how far a punch reaches.
//!
//! A day begins at an instant, found once from the wall clock, and instants are compared with
//! instants. Comparing wall clock times instead would, in the hour that comes twice, put a later
//! punch on an earlier day.

use jiff::civil::Date;
use punchtrail_protocol::Time;

use super::{MILLIS_PER_S, TimecardPolicy};

/// The business day that `at` belongs to.
#[must_use]
pub fn business_day(at: Time, policy: &TimecardPolicy) -> Date {
    let local = at.timestamp().to_zoned(policy.zone.clone()).date();
    if at < start_of(local, policy) { local.yesterday().unwrap_or(local) } else { local }
}

/// When the business day begins (inclusive) and ends (exclusive). 23 or 25 hours apart where the
/// clocks change.
#[must_use]
pub fn day_bounds(day: Date, policy: &TimecardPolicy) -> (Time, Time) {
    let next = day.tomorrow().unwrap_or(day);
    (start_of(day, policy), start_of(next, policy))
}

/// The first and last business day whose card a punch at `at` can change, its neighbours being open
/// for as long as the policy allows: what to make anew when the punch comes, moves or goes.
#[must_use]
pub fn days_touched(at: Time, policy: &TimecardPolicy) -> (Date, Date) {
    let reach_ms = reach_ms(policy);
    let day_of = |shift_ms| business_day(at.plus_millis(shift_ms), policy);
    (day_of(-reach_ms), day_of(reach_ms))
}

/// From when (inclusive) to when (exclusive) punches must be at hand to make the cards of the
/// business days `first` to `last` as they would be made from all punches there are. Cards of other
/// days made from the same punches are incomplete, and to be left out.
#[must_use]
pub fn punches_needed(first: Date, last: Date, policy: &TimecardPolicy) -> (Time, Time) {
    let reach_ms = reach_ms(policy);
    let (start, _) = day_bounds(first, policy);
    let (_, end) = day_bounds(last, policy);
    (start.plus_millis(-reach_ms), end.plus_millis(reach_ms))
}

/// A shift is open no longer than the longest; a double tap before its `in` and one after its `out`
/// move its ends.
fn reach_ms(policy: &TimecardPolicy) -> i64 {
    (i64::from(policy.shift_max_s) + 2 * i64::from(policy.near_duplicate_s)) * MILLIS_PER_S
}

/// Where the clocks skip the start of day, it is as much later as they skip; where they repeat it,
/// it is the first.
fn start_of(day: Date, policy: &TimecardPolicy) -> Time {
    let beyond = if day.year() > 0 { i64::MAX } else { i64::MIN };
    day.to_datetime(policy.day_starts_at)
        .to_zoned(policy.zone.clone())
        .map_or_else(|_| Time::from_millis(beyond), |zoned| zoned.timestamp().into())
}
