//! Pictures of faces beside the punch: sealed while they wait, taken again, judged, erased; and
//! nothing of that ever in the punch's way.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod door;

use std::{path::Path, sync::Arc};

use punchtrail_device::{
    Device, Reference, ReferenceError, RetakeError, Retaken, VerdictError, Which,
    folder::PhotoFile, glance::Glance,
};
use punchtrail_protocol::{
    Digest, EmployeeId, Position,
    attachment::{ATTEMPTS_MAX, Attachment},
    guidance::Guidance,
    vocabulary::Standing,
    wire::Verdict,
};
use punchtrail_stand_in::{Call, Fault, HeldAttachment, REFERENCES_CODE, StandIn};
use punchtrail_testkit::{PATIENCE, eventually};
use uuid::Uuid;
use zeroize::Zeroizing;

use self::door::{DAY_MS, Door};

/// A run of bytes that is in every photo of these tests and in nothing else.
const FACE: &[u8] = b"eyes-nose-mouth:0190b5a27f3e7c1a";

fn jpeg(tail: &str) -> Vec<u8> {
    let body = FACE.repeat(2_000);
    [&[0xff, 0xd8, 0xff, 0xe0], body.as_slice(), tail.as_bytes()].concat()
}

/// Files below `dir` that show something of a photo.
fn shown(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(shown(&path));
        } else if std::fs::read(&path).unwrap().windows(12).any(|run| run == &FACE[..12]) {
            found.push(path);
        }
    }
    found
}

impl Door {
    async fn sealing(server: &StandIn) -> Self {
        server.ledger().new_photo_key();
        Self::enrolled(server).await
    }

    async fn retake(&self, tail: &str) -> Retaken {
        self.device.retake(Which::Last, Zeroizing::new(jpeg(tail))).await.unwrap()
    }

    fn sealed_file(&self, photo: Digest) -> std::path::PathBuf {
        self.device.folder().photo(PhotoFile::Sealed(photo, 1))
    }
}

fn verdict(attempt: u32, guidance: &[Guidance]) -> Verdict {
    Verdict {
        standing: Standing::Recorded,
        attempt: Some(attempt),
        guidance: guidance.to_vec(),
        retake: !guidance.is_empty(),
        position: Position(103),
    }
}

#[tokio::test]
async fn a_stolen_device_shows_no_photo() {
    let server = StandIn::start().await;
    let door = Door::sealing(&server).await;
    let photo = door.punch(Some(&jpeg("first"))).await.photo.unwrap();
    let again = door.retake("second").await.photo;
    assert!(door.sealed_file(photo).exists() && door.sealed_file(again).exists());
    assert_eq!(shown(door.dir.path()), [] as [std::path::PathBuf; 0]);
    assert!(door.status().await.photos_sealed);

    assert!(door.sync().await.complete);
    assert_eq!(shown(door.dir.path()), [] as [std::path::PathBuf; 0], "nor what was delivered");
    let ledger = server.ledger();
    assert!(ledger.photos.contains(&photo) && ledger.photos.contains(&again));
    assert_eq!(ledger.sealed, 2);
}

#[tokio::test]
async fn what_was_kept_before_the_key_came_is_sealed_then_and_none_is_lost() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let delivered = door.punch(Some(&jpeg("delivered"))).await.photo.unwrap();
    assert!(door.sync().await.complete);
    server.ledger().refuse_photos = true;
    let waiting = door.punch(Some(&jpeg("waiting"))).await.photo.unwrap();
    assert_eq!(shown(door.dir.path()).len(), 2, "as it was without a key");

    server.ledger().new_photo_key();
    server.ledger().roster = "r2".to_owned();
    assert!(!door.sync().await.complete);
    assert_eq!(shown(door.dir.path()), [] as [std::path::PathBuf; 0]);
    assert!(door.sealed_file(delivered).exists() && door.sealed_file(waiting).exists());
    server.ledger().refuse_photos = false;
    assert!(door.sync().await.complete);
    assert_eq!(server.ledger().sealed, 1);
    assert_eq!(server.ledger().photos.len(), 2);

    // A crash after the commit leaves the plain file; the next agent removes it.
    let left = door.device.folder().photo(waiting);
    std::fs::write(&left, jpeg("waiting")).unwrap();
    let agent = door.device.lock_agent().unwrap();
    door.device.sweep_photos(&agent).await.unwrap();
    assert!(!left.exists() && door.sealed_file(waiting).exists());
}

