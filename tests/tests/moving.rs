//! A device that is moved to another site while it works: the real agent, the real server.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::fs;

use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, eventually};
use punchtrail_tests::{Agent, Gate, Shop, agent::Punch};
use serde_json::Value;

async fn punch(agent: &Agent, badge: &str, kind: PunchKind) -> Value {
    agent.punch(&Punch { badge, kind, pin: None, then: None }).await.unwrap()
}

/// A site with one person.
async fn add_site(shop: &Shop, name: &str, badge: &str) -> String {
    let zone = "Europe/Berlin";
    let site = shop.cli.text(&["site", "add", "--name", name, "--tz", zone], "site").await.unwrap();
    let quick = ["site", "policy", name, "--set", "heartbeat_s=5", "--set", "reconnect_spread_s=0"];
    shop.cli.json(&quick).await.unwrap();
    let file = shop.server.installation().data.path().join(format!("{name}.csv"));
    fs::write(&file, format!("badge,name,pin,site\n{badge},Worker {badge},,{name}\n")).unwrap();
    shop.cli.json(&["employee", "import", file.to_str().unwrap()]).await.unwrap();
    site
}

/// Each punch's site and whether it is known whose it is, in the order of time.
async fn punches(shop: &Shop) -> Vec<(String, bool)> {
    let mut rows = shop.operator.rows("/v1/punches").await.unwrap();
    rows.sort_by_key(|row| row["captured_at"].as_str().unwrap().to_owned());
    let told = |row: Value| (row["site"].as_str().unwrap().to_owned(), !row["employee"].is_null());
    rows.into_iter().map(told).collect()
}

#[tokio::test]
async fn a_moved_device_takes_the_new_sites_people_and_delivers_what_it_made_at_the_old_one() {
    let shop = Shop::open().await.unwrap();
    let [store, yard] =
        [add_site(&shop, "Store", "201").await, add_site(&shop, "Yard", "301").await];
    let gate = Gate::open(shop.server.address().unwrap(), 1).await.unwrap();
    let mut agent = shop.agent(&gate.url()).await.unwrap();
    agent.start().await.unwrap();
    let device = agent.status().await.unwrap()["device"].as_str().unwrap().to_owned();
    let assign = async |site: &str| {
        shop.cli.json(&["device", "assign", &device, "--site", site]).await.unwrap();
    };
    let arrived = async |agent: &Agent, site: &str| {
        eventually("the new site's people to be at the door", PATIENCE, async || {
            let status = agent.status().await?;
            Ok((status["site"] == *site && status["roster_site"] == *site).then_some(()))
        })
        .await
        .unwrap();
    };

    punch(&agent, "101", PunchKind::In).await;
    assign("Store").await;
    arrived(&agent, &store).await;
    let at_store = punch(&agent, "201", PunchKind::In).await;
    assert_eq!(at_store["name"], "Worker 201");

    // Killed, and moved twice more before it is started again.
    agent.kill_9().unwrap();
    punch(&agent, "201", PunchKind::Out).await;
    for site in ["Shop", "Yard"] {
        assign(site).await;
    }
    agent.start().await.unwrap();
    arrived(&agent, &yard).await;
    punch(&agent, "301", PunchKind::In).await;
    eventually("everything to be delivered", PATIENCE, async || {
        Ok((agent.waiting().await? == 0).then_some(()))
    })
    .await
    .unwrap();
    agent.stop().await.unwrap();
    shop.operator.settled(false, PATIENCE).await.unwrap();
    let expected = [&shop.site, &store, &store, &yard].map(|site| (site.clone(), true));
    assert_eq!(punches(&shop).await, expected);
}
