//! A server that answers some calls and not others: a sync gives up and says so, the agent goes on
//! with what can be done, and nothing is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod door;

use punchtrail_device::{
    Device, Drain,
    drain::{SYNC_CALLS_MAX, SYNC_TRIES_MAX},
};
use punchtrail_stand_in::{Call, Fault, StandIn};
use punchtrail_testkit::{PATIENCE, eventually};
use tokio_util::sync::CancellationToken;

use self::door::Door;

fn faults() -> Vec<Fault> {
    let deep = "[".repeat(100_000);
    let wrong = r#"{"results":7,"acked_through":-1,"ledger":"x","server_time":[],"data":{}}"#;
    vec![
        Fault::Refuse(500, "internal"),
        Fault::Refuse(503, "busy"),
        Fault::Refuse(401, "unauthenticated"),
        Fault::Refuse(413, "payload_too_large"),
        Fault::Refuse(422, "invalid"),
        Fault::Html(200),
        Fault::Html(502),
        Fault::Cut,
        Fault::Silent,
        Fault::SilentBody,
        Fault::Dripping,
        Fault::Endless,
        Fault::Body(deep),
        Fault::Body(wrong.to_owned()),
        Fault::Body("0".repeat(5 << 20)),
        Fault::Redirect("http://127.0.0.1:9/".to_owned()),
    ]
}

/// Syncs against a server that always does `fault` on `path`; gives what was said.
async fn given_up(path: &'static str, fault: Fault) {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(3).await;
    door.punch(Some(b"\xff\xd8\xffframe")).await;
    server.ledger().always.insert(path, fault.clone());
    let report = tokio::time::timeout(PATIENCE, door.sync()).await.expect("a sync ends");
    let error = report.error.unwrap_or_else(|| panic!("{path} {fault:?}: nothing said"));
    assert!(!report.complete, "{path} {fault:?}");
    let (of, faulted) = (error.of, server.ledger().faulted);
    let most = u64::from(SYNC_TRIES_MAX) * 3;
    assert!(faulted <= most, "{path} {fault:?}: {faulted} calls");
    let errors = door.status().await.errors;
    assert!(errors.iter().any(|error| error.of == of), "{path} {fault:?}: {errors:?}");
    // Nothing is lost, and the lock is free.
    server.ledger().always.clear();
    let report = door.sync().await;
    assert!(report.complete, "{path} {fault:?}: {report:?}");
    {
        let ledger = server.ledger();
        assert_eq!((ledger.punches.len(), ledger.photos.len()), (4, 1));
    }
    assert!(door.status().await.errors.is_empty(), "{path} {fault:?}");
}

#[tokio::test]
async fn a_sync_gives_up_when_only_batches_fail() {
    let own = [Fault::Results(0), Fault::OtherPunches, Fault::NoPunches];
    let all = faults().into_iter().chain(own).map(|fault| given_up("batch", fault));
    futures::future::join_all(all).await;
}

#[tokio::test]
async fn a_sync_gives_up_when_only_photos_fail() {
    // A photo's answer has no body that matters.
    let told = |fault: &Fault| {
        !matches!(fault, Fault::Html(200) | Fault::Body(_))
            && !matches!(fault, Fault::SilentBody | Fault::Dripping | Fault::Endless | Fault::Cut)
    };
    let all = faults().into_iter().filter(told).map(|fault| given_up("photos", fault));
    futures::future::join_all(all).await;
}

#[tokio::test]
async fn a_manifest_that_is_not_to_be_had_holds_up_no_punch() {
    for fault in [Fault::Silent, Fault::Html(500), Fault::Endless, Fault::Refuse(403, "forbidden")]
    {
        let server = StandIn::start().await;
        let door = Door::enrolled(&server).await;
        door.punch_times(3).await;
        server.ledger().roster = "r2".to_owned();
        server.ledger().always.insert("manifest", fault.clone());
        let report = door.sync().await;
        assert_eq!((report.delivered, report.waiting), (3, 0), "{fault:?}");
        let errors = door.status().await.errors;
        assert_eq!(errors.iter().map(|e| e.of).collect::<Vec<_>>(), ["manifest"], "{fault:?}");
        assert_eq!(report.error.unwrap().of, "manifest", "{fault:?}");
        server.ledger().always.clear();
        assert!(door.sync().await.complete);
        assert!(door.status().await.errors.is_empty());
    }
}

