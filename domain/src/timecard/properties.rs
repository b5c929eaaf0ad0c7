//! What holds for any punches whatever, tidy or not.

use std::collections::{BTreeMap, BTreeSet};

use jiff::ToSpan as _;
use proptest::prelude::*;
use uuid::Uuid;

use super::tests::berlin;
use super::*;
use crate::site::{SiteEvent, SiteRules};

/// Ten days over the night on which Berlin's clocks go forward.
const START: &str = "2026-03-24T00:00:00.000Z";
const STRETCH_MIN: i64 = 10 * 24 * 60;

fn policy(day_starts_min: u32) -> Rules {
    let policy = Policy { day_starts_min, ..Policy::default() };
    Rules::always(TimecardPolicy::of_site(&policy, berlin()))
}

prop_compose! {
    /// A policy or zone from one of the days around the stretch, or since ever.
    fn a_change()(
        day in prop::option::of(0i32..12), zone in prop::option::of(0usize..4),
        day_starts_min in 0u32..1_440, shift_max_h in 1u32..=48, near_duplicate_s in 0u32..=300,
    ) -> SiteEvent {
        const ZONES: [&str; 4] =
            ["Europe/Berlin", "America/New_York", "Pacific/Kiritimati", "Etc/GMT+12"];
        let first: Time = START.parse().unwrap();
        let first = first.timestamp().to_zoned(TimeZone::UTC).date();
        let from = day.map(|day| first.saturating_add(day.days()));
        let shift_max_s = shift_max_h * 3_600;
        let policy =
            Policy { day_starts_min, shift_max_s, near_duplicate_s, ..Policy::default() };
        match zone {
            Some(zone) => SiteEvent::ZoneChanged { tz: ZONES[zone].to_owned(), from },
            None => SiteEvent::PolicyChanged { policy, from },
        }
    }
}

fn set(changes: &[SiteEvent]) -> Rules {
    let mut rules = SiteRules::default();
    rules.evolve(&SiteEvent::Registered { tz: "Europe/Berlin".to_owned() });
    changes.iter().for_each(|change| rules.evolve(change));
    Rules::of_site(&rules)
}

fn some_rules() -> impl Strategy<Value = Rules> {
    prop::collection::vec(a_change(), 0..4).prop_map(|changes| set(&changes))
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
        lead in prop::sample::select(vec![
            Some(0), Some(0), Some(0), Some(100_000), Some(-45_000), Some(900), None,
        ]),
    ) -> TimecardPunch {
        let start: Time = START.parse().unwrap();
        TimecardPunch {
            punch: PunchId(Uuid::from_u128(id)),
            kind,
            effective_at: start.plus_millis(half_minute * 30_000),
            lead_ms: lead,
            standing: if provisional { CountedAs::Provisional } else { CountedAs::Accepted },
            site: SiteId::NIL,
            tz: "Europe/Berlin".to_owned(),
            joined: None,
            entered: false,
        }
    }
}

/// A few punches, or many: sparse ones go unmatched, dense ones tangle.
fn some_punches() -> impl Strategy<Value = Vec<TimecardPunch>> {
    prop_oneof![prop::collection::vec(a_punch(), 0..8), prop::collection::vec(a_punch(), 20..120),]
}

fn by_day(punches: &[TimecardPunch], policy: &Rules) -> BTreeMap<Date, Timecard> {
    timecards(punches, |_| policy).into_iter().map(|card| (card.day, card)).collect()
}

fn sum(punches: &[TimecardPunch], rules: &Rules) -> Totals {
    timecards(punches, |_| rules).iter().map(|card| card.totals).sum()
}

fn is(mark: &Mark) -> Time {
    mark.true_at.unwrap_or(mark.at)
}

