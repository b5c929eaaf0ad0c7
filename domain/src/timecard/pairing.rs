//! The pairing itself: one walk over punches in order of true time, with at most one shift open.
//!
//! What a punch does depends on its own kind and on the open shift, never on whether the count of
//! punches so far is odd or even; and whether it is a double tap depends on the punch just before
//! it, not on the shift. That is why a missing or extra punch can't reach past the next `in`, the
//! next `out`, or the longest shift. A shift that a person joined is open until its `out`, however
//! long.

use std::collections::HashMap;

use jiff::civil::Date;
use punchtrail_protocol::capture::PunchKind;
use punchtrail_protocol::{PunchId, SiteId, Time};

use super::{
    JOINED_SHIFT_MAX_MS, MILLIS_PER_S, Rules, SegmentKind, TimecardPolicy, TimecardPunch,
    UnmatchedCode, business_day,
};

/// What came of a walk.
#[derive(Debug, Clone, Default)]
pub(super) struct Paired<'a> {
    /// In order of true time.
    pub pairs: Vec<Pair<'a>>,
    pub alone: Vec<Alone<'a>>,
    /// On whose day's card each punch stands.
    pub days: HashMap<PunchId, Date>,
}

/// A stretch of a shift between two punches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub kind: SegmentKind,
    pub day: Date,
    /// The shift's `in`.
    pub opening: &'a TimecardPunch,
    pub from: &'a TimecardPunch,
    pub to: &'a TimecardPunch,
}

/// A punch without its counterpart, or one too many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alone<'a> {
    pub day: Date,
    pub code: UnmatchedCode,
    pub punch: &'a TimecardPunch,
    pub may_pair_until: Option<Time>,
}

/// Puts punches in the order in which they are paired.
pub(super) fn ordered(punches: &[TimecardPunch]) -> Vec<&TimecardPunch> {
    let mut ordered: Vec<&TimecardPunch> = punches.iter().collect();
    ordered.sort_by_cached_key(|p| (p.true_at(), rank_at_one_instant(p.kind), p.punch));
    ordered
}

/// Pairs punches that are in order.
pub(super) fn pair<'a, 'r>(
    ordered: &[&'a TimecardPunch],
    rules_of: &impl Fn(SiteId) -> &'r Rules,
) -> Paired<'a> {
    let mut walk = Walk { paired: Paired::default(), open: None, last: None, rules_of };
    for (index, punch) in ordered.iter().enumerate() {
        walk.take(punch, &ordered[index..]);
    }
    if let Some(shift) = walk.open.take() {
        walk.leave_open(&shift, Some(shift.lapses_at()));
    }
    walk.paired
}

/// Of punches amended to one instant, what ends goes before what starts, so that a shift that ends
/// at noon and another that starts at noon stay two shifts.
const fn rank_at_one_instant(kind: PunchKind) -> u8 {
    match kind {
        PunchKind::BreakEnd => 0,
        PunchKind::Out => 1,
        PunchKind::In => 2,
        PunchKind::BreakStart => 3,
    }
}

struct Walk<'a, 'r, 'f, F> {
    paired: Paired<'a>,
    open: Option<Shift<'a, 'r>>,
    /// The punch just before, and the day on whose card it stands.
    last: Option<(&'a TimecardPunch, Date)>,
    rules_of: &'f F,
}

#[derive(Clone, Copy)]
struct Shift<'a, 'r> {
    opening: &'a TimecardPunch,
    policy: &'r TimecardPolicy,
    day: Date,
    activity: SegmentKind,
    /// The punch that the present activity started with.
    since: &'a TimecardPunch,
    /// The `out` that it was joined with.
    until: Option<PunchId>,
}

impl Shift<'_, '_> {
    fn lapses_at(&self) -> Time {
        self.opening.true_at().plus_millis(i64::from(self.policy.shift_max_s) * MILLIS_PER_S)
    }
}

