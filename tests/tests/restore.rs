//! A restore drill: an earlier copy of the database is put back, and the devices bring everything
//! back.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, eventually};
use punchtrail_tests::{
    Agent, Gate, Installation, Server, Shop, SmallDisk, agent::Punch, file, shop::BADGES,
};
use reqwest::Method;
use serde_json::Value;

async fn punch(agent: &Agent, times: usize) {
    for n in 0..times {
        let kind = if n % 2 == 0 { PunchKind::In } else { PunchKind::Out };
        let badge = BADGES[n % BADGES.len()];
        agent.punch(&Punch { badge, kind, pin: None, then: None }).await.unwrap();
    }
}

async fn checkpoints(shop: &Shop) -> Value {
    let ready = shop.operator.ask(Method::GET, "/readyz", None).await.unwrap().1;
    let followers = ready["followers"].as_array().unwrap();
    followers.iter().find(|follower| follower["name"] == "checkpoints").unwrap().clone()
}

#[tokio::test]
async fn after_a_restore_the_devices_bring_every_punch_back() {
    let mut shop = Shop::open().await.unwrap();
    let gate = Gate::open(shop.server.address().unwrap(), 1).await.unwrap();
    let mut running = shop.agent(&gate.url()).await.unwrap();
    let asked = shop.agent(&gate.url()).await.unwrap();
    let data = shop.server.installation().data.clone();

    // Some punches are in the copy.
    for agent in [&running, &asked] {
        punch(agent, 4).await;
        assert_eq!(agent.sync().await.unwrap()["complete"], true);
    }
    shop.operator.settled(true, PATIENCE).await.unwrap();
    assert!(shop.server.terminate().await.unwrap().success());
    let copy = data.path().join("copy");
    data.copy_cluster_to(&copy).unwrap();
    shop.restart().await.unwrap();
    gate.lead_to(shop.server.address().unwrap());

    // More are delivered, acknowledged and signed for after it.
    running.start().await.unwrap();
    for agent in [&running, &asked] {
        punch(agent, 7).await;
    }
    assert_eq!(asked.sync().await.unwrap()["complete"], true);
    eventually("the running agent to deliver", PATIENCE, async || {
        Ok((running.waiting().await? == 0).then_some(()))
    })
    .await
    .unwrap();
    let head = shop.operator.settled(true, PATIENCE).await.unwrap();
    let folders = [running.dir().to_owned(), asked.dir().to_owned()];
    let before = shop.compare(&folders).await.unwrap();
    before.is_complete().unwrap();
    assert_eq!(before.captures, 22);

    // The copy is put back.
    assert!(shop.server.terminate().await.unwrap().success());
    data.put_cluster_back(&copy).unwrap();
    shop.restart().await.unwrap();
    assert!(shop.operator.head().await.unwrap() < head, "the restored ledger is shorter");
    let refused = eventually("checkpoints to be refused", PATIENCE, async || {
        let now = checkpoints(&shop).await;
        Ok((now["state"] == "refused").then_some(now))
    })
    .await
    .unwrap();
    assert!(refused["error"].as_str().unwrap().contains("new-epoch"), "{refused}");

    // The devices hear at their next heartbeat, and bring everything: the running one by itself.
    gate.lead_to(shop.server.address().unwrap());
    assert_eq!(asked.sync().await.unwrap()["delivered"], 7);
    eventually("every punch to be there again", PATIENCE, async || {
        let now = shop.compare(&folders).await?;
        Ok((now.is_complete().is_ok() && now.captures == before.captures).then_some(()))
    })
    .await
    .unwrap();
    shop.operator.settled(false, PATIENCE).await.unwrap();
    assert_eq!(checkpoints(&shop).await["state"], "refused");

    // Only an operator, who knows that it was meant, makes the ledger signed for again.
    let reason = ["checkpoint", "new-epoch", "--reason", "restored from the copy of this test"];
    shop.cli.json(&reason).await.unwrap();
    shop.operator.settled(true, PATIENCE).await.unwrap();
    assert_eq!(checkpoints(&shop).await["state"], "following");
    running.stop().await.unwrap();
}

