//! A punch's way on the device: from the badge to the day it may be forgotten.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

use punchtrail_device::{
    Confirmation, Device, Drain, Options, Pin, Press, PunchError, SyncReport,
    capture::Notice,
    store::{outbox, outbox::Kept},
};
use punchtrail_protocol::{
    Digest,
    capture::{Capture, IdentifiedBy, PunchKind},
};
use punchtrail_stand_in::{CODE, Call, Fault, StandIn, person};
use zeroize::Zeroizing;

struct Door {
    _dir: tempfile::TempDir,
    device: Device,
}

impl Door {
    async fn enrolled(server: &StandIn) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = Device::create(dir.path().join("d"), Options::default()).await.unwrap();
        let door = Self { _dir: dir, device };
        door.enroll(server).await;
        door
    }

    async fn enroll(&self, server: &StandIn) {
        let agent = self.device.lock_agent().unwrap();
        self.device.enroll(&agent, &server.url, CODE, "Gate 1").await.unwrap();
        assert_eq!(
            Drain::new(&self.device, &agent).sync().await.unwrap().error.map(|e| e.code),
            None
        );
    }

    async fn punch(&self, badge: &str, kind: PunchKind) -> Confirmation {
        self.press(badge, kind, None, None).await.unwrap()
    }

    async fn press(
        &self,
        badge: &str,
        kind: PunchKind,
        pin: Option<&str>,
        photo: Option<&[u8]>,
    ) -> Result<Confirmation, PunchError> {
        self.device
            .punch(Press {
                badge: badge.to_owned(),
                kind,
                pin: pin.map(Pin::typed),
                photo: photo.map(|bytes| Zeroizing::new(bytes.to_vec())),
            })
            .await
    }

    async fn sync(&self) -> SyncReport {
        let agent = self.device.lock_agent().unwrap();
        Drain::new(&self.device, &agent).sync().await.unwrap()
    }

    async fn held(&self) -> Vec<Kept> {
        let id = self.device.identity().await.unwrap().unwrap().id;
        outbox::held(&mut self.device.store().read().await.unwrap(), id).await.unwrap()
    }
}

fn jpeg(tail: &[u8]) -> Vec<u8> {
    [&[0xff, 0xd8, 0xff, 0xe0], tail].concat()
}

