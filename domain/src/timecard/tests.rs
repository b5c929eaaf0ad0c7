//! One test for each rule of the pairing.

use jiff::civil::{Weekday, date};
use uuid::Uuid;

use super::*;
use CountedAs::{Accepted, Provisional};
use PunchKind::{BreakEnd, BreakStart, In, Out};
use SegmentKind::{Break, Worked};
use UnmatchedCode::*;

/// Berlin's rules as POSIX writes them, so that no test depends on the machine's zone files.
pub(super) fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn site() -> TimecardPolicy {
    TimecardPolicy::new(berlin())
}

/// A punch at a wall clock time in Berlin, such as `2026-11-21 08:59` (the earlier of two).
pub(super) fn at(kind: PunchKind, wall: &str) -> TimecardPunch {
    let wall: civil::DateTime = wall.parse().unwrap();
    punch(kind, wall.to_zoned(berlin()).unwrap().timestamp().into())
}

fn punch(kind: PunchKind, effective_at: Time) -> TimecardPunch {
    let name = format!("{kind} {effective_at}");
    TimecardPunch {
        punch: PunchId(Uuid::from_u128(u128::from_be_bytes(
            punchtrail_protocol::Digest::of(name.as_bytes()).0[..16].try_into().unwrap(),
        ))),
        kind,
        effective_at,
        lead_ms: Some(0),
        standing: Accepted,
        site: SiteId::NIL,
        tz: "Europe/Berlin".to_owned(),
        joined: None,
        entered: false,
    }
}

pub(super) fn provisional(punch: TimecardPunch) -> TimecardPunch {
    TimecardPunch { standing: Provisional, ..punch }
}

pub(super) fn cards(punches: &[TimecardPunch]) -> Vec<Timecard> {
    cards_under(&site(), punches)
}

fn cards_under(policy: &TimecardPolicy, punches: &[TimecardPunch]) -> Vec<Timecard> {
    let rules = Rules::always(policy.clone());
    timecards(punches, |_| &rules)
}

pub(super) fn only(cards: Vec<Timecard>) -> Timecard {
    let [card] = <[Timecard; 1]>::try_from(cards).unwrap();
    card
}

pub(super) fn segments(card: &Timecard) -> Vec<(SegmentKind, u64, CountedAs)> {
    card.segments.iter().map(|s| (s.kind, s.elapsed_s / 60, s.counted_as)).collect()
}

pub(super) fn unmatched(card: &Timecard) -> Vec<(UnmatchedCode, PunchKind)> {
    card.unmatched.iter().map(|u| (u.code, u.kind)).collect()
}

pub(super) fn worked(accepted_min: u64, provisional_min: u64, break_min: u64) -> Totals {
    Totals {
        worked_accepted_s: accepted_min * 60,
        worked_provisional_s: provisional_min * 60,
        provisional_taken_s: 0,
        break_s: break_min * 60,
    }
}

#[test]
fn no_punches_make_no_cards() {
    assert_eq!(cards(&[]), []);
}

#[test]
fn a_day_with_a_break() {
    let punches = [
        at(In, "2026-11-20 08:00"),
        at(BreakStart, "2026-11-20 12:00"),
        at(BreakEnd, "2026-11-20 12:30"),
        at(Out, "2026-11-20 17:00"),
    ];
    let card = only(cards(&punches));
    assert_eq!(card.day, date(2026, 11, 20));
    let expected = [(Worked, 240, Accepted), (Break, 30, Accepted), (Worked, 270, Accepted)];
    assert_eq!(segments(&card), expected);
    assert_eq!(card.totals, worked(510, 0, 30));
    assert_eq!(card.unmatched, []);
    let [first, pause, last] = &card.segments[..] else { panic!() };
    assert!(card.segments.iter().all(|s| s.shift == punches[0].punch));
    assert_eq!((first.from.punch, first.to.punch), (punches[0].punch, punches[1].punch));
    assert_eq!((pause.from.punch, pause.to.punch), (punches[1].punch, punches[2].punch));
    assert_eq!((last.from.punch, last.to.punch), (punches[2].punch, punches[3].punch));
}