#[tokio::test]
async fn sealing_that_is_broken_off_leaves_the_photo_sendable() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let photo = door.punch(Some(&jpeg("frame"))).await.photo.unwrap();
    server.ledger().new_photo_key();
    let key = server.ledger().photo_secrets[0].key();
    let mut write = door.device.store().write().await.unwrap();
    punchtrail_device::store::contact::told_photo_key(&mut write, 1, &key).await.unwrap();
    write.commit().await.unwrap();
    // Broken off after each step; what is on the disk then is what a killed process leaves.
    for steps in 0..12 {
        let mut sealing = Box::pin(door.device.seal_photos(1));
        for _ in 0..steps {
            if futures::poll!(&mut sealing).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(sealing);
        let plain = std::fs::read(door.device.folder().photo(photo)).ok();
        assert!(plain.is_some_and(|b| b == jpeg("frame")) || door.sealed_file(photo).exists());
    }
    assert!(door.sync().await.complete);
    assert!(server.ledger().photos.contains(&photo));
    assert_eq!(shown(door.dir.path()), [] as [std::path::PathBuf; 0]);
}

#[tokio::test]
async fn a_changed_key_is_used_from_then_on_and_what_was_sealed_before_stays() {
    let server = StandIn::start().await;
    let door = Door::sealing(&server).await;
    server.ledger().refuse_photos = true;
    let before = door.punch(Some(&jpeg("before"))).await.photo.unwrap();
    let first = std::fs::read(door.sealed_file(before)).unwrap();
    server.ledger().new_photo_key();
    server.ledger().roster = "r2".to_owned();
    door.sync().await;
    let after = door.punch(Some(&jpeg("after"))).await.photo.unwrap();
    assert_eq!(std::fs::read(door.sealed_file(before)).unwrap(), first);
    let newest = server.ledger().photo_secrets[1].clone();
    let sealed = std::fs::read(door.sealed_file(after)).unwrap();
    assert_eq!(punchtrail_protocol::sealed_photo::open(&newest, &sealed), Ok(jpeg("after")));
    server.ledger().refuse_photos = false;
    assert!(door.sync().await.complete);
    assert_eq!(server.ledger().sealed, 2);
}

#[tokio::test]
async fn a_server_that_takes_no_sealed_photos_loses_none() {
    let server = StandIn::start().await;
    let door = Door::sealing(&server).await;
    let photo = door.punch(Some(&jpeg("frame"))).await.photo.unwrap();
    // Put back to a version before there was a key.
    let secrets = std::mem::take(&mut server.ledger().photo_secrets);
    assert!(!door.sync().await.complete);
    server.ledger().always.insert("photos", Fault::Refuse(413, "payload_too_large"));
    assert!(!door.sync().await.complete);
    let status = door.status().await;
    assert_eq!((status.outbox, status.photos, status.photos_refused), (0, 1, 1));
    assert!(door.sealed_file(photo).exists());
    server.ledger().always.clear();
    server.ledger().photo_secrets = secrets;
    assert!(door.sync().await.complete);
    assert!(server.ledger().photos.contains(&photo));
}

#[tokio::test]
async fn a_key_that_cannot_be_read_leaves_photos_as_they_were() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let page = r#"{"data":[],"policy":POLICY,"roster":"r9","photo_key":"AAAA","has_more":false}"#;
    let policy = serde_json::to_string(&server.ledger().policy).unwrap();
    server.ledger().roster = "r9".to_owned();
    let body = Fault::Body(page.replace("POLICY", &policy));
    server.ledger().always.insert("manifest", body);
    assert!(door.sync().await.complete);
    assert!(!door.status().await.photos_sealed);
    door.punch(Some(&jpeg("frame"))).await;
    assert!(door.sync().await.complete);
}