/// The drill of docs/operations.md: backed up while it serves, more punches, the database is lost.
#[tokio::test]
async fn a_backup_that_is_put_back_ends_with_every_punch() {
    let mut shop = Shop::open().await.unwrap();
    let gate = Gate::open(shop.server.address().unwrap(), 1).await.unwrap();
    let mut running = shop.agent(&gate.url()).await.unwrap();
    let asked = shop.agent(&gate.url()).await.unwrap();
    let data = shop.server.installation().data.clone();
    let place = tempfile::tempdir().unwrap();
    let backups = place.path().join("backups");
    let dir = backups.to_str().unwrap();
    for agent in [&running, &asked] {
        punch(agent, 4).await;
        assert_eq!(agent.sync().await.unwrap()["complete"], true);
    }
    let backed_up = shop.operator.settled(true, PATIENCE).await.unwrap();
    let first = shop.cli.json(&["backup", dir]).await.unwrap();
    assert_eq!(first["database"], "cluster");
    let made = shop.cli.json(&["backup", dir, "--keep", "1"]).await.unwrap();
    assert_eq!(made["removed"], serde_json::json!([first["backup"]]));
    assert!(made["shared_bytes"].as_u64().unwrap() > 1 << 20, "most of it stays as it is: {made}");
    let verified = shop.cli.json(&["backup", "verify", dir]).await.unwrap();
    assert_eq!(verified["backups"][0]["whole"], true, "{verified}");

    running.start().await.unwrap();
    for agent in [&running, &asked] {
        punch(agent, 7).await;
    }
    assert_eq!(asked.sync().await.unwrap()["complete"], true);
    eventually("the running agent to deliver", PATIENCE, async || {
        Ok((running.waiting().await? == 0).then_some(()))
    })
    .await
    .unwrap();
    let head = shop.operator.settled(true, PATIENCE).await.unwrap();
    assert!(head > backed_up);
    let folders = [running.dir().to_owned(), asked.dir().to_owned()];
    let before = shop.compare(&folders).await.unwrap();
    before.is_complete().unwrap();

    // While it is there, nothing is put over it.
    let refused = shop.cli.run(&["restore", dir]).await.unwrap();
    assert_eq!(refused.code, 1, "a server runs there: {refused:?}");
    assert!(shop.server.terminate().await.unwrap().success());
    let refused = shop.cli.run(&["restore", dir, "--no-serve"]).await.unwrap();
    assert!(refused.stderr.contains("nothing was changed"), "{refused:?}");

    // Lost, and put back: it is served, and says when all is there again.
    std::fs::remove_dir_all(data.cluster()).unwrap();
    shop.server = Server::restore(&shop.server.installation().clone(), &backups).await.unwrap();
    shop.operator.move_to(shop.server.url());
    gate.lead_to(shop.server.address().unwrap());
    assert_eq!(asked.sync().await.unwrap()["delivered"], 7);
    let log = shop.server.process().log().to_owned();
    eventually("the server to say that nothing is missing", PATIENCE, async || {
        let log = std::fs::read_to_string(&log)?;
        Ok(log.contains("restored: nothing is missing: 2 of 2 device(s) reported").then_some(()))
    })
    .await
    .unwrap();
    let now = shop.compare(&folders).await.unwrap();
    now.is_complete().unwrap();
    assert_eq!(now.captures, before.captures);
    shop.operator.settled(true, PATIENCE).await.unwrap();
    assert_eq!(checkpoints(&shop).await["state"], "following", "and signed for");
    let ready = shop.operator.ask(Method::GET, "/readyz", None).await.unwrap().1;
    assert_eq!(ready["went_back"]["times"], 1, "said once: {ready}");
    shop.cli.json(&["ledger", "verify"]).await.unwrap();
    running.stop().await.unwrap();
    assert!(shop.server.terminate().await.unwrap().success());
    assert!(data.postmaster().is_none(), "its Postgres is stopped with it");
}