#[test]
fn two_shifts_in_one_day_stay_two() {
    let morning = at(In, "2026-11-20 08:00");
    let evening = at(In, "2026-11-20 18:00");
    let shifts = [morning.punch, evening.punch];
    let card =
        only(cards(&[morning, at(Out, "2026-11-20 12:00"), evening, at(Out, "2026-11-20 20:00")]));
    assert_eq!(card.totals, worked(360, 0, 0));
    assert_eq!(card.segments.iter().map(|s| s.shift).collect::<Vec<_>>(), shifts);
}

#[test]
fn a_night_shift_belongs_to_the_day_it_began() {
    let card = only(cards(&[at(In, "2026-11-20 22:00"), at(Out, "2026-11-21 06:00")]));
    assert_eq!(card.day, date(2026, 11, 20));
    assert_eq!(card.totals, worked(480, 0, 0));
}

#[test]
fn a_business_day_may_start_after_midnight() {
    let bar = TimecardPolicy { day_starts_at: civil::time(5, 0, 0, 0), ..site() };
    let days = |punches: &[TimecardPunch]| -> Vec<Date> {
        cards_under(&bar, punches).iter().map(|card| card.day).collect()
    };
    assert_eq!(
        days(&[at(In, "2026-11-21 01:00"), at(Out, "2026-11-21 04:00")]),
        [date(2026, 11, 20)]
    );
    assert_eq!(days(&[at(In, "2026-11-21 04:59:59.999")]), [date(2026, 11, 20)]);
    assert_eq!(days(&[at(In, "2026-11-21 05:00")]), [date(2026, 11, 21)]);
}

#[test]
fn a_shift_over_the_spring_gap_is_an_hour_shorter_than_the_wall_says() {
    let card = only(cards(&[at(In, "2026-03-28 22:00"), at(Out, "2026-03-29 06:00")]));
    assert_eq!(card.totals, worked(7 * 60, 0, 0));
}

#[test]
fn a_shift_over_the_hour_that_comes_twice_is_an_hour_longer() {
    let card = only(cards(&[at(In, "2026-10-24 22:00"), at(Out, "2026-10-25 06:00")]));
    assert_eq!(card.totals, worked(9 * 60, 0, 0));
}

/// Days start at half past two.
fn early() -> Rules {
    let day_starts_at = civil::time(2, 30, 0, 0);
    Rules::always(TimecardPolicy { day_starts_at, ..site() })
}

#[test]
fn days_never_go_backwards_through_the_hour_that_comes_twice() {
    let policy = early();
    let first: Time = "2026-10-24T22:00:00.000Z".parse().unwrap();
    let days: Vec<Date> =
        (0..300).map(|minute| business_day(first.plus_millis(minute * 60_000), &policy)).collect();
    assert!(days.is_sorted());
    assert_eq!((days[0], days[299]), (date(2026, 10, 24), date(2026, 10, 25)));
}

#[test]
fn a_start_of_day_that_the_clocks_skip_is_later_by_what_they_skip() {
    let policy = early();
    let (start, end) = day_bounds(date(2026, 3, 29), &policy);
    assert_eq!(start.to_string(), "2026-03-29T01:30:00.000Z");
    assert_eq!(end.to_string(), "2026-03-30T00:30:00.000Z");
    assert_eq!(business_day(start, &policy), date(2026, 3, 29));
    assert_eq!(business_day(start.plus_millis(-1), &policy), date(2026, 3, 28));
}

