//! Business days: which one an instant belongs to, when each begins, and how far a punch reaches.
//!
//! A day begins at an instant, found once from the wall clock, and instants are compared with
//! instants. Comparing wall clock times instead would, in the hour that comes twice, put a later
//! punch on an earlier day.

use jiff::ToSpan as _;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use punchtrail_protocol::Time;

use super::{Rules, TimecardPolicy};

/// Zones are at most 26 hours apart and days start at most 24 hours in, so a day may begin before
/// the two before it would have; that is how many days are looked at around one.
const DAYS_AROUND: i32 = 2;

/// The business day that `at` belongs to.
#[must_use]
pub fn business_day(at: Time, rules: &Rules) -> Date {
    let near = at.timestamp().to_zoned(TimeZone::UTC).date();
    let (first, last) = (plus(near, -DAYS_AROUND - 2), plus(near, DAYS_AROUND));
    if rules.are_one(first, last) {
        let policy = rules.on(near);
        let local = at.timestamp().to_zoned(policy.zone.clone()).date();
        return if at < start_of(local, policy) { plus(local, -1) } else { local };
    }
    let begun = |day: &Date| begins(*day, rules) <= at;
    (-DAYS_AROUND..=1).rev().map(|days| plus(near, days)).find(begun).unwrap_or(first)
}

/// When the business day begins (inclusive) and ends (exclusive). 23 or 25 hours apart where the
/// clocks change; longer or shorter, too, on the day that a site counts its days another way from.
#[must_use]
pub fn day_bounds(day: Date, rules: &Rules) -> (Time, Time) {
    (begins(day, rules), begins(plus(day, 1), rules))
}

/// The first and last business day whose card a punch truly made at `at` can change, its neighbours
/// being open for as long as the rules allow: what to make anew when the punch comes, moves or
/// goes. Joined shifts reach further.
#[must_use]
pub fn days_touched(at: Time, rules: &Rules) -> (Date, Date) {
    let reach_ms = rules.reach_ms();
    let day_of = |shift_ms| business_day(at.plus_millis(shift_ms), rules);
    (day_of(-reach_ms), day_of(reach_ms))
}

/// From when (inclusive) to when (exclusive), by true time, punches must be at hand to make the
/// cards of the business days `first` to `last` as they would be made from all punches there are,
/// joined shifts apart. Cards of other days made from the same punches are incomplete, and to be
/// left out.
#[must_use]
pub fn punches_needed(first: Date, last: Date, rules: &Rules) -> (Time, Time) {
    let reach_ms = rules.reach_ms();
    let (start, _) = day_bounds(first, rules);
    let (_, end) = day_bounds(last, rules);
    (start.plus_millis(-reach_ms), end.plus_millis(reach_ms))
}

/// When a day begins: where the one before ends, as that one's rules say. Where the zone then in
/// force would have it begin before the day before has begun, that one is empty.
fn begins(day: Date, rules: &Rules) -> Time {
    let first = plus(day, -DAYS_AROUND - 1);
    if rules.are_one(first, day) {
        return start_of(day, rules.on(first));
    }
    let start = |back: i32| {
        let day = plus(day, -back);
        start_of(day, rules.on(plus(day, -1)))
    };
    (1..=DAYS_AROUND).map(start).fold(start(0), Time::max)
}

fn plus(day: Date, days: i32) -> Date {
    day.saturating_add(days.days())
}

/// Where the clocks skip the start of day, it is as much later as they skip; where they repeat it,
/// it is the first.
fn start_of(day: Date, policy: &TimecardPolicy) -> Time {
    let beyond = if day.year() > 0 { i64::MAX } else { i64::MIN };
    day.to_datetime(policy.day_starts_at)
        .to_zoned(policy.zone.clone())
        .map_or_else(|_| Time::from_millis(beyond), |zoned| zoned.timestamp().into())
}
