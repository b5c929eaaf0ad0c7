//! The pairing itself: one walk over the punches in order of time, with at most one shift open.
//!
//! What a punch does depends on its own kind and on the open shift, never on whether the count of
//! punches so far is odd or even; and whether it is a double tap depends on the punch just before
//! it, not on the shift. That is why a missing or extra punch can't reach past the next `in`, the
//! next `out`, or the longest shift.

use std::collections::BTreeMap;

use jiff::civil::Date;
use punchtrail_protocol::capture::PunchKind;
use punchtrail_protocol::{SiteId, Time};

use super::{
    CountedAs, MILLIS_PER_S, Mark, Segment, SegmentKind, Timecard, TimecardPolicy, TimecardPunch,
    Totals, Unmatched, UnmatchedCode, business_day,
};

/// Pairs one person's punches, in any order and at any of the sites whose policies `policy_of`
/// gives, into one card for each business day that has a punch, in order of days.
///
/// The same punches always give the same cards.
#[must_use]
pub fn timecards<'p>(
    punches: &[TimecardPunch],
    policy_of: impl Fn(SiteId) -> &'p TimecardPolicy,
) -> Vec<Timecard> {
    let mut ordered: Vec<&TimecardPunch> = punches.iter().collect();
    ordered.sort_by_key(|p| (p.effective_at, rank_at_one_instant(p.kind), p.punch));
    let mut walk = Walk { cards: BTreeMap::new(), open: None, last: None };
    for punch in ordered {
        walk.take(punch, policy_of(punch.site));
    }
    walk.finish()
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

struct Walk<'a, 'p> {
    cards: BTreeMap<Date, Timecard>,
    open: Option<Shift<'a, 'p>>,
    /// The punch just before, and the day on whose card it stands.
    last: Option<(&'a TimecardPunch, Date)>,
}

#[derive(Clone, Copy)]
struct Shift<'a, 'p> {
    opening: &'a TimecardPunch,
    policy: &'p TimecardPolicy,
    day: Date,
    activity: SegmentKind,
    /// The punch that the present activity started with.
    since: &'a TimecardPunch,
}

impl Shift<'_, '_> {
    fn lapses_at(&self) -> Time {
        self.opening.effective_at.plus_millis(i64::from(self.policy.shift_max_s) * MILLIS_PER_S)
    }
}

impl<'a, 'p> Walk<'a, 'p> {
    fn take(&mut self, punch: &'a TimecardPunch, policy: &'p TimecardPolicy) {
        let repeated = self.last.filter(|(earlier, _)| repeats(earlier, punch, policy));
        let day = if let Some((_, day)) = repeated {
            self.unmatched(day, double_of(punch.kind), punch, None);
            day
        } else {
            self.lapse_before(punch.effective_at);
            self.pair(punch, policy)
        };
        self.last = Some((punch, day));
    }

    /// Pairs the punch with what is open, and says on which day's card it stands.
    fn pair(&mut self, punch: &'a TimecardPunch, policy: &'p TimecardPolicy) -> Date {
        match (punch.kind, self.open.take()) {
            (PunchKind::In, open) => {
                if let Some(shift) = open {
                    self.leave_open(shift, None);
                }
                self.begin(punch, policy)
            }
            (PunchKind::Out, Some(shift)) => self.close(shift, punch),
            (PunchKind::BreakStart, Some(shift)) => self.start_break(shift, punch),
            (PunchKind::BreakEnd, Some(shift)) => self.end_break(shift, punch),
            (kind, None) => {
                let code = match kind {
                    PunchKind::Out => UnmatchedCode::OutWithoutIn,
                    _ => UnmatchedCode::BreakWithoutShift,
                };
                let day = business_day(punch.effective_at, policy);
                self.unmatched(day, code, punch, None);
                day
            }
        }
    }

    fn begin(&mut self, punch: &'a TimecardPunch, policy: &'p TimecardPolicy) -> Date {
        let day = business_day(punch.effective_at, policy);
        let activity = SegmentKind::Worked;
        self.open = Some(Shift { opening: punch, policy, day, activity, since: punch });
        day
    }

    fn close(&mut self, shift: Shift<'a, 'p>, punch: &TimecardPunch) -> Date {
        if shift.activity == SegmentKind::Break {
            self.unmatched(shift.day, UnmatchedCode::BreakNotEnded, shift.since, None);
        }
        self.segment(&shift, punch);
        shift.day
    }

    fn start_break(&mut self, shift: Shift<'a, 'p>, punch: &'a TimecardPunch) -> Date {
        match shift.activity {
            SegmentKind::Worked => self.segment(&shift, punch),
            // Work must have gone on in between, but since when nobody knows.
            SegmentKind::Break => {
                self.unmatched(shift.day, UnmatchedCode::BreakNotEnded, shift.since, None);
            }
        }
        self.open = Some(Shift { activity: SegmentKind::Break, since: punch, ..shift });
        shift.day
    }

    fn end_break(&mut self, shift: Shift<'a, 'p>, punch: &'a TimecardPunch) -> Date {
        match shift.activity {
            SegmentKind::Break => {
                self.segment(&shift, punch);
                self.open = Some(Shift { activity: SegmentKind::Worked, since: punch, ..shift });
            }
            SegmentKind::Worked => {
                self.unmatched(shift.day, UnmatchedCode::BreakNotStarted, punch, None);
                self.open = Some(shift);
            }
        }
        shift.day
    }

    fn lapse_before(&mut self, now: Time) {
        if let Some(shift) = self.open.take_if(|shift| now > shift.lapses_at()) {
            self.leave_open(shift, Some(shift.lapses_at()));
        }
    }

    fn leave_open(&mut self, shift: Shift<'a, 'p>, may_pair_until: Option<Time>) {
        self.unmatched(shift.day, UnmatchedCode::InWithoutOut, shift.opening, may_pair_until);
        if shift.activity == SegmentKind::Break {
            self.unmatched(shift.day, UnmatchedCode::BreakNotEnded, shift.since, may_pair_until);
        }
    }

    fn finish(mut self) -> Vec<Timecard> {
        if let Some(shift) = self.open.take() {
            self.leave_open(shift, Some(shift.lapses_at()));
        }
        self.cards
            .into_values()
            .map(|mut card| {
                card.unmatched.sort_by_key(|u| (u.mark.at, u.mark.punch));
                card
            })
            .collect()
    }

    fn card(&mut self, day: Date) -> &mut Timecard {
        self.cards.entry(day).or_insert_with(|| Timecard {
            day,
            segments: Vec::new(),
            unmatched: Vec::new(),
            totals: Totals::default(),
        })
    }

    fn segment(&mut self, shift: &Shift<'_, '_>, to: &TimecardPunch) {
        let provisional = [shift.opening, shift.since, to]
            .iter()
            .any(|punch| punch.standing == CountedAs::Provisional);
        let segment = Segment {
            kind: shift.activity,
            shift: shift.opening.punch,
            from: mark(shift.since),
            to: mark(to),
            elapsed_s: elapsed_s(shift.since.effective_at, to.effective_at),
            counted_as: if provisional { CountedAs::Provisional } else { CountedAs::Accepted },
        };
        let card = self.card(shift.day);
        card.totals.add_segment(&segment);
        card.segments.push(segment);
    }

    fn unmatched(
        &mut self,
        day: Date,
        code: UnmatchedCode,
        punch: &TimecardPunch,
        may_pair_until: Option<Time>,
    ) {
        let TimecardPunch { kind, standing, .. } = *punch;
        let mark = mark(punch);
        let unmatched = Unmatched { code, kind, mark, standing, may_pair_until };
        self.card(day).unmatched.push(unmatched);
    }
}

fn repeats(earlier: &TimecardPunch, later: &TimecardPunch, policy: &TimecardPolicy) -> bool {
    let window_ms = i64::from(policy.near_duplicate_s) * MILLIS_PER_S;
    let apart_ms = later.effective_at.millis_since(earlier.effective_at);
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

fn mark(punch: &TimecardPunch) -> Mark {
    let TimecardPunch { punch: id, effective_at, site, ref tz, .. } = *punch;
    Mark { punch: id, at: effective_at, site, tz: tz.clone() }
}

/// Both ends are rounded down to the second, so that adjacent segments lose nothing between them.
fn elapsed_s(from: Time, to: Time) -> u64 {
    let second = |time: Time| time.millis().div_euclid(MILLIS_PER_S);
    second(to).saturating_sub(second(from)).try_into().unwrap_or(0)
}
