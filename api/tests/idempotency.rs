//! Writes with an Idempotency-Key over real HTTP: done once, whoever sends them again, on whatever
//! node, and however many at once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod callers;
mod common;

use std::net::SocketAddr;

use axum::body::Body;
use callers::{PASSWORD, Person, sign_in_as, user};
use common::{Answer, House, ask, request};
use futures::future::join_all;
use hyper::{Method, StatusCode, header};
use punchtrail_infra::{
    access::{credentials, roles::Role},
    testing::{
        saved::{Back, Saved},
        sqlx,
    },
};
use punchtrail_protocol::{DeviceId, SiteId, capture::PunchKind};
use punchtrail_testkit::{PATIENCE, eventually};
use serde_json::{Value, json};
use uuid::Uuid;

/// Fields whose values are shown once.
const SECRETS: [&str; 7] = ["code", "token", "key", "secret", "link", "password", "recovery_codes"];

struct Scene {
    house: House,
    site: SiteId,
    device: DeviceId,
}

impl Scene {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let device = house.device(site).await.id;
        Self { house, site, device }
    }

    fn commands(&self) -> String {
        format!("/v1/devices/{}/commands", self.device)
    }

    async fn send(&self, key: &str, method: Method, path: &str, body: &Value) -> Answer {
        let whose = self.house.key.clone();
        sent(self.house.address, (&whose, key), method, path, body.to_string()).await
    }

    async fn issue(&self, key: &str, body: &Value) -> Answer {
        self.send(key, Method::POST, &self.commands(), body).await
    }

    async fn head(&self) -> u64 {
        self.house.ledger.head().await.unwrap().0
    }

    /// Events that operators caused, and lines of the trail: followers append what they find,
    /// whenever they do.
    async fn written(&self) -> i64 {
        let count = "select (select count(*) from events where metadata ->> 'actor' like 'key:%') \
                     + (select count(*) from trail where actor like 'key:%')";
        sqlx::query_scalar(count).fetch_one(&self.house.pools.writer).await.unwrap()
    }

    async fn kept(&self) -> i64 {
        let kept = sqlx::query_scalar("select count(*) from kept_answers where status is not null");
        kept.fetch_one(&self.house.pools.writer).await.unwrap()
    }
}

