//! What devices read, report and upload, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Answer, Device, House, request};
use hyper::{Method, StatusCode};
use punchtrail_infra::testing::sqlx;
use punchtrail_protocol::{Digest, EmployeeId, SiteId, capture::PunchKind};
use serde_json::{Value, json};

async fn with_people(count: usize) -> (House, SiteId, Vec<EmployeeId>, Device) {
    let house = House::new().await;
    let site = house.site().await;
    let mut people = Vec::new();
    for n in 0..count {
        people.push(house.employee(site, &format!("B{n:03}"), &format!("Person {n:03}")).await);
    }
    let device = house.device(site).await;
    (house, site, people, device)
}

async fn get(house: &House, device: &Device, path: &str) -> Answer {
    let mut request = request(Method::GET, path, Some(&device.token), axum::body::Body::empty());
    let head = house.ledger.head().await.unwrap();
    request.headers_mut().insert("punchtrail-after", head.0.into());
    house.ask(request).await
}

#[tokio::test]
async fn a_manifest_is_walked_in_pages_of_one_version() {
    let (house, site, people, device) = with_people(7).await;
    let path = format!("/v1/sites/{site}/manifest?limit=3");
    let mut seen: Vec<String> = Vec::new();
    let mut page = get(&house, &device, &path).await.body;
    let version = page["roster"].clone();
    loop {
        for row in page["data"].as_array().unwrap() {
            assert_eq!(row["pin"], Value::Null);
            assert_eq!(row["face"], false);
            seen.push(row["employee"].as_str().unwrap().to_owned());
        }
        assert_eq!(page["roster"], version);
        assert_eq!(page["policy"]["batch_max"], 200);
        if page["has_more"] == false {
            assert_eq!(page["next_cursor"], Value::Null);
            break;
        }
        let cursor = page["next_cursor"].as_str().unwrap();
        page = get(&house, &device, &format!("{path}&cursor={cursor}")).await.body;
    }
    seen.sort();
    let mut expected: Vec<_> = people.iter().map(EmployeeId::to_string).collect();
    expected.sort();
    assert_eq!(seen, expected);
    let beat = house.beat(&device).await;
    assert_eq!(beat.body["roster"], version);
    assert_eq!(beat.body["commands"], false);
    house.close().await;
}

