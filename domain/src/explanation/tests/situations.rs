//! A table of situations. What stands here is what people read.

use insta::assert_snapshot;
use punchtrail_protocol::{capture::PunchKind, vocabulary::QuarantineCode};

use super::*;
use crate::{device::DeviceEvent, punch::RejectionReason};

#[test]
fn accepted_on_policy_after_an_offline_capture() {
    assert_snapshot!(Stream::offline().accepted().told(&context()), @r#"
    Maria Ortiz clocked in on Saturday, 21 November 2026, at 09:59:03, at Harbour Café, on “Front door”, by badge (its punch number 1).
    The server was out of reach then, so the device kept it. It reached the server at 10:10:05, 11 minutes later.
    The device's clock was right.
    The badge told who punched; no picture was to be compared.
    The site's rules found nothing doubtful, so it was accepted at 10:10:07.
    It counts.
    "#);
}

#[test]
fn captured_online() {
    let replaced = [("\"offline\":true", "\"offline\":false"), ("\"badge\",", "\"pin\",")];
    let stream = Stream::synced("08:59:04.000", Clock::Known { offset_ms: 0 }, &replaced);
    assert_snapshot!(stream.accepted().told(&context()), @r#"
    Maria Ortiz clocked in on Saturday, 21 November 2026, at 09:59:03, at Harbour Café, on “Front door”, confirmed by PIN (its punch number 1).
    It reached the server at 09:59:04, at once.
    The device's clock was right.
    A PIN confirmed who punched; no picture was to be compared.
    The site's rules found nothing doubtful, so it was accepted at 10:10:07.
    It counts.
    "#);
}

#[test]
fn recorded_and_not_yet_judged_with_an_unknown_clock() {
    let stream = Stream::synced("09:10:05.000", Clock::Unknown, &[]);
    assert_snapshot!(stream.told(&context()), @r#"
    Maria Ortiz clocked in on Saturday, 21 November 2026, at 09:59:03, at Harbour Café, on “Front door”, by badge (its punch number 1).
    The server was out of reach then, so the device kept it. It reached the server at 10:10:05, 11 minutes later.
    The device's clock could not be checked.
    The badge told who punched; no picture was to be compared.
    It has not been judged yet.
    It counts until then.
    "#);
}

#[test]
fn without_names_and_zone_times_are_the_wall_clocks() {
    let explained =
        explain(&Stream::offline().accepted().0, &Context::default(), &Names::default());
    assert_snapshot!(explained.unwrap().unwrap().sentences.join("\n"), @r#"
    The worker clocked in on Saturday, 21 November 2026, at 09:59:03, on the device, by badge (its punch number 1).
    The server was out of reach then, so the device kept it. It reached the server at 10:10:05, 11 minutes later.
    The device's clock was right.
    The badge told who punched; no picture was to be compared.
    The site's rules found nothing doubtful, so it was accepted at 10:10:07.
    It counts.
    "#);
}

#[test]
fn a_device_with_another_wall_clock_than_its_site() {
    let replaced = [("\"utc_offset_s\":3600", "\"utc_offset_s\":7200")];
    let stream = Stream::synced("08:59:05.000", Clock::Known { offset_ms: 0 }, &replaced);
    assert_snapshot!(stream.explained(&context()).sentences[2], @"The device's clock was right; \
        its screen showed 10:59:03, UTC+2, where the site had 09:59:03.");
}

#[test]
fn a_near_duplicate_waits_for_a_manager() {
    let doubt = Anomaly::NearDuplicate { of: other_punch(), apart_ms: 12_000 };
    let stream = Stream::offline().referred("09:10:07.000", [doubt]);
    assert_snapshot!(stream.told(&context()), @r#"
    Maria Ortiz clocked in on Saturday, 21 November 2026, at 09:59:03, at Harbour Café, on “Front door”, by badge (its punch number 1).
    The server was out of reach then, so the device kept it. It reached the server at 10:10:05, 11 minutes later.
    The device's clock was right.
    The badge told who punched; no picture was to be compared.
    Maria Ortiz also clocked in 12 seconds earlier (punch 0190b5a2-1111-7c1a-9d2e-3f4a5b6c7d8e), so this one waits for a manager.
    It counts until then.
    "#);
}

#[test]
fn every_doubt_has_its_words() {
    let of = |anomaly| {
        let explained = Stream::offline().referred("09:10:07.000", [anomaly]).explained(&context());
        let from_last = explained.sentences.len() - 2;
        explained.sentences[from_last].clone()
    };
    let told: Vec<String> = every_anomaly().into_iter().map(of).collect();
    assert_snapshot!(told.join("\n"), @r#"
    Maria Ortiz also clocked in 12 seconds earlier (punch 0190b5a2-1111-7c1a-9d2e-3f4a5b6c7d8e), so this one waits for a manager.
    The device's clock was 3 hours ahead, which is more than the site allows, so this one waits for a manager.
    When it reached the server, the time on this punch was still 2 hours 1 minute away, so this one waits for a manager.
    The device had used its number 1 before, for another punch (punch 0190b5a2-1111-7c1a-9d2e-3f4a5b6c7d8e), so this one waits for a manager.
    The device did not know the badge, so this one waits for a manager.
    The worker is not known to the server, so this one waits for a manager.
    Maria Ortiz had left on Tuesday, 3 November 2026, at 17:00:00, so this one waits for a manager.
    The device's access had been ended before this punch arrived, so this one waits for a manager.
    It was 31 days old when it reached the server, which is longer than the site looks back, so this one waits for a manager.
    Maria Ortiz had punched at Hill Bakery only 5 minutes earlier (punch 0190b5a2-1111-7c1a-9d2e-3f4a5b6c7d8e), so this one waits for a manager.
    The badge by which the device knew Maria Ortiz was no longer theirs by then, and who made it is in doubt, so this one waits for a manager.
    Maria Ortiz was not assigned to this site then, so this one waits for a manager.
    Maria Ortiz had clocked out only 4 seconds earlier (punch 0190b5a2-1111-7c1a-9d2e-3f4a5b6c7d8e); perhaps one reading was taken twice, so this one waits for a manager.
    "#);
}

#[test]
fn several_doubts_at_once() {
    let stream = Stream::offline().referred(
        "09:10:07.000",
        [Anomaly::RevokedDevice, Anomaly::ClockSuspect { offset_ms: -600_000 }],
    );
    let told = stream.explained(&context()).sentences;
    assert_snapshot!(told[told.len() - 2..].join("\n"), @r#"
    The device's access had been ended before this punch arrived. The device's clock was 10 minutes behind, which is more than the site allows. So this one waits for a manager.
    It counts until then.
    "#);
}

#[test]
fn a_clock_three_hours_fast() {
    let offset_ms = 10_800_000;
    let stream = Stream::synced("06:10:05.000", Clock::Known { offset_ms }, &[]);
    let doubts = [Anomaly::ClockSuspect { offset_ms }, Anomaly::InFuture { ahead_ms: 10_138_120 }];
    assert_snapshot!(stream.referred("06:10:06.000", doubts).told(&context()), @r#"
    Maria Ortiz clocked in on Saturday, 21 November 2026, at 09:59:03, at Harbour Café, on “Front door”, by badge (its punch number 1).
    The device's clock was 3 hours ahead; by the server's clock the punch was made at 06:59:03.
    The server was out of reach then, so the device kept it. It reached the server at 07:10:05, 11 minutes later.
    The badge told who punched; no picture was to be compared.
    The device's clock was 3 hours ahead, which is more than the site allows. When it reached the server, the time on this punch was still 2 hours 49 minutes away. So this one waits for a manager.
    It counts until then.
    "#);
}

#[test]
fn an_unknown_badge() {
    let replaced = [
        ("\"employee\":\"5f0c7a52-0000-4000-8000-000000000004\"", "\"employee\":null"),
        ("\"badge\":null", "\"badge\":\"SECRET-77\""),
    ];
    let stream = Stream::synced("09:10:05.000", Clock::Unknown, &replaced);
    let stream = stream.referred("09:10:07.000", [Anomaly::UnknownBadge]);
    assert_snapshot!(stream.told(&context()), @r#"
    Somebody with an unknown badge clocked in on Saturday, 21 November 2026, at 09:59:03, at Harbour Café, on “Front door” (its punch number 1).
    The server was out of reach then, so the device kept it. It reached the server at 10:10:05, 11 minutes later.
    The device's clock could not be checked.
    No picture was to be compared.
    The device did not know the badge, so this one waits for a manager.
    It counts for nobody until then.
    "#);
    let json = serde_json::to_string(&stream.explained(&context())).unwrap();
    assert!(!json.contains("SECRET-77"), "what was read stays in the event");
}

#[test]
fn accepted_then_referred_then_rejected_with_a_note() {
    let reject = PunchEvent::Rejected { reason: RejectionReason::Duplicate, note: note() };
    let doubt = Anomaly::NearDuplicate { of: other_punch(), apart_ms: 12_000 };
    let stream = Stream::offline().accepted().referred("09:20:00.000", [doubt]).then(
        "10:00:00.000",
        key(),
        reject,
    );
    let told = stream.explained(&context()).sentences;
    assert_snapshot!(told[4..].join("\n"), @r#"
    The site's rules found nothing doubtful, so it was accepted at 10:10:07.
    Maria Ortiz also clocked in 12 seconds earlier (punch 0190b5a2-1111-7c1a-9d2e-3f4a5b6c7d8e), so this one was put before a manager.
    “Front office” rejected it at 11:00:00: it repeats another punch. There is a note on it.
    It does not count.
    "#);
}

#[test]
fn every_reason_for_a_rejection() {
    use RejectionReason::{Duplicate, NotPresent, Other, WrongPerson, WrongTime};
    let of = |reason| {
        let event = PunchEvent::Rejected { reason, note: None };
        let told = Stream::offline().then("10:00:00.000", Actor::CommandLine, event);
        told.explained(&context()).sentences[4].clone()
    };
    let told: Vec<String> = [WrongPerson, Duplicate, WrongTime, NotPresent, Other].map(of).into();
    assert_snapshot!(told.join("\n"), @r#"
    The operator of the server rejected it at 11:00:00: somebody else made it.
    The operator of the server rejected it at 11:00:00: it repeats another punch.
    The operator of the server rejected it at 11:00:00: its time can't be right.
    The operator of the server rejected it at 11:00:00: the worker was not there.
    The operator of the server rejected it at 11:00:00: for another reason.
    "#);
}

#[test]
fn amended_then_accepted_by_a_manager_then_voided() {
    let to = at("08:45:00.000");
    let amended = PunchEvent::Amended {
        effective_at: to,
        kind: PunchKind::BreakEnd,
        note: None,
        reason: None,
    };
    let accepted = PunchEvent::Accepted { basis: Basis::Manager, note: note(), reason: None };
    let stream = Stream::offline().then("10:00:00.000", key(), amended).then(
        "10:00:01.000",
        key(),
        accepted,
    );
    let explained = stream.explained(&context());
    assert_eq!((explained.effective_at, explained.kind), (to, PunchKind::BreakEnd));
    let voided =
        stream.then("23:30:00.000", key(), PunchEvent::Voided { note: None, reason: None });
    assert_snapshot!(voided.explained(&context()).sentences[4..].join("\n"), @r#"
    “Front office” corrected it at 11:00:00, to the end of a break instead of clocking in, and to 09:45:00 instead of 09:59:03. What the device captured stays as it was.
    “Front office” accepted it at 11:00:01. There is a note on it.
    “Front office” took it out of the count on Sunday, 22 November 2026, at 00:30:00, as a punch that should not be there.
    It does not count.
    "#);
}

#[test]
fn other_data_under_the_same_punch() {
    let conflict = PunchEvent::ConflictingCaptureReceived {
        digest: Digest::of(b"other"),
        device: device(),
        received_at: at("09:30:00.000"),
    };
    let stream =
        Stream::offline().accepted().then("09:30:00.000", Actor::Device(device()), conflict);
    assert_snapshot!(stream.explained(&context()).sentences[4..].join("\n"), @r#"
    The site's rules found nothing doubtful, so it was accepted at 10:10:07.
    Other data came under the same punch at 10:30:00. The first stands; the other waits in quarantine, as does whatever else came under it.
    It counts.
    "#);
}

#[test]
fn a_doubt_after_a_rejection_changes_nothing() {
    let rejected = PunchEvent::Rejected { reason: RejectionReason::NotPresent, note: None };
    let doubt = PunchEvent::AnomalyFlagged { anomaly: Anomaly::RevokedDevice };
    let stream = Stream::offline().then("10:00:00.000", key(), rejected).then(
        "10:05:00.000",
        Actor::Policy,
        doubt,
    );
    assert_snapshot!(stream.explained(&context()).sentences[4..].join("\n"), @r#"
    “Front office” rejected it at 11:00:00: the worker was not there.
    Later something more came up. The device's access had been ended before this punch arrived. That changed nothing, because a person had ruled already.
    It does not count.
    "#);
}

fn admitted() -> Stream {
    let admitted = PunchEvent::Admitted {
        quarantine: Digest::of(b"item"),
        employee: employee(),
        site: site(),
        kind: PunchKind::Out,
        captured_at: at("16:02:00.000"),
        device: device(),
        note: note(),
    };
    let accepted = PunchEvent::Accepted { basis: Basis::Manager, note: None, reason: None };
    Stream::default().then("17:00:00.000", key(), admitted).then("17:00:00.000", key(), accepted)
}

#[test]
fn admitted_from_quarantine() {
    let item = Quarantined {
        place: place(90, "16:20:00.000"),
        code: QuarantineCode::BadSignature,
        received_at: at("16:20:00.000"),
    };
    let told = admitted().explained(&Context { quarantined: Some(item), ..context() });
    assert_snapshot!(told.sentences.join("\n"), @r#"
    “Front office” entered this punch at 18:00:00 from an item that a device had sent: Maria Ortiz clocked out on Saturday, 21 November 2026, at 17:02:00, at Harbour Café. There is a note on it.
    The item had reached the server at 17:20:00. It could not be taken as it came, because its signature did not fit the device that sent it.
    A person said who punched; no picture was to be compared.
    “Front office” accepted it at 18:00:00.
    It counts.
    "#);
    assert_eq!(told.steps[1].positions, [Position(90)]);
}

#[test]
fn every_reason_for_a_quarantine() {
    use QuarantineCode::{
        BadCapture, BadEncoding, BadSignature, TooLarge, UnknownVersion, WrongDevice, WrongSite,
    };
    let codes =
        [TooLarge, BadEncoding, BadSignature, BadCapture, UnknownVersion, WrongDevice, WrongSite];
    let told = codes.map(|code| {
        let place = place(90, "16:20:00.000");
        let item = Quarantined { place, code, received_at: place.recorded_at };
        admitted().explained(&Context { quarantined: Some(item), ..context() }).sentences[1].clone()
    });
    assert_snapshot!(told.join("\n"), @r#"
    The item had reached the server at 17:20:00. It could not be taken as it came, because it was larger than a punch may be.
    The item had reached the server at 17:20:00. It could not be taken as it came, because it was garbled.
    The item had reached the server at 17:20:00. It could not be taken as it came, because its signature did not fit the device that sent it.
    The item had reached the server at 17:20:00. It could not be taken as it came, because what it said could not be read as a punch.
    The item had reached the server at 17:20:00. It could not be taken as it came, because it came in a form that the server did not know.
    The item had reached the server at 17:20:00. It could not be taken as it came, because it named another device than the one that sent it.
    The item had reached the server at 17:20:00. It could not be taken as it came, because it named a site that the device does not serve.
    "#);
}

fn amid(gaps: &[MissingNumbers], marks: &[DeviceEvent]) -> String {
    let marks = marks.iter().enumerate().map(|(index, event)| ChainMark {
        place: place(200 + index as u64, "09:30:00.000"),
        event: event.clone(),
    });
    let context = Context { gaps: gaps.to_vec(), marks: marks.collect(), ..context() };
    let replaced = [("\"seq\":1,", "\"seq\":41,")];
    let stream = Stream::synced("09:10:05.000", Clock::Known { offset_ms: 0 }, &replaced);
    let told = stream.accepted().explained(&context).sentences;
    told[3..told.len() - 3].join("\n")
}

#[test]
fn missing_numbers_beside_the_punch() {
    let gap = |from, to, came| MissingNumbers {
        gap: Gap { from, to },
        noticed: place(101, "09:10:06.000"),
        came,
    };
    let beside = [gap(38, 40, None), gap(42, 42, None), gap(50, 60, None)];
    assert_snapshot!(amid(&beside, &[]), @r#"
    Numbers 38 to 40 of the device, from just before this punch, have not arrived.
    Number 42 of the device, from just after this punch, has not arrived.
    "#);
    let late = Some(place(140, "10:15:00.000"));
    assert_snapshot!(amid(&[gap(40, 40, late), gap(41, 41, late)], &[]), @r#"
    Number 40 of the device, from just before this punch, came late, at 11:15:00.
    Its number was missing for a while: later punches of the device came first, and it was filled at 11:15:00.
    "#);
}

#[test]
fn a_broken_link_and_a_fork_are_told_and_never_count_against_it() {
    let broken =
        DeviceEvent::LinkBroken { seq: 41, named: Digest::of(b"a"), held: Digest::of(b"b") };
    let fork =
        |second| DeviceEvent::ForkDetected { seq: 41, first: Some(PUNCH.parse().unwrap()), second };
    assert_snapshot!(amid(&[], &[broken, fork(Some(other_punch())), fork(None)]), @r#"
    It does not follow on the punch before it as the server has that one; the device may have been restored or repaired. That alone never counts against a punch.
    Later the device used the same number for another punch (punch 0190b5a2-1111-7c1a-9d2e-3f4a5b6c7d8e); this one came first.
    Later the device used the same number for something that is in quarantine; this one came first.
    "#);
}

#[test]
fn what_the_device_last_said_stands_apart() {
    let report = |waiting, oldest: Option<&str>, made_through| Backlog {
        reported_at: at("08:14:30.000"),
        waiting,
        oldest: oldest.map(at),
        made_through,
        held_through: 41,
    };
    let told = [
        report(12, Some("07:59:00.000"), 53),
        report(1, Some("07:59:00.000"), 42),
        report(12, Some("07:59:00.000"), 41),
        report(0, None, 41),
        report(0, None, 44),
        Backlog { reported_at: time("2026-11-23T08:00:00.000Z"), ..report(0, None, 41) },
    ]
    .map(|report| {
        let context = Context { report: Some(report), ..context() };
        let explained = Stream::offline().accepted().explained(&context);
        let sentence = explained.device_report.unwrap().sentence;
        assert!(!explained.sentences.contains(&sentence));
        sentence
    });
    assert_snapshot!(told.join("\n"), @r#"
    By its last report at 09:14, “Front door” still holds 12 punches, the oldest from 08:59.
    By its last report at 09:14, “Front door” still holds 1 punch, from 08:59.
    By its last report at 09:14, “Front door” held 12 punches, the oldest from 08:59; all it had made by then has arrived since.
    By its last report at 09:14, “Front door” holds no punches that wait to be sent.
    By its last report at 09:14, “Front door” holds no punches that wait to be sent, though it had made them up to number 44; the ledger has them without a gap up to number 41.
    By its last report on Monday, 23 November 2026, at 09:00, “Front door” holds no punches that wait to be sent.
    "#);
}

#[test]
fn as_data() {
    let explained = Stream::offline().accepted().explained(&context());
    assert_snapshot!(serde_json::to_string_pretty(&explained.steps).unwrap(), @r#"
    [
      {
        "step": "captured",
        "evidence": {
          "source": "device",
          "kind": "in",
          "seq": 1,
          "identified_by": "badge",
          "badge_unknown": false,
          "photo": false,
          "utc_offset_s": 3600,
          "digest": "ebf2ffecc2b0397203e0f0dcd2f651d3259f33aa6f1eedfecea80bd225a57db8"
        },
        "device_time": "2026-11-21T08:59:03.120Z",
        "ledger_time": "2026-11-21T09:10:05.000Z",
        "actor": {
          "type": "device",
          "id": "5f0c7a52-0000-4000-8000-000000000003"
        },
        "note": null,
        "positions": [
          100
        ]
      },
      {
        "step": "synced",
        "evidence": {
          "device": "5f0c7a52-0000-4000-8000-000000000003",
          "received_at": "2026-11-21T09:10:05.000Z",
          "offline": true,
          "clock": {
            "known": {
              "offset_ms": 12
            }
          },
          "delay_ms": 661880,
          "quarantined": null
        },
        "device_time": null,
        "ledger_time": "2026-11-21T09:10:05.000Z",
        "actor": {
          "type": "device",
          "id": "5f0c7a52-0000-4000-8000-000000000003"
        },
        "note": null,
        "positions": [
          101
        ]
      },
      {
        "step": "verified",
        "evidence": {
          "outcome": "not_checked",
          "reason": "otherwise",
          "identified_by": "badge"
        },
        "device_time": null,
        "ledger_time": null,
        "actor": null,
        "note": null,
        "positions": []
      },
      {
        "step": "decided",
        "evidence": {
          "outcome": "accepted",
          "basis": "policy",
          "reason": null,
          "note": false
        },
        "device_time": null,
        "ledger_time": "2026-11-21T09:10:07.000Z",
        "actor": {
          "type": "policy"
        },
        "note": null,
        "positions": [
          102
        ]
      }
    ]
    "#);
}