#[tokio::test]
async fn a_server_that_takes_punches_and_takes_them_back_is_left_alone() {
    let server = StandIn::start().await;
    server.ledger().policy.batch_max = 1;
    server.ledger().part_at(100);
    let door = Door::enrolled(&server).await;
    door.punch_times(3).await;
    server.ledger().forgets = true;
    let report = tokio::time::timeout(PATIENCE, door.sync()).await.expect("a sync ends");
    assert!(!report.complete, "{report:?}");
    let calls = server.ledger().calls.len();
    assert!(calls <= 2 * SYNC_CALLS_MAX as usize, "{calls} calls");
    server.ledger().forgets = false;
    assert!(door.sync().await.complete);
}

/// Runs the agent against a server that always does `fault` on `path` until `done`.
async fn at_work(
    (path, of): (&'static str, &str),
    fault: Fault,
    done: impl Fn(&StandIn) -> bool,
) -> Door {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(3).await;
    door.punch(Some(b"\xff\xd8\xffframe")).await;
    server.ledger().roster = "r2".to_owned();
    server.ledger().always.insert(path, fault.clone());
    let agent = door.device.lock_agent().unwrap();
    let stop = CancellationToken::new();
    let mut drain = Drain::new(&door.device, &agent);
    let watch = async {
        let what = format!("what goes on though {path} does {fault:?}");
        let look = async || Ok(done(&server).then_some(()));
        eventually(&what, PATIENCE, look).await.unwrap();
        // And what doesn't is said.
        let said = async || {
            let errors = door.status().await.errors;
            Ok(errors.iter().any(|error| error.of == of).then_some(()))
        };
        eventually("what fails to be said", PATIENCE, said).await.unwrap();
        stop.cancel();
    };
    tokio::join!(drain.run(&stop), watch);
    drop(drain);
    drop(agent);
    door
}

#[tokio::test]
async fn whatever_fails_for_ever_the_rest_goes_on() {
    let photos = |server: &StandIn| server.ledger().photos.len() == 1;
    let punches = |server: &StandIn| server.ledger().punches.len() == 4;
    let faults = [Fault::Silent, Fault::Html(500), Fault::Refuse(422, "invalid"), Fault::Cut];
    let each = faults.map(|fault| async move {
        tokio::join!(
            at_work(("batch", "punches"), fault.clone(), photos),
            at_work(("manifest", "manifest"), fault.clone(), move |s| photos(s) && punches(s)),
            at_work(("heartbeat", "heartbeat"), fault.clone(), move |s| photos(s) && punches(s)),
        )
    });
    futures::future::join_all(each).await;
}

#[tokio::test]
async fn one_punch_that_breaks_the_server_holds_up_no_other() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(20).await;
    let poison = {
        let mut db = door.device.store().read().await.unwrap();
        punchtrail_device::store::outbox::next(&mut db, 1, 20).await.unwrap()[4].punch
    };
    server.ledger().breaks_on = Some(poison);
    let agent = door.device.lock_agent().unwrap();
    let stop = CancellationToken::new();
    let mut drain = Drain::new(&door.device, &agent);
    let watch = async {
        let look = async || Ok((server.ledger().punches.len() == 19).then_some(()));
        eventually("all others to arrive", PATIENCE, look).await.unwrap();
        stop.cancel();
    };
    tokio::join!(drain.run(&stop), watch);
}

#[tokio::test]
async fn the_lock_is_free_after_a_sync_gave_up() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(1).await;
    server.ledger().always.insert("batch", Fault::Cut);
    assert!(!door.sync().await.complete);
    let again = Device::open(door.dir.path().join("d"), door::options(&door.clocks)).await.unwrap();
    again.lock_agent().unwrap();
}

#[tokio::test]
async fn a_manifest_that_never_ends_is_left_alone() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(2).await;
    server.ledger().roster = "r2".to_owned();
    // No row on any page, and always another page.
    server.ledger().page = 0;
    let report = door.sync().await;
    assert_eq!((report.delivered, report.error.unwrap().of), (2, "manifest"));
    let pages = server.ledger().calls.iter().filter(|call| **call == Call::Manifest).count();
    assert!(pages <= 2 * SYNC_TRIES_MAX as usize, "{pages} pages");
    assert_eq!(door.device.status().await.unwrap().employees, 2, "the one before stands");
}