#[tokio::test]
async fn retakes_follow_their_punch_in_order_and_before_photos() {
    let server = StandIn::start().await;
    let door = Door::sealing(&server).await;
    let punch = door.punch(Some(&jpeg("first"))).await;
    let (one, two) = (door.retake("one").await, door.retake("two").await);
    assert_eq!((one.punch, one.attempt, two.attempt), (punch.punch, 1, 2));
    let status = door.status().await;
    assert_eq!((status.outbox, status.attachments, status.photos), (1, 2, 3));

    let report = door.sync().await;
    let delivered = (report.delivered, report.attachments_delivered, report.photos_delivered);
    assert_eq!((delivered, report.complete), ((1, 2, 3), true), "{report:?}");
    let calls = server.ledger().calls.clone();
    assert_eq!(calls[0], Call::Heartbeat { outbox: 1, photos: 3 });
    let sent: Vec<_> = calls
        .iter()
        .filter(|call| !matches!(call, Call::Heartbeat { .. } | Call::Manifest))
        .collect();
    let order = [Call::Batch(vec![1]), Call::Attachment(1), Call::Attachment(2)];
    assert_eq!(sent[..3], order.each_ref());
    let ledger = server.ledger();
    let held = &ledger.attachments[&(punch.punch, 2)];
    assert_eq!(Attachment::parse(&held.bytes).unwrap().photo, two.photo);
}

#[tokio::test]
async fn a_retake_that_is_refused_for_good_is_shown_and_its_photo_kept() {
    for (fault, code) in [
        (None, "conflict"),
        (Some(Fault::Refuse(422, "bad_signature")), "bad_signature"),
        (Some(Fault::Refuse(422, "invalid")), "invalid"),
        (Some(Fault::Refuse(403, "forbidden")), "forbidden"),
    ] {
        let server = StandIn::start().await;
        let door = Door::sealing(&server).await;
        let punch = door.punch(None).await.punch;
        let refused = door.retake("refused").await;
        match fault {
            Some(fault) => drop(server.ledger().always.insert("attachments", fault)),
            None => {
                let held = HeldAttachment { bytes: b"other".to_vec(), position: 9 };
                server.ledger().attachments.insert((punch, 1), held);
            }
        }
        let report = door.sync().await;
        assert_eq!((report.complete, report.attachments_waiting), (true, 0), "{code}: {report:?}");
        assert_eq!(report.error.unwrap().code, code);
        let status = door.status().await;
        assert_eq!((status.attachments, status.attachments_failed), (0, 1));
        let failed = &status.failed_attachments[0];
        assert_eq!((failed.punch, failed.attempt, failed.code.as_str()), (punch, 1, code));
        assert!(door.sealed_file(refused.photo).exists());
        // The next attempt is another, and it is taken.
        server.ledger().always.clear();
        assert_eq!(door.retake("next").await.attempt, 2);
        assert!(door.sync().await.complete);
        assert!(server.ledger().attachments.contains_key(&(punch, 2)));
    }
}

#[tokio::test]
async fn a_server_without_attachments_holds_up_nothing_and_loses_nothing() {
    for fault in [Fault::Refuse(404, "not_found"), Fault::Html(404), Fault::Silent] {
        let server = StandIn::start().await;
        let door = Door::sealing(&server).await;
        door.punch(Some(&jpeg("first"))).await;
        door.retake("again").await;
        server.ledger().always.insert("attachments", fault.clone());
        let report = door.sync().await;
        let waiting = (report.waiting, report.attachments_waiting);
        assert_eq!((report.complete, waiting), (false, (0, 1)), "{fault:?}: {report:?}");
        let status = door.status().await;
        assert_eq!((status.attachments, status.attachments_failed), (1, 0));
        assert!(status.errors.iter().any(|error| error.of == "attachments"), "{fault:?}");
        door.punch(Some(&jpeg("another"))).await;
        door.sync().await;
        assert_eq!(server.ledger().photos.len(), 3, "{fault:?}");
        server.ledger().always.clear();
        assert!(door.sync().await.complete, "{fault:?}");
        assert_eq!(server.ledger().attachments.len(), 1);
    }
}

