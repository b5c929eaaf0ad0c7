//! Tests: what a doubt, a second clock, a change of rules and a joined shift make of cards.

use jiff::civil::date;

use super::tests::{at, cards, only, provisional, segments, unmatched, worked};
use super::*;
use crate::site::SiteEvent;
use CountedAs::{Accepted, Provisional};
use PunchKind::{BreakEnd, BreakStart, In, Out};
use SegmentKind::{Break, Worked};
use UnmatchedCode::*;

fn off(clock_ms: i64, punch: TimecardPunch) -> TimecardPunch {
    TimecardPunch { lead_ms: Some(clock_ms), ..punch }
}

fn unknown(punch: TimecardPunch) -> TimecardPunch {
    TimecardPunch { lead_ms: None, ..punch }
}

fn taken(totals: Totals, min: u64) -> Totals {
    Totals { provisional_taken_s: min * 60, ..totals }
}

#[test]
fn a_late_double_never_unpairs_a_corrected_shift() {
    let card = only(cards(&[
        at(In, "2026-11-20 07:00"),
        provisional(at(In, "2026-11-20 08:00:20")),
        at(Out, "2026-11-20 16:00"),
    ]));
    let expected = Totals { provisional_taken_s: 3_620, ..worked(540, 0, 0) };
    assert_eq!(card.totals, expected);
    assert_eq!(segments(&card), [(Worked, 540, Accepted)]);
    assert_eq!(unmatched(&card), [(WaitsForRuling, In)]);
}

#[test]
fn a_doubtful_out_and_in_take_a_gap_and_nothing_before_a_ruling() {
    let card = only(cards(&[
        at(In, "2026-11-20 08:00"),
        provisional(at(Out, "2026-11-20 12:00")),
        provisional(at(In, "2026-11-20 13:00")),
        at(Out, "2026-11-20 17:00"),
    ]));
    assert_eq!(card.totals, taken(worked(540, 0, 0), 60));
    assert_eq!(unmatched(&card), [(WaitsForRuling, Out), (WaitsForRuling, In)]);
}

#[test]
fn what_only_a_doubtful_punch_matches_waits_for_it() {
    let card = only(cards(&[at(In, "2026-11-20 08:00"), provisional(at(Out, "2026-11-20 16:00"))]));
    assert_eq!(card.totals, worked(0, 480, 0));
    assert_eq!(card.segments[0].doubt, Some(SegmentDoubt::Punch));
    assert_eq!(unmatched(&card), [(WaitsForDoubtful, In)]);
    assert_eq!(card.unmatched[0].standing, Accepted);
}

#[test]
fn an_out_whose_in_is_doubtful_stands_beside_it_on_the_day_before() {
    let card = only(cards(&[provisional(at(In, "2026-11-20 22:00")), at(Out, "2026-11-21 06:00")]));
    assert_eq!((card.day, card.totals), (date(2026, 11, 20), worked(0, 480, 0)));
    assert_eq!(unmatched(&card), [(WaitsForDoubtful, Out)]);
}

#[test]
fn what_is_doubtful_is_cut_where_it_meets_what_is_settled() {
    // Half a minute before, so that with it the settled `in` would be a double tap.
    let card = only(cards(&[
        provisional(at(In, "2026-11-20 07:59:30")),
        at(In, "2026-11-20 08:00:00"),
        at(Out, "2026-11-20 12:00"),
    ]));
    let totals = Totals { worked_provisional_s: 30, ..worked(240, 0, 0) };
    assert_eq!(card.totals, totals);
    assert_eq!(segments(&card), [(Worked, 0, Provisional), (Worked, 240, Accepted)]);
    assert_eq!(card.segments[0].to.punch, card.segments[1].from.punch);
}

#[test]
fn a_break_that_only_the_out_ends_gives_way_to_work_after_its_doubtful_end() {
    let card = only(cards(&[
        at(In, "2026-11-20 08:00"),
        at(BreakStart, "2026-11-20 12:00"),
        provisional(at(BreakEnd, "2026-11-20 12:30")),
        at(Out, "2026-11-20 17:00"),
    ]));
    let expected = [(Worked, 240, Accepted), (Break, 30, Provisional), (Worked, 270, Provisional)];
    assert_eq!(segments(&card), expected);
    assert_eq!(card.totals, worked(240, 270, 30));
}