#[tokio::test]
async fn a_walk_of_an_outdated_roster_starts_over() {
    let (house, site, _, device) = with_people(4).await;
    let path = format!("/v1/sites/{site}/manifest?limit=2");
    let page = get(&house, &device, &path).await.body;
    let next = format!("{path}&cursor={}", page["next_cursor"].as_str().unwrap());
    house.employee(site, "NEW", "Newcomer").await;
    assert_eq!(get(&house, &device, &next).await.refusal(), "409 roster_changed");
    let again = get(&house, &device, &path).await.body;
    assert_ne!(again["roster"], page["roster"]);
    let foreign = format!("{path}&cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(get(&house, &device, &foreign).await.refusal(), "400 cursor_invalid");
    for (limit, refusal) in [
        ("0", "422 invalid: limit invalid_value"),
        ("1001", "422 invalid: limit invalid_value"),
        ("many", "422 invalid: limit invalid_value"),
    ] {
        let path = format!("/v1/sites/{site}/manifest?limit={limit}");
        assert_eq!(get(&house, &device, &path).await.refusal(), refusal);
    }
    house.close().await;
}

#[tokio::test]
async fn a_new_policy_reaches_the_device() {
    let (house, site, _, device) = with_people(1).await;
    let path = format!("/v1/sites/{site}/manifest");
    let before = get(&house, &device, &path).await.body;
    let policy = json!({ "batch_max": 50, "photos": true });
    let written = house
        .send(
            Method::PUT,
            &format!("/v1/sites/{site}/policy"),
            Some(&house.key),
            policy.to_string(),
        )
        .await;
    assert_eq!(written.status, StatusCode::OK, "{}", written.text);
    let after = get(&house, &device, &path).await.body;
    assert_eq!(after["policy"]["batch_max"], 50);
    assert_eq!(after["data"][0]["face"], true);
    assert_ne!(after["roster"], before["roster"]);
    house.close().await;
}

#[tokio::test]
async fn people_are_found_by_name_and_badge() {
    let (house, site, _, device) = with_people(0).await;
    let ada = house.employee(site, "A-17", "Ada Łovelace").await;
    let _other = house.employee(site, "C-99", "Charles Babbage").await;
    for q in ["ada", "LOVELACE", "lovelcae", "A-17"] {
        let path = format!("/v1/sites/{site}/employees?q={q}");
        let found = get(&house, &device, &path).await.body;
        assert_eq!(found["data"][0]["employee"], ada.to_string(), "{q}: {found}");
        assert!(found["data"][0].get("pin").is_none());
    }
    let long = "x".repeat(65);
    for (query, refusal) in [
        ("q=", "422 invalid: q invalid_value"),
        ("", "422 invalid: q missing_field"),
        ("q=a&p=b", "422 invalid: p unknown_field"),
        ("q=%00", "422 invalid: q invalid_value"),
        (&format!("q={long}"), "422 invalid: q invalid_value"),
    ] {
        let path = format!("/v1/sites/{site}/employees?{query}");
        assert_eq!(get(&house, &device, &path).await.refusal(), refusal, "{query}");
    }
    house.close().await;
}

#[tokio::test]
async fn the_feed_gives_each_punch_at_its_latest_change() {
    let (house, site, people, mut device) = with_people(1).await;
    let items: Vec<Value> = (0..5).map(|_| device.next(people[0], PunchKind::In)).collect();
    let delivered = house.deliver(&device, &items).await;
    house.settled().await;
    let path = format!("/v1/sites/{site}/punches");
    let first = get(&house, &device, &format!("{path}?limit=2")).await.body;
    assert_eq!(first["data"].as_array().unwrap().len(), 2);
    assert_eq!(first["has_more"], true);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = get(&house, &device, &format!("{path}?since={cursor}")).await.body;
    assert_eq!(rest["data"].as_array().unwrap().len(), 3);
    let end = rest["next_cursor"].as_str().unwrap();
    let empty = get(&house, &device, &format!("{path}?since={end}")).await.body;
    assert_eq!((&empty["data"], &empty["has_more"]), (&json!([]), &json!(false)));
    assert!(empty["next_cursor"].is_string());
    let punch = delivered.body["results"][0]["punch"].as_str().unwrap();
    let ruling = json!({ "decision": "reject", "reason": "wrong_person" });
    let ruled = house.write(&format!("/v1/punches/{punch}/decision"), &ruling).await;
    assert_eq!(ruled.status, StatusCode::OK, "{}", ruled.text);
    let changed = get(&house, &device, &format!("{path}?since={end}")).await.body;
    assert_eq!(changed["data"].as_array().unwrap().len(), 1);
    assert_eq!(changed["data"][0]["punch"], punch);
    assert_eq!(changed["data"][0]["standing"], "rejected");
    house.close().await;
}

#[tokio::test]
async fn a_feeds_cursor_is_bound_to_its_site_and_to_the_ledger() {
    let (house, site, people, mut device) = with_people(1).await;
    let item = device.next(people[0], PunchKind::In);
    house.deliver(&device, &[item]).await;
    let path = format!("/v1/sites/{site}/punches");
    let cursor = get(&house, &device, &path).await.body["next_cursor"].as_str().unwrap().to_owned();
    let elsewhere = house.site().await;
    let other = house.device(elsewhere).await;
    let foreign = format!("/v1/sites/{elsewhere}/punches?since={cursor}");
    assert_eq!(get(&house, &other, &foreign).await.refusal(), "400 cursor_invalid");
    let flipped = if cursor.starts_with('A') { "B" } else { "A" };
    for bad in [format!("{flipped}{}", &cursor[1..]), "x".to_owned(), String::new()] {
        let path = format!("{path}?since={bad}");
        assert_eq!(get(&house, &device, &path).await.refusal(), "400 cursor_invalid", "{bad}");
    }
    // After a restore another event stands at the cursor's position: what only a superuser can do.
    let owner = house.pools.owner.begin().await;
    let mut restored = owner.unwrap();
    for statement in [
        "alter table events disable trigger events_append_only",
        "update events set leaf_hash = sha256('another') where aggregate_type = 'punch'",
        "alter table events enable always trigger events_append_only",
    ] {
        sqlx::query(statement).execute(&mut *restored).await.unwrap();
    }
    restored.commit().await.unwrap();
    let path = format!("{path}?since={cursor}");
    assert_eq!(get(&house, &device, &path).await.refusal(), "400 cursor_invalid");
    house.close().await;
}

#[tokio::test]
async fn heartbeats_are_checked() {
    let (house, _, _, device) = with_people(0).await;
    let path = "/v1/devices/self/heartbeat";
    let with = |field: &str, value: Value| {
        let mut body = device.heartbeat();
        body[field] = value;
        body
    };
    for (body, refusal) in [
        (with("outbox", json!(-1)), "422 invalid: /outbox invalid_value"),
        (with("outbox", json!(1.5)), "422 invalid: /outbox invalid_value"),
        (with("seq", json!(1_u64 << 53)), "422 invalid: /seq invalid_value"),
        (with("clock", json!("now")), "422 invalid: /clock invalid_value"),
        (with("boot", json!("X")), "422 invalid: /boot invalid_value"),
        (with("app", json!("x".repeat(65))), "422 invalid: /app invalid_value"),
        (with("mood", json!("good")), "422 invalid: /mood unknown_field"),
        (json!({}), "422 invalid: /outbox missing_field"),
    ] {
        let answer = house.post(path, Some(&device.token), &body).await;
        assert_eq!(answer.refusal(), refusal, "{body}");
    }
    let waiting = with("oldest", json!("2026-11-21T08:59:03.120Z"));
    let answer = house.post(path, Some(&device.token), &waiting).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let shown = house.read(&format!("/v1/devices/{}", device.id)).await.body;
    assert_eq!(shown["report"]["oldest"], "2026-11-21T08:59:03.120Z", "{shown}");
    house.close().await;
}

const JPEG: &[u8] = b"\xff\xd8\xff\xe0 a picture of a worker";

#[tokio::test]
async fn photos_are_kept_once_by_their_digest() {
    let (house, _, _, device) = with_people(0).await;
    let put = async |name: String, kind: &str, bytes: &[u8], token: Option<&str>| {
        let path = format!("/v1/photos/{name}");
        let mut request = request(Method::PUT, &path, token, bytes.to_vec().into());
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        house.ask(request).await
    };
    let token = Some(device.token.as_str());
    let digest = Digest::of(JPEG).to_string();
    let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 2 << 20]].concat();
    let png_digest = Digest::of(&png).to_string();
    let new = put(digest.clone(), "image/jpeg", JPEG, token).await;
    assert_eq!(new.status, StatusCode::CREATED);
    let again = put(digest.clone(), "image/jpeg", JPEG, token).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(put(png_digest, "image/png", &png, token).await.status, StatusCode::CREATED);
    let huge = vec![0xff; (5 << 20) + 1];
    for (name, kind, bytes, token, refusal) in [
        (digest.clone(), "image/gif", JPEG, token, "415 unsupported_media_type"),
        (digest.clone(), "image/jpeg", b"GIF89a".as_slice(), token, "415 unsupported_media_type"),
        (digest.clone(), "image/jpeg", b"", token, "415 unsupported_media_type"),
        (digest.clone(), "image/jpeg", huge.as_slice(), token, "413 payload_too_large"),
        (Digest::of(b"x").to_string(), "image/jpeg", JPEG, token, "422 digest_mismatch"),
        (digest.to_uppercase(), "image/jpeg", JPEG, token, "404 not_found"),
        ("../../etc/passwd".to_owned(), "image/jpeg", JPEG, token, "404 not_found"),
        (digest.clone(), "image/jpeg", JPEG, None, "401 unauthenticated"),
        (digest.clone(), "image/jpeg", JPEG, Some(house.key.as_str()), "403 forbidden"),
    ] {
        assert_eq!(put(name, kind, bytes, token).await.refusal(), refusal);
    }
    house.close().await;
}

