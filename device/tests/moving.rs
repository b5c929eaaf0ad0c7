//! A device that is moved to another site: it hears so with a heartbeat, makes what follows there,
//! and delivers what it made elsewhere under the site that it was made at.

#![allow(clippy::unwrap_used, reason = "in a test that is the failure")]

mod door;

use punchtrail_device::{Device, Dispute, Drain, Pin};
use punchtrail_protocol::{
    DeviceId, SiteId,
    dispute::{About, DisputeCause},
};
use punchtrail_stand_in::{Call, Fault, StandIn, person};
use punchtrail_testkit::{PATIENCE, eventually};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::door::Door;

fn site() -> SiteId {
    SiteId(Uuid::new_v4())
}

/// Moves the device to a site with as many people, of other badges.
fn moved_to(server: &StandIn, site: SiteId) {
    let rows = vec![person("2001", "Zoe", Some("4711"))];
    server.ledger().move_to(site, rows);
}

async fn device(door: &Door) -> DeviceId {
    door.device.identity().await.unwrap().unwrap().device
}

/// Which sites the punches on the server were made at, in the order of their numbers.
async fn made_at(server: &StandIn, door: &Door) -> Vec<SiteId> {
    let device = device(door).await;
    let captures = server.ledger().captures(device);
    captures.into_iter().map(|capture| capture.site).collect()
}

/// Another process works on the folder from here on, as after a kill.
async fn anew(door: Door) -> Door {
    let device =
        Device::open(door.dir.path().join("d"), door::options(&door.clocks)).await.unwrap();
    Door { device, ..door }
}

#[tokio::test]
async fn what_was_made_before_goes_to_its_site_and_what_is_made_after_to_the_new_one() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let [first, second] = [server.ledger().site, site()];
    let employee = server.ledger().rows[0].employee;
    door.punch(Some(b"\xff\xd8\xffframe")).await;
    let dispute = Dispute {
        employee,
        pin: Pin::typed("4711"),
        about: About::Day("2026-09-20".parse().unwrap()),
        cause: DisputeCause::MissingPunch,
        text: "All day".to_owned(),
    };
    let dispute = door.device.dispute(dispute).await.unwrap().dispute;
    moved_to(&server, second);
    assert_eq!(door.punch(None).await.seq, 2, "the device hasn't heard yet");

    let report = door.sync().await;
    assert!(report.complete, "{report:?}");
    assert_eq!(made_at(&server, &door).await, [first, first]);
    assert_eq!(server.ledger().disputes[&dispute].site, first);
    assert_eq!(server.ledger().photos.len(), 1);
    let status = door.device.status().await.unwrap();
    assert_eq!(status.current.unwrap().site, second);
    assert_eq!((status.roster_site, status.employees), (Some(second), 1));

    let confirmed = door.punch(None).await;
    assert_eq!(confirmed.badge.as_deref(), Some("1001"), "nobody's here");
    assert!(door.sync().await.complete);
    assert_eq!(made_at(&server, &door).await, [first, first, second]);
}

#[tokio::test]
async fn until_the_new_sites_people_are_whole_the_door_knows_the_old_ones() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let [first, second] = [server.ledger().site, site()];
    moved_to(&server, second);
    server.ledger().always.insert("manifest", Fault::Refuse(500, "internal"));
    door.sync().await;
    let status = door.device.status().await.unwrap();
    assert_eq!(status.current.unwrap().site, second);
    assert_eq!((status.roster_site, status.employees), (Some(first), 2));
    assert_eq!(status.roster_version, None, "to be walked");
    let confirmed = door.punch(None).await;
    assert_eq!(confirmed.name.as_deref(), Some("Ada"));
    door.sync().await;
    assert_eq!(made_at(&server, &door).await, [second], "but it is made here");

    // Another process, killed between hearing and walking: it walks all the same.
    let door = anew(door).await;
    server.ledger().always.clear();
    assert!(door.sync().await.complete);
    let status = door.device.status().await.unwrap();
    assert_eq!((status.roster_site, status.employees), (Some(second), 1));
}