#[test]
fn two_clocks_that_are_known_give_the_true_hours() {
    // A fast kiosk by a hundred seconds, and a right one.
    let card = only(cards(&[
        off(100_000, at(In, "2026-11-20 08:01:40")),
        off(100_000, at(Out, "2026-11-20 12:01:40")),
        at(In, "2026-11-20 12:01:00"),
        at(Out, "2026-11-20 17:00:00"),
    ]));
    assert_eq!(segments(&card), [(Worked, 240, Accepted), (Worked, 299, Accepted)]);
    let Mark { at: shown, true_at, .. } = &card.segments[0].to;
    assert_eq!(true_at.unwrap().millis_since(*shown), -100_000);
    assert_eq!(card.segments[1].from.true_at, None);
}

#[test]
fn across_two_clocks_time_is_true_and_on_one_it_is_as_shown() {
    let across = |lead: [i64; 2]| {
        let ends = [at(In, "2026-11-20 08:00:00"), at(Out, "2026-11-20 12:00:00")];
        let [start, end] = ends;
        let card = only(cards(&[off(lead[0], start), off(lead[1], end)]));
        card.segments[0].elapsed_s
    };
    assert_eq!(across([90_000, 0]), 4 * 3_600 + 90);
    assert_eq!(across([0, -90_000]), 4 * 3_600 + 90);
    assert_eq!(across([90_040, 89_700]), 4 * 3_600, "a heartbeat's noise");
    assert_eq!(across([2_000, 0]), 4 * 3_600, "as good as one clock");
    assert_eq!(across([2_001, 0]), 4 * 3_600 + 2);
}

#[test]
fn a_clock_that_is_known_to_be_years_ahead_lands_on_its_day() {
    let years = 10 * 365 * 86_400_000;
    let ahead = |punch: TimecardPunch| TimecardPunch {
        effective_at: punch.effective_at.plus_millis(years),
        ..off(years, punch)
    };
    let card =
        only(cards(&[ahead(at(In, "2026-11-20 08:00")), ahead(at(Out, "2026-11-20 16:00"))]));
    assert_eq!((card.day, card.totals), (date(2026, 11, 20), worked(480, 0, 0)));
}

#[test]
fn an_order_that_hangs_on_an_unknown_clock_is_doubted() {
    let card = only(cards(&[
        off(100_000, at(In, "2026-11-20 08:01:40")),
        off(100_000, at(Out, "2026-11-20 12:01:40")),
        unknown(at(In, "2026-11-20 12:01:00")),
        unknown(at(Out, "2026-11-20 17:00:00")),
    ]));
    assert_eq!(segments(&card), [(Worked, 240, Provisional), (Worked, 299, Provisional)]);
    assert!(card.segments.iter().all(|part| part.doubt == Some(SegmentDoubt::Clocks)));
    assert_eq!(card.unmatched, []);
    // Far from one another, nothing hangs on it.
    let card = only(cards(&[
        off(100_000, at(In, "2026-11-20 08:01:40")),
        unknown(at(Out, "2026-11-20 12:00:00")),
    ]));
    assert_eq!(segments(&card), [(Worked, 240, Accepted)]);
}

fn set(events: impl IntoIterator<Item = SiteEvent>) -> Rules {
    let mut rules = crate::site::SiteRules::default();
    rules.evolve(&SiteEvent::Registered { tz: "Europe/Berlin".to_owned() });
    events.into_iter().for_each(|event| rules.evolve(&event));
    Rules::of_site(&rules)
}

fn policy(from: Option<Date>, change: impl FnOnce(&mut Policy)) -> SiteEvent {
    let mut policy = Policy::default();
    change(&mut policy);
    SiteEvent::PolicyChanged { policy, from }
}

