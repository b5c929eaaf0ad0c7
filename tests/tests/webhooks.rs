//! Webhooks by the real server: verified by the libraries that receivers use, delivered again after
//! a kill, once by two nodes, and what is inside stays out of reach.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use punchtrail_infra::testing::TestDatabase;
use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, Received, Receiver, Reply, brought, eventually, not_run};
use punchtrail_tests::{Agent, Installation, Server, Shop, agent::Punch, shop::BADGES};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Where `./dev` brings the libraries to, and what names another place. The versions are also in
/// there.
const PYTHON: (&str, &str) = ("PUNCHTRAIL_TEST_STANDARDWEBHOOKS", "tools/standardwebhooks-1.1.0");
const NODE: (&str, &str) =
    ("PUNCHTRAIL_TEST_STANDARDWEBHOOKS_NPM", "tools/standardwebhooks-npm-1.1.1");

/// Each verifies what it reads, and that an altered body is refused.
const VERIFY_IN_PYTHON: &str = r#"
import json, sys
from standardwebhooks import Webhook, WebhookVerificationError
asked = json.load(sys.stdin)
for one in asked["received"]:
    headers = {"webhook-id": one["id"], "webhook-timestamp": one["timestamp"],
               "webhook-signature": one["signature"]}
    assert Webhook(asked["secret"]).verify(one["body"], headers)["type"]
    try:
        Webhook(asked["secret"]).verify(one["body"] + " ", headers)
        raise SystemExit("an altered body was taken")
    except WebhookVerificationError:
        pass
print(len(asked["received"]))
"#;
const VERIFY_IN_NODE: &str = r#"
const { Webhook } = require("standardwebhooks");
const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
for (const one of asked.received) {
  const headers = { "webhook-id": one.id, "webhook-timestamp": one.timestamp,
                    "webhook-signature": one.signature };
  if (!new Webhook(asked.secret).verify(one.body, headers).type) throw new Error("no type");
  let taken = true;
  try { new Webhook(asked.secret).verify(one.body + " ", headers); } catch { taken = false; }
  if (taken) throw new Error("an altered body was taken");
}
console.log(asked.received.length);
"#;

fn here() -> Installation {
    develops(Installation::embedded().unwrap())
}

/// Sends to this machine, too.
fn develops(place: Installation) -> Installation {
    place.with_variable("PUNCHTRAIL_WEBHOOK_INSECURE_LOOPBACK", "1")
}

async fn add(shop: &Shop, url: &str) -> (String, String) {
    let added = shop.cli.json(&["webhook", "add", url, "--after", "0"]).await.unwrap();
    let text = |field: &str| added[field].as_str().unwrap().to_owned();
    (text("webhook"), text("secret"))
}

async fn punch(agent: &Agent, times: usize) {
    for n in 0..times {
        let kind = if n % 2 == 0 { PunchKind::In } else { PunchKind::Out };
        let badge = BADGES[n % BADGES.len()];
        let pin = (badge == BADGES[1]).then_some("4711");
        agent.punch(&Punch { badge, kind, pin, then: None }).await.unwrap();
    }
    assert_eq!(agent.sync().await.unwrap()["complete"], true);
}

/// The bodies that fill gaps, by their ids.
async fn told(shop: &Shop) -> BTreeMap<String, Value> {
    shop.operator.settled(false, PATIENCE).await.unwrap();
    let (mut all, mut after) = (BTreeMap::new(), 0);
    loop {
        let page = shop.operator.get(&format!("/v1/events?after={after}&limit=7")).await.unwrap();
        for one in page["data"].as_array().unwrap() {
            all.insert(one["id"].as_str().unwrap().to_owned(), one["body"].clone());
        }
        after = page["next_after"].as_u64().unwrap();
        if page["has_more"] == false {
            return all;
        }
    }
}

/// That a receiver has all of it by now, each body as it is told to who fills gaps.
async fn has_all(receiver: &Receiver, told: &BTreeMap<String, Value>) {
    let received = || {
        let of = receiver.received();
        of.into_iter().map(|one| (one.id, one.body)).collect::<BTreeMap<_, _>>()
    };
    eventually("everything delivered", PATIENCE, async || {
        Ok(told.keys().all(|id| received().contains_key(id)).then_some(()))
    })
    .await
    .unwrap();
    for (id, body) in received() {
        assert_eq!(Some(&serde_json::from_str::<Value>(&body).unwrap()), told.get(&id));
    }
}