#[test]
fn a_forgotten_out_leaves_only_that_shift_open() {
    let cards = cards(&[
        at(In, "2026-11-19 08:00"),
        at(In, "2026-11-20 08:00"),
        at(Out, "2026-11-20 16:00"),
        at(In, "2026-11-21 08:00"),
        at(Out, "2026-11-21 16:00"),
    ]);
    assert_eq!(unmatched(&cards[0]), [(InWithoutOut, In)]);
    assert_eq!(cards[0].totals, Totals::default());
    for card in &cards[1..] {
        assert_eq!(card.totals, worked(480, 0, 0));
        assert_eq!(card.unmatched, []);
    }
}

#[test]
fn a_forgotten_in_leaves_an_out_and_nothing_else() {
    let cards = cards(&[
        at(Out, "2026-11-20 16:00"),
        at(In, "2026-11-21 08:00"),
        at(Out, "2026-11-21 16:00"),
    ]);
    assert_eq!(unmatched(&cards[0]), [(OutWithoutIn, Out)]);
    assert_eq!(cards[1].totals, worked(480, 0, 0));
    assert_eq!(cards[1].unmatched, []);
}

#[test]
fn a_second_in_starts_a_new_shift_and_leaves_the_first_unmatched() {
    let card = only(cards(&[
        at(In, "2026-11-20 08:00"),
        at(In, "2026-11-20 13:00"),
        at(Out, "2026-11-20 17:00"),
    ]));
    assert_eq!(unmatched(&card), [(InWithoutOut, In)]);
    assert_eq!(card.unmatched[0].may_pair_until, None);
    assert_eq!(card.totals, worked(240, 0, 0));
}

#[test]
fn a_double_tap_changes_nothing_but_is_shown() {
    let double = |kind: PunchKind, wall: &str| provisional(at(kind, wall));
    let card = only(cards(&[
        at(In, "2026-11-20 08:00:00"),
        double(In, "2026-11-20 08:01:00"),
        at(BreakStart, "2026-11-20 12:00:00"),
        double(BreakStart, "2026-11-20 12:00:05"),
        at(BreakEnd, "2026-11-20 12:30:00"),
        double(BreakEnd, "2026-11-20 12:30:05"),
        at(Out, "2026-11-20 17:00:00"),
        double(Out, "2026-11-20 17:00:05"),
    ]));
    assert_eq!(card.totals, worked(510, 0, 30));
    let expected = [
        (DoubleIn, In),
        (DoubleBreakStart, BreakStart),
        (DoubleBreakEnd, BreakEnd),
        (DoubleOut, Out),
    ];
    assert_eq!(unmatched(&card), expected);
    assert!(card.unmatched.iter().all(|u| u.standing == Provisional));
}

#[test]
fn the_double_tap_of_a_night_shifts_out_stands_on_the_shifts_day() {
    let card = only(cards(&[
        at(In, "2026-11-20 22:00"),
        at(Out, "2026-11-21 06:00:00"),
        at(Out, "2026-11-21 06:00:05"),
    ]));
    assert_eq!(unmatched(&card), [(DoubleOut, Out)]);
}

#[test]
fn past_the_window_an_out_is_no_double_tap() {
    let card = only(cards(&[
        at(In, "2026-11-20 08:00"),
        at(Out, "2026-11-20 17:00:00"),
        at(Out, "2026-11-20 17:01:01"),
    ]));
    assert_eq!(unmatched(&card), [(OutWithoutIn, Out)]);
}

#[test]
fn with_the_window_off_no_punch_is_a_double_tap() {
    let policy = TimecardPolicy { near_duplicate_s: 0, ..site() };
    let mut same = at(In, "2026-11-20 08:00");
    same.punch = PunchId(Uuid::max());
    let card = only(cards_under(
        &policy,
        &[at(In, "2026-11-20 08:00"), same, at(Out, "2026-11-20 17:00")],
    ));
    assert_eq!(unmatched(&card), [(InWithoutOut, In)]);
    assert_eq!(card.totals, worked(540, 0, 0));
}

