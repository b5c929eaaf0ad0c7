//! What holds for any punches whatever, tidy or not.

use std::collections::{BTreeMap, BTreeSet};

use jiff::ToSpan as _;
use proptest::prelude::*;
use uuid::Uuid;

use super::tests::berlin;
use super::*;

/// Ten days over the night on which Berlin's clocks go forward.
const START: &str = "2026-03-24T00:00:00.000Z";
const STRETCH_MIN: i64 = 10 * 24 * 60;

fn policy(day_starts_min: u32) -> TimecardPolicy {
    TimecardPolicy::of_site(&Policy { day_starts_min, ..Policy::default() }, berlin())
}

prop_compose! {
    /// Half-minutes, so that double taps, ties and whole gaps all come up.
    fn a_punch()(
        half_minute in 0..2 * STRETCH_MIN,
        kind in prop::sample::select(vec![
            PunchKind::In, PunchKind::Out, PunchKind::BreakStart, PunchKind::BreakEnd,
        ]),
        provisional in prop::bool::weighted(0.2),
        id in any::<u128>(),
    ) -> TimecardPunch {
        let start: Time = START.parse().unwrap();
        TimecardPunch {
            punch: PunchId(Uuid::from_u128(id)),
            kind,
            effective_at: start.plus_millis(half_minute * 30_000),
            standing: if provisional { CountedAs::Provisional } else { CountedAs::Accepted },
            site: SiteId::NIL,
            tz: "Europe/Berlin".to_owned(),
        }
    }
}

/// A few punches, or many: sparse ones go unmatched, dense ones tangle.
fn some_punches() -> impl Strategy<Value = Vec<TimecardPunch>> {
    prop_oneof![prop::collection::vec(a_punch(), 0..8), prop::collection::vec(a_punch(), 20..120),]
}

fn by_day(punches: &[TimecardPunch], policy: &TimecardPolicy) -> BTreeMap<Date, Timecard> {
    timecards(punches, |_| policy).into_iter().map(|card| (card.day, card)).collect()
}