#[tokio::test]
async fn a_retake_waits_for_its_punch() {
    let server = StandIn::start().await;
    let door = Door::sealing(&server).await;
    let punch = door.punch(None).await.punch;
    door.retake("again").await;
    server.ledger().refuse_punch = Some(punch);
    let report = door.sync().await;
    assert_eq!((report.waiting, report.attachments_waiting), (1, 1));
    assert!(!server.ledger().calls.contains(&Call::Attachment(1)));
    server.ledger().refuse_punch = None;
    assert!(door.sync().await.complete);
    assert_eq!(server.ledger().attachments.len(), 1);
}

#[tokio::test]
async fn a_restore_brings_retakes_back_and_the_window_ends_them() {
    let server = StandIn::start().await;
    server.ledger().part_at(100);
    let door = Door::sealing(&server).await;
    let punch = door.punch(Some(&jpeg("first"))).await.punch;
    assert!(door.sync().await.complete);
    door.retake("one").await;
    assert!(door.sync().await.complete);
    let again = door.retake("two").await.photo;
    assert!(door.sync().await.complete);
    let before = server.ledger().attachments.clone();
    assert_eq!(before[&(punch, 1)].position, 102);

    // The copy has the first retake and lacks the second, and the photo of it.
    server.ledger().part_at(102);
    server.ledger().photos.remove(&again);
    server.ledger().calls.clear();
    assert!(door.sync().await.complete);
    let calls = server.ledger().calls.clone();
    assert!(calls.contains(&Call::Attachment(2)) && !calls.contains(&Call::Attachment(1)));
    assert_eq!(server.ledger().attachments[&(punch, 2)].bytes, before[&(punch, 2)].bytes);
    assert!(server.ledger().photos.contains(&again));

    for day in 1..=32 {
        door.clocks.pass_ms(DAY_MS);
        server.pass_ms(DAY_MS);
        assert!(door.sync().await.complete);
        assert!(day >= 30 || door.sealed_file(again).exists(), "day {day}");
    }
    assert!(door.held().await.is_empty() && !door.sealed_file(again).exists());
    let gone = door.device.retake(Which::Punch(punch), Zeroizing::new(jpeg("late"))).await;
    assert!(matches!(gone, Err(RetakeError::UnknownPunch(_))));
}

#[tokio::test]
async fn what_cannot_be_a_retake_is_refused_and_the_punch_stands() {
    let server = StandIn::start().await;
    let door = Door::sealing(&server).await;
    let retake = async |which, bytes: &[u8]| {
        door.device.retake(which, Zeroizing::new(bytes.to_vec())).await.map(|r| r.attempt)
    };
    let none = retake(Which::Last, &jpeg("none")).await.unwrap_err();
    assert_eq!(none.code(), "unknown_punch");
    door.punch(None).await;
    let other = Which::Punch(Uuid::new_v4().into());
    assert_eq!(retake(other, &jpeg("x")).await.unwrap_err().code(), "unknown_punch");
    for bad in [&b""[..], b"GIF89a", &[&[0xff, 0xd8, 0xff][..], &vec![0; 5 << 20]].concat()] {
        let refused = retake(Which::Last, bad).await.unwrap_err();
        assert!(refused.to_string().contains("The punch stands"), "{refused}");
    }
    for attempt in 1..=ATTEMPTS_MAX {
        assert_eq!(retake(Which::Last, &jpeg(&attempt.to_string())).await.unwrap(), attempt);
    }
    assert_eq!(retake(Which::Last, &jpeg("x")).await.unwrap_err().code(), "too_many_attempts");
    assert!(door.sync().await.complete);
    assert_eq!(server.ledger().attachments.len(), ATTEMPTS_MAX as usize);
}