#[tokio::test]
async fn punches_made_offline_reach_the_server_in_order_byte_for_byte() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    for kind in [PunchKind::In, PunchKind::BreakStart, PunchKind::BreakEnd, PunchKind::Out] {
        door.punch("1001", kind).await;
    }
    let held = door.held().await;
    let report = door.sync().await;
    assert!(report.complete);
    assert_eq!((report.delivered, report.waiting), (4, 0));

    let device = door.device.identity().await.unwrap().unwrap().device;
    let captures = server.ledger().captures(device);
    let mut prev = Digest::ZERO;
    for (capture, kept) in captures.iter().zip(&held) {
        assert_eq!(capture.to_bytes(), kept.bytes);
        assert_eq!(capture.prev, prev);
        prev = kept.digest;
    }
    assert_eq!(captures.iter().map(|c| c.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(captures[0].employee, Some(server.ledger().rows[0].employee));
    assert_eq!(captures[0].badge, None);
    assert_eq!(captures[0].identified_by, IdentifiedBy::Badge);

    let again = door.sync().await;
    assert_eq!((again.delivered, server.ledger().batches().len()), (0, 1));
    // The server heard of the backlog before it came, and that nothing is left after.
    let heard = server.ledger().calls.clone();
    let backlog = heard.iter().position(|c| *c == Call::Heartbeat { outbox: 4, photos: 0 });
    let batch = heard.iter().position(|c| matches!(c, Call::Batch(_)));
    let emptied = heard.iter().rposition(|c| *c == Call::Heartbeat { outbox: 0, photos: 0 });
    assert!(backlog < batch && batch < emptied, "{heard:?}");
}

#[tokio::test]
async fn whom_the_manifest_does_not_know_is_recorded_by_badge() {
    let server = StandIn::start().await;
    server.ledger().rows.extend([person("77", "Twin one", None), person("77", "Twin two", None)]);
    let door = Door::enrolled(&server).await;
    for badge in ["9999", "77"] {
        let punch = door.punch(badge, PunchKind::In).await;
        assert_eq!((punch.employee, punch.badge.as_deref()), (None, Some(badge)));
        assert_eq!(punch.notice, Some(Notice::UnknownBadge));
    }
    for bad in ["", "   ", &"x".repeat(65)] {
        let refused = door.press(bad, PunchKind::In, None, None).await.unwrap_err();
        assert!(matches!(refused, PunchError::BadBadge));
    }
    assert_eq!(door.held().await.len(), 2);
}

#[tokio::test]
async fn a_person_is_known_by_each_of_their_badges_and_a_badge_by_its_new_holder() {
    let server = StandIn::start().await;
    let numbers: Vec<String> = (0..50).map(|n| format!("c{n}")).collect();
    let mut many = person("c0", "Many", None);
    many.badges.clone_from(&numbers);
    let (holder, other) = (many.employee, server.ledger().rows[0].employee);
    server.ledger().rows.push(many);
    let door = Door::enrolled(&server).await;
    for number in &numbers {
        assert_eq!(door.punch(number, PunchKind::In).await.employee, Some(holder), "{number}");
    }
    // c7 changes hands: it is both's until then, so the server says whose it was.
    server.ledger().rows[0].badges.push("c7".to_owned());
    server.ledger().roster = "handed on soon".to_owned();
    door.sync().await;
    let soon = door.punch("c7", PunchKind::Out).await;
    assert_eq!((soon.employee, soon.badge.as_deref()), (None, Some("c7")));
    server.ledger().rows.last_mut().unwrap().badges.retain(|badge| badge != "c7");
    server.ledger().roster = "handed on".to_owned();
    door.sync().await;
    assert_eq!(door.punch("c7", PunchKind::In).await.employee, Some(other));
    assert_eq!(door.punch("c8", PunchKind::Out).await.employee, Some(holder));
    // A server that knows of one badge tells that one.
    server.ledger().rows.last_mut().unwrap().badges.clear();
    server.ledger().roster = "an older server".to_owned();
    door.sync().await;
    assert_eq!(door.punch("c0", PunchKind::In).await.employee, Some(holder));
    assert_eq!(door.punch("c8", PunchKind::In).await.employee, None);
}

#[tokio::test]
async fn a_pin_confirms_and_a_wrong_one_records_nothing() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let right = door.press("1001", PunchKind::In, Some("4711"), None).await.unwrap();
    assert_eq!(right.identified_by, IdentifiedBy::Pin);
    let unset = door.press("1002", PunchKind::In, Some("4711"), None).await.unwrap();
    assert_eq!(unset.identified_by, IdentifiedBy::Badge);
    assert_eq!(unset.notice, Some(Notice::PinNotChecked));
    for _ in 0..5 {
        let wrong = door.press("1001", PunchKind::Out, Some("0000"), None).await.unwrap_err();
        assert!(matches!(wrong, PunchError::WrongPin), "{wrong}");
    }
    // Now even the right one isn't looked at; the worker isn't stopped from punching.
    let throttled = door.press("1001", PunchKind::Out, Some("4711"), None).await.unwrap_err();
    assert!(matches!(throttled, PunchError::PinThrottled), "{throttled}");
    assert_eq!(door.held().await.len(), 2);
    assert_eq!(door.punch("1001", PunchKind::Out).await.seq, 3);
}

#[tokio::test]
async fn photos_follow_after_punches_and_a_refused_one_holds_up_no_other() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let photo = jpeg(b"first");
    let punch = door.press("1001", PunchKind::In, None, Some(&photo)).await.unwrap();
    assert_eq!(punch.photo, Some(Digest::of(&photo)));
    door.press("1001", PunchKind::Out, None, Some(&jpeg(b"second"))).await.unwrap();
    for bad in [&b""[..], b"GIF89a", &jpeg(&vec![0; 5 << 20])] {
        let refused = door.press("1001", PunchKind::In, None, Some(bad)).await.unwrap_err();
        assert!(matches!(refused, PunchError::BadPhoto(_)));
    }
    let report = door.sync().await;
    assert_eq!((report.delivered, report.photos_delivered, report.complete), (2, 2, true));
    assert!(server.ledger().photos.contains(&Digest::of(&photo)));
    let calls = server.ledger().calls.clone();
    let batch = calls.iter().position(|c| matches!(c, Call::Batch(_)));
    assert!(batch < calls.iter().position(|c| *c == Call::Photo));

    server.ledger().refuse_photos = true;
    door.press("1001", PunchKind::In, None, Some(&jpeg(b"third"))).await.unwrap();
    let report = door.sync().await;
    assert!(!report.complete && report.waiting == 0 && report.photos_waiting == 1);
    let status = door.device.status().await.unwrap().current.unwrap();
    assert_eq!((status.photos, status.photos_refused), (1, 1));
    server.ledger().refuse_photos = false;
    assert!(door.sync().await.complete);
}

#[tokio::test]
async fn a_damaged_photo_is_said_to_be_lost_and_its_punch_stands() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let photo = jpeg(b"frame");
    door.press("1001", PunchKind::In, None, Some(&photo)).await.unwrap();
    std::fs::remove_file(door.device.folder().photo(Digest::of(&photo))).unwrap();
    let report = door.sync().await;
    assert_eq!((report.delivered, report.photos_delivered), (1, 0));
    assert_eq!(door.device.status().await.unwrap().current.unwrap().photos_lost, 1);
}