/// The way to another version of Postgres: an archive, into a new private one.
#[tokio::test]
async fn a_dump_goes_into_a_data_directory_that_holds_nothing() {
    let shop = Shop::open().await.unwrap();
    let agent = shop.agent(shop.server.url()).await.unwrap();
    punch(&agent, 3).await;
    assert_eq!(agent.sync().await.unwrap()["complete"], true);
    shop.operator.settled(true, PATIENCE).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let backups = place.path().join("backups");
    let dir = backups.to_str().unwrap();
    let made = shop.cli.json(&["backup", dir, "--dump"]).await.unwrap();
    assert_eq!(made["database"], "dump");
    let elsewhere = Installation::embedded().unwrap();
    let restored = elsewhere.cli().json(&["restore", dir, "--no-serve"]).await.unwrap();
    assert_eq!(restored["position"], made["head"]);
    let verified = elsewhere.cli().json(&["ledger", "verify"]).await.unwrap();
    assert_eq!(verified["events"].as_u64().unwrap(), made["head"].as_u64().unwrap() + 1);
}

#[tokio::test]
async fn a_backup_for_which_there_is_no_room_leaves_the_one_before() {
    let name = "a_backup_for_which_there_is_no_room_leaves_the_one_before";
    let Some(disk) = SmallDisk::of(name, 400).await.unwrap() else { return };
    let shop = Shop::open().await.unwrap();
    let backups = disk.path().join("backups");
    let dir = backups.to_str().unwrap();
    let made = shop.cli.json(&["backup", dir]).await.unwrap();
    disk.fill().unwrap();
    let refused = shop.cli.run(&["backup", dir]).await.unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("is full"), "{refused:?}");
    let there = shop.cli.json(&["backup", "verify", dir, "--all"]).await.unwrap();
    assert_eq!(there["backups"][0]["backup"], made["backup"]);
    assert_eq!(
        (&there["backups"][0]["whole"], &there["unfinished"]),
        (&true.into(), &serde_json::json!([]))
    );
}

/// A device whose chain has a hole, so that what the server says it holds without one never falls,
/// and one that was enrolled after the copy was made: both bring everything back by themselves.
#[tokio::test]
async fn neither_a_hole_nor_an_enrolment_since_the_copy_costs_a_punch() {
    let mut shop = Shop::open().await.unwrap();
    let gate = Gate::open(shop.server.address().unwrap(), 1).await.unwrap();
    let holed = shop.agent(&gate.url()).await.unwrap();
    let data = shop.server.installation().data.clone();
    punch(&holed, 4).await;
    file::rot(holed.dir(), 2).await.unwrap();
    assert_eq!(holed.sync().await.unwrap()["complete"], true);
    assert_eq!(holed.status().await.unwrap()["acked_through"], 1, "number 2 is in quarantine");
    shop.operator.settled(true, PATIENCE).await.unwrap();
    assert!(shop.server.terminate().await.unwrap().success());
    let copy = data.path().join("copy");
    data.copy_cluster_to(&copy).unwrap();
    shop.restart().await.unwrap();
    gate.lead_to(shop.server.address().unwrap());

    let mut since = shop.agent(&gate.url()).await.unwrap();
    for agent in [&holed, &since] {
        punch(agent, 5).await;
        assert_eq!(agent.sync().await.unwrap()["complete"], true);
    }
    shop.operator.settled(true, PATIENCE).await.unwrap();

    assert!(shop.server.terminate().await.unwrap().success());
    data.put_cluster_back(&copy).unwrap();
    shop.restart().await.unwrap();
    // Others have made the ledger longer again than it was, before these come back.
    let other = shop.agent(shop.server.url()).await.unwrap();
    punch(&other, 30).await;
    assert_eq!(other.sync().await.unwrap()["complete"], true);
    gate.lead_to(shop.server.address().unwrap());
    since.start().await.unwrap();
    holed.sync().await.unwrap();
    eventually("every punch to be there again", PATIENCE, async || {
        let (holed, since) = (holed.kept().await?, since.kept().await?);
        let ledger = shop.operator.events().await?;
        let captured = ledger.iter().filter(|event| event["event_type"] == "Captured").count();
        Ok((captured == 30 + holed.len() - 1 + since.len()).then_some(()))
    })
    .await
    .unwrap();
    since.stop().await.unwrap();
    let ready = shop.operator.ask(Method::GET, "/readyz", None).await.unwrap().1;
    assert_eq!(ready["went_back"]["times"], 1, "{ready}");
}