#[tokio::test]
async fn a_verdict_comes_with_words_and_on_the_newest_picture() {
    let server = StandIn::start().await;
    server.ledger().policy.languages = vec!["es-419".to_owned(), "en".to_owned()];
    let door = Door::sealing(&server).await;
    let punch = door.punch(Some(&jpeg("first"))).await.punch;
    let none = door.device.verdict(Which::Last, 0, None).await.unwrap_err();
    assert!(none.to_string().contains("The punch stands"), "{none}");
    assert!(door.sync().await.complete);
    let early = door.device.verdict(Which::Last, 0, None).await.unwrap();
    assert_eq!((early.attempt, early.standing.as_str()), (None, "recorded"));

    server.ledger().verdicts.push_back(verdict(0, &[Guidance::ComeCloser]));
    let first = door.device.verdict(Which::Punch(punch), 5, None).await.unwrap();
    assert_eq!((first.attempt, first.retake), (Some(0), true));
    let advice = &first.guidance[0];
    assert_eq!((advice.code.as_str(), advice.text), ("come_closer", Some("Acércate más")));

    door.retake("closer").await;
    assert!(door.sync().await.complete);
    let old = [verdict(0, &[Guidance::ComeCloser]), verdict(1, &[])];
    server.ledger().verdicts.extend(old);
    let second = door.device.verdict(Which::Last, 20, Some("de")).await.unwrap();
    assert_eq!((second.attempt, second.guidance.len()), (Some(1), 0));

    server.ledger().verdicts.push_back(verdict(1, &[Guidance::HoldStill]));
    let german = door.device.verdict(Which::Last, 0, Some("de-AT")).await.unwrap();
    assert_eq!(german.guidance[0].text, Some("Halt still"));
    let later = r#"{"standing":"pondered","attempt":1,"guidance":["smile"],"retake":false,
        "position":7,"more":1}"#;
    server.ledger().always.insert("verdict", Fault::Body(later.to_owned()));
    let later = door.device.verdict(Which::Last, 0, None).await.unwrap();
    assert_eq!((later.guidance[0].code.as_str(), later.guidance[0].text), ("smile", None));
}

#[tokio::test]
async fn a_verdict_is_waited_for_and_no_longer_than_asked() {
    let server = StandIn::start().await;
    let door = Door::sealing(&server).await;
    door.punch(Some(&jpeg("first"))).await;
    assert!(door.sync().await.complete);
    let asked = async {
        let look = async || Ok(server.ledger().calls.contains(&Call::Verdict).then_some(()));
        eventually("the verdict to be asked for", PATIENCE, look).await.unwrap();
        server.ledger().verdicts.push_back(verdict(0, &[Guidance::MoreLight]));
    };
    let (judged, ()) = tokio::join!(door.device.verdict(Which::Last, 20, None), asked);
    assert_eq!(judged.unwrap().guidance.len(), 1);
    let none = door.device.verdict(Which::Last, 1, None).await.unwrap();
    assert_eq!(none.attempt, None);
    // A retake that nobody delivers is no reason to hang.
    door.retake("again").await;
    assert_eq!(door.device.verdict(Which::Last, 1, None).await.unwrap().attempt, None);
    for (fault, code) in [
        (Fault::Cut, "no_answer"),
        (Fault::Silent, "no_answer"),
        (Fault::OneAtATime, "one_at_a_time"),
        (Fault::Refuse(404, "not_found"), "not_found"),
        (Fault::Html(502), "senseless_answer"),
    ] {
        server.ledger().always.insert("verdict", fault);
        let failed = door.device.verdict(Which::Last, 1, None).await.unwrap_err();
        assert!(matches!(failed, VerdictError::Call(_)));
        assert_eq!(failed.code(), code);
    }
}

#[tokio::test]
async fn references_go_out_under_a_code_and_stay_nowhere() {
    let server = StandIn::start().await;
    let door = Door::sealing(&server).await;
    let employee = server.ledger().rows[0].employee;
    let reference = |photos: &[&str], code: &str| Reference {
        employee,
        code: code.to_owned(),
        photos: photos.iter().map(|tail| Zeroizing::new(jpeg(tail))).collect(),
        notice: "2026-01".to_owned(),
        language: "de".to_owned(),
    };
    for photos in [&[][..], &["same", "same"], &["1", "2", "3", "4", "5", "6", "7", "8", "9"]] {
        let refused = door.device.reference(reference(photos, REFERENCES_CODE)).await.unwrap_err();
        assert!(matches!(refused, ReferenceError::PhotoCount));
    }
    let wrong = door.device.reference(reference(&["a"], "AEIO-UAEI")).await.unwrap_err();
    assert!(matches!(wrong, ReferenceError::BadCode(_)));
    assert!(server.ledger().photos.is_empty(), "nothing was sent");
    let foreign = door.device.reference(reference(&["a"], "BCDF-GHJK")).await.unwrap_err();
    assert_eq!(foreign.code(), "pairing_code_invalid");

    let answer = door.device.reference(reference(&["a", "b"], "kjhgfdcb")).await.unwrap();
    assert_eq!((answer.employee, answer.references), (employee, 2));
    let (of, sent) = server.ledger().references[0].clone();
    assert_eq!((of, sent.notice.as_str(), sent.language.as_str()), (employee, "2026-01", "de"));
    assert_eq!(sent.photos, [Digest::of(&jpeg("a")), Digest::of(&jpeg("b"))]);
    assert_eq!(server.ledger().sealed, 3);
    let again = door.device.reference(reference(&["c"], REFERENCES_CODE)).await.unwrap_err();
    assert_eq!(again.code(), "pairing_code_invalid");
    assert_eq!(shown(door.dir.path()), [] as [std::path::PathBuf; 0]);
    assert_eq!(std::fs::read_dir(door.device.folder().path().join("photos")).unwrap().count(), 0);
}