fn verified(program: &str, arguments: &[&str], folder: (&str, &Path), asked: &Value) -> String {
    let mut process = Command::new(program)
        .args(arguments)
        .env(folder.0, folder.1)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let ended = process.wait_with_output().unwrap();
    assert!(ended.status.success(), "{program}");
    String::from_utf8(ended.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn the_libraries_of_receivers_verify_what_is_sent() {
    let (python, node) = (brought(PYTHON.0, PYTHON.1), brought(NODE.0, NODE.1));
    if !python.is_dir() || !node.is_dir() {
        let there = format!("{} and {}", python.display(), node.display());
        return not_run(format_args!(
            "Standard Webhooks' libraries aren't in {there}: ./dev setup"
        ));
    }
    let shop = Shop::open_at(here()).await.unwrap();
    let receiver = Receiver::taking().await.unwrap();
    let (webhook, first) = add(&shop, &receiver.url()).await;
    let agent = shop.agent(shop.server.url()).await.unwrap();
    punch(&agent, 3).await;
    has_all(&receiver, &told(&shop).await).await;
    let rotated = shop.cli.json(&["webhook", "rotate", &webhook]).await.unwrap();
    let before = receiver.count();
    shop.cli.json(&["webhook", "test", &webhook]).await.unwrap();
    eventually("the test event", PATIENCE, async || Ok((receiver.count() > before).then_some(())))
        .await
        .unwrap();
    let received = receiver.received();
    let text = |one: &Received| {
        json!({ "id": one.id, "timestamp": one.timestamp, "signature": one.signature,
                "body": one.body })
    };
    let all: Vec<_> = received.iter().map(text).collect();
    for (secret, of) in [(json!(first), &all[..]), (rotated["secret"].clone(), &all[before..])] {
        let asked = json!({ "secret": secret, "received": of });
        let count = of.len().to_string();
        let by = verified("python3", &["-c", VERIFY_IN_PYTHON], ("PYTHONPATH", &python), &asked);
        assert_eq!(by, count);
        let modules = node.join("node_modules");
        let by = verified("node", &["-e", VERIFY_IN_NODE], ("NODE_PATH", &modules), &asked);
        assert_eq!(by, count);
    }
}

#[tokio::test]
async fn a_kill_between_a_delivery_and_its_record_delivers_it_again() {
    let mut shop = Shop::open_at(here()).await.unwrap();
    // The first is taken, and never said to be.
    let receiver = Receiver::answering(|_, before| match before {
        0 => Reply::Hangs,
        _ => Reply::status(200),
    });
    let receiver = receiver.await.unwrap();
    add(&shop, &receiver.url()).await;
    eventually(
        "a delivery under way",
        PATIENCE,
        async || Ok((receiver.count() == 1).then_some(())),
    )
    .await
    .unwrap();
    shop.server.kill_9().unwrap();
    shop.restart().await.unwrap();
    let told = told(&shop).await;
    has_all(&receiver, &told).await;
    eventually("the first delivery again", PATIENCE, async || {
        let received = receiver.received();
        let again = received.iter().filter(|one| one.id == received[0].id).count();
        Ok((again == 2).then_some(()))
    })
    .await
    .unwrap();
    let received = receiver.received();
    assert_eq!(received.len(), told.len() + 1, "each of the others once");
    assert!(
        received
            .iter()
            .filter(|one| one.id == received[0].id)
            .all(|one| { one.body == received[0].body })
    );
}

#[tokio::test]
async fn two_nodes_deliver_each_once() {
    let database = TestDatabase::new().await;
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("webhooks.key");
    let place = || {
        let place = develops(Installation::with_database(database.url()).unwrap());
        place.with_variable("PUNCHTRAIL_WEBHOOK_KEY_FILE", key.to_str().unwrap())
    };
    let shop = Shop::open_at(place()).await.unwrap();
    let other = Server::start(&place()).await.unwrap();
    let receiver = Receiver::taking().await.unwrap();
    add(&shop, &receiver.url()).await;
    let agent = shop.agent(other.url()).await.unwrap();
    punch(&agent, 30).await;
    let told = told(&shop).await;
    has_all(&receiver, &told).await;
    assert!(told.len() > 60, "{}", told.len());
    assert_eq!(receiver.count(), told.len(), "each once");
    drop((shop, other));
    database.close().await;
}

#[tokio::test]
async fn a_receiver_that_was_down_gets_everything() {
    let shop = Shop::open_at(here()).await.unwrap();
    let receiver = Receiver::taking().await.unwrap();
    let (webhook, _) = add(&shop, &receiver.url()).await;
    has_all(&receiver, &told(&shop).await).await;
    let address = receiver.address();
    let before = receiver.received();
    drop(receiver);
    let agent = shop.agent(shop.server.url()).await.unwrap();
    punch(&agent, 4).await;
    let told = told(&shop).await;
    let page = eventually("a failure", PATIENCE, async || {
        let page = shop.operator.get(&format!("/v1/webhooks/{webhook}")).await?;
        Ok(page["failing_since"].is_string().then_some(page))
    })
    .await
    .unwrap();
    assert!(page["last_error"].as_str().unwrap().starts_with("connection"), "{page}");
    let back = Receiver::at(address, true, |_, _| Reply::status(200)).await.unwrap();
    let since = "1970-01-01T00:00:00Z";
    shop.cli.json(&["webhook", "redeliver", &webhook, "--since", since]).await.unwrap();
    let missing: BTreeMap<String, Value> =
        told.into_iter().filter(|(id, _)| before.iter().all(|one| one.id != *id)).collect();
    assert!(missing.len() >= 8, "{}", missing.len());
    has_all(&back, &missing).await;
    let path = format!("/v1/webhooks/{webhook}/deliveries?state=failed");
    assert_eq!(shop.operator.get(&path).await.unwrap()["data"], json!([]));
}

#[tokio::test]
async fn nothing_inside_is_reached_without_leave() {
    // Without the flag for development.
    let shop = Shop::open().await.unwrap();
    for url in [
        "http://127.0.0.1:4000/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://169.254.169.254/latest/meta-data/",
        "https://2130706433/",
        "https://[::ffff:127.0.0.1]/",
        "https://user@example.com/",
        "https://example.com:5432/",
    ] {
        let body = json!({ "name": "x", "url": url });
        let asked = shop.operator.ask(Method::POST, "/v1/webhooks", Some(&body)).await.unwrap();
        assert_eq!(asked.0, StatusCode::UNPROCESSABLE_ENTITY, "{url}");
        assert_eq!(asked.1["errors"][0]["pointer"], "/url", "{url}");
        assert_ne!(shop.cli.run(&["webhook", "add", url]).await.unwrap().code, 0, "{url}");
    }
    assert_eq!(shop.cli.json(&["webhook", "list"]).await.unwrap()["webhooks"], json!([]));
}