impl<'a, 'r, F: Fn(SiteId) -> &'r Rules> Walk<'a, 'r, '_, F> {
    /// `onward` is the punch and all that follow.
    fn take(&mut self, punch: &'a TimecardPunch, onward: &[&'a TimecardPunch]) {
        let joined = self.open.filter(|shift| shift.until.is_some());
        let ends = joined.is_some_and(|shift| shift.until == Some(punch.punch));
        let repeated = self.last.filter(|(earlier, day)| {
            // What an earlier day's punches are is for that day's rules to say.
            !ends && repeats(earlier, punch, (self.rules_of)(earlier.site).on(*day))
        });
        let day = match (repeated, joined) {
            (Some((_, day)), _) => {
                self.alone(day, double_of(punch.kind), punch, None);
                day
            }
            (None, Some(_)) if !ends && matches!(punch.kind, PunchKind::In | PunchKind::Out) => {
                let code = if punch.kind == PunchKind::In {
                    UnmatchedCode::InWithoutOut
                } else {
                    UnmatchedCode::OutWithoutIn
                };
                let day = self.day_of(punch);
                self.alone(day, code, punch, None);
                day
            }
            (None, joined) => {
                if joined.is_none() {
                    self.lapse_before(punch.true_at());
                }
                self.pair(punch, onward)
            }
        };
        self.paired.days.insert(punch.punch, day);
        self.last = Some((punch, day));
    }

    fn day_of(&self, punch: &TimecardPunch) -> Date {
        business_day(punch.true_at(), (self.rules_of)(punch.site))
    }

    /// Pairs the punch with what is open, and says on which day's card it stands.
    fn pair(&mut self, punch: &'a TimecardPunch, onward: &[&'a TimecardPunch]) -> Date {
        match (punch.kind, self.open.take()) {
            (PunchKind::In, open) => {
                if let Some(shift) = open {
                    self.leave_open(&shift, None);
                }
                self.begin(punch, onward)
            }
            (PunchKind::Out, Some(shift)) => self.close(&shift, punch),
            (PunchKind::BreakStart, Some(shift)) => self.start_break(shift, punch),
            (PunchKind::BreakEnd, Some(shift)) => self.end_break(shift, punch),
            (kind, None) => {
                let code = match kind {
                    PunchKind::Out => UnmatchedCode::OutWithoutIn,
                    _ => UnmatchedCode::BreakWithoutShift,
                };
                let day = self.day_of(punch);
                self.alone(day, code, punch, None);
                day
            }
        }
    }

    fn begin(&mut self, punch: &'a TimecardPunch, onward: &[&'a TimecardPunch]) -> Date {
        let day = self.day_of(punch);
        let policy = (self.rules_of)(punch.site).on(day);
        let (activity, until) = (SegmentKind::Worked, joined(punch, onward));
        self.open = Some(Shift { opening: punch, policy, day, activity, since: punch, until });
        day
    }

    fn close(&mut self, shift: &Shift<'a, 'r>, punch: &'a TimecardPunch) -> Date {
        if shift.activity == SegmentKind::Break {
            self.alone(shift.day, UnmatchedCode::BreakNotEnded, shift.since, None);
        }
        self.stretch(shift, punch);
        shift.day
    }

    fn start_break(&mut self, shift: Shift<'a, 'r>, punch: &'a TimecardPunch) -> Date {
        match shift.activity {
            SegmentKind::Worked => self.stretch(&shift, punch),
            // Work must have gone on in between, but since when nobody knows.
            SegmentKind::Break => {
                self.alone(shift.day, UnmatchedCode::BreakNotEnded, shift.since, None);
            }
        }
        self.open = Some(Shift { activity: SegmentKind::Break, since: punch, ..shift });
        shift.day
    }

    fn end_break(&mut self, shift: Shift<'a, 'r>, punch: &'a TimecardPunch) -> Date {
        match shift.activity {
            SegmentKind::Break => {
                self.stretch(&shift, punch);
                self.open = Some(Shift { activity: SegmentKind::Worked, since: punch, ..shift });
            }
            SegmentKind::Worked => {
                self.alone(shift.day, UnmatchedCode::BreakNotStarted, punch, None);
                self.open = Some(shift);
            }
        }
        shift.day
    }

    fn lapse_before(&mut self, now: Time) {
        if let Some(shift) = self.open.take_if(|shift| now > shift.lapses_at()) {
            self.leave_open(&shift, Some(shift.lapses_at()));
        }
    }

    fn leave_open(&mut self, shift: &Shift<'a, 'r>, may_pair_until: Option<Time>) {
        self.alone(shift.day, UnmatchedCode::InWithoutOut, shift.opening, may_pair_until);
        if shift.activity == SegmentKind::Break {
            self.alone(shift.day, UnmatchedCode::BreakNotEnded, shift.since, may_pair_until);
        }
    }

    fn stretch(&mut self, shift: &Shift<'a, 'r>, to: &'a TimecardPunch) {
        let Shift { activity: kind, day, opening, since: from, .. } = *shift;
        self.paired.pairs.push(Pair { kind, day, opening, from, to });
    }

    fn alone(
        &mut self,
        day: Date,
        code: UnmatchedCode,
        punch: &'a TimecardPunch,
        may_pair_until: Option<Time>,
    ) {
        self.paired.alone.push(Alone { day, code, punch, may_pair_until });
    }
}

/// The `out` that an `in` was joined with, if it is among what follows and near enough.
fn joined(opening: &TimecardPunch, onward: &[&TimecardPunch]) -> Option<PunchId> {
    let out = opening.joined?;
    let latest = opening.true_at().plus_millis(JOINED_SHIFT_MAX_MS);
    let mut near = onward.iter().skip(1).take_while(|punch| punch.true_at() <= latest);
    near.find(|punch| punch.punch == out && punch.kind == PunchKind::Out).map(|_| out)
}

fn repeats(earlier: &TimecardPunch, later: &TimecardPunch, policy: &TimecardPolicy) -> bool {
    let window_ms = i64::from(policy.near_duplicate_s) * MILLIS_PER_S;
    let apart_ms = later.true_at().millis_since(earlier.true_at());
    earlier.kind == later.kind && window_ms > 0 && apart_ms <= window_ms
}

const fn double_of(kind: PunchKind) -> UnmatchedCode {
    match kind {
        PunchKind::In => UnmatchedCode::DoubleIn,
        PunchKind::Out => UnmatchedCode::DoubleOut,
        PunchKind::BreakStart => UnmatchedCode::DoubleBreakStart,
        PunchKind::BreakEnd => UnmatchedCode::DoubleBreakEnd,
    }
}