#[tokio::test]
async fn photos_of_a_person_are_erased_and_the_punches_stand() {
    for sealed in [true, false] {
        let server = StandIn::start().await;
        let door = match sealed {
            true => Door::sealing(&server).await,
            false => Door::enrolled(&server).await,
        };
        let (ada, other): (EmployeeId, _) = (server.ledger().rows[0].employee, "1002");
        let delivered = door.punch(Some(&jpeg("delivered"))).await.photo.unwrap();
        assert!(door.sync().await.complete);
        let waiting = door.punch(Some(&jpeg("waiting"))).await.photo.unwrap();
        let again = door.retake("again").await.photo;
        let press = punchtrail_device::Press {
            badge: other.to_owned(),
            kind: punchtrail_protocol::capture::PunchKind::In,
            pin: None,
            photo: Some(Zeroizing::new(jpeg("another"))),
        };
        let kept = door.device.punch(press).await.unwrap().photo.unwrap();

        assert_eq!(door.device.forget_photos(ada).await.unwrap(), 3);
        assert_eq!(door.device.forget_photos(ada).await.unwrap(), 0);
        let status = door.status().await;
        let counts = (status.photos_erased, status.photos_lost, status.photos, status.outbox);
        assert_eq!(counts, (3, 0, 1, 2));
        let file = |photo| match sealed {
            true => PhotoFile::Sealed(photo, 1),
            false => PhotoFile::Plain(photo),
        };
        let exists = |photo| door.device.folder().photo(file(photo)).exists();
        assert_eq!([delivered, waiting, again, kept].map(exists), [false, false, false, true]);
        assert!(door.sync().await.complete);
        assert_eq!(server.ledger().photos.len(), 2, "the one from before, and the other's");
        assert_eq!(server.ledger().punches.len(), 3);
        assert_eq!(server.ledger().attachments.len(), 1);
    }
}

struct Said(&'static [Guidance]);

impl Glance for Said {
    fn guidance(&self, photo: &[u8]) -> Vec<Guidance> {
        assert!(!photo.ends_with(b"breaks it"), "told to");
        self.0.to_vec()
    }
}

#[tokio::test]
async fn a_glance_advises_at_once_and_cannot_undo_a_punch() {
    let server = StandIn::start().await;
    server.ledger().rows[0].face = true;
    let door = Door::sealing(&server).await;
    assert_eq!(door.punch(Some(&jpeg("unseen"))).await.guidance, []);
    let glance: Arc<dyn Glance> = Arc::new(Said(&[Guidance::HoldStill]));
    let options =
        punchtrail_device::Options { glance: Some(glance), ..door::options(&door.clocks) };
    let Door { dir, clocks, device } = door;
    device.close().await;
    let device = Device::open(dir.path().join("d"), options).await.unwrap();
    let door = Door { dir, device, clocks };
    let punch = door.punch(Some(&jpeg("blurred"))).await;
    assert_eq!((punch.face, punch.guidance), (true, vec![Guidance::HoldStill]));
    assert_eq!(door.retake("blurred again").await.guidance, [Guidance::HoldStill]);
    let punch = door.punch(Some(&jpeg("breaks it"))).await;
    assert_eq!((punch.seq, punch.guidance), (3, vec![]));
    assert!(door.sync().await.complete);
    assert_eq!(server.ledger().punches.len(), 3);
}