#[test]
fn each_tap_of_many_repeats_the_one_before() {
    let taps = ["08:00:00", "08:00:50", "08:01:40", "08:02:30"];
    let mut punches = taps.map(|wall| at(In, &format!("2026-11-20 {wall}"))).to_vec();
    punches.push(at(Out, "2026-11-20 12:00:00"));
    let card = only(cards(&punches));
    assert_eq!(unmatched(&card), [(DoubleIn, In); 3]);
    assert_eq!(card.totals, worked(240, 0, 0));
}

#[test]
fn the_longest_shift_is_paired_and_a_millisecond_more_is_not() {
    let start = at(In, "2026-11-20 06:00");
    let longest = only(cards(&[start.clone(), at(Out, "2026-11-20 22:00")]));
    assert_eq!(longest.totals, worked(16 * 60, 0, 0));
    let too_long = only(cards(&[start, at(Out, "2026-11-20 22:00:00.001")]));
    assert_eq!(too_long.totals, Totals::default());
    assert_eq!(unmatched(&too_long), [(InWithoutOut, In), (OutWithoutIn, Out)]);
    // Whether or not anything came after, so that a settled day's card stays as it is.
    let until = Some(at(In, "2026-11-20 22:00").effective_at);
    assert_eq!(too_long.unmatched[0].may_pair_until, until);
}

#[test]
fn a_break_without_a_shift_is_unmatched() {
    let card = only(cards(&[at(BreakStart, "2026-11-20 12:00"), at(BreakEnd, "2026-11-20 12:30")]));
    assert_eq!(unmatched(&card), [(BreakWithoutShift, BreakStart), (BreakWithoutShift, BreakEnd)]);
    assert_eq!(card.totals, Totals::default());
}

#[test]
fn a_break_that_the_out_ends_is_break_until_then_and_marked() {
    let card = only(cards(&[
        at(In, "2026-11-20 08:00"),
        at(BreakStart, "2026-11-20 12:00"),
        at(Out, "2026-11-20 17:00"),
    ]));
    assert_eq!(card.totals, worked(240, 0, 300));
    assert_eq!(unmatched(&card), [(BreakNotEnded, BreakStart)]);
}

#[test]
fn a_break_started_twice_leaves_the_time_between_uncounted() {
    let card = only(cards(&[
        at(In, "2026-11-20 08:00"),
        at(BreakStart, "2026-11-20 12:00"),
        at(BreakStart, "2026-11-20 14:00"),
        at(BreakEnd, "2026-11-20 14:30"),
        at(Out, "2026-11-20 17:00"),
    ]));
    assert_eq!(card.totals, worked(240 + 150, 0, 30));
    assert_eq!(unmatched(&card), [(BreakNotEnded, BreakStart)]);
}

#[test]
fn the_end_of_a_break_that_never_started_takes_nothing_off() {
    let card = only(cards(&[
        at(In, "2026-11-20 08:00"),
        at(BreakEnd, "2026-11-20 12:30"),
        at(Out, "2026-11-20 17:00"),
    ]));
    assert_eq!(card.totals, worked(540, 0, 0));
    assert_eq!(unmatched(&card), [(BreakNotStarted, BreakEnd)]);
}

#[test]
fn what_breaks_bound_in_a_shift_without_out_is_counted() {
    let cards = cards(&[
        at(In, "2026-11-20 08:00"),
        at(BreakStart, "2026-11-20 12:00"),
        at(BreakEnd, "2026-11-20 12:30"),
        at(BreakStart, "2026-11-20 15:00"),
        at(In, "2026-11-21 08:00"),
        at(Out, "2026-11-21 16:00"),
    ]);
    assert_eq!(cards[0].totals, worked(240 + 150, 0, 30));
    assert_eq!(unmatched(&cards[0]), [(InWithoutOut, In), (BreakNotEnded, BreakStart)]);
    assert_eq!(cards[1].totals, worked(480, 0, 0));
}

