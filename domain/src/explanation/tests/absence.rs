//! A worker's day: where a punch that never came might be.

use insta::assert_snapshot;
use punchtrail_protocol::{capture::PunchKind, vocabulary::QuarantineCode};

use super::super::absence::*;
use super::*;

const BACK: &str = "5f0c7a52-0000-4000-8000-00000000000c";

fn report(clock: &str, waiting: u64, oldest: Option<&str>) -> Backlog {
    let made_through = 20 + waiting;
    Backlog {
        reported_at: time(clock),
        waiting,
        oldest: oldest.map(at),
        made_through,
        held_through: 20,
    }
}

fn front(report: Option<Backlog>) -> DeviceFacts {
    DeviceFacts {
        device: device(),
        site: site(),
        revoked: None,
        report,
        highest: 20,
        missing: Vec::new(),
        missing_more: false,
    }
}

fn back(report: Option<Backlog>) -> DeviceFacts {
    DeviceFacts { device: BACK.parse().unwrap(), ..front(report) }
}

fn missing(from: u64, to: u64, after: Option<&str>, before: Option<&str>) -> MissingRun {
    MissingRun {
        gap: Gap { from, to },
        noticed: place(120, "13:00:00.000"),
        after: after.map(time),
        before: before.map(time),
    }
}

fn facts(devices: Vec<DeviceFacts>) -> AbsenceFacts {
    let punch = |kind, clock, standing| DayPunch {
        punch: other_punch(),
        kind,
        effective_at: at(clock),
        standing,
        nobodys: false,
    };
    AbsenceFacts {
        disputes: Vec::new(),
        quarantined: Vec::new(),
        quarantined_count: 0,
        unknown_badges: Vec::new(),
        unknown_badges_count: 0,
        doubted: Vec::new(),
        doubted_count: 0,
        wrong_clocks: Vec::new(),
        wrong_clocks_count: 0,
        employee: employee(),
        day: "2026-11-21".parse().unwrap(),
        zone: berlin(),
        bounds: (time("2026-11-20T23:00:00.000Z"), time("2026-11-21T23:00:00.000Z")),
        punches: vec![
            punch(PunchKind::In, "07:59:00.000", Standing::Accepted),
            punch(PunchKind::In, "07:59:20.000", Standing::Referred),
        ],
        devices,
        position: Position(500),
    }
}

fn answered(devices: Vec<DeviceFacts>) -> Absence {
    let mut names = names();
    names.devices.insert(BACK.parse().unwrap(), "Back door".to_owned());
    explain_absence(facts(devices), &names)
}

fn told(absence: &Absence) -> String {
    let reports =
        absence.devices.iter().map(|device| format!("[{:?}] {}", device.holds, device.report));
    let all: Vec<String> = absence
        .sentences
        .iter()
        .cloned()
        .chain(reports)
        .chain([absence.conclusion.sentence.clone()])
        .collect();
    all.join("\n")
}

