//! What workers dispute at a device, and what they see of their own: after a PIN, without a network
//! too, and never lost.

#![allow(clippy::unwrap_used, reason = "tests")]

mod door;

use door::{DAY_MS, Door, options};
use punchtrail_device::{Device, Dispute, DisputeError, NotConfirmed, Pin, RecordError};
use punchtrail_protocol::{
    EmployeeId, PunchId,
    dispute::{About, DisputeCause, TEXT_CHARS_MAX},
};
use punchtrail_stand_in::{Call, Fault, StandIn};
use uuid::Uuid;

fn ada(server: &StandIn) -> EmployeeId {
    server.ledger().rows[0].employee
}

fn about_a_day(employee: EmployeeId) -> Dispute {
    Dispute {
        employee,
        pin: Pin::typed("4711"),
        about: About::Day("2026-09-20".parse().unwrap()),
        cause: DisputeCause::MissingPunch,
        text: "I was here <b>all day</b>\n\u{202e}evening".to_owned(),
    }
}

/// A dispute's call in the order of the others.
fn calls(server: &StandIn) -> Vec<Call> {
    let calls = server.ledger().calls.clone();
    calls.into_iter().filter(|call| !matches!(call, Call::Heartbeat { .. })).collect()
}

#[tokio::test]
async fn a_dispute_is_kept_without_a_network_and_delivered_after_the_punches() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    server.ledger().always.insert("heartbeat", Fault::Cut);
    let punch = door.punch(Some(b"\xff\xd8\xff\xe0 no picture")).await.punch;
    let made = about_a_day(ada(&server));
    let day = door.device.dispute(made.clone()).await.unwrap();
    let about_punch = Dispute {
        about: About::Punch(punch),
        cause: DisputeCause::WrongTime,
        text: String::new(),
        ..made.clone()
    };
    door.device.dispute(about_punch).await.unwrap();
    assert_eq!(door.status().await.disputes, 2);

    // Another process, after a power cut: it is there.
    door.device.close().await;
    let device = Device::open(door.dir.path().join("d"), options(&door.clocks)).await.unwrap();
    let door = Door { device, ..door };
    assert_eq!(door.status().await.disputes, 2);
    server.ledger().always.clear();
    let report = door.sync().await;
    assert!(report.complete, "{report:?}");
    assert_eq!((report.disputes_delivered, report.disputes_waiting), (2, 0));
    let order = calls(&server);
    assert_eq!(order, [Call::Batch(vec![1]), Call::Dispute, Call::Dispute, Call::Photo]);
    let held = server.ledger().disputes[&day.dispute].request.clone();
    assert_eq!((held.text, held.cause), (made.text, made.cause), "exactly as typed");
}

#[tokio::test]
async fn nobody_disputes_or_looks_without_the_pin_and_guessing_is_bounded() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let (ada, ben) = (ada(&server), server.ledger().rows[1].employee);
    let wrong = Dispute { pin: Pin::typed("0000"), ..about_a_day(ada) };
    for _ in 0..4 {
        let refused = door.device.dispute(wrong.clone()).await.unwrap_err();
        assert_eq!(refused.code(), "wrong_pin");
    }
    let refused = door.device.record(ada, Pin::typed("1111"), 7).await.unwrap_err();
    assert!(matches!(refused, RecordError::NotConfirmed(NotConfirmed::WrongPin)));
    // Guesses at a record and at a dispute are counted together, and the right PIN waits, too.
    let refused = door.device.record(ada, Pin::typed("4711"), 7).await.unwrap_err();
    assert_eq!(refused.code(), "pin_throttled");
    let refused = door.device.dispute(about_a_day(ada)).await.unwrap_err();
    assert_eq!(refused.code(), "pin_throttled");
    assert_eq!(door.device.dispute(about_a_day(ben)).await.unwrap_err().code(), "no_pin");
    let nobody = EmployeeId(Uuid::new_v4());
    let refused = door.device.dispute(about_a_day(nobody)).await.unwrap_err();
    assert_eq!(refused.code(), "unknown_employee");
    assert_eq!(door.status().await.disputes, 0);
    assert_eq!(calls(&server), [], "nothing of it was asked of the server");
    door.clocks.pass_ms(600_001);
    assert!(door.device.dispute(about_a_day(ada)).await.is_ok());
}

#[tokio::test]
async fn what_can_not_be_meant_is_not_kept() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let good = about_a_day(ada(&server));
    let to_come = About::Day("2026-09-30".parse().unwrap());
    let punch = About::Punch(PunchId::NIL);
    for (dispute, code) in [
        (Dispute { text: "x".repeat(10_000), ..good.clone() }, "bad_text"),
        (Dispute { text: "a\u{1b}[2J".to_owned(), ..good.clone() }, "bad_text"),
        (Dispute { about: to_come, ..good.clone() }, "day_to_come"),
        (Dispute { about: punch, ..good.clone() }, "cause_does_not_fit"),
        (Dispute { cause: DisputeCause::WrongTime, ..good.clone() }, "cause_does_not_fit"),
    ] {
        assert_eq!(door.device.dispute(dispute).await.unwrap_err().code(), code);
    }
    let longest = Dispute { text: "ü".repeat(TEXT_CHARS_MAX), ..good };
    door.device.dispute(longest).await.unwrap();
    assert_eq!(door.status().await.disputes, 1);
}

