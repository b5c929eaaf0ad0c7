//! A server that is busy, gone, cut off, wrong, or put back to an earlier day: nothing is lost,
//! nothing counts twice, and no two tries follow one another without a pause.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

use std::{future::Future, time::Duration};

use punchtrail_device::{
    Device, Drain, Options, Press, SyncReport,
    status::IdentityStatus,
    store::{StoreError, contact},
};
use punchtrail_protocol::{DeviceId, capture::PunchKind};
use punchtrail_stand_in::{CODE, Call, Fault, StandIn};
use punchtrail_testkit::{PATIENCE, eventually};
use tokio_util::sync::CancellationToken;

struct Door {
    dir: tempfile::TempDir,
    device: Device,
    id: DeviceId,
}

/// Short waits, so that a test of many failures is over soon; the floor between tries stays.
fn options() -> Options {
    Options { retry_cap_ms: 1_000, ..Options::default() }
}

impl Door {
    async fn enrolled(server: &StandIn) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = Device::create(dir.path().join("d"), options()).await.unwrap();
        let id = {
            let agent = device.lock_agent().unwrap();
            let identity = device.enroll(&agent, &server.url, CODE, "Gate").await.unwrap();
            Drain::new(&device, &agent).sync().await.unwrap();
            identity.device
        };
        server.ledger().calls.clear();
        Self { dir, device, id }
    }

    async fn punch_times(&self, times: usize) {
        for _ in 0..times {
            let press =
                Press { badge: "1001".to_owned(), kind: PunchKind::In, pin: None, photo: None };
            self.device.punch(press).await.unwrap();
        }
    }

    async fn sync(&self) -> SyncReport {
        let agent = self.device.lock_agent().unwrap();
        Drain::new(&self.device, &agent).sync().await.unwrap()
    }

    async fn status(&self) -> IdentityStatus {
        self.device.status().await.unwrap().current.unwrap()
    }

    /// Runs the agent until `reached`, bounded, and stops it.
    async fn run_until<F: Future<Output = bool>>(&self, mut reached: impl FnMut() -> F) {
        let agent = self.device.lock_agent().unwrap();
        let stop = CancellationToken::new();
        let mut drain = Drain::new(&self.device, &agent);
        let watch = async {
            let look = async || Ok(reached().await.then_some(()));
            eventually("what the agent is to reach", PATIENCE, look).await.unwrap();
            stop.cancel();
        };
        tokio::join!(drain.run(&stop), watch);
    }
}

#[tokio::test]
async fn a_busy_server_is_given_its_time_and_then_everything() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(3).await;
    server.ledger().batch_faults.extend([Fault::Busy(1), Fault::OneAtATime, Fault::Html(503)]);
    let began = tokio::time::Instant::now();
    let report = door.sync().await;
    assert!(report.complete, "{report:?}");
    assert!(began.elapsed() >= Duration::from_secs(3), "a pause after each of three refusals");
    assert_eq!(server.ledger().captures(door.id).len(), 3);
}

#[tokio::test]
async fn a_long_retry_after_ends_a_sync_and_holds_across_a_restart() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(1).await;
    server.ledger().batch_faults.push_back(Fault::Busy(600));
    let report = door.sync().await;
    assert!(!report.complete);
    assert_eq!(report.error.unwrap().code, "busy");
    let calls = server.ledger().calls.len();
    door.device.close().await;

    let device = Device::open(door.dir.path().join("d"), options()).await.unwrap();
    let again = Door { dir: door.dir, device, id: door.id };
    let report = again.sync().await;
    assert!(!report.complete && report.waiting == 1);
    assert_eq!(server.ledger().calls.len(), calls, "no call before the server's time has come");
    assert_eq!(again.status().await.last_error.unwrap().code, "busy");
}

#[tokio::test]
async fn an_answer_that_got_lost_makes_duplicates_not_second_punches() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(2).await;
    server.ledger().batch_faults.push_back(Fault::CutAfterCommit);
    let report = door.sync().await;
    assert!(report.complete, "{report:?}");
    let ledger = server.ledger();
    assert_eq!(ledger.batches(), [[1, 2], [1, 2]]);
    assert_eq!((ledger.captures(door.id).len(), ledger.head), (2, 102));
}

#[tokio::test]
async fn a_batch_too_large_is_halved_until_it_is_taken() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(9).await;
    server.ledger().batch_items_max = 3;
    assert!(door.sync().await.complete);
    let sizes: Vec<usize> = server.ledger().batches().iter().map(Vec::len).collect();
    assert_eq!(sizes[..2], [9, 4]);
    assert_eq!(server.ledger().captures(door.id).len(), 9);
}