#[test]
fn a_shift_that_may_go_on_says_until_when() {
    let card = only(cards(&[at(In, "2026-11-20 08:00"), at(BreakStart, "2026-11-20 12:00")]));
    assert_eq!(unmatched(&card), [(InWithoutOut, In), (BreakNotEnded, BreakStart)]);
    let until = at(In, "2026-11-21 00:00").effective_at;
    assert!(card.unmatched.iter().all(|u| u.may_pair_until == Some(until)));
}

#[test]
fn what_a_doubtful_punch_would_add_is_provisional_and_what_it_would_take_stays() {
    let counted = |doubtful: usize| {
        let mut punches = [
            at(In, "2026-11-20 08:00"),
            at(BreakStart, "2026-11-20 12:00"),
            at(BreakEnd, "2026-11-20 12:30"),
            at(Out, "2026-11-20 17:00"),
        ];
        punches[doubtful].standing = Provisional;
        let card = only(cards(&punches));
        (card.segments.iter().map(|s| s.counted_as).collect::<Vec<_>>(), card.totals)
    };
    assert_eq!(counted(0), (vec![Provisional; 3], worked(0, 510, 30)));
    // Without the start of the break, its end takes nothing off; with it, half an hour.
    let taken = Totals { provisional_taken_s: 30 * 60, ..worked(540, 0, 0) };
    assert_eq!(counted(1), (vec![Accepted], taken));
    assert_eq!(counted(2), (vec![Accepted, Provisional, Provisional], worked(240, 270, 30)));
    assert_eq!(counted(3), (vec![Accepted, Accepted, Provisional], worked(240, 270, 30)));
}

#[test]
fn what_ends_goes_before_what_starts_at_one_instant() {
    let card = only(cards(&[
        at(In, "2026-11-20 08:00"),
        at(In, "2026-11-20 12:00"),
        at(Out, "2026-11-20 12:00"),
        at(Out, "2026-11-20 16:00"),
    ]));
    assert_eq!(card.totals, worked(480, 0, 0));
    assert_eq!(card.unmatched, []);
}

#[test]
fn no_second_is_lost_where_segments_meet() {
    let card = only(cards(&[
        at(In, "2026-11-20 08:00:00.900"),
        at(BreakStart, "2026-11-20 12:00:00.100"),
        at(BreakEnd, "2026-11-20 12:30:00.950"),
        at(Out, "2026-11-20 17:00:00.100"),
    ]));
    assert_eq!(card.totals.worked_s() + card.totals.break_s, 9 * 3600);
}

#[test]
fn the_site_where_a_shift_began_decides_its_day() {
    let (berlin_site, tokyo_site) = (SiteId(Uuid::from_u128(1)), SiteId(Uuid::from_u128(2)));
    let japan = TimecardPolicy::new(TimeZone::posix("JST-9").unwrap());
    let (here, there) = (Rules::always(site()), Rules::always(japan));
    let rules_of = |site| if site == tokyo_site { &there } else { &here };
    let start = TimecardPunch { site: tokyo_site, ..at(In, "2026-11-20 20:00") };
    let end = TimecardPunch { site: berlin_site, ..at(Out, "2026-11-20 23:00") };
    let card = only(timecards(&[start, end], rules_of));
    assert_eq!(card.day, date(2026, 11, 21));
    assert_eq!(card.segments[0].from.site, tokyo_site);
    assert_eq!(card.segments[0].to.site, berlin_site);
}

#[test]
fn the_ends_of_time_do_not_panic() {
    let ends = [Time::from_millis(i64::MIN), Time::from_millis(i64::MAX)];
    let late_zone = TimecardPolicy { zone: TimeZone::posix("XXX+12").unwrap(), ..site() };
    for policy in [site(), late_zone] {
        for kind in [In, Out, BreakStart, BreakEnd] {
            let cards = cards_under(&policy, &ends.map(|time| punch(kind, time)));
            assert_eq!(cards.iter().map(|card| card.unmatched.len()).sum::<usize>(), 2);
        }
    }
}