#[tokio::test]
async fn what_the_server_does_not_take_now_is_kept_and_taken_later() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    server.ledger().disputes_max = 1;
    for _ in 0..3 {
        door.device.dispute(about_a_day(ada(&server))).await.unwrap();
    }
    let report = door.sync().await;
    assert!(!report.complete);
    assert_eq!(report.disputes_waiting, 2);
    let status = door.status().await;
    assert_eq!((status.disputes, status.disputes_refused), (2, 2));
    assert_eq!(status.untaken_disputes[0].code.as_deref(), Some("disputes_full"));
    assert_eq!(status.last_error.unwrap().of, "disputes");
    // Punches go on meanwhile.
    door.punch(None).await;
    assert_eq!(door.sync().await.waiting, 0);
    server.ledger().disputes_max = usize::MAX;
    assert!(door.sync().await.complete);
    assert_eq!(server.ledger().disputes.len(), 3);
    assert_eq!(door.status().await.last_error.map(|error| error.of), None);
}

#[tokio::test]
async fn another_one_under_its_id_is_told_of_and_nothing_is_lost() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let kept = door.device.dispute(about_a_day(ada(&server))).await.unwrap();
    assert!(door.sync().await.complete);
    // The server went back, and somebody else's stands there now.
    server.ledger().disputes.get_mut(&kept.dispute).unwrap().request.text = "other".to_owned();
    let id = door.device.identity().await.unwrap().unwrap().id;
    let mut write = door.device.store().write().await.unwrap();
    let doubtful = punchtrail_device::store::outbox::Doubtful::Ledger(0);
    punchtrail_device::store::disputes::wait_again(&mut write, id, doubtful).await.unwrap();
    write.commit().await.unwrap();
    door.sync().await;
    let status = door.status().await;
    assert_eq!((status.disputes, status.disputes_failed), (0, 1));
    assert_eq!(status.untaken_disputes[0].dispute, kept.dispute);
}

#[tokio::test]
async fn a_restored_server_gets_it_again_and_it_is_forgotten_only_after_the_window() {
    let server = StandIn::start().await;
    let first = punchtrail_protocol::EpochId(Uuid::new_v4());
    server.ledger().epochs.push((first, 0));
    let door = Door::enrolled(&server).await;
    door.device.dispute(about_a_day(ada(&server))).await.unwrap();
    let before = server.ledger().head;
    assert!(door.sync().await.complete);
    server.ledger().part_at(before);
    assert!(server.ledger().disputes.is_empty());
    assert!(door.sync().await.complete);
    assert_eq!(server.ledger().disputes.len(), 1, "it was sent again");
    for _ in 0..31 {
        server.pass_ms(DAY_MS);
        door.clocks.pass_ms(DAY_MS);
        door.sync().await;
    }
    let held = door.device.record(ada(&server), Pin::typed("4711"), 31).await.unwrap().here;
    assert!(held.disputes.is_empty(), "{held:?}");
}

#[tokio::test]
async fn the_record_shows_the_answer_and_without_a_server_what_is_here() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let (ada, pin) = (ada(&server), Pin::typed("4711"));
    let punch = door.punch(None).await.punch;
    door.device.dispute(about_a_day(ada)).await.unwrap();
    server.ledger().always.insert("record", Fault::Cut);
    let offline = door.device.record(ada, pin.clone(), 7).await.unwrap();
    assert!(offline.record.is_none() && offline.error.is_some());
    let here = &offline.here;
    assert_eq!((here.punches[0].punch, here.punches[0].waiting), (punch, true));
    assert_eq!((here.punches[0].kind.as_str(), here.disputes[0].state), ("in", "waiting"));
    server.ledger().always.clear();
    assert!(door.sync().await.complete);
    let online = door.device.record(ada, pin.clone(), 7).await.unwrap();
    let record = online.record.unwrap();
    assert_eq!(record.disputes[0].answers[0].text, "Looked at it");
    assert!(!online.here.punches[0].waiting && online.here.disputes[0].state == "taken");
    let refused = door.device.record(ada, Pin::typed("1"), 7).await.unwrap_err();
    assert_eq!(refused.code(), "wrong_pin");
    assert!(matches!(
        door.device.dispute(Dispute { pin: Pin::typed("1"), ..about_a_day(ada) }).await,
        Err(DisputeError::NotConfirmed(NotConfirmed::WrongPin))
    ));
}