#[test]
fn a_device_still_holds_punches() {
    let absence = answered(vec![
        front(Some(report("2026-11-21T08:14:00.000Z", 12, Some("07:59:00.000")))),
        back(Some(report("2026-11-22T08:14:00.000Z", 0, None))),
    ]);
    assert_eq!(absence.conclusion.code, ConclusionCode::OnTheWay);
    assert_snapshot!(told(&absence), @r#"
    The ledger holds 2 punches of Maria Ortiz for Saturday, 21 November 2026: clocked in at 08:59:00 and clocked in at 08:59:20 (waits for a manager).
    [Punches] By its last report at 09:14, “Front door” still holds 12 punches, the oldest from 08:59.
    [Nothing] By its last report on Sunday, 22 November 2026, at 09:14, “Back door” holds no punches that wait to be sent.
    By the devices' last reports, a punch of that day may still be on “Front door”.
    "#);
}

#[test]
fn what_waits_is_of_a_later_day() {
    let later = Backlog {
        oldest: Some(time("2026-11-22T06:00:00.000Z")),
        ..report("2026-11-22T08:14:00.000Z", 2, None)
    };
    assert_eq!(answered(vec![front(Some(later))]).conclusion.code, ConclusionCode::NothingOnTheWay);
}

#[test]
fn numbers_are_missing() {
    let mut device = front(Some(report("2026-11-22T08:14:00.000Z", 0, None)));
    device.missing = vec![
        missing(3, 3, Some("2026-11-18T10:00:00.000Z"), Some("2026-11-19T10:00:00.000Z")),
        missing(17, 18, Some("2026-11-21T10:02:00.000Z"), Some("2026-11-21T12:40:00.000Z")),
        missing(19, 19, None, Some("2026-11-21T12:41:00.000Z")),
    ];
    device.revoked = Some(place(300, "18:00:00.000"));
    let absence = answered(vec![device]);
    assert_eq!(absence.conclusion.code, ConclusionCode::NumbersMissing);
    assert_snapshot!(told(&absence), @r#"
    The ledger holds 2 punches of Maria Ortiz for Saturday, 21 November 2026: clocked in at 08:59:00 and clocked in at 08:59:20 (waits for a manager).
    “Front door”: numbers 17 to 18 are missing, made between 11:02 and 13:40 by its clock; that was noticed at 14:00 (position 120).
    “Front door”: number 19 is missing, made before 13:41 by its clock; that was noticed at 14:00 (position 120).
    “Front door” has had no access since 19:00.
    [Nothing] By its last report on Sunday, 22 November 2026, at 09:14, “Front door” holds no punches that wait to be sent.
    No punch of that day waits to be sent, by the devices' last reports, but one may be among the missing numbers of “Front door”.
    "#);
}

#[test]
fn a_clock_that_was_set_back_rules_nothing_out() {
    let mut device = front(Some(report("2026-11-22T08:14:00.000Z", 0, None)));
    device.missing =
        vec![missing(3, 3, Some("2026-11-25T10:00:00.000Z"), Some("2026-11-24T10:00:00.000Z"))];
    assert_eq!(answered(vec![device]).devices[0].missing.len(), 1);
}

#[test]
fn made_but_neither_held_nor_here() {
    let lost = Backlog { made_through: 23, ..report("2026-11-22T08:14:00.000Z", 0, None) };
    let absence = answered(vec![front(Some(lost))]);
    assert_eq!(absence.conclusion.code, ConclusionCode::NumbersMissing);
    assert_snapshot!(told(&absence), @r#"
    The ledger holds 2 punches of Maria Ortiz for Saturday, 21 November 2026: clocked in at 08:59:00 and clocked in at 08:59:20 (waits for a manager).
    [Unaccounted] By its last report on Sunday, 22 November 2026, at 09:14, “Front door” holds no punches that wait to be sent, though it had made them up to number 23; the ledger has them without a gap up to number 20.
    No punch of that day waits to be sent, by the devices' last reports, but one may be among the missing numbers of “Front door”.
    "#);
}

#[test]
fn a_device_that_never_reported() {
    let absence =
        answered(vec![front(None), back(Some(report("2026-11-22T08:14:00.000Z", 0, None)))]);
    assert_eq!(absence.conclusion.code, ConclusionCode::NotKnown);
    assert_snapshot!(told(&absence), @r#"
    The ledger holds 2 punches of Maria Ortiz for Saturday, 21 November 2026: clocked in at 08:59:00 and clocked in at 08:59:20 (waits for a manager).
    [Unknown] “Front door” has never reported, so what it holds is not known.
    [Nothing] By its last report on Sunday, 22 November 2026, at 09:14, “Back door” holds no punches that wait to be sent.
    Whether a punch of that day is still on its way is not known: “Front door” never reported.
    "#);
}

#[test]
fn everything_is_delivered_so_far_and_in_the_end() {
    let last = report("2026-11-22T08:14:00.000Z", 0, None);
    let so_far =
        answered(vec![front(Some(report("2026-11-21T13:05:00.000Z", 0, None))), back(Some(last))]);
    assert_eq!(so_far.conclusion.known_until, Some(at("13:05:00.000")));
    assert_snapshot!(so_far.conclusion.sentence, @"By the devices' last reports, everything made \
        up to 14:05 has been delivered, so no punch from before then is on its way. What was made \
        after that may still come.");
    let done = answered(vec![front(Some(last)), back(Some(last))]);
    assert_eq!(done.conclusion.code, ConclusionCode::NothingOnTheWay);
    assert_snapshot!(done.conclusion.sentence, @"By the devices' last reports, all of them have \
        delivered everything they made on that day, so no punch of that day is on its way.");
}

#[test]
fn no_punch_and_no_device() {
    let absence =
        explain_absence(AbsenceFacts { punches: vec![], ..facts(vec![]) }, &Names::default());
    assert_eq!(absence.conclusion.code, ConclusionCode::NoDevices);
    assert_snapshot!(told(&absence), @r#"
    The ledger holds no punch of the worker for Saturday, 21 November 2026.
    There is no device at the worker's sites that could still hold a punch.
    "#);
}

fn done() -> Vec<DeviceFacts> {
    vec![front(Some(report("2026-11-22T08:14:00.000Z", 0, None)))]
}

fn waiting(facts: AbsenceFacts) -> String {
    let absence = explain_absence(facts, &names());
    let mut told = absence.sentences;
    told.push(absence.conclusion.sentence);
    told.join("\n")
}

#[test]
fn what_waits_in_quarantine_is_named_with_what_can_be_read_of_it() {
    let item = |names_worker, captured_at: Option<&str>| DayItem {
        item: Digest::of(b"item"),
        code: QuarantineCode::BadCapture,
        device: device(),
        names_worker,
        captured_at: captured_at.map(at),
        received_at: at("10:00:00.000"),
    };
    let quarantined = vec![
        item(true, Some("08:59:03.000")),
        item(true, None),
        item(false, Some("08:59:03.000")),
        item(false, None),
    ];
    let day = AbsenceFacts { punches: vec![], quarantined, quarantined_count: 7, ..facts(done()) };
    let told = waiting(day).replace(&Digest::of(b"item").to_string(), "…");
    assert_snapshot!(told, @r#"
    The ledger holds no punch of Maria Ortiz for Saturday, 21 November 2026.
    “Front door” sent something that says to be a punch of Maria Ortiz made at 09:59:03. It could not be taken as a punch, because what it said could not be read as a punch; it waits in quarantine for a person (item …).
    “Front door” sent something at 11:00:00 that says to be a punch of Maria Ortiz; when it was made can't be read. It could not be taken as a punch, because what it said could not be read as a punch; it waits in quarantine for a person (item …).
    “Front door” sent something made at 09:59:03; whose it is can't be read. It could not be taken as a punch, because what it said could not be read as a punch; it waits in quarantine for a person (item …).
    “Front door” sent something at 11:00:00; whose it is and when it was made can't be read. It could not be taken as a punch, because what it said could not be read as a punch; it waits in quarantine for a person (item …).
    Beside these, 3 more such items wait in quarantine.
    By the devices' last reports, all of them have delivered everything they made on that day, so no punch of that day is on its way. Beside what devices hold, a punch of that day may be among what waits for a person here.
    "#);
}

#[test]
fn punches_that_are_nobody_s_yet_and_those_of_wrong_clocks() {
    let badge = |kind, tie, site: &str| DayBadge {
        punch: other_punch(),
        kind,
        at: at("07:00:00.000"),
        site: site.parse().unwrap(),
        device: device(),
        standing: Standing::Referred,
        tie,
    };
    let clock = |of_this_day, shown: &str, truly: &str| DayClock {
        punch: other_punch(),
        kind: PunchKind::In,
        shown_at: time(shown),
        true_at: time(truly),
        site: site(),
        device: device(),
        standing: Standing::Referred,
        of_this_day,
    };
    let doubt = DayDoubt {
        punch: other_punch(),
        kind: PunchKind::BreakStart,
        at: at("11:00:00.000"),
        site: site(),
        device: device(),
    };
    let mine = DayPunch {
        punch: other_punch(),
        kind: PunchKind::Out,
        effective_at: at("15:00:00.000"),
        standing: Standing::Referred,
        nobodys: true,
    };
    let day = AbsenceFacts {
        punches: vec![mine],
        unknown_badges: vec![
            badge(PunchKind::In, BadgeTie::Held, OTHER_SITE),
            badge(PunchKind::Out, BadgeTie::HeldOtherwise, SITE),
            badge(PunchKind::In, BadgeTie::Here, SITE),
        ],
        unknown_badges_count: 1_001,
        doubted: vec![doubt],
        doubted_count: 1,
        wrong_clocks: vec![
            clock(true, "2031-03-05T07:00:00.000Z", "2026-11-21T07:00:00.000Z"),
            clock(false, "2026-11-21T07:00:00.000Z", "2026-11-24T07:00:00.000Z"),
        ],
        wrong_clocks_count: 2,
        ..facts(done())
    };
    assert_snapshot!(waiting(day).replace(OTHER, "…"), @r#"
    The ledger holds 1 punch of Maria Ortiz for Saturday, 21 November 2026: clocked out at 16:00:00 (who made it is in doubt; it counts for nobody until a manager has ruled).
    Somebody clocked in at Hill Bakery at 08:00:00, on “Front door”, by a badge that the device did not know; Maria Ortiz held that badge then (punch …). It counts for nobody until it is known who made it.
    Somebody clocked out at Harbour Café at 08:00:00, on “Front door”, by a badge that the device did not know; nobody held that badge then, but Maria Ortiz holds it or held it at another time (punch …). It counts for nobody until it is known who made it.
    Somebody clocked in at Harbour Café at 08:00:00, on “Front door”, by a badge that the device did not know; nobody held that badge then, so it may be Maria Ortiz's (punch …). It counts for nobody until it is known who made it.
    At least 998 more such punches by unknown badges wait.
    Somebody else is recorded to have started a break at 12:00:00 at Harbour Café, by a badge that Maria Ortiz held by then, so it may be theirs (punch …). It counts for nobody until a manager has ruled.
    By a device's clock that was wrong, Maria Ortiz clocked in on Wednesday, 5 March 2031, at 08:00:00; by the server's clock that was at 08:00:00, on this day (punch …).
    That Maria Ortiz clocked in at 08:00:00 is by a device's clock that was wrong; by the server's clock it was on Tuesday, 24 November 2026, at 08:00:00, not on this day (punch …).
    By the devices' last reports, all of them have delivered everything they made on that day, so no punch of that day is on its way. Beside what devices hold, a punch of that day may be among what waits for a person here.
    "#);
}

#[test]
fn the_hour_that_comes_twice_is_told_apart_in_a_day_and_in_a_report() {
    let zone = TimeZone::get("America/New_York").unwrap();
    let punch = |kind, at: &str| DayPunch {
        punch: other_punch(),
        kind,
        effective_at: time(at),
        standing: Standing::Accepted,
        nobodys: false,
    };
    let backlog = Backlog {
        oldest: Some(time("2026-11-01T05:30:00.000Z")),
        ..report("2026-11-01T06:30:00.000Z", 2, None)
    };
    let day = AbsenceFacts {
        day: "2026-11-01".parse().unwrap(),
        zone,
        bounds: (time("2026-11-01T04:00:00.000Z"), time("2026-11-02T05:00:00.000Z")),
        punches: vec![
            punch(PunchKind::In, "2026-11-01T05:45:00.000Z"),
            punch(PunchKind::Out, "2026-11-01T06:15:00.000Z"),
            punch(PunchKind::In, "2026-11-01T07:15:00.000Z"),
        ],
        ..facts(vec![front(Some(backlog))])
    };
    assert_snapshot!(told(&explain_absence(day, &names())), @r#"
    The ledger holds 3 punches of Maria Ortiz for Sunday, 1 November 2026: clocked in at 01:45:00 EDT, clocked out at 01:15:00 EST and clocked in at 02:15:00.
    [Punches] By its last report at 01:30 EST, “Front door” still holds 2 punches, the oldest from 01:30 EDT.
    By the devices' last reports, a punch of that day may still be on “Front door”.
    "#);
}