async fn sent(
    address: SocketAddr,
    (whose, key): (&str, &str),
    method: Method,
    path: &str,
    body: String,
) -> Answer {
    let mut request = request(method, path, Some(whose), Body::from(body));
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    headers.insert("idempotency-key", key.parse().unwrap());
    ask(address, request).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

fn beep() -> Value {
    json!({ "type": "sync_employees" })
}

#[tokio::test]
async fn sent_again_it_is_answered_as_before_and_not_done_twice() {
    let scene = Scene::new().await;
    let first = scene.issue("order-1", &beep()).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    assert!(!is_replayed(&first));
    let head = scene.head().await;
    assert_eq!(first.body["position"], head, "it stands where the answer says");
    for key in ["order-1", "\"order-1\""] {
        let again = scene.issue(key, &beep()).await;
        assert_eq!((again.status, &again.text), (first.status, &first.text));
        assert_eq!(again.headers[header::CONTENT_TYPE], first.headers[header::CONTENT_TYPE]);
        assert!(is_replayed(&again));
        assert_ne!(again.headers["x-request-id"], first.headers["x-request-id"]);
    }
    assert_eq!(scene.head().await, head, "nothing was written");
    // Anything else under the key is another request.
    let message = json!({ "type": "show_message", "args": { "text": "Tea" } });
    let reused = "422 idempotency_key_reused";
    assert_eq!(scene.issue("order-1", &message).await.refusal(), reused);
    let revoke = format!("/v1/devices/{}/revoke", scene.device);
    let other = scene.send("order-1", Method::POST, &revoke, &beep()).await;
    assert_eq!(other.refusal(), reused);
    let command = format!("{}/{}", scene.commands(), first.body["command"].as_str().unwrap());
    let other = scene.send("order-1", Method::DELETE, &command, &Value::Null).await;
    assert_eq!(other.refusal(), reused);
    assert_eq!(scene.head().await, head);
    // Another caller's key is another one.
    let pool = &scene.house.pools.writer;
    let (_, theirs) = credentials::create_operator_key(pool, "other", None).await.unwrap();
    let (address, path) = (scene.house.address, scene.commands());
    let whose = (theirs.reveal(), "order-1");
    let answer = sent(address, whose, Method::POST, &path, beep().to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_ne!(answer.body["command"], first.body["command"]);
    // And who is nobody is told so, whatever was kept.
    let whose = ("ptk_nobody", "order-1");
    let answer = sent(address, whose, Method::POST, &path, beep().to_string()).await;
    assert_eq!(answer.refusal(), "401 unauthenticated");
    // Without a key each is one of its own.
    for _ in 0..2 {
        assert_eq!(scene.house.write(&path, &beep()).await.status, StatusCode::CREATED);
    }
    scene.house.close().await;
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let scene = Scene::new().await;
    let wrong = "422 invalid: Idempotency-Key invalid_value";
    for key in ["k".repeat(256).as_str(), "\"open", "\"a\";p=1", "\"\""] {
        assert_eq!(scene.issue(key, &beep()).await.refusal(), wrong, "{key}");
    }
    assert_eq!(scene.issue(&"k".repeat(255), &beep()).await.status, StatusCode::CREATED);
    let mut twice = request(
        Method::POST,
        &scene.commands(),
        Some(&scene.house.key),
        Body::from(beep().to_string()),
    );
    for key in ["a", "b"] {
        twice.headers_mut().append("idempotency-key", key.parse().unwrap());
    }
    assert_eq!(scene.house.ask(twice).await.refusal(), wrong);
    scene.house.close().await;
}

#[tokio::test]
async fn refusals_that_last_are_kept_and_those_that_pass_are_not() {
    let scene = Scene::new().await;
    let nowhere = format!("/v1/devices/{}/commands", Uuid::now_v7());
    let first = scene.send("gone", Method::POST, &nowhere, &beep()).await;
    assert_eq!(first.refusal(), "404 not_found");
    let again = scene.send("gone", Method::POST, &nowhere, &beep()).await;
    assert!(is_replayed(&again));
    assert_eq!((again.status, &again.text), (first.status, &first.text), "its request's id, too");
    let first = scene.issue("wrong", &json!({ "type": "sing" })).await;
    assert_eq!(first.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(is_replayed(&scene.issue("wrong", &json!({ "type": "sing" })).await));
    assert_eq!(scene.kept().await, 2);
    // A worker who may rule has a key, and rules on their own: 403, each time anew.
    let employee = scene.house.employee(scene.site, "B7", "Ada").await;
    let pool = &scene.house.pools.writer;
    let (_, own) = credentials::create_operator_key(pool, "own", Some(employee)).await.unwrap();
    let path = format!("/v1/employees/{employee}/face/codes");
    for _ in 0..2 {
        let whose = (own.reveal(), "mine");
        let address = scene.house.address;
        let answer = sent(address, whose, Method::POST, &path, String::new()).await;
        assert_eq!(answer.refusal(), "403 own_record");
        assert!(!is_replayed(&answer));
    }
    assert_eq!(scene.kept().await, 2);
    scene.house.close().await;
}

#[tokio::test]
async fn a_secret_is_given_once_and_never_kept() {
    let scene = Scene::new().await;
    let path = format!("/v1/sites/{}/pairing-codes", scene.site);
    let codes = async || -> i64 {
        let count = sqlx::query_scalar("select count(*) from pairing_codes");
        count.fetch_one(&scene.house.pools.writer).await.unwrap()
    };
    let before = codes().await;
    let first = scene.send("pair", Method::POST, &path, &Value::Null).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    let again = scene.send("pair", Method::POST, &path, &Value::Null).await;
    assert_eq!(again.refusal(), "409 answer_not_kept");
    assert!(is_replayed(&again));
    assert!(!again.text.contains(first.body["code"].as_str().unwrap()));
    assert_eq!(codes().await, before + 1);
    let kept: Option<Vec<u8>> = sqlx::query_scalar("select body from kept_answers")
        .fetch_one(&scene.house.pools.writer)
        .await
        .unwrap();
    assert_eq!(kept, None);
    scene.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_on_two_nodes_do_it_once() {
    let scene = Scene::new().await;
    let (second, stop, running) = scene.house.second().await;
    let paths = [scene.commands(), format!("/v1/sites/{}/pairing-codes", scene.site)];
    for (path, body) in paths.iter().zip([beep().to_string(), String::new()]) {
        let key = path.as_str();
        let before = scene.head().await;
        let tries = (0..100).map(|n| {
            let address = if n % 2 == 0 { scene.house.address } else { second };
            sent(address, (&scene.house.key, key), Method::POST, path, body.clone())
        });
        let answers = join_all(tries).await;
        let done: Vec<_> =
            answers.iter().filter(|answer| answer.status == StatusCode::CREATED).collect();
        let fresh = done.iter().filter(|answer| !is_replayed(answer)).count();
        assert_eq!(fresh, 1, "{path}");
        assert!(done.iter().all(|answer| answer.text == done[0].text));
        for other in answers.iter().filter(|answer| answer.status != StatusCode::CREATED) {
            match other.refusal().as_str() {
                "409 idempotency_in_flight" => assert_eq!(other.headers["retry-after"], "1"),
                "409 answer_not_kept" => assert!(path.contains("pairing")),
                other => panic!("{other}"),
            }
        }
        let written = u64::from(!path.contains("pairing"));
        assert_eq!(scene.head().await, before + written, "{path}");
        // The other node gives the same answer afterwards.
        let answer = sent(second, (&scene.house.key, key), Method::POST, path, body.clone()).await;
        assert!(is_replayed(&answer));
    }
    stop.cancel();
    running.await.unwrap();
    scene.house.close().await;
}

#[tokio::test]
async fn what_a_dead_node_left_binds_nobody_for_long() {
    let scene = Scene::new().await;
    let pool = &scene.house.pools.writer;
    scene.issue("died", &beep()).await;
    let at_work = "update kept_answers set status = null, expires_at = now() + interval '5 s'";
    sqlx::query(at_work).execute(pool).await.unwrap();
    let head = scene.head().await;
    let refused = scene.issue("died", &beep()).await;
    assert_eq!(refused.refusal(), "409 idempotency_in_flight");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(scene.head().await, head);
    sqlx::query("update kept_answers set expires_at = now() - interval '1 s'")
        .execute(pool)
        .await
        .unwrap();
    let answer = scene.issue("died", &beep()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert!(!is_replayed(&answer));
    assert_eq!(scene.head().await, head + 1);
    // A day later the key is free, and is swept.
    sqlx::query("update kept_answers set expires_at = now() - interval '1 s'")
        .execute(pool)
        .await
        .unwrap();
    assert!(!is_replayed(&scene.issue("died", &beep()).await));
    sqlx::query("update kept_answers set expires_at = now() - interval '1 s'")
        .execute(pool)
        .await
        .unwrap();
    punchtrail_infra::idempotency::forget(pool).await.unwrap();
    assert_eq!(scene.kept().await, 0);
    scene.house.close().await;
}

/// Rulings on many punches are as many appends: with a key they are one.
#[tokio::test]
async fn a_request_of_many_appends_is_done_as_one() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    let items: Vec<_> = (0..4).map(|_| device.next(employee, PunchKind::In)).collect();
    house.deliver(&device, &items).await;
    house.settled().await;
    let reviews = house.read("/v1/reviews?limit=50").await;
    let items: Vec<Value> = reviews.body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| json!({ "punch": row["punch"], "expected_sequence": row["sequence"] }))
        .collect();
    assert!(items.len() >= 2, "{}", reviews.text);
    let scene = Scene { site, device: device.id, house };
    let body = json!({
        "items": items, "referred_for": "near_duplicate", "reason": "confirmed", "note": "seen",
    });
    let before = scene.head().await;
    let first = scene.send("many", Method::POST, "/v1/reviews/accept", &body).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    let rows = first.body["data"].as_array().unwrap();
    let positions: Vec<u64> = rows.iter().filter_map(|row| row["position"].as_u64()).collect();
    let expected: Vec<u64> = (1..=items.len() as u64).map(|n| before + n).collect();
    assert_eq!(positions, expected, "{}", first.text);
    let again = scene.send("many", Method::POST, "/v1/reviews/accept", &body).await;
    assert!(is_replayed(&again));
    assert_eq!(again.text, first.text);
    let later = scene.send("many-2", Method::POST, "/v1/reviews/accept", &body).await;
    assert!(later.body["data"].as_array().unwrap().iter().all(|row| row["accepted"] == false));
    scene.house.close().await;
}

/// The database went back in part: the answer is there, and what it says was done is gone.
#[tokio::test]
async fn an_answer_whose_events_are_gone_is_forgotten() {
    let scene = Scene::new().await;
    let first = scene.issue("lost", &beep()).await;
    let kept = scene.issue("stays", &beep()).await;
    assert_eq!(kept.status, StatusCode::CREATED);
    // As the ledger is put back: the row claims a position that another event has now.
    sqlx::query("update kept_answers set request = 'another' where position = $1")
        .bind(first.body["position"].as_i64().unwrap())
        .execute(&scene.house.pools.writer)
        .await
        .unwrap();
    sqlx::query("select set_back(0)").execute(&scene.house.pools.writer).await.unwrap();
    let again = scene.issue("lost", &beep()).await;
    assert_eq!(again.status, StatusCode::CREATED);
    assert!(!is_replayed(&again), "it has to be done again");
    assert!(is_replayed(&scene.issue("stays", &beep()).await));
    scene.house.close().await;
}

/// The database goes back a minute, as a whole and in part: what was done since is done again,
/// once.
#[tokio::test]
async fn what_went_back_with_the_database_is_done_again() {
    let scene = Scene::new().await;
    let saved = Saved::of(scene.house.database.url()).await;
    for back in [Back::Whole, Back::Events] {
        let first = scene.issue("since", &beep()).await;
        assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
        assert!(is_replayed(&scene.issue("since", &beep()).await));
        let epoch = scene.house.get("/readyz", None).await.body["epoch"].clone();
        saved.put_back(back).await;
        eventually("the server notices", PATIENCE, async || {
            let ready = scene.house.get("/readyz", None).await;
            Ok((ready.body["epoch"] != epoch).then_some(()))
        })
        .await
        .unwrap();
        let again = scene.issue("since", &beep()).await;
        assert_eq!(again.status, StatusCode::CREATED, "{}", again.text);
        assert!(!is_replayed(&again), "{back:?}");
        assert_ne!(again.body["command"], first.body["command"]);
        assert!(is_replayed(&scene.issue("since", &beep()).await));
        sqlx::query("delete from kept_answers").execute(&scene.house.pools.writer).await.unwrap();
    }
    scene.house.close().await;
}

/// Every writing route that the description names, with what it takes to be answered for good.
#[tokio::test]
async fn every_writing_route_of_the_office_honours_a_key() {
    let scene = Scene::new().await;
    let house = &scene.house;
    let employee = house.employee(scene.site, "B1", "Ada").await;
    let mut device = house.device(scene.site).await;
    let item = device.next(employee, PunchKind::In);
    let delivered = house.deliver(&device, &[item]).await;
    house.settled().await;
    let punch = delivered.body["results"][0]["punch"].as_str().unwrap().to_owned();
    let digest = "0".repeat(64);
    let auditor = user(house, "auditor@example.org", Role::Auditor, &[]).await.id;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let soon = punchtrail_protocol::Time::from(soon);
    let paths = [
        ("{user}", auditor.to_string()),
        ("{role}", "payroll".to_owned()),
        ("{holding}", digest.clone()),
        ("{site}", scene.site.to_string()),
        ("{device}", scene.device.to_string()),
        ("{employee}", employee.to_string()),
        ("{punch}", punch.clone()),
        ("{sha256}", digest.clone()),
        ("{item}", digest.clone()),
        ("{note}", digest),
    ];
    let bodies = [
        ("/v1/devices/{device}/commands", beep()),
        ("/v1/sites/{site}/policy", json!({})),
        ("/v1/devices/{device}/site", json!({ "site": scene.site })),
        ("/v1/employees/{employee}/legal-hold", json!({ "note": "case 7" })),
        ("/v1/employees/{employee}/face/consent", json!({ "notice": "1", "language": "de" })),
        ("/v1/employees/{employee}/face/head-covering", json!({ "expected": true })),
        ("/v1/punches/{punch}/decision", json!({ "decision": "reject", "reason": "other" })),
        ("/v1/punches/{punch}/decision/preview", json!({ "decision": "void" })),
        ("/v1/users", json!({ "login": "l@example.org", "name": "L", "role": "payroll" })),
        ("/v1/users/{user}/role", json!({ "role": "auditor" })),
        ("/v1/users/{user}/grants", json!({ "reason": "Case 7", "expires_at": soon })),
        ("/v1/roles/{role}", json!({ "second_factor_required": true })),
        ("/v1/keys", json!({ "name": "payroll", "scopes": ["punches:read"] })),
        (
            "/v1/disputes",
            json!({
                "dispute": Uuid::now_v7(), "site": scene.site, "employee": employee,
                "punch": punch, "cause": "wrong_time", "text": "It was eight",
            }),
        ),
    ];
    let described = house.get("/openapi.json", None).await.body;
    let (mut walked, mut fulfilled) = (0, 0);
    for (template, operations) in described["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let has_key = parameters.iter().any(|one| one["name"] == "Idempotency-Key");
            let of_device = operation["security"].to_string().contains("device_token");
            let anybody = operation["security"].as_array().is_none_or(Vec::is_empty);
            let writes = method != "get" && !anybody && !of_device;
            assert_eq!(has_key, writes, "{method} {template}");
            // What is about the session alone, a key can't call.
            if !writes || template.starts_with("/v1/session") {
                continue;
            }
            let mut path = template.clone();
            for (name, value) in &paths {
                path = path.replace(name, value);
            }
            // What isn't made here stands for something that isn't there.
            while let Some((before, rest)) = path.split_once('{') {
                let after = rest.split_once('}').unwrap().1;
                path = format!("{before}{}{after}", Uuid::now_v7());
            }
            let body = bodies.iter().find(|(of, _)| of == template).map(|(_, body)| body.clone());
            let body = body.unwrap_or_else(|| json!({}));
            let (key, method) = (format!("{method} {template}"), method.to_uppercase());
            let method: Method = method.parse().unwrap();
            let first = scene.send(&key, method.clone(), &path, &body).await;
            let shown = format!("{key}: {} {}", first.status, first.text);
            assert!(first.status.is_success() || first.status.is_client_error(), "{shown}");
            assert!(![401, 403, 405, 429].contains(&first.status.as_u16()), "{shown}");
            let written = scene.written().await;
            let again = scene.send(&key, method.clone(), &path, &body).await;
            assert!(is_replayed(&again), "{shown}: {}", again.text);
            let secret = SECRETS.iter().any(|field| first.body.get(field).is_some())
                || path.starts_with("/v1/imports");
            match secret && first.status.is_success() {
                true => assert_eq!(again.refusal(), "409 answer_not_kept", "{shown}"),
                false => assert_eq!((again.status, &again.text), (first.status, &first.text)),
            }
            assert_eq!(scene.written().await, written, "{shown}: it was done twice");
            let other = json!({ "something": "else" });
            let other = scene.send(&key, method, &path, &other).await;
            assert_eq!(other.refusal(), "422 idempotency_key_reused", "{shown}");
            (walked, fulfilled) = (walked + 1, fulfilled + usize::from(first.status.is_success()));
        }
    }
    assert!(walked >= 44 && fulfilled >= 20, "{walked} walked, {fulfilled} fulfilled");
    scene.house.close().await;
}

/// The same of what is no event: users, keys, leave. On two nodes, by somebody who is signed in on
/// both.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_admin_writes_beside_the_ledger_is_done_once_too() {
    let house = House::new().await;
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let (second, stop, running) = house.second().await;
    let send = async |address, key: &str, method, path: &str, body: &Value| {
        let mut request = request(method, path, None, body.to_string().into());
        request.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        admin.put_on(&mut request);
        ask(address, request).await
    };
    let count = async |of: &str| -> i64 {
        let count = format!("select count(*) from {of}");
        sqlx::query_scalar(&count).fetch_one(&house.pools.writer).await.unwrap()
    };
    let invite = json!({ "login": "p@example.org", "name": "P", "role": "payroll" });
    let lines = count("trail").await;
    let tries = (0..20).map(|n| {
        let address = if n % 2 == 0 { house.address } else { second };
        send(address, "invite", Method::POST, "/v1/users", &invite)
    });
    let answers = join_all(tries).await;
    let mut made = answers.iter().filter(|answer| answer.status == StatusCode::CREATED);
    let invited = made.next().unwrap().body["user"].as_str().unwrap().to_owned();
    assert!(made.next().is_none(), "the link is given once");
    assert_eq!(count("users").await, 2);
    assert_eq!(count("trail").await, lines + 2, "that they were invited, and their link");
    let again = send(second, "invite", Method::POST, "/v1/users", &invite).await;
    assert_eq!(again.refusal(), "409 answer_not_kept");
    // A refusal leaves nothing behind, and is kept.
    let taken = json!({ "login": "P@example.org", "name": "Q", "role": "payroll" });
    let refused = send(second, "taken", Method::POST, "/v1/users", &taken).await;
    assert_eq!(refused.refusal(), "409 conflict");
    let again = send(house.address, "taken", Method::POST, "/v1/users", &taken).await;
    assert!(is_replayed(&again) && again.text == refused.text, "{}", again.text);
    assert_eq!(count("users").await, 2);
    let (path, role) = (format!("/v1/users/{invited}/role"), json!({ "role": "auditor" }));
    for (address, replayed) in [(house.address, false), (second, true)] {
        let answer = send(address, "role", Method::PUT, &path, &role).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
        assert_eq!(is_replayed(&answer), replayed);
    }
    assert_eq!(count("trail where act = 'role_changed'").await, 1);
    // Of one's own session, too: the new cookie is given once.
    let change = json!({ "current": PASSWORD, "password": "four doors, no key" });
    let path = "/v1/session/password";
    let changed = send(second, "password", Method::POST, path, &change).await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT, "{}", changed.text);
    let again = send(house.address, "password", Method::POST, path, &change).await;
    assert_eq!(again.refusal(), "401 unauthenticated", "the session was rotated");
    let anew = Person::Browser(callers::cookies(&changed));
    let own = anew.ask(&house, Method::GET, "/v1/session", &Value::Null).await;
    assert_eq!(own.status, StatusCode::OK, "one store of sessions: {}", own.text);
    stop.cancel();
    running.await.unwrap();
    house.close().await;
}