#[tokio::test]
async fn every_answer_to_a_device_says_where_the_ledger_stands() {
    let house = House::new().await;
    let site = house.site().await;
    let device = house.device(site).await;
    let beat = house.beat(&device).await;
    let epoch = beat.body["history"]["epochs"][0]["epoch"].as_str().unwrap().to_owned();
    let token = Some(device.token.as_str());
    let batch = format!("/v1/sites/{site}/punches/batch");
    let answers = [
        beat,
        house.get(&format!("/v1/sites/{site}/manifest"), token).await,
        house.get(&format!("/v1/sites/{site}/employees?q=a"), token).await,
        house.get(&format!("/v1/sites/{site}/punches"), token).await,
        house.post(&batch, token, &json!({ "punches": [] })).await,
        house.post(&batch, token, &json!([])).await,
        house.send(Method::PUT, "/v1/photos/x", token, "").await,
        house.post("/v1/devices/enroll", None, &json!({})).await,
    ];
    for answer in answers {
        let told = answer.headers.get("punchtrail-epoch").map(|told| told.to_str().unwrap());
        assert_eq!(told, Some(epoch.as_str()), "{}", answer.text);
        let position: u64 = answer.headers["punchtrail-ledger"].to_str().unwrap().parse().unwrap();
        assert!(position > 0, "{}", answer.text);
    }
    let stranger = house.get(&format!("/v1/sites/{site}/manifest"), None).await;
    assert_eq!(stranger.refusal(), "401 unauthenticated");
    assert!(!stranger.headers.contains_key("punchtrail-ledger"));
    house.close().await;
}