#[tokio::test]
async fn a_punch_that_a_server_wrongly_refuses_is_kept_and_holds_up_no_other() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(3).await;
    let second = {
        let mut db = door.device.store().read().await.unwrap();
        punchtrail_device::store::outbox::next(&mut db, 1, 3).await.unwrap()[1].punch
    };
    server.ledger().refuse_punch = Some(second);
    let report = door.sync().await;
    assert_eq!((report.complete, report.delivered, report.waiting), (false, 2, 1));
    let status = door.status().await;
    assert_eq!((status.outbox, status.refused), (1, 1));
    assert!(status.last_error.unwrap().detail.contains("told to: invalid"));
    server.ledger().refuse_punch = None;
    assert!(door.sync().await.complete);
    assert_eq!(server.ledger().captures(door.id).len(), 3);
}

#[tokio::test]
async fn refusals_drop_nothing_and_are_shown() {
    for (status, code) in [(401, "unauthenticated"), (403, "forbidden"), (404, "not_found")] {
        let server = StandIn::start().await;
        let door = Door::enrolled(&server).await;
        door.punch_times(2).await;
        server.ledger().batch_faults.extend(vec![Fault::Refuse(status, code); 4]);
        let report = door.sync().await;
        assert_eq!((report.complete, report.waiting), (false, 2));
        assert_eq!(door.status().await.last_error.unwrap().code, code);
        assert!(door.sync().await.complete);
        assert!(door.status().await.last_error.is_none());
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_acknowledge_nothing() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(1).await;
    let other = StandIn::start().await;
    let elsewhere = Fault::Redirect(format!("{}/v1/x", other.url));
    server.ledger().batch_faults.extend([Fault::Html(200), Fault::Html(502), elsewhere]);
    // Each counts as out of contact, so a heartbeat comes first again.
    let report = door.sync().await;
    assert!(report.complete, "{report:?}");
    let calls = server.ledger().calls.clone();
    let beat = Call::Heartbeat { outbox: 1, photos: 0 };
    let emptied = Call::Heartbeat { outbox: 0, photos: 0 };
    let batch = Call::Batch(vec![1]);
    let expected = [&beat, &batch, &beat, &batch, &beat, &batch, &beat, &batch, &emptied];
    assert_eq!(calls.iter().collect::<Vec<_>>(), expected);
    assert!(other.ledger().calls.is_empty(), "redirects aren't followed");
}

#[tokio::test]
async fn a_restored_server_gets_back_what_it_lost() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(5).await;
    assert!(door.sync().await.complete);
    let before = server.ledger().captures(door.id);
    server.ledger().restore_to(102);
    assert_eq!(server.ledger().captures(door.id).len(), 2);

    let report = door.sync().await;
    assert!(report.complete);
    assert_eq!(report.delivered, 3);
    assert_eq!(server.ledger().captures(door.id), before);
    assert_eq!(door.sync().await.delivered, 0);
}

#[tokio::test]
async fn a_restore_is_noticed_from_a_shorter_ledger_too() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(3).await;
    assert!(door.sync().await.complete);
    // A hole that was there before keeps acked_through where it was.
    let first = server.ledger().captures(door.id)[0].punch;
    server.ledger().punches.remove(&(door.id, first));
    let mut write = door.device.store().write().await.unwrap();
    contact::told(&mut write, 1, 0, Some(1_000)).await.unwrap();
    write.commit().await.map_err(StoreError::from).unwrap();

    door.punch_times(1).await;
    assert!(door.sync().await.complete);
    assert_eq!(server.ledger().captures(door.id).len(), 4);
}

#[tokio::test]
async fn the_agent_delivers_what_comes_while_it_runs_and_rides_out_a_cut() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.punch_times(2).await;
    door.run_until(|| async { server.ledger().captures(door.id).len() == 2 }).await;

    server.ledger().any_faults.extend([Fault::Cut, Fault::Cut]);
    server.ledger().batch_faults.extend([Fault::CutAfterCommit, Fault::Busy(0)]);
    let mut punched = false;
    door.run_until(|| {
        // In the middle of it all, with the agent at work, a worker punches.
        let now = !std::mem::replace(&mut punched, true);
        let (door, server) = (&door, &server);
        async move {
            if now {
                door.punch_times(2).await;
            }
            door.status().await.outbox == 0 && server.ledger().captures(door.id).len() == 4
        }
    })
    .await;
    let numbers: Vec<u64> = server.ledger().captures(door.id).iter().map(|c| c.seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_stop_is_heard_while_the_agent_waits() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    server.ledger().any_faults.push_back(Fault::Busy(600));
    door.run_until(|| async { door.status().await.last_error.is_some() }).await;
}