#[tokio::test]
async fn every_status_acknowledges_and_unknown_codes_are_no_obstacle() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    server.ledger().quarantine_all = true;
    door.punch("1001", PunchKind::In).await;
    assert!(door.sync().await.complete);
}

#[tokio::test]
async fn the_manifest_is_walked_again_when_the_roster_differs_and_the_absent_are_forgotten() {
    let server = StandIn::start().await;
    server.ledger().page = 2;
    let more = (0..5).map(|n| person(&format!("20{n}"), "Temp", None));
    server.ledger().rows.extend(more);
    server.ledger().roster_changes_on_page = Some(1);
    let dir = tempfile::tempdir().unwrap();
    let device = Device::create(dir.path().join("d"), Options::default()).await.unwrap();
    let door = Door { _dir: dir, device };
    {
        let agent = door.device.lock_agent().unwrap();
        door.device.enroll(&agent, &server.url, CODE, "Gate 1").await.unwrap();
    }
    door.sync().await;
    assert_eq!(door.device.status().await.unwrap().employees, 0, "half a walk is not taken");
    door.sync().await;
    let status = door.device.status().await.unwrap();
    assert_eq!((status.employees, status.roster_version.as_deref()), (7, Some("r2")));

    server.ledger().rows.remove(0);
    door.sync().await;
    assert_eq!(door.device.status().await.unwrap().employees, 7, "the same version isn't walked");
    server.ledger().roster = "r3".to_owned();
    door.sync().await;
    assert_eq!(door.device.status().await.unwrap().employees, 6);
    assert_eq!(door.punch("1001", PunchKind::In).await.badge.as_deref(), Some("1001"));
}

#[tokio::test]
async fn an_earlier_identity_delivers_what_is_its_own() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let first = door.device.identity().await.unwrap().unwrap();
    door.punch("1001", PunchKind::In).await;
    {
        let agent = door.device.lock_agent().unwrap();
        door.device.enroll(&agent, &server.url, CODE, "Gate 1 again").await.unwrap();
    }
    let second = door.device.identity().await.unwrap().unwrap();
    assert_ne!(first.device, second.device);
    assert_eq!(door.punch("9999", PunchKind::Out).await.seq, 1, "a chain of its own");
    assert_eq!(door.device.status().await.unwrap().earlier[0].outbox, 1);

    let report = door.sync().await;
    assert_eq!((report.delivered, report.complete), (2, true));
    assert_eq!(server.ledger().captures(first.device).len(), 1);
    assert_eq!(server.ledger().captures(second.device).len(), 1);
    assert_eq!(door.device.status().await.unwrap().earlier[0].kept, 1);
}

#[tokio::test]
async fn captures_say_whether_the_server_was_out_of_reach() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    assert!(!door.punch("1001", PunchKind::In).await.offline);
    server.ledger().any_faults.extend(vec![Fault::Cut; 4]);
    server.ledger().batch_faults.push_back(Fault::Cut);
    assert!(!door.sync().await.complete);
    assert!(door.punch("1001", PunchKind::Out).await.offline);
    assert!(door.sync().await.complete);
    let held = door.held().await;
    let offline: Vec<bool> =
        held.iter().map(|kept| Capture::parse(&kept.bytes).unwrap().offline).collect();
    assert_eq!(offline, [false, true]);
}

#[tokio::test]
async fn one_badge_is_one_badge_however_a_reader_spells_it() {
    let (composed, apart) = ("Z\u{e9}-7", "Ze\u{301}-7");
    for (listed, read) in [(composed, apart), (apart, composed), (apart, apart)] {
        let server = StandIn::start().await;
        server.ledger().rows.push(person(listed, "Zoë", Some("4711")));
        let door = Door::enrolled(&server).await;
        let punch = door.press(read, PunchKind::In, Some("4711"), None).await.unwrap();
        assert_eq!((punch.name.as_deref(), punch.badge), (Some("Zoë"), None), "{listed} {read}");
        assert_eq!(punch.identified_by, IdentifiedBy::Pin);
    }
    // Two people with one badge in two spellings: nobody can say who it was.
    let server = StandIn::start().await;
    server.ledger().rows.extend([person(composed, "One", None), person(apart, "Two", None)]);
    let door = Door::enrolled(&server).await;
    let punch = door.punch(apart, PunchKind::In).await;
    assert_eq!((punch.employee, punch.badge.as_deref()), (None, Some(apart)), "as read");
    let long = door.punch(&"e\u{301}".repeat(64), PunchKind::In).await;
    assert_eq!(long.badge, Some("\u{e9}".repeat(64)), "sixty-four characters, and no more");
}