proptest! {
    #[test]
    fn segments_never_overlap_and_never_exceed_the_span_of_the_punches(
        punches in some_punches(), day_starts_min in 0u32..1_440,
    ) {
        let policy = policy(day_starts_min);
        let cards = timecards(&punches, |_| &policy);
        let segments: Vec<&Segment> = cards.iter().flat_map(|card| &card.segments).collect();
        for segment in &segments {
            prop_assert!(segment.from.at <= segment.to.at);
        }
        for pair in segments.windows(2) {
            prop_assert!(pair[0].to.at <= pair[1].from.at);
        }
        let totals: Totals = cards.iter().map(|card| card.totals).sum();
        let elapsed: u64 = segments.iter().map(|segment| segment.elapsed_s).sum();
        prop_assert_eq!(totals.worked_s() + totals.break_s, elapsed);
        let times: Vec<Time> = punches.iter().map(|punch| punch.effective_at).collect();
        if let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) {
            prop_assert!(i64::try_from(elapsed * 1_000).unwrap() <= last.millis_since(*first));
        }
    }

    #[test]
    fn every_punch_stands_on_a_card(punches in some_punches()) {
        let policy = policy(0);
        let cards = timecards(&punches, |_| &policy);
        let shown: BTreeSet<PunchId> = cards
            .iter()
            .flat_map(|card| {
                let ends = card.segments.iter().flat_map(|s| [s.from.punch, s.to.punch]);
                ends.chain(card.unmatched.iter().map(|u| u.mark.punch))
            })
            .collect();
        let given: BTreeSet<PunchId> = punches.iter().map(|punch| punch.punch).collect();
        prop_assert_eq!(shown, given);
    }

    #[test]
    fn every_segment_joins_punches_whose_kinds_fit(punches in some_punches()) {
        use PunchKind::{BreakEnd, BreakStart, In, Out};
        let kinds: BTreeMap<PunchId, PunchKind> =
            punches.iter().map(|punch| (punch.punch, punch.kind)).collect();
        let policy = policy(0);
        for segment in timecards(&punches, |_| &policy).iter().flat_map(|card| &card.segments) {
            let ends = (kinds[&segment.from.punch], kinds[&segment.to.punch]);
            prop_assert!(kinds[&segment.shift] == In);
            let fit = match segment.kind {
                SegmentKind::Worked => matches!(ends, (In | BreakEnd, Out | BreakStart)),
                SegmentKind::Break => matches!(ends, (BreakStart, BreakEnd | Out)),
            };
            prop_assert!(fit, "{:?}", segment);
        }
    }

    #[test]
    fn the_order_of_the_input_is_irrelevant(
        (sorted, shuffled) in some_punches().prop_flat_map(|punches| {
            (Just(punches.clone()), Just(punches).prop_shuffle())
        }),
    ) {
        let policy = policy(0);
        prop_assert_eq!(timecards(&sorted, |_| &policy), timecards(&shuffled, |_| &policy));
    }

    #[test]
    fn an_extra_punch_changes_no_day_but_those_it_touches(
        punches in some_punches(), extra in a_punch(), day_starts_min in 0u32..1_440,
    ) {
        let policy = policy(day_starts_min);
        let day = business_day(extra.effective_at, &policy);
        let (first, last) = days_touched(extra.effective_at, &policy);
        prop_assert!(day.saturating_sub(1.day()) <= first && last <= day.saturating_add(1.day()));
        let before = by_day(&punches, &policy);
        let after = by_day(&[&punches[..], &[extra]].concat(), &policy);
        let touched = |day: &&Date| (first..=last).contains(*day);
        for other in before.keys().chain(after.keys()).filter(|day| !touched(day)) {
            prop_assert_eq!(before.get(other), after.get(other), "{}", other);
        }
    }

    #[test]
    fn days_are_the_same_from_the_punches_they_need_as_from_all(
        punches in some_punches(), from_day in 0i64..10, days in 0i64..3,
        day_starts_min in 0u32..1_440,
    ) {
        let policy = policy(day_starts_min);
        let first = START.parse::<Time>().unwrap().plus_millis(from_day * 86_400_000);
        let first = business_day(first, &policy);
        let last = first.saturating_add(days.days());
        let (start, end) = punches_needed(first, last, &policy);
        let mut needed = punches.clone();
        needed.retain(|punch| start <= punch.effective_at && punch.effective_at < end);
        let (all, some) = (by_day(&punches, &policy), by_day(&needed, &policy));
        let asked = |cards: &BTreeMap<Date, Timecard>| -> Vec<Timecard> {
            cards.range(first..=last).map(|(_, card)| card.clone()).collect()
        };
        prop_assert_eq!(asked(&all), asked(&some));
    }

    #[test]
    fn settling_every_punch_moves_provisional_time_to_accepted_and_nothing_else(
        punches in some_punches(),
    ) {
        let policy = policy(0);
        let settled: Vec<TimecardPunch> = punches
            .iter()
            .map(|punch| TimecardPunch { standing: CountedAs::Accepted, ..punch.clone() })
            .collect();
        let sum = |punches: &[TimecardPunch]| -> Totals {
            timecards(punches, |_| &policy).iter().map(|card| card.totals).sum()
        };
        let (before, after) = (sum(&punches), sum(&settled));
        prop_assert_eq!(after.worked_provisional_s, 0);
        prop_assert_eq!(after.worked_accepted_s, before.worked_s());
        prop_assert_eq!(after.break_s, before.break_s);
    }

    #[test]
    fn every_instant_lies_within_the_bounds_of_its_day(
        half_minute in 0..2 * STRETCH_MIN, day_starts_min in 0u32..1_440,
    ) {
        let policy = policy(day_starts_min);
        let at = START.parse::<Time>().unwrap().plus_millis(half_minute * 30_000);
        let (start, end) = day_bounds(business_day(at, &policy), &policy);
        prop_assert!(start <= at && at < end);
    }
}