#[test]
fn weeks_sum_days_from_the_day_they_begin_on() {
    let punches: Vec<_> = (20..=23)
        .flat_map(|day| {
            [In, Out].map(|kind| {
                let hour = if kind == In { 8 } else { 16 };
                at(kind, &format!("2026-11-{day} {hour:02}:00"))
            })
        })
        .collect();
    let cards = cards(&punches);
    let weeks = |first| -> Vec<(Date, u64)> {
        totals_by_week(&cards, first)
            .iter()
            .map(|week| (week.week_of, week.totals.worked_accepted_min()))
            .collect()
    };
    // 2026-11-20 is a Friday.
    let (a, b) = (date(2026, 11, 16), date(2026, 11, 23));
    assert_eq!(weeks(Weekday::Monday), [(a, 3 * 480), (b, 480)]);
    let (a, b) = (date(2026, 11, 15), date(2026, 11, 22));
    assert_eq!(weeks(Weekday::Sunday), [(a, 2 * 480), (b, 2 * 480)]);
}

#[test]
fn a_sites_policy_gives_start_of_day_longest_shift_and_window() {
    let of = |minutes| {
        let policy = Policy {
            day_starts_min: minutes,
            shift_max_s: 3_600,
            near_duplicate_s: 7,
            ..Policy::default()
        };
        TimecardPolicy::of_site(&policy, berlin())
    };
    let policy = of(5 * 60 + 30);
    assert_eq!(policy.day_starts_at, civil::time(5, 30, 0, 0));
    assert_eq!((policy.shift_max_s, policy.near_duplicate_s), (3_600, 7));
    assert_eq!(of(1_439).day_starts_at, civil::time(23, 59, 0, 0));
}

#[test]
fn a_card_as_json() {
    let card = only(cards(&[
        at(In, "2026-11-20 08:00"),
        provisional(at(Out, "2026-11-20 16:30")),
        at(Out, "2026-11-20 18:00"),
    ]));
    insta::assert_json_snapshot!(card, @r#"
    {
      "day": "2026-11-20",
      "segments": [
        {
          "kind": "worked",
          "shift": "58509b82-e3c5-e5b8-bc9f-be35cc906954",
          "from": {
            "punch": "58509b82-e3c5-e5b8-bc9f-be35cc906954",
            "at": "2026-11-20T07:00:00.000Z",
            "true_at": null,
            "site": "00000000-0000-0000-0000-000000000000",
            "tz": "Europe/Berlin",
            "entered": false
          },
          "to": {
            "punch": "c58d2c41-27ad-31ad-0bbf-39c5ae239a1b",
            "at": "2026-11-20T17:00:00.000Z",
            "true_at": null,
            "site": "00000000-0000-0000-0000-000000000000",
            "tz": "Europe/Berlin",
            "entered": false
          },
          "elapsed_s": 36000,
          "counted_as": "accepted",
          "doubt": null
        }
      ],
      "unmatched": [
        {
          "code": "waits_for_ruling",
          "kind": "out",
          "mark": {
            "punch": "4ef74844-33ba-3cc3-f76c-e6ccdbf384c1",
            "at": "2026-11-20T15:30:00.000Z",
            "true_at": null,
            "site": "00000000-0000-0000-0000-000000000000",
            "tz": "Europe/Berlin",
            "entered": false
          },
          "standing": "provisional",
          "may_pair_until": null
        }
      ],
      "totals": {
        "worked_accepted_s": 36000,
        "worked_provisional_s": 0,
        "provisional_taken_s": 5400,
        "break_s": 0
      }
    }
    "#);
    let text = serde_json::to_string(&card).unwrap();
    assert_eq!(serde_json::from_str::<Timecard>(&text).unwrap(), card);
}
