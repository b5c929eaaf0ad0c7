//! A worker's day: where a punch that never came might be.

use insta::assert_snapshot;
use punchtrail_protocol::capture::PunchKind;

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
    };
    AbsenceFacts {
        disputes: Vec::new(),
        quarantined: Vec::new(),
        quarantined_more: false,
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
