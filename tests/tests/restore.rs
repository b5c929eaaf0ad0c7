//! A restore drill: an earlier copy of the database is put back, and the devices bring everything
//! back.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, eventually};
use punchtrail_tests::{Agent, Gate, Shop, agent::Punch, file, shop::BADGES};
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