#[test]
fn a_day_ends_as_its_own_rules_say() {
    let tenth = date(2026, 3, 10);
    let from = |min: u32| set([policy(Some(tenth), |policy| policy.day_starts_min = min)]);
    let hours = |rules: &Rules, day: Date| {
        let (start, end) = day_bounds(day, rules);
        end.millis_since(start) / 3_600_000
    };
    let later = from(300);
    let lengths = [9, 10, 11].map(|day| hours(&later, date(2026, 3, day)));
    assert_eq!(lengths, [24, 29, 24], "the day of the change is longer");
    let back = set([
        policy(None, |policy| policy.day_starts_min = 300),
        policy(Some(tenth), |policy| policy.day_starts_min = 0),
    ]);
    let lengths = [9, 10, 11].map(|day| hours(&back, date(2026, 3, day)));
    assert_eq!(lengths, [24, 19, 24], "or shorter");
    let night = at(In, "2026-03-10 02:00").effective_at;
    assert_eq!(business_day(night, &later), tenth);
    assert_eq!(business_day(night, &back), date(2026, 3, 9));
}

#[test]
fn a_zone_across_the_date_line_leaves_days_before_it() {
    let tenth = date(2026, 3, 10);
    let moved = |tz: &str| SiteEvent::ZoneChanged { tz: tz.to_owned(), from: Some(tenth) };
    let west = SiteEvent::ZoneChanged { tz: "Etc/GMT+12".to_owned(), from: None };
    let east = set([west.clone(), moved("Etc/GMT-14")]);
    let (start, end) = day_bounds(tenth, &east);
    assert_eq!(end, start, "there is no tenth");
    assert_eq!(day_bounds(date(2026, 3, 9), &east).1, start);
    assert_eq!(business_day(start, &east), date(2026, 3, 11));
    assert_eq!(day_bounds(date(2026, 3, 9), &set([west])).1, start, "the ninth ends as it did");
}

#[test]
fn a_shift_is_paired_as_its_sites_rules_were_when_it_began() {
    let tenth = date(2026, 3, 10);
    let rules = set([policy(Some(tenth), |policy| policy.shift_max_s = 4 * 3_600)]);
    let shift = |day: &str, next: &str| {
        timecards(&[at(In, &format!("{day} 23:30")), at(Out, &format!("{next} 06:00"))], |_| &rules)
    };
    assert_eq!(only(shift("2026-03-09", "2026-03-10")).totals, worked(390, 0, 0));
    let after = shift("2026-03-10", "2026-03-11");
    assert!(after.iter().all(|card| card.segments.is_empty()), "{after:?}");
    // From before the first punch, or after the last: nothing else.
    for day in [date(-9999, 1, 1), date(9999, 12, 31)] {
        let rules = set([policy(Some(day), |policy| policy.day_starts_min = 300)]);
        let made =
            timecards(&[at(In, "2026-03-09 02:00"), at(Out, "2026-03-09 04:00")], |_| &rules);
        let expected = if day.year() < 0 { date(2026, 3, 8) } else { date(2026, 3, 9) };
        assert_eq!(only(made).day, expected);
    }
}

#[test]
fn a_joined_shift_is_open_until_its_out() {
    let out = at(Out, "2026-11-21 20:00");
    let start = TimecardPunch { joined: Some(out.punch), ..at(In, "2026-11-20 08:00") };
    let mut punches = vec![
        start.clone(),
        at(BreakStart, "2026-11-20 20:00"),
        at(BreakEnd, "2026-11-21 04:00"),
        out.clone(),
    ];
    let card = only(cards(&punches));
    assert_eq!((card.day, card.totals), (date(2026, 11, 20), worked(28 * 60, 0, 8 * 60)));
    // What else is punched meanwhile begins and ends nothing; its own out is no double of another.
    punches.extend([at(In, "2026-11-21 07:00"), at(Out, "2026-11-21 19:59:30")]);
    let made = cards(&punches);
    assert_eq!(made[0].totals, card.totals);
    assert_eq!(unmatched(&made[1]), [(InWithoutOut, In), (OutWithoutIn, Out)]);
    // Too far, or gone: as if nothing were joined.
    let far = TimecardPunch { joined: Some(out.punch), ..at(In, "2026-11-18 19:59") };
    for punches in [vec![far, out], vec![start]] {
        assert!(cards(&punches).iter().all(|card| card.segments.is_empty()));
    }
}
