//! Two servers on one database: each follower of the ledger has one owner, which may be killed.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::collections::BTreeMap;

use punchtrail_infra::testing::{TestDatabase, line::Line};
use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, eventually};
use punchtrail_tests::{Agent, Installation, Operator, Server, Shop, agent::Punch, shop::BADGES};
use reqwest::Method;
use serde_json::Value;

async fn ready(operator: &Operator) -> Value {
    operator.ask(Method::GET, "/readyz", None).await.unwrap().1
}

/// What each follower of that node is doing.
async fn followers(operator: &Operator) -> BTreeMap<String, String> {
    let ready = ready(operator).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let followers = ready["followers"].as_array().unwrap();
    followers.iter().map(|one| (text(&one["name"]), text(&one["state"]))).collect()
}

async fn punch(agent: &Agent, times: usize) {
    for n in 0..times {
        let kind = if n % 2 == 0 { PunchKind::In } else { PunchKind::Out };
        let badge = BADGES[n % BADGES.len()];
        agent.punch(&Punch { badge, kind, pin: None, then: None }).await.unwrap();
    }
    assert_eq!(agent.sync().await.unwrap()["complete"], true);
}

/// The rows of the timeline, and the judgements in the ledger.
async fn counted(place: &Installation) -> (i64, i64) {
    let database = place.database().await.unwrap();
    let counted = sqlx::query_as(
        "select (select count(*) from read.timeline), (select count(*) from events \
         where event_type in ('Accepted', 'ReferredForReview'))",
    );
    let counted = counted.fetch_one(&database).await.unwrap();
    database.close().await;
    counted
}

#[tokio::test]
async fn each_follower_has_one_owner_and_another_takes_over_when_it_is_killed() {
    let database = TestDatabase::new().await;
    let mut shop =
        Shop::open_at(Installation::with_database(database.url()).unwrap()).await.unwrap();
    let other_installation = Installation::with_database(database.url()).unwrap();
    let mut other = Server::start(&other_installation).await.unwrap();
    let second = Operator::new(&shop.cli, other.url(), "second").await.unwrap();

    let here = followers(&shop.operator).await;
    assert!(here.len() >= 10 && here.values().all(|state| state == "following"), "{here:?}");
    let there = eventually("the second node to know what it has", PATIENCE, async || {
        let there = followers(&second).await;
        let known = there.iter().all(|(name, state)| match name.as_str() {
            // Each node signs for itself.
            "checkpoints" => state == "following",
            _ => state == "standby",
        });
        Ok(known.then_some(there))
    })
    .await
    .unwrap();
    assert_eq!(there.len(), here.len());

    // What is delivered to the one that follows nothing is judged and shown, there and here.
    let agent = shop.agent(other.url()).await.unwrap();
    punch(&agent, 6).await;
    second.settled(true, PATIENCE).await.unwrap();
    assert_eq!(counted(shop.server.installation()).await, (6, 6));

    shop.server.kill_9().unwrap();
    punch(&agent, 6).await;
    eventually("the second node to take over", PATIENCE, async || {
        let all = followers(&second).await;
        Ok(all.values().all(|state| state == "following").then_some(()))
    })
    .await
    .unwrap();
    second.settled(true, PATIENCE).await.unwrap();
    assert_eq!(counted(&other_installation).await, (12, 12), "nothing counted twice");
    assert_eq!(ready(&second).await["ready"], true);

    // The first comes back and finds everything taken.
    shop.restart().await.unwrap();
    eventually("the first node to stand by", PATIENCE, async || {
        let back = followers(&shop.operator).await;
        let standby = back.values().filter(|state| *state == "standby").count();
        Ok((standby + 1 == back.len()).then_some(()))
    })
    .await
    .unwrap();
    // An orderly stop hands over.
    assert!(other.terminate().await.unwrap().success());
    eventually("the first node to follow again", PATIENCE, async || {
        let all = followers(&shop.operator).await;
        Ok(all.values().all(|state| state == "following").then_some(()))
    })
    .await
    .unwrap();
    shop.operator.settled(true, PATIENCE).await.unwrap();
    drop((shop, other));
    database.close().await;
}

fn log_of(server: &mut Server) -> String {
    std::fs::read_to_string(server.process().log()).unwrap()
}

#[tokio::test]
async fn a_node_whose_line_to_the_database_falls_silent_says_so_and_the_other_goes_on() {
    let database = TestDatabase::new().await;
    let line = Line::to(&database).await;
    // It is the first, so that it has every follower, too.
    let mut far = Server::start(&Installation::with_database(&line.url()).unwrap()).await.unwrap();
    let shop = Shop::open_at(Installation::with_database(database.url()).unwrap()).await.unwrap();
    let at_far = Operator::new(&shop.cli, far.url(), "far").await.unwrap();
    let agent = shop.agent(shop.server.url()).await.unwrap();
    punch(&agent, 2).await;
    assert_eq!(ready(&at_far).await["ready"], true);

    line.fall_silent();
    punch(&agent, 4).await;
    let not_ready =
        eventually("the silent node to say that it isn't ready", PATIENCE, async || {
            let now = ready(&at_far).await;
            Ok((now["ready"] == false && now["commits"]["failing_since"].is_string())
                .then_some(now))
        })
        .await
        .unwrap();
    assert_eq!(not_ready["commits"]["able"], false, "{not_ready}");
    assert!(not_ready["commits"]["error"].is_string(), "{not_ready}");
    assert!(log_of(&mut far).contains("this node can't commit"));
    // The other took over what it followed, and all that was punched is judged and shown.
    shop.operator.settled(true, PATIENCE).await.unwrap();
    assert_eq!(counted(shop.server.installation()).await, (6, 6));
    assert_eq!(ready(&shop.operator).await["ready"], true);

    line.speak();
    eventually("it to be ready again", PATIENCE, async || {
        Ok((ready(&at_far).await["ready"] == true).then_some(()))
    })
    .await
    .unwrap();
    assert!(log_of(&mut far).contains("this node commits again"));
    let back = shop.agent(far.url()).await.unwrap();
    punch(&back, 2).await;
    at_far.settled(true, PATIENCE).await.unwrap();
    assert_eq!(counted(shop.server.installation()).await, (8, 8));
    drop((shop, far));
    database.close().await;
}

/// Devices and judgements go by one clock, whichever node they come to.
#[tokio::test]
async fn a_node_whose_clock_is_an_hour_off_tells_the_same_time_and_judges_nobody_by_it() {
    let database = TestDatabase::new().await;
    let shop = Shop::open_at(Installation::with_database(database.url()).unwrap()).await.unwrap();
    for ahead in ["--clock-ahead-s=3600", "--clock-ahead-s=-3600"] {
        let place = Installation::with_database(database.url()).unwrap();
        let off = Server::start_with(&place, &[ahead]).await.unwrap();
        let mut kiosk = shop.kiosk(off.url()).await.unwrap();
        let heard = kiosk.heartbeat(0, None).await.unwrap();
        let now = punchtrail_protocol::Time::from(jiff::Timestamp::now());
        assert!(heard.server_time.millis_since(now).abs() < 600_000, "{ahead}: {heard:?}");
        let capture = kiosk.capture(shop.employee, PunchKind::In);
        kiosk.deliver(&[kiosk.item(&capture)]).await.unwrap();
        shop.operator.settled(false, PATIENCE).await.unwrap();
        let punch = shop.operator.get(&format!("/v1/punches/{}", capture.punch)).await.unwrap();
        let reasons = punch["reasons"].to_string();
        assert!(!reasons.contains("clock"), "{ahead}: {punch}");
    }
}