#[tokio::test]
async fn an_agent_that_ends_in_the_middle_of_the_walk_walks_when_it_starts_again() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let second = site();
    moved_to(&server, second);
    server.ledger().always.insert("manifest", Fault::Silent);
    let (agent, stop) = (door.device.lock_agent().unwrap(), CancellationToken::new());
    let at_site = async || door.status().await.site;
    let mut drain = Drain::new(&door.device, &agent);
    tokio::select! {
        () = drain.run(&stop) => {}
        heard = eventually("the move to be heard of", PATIENCE, async || {
            Ok((at_site().await == second && server.ledger().faulted > 0).then_some(()))
        }) => heard.unwrap(),
    }
    drop((drain, agent));
    server.ledger().always.clear();
    let door = anew(door).await;
    assert!(door.sync().await.complete);
    assert_eq!(door.device.status().await.unwrap().roster_site, Some(second));
}

#[tokio::test]
async fn a_device_that_is_moved_while_it_is_offline_ends_at_the_last_site() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let sites = [server.ledger().site, site(), site(), site()];
    door.punch(None).await;
    for moved in &sites[1..] {
        moved_to(&server, *moved);
    }
    assert!(door.sync().await.complete);
    door.punch(None).await;
    assert!(door.sync().await.complete);
    assert_eq!(made_at(&server, &door).await, [sites[0], sites[3]]);
    // And back to where it began.
    let rows = vec![person("1001", "Ada", Some("4711"))];
    server.ledger().move_to(sites[0], rows);
    assert!(door.sync().await.complete);
    assert_eq!(door.punch(None).await.name.as_deref(), Some("Ada"));
    assert!(door.sync().await.complete);
    assert_eq!(made_at(&server, &door).await, [sites[0], sites[3], sites[0]]);
}

#[tokio::test]
async fn a_batch_is_of_one_site() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let first = server.ledger().site;
    for _ in 0..2 {
        // Heard with the heartbeat, while batches fail.
        server.ledger().always.insert("batch", Fault::Refuse(500, "internal"));
        door.punch_times(3).await;
        moved_to(&server, site());
        door.sync().await;
    }
    door.punch_times(2).await;
    server.ledger().always.clear();
    server.ledger().calls.clear();
    assert!(door.sync().await.complete);
    let made = made_at(&server, &door).await;
    assert_eq!(made[..3], [first; 3]);
    assert!(made[3..6].iter().all(|at| *at == made[3]) && made[6] == made[7]);
    assert_eq!(made.len(), 8);
    let mut batches = server.ledger().batches();
    batches.dedup();
    assert!(batches.iter().all(|batch| made_together(batch)), "{batches:?}");
}

fn made_together(batch: &[u64]) -> bool {
    let which = |seq: &u64| (seq - 1) / 3;
    batch.iter().all(|seq| which(seq) == which(&batch[0]))
}

#[tokio::test]
async fn a_server_that_names_no_site_moves_nothing() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let first = server.ledger().site;
    server.ledger().without_site = true;
    door.punch(None).await;
    assert!(door.sync().await.complete);
    assert_eq!(door.status().await.site, first);
    assert!(!server.ledger().calls.contains(&Call::Manifest), "nothing is walked for it");
}

#[tokio::test]
async fn a_server_that_went_back_to_before_the_move_holds_up_nothing_and_loses_nothing() {
    let server = StandIn::start().await;
    server.ledger().part_at(100);
    let door = Door::enrolled(&server).await;
    let [first, second] = [server.ledger().site, site()];
    door.punch(None).await;
    assert!(door.sync().await.complete);
    let copy = server.ledger().head;
    moved_to(&server, second);
    assert!(door.sync().await.complete);
    door.punch_times(2).await;
    assert!(door.sync().await.complete);

    // The copy knows nothing of the move.
    {
        let mut ledger = server.ledger();
        ledger.part_at(copy);
        ledger.served.clear();
        ledger.site = first;
        ledger.rows = vec![person("1001", "Ada", Some("4711"))];
    }
    let report = door.sync().await;
    assert!(!report.complete);
    assert_eq!(door.status().await.site, first, "as the server says");
    assert_eq!((report.waiting, made_at(&server, &door).await.len()), (2, 1));
    door.punch(None).await;
    door.sync().await;
    assert_eq!(made_at(&server, &door).await, [first, first], "these go all the same");
    let status = door.status().await;
    assert_eq!((status.outbox, status.refused), (2, 2));
    assert_eq!(status.last_error.unwrap().code, "not_found");

    // Somebody moves it there again.
    moved_to(&server, second);
    assert!(door.sync().await.complete);
    assert_eq!(made_at(&server, &door).await, [first, second, second, first]);
}