proptest! {
    #[test]
    fn every_minute_is_explained_by_exactly_one_pair(
        punches in some_punches(), rules in some_rules(),
    ) {
        let cards = timecards(&punches, |_| &rules);
        let mut segments: Vec<&Segment> = cards.iter().flat_map(|card| &card.segments).collect();
        segments.sort_by_key(|segment| (is(&segment.from), is(&segment.to)));
        for segment in &segments {
            prop_assert!(is(&segment.from) <= is(&segment.to));
        }
        for pair in segments.windows(2) {
            prop_assert!(is(&pair[0].to) <= is(&pair[1].from), "{:?}", pair);
        }
        for card in &cards {
            let of = |kind, counted_as| -> u64 {
                let which = |part: &&Segment| (part.kind, part.counted_as) == (kind, counted_as);
                card.segments.iter().filter(which).map(|part| part.elapsed_s).sum()
            };
            let (work, rest) = (SegmentKind::Worked, SegmentKind::Break);
            let (settled, not) = (CountedAs::Accepted, CountedAs::Provisional);
            prop_assert_eq!(card.totals.worked_accepted_s, of(work, settled));
            prop_assert_eq!(card.totals.worked_provisional_s, of(work, not));
            prop_assert_eq!(card.totals.break_s, of(rest, settled) + of(rest, not));
            prop_assert!(card.totals.provisional_taken_s <= card.totals.worked_accepted_s);
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
    fn every_settled_segment_joins_settled_punches_whose_kinds_fit(punches in some_punches()) {
        use PunchKind::{BreakEnd, BreakStart, In, Out};
        let by_id: BTreeMap<PunchId, &TimecardPunch> =
            punches.iter().map(|punch| (punch.punch, punch)).collect();
        let policy = policy(0);
        for segment in timecards(&punches, |_| &policy).iter().flat_map(|card| &card.segments) {
            let [shift, from, to] =
                [segment.shift, segment.from.punch, segment.to.punch].map(|id| by_id[&id]);
            prop_assert!(shift.kind == In);
            prop_assert_eq!(segment.doubt.is_none(), segment.counted_as == CountedAs::Accepted);
            if segment.doubt.is_none() {
                let fit = match segment.kind {
                    SegmentKind::Worked => {
                        matches!((from.kind, to.kind), (In | BreakEnd, Out | BreakStart))
                    }
                    SegmentKind::Break => {
                        matches!((from.kind, to.kind), (BreakStart, BreakEnd | Out))
                    }
                };
                let settled = |punch: &TimecardPunch| punch.standing == CountedAs::Accepted;
                prop_assert!(fit && [shift, from, to].into_iter().all(settled), "{:?}", segment);
            }
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
    fn what_is_accepted_never_falls_because_a_doubtful_punch_came(
        punches in some_punches(), extra in a_punch(), rules in some_rules(),
    ) {
        let extra = TimecardPunch { standing: CountedAs::Provisional, ..extra };
        let accepted = |punches: &[TimecardPunch]| -> Vec<(Date, Segment)> {
            let cards = timecards(punches, |_| &rules).into_iter();
            let all = cards.flat_map(|card| card.segments.into_iter().map(move |s| (card.day, s)));
            let work = all.filter(|(_, part)| part.kind == SegmentKind::Worked);
            work.filter(|(_, part)| part.counted_as == CountedAs::Accepted).collect()
        };
        let before = accepted(&punches);
        prop_assert_eq!(before, accepted(&[&punches[..], &[extra]].concat()));
    }

    #[test]
    fn an_extra_punch_changes_no_day_but_those_it_touches(
        punches in some_punches(), extra in a_punch(), day_starts_min in 0u32..1_440,
    ) {
        let policy = policy(day_starts_min);
        let day = business_day(extra.true_at(), &policy);
        let (first, last) = days_touched(extra.true_at(), &policy);
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
        punches in some_punches(), from_day in 0i64..10, days in 0i64..3, rules in some_rules(),
    ) {
        let first = START.parse::<Time>().unwrap().plus_millis(from_day * 86_400_000);
        let first = business_day(first, &rules);
        let last = first.saturating_add(days.days());
        let (start, end) = punches_needed(first, last, &rules);
        let mut needed = punches.clone();
        needed.retain(|punch| start <= punch.true_at() && punch.true_at() < end);
        let (all, some) = (by_day(&punches, &rules), by_day(&needed, &rules));
        let asked = |cards: &BTreeMap<Date, Timecard>| -> Vec<Timecard> {
            cards.range(first..=last).map(|(_, card)| card.clone()).collect()
        };
        prop_assert_eq!(asked(&all), asked(&some));
    }

    #[test]
    fn a_change_from_a_day_moves_no_hour_of_days_before_it(
        punches in some_punches(), changes in prop::collection::vec(a_change(), 0..3),
        change in a_change(),
    ) {
        let (SiteEvent::PolicyChanged { from, .. } | SiteEvent::ZoneChanged { from, .. }) = change
        else {
            unreachable!("a change is one of the two");
        };
        let Some(day) = from else { return Ok(()) };
        let (before, after) = (set(&changes), set(&[&changes[..], &[change]].concat()));
        let settled: Vec<TimecardPunch> = punches
            .iter()
            .map(|punch| TimecardPunch { standing: CountedAs::Accepted, ..punch.clone() })
            .collect();
        let earlier = |punches: &[TimecardPunch], rules: &Rules| -> Vec<Timecard> {
            by_day(punches, rules).range(..day).map(|(_, card)| card.clone()).collect()
        };
        prop_assert_eq!(earlier(&settled, &before), earlier(&settled, &after));
        // What a doubtful punch would do is reckoned as a ruling on it would be, by what holds now.
        let hours = |rules: &Rules| -> Vec<(Date, u64)> {
            let cards = earlier(&punches, rules).into_iter();
            let worked = cards.map(|card| (card.day, card.totals.worked_accepted_s));
            worked.filter(|(_, worked_s)| *worked_s > 0).collect()
        };
        prop_assert_eq!(hours(&before), hours(&after));
    }

    #[test]
    fn settling_every_punch_gives_and_takes_what_was_said(punches in some_punches()) {
        // Of clocks that are known: an order that hangs on one is settled by no ruling on a punch.
        let punches: Vec<TimecardPunch> = punches
            .into_iter()
            .map(|punch| TimecardPunch { lead_ms: punch.lead_ms.or(Some(0)), ..punch })
            .collect();
        let rules = policy(0);
        let settled: Vec<TimecardPunch> = punches
            .iter()
            .map(|punch| TimecardPunch { standing: CountedAs::Accepted, ..punch.clone() })
            .collect();
        let (before, after) = (sum(&punches, &rules), sum(&settled, &rules));
        prop_assert_eq!((after.worked_provisional_s, after.provisional_taken_s), (0, 0));
        let said = before.worked_s() - before.provisional_taken_s;
        prop_assert_eq!(after.worked_accepted_s, said);
    }

    #[test]
    fn every_instant_lies_within_the_bounds_of_its_day(
        half_minute in 0..2 * STRETCH_MIN, rules in some_rules(),
    ) {
        let at = START.parse::<Time>().unwrap().plus_millis(half_minute * 30_000);
        let day = business_day(at, &rules);
        let (start, end) = day_bounds(day, &rules);
        prop_assert!(start <= at && at < end);
        let next = day.tomorrow().unwrap();
        prop_assert_eq!(day_bounds(next, &rules).0, end);
    }
}
